/* Runtime values: parsing, layers, defaults, fractions, the page; readers beside a publisher. */
#include <pthread.h>
#include <stdio.h>

#include "proxy/base/mem.h"
#include "proxy/base/runtime.h"
#include "tests/support/unit.h"

static struct runtime_layer *base, *admin;
static int setup(void **state) {
    (void)state;
    base = runtime_layer_new(SV("static"));
    admin = runtime_layer_new(SV("admin"));
    return 0;
}
static int teardown(void **state) {
    (void)state;
    runtime_layer_free(base);
    runtime_layer_free(admin);
    runtime_publish(NULL, 0);
    runtime_thread_release();
    chunk_cache_trim();
    return 0;
}
static void publish(void) {
    struct runtime_layer *const layers[] = {base, admin};
    runtime_publish(layers, 2);
}
static void set(struct runtime_layer *l, const char *key, const char *text) {
    assert_true(runtime_layer_set(l, sv_cstr(key), sv_cstr(text)));
}

static void test_types(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t u64;  /* 77: default */
        double number; /* -7: default */
        int boolean;   /* 2: default */
    } cases[] = {
        {"0", 0, 0, 0},
        {"1", 1, 1, 1},
        {" 42 ", 42, 42, 1},
        {"18446744073709551615", UINT64_MAX, 18446744073709551615.0, 1},
        {"18446744073709551616", 77, 18446744073709551616.0, 1},
        {"1.5", 77, 1.5, 1},
        {"-1", 77, -1, 1},
        {"1e3", 1000, 1000, 1},
        {"true", 77, -7, 1},
        {"TRUE", 77, -7, 1},
        {"false", 77, -7, 0},
        {"yes", 77, -7, 2},
        {"", 77, -7, 2},
        {"nan", 77, -7, 2},
        {"inf", 77, -7, 2},
        {"0x10", 77, -7, 2},
        {"{\"numerator\":5}", 77, -7, 2},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        set(base, "k", cases[i].text);
        publish();
        assert_row(runtime_u64(SV("k"), 77) == cases[i].u64, i);
        assert_row(runtime_double(SV("k"), -7) == cases[i].number, i);
        assert_row(runtime_bool(SV("k"), false) == (cases[i].boolean == 1), i);
        assert_row(runtime_bool(SV("k"), true) == (cases[i].boolean != 0), i);
    }
    assert_int_equal(runtime_u64(SV("absent"), 5), 5);
    assert_int_equal(runtime_u64(SV(""), 5), 5);
    assert_true(runtime_bool(SV("absent"), true));
}

static void test_nothing_published(void **state) {
    (void)state;
    runtime_publish(NULL, 0);
    assert_int_equal(runtime_u64(SV("k"), 9), 9);
    assert_false(runtime_has_prefix(SV("")));
    assert_int_equal(runtime_keys(), 0);
}

static void test_layers(void **state) {
    (void)state;
    set(base, "a.b", "3");
    set(base, "d", "1.5");
    set(admin, "a.b", "7");
    set(admin, "x", "y\"");
    publish();
    assert_int_equal(runtime_u64(SV("a.b"), 0), 7);
    assert_int_equal(runtime_keys(), 3);
    assert_int_equal(runtime_layers(), 2);
    BUF_AUTO struct buf b = {0};
    runtime_write_json(&b);
    char *text = buf_dup_str(&b);
    assert_string_equal(text, "{\n \"entries\": {\n  \"a.b\": {\n   \"final_value\": \"7\",\n   "
                              "\"layer_values\": [\n    \"3\",\n    \"7\"\n"
                              "   ]\n  },\n  \"d\": {\n   \"final_value\": \"1.5\",\n   "
                              "\"layer_values\": [\n    \"1.5\",\n    \"\"\n   ]\n"
                              "  },\n  \"x\": {\n   \"final_value\": \"y\\\"\",\n   "
                              "\"layer_values\": [\n    \"\",\n    \"y\\\"\"\n   ]\n  }\n },\n"
                              " \"layers\": [\n  \"static\",\n  \"admin\"\n ]\n}");
    xfree(text);
    assert_true(runtime_layer_remove(admin, SV("a.b")));
    assert_false(runtime_layer_remove(admin, SV("a.b")));
    assert_int_equal(runtime_u64(SV("a.b"), 0), 7); /* not before it is published */
    publish();
    assert_int_equal(runtime_u64(SV("a.b"), 0), 3);
    runtime_layer_clear(base);
    assert_int_equal(runtime_layer_count(base), 0);
    publish();
    assert_int_equal(runtime_u64(SV("a.b"), 0), 0);
    char out[4];
    assert_true(runtime_text(SV("x"), out, sizeof(out)));
    assert_string_equal(out, "y\"");
    assert_false(runtime_text(SV("a.b"), out, sizeof(out)));
    assert_sv_is(runtime_layer_name(admin), "admin");
}

