/* Listening sockets of a worker: accepting, limits, listener filters over real sockets, timeouts,
 * handing over. */
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "proxy/base/mem.h"
#include "proxy/base/overload.h"
#include "proxy/net/listener.h"
#include "proxy/net/transport.h"
#include "tests/support/unit.h"

static struct loop loop;
static struct stats_store *store;
static struct stats_scope *scope;
static struct listener_sock_config config;
static struct listener_filter_slot slots[3];
static struct listener_sock *listener;
static struct addr bound;
static struct shared pin;
static unsigned pins_freed;

static struct {
    unsigned n;
    int fds[64];
    struct addr remote, local;
    char transport_protocol[16], first_bytes[16];
    bool closes_listener;
} accepted;

static void on_accepted(struct listener_sock *l, int fd, struct accept_info *info) {
    assert_int_equal(info->fd, fd);
    accepted.fds[accepted.n++] = fd;
    accepted.remote = info->remote;
    accepted.local = info->local;
    snprintf(accepted.transport_protocol, sizeof(accepted.transport_protocol), "%.*s",
             SV_ARG(info->transport_protocol));
    if (accepted.closes_listener) {
        listener_sock_close(l);
    }
}
static struct extension_config *in_slot; /* NULL: not there (yet) */

static struct extension_config *discovered(struct listener_sock *l, slot_t slot) {
    (void)l;
    assert_int_equal(slot, 5);
    return in_slot ? shared_ref(in_slot) : NULL;
}
static const struct listener_sock_ops ops = {.on_accepted = on_accepted, .discovered = discovered};

static void on_pin_free(struct shared *p) {
    (void)p;
    pins_freed++;
}

static int setup(void **state) {
    (void)state;
    memset(&accepted, 0, sizeof(accepted));
    memset(&config, 0, sizeof(config));
    memset(slots, 0, sizeof(slots));
    overload_set(OVERLOAD_REJECT_INCOMING_CONNECTIONS, 0);
    pins_freed = 0;
    listener = NULL;
    shared_init(&pin, on_pin_free);
    store = stats_store_new(1);
    scope = stats_scope_get(store, &listener_stats_group, SV("listener.x."));
    config = (struct listener_sock_config){.name = SV("x"), .filters = slots, .pin = &pin};
    return loop_init(&loop, 0);
}

static void turn(void) { loop_run_nowait(&loop); }

static int teardown(void **state) {
    (void)state;
    if (listener) {
        listener_sock_close(listener);
    }
    turn();
    turn();
    for (unsigned i = 0; i < accepted.n; i++) {
        close(accepted.fds[i]);
    }
    shared_unref(&pin);
    assert_int_equal(pins_freed, 1);
    assert_int_equal(stats_scope_value(scope, LISTENER_downstream_pre_cx_active), 0);
    stats_scope_unref(scope);
    stats_store_free(store);
    loop_fini(&loop);
    transport_read_chunk_drop();
    chunk_cache_trim();
    return 0;
}

static uint64_t counted(unsigned i) { return stats_scope_value(scope, i); }

static void listen_on(const char *where) {
    struct addr a;
    assert_true(addr_parse_ip_port(sv_cstr(where), &a));
    int fd = sock_listen(&a, NULL, 128, false, &bound);
    assert_true(fd >= 0);
    listener = listener_sock_new(&loop, &config, fd, &bound, stats_shard(scope, 0), &ops, NULL);
}

static int client(void) {
    bool in_progress;
    struct addr to = bound;
    if (addr_is_any(&to)) {
        assert_true(addr_parse_ip(SV("127.0.0.1"), bound.port, &to));
    }
    int fd = sock_connect(&to, NULL, NULL, &in_progress);
    assert_true(fd >= 0);
    return fd;
}
/* Is the other end gone? */
static bool is_closed(int fd) {
    char byte;
    ssize_t n = recv(fd, &byte, 1, MSG_DONTWAIT);
    return n == 0 || (n < 0 && errno == ECONNRESET);
}
static void turns(unsigned n) {
    while (n--) {
        turn();
    }
}

/* ---- accepting ---- */

