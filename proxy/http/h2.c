/* HTTP/2 connection, both sides: session set-up, dispatch, the send pump, stream lifetimes, GOAWAY,
 * keepalive.
 * Threads: worker-local. Spec: RFC 9113; Envoy's limits and counters.
 * Not here: received frames (h2_recv.c), sent ones (h2_send.c). */
#include "proxy/http/h2.h"

#include <pthread.h>

#include "proxy/base/mem.h"
#include "proxy/base/slab.h"

/* --- streams --- */

static void on_flush_timeout(struct timer *t) {
    struct h2_stream *s = CONTAINER_OF(t, struct h2_stream, flush);
    h2_count(s->h2, H2_tx_flush_timeout);
    h2_submit_reset(s, NGHTTP2_CANCEL);
    h2_pump(s->h2);
}

struct h2_stream *h2_stream_new(struct h2 *h2) {
    struct h2_stream *s = slab_new(struct h2_stream);
    s->magic = H2_STREAM_MAGIC;
    s->base.codec = &h2->codec;
    s->base.flush_timeout_ms = h2->codec.opt->h2.flush_timeout_ms;
    s->h2 = h2;
    buf_init(&s->out);
    buf_init(&s->rx);
    arena_init(&s->trailer_arena, 512);
    timer_init(&s->flush, h2->codec.conn->loop, on_flush_timeout);
    list_push_back(&h2->streams, &s->node);
    h2->codec.streams_active++;
    h2->streams_opened++;
    h2_gauge(h2, H2_streams_active, 1);
    return s;
}

static void stream_free(struct loop_garbage *g) {
    struct h2_stream *s = CONTAINER_OF(g, struct h2_stream, garbage);
    s->magic = 0;
    slab_free(s);
}

/* No longer one of the streams that count: both ends are over or it was reset. */
static void count_out(struct h2_stream *s) {
    if (s->is_end_told) {
        return;
    }
    s->is_end_told = true;
    struct h2 *h2 = s->h2;
    h2->codec.streams_active--;
    h2_gauge(h2, H2_streams_active, -1);
    uint32_t credit = h2->codec.opt->h2.max_inbound_priority_frames_per_stream;
    h2->priority_frames -= h2->priority_frames < credit ? h2->priority_frames : credit;
}

void h2_stream_tell_end(struct h2_stream *s) {
    if (s->is_end_told) {
        return;
    }
    count_out(s);
    const struct codec *c = &s->h2->codec;
    if (!c->is_server && c->ops->on_stream_end) {
        c->ops->on_stream_end(&s->h2->codec, c->user, &s->base);
    }
}

void h2_stream_release(struct h2_stream *s) {
    struct h2 *h2 = s->h2;
    if (h2->partial == s) {
        h2->partial = NULL;
    }
    count_out(s);
    timer_cancel(&s->flush);
    h2_gauge(h2, H2_pending_send_bytes, -(int64_t)buf_len(&s->out));
    buf_fini(&s->out);
    buf_fini(&s->rx);
    buf_init(&s->out); /* readable until the memory goes */
    buf_init(&s->rx);
    arena_fini(&s->trailer_arena);
    s->trailers = NULL;
    list_unlink(&s->node);
    s->garbage.free = stream_free;
    loop_defer_free(h2->codec.conn->loop, &s->garbage);
}

void h2_stream_abort(struct h2_stream *s, enum reset_reason why) {
    if (s->is_detached) {
        return;
    }
    s->is_detached = true;
    s->base.reset_reason = why;
    if (s->base.ops) {
        s->base.ops->on_reset(&s->base, why);
    }
    h2_stream_tell_end(s);
}

void h2_stream_check_end(struct h2_stream *s) {
    if (!s->is_rx_end || !s->is_tx_end) {
        return;
    }
    s->is_detached = true;
    if (s->id && !timer_active(&s->flush)) {
        uint32_t ms = s->base.flush_timeout_ms;
        if (ms && !buf_empty(&s->out)) {
            timer_start(&s->flush, ms);
        }
    }
    h2_stream_tell_end(s);
}

