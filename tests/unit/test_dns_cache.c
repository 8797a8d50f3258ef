/* DNS caches on the config thread: names, lookups and their answers, limits, hosts that go. */
#include "proxy/upstream/dns_cache.h"

#include "proxy/event/timer.h"
#include "tests/support/dns_peer.h"
#include "tests/support/fake_compile.h"

#define CONFIG "envoy.extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig"
#define WAIT_TURNS 5000u

static struct fake_compile f;
static struct loop l;
static struct server server;
static struct stats_store *stats;

struct asking {
    struct dns_query q;
    struct dns_result r;
    unsigned calls;
};
struct watching {
    struct dns_cache_user user;
    unsigned changes;
};

static int start(void **state) {
    (void)state;
    fake_compile_init(&f, NULL);
    assert_int_equal(loop_init(&l, 1), 0);
    memset(&server, 0, sizeof(server));
    server_open(&server, &l);
    f.ctx.stats = stats = stats_store_new(4);
    fake.dns_caches = dns_caches_new(&l, stats);
    return 0;
}

static int end(void **state) {
    (void)state;
    dns_caches_stop(fake.dns_caches);
    fake_compile_fini(&f);
    dns_caches_free(fake.dns_caches);
    fake.dns_caches = NULL;
    server_close(&server);
    loop_run_nowait(&l);
    loop_fini(&l);
    stats_store_free(stats);
    return 0;
}

static struct dns_cache *compile(const char *text) {
    return dns_cache_compile(&f.ctx, fake_msg(&f, CONFIG, text));
}

/* A cache named "c" that asks the server above. */
static struct dns_cache *make(const char *more) {
    sv text = arena_printf(&f.msgs,
                           "name: 'c' typed_dns_resolver_config { name: 'r' typed_config { "
                           "[type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3."
                           "CaresDnsResolverConfig] { resolvers { socket_address { address: "
                           "'127.0.0.1' port_value: %u } } query_timeout_seconds { value: 1 } "
                           "query_tries { value: 1 } dns_resolver_options { "
                           "no_default_search_domain: true } } } } %s",
                           server.port, more);
    struct dns_cache *c = compile(text.p);
    if (!c) {
        sv why = fake_errors(&f);
        fail_msg("%.*s", SV_ARG(why));
    }
    return c;
}

static uint64_t counted(unsigned i) {
    struct dns_cache *c = dns_caches_find(fake.dns_caches, SV("c"));
    return stats_scope_value(c->stats, i);
}

static void on_done(struct dns_query *q, const struct dns_result *r) {
    struct asking *a = CONTAINER_OF(q, struct asking, q);
    a->r = *r;
    a->calls++;
}
static void on_change(struct dns_cache_user *u) {
    CONTAINER_OF(u, struct watching, user)->changes++;
}

static void on_tick(struct timer *t) {
    (void)t;
    loop_stop(&l);
}

/* Turns of a millisecond until `at` becomes `want`. */
static void wait_for(uint64_t (*at)(unsigned), unsigned arg, uint64_t want) {
    struct timer tick;
    timer_init(&tick, &l, on_tick);
    for (unsigned i = 0; at(arg) != want; i++) {
        assert_true(i < WAIT_TURNS);
        timer_start(&tick, 1);
        loop_run(&l);
    }
    timer_cancel(&tick);
}

static struct asking *waiting;
static uint64_t calls(unsigned unused) {
    (void)unused;
    return waiting->calls;
}

/* Asks, and waits for the answer if it is not there. Was it looked up? */
static bool ask(struct dns_cache *c, const char *key, struct asking *a) {
    *a = (struct asking){.q = {.on_done = on_done}};
    if (dns_cache_load(c, sv_cstr(key), &a->q, &a->r)) {
        return false;
    }
    waiting = a;
    wait_for(calls, 0, 1);
    return true;
}

static void authorities(void **state) {
    (void)state;
    static const struct {
        const char *text, *host;
        int port; /* -1: none */
    } rows[] = {
        {"", "", -1},
        {":", ":", -1},
        {":80", "", 80},
        {"a", "a", -1},
        {"a:", "a:", -1},
        {"a:80", "a", 80},
        {"a:080", "a", 80},
        {"a:+80", "a", 80},
        {"a:-80", "a:-80", -1},
        {"a:0", "a", 0},
        {"a:65535", "a", 65535},
        {"a:65536", "a:65536", -1},
        {"a:99999999999999999999", "a:99999999999999999999", -1},
        {"a:8x", "a:8x", -1},
        {"a:b:80", "a:b", 80},
        {"1.2.3.4:80", "1.2.3.4", 80},
        {"[1.2.3.4]:80", "1.2.3.4", 80},
        {"[::1]", "::1", -1},
        {"[::1]:80", "::1", 80},
        {"::1", ":", 1},
        {"[a.test]:80", "[a.test]", 80},
        {"[a.test]", "[a.test]", -1},
        {"[]", "[]", -1},
        {"[", "[", -1},
        {"[::1", "[:", 1},
        {"]:80", "]", 80},
        {"user@a.test:80", "user@a.test", 80},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct dns_authority a = dns_authority_parse(sv_cstr(rows[i].text));
        if (!sv_is(a.host, rows[i].host) || a.has_port != (rows[i].port >= 0) ||
            (a.has_port && a.port != rows[i].port)) {
            fail_msg("'%s': '%.*s' %u", rows[i].text, SV_ARG(a.host), a.port);
        }
    }
}

