/* HTTP/1 server side: requests in, responses out.
 * Threads: worker-local. Spec: RFC 9112 §3, §6.3, §9; RFC 9110 §7.8, §9.3.6; refusals as Envoy 1.40
 * words them.
 * Not here: the state machine of bodies (h1.c). */
#include "proxy/http/h1.h"

#include "proxy/base/mem.h"
#include "proxy/base/regex.h"

/* --- refusals --- */

void h1_server_fault(struct h1 *h1, struct h1_fault f) {
    struct codec_stream *s = &h1->stream;
    h1_stop(h1, f.details);
    if (!h1->has_stream) {
        return;
    }
    s->error_details = f.details;
    if (h1->response_started) { /* too late for an answer: dispatch() tells */
        return;
    }
    h1->codec.ops->on_bad_request(&h1->codec, h1->codec.user, s, f.status);
}

bool h1_server_begin(struct h1 *h1) {
    if (conn_above_high(h1->codec.conn)) {
        return false; /* the client does not read its answers: no more requests for now */
    }
    struct codec_stream *s = &h1->stream;
    *s = (struct codec_stream){.codec = &h1->codec};
    h1->has_stream = true;
    h1->codec.streams_active = 1;
    h1->is_head = h1->is_connect = h1->is_upgrade = h1->wants_upgrade = h1->response_started =
        false;
    h1->is_10_keep_alive = false;
    h1->arena = h1->codec.ops->on_begin(&h1->codec, h1->codec.user, s);
    return h1->rx == H1_RX_HEAD && h1->has_stream;
}

/* --- upgrades --- */

static bool match_text(const struct upgrade_match *m, sv value) {
    switch (m->kind) {
    case UPGRADE_EXACT:
        return m->ignore_case ? sv_eq_nocase(value, m->text) : sv_eq(value, m->text);
    case UPGRADE_PREFIX:
        return m->ignore_case ? sv_starts_nocase(value, m->text) : sv_starts(value, m->text);
    case UPGRADE_SUFFIX:
        return m->ignore_case ? sv_ends_nocase(value, m->text) : sv_ends(value, m->text);
    case UPGRADE_CONTAINS:
        for (size_t i = 0; i + m->text.n <= value.n; i++) {
            sv part = sv_sub(value, i, m->text.n);
            if (m->ignore_case ? sv_eq_nocase(part, m->text) : sv_eq(part, m->text)) {
                return true;
            }
        }
        return false;
    case UPGRADE_REGEX:
        return regex_full_match(m->regex, value.p, value.n);
    }
    return false;
}

static bool is_ignored_upgrade(const struct codec_options *o, sv value) {
    if (o->h1.ignore_unknown_upgrades || sv_eq_nocase(value, SV("h2c"))) {
        return true;
    }
    for (unsigned i = 0; i < o->h1.ignored_upgrades_n; i++) {
        if (match_text(&o->h1.ignored_upgrades[i], value)) {
            return true;
        }
    }
    return false;
}

/* Take Upgrade and what Connection says of it out of the request. */
static void forget_upgrade(struct headers *h) {
    headers_remove(h, HDR_upgrade);
    headers_remove(h, HDR_http2_settings);
    sv value = headers_joined(h, HDR_connection, SV_NULL, h->arena);
    char *out = arena_alloc(h->arena, value.n + 1);
    size_t n = 0;
    while (value.n) {
        sv token = sv_trim(sv_cut(&value, ','));
        if (!token.n || sv_eq_nocase(token, SV("upgrade")) ||
            sv_eq_nocase(token, SV("http2-settings"))) {
            continue;
        }
        if (n) {
            out[n++] = ',';
        }
        memcpy(out + n, token.p, token.n);
        n += token.n;
    }
    if (n) {
        headers_set(h, HDR_connection, sv_from(out, n));
    } else {
        headers_remove(h, HDR_connection);
    }
}

/* --- requests --- */

static struct h1_fault check_connect(struct headers *h, struct h1_framing *f) {
    if (f->has_te) {
        return (struct h1_fault){501, "http1.invalid_transfer_encoding"};
    }
    if (f->has_length && f->content_length) {
        return (struct h1_fault){400, "http1.body_disallowed"};
    }
    headers_remove(h, HDR_content_length);
    return (struct h1_fault){0, NULL};
}