static void accepts_and_tells_addresses(void **state) {
    (void)state;
    listen_on("127.0.0.1:0");
    int c = client();
    turns(2);
    assert_int_equal(accepted.n, 1);
    assert_true(addr_eq(&accepted.local, &bound));
    assert_int_equal(accepted.remote.family, AF_INET);
    assert_true(accepted.remote.port != 0);
    assert_string_equal(accepted.transport_protocol, "raw_buffer");
    int on = 0;
    socklen_t n = sizeof(on);
    assert_int_equal(getsockopt(accepted.fds[0], IPPROTO_TCP, 1 /* TCP_NODELAY */, &on, &n), 0);
    assert_true(on); /* inherited */
    close(c);
}

static void wildcard_address_is_resolved(void **state) {
    (void)state;
    listen_on("0.0.0.0:0");
    int c = client();
    turns(2);
    assert_true(addr_is_loopback(&accepted.local));
    assert_int_equal(accepted.local.port, bound.port);
    close(c);
}

static void bursts(void **state) {
    (void)state;
    listen_on("127.0.0.1:0");
    int c[40];
    for (int i = 0; i < 40; i++) {
        c[i] = client();
    }
    turns(10);
    assert_int_equal(accepted.n, 40);
    for (int i = 0; i < 40; i++) {
        close(c[i]);
    }
}

static void one_accept_per_event(void **state) {
    (void)state;
    config.accepts_per_event_max = 1;
    listen_on("127.0.0.1:0");
    int c[3] = {client(), client(), client()};
    for (unsigned i = 1; i <= 3; i++) {
        turn();
        assert_int_equal(accepted.n, i);
    }
    for (int i = 0; i < 3; i++) {
        close(c[i]);
    }
}

static void pausing_nests(void **state) {
    (void)state;
    listen_on("127.0.0.1:0");
    listener_sock_pause(listener, true);
    listener_sock_pause(listener, true);
    int c = client();
    turns(3);
    listener_sock_pause(listener, false);
    turns(3);
    assert_int_equal(accepted.n, 0);
    listener_sock_pause(listener, false);
    turns(2);
    assert_int_equal(accepted.n, 1);
    close(c);
}

static void limits(void **state) {
    (void)state;
    struct conn_limit own = {.max = 1}, global = {.max = 2};
    config.limit = &own;
    config.global_limit = &global;
    listen_on("127.0.0.1:0");
    int a = client();
    turns(2);
    int b = client();
    turns(2);
    assert_int_equal(accepted.n, 1);
    assert_true(is_closed(b));
    assert_int_equal(counted(LISTENER_downstream_cx_overflow), 1);
    assert_int_equal(global.active, 1); /* what was refused counts nowhere */
    global.max = 1;
    int c = client();
    turns(2);
    assert_true(is_closed(c));
    assert_int_equal(counted(LISTENER_downstream_global_cx_overflow), 1);
    listener_conn_done(&config, loop.thread_index);
    assert_int_equal(own.active + global.active, 0);
    overload_set(OVERLOAD_REJECT_INCOMING_CONNECTIONS, OVERLOAD_FULL);
    int d = client();
    turns(2);
    assert_true(is_closed(d));
    assert_int_equal(counted(LISTENER_downstream_cx_overload_reject), 1);
    overload_set(OVERLOAD_REJECT_INCOMING_CONNECTIONS, 0);
    overload_set(OVERLOAD_STOP_ACCEPTING_CONNECTIONS, OVERLOAD_FULL);
    int e = client();
    turns(2);
    assert_int_equal(accepted.n, 1); /* it waits */
    overload_set(OVERLOAD_STOP_ACCEPTING_CONNECTIONS, 0);
    for (unsigned i = 0; i < 5000 && accepted.n < 2; i++) { /* until accepting is tried again */
        turn();
        usleep(1000);
    }
    assert_int_equal(accepted.n, 2);
    close(a), close(b), close(c), close(d), close(e);
}

static void out_of_fds(void **state) {
    (void)state;
    struct rlimit old, none;
    listen_on("127.0.0.1:0");
    int c = client();
    turns(0);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &old), 0);
    none = old;
    none.rlim_cur = (rlim_t)c + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    turns(20);
    assert_int_equal(accepted.n, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &old), 0);
    while (!accepted.n) { /* tried again after a pause */
        turn();
    }
    close(c);
}

static void closed_by_its_owner(void **state) {
    (void)state;
    accepted.closes_listener = true;
    listen_on("127.0.0.1:0");
    int a = client(), b = client();
    turns(3);
    assert_int_equal(accepted.n, 1);
    listener = NULL;
    close(a);
    close(b);
}

