/* A connection: readiness → transport → in_ → on_data, and conn_write → out_ → transport at the end
 * of the batch.
 * Threads: worker-local. Spec: Envoy's Network::Connection.
 * Every callback may close the connection; its memory lives until the turn's callbacks are over, so
 * each step looks at `state` after calling out. Not here: filters (filter_chain.c), TLS (tls.c),
 * splice(2) (splice.c). */
#include "proxy/net/conn.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/net/sock.h"
#include "proxy/net/splice.h"
#include "proxy/net/transport.h"

#define READ_MAX 65536u   /* bytes per transport read */
#define READ_ROUNDS_MAX 4 /* reads per event of transports that hold bytes the fd no longer shows */
#define IN_LIMIT_DEFAULT (1u << 20) /* in_ bytes nobody takes, with no buffer limit configured */
#define IN_LIMIT_MIN READ_MAX /* room for a protocol to make progress under a tiny buffer limit */
#define DISCARD_ROUNDS_MAX 4  /* reads per event while a delayed close throws input away */

static uint64_t last_id; /* shared, atomic */

static void on_ready(struct io *io, int events, int status);
static void on_task(struct loop_task *t);
static void on_delay(struct timer *t);
static void offer(struct conn *c);

static bool is_raw(const struct conn *c) {
    return c->transport->ops->can_splice && c->transport->ops->can_splice(c->transport);
}

static size_t in_limit(const struct conn *c) {
    uint32_t limit = c->buffer_limit_bytes ? c->buffer_limit_bytes : IN_LIMIT_DEFAULT;
    return limit > IN_LIMIT_MIN ? limit : IN_LIMIT_MIN;
}

static bool wants_read(const struct conn *c) {
    return !c->read_end_ && c->read_disable_ == 0 && !c->rx_blocked_ &&
           buf_len(&c->in_) < in_limit(c);
}

void conn_sync_io(struct conn *c) {
    int want = 0;
    switch ((enum conn_state)c->state) {
    case CONN_CONNECTING:
        want = IO_WRITE;
        break;
    case CONN_HANDSHAKE:
        want = IO_READ | (c->want_write_ ? IO_WRITE : 0);
        break;
    case CONN_OPEN:
        want = (wants_read(c) ? IO_READ : 0) | (c->want_write_ ? IO_WRITE : 0);
        break;
    case CONN_CLOSING: /* flushing, then waiting for the peer to close */
        want = c->want_write_ ? IO_WRITE : c->write_end_sent_ ? IO_READ : 0;
        break;
    case CONN_CLOSED:
        return;
    }
    io_want(&c->io, want);
}

/* ---- gauges ---- */

static void tell_gauge(uint64_t *gauge, size_t *told, size_t now) {
    if (UNLIKELY(*told != now) && gauge) {
        __atomic_store_n(gauge, *gauge + now - *told, __ATOMIC_RELAXED);
        *told = now;
    }
}

static void tell_rx_buffered(struct conn *c) {
    bool is_closed = c->state == CONN_CLOSED;
    tell_gauge(c->stats.rx_bytes_buffered, &c->rx_told_, is_closed ? 0 : buf_len(&c->in_));
}

static void tell_tx_buffered(struct conn *c) {
    bool is_closed = c->state == CONN_CLOSED;
    tell_gauge(c->stats.tx_bytes_buffered, &c->tx_told_, is_closed ? 0 : buf_len(&c->out_));
}

/* ---- closing ---- */

static void free_conn(struct conn *c) {
    c->transport->ops->destroy(c->transport);
    if (c->gate) {
        c->gate->free(c->gate);
    }
    buf_fini(&c->in_);
    buf_fini(&c->out_);
    c->magic = 0;
    xfree(c);
}

static void on_closed(struct io *io) { free_conn(CONTAINER_OF(io, struct conn, io)); }
static void on_garbage(struct loop_garbage *g) {
    free_conn(CONTAINER_OF(g, struct conn, garbage_));
}

