/* Role-based access control of requests: refuses with 403, or only tells what it would have done
 * (shadow).
 * Threads: config immutable, streams worker-local. Spec: extensions.filters.http.rbac.v3; the most
 * specific per-route configuration replaces the filter's own. */
#include "filters/common/rbac.h"
#include "protos/gen/http_rbac.pb-c.h"
#include "proxy/api/http_filter.h"

#define RBAC_STATS(P, C, G, H, T) C(P, allowed) C(P, denied)
STATS_ENUM(RBAC, RBAC_STATS);
STATS_GROUP(rbac, RBAC, RBAC_STATS);
#define SHADOW_STATS(P, C, G, H, T) C(P, shadow_allowed) C(P, shadow_denied)
STATS_ENUM(SHADOW, SHADOW_STATS);
STATS_GROUP(rbac_shadow, SHADOW, SHADOW_STATS);

#define NAMESPACE SV("envoy.filters.http.rbac")
#define BODY "RBAC: access denied"

struct side {
    const struct rbac *rbac; /* NULL: none */
    struct stats_scope *stats;
    sv policy_key, result_key; /* of the dynamic metadata */
};
struct rbac_config {
    struct side enforced, shadow;
    bool tracks_policies;
};

/* --- compile --- */

static void release_scope(void *scope) { stats_scope_unref((struct stats_scope *)scope); }

/* "http.ingress.rbac.", with the side's own prefix behind. */
static struct stats_scope *scope_of(struct compile_ctx *ctx, const struct stats_group *group,
                                    const char *prefix) {
    size_t n = strlen(prefix);
    const char *dot = n && prefix[n - 1] != '.' ? "." : "";
    sv name = arena_printf(ctx->arena, "%.*srbac.%s%s", SV_ARG(ctx->stat_prefix), prefix, dot);
    struct stats_scope *scope = stats_scope_get(ctx->stats, group, name);
    arena_on_fini(ctx->arena, release_scope, scope);
    return scope;
}

static void compile_side(struct compile_ctx *ctx, const struct stats_group *group,
                         const char *prefix, const char *what, struct side *out) {
    out->stats = scope_of(ctx, group, prefix);
    out->policy_key = arena_printf(ctx->arena, "%s%s_effective_policy_id", prefix, what);
    out->result_key = arena_printf(ctx->arena, "%s%s_engine_result", prefix, what);
}

static void *rbac_filter_compile(struct compile_ctx *ctx, const void *msg) {
    const HttpRbac__RBAC *m = msg;
    unsigned before = diag_errors(ctx->diag);
    struct rbac_config *c = arena_new(ctx->arena, struct rbac_config);
    c->enforced.rbac = rbac_compile_source(
        ctx, &(struct rbac_source){"rules", "matcher", m->rules, m->matcher, true});
    c->shadow.rbac =
        rbac_compile_source(ctx, &(struct rbac_source){"shadow_rules", "shadow_matcher",
                                                       m->shadow_rules, m->shadow_matcher, true});
    compile_side(ctx, &rbac_stats_group, m->rules_stat_prefix, "enforced", &c->enforced);
    compile_side(ctx, &rbac_shadow_stats_group, m->shadow_rules_stat_prefix, "shadow", &c->shadow);
    c->tracks_policies = m->track_per_rule_stats;
    return diag_errors(ctx->diag) == before ? c : NULL;
}

/* A route's config without rules switches the filter off there. */
static void *rbac_compile_route(struct compile_ctx *ctx, const void *msg, const char *type) {
    static const HttpRbac__RBAC none = HTTP_RBAC__RBAC__INIT;
    const HttpRbac__RBACPerRoute *m = msg;
    (void)type;
    DIAG_FIELD(ctx->diag, "rbac");
    return rbac_filter_compile(ctx, m->rbac ? m->rbac : &none);
}

/* --- requests --- */

static void count_policy(struct http_filter *f, const struct side *side, sv policy,
                         const char *result) {
    sv name = arena_printf(http_arena(f), "policy.%.*s.%s", SV_ARG(policy), result);
    stat_dyn_add(stats_dyn(side->stats, name, STAT_COUNTER), 1);
}

static void set_metadata(struct http_filter *f, sv ns, sv key, struct kv_value value) {
    struct stream_info *si = http_stream_info(f);
    if (!si->metadata) {
        si->metadata = kv_metadata_new(si->arena);
    }
    kv_metadata_set(si->metadata, ns, key, &value);
}

/* One side's verdict, counted and left in the dynamic metadata. */
static struct rbac_verdict decide(struct http_filter *f, const struct rbac_config *c,
                                  const struct side *side, const struct rbac_input *in) {
    bool is_shadow = side == &c->shadow;
    struct rbac_verdict v = rbac_decide(side->rbac, in);
    const char *counter = is_shadow      ? (v.is_allowed ? "shadow_allowed" : "shadow_denied")
                          : v.is_allowed ? "allowed"
                                         : "denied";
    stats_inc(stats_shard(side->stats, http_loop(f)->thread_index), v.is_allowed ? 0 : 1);
    if (c->tracks_policies && v.policy.n) {
        count_policy(f, side, v.policy, counter);
    }
    if (v.policy.n) {
        set_metadata(f, NAMESPACE, side->policy_key, kv_string(v.policy));
    }
    set_metadata(f, NAMESPACE, side->result_key,
                 kv_string(v.is_allowed ? SV("allowed") : SV("denied")));
    if (v.sets_log_hint && !is_shadow) {
        set_metadata(f, SV("envoy.common"), SV("access_log_hint"), kv_bool(v.log_hint));
    }
    return v;
}

static enum filter_headers_status rbac_decode_headers(struct http_filter *f, struct headers *h,
                                                      bool end_stream) {
    (void)end_stream;
    const struct rbac_config *c = http_route_config(f);
    const struct rbac_input in = {http_stream_info(f), h, http_arena(f)};
    c = c ? c : f->config;
    if (c->shadow.rbac) {
        decide(f, c, &c->shadow, &in);
    }
    if (!c->enforced.rbac) {
        return FILTER_HEADERS_CONTINUE;
    }
    struct rbac_verdict v = decide(f, c, &c->enforced, &in);
    if (v.is_allowed) {
        return FILTER_HEADERS_CONTINUE;
    }
    http_local_reply(f, 403, SV(BODY), 0, rbac_denied_details(v.policy, http_arena(f)), NULL, NULL);
    return FILTER_HEADERS_STOP;
}

const struct http_filter_type rbac_http_filter = {
    .name = "envoy.filters.http.rbac",
    .type_url = "envoy.extensions.filters.http.rbac.v3.RBAC",
    .route_type_url = "envoy.extensions.filters.http.rbac.v3.RBACPerRoute",
    .stream_size = sizeof(struct http_filter),
    .compile = rbac_filter_compile,
    .compile_route = rbac_compile_route,
    .decode_headers = rbac_decode_headers,
};