static void socket_changes_hands(void **state) {
    (void)state;
    listen_on("127.0.0.1:0");
    int a = client();
    turns(2);
    int fd = listener_sock_release(listener);
    assert_true(fd >= 0);
    assert_false(listener_sock_is_bound(listener));
    assert_int_equal(listener_sock_release(listener), -1);
    int b = client(); /* between the two: waits in the kernel */
    struct listener_sock *next = listener_sock_new(&loop, &config, fd, listener_sock_addr(listener),
                                                   stats_shard(scope, 0), &ops, NULL);
    listener_sock_close(listener);
    listener = next;
    turns(2);
    assert_int_equal(accepted.n, 2);
    close(a);
    close(b);
}

static void unix_socket(void **state) {
    (void)state;
    char path[64];
    snprintf(path, sizeof(path), "/tmp/sluice-test-%d.sock", (int)getpid());
    struct sock_opts o = {.mode = 0600};
    for (int i = 0; i < 2; i++) { /* the second one replaces the file */
        struct addr a;
        addr_set_path(&a, path);
        int fd = sock_listen(&a, &o, 4, false, &bound);
        assert_true(fd >= 0);
        if (i == 0) {
            close(fd);
            continue;
        }
        listener = listener_sock_new(&loop, &config, fd, &bound, stats_shard(scope, 0), &ops, NULL);
    }
    int c = client();
    turns(2);
    assert_int_equal(accepted.n, 1);
    assert_int_equal(accepted.remote.family, AF_UNIX);
    assert_string_equal(accepted.local.path, path);
    close(c);
    unlink(path);
}

static void no_socket_only_hand_over(void **state) {
    (void)state;
    int fds[2];
    assert_true(addr_parse_ip_port(SV("10.0.0.1:80"), &bound));
    listener = listener_sock_new(&loop, &config, -1, &bound, stats_shard(scope, 0), &ops, NULL);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    struct accept_info info = {
        .fd = fds[0], .local = bound, .is_local_restored = true, .server_name = SV("dropped")};
    listener_sock_pause(listener, true);
    listener_sock_hand(listener, fds[0], &info);
    assert_int_equal(accepted.n, 1);
    assert_true(addr_eq(&accepted.local, &bound));
    close(fds[1]);
}

/* ---- filters ---- */

struct wanting {
    size_t bytes; /* done when so many were seen */
    char reject;  /* a first byte that is refused */
    size_t consume;
};
static unsigned filter_calls;
static size_t last_n;

static enum listener_filter_status on_bytes(const void *c, void *state, struct accept_info *info,
                                            sv bytes, bool end, unsigned thread) {
    const struct wanting *w = c;
    unsigned *calls = state;
    assert_int_equal(thread, 0);
    assert_true(bytes.n || end);
    filter_calls++;
    last_n = bytes.n;
    ++*calls;
    if (bytes.n && bytes.p[0] == w->reject) {
        info->reject_reason = "refused";
        return LISTENER_FILTER_REJECT;
    }
    if (bytes.n < w->bytes) {
        return LISTENER_FILTER_NEED_DATA;
    }
    info->consume_bytes = w->consume;
    info->transport_protocol = SV("seen");
    return LISTENER_FILTER_DONE;
}
static const struct listener_filter_type wanting_type = {
    .name = "wanting", .max_peek_bytes = 8, .on_bytes = on_bytes};

static enum listener_filter_status at_once(const void *c, void *state, struct accept_info *info,
                                           sv bytes, bool end, unsigned thread) {
    (void)c, (void)state, (void)bytes, (void)end, (void)thread;
    info->local.port = 7777;
    return LISTENER_FILTER_DONE;
}
static const struct listener_filter_type at_once_type = {.name = "at_once", .on_bytes = at_once};

static void use_filter(const struct listener_filter_type *t, const void *c) {
    slots[config.filters_n++] = (struct listener_filter_slot){.type = t, .config = c};
    filter_calls = 0;
}

