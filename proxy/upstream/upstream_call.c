/* One HTTP exchange with a cluster on a worker's behalf: a host, a pooled stream, the request out,
 * the response collected.
 * Threads: worker-local. Spec: Envoy's Http::AsyncClient and, for what is counted, its router.
 * Not here: requests of clients (request/router.c), retries, gRPC framing (grpc_call.c). */
#include "proxy/upstream/upstream_call.h"

#include "proxy/api/metadata_match.h"
#include "proxy/base/mem.h"
#include "proxy/upstream/aggregate.h"
#include "proxy/upstream/pool.h"

#define UPSTREAM_CALL_MAGIC 0xCA11AB1Eu
#define CALL_ARENA_BYTES 1024u

struct upstream_call {
    uint32_t magic;
    struct loop *loop;
    struct worker *worker;
    struct cluster_view *view;    /* a ref; NULL: there is none */
    struct cluster_view *member;  /* the host's: `view`, or a member of that aggregate */
    struct cluster_hold *members; /* a hold on it, if it is one */
    struct hosts_pin *pin;
    struct arena arena;
    uint32_t request_max_bytes, response_max_bytes;
    bool discards_response, has_hash;
    enum http_protocol downstream;
    uint64_t hash;
    const struct metadata_match *metadata_match;
    upstream_call_done_fn done; /* NULL: detached */
    void *user;
    /* the request */
    struct headers request, request_trailers;
    struct buf body; /* waits for the stream, or for it to drain */
    bool has_trailers, request_ended, request_sent, sent_any, is_above_high, has_replayed;
    struct request_transport transport;
    /* the attempt */
    struct http_pool_request *pending;
    struct codec_stream *stream;
    struct host *host; /* NULL: the pool has not named it */
    bool holds_breaker, is_grpc;
    bool awaits_grpc_status; /* the host's success is in the trailers */
    uint64_t start_us;
    /* the response */
    struct headers response, response_trailers;
    struct buf response_body;
    bool has_response, has_response_trailers;
    sv failure;
    /* the end */
    bool is_starting, is_ended;
    enum upstream_call_status status;
    struct timer timeout;
    struct loop_task end_task; /* tells of an end that came before _start returned */
    struct loop_garbage garbage;
};

static struct upstream_call *call_of(void *user) {
    return CAST(upstream_call, UPSTREAM_CALL_MAGIC, user);
}
static void attempt_start(struct upstream_call *c);

const char *upstream_call_status_str(enum upstream_call_status s) {
    static const char *const words[] = {
        [UPSTREAM_CALL_OK] = "ok",
        [UPSTREAM_CALL_NO_CLUSTER] = "no such cluster",
        [UPSTREAM_CALL_NO_HOST] = "no healthy upstream",
        [UPSTREAM_CALL_OVERFLOW] = "overflow",
        [UPSTREAM_CALL_FAILED] = "connection failure or reset",
        [UPSTREAM_CALL_TIMEOUT] = "timeout",
        [UPSTREAM_CALL_TOO_LARGE] = "body too large",
    };
    return words[s];
}

/* ---- the end ---- */

static void on_garbage(struct loop_garbage *g) {
    struct upstream_call *c = CONTAINER_OF(g, struct upstream_call, garbage);
    c->magic = 0;
    arena_fini(&c->arena);
    xfree(c);
}

/* Codec and pool may still be on the stack with the arena's headers in hand: memory goes later. */
static void dispose(struct upstream_call *c) {
    buf_fini(&c->body);
    buf_fini(&c->response_body);
    hosts_pin_release(c->pin);
    cluster_holds_release(&c->members);
    if (c->view) {
        cluster_view_unref(c->view);
    }
    c->garbage.free = on_garbage;
    loop_defer_free(c->loop, &c->garbage);
}

