/* istio.stats of requests: tells Istio's metrics of each when it is over, and counts the messages
 * of gRPC streams while they last.
 * Threads: config immutable but for tables of each thread; streams worker-local.
 * Spec: stats.PluginConfig. Not here: metrics and labels (common/istio_metrics.c). */
#include "filters/common/istio_metrics.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/tls_info.h"
#include "proxy/base/grpc_status.h"

#define GRPC_STATE "envoy.filters.http.grpc_stats"

struct istio_stats {
    struct http_filter base; /* must be first */
    bool is_grpc;
    struct istio_labels *labels; /* made when they are first needed */
    uint64_t requests_told, responses_told;
    struct timer report;
};

static void *istio_stats_compile(struct compile_ctx *ctx, const void *msg) {
    return istio_metrics_compile(ctx, msg);
}

/* Counters are what changes in a config. */
static struct istio_metrics *metrics_of(const struct http_filter *f) {
    return (struct istio_metrics *)(uintptr_t)f->config;
}

static struct istio_labels *labels_of(struct istio_stats *s) {
    if (!s->labels) {
        s->labels = arena_new(http_arena(&s->base), struct istio_labels);
        s->labels->reporter =
            istio_metrics_reporter(metrics_of(&s->base), http_stream_info(&s->base)->cx);
    }
    return s->labels;
}

static uint64_t count_of(const struct kv_value *counts, sv name) {
    const struct kv_value *v = counts ? kv_get(counts, name) : NULL;
    return v && v->kind == KV_NUMBER ? (uint64_t)v->number : 0;
}

/* Messages since the last report, once it is known who the peer is. */
static void tell_messages(struct istio_stats *s, bool is_over) {
    struct stream_info *si = http_stream_info(&s->base);
    struct istio_labels *l = labels_of(s);
    struct istio_metrics *m = metrics_of(&s->base);
    if (!l->is_filled && (is_over || istio_labels_known(l, si))) {
        istio_labels_fill(m, si, l, http_arena(&s->base));
    }
    const struct filter_state_object *o = filter_state_get(si->filter_state, SV(GRPC_STATE));
    if (!s->is_grpc || !l->is_filled || !o) {
        return;
    }
    uint64_t requests = count_of(o->typed, SV("request_message_count"));
    uint64_t responses = count_of(o->typed, SV("response_message_count"));
    struct istio_label_set *set = istio_metrics_set(
        m, ISTIO_USE_GRPC, l, si, http_loop(&s->base)->thread_index, http_arena(&s->base));
    istio_metrics_add(set, ISTIO_METRIC_request_messages_total, requests - s->requests_told);
    istio_metrics_add(set, ISTIO_METRIC_response_messages_total, responses - s->responses_told);
    s->requests_told = requests;
    s->responses_told = responses;
}

static void on_report(struct timer *t) {
    struct istio_stats *s = CONTAINER_OF(t, struct istio_stats, report);
    tell_messages(s, false);
    timer_start(&s->report, istio_metrics_period_ms(metrics_of(&s->base)));
}

static enum filter_headers_status istio_stats_decode_headers(struct http_filter *f,
                                                             struct headers *h, bool end_stream) {
    (void)end_stream;
    struct istio_stats *s = (struct istio_stats *)f;
    sv type = headers_get(h, HDR_content_type);
    s->is_grpc = sv_eat(&type, SV("application/grpc")) && (!type.n || *type.p == '+');
    uint32_t period_ms = istio_metrics_period_ms(metrics_of(f));
    if (s->is_grpc && period_ms) {
        timer_init(&s->report, http_loop(f), on_report);
        timer_start(&s->report, period_ms);
    }
    return FILTER_HEADERS_CONTINUE;
}

/* Who the upstream is: its connection is there but when the response ends with its headers. */
static enum filter_headers_status istio_stats_encode_headers(struct http_filter *f,
                                                             struct headers *h, bool end_stream) {
    (void)h;
    (void)end_stream;
    struct istio_stats *s = (struct istio_stats *)f;
    const struct conn *up = http_stream_info(f)->up.conn;
    const struct ssl_info *ssl = up ? conn_ssl(up) : NULL;
    struct istio_labels *l = labels_of(s);
    if (l->reporter != ISTIO_CLIENT) {
        return FILTER_HEADERS_CONTINUE;
    }
    if (!ssl) {
        l->upstream_peer = http_stream_info(f)->up.peer_uri;
        l->upstream_local = http_stream_info(f)->up.local_uri;
        return FILTER_HEADERS_CONTINUE;
    }
    const sv *uris;
    if (ssl_info_list(ssl, SSL_LIST_PEER_URI, &uris)) {
        l->upstream_peer = arena_sv(http_arena(f), uris[0]);
    }
    if (ssl_info_list(ssl, SSL_LIST_LOCAL_URI, &uris)) {
        l->upstream_local = arena_sv(http_arena(f), uris[0]);
    }
    return FILTER_HEADERS_CONTINUE;
}

static sv grpc_status(const struct stream_info *si) {
    sv status = si->trailers ? headers_get(si->trailers, HDR_grpc_status) : SV_NULL;
    if (!status.n && si->response) {
        status = headers_get(si->response, HDR_grpc_status);
    }
    uint64_t number;
    if (status.n) {
        return sv_to_u64(status, &number) ? status : SV("");
    }
    return si->response_code ? grpc_status_text_of_http(si->response_code) : SV("");
}

static void istio_stats_on_log(struct http_filter *f) {
    struct istio_stats *s = (struct istio_stats *)f;
    struct istio_metrics *m = metrics_of(f);
    struct stream_info *si = http_stream_info(f);
    struct arena *a = http_arena(f);
    tell_messages(s, true);
    struct istio_labels *l = labels_of(s);
    char *code = arena_alloc(a, 4);
    unsigned n = si->response_code;
    code[0] = (char)('0' + n / 100 % 10);
    code[1] = (char)('0' + n / 10 % 10);
    code[2] = (char)('0' + n % 10);
    l->v[ISTIO_LABEL_response_code] = n ? sv_from(code, 3) : SV("0");
    l->v[ISTIO_LABEL_grpc_response_status] = s->is_grpc ? grpc_status(si) : SV("");
    istio_labels_outcome(si, s->is_grpc ? "grpc" : "http", l, a);
    struct istio_label_set *set =
        istio_metrics_set(m, ISTIO_USE_HTTP, l, si, http_loop(f)->thread_index, a);
    istio_metrics_add(set, ISTIO_METRIC_requests_total, 1);
    if (si->end_us) {
        istio_metrics_add(set, ISTIO_METRIC_request_duration_milliseconds,
                          (si->end_us - si->start_us) / 1000);
    }
    istio_metrics_add(set, ISTIO_METRIC_request_bytes, si->wire_rx_bytes);
    istio_metrics_add(set, ISTIO_METRIC_response_bytes, si->wire_tx_bytes);
    istio_metrics_custom(m, set, si, a);
}

static void istio_stats_destroy(struct http_filter *f) {
    struct istio_stats *s = (struct istio_stats *)f;
    if (timer_active(&s->report)) {
        timer_cancel(&s->report);
    }
}

extern const struct http_filter_type istio_stats_http_filter;
const struct http_filter_type istio_stats_http_filter = {
    .name = "istio.stats",
    .type_url = "stats.PluginConfig",
    .route_type_url = "",
    .stream_size = sizeof(struct istio_stats),
    .compile = istio_stats_compile,
    .decode_headers = istio_stats_decode_headers,
    .encode_headers = istio_stats_encode_headers,
    .on_log = istio_stats_on_log,
    .destroy = istio_stats_destroy,
};
