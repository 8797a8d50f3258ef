/* HTTP/1 connection, both sides: the receiving state machine, bodies, the end of an exchange, flow
 * control.
 * Threads: worker-local. Spec: RFC 9112 §6-9.
 * Invariants: one exchange at a time; a state is set before the user is told, because callbacks may
 * end the exchange, reset it or free the codec; after each callback the loop looks at the state
 * anew.
 * Not here: heads (h1_head.c, h1_server.c, h1_client.c), what we send (h1_encode.c). */
#include "proxy/http/h1.h"

#include "proxy/base/mem.h"

void h1_init(struct h1 *h1, const struct codec_vtable *vt, struct conn *c,
             const struct codec_options *o, const struct codec_stats *st,
             const struct codec_ops *ops, void *user) {
    h1->codec = (struct codec){
        .vt = vt, .ops = ops, .user = user, .conn = c, .opt = o, .protocol = HTTP_11};
    if (st) {
        h1->codec.stats = *st;
    }
    h1->stream.codec = &h1->codec;
}

/* --- end of messages and exchanges --- */

void h1_hold(struct h1 *h1, bool hold) {
    if (h1->is_holding != hold) {
        h1->is_holding = hold;
        conn_read_disable(h1->codec.conn, hold);
    }
}

static void release_reads(struct h1 *h1) {
    while (h1->read_disabled) {
        h1->read_disabled--;
        conn_read_disable(h1->codec.conn, false);
    }
}

/* The exchange is over, one way or another; its stream may not be used any more. */
static void drop_stream(struct h1 *h1) {
    h1->has_stream = false;
    h1->codec.streams_active = 0;
    h1->arena = NULL;
    release_reads(h1);
}

static void tell_stream_end(struct h1 *h1) {
    const struct codec *c = &h1->codec;
    if (!c->is_server && c->ops->on_stream_end) {
        c->ops->on_stream_end(&h1->codec, c->user, &h1->stream);
    }
}

void h1_stop(struct h1 *h1, const char *error) {
    h1->rx = H1_RX_DEAD;
    h1->close_after = true;
    if (error && !h1->error) {
        h1->error = error;
    }
    h1_hold(h1, false);
}

void h1_rx_end(struct h1 *h1) {
    h1->rx = !h1->wants_upgrade ? H1_RX_DONE : h1->tx == H1_TX_RAW ? H1_RX_RAW : H1_RX_UPGRADE;
}

void h1_tx_end(struct h1 *h1) {
    h1->tx = H1_TX_DONE;
    conn_flush_later(h1->codec.conn);
}

void h1_maybe_finish(struct h1 *h1) {
    bool rx_over = h1->rx == H1_RX_DONE || h1->rx == H1_RX_DEAD;
    if (!h1->has_stream || !rx_over || h1->tx != H1_TX_DONE) {
        return;
    }
    drop_stream(h1);
    if (h1->rx != H1_RX_DEAD) {
        h1->rx = h1->close_after && h1->codec.is_server ? H1_RX_DEAD : H1_RX_HEAD;
        h1->tx = H1_TX_HEAD;
        h1->scan = (struct h1_scan){0};
        h1_hold(h1, false);
    }
    tell_stream_end(h1);
}

void h1_set_body(struct h1 *h1, const struct h1_framing *f) {
    if (f->is_chunked) {
        h1->rx = H1_RX_CHUNK_SIZE;
        h1->chunk_digits = h1->chunk_extra = 0;
        h1->body_left = 0;
    } else if (f->content_length) {
        h1->rx = H1_RX_LENGTH;
        h1->body_left = f->content_length;
    } else {
        h1_rx_end(h1);
    }
}

/* --- bodies --- */

/* Hand body bytes to the user. The state is already what follows them. */
static void deliver(struct h1 *h1, struct buf *body, bool end_stream) {
    if (buf_empty(body) && !end_stream) {
        return;
    }
    struct codec_stream *s = &h1->stream;
    s->ops->on_data(s, body, end_stream);
    if (end_stream) {
        h1_maybe_finish(h1);
    }
}

