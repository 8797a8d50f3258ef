/* The health check filter: whose requests it answers, and how. */
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

#include "proxy/api/worker.h"

extern const struct http_filter_type health_check_http_filter;

#define CONFIG "envoy.extensions.filters.http.health_check.v3.HealthCheck"
#define ON_HC "headers { name: ':path' string_match { exact: '/hc' } } "

static struct {
    bool has_failed, is_missing;
    unsigned total, usable;
} now;

bool worker_health_failed(const struct worker *w) {
    (void)w;
    return now.has_failed;
}
bool worker_cluster_members(struct worker *w, slot_t slot, unsigned *total, unsigned *usable) {
    (void)w, (void)slot;
    *total = now.total;
    *usable = now.usable;
    return !now.is_missing;
}
sv worker_node_cluster(const struct worker *w) {
    (void)w;
    return SV("home");
}

static const void *config_from(const char *text) {
    return health_check_http_filter.compile(&f.ctx, fake_msg(&f, CONFIG, text));
}

static const struct row {
    const char *config, *path;
    bool has_failed, is_missing;
    unsigned total, usable;
    unsigned want; /* 0: not answered here */
    const char *details;
} rows[] = {
    {"pass_through_mode { } " ON_HC, "/hc", false, false, 0, 0, 200, "health_check_ok"},
    {"pass_through_mode { } " ON_HC, "/other", false, false, 0, 0, 0, ""},
    {"pass_through_mode { } " ON_HC, "/hc", true, false, 0, 0, 503, "health_check_failed"},
    {"pass_through_mode { } " ON_HC, "/other", true, false, 0, 0, 0, ""},
    {"pass_through_mode { value: true } " ON_HC, "/hc", false, false, 0, 0, 0, ""},
#define AT(pct)                                                                            \
    "pass_through_mode { } cluster_min_healthy_percentages { key: 'a' value { value: " pct \
    " } } " ON_HC
    {AT("50"), "/hc", false, true, 0, 0, 503, "health_check_no_cluster_found"},
    {AT("50"), "/hc", false, false, 0, 0, 503, "health_check_cluster_empty"},
    {AT("0"), "/hc", false, false, 0, 0, 200, "health_check_ok"},
    {AT("50"), "/hc", false, false, 4, 1, 503, "health_check_cluster_unhealthy"},
    {AT("50"), "/hc", false, false, 4, 2, 200, "health_check_ok"},
    {AT("50"), "/hc", true, false, 4, 4, 503, "health_check_failed"},
#undef AT
};

static void test_answers(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct row *r = &rows[i];
        now.has_failed = r->has_failed;
        now.is_missing = r->is_missing;
        now.total = r->total;
        now.usable = r->usable;
        struct stream s;
        fake_stream_start(&s, &health_check_http_filter, config_from(r->config), "h", r->path,
                          NULL);
        enum filter_headers_status st = fake_stream_decode(&s, true);
        assert_row(st == (r->want ? FILTER_HEADERS_STOP : FILTER_HEADERS_CONTINUE), i);
        assert_row(s.local_status == r->want, i);
        assert_row(sv_is(s.local_details, r->details), i);
        assert_row(s.local_flags == (r->want == 503 ? RESPONSE_FLAG(LH) : 0), i);
        if (!r->want) {
            fake_stream_respond(&s, 200, "", true);
        }
        bool is_check = strcmp(r->path, "/hc") == 0;
        assert_row(s.info.is_health_check == is_check, i);
        assert_row(headers_has(&s.response, HDR_x_envoy_upstream_healthchecked_cluster) == is_check,
                   i);
        assert_row(headers_has(&s.response, HDR_x_envoy_immediate_health_check_fail) ==
                       (!is_check && r->has_failed),
                   i);
        fake_stream_end(&s);
    }
    now.has_failed = false;
}

static void test_a_body_is_waited_for(void **state) {
    (void)state;
    struct stream s;
    fake_stream_start(&s, &health_check_http_filter, config_from("pass_through_mode { } " ON_HC),
                      "h", "/hc", NULL);
    assert_int_equal(fake_stream_decode(&s, false), FILTER_HEADERS_STOP);
    assert_int_equal(fake_stream_decode_data(&s, SV("a"), false), FILTER_DATA_STOP_NO_BUFFER);
    assert_int_equal(s.local_status, 0);
    assert_int_equal(fake_stream_decode_data(&s, SV("b"), true), FILTER_DATA_STOP_NO_BUFFER);
    assert_int_equal(s.local_status, 200);
    fake_stream_end(&s);
}

static unsigned ask(const void *config, uint64_t at_ms, const char *answer) {
    struct stream s;
    fake_stream_start(&s, &health_check_http_filter, config, "h", "/hc", NULL);
    s.loop.now_us_ += at_ms * 1000;
    fake_stream_decode(&s, true);
    unsigned status = s.local_status;
    if (!status) {
        fake_stream_respond(&s, 503, answer, true);
    } else {
        assert_true(sv_is(s.local_details, "health_check_cached"));
        assert_true(headers_get_name(&s.response, SV("x-envoy-degraded")).p != NULL);
    }
    fake_stream_end(&s);
    return status;
}

static void test_remembered(void **state) {
    (void)state;
    const void *c =
        config_from("pass_through_mode { value: true } cache_time { seconds: 1 } " ON_HC);
    assert_int_equal(ask(c, 0, "x-envoy-degraded: 1"), 0); /* passes through */
    assert_int_equal(ask(c, 999, NULL), 503);
    assert_int_equal(ask(c, 1000, "x-envoy-degraded: 1"), 0);
    assert_int_equal(ask(c, 1500, NULL), 503);
}

static void test_refused(void **state) {
    (void)state;
    assert_null(config_from("pass_through_mode { } cache_time { seconds: 1 }"));
    assert_true(sv_contains(fake_errors(&f), SV("cache_time_ms must not be set when "
                                                "path_through_mode is disabled")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_answers, start, end),
        cmocka_unit_test_setup_teardown(test_a_body_is_waited_for, start, end),
        cmocka_unit_test_setup_teardown(test_remembered, start, end),
        cmocka_unit_test_setup_teardown(test_refused, start, end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
