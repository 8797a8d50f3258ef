/* lb_policy, load_balancing_policy and common_lb_config of a Cluster: the legacy fields become the
 * typed message of the same policy, so that each policy compiles one kind of message.
 * Threads: the config thread. Spec: cluster.v3.Cluster.lb_policy, LoadBalancingPolicy,
 * extensions.load_balancing_policies. */
#include "protos/any.h"
#include "protos/gen/lb_least_request.pb-c.h"
#include "protos/gen/lb_maglev.pb-c.h"
#include "protos/gen/lb_ring_hash.pb-c.h"
#include "protos/gen/lb_round_robin.pb-c.h"
#include "protos/gen/lb_subset.pb-c.h"
#include "protos/gen/lb_wrr_locality.pb-c.h"
#include "proxy/api/registry.h"
#include "proxy/config/cluster_compile.h"
#include "proxy/config/config.h"
#include "proxy/upstream/lb.h"
#include "proxy/upstream/lb_zone.h"

static void use_policy(struct compile_ctx *ctx, struct cluster_config *c, const char *name,
                       const void *typed) {
    const struct lb_policy_type *t = registry_lb_policy(ctx->registry, sv_cstr(name), SV_NULL);
    if (!t) {
        diag_error(ctx->diag, "Didn't find a registered implementation for name: '%s'", name);
        return;
    }
    c->lb_type = t;
    c->lb_config = t->compile ? t->compile(ctx, typed) : NULL;
}

/* ---- legacy fields ---- */

static LbCommon__SlowStartConfig *slow_start(struct compile_ctx *ctx,
                                             const Cluster__Cluster__SlowStartConfig *m) {
    if (!m) {
        return NULL;
    }
    LbCommon__SlowStartConfig *s = arena_new(ctx->scratch, LbCommon__SlowStartConfig);
    lb_common__slow_start_config__init(s);
    s->slow_start_window = m->slow_start_window;
    s->aggression = m->aggression;
    s->min_weight_percent = m->min_weight_percent;
    return s;
}

static void legacy_round_robin(struct compile_ctx *ctx, const Cluster__Cluster *m,
                               struct cluster_config *c) {
    LbRoundRobin__RoundRobin rr;
    lb_round_robin__round_robin__init(&rr);
    if (m->lb_config_case == CLUSTER__CLUSTER__LB_CONFIG_ROUND_ROBIN_LB_CONFIG) {
        rr.slow_start_config = slow_start(ctx, m->round_robin_lb_config->slow_start_config);
    }
    use_policy(ctx, c, "envoy.load_balancing_policies.round_robin", &rr);
}

static void legacy_least_request(struct compile_ctx *ctx, const Cluster__Cluster *m,
                                 struct cluster_config *c) {
    LbLeastRequest__LeastRequest lr;
    lb_least_request__least_request__init(&lr);
    if (m->lb_config_case == CLUSTER__CLUSTER__LB_CONFIG_LEAST_REQUEST_LB_CONFIG) {
        lr.choice_count = m->least_request_lb_config->choice_count;
        lr.active_request_bias = m->least_request_lb_config->active_request_bias;
        lr.slow_start_config = slow_start(ctx, m->least_request_lb_config->slow_start_config);
    }
    use_policy(ctx, c, "envoy.load_balancing_policies.least_request", &lr);
}

static LbCommon__ConsistentHashingLbConfig *consistent(struct compile_ctx *ctx,
                                                       const Cluster__Cluster *m) {
    if (!m->common_lb_config || !m->common_lb_config->consistent_hashing_lb_config) {
        return NULL;
    }
    LbCommon__ConsistentHashingLbConfig *h =
        arena_new(ctx->scratch, LbCommon__ConsistentHashingLbConfig);
    lb_common__consistent_hashing_lb_config__init(h);
    h->use_hostname_for_hashing =
        m->common_lb_config->consistent_hashing_lb_config->use_hostname_for_hashing;
    h->hash_balance_factor = m->common_lb_config->consistent_hashing_lb_config->hash_balance_factor;
    return h;
}

