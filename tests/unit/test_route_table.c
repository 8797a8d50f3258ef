/* Route tables: hosts, first match, conditions, sharing of unchanged virtual hosts, and what is
 * refused. */
#include "proxy/api/registry.h"
#include "proxy/base/rand.h"
#include "proxy/http/path.h"
#include "proxy/observe/filter_state.h"
#include "proxy/observe/metadata.h"
#include "proxy/route/route_private.h"
#include "tests/support/route.h"
#include "tests/support/test_compile.h"

static const char *found_name(const struct route_table *t, const char *host, const char *path,
                              const char *more, uint64_t random, bool is_connect) {
    static char name[64];
    struct headers h;
    request_make(&h, &f.msgs, host, path, more);
    struct route_match_input in = {
        .headers = &h, .random = random, .scratch = &f.msgs, .is_connect = is_connect};
    const struct vhost *v;
    enum route_miss why;
    const struct route_entry *r = route_table_match(t, &in, &v, &why);
    assert_true((r != NULL) == (why == ROUTE_FOUND));
    if (!r) {
        return why == ROUTE_NO_VHOST ? "no vhost" : why == ROUTE_NO_ROUTE ? "no route" : "tls";
    }
    assert_ptr_equal(r->vhost, v);
    snprintf(name, sizeof(name), "%.*s", SV_ARG(r->name));
    return name;
}

/* --- hosts --- */

static const char hosts_text[] =
    "name: 'r' "
    "virtual_hosts { name: 'exact' domains: 'a.com' domains: 'A.org:8080' domains: '[::1]:80' "
    "  routes { name: 'exact' match { prefix: '/' } route { cluster: 'c' } } } "
    "virtual_hosts { name: 'suffix' domains: '*.a.com' "
    "  routes { name: 'suffix' match { prefix: '/' } route { cluster: 'c' } } } "
    "virtual_hosts { name: 'longsuffix' domains: '*.b.a.com' domains: '*-x.a.com' "
    "  routes { name: 'longsuffix' match { prefix: '/' } route { cluster: 'c' } } } "
    "virtual_hosts { name: 'prefix' domains: 'pre.*' "
    "  routes { name: 'prefix' match { prefix: '/' } route { cluster: 'c' } } } "
    "virtual_hosts { name: 'longprefix' domains: 'pre.long.*' domains: 'api-*' "
    "  routes { name: 'longprefix' match { prefix: '/' } route { cluster: 'c' } } } ";
static const char any_text[] = "virtual_hosts { name: 'any' domains: '*' routes { name: 'any' "
                               "match { prefix: '/' } route { cluster: 'c' } } } ";

static const struct {
    const char *host, *want, *want_any;
} host_cases[] = {
    {"a.com", "exact", "exact"},
    {"A.COM", "exact", "exact"},
    {"a.org:8080", "exact", "exact"},
    {"A.ORG:8080", "exact", "exact"},
    {"a.org", "no vhost", "any"},
    {"a.com:80", "no vhost", "any"},
    {"[::1]:80", "exact", "exact"},
    {"[::1]", "no vhost", "any"},
    {"x.a.com", "suffix", "suffix"},
    {"X.y.A.com", "suffix", "suffix"},
    {".a.com", "no vhost", "any"}, /* a wildcard stands for something */
    {"xa.com", "no vhost", "any"},
    {"c.b.a.com", "longsuffix", "longsuffix"},
    {"b.a.com", "suffix", "suffix"},
    {"foo-x.a.com", "longsuffix", "longsuffix"},
    {"-x.a.com", "suffix", "suffix"},
    {"pre.x", "prefix", "prefix"},
    {"PRE.x", "prefix", "prefix"},
    {"pre.", "no vhost", "any"},
    {"pre.long.x", "longprefix", "longprefix"},
    {"pre.long.", "prefix", "prefix"},
    {"api-1", "longprefix", "longprefix"},
    {"api-.a.com", "suffix", "suffix"}, /* suffixes come before prefixes */
    {"", "no vhost", "any"},
    {"nothing", "no vhost", "any"},
    {NULL, "no vhost", "no vhost"},
};

static void hosts(void **state) {
    (void)state;
    struct route_table *some = route_table_must(&f, hosts_text);
    char all_text[sizeof(hosts_text) + sizeof(any_text)];
    snprintf(all_text, sizeof(all_text), "%s%s", hosts_text, any_text);
    struct route_table *all = route_table_must(&f, all_text);
    for (size_t i = 0; i < ARRAY_LEN(host_cases); i++) {
        assert_row(strcmp(found_name(some, host_cases[i].host, "/", NULL, 0, false),
                          host_cases[i].want) == 0,
                   i);
        assert_row(strcmp(found_name(all, host_cases[i].host, "/", NULL, 0, false),
                          host_cases[i].want_any) == 0,
                   i);
    }
    shared_unref(&some->shared);
    shared_unref(&all->shared);
}

static void only_any_host(void **state) {
    (void)state;
    struct route_table *t = route_table_must(&f, any_text);
    assert_string_equal(found_name(t, NULL, "/", NULL, 0, false), "any");
    assert_string_equal(found_name(t, "x", "/", NULL, 0, false), "any");
    shared_unref(&t->shared);
}

static void long_host(void **state) {
    (void)state;
    struct route_table *t = route_table_must(&f, hosts_text);
    char host[1024];
    memset(host, 'X', sizeof(host) - 1);
    memcpy(host + sizeof(host) - 7, ".A.com", 7);
    assert_string_equal(found_name(t, host, "/", NULL, 0, false), "suffix");
    shared_unref(&t->shared);
}

