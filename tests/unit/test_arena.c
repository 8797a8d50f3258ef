/* Arenas: alignment, growth, large objects, reset, cleanups, text. */
#include "proxy/base/arena.h"

#include "proxy/base/rand.h"
#include "tests/support/unit.h"

static void test_unused_owns_nothing(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 0);
    assert_int_equal(arena_bytes(&a), 0);
    arena_reset(&a);
    arena_fini(&a);
    arena_fini(&a);
    struct arena zeroed = {0};
    assert_non_null(arena_alloc(&zeroed, 0));
    arena_fini(&zeroed);
}

static void test_objects_are_aligned_and_apart(void **state) {
    (void)state;
    static const size_t block_sizes[] = {0, 1, 128, 1000, 4096, 100000};
    enum { OBJECTS = 2000 };
    struct rng r;
    rng_seed(&r, 1);
    for (size_t i = 0; i < ARRAY_LEN(block_sizes); i++) {
        struct arena a;
        arena_init(&a, block_sizes[i]);
        unsigned char *p[OBJECTS];
        size_t n[OBJECTS];
        for (size_t k = 0; k < OBJECTS; k++) {
            n[k] = rng_below(&r, rng_below(&r, 50) ? 100 : 20000);
            p[k] = arena_alloc(&a, n[k]);
            assert_row((uintptr_t)p[k] % 8 == 0, i);
            memset(p[k], (int)(k & 0xff), n[k]);
        }
        for (size_t k = 0; k < OBJECTS; k++) {
            for (size_t at = 0; at < n[k]; at++) {
                assert_row(p[k][at] == (k & 0xff), i);
            }
        }
        arena_fini(&a);
        assert_row(arena_bytes(&a) == 0, i);
    }
}

static void test_little_is_wasted(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 0);
    for (size_t asked = 0; asked < 10000000; asked += 48) {
        arena_alloc(&a, 48);
        if (asked >= 100000 && asked % 4800 == 0 && !MEM_REDZONE) {
            assert_true(arena_bytes(&a) < asked + asked / 3);
        }
    }
    arena_fini(&a);
}

static void test_large_objects_leave_the_block_in_use(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 4096);
    char *first = arena_alloc(&a, 8);
    memset(arena_alloc(&a, 1000000), 1, 1000000);
    memset(arena_alloc(&a, 5000), 1, 5000);
    char *second = arena_alloc(&a, 8);
    assert_true(second > first && second - first < 100);
    arena_reset(&a);
    assert_int_equal(arena_bytes(&a), 4096);
    arena_fini(&a);
}

static void test_zeroing(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 0);
    memset(arena_alloc(&a, 1000), 0xff, 1000);
    arena_reset(&a);
    const unsigned char *p = arena_zalloc(&a, 500);
    uint64_t *array = arena_new_array(&a, uint64_t, 50);
    struct arena *object = arena_new(&a, struct arena);
    for (size_t i = 0; i < 500; i++) {
        assert_int_equal(p[i], 0);
    }
    assert_int_equal(array[49], 0);
    assert_null(object->head_);
    assert_non_null(arena_new_array(&a, uint64_t, 0));
    arena_fini(&a);
}

static void overflow_array(void) {
    struct arena a;
    arena_init(&a, 0);
    arena_zalloc_array(&a, SIZE_MAX / 4, 8);
}

static void overflow_alloc(void) {
    struct arena a;
    arena_init(&a, 0);
    arena_alloc(&a, 1);
    arena_alloc(&a, SIZE_MAX - 100);
}

static void test_overflow_aborts(void **state) {
    (void)state;
    assert_true(aborts(overflow_array));
    assert_true(aborts(overflow_alloc));
}

static void test_reset_keeps_one_block(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 1024);
    memset(arena_alloc(&a, 100000), 1, 100000); /* a large one first: not what is kept */
    arena_reset(&a);
    assert_int_equal(arena_bytes(&a), 0);
    for (int i = 0; i < 10000; i++) {
        arena_alloc(&a, 16);
    }
    arena_reset(&a);
    assert_int_equal(arena_bytes(&a), 1024);
    arena_alloc(&a, 16);
    assert_int_equal(arena_bytes(&a), 1024);
    arena_fini(&a);
}

static char order[8];
static size_t order_n;
static void note(void *arg) { order[order_n++] = *(const char *)arg; }

static void test_cleanups_run_once_in_reverse(void **state) {
    (void)state;
    static char names[] = "abc";
    struct arena a;
    arena_init(&a, 0);
    order_n = 0;
    for (size_t i = 0; i < 3; i++) {
        arena_on_fini(&a, note, &names[i]);
    }
    arena_reset(&a);
    assert_memory_equal(order, "cba", 3);
    arena_on_fini(&a, note, &names[0]);
    arena_fini(&a);
    arena_fini(&a);
    assert_int_equal(order_n, 4);
}

static void test_text(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 0);
    sv copy = arena_sv(&a, SV("a\0b"));
    assert_int_equal(copy.n, 3);
    assert_memory_equal(copy.p, "a\0b", 4);
    assert_string_equal(arena_cstr(&a, SV_NULL), "");
    assert_sv_is(arena_printf(&a, "%s", ""), "");
    static const int widths[] = {1, 254, 255, 256, 257, 10000};
    for (size_t i = 0; i < ARRAY_LEN(widths); i++) {
        sv s = arena_printf(&a, "%*d", widths[i], 7);
        assert_row(s.n == (size_t)widths[i] && s.p[s.n - 1] == '7' && s.p[s.n] == '\0', i);
    }
    arena_fini(&a);
}

static void keep_a_pointer(void) {
    struct arena kept, scratch;
    arena_init(&kept, 0);
    arena_init(&scratch, 0);
    *(char **)arena_alloc(&kept, sizeof(char *)) = arena_cstr(&scratch, SV("gone soon"));
    arena_check_apart(&kept, &scratch);
}

static void pointers_into_scratch(void **state) {
    (void)state;
    assert_int_equal(aborts(keep_a_pointer), MEM_TELLS_UNUSED);
    struct arena kept, scratch;
    arena_init(&kept, 0);
    arena_init(&scratch, 0);
    *(char **)arena_alloc(&kept, sizeof(char *)) = arena_cstr(&kept, SV("stays"));
    arena_cstr(&scratch, SV("gone soon"));
    arena_check_apart(&kept, &scratch);
    arena_fini(&kept);
    arena_fini(&scratch);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unused_owns_nothing),
        cmocka_unit_test(test_objects_are_aligned_and_apart),
        cmocka_unit_test(test_little_is_wasted),
        cmocka_unit_test(test_large_objects_leave_the_block_in_use),
        cmocka_unit_test(test_zeroing),
        cmocka_unit_test(test_overflow_aborts),
        cmocka_unit_test(test_reset_keeps_one_block),
        cmocka_unit_test(test_cleanups_run_once_in_reverse),
        cmocka_unit_test(test_text),
        cmocka_unit_test(pointers_into_scratch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
