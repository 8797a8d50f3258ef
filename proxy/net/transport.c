/* The raw_buffer transport and the thread's shared read chunk.
 * Threads: a transport belongs to its connection's worker; the factory is immutable. Spec:
 * extensions raw_buffer.v3.
 * Not here: TLS (tls.c), splice(2) (splice.c). */
#include "proxy/net/transport.h"

#include <errno.h>
#include <sys/socket.h>

#include "proxy/base/mem.h"
#include "proxy/net/conn.h"

#define READ_ROOM_MIN 16384u /* a chunk with less left is replaced: reads stay large */
#define WRITE_IOV_MAX 64     /* slices per sendmsg */

static _Thread_local struct chunk *read_chunk;

struct chunk *transport_read_chunk(void) {
    if (read_chunk && read_chunk->refs == 1) {
        read_chunk->used = 0;
    } else if (read_chunk && read_chunk->cap - read_chunk->used < READ_ROOM_MIN) {
        transport_read_chunk_drop();
    }
    if (!read_chunk) {
        read_chunk = chunk_new(CHUNK_READ_BYTES);
    }
    return read_chunk;
}

void transport_read_chunk_done(size_t appended) {
    ASSERT(appended <= read_chunk->cap - read_chunk->used);
    read_chunk->used += (uint32_t)appended;
}

struct chunk *transport_peek_chunk(void) {
    if (read_chunk && read_chunk->refs > 1) {
        transport_read_chunk_drop();
    }
    return transport_read_chunk();
}

void transport_read_chunk_drop(void) {
    if (read_chunk) {
        chunk_unref(read_chunk);
        read_chunk = NULL;
    }
}

void transport_addresses_dup(const struct transport_addresses *a, struct arena *to,
                             struct transport_addresses *out) {
    *out = (struct transport_addresses){.tlvs = arena_sv(to, a->tlvs)};
    if (a->source) {
        struct addr *copy = arena_new_array(to, struct addr, 2);
        copy[0] = addr_dup(a->source, to);
        copy[1] = addr_dup(a->destination, to);
        out->source = &copy[0];
        out->destination = &copy[1];
    }
}

static void raw_on_connected(struct transport *t) { conn_transport_ready(t->conn); }

static struct transport_result raw_read(struct transport *t, struct buf *in, size_t max) {
    struct transport_result r = {0};
    struct chunk *c = transport_read_chunk();
    size_t room = c->cap - c->used;
    max = max < room ? max : room;
    if (max == 0) {
        return r; /* recv of nothing would look like the peer's end */
    }
    ssize_t n;
    do {
        n = recv(t->conn->fd, c->data + c->used, max, 0);
    } while (n < 0 && errno == EINTR);
    if (n > 0) {
        const char *p = c->data + c->used;
        transport_read_chunk_done((size_t)n);
        buf_append_slice(in, c, p, (size_t)n);
        r.bytes = (size_t)n;
        r.again = (size_t)n == max;
        return r;
    }
    if (n == 0) {
        r.end_stream = true;
    } else if (errno != EAGAIN) {
        r.action = TRANSPORT_CLOSE;
        t->conn->detect_reset = errno == ECONNRESET;
    }
    return r;
}

/* One sendmsg: bytes sent, 0 with *again when the kernel is full, or -1. */
static ssize_t send_some(struct transport *t, struct buf *out, bool *again) {
    struct iovec iov[WRITE_IOV_MAX];
    size_t want;
    struct msghdr msg = {.msg_iov = iov};
    msg.msg_iovlen = (size_t)buf_iov(out, iov, WRITE_IOV_MAX, &want);
    ssize_t n;
    do {
        n = sendmsg(t->conn->fd, &msg, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    if (n >= 0) {
        buf_drain(out, (size_t)n);
        *again = (size_t)n < want; /* a short write filled the kernel's buffer */
        return n;
    }
    *again = errno == EAGAIN;
    return *again ? 0 : -1;
}

static struct transport_result raw_write(struct transport *t, struct buf *out, bool end_stream) {
    struct transport_result r = {0};
    while (!buf_empty(out) && !r.again) {
        ssize_t n = send_some(t, out, &r.again);
        if (n < 0) {
            t->conn->detect_reset = errno == ECONNRESET || errno == EPIPE;
            r.action = TRANSPORT_CLOSE;
            return r;
        }
        r.bytes += (size_t)n;
    }
    if (end_stream && buf_empty(out)) {
        (void)shutdown(t->conn->fd, SHUT_WR); /* ENOTCONN: the next read tells */
    }
    return r;
}

static void raw_close(struct transport *t) { (void)t; }
static void raw_destroy(struct transport *t) { xfree(t); }
static sv raw_protocol(const struct transport *t) {
    (void)t;
    return SV_NULL;
}
static const struct ssl_info *raw_ssl(const struct transport *t) {
    (void)t;
    return NULL;
}
static bool raw_can_splice(const struct transport *t) {
    (void)t;
    return true;
}

static const struct transport_ops raw_ops = {
    .name = "raw_buffer",
    .on_connected = raw_on_connected,
    .read = raw_read,
    .write = raw_write,
    .close = raw_close,
    .destroy = raw_destroy,
    .protocol = raw_protocol,
    .failure_reason = raw_protocol, /* never one of its own */
    .ssl = raw_ssl,
    .can_splice = raw_can_splice,
};

struct transport *transport_raw_new(void) {
    struct transport *t = xnew(struct transport);
    t->ops = &raw_ops;
    return t;
}

/* ---- factory ---- */

static struct transport *create(const struct transport_factory *f,
                                const struct transport_options *o) {
    (void)f;
    (void)o;
    return transport_raw_new();
}

static const struct transport_factory_ops factory_ops = {.create = create};

static void never_freed(struct shared *s) { (void)s; }

static struct transport_factory factory = {.shared = {.refs = 1, .free = never_freed},
                                           .ops = &factory_ops};

struct transport_factory *transport_raw_factory(void) {
    return &factory;
}

/* The message has no fields: any non-NULL pointer is its compiled form. */
static void *compile(struct compile_ctx *ctx, const void *msg) {
    (void)ctx;
    (void)msg;
    return &factory;
}

static struct transport_factory *make(const void *config, const struct secret_source *secrets,
                                      struct diag *d) {
    (void)config;
    (void)secrets;
    (void)d;
    return shared_ref(&factory);
}

const struct transport_socket_type raw_buffer_transport_socket = {
    .name = "envoy.transport_sockets.raw_buffer",
    .type_url = "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer",
    .is_downstream = true,
    .is_upstream = true,
    .compile = compile,
    .make = make,
};
