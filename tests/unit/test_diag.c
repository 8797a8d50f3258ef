/* Configuration errors: paths, wording, limits. */
#include "proxy/base/diag.h"

#include "tests/support/unit.h"

static struct diag d;

static int start(void **state) {
    (void)state;
    diag_init(&d);
    return 0;
}

static int end(void **state) {
    (void)state;
    diag_fini(&d);
    chunk_cache_trim();
    return 0;
}

static bool compile_filter(size_t i) {
    DIAG_FIELD(&d, "filters[%zu]", i);
    DIAG_FIELD(&d, "typed_config");
    DIAG_FIELD(&d, "stat_prefix");
    return diag_error(&d, "value length must be at least %d", 1);
}

static void test_paths(void **state) {
    (void)state;
    assert_true(diag_ok(&d));
    assert_sv_is(diag_text(&d), "");
    {
        DIAG_FIELD(&d, "filter_chains");
        DIAG_FIELD(&d, "[%d]", 2);
        assert_false(compile_filter(0));
        assert_sv_is(diag_path(&d), "filter_chains[2]");
    }
    assert_sv_is(diag_path(&d), "");
    diag_error(&d, "unknown cluster '%.*s'", SV_ARG(SV("a")));
    assert_sv_is(
        diag_text(&d),
        "filter_chains[2].filters[0].typed_config.stat_prefix: value length must be at least 1; "
        "unknown cluster 'a'");
    assert_int_equal(diag_errors(&d), 2);
    assert_false(diag_ok(&d));
}

static void test_index_first(void **state) {
    (void)state;
    DIAG_FIELD(&d, "[%d]", 0);
    DIAG_FIELD(&d, "name");
    assert_sv_is(diag_path(&d), "[0].name");
}

static void test_reset(void **state) {
    (void)state;
    diag_push(&d, "left open");
    diag_error(&d, "x");
    diag_warn(&d, "y");
    diag_reset(&d);
    assert_true(diag_ok(&d));
    assert_null(diag_warnings(&d));
    assert_sv_is(diag_path(&d), "");
    diag_error(&d, "z");
    assert_sv_is(diag_text(&d), "z");
    assert_sv_is(diag_text(&d), "z"); /* asking again changes nothing */
}

static void test_errors_beyond_the_limit_are_counted(void **state) {
    (void)state;
    for (int i = 0; i < DIAG_ERRORS_MAX + 7; i++) {
        assert_false(diag_error(&d, "e%d", i));
    }
    assert_int_equal(diag_errors(&d), DIAG_ERRORS_MAX + 7);
    sv text = diag_text(&d);
    assert_true(sv_starts(text, SV("e0; e1; ")));
    assert_true(sv_ends(text, SV("; e19 (and 7 more)")));
}

static void test_texts_are_bounded(void **state) {
    (void)state;
    diag_error(&d, "%*d", DIAG_TEXT_MAX + 1, 0); /* too long by itself */
    assert_int_equal(diag_errors(&d), 1);
    assert_sv_is(diag_text(&d), "(and 1 more)");
    diag_error(&d, "%*d", 40000, 0);
    diag_error(&d, "%*d", 40000, 0);
    diag_error(&d, "short");
    assert_int_equal(diag_errors(&d), 4);
    assert_true(diag_text(&d).n < DIAG_TEXT_MAX);
    assert_true(sv_ends(diag_text(&d), SV("0; short (and 2 more)")));
}

static void test_long_paths_are_cut(void **state) {
    (void)state;
    size_t lens[200];
    for (size_t i = 0; i < ARRAY_LEN(lens); i++) {
        lens[i] = diag_push(&d, "nested_field_%zu", i);
    }
    assert_int_equal(diag_path(&d).n, DIAG_PATH_MAX - 1);
    diag_error(&d, "too deep");
    assert_int_equal(diag_text(&d).n, DIAG_PATH_MAX - 1 + strlen(": too deep"));
    for (size_t i = ARRAY_LEN(lens); i-- > 0;) {
        diag_pop(&d, lens[i]);
    }
    assert_sv_is(diag_path(&d), "");
    diag_push(&d, "%*d", 5000, 1);
    assert_int_equal(diag_path(&d).n, DIAG_PATH_MAX - 1);
}

static void test_warnings(void **state) {
    (void)state;
    assert_null(diag_warnings(&d));
    {
        DIAG_FIELD(&d, "http2_options");
        diag_warn(&d, "'%s' has no effect", "hpack_table_size");
    }
    diag_warn(&d, "second");
    const struct diag_warning *w = diag_warnings(&d);
    assert_sv_is(w->text, "http2_options: 'hpack_table_size' has no effect");
    assert_sv_is(w->next->text, "second");
    assert_null(w->next->next);
    assert_true(diag_ok(&d));
    for (int i = 0; i < 1000; i++) {
        diag_warn(&d, "w");
    }
    size_t n = 0;
    for (w = diag_warnings(&d); w; w = w->next) {
        n++;
    }
    assert_int_equal(n, DIAG_WARNINGS_MAX);
    diag_error(&d, "still told");
    assert_sv_is(diag_text(&d), "still told");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_paths, start, end),
        cmocka_unit_test_setup_teardown(test_index_first, start, end),
        cmocka_unit_test_setup_teardown(test_reset, start, end),
        cmocka_unit_test_setup_teardown(test_errors_beyond_the_limit_are_counted, start, end),
        cmocka_unit_test_setup_teardown(test_texts_are_bounded, start, end),
        cmocka_unit_test_setup_teardown(test_long_paths_are_cut, start, end),
        cmocka_unit_test_setup_teardown(test_warnings, start, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
