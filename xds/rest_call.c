/* See rest_call.h. A new connection each time: polls are seconds apart, and what is not kept can
 * not be stale. */
#include "xds/rest_call.h"

#include <stdio.h>

#include "proxy/base/mem.h"
#include "proxy/event/timer.h"
#include "proxy/http/codec.h"

#define REST_CALL_MAGIC 0x5E57CA11u

struct rest_call {
    uint32_t magic;
    struct loop *loop;
    struct arena arena;
    struct headers request;
    struct buf body, response;
    rest_call_done_fn done;
    void *user;
    struct conn *conn; /* NULL: closed */
    char *path;        /* of a UNIX address */
    bool is_http2, in_dispatch, is_over;
    struct codec_options options;
    struct codec *codec;
    struct codec_stream *stream;
    unsigned code;
    struct timer timer; /* the exchange's; 0: it could not be begun */
    char error[DIAL_ERROR_MAX];
    bool could_begin;
    struct loop_garbage garbage;
};

static struct rest_call *call_of(void *user) { return CAST(rest_call, REST_CALL_MAGIC, user); }

/* ---- the end ---- */

static void on_garbage(struct loop_garbage *g) {
    struct rest_call *c = CONTAINER_OF(g, struct rest_call, garbage);
    if (c->codec) {
        c->codec->vt->free(c->codec);
    }
    buf_fini(&c->body);
    buf_fini(&c->response);
    arena_fini(&c->arena);
    xfree(c->path);
    c->magic = 0;
    xfree(c);
}

/* Everything stops; memory goes once callbacks have unwound. */
static void stop(struct rest_call *c) {
    c->is_over = true;
    timer_cancel(&c->timer);
    if (c->conn) {
        conn_close(c->conn, CONN_CLOSE_NO_FLUSH, "xds_fetch_over");
        c->conn = NULL;
    }
    if (c->codec && c->stream) {
        c->codec->vt->on_conn_end(c->codec, RESET_LOCAL);
    }
    loop_defer_free(c->loop, &c->garbage);
}

static void finish(struct rest_call *c, const struct rest_call_result *r) {
    if (c->is_over) {
        return;
    }
    stop(c);
    c->done(c->user, r);
}

static void fail(struct rest_call *c, const char *error) {
    finish(c, &(struct rest_call_result){.error = error});
}

static void complete(struct rest_call *c) {
    c->stream = NULL;
    finish(c, &(struct rest_call_result){
                  .code = c->code,
                  .body = buf_pullup(&c->response, buf_len(&c->response)),
              });
}

void rest_call_cancel(struct rest_call *c) { stop(c); }

static void on_timer(struct timer *t) {
    struct rest_call *c = CONTAINER_OF(t, struct rest_call, timer);
    if (!c->could_begin) {
        fail(c, c->error);
        return;
    }
    finish(c, &(struct rest_call_result){.is_timed_out = true, .error = "request timed out"});
}

/* ---- the response ---- */

static void on_1xx(struct codec_stream *s, struct headers *h) {
    (void)s;
    (void)h;
}

static void on_headers(struct codec_stream *s, struct headers *h, bool end_stream) {
    struct rest_call *c = call_of(s->user);
    c->code = headers_status(h);
    if (end_stream && !c->is_over) {
        complete(c);
    }
}

static void on_body(struct codec_stream *s, struct buf *data, bool end_stream) {
    struct rest_call *c = call_of(s->user);
    buf_move(&c->response, data);
    if (c->is_over) {
        return;
    }
    if (buf_len(&c->response) > REST_BODY_MAX) {
        fail(c, "the response is too large");
    } else if (end_stream) {
        complete(c);
    }
}

static void on_trailers(struct codec_stream *s, struct headers *h) {
    (void)h;
    struct rest_call *c = call_of(s->user);
    if (!c->is_over) {
        complete(c);
    }
}

static void on_reset(struct codec_stream *s, enum reset_reason why) {
    struct rest_call *c = call_of(s->user);
    c->stream = NULL;
    fail(c, reset_reason_str(why));
}

static void on_watermark(struct codec_stream *s) {
    (void)s; /* the body is in memory as a whole; the codec's buffer holds it */
}

static const struct codec_stream_ops stream_ops = {
    .on_1xx = on_1xx,
    .on_headers = on_headers,
    .on_data = on_body,
    .on_trailers = on_trailers,
    .on_reset = on_reset,
    .on_above_high = on_watermark,
    .on_below_low = on_watermark,
};

