/* One pooled HTTP connection to an upstream: connecting, streams on it, idleness, draining, its end
 * and what is counted then.
 * Threads: worker-local. Spec: Envoy's ConnPoolImplBase and CodecClient;
 * core.v3.HttpProtocolOptions.
 * Not here: which connection a request gets (pool_http.c), framing (http/). */
#include "proxy/base/log.h"
#include "proxy/upstream/cluster_view.h"
#include "proxy/upstream/pool_http.h"

static struct stats_shard *stats_of(const struct http_conn *hc) { return hc->pool->view->stats; }
static const struct cluster_config *cfg_of(const struct http_conn *hc) {
    return hc->pool->view->cfg;
}
static struct loop *loop_of(const struct http_conn *hc) { return hc->pool->view->loop; }

static struct list *list_of(struct http_conn *hc) {
    switch ((enum http_conn_state)hc->state) {
    case HTTP_CONN_CONNECTING:
        return &hc->pool->connecting;
    case HTTP_CONN_READY:
        return &hc->pool->ready;
    case HTTP_CONN_BUSY:
        return &hc->pool->busy;
    case HTTP_CONN_DRAINING:
        return &hc->pool->draining;
    case HTTP_CONN_CLOSED:
        break;
    }
    return NULL;
}

static void set_state(struct http_conn *hc, enum http_conn_state to) {
    ASSERT(hc->state != HTTP_CONN_CLOSED);
    if (hc->state == HTTP_CONN_CONNECTING && to != HTTP_CONN_CONNECTING) {
        hc->pool->connecting_n--;
    }
    list_unlink(&hc->node);
    hc->state = (uint8_t)to;
    struct list *l = list_of(hc);
    if (l) {
        list_push_front(l, &hc->node);
    }
}

/* ---- the end ---- */

static void free_http_conn(struct loop_garbage *g) {
    struct http_conn *hc = CONTAINER_OF(g, struct http_conn, garbage);
    if (hc->codec) {
        hc->codec->vt->free(hc->codec);
    }
    hc->magic = 0;
    xfree(hc);
}

/* Out of the pool, places given back. Its memory stays until the callbacks are over. */
static void leave_pool(struct http_conn *hc) {
    struct http_pool *p = hc->pool;
    set_state(hc, HTTP_CONN_CLOSED);
    loop_cancel_task(&hc->task);
    timer_cancel(&hc->idle);
    timer_cancel(&hc->duration);
    breaker_release(&p->view->cfg->use[p->priority].connections);
    stats_gauge_dec(p->view->stats, CLUSTER_upstream_cx_active);
    HOST_STAT_ADD(p->hv->host, cx_active, -1);
    hc->garbage.free = free_http_conn;
    loop_defer_free(p->view->loop, &hc->garbage);
    http_pool_check_later(p);
}

static void count_end(struct http_conn *hc, bool is_remote, bool is_active) {
    struct stats_shard *st = stats_of(hc);
    stats_inc(st, CLUSTER_upstream_cx_destroy);
    stats_inc(st,
              is_remote ? CLUSTER_upstream_cx_destroy_remote : CLUSTER_upstream_cx_destroy_local);
    if (is_active) {
        stats_inc(st, CLUSTER_upstream_cx_destroy_with_active_rq);
        stats_inc(st, is_remote ? CLUSTER_upstream_cx_destroy_remote_with_active_rq
                                : CLUSTER_upstream_cx_destroy_local_with_active_rq);
    }
    stats_record(st, CLUSTER_upstream_cx_length_ms,
                 (loop_now_us(loop_of(hc)) - hc->opened_us) / 1000);
    if (hc->codec) { /* else it was never connected */
        stats_record(st, CLUSTER_upstream_rq_per_cx, hc->requests);
    }
}

