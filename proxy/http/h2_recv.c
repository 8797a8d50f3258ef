/* HTTP/2: received frames. Header blocks with their limits, bodies, floods, GOAWAY, SETTINGS.
 * Threads: worker-local. Spec: RFC 9113 §6-8; details and counters as Envoy's nghttp2 codec has
 * them. Every decoded field counts against the limits, also those that are dropped or merged
 * afterwards.
 * Not here: what nghttp2 checks by itself (frame syntax, stream states, pseudo headers,
 * content-length). */
#include "proxy/http/h2.h"

#include "proxy/base/mem.h"

#define MESSAGE_ERROR_HEADER "http2.invalid.header.field"
#define MESSAGE_ERROR_RULE "http2.violation.of.messaging.rule"

static struct h2 *connection(void *user) { return CAST(h2, H2_MAGIC, user); }

static int verdict(const struct h2 *h2) {
    return h2->error || h2->is_free_due ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* --- floods --- */

static void check_empty(struct h2 *h2, const nghttp2_frame_hd *hd, size_t padding) {
    uint8_t last =
        hd->type == NGHTTP2_CONTINUATION ? NGHTTP2_FLAG_END_HEADERS : NGHTTP2_FLAG_END_STREAM;
    if (hd->length > padding || (hd->flags & last)) {
        h2->empty_frames = 0;
        return;
    }
    if (++h2->empty_frames > h2->codec.opt->h2.max_consecutive_inbound_empty_frames) {
        h2_count(h2, H2_inbound_empty_frames_flood);
        h2_fail(h2, NGHTTP2_ENHANCE_YOUR_CALM, "http2.inbound_empty_frames_flood");
    }
}

/* A stream that ends gives its share back (see count_out in h2.c): the budget follows the streams
 * that are open. */
static void check_priority(struct h2 *h2) {
    uint64_t max = (uint64_t)h2->codec.opt->h2.max_inbound_priority_frames_per_stream *
                   (1 + (uint64_t)h2->codec.streams_active);
    if (++h2->priority_frames > max) {
        h2_count(h2, H2_inbound_priority_frames_flood);
        h2_fail(h2, NGHTTP2_ENHANCE_YOUR_CALM, "http2.inbound_priority_frames_flood");
    }
}

static void check_window_update(struct h2 *h2) {
    uint64_t per_data = h2->codec.opt->h2.max_inbound_window_update_frames_per_data_frame_sent;
    if (++h2->rx_window_updates > 5 + 2 * (h2->streams_opened + per_data * h2->data_frames_sent)) {
        h2_count(h2, H2_inbound_window_update_frames_flood);
        h2_fail(h2, NGHTTP2_ENHANCE_YOUR_CALM, "http2.inbound_window_update_frames_flood");
    }
}

/* nghttp2 has forgotten the stream and would ignore them (RFC 9113, 5.1). */
static void check_ended(struct h2 *h2, const nghttp2_frame_hd *hd) {
    if (hd->stream_id && hd->stream_id == h2->last_ended && h2->codec.is_server) {
        h2_fail(h2, NGHTTP2_STREAM_CLOSED, "http2.headers_after_end_stream");
    }
}

/* How much of a padded frame is padding is known when it was read. */
static void check_unpadded(struct h2 *h2, const nghttp2_frame_hd *hd) {
    if (!(hd->flags & NGHTTP2_FLAG_PADDED)) {
        check_empty(h2, hd, 0);
    }
}
static void check_padded(struct h2 *h2, const nghttp2_frame_hd *hd, size_t padding) {
    if (hd->flags & NGHTTP2_FLAG_PADDED) {
        check_empty(h2, hd, padding);
    }
}

int h2_on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *user) {
    (void)ng;
    struct h2 *h2 = connection(user);
    switch (hd->type) {
    case NGHTTP2_HEADERS:
        check_ended(h2, hd);
        check_unpadded(h2, hd);
        break;
    case NGHTTP2_DATA:
        check_unpadded(h2, hd);
        break;
    case NGHTTP2_CONTINUATION:
        check_empty(h2, hd, 0);
        break;
    case NGHTTP2_PRIORITY:
        check_priority(h2);
        break;
    case NGHTTP2_WINDOW_UPDATE:
        check_window_update(h2);
        break;
    default:
        break;
    }
    return verdict(h2);
}

