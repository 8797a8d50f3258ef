/* Rate limit descriptors: what actions tell of a request, what is refused. Beside a real Envoy:
 * tests/parity/test_local_ratelimit.py. */
#include "proxy/api/rate_limit.h"
#include "proxy/observe/metadata.h"
#include "tests/support/fake_compile.h"

static struct fake_compile f;
static struct arena a;
static struct headers request;
static struct conn_info cx;
static struct stream_info si;
static struct rate_limit_facts facts;

static int setup(void **state) {
    (void)state;
    fake_compile_init(&f, NULL);
    arena_init(&a, 0);
    headers_init(&request, &a);
    headers_add_copy(&request, SV(":path"), SV("/a?q=1&r=a%20b&e"));
    headers_add_copy(&request, SV("x-a"), SV("1"));
    headers_add_copy(&request, SV("x-a"), SV("2"));
    cx = (struct conn_info){0};
    addr_parse_ip_port(SV("10.1.2.3:5000"), &cx.remote);
    si = (struct stream_info){.cx = &cx, .arena = &a, .request = &request};
    facts = (struct rate_limit_facts){.si = &si,
                                      .request = &request,
                                      .source_cluster = SV("me"),
                                      .destination_cluster = SV("up"),
                                      .scratch = &a};
    return 0;
}
static int teardown(void **state) {
    (void)state;
    arena_fini(&a);
    fake_compile_fini(&f);
    return 0;
}

static const struct rate_limits *make(const char *text, bool of_filter) {
    const void *msg[] = {fake_msg(&f, "envoy.config.route.v3.RateLimit", text)};
    return rate_limits_compile(&f.ctx, msg, 1, of_filter);
}

/* "k=v,k=v;" of each descriptor. */
static const char *told(const struct rate_limits *l, unsigned stage) {
    struct rate_limit_descriptor v[4];
    sv text = SV("");
    unsigned n = rate_limits_fill(l, stage, &facts, v);
    for (unsigned i = 0; i < n; i++) {
        for (unsigned k = 0; k < v[i].n; k++) {
            text = arena_printf(&a, "%.*s%s%.*s=%.*s", SV_ARG(text), k ? "," : "",
                                SV_ARG(v[i].v[k].key), SV_ARG(v[i].v[k].value));
        }
        text = arena_printf(&a, "%.*s;", SV_ARG(text));
    }
    return arena_cstr(&a, text);
}

#define KEY(text) "metadata_key { key: 'ns' path { key: '" text "' } } descriptor_key: 'm' "
#define TEXT "actions { generic_key { descriptor_value: 'x' } } "
#define EXPR(fields)                                                                      \
    "actions { extension { name: 'e' typed_config { "                                     \
    "[type.googleapis.com/envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor] { " \
    "descriptor_key: 'c' " fields " } } } } "

static void test_actions(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"", ";"},
        {TEXT, "generic_key=x;"},
        {"actions { generic_key { descriptor_value: '%REQ(x-a)%' descriptor_key: 'k' } }",
         "k=%REQ(x-a)%;"},
        {"actions { source_cluster { } } actions { destination_cluster { } }",
         "source_cluster=me,destination_cluster=up;"},
        {"actions { request_headers { header_name: 'X-A' descriptor_key: 'a' } }", "a=1;"},
        {TEXT "actions { request_headers { header_name: 'x-b' descriptor_key: 'b' } }", ""},
        {TEXT "actions { request_headers { header_name: 'x-b' descriptor_key: 'b' skip_if_absent: "
              "true } }",
         "generic_key=x;"},
        {"actions { query_parameters { query_parameter_name: 'r' descriptor_key: 'r' } }",
         "r=a b;"},
        {"actions { query_parameters { query_parameter_name: 'e' descriptor_key: 'e' } }", "e=;"},
        {"actions { query_parameters { query_parameter_name: 'x' descriptor_key: 'x' } }", ""},
        {"actions { remote_address { } }", "remote_address=10.1.2.3;"},
        {"actions { masked_remote_address { v4_prefix_mask_len { value: 12 } } }",
         "masked_remote_address=10.0.0.0/12;"},
        {"actions { masked_remote_address { } }", "masked_remote_address=10.1.2.3/32;"},
        {"actions { header_value_match { descriptor_value: 'h' headers { name: 'x-a' "
         "present_match: "
         "true } } }",
         "header_match=h;"},
        {"actions { header_value_match { descriptor_value: 'h' expect_match { } headers { name: "
         "'x-a' present_match: true } } }",
         ""},
        {"actions { query_parameter_value_match { descriptor_value: 'y' query_parameters { name: "
         "'r' "
         "string_match { exact: 'a b' } } } }",
         "query_match=y;"},
        {"actions { query_parameter_value_match { descriptor_value: 'y' query_parameters { name: "
         "'r' "
         "string_match { exact: 'a%20b' } } } }",
         ""},
        {"actions { remote_address_match { descriptor_value: 'n' address_matcher { ranges { "
         "address_prefix: '10.0.0.0' prefix_len { value: 8 } } } } }",
         "remote_address_match=n;"},
        {"actions { remote_address_match { descriptor_value: 'n' address_matcher { invert_match: "
         "true "
         "ranges { address_prefix: '10.0.0.0' prefix_len { value: 8 } } } } }",
         ""},
        {"actions { metadata { " KEY("k") " } }", "m=v;"},
        {"actions { dynamic_metadata { " KEY("x") " } }", ""},
        {"actions { metadata { " KEY("x") " default_value: 'd' } }", "m=d;"},
        {TEXT "actions { metadata { " KEY("x") " skip_if_absent: true } }", "generic_key=x;"},
        {"actions { metadata { " KEY("k") " source: ROUTE_ENTRY } }", ""},
        {EXPR("text: 'request.url_path'"), "c=/a;"},
        {EXPR("text: 'request.referer'"), ""},
        {TEXT EXPR("text: 'request.referer' skip_if_error: true"), "generic_key=x;"},
        {TEXT "apply_on_stream_done: true", ""},
        {TEXT "disable_key: 'k'", ""},
        {TEXT "stage { value: 1 }", ""},
    };
    struct kv_value v = kv_string(SV("v"));
    si.metadata = kv_metadata_new(&a);
    kv_metadata_set(si.metadata, SV("ns"), SV("k"), &v);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct rate_limits *l = make(rows[i].text, false);
        if (!l) {
            fail_msg("%s: %.*s", rows[i].text, SV_ARG(fake_errors(&f)));
            return;
        }
        assert_string_equal(told(l, 0), rows[i].want);
    }
    assert_string_equal(told(make(TEXT "stage { value: 1 }", false), 1), "generic_key=x;");
    assert_int_equal(rate_limits_count(NULL), 0);
    assert_int_equal(rate_limits_fill(NULL, 0, &facts, NULL), 0);
}

