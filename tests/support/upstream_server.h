/* Servers on loopback in the test's own loop, and the fake worker that gives pools a transport.
 * HTTP/1 with scripted behaviour, or HTTP/2 by our own codec. Include it in one test source: it
 * defines worker_transport(). */
#ifndef SLUICE_TESTS_SUPPORT_UPSTREAM_SERVER_H
#define SLUICE_TESTS_SUPPORT_UPSTREAM_SERVER_H

#include "proxy/http/codec.h"
#include "proxy/net/sock.h"
#include "proxy/net/transport.h"
#include "tests/support/clusterless_worker.h"

/* ---- transports ---- */

enum server_transport { TRANSPORT_RAW, TRANSPORT_MISSING, TRANSPORT_STUCK /* never ready */ };
static enum server_transport server_transport;

static struct transport_result stuck_io(struct transport *t, struct buf *b, size_t max) {
    (void)t, (void)b, (void)max;
    return (struct transport_result){.action = TRANSPORT_KEEP, .again = true};
}
static struct transport_result stuck_write(struct transport *t, struct buf *b, bool end) {
    (void)t, (void)b, (void)end;
    return (struct transport_result){.action = TRANSPORT_KEEP};
}
static void stuck_nothing(struct transport *t) { (void)t; }
static void stuck_destroy(struct transport *t) { xfree(t); }
static sv stuck_text(const struct transport *t) {
    (void)t;
    return SV_NULL;
}
static const struct ssl_info *stuck_ssl(const struct transport *t) {
    (void)t;
    return NULL;
}
static const struct transport_ops stuck_ops = {.name = "stuck",
                                               .on_connected = stuck_nothing,
                                               .read = stuck_io,
                                               .write = stuck_write,
                                               .close = stuck_nothing,
                                               .destroy = stuck_destroy,
                                               .protocol = stuck_text,
                                               .failure_reason = stuck_text,
                                               .ssl = stuck_ssl};
static struct transport *stuck_create(const struct transport_factory *f,
                                      const struct transport_options *o) {
    (void)f, (void)o;
    struct transport *t = xnew(struct transport);
    t->ops = &stuck_ops;
    return t;
}
static const struct transport_factory_ops stuck_factory_ops = {.create = stuck_create};
static struct transport_factory stuck_factory = {.ops = &stuck_factory_ops};

struct transport_factory *worker_transport(struct worker *w, slot_t slot) {
    (void)w, (void)slot;
    if (server_transport == TRANSPORT_MISSING) {
        return NULL;
    }
    return server_transport == TRANSPORT_STUCK ? &stuck_factory : transport_raw_factory();
}

/* ---- servers ---- */

enum server_script {
    SERVER_ANSWER,         /* 200 with a body of two bytes, connection kept */
    SERVER_ANSWER_CLOSE,   /* … with connection: close, and closed */
    SERVER_ANSWER_HANG_UP, /* … and closed without a word about it */
    SERVER_SILENT,         /* reads, never answers */
    SERVER_HANG_UP,        /* closes as soon as a request came */
    SERVER_GARBAGE,
};
#define SERVER_CONNS_MAX 32
struct server {
    struct loop *loop;
    struct io io;
    int fd;
    struct addr addr;
    enum server_script script;
    bool is_h2;
    struct codec_options opt;
    unsigned accepted, requests, open;
    struct server_conn {
        struct server *server;
        struct conn *conn; /* NULL: closed */
        struct codec *codec;
        struct codec_stream *held[16]; /* HTTP/2 requests not answered yet */
        unsigned held_n;
    } conns[SERVER_CONNS_MAX];
    struct arena arena;
};

static void server_write(struct server_conn *sc, const char *text) {
    struct buf BUF_AUTO out;
    buf_init(&out);
    buf_append_sv(&out, sv_cstr(text));
    conn_write(sc->conn, &out, false);
}