static void byte_by_byte(void **state) {
    (void)state;
    static const struct wanting w = {.bytes = 5};
    use_filter(&at_once_type, NULL);
    use_filter(&wanting_type, &w);
    listen_on("127.0.0.1:0");
    int c = client();
    turns(2);
    assert_int_equal(listener_sock_pending(listener), 1);
    assert_int_equal(counted(LISTENER_downstream_pre_cx_active), 1);
    assert_int_equal(filter_calls, 0);
    for (unsigned i = 1; i <= 5; i++) {
        assert_int_equal(accepted.n, 0);
        assert_int_equal(write(c, "x", 1), 1);
        turns(4);
        assert_int_equal(last_n, i);
        assert_in_range(filter_calls, i, 2 * i); /* not called again and again for the same bytes */
    }
    assert_int_equal(accepted.n, 1);
    assert_string_equal(accepted.transport_protocol, "seen");
    assert_int_equal(accepted.local.port, 7777);
    char text[8];
    assert_int_equal(recv(accepted.fds[0], text, sizeof(text), 0), 5); /* all still there */
    close(c);
}

static void consumed_bytes_are_gone(void **state) {
    (void)state;
    static const struct wanting w = {.bytes = 3, .consume = 3}, v = {.bytes = 2};
    use_filter(&wanting_type, &w);
    use_filter(&wanting_type, &v);
    listen_on("127.0.0.1:0");
    int c = client();
    assert_int_equal(write(c, "abcde", 5), 5);
    turns(4);
    assert_int_equal(accepted.n, 1);
    assert_int_equal(last_n, 2); /* the next filter begins behind them */
    char text[8];
    assert_int_equal(recv(accepted.fds[0], text, sizeof(text), 0), 2);
    assert_memory_equal(text, "de", 2);
    close(c);
}

static unsigned extensions_freed;
static void on_extension_free(struct shared *s) {
    (void)s;
    extensions_freed++;
}

static void discovered_filter(void **state) {
    (void)state;
    static const struct wanting w = {.bytes = 2};
    struct conn_limit own = {.max = 5};
    struct extension_config x = {.listener = &wanting_type, .config = &w};
    shared_init(&x.shared, on_extension_free);
    extensions_freed = 0;
    config.limit = &own;
    config.has_discovered = true;
    use_filter(&at_once_type, NULL);
    slots[config.filters_n++] = (struct listener_filter_slot){.slot = 5};
    in_slot = NULL;
    listen_on("127.0.0.1:0");
    int a = client();
    turns(3);
    char c;
    assert_int_equal(recv(a, &c, 1, 0), 0);
    assert_int_equal(counted(LISTENER_extension_config_missing), 1);
    assert_int_equal(own.active, 0);
    close(a);

    in_slot = &x;
    int b = client();
    turns(2);
    assert_int_equal(write(b, "1", 1), 1);
    turns(2);
    in_slot = NULL; /* it goes; the socket keeps what it began with */
    shared_unref(&x.shared);
    assert_int_equal(extensions_freed, 0);
    assert_int_equal(write(b, "2", 1), 1);
    turns(3);
    assert_int_equal(accepted.n, 1);
    assert_string_equal(accepted.transport_protocol, "seen");
    turns(1);
    assert_int_equal(extensions_freed, 1);
    close(b);
}

static void rejected(void **state) {
    (void)state;
    struct conn_limit own = {.max = 5};
    static const struct wanting w = {.bytes = 3, .reject = '!'};
    config.limit = &own;
    use_filter(&wanting_type, &w);
    listen_on("127.0.0.1:0");
    int c = client();
    turns(2);
    assert_int_equal(write(c, "!", 1), 1);
    turns(3);
    assert_int_equal(accepted.n, 0);
    assert_true(is_closed(c));
    assert_int_equal(counted(LISTENER_downstream_listener_filter_error), 1);
    assert_int_equal(own.active, 0);
    close(c);
}

static void peer_leaves(void **state) {
    (void)state;
    static const struct wanting w = {.bytes = 5};
    use_filter(&wanting_type, &w);
    listen_on("127.0.0.1:0");
    int nothing = client(), some = client(), half = client(), reset = client();
    turns(3);
    close(nothing);
    assert_int_equal(write(some, "abc", 3), 3);
    close(some);
    assert_int_equal(write(half, "abc", 3), 3);
    turns(2);
    shutdown(half, SHUT_WR);
    sock_reset_on_close(reset);
    close(reset);
    turns(4);
    assert_int_equal(accepted.n, 0);
    assert_int_equal(listener_sock_pending(listener), 0);
    assert_int_equal(counted(LISTENER_downstream_listener_filter_remote_close), 3);
    assert_int_equal(counted(LISTENER_downstream_listener_filter_error), 1);
    close(half);
}