/* The end: fd closed, event raised, memory freed after this turn. */
static void finish(struct conn *c, enum conn_event e) {
    if (c->state == CONN_CLOSED) {
        return;
    }
    log_debug(LOG_connection, "[C%llu] closed: %s%s", (unsigned long long)c->id,
              e == CONN_EVENT_LOCAL_CLOSE ? "local" : "remote", c->detect_reset ? ", reset" : "");
    if (e == CONN_EVENT_LOCAL_CLOSE && c->close_type_ != CONN_CLOSE_ABORT_RESET &&
        c->state >= CONN_OPEN) {
        c->transport->ops->close(c->transport);
    }
    splice_conn_closing(c);
    c->state = CONN_CLOSED;
    tell_rx_buffered(c);
    tell_tx_buffered(c);
    loop_cancel_task(&c->flush_);
    timer_cancel(&c->delay_);
    if (c->io.is_open_) {
        io_close(&c->io, c->fd, on_closed);
    } else {
        close(c->fd);
        c->garbage_.free = on_garbage;
        loop_defer_free(c->loop, &c->garbage_);
    }
    c->fd = -1;
    const struct conn_ops *ops = c->ops;
    void *user = c->user;
    c->ops = NULL;
    c->user = NULL;
    if (ops && ops->on_event) {
        ops->on_event(c, user, e);
    }
}

static void arm_delay(struct conn *c) {
    if (c->delayed_close_ms) {
        timer_start(&c->delay_, c->delayed_close_ms);
    }
}

static void on_delay(struct timer *t) {
    struct conn *c = CONTAINER_OF(t, struct conn, delay_);
    uint64_t *counter = c->stats.delayed_close_timeouts;
    if (c->state == CONN_HANDSHAKE) {
        c->close_reason = "transport socket timeout was reached";
        counter = c->stats.transport_timeouts;
    }
    if (counter) {
        __atomic_store_n(counter, *counter + 1, __ATOMIC_RELAXED);
    }
    finish(c, CONN_EVENT_LOCAL_CLOSE);
}

/* A closing connection has nothing left to send. */
static void on_flushed(struct conn *c) {
    if (c->close_type_ != CONN_CLOSE_FLUSH_DELAY || !c->delayed_close_ms || c->read_end_) {
        finish(c, CONN_EVENT_LOCAL_CLOSE);
        return;
    }
    if (!c->write_end_sent_) {
        c->transport->ops->write(c->transport, &c->out_, true);
        c->write_end_ = c->write_end_sent_ = true;
    }
    buf_clear(&c->in_);
    arm_delay(c);
    conn_sync_io(c);
}

static void discard_input(struct conn *c) {
    for (int i = 0; i < DISCARD_ROUNDS_MAX; i++) {
        struct chunk *scratch = transport_read_chunk();
        ssize_t n = recv(c->fd, scratch->data + scratch->used, scratch->cap - scratch->used, 0);
        if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) {
            finish(c, CONN_EVENT_REMOTE_CLOSE);
            return;
        }
        if (n < 0) {
            return;
        }
    }
}

static void begin_flush(struct conn *c) {
    c->state = CONN_CLOSING;
    if (buf_empty(&c->out_) && (!c->write_end_ || c->write_end_sent_)) {
        on_flushed(c);
        return;
    }
    arm_delay(c);
    conn_sync_io(c);
    loop_queue_task(c->loop, &c->flush_);
}

void conn_close(struct conn *c, enum conn_close_type how, const char *reason) {
    bool is_hard = how == CONN_CLOSE_NO_FLUSH || how == CONN_CLOSE_ABORT_RESET;
    if (c->state == CONN_CLOSED || (c->state == CONN_CLOSING && !is_hard)) {
        return;
    }
    c->close_reason = c->close_reason ? c->close_reason : reason;
    c->close_type_ = (uint8_t)how;
    splice_conn_flush(c);
    bool can_send = c->state >= CONN_OPEN && !c->write_broken_;
    if (can_send && !is_hard) {
        begin_flush(c);
        return;
    }
    if (how == CONN_CLOSE_ABORT_RESET) {
        sock_reset_on_close(c->fd);
    } else if (can_send && !buf_empty(&c->out_)) {
        c->transport->ops->write(c->transport, &c->out_, false);
    }
    finish(c, CONN_EVENT_LOCAL_CLOSE);
}

