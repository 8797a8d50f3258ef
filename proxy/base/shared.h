/* Atomically refcounted immutable objects that cross threads inside snapshots. Refs move on
 * publish, adopt and retire only; a worker's requests count on the worker's own view objects
 * instead. */
#ifndef SLUICE_BASE_SHARED_H
#define SLUICE_BASE_SHARED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proxy/base/check.h"

struct shared {
    uint32_t refs; /* atomic */
    /* runs on whichever thread drops the last ref; must be safe there */
    void (*free)(struct shared *self);
};

static inline void shared_init(struct shared *s, void (*free_fn)(struct shared *)) {
    s->refs = 1;
    s->free = free_fn;
}
static inline void *shared_ref_(struct shared *s) {
    if (s) {
        __atomic_add_fetch(&s->refs, 1, __ATOMIC_RELAXED);
    }
    return s;
}
static inline void shared_unref(struct shared *s) {
    if (s && __atomic_sub_fetch(&s->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        s->free(s);
    }
}
/* Nobody but the caller has it, or can come to have it. */
static inline bool shared_is_last(struct shared *s) {
    return __atomic_load_n(&s->refs, __ATOMIC_ACQUIRE) == 1;
}
/* p points to an object whose first member is `struct shared shared`. */
#define shared_ref(p) ((__typeof__(p))shared_ref_(&(p)->shared))

#endif
