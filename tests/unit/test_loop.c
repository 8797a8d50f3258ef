/* The event loop: messages across threads, tasks, deferred frees, watches, libuv inside it. */
#include <pthread.h>
#include <sys/socket.h>

#include "proxy/base/mem.h"
#include "proxy/event/loop.h"
#include "proxy/event/timer.h"
#include "tests/support/unit.h"

static struct loop loop;

static int setup(void **state) {
    (void)state;
    return loop_init(&loop, 0);
}
static int teardown(void **state) {
    (void)state;
    loop_fini(&loop);
    return 0;
}

/* ---- messages ---- */

struct note {
    struct loop_msg msg;
    unsigned sender, number;
};
static unsigned next_number[4], received;

static void on_note(struct loop *l, struct loop_msg *m) {
    struct note *n = CONTAINER_OF(m, struct note, msg);
    assert_int_equal(n->number, next_number[n->sender]++);
    if (++received == 4000) {
        loop_stop(l);
    }
    xfree(n);
}
static void *send_notes(void *arg) {
    for (unsigned i = 0; i < 1000; i++) {
        struct note *n = xnew(struct note);
        n->msg.run = on_note;
        n->sender = *(unsigned *)arg;
        n->number = i;
        loop_post(&loop, &n->msg);
    }
    return NULL;
}
static void order_per_sender(void **state) {
    (void)state;
    pthread_t threads[4];
    unsigned ids[4] = {0, 1, 2, 3};
    received = 0;
    memset(next_number, 0, sizeof(next_number));
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, send_notes, &ids[i]), 0);
    }
    loop_run(&loop);
    for (unsigned i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(received, 4000);
}

static unsigned calls;
static void on_call(struct loop *l, void *arg) {
    assert_ptr_equal(l, &loop);
    calls += *(unsigned *)arg;
}
static void call_runs_in_the_next_turn(void **state) {
    (void)state;
    unsigned n = 3;
    calls = 0;
    loop_call(&loop, on_call, &n);
    assert_int_equal(calls, 0);
    loop_run_nowait(&loop);
    assert_int_equal(calls, 3);
    loop_call(&loop, on_call, &n);
    loop_fini(&loop); /* what is left is run, nothing leaks */
    assert_int_equal(calls, 6);
    assert_int_equal(loop_init(&loop, 0), 0);
}

/* ---- tasks, garbage ---- */

struct job {
    struct loop_task task;
    unsigned runs, again;
    struct loop_garbage garbage;
};
static void on_job(struct loop_task *t) {
    struct job *j = CONTAINER_OF(t, struct job, task);
    j->runs++;
    if (j->again) {
        j->again--;
        loop_queue_task(&loop, t);
    }
}
static void tasks_once_and_bounded(void **state) {
    (void)state;
    struct job a = {.task.run = on_job}, b = {.task.run = on_job, .again = 1000};
    loop_queue_task(&loop, &a.task);
    loop_queue_task(&loop, &a.task);
    loop_queue_task(&loop, &b.task);
    loop_run_nowait(&loop);
    assert_int_equal(a.runs, 1);
    assert_in_range(b.runs, 1, 16); /* a task that queues itself does not keep the turn */
    loop_cancel_task(&b.task);
    loop_queue_task(&loop, &a.task);
    loop_cancel_task(&a.task);
    loop_cancel_task(&a.task);
    loop_run_nowait(&loop);
    assert_int_equal(a.runs, 1);
}

static unsigned freed;
static void on_free(struct loop_garbage *g) {
    freed++;
    xfree(CONTAINER_OF(g, struct job, garbage));
}
static void garbage_after_the_turn(void **state) {
    (void)state;
    struct job *j = xnew(struct job);
    j->garbage.free = on_free;
    freed = 0;
    loop_defer_free(&loop, &j->garbage);
    assert_int_equal(freed, 0);
    loop_run_nowait(&loop);
    assert_int_equal(freed, 1);
}

/* ---- watches ---- */

