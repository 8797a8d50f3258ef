/* Cross-origin resource sharing: answers preflight requests and marks responses for allowed
 * origins.
 * Threads: config immutable, streams worker-local. Spec: extensions.filters.http.cors.v3, Fetch
 * §3.2; each field of a policy comes from the most specific level that sets it. Deprecated policies
 * of routes count only where no level has a typed one.
 * Not here: refusing requests (CORS never does: origins that are not allowed go on unmarked). */
#include "protos/gen/core.pb-c.h"
#include "protos/gen/http_cors.pb-c.h"
#include "protos/gen/route.pb-c.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/matcher.h"

#define CORS_STATS(P, C, G, H, T) C(P, origin_invalid) C(P, origin_valid)
STATS_ENUM(CORS, CORS_STATS);
STATS_GROUP(cors, CORS, CORS_STATS);

#define POLICIES_MAX 4
#define LEGACY_TYPE "envoy.config.route.v3.CorsPolicy"

enum setting { SETTING_UNSET, SETTING_FALSE, SETTING_TRUE };
struct cors_config {
    struct stats_scope *stats;
};
struct cors_policy {
    bool is_legacy;
    struct string_matchers origins;
    sv methods, headers, expose, max_age;
    enum setting credentials, private_network, forward_not_matching;
    bool has_enabled, has_shadow;
    struct fraction enabled, shadow;
};
struct cors {
    struct http_filter base;                          /* must be first */
    const struct cors_policy *policies[POLICIES_MAX]; /* the most specific first */
    unsigned policies_n;
    bool is_cors_request;
    sv origin;
};

/* --- compile --- */

static void release_scope(void *scope) { stats_scope_unref((struct stats_scope *)scope); }

static void *cors_compile(struct compile_ctx *ctx, const void *msg) {
    (void)msg; /* has no fields */
    struct cors_config *c = arena_new(ctx->arena, struct cors_config);
    sv prefix = arena_printf(ctx->arena, "%.*scors.", SV_ARG(ctx->stat_prefix));
    c->stats = stats_scope_get(ctx->stats, &cors_stats_group, prefix);
    arena_on_fini(ctx->arena, release_scope, c->stats);
    return c;
}

/* The fields that both messages have. */
struct policy_fields {
    size_t origins_n;
    TypeMatcher__StringMatcher *const *origins;
    const char *methods, *headers, *expose, *max_age;
    const Pb__BoolValue *credentials, *private_network, *forward_not_matching;
    const Core__RuntimeFractionalPercent *enabled, *shadow;
};

static enum setting setting_of(const Pb__BoolValue *b) {
    return !b ? SETTING_UNSET : b->value ? SETTING_TRUE : SETTING_FALSE;
}

static void compile_origins(struct compile_ctx *ctx, const struct policy_fields *m,
                            struct cors_policy *p) {
    DIAG_FIELD(ctx->diag, "allow_origin_string_match");
    string_matchers_compile(ctx, (const void *const *)m->origins, m->origins_n, &p->origins);
}

static void *compile_policy(struct compile_ctx *ctx, const struct policy_fields *m) {
    struct cors_policy *p = arena_new(ctx->arena, struct cors_policy);
    unsigned before = diag_errors(ctx->diag);
    compile_origins(ctx, m, p);
    p->methods = arena_sv(ctx->arena, sv_cstr(m->methods));
    p->headers = arena_sv(ctx->arena, sv_cstr(m->headers));
    p->expose = arena_sv(ctx->arena, sv_cstr(m->expose));
    p->max_age = arena_sv(ctx->arena, sv_cstr(m->max_age));
    p->credentials = setting_of(m->credentials);
    p->private_network = setting_of(m->private_network);
    p->forward_not_matching = setting_of(m->forward_not_matching);
    if (m->enabled) {
        DIAG_FIELD(ctx->diag, "filter_enabled");
        p->has_enabled = fraction_compile(ctx, m->enabled, &p->enabled);
    }
    if (m->shadow) {
        DIAG_FIELD(ctx->diag, "shadow_enabled");
        p->has_shadow = fraction_compile(ctx, m->shadow, &p->shadow);
    }
    return diag_errors(ctx->diag) == before ? p : NULL;
}

