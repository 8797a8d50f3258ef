/* Relays between two TCP connections: recv/send first, splicing for bulk, order, back-pressure,
 * ends and resets. */
#include <errno.h>
#include <sys/socket.h>

#include "proxy/base/mem.h"
#include "proxy/net/conn.h"
#include "proxy/net/sock.h"
#include "proxy/net/splice.h"
#include "proxy/net/transport.h"
#include "tests/support/unit.h"

static struct loop loop;

/* One end of the relay: its conn, the far peer's fd, and the other end. */
struct end {
    struct conn *c;
    int peer;
    struct end *other;
    struct splice out; /* from this end to the other one */
    bool closed, saw_end;
    size_t on_data_bytes, moved_bytes, sent_bytes;
    bool closes_when_moved;
};
static struct end a, b;

static void on_data(struct conn *c, void *user, struct buf *data, bool end_stream) {
    struct end *e = user;
    (void)c;
    e->on_data_bytes += buf_len(data);
    e->saw_end = e->saw_end || end_stream;
    conn_write(e->other->c, data, end_stream);
}
static void on_event(struct conn *c, void *user, enum conn_event ev) {
    struct end *e = user;
    (void)c;
    if (ev == CONN_EVENT_CONNECTED) {
        return;
    }
    e->closed = true;
    if (!e->other->closed) {
        conn_close(e->other->c, CONN_CLOSE_FLUSH, NULL);
    }
}
static void on_above(struct conn *c, void *user) {
    (void)c;
    struct end *e = user;
    if (!e->other->closed) {
        conn_read_disable(e->other->c, true);
    }
}
static void on_below(struct conn *c, void *user) {
    (void)c;
    struct end *e = user;
    if (!e->other->closed) {
        conn_read_disable(e->other->c, false);
    }
}
static void on_sent(struct conn *c, void *user, size_t n) {
    (void)c;
    ((struct end *)user)->sent_bytes += n;
}
static const struct conn_ops ops = {on_data, on_event, on_above, on_below, on_sent};

static void on_moved(struct splice *s, size_t n) {
    struct end *e = s == &a.out ? &a : &b;
    e->moved_bytes += n;
    if (e->closes_when_moved) {
        conn_close(e->other->c, CONN_CLOSE_NO_FLUSH, NULL);
    }
}

static void open_end(struct end *e, struct end *other) {
    struct addr any, bound;
    bool in_progress;
    *e = (struct end){.other = other};
    assert_true(addr_parse_ip_port(SV("127.0.0.1:0"), &any));
    int listener = sock_listen(&any, NULL, 4, false, &bound);
    e->peer = sock_connect(&bound, NULL, NULL, &in_progress);
    int fd;
    do {
        fd = sock_accept(listener, NULL);
    } while (fd == -EAGAIN);
    assert_true(fd >= 0 && e->peer >= 0);
    close(listener);
    e->c = conn_new_accepted(&loop, fd, transport_raw_new(), &ops, e);
    e->c->half_close_enabled = true;
    conn_set_buffer_limit(e->c, 1 << 20);
    conn_start(e->c);
}

static int setup(void **state) {
    (void)state;
    assert_int_equal(loop_init(&loop, 0), 0);
    open_end(&a, &b);
    open_end(&b, &a);
    assert_true(splice_possible(a.c, b.c));
    splice_start(&a.out, a.c, b.c, on_moved);
    splice_start(&b.out, b.c, a.c, on_moved);
    return 0;
}

static void turn(void) { loop_run_nowait(&loop); }

static int teardown(void **state) {
    (void)state;
    if (!a.closed) {
        conn_close(a.c, CONN_CLOSE_NO_FLUSH, NULL);
    }
    if (!b.closed) {
        conn_close(b.c, CONN_CLOSE_NO_FLUSH, NULL);
    }
    turn();
    turn();
    close(a.peer);
    close(b.peer);
    loop_fini(&loop);
    transport_read_chunk_drop();
    splice_cache_trim();
    chunk_cache_trim();
    return 0;
}

/* ---- traffic: byte i of a stream is pattern(i) ---- */

static char pattern(size_t i) { return (char)(i * 2654435761u >> 13); }

struct flow {
    int from, to;
    size_t sent, got, total;
    bool stalled; /* the receiver does not read */
    bool ended;
};