static void keys(void **state) {
    (void)state;
    char room[DNS_CACHE_KEY_MAX], text[DNS_CACHE_KEY_MAX + 2];
    assert_true(sv_is(dns_cache_key(SV("a"), 443, room), "a:443"));
    assert_true(sv_is(dns_cache_key(SV("a:08"), 443, room), "a:08"));
    assert_true(sv_is(dns_cache_key(SV("[::1]"), 80, room), "[::1]:80"));
    assert_true(sv_is(dns_cache_key(SV("a:x"), 80, room), "a:x:80"));
    assert_int_equal(dns_cache_key(SV_NULL, 80, room).n, 0);
    memset(text, 'a', sizeof(text));
    assert_int_equal(dns_cache_key(sv_from(text, DNS_CACHE_KEY_MAX - 3), 80, room).n,
                     DNS_CACHE_KEY_MAX);
    assert_int_equal(dns_cache_key(sv_from(text, DNS_CACHE_KEY_MAX - 2), 80, room).n, 0);
    memcpy(text + DNS_CACHE_KEY_MAX - 2, ":80", 3);
    assert_int_equal(dns_cache_key(sv_from(text, DNS_CACHE_KEY_MAX + 1), 80, room).n, 0);
}

static void refused(void **state) {
    (void)state;
    make("");
    static const struct {
        const char *config, *text;
    } rows[] = {
        {"name: 'c'", "dns_cache_config: config specified DNS cache 'c' with different settings"},
        {"name: 'd' max_hosts { value: 1 } preresolve_hostnames { address: 'a' port_value: 1 } "
         "preresolve_hostnames { address: 'b' port_value: 1 }",
         "dns_cache_config: DNS Cache [d] configured with preresolve_hostnames=2 larger than "
         "max_hosts=1"},
        {"name: 'd' dns_refresh_rate { seconds: -1 }",
         "dns_cache_config.dns_refresh_rate: duration out of range"},
        {"name: 'd' host_ttl { seconds: -1 }", "dns_cache_config.host_ttl: duration out of range"},
        {"name: 'd' dns_query_timeout { seconds: -1 }",
         "dns_cache_config.dns_query_timeout: duration out of range"},
        {"name: 'd' dns_failure_refresh_rate { base_interval { seconds: 2 } max_interval { "
         "seconds: 1 } }",
         "dns_cache_config.dns_failure_refresh_rate: max_interval must be greater than or equal "
         "to base_interval"},
        {"name: 'd' resolved_address_filter { ranges { address_prefix: 'x' } }",
         "dns_cache_config.resolved_address_filter.ranges[0]: invalid ip/mask combo 'x/0' (format "
         "is <ip>/<# mask bits>)"},
        {"name: 'd' preresolve_hostnames { port_value: 1 }",
         "dns_cache_config.preresolve_hostnames[0]: address: value length must be at most 1024 "
         "bytes"},
        {"name: 'd' typed_dns_resolver_config { name: 'r' typed_config { "
         "[type.googleapis.com/google.protobuf.Empty] { } } }",
         "dns_cache_config.typed_dns_resolver_config: Didn't find a registered implementation for "
         "'r' with type URL: 'google.protobuf.Empty'"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_null(compile(rows[i].config));
        sv why = fake_errors(&f);
        if (!sv_is(why, rows[i].text)) {
            fail_msg("%s\n%.*s", rows[i].config, SV_ARG(why));
        }
    }
    assert_null(dns_caches_find(fake.dns_caches, SV("d")));
}

static void found_once(void **state) {
    (void)state;
    struct dns_cache *c = make("dns_lookup_family: V4_ONLY");
    assert_ptr_equal(make("dns_lookup_family: V4_ONLY"), c); /* a second user of it */
    struct watching w = {.user = {.on_change = on_change}};
    dns_cache_add_user(c, &w.user);
    struct asking a, b;
    assert_true(ask(c, "four.test:8080", &a));
    assert_int_equal(a.r.outcome, DNS_FOUND);
    assert_false(a.r.was_cached);
    char text[ADDR_STR_MAX];
    assert_true(sv_is(sv_from(text, addr_str(&a.r.addr, text)), "10.4.0.1:8080"));
    assert_false(ask(c, "four.test:8080", &b));
    assert_true(b.r.was_cached && addr_eq(&a.r.addr, &b.r.addr));
    assert_int_equal(w.changes, 1);
    assert_true(ask(c, "four.test:81", &b)); /* another host */
    assert_int_equal(counted(DNS_CACHE_num_hosts), 2);
    assert_int_equal(counted(DNS_CACHE_host_address_changed), 2);
    unsigned n = 0;
    struct dns_host_view v;
    for (size_t it = 0; dns_cache_next(c, &it, &v); n++) {
        assert_int_equal(v.n, 1);
    }
    assert_int_equal(n, 2);
    dns_cache_remove_user(&w.user);
}

static void several_wait_for_one(void **state) {
    (void)state;
    struct dns_cache *c = make("");
    struct asking v[3] = {
        {.q = {.on_done = on_done}}, {.q = {.on_done = on_done}}, {.q = {.on_done = on_done}}};
    struct dns_result r;
    for (size_t i = 0; i < ARRAY_LEN(v); i++) {
        assert_false(dns_cache_load(c, SV("four.test:80"), &v[i].q, &r));
    }
    dns_query_cancel(&v[1].q);
    waiting = &v[2];
    wait_for(calls, 0, 1);
    assert_int_equal(v[0].calls, 1);
    assert_int_equal(v[1].calls, 0);
    assert_int_equal(counted(DNS_CACHE_dns_query_attempt), 1);
}

static void unknown(void **state) {
    (void)state;
    struct dns_cache *c = make("dns_lookup_family: V4_ONLY dns_query_timeout { nanos: 20000000 }");
    static const struct {
        const char *key, *details;
        bool is_failure;
    } rows[] = {
        {"none.test:80", "dns_resolution_failure{cares_norecords:Domain_name_not_found}", false},
        {"six.test:80",
         "dns_resolution_failure{cares_norecords:DNS_server_returned_answer_with_no_data}", false},
        {"a b:80", "dns_resolution_failure{cares_failure:Misformatted_domain_name}", true},
        {"[x]:80", "dns_resolution_failure{cares_failure:Misformatted_domain_name}", true},
        {"::1:80", "dns_resolution_failure{cares_failure:Misformatted_domain_name}", true},
        {"a:99999:80", "dns_resolution_failure{cares_failure:Misformatted_domain_name}", true},
        {"silent.test:80", "dns_resolution_failure{resolve_timeout}", true},
    };
    uint64_t failures = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct asking a;
        for (unsigned again = 0; again < 2; again++) {
            assert_int_equal(ask(c, rows[i].key, &a), again == 0);
            assert_int_equal(a.r.outcome, DNS_UNKNOWN);
            if (strcmp(a.r.details, rows[i].details) != 0) {
                fail_msg("%s: %s", rows[i].key, a.r.details);
            }
        }
        failures += rows[i].is_failure;
        assert_int_equal(counted(DNS_CACHE_dns_query_failure), failures);
    }
    assert_int_equal(counted(DNS_CACHE_dns_query_timeout), 1);
    struct dns_host_view v;
    size_t it = 0;
    assert_false(dns_cache_next(c, &it, &v));
}

