/* The RE2 shim: matching, captures, rewriting, errors, hostile input. */
#include "proxy/base/regex.h"

#include <time.h>

#include "proxy/base/mem.h"
#include "tests/support/unit.h"

static struct regex *compile(sv pattern) {
    char err[200] = "";
    struct regex *r = regex_new(pattern.p, pattern.n, err, sizeof(err));
    assert_string_equal(err, "");
    assert_non_null(r);
    return r;
}

static void test_match(void **state) {
    (void)state;
    static const struct {
        sv pattern, text;
        bool full, partial;
    } rows[] = {
        {SV_INIT(""), SV_INIT(""), true, true},
        {SV_INIT(""), SV_INIT("a"), false, true},
        {SV_INIT("/api/.*"), SV_INIT("/api/v1"), true, true},
        {SV_INIT("/api/.*"), SV_INIT("x/api/v1"), false, true},
        {SV_INIT("a|ab"), SV_INIT("ab"), true, true}, /* full match is not first match */
        {SV_INIT("b"), SV_INIT("abc"), false, true},
        {SV_INIT("^b"), SV_INIT("ab"), false, false},
        {SV_INIT("(?i)GET"), SV_INIT("get"), true, true},
        {SV_INIT("a.b"), SV_INIT("a\nb"), false, false},
        {SV_INIT("(?s)a.b"), SV_INIT("a\nb"), true, true},
        {SV_INIT("a.b"), SV_INIT("a\0b"), true, true},
        {SV_INIT("a\0b"), SV_INIT("a\0b"), true, true},
        {SV_INIT("a.b"),
         SV_INIT("a\xc3\xa4"
                 "b"),
         true, true}, /* one character of two bytes */
        {SV_INIT("a.b"),
         SV_INIT("a\xff"
                 "b"),
         false, false}, /* not UTF-8: no character */
        {SV_INIT("a\\Cb"),
         SV_INIT("a\xff"
                 "b"),
         true, true},
        {SV_INIT("\\d{3}"), SV_INIT("12"), false, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct regex *r = compile(rows[i].pattern);
        assert_row(regex_full_match(r, rows[i].text.p, rows[i].text.n) == rows[i].full, i);
        assert_row(regex_partial_match(r, rows[i].text.p, rows[i].text.n) == rows[i].partial, i);
        regex_free(r);
    }
    struct regex *r = compile(SV("a*"));
    assert_true(regex_full_match(r, NULL, 0));
    assert_true(regex_program_size(r) > 0);
    regex_free(r);
    regex_free(NULL);
}

static void test_errors(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *err;
    } rows[] = {
        {"(a", "missing ): (a"},
        {"[", "missing ]: ["},
        {"*", "no argument for repetition operator: *"},
        {"a**", "bad repetition operator: **"},
        {"(?=a)", "invalid perl operator: (?="},
        {"\\1", "invalid escape sequence: \\1"},
        {"x{1001}", "invalid repetition size: {1001}"},
        {"\xff", "invalid UTF-8"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char err[200];
        assert_row(!regex_new(rows[i].pattern, strlen(rows[i].pattern), err, sizeof(err)), i);
        assert_string_equal(err, rows[i].err);
    }
    char small[5];
    assert_null(regex_new("(abc", 4, small, sizeof(small)));
    assert_string_equal(small, "miss");
    assert_null(regex_new("(abc", 4, NULL, 0));
}

static void test_capture(void **state) {
    (void)state;
    struct regex *r = compile(SV("(a)|(b)()"));
    assert_int_equal(regex_groups(r), 3);
    struct regex_cap caps[5];
    assert_true(regex_capture(r, "xxb", 3, caps, 5));
    assert_sv(sv_from(caps[0].p, caps[0].n), SV("b"));
    assert_null(caps[1].p);
    assert_sv(sv_from(caps[2].p, caps[2].n), SV("b"));
    assert_non_null(caps[3].p); /* matched, empty */
    assert_int_equal(caps[3].n, 0);
    assert_null(caps[4].p); /* no such group */
    assert_true(regex_capture(r, "a", 1, caps, 1));
    assert_true(regex_capture(r, "a", 1, NULL, 0));
    assert_false(regex_capture(r, "x", 1, caps, 5));
    regex_free(r);
    r = compile(SV("x*"));
    assert_true(regex_capture(r, NULL, 0, caps, 1));
    assert_non_null(caps[0].p);
    struct regex_cap many[100];
    assert_true(regex_capture(r, "x", 1, many, 100));
    assert_null(many[99].p);
    regex_free(r);
}

static void test_replace(void **state) {
    (void)state;
    static const struct {
        const char *pattern, *rewrite, *text, *want;
    } rows[] = {
        {"b", "x", "abcb", "axcx"},
        {"z", "x", "abc", "abc"},
        {"^/service/([^/]+)(/.*)$", "\\2/instance/\\1", "/service/foo/v1", "/v1/instance/foo"},
        {"(a)(b)?", "<\\0|\\2>", "aab", "<a|><ab|b>"},
        {"b*", "-", "abc", "-a-c-"},
        {"a", "\\\\", "a", "\\"},
        {"a", "", "aaa", ""},
        {"a", "b", "", ""},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct regex *r = compile(sv_cstr(rows[i].pattern));
        size_t n;
        char *got = regex_replace_all(r, rows[i].text, strlen(rows[i].text), rows[i].rewrite,
                                      strlen(rows[i].rewrite), &n);
        assert_non_null(got);
        assert_string_equal(got, rows[i].want);
        assert_row(n == strlen(rows[i].want), i);
        xfree(got);
        regex_free(r);
    }
}

static void test_bad_rewrites(void **state) {
    (void)state;
    static const struct {
        const char *rewrite, *err;
    } rows[] = {
        {"\\2", "Rewrite schema requests 2 matches, but the regexp only has 1 parenthesized "
                "subexpressions."},
        {"\\", "Rewrite schema error: '\\' not allowed at end."},
        {"\\x", "Rewrite schema error: '\\' must be followed by a digit or '\\'."},
    };
    struct regex *r = compile(SV("(a)"));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        char err[200];
        size_t n;
        const char *rewrite = rows[i].rewrite;
        assert_row(!regex_check_rewrite(r, rewrite, strlen(rewrite), err, sizeof(err)), i);
        assert_string_equal(err, rows[i].err);
        assert_row(!regex_replace_all(r, "a", 1, rewrite, strlen(rewrite), &n), i);
    }
    assert_true(regex_check_rewrite(r, "\\1\\0", 4, NULL, 0));
    regex_free(r);
}

/* Backtracking engines need 2^n steps here. */
static void test_linear_time(void **state) {
    (void)state;
    static char text[20000];
    memset(text, 'a', sizeof(text));
    struct regex *r = compile(SV("(a+)+(a+)+b"));
    clock_t before = clock();
    assert_false(regex_full_match(r, text, sizeof(text)));
    assert_false(regex_partial_match(r, text, sizeof(text)));
    assert_true(clock() - before < 5 * CLOCKS_PER_SEC);
    regex_free(r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_match),        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_capture),      cmocka_unit_test(test_replace),
        cmocka_unit_test(test_bad_rewrites), cmocka_unit_test(test_linear_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
