/* Building host sets: from a cluster's endpoints, or anew from the same endpoints after health
 * changed.
 * Threads: the config thread (any one thread at a time); the result is immutable and shared.
 * Spec: endpoint.v3.ClusterLoadAssignment; Envoy's priority levels, degraded endpoints, panic,
 * locality weights.
 * Not here: endpoints from protos or DNS (config/), picking (cluster_view.c). */
#ifndef SLUICE_UPSTREAM_HOST_SET_H
#define SLUICE_UPSTREAM_HOST_SET_H

#include "proxy/upstream/cluster.h"

#define HOST_LOCALITIES_MAX 65535u /* in one priority; what is beyond shares the last one */

struct host_set_builder;
/* `previous` (may be NULL) is borrowed until finish: its hosts are taken over where nothing about
 * them changed. now_us is the monotonic time: birth of new hosts. */
struct host_set_builder *host_set_builder_new(const struct cluster_config *cfg,
                                              const struct host_set *previous, uint64_t now_us);
void host_set_builder_free(struct host_set_builder *b); /* without a result; NULL is fine */
/* ClusterLoadAssignment.policy; defaults 140, false. */
void host_set_builder_policy(struct host_set_builder *b, uint32_t overprovisioning_factor,
                             bool weighted_priority_health);
void host_set_builder_drop(struct host_set_builder *b, uint32_t numerator, uint32_t denominator);
/* Before hosts are added: they are checked actively: new ones begin as failed (and as not counted,
 * where the cluster ignores new hosts until their first check); those of `previous` whose checks
 * pass stay although they were not added again, unless ignore_health_on_host_removal is set. */
void host_set_builder_checked(struct host_set_builder *b);
/* A locality of a priority; weight 0 when it has none. Returns its handle. The same id again in a
 * priority is the same one. */
unsigned host_set_builder_locality(struct host_set_builder *b, unsigned priority,
                                   const struct locality *id, uint32_t weight);
/* A host in a locality. transport_match: index into the cluster's matches, UINT16_MAX: the default.
 * eds_flags: of host_flags_of_eds(). The address again in the same priority is left out.
 * spec->locality is filled in here. */
void host_set_builder_add(struct host_set_builder *b, unsigned locality,
                          const struct host_spec *spec, uint32_t weight, uint16_t transport_match,
                          uint32_t eds_flags);

struct host_set_diff {
    unsigned added, removed; /* hosts (objects) beside the previous set */
    unsigned priorities;     /* in how many priorities hosts came or went */
};
/* Frees b. A set with one ref. `diff` may be NULL. */
struct host_set *host_set_builder_finish(struct host_set_builder *b, struct host_set_diff *diff);

/* The same endpoints with the health their hosts have now: lists, loads and tables are made anew,
 * hosts are not touched. */
struct host_set *host_set_rebuild(const struct cluster_config *cfg, const struct host_set *set);

/* The entries `which` (ascending indices) of a set as a set of their own, which must not outlive
 * it. Localities have weight as cfg->subsets says. */
struct host_set *host_set_subset(const struct cluster_config *cfg, const struct host_set *of,
                                 const uint32_t *which, unsigned n);

/* host_load.c: fill healthy_load_pct, degraded_load_pct and is_panic of all priorities from their
 * lists. */
void host_load_compute(struct host_set *s, uint32_t panic_pct);

#endif
