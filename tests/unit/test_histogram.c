/* Histograms: bins, quantiles and sums as a real Envoy shows them; intervals; concurrent
 * readers. */
#include <math.h>
#include <pthread.h>

#include "proxy/stats/histogram.h"
#include "tests/support/unit.h"

static struct histogram *make(const uint64_t *v, size_t n) {
    struct histogram *h = histogram_new();
    for (size_t i = 0; i < n; i++) {
        histogram_record(h, v[i]);
    }
    return h;
}
#define MAKE(...)                         \
    make((const uint64_t[]){__VA_ARGS__}, \
         sizeof((const uint64_t[]){__VA_ARGS__}) / sizeof(uint64_t))

/* Samples with the figures that Envoy 1.40 printed for them. */
static void test_quantiles_as_envoy(void **state) {
    (void)state;
    static const double q[] = {0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1};
    struct {
        struct histogram *h;
        double want[10];
    } cases[] = {
        {MAKE(0, 0, 0, 0, 1, 1, 1, 1, 1),
         {0, 0, 1.0166666666666666, 1.05, 1.0833333333333333, 1.0833333333333333,
          1.0833333333333333, 1.0833333333333333, 1.0833333333333333, 1.0833333333333333}},
        {MAKE(0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 6),
         {0, 0, 1.0285714285714285, 1.0714285714285714, 1.0857142857142856, 6.05, 6.05, 6.05, 6.05,
          6.05}},
        {MAKE(2, 2, 2), {2.025, 2.025, 2.05, 2.075, 2.075, 2.075, 2.075, 2.075, 2.075, 2.075}},
        {MAKE(1, 2, 2, 2, 2, 2, 2, 2, 2, 3),
         {1.05, 2.022222222222222, 2.0444444444444443, 2.077777777777778, 2.088888888888889, 3.05,
          3.05, 3.05, 3.05, 3.05}},
        {MAKE(1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 8),
         {1.025, 2.0125, 2.05, 3.025, 3.075, 8.05, 8.05, 8.05, 8.05, 8.05}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        double got[10];
        histogram_quantiles(cases[i].h, q, 10, got);
        for (size_t k = 0; k < 10; k++) {
            assert_row(fabs(got[k] - cases[i].want[k]) < 1e-12, i);
            assert_row(histogram_quantile(cases[i].h, q[k]) == got[k], i);
        }
        histogram_free(cases[i].h);
    }
}

static void test_sum(void **state) {
    (void)state;
    struct histogram *h = MAKE(1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 6);
    assert_true(fabs(histogram_sum(h) - 18.574557740854857) < 1e-12);
    histogram_free(h);
    h = MAKE(0, 0);
    assert_true(histogram_sum(h) == 0);
    assert_int_equal(histogram_count(h), 2);
    histogram_free(h);
}

static void test_empty(void **state) {
    (void)state;
    struct histogram *h = histogram_new();
    struct histogram_bin b;
    unsigned pos = 0;
    assert_true(isnan(histogram_quantile(h, 0.5)));
    assert_true(histogram_sum(h) == 0);
    assert_int_equal(histogram_count(h), 0);
    assert_int_equal(histogram_count_below(h, 1e9), 0);
    assert_false(histogram_next(h, &pos, &b));
    histogram_free(h);
    histogram_free(NULL);
}

static void test_bins(void **state) {
    (void)state;
    static const struct {
        uint64_t value;
        double lower, width;
    } cases[] = {
        {0, 0, 0},      {1, 1, 0.1},       {9, 9, 0.1},           {10, 10, 1},
        {11, 11, 1},    {99, 99, 1},       {100, 100, 10},        {109, 100, 10},
        {110, 110, 10}, {1234, 1200, 100}, {999999, 990000, 1e4}, {UINT64_MAX, 1.8e19, 1e18},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct histogram *h = make(&cases[i].value, 1);
        struct histogram_bin b;
        unsigned pos = 0;
        assert_row(histogram_next(h, &pos, &b), i);
        assert_row(fabs(b.lower - cases[i].lower) <= cases[i].lower * 1e-12, i);
        assert_row(fabs(b.width - cases[i].width) <= cases[i].width * 1e-12, i);
        assert_row(b.count == 1, i);
        assert_row(!histogram_next(h, &pos, &b), i);
        histogram_free(h);
    }
}

static void test_count_below(void **state) {
    (void)state;
    struct histogram *h = MAKE(0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 2, 6);
    static const double bounds[] = {0.5, 1, 5, 10};
    static const uint64_t want[] = {3, 12, 13, 14};
    for (size_t i = 0; i < 4; i++) {
        assert_row(histogram_count_below(h, bounds[i]) == want[i], i);
    }
    assert_int_equal(histogram_count_below(h, -1), 0);
    histogram_free(h);
}

static void test_merge_and_interval(void **state) {
    (void)state;
    struct histogram *a = MAKE(1, 20, 300), *b = MAKE(1, 4000), *before = histogram_new(),
                     *now = histogram_new(), *interval = histogram_new();
    histogram_merge(before, a);
    histogram_merge(now, a);
    histogram_merge(now, b);
    assert_int_equal(histogram_count(now), 5);
    histogram_copy_sub(interval, now, before);
    assert_int_equal(histogram_count(interval), 2);
    assert_int_equal(histogram_count_below(interval, 1), 1);
    histogram_copy_sub(interval, now, NULL); /* the first interval */
    assert_int_equal(histogram_count(interval), 5);
    histogram_copy_sub(interval, now, now);
    assert_int_equal(histogram_count(interval), 0);
    assert_true(isnan(histogram_quantile(interval, 1)));
    histogram_clear(now);
    assert_int_equal(histogram_count(now), 0);
    histogram_free(a);
    histogram_free(b);
    histogram_free(before);
    histogram_free(now);
    histogram_free(interval);
}

#define WRITES 200000u
static void *reader(void *arg) {
    const struct histogram *h = arg;
    uint64_t last = 0;
    while (last < WRITES) {
        struct histogram *sum = histogram_new();
        histogram_merge(sum, h);
        if (histogram_count(sum) < last) {
            histogram_free(sum);
            return (void *)1;
        }
        last = histogram_count(sum);
        histogram_free(sum);
    }
    return NULL;
}

static void test_reader_beside_writer(void **state) {
    (void)state;
    struct histogram *h = histogram_new();
    pthread_t t;
    assert_int_equal(pthread_create(&t, NULL, reader, h), 0);
    for (uint64_t i = 0; i < WRITES; i++) {
        histogram_record(h, i * 7919);
    }
    void *bad;
    pthread_join(t, &bad);
    assert_null(bad);
    histogram_free(h);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantiles_as_envoy),
        cmocka_unit_test(test_sum),
        cmocka_unit_test(test_empty),
        cmocka_unit_test(test_bins),
        cmocka_unit_test(test_count_below),
        cmocka_unit_test(test_merge_and_interval),
        cmocka_unit_test(test_reader_beside_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
