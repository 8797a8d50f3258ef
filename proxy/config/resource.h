/* Resource types of xDS, and a compiled resource: wire bytes plus what they were compiled to,
 * immutable, shared by snapshots.
 * Threads: made on the config thread; read anywhere. Spec: service.discovery.v3, the type URLs
 * below. */
#ifndef SLUICE_CONFIG_RESOURCE_H
#define SLUICE_CONFIG_RESOURCE_H

#include "proxy/api/compile.h"
#include "proxy/base/shared.h"

/* id, short name (stats, logs), full proto name, "a response without a resource deletes it" (SotW
 * state of the world). In the order in which updates are applied and subscriptions are sent. */
#define RESOURCE_TYPES(X)                                                           \
    X(CLUSTER, "cds", "envoy.config.cluster.v3.Cluster", true)                      \
    X(ENDPOINTS, "eds", "envoy.config.endpoint.v3.ClusterLoadAssignment", false)    \
    X(LB_ENDPOINT, "leds", "envoy.config.endpoint.v3.LbEndpoint", false)            \
    X(SECRET, "sds", "envoy.extensions.transport_sockets.tls.v3.Secret", false)     \
    X(LISTENER, "lds", "envoy.config.listener.v3.Listener", true)                   \
    X(SCOPED_ROUTE, "srds", "envoy.config.route.v3.ScopedRouteConfiguration", true) \
    X(ROUTE, "rds", "envoy.config.route.v3.RouteConfiguration", false)              \
    X(VIRTUAL_HOST, "vhds", "envoy.config.route.v3.VirtualHost", false)             \
    X(EXTENSION, "ecds", "envoy.config.core.v3.TypedExtensionConfig", false)        \
    X(RUNTIME, "rtds", "envoy.service.runtime.v3.Runtime", false)                   \
    X(WORKLOAD, "wds", "istio.workload.Workload", true)
enum resource_type {
#define X(id, short_name, proto, is_full) RES_##id,
    RESOURCE_TYPES(X)
#undef X
        RES_TYPES
};
struct resource_type_info {
    const char *short_name, *proto_name, *type_url; /* type_url with "type.googleapis.com/" */
    bool is_full_state;
};
extern const struct resource_type_info resource_types[RES_TYPES];
/* By type URL with any host; RES_TYPES when it is none of ours. */
enum resource_type resource_type_of(sv type_url);

struct listener_config;
struct route_table;
struct cluster_config;
struct cla_config;
struct cla_endpoint;
struct tls_secret;
struct runtime_values;
struct scope_config;
struct workload;

struct resource {
    struct shared shared;
    enum resource_type type;
    sv name, version;
    sv wire;             /* the message's bytes: what config_dump shows */
    uint64_t hash[2];    /* XXH3-128 of wire: same bytes, same resource */
    uint64_t updated_us; /* wall clock */
    struct arena arena;  /* owns everything above and below */
    union {
        struct listener_config *listener;
        struct route_table *route; /* one ref */
        struct cluster_config *cluster;
        struct cla_config *endpoints;
        struct cla_endpoint *endpoint; /* LEDS */
        struct tls_secret *secret;
        const struct runtime_values *runtime;
        struct scope_config *scope; /* route/scope.h */
        struct workload *workload;  /* config/workload.h */
    };
    /* What it refers to, gathered by compile_*_ref(). */
    const struct resource_ref *refs;
    unsigned refs_n;
    const struct transport_def *transports; /* config/config.h */
    unsigned transports_n;
    const struct extension_def *extensions; /* config/extension.h */
    unsigned extensions_n;
};
/* A name wanted from a source: the owner warms until it is there. */
struct config_source;
struct resource_ref {
    enum resource_type type;
    sv name;
    const struct config_source *source;
    slot_t slot;    /* of the name in its table; SLOT_NONE when the type has none */
    sv stat_prefix; /* routes: "http.<p>."; scopes: "http.<p>.scoped_rds.<name>." */
    /* A set of scopes (`name` stands for the set): where their routes come from. Else NULL */
    const struct config_source *scopes_rds;
};

/* Where resources come from (core.v3.ConfigSource), interned: equal sources are one object for the
 * process's life. */
enum config_source_kind { SOURCE_STATIC, SOURCE_ADS, SOURCE_API, SOURCE_PATH };
struct config_source {
    enum config_source_kind kind;
    /* SOURCE_API: ApiConfigSource bytes; SOURCE_PATH: PathConfigSource bytes */
    sv wire;
    sv path, watched_dir;              /* SOURCE_PATH */
    uint32_t initial_fetch_timeout_ms; /* default 15000; 0: wait for ever */
    uint64_t id;
};
/* What resources of a source are filed under: sources that differ in a timeout only mean the one
 * ADS stream. */
uint64_t config_source_key(const struct config_source *s);
/* Sources are remembered for the process's life; past this many, new ones are refused. */
#define CONFIG_SOURCES_MAX 4096u
/* msg: core.v3.ConfigSource; NULL: static. NULL on error, as when its file does not exist. The
 * config thread. */
const struct config_source *config_source_intern(const void *config_source_msg, struct diag *d);
struct config_source_counts {
    uint64_t remembered, refused;
};
struct config_source_counts config_source_counts(void); /* the config thread */

#endif
