/* Scoped routes: how a key is made of headers, which settings are refused, tables of scopes. */
#include "protos/gen/hcm.pb-c.h"
#include "proxy/route/scope.h"
#include "tests/support/route.h"
#include "tests/support/test_compile.h"

#define KEY_BUILDER                                                             \
    "envoy.extensions.filters.network.http_connection_manager.v3.ScopedRoutes." \
    "ScopeKeyBuilder"
#define KEY "envoy.config.route.v3.ScopedRouteConfiguration.Key"

static const struct scope_key_builder *builder(const char *extractors) {
    return scope_key_builder_compile(&f.ctx, fake_msg(&f, KEY_BUILDER, extractors));
}

/* The key of fragments "a|b|…" as configuration has it; NULL: no key. */
static sv key_of(const char *fragments) {
    char text[512] = "";
    sv rest = sv_cstr(fragments);
    while (rest.p && fragments) {
        sv one = sv_find(rest, '|') == SIZE_MAX ? rest : sv_sub(rest, 0, sv_find(rest, '|'));
        size_t at = strlen(text);
        snprintf(text + at, sizeof(text) - at, "fragments { string_key: '%.*s' } ", SV_ARG(one));
        rest = sv_find(rest, '|') == SIZE_MAX ? SV_NULL : sv_skip(rest, one.n + 1);
    }
    return scope_key_of(fake_msg(&f, KEY, text), &f.msgs);
}

#define BY_INDEX(name, separator, index)                                                   \
    "fragments { header_value_extractor { name: '" name "' element_separator: '" separator \
    "' index: " index " } } "
#define BY_KEY(name, separator, key)                                                       \
    "fragments { header_value_extractor { name: '" name "' element_separator: '" separator \
    "' element { key: '" key "' separator: '=' } } } "

static void keys(void **state) {
    (void)state;
    const struct {
        const char *extractors, *headers, *want; /* want: fragments; NULL: no scope */
    } cases[] = {
        {BY_INDEX("x", "", "0"), "x: a,b", "a,b"},
        {BY_INDEX("X", "", "0"), "x: a", "a"},
        {BY_INDEX("x", "", "0"), "x: ", ""},
        {BY_INDEX("x", "", "0"), "y: a", NULL},
        {BY_INDEX("x", ",", "0"), "x: a,b", "a"},
        {BY_INDEX("x", ",", "1"), "x: a,b", "b"},
        {BY_INDEX("x", ",", "1"), "x: a,", ""},
        {BY_INDEX("x", ",", "1"), "x: a", NULL},
        {BY_INDEX("x", ",", "4294967295"), "x: a,b", NULL},
        {BY_INDEX("x", "::", "1"), "x: a::b::c", "b"},
        {BY_INDEX("x", "::", "1"), "x: a:b", NULL},
        {BY_INDEX("x", "", "0"), "x: first\nx: second", "first"},
        {BY_INDEX("host", "", "0"), NULL, "h.com"},
        {BY_INDEX(":path", "", "0"), NULL, "/p"},
        {BY_KEY("x", ",", "k"), "x: j=1,k=2", "2"},
        {BY_KEY("x", ",", "k"), "x: k=1,k=2", "1"},
        {BY_KEY("x", ",", "k"), "x: k", ""},
        {BY_KEY("x", ",", "k"), "x: k=a=b", "a=b"},
        {BY_KEY("x", ",", "k"), "x: kk=1", NULL},
        {BY_KEY("x", ",", "k"), "x: K=1", NULL},
        {BY_KEY("x", "", "k"), "x: k=1,j=2", "1,j=2"},
        {BY_KEY("x", "", "k"), "x: j=2,k=1", NULL},
        {BY_INDEX("x", "", "0") BY_INDEX("y", "", "0"), "x: a\ny: b", "a|b"},
        {BY_INDEX("x", "", "0") BY_INDEX("y", "", "0"), "x: a", NULL},
        {BY_INDEX("x", "", "0") BY_INDEX("y", "", "0"), "y: b", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const struct scope_key_builder *b = builder(cases[i].extractors);
        assert_non_null(b);
        struct headers h;
        request_make(&h, &f.msgs, "h.com", "/p", cases[i].headers);
        sv got = scope_key_build(b, &h, &f.msgs);
        if (!cases[i].want) {
            if (got.n) {
                fail_msg("case %zu has a key", i);
            }
            continue;
        }
        sv want = key_of(cases[i].want);
        if (!sv_eq(got, want)) {
            fail_msg("case %zu: not '%s'", i, cases[i].want);
        }
    }
}

/* Fragments are not just put one behind the other. */
static void fragments_keep_their_bounds(void **state) {
    (void)state;
    assert_false(sv_eq(key_of("a|bc"), key_of("ab|c")));
    assert_false(sv_eq(key_of("abc"), key_of("ab|c")));
    assert_false(sv_eq(key_of("a|"), key_of("a")));
    assert_true(sv_eq(key_of("a|b"), key_of("a|b")));
}

static void refused(void **state) {
    (void)state;
    const struct {
        const char *extractors, *text;
    } cases[] = {
        {"fragments { header_value_extractor { name: 'x' } }",
         "fragments[0].header_value_extractor: HeaderValueExtractor extract_type not set."},
        {BY_INDEX("x", "", "1"), "fragments[0].header_value_extractor: Index > 0 for empty string "
                                 "element separator."},
        {BY_INDEX("x", "", "0") "fragments { }",
         "fragments[1].header_value_extractor: value is required"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_null(builder(cases[i].extractors));
        sv why = fake_errors(&f);
        if (!sv_eq(why, sv_cstr(cases[i].text))) {
            fail_msg("%.*s", SV_ARG(why));
        }
    }
}

static void tables(void **state) {
    (void)state;
    struct scope_table *t = scope_table_new();
    sv a = key_of("a"), b = key_of("b");
    scope_table_add(t, &(struct scope){.name = SV("1"), .key = a, .routes = 1});
    scope_table_add(t, &(struct scope){.name = SV("2"), .key = b, .routes = 2});
    scope_table_add(t, &(struct scope){.name = SV("3"), .key = a, .routes = 3});
    assert_int_equal(scope_table_find(t, a)->routes, 3);
    assert_int_equal(scope_table_find(t, b)->routes, 2);
    assert_null(scope_table_find(t, key_of("c")));
    assert_null(scope_table_find(t, SV_NULL));
    shared_unref(&t->shared);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(keys, start, end),
        cmocka_unit_test_setup_teardown(fragments_keep_their_bounds, start, end),
        cmocka_unit_test_setup_teardown(refused, start, end),
        cmocka_unit_test_setup_teardown(tables, start, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