struct end {
    struct io io;
    int fd;
    unsigned reads, writes, closed;
    int status;
    struct end *closes; /* closed by this one's callback */
};
static void on_end_closed(struct io *io) { CONTAINER_OF(io, struct end, io)->closed++; }
static void on_end_ready(struct io *io, int events, int status) {
    struct end *e = CONTAINER_OF(io, struct end, io);
    e->status = status;
    e->reads += (events & IO_READ) != 0;
    e->writes += (events & IO_WRITE) != 0;
    if (e->closes) {
        struct end *other = e->closes;
        e->closes = NULL;
        io_close(&other->io, other->fd, on_end_closed);
    }
}
static void open_pair(struct end e[2]) {
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    for (int i = 0; i < 2; i++) {
        e[i] = (struct end){.fd = fds[i]};
        assert_int_equal(io_open(&e[i].io, &loop, fds[i], on_end_ready), 0);
    }
}
static void close_pair(struct end e[2]) {
    for (int i = 0; i < 2; i++) {
        if (e[i].io.is_open_) {
            io_close(&e[i].io, e[i].fd, on_end_closed);
        }
    }
    loop_run_nowait(&loop);
    assert_int_equal(e[0].closed, 1);
    assert_int_equal(e[1].closed, 1);
}

static void watch_is_level_triggered(void **state) {
    (void)state;
    struct end e[2];
    open_pair(e);
    io_want(&e[0].io, IO_READ);
    loop_run_nowait(&loop);
    assert_int_equal(e[0].reads, 0);
    assert_int_equal(write(e[1].fd, "x", 1), 1);
    for (unsigned i = 1; i < 4; i++) {
        loop_run_nowait(&loop);
        assert_int_equal(e[0].reads, i);
    }
    io_want(&e[0].io, 0);
    loop_run_nowait(&loop);
    loop_run_nowait(&loop);
    assert_int_equal(e[0].reads, 3);
    io_want(&e[0].io, IO_READ | IO_WRITE);
    loop_run_nowait(&loop);
    assert_int_equal(e[0].reads, 4);
    assert_int_equal(e[0].writes, 1);
    close_pair(e);
}

static void on_mail_before(struct loop *l, void *arg) {
    struct end *e = arg;
    assert_ptr_equal(l, &loop);
    assert_int_equal(e->reads, 0);
    calls++;
}
static void messages_before_what_came_with_them(void **state) {
    (void)state;
    struct end e[2];
    open_pair(e);
    calls = 0;
    io_want(&e[0].io, IO_READ);
    assert_int_equal(write(e[1].fd, "x", 1), 1); /* the kernel lists it first */
    loop_call(&loop, on_mail_before, &e[0]);
    loop_run_nowait(&loop);
    assert_int_equal(calls, 1);
    assert_int_equal(e[0].reads, 1);
    close_pair(e);
}

static void edge_reports_news_only(void **state) {
    (void)state;
    struct end e[2];
    open_pair(e);
    io_want(&e[0].io, IO_READ | IO_EDGE);
    for (unsigned i = 1; i < 4; i++) {
        assert_int_equal(write(e[1].fd, "x", 1), 1);
        loop_run_nowait(&loop);
        loop_run_nowait(&loop);
        assert_int_equal(e[0].reads, i);
    }
    shutdown(e[1].fd, SHUT_WR);
    loop_run_nowait(&loop);
    assert_int_equal(e[0].reads, 4);
    close_pair(e);
}

static void hang_up_with_nothing_wanted(void **state) {
    (void)state;
    struct end e[2];
    open_pair(e);
    io_want(&e[0].io, IO_READ);
    loop_run_nowait(&loop);
    io_want(&e[0].io, 0);
    io_close(&e[1].io, e[1].fd, on_end_closed);
    for (int i = 0; i < 3; i++) {
        loop_run_nowait(&loop);
    }
    assert_int_equal(e[0].reads, 0);
    assert_false(e[0].io.is_registered_); /* no event that nobody takes comes again and again */
    io_want(&e[0].io, IO_READ);
    loop_run_nowait(&loop);
    assert_int_equal(e[0].reads, 1);
    close_pair(e);
}

static void closed_by_a_callback_of_the_same_batch(void **state) {
    (void)state;
    struct end e[2];
    open_pair(e);
    for (int i = 0; i < 2; i++) {
        io_want(&e[i].io, IO_READ);
        assert_int_equal(write(e[!i].fd, "x", 1), 1);
        e[i].closes = &e[!i];
    }
    loop_run_nowait(&loop);
    assert_int_equal(e[0].reads + e[1].reads, 1);
    assert_int_equal(e[0].closed + e[1].closed, 1);
    close_pair(e);
}

