/* Network filter chains: order, stopping and continuing, writes in reverse, events, drain,
 * destruction. */
#include <sys/socket.h>

#include "proxy/base/mem.h"
#include "proxy/net/filter_chain.h"
#include "proxy/net/transport.h"
#include "tests/support/unit.h"

static struct loop loop;
static struct buf script; /* what happened, as text */

struct probe_config {
    char name;
    bool stops_new, stops_data, stops_write, takes_data, closes_new, closes_data, closes_connected;
};
struct probe {
    struct network_filter f;
    unsigned seen; /* proves that instances begin zeroed */
};

static const struct probe_config *config_of(struct network_filter *f) { return f->config; }

static enum net_status on_new(struct network_filter *f) {
    const struct probe_config *c = config_of(f);
    assert_int_equal(((struct probe *)f)->seen++, 0);
    buf_printf(&script, "new:%c ", c->name);
    if (c->closes_new) {
        conn_close(f->conn, CONN_CLOSE_NO_FLUSH, "new");
    }
    return c->stops_new ? NET_STOP : NET_CONTINUE;
}
static enum net_status on_data(struct network_filter *f, struct buf *data, bool end_stream) {
    const struct probe_config *c = config_of(f);
    buf_printf(&script, "data:%c%zu%s ", c->name, buf_len(data), end_stream ? "!" : "");
    if (c->takes_data) {
        buf_clear(data);
    }
    if (c->closes_data) {
        conn_close(f->conn, CONN_CLOSE_NO_FLUSH, "data");
    }
    return c->stops_data ? NET_STOP : NET_CONTINUE;
}
static enum net_status on_write(struct network_filter *f, struct buf *data, bool end_stream) {
    const struct probe_config *c = config_of(f);
    buf_printf(&script, "write:%c%zu%s ", c->name, buf_len(data), end_stream ? "!" : "");
    return c->stops_write ? NET_STOP : NET_CONTINUE;
}
static void on_event(struct network_filter *f, enum conn_event e) {
    static const char *const names[] = {"connected", "remote", "local"};
    buf_printf(&script, "%s:%c ", names[e], config_of(f)->name);
    if (e == CONN_EVENT_CONNECTED && config_of(f)->closes_connected) {
        conn_close(f->conn, CONN_CLOSE_NO_FLUSH, "connected");
    }
}
static void on_above(struct network_filter *f) {
    buf_printf(&script, "above:%c ", config_of(f)->name);
}
static void on_below(struct network_filter *f) {
    buf_printf(&script, "below:%c ", config_of(f)->name);
}
static void on_drain(struct network_filter *f) {
    buf_printf(&script, "drain:%c ", config_of(f)->name);
}
static void on_destroy(struct network_filter *f) {
    buf_printf(&script, "destroy:%c ", config_of(f)->name);
}

static const struct network_filter_type probe_type = {
    .name = "probe",
    .instance_size = sizeof(struct probe),
    .on_new_connection = on_new,
    .on_data = on_data,
    .on_write = on_write,
    .on_conn_event = on_event,
    .on_above_write_high = on_above,
    .on_below_write_low = on_below,
    .on_drain = on_drain,
    .destroy = on_destroy,
};
static const struct network_filter_type bare_type = {
    .name = "bare", .instance_size = sizeof(struct network_filter)};

static struct probe_config configs[3];
static struct network_filter_slot slots[3];
static struct net_chain_config chain_config;
static struct shared pin, found_pin;
static bool has_discovered;
static unsigned pins_freed, ends;
static int peer;
static struct net_chain *chain;

static void on_pin_free(struct shared *p) {
    (void)p;
    pins_freed++;
}
static void on_end(struct net_chain *c, enum conn_event e) {
    (void)e;
    assert_ptr_equal(c, chain);
    ends++;
    buf_lit(&script, "end ");
}

static void assert_script(const char *want) {
    char *text = buf_dup_str(&script);
    assert_string_equal(text, want);
    xfree(text);
    buf_clear(&script);
}

static struct arena names;

