/* JWT authentication: a request's tokens are verified before it goes on, and what they say is
 * passed on as headers and dynamic metadata.
 * Threads: config immutable (key sets and token caches look after themselves), streams
 * worker-local.
 * Spec: extensions.filters.http.jwt_authn.v3.
 * Not here: tokens, keys, providers and requirements (filters/common/jw*.c). */
#include "filters/common/jwt_verifier.h"
#include "protos/gen/http_jwt_authn.pb-c.h"
#include "protos/gen/path_match_uri_template.pb-c.h"
#include "protos/gen/route.pb-c.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/uri_template.h"
#include "proxy/base/regex.h"

STATS_GROUP(jwt_authn, JWT_AUTHN, JWT_AUTHN_STATS);

#define NAMESPACE SV("envoy.filters.http.jwt_authn")
#define URI_PATH_MAX 256u /* of the realm told */

struct named_verifier {
    sv name;
    const struct jwt_verifier *verifier;
};
struct named_verifiers {
    struct named_verifier *v;
    unsigned n;
};

enum path_kind { PATH_ANY, PATH_STRING, PATH_SEPARATED, PATH_CONNECT, PATH_TEMPLATE };
struct rule {
    enum path_kind kind;
    struct string_matcher path;
    const struct uri_template *template;
    const struct header_matchers *headers;
    const struct query_matchers *query;
    const struct jwt_verifier *verifier; /* NULL: no token is asked for */
};
struct jwt_config {
    struct stats_scope *stats;
    struct jwt_providers providers;
    const struct jwt_extractor *all; /* locations and headers of all providers */
    const struct rule *rules;
    unsigned rules_n;
    struct named_verifiers by_name;
    sv filter_state_name; /* empty: none */
    struct named_verifiers by_filter_state;
    sv known_names; /* of requirement_map, "a,b": for messages */
    bool bypasses_preflight, strips_failure;
};
struct route_config {
    bool is_disabled;
    sv requirement_name;
};
struct jwt_authn {
    struct http_filter base; /* must be first */
    struct jwt_run run;
    sv uri; /* as the client asked */
    enum jwt_status status;
    bool is_waiting;
};

/* --- compile --- */

static void release_scope(void *scope) { stats_scope_unref((struct stats_scope *)scope); }

static const struct named_verifier *find(const struct named_verifiers *vs, sv name) {
    for (unsigned i = 0; i < vs->n; i++) {
        if (sv_eq(vs->v[i].name, name)) {
            return &vs->v[i];
        }
    }
    return NULL;
}

static void compile_providers(struct compile_ctx *ctx, const HttpJwtAuthn__JwtAuthentication *m,
                              struct jwt_config *c) {
    const struct jwks_remote_stats stats = {c->stats, JWT_AUTHN_jwks_fetch_success,
                                            JWT_AUTHN_jwks_fetch_failed};
    struct jwt_provider *v = arena_new_array(ctx->arena, struct jwt_provider, m->n_providers + 1);
    for (size_t i = 0; i < m->n_providers; i++) {
        DIAG_FIELD(ctx->diag, "providers[%s]", m->providers[i]->key);
        if (m->providers[i]->value) {
            jwt_provider_compile(ctx, sv_cstr(m->providers[i]->key), m->providers[i]->value, &stats,
                                 &v[i]);
        }
    }
    c->providers = (struct jwt_providers){v, (unsigned)m->n_providers};
    const struct jwt_provider **all =
        arena_new_array(ctx->arena, const struct jwt_provider *, m->n_providers + 1);
    for (size_t i = 0; i < m->n_providers; i++) {
        all[i] = &v[i];
    }
    c->all = jwt_extractor_compile(ctx->arena, all, c->providers.n);
}

