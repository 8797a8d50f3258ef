/* The resolver against a DNS server of our own on loopback. */
#include "proxy/upstream/dns.h"

#include "proxy/event/timer.h"
#include "tests/support/dns_peer.h"
#include "tests/support/fake_compile.h"

/* ---- the bench ---- */

struct bench {
    struct loop loop;
    struct stats_store *store;
    struct server server;
    struct dns_resolver_config cfg;
    struct dns_resolver *r;
    /* the last answer */
    unsigned calls;
    enum dns_status status;
    struct dns_answer v[8];
    unsigned n;
};

static void bench_init(struct bench *b) {
    memset(b, 0, sizeof(*b));
    assert_int_equal(loop_init(&b->loop, 0), 0);
    b->store = stats_store_new(2);
    server_open(&b->server, &b->loop);
    assert_true(addr_parse_ip(SV("127.0.0.1"), b->server.port, &b->cfg.servers[0]));
    b->cfg.servers_n = 1;
    b->cfg.timeout_ms = 50;
    b->cfg.tries = 2;
    b->cfg.no_search_domain = true;
    b->r = dns_resolver_get(&b->loop, b->store, &b->cfg);
}

static void bench_fini(struct bench *b) {
    if (b->r) {
        dns_resolver_unref(b->r);
    }
    server_close(&b->server);
    loop_run_nowait(&b->loop);
    loop_fini(&b->loop);
    stats_store_free(b->store);
}

static void on_answer(void *arg, enum dns_status status, const struct dns_answer *v, unsigned n,
                      sv details) {
    (void)details;
    struct bench *b = arg;
    b->calls++;
    b->status = status;
    b->n = n;
    for (unsigned i = 0; i < n && i < ARRAY_LEN(b->v); i++) {
        b->v[i] = v[i];
    }
    loop_stop(&b->loop);
}

static uint64_t counted(struct bench *b, unsigned i) {
    struct stats_scope *s = stats_scope_get(b->store, &dns_stats_group, SV("dns.cares."));
    uint64_t v = stats_scope_value(s, i);
    stats_scope_unref(s);
    return v;
}

static void resolve(struct bench *b, const char *name, enum dns_family family) {
    unsigned before = b->calls;
    assert_non_null(dns_resolve_start(b->r, sv_cstr(name), family, on_answer, b));
    assert_int_equal(b->calls, before); /* never from inside */
    loop_run(&b->loop);
    assert_int_equal(b->calls, before + 1);
}

static bool has(const struct bench *b, const char *ip, unsigned ttl) {
    struct addr a;
    assert_true(addr_parse_ip(sv_cstr(ip), 0, &a));
    for (unsigned i = 0; i < b->n; i++) {
        if (addr_eq(&b->v[i].addr, &a) && b->v[i].ttl_s == ttl) {
            return true;
        }
    }
    return false;
}

