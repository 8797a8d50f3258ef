/* Connections over socketpairs and loopback TCP: delivery, half-close, watermarks, closing,
 * resets. */
#include <errno.h>
#include <stdio.h>
#include <sys/socket.h>

#include "proxy/base/mem.h"
#include "proxy/net/conn.h"
#include "proxy/net/sock.h"
#include "proxy/net/transport.h"
#include "tests/support/unit.h"

static struct loop loop;

/* A conn under test, its peer's fd, and what its callbacks saw. */
struct side {
    struct conn *c;
    int peer;
    struct buf got;
    bool end, connected, keep_data; /* keep_data: on_data takes nothing */
    int closed;                     /* -1: no, else enum conn_event */
    bool was_reset;
    unsigned above, below, data_calls;
    size_t sent;
    enum conn_close_type close_in_data;
    bool closes_in_data, disables_in_data;
};
static struct side s;

static void on_data(struct conn *c, void *user, struct buf *data, bool end_stream) {
    struct side *x = user;
    assert_ptr_equal(c, x->c);
    x->data_calls++;
    assert_false(x->end); /* nothing after the end */
    x->end = end_stream;
    if (x->disables_in_data) {
        conn_read_disable(c, true);
    }
    if (!x->keep_data) {
        buf_move(&x->got, data);
    }
    if (x->closes_in_data) {
        conn_close(c, x->close_in_data, "test");
    }
}
static void on_event(struct conn *c, void *user, enum conn_event e) {
    struct side *x = user;
    assert_int_equal(x->closed, -1);
    if (e == CONN_EVENT_CONNECTED) {
        assert_false(x->connected);
        x->connected = true;
        return;
    }
    x->closed = (int)e;
    x->was_reset = c->detect_reset;
}
static void on_above(struct conn *c, void *user) {
    (void)c;
    ((struct side *)user)->above++;
}
static void on_below(struct conn *c, void *user) {
    (void)c;
    ((struct side *)user)->below++;
}
static void on_sent(struct conn *c, void *user, size_t n) {
    (void)c;
    ((struct side *)user)->sent += n;
}
static const struct conn_ops ops = {on_data, on_event, on_above, on_below, on_sent};

static void turns(unsigned n) {
    while (n--) {
        loop_run_nowait(&loop);
    }
}

/* ---- set-up ---- */

static void begin(void) {
    memset(&s, 0, sizeof(s));
    buf_init(&s.got);
    s.closed = -1;
    s.peer = -1;
}

static void pair_of(int domain, int fds[2]) {
    if (domain == AF_UNIX) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
        return;
    }
    struct addr any, bound;
    bool in_progress;
    assert_true(addr_parse_ip_port(SV("127.0.0.1:0"), &any));
    int listener = sock_listen(&any, NULL, 4, false, &bound);
    assert_true(listener >= 0);
    fds[1] = sock_connect(&bound, NULL, NULL, &in_progress);
    assert_true(fds[1] >= 0);
    do {
        fds[0] = sock_accept(listener, NULL);
    } while (fds[0] == -EAGAIN);
    assert_true(fds[0] >= 0);
    close(listener);
}

static void open_side(int domain) {
    int fds[2];
    begin();
    pair_of(domain, fds);
    s.peer = fds[1];
    s.c = conn_new_accepted(&loop, fds[0], transport_raw_new(), &ops, &s);
    assert_false(s.connected);
    conn_start(s.c);
    assert_true(s.connected);
}

static int setup_unix(void **state) {
    (void)state;
    assert_int_equal(loop_init(&loop, 0), 0);
    open_side(AF_UNIX);
    return 0;
}
static int setup_tcp(void **state) {
    (void)state;
    assert_int_equal(loop_init(&loop, 0), 0);
    open_side(AF_INET);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    if (s.c && s.closed < 0) {
        conn_close(s.c, CONN_CLOSE_NO_FLUSH, NULL);
    }
    turns(2);
    if (s.peer >= 0) {
        close(s.peer);
    }
    buf_fini(&s.got);
    loop_fini(&loop);
    transport_read_chunk_drop();
    chunk_cache_trim();
    return 0;
}

