/* TCP connections as codec streams: see raw_stream.h. Each has a codec of its own, which ends with
 * the connection.
 * Threads: worker-local. Not here: connecting (pool_tcp.c). */
#include "proxy/upstream/raw_stream.h"

#include "proxy/base/log.h"
#include "proxy/base/mem.h"

#define RAW_STREAM_MAGIC 0x4A3577EAu

struct raw_stream {
    uint32_t magic;
    bool is_over; /* the user has heard its last callback */
    bool is_read_ended, is_write_ended, is_answered;
    struct codec codec;
    struct codec_stream stream;
    struct cluster_view *view; /* a ref */
    struct host *host;         /* a ref */
    uint8_t priority;
    struct conn *conn; /* NULL: connecting, or closed */
    struct tcp_pool_request *pending;
    struct buf preface;
    const struct http_pool_ops *ops;
    void *user;
    struct loop_task answer; /* once what the user has of the body is on its way */
    struct loop_garbage garbage;
};

static struct raw_stream *raw_of(void *user) { return CAST(raw_stream, RAW_STREAM_MAGIC, user); }
static struct raw_stream *raw_of_stream(struct codec_stream *s) {
    return raw_of(CONTAINER_OF(s, struct raw_stream, stream));
}

static void free_raw(struct loop_garbage *g) {
    struct raw_stream *r = CONTAINER_OF(g, struct raw_stream, garbage);
    r->magic = 0;
    buf_fini(&r->preface);
    shared_unref(&r->host->shared);
    cluster_view_unref(r->view);
    xfree(r);
}

static void dispose(struct raw_stream *r) {
    loop_cancel_task(&r->answer);
    r->garbage.free = free_raw;
    loop_defer_free(r->view->loop, &r->garbage);
}

/* ---- from the connection ---- */

/* Both directions ended: nobody looks at the stream any more. What is left to send is sent. */
static void maybe_finish(struct raw_stream *r) {
    if (r->is_read_ended && r->is_write_ended && !r->is_over) {
        r->is_over = true;
        if (r->conn) {
            conn_close(r->conn, CONN_CLOSE_FLUSH, NULL);
        }
    }
}

/* The request was what the connection is for. */
static void answer(struct raw_stream *r) {
    struct codec_stream *s = &r->stream;
    if (r->is_answered || r->is_over) {
        return;
    }
    r->is_answered = true;
    struct headers *response = arena_new(s->response_arena, struct headers);
    headers_init(response, s->response_arena);
    headers_set_status(response, 200);
    s->ops->on_headers(s, response, false);
}

static void on_answer(struct loop_task *t) { answer(CONTAINER_OF(t, struct raw_stream, answer)); }

static void on_data(struct conn *c, void *user, struct buf *data, bool end_stream) {
    struct raw_stream *r = raw_of(user);
    (void)c;
    answer(r);
    if (r->is_over) {
        buf_clear(data);
        return;
    }
    r->stream.rx_body_bytes += buf_len(data);
    r->is_read_ended = end_stream;
    r->stream.ops->on_data(&r->stream, data, end_stream);
    maybe_finish(r);
}

static void on_event(struct conn *c, void *user, enum conn_event e) {
    struct raw_stream *r = raw_of(user);
    if (e == CONN_EVENT_CONNECTED) {
        return;
    }
    r->conn = NULL;
    tcp_pool_closed(r->view, r->host, c, r->priority, e == CONN_EVENT_REMOTE_CLOSE);
    if (!r->is_over) {
        r->is_over = true;
        r->stream.ops->on_reset(&r->stream, RESET_CONNECTION_TERMINATION);
    }
    dispose(r);
}

static void on_above_high(struct conn *c, void *user) {
    struct raw_stream *r = raw_of(user);
    (void)c;
    if (!r->is_over) {
        r->stream.ops->on_above_high(&r->stream);
    }
}
static void on_below_low(struct conn *c, void *user) {
    struct raw_stream *r = raw_of(user);
    (void)c;
    if (!r->is_over) {
        r->stream.ops->on_below_low(&r->stream);
    }
}

