/* Header blocks: ids of names, validation against a plain model, editing. */
#include "proxy/http/headers.h"

#include "proxy/base/mem.h"
#include "proxy/base/rand.h"
#include "tests/support/unit.h"

static const sv all_names[] = {
#define X(id, name) SV_INIT(name),
    HEADER_IDS(X)
#undef X
};

/* --- names --- */

static void test_ids(void **state) {
    (void)state;
    for (unsigned i = 0; i < ARRAY_LEN(all_names); i++) {
        enum header_id id = header_id_of(all_names[i]);
        assert_row(id == i + 1, i);
        assert_sv(header_name(id), all_names[i]);
    }
}

static void test_unknown_names(void **state) {
    (void)state;
    static const char *const unknown[] = {"",
                                          "x",
                                          "te2",
                                          "hos",
                                          "hostt",
                                          "Host",
                                          "HOST",
                                          "content-lengt",
                                          "content-length ",
                                          "x-request-idx",
                                          ":pathx",
                                          "\xff",
                                          "connectiom"};
    for (size_t i = 0; i < ARRAY_LEN(unknown); i++) {
        assert_row(header_id_of(sv_cstr(unknown[i])) == HDR_OTHER, i);
    }
    for (unsigned i = 0; i < ARRAY_LEN(all_names);
         i++) { /* one letter changed, one cut, one added */
        char name[128];
        size_t n = all_names[i].n;
        memcpy(name, all_names[i].p, n);
        for (size_t k = 0; k < n; k++) {
            char old = name[k];
            name[k] = '~';
            assert_row(header_id_of(sv_from(name, n)) == HDR_OTHER, i);
            name[k] = old;
        }
        name[n] = '~';
        assert_row(header_id_of(sv_from(name, n + 1)) == HDR_OTHER, i);
    }
    char huge[70000];
    memset(huge, 'a', sizeof(huge));
    assert_int_equal(header_id_of(sv_from(huge, sizeof(huge))), HDR_OTHER);
}

static bool model_token(unsigned char c) {
    return c && (ascii_isalnum((char)c) || strchr("!#$%&'*+-.^_`|~", c)) && c < 0x80;
}

static void test_normalise_every_byte(void **state) {
    (void)state;
    for (unsigned c = 0; c < 256; c++) {
        char name[] = {'A', (char)c, 'B'};
        enum header_id id = HDR_COUNT;
        bool ok = header_name_normalise(name, sizeof(name), &id);
        assert_row(ok == model_token((unsigned char)c), c);
        if (ok) {
            assert_row(name[0] == 'a' && name[2] == 'b' && name[1] == ascii_tolower((char)c) &&
                           id == HDR_OTHER,
                       c);
        }
        char one[] = {'x', (char)c};
        bool is_lower = c < 'A' || c > 'Z';
        assert_row(
            header_name_valid(sv_from(one, 2)) == (model_token((unsigned char)c) && is_lower), c);
        assert_row(header_is_token(sv_from(one, 2)) == model_token((unsigned char)c), c);
        enum header_id scanned;
        assert_row(header_name_scan(one, 2, &scanned) == (model_token((unsigned char)c) ? 2u : 1u),
                   c);
    }
    char host[] = "HoSt";
    enum header_id id;
    assert_true(header_name_normalise(host, 4, &id));
    assert_int_equal(id, HDR_host);
    assert_false(header_name_normalise(host, 0, &id));
    assert_false(header_name_valid(SV("")));
    assert_false(header_is_token(SV("")));
}

static void test_scan_stops(void **state) {
    (void)state;
    char line[] = "Content-Type: text";
    enum header_id id;
    assert_int_equal(header_name_scan(line, sizeof(line) - 1, &id), 12);
    assert_int_equal(id, HDR_content_type);
    assert_memory_equal(line, "content-type: text", 18);
}

static bool model_value(unsigned char c) { return c == '\t' || (c >= 0x20 && c != 0x7f); }

/* Every byte at every place of values of every length around the 8-byte steps. */
static void test_values(void **state) {
    (void)state;
    char v[40];
    for (size_t n = 0; n <= 33; n++) {
        memset(v, 'a', sizeof(v));
        assert_row(header_value_valid(sv_from(v, n)), n);
        for (size_t at = 0; at < n; at++) {
            for (unsigned c = 0; c < 256; c++) {
                v[at] = (char)c;
                assert_row(header_value_valid(sv_from(v, n)) == model_value((unsigned char)c), c);
            }
            v[at] = '\t'; /* a harmless one must not hide a bad one beside it */
            if (at + 1 < n) {
                v[at + 1] = 0;
                assert_row(!header_value_valid(sv_from(v, n)), at);
                v[at + 1] = 'a';
            }
            v[at] = 'a';
        }
    }
}

/* --- blocks --- */

