/* typed_per_filter_config: per-route configs of HTTP filters, by the name the filter has in the
 * connection manager.
 * Threads: config thread; filter_name_id from any thread. Spec: config.route.v3.FilterConfig and
 * Envoy's PerFilterConfigs. */
#include <pthread.h>

#include "protos/any.h"
#include "protos/gen/route.pb-c.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/registry.h"
#include "proxy/route/route_private.h"

#define FILTER_CONFIG "envoy.config.route.v3.FilterConfig"
#define CORS_FILTER "envoy.filters.http.cors"
#define LEGACY_CORS "envoy.config.route.v3.CorsPolicy"

/* --- names --- */

static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;
static struct map names; /* name → id + 1; names are few and live for ever */

uint32_t filter_name_id(sv name) {
    pthread_mutex_lock(&names_lock);
    uintptr_t id = (uintptr_t)map_get(&names, name);
    if (id == 0) {
        id = map_count(&names) + 1;
        map_put(&names, sv_from(sv_dup(name), name.n), (void *)id);
    }
    pthread_mutex_unlock(&names_lock);
    return (uint32_t)(id - 1);
}

/* --- compile (all generated map entries of string to Any have one shape) --- */

/* Is the inner type one that this filter takes per route? */
static bool is_route_type(const struct http_filter_type *t, const char *type) {
    const char *wanted = t->route_type_url ? t->route_type_url : t->type_url;
    return t->compile_route && wanted[0] && sv_is(sv_cstr(type), wanted);
}

static bool compile_config(struct compile_ctx *ctx, sv name, const Pb__Any *any, bool is_optional,
                           struct filter_override *o) {
    sv type_name = any_inner_name(any, ctx->scratch);
    const struct http_filter_type *t = registry_http_filter(ctx->registry, name, type_name);
    if (!t) {
        if (is_optional) {
            diag_warn(ctx->diag,
                      "no filter '%.*s' with type URL '%.*s', its optional config is passed over",
                      SV_ARG(name), SV_ARG(type_name));
            return true;
        }
        return diag_error(
            ctx->diag, "Didn't find a registered implementation for '%.*s' with type URL: '%.*s'",
            SV_ARG(name), SV_ARG(type_name));
    }
    if (!t->compile_route) {
        return is_optional ||
               diag_error(
                   ctx->diag,
                   "The filter %.*s doesn't support virtual host or route specific configurations",
                   SV_ARG(name));
    }
    const char *type = NULL;
    const void *msg = compile_any(ctx, name, any, NULL, &type);
    if (!msg) {
        return false;
    }
    if (!is_route_type(t, type)) {
        return diag_error(ctx->diag, "Unable to unpack as %s: [%s]",
                          t->route_type_url ? t->route_type_url : t->type_url, type);
    }
    o->type = t;
    o->config = t->compile_route(ctx, msg, type);
    return o->config != NULL;
}

static bool compile_filter_config(struct compile_ctx *ctx, sv name, const Pb__Any *any,
                                  struct filter_override *o) {
    const char *type = NULL;
    const Route__FilterConfig *m =
        (const Route__FilterConfig *)compile_any(ctx, name, any, FILTER_CONFIG, &type);
    if (!m) {
        return false;
    }
    o->is_disabled = m->disabled;
    if (m->disabled) {
        return true; /* its config does not count */
    }
    if (!m->config) {
        return diag_error(ctx->diag,
                          "Empty route/virtual host per filter configuration for %.*s filter",
                          SV_ARG(name));
    }
    if (!m->config->type_url[0]) {
        return true; /* enabled, nothing more */
    }
    DIAG_FIELD(ctx->diag, "config");
    return compile_config(ctx, name, m->config, m->is_optional, o);
}

static bool compile_entry(struct compile_ctx *ctx, const Route__Route__TypedPerFilterConfigEntry *e,
                          struct filter_override *o) {
    static const Pb__Any empty = PB__ANY__INIT;
    sv name = sv_cstr(e->key);
    const Pb__Any *any = e->value ? e->value : &empty;
    o->name_id = filter_name_id(name);
    if (sv_is(any_url_name(sv_cstr(any->type_url)), FILTER_CONFIG)) {
        return compile_filter_config(ctx, name, any, o);
    }
    return compile_config(ctx, name, any, false, o);
}

bool route_compile_overrides(struct compile_ctx *ctx, const void *const *entries, size_t n,
                             struct filter_overrides *out) {
    if (n == 0) {
        return true;
    }
    struct filter_override *v = arena_new_array(ctx->arena, struct filter_override, n);
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        const Route__Route__TypedPerFilterConfigEntry *e =
            (const Route__Route__TypedPerFilterConfigEntry *)entries[i];
        DIAG_FIELD(ctx->diag, "[%s]", e->key);
        ok &= compile_entry(ctx, e, &v[i]);
    }
    *out = (struct filter_overrides){v, (unsigned)n};
    return ok;
}

bool route_compile_legacy_cors(struct compile_ctx *ctx, const void *cors,
                               struct filter_overrides *o) {
    const struct http_filter_type *t =
        cors ? registry_http_filter(ctx->registry, SV(CORS_FILTER), SV_NULL) : NULL;
    if (!cors) {
        return true;
    }
    DIAG_FIELD(ctx->diag, "cors");
    if (!t || !t->compile_route) {
        return diag_error(ctx->diag, "there is no CORS filter to honour it");
    }
    uint32_t id = filter_name_id(SV(CORS_FILTER));
    for (unsigned i = 0; i < o->n; i++) {
        if (o->v[i].name_id == id) {
            return true; /* the typed config counts; over other levels' the filter decides */
        }
    }
    struct filter_override *v = arena_new_array(ctx->arena, struct filter_override, o->n + 1);
    for (unsigned i = 0; i < o->n; i++) {
        v[i] = o->v[i];
    }
    v[o->n] = (struct filter_override){
        .name_id = id, .type = t, .config = t->compile_route(ctx, cors, LEGACY_CORS)};
    bool ok = v[o->n].config != NULL;
    *o = (struct filter_overrides){v, o->n + 1};
    return ok;
}
