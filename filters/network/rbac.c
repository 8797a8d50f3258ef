/* Role-based access control of connections: decides when the client's first bytes come (or at all
 * of them), and closes what is refused. A server that speaks first is heard before.
 * Threads: config immutable, connections worker-local. Spec: extensions.filters.network.rbac.v3. */
#include "filters/common/rbac.h"
#include "protos/gen/network_rbac.pb-c.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/worker.h"

#define NETWORK_RBAC_STATS(P, C, G, H, T) C(P, allowed) C(P, denied)
STATS_ENUM(NETWORK_RBAC, NETWORK_RBAC_STATS);
STATS_GROUP(network_rbac, NETWORK_RBAC, NETWORK_RBAC_STATS);
#define NETWORK_SHADOW_STATS(P, C, G, H, T) C(P, shadow_allowed) C(P, shadow_denied)
STATS_ENUM(NETWORK_SHADOW, NETWORK_SHADOW_STATS);
STATS_GROUP(network_rbac_shadow, NETWORK_SHADOW, NETWORK_SHADOW_STATS);

#define NAMESPACE SV("envoy.filters.network.rbac")

struct network_rbac_config {
    const struct rbac *rules, *shadow; /* NULL: none */
    struct stats_scope *stats, *shadow_stats;
    sv shadow_policy_key, shadow_result_key;
    bool is_continuous;
    uint32_t delay_deny_ms;
};
struct network_rbac {
    struct network_filter base; /* must be first */
    bool is_decided, is_denied;
    struct timer delay;
};

/* --- compile --- */

static void release_scope(void *scope) { stats_scope_unref((struct stats_scope *)scope); }

static struct stats_scope *scope_of(struct compile_ctx *ctx, const struct stats_group *group,
                                    const char *stat_prefix, const char *prefix) {
    size_t n = strlen(prefix), m = strlen(stat_prefix);
    sv name = arena_printf(ctx->arena, "%s%srbac.%s%s", stat_prefix,
                           m && stat_prefix[m - 1] != '.' ? "." : "", prefix,
                           n && prefix[n - 1] != '.' ? "." : "");
    struct stats_scope *scope = stats_scope_get(ctx->stats, group, name);
    arena_on_fini(ctx->arena, release_scope, scope);
    return scope;
}

static void *network_rbac_compile(struct compile_ctx *ctx, const void *msg) {
    const NetworkRbac__RBAC *m = msg;
    unsigned before = diag_errors(ctx->diag);
    struct network_rbac_config *c = arena_new(ctx->arena, struct network_rbac_config);
    c->rules = rbac_compile_source(
        ctx, &(struct rbac_source){"rules", "matcher", m->rules, m->matcher, false});
    c->shadow =
        rbac_compile_source(ctx, &(struct rbac_source){"shadow_rules", "shadow_matcher",
                                                       m->shadow_rules, m->shadow_matcher, false});
    c->stats = scope_of(ctx, &network_rbac_stats_group, m->stat_prefix, "");
    c->shadow_stats = scope_of(ctx, &network_rbac_shadow_stats_group, m->stat_prefix,
                               m->shadow_rules_stat_prefix);
    c->shadow_policy_key =
        arena_printf(ctx->arena, "%sshadow_effective_policy_id", m->shadow_rules_stat_prefix);
    c->shadow_result_key =
        arena_printf(ctx->arena, "%sshadow_engine_result", m->shadow_rules_stat_prefix);
    c->is_continuous = m->enforcement_type == NETWORK_RBAC__RBAC__ENFORCEMENT_TYPE__CONTINUOUS;
    DIAG_FIELD(ctx->diag, "delay_deny");
    compile_duration_ms(ctx, m->delay_deny, 0, &c->delay_deny_ms);
    return diag_errors(ctx->diag) == before ? c : NULL;
}

/* --- connections --- */

static struct network_rbac *rbac_of(struct network_filter *f) { return (struct network_rbac *)f; }

