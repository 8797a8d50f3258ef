/* Paths: a table of what Envoy 1.40 makes of them under each setting, then queries, escapes and
 * authorities. */
#include "proxy/http/path.h"
#include "tests/support/unit.h"

enum { NORM, NORM_MERGE, UNESCAPE, UNESCAPE_MERGE, ONLY_MERGE, ONLY_UNESCAPE, SETTINGS };
static const struct {
    bool normalise, merge;
    enum escaped_slashes slashes;
} settings[SETTINGS] = {
    [NORM] = {true, false, ESCAPED_SLASHES_KEEP},
    [NORM_MERGE] = {true, true, ESCAPED_SLASHES_KEEP},
    [UNESCAPE] = {true, false, ESCAPED_SLASHES_UNESCAPE_FORWARD},
    [UNESCAPE_MERGE] = {true, true, ESCAPED_SLASHES_UNESCAPE_FORWARD},
    [ONLY_MERGE] = {false, true, ESCAPED_SLASHES_KEEP},
    [ONLY_UNESCAPE] = {false, false, ESCAPED_SLASHES_UNESCAPE_FORWARD},
};

/* As answered by Envoy 1.40. NULL: unchanged; "!": refused. */
static const struct {
    const char *path;
    const char *want[SETTINGS];
} rows[] = {
    {"/", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a/", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a/b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/./a", {"/a", "/a", "/a", "/a", NULL, NULL}},
    {"/a/.", {"/a/", "/a/", "/a/", "/a/", NULL, NULL}},
    {"/a/..", {"/", "/", "/", "/", NULL, NULL}},
    {"/a/./b", {"/a/b", "/a/b", "/a/b", "/a/b", NULL, NULL}},
    {"/a/../b", {"/b", "/b", "/b", "/b", NULL, NULL}},
    {"/../a", {"/a", "/a", "/a", "/a", NULL, NULL}},
    {"/../../a/..", {"/", "/", "/", "/", NULL, NULL}},
    {"/a/b/../..", {"/", "/", "/", "/", NULL, NULL}},
    {"/a/b/../../", {"/", "/", "/", "/", NULL, NULL}},
    {"/a/.../b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a/..b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a/b..", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/.a", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/..a", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/...", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a/%2e/b", {"/a/b", "/a/b", "/a/b", "/a/b", NULL, NULL}},
    {"/a/%2E%2E/b", {"/b", "/b", "/b", "/b", NULL, NULL}},
    {"/a/.%2e/b", {"/b", "/b", "/b", "/b", NULL, NULL}},
    {"/a/%2e./b", {"/b", "/b", "/b", "/b", NULL, NULL}},
    {"/%2e", {"/", "/", "/", "/", NULL, NULL}},
    {"/%2e%2e", {"/", "/", "/", "/", NULL, NULL}},
    {"/a/%2e%2e", {"/", "/", "/", "/", NULL, NULL}},
    {"/%2e%2e/%2e%2e/x", {"/x", "/x", "/x", "/x", NULL, NULL}},
    {"//a", {NULL, "/a", NULL, "/a", "/a", NULL}},
    {"///a//b", {NULL, "/a/b", NULL, "/a/b", "/a/b", NULL}},
    {"/a//../b", {"/a/b", "/a/b", "/a/b", "/a/b", "/a/../b", NULL}},
    {"/a//..//b", {"/a//b", "/a/b", "/a//b", "/a/b", "/a/../b", NULL}},
    {"/a///..", {"/a//", "/a/", "/a//", "/a/", "/a/..", NULL}},
    {"//..//a", {"//a", "/a", "//a", "/a", "/../a", NULL}},
    {"/a/b//..", {"/a/b/", "/a/b/", "/a/b/", "/a/b/", "/a/b/..", NULL}},
    {"/\\a", {"//a", "/a", "//a", "/a", NULL, NULL}},
    {"/a\\b", {"/a/b", "/a/b", "/a/b", "/a/b", NULL, NULL}},
    {"/a\\..\\b", {"/b", "/b", "/b", "/b", NULL, NULL}},
    {"/..\\a", {"/a", "/a", "/a", "/a", NULL, NULL}},
    {"/a%5Cb", {NULL, NULL, "/a/b", "/a/b", NULL, "/a\\b"}},
    {"/a%5c..%5cb", {NULL, NULL, "/b", "/b", NULL, "/a\\..\\b"}},
    {"/a%2Fb", {NULL, NULL, "/a/b", "/a/b", NULL, "/a/b"}},
    {"/a%2fb", {NULL, NULL, "/a/b", "/a/b", NULL, "/a/b"}},
    {"/%2F", {NULL, NULL, "//", "//", NULL, "//"}},
    {"/%2f%2F", {NULL, NULL, "///", "//", NULL, "///"}},
    {"/a%2F..%2Fb", {NULL, NULL, "/b", "/b", NULL, "/a/../b"}},
    {"/a/%2F../b", {NULL, NULL, "/a/b", "/a/b", NULL, "/a//../b"}},
    {"/a%2F%2Fb", {NULL, NULL, "/a//b", "/a/b", NULL, "/a//b"}},
    {"/..%2Fa", {NULL, NULL, "/a", "/a", NULL, "/../a"}},
    {"/a/..%2Fb", {NULL, NULL, "/b", "/b", NULL, "/a/../b"}},
    {"/a%2Fb?c%2Fd", {NULL, NULL, "/a/b?c%2Fd", "/a/b?c%2Fd", NULL, "/a/b?c%2Fd"}},
    {"/a?b=../c", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a?x=%2e%2e", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a?b/../c", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a/..?b", {"/?b", "/?b", "/?b", "/?b", NULL, NULL}},
    {"/a/b/../c?d", {"/a/c?d", "/a/c?d", "/a/c?d", "/a/c?d", NULL, NULL}},
    {"/%41", {"/A", "/A", "/A", "/A", NULL, NULL}},
    {"/%61%62", {"/ab", "/ab", "/ab", "/ab", NULL, NULL}},
    {"/%7e", {"/~", "/~", "/~", "/~", NULL, NULL}},
    {"/%7E", {"/~", "/~", "/~", "/~", NULL, NULL}},
    {"/%2D", {"/-", "/-", "/-", "/-", NULL, NULL}},
    {"/%5f", {"/_", "/_", "/_", "/_", NULL, NULL}},
    {"/%30", {"/0", "/0", "/0", "/0", NULL, NULL}},
    {"/%20", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%21", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%24", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%3a", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%40", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%25", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%252e", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%2", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a%", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%zz", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%2g", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%0a", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%0d", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%01", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%7f", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%80", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%ff", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%c3%a9", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%C3%A9", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%00", {"!", "!", "!", "!", NULL, NULL}},
    {"/a%00", {"!", "!", "!", "!", NULL, NULL}},
    {"/a/%00/b", {"!", "!", "!", "!", NULL, NULL}},
    {"/a/../%00", {"!", "!", "!", "!", NULL, NULL}},
    {"/a?%00", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a;b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a;b/../c", {"/c", "/c", "/c", "/c", NULL, NULL}},
    {"/a:b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a@b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a!b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a$b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a&b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a'b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a(b)", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a*b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a+b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a,b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a=b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/[a]", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a|b", {"/a%7Cb", "/a%7Cb", "/a%7Cb", "/a%7Cb", NULL, NULL}},
    {"/a^b", {"/a%5Eb", "/a%5Eb", "/a%5Eb", "/a%5Eb", NULL, NULL}},
    {"/a~b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a-b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a_b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/{a}", {"/%7Ba%7D", "/%7Ba%7D", "/%7Ba%7D", "/%7Ba%7D", NULL, NULL}},
    {"/`a", {"/%60a", "/%60a", "/%60a", "/%60a", NULL, NULL}},
    {"/\"a\"", {"/%22a%22", "/%22a%22", "/%22a%22", "/%22a%22", NULL, NULL}},
    {"/<a>", {"/%3Ca%3E", "/%3Ca%3E", "/%3Ca%3E", "/%3Ca%3E", NULL, NULL}},
    {"/a%3Fb", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a%23b", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a%2e", {"/a.", "/a.", "/a.", "/a.", NULL, NULL}},
    {"/a.%2e", {"/a..", "/a..", "/a..", "/a..", NULL, NULL}},
    {"/%2e%2e%2f", {"/..%2f", "/..%2f", "/", "/", NULL, "/%2e%2e/"}},
    {"/a/..%5cb", {NULL, NULL, "/b", "/b", NULL, "/a/..\\b"}},
    {"/a/./../b", {"/b", "/b", "/b", "/b", NULL, NULL}},
    {"/./../a/./", {"/a/", "/a/", "/a/", "/a/", NULL, NULL}},
    {"/a/b/c/../../d", {"/a/d", "/a/d", "/a/d", "/a/d", NULL, NULL}},
    {"/a/b/c/./../../g", {"/a/g", "/a/g", "/a/g", "/a/g", NULL, NULL}},
    {"/..", {"/", "/", "/", "/", NULL, NULL}},
    {"/.", {"/", "/", "/", "/", NULL, NULL}},
    {"/./", {"/", "/", "/", "/", NULL, NULL}},
    {"/../", {"/", "/", "/", "/", NULL, NULL}},
    {"/a/b/./", {"/a/b/", "/a/b/", "/a/b/", "/a/b/", NULL, NULL}},
    {"/a/b/../", {"/a/", "/a/", "/a/", "/a/", NULL, NULL}},
    {"//./a", {"//a", "/a", "//a", "/a", "/./a", NULL}},
    {"//../a", {"/a", "/a", "/a", "/a", "/../a", NULL}},
    {"/a/../..//b", {"//b", "/b", "//b", "/b", "/a/../../b", NULL}},
    {"/?a", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a?", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/a?\?", {NULL, NULL, NULL, NULL, NULL, NULL}},
    {"/%2f..%2fb", {NULL, NULL, "/b", "/b", NULL, "//../b"}},
    {"/a%5c%2fb", {NULL, NULL, "/a//b", "/a/b", NULL, "/a\\/b"}},
    {"/%2e%2e%5ca", {"/..%5ca", "/..%5ca", "/a", "/a", NULL, "/%2e%2e\\a"}},
    {"/%5C%5C", {NULL, NULL, "///", "//", NULL, "/\\\\"}},
    {"/%5c", {NULL, NULL, "//", "//", NULL, "/\\"}},
    {"/a%2fb/../c", {"/c", "/c", "/a/c", "/a/c", NULL, "/a/b/../c"}},
    {"/a//b%2f%2fc", {NULL, "/a/b%2f%2fc", "/a//b//c", "/a/b/c", "/a/b%2f%2fc", "/a//b//c"}},
    {"/a%2f/b", {NULL, NULL, "/a//b", "/a/b", NULL, "/a//b"}},
    {"/a/%2fb", {NULL, NULL, "/a//b", "/a/b", NULL, "/a//b"}},
    {"//%2f", {NULL, "/%2f", "///", "//", "/%2f", "///"}},
    {"/a//?x//y", {NULL, "/a/?x//y", NULL, "/a/?x//y", "/a/?x//y", NULL}},
    {"/a%5c?b%5c", {NULL, NULL, "/a/?b%5c", "/a/?b%5c", NULL, "/a\\?b%5c"}},
    {"/A/%2E%2e/B", {"/B", "/B", "/B", "/B", NULL, NULL}},
    {"/%2E/a", {"/a", "/a", "/a", "/a", NULL, NULL}},
    {"/%2fa", {NULL, NULL, "//a", "/a", NULL, "//a"}},
    {"/a/.%2E", {"/", "/", "/", "/", NULL, NULL}},
    {"/x/%5c../y", {NULL, NULL, "/x/y", "/x/y", NULL, "/x/\\../y"}},
    {"/x/%5c%2e%2e/y", {"/x/%5c../y", "/x/%5c../y", "/x/y", "/x/y", NULL, "/x/\\%2e%2e/y"}},
};

static void check_path(const char *path, unsigned setting, const char *want, size_t row) {
    struct arena a;
    arena_init(&a, 0);
    sv p = sv_cstr(path);
    enum path_result r = path_normalise(&p, settings[setting].normalise, settings[setting].merge,
                                        settings[setting].slashes, &a);
    if (want && strcmp(want, "!") == 0) {
        assert_row(r == PATH_REJECT, row);
    } else if (want) {
        assert_sv_is(p, want);
        assert_row(r == PATH_CHANGED, row);
    } else {
        assert_sv_is(p, path);
        assert_row(r == PATH_OK, row);
    }
    arena_fini(&a);
}

static void test_as_envoy(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        for (unsigned k = 0; k < SETTINGS; k++) {
            check_path(rows[i].path, k, rows[i].want[k], i);
        }
    }
}

/* Normal form is a fixed point, and nothing escapes the root. */
static void test_idempotent(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct arena a;
        arena_init(&a, 0);
        sv p = sv_cstr(rows[i].path);
        if (path_normalise(&p, true, true, ESCAPED_SLASHES_UNESCAPE_FORWARD, &a) != PATH_REJECT) {
            sv again = p;
            assert_row(path_normalise(&again, true, true, ESCAPED_SLASHES_KEEP, &a) == PATH_OK, i);
            sv part = path_without_query(p);
            assert_row(!sv_contains(part, SV("/../")) && !sv_ends(part, SV("/..")), i);
            assert_row(!sv_contains(part, SV("//")) || sv_is(part, "//"), i);
        }
        arena_fini(&a);
    }
}

/* REJECT refuses and REDIRECT redirects exactly when there is an escaped slash. */
static void test_escaped_slash_actions(void **state) {
    (void)state;
    static const struct {
        const char *path, *redirect;
    } cases[] = {
        {"/a%2Fb", "/a/b"},  {"/a%2fb?c%2Fd", "/a/b?c%2Fd"},
        {"/a%5Cb", "/a/b"},  {"/a%5c..%5cb", "/b"},
        {"/%2e%2e%2f", "/"}, {"/a%2F..%2Fb", "/b"},
        {"/a/b", NULL},      {"/a?%2f", NULL},
        {"/a%2", NULL},      {"/a%25", NULL},
        {"/a%252f", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct arena a;
        arena_init(&a, 0);
        sv p = sv_cstr(cases[i].path);
        enum path_result r = path_normalise(&p, true, false, ESCAPED_SLASHES_REJECT, &a);
        assert_row(r == (cases[i].redirect ? PATH_REJECT : PATH_OK), i);
        p = sv_cstr(cases[i].path);
        r = path_normalise(&p, true, false, ESCAPED_SLASHES_UNESCAPE_REDIRECT, &a);
        assert_row(r == (cases[i].redirect ? PATH_REDIRECT : PATH_OK), i);
        assert_sv_is(p, cases[i].redirect ? cases[i].redirect : cases[i].path);
        arena_fini(&a);
    }
}

static void test_refused(void **state) {
    (void)state;
    static const sv bad[] = {SV_INIT("/a\0b"),     SV_INIT("/a#b"),          SV_INIT("/\xff"),
                             SV_INIT("/\xc3"),     SV_INIT("/\xed\xa0\x80"), SV_INIT("/%00"),
                             SV_INIT("/a/%00/.."), SV_INIT("/\xc0\xaf")};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct arena a;
        arena_init(&a, 0);
        sv p = bad[i];
        assert_row(path_normalise(&p, true, true, ESCAPED_SLASHES_KEEP, &a) == PATH_REJECT, i);
        arena_fini(&a);
    }
}

static void test_only_slashes(void **state) {
    (void)state;
    static const char *const all[] = {"//", "///", "////////"};
    for (size_t i = 0; i < ARRAY_LEN(all); i++) {
        check_path(all[i], NORM_MERGE, i ? "//" : NULL, i);
    }
}

/* Decoding must not make an escape out of pieces: what comes next would decode it. */
static void test_no_double_decoding(void **state) {
    (void)state;
    static const char *const same[] = {"/%%32e%%32e/a", "/a/%%32e/b", "/%2%65%2%65/", "/%%32"};
    for (size_t i = 0; i < ARRAY_LEN(same); i++) {
        check_path(same[i], NORM, NULL, i);
    }
    check_path("/%25%32e", NORM, "/%252e", 0);
    check_path("/%2F%32e", NORM, "/%2F2e", 1);
    check_path("/%%32%65", NORM, "/%%32e", 2);
}

static void test_left_alone(void **state) {
    (void)state;
    static const char *const other[] = {"*", "", "?a", "a/../b", "http://h/../x"};
    for (size_t i = 0; i < ARRAY_LEN(other); i++) {
        sv p = sv_cstr(other[i]);
        assert_row(path_normalise(&p, true, true, ESCAPED_SLASHES_REJECT, NULL) == PATH_OK, i);
        assert_sv_is(p, other[i]);
    }
}

static void test_utf8_is_escaped(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 0);
    sv p = SV("/\xc3\xa9?\xc3");
    assert_int_equal(path_normalise(&p, true, false, ESCAPED_SLASHES_KEEP, &a), PATH_CHANGED);
    assert_sv_is(p, "/%C3%A9?\xc3");
    arena_fini(&a);
}