static void on_closed(struct http_conn *hc, bool is_remote) {
    hc->conn = NULL;
    enum reset_reason why = RESET_CONNECTION_TERMINATION;
    if (hc->has_protocol_error) {
        why = RESET_PROTOCOL_ERROR;
    }
    leave_pool(hc);
    hc->codec->vt->on_conn_end(hc->codec, why); /* a body that the close delimits is complete */
    count_end(hc, is_remote || hc->is_stale, hc->was_cut);
}

void http_conn_close(struct http_conn *hc, const char *reason) {
    if (hc->state == HTTP_CONN_CONNECTING) {
        upstream_connect_cancel(&hc->connect);
        leave_pool(hc);
    } else if (hc->conn) {
        conn_close(hc->conn, CONN_CLOSE_NO_FLUSH, reason);
    }
}

void http_conn_drain(struct http_conn *hc) {
    switch ((enum http_conn_state)hc->state) {
    case HTTP_CONN_CONNECTING:
        http_conn_close(hc, NULL);
        return;
    case HTTP_CONN_READY:
    case HTTP_CONN_BUSY:
        set_state(hc, HTTP_CONN_DRAINING);
        break;
    case HTTP_CONN_DRAINING:
        break;
    case HTTP_CONN_CLOSED:
        return;
    }
    if (!hc->streams && !hc->in_dispatch) {
        http_conn_close(hc, "pool is draining");
    }
}

/* ---- between streams ---- */

static void note_close(struct http_conn *hc) {
    if (!hc->is_notified) {
        hc->is_notified = true;
        stats_inc(stats_of(hc), CLUSTER_upstream_cx_close_notify);
    }
}

static void on_idle(struct timer *t) {
    struct http_conn *hc = CONTAINER_OF(t, struct http_conn, idle);
    if (hc->streams) {
        return; /* started again with the next idleness */
    }
    uint64_t idle_ms = (loop_now_us(loop_of(hc)) - hc->idle_since_us) / 1000;
    if (idle_ms < cfg_of(hc)->idle_timeout_ms) {
        timer_start(&hc->idle, cfg_of(hc)->idle_timeout_ms - idle_ms);
        return;
    }
    stats_inc(stats_of(hc), CLUSTER_upstream_cx_idle_timeout);
    http_conn_close(hc, "on_idle_timeout");
}

static void on_duration(struct timer *t) {
    struct http_conn *hc = CONTAINER_OF(t, struct http_conn, duration);
    stats_inc(stats_of(hc), CLUSTER_upstream_cx_max_duration_reached);
    http_conn_drain(hc);
}

/* The timer is left running while requests come and go: it looks at idle_since_us when it fires. */
static void become_idle(struct http_conn *hc) {
    hc->idle_since_us = loop_now_us(loop_of(hc));
    if (cfg_of(hc)->idle_timeout_ms && !timer_active(&hc->idle)) {
        timer_start(&hc->idle, cfg_of(hc)->idle_timeout_ms);
    }
}

static bool is_worn(struct http_conn *hc) {
    const struct codec_vtable *vt = hc->codec->vt;
    if (vt->wants_close(hc->codec)) {
        if (!hc->was_cut) {
            note_close(hc);
        }
        return true;
    }
    return !hc->streams && !vt->is_idle_clean(hc->codec);
}

/* After streams ended or began, or limits changed: which list it belongs to, and whether its time
 * is over. */
static void settle(struct http_conn *hc) {
    if (hc->state == HTTP_CONN_CLOSED) {
        return;
    }
    if (hc->state == HTTP_CONN_DRAINING || is_worn(hc)) {
        http_conn_drain(hc);
        return;
    }
    if (!hc->streams) {
        become_idle(hc);
    }
    enum http_conn_state want = hc->streams < hc->max_streams ? HTTP_CONN_READY : HTTP_CONN_BUSY;
    if (want != hc->state) {
        set_state(hc, want);
    }
    if (want == HTTP_CONN_READY && hc->pool->pending_n) {
        http_pool_serve(hc->pool, hc);
    } else if (hc->pool->is_draining && !hc->streams) {
        http_conn_drain(hc);
    }
}

