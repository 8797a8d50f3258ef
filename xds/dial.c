/* Connections of xDS streams: see dial.h. A plaintext one is gRPC's own once it is made. Else two
 * conns relay to each other: the network's, through our transport sockets, and one end of a
 * socketpair whose other end is gRPC's. Each way is bounded by the writer's watermark.
 * Threads: the config thread. Spec: cluster.v3.Cluster connect_timeout, transport_socket. */
#include "xds/dial.h"

#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/event/timer.h"
#include "proxy/http/path.h"
#include "proxy/net/conn.h"
#include "proxy/net/sock.h"
#include "proxy/net/transport.h"

#define DIAL_BUFFER_BYTES (1024u * 1024) /* high watermark of each direction */
#define DIAL_TIMEOUT_MS 5000u            /* when the cluster has none */

struct xds_dialer {
    struct loop *loop;
    struct xds_dial_ops ops;
    struct list dials;
};

enum dial_state { DIAL_STARTING, DIAL_CONNECTING, DIAL_OPEN, DIAL_OVER };
struct xds_dial {
    struct list node;
    struct xds_dialer *dialer;
    enum dial_state state;
    void (*on_done)(void *user, int fd, const char *error);
    void *user;
    struct conn *net, *local; /* NULL: closed */
    struct timer timer;       /* of the connect; 0: a failure before it is told from the loop */
    struct xds_dial_target target;
    char *path; /* of a UNIX address */
    char addr[ADDR_STR_MAX];
    char error[DIAL_ERROR_MAX];
    struct loop_garbage garbage;
};

/* ---- end ---- */

static void dial_free(struct loop_garbage *g) {
    struct xds_dial *c = CONTAINER_OF(g, struct xds_dial, garbage);
    xfree(c->path);
    xfree(c);
}

/* Nothing is left to relay: both conns go, and the memory once callbacks have unwound. */
static void end(struct xds_dial *c) {
    if (c->state == DIAL_OVER) {
        return;
    }
    c->state = DIAL_OVER;
    timer_cancel(&c->timer);
    list_unlink(&c->node);
    if (c->net) {
        conn_close(c->net, CONN_CLOSE_NO_FLUSH, "xds_stream_closed");
    }
    if (c->local) {
        conn_close(c->local, CONN_CLOSE_NO_FLUSH, "xds_stream_closed");
    }
    loop_defer_free(c->dialer->loop, &c->garbage);
}

void xds_dial_close(struct xds_dial *c) { end(c); }
const struct xds_dial_target *xds_dial_target(const struct xds_dial *c) { return &c->target; }

static void fail(struct xds_dial *c, const char *error) {
    void (*on_done)(void *user, int fd, const char *error) = c->on_done;
    void *user = c->user;
    end(c); /* its memory, and the text in it, live until the callbacks have unwound */
    on_done(user, UV_ECONNREFUSED, error);
}

/* ---- relaying ---- */

static struct conn *other(const struct xds_dial *c, const struct conn *side) {
    return side == c->net ? c->local : c->net;
}

static void on_data(struct conn *from, void *user, struct buf *data, bool end_stream) {
    struct xds_dial *c = user;
    struct conn *to = other(c, from);
    if (!to) {
        return; /* connecting: kept until there is somebody to give it to */
    }
    conn_write(to, data, end_stream);
}

static void on_above(struct conn *side, void *user) {
    struct conn *from = other(user, side);
    if (from) {
        conn_read_disable(from, true);
    }
}

static void on_below(struct conn *side, void *user) {
    struct conn *from = other(user, side);
    if (from) {
        conn_read_disable(from, false);
    }
}

static void on_event(struct conn *side, void *user, enum conn_event e);

static const struct conn_ops relay_ops = {
    .on_data = on_data,
    .on_event = on_event,
    .on_write_above_high = on_above,
    .on_write_below_low = on_below,
};

/* Nothing is to be done to its bytes: gRPC reads and writes the connection itself. */
static void hand_over(struct xds_dial *c) {
    c->state = DIAL_OPEN;
    int fd = conn_take_fd(c->net);
    c->on_done(c->user, fd, NULL);
}

/* Give gRPC its end of a socketpair. */
static void open_relay(struct xds_dial *c) {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0) {
        snprintf(c->error, sizeof(c->error), "socketpair: %s", sock_strerror(-errno));
        fail(c, c->error);
        return;
    }
    c->local = conn_new_accepted(c->dialer->loop, fds[0], transport_raw_new(), &relay_ops, c);
    c->local->half_close_enabled = true;
    conn_set_buffer_limit(c->local, DIAL_BUFFER_BYTES);
    conn_start(c->local);
    c->state = DIAL_OPEN;
    conn_resume(c->net);
    c->on_done(c->user, fds[1], NULL);
}

