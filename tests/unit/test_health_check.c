/* Health checks: configurations, payloads, statuses; what checks make of a host set. */
#include "proxy/api/matcher.h"
#include "proxy/upstream/health_check.h"

#include "tests/support/hosts.h"

#define COMMON                                                                         \
    "timeout { seconds: 1 } interval { seconds: 5 } unhealthy_threshold { value: 3 } " \
    "healthy_threshold { value: 2 } "

struct bench {
    struct fixture_cluster f;
    struct fake_compile fc;
};

static void bench_init(struct bench *b) {
    fixture_init(&b->f, &round_robin_lb_policy);
    fake_compile_init(&b->fc, NULL);
}

static void bench_fini(struct bench *b) {
    fake_compile_fini(&b->fc);
    fixture_fini(&b->f);
}

static const struct health_check_config *compile(struct bench *b, const char *text) {
    return health_check_config_compile(&b->fc.ctx, &b->f.cfg,
                                       fake_msg(&b->fc, "envoy.config.core.v3.HealthCheck", text));
}

static void test_defaults(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b);
    const struct health_check_config *c = compile(&b, COMMON "http_health_check { path: '/' }");
    assert_true(diag_ok(&b.fc.diag));
    assert_int_equal(c->timeout_ms, 1000);
    assert_int_equal(c->no_traffic_interval_ms, 60000);
    assert_int_equal(c->no_traffic_healthy_interval_ms, 60000);
    assert_int_equal(c->unhealthy_interval_ms, 5000);
    assert_int_equal(c->unhealthy_edge_interval_ms, 5000);
    assert_int_equal(c->healthy_edge_interval_ms, 5000);
    assert_int_equal(c->unhealthy_threshold, 3);
    assert_int_equal(c->healthy_threshold, 2);
    assert_true(c->reuse_connection);
    assert_int_equal(c->response_max_bytes, 1024);
    assert_int_equal(c->transport, SLOT_NONE);
    assert_true(sv_is(c->method, "GET"));
    c = compile(&b, COMMON "unhealthy_interval { seconds: 2 } no_traffic_interval { seconds: 9 } "
                           "reuse_connection { value: false } http_health_check { path: '/' }");
    assert_int_equal(c->unhealthy_edge_interval_ms, 2000);
    assert_int_equal(c->healthy_edge_interval_ms, 5000);
    assert_int_equal(c->no_traffic_healthy_interval_ms, 9000);
    assert_false(c->reuse_connection);
    bench_fini(&b);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *error;
    } rows[] = {
        {COMMON "http_health_check { path: '/' send { text: '6' } }", "invalid hex string '6'"},
        {COMMON "http_health_check { path: '/' send { text: '' } }", "invalid hex string ''"},
        {COMMON "http_health_check { path: '/' receive { text: '6g' } }",
         "http_health_check.receive[0]: text: invalid hex string '6g'"},
        {COMMON "http_health_check { path: '/' receive { } }", "payload: value is required"},
        {COMMON "http_health_check { path: '/' expected_statuses { start: -1 end: 200 } }",
         "http_health_check.expected_statuses[0]: Invalid http expected status range: expecting "
         "start >= 100, but found start=-1"},
        {COMMON "http_health_check { path: '/' expected_statuses { start: 200 end: 700 } }",
         "expecting end <= 600, but found end=700"},
        {COMMON "http_health_check { path: '/' retriable_statuses { start: 9 end: 9 } }",
         "Invalid http retriable status range: expecting start < end"},
        {COMMON "http_health_check { path: '/' codec_client_type: HTTP3 }", "HTTP/3"},
        {COMMON "grpc_health_check { }", "c cluster must support HTTP/2 for gRPC healthchecking"},
        {COMMON "tcp_health_check { proxy_protocol_config { } }", "proxy_protocol_config"},
        {COMMON "custom_health_check { name: 'redis' }", "'redis'"},
        {COMMON, "health_checker: value is required"},
        {COMMON "interval_jitter { seconds: -1 } tcp_health_check { }",
         "interval_jitter: duration out of range"},
        {COMMON "event_log_path: '/nowhere/at/all' tcp_health_check { }", "/nowhere/at/all"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct bench b;
        bench_init(&b);
        compile(&b, rows[i].text);
        sv text = fake_errors(&b.fc);
        if (!sv_contains(text, sv_cstr(rows[i].error))) {
            fail_msg("row %zu: '%.*s'", i, SV_ARG(text));
        }
        bench_fini(&b);
    }
}

