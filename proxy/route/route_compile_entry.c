/* One Route: match, action, and what any action may have beside it.
 * Threads: config thread. Spec: config.route.v3.Route, DirectResponseAction,
 * InternalRedirectPolicy, Tracing, Decorator. */
#include "protos/any.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/internal_redirect_allow_listed_routes.pb-c.h"
#include "protos/gen/route.pb-c.h"
#include "proxy/observe/formatter.h"
#include "proxy/observe/trace.h"
#include "proxy/route/route_metadata.h"
#include "proxy/route/route_private.h"

#define REDIRECT_PREDICATE "envoy.extensions.internal_redirect."

sv route_lower(struct arena *a, const char *s) {
    char *p = arena_cstr(a, sv_cstr(s));
    size_t n = strlen(p);
    for (size_t i = 0; i < n; i++) {
        p[i] = ascii_tolower(p[i]);
    }
    return sv_from(p, n);
}

/* --- parts that most routes share --- */

const struct route_rewrite route_rewrite_none = {.auto_host = false};
const struct route_extra route_extra_none = {.decorator_propagate = true,
                                             .grpc_timeout_max_ms = UINT32_MAX,
                                             .grpc_timeout_offset_ms = UINT32_MAX,
                                             .grpc_header_max_ms = UINT32_MAX,
                                             .grpc_header_offset_ms = UINT32_MAX};

/* What is not the shared one was made below, in the arena: it may be written to. */
struct route_rewrite *route_own_rewrite(struct route_compile *c, struct route_entry *r) {
    if (r->rewrite == &route_rewrite_none) {
        r->rewrite = arena_new(c->ctx->arena, struct route_rewrite);
    }
    return (struct route_rewrite *)(uintptr_t)r->rewrite;
}

struct route_extra *route_own_extra(struct route_compile *c, struct route_entry *r) {
    if (r->extra == &route_extra_none) {
        struct route_extra *x = arena_new(c->ctx->arena, struct route_extra);
        *x = route_extra_none;
        r->extra = x;
    }
    return (struct route_extra *)(uintptr_t)r->extra;
}

/* --- internal redirects --- */

static bool compile_predicate(struct compile_ctx *ctx, const Core__TypedExtensionConfig *e,
                              struct internal_redirect *p) {
    const char *type = "";
    const void *config = compile_any(ctx, sv_cstr(e->name), e->typed_config, NULL, &type);
    if (!config) {
        return false;
    }
    sv t = sv_cstr(type);
    if (sv_is(t, REDIRECT_PREDICATE "previous_routes.v3.PreviousRoutesConfig")) {
        p->previous_routes = true;
        return true;
    }
    if (sv_is(t, REDIRECT_PREDICATE "safe_cross_scheme.v3.SafeCrossSchemeConfig")) {
        p->safe_cross_scheme = true;
        return true;
    }
    if (sv_is(t, REDIRECT_PREDICATE "allow_listed_routes.v3.AllowListedRoutesConfig")) {
        const InternalRedirectAllowListedRoutes__AllowListedRoutesConfig *m =
            (const InternalRedirectAllowListedRoutes__AllowListedRoutesConfig *)config;
        sv *names = arena_new_array(ctx->arena, sv, m->n_allowed_route_names);
        for (size_t i = 0; i < m->n_allowed_route_names; i++) {
            names[i] = arena_sv(ctx->arena, sv_cstr(m->allowed_route_names[i]));
        }
        p->has_allow_list = true;
        p->allowed_routes = names;
        p->allowed_routes_n = (unsigned)m->n_allowed_route_names;
        return true;
    }
    return diag_error(ctx->diag,
                      "Didn't find a registered implementation for '%s' with type URL: '%s'",
                      e->name, type);
}

/* Codes that are no redirects are passed over, as Envoy does; none listed: 302. */
static void compile_codes(struct compile_ctx *ctx, const uint32_t *codes, size_t n,
                          struct internal_redirect *p) {
    uint16_t *v = arena_new_array(ctx->arena, uint16_t, n + 1);
    for (size_t i = 0; i < n; i++) {
        if ((codes[i] >= 301 && codes[i] <= 303) || codes[i] == 307 || codes[i] == 308) {
            v[p->codes_n++] = (uint16_t)codes[i];
        }
    }
    if (n == 0) {
        v[p->codes_n++] = 302;
    }
    p->codes = v;
}

static bool compile_copied(struct compile_ctx *ctx, const Route__InternalRedirectPolicy *m,
                           struct internal_redirect *p) {
    sv *names = arena_new_array(ctx->arena, sv, m->n_response_headers_to_copy);
    bool ok = true;
    for (size_t i = 0; i < m->n_response_headers_to_copy; i++) {
        names[i] = route_lower(ctx->arena, m->response_headers_to_copy[i]);
        if (names[i].n == 0 || names[i].p[0] == ':' || sv_is(names[i], "host")) {
            ok = diag_error(ctx->diag, ":-prefixed headers or Hosts may not be specified here.");
        }
    }
    p->copy_header_names = names;
    p->copy_headers_n = (unsigned)m->n_response_headers_to_copy;
    return ok;
}

