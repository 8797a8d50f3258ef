/* Zone-aware routing: see lb_zone.h. */
#include "proxy/upstream/lb_zone.h"

#include "proxy/base/mem.h"
#include "proxy/base/runtime.h"
#include "proxy/upstream/cluster_stats.h"

#define WHOLE 10000u /* parts are counted in these */

struct lb_zone {
    bool is_routed, is_direct, is_local_in_panic;
    double routing_pct;
    uint32_t own;        /* our locality; UINT32_MAX: the cluster has none */
    uint64_t local_part; /* of WHOLE that stays, unless all of it does */
    unsigned n;
    uint64_t residual[]; /* capacity for others, summed up over localities */
};

static uint32_t find(const struct host_priority *p, const struct locality *id) {
    for (uint32_t i = 0; i < p->localities_n; i++) {
        if (locality_cmp(&p->localities[i].id, id) == 0) {
            return i;
        }
    }
    return UINT32_MAX;
}

static bool is_in_panic(const struct host_priority *p, uint32_t panic_pct) {
    unsigned counted = p->n - p->excluded;
    unsigned usable = p->healthy.n + p->degraded.n;
    return 100.0 * usable < (double)panic_pct * counted || !counted;
}

/* Whether there is anything to route; counts why not. */
static bool is_possible(const struct lb_zone_config *c, const struct host_priority *up,
                        const struct host_set *local, struct stats_shard *st) {
    if (up->localities_n < 2) {
        return false;
    }
    const struct host_priority *lp = local ? &local->priorities[0] : NULL;
    if (!lp || !lp->n) {
        stats_inc(st, CLUSTER_lb_local_cluster_not_ok);
        return false;
    }
    if (find(lp, c->local) == UINT32_MAX) {
        return false;
    }
    uint64_t min = runtime_u64(SV("upstream.zone_routing.min_cluster_size"), c->min_cluster_size);
    if (up->healthy.n < min) {
        stats_inc(st, CLUSTER_lb_zone_cluster_too_small);
        return false;
    }
    return true;
}

/* A locality's part of a cluster's healthy hosts. */
static uint64_t part(const struct host_priority *p, uint32_t locality) {
    if (locality == UINT32_MAX || !p->healthy.n) {
        return 0;
    }
    return (uint64_t)WHOLE * p->localities[locality].healthy_n / p->healthy.n;
}

static void divide(struct lb_zone *z, const struct host_priority *up,
                   const struct host_priority *local) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < z->n; i++) {
        uint64_t there = part(up, i), here = part(local, find(local, &up->localities[i].id));
        if (i != z->own) { /* what our own can take it has already */
            sum += there > here ? there - here : 0;
        } else if (there && there >= here) {
            z->is_direct = true;
        } else {
            z->local_part = here ? there * WHOLE / here : 0;
        }
        z->residual[i] = sum;
    }
}

struct lb_zone *lb_zone_new(const struct lb_zone_config *c, const struct host_set *s,
                            const struct host_set *local, uint32_t panic_pct,
                            struct stats_shard *st) {
    const struct host_priority *up = &s->priorities[0];
    struct lb_zone *z = xcalloc(1, sizeof(*z) + up->localities_n * sizeof(z->residual[0]));
    stats_inc(st, CLUSTER_lb_recalculate_zone_structures);
    z->n = up->localities_n;
    z->is_routed = is_possible(c, up, local, st);
    if (!z->is_routed) {
        return z;
    }
    z->own = find(up, c->local);
    z->routing_pct = runtime_double(SV("upstream.zone_routing.enabled"), c->routing_pct);
    z->is_local_in_panic = is_in_panic(&local->priorities[0], panic_pct);
    divide(z, up, &local->priorities[0]);
    return z;
}

static uint32_t cross(const struct lb_zone *z, struct rng *r, struct stats_shard *st) {
    stats_inc(st, CLUSTER_lb_zone_routing_cross_zone);
    uint64_t total = z->residual[z->n - 1];
    if (!total) { /* by rounding */
        stats_inc(st, CLUSTER_lb_zone_no_capacity_left);
        return (uint32_t)rng_below(r, z->n);
    }
    uint64_t at = rng_below(r, total);
    uint32_t i = 0;
    while (z->residual[i] <= at) {
        i++;
    }
    return i;
}

uint32_t lb_zone_choose(const struct lb_zone *z, struct rng *r, bool fails_in_panic,
                        struct stats_shard *st) {
    if (!z->is_routed || rng_unit(r) * 100 >= z->routing_pct) {
        return LB_ZONE_NONE;
    }
    if (z->is_local_in_panic) {
        stats_inc(st, CLUSTER_lb_local_cluster_not_ok);
        return fails_in_panic ? LB_ZONE_FAIL : LB_ZONE_NONE;
    }
    if (z->is_direct) {
        stats_inc(st, CLUSTER_lb_zone_routing_all_directly);
        return z->own;
    }
    if (rng_below(r, WHOLE) < z->local_part) {
        stats_inc(st, CLUSTER_lb_zone_routing_sampled);
        return z->own;
    }
    return cross(z, r, st);
}
