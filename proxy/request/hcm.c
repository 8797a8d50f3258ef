/* http_connection_manager on one connection: picks the codec, owns the streams, idle and drain
 * timers, closing.
 * Threads: worker-local. Spec: HttpConnectionManager; Envoy's ConnectionManagerImpl.
 * Not here: compiling the config (hcm_compile.c), streams (stream.c), header rules
 * (conn_headers.c). */
#include "proxy/request/hcm.h"

#include "proxy/base/log.h"
#include "proxy/net/filter_chain.h"
#include "proxy/request/stream.h"

STATS_GROUP(hcm, HCM, HCM_STATS);
STATS_GROUP(hcm_listener, HCM_LISTENER, HCM_LISTENER_STATS);

/* Envoy's defaults: overload.premature_reset_total_stream_count, …min_stream_lifetime_seconds. */
#define PREMATURE_RESET_STREAMS 500u
#define PREMATURE_RESET_LIFETIME_US 1000000u

static struct hcm *hcm_of(struct network_filter *f) { return CAST(hcm, HCM_MAGIC, f); }

/* ---- closing and draining ---- */

static void close_connection(struct hcm *h, enum conn_close_type how, const char *why) {
    h->drain = HCM_CLOSING;
    conn_close(h->base.conn, how, why);
}

static void on_drain_timer(struct timer *t) {
    struct hcm *h = CONTAINER_OF(t, struct hcm, drain_timer);
    h->codec->vt->goaway(h->codec, true);
    conn_flush_later(h->base.conn);
    if (list_empty(&h->streams)) {
        close_connection(h, CONN_CLOSE_FLUSH_DELAY, "drain");
    }
}

void hcm_start_drain(struct hcm *h) {
    if (h->drain != HCM_OPEN || !h->codec) {
        return;
    }
    h->drain = HCM_DRAINING;
    if (h->codec->protocol != HTTP_2) {
        /* the next response says so; a close without notice would cost the client a request */
        return;
    }
    h->codec->vt->goaway(h->codec, false);
    conn_flush_later(h->base.conn);
    timer_start(&h->drain_timer, h->cfg->drain_timeout_ms);
}

static void on_idle(struct timer *t) {
    struct hcm *h = CONTAINER_OF(t, struct hcm, idle);
    stats_inc(h->stats, HCM_downstream_cx_idle_timeout);
    if (!h->codec || h->codec->protocol != HTTP_2) {
        close_connection(h, CONN_CLOSE_FLUSH, "on_idle_timeout");
        return;
    }
    hcm_start_drain(h);
}

static void on_max_duration(struct timer *t) {
    struct hcm *h = CONTAINER_OF(t, struct hcm, duration);
    stats_inc(h->stats, HCM_downstream_cx_max_duration_reached);
    if (!h->codec) {
        close_connection(h, CONN_CLOSE_FLUSH, "connection_duration_exceeded");
        return;
    }
    hcm_start_drain(h);
    if (h->codec->protocol == HTTP_2) {
        return;
    }
    if (list_empty(&h->streams)) {
        close_connection(h, CONN_CLOSE_FLUSH, "connection_duration_exceeded");
    } else {
        h1_server_close_after(h->codec);
    }
}

static void arm_idle(struct hcm *h) {
    if (h->cfg->idle_timeout_ms) {
        timer_start(&h->idle, h->cfg->idle_timeout_ms);
    }
}

/* dispatch() is about to tell that the connection has to go. */
static bool is_broken(const struct hcm *h) {
    return h->is_dispatching && h->codec->protocol == HTTP_2 && h->codec->vt->error(h->codec);
}

void hcm_stream_ended(struct hcm *h) {
    if (h->drain == HCM_CLOSING || !list_empty(&h->streams) || !h->codec || is_broken(h)) {
        return;
    }
    bool is_drained =
        h->drain == HCM_DRAINING && h->codec->protocol == HTTP_2 && !timer_active(&h->drain_timer);
    if (is_drained || h->codec->vt->wants_close(h->codec)) {
        close_connection(h, CONN_CLOSE_FLUSH_DELAY, NULL);
        return;
    }
    arm_idle(h);
}

/* ---- codec callbacks ---- */

/* Clients that open and reset streams in a row (rapid reset) are cut off. */
static bool is_reset_flood(struct hcm *h) {
    if (h->premature_resets < PREMATURE_RESET_STREAMS ||
        h->premature_resets * 2 < h->closed_streams) {
        return false;
    }
    stats_inc(h->stats, HCM_downstream_rq_too_many_premature_resets);
    return true;
}

