/* Fault injection: which requests are delayed, aborted or slowed, and what is counted. */
#include "proxy/base/runtime.h"
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

extern const struct http_filter_type fault_http_filter;

#define FAULT "envoy.extensions.filters.http.fault.v3.HTTPFault"
#define ALL "percentage { numerator: 100 }"
/* cells of the filter's stats, in the order of its table */
enum { ABORTS, ACTIVE, DELAYS, OVERFLOWS, SLOWED };

static const void *filter_from(const char *text) {
    const void *c = fault_http_filter.compile(&f.ctx, fake_msg(&f, FAULT, text));
    if (!c) {
        sv why = diag_text(&f.diag);
        fail_msg("%s: %.*s", text, SV_ARG(why));
    }
    return c;
}
static const void *route_from(const char *text) {
    return fault_http_filter.compile_route(&f.ctx, fake_msg(&f, FAULT, text), FAULT);
}
static uint64_t counted(const void *config, unsigned cell) {
    return stats_scope_value(*(struct stats_scope *const *)config, cell);
}

/* --- decisions at the headers --- */

enum outcome { PASSES, DELAYED, ABORTED };

static const struct fault_case {
    const char *config, *headers;
    enum outcome want;
    unsigned status;
    const char *grpc_status; /* NULL: no such header */
    uint64_t delay_ms;
} cases[] = {
    {"", NULL, PASSES, 0, NULL, 0},
    {"abort { http_status: 503 " ALL " }", NULL, ABORTED, 503, NULL, 0},
    {"abort { http_status: 503 }", NULL, PASSES, 0, NULL, 0}, /* no percentage is none */
    {"abort { http_status: 503 percentage { numerator: 0 } }", NULL, PASSES, 0, NULL, 0},
    {"abort { http_status: 503 percentage { numerator: 1000000 denominator: MILLION } }", NULL,
     ABORTED, 503, NULL, 0},
    {"abort { grpc_status: 14 " ALL " }", NULL, ABORTED, 200, NULL, 0},
    {"abort { grpc_status: 14 " ALL " }", "content-type: application/grpc", ABORTED, 200, "14", 0},
    {"abort { http_status: 503 " ALL " }", "content-type: application/grpc", ABORTED, 503, "2", 0},
    /* by headers */
    {"abort { header_abort {} " ALL " }", NULL, PASSES, 0, NULL, 0},
    {"abort { header_abort {} " ALL " }", "x-envoy-fault-abort-request: 404", ABORTED, 404, NULL,
     0},
    {"abort { header_abort {} " ALL " }", "x-envoy-fault-abort-request: 199", PASSES, 0, NULL, 0},
    {"abort { header_abort {} " ALL " }", "x-envoy-fault-abort-request: 600", PASSES, 0, NULL, 0},
    {"abort { header_abort {} " ALL " }", "x-envoy-fault-abort-request: abc", PASSES, 0, NULL, 0},
    {"abort { header_abort {} " ALL " }", "x-envoy-fault-abort-request: ", PASSES, 0, NULL, 0},
    {"abort { header_abort {} " ALL " }", "x-envoy-fault-abort-request: 99999999999999999999999",
     PASSES, 0, NULL, 0},
    {"abort { header_abort {} " ALL " }",
     "x-envoy-fault-abort-grpc-request: 5\ncontent-type: application/grpc", ABORTED, 200, "5", 0},
    {"abort { header_abort {} " ALL " }", "x-envoy-fault-abort-grpc-request: 5", ABORTED, 200, NULL,
     0},
    {"abort { header_abort {} " ALL " }", "x-envoy-fault-abort-grpc-request: x", PASSES, 0, NULL,
     0},
    {"abort { header_abort {} " ALL " }",
     "x-envoy-fault-abort-request: 404\nx-envoy-fault-abort-grpc-request: 5", ABORTED, 404, NULL,
     0},
    {"abort { header_abort {} " ALL " }",
     "x-envoy-fault-abort-request: 404\nx-envoy-fault-abort-request-percentage: 0", PASSES, 0, NULL,
     0},
    {"abort { header_abort {} " ALL " }",
     "x-envoy-fault-abort-request: 404\nx-envoy-fault-abort-request-percentage: x", ABORTED, 404,
     NULL, 0},
    {"abort { header_abort {} percentage { numerator: 0 } }",
     "x-envoy-fault-abort-request: 404\nx-envoy-fault-abort-request-percentage: 100", PASSES, 0,
     NULL, 0},
    /* the headers mean nothing to a fixed abort */
    {"abort { http_status: 503 " ALL " }",
     "x-envoy-fault-abort-request: 404\nx-envoy-fault-abort-request-percentage: 0", ABORTED, 503,
     NULL, 0},
    /* delays */
    {"delay { fixed_delay { nanos: 200000000 } " ALL " }", NULL, DELAYED, 0, NULL, 200},
    {"delay { fixed_delay { nanos: 200000000 } }", NULL, PASSES, 0, NULL, 0},
    /* below a millisecond */
    {"delay { fixed_delay { nanos: 200 } " ALL " }", NULL, PASSES, 0, NULL, 0},
    {"delay { header_delay {} " ALL " }", NULL, PASSES, 0, NULL, 0},
    {"delay { header_delay {} " ALL " }", "x-envoy-fault-delay-request: 30", DELAYED, 0, NULL, 30},
    {"delay { header_delay {} " ALL " }", "x-envoy-fault-delay-request: 0", PASSES, 0, NULL, 0},
    {"delay { header_delay {} " ALL " }", "x-envoy-fault-delay-request: -1", PASSES, 0, NULL, 0},
    {"delay { header_delay {} " ALL " }",
     "x-envoy-fault-delay-request: 30\nx-envoy-fault-delay-request-percentage: 0", PASSES, 0, NULL,
     0},
    /* whom it is meant for */
    {"upstream_cluster: 'cluster' abort { http_status: 503 " ALL " }", NULL, ABORTED, 503, NULL, 0},
    {"upstream_cluster: 'other' abort { http_status: 503 " ALL " }", NULL, PASSES, 0, NULL, 0},
    {"downstream_nodes: 'n1' downstream_nodes: 'n2' abort { http_status: 503 " ALL " }",
     "x-envoy-downstream-service-node: n2", ABORTED, 503, NULL, 0},
    {"downstream_nodes: 'n1' abort { http_status: 503 " ALL " }",
     "x-envoy-downstream-service-node: n3", PASSES, 0, NULL, 0},
    {"downstream_nodes: 'n1' abort { http_status: 503 " ALL " }", NULL, PASSES, 0, NULL, 0},
    {"headers { name: 'x' string_match { exact: '1' } } abort { http_status: 503 " ALL " }", "x: 1",
     ABORTED, 503, NULL, 0},
    {"headers { name: 'x' string_match { exact: '1' } } abort { http_status: 503 " ALL " }", "x: 2",
     PASSES, 0, NULL, 0},
    /* limits */
    {"max_active_faults { value: 0 } abort { http_status: 503 " ALL " }", NULL, PASSES, 0, NULL, 0},
    {"max_active_faults { value: 0 } delay { fixed_delay { seconds: 1 } " ALL " }", NULL, PASSES, 0,
     NULL, 0},
    {"max_active_faults { value: 1 } abort { http_status: 503 " ALL " }", NULL, ABORTED, 503, NULL,
     0},
};

