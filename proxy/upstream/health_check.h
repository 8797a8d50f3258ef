/* Active health checking: each host of a cluster is asked by HTTP, gRPC or TCP whether it is well.
 * Threads: a checker lives on the config thread's loop, which also opens its connections; workers
 * see its results as new host sets. health_check_report_failed() is for any thread.
 * Spec: core.v3.HealthCheck, cluster.v3.Cluster.health_checks; Envoy's "Health checking" for
 * thresholds, intervals and stats; data.core.v3.HealthCheckEvent for the log.
 * Not here: host sets made of the results (xds/store_hosts.c), connections (health_check_conn.c),
 * when the cluster is warm (xds/store_warm.c). */
#ifndef SLUICE_UPSTREAM_HEALTH_CHECK_H
#define SLUICE_UPSTREAM_HEALTH_CHECK_H

#include "proxy/upstream/cluster.h"

struct string_matcher;
struct header_mutations;
struct log_sink;

enum health_check_kind { HEALTH_CHECK_HTTP, HEALTH_CHECK_TCP, HEALTH_CHECK_GRPC };

struct health_check_statuses { /* half-open ranges */
    const struct health_check_range { uint32_t from, to; } * v;
    unsigned n;
};

/* One HealthCheck message. Immutable; in the cluster's arena. */
struct health_check_config {
    enum health_check_kind kind;
    bool reuse_connection; /* true */
    bool always_log_failures, always_log_successes;
    uint32_t timeout_ms, interval_ms, initial_jitter_ms, interval_jitter_ms, interval_jitter_pct;
    uint32_t unhealthy_threshold, healthy_threshold;
    /* until the cluster has ever had a connection: 60000, and the same for healthy hosts */
    uint32_t no_traffic_interval_ms, no_traffic_healthy_interval_ms;
    uint32_t unhealthy_interval_ms;      /* interval */
    uint32_t unhealthy_edge_interval_ms; /* unhealthy_interval */
    uint32_t healthy_edge_interval_ms;   /* interval */
    struct log_sink *log;                /* events; a ref of the arena; NULL: none */
    slot_t transport; /* chosen by transport_socket_match_criteria; SLOT_NONE: the host's own */
    const sv *alpn;   /* tls_options.alpn_protocols */
    unsigned alpn_n;
    /* HTTP and gRPC */
    sv host; /* http_health_check.host, grpc_health_check.authority; empty: the cluster's name */
    sv path, method, service;
    bool is_http2;
    const struct header_mutations *headers;
    struct health_check_statuses expected; /* none: 200 */
    struct health_check_statuses retriable;
    uint32_t response_max_bytes; /* kept of the body to look at: 1024; 0: all */
    const struct string_matcher *service_name;
    /* HTTP and TCP */
    sv send;
    const sv *receive; /* found in the answer one behind the other */
    unsigned receive_n;
};
/* msg: core.v3.HealthCheck of cluster c, whose transport sockets and protocol are compiled. Errors
 * go to ctx->diag; NULL then. In ctx->arena. */
const struct health_check_config *health_check_config_compile(struct compile_ctx *ctx,
                                                              const struct cluster_config *c,
                                                              const void *msg);
bool health_check_status_in(const struct health_check_statuses *s, unsigned code);
/* Are all the patterns in the data, each behind the one before? */
bool health_check_payload_match(const sv *want, unsigned n, sv data);

#define HEALTH_CHECK_STATS(P, C, G, H, T) \
    C(P, attempt)                         \
    C(P, success)                         \
    C(P, failure)                         \
    C(P, passive_failure) C(P, network_failure) C(P, verify_cluster) G(P, healthy) G(P, degraded)
STATS_ENUM(HEALTH_CHECK, HEALTH_CHECK_STATS);
extern const struct stats_group health_check_stats_group;

struct health_checker;
/* What a checker asks of its owner. */
struct health_checker_env {
    struct loop *loop;
    /* the factory now in this slot; NULL: its secrets are missing. Borrowed for the call */
    struct transport_factory *(*transport)(void *arg, slot_t slot);
    /* Flags of this host (borrowed) changed. */
    void (*on_change)(void *arg, struct host *h);
    /* A check of this host (borrowed) ended; after on_change. May stop the checker. */
    void (*on_checked)(void *arg, struct host *h, bool is_healthy);
    void *arg;
};
/* For cfg->health_check. Nothing is checked before the first health_checker_set_hosts(). One
 * ref. */
struct health_checker *health_checker_new(const struct cluster_config *cfg,
                                          const struct health_checker_env *env);
/* any thread; cluster_config.checker holds one */
void health_checker_unref(struct health_checker *hc);
/* The cluster's hosts from now on: new ones are checked at once (after the initial jitter), those
 * that are gone no more. */
void health_checker_set_hosts(struct health_checker *hc, const struct host_set *s);
/* Has every host been checked once? */
bool health_checker_is_done(const struct health_checker *hc);
/* No callback from here on, connections closed, timers off. Flags stay. The ref stays the
 * caller's. */
void health_checker_stop(struct health_checker *hc);
/* A host said by x-envoy-immediate-health-check-fail that it is leaving: it is out of balancing
 * until a check passes. No-op without checker. Any thread. */
void health_check_report_failed(const struct cluster_config *c, struct host *h);

/* Flags that checks set; a cluster without checks has no use for them. */
#define HOST_FLAGS_CHECKED                                                                        \
    (HOST_FLAG(FAILED_ACTIVE_HC) | HOST_FLAG(DEGRADED_ACTIVE_HC) | HOST_FLAG(PENDING_ACTIVE_HC) | \
     HOST_FLAG(EXCLUDED_IMMEDIATE_HC_FAIL) | HOST_FLAG(ACTIVE_HC_TIMEOUT))

#endif
