/* Load-balancing policies: tables built on the config thread per host set (immutable), picking with
 * a worker's cursor.
 * Spec: cluster.v3.Cluster.lb_policy, config.cluster.v3.LoadBalancingPolicy and its extensions. */
#ifndef SLUICE_API_LB_POLICY_H
#define SLUICE_API_LB_POLICY_H

#include "proxy/api/compile.h"
#include "proxy/base/rand.h"

struct host;
struct host_set; /* immutable: priorities → localities → hosts (upstream/host.h) */
struct host_entry;
struct host_list; /* the eligible hosts to pick among: weights, EDF inputs (upstream/host.h) */

/* A priority's shares of traffic, in percent. */
struct lb_priority_load {
    uint32_t healthy_pct, degraded_pct;
};

/* What a pick may depend on. All borrowed for the call. */
struct lb_context {
    uint64_t hash;
    bool has_hash;
    struct rng *rng;
    uint64_t now_us; /* loop time: slow start; set by cluster_view_pick */
    /* requests of the whole cluster (bounded-load hashing); set by cluster_view_pick */
    uint64_t cluster_rq_active;
    /* how many hosts of this pick were avoided so far; set by cluster_view_pick */
    unsigned attempt;
    /* Retry predicates: should this host be avoided? NULL: never. Tried at most `avoid_max` times,
     * then taken anyway. */
    bool (*avoid)(const struct host *h, void *arg);
    void *avoid_arg;
    unsigned avoid_max;
    /* Retry priorities: shares by priority, or by level of an aggregate, instead of the host set's;
     * NULL: those. */
    const struct lb_priority_load *priority_loads;
    unsigned priority_loads_n;
    /* An aggregate chose `priority` of the member, whose healthy or degraded hosts; `level`: among
     * the aggregate's. Set by cluster_view_member. */
    bool has_priority, is_priority_degraded;
    unsigned level;
    /* that was picked from; UINT_MAX: an override host's. Set by cluster_view_pick */
    unsigned priority;
    /* Subset selection: metadata_match criteria of the route; NULL: none. */
    const struct metadata_match *metadata_match;
    const struct addr *override_host; /* stateful session; NULL: none */
    bool override_strict;
    const struct conn *downstream; /* ORIGINAL_DST, source-address hashing; NULL: none */
    const struct headers *request; /* ORIGINAL_DST by header, dynamic hosts; NULL: none */
    /* dynamic hosts: filter state, server name; NULL: none */
    const struct stream_info *si;
};

struct lb_policy_type {
    const char *name;      /* "envoy.load_balancing_policies.round_robin" */
    const char *enum_name; /* of Cluster.lb_policy: "ROUND_ROBIN" */
    const char *type_url;  /* of the typed extension config */
    /* typed config, or NULL for defaults; arena */
    void *(*compile)(struct compile_ctx *ctx, const void *msg);
    /* Build the shared immutable table for one list of hosts (a priority's healthy hosts …);
     * arena-owned. May return NULL. */
    void *(*build)(const void *config, const struct host_list *hosts, struct arena *a);
    /* The table spans a priority's localities (host_list.share has their weights in it) and the
     * request's hash also chooses the priority: Envoy's thread-aware balancers. Else localities are
     * picked first when they are weighted. */
    bool is_hashing;
    size_t cursor_size; /* per worker and host list; zeroed before cursor_init */
    void (*cursor_init)(void *cursor, const void *config, const void *table,
                        const struct host_list *hosts, struct rng *rng);
    void (*cursor_fini)(void *cursor);
    /* An entry of hosts->v; NULL: none. `table` may be NULL when build is. Never called with an
     * empty list. */
    const struct host_entry *(*pick)(void *cursor, const void *config, const void *table,
                                     const struct host_list *hosts, const struct lb_context *ctx);
};

#endif