static void check(const struct fault_case *c, struct stream *s, size_t row) {
    enum filter_headers_status st = fake_stream_decode(s, true);
    if (c->want == PASSES) {
        assert_row(st == FILTER_HEADERS_CONTINUE, row);
        assert_row(s->local_status == 0, row);
        return;
    }
    if (c->want == DELAYED) {
        assert_row(st == FILTER_HEADERS_STOP_ALL_WATERMARK, row);
        assert_row(s->info.flags == RESPONSE_FLAG(DI), row);
        fake_stream_advance(s, c->delay_ms - 1);
        assert_row(s->continued_decoding == 0, row);
        fake_stream_advance(s, 2);
        assert_row(s->continued_decoding == 1, row);
        return;
    }
    assert_row(st == FILTER_HEADERS_STOP, row);
    assert_row(s->local_status == c->status, row);
    assert_row(s->local_flags == RESPONSE_FLAG(FI), row);
    assert_sv_is(s->local_body, "fault filter abort");
    assert_sv_is(s->local_details, "fault_filter_abort");
    sv grpc = headers_get(&s->response, HDR_grpc_status);
    assert_row((grpc.p != NULL) == (c->grpc_status != NULL), row);
    assert_row(!grpc.p || sv_is(grpc, c->grpc_status), row);
}

static void decisions(void **state) {
    (void)state;
    const void *empty = filter_from("");
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        for (int by_route = 0; by_route < 2; by_route++) {
            struct stream s;
            const void *config = by_route ? empty : filter_from(cases[i].config);
            fake_stream_start(&s, &fault_http_filter, config, "h", "/", cases[i].headers);
            if (by_route) {
                s.route_configs[s.route_configs_n++] = route_from(cases[i].config);
            }
            check(&cases[i], &s, i);
            fake_stream_end(&s);
            assert_int_equal(counted(config, ACTIVE), 0);
        }
    }
}