void h2_submit_reset(struct h2_stream *s, uint32_t code) {
    if (s->is_local_reset || s->is_remote_reset) {
        return;
    }
    s->is_local_reset = true;
    h2_gauge(s->h2, H2_pending_send_bytes, -(int64_t)buf_len(&s->out));
    buf_clear(&s->out);
    nghttp2_submit_rst_stream(s->h2->session, NGHTTP2_FLAG_NONE, s->id, code);
}

static void abort_closed(struct h2_stream *s, uint32_t code) {
    enum reset_reason why = s->reset_as;
    if (why == RESET_NONE) {
        why = code == NGHTTP2_REFUSED_STREAM                          ? RESET_REMOTE_REFUSED
              : !s->is_remote_reset && code == NGHTTP2_PROTOCOL_ERROR ? RESET_PROTOCOL_ERROR
                                                                      : RESET_REMOTE;
    }
    bool is_fault = why == RESET_PROTOCOL_ERROR && s->h2->codec.is_server;
    if ((s->is_remote_reset || is_fault) && !s->base.error_details) {
        s->base.error_details =
            code == NGHTTP2_REFUSED_STREAM ? "http2.remote_refuse" : "http2.remote_reset";
    }
    h2_stream_abort(s, why);
}

static int on_stream_close(nghttp2_session *ng, int32_t id, uint32_t code, void *user) {
    struct h2 *h2 = CAST(h2, H2_MAGIC, user);
    struct h2_stream *s = nghttp2_session_get_stream_user_data(ng, id);
    if (!s) {
        return 0;
    }
    if (s->unconsumed) {
        nghttp2_session_consume_connection(ng, s->unconsumed);
        s->unconsumed = 0;
    }
    bool is_ended = s->is_rx_end && s->is_tx_end;
    if (is_ended && code == NGHTTP2_NO_ERROR) {
        h2->last_ended = id;
    }
    if (!is_ended && !s->is_detached) {
        abort_closed(s, code);
    }
    if (!h2->is_free_due) {
        h2_stream_release(s);
    }
    return 0;
}

/* --- sending --- */

static int on_frame_send(nghttp2_session *ng, const nghttp2_frame *f, void *user) {
    (void)ng;
    struct h2 *h2 = CAST(h2, H2_MAGIC, user);
    switch (f->hd.type) {
    case NGHTTP2_GOAWAY:
        h2->is_goaway_sent = true;
        h2_count(h2, H2_goaway_sent);
        if (f->goaway.error_code != NGHTTP2_NO_ERROR && !h2->error) {
            h2->error = "http2.protocol_error";
        }
        break;
    case NGHTTP2_RST_STREAM:
        h2_count(h2, H2_tx_reset);
        if (f->rst_stream.error_code == NGHTTP2_REFUSED_STREAM) {
            h2_count(h2, H2_stream_refused_errors);
        }
        break;
    case NGHTTP2_HEADERS: {
        struct h2_stream *s = nghttp2_session_get_stream_user_data(ng, f->hd.stream_id);
        if (s) {
            s->base.tx_header_bytes += f->hd.length + 9;
            h2_note_end_sent(s, f->hd.flags);
        }
        break;
    }
    case NGHTTP2_DATA: /* counted where its bytes go out */
        return 0;
    default:
        break;
    }
    h2_note_outbound(h2, &f->hd);
    return h2->error && f->hd.type != NGHTTP2_GOAWAY ? NGHTTP2_ERR_CALLBACK_FAILURE : 0;
}

/* A frame that cannot go out. A request that never left is a refused one: safe to send again
 * elsewhere. */
static int on_frame_not_send(nghttp2_session *ng, const nghttp2_frame *f, int error, void *user) {
    (void)error;
    struct h2 *h2 = CAST(h2, H2_MAGIC, user);
    if (f->hd.type != NGHTTP2_HEADERS) {
        return 0;
    }
    struct h2_stream *s = nghttp2_session_get_stream_user_data(ng, f->hd.stream_id);
    if (!s || s->is_local_reset) {
        return 0;
    }
    s->reset_as = !h2->codec.is_server && f->headers.cat == NGHTTP2_HCAT_REQUEST
                      ? RESET_REMOTE_REFUSED
                      : RESET_LOCAL;
    if (s->reset_as == RESET_LOCAL) {
        h2_submit_reset(s, NGHTTP2_INTERNAL_ERROR);
        h2_stream_abort(s, RESET_LOCAL);
    }
    return 0;
}

