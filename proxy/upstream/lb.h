/* What the built-in balancing policies share. Their vtables are rows of filters/filters.def.
 * Threads: configs are immutable. Spec: extensions.load_balancing_policies.common.v3. */
#ifndef SLUICE_UPSTREAM_LB_H
#define SLUICE_UPSTREAM_LB_H

#include "proxy/api/lb_policy.h"

/* First member of every compiled policy config of ours. */
struct lb_common {
    bool locality_weighted; /* locality_weighted_lb_config was given in the policy itself */
    bool fail_traffic_on_panic;
    bool has_zone_aware; /* zone_aware_lb_config was given in the policy itself */
    double zone_routing_pct;
    uint64_t zone_min_cluster_size;
    uint64_t slow_start_us;       /* 0: off */
    double slow_start_aggression; /* 1 */
    double slow_start_min_weight; /* 0.1 */
};

extern const struct lb_policy_type round_robin_lb_policy, least_request_lb_policy, random_lb_policy,
    ring_hash_lb_policy, maglev_lb_policy, cluster_provided_lb_policy;

/* The policy's own wish beside the cluster's; cfg may be NULL. */
static inline const struct lb_common *lb_common_of(const void *lb_config) { return lb_config; }

#endif
