/* Earliest-deadline-first picking: entries come up in proportion to their weights, interleaved as
 * evenly as they can be.
 * Threads: one owner. Spec: Envoy's EdfScheduler: an entry's next deadline is the time of its pick
 * plus 1/weight; equal deadlines go in the order of insertion. */
#ifndef SLUICE_UPSTREAM_EDF_H
#define SLUICE_UPSTREAM_EDF_H

#include <stdbool.h>
#include <stdint.h>

struct edf_entry {
    double deadline;
    uint64_t order;
    uint32_t item;
};
struct edf {
    struct edf_entry *v; /* binary heap */
    uint32_t n, cap;
    uint64_t orders;
    double now;
};
void edf_init(struct edf *e, uint32_t cap);
void edf_fini(struct edf *e);
/* weight > 0; at most cap items at a time */
void edf_add(struct edf *e, uint32_t item, double weight);
/* The item whose turn it is, UINT32_MAX: none. It stays in front until edf_advance. */
static inline uint32_t edf_peek(const struct edf *e) { return e->n ? e->v[0].item : UINT32_MAX; }
/* The front item has been picked: it comes up again by `weight`, its weight from now on. */
void edf_advance(struct edf *e, double weight);

#endif