void hcm_note_reset(struct hcm *h, uint64_t began_us) {
    if (loop_now_us(h->loop) - began_us < PREMATURE_RESET_LIFETIME_US) {
        h->premature_resets++;
    }
}

static void begin_request(struct hcm *h) {
    timer_cancel(&h->idle);
    h->requests++;
    uint32_t max = h->cfg->max_requests_per_connection;
    if (max && h->requests >= max && h->drain == HCM_OPEN) {
        stats_inc(h->stats, HCM_downstream_cx_max_requests_reached);
        hcm_start_drain(h);
    }
}

static struct arena *on_begin(struct codec *c, void *user, struct codec_stream *cs) {
    (void)c;
    struct hcm *h = CAST(hcm, HCM_MAGIC, user);
    struct stream *s = stream_new(h, cs);
    begin_request(h);
    return &s->arena;
}

struct bad_request_text {
    unsigned status;
    sv body;
};
static const struct bad_request_text bad_request_texts[] = {
    {400, SV_INIT("Bad Request")},      {408, SV_INIT("Request Timeout")},
    {426, SV_INIT("Upgrade Required")}, {431, SV_INIT("Request Header Fields Too Large")},
    {501, SV_INIT("Not Implemented")},
};

static void on_bad_request(struct codec *c, void *user, struct codec_stream *cs, unsigned status) {
    (void)user;
    struct stream *s = CAST(stream, STREAM_MAGIC, cs->user);
    sv body = SV_NULL;
    for (unsigned i = 0; i < ARRAY_LEN(bad_request_texts); i++) {
        if (bad_request_texts[i].status == status) {
            body = bad_request_texts[i].body;
        }
    }
    h1_server_close_after(c);
    s->close_after = true;
    stream_local_reply(s, status, body, RESPONSE_FLAG(DPE), sv_cstr(cs->error_details), NULL, NULL);
}

static const struct codec_ops hcm_codec_ops = {.on_begin = on_begin,
                                               .on_bad_request = on_bad_request};

/* ---- network filter callbacks ---- */

static enum net_status on_new_connection(struct network_filter *f) {
    struct hcm *h = (struct hcm *)f;
    h->magic = HCM_MAGIC;
    h->cfg = f->config;
    h->worker = net_worker(f);
    h->loop = worker_loop(h->worker);
    h->stats = stats_shard(h->cfg->stats, h->loop->thread_index);
    list_init(&h->streams);
    timer_init(&h->idle, h->loop, on_idle);
    timer_init(&h->duration, h->loop, on_max_duration);
    timer_init(&h->drain_timer, h->loop, on_drain_timer);
    struct conn *c = f->conn;
    c->half_close_enabled = true;
    c->delayed_close_ms = h->cfg->delayed_close_timeout_ms;
    c->stats.delayed_close_timeouts = &h->stats->v[HCM_downstream_cx_delayed_close_timeout];
    c->stats.rx_bytes_total = &h->stats->v[HCM_downstream_cx_rx_bytes_total];
    c->stats.tx_bytes_total = &h->stats->v[HCM_downstream_cx_tx_bytes_total];
    c->stats.rx_bytes_buffered = &h->stats->v[HCM_downstream_cx_rx_bytes_buffered];
    c->stats.tx_bytes_buffered = &h->stats->v[HCM_downstream_cx_tx_bytes_buffered];
    stats_inc(h->stats, HCM_downstream_cx_total);
    stats_gauge_inc(h->stats, HCM_downstream_cx_active);
    if (conn_ssl(c)) {
        stats_inc(h->stats, HCM_downstream_cx_ssl_total);
        stats_gauge_inc(h->stats, HCM_downstream_cx_ssl_active);
    }
    arm_idle(h);
    if (h->cfg->max_connection_duration_ms) {
        uint64_t jitter = h->cfg->max_connection_duration_jitter_ms;
        timer_start(&h->duration,
                    h->cfg->max_connection_duration_ms + rng_below(&c->loop->rng, jitter + 1));
    }
    return NET_CONTINUE;
}

static enum codec_kind choose_codec(struct hcm *h, sv bytes) {
    if (h->cfg->codec_kind != CODEC_AUTO) {
        return h->cfg->codec_kind;
    }
    sv alpn = conn_alpn(h->base.conn);
    if (sv_eq(alpn, SV("h2"))) {
        return CODEC_HTTP2;
    }
    if (alpn.n && sv_starts(alpn, SV("http/1"))) {
        return CODEC_HTTP1;
    }
    return codec_detect(bytes);
}