static struct arena *on_response_arena(struct codec *codec, void *user, struct codec_stream *s) {
    (void)codec;
    (void)s;
    return &call_of(user)->arena;
}

static void on_goaway(struct codec *codec, void *user, bool is_graceful, uint32_t last) {
    (void)codec, (void)user, (void)is_graceful, (void)last;
}

static void on_max_streams(struct codec *codec, void *user, uint32_t max) {
    (void)codec, (void)user, (void)max;
}

static const struct codec_ops codec_ops = {
    .on_response_arena = on_response_arena,
    .on_goaway = on_goaway,
    .on_max_streams = on_max_streams,
};

/* ---- the connection ---- */

static void on_connected(struct rest_call *c) {
    codec_options_defaults(&c->options);
    struct codec_stats none = {NULL, NULL};
    c->codec =
        (c->is_http2 ? h2_client_new : h1_client_new)(c->conn, &c->options, &none, &codec_ops, c);
    c->stream = c->codec->vt->open(c->codec, &stream_ops, c);
    if (!c->stream) {
        fail(c, "the connection takes no request");
        return;
    }
    c->codec->vt->send_headers(c->stream, &c->request, false);
    if (c->stream) {
        c->codec->vt->send_data(c->stream, &c->body, true);
    }
}

static void on_data(struct conn *conn, void *user, struct buf *data, bool end_stream) {
    (void)conn, (void)end_stream;
    struct rest_call *c = call_of(user);
    if (!c->codec || c->in_dispatch || c->is_over) {
        return;
    }
    c->in_dispatch = true;
    int rc = c->codec->vt->dispatch(c->codec, data);
    c->in_dispatch = false;
    if (rc < 0 && !c->is_over) {
        fail(c, c->codec->vt->error(c->codec));
    }
}

static void on_event(struct conn *conn, void *user, enum conn_event e) {
    struct rest_call *c = call_of(user);
    if (c->is_over) {
        return;
    }
    if (e == CONN_EVENT_CONNECTED) {
        on_connected(c);
        return;
    }
    sv why = conn_transport_failure(conn);
    c->conn = NULL;
    if (c->stream) { /* a body that ends with the connection ends here; else it is reset */
        c->codec->vt->on_conn_end(c->codec, RESET_CONNECTION_TERMINATION);
    }
    if (!c->is_over) {
        snprintf(c->error, sizeof(c->error), "connection failed%s%.*s", why.n ? ": " : "",
                 SV_ARG(why));
        fail(c, c->error);
    }
}

static const struct conn_ops conn_ops = {.on_data = on_data, .on_event = on_event};

/* ---- starting ---- */

static void make_request(struct rest_call *c, sv path, sv authority) {
    char length[24];
    int n = snprintf(length, sizeof(length), "%zu", buf_len(&c->body));
    headers_init(&c->request, &c->arena);
    headers_add_copy(&c->request, SV(":method"), SV("POST"));
    headers_add_copy(&c->request, SV(":path"), path);
    headers_add_copy(&c->request, SV(":authority"), authority);
    headers_add_copy(&c->request, SV(":scheme"), SV("http"));
    headers_add_copy(&c->request, SV("content-type"), SV("application/json"));
    headers_add_copy(&c->request, SV("content-length"), sv_from(length, (size_t)n));
}

struct rest_call *rest_call_start(struct xds_dialer *d, sv path, sv authority, struct buf *body,
                                  uint32_t timeout_ms, rest_call_done_fn done, void *user) {
    struct rest_call *c = xnew(struct rest_call);
    c->magic = REST_CALL_MAGIC;
    c->loop = xds_dialer_loop(d);
    c->garbage.free = on_garbage;
    c->done = done;
    c->user = user;
    arena_init(&c->arena, 0);
    buf_init(&c->body);
    buf_init(&c->response);
    buf_move(&c->body, body);
    make_request(c, path, authority);
    timer_init(&c->timer, c->loop, on_timer);
    struct xds_dial_target t;
    c->conn = xds_dialer_connect(d, &conn_ops, c, &t, &c->path, c->error);
    c->could_begin = c->conn != NULL;
    c->is_http2 = t.is_http2;
    timer_start(&c->timer, c->could_begin ? timeout_ms : 0);
    return c;
}