static void peer_sends(const char *text) {
    assert_int_equal(write(s.peer, text, strlen(text)), strlen(text));
    turns(2);
}
static void assert_got(const char *want) {
    char *text = buf_dup_str(&s.got);
    assert_string_equal(text, want);
    xfree(text);
}
static void writes(const char *text, bool end) {
    struct buf b;
    buf_init(&b);
    buf_append_sv(&b, sv_cstr(text));
    conn_write(s.c, &b, end);
    assert_true(buf_empty(&b));
    buf_fini(&b);
}
static void writes_n(size_t n) {
    struct buf b;
    buf_init(&b);
    char *p = buf_reserve(&b, n);
    memset(p, 'w', n);
    buf_commit(&b, n);
    conn_write(s.c, &b, false);
    buf_fini(&b);
}
/* What the peer can read now; -1: nothing; 0 with *end: end of stream. */
static ssize_t peer_reads(char *out, size_t n) {
    ssize_t got = recv(s.peer, out, n, MSG_DONTWAIT);
    return got < 0 ? -errno : got;
}
static size_t peer_drains(void) {
    static char sink[1 << 16];
    size_t total = 0;
    ssize_t n;
    while ((n = peer_reads(sink, sizeof(sink))) > 0) {
        total += (size_t)n;
    }
    return total;
}

/* ---- delivery ---- */

static void data_both_ways(void **state) {
    (void)state;
    peer_sends("hello");
    assert_got("hello");
    assert_int_equal(s.c->rx_bytes, 5);
    writes("a", false);
    writes("b", false);
    char text[8];
    assert_int_equal(peer_reads(text, sizeof(text)), -EAGAIN); /* waits for the end of the batch */
    turns(1);
    assert_int_equal(peer_reads(text, sizeof(text)), 2);
    assert_memory_equal(text, "ab", 2);
    assert_int_equal(s.sent, 2);
    assert_int_equal(s.c->tx_bytes, 2);
}

static void one_receive_is_one_call(void **state) {
    (void)state;
    uint64_t rx = 0, tx = 0;
    s.c->stats = (struct conn_stats){.rx_bytes_total = &rx, .tx_bytes_total = &tx};
    for (unsigned i = 1; i < 5; i++) {
        peer_sends("0123456789");
        assert_int_equal(s.data_calls, i);
    }
    writes("xyz", false);
    conn_flush_now(s.c);
    assert_int_equal(rx, 40);
    assert_int_equal(tx, 3);
}

static void kept_data_is_offered_again(void **state) {
    (void)state;
    s.keep_data = true;
    peer_sends("ab");
    peer_sends("cd");
    assert_int_equal(s.data_calls, 2);
    assert_int_equal(buf_len(&s.c->in_), 4);
    assert_true(buf_slice(&s.c->in_, 0)->chunk->cap <
                4096); /* a few bytes never hold the read chunk */
    s.keep_data = false;
    conn_resume(s.c);
    assert_int_equal(s.data_calls, 2);
    turns(1);
    assert_got("abcd");
}

static void nobody_taking_stops_reading(void **state) {
    (void)state;
    s.keep_data = true;
    s.c->buffer_limit_bytes = 1000;
    static char block[4096];
    size_t written = 0;
    for (int i = 0; i < 200; i++) {
        ssize_t n = write(s.peer, block, sizeof(block));
        written += n > 0 ? (size_t)n : 0;
        turns(1);
    }
    assert_in_range(buf_len(&s.c->in_), 1000, 65536 + 4096);
    s.keep_data = false;
    conn_resume(s.c);
    for (int i = 0; i < 2000 && buf_len(&s.got) < written; i++) {
        turns(1);
    }
    assert_int_equal(buf_len(&s.got), written);
}

static void small_limit_reads_small(void **state) {
    (void)state;
    s.c->buffer_limit_bytes = 100;
    static char block[4096];
    assert_int_equal(write(s.peer, block, 1000), 1000);
    turns(1);
    assert_int_equal(buf_len(&s.got), 100);
    turns(20);
    assert_int_equal(buf_len(&s.got), 1000);
    assert_int_equal(s.data_calls, 10);
}

static void read_disable_nests(void **state) {
    (void)state;
    conn_read_disable(s.c, true);
    conn_read_disable(s.c, true);
    peer_sends("x");
    assert_int_equal(s.data_calls, 0);
    conn_read_disable(s.c, false);
    turns(2);
    assert_int_equal(s.data_calls, 0);
    conn_read_disable(s.c, false);
    assert_int_equal(s.data_calls, 0); /* not from inside the call */
    turns(1);
    assert_got("x");
}

