/* dynamic_forward_proxy: which requests wait for which host, and what follows each answer. */
#include "proxy/api/dns_cache.h"
#include "tests/support/fake_stream.h"

extern const struct http_filter_type dynamic_forward_proxy_http_filter;
static const struct http_filter_type *const type = &dynamic_forward_proxy_http_filter;

#define CONFIG "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig"
#define PER_ROUTE "envoy.extensions.filters.http.dynamic_forward_proxy.v3.PerRouteConfig"
#define CACHE "dns_cache_config { name: 'c' } "

static struct fake_compile f;
static struct stream s;

/* --- what the filter asks, scripted --- */

static struct {
    bool is_static, is_full; /* the cluster is of another kind; the worker takes no more waiters */
    const char *known;       /* the key of a host that is there */
    sv state;                /* dynamic_host of filter state */
    uint16_t state_port;
    char asked[64]; /* the key that was asked for */
    struct on_demand_wait *wait;
} script;

bool http_route_is_dynamic(struct http_filter *x, uint16_t *port) {
    *port = 80;
    return x->stream->has_route_to_cluster && !script.is_static;
}
sv http_dynamic_state(struct http_filter *x, uint16_t *port) {
    (void)x;
    *port = script.state_port ? script.state_port : *port;
    return script.state;
}
bool http_dynamic_host(struct http_filter *x, const struct dns_cache *c, sv key, struct addr *out) {
    (void)x;
    assert_non_null(c);
    return script.known && sv_is(key, script.known) && addr_parse_ip_port(SV("10.0.0.1:80"), out);
}
bool worker_dns_load(struct worker *w, struct dns_cache *c, sv key, struct on_demand_wait *wait) {
    (void)w;
    assert_non_null(c);
    assert_true(key.n < sizeof(script.asked));
    memcpy(script.asked, key.p, key.n);
    script.wait = script.is_full ? NULL : wait;
    return !script.is_full;
}
void worker_fetch_cancel(struct worker *w, struct on_demand_wait *wait) {
    (void)w;
    (void)wait;
}

/* --- fixture --- */

static int start(void **state) {
    (void)state;
    fake_compile_init(&f, NULL);
    f.ctx.stats = stats_store_new(4);
    fake.dns_caches = dns_caches_new(NULL, f.ctx.stats);
    memset(&script, 0, sizeof(script));
    return 0;
}

static int end(void **state) {
    (void)state;
    struct stats_store *stats = f.ctx.stats;
    fake_compile_fini(&f);
    dns_caches_free(fake.dns_caches);
    fake.dns_caches = NULL;
    stats_store_free(stats);
    return 0;
}

static enum filter_headers_status decode(const char *config, const char *per_route,
                                         const char *host) {
    memset(script.asked, 0, sizeof(script.asked));
    const void *c = type->compile(&f.ctx, fake_msg(&f, CONFIG, config));
    assert_non_null(c);
    fake_stream_start(&s, type, c, host, "/", "x-to: named.test:81\nx-empty: ");
    if (per_route) {
        s.route_configs[s.route_configs_n++] =
            type->compile_route(&f.ctx, fake_msg(&f, PER_ROUTE, per_route), PER_ROUTE);
    }
    return fake_stream_decode(&s, true);
}

static uint32_t pending(void) {
    return __atomic_load_n(&dns_caches_find(fake.dns_caches, SV("c"))->pending, __ATOMIC_RELAXED);
}

static void answer(const struct dns_result *r) {
    script.wait->dns = r;
    script.wait->on_done(script.wait, r->outcome == DNS_FOUND);
}

/* --- tests --- */

static void refused(void **state) {
    (void)state;
    static const struct {
        const char *config, *text;
    } rows[] = {
        {"", "dns_cache_config: value is required: sub_cluster_config is not supported"},
        {"sub_cluster_config { }",
         "dns_cache_config: value is required: sub_cluster_config is not supported"},
        {"dns_cache_config { name: 'c' host_ttl { seconds: -1 } }",
         "dns_cache_config.host_ttl: duration out of range"},
        {"dns_cache_config { name: 'd' max_hosts { value: 7 } }",
         "dns_cache_config: config specified DNS cache 'd' with different settings"},
    };
    assert_non_null(type->compile(&f.ctx, fake_msg(&f, CONFIG, "dns_cache_config { name: 'd' }")));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_null(type->compile(&f.ctx, fake_msg(&f, CONFIG, rows[i].config)));
        sv why = fake_errors(&f);
        if (!sv_is(why, rows[i].text)) {
            fail_msg("%.*s", SV_ARG(why));
        }
    }
}