static void make(unsigned n) {
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds), 0);
    peer = fds[1];
    for (unsigned i = 0; i < 3; i++) {
        configs[i].name = (char)('a' + i);
        slots[i] = (struct network_filter_slot){.type = slots[i].type ? slots[i].type : &probe_type,
                                                .config = &configs[i],
                                                .slot = SLOT_NONE};
    }
    chain_config = (struct net_chain_config){.filters = slots,
                                             .n = n,
                                             .pin = &pin,
                                             .name = SV("chain"),
                                             .listener_name = SV("in"),
                                             .buffer_limit_bytes = 10};
    struct accept_info info = {
        .arena = &names, .fd = fds[0], .server_name = SV("a.example.com"), .ja3 = SV("abc")};
    assert_true(addr_parse_ip_port(SV("1.2.3.4:5"), &info.remote));
    struct network_filter_slot found[3] = {slots[0], slots[1], slots[2]};
    struct net_chain_owner o = {.loop = &loop, .on_end = on_end};
    if (has_discovered) { /* the config does not know the second filter */
        found[1].pin = &found_pin;
        slots[1] = (struct network_filter_slot){.slot = 7};
        chain_config.has_discovered = true;
        o.filters = found;
    }
    chain = net_chain_new(&o, &chain_config, transport_raw_new(), fds[0], &info);
    chain->conn->half_close_enabled = true;
}

static void turn(void) { loop_run_nowait(&loop); }
static void peer_sends(const char *text) {
    assert_int_equal(write(peer, text, strlen(text)), strlen(text));
    turn();
}
static struct network_filter *filter(unsigned i) { return chain->filters_[i]; }

static int setup(void **state) {
    (void)state;
    memset(configs, 0, sizeof(configs));
    memset(slots, 0, sizeof(slots));
    shared_init(&pin, on_pin_free);
    pins_freed = ends = 0;
    has_discovered = false;
    chain = NULL;
    buf_init(&script);
    arena_init(&names, 0);
    return loop_init(&loop, 0);
}
static int teardown(void **state) {
    (void)state;
    if (!ends) {
        net_chain_close(chain, CONN_CLOSE_NO_FLUSH, NULL);
    }
    turn();
    turn();
    assert_int_equal(ends, 1);
    assert_int_equal(pins_freed, 0);
    shared_unref(&pin);
    assert_int_equal(pins_freed, 1); /* the chain gave its ref back */
    close(peer);
    buf_fini(&script);
    arena_fini(&names);
    loop_fini(&loop);
    transport_read_chunk_drop();
    chunk_cache_trim();
    return 0;
}

static void whole_life(void **state) {
    (void)state;
    configs[2].takes_data = true;
    make(3);
    assert_script("");
    net_chain_start(chain);
    assert_script("new:a new:b new:c connected:a connected:b connected:c ");
    peer_sends("hello");
    assert_script("data:a5 data:b5 data:c5 ");
    shutdown(peer, SHUT_WR);
    turn();
    assert_script("data:a0! data:b0! data:c0! ");
    net_chain_close(chain, CONN_CLOSE_NO_FLUSH, "over");
    assert_script("local:a local:b local:c end ");
    turn();
    assert_script("destroy:c destroy:b destroy:a ");
}

static void facts_of_the_connection(void **state) {
    (void)state;
    make(1);
    const struct conn_info *cx = net_conn_info(filter(0));
    assert_sv_is(cx->server_name, "a.example.com");
    assert_sv_is(cx->filter_chain_name, "chain");
    assert_sv_is(cx->listener_name, "in");
    assert_int_equal(cx->remote.port, 5);
    assert_sv_is(cx->facts->ja3, "abc");
    struct stream_info *si = net_stream_info(filter(0));
    assert_ptr_equal(si, net_stream_info(filter(0)));
    assert_ptr_equal(si->cx, cx);
    assert_int_equal(chain->conn->buffer_limit_bytes, 10);
    net_chain_start(chain);
}

static void stop_holds_data_back(void **state) {
    (void)state;
    configs[0].stops_data = true;
    configs[1].takes_data = true;
    make(2);
    net_chain_start(chain);
    buf_clear(&script);
    peer_sends("ab");
    assert_script("data:a2 ");
    peer_sends("cd");
    assert_script("data:a4 ");
    net_continue(filter(0));
    assert_script("data:b4 ");
    net_continue(filter(0)); /* nothing left to tell */
    assert_script("");
}

static void stop_at_the_start(void **state) {
    (void)state;
    configs[0].stops_new = true;
    configs[1].takes_data = true;
    make(2);
    net_chain_start(chain);
    assert_script("new:a connected:a ");
    net_continue(filter(0));
    assert_script("new:b ");
    peer_sends("x");
    assert_script("data:a1 data:b1 ");
}

/* Data from a peer that speaks first starts the filters behind one that stopped, if it lets the
 * data pass. */
static void data_starts_later_filters(void **state) {
    (void)state;
    configs[0].stops_new = true;
    configs[1].takes_data = true;
    make(2);
    net_chain_start(chain);
    buf_clear(&script);
    peer_sends("x");
    assert_script("data:a1 new:b data:b1 ");
}