static bool step_length(struct h1 *h1) {
    BUF_AUTO struct buf body;
    buf_init(&body);
    size_t n = buf_len(h1->in) < h1->body_left ? buf_len(h1->in) : (size_t)h1->body_left;
    buf_move_n(&body, h1->in, n);
    h1->body_left -= n;
    h1->stream.rx_body_bytes += n;
    if (h1->body_left == 0) {
        h1_rx_end(h1);
    }
    deliver(h1, &body, h1->rx == H1_RX_DONE);
    return true;
}

static bool step_raw(struct h1 *h1) {
    BUF_AUTO struct buf body;
    buf_init(&body);
    h1->stream.rx_body_bytes += buf_len(h1->in);
    buf_move(&body, h1->in);
    deliver(h1, &body, false);
    return true;
}

static void fault(struct h1 *h1, struct h1_fault f) {
    (h1->codec.is_server ? h1_server_fault : h1_client_fault)(h1, f);
}

static void chunk_fault(struct h1 *h1) { fault(h1, (struct h1_fault){400, "http1.codec_error"}); }

static bool on_size_digit(struct h1 *h1, int digit) {
    if (digit == 0 && h1->body_left == 0) {
        h1->chunk_digits = 1; /* leading zeros carry nothing, but they are not free either */
        return ++h1->chunk_extra <= H1_CHUNK_ZEROS_MAX;
    }
    if (h1->body_left >> 60) {
        return false;
    }
    h1->body_left = h1->body_left << 4 | (unsigned)digit;
    h1->chunk_digits++;
    return true;
}

/* One byte of the framing around chunks. False: not chunked coding. */
static bool on_framing_byte(struct h1 *h1, unsigned char c) {
    switch (h1->rx) {
    case H1_RX_CHUNK_SIZE: {
        int digit = ascii_hex((char)c);
        if (digit >= 0) {
            return on_size_digit(h1, digit);
        }
        if (!h1->chunk_digits) {
            return false;
        }
        h1->chunk_extra = 0;
        h1->rx = c == '\r' ? H1_RX_CHUNK_SIZE_LF : H1_RX_CHUNK_EXT;
        return c == '\r' || c == ';' || c == ' ' || c == '\t';
    }
    case H1_RX_CHUNK_EXT:
        if (c == '\r') {
            h1->rx = H1_RX_CHUNK_SIZE_LF;
            return true;
        }
        return ++h1->chunk_extra <= H1_CHUNK_EXT_MAX && c != 0x7f && (c >= 0x20 || c == '\t');
    case H1_RX_CHUNK_SIZE_LF:
        h1->rx = h1->body_left ? H1_RX_CHUNK_DATA : H1_RX_TRAILERS;
        h1->scan = (struct h1_scan){0};
        return c == '\n';
    case H1_RX_CHUNK_CR:
        h1->rx = H1_RX_CHUNK_LF;
        return c == '\r';
    case H1_RX_CHUNK_LF:
        h1->rx = H1_RX_CHUNK_SIZE;
        h1->chunk_digits = h1->chunk_extra = 0;
        return c == '\n';
    default:
        return false;
    }
}

/* Framing bytes at the front of `in`, until data or trailers begin. False: not chunked coding. */
static bool eat_framing(struct h1 *h1) {
    while (!buf_empty(h1->in)) {
        sv front = buf_front(h1->in);
        size_t i = 0;
        bool ok = true;
        while (i < front.n && ok && h1->rx != H1_RX_CHUNK_DATA && h1->rx != H1_RX_TRAILERS) {
            ok = on_framing_byte(h1, (unsigned char)front.p[i++]);
        }
        buf_drain(h1->in, i);
        h1->stream.rx_body_bytes += i;
        if (!ok) {
            return false;
        }
        if (h1->rx == H1_RX_CHUNK_DATA || h1->rx == H1_RX_TRAILERS) {
            return true;
        }
    }
    return true;
}