static void legacy_ring_hash(struct compile_ctx *ctx, const Cluster__Cluster *m,
                             struct cluster_config *c) {
    LbRingHash__RingHash rh;
    lb_ring_hash__ring_hash__init(&rh);
    rh.hash_function = LB_RING_HASH__RING_HASH__HASH_FUNCTION__XX_HASH;
    if (m->lb_config_case == CLUSTER__CLUSTER__LB_CONFIG_RING_HASH_LB_CONFIG) {
        rh.minimum_ring_size = m->ring_hash_lb_config->minimum_ring_size;
        rh.maximum_ring_size = m->ring_hash_lb_config->maximum_ring_size;
        if (m->ring_hash_lb_config->hash_function ==
            CLUSTER__CLUSTER__RING_HASH_LB_CONFIG__HASH_FUNCTION__MURMUR_HASH_2) {
            rh.hash_function = LB_RING_HASH__RING_HASH__HASH_FUNCTION__MURMUR_HASH_2;
        }
    }
    rh.consistent_hashing_lb_config = consistent(ctx, m);
    use_policy(ctx, c, "envoy.load_balancing_policies.ring_hash", &rh);
}

static void legacy_maglev(struct compile_ctx *ctx, const Cluster__Cluster *m,
                          struct cluster_config *c) {
    LbMaglev__Maglev mg;
    lb_maglev__maglev__init(&mg);
    if (m->lb_config_case == CLUSTER__CLUSTER__LB_CONFIG_MAGLEV_LB_CONFIG) {
        mg.table_size = m->maglev_lb_config->table_size;
    }
    mg.consistent_hashing_lb_config = consistent(ctx, m);
    use_policy(ctx, c, "envoy.load_balancing_policies.maglev", &mg);
}

static void legacy(struct compile_ctx *ctx, const Cluster__Cluster *m, struct cluster_config *c) {
    switch (m->lb_policy) {
    case CLUSTER__CLUSTER__LB_POLICY__ROUND_ROBIN:
        legacy_round_robin(ctx, m, c);
        return;
    case CLUSTER__CLUSTER__LB_POLICY__LEAST_REQUEST:
        legacy_least_request(ctx, m, c);
        return;
    case CLUSTER__CLUSTER__LB_POLICY__RANDOM:
        use_policy(ctx, c, "envoy.load_balancing_policies.random", NULL);
        return;
    case CLUSTER__CLUSTER__LB_POLICY__RING_HASH:
        legacy_ring_hash(ctx, m, c);
        return;
    case CLUSTER__CLUSTER__LB_POLICY__MAGLEV:
        legacy_maglev(ctx, m, c);
        return;
    case CLUSTER__CLUSTER__LB_POLICY__CLUSTER_PROVIDED:
        use_policy(ctx, c, "envoy.load_balancing_policies.cluster_provided", NULL);
        return;
    default:
        diag_error(ctx->diag, "lb_policy: value must be one of the defined enum values");
    }
}

/* ---- load_balancing_policy ---- */

static bool try_policy(struct compile_ctx *ctx, const Core__TypedExtensionConfig *t,
                       struct cluster_config *c);

/* The policy inside another one: the first one we know. */
static bool try_inner(struct compile_ctx *ctx, const Cluster__LoadBalancingPolicy *m,
                      struct cluster_config *c) {
    for (size_t i = 0; m && i < m->n_policies; i++) {
        const Core__TypedExtensionConfig *inner = m->policies[i]->typed_extension_config;
        if (inner && try_policy(ctx, inner, c)) {
            return true;
        }
    }
    return false;
}

/* Its fields have the numbers of lb_subset_config's; those it has beside them are looked at
 * here. */
static bool subset_policy(struct compile_ctx *ctx, const Core__TypedExtensionConfig *t,
                          struct cluster_config *c) {
    DIAG_FIELD(ctx->diag, "typed_extension_config.typed_config");
    const LbSubset__Subset *m = compile_any(ctx, sv_cstr(t->name), t->typed_config, NULL, NULL);
    if (!m) {
        return true; /* its errors are told */
    }
    if (m->allow_redundant_keys) {
        compile_refuse_fields(ctx, &(struct compile_field){true, "allow_redundant_keys"}, 1);
    }
    if (!try_inner(ctx, m->subset_lb_policy, c)) {
        return false;
    }
    if (c->subsets) {
        diag_error(ctx->diag, "subset_lb_policy: subsets of subsets are not supported");
        return true;
    }
    const Cluster__Cluster__LbSubsetConfig *same = PROTO_UNPACK(
        Cluster__Cluster__LbSubsetConfig, cluster__cluster__lb_subset_config__descriptor,
        proto_pack(&m->base, ctx->scratch), ctx->scratch, ctx->diag);
    if (same) {
        cluster_subset_compile(ctx, same, c);
    }
    return true;
}

