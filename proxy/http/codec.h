/* One HTTP connection of any version as a set of streams; HTTP/1 (h1.c, llhttp) and HTTP/2 (h2.c,
 * nghttp2) behind one vtable, server and client side. A codec owns no socket: bytes come in by
 * codec_dispatch(), go out through conn_out()/conn_flush_later().
 * Threads: worker-local. Spec: RFC 9112, RFC 9113; Envoy's Http::Connection,
 * StreamEncoder/Decoder. */
#ifndef SLUICE_HTTP_CODEC_H
#define SLUICE_HTTP_CODEC_H

#include "proxy/http/headers.h"
#include "proxy/net/conn.h"

enum http_protocol { HTTP_10, HTTP_11, HTTP_2, HTTP_3 };
enum codec_kind { CODEC_AUTO, CODEC_HTTP1, CODEC_HTTP2 };

enum reset_reason {
    RESET_NONE,
    RESET_LOCAL,         /* we reset the stream */
    RESET_LOCAL_REFUSED, /* REFUSED_STREAM sent */
    RESET_REMOTE,
    RESET_REMOTE_REFUSED, /* REFUSED_STREAM received, or above GOAWAY's last id: safe to retry */
    RESET_CONNECTION_FAILURE, /* connect failed */
    RESET_CONNECTION_TIMEOUT,
    RESET_CONNECTION_TERMINATION, /* connection closed with the stream open */
    RESET_OVERFLOW,               /* circuit breaker or queue limit */
    RESET_CONNECT_ERROR,
    RESET_PROTOCOL_ERROR,
    RESET_OVERLOAD,
};
const char *reset_reason_str(
    enum reset_reason r); /* Envoy's words: "connection_termination", "remote_reset", … */

struct codec;
/* A request/response exchange. Created by the codec; it lives until both directions ended or it was
 * reset, and is freed by the codec after the current callback stack. After on_reset, or after both
 * ends, the user must not touch it. */
struct codec_stream {
    struct codec *codec;
    const struct codec_stream_ops *ops; /* the user's callbacks */
    void *user;
    uint64_t rx_header_bytes, rx_body_bytes, tx_header_bytes,
        tx_body_bytes; /* wire bytes of this stream */
    const char *
        error_details; /* response_code_details when the codec found fault: "http1.codec_error" … */
    /* HTTP/2: how long what was sent whole may wait for the peer's window; 0: for ever. The codec's
     * option, until the user sets it. */
    uint32_t flush_timeout_ms;
    struct arena
        *response_arena; /* client, for the connection's user: what its on_response_arena returns */
    enum reset_reason
        reset_reason; /* why it ended; RESET_NONE while it lives and when both directions ended */
};

/* Callbacks to the stream's user. `h` belongs to the user's arena (see on_begin). data: the callee
 * drains all it gets (it may move it to its own buffers), limiting its producer with
 * codec_stream_read_disable. */
struct codec_stream_ops {
    /* Client side only: interim response 1xx (not 101). */
    void (*on_1xx)(struct codec_stream *s, struct headers *h);
    void (*on_headers)(struct codec_stream *s, struct headers *h, bool end_stream);
    void (*on_data)(struct codec_stream *s, struct buf *data, bool end_stream);
    void (*on_trailers)(struct codec_stream *s, struct headers *h);
    void (*on_reset)(struct codec_stream *s, enum reset_reason why);
    /* The stream's send buffer crossed its watermarks: stop/resume producing. */
    void (*on_above_high)(struct codec_stream *s);
    void (*on_below_low)(struct codec_stream *s);
};

