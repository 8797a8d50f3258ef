/* RouteMatch: the path specifier and the conditions beside it.
 * Threads: config thread. Spec: config.route.v3.RouteMatch. */
#include "protos/gen/path_match_uri_template.pb-c.h"
#include "protos/gen/route.pb-c.h"
#include "proxy/api/uri_template.h"
#include "proxy/route/metadata_matcher.h"
#include "proxy/route/route_private.h"

static bool set_text(struct route_compile *c, struct route_entry *r, enum path_match_kind kind,
                     const char *text) {
    r->match_kind = kind;
    r->match_path = arena_sv(c->ctx->arena, sv_cstr(text));
    return true;
}

/* path_separated_prefix: validated to have neither '?' nor '#' and no '/' at the end. */
static bool check_separated(struct route_compile *c, const char *text) {
    sv s = sv_cstr(text);
    bool ok = s.n >= 1 && s.p[s.n - 1] != '/' && sv_find(s, '?') == SIZE_MAX &&
              sv_find(s, '#') == SIZE_MAX;
    DIAG_FIELD(c->ctx->diag, "path_separated_prefix");
    return ok || diag_error(c->ctx->diag, "value does not match regex pattern '^[^?#]+[^?#/]$'");
}

static bool compile_template(struct route_compile *c, const Core__TypedExtensionConfig *e,
                             struct route_entry *r) {
    DIAG_FIELD(c->ctx->diag, "path_match_policy");
    const PathMatchUriTemplate__UriTemplateMatchConfig *m =
        (const PathMatchUriTemplate__UriTemplateMatchConfig *)compile_any(
            c->ctx, sv_cstr(e->name), e->typed_config,
            "envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig", NULL);
    if (!m) {
        return false;
    }
    r->match_kind = PATH_MATCH_TEMPLATE;
    r->match_path = arena_sv(c->ctx->arena, sv_cstr(m->path_template));
    r->match_template = uri_template_compile(c->ctx, r->match_path);
    return r->match_template != NULL;
}

static bool compile_path(struct route_compile *c, const Route__RouteMatch *m,
                         struct route_entry *r) {
    switch (m->path_specifier_case) {
    case ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PREFIX:
        return set_text(c, r, PATH_MATCH_PREFIX, m->prefix);
    case ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PATH:
        return set_text(c, r, PATH_MATCH_EXACT, m->path);
    case ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PATH_SEPARATED_PREFIX:
        return set_text(c, r, PATH_MATCH_SEPARATED_PREFIX, m->path_separated_prefix) &&
               check_separated(c, m->path_separated_prefix);
    case ROUTE__ROUTE_MATCH__PATH_SPECIFIER_SAFE_REGEX: {
        DIAG_FIELD(c->ctx->diag, "safe_regex");
        r->match_kind = PATH_MATCH_REGEX;
        r->match_regex = regex_compile(c->ctx, m->safe_regex);
        return r->match_regex != NULL;
    }
    case ROUTE__ROUTE_MATCH__PATH_SPECIFIER_CONNECT_MATCHER:
        r->match_kind = PATH_MATCH_CONNECT;
        return true;
    case ROUTE__ROUTE_MATCH__PATH_SPECIFIER_PATH_MATCH_POLICY:
        return compile_template(c, m->path_match_policy, r);
    default:
        return diag_error(c->ctx->diag, "Invalid route config");
    }
}

static void compile_tls(const Route__RouteMatch__TlsContextMatchOptions *m,
                        struct route_conditions *k) {
    k->has_presented = m->presented != NULL;
    k->presented = m->presented && m->presented->value;
    k->has_validated = m->validated != NULL;
    k->validated = m->validated && m->validated->value;
}

static bool has_conditions(const Route__RouteMatch *m) {
    return m->runtime_fraction || m->n_headers || m->n_query_parameters || m->n_cookies ||
           m->grpc || m->tls_context || m->n_dynamic_metadata || m->n_filter_state;
}

static void compile_conditions(struct route_compile *c, const Route__RouteMatch *m,
                               struct route_conditions *k) {
    struct compile_ctx *ctx = c->ctx;
    if (m->runtime_fraction) {
        DIAG_FIELD(ctx->diag, "runtime_fraction");
        k->has_fraction = fraction_compile(ctx, m->runtime_fraction, &k->fraction);
    }
    if (m->tls_context) {
        compile_tls(m->tls_context, k);
    }
    k->is_grpc = m->grpc != NULL;
    if (m->n_headers) {
        DIAG_FIELD(ctx->diag, "headers");
        k->headers = header_matchers_compile(ctx, (const void *const *)m->headers, m->n_headers);
    }
    if (m->n_query_parameters) {
        DIAG_FIELD(ctx->diag, "query_parameters");
        k->query = query_matchers_compile(ctx, (const void *const *)m->query_parameters,
                                          m->n_query_parameters);
    }
    if (m->n_cookies) {
        DIAG_FIELD(ctx->diag, "cookies");
        k->cookies = cookie_matchers_compile(ctx, (const void *const *)m->cookies, m->n_cookies);
    }
    if (m->n_dynamic_metadata) {
        DIAG_FIELD(ctx->diag, "dynamic_metadata");
        k->metadata = metadata_matchers_compile(ctx, (const void *const *)m->dynamic_metadata,
                                                m->n_dynamic_metadata);
    }
    if (m->n_filter_state) {
        DIAG_FIELD(ctx->diag, "filter_state");
        k->filter_state = filter_state_matchers_compile(ctx, (const void *const *)m->filter_state,
                                                        m->n_filter_state);
    }
}

bool route_compile_match(struct route_compile *c, const void *match_msg, struct route_entry *r,
                         const struct route_conditions **conditions) {
    const Route__RouteMatch *m = (const Route__RouteMatch *)match_msg;
    unsigned before = diag_errors(c->ctx->diag);
    r->case_insensitive = m->case_sensitive && !m->case_sensitive->value;
    compile_path(c, m, r);
    *conditions = NULL;
    if (has_conditions(m)) {
        struct route_conditions *k = arena_new(c->ctx->arena, struct route_conditions);
        compile_conditions(c, m, k);
        *conditions = k;
    }
    return diag_errors(c->ctx->diag) == before;
}
