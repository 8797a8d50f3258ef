/* String, header, query, cookie, path, value and metadata matchers, fractions: what matches and
 * what is refused. */
#include "proxy/base/runtime.h"
#include "proxy/observe/filter_state.h"
#include "proxy/observe/metadata.h"
#include "proxy/route/matcher.h"
#include "proxy/route/metadata_matcher.h"
#include "tests/support/test_compile.h"

#define STRING "envoy.type.matcher.v3.StringMatcher"
#define HEADER "envoy.config.route.v3.HeaderMatcher"
#define QUERY "envoy.config.route.v3.QueryParameterMatcher"
#define COOKIE "envoy.config.route.v3.CookieMatcher"
#define METADATA "envoy.type.matcher.v3.MetadataMatcher"
#define FILTER_STATE "envoy.type.matcher.v3.FilterStateMatcher"
#define FRACTION "envoy.config.core.v3.RuntimeFractionalPercent"

/* --- strings --- */

static const struct string_case {
    const char *matcher;
    sv subject;
    bool want;
} string_cases[] = {
    {"exact: 'abc'", SV_INIT("abc"), true},
    {"exact: 'abc'", SV_INIT("abcd"), false},
    {"exact: 'abc'", SV_INIT("ABC"), false},
    {"exact: ''", SV_INIT(""), true},
    {"exact: ''", SV_INIT("x"), false},
    {"exact: 'aBc' ignore_case: true", SV_INIT("AbC"), true},
    {"exact: 'abc' ignore_case: true", SV_INIT("abcd"), false},
    {"prefix: 'ab'", SV_INIT("abc"), true},
    {"prefix: 'ab'", SV_INIT("a"), false},
    {"prefix: 'ab'", SV_INIT("ABc"), false},
    {"prefix: 'AB' ignore_case: true", SV_INIT("abc"), true},
    {"prefix: 'ab'", SV_INIT(""), false},
    {"suffix: 'bc'", SV_INIT("abc"), true},
    {"suffix: 'bc'", SV_INIT("bcd"), false},
    {"suffix: 'bc'", SV_INIT("c"), false},
    {"suffix: 'BC' ignore_case: true", SV_INIT("abc"), true},
    {"contains: 'bc'", SV_INIT("abcd"), true},
    {"contains: 'bc'", SV_INIT("abd"), false},
    {"contains: 'bc'", SV_INIT("b"), false},
    {"contains: 'BC' ignore_case: true", SV_INIT("aBcd"), true},
    {"contains: 'bc' ignore_case: true", SV_INIT("abxc"), false},
    {"contains: 'aab' ignore_case: true", SV_INIT("xAaAb"), true},
    {"safe_regex { regex: 'a.c' }", SV_INIT("abc"), true},
    {"safe_regex { regex: 'a.c' }", SV_INIT("xabc"), false}, /* the whole subject */
    {"safe_regex { regex: 'a.c' }", SV_INIT("abcx"), false},
    {"safe_regex { regex: 'a|b' }", SV_INIT("b"), true},
    {"safe_regex { regex: 'a|b' }", SV_INIT("ab"), false},
    {"safe_regex { regex: '' }", SV_INIT(""), true},
    {"safe_regex { regex: '(?i)ABC' }", SV_INIT("abc"), true},
    /* bytes that are no UTF-8 fail closed, without fuss */
    {"safe_regex { regex: '.*' }", SV_INIT("a\xff\xfe"), false},
    {"exact: 'a'", SV_INIT("a\xff"), false},
    {"safe_regex { regex: '[a-z]+' google_re2 { max_program_size { value: 1000 } } }",
     SV_INIT("abc"), true},
};

static void strings(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(string_cases); i++) {
        const struct string_case *c = &string_cases[i];
        struct string_matcher m;
        assert_row(string_matcher_compile(&f.ctx, fake_msg(&f, STRING, c->matcher), &m), i);
        assert_row(string_matcher_match(&m, c->subject) == c->want, i);
    }
}

