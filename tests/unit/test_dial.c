/* Dialling the control plane: who is told what and when, the relay to gRPC's end of a socketpair,
 * who owns which descriptor, and what is left of a dial that is given up at any point. */
#include <errno.h>
#include <sys/socket.h>

#include "proxy/base/mem.h"
#include "proxy/net/conn.h"
#include "proxy/net/sock.h"
#include "proxy/net/transport.h"
#include "tests/support/unit.h"
#include "xds/dial.h"

#define TURNS_MAX 20000
#define CLOSED (-1000)

static struct loop loop;
static struct xds_dialer *dialer;
static struct xds_dial *dial;
static struct xds_dial_target target; /* what is answered when has_target */
static bool has_target;
static int listener, peer;
static struct {
    unsigned calls;
    int fd;
    char error[DIAL_ERROR_MAX];
} done;

static bool next_target(void *user, struct xds_dial_target *out) {
    assert_ptr_equal(user, &target);
    *out = target;
    return has_target;
}

static void on_done(void *user, int fd, const char *error) {
    assert_ptr_equal(user, &done);
    done.calls++;
    done.fd = fd;
    assert_int_equal(fd < 0, error != NULL);
    snprintf(done.error, sizeof(done.error), "%s", error ? error : "");
}

/* ---- transports ---- */

static const struct transport_ops *raw_ops;
static bool is_transport_ready;

static void on_connected_never(struct transport *t) {
    if (is_transport_ready) {
        raw_ops->on_connected(t);
    }
}

/* Raw bytes behind a handshake that may never end. */
static struct transport *create(const struct transport_factory *f,
                                const struct transport_options *o) {
    (void)f;
    static struct transport_ops ops;
    assert_sv_is(o->server_name, target.auto_sni ? "plane.test" : "");
    assert_int_equal(o->san_override_n, target.auto_san_validation);
    assert_int_equal(o->alpn_fallback_n, 1);
    assert_sv_is(o->alpn_fallback[0], target.is_http2 ? "h2" : "http/1.1");
    struct transport *t = transport_raw_new();
    raw_ops = t->ops;
    ops = *raw_ops;
    ops.on_connected = on_connected_never;
    t->ops = &ops;
    return t;
}
static struct transport *create_none(const struct transport_factory *f,
                                     const struct transport_options *o) {
    (void)f, (void)o;
    return NULL;
}
static const struct transport_factory_ops factory_ops = {.create = create},
                                          without_secrets_ops = {.create = create_none};
static struct transport_factory relayed = {.ops = &factory_ops},
                                without_secrets = {.ops = &without_secrets_ops};

/* ---- set-up ---- */

static void turns(unsigned n) {
    while (n--) {
        loop_run_nowait(&loop);
    }
}

static void listen_on(const char *address) {
    struct addr any;
    assert_true(addr_parse_ip_port(sv_cstr(address), &any));
    listener = sock_listen(&any, NULL, 4, false, &target.addr);
    assert_true(listener >= 0);
}

static int start(void **state) {
    (void)state;
    const struct xds_dial_ops ops = {next_target, &target};
    assert_int_equal(loop_init(&loop, 0), 0);
    memset(&done, 0, sizeof(done));
    memset(&target, 0, sizeof(target));
    target.authority = SV("plane.test:443");
    dialer = xds_dialer_new(&loop, &ops);
    dial = NULL;
    has_target = is_transport_ready = true;
    peer = -1;
    listen_on("127.0.0.1:0");
    return 0;
}

static int end(void **state) {
    (void)state;
    if (dialer) {
        xds_dialer_free(dialer);
    }
    turns(2);
    if (done.calls && done.fd >= 0) {
        close(done.fd);
    }
    if (peer >= 0) {
        close(peer);
    }
    if (listener >= 0) {
        close(listener);
    }
    loop_fini(&loop);
    transport_read_chunk_drop();
    chunk_cache_trim();
    return 0;
}

static void begin(void) {
    dial = xds_dial_start(dialer, on_done, &done);
    assert_int_equal(done.calls, 0); /* never from inside the call */
}

static void wait_done(void) {
    for (unsigned i = 0; i < TURNS_MAX && !done.calls; i++) {
        loop_run_nowait(&loop);
    }
    assert_int_equal(done.calls, 1);
}

static void open_dial(void) {
    begin();
    wait_done();
    assert_string_equal(done.error, "");
    assert_ptr_equal(xds_dial_target(dial)->transport, target.transport);
    do {
        peer = sock_accept(listener, NULL);
    } while (peer == -EAGAIN);
    assert_true(peer >= 0);
}