static struct h1_fault check_framing(struct h1 *h1, struct headers *h, struct h1_framing *f) {
    if (h1->is_connect) {
        return check_connect(h, f);
    }
    if (f->has_te && h1->codec.protocol == HTTP_10) {
        return (struct h1_fault){400, "http1.codec_error"};
    }
    struct h1_fault fault = h1_check_codings(h1, f);
    if (!fault.status && f->has_te && f->has_length) {
        headers_remove(h, HDR_content_length);
        f->content_length = 0;
    }
    return fault;
}

static struct h1_fault check_request(struct h1 *h1, struct headers *h, struct h1_framing *f) {
    struct h1_fault fault = check_framing(h1, h, f);
    if (fault.status) {
        return fault;
    }
    bool asks_upgrade =
        f->has_upgrade && f->is_upgrade_token && h1->codec.protocol == HTTP_11 && !h1->is_connect;
    if (asks_upgrade && is_ignored_upgrade(h1->codec.opt, headers_get(h, HDR_upgrade))) {
        forget_upgrade(h);
        asks_upgrade = false;
        f->has_connection = headers_has(h, HDR_connection);
    }
    h1->is_upgrade = asks_upgrade;
    h1->wants_upgrade = asks_upgrade || h1->is_connect;
    if (f->has_connection && !h1->wants_upgrade && !h1_sanitise_connection(h)) {
        return (struct h1_fault){400, "http1.connection_header_rejected"};
    }
    sv default_host = h1->codec.opt->h1.default_host_for_http_10;
    if (h1->codec.protocol == HTTP_10 && default_host.n && !headers_has(h, HDR_authority)) {
        headers_add_id(h, HDR_authority, default_host);
    }
    return fault;
}

bool h1_server_head(struct h1 *h1, size_t n) {
    struct headers *h = arena_new(h1->arena, struct headers);
    headers_init(h, h1->arena);
    char *p = h1_copy_block(h1->in, n, h1->arena);
    char *end = p + n;
    buf_drain(h1->in, n);
    h1->stream.rx_header_bytes += n;
    struct h1_framing f = {0};
    struct h1_fault fault = h1_parse_request_line(h1, &p, end, h);
    fault = fault.status ? fault : h1_parse_fields(h1, p, end, h, &f);
    fault = fault.status ? fault : check_request(h1, h, &f);
    if (UNLIKELY(fault.status)) {
        h1_server_fault(h1, fault);
        return false;
    }
    if (h1->codec.protocol == HTTP_10) {
        h1->is_10_keep_alive = f.is_keep_alive && !f.is_close;
        h1->close_after |= !h1->is_10_keep_alive;
    } else {
        h1->close_after |= f.is_close;
    }
    h1_set_body(h1, &f);
    struct codec_stream *s = &h1->stream;
    s->ops->on_headers(s, h, h1->rx == H1_RX_DONE);
    h1_maybe_finish(h1);
    return true;
}

/* --- responses --- */

static void send_1xx(struct codec_stream *s, const struct headers *h) {
    struct h1 *h1 = h1_of_stream(s);
    unsigned status = headers_status(h);
    if (h1->response_started || h1->codec.protocol == HTTP_10 ||
        BUG(status < 100 || status > 199 || status == 101)) {
        return;
    }
    h1_encode_response_head(h1, h, status, H1_CODE_NONE, false);
    conn_flush_later(h1->codec.conn);
}

/* How the body of this response is delimited. */
static enum h1_coding choose_coding(struct h1 *h1, const struct headers *h, unsigned status,
                                    bool end_stream) {
    uint64_t length;
    sv cl = headers_get(h, HDR_content_length);
    if (h1->is_head || status == 204 || status == 304) {
        h1->tx = H1_TX_NO_BODY;
        bool says_chunked = h1->is_head && !cl.p && status != 204 && status != 304 &&
                            h1->codec.protocol == HTTP_11; /* as the answer to GET would be sent */
        return says_chunked ? H1_CODE_CHUNKED : H1_CODE_NONE;
    }
    if (cl.p && sv_to_u64(cl, &length)) {
        h1->tx = H1_TX_LENGTH;
        h1->tx_left = length;
        return H1_CODE_NONE;
    }
    if (end_stream) {
        h1->tx = H1_TX_LENGTH;
        h1->tx_left = 0;
        return H1_CODE_ZERO;
    }
    if (h1->codec.protocol == HTTP_10) {
        h1->tx = H1_TX_CLOSE;
        h1->close_after = true;
        return H1_CODE_NONE;
    }
    h1->tx = H1_TX_CHUNKED;
    return H1_CODE_CHUNKED;
}

