/* CORS: which requests are answered or marked, and by which level's policy. */
#include "proxy/api/registry.h"
#include "tests/support/fake_stream.h"

extern const struct http_filter_type cors_http_filter;

#define POLICY "envoy.extensions.filters.http.cors.v3.CorsPolicy"
#define LEGACY "envoy.config.route.v3.CorsPolicy"
#define LEVELS 3

static const struct http_filter_type *const filters[] = {&cors_http_filter};
static const struct registry registry = {.http_filters = filters, .http_filters_n = 1};
static struct fake_compile f;
static void *config;

static int start(void **state) {
    (void)state;
    fake_compile_init(&f, &registry);
    f.ctx.stats = stats_store_new(4);
    config = cors_http_filter.compile(
        &f.ctx, fake_msg(&f, "envoy.extensions.filters.http.cors.v3.Cors", ""));
    return 0;
}

static int end(void **state) {
    (void)state;
    struct stats_store *stats = f.ctx.stats;
    fake_compile_fini(&f);
    stats_store_free(stats);
    return 0;
}

static const void *policy(const char *text) {
    return cors_http_filter.compile_route(&f.ctx, fake_msg(&f, POLICY, text), POLICY);
}

/* The access-control headers of the response, "name=value;" without the common prefix. */
static const char *marks(const struct stream *s) {
    static char out[512];
    size_t n = 0;
    out[0] = '\0';
    sv common = SV("access-control-");
    HEADERS_FOREACH (it, &s->response) {
        if (sv_starts(it->name, common)) {
            sv name = sv_skip(it->name, common.n);
            n += (size_t)snprintf(out + n, sizeof(out) - n, "%.*s=%.*s;", SV_ARG(name),
                                  SV_ARG(it->value));
        }
    }
    return out;
}

#define FULL                                                                                   \
    "allow_origin_string_match { exact: 'http://a' } allow_methods: 'GET' allow_headers: 'x' " \
    "expose_headers: 'e' "                                                                     \
    "max_age: '5' allow_credentials { value: true }"
#define ASK "access-control-request-method: PATCH\naccess-control-request-headers: x-q, x-r\n"
#define PRIVATE "access-control-request-private-network: true\n"
#define A "origin: http://a"
#define B "origin: https://b"
#define FULL_PREFLIGHT     \
    "allow-origin=http://" \
    "a;allow-credentials=true;allow-methods=GET;allow-headers=x;max-age=5;expose-headers=e;"

