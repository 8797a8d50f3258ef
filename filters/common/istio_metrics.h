/* Istio's metrics: labels of a request or connection, and the counters of each set of labels, found
 * once a thread.
 * Threads: a config is compiled on the config thread and immutable but for a table of each thread;
 * everything else is worker-local.
 * Spec: stats.PluginConfig; Istio's standard metrics and labels. */
#ifndef SLUICE_FILTERS_COMMON_ISTIO_METRICS_H
#define SLUICE_FILTERS_COMMON_ISTIO_METRICS_H

#include "filters/common/istio_peer.h"
#include "proxy/api/telemetry.h"

/* In the order in which they are in a metric's name. */
#define ISTIO_LABELS(X)               \
    X(reporter)                       \
    X(source_workload)                \
    X(source_canonical_service)       \
    X(source_canonical_revision)      \
    X(source_workload_namespace)      \
    X(source_principal)               \
    X(source_app)                     \
    X(source_version)                 \
    X(source_cluster)                 \
    X(destination_workload)           \
    X(destination_workload_namespace) \
    X(destination_principal)          \
    X(destination_app)                \
    X(destination_version)            \
    X(destination_service)            \
    X(destination_canonical_service)  \
    X(destination_canonical_revision) \
    X(destination_service_name)       \
    X(destination_service_namespace)  \
    X(destination_cluster)            \
    X(request_protocol)               \
    X(response_code)                  \
    X(grpc_response_status)           \
    X(response_flags)                 \
    X(connection_security_policy)
enum istio_label {
#define X(name) ISTIO_LABEL_##name,
    ISTIO_LABELS(X)
#undef X
        ISTIO_LABELS_N
};

#define ISTIO_METRICS(X)                                  \
    X(requests_total, COUNTER, NONE, HTTP)                \
    X(request_duration_milliseconds, HISTOGRAM, MS, HTTP) \
    X(request_bytes, HISTOGRAM, BYTES, HTTP)              \
    X(response_bytes, HISTOGRAM, BYTES, HTTP)             \
    X(request_messages_total, COUNTER, NONE, GRPC)        \
    X(response_messages_total, COUNTER, NONE, GRPC)       \
    X(tcp_connections_opened_total, COUNTER, NONE, TCP)   \
    X(tcp_connections_closed_total, COUNTER, NONE, TCP)   \
    X(tcp_sent_bytes_total, COUNTER, NONE, TCP)           \
    X(tcp_received_bytes_total, COUNTER, NONE, TCP)
enum istio_metric {
#define X(name, kind, unit, use) ISTIO_METRIC_##name,
    ISTIO_METRICS(X)
#undef X
        ISTIO_METRICS_N
};
/* Which metrics are told of what, and so which labels there are. */
enum istio_use { ISTIO_USE_HTTP, ISTIO_USE_GRPC, ISTIO_USE_TCP, ISTIO_USES_N };

#define ISTIO_LABEL_SETS_MAX 4096u /* of one thread; further ones are not told */
#define ISTIO_DIMENSIONS_MAX 16u   /* distinct expressions of one configuration */
#define ISTIO_CUSTOM_METRICS_MAX 16u

struct istio_metrics;
/* msg: stats.PluginConfig. NULL: errors are in ctx->diag. */
struct istio_metrics *istio_metrics_compile(struct compile_ctx *ctx, const void *msg);
uint32_t istio_metrics_period_ms(const struct istio_metrics *m); /* between reports of what lasts */

/* Which end of the request this proxy is. */
enum istio_reporter { ISTIO_CLIENT, ISTIO_SERVER, ISTIO_SERVER_GATEWAY };
enum istio_reporter istio_metrics_reporter(const struct istio_metrics *m,
                                           const struct conn_info *cx);

/* What is told of a request or connection. */
struct istio_labels {
    enum istio_reporter reporter;
    sv v[ISTIO_LABELS_N]; /* borrowed from the stream, the node or static text */
    /* URI SANs of the upstream's TLS connection; the client's side only */
    sv upstream_peer, upstream_local;
    bool is_filled;
};
/* Everything about both ends, from the filter state, certificates and the cluster. */
void istio_labels_fill(const struct istio_metrics *m, const struct stream_info *si,
                       struct istio_labels *l, struct arena *a);
/* Is it known by now who the peer is, or that it will not be? */
bool istio_labels_known(const struct istio_labels *l, const struct stream_info *si);
/* Protocol ("http"), response flags and the security policy. */
void istio_labels_outcome(const struct stream_info *si, const char *protocol,
                          struct istio_labels *l, struct arena *a);

/* The counters of these labels and the dimensions' values now. NULL: too many, counted. Worker
 * `thread`. Borrowed until the configuration ends. */
struct istio_label_set;
struct istio_label_set *istio_metrics_set(struct istio_metrics *m, enum istio_use use,
                                          const struct istio_labels *l,
                                          const struct stream_info *si, unsigned thread,
                                          struct arena *scratch);
/* Counters add `n`, histograms record it. A metric that was dropped takes nothing. `set` may be
 * NULL. */
void istio_metrics_add(struct istio_label_set *set, enum istio_metric metric, uint64_t n);
/* Metrics that the configuration defines, once for a request or connection. */
void istio_metrics_custom(struct istio_metrics *m, struct istio_label_set *set,
                          const struct stream_info *si, struct arena *scratch);

#endif
