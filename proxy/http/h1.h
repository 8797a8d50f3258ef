/* HTTP/1 codec, shared by its .c files only: connection state, the parser of heads, the encoder.
 * One exchange at a time: the stream is embedded and re-used; pipelined bytes wait in the
 * connection.
 * Why the parser is our own: a head is copied and validated in one go with Envoy's distinct
 * answers, and what Debian's llhttp 8.1 lets through (a chunk size ended by CR and any byte, a
 * header ended by a bare CR) is what smuggling is made of. The tests hold both against each other:
 * whatever we accept, llhttp must read the same way. */
#ifndef SLUICE_HTTP_H1_H
#define SLUICE_HTTP_H1_H

#include "proxy/http/codec.h"
#include "proxy/http/codec_stats.h"

enum h1_rx {
    H1_RX_HEAD,       /* between messages, or inside a head */
    H1_RX_LENGTH,     /* body of body_left more bytes */
    H1_RX_CLOSE,      /* body until the peer closes (responses) */
    H1_RX_CHUNK_SIZE, /* the chunked states, in order of appearance */
    H1_RX_CHUNK_EXT,
    H1_RX_CHUNK_SIZE_LF,
    H1_RX_CHUNK_DATA,
    H1_RX_CHUNK_CR,
    H1_RX_CHUNK_LF,
    H1_RX_TRAILERS,
    H1_RX_UPGRADE, /* request read; what follows waits for the answer to the upgrade */
    H1_RX_RAW,     /* upgraded: bytes pass */
    H1_RX_DONE,    /* message read; what follows waits for the end of the exchange */
    H1_RX_DEAD,    /* protocol error or reset: bytes are dropped */
};
enum h1_tx {
    H1_TX_HEAD,
    H1_TX_LENGTH, /* tx_left more bytes were announced */
    H1_TX_CHUNKED,
    H1_TX_CLOSE,   /* until we close */
    H1_TX_NO_BODY, /* HEAD, 204, 304: data is dropped */
    H1_TX_UPGRADE, /* client: request sent, no bytes before the answer */
    H1_TX_RAW,
    H1_TX_DONE,
};

#define H1_CHUNK_EXT_MAX 4096u  /* bytes of one chunk's extensions */
#define H1_CHUNK_DIGITS_MAX 16u /* of a chunk size, without leading zeros */
#define H1_CHUNK_ZEROS_MAX 64u  /* leading zeros of a chunk size */
#define H1_INTERIM_MAX 100u     /* 1xx responses before the final one */

/* Search for the end of a header block, resumable as bytes arrive. */
struct h1_scan {
    uint32_t pos;   /* bytes looked at */
    uint32_t line;  /* where the current line begins */
    uint32_t lines; /* complete lines */
    bool is_cr;     /* the last byte was CR */
};
enum h1_scan_result { H1_SCAN_MORE, H1_SCAN_END, H1_SCAN_BAD_CHAR, H1_SCAN_BAD_LINE };
/* Look on from scan->pos; END: the block is bytes [0, pos), its last line being empty. Only CRLF
 * ends a line. */
enum h1_scan_result h1_scan(struct h1_scan *scan, const struct buf *in);

/* What a head says about its message beside the header list. */
struct h1_framing {
    uint64_t content_length;
    bool has_length, is_chunked, has_te, has_connection;
    bool is_te_unknown; /* of Transfer-Encoding: another coding than chunked, or several */
    bool is_close, is_keep_alive, is_upgrade_token; /* of Connection */
    bool has_upgrade, has_host;
};
/* A verdict on received bytes: status 0 is fine. */
struct h1_fault {
    uint16_t status;
    const char *details;
};

struct h1 {
    struct codec codec;         /* must be first */
    struct codec_stream stream; /* the exchange, when has_stream */
    struct buf *in;             /* only while dispatching */
    struct arena *arena;        /* server: of the current request */
    const char *error;          /* set: connection error */
    uint64_t body_left;         /* rx: of the body or the chunk */
    uint64_t tx_left;
    struct h1_scan scan;
    uint32_t chunk_digits, chunk_extra;
    uint16_t read_disabled; /* by the stream */
    uint16_t interim;       /* client: 1xx seen */
    uint8_t rx, tx;         /* enum h1_rx, h1_tx */
    uint8_t depth;          /* of dispatch: free waits */
    bool has_stream, is_head, is_connect, is_upgrade;
    bool wants_upgrade; /* server: after the body comes RX_UPGRADE */
    bool close_after;   /* this exchange is the connection's last */
    bool response_started;
    bool is_holding; /* we keep reads off because bytes wait */
    bool is_free_due;
    bool is_10_keep_alive; /* server: tell a 1.0 client that it may go on */
};