static void on_task(struct loop_task *t) {
    settle(CAST(http_conn, HTTP_CONN_MAGIC, CONTAINER_OF(t, struct http_conn, task)));
}

static void settle_later(struct http_conn *hc) {
    if (!hc->in_dispatch && hc->state != HTTP_CONN_CLOSED) {
        loop_queue_task(loop_of(hc), &hc->task);
    }
}

/* ---- the codec's callbacks ---- */

static struct arena *on_response_arena(struct codec *c, void *user, struct codec_stream *s) {
    (void)c, (void)user;
    return s->response_arena;
}

static void on_goaway(struct codec *c, void *user, bool is_graceful, uint32_t last_stream_id) {
    (void)c, (void)is_graceful, (void)last_stream_id;
    struct http_conn *hc = CAST(http_conn, HTTP_CONN_MAGIC, user);
    note_close(hc);
    if (hc->state == HTTP_CONN_READY || hc->state == HTTP_CONN_BUSY) {
        set_state(hc, HTTP_CONN_DRAINING);
        settle_later(hc);
        http_pool_check_later(hc->pool);
    }
}

static void on_max_streams(struct codec *c, void *user, uint32_t max) {
    (void)c;
    struct http_conn *hc = CAST(http_conn, HTTP_CONN_MAGIC, user);
    hc->pool->peer_max_streams = max;
    hc->max_streams = http_conn_streams_max(hc->pool, true);
    if (hc->state == HTTP_CONN_READY && hc->streams >= hc->max_streams) {
        set_state(hc, HTTP_CONN_BUSY);
    }
    settle_later(hc);
}

static void note_h2_reset(struct http_conn *hc, enum reset_reason why) {
    struct stats_shard *st = stats_of(hc);
    switch (why) {
    case RESET_LOCAL:
    case RESET_PROTOCOL_ERROR:
    case RESET_OVERLOAD:
        stats_inc(st, CLUSTER_upstream_rq_tx_reset);
        break;
    case RESET_REMOTE:
        stats_inc(st, CLUSTER_upstream_rq_rx_reset);
        break;
    case RESET_CONNECTION_FAILURE:
    case RESET_CONNECTION_TIMEOUT:
    case RESET_CONNECTION_TERMINATION:
        stats_inc(st, CLUSTER_upstream_rq_pending_failure_eject);
        hc->was_cut = true;
        break;
    case RESET_NONE:
    case RESET_LOCAL_REFUSED:
    case RESET_REMOTE_REFUSED:
    case RESET_OVERFLOW:
    case RESET_CONNECT_ERROR:
        break;
    }
}

/* HTTP/1 has no resets: the connection ends with its exchange. */
static void note_h1_reset(struct http_conn *hc, enum reset_reason why) {
    hc->was_cut = why != RESET_NONE;
    bool is_cut_short = why == RESET_PROTOCOL_ERROR && hc->state == HTTP_CONN_CLOSED;
    if (is_cut_short && !hc->has_protocol_error) {
        stats_inc(stats_of(hc), CLUSTER_upstream_cx_protocol_error);
    }
}

static void on_stream_end(struct codec *c, void *user, struct codec_stream *s) {
    struct http_conn *hc = CAST(http_conn, HTTP_CONN_MAGIC, user);
    if (BUG(hc->streams == 0)) {
        return;
    }
    (c->protocol == HTTP_2 ? note_h2_reset : note_h1_reset)(hc, s->reset_reason);
    hc->streams--;
    hc->pool->streams_n--;
    settle_later(hc);
}

static const struct codec_ops codec_ops = {
    .on_response_arena = on_response_arena,
    .on_goaway = on_goaway,
    .on_max_streams = on_max_streams,
    .on_stream_end = on_stream_end,
};

/* ---- the connection's callbacks ---- */

