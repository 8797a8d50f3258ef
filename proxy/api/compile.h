/* What a compile function of a filter, transport socket or access logger is given: memory, errors,
 * and ways to refer to other resources by name. Compiled config is immutable and lives in the
 * resource's arena.
 * Threads: config thread. */
#ifndef SLUICE_API_COMPILE_H
#define SLUICE_API_COMPILE_H

#include "proxy/base/arena.h"
#include "proxy/base/diag.h"

struct addr;
struct stats_store;
struct registry;
struct config_source;
struct config_build; /* config/: the resource under construction and the name tables */

/* Slots are dense small integers that stand for a name of one kind for as long as anyone refers to
 * it; a worker finds the named object by indexing its view: no lookup by name on the request
 * path. */
#define SLOT_NONE UINT32_MAX
typedef uint32_t slot_t;

struct compile_ctx {
    struct arena *arena; /* of the resource being compiled */
    /* messages on the way (compile_any): gone with the end of the compilation, so that whatever is
     * kept of them is copied into `arena` */
    struct arena *scratch;
    struct diag *diag;
    const struct registry *registry;
    struct stats_store *stats;
    struct config_build *build;
    /* from the bootstrap: unknown clusters in inline routes are errors */
    bool is_static;
    bool is_downstream; /* compiling for a listener (false: for a cluster) */
    /* "http.ingress." while HTTP filters compile, "cluster.x." for upstream filters, … */
    sv stat_prefix;
    sv owner; /* name of the resource being compiled, for messages */
    /* filter_chain_match.server_names of the chain whose transport socket compiles */
    const char *const *server_names;
    size_t server_names_n;
};

/* A cluster's slot; the cluster may be missing at run time (Envoy: 503 NC). must_exist: diag_error
 * "unknown cluster 'x'" when it is not known now. */
slot_t compile_cluster_ref(struct compile_ctx *ctx, sv name, bool must_exist);
/* A route configuration fetched from `source` (envoy.config.core.v3.ConfigSource). The listener
 * warms until it is there. */
slot_t compile_route_ref(struct compile_ctx *ctx, sv name, const void *config_source);
/* A core.v3.ConfigSource message, interned: equal ones are one object for ever. NULL: errors
 * added. */
const struct config_source *compile_config_source(struct compile_ctx *ctx, const void *msg);
/* The scopes of `srds_source`, whose route configurations come from `rds_source` (ConfigSource
 * messages): the slot of their table. stat_prefix ("http.<p>.scoped_rds.<name>.") is part of what
 * they are. The listener warms until they and their routes are there. */
slot_t compile_scopes_ref(struct compile_ctx *ctx, sv stat_prefix, const void *srds_source,
                          const void *rds_source);
/* Virtual hosts of the route configuration `name` that `config_source` has (VHDS): it warms until
 * the first of them are there. */
void compile_virtual_hosts_ref(struct compile_ctx *ctx, sv name, const void *config_source);
/* Endpoints of the collection `name` (canonical, config/collection.h) that `config_source` has
 * (LEDS): the endpoints that refer to them warm until their first answer. NULL: errors added. */
const struct config_source *compile_leds_ref(struct compile_ctx *ctx, sv name,
                                             const void *config_source);
/* A secret by name; source NULL: a static secret of the bootstrap. The owner warms until it is
 * there. Returns an index for secret_source_get. */
unsigned compile_secret_ref(struct compile_ctx *ctx, sv name, const void *config_source);
/* A compiled transport socket (core.v3.TransportSocket message, NULL: raw_buffer) gets a slot in
 * the snapshot's factory table. SLOT_NONE on error. */
slot_t compile_transport_socket(struct compile_ctx *ctx, const void *transport_socket_msg);
/* The transport socket inside another one (core.v3.TransportSocket message): its type, and its
 * config for that type's make. Secrets it refers to are those of the outer one. */
struct transport_socket_type;
bool compile_inner_transport_socket(struct compile_ctx *ctx, const void *transport_socket_msg,
                                    const struct transport_socket_type **type, const void **config);

/* Secrets handed to transport_socket_type.make. */
struct tls_secret;
struct secret_source {
    /* by the index that compile_secret_ref returned; NULL: missing */
    const struct tls_secret *const *v;
    unsigned n;
};

/* Unpack a typed_config Any of the extension `name` into the scratch arena: TypedStruct is seen
 * through, validate rules are checked, `want_type` (full proto name) must match when not NULL. NULL
 * on error. *type_out: the message's full name, a constant. */
const void *compile_any(struct compile_ctx *ctx, sv name, const void *any_msg,
                        const char *want_type, const char **type_out);

/* The node of the bootstrap (core.v3.Node message), for ever. NULL: there is none. */
const void *compile_node(struct compile_ctx *ctx);
/* The bootstrap's tracing provider (config.trace.v3.Tracing.Http message), for ever. NULL: none. */
const void *compile_default_tracer(struct compile_ctx *ctx);
/* The one object of that key in the process, which filters of all resources share: `make` builds it
 * in `a` when it is first asked for; it lives as long as the configuration. key: static text. */
void *compile_shared(struct compile_ctx *ctx, const char *key,
                     void *(*make)(struct compile_ctx *ctx, struct arena *a));

/* A field that is accepted but has no effect here: counted, warned about once per field path. Use
 * diag_error instead when it bears on who is let in, what is trusted or where traffic goes. */
void compile_unhonoured(struct compile_ctx *ctx, const char *field);
/* The same of a table of fields, and an error for each that is set. */
struct compile_field {
    bool is_set;
    const char *field;
};
void compile_unhonoured_fields(struct compile_ctx *ctx, const struct compile_field *fields,
                               size_t n);
void compile_refuse_fields(struct compile_ctx *ctx, const struct compile_field *fields, size_t n);

/* DataSource (core.v3.DataSource): inline bytes/string, environment variable or file, read now into
 * the arena. */
bool compile_data_source(struct compile_ctx *ctx, const void *data_source_msg, sv *out);

/* Small conversions. Durations: ms, rounded up to 1 when positive and below; negative or absurd
 * values are errors. */
bool compile_duration_ms(struct compile_ctx *ctx, const void *duration_msg, uint32_t dflt,
                         uint32_t *out);
bool compile_address(struct compile_ctx *ctx, const void *address_msg, struct addr *out);
bool compile_socket_address(struct compile_ctx *ctx, const void *socket_address_msg,
                            struct addr *out);
/* core.v3.EnvoyInternalAddress, which only endpoints may have. */
bool compile_internal_address(struct compile_ctx *ctx, const void *internal_address_msg,
                              struct addr *out);

#endif