static bool try_policy(struct compile_ctx *ctx, const Core__TypedExtensionConfig *t,
                       struct cluster_config *c) {
    sv url = any_inner_name(t->typed_config, ctx->scratch);
    if (sv_is(url, lb_subset__subset__descriptor.name)) {
        return subset_policy(ctx, t, c);
    }
    if (sv_is(url, lb_wrr_locality__wrr_locality__descriptor.name)) {
        const LbWrrLocality__WrrLocality *w =
            compile_any(ctx, sv_cstr(t->name), t->typed_config, NULL, NULL);
        c->locality_weighted = true;
        return w && try_inner(ctx, w->endpoint_picking_policy, c);
    }
    const struct lb_policy_type *p = registry_lb_policy(ctx->registry, sv_cstr(t->name), url);
    if (!p) {
        return false;
    }
    const void *typed = compile_any(ctx, sv_cstr(t->name), t->typed_config, NULL, NULL);
    if (typed) {
        c->lb_type = p;
        c->lb_config = p->compile ? p->compile(ctx, typed) : NULL;
    }
    return true;
}

static void typed_policies(struct compile_ctx *ctx, const Cluster__LoadBalancingPolicy *m,
                           struct cluster_config *c) {
    DIAG_FIELD(ctx->diag, "load_balancing_policy");
    for (size_t i = 0; i < m->n_policies; i++) { /* the first one we know wins */
        DIAG_FIELD(ctx->diag, "policies[%zu]", i);
        const Core__TypedExtensionConfig *t = m->policies[i]->typed_extension_config;
        if (t && try_policy(ctx, t, c)) {
            return;
        }
    }
    diag_error(ctx->diag,
               "cluster: didn't find a registered load balancer factory implementation for "
               "cluster: '%.*s'",
               SV_ARG(c->name));
}

static void common_lb(struct compile_ctx *ctx, const Cluster__Cluster__CommonLbConfig *m,
                      struct cluster_config *c) {
    c->healthy_panic_pct = 50;
    c->override_host_status = 1u << CORE__HEALTH_STATUS__UNKNOWN |
                              1u << CORE__HEALTH_STATUS__HEALTHY |
                              1u << CORE__HEALTH_STATUS__DEGRADED;
    if (!m) {
        return;
    }
    DIAG_FIELD(ctx->diag, "common_lb_config");
    if (m->healthy_panic_threshold) {
        c->healthy_panic_pct = (uint32_t)m->healthy_panic_threshold->value;
    }
    c->ignore_new_hosts_until_first_hc = m->ignore_new_hosts_until_first_hc;
    if (m->locality_config_specifier_case ==
        CLUSTER__CLUSTER__COMMON_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_LOCALITY_WEIGHTED_LB_CONFIG) {
        c->locality_weighted = true;
    } else if (m->locality_config_specifier_case ==
               CLUSTER__CLUSTER__COMMON_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_ZONE_AWARE_LB_CONFIG) {
        c->fail_traffic_on_panic = m->zone_aware_lb_config->fail_traffic_on_panic;
    }
    if (m->override_host_status) {
        c->override_host_status = 0;
        for (size_t i = 0; i < m->override_host_status->n_statuses; i++) {
            c->override_host_status |= 1u << m->override_host_status->statuses[i];
        }
    }
    if (m->update_merge_window &&
        (m->update_merge_window->seconds || m->update_merge_window->nanos)) {
        compile_unhonoured(ctx, "update_merge_window");
    }
    c->close_connections_on_host_set_change = m->close_connections_on_host_set_change;
}

/* Zones count for every cluster but the local one, once that is named, unless it says otherwise;
 * behind weights of localities, where there are any. */
