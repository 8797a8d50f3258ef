/* One thread's event loop: readiness watches, a mailbox other threads post to, end-of-batch tasks,
 * deferred frees, a clock, and a libuv loop for what libuv does well. One turn: wait → I/O
 * callbacks → mailbox → uv → timers → tasks → frees.
 * Threads: everything is called on the loop's own thread, except loop_post() and loop_stop(). */
#ifndef SLUICE_EVENT_LOOP_H
#define SLUICE_EVENT_LOOP_H

#include <uv.h>

#include "proxy/base/check.h"
#include "proxy/base/list.h"
#include "proxy/base/rand.h"
#include "proxy/event/wake_moderation.h"

struct loop;
struct timer_wheel;

/* A message posted to another thread's loop; embedded in what it carries. Owned by the loop until
 * `run` is called, then by `run`. */
struct loop_msg {
    struct loop_msg *next_;
    void (*run)(struct loop *l, struct loop_msg *m);
};

/* A task that runs once, after all I/O callbacks of the current poll batch (write coalescing). May
 * be re-queued by itself: tasks that tasks queue run in the same turn for a few rounds, then in the
 * next one. */
struct loop_task {
    struct list node_;
    void (*run)(struct loop_task *t);
};

/* Freed after the current callback stack has unwound; embedded in the object. */
struct loop_garbage {
    struct loop_garbage *next_;
    void (*free)(struct loop_garbage *g);
};

struct io;
struct loop {
    uv_loop_t
        uv; /* for libuv's own kinds: signals, file watching; turned when it has something to do */
    struct timer_wheel *wheel; /* event/timer.c */
    struct rng rng;            /* this thread's generator */
    unsigned thread_index;     /* 0: main, 1: config, 2..: workers; index of stats shards */
    void *owner;               /* the thread's root object (struct worker …) */
    /* private */
    uint64_t now_us_;
    uint64_t wall_offset_us_;
    uint64_t wall_read_us_; /* when wall_offset_us_ was read */
    struct loop_msg
        *mailbox_; /* shared, atomic: LIFO pushed by any thread, reversed by the reader */
    int epoll_fd_; /* holds every struct io, wake_fd_ and the backend of uv */
    int wake_fd_;  /* eventfd: written by loop_post and loop_stop */
    struct list tasks_;
    struct io *attention_; /* closed or broken ones, looked at after the callbacks of this turn */
    struct loop_garbage *garbage_;
    bool stop_; /* shared, atomic */
    bool is_moderated_;
    struct wake_moderation moderation_;
    uint64_t moderation_read_us_;        /* when its limit was read */
    const struct loop_meter_ops *meter_; /* NULL: not measured */
    void *meter_arg_;
};

int loop_init(struct loop *l, unsigned thread_index) MUST_USE; /* 0 or UV_E… */
void loop_run(struct loop *l);                                 /* until loop_stop() */
void loop_stop(struct loop *l);                                /* any thread */
/* Run posted messages, tasks and deferred frees that remain, then close the loop. Watches and uv
 * handles of others must be closed before. */
void loop_fini(struct loop *l);
/* Run pending events without blocking (tests, shutdown). */
void loop_run_nowait(struct loop *l);

/* From now on the loop may pause for a moment before it waits, while many requests are in flight on
 * it (wake_moderation.h). The runtime key sluice.wake_moderation_us is the limit of a pause, 0 to
 * WAKE_PAUSE_US (the default), looked at once a second. Called on the loop's thread, before
 * loop_run: the thread's timers get finer. */
void loop_moderate_wakes(struct loop *l);
/* From now on each turn is measured. Called before loop_run. `arg` lives as long as the loop. */
struct loop_meter_ops {
    void (*on_turn)(void *arg, uint64_t busy_us); /* from its wake-up to its next wait */
    void (*on_late)(void *arg, uint64_t late_us); /* a wait for a timer took longer, by so much */
};
void loop_measure(struct loop *l, const struct loop_meter_ops *ops, void *arg);
/* A request began or ended on this loop. */
static inline void loop_request_began(struct loop *l) {
    l->moderation_.requests++;
    l->moderation_.changes++;
}
static inline void loop_request_ended(struct loop *l) {
    ASSERT(l->moderation_.requests > 0);
    l->moderation_.requests--;
    l->moderation_.changes++;
}
/* Pauses made so far. Any thread. */
static inline uint64_t loop_wake_pauses(const struct loop *l) {
    return __atomic_load_n(&l->moderation_.pauses, __ATOMIC_RELAXED);
}

void loop_post(struct loop *l, struct loop_msg *m); /* any thread; order per sender is kept */
/* Run fn(arg) on the loop's thread; allocates a message. Any thread. */
void loop_call(struct loop *l, void (*fn)(struct loop *l, void *arg), void *arg);

void loop_queue_task(struct loop *l, struct loop_task *t); /* idempotent while queued */
void loop_cancel_task(struct loop_task *t);
void loop_defer_free(struct loop *l, struct loop_garbage *g);

/* Monotonic time of the current batch, microseconds / milliseconds; refreshed once after each
 * poll. */
static inline uint64_t loop_now_us(const struct loop *l) { return l->now_us_; }
static inline uint64_t loop_now_ms(const struct loop *l) { return l->now_us_ / 1000; }
/* Wall clock (Unix epoch, microseconds) that belongs to a monotonic time. */
static inline uint64_t loop_wall_us(const struct loop *l, uint64_t mono_us) {
    return mono_us + l->wall_offset_us_;
}
uint64_t loop_refresh_now(struct loop *l); /* read the clock now; returns now_us */

/* Readiness watch on a fd: level-triggered. The fd stays the caller's until io_close. */
#define IO_READ 1
#define IO_WRITE 2
#define IO_EDGE \
    4 /* with IO_READ: report only news (more bytes, a close); for bytes that are peeked at, not taken */
#define IO_HANGUP \
    8 /* only reported, only with IO_EDGE: the peer will send no more than what is there */
struct io {
    struct loop *loop_;
    struct io *attention_next_;
    void (*on_ready_)(struct io *io, int events, int status);
    void (*on_closed_)(struct io *io);
    int fd_;
    int error_;    /* UV_E… to report: the kernel refused the watch */
    uint8_t want_; /* IO_* asked for */
    uint8_t
        /* IO_* the kernel watches: a superset of want_ between events, so that pausing costs
         * nothing */
        armed_;
    bool is_open_, is_registered_, is_exclusive_, has_attention_;
};
int io_open(struct io *io, struct loop *l, int fd,
            void (*on_ready)(struct io *io, int events, int status)) MUST_USE;
/* Nobody else holds this fd's file description (no dup, no fork): close(2) alone ends the watch,
 * one system call saved. */
static inline void io_set_exclusive(struct io *io) { io->is_exclusive_ = true; }
/* Change what is watched; rarely a system call when less is. A hang-up or error of the fd counts as
 * whatever is wanted; with nothing wanted it is left for later. `status` < 0 in on_ready: UV_E…,
 * the fd cannot be watched. */
void io_want(struct io *io, int events);
/* Stop watching at once, close(fd) unless it is -1, then on_closed after the callbacks of this
 * turn: free the memory only there. With on_closed NULL the memory may be freed only after the turn
 * (loop_defer_free). */
void io_close(struct io *io, int fd, void (*on_closed)(struct io *io));

#endif