/* What a response that accepts no upgrade means for the connection. */
static void note_plain_response(struct h1 *h1, const struct headers *h, bool end_stream) {
    /* After a refused upgrade nobody knows what the following bytes are; after an early answer
     * neither. */
    bool is_early = end_stream && h1->rx != H1_RX_DONE && h1->rx != H1_RX_UPGRADE;
    h1->close_after |= h1->wants_upgrade || is_early ||
                       header_list_has(headers_get(h, HDR_connection), SV("close"));
    h1->wants_upgrade = false;
    if (h1->rx == H1_RX_UPGRADE) {
        h1_rx_end(h1);
    }
}

static void send_headers(struct codec_stream *s, const struct headers *h, bool end_stream) {
    struct h1 *h1 = h1_of_stream(s);
    if (BUG(!h1->has_stream || h1->tx != H1_TX_HEAD)) {
        return;
    }
    unsigned status = headers_status(h);
    if (BUG(status < 200 && !(status == 101 && h1->is_upgrade))) {
        status = 500;
    }
    h1->response_started = true;
    bool accepts = (status == 101 && h1->is_upgrade) || (h1->is_connect && status / 100 == 2);
    enum h1_coding coding = H1_CODE_NONE;
    if (accepts) {
        h1->tx = H1_TX_CLOSE; /* until h1_stream_upgraded() */
    } else {
        note_plain_response(h1, h, end_stream);
        coding = choose_coding(h1, h, status, end_stream);
    }
    h1_encode_response_head(h1, h, status, coding, h1->codec.protocol == HTTP_10);
    if (!end_stream) {
        conn_flush_later(h1->codec.conn);
        return;
    }
    h1->close_after |= h1->tx == H1_TX_LENGTH && h1->tx_left;
    h1_tx_end(h1);
    h1_maybe_finish(h1);
}

static void on_conn_end(struct codec *c, enum reset_reason why) {
    struct h1 *h1 = h1_of(c);
    h1->close_after = true;
    if (!h1->has_stream) {
        h1->rx = H1_RX_DEAD;
        return;
    }
    struct codec_stream *s = &h1->stream;
    if (h1->rx == H1_RX_RAW) { /* the tunnel's other direction may go on */
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
    h1_abort(h1, why, NULL);
}

void h1_stream_upgraded(struct codec_stream *s) {
    struct h1 *h1 = h1_of_stream(s);
    if (BUG(!h1->has_stream)) {
        return;
    }
    h1->close_after = true; /* nothing but the tunnel will use this connection */
    h1->tx = h1->tx == H1_TX_DONE ? H1_TX_DONE : H1_TX_RAW;
    if (h1->rx == H1_RX_UPGRADE) {
        h1->rx = H1_RX_RAW;
        h1_hold(h1, false);
    }
}

void h1_server_close_after(struct codec *c) { h1_of(c)->close_after = true; }

const struct codec_vtable h1_server_vtable = {
    .dispatch = h1_dispatch,
    .on_conn_end = on_conn_end,
    .open = codec_no_open,
    .send_1xx = send_1xx,
    .send_headers = send_headers,
    .send_data = h1_send_data,
    .send_trailers = h1_send_trailers,
    .reset = h1_reset,
    .read_disable = h1_read_disable,
    .goaway = h1_goaway,
    .on_conn_above_high = h1_above_high,
    .on_conn_below_low = h1_below_low,
    .wants_close = h1_wants_close,
    .is_idle_clean = h1_is_idle_clean,
    .free = h1_free,
    .error = h1_error,
    .dump = h1_dump,
};

struct codec *h1_server_new(struct conn *c, const struct codec_options *o,
                            const struct codec_stats *st, const struct codec_ops *ops, void *user) {
    struct h1 *h1 = xnew(struct h1);
    h1_init(h1, &h1_server_vtable, c, o, st, ops, user);
    h1->codec.is_server = true;
    return &h1->codec;
}
