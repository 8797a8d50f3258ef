/* RedirectAction and DirectResponseAction.
 * Threads: config thread. Spec: config.route.v3.RedirectAction, DirectResponseAction. */
#include "protos/gen/core.pb-c.h"
#include "protos/gen/route.pb-c.h"
#include "proxy/base/regex.h"
#include "proxy/observe/formatter.h"
#include "proxy/route/route_private.h"

bool route_compile_regex_rewrite(struct compile_ctx *ctx, const void *msg,
                                 struct regex_rewrite *out) {
    const TypeMatcher__RegexMatchAndSubstitute *m =
        (const TypeMatcher__RegexMatchAndSubstitute *)msg;
    *out = (struct regex_rewrite){.regex = NULL};
    if (!m->pattern) {
        return diag_error(ctx->diag, "pattern: value is required");
    }
    DIAG_FIELD(ctx->diag, "pattern");
    out->regex = regex_compile(ctx, m->pattern);
    out->substitution = arena_sv(ctx->arena, sv_cstr(m->substitution));
    return out->regex != NULL;
}

static bool compile_code(struct compile_ctx *ctx, int code, struct redirect_action *a) {
    switch (code) {
    case ROUTE__REDIRECT_ACTION__REDIRECT_RESPONSE_CODE__MOVED_PERMANENTLY:
        a->code = 301;
        return true;
    case ROUTE__REDIRECT_ACTION__REDIRECT_RESPONSE_CODE__FOUND:
        a->code = 302;
        return true;
    case ROUTE__REDIRECT_ACTION__REDIRECT_RESPONSE_CODE__SEE_OTHER:
        a->code = 303;
        return true;
    case ROUTE__REDIRECT_ACTION__REDIRECT_RESPONSE_CODE__TEMPORARY_REDIRECT:
        a->code = 307;
        return true;
    case ROUTE__REDIRECT_ACTION__REDIRECT_RESPONSE_CODE__PERMANENT_REDIRECT:
        a->code = 308;
        return true;
    default:
        return diag_error(ctx->diag, "response_code: value must be one of the defined enum values");
    }
}

static bool compile_scheme(struct compile_ctx *ctx, const Route__RedirectAction *m,
                           struct redirect_action *a) {
    switch (m->scheme_rewrite_specifier_case) {
    case ROUTE__REDIRECT_ACTION__SCHEME_REWRITE_SPECIFIER__NOT_SET:
        return true;
    case ROUTE__REDIRECT_ACTION__SCHEME_REWRITE_SPECIFIER_HTTPS_REDIRECT:
        a->https_redirect = m->https_redirect;
        return true;
    case ROUTE__REDIRECT_ACTION__SCHEME_REWRITE_SPECIFIER_SCHEME_REDIRECT:
        a->scheme = arena_sv(ctx->arena, sv_cstr(m->scheme_redirect));
        return true;
    default:
        return diag_error(ctx->diag, "unknown scheme rewrite specifier");
    }
}

static bool compile_path(struct compile_ctx *ctx, const Route__RedirectAction *m,
                         struct redirect_action *a) {
    switch (m->path_rewrite_specifier_case) {
    case ROUTE__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER__NOT_SET:
        return true;
    case ROUTE__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_PATH_REDIRECT:
        a->path = arena_sv(ctx->arena, sv_cstr(m->path_redirect));
        a->has_path = a->path.n > 0;
        return true;
    case ROUTE__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_PREFIX_REWRITE:
        a->prefix_rewrite = arena_sv(ctx->arena, sv_cstr(m->prefix_rewrite));
        a->has_prefix_rewrite = a->prefix_rewrite.n > 0;
        return true;
    case ROUTE__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_REGEX_REWRITE: {
        DIAG_FIELD(ctx->diag, "regex_rewrite");
        return route_compile_regex_rewrite(ctx, m->regex_rewrite, &a->regex);
    }
    case ROUTE__REDIRECT_ACTION__PATH_REWRITE_SPECIFIER_PATH_REWRITE: {
        DIAG_FIELD(ctx->diag, "path_rewrite");
        a->path_format = formatter_compile(ctx, sv_cstr(m->path_rewrite), true);
        return a->path_format != NULL;
    }
    default:
        return diag_error(ctx->diag, "unknown path rewrite specifier");
    }
}

bool route_compile_redirect(struct route_compile *c, const void *redirect_msg,
                            struct route_entry *r) {
    const Route__RedirectAction *m = (const Route__RedirectAction *)redirect_msg;
    struct compile_ctx *ctx = c->ctx;
    DIAG_FIELD(ctx->diag, "redirect");
    struct redirect_action *a = arena_new(ctx->arena, struct redirect_action);
    bool ok = compile_code(ctx, (int)m->response_code, a);
    a->host = arena_sv(ctx->arena, sv_cstr(m->host_redirect));
    a->strip_query = m->strip_query;
    a->port = m->port_redirect;
    ok &= compile_scheme(ctx, m, a);
    ok &= compile_path(ctx, m, a);
    r->action = ROUTE_REDIRECT;
    r->redirect = a;
    return ok;
}
