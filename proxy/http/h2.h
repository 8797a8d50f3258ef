/* HTTP/2 codec on nghttp2, shared by its .c files only: connection, streams, budgets. nghttp2 owns
 * framing, HPACK, windows and most message rules; here are limits, flow-control hand-over and
 * lifetimes. A stream object lives until nghttp2 closed the stream and the callback stack unwound;
 * the user is told nothing once both of his ends are over or he was told of a reset
 * (is_detached). */
#ifndef SLUICE_HTTP_H2_H
#define SLUICE_HTTP_H2_H

#include <nghttp2/nghttp2.h>

#include "proxy/http/codec.h"
#include "proxy/http/codec_stats.h"

#define H2_MAGIC 0x00B2C0DEu
#define H2_STREAM_MAGIC 0x00B257EAu
#define H2_INTERIM_MAX 100u /* 1xx responses before the final one */

struct h2_stream {
    struct codec_stream base; /* must be first */
    uint32_t magic;
    int32_t id; /* 0: not sent yet (client) */
    struct h2 *h2;
    struct list node;
    struct arena *arena; /* where the block being received goes; server: of the request */
    struct headers *block;
    struct buf out;           /* body waiting for windows */
    struct buf rx;            /* body of the frame being received, not delivered yet */
    struct headers *trailers; /* to send after out; in trailer_arena */
    struct arena trailer_arena;
    uint32_t rx_fields, rx_cookies, rx_cookie_bytes;
    uint32_t rx_block_bytes;
    uint32_t unconsumed; /* received and delivered while reads were disabled */
    uint16_t read_disabled;
    uint16_t interim;
    bool has_headers; /* final headers were received */
    bool is_rx_end, is_tx_end, is_tx_headers;
    bool is_deferred; /* nghttp2 waits for more body */
    bool is_detached;
    bool is_end_told; /* on_stream_end was raised */
    bool is_over_own, is_over_conn, is_above_high;
    bool is_remote_reset, is_local_reset;
    bool is_extended_connect; /* server: CONNECT with :protocol */
    bool is_upgrade;          /* client: an HTTP/1 upgrade sent as extended CONNECT */
    bool is_end_sent;         /* END_STREAM went out */
    bool is_reset_after_send; /* RST_STREAM(NO_ERROR) follows it */
    sv upgrade_type;          /* of is_upgrade, in trailer_arena */
    enum reset_reason reset_as;
    struct timer flush; /* running when is_detached with bytes left in out */
    struct loop_garbage garbage;
};

/* Frames handed to the connection and not sent yet, told from byte positions with two marks: at
 * most twice the truth. */
struct h2_outbound {
    uint64_t appended;                  /* bytes ever */
    uint64_t mark_bytes;                /* position of the newer mark */
    uint32_t frames, control;           /* since the older mark */
    uint32_t mark_frames, mark_control; /* of those, before the newer mark */
};

struct h2 {
    struct codec codec; /* must be first */
    uint32_t magic;
    uint8_t hold;   /* callers that free must wait for */
    bool is_inside; /* nghttp2 is running: it must not be entered again */
    bool is_free_due, is_over_high, is_dispatching;
    bool is_goaway_received, is_goaway_sent, is_ping_pending;
    bool is_ended;   /* on_conn_end was called */
    bool is_flooded; /* the error is a limit that was passed */
    nghttp2_session *session;
    struct loop_task pump; /* queued: what was submitted goes out at the end of the batch */
    const char *error;     /* set: connection error */
    struct list streams;
    struct h2_stream *rx_stream; /* whose header block is being received; NULL: nobody's */
    struct h2_stream *partial;   /* holds rx bytes at the end of a read */
    struct chunk *rx_chunk;      /* of the bytes being received */
    struct h2_outbound outbound;
    uint64_t streams_opened, data_frames_sent, rx_window_updates;
    uint64_t priority_frames;
    uint32_t empty_frames; /* consecutive */
    int32_t last_ended;    /* id of the stream that both sides ended last; 0: none */
    uint64_t last_rx_ms;
    struct timer ping, ping_timeout;
};