static void deliver(struct upstream_call *c) {
    upstream_call_done_fn done = c->done;
    c->done = NULL;
    if (done) {
        const struct upstream_call_result r = {
            .status = c->status,
            .code = c->has_response ? headers_status(&c->response) : 0,
            .headers = c->has_response ? &c->response : NULL,
            .trailers = c->has_response_trailers ? &c->response_trailers : NULL,
            .body = &c->response_body,
            .failure = c->failure,
        };
        done(c->user, &r);
    }
    dispose(c);
}

static void on_end_task(struct loop_task *t) {
    deliver(CONTAINER_OF(t, struct upstream_call, end_task));
}

static void count_host(struct upstream_call *c, bool is_success) {
    if (is_success) {
        HOST_STAT_ADD(c->host, rq_success, 1);
    } else {
        HOST_STAT_ADD(c->host, rq_error, 1);
    }
}

static void count_code(struct upstream_call *c, unsigned code) {
    const struct cluster_config *cfg = c->view->cfg;
    stats_inc(c->view->stats, CLUSTER_upstream_rq_completed);
    stats_codes_inc(cluster_side_codes(cfg, CLUSTER_SIDE_ALL), code);
    stats_codes_inc(cluster_side_codes(cfg, CLUSTER_SIDE_INTERNAL), code);
    stats_codes_inc_completed(cluster_side_codes(cfg, CLUSTER_SIDE_INTERNAL));
    if (c->host && code >= 500 && code < 600) {
        count_host(c, false);
    }
}

/* The call has come to its end; nothing of an attempt is left. */
static void end(struct upstream_call *c, enum upstream_call_status status) {
    c->is_ended = true;
    c->status = status;
    timer_cancel(&c->timeout);
    if (status != UPSTREAM_CALL_OK && c->view && !c->has_response) {
        count_code(c, status == UPSTREAM_CALL_TIMEOUT ? 504 : 503);
    }
    if (c->awaits_grpc_status) { /* it did not come */
        count_host(c, false);
    }
    if (c->is_starting) {
        loop_queue_task(c->loop, &c->end_task);
        return;
    }
    deliver(c);
}

/* ---- the attempt ---- */

static void release_breaker(struct upstream_call *c) {
    if (c->holds_breaker) {
        c->holds_breaker = false;
        breaker_release(&c->member->cfg->use[PRIORITY_DEFAULT].requests);
    }
}

/* The stream is no longer ours. */
static struct codec_stream *give_stream_up(struct upstream_call *c) {
    struct codec_stream *s = c->stream;
    c->stream = NULL;
    HOST_STAT_ADD(c->host, rq_active, -1);
    stats_gauge_dec(c->member->stats, CLUSTER_upstream_rq_active);
    release_breaker(c);
    return s;
}

static void stop_attempt(struct upstream_call *c) {
    if (c->pending) {
        http_pool_cancel(c->pending);
        c->pending = NULL;
        release_breaker(c);
    }
    if (c->stream) {
        struct codec_stream *s = give_stream_up(c);
        s->codec->vt->reset(s, RESET_LOCAL);
    }
}

static void fail(struct upstream_call *c, enum upstream_call_status status) {
    stop_attempt(c);
    end(c, status);
}

static void on_timeout(struct timer *t) {
    struct upstream_call *c = CONTAINER_OF(t, struct upstream_call, timeout);
    stats_inc(c->view->stats, CLUSTER_upstream_rq_timeout);
    if (c->host) {
        HOST_STAT_ADD(c->host, rq_timeout, 1);
        host_report(c->member->cfg, c->host, HOST_RESULT_TIMEOUT, 504);
    }
    fail(c, UPSTREAM_CALL_TIMEOUT);
}

/* ---- the response ---- */

static void complete(struct upstream_call *c) {
    if (c->awaits_grpc_status) {
        c->awaits_grpc_status = false;
        count_host(c, c->has_response_trailers &&
                          headers_grpc_as_http(&c->response_trailers, 500) < 500);
    }
    bool whole = c->request_sent;
    struct codec_stream *s = give_stream_up(c);
    stats_record(c->view->stats, CLUSTER_upstream_rq_time,
                 (loop_now_us(c->loop) - c->start_us) / 1000);
    if (!whole) {
        s->codec->vt->reset(s, RESET_LOCAL);
    }
    end(c, UPSTREAM_CALL_OK);
}