/* What exceeds the connection's high watermark stays with the streams. */
bool h2_has_room(const struct h2 *h2) {
    const struct conn *c = h2->codec.conn;
    return !conn_above_high(c) &&
           (!c->buffer_limit_bytes || conn_buffered_out(c) <= c->buffer_limit_bytes);
}

/* Streams may end while their users are told: begin anew after each one that was. */
static void tell_watermarks(struct h2 *h2) {
    bool told = true;
    while (told && !h2->is_free_due) {
        told = false;
        LIST_FOREACH (it, &h2->streams) {
            if (h2_check_watermarks(LIST_ENTRY(it, struct h2_stream, node))) {
                told = true;
                break;
            }
        }
    }
}

void h2_pump(struct h2 *h2) {
    if (h2->is_inside || h2->is_free_due) {
        return;
    }
    loop_cancel_task(&h2->pump);
    h2_enter(h2);
    h2->is_inside = true;
    struct buf *out = conn_out(h2->codec.conn);
    while (h2_has_room(h2) && !h2->is_free_due) {
        const uint8_t *p;
        ssize_t n = nghttp2_session_mem_send(h2->session, &p);
        if (n <= 0) {
            if (n < 0 && !h2->error) {
                h2->error = "http2.send_failed";
            }
            break;
        }
        buf_append(out, p, (size_t)n);
        h2->outbound.appended += (size_t)n;
    }
    h2->is_inside = false;
    conn_flush_later(h2->codec.conn);
    if (h2->error && !h2->is_dispatching && !h2->is_ended) {
        conn_close(h2->codec.conn, CONN_CLOSE_FLUSH, h2->error); /* nobody else would notice */
    }
    h2_leave(h2);
}

static void on_pump(struct loop_task *t) { h2_pump(CONTAINER_OF(t, struct h2, pump)); }

void h2_pump_later(struct h2 *h2) {
    if (!h2->is_inside && !h2->is_free_due && !h2->is_ended) {
        loop_queue_task(h2->codec.conn->loop, &h2->pump);
    }
}

void h2_fail(struct h2 *h2, uint32_t code, const char *details) {
    if (h2->error) {
        return;
    }
    h2->error = details;
    h2->is_flooded = code == NGHTTP2_ENHANCE_YOUR_CALM;
    nghttp2_session_terminate_session(h2->session, code);
}

/* --- dispatch --- */

static void destroy(struct h2 *h2) {
    LIST_FOREACH_SAFE (it, &h2->streams) {
        struct h2_stream *s = LIST_ENTRY(it, struct h2_stream, node);
        s->is_detached = true;
        h2_stream_release(s);
    }
    loop_cancel_task(&h2->pump);
    timer_cancel(&h2->ping);
    timer_cancel(&h2->ping_timeout);
    nghttp2_session_del(h2->session);
    h2->magic = 0;
    xfree(h2);
}

bool h2_leave(struct h2 *h2) {
    h2->hold--;
    if (h2->is_free_due && !h2->hold) {
        destroy(h2);
        return false;
    }
    return true;
}

static const char *error_text(int code) {
    switch (code) {
    case NGHTTP2_ERR_FLOODED:
        return "http2.outbound_frames_flood";
    case NGHTTP2_ERR_BAD_CLIENT_MAGIC:
        return "http2.bad_client_magic";
    default:
        return "http2.protocol_error";
    }
}

static void on_receive_error(struct h2 *h2, int code) {
    if (code == NGHTTP2_ERR_FLOODED) {
        h2_count(h2, H2_outbound_control_flood);
        h2->is_flooded = true;
    } else if (code == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS) {
        h2_count(h2, H2_header_overflow);
        h2_fail(h2, NGHTTP2_ENHANCE_YOUR_CALM, "http2.too_many_headers");
        h2->is_flooded = false; /* as in Envoy, which finds a header too many */
    }
    if (!h2->error) {
        h2->error = error_text(code);
    }
}