static void refused_strings(void **state) {
    (void)state;
    static const struct {
        const char *matcher, *want;
    } cases[] = {
        {"", "a match pattern is required"},
        {"ignore_case: true", "a match pattern is required"},
        {"safe_regex { regex: '(' }", "safe_regex: missing ): ("},
        {"safe_regex { regex: 'a**' }", "safe_regex: bad repetition operator: **"},
        {"safe_regex { regex: 'a' } ignore_case: true", "ignore_case has no effect for safe_regex"},
        {"custom { name: 'x' typed_config { type_url: 'type.googleapis.com/a.B' } }",
         "Didn't find a registered implementation for 'x' with type URL: "
         "'type.googleapis.com/a.B'"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct string_matcher m;
        assert_row(!string_matcher_compile(&f.ctx, fake_msg(&f, STRING, cases[i].matcher), &m), i);
        assert_sv_is(fake_errors(&f), cases[i].want);
    }
    struct string_matcher m;
    assert_false(string_matcher_compile(
        &f.ctx,
        fake_msg(&f, STRING,
                 "safe_regex { regex: '[a-z]{50}' google_re2 { max_program_size { value: 3 } } }"),
        &m));
    assert_true(sv_contains(fake_errors(&f), SV("max program size of 3")));
}

static void lists_and_paths(void **state) {
    (void)state;
    const void *msgs[] = {fake_msg(&f, STRING, "exact: 'a'"), fake_msg(&f, STRING, "prefix: 'b'")};
    struct string_matchers list;
    assert_true(string_matchers_compile(&f.ctx, msgs, 2, &list));
    assert_true(string_matchers_any(&list, SV("a")));
    assert_true(string_matchers_any(&list, SV("bcd")));
    assert_false(string_matchers_any(&list, SV("ab")));
    assert_true(string_matchers_compile(&f.ctx, NULL, 0, &list));
    assert_false(string_matchers_any(&list, SV("")));

    struct string_matcher p;
    assert_true(path_matcher_compile(
        &f.ctx, fake_msg(&f, "envoy.type.matcher.v3.PathMatcher", "path { exact: '/a' }"), &p));
    assert_true(path_matcher_match(&p, SV("/a?x=1")));
    assert_true(path_matcher_match(&p, SV("/a#f")));
    assert_false(path_matcher_match(&p, SV("/a/")));
    assert_false(
        path_matcher_compile(&f.ctx, fake_msg(&f, "envoy.type.matcher.v3.PathMatcher", ""), &p));
}

/* --- headers --- */

#define HEADERS_IN_CASE 4
static const struct header_case {
    const char *matcher;
    struct {
        const char *name, *value;
    } headers[HEADERS_IN_CASE];
    bool want;
} header_cases[] = {
    {"name: 'x'", {{"x", "1"}}, true}, /* no specifier: presence */
    {"name: 'x'", {{"x", ""}}, true},
    {"name: 'x'", {{"y", "1"}}, false},
    {"name: 'X'", {{"x", "1"}}, true},
    {"name: 'x' invert_match: true", {{"x", "1"}}, false},
    {"name: 'x' invert_match: true", {{"y", "1"}}, true},
    {"name: 'x' present_match: true", {{"x", "1"}}, true},
    {"name: 'x' present_match: true", {{"y", "1"}}, false},
    {"name: 'x' present_match: false", {{"x", "1"}}, false},
    {"name: 'x' present_match: false", {{"y", "1"}}, true},
    {"name: 'x' present_match: true treat_missing_header_as_empty: true", {{"y", "1"}}, true},
    {"name: 'x' present_match: false treat_missing_header_as_empty: true", {{"y", "1"}}, false},
    {"name: 'x' treat_missing_header_as_empty: true", {{"y", "1"}}, true},
    {"name: 'x' present_match: true invert_match: true", {{"y", "1"}}, true},
    {"name: 'x' present_match: false invert_match: true", {{"x", "1"}}, true},
    {"name: 'x' present_match: false invert_match: true", {{"y", "1"}}, false},
    {"name: 'x' exact_match: 'a'", {{"x", "a"}}, true},
    {"name: 'x' exact_match: 'a'", {{"x", "A"}}, false},
    {"name: 'x' exact_match: 'a'", {{"y", "a"}}, false},
    {"name: 'x' exact_match: ''", {{"x", "anything"}}, true},
    {"name: 'x' exact_match: ''", {{"y", ""}}, false},
    {"name: 'x' exact_match: 'a' invert_match: true", {{"x", "b"}}, true},
    {"name: 'x' exact_match: 'a' invert_match: true", {{"x", "a"}}, false},
    /* a header that is not there matches neither way */
    {"name: 'x' exact_match: 'a' invert_match: true", {{"y", "b"}}, false},
    {"name: 'x' string_match { exact: 'a' } invert_match: true", {{"y", "b"}}, false},
    {"name: 'x' safe_regex_match { regex: 'a+' } invert_match: true", {{"y", "b"}}, false},
    {"name: 'x' range_match { start: 1 end: 2 } invert_match: true", {{"y", "b"}}, false},
    {"name: 'x' exact_match: 'a' invert_match: true treat_missing_header_as_empty: true",
     {{"y", "b"}},
     true},
    {"name: 'x' string_match { exact: '' } treat_missing_header_as_empty: true",
     {{"y", "b"}},
     true},
    {"name: 'x' string_match { exact: 'a' } treat_missing_header_as_empty: true",
     {{"y", "b"}},
     false},
    {"name: 'x' string_match { exact: '' }", {{"x", ""}}, true},
    {"name: 'x' string_match { exact: '' }", {{"x", "a"}}, false},
    {"name: 'x' string_match { exact: 'A' ignore_case: true }", {{"x", "a"}}, true},
    {"name: 'x' string_match { prefix: 'a' }", {{"x", "ab"}}, true},
    {"name: 'x' string_match { suffix: 'a' }", {{"x", "ab"}}, false},
    {"name: 'x' string_match { contains: 'b' }", {{"x", "abc"}}, true},
    {"name: 'x' prefix_match: 'a'", {{"x", "ab"}}, true},
    {"name: 'x' prefix_match: 'b'", {{"x", "ab"}}, false},
    {"name: 'x' suffix_match: 'b'", {{"x", "ab"}}, true},
    {"name: 'x' suffix_match: 'a'", {{"x", "ab"}}, false},
    {"name: 'x' contains_match: 'b'", {{"x", "abc"}}, true},
    {"name: 'x' contains_match: 'd'", {{"x", "abc"}}, false},
    {"name: 'x' safe_regex_match { regex: '\\\\d{3}' }", {{"x", "123"}}, true},
    {"name: 'x' safe_regex_match { regex: '\\\\d{3}' }", {{"x", "1234"}}, false},
    {"name: 'x' safe_regex_match { regex: '\\\\d{3}' } invert_match: true", {{"x", "1234"}}, true},
    {"name: 'x' range_match { start: -10 end: 0 }", {{"x", "-1"}}, true},
    {"name: 'x' range_match { start: -10 end: 0 }", {{"x", "-10"}}, true},
    {"name: 'x' range_match { start: -10 end: 0 }", {{"x", "0"}}, false},
    {"name: 'x' range_match { start: -10 end: 0 }", {{"x", "-1somestring"}}, false},
    {"name: 'x' range_match { start: -10 end: 0 }", {{"x", "10.9"}}, false},
    {"name: 'x' range_match { start: 0 end: 10 }", {{"x", ""}}, false},
    {"name: 'x' range_match { start: 0 end: 10 }", {{"x", "99999999999999999999"}}, false},
    {"name: 'x' range_match { start: 0 end: 10 } invert_match: true", {{"x", "abc"}}, true},
    {"name: 'x' range_match { start: 0 end: 10 }", {{"x", "+5"}}, true},
    /* of a repeated header any value may match; inverted: none may */
    {"name: 'x' string_match { exact: 'a' }", {{"x", "a"}, {"x", "b"}}, true},
    {"name: 'x' string_match { exact: 'b' }", {{"x", "a"}, {"x", "b"}}, true},
    {"name: 'x' string_match { exact: 'a,b' }", {{"x", "a"}, {"x", "b"}}, false},
    {"name: 'x' string_match { contains: ',' }", {{"x", "a"}, {"x", "b"}}, false},
    {"name: 'x' string_match { suffix: 'b' }", {{"x", "a"}, {"y", "c"}, {"x", "b"}}, true},
    {"name: 'x' string_match { exact: 'b' } invert_match: true", {{"x", "a"}, {"x", "b"}}, false},
    {"name: 'x' string_match { exact: 'z' } invert_match: true", {{"x", "a"}, {"x", "b"}}, true},
    {"name: 'x' range_match { start: 1 end: 3 }", {{"x", "5"}, {"x", "1"}}, true},
    {"name: 'x' present_match: false", {{"x", "a"}, {"x", "b"}}, false},
    /* known headers are one value */
    {"name: 'user-agent' string_match { exact: 'a,b' }",
     {{"user-agent", "a"}, {"user-agent", "b"}},
     true},
    {"name: 'user-agent' string_match { exact: 'a' }",
     {{"user-agent", "a"}, {"user-agent", "b"}},
     false},
    {"name: 'x-forwarded-for' string_match { exact: 'a,b' }",
     {{"x-forwarded-for", "a"}, {"x-forwarded-for", "b"}},
     true},
    /* pseudo headers; host is :authority */
    {"name: ':method' string_match { exact: 'GET' }", {{":method", "GET"}}, true},
    {"name: ':authority' string_match { exact: 'h' }", {{":authority", "h"}}, true},
    {"name: 'Host' string_match { exact: 'h' }", {{":authority", "h"}}, true},
    {"name: 'content-type' string_match { prefix: 'text/' }",
     {{"content-type", "text/html"}},
     true},
    {"name: 'cookie' string_match { exact: 'a=1,b=2' }",
     {{"cookie", "a=1"}, {"cookie", "b=2"}},
     false},
    {"name: 'cookie' string_match { exact: 'b=2' }", {{"cookie", "a=1"}, {"cookie", "b=2"}}, true},
};

static void fill(struct headers *h, const struct header_case *c) {
    headers_init(h, &f.msgs);
    for (size_t k = 0; k < HEADERS_IN_CASE && c->headers[k].name; k++) {
        headers_add_copy(h, sv_cstr(c->headers[k].name), sv_cstr(c->headers[k].value));
    }
}

static void header_values(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(header_cases); i++) {
        struct headers h;
        fill(&h, &header_cases[i]);
        struct header_matcher *m =
            header_matcher_compile(&f.ctx, fake_msg(&f, HEADER, header_cases[i].matcher));
        assert_row(m != NULL, i);
        assert_row(header_matcher_match(m, &h, &f.msgs) == header_cases[i].want, i);
    }
}

