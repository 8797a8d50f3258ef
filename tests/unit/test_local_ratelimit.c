/* Local rate limit: the shared bucket, which requests are limited, what is answered and told. */
#include "filters/common/token_bucket.h"
#include "proxy/api/rate_limit.h"
#include "proxy/api/worker.h"
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

extern const struct http_filter_type local_ratelimit_http_filter;

#define LIMIT "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"
#define ALWAYS(field) field " { default_value { numerator: 100 } } "
#define ON "stat_prefix: 'p' " ALWAYS("filter_enabled") ALWAYS("filter_enforced")
#define BUCKET(max, per_fill, seconds)                                        \
    "token_bucket { max_tokens: " #max " tokens_per_fill { value: " #per_fill \
    " } fill_interval { "                                                     \
    "seconds: " #seconds " } } "
/* cells of the filter's stats, in the order of its table */
enum { ENABLED, ENFORCED, OK, LIMITED };

sv worker_node_cluster(const struct worker *w) {
    (void)w;
    return SV("here");
}

static const void *make(const char *text) {
    const void *c = local_ratelimit_http_filter.compile(&f.ctx, fake_msg(&f, LIMIT, text));
    if (!c) {
        fail_msg("%s: %.*s", text, SV_ARG(fake_errors(&f)));
    }
    return c;
}
static uint64_t counted(const void *config, unsigned cell) {
    return stats_scope_value(*(struct stats_scope *const *)config, cell);
}

/* Status of the answer; 0: the request went on. */
static unsigned ask(const void *config, const char *more, sv *header, const char *name) {
    struct stream s;
    fake_stream_start(&s, &local_ratelimit_http_filter, config, "h.com", "/", more);
    enum filter_headers_status status = fake_stream_decode(&s, true);
    unsigned answered = s.local_status;
    assert_int_equal(status, answered ? FILTER_HEADERS_STOP : FILTER_HEADERS_CONTINUE);
    if (header) {
        sv v = headers_get_name(answered ? &s.response : &s.request, sv_cstr(name));
        *header = v.p ? arena_sv(&f.arena, v) : SV_NULL;
    }
    fake_stream_end(&s);
    return answered;
}

static void test_bucket(void **state) {
    (void)state;
    struct token_bucket b;
    uint64_t left, next_s, now = 5000000;
    void *msg =
        fake_msg(&f, "envoy.type.v3.TokenBucket",
                 "max_tokens: 3 tokens_per_fill { value: 2 } fill_interval { seconds: 10 }");
    assert_true(token_bucket_compile(&f.ctx, "bucket", msg, &b));
    token_bucket_state(&b, now, &left, &next_s);
    assert_true(left == 3 && next_s == 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_true(token_bucket_take(&b, now, 1));
    }
    assert_false(token_bucket_take(&b, now, 1));
    token_bucket_state(&b, now, &left, &next_s);
    assert_true(left == 0 && next_s == 5);
    assert_false(token_bucket_take(&b, now + 4999000, 1));
    assert_true(token_bucket_take(&b, now + 5001000, 1));
    assert_false(token_bucket_take(&b, now + 5002000, 1));
    /* another worker's clock is a little behind */
    assert_false(token_bucket_take(&b, now, 1));
    assert_false(token_bucket_take(&b, now + 15001000, 3));
    token_bucket_give(&b, now + 5002000, 2);
    assert_true(token_bucket_take(&b, now + 5002000, 2));
    /* it never holds more than its most */
    token_bucket_give(&b, now + 5002000, 9);
    token_bucket_state(&b, now + 5002000, &left, &next_s);
    assert_int_equal(left, 3);
    token_bucket_state(&b, now + 3600000000, &left, &next_s);
    assert_int_equal(left, 3);
}

static void test_limits(void **state) {
    (void)state;
    const void *c = make(ON BUCKET(2, 1, 1000));
    assert_int_equal(ask(c, NULL, NULL, NULL), 0);
    assert_int_equal(ask(c, NULL, NULL, NULL), 0);
    assert_int_equal(ask(c, NULL, NULL, NULL), 429);
    assert_int_equal(counted(c, ENABLED), 3);
    assert_int_equal(counted(c, OK), 2);
    assert_int_equal(counted(c, LIMITED), 1);
    assert_int_equal(counted(c, ENFORCED), 1);
}

/* Descriptors are the filter's own, else the route's and by its leave the virtual host's. */
static void test_descriptors(void **state) {
    (void)state;
    static const char route_text[] = "actions { source_cluster { } }",
                      vhost_text[] = "actions { destination_cluster { } } stage { value: 1 }";
#define DESCRIPTOR(key, value) \
    "descriptors { entries { key: '" key "' value: '" value "' } " BUCKET(1, 1, 1000) "} "
#define HERE DESCRIPTOR("source_cluster", "here")
#define THERE DESCRIPTOR("destination_cluster", "cluster")
    static const struct {
        const char *text;
        bool has_route, has_vhost, includes;
        unsigned second; /* status of the second request */
    } rows[] = {
        {ON HERE, true, false, false, 429},
        {ON HERE, false, false, false, 0},
        {ON HERE "stage: 1", true, false, false, 0},
        {ON THERE "stage: 1", false, true, false, 429},
        {ON THERE, false, true, false, 0},
        {ON THERE "stage: 1", true, true, false, 0},
        {ON THERE "stage: 1", true, true, true, 429},
        {ON THERE "stage: 1 vh_rate_limits: INCLUDE", true, true, false, 429},
        {ON THERE "stage: 1 vh_rate_limits: IGNORE", false, true, false, 0},
        {ON HERE "rate_limits { actions { destination_cluster { } } }", true, true, false, 0},
        {ON THERE "rate_limits { actions { destination_cluster { } } }", false, false, false, 429},
    };
    const void *route_msg[] = {fake_msg(&f, "envoy.config.route.v3.RateLimit", route_text)};
    const void *vhost_msg[] = {fake_msg(&f, "envoy.config.route.v3.RateLimit", vhost_text)};
    const struct rate_limits *route = rate_limits_compile(&f.ctx, route_msg, 1, false);
    const struct rate_limits *vhost = rate_limits_compile(&f.ctx, vhost_msg, 1, false);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const void *c = make(rows[i].text);
        unsigned status = 0;
        for (unsigned k = 0; k < 2; k++) {
            struct stream s;
            fake_stream_start(&s, &local_ratelimit_http_filter, c, "h.com", "/", NULL);
            s.rate_limits =
                (struct http_rate_limits){rows[i].has_route ? route : NULL,
                                          rows[i].has_vhost ? vhost : NULL, rows[i].includes};
            fake_stream_decode(&s, true);
            status = s.local_status;
            fake_stream_end(&s);
        }
        if (status != rows[i].second) {
            fail_msg("row %zu: %u, not %u", i, status, rows[i].second);
        }
    }
}

