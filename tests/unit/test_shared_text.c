/* Texts that many hold: one copy for equal ones in a row, gone with the last use. */
#include "proxy/base/shared_text.h"
#include "tests/support/unit.h"

static void equal_texts_in_a_row_are_one(void **state) {
    (void)state;
    struct shared_text *last = NULL;
    struct shared_text *a = shared_text_get(&last, SV("7")), *b = shared_text_get(&last, SV("7"));
    assert_string_equal(a->text, "7");
    assert_ptr_equal(a, b);
    struct shared_text *c = shared_text_get(&last, SV("8"));
    assert_string_equal(c->text, "8");
    assert_string_equal(a->text, "7"); /* still held */
    assert_ptr_not_equal(shared_text_get(&last, SV("8")), a);
    shared_text_unref(c);
    shared_text_unref(a);
    shared_text_unref(b);
    shared_text_unref(c);
    assert_string_equal(last->text, "8"); /* the last one is held on its own */
    shared_text_unref(last);
}

static void what_begins_alike_is_not_equal(void **state) {
    (void)state;
    static const char *const texts[] = {"", "a", "ab", "a", ""};
    struct shared_text *last = NULL, *before = NULL;
    for (unsigned i = 0; i < ARRAY_LEN(texts); i++) {
        struct shared_text *t = shared_text_get(&last, sv_cstr(texts[i]));
        assert_string_equal(t->text, texts[i]);
        assert_ptr_not_equal(t, before);
        shared_text_unref(before);
        before = t;
    }
    struct shared_text *null = shared_text_get(&last, SV_NULL);
    assert_ptr_equal(null, before);
    shared_text_unref(null);
    shared_text_unref(before);
    shared_text_unref(last);
    shared_text_unref(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equal_texts_in_a_row_are_one),
        cmocka_unit_test(what_begins_alike_is_not_equal),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