static void compile_map(struct compile_ctx *ctx, const HttpJwtAuthn__JwtAuthentication *m,
                        struct jwt_config *c) {
    c->by_name.v = arena_new_array(ctx->arena, struct named_verifier, m->n_requirement_map + 1);
    for (size_t i = 0; i < m->n_requirement_map; i++) {
        DIAG_FIELD(ctx->diag, "requirement_map[%s]", m->requirement_map[i]->key);
        sv name = arena_sv(ctx->arena, sv_cstr(m->requirement_map[i]->key));
        c->by_name.v[c->by_name.n++] = (struct named_verifier){
            name, jwt_verifier_compile(ctx, m->requirement_map[i]->value, &c->providers)};
        c->known_names = arena_printf(ctx->arena, "%.*s%s%.*s", SV_ARG(c->known_names),
                                      i ? "," : "", SV_ARG(name));
    }
}

static void compile_filter_state(struct compile_ctx *ctx, const HttpJwtAuthn__FilterStateRule *m,
                                 struct jwt_config *c) {
    if (!m) {
        return;
    }
    DIAG_FIELD(ctx->diag, "filter_state_rules");
    c->filter_state_name = arena_sv(ctx->arena, sv_cstr(m->name));
    c->by_filter_state.v = arena_new_array(ctx->arena, struct named_verifier, m->n_requires + 1);
    for (size_t i = 0; i < m->n_requires; i++) {
        DIAG_FIELD(ctx->diag, "requires[%s]", m->requires[i] -> key);
        c->by_filter_state.v[c->by_filter_state.n++] = (struct named_verifier){
            arena_sv(ctx->arena, sv_cstr(m->requires[i] -> key)),
            jwt_verifier_compile(ctx, m->requires[i] -> value, &c -> providers)};
    }
}

static void compile_text(struct compile_ctx *ctx, struct rule *r, enum string_match_kind kind,
                         const char *text, bool ignore_case) {
    char *p = arena_cstr(ctx->arena, sv_cstr(text));
    for (char *at = p; ignore_case && *at; at++) {
        *at = ascii_tolower(*at);
    }
    r->path = (struct string_matcher){.kind = kind, .ignore_case = ignore_case, .text = sv_cstr(p)};
    r->kind = PATH_STRING;
}

static void compile_template(struct compile_ctx *ctx, const Core__TypedExtensionConfig *e,
                             struct rule *r) {
    DIAG_FIELD(ctx->diag, "path_match_policy");
    const PathMatchUriTemplate__UriTemplateMatchConfig *m =
        (const PathMatchUriTemplate__UriTemplateMatchConfig *)compile_any(
            ctx, sv_cstr(e->name), e->typed_config,
            "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig", NULL);
    r->kind = PATH_TEMPLATE;
    r->template =
        m ? uri_template_compile(ctx, arena_sv(ctx->arena, sv_cstr(m->path_template))) : NULL;
}

static void compile_path(struct compile_ctx *ctx, const Route__RouteMatch *m, struct rule *r) {
    bool ignore_case = m->case_sensitive && !m->case_sensitive->value;
    switch (m->path_specifier_case) {
    case ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PREFIX:
        compile_text(ctx, r, STRING_PREFIX, m->prefix, ignore_case);
        return;
    case ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PATH:
        compile_text(ctx, r, STRING_EXACT, m->path, ignore_case);
        return;
    case ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PATH_SEPARATED_PREFIX:
        compile_text(ctx, r, STRING_PREFIX, m->path_separated_prefix, ignore_case);
        r->kind = PATH_SEPARATED;
        return;
    case ROUTE__ROUTE_MATCH__PATH_SPECIFIER_SAFE_REGEX: {
        DIAG_FIELD(ctx->diag, "safe_regex");
        r->path = (struct string_matcher){.kind = STRING_REGEX,
                                          .regex = regex_compile(ctx, m->safe_regex)};
        r->kind = PATH_STRING;
        return;
    }
    case ROUTE__ROUTE_MATCH__PATH_SPECIFIER_CONNECT_MATCHER:
        r->kind = PATH_CONNECT;
        return;
    case ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PATH_MATCH_POLICY:
        compile_template(ctx, m->path_match_policy, r);
        return;
    default:
        diag_error(ctx->diag, "path_specifier: value is required");
    }
}

/* Envoy looks at path, headers and query here. What else a RouteMatch may ask for would narrow a
 * rule, and with it who is let in without a token: it is refused. */
