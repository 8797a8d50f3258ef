/* gRPC stats: what counts as a request, a message and a status, and under which names. */
#include "proxy/stats/stats_export.h"
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

extern const struct http_filter_type grpc_stats_http_filter;

#define CONFIG "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig"
#define GRPC "content-type: application/grpc"
#define ONLY                                                                                       \
    "individual_method_stats_allowlist { services { name: 'pkg.Service' method_names: 'Method' } " \
    "}"
#define EVERY "stats_for_all_methods { value: true }"

static const void *config_from(const char *text) {
    return grpc_stats_http_filter.compile(&f.ctx, fake_msg(&f, CONFIG, text));
}

/* All stats that are not zero, as "name: value\n", without "cluster.cluster.grpc.". */
static const char *shown(void) {
    static char out[4096];
    struct stats_params p;
    struct buf err, text;
    buf_init(&err);
    buf_init(&text);
    assert_true(stats_params_parse(&p, SV(""), false, &err));
    struct stats_iter *it = stats_iter_new(f.ctx.stats, &p);
    while (stats_iter_next(it, &text, 1 << 16)) {}
    stats_iter_free(it);
    size_t n = 0;
    out[0] = '\0';
    sv all = buf_pullup(&text, buf_len(&text)), lead = SV("cluster.cluster.grpc.");
    while (all.n) {
        sv line = sv_cut(&all, '\n');
        if (sv_starts(line, lead) && !sv_ends(line, SV(": 0"))) {
            line = sv_skip(line, lead.n);
            n += (size_t)snprintf(out + n, sizeof(out) - n, "%.*s\n", SV_ARG(line));
        }
    }
    buf_fini(&text);
    buf_fini(&err);
    return out;
}

/* One message of `n` bytes of payload behind its header. */
static sv message(size_t n) {
    char *p = (char *)arena_zalloc(&f.msgs, n + 5);
    p[1] = (char)(n >> 24);
    p[2] = (char)(n >> 16);
    p[3] = (char)(n >> 8);
    p[4] = (char)n;
    return sv_from(p, n + 5);
}

static void end_with(struct stream *s, const char *status) {
    struct headers t;
    headers_init(&t, &s->arena);
    if (status) {
        headers_add_copy(&t, SV("grpc-status"), sv_cstr(status));
    }
    grpc_stats_http_filter.encode_trailers(s->filter, &t);
}

/* Two messages up, one down, trailers. */
static void call(const void *config, const char *path, const char *headers, const char *status) {
    struct stream s;
    fake_stream_start(&s, &grpc_stats_http_filter, config, "h", path, headers);
    assert_int_equal(fake_stream_decode(&s, false), FILTER_HEADERS_CONTINUE);
    assert_int_equal(fake_stream_decode_data(&s, message(3), false), FILTER_DATA_CONTINUE);
    assert_int_equal(fake_stream_decode_data(&s, message(0), true), FILTER_DATA_CONTINUE);
    fake_stream_respond(&s, 200, GRPC, false);
    assert_int_equal(fake_stream_encode_data(&s, message(300), false), FILTER_DATA_CONTINUE);
    end_with(&s, status);
    fake_stream_end(&s);
}

static const struct {
    const char *config, *path, *headers, *status, *want;
} cases[] = {
    {"", "/pkg.Service/Method", GRPC, "0",
     "0: 1\nrequest_message_count: 2\nresponse_message_count: 1\nsuccess: 1\ntotal: 1\n"},
    {ONLY, "/pkg.Service/Method", GRPC, "0",
     "pkg.Service.Method.0: 1\npkg.Service.Method.request_message_count: "
     "2\npkg.Service.Method.response_message_count: 1\n"
     "pkg.Service.Method.success: 1\npkg.Service.Method.total: 1\n"},
    {ONLY, "/pkg.Service/Other", GRPC, "0",
     "0: 1\nrequest_message_count: 2\nresponse_message_count: 1\nsuccess: 1\ntotal: 1\n"},
    {EVERY, "/pkg.Service/Other?q", GRPC "+proto", "14",
     "pkg.Service.Other.14: 1\npkg.Service.Other.failure: "
     "1\npkg.Service.Other.request_message_count: 2\n"
     "pkg.Service.Other.response_message_count: 1\npkg.Service.Other.total: 1\n"},
    {EVERY " replace_dots_in_grpc_service_name: true", "/pkg.Service/M", GRPC, "0",
     "pkg_Service.M.0: 1\npkg_Service.M.request_message_count: "
     "2\npkg_Service.M.response_message_count: 1\n"
     "pkg_Service.M.success: 1\npkg_Service.M.total: 1\n"},
    {"stats_for_all_methods { value: false }", "/pkg.Service/Method", GRPC, "0",
     "0: 1\nrequest_message_count: 2\nresponse_message_count: 1\nsuccess: 1\ntotal: 1\n"},
    /* a path that would make a strange name is counted without it */
    {EVERY, "/pkg.Ser\"vice/Method", GRPC, "0",
     "0: 1\nrequest_message_count: 2\nresponse_message_count: 1\nsuccess: 1\ntotal: 1\n"},
    /* statuses without a counter of their own */
    {"", "/s/m", GRPC, "99",
     "99: 1\nfailure: 1\nrequest_message_count: 2\nresponse_message_count: 1\ntotal: 1\n"},
    {"", "/s/m", GRPC, "x",
     "failure: 1\nrequest_message_count: 2\nresponse_message_count: 1\ntotal: 1\n"},
    {"", "/s/m", GRPC, NULL, "request_message_count: 2\nresponse_message_count: 1\n"},
    /* no gRPC */
    {EVERY, "/pkg.Service/Method", "content-type: application/json", "0", ""},
    {EVERY, "/pkg.Service/Method", "content-type: application/grpc-web", "0", ""},
    {EVERY, "/pkg.Service/Method", NULL, "0", ""},
    {EVERY, "/pkg.Service", GRPC, "0", ""},
    {EVERY, "/", GRPC, "0", ""},
    {EVERY, "//Method", GRPC, "0", ""},
    {EVERY, "/a/b/c", GRPC, "0", ""},
};