static void route_replaces_filter(void **state) {
    (void)state;
    struct stream s;
    fake_stream_start(&s, &fault_http_filter, filter_from("abort { http_status: 503 " ALL " }"),
                      "h", "/", NULL);
    s.route_configs[s.route_configs_n++] = route_from("");
    assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_CONTINUE);
    fake_stream_end(&s);
}

static void percentages(void **state) {
    (void)state;
    const void *half = filter_from("abort { header_abort {} percentage { numerator: 50 } }");
    static const struct {
        const char *headers;
        unsigned low, high; /* of 1000 */
    } rows[] = {
        {"x-envoy-fault-abort-request: 503", 430, 570},
        {"x-envoy-fault-abort-request: 503\nx-envoy-fault-abort-request-percentage: 10", 60, 140},
        /* the configured one is the most */
        {"x-envoy-fault-abort-request: 503\nx-envoy-fault-abort-request-percentage: 90", 430, 570},
    };
    struct rng g;
    rng_seed(&g, 7);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        unsigned n = 0;
        for (unsigned k = 0; k < 1000; k++) {
            struct stream s;
            fake_stream_start(&s, &fault_http_filter, half, "h", "/", rows[i].headers);
            s.loop.rng = g;
            n += fake_stream_decode(&s, true) == FILTER_HEADERS_STOP;
            g = s.loop.rng;
            fake_stream_end(&s);
        }
        assert_row(n >= rows[i].low && n <= rows[i].high, i);
    }
}

static void delay_then_abort(void **state) {
    (void)state;
    struct stream s;
    const void *c =
        filter_from("delay { fixed_delay { nanos: 100000000 } " ALL
                    " } abort { http_status: 418 " ALL " } max_active_faults { value: 1 } "
                    "filter_metadata { fields { key: 'k' value { string_value: 'v' } } }");
    fake_stream_start(&s, &fault_http_filter, c, "h", "/",
                      "x-envoy-downstream-service-cluster: dc");
    assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_STOP_ALL_WATERMARK);
    assert_int_equal(counted(c, ACTIVE), 1);
    assert_sv_is(
        kv_metadata_get(s.info.metadata, SV("envoy.filters.http.fault"), (sv[]){SV("k")}, 1)->s,
        "v");
    fake_stream_advance(&s, 101);
    assert_int_equal(s.local_status, 418);
    assert_int_equal(s.continued_decoding, 0);
    assert_int_equal(counted(c, DELAYS), 1);
    assert_int_equal(counted(c, ABORTS), 1);
    assert_int_equal(counted(c, ACTIVE), 1); /* one for the stream, however many faults */
    fake_stream_end(&s);
    assert_int_equal(counted(c, ACTIVE), 0);
}

static void destroyed_while_delayed(void **state) {
    (void)state;
    struct stream s;
    const void *c = filter_from("delay { fixed_delay { seconds: 100 } " ALL " }");
    fake_stream_start(&s, &fault_http_filter, c, "h", "/", NULL);
    fake_stream_decode(&s, true);
    fake_stream_end(&s);
    assert_int_equal(counted(c, ACTIVE), 0);
}

static void active_limit(void **state) {
    (void)state;
    const void *c = filter_from("delay { fixed_delay { seconds: 100 } " ALL
                                " } max_active_faults { value: 2 }");
    struct stream s[3];
    static const enum filter_headers_status want[] = {FILTER_HEADERS_STOP_ALL_WATERMARK,
                                                      FILTER_HEADERS_STOP_ALL_WATERMARK,
                                                      FILTER_HEADERS_CONTINUE};
    for (unsigned i = 0; i < 3; i++) {
        fake_stream_start(&s[i], &fault_http_filter, c, "h", "/", NULL);
        assert_int_equal(fake_stream_decode(&s[i], true), want[i]);
    }
    assert_int_equal(counted(c, OVERFLOWS), 1);
    assert_int_equal(counted(c, ACTIVE), 2);
    fake_stream_end(&s[0]);
    fake_stream_end(&s[2]);
    fake_stream_start(&s[0], &fault_http_filter, c, "h", "/", NULL);
    assert_int_equal(fake_stream_decode(&s[0], true), FILTER_HEADERS_STOP_ALL_WATERMARK);
    fake_stream_end(&s[0]);
    fake_stream_end(&s[1]);
    assert_int_equal(counted(c, ACTIVE), 0);
}

static uint64_t dyn_value(const void *config, const char *name) {
    return stat_dyn_value(
        stats_dyn(*(struct stats_scope *const *)config, sv_cstr(name), STAT_COUNTER));
}