static void refuse_others(struct compile_ctx *ctx, const Route__RouteMatch *m) {
    const struct compile_field fields[] = {{m->runtime_fraction, "runtime_fraction"},
                                           {m->grpc, "grpc"},
                                           {m->tls_context, "tls_context"},
                                           {m->n_dynamic_metadata, "dynamic_metadata"},
                                           {m->n_cookies, "cookies"},
                                           {m->n_filter_state, "filter_state"}};
    compile_refuse_fields(ctx, fields, ARRAY_LEN(fields));
}

static void compile_match(struct compile_ctx *ctx, const Route__RouteMatch *m, struct rule *r) {
    DIAG_FIELD(ctx->diag, "match");
    compile_path(ctx, m, r);
    refuse_others(ctx, m);
    r->headers = header_matchers_compile(ctx, (const void *const *)m->headers, m->n_headers);
    r->query = query_matchers_compile(ctx, (const void *const *)m->query_parameters,
                                      m->n_query_parameters);
}

static void compile_rule(struct compile_ctx *ctx, const HttpJwtAuthn__RequirementRule *m,
                         const struct jwt_config *c, struct rule *r) {
    compile_match(ctx, m->match, r);
    if (m->requirement_type_case == HTTP_JWT_AUTHN__REQUIREMENT_RULE__REQUIREMENT_TYPE_REQUIRES) {
        DIAG_FIELD(ctx->diag, "requires");
        r->verifier = jwt_verifier_compile(ctx, m->requires, &c->providers);
    }
    if (m->requirement_type_case ==
        HTTP_JWT_AUTHN__REQUIREMENT_RULE__REQUIREMENT_TYPE_REQUIREMENT_NAME) {
        const struct named_verifier *v = find(&c->by_name, sv_cstr(m->requirement_name));
        if (!v) {
            diag_error(ctx->diag, "Wrong requirement_name: %s. It should be one of [%.*s]",
                       m->requirement_name, SV_ARG(c->known_names));
        }
        r->verifier = v ? v->verifier : NULL;
    }
}

static void *jwt_compile(struct compile_ctx *ctx, const void *msg) {
    const HttpJwtAuthn__JwtAuthentication *m = msg;
    unsigned before = diag_errors(ctx->diag);
    struct jwt_config *c = arena_new(ctx->arena, struct jwt_config);
    c->stats =
        stats_scope_get(ctx->stats, &jwt_authn_stats_group,
                        arena_printf(ctx->arena, "%.*sjwt_authn.%s%s", SV_ARG(ctx->stat_prefix),
                                     m->stat_prefix, *m->stat_prefix ? "." : ""));
    arena_on_fini(ctx->arena, release_scope, c->stats);
    c->bypasses_preflight = m->bypass_cors_preflight;
    c->strips_failure = m->strip_failure_response;
    compile_providers(ctx, m, c);
    compile_map(ctx, m, c);
    compile_filter_state(ctx, m->filter_state_rules, c);
    struct rule *rules = arena_new_array(ctx->arena, struct rule, m->n_rules + 1);
    for (size_t i = 0; i < m->n_rules; i++) {
        DIAG_FIELD(ctx->diag, "rules[%zu]", i);
        compile_rule(ctx, m->rules[i], c, &rules[i]);
    }
    c->rules = rules;
    c->rules_n = (unsigned)m->n_rules;
    return diag_errors(ctx->diag) == before ? c : NULL;
}

static void *jwt_compile_route(struct compile_ctx *ctx, const void *msg, const char *type) {
    const HttpJwtAuthn__PerRouteConfig *m = msg;
    struct route_config *c = arena_new(ctx->arena, struct route_config);
    (void)type;
    switch (m->requirement_specifier_case) {
    case HTTP_JWT_AUTHN__PER_ROUTE_CONFIG__REQUIREMENT_SPECIFIER_DISABLED:
        c->is_disabled = true;
        return c;
    case HTTP_JWT_AUTHN__PER_ROUTE_CONFIG__REQUIREMENT_SPECIFIER_REQUIREMENT_NAME:
        c->requirement_name = arena_sv(ctx->arena, sv_cstr(m->requirement_name));
        return c;
    default:
        diag_error(ctx->diag, "requirement_specifier: value is required");
        return NULL;
    }
}