static void on_headers(struct codec_stream *s, struct headers *h, bool end_stream) {
    struct upstream_call *c = call_of(s->user);
    c->response = *h;
    c->has_response = true;
    unsigned code = headers_status(h);
    unsigned grpc_code = c->is_grpc ? headers_grpc_as_http(h, code) : code;
    host_report(c->member->cfg, c->host, HOST_RESULT_HTTP, grpc_code);
    count_code(c, code);
    bool is_5xx = code >= 500 && code < 600; /* counted with its code */
    if (!is_5xx && c->is_grpc && !end_stream) {
        c->awaits_grpc_status = true;
    } else if (!is_5xx) {
        count_host(c, !c->is_grpc || headers_grpc_as_http(h, 500) < 500);
    }
    if (end_stream) {
        complete(c);
    }
}

static void on_data(struct codec_stream *s, struct buf *data, bool end_stream) {
    struct upstream_call *c = call_of(s->user);
    if (c->discards_response) {
        buf_clear(data);
    } else {
        buf_move(&c->response_body, data);
        buf_compact(&c->response_body);
    }
    if (buf_len(&c->response_body) > c->response_max_bytes) {
        fail(c, UPSTREAM_CALL_TOO_LARGE);
        return;
    }
    if (end_stream) {
        complete(c);
    }
}

static void on_trailers(struct codec_stream *s, struct headers *t) {
    struct upstream_call *c = call_of(s->user);
    c->response_trailers = *t;
    c->has_response_trailers = true;
    complete(c);
}

/* A pooled connection that the host had closed while it was idle: nothing came back, and all that
 * was sent is still here. */
static bool is_stale(const struct upstream_call *c, const struct codec_stream *s,
                     enum reset_reason why) {
    sv method = headers_get(&c->request, HDR_method);
    return why == RESET_CONNECTION_TERMINATION && !c->has_replayed && !c->sent_any &&
           !c->has_trailers && c->request_ended && s->rx_header_bytes == 0 &&
           http_pool_stream_reused(s) && (sv_is(method, "GET") || sv_is(method, "HEAD"));
}

static void on_reset(struct codec_stream *s, enum reset_reason why) {
    struct upstream_call *c = call_of(s->user);
    bool again = is_stale(c, s, why);
    give_stream_up(c);
    if (again) {
        c->has_replayed = true;
        attempt_start(c);
        return;
    }
    host_report(c->member->cfg, c->host, HOST_RESULT_RESET, 503);
    end(c, why == RESET_OVERFLOW ? UPSTREAM_CALL_OVERFLOW : UPSTREAM_CALL_FAILED);
}

/* ---- the request ---- */

/* Send what there is, unless the stream has enough to do. May end the call. */
static void flush(struct upstream_call *c) {
    if (!c->stream || c->is_above_high || c->request_sent) {
        return;
    }
    bool last = c->request_ended && !c->has_trailers;
    if (last || !buf_empty(&c->body)) {
        c->sent_any |= !buf_empty(&c->body);
        c->request_sent = last;
        c->stream->codec->vt->send_data(c->stream, &c->body, last);
    }
    if (c->stream && c->has_trailers && !c->is_ended) {
        c->request_sent = true;
        c->stream->codec->vt->send_trailers(c->stream, &c->request_trailers);
    }
}

static void on_above_high(struct codec_stream *s) { call_of(s->user)->is_above_high = true; }

static void on_below_low(struct codec_stream *s) {
    struct upstream_call *c = call_of(s->user);
    c->is_above_high = false;
    flush(c);
}

static const struct codec_stream_ops stream_ops = {
    .on_headers = on_headers,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_reset = on_reset,
    .on_above_high = on_above_high,
    .on_below_low = on_below_low,
};

