/* String views: comparison, search, cutting, number parsing, UTF-8, hash. */
#include "proxy/base/sv.h"

#include <math.h>

#include "proxy/base/mem.h"
#include "tests/support/unit.h"

/* A view of exactly n heap bytes, so that a read beyond it is seen by AddressSanitizer. */
static sv exact(const char *text) { return sv_from(xmemdup(text, strlen(text)), strlen(text)); }
static void exact_free(sv s) { xfree((void *)(uintptr_t)s.p); }

static void test_null_views(void **state) {
    (void)state;
    sv null = SV_NULL;
    assert_true(sv_eq(null, SV("")));
    assert_true(sv_eq_nocase(null, null));
    assert_true(sv_starts(null, null) && sv_ends(null, null));
    assert_true(sv_starts(SV("a"), null) && sv_ends(SV("a"), null));
    assert_false(sv_starts(null, SV("a")) || sv_ends(null, SV("a")));
    assert_int_equal(sv_cmp(null, SV("")), 0);
    assert_true(sv_find(null, 'a') == SIZE_MAX && sv_rfind(null, 'a') == SIZE_MAX);
    assert_int_equal(sv_find_sv(null, null), 0);
    assert_true(sv_find_sv(null, SV("a")) == SIZE_MAX);
    assert_int_equal(sv_trim(null).n, 0);
    assert_int_equal(sv_cut(&null, ',').n, 0);
    assert_true(sv_skip(null, 5).p == NULL && sv_sub(null, 1, 1).n == 0);
    assert_true(sv_is_utf8(null));
    assert_int_equal(sv_utf8_seq(null), 0);
    assert_int_equal(sv_hash(null), sv_hash(SV("")));
    assert_sv_is(sv_cstr(NULL), "");
}

static void test_eq_nocase(void **state) {
    (void)state;
    static const struct {
        const char *a, *b;
        bool same;
    } rows[] = {
        {"", "", true},
        {"a", "A", true},
        {"a", "b", false},
        {"a", "aa", false},
        {"Content-Type", "content-type", true},
        {"Content-TypeX", "content-typeY", false},
        {"@", "`", false}, /* differ in the case bit only, yet are no letters */
        {"[", "{", false},
        {"ABCDEFGH", "abcdefgh", true},
        {"ABCDEFG@", "abcdefg`", false},
        {"abcdefghABCDEFGHx", "abcdefghabcdefghX", true},
        {"abcdefghABCDEFGHx", "abcdefghabcdefghY", false},
        {"\xc3\x84", "\xc3\xa4", false}, /* ASCII only */
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        sv a = exact(rows[i].a), b = exact(rows[i].b);
        assert_row(sv_eq_nocase(a, b) == rows[i].same, i);
        assert_row(sv_eq_nocase(b, a) == rows[i].same, i);
        assert_row(sv_starts_nocase(a, b) == rows[i].same, i);
        exact_free(a);
        exact_free(b);
    }
    assert_true(sv_starts_nocase(SV("Bearer xyz"), SV("bearer ")));
    assert_false(sv_starts_nocase(SV("Bear"), SV("bearer ")));
    assert_true(sv_ends_nocase(SV("www.Example.COM"), SV(".example.com")));
    assert_false(sv_ends_nocase(SV("com"), SV("example.com")));
    assert_true(sv_ends_nocase(SV("com"), SV_NULL));
}

static void test_find_and_order(void **state) {
    (void)state;
    assert_int_equal(sv_find(SV("a,b,c"), ','), 1);
    assert_int_equal(sv_rfind(SV("a,b,c"), ','), 3);
    assert_int_equal(sv_find(SV("a\0b"), 'b'), 2);
    assert_int_equal(sv_find_sv(SV("aXaYaYb"), SV("aYb")), 4);
    assert_true(sv_find_sv(SV("ab"), SV("abc")) == SIZE_MAX);
    assert_int_equal(sv_find_sv(SV("ab"), SV("")), 0);
    assert_true(sv_contains(SV("a\0b"), SV("\0b")) && !sv_contains(SV("a"), SV("b")));
    assert_true(sv_cmp(SV("a"), SV("b")) < 0 && sv_cmp(SV("b"), SV("a")) > 0);
    assert_true(sv_cmp(SV("a"), SV("aa")) < 0 && sv_cmp(SV("\xff"), SV("a")) > 0);
    assert_sv_is(sv_sub(SV("abcdef"), 2, 3), "cde");
    assert_sv_is(sv_sub(SV("abc"), 2, SIZE_MAX), "c");
    assert_sv_is(sv_skip(SV("abc"), SIZE_MAX), "");
}

