/* Metadata trees and filter state: set, merge, get, print, from messages; limits. */
#include <stdio.h>

#include "proxy/observe/filter_state.h"
#include "proxy/observe/metadata.h"
#include "tests/support/fake_compile.h"

static struct arena a;
static int setup(void **state) {
    (void)state;
    arena_init(&a, 0);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    arena_fini(&a);
    chunk_cache_trim();
    return 0;
}

static const char *json(const struct kv_value *v) {
    BUF_AUTO struct buf b = {0};
    kv_write_json(v, &b);
    char *text = buf_dup_str(&b);
    char *out = arena_cstr(&a, sv_cstr(text));
    xfree(text);
    return out;
}
static const struct kv_value *at(const struct kv_metadata *m, const char *ns, const char *k1,
                                 const char *k2) {
    sv path[2] = {sv_cstr(k1), sv_cstr(k2)};
    return kv_metadata_get(m, sv_cstr(ns), path, k2 ? 2 : k1 ? 1 : 0);
}

static void test_set_and_get(void **state) {
    (void)state;
    struct kv_metadata *m = kv_metadata_new(&a);
    assert_null(at(m, "ns", NULL, NULL));
    assert_null(at(NULL, "ns", NULL, NULL));
    struct kv_value s = kv_string(SV("v")), n = kv_number(2), o = kv_empty_struct();
    kv_set(&o, &a, SV("b"), &n);
    kv_set(&o, &a, SV("a"), &s);
    kv_set(&o, &a, SV("b"), &s); /* replaces */
    assert_true(kv_metadata_set(m, SV("ns"), SV("k"), &o));
    assert_true(kv_metadata_set(m, SV("ns"), SV("j"), &n));
    assert_string_equal(json(at(m, "ns", NULL, NULL)), "{\"j\":2,\"k\":{\"a\":\"v\",\"b\":\"v\"}}");
    assert_string_equal(json(at(m, "ns", "k", "a")), "\"v\"");
    assert_null(at(m, "ns", "k", "x"));
    assert_null(at(m, "ns", "j", "x")); /* through a number */
    assert_null(at(m, "other", "k", NULL));
    assert_int_equal(kv_metadata_count(m), 1);
    const struct kv_value *v;
    assert_sv_is(kv_metadata_name_at(m, 0, &v), "ns");
    assert_int_equal(v->kind, KV_STRUCT);
    assert_true(kv_metadata_put(m, SV("ns"), &n));
    assert_string_equal(json(at(m, "ns", NULL, NULL)), "2");
    /* a namespace that is no struct becomes one */
    assert_true(kv_metadata_set(m, SV("ns"), SV("k"), &s));
    assert_string_equal(json(at(m, "ns", NULL, NULL)), "{\"k\":\"v\"}");
}

static void test_merge(void **state) {
    (void)state;
    struct kv_metadata *m = kv_metadata_new(&a);
    struct kv_value items[] = {kv_number(1), kv_bool(true)},
                    list = {.kind = KV_LIST, .list = {items, 2}};
    struct kv_value inner = kv_empty_struct(), top = kv_empty_struct(), s = kv_string(SV("x")),
                    null = kv_null();
    kv_set(&inner, &a, SV("p"), &s);
    kv_set(&top, &a, SV("o"), &inner);
    kv_set(&top, &a, SV("l"), &list);
    kv_set(&top, &a, SV("s"), &s);
    assert_true(kv_metadata_merge(m, SV("n"), &top));
    struct kv_value inner2 = kv_empty_struct(), top2 = kv_empty_struct();
    kv_set(&inner2, &a, SV("q"), &null);
    kv_set(&top2, &a, SV("o"), &inner2);
    kv_set(&top2, &a, SV("l"), &list);
    kv_set(&top2, &a, SV("s"), &items[0]);
    assert_true(kv_metadata_merge(m, SV("n"), &top2));
    assert_string_equal(json(at(m, "n", NULL, NULL)),
                        "{\"l\":[1,true,1,true],\"o\":{\"p\":\"x\",\"q\":null},\"s\":1}");
    assert_false(kv_metadata_merge(m, SV("n"), &s)); /* not a struct */
}

