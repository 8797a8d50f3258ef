/* HTTP/2: what we send. Header lists to nghttp2, bodies moved straight into the connection's
 * buffer, watermarks.
 * Threads: worker-local. Spec: RFC 9113 §6.1, §8; RFC 8441 (extended CONNECT).
 * Not here: when frames go out (h2_pump in h2.c). */
#include "proxy/http/h2.h"

#include "proxy/base/mem.h"

#define FRAME_HEAD_BYTES 9u

/* --- header lists --- */

struct nv_list {
    nghttp2_nv *v;
    size_t n;
    nghttp2_nv inline_[64];
};

static void list_begin(struct nv_list *l, const struct headers *h) {
    size_t room = (size_t)h->n + 8;
    l->n = 0;
    l->v = room <= ARRAY_LEN(l->inline_) ? l->inline_ : xnew_array(nghttp2_nv, room);
}

static void list_end(struct nv_list *l) {
    if (l->v != l->inline_) {
        xfree(l->v);
    }
}

/* nghttp2 copies the value; a static name may stay where it is. */
static void put(struct nv_list *l, sv name, sv value, uint8_t flags) {
    l->v[l->n++] = (nghttp2_nv){
        .name = (uint8_t *)(uintptr_t)name.p,
        .value = (uint8_t *)(uintptr_t)(value.n ? value.p : ""),
        .namelen = name.n,
        .valuelen = value.n,
        .flags = flags,
    };
}

static void put_id(struct nv_list *l, enum header_id id, sv value) {
    put(l, header_name(id), value, NGHTTP2_NV_FLAG_NO_COPY_NAME);
}

static void put_pseudo(struct nv_list *l, const struct headers *h, enum header_id id) {
    const struct header *it = headers_find(h, id);
    if (it) {
        put_id(l, id, it->value);
    }
}

/* RFC 9113 §8.2.2: what belongs to an HTTP/1 connection. */
static bool is_hop_by_hop(enum header_id id) {
    switch ((int)id) {
    case HDR_connection:
    case HDR_keep_alive:
    case HDR_proxy_connection:
    case HDR_transfer_encoding:
    case HDR_upgrade:
    case HDR_http2_settings:
    case HDR_host:
        return true;
    default:
        return false;
    }
}

static void put_fields(struct nv_list *l, const struct headers *h, bool skip_length) {
    HEADERS_FOREACH (it, h) {
        if (it->name.n == 0 || it->name.p[0] == ':' || is_hop_by_hop(it->id) ||
            (skip_length && it->id == HDR_content_length) ||
            UNLIKELY(!header_value_valid(it->value))) {
            continue;
        }
        if (it->id == HDR_te) {
            if (header_te_has_trailers(it->value)) {
                put_id(l, HDR_te, SV("trailers"));
            }
            continue;
        }
        uint8_t flags = it->flags & HEADER_SENSITIVE ? NGHTTP2_NV_FLAG_NO_INDEX : 0;
        put(l, it->name, it->value, it->id ? flags | NGHTTP2_NV_FLAG_NO_COPY_NAME : flags);
    }
}

/* --- bodies --- */

static void submit_trailers(struct h2_stream *s) {
    struct nv_list l;
    list_begin(&l, s->trailers);
    put_fields(&l, s->trailers, true);
    nghttp2_submit_trailer(s->h2->session, s->id, l.v, l.n);
    list_end(&l);
}