static void test_trim(void **state) {
    (void)state;
    assert_sv_is(sv_trim(SV(" \t a b\t ")), "a b");
    assert_sv_is(sv_trim(SV(" \t ")), "");
    assert_sv_is(sv_trim(SV("\na\r")), "\na\r");
    assert_sv_is(sv_trim(SV("a")), "a");
}

static void test_cut_and_eat(void **state) {
    (void)state;
    sv s = SV("a,,b");
    assert_sv_is(sv_cut(&s, ','), "a");
    assert_sv_is(sv_cut(&s, ','), "");
    assert_sv_is(s, "b");
    assert_sv_is(sv_cut(&s, ','), "b");
    assert_int_equal(s.n, 0);
    assert_sv_is(sv_cut(&s, ','), "");
    s = SV(",");
    assert_sv_is(sv_cut(&s, ','), "");
    assert_int_equal(s.n, 0);
    s = SV("HTTP/1.1");
    assert_false(sv_eat(&s, SV("http")));
    assert_true(sv_eat(&s, SV("HTTP/")));
    assert_true(sv_eat(&s, SV_NULL));
    assert_sv_is(s, "1.1");
    assert_false(sv_eat(&s, SV("1.1.1")));
}

static void test_eat_u64(void **state) {
    (void)state;
    static const struct {
        const char *text;
        unsigned digits_max;
        bool ok;
        uint64_t value;
        const char *rest;
    } rows[] = {
        {"", 5, false, 0, ""},
        {"x", 5, false, 0, "x"},
        {"-1", 5, false, 0, "-1"},
        {" 1", 5, false, 0, " 1"},
        {"0", 1, true, 0, ""},
        {"65535:", 5, true, 65535, ":"},
        {"123456", 5, false, 0, "123456"},
        {"00001", 5, true, 1, ""},
        {"000001", 5, false, 0, "000001"},
        {"18446744073709551615", 20, true, UINT64_MAX, ""},
        {"18446744073709551616", 20, false, 0, "18446744073709551616"},
        {"99999999999999999999", 20, false, 0, "99999999999999999999"},
        {"1", 0, false, 0, "1"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        sv all = exact(rows[i].text), s = all;
        uint64_t v = 77;
        assert_row(sv_eat_u64(&s, rows[i].digits_max, &v) == rows[i].ok, i);
        assert_row(v == (rows[i].ok ? rows[i].value : 77), i);
        assert_sv_is(s, rows[i].rest);
        exact_free(all);
    }
}

static void test_to_integers(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool is_u64, is_i64;
        int64_t value;
    } rows[] = {
        {"", false, false, 0},
        {"-", false, false, 0},
        {"+1", false, false, 0},
        {"0", true, true, 0},
        {"-0", false, true, 0},
        {"--1", false, false, 0},
        {"42", true, true, 42},
        {"42 ", false, false, 0},
        {" 42", false, false, 0},
        {"0x10", false, false, 0},
        {"1e3", false, false, 0},
        {"0000000000000000000000000000000042", true, true, 42},
        {"9223372036854775807", true, true, INT64_MAX},
        {"9223372036854775808", true, false, INT64_MIN},
        {"-9223372036854775808", false, true, INT64_MIN},
        {"-9223372036854775809", false, false, 0},
        {"18446744073709551616", false, false, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        sv s = exact(rows[i].text);
        uint64_t u = 7;
        int64_t v = 7;
        assert_row(sv_to_u64(s, &u) == rows[i].is_u64, i);
        assert_row(u == (rows[i].is_u64 ? (uint64_t)rows[i].value : 7), i);
        assert_row(sv_to_i64(s, &v) == rows[i].is_i64, i);
        assert_row(v == (rows[i].is_i64 ? rows[i].value : 7), i);
        exact_free(s);
    }
}

static void test_to_double(void **state) {
    (void)state;
    static const struct {
        const char *text;
        bool ok;
        double value;
    } rows[] = {
        {"0", true, 0},         {"1.5", true, 1.5},  {"-1.5e3", true, -1500}, {"+2", true, 2},
        {".5", true, 0.5},      {"5.", true, 5},     {"1E-2", true, 0.01},    {"1e-999", true, 0},
        {"1e308", true, 1e308}, {"1e309", false, 0}, {"-1e999", false, 0},    {"", false, 0},
        {".", false, 0},        {"-", false, 0},     {"e5", false, 0},        {"1e", false, 0},
        {"1e+", false, 0},      {"inf", false, 0},   {"nan", false, 0},       {"0x1p3", false, 0},
        {" 1", false, 0},       {"1 ", false, 0},    {"1,5", false, 0},       {"1.2.3", false, 0},
        {"1e5.5", false, 0},    {"+-1", false, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        sv s = exact(rows[i].text);
        double v = 7;
        assert_row(sv_to_double(s, &v) == rows[i].ok, i);
        assert_row(v == (rows[i].ok ? rows[i].value : 7), i);
        exact_free(s);
    }
    char digits[500];
    memset(digits, '0', sizeof(digits));
    double v;
    assert_true(sv_to_double(sv_from(digits, 400), &v));
    assert_false(sv_to_double(sv_from(digits, 401), &v));
}

static void test_ascii(void **state) {
    (void)state;
    for (int c = 0; c < 256; c++) {
        int lower = c >= 'A' && c <= 'Z' ? c + 32 : c;
        assert_int_equal((unsigned char)ascii_tolower((char)c), lower);
        bool is_alpha = lower >= 'a' && lower <= 'z';
        bool is_digit = c >= '0' && c <= '9';
        assert_int_equal(ascii_isalnum((char)c), is_alpha || is_digit);
        assert_int_equal(ascii_isdigit((char)c), is_digit);
        int hex = is_digit ? c - '0' : lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : -1;
        assert_int_equal(ascii_hex((char)c), hex);
    }
}

static void test_utf8(void **state) {
    (void)state;
    static const struct {
        const char *text;
        unsigned seq; /* of the first character */
        bool ok;      /* of the whole */
    } rows[] = {
        {"a", 1, true},
        {"\x7f", 1, true},
        {"\xc2\x80", 2, true},
        {"\xdf\xbf", 2, true},
        {"\xe0\xa0\x80", 3, true},
        {"\xed\x9f\xbf", 3, true},
        {"\xee\x80\x80", 3, true},
        {"\xef\xbf\xbf", 3, true},
        {"\xf0\x90\x80\x80", 4, true},
        {"\xf4\x8f\xbf\xbf", 4, true},
        {"12345678\xc3\xa4"
         "12345678",
         1, true},
        {"\x80", 0, false},
        {"\xbf", 0, false},
        {"\xc0\x80", 0, false}, /* overlong */
        {"\xc1\xbf", 0, false},
        {"\xe0\x9f\xbf", 0, false},
        {"\xf0\x8f\xbf\xbf", 0, false},
        {"\xed\xa0\x80", 0, false}, /* surrogates */
        {"\xed\xbf\xbf", 0, false},
        {"\xf4\x90\x80\x80", 0, false}, /* beyond U+10FFFF */
        {"\xf5\x80\x80\x80", 0, false},
        {"\xff", 0, false},
        {"\xc2", 0, false}, /* cut short */
        {"\xe1\x80", 0, false},
        {"\xf1\x80\x80", 0, false},
        {"\xe1\x80q", 0, false},
        {"\xf1\x80\x80q", 0, false},
        {"\xc2q", 0, false},
        {"12345678\xc3", 1, false},
        {"1234567\xc3"
         "12345678",
         1, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        sv s = exact(rows[i].text);
        assert_row(sv_utf8_seq(s) == rows[i].seq, i);
        assert_row(sv_is_utf8(s) == rows[i].ok, i);
        exact_free(s);
    }
    assert_true(sv_is_utf8(SV("a\0b")));
}

static void test_dup(void **state) {
    (void)state;
    char *copy = sv_dup(SV("a\0b"));
    assert_memory_equal(copy, "a\0b", 4);
    xfree(copy);
    copy = sv_dup(SV_NULL);
    assert_string_equal(copy, "");
    xfree(copy);
}

static void test_hash(void **state) {
    (void)state;
    uint64_t drawn = sv_hash(SV("key"));
    assert_int_equal(sv_hash(SV("key")), drawn);
    sv_hash_seed(1);
    uint64_t first = sv_hash(SV("key"));
    sv_hash_seed(2);
    assert_int_not_equal(sv_hash(SV("key")), first);
    sv_hash_seed(1);
    assert_int_equal(sv_hash(SV("key")), first);
    assert_int_not_equal(sv_hash(SV("kez")), first);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_null_views),
        cmocka_unit_test(test_eq_nocase),
        cmocka_unit_test(test_find_and_order),
        cmocka_unit_test(test_trim),
        cmocka_unit_test(test_cut_and_eat),
        cmocka_unit_test(test_eat_u64),
        cmocka_unit_test(test_to_integers),
        cmocka_unit_test(test_to_double),
        cmocka_unit_test(test_ascii),
        cmocka_unit_test(test_utf8),
        cmocka_unit_test(test_dup),
        cmocka_unit_test(test_hash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