static void names_and_counts(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        end(NULL);
        start_with_stats(NULL);
        call(config_from(cases[i].config), cases[i].path, cases[i].headers, cases[i].status);
        if (strcmp(shown(), cases[i].want) != 0) {
            fail_msg("row %zu: got\n%s, want\n%s", i, shown(), cases[i].want);
        }
    }
}

static void again_and_again(void **state) {
    (void)state;
    const void *c = config_from(ONLY);
    for (int i = 0; i < 3; i++) {
        call(c, "/pkg.Service/Method", GRPC, "0");
    }
    assert_string_equal(
        shown(), "pkg.Service.Method.0: 3\npkg.Service.Method.request_message_count: 6\n"
                 "pkg.Service.Method.response_message_count: 3\npkg.Service.Method.success: 3\n"
                 "pkg.Service.Method.total: 3\n");
}

static void trailers_only(void **state) {
    (void)state;
    struct stream s;
    fake_stream_start(&s, &grpc_stats_http_filter, config_from(""), "h", "/s/m", GRPC);
    fake_stream_decode(&s, true);
    fake_stream_respond(&s, 200, GRPC "\ngrpc-status: 5", true);
    fake_stream_end(&s);
    assert_string_equal(shown(), "5: 1\nfailure: 1\ntotal: 1\n");
}

static void no_cluster(void **state) {
    (void)state;
    struct stream s;
    fake_stream_start(&s, &grpc_stats_http_filter, config_from(EVERY), "h", "/s/m", GRPC);
    s.cluster = SV_NULL;
    fake_stream_decode(&s, false);
    fake_stream_decode_data(&s, message(1), true);
    fake_stream_respond(&s, 503, NULL, true);
    fake_stream_end(&s);
    assert_string_equal(shown(), "");
}

/* However the bytes are cut. */
static void cut_messages(void **state) {
    (void)state;
    sv all = arena_printf(&f.msgs, "%s", "");
    struct buf b;
    buf_init(&b);
    static const size_t sizes[] = {0, 1, 7, 300, 0, 70000};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        buf_append_sv(&b, message(sizes[i]));
    }
    all = buf_pullup(&b, buf_len(&b));
    static const size_t steps[] = {1, 2, 3, 4, 5, 6, 11, 100, 4096, 100000};
    for (size_t i = 0; i < ARRAY_LEN(steps); i++) {
        end(NULL);
        start_with_stats(NULL);
        struct stream s;
        fake_stream_start(&s, &grpc_stats_http_filter, config_from("emit_filter_state: true"), "h",
                          "/s/m", GRPC);
        fake_stream_decode(&s, false);
        for (size_t at = 0; at < all.n; at += steps[i]) {
            fake_stream_decode_data(&s, sv_sub(all, at, steps[i]), false);
        }
        assert_sv_is(filter_state_text(s.info.filter_state, SV("envoy.filters.http.grpc_stats")),
                     "6,0");
        fake_stream_end(&s);
        assert_string_equal(shown(), "request_message_count: 6\n");
    }
    buf_fini(&b);
}

static void filter_state(void **state) {
    (void)state;
    struct stream s;
    fake_stream_start(&s, &grpc_stats_http_filter, config_from("emit_filter_state: true"), "h",
                      "/s/m", GRPC);
    fake_stream_decode(&s, false);
    assert_null(s.info.filter_state);
    fake_stream_decode_data(&s, message(1), true);
    fake_stream_respond(&s, 200, GRPC, false);
    fake_stream_encode_data(&s, message(1), false);
    fake_stream_encode_data(&s, message(1), false);
    const struct filter_state_object *o =
        filter_state_get(s.info.filter_state, SV("envoy.filters.http.grpc_stats"));
    assert_sv_is(o->text, "1,2");
    assert_true(kv_get(o->typed, SV("request_message_count"))->number == 1);
    assert_true(kv_get(o->typed, SV("response_message_count"))->number == 2);
    fake_stream_end(&s);
}

static void upstream_time(void **state) {
    (void)state;
    struct stream s;
    fake_stream_start(&s, &grpc_stats_http_filter, config_from("enable_upstream_stats: true"), "h",
                      "/s/m", GRPC);
    fake_stream_decode(&s, true);
    s.info.up.last_tx_us = 1000000;
    s.info.up.last_rx_us = 1042000;
    fake_stream_respond(&s, 200, GRPC, false);
    end_with(&s, "0");
    fake_stream_end(&s);
    assert_non_null(strstr(shown(), "upstream_rq_time"));
}

static void many_methods(void **state) {
    (void)state;
    const void *c = config_from(EVERY);
    for (unsigned i = 0; i < 4200; i++) {
        char path[32];
        snprintf(path, sizeof(path), "/s/m%u", i);
        struct stream s;
        fake_stream_start(&s, &grpc_stats_http_filter, c, "h", path, GRPC);
        fake_stream_decode(&s, true);
        fake_stream_end(&s);
    }
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start_with_stats, end)
    const struct CMUnitTest tests[] = {
        TEST(names_and_counts), TEST(again_and_again), TEST(trailers_only), TEST(no_cluster),
        TEST(cut_messages),     TEST(filter_state),    TEST(upstream_time), TEST(many_methods),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