static void push(struct flow *f, size_t max) {
    static char block[1 << 16];
    size_t n = f->total - f->sent;
    n = n < max ? n : max;
    n = n < sizeof(block) ? n : sizeof(block);
    for (size_t i = 0; i < n; i++) {
        block[i] = pattern(f->sent + i);
    }
    ssize_t w = n ? send(f->from, block, n, MSG_NOSIGNAL | MSG_DONTWAIT) : 0;
    f->sent += w > 0 ? (size_t)w : 0;
}
static void pull(struct flow *f) {
    static char block[1 << 16];
    ssize_t n;
    while (!f->stalled && (n = recv(f->to, block, sizeof(block), MSG_DONTWAIT)) >= 0) {
        if (n == 0) {
            f->ended = true;
            return;
        }
        for (ssize_t i = 0; i < n; i++) {
            if (block[i] != pattern(f->got + (size_t)i)) {
                fail_msg("byte %zu differs", f->got + (size_t)i);
            }
        }
        f->got += (size_t)n;
    }
}
static void run(struct flow *f, size_t step) {
    for (int idle = 0; f->got < f->total && idle < 2000; idle++) {
        size_t before = f->got;
        push(f, step);
        turn();
        pull(f);
        idle = f->got > before ? 0 : idle;
    }
    assert_int_equal(f->got, f->total);
}

static void small_stays_on_recv(void **state) {
    (void)state;
    struct flow f = {.from = a.peer, .to = b.peer, .total = 200000};
    run(&f, 1000);
    assert_int_equal(a.moved_bytes, 0);
    assert_int_equal(a.on_data_bytes, 200000);
}

static void bulk_is_spliced(void **state) {
    (void)state;
    struct flow f = {.from = a.peer, .to = b.peer, .total = 16 << 20};
    run(&f, 1 << 16);
    assert_true(a.moved_bytes > 8 << 20);
    assert_int_equal(a.moved_bytes + a.on_data_bytes, 16 << 20);
    assert_int_equal(b.sent_bytes, 16 << 20);
    assert_int_equal(a.c->rx_bytes, 16 << 20);
    assert_int_equal(b.c->tx_bytes, 16 << 20);
}

static void both_directions(void **state) {
    (void)state;
    struct flow f = {.from = a.peer, .to = b.peer, .total = 8 << 20};
    struct flow g = {.from = b.peer, .to = a.peer, .total = 8 << 20};
    for (int i = 0; i < 200000 && (f.got < f.total || g.got < g.total); i++) {
        push(&f, 1 << 16);
        push(&g, 1 << 16);
        turn();
        pull(&f);
        pull(&g);
    }
    assert_int_equal(f.got, f.total);
    assert_int_equal(g.got, g.total);
    assert_true(a.moved_bytes > 0 && b.moved_bytes > 0);
}

static void back_to_recv_when_small(void **state) {
    (void)state;
    struct flow f = {.from = a.peer, .to = b.peer, .total = 4 << 20};
    run(&f, 1 << 16);
    size_t moved = a.moved_bytes;
    assert_true(moved > 0);
    f.total += 100 * 500;
    run(&f, 500);
    assert_in_range(a.moved_bytes, moved, moved + 20 * 500);
    f.total += 4 << 20;
    moved = a.moved_bytes;
    run(&f, 1 << 16);
    assert_true(a.moved_bytes > moved);
}

static void back_pressure(void **state) {
    (void)state;
    struct flow f = {.from = a.peer, .to = b.peer, .total = 64 << 20};
    size_t last = 0;
    for (int i = 0; i < 20; i++) {
        push(&f, 1 << 16);
        turn();
        pull(&f);
    }
    f.stalled = true;
    for (int i = 0, same = 0; same < 50; i++) {
        push(&f, 1 << 16);
        turn();
        same = f.sent == last ? same + 1 : 0;
        last = f.sent;
        assert_true(i < 100000);
    }
    assert_true(f.sent < f.total);                  /* the sender is held back … */
    assert_true(conn_buffered_out(b.c) <= 3 << 20); /* … and little is held here */
    f.stalled = false;
    run(&f, 1 << 16);
}