static void server_answer(struct server_conn *sc) {
    static const char ok[] = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    switch (sc->server->script) {
    case SERVER_ANSWER:
        server_write(sc, ok);
        return;
    case SERVER_ANSWER_CLOSE:
        server_write(sc, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok");
        conn_close(sc->conn, CONN_CLOSE_FLUSH, "test");
        return;
    case SERVER_ANSWER_HANG_UP:
        server_write(sc, ok);
        conn_close(sc->conn, CONN_CLOSE_FLUSH, "test");
        return;
    case SERVER_SILENT:
        return;
    case SERVER_HANG_UP:
        conn_close(sc->conn, CONN_CLOSE_NO_FLUSH, "test");
        return;
    case SERVER_GARBAGE:
        server_write(sc, "\x01\x02 not http\r\n\r\n");
        return;
    }
}

static void server_on_data(struct conn *c, void *user, struct buf *data, bool end) {
    (void)c, (void)end;
    struct server_conn *sc = user;
    if (sc->codec) {
        sc->codec->vt->dispatch(sc->codec, data);
        return;
    }
    while (sc->conn && buf_len(data)) {
        sv all = buf_pullup(data, buf_len(data));
        size_t at = sv_find_sv(all, SV("\r\n\r\n"));
        if (at == SIZE_MAX) {
            return;
        }
        buf_drain(data, at + 4);
        sc->server->requests++;
        server_answer(sc);
    }
}

static void server_on_event(struct conn *c, void *user, enum conn_event e) {
    (void)c;
    struct server_conn *sc = user;
    if (e != CONN_EVENT_CONNECTED) {
        if (sc->codec) {
            sc->codec->vt->on_conn_end(sc->codec, RESET_CONNECTION_TERMINATION);
            sc->codec->vt->free(sc->codec);
            sc->codec = NULL;
        }
        sc->conn = NULL;
        sc->held_n = 0;
        sc->server->open--;
    }
}
static const struct conn_ops server_conn_ops = {.on_data = server_on_data,
                                                .on_event = server_on_event};

static void server_h2_answer(struct server_conn *sc, struct codec_stream *s) {
    struct headers h;
    headers_init(&h, &sc->server->arena);
    headers_set_status(&h, 200);
    s->codec->vt->send_headers(s, &h, true);
}
static void server_h2_headers(struct codec_stream *s, struct headers *h, bool end) {
    (void)h, (void)end;
    struct server_conn *sc = s->user;
    sc->server->requests++;
    if (sc->server->script == SERVER_ANSWER) {
        server_h2_answer(sc, s);
    } else {
        assert_true(sc->held_n < 16);
        sc->held[sc->held_n++] = s;
    }
}
static void server_h2_data(struct codec_stream *s, struct buf *d, bool end) {
    (void)s, (void)end;
    buf_clear(d);
}
static void server_h2_trailers(struct codec_stream *s, struct headers *h) { (void)s, (void)h; }
static void server_h2_reset(struct codec_stream *s, enum reset_reason why) {
    (void)why;
    struct server_conn *sc = s->user;
    for (unsigned i = 0; i < sc->held_n; i++) {
        if (sc->held[i] == s) {
            sc->held[i] = sc->held[--sc->held_n];
        }
    }
}
static void server_h2_nothing(struct codec_stream *s) { (void)s; }
static const struct codec_stream_ops server_stream_ops = {.on_headers = server_h2_headers,
                                                          .on_data = server_h2_data,
                                                          .on_trailers = server_h2_trailers,
                                                          .on_reset = server_h2_reset,
                                                          .on_above_high = server_h2_nothing,
                                                          .on_below_low = server_h2_nothing};
static struct arena *server_h2_begin(struct codec *c, void *user, struct codec_stream *s) {
    (void)c;
    struct server_conn *sc = user;
    s->ops = &server_stream_ops;
    s->user = sc;
    return &sc->server->arena;
}
static void server_h2_goaway(struct codec *c, void *user, bool graceful, uint32_t last) {
    (void)c, (void)user, (void)graceful, (void)last;
}
static const struct codec_ops server_codec_ops = {.on_begin = server_h2_begin,
                                                  .on_goaway = server_h2_goaway};

static void server_on_accept(struct io *io, int events, int status) {
    (void)events, (void)status;
    struct server *s = CONTAINER_OF(io, struct server, io);
    for (;;) {
        struct addr peer;
        int fd = sock_accept(s->fd, &peer);
        if (fd < 0) {
            return;
        }
        assert_true(s->accepted < SERVER_CONNS_MAX);
        struct server_conn *sc = &s->conns[s->accepted++];
        s->open++;
        sc->server = s;
        sc->conn = conn_new_accepted(s->loop, fd, transport_raw_new(), &server_conn_ops, sc);
        if (s->is_h2) {
            static const struct codec_stats none;
            sc->codec = h2_server_new(sc->conn, &s->opt, &none, &server_codec_ops, sc);
        }
        conn_start(sc->conn);
    }
}

static void server_start(struct server *s, struct loop *l, bool is_h2) {
    memset(s, 0, sizeof(*s));
    s->loop = l;
    s->is_h2 = is_h2;
    arena_init(&s->arena, 0);
    codec_options_defaults(&s->opt);
    struct addr any;
    struct sock_opts opts = {0};
    assert_true(addr_parse_ip_port(SV("127.0.0.1:0"), &any));
    s->fd = sock_listen(&any, &opts, 64, false, &s->addr);
    assert_true(s->fd >= 0);
    assert_int_equal(io_open(&s->io, l, s->fd, server_on_accept), 0);
    io_want(&s->io, IO_READ);
}

static void server_close_conns(struct server *s) {
    for (unsigned i = 0; i < s->accepted; i++) {
        if (s->conns[i].conn) {
            conn_close(s->conns[i].conn, CONN_CLOSE_NO_FLUSH, "test");
        }
    }
}

static void server_stop(struct server *s) {
    server_close_conns(s);
    io_close(&s->io, s->fd, NULL);
    loop_run_nowait(s->loop);
    arena_fini(&s->arena);
}

#endif