static void limits(void **state) {
    (void)state;
    struct dns_cache *c = make("max_hosts { value: 2 } dns_cache_circuit_breaker { "
                               "max_pending_requests { value: 1 } }");
    struct asking a;
    assert_true(ask(c, "four.test:1", &a));
    assert_true(ask(c, "four.test:2", &a));
    assert_false(ask(c, "four.test:3", &a));
    assert_int_equal(a.r.outcome, DNS_HOSTS_OVERFLOW);
    assert_false(ask(c, "four.test:1", &a)); /* those that are there stay */
    assert_int_equal(a.r.outcome, DNS_FOUND);
    assert_int_equal(counted(DNS_CACHE_host_overflow), 1);
    assert_true(dns_cache_pending_try(c, &l));
    assert_false(dns_cache_pending_try(c, &l));
    assert_int_equal(counted(DNS_CACHE_dns_rq_pending_overflow), 1);
    dns_cache_pending_release(c);
    assert_true(dns_cache_pending_try(c, &l));
    dns_cache_pending_release(c);
}

static void denied_addresses(void **state) {
    (void)state;
    static const struct {
        const char *filter, *address; /* NULL: none is left */
        unsigned denied;
    } rows[] = {
        {"address_prefix: '10.1.0.1' prefix_len { value: 32 } }", "10.1.0.2:80", 1},
        {"address_prefix: '10.0.0.0' prefix_len { value: 8 } }", NULL, 2},
        {"address_prefix: '10.1.0.0' prefix_len { value: 31 } } invert_match: true", "10.1.0.1:80",
         1},
        {"address_prefix: '11.0.0.0' prefix_len { value: 8 } } invert_match: true", NULL, 2},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        sv text = arena_printf(&f.msgs,
                               "dns_lookup_family: V4_ONLY resolved_address_filter { ranges { %s }",
                               rows[i].filter);
        struct dns_cache *c = make(text.p);
        struct asking a;
        assert_true(ask(c, "four.test:80", &a));
        assert_true(ask(c, "both.test:80", &a));
        char out[ADDR_STR_MAX];
        if (rows[i].address) {
            assert_true(sv_is(sv_from(out, addr_str(&a.r.addr, out)), rows[i].address));
        } else {
            assert_string_equal(a.r.details, "dns_resolution_failure{address_denied}");
        }
        end(NULL);
        start(NULL);
    }
}

