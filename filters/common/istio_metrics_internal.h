/* What the two halves of Istio's metrics know of each other. Private to filters/common/istio_*.c.
 * Threads: as istio_metrics.h. */
#ifndef SLUICE_FILTERS_COMMON_ISTIO_METRICS_INTERNAL_H
#define SLUICE_FILTERS_COMMON_ISTIO_METRICS_INTERNAL_H

#include "filters/common/istio_metrics.h"
#include "proxy/api/cel.h"
#include "proxy/base/map.h"

#define LABELS_EXPORTED_MAX 32u /* labels of one metric */
#define NO_EXPR UINT8_MAX
/* what becomes of a standard label; else the index of the expression that replaces it */
#define TAG_KEPT 0xfe
#define TAG_REMOVED 0xff

extern const char *const istio_label_names[];

struct added_tag {
    sv name;
    uint8_t expr;
};
/* What the configuration changes about one metric. */
struct metric_rule {
    bool is_dropped;
    uint8_t overrides[ISTIO_LABELS_N];
    uint8_t added_n;
    struct added_tag added[ISTIO_DIMENSIONS_MAX];
};
struct custom_metric {
    sv name;
    uint8_t expr, kind; /* kind: stats.MetricType */
    struct metric_rule rule;
};
/* The counters of one set of labels: a shard with one cell each; NULL: not told. Each holds a ref
 * on its scope. */
struct istio_label_set {
    struct stats_shard *metrics[ISTIO_METRICS_N];
    struct stats_shard **custom;
    unsigned custom_n;
};
struct label_sets { /* of one thread */
    struct map sets;
    struct arena arena;
};
struct label_tables {
    struct stats_scope *stats, *build;             /* build: of the shared tables only */
    struct label_sets *threads[STATS_THREADS_MAX]; /* each written by its own thread only */
};
struct istio_metrics {
    /* immutable */
    const struct istio_node *node;
    struct stats_store *store;
    bool disable_host_fallback, is_gateway;
    uint32_t period_ms;
    const struct cel **exprs;
    const char **texts;
    unsigned exprs_n;
    struct metric_rule *rules; /* [ISTIO_METRICS_N]; NULL: nothing is changed */
    struct custom_metric *custom;
    unsigned custom_n;
    struct label_tables *tables; /* shared by all configurations that change nothing */
};

#endif