static void receive(struct h2 *h2, struct buf *in) {
    while (!buf_empty(in) && !h2->error && !h2->is_free_due) {
        struct slice sl = *buf_slice(in, 0);
        h2->rx_chunk = sl.chunk;
        ssize_t n = nghttp2_session_mem_recv(h2->session, (const uint8_t *)sl.p, sl.n);
        if (n < 0) {
            on_receive_error(h2, (int)n);
            break;
        }
        buf_drain(in, sl.n);
    }
    h2->rx_chunk = NULL;
    if (h2->error) {
        buf_clear(in);
    }
}

static int dispatch(struct codec *c, struct buf *in) {
    struct h2 *h2 = h2_of(c);
    h2_enter(h2);
    h2->last_rx_ms = loop_now_ms(c->conn->loop);
    h2->is_inside = h2->is_dispatching = true;
    receive(h2, in);
    if (!h2->error && !h2->is_free_due) {
        h2_deliver_partial(h2);
    }
    h2->is_inside = false;
    h2_pump(h2);
    h2->is_dispatching = false;
    int rc = !h2->error ? 0 : h2->is_flooded ? CODEC_FLOODED : CODEC_BROKEN;
    return h2_leave(h2) ? rc : 0;
}

static void on_conn_end(struct codec *c, enum reset_reason why) {
    struct h2 *h2 = h2_of(c);
    if (h2->is_ended) {
        return;
    }
    h2->is_ended = true;
    loop_cancel_task(&h2->pump);
    h2_enter(h2);
    timer_cancel(&h2->ping);
    timer_cancel(&h2->ping_timeout);
    LIST_FOREACH_SAFE (it, &h2->streams) {
        struct h2_stream *s = LIST_ENTRY(it, struct h2_stream, node);
        timer_cancel(&s->flush);
        h2_stream_abort(s, why);
    }
    h2_leave(h2);
}

/* --- user's calls --- */

static bool can_open(const struct h2 *h2) {
    return !h2->error && !h2->is_ended && !h2->is_goaway_received && !h2->is_goaway_sent &&
           nghttp2_session_check_request_allowed(h2->session) &&
           nghttp2_session_get_next_stream_id(h2->session) <= INT32_MAX;
}

static struct codec_stream *open_stream(struct codec *c, const struct codec_stream_ops *ops,
                                        void *user) {
    struct h2 *h2 = h2_of(c);
    if (!can_open(h2)) {
        return NULL;
    }
    struct h2_stream *s = h2_stream_new(h2);
    s->base.ops = ops;
    s->base.user = user;
    s->is_over_conn = h2->is_over_high;
    h2_keepalive_on_request(h2);
    return &s->base;
}

static uint32_t reset_code(const struct h2_stream *s, enum reset_reason why) {
    switch (why) {
    case RESET_LOCAL_REFUSED:
        return NGHTTP2_REFUSED_STREAM;
    case RESET_PROTOCOL_ERROR:
        return NGHTTP2_PROTOCOL_ERROR;
    case RESET_OVERLOAD:
        return NGHTTP2_ENHANCE_YOUR_CALM;
    case RESET_CONNECT_ERROR:
        return NGHTTP2_CONNECT_ERROR;
    case RESET_NONE:
    case RESET_LOCAL:
    case RESET_REMOTE:
    case RESET_REMOTE_REFUSED:
    case RESET_CONNECTION_FAILURE:
    case RESET_CONNECTION_TIMEOUT:
    case RESET_CONNECTION_TERMINATION:
    case RESET_OVERFLOW:
        break;
    }
    if (s->h2->codec.is_server) { /* RFC 9113 §8.1: an early response is no error */
        return s->is_tx_end ? NGHTTP2_NO_ERROR : NGHTTP2_INTERNAL_ERROR;
    }
    return NGHTTP2_CANCEL;
}

