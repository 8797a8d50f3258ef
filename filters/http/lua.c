/* The Lua filter where it has nothing to run: there is no interpreter, so scripts of white space
 * and comments pass, and any other that a request could reach is refused. Control planes put the
 * filter into every chain for the few routes that have a script.
 * Threads: the config thread; requests pass. Spec: extensions.filters.http.lua.v3. */
#include "protos/gen/core.pb-c.h"
#include "protos/gen/http_lua.pb-c.h"
#include "proxy/api/http_filter.h"

#define SCRIPT_REFUSED                                                                   \
    "Lua scripts are not supported: only a script without statements (comments) may be " \
    "here; use header_mutation, ext_proc or ext_authz, or leave the script out"

/* Past the comment that `s` begins with, behind its "--"; a long bracket ("--[==[ … ]==]") may
 * span lines. Without an end: everything. */
static sv skip_comment(sv s) {
    size_t level = 0;
    if (s.n && s.p[0] == '[') {
        while (level + 1 < s.n && s.p[level + 1] == '=') {
            level++;
        }
        if (level + 1 < s.n && s.p[level + 1] == '[') {
            for (size_t i = level + 2; i + level + 1 < s.n; i++) {
                if (s.p[i] == ']' && s.p[i + level + 1] == ']' &&
                    !memcmp(s.p + i + 1, s.p + 1, level)) {
                    return sv_skip(s, i + level + 2);
                }
            }
            return SV_NULL; /* Lua calls that an error */
        }
    }
    const char *end = memchr(s.p, '\n', s.n);
    return end ? sv_skip(s, (size_t)(end - s.p)) : SV_NULL;
}

static bool has_statements(sv s) {
    while (s.n) {
        if (s.n >= 2 && s.p[0] == '-' && s.p[1] == '-') {
            s = skip_comment(sv_skip(s, 2));
        } else if (memchr(" \t\n\v\f\r", s.p[0], 6)) {
            s = sv_skip(s, 1);
        } else {
            return true;
        }
    }
    return false;
}

static bool check_source(struct compile_ctx *ctx, const char *field, const Core__DataSource *m) {
    DIAG_FIELD(ctx->diag, "%s", field);
    sv text;
    if (!m || !compile_data_source(ctx, m, &text)) {
        return !m;
    }
    return !has_statements(text) || diag_error(ctx->diag, SCRIPT_REFUSED);
}

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const HttpLua__Lua *m = msg;
    if (*m->inline_code && m->default_source_code) {
        diag_error(ctx->diag, "Error: Only one of `inline_code` or `default_source_code` can be "
                              "set for the Lua filter.");
        return NULL;
    }
    if (has_statements(sv_cstr(m->inline_code))) {
        DIAG_FIELD(ctx->diag, "inline_code");
        diag_error(ctx->diag, SCRIPT_REFUSED);
        return NULL;
    }
    /* source_codes: nothing runs them but a route that names one, which is refused */
    return check_source(ctx, "default_source_code", m->default_source_code)
               ? arena_alloc(ctx->arena, 1)
               : NULL;
}

static void *compile_route(struct compile_ctx *ctx, const void *msg, const char *type) {
    const HttpLua__LuaPerRoute *m = msg;
    (void)type;
    if (m->override_case == HTTP_LUA__LUA_PER_ROUTE__OVERRIDE_NAME) {
        DIAG_FIELD(ctx->diag, "name");
        diag_error(ctx->diag, "script '%s': " SCRIPT_REFUSED, m->name);
        return NULL;
    }
    if (m->override_case == HTTP_LUA__LUA_PER_ROUTE__OVERRIDE_SOURCE_CODE &&
        !check_source(ctx, "source_code", m->source_code)) {
        return NULL;
    }
    return arena_alloc(ctx->arena, 1); /* also with filter_context, which only scripts read */
}

extern const struct http_filter_type lua_http_filter;
const struct http_filter_type lua_http_filter = {
    .name = "envoy.filters.http.lua",
    .type_url = "envoy.extensions.filters.http.lua.v3.Lua",
    .route_type_url = "envoy.extensions.filters.http.lua.v3.LuaPerRoute",
    .stream_size = sizeof(struct http_filter),
    .compile = compile,
    .compile_route = compile_route,
};