static void *cors_compile_route(struct compile_ctx *ctx, const void *msg, const char *type) {
    if (strcmp(type, LEGACY_TYPE) != 0) {
        const HttpCors__CorsPolicy *m = (const HttpCors__CorsPolicy *)msg;
        return compile_policy(
            ctx, &(struct policy_fields){
                     m->n_allow_origin_string_match, m->allow_origin_string_match, m->allow_methods,
                     m->allow_headers, m->expose_headers, m->max_age, m->allow_credentials,
                     m->allow_private_network_access, m->forward_not_matching_preflights,
                     m->filter_enabled, m->shadow_enabled});
    }
    const Route__CorsPolicy *m = (const Route__CorsPolicy *)msg;
    bool has_enabled =
        m->enabled_specifier_case == ROUTE__CORS_POLICY__ENABLED_SPECIFIER_FILTER_ENABLED;
    struct cors_policy *p = (struct cors_policy *)compile_policy(
        ctx, &(struct policy_fields){
                 m->n_allow_origin_string_match, m->allow_origin_string_match, m->allow_methods,
                 m->allow_headers, m->expose_headers, m->max_age, m->allow_credentials,
                 m->allow_private_network_access, m->forward_not_matching_preflights,
                 has_enabled ? m->filter_enabled : NULL, m->shadow_enabled});
    if (p) {
        p->is_legacy = true;
    }
    return p;
}

/* --- which policy counts --- */

static void find_policies(struct cors *c) {
    const void *configs[POLICIES_MAX];
    unsigned n = http_route_configs(&c->base, configs);
    bool has_typed = false;
    for (unsigned i = 0; i < n; i++) {
        has_typed |= !((const struct cors_policy *)configs[i])->is_legacy;
    }
    for (unsigned i = n; i-- > 0;) {
        const struct cors_policy *p = (const struct cors_policy *)configs[i];
        if (!(has_typed && p->is_legacy)) {
            c->policies[c->policies_n++] = p;
        }
    }
}

static bool is_enabled(const struct cors *c, uint64_t random) {
    return c->policies_n &&
           (!c->policies[0]->has_enabled || fraction_holds(&c->policies[0]->enabled, random));
}

static bool is_shadowed(const struct cors *c, uint64_t random) {
    return c->policies_n && c->policies[0]->has_shadow &&
           fraction_holds(&c->policies[0]->shadow, random);
}

static bool is_origin_allowed(const struct cors *c) {
    for (unsigned i = 0; i < c->policies_n; i++) {
        const struct string_matchers *m = &c->policies[i]->origins;
        if (m->n) {
            return string_matchers_any(m, SV("*")) || string_matchers_any(m, c->origin);
        }
    }
    return false;
}

/* The text or setting at `offset` of the most specific policy that has one. */
static sv text_at(const struct cors *c, size_t offset) {
    for (unsigned i = 0; i < c->policies_n; i++) {
        sv s = *(const sv *)(const void *)((const char *)c->policies[i] + offset);
        if (s.n) {
            return s;
        }
    }
    return SV_NULL;
}
#define TEXT(c, field) text_at((c), offsetof(struct cors_policy, field))

static bool setting_at(const struct cors *c, size_t offset, bool otherwise) {
    for (unsigned i = 0; i < c->policies_n; i++) {
        enum setting s =
            *(const enum setting *)(const void *)((const char *)c->policies[i] + offset);
        if (s != SETTING_UNSET) {
            return s == SETTING_TRUE;
        }
    }
    return otherwise;
}
#define IS_SET(c, field, otherwise) \
    setting_at((c), offsetof(struct cors_policy, field), (otherwise))

/* --- requests --- */

static bool is_preflight(const struct headers *h) {
    return sv_eq(headers_get(h, HDR_method), SV("OPTIONS")) &&
           headers_get(h, HDR_access_control_request_method).n;
}

/* "*" is answered by what was asked for: the literal star does not count for requests with
 * credentials. */
