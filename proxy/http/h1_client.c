/* HTTP/1 client side: requests out, responses in.
 * Threads: worker-local. Spec: RFC 9112 §4, §6.3, §9; RFC 9110 §15.2.
 * Not here: pooling (upstream/pool_http.c), the state machine of bodies (h1.c). */
#include "proxy/http/h1.h"

#include "proxy/base/mem.h"

struct h1_client {
    struct h1 h1; /* must be first */
    struct buf
        /* bytes of a tunnel before the upgrade is accepted: never sent as if they were a request */
        held;
    bool is_above_high;
};

static struct h1_client *client_of(struct h1 *h1) { return (struct h1_client *)h1; }

void h1_client_fault(struct h1 *h1, struct h1_fault f) {
    h1->stream.error_details = f.details;
    h1_abort(h1, RESET_PROTOCOL_ERROR, f.details);
}

bool h1_client_begin(struct h1 *h1) {
    if (h1->has_stream && h1->tx != H1_TX_HEAD) {
        return true;
    }
    h1_client_fault(h1, (struct h1_fault){400, "http1.codec_error"}); /* bytes nobody asked for */
    return false;
}

/* --- responses --- */

static struct h1_fault check_response(const struct h1 *h1, unsigned status,
                                      const struct h1_framing *f) {
    if (status == 101 && !h1->is_upgrade) {
        return (struct h1_fault){400, "http1.codec_error"};
    }
    bool no_body = status < 200 || status == 204 || (h1->is_connect && status / 100 == 2);
    if (no_body && f->has_te) {
        return (struct h1_fault){400, "http1.transfer_encoding_not_allowed"};
    }
    if (no_body && f->has_length && f->content_length) {
        return (struct h1_fault){400, "http1.content_length_not_allowed"};
    }
    return h1_check_codings(h1, f);
}

static void send_held(struct h1 *h1) {
    struct h1_client *c = client_of(h1);
    h1->tx = h1->tx == H1_TX_DONE ? H1_TX_DONE : H1_TX_RAW;
    buf_move(conn_out(h1->codec.conn), &c->held);
    conn_flush_later(h1->codec.conn);
    if (c->is_above_high) {
        c->is_above_high = false;
        h1_below_low(&h1->codec);
    }
}

/* State after the final response's head. */
static void set_response_body(struct h1 *h1, unsigned status, const struct h1_framing *f) {
    bool is_tunnel = status == 101 || (h1->is_connect && status / 100 == 2);
    h1->wants_upgrade = false;
    if (is_tunnel) {
        h1->rx = H1_RX_RAW;
        h1->close_after = true;
        return;
    }
    h1->close_after |= f->is_close || h1->is_upgrade || h1->is_connect;
    if (h1->tx ==
        H1_TX_UPGRADE) { /* refused: what was meant for the tunnel must not become a request */
        h1->tx = H1_TX_DONE;
        buf_clear(&client_of(h1)->held);
    }
    h1->close_after |= h1->codec.protocol == HTTP_10 && !f->is_keep_alive;
    if (h1->is_head || status == 204 || status == 304) {
        h1->rx = H1_RX_DONE;
        return;
    }
    if (!f->is_chunked && !f->has_length) {
        h1->rx = H1_RX_CLOSE;
        h1->close_after = true;
        return;
    }
    h1_set_body(h1, f);
}

static bool on_interim(struct h1 *h1, struct headers *h) {
    if (++h1->interim > H1_INTERIM_MAX) {
        h1_client_fault(h1, (struct h1_fault){400, "http1.codec_error"});
        return false;
    }
    struct codec_stream *s = &h1->stream;
    if (s->ops->on_1xx) {
        s->ops->on_1xx(s, h);
    }
    return true;
}

bool h1_client_head(struct h1 *h1, size_t n) {
    struct codec_stream *s = &h1->stream;
    struct arena *a = h1->codec.ops->on_response_arena(&h1->codec, h1->codec.user, s);
    struct headers *h = arena_new(a, struct headers);
    headers_init(h, a);
    char *p = h1_copy_block(h1->in, n, a);
    char *end = p + n;
    buf_drain(h1->in, n);
    s->rx_header_bytes += n;
    struct h1_framing f = {0};
    struct h1_fault fault = h1_parse_status_line(h1, &p, end, h);
    fault = fault.status ? fault : h1_parse_fields(h1, p, end, h, &f);
    unsigned status = headers_status(h);
    fault = fault.status ? fault : check_response(h1, status, &f);
    if (UNLIKELY(fault.status)) {
        h1_client_fault(h1, fault);
        return false;
    }
    if (f.has_te && f.has_length) {
        headers_remove(h, HDR_content_length);
    }
    if (status < 200 && status != 101) {
        return on_interim(h1, h);
    }
    set_response_body(h1, status, &f);
    if (h1->rx == H1_RX_DONE && !buf_empty(h1->in)) {
        h1->close_after = true; /* bytes behind the response */
    }
    if (h1->rx == H1_RX_RAW) {
        send_held(h1);
    }
    s->ops->on_headers(s, h, h1->rx == H1_RX_DONE);
    h1_maybe_finish(h1);
    return true;
}

