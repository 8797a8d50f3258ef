/* Rewritten paths and hosts, and where redirects lead. */
#include "proxy/route/route_private.h"
#include "tests/support/route.h"
#include "tests/support/test_compile.h"

static const struct route_entry *route_of(struct route_table **t, const char *match,
                                          const char *action) {
    char text[2048];
    snprintf(text, sizeof(text),
             "virtual_hosts { name: 'v' domains: '*' routes { match { %s } %s } }", match, action);
    *t = route_table_must(&f, text);
    return (*t)->priv_->vhosts[0]->routes_->v;
}

#define REWRITE_ANY \
    "[type.googleapis.com/envoy.extensions.path.rewrite.uri_template.v3.UriTemplateRewriteConfig]"
#define MATCH_ANY \
    "[type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig]"
#define TEMPLATE(pattern)                                                                   \
    "path_match_policy { name: 'm' typed_config { " MATCH_ANY " { path_template: '" pattern \
    "' } } }"
#define TEMPLATE_TO(pattern)                                                           \
    "route { cluster: 'c' path_rewrite_policy { name: 'r' typed_config { " REWRITE_ANY \
    " { path_template_rewrite: '" pattern "' } } } }"
#define TO(fields) "route { cluster: 'c' " fields " }"

static const struct {
    const char *match, *action, *path, *want;
} path_cases[] = {
    {"prefix: '/a'", TO(""), "/a/b?q", "/a/b?q"},
    {"prefix: '/a'", TO("prefix_rewrite: '/x'"), "/a/b?q", "/x/b?q"},
    {"prefix: '/a/'", TO("prefix_rewrite: '/'"), "/a/b", "/b"},
    {"prefix: '/a'", TO("prefix_rewrite: '/'"), "/a/b", "//b"},
    {"prefix: '/'", TO("prefix_rewrite: '/x/'"), "/b", "/x/b"},
    {"prefix: '/A' case_sensitive { value: false }", TO("prefix_rewrite: '/x'"), "/a/b", "/x/b"},
    {"path: '/a'", TO("prefix_rewrite: '/x'"), "/a?q=/a", "/x?q=/a"},
    {"path_separated_prefix: '/a'", TO("prefix_rewrite: '/x'"), "/a/b", "/x/b"},
    {"path_separated_prefix: '/a'", TO("prefix_rewrite: '/x'"), "/a", "/x"},
    {"safe_regex { regex: '/a.*' }", TO("prefix_rewrite: '/x'"), "/abc?q", "/x?q"},
    {"prefix: '/abc'", TO("prefix_rewrite: '/x'"), "/a", "/x"}, /* a filter shortened it */
    {"prefix: '/'", TO("regex_rewrite { pattern { regex: 'o' } substitution: '0' }"), "/foo/o?o",
     "/f00/0?o"},
    {"prefix: '/'",
     TO("regex_rewrite { pattern { regex: '^/service/([^/]+)(/.*)$' } substitution: "
        "'\\\\2/instance/\\\\1' }"),
     "/service/foo/v1/api?x=1", "/v1/api/instance/foo?x=1"},
    {"prefix: '/'", TO("regex_rewrite { pattern { regex: 'zzz' } substitution: 'y' }"), "/abc",
     "/abc"},
    {"prefix: '/'", TO("regex_rewrite { pattern { regex: '(?i)/ABC/' } substitution: '/yyy/' }"),
     "/aaa/AbC/bbb", "/aaa/yyy/bbb"},
    {TEMPLATE("/a/{x}/{y=**}"), TEMPLATE_TO("/{y}/{x}"), "/a/1/2/3?q", "/2/3/1?q"},
    {TEMPLATE("/a/{x}"), TEMPLATE_TO("/fixed"), "/a/1", "/fixed"},
    {TEMPLATE("/a/{x}"), TEMPLATE_TO("/{x}"), "/b/1", "/b/1"}, /* no longer matches */
};

static void paths(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(path_cases); i++) {
        struct route_table *t;
        const struct route_entry *r = route_of(&t, path_cases[i].match, path_cases[i].action);
        struct headers h;
        request_make(&h, &f.msgs, "h", path_cases[i].path, NULL);
        route_rewrite(r, NULL, &h, NULL, true, SV_NULL);
        sv got = headers_get(&h, HDR_path);
        assert_sv_is(got, path_cases[i].want);
        bool is_rewriting =
            r->rewrite->prefix.n || r->rewrite->path_regex.regex || r->rewrite->path_template;
        assert_row(headers_has(&h, HDR_x_envoy_original_path) == is_rewriting, i);
        if (is_rewriting) {
            assert_sv_is(headers_get(&h, HDR_x_envoy_original_path), path_cases[i].path);
        }
        request_make(&h, &f.msgs, "h", path_cases[i].path, NULL);
        route_rewrite(r, NULL, &h, NULL, false, SV_NULL);
        assert_row(!headers_has(&h, HDR_x_envoy_original_path), i);
        shared_unref(&t->shared);
    }
}