/* --- header blocks --- */

static void begin_block(struct h2_stream *s, struct arena *a) {
    s->arena = a;
    s->block = arena_new(a, struct headers);
    headers_init(s->block, a);
    s->rx_fields = s->rx_cookies = s->rx_cookie_bytes = s->rx_block_bytes = 0;
}

static struct h2_stream *begin_request(struct h2 *h2, int32_t id) {
    struct h2_stream *s = h2_stream_new(h2);
    s->id = id;
    nghttp2_session_set_stream_user_data(h2->session, id, s);
    s->is_over_conn = h2->is_over_high;
    begin_block(s, h2->codec.ops->on_begin(&h2->codec, h2->codec.user, &s->base));
    return s;
}

int h2_on_begin_headers(nghttp2_session *ng, const nghttp2_frame *f, void *user) {
    struct h2 *h2 = connection(user);
    h2->rx_stream = NULL;
    if (f->hd.type != NGHTTP2_HEADERS || verdict(h2)) {
        return verdict(h2);
    }
    if (h2->codec.is_server && f->headers.cat == NGHTTP2_HCAT_REQUEST) {
        h2->rx_stream = begin_request(h2, f->hd.stream_id);
        return verdict(h2);
    }
    struct h2_stream *s = nghttp2_session_get_stream_user_data(ng, f->hd.stream_id);
    if (!s) {
        h2_count(h2, H2_headers_cb_no_stream);
        return 0;
    }
    if (s->is_detached) {
        return 0;
    }
    h2->rx_stream = s;
    begin_block(s, h2->codec.is_server
                       ? s->arena
                       : h2->codec.ops->on_response_arena(&h2->codec, h2->codec.user, &s->base));
    return verdict(h2);
}

/* Refused as too large: nghttp2 resets the stream with INTERNAL_ERROR and skips the rest of the
 * block. */