static const struct cors_case {
    const char *levels[LEVELS]; /* from the least to the most specific */
    const char *method, *headers;
    bool is_answered;
    const char *marks;
} cases[] = {
    {{FULL}, "GET", A, false, "allow-origin=http://a;allow-credentials=true;expose-headers=e;"},
    {{FULL}, "GET", B, false, ""},
    {{FULL}, "GET", NULL, false, ""},
    {{FULL}, "GET", "origin: ", false, ""},
    {{FULL}, "OPTIONS", ASK A, true, FULL_PREFLIGHT},
    {{FULL}, "OPTIONS", ASK PRIVATE A, true, FULL_PREFLIGHT},
    {{FULL}, "OPTIONS", ASK B, false, ""},
    {{FULL}, "OPTIONS", A, false, "allow-origin=http://a;allow-credentials=true;expose-headers=e;"},
    {{FULL}, "GET", ASK A, false, "allow-origin=http://a;allow-credentials=true;expose-headers=e;"},
    {{NULL}, "GET", A, false, ""},
    {{NULL}, "OPTIONS", ASK A, false, ""},
    {{"allow_methods: 'GET'"}, "GET", A, false, ""}, /* no origin is allowed */
    /* any origin; stars are answered by what was asked for */
    {{"allow_origin_string_match { exact: '*' } allow_methods: '*' allow_headers: '*' "
      "expose_headers: '*'"},
     "OPTIONS",
     ASK B,
     true,
     "allow-origin=https://b;allow-methods=PATCH;allow-headers=x-q, x-r;expose-headers=*;"},
    {{"allow_origin_string_match { exact: '*' } allow_headers: '*'"},
     "OPTIONS",
     "access-control-request-method: GET\n" B,
     true,
     "allow-origin=https://b;allow-headers=;"},
    {{"allow_origin_string_match { safe_regex { regex: 'http://.*' } } allow_credentials { value: "
      "false }"},
     "GET",
     A,
     false,
     "allow-origin=http://a;"},
    {{"allow_origin_string_match { safe_regex { regex: 'http://.*' } }"}, "GET", B, false, ""},
    {{"allow_origin_string_match { suffix: 'a' } allow_origin_string_match { suffix: 'b' }"},
     "GET",
     B,
     false,
     "allow-origin=https://b;"},
    /* private networks */
    {{"allow_origin_string_match { exact: 'http://a' } allow_private_network_access { value: true "
      "}"},
     "OPTIONS",
     ASK PRIVATE A,
     true,
     "allow-origin=http://a;allow-private-network=true;"},
    {{"allow_origin_string_match { exact: 'http://a' } allow_private_network_access { value: true "
      "}"},
     "OPTIONS",
     ASK A,
     true,
     "allow-origin=http://a;"},
    /* preflights of other origins may be answered here as well */
    {{FULL " forward_not_matching_preflights { value: false }"},
     "OPTIONS",
     ASK B,
     true,
     "allow-credentials=true;allow-methods=GET;allow-headers=x;max-age=5;"},
    {{FULL " forward_not_matching_preflights { value: true }"}, "OPTIONS", ASK B, false, ""},
    {{FULL " forward_not_matching_preflights { value: false }"}, "GET", B, false, ""},
    /* off, and only counted */
    {{FULL " filter_enabled { default_value { numerator: 0 } }"}, "OPTIONS", ASK A, false, ""},
    {{FULL " filter_enabled { default_value { numerator: 100 } }"},
     "OPTIONS",
     ASK A,
     true,
     FULL_PREFLIGHT},
    {{FULL " filter_enabled { default_value { numerator: 0 } } shadow_enabled { default_value { "
           "numerator: 100 } }"},
     "GET",
     A,
     false,
     ""},
    {{FULL " filter_enabled { default_value { numerator: 0 } } shadow_enabled { default_value { "
           "numerator: 100 } } "
           "forward_not_matching_preflights { value: false }"},
     "OPTIONS",
     ASK B,
     false,
     ""},
    /* levels: each field from the most specific that sets it; whether it is on from the most
     * specific alone */
    {{FULL, "allow_methods: 'PUT'"},
     "OPTIONS",
     ASK A,
     true,
     "allow-origin=http://"
     "a;allow-credentials=true;allow-methods=PUT;allow-headers=x;max-age=5;expose-headers=e;"},
    {{FULL, "allow_origin_string_match { exact: 'https://b' }"}, "GET", A, false, ""},
    {{FULL, "allow_origin_string_match { exact: 'https://b' }"},
     "GET",
     B,
     false,
     "allow-origin=https://b;allow-credentials=true;expose-headers=e;"},
    {{FULL, "allow_credentials { value: false }"},
     "GET",
     A,
     false,
     "allow-origin=http://a;expose-headers=e;"},
    {{FULL " filter_enabled { default_value { numerator: 0 } }", "max_age: '1'"},
     "GET",
     A,
     false,
     "allow-origin=http://a;allow-credentials=true;expose-headers=e;"},
    {{FULL, "filter_enabled { default_value { numerator: 0 } }"}, "GET", A, false, ""},
    {{FULL, "max_age: '1'", "max_age: '2'"},
     "OPTIONS",
     ASK A,
     true,
     "allow-origin=http://"
     "a;allow-credentials=true;allow-methods=GET;allow-headers=x;max-age=2;expose-headers=e;"},
};

static void run_case(const struct cors_case *c, size_t row, bool forwards) {
    struct stream s;
    fake_stream_start(&s, &cors_http_filter, config, "h.com", "/", c->headers);
    headers_set(&s.request, HDR_method, sv_cstr(c->method));
    s.has_route_to_cluster = forwards;
    for (unsigned i = 0; i < LEVELS && c->levels[i]; i++) {
        s.route_configs[s.route_configs_n++] = policy(c->levels[i]);
    }
    bool answered = fake_stream_decode(&s, true) == FILTER_HEADERS_STOP;
    assert_row(answered == (forwards && c->is_answered), row);
    assert_row(answered == s.has_response, row);
    if (answered) {
        assert_int_equal(headers_status(&s.response), 200);
        assert_sv_is(s.local_details, "cors_response");
        assert_true(s.response_ended);
    } else {
        fake_stream_respond(&s, 200, NULL, true);
    }
    const char *want = forwards ? c->marks : "";
    if (strcmp(marks(&s), want) != 0) {
        fail_msg("row %zu: got '%s', want '%s'", row, marks(&s), want);
    }
    fake_stream_end(&s);
}

static void decisions(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        run_case(&cases[i], i, true);
        run_case(&cases[i], i, false); /* redirects and direct responses are left alone */
    }
}