static void disabled_in_on_data(void **state) {
    (void)state;
    s.keep_data = s.disables_in_data = true;
    peer_sends("ab");
    peer_sends("cd");
    assert_int_equal(s.data_calls, 1);
    s.keep_data = s.disables_in_data = false;
    conn_read_disable(s.c, false);
    turns(2);
    assert_got("abcd");
}

static void close_is_seen_after_enabling(void **state) {
    (void)state;
    conn_read_disable(s.c, true);
    peer_sends("last");
    close(s.peer);
    s.peer = -1;
    turns(5);
    assert_int_equal(s.closed, -1);
    conn_read_disable(s.c, false);
    turns(3);
    assert_got("last");
    assert_int_equal(s.closed, CONN_EVENT_REMOTE_CLOSE);
    assert_false(s.was_reset);
}

static void unread_comes_first(void **state) {
    (void)state;
    struct buf b;
    buf_init(&b);
    buf_lit(&b, "peeked ");
    assert_int_equal(write(s.peer, "rest", 4), 4);
    conn_unread(s.c, &b);
    assert_true(buf_empty(&b));
    turns(3);
    assert_got("peeked rest");
    buf_fini(&b);
}

/* ---- half-close ---- */

static void half_close_of_the_peer(void **state) {
    (void)state;
    s.c->half_close_enabled = true;
    assert_int_equal(write(s.peer, "req", 3), 3);
    shutdown(s.peer, SHUT_WR);
    turns(3);
    assert_got("req");
    assert_true(s.end);
    assert_int_equal(s.closed, -1);
    writes("answer", true);
    turns(2);
    char text[16];
    assert_int_equal(peer_reads(text, sizeof(text)), 6);
    assert_int_equal(peer_reads(text, sizeof(text)), 0);
    assert_int_equal(s.closed, CONN_EVENT_REMOTE_CLOSE); /* both directions have ended */
}

static void half_close_of_ours(void **state) {
    (void)state;
    s.c->half_close_enabled = true;
    writes("req", true);
    turns(1);
    char text[16];
    assert_int_equal(peer_reads(text, sizeof(text)), 3);
    assert_int_equal(peer_reads(text, sizeof(text)), 0);
    writes("after the end", false); /* goes nowhere */
    turns(1);
    peer_sends("answer");
    assert_got("answer");
    shutdown(s.peer, SHUT_WR);
    turns(2);
    assert_true(s.end);
    assert_int_equal(s.closed, CONN_EVENT_REMOTE_CLOSE);
}

static void half_close_disabled(void **state) {
    (void)state;
    assert_int_equal(write(s.peer, "req", 3), 3);
    shutdown(s.peer, SHUT_WR);
    turns(3);
    assert_got("req");
    assert_false(s.end);
    assert_int_equal(s.closed, CONN_EVENT_REMOTE_CLOSE);
}

/* ---- watermarks ---- */

static void watermarks(void **state) {
    (void)state;
    conn_set_buffer_limit(s.c, 1000);
    writes_n(1000);
    assert_int_equal(s.above, 0);
    writes_n(1);
    assert_int_equal(s.above, 1);
    writes_n(1);
    assert_int_equal(s.above, 1);
    assert_true(conn_above_high(s.c));
    turns(1);
    assert_int_equal(s.below, 1);
    assert_int_equal(peer_drains(), 1002);
}

static void low_is_half_of_high(void **state) {
    (void)state;
    enum { BIG = 4 << 20 };
    conn_set_buffer_limit(s.c, BIG);
    writes_n(BIG + 1);
    assert_int_equal(s.above, 1);
    turns(1);
    size_t left = conn_buffered_out(s.c);
    assert_in_range(left, 1, BIG);
    bool was_above = left > BIG / 2;
    while (conn_buffered_out(s.c)) {
        assert_true((conn_buffered_out(s.c) <= BIG / 2) == (s.below == 1));
        peer_drains();
        turns(1);
    }
    assert_true(was_above);
    assert_int_equal(s.below, 1);
    assert_int_equal(s.sent, BIG + 1);
}

