/* The hand-driven connection of TLS tests. */
#include "tests/support/tls_pair.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void __wrap_conn_transport_ready(struct conn *c);
void __wrap_conn_transport_failed(struct conn *c);
void __wrap_conn_transport_want_write(struct conn *c);
void __wrap_conn_resume(struct conn *c);

static struct tls_end *end_of(struct conn *c) { return CONTAINER_OF(c, struct tls_end, conn); }
void __wrap_conn_transport_ready(struct conn *c) { end_of(c)->ready = true; }
void __wrap_conn_transport_failed(struct conn *c) { end_of(c)->failed = true; }
void __wrap_conn_transport_want_write(struct conn *c) { end_of(c)->want_write = true; }
void __wrap_conn_resume(struct conn *c) { end_of(c)->want_read_again = true; }

static void open_end(struct tls_end *e, struct transport *t, int fd, int sndbuf) {
    memset(e, 0, sizeof *e);
    e->conn.fd = fd;
    e->conn.loop = &e->loop;
    e->conn.id = (uint64_t)fd;
    addr_parse_ip(SV("127.0.0.1"), 1, &e->conn.remote);
    addr_parse_ip(SV("127.0.0.2"), 2, &e->conn.local);
    e->t = t;
    if (t) {
        t->conn = &e->conn;
    }
    buf_init(&e->in);
    buf_init(&e->out);
    CHECK(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    if (sndbuf) {
        CHECK(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof sndbuf) == 0);
    }
}

void tls_pair_open(struct tls_end *a, struct transport *ta, struct tls_end *b, struct transport *tb,
                   int sndbuf) {
    int fd[2];
    CHECK(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fd) == 0);
    open_end(a, ta, fd[0], sndbuf);
    open_end(b, tb, fd[1], sndbuf);
}

static bool step_bare(struct tls_end *e) {
    char text[4096];
    bool moved = false;
    ssize_t n = recv(e->conn.fd, text, sizeof text, 0);
    if (n > 0) {
        buf_append(&e->in, text, (size_t)n);
        moved = true;
    } else if (n == 0 && !e->saw_end) {
        e->saw_end = moved = true;
    }
    sv front = buf_front(&e->out);
    n = front.n ? send(e->conn.fd, front.p, front.n, MSG_NOSIGNAL) : 0;
    if (n > 0) {
        buf_drain(&e->out, (size_t)n);
        moved = true;
    }
    return moved;
}

static bool step_read(struct tls_end *e) {
    bool was_ready = e->ready;
    e->want_read_again = false;
    size_t max = e->read_max ? e->read_max : 65536;
    struct transport_result r = e->t->ops->read(e->t, &e->in, max);
    CHECK(r.bytes <= max);
    bool moved = r.bytes > 0 || e->ready != was_ready;
    if (r.end_stream && !e->saw_end) {
        e->saw_end = moved = true;
    }
    if (r.action == TRANSPORT_CLOSE) {
        e->failed = moved = true;
    }
    e->want_read_again |= r.again;
    return moved;
}

static bool step_write(struct tls_end *e) {
    bool was_ready = e->ready;
    bool end = e->ready && e->end_wanted && !e->end_sent;
    if (!e->want_write && buf_empty(&e->out) && !end) {
        return false;
    }
    struct transport_result r = e->t->ops->write(e->t, &e->out, end);
    e->want_write = r.again;
    e->again_count += r.again;
    if (r.action == TRANSPORT_CLOSE) {
        e->failed = true;
        return true;
    }
    bool ended = end && buf_empty(&e->out);
    e->end_sent |= ended;
    return r.bytes > 0 || ended || e->ready != was_ready;
}

bool tls_end_step(struct tls_end *e) {
    if (e->failed || e->closed) {
        return false;
    }
    if (!e->t) {
        return step_bare(e);
    }
    bool moved = false;
    if (!e->started) {
        e->started = moved = true;
        e->t->ops->on_connected(e->t);
    }
    if (!e->failed && !e->saw_end) {
        moved |= step_read(e);
    }
    if (!e->failed && e->ready) {
        moved |= step_write(e);
    } else if (!e->failed && e->want_write) {
        moved |= step_write(e);
    }
    return moved;
}

void tls_pair_run(struct tls_end *a, struct tls_end *b) {
    for (unsigned quiet = 0; quiet < 2;) {
        bool moved = tls_end_step(a);
        moved |= tls_end_step(b);
        quiet = moved ? 0 : quiet + 1;
    }
}

void tls_end_close(struct tls_end *e) {
    if (!e->closed) {
        if (e->t && e->ready && !e->failed) {
            e->t->ops->close(e->t);
        }
        close(e->conn.fd);
        e->closed = true;
    }
}

void tls_end_free(struct tls_end *e) {
    if (!e->closed) {
        close(e->conn.fd);
    }
    if (e->t) {
        e->t->ops->destroy(e->t);
    }
    buf_fini(&e->in);
    buf_fini(&e->out);
    memset(e, 0, sizeof *e);
}

bool tls_pair_passes(struct tls_end *from, struct tls_end *to, const char *text) {
    buf_append(&from->out, text, strlen(text));
    tls_pair_run(from, to);
    sv got = buf_pullup(&to->in, buf_len(&to->in));
    bool same = sv_eq(got, sv_cstr(text));
    buf_clear(&to->in);
    return same;
}