static void test_payloads(void **state) {
    (void)state;
    static const struct {
        sv want[3];
        unsigned n;
        sv data;
        bool matches;
    } rows[] = {
        {{SV_INIT("")}, 0, SV_INIT(""), true},
        {{SV_INIT("a")}, 1, SV_INIT(""), false},
        {{SV_INIT("a")}, 1, SV_INIT("ba"), true},
        {{SV_INIT("a"), SV_INIT("b")}, 2, SV_INIT("ba"), false},
        {{SV_INIT("a"), SV_INIT("b")}, 2, SV_INIT("a-b"), true},
        {{SV_INIT("aa"), SV_INIT("aa")}, 2, SV_INIT("aaa"), false}, /* no byte counts twice */
        {{SV_INIT("aa"), SV_INIT("aa")}, 2, SV_INIT("aaaa"), true},
        {{SV_INIT("x"), SV_INIT("y"), SV_INIT("z")}, 3, SV_INIT("x y"), false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_row(health_check_payload_match(rows[i].want, rows[i].n, rows[i].data) ==
                       rows[i].matches,
                   i);
    }
}

static void test_statuses(void **state) {
    (void)state;
    const struct health_check_range ranges[] = {{200, 201}, {300, 400}};
    const struct health_check_statuses s = {ranges, 2}, none = {NULL, 0};
    static const struct {
        unsigned code;
        bool is_in;
    } rows[] = {{199, false}, {200, true}, {201, false}, {300, true}, {399, true}, {400, false}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_row(health_check_status_in(&s, rows[i].code) == rows[i].is_in, i);
        assert_row(!health_check_status_in(&none, rows[i].code), i);
    }
}

/* ---- hosts that discovery forgot ---- */

static struct host_set *build(struct bench *b, const struct fixture_host *v,
                              const struct host_set *previous) {
    struct host_set_builder *hb = host_set_builder_new(&b->f.cfg, previous, 1);
    host_set_builder_checked(hb);
    fixture_add_hosts(hb, v);
    return host_set_builder_finish(hb, NULL);
}

static void test_healthy_hosts_stay(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b);
    const struct fixture_host both[] = {{.address = "10.0.0.1:80"},
                                        {.address = "10.0.0.2:80", .zone = "z", .weight = 7},
                                        {.address = "10.0.0.3:80", .priority = 1},
                                        {0}};
    const struct fixture_host one[] = {{.address = "10.0.0.1:80"}, {0}};
    struct host_set *first = fixture_hosts(&b.f, both, NULL);
    host_flags_set(first->entries[2].host, HOST_FLAG(FAILED_ACTIVE_HC));
    struct host_set *second = build(&b, one, first);
    assert_int_equal(second->hosts_n, 2); /* the failed one is gone */
    const struct host_entry *kept = host_set_find(second, &first->entries[1].host->addr);
    assert_non_null(kept);
    assert_ptr_equal(kept->host, first->entries[1].host);
    assert_int_equal(kept->weight, 7);
    assert_int_equal(host_flags(kept->host), HOST_FLAG(PENDING_DYNAMIC_REMOVAL));
    struct host_set *third = build(&b, both, second); /* named again */
    assert_int_equal(host_flags(kept->host), 0);
    assert_int_equal(third->hosts_n, 3);
    host_flags_set(kept->host, HOST_FLAG(FAILED_ACTIVE_HC));
    struct host_set *fourth = build(&b, one, third);
    assert_int_equal(fourth->hosts_n, 1);
    b.f.cfg.drain_connections_on_host_removal = true;
    host_flags_clear(kept->host, HOST_FLAG(FAILED_ACTIVE_HC));
    struct host_set *fifth = build(&b, one, third);
    assert_int_equal(fifth->hosts_n, 1);
    shared_unref(&first->shared);
    shared_unref(&second->shared);
    shared_unref(&third->shared);
    shared_unref(&fourth->shared);
    shared_unref(&fifth->shared);
    bench_fini(&b);
}

static void test_new_hosts_begin_as_failed(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b);
    const struct fixture_host v[] = {{.address = "10.0.0.1:80"}, {0}};
    struct host_set *s = build(&b, v, NULL);
    assert_int_equal(host_flags(s->entries[0].host), HOST_FLAG(FAILED_ACTIVE_HC));
    shared_unref(&s->shared);
    bench_fini(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_defaults),
                                       cmocka_unit_test(test_refused),
                                       cmocka_unit_test(test_payloads),
                                       cmocka_unit_test(test_statuses),
                                       cmocka_unit_test(test_healthy_hosts_stay),
                                       cmocka_unit_test(test_new_hosts_begin_as_failed)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