int conn_take_fd(struct conn *c) {
    ASSERT(c->state == CONN_OPEN);
    ASSERT(c->rx_bytes == 0 && buf_empty(&c->in_));
    ASSERT(c->tx_bytes == 0 && buf_empty(&c->out_));
    int fd = c->fd;
    c->fd = -1; /* so that closing only forgets it */
    finish(c, CONN_EVENT_LOCAL_CLOSE);
    return fd;
}

/* ---- writing ---- */

static void count(uint64_t *total, size_t n) {
    if (total) {
        __atomic_store_n(total, *total + n, __ATOMIC_RELAXED);
    }
}

void conn_received(struct conn *c, size_t n) {
    c->rx_bytes += n;
    count(c->stats.rx_bytes_total, n);
}

void conn_sent(struct conn *c, size_t n) {
    c->tx_bytes += n;
    count(c->stats.tx_bytes_total, n);
    if (n && c->state == CONN_CLOSING) {
        arm_delay(c);
    }
    if (n && c->ops && c->ops->on_bytes_sent) {
        c->ops->on_bytes_sent(c, c->user, n);
    }
}

static void check_low(struct conn *c) {
    if (c->above_high_ && buf_len(&c->out_) <= c->buffer_limit_bytes / 2) {
        c->above_high_ = false;
        if (c->ops && c->ops->on_write_below_low) {
            c->ops->on_write_below_low(c, c->user);
        }
    }
}

static void check_high(struct conn *c) {
    if (!c->above_high_ && c->buffer_limit_bytes && buf_len(&c->out_) > c->buffer_limit_bytes) {
        c->above_high_ = true;
        if (c->ops && c->ops->on_write_above_high) {
            c->ops->on_write_above_high(c, c->user);
        }
    }
}

/* The peer takes nothing more. What it sent before (an early answer, say) is still delivered;
 * reading then finds its end and closes. Without a reader the connection closes now. */
void conn_saw_write_error(struct conn *c) {
    if (c->state != CONN_OPEN || !wants_read(c)) {
        finish(c, CONN_EVENT_REMOTE_CLOSE);
        return;
    }
    c->write_broken_ = true;
    c->want_write_ = false;
    buf_clear(&c->out_);
    tell_tx_buffered(c);
    conn_sync_io(c);
}

static bool is_both_ended(const struct conn *c) { return c->read_end_ && c->write_end_sent_; }

static void raise_ready(struct conn *c) {
    if (!c->ready_pending_ || c->state != CONN_HANDSHAKE) {
        return;
    }
    c->ready_pending_ = false;
    c->state = CONN_OPEN;
    timer_cancel(&c->delay_);
    c->want_write_ = false;
    if (!buf_empty(&c->in_)) {
        conn_resume(c);
    }
    if (!buf_empty(&c->out_) || c->write_end_) {
        loop_queue_task(c->loop, &c->flush_);
    }
    c->ops->on_event(c, c->user, CONN_EVENT_CONNECTED);
    if (c->state != CONN_CLOSED) {
        conn_sync_io(c);
    }
}

