/* The generator: known outputs, ranges, spread, UUIDs. */
#include "proxy/base/rand.h"

#include "tests/support/unit.h"

/* xoshiro256** from the state {1, 2, 3, 4}: the published reference sequence. */
static void test_reference_sequence(void **state) {
    (void)state;
    static const uint64_t want[] = {11520u, 0u, 1509978240u, 1215971899390074240u};
    struct rng r = {{1, 2, 3, 4}};
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        assert_int_equal(rng_u64(&r), want[i]);
    }
}

/* splitmix64 from 0 begins 0xe220a8397b1dcdaf. */
static void test_seed(void **state) {
    (void)state;
    struct rng a, b;
    rng_seed(&a, 0);
    assert_int_equal(a.s[0], 0xe220a8397b1dcdafu);
    rng_seed(&b, 0);
    assert_int_equal(rng_u64(&a), rng_u64(&b));
    rng_seed(&b, 1);
    assert_int_not_equal(rng_u64(&a), rng_u64(&b));
    rng_init(&a);
    rng_init(&b);
    assert_int_not_equal(rng_u64(&a), rng_u64(&b));
}

static void test_below(void **state) {
    (void)state;
    struct rng r;
    rng_seed(&r, 7);
    static const uint64_t limits[] = {1, 2, 3, 100, UINT32_MAX, (uint64_t)1 << 63, UINT64_MAX};
    for (size_t i = 0; i < ARRAY_LEN(limits); i++) {
        for (int k = 0; k < 1000; k++) {
            assert_row(rng_below(&r, limits[i]) < limits[i], i);
        }
    }
    unsigned counts[10] = {0};
    for (int k = 0; k < 100000; k++) {
        counts[rng_below(&r, 10)]++;
    }
    for (size_t i = 0; i < 10; i++) {
        assert_row(counts[i] > 9500 && counts[i] < 10500, i);
    }
}

/* With n = 3 * 2^62 a quarter of the draws must be thrown away; taking them would favour every
 * third value. */
static void test_below_has_no_bias(void **state) {
    (void)state;
    struct rng r;
    rng_seed(&r, 8);
    uint64_t n = (uint64_t)3 << 62;
    unsigned low = 0;
    for (int k = 0; k < 30000; k++) {
        low += rng_below(&r, n) % 3 == 0;
    }
    assert_true(low > 9600 && low < 10400);
}

static void test_unit(void **state) {
    (void)state;
    struct rng r;
    rng_seed(&r, 9);
    double sum = 0;
    for (int k = 0; k < 10000; k++) {
        double v = rng_unit(&r);
        assert_true(v >= 0 && v < 1);
        sum += v;
    }
    assert_true(sum > 4850 && sum < 5150);
}

static void test_bytes(void **state) {
    (void)state;
    unsigned char p[1000] = {0}, zero[1000] = {0};
    rand_bytes(p, 0);
    assert_memory_equal(p, zero, sizeof(p));
    rand_bytes(p, sizeof(p) - 1);
    assert_memory_not_equal(p, zero, sizeof(p));
    assert_int_equal(p[sizeof(p) - 1], 0);
}

static void test_uuid4(void **state) {
    (void)state;
    struct rng r;
    rng_seed(&r, 10);
    char last[36] = {0};
    for (int k = 0; k < 1000; k++) {
        char id[37] = "....................................x";
        rng_uuid4(&r, id);
        assert_int_equal(id[36], 'x');
        for (size_t i = 0; i < 36; i++) {
            bool is_dash = i == 8 || i == 13 || i == 18 || i == 23;
            bool is_hex = ascii_hex(id[i]) >= 0 && ascii_tolower(id[i]) == id[i];
            assert_row(is_dash ? id[i] == '-' : is_hex, i);
        }
        assert_int_equal(id[14], '4');
        assert_non_null(memchr("89ab", id[19], 4));
        assert_memory_not_equal(id, last, 36);
        memcpy(last, id, 36);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_sequence),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_below),
        cmocka_unit_test(test_below_has_no_bias),
        cmocka_unit_test(test_unit),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_uuid4),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