/* The gauges tell what a turn left behind, and nothing of a closed connection. */
static void buffered_gauges(void **state) {
    (void)state;
    enum { BIG = 4 << 20 };
    uint64_t rx = 7, tx = 7; /* other connections' share */
    s.c->stats.rx_bytes_buffered = &rx;
    s.c->stats.tx_bytes_buffered = &tx;
    writes_n(100);
    turns(1);
    assert_int_equal(tx, 7); /* went out at once */
    writes_n(BIG);
    turns(1);
    assert_in_range(tx, 8, 7 + BIG);
    assert_int_equal(tx, 7 + conn_buffered_out(s.c));
    writes_n(100); /* the kernel is full: it stays */
    assert_int_equal(tx, 7 + conn_buffered_out(s.c));
    while (conn_buffered_out(s.c)) {
        peer_drains();
        turns(1);
        assert_int_equal(tx, 7 + conn_buffered_out(s.c));
    }
    assert_int_equal(tx, 7);
    s.keep_data = true;
    peer_sends("abc");
    turns(1);
    assert_int_equal(rx, 10);
    peer_sends("de");
    turns(1);
    assert_int_equal(rx, 12);
    writes_n(BIG);
    turns(1);
    assert_true(tx > 7);
    conn_close(s.c, CONN_CLOSE_NO_FLUSH, NULL);
    assert_int_equal(rx, 7);
    assert_int_equal(tx, 7);
    turns(1);
    assert_int_equal(tx, 7);
}

static void limit_raised_and_removed(void **state) {
    (void)state;
    conn_set_buffer_limit(s.c, 10);
    writes_n(100);
    assert_int_equal(s.above, 1);
    conn_set_buffer_limit(s.c, 1000);
    assert_int_equal(s.below, 1);
    conn_set_buffer_limit(s.c, 20);
    assert_int_equal(s.above, 2);
    conn_set_buffer_limit(s.c, 0);
    assert_int_equal(s.below, 2);
}

/* ---- closing ---- */

static void no_flush_is_immediate(void **state) {
    (void)state;
    writes("bye", false);
    conn_close(s.c, CONN_CLOSE_NO_FLUSH, "because");
    assert_int_equal(s.closed, CONN_EVENT_LOCAL_CLOSE);
    assert_string_equal(s.c->close_reason, "because"); /* memory lives until the turn ends */
    conn_close(s.c, CONN_CLOSE_ABORT_RESET, NULL);
    writes("ignored", false);
    conn_read_disable(s.c, true);
    char text[8];
    assert_int_equal(peer_reads(text, sizeof(text)), 3); /* one try to send */
    assert_int_equal(peer_reads(text, sizeof(text)), 0);
}

static void flush_sends_first(void **state) {
    (void)state;
    writes("bye", false);
    conn_close(s.c, CONN_CLOSE_FLUSH, NULL);
    assert_int_equal(s.closed, -1);
    writes("too late", false);
    assert_int_equal(write(s.peer, "not delivered", 13), 13);
    turns(1);
    assert_int_equal(s.closed, CONN_EVENT_LOCAL_CLOSE);
    char text[16];
    assert_int_equal(peer_reads(text, sizeof(text)), 3);
    assert_int_equal(s.data_calls, 0);
}

static void flush_of_nothing(void **state) {
    (void)state;
    conn_close(s.c, CONN_CLOSE_FLUSH, NULL);
    assert_int_equal(s.closed, CONN_EVENT_LOCAL_CLOSE);
}

static void flush_of_much(void **state) {
    (void)state;
    writes_n(8 << 20);
    conn_close(s.c, CONN_CLOSE_FLUSH, NULL);
    size_t got = 0;
    while (s.closed < 0) {
        turns(1);
        got += peer_drains();
    }
    got += peer_drains();
    assert_int_equal(got, 8 << 20);
    assert_int_equal(s.closed, CONN_EVENT_LOCAL_CLOSE);
}

static void flush_stalls_until_the_timer(void **state) {
    (void)state;
    uint64_t timeouts = 0;
    s.c->stats.delayed_close_timeouts = &timeouts;
    s.c->delayed_close_ms = 100;
    writes_n(8 << 20);
    conn_close(s.c, CONN_CLOSE_FLUSH, NULL);
    turns(2);
    assert_int_equal(s.closed, -1);
    while (s.closed < 0) {
        turns(1);
    }
    assert_int_equal(s.closed, CONN_EVENT_LOCAL_CLOSE);
    assert_int_equal(timeouts, 1);
}