static void unwatchable_fd_is_told(void **state) {
    (void)state;
    char path[] = "/tmp/sluice-test-XXXXXX";
    struct end e = {.fd = mkstemp(path)};
    assert_true(e.fd >= 0);
    unlink(path);
    assert_int_equal(io_open(&e.io, &loop, -1, on_end_ready), UV_EBADF);
    assert_int_equal(io_open(&e.io, &loop, e.fd, on_end_ready), 0);
    io_want(&e.io, IO_READ); /* epoll takes no regular files */
    loop_run_nowait(&loop);
    assert_int_equal(e.status, UV_EPERM);
    io_close(&e.io, e.fd, on_end_closed);
    loop_run_nowait(&loop);
    assert_int_equal(e.closed, 1);
}

struct freed_watch {
    struct loop_garbage garbage;
    struct io io;
};
static void on_watch_freed(struct loop_garbage *g) { memset(g, 0xff, sizeof(struct freed_watch)); }

/* Whoever wants no word of the end may free the memory at the end of the turn, though the kernel
 * refused the watch in the same turn. */
static void refused_watch_is_forgotten_when_closed(void **state) {
    (void)state;
    char path[] = "/tmp/sluice-test-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    unlink(path);
    struct freed_watch w[3];
    for (unsigned i = 0; i < 3; i++) {
        w[i].garbage.free = on_watch_freed;
        assert_int_equal(io_open(&w[i].io, &loop, fd, on_end_ready), 0);
        io_want(&w[i].io, IO_READ);
    }
    static const unsigned order[] = {1, 2, 0};
    for (unsigned i = 0; i < 3; i++) {
        io_close(&w[order[i]].io, -1, NULL);
        loop_defer_free(&loop, &w[order[i]].garbage);
    }
    loop_run_nowait(&loop);
    loop_run_nowait(&loop);
    close(fd);
}

static void exclusive_watch_ends_with_its_fd(void **state) {
    (void)state;
    struct end e[2];
    open_pair(e);
    io_set_exclusive(&e[0].io);
    io_want(&e[0].io, IO_READ);
    assert_int_equal(write(e[1].fd, "x", 1), 1);
    io_close(&e[0].io, e[0].fd, on_end_closed);
    loop_run_nowait(&loop);
    assert_int_equal(e[0].reads, 0);
    close_pair(e);
}

/* ---- libuv and timers inside ---- */

static void on_uv_timer(uv_timer_t *t) {
    uv_close((uv_handle_t *)t, NULL);
    loop_stop(&loop);
}
static void uv_handles_work(void **state) {
    (void)state;
    uv_timer_t t;
    uv_timer_init(&loop.uv, &t);
    uv_timer_start(&t, on_uv_timer, 5, 0);
    uint64_t begin = loop_refresh_now(&loop);
    loop_run(&loop);
    assert_true(loop_refresh_now(&loop) - begin >= 4000);
    loop_run_nowait(&loop);
}

static void on_timer(struct timer *t) {
    (void)t;
    loop_stop(&loop);
}
static void timer_wakes_and_is_not_early(void **state) {
    (void)state;
    struct timer t;
    timer_init(&t, &loop, on_timer);
    uint64_t begin = loop_refresh_now(&loop);
    timer_start(&t, 7);
    loop_run(&loop);
    uint64_t took = loop_refresh_now(&loop) - begin;
    assert_true(took >= 7000);
    assert_true(loop_wall_us(&loop, loop_now_us(&loop)) > 1600000000000000u);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(order_per_sender, setup, teardown),
        cmocka_unit_test_setup_teardown(call_runs_in_the_next_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(tasks_once_and_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(garbage_after_the_turn, setup, teardown),
        cmocka_unit_test_setup_teardown(watch_is_level_triggered, setup, teardown),
        cmocka_unit_test_setup_teardown(messages_before_what_came_with_them, setup, teardown),
        cmocka_unit_test_setup_teardown(edge_reports_news_only, setup, teardown),
        cmocka_unit_test_setup_teardown(hang_up_with_nothing_wanted, setup, teardown),
        cmocka_unit_test_setup_teardown(closed_by_a_callback_of_the_same_batch, setup, teardown),
        cmocka_unit_test_setup_teardown(unwatchable_fd_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(refused_watch_is_forgotten_when_closed, setup, teardown),
        cmocka_unit_test_setup_teardown(exclusive_watch_ends_with_its_fd, setup, teardown),
        cmocka_unit_test_setup_teardown(uv_handles_work, setup, teardown),
        cmocka_unit_test_setup_teardown(timer_wakes_and_is_not_early, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