static void downstream_clusters(void **state) {
    (void)state;
    static const char *const names[] = {"x-envoy-downstream-service-cluster: dc",
                                        "x-envoy-downstream-service-cluster: bad name\"{}", NULL};
    const void *c = filter_from("abort { http_status: 503 " ALL " }");
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        struct stream s;
        fake_stream_start(&s, &fault_http_filter, c, "h", "/", names[i]);
        assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_STOP);
        fake_stream_end(&s);
    }
    assert_int_equal(counted(c, ABORTS), 3);
    assert_int_equal(dyn_value(c, "dc.aborts_injected"), 1);
}

static void by_runtime(void **state) {
    (void)state;
    static const struct {
        const char *key, *value, *config, *headers;
        enum outcome want;
        unsigned status;
        uint64_t delay_ms;
    } rows[] = {
        {"fault.http.abort.abort_percent", "0", "abort { http_status: 503 " ALL " }", NULL, PASSES,
         0, 0},
        {"fault.http.abort.abort_percent", "100", "abort { http_status: 503 }", NULL, ABORTED, 503,
         0},
        {"fault.http.abort.http_status", "404", "abort { http_status: 503 " ALL " }", NULL, ABORTED,
         404, 0},
        {"fault.http.abort.http_status", "1000", "abort { http_status: 503 " ALL " }", NULL, PASSES,
         0, 0},
        {"fault.http.delay.fixed_delay_percent", "100", "delay { fixed_delay { nanos: 20000000 } }",
         NULL, DELAYED, 0, 20},
        {"fault.http.delay.fixed_duration_ms", "7",
         "delay { fixed_delay { nanos: 20000000 } " ALL " }", NULL, DELAYED, 0, 7},
        {"fault.http.max_active_faults", "0", "abort { http_status: 503 " ALL " }", NULL, PASSES, 0,
         0},
        {"my.key", "0", "abort { http_status: 503 " ALL " } abort_percent_runtime: 'my.key'", NULL,
         PASSES, 0, 0},
        {"fault.http.abort.abort_percent", "0",
         "abort { http_status: 503 " ALL " } abort_percent_runtime: 'my.key'", NULL, ABORTED, 503,
         0},
        {"fault.http.dc.abort.abort_percent", "0", "abort { http_status: 503 " ALL " }",
         "x-envoy-downstream-service-cluster: dc", PASSES, 0, 0},
        {"fault.http.dc.abort.http_status", "410", "abort { http_status: 503 " ALL " }",
         "x-envoy-downstream-service-cluster: dc", ABORTED, 410, 0},
        {"fault.http.dc.abort.http_status", "410", "abort { http_status: 503 " ALL " }", NULL,
         ABORTED, 503, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct runtime_layer *layer = runtime_layer_new(SV("test"));
        runtime_layer_set(layer, sv_cstr(rows[i].key), sv_cstr(rows[i].value));
        runtime_publish(&layer, 1);
        struct stream s;
        fake_stream_start(&s, &fault_http_filter, filter_from(rows[i].config), "h", "/",
                          rows[i].headers);
        check(&(struct fault_case){rows[i].config, rows[i].headers, rows[i].want, rows[i].status,
                                   NULL, rows[i].delay_ms},
              &s, i);
        fake_stream_end(&s);
        runtime_publish(NULL, 0);
        runtime_layer_free(layer);
    }
}

/* --- slowed responses --- */

static void slowed_response(void **state) {
    (void)state;
    /* 1024 bytes a slice */
    const void *c = filter_from("response_rate_limit { fixed_limit { limit_kbps: 20 } " ALL " }");
    struct stream s;
    fake_stream_start(&s, &fault_http_filter, c, "h", "/", NULL);
    assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_CONTINUE);
    assert_int_equal(counted(c, SLOWED), 1);
    assert_int_equal(counted(c, ACTIVE), 1);
    fake_stream_respond(&s, 200, NULL, false);
    char body[5000];
    memset(body, 'x', sizeof(body));
    assert_int_equal(fake_stream_encode_data(&s, sv_from(body, sizeof(body)), true),
                     FILTER_DATA_STOP_WATERMARK);
    fake_stream_advance(&s, 1);
    assert_int_equal(buf_len(&s.sent), 1024);
    fake_stream_advance(&s, 49);
    assert_int_equal(buf_len(&s.sent), 1024);
    fake_stream_advance(&s, 52);
    assert_int_equal(buf_len(&s.sent), 2048 + (buf_len(&s.sent) > 2048 ? 1024 : 0));
    assert_int_equal(s.continued_encoding, 0);
    fake_stream_advance(&s, 200);
    assert_int_equal(buf_len(&s.sent), 5000);
    assert_int_equal(s.continued_encoding, 1);
    assert_true(buf_empty(&s.encoding));
    fake_stream_end(&s);
    assert_int_equal(counted(c, ACTIVE), 0);
}