static void flush(struct conn *c) {
    bool end = c->write_end_ && !c->write_end_sent_ && c->state != CONN_HANDSHAKE;
    c->in_transport_ = true;
    struct transport_result r = c->transport->ops->write(c->transport, &c->out_, end);
    c->in_transport_ = false;
    raise_ready(c);
    if (r.bytes && c->state != CONN_CLOSED) {
        conn_sent(c, r.bytes);
    }
    if (c->state == CONN_CLOSED) {
        return;
    }
    tell_tx_buffered(c);
    if (r.action == TRANSPORT_CLOSE) {
        conn_saw_write_error(c);
        return;
    }
    c->want_write_ = r.again;
    if (r.again) {
        buf_compact(&c->out_); /* it may stay for long: let go of the read chunk */
    } else if (end && buf_empty(&c->out_)) {
        c->write_end_sent_ = true;
    }
    check_low(c);
    if (c->state == CONN_CLOSED) {
        return;
    }
    if (is_both_ended(c)) {
        finish(c, CONN_EVENT_REMOTE_CLOSE);
    } else if (c->state == CONN_CLOSING && buf_empty(&c->out_) && !c->want_write_) {
        on_flushed(c);
    } else {
        conn_sync_io(c);
    }
}

static bool has_output(const struct conn *c) {
    return (c->state == CONN_OPEN || c->state == CONN_CLOSING) && !c->write_broken_ &&
           (!buf_empty(&c->out_) || (c->write_end_ && !c->write_end_sent_));
}

void conn_flush_now(struct conn *c) {
    if (has_output(c) && !c->want_write_) {
        flush(c);
    }
}

void conn_flush_later(struct conn *c) {
    if (c->state == CONN_CLOSED) {
        return;
    }
    if (c->write_broken_) {
        buf_clear(&c->out_);
        return;
    }
    check_high(c);
    if (c->want_write_) {
        tell_tx_buffered(c);
    } else if (c->state == CONN_OPEN) {
        loop_queue_task(c->loop, &c->flush_);
    }
}

void conn_write(struct conn *c, struct buf *data, bool end_stream) {
    if (c->state >= CONN_CLOSING || c->write_end_ || c->write_broken_) {
        buf_clear(data);
        return;
    }
    splice_conn_flush(c);
    buf_move(&c->out_, data);
    c->write_end_ = end_stream;
    conn_flush_later(c);
}

static void on_task(struct loop_task *t) {
    struct conn *c = CAST(conn, CONN_MAGIC, CONTAINER_OF(t, struct conn, flush_));
    if (c->dispatch_buffered_) {
        c->dispatch_buffered_ = false;
        offer(c);
    }
    conn_flush_now(c);
}

/* ---- reading ---- */

/* The gate's turn. False: there is nothing for the user yet. */
static bool pass_gate(struct conn *c) {
    c->gate_closed_ = !c->gate->on_data(c->gate, c, &c->in_, c->read_end_);
    return !c->gate_closed_ && (!buf_empty(&c->in_) || c->read_end_);
}

void conn_set_gate(struct conn *c, struct conn_gate *g) {
    ASSERT(!c->gate);
    c->gate = g;
    c->gate_closed_ = true;
}

/* Hand in_ to the user. */
static void dispatch(struct conn *c) {
    if (UNLIKELY(c->gate_closed_) && !pass_gate(c)) {
        return;
    }
    c->ops->on_data(c, c->user, &c->in_, c->read_end_);
    if (c->state == CONN_OPEN && !buf_empty(&c->in_)) {
        buf_compact(&c->in_);
    }
    tell_rx_buffered(c);
}

void conn_saw_end(struct conn *c) {
    if (!c->half_close_enabled || c->write_broken_) {
        finish(c, CONN_EVENT_REMOTE_CLOSE);
        return;
    }
    c->read_end_ = true;
    dispatch(c);
    if (c->state == CONN_CLOSED) {
        return;
    }
    if (is_both_ended(c)) {
        finish(c, CONN_EVENT_REMOTE_CLOSE);
        return;
    }
    conn_sync_io(c);
}

void conn_saw_reset(struct conn *c) {
    c->detect_reset = true;
    finish(c, CONN_EVENT_REMOTE_CLOSE);
}

static size_t read_room(const struct conn *c) {
    size_t limit = in_limit(c), have = buf_len(&c->in_);
    size_t room = have < limit ? limit - have : 0;
    size_t max = c->buffer_limit_bytes && c->buffer_limit_bytes < READ_MAX ? c->buffer_limit_bytes
                                                                           : READ_MAX;
    return room < max ? room : max;
}

