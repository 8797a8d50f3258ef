/* istio.stats of TCP connections: tells of their opening, bytes and end, from time to time while
 * they last.
 * Threads: config immutable but for tables of each thread; connections worker-local.
 * Spec: stats.PluginConfig. Not here: metrics and labels (common/istio_metrics.c). */
#include "filters/common/istio_metrics.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/worker.h"

struct istio_stats {
    struct network_filter base; /* must be first */
    bool is_opened_told;
    struct istio_labels labels;
    uint64_t sent_told, received_told; /* bytes */
    struct timer report;
};

static void *istio_stats_compile(struct compile_ctx *ctx, const void *msg) {
    return istio_metrics_compile(ctx, msg);
}

/* Counters are what changes in a config. */
static struct istio_metrics *metrics_of(const struct network_filter *f) {
    return (struct istio_metrics *)(uintptr_t)f->config;
}

/* What came to be since the last time; nothing before it is known who the peer is. */
static void tell(struct istio_stats *s, bool is_over) {
    struct network_filter *f = &s->base;
    struct istio_metrics *m = metrics_of(f);
    struct stream_info *si = net_stream_info(f);
    struct istio_labels *l = &s->labels;
    struct arena *a = net_arena(f);
    if (!l->is_filled) {
        if (!is_over && !istio_labels_known(l, si)) {
            return;
        }
        l->upstream_peer = si->up.peer_uri;
        l->upstream_local = si->up.local_uri;
        istio_labels_fill(m, si, l, a);
        istio_labels_outcome(si, "tcp", l, a);
    }
    unsigned thread = worker_loop(net_worker(f))->thread_index;
    struct istio_label_set *set = istio_metrics_set(m, ISTIO_USE_TCP, l, si, thread, a);
    if (!s->is_opened_told) {
        s->is_opened_told = true;
        istio_metrics_add(set, ISTIO_METRIC_tcp_connections_opened_total, 1);
    }
    istio_metrics_add(set, ISTIO_METRIC_tcp_sent_bytes_total, si->tx_bytes - s->sent_told);
    istio_metrics_add(set, ISTIO_METRIC_tcp_received_bytes_total, si->rx_bytes - s->received_told);
    s->sent_told = si->tx_bytes;
    s->received_told = si->rx_bytes;
    if (is_over) {
        istio_metrics_add(set, ISTIO_METRIC_tcp_connections_closed_total, 1);
        istio_metrics_custom(m, set, si, a);
    }
}

static void on_report(struct timer *t) {
    struct istio_stats *s = CONTAINER_OF(t, struct istio_stats, report);
    tell(s, false);
    timer_start(&s->report, istio_metrics_period_ms(metrics_of(&s->base)));
}

static enum net_status istio_stats_on_new_connection(struct network_filter *f) {
    struct istio_stats *s = (struct istio_stats *)f;
    uint32_t period_ms = istio_metrics_period_ms(metrics_of(f));
    s->labels.reporter = istio_metrics_reporter(metrics_of(f), net_conn_info(f));
    if (period_ms) {
        timer_init(&s->report, worker_loop(net_worker(f)), on_report);
        timer_start(&s->report, period_ms);
    }
    return NET_CONTINUE;
}

static void istio_stats_on_conn_event(struct network_filter *f, enum conn_event e) {
    struct istio_stats *s = (struct istio_stats *)f;
    if (e == CONN_EVENT_CONNECTED) {
        return;
    }
    if (timer_active(&s->report)) {
        timer_cancel(&s->report);
    }
    tell(s, true);
}

static void istio_stats_destroy(struct network_filter *f) {
    struct istio_stats *s = (struct istio_stats *)f;
    if (timer_active(&s->report)) {
        timer_cancel(&s->report);
    }
}

extern const struct network_filter_type istio_stats_network_filter;
const struct network_filter_type istio_stats_network_filter = {
    .name = "istio.stats",
    .type_url = "stats.PluginConfig",
    .instance_size = sizeof(struct istio_stats),
    .compile = istio_stats_compile,
    .on_new_connection = istio_stats_on_new_connection,
    .on_conn_event = istio_stats_on_conn_event,
    .destroy = istio_stats_destroy,
};