static void on_data(struct conn *c, void *user, struct buf *data, bool end_stream) {
    (void)c, (void)end_stream;
    struct http_conn *hc = CAST(http_conn, HTTP_CONN_MAGIC, user);
    if (hc->in_dispatch) {
        return; /* more bytes from inside a callback: the outer call goes on with them */
    }
    hc->in_dispatch = true;
    int rc = hc->codec->vt->dispatch(hc->codec, data);
    hc->in_dispatch = false;
    if (hc->state == HTTP_CONN_CLOSED) {
        return;
    }
    if (rc < 0) {
        log_debug(LOG_pool, "[C%llu] protocol error: %s", (unsigned long long)hc->conn->id,
                  hc->codec->vt->error(hc->codec));
        stats_inc(stats_of(hc), CLUSTER_upstream_cx_protocol_error);
        hc->has_protocol_error = true;
        http_conn_close(hc, "upstream protocol error");
        return;
    }
    settle(hc);
}

static void on_event(struct conn *c, void *user, enum conn_event e) {
    (void)c;
    struct http_conn *hc = CAST(http_conn, HTTP_CONN_MAGIC, user);
    if (e != CONN_EVENT_CONNECTED) {
        on_closed(hc, e == CONN_EVENT_REMOTE_CLOSE);
    }
}

static void on_above_high(struct conn *c, void *user) {
    (void)c;
    struct http_conn *hc = CAST(http_conn, HTTP_CONN_MAGIC, user);
    hc->codec->vt->on_conn_above_high(hc->codec);
}

static void on_below_low(struct conn *c, void *user) {
    (void)c;
    struct http_conn *hc = CAST(http_conn, HTTP_CONN_MAGIC, user);
    hc->codec->vt->on_conn_below_low(hc->codec);
}

static const struct conn_ops conn_ops = {
    .on_data = on_data,
    .on_event = on_event,
    .on_write_above_high = on_above_high,
    .on_write_below_low = on_below_low,
};

/* ---- connecting ---- */

uint32_t http_conn_streams_max(const struct http_pool *p, bool is_h2) {
    if (!is_h2) {
        return 1;
    }
    uint32_t configured = p->view->cfg->codec->h2.max_concurrent_streams;
    configured = configured ? configured : UINT32_MAX;
    return configured < p->peer_max_streams ? configured : p->peer_max_streams;
}

static bool chose_h2(const struct http_pool *p, const struct conn *c) {
    return p->protocol == UPSTREAM_HTTP2 ||
           (p->protocol == UPSTREAM_AUTO && sv_eq(conn_alpn(c), SV("h2")));
}

static void count_protocol(const struct http_pool *p, bool is_h2) {
    stats_inc(p->view->stats,
              is_h2 ? CLUSTER_upstream_cx_http2_total : CLUSTER_upstream_cx_http1_total);
}

static void on_connected(struct upstream_connect *u, struct conn *c) {
    struct http_conn *hc = CONTAINER_OF(u, struct http_conn, connect);
    struct http_pool *p = hc->pool;
    const struct cluster_config *cfg = cfg_of(hc);
    bool is_h2 = chose_h2(p, c);
    p->is_h2_seen = is_h2;
    stats_record(stats_of(hc), CLUSTER_upstream_cx_connect_ms,
                 (loop_now_us(loop_of(hc)) - u->started_us) / 1000);
    if (p->protocol == UPSTREAM_AUTO) { /* else it was known, and counted, when we began */
        count_protocol(p, is_h2);
    }
    hc->conn = c;
    hc->max_streams = http_conn_streams_max(p, is_h2);
    conn_set_ops(c, &conn_ops, hc);
    hc->codec = (is_h2 ? h2_client_new : h1_client_new)(
        c, cfg->codec, cluster_view_codec_stats(p->view, is_h2), &codec_ops, hc);
    if (cfg->max_connection_duration_ms) {
        timer_start(&hc->duration, cfg->max_connection_duration_ms);
    }
    log_debug(LOG_pool, "[C%llu] connected to %.*s, HTTP/%d", (unsigned long long)c->id,
              SV_ARG(p->hv->host->address_text), is_h2 ? 2 : 1);
    set_state(hc, HTTP_CONN_READY);
    settle(hc);
}

