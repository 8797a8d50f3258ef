/* TLS under real connections and a real loop: both ends of a socketpair are conns with TLS
 * transports. */
#include <stdio.h>
#include <sys/socket.h>

#include <openssl/err.h>

#include "proxy/net/conn.h"
#include "proxy/net/tls.h"
#include "proxy/net/transport.h"
#include "tests/support/fake_compile.h"
#include "tests/support/tls_certs.h"
#include "tests/support/tls_text.h"

#define TURNS_MAX 20000

struct side {
    struct conn *c;
    size_t got;
    uint64_t sum;
    bool connected, end, echo, paused;
    int closed; /* -1: no */
    char failure[512];
    char alpn[16];
};

static struct {
    struct loop loop;
    struct fake_compile f;
    struct test_cert *root, *server;
    struct transport_factory *fs, *fc, *fc_strict;
    struct side s, c;
} g;

static uint64_t add_sum(uint64_t h, struct buf *b) {
    for (size_t s = 0; s < buf_slices(b); s++) {
        const struct slice *v = buf_slice(b, s);
        for (size_t i = 0; i < v->n; i++) {
            h = (h ^ (unsigned char)v->p[i]) * 1099511628211u;
        }
    }
    return h;
}

static void on_data(struct conn *c, void *user, struct buf *data, bool end_stream) {
    struct side *x = user;
    x->got += buf_len(data);
    x->sum = add_sum(x->sum, data);
    x->end |= end_stream;
    if (x->echo) {
        conn_write(c, data, end_stream);
    } else {
        buf_clear(data);
    }
}

static void on_event(struct conn *c, void *user, enum conn_event e) {
    struct side *x = user;
    if (e == CONN_EVENT_CONNECTED) {
        x->connected = true;
        sv alpn = conn_alpn(c);
        snprintf(x->alpn, sizeof x->alpn, "%.*s", SV_ARG(alpn));
        return;
    }
    sv why = conn_transport_failure(c);
    snprintf(x->failure, sizeof x->failure, "%.*s", SV_ARG(why));
    x->closed = (int)e;
    x->c = NULL;
}

static const struct conn_ops ops = {.on_data = on_data, .on_event = on_event};

static struct transport_factory *factory(const struct transport_socket_type *type, const char *name,
                                         const char *text) {
    const char *vars[] = {"root", g.root->pem, "s", g.server->pem, "sk", g.server->key_pem, NULL};
    const void *config = type->compile(&g.f.ctx, tls_message(&g.f.msgs, name, text, vars));
    assert_non_null(config);
    return type->make(config, NULL, &g.f.diag);
}

static int setup(void **state) {
    (void)state;
    fake_compile_init(&g.f, NULL);
    assert_int_equal(loop_init(&g.loop, 2), 0);
    g.root = test_cert_new(&(struct test_cert_spec){.cn = "Root", .is_ca = true});
    g.server =
        test_cert_new(&(struct test_cert_spec){.cn = "s", .sans = "DNS:s.test", .issuer = g.root});
    g.fs =
        factory(&tls_downstream_transport_socket, "DownstreamTlsContext",
                "common_tls_context { alpn_protocols: ['h2', 'http/1.1'] tls_certificates { "
                "certificate_chain { inline_string: ~s~ } private_key { inline_string: ~sk~ } } }");
    g.fc = factory(&tls_upstream_transport_socket, "UpstreamTlsContext",
                   "common_tls_context { alpn_protocols: 'http/1.1' validation_context { "
                   "trusted_ca { inline_string: ~root~ } } }");
    g.fc_strict = factory(&tls_upstream_transport_socket, "UpstreamTlsContext",
                          "common_tls_context { tls_params { tls_maximum_protocol_version: TLSv1_3 "
                          "} validation_context { trusted_ca { inline_string: ~root~ } "
                          "match_subject_alt_names { exact: 'other.test' } } }");
    return 0;
}

static int teardown(void **state) {
    (void)state;
    shared_unref(&g.fs->shared);
    shared_unref(&g.fc->shared);
    shared_unref(&g.fc_strict->shared);
    loop_fini(&g.loop);
    test_cert_free(g.root);
    test_cert_free(g.server);
    transport_read_chunk_drop();
    tls_thread_drop();
    fake_compile_fini(&g.f);
    return 0;
}

static void open_side(struct side *x, int fd, struct transport *t, int sndbuf) {
    memset(x, 0, sizeof *x);
    x->closed = -1;
    if (sndbuf) {
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &sndbuf, sizeof sndbuf);
    }
    x->c = conn_new_accepted(&g.loop, fd, t, &ops, x);
    x->c->half_close_enabled = true;
}