static inline struct h1 *h1_of(struct codec *c) { return (struct h1 *)c; }
static inline struct h1 *h1_of_stream(const struct codec_stream *s) {
    return (struct h1 *)s->codec;
}
static inline const struct h1 *h1_const(const struct codec *c) { return (const struct h1 *)c; }

/* --- h1_head.c --- */
/* Copy the block of n bytes at the front of `in` into the arena (it stays mutable,
 * NUL-terminated). */
char *h1_copy_block(struct buf *in, size_t n, struct arena *a);
bool h1_method_ok(const struct h1 *h1, sv method);
/* Request line at *p: adds :method, :path, :authority, :scheme (absolute form) and moves *p behind
 * it. */
struct h1_fault h1_parse_request_line(struct h1 *h1, char **p, const char *end, struct headers *h);
/* Status line; :status is added. */
struct h1_fault h1_parse_status_line(struct h1 *h1, char **p, const char *end, struct headers *h);
/* Header lines from p to the empty line. With f NULL they are trailers: framing and routing fields
 * are left out. */
struct h1_fault h1_parse_fields(struct h1 *h1, char *p, const char *end, struct headers *h,
                                struct h1_framing *f);
/* What Transfer-Encoding says, once all fields are known. */
struct h1_fault h1_check_codings(const struct h1 *h1, const struct h1_framing *f);
/* Drop what Connection nominates as hop-by-hop; false: it nominates what it must not. */
bool h1_sanitise_connection(struct headers *h);

/* --- h1_encode.c --- */
enum h1_coding {
    H1_CODE_NONE,
    H1_CODE_CHUNKED,
    H1_CODE_ZERO
}; /* add nothing, transfer-encoding, content-length: 0 */
void h1_encode_response_head(struct h1 *h1, const struct headers *h, unsigned status,
                             enum h1_coding coding, bool is_10);
void h1_encode_request_head(struct h1 *h1, const struct headers *h, enum h1_coding coding);
void h1_encode_data(struct h1 *h1, struct buf *data, bool end_stream);
void h1_encode_trailers(struct h1 *h1, const struct headers *h);

/* --- h1.c --- */
extern const struct codec_vtable h1_server_vtable, h1_client_vtable;
void h1_init(struct h1 *h1, const struct codec_vtable *vt, struct conn *c,
             const struct codec_options *o, const struct codec_stats *st,
             const struct codec_ops *ops, void *user);
/* A complete head was parsed: h1_server.c, h1_client.c. False: stop for now. */
bool h1_server_head(struct h1 *h1, size_t n);
bool h1_client_head(struct h1 *h1, size_t n);
void h1_server_fault(struct h1 *h1, struct h1_fault f);
void h1_client_fault(struct h1 *h1, struct h1_fault f);
/* Before the first byte of a head. False: not now. */
bool h1_server_begin(struct h1 *h1);
bool h1_client_begin(struct h1 *h1);
/* Choose the body state from the framing. */
void h1_set_body(struct h1 *h1, const struct h1_framing *f);
/* Has the received message come to its end? Sets the state that follows; call before telling the
 * user. */
void h1_rx_end(struct h1 *h1);
void h1_tx_end(struct h1 *h1);
/* If both directions ended, close the exchange. */
void h1_maybe_finish(struct h1 *h1);
void h1_stop(struct h1 *h1, const char *error); /* dead from here; error may be NULL */
/* The exchange failed: stop, tell its user. */
void h1_abort(struct h1 *h1, enum reset_reason why, const char *error);
void h1_hold(struct h1 *h1, bool hold);
/* Around callbacks that may free the codec: it goes with the last h1_leave(), which then says
 * false. */
static inline void h1_enter(struct h1 *h1) { h1->depth++; }
bool h1_leave(struct h1 *h1);
int h1_dispatch(struct codec *c, struct buf *in);
void h1_send_data(struct codec_stream *s, struct buf *data, bool end_stream);
void h1_send_trailers(struct codec_stream *s, const struct headers *h);
void h1_read_disable(struct codec_stream *s, bool disable);
void h1_reset(struct codec_stream *s, enum reset_reason why);
void h1_goaway(struct codec *c, bool final);
void h1_above_high(struct codec *c);
void h1_below_low(struct codec *c);
bool h1_wants_close(const struct codec *c);
bool h1_is_idle_clean(const struct codec *c);
void h1_free(struct codec *c);
const char *h1_error(const struct codec *c);
void h1_dump(const struct codec *c, struct buf *out);

static inline void h1_count(const struct h1 *h1, unsigned stat) {
    if (h1->codec.stats.h1) {
        stats_inc(h1->codec.stats.h1, stat);
    }
}

#endif