static void no_path(void **state) {
    (void)state;
    struct route_table *t;
    const struct route_entry *r =
        route_of(&t, "connect_matcher {}", TO("prefix_rewrite: '/x' host_rewrite_literal: 'n'"));
    struct headers h;
    request_make(&h, &f.msgs, "h:1", NULL, NULL);
    route_rewrite(r, NULL, &h, NULL, true, SV_NULL);
    assert_false(headers_has(&h, HDR_path));
    assert_sv_is(headers_get(&h, HDR_authority), "n");
    shared_unref(&t->shared);
}

static void refused_templates(void **state) {
    (void)state;
    static const char *const cases[][2] = {
        {"prefix: '/'", TEMPLATE_TO("/{x}")},
        {TEMPLATE("/a/{x}"), TEMPLATE_TO("/{y}")},
        {TEMPLATE("/a/{x}"), TEMPLATE_TO("x")},
        {TEMPLATE("/a/{x}"), TEMPLATE_TO("/{x")},
        {TEMPLATE("/a/{x}"), TEMPLATE_TO("//{x}")},
        {TEMPLATE("/a/{x}"), TEMPLATE_TO("/*")},
        {TEMPLATE("/a/{x}"), TO("prefix_rewrite: '/x'")},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[2048];
        snprintf(text, sizeof(text),
                 "virtual_hosts { name: 'v' domains: '*' routes { match { %s } %s } }", cases[i][0],
                 cases[i][1]);
        assert_row(route_table_from(&f, text, NULL) == NULL, i);
        assert_row(fake_errors(&f).n > 0, i);
    }
}

static const struct {
    const char *action, *more, *path;
    const char *upstream;
    const char *want, *want_xfh; /* want_xfh NULL: no header */
} host_cases[] = {
    {TO(""), NULL, "/", "up", "h.com", NULL},
    {TO("host_rewrite_literal: 'new'"), NULL, "/", "", "new", NULL},
    {TO("host_rewrite_literal: 'new' append_x_forwarded_host: true"), NULL, "/", "", "new",
     "h.com"},
    {TO("host_rewrite_literal: 'new' append_x_forwarded_host: true"), "x-forwarded-host: a", "/",
     "", "new", "a,h.com"},
    {TO("host_rewrite_literal: 'new' append_x_forwarded_host: true"), "x-forwarded-host: a, h.com",
     "/", "", "new", "a, h.com"},
    {TO("append_x_forwarded_host: true"), NULL, "/", "", "h.com", NULL},
    {TO("auto_host_rewrite { value: true }"), NULL, "/", "up", "up", NULL},
    {TO("auto_host_rewrite { value: true }"), NULL, "/", "", "h.com", NULL},
    {TO("auto_host_rewrite { value: false }"), NULL, "/", "up", "h.com", NULL},
    {TO("auto_host_rewrite { value: true } append_x_forwarded_host: true"), NULL, "/", "up", "up",
     "h.com"},
    {TO("host_rewrite_header: 'X-To'"), "x-to: there", "/", "", "there", NULL},
    {TO("host_rewrite_header: 'X-To'"), "x-to: one\nx-to: two", "/", "", "one", NULL},
    {TO("host_rewrite_header: 'X-To'"), NULL, "/", "", "h.com", NULL},
    {TO("host_rewrite_header: 'user-agent'"), "user-agent: ua", "/", "", "ua", NULL},
    {TO("host_rewrite_path_regex { pattern { regex: '^/(.+)/.+$' } substitution: '\\\\1' }"), NULL,
     "/foo.com/x?a=/b", "", "foo.com", NULL},
    {TO("host_rewrite_path_regex { pattern { regex: '^/(.+)/.+$' } substitution: '\\\\1' } "
        "prefix_rewrite: '/zz/y'"),
     NULL, "/foo.com/x", "", "foo.com", NULL},
};

static void hosts(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(host_cases); i++) {
        struct route_table *t;
        const struct route_entry *r = route_of(&t, "prefix: '/'", host_cases[i].action);
        struct headers h;
        request_make(&h, &f.msgs, "h.com", host_cases[i].path, host_cases[i].more);
        route_rewrite(r, NULL, &h, NULL, true, sv_cstr(host_cases[i].upstream));
        assert_sv_is(headers_get(&h, HDR_authority), host_cases[i].want);
        assert_row(headers_has(&h, HDR_x_forwarded_host) == (host_cases[i].want_xfh != NULL), i);
        if (host_cases[i].want_xfh) {
            assert_sv_is(headers_get(&h, HDR_x_forwarded_host), host_cases[i].want_xfh);
        }
        bool changed = strcmp(host_cases[i].want, "h.com") != 0;
        assert_row(headers_has(&h, HDR_x_envoy_original_host) == changed, i);
        shared_unref(&t->shared);
    }
}