static struct arena arena;
static int make_arena(void **state) {
    (void)state;
    arena_init(&arena, 0);
    return 0;
}
static int drop_arena(void **state) {
    (void)state;
    arena_fini(&arena);
    return 0;
}

static uint32_t sum(const struct headers *h) {
    uint32_t n = 0;
    HEADERS_FOREACH (it, h) {
        n += (uint32_t)(it->name.n + it->value.n);
    }
    return n;
}

static void test_add_get(void **state) {
    (void)state;
    struct headers h;
    headers_init(&h, &arena);
    assert_null(headers_get(&h, HDR_host).p);
    assert_null(headers_find_name(&h, SV("x")));
    assert_true(headers_add_id(&h, HDR_host, SV("a")));
    assert_true(headers_add_copy(&h, SV("x-y"), SV("1")));
    assert_true(headers_add_copy(&h, SV("x-y"), SV("2")));
    assert_true(headers_add(&h, HDR_via, SV("via"), SV("")));
    assert_sv_is(headers_get(&h, HDR_host), "a");
    assert_sv_is(headers_get_name(&h, SV("host")), "a");
    assert_sv_is(headers_get_name(&h, SV("x-y")), "1");
    assert_non_null(headers_get(&h, HDR_via).p);
    assert_true(headers_has(&h, HDR_via));
    assert_false(headers_has(&h, HDR_te));
    assert_null(headers_get_name(&h, SV("x-z")).p);
    assert_int_equal(headers_count(&h), 4);
    assert_int_equal(h.bytes, sum(&h));
}

static void test_set_replaces_all(void **state) {
    (void)state;
    struct headers h;
    headers_init(&h, &arena);
    for (unsigned i = 0; i < 3; i++) {
        headers_add_id(&h, HDR_accept, SV("old"));
        headers_add_copy(&h, SV("x-y"), SV("old"));
    }
    headers_set(&h, HDR_accept, SV("new"));
    headers_set_name(&h, SV("x-y"), SV("newer"));
    headers_set(&h, HDR_te, SV("t"));
    headers_set_name(&h, SV("x-z"), SV("z"));
    assert_int_equal(headers_count(&h), 4);
    assert_int_equal(h.bytes, sum(&h));
    assert_sv_is(headers_get(&h, HDR_accept), "new");
    assert_sv_is(headers_get_name(&h, SV("x-y")), "newer");
    assert_sv_is(headers_get(&h, HDR_te), "t");
}

static void test_remove(void **state) {
    (void)state;
    struct headers h;
    headers_init(&h, &arena);
    headers_add_id(&h, HDR_accept, SV("1"));
    headers_add_copy(&h, SV("x-a"), SV("2"));
    headers_add_copy(&h, SV("x-b"), SV("3"));
    headers_add_id(&h, HDR_accept, SV("4"));
    assert_int_equal(headers_remove(&h, HDR_accept), 2);
    assert_int_equal(headers_remove(&h, HDR_accept), 0);
    assert_int_equal(headers_remove(&h, HDR_OTHER), 0);
    assert_false(headers_has(&h, HDR_accept));
    assert_int_equal(headers_remove_name(&h, SV("x-a")), 1);
    assert_int_equal(headers_remove_name(&h, SV("x-nope")), 0);
    headers_add_id(&h, HDR_x_envoy_internal, SV("5"));
    headers_add_copy(&h, SV("x-envoyish"), SV("6"));
    assert_int_equal(headers_remove_prefix(&h, SV("x-envoy-")), 1);
    assert_int_equal(headers_count(&h), 2);
    assert_int_equal(h.bytes, sum(&h));
    headers_add_id(&h, HDR_accept, SV("7"));
    assert_sv_is(headers_get(&h, HDR_accept), "7");
}

static void test_append_and_join(void **state) {
    (void)state;
    struct headers h;
    headers_init(&h, &arena);
    headers_append(&h, HDR_via, SV("a"));
    headers_append(&h, HDR_via, SV("b"));
    assert_sv_is(headers_get(&h, HDR_via), "a, b");
    headers_add_id(&h, HDR_te, SV(""));
    headers_append(&h, HDR_te, SV("x"));
    assert_sv_is(headers_get(&h, HDR_te), "x");
    assert_null(headers_joined(&h, HDR_accept, SV_NULL, &arena).p);
    headers_add_id(&h, HDR_accept, SV("1"));
    assert_sv_is(headers_joined(&h, HDR_accept, SV_NULL, &arena), "1");
    headers_add_id(&h, HDR_accept, SV(""));
    headers_add_id(&h, HDR_accept, SV("3"));
    assert_sv_is(headers_joined(&h, HDR_accept, SV_NULL, &arena), "1,,3");
    headers_add_copy(&h, SV("x-q"), SV("m"));
    headers_add_copy(&h, SV("x-q"), SV("n"));
    assert_sv_is(headers_joined(&h, HDR_OTHER, SV("x-q"), &arena), "m,n");
    assert_sv_is(headers_joined(&h, HDR_OTHER, SV("via"), &arena), "a, b");
    assert_int_equal(h.bytes, sum(&h));
}

