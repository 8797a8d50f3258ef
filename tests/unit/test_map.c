/* The hash table, beside a plain array; removal while iterating under many seeds. */
#include "proxy/base/map.h"

#include <stdio.h>

#include "proxy/base/rand.h"
#include "tests/support/unit.h"

#define KEYS 200u
static char key_text[KEYS][24];
static int values[2][KEYS]; /* only their addresses matter */

static sv key(size_t i) { return sv_cstr(key_text[i]); }

static int make_keys(void **state) {
    (void)state;
    for (size_t i = 0; i < KEYS; i++) {
        snprintf(key_text[i], sizeof(key_text[i]), "%s%zu", i % 2 ? "" : "cluster-", i);
    }
    return 0;
}

static void test_empty(void **state) {
    (void)state;
    struct map m = MAP_INIT;
    size_t it = 0;
    assert_null(map_get(&m, SV("a")));
    assert_null(map_get_hashed(&m, SV("a"), 0));
    assert_null(map_remove(&m, SV("a")));
    assert_null(map_next(&m, &it));
    map_clear(&m);
    assert_int_equal(map_count(&m), 0);
    map_fini(&m);
    map_fini(&m);
}

static void test_put_get_remove(void **state) {
    (void)state;
    struct map m;
    map_init(&m);
    int one, two;
    assert_null(map_put(&m, SV("k"), &one));
    assert_ptr_equal(map_get(&m, SV("k")), &one);
    assert_ptr_equal(map_get_hashed(&m, SV("k"), sv_hash(SV("k"))), &one);
    assert_null(map_get(&m, SV("")));
    assert_null(map_get(&m, SV("k\0")));
    static const char other_k[] = "k";
    assert_ptr_equal(map_put(&m, sv_cstr(other_k), &two), &one);
    assert_int_equal(map_count(&m), 1);
    size_t it = 0;
    struct map_slot *s = map_next(&m, &it);
    assert_ptr_equal(map_key(s).p, other_k); /* the stored key is the new one */
    assert_ptr_equal(s->value, &two);
    assert_null(map_next(&m, &it));
    assert_null(map_next(&m, &it));
    assert_null(map_put(&m, SV_NULL, &one));
    assert_ptr_equal(map_get(&m, SV("")), &one);
    assert_ptr_equal(map_remove(&m, SV("k")), &two);
    assert_null(map_remove(&m, SV("k")));
    assert_int_equal(map_count(&m), 1);
    map_clear(&m);
    assert_null(map_get(&m, SV("")));
    map_fini(&m);
}

static void test_put_new(void **state) {
    (void)state;
    struct map m = MAP_INIT;
    int one = 1, two = 2;
    char other_k[] = "k";
    assert_null(map_put_new(&m, SV("k"), &one));
    const char *stored = map_next(&m, &(size_t){0})->key_;
    assert_ptr_equal(map_put_new(&m, sv_cstr(other_k), &two), &one);
    assert_ptr_equal(map_get(&m, SV("k")), &one); /* neither value nor key was replaced */
    assert_ptr_equal(map_next(&m, &(size_t){0})->key_, stored);
    assert_int_equal(map_count(&m), 1);
    map_remove(&m, SV("k"));
    assert_null(map_put_new(&m, SV("k"), &two));
    map_fini(&m);
}

static void test_reserve(void **state) {
    (void)state;
    struct map m = MAP_INIT;
    map_reserve(&m, 0);
    assert_null(m.slots_); /* nothing is allocated for nothing */
    for (size_t n = 1; n <= KEYS; n++) {
        map_reserve(&m, n);
        size_t cap = m.cap_;
        for (size_t i = map_count(&m); i < n; i++) {
            assert_null(map_put_new(&m, key(i), &values[0][i]));
        }
        assert_int_equal(m.cap_, cap);
        map_reserve(&m, n / 2); /* never smaller */
        assert_int_equal(m.cap_, cap);
        for (size_t i = 0; i < n; i++) {
            assert_ptr_equal(map_get(&m, key(i)), &values[0][i]);
        }
    }
    map_fini(&m);
}

static void test_random_against_array(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 50; seed++) {
        struct rng r;
        rng_seed(&r, seed);
        sv_hash_seed(seed);
        struct map m = MAP_INIT;
        void *model[KEYS] = {0};
        size_t count = 0, used = 1 + rng_below(&r, KEYS);
        for (int step = 0; step < 2000; step++) {
            size_t i = rng_below(&r, used);
            void *was = model[i];
            if (rng_below(&r, 2)) {
                model[i] = &values[rng_below(&r, 2)][i];
                assert_ptr_equal(map_put(&m, key(i), model[i]), was);
                count += was == NULL;
            } else {
                model[i] = NULL;
                assert_ptr_equal(map_remove(&m, key(i)), was);
                count -= was != NULL;
            }
            assert_int_equal(map_count(&m), count);
            size_t other = rng_below(&r, used);
            assert_ptr_equal(map_get(&m, key(other)), model[other]);
        }
        for (size_t i = 0; i < used; i++) {
            assert_ptr_equal(map_get(&m, key(i)), model[i]);
        }
        map_fini(&m);
    }
}

/* Fill with n keys, walk, and remove about `percent` of them on the way: each is seen exactly
 * once. */
static void walk_removing(uint64_t seed, size_t n, unsigned percent) {
    struct rng r;
    rng_seed(&r, seed);
    sv_hash_seed(seed);
    struct map m = MAP_INIT;
    for (size_t i = 0; i < n; i++) {
        map_put(&m, key(i), &values[0][i]);
    }
    unsigned seen[KEYS] = {0};
    bool is_removed[KEYS] = {false};
    struct map_slot *s;
    for (size_t it = 0; (s = map_next(&m, &it));) {
        size_t i = (size_t)((int *)s->value - values[0]);
        seen[i]++;
        if (rng_below(&r, 100) < percent) {
            is_removed[i] = true;
            map_remove_at(&m, &it);
        }
    }
    for (size_t i = 0; i < n; i++) {
        assert_row(seen[i] == 1, i);
        assert_row((map_get(&m, key(i)) == NULL) == is_removed[i], i);
    }
    map_fini(&m);
}

static void test_remove_while_walking(void **state) {
    (void)state;
    static const unsigned percents[] = {0, 10, 50, 90, 100};
    for (uint64_t seed = 1; seed <= 400; seed++) {
        for (size_t i = 0; i < ARRAY_LEN(percents); i++) {
            walk_removing(seed, 1 + seed % 24, percents[i]); /* small and full: clusters wrap */
        }
        walk_removing(seed, KEYS, 50);
    }
}

static void test_large(void **state) {
    (void)state;
    enum { N = 100000 };
    static uint32_t keys[N];
    struct map m = MAP_INIT;
    for (uint32_t i = 0; i < N; i++) {
        keys[i] = i;
        map_put(&m, sv_from(&keys[i], sizeof(keys[i])), &keys[i]);
    }
    assert_int_equal(map_count(&m), N);
    for (uint32_t i = 0; i < N; i++) {
        assert_ptr_equal(map_get(&m, sv_from(&i, sizeof(i))), &keys[i]);
    }
    map_fini(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_put_get_remove),
        cmocka_unit_test(test_put_new),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_random_against_array),
        cmocka_unit_test(test_remove_while_walking),
        cmocka_unit_test(test_large),
    };
    return cmocka_run_group_tests(tests, make_keys, NULL);
}
