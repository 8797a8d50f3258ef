/* Circuit breakers: limits, retry budgets, the gauges. */
#include "tests/support/hosts.h"

static void test_limit(void **state) {
    (void)state;
    uint32_t used = 0;
    assert_false(breaker_try(&used, 0));
    assert_int_equal(used, 0);
    assert_true(breaker_try(&used, 2));
    assert_true(breaker_try(&used, 2));
    assert_false(breaker_try(&used, 2));
    breaker_release(&used);
    assert_true(breaker_try(&used, 2));
    assert_int_equal(used, 2);
    assert_true(breaker_try(&used, UINT32_MAX));
}

static void test_retries(void **state) {
    (void)state;
    static const struct {
        bool budget;
        double percent;
        uint32_t min, max_retries, requests, pending, want; /* how many retries get through */
    } rows[] = {
        {false, 0, 0, 3, 1000, 0, 3}, {false, 0, 0, 0, 1000, 0, 0},  {true, 20, 3, 0, 0, 0, 3},
        {true, 20, 3, 0, 100, 0, 20}, {true, 20, 3, 0, 50, 50, 20},  {true, 20, 0, 99, 4, 0, 0},
        {true, 0, 1, 99, 1000, 0, 1}, {true, 12.5, 0, 99, 16, 0, 2},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture_cluster f;
        fixture_init(&f, NULL);
        f.breakers[0] = (struct breaker){.max_retries = rows[i].max_retries,
                                         .has_retry_budget = rows[i].budget,
                                         .budget_percent = rows[i].percent,
                                         .min_retry_concurrency = rows[i].min};
        f.use[0].requests = rows[i].requests;
        f.use[0].pending = rows[i].pending;
        uint32_t n = 0;
        while (n < 200 && breaker_retry_try(&f.cfg, 0)) {
            n++;
        }
        assert_row(n == rows[i].want, i);
        assert_row(f.use[0].retries == rows[i].want, i);
        fixture_fini(&f);
    }
}

static void test_gauges(void **state) {
    (void)state;
    struct fixture_cluster f;
    fixture_init(&f, NULL);
    f.breakers[0] = (struct breaker){.max_connections = 2,
                                     .max_pending = 5,
                                     .max_requests = 1,
                                     .max_retries = 0,
                                     .max_pools = 7,
                                     .track_remaining = true};
    f.use[0] = (struct breaker_use){.connections = 2, .pending = 1, .requests = 0, .pools = 9};
    static const struct {
        enum breaker_stat stat;
        unsigned want;
    } rows[] = {{BREAKER_cx_open, 1},         {BREAKER_remaining_cx, 0},
                {BREAKER_rq_pending_open, 0}, {BREAKER_remaining_pending, 4},
                {BREAKER_rq_open, 0},         {BREAKER_remaining_rq, 1},
                {BREAKER_rq_retry_open, 1},   {BREAKER_remaining_retries, 0},
                {BREAKER_cx_pool_open, 1},    {BREAKER_remaining_cx_pools, 0}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_row(fixture_stat(&f, cluster_breaker_stat(0, rows[i].stat)) == 0, i);
    }
    stats_scope_set_source(f.cfg.stats, &f.cfg);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_row(fixture_stat(&f, cluster_breaker_stat(0, rows[i].stat)) == rows[i].want, i);
    }
    assert_int_equal(fixture_stat(&f, cluster_breaker_stat(1, BREAKER_cx_open)), 0);
    stats_scope_forget_source(f.cfg.stats, &f); /* another one's */
    assert_int_equal(fixture_stat(&f, cluster_breaker_stat(0, BREAKER_cx_open)), 1);
    stats_scope_forget_source(f.cfg.stats, &f.cfg);
    assert_int_equal(fixture_stat(&f, cluster_breaker_stat(0, BREAKER_cx_open)), 0);
    fixture_fini(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_limit), cmocka_unit_test(test_retries),
                                       cmocka_unit_test(test_gauges)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