static void delay_waits_for_the_peer(void **state) {
    (void)state;
    s.c->delayed_close_ms = 60000;
    writes("bye", false);
    conn_close(s.c, CONN_CLOSE_FLUSH_DELAY, NULL);
    turns(2);
    assert_int_equal(s.closed, -1);
    char text[8];
    assert_int_equal(peer_reads(text, sizeof(text)), 3);
    assert_int_equal(peer_reads(text, sizeof(text)), 0); /* half-closed */
    peer_sends("thrown away");
    assert_int_equal(s.closed, -1);
    close(s.peer);
    s.peer = -1;
    turns(2);
    assert_int_equal(s.closed, CONN_EVENT_REMOTE_CLOSE);
    assert_int_equal(s.data_calls, 0);
}

static void delay_ends_by_timer(void **state) {
    (void)state;
    uint64_t timeouts = 0;
    s.c->stats.delayed_close_timeouts = &timeouts;
    s.c->delayed_close_ms = 3;
    conn_close(s.c, CONN_CLOSE_FLUSH_DELAY, NULL);
    assert_int_equal(s.closed, -1);
    while (s.closed < 0) {
        turns(1);
    }
    assert_int_equal(s.closed, CONN_EVENT_LOCAL_CLOSE);
    assert_int_equal(timeouts, 1);
}

static void delay_without_a_bound_is_a_flush(void **state) {
    (void)state;
    writes("bye", false);
    conn_close(s.c, CONN_CLOSE_FLUSH_DELAY, NULL);
    turns(1);
    assert_int_equal(s.closed, CONN_EVENT_LOCAL_CLOSE);
}

static void harder_close_overrides(void **state) {
    (void)state;
    s.c->delayed_close_ms = 60000;
    conn_close(s.c, CONN_CLOSE_FLUSH_DELAY, NULL);
    conn_close(s.c, CONN_CLOSE_FLUSH, NULL);
    assert_int_equal(s.closed, -1);
    conn_close(s.c, CONN_CLOSE_NO_FLUSH, NULL);
    assert_int_equal(s.closed, CONN_EVENT_LOCAL_CLOSE);
}

static void closed_inside_on_data(void **state) {
    (void)state;
    s.closes_in_data = true;
    s.close_in_data = CONN_CLOSE_NO_FLUSH;
    peer_sends("x");
    assert_int_equal(s.closed, CONN_EVENT_LOCAL_CLOSE);
    assert_int_equal(s.data_calls, 1);
}

static void closed_before_start(void **state) {
    (void)state;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    struct side x = {.closed = -1};
    x.c = conn_new_accepted(&loop, fds[0], transport_raw_new(), &ops, &x);
    conn_close(x.c, CONN_CLOSE_NO_FLUSH, NULL);
    assert_int_equal(x.closed, CONN_EVENT_LOCAL_CLOSE);
    conn_start(x.c);
    turns(1);
    assert_int_equal(recv(fds[1], &x, 1, MSG_DONTWAIT), 0);
    close(fds[1]);
}

/* ---- resets ---- */

static void abort_sends_a_reset(void **state) {
    (void)state;
    writes("never sent", false);
    conn_close(s.c, CONN_CLOSE_ABORT_RESET, NULL);
    assert_int_equal(s.closed, CONN_EVENT_LOCAL_CLOSE);
    turns(1);
    char text[8];
    assert_int_equal(peer_reads(text, sizeof(text)), -ECONNRESET);
}

static void peer_resets(void) {
    sock_reset_on_close(s.peer);
    close(s.peer);
    s.peer = -1;
}

static void reset_of_the_peer(void **state) {
    (void)state;
    s.c->half_close_enabled = true;
    peer_resets();
    turns(2);
    assert_int_equal(s.closed, CONN_EVENT_REMOTE_CLOSE);
    assert_true(s.was_reset);
    assert_false(s.end);
}

static void write_after_reset(void **state) {
    (void)state;
    s.c->half_close_enabled = true;
    peer_resets();
    writes("x", false);
    conn_flush_now(s.c);
    writes("y", false);
    turns(3);
    assert_int_equal(s.closed, CONN_EVENT_REMOTE_CLOSE);
    assert_true(s.was_reset);
    assert_false(s.end); /* no clean end of stream */
}

static void early_answer_before_the_reset(void **state) {
    (void)state;
    conn_read_disable(s.c, true);
    assert_int_equal(write(s.peer, "413", 3), 3);
    writes("a body the peer does not want", false);
    turns(1);
    close(s.peer); /* with unread bytes: the kernel answers with a reset */
    s.peer = -1;
    writes("more of it", false);
    conn_read_disable(s.c, false);
    conn_flush_now(s.c);
    turns(3);
    assert_got("413");
    assert_int_equal(s.closed, CONN_EVENT_REMOTE_CLOSE);
    assert_true(s.was_reset);
}