static void on_closed(struct xds_dial *c, struct conn *side) {
    if (side == c->net) {
        c->net = NULL;
    } else {
        c->local = NULL;
    }
    if (c->state == DIAL_OVER) {
        return; /* our own doing: what is to be told stands in c->error already */
    }
    if (c->state == DIAL_CONNECTING) {
        sv why = conn_transport_failure(side);
        snprintf(c->error, sizeof(c->error), "connection to %s failed%s%.*s%s%s", c->addr,
                 why.n ? ": " : "", SV_ARG(why), side->connect_error_ ? ": " : "",
                 side->connect_error_ ? sock_strerror(side->connect_error_) : "");
        fail(c, c->error);
        return;
    }
    struct conn *rest = c->net ? c->net : c->local;
    if (rest) {
        /* What is on its way is still delivered; the fd's end tells gRPC, whose owner then closes
         * the dial. */
        conn_close(rest, CONN_CLOSE_FLUSH, "xds_peer_closed");
    }
}

static void on_event(struct conn *side, void *user, enum conn_event e) {
    struct xds_dial *c = user;
    switch (e) {
    case CONN_EVENT_CONNECTED:
        if (side == c->net && c->state == DIAL_CONNECTING) {
            timer_cancel(&c->timer);
            (c->target.transport ? open_relay : hand_over)(c);
        }
        return;
    case CONN_EVENT_REMOTE_CLOSE:
    case CONN_EVENT_LOCAL_CLOSE:
        on_closed(c, side);
        return;
    }
}

/* ---- beginning ---- */

static void on_timer(struct timer *t) {
    struct xds_dial *c = CONTAINER_OF(t, struct xds_dial, timer);
    if (c->state == DIAL_CONNECTING) {
        snprintf(c->error, sizeof(c->error), "connection to %s timed out", c->addr);
    }
    fail(c, c->error);
}

static struct transport *make_transport(const struct xds_dial_target *t) {
    static const sv alpn[] = {SV_INIT("http/1.1"), SV_INIT("h2")};
    if (!t->transport) {
        return transport_raw_new();
    }
    sv name = host_without_port(t->authority);
    struct transport_options o = {
        .host_name = t->host_name,
        .server_name = t->auto_sni ? name : SV_NULL,
        .san_override = &name,
        .san_override_n = t->auto_san_validation,
        .alpn_fallback = &alpn[t->is_http2],
        .alpn_fallback_n = 1,
    };
    return t->transport->ops->create(t->transport, &o);
}

struct conn *xds_dialer_connect(struct xds_dialer *d, const struct conn_ops *ops, void *user,
                                struct xds_dial_target *t, char **path,
                                char error[DIAL_ERROR_MAX]) {
    *path = NULL;
    *t = (struct xds_dial_target){0};
    if (!d->ops.next_target(d->ops.user, t)) {
        snprintf(error, DIAL_ERROR_MAX, "no healthy upstream");
        return NULL;
    }
    if (t->addr.family == AF_UNIX && t->addr.path) {
        *path = xstrdup(t->addr.path); /* the endpoint may go while the connection lives */
        addr_set_path(&t->addr, *path);
    }
    char address[ADDR_STR_MAX];
    addr_str(&t->addr, address);
    struct transport *transport = make_transport(t);
    if (!transport) {
        snprintf(error, DIAL_ERROR_MAX, "connection to %s: its TLS secrets are not there", address);
        return NULL;
    }
    struct sock_opts so = {.keepalive_time_s = t->keepalive_time_s,
                           .keepalive_interval_s = t->keepalive_interval_s,
                           .keepalive_probes = t->keepalive_probes};
    int err = 0;
    struct conn *c = conn_connect(d->loop, &t->addr, t->source, &so, transport, ops, user, &err);
    if (!c) {
        snprintf(error, DIAL_ERROR_MAX, "connection to %s failed: %s", address, sock_strerror(err));
        return NULL;
    }
    conn_set_buffer_limit(c, DIAL_BUFFER_BYTES);
    return c;
}

struct loop *xds_dialer_loop(const struct xds_dialer *d) {
    return d->loop;
}

/* False: c->error tells why. */
static bool begin(struct xds_dial *c) {
    struct xds_dial_target *t = &c->target;
    c->net = xds_dialer_connect(c->dialer, &relay_ops, c, t, &c->path, c->error);
    if (!c->net) {
        return false;
    }
    addr_str(&t->addr, c->addr);
    c->state = DIAL_CONNECTING;
    c->net->half_close_enabled = true;
    timer_start(&c->timer, t->connect_timeout_ms ? t->connect_timeout_ms : DIAL_TIMEOUT_MS);
    return true;
}

struct xds_dial *xds_dial_start(struct xds_dialer *d,
                                void (*on_done)(void *user, int fd, const char *error),
                                void *user) {
    struct xds_dial *c = xnew(struct xds_dial);
    c->dialer = d;
    c->on_done = on_done;
    c->user = user;
    c->garbage.free = dial_free;
    timer_init(&c->timer, d->loop, on_timer);
    list_push_back(&d->dials, &c->node);
    if (!begin(c)) {
        timer_start(&c->timer, 0);
    }
    return c;
}

struct xds_dialer *xds_dialer_new(struct loop *l, const struct xds_dial_ops *ops) {
    struct xds_dialer *d = xnew(struct xds_dialer);
    d->loop = l;
    d->ops = *ops;
    list_init(&d->dials);
    return d;
}

void xds_dialer_free(struct xds_dialer *d) {
    struct list *n;
    while ((n = list_first(&d->dials))) {
        end(CONTAINER_OF(n, struct xds_dial, node));
    }
    xfree(d);
}