bool hcm_overload_draw(struct hcm *h, enum overload_point p) {
    return !h->base.chain->config->bypasses_overload && overload_acts(p, &h->loop->rng);
}

static bool create_codec(struct hcm *h, struct buf *data) {
    enum codec_kind kind =
        choose_codec(h, buf_pullup(data, buf_len(data) < 24 ? buf_len(data) : 24));
    if (kind == CODEC_AUTO) {
        return false;
    }
    struct codec_stats st = {stats_shard(h->cfg->codec_h1_stats, h->loop->thread_index),
                             stats_shard(h->cfg->codec_h2_stats, h->loop->thread_index)};
    bool is_h2 = kind == CODEC_HTTP2;
    h->codec = (is_h2 ? h2_server_new : h1_server_new)(h->base.conn, &h->cfg->codec, &st,
                                                       &hcm_codec_ops, h);
    stats_inc(h->stats, is_h2 ? HCM_downstream_cx_http2_total : HCM_downstream_cx_http1_total);
    stats_gauge_inc(h->stats,
                    is_h2 ? HCM_downstream_cx_http2_active : HCM_downstream_cx_http1_active);
    return true;
}

/* All streams end with the flag; details unless they have some of their own. */
static void end_streams(struct hcm *h, uint64_t flag, sv details) {
    while (!list_empty(&h->streams)) {
        struct stream *s = LIST_ENTRY(list_first(&h->streams), struct stream, node);
        s->info.flags |= flag;
        stats_inc(h->stats, HCM_downstream_rq_rx_reset);
        if (!s->info.response_code_details.n) {
            s->info.response_code_details = details;
        }
        if (s->codec_stream) {
            /* the codec keeps its half until the connection ends, and has nobody to tell */
            s->codec_stream->ops = NULL;
        }
        stream_finish(s);
    }
}

static void fail_connection(struct hcm *h) {
    const char *error = h->codec->vt->error(h->codec);
    log_debug(LOG_http, "[C%llu] dispatch error: %s", (unsigned long long)h->base.conn->id, error);
    end_streams(h, RESPONSE_FLAG(DPE), sv_cstr(error));
    close_connection(h, CONN_CLOSE_FLUSH_DELAY, "codec_error");
}

/* Before the codec sees more bytes; of HTTP/1, too, whatever the points are called. True: the
 * connection is closed. */
static bool shed_on_dispatch(struct hcm *h, struct buf *data) {
    if (hcm_is_overloaded(h, OVERLOAD_HTTP2_GO_AWAY_AND_CLOSE)) {
        if (h->codec->protocol == HTTP_2) {
            h->codec->vt->goaway(h->codec, true);
        }
        end_streams(h, RESPONSE_FLAG(OM), SV("overload"));
        buf_clear(data);
        close_connection(h, CONN_CLOSE_FLUSH_DELAY, "overload");
        return true;
    }
    if (hcm_is_overloaded(h, OVERLOAD_HTTP2_GO_AWAY)) {
        hcm_start_drain(h);
    }
    return false;
}

/* False: there are too few bytes to tell which codec it is, or the connection is closed. */
static bool ensure_codec(struct hcm *h, struct buf *data, bool end_stream) {
    if (h->codec) {
        return true;
    }
    if (hcm_is_overloaded(h, OVERLOAD_HCM_CREATING_CODEC)) {
        stats_inc(h->stats, HCM_downstream_rq_overload_close);
        buf_clear(data);
        close_connection(h, CONN_CLOSE_FLUSH_DELAY, "overload");
        return false;
    }
    if (!create_codec(h, data)) {
        if (end_stream) {
            close_connection(h, CONN_CLOSE_NO_FLUSH, NULL);
        }
        return false;
    }
    return true;
}

