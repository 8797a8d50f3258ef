/* Configs shared by the balancing policies, and the policy of clusters that bring their own hosts.
 * Threads: the config thread. Spec: extensions.load_balancing_policies.common.v3,
 * …cluster_provided.v3. */
#include "proxy/upstream/lb_common.h"

#include "proxy/upstream/lb_zone.h"

static void slow_start_compile(struct compile_ctx *ctx, const LbCommon__SlowStartConfig *m,
                               struct lb_common *out) {
    DIAG_FIELD(ctx->diag, "slow_start_config");
    if (m->slow_start_window) {
        int64_t s = m->slow_start_window->seconds;
        if (s < 0 || s > INT32_MAX || m->slow_start_window->nanos < 0) {
            diag_error(ctx->diag, "slow_start_window: value must be a non-negative duration");
            return;
        }
        out->slow_start_us = (uint64_t)s * 1000000u + (uint64_t)m->slow_start_window->nanos / 1000u;
    }
    if (m->aggression) {
        out->slow_start_aggression = m->aggression->default_value;
        if (!(out->slow_start_aggression > 0)) {
            out->slow_start_aggression = 1.0;
        }
        if (*m->aggression->runtime_key) {
            compile_unhonoured(ctx, "aggression.runtime_key");
        }
    }
    if (m->min_weight_percent) {
        double pct = m->min_weight_percent->value;
        if (!(pct >= 0 && pct <= 100)) {
            diag_error(ctx->diag, "min_weight_percent.value: value must be inside range [0, 100]");
            return;
        }
        out->slow_start_min_weight = pct / 100.0;
    }
}

static void zone_aware(struct compile_ctx *ctx,
                       const LbCommon__LocalityLbConfig__ZoneAwareLbConfig *z,
                       struct lb_common *out) {
    out->fail_traffic_on_panic = z->fail_traffic_on_panic;
    out->has_zone_aware = true;
    out->zone_routing_pct = z->routing_enabled ? z->routing_enabled->value : LB_ZONE_ROUTING_PCT;
    out->zone_min_cluster_size =
        z->min_cluster_size ? z->min_cluster_size->value : LB_ZONE_MIN_CLUSTER_SIZE;
    if (z->force_local_zone || z->force_locality_direct_routing || z->locality_basis) {
        compile_unhonoured(ctx, "locality_lb_config.zone_aware_lb_config: force_local_zone, "
                                "force_locality_direct_routing and locality_basis");
    }
}

void lb_common_compile(struct compile_ctx *ctx, const LbCommon__LocalityLbConfig *locality,
                       const LbCommon__SlowStartConfig *slow_start, struct lb_common *out) {
    out->slow_start_aggression = 1.0;
    out->slow_start_min_weight = 0.1;
    if (locality) {
        switch (locality->locality_config_specifier_case) {
        case LB_COMMON__LOCALITY_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_ZONE_AWARE_LB_CONFIG:
            zone_aware(ctx, locality->zone_aware_lb_config, out);
            break;
        case LB_COMMON__LOCALITY_LB_CONFIG__LOCALITY_CONFIG_SPECIFIER_LOCALITY_WEIGHTED_LB_CONFIG:
            out->locality_weighted = true;
            break;
        default:
            break;
        }
    }
    if (slow_start) {
        slow_start_compile(ctx, slow_start, out);
    }
}

/* ---- cluster_provided: hosts come from the connection (ORIGINAL_DST); nothing to balance ---- */

static void *provided_compile(struct compile_ctx *ctx, const void *msg) {
    (void)msg;
    struct lb_common *c = arena_new(ctx->arena, struct lb_common);
    lb_common_compile(ctx, NULL, NULL, c);
    return c;
}

static const struct host_entry *provided_pick(void *cursor, const void *config, const void *table,
                                              const struct host_list *hosts,
                                              const struct lb_context *ctx) {
    (void)cursor, (void)config, (void)table, (void)hosts, (void)ctx;
    return NULL;
}

const struct lb_policy_type cluster_provided_lb_policy = {
    .name = "envoy.load_balancing_policies.cluster_provided",
    .enum_name = "CLUSTER_PROVIDED",
    .type_url = "envoy.extensions.load_balancing_policies.cluster_provided.v3.ClusterProvided",
    .compile = provided_compile,
    .pick = provided_pick,
};
