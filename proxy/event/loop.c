/* The event loop of a thread: an epoll set of its own with a libuv loop inside it.
 * Threads: the loop's own, except loop_post, loop_call and loop_stop. Spec: ARCHITECTURE.md,
 * threads.
 * Why not uv_poll: it needs five system calls to begin watching a fd, two for each change, and 160
 * bytes; a watch here needs one, one and 48. libuv still runs signals, file watching and other
 * handles: its backend fd is a member of our set.
 * Not here: timers (timer.c), sockets (net/). */
#include "proxy/event/loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/base/runtime.h"
#include "proxy/event/timer.h"

#define EVENTS_MAX 256    /* per turn: bounds the time until timers and tasks are looked at */
#define TASK_ROUNDS_MAX 4 /* of tasks queued by tasks, per turn */
#define WALL_REFRESH_US 1000000u       /* how soon a jump of the wall clock is noticed */
#define MODERATION_REFRESH_US 1000000u /* how soon a change of its runtime key is noticed */
#define TIMER_SLACK_NS 1000ul          /* of a moderated thread; Linux adds 50 us by default */
#define UV_CLOSE_TURNS_MAX 64          /* turns libuv gets in loop_fini to close its handles */

/* Marks in epoll's data for the two fds that are no struct io. */
static char mark_wake, mark_uv;

/* ---- clock ---- */

static uint64_t clock_us(clockid_t id) {
    struct timespec ts;
    CHECK(clock_gettime(id, &ts) == 0);
    return (uint64_t)ts.tv_sec * 1000000u + (uint64_t)ts.tv_nsec / 1000u;
}

uint64_t loop_refresh_now(struct loop *l) {
    l->now_us_ = clock_us(CLOCK_MONOTONIC);
    if (UNLIKELY(l->now_us_ - l->wall_read_us_ >= WALL_REFRESH_US)) {
        l->wall_read_us_ = l->now_us_;
        l->wall_offset_us_ = clock_us(CLOCK_REALTIME) - l->now_us_;
    }
    return l->now_us_;
}

/* ---- messages ---- */

static void wake(struct loop *l) {
    uint64_t one = 1;
    while (write(l->wake_fd_, &one, sizeof(one)) < 0 && errno == EINTR) {}
}

void loop_post(struct loop *l, struct loop_msg *m) {
    struct loop_msg *head = __atomic_load_n(&l->mailbox_, __ATOMIC_RELAXED);
    do {
        m->next_ = head;
    } while (!__atomic_compare_exchange_n(&l->mailbox_, &head, m, true, __ATOMIC_RELEASE,
                                          __ATOMIC_RELAXED));
    /* Whoever found it empty wakes; the others know that a wake-up is under way. */
    if (!head) {
        wake(l);
    }
}

static void run_mailbox(struct loop *l) {
    struct loop_msg *newest = __atomic_exchange_n(&l->mailbox_, NULL, __ATOMIC_ACQUIRE);
    struct loop_msg *oldest = NULL;
    while (newest) {
        struct loop_msg *next = newest->next_;
        newest->next_ = oldest;
        oldest = newest;
        newest = next;
    }
    while (oldest) {
        struct loop_msg *m = oldest;
        oldest = m->next_;
        m->run(l, m);
    }
}

struct call {
    struct loop_msg msg;
    void (*fn)(struct loop *l, void *arg);
    void *arg;
};

static void on_call(struct loop *l, struct loop_msg *m) {
    struct call *c = CONTAINER_OF(m, struct call, msg);
    c->fn(l, c->arg);
    xfree(c);
}

void loop_call(struct loop *l, void (*fn)(struct loop *l, void *arg), void *arg) {
    struct call *c = xnew(struct call);
    c->msg.run = on_call;
    c->fn = fn;
    c->arg = arg;
    loop_post(l, &c->msg);
}

void loop_stop(struct loop *l) {
    __atomic_store_n(&l->stop_, true, __ATOMIC_RELEASE);
    wake(l);
}

/* ---- tasks and garbage ---- */

void loop_queue_task(struct loop *l, struct loop_task *t) {
    if (!list_linked(&t->node_)) {
        list_push_back(&l->tasks_, &t->node_);
    }
}

void loop_cancel_task(struct loop_task *t) { list_unlink(&t->node_); }

static void run_tasks(struct loop *l) {
    for (unsigned round = 0; round < TASK_ROUNDS_MAX && !list_empty(&l->tasks_); round++) {
        struct list batch;
        list_init(&batch);
        list_splice_back(&batch, &l->tasks_);
        for (struct list *n; (n = list_pop_front(&batch));) {
            struct loop_task *t = LIST_ENTRY(n, struct loop_task, node_);
            t->run(t);
        }
    }
}