static uint64_t is_above(unsigned stat) { return counted(stat) > 3; }

static void expiry(void **state) {
    (void)state;
    struct dns_cache *c = make("host_ttl { nanos: 1000000 } dns_refresh_rate { nanos: 5000000 } "
                               "dns_min_refresh_rate { nanos: 5000000 } "
                               "dns_lookup_family: V4_ONLY");
    struct watching w = {.user = {.on_change = on_change}};
    dns_cache_add_user(c, &w.user);
    struct asking a;
    assert_true(ask(c, "none.test:80", &a));
    assert_true(ask(c, "brief.test:80", &a));
    assert_int_equal(w.changes, 1);
    struct dns_host_view v;
    size_t it = 0;
    assert_true(dns_cache_next(c, &it, &v));
    struct dns_use *use = shared_ref(v.use);
    dns_use_touch(use, UINT64_MAX / 2);           /* a busy worker's clock */
    wait_for(counted, DNS_CACHE_host_removed, 1); /* the one that nobody used */
    wait_for(is_above, DNS_CACHE_dns_query_attempt, true);
    assert_int_equal(counted(DNS_CACHE_num_hosts), 1);
    assert_int_equal(w.changes, 1);
    dns_use_touch(use, 0);
    wait_for(counted, DNS_CACHE_num_hosts, 0);
    assert_int_equal(w.changes, 2);
    shared_unref(&use->shared);
    dns_cache_remove_user(&w.user);
}

static void failures_that_are_final(void **state) {
    (void)state;
    struct dns_cache *c = make("disable_dns_refresh_on_failure: true");
    struct asking a;
    assert_true(ask(c, "a b:80", &a));
    assert_int_equal(counted(DNS_CACHE_host_removed), 1);
    assert_true(ask(c, "a b:80", &a)); /* is looked up anew */
    assert_true(ask(c, "none.test:80", &a));
    assert_int_equal(counted(DNS_CACHE_num_hosts), 1);
}

static void failures_back_off(void **state) {
    (void)state;
    struct dns_cache *c = make("dns_failure_refresh_rate { base_interval { nanos: 1000000 } "
                               "max_interval { nanos: 2000000 } }");
    struct asking a;
    assert_true(ask(c, "a b:80", &a));
    wait_for(is_above, DNS_CACHE_dns_query_failure, true);
}

static void preresolved(void **state) {
    (void)state;
    struct dns_cache *c = make("preresolve_hostnames { address: 'four.test' port_value: 81 }");
    wait_for(counted, DNS_CACHE_dns_query_success, 1);
    struct asking a;
    assert_false(ask(c, "four.test:81", &a));
    assert_int_equal(a.r.outcome, DNS_FOUND);
}

static void gone_with_its_users(void **state) {
    (void)state;
    struct dns_cache *c = make("");
    struct dns_result r;
    assert_false(dns_cache_load(c, SV("silent.test:80"), NULL, &r)); /* under way */
    dns_cache_ref(c);
    arena_fini(&f.arena); /* the resource is gone */
    arena_init(&f.arena, 0);
    dns_caches_sweep(fake.dns_caches);
    assert_ptr_equal(dns_caches_find(fake.dns_caches, SV("c")), c);
    dns_cache_unref(c);
    assert_non_null(compile("name: 'c'")); /* nobody is left who wants other settings */
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, start, end)
        T(authorities),
        T(keys),
        T(refused),
        T(found_once),
        T(unknown),
        T(several_wait_for_one),
        T(limits),
        T(denied_addresses),
        T(expiry),
        T(failures_that_are_final),
        T(preresolved),
        T(gone_with_its_users),
        T(failures_back_off),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