static void on_ready(void *user, struct codec_stream *s, struct conn *conn, struct host *h) {
    (void)conn;
    struct upstream_call *c = call_of(user);
    c->pending = NULL;
    c->stream = s;
    c->host = h;
    c->is_above_high = false;
    HOST_STAT_ADD(h, rq_total, 1);
    HOST_STAT_ADD(h, rq_active, 1);
    stats_inc(c->member->stats, CLUSTER_upstream_rq_total);
    stats_gauge_inc(c->member->stats, CLUSTER_upstream_rq_active);
    http_pool_stream_arena(s, &c->arena);
    c->request_sent = c->request_ended && buf_empty(&c->body) && !c->has_trailers;
    s->codec->vt->send_headers(s, &c->request, c->request_sent);
    flush(c);
}

static void on_failure(void *user, enum pool_failure why, sv transport_failure, struct host *h) {
    struct upstream_call *c = call_of(user);
    c->pending = NULL;
    c->failure = arena_sv(&c->arena, transport_failure);
    release_breaker(c);
    if (why == POOL_OVERFLOW) {
        end(c, UPSTREAM_CALL_OVERFLOW);
        return;
    }
    c->host = h;
    host_report(c->member->cfg, h, HOST_RESULT_CONNECT_FAILED, 503);
    end(c, UPSTREAM_CALL_FAILED);
}

static const struct http_pool_ops pool_ops = {.on_ready = on_ready, .on_failure = on_failure};

/* ---- starting ---- */

static void attempt_start(struct upstream_call *c) {
    struct cluster_view *v = c->view;
    struct lb_context ctx = {.hash = c->hash,
                             .has_hash = c->has_hash,
                             .rng = &c->loop->rng,
                             .metadata_match = c->metadata_match,
                             .request = &c->request};
    const struct host_entry *entry = NULL;
    c->host = NULL;
    struct cluster_view *m = cluster_view_member(v, &ctx);
    if (UNLIKELY(m && m != v)) {
        cluster_hold(&c->members, m, &c->arena);
    }
    struct host *h = m ? cluster_view_pick(m, &ctx, &entry) : NULL;
    if (!h) {
        stats_inc(v->stats, CLUSTER_upstream_cx_none_healthy);
        end(c, UPSTREAM_CALL_NO_HOST);
        return;
    }
    c->member = m;
    if (!breaker_try(&m->cfg->use[PRIORITY_DEFAULT].requests,
                     m->cfg->breakers[PRIORITY_DEFAULT].max_requests)) {
        stats_inc(m->stats, CLUSTER_upstream_rq_active_overflow);
        c->host = h;
        end(c, UPSTREAM_CALL_OVERFLOW);
        return;
    }
    c->holds_breaker = true;
    bool has_options = cluster_auto_sni(v->cfg, &c->request, &c->transport);
    struct pool_key key = {.host = h,
                           .entry = entry,
                           .priority = PRIORITY_DEFAULT,
                           .downstream = c->downstream,
                           .transport = has_options ? &c->transport.options : NULL};
    http_pool_request(m, &key, &pool_ops, c, &stream_ops, &c->pending);
}

static void add_forwarding(struct upstream_call *c) {
    const struct addr *own = worker_local_address(c->worker);
    headers_set(&c->request, HDR_x_envoy_internal, SV("true"));
    if (own->family == 0) {
        return;
    }
    char ip[ADDR_STR_MAX];
    int n = (int)addr_ip_str(own, ip);
    sv before = headers_joined(&c->request, HDR_x_forwarded_for, SV_NULL, &c->arena);
    headers_set(&c->request, HDR_x_forwarded_for,
                arena_printf(&c->arena, "%.*s%s%.*s", SV_ARG(before), before.n ? "," : "", n, ip));
}