static void write_error_without_a_reader(void **state) {
    (void)state;
    conn_read_disable(s.c, true);
    peer_resets();
    writes("x", false);
    turns(1);
    assert_int_equal(s.closed, CONN_EVENT_REMOTE_CLOSE);
    assert_true(s.was_reset);
}

/* ---- pooled connections ---- */

static void stale_or_not(void **state) {
    (void)state;
    assert_false(conn_is_stale(s.c));
    assert_int_equal(write(s.peer, "?", 1), 1);
    assert_true(conn_is_stale(s.c)); /* unasked bytes */
    turns(1);
    assert_false(conn_is_stale(s.c));
    close(s.peer);
    s.peer = -1;
    assert_true(conn_is_stale(s.c));
}

/* ---- connecting ---- */

static int setup_loop(void **state) {
    (void)state;
    begin();
    return loop_init(&loop, 0);
}

static void connects(void **state) {
    (void)state;
    struct addr any, bound;
    int err;
    assert_true(addr_parse_ip_port(SV("127.0.0.1:0"), &any));
    int listener = sock_listen(&any, NULL, 4, false, &bound);
    s.c = conn_connect(&loop, &bound, NULL, NULL, transport_raw_new(), &ops, &s, &err);
    assert_non_null(s.c);
    writes("early", false); /* waits for the connect */
    assert_false(s.connected);
    turns(3);
    assert_true(s.connected);
    assert_true(s.c->local.port != 0);
    s.peer = sock_accept(listener, NULL);
    assert_true(s.peer >= 0);
    turns(1);
    char text[8];
    assert_int_equal(peer_reads(text, sizeof(text)), 5);
    assert_int_equal(conn_transport_failure(s.c).n, 0);
    close(listener);
}

static void connect_refused(void **state) {
    (void)state;
    struct addr any, bound;
    int err;
    assert_true(addr_parse_ip_port(SV("127.0.0.1:0"), &any));
    int fd = sock_listen(&any, NULL, 4, true, &bound); /* bound, not listening */
    assert_true(fd >= 0);
    s.c = conn_connect(&loop, &bound, NULL, NULL, transport_raw_new(), &ops, &s, &err);
    assert_non_null(s.c);
    assert_int_equal(s.closed, -1);
    loop_run_nowait(&loop);
    assert_int_equal(s.closed, CONN_EVENT_REMOTE_CLOSE);
    assert_false(s.connected);
    close(fd);
}

static struct conn *failed;
static char failure[64];
static void on_failure(struct conn *c, void *user, enum conn_event e) {
    sv text = conn_transport_failure(c);
    snprintf(failure, sizeof(failure), "%.*s", SV_ARG(text));
    failed = c;
    on_event(c, user, e);
}
static void connect_failure_is_told(void **state) {
    (void)state;
    static const struct conn_ops failing = {.on_data = on_data, .on_event = on_failure};
    struct addr any, bound;
    int err;
    assert_true(addr_parse_ip_port(SV("127.0.0.1:0"), &any));
    int fd = sock_listen(&any, NULL, 4, true, &bound);
    s.c = conn_connect(&loop, &bound, NULL, NULL, transport_raw_new(), &failing, &s, &err);
    turns(2);
    assert_ptr_equal(failed, s.c);
    assert_string_equal(failure, "delayed connect error: Connection refused");
    close(fd);
}

static const struct addr internal = {.family = ADDR_INTERNAL, .scope_id = 1, .path = "l/id"};

/* The other end of a connection to an internal listener. */
static int connect_internally(const struct conn_ops *with) {
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    s.c = conn_connect_internal(&loop, fds[0], &internal, transport_raw_new(), with, &s);
    return fds[1];
}

static void internal_listener_refuses(void **state) {
    (void)state;
    static const struct conn_ops failing = {.on_data = on_data, .on_event = on_failure};
    close(connect_internally(&failing));
    turns(2);
    assert_ptr_equal(failed, s.c);
    assert_string_equal(failure, "delayed connect error: Invalid argument");
}