void loop_defer_free(struct loop *l, struct loop_garbage *g) {
    g->next_ = l->garbage_;
    l->garbage_ = g;
}

/* Oldest first, for freeing may depend on what was thrown away before. */
static void run_garbage(struct loop *l) {
    while (l->garbage_) {
        struct loop_garbage *oldest = NULL;
        while (l->garbage_) {
            struct loop_garbage *g = l->garbage_;
            l->garbage_ = g->next_;
            g->next_ = oldest;
            oldest = g;
        }
        while (oldest) {
            struct loop_garbage *g = oldest;
            oldest = g->next_;
            g->free(g);
        }
    }
}

/* ---- watches ---- */

static uint32_t epoll_bits(uint8_t events) {
    uint32_t bits = events & IO_READ ? EPOLLIN : 0;
    bits |= events & IO_WRITE ? EPOLLOUT : 0;
    return bits | (events & IO_EDGE ? EPOLLET | EPOLLRDHUP : 0);
}

static void want_attention(struct io *io) {
    if (!io->has_attention_) {
        io->has_attention_ = true;
        io->attention_next_ = io->loop_->attention_;
        io->loop_->attention_ = io;
    }
}

/* Its memory may go before attention is paid. */
static void forgo_attention(struct io *io) {
    for (struct io **at = &io->loop_->attention_; *at; at = &(*at)->attention_next_) {
        if (*at == io) {
            *at = io->attention_next_;
            io->has_attention_ = false;
            return;
        }
    }
}

/* Let the kernel watch exactly what is wanted. Nothing at all: out of the set, for it reports
 * hang-ups unasked. */
static void sync_watch(struct io *io) {
    uint8_t want = io->want_;
    int op = EPOLL_CTL_MOD;
    if (!io->is_registered_) {
        op = EPOLL_CTL_ADD;
    } else if (!want) {
        op = EPOLL_CTL_DEL;
    }
    struct epoll_event ev = {.events = epoll_bits(want), .data.ptr = io};
    if (epoll_ctl(io->loop_->epoll_fd_, op, io->fd_, &ev) != 0) {
        io->error_ = uv_translate_sys_error(errno);
        want_attention(io);
        return;
    }
    io->is_registered_ = op != EPOLL_CTL_DEL;
    io->armed_ = want;
}

int io_open(struct io *io, struct loop *l, int fd,
            void (*on_ready)(struct io *io, int events, int status)) {
    if (fd < 0) {
        return UV_EBADF;
    }
    *io = (struct io){.loop_ = l, .on_ready_ = on_ready, .fd_ = fd, .is_open_ = true};
    return 0;
}

void io_want(struct io *io, int events) {
    if (BUG(!io->is_open_)) {
        return;
    }
    io->want_ = (uint8_t)events;
    bool is_more = (io->want_ & ~io->armed_) != 0;
    /* An unwanted writability would fire at once, an unwanted readability perhaps never: only that
     * one may wait. */
    bool is_unwritable = (io->armed_ & ~io->want_ & IO_WRITE) != 0;
    if (is_more || is_unwritable) {
        sync_watch(io);
    }
}

void io_close(struct io *io, int fd, void (*on_closed)(struct io *io)) {
    if (BUG(!io->is_open_)) {
        return;
    }
    io->is_open_ = false;
    io->want_ = 0;
    io->on_closed_ = on_closed;
    if (io->is_registered_ && (!io->is_exclusive_ || fd < 0)) {
        struct epoll_event ev = {0};
        epoll_ctl(io->loop_->epoll_fd_, EPOLL_CTL_DEL, io->fd_, &ev);
    }
    io->is_registered_ = false;
    if (fd >= 0) {
        close(fd);
    }
    if (on_closed) {
        want_attention(io);
    } else if (io->has_attention_) { /* the kernel had refused the watch */
        forgo_attention(io);
    }
}

static void on_io_event(struct io *io, uint32_t bits) {
    if (!io->is_open_) {
        return; /* closed by an earlier callback of this turn */
    }
    int ready = bits & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR) ? IO_READ : 0;
    ready |= bits & (EPOLLOUT | EPOLLHUP | EPOLLERR) ? IO_WRITE : 0;
    ready &= io->want_;
    if ((io->want_ & IO_EDGE) && (bits & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) {
        ready |= IO_HANGUP;
    }
    if (ready) {
        io->on_ready_(io, ready, 0);
    } else if (!(io->want_ & IO_EDGE)) {
        sync_watch(io);
    }
}