static void set_metadata(struct stream_info *si, sv ns, sv key, struct kv_value value) {
    if (!si->metadata) {
        si->metadata = kv_metadata_new(si->arena);
    }
    kv_metadata_set(si->metadata, ns, key, &value);
}

static struct rbac_verdict decide(struct network_filter *f, const struct rbac *rules,
                                  struct stats_scope *stats) {
    struct headers none;
    struct stream_info *si = net_stream_info(f);
    headers_init(&none, net_arena(f));
    struct rbac_verdict v = rbac_decide(rules, &(struct rbac_input){si, &none, net_arena(f)});
    stats_inc(stats_shard(stats, worker_loop(net_worker(f))->thread_index), v.is_allowed ? 0 : 1);
    return v;
}

static void decide_shadow(struct network_filter *f, const struct network_rbac_config *c) {
    struct rbac_verdict v = decide(f, c->shadow, c->shadow_stats);
    struct stream_info *si = net_stream_info(f);
    if (v.policy.n) {
        set_metadata(si, NAMESPACE, c->shadow_policy_key, kv_string(v.policy));
    }
    set_metadata(si, NAMESPACE, c->shadow_result_key,
                 kv_string(v.is_allowed ? SV("allowed") : SV("denied")));
}

static void close_denied(struct network_filter *f) {
    conn_close(f->conn, CONN_CLOSE_NO_FLUSH, "rbac_deny_close");
}
static void on_delay_over(struct timer *t) {
    close_denied(&CONTAINER_OF(t, struct network_rbac, delay)->base);
}

static void deny(struct network_filter *f, const struct network_rbac_config *c, sv policy) {
    struct network_rbac *r = rbac_of(f);
    sv details = rbac_denied_details(policy, net_arena(f));
    r->is_denied = true;
    net_stream_info(f)->response_code_details = details;
    net_conn_info_mut(f)->termination_details = arena_cstr(net_arena(f), details);
    if (!c->delay_deny_ms) {
        close_denied(f);
        return;
    }
    conn_read_disable(f->conn, true);
    timer_init(&r->delay, worker_loop(net_worker(f)), on_delay_over);
    timer_start(&r->delay, c->delay_deny_ms);
}

static enum net_status network_rbac_on_data(struct network_filter *f, struct buf *data,
                                            bool end_stream) {
    const struct network_rbac_config *c = f->config;
    struct network_rbac *r = rbac_of(f);
    (void)data;
    (void)end_stream;
    if (r->is_denied) {
        return NET_STOP;
    }
    if (r->is_decided && !c->is_continuous) {
        return NET_CONTINUE;
    }
    r->is_decided = true;
    if (c->shadow) {
        decide_shadow(f, c);
    }
    struct rbac_verdict v = {.is_allowed = true};
    if (c->rules) {
        v = decide(f, c->rules, c->stats);
        if (v.sets_log_hint) {
            set_metadata(net_stream_info(f), SV("envoy.common"), SV("access_log_hint"),
                         kv_bool(v.log_hint));
        }
    }
    if (!v.is_allowed) {
        deny(f, c, v.policy);
        return NET_STOP;
    }
    return NET_CONTINUE;
}

static enum net_status network_rbac_on_new(struct network_filter *f) {
    (void)f;
    return NET_CONTINUE;
}

static void network_rbac_destroy(struct network_filter *f) {
    if (timer_active(&rbac_of(f)->delay)) {
        timer_cancel(&rbac_of(f)->delay);
    }
}

const struct network_filter_type network_rbac_network_filter = {
    .name = "envoy.filters.network.rbac",
    .type_url = "envoy.extensions.filters.network.rbac.v3.RBAC",
    .instance_size = sizeof(struct network_rbac),
    .compile = network_rbac_compile,
    .on_new_connection = network_rbac_on_new,
    .on_data = network_rbac_on_data,
    .destroy = network_rbac_destroy,
};
