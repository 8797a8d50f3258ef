/* istio.alpn: which list is offered for which protocol, and when none is. */
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

extern const struct http_filter_type istio_alpn_http_filter;

#define CONFIG "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"
#define LISTS                                                                     \
    "alpn_override { alpn_override: 'istio-http/1.0' alpn_override: 'istio' }"    \
    "alpn_override { upstream_protocol: HTTP11 alpn_override: 'istio-http/1.1' }" \
    "alpn_override { upstream_protocol: HTTP2 alpn_override: 'istio-h2' alpn_override: 'h2' }"

static const void *make(const char *text) {
    return istio_alpn_http_filter.compile(&f.ctx, fake_msg(&f, CONFIG, text));
}

/* First of the list that is offered; "": none. */
static const char *offered(const char *config, enum http_protocol protocol, bool has_cluster,
                           struct kv_metadata *cluster_metadata, unsigned *n) {
    struct stream s;
    const void *c = make(config);
    assert_non_null(c);
    fake_stream_start(&s, &istio_alpn_http_filter, c, "h.com", "/", NULL);
    s.upstream_protocol = protocol;
    s.has_route_to_cluster = has_cluster;
    s.info.cluster_metadata = cluster_metadata;
    assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_CONTINUE);
    *n = s.info.up.alpn_n;
    const char *first = *n ? arena_cstr(&f.arena, s.info.up.alpn[0]) : "";
    fake_stream_end(&s);
    return first;
}

static void test_by_protocol(void **state) {
    (void)state;
    static const struct {
        const char *config;
        enum http_protocol protocol;
        bool has_cluster;
        const char *first;
        unsigned n;
    } rows[] = {
        {LISTS, HTTP_10, true, "istio-http/1.0", 2},
        {LISTS, HTTP_11, true, "istio-http/1.1", 1},
        {LISTS, HTTP_2, true, "istio-h2", 2},
        {LISTS, HTTP_3, true, "", 0},
        {LISTS, HTTP_11, false, "", 0},
        {"", HTTP_11, true, "", 0},
        {"alpn_override { upstream_protocol: HTTP2 }", HTTP_2, true, "", 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        unsigned n;
        assert_string_equal(
            offered(rows[i].config, rows[i].protocol, rows[i].has_cluster, NULL, &n),
            rows[i].first);
        assert_int_equal(n, rows[i].n);
    }
}

static void test_switched_off(void **state) {
    (void)state;
    static const struct {
        struct kv_value value;
        unsigned n;
    } rows[] = {
        {{.kind = KV_STRING, .s = {"false", 5}}, 0},
        {{.kind = KV_STRING, .s = {"true", 4}}, 1},
        {{.kind = KV_STRING, .s = {"FALSE", 5}}, 1},
        {{.kind = KV_BOOL, .b = false}, 1}, /* a text is what counts */
        {{.kind = KV_NULL}, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        unsigned n;
        struct kv_metadata *m = kv_metadata_new(&f.arena);
        kv_metadata_set(m, SV("istio"), SV("alpn_override"), &rows[i].value);
        offered(LISTS, HTTP_11, true, m, &n);
        assert_int_equal(n, rows[i].n);
    }
}

static void test_bad_lists(void **state) {
    (void)state;
    static const struct {
        const char *text, *why;
    } rows[] = {
        {"alpn_override { alpn_override: '' }",
         "alpn_override[0].alpn_override[0]: value length must be between 1 and 255 bytes"},
        {"alpn_override { } alpn_override { upstream_protocol: 7 }",
         "alpn_override[1]: upstream_protocol: unknown protocol 7"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_null(make(rows[i].text));
        sv why = fake_errors(&f);
        if (sv_find_sv(why, sv_cstr(rows[i].why)) == SIZE_MAX) {
            fail_msg("%.*s", SV_ARG(why));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_by_protocol, start, end),
        cmocka_unit_test_setup_teardown(test_switched_off, start, end),
        cmocka_unit_test_setup_teardown(test_bad_lists, start, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