/* Closed watches are let go of, refused ones are told. */
static void run_attention(struct loop *l) {
    struct io *io = l->attention_;
    l->attention_ = NULL;
    while (io) {
        struct io *next = io->attention_next_;
        io->has_attention_ = false;
        if (!io->is_open_) {
            if (io->on_closed_) {
                io->on_closed_(io);
            }
        } else if (io->error_) {
            int error = io->error_;
            io->error_ = 0;
            io->on_ready_(io, IO_READ | IO_WRITE, error);
        }
        io = next;
    }
}

/* ---- turns ---- */

static void drain_wake_fd(struct loop *l) {
    uint64_t count;
    while (read(l->wake_fd_, &count, sizeof(count)) < 0 && errno == EINTR) {}
}

/* Is anything waiting that no fd will report? */
static bool has_work(const struct loop *l) {
    return !list_empty(&l->tasks_) || l->garbage_ || l->attention_;
}

/* Milliseconds to sleep at most, rounded up; -1: for ever. */
static int sleep_ms(struct loop *l) {
    if (has_work(l) || __atomic_load_n(&l->stop_, __ATOMIC_ACQUIRE)) {
        return 0;
    }
    int uv_ms = -1;
    if (uv_loop_alive(&l->uv)) {
        uv_update_time(&l->uv);
        uv_ms = uv_backend_timeout(&l->uv);
    }
    uint64_t next_ms = timer_wheel_next_ms(l->wheel);
    if (next_ms == UINT64_MAX || uv_ms == 0) {
        return uv_ms;
    }
    uint64_t now_us = loop_refresh_now(l);
    uint64_t left_ms = next_ms * 1000 > now_us ? (next_ms * 1000 - now_us + 999) / 1000 : 0;
    int wheel_ms = left_ms < 60000 ? (int)left_ms : 60000;
    return uv_ms < 0 || wheel_ms < uv_ms ? wheel_ms : uv_ms;
}

static void read_moderation_limit(struct loop *l) {
    uint64_t us = runtime_u64(SV("sluice.wake_moderation_us"), WAKE_PAUSE_US);
    l->moderation_.limit_us = us < WAKE_PAUSE_US ? (uint32_t)us : WAKE_PAUSE_US;
    l->moderation_read_us_ = l->now_us_;
}

void loop_moderate_wakes(struct loop *l) {
    l->is_moderated_ = true;
    prctl(PR_SET_TIMERSLACK, TIMER_SLACK_NS); /* refused: pauses are longer by the default slack */
    loop_refresh_now(l);
    read_moderation_limit(l);
}

/* Pause before waiting for at most `timeout_ms` (-1: for ever), if that is worth it; returns what
 * is left of the time, in milliseconds, so that no timer is late. */
static int moderate(struct loop *l, int timeout_ms) {
    bool is_soon = timeout_ms == 0 || timeout_ms == 1;
    if (!l->is_moderated_ || is_soon || __atomic_load_n(&l->mailbox_, __ATOMIC_RELAXED)) {
        return timeout_ms;
    }
    uint64_t now_us = loop_refresh_now(l);
    if (UNLIKELY(now_us - l->moderation_read_us_ >= MODERATION_REFRESH_US)) {
        read_moderation_limit(l);
    }
    uint64_t pause_us = wake_moderation_pause(&l->moderation_, now_us);
    if (!pause_us) {
        return timeout_ms;
    }
    uint64_t until_us = now_us + pause_us;
    struct timespec until = {.tv_sec = (time_t)(until_us / 1000000u),
                             .tv_nsec = (long)(until_us % 1000000u) * 1000};
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL); /* a signal may end it early */
    return timeout_ms < 0 ? timeout_ms : timeout_ms - 1;
}

void loop_measure(struct loop *l, const struct loop_meter_ops *ops, void *arg) {
    l->meter_ = ops;
    l->meter_arg_ = arg;
}

/* Waiting for events is over, which `timeout_ms` (-1: none) should have ended. */
static void note_woken(const struct loop *l, uint64_t asleep_us, int timeout_ms) {
    uint64_t due_us = asleep_us + (uint64_t)timeout_ms * 1000;
    if (timeout_ms >= 0 && l->now_us_ > due_us) {
        l->meter_->on_late(l->meter_arg_, l->now_us_ - due_us);
    }
}

static bool has_mark(const struct epoll_event *events, int n, const char *mark) {
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr == mark) {
            return true;
        }
    }
    return false;
}