static void assert_failed(const char *error) {
    wait_done();
    assert_true(done.fd < 0);
    assert_string_equal(done.error, error);
    turns(3);
    assert_int_equal(done.calls, 1); /* once */
}

static const char *target_text(void) {
    static char text[ADDR_STR_MAX];
    addr_str(&target.addr, text);
    return text;
}

/* What comes out of fd now: bytes, 0 for nothing yet, CLOSED. */
static int reads(int fd, char *out, size_t n) {
    ssize_t got = recv(fd, out, n, MSG_DONTWAIT);
    return got > 0 ? (int)got : got == 0 ? CLOSED : errno == EAGAIN ? 0 : -errno;
}

static void assert_passes(int from, int to, const char *text) {
    char got[64];
    int n = 0;
    assert_int_equal(send(from, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    for (unsigned i = 0; i < TURNS_MAX && n == 0; i++) {
        loop_run_nowait(&loop);
        n = reads(to, got, sizeof(got));
    }
    assert_int_equal(n, strlen(text));
    assert_memory_equal(got, text, strlen(text));
}

static void assert_ends(int fd) {
    char got[64];
    int n = 0;
    for (unsigned i = 0; i < TURNS_MAX && n == 0; i++) {
        loop_run_nowait(&loop);
        n = reads(fd, got, sizeof(got));
    }
    assert_int_equal(n, CLOSED);
}

/* ---- plaintext: the connection is gRPC's own ---- */

static void plaintext_is_handed_over(void **state) {
    (void)state;
    open_dial();
    assert_passes(done.fd, peer, "question");
    assert_passes(peer, done.fd, "answer");
    xds_dial_close(dial);
    turns(2);
    assert_passes(done.fd, peer, "still open: the fd is the caller's");
}

static void handed_over_with_early_bytes(void **state) {
    (void)state;
    char got[8];
    begin();
    do {
        peer = sock_accept(listener, NULL);
    } while (peer == -EAGAIN);
    assert_int_equal(send(peer, "early", 5, MSG_NOSIGNAL), 5); /* before we look */
    wait_done();
    assert_int_equal(recv(done.fd, got, sizeof(got), 0), 5); /* nobody else has read them */
}

static void unix_socket(void **state) {
    (void)state;
    char directory[] = "/tmp/test_dial.XXXXXX", path[64];
    assert_non_null(mkdtemp(directory));
    snprintf(path, sizeof(path), "%s/s", directory);
    close(listener);
    struct addr a;
    addr_set_path(&a, path);
    listener = sock_listen(&a, NULL, 4, false, NULL);
    assert_true(listener >= 0);
    addr_set_path(&target.addr, path);
    open_dial();
    path[0] = 'x'; /* the endpoint may go: the dial has a path of its own */
    assert_true(sv_starts(sv_cstr(xds_dial_target(dial)->addr.path), sv_cstr(directory)));
    assert_passes(done.fd, peer, "question");
    path[0] = '/';
    unlink(path);
    rmdir(directory);
}

/* ---- failures ---- */

static void no_endpoint(void **state) {
    (void)state;
    has_target = false;
    begin();
    assert_failed("no healthy upstream");
}

static void secrets_are_missing(void **state) {
    (void)state;
    char want[DIAL_ERROR_MAX];
    target.transport = &without_secrets;
    snprintf(want, sizeof(want), "connection to %s: its TLS secrets are not there", target_text());
    begin();
    assert_failed(want);
}

static void connect_cannot_begin(void **state) {
    (void)state;
    addr_set_path(&target.addr, "/nonexistent/socket");
    begin();
    assert_failed("connection to /nonexistent/socket failed: No such file or directory");
}

static void connect_is_refused(void **state) {
    (void)state;
    char want[DIAL_ERROR_MAX];
    close(listener);
    listener = -1;
    begin();
    wait_done();
    snprintf(want, sizeof(want), "connection to %s failed: ", target_text());
    assert_true(sv_starts(sv_cstr(done.error), sv_cstr(want)));
    assert_true(sv_contains(sv_cstr(done.error), SV("Connection refused")));
    assert_failed(done.error);
}

static void handshake_takes_too_long(void **state) {
    (void)state;
    char want[DIAL_ERROR_MAX];
    target.transport = &relayed;
    target.connect_timeout_ms = 1;
    is_transport_ready = false;
    snprintf(want, sizeof(want), "connection to %s timed out", target_text());
    begin();
    assert_failed(want);
}

static void peer_goes_in_the_handshake(void **state) {
    (void)state;
    target.transport = &relayed;
    is_transport_ready = false;
    begin();
    do {
        peer = sock_accept(listener, NULL);
    } while (peer == -EAGAIN);
    turns(2);
    assert_int_equal(done.calls, 0);
    sock_reset_on_close(peer);
    close(peer);
    peer = -1;
    wait_done();
    assert_true(done.fd < 0);
    assert_true(sv_contains(sv_cstr(done.error), SV(" failed")));
}

/* ---- given up ---- */

static void closed_before_it_failed(void **state) {
    (void)state;
    has_target = false;
    begin();
    xds_dial_close(dial);
    turns(5);
    assert_int_equal(done.calls, 0);
}

static void closed_while_connecting(void **state) {
    (void)state;
    begin();
    xds_dial_close(dial);
    turns(5);
    assert_int_equal(done.calls, 0);
}

static void closed_in_the_handshake(void **state) {
    (void)state;
    target.transport = &relayed;
    is_transport_ready = false;
    begin();
    turns(5);
    xds_dial_close(dial);
    turns(5);
    assert_int_equal(done.calls, 0);
}

static void dialer_goes_with_its_dials(void **state) {
    (void)state;
    target.transport = &relayed;
    open_dial();
    struct xds_dial *more[3];
    for (unsigned i = 0; i < ARRAY_LEN(more); i++) {
        has_target = i != 1;
        more[i] = xds_dial_start(dialer, on_done, &done);
        assert_non_null(more[i]);
    }
    xds_dialer_free(dialer);
    dialer = NULL;
    turns(5);
    assert_int_equal(done.calls, 1);
    assert_ends(done.fd);
    assert_ends(peer);
}

/* ---- the relay ---- */

static void relay_carries_both_ways(void **state) {
    (void)state;
    target.transport = &relayed;
    target.is_http2 = target.auto_sni = target.auto_san_validation = true;
    open_dial();
    assert_passes(done.fd, peer, "question");
    assert_passes(peer, done.fd, "answer");
    assert_passes(done.fd, peer, "and so on");
}

static void relay_ends_with_the_server(void **state) {
    (void)state;
    target.transport = &relayed;
    open_dial();
    assert_passes(peer, done.fd, "last words");
    close(peer);
    peer = -1;
    assert_ends(done.fd);
    assert_int_equal(done.calls, 1); /* the owner learns it from its fd */
}

static void relay_half_closes(void **state) {
    (void)state;
    target.transport = &relayed;
    open_dial();
    assert_int_equal(shutdown(peer, SHUT_WR), 0);
    assert_ends(done.fd);
    assert_passes(done.fd, peer, "the other way is open");
}

static void relay_ends_with_its_owner(void **state) {
    (void)state;
    target.transport = &relayed;
    open_dial();
    xds_dial_close(dial);
    assert_ends(peer);
    assert_ends(done.fd);
}

/* Whoever does not read stops the other side: what waits in between is bounded. */
static void check_back_pressure(int from, int to) {
    static char block[64 * 1024];
    enum { WAITS_MAX = 16 << 20 }; /* our 1 MB, and what the kernel holds on both sockets */
    size_t sent = 0, got = 0;
    unsigned idle = 0;
    while (idle < 50) {
        ssize_t n = send(from, block, sizeof(block), MSG_NOSIGNAL | MSG_DONTWAIT);
        idle = n > 0 ? 0 : idle + 1;
        sent += n > 0 ? (size_t)n : 0;
        assert_in_range(sent, 0, WAITS_MAX);
        loop_run_nowait(&loop);
    }
    for (unsigned i = 0; i < TURNS_MAX && got < sent; i++) {
        int n = reads(to, block, sizeof(block));
        got += n > 0 ? (size_t)n : 0;
        loop_run_nowait(&loop);
    }
    assert_int_equal(got, sent); /* and nothing was lost */
}

static void server_that_does_not_read(void **state) {
    (void)state;
    target.transport = &relayed;
    open_dial();
    check_back_pressure(done.fd, peer);
}

static void owner_that_does_not_read(void **state) {
    (void)state;
    target.transport = &relayed;
    open_dial();
    check_back_pressure(peer, done.fd);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(plaintext_is_handed_over),
        TEST(handed_over_with_early_bytes),
        TEST(unix_socket),
        TEST(no_endpoint),
        TEST(secrets_are_missing),
        TEST(connect_cannot_begin),
        TEST(connect_is_refused),
        TEST(handshake_takes_too_long),
        TEST(peer_goes_in_the_handshake),
        TEST(closed_before_it_failed),
        TEST(closed_while_connecting),
        TEST(closed_in_the_handshake),
        TEST(dialer_goes_with_its_dials),
        TEST(relay_carries_both_ways),
        TEST(relay_ends_with_the_server),
        TEST(relay_half_closes),
        TEST(relay_ends_with_its_owner),
        TEST(server_that_does_not_read),
        TEST(owner_that_does_not_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
