/* Earliest-deadline-first picking: see edf.h. A binary heap; picking costs O(log n). */
#include "proxy/upstream/edf.h"

#include "proxy/base/check.h"
#include "proxy/base/mem.h"

#define WEIGHT_MIN 1e-9 /* what is lighter (slow start of a light host) waits no longer than this */

void edf_init(struct edf *e, uint32_t cap) {
    *e = (struct edf){.v = xnew_array(struct edf_entry, cap), .cap = cap};
}

void edf_fini(struct edf *e) {
    xfree(e->v);
    *e = (struct edf){0};
}

static bool is_before(const struct edf_entry *a, const struct edf_entry *b) {
    return a->deadline < b->deadline || (a->deadline == b->deadline && a->order < b->order);
}

static void sift_up(struct edf *e, uint32_t i) {
    struct edf_entry x = e->v[i];
    for (; i && is_before(&x, &e->v[(i - 1) / 2]); i = (i - 1) / 2) {
        e->v[i] = e->v[(i - 1) / 2];
    }
    e->v[i] = x;
}

static void sift_down(struct edf *e, uint32_t i) {
    struct edf_entry x = e->v[i];
    for (uint32_t child; (child = 2 * i + 1) < e->n; i = child) {
        child += child + 1 < e->n && is_before(&e->v[child + 1], &e->v[child]);
        if (!is_before(&e->v[child], &x)) {
            break;
        }
        e->v[i] = e->v[child];
    }
    e->v[i] = x;
}

static struct edf_entry next_turn(struct edf *e, uint32_t item, double weight) {
    return (struct edf_entry){e->now + 1.0 / (weight > WEIGHT_MIN ? weight : WEIGHT_MIN),
                              e->orders++, item};
}

void edf_add(struct edf *e, uint32_t item, double weight) {
    CHECK(e->n < e->cap);
    e->v[e->n++] = next_turn(e, item, weight);
    sift_up(e, e->n - 1);
}

void edf_advance(struct edf *e, double weight) {
    ASSERT(e->n);
    e->now = e->v[0].deadline;
    e->v[0] = next_turn(e, e->v[0].item, weight);
    sift_down(e, 0);
}