bool route_compile_internal_redirect(struct route_compile *c, const void *action_msg,
                                     struct route_entry *r) {
    const Route__RouteAction *a = (const Route__RouteAction *)action_msg;
    const Route__InternalRedirectPolicy *m = a->internal_redirect_policy;
    struct compile_ctx *ctx = c->ctx;
    bool legacy = a->internal_redirect_action ==
                  ROUTE__ROUTE_ACTION__INTERNAL_REDIRECT_ACTION__HANDLE_INTERNAL_REDIRECT;
    if (!m && !legacy) {
        return true;
    }
    struct internal_redirect *p = arena_new(ctx->arena, struct internal_redirect);
    route_own_extra(c, r)->internal_redirect = p;
    const Pb__UInt32Value *max = m ? m->max_internal_redirects : a->max_internal_redirects;
    p->max = max ? max->value : 1;
    compile_codes(ctx, m ? m->redirect_response_codes : NULL, m ? m->n_redirect_response_codes : 0,
                  p);
    if (!m) {
        return true;
    }
    DIAG_FIELD(ctx->diag, "internal_redirect_policy");
    p->allow_cross_scheme = m->allow_cross_scheme_redirect;
    bool ok = compile_copied(ctx, m, p);
    for (size_t i = 0; i < m->n_predicates; i++) {
        DIAG_FIELD(ctx->diag, "predicates[%zu]", i);
        ok &= compile_predicate(ctx, m->predicates[i], p);
    }
    return ok;
}

/* --- direct responses --- */

static bool compile_body(struct route_compile *c, const Core__DataSource *body,
                         struct direct_response *a) {
    struct compile_ctx *ctx = c->ctx;
    DIAG_FIELD(ctx->diag, "body");
    if (!compile_data_source(ctx, body, &a->body)) {
        return false;
    }
    if (a->body.n > c->body_bytes_max) {
        return diag_error(ctx->diag, "response body size is %zu bytes; maximum is %u", a->body.n,
                          c->body_bytes_max);
    }
    return true;
}

static bool compile_direct(struct route_compile *c, const Route__DirectResponseAction *m,
                           struct route_entry *r) {
    struct compile_ctx *ctx = c->ctx;
    DIAG_FIELD(ctx->diag, "direct_response");
    r->action = ROUTE_DIRECT_RESPONSE;
    if (m->status < 200 || m->status >= 600) {
        return diag_error(ctx->diag, "status: value must be inside range [200, 600)");
    }
    struct direct_response *a = arena_new(ctx->arena, struct direct_response);
    r->direct = a;
    a->status = (uint16_t)m->status;
    bool ok = !m->body || compile_body(c, m->body, a);
    if (m->body_format) {
        DIAG_FIELD(ctx->diag, "body_format");
        struct substitution_format f = {.text = NULL};
        ok &= substitution_format_compile(ctx, m->body_format, &f);
        a->body_format = f.text;
        a->body_json = f.json;
        a->content_type = f.content_type;
    }
    return ok;
}

/* --- tracing --- */

static bool compile_sampling(struct compile_ctx *ctx, const char *field,
                             const Type__FractionalPercent *m, struct fraction *out) {
    *out = (struct fraction){.numerator = 100, .denominator = 100};
    DIAG_FIELD(ctx->diag, "%s", field);
    return !m || fraction_percent_compile(ctx, m, out);
}

static bool compile_operation(struct compile_ctx *ctx, const char *field, const char *text,
                              const struct formatter **out) {
    if (!text[0]) {
        return true;
    }
    DIAG_FIELD(ctx->diag, "%s", field);
    *out = formatter_compile(ctx, sv_cstr(text), true);
    return *out != NULL;
}

static bool compile_tracing(struct route_compile *c, const Route__Tracing *m,
                            struct route_entry *r) {
    struct compile_ctx *ctx = c->ctx;
    DIAG_FIELD(ctx->diag, "tracing");
    struct route_tracing *t = arena_new(ctx->arena, struct route_tracing);
    bool ok = compile_sampling(ctx, "client_sampling", m->client_sampling, &t->client);
    ok &= compile_sampling(ctx, "random_sampling", m->random_sampling, &t->random);
    ok &= compile_sampling(ctx, "overall_sampling", m->overall_sampling, &t->overall);
    ok &= compile_operation(ctx, "operation", m->operation, &t->operation);
    ok &=
        compile_operation(ctx, "upstream_operation", m->upstream_operation, &t->upstream_operation);
    t->tags = custom_tags_compile(ctx, (const void *const *)m->custom_tags, m->n_custom_tags);
    ok &= t->tags || !m->n_custom_tags;
    route_own_extra(c, r)->tracing = t;
    return ok;
}