static void on_conn_end(struct codec *c, enum reset_reason why) {
    struct h1 *h1 = h1_of(c);
    h1->close_after = true;
    if (!h1->has_stream) {
        h1->rx = H1_RX_DEAD;
        return;
    }
    struct codec_stream *s = &h1->stream;
    if (h1->rx == H1_RX_CLOSE || h1->rx == H1_RX_RAW) {
        BUF_AUTO struct buf none;
        buf_init(&none);
        h1->rx = H1_RX_DONE;
        h1_enter(h1);
        s->ops->on_data(s, &none, true);
        if (h1_leave(h1)) {
            h1_maybe_finish(h1);
        }
        return;
    }
    /* A message cut short is the peer's fault; a connection that ends before one is not. */
    bool is_cut = h1->rx != H1_RX_HEAD || conn_has_unread(h1->codec.conn);
    bool by_peer = why == RESET_CONNECTION_TERMINATION;
    h1_abort(h1, is_cut && by_peer ? RESET_PROTOCOL_ERROR : why, NULL);
}

/* --- requests --- */

static struct codec_stream *open_stream(struct codec *c, const struct codec_stream_ops *ops,
                                        void *user) {
    struct h1 *h1 = h1_of(c);
    if (h1->has_stream || h1_wants_close(c) || h1->rx != H1_RX_HEAD) {
        return NULL;
    }
    h1->stream = (struct codec_stream){.codec = c, .ops = ops, .user = user};
    h1->has_stream = true;
    c->streams_active = 1;
    h1->is_head = h1->is_connect = h1->is_upgrade = h1->wants_upgrade = h1->response_started =
        false;
    h1->interim = 0;
    return &h1->stream;
}

/* Methods whose requests without a body say nothing about a length, as in Envoy. */
static bool is_bodiless_method(sv m) {
    return sv_eq(m, SV("GET")) || sv_eq(m, SV("HEAD")) || sv_eq(m, SV("DELETE")) ||
           sv_eq(m, SV("TRACE")) || sv_eq(m, SV("CONNECT"));
}

static enum h1_coding choose_coding(struct h1 *h1, const struct headers *h, sv method,
                                    bool end_stream) {
    uint64_t length;
    sv cl = headers_get(h, HDR_content_length);
    if (h1->is_connect || (h1->is_upgrade && !cl.p)) {
        h1->tx = H1_TX_UPGRADE;
        return H1_CODE_NONE;
    }
    if (cl.p && sv_to_u64(cl, &length)) {
        h1->tx = H1_TX_LENGTH;
        h1->tx_left = length;
        return H1_CODE_NONE;
    }
    if (end_stream) {
        h1->tx = H1_TX_LENGTH;
        h1->tx_left = 0;
        return is_bodiless_method(method) ? H1_CODE_NONE : H1_CODE_ZERO;
    }
    h1->tx = H1_TX_CHUNKED;
    return H1_CODE_CHUNKED;
}

static void send_headers(struct codec_stream *s, const struct headers *h, bool end_stream) {
    struct h1 *h1 = h1_of_stream(s);
    if (BUG(!h1->has_stream || h1->tx != H1_TX_HEAD)) {
        return;
    }
    sv method = headers_get(h, HDR_method);
    h1->is_head = sv_eq(method, SV("HEAD"));
    bool is_extended = headers_has(
        h, HDR_protocol); /* of an HTTP/2 client: here it is the upgrade it stands for */
    h1->is_connect = sv_eq(method, SV("CONNECT")) && !is_extended;
    h1->is_upgrade = is_extended || (!h1->is_connect && headers_ask_upgrade(h));
    enum h1_coding coding = choose_coding(h1, h, method, end_stream);
    h1_encode_request_head(h1, h, coding);
    if (!end_stream) {
        conn_flush_later(h1->codec.conn);
        return;
    }
    h1->close_after |= h1->tx == H1_TX_LENGTH && h1->tx_left;
    h1_tx_end(h1);
}

/* Before the peer agreed to the tunnel its bytes stay here, and the producer is stopped at once. */
static void send_data(struct codec_stream *s, struct buf *data, bool end_stream) {
    struct h1 *h1 = h1_of_stream(s);
    struct h1_client *c = client_of(h1);
    if (h1->tx != H1_TX_UPGRADE) {
        h1_send_data(s, data, end_stream);
        return;
    }
    buf_move(&c->held, data);
    if (end_stream) {
        h1->tx = H1_TX_DONE;
        h1->close_after = true;
    } else if (!c->is_above_high && !buf_empty(&c->held)) {
        c->is_above_high = true;
        h1_above_high(&h1->codec);
    }
}

static void no_1xx(struct codec_stream *s, const struct headers *h) {
    (void)s;
    (void)h;
    (void)BUG(true);
}

static void free_client(struct codec *c) {
    struct h1 *h1 = h1_of(c);
    buf_fini(&client_of(h1)->held);
    buf_init(&client_of(h1)->held);
    h1_free(c);
}

const struct codec_vtable h1_client_vtable = {
    .dispatch = h1_dispatch,
    .on_conn_end = on_conn_end,
    .open = open_stream,
    .send_1xx = no_1xx,
    .send_headers = send_headers,
    .send_data = send_data,
    .send_trailers = h1_send_trailers,
    .reset = h1_reset,
    .read_disable = h1_read_disable,
    .goaway = h1_goaway,
    .on_conn_above_high = h1_above_high,
    .on_conn_below_low = h1_below_low,
    .wants_close = h1_wants_close,
    .is_idle_clean = h1_is_idle_clean,
    .free = free_client,
    .error = h1_error,
    .dump = h1_dump,
};

struct codec *h1_client_new(struct conn *c, const struct codec_options *o,
                            const struct codec_stats *st, const struct codec_ops *ops, void *user) {
    struct h1_client *client = xnew(struct h1_client);
    buf_init(&client->held);
    h1_init(&client->h1, &h1_client_vtable, c, o, st, ops, user);
    return &client->h1.codec;
}
