/* YAML documents as trees: each scalar as Envoy 1.40 resolves it, anchors, and what is refused. */
#include "protos/pb_yaml.h"

#include "proxy/base/mem.h"
#include "tests/support/pb.h"

/* The value of {k: TEXT} as compact JSON; NULL when it is refused. Free with free(). */
static char *value_of(struct pb_fixture *f, const char *text) {
    sv doc = arena_printf(&f->a, "k: %s\n", text);
    json_t *tree = pb_yaml_parse(doc, &f->d);
    char *out = tree ? json_dumps(json_object_get(tree, "k"),
                                  JSON_ENCODE_ANY | JSON_COMPACT | JSON_SORT_KEYS)
                     : NULL;
    json_decref(tree);
    return out;
}

static const char *const scalars[][2] = {
    {"true", "true"},
    {"True", "true"},
    {"TRUE", "true"},
    {"yes", "true"},
    {"on", "true"},
    {"y", "true"},
    {"Y", "true"},
    {"off", "false"},
    {"No", "false"},
    {"n", "false"},
    {"tRue", "\"tRue\""},
    {"oN", "\"oN\""},
    {"\"true\"", "\"true\""},
    {"'no'", "\"no\""},
    {"null", "null"},
    {"~", "null"},
    {"Null", "null"},
    {"NULL", "null"},
    {"", "null"},
    {"nuLL", "\"nuLL\""},
    {"'null'", "\"null\""},
    {"\"\"", "\"\""},
    {"5", "5"},
    {"+5", "5"},
    {"-5", "-5"},
    {"-0", "0"},
    {"00", "0"},
    {"010", "8"},
    {"089", "\"089\""},
    {"0o10", "\"0o10\""},
    {"0b11", "\"0b11\""},
    {"0x1F", "31"},
    {"0X1f", "31"},
    {"-0x10", "-16"},
    {"0x", "\"0x\""},
    {"0xg", "\"0xg\""},
    {"0x-1", "\"0x-1\""},
    {"++1", "\"++1\""},
    {"+", "\"+\""},
    {"1_000", "\"1_000\""},
    {"1,000", "\"1,000\""},
    {"5.", "\"5.\""},
    {"1.5", "\"1.5\""},
    {"1e3", "\"1e3\""},
    {".inf", "\".inf\""},
    {"2147483647", "2147483647"},
    {"2147483648", "\"2147483648\""},
    {"-2147483648", "-2147483648"},
    {"-2147483649", "\"-2147483649\""},
    {"0xFFFFFFFF", "\"4294967295\""},
    {"9223372036854775807", "\"9223372036854775807\""},
    {"-9223372036854775808", "\"-9223372036854775808\""},
    {"9223372036854775808", "\"9223372036854775808\""},
    {"18446744073709551615", "\"18446744073709551615\""},
    {"'5'", "\"5\""},
    {"! 5", "\"5\""},
    {"!!str 5", "5"},
    {"!!int \"7\"", "7"},
    {"!!bool \"true\"", "true"},
    {"!!null x", "\"x\""},
    {"!foo bar", "\"bar\""},
    {"2020-01-01", "\"2020-01-01\""},
    {"12:30:45", "\"12:30:45\""},
    {"abc # comment", "\"abc\""},
    {"a#b", "\"a#b\""},
    {"\"a\\tb\\x41\\u00e9\"", "\"a\\tbA\xc3\xa9\""},
    {"'it''s'", "\"it's\""},
    {"|\n  one\n  two", "\"one\\ntwo\\n\""},
    {">-\n  fold\n  ed", "\"fold ed\""},
    {"[1, 'a', [true]]", "[1,\"a\",[true]]"},
    {"{a: {b: 1}}", "{\"a\":{\"b\":1}}"},
    {"\n- 1\n-\n- x", "[1,null,\"x\"]"},
    {"{}", "{}"},
    {"[]", "[]"},
};

static void test_scalars(void **state) {
    struct pb_fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(scalars); i++) {
        char *got = value_of(f, scalars[i][0]);
        assert_row(got != NULL, i);
        assert_string_equal(got, scalars[i][1]);
        free(got);
    }
}