static void reset(struct codec_stream *base, enum reset_reason why) {
    struct h2_stream *s = h2_stream_of(base);
    struct h2 *h2 = s->h2;
    if (s->is_detached) {
        return;
    }
    s->is_detached = true;
    s->base.reset_reason = why;
    if (!s->id) { /* never sent: nghttp2 does not know it */
        h2_stream_tell_end(s);
        h2_stream_release(s);
        return;
    }
    if (s->is_tx_end && !s->is_end_sent && h2->codec.is_server) {
        s->is_rx_end = true; /* the response goes out first */
        s->is_reset_after_send = true;
        h2_stream_check_end(s);
        return;
    }
    h2_submit_reset(s, reset_code(s, why));
    h2_stream_tell_end(s);
    h2_pump(h2);
}

static void goaway(struct codec *c, bool final) {
    struct h2 *h2 = h2_of(c);
    if (h2->error || h2->is_ended) {
        return;
    }
    if (!final && c->is_server) {
        nghttp2_submit_shutdown_notice(h2->session);
    } else {
        int32_t last = nghttp2_session_get_last_proc_stream_id(h2->session);
        nghttp2_submit_goaway(h2->session, NGHTTP2_FLAG_NONE, last, NGHTTP2_NO_ERROR, NULL, 0);
    }
    h2_pump(h2);
}

static void on_conn_above_high(struct codec *c) {
    struct h2 *h2 = h2_of(c);
    h2->is_over_high = true;
    h2_enter(h2);
    tell_watermarks(h2);
    h2_leave(h2);
}

static void on_conn_below_low(struct codec *c) {
    struct h2 *h2 = h2_of(c);
    h2->is_over_high = false;
    h2_enter(h2);
    h2_pump(h2); /* what the streams hold goes first; it may fill the connection again */
    if (!h2->is_over_high) {
        tell_watermarks(h2);
    }
    h2_leave(h2);
}

static bool wants_close(const struct codec *c) {
    const struct h2 *h2 = (const struct h2 *)c;
    return h2->error || h2->is_ended || h2->is_goaway_received ||
           (!nghttp2_session_want_read(h2->session) && !nghttp2_session_want_write(h2->session));
}

static bool is_idle_clean(const struct codec *c) { return !wants_close(c); }

static void free_codec(struct codec *c) {
    struct h2 *h2 = h2_of(c);
    if (h2->hold) {
        h2->is_free_due = true;
        LIST_FOREACH (it, &h2->streams) {
            LIST_ENTRY(it, struct h2_stream, node)->is_detached = true;
        }
        return;
    }
    destroy(h2);
}

static const char *error(const struct codec *c) { return ((const struct h2 *)c)->error; }

static void dump(const struct codec *c, struct buf *out) {
    const struct h2 *h2 = (const struct h2 *)c;
    buf_printf(out, "h2 %s streams=%u opened=%llu outbound=%u/%u goaway=%d/%d error=%s\n",
               c->is_server ? "server" : "client", c->streams_active,
               (unsigned long long)h2->streams_opened, h2->outbound.frames, h2->outbound.control,
               h2->is_goaway_sent, h2->is_goaway_received, h2->error ? h2->error : "-");
    LIST_FOREACH (it, &h2->streams) {
        const struct h2_stream *s = LIST_ENTRY(it, struct h2_stream, node);
        buf_printf(
            out,
            "  stream %d out=%zu unconsumed=%u rx_end=%d tx_end=%d detached=%d read_disabled=%u\n",
            s->id, buf_len(&s->out), s->unconsumed, s->is_rx_end, s->is_tx_end, s->is_detached,
            s->read_disabled);
    }
}

uint32_t codec_stream_id(const struct codec_stream *s) {
    return s->codec->protocol == HTTP_2 ? (uint32_t)((const struct h2_stream *)s)->id : 0;
}

/* --- keepalive --- */

static void on_ping_timeout(struct timer *t) {
    struct h2 *h2 = CONTAINER_OF(t, struct h2, ping_timeout);
    h2_count(h2, H2_keepalive_timeout);
    h2->error = "http2.keepalive_timeout";
    conn_close(h2->codec.conn, CONN_CLOSE_NO_FLUSH, "http2_ping_timeout");
}

static void arm_ping(struct h2 *h2) {
    const struct codec_options *o = h2->codec.opt;
    if (!o->h2.keepalive_interval_ms) {
        return;
    }
    uint64_t ms = o->h2.keepalive_interval_ms;
    uint64_t spread = ms * o->h2.keepalive_jitter_pct / 100;
    if (spread) {
        ms += rng_below(&h2->codec.conn->loop->rng, spread + 1);
    }
    timer_start(&h2->ping, ms);
}