/* As many chunks as there are bytes: their data goes out in one callback. */
static bool step_chunked(struct h1 *h1) {
    BUF_AUTO struct buf body;
    buf_init(&body);
    bool ok = true;
    while (!buf_empty(h1->in) && h1->rx != H1_RX_TRAILERS && ok) {
        if (h1->rx != H1_RX_CHUNK_DATA) {
            ok = eat_framing(h1);
            continue;
        }
        size_t n = buf_len(h1->in) < h1->body_left ? buf_len(h1->in) : (size_t)h1->body_left;
        buf_move_n(&body, h1->in, n);
        h1->body_left -= n;
        h1->stream.rx_body_bytes += n;
        if (h1->body_left == 0) {
            h1->rx = H1_RX_CHUNK_CR;
        }
    }
    if (!ok) { /* what was well-formed is not passed on either: the message is broken */
        chunk_fault(h1);
        return false;
    }
    if (h1->rx == H1_RX_TRAILERS &&
        buf_len(h1->in) >= 2) { /* nearly always the end: one callback for both */
        char end[2];
        buf_peek(h1->in, 0, end, 2);
        if (end[0] == '\r' && end[1] == '\n') {
            buf_drain(h1->in, 2);
            h1->stream.rx_body_bytes += 2;
            h1_rx_end(h1);
            deliver(h1, &body, h1->rx == H1_RX_DONE);
            return true;
        }
    }
    deliver(h1, &body, false);
    return true;
}

static void scan_fault(struct h1 *h1, enum h1_scan_result r) {
    fault(h1, (struct h1_fault){400, r == H1_SCAN_BAD_CHAR ? "http1.invalid_characters"
                                                           : "http1.codec_error"});
}

static struct arena *message_arena(struct h1 *h1) {
    const struct codec *c = &h1->codec;
    return c->is_server ? h1->arena : c->ops->on_response_arena(&h1->codec, c->user, &h1->stream);
}

static void deliver_trailers(struct h1 *h1, size_t n) {
    struct arena *a = message_arena(h1);
    struct headers *h = arena_new(a, struct headers);
    headers_init(h, a);
    char *p = h1_copy_block(h1->in, n, a);
    buf_drain(h1->in, n);
    struct h1_fault f = h1_parse_fields(h1, p, p + n, h, NULL);
    if (f.status) {
        fault(h1, f);
        return;
    }
    h1->stream.rx_header_bytes += n;
    h1_rx_end(h1);
    bool pass = h->n && h1->codec.opt->h1.enable_trailers && h1->rx == H1_RX_DONE;
    if (!pass) {
        BUF_AUTO struct buf none;
        buf_init(&none);
        deliver(h1, &none, h1->rx == H1_RX_DONE);
        return;
    }
    h1->stream.ops->on_trailers(&h1->stream, h);
    h1_maybe_finish(h1);
}

static bool step_trailers(struct h1 *h1) {
    enum h1_scan_result r = h1_scan(&h1->scan, h1->in);
    if (r == H1_SCAN_BAD_CHAR || r == H1_SCAN_BAD_LINE) {
        scan_fault(h1, r);
        return false;
    }
    if (h1->scan.pos > h1->codec.opt->max_headers_bytes) {
        fault(h1, (struct h1_fault){431, "http1.headers_too_large"});
        return false;
    }
    if (r == H1_SCAN_MORE) {
        return false;
    }
    deliver_trailers(h1, h1->scan.pos);
    return true;
}

/* --- heads --- */

/* Empty lines before a head are skipped (RFC 9112 §2.2). */
static void skip_empty_lines(struct h1 *h1) {
    char b[2];
    while (buf_peek(h1->in, 0, b, 2) == 2 && b[0] == '\r' && b[1] == '\n') {
        buf_drain(h1->in, 2);
    }
}

/* Refusals of the first line name what is wrong with the method before what is wrong with its
 * bytes. */
static enum h1_scan_result first_line_verdict(struct h1 *h1, enum h1_scan_result r) {
    if (r != H1_SCAN_BAD_CHAR || h1->scan.lines || !h1->codec.is_server) {
        return r;
    }
    char text[32];
    size_t n = buf_peek(h1->in, 0, text, sizeof(text));
    sv method = sv_sub(sv_from(text, n), 0, sv_find(sv_from(text, n), ' '));
    return h1->scan.pos > method.n && method.n < n && h1_method_ok(h1, method) ? r
                                                                               : H1_SCAN_BAD_LINE;
}

/* Is a message beginning, or under way? False: not now. */
static bool begin_message(struct h1 *h1) {
    if (h1->scan.pos == 0 && h1->codec.is_server) {
        skip_empty_lines(h1);
    }
    sv front = buf_front(h1->in);
    if (!front.n || (buf_len(h1->in) == 1 && front.p[0] == '\r')) {
        return false;
    }
    if (h1->codec.is_server) {
        return h1->has_stream || h1_server_begin(h1);
    }
    return h1_client_begin(h1);
}