static void test_without_limit(void **state) {
    (void)state;
    static const char *const rows[] = {
        "stat_prefix: 'p' " BUCKET(1, 1, 1000),                          /* not enabled */
        "stat_prefix: 'p' " ALWAYS("filter_enabled") BUCKET(1, 1, 1000), /* not enforced */
        ON,                                                              /* no bucket */
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const void *c = make(rows[i]);
        for (unsigned n = 0; n < 3; n++) {
            assert_int_equal(ask(c, NULL, NULL, NULL), 0);
        }
        assert_int_equal(counted(c, ENFORCED), 0);
    }
}

static void test_answers(void **state) {
    (void)state;
    static const struct {
        const char *config, *request, *header, *want;
        unsigned status;
    } rows[] = {
        {"status { code: 503 }", NULL, "x-none", NULL, 503},
        {"status { code: 200 }", NULL, "x-none", NULL, 429},
        {"response_headers_to_add { header { key: 'x-a' value: 'b' } }", NULL, "x-a", "b", 429},
        {"response_headers_to_add { header { key: 'x-a' value: '%RESPONSE_FLAGS%' } }", NULL, "x-a",
         "-", 429},
        {"enable_retry_after_header: true", NULL, "retry-after", "1000", 429},
        {"enable_retry_after_header: true status { code: 503 }", NULL, "retry-after", NULL, 503},
        {"", "content-type: application/grpc", "grpc-status", "14", 429},
        {"rate_limited_as_resource_exhausted: true", "content-type: application/grpc",
         "grpc-status", "8", 429},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        sv got;
        const void *c = make(arena_printf(&f.arena, ON BUCKET(1, 1, 1000) "%s", rows[i].config).p);
        assert_int_equal(ask(c, NULL, NULL, NULL), 0);
        assert_int_equal(ask(c, rows[i].request, &got, rows[i].header), rows[i].status);
        assert_true(rows[i].want ? sv_is(got, rows[i].want) : got.p == NULL);
    }
}

static void test_marks_what_is_not_enforced(void **state) {
    (void)state;
    sv got;
    const void *c = make("stat_prefix: 'p' " ALWAYS("filter_enabled") BUCKET(
        1, 1,
        1000) "request_headers_to_add_when_not_enforced { header { key: 'x-l' value: 'y' } }");
    ask(c, NULL, &got, "x-l");
    assert_null(got.p);
    ask(c, NULL, &got, "x-l");
    assert_true(sv_is(got, "y"));
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {ON "token_bucket { max_tokens: 1 fill_interval { nanos: 49000000 } }", "must be >= 50ms"},
        {ON "token_bucket { max_tokens: 1 }", "must be >= 50ms"},
        {ON "descriptors { }", "descriptors[0].token_bucket: value is required"},
        {ON "rate_limits { stage { } }", "rate_limits[0]: 'stage' field and 'disable_key' field"},
        {ON "rate_limits { actions { } }", "rate_limits[0].actions[0]: action_specifier"},
        {ON "max_dynamic_descriptors { }", "max_dynamic_descriptors: expected 1 to 65536"},
        {ON "local_cluster_rate_limit { }", "local_cluster_rate_limit"},
        {ON "response_headers_to_add { header { key: 'a' value: '%NOPE%' } }",
         "response_headers_to_add"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_null(local_ratelimit_http_filter.compile(&f.ctx, fake_msg(&f, LIMIT, rows[i].text)));
        sv why = fake_errors(&f);
        if (!sv_contains(why, sv_cstr(rows[i].want))) {
            fail_msg("%s: %.*s", rows[i].text, SV_ARG(why));
        }
    }
    assert_null(local_ratelimit_http_filter.compile_route(&f.ctx, fake_msg(&f, LIMIT, ON), LIMIT));
    assert_true(sv_contains(fake_errors(&f), SV("token bucket must be set")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_bucket, start_with_stats, end),
        cmocka_unit_test_setup_teardown(test_limits, start_with_stats, end),
        cmocka_unit_test_setup_teardown(test_descriptors, start_with_stats, end),
        cmocka_unit_test_setup_teardown(test_without_limit, start_with_stats, end),
        cmocka_unit_test_setup_teardown(test_answers, start_with_stats, end),
        cmocka_unit_test_setup_teardown(test_marks_what_is_not_enforced, start_with_stats, end),
        cmocka_unit_test_setup_teardown(test_refused, start_with_stats, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