/* One transport read and what follows from it. Returns whether there may be more. */
static bool read_once(struct conn *c) {
    c->in_transport_ = true;
    struct transport_result r = c->transport->ops->read(c->transport, &c->in_, read_room(c));
    c->in_transport_ = false;
    raise_ready(c);
    if (c->state == CONN_CLOSED) {
        return false;
    }
    conn_received(c, r.bytes);
    bool is_last = r.end_stream || r.action == TRANSPORT_CLOSE;
    if (r.bytes && c->state == CONN_OPEN && !(r.end_stream && c->half_close_enabled)) {
        dispatch(c);
    }
    if (!is_last || c->state != CONN_OPEN) {
        if (is_last && c->state == CONN_HANDSHAKE) {
            finish(c, CONN_EVENT_REMOTE_CLOSE);
        }
        return r.again && c->state == CONN_OPEN && wants_read(c);
    }
    if (r.action == TRANSPORT_CLOSE) {
        finish(c, CONN_EVENT_REMOTE_CLOSE);
    } else {
        conn_saw_end(c);
    }
    return false;
}

static void read_some(struct conn *c) {
    bool raw = is_raw(c), more = true;
    for (int i = 0; more && i < (raw ? 1 : READ_ROUNDS_MAX); i++) {
        uint64_t before = c->rx_bytes;
        more = read_once(c);
        if (c->rx_splice_) {
            splice_saw_read(c->rx_splice_, (size_t)(c->rx_bytes - before));
        }
    }
    if (c->state == CONN_CLOSED) {
        return;
    }
    /* The fd shows nothing of what such a transport holds. */
    if (more && !raw) {
        conn_resume(c);
    }
    conn_sync_io(c);
}

/* Offer what in_ holds, then what the transport may hold. */
static void offer(struct conn *c) {
    if (c->state != CONN_OPEN || c->read_disable_) {
        return;
    }
    if (!buf_empty(&c->in_)) {
        dispatch(c);
    }
    if (c->state == CONN_OPEN && !is_raw(c) && wants_read(c)) {
        read_some(c);
    } else if (c->state != CONN_CLOSED) {
        conn_sync_io(c);
    }
}

void conn_resume(struct conn *c) {
    if (c->state < CONN_CLOSING) {
        c->dispatch_buffered_ = true;
        loop_queue_task(c->loop, &c->flush_);
    }
}

void conn_unread(struct conn *c, struct buf *data) {
    if (c->state == CONN_CLOSED || buf_empty(data)) {
        buf_clear(data);
        return;
    }
    conn_received(c, buf_len(data));
    buf_prepend_buf(&c->in_, data);
    conn_resume(c);
}

void conn_read_disable(struct conn *c, bool disable) {
    if (disable) {
        CHECK(c->read_disable_ < UINT16_MAX);
        c->read_disable_++;
    } else if (!BUG(c->read_disable_ == 0)) {
        c->read_disable_--;
    }
    if (c->state != CONN_OPEN) {
        return;
    }
    if (c->read_disable_ == 0 && (!buf_empty(&c->in_) || !is_raw(c))) {
        conn_resume(c);
    }
    conn_sync_io(c);
}

/* ---- readiness ---- */

static void on_tcp_connected(struct conn *c) {
    c->state = CONN_HANDSHAKE;
    c->in_transport_ = true;
    c->transport->ops->on_connected(c->transport);
    c->in_transport_ = false;
    raise_ready(c);
    if (c->state != CONN_CLOSED) {
        conn_sync_io(c);
    }
}

/* The listener closed what it was handed: that counts as no connection, as in Envoy. */
static int internal_error(int fd) {
    char byte;
    return recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 0 ? -EINVAL : 0;
}

