/* sni_dynamic_forward_proxy: which connections wait for which host, and how they go on. */
#include "proxy/api/dns_cache.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/worker.h"
#include "proxy/observe/filter_state.h"
#include "tests/support/fake_compile.h"

extern const struct network_filter_type sni_dynamic_forward_proxy_network_filter;
static const struct network_filter_type *const type = &sni_dynamic_forward_proxy_network_filter;

#define CONFIG "envoy.extensions.filters.network.sni_dynamic_forward_proxy.v3.FilterConfig"
#define CACHE "dns_cache_config { name: 'c' } port_value: 443 "
#define STATE_BYTES 512

static struct fake_compile f;
static struct {
    struct arena arena;
    struct loop loop;
    struct conn conn;
    struct conn_info cx;
    struct stream_info si;
    union {
        struct network_filter filter;
        _Alignas(16) char room[STATE_BYTES];
    };
    bool is_full;
    char asked[64];
    struct on_demand_wait *wait;
    unsigned closed, continued, cancelled;
    int disabled; /* reads of the client */
} t;

/* --- what the filter asks, recorded --- */

const struct conn_info *net_conn_info(const struct network_filter *x) {
    (void)x;
    return &t.cx;
}
struct stream_info *net_stream_info(const struct network_filter *x) {
    (void)x;
    return &t.si;
}
struct arena *net_arena(const struct network_filter *x) {
    (void)x;
    return &t.arena;
}
struct worker *net_worker(const struct network_filter *x) {
    (void)x;
    return NULL;
}
struct loop *worker_loop(struct worker *w) {
    (void)w;
    return &t.loop;
}
void net_continue(struct network_filter *x) {
    (void)x;
    t.continued++;
}
void conn_close(struct conn *c, enum conn_close_type how, const char *reason) {
    (void)c;
    (void)reason;
    assert_int_equal(how, CONN_CLOSE_NO_FLUSH);
    t.closed++;
}
void conn_read_disable(struct conn *c, bool disable) {
    (void)c;
    t.disabled += disable ? 1 : -1;
}
bool worker_dns_load(struct worker *w, struct dns_cache *c, sv key, struct on_demand_wait *wait) {
    (void)w;
    (void)c;
    assert_true(key.n < sizeof(t.asked));
    memcpy(t.asked, key.p, key.n);
    t.wait = wait;
    return !t.is_full;
}
void worker_fetch_cancel(struct worker *w, struct on_demand_wait *wait) {
    (void)w;
    (void)wait;
    t.cancelled++;
}

/* --- fixture --- */

static int start(void **state) {
    (void)state;
    memset(&t, 0, sizeof(t));
    arena_init(&t.arena, 0);
    t.si = (struct stream_info){.cx = &t.cx, .arena = &t.arena};
    fake_compile_init(&f, NULL);
    f.ctx.stats = stats_store_new(4);
    fake.dns_caches = dns_caches_new(NULL, f.ctx.stats);
    return 0;
}

static int end(void **state) {
    (void)state;
    struct stats_store *stats = f.ctx.stats;
    arena_fini(&t.arena);
    fake_compile_fini(&f);
    dns_caches_free(fake.dns_caches);
    fake.dns_caches = NULL;
    stats_store_free(stats);
    return 0;
}

static enum net_status connect_to(const char *config, const char *server_name) {
    assert_true(type->instance_size <= STATE_BYTES);
    memset(t.room, 0, sizeof(t.room));
    memset(t.asked, 0, sizeof(t.asked));
    t.filter =
        (struct network_filter){.type = type,
                                .conn = &t.conn,
                                .config = type->compile(&f.ctx, fake_msg(&f, CONFIG, config))};
    assert_non_null(t.filter.config);
    t.cx.server_name = sv_cstr(server_name);
    return type->on_new_connection(&t.filter);
}

static uint32_t pending(void) {
    return __atomic_load_n(&dns_caches_find(fake.dns_caches, SV("c"))->pending, __ATOMIC_RELAXED);
}

static void set(const char *name, const char *text) {
    t.si.filter_state = t.si.filter_state ? t.si.filter_state : filter_state_new(&t.arena, NULL);
    filter_state_set(t.si.filter_state, sv_cstr(name), sv_cstr(text), NULL, false,
                     FILTER_STATE_LOCAL);
}