/* The verdict on the part of a head that was looked at. */
static struct h1_fault judge_head(struct h1 *h1, enum h1_scan_result r) {
    const struct codec_options *o = h1->codec.opt;
    if (r == H1_SCAN_BAD_CHAR || r == H1_SCAN_BAD_LINE) {
        bool is_char = first_line_verdict(h1, r) == H1_SCAN_BAD_CHAR;
        return (struct h1_fault){400, is_char ? "http1.invalid_characters" : "http1.codec_error"};
    }
    if (h1->scan.pos > o->max_headers_bytes) {
        return (struct h1_fault){431, "http1.headers_too_large"};
    }
    if (h1->scan.lines > o->max_headers_count + 1) {
        return (struct h1_fault){431, "http1.too_many_headers"};
    }
    return (struct h1_fault){0, NULL};
}

static bool step_head(struct h1 *h1) {
    if (!begin_message(h1)) {
        return false;
    }
    enum h1_scan_result r = h1_scan(&h1->scan, h1->in);
    struct h1_fault f = judge_head(h1, r);
    if (f.status) {
        fault(h1, f);
        return false;
    }
    if (r == H1_SCAN_MORE) {
        return false;
    }
    size_t n = h1->scan.pos;
    h1->scan = (struct h1_scan){0};
    return h1->codec.is_server ? h1_server_head(h1, n) : h1_client_head(h1, n);
}

/* --- dispatch --- */

/* One step. False: needs more bytes, or an event elsewhere. */
static bool step(struct h1 *h1) {
    if (h1->read_disabled && h1->rx != H1_RX_DEAD) {
        return false;
    }
    switch ((enum h1_rx)h1->rx) {
    case H1_RX_HEAD:
        return step_head(h1);
    case H1_RX_LENGTH:
        return step_length(h1);
    case H1_RX_CLOSE:
    case H1_RX_RAW:
        return step_raw(h1);
    case H1_RX_CHUNK_SIZE:
    case H1_RX_CHUNK_EXT:
    case H1_RX_CHUNK_SIZE_LF:
    case H1_RX_CHUNK_DATA:
    case H1_RX_CHUNK_CR:
    case H1_RX_CHUNK_LF:
        return step_chunked(h1);
    case H1_RX_TRAILERS:
        return step_trailers(h1);
    case H1_RX_UPGRADE:
    case H1_RX_DONE:
        return false;
    case H1_RX_DEAD:
        buf_clear(h1->in);
        return false;
    }
    return false;
}

/* Bytes that may not be read yet wait in the connection, which stops reading: bounded by one
 * read. */
static void hold_back(struct h1 *h1) {
    bool waits = h1->rx == H1_RX_DONE || h1->rx == H1_RX_UPGRADE ||
                 (h1->rx == H1_RX_HEAD && h1->codec.is_server && !h1->has_stream &&
                  conn_above_high(h1->codec.conn));
    if (waits) {
        h1_hold(h1, true);
    }
    if (h1->rx == H1_RX_DONE && !h1->codec.is_server) {
        h1->close_after = true; /* bytes behind the response */
    }
}

bool h1_leave(struct h1 *h1) {
    h1->depth--;
    if (h1->is_free_due && !h1->depth) {
        xfree(h1);
        return false;
    }
    return true;
}

int h1_dispatch(struct codec *c, struct buf *in) {
    struct h1 *h1 = h1_of(c);
    h1->in = in;
    h1_enter(h1);
    while (!buf_empty(in) && step(h1)) {}
    if (!h1->is_free_due && !buf_empty(in)) {
        hold_back(h1);
    }
    h1->in = NULL;
    bool is_error = h1->error != NULL;
    return h1_leave(h1) && is_error ? -1 : 0;
}

/* --- the rest of the vtable that both sides share --- */

void h1_send_data(struct codec_stream *s, struct buf *data, bool end_stream) {
    struct h1 *h1 = h1_of_stream(s);
    if (BUG(h1->tx == H1_TX_HEAD || h1->tx == H1_TX_DONE)) {
        buf_clear(data);
        return;
    }
    h1_encode_data(h1, data, end_stream);
    if (end_stream) {
        h1_tx_end(h1);
        h1_maybe_finish(h1);
    } else {
        conn_flush_later(h1->codec.conn);
    }
}