static void test_maps(void **state) {
    struct pb_fixture *f = *state;
    static const char *const rows[][2] = {
        {"{5: a, true: b, ~: c, 1.5: d}",
         "{\"1.5\":\"d\",\"5\":\"a\",\"null\":\"c\",\"true\":\"b\"}"},
        {"{a: 1, a: 2}", "{\"a\":2}"},
        {"{a: 1, !ignore b: 2, !ignore c: {d: e}}", "{\"a\":1}"},
        {"{<<: {a: 1}, b: 2}", "{\"<<\":{\"a\":1},\"b\":2}"},
        {"{\"a b\": 1, '': 2}", "{\"\":2,\"a b\":1}"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *got = value_of(f, rows[i][0]);
        assert_row(got != NULL, i);
        assert_string_equal(got, rows[i][1]);
        free(got);
    }
}

static void test_anchors(void **state) {
    struct pb_fixture *f = *state;
    static const char *const rows[][2] = {
        {"[&a 1, *a]", "[1,1]"},
        {"[&a {x: [1, 2]}, *a]", "[{\"x\":[1,2]},{\"x\":[1,2]}]"},
        {"[&a 1, &a 2, *a]", "[1,2,2]"},
        {"[&a, *a]", "[null,null]"},
        {"[&a [&b x], *b, *a]", "[[\"x\"],\"x\",[\"x\"]]"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char *got = value_of(f, rows[i][0]);
        assert_row(got != NULL, i);
        assert_string_equal(got, rows[i][1]);
        free(got);
    }
}

static void test_refused(void **state) {
    struct pb_fixture *f = *state;
    static const char *const rows[][2] = {
        {"k: *x\n", "yaml: error at line 1, column 4: alias of an unknown anchor"},
        {"k: &a [*a]\n", "yaml: error at line 1, column 8: alias of an unknown anchor"},
        {"a: b: c\n",
         "yaml: error at line 1, column 5: mapping values are not allowed in this context"},
        {"k: {id: a\n", "yaml: error at line 2, column 1: did not find expected ',' or '}'"},
        {"k: \"abc\n", "yaml: error at line 2, column 1: found unexpected end of stream"},
        {"\tk: 1\n",
         "yaml: error at line 1, column 1: found character that cannot start any token"},
        {"? [a]\n: b\n", "yaml: error at line 1, column 3: a key must be a scalar"},
        {"? {a: b}\n: b\n", "yaml: error at line 1, column 3: a key must be a scalar"},
        {"a: &x b\n*x : c\n", "yaml: error at line 2, column 1: alias as a key"},
        {"\"a\\0\": b\n", "yaml: error at line 1, column 1: key is not text"},
        {"k: \xff\n", "yaml: error at line 1, column 1: invalid leading UTF-8 octet"},
        {"", "Unable to convert YAML as JSON: "},
        {"abc", "Unable to convert YAML as JSON: abc"},
        {"--- 5\n", "Unable to convert YAML as JSON: --- 5\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_row(!pb_yaml_parse(sv_cstr(rows[i][0]), &f->d), i);
        assert_errors(f, rows[i][1]);
    }
}

static void test_first_document_only(void **state) {
    struct pb_fixture *f = *state;
    json_t *tree = pb_yaml_parse(SV("a: 1\n---\nb: [\n"), &f->d);
    assert_int_equal(json_integer_value(json_object_get(tree, "a")), 1);
    json_decref(tree);
}

/* Ten aliases of ten aliases of … : 10^9 nodes if they were all written out. */
static void test_alias_bomb(void **state) {
    struct pb_fixture *f = *state;
    struct buf text BUF_AUTO;
    buf_init(&text);
    buf_lit(&text, "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for (int i = 1; i < 9; i++) {
        buf_printf(&text, "a%d: &a%d [", i, i);
        for (int k = 0; k < 10; k++) {
            buf_printf(&text, "%s*a%d", k ? ", " : "", i - 1);
        }
        buf_lit(&text, "]\n");
    }
    assert_null(pb_yaml_parse(buf_pullup(&text, buf_len(&text)), &f->d));
    assert_true(sv_ends(diag_text(&f->d), SV("aliases stand for too many nodes")));
}

static void test_depth(void **state) {
    struct pb_fixture *f = *state;
    char text[2 * PB_YAML_DEPTH_MAX + 2];
    memset(text, '[', PB_YAML_DEPTH_MAX);
    memset(text + PB_YAML_DEPTH_MAX, ']', PB_YAML_DEPTH_MAX);
    json_t *tree = pb_yaml_parse(sv_from(text, 2 * PB_YAML_DEPTH_MAX), &f->d);
    assert_non_null(tree);
    json_decref(tree);
    memset(text, '[', PB_YAML_DEPTH_MAX + 1);
    assert_null(pb_yaml_parse(sv_from(text, PB_YAML_DEPTH_MAX + 1), &f->d));
    assert_errors(f, "yaml: error at line 1, column 101: nested too deeply");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        PB_TEST(test_scalars),
        PB_TEST(test_maps),
        PB_TEST(test_anchors),
        PB_TEST(test_refused),
        PB_TEST(test_first_document_only),
        PB_TEST(test_alias_bomb),
        PB_TEST(test_depth),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