static void add_list(struct headers *h, enum header_id id, sv allowed, sv asked) {
    if (allowed.n) {
        headers_set(h, id, sv_eq(allowed, SV("*")) ? (asked.p ? asked : SV("")) : allowed);
    }
}

static enum filter_headers_status answer_preflight(struct cors *c, const struct headers *request,
                                                   bool is_allowed) {
    struct arena *a = http_arena(&c->base);
    struct headers *h = arena_new(a, struct headers);
    headers_init(h, a);
    headers_set_status(h, 200);
    if (is_allowed) {
        headers_set(h, HDR_access_control_allow_origin, c->origin);
    }
    if (IS_SET(c, credentials, false)) {
        headers_set(h, HDR_access_control_allow_credentials, SV("true"));
    }
    add_list(h, HDR_access_control_allow_methods, TEXT(c, methods),
             headers_get(request, HDR_access_control_request_method));
    add_list(h, HDR_access_control_allow_headers, TEXT(c, headers),
             headers_get(request, HDR_access_control_request_headers));
    sv max_age = TEXT(c, max_age);
    if (max_age.n) {
        headers_set(h, HDR_access_control_max_age, max_age);
    }
    if (IS_SET(c, private_network, false) &&
        sv_eq(headers_get(request, HDR_access_control_request_private_network), SV("true"))) {
        headers_set(h, HDR_access_control_allow_private_network, SV("true"));
    }
    http_encode_headers(&c->base, h, true, SV("cors_response"));
    return FILTER_HEADERS_STOP;
}

static enum filter_headers_status cors_decode_headers(struct http_filter *f, struct headers *h,
                                                      bool end_stream) {
    (void)end_stream;
    struct cors *c = (struct cors *)f;
    if (!http_route_forwards(f)) {
        return FILTER_HEADERS_CONTINUE;
    }
    find_policies(c);
    struct loop *l = http_loop(f);
    bool enabled = is_enabled(c, rng_u64(&l->rng));
    if (!enabled && !is_shadowed(c, rng_u64(&l->rng))) {
        return FILTER_HEADERS_CONTINUE;
    }
    c->origin = headers_get(h, HDR_origin);
    if (!c->origin.n) {
        return FILTER_HEADERS_CONTINUE;
    }
    const struct cors_config *cfg = (const struct cors_config *)f->config;
    struct stats_shard *stats = stats_shard(cfg->stats, l->thread_index);
    bool is_allowed = is_origin_allowed(c);
    stats_inc(stats, is_allowed ? CORS_origin_valid : CORS_origin_invalid);
    if (!enabled) {
        return FILTER_HEADERS_CONTINUE;
    }
    c->is_cors_request = is_allowed;
    if (is_preflight(h) && (is_allowed || !IS_SET(c, forward_not_matching, true))) {
        return answer_preflight(c, h, is_allowed);
    }
    return FILTER_HEADERS_CONTINUE;
}

static enum filter_headers_status cors_encode_headers(struct http_filter *f, struct headers *h,
                                                      bool end_stream) {
    (void)end_stream;
    struct cors *c = (struct cors *)f;
    if (!c->is_cors_request) {
        return FILTER_HEADERS_CONTINUE;
    }
    headers_set(h, HDR_access_control_allow_origin, c->origin);
    if (IS_SET(c, credentials, false)) {
        headers_set(h, HDR_access_control_allow_credentials, SV("true"));
    }
    sv expose = TEXT(c, expose);
    if (expose.n) {
        headers_set(h, HDR_access_control_expose_headers, expose);
    }
    return FILTER_HEADERS_CONTINUE;
}

extern const struct http_filter_type cors_http_filter;
const struct http_filter_type cors_http_filter = {
    .name = "envoy.filters.http.cors",
    .type_url = "envoy.extensions.filters.http.cors.v3.Cors",
    .route_type_url = "envoy.extensions.filters.http.cors.v3.CorsPolicy",
    .stream_size = sizeof(struct cors),
    .compile = cors_compile,
    .compile_route = cors_compile_route,
    .decode_headers = cors_decode_headers,
    .encode_headers = cors_encode_headers,
};