static void ports_and_headers_of_hosts(void **state) {
    (void)state;
    struct route_table *t =
        route_table_must(&f, "ignore_port_in_host_matching: true "
                             "virtual_hosts { name: 'v' domains: 'a.com' domains: '[::1]' routes { "
                             "name: 'v' match { prefix: '/' } route { cluster: 'c' } } }");
    static const struct {
        const char *host, *want;
    } cases[] = {{"a.com", "v"},
                 {"a.com:80", "v"},
                 {"a.com:", "v"},
                 {"[::1]:80", "v"},
                 {"[::1]", "v"},
                 {"b.com", "no vhost"},
                 {"a.com:80:80", "no vhost"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_row(strcmp(found_name(t, cases[i].host, "/", NULL, 0, false), cases[i].want) == 0,
                   i);
    }
    shared_unref(&t->shared);
    t = route_table_must(&f, "vhost_header: 'X-Host' virtual_hosts { name: 'v' domains: 'a.com' "
                             "routes { name: 'v' match { "
                             "prefix: '/' } route { cluster: 'c' } } }");
    assert_string_equal(found_name(t, "b.com", "/", "x-host: A.com", 0, false), "v");
    assert_string_equal(found_name(t, "a.com", "/", NULL, 0, false), "no vhost");
    shared_unref(&t->shared);
}

/* --- paths --- */

static const char paths_text[] =
    "virtual_hosts { name: 'v' domains: '*' "
    "  routes { name: 'exact' match { path: '/exact' } route { cluster: 'c' } }"
    "  routes { name: 'nocase' match { path: '/NoCase' case_sensitive { value: false } } route { "
    "cluster: 'c' } }"
    "  routes { name: 'sep' match { path_separated_prefix: '/api/dev' } route { cluster: 'c' } }"
    "  routes { name: 'sepnocase' match { path_separated_prefix: '/Sep' case_sensitive { value: "
    "false } } route { cluster: 'c' } }"
    "  routes { name: 'regex' match { safe_regex { regex: '/re/[0-9]+' } } route { cluster: 'c' } }"
    "  routes { name: 'connect' match { connect_matcher {} } route { cluster: 'c' } }"
    "  routes { name: 'long' match { prefix: '/p/long' } route { cluster: 'c' } }"
    "  routes { name: 'prefix' match { prefix: '/p' } route { cluster: 'c' } }"
    "  routes { name: 'never' match { prefix: '/p/longer' } route { cluster: 'c' } }"
    "  routes { name: 'preNoCase' match { prefix: '/Qq' case_sensitive { value: false } } route { "
    "cluster: 'c' } }"
    "  routes { name: 'escaped' match { path: '/a%2Fb' } route { cluster: 'c' } } }";

static const struct {
    const char *path, *want;
    bool is_connect;
} path_cases[] = {
    {"/exact", "exact", false},      {"/exact?x=1", "exact", false},
    {"/exact#f", "exact", false},    {"/exact/", "no route", false},
    {"/Exact", "no route", false},   {"/exac", "no route", false},
    {"/nocase", "nocase", false},    {"/NOCASE?q", "nocase", false},
    {"/nocases", "no route", false}, {"/api/dev", "sep", false},
    {"/api/dev?x", "sep", false},    {"/api/dev/", "sep", false},
    {"/api/dev/v1", "sep", false},   {"/api/developer", "no route", false},
    {"/api/de", "no route", false},  {"/sep/x", "sepnocase", false},
    {"/SEP", "sepnocase", false},    {"/separated", "no route", false},
    {"/re/1", "regex", false},       {"/re/12?x=/re/", "regex", false},
    {"/re/x", "no route", false},    {"/re/1/", "no route", false},
    {"/p", "prefix", false},         {"/p/x", "prefix", false},
    {"/pq", "prefix", false},        {"/p/long", "long", false},
    {"/p/longer", "long", false},    {"/p/lon", "prefix", false},
    {"/qQ/x", "preNoCase", false},   {"/q", "no route", false},
    {"/a%2Fb", "escaped", false},    {"/a/b", "no route", false},
    {"/a%2fb", "no route", false},   {"", "no route", false},
    {"*", "no route", false},        {NULL, "no route", false},
    {NULL, "connect", true},         {"/x", "connect", true},
    {"/exact", "exact", true},
};

static void paths(void **state) {
    (void)state;
    /* The same routes scanned (few) and looked up (many). */
    struct route_table *many = route_table_must(&f, paths_text);
    assert_non_null(many->priv_->vhosts[0]->routes_->index);
    struct vhost_routes scanned = *many->priv_->vhosts[0]->routes_;
    for (size_t i = 0; i < ARRAY_LEN(path_cases); i++) {
        for (int pass = 0; pass < 2; pass++) {
            const char *got =
                found_name(many, "h", path_cases[i].path, NULL, 0, path_cases[i].is_connect);
            assert_row(strcmp(got, path_cases[i].want) == 0, i);
            struct vhost_routes *rs = many->priv_->vhosts[0]->routes_;
            rs->index = pass == 0 ? NULL : scanned.index;
        }
    }
    shared_unref(&many->shared);
}

static void path_parameters(void **state) {
    (void)state;
    static const char routes[] =
        "virtual_hosts { name: 'v' domains: '*' routes { name: 'e' match { path: '/a' } route { "
        "cluster: 'c' } } routes { name: 's' match { path_separated_prefix: '/s' } route { "
        "cluster: 'c' } } }";
    char text[1024];
    snprintf(text, sizeof(text), "ignore_path_parameters_in_path_matching: true %s", routes);
    struct route_table *t = route_table_must(&f, text), *plain = route_table_must(&f, routes);
    assert_string_equal(found_name(t, "h", "/a;v=1?x", NULL, 0, false), "e");
    assert_string_equal(found_name(t, "h", "/a?x;y", NULL, 0, false), "e");
    assert_string_equal(found_name(t, "h", "/s;v=1/x", NULL, 0, false), "s");
    assert_string_equal(found_name(plain, "h", "/a;v=1", NULL, 0, false), "no route");
    shared_unref(&t->shared);
    shared_unref(&plain->shared);
}

static const char template_any[] =
    "type.googleapis.com/envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig";

static char *template_route(const char *pattern) {
    static char text[1024];
    snprintf(text, sizeof(text),
             "virtual_hosts { name: 'v' domains: '*' routes { name: 't' match { path_match_policy "
             "{ name: 'm' typed_config { "
             "[%s] { path_template: '%s' } } } } route { cluster: 'c' } } }",
             template_any, pattern);
    return text;
}

static void templates(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *path;
        bool want;
    } cases[] = {
        {"/a/*", "/a/b", true},
        {"/a/*", "/a/b?x=1", true},
        {"/a/*", "/a/b/c", false},
        {"/a/*", "/a/", false},
        {"/a/**", "/a/b/c", true},
        {"/a/**", "/a/", true},
        {"/a/**", "/b/", false},
        {"/a/{x}/c", "/a/b/c", true},
        {"/a/{x}/c", "/a/b/d", false},
        {"/a/{x=*}/c", "/a/b/c", true},
        {"/a/{x=b/*}", "/a/b/c", true},
        {"/a/{x=b/*}", "/a/c/c", false},
        {"/a/{x=**}", "/a/b/c", true},
        {"/{f}.ts", "/a.ts", true},
        {"/{f}.ts", "/a.js", false},
        {"/a/", "/a/", true},
        {"/a/", "/a", false},
        {"/a.b", "/axb", false},
        {"/a/*", "/a/b=*c", true},
        {"/a/*", "/a/b[", false},
        {"/a/p{x}s/c", "/a/p1s/c", true},
        {"/a/p{x}s/c", "/a/ps/c", false},
        {"/a/p{x}s/c", "/a/p1/c", false},
        {"/a/p{x=**}s/d", "/a/p1/2s/d", true},
        {"/a/**/c", "/a/x/y/c", true},
        {"/a/**/c", "/a/c", false},
        {"/a/=b", "/a/=b", true},
        {"/*.ts", "/a.ts", true},
        {"/", "/", true},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct route_table *t = route_table_must(&f, template_route(cases[i].pattern));
        const char *got = found_name(t, "h", cases[i].path, NULL, 0, false);
        assert_row(strcmp(got, cases[i].want ? "t" : "no route") == 0, i);
        shared_unref(&t->shared);
    }
    static const char *const bad[] = {"a",
                                      "/{",
                                      "/{x",
                                      "/{1x}",
                                      "/{x=}",
                                      "/{x}/{x}",
                                      "/**/*",
                                      "/**/{x}",
                                      "/{x=**}/*",
                                      "/a{x}{y}/c",
                                      "/a{x}b{y}",
                                      "/*b/c",
                                      "/a*b",
                                      "//",
                                      "/a b",
                                      "/{x=a//b}",
                                      "/{a}/{b}/{c}/{d}/{e}/{f}",
                                      "/{abcdefghijklmnopq}"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_row(route_table_from(&f, template_route(bad[i]), NULL) == NULL, i);
        assert_row(sv_contains(fake_errors(&f), SV("is invalid")), i);
    }
}

