/* The JSON writer: layout, escaping, numbers, depth. */
#include "proxy/base/json.h"

#include <float.h>
#include <math.h>

#include "proxy/base/mem.h"
#include "tests/support/unit.h"

static void assert_written(struct buf *b, const char *want) {
    char *text = buf_dup_str(b);
    assert_string_equal(text, want);
    xfree(text);
    buf_clear(b);
}

static void write_sample(struct json_writer *w) {
    json_obj(w);
    json_key(w, SV("a\"b"));
    json_u64(w, 1);
    json_key(w, SV("list"));
    json_arr(w);
    json_bool(w, true);
    json_put_null(w);
    json_obj(w);
    json_end(w);
    json_arr(w);
    json_end(w);
    json_arr(w);
    json_str(w, SV("x"));
    json_end(w);
    json_end(w);
    json_key(w, SV("raw"));
    json_raw(w, SV("{\"y\":2}"));
    json_end(w);
}

static void test_layout(void **state) {
    (void)state;
    struct buf b BUF_AUTO;
    buf_init(&b);
    struct json_writer w;
    json_begin(&w, &b, 0);
    write_sample(&w);
    assert_written(&b, "{\"a\\\"b\":1,\"list\":[true,null,{},[],[\"x\"]],\"raw\":{\"y\":2}}");
    json_begin(&w, &b, 1);
    write_sample(&w);
    assert_written(
        &b, "{\n \"a\\\"b\": 1,\n \"list\": [\n  true,\n  null,\n  {},\n  [],\n  [\n   \"x\"\n"
            "  ]\n ],\n \"raw\": {\"y\":2}\n}");
    json_begin(&w, &b, 40);
    json_arr(&w);
    json_put_null(&w);
    json_end(&w);
    assert_written(&b, "[\n                                        null\n]");
    json_begin(&w, &b, 1);
    json_str(&w, SV("alone"));
    assert_written(&b, "\"alone\"");
}

static void test_escape(void **state) {
    (void)state;
    static const struct {
        sv text;
        const char *want;
    } rows[] = {
        {SV_INIT(""), ""},
        {{NULL, 0}, ""},
        {SV_INIT("plain /<>&'"), "plain /<>&'"},
        {SV_INIT("\"\\"), "\\\"\\\\"},
        {SV_INIT("\b\f\n\r\t"), "\\b\\f\\n\\r\\t"},
        {SV_INIT("a\0b\x01\x1f\x7f"), "a\\u0000b\\u0001\\u001f\\u007f"},
        {SV_INIT("\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"), "\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80"},
        {SV_INIT("a\xff"
                 "b"),
         "a\xef\xbf\xbd"
         "b"},
        {SV_INIT("\xc3"), "\xef\xbf\xbd"},
        {SV_INIT("\xe2\x82"), "\xef\xbf\xbd\xef\xbf\xbd"},
        {SV_INIT("\xc3\""), "\xef\xbf\xbd\\\""},
        {SV_INIT("\xed\xa0\x80"), "\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf b BUF_AUTO;
        buf_init(&b);
        json_escape(&b, rows[i].text);
        assert_written(&b, rows[i].want);
    }
}

static void test_integers(void **state) {
    (void)state;
    struct buf b BUF_AUTO;
    buf_init(&b);
    struct json_writer w;
    json_begin(&w, &b, 0);
    json_arr(&w);
    json_u64(&w, 0);
    json_u64(&w, UINT64_MAX);
    json_i64(&w, INT64_MIN);
    json_i64(&w, INT64_MAX);
    json_i64(&w, -1);
    json_u64_str(&w, UINT64_MAX);
    json_i64_str(&w, INT64_MIN);
    json_end(&w);
    assert_written(&b, "[0,18446744073709551615,-9223372036854775808,9223372036854775807,-1,"
                       "\"18446744073709551615\",\"-9223372036854775808\"]");
}

static void test_doubles(void **state) {
    (void)state;
    static const struct {
        double v;
        const char *want;
    } rows[] = {
        {0, "0"},
        {-0.0, "-0"},
        {1, "1"},
        {0.1, "0.1"},
        {1.0 / 3, "0.3333333333333333"},
        {0.1 + 0.2, "0.30000000000000004"},
        {1e21, "1e+21"},
        {-2.5e-7, "-2.5e-07"},
        {123456789012345680.0, "1.2345678901234568e+17"},
        {DBL_MAX, "1.7976931348623157e+308"},
        {NAN, "\"NaN\""},
        {INFINITY, "\"Infinity\""},
        {-INFINITY, "\"-Infinity\""},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct buf b BUF_AUTO;
        buf_init(&b);
        struct json_writer w;
        json_begin(&w, &b, 0);
        json_double(&w, rows[i].v);
        assert_written(&b, rows[i].want);
    }
}

/* A control plane may nest more deeply than the writer: the rest is left out, and the text stays
 * JSON. */
static void test_depth_is_bounded(void **state) {
    (void)state;
    struct buf b BUF_AUTO, want BUF_AUTO;
    buf_init(&b);
    buf_init(&want);
    struct json_writer w;
    json_begin(&w, &b, 0);
    enum { DEPTH = JSON_DEPTH_MAX + 50 };
    for (int i = 0; i < DEPTH; i++) {
        json_obj(&w);
        json_key(&w, SV("k"));
    }
    json_put_null(&w);
    for (int i = 0; i < DEPTH; i++) {
        json_end(&w);
    }
    for (int i = 0; i < JSON_DEPTH_MAX; i++) {
        buf_lit(&want, "{\"k\":");
    }
    buf_lit(&want, "null");
    for (int i = 0; i < JSON_DEPTH_MAX; i++) {
        buf_lit(&want, "}");
    }
    char *text = buf_dup_str(&want);
    assert_written(&b, text);
    xfree(text);
}

static void end_too_often(void) {
    struct buf b = {0};
    struct json_writer w;
    json_begin(&w, &b, 0);
    json_end(&w);
}

static void test_misuse_aborts(void **state) {
    (void)state;
    assert_true(aborts(end_too_often));
}

static int free_caches(void **state) {
    (void)state;
    chunk_cache_trim();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layout),           cmocka_unit_test(test_escape),
        cmocka_unit_test(test_integers),         cmocka_unit_test(test_doubles),
        cmocka_unit_test(test_depth_is_bounded), cmocka_unit_test(test_misuse_aborts),
    };
    return cmocka_run_group_tests(tests, NULL, free_caches);
}