static void connect_both(struct transport_factory *fc, int sndbuf) {
    int fd[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    open_side(&g.s, fd[0], g.fs->ops->create(g.fs, NULL), sndbuf);
    open_side(&g.c, fd[1], fc->ops->create(fc, NULL), sndbuf);
    conn_start(g.s.c);
    conn_start(g.c.c);
}

#define run_until(cond)                                          \
    do {                                                         \
        for (unsigned i_ = 0; !(cond) && i_ < TURNS_MAX; i_++) { \
            loop_run_nowait(&g.loop);                            \
        }                                                        \
        assert_true(cond);                                       \
    } while (0)

static void close_both(void) {
    if (g.s.c) {
        conn_close(g.s.c, CONN_CLOSE_NO_FLUSH, "test");
    }
    if (g.c.c) {
        conn_close(g.c.c, CONN_CLOSE_NO_FLUSH, "test");
    }
    for (int i = 0; i < 5; i++) {
        loop_run_nowait(&g.loop);
    }
}

static void test_connect(void **state) {
    (void)state;
    connect_both(g.fc, 0);
    run_until(g.s.connected && g.c.connected);
    assert_string_equal(g.s.alpn, "http/1.1");
    assert_true(ssl_info_is_validated(conn_ssl(g.c.c)));
    conn_close(g.c.c, CONN_CLOSE_FLUSH, "done");
    run_until(g.s.end); /* close_notify is a half-close */
    assert_int_equal(g.c.closed, CONN_EVENT_LOCAL_CLOSE);
    close_both();
}

/* An echo of some megabytes through small kernel buffers, watermarks, a pause in the middle, then a
 * half-close. */
static void test_echo(void **state) {
    (void)state;
    const int sndbufs[] = {0, 4608};
    for (size_t row = 0; row < ARRAY_LEN(sndbufs); row++) {
        connect_both(g.fc, sndbufs[row]);
        g.s.echo = true;
        conn_set_buffer_limit(g.s.c, 32768);
        struct buf b;
        buf_init(&b);
        size_t n = 3u << 20;
        for (size_t i = 0; i < n / 64; i++) {
            buf_printf(&b, "%063zu\n", i * 7919);
        }
        uint64_t want = add_sum(0, &b);
        conn_write(g.c.c, &b, true);
        buf_fini(&b);
        run_until(g.c.got > n / 3);
        conn_read_disable(g.c.c, true);
        size_t paused_at = g.c.got;
        for (int i = 0; i < 50; i++) {
            loop_run_nowait(&g.loop);
        }
        assert_int_equal(g.c.got, paused_at);
        conn_read_disable(g.c.c, false);
        run_until(g.c.got == n && (g.c.end || g.c.closed >= 0));
        assert_row(g.c.sum == want, row);
        run_until(g.s.closed >= 0 || g.s.end);
        close_both();
    }
}

static void test_refused(void **state) {
    (void)state;
    connect_both(g.fc_strict, 0);
    run_until(g.c.closed >= 0 && g.s.closed >= 0);
    assert_false(g.s.connected || g.c.connected);
    assert_int_equal(g.c.closed, CONN_EVENT_REMOTE_CLOSE);
    assert_non_null(
        strstr(g.c.failure, "CERTIFICATE_VERIFY_FAILED:verify cert failed: SAN matcher"));
    assert_non_null(strstr(g.s.failure, "CERTIFICATE_UNKNOWN"));
    close_both();
}

static void test_vanishing_peer(void **state) {
    (void)state;
    for (unsigned turns = 0; turns < 12; turns++) { /* at every stage */
        connect_both(g.fc, 0);
        for (unsigned i = 0; i < turns; i++) {
            loop_run_nowait(&g.loop);
        }
        if (g.c.c) {
            conn_close(g.c.c, turns % 2 ? CONN_CLOSE_ABORT_RESET : CONN_CLOSE_NO_FLUSH, "gone");
        }
        run_until(g.s.closed >= 0 || g.s.end);
        close_both();
    }
}

static void test_plain_peer(void **state) {
    (void)state;
    connect_both(g.fc, 0);
    close_both();
    int fd[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd), 0);
    open_side(&g.s, fd[0], g.fs->ops->create(g.fs, NULL), 0);
    conn_start(g.s.c);
    assert_int_equal(send(fd[1], "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
    run_until(g.s.closed >= 0);
    assert_string_equal(
        g.s.failure,
        "TLS_error:|268435612:SSL routines:OPENSSL_internal:HTTP_REQUEST:TLS_error_end");
    char answer[16];
    /* no alert for those who do not speak TLS */
    assert_int_equal(recv(fd[1], answer, sizeof answer, 0), 0);
    close(fd[1]);
    close_both();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_connect),    cmocka_unit_test(test_echo),
        cmocka_unit_test(test_refused),    cmocka_unit_test(test_vanishing_peer),
        cmocka_unit_test(test_plain_peer),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