static enum net_status on_data(struct network_filter *f, struct buf *data, bool end_stream) {
    struct hcm *h = hcm_of(f);
    h->is_remote_end |= end_stream && h->drain != HCM_CLOSING;
    if (h->drain == HCM_CLOSING) {
        buf_clear(data);
        return NET_STOP;
    }
    if (!ensure_codec(h, data, end_stream) || shed_on_dispatch(h, data)) {
        return NET_STOP;
    }
    h->is_dispatching = true;
    int rc = h->codec->vt->dispatch(h->codec, data);
    h->is_dispatching = false;
    if (rc < 0 && rc != CODEC_FLOODED) {
        stats_inc(h->stats, HCM_downstream_cx_protocol_error);
    }
    if (h->drain == HCM_CLOSING) {
        return NET_STOP;
    }
    if (rc < 0) {
        fail_connection(h);
        return NET_STOP;
    }
    if (is_reset_flood(h)) {
        h->codec->vt->goaway(h->codec, true);
        stats_inc(h->stats, HCM_downstream_cx_protocol_error);
        fail_connection(h);
        return NET_STOP;
    }
    if (end_stream) { /* a client that sends no more is taken for gone, but for a tunnel's */
        if (!list_empty(&h->streams)) {
            h->codec->vt->on_conn_end(h->codec, RESET_CONNECTION_TERMINATION);
        }
        close_connection(h, CONN_CLOSE_FLUSH, NULL);
    }
    return NET_STOP;
}

static void count_destroy(struct hcm *h, bool is_remote, bool had_active) {
    stats_inc(h->stats, HCM_downstream_cx_destroy);
    stats_inc(h->stats,
              is_remote ? HCM_downstream_cx_destroy_remote : HCM_downstream_cx_destroy_local);
    if (had_active) {
        stats_inc(h->stats, HCM_downstream_cx_destroy_active_rq);
        stats_inc(h->stats, is_remote ? HCM_downstream_cx_destroy_remote_active_rq
                                      : HCM_downstream_cx_destroy_local_active_rq);
    }
}

static void on_conn_event(struct network_filter *f, enum conn_event e) {
    struct hcm *h = hcm_of(f);
    if (e == CONN_EVENT_CONNECTED) {
        return;
    }
    bool had_active = !list_empty(&h->streams);
    h->drain = HCM_CLOSING;
    count_destroy(h, e == CONN_EVENT_REMOTE_CLOSE || h->is_remote_end, had_active);
    if (h->codec) {
        h->codec->vt->on_conn_end(h->codec, RESET_CONNECTION_TERMINATION);
    }
    while (!list_empty(&h->streams)) { /* those the codec no longer knew */
        struct stream *s = LIST_ENTRY(list_first(&h->streams), struct stream, node);
        s->codec_stream = NULL;
        s->info.flags |= RESPONSE_FLAG(DC);
        stream_finish(s);
    }
    timer_cancel(&h->idle);
    timer_cancel(&h->duration);
    timer_cancel(&h->drain_timer);
}

static void on_above_high(struct network_filter *f) {
    struct hcm *h = hcm_of(f);
    if (h->codec) {
        h->codec->vt->on_conn_above_high(h->codec);
    }
}

static void on_below_low(struct network_filter *f) {
    struct hcm *h = hcm_of(f);
    if (h->codec && h->drain != HCM_CLOSING) {
        h->codec->vt->on_conn_below_low(h->codec);
    }
}

/* An idle connection is not closed: its client may be sending a request right now. Either the
 * answer to the next one asks the client to leave, or the drain time ends. Before the first byte
 * there is nothing to tell yet: worker_drain_close() will. */
static void on_drain(struct network_filter *f) {
    struct hcm *h = hcm_of(f);
    if (h->codec && h->drain == HCM_OPEN) {
        stats_inc(h->stats, HCM_downstream_cx_drain_close);
        hcm_start_drain(h);
    }
}

static void destroy(struct network_filter *f) {
    struct hcm *h = hcm_of(f);
    struct conn *c = f->conn;
    stats_gauge_dec(h->stats, HCM_downstream_cx_active);
    stats_record(h->stats, HCM_downstream_cx_length_ms,
                 (loop_now_us(h->loop) - c->opened_us) / 1000);
    if (conn_ssl(c)) {
        stats_gauge_dec(h->stats, HCM_downstream_cx_ssl_active);
    }
    if (h->codec) {
        stats_gauge_dec(h->stats, h->codec->protocol == HTTP_2 ? HCM_downstream_cx_http2_active
                                                               : HCM_downstream_cx_http1_active);
        h->codec->vt->free(h->codec);
    }
    h->magic = 0;
}

const struct network_filter_type hcm_network_filter = {
    .name = "envoy.filters.network.http_connection_manager",
    .type_url = "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
    .is_terminal = true,
    .instance_size = sizeof(struct hcm),
    .compile = hcm_compile,
    .on_new_connection = on_new_connection,
    .on_data = on_data,
    .on_conn_event = on_conn_event,
    .on_above_write_high = on_above_high,
    .on_below_write_low = on_below_low,
    .on_drain = on_drain,
    .destroy = destroy,
};
