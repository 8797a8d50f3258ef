/* Custom tags of spans: what is refused, and what each kind gives. */
#include "proxy/observe/trace.h"

#include "proxy/observe/hooks.h"
#include "tests/support/route.h"
#include "tests/support/test_compile.h"

#define TAG "envoy.type.tracing.v3.CustomTag"

static const struct custom_tags *compile(const char *const *texts, size_t n) {
    const void *msgs[CUSTOM_TAGS_MAX + 1];
    for (size_t i = 0; i < n; i++) {
        msgs[i] = fake_msg(&f, TAG, texts[i]);
    }
    return custom_tags_compile(&f.ctx, msgs, n);
}

static void refused(void **state) {
    (void)state;
    static const char *const bad[] = {"tag: 't'", "tag: 't' value: '%NOPE%'",
                                      "tag: 't' value: '%REQ(x'"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_row(!compile(&bad[i], 1), i);
        assert_row(sv_starts(fake_errors(&f), SV("custom_tags[0]")), i);
    }
    const char *const mixed[] = {"tag: 'a' literal { value: 'v' }", "tag: 't'"};
    assert_null(compile(mixed, 2));
    assert_true(sv_starts(fake_errors(&f), SV("custom_tags[1]")));
    const char *many[CUSTOM_TAGS_MAX + 1];
    for (size_t i = 0; i < ARRAY_LEN(many); i++) {
        many[i] = "tag: 't' literal { value: 'v' }";
    }
    assert_null(compile(many, ARRAY_LEN(many)));
    assert_true(sv_contains(fake_errors(&f), SV("more than 128")));
    assert_null(compile(NULL, 0));
    assert_int_equal(diag_errors(&f.diag), 0);
}

static const struct kv_metadata *host_md;
static const struct kv_metadata *host_metadata(const struct host *h) {
    (void)h;
    return host_md;
}

static struct kv_metadata *metadata(const char *key, struct kv_value v) {
    struct kv_metadata *m = kv_metadata_new(&f.arena);
    kv_metadata_set(m, SV("ns"), sv_cstr(key), &v);
    return m;
}

#define MD(kind, key) \
    "tag: 't' metadata { " kind " metadata_key { key: 'ns' path { key: '" key "' } }"

static void values(void **state) {
    (void)state;
    static const struct {
        const char *tag, *want; /* NULL: no value, no tag */
    } cases[] = {
        {"tag: 't' literal { value: 'v' }", "v"},
        {"tag: 't' environment { name: 'SLUICE_TEST_TAG' default_value: 'd' }", "set"},
        {"tag: 't' environment { name: 'SLUICE_TEST_NO_TAG' default_value: 'd' }", "d"},
        {"tag: 't' environment { name: 'SLUICE_TEST_NO_TAG' }", NULL},
        {"tag: 't' request_header { name: 'X-One' }", "1"},
        {"tag: 't' request_header { name: 'x-two' }", "a"},
        {"tag: 't' request_header { name: 'x-none' default_value: 'd' }", "d"},
        {"tag: 't' request_header { name: 'x-none' }", NULL},
        {"tag: 't' request_header { name: 'x-empty' default_value: 'd' }", NULL},
        {MD("kind { request {} }", "s") "}", "text"},
        {MD("kind { request {} }", "q") "}", NULL},
        {MD("kind { request {} }", "q") " default_value: 'd' }", "d"},
        {MD("kind { route {} }", "n") "}", "1.5"},
        {MD("kind { cluster {} }", "b") "}", "true"},
        {MD("kind { host {} }", "z") "}", NULL},
        {MD("kind { host {} }", "z") " default_value: 'd' }", "d"},
        {MD("", "s") " default_value: 'd' }", "d"},
        {MD("", "s") "}", NULL},
        {"tag: 't' metadata { kind { request {} } default_value: 'd' }", "d"},
        {"tag: 't' value: '%REQ(x-one)%-%RESPONSE_CODE%'", "1-404"},
        {"tag: 't' value: '%REQ(x-none)%'", NULL},
        {"tag: 't' value: ''", NULL},
    };
    setenv("SLUICE_TEST_TAG", "set", 1);
    static const struct observe_hooks hooks = {.host_metadata = host_metadata};
    observe_hooks_set(&hooks);
    struct headers h;
    request_make(&h, &f.arena, "h", "/", "x-one: 1\nx-two: a\nx-two: b\nx-empty: ");
    host_md = metadata("z", kv_null());
    struct stream_info si = {.request = &h,
                             .response_code = 404,
                             .arena = &f.arena,
                             .metadata = metadata("s", kv_string(SV("text"))),
                             .route_metadata = metadata("n", kv_number(1.5)),
                             .cluster_metadata = metadata("b", kv_bool(true)),
                             .up.host = (const struct host *)&host_md};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct custom_tags *t = compile(&cases[i].tag, 1);
        struct trace_tag got[CUSTOM_TAGS_MAX];
        assert_row(t != NULL, i);
        unsigned n = custom_tags_values(t, NULL, &si, &f.arena, got);
        assert_row(n == (cases[i].want != NULL), i);
        assert_row(!n || (sv_is(got[0].key, "t") && sv_is(got[0].value, cases[i].want)), i);
    }
    si = (struct stream_info){.arena = &f.arena}; /* neither request nor metadata */
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct trace_tag got[CUSTOM_TAGS_MAX];
        custom_tags_values(compile(&cases[i].tag, 1), NULL, &si, &f.arena, got);
    }
    observe_hooks_set(&(struct observe_hooks){.host_metadata = NULL});
}

static void routes_replace(void **state) {
    (void)state;
    static const char *const own[] = {"tag: 'a' literal { value: '1' }",
                                      "tag: 'b' literal { value: '2' }"};
    static const char *const routes[] = {"tag: 'a' request_header { name: 'x' }"};
    const struct stream_info si = {.arena = &f.arena};
    struct trace_tag got[CUSTOM_TAGS_MAX];
    /* also when the route's has no value */
    assert_int_equal(custom_tags_values(compile(own, 2), compile(routes, 1), &si, &f.arena, got),
                     1);
    assert_sv_is(got[0].key, "b");
    assert_int_equal(custom_tags_values(NULL, compile(own, 2), &si, &f.arena, got), 0);
}

static void ids(void **state) {
    (void)state;
    struct trace_span s = {.trace_low = 0xabc};
    assert_sv_is(trace_id_text(&s, &f.arena), "00000000000000000000000000000abc");
    s.has_short_id = true;
    assert_sv_is(trace_id_text(&s, &f.arena), "0000000000000abc");
    s.trace_high = UINT64_MAX;
    assert_sv_is(trace_id_text(&s, &f.arena), "ffffffffffffffff0000000000000abc");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(refused, start, end),
        cmocka_unit_test_setup_teardown(values, start, end),
        cmocka_unit_test_setup_teardown(routes_replace, start, end),
        cmocka_unit_test_setup_teardown(ids, start, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