static void send_ping(struct h2 *h2) {
    if (h2->is_ping_pending || h2->error || h2->is_ended) {
        return;
    }
    uint64_t now = loop_now_us(h2->codec.conn->loop);
    uint8_t opaque[8];
    memcpy(opaque, &now, sizeof(opaque));
    h2->is_ping_pending = true;
    nghttp2_submit_ping(h2->session, NGHTTP2_FLAG_NONE, opaque);
    timer_start(&h2->ping_timeout, h2->codec.opt->h2.keepalive_timeout_ms);
    h2_pump(h2);
}

static void on_ping_due(struct timer *t) {
    struct h2 *h2 = CONTAINER_OF(t, struct h2, ping);
    send_ping(h2);
}

void h2_keepalive_start(struct h2 *h2) {
    timer_init(&h2->ping, h2->codec.conn->loop, on_ping_due);
    timer_init(&h2->ping_timeout, h2->codec.conn->loop, on_ping_timeout);
    h2->last_rx_ms = loop_now_ms(h2->codec.conn->loop);
    arm_ping(h2);
}

void h2_keepalive_ack(struct h2 *h2) {
    h2->is_ping_pending = false;
    timer_cancel(&h2->ping_timeout);
    arm_ping(h2);
}

/* After a long silence the first request asks first whether the peer is still there. */
void h2_keepalive_on_request(struct h2 *h2) {
    const struct codec_options *o = h2->codec.opt;
    if (!o->h2.keepalive_idle_ms || !o->h2.keepalive_timeout_ms) {
        return;
    }
    if (loop_now_ms(h2->codec.conn->loop) - h2->last_rx_ms >= o->h2.keepalive_idle_ms) {
        send_ping(h2);
    }
}

/* --- set-up --- */

static nghttp2_session_callbacks *callbacks;
static pthread_once_t callbacks_once = PTHREAD_ONCE_INIT;

static void *on_malloc(size_t n, void *user) {
    (void)user;
    return slab_alloc(n);
}
static void on_free(void *p, void *user) {
    (void)user;
    slab_free(p);
}
static void *on_calloc(size_t n, size_t size, void *user) {
    (void)user;
    return slab_calloc(n, size);
}
static void *on_realloc(void *p, size_t n, void *user) {
    (void)user;
    return slab_realloc(p, n);
}

static void make_callbacks(void) {
    CHECK(nghttp2_session_callbacks_new(&callbacks) == 0);
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, h2_on_begin_frame);
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, h2_on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(callbacks, h2_on_header);
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, h2_on_invalid_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, h2_on_frame_recv);
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, h2_on_invalid_frame);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, h2_on_data_chunk);
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close);
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_frame_not_send);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, h2_on_send_data);
}

#define SEND_HEADERS_MAX_BYTES \
    (4u * 1024 * 1024) /* a header block we may send; what filters made is trusted */
#define FRAME_BYTES 16384u
#define CONTINUATIONS_MIN 8u

static nghttp2_option *make_option(const struct codec_options *o) {
    nghttp2_option *opt;
    CHECK(nghttp2_option_new(&opt) == 0);
    nghttp2_option_set_no_auto_window_update(opt, 1);
    nghttp2_option_set_no_closed_streams(opt, 1);
    nghttp2_option_set_max_outbound_ack(opt, o->h2.max_outbound_control_frames);
    nghttp2_option_set_max_send_header_block_length(opt, SEND_HEADERS_MAX_BYTES);
    nghttp2_option_set_max_deflate_dynamic_table_size(opt, o->h2.hpack_table_bytes);
    size_t continuations = o->max_headers_bytes / FRAME_BYTES + CONTINUATIONS_MIN;
    nghttp2_option_set_max_continuations(opt, continuations);
    /* Resets are judged by the connection manager, by how early they come. */
    nghttp2_option_set_stream_reset_rate_limit(opt, UINT32_MAX, UINT32_MAX);
    nghttp2_option_set_no_rfc9113_leading_and_trailing_ws_validation(opt, 1);
    nghttp2_option_set_peer_max_concurrent_streams(opt, o->h2.max_concurrent_streams);
    return opt;
}

