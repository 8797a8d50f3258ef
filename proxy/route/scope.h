/* Scoped routes: which of many route tables serves a request, by a key made of its headers.
 * Threads: compiled on the config thread, immutable; looked up on workers.
 * Spec: ScopedRoutes.ScopeKeyBuilder, config.route.v3.ScopedRouteConfiguration.
 * Not here: where scopes come from (xds/store_scopes.c), which request asks (request/). */
#ifndef SLUICE_ROUTE_SCOPE_H
#define SLUICE_ROUTE_SCOPE_H

#include "proxy/api/compile.h"
#include "proxy/base/map.h"
#include "proxy/base/shared.h"

struct headers;
struct route_table;

/* --- keys --- */

struct scope_key_builder;
/* msg: hcm ScopedRoutes.ScopeKeyBuilder; lives in ctx->arena. NULL: errors added. */
const struct scope_key_builder *scope_key_builder_compile(struct compile_ctx *ctx, const void *msg);
/* The key of a request, in scratch memory; empty: a fragment is missing, so it has no scope. */
sv scope_key_build(const struct scope_key_builder *b, const struct headers *h,
                   struct arena *scratch);
/* The same form of a ScopedRouteConfiguration.Key message, in arena memory. */
sv scope_key_of(const void *key_msg, struct arena *a);

/* --- scopes --- */

/* A compiled ScopedRouteConfiguration. */
struct scope_config {
    sv key;
    sv route_name;             /* empty: the routes are inline */
    struct route_table *table; /* inline routes, one ref; NULL: by name */
    slot_t table_slot;         /* of the inline table in snapshots; SLOT_NONE: none */
    bool is_on_demand;
};

struct scope {
    sv name, key;
    slot_t routes;                   /* where its table is in the snapshot; SLOT_NONE: in `table` */
    const struct route_table *table; /* static inline routes: lives as long as the config */
    bool is_on_demand;
};
/* All scopes of a connection manager at one time. */
struct scope_table {
    struct shared shared;
    struct arena arena; /* of scopes and their names; holds what keeps slots alive */
    struct map by_key;  /* → struct scope */
};
struct scope_table *scope_table_new(void); /* one ref */
/* Add a copy of `scope`; one with an equal key gives way to it. Only before the table is shared. */
void scope_table_add(struct scope_table *t, const struct scope *scope);
/* NULL: no such scope. Borrowed while the table lives. */
const struct scope *scope_table_find(const struct scope_table *t, sv key);

#endif