static void header_lists(void **state) {
    (void)state;
    struct headers h;
    headers_init(&h, &f.msgs);
    headers_add_copy(&h, SV("a"), SV("1"));
    headers_add_copy(&h, SV("b"), SV("2"));
    const void *both[] = {fake_msg(&f, HEADER, "name: 'a' exact_match: '1'"),
                          fake_msg(&f, HEADER, "name: 'b' exact_match: '2'")};
    const void *one[] = {fake_msg(&f, HEADER, "name: 'a' exact_match: '1'"),
                         fake_msg(&f, HEADER, "name: 'b' exact_match: '3'")};
    assert_true(header_matchers_match(header_matchers_compile(&f.ctx, both, 2), &h, &f.msgs));
    assert_false(header_matchers_match(header_matchers_compile(&f.ctx, one, 2), &h, &f.msgs));
    assert_true(
        header_matchers_any_match(header_matchers_any_compile(&f.ctx, one, 2), &h, &f.msgs));
    assert_false(
        header_matchers_any_match(header_matchers_any_compile(&f.ctx, one + 1, 1), &h, &f.msgs));
    assert_null(header_matchers_compile(&f.ctx, NULL, 0));
    assert_true(header_matchers_match(NULL, &h, &f.msgs));
    assert_null(header_matchers_any_compile(&f.ctx, NULL, 0));
    assert_false(header_matchers_any_match(NULL, &h, &f.msgs));
    const void *bad[] = {fake_msg(&f, HEADER, "name: 'a' safe_regex_match { regex: '[' }"),
                         fake_msg(&f, HEADER, "")};
    assert_null(header_matchers_compile(&f.ctx, bad, 2));
    assert_sv_is(
        fake_errors(&f),
        "[0].safe_regex_match: missing ]: [; [1].name: value length must be at least 1 characters");
}