static void test_limits(void **state) {
    (void)state;
    struct kv_metadata *m = kv_metadata_new(&a);
    struct kv_value v = kv_bool(true);
    char name[16];
    for (int i = 0; i < KV_NAMESPACES_MAX; i++) {
        int n = snprintf(name, sizeof(name), "n%d", i);
        assert_true(kv_metadata_set(m, sv_from(name, (size_t)n), SV("k"), &v));
    }
    assert_false(kv_metadata_set(m, SV("one more"), SV("k"), &v));
    assert_false(kv_metadata_put(m, SV("one more"), &v));
    assert_true(kv_metadata_set(m, SV("n5"), SV("k2"), &v));
    struct kv_value deep = kv_null();
    for (int i = 0; i < 100; i++) {
        struct kv_value *one = arena_new(&a, struct kv_value);
        *one = deep;
        deep = (struct kv_value){.kind = KV_LIST, .list = {one, 1}};
    }
    struct kv_value copy = kv_copy(&deep, &a);
    unsigned depth = 0;
    for (const struct kv_value *p = &copy; p->kind == KV_LIST; p = p->list.v) {
        depth++;
    }
    assert_int_equal(depth, KV_DEPTH_MAX);
}

static void test_equality(void **state) {
    (void)state;
    struct kv_value items[] = {kv_number(1), kv_string(SV("x"))};
    struct kv_value values[] = {kv_null(),
                                kv_bool(false),
                                kv_bool(true),
                                kv_number(0),
                                kv_number(1),
                                kv_string(SV("")),
                                kv_string(SV("1")),
                                kv_empty_struct(),
                                {.kind = KV_LIST},
                                {.kind = KV_LIST, .list = {items, 1}},
                                {.kind = KV_LIST, .list = {items, 2}},
                                kv_empty_struct(),
                                kv_empty_struct()};
    kv_set(&values[11], &a, SV("a"), &values[4]);
    kv_set(&values[12], &a, SV("b"), &values[4]);
    size_t n = sizeof(values) / sizeof(values[0]);
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < n; k++) {
            assert_row(kv_eq(&values[i], &values[k]) == (i == k), i * 100 + k);
        }
        struct kv_value copy = kv_copy(&values[i], &a);
        assert_row(kv_eq(&copy, &values[i]) && kv_hash(&copy) == kv_hash(&values[i]), i);
    }
    struct kv_value minus = kv_number(-0.0);
    assert_int_equal(kv_hash(&minus), kv_hash(&values[3]));
}

static void test_numbers(void **state) {
    (void)state;
    static const struct {
        double d;
        const char *want;
    } cases[] = {{0, "0"},
                 {1, "1"},
                 {-3, "-3"},
                 {1.5, "1.5"},
                 {0.1, "0.1"},
                 {1e300, "1e+300"},
                 {1e20, "100000000000000000000"},
                 {12345678901234567890.0, "12345678901234567168"},
                 {1.0 / 3, "0.3333333333333333"},
                 {1e-7, "1e-07"},
                 {1e21, "1e+21"}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct kv_value v = kv_number(cases[i].d);
        if (strcmp(json(&v), cases[i].want) != 0) {
            fail_msg("row %zu: %s", i, json(&v));
        }
    }
    struct kv_value inf = kv_number(__builtin_inf()), nan = kv_number(__builtin_nan(""));
    assert_string_equal(json(&inf), "\"Infinity\"");
    assert_string_equal(json(&nan), "\"NaN\"");
}

static void test_from_messages(void **state) {
    (void)state;
    struct fake_compile f;
    fake_compile_init(&f, NULL);
    const void *msg = fake_msg(
        &f, "envoy.config.core.v3.Metadata",
        "filter_metadata { key: 'envoy.lb' value { fields { key: 'z' value { number_value: 1.5 } } "
        "fields { key: 'a' value { list_value { values { null_value: NULL_VALUE } values { "
        "bool_value: true } "
        "values { struct_value { } } } } } fields { key: 's' value { string_value: 'q\"' } } "
        "fields { key: 'u' value { } } } }");
    struct kv_metadata *m = kv_metadata_from(msg, &a);
    assert_string_equal(json(at(m, "envoy.lb", NULL, NULL)),
                        "{\"a\":[null,true,{}],\"s\":\"q\\\"\",\"u\":null,\"z\":1.5}");
    assert_null(kv_metadata_from(NULL, &a));
    assert_null(kv_metadata_from(fake_msg(&f, "envoy.config.core.v3.Metadata", ""), &a));
    struct kv_value v = kv_from_value(NULL, &a), s = kv_from_struct(NULL, &a);
    assert_int_equal(v.kind, KV_NULL);
    assert_int_equal(s.kind, KV_STRUCT);
    fake_compile_fini(&f);
}