static struct upstream_call *call_new(struct worker *w, const struct upstream_call_options *o) {
    struct upstream_call *c = xnew(struct upstream_call);
    c->magic = UPSTREAM_CALL_MAGIC;
    c->worker = w;
    c->loop = worker_loop(w);
    arena_init(&c->arena, CALL_ARENA_BYTES);
    buf_init(&c->body);
    buf_init(&c->response_body);
    headers_init(&c->request, &c->arena);
    headers_init(&c->request_trailers, &c->arena);
    c->request_max_bytes = o->request_max_bytes ? o->request_max_bytes : UPSTREAM_CALL_BODY_MAX;
    c->response_max_bytes = o->response_max_bytes ? o->response_max_bytes : UPSTREAM_CALL_BODY_MAX;
    c->discards_response = o->discards_response;
    c->has_hash = o->has_hash;
    c->hash = o->hash;
    c->metadata_match = o->metadata_match;
    c->downstream = o->downstream;
    c->end_task.run = on_end_task;
    timer_init(&c->timeout, c->loop, on_timeout);
    c->start_us = loop_now_us(c->loop);
    return c;
}

struct upstream_call *upstream_call_start(struct worker *w, const struct upstream_call_options *o,
                                          const struct headers *h, struct buf *body,
                                          bool end_stream, upstream_call_done_fn done, void *user) {
    struct upstream_call *c = call_new(w, o);
    if (body) {
        buf_move(&c->body, body);
    }
    c->done = done;
    c->user = user;
    c->request_ended = end_stream;
    c->is_starting = true;
    struct cluster_view *v = o->cluster != SLOT_NONE ? worker_cluster(w, o->cluster)
                                                     : worker_cluster_by_name(w, o->cluster_name);
    if (!v) {
        end(c, UPSTREAM_CALL_NO_CLUSTER);
        return c;
    }
    c->view = cluster_view_ref(v);
    c->pin = cluster_view_pin(v);
    headers_copy(&c->request, h);
    c->is_grpc = headers_are_grpc(&c->request);
    if (!headers_has(&c->request, HDR_authority)) {
        headers_set(&c->request, HDR_authority, v->cfg->name);
    }
    if (!o->omits_forwarding) {
        add_forwarding(c);
    }
    if (o->timeout_ms) {
        timer_start(&c->timeout, o->timeout_ms);
    }
    attempt_start(c);
    c->is_starting = false;
    return c;
}

/* ---- what the caller asks ---- */

void upstream_call_data(struct upstream_call *c, struct buf *data, bool end_stream) {
    ASSERT(c->magic == UPSTREAM_CALL_MAGIC && !c->request_ended);
    if (c->is_ended) {
        buf_clear(data);
        return;
    }
    buf_move(&c->body, data);
    c->request_ended = end_stream;
    flush(c);
    if (c->is_ended || buf_empty(&c->body)) {
        return;
    }
    buf_compact(&c->body);
    if (buf_len(&c->body) > c->request_max_bytes) {
        stats_inc(c->view->stats, CLUSTER_retry_or_shadow_abandoned);
        fail(c, UPSTREAM_CALL_TOO_LARGE);
    }
}

void upstream_call_trailers(struct upstream_call *c, const struct headers *t) {
    ASSERT(c->magic == UPSTREAM_CALL_MAGIC && !c->request_ended);
    if (c->is_ended) {
        return;
    }
    headers_copy(&c->request_trailers, t);
    c->has_trailers = true;
    c->request_ended = true;
    flush(c);
}

void upstream_call_cancel(struct upstream_call *c) {
    ASSERT(c->magic == UPSTREAM_CALL_MAGIC);
    c->done = NULL;
    loop_cancel_task(&c->end_task);
    timer_cancel(&c->timeout);
    if (!c->is_ended) {
        c->is_ended = true;
        stop_attempt(c);
    }
    dispose(c);
}

void upstream_call_detach(struct upstream_call *c) {
    ASSERT(c->magic == UPSTREAM_CALL_MAGIC && c->request_ended);
    c->done = NULL;
}

struct arena *upstream_call_arena(struct upstream_call *c) {
    return &c->arena;
}
void upstream_call_set_user(struct upstream_call *c, void *user) { c->user = user; }
