/* The config thread's root: name tables, what compilation needs, and the latest snapshot.
 * Threads: the config thread's; a snapshot is immutable and shared.
 * Not here: which resources are accepted, warm or wanted (xds/store.c). */
#ifndef SLUICE_CONFIG_CONFIG_H
#define SLUICE_CONFIG_CONFIG_H

#include "protos/pb_json.h"
#include "proxy/base/map.h"
#include "proxy/base/table.h"
#include "proxy/config/names.h"
#include "proxy/config/resource.h"
#include "proxy/upstream/host.h"

/* Tables of a snapshot; hosts share the clusters' slots, sockets the listeners'. */
enum snapshot_table {
    TABLE_LISTENERS,
    TABLE_SOCKETS,
    TABLE_ROUTES,
    TABLE_SCOPES,
    TABLE_CLUSTERS,
    TABLE_HOSTS,
    TABLE_TRANSPORTS,
    TABLE_EXTENSIONS,
    TABLES
};

struct snapshot {
    struct shared shared;
    uint64_t version;
    struct table tables
        [TABLES]; /* listeners, clusters: struct resource; routes: struct route_table; scopes: struct scope_table;
                                    hosts: struct host_set; transports: struct transport_factory;
                                    extensions: struct extension_config */
    /* Slots of clusters by name, for lookups by request data (cluster_header): buckets, of which a
     * change copies one. */
    struct table cluster_buckets;
    uint32_t cluster_buckets_n;    /* power of two, or 0 */
    struct table workload_buckets; /* by address: config/workload.h */
};
struct snapshot *snapshot_new(const struct snapshot *from); /* NULL: empty; shares all pages */
/* The name of a cluster came or goes, while TABLE_CLUSTERS has it. clusters_n: how many there are
 * then. Before the snapshot is shared. */
void snapshot_add_cluster_name(struct snapshot *s, slot_t slot, size_t clusters_n);
void snapshot_remove_cluster_name(struct snapshot *s, slot_t slot);
slot_t snapshot_find_cluster(const struct snapshot *s, sv name); /* SLOT_NONE: none. Any thread */

struct conn_limit;
struct registry;
struct route_vhost_bytes;
struct transport_socket_type;
/* A transport socket that a resource compiled: its factory is made, and remade, from the secrets it
 * names. */
struct transport_def {
    slot_t slot;
    const struct transport_socket_type *type;
    const void *config;
    const struct resource_ref *secrets;
    unsigned secrets_n;
};

struct config {
    struct names *listeners, *routes, *scopes, *clusters, *transports, *extensions;
    struct dns_caches *dns_caches; /* upstream/dns_cache.h */
    struct stats_store *stats;
    struct conn_limit *connections; /* of the process; NULL: no limit */
    const struct registry *registry;
    bool reject_unknown_dynamic, ignore_unknown_dynamic, allow_unknown_static;
    bool is_ads_delta;    /* ADS speaks delta */
    slot_t raw_transport; /* of every raw_buffer transport socket: nothing about it differs */
    sv node_cluster, node_id;
    slot_t local_cluster;           /* cluster_manager.local_cluster_name; SLOT_NONE */
    struct locality local_locality; /* the node's */
    const void *node;               /* core.v3.Node, lives longer; NULL: none */
    /* config.trace.v3.Tracing.Http of the bootstrap, lives longer; NULL: none */
    const void *default_tracer;
    /* what compile_shared() made */
    struct map shared;
    struct arena shared_arena;
    /* Is this cluster known (static, active or warming)? */
    bool (*has_cluster)(void *user, sv name);
    void *user;
    struct stats_shard *server_stats; /* "server.", this thread's; NULL in tests */
    struct map told;                  /* warnings already logged; keys are heap copies */
};
/* A factory of raw_buffer transport sockets, which have no configuration; the caller owns the
 * ref. */
struct transport_factory *config_raw_factory(void);

/* Slot of the route configuration `name` from `src`, with one more ref. */
slot_t config_route_slot(struct config *c, const struct config_source *src, sv name);

/* Compile one resource; its name comes from the message when `name` is empty. `prev`: the resource
 * being replaced (may be NULL): parts with equal bytes are shared. NULL: errors are in d. Returns
 * one ref. */
struct resource *resource_compile(struct config *c, enum resource_type t, sv name, sv version,
                                  sv wire, bool is_static, const struct resource *prev,
                                  struct diag *d);
/* A resource with its bytes only, for showing what was refused. */
struct resource *resource_uncompiled(enum resource_type t, sv name, sv version, sv wire);
/* The name inside a resource's message, without compiling it; empty when it has none. Borrowed from
 * wire. */
sv resource_name_of(enum resource_type t, sv wire);
/* Settings without effect and unknown fields, of which d tells: each is logged once, all are
 * counted. */
void resource_tell_warnings(struct config *c, const struct resource *r, bool is_static,
                            const struct diag *d);
/* XXH3-128 of wire. */
void resource_hash(sv wire, uint64_t out[2]);

/* While a resource compiles: what compile_*_ref() gather. ctx->build points here. */
struct config_build {
    struct config *config;
    struct resource *resource;
    struct ref_list *refs;    /* of the resource */
    struct ref_list *secrets; /* of the transport socket being compiled; NULL outside */
    struct transport_list *transports;
    struct extension_list *extensions; /* NULL: none may be discovered here */
};

/* What the flags say of unknown fields in this resource. */
enum pb_json_unknown compile_unknown_policy(const struct compile_ctx *ctx);

/* The route table of a compiled RouteConfiguration with more virtual hosts (VHDS). NULL: the
 * configuration itself is no longer right (logged). One ref. */
struct route_table *config_routes_with(struct config *c, const struct resource *base,
                                       struct route_vhost_bytes *more, unsigned more_n,
                                       const struct route_table *prev);
/* Name and key (route/scope.h) of a ScopedRouteConfiguration's bytes, in arena memory. False: not
 * well-formed. */
bool scope_peek(sv wire, struct arena *a, sv *name, sv *key);

/* per type: config/compile_*.c. msg is the unpacked message; results go to r. */
bool compile_cluster(struct compile_ctx *ctx, struct resource *r, const void *msg);
bool compile_listener(struct compile_ctx *ctx, struct resource *r, const void *msg);
bool compile_endpoints(struct compile_ctx *ctx, struct resource *r, const void *msg);
bool compile_lb_endpoint(struct compile_ctx *ctx, struct resource *r, const void *msg);
bool compile_scope(struct compile_ctx *ctx, struct resource *r, const void *msg);
bool compile_secret(struct compile_ctx *ctx, struct resource *r, const void *msg);
bool compile_runtime(struct compile_ctx *ctx, struct resource *r, const void *msg);
bool compile_workload(struct compile_ctx *ctx, struct resource *r, const void *msg);

#endif
