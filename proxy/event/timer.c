/* Timers on a hierarchical wheel with an occupancy bit per slot: start and cancel are O(1), and the
 * next slot to look at is found by counting zeros. Memory per timer is the timer itself; per wheel
 * about 7 KB.
 * Threads: the loop's own. Not here: the clock (loop.c, or the test).
 * 
 * A timer sits on the level of the highest 6-bit digit in which its due time differs from `now_ms`,
 * in the slot of that digit. So everything on a lower level is due before everything on a higher
 * one, slots of a level are due in order, and the lowest occupied slot of the lowest occupied level
 * bounds the next due time from below. */
#include "proxy/event/timer.h"

#include "proxy/base/mem.h"

#define DIGIT_BITS 6u
#define SLOTS (1u << DIGIT_BITS)
#define LEVELS 7u
#define AFTER_MAX_MS (1ull << 40) /* about 35 years */

struct timer_wheel {
    struct loop *loop; /* NULL: a fake clock */
    uint64_t now_ms;
    uint64_t occupied[LEVELS]; /* a bit per slot */
    struct list ready;         /* due now: fires in the next advance */
    struct list slots[LEVELS][SLOTS];
};

static unsigned digit_of(uint64_t ms, unsigned level) {
    return (unsigned)(ms >> (level * DIGIT_BITS)) & (SLOTS - 1);
}

static void place(struct timer_wheel *w, struct timer *t) {
    uint64_t differs = t->due_ms_ ^ w->now_ms;
    if (t->due_ms_ <= w->now_ms) {
        list_push_back(&w->ready, &t->node_);
        return;
    }
    unsigned level = (63u - (unsigned)__builtin_clzll(differs)) / DIGIT_BITS;
    /* Past the last level only after 139 years of uptime: the top slot is then looked at early and
     * placed again. */
    unsigned slot = level < LEVELS ? digit_of(t->due_ms_, level) : SLOTS - 1;
    level = level < LEVELS ? level : LEVELS - 1;
    list_push_back(&w->slots[level][slot], &t->node_);
    w->occupied[level] |= 1ull << slot;
}

/* Unlink, clearing the slot's bit when it became empty: an only node's neighbours are both the list
 * head. */
static void unplace(struct timer_wheel *w, struct timer *t) {
    struct list *head = t->node_.next;
    bool is_only = head == t->node_.prev;
    list_unlink(&t->node_);
    struct list *first = &w->slots[0][0];
    if (is_only && head >= first && head < first + LEVELS * SLOTS) {
        size_t i = (size_t)(head - first);
        w->occupied[i / SLOTS] &= ~(1ull << (i % SLOTS));
    }
}

static bool next_slot(const struct timer_wheel *w, unsigned *level, unsigned *slot,
                      uint64_t *at_ms) {
    for (unsigned i = 0; i < LEVELS; i++) {
        if (!w->occupied[i]) {
            continue;
        }
        *level = i;
        *slot = (unsigned)__builtin_ctzll(w->occupied[i]);
        uint64_t above = w->now_ms >> ((i + 1) * DIGIT_BITS) << ((i + 1) * DIGIT_BITS);
        *at_ms = above | (uint64_t)*slot << (i * DIGIT_BITS);
        return true;
    }
    return false;
}

uint64_t timer_wheel_next_ms(const struct timer_wheel *w) {
    unsigned level, slot;
    uint64_t at_ms;
    if (!list_empty(&w->ready)) {
        return w->now_ms;
    }
    return next_slot(w, &level, &slot, &at_ms) ? at_ms : UINT64_MAX;
}

/* Move what is due up to `to_ms` onto w->ready, in order of due time. */
static void collect(struct timer_wheel *w, uint64_t to_ms) {
    unsigned level, slot;
    uint64_t at_ms;
    while (next_slot(w, &level, &slot, &at_ms) && at_ms <= to_ms) {
        w->now_ms = at_ms > w->now_ms ? at_ms : w->now_ms;
        w->occupied[level] &= ~(1ull << slot);
        struct list moved;
        list_init(&moved);
        list_splice_back(&moved, &w->slots[level][slot]);
        for (struct list *n; (n = list_pop_front(&moved));) {
            place(w, LIST_ENTRY(n, struct timer, node_));
        }
    }
    w->now_ms = to_ms > w->now_ms ? to_ms : w->now_ms;
}

void timer_wheel_advance(struct timer_wheel *w, uint64_t now_ms) {
    collect(w, now_ms);
    /* What callbacks start with nothing to wait for belongs to the next turn. */
    struct list due;
    list_init(&due);
    list_splice_back(&due, &w->ready);
    for (struct list *n; (n = list_pop_front(&due));) {
        struct timer *t = LIST_ENTRY(n, struct timer, node_);
        t->fn_(t);
    }
}

struct timer_wheel *timer_wheel_new(struct loop *l) {
    struct timer_wheel *w = xnew(struct timer_wheel);
    w->loop = l;
    w->now_ms = l ? loop_now_ms(l) : 0;
    list_init(&w->ready);
    for (unsigned i = 0; i < LEVELS * SLOTS; i++) {
        list_init(&w->slots[i / SLOTS][i % SLOTS]);
    }
    return w;
}

void timer_wheel_free(struct timer_wheel *w) { xfree(w); }

void timer_init_wheel(struct timer *t, struct timer_wheel *w, void (*fn)(struct timer *t)) {
    *t = (struct timer){.wheel_ = w, .fn_ = fn};
}

void timer_init(struct timer *t, struct loop *l, void (*fn)(struct timer *t)) {
    timer_init_wheel(t, l->wheel, fn);
}

void timer_start(struct timer *t, uint64_t after_ms) {
    struct timer_wheel *w = t->wheel_;
    timer_cancel(t);
    after_ms = after_ms < AFTER_MAX_MS ? after_ms : AFTER_MAX_MS;
    /* Rounded up to the next millisecond: never early. */
    uint64_t now_ms = w->now_ms;
    if (w->loop && after_ms) {
        now_ms = (w->loop->now_us_ + 999) / 1000;
    }
    t->due_ms_ = now_ms + after_ms;
    place(w, t);
}

void timer_cancel(struct timer *t) {
    if (timer_active(t)) {
        unplace(t->wheel_, t);
    }
}