static void zone_aware(struct compile_ctx *ctx, const Cluster__Cluster__CommonLbConfig *m,
                       struct cluster_config *c) {
    const struct config *cfg = ctx->build->config;
    const struct lb_common *own = lb_common_of(c->lb_config);
    if (cfg->local_cluster == SLOT_NONE || cfg->local_cluster == c->slot || !c->lb_type ||
        c->lb_type->is_hashing || c->lb_type == &cluster_provided_lb_policy) {
        return;
    }
    const Cluster__Cluster__CommonLbConfig__ZoneAwareLbConfig *z =
        m && m->locality_config_specifier_case ==
                    CLUSTER__CLUSTER__COMMON_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_ZONE_AWARE_LB_CONFIG
            ? m->zone_aware_lb_config
            : NULL;
    struct lb_zone_config *out = arena_new(ctx->arena, struct lb_zone_config);
    *out = (struct lb_zone_config){
        .routing_pct = z && z->routing_enabled ? z->routing_enabled->value : LB_ZONE_ROUTING_PCT,
        .min_cluster_size =
            z && z->min_cluster_size ? z->min_cluster_size->value : LB_ZONE_MIN_CLUSTER_SIZE,
        .local_cluster = cfg->local_cluster,
        .local = &cfg->local_locality,
    };
    if (own && own->has_zone_aware) {
        out->routing_pct = own->zone_routing_pct;
        out->min_cluster_size = own->zone_min_cluster_size;
    }
    c->zone = out;
}

static bool brings_balancer(const struct cluster_config *c) {
    return c->type == CLUSTER_TYPE_ORIGINAL_DST || c->type == CLUSTER_TYPE_AGGREGATE ||
           c->type == CLUSTER_TYPE_DYNAMIC;
}

static void check_provided(struct compile_ctx *ctx, const Cluster__Cluster *m,
                           const struct cluster_config *c) {
    bool is_provided = c->lb_type == &cluster_provided_lb_policy;
    if (c->type == CLUSTER_TYPE_ORIGINAL_DST && !m->load_balancing_policy && !is_provided &&
        c->lb_type) {
        diag_error(ctx->diag,
                   "cluster: LB policy %s is not valid for Cluster type ORIGINAL_DST. Only "
                   "'CLUSTER_PROVIDED' is allowed with cluster type 'ORIGINAL_DST'",
                   c->lb_type->enum_name);
    } else if (c->lb_type && brings_balancer(c) != is_provided) {
        diag_error(ctx->diag,
                   brings_balancer(c)
                       ? "cluster manager: cluster provided LB not specified but cluster '%.*s' "
                         "provided one. Check cluster documentation."
                       : "cluster manager: cluster provided LB specified but cluster '%.*s' did "
                         "not provide one. Check cluster documentation.",
                   SV_ARG(c->name));
    }
}

void cluster_lb_compile(struct compile_ctx *ctx, const Cluster__Cluster *m,
                        struct cluster_config *c) {
    common_lb(ctx, m->common_lb_config, c);
    if (m->load_balancing_policy) {
        /* then lb_subset_config has no say */
    } else if (!brings_balancer(c)) {
        DIAG_FIELD(ctx->diag, "lb_subset_config");
        cluster_subset_compile(ctx, m->lb_subset_config, c);
    } else if (m->lb_subset_config && m->lb_subset_config->n_subset_selectors) {
        diag_error(ctx->diag, "cluster: LB policy CLUSTER_PROVIDED cannot be combined with "
                              "lb_subset_config");
    }
    if (m->load_balancing_policy) {
        typed_policies(ctx, m->load_balancing_policy, c);
        check_provided(ctx, m, c);
        zone_aware(ctx, NULL, c); /* common_lb_config has no say then */
        return;
    }
    if (m->lb_policy == CLUSTER__CLUSTER__LB_POLICY__LOAD_BALANCING_POLICY_CONFIG) {
        diag_error(ctx->diag, "cluster: field load_balancing_policy need to be set");
        return;
    }
    legacy(ctx, m, c);
    check_provided(ctx, m, c);
    zone_aware(ctx, m->common_lb_config, c);
}