static void test_families(void **state) {
    (void)state;
    static const struct {
        const char *name;
        enum dns_family family;
        unsigned n, queries;
        const char *first;
        unsigned ttl;
    } rows[] = {
        {"both.test", DNS_AUTO, 1, 1, "fd00::1", 40},
        {"both.test", DNS_V4_ONLY, 2, 1, "10.1.0.1", 30},
        {"both.test", DNS_V6_ONLY, 1, 1, "fd00::1", 40},
        {"both.test", DNS_V4_PREFERRED, 2, 1, "10.1.0.2", 20},
        {"both.test", DNS_ALL, 3, 2, "fd00::1", 40},
        {"four.test", DNS_AUTO, 1, 2, "10.4.0.1", 5},
        {"four.test", DNS_V6_ONLY, 0, 1, NULL, 0},
        {"six.test", DNS_V4_PREFERRED, 1, 2, "fd00::6", 6},
        {"six.test", DNS_V4_ONLY, 0, 1, NULL, 0},
        {"gone.test", DNS_AUTO, 0, 2, NULL, 0},
        {"gone.test", DNS_ALL, 0, 2, NULL, 0},
        {"10.9.9.9", DNS_V4_ONLY, 1, 0, "10.9.9.9", 0},
        {"a.localhost", DNS_V4_ONLY, 1, 0, "127.0.0.1", 0},
        {"a.LOCALHOST.", DNS_AUTO, 1, 0, "::1", 0},
        {"a.b.localhost", DNS_ALL, 2, 0, "::1", 0},
        {"notlocalhost", DNS_V4_ONLY, 0, 1, NULL, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct bench b;
        bench_init(&b);
        resolve(&b, rows[i].name, rows[i].family);
        assert_row(b.status == DNS_OK, i);
        assert_row(b.n == rows[i].n, i);
        assert_row(b.server.queries == rows[i].queries, i);
        assert_row(!rows[i].first || rows[i].queries == 0 || has(&b, rows[i].first, rows[i].ttl),
                   i);
        assert_row(counted(&b, DNS_pending_resolutions) == 0, i);
        assert_row(counted(&b, DNS_resolve_total) == 1, i);
        assert_row((counted(&b, DNS_not_found) > 0) == (rows[i].n == 0 || rows[i].queries == 2) ||
                       rows[i].family == DNS_ALL,
                   i);
        bench_fini(&b);
    }
}

static void test_failures(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b);
    resolve(&b, "fail.test", DNS_V4_ONLY);
    assert_int_equal(b.status, DNS_FAILED);
    assert_int_equal(counted(&b, DNS_get_addr_failure), 1);
    resolve(&b, "silent.test", DNS_V4_ONLY);
    assert_int_equal(b.status, DNS_FAILED);
    assert_int_equal(counted(&b, DNS_timeouts), 1);
    char name[300];
    memset(name, 'a', sizeof(name));
    name[299] = 0;
    resolve(&b, name, DNS_V4_ONLY);
    assert_int_equal(b.status, DNS_FAILED);
    resolve(&b, "four.test", DNS_V4_ONLY); /* and it still works */
    assert_int_equal(b.n, 1);
    bench_fini(&b);
}

static void test_reinit(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b);
    dns_resolver_unref(b.r);
    b.cfg.reinit_on_timeout = true;
    b.r = dns_resolver_get(&b.loop, b.store, &b.cfg);
    resolve(&b, "silent.test", DNS_V4_ONLY);
    assert_int_equal(counted(&b, DNS_reinits), 0);
    resolve(&b, "four.test", DNS_V4_ONLY);
    assert_int_equal(counted(&b, DNS_reinits), 1);
    assert_int_equal(b.n, 1);
    bench_fini(&b);
}

static void test_tcp_refused(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b);
    dns_resolver_unref(b.r);
    b.cfg.use_tcp = true; /* nobody listens there */
    b.r = dns_resolver_get(&b.loop, b.store, &b.cfg);
    resolve(&b, "four.test", DNS_V4_ONLY);
    assert_int_equal(b.status, DNS_FAILED);
    assert_int_equal(b.server.queries, 0);
    bench_fini(&b);
}

static void test_cancel(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b);
    struct dns_lookup *asked = dns_resolve_start(b.r, SV("both.test"), DNS_AUTO, on_answer, &b);
    struct dns_lookup *failing = dns_resolve_start(b.r, SV("a\0b"), DNS_AUTO, on_answer, &b);
    dns_resolve_cancel(asked);
    dns_resolve_cancel(failing);
    resolve(&b, "four.test", DNS_V4_ONLY);
    assert_int_equal(b.calls, 1);
    /* under way when the resolver goes */
    dns_resolve_start(b.r, SV("silent.test"), DNS_AUTO, on_answer, &b);
    dns_resolver_unref(b.r);
    b.r = NULL;
    loop_run_nowait(&b.loop);
    assert_int_equal(b.calls, 1);
    assert_int_equal(counted(&b, DNS_pending_resolutions), 0);
    bench_fini(&b);
}

/* The answer is there, not read yet, when the resolver goes. */
static void test_late_answer(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b);
    dns_resolve_start(b.r, SV("four.test"), DNS_V4_ONLY, on_answer, &b);
    on_query(&b.server.io, IO_READ, 0);
    assert_int_equal(b.server.queries, 1);
    dns_resolver_unref(b.r);
    b.r = NULL;
    loop_run_nowait(&b.loop);
    loop_run_nowait(&b.loop);
    assert_int_equal(b.calls, 0);
    bench_fini(&b);
}