/* Messages first: a request that came after an update was published is served by it. */
static void run_events(struct loop *l, const struct epoll_event *events, int n) {
    if (has_mark(events, n, &mark_wake)) {
        drain_wake_fd(l);
        run_mailbox(l);
    }
    bool is_uv_ready = false;
    for (int i = 0; i < n; i++) {
        if (events[i].data.ptr == &mark_uv) {
            is_uv_ready = true;
        } else if (events[i].data.ptr != &mark_wake) {
            on_io_event(events[i].data.ptr, events[i].events);
        }
    }
    if (is_uv_ready) {
        uv_run(&l->uv, UV_RUN_NOWAIT);
    }
}

static void turn(struct loop *l, bool may_sleep) {
    struct epoll_event events[EVENTS_MAX];
    /* libuv's timers, closed handles, and handles made since: it adds those to its backend only
     * while it runs. */
    if (uv_loop_alive(&l->uv)) {
        uv_run(&l->uv, UV_RUN_NOWAIT);
    }
    int timeout_ms = may_sleep ? moderate(l, sleep_ms(l)) : 0;
    uint64_t asleep_us = UNLIKELY(l->meter_ != NULL) ? loop_refresh_now(l) : 0;
    int n = epoll_wait(l->epoll_fd_, events, EVENTS_MAX, timeout_ms);
    CHECK(n >= 0 || errno == EINTR);
    uint64_t woken_us = loop_refresh_now(l);
    wake_moderation_woke(&l->moderation_, woken_us);
    if (UNLIKELY(l->meter_ != NULL)) {
        note_woken(l, asleep_us, timeout_ms);
    }
    run_events(l, events, n);
    timer_wheel_advance(l->wheel, loop_now_ms(l));
    run_tasks(l);
    run_garbage(l);
    run_attention(l);
    if (UNLIKELY(l->meter_ != NULL)) {
        l->meter_->on_turn(l->meter_arg_, loop_refresh_now(l) - woken_us);
    }
}

void loop_run(struct loop *l) {
    while (!__atomic_load_n(&l->stop_, __ATOMIC_ACQUIRE)) {
        turn(l, true);
    }
    __atomic_store_n(&l->stop_, false, __ATOMIC_RELEASE);
}

void loop_run_nowait(struct loop *l) { turn(l, false); }

/* ---- life ---- */

static int add_mark(struct loop *l, int fd, char *mark) {
    struct epoll_event ev = {.events = EPOLLIN, .data.ptr = mark};
    return epoll_ctl(l->epoll_fd_, EPOLL_CTL_ADD, fd, &ev) == 0 ? 0 : uv_translate_sys_error(errno);
}

static int open_fds(struct loop *l) {
    l->epoll_fd_ = epoll_create1(EPOLL_CLOEXEC);
    if (l->epoll_fd_ < 0) {
        return uv_translate_sys_error(errno);
    }
    l->wake_fd_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->wake_fd_ < 0) {
        return uv_translate_sys_error(errno);
    }
    int rc = add_mark(l, l->wake_fd_, &mark_wake);
    return rc ? rc : add_mark(l, uv_backend_fd(&l->uv), &mark_uv);
}

static void close_fds(struct loop *l) {
    if (l->wake_fd_ >= 0) {
        close(l->wake_fd_);
    }
    if (l->epoll_fd_ >= 0) {
        close(l->epoll_fd_);
    }
}

int loop_init(struct loop *l, unsigned thread_index) {
    *l = (struct loop){.thread_index = thread_index, .epoll_fd_ = -1, .wake_fd_ = -1};
    int rc = uv_loop_init(&l->uv);
    if (rc) {
        return rc;
    }
    rc = open_fds(l);
    if (rc) {
        close_fds(l);
        uv_loop_close(&l->uv);
        return rc;
    }
    list_init(&l->tasks_);
    rng_init(&l->rng);
    loop_refresh_now(l);
    l->wheel = timer_wheel_new(l);
    return 0;
}

void loop_fini(struct loop *l) {
    run_mailbox(l);
    run_tasks(l);
    run_garbage(l);
    run_attention(l);
    run_garbage(l);
    for (unsigned i = 0; uv_loop_alive(&l->uv) && i < UV_CLOSE_TURNS_MAX; i++) {
        uv_run(&l->uv, UV_RUN_NOWAIT);
    }
    int rc = uv_loop_close(&l->uv);
    if (BUG(rc != 0)) {
        log_error(LOG_main, "event loop closed with handles open: %s", uv_strerror(rc));
    }
    timer_wheel_free(l->wheel);
    l->wheel = NULL;
    close_fds(l);
}