static void weighted_host(void **state) {
    (void)state;
    struct route_table *t;
    const struct route_entry *r = route_of(&t, "prefix: '/'",
                                           "route { weighted_clusters { clusters { name: 'a' "
                                           "weight { value: 1 } host_rewrite_literal: 'w' } } }");
    struct headers h;
    request_make(&h, &f.msgs, "h.com", "/", NULL);
    route_rewrite(r, &r->weighted->v[0], &h, NULL, true, SV_NULL);
    assert_sv_is(headers_get(&h, HDR_authority), "w");
    shared_unref(&t->shared);
}

#define GO(fields) "redirect { " fields " }"

static const struct {
    const char *match, *action, *host, *path, *more, *want;
} redirect_cases[] = {
    {"prefix: '/'", GO("host_redirect: 'new'"), "h.com", "/a?b", NULL, "http://new/a?b"},
    {"prefix: '/'", GO("https_redirect: true"), "h.com", "/a?b", NULL, "https://h.com/a?b"},
    {"prefix: '/'", GO("https_redirect: false"), "h.com", "/a?b", NULL, "http://h.com/a?b"},
    {"prefix: '/'", GO("scheme_redirect: 'ftp'"), "h.com", "/a", NULL, "ftp://h.com/a"},
    {"prefix: '/'", GO("port_redirect: 8080"), "h.com", "/a", NULL, "http://h.com:8080/a"},
    {"prefix: '/'", GO("port_redirect: 8080"), "h.com:90", "/a", NULL, "http://h.com:8080/a"},
    {"prefix: '/'", GO("port_redirect: 8080"), "[::1]:90", "/a", NULL, "http://[::1]:8080/a"},
    {"prefix: '/'", GO("port_redirect: 8080"), "[::1]", "/a", NULL, "http://[::1]:8080/a"},
    {"prefix: '/'", GO("host_redirect: 'new' port_redirect: 8080"), "h.com:90", "/a", NULL,
     "http://new:8080/a"},
    /* default ports of the old scheme go when the scheme changes */
    {"prefix: '/'", GO("https_redirect: true"), "h.com:80", "/a", "x-forwarded-proto: http",
     "https://h.com/a"},
    {"prefix: '/'", GO("https_redirect: true"), "h.com:8080", "/a", "x-forwarded-proto: http",
     "https://h.com:8080/a"},
    {"prefix: '/'", GO("https_redirect: true"), "[::1]:80", "/a", "x-forwarded-proto: http",
     "https://[::1]/a"},
    {"prefix: '/'", GO("scheme_redirect: 'http'"), "h.com:443", "/a", "x-forwarded-proto: https",
     "http://h.com/a"},
    {"prefix: '/'", GO("scheme_redirect: 'http'"), "h.com:80", "/a", "x-forwarded-proto: http",
     "http://h.com:80/a"},
    {"prefix: '/'", GO("path_redirect: '/new'"), "h.com", "/a?b=c", NULL, "http://h.com/new?b=c"},
    {"prefix: '/'", GO("path_redirect: '/new?own'"), "h.com", "/a?b=c", NULL,
     "http://h.com/new?own"},
    {"prefix: '/'", GO("path_redirect: '/new?own' strip_query: true"), "h.com", "/a?b=c", NULL,
     "http://h.com/new?own"},
    {"prefix: '/'", GO("path_redirect: '/new' strip_query: true"), "h.com", "/a?b=c", NULL,
     "http://h.com/new"},
    {"prefix: '/'", GO("strip_query: true host_redirect: 'n'"), "h.com", "/a?b=c", NULL,
     "http://n/a"},
    {"prefix: '/a'", GO("prefix_rewrite: '/new'"), "h.com", "/a/b?c", NULL, "http://h.com/new/b?c"},
    {"prefix: '/a'", GO("prefix_rewrite: '/new' strip_query: true"), "h.com", "/a/b?c", NULL,
     "http://h.com/new/b"},
    {"path: '/a'", GO("prefix_rewrite: '/new'"), "h.com", "/a?c", NULL, "http://h.com/new?c"},
    {"path_separated_prefix: '/a'", GO("prefix_rewrite: '/'"), "h.com", "/a/b", NULL,
     "http://h.com//b"},
    {"prefix: '/a'", GO("regex_rewrite { pattern { regex: 'b+' } substitution: 'X' }"), "h.com",
     "/a/bb?bb", NULL, "http://h.com/a/X?bb"},
    {"safe_regex { regex: '.*' }", GO("prefix_rewrite: '/new'"), "h.com", "/a/b?c", NULL,
     "http://h.com/new?c"},
};