static void connect_internal(void **state) {
    (void)state;
    int other = connect_internally(&ops);
    turns(2);
    assert_int_equal(s.c->state, CONN_OPEN);
    assert_true(addr_eq(&s.c->local, &addr_internal_client) && addr_eq(&s.c->remote, &internal));
    conn_close(s.c, CONN_CLOSE_NO_FLUSH, NULL);
    turns(1);
    close(other);
}

static void connect_cannot_begin(void **state) {
    (void)state;
    struct addr a;
    int err = 0;
    addr_set_path(&a, "/nonexistent/socket");
    assert_null(conn_connect(&loop, &a, NULL, NULL, transport_raw_new(), &ops, &s, &err));
    assert_int_equal(err, -ENOENT);
}

static void closed_while_connecting(void **state) {
    (void)state;
    struct addr any, bound;
    int err;
    assert_true(addr_parse_ip_port(SV("127.0.0.1:0"), &any));
    int listener = sock_listen(&any, NULL, 4, false, &bound);
    s.c = conn_connect(&loop, &bound, NULL, NULL, transport_raw_new(), &ops, &s, &err);
    writes("pending", false);
    conn_close(s.c, CONN_CLOSE_FLUSH, "connect timeout");
    assert_int_equal(s.closed, CONN_EVENT_LOCAL_CLOSE);
    turns(2);
    assert_false(s.connected);
    close(listener);
}

/* ---- a transport with a handshake ---- */

/* Ready after one byte 'k'; fails on 'f'. */
static void slow_on_connected(struct transport *t) { (void)t; }
static struct transport_result slow_read(struct transport *t, struct buf *in, size_t max) {
    struct transport_result r = {0};
    char byte;
    if (t->conn->state == CONN_HANDSHAKE) {
        ssize_t n = recv(t->conn->fd, &byte, 1, 0);
        if (n == 1 && byte == 'k') {
            conn_transport_ready(t->conn);
            assert_int_equal(t->conn->state, CONN_HANDSHAKE); /* told after this call */
            r.again = true;
        } else if (n >= 0) {
            r.action = TRANSPORT_CLOSE;
        }
        return r;
    }
    char *p = buf_reserve(in, max < 100 ? max : 100);
    ssize_t n = recv(t->conn->fd, p, max < 100 ? max : 100, 0);
    buf_commit(in, n > 0 ? (size_t)n : 0);
    r.bytes = n > 0 ? (size_t)n : 0;
    r.end_stream = n == 0;
    r.again = n > 0;
    return r;
}
static struct transport_result slow_write(struct transport *t, struct buf *out, bool end_stream) {
    (void)end_stream;
    struct transport_result r = {0};
    if (t->conn->state != CONN_HANDSHAKE && !buf_empty(out)) {
        sv front = buf_front(out);
        ssize_t n = send(t->conn->fd, front.p, front.n, MSG_NOSIGNAL);
        assert_true(n > 0);
        r.bytes = (size_t)n;
        buf_drain(out, (size_t)n);
    }
    return r;
}
static void slow_close(struct transport *t) { (void)t; }
static void slow_destroy(struct transport *t) { xfree(t); }
static sv slow_text(const struct transport *t) {
    (void)t;
    return SV("slow");
}
static const struct ssl_info *slow_ssl(const struct transport *t) {
    (void)t;
    return NULL;
}
static const struct transport_ops slow_ops = {.name = "slow",
                                              .on_connected = slow_on_connected,
                                              .read = slow_read,
                                              .write = slow_write,
                                              .close = slow_close,
                                              .destroy = slow_destroy,
                                              .protocol = slow_text,
                                              .failure_reason = slow_text,
                                              .ssl = slow_ssl};

static int setup_slow(void **state) {
    (void)state;
    int fds[2];
    assert_int_equal(loop_init(&loop, 0), 0);
    begin();
    pair_of(AF_UNIX, fds);
    s.peer = fds[1];
    struct transport *t = xnew(struct transport);
    t->ops = &slow_ops;
    s.c = conn_new_accepted(&loop, fds[0], t, &ops, &s);
    conn_start(s.c);
    assert_false(s.connected);
    return 0;
}

static void handshake_then_data(void **state) {
    (void)state;
    writes("queued", false);
    turns(2);
    char text[16];
    assert_int_equal(peer_reads(text, sizeof(text)), -EAGAIN);
    peer_sends("kdata");
    assert_true(s.connected);
    assert_got("data");
    assert_int_equal(peer_reads(text, sizeof(text)), 6);
    assert_sv_is(conn_alpn(s.c), "slow");
}

