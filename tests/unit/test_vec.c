/* Typed growable arrays, and the allocation beneath. */
#include "proxy/base/vec.h"

#include "tests/support/unit.h"

static void test_push_grows_zeroed(void **state) {
    (void)state;
    VEC(int) v = {0};
    for (int i = 0; i < 1000; i++) {
        int *item = vec_push(&v);
        assert_int_equal(*item, 0);
        *item = i;
    }
    assert_int_equal(v.n, 1000);
    assert_true(v.cap >= v.n && v.cap < 2 * v.n);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(v.p[i], i);
    }
    vec_clear(&v);
    assert_int_equal(*vec_push(&v), 0); /* zeroed again */
    vec_fini(&v);
    assert_null(v.p);
    vec_fini(&v);
}

static void test_remove(void **state) {
    (void)state;
    VEC(char) v = {0};
    for (char c = 'a'; c <= 'e'; c++) {
        *vec_push(&v) = c;
    }
    vec_remove(&v, 1);
    assert_sv(sv_from(v.p, v.n), SV("acde"));
    vec_remove(&v, 3);
    vec_remove(&v, 0);
    assert_sv(sv_from(v.p, v.n), SV("cd"));
    *vec_push(&v) = 'x';
    vec_swap_remove(&v, 0);
    assert_sv(sv_from(v.p, v.n), SV("xd"));
    vec_swap_remove(&v, 1);
    assert_int_equal(vec_pop(&v), 'x');
    assert_int_equal(v.n, 0);
    vec_fini(&v);
}

static void test_reserve(void **state) {
    (void)state;
    VEC(struct { char text[100]; }) v = {0};
    size_t none = 0;
    vec_reserve(&v, none);
    assert_null(v.p);
    vec_reserve(&v, 10);
    assert_int_equal(v.cap, 10);
    const void *p = v.p;
    vec_reserve(&v, 5);
    assert_ptr_equal(v.p, p);
    vec_fini(&v);
}

static void reserve_too_much(void) {
    VEC(uint64_t) v = {0};
    vec_reserve(&v, SIZE_MAX / 4);
}
static void allocate_too_much(void) { xalloc(SIZE_MAX / 2); }
static void zero_too_much(void) { xcalloc(SIZE_MAX / 2, 4); }

static void test_overflow_aborts(void **state) {
    (void)state;
    assert_true(aborts(reserve_too_much));
    assert_true(aborts(zero_too_much));
#if !defined(MEM_ASAN) && !defined(__SANITIZE_THREAD__) /* they end the process in their own way */
    assert_true(aborts(allocate_too_much));
#else
    (void)allocate_too_much;
#endif
}

static void test_heap_edges(void **state) {
    (void)state;
    void *p = xalloc(0);
    assert_non_null(p);
    p = xrealloc(p, 0);
    assert_non_null(p);
    xfree(p);
    p = xcalloc(0, 5);
    assert_non_null(p);
    xfree(p);
    p = xmemdup(NULL, 0);
    assert_non_null(p);
    xfree(p);
    xfree(NULL);
    char *s = xstrdup("");
    assert_string_equal(s, "");
    xfree(s);
    mem_trim();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_push_grows_zeroed), cmocka_unit_test(test_remove),
        cmocka_unit_test(test_reserve),           cmocka_unit_test(test_overflow_aborts),
        cmocka_unit_test(test_heap_edges),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