static void test_filter_state(void **state) {
    (void)state;
    struct filter_state *cx = filter_state_new(&a, NULL), *fs = filter_state_new(&a, cx);
    assert_null(filter_state_get(fs, SV("k")));
    assert_null(filter_state_get(NULL, SV("k")));
    assert_true(
        filter_state_set(cx, SV("k"), SV("of the connection"), NULL, false, FILTER_STATE_LOCAL));
    assert_sv_is(filter_state_text(fs, SV("k")), "of the connection");
    /* what the connection has is not the stream's to change */
    assert_false(filter_state_set(fs, SV("k"), SV("own"), NULL, false, FILTER_STATE_LOCAL));
    assert_sv_is(filter_state_text(fs, SV("k")), "of the connection");
    assert_true(filter_state_set(fs, SV("s"), SV("own"), NULL, true, FILTER_STATE_SHARE_ONCE));
    assert_sv_is(filter_state_text(fs, SV("s")), "own");
    assert_null(filter_state_get(cx, SV("s")));
    /* read-only */
    assert_false(filter_state_set(fs, SV("s"), SV("again"), NULL, false, FILTER_STATE_LOCAL));
    assert_sv_is(filter_state_text(fs, SV("s")), "own");
    assert_int_equal(filter_state_at(fs, 0)->sharing, FILTER_STATE_SHARE_ONCE);
    assert_null(filter_state_at(fs, 1));
    assert_null(filter_state_at(NULL, 0));
    char name[16];
    for (int i = 1; i < FILTER_STATE_MAX; i++) {
        int n = snprintf(name, sizeof(name), "n%d", i);
        assert_true(filter_state_set(fs, sv_from(name, (size_t)n), SV(""), NULL, false,
                                     FILTER_STATE_LOCAL));
    }
    assert_false(filter_state_set(fs, SV("one more"), SV(""), NULL, false, FILTER_STATE_LOCAL));
    assert_true(filter_state_set(fs, SV("n1"), SV("new"), NULL, false, FILTER_STATE_LOCAL));
}

static void test_shared_filter_state(void **state) {
    (void)state;
    struct arena own;
    struct filter_state *cx = filter_state_new(&a, NULL), *fs = filter_state_new(&a, cx);
    struct kv_value number = kv_number(1);
    arena_init(&own, 0);
    assert_null(filter_state_shared(NULL, &own));
    assert_true(filter_state_set(cx, SV("own"), SV("1"), NULL, false, FILTER_STATE_LOCAL));
    assert_null(filter_state_shared(fs, &own));
    assert_true(
        filter_state_set(cx, SV("all"), SV("2"), &number, true, FILTER_STATE_SHARE_TRANSITIVE));
    assert_true(filter_state_set(fs, SV("once"), SV("3"), NULL, false, FILTER_STATE_SHARE_ONCE));
    assert_true(filter_state_set(fs, SV("mine"), SV("4"), NULL, false, FILTER_STATE_LOCAL));
    struct filter_state *next = filter_state_shared(fs, &own);
    assert_null(filter_state_get(next, SV("own")));
    assert_null(filter_state_get(next, SV("mine")));
    assert_sv_is(filter_state_text(next, SV("once")), "3");
    const struct filter_state_object *all = filter_state_get(next, SV("all"));
    assert_true(sv_is(all->text, "2") && all->is_read_only && kv_eq(all->typed, &number));
    assert_ptr_not_equal(all->typed, &number);
    struct filter_state *last = filter_state_shared(next, &own);
    assert_null(filter_state_get(last, SV("once")));
    assert_sv_is(filter_state_text(last, SV("all")), "2");
    arena_fini(&own);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
static const struct kv_metadata *interned(struct arena *own, const char *key, const char *value) {
    struct kv_metadata *m = kv_metadata_new(own);
    struct kv_value v = kv_string(sv_cstr(value));
    kv_metadata_set(m, SV("ns"), sv_cstr(key), &v);
    return kv_metadata_intern(m);
}

static void test_interned(void **state) {
    (void)state;
    struct arena own;
    arena_init(&own, 0);
    assert_null(kv_metadata_intern(NULL));
    kv_metadata_unref(NULL);
    const struct kv_metadata *one = interned(&own, "k", "v"), *same = interned(&own, "k", "v");
    const struct kv_metadata *key = interned(&own, "j", "v"), *value = interned(&own, "k", "w");
    assert_ptr_equal(one, same);
    assert_ptr_not_equal(one, key);
    assert_ptr_not_equal(one, value);
    assert_ptr_equal(kv_metadata_intern(one), one);
    arena_fini(&own); /* it was copied */
    for (unsigned uses = 0; uses < 3; uses++) {
        const struct kv_value *v = kv_metadata_get(one, SV("ns"), (sv[]){SV("k")}, 1);
        assert_true(v && sv_is(v->s, "v"));
        kv_metadata_unref(one);
    }
    kv_metadata_unref(key);
    kv_metadata_unref(value);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_set_and_get),  TEST(test_merge),
        TEST(test_limits),       TEST(test_equality),
        TEST(test_numbers),      TEST(test_from_messages),
        TEST(test_filter_state), TEST(test_shared_filter_state),
        TEST(test_interned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
