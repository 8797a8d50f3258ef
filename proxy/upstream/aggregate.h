/* Aggregate clusters: the priorities of other clusters, one behind the other, balanced as if they
 * were one cluster's.
 * Threads: config immutable; levels worker-local. Spec: extensions.clusters.aggregate.v3; Envoy's
 * "Aggregate cluster".
 * As with Envoy, an aggregate has no hosts of its own: as a member of another one, or of itself, it
 * adds nothing, so cycles are harmless. */
#ifndef SLUICE_UPSTREAM_AGGREGATE_H
#define SLUICE_UPSTREAM_AGGREGATE_H

#include "proxy/upstream/cluster.h"

struct aggregate_config {
    const slot_t *members; /* clusters, the preferred first */
    unsigned members_n;
};

/* The member that this request goes to, and in *ctx the priority it has to be at. NULL: no member
 * has a host. Borrowed for the event: cluster_hold() keeps it. */
struct cluster_view *aggregate_choose(struct cluster_view *v, struct lb_context *ctx);
/* The cluster to pick a host from: `v`, or a member when it is an aggregate. */
static inline struct cluster_view *cluster_view_member(struct cluster_view *v,
                                                       struct lb_context *ctx) {
    return LIKELY(v->cfg->type != CLUSTER_TYPE_AGGREGATE) ? v : aggregate_choose(v, ctx);
}

/* What a request keeps of the members whose hosts it met: a list in its arena. */
struct cluster_hold {
    struct cluster_hold *next;
    struct cluster_view *view; /* a ref */
    struct hosts_pin *pin;
};
/* Keep `v`, and every host valid that is picked from it from now on. Once for each view. */
void cluster_hold(struct cluster_hold **list, struct cluster_view *v, struct arena *a);
void cluster_holds_release(struct cluster_hold **list);

/* Priorities of a cluster, or levels of an aggregate, of which a retry avoids those it tried. */
#define PRIORITIES_TRIED_MAX 256u /* what is beyond is never avoided */
struct priorities_tried {
    uint64_t bits[PRIORITIES_TRIED_MAX / 64];
};
static inline void priorities_tried_add(struct priorities_tried *t, unsigned priority) {
    if (priority < PRIORITIES_TRIED_MAX) {
        t->bits[priority / 64] |= 1ull << (priority % 64);
    }
}
static inline bool priorities_tried_none(const struct priorities_tried *t) {
    return !(t->bits[0] | t->bits[1] | t->bits[2] | t->bits[3]);
}
_Static_assert(PRIORITIES_TRIED_MAX == 256, "priorities_tried_none");
/* Shares of v's priorities without those of `t`, in `a`. When those were all that have any
 * availability, `t` is emptied first. Returns how many there are; 0: none has any availability. */
unsigned cluster_loads_without(struct cluster_view *v, struct priorities_tried *t, struct arena *a,
                               const struct lb_priority_load **out);

#endif
