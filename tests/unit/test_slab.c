/* Slab: sizes around the classes' edges, contents, growth, reuse, what a thread keeps. */
#include "proxy/base/slab.h"

#include "proxy/base/mem.h"
#include "proxy/base/rand.h"
#include "tests/support/unit.h"

static const size_t sizes[] = {0,   1,   8,   47,  48,   49,   63,   64,   111,   112,
                               113, 240, 944, 945, 1007, 1008, 1009, 1024, 65536, 300000};

static void test_blocks_are_aligned_and_apart(void **state) {
    (void)state;
    unsigned char *p[ARRAY_LEN(sizes)];
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        p[i] = slab_alloc(sizes[i]);
        assert_non_null(p[i]);
        assert_int_equal((uintptr_t)p[i] % 16, 0);
        memset(p[i], (int)i, sizes[i]);
    }
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        for (size_t k = 0; k < sizes[i]; k++) {
            assert_int_equal(p[i][k], i);
        }
        slab_free(p[i]);
    }
    slab_free(NULL);
}

static void test_calloc_zeroes_what_was_used(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        char *p = slab_alloc(sizes[i]);
        memset(p, 0xff, sizes[i]);
        slab_free(p);
        p = slab_calloc(1, sizes[i]);
        for (size_t k = 0; k < sizes[i]; k++) {
            assert_int_equal(p[k], 0);
        }
        slab_free(p);
    }
}

static void test_realloc_keeps_the_bytes(void **state) {
    (void)state;
    char *p = slab_realloc(NULL, 3);
    memcpy(p, "abc", 3);
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        p = slab_realloc(p, sizes[i] < 3 ? 3 : sizes[i]);
        assert_memory_equal(p, "abc", 3);
    }
    p = slab_realloc(p, 3); /* smaller: stays */
    assert_memory_equal(p, "abc", 3);
    slab_free(p);
}

#ifndef MEM_ASAN
static void test_last_freed_is_next_used(void **state) {
    (void)state;
    void *a = slab_alloc(100);
    void *b = slab_alloc(100);
    slab_free(a);
    slab_free(b);
    assert_ptr_equal(slab_alloc(112), b); /* the same class */
    void *c = slab_alloc(113);
    assert_ptr_not_equal(c, a);
    assert_ptr_equal(slab_alloc(65), a);
    slab_free(a);
    slab_free(b);
    slab_free(c);
}
#endif

static void test_a_thread_keeps_so_much(void **state) {
    (void)state;
    enum { BLOCKS = 2 * SLAB_KEEP_BYTES / SLAB_MAX_BYTES };
    void *p[BLOCKS];
    slab_trim();
    for (size_t i = 0; i < BLOCKS; i++) {
        p[i] = slab_alloc(SLAB_MAX_BYTES);
    }
    size_t before = slab_kept_bytes();
    for (size_t i = 0; i < BLOCKS; i++) {
        slab_free(p[i]);
    }
    assert_int_equal(before, 0);
    assert_true(slab_kept_bytes() <= SLAB_KEEP_BYTES);
    slab_trim();
    assert_int_equal(slab_kept_bytes(), 0);
}

static void test_random_mix(void **state) {
    (void)state;
    enum { LIVE = 300, STEPS = 20000 };
    struct rng r;
    rng_seed(&r, 7);
    unsigned char *p[LIVE] = {0};
    size_t n[LIVE] = {0};
    for (unsigned step = 0; step < STEPS; step++) {
        size_t i = rng_below(&r, LIVE);
        for (size_t k = 0; k < n[i]; k++) {
            assert_int_equal(p[i][k], (unsigned char)i);
        }
        slab_free(p[i]);
        n[i] = rng_below(&r, 2000);
        p[i] = slab_alloc(n[i]);
        memset(p[i], (unsigned char)i, n[i]);
    }
    for (size_t i = 0; i < LIVE; i++) {
        slab_free(p[i]);
    }
    slab_trim();
    slab_trim();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blocks_are_aligned_and_apart),
        cmocka_unit_test(test_calloc_zeroes_what_was_used),
        cmocka_unit_test(test_realloc_keeps_the_bytes),
#ifndef MEM_ASAN
        cmocka_unit_test(test_last_freed_is_next_used),
#endif
        cmocka_unit_test(test_a_thread_keeps_so_much),
        cmocka_unit_test(test_random_mix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