static void end_comes_after_the_bytes(void **state) {
    (void)state;
    struct flow f = {.from = a.peer, .to = b.peer, .total = 6 << 20};
    while (f.sent < f.total) { /* the receiver reads only when the sender cannot go on */
        size_t before = f.sent;
        push(&f, 1 << 16);
        turn();
        if (f.sent == before) {
            pull(&f);
        }
    }
    shutdown(a.peer, SHUT_WR);
    for (int i = 0; i < 5000 && !f.ended; i++) {
        turn();
        pull(&f);
    }
    assert_int_equal(f.got, f.total);
    assert_true(f.ended && a.saw_end);
    assert_false(a.closed || b.closed);
    struct flow g = {.from = b.peer, .to = a.peer, .total = 100};
    run(&g, 100); /* the other direction goes on */
    shutdown(b.peer, SHUT_WR);
    for (int i = 0; i < 10; i++) {
        turn();
    }
    assert_true(a.closed && b.closed);
}

static void splice_until_moving(struct flow *f) {
    while (!a.moved_bytes) {
        push(f, 1 << 16);
        turn();
        pull(f);
    }
}

/* A write past the relay follows what the pipe still holds. */
static void written_data_keeps_its_place(void **state) {
    (void)state;
    struct flow f = {.from = a.peer, .to = b.peer, .total = 64 << 20};
    splice_until_moving(&f);
    while (!a.out.piped_) { /* until the receiver's buffers are full */
        push(&f, 1 << 16);
        turn();
    }
    size_t relayed = a.c->rx_bytes;
    struct buf tail;
    buf_init(&tail);
    for (size_t i = 0; i < 5; i++) {
        char byte = pattern(relayed + i);
        buf_append(&tail, &byte, 1);
    }
    conn_write(b.c, &tail, true);
    buf_fini(&tail);
    assert_int_equal(a.out.piped_, 0);
    for (int i = 0; i < 5000 && !f.ended; i++) {
        turn();
        pull(&f);
    }
    assert_true(f.ended);
    assert_int_equal(f.got, relayed + 5);
}

static void source_resets(void **state) {
    (void)state;
    struct flow f = {.from = a.peer, .to = b.peer, .total = 64 << 20};
    splice_until_moving(&f);
    sock_reset_on_close(a.peer);
    close(a.peer);
    a.peer = socket(AF_UNIX, SOCK_STREAM, 0); /* for teardown to close */
    for (int i = 0; i < 1000 && !b.closed; i++) {
        turn();
        pull(&f);
    }
    assert_true(a.closed && b.closed);
    pull(&f);
    assert_int_equal(f.got, a.moved_bytes + a.on_data_bytes); /* what was taken was handed on */
}

static void sink_resets(void **state) {
    (void)state;
    struct flow f = {.from = a.peer, .to = b.peer, .total = 64 << 20};
    splice_until_moving(&f);
    sock_reset_on_close(b.peer);
    close(b.peer);
    b.peer = socket(AF_UNIX, SOCK_STREAM, 0);
    for (int i = 0; i < 1000 && !a.closed; i++) {
        push(&f, 1 << 16);
        turn();
    }
    assert_true(a.closed && b.closed);
}

static void closed_from_on_moved(void **state) {
    (void)state;
    struct flow f = {.from = a.peer, .to = b.peer, .total = 64 << 20};
    a.closes_when_moved = true;
    splice_until_moving(&f);
    turn();
    assert_true(a.closed && b.closed);
}

static void stopped_by_hand(void **state) {
    (void)state;
    struct flow f = {.from = a.peer, .to = b.peer, .total = 8 << 20};
    splice_until_moving(&f);
    while (!a.out.piped_ && f.sent < f.total) {
        push(&f, 1 << 16);
        turn();
    }
    splice_stop(&a.out);
    splice_stop(&a.out);
    size_t moved = a.moved_bytes;
    run(&f, 1 << 16);
    assert_int_equal(a.moved_bytes, moved);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(small_stays_on_recv, setup, teardown),
        cmocka_unit_test_setup_teardown(bulk_is_spliced, setup, teardown),
        cmocka_unit_test_setup_teardown(both_directions, setup, teardown),
        cmocka_unit_test_setup_teardown(back_to_recv_when_small, setup, teardown),
        cmocka_unit_test_setup_teardown(back_pressure, setup, teardown),
        cmocka_unit_test_setup_teardown(end_comes_after_the_bytes, setup, teardown),
        cmocka_unit_test_setup_teardown(written_data_keeps_its_place, setup, teardown),
        cmocka_unit_test_setup_teardown(source_resets, setup, teardown),
        cmocka_unit_test_setup_teardown(sink_resets, setup, teardown),
        cmocka_unit_test_setup_teardown(closed_from_on_moved, setup, teardown),
        cmocka_unit_test_setup_teardown(stopped_by_hand, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