/* --- query parameters --- */

static const struct {
    const char *matcher;
    const char *path;
    bool want;
} query_cases[] = {
    {"name: 'a'", "/?a=1", true},
    {"name: 'a'", "/?a", true},
    {"name: 'a'", "/?a=", true},
    {"name: 'a'", "/?b=1&a=2", true},
    {"name: 'a'", "/?b=1", false},
    {"name: 'a'", "/a", false},
    {"name: 'a'", "/", false},
    {"name: 'a'", "/?A=1", false},
    {"name: 'a'", "/?aa=1", false},
    {"name: 'a' present_match: true", "/?a", true},
    {"name: 'a' present_match: true", "/?b", false},
    {"name: 'a' present_match: false", "/?b", true},
    {"name: 'a' present_match: false", "/?a", false},
    {"name: 'a' string_match { exact: '1' }", "/?a=1", true},
    {"name: 'a' string_match { exact: '1' }", "/?a=2&a=1", false}, /* the first one */
    {"name: 'a' string_match { exact: '1' }", "/?a=1&a=2", true},
    {"name: 'a' string_match { exact: '' }", "/?a", true},
    {"name: 'a' string_match { exact: '' }", "/?b", false},
    {"name: 'a' string_match { exact: 'x y' }", "/?a=x%20y", false}, /* not decoded */
    {"name: 'a' string_match { exact: 'x%20y' }", "/?a=x%20y", true},
    {"name: 'a' string_match { safe_regex { regex: '\\\\d+' } }", "/?a=12", true},
    {"name: 'a' string_match { safe_regex { regex: '\\\\d+' } }", "/?a=12x", false},
    {"name: 'a' string_match { exact: 'b=c' }", "/?a=b=c", true},
};