#define SETTINGS_ROOM 24u

static void submit_settings(struct h2 *h2) {
    const struct codec_options *o = h2->codec.opt;
    nghttp2_settings_entry v[SETTINGS_ROOM];
    size_t n = 0;
    v[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_HEADER_TABLE_SIZE, o->h2.hpack_table_bytes};
    if (h2->codec.is_server) {
        v[n++] =
            (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_CONNECT_PROTOCOL, o->h2.allow_connect};
    } else {
        v[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_ENABLE_PUSH, 0};
    }
    v[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS,
                                      o->h2.max_concurrent_streams};
    v[n++] = (nghttp2_settings_entry){NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE,
                                      o->h2.initial_stream_window_bytes};
    for (unsigned i = 0; i < o->h2.settings_n && n < SETTINGS_ROOM; i++) {
        v[n++] = (nghttp2_settings_entry){o->h2.settings[i].id, o->h2.settings[i].value};
    }
    CHECK(nghttp2_submit_settings(h2->session, NGHTTP2_FLAG_NONE, v, n) == 0);
    nghttp2_session_set_local_window_size(h2->session, NGHTTP2_FLAG_NONE, 0,
                                          (int32_t)o->h2.initial_connection_window_bytes);
}

/* Both sides differ in who opens streams only. */
#define VTABLE(open_stream_)                                                                 \
    {                                                                                        \
        .dispatch = dispatch, .on_conn_end = on_conn_end, .open = (open_stream_),            \
        .send_1xx = h2_send_1xx, .send_headers = h2_send_headers, .send_data = h2_send_data, \
        .send_trailers = h2_send_trailers, .reset = reset, .read_disable = h2_read_disable,  \
        .goaway = goaway, .on_conn_above_high = on_conn_above_high,                          \
        .on_conn_below_low = on_conn_below_low, .wants_close = wants_close,                  \
        .is_idle_clean = is_idle_clean, .free = free_codec, .error = error, .dump = dump,    \
    }

static const struct codec_vtable server_vtable = VTABLE(codec_no_open);
static const struct codec_vtable client_vtable = VTABLE(open_stream);

static struct codec *new_codec(struct conn *c, const struct codec_options *o,
                               const struct codec_stats *st, const struct codec_ops *ops,
                               void *user, bool is_server) {
    CHECK(pthread_once(&callbacks_once, make_callbacks) == 0);
    struct h2 *h2 = xnew(struct h2);
    h2->magic = H2_MAGIC;
    h2->codec = (struct codec){.vt = is_server ? &server_vtable : &client_vtable,
                               .ops = ops,
                               .user = user,
                               .conn = c,
                               .opt = o,
                               .protocol = HTTP_2,
                               .is_server = is_server};
    if (st) {
        h2->codec.stats = *st;
    }
    list_init(&h2->streams);
    h2->pump.run = on_pump;
    nghttp2_option *opt = make_option(o);
    nghttp2_mem mem = {
        .malloc = on_malloc, .free = on_free, .calloc = on_calloc, .realloc = on_realloc};
    int rc = is_server ? nghttp2_session_server_new3(&h2->session, callbacks, h2, opt, &mem)
                       : nghttp2_session_client_new3(&h2->session, callbacks, h2, opt, &mem);
    CHECK(rc == 0);
    nghttp2_option_del(opt);
    h2_count(h2, is_server ? H2_nghttp2_downstream_connections : H2_nghttp2_upstream_connections);
    submit_settings(h2);
    h2_keepalive_start(h2);
    h2_pump(h2);
    return &h2->codec;
}

struct codec *h2_server_new(struct conn *c, const struct codec_options *o,
                            const struct codec_stats *st, const struct codec_ops *ops, void *user) {
    return new_codec(c, o, st, ops, user, true);
}

struct codec *h2_client_new(struct conn *c, const struct codec_options *o,
                            const struct codec_stats *st, const struct codec_ops *ops, void *user) {
    return new_codec(c, o, st, ops, user, false);
}