static void on_connect_ready(struct conn *c) {
    bool is_internal = c->remote.family == ADDR_INTERNAL;
    c->connect_error_ = is_internal ? internal_error(c->fd) : sock_error(c->fd);
    if (c->connect_error_) {
        finish(c, CONN_EVENT_REMOTE_CLOSE);
        return;
    }
    if (!is_internal) {
        (void)sock_local(c->fd, &c->local); /* for logs only */
    }
    on_tcp_connected(c);
}

static void on_readable(struct conn *c) {
    if (c->state == CONN_CLOSING) {
        discard_input(c);
        return;
    }
    if (c->state == CONN_OPEN && !wants_read(c)) {
        conn_sync_io(c);
        return;
    }
    if (c->rx_splice_ && c->state == CONN_OPEN && splice_read(c->rx_splice_)) {
        return;
    }
    read_some(c);
}

static void on_writable(struct conn *c) {
    c->want_write_ = false;
    /* TLS may have words of its own left */
    if (c->state == CONN_HANDSHAKE || has_output(c) || !is_raw(c)) {
        flush(c);
    }
    if (c->tx_splice_ && c->state == CONN_OPEN && !c->want_write_) {
        splice_write(c->tx_splice_);
    }
    if (c->state != CONN_CLOSED) {
        conn_sync_io(c);
    }
}

static void on_ready(struct io *io, int events, int status) {
    struct conn *c = CAST(conn, CONN_MAGIC, CONTAINER_OF(io, struct conn, io));
    if (status < 0) {
        log_warn_limited(LOG_connection, "[C%llu] cannot be watched: %s", (unsigned long long)c->id,
                         sock_strerror(status));
        finish(c, CONN_EVENT_LOCAL_CLOSE);
        return;
    }
    if (c->state == CONN_CONNECTING) {
        on_connect_ready(c);
        return;
    }
    if ((events & IO_WRITE) && c->want_write_) {
        on_writable(c);
    }
    if ((events & IO_READ) && c->state != CONN_CLOSED) {
        on_readable(c);
    }
}

/* ---- life ---- */

static struct conn *new_conn(struct loop *l, int fd, struct transport *t,
                             const struct conn_ops *ops, void *user) {
    struct conn *c = xnew(struct conn);
    c->magic = CONN_MAGIC;
    c->fd = fd;
    c->id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
    c->loop = l;
    c->transport = t;
    c->ops = ops;
    c->user = user;
    c->flush_.run = on_task;
    c->opened_us = loop_now_us(l);
    timer_init(&c->delay_, l, on_delay);
    t->conn = c;
    return c;
}

struct conn *conn_new_accepted(struct loop *l, int fd, struct transport *t,
                               const struct conn_ops *ops, void *user) {
    struct conn *c = new_conn(l, fd, t, ops, user);
    c->state = CONN_HANDSHAKE;
    return c;
}

/* Watching begins; a refusal of the kernel comes as a close event. */
static void open_io(struct conn *c) {
    CHECK(io_open(&c->io, c->loop, c->fd, on_ready) == 0);
    io_set_exclusive(&c->io);
}

static struct conn *new_connecting(struct loop *l, int fd, const struct addr *to,
                                   struct transport *t, const struct conn_ops *ops, void *user) {
    struct conn *c = new_conn(l, fd, t, ops, user);
    c->is_upstream = true;
    c->state = CONN_CONNECTING;
    c->remote = c->direct_remote = *to;
    open_io(c);
    conn_sync_io(c);
    return c;
}

struct conn *conn_connect_internal(struct loop *l, int fd, const struct addr *to,
                                   struct transport *t, const struct conn_ops *ops, void *user) {
    struct conn *c = new_connecting(l, fd, to, t, ops, user);
    c->local = addr_internal_client;
    return c;
}

struct conn *conn_connect(struct loop *l, const struct addr *to, const struct addr *source,
                          const struct sock_opts *so, struct transport *t,
                          const struct conn_ops *ops, void *user, int *err) {
    bool in_progress;
    int fd = sock_connect(to, source, so, &in_progress);
    if (fd < 0) {
        *err = fd;
        t->ops->destroy(t);
        return NULL;
    }
    *err = 0;
    return new_connecting(l, fd, to, t, ops, user);
}