static void test_fraction(void **state) {
    (void)state;
    static const struct {
        const char *text;
        uint64_t random;
        bool want;
    } cases[] = {
        {"0", 0, false},
        {"1", 0, true},
        {"1", 1, false},
        {"100", 99, true},
        {"5000", 99, true}, /* a percentage ends at 100 */
        {"{\"numerator\": 5, \"denominator\": \"TEN_THOUSAND\"}", 10004, true},
        {"{\"numerator\": 5, \"denominator\": \"TEN_THOUSAND\"}", 5, false},
        {"{\"denominator\":\"MILLION\",\"numerator\":3}", 1000002, true},
        {"{\"denominator\":\"MILLION\",\"numerator\":3}", 3, false},
        {"{\"numerator\":50}", 149, true},
        {"{\"numerator\":-1}", 7, false}, /* not a fraction: the default, one in two */
        {"{\"numerator\":-1}", 6, true},
        {"{\"numerator\":99999999999}", 7, false},
        {"{}", 6, true},
        {"text", 7, false},
        {"1.5", 6, true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        set(base, "k", cases[i].text);
        publish();
        assert_row(runtime_fraction(SV("k"), 1, 2, cases[i].random) == cases[i].want, i);
    }
    assert_false(runtime_fraction(SV("absent"), 1, 0, 0)); /* no denominator: never */
    assert_true(runtime_fraction(SV("absent"), 1, 1, 123));
}

static void test_prefix(void **state) {
    (void)state;
    set(base, "upstream.maintenance_mode.c1", "100");
    set(base, "zz", "1");
    publish();
    assert_true(runtime_has_prefix(SV("upstream.maintenance_mode.")));
    assert_true(runtime_has_prefix(SV("z")));
    assert_true(runtime_has_prefix(SV("")));
    assert_false(runtime_has_prefix(SV("upstream.maintenance_mode.c2")));
    assert_false(runtime_has_prefix(SV("zzz")));
    assert_false(runtime_has_prefix(SV("a")));
}

static bool stop;
static void *reader(void *arg) {
    (void)arg;
    uint64_t last = 0, bad = 0;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        uint64_t v = runtime_u64(SV("n"), 0);
        bad += v < last;
        last = v;
    }
    return (void *)(uintptr_t)bad; /* the thread's map goes with it */
}

static void test_readers_beside_publisher(void **state) {
    (void)state;
    pthread_t t[3];
    stop = false;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&t[i], NULL, reader, NULL), 0);
    }
    for (int i = 1; i < 3000; i++) {
        char text[16];
        snprintf(text, sizeof(text), "%d", i);
        set(base, "n", text);
        publish();
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    for (int i = 0; i < 3; i++) {
        void *bad;
        pthread_join(t[i], &bad);
        assert_null(bad);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(test_types),  TEST(test_nothing_published),
        TEST(test_layers), TEST(test_fraction),
        TEST(test_prefix), TEST(test_readers_beside_publisher),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    runtime_thread_release();
    return failed;
}
