/* Millisecond timers on a hierarchical wheel: O(1) start and cancel; the loop sleeps until the next
 * one is due.
 * Threads: the loop's own. A timer never fires early; it fires within about 1 ms after it is
 * due. */
#ifndef SLUICE_EVENT_TIMER_H
#define SLUICE_EVENT_TIMER_H

#include "proxy/base/list.h"
#include "proxy/event/loop.h"

struct timer {
    struct list node_;
    struct timer_wheel *wheel_;
    uint64_t due_ms_;
    void (*fn_)(
        struct timer
            *t); /* use CONTAINER_OF to reach the owner; may start, cancel or free the timer */
};

void timer_init(struct timer *t, struct loop *l, void (*fn)(struct timer *t));
/* (Re)arm to fire once, `after_ms` from now (0: in the next loop turn). */
void timer_start(struct timer *t, uint64_t after_ms);
void timer_cancel(
    struct timer *t); /* final: fn is not called after it returns. Fine on an idle timer */
static inline bool timer_active(const struct timer *t) { return list_linked(&t->node_); }
static inline uint64_t timer_due_ms(const struct timer *t) {
    return t->due_ms_;
} /* loop_now_ms clock */

struct timer_wheel *timer_wheel_new(struct loop *l);
void timer_wheel_free(struct timer_wheel *w);
/* Fire everything due at now_ms; for tests on a fake clock (wheel made with l == NULL). */
void timer_wheel_advance(struct timer_wheel *w, uint64_t now_ms);
/* A time before which nothing is due (not always the due time itself); UINT64_MAX: no timer is
 * running. */
uint64_t timer_wheel_next_ms(const struct timer_wheel *w);
void timer_init_wheel(struct timer *t, struct timer_wheel *w, void (*fn)(struct timer *t));

#endif