void h1_send_trailers(struct codec_stream *s, const struct headers *h) {
    struct h1 *h1 = h1_of_stream(s);
    if (BUG(h1->tx == H1_TX_HEAD || h1->tx == H1_TX_DONE)) {
        return;
    }
    h1_encode_trailers(h1, h);
    h1_tx_end(h1);
    h1_maybe_finish(h1);
}

void h1_read_disable(struct codec_stream *s, bool disable) {
    struct h1 *h1 = h1_of_stream(s);
    if (!h1->has_stream) {
        return;
    }
    if (disable) {
        h1->read_disabled++;
    } else if (BUG(h1->read_disabled == 0)) {
        return;
    } else {
        h1->read_disabled--;
    }
    conn_read_disable(h1->codec.conn, disable);
}

/* HTTP/1 cannot abandon one exchange and go on: the connection has to close. */
void h1_reset(struct codec_stream *s, enum reset_reason why) {
    struct h1 *h1 = h1_of_stream(s);
    if (!h1->has_stream) {
        return;
    }
    s->reset_reason = why;
    drop_stream(h1);
    h1_stop(h1, NULL);
    tell_stream_end(h1);
}

void h1_abort(struct h1 *h1, enum reset_reason why, const char *error) {
    if (!h1->has_stream) {
        h1_stop(h1, error);
        return;
    }
    struct codec_stream *s = &h1->stream;
    s->reset_reason = why;
    drop_stream(h1);
    h1_stop(h1, error);
    h1_enter(h1);
    if (s->ops) {
        s->ops->on_reset(s, why);
    }
    if (!h1->is_free_due) {
        tell_stream_end(h1);
    }
    h1_leave(h1);
}

void h1_goaway(struct codec *c, bool final) {
    (void) final;
    h1_of(c)->close_after = true;
}

void h1_above_high(struct codec *c) {
    struct h1 *h1 = h1_of(c);
    if (h1->has_stream && h1->stream.ops && h1->stream.ops->on_above_high) {
        h1->stream.ops->on_above_high(&h1->stream);
    }
}

void h1_below_low(struct codec *c) {
    struct h1 *h1 = h1_of(c);
    if (!h1->has_stream && h1->rx == H1_RX_HEAD) {
        h1_hold(h1, false);
    } else if (h1->has_stream && h1->stream.ops && h1->stream.ops->on_below_low) {
        h1->stream.ops->on_below_low(&h1->stream);
    }
}

bool h1_wants_close(const struct codec *c) {
    const struct h1 *h1 = h1_const(c);
    return h1->close_after || h1->error || h1->rx == H1_RX_DEAD;
}

bool h1_is_idle_clean(const struct codec *c) {
    const struct h1 *h1 = h1_const(c);
    return !h1_wants_close(c) && !h1->has_stream && h1->rx == H1_RX_HEAD &&
           (!h1->in || buf_empty(h1->in));
}

void h1_free(struct codec *c) {
    struct h1 *h1 = h1_of(c);
    if (h1->has_stream) {
        drop_stream(h1);
    }
    h1->rx = H1_RX_DEAD;
    if (h1->depth) {
        h1->is_free_due = true;
        return;
    }
    xfree(h1);
}

const char *h1_error(const struct codec *c) { return h1_const(c)->error; }

void h1_dump(const struct codec *c, struct buf *out) {
    static const char *const rx[] = {"head",      "length",        "close",      "chunk size",
                                     "chunk ext", "chunk size lf", "chunk data", "chunk cr",
                                     "chunk lf",  "trailers",      "upgrade",    "raw",
                                     "done",      "dead"};
    static const char *const tx[] = {"head",    "length",  "chunked", "close",
                                     "no body", "upgrade", "raw",     "done"};
    const struct h1 *h1 = h1_const(c);
    buf_printf(
        out,
        "h1 %s rx=%s tx=%s body_left=%llu stream=%d close_after=%d read_disabled=%u error=%s\n",
        c->is_server ? "server" : "client", rx[h1->rx], tx[h1->tx],
        (unsigned long long)h1->body_left, h1->has_stream, h1->close_after, h1->read_disabled,
        h1->error ? h1->error : "-");
}