/* --- queries --- */

static void test_query(void **state) {
    (void)state;
    static const struct {
        const char *path, *bare, *query;
    } cases[] = {
        {"/a", "/a", NULL},      {"/a?", "/a", ""},     {"/a?b", "/a", "b"},
        {"/a?b?c", "/a", "b?c"}, {"/a?b#c", "/a", "b"}, {"/a#c", "/a", NULL},
        {"/a#c?d", "/a", NULL},  {"", "", NULL},        {"?x", "", "x"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_sv_is(path_without_query(sv_cstr(cases[i].path)), cases[i].bare);
        sv q = path_query(sv_cstr(cases[i].path));
        assert_row((q.p != NULL) == (cases[i].query != NULL), i);
        assert_sv_is(q, cases[i].query ? cases[i].query : "");
    }
}

static void test_query_get(void **state) {
    (void)state;
    static const struct {
        const char *query, *key, *want;
    } cases[] = {
        {"a=1&b=2", "a", "1"}, {"a=1&b=2", "b", "2"}, {"a=1&b=2", "c", NULL},
        {"a&b=2", "a", ""},    {"a=&b", "a", ""},     {"aa=1", "a", NULL},
        {"a=1&a=2", "a", "1"}, {"", "a", NULL},       {"&&a=x&", "a", "x"},
        {"a=b=c", "a", "b=c"}, {"=x", "", "x"},       {"a%3D=1", "a=", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        sv v = query_get(sv_cstr(cases[i].query), sv_cstr(cases[i].key));
        assert_row((v.p != NULL) == (cases[i].want != NULL), i);
        assert_sv_is(v, cases[i].want ? cases[i].want : "");
    }
}

static void test_percent(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 0);
    static const char *const decode[][2] = {{"abc", "abc"}, {"a%20b", "a b"}, {"%", "%"},
                                            {"%4", "%4"},   {"%zz", "%zz"},   {"%41%", "A%"},
                                            {"", ""},       {"%2541", "%41"}};
    for (size_t i = 0; i < ARRAY_LEN(decode); i++) {
        assert_sv_is(percent_decode(sv_cstr(decode[i][0]), &a), decode[i][1]);
    }
    assert_sv_is(percent_encode(SV("a b%c\x01\xff"), " %", &a), "a%20b%25c%01%FF");
    assert_sv_is(percent_encode(SV("abc"), "", &a), "abc");
    arena_fini(&a);
}

/* --- authorities --- */

static void test_authority(void **state) {
    (void)state;
    static const struct {
        const char *authority, *host;
        int port;
    } cases[] = {
        {"a", "a", -1},
        {"a:80", "a", 80},
        {"a:", "a:", -1},
        {"a:b", "a:b", -1},
        {"[::1]", "[::1]", -1},
        {"[::1]:80", "[::1]", 80},
        {"::1", "::1", -1},
        {"a:0", "a", 0},
        {"a:65535", "a", 65535},
        {"a:65536", "a", -1},
        {"a:99999999999999999999", "a", -1},
        {"", "", -1},
        {":80", "", 80},
        {"a:8 0", "a:8 0", -1},
        {"u@h:80", "u@h", 80},
        {"a:b:80", "a:b:80", -1},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        uint16_t port = 0;
        sv authority = sv_cstr(cases[i].authority);
        assert_sv_is(host_without_port(authority), cases[i].host);
        assert_row(host_port(authority, &port) == (cases[i].port >= 0), i);
        assert_row(cases[i].port < 0 || port == cases[i].port, i);
    }
}

static void test_authority_characters(void **state) {
    (void)state;
    static const char *const good[] = {"",    "a",   "a.b-c_d~e", "a:80",       "[::1]:80",
                                       "u@a", "a,b", "a%20b",     "A!$&'()*+;="};
    static const char *const bad[] = {"a b",   "a/b",      "a?b",  "a#b",   "a\\b",
                                      "\"a\"", "{a}",      "<a>",  "a|b",   "a^b",
                                      "a`b",   "\xc3\xa9", "a\tb", "a\x7f", "a\x01"};
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        assert_row(authority_valid(sv_cstr(good[i])), i);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        assert_row(!authority_valid(sv_cstr(bad[i])), i);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_envoy),
        cmocka_unit_test(test_idempotent),
        cmocka_unit_test(test_escaped_slash_actions),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_left_alone),
        cmocka_unit_test(test_only_slashes),
        cmocka_unit_test(test_no_double_decoding),
        cmocka_unit_test(test_utf8_is_escaped),
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_query_get),
        cmocka_unit_test(test_percent),
        cmocka_unit_test(test_authority),
        cmocka_unit_test(test_authority_characters),
    };
    return cmocka_run_group_tests_name("path", tests, NULL, NULL);
}