/* Callbacks to the connection's user. */
struct codec_ops {
    /* Server: a new request begins. Set s->ops and s->user and return the arena its headers go
     * to. */
    struct arena *(*on_begin)(struct codec *c, void *user, struct codec_stream *s);
    /* Client, before response headers or trailers of s are decoded: the arena they go to. */
    struct arena *(*on_response_arena)(struct codec *c, void *user, struct codec_stream *s);
    void (*on_goaway)(struct codec *c, void *user, bool is_graceful, uint32_t last_stream_id);
    /* Server: a malformed or oversized request was refused before on_headers. The user sends the
     * local reply through `s` (HTTP/1) — status 400, 431, 426, 501, 408; details in
     * s->error_details — and the connection closes afterwards. */
    void (*on_bad_request)(struct codec *c, void *user, struct codec_stream *s, unsigned status);
    /* Client: peer's MAX_CONCURRENT_STREAMS became known or changed. */
    void (*on_max_streams)(struct codec *c, void *user, uint32_t max);
    /* Client: the stream is over (both directions ended, or it was reset by either side): raised
     * exactly once, after the stream's own last callback, perhaps from inside a call of the user.
     * streams_active does not count it any more; the stream's memory is still there, and its
     * reset_reason tells how it ended. The callee
     * frees nothing and opens nothing before the call has returned. May be NULL. */
    void (*on_stream_end)(struct codec *c, void *user, struct codec_stream *s);
};

enum underscores_action { UNDERSCORES_ALLOW, UNDERSCORES_REJECT, UNDERSCORES_DROP };
enum h1_header_case { H1_CASE_LOWER, H1_CASE_PROPER, H1_CASE_PRESERVE };

struct regex;
enum upgrade_match_kind {
    UPGRADE_EXACT,
    UPGRADE_PREFIX,
    UPGRADE_SUFFIX,
    UPGRADE_CONTAINS,
    UPGRADE_REGEX
};
struct upgrade_match { /* ignore_http_11_upgrade */
    enum upgrade_match_kind kind;
    bool ignore_case;
    sv text;
    const struct regex *regex;
};
struct h2_setting {
    uint16_t id;
    uint32_t value;
};

/* Compiled from Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions; immutable, shared
 * by all connections. */
struct codec_options {
    uint32_t max_headers_bytes; /* default 60 KiB */
    uint32_t max_headers_count; /* default 100 */
    enum underscores_action underscores;
    uint32_t stream_buffer_limit_bytes; /* per-stream send watermark; 0: connection's */
    struct {
        bool accept_http_10;
        sv default_host_for_http_10;
        enum h1_header_case header_case;
        bool enable_trailers;
        bool allow_absolute_url; /* default true */
        bool allow_chunked_length;
        bool override_stream_error_on_invalid_http_message;
        bool send_fully_qualified_url;
        bool allow_custom_methods;    /* any token, not only the registered methods */
        bool ignore_unknown_upgrades; /* server: treat every Upgrade as absent */
        const struct upgrade_match *ignored_upgrades; /* server: Upgrade values treated as absent */
        unsigned ignored_upgrades_n;
    } h1;
    struct {
        uint32_t hpack_table_bytes;               /* default 4096 */
        uint32_t max_concurrent_streams;          /* default 1024 */
        uint32_t initial_stream_window_bytes;     /* default 16 MiB in 1.40 */
        uint32_t initial_connection_window_bytes; /* default 24 MiB */
        bool allow_connect, allow_metadata;
        uint32_t max_outbound_frames;                                  /* 10000 */
        uint32_t max_outbound_control_frames;                          /* 1000 */
        uint32_t max_consecutive_inbound_empty_frames;                 /* 1 */
        uint32_t max_inbound_priority_frames_per_stream;               /* 100 */
        uint32_t max_inbound_window_update_frames_per_data_frame_sent; /* 10 */
        bool override_stream_error_on_invalid_http_message;
        uint32_t keepalive_interval_ms, keepalive_timeout_ms; /* 0: off */
        uint32_t keepalive_jitter_pct, keepalive_idle_ms;
        uint32_t
            /* a finished response stuck behind the peer's window; 0: off; default 5 min */
            flush_timeout_ms;
        const struct h2_setting *settings; /* custom_settings_parameters */
        unsigned settings_n;
    } h2;
};
void codec_options_defaults(struct codec_options *o);

