/* A TCP/UNIX connection on a worker: fd, transport socket, write buffer with watermarks,
 * half-close, delayed close. Downstream and upstream alike. Reads go through the worker's shared
 * read chunk: an idle connection holds no buffer.
 * Threads: worker-local. Spec: Envoy's Network::Connection (life_of_a_request, flow control). */
#ifndef SLUICE_NET_CONN_H
#define SLUICE_NET_CONN_H

#include "proxy/api/transport_socket.h"
#include "proxy/event/loop.h"
#include "proxy/event/timer.h"
#include "proxy/net/addr.h"

#define CONN_MAGIC 0xC0117EC7u

enum conn_state { CONN_CONNECTING, CONN_HANDSHAKE, CONN_OPEN, CONN_CLOSING, CONN_CLOSED };
enum conn_event {
    CONN_EVENT_CONNECTED,    /* transport ready (handshake done) */
    CONN_EVENT_REMOTE_CLOSE, /* peer closed or reset; conn is gone after the callback */
    CONN_EVENT_LOCAL_CLOSE,
};
enum conn_close_type {
    CONN_CLOSE_NO_FLUSH,    /* at once, pending writes dropped */
    CONN_CLOSE_FLUSH,       /* after pending writes */
    CONN_CLOSE_FLUSH_DELAY, /* flush, half-close, wait up to delayed_close_timeout for the peer */
    CONN_CLOSE_ABORT_RESET, /* RST */
};

struct conn;
struct sock_source;  /* net/sock.h */
struct filter_state; /* observe/filter_state.h */
/* The user's callbacks. Any of them may close the conn; after a close event the conn must not be
 * touched. */
struct conn_ops {
    /* Received bytes; the callee drains what it takes, the rest is kept and offered again with
     * more. */
    void (*on_data)(struct conn *c, void *user, struct buf *data, bool end_stream);
    void (*on_event)(struct conn *c, void *user, enum conn_event e);
    void (*on_write_above_high)(struct conn *c, void *user);     /* may be NULL */
    void (*on_write_below_low)(struct conn *c, void *user);      /* may be NULL */
    void (*on_bytes_sent)(struct conn *c, void *user, size_t n); /* may be NULL */
};

struct conn_stats { /* where to count; any pointer may be NULL */
    uint64_t *rx_bytes_total, *tx_bytes_total;
    uint64_t *rx_bytes_buffered, *tx_bytes_buffered; /* gauges: what a turn left in in_ and out_ */
    uint64_t *delayed_close_timeouts; /* FLUSH and FLUSH_DELAY closes that the timer ended */
    uint64_t *transport_timeouts;     /* conn_set_transport_timeout fired */
};

struct splice;

/* Looks at what a connection receives before its user does, until it says it has seen enough: how
 * an upstream filter takes a preface of the peer's off the front. Freed with the connection. */
struct conn_gate {
    /* Drain from `data` what is the gate's. True: the user sees the rest and all that follows;
     * false: wait for more. Must not close the connection. */
    bool (*on_data)(struct conn_gate *g, struct conn *c, struct buf *data, bool end_stream);
    void (*free)(struct conn_gate *g);
};

struct conn {
    uint32_t magic;
    uint8_t state; /* enum conn_state */
    uint8_t close_type_;
    bool is_upstream;
    bool read_end_;  /* peer half-closed */
    bool write_end_; /* we were asked to half-close */
    bool write_end_sent_;
    bool above_high_;
    bool half_close_enabled; /* false: a peer's half-close closes the connection */
    bool in_transport_;      /* inside a transport call: events wait until it returns */
    bool ready_pending_;     /* the transport became ready inside such a call */
    bool dispatch_buffered_; /* the task is to offer in_ again */
    bool want_write_;        /* kernel buffer full: waiting for IO_WRITE */
    bool rx_blocked_;        /* the splice from here waits for its other end */
    bool write_broken_; /* the peer takes nothing more; only what it sent before is still read */
    bool detect_reset;  /* last close was a RST */
    bool gate_closed_;  /* the gate still takes what comes */
    bool is_local_restored; /* `local` is the original destination, told by a listener filter */
    uint16_t read_disable_; /* count: reads are off while > 0 */
    int fd;
    int connect_error_; /* negative errno of a failed connect */
    uint64_t id;        /* connection id, unique in the process */
    struct loop *loop;
    struct io io;
    struct transport *transport;
    const struct conn_ops *ops;
    void *user;
    struct buf in_;  /* received, not yet taken by on_data */
    struct buf out_; /* to be sent */
    struct loop_task
        flush_; /* queued while out_ waits for the end of the batch, or in_ to be offered again */
    struct timer delay_;                    /* transport handshake; later delayed close */
    struct conn_gate *gate;                 /* NULL: none; lives on when it is open */
    struct filter_state *filter_state;      /* of an upstream connection, the gate's; NULL: none */
    struct splice *rx_splice_, *tx_splice_; /* net/splice.c: relays from and to this connection */
    uint32_t buffer_limit_bytes; /* high watermark for writes and read chunk limit; 0: none */
    uint32_t
        /* bounds FLUSH and FLUSH_DELAY closes; 0: no bound, no waiting for the peer */
        delayed_close_ms;
    struct addr remote, local; /* after listener filters: as restored/overridden */
    struct addr direct_remote; /* of the socket itself */
    const struct sock_source
        *source; /* where upstream connections made for this one come from; NULL: as configured */
    struct conn_stats stats;
    size_t rx_told_, tx_told_; /* this connection's share of the gauges */
    uint64_t opened_us;
    uint64_t rx_bytes, tx_bytes; /* wire bytes */
    const char *
        /* static text: local close detail (%CONNECTION_TERMINATION_DETAILS%, access logs) */
        close_reason;
    struct loop_garbage garbage_;
};