static void count_failure(struct http_conn *hc, enum pool_failure why) {
    struct stats_shard *st = stats_of(hc);
    stats_inc(st, CLUSTER_upstream_cx_connect_fail);
    if (why == POOL_CONNECT_TIMEOUT) {
        stats_inc(st, CLUSTER_upstream_cx_connect_timeout);
    }
    count_end(hc, why == POOL_CONNECT_FAILED, false);
    HOST_STAT_ADD(hc->pool->hv->host, cx_connect_fail, 1);
}

static void on_connect_failed(struct upstream_connect *u, enum pool_failure why, sv reason) {
    struct http_conn *hc = CONTAINER_OF(u, struct http_conn, connect);
    count_failure(hc, why);
    leave_pool(hc);
    http_pool_fail_pending(hc->pool, why, reason);
}

static const struct upstream_connect_ops connect_ops = {.on_connected = on_connected,
                                                        .on_failed = on_connect_failed};

bool http_conn_new(struct http_pool *p, enum pool_failure *why, sv *reason) {
    struct http_conn *hc = xnew(struct http_conn);
    struct loop *l = p->view->loop;
    hc->magic = HTTP_CONN_MAGIC;
    hc->pool = p;
    hc->opened_us = loop_now_us(l);
    hc->task.run = on_task;
    timer_init(&hc->idle, l, on_idle);
    timer_init(&hc->duration, l, on_duration);
    hc->connect = (struct upstream_connect){.ops = &connect_ops,
                                            .view = p->view,
                                            .host = p->hv->host,
                                            .options = p->options,
                                            .source = p->source,
                                            .shared_state = p->shared_state,
                                            .transport = p->transport};
    list_push_back(&p->connecting, &hc->node);
    p->connecting_n++;
    stats_inc(p->view->stats, CLUSTER_upstream_cx_total);
    if (p->protocol != UPSTREAM_AUTO) {
        count_protocol(p, p->protocol == UPSTREAM_HTTP2);
    }
    stats_gauge_inc(p->view->stats, CLUSTER_upstream_cx_active);
    HOST_STAT_ADD(p->hv->host, cx_total, 1);
    HOST_STAT_ADD(p->hv->host, cx_active, 1);
    if (upstream_connect_start(&hc->connect, why, reason)) {
        return true;
    }
    count_failure(hc, *why);
    leave_pool(hc);
    return false;
}

/* ---- streams ---- */

static void wear(struct http_conn *hc) {
    const struct cluster_config *cfg = cfg_of(hc);
    if (cfg->max_requests_per_connection && hc->requests >= cfg->max_requests_per_connection) {
        stats_inc(stats_of(hc), CLUSTER_upstream_cx_max_requests);
        set_state(hc, HTTP_CONN_DRAINING);
    } else if (hc->streams >= hc->max_streams) {
        set_state(hc, HTTP_CONN_BUSY);
    }
}

bool http_conn_attach(struct http_conn *hc, const struct http_pool_ops *ops, void *user,
                      const struct codec_stream_ops *stream_ops) {
    struct codec_stream *s = hc->codec->vt->open(hc->codec, stream_ops, user);
    if (!s) {
        return false;
    }
    hc->streams++;
    hc->requests++;
    hc->pool->streams_n++;
    wear(hc);
    const struct cluster_config *cfg = cfg_of(hc);
    if (cfg->outlier) {
        host_report(cfg, hc->pool->hv->host, HOST_RESULT_CONNECT_OK, 0);
    }
    ops->on_ready(user, s, hc->conn, hc->pool->hv->host);
    return true;
}

void http_pool_stream_arena(struct codec_stream *s, struct arena *a) { s->response_arena = a; }

bool http_pool_stream_reused(const struct codec_stream *s) {
    const struct http_conn *hc = CAST(http_conn, HTTP_CONN_MAGIC, s->codec->user);
    return hc->requests > 1;
}