static void keys(void **state) {
    (void)state;
    static const struct {
        const char *config, *per_route, *host, *state, *want;
    } rows[] = {
        {CACHE, NULL, "a.test", NULL, "a.test:80"},
        {CACHE, NULL, "a.test:8080", NULL, "a.test:8080"},
        {CACHE, NULL, "[::1]", NULL, "[::1]:80"},
        {CACHE, NULL, "a.test", "b.test", "a.test:80"},
        {CACHE "allow_dynamic_host_from_filter_state: true", NULL, "a.test", "b.test",
         "b.test:4444"},
        {CACHE "allow_dynamic_host_from_filter_state: true", NULL, "a.test", NULL, "a.test:4444"},
        {CACHE, "host_rewrite_literal: 'c.test'", "a.test", NULL, "c.test:80"},
        {CACHE, "host_rewrite_literal: ''", "a.test", NULL, "a.test:80"},
        {CACHE, "host_rewrite_header: 'X-To'", "a.test", NULL, "named.test:81"},
        {CACHE, "host_rewrite_header: 'x-none'", "a.test", NULL, "a.test:80"},
        {CACHE, "", "a.test", NULL, "a.test:80"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        script.state = sv_cstr(rows[i].state);
        script.state_port = 4444;
        assert_int_equal(decode(rows[i].config, rows[i].per_route, rows[i].host),
                         FILTER_HEADERS_STOP_ALL_WATERMARK);
        if (strcmp(script.asked, rows[i].want) != 0) {
            fail_msg("row %zu: %s", i, script.asked);
        }
        assert_int_equal(pending(), 1);
        fake_stream_end(&s);
        assert_int_equal(pending(), 0);
    }
}

static void passed_by(void **state) {
    (void)state;
    script.is_static = true;
    assert_int_equal(decode(CACHE, "host_rewrite_literal: 'c.test'", "a.test"),
                     FILTER_HEADERS_CONTINUE);
    assert_true(sv_is(headers_get(&s.request, HDR_authority), "a.test")); /* not rewritten */
    fake_stream_end(&s);
    script.is_static = false;
    script.known = "a.test:80";
    assert_int_equal(decode(CACHE, NULL, "a.test"), FILTER_HEADERS_CONTINUE);
    assert_string_equal(script.asked, "");
    assert_null(s.info.filter_state);
    assert_int_equal(pending(), 0);
    fake_stream_end(&s);
    assert_int_equal(decode(CACHE "save_upstream_address: true", NULL, "a.test"),
                     FILTER_HEADERS_CONTINUE);
    assert_true(sv_is(filter_state_text(s.info.filter_state, SV("envoy.stream.upstream_address")),
                      "10.0.0.1:80"));
    fake_stream_end(&s);
}

static void answers(void **state) {
    (void)state;
    static const struct {
        struct dns_result r;
        unsigned status; /* 0: the request goes on */
        uint64_t flags;
        const char *body, *details;
    } rows[] = {
        {{.outcome = DNS_FOUND}, 0, 0, NULL, NULL},
        {{.outcome = DNS_UNKNOWN, .details = "dns_resolution_failure{why}"},
         503,
         RESPONSE_FLAG(DF),
         "DNS resolution failure",
         "dns_resolution_failure{why}"},
        {{.outcome = DNS_HOSTS_OVERFLOW}, 503, 0, "DNS cache overflow", "dns_cache_overflow"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(decode(CACHE, NULL, "a.test"), FILTER_HEADERS_STOP_ALL_WATERMARK);
        answer(&rows[i].r);
        assert_int_equal(pending(), 0);
        assert_int_equal(s.local_status, rows[i].status);
        assert_int_equal(s.continued_decoding, rows[i].status == 0);
        if (rows[i].status) {
            assert_true(s.local_flags == rows[i].flags);
            assert_true(sv_is(s.local_body, rows[i].body));
            assert_true(sv_is(s.local_details, rows[i].details));
        }
        fake_stream_end(&s);
    }
}

static void turned_away(void **state) {
    (void)state;
    char longest[DNS_CACHE_KEY_MAX];
    memset(longest, 'x', sizeof(longest));
    longest[sizeof(longest) - 1] = '\0';
    const struct {
        const char *config, *per_route, *host;
        bool is_full;
        unsigned status;
        const char *details;
    } rows[] = {
        {CACHE, NULL, "", false, 400, "empty_host_header"},
        {CACHE, "host_rewrite_header: 'x-empty'", "a.test", false, 400, "empty_host_header"},
        {CACHE, NULL, longest, false, 503, DNS_DETAILS_BAD_NAME},
        {CACHE, NULL, "a.test", true, 503, "dynamic_forward_proxy_pending_request_overflow"},
        {"dns_cache_config { name: 'd' dns_cache_circuit_breaker { max_pending_requests { } } }",
         NULL, "a.test", false, 503, "dynamic_forward_proxy_pending_request_overflow"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        script.is_full = rows[i].is_full;
        assert_int_equal(decode(rows[i].config, rows[i].per_route, rows[i].host),
                         FILTER_HEADERS_STOP);
        assert_int_equal(s.local_status, rows[i].status);
        if (!sv_is(s.local_details, rows[i].details)) {
            fail_msg("row %zu: %.*s", i, SV_ARG(s.local_details));
        }
        assert_int_equal(pending(), 0);
        fake_stream_end(&s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(name) cmocka_unit_test_setup_teardown(name, start, end)
        T(refused), T(keys), T(passed_by), T(answers), T(turned_away),
#undef T
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
