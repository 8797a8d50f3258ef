/* header_to_metadata: what of which header is kept, and what is refused. */
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

extern const struct http_filter_type header_to_metadata_http_filter;
static const struct http_filter_type *const type = &header_to_metadata_http_filter;

#define PRESENT(fields) "request_rules { header: 'X-A' on_header_present { key: 'k' " fields " } } "
#define MISSING(value) \
    "request_rules { header: 'x-a' on_header_missing { key: 'k' value: '" value "' } } "
#define REWRITE(regex_, by)                                                                        \
    "regex_value_rewrite { pattern { google_re2 { } regex: '" regex_ "' } substitution: '" by "' " \
    "}"

static const struct kv_value *kept(const struct stream *s, sv ns) {
    const sv key = SV("k");
    return kv_metadata_get(s->info.metadata, ns, &key, 1);
}

static void values(void **state) {
    (void)state;
    static const struct {
        const char *config, *headers, *want; /* want NULL: nothing is kept */
        bool is_gone;
    } rows[] = {
        {PRESENT(""), "x-a: 1", "1", false},
        {PRESENT(""), "x-a: 1\nx-a: 2", "1,2", false},
        {PRESENT(""), "x-b: 1", NULL, false},
        {PRESENT(""), "x-a: ", NULL, false},
        {PRESENT("value: 'v'"), "x-a: 1", "v", false},
        {PRESENT(REWRITE("^.*b=([^;]+).*$", "<\\\\1>")), "x-a: a=1;b=2;c", "<2>", false},
        {PRESENT(REWRITE("x", "y")), "x-a: axbx", "ayby", false},
        {PRESENT(REWRITE(".*", "")), "x-a: 1", NULL, false},
        {"request_rules { header: 'x-a' remove: true on_header_present { key: 'k' } }", "x-a: 1",
         "1", true},
        {MISSING("none"), "x-b: 1", "none", false},
        {MISSING("none"), "x-a: 1", NULL, false},
        {"", "x-a: 1", NULL, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        const void *c = type->compile(&f.ctx, fake_msg(&f, type->type_url, rows[i].config));
        assert_non_null(c);
        fake_stream_start(&s, type, c, "h.com", "/", rows[i].headers);
        assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_CONTINUE);
        const struct kv_value *v = kept(&s, SV("envoy.filters.http.header_to_metadata"));
        if ((v != NULL) != (rows[i].want != NULL) || (v && !sv_is(v->s, rows[i].want))) {
            fail_msg("row %zu: '%.*s'", i, v ? (int)v->s.n : 0, v ? v->s.p : "");
        }
        assert_int_equal(headers_get_name(&s.request, SV("x-a")).p == NULL,
                         rows[i].is_gone || !strstr(rows[i].headers, "x-a"));
        fake_stream_end(&s);
    }
}

static void numbers_routes_and_responses(void **state) {
    (void)state;
    struct stream s;
    const void *c = type->compile(
        &f.ctx, fake_msg(&f, type->type_url,
                         "request_rules { header: 'x-a' on_header_present { key: 'k' "
                         "metadata_namespace: 'n' type: NUMBER } } response_rules { header: 'x-r' "
                         "on_header_present { key: 'k' metadata_namespace: 'r' } }"));
    const void *of_route = type->compile_route(
        &f.ctx, fake_msg(&f, type->type_url, PRESENT("metadata_namespace: 'route'")),
        type->type_url);
    fake_stream_start(&s, type, c, "h.com", "/", "x-a: 1.5");
    fake_stream_decode(&s, true);
    assert_true(kept(&s, SV("n"))->kind == KV_NUMBER && kept(&s, SV("n"))->number > 1.4);
    fake_stream_respond(&s, 200, "x-r: 7", true);
    assert_true(sv_is(kept(&s, SV("r"))->s, "7"));
    fake_stream_end(&s);
    fake_stream_start(&s, type, c, "h.com", "/", "x-a: word"); /* no number */
    fake_stream_decode(&s, true);
    assert_null(kept(&s, SV("n")));
    fake_stream_end(&s);
    fake_stream_start(&s, type, c, "h.com", "/", "x-a: 2");
    s.route_configs[s.route_configs_n++] = of_route; /* in the filter's place */
    fake_stream_decode(&s, true);
    assert_null(kept(&s, SV("n")));
    assert_true(sv_is(kept(&s, SV("route"))->s, "2"));
    fake_stream_end(&s);
}

static void refused(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"request_rules { header: 'a' }", "request_rules[0]: header to metadata filter: rule for"},
        {"request_rules { on_header_present { key: 'k' } }", "request_rules[0]: One of Cookie or"},
        {"request_rules { cookie: 'c' on_header_present { key: 'k' } }",
         "request_rules[0]: cookie: only"},
        {MISSING(""),
         "request_rules[0]: Cannot specify on_header_missing rule with an empty value"},
        {PRESENT("type: PROTOBUF_VALUE"), "request_rules[0].on_header_present: type: only STRING"},
        {PRESENT("encode: BASE64"), "request_rules[0].on_header_present: encode: only NONE"},
        {PRESENT("value: 'v' " REWRITE("a", "b")), "Cannot specify both value and regex_value"},
        {PRESENT(REWRITE("(", "b")), "regex_value_rewrite: pattern.regex: missing ): ("},
        {PRESENT(REWRITE("a", "\\\\1")), "regex_value_rewrite: substitution: "},
        {"response_rules { header: 'a' }",
         "response_rules[0]: header to metadata filter: rule for"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_null(type->compile(&f.ctx, fake_msg(&f, type->type_url, rows[i][0])));
        sv why = diag_text(&f.diag);
        if (!sv_contains(why, sv_cstr(rows[i][1]))) {
            fail_msg("row %zu: %.*s", i, SV_ARG(why));
        }
        diag_reset(&f.diag);
    }
    assert_null(type->compile_route(&f.ctx, fake_msg(&f, type->type_url, ""), type->type_url));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(values, start, end),
        cmocka_unit_test_setup_teardown(numbers_routes_and_responses, start, end),
        cmocka_unit_test_setup_teardown(refused, start, end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