/* Codec-level counters, resolved once per connection; one group per side: "http1." / "http2." under
 * listener's http prefix or cluster. Any may be NULL. */
struct stats_shard;
struct codec_stats {
    struct stats_shard *h1; /* enum H1_* of http/codec_stats.h */
    struct stats_shard *h2; /* enum H2_* */
};

struct codec_vtable;
struct codec {
    const struct codec_vtable *vt;
    const struct codec_ops *ops;
    void *user;
    struct conn *conn;
    const struct codec_options *opt;
    struct codec_stats stats;
    enum http_protocol protocol;
    bool is_server;
    uint32_t streams_active;
};
enum codec_failure {
    CODEC_BROKEN = -1,  /* the peer broke the protocol */
    CODEC_FLOODED = -2, /* it kept to it, beyond a limit */
};
struct codec_vtable {
    /* Consume from `in`. A negative result (enum codec_failure) is a connection error: its detail
     * is codec_error(); the user closes after flush. */
    int (*dispatch)(struct codec *c, struct buf *in);
    /* The peer half-closed or the connection closed: finish bodies delimited by close, reset the
     * rest with `why`. */
    void (*on_conn_end)(struct codec *c, enum reset_reason why);
    struct codec_stream *(*open)(struct codec *c, const struct codec_stream_ops *ops,
                                 void *user); /* client; NULL: can't */
    void (*send_1xx)(struct codec_stream *s, const struct headers *h);
    void (*send_headers)(struct codec_stream *s, const struct headers *h, bool end_stream);
    void (*send_data)(struct codec_stream *s, struct buf *data, bool end_stream); /* moves data */
    void (*send_trailers)(struct codec_stream *s, const struct headers *h);
    void (*reset)(struct codec_stream *s,
                  enum reset_reason why); /* no on_reset callback to the caller */
    void (*read_disable)(struct codec_stream *s, bool disable); /* nestable */
    void (*goaway)(
        struct codec *c,
        bool final); /* h2: shutdown notice, then GOAWAY with last id; h1: close after response */
    void (*on_conn_above_high)(struct codec *c); /* from conn_ops: spread to streams */
    void (*on_conn_below_low)(struct codec *c);
    bool (*wants_close)(
        const struct codec *c); /* after a complete exchange the connection must not be reused */
    bool (*is_idle_clean)(const struct codec *c); /* client: no leftovers, may be pooled */
    void (*free)(struct codec *c);
    const char *(*error)(const struct codec *c);
    void (*dump)(const struct codec *c, struct buf *out);
};

struct codec *h1_server_new(struct conn *c, const struct codec_options *o,
                            const struct codec_stats *st, const struct codec_ops *ops, void *user);
struct codec *h1_client_new(struct conn *c, const struct codec_options *o,
                            const struct codec_stats *st, const struct codec_ops *ops, void *user);
struct codec *h2_server_new(struct conn *c, const struct codec_options *o,
                            const struct codec_stats *st, const struct codec_ops *ops, void *user);
struct codec *h2_client_new(struct conn *c, const struct codec_options *o,
                            const struct codec_stats *st, const struct codec_ops *ops, void *user);
/* AUTO by preface: CODEC_AUTO while the bytes decide nothing yet. */
enum codec_kind codec_detect(sv first_bytes);

/* HTTP/1 only: the response to an Upgrade or CONNECT was 101/2xx: bytes flow raw through
 * on_data/send_data from here. */
void h1_stream_upgraded(struct codec_stream *s);
/* HTTP/1 server: mark that the response must carry Connection: close (drain, limits). */
void h1_server_close_after(struct codec *c);
/* A server's `open`: always NULL. */
struct codec_stream *codec_no_open(struct codec *c, const struct codec_stream_ops *ops, void *user);
/* HTTP/2: stream id, 0 for HTTP/1. */
uint32_t codec_stream_id(const struct codec_stream *s);

#endif