/* Take over an accepted/connected fd (TCP_NODELAY set as wanted). `transport` is owned from here.
 * Reads start with conn_start(). remote, local and direct_remote are the caller's to fill in:
 * accept already told them. */
struct conn *conn_new_accepted(struct loop *l, int fd, struct transport *t,
                               const struct conn_ops *ops, void *user);
/* Begin a connect; CONNECTED or a close event comes later, never from inside this call. On failure
 * to even begin, returns NULL with *err set (transport is destroyed). The caller arms its own
 * connect timeout. */
struct sock_opts;
struct conn *conn_connect(struct loop *l, const struct addr *to, const struct addr *source,
                          const struct sock_opts *so, struct transport *t,
                          const struct conn_ops *ops, void *user, int *err);
/* The same over a descriptor that is connected, which is taken: to an internal listener. */
struct conn *conn_connect_internal(struct loop *l, int fd, const struct addr *to,
                                   struct transport *t, const struct conn_ops *ops, void *user);
void conn_start(struct conn *c);
/* Close with reason "transport socket timeout was reached" unless the handshake is done in time.
 * After conn_start(). */
void conn_set_transport_timeout(struct conn *c, uint32_t ms);
/* Bytes already read from the fd by listener filters: delivered before anything else. */
void conn_unread(struct conn *c, struct buf *data);

/* Queue data (moved from `data`) for sending at the end of this event batch; end_stream half-closes
 * after it. */
void conn_write(struct conn *c, struct buf *data, bool end_stream);
/* The out buffer itself, to append to directly; then conn_flush_later(). Watermarks are checked
 * there. */
static inline struct buf *conn_out(struct conn *c) { return &c->out_; }
/* Bytes on_data has not taken yet. */
static inline bool conn_has_unread(const struct conn *c) { return !buf_empty(&c->in_); }
void conn_flush_later(struct conn *c);
void conn_flush_now(struct conn *c);
/* Close. LOCAL_CLOSE is raised synchronously for NO_FLUSH (after one try to send what is pending),
 * ABORT_RESET, and when nothing is to be flushed; else when flushed. FLUSH_DELAY: raised once the
 * peer closed (then it is REMOTE_CLOSE) or delayed_close_ms passed. From the call on no data is
 * delivered. Idempotent, a harder kind overrides. Freed later. */
void conn_close(struct conn *c, enum conn_close_type how, const char *reason);
/* The descriptor of an open raw connection on which nothing was read or written, for the caller to
 * own. The connection ends as with NO_FLUSH. */
int conn_take_fd(struct conn *c);
/* Nestable: reads are off while the count is above zero. Re-enabling delivers buffered bytes in the
 * next loop turn. */
void conn_read_disable(struct conn *c, bool disable);
/* Offer buffered bytes to on_data again, at the end of this batch. */
void conn_resume(struct conn *c);
void conn_set_buffer_limit(struct conn *c, uint32_t bytes);
/* From now on `g` sees received bytes first. Takes it over. */
void conn_set_gate(struct conn *c, struct conn_gate *g);
/* Replace the callbacks (codec detection, CONNECT/upgrade takeover). */
void conn_set_ops(struct conn *c, const struct conn_ops *ops, void *user);
/* Cheap check for pooled idle connections: has the peer closed or sent unexpected bytes (MSG_PEEK)?
 * One system call. */
bool conn_is_stale(struct conn *c);
static inline bool conn_above_high(const struct conn *c) { return c->above_high_; }
static inline size_t conn_buffered_out(const struct conn *c) { return buf_len(&c->out_); }
sv conn_alpn(const struct conn *c);
const struct ssl_info *conn_ssl(const struct conn *c);
sv conn_transport_failure(const struct conn *c);
/* Called by transports. During the handshake the conn calls read() when the fd is readable, write()
 * when it is writable; write() with again = true asks for the latter. ready and failed may come
 * from inside transport calls or from callbacks of the transport's own (asynchronous verification);
 * after _failed the conn is closed (REMOTE_CLOSE). */
void conn_transport_ready(struct conn *c);
void conn_transport_failed(struct conn *c);
/* Handshake bytes could not be sent from on_connected() or from read(): call write() when the fd is
 * writable. */
void conn_transport_want_write(struct conn *c);
/* Called by net/splice.c: bring what is watched in line with the flags; the peer's end, reset or
 * unwillingness was met. */
void conn_sync_io(struct conn *c);
void conn_saw_end(struct conn *c);
void conn_saw_reset(struct conn *c);
void conn_saw_write_error(struct conn *c);
void conn_sent(struct conn *c, size_t n);
void conn_received(struct conn *c, size_t n);
void conn_dump(const struct conn *c, struct buf *out);

#endif
