/* conn_take_fd: who takes the descriptor has the connection as it was: nothing was read from it,
 * nothing of ours watches it, and the end of ours is not its end. */
#include <errno.h>
#include <sys/socket.h>

#include "proxy/net/conn.h"
#include "proxy/net/sock.h"
#include "proxy/net/transport.h"
#include "tests/support/unit.h"

static struct loop loop;
static struct conn *conn;
static int peer, listener;
static struct {
    unsigned data_calls, connects, closes;
    enum conn_event last;
    bool takes_when_connected;
    int taken;
} seen;

static void on_data(struct conn *c, void *user, struct buf *data, bool end_stream) {
    (void)c, (void)user, (void)end_stream;
    seen.data_calls++;
    buf_drain(data, buf_len(data));
}

static void on_event(struct conn *c, void *user, enum conn_event e) {
    (void)user;
    seen.last = e;
    seen.connects += e == CONN_EVENT_CONNECTED;
    seen.closes += e != CONN_EVENT_CONNECTED;
    if (e == CONN_EVENT_CONNECTED && seen.takes_when_connected) {
        seen.taken = conn_take_fd(c);
    }
}
static const struct conn_ops ops = {.on_data = on_data, .on_event = on_event};

/* Of an open connection, or of one that is being made. */
static void open_pair(void) {
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    peer = fds[1];
    conn = conn_new_accepted(&loop, fds[0], transport_raw_new(), &ops, NULL);
    conn_start(conn);
}

static void begin_connect(void) {
    struct addr any, bound;
    int err = 0;
    assert_true(addr_parse_ip_port(SV("127.0.0.1:0"), &any));
    listener = sock_listen(&any, NULL, 4, false, &bound);
    assert_true(listener >= 0);
    conn = conn_connect(&loop, &bound, NULL, NULL, transport_raw_new(), &ops, NULL, &err);
    assert_non_null(conn);
}

static int start(void **state) {
    (void)state;
    memset(&seen, 0, sizeof(seen));
    seen.taken = peer = listener = -1;
    conn = NULL;
    return loop_init(&loop, 0);
}

static void turns(unsigned n) {
    while (n--) {
        loop_run_nowait(&loop);
    }
}

static int end(void **state) {
    (void)state;
    const int fds[] = {seen.taken, peer, listener};
    turns(2);
    for (size_t i = 0; i < sizeof(fds) / sizeof(fds[0]); i++) {
        if (fds[i] >= 0) {
            close(fds[i]);
        }
    }
    loop_fini(&loop);
    transport_read_chunk_drop();
    chunk_cache_trim();
    return 0;
}

static void assert_passes(int from, int to, const char *text) {
    char got[32];
    assert_int_equal(send(from, text, strlen(text), MSG_NOSIGNAL), strlen(text));
    assert_int_equal(recv(to, got, sizeof(got), MSG_DONTWAIT), strlen(text));
    assert_memory_equal(got, text, strlen(text));
}

static void fd_is_taken(void **state) {
    (void)state;
    open_pair();
    int fd = conn->fd;
    seen.taken = conn_take_fd(conn);
    assert_int_equal(seen.taken, fd);
    assert_int_equal(seen.closes, 1);
    assert_int_equal(seen.last, CONN_EVENT_LOCAL_CLOSE);
    turns(3); /* our memory goes, the connection does not */
    assert_passes(peer, seen.taken, "question");
    assert_passes(seen.taken, peer, "answer");
    turns(3);
    assert_int_equal(seen.data_calls, 0);
    assert_int_equal(seen.closes, 1);
}

static void bytes_before_it_are_left_in(void **state) {
    (void)state;
    char got[8];
    open_pair();
    assert_int_equal(send(peer, "early", 5, MSG_NOSIGNAL), 5);
    seen.taken = conn_take_fd(conn);
    turns(3);
    assert_int_equal(seen.data_calls, 0);
    assert_int_equal(recv(seen.taken, got, sizeof(got), MSG_DONTWAIT), 5);
}

static void taken_when_connected(void **state) {
    (void)state;
    char got[8];
    seen.takes_when_connected = true;
    begin_connect();
    do {
        peer = sock_accept(listener, NULL);
    } while (peer == -EAGAIN);
    /* readable and writable at once */
    assert_int_equal(send(peer, "early", 5, MSG_NOSIGNAL), 5);
    turns(3);
    assert_int_equal(seen.connects, 1);
    assert_int_equal(seen.closes, 1);
    assert_int_equal(seen.data_calls, 0);
    assert_int_equal(recv(seen.taken, got, sizeof(got), MSG_DONTWAIT), 5);
    assert_passes(seen.taken, peer, "answer");
}

static void its_number_is_not_ours_any_more(void **state) {
    (void)state;
    int fds[2];
    open_pair();
    int fd = conn_take_fd(conn);
    close(fd);
    assert_int_equal(pipe(fds), 0); /* the same number, for something else */
    assert_true(fds[0] == fd || fds[1] == fd);
    turns(3);
    assert_int_equal(write(fds[1], "x", 1), 1);
    close(fds[0]);
    close(fds[1]);
}

#ifdef SLUICE_DEBUG
static void take_while_connecting(void) {
    begin_connect();
    conn_take_fd(conn);
}
static void take_after_a_read(void) {
    open_pair();
    (void)!send(peer, "x", 1, MSG_NOSIGNAL);
    turns(2);
    conn_take_fd(conn);
}
static void take_with_bytes_to_send(void) {
    struct buf b;
    open_pair();
    buf_init(&b);
    buf_append_sv(&b, SV("x"));
    conn_write(conn, &b, false);
    conn_take_fd(conn);
}
static void take_while_closing(void) {
    open_pair();
    conn->delayed_close_ms = 1000;
    conn_close(conn, CONN_CLOSE_FLUSH_DELAY, "test");
    conn_take_fd(conn);
}

static void only_an_untouched_one_may_be_taken(void **state) {
    (void)state;
    assert_true(aborts(take_while_connecting));
    assert_true(aborts(take_after_a_read));
    assert_true(aborts(take_with_bytes_to_send));
    assert_true(aborts(take_while_closing));
}
#endif

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(fd_is_taken),
        TEST(bytes_before_it_are_left_in),
        TEST(taken_when_connected),
        TEST(its_number_is_not_ours_any_more),
#ifdef SLUICE_DEBUG
        TEST(only_an_untouched_one_may_be_taken),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