/* --- tests --- */

static void targets(void **state) {
    (void)state;
    static const struct {
        const char *server_name, *host, *port, *want; /* want NULL: nobody is asked */
    } rows[] = {
        {"a.test", NULL, NULL, "a.test:443"}, {"", NULL, NULL, NULL},
        {"", "b.test", NULL, "b.test:443"},   {"a.test", "b.test", "8443", "b.test:8443"},
        {"a.test", NULL, "0", "a.test:443"},  {"a.test", NULL, "65536", "a.test:443"},
        {"a.test", NULL, "x", "a.test:443"},  {"a.test", "", NULL, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        t.si.filter_state = NULL;
        if (rows[i].host) {
            set("envoy.upstream.dynamic_host", rows[i].host);
        }
        if (rows[i].port) {
            set("envoy.upstream.dynamic_port", rows[i].port);
        }
        enum net_status got = connect_to(CACHE, rows[i].server_name);
        assert_int_equal(got, rows[i].want ? NET_STOP : NET_CONTINUE);
        if (strcmp(t.asked, rows[i].want ? rows[i].want : "") != 0) {
            fail_msg("row %zu: %s", i, t.asked);
        }
        type->on_conn_event(&t.filter, CONN_EVENT_REMOTE_CLOSE);
        assert_int_equal(pending(), 0);
    }
}

static void goes_on(void **state) {
    (void)state;
    struct dns_result r = {.outcome = DNS_FOUND};
    assert_true(addr_parse_ip_port(SV("10.0.0.1:443"), &r.addr));
    assert_int_equal(connect_to(CACHE "save_upstream_address: true", "a.test"), NET_STOP);
    struct buf data;
    buf_init(&data);
    assert_int_equal(type->on_data(&t.filter, &data, false), NET_STOP);
    assert_int_equal(t.disabled, 1);
    assert_int_equal(pending(), 1);
    t.wait->dns = &r;
    t.wait->on_done(t.wait, true);
    assert_int_equal(t.continued, 1);
    assert_int_equal(t.disabled, 0);
    assert_int_equal(pending(), 0);
    assert_int_equal(type->on_data(&t.filter, &data, false), NET_CONTINUE);
    assert_true(
        sv_is(filter_state_text(t.si.filter_state, SV("envoy.upstream.dynamic_port")), "443"));
    assert_true(sv_is(filter_state_text(t.si.filter_state, SV("envoy.stream.upstream_address")),
                      "10.0.0.1:443"));
    /* a host that isn't there is the cluster's to tell of */
    r.outcome = DNS_UNKNOWN;
    assert_int_equal(connect_to(CACHE, "a.test"), NET_STOP);
    t.wait->dns = &r;
    t.wait->on_done(t.wait, false);
    assert_int_equal(t.continued, 2);
    assert_int_equal(t.closed, 0);
}

static void turned_away(void **state) {
    (void)state;
    struct dns_result r = {.outcome = DNS_HOSTS_OVERFLOW};
    assert_int_equal(connect_to(CACHE, "a.test"), NET_STOP);
    t.wait->dns = &r;
    t.wait->on_done(t.wait, false);
    assert_int_equal(t.closed, 1);
    t.is_full = true;
    assert_int_equal(connect_to(CACHE, "a.test"), NET_STOP);
    assert_int_equal(t.closed, 2);
    assert_int_equal(pending(), 0);
    t.is_full = false;
    assert_int_equal(connect_to("dns_cache_config { name: 'd' dns_cache_circuit_breaker { "
                                "max_pending_requests { } } } port_value: 1",
                                "a.test"),
                     NET_STOP);
    assert_int_equal(t.closed, 3);
    assert_int_equal(t.continued, 0);
}

static void refused(void **state) {
    (void)state;
    assert_null(type->compile(
        &f.ctx, fake_msg(&f, CONFIG, "dns_cache_config { name: 'c' host_ttl { seconds: -1 } }")));
    sv why = fake_errors(&f);
    assert_true(sv_is(why, "dns_cache_config.host_ttl: duration out of range"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, start, end)
        T(targets),
        T(goes_on),
        T(turned_away),
        T(refused),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
