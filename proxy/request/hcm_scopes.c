/* HttpConnectionManager.scoped_routes → struct hcm_scopes. Threads: the config thread.
 * Spec: ScopedRoutes; as in Envoy a list holds inline routes only, and the last of equal keys
 * counts. Not here: SRDS (xds/store_scopes.c). */
#include "proxy/request/hcm_scopes.h"
#include "protos/any.h"
#include "protos/gen/hcm.pb-c.h"
#include "protos/gen/route.pb-c.h"

static void unref_table(void *arg) { shared_unref(&((struct route_table *)arg)->shared); }
static void unref_scopes(void *arg) { shared_unref(&((struct scope_table *)arg)->shared); }

static const struct route_table *compile_table(struct compile_ctx *ctx,
                                               const Route__ScopedRouteConfiguration *m) {
    if (*m->route_configuration_name) {
        diag_error(ctx->diag, "Fetching routes via RDS (route_configuration_name) is not supported "
                              "with inline scoped routes.");
        return NULL;
    }
    if (!m->route_configuration) {
        diag_error(ctx->diag, "You must specify a route_configuration with inline scoped routes.");
        return NULL;
    }
    DIAG_FIELD(ctx->diag, "route_configuration");
    if (m->route_configuration->vhds) {
        diag_error(ctx->diag, "vhds is not supported in the routes of a scope");
        return NULL;
    }
    struct compile_ctx inner = *ctx;
    inner.is_static = true; /* inline tables check their clusters */
    struct route_table *t =
        route_table_compile(&inner, proto_pack(&m->route_configuration->base, ctx->arena), NULL);
    if (t) {
        arena_on_fini(ctx->arena, unref_table, t);
    }
    return t;
}

/* A later scope of the same name takes the earlier one's place. */
static bool is_replaced(const Hcm__ScopedRouteConfigurationsList *m, size_t i) {
    for (size_t k = i + 1; k < m->n_scoped_route_configurations; k++) {
        if (!strcmp(m->scoped_route_configurations[k]->name,
                    m->scoped_route_configurations[i]->name)) {
            return true;
        }
    }
    return false;
}

static void compile_list(struct compile_ctx *ctx, const Hcm__ScopedRouteConfigurationsList *m,
                         struct hcm_scopes *s) {
    struct scope_table *t = scope_table_new();
    arena_on_fini(ctx->arena, unref_scopes, t);
    for (size_t i = 0; i < m->n_scoped_route_configurations; i++) {
        const Route__ScopedRouteConfiguration *one = m->scoped_route_configurations[i];
        DIAG_FIELD(ctx->diag, "scoped_route_configurations_list.scoped_route_configurations[%zu]",
                   i);
        const struct route_table *table = compile_table(ctx, one);
        if (table && !is_replaced(m, i)) {
            struct scope scope = {.name = sv_cstr(one->name),
                                  .key = scope_key_of(one->key, ctx->arena),
                                  .routes = SLOT_NONE,
                                  .table = table};
            scope_table_add(t, &scope);
        }
    }
    s->list = t;
}

static void compile_rds(struct compile_ctx *ctx, const Hcm__ScopedRoutes *m, struct hcm_scopes *s) {
    DIAG_FIELD(ctx->diag, "scoped_rds");
    if (*m->scoped_rds->srds_resources_locator) {
        diag_error(ctx->diag, "srds_resources_locator: resource locators (xdstp) are not "
                              "supported: use scoped_rds_config_source");
        return;
    }
    if (!m->rds_config_source) {
        diag_error(ctx->diag, "rds_config_source: value is required");
        return;
    }
    sv prefix = arena_printf(ctx->arena, "%.*sscoped_rds.%s.", SV_ARG(ctx->stat_prefix), m->name);
    s->slot = compile_scopes_ref(ctx, prefix, m->scoped_rds->scoped_rds_config_source,
                                 m->rds_config_source);
}

const struct hcm_scopes *hcm_scopes_compile(struct compile_ctx *ctx, const void *msg) {
    const Hcm__ScopedRoutes *m = msg;
    struct hcm_scopes *s = arena_new(ctx->arena, struct hcm_scopes);
    s->slot = SLOT_NONE;
    {
        DIAG_FIELD(ctx->diag, "scope_key_builder");
        s->key_builder = scope_key_builder_compile(ctx, m->scope_key_builder);
    }
    switch (m->config_specifier_case) {
    case HCM__SCOPED_ROUTES__CONFIG_SPECIFIER_SCOPED_ROUTE_CONFIGURATIONS_LIST:
        compile_list(ctx, m->scoped_route_configurations_list, s);
        break;
    case HCM__SCOPED_ROUTES__CONFIG_SPECIFIER_SCOPED_RDS:
        compile_rds(ctx, m, s);
        break;
    default:
        diag_error(ctx->diag, "config_specifier: value is required");
    }
    return s;
}
