/* The header mutation filter: levels in order, query parameters, and what is refused. */
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

extern const struct http_filter_type header_mutation_http_filter;

#define MUTATION "envoy.extensions.filters.http.header_mutation.v3.HeaderMutation"
#define SET(value)                                                              \
    "mutations { request_mutations { append { header { key: 'x' value: '" value \
    "' } append_action: OVERWRITE_IF_EXISTS_OR_ADD } } } "
#define QUERY(key, value, action)                                                     \
    "mutations { query_parameter_mutations { append { record { key: '" key "' value " \
    "{ string_value: '" value "' } } action: " action " } } } "

static void test_levels(void **state) {
    (void)state;
    static const struct {
        const char *config, *want;
    } rows[] = {
        {SET("own"), "table"},
        {SET("own") "most_specific_header_mutations_wins: true", "route"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        const void *c =
            header_mutation_http_filter.compile(&f.ctx, fake_msg(&f, MUTATION, rows[i].config));
        assert_non_null(c);
        fake_stream_start(&s, &header_mutation_http_filter, c, "h", "/", "x: 1");
        const char *const levels[] = {SET("table"), SET("route")};
        for (size_t k = 0; k < ARRAY_LEN(levels); k++) {
            s.route_configs[k] = header_mutation_http_filter.compile_route(
                &f.ctx, fake_msg(&f, MUTATION "PerRoute", levels[k]), MUTATION "PerRoute");
        }
        s.route_configs_n = 2;
        assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_CONTINUE);
        assert_true(sv_is(headers_get_name(&s.request, SV("x")), rows[i].want));
        fake_stream_end(&s);
    }
}

static void test_query(void **state) {
    (void)state;
    static const struct {
        const char *config, *path, *want;
    } rows[] = {
        {QUERY("k", "v", "APPEND_IF_EXISTS_OR_ADD"), "/?k=1", "/?k=1&k=v"},
        {QUERY("k", "v", "ADD_IF_ABSENT"), "/?k=1", "/?k=1"},
        {QUERY("k", "v", "ADD_IF_ABSENT"), "/", "/?k=v"},
        {QUERY("k", "v", "OVERWRITE_IF_EXISTS_OR_ADD"), "/?k=1&k=2", "/?k=v"},
        {QUERY("k", "v", "OVERWRITE_IF_EXISTS"), "/?a=1", "/?a=1"},
        {"mutations { query_parameter_mutations { remove: 'k' } }", "/?k=1&k", "/"},
        {SET("y"), "/?b=1&a=2", "/?b=1&a=2"}, /* untouched */
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        const void *c =
            header_mutation_http_filter.compile(&f.ctx, fake_msg(&f, MUTATION, rows[i].config));
        assert_non_null(c);
        fake_stream_start(&s, &header_mutation_http_filter, c, "h", rows[i].path, NULL);
        fake_stream_decode(&s, true);
        sv got = headers_get(&s.request, HDR_path);
        if (!sv_is(got, rows[i].want)) {
            fail_msg("%s: %.*s", rows[i].config, SV_ARG(got));
        }
        fake_stream_end(&s);
    }
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"mutations { query_parameter_mutations { } }", "query_parameter_mutations[0]"},
        {"mutations { query_parameter_mutations { append { } } }", "append: record.value"},
        {QUERY("", "v", "ADD_IF_ABSENT"), "record.key"},
        {QUERY("k", "%PROTOCOL%", "ADD_IF_ABSENT"), "formats"},
        {"mutations { request_mutations { remove: ':path' } }", "mutations.request_mutations"},
        {"mutations { response_mutations { } }", "mutations.response_mutations"},
        {"mutations { request_trailers_mutations { } }", "mutations.request_trailers_mutations"},
        {"mutations { response_trailers_mutations { append { } } }",
         "mutations.response_trailers_mutations"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_null(
            header_mutation_http_filter.compile(&f.ctx, fake_msg(&f, MUTATION, rows[i].text)));
        sv why = fake_errors(&f);
        if (!sv_contains(why, sv_cstr(rows[i].want))) {
            fail_msg("%s: %.*s", rows[i].text, SV_ARG(why));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_levels, start_with_stats, end),
        cmocka_unit_test_setup_teardown(test_query, start_with_stats, end),
        cmocka_unit_test_setup_teardown(test_refused, start_with_stats, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