static int overflow(struct h2 *h2, struct h2_stream *s, unsigned stat, const char *details) {
    h2_count(h2, stat);
    s->base.error_details = details;
    s->reset_as = RESET_REMOTE;
    h2->rx_stream = NULL;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* A message that RFC 9113 §8.1.1 calls malformed: by default it ends the connection, as in
 * Envoy. */
static int malformed(struct h2 *h2, struct h2_stream *s, const char *details) {
    h2_count(h2, H2_rx_messaging_error);
    if (s) {
        s->base.error_details = details;
        s->reset_as = RESET_PROTOCOL_ERROR;
    }
    h2->rx_stream = NULL;
    if (!h2->codec.opt->h2.override_stream_error_on_invalid_http_message) {
        h2_fail(h2, NGHTTP2_PROTOCOL_ERROR, details);
        if (s) {
            h2_stream_abort(s, RESET_PROTOCOL_ERROR);
        }
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    }
    if (s) {
        h2_submit_reset(s, NGHTTP2_PROTOCOL_ERROR);
    }
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

/* Underscores by configuration: 1 keep, 0 drop, < 0 refuse. */
static int check_underscore(struct h2 *h2, struct h2_stream *s, sv name) {
    enum underscores_action action = h2->codec.opt->underscores;
    if (action == UNDERSCORES_ALLOW || !h2->codec.is_server || sv_find(name, '_') == SIZE_MAX) {
        return 1;
    }
    if (action == UNDERSCORES_DROP) {
        h2_count(h2, H2_dropped_headers_with_underscores);
        return 0;
    }
    h2_count(h2, H2_requests_rejected_with_underscores_in_headers);
    s->base.error_details = "http2.unexpected_underscore";
    s->reset_as = RESET_REMOTE;
    h2->rx_stream = NULL;
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
}

static int check_limits(struct h2 *h2, struct h2_stream *s, enum header_id id, size_t n) {
    const struct codec_options *o = h2->codec.opt;
    s->rx_block_bytes += (uint32_t)n;
    if (id == HDR_cookie) {
        s->rx_cookies++;
        s->rx_cookie_bytes +=
            (uint32_t)n; /* part of rx_block_bytes: no limit of its own is needed */
    }
    if (s->rx_block_bytes > o->max_headers_bytes) {
        return overflow(h2, s, H2_header_list_size_too_large, "http2.header_list_size_too_large");
    }
    if (++s->rx_fields > o->max_headers_count) {
        return overflow(h2, s, H2_header_overflow, "http2.too_many_headers");
    }
    return 0;
}

int h2_on_header(nghttp2_session *ng, const nghttp2_frame *f, const uint8_t *name_p, size_t name_n,
                 const uint8_t *value_p, size_t value_n, uint8_t flags, void *user) {
    (void)ng;
    (void)f;
    struct h2 *h2 = connection(user);
    struct h2_stream *s = h2->rx_stream;
    if (!s || verdict(h2)) {
        return verdict(h2);
    }
    sv name = sv_from(name_p, name_n);
    enum header_id id = header_id_of(name);
    int rc = check_limits(h2, s, id, name_n + value_n);
    if (rc) {
        return rc;
    }
    /* its bytes are valid: see h2_on_invalid_header */
    sv value = sv_trim(sv_from(value_p, value_n));
    rc = check_underscore(h2, s, name);
    if (rc <= 0) {
        return rc;
    }
    name = id ? header_name(id) : arena_sv(s->arena, name);
    if (!headers_add(s->block, id, name, arena_sv(s->arena, value))) {
        return overflow(h2, s, H2_header_overflow, "http2.too_many_headers");
    }
    if (flags & NGHTTP2_NV_FLAG_NO_INDEX) {
        s->block->v[s->block->n - 1].flags |= HEADER_SENSITIVE;
    }
    return 0;
}

/* nghttp2 looked at names and values before h2_on_header (RFC 9113 §8.2.1). */
int h2_on_invalid_header(nghttp2_session *ng, const nghttp2_frame *f, const uint8_t *name,
                         size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags,
                         void *user) {
    (void)name;
    (void)name_n;
    (void)value;
    (void)value_n;
    (void)flags;
    return malformed(connection(user), nghttp2_session_get_stream_user_data(ng, f->hd.stream_id),
                     MESSAGE_ERROR_HEADER);
}

/* RFC 9113 §8.2.3: crumbs become one field again. */
static void join_cookies(struct h2 *h2, struct h2_stream *s) {
    if (!s->rx_cookies) {
        return;
    }
    h2_record(h2, H2_cookie_count, s->rx_cookies);
    h2_record(h2, H2_cookie_size, s->rx_cookie_bytes);
    if (s->rx_cookies == 1) {
        return;
    }
    char *out = arena_alloc(s->arena, s->rx_cookie_bytes + 2 * s->rx_cookies);
    size_t n = 0;
    HEADERS_FOREACH (it, s->block) {
        if (it->id != HDR_cookie) {
            continue;
        }
        if (n) {
            memcpy(out + n, "; ", 2);
            n += 2;
        }
        memcpy(out + n, it->value.p, it->value.n);
        n += it->value.n;
    }
    headers_set(s->block, HDR_cookie, sv_from(out, n));
}

/* Host is :authority's shadow. */
static void settle_host(struct headers *h) {
    struct header *host = headers_find(h, HDR_host);
    if (!host) {
        return;
    }
    sv value = host->value;
    headers_remove(h, HDR_host);
    if (!headers_has(h, HDR_authority)) {
        headers_add_id(h, HDR_authority, value);
    }
}

static void on_request(struct h2 *h2, struct h2_stream *s, bool end_stream) {
    struct headers *h = s->block;
    settle_host(h);
    join_cookies(h2, s);
    h2_record(h2, H2_header_count, headers_count(h));
    h2_record(h2, H2_header_list_size, s->rx_block_bytes);
    s->has_headers = true;
    s->is_rx_end = end_stream;
    s->is_extended_connect = headers_has(h, HDR_protocol);
    s->base.ops->on_headers(&s->base, h, end_stream);
}

/* The upgrade that was sent as extended CONNECT was accepted: for the user it is HTTP/1's 101
 * again. */
static void restore_upgrade(struct h2_stream *s, struct headers *h) {
    if (!s->is_upgrade || headers_status(h) / 100 != 2) {
        return;
    }
    headers_set_status(h, 101);
    headers_set(h, HDR_upgrade, arena_sv(h->arena, s->upgrade_type));
    headers_set(h, HDR_connection, SV("upgrade"));
    headers_remove(h, HDR_content_length);
}

static void on_response(struct h2 *h2, struct h2_stream *s, bool end_stream) {
    struct headers *h = s->block;
    unsigned status = headers_status(h);
    if (status < 200 && status != 101) {
        if (end_stream || ++s->interim > H2_INTERIM_MAX) {
            s->reset_as = RESET_PROTOCOL_ERROR;
            s->base.error_details = MESSAGE_ERROR_RULE;
            h2_submit_reset(s, NGHTTP2_PROTOCOL_ERROR);
            h2_stream_abort(s, RESET_PROTOCOL_ERROR);
        } else if (s->base.ops->on_1xx) {
            s->base.ops->on_1xx(&s->base, h);
        }
        return;
    }
    join_cookies(h2, s);
    restore_upgrade(s, h);
    s->has_headers = true;
    s->is_rx_end = end_stream;
    s->base.ops->on_headers(&s->base, h, end_stream);
}

static void on_headers_frame(struct h2 *h2, const nghttp2_frame *f) {
    struct h2_stream *s = h2->rx_stream;
    h2->rx_stream = NULL;
    if (!s || s->is_detached || s->is_local_reset) {
        return;
    }
    bool end_stream = f->hd.flags & NGHTTP2_FLAG_END_STREAM;
    s->base.rx_header_bytes += f->hd.length + 9;
    if (s->has_headers) {
        h2_count(h2, H2_trailers);
        s->is_rx_end = true;
        s->base.ops->on_trailers(&s->base, s->block);
    } else if (h2->codec.is_server) {
        on_request(h2, s, end_stream);
    } else {
        on_response(h2, s, end_stream);
    }
    h2_stream_check_end(s);
}

/* --- bodies --- */

/* A stream that ends here needs no window of its own any more. */
static void consume(struct h2_stream *s, size_t n, bool end_stream) {
    if (end_stream) {
        nghttp2_session_consume_connection(s->h2->session, n);
    } else {
        nghttp2_session_consume(s->h2->session, s->id, n);
    }
}

static void deliver(struct h2_stream *s, bool end_stream) {
    BUF_AUTO struct buf body;
    buf_init(&body);
    size_t n = buf_len(&s->rx);
    buf_move(&body, &s->rx);
    if (s->is_detached || s->is_local_reset) {
        consume(s, n, end_stream);
        return;
    }
    if (n == 0 && !end_stream) {
        return;
    }
    s->is_rx_end = end_stream;
    s->base.ops->on_data(&s->base, &body, end_stream);
    if (s->read_disabled && !s->is_detached) {
        s->unconsumed += (uint32_t)n; /* bounded by the window */
    } else {
        consume(s, n, end_stream);
    }
    h2_stream_check_end(s);
}

void h2_deliver_partial(struct h2 *h2) {
    struct h2_stream *s = h2->partial;
    h2->partial = NULL;
    if (s) {
        deliver(s, false);
    }
}

int h2_on_data_chunk(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t n,
                     void *user) {
    (void)flags;
    struct h2 *h2 = connection(user);
    struct h2_stream *s = nghttp2_session_get_stream_user_data(ng, id);
    if (!s || s->is_detached || verdict(h2)) {
        nghttp2_session_consume(ng, id, n);
        return verdict(h2);
    }
    s->base.rx_body_bytes += n;
    if (h2->rx_chunk) {
        buf_append_slice(&s->rx, h2->rx_chunk, (const char *)data, n);
    } else {
        buf_append(&s->rx, data, n);
    }
    h2->partial = s;
    return 0;
}

void h2_read_disable(struct codec_stream *base, bool disable) {
    struct h2_stream *s = h2_stream_of(base);
    if (disable) {
        s->read_disabled++;
        return;
    }
    if (BUG(s->read_disabled == 0) || --s->read_disabled || !s->unconsumed) {
        return;
    }
    uint32_t n = s->unconsumed;
    s->unconsumed = 0;
    nghttp2_session_consume(s->h2->session, s->id, n);
    h2_pump_later(s->h2); /* callers may be in the middle of ending an exchange */
}

/* --- the rest --- */

static void on_data_frame(struct h2 *h2, const nghttp2_frame *f) {
    struct h2_stream *s = h2->partial;
    h2->partial = NULL;
    if (!s || s->id != f->hd.stream_id) {
        s = nghttp2_session_get_stream_user_data(h2->session, f->hd.stream_id);
    }
    if (s) {
        s->base.rx_body_bytes += 9;
        deliver(s, f->hd.flags & NGHTTP2_FLAG_END_STREAM);
    }
}

static void on_goaway(struct h2 *h2, const nghttp2_frame *f) {
    h2->is_goaway_received = true;
    if (h2->codec.ops->on_goaway) {
        h2->codec.ops->on_goaway(&h2->codec, h2->codec.user,
                                 f->goaway.error_code == NGHTTP2_NO_ERROR,
                                 (uint32_t)f->goaway.last_stream_id);
    }
}

static void on_settings(struct h2 *h2, const nghttp2_frame *f) {
    if ((f->hd.flags & NGHTTP2_FLAG_ACK) || h2->codec.is_server || !h2->codec.ops->on_max_streams) {
        return;
    }
    h2->codec.ops->on_max_streams(
        &h2->codec, h2->codec.user,
        nghttp2_session_get_remote_settings(h2->session, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS));
}

int h2_on_frame_recv(nghttp2_session *ng, const nghttp2_frame *f, void *user) {
    struct h2 *h2 = connection(user);
    if (verdict(h2)) {
        return verdict(h2);
    }
    switch (f->hd.type) {
    case NGHTTP2_HEADERS:
        check_padded(h2, &f->hd, f->headers.padlen);
        on_headers_frame(h2, f);
        break;
    case NGHTTP2_DATA:
        check_padded(h2, &f->hd, f->data.padlen);
        on_data_frame(h2, f);
        break;
    case NGHTTP2_RST_STREAM: {
        h2_count(h2, H2_rx_reset);
        struct h2_stream *s = nghttp2_session_get_stream_user_data(ng, f->hd.stream_id);
        if (s) {
            s->is_remote_reset = true;
        }
        break;
    }
    case NGHTTP2_GOAWAY:
        on_goaway(h2, f);
        break;
    case NGHTTP2_SETTINGS:
        on_settings(h2, f);
        break;
    case NGHTTP2_PING:
        if ((f->hd.flags & NGHTTP2_FLAG_ACK) && h2->is_ping_pending) {
            h2_keepalive_ack(h2);
        }
        break;
    default:
        break;
    }
    return verdict(h2);
}

/* A stream's faults that nghttp2 would answer with a reset: as in Envoy they end the connection.
 * Who provokes resets lets us begin a request and throw it away each time. */
static int fail_stream(struct h2 *h2, int error) {
    h2_fail(h2,
            error == NGHTTP2_ERR_FLOW_CONTROL    ? NGHTTP2_FLOW_CONTROL_ERROR
            : error == NGHTTP2_ERR_STREAM_CLOSED ? NGHTTP2_STREAM_CLOSED
                                                 : NGHTTP2_PROTOCOL_ERROR,
            "http2.unknown.nghttp2.error");
    return verdict(h2);
}

int h2_on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *f, int error, void *user) {
    struct h2 *h2 = connection(user);
    struct h2_stream *s = nghttp2_session_get_stream_user_data(ng, f->hd.stream_id);
    switch (error) {
    case NGHTTP2_ERR_HTTP_HEADER:
    case NGHTTP2_ERR_HTTP_MESSAGING: {
        int rc = malformed(
            h2, s, error == NGHTTP2_ERR_HTTP_HEADER ? MESSAGE_ERROR_HEADER : MESSAGE_ERROR_RULE);
        return rc == NGHTTP2_ERR_CALLBACK_FAILURE ? rc : 0;
    }
    case NGHTTP2_ERR_FLOW_CONTROL:
    case NGHTTP2_ERR_STREAM_CLOSED:
    case NGHTTP2_ERR_PROTO:
        return s ? fail_stream(h2, error) : verdict(h2);
    default: /* refused streams; what ends the connection anyway */
        return verdict(h2);
    }
}