static void redirects(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(redirect_cases); i++) {
        struct route_table *t;
        const struct route_entry *r =
            route_of(&t, redirect_cases[i].match, redirect_cases[i].action);
        struct headers h;
        request_make(&h, &f.msgs, redirect_cases[i].host, redirect_cases[i].path,
                     redirect_cases[i].more);
        assert_int_equal(r->action, ROUTE_REDIRECT);
        assert_sv_is(route_redirect_location(r, &h, false, &f.msgs), redirect_cases[i].want);
        assert_sv_is(headers_get(&h, HDR_path), redirect_cases[i].path);
        shared_unref(&t->shared);
    }
}

static void formatted(void **state) {
    (void)state;
    static const struct {
        const char *action, *path, *more, *want_path, *want_host;
    } cases[] = {
        {TO("path_rewrite: '/f/%REQ(x)%'"), "/a?b", "x: 1", "/f/1?b", "h.com"},
        {TO("path_rewrite: '%REQ(gone)%'"), "/a?b", NULL, "/a?b", "h.com"},
        /* no target may have a space */
        {TO("path_rewrite: '%REQ(x)%'"), "/a?b", "x: a b", "/a?b", "h.com"},
        {TO("host_rewrite: '%REQ(x)%.com'"), "/a", "x: 1", "/a", "1.com"},
        {TO("host_rewrite: 'a%REQ(gone)%b'"), "/a", NULL, "/a", "a-b"},
        {TO("host_rewrite: '%REQ(x)%'"), "/a", "x: a	b", "/a", "h.com"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct route_table *t;
        const struct route_entry *r = route_of(&t, "prefix: '/'", cases[i].action);
        struct headers h;
        request_make(&h, &f.msgs, "h.com", cases[i].path, cases[i].more);
        struct stream_info si = {.request = &h, .arena = &f.msgs};
        route_rewrite(r, NULL, &h, &si, true, SV_NULL);
        assert_sv_is(headers_get(&h, HDR_path), cases[i].want_path);
        assert_sv_is(headers_get(&h, HDR_authority), cases[i].want_host);
        shared_unref(&t->shared);
    }
}

static void formatted_redirects(void **state) {
    (void)state;
    static const struct {
        const char *action, *more, *want;
    } cases[] = {
        {GO("path_rewrite: '/f/%REQ(x)%'"), "x: 1", "http://h.com/f/1?c"},
        {GO("path_rewrite: '/f/%REQ(x)%?z'"), "x: 1", "http://h.com/f/1?z"},
        {GO("path_rewrite: '%REQ(gone)%'"), NULL, "http://h.com/a/b?c"},
        {GO("path_rewrite: '/f' strip_query: true"), NULL, "http://h.com/f"},
        {GO("path_rewrite: '/f' host_redirect: 'n' port_redirect: 70000"), NULL,
         "http://n:70000/f?c"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct route_table *t;
        const struct route_entry *r = route_of(&t, "prefix: '/a'", cases[i].action);
        struct headers h;
        request_make(&h, &f.msgs, "h.com", "/a/b?c", cases[i].more);
        struct stream_info si = {.request = &h, .arena = &f.msgs};
        assert_sv_is(route_redirect_location_for(r, &h, false, &si, &f.msgs), cases[i].want);
        shared_unref(&t->shared);
    }
}

static void redirect_codes(void **state) {
    (void)state;
    static const struct {
        const char *code;
        unsigned want;
    } cases[] = {{"MOVED_PERMANENTLY", 301},
                 {"FOUND", 302},
                 {"SEE_OTHER", 303},
                 {"TEMPORARY_REDIRECT", 307},
                 {"PERMANENT_REDIRECT", 308}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct route_table *t;
        char action[128];
        snprintf(action, sizeof(action), "redirect { response_code: %s }", cases[i].code);
        assert_row(route_of(&t, "prefix: '/'", action)->redirect->code == cases[i].want, i);
        shared_unref(&t->shared);
    }
}

static void tls_redirect(void **state) {
    (void)state;
    struct headers h;
    request_make(&h, &f.msgs, "h.com:80", "/a?b", NULL);
    assert_sv_is(route_tls_redirect_location(&h, &f.msgs), "https://h.com:80/a?b");
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)
    const struct CMUnitTest tests[] = {
        TEST(paths),
        TEST(no_path),
        TEST(refused_templates),
        TEST(hosts),
        TEST(weighted_host),
        TEST(redirects),
        TEST(formatted),
        TEST(formatted_redirects),
        TEST(redirect_codes),
        TEST(tls_redirect),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