/* --- conditions --- */

static void conditions(void **state) {
    (void)state;
    static const struct {
        const char *match, *path, *more;
        uint64_t random;
        bool want;
    } cases[] = {
        {"headers { name: 'x' string_match { exact: '1' } }", "/", "x: 1", 0, true},
        {"headers { name: 'x' string_match { exact: '1' } }", "/", "x: 2", 0, false},
        {"headers { name: 'x' } headers { name: 'y' }", "/", "x: 2", 0, false},
        {"query_parameters { name: 'q' string_match { exact: '1' } }", "/?q=1", NULL, 0, true},
        {"query_parameters { name: 'q' string_match { exact: '1' } }", "/?q=2", NULL, 0, false},
        {"query_parameters { name: 'q' }", "/", NULL, 0, false},
        {"cookies { name: 'c' string_match { exact: '1' } }", "/", "cookie: c=1", 0, true},
        {"cookies { name: 'c' string_match { exact: '1' } }", "/", "cookie: c=2", 0, false},
        {"runtime_fraction { default_value { numerator: 10 } }", "/", NULL, 9, true},
        {"runtime_fraction { default_value { numerator: 10 } }", "/", NULL, 10, false},
        {"grpc {}", "/", "content-type: application/grpc", 0, true},
        {"grpc {}", "/", "content-type: application/grpc+proto", 0, true},
        {"grpc {}", "/", "content-type: application/grpc-web", 0, false},
        {"grpc {}", "/", "content-type: application/json", 0, false},
        {"grpc {}", "/", NULL, 0, false},
        {"tls_context {}", "/", NULL, 0, true},
        {"tls_context { presented { value: true } }", "/", NULL, 0, false},
        {"tls_context { presented { value: false } }", "/", NULL, 0, true},
        {"tls_context { validated { value: true } }", "/", NULL, 0, false},
        {"tls_context { validated { value: false } }", "/", NULL, 0, true},
        {"dynamic_metadata { filter: 'n' path { key: 'k' } value { present_match: true } }", "/",
         NULL, 0, false},
        {"dynamic_metadata { filter: 'n' path { key: 'k' } value { present_match: true } invert: "
         "true }",
         "/", NULL, 0, true},
        {"filter_state { key: 'k' string_match { exact: '' } }", "/", NULL, 0, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[1024];
        snprintf(text, sizeof(text),
                 "virtual_hosts { name: 'v' domains: '*' routes { name: 'with' match { prefix: '/' "
                 "%s } route { cluster: 'c' } } "
                 "routes { name: 'without' match { prefix: '/' } route { cluster: 'c' } } }",
                 cases[i].match);
        struct route_table *t = route_table_must(&f, text);
        const char *got = found_name(t, "h", cases[i].path, cases[i].more, cases[i].random, false);
        assert_row(strcmp(got, cases[i].want ? "with" : "without") == 0, i);
        shared_unref(&t->shared);
    }
}

static void conditions_on_stream_info(void **state) {
    (void)state;
    struct route_table *t = route_table_must(
        &f, "virtual_hosts { name: 'v' domains: '*' routes { name: 'r' match { prefix: '/' "
            "dynamic_metadata { filter: 'n' path { key: 'k' } value { bool_match: true } } "
            "filter_state { key: 'fs' string_match { exact: 'v' } } } route { cluster: 'c' } } }");
    struct stream_info si = {.metadata = kv_metadata_new(&f.msgs),
                             .filter_state = filter_state_new(&f.msgs, NULL)};
    struct headers h;
    request_make(&h, &f.msgs, "h", "/", NULL);
    struct route_match_input in = {.headers = &h, .scratch = &f.msgs, .si = &si};
    const struct vhost *v;
    enum route_miss why;
    assert_null(route_table_match(t, &in, &v, &why));
    struct kv_value yes = kv_bool(true);
    kv_metadata_set(si.metadata, SV("n"), SV("k"), &yes);
    assert_null(route_table_match(t, &in, &v, &why));
    filter_state_set(si.filter_state, SV("fs"), SV("v"), NULL, false, FILTER_STATE_LOCAL);
    assert_non_null(route_table_match(t, &in, &v, &why));
    shared_unref(&t->shared);
}

static void tls_requirement(void **state) {
    (void)state;
    static const struct {
        const char *require, *more, *want;
    } cases[] = {
        {"NONE", NULL, "r"},
        {"ALL", "x-forwarded-proto: http", "tls"},
        {"ALL", "x-forwarded-proto: https", "r"},
        {"ALL", "x-forwarded-proto: http\nx-envoy-internal: true", "tls"},
        {"EXTERNAL_ONLY", "x-forwarded-proto: http", "tls"},
        {"EXTERNAL_ONLY", "x-forwarded-proto: https", "r"},
        {"EXTERNAL_ONLY", "x-forwarded-proto: http\nx-envoy-internal: true", "r"},
        {"EXTERNAL_ONLY", "x-forwarded-proto: http\nx-envoy-internal: false", "tls"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        char text[512];
        snprintf(text, sizeof(text),
                 "virtual_hosts { name: 'v' domains: '*' require_tls: %s routes { name: 'r' match "
                 "{ prefix: '/' } route { "
                 "cluster: 'c' } } }",
                 cases[i].require);
        struct route_table *t = route_table_must(&f, text);
        assert_row(strcmp(found_name(t, "h", "/", cases[i].more, 0, false), cases[i].want) == 0, i);
        shared_unref(&t->shared);
    }
}

/* --- refusals --- */

#define VHOST(routes) "name: 'r' virtual_hosts { name: 'v' domains: '*' " routes "}"
#define ROUTE(route) VHOST("routes { match { prefix: '/' } " route "}")
#define ACTION(action) ROUTE("route { cluster: 'c' " action "}")
#define MATCH(match) VHOST("routes { match { " match "} route { cluster: 'c' } }")

static const struct {
    const char *text, *want; /* want: part of the error */
} refusals[] = {
    {"virtual_hosts { name: 'a' domains: 'x' } virtual_hosts { name: 'b' domains: 'X' } name: 'r'",
     "Only unique values for domains are permitted. Duplicate entry of domain x in route r"},
    {"virtual_hosts { name: 'a' domains: '*.x' domains: '*.x' } name: 'r'",
     "Only unique values for domains are permitted. Duplicate entry of domain *.x in route r"},
    {"virtual_hosts { name: 'a' domains: 'x.*' domains: 'x.*' } name: 'r'",
     "Duplicate entry of domain x.* in route r"},
    {"virtual_hosts { name: 'a' domains: '*' } virtual_hosts { name: 'b' domains: '*' } name: 'r'",
     "Only a single wildcard domain is permitted in route r"},
    {"virtual_hosts { domains: '*' }",
     "virtual_hosts[0].name: value length must be at least 1 characters"},
    {"virtual_hosts { name: 'a' }", "virtual_hosts[0].domains"},
    {"vhds {}", "vhds"},
    {"cluster_specifier_plugins { extension { name: 'p' typed_config {} } }",
     "cluster specifier plugins are not supported"},
    {VHOST("matcher { on_no_match { action { name: 'a' typed_config {} } } }"),
     "matcher trees are not supported"},
    {VHOST("routes {}"), "match: value is required"},
    {VHOST("routes { match { prefix: '/' } }"), "action"},
    {VHOST("routes { match {} route { cluster: 'c' } }"), "path_specifier"},
    {MATCH("safe_regex { regex: '(' }"),
     "virtual_hosts[0].routes[0].match.safe_regex: missing ): ("},
    {MATCH("path_separated_prefix: '/a/'"), "path_separated_prefix"},
    {MATCH("path_separated_prefix: '/a?b'"), "path_separated_prefix"},
    {MATCH("prefix: '/' headers { name: 'x' safe_regex_match { regex: '[' } }"),
     "match.headers[0].safe_regex_match: missing ]: ["},
    {MATCH("prefix: '/' query_parameters { name: 'x' string_match {} }"), "match_pattern"},
    {ROUTE("route {}"), "cluster_specifier"},
    {ROUTE("route { cluster: '' }"), "cluster: value length must be at least 1 characters"},
    {ROUTE("route { cluster_specifier_plugin: 'p' }"),
     "cluster specifier plugins are not supported"},
    {ROUTE("route { inline_cluster_specifier_plugin { extension { name: 'p' typed_config {} } } }"),
     "cluster specifier plugins are not supported"},
    {ROUTE("filter_action {}"), "filter_action is not supported"},
    {ROUTE("direct_response { status: 42 }"), "status: value must be inside range [200, 600)"},
    {ROUTE("direct_response { status: 700 }"), "status: value must be inside range [200, 600)"},
    {"max_direct_response_body_size_bytes { value: 3 } " ROUTE(
         "direct_response { status: 200 body { inline_string: 'long' } }"),
     "response body size is 4 bytes; maximum is 3"},
    {ROUTE("redirect { response_code: 9 }"), "response_code"},
    {ROUTE("redirect { regex_rewrite { pattern { regex: '(' } } }"),
     "redirect.regex_rewrite.pattern: missing ): ("},
    {ACTION("timeout { seconds: -1 }"), "timeout"},
    {ACTION("prefix_rewrite: '/a' regex_rewrite { pattern { regex: 'a' } substitution: 'b' }"),
     "Specify only one of prefix_rewrite"},
    {ACTION("regex_rewrite { substitution: 'b' }"), "pattern"},
    {ACTION("retry_policy { retry_back_off { base_interval { seconds: 2 } max_interval { seconds: "
            "1 } } }"),
     "retry_policy.max_interval must greater than or equal to the base_interval"},
    {ACTION("retry_policy { retry_back_off { } }"), "base_interval"},
    {ACTION("retry_policy { retry_options_predicates { name: 'p' typed_config {} } }"),
     "Didn't find a registered implementation for 'p'"},
    {ACTION("retry_policy_typed_config {}"), "retry policy extensions are not supported"},
    {ACTION("upgrade_configs { upgrade_type: 'websocket' } upgrade_configs { upgrade_type: "
            "'WebSocket' }"),
     "Duplicate upgrade WebSocket"},
    {ACTION("upgrade_configs { upgrade_type: 'websocket' connect_config {} }"),
     "Non-CONNECT upgrade type websocket has ConnectConfig"},
    {ACTION("hash_policy {}"), "policy_specifier"},
    {ACTION("hash_policy { header { header_name: 'x' regex_rewrite { pattern { regex: '(' } } } }"),
     "hash_policy[0].header.regex_rewrite.pattern: missing ): ("},
    {ACTION("request_mirror_policies {}"),
     "Exactly one of cluster or cluster_header in request mirror policy need to be specified"},
    {ACTION("request_mirror_policies { cluster: 'a' cluster_header: 'b' }"),
     "Only one of cluster 'a' or cluster_header 'b'"},
    {ACTION("internal_redirect_policy { response_headers_to_copy: ':path' }"),
     ":-prefixed headers or Hosts may not be specified here."},
    {ROUTE("route { weighted_clusters {} }"), "weighted_clusters.clusters"},
    {ROUTE("route { weighted_clusters { clusters { weight { value: 1 } } } }"),
     "At least one of name or cluster_header need to be specified"},
    {ROUTE("route { weighted_clusters { clusters { name: 'a' cluster_header: 'b' weight { value: 1 "
           "} } } }"),
     "Only one of name or cluster_header can be specified"},
    {ROUTE("route { weighted_clusters { clusters { name: 'a' weight { value: 0 } } } }"),
     "Sum of weights in the weighted_cluster must be greater than 0."},
    {ROUTE("route { weighted_clusters { clusters { name: 'a' weight { value: 4294967295 } } "
           "clusters { name: 'b' weight { value: 1 } } } }"),
     "exceeds 4294967295"},
    {ROUTE("route { cluster: 'c' } request_headers_to_add { header { key: ':path' value: 'x' } }"),
     ":-prefixed or host headers may not be modified"},
    {ROUTE("route { cluster: 'c' } request_headers_to_remove: 'Host'"),
     ":-prefixed or host headers may not be removed"},
    {ROUTE("route { cluster: 'c' } request_headers_to_add { append { value: true } append_action: "
           "ADD_IF_ABSENT header { key: 'x' value: 'x' } }"),
     "Both append and append_action are set and it's not allowed"},
    {VHOST("virtual_clusters { name: 'x' }"), "virtual clusters must define 'headers'"},
    {"validate_clusters { value: true } " ROUTE("route { cluster: 'nope' }"),
     "unknown cluster 'nope'"},
    {"validate_clusters { value: true } " ROUTE(
         "route { weighted_clusters { clusters { name: 'nope' weight { value: 1 } } } }"),
     "unknown cluster 'nope'"},
    {"validate_clusters { value: true } " ACTION("request_mirror_policies { cluster: 'nope' }"),
     "unknown cluster 'nope'"},
    {ROUTE("route { cluster: 'c' } typed_per_filter_config { key: 'zz' value { "
           "[type.googleapis.com/google.protobuf.StringValue] {} } }"),
     "Didn't find a registered implementation for 'zz' with type URL: "
     "'google.protobuf.StringValue'"},
    {ROUTE("route { cluster: 'c' } typed_per_filter_config { key: 'zz' value { "
           "[type.googleapis.com/envoy.config.route.v3.FilterConfig] {} } }"),
     "Empty route/virtual host per filter configuration for zz filter"},
};

static void refused(void **state) {
    (void)state;
    static const struct registry none = {.http_filters = NULL};
    f.ctx.registry = &none;
    for (size_t i = 0; i < ARRAY_LEN(refusals); i++) {
        assert_row(route_table_from(&f, refusals[i].text, NULL) == NULL, i);
        sv got = fake_errors(&f);
        if (!sv_contains(got, sv_cstr(refusals[i].want))) {
            fail_msg("row %zu: got '%.*s', want '%s'", i, SV_ARG(got), refusals[i].want);
        }
    }
}

static void malformed(void **state) {
    (void)state;
    static const sv wires[] = {
        SV_INIT("\x12"),
        SV_INIT("\x12\xff"),
        SV_INIT("\x12\x05"
                "ab"),
        SV_INIT("\x0b\x0c"),
        SV_INIT("\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
        SV_INIT("\x0a\x02\xff\xfe"),
        SV_INIT("\x12\x03\x0a\x01\xff"),
        SV_INIT("\x08"),
        SV_INIT("\x09"
                "abc"),
        SV_INIT("\x0d"
                "abc"),
    };
    for (size_t i = 0; i < ARRAY_LEN(wires); i++) {
        assert_row(route_table_compile(&f.ctx, wires[i], NULL) == NULL, i);
        assert_row(fake_errors(&f).n > 0, i);
    }
}

static void optional_filters(void **state) {
    (void)state;
    static const struct registry none = {.http_filters = NULL};
    f.ctx.registry = &none;
    struct route_table *t = route_table_must(
        &f, ROUTE("route { cluster: 'c' } "
                  "typed_per_filter_config { key: 'a' value { "
                  "[type.googleapis.com/envoy.config.route.v3.FilterConfig] { disabled: true } } } "
                  "typed_per_filter_config { key: 'b' value { "
                  "[type.googleapis.com/envoy.config.route.v3.FilterConfig] { config {} } } } "
                  "typed_per_filter_config { key: 'c' value { "
                  "[type.googleapis.com/envoy.config.route.v3.FilterConfig] { is_optional: true "
                  "  config { [type.googleapis.com/google.protobuf.StringValue] {} } } } }"));
    const struct route_entry *r = &t->priv_->vhosts[0]->routes_->v[0];
    assert_true(route_override(t, r, NULL, filter_name_id(SV("a")))->is_disabled);
    const struct filter_override *b = route_override(t, r, NULL, filter_name_id(SV("b")));
    assert_non_null(b);
    assert_false(b->is_disabled);
    assert_null(b->config);
    assert_null(route_override_config(t, r, NULL, filter_name_id(SV("b"))));
    assert_null(route_override(t, r, NULL, filter_name_id(SV("d"))));
    shared_unref(&t->shared);
}

/* --- fields --- */

static const struct route_entry *only_route(const struct route_table *t) {
    return &t->priv_->vhosts[0]->routes_->v[0];
}

static void defaults(void **state) {
    (void)state;
    struct route_table *t = route_table_must(&f, ACTION("retry_policy { retry_on: '5xx' }"));
    const struct route_entry *r = only_route(t);
    assert_int_equal(r->timeout_ms, UINT32_MAX);
    assert_int_equal(r->idle_timeout_ms, UINT32_MAX);
    assert_int_equal(r->cluster_not_found_code, 503);
    assert_int_equal(r->request_body_buffer_limit, UINT32_MAX);
    assert_int_equal(r->retry->num_retries, 1);
    assert_int_equal(r->retry->base_interval_ms, 25);
    assert_int_equal(r->retry->max_interval_ms, 250);
    assert_int_equal(r->retry->host_selection_retry_max_attempts, 1);
    assert_int_equal(r->retry->retry_on, RETRY_5XX);
    assert_true(r->extra->decorator_propagate);
    assert_null(r->extra->internal_redirect);
    assert_null(r->metadata);
    assert_false(r->has_max_stream_duration);
    shared_unref(&t->shared);
}

static void action_fields(void **state) {
    (void)state;
    struct route_table *t = route_table_must(
        &f,
        ACTION(
            "timeout { seconds: 0 } idle_timeout { seconds: 2 nanos: 500000000 } "
            "max_stream_duration { max_stream_duration { seconds: 3 } grpc_timeout_header_max { "
            "seconds: 4 } } "
            "cluster_not_found_response_code: NOT_FOUND priority: HIGH "
            "retry_policy { retry_on: 'connect-failure, unavailable,bogus' num_retries { value: 0 "
            "} "
            "  per_try_timeout { seconds: 1 } retriable_status_codes: 503 retriable_status_codes: "
            "5000 "
            "  retry_back_off { base_interval { nanos: 100 } } "
            "  rate_limited_retry_back_off { reset_headers { name: 'Retry-After' format: "
            "UNIX_TIMESTAMP } } "
            "  retry_host_predicate { name: 'p' typed_config { "
            "  "
            "[type.googleapis.com/"
            "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate] {} } } } "
            "upgrade_configs { upgrade_type: 'CONNECT' connect_config { allow_post: true } } "
            "upgrade_configs { upgrade_type: 'websocket' enabled { value: false } } "
            "internal_redirect_policy { max_internal_redirects { value: 2 } "
            "redirect_response_codes: 307 "
            "  redirect_response_codes: 200 predicates { name: 'x' typed_config { "
            "  "
            "[type.googleapis.com/"
            "envoy.extensions.internal_redirect.previous_routes.v3.PreviousRoutesConfig] {} } } } "
            "metadata_match { filter_metadata { key: 'envoy.lb' value { fields { key: 'v' value { "
            "string_value: '1' } } } } } "
            "request_mirror_policies { cluster: 'm' runtime_fraction { default_value { numerator: "
            "5 } } }"));
    const struct route_entry *r = only_route(t);
    assert_int_equal(r->timeout_ms, 0);
    assert_int_equal(r->idle_timeout_ms, 2500);
    assert_true(r->has_max_stream_duration);
    assert_int_equal(r->max_stream_duration_ms, 3000);
    assert_int_equal(r->extra->grpc_header_max_ms, 4000);
    assert_int_equal(r->extra->grpc_header_offset_ms, UINT32_MAX);
    assert_int_equal(r->cluster_not_found_code, 404);
    assert_int_equal(r->priority, 1);
    assert_int_equal(r->retry->retry_on, RETRY_CONNECT_FAILURE | RETRY_GRPC_UNAVAILABLE);
    assert_int_equal(r->retry->num_retries, 0);
    assert_int_equal(r->retry->per_try_timeout_ms, 1000);
    assert_int_equal(r->retry->status_codes_n, 1);
    assert_int_equal(r->retry->base_interval_ms, 1);
    assert_int_equal(r->retry->max_interval_ms, 10);
    assert_int_equal(r->retry->reset_headers_n, 1);
    assert_true(r->retry->reset_headers[0].is_unix_time);
    assert_int_equal(r->retry->reset_headers[0].id, HDR_retry_after);
    assert_true(r->retry->avoid_previous_hosts);
    assert_int_equal(r->extra->upgrades_n, 2);
    assert_true(r->extra->upgrades[0].allow_post);
    assert_false(r->extra->upgrades[1].enabled);
    assert_int_equal(r->extra->internal_redirect->max, 2);
    assert_int_equal(r->extra->internal_redirect->codes_n, 1);
    assert_true(r->extra->internal_redirect->previous_routes);
    assert_non_null(r->metadata_match);
    assert_int_equal(r->extra->mirrors_n, 1);
    assert_int_equal(r->extra->mirrors[0].fraction.numerator, 5);
    shared_unref(&t->shared);
}

static void inheritance(void **state) {
    (void)state;
    struct route_table *t = route_table_must(
        &f, "name: 'r' request_mirror_policies { cluster: 'table' } "
            "virtual_hosts { name: 'a' domains: 'a' retry_policy { num_retries { value: 7 } } "
            "per_request_buffer_limit_bytes { value: 9 } "
            "  routes { match { path: '/1' } route { cluster: 'c' } } "
            "  routes { match { path: '/2' } route { cluster: 'c' retry_policy { num_retries { "
            "value: 3 } } } "
            "    request_body_buffer_limit { value: 5 } } } "
            "virtual_hosts { name: 'b' domains: 'b' request_mirror_policies { cluster: 'vhost' } "
            "  routes { match { path: '/1' } route { cluster: 'c' } } "
            "  routes { match { path: '/2' } route { cluster: 'c' request_mirror_policies { "
            "cluster: 'route' } } } } ");
    const struct route_entry *a = t->priv_->vhosts[0]->routes_->v,
                             *b = t->priv_->vhosts[1]->routes_->v;
    assert_int_equal(a[0].retry->num_retries, 7);
    assert_int_equal(a[1].retry->num_retries, 3);
    assert_int_equal(a[0].request_body_buffer_limit, 9);
    assert_int_equal(a[1].request_body_buffer_limit, 5);
    assert_sv_is(a[0].extra->mirrors[0].cluster_name, "table");
    assert_sv_is(b[0].extra->mirrors[0].cluster_name, "vhost");
    assert_sv_is(b[1].extra->mirrors[0].cluster_name, "route");
    assert_null(b[0].retry);
    shared_unref(&t->shared);
}

#define RETRY_VHOST(name, policy)                                                       \
    "virtual_hosts { name: '" name "' domains: '" name "' retry_policy { " policy " } " \
    "routes { match { prefix: '/' } route { cluster: 'c' } } } "

/* Virtual hosts with the same policy have one, whichever table made it and whichever ends first. */
static void retry_sharing(void **state) {
    (void)state;
    static const char two_codes[] = "name: 'r' " RETRY_VHOST("a", "retriable_status_codes: 503")
        RETRY_VHOST("b", "retriable_status_codes: 503")
            RETRY_VHOST("c", "retriable_status_codes: 504");
    struct route_table *one = route_table_must(&f, two_codes);
    const struct retry_policy *p[3];
    for (unsigned i = 0; i < 3; i++) {
        p[i] = one->priv_->vhosts[i]->routes_->v[0].retry;
        assert_int_equal(p[i]->status_codes[0], i < 2 ? 503 : 504);
    }
    assert_ptr_equal(p[0], p[1]);
    assert_ptr_not_equal(p[0], p[2]);
    struct route_table *two =
        route_table_must(&f, "name: 's' " RETRY_VHOST("z", "retriable_status_codes: 503"));
    shared_unref(&one->shared);
    assert_ptr_equal(only_route(two)->retry, p[0]);
    assert_int_equal(only_route(two)->retry->status_codes[0], 503);
    shared_unref(&two->shared);
    /* a refused policy is refused again */
    for (int i = 0; i < 2; i++) {
        assert_null(route_table_from(
            &f, "name: 'r' " RETRY_VHOST("a", "retry_back_off { base_interval { seconds: -1 } }"),
            NULL));
        assert_true(fake_errors(&f).n > 0);
    }
}

static void weights(void **state) {
    (void)state;
    struct route_table *t = route_table_must(
        &f, ROUTE("route { weighted_clusters { clusters { name: 'a' weight { value: 1 } } clusters "
                  "{ name: 'z' weight { value: 0 } } "
                  "clusters { name: 'b' weight { value: 3 } } header_name: 'X-Random' } }"));
    const struct route_entry *r = only_route(t);
    static const char *const want[] = {"a", "b", "b", "b"};
    for (uint64_t i = 0; i < 12; i++) {
        assert_sv_is(route_pick_weighted(r, i)->cluster_name, want[i % 4]);
    }
    static const struct {
        const char *more;
        uint64_t want;
    } cases[] = {{NULL, 99},           {"x-random: 7", 7},
                 {"x-random: x", 99},  {"x-random: 1\nx-random: 2", 99},
                 {"x-random: -1", 99}, {"x-random: ", 99}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct headers h;
        request_make(&h, &f.msgs, "h", "/", cases[i].more);
        struct route_match_input in = {.headers = &h, .random = 99, .scratch = &f.msgs};
        assert_row(route_weighted_random(r, &in) == cases[i].want, i);
    }
    shared_unref(&t->shared);
}

static void virtual_clusters(void **state) {
    (void)state;
    struct route_table *t =
        route_table_must(&f, VHOST("virtual_clusters { name: 'first' headers { name: ':path' "
                                   "string_match { prefix: '/a' } } } "
                                   "virtual_clusters { name: 'second' headers { name: ':method' "
                                   "string_match { exact: 'GET' } } "
                                   "headers { name: ':path' string_match { prefix: '/b' } } }"));
    const struct vhost *v = t->priv_->vhosts[0];
    static const char *const cases[][2] = {{"/a", "first"}, {"/b", "second"}, {"/c", "other"}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct headers h;
        sv name;
        request_make(&h, &f.msgs, "h", cases[i][0], NULL);
        assert_non_null(vhost_virtual_cluster(v, &h, &f.msgs, &name));
        assert_sv_is(name, cases[i][1]);
    }
    shared_unref(&t->shared);
}

static void retry_words(void **state) {
    (void)state;
    static const struct {
        const char *words;
        uint32_t want;
        bool known;
    } cases[] = {
        {"", 0, true},
        {"5xx", RETRY_5XX, true},
        {"5xx,gateway-error", RETRY_5XX | RETRY_GATEWAY_ERROR, true},
        {" reset , refused-stream ", RETRY_RESET | RETRY_REFUSED_STREAM, true},
        {"5XX", 0, false},
        {"bogus,reset-before-request", RETRY_RESET_BEFORE_REQUEST, false},
        {"cancelled,deadline-exceeded,internal,resource-exhausted,unavailable",
         RETRY_GRPC_CANCELLED | RETRY_GRPC_DEADLINE_EXCEEDED | RETRY_GRPC_INTERNAL |
             RETRY_GRPC_RESOURCE_EXHAUSTED | RETRY_GRPC_UNAVAILABLE,
         true},
        {",", 0, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        bool known;
        assert_row(retry_on_parse(sv_cstr(cases[i].words), &known) == cases[i].want, i);
        assert_row(known == cases[i].known, i);
    }
}

static void unhonoured(void **state) {
    (void)state;
    struct route_table *t =
        route_table_must(&f, ACTION("hedge_policy { hedge_on_per_try_timeout: true }"));
    assert_int_equal(fake.unhonoured_n, 1);
    assert_string_equal(fake.unhonoured[0], "hedge_policy");
    shared_unref(&t->shared);
}

/* --- sharing --- */

#define SHARED_VHOST(name, cluster)                    \
    "virtual_hosts { name: '" name "' domains: '" name \
    "' routes { match { prefix: '/' } route { cluster: '" cluster "' } } } "

static void sharing(void **state) {
    (void)state;
    struct route_table *one =
        route_table_must(&f, "name: 'r' " SHARED_VHOST("a", "x") SHARED_VHOST("b", "x"));
    struct route_table *two =
        route_table_from(&f, "name: 'r' " SHARED_VHOST("a", "x") SHARED_VHOST("b", "y"), one);
    assert_ptr_equal(one->priv_->vhosts[0], two->priv_->vhosts[0]);
    assert_ptr_not_equal(one->priv_->vhosts[1], two->priv_->vhosts[1]);
    /* moved, and another in between */
    struct route_table *three = route_table_from(
        &f, "name: 'r2' " SHARED_VHOST("n", "x") SHARED_VHOST("b", "y") SHARED_VHOST("a", "x"),
        two);
    assert_ptr_equal(three->priv_->vhosts[1], two->priv_->vhosts[1]);
    assert_ptr_equal(three->priv_->vhosts[2], one->priv_->vhosts[0]);
    shared_unref(&one->shared);
    shared_unref(&two->shared);
    assert_string_equal(found_name(three, "a", "/", NULL, 0, false), "");
    /* what virtual hosts take from the table counts as well */
    struct route_table *four = route_table_from(
        &f, "name: 'r2' request_mirror_policies { cluster: 'm' } " SHARED_VHOST("n", "x"), three);
    assert_ptr_not_equal(four->priv_->vhosts[0], three->priv_->vhosts[0]);
    assert_int_equal(only_route(four)->extra->mirrors_n, 1);
    /* clusters that must exist are looked at again */
    struct route_table *five =
        route_table_from(&f, "validate_clusters { value: true } " SHARED_VHOST("n", "x"), three);
    struct route_table *six =
        route_table_from(&f, "validate_clusters { value: true } " SHARED_VHOST("n", "x"), five);
    assert_ptr_not_equal(five->priv_->vhosts[0], six->priv_->vhosts[0]);
    shared_unref(&three->shared);
    shared_unref(&four->shared);
    shared_unref(&five->shared);
    shared_unref(&six->shared);
}

/* --- property: looking up finds what a walk over the list finds --- */

#define RANDOM_TABLES 300
#define RANDOM_PATHS 60

static void random_path(struct rng *g, char *out, size_t size) {
    static const char *const parts[] = {
        "a", "b", "ab", "A", "abc", "", "x%2Fy", "0123456789", "0123456789abcdef0"};
    size_t n = 0;
    unsigned k = (unsigned)rng_below(g, 4);
    out[n++] = '/';
    for (unsigned i = 0; i < k; i++) {
        const char *p = parts[rng_below(g, ARRAY_LEN(parts))];
        n += (size_t)snprintf(out + n, size - n, "%s%s", p,
                              i + 1 < k || rng_below(g, 3) == 0 ? "/" : "");
    }
    out[n] = '\0';
}

static void random_route(struct rng *g, struct buf *text, unsigned i) {
    char path[128];
    random_path(g, path, sizeof(path));
    buf_printf(text, "routes { name: '%u' match { ", i);
    switch (rng_below(g, 6)) {
    case 0:
        buf_printf(text, "path: '%s' ", path);
        break;
    case 1:
        buf_printf(text, "safe_regex { regex: '%s.*' } ", path);
        break;
    case 2:
        buf_printf(text, "path_separated_prefix: '%s' ",
                   strlen(path) > 1 && path[strlen(path) - 1] != '/' ? path : "/a");
        break;
    case 3:
        buf_printf(text, "connect_matcher {} ");
        break;
    default:
        buf_printf(text, "prefix: '%s' ", path);
        break;
    }
    if (rng_below(g, 4) == 0) {
        buf_lit(text, "case_sensitive { value: false } ");
    }
    if (rng_below(g, 3) == 0) {
        buf_lit(text, "headers { name: 'x' } ");
    }
    buf_lit(text, "} route { cluster: 'c' } } ");
}

static struct route_table *random_table(struct rng *g) {
    struct buf text;
    buf_init(&text);
    buf_lit(&text, "virtual_hosts { name: 'v' domains: '*' ");
    unsigned n = (unsigned)rng_below(g, 40);
    for (unsigned i = 0; i < n; i++) {
        random_route(g, &text, i);
    }
    buf_lit(&text, "}");
    char *s = buf_dup_str(&text);
    struct route_table *t = route_table_must(&f, s);
    xfree(s);
    buf_fini(&text);
    return t;
}

static void lookup_finds_what_a_walk_finds(void **state) {
    (void)state;
    struct rng g;
    rng_seed(&g, 20260801);
    unsigned looked_up = 0;
    for (unsigned i = 0; i < RANDOM_TABLES; i++) {
        struct route_table *t = random_table(&g);
        struct vhost_routes *rs = t->priv_->vhosts[0]->routes_;
        const struct path_index *index = rs->index;
        looked_up += index != NULL;
        for (unsigned k = 0; k < RANDOM_PATHS; k++) {
            char path[160], fast[64];
            random_path(&g, path, sizeof(path));
            const char *target = rng_below(&g, 20) ? path : NULL;
            const char *more = rng_below(&g, 2) ? "x: 1" : NULL;
            bool is_connect = rng_below(&g, 5) == 0;
            rs->index = index;
            snprintf(fast, sizeof(fast), "%s", found_name(t, "h", target, more, 0, is_connect));
            rs->index = NULL;
            assert_string_equal(fast, found_name(t, "h", target, more, 0, is_connect));
        }
        shared_unref(&t->shared);
        arena_reset(&f.msgs);
    }
    assert_true(looked_up > RANDOM_TABLES / 2);
}

static void many_prefix_lengths(void **state) {
    (void)state;
    struct buf text;
    buf_init(&text);
    buf_lit(&text, "virtual_hosts { name: 'v' domains: '*' ");
    char path[256] = "/";
    for (unsigned i = 150; i > 0; i--) {
        memset(path + 1, 'a', i);
        path[i + 1] = '\0';
        buf_printf(&text, "routes { name: '%u' match { prefix: '%s' } route { cluster: 'c' } } ", i,
                   path);
    }
    buf_lit(&text, "}");
    char *s = buf_dup_str(&text);
    struct route_table *t = route_table_must(&f, s);
    for (unsigned i = 1; i <= 150; i++) {
        char want[16];
        memset(path + 1, 'a', i);
        path[i + 1] = '\0';
        snprintf(want, sizeof(want), "%u", i);
        assert_string_equal(found_name(t, "h", path, NULL, 0, false), want);
    }
    shared_unref(&t->shared);
    xfree(s);
    buf_fini(&text);
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)
    const struct CMUnitTest tests[] = {
        TEST(hosts),
        TEST(only_any_host),
        TEST(long_host),
        TEST(ports_and_headers_of_hosts),
        TEST(paths),
        TEST(path_parameters),
        TEST(templates),
        TEST(conditions),
        TEST(conditions_on_stream_info),
        TEST(tls_requirement),
        TEST(refused),
        TEST(malformed),
        TEST(optional_filters),
        TEST(defaults),
        TEST(action_fields),
        TEST(inheritance),
        TEST(weights),
        TEST(virtual_clusters),
        TEST(retry_words),
        TEST(unhonoured),
        TEST(sharing),
        TEST(retry_sharing),
        TEST(lookup_finds_what_a_walk_finds),
        TEST(many_prefix_lengths),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