static void test_sharing(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b);
    struct dns_resolver *same = dns_resolver_get(&b.loop, b.store, &b.cfg);
    assert_ptr_equal(same, b.r);
    struct dns_resolver_config other = b.cfg;
    other.rotate = true;
    struct dns_resolver *different = dns_resolver_get(&b.loop, b.store, &other);
    assert_ptr_not_equal(different, b.r);
    dns_resolver_unref(same);
    dns_resolver_unref(different);
    resolve(&b, "four.test", DNS_V4_ONLY);
    bench_fini(&b);
}

/* ---- configs ---- */

static void test_config(void **state) {
    (void)state;
    struct fake_compile fc;
    fake_compile_init(&fc, NULL);
    const char *type = "envoy.config.cluster.v3.Cluster";
    const struct dns_config *c = dns_config_compile(&fc.ctx, fake_msg(&fc, type, "name: \"c\""));
    assert_int_equal(c->refresh_ms, 5000);
    assert_int_equal(c->failure_base_ms, 5000);
    assert_int_equal(c->failure_max_ms, 5000);
    assert_int_equal(c->family, DNS_AUTO);
    assert_int_equal(c->resolver.servers_n, 0);
    c = dns_config_compile(
        &fc.ctx,
        fake_msg(&fc, type,
                 "dns_lookup_family: V4_PREFERRED respect_dns_ttl: true dns_refresh_rate { "
                 "seconds: 60 } dns_jitter { nanos: 500000000 } "
                 "dns_failure_refresh_rate { base_interval { seconds: 2 } } "
                 "use_tcp_for_dns_lookups: true "
                 "dns_resolvers { socket_address { address: \"1.1.1.1\" port_value: 53 } } "
                 "dns_resolvers { socket_address { address: \"::1\" port_value: 5353 } }"));
    assert_true(diag_ok(&fc.diag));
    assert_int_equal(c->family, DNS_V4_PREFERRED);
    assert_int_equal(c->refresh_ms, 60000);
    assert_int_equal(c->jitter_ms, 500);
    assert_int_equal(c->failure_base_ms, 2000);
    assert_int_equal(c->failure_max_ms, 20000);
    assert_true(c->resolver.use_tcp && c->respect_ttl);
    assert_int_equal(c->resolver.servers_n, 2);
    assert_int_equal(c->resolver.servers[1].port, 5353);
    c = dns_config_compile_extension(
        &fc.ctx, fake_msg(&fc, "envoy.extensions.clusters.dns.v3.DnsCluster",
                          "dns_lookup_family: ALL dns_refresh_rate { seconds: 7 }"));
    assert_int_equal(c->family, DNS_ALL);
    assert_int_equal(c->refresh_ms, 7000);
    static const struct {
        const char *config, *error;
    } rows[] = {
        {"dns_refresh_rate { }", "dns_refresh_rate: value must be a duration of at least 1ms"},
        {"dns_refresh_rate { seconds: -4 }",
         "dns_refresh_rate: value must be a duration of at least 1ms"},
        {"dns_failure_refresh_rate { base_interval { seconds: 5 } max_interval { seconds: 2 } }",
         "dns_failure_refresh_rate: max_interval must be greater than or equal to base_interval"},
        {"dns_resolvers { socket_address { address: \"example.com\" port_value: 53 } }",
         "dns_resolvers[0]: malformed IP address: a resolver is an IP address with its port"},
        {"dns_resolvers { pipe { path: \"/x\" } }",
         "dns_resolvers[0]: malformed IP address: a resolver is an IP address with its port"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        dns_config_compile(&fc.ctx, fake_msg(&fc, type, rows[i].config));
        assert_sv_is(fake_errors(&fc), rows[i].error);
    }
    fake_compile_fini(&fc);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_families), cmocka_unit_test(test_failures),
        cmocka_unit_test(test_reinit),   cmocka_unit_test(test_tcp_refused),
        cmocka_unit_test(test_cancel),   cmocka_unit_test(test_sharing),
        cmocka_unit_test(test_config),   cmocka_unit_test(test_late_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