/* A client without an address, a request without a path. */
static void test_without_facts(void **state) {
    (void)state;
    static const char *const rows[] = {
        "actions { remote_address { } }", "actions { masked_remote_address { } }",
        "actions { query_parameters { query_parameter_name: 'r' descriptor_key: 'r' } }",
        "actions { remote_address_match { descriptor_value: 'n' address_matcher { invert_match: "
        "true "
        "ranges { address_prefix: '::' } } } }"};
    cx.remote = (struct addr){.family = AF_UNIX, .path = "/x"};
    headers_init(&request, &a);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_string_equal(told(make(rows[i], false), 0), "");
    }
}

static void test_hits(void **state) {
    (void)state;
    static const struct {
        const char *text;
        unsigned n;
        uint64_t hits;
        bool is_negative;
    } rows[] = {
        {TEXT, 1, 1, false},
        {TEXT "hits_addend { number { value: 5 } }", 1, 5, false},
        {TEXT "hits_addend { number { value: 5 } is_negative_hits: true }", 1, 5, true},
        {TEXT "hits_addend { format: '%REQ(x-a)%' }", 1, 1, false},
        {TEXT "hits_addend { format: '%REQ(x-none)%' }", 0, 0, false},
        {TEXT "hits_addend { format: '%PROTOCOL%' }", 0, 0, false},
    };
    struct rate_limit_descriptor d;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_int_equal(rate_limits_fill(make(rows[i].text, true), 0, &facts, &d), rows[i].n);
        assert_true(rows[i].n == 0 ||
                    (d.hits == rows[i].hits && d.is_negative == rows[i].is_negative));
    }
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"stage { value: 1 }", "'stage' field and 'disable_key' field are not supported"},
        {"disable_key: 'k'", "'stage' field and 'disable_key' field are not supported"},
        {"limit { }", "'limit' field is not supported"},
        {TEXT "actions { }", "rate_limits[0].actions[1]: action_specifier: value is required"},
        {"hits_addend { }", "hits_addend: hits_addend must contain either a format or a number"},
        {"hits_addend { number { } format: '%PROTOCOL%' }", "either a format or a number"},
        {"hits_addend { number { value: 1000000001 } }", "number: at most 1000000000"},
        {"hits_addend { format: 'x' }", "exactly one substitution"},
        {"hits_addend { format: '%' }", "exactly one substitution"},
        {"hits_addend { format: '%PROTOCOL%%PROTOCOL%' }", "exactly one substitution"},
        {"hits_addend { format: '%NOPE%' }", "hits_addend"},
        {"actions { masked_remote_address { v4_prefix_mask_len { value: 33 } } }",
         "a mask is at most"},
        {"actions { header_value_match { descriptor_value: 'h' headers { name: 'a' string_match { "
         "safe_regex { regex: '(' } } } } }",
         "header_value_match.headers"},
        {"actions { remote_address_match { descriptor_value: 'n' address_matcher { ranges { "
         "address_prefix: 'x' } } } }",
         "address_matcher.ranges[0]: malformed IP address: x"},
        {"actions { metadata { " KEY("k") " source: CLUSTER_LOCALITY_ENTRY } }",
         "metadata.source: not supported"},
        {EXPR(""), "extension.typed_config: rate limit descriptor extension failed: e"},
        {EXPR("text: 'nope('"), "extension.typed_config.text"},
        {"actions { extension { name: 'x' typed_config { "
         "[type.googleapis.com/google.protobuf.BoolValue] "
         "{ } } } }",
         "extension 'x' (google.protobuf.BoolValue) is not supported"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const struct rate_limits *l = make(rows[i].text, true);
        sv why = fake_errors(&f);
        if (l || !sv_contains(why, sv_cstr(rows[i].want))) {
            fail_msg("%s: %s: %.*s", rows[i].text, l ? "accepted" : "other words", SV_ARG(why));
        }
    }
    assert_null(make("stage { value: 11 }", false));
    assert_null(rate_limits_compile(&f.ctx, NULL, 0, true));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_actions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_without_facts, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