static void query_parameters(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(query_cases); i++) {
        const void *msg = fake_msg(&f, QUERY, query_cases[i].matcher);
        struct query_matchers *m = query_matchers_compile(&f.ctx, &msg, 1);
        assert_row(m != NULL, i);
        assert_row(query_matchers_match(m, sv_cstr(query_cases[i].path), &f.msgs) ==
                       query_cases[i].want,
                   i);
    }
    assert_true(query_matchers_match(query_matchers_compile(&f.ctx, NULL, 0), SV("/"), &f.msgs));
}

/* --- cookies --- */

static const struct {
    const char *matcher;
    const char *cookie, *cookie2;
    bool want;
} cookie_cases[] = {
    {"name: 'a' string_match { exact: '1' }", "a=1", NULL, true},
    {"name: 'a' string_match { exact: '1' }", "b=2; a=1; c=3", NULL, true},
    {"name: 'a' string_match { exact: '1' }", "b=2;a=1", NULL, true},
    {"name: 'a' string_match { exact: '1' }", "b=2", "a=1", true},
    {"name: 'a' string_match { exact: '1' }", "a=\"1\"", NULL, true},
    {"name: 'a' string_match { exact: '1' }", "a=1; a=2", NULL, true},
    {"name: 'a' string_match { exact: '2' }", "a=1; a=2", NULL, false},
    {"name: 'a' string_match { exact: '1' }", "aa=1", NULL, false},
    {"name: 'a' string_match { exact: '1' }", "A=1", NULL, false},
    {"name: 'a' string_match { exact: '1' }", "a", NULL, false},
    {"name: 'a' string_match { exact: '1' }", "", NULL, false},
    {"name: 'a' string_match { exact: '1' }", NULL, NULL, false},
    {"name: 'a' string_match { exact: 'x=y' }", "a=x=y", NULL, true},
    {"name: 'a' string_match { exact: '1' } invert_match: true", "a=2", NULL, true},
    {"name: 'a' string_match { exact: '1' } invert_match: true", "a=1", NULL, false},
    {"name: 'a' string_match { exact: '1' } invert_match: true", "b=1", NULL, true},
    {"name: 'a' string_match { prefix: 'x' }", "a=xyz", NULL, true},
};

static void cookies(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cookie_cases); i++) {
        struct headers h;
        headers_init(&h, &f.msgs);
        if (cookie_cases[i].cookie) {
            headers_add_copy(&h, SV("cookie"), sv_cstr(cookie_cases[i].cookie));
        }
        if (cookie_cases[i].cookie2) {
            headers_add_copy(&h, SV("cookie"), sv_cstr(cookie_cases[i].cookie2));
        }
        const void *msg = fake_msg(&f, COOKIE, cookie_cases[i].matcher);
        struct cookie_matchers *m = cookie_matchers_compile(&f.ctx, &msg, 1);
        assert_row(m != NULL, i);
        assert_row(cookie_matchers_match(m, &h) == cookie_cases[i].want, i);
    }
}

