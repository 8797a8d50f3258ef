/* ScopedRouteConfiguration → struct scope_config. Threads: the config thread.
 * Spec: config.route.v3.ScopedRouteConfiguration; inline routes win over a name, as in Envoy. */
#include "protos/any.h"
#include "protos/gen/route.pb-c.h"
#include "proxy/config/config.h"
#include "proxy/route/route_table.h"
#include "proxy/route/scope.h"

static void unref_table(void *arg) { shared_unref(&((struct route_table *)arg)->shared); }

static bool compile_inline(struct compile_ctx *ctx, const Route__RouteConfiguration *m,
                           struct scope_config *s) {
    struct names *routes = ctx->build->config->routes;
    DIAG_FIELD(ctx->diag, "route_configuration");
    if (m->vhds) {
        return diag_error(ctx->diag, "vhds is not supported in the routes of a scope");
    }
    s->table = route_table_compile(ctx, proto_pack(&m->base, ctx->arena), NULL);
    if (!s->table) {
        return false;
    }
    arena_on_fini(ctx->arena, unref_table, s->table);
    s->table_slot = names_acquire(routes, SV_NULL);
    names_release_with(routes, s->table_slot, ctx->arena);
    return true;
}

bool scope_peek(sv wire, struct arena *a, sv *name, sv *key) {
    struct diag *d = arena_new(a, struct diag);
    diag_init(d);
    const Route__ScopedRouteConfiguration *m =
        wire.p ? PROTO_UNPACK(Route__ScopedRouteConfiguration,
                              route__scoped_route_configuration__descriptor, wire, a, d)
               : NULL;
    diag_fini(d);
    if (!m || !m->key) {
        return false;
    }
    *name = sv_cstr(m->name); /* in the arena, as the message is */
    *key = scope_key_of(m->key, a);
    return true;
}

bool compile_scope(struct compile_ctx *ctx, struct resource *r, const void *msg) {
    const Route__ScopedRouteConfiguration *m = msg;
    struct scope_config *s = arena_new(ctx->arena, struct scope_config);
    r->scope = s;
    s->key = scope_key_of(m->key, ctx->arena);
    s->is_on_demand = m->on_demand;
    s->table_slot = SLOT_NONE;
    if (m->route_configuration) {
        return compile_inline(ctx, m->route_configuration, s);
    }
    s->route_name = arena_sv(ctx->arena, sv_cstr(m->route_configuration_name));
    return s->route_name.n || diag_error(ctx->diag, "route_configuration_name is empty.");
}