static inline struct h2 *h2_of(struct codec *c) { return CAST(h2, H2_MAGIC, c); }
static inline struct h2_stream *h2_stream_of(struct codec_stream *s) {
    struct h2_stream *st = (struct h2_stream *)s;
    ASSERT(st->magic == H2_STREAM_MAGIC);
    return st;
}
static inline void h2_count(const struct h2 *h2, unsigned stat) {
    if (h2->codec.stats.h2) {
        stats_inc(h2->codec.stats.h2, stat);
    }
}
static inline void h2_gauge(const struct h2 *h2, unsigned stat, int64_t n) {
    if (h2->codec.stats.h2) {
        stats_gauge_add(h2->codec.stats.h2, stat, n);
    }
}
static inline void h2_record(const struct h2 *h2, unsigned stat, uint64_t v) {
    if (h2->codec.stats.h2) {
        stats_record(h2->codec.stats.h2, stat, v);
    }
}

/* --- h2.c --- */
static inline void h2_enter(struct h2 *h2) { h2->hold++; }
bool h2_leave(struct h2 *h2); /* false: the codec was freed */
bool h2_has_room(const struct h2 *h2);
/* Send what is due and fits; does nothing inside nghttp2, which goes on sending by itself or is
 * followed by dispatch's own call. */
void h2_pump(struct h2 *h2);
/* The same at the end of the batch: headers wait for the body or the frames of other streams. */
void h2_pump_later(struct h2 *h2);
/* The connection is broken: GOAWAY with the code, dispatch() fails with these details. */
void h2_fail(struct h2 *h2, uint32_t code, const char *details);
struct h2_stream *h2_stream_new(struct h2 *h2);
/* Off the list, memory after the callback stack. */
void h2_stream_release(struct h2_stream *s);
/* The user is told of a reset, once, and nothing afterwards. */
void h2_stream_abort(struct h2_stream *s, enum reset_reason why);
/* Both ends over: nothing is told any more. */
void h2_stream_check_end(struct h2_stream *s);
void h2_stream_tell_end(struct h2_stream *s);
void h2_submit_reset(struct h2_stream *s, uint32_t code);
void h2_keepalive_start(struct h2 *h2);
void h2_keepalive_ack(struct h2 *h2);
void h2_keepalive_on_request(struct h2 *h2);

/* --- h2_recv.c --- */
int h2_on_begin_frame(nghttp2_session *ng, const nghttp2_frame_hd *hd, void *user);
int h2_on_begin_headers(nghttp2_session *ng, const nghttp2_frame *f, void *user);
int h2_on_header(nghttp2_session *ng, const nghttp2_frame *f, const uint8_t *name, size_t name_n,
                 const uint8_t *value, size_t value_n, uint8_t flags, void *user);
int h2_on_invalid_header(nghttp2_session *ng, const nghttp2_frame *f, const uint8_t *name,
                         size_t name_n, const uint8_t *value, size_t value_n, uint8_t flags,
                         void *user);
int h2_on_frame_recv(nghttp2_session *ng, const nghttp2_frame *f, void *user);
int h2_on_invalid_frame(nghttp2_session *ng, const nghttp2_frame *f, int error, void *user);
int h2_on_data_chunk(nghttp2_session *ng, uint8_t flags, int32_t id, const uint8_t *data, size_t n,
                     void *user);
void h2_deliver_partial(struct h2 *h2);
void h2_read_disable(struct codec_stream *s, bool disable);

/* --- h2_send.c --- */
int h2_on_send_data(nghttp2_session *ng, nghttp2_frame *f, const uint8_t *head, size_t n,
                    nghttp2_data_source *src, void *user);
void h2_send_1xx(struct codec_stream *s, const struct headers *h);
void h2_send_headers(struct codec_stream *s, const struct headers *h, bool end_stream);
void h2_send_data(struct codec_stream *s, struct buf *data, bool end_stream);
void h2_send_trailers(struct codec_stream *s, const struct headers *h);
bool h2_check_watermarks(struct h2_stream *s); /* true: the user was told */
/* A frame with these flags left: was it the last one? */
void h2_note_end_sent(struct h2_stream *s, uint8_t flags);
/* Appended to the connection's buffer: frames beyond the limits break the connection. */
void h2_note_outbound(struct h2 *h2, const nghttp2_frame_hd *hd);

#endif
