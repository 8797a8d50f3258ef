/* Subset balancing: hosts are divided by the values of their metadata, and a request whose route
 * has criteria is balanced over the hosts that fit.
 * Threads: subsets are built with their host set on the config thread and immutable; choosing is
 * read-only. Spec: cluster.v3.Cluster.LbSubsetConfig; Envoy's "Load balancer subsets".
 * Not here: picking a host in a subset (cluster_view.c). */
#ifndef SLUICE_UPSTREAM_LB_SUBSET_H
#define SLUICE_UPSTREAM_LB_SUBSET_H

#include "proxy/api/metadata_match.h"
#include "proxy/upstream/cluster.h"

#define LB_SUBSET_KEYS_MAX 32u   /* of one selector */
#define LB_SUBSETS_MAX 65536u    /* of one cluster; values beyond make none, and are told of */
#define LB_SUBSET_ALL UINT32_MAX /* in place of a subset's number: all hosts */
#define LB_SUBSET_NONE (UINT32_MAX - 1)

enum subset_fallback {
    SUBSET_FALLBACK_NONE,
    SUBSET_FALLBACK_ANY,
    SUBSET_FALLBACK_DEFAULT,
    SUBSET_FALLBACK_KEYS,    /* selectors: the same request with fewer criteria */
    SUBSET_FALLBACK_CLUSTER, /* selectors: what the cluster says */
};
struct subset_selector {
    const sv *keys; /* ascending, each once */
    unsigned keys_n;
    enum subset_fallback fallback;
    const sv *fallback_keys; /* ascending; fewer than keys */
    unsigned fallback_keys_n;
};
struct subset_config {
    const struct subset_selector *selectors;
    unsigned selectors_n;
    enum subset_fallback fallback; /* NONE, ANY or DEFAULT */
    const struct metadata_match *default_subset;
    bool locality_weight_aware, scale_locality_weight, panic_mode_any, list_as_any;
};

struct lb_subsets;
/* Of cfg->subsets. Lives in the set's arena; freed with it. */
struct lb_subsets *lb_subsets_build(const struct cluster_config *cfg, struct host_set *s);
void lb_subsets_free(struct lb_subsets *t);            /* NULL is fine */
unsigned lb_subsets_count(const struct lb_subsets *t); /* numbers are below it; NULL: 0 */
/* How many of t's are not in `other`; either may be NULL. */
unsigned lb_subsets_new(const struct lb_subsets *t, const struct lb_subsets *other);
const struct host_set *lb_subset_hosts(const struct lb_subsets *t, uint32_t number);
/* The subset for these criteria (NULL: none): its number, LB_SUBSET_ALL or LB_SUBSET_NONE. Counts
 * in `st` (CLUSTER_lb_subsets_*). */
uint32_t lb_subset_choose(const struct subset_config *c, const struct lb_subsets *t,
                          const struct metadata_match *m, struct stats_shard *st);

#endif