static void end_is_kept_for_later(void **state) {
    (void)state;
    configs[0].stops_data = true;
    configs[1].takes_data = true;
    make(2);
    net_chain_start(chain);
    buf_clear(&script);
    assert_int_equal(write(peer, "bye", 3), 3);
    shutdown(peer, SHUT_WR);
    turn();
    turn();
    buf_clear(&script);
    net_continue(filter(0));
    assert_script("data:b3! ");
}

static void one_filter(void **state) {
    (void)state;
    configs[0].takes_data = true;
    make(1);
    net_chain_start(chain);
    peer_sends("x");
    assert_script("new:a connected:a data:a1 ");
    assert_true(net_is_alone(filter(0)));
    close(peer);
    peer = dup(0);
    turn();
    assert_script("data:a0! ");
}

static void writes_in_reverse(void **state) {
    (void)state;
    make(3);
    net_chain_start(chain);
    buf_clear(&script);
    struct buf b;
    buf_init(&b);
    buf_lit(&b, "abc");
    net_write(filter(2), &b, false);
    assert_script("write:b3 write:a3 ");
    turn();
    char text[8];
    assert_int_equal(read(peer, text, sizeof(text)), 3);
    configs[1].stops_write = true;
    buf_lit(&b, "def");
    net_write(filter(2), &b, true);
    assert_script("write:b3! ");
    assert_true(buf_empty(&b));
    turn();
    assert_int_equal(recv(peer, text, sizeof(text), MSG_DONTWAIT), -1);
    buf_lit(&b, "01234567890");
    net_write(filter(0), &b, false);
    assert_script("above:a above:b above:c ");
    turn();
    assert_script("below:a below:b below:c ");
    buf_fini(&b);
}

/* c was not told of the connection, and hears nothing of its end either. */
static void closed_while_starting(void **state) {
    (void)state;
    configs[1].closes_new = true;
    make(3);
    net_chain_start(chain);
    assert_script("new:a new:b local:a local:b end ");
}

static void closed_while_connected(void **state) {
    (void)state;
    configs[0].closes_connected = true;
    make(2);
    net_chain_start(chain);
    assert_script("new:a new:b connected:a local:a local:b end ");
}

static void closed_in_data(void **state) {
    (void)state;
    configs[0].closes_data = true;
    make(3);
    net_chain_start(chain);
    buf_clear(&script);
    peer_sends("x");
    assert_script("data:a1 local:a local:b local:c end destroy:c destroy:b destroy:a ");
}

static void drain_is_told_once(void **state) {
    (void)state;
    make(2);
    net_chain_start(chain);
    buf_clear(&script);
    assert_false(net_is_draining(filter(0)));
    net_chain_drain(chain);
    net_chain_drain(chain);
    assert_script("drain:a drain:b ");
    assert_true(net_is_draining(filter(1)));
}

static void chain_of_nothing(void **state) {
    (void)state;
    make(0);
    net_chain_start(chain);
    assert_script("end ");
}

static void callbacks_may_be_missing(void **state) {
    (void)state;
    slots[0].type = slots[2].type = &bare_type;
    configs[1].takes_data = true;
    make(3);
    net_chain_start(chain);
    peer_sends("x");
    assert_script("new:b connected:b data:b1 ");
    assert_true(net_is_alone(filter(1)));
    struct buf b;
    buf_init(&b);
    net_chain_dump(chain, &b);
    char *text = buf_dup_str(&b);
    assert_non_null(strstr(text, "chain 'chain' of listener 'in'"));
    xfree(text);
    buf_fini(&b);
}

static void discovered_filter_is_pinned(void **state) {
    (void)state;
    shared_init(&found_pin, on_pin_free);
    has_discovered = true;
    configs[1].takes_data = true;
    make(2);
    net_chain_start(chain);
    shared_unref(&found_pin); /* an update took it out of its slot */
    peer_sends("x");
    assert_script("new:a new:b connected:a connected:b data:a1 data:b1 ");
    assert_int_equal(pins_freed, 0);
    net_chain_close(chain, CONN_CLOSE_NO_FLUSH, NULL);
    turn();
    turn();
    assert_int_equal(pins_freed, 1);
    pins_freed = 0;
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(whole_life),
        TEST(facts_of_the_connection),
        TEST(stop_holds_data_back),
        TEST(stop_at_the_start),
        TEST(data_starts_later_filters),
        TEST(end_is_kept_for_later),
        TEST(one_filter),
        TEST(writes_in_reverse),
        TEST(closed_while_starting),
        TEST(closed_while_connected),
        TEST(closed_in_data),
        TEST(drain_is_told_once),
        TEST(chain_of_nothing),
        TEST(callbacks_may_be_missing),
        TEST(discovered_filter_is_pinned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