/* --- which requirement --- */

static bool path_matches(const struct rule *r, const struct headers *h) {
    sv path = headers_get(h, HDR_path);
    sv bare = path_without_query(path);
    switch (r->kind) {
    case PATH_ANY:
        return true;
    case PATH_CONNECT:
        return sv_is(headers_get(h, HDR_method), "CONNECT");
    case PATH_STRING:
        return path.p && path_matcher_match(&r->path, path);
    case PATH_SEPARATED:
        return path_matcher_match(&r->path, path) &&
               (bare.n == r->path.text.n || bare.p[r->path.text.n] == '/');
    case PATH_TEMPLATE:
        return uri_template_match(r->template, bare);
    }
    return false;
}

static bool rule_matches(const struct rule *r, const struct headers *h, struct arena *scratch) {
    return header_matchers_match(r->headers, h, scratch) &&
           (!r->query || query_matchers_match(r->query, headers_get(h, HDR_path), scratch)) &&
           path_matches(r, h);
}

static const struct jwt_verifier *find_verifier(struct http_filter *f, const struct jwt_config *c,
                                                const struct headers *h) {
    for (unsigned i = 0; i < c->rules_n; i++) {
        if (rule_matches(&c->rules[i], h, http_arena(f))) {
            return c->rules[i].verifier;
        }
    }
    if (!c->filter_state_name.n) {
        return NULL;
    }
    sv name = filter_state_text(http_stream_info(f)->filter_state, c->filter_state_name);
    const struct named_verifier *v = name.p ? find(&c->by_filter_state, name) : NULL;
    return v ? v->verifier : NULL;
}

static bool is_preflight(const struct headers *h) {
    return sv_is(headers_get(h, HDR_method), "OPTIONS") &&
           headers_get_name(h, SV("origin")).n > 0 &&
           headers_get_name(h, SV("access-control-request-method")).n > 0;
}

/* --- verdicts --- */

static sv details_of(sv text, struct arena *a) {
    sv s = arena_printf(a, "jwt_authn_access_denied{%.*s}", SV_ARG(text));
    for (size_t i = 0; i < s.n; i++) {
        char *c = (char *)(uintptr_t)&s.p[i];
        *c = *c == ' ' || (*c >= '\t' && *c <= '\r') ? '_' : *c;
    }
    return s;
}

static sv uri_of(const struct headers *h, struct arena *a) {
    sv path = headers_get(h, HDR_x_envoy_original_path);
    path = path.n ? path : headers_get(h, HDR_path);
    return arena_printf(a, "%.*s://%.*s%.*s", SV_ARG(headers_get(h, HDR_scheme)),
                        SV_ARG(headers_get(h, HDR_authority)),
                        SV_ARG(sv_sub(path, 0, URI_PATH_MAX)));
}

static void add_challenge(struct headers *h, void *arg) {
    const struct jwt_authn *j = arg;
    headers_set(h, HDR_www_authenticate,
                arena_printf(h->arena, "Bearer realm=\"%.*s\"%s", SV_ARG(j->uri),
                             j->status == JWT_MISSED ? "" : ", error=\"invalid_token\""));
}

static void count(struct http_filter *f, unsigned cell) {
    const struct jwt_config *c = f->config;
    stats_inc(stats_shard(c->stats, http_loop(f)->thread_index), cell);
}

static void deny(struct jwt_authn *j) {
    const struct jwt_config *c = j->base.config;
    sv text = jwt_status_text(j->status);
    count(&j->base, JWT_AUTHN_denied);
    http_local_reply(&j->base, j->status == JWT_AUDIENCE_NOT_ALLOWED ? 403 : 401,
                     c->strips_failure ? SV_NULL : text, 0, details_of(text, http_arena(&j->base)),
                     c->strips_failure ? NULL : add_challenge, j);
}

static void deny_route(struct http_filter *f, const struct jwt_config *c, sv name) {
    sv text =
        arena_printf(http_arena(f), "Wrong requirement_name: %.*s. It should be one of [%.*s]",
                     SV_ARG(name), SV_ARG(c->known_names));
    count(f, JWT_AUTHN_denied);
    http_local_reply(
        f, 403,
        c->strips_failure
            ? SV_NULL
            : arena_printf(http_arena(f), "Failed JWT authentication: %.*s", SV_ARG(text)),
        0, details_of(text, http_arena(f)), NULL, NULL);
}