static void handshake_fails(void **state) {
    (void)state;
    peer_sends("f");
    assert_int_equal(s.closed, CONN_EVENT_REMOTE_CLOSE);
    assert_false(s.connected);
}

static void handshake_times_out(void **state) {
    (void)state;
    uint64_t timeouts = 0;
    s.c->stats.transport_timeouts = &timeouts;
    conn_set_transport_timeout(s.c, 3);
    while (s.closed < 0) {
        turns(1);
    }
    assert_int_equal(s.closed, CONN_EVENT_LOCAL_CLOSE);
    assert_int_equal(timeouts, 1);
}

static void ready_from_elsewhere(void **state) {
    (void)state;
    assert_int_equal(write(s.peer, "x", 1), 1);
    conn_transport_ready(s.c); /* an asynchronous check ended */
    assert_true(s.connected);
    conn_set_transport_timeout(s.c, 1); /* too late to matter */
    turns(3);
    assert_got("x");
}

static void failed_from_elsewhere(void **state) {
    (void)state;
    conn_transport_failed(s.c);
    assert_int_equal(s.closed, CONN_EVENT_REMOTE_CLOSE);
    conn_transport_ready(s.c);
    assert_false(s.connected);
}

/* Bytes the transport holds are delivered although the fd is silent. */
static void held_bytes_are_delivered(void **state) {
    (void)state;
    char block[1000];
    memset(block, 'b', sizeof(block));
    block[0] = 'k';
    assert_int_equal(write(s.peer, block, sizeof(block)), sizeof(block));
    turns(4);
    assert_int_equal(buf_len(&s.got), 999);
}

#define UNIX_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup_unix, teardown)
#define TCP_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup_tcp, teardown)
#define LOOP_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup_loop, teardown)
#define SLOW_TEST(fn) cmocka_unit_test_setup_teardown(fn, setup_slow, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        UNIX_TEST(data_both_ways),
        UNIX_TEST(one_receive_is_one_call),
        UNIX_TEST(kept_data_is_offered_again),
        UNIX_TEST(nobody_taking_stops_reading),
        UNIX_TEST(small_limit_reads_small),
        UNIX_TEST(read_disable_nests),
        UNIX_TEST(disabled_in_on_data),
        UNIX_TEST(close_is_seen_after_enabling),
        UNIX_TEST(unread_comes_first),
        UNIX_TEST(half_close_of_the_peer),
        TCP_TEST(half_close_of_the_peer),
        UNIX_TEST(half_close_of_ours),
        UNIX_TEST(half_close_disabled),
        UNIX_TEST(watermarks),
        UNIX_TEST(low_is_half_of_high),
        UNIX_TEST(buffered_gauges),
        UNIX_TEST(limit_raised_and_removed),
        UNIX_TEST(no_flush_is_immediate),
        UNIX_TEST(flush_sends_first),
        UNIX_TEST(flush_of_nothing),
        UNIX_TEST(flush_of_much),
        UNIX_TEST(flush_stalls_until_the_timer),
        UNIX_TEST(delay_waits_for_the_peer),
        TCP_TEST(delay_waits_for_the_peer),
        UNIX_TEST(delay_ends_by_timer),
        UNIX_TEST(delay_without_a_bound_is_a_flush),
        UNIX_TEST(harder_close_overrides),
        UNIX_TEST(closed_inside_on_data),
        UNIX_TEST(closed_before_start),
        TCP_TEST(abort_sends_a_reset),
        TCP_TEST(reset_of_the_peer),
        TCP_TEST(write_after_reset),
        TCP_TEST(early_answer_before_the_reset),
        TCP_TEST(write_error_without_a_reader),
        UNIX_TEST(stale_or_not),
        LOOP_TEST(connects),
        LOOP_TEST(connect_refused),
        LOOP_TEST(connect_failure_is_told),
        LOOP_TEST(internal_listener_refuses),
        LOOP_TEST(connect_internal),
        LOOP_TEST(connect_cannot_begin),
        LOOP_TEST(closed_while_connecting),
        SLOW_TEST(handshake_then_data),
        SLOW_TEST(handshake_fails),
        SLOW_TEST(handshake_times_out),
        SLOW_TEST(ready_from_elsewhere),
        SLOW_TEST(failed_from_elsewhere),
        SLOW_TEST(held_bytes_are_delivered),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