/* --- route --- */

static bool compile_action(struct route_compile *c, const Route__Route *m, struct route_entry *r) {
    switch (m->action_case) {
    case ROUTE__ROUTE__ACTION_ROUTE:
        return route_compile_action(c, m->route, r);
    case ROUTE__ROUTE__ACTION_REDIRECT:
        return route_compile_redirect(c, m->redirect, r);
    case ROUTE__ROUTE__ACTION_DIRECT_RESPONSE:
        return compile_direct(c, m->direct_response, r);
    case ROUTE__ROUTE__ACTION_NON_FORWARDING_ACTION:
        r->action = ROUTE_NON_FORWARDING;
        return true;
    case ROUTE__ROUTE__ACTION_FILTER_ACTION:
        return diag_error(c->ctx->diag, "filter_action is not supported");
    default:
        return diag_error(c->ctx->diag, "action: value is required");
    }
}

static bool compile_mutations(struct compile_ctx *ctx, const Route__Route *m,
                              struct route_entry *r) {
    unsigned before = diag_errors(ctx->diag);
    if (m->n_request_headers_to_add + m->n_request_headers_to_remove) {
        DIAG_FIELD(ctx->diag, "request_headers_to_add");
        r->request_mutations = header_mutations_compile(
            ctx, (const void *const *)m->request_headers_to_add, m->n_request_headers_to_add,
            m->request_headers_to_remove, m->n_request_headers_to_remove);
    }
    if (m->n_response_headers_to_add + m->n_response_headers_to_remove) {
        DIAG_FIELD(ctx->diag, "response_headers_to_add");
        r->response_mutations = header_mutations_compile(
            ctx, (const void *const *)m->response_headers_to_add, m->n_response_headers_to_add,
            m->response_headers_to_remove, m->n_response_headers_to_remove);
    }
    return diag_errors(ctx->diag) == before;
}

static void compile_stats(struct route_compile *c, const Route__Route *m, struct route_entry *r) {
    if (m->stat_prefix[0]) {
        struct route_extra *x = route_own_extra(c, r);
        x->stat_prefix = arena_sv(c->ctx->arena, sv_cstr(m->stat_prefix));
        route_compile_stats(c, "route", x->stat_prefix, &x->stats, &x->rq_codes);
    }
}

static uint32_t body_limit(const Pb__UInt64Value *now, const Pb__UInt32Value *before) {
    if (now) {
        return now->value < UINT32_MAX ? (uint32_t)now->value : UINT32_MAX - 1;
    }
    return before ? before->value : UINT32_MAX;
}

static void set_defaults(const struct route_compile *c, const Route__Route *m,
                         struct route_entry *r) {
    r->vhost = c->vhost;
    r->name = arena_sv(c->ctx->arena, sv_cstr(m->name));
    r->cluster = SLOT_NONE;
    r->cluster_not_found_code = 503;
    r->timeout_ms = r->idle_timeout_ms = r->max_stream_duration_ms = r->flush_timeout_ms =
        UINT32_MAX;
    r->rewrite = &route_rewrite_none;
    r->extra = &route_extra_none;
    r->request_body_buffer_limit =
        body_limit(m->request_body_buffer_limit, m->per_request_buffer_limit_bytes);
    if (r->request_body_buffer_limit == UINT32_MAX) {
        r->request_body_buffer_limit = c->vhost->request_body_buffer_limit;
    }
}

bool route_compile_entry(struct route_compile *c, const void *route_msg, struct route_entry *r,
                         const struct route_conditions **conditions) {
    const Route__Route *m = (const Route__Route *)route_msg;
    struct compile_ctx *ctx = c->ctx;
    set_defaults(c, m, r);
    bool ok = true;
    if (m->match) {
        DIAG_FIELD(ctx->diag, "match");
        ok = route_compile_match(c, m->match, r, conditions);
    } else {
        ok = diag_error(ctx->diag, "match: value is required");
    }
    if (m->n_typed_per_filter_config) {
        DIAG_FIELD(ctx->diag, "typed_per_filter_config");
        ok &= route_compile_overrides(ctx, (const void *const *)m->typed_per_filter_config,
                                      m->n_typed_per_filter_config, &r->overrides);
    }
    ok &= compile_action(c, m, r);
    ok &= compile_mutations(ctx, m, r);
    if (m->decorator) {
        struct route_extra *x = route_own_extra(c, r);
        x->decorator_operation = arena_sv(ctx->arena, sv_cstr(m->decorator->operation));
        x->decorator_propagate = !m->decorator->propagate || m->decorator->propagate->value;
    }
    ok &= !m->tracing || compile_tracing(c, m->tracing, r);
    r->metadata = route_metadata_compile(ctx, m->metadata);
    compile_stats(c, m, r);
    return ok;
}