static void test_limit_and_growth(void **state) {
    (void)state;
    struct headers h;
    headers_init(&h, &arena);
    for (unsigned i = 0; i < HEADERS_MAX; i++) {
        assert_true(headers_add_id(&h, i % 2 ? HDR_accept : HDR_via, SV("v")));
    }
    assert_false(headers_add_id(&h, HDR_via, SV("v")));
    assert_int_equal(headers_count(&h), HEADERS_MAX);
    assert_int_equal(headers_remove(&h, HDR_accept), HEADERS_MAX / 2);
    assert_true(headers_add_id(&h, HDR_te, SV("v"))); /* holes are room again */
    assert_int_equal(headers_count(&h), HEADERS_MAX / 2 + 1);
    assert_int_equal(h.removed, 0);
}

static void test_status(void **state) {
    (void)state;
    static const struct {
        const char *text;
        unsigned code;
    } cases[] = {{"200", 200}, {"999", 999}, {"099", 0}, {"20", 0},
                 {"2000", 0},  {"2x0", 0},   {"", 0},    {"-20", 0}};
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct headers h;
        headers_init(&h, &arena);
        assert_row(headers_status(&h) == 0, i);
        headers_add_id(&h, HDR_status, sv_cstr(cases[i].text));
        assert_row(headers_status(&h) == cases[i].code, i);
    }
    struct headers h;
    headers_init(&h, &arena);
    static const unsigned codes[] = {100, 200, 204, 404, 503, 599, 999};
    for (size_t i = 0; i < ARRAY_LEN(codes); i++) {
        headers_set_status(&h, codes[i]);
        assert_row(headers_status(&h) == codes[i] && headers_count(&h) == 1, i);
    }
}

static void test_copy_is_deep(void **state) {
    (void)state;
    struct arena other;
    arena_init(&other, 0);
    struct headers a, b;
    headers_init(&a, &other);
    headers_init(&b, &arena);
    headers_add_copy(&a, SV("x-a"), SV("1"));
    headers_add_copy(&a, SV("gone"), SV("1"));
    headers_add_id(&a, HDR_authorization, SV("secret"));
    a.v[2].flags |= HEADER_SENSITIVE | HEADER_CASE_KEPT;
    headers_remove_name(&a, SV("gone"));
    headers_copy(&b, &a);
    arena_fini(&other);
    assert_int_equal(headers_count(&b), 2);
    assert_sv_is(headers_get_name(&b, SV("x-a")), "1");
    assert_int_equal(headers_find(&b, HDR_authorization)->flags, HEADER_SENSITIVE);
}

/* Random editing beside a plain list. */
static void test_random_editing(void **state) {
    (void)state;
    struct rng r;
    rng_seed(&r, 7);
    static const enum header_id ids[] = {HDR_accept, HDR_via, HDR_te, HDR_cookie};
    struct headers h;
    headers_init(&h, &arena);
    unsigned count[ARRAY_LEN(ids)] = {0};
    for (unsigned step = 0; step < 5000; step++) {
        unsigned k = (unsigned)rng_below(&r, ARRAY_LEN(ids));
        switch (rng_below(&r, 4)) {
        case 0:
        case 1:
            count[k] += headers_add_id(&h, ids[k], SV("v"));
            break;
        case 2:
            assert_true(headers_set(&h, ids[k], SV("w")) || count[k] == 0);
            count[k] = headers_has(&h, ids[k]);
            break;
        default:
            assert_int_equal(headers_remove(&h, ids[k]), count[k]);
            count[k] = 0;
        }
        assert_int_equal(headers_count(&h), count[0] + count[1] + count[2] + count[3]);
        assert_int_equal(h.bytes, sum(&h));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ids),
        cmocka_unit_test(test_unknown_names),
        cmocka_unit_test(test_normalise_every_byte),
        cmocka_unit_test(test_scan_stops),
        cmocka_unit_test(test_values),
        cmocka_unit_test_setup_teardown(test_add_get, make_arena, drop_arena),
        cmocka_unit_test_setup_teardown(test_set_replaces_all, make_arena, drop_arena),
        cmocka_unit_test_setup_teardown(test_remove, make_arena, drop_arena),
        cmocka_unit_test_setup_teardown(test_append_and_join, make_arena, drop_arena),
        cmocka_unit_test_setup_teardown(test_limit_and_growth, make_arena, drop_arena),
        cmocka_unit_test_setup_teardown(test_status, make_arena, drop_arena),
        cmocka_unit_test_setup_teardown(test_copy_is_deep, make_arena, drop_arena),
        cmocka_unit_test_setup_teardown(test_random_editing, make_arena, drop_arena),
    };
    return cmocka_run_group_tests_name("headers", tests, NULL, NULL);
}