void conn_start(struct conn *c) {
    if (c->state != CONN_HANDSHAKE || BUG(c->io.is_open_)) {
        return;
    }
    open_io(c);
    on_tcp_connected(c);
}

void conn_set_transport_timeout(struct conn *c, uint32_t ms) {
    if (ms && c->state == CONN_HANDSHAKE) {
        timer_start(&c->delay_, ms);
    }
}

void conn_set_buffer_limit(struct conn *c, uint32_t bytes) {
    c->buffer_limit_bytes = bytes;
    if (c->state == CONN_CLOSED) {
        return;
    }
    if (c->above_high_ && !bytes) {
        c->above_high_ = false;
        if (c->ops && c->ops->on_write_below_low) {
            c->ops->on_write_below_low(c, c->user);
        }
        return;
    }
    check_high(c);
    check_low(c);
}

void conn_set_ops(struct conn *c, const struct conn_ops *ops, void *user) {
    if (c->state != CONN_CLOSED) {
        c->ops = ops;
        c->user = user;
    }
}

/* ---- transports ---- */

void conn_transport_ready(struct conn *c) {
    if (c->state != CONN_HANDSHAKE) {
        return;
    }
    c->ready_pending_ = true;
    if (!c->in_transport_) {
        raise_ready(c);
        if (c->state == CONN_OPEN && !is_raw(c)) {
            conn_resume(c); /* application bytes may have come with the last handshake bytes */
        }
    }
}

void conn_transport_failed(struct conn *c) { finish(c, CONN_EVENT_REMOTE_CLOSE); }

void conn_transport_want_write(struct conn *c) {
    c->want_write_ = true;
    if (!c->in_transport_) {
        conn_sync_io(c);
    }
}

sv conn_alpn(const struct conn *c) { return c->transport->ops->protocol(c->transport); }

const struct ssl_info *conn_ssl(const struct conn *c) {
    return c->transport->ops->ssl(c->transport);
}

sv conn_transport_failure(const struct conn *c) {
    static _Thread_local char text[96];
    if (c->connect_error_) {
        char buf[64];
        int n = snprintf(text, sizeof(text), "delayed connect error: %s",
                         strerror_r(-c->connect_error_, buf, sizeof(buf)));
        return sv_from(text, (size_t)n);
    }
    return c->transport->ops->failure_reason(c->transport);
}

/* ---- questions ---- */

bool conn_is_stale(struct conn *c) {
    char byte;
    if (c->state != CONN_OPEN || c->read_end_ || !buf_empty(&c->in_)) {
        return true;
    }
    ssize_t n = recv(c->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (n > 0) {
        return is_raw(c); /* under TLS it may be a session ticket */
    }
    return n == 0 || (errno != EAGAIN && errno != EINTR);
}

void conn_dump(const struct conn *c, struct buf *out) {
    static const char *const states[] = {"connecting", "handshake", "open", "closing", "closed"};
    char remote[ADDR_STR_MAX], local[ADDR_STR_MAX];
    addr_str(&c->remote, remote);
    addr_str(&c->local, local);
    buf_printf(out, "conn C%llu %s %s fd %d remote %s local %s in %zu out %zu rx %llu tx %llu",
               (unsigned long long)c->id, c->is_upstream ? "upstream" : "downstream",
               states[c->state], c->fd, remote, local, buf_len(&c->in_), buf_len(&c->out_),
               (unsigned long long)c->rx_bytes, (unsigned long long)c->tx_bytes);
    buf_printf(out, " read_disable %u flags%s%s%s%s%s%s\n", c->read_disable_,
               c->read_end_ ? " read_end" : "", c->write_end_ ? " write_end" : "",
               c->above_high_ ? " above_high" : "", c->want_write_ ? " want_write" : "",
               c->rx_blocked_ ? " rx_blocked" : "", c->write_broken_ ? " write_broken" : "");
}