static void upstreams_own_headers_are_replaced(void **state) {
    (void)state;
    struct stream s;
    fake_stream_start(&s, &cors_http_filter, config, "h.com", "/", A);
    s.route_configs[s.route_configs_n++] = policy(FULL);
    fake_stream_decode(&s, true);
    fake_stream_respond(
        &s, 200, "access-control-allow-origin: *\naccess-control-allow-origin: http://evil", true);
    assert_string_equal(marks(&s),
                        "allow-origin=http://a;allow-credentials=true;expose-headers=e;");
    fake_stream_end(&s);
}

static void counts(void **state) {
    (void)state;
    const char *shadow = FULL " filter_enabled { default_value { numerator: 0 } } shadow_enabled { "
                              "default_value { numerator: 100 } }";
    const struct cors_case runs[] = {
        {{FULL}, "GET", A, false, "allow-origin=http://a;allow-credentials=true;expose-headers=e;"},
        {{FULL}, "GET", B, false, ""},
        {{shadow}, "GET", A, false, ""},
        {{FULL " filter_enabled { default_value { numerator: 0 } }"}, "GET", A, false, ""},
        {{FULL}, "GET", NULL, false, ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(runs); i++) {
        run_case(&runs[i], i, true);
    }
    /* cells in the order of the table: origin_invalid, origin_valid */
    struct stats_scope *own = *(struct stats_scope **)config;
    assert_sv_is(stats_scope_prefix(own), "http.test.cors.");
    assert_int_equal(stats_scope_value(own, 0), 1);
    assert_int_equal(stats_scope_value(own, 1), 2);
}

static void legacy_policies(void **state) {
    (void)state;
    const void *old = cors_http_filter.compile_route(
        &f.ctx,
        fake_msg(&f, LEGACY, "allow_origin_string_match { exact: 'http://a' } allow_methods: 'L'"),
        LEGACY);
    assert_non_null(old);
    struct stream s;
    fake_stream_start(&s, &cors_http_filter, config, "h.com", "/", A);
    s.route_configs[s.route_configs_n++] = old;
    fake_stream_decode(&s, true);
    fake_stream_respond(&s, 200, NULL, true);
    assert_string_equal(marks(&s), "allow-origin=http://a;");
    fake_stream_end(&s);
    /* a typed policy of any level makes it void */
    fake_stream_start(&s, &cors_http_filter, config, "h.com", "/", A);
    s.route_configs[s.route_configs_n++] =
        policy("allow_origin_string_match { exact: 'https://b' }");
    s.route_configs[s.route_configs_n++] = old;
    fake_stream_decode(&s, true);
    fake_stream_respond(&s, 200, NULL, true);
    assert_string_equal(marks(&s), "");
    fake_stream_end(&s);
}

static void in_route_tables(void **state) {
    (void)state;
    struct route_table *t = route_table_must(
        &f,
        "virtual_hosts { name: 'v' domains: '*' cors { allow_methods: 'V' } "
        "routes { match { prefix: '/typed' } route { cluster: 'c' cors { allow_methods: 'L' } } "
        "  typed_per_filter_config { key: 'envoy.filters.http.cors' value { "
        "[type.googleapis.com/" POLICY "] { allow_methods: 'T' } } } } "
        "routes { match { prefix: '/' } route { cluster: 'c' cors { allow_methods: 'L' } } } }");
    struct headers h;
    request_make(&h, &f.msgs, "h", "/typed", NULL);
    struct route_match_input in = {.headers = &h, .scratch = &f.msgs};
    const struct vhost *v;
    enum route_miss why;
    uint32_t id = filter_name_id(SV("envoy.filters.http.cors"));
    const struct route_entry *r = route_table_match(t, &in, &v, &why);
    assert_int_equal(r->overrides.n, 1);
    assert_non_null(route_override_config(t, r, NULL, id));
    assert_int_equal(v->overrides.n, 1);
    request_make(&h, &f.msgs, "h", "/", NULL);
    r = route_table_match(t, &in, &v, &why);
    assert_int_equal(r->overrides.n, 1);
    shared_unref(&t->shared);
}

static void refused(void **state) {
    (void)state;
    assert_null(policy("allow_origin_string_match { safe_regex { regex: '(' } }"));
    assert_sv_is(fake_errors(&f), "allow_origin_string_match[0].safe_regex: missing ): (");
    assert_null(policy("filter_enabled { default_value { denominator: 9 } }"));
    assert_true(sv_starts(fake_errors(&f), SV("filter_enabled.default_value.denominator")));
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)
    const struct CMUnitTest tests[] = {
        TEST(decisions),       TEST(upstreams_own_headers_are_replaced),
        TEST(counts),          TEST(legacy_policies),
        TEST(in_route_tables), TEST(refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