static void fast_enough_responses_are_not_held(void **state) {
    (void)state;
    const void *c = filter_from("response_rate_limit { fixed_limit { limit_kbps: 20 } " ALL " }");
    struct stream s;
    fake_stream_start(&s, &fault_http_filter, c, "h", "/", NULL);
    fake_stream_decode(&s, true);
    fake_stream_respond(&s, 200, NULL, false);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(fake_stream_encode_data(&s, SV("0123456789"), false),
                         FILTER_DATA_CONTINUE);
        fake_stream_advance(&s, 50);
    }
    assert_int_equal(fake_stream_encode_data(&s, SV(""), true), FILTER_DATA_CONTINUE);
    fake_stream_end(&s);
}

static void trailers_wait(void **state) {
    (void)state;
    const void *c = filter_from("response_rate_limit { header_limit {} " ALL " }");
    struct stream s;
    fake_stream_start(&s, &fault_http_filter, c, "h", "/", "x-envoy-fault-throughput-response: 20");
    fake_stream_decode(&s, true);
    fake_stream_respond(&s, 200, NULL, false);
    char body[3000] = {0};
    struct headers t;
    headers_init(&t, &s.arena);
    fake_stream_encode_data(&s, sv_from(body, sizeof(body)), false);
    assert_int_equal(fault_http_filter.encode_trailers(s.filter, &t), FILTER_TRAILERS_STOP);
    fake_stream_advance(&s, 300);
    assert_int_equal(s.continued_encoding, 1);
    assert_int_equal(fault_http_filter.encode_trailers(s.filter, &t), FILTER_TRAILERS_CONTINUE);
    fake_stream_end(&s);
}

static void rates_by_header(void **state) {
    (void)state;
    static const struct {
        const char *headers;
        uint64_t slowed;
    } rows[] = {
        {NULL, 0},
        {"x-envoy-fault-throughput-response: 1", 1},
        {"x-envoy-fault-throughput-response: 0", 0},
        {"x-envoy-fault-throughput-response: x", 0},
        {"x-envoy-fault-throughput-response: 18446744073709551615", 1},
        {"x-envoy-fault-throughput-response: 1\nx-envoy-fault-throughput-response-percentage: 0",
         0},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const void *c = filter_from("response_rate_limit { header_limit {} " ALL " }");
        uint64_t before = counted(c, SLOWED);
        struct stream s;
        fake_stream_start(&s, &fault_http_filter, c, "h", "/", rows[i].headers);
        fake_stream_decode(&s, true);
        assert_row(counted(c, SLOWED) - before == rows[i].slowed, i);
        fake_stream_end(&s);
    }
}

static void refused(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"abort { http_status: 100 }", "abort: http_status: value must be inside range [200, 600)"},
        {"abort { http_status: 600 }", "abort: http_status: value must be inside range [200, 600)"},
        {"abort {}", "abort: error_type: is required"},
        {"abort { http_status: 503 percentage { denominator: 9 } }",
         "abort.percentage.denominator: value must be one of the defined enum values"},
        {"delay {}", "delay: fault_delay_secifier: is required"},
        {"delay { fixed_delay { seconds: -1 } }",
         "delay: fixed_delay: expected a duration from 0s to 4294967295s"},
        {"response_rate_limit {}", "response_rate_limit: limit_type: is required"},
        {"response_rate_limit { fixed_limit {} }",
         "response_rate_limit: fixed_limit.limit_kbps: value must be greater than or equal to 1"},
        {"headers { name: 'x' safe_regex_match { regex: '(' } }",
         "headers[0].safe_regex_match: missing ): ("},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_row(fault_http_filter.compile(&f.ctx, fake_msg(&f, FAULT, rows[i][0])) == NULL, i);
        assert_sv_is(fake_errors(&f), rows[i][1]);
        assert_row(route_from(rows[i][0]) == NULL, i);
        fake_errors(&f);
    }
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start_with_stats, end)
    const struct CMUnitTest tests[] = {
        TEST(decisions),
        TEST(route_replaces_filter),
        TEST(percentages),
        TEST(delay_then_abort),
        TEST(destroyed_while_delayed),
        TEST(active_limit),
        TEST(downstream_clusters),
        TEST(by_runtime),
        TEST(slowed_response),
        TEST(fast_enough_responses_are_not_held),
        TEST(trailers_wait),
        TEST(rates_by_header),
        TEST(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