static void never_enough_bytes(void **state) {
    (void)state;
    static const struct wanting w = {.bytes = 9}; /* more than it may peek */
    use_filter(&wanting_type, &w);
    listen_on("127.0.0.1:0");
    int c = client();
    assert_int_equal(write(c, "0123456789", 10), 10);
    turns(3);
    assert_int_equal(accepted.n, 0);
    assert_int_equal(counted(LISTENER_downstream_listener_filter_error), 1);
    close(c);
}

static void run_timeout(bool goes_on) {
    static const struct wanting w = {.bytes = 5};
    config.filters_timeout_ms = 3;
    config.continue_on_filters_timeout = goes_on;
    use_filter(&wanting_type, &w);
    listen_on("127.0.0.1:0");
    int c = client();
    turns(2);
    assert_int_equal(listener_sock_pending(listener), 1);
    while (listener_sock_pending(listener)) {
        turn();
    }
    turns(2);
    assert_int_equal(counted(LISTENER_downstream_pre_cx_timeout), 1);
    assert_int_equal(accepted.n, goes_on);
    assert_true(is_closed(c) == !goes_on);
    close(c);
}
static void timeout_closes(void **state) {
    (void)state;
    run_timeout(false);
}
static void timeout_goes_on(void **state) {
    (void)state;
    run_timeout(true);
}

static void removal_closes_what_waits(void **state) {
    (void)state;
    struct conn_limit own = {.max = 5};
    static const struct wanting w = {.bytes = 5};
    config.limit = &own;
    use_filter(&wanting_type, &w);
    listen_on("127.0.0.1:0");
    int c = client();
    turns(2);
    assert_int_equal(own.active, 1);
    listener_sock_close(listener);
    listener_sock_close(listener);
    listener = NULL;
    turns(2);
    assert_true(is_closed(c));
    assert_int_equal(own.active, 0);
    close(c);
}

/* ---- predicates ---- */

static void predicates(void **state) {
    (void)state;
    struct accept_info info = {0};
    const struct listener_predicate any = {.kind = LISTENER_PRED_ANY};
    const struct listener_predicate port = {
        .kind = LISTENER_PRED_PORT, .port_start = 80, .port_end = 82};
    const struct listener_predicate not_port = {.kind = LISTENER_PRED_NOT, .n = 1, .of = &port};
    const struct listener_predicate pair[] = {port, not_port};
    const struct listener_predicate either = {.kind = LISTENER_PRED_OR, .n = 2, .of = pair};
    const struct listener_predicate both = {.kind = LISTENER_PRED_AND, .n = 2, .of = pair};
    static const struct {
        uint16_t port;
        bool in;
    } rows[] = {{79, false}, {80, true}, {81, true}, {82, false}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        info.local.port = rows[i].port;
        assert_row(listener_predicate_match(&any, &info), i);
        assert_row(listener_predicate_match(&port, &info) == rows[i].in, i);
        assert_row(listener_predicate_match(&not_port, &info) != rows[i].in, i);
        assert_row(listener_predicate_match(&either, &info), i);
        assert_row(!listener_predicate_match(&both, &info), i);
    }
    static const struct wanting w = {.bytes = 5};
    use_filter(&wanting_type, &w);
    slots[0].disabled = &any;
    listen_on("127.0.0.1:0");
    int c = client();
    turns(2);
    assert_int_equal(accepted.n, 1);
    assert_int_equal(filter_calls, 0);
    close(c);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(accepts_and_tells_addresses),
        TEST(wildcard_address_is_resolved),
        TEST(bursts),
        TEST(one_accept_per_event),
        TEST(pausing_nests),
        TEST(limits),
        TEST(out_of_fds),
        TEST(closed_by_its_owner),
        TEST(socket_changes_hands),
        TEST(unix_socket),
        TEST(no_socket_only_hand_over),
        TEST(byte_by_byte),
        TEST(consumed_bytes_are_gone),
        TEST(discovered_filter),
        TEST(rejected),
        TEST(peer_leaves),
        TEST(never_enough_bytes),
        TEST(timeout_closes),
        TEST(timeout_goes_on),
        TEST(removal_closes_what_waits),
        TEST(predicates),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