static const struct conn_ops conn_ops = {
    .on_data = on_data,
    .on_event = on_event,
    .on_write_above_high = on_above_high,
    .on_write_below_low = on_below_low,
};

/* ---- from the stream's user ---- */

static void send_data(struct codec_stream *s, struct buf *data, bool end_stream) {
    struct raw_stream *r = raw_of_stream(s);
    if (r->is_over || r->is_write_ended) {
        buf_clear(data);
        return;
    }
    s->tx_body_bytes += buf_len(data);
    r->is_write_ended = end_stream;
    conn_write(r->conn, data, end_stream);
    maybe_finish(r);
}

static void send_headers(struct codec_stream *s, const struct headers *h, bool end_stream) {
    struct raw_stream *r = raw_of_stream(s);
    (void)h;
    if (!buf_empty(&r->preface) || end_stream) {
        send_data(s, &r->preface, end_stream);
    }
    loop_queue_task(r->view->loop, &r->answer);
}

static void send_trailers(struct codec_stream *s, const struct headers *h) {
    struct buf BUF_AUTO none;
    buf_init(&none);
    (void)h;
    send_data(s, &none, true);
}

static void reset(struct codec_stream *s, enum reset_reason why) {
    struct raw_stream *r = raw_of_stream(s);
    (void)why;
    if (!r->is_over) {
        r->is_over = true;
        conn_close(r->conn, r->is_read_ended ? CONN_CLOSE_FLUSH : CONN_CLOSE_NO_FLUSH, NULL);
    }
}

static void read_disable(struct codec_stream *s, bool disable) {
    struct raw_stream *r = raw_of_stream(s);
    if (!r->is_over && r->conn) {
        conn_read_disable(r->conn, disable);
    }
}

static const struct codec_vtable raw_vtable = {
    .send_headers = send_headers,
    .send_data = send_data,
    .send_trailers = send_trailers,
    .reset = reset,
    .read_disable = read_disable,
};

/* ---- connecting ---- */

static void on_ready(void *user, struct conn *c, struct host *h) {
    struct raw_stream *r = raw_of(user);
    r->pending = NULL;
    r->conn = c;
    r->codec = (struct codec){.vt = &raw_vtable, .conn = c, .protocol = HTTP_11};
    c->half_close_enabled = true;
    conn_set_ops(c, &conn_ops, r);
    r->ops->on_ready(r->user, &r->stream, c, h);
}

static void on_failure(void *user, enum pool_failure why, sv transport_failure, struct host *h) {
    struct raw_stream *r = raw_of(user);
    r->pending = NULL;
    dispose(r);
    r->ops->on_failure(r->user, why, transport_failure, h);
}

static const struct tcp_pool_ops pool_ops = {.on_ready = on_ready, .on_failure = on_failure};

void raw_stream_request(struct cluster_view *v, const struct pool_key *key, struct buf *preface,
                        const struct http_pool_ops *ops, void *user,
                        const struct codec_stream_ops *stream_ops, struct raw_stream **handle) {
    struct raw_stream *r = xnew(struct raw_stream);
    r->magic = RAW_STREAM_MAGIC;
    r->view = cluster_view_ref(v);
    r->host = shared_ref(key->host);
    r->priority = key->priority;
    r->answer.run = on_answer;
    r->ops = ops;
    r->user = user;
    r->stream = (struct codec_stream){.codec = &r->codec, .ops = stream_ops, .user = user};
    buf_init(&r->preface);
    buf_move(&r->preface, preface);
    *handle = r;
    tcp_pool_request(v, key, &pool_ops, r, &r->pending);
}

void raw_stream_cancel(struct raw_stream *r) {
    tcp_pool_cancel(r->pending);
    r->pending = NULL;
    dispose(r);
}