/* --- metadata --- */

static const char metadata_text[] = "filter_metadata { key: 'ns' value {"
                                    "  fields { key: 's' value { string_value: 'text' } }"
                                    "  fields { key: 'n' value { number_value: 5 } }"
                                    "  fields { key: 't' value { bool_value: true } }"
                                    "  fields { key: 'z' value { null_value: NULL_VALUE } }"
                                    "  fields { key: 'l' value { list_value { values { "
                                    "string_value: 'a' } values { number_value: 7 } } } }"
                                    "  fields { key: 'd' value { struct_value { fields { key: "
                                    "'deep' value { string_value: 'x' } } } } }"
                                    "} }";

static const struct {
    const char *matcher;
    bool want;
} metadata_cases[] = {
    {"filter: 'ns' path { key: 's' } value { string_match { exact: 'text' } }", true},
    {"filter: 'ns' path { key: 's' } value { string_match { exact: 'other' } }", false},
    {"filter: 'ns' path { key: 's' } value { string_match { exact: 'other' } } invert: true", true},
    {"filter: 'ns' path { key: 's' } value { double_match { exact: 5 } }", false},
    {"filter: 'ns' path { key: 'n' } value { double_match { exact: 5 } }", true},
    {"filter: 'ns' path { key: 'n' } value { double_match { range { start: 5 end: 6 } } }", true},
    {"filter: 'ns' path { key: 'n' } value { double_match { range { start: 4 end: 5 } } }", false},
    {"filter: 'ns' path { key: 't' } value { bool_match: true }", true},
    {"filter: 'ns' path { key: 't' } value { bool_match: false }", false},
    {"filter: 'ns' path { key: 'z' } value { null_match {} }", true},
    {"filter: 'ns' path { key: 's' } value { null_match {} }", false},
    {"filter: 'ns' path { key: 'gone' } value { null_match {} }", false},
    {"filter: 'ns' path { key: 's' } value { present_match: true }", true},
    {"filter: 'ns' path { key: 'gone' } value { present_match: true }", false},
    {"filter: 'ns' path { key: 'gone' } value { present_match: false }", false},
    {"filter: 'ns' path { key: 's' } value { present_match: false }", false},
    {"filter: 'other' path { key: 's' } value { present_match: true }", false},
    {"filter: 'ns' path { key: 'l' } value { list_match { one_of { string_match { exact: 'a' } } } "
     "}",
     true},
    {"filter: 'ns' path { key: 'l' } value { list_match { one_of { double_match { exact: 7 } } } }",
     true},
    {"filter: 'ns' path { key: 'l' } value { list_match { one_of { string_match { exact: 'b' } } } "
     "}",
     false},
    {"filter: 'ns' path { key: 's' } value { list_match { one_of { string_match { exact: 'text' } "
     "} } }",
     false},
    {"filter: 'ns' path { key: 'd' } path { key: 'deep' } value { string_match { exact: 'x' } }",
     true},
    {"filter: 'ns' path { key: 's' } path { key: 'deep' } value { string_match { exact: 'x' } }",
     false},
    {"filter: 'ns' path { key: 's' } value { or_match { value_matchers { bool_match: true } "
     "value_matchers { string_match { prefix: 'te' } } } }",
     true},
    {"filter: 'ns' path { key: 's' } value { or_match { value_matchers { bool_match: true } "
     "value_matchers { null_match {} } } }",
     false},
};

static void metadata(void **state) {
    (void)state;
    struct kv_metadata *md =
        kv_metadata_from(fake_msg(&f, "envoy.config.core.v3.Metadata", metadata_text), &f.msgs);
    for (size_t i = 0; i < ARRAY_LEN(metadata_cases); i++) {
        struct metadata_matcher *m =
            metadata_matcher_compile(&f.ctx, fake_msg(&f, METADATA, metadata_cases[i].matcher));
        assert_row(m != NULL, i);
        assert_row(metadata_matcher_match(m, md) == metadata_cases[i].want, i);
    }
    struct metadata_matcher *m = metadata_matcher_compile(
        &f.ctx,
        fake_msg(&f, METADATA, "filter: 'ns' path { key: 's' } value { present_match: true }"));
    assert_false(metadata_matcher_match(m, NULL));
    assert_null(metadata_matcher_compile(&f.ctx, fake_msg(&f, METADATA, "filter: 'ns'")));
    assert_sv_is(fake_errors(&f), "value: value is required");
    assert_null(metadata_matcher_compile(
        &f.ctx, fake_msg(&f, METADATA, "filter: 'ns' path {} value { present_match: true }")));
    assert_sv_is(fake_errors(&f), "path[0].segment: value is required");
}