static ssize_t read_body(nghttp2_session *ng, int32_t id, uint8_t *buf, size_t length,
                         uint32_t *flags, nghttp2_data_source *src, void *user) {
    (void)ng;
    (void)id;
    (void)buf;
    (void)user;
    struct h2_stream *s = src->ptr;
    ASSERT(s->magic == H2_STREAM_MAGIC);
    size_t have = buf_len(&s->out);
    size_t n = have < length ? have : length;
    if (n == have && s->is_tx_end) {
        *flags |= NGHTTP2_DATA_FLAG_EOF;
        if (s->trailers) {
            *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
            submit_trailers(s);
        }
    } else if (n == 0) {
        s->is_deferred = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    return (ssize_t)n;
}

static nghttp2_data_provider body_of(struct h2_stream *s) {
    return (nghttp2_data_provider){.source.ptr = s, .read_callback = read_body};
}

/* Short pieces are copied behind the frame head: one piece to write, and no received chunk is
 * pinned. */
static void move_body(struct buf *out, struct buf *from, size_t n) {
    if (n > BUF_COPY_MAX) {
        buf_move_n(out, from, n);
        return;
    }
    char *p = buf_reserve(out, n);
    buf_peek(from, 0, p, n);
    buf_commit(out, n);
    buf_drain(from, n);
}

int h2_on_send_data(nghttp2_session *ng, nghttp2_frame *f, const uint8_t *head, size_t n,
                    nghttp2_data_source *src, void *user) {
    (void)ng;
    struct h2 *h2 = CAST(h2, H2_MAGIC, user);
    struct h2_stream *s = src->ptr;
    if (!h2_has_room(h2)) {
        return NGHTTP2_ERR_WOULDBLOCK;
    }
    struct buf *out = conn_out(h2->codec.conn);
    buf_append(out, head, FRAME_HEAD_BYTES);
    if (n) {
        move_body(out, &s->out, n);
    }
    h2->outbound.appended += FRAME_HEAD_BYTES + n;
    h2->data_frames_sent++;
    s->base.tx_body_bytes += FRAME_HEAD_BYTES + n;
    h2_gauge(h2, H2_pending_send_bytes, -(int64_t)n);
    h2_note_outbound(h2, &f->hd);
    h2_note_end_sent(s, f->hd.flags);
    if (timer_active(&s->flush)) {
        timer_start(&s->flush, s->base.flush_timeout_ms);
    }
    h2_check_watermarks(s);
    return h2->error ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

void h2_note_end_sent(struct h2_stream *s, uint8_t flags) {
    if (!(flags & NGHTTP2_FLAG_END_STREAM)) {
        return;
    }
    s->is_end_sent = true;
    timer_cancel(&s->flush);
    if (s->is_reset_after_send) {
        h2_submit_reset(s, NGHTTP2_NO_ERROR);
    }
}

void h2_note_outbound(struct h2 *h2, const nghttp2_frame_hd *hd) {
    struct h2_outbound *o = &h2->outbound;
    size_t waiting = conn_buffered_out(h2->codec.conn);
    if (waiting == 0) {
        *o = (struct h2_outbound){.appended = o->appended, .mark_bytes = o->appended};
    } else if (o->appended - waiting >= o->mark_bytes) { /* all before the newer mark is gone */
        o->frames -= o->mark_frames;
        o->control -= o->mark_control;
        o->mark_frames = o->frames;
        o->mark_control = o->control;
        o->mark_bytes = o->appended;
    }
    o->frames++;
    o->control +=
        hd->type == NGHTTP2_PING || hd->type == NGHTTP2_SETTINGS || hd->type == NGHTTP2_RST_STREAM;
    if (o->frames > h2->codec.opt->h2.max_outbound_frames) {
        h2_count(h2, H2_outbound_flood);
        h2_fail(h2, NGHTTP2_ENHANCE_YOUR_CALM, "http2.outbound_frames_flood");
    } else if (o->control > h2->codec.opt->h2.max_outbound_control_frames) {
        h2_count(h2, H2_outbound_control_flood);
        h2_fail(h2, NGHTTP2_ENHANCE_YOUR_CALM, "http2.outbound_control_frames_flood");
    }
}

bool h2_check_watermarks(struct h2_stream *s) {
    const struct codec_options *o = s->h2->codec.opt;
    size_t limit = o->stream_buffer_limit_bytes ? o->stream_buffer_limit_bytes
                                                : s->h2->codec.conn->buffer_limit_bytes;
    size_t n = buf_len(&s->out);
    s->is_over_own = limit && (n > limit || (s->is_over_own && n > limit / 2));
    s->is_over_conn = s->h2->is_over_high;
    bool above = s->is_over_own || s->is_over_conn;
    if (above == s->is_above_high || s->is_detached || s->is_tx_end || !s->base.ops) {
        return false;
    }
    s->is_above_high = above;
    void (*tell)(struct codec_stream *) =
        above ? s->base.ops->on_above_high : s->base.ops->on_below_low;
    if (tell) {
        tell(&s->base);
    }
    return true;
}

static void wake(struct h2_stream *s) {
    if (s->is_deferred) {
        s->is_deferred = false;
        nghttp2_session_resume_data(s->h2->session, s->id);
    }
}

/* --- the vtable --- */

void h2_send_1xx(struct codec_stream *base, const struct headers *h) {
    struct h2_stream *s = h2_stream_of(base);
    unsigned status = headers_status(h);
    if (BUG(!base->codec->is_server || status < 100 || status > 199 || status == 101) ||
        s->is_tx_headers) {
        return;
    }
    struct nv_list l;
    list_begin(&l, h);
    put_pseudo(&l, h, HDR_status);
    put_fields(&l, h, true);
    nghttp2_submit_headers(s->h2->session, NGHTTP2_FLAG_NONE, s->id, NULL, l.v, l.n, NULL);
    list_end(&l);
    h2_pump(s->h2);
}

static void put_response_pseudo(struct nv_list *l, const struct h2_stream *s,
                                const struct headers *h) {
    unsigned status = headers_status(h);
    if (status == 101 && s->is_extended_connect) { /* RFC 8441 §5: accepted is 200 here */
        put_id(l, HDR_status, SV("200"));
    } else if (BUG(status < 200)) {
        put_id(l, HDR_status, SV("500"));
    } else {
        put_pseudo(l, h, HDR_status);
    }
}

static void put_request_pseudo(struct nv_list *l, struct h2_stream *s, const struct headers *h) {
    if (headers_ask_upgrade(h)) {
        s->is_upgrade = true;
        s->upgrade_type = arena_sv(&s->trailer_arena, headers_get(h, HDR_upgrade));
        put_id(l, HDR_method, SV("CONNECT"));
        put_id(l, HDR_protocol, s->upgrade_type);
    } else {
        put_pseudo(l, h, HDR_method);
        put_pseudo(l, h, HDR_protocol);
    }
    bool is_plain_connect = !s->is_upgrade && sv_eq(headers_get(h, HDR_method), SV("CONNECT")) &&
                            !headers_has(h, HDR_protocol);
    if (!is_plain_connect) {
        sv scheme = headers_get(h, HDR_scheme);
        put_id(l, HDR_scheme, scheme.n ? scheme : SV("http"));
        put_pseudo(l, h, HDR_path);
    }
    const struct header *host = headers_find(h, HDR_authority);
    host = host ? host : headers_find(h, HDR_host);
    if (host) {
        put_id(l, HDR_authority, host->value);
    }
}

/* A request that nghttp2 does not take: safe to send elsewhere. */
static void refuse(struct h2_stream *s) {
    s->is_detached = true;
    s->base.reset_reason = RESET_REMOTE_REFUSED;
    s->base.ops->on_reset(&s->base, RESET_REMOTE_REFUSED);
    h2_stream_tell_end(s);
    h2_stream_release(s);
}

void h2_send_headers(struct codec_stream *base, const struct headers *h, bool end_stream) {
    struct h2_stream *s = h2_stream_of(base);
    struct h2 *h2 = s->h2;
    if (s->is_detached || BUG(s->is_tx_headers)) {
        return;
    }
    s->is_tx_headers = true;
    s->is_tx_end = end_stream;
    nghttp2_data_provider body = body_of(s);
    struct nv_list l;
    list_begin(&l, h);
    int rc = 0;
    if (h2->codec.is_server) {
        put_response_pseudo(&l, s, h);
        put_fields(&l, h, false);
        rc = nghttp2_submit_response(h2->session, s->id, l.v, l.n, end_stream ? NULL : &body);
    } else {
        put_request_pseudo(&l, s, h);
        put_fields(&l, h, s->is_upgrade);
        s->id = nghttp2_submit_request(h2->session, NULL, l.v, l.n, end_stream ? NULL : &body, s);
        rc = s->id < 0 ? s->id : 0;
    }
    list_end(&l);
    if (rc != 0) {
        s->id = h2->codec.is_server ? s->id : 0;
        if (!h2->codec.is_server) {
            refuse(s);
        }
        return;
    }
    if (end_stream) {
        h2_stream_check_end(s);
    } else {
        h2_check_watermarks(s);
    }
    h2_pump_later(h2);
}

void h2_send_data(struct codec_stream *base, struct buf *data, bool end_stream) {
    struct h2_stream *s = h2_stream_of(base);
    if (s->is_detached || s->is_local_reset || BUG(!s->is_tx_headers || s->is_tx_end)) {
        buf_clear(data);
        return;
    }
    h2_gauge(s->h2, H2_pending_send_bytes, (int64_t)buf_len(data));
    buf_move(&s->out, data);
    s->is_tx_end = end_stream;
    wake(s);
    struct h2 *h2 = s->h2;
    h2_enter(h2);
    if (end_stream) {
        h2_stream_check_end(s);
    }
    h2_pump(h2);
    if (!s->is_tx_end) {
        h2_check_watermarks(s);
    }
    h2_leave(h2);
}

void h2_send_trailers(struct codec_stream *base, const struct headers *h) {
    struct h2_stream *s = h2_stream_of(base);
    if (s->is_detached || s->is_local_reset || BUG(!s->is_tx_headers || s->is_tx_end)) {
        return;
    }
    s->trailers = arena_new(&s->trailer_arena, struct headers);
    headers_init(s->trailers, &s->trailer_arena);
    headers_copy(s->trailers, h);
    s->is_tx_end = true;
    wake(s);
    h2_stream_check_end(s);
    h2_pump(s->h2);
}
