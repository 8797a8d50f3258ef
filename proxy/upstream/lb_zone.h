/* Zone-aware routing: how much of the traffic stays in our own locality, and where the rest goes,
 * so that every zone gets its part.
 * Threads: a state is one worker's. Spec: CommonLbConfig.ZoneAwareLbConfig, bootstrap's
 * cluster_manager.local_cluster_name; Envoy's "Zone aware routing".
 * Not here: picking a host in the locality (cluster_view.c). */
#ifndef SLUICE_UPSTREAM_LB_ZONE_H
#define SLUICE_UPSTREAM_LB_ZONE_H

#include "proxy/api/compile.h"
#include "proxy/base/rand.h"
#include "proxy/stats/stats.h"
#include "proxy/upstream/host.h"

struct lb_zone_config {
    double routing_pct;        /* routing_enabled: 100 */
    uint64_t min_cluster_size; /* 6 healthy hosts */
    slot_t local_cluster;      /* of those like us */
    const struct locality *local;
};

#define LB_ZONE_ROUTING_PCT 100.0 /* Envoy's defaults */
#define LB_ZONE_MIN_CLUSTER_SIZE 6u

#define LB_ZONE_NONE UINT32_MAX /* all healthy hosts */
#define LB_ZONE_FAIL (UINT32_MAX - 1)

struct lb_zone;
/* From the first priority of `s` and of the local cluster (NULL: it has no hosts). Counts in `st`
 * (CLUSTER_lb_…) why nothing is to be gained. Never NULL; xfree() it. panic_pct: the cluster's. */
struct lb_zone *lb_zone_new(const struct lb_zone_config *c, const struct host_set *s,
                            const struct host_set *local, uint32_t panic_pct,
                            struct stats_shard *st);
/* The locality of the first priority to pick from, LB_ZONE_NONE, or LB_ZONE_FAIL when the local
 * cluster is in panic and `fails_in_panic`. */
uint32_t lb_zone_choose(const struct lb_zone *z, struct rng *r, bool fails_in_panic,
                        struct stats_shard *st);

#endif