static void leave_metadata(struct jwt_authn *j) {
    struct stream_info *si = http_stream_info(&j->base);
    if (!j->run.extracted.fields.n) {
        return;
    }
    if (!si->metadata) {
        si->metadata = kv_metadata_new(si->arena);
    }
    kv_metadata_merge(si->metadata, NAMESPACE, &j->run.extracted);
}

/* True: the request goes on. */
static bool finish(struct jwt_authn *j, enum jwt_status s) {
    j->status = s;
    leave_metadata(j);
    if (s != JWT_OK) {
        deny(j);
        return false;
    }
    count(&j->base, JWT_AUTHN_allowed);
    if (j->run.clears_route_cache) {
        http_clear_route_cache(&j->base);
    }
    return true;
}

static void on_done(struct jwt_run *r, enum jwt_status s) {
    struct jwt_authn *j = CONTAINER_OF(r, struct jwt_authn, run);
    j->is_waiting = false;
    if (finish(j, s)) {
        http_continue_decoding(&j->base);
    }
}

/* --- requests --- */

static enum filter_headers_status verify(struct jwt_authn *j, const struct jwt_verifier *v,
                                         struct headers *h) {
    struct http_filter *f = &j->base;
    const struct jwt_config *c = f->config;
    struct loop *l = http_loop(f);
    enum jwt_status s;
    j->uri = uri_of(h, http_arena(f));
    j->run = (struct jwt_run){
        .verifier = v,
        .providers = &c->providers,
        .headers = h,
        .arena = http_arena(f),
        .worker = http_worker(f),
        .thread = l->thread_index,
        .now_ms = loop_wall_us(l, loop_now_us(l)) / 1000,
        .stats = stats_shard(c->stats, l->thread_index),
        .on_done = on_done,
    };
    if (!jwt_run_start(&j->run, &s)) {
        j->is_waiting = true;
        return FILTER_HEADERS_STOP_ALL_WATERMARK;
    }
    return finish(j, s) ? FILTER_HEADERS_CONTINUE : FILTER_HEADERS_STOP;
}

static enum filter_headers_status jwt_decode_headers(struct http_filter *f, struct headers *h,
                                                     bool end_stream) {
    struct jwt_authn *j = (struct jwt_authn *)f;
    const struct jwt_config *c = f->config;
    (void)end_stream;
    if (c->bypasses_preflight && is_preflight(h)) {
        count(f, JWT_AUTHN_cors_preflight_bypassed);
        count(f, JWT_AUTHN_allowed);
        return FILTER_HEADERS_CONTINUE;
    }
    jwt_sanitize(c->all, h);
    const struct route_config *route = http_route_config(f);
    const struct jwt_verifier *v = NULL;
    if (!route) {
        v = find_verifier(f, c, h);
    } else if (!route->is_disabled) {
        const struct named_verifier *named = find(&c->by_name, route->requirement_name);
        if (!named) {
            deny_route(f, c, route->requirement_name);
            return FILTER_HEADERS_STOP;
        }
        v = named->verifier;
    }
    if (v) {
        return verify(j, v, h);
    }
    count(f, JWT_AUTHN_allowed);
    return FILTER_HEADERS_CONTINUE;
}

static void jwt_destroy(struct http_filter *f) {
    struct jwt_authn *j = (struct jwt_authn *)f;
    if (j->is_waiting) {
        jwt_run_cancel(&j->run);
    }
}

const struct http_filter_type jwt_authn_http_filter = {
    .name = "envoy.filters.http.jwt_authn",
    .type_url = "envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication",
    .route_type_url = "envoy.extensions.filters.http.jwt_authn.v3.PerRouteConfig",
    .stream_size = sizeof(struct jwt_authn),
    .compile = jwt_compile,
    .compile_route = jwt_compile_route,
    .decode_headers = jwt_decode_headers,
    .destroy = jwt_destroy,
};
