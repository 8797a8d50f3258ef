/* One thread's event loop: a libuv loop, a mailbox other threads post to, end-of-batch tasks, deferred frees, a clock.
 * Threads: everything is called on the loop's own thread, except loop_post() and loop_stop(). */
#ifndef SLUICE_EVENT_LOOP_H
#define SLUICE_EVENT_LOOP_H

#include <uv.h>

#include "proxy/base/list.h"
#include "proxy/base/rand.h"

struct loop;
struct timer_wheel;

/* A message posted to another thread's loop; embedded in what it carries. Owned by the loop until `run` is called, then by
 * `run`. */
struct loop_msg {
    struct loop_msg *next_;
    void (*run)(struct loop *l, struct loop_msg *m);
};

/* A task that runs once, after all I/O callbacks of the current poll batch (write coalescing). May be re-queued by itself. */
struct loop_task {
    struct list node_;
    void (*run)(struct loop_task *t);
};

/* Freed after the current callback stack has unwound; embedded in the object. */
struct loop_garbage {
    struct loop_garbage *next_;
    void (*free)(struct loop_garbage *g);
};

struct loop {
    uv_loop_t uv;
    struct timer_wheel *wheel;   /* event/timer.c */
    struct rng rng;              /* this thread's generator */
    unsigned thread_index;       /* 0: main, 1: config, 2..: workers; index of stats shards */
    void *owner;                 /* the thread's root object (struct worker …) */
    /* private */
    uint64_t now_us_;
    uint64_t wall_offset_us_;
    struct loop_msg *mailbox_;   /* shared, atomic: LIFO pushed by any thread, reversed by the reader */
    uv_async_t async_;
    uv_prepare_t prepare_;
    uv_check_t check_;
    struct list tasks_;
    struct loop_garbage *garbage_;
    bool stop_;                  /* shared, atomic */
};

int loop_init(struct loop *l, unsigned thread_index) MUST_USE; /* 0 or UV_E… */
void loop_run(struct loop *l);   /* until loop_stop() */
void loop_stop(struct loop *l);  /* any thread */
/* Close loop-internal handles, run remaining garbage. Handles of others must be closed before. */
void loop_fini(struct loop *l);
/* Run pending events without blocking (tests, shutdown). */
void loop_run_nowait(struct loop *l);

void loop_post(struct loop *l, struct loop_msg *m); /* any thread; order per sender is kept */
/* Run fn(arg) on the loop's thread; allocates a message. Any thread. */
void loop_call(struct loop *l, void (*fn)(struct loop *l, void *arg), void *arg);

void loop_queue_task(struct loop *l, struct loop_task *t); /* idempotent while queued */
void loop_cancel_task(struct loop_task *t);
void loop_defer_free(struct loop *l, struct loop_garbage *g);

/* Monotonic time of the current batch, microseconds / milliseconds; refreshed once after each poll. */
static inline uint64_t loop_now_us(const struct loop *l) { return l->now_us_; }
static inline uint64_t loop_now_ms(const struct loop *l) { return l->now_us_ / 1000; }
/* Wall clock (Unix epoch, microseconds) that belongs to a monotonic time. */
static inline uint64_t loop_wall_us(const struct loop *l, uint64_t mono_us) { return mono_us + l->wall_offset_us_; }
uint64_t loop_refresh_now(struct loop *l); /* read the clock now; returns now_us */

/* Readiness watch on a fd (uv_poll): level-triggered. The fd stays the caller's until io_close. */
#define IO_READ 1
#define IO_WRITE 2
struct io {
    uv_poll_t poll_;
    uint8_t want_;
    bool open_;
    void (*on_ready_)(struct io *io, int events, int status);
    void (*on_closed_)(struct io *io);
};
int io_open(struct io *io, struct loop *l, int fd, void (*on_ready)(struct io *io, int events, int status)) MUST_USE;
/* Change what is watched; no system call when nothing changes. `status` < 0 in on_ready: UV_E…, treat as readable. */
void io_want(struct io *io, int events);
/* Stop watching at once, close(fd), then on_closed after the loop let go of the handle: free the memory only there.
 * With on_closed NULL the memory may be freed only after the loop ended. */
void io_close(struct io *io, int fd, void (*on_closed)(struct io *io));

#endif