static void filter_state(void **state) {
    (void)state;
    static const struct {
        const char *matcher;
        bool want;
    } cases[] = {
        {"key: 'k' string_match { exact: 'v' }", true},
        {"key: 'k' string_match { exact: 'w' }", false},
        {"key: 'gone' string_match { exact: '' }", false},
        {"key: 'ip' address_match { ranges { address_prefix: '10.0.0.0' prefix_len { value: 8 } } "
         "}",
         true},
        {"key: 'ip' address_match { ranges { address_prefix: '11.0.0.0' prefix_len { value: 8 } } "
         "}",
         false},
        {"key: 'k' address_match { ranges { address_prefix: '10.0.0.0' prefix_len { value: 8 } } }",
         false},
    };
    struct filter_state *fs = filter_state_new(&f.msgs, NULL);
    filter_state_set(fs, SV("k"), SV("v"), NULL, true, FILTER_STATE_LOCAL);
    filter_state_set(fs, SV("ip"), SV("10.1.2.3:80"), NULL, true, FILTER_STATE_LOCAL);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const void *msg = fake_msg(&f, FILTER_STATE, cases[i].matcher);
        struct filter_state_matchers *m = filter_state_matchers_compile(&f.ctx, &msg, 1);
        assert_row(m != NULL, i);
        assert_row(filter_state_matchers_match(m, fs) == cases[i].want, i);
        assert_row(!filter_state_matchers_match(m, NULL), i);
    }
}

/* --- fractions --- */

static void fractions(void **state) {
    (void)state;
    static const struct {
        const char *fraction;
        uint64_t random;
        bool want;
    } cases[] = {
        {"default_value { numerator: 0 }", 0, false},
        {"default_value { numerator: 100 }", 99, true},
        {"default_value { numerator: 50 }", 49, true},
        {"default_value { numerator: 50 }", 50, false},
        {"default_value { numerator: 50 }", 150, false},
        {"default_value { numerator: 50 }", 149, true},
        {"default_value { numerator: 1 denominator: TEN_THOUSAND }", 0, true},
        {"default_value { numerator: 1 denominator: TEN_THOUSAND }", 1, false},
        {"default_value { numerator: 1 denominator: MILLION }", 1000000, true},
        {"default_value { numerator: 1 denominator: MILLION }", 10000, false},
        {"", 0, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fraction fr;
        assert_row(fraction_compile(&f.ctx, fake_msg(&f, FRACTION, cases[i].fraction), &fr), i);
        assert_row(fraction_holds(&fr, cases[i].random) == cases[i].want, i);
    }
    struct fraction fr;
    assert_false(fraction_compile(
        &f.ctx, fake_msg(&f, FRACTION, "default_value { numerator: 1 denominator: 9 }"), &fr));
}

static void runtime_fractions(void **state) {
    (void)state;
    struct fraction set, unset;
    assert_true(fraction_compile(
        &f.ctx, fake_msg(&f, FRACTION, "default_value { numerator: 0 } runtime_key: 'set'"), &set));
    assert_true(fraction_compile(
        &f.ctx, fake_msg(&f, FRACTION, "default_value { numerator: 0 } runtime_key: 'no'"),
        &unset));
    assert_false(fraction_holds(&set, 1));
    struct runtime_layer *layer = runtime_layer_new(SV("test"));
    runtime_layer_set(layer, SV("set"), SV("100"));
    runtime_publish(&layer, 1);
    assert_true(fraction_holds(&set, 1));
    assert_false(fraction_holds(&unset, 1));
    runtime_publish(NULL, 0);
    runtime_layer_free(layer);
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)
    const struct CMUnitTest tests[] = {
        TEST(strings),      TEST(refused_strings),  TEST(lists_and_paths),   TEST(header_values),
        TEST(header_lists), TEST(query_parameters), TEST(cookies),           TEST(metadata),
        TEST(filter_state), TEST(fractions),        TEST(runtime_fractions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
