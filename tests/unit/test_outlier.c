/* Outlier detection on a fake clock: runs of failures, rates, limits, coming back. */
#include "proxy/upstream/outlier.h"

#include "tests/support/hosts.h"

#include <stdio.h>

struct bench {
    struct fixture_cluster f;
    struct fake_compile fc;
    struct host_set *set;
    struct outlier_detector *d;
    struct stats_scope *stats;
    unsigned changes;
};

static void on_change(void *arg, struct host *h) {
    (void)h;
    ((struct bench *)arg)->changes++;
}

static void bench_init(struct bench *b, unsigned hosts, const char *config) {
    static struct fixture_host v[64];
    static char text[64][32];
    memset(b, 0, sizeof(*b));
    fixture_init(&b->f, &round_robin_lb_policy);
    fake_compile_init(&b->fc, NULL);
    for (unsigned i = 0; i < hosts; i++) {
        snprintf(text[i], sizeof(text[i]), "10.0.0.%u:80", i + 1);
        v[i] = (struct fixture_host){.address = text[i]};
    }
    v[hosts] = (struct fixture_host){0};
    b->set = fixture_hosts(&b->f, v, NULL);
    b->f.cfg.outlier = outlier_config_compile(
        &b->fc.ctx, fake_msg(&b->fc, "envoy.config.cluster.v3.OutlierDetection", config));
    assert_true(diag_ok(&b->fc.diag));
    b->d = outlier_detector_new(NULL, &b->f.cfg, on_change, b);
    b->f.cfg.detector = b->d;
    outlier_detector_set_hosts(b->d, b->set);
    b->stats =
        stats_scope_get(b->f.store, &outlier_stats_group, SV("cluster.c.outlier_detection."));
    outlier_detector_evaluate(b->d, 1000);
}

static void bench_fini(struct bench *b) {
    outlier_detector_stop(b->d);
    for (unsigned i = 0; i < b->set->hosts_n; i++) {
        assert_int_equal(host_flags(b->set->entries[i].host), 0);
    }
    outlier_detector_unref(b->d);
    stats_scope_unref(b->stats);
    shared_unref(&b->set->shared);
    fake_compile_fini(&b->fc);
    fixture_fini(&b->f);
}

static struct host *host(struct bench *b, unsigned i) { return b->set->entries[i].host; }
static bool ejected(struct bench *b, unsigned i) {
    return host_flags(host(b, i)) & HOST_FLAG(FAILED_OUTLIER_CHECK);
}
static uint64_t counted(struct bench *b, unsigned i) { return stats_scope_value(b->stats, i); }

static void http(struct bench *b, unsigned i, unsigned status, unsigned times) {
    while (times--) {
        host_report(&b->f.cfg, host(b, i), HOST_RESULT_HTTP, status);
    }
}
static void local(struct bench *b, unsigned i, enum host_result r, unsigned times) {
    while (times--) {
        host_report(&b->f.cfg, host(b, i), r, 0);
    }
}

static void test_consecutive_5xx(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, 10, "consecutive_5xx { value: 3 }");
    http(&b, 0, 500, 2);
    http(&b, 0, 404, 1); /* a success to this end */
    http(&b, 0, 500, 2);
    assert_false(ejected(&b, 0));
    http(&b, 0, 500, 1);
    assert_true(ejected(&b, 0));
    assert_int_equal(b.changes, 1);
    assert_int_equal(counted(&b, OUTLIER_ejections_active), 1);
    assert_int_equal(counted(&b, OUTLIER_ejections_enforced_consecutive_5xx), 1);
    assert_int_equal(counted(&b, OUTLIER_ejections_detected_consecutive_5xx), 1);
    assert_int_equal(counted(&b, OUTLIER_ejections_enforced_total), 1);
    http(&b, 1, 500, 3); /* 10 % are out already */
    assert_false(ejected(&b, 1));
    assert_int_equal(counted(&b, OUTLIER_ejections_overflow), 1);
    assert_int_equal(counted(&b, OUTLIER_ejections_detected_consecutive_5xx), 2);
    outlier_detector_evaluate(b.d, 1000 + 29999);
    assert_true(ejected(&b, 0));
    outlier_detector_evaluate(b.d, 1000 + 30000);
    assert_false(ejected(&b, 0));
    assert_int_equal(b.changes, 2);
    assert_int_equal(counted(&b, OUTLIER_ejections_active), 0);
    bench_fini(&b);
}

static void test_backoff_and_cap(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, 10,
               "consecutive_5xx { value: 1 } base_ejection_time { seconds: 10 } max_ejection_time "
               "{ seconds: 25 }");
    static const uint64_t away_s[] = {10, 20, 25, 25};
    uint64_t now = 1000;
    for (size_t i = 0; i < ARRAY_LEN(away_s); i++) {
        /* no evaluation between return and the next failure: the multiplier keeps growing */
        http(&b, 0, 503, 1);
        assert_row(ejected(&b, 0), i);
        outlier_detector_evaluate(b.d, now + away_s[i] * 1000 - 1);
        assert_row(ejected(&b, 0), i);
        now += away_s[i] * 1000;
        outlier_detector_evaluate(b.d, now);
        assert_row(!ejected(&b, 0), i);
    }
    for (unsigned i = 0; i < 10; i++) {
        outlier_detector_evaluate(b.d, now += 1000); /* good intervals make it shrink again */
    }
    http(&b, 0, 503, 1);
    outlier_detector_evaluate(b.d, now + 10000);
    assert_false(ejected(&b, 0));
    bench_fini(&b);
}

static void test_limits_of_ejection(void **state) {
    (void)state;
    static const struct {
        unsigned hosts;
        const char *config;
        unsigned want;
    } rows[] = {{5, "consecutive_5xx { value: 1 }", 0}, /* one of five is more than 10 % */
                {5, "consecutive_5xx { value: 1 } always_eject_one_host { value: true }", 1},
                {5, "consecutive_5xx { value: 1 } max_ejection_percent { value: 100 }", 5},
                {5, "consecutive_5xx { value: 1 } max_ejection_percent { value: 50 }", 2},
                {5, "consecutive_5xx { value: 1 } max_ejection_percent { value: 0 }", 0},
                {5,
                 "consecutive_5xx { value: 1 } max_ejection_percent { value: 100 } "
                 "enforcing_consecutive_5xx { }",
                 0},
                {5, "consecutive_5xx { value: 0 } max_ejection_percent { value: 100 }", 0}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct bench b;
        bench_init(&b, rows[i].hosts, rows[i].config);
        unsigned n = 0;
        for (unsigned k = 0; k < rows[i].hosts; k++) {
            http(&b, k, 500, 1);
            n += ejected(&b, k);
        }
        assert_row(n == rows[i].want, i);
        bench_fini(&b);
    }
}

static void test_gateway(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, 4,
               "consecutive_5xx { value: 100 } consecutive_gateway_failure { value: 3 } "
               "max_ejection_percent { value: 100 } "
               "enforcing_consecutive_gateway_failure { value: 100 }");
    http(&b, 0, 503, 2);
    http(&b, 0, 500, 1); /* no gateway failure: the run is broken */
    http(&b, 0, 502, 2);
    assert_false(ejected(&b, 0));
    http(&b, 0, 504, 1);
    assert_true(ejected(&b, 0));
    local(&b, 1, HOST_RESULT_CONNECT_FAILED, 3); /* not split: counts as 503 */
    assert_true(ejected(&b, 1));
    local(&b, 2, HOST_RESULT_TIMEOUT, 3);
    assert_true(ejected(&b, 2));
    assert_int_equal(counted(&b, OUTLIER_ejections_enforced_consecutive_gateway_failure), 3);
    bench_fini(&b);
}

static void test_split(void **state) {
    (void)state;
    struct bench b;
    bench_init(
        &b, 4,
        "split_external_local_origin_errors: true consecutive_local_origin_failure { value: 2 } "
        "consecutive_5xx { value: 2 } max_ejection_percent { value: 100 }");
    local(&b, 0, HOST_RESULT_CONNECT_FAILED, 1);
    local(&b, 0, HOST_RESULT_CONNECT_OK, 1);
    http(&b, 0, 500, 1);
    local(&b, 0, HOST_RESULT_RESET, 1);
    assert_false(ejected(&b, 0)); /* two kinds, one each */
    local(&b, 0, HOST_RESULT_TIMEOUT, 1);
    assert_true(ejected(&b, 0));
    assert_int_equal(counted(&b, OUTLIER_ejections_enforced_consecutive_local_origin_failure), 1);
    assert_int_equal(counted(&b, OUTLIER_ejections_consecutive_5xx), 0);
    bench_fini(&b);
}

static void test_success_rate(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, 5,
               "consecutive_5xx { value: 1000 } max_ejection_percent { value: 100 } "
               "success_rate_stdev_factor { value: 1500 }");
    for (unsigned i = 0; i < 5; i++) {
        http(&b, i, 500, i == 4 ? 60 : 2);
        http(&b, i, 200, i == 4 ? 40 : 98);
    }
    outlier_detector_evaluate(b.d, 11000);
    for (unsigned i = 0; i < 5; i++) {
        assert_row(ejected(&b, i) == (i == 4), i);
    }
    assert_true(outlier_detector_success_rate(b.d, host(&b, 0), false) == 98.0);
    assert_true(outlier_detector_success_rate(b.d, host(&b, 0), true) == -1);
    assert_true(outlier_detector_threshold(b.d, false) > 40 &&
                outlier_detector_threshold(b.d, false) < 98);
    assert_int_equal(counted(&b, OUTLIER_ejections_enforced_success_rate), 1);
    outlier_detector_evaluate(b.d, 12000);
    /* nothing in this interval */
    assert_true(outlier_detector_success_rate(b.d, host(&b, 0), false) == -1);
    assert_true(outlier_detector_threshold(b.d, false) == -1);
    bench_fini(&b);
    /* too few requests, too few hosts */
    bench_init(&b, 5, "consecutive_5xx { value: 1000 } max_ejection_percent { value: 100 }");
    for (unsigned i = 0; i < 5; i++) {
        http(&b, i, i ? 200 : 500, i ? 100 : 99);
    }
    outlier_detector_evaluate(b.d, 11000);
    assert_int_equal(counted(&b, OUTLIER_ejections_total), 0);
    bench_fini(&b);
}

static void test_failure_percentage(void **state) {
    (void)state;
    struct bench b;
    bench_init(
        &b, 5,
        "consecutive_5xx { value: 1000 } max_ejection_percent { value: 100 } "
        "enforcing_success_rate { } "
        "enforcing_failure_percentage { value: 100 } failure_percentage_threshold { value: 60 }");
    for (unsigned i = 0; i < 5; i++) {
        unsigned bad = i == 0 ? 60 : i == 1 ? 59 : 0;
        http(&b, i, 500, bad);
        http(&b, i, 200, 100 - bad);
    }
    outlier_detector_evaluate(b.d, 11000);
    assert_true(ejected(&b, 0));
    assert_false(ejected(&b, 1));
    assert_int_equal(counted(&b, OUTLIER_ejections_enforced_failure_percentage), 1);
    assert_int_equal(counted(&b, OUTLIER_ejections_enforced_success_rate), 0);
    bench_fini(&b);
}

static void test_hosts_come_and_go(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, 3, "consecutive_5xx { value: 1 } max_ejection_percent { value: 100 }");
    http(&b, 0, 500, 1);
    http(&b, 1, 500, 1);
    const struct fixture_host two[] = {{.address = "10.0.0.2:80"}, {.address = "10.0.0.3:80"}, {0}};
    struct host_set *s = fixture_hosts(&b.f, two, b.set);
    outlier_detector_set_hosts(b.d, s);
    assert_int_equal(counted(&b, OUTLIER_ejections_active), 1);
    assert_true(ejected(&b, 1));
    http(&b, 0, 500, 5); /* gone: nobody minds */
    assert_int_equal(counted(&b, OUTLIER_ejections_active), 1);
    outlier_detector_healthy(b.d, host(&b, 1)); /* an active check passed */
    assert_false(ejected(&b, 1));
    outlier_detector_healthy(b.d, host(&b, 0));
    shared_unref(&s->shared);
    bench_fini(&b);
}

static void test_bad_configs(void **state) {
    (void)state;
    static const struct {
        const char *config, *error;
    } rows[] = {
        {"interval { }", "interval: value must be greater than 0s"},
        {"base_ejection_time { seconds: -1 }", "base_ejection_time: value must be greater than 0s"},
        {"max_ejection_percent { value: 101 }",
         "max_ejection_percent: value must be less than or equal to 100"},
        {"enforcing_success_rate { value: 999 }",
         "enforcing_success_rate: value must be less than or equal to 100"},
        {"base_ejection_time { seconds: 40 } max_ejection_time { seconds: 30 }",
         "outlier detector's max_ejection_time cannot be smaller than base_ejection_time"},
        {"monitors { name: \"x\" }", "monitors: extension monitors are not supported"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fake_compile fc;
        fake_compile_init(&fc, NULL);
        outlier_config_compile(
            &fc.ctx, fake_msg(&fc, "envoy.config.cluster.v3.OutlierDetection", rows[i].config));
        assert_sv_is(fake_errors(&fc), rows[i].error);
        fake_compile_fini(&fc);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_consecutive_5xx),
        cmocka_unit_test(test_backoff_and_cap),
        cmocka_unit_test(test_limits_of_ejection),
        cmocka_unit_test(test_gateway),
        cmocka_unit_test(test_split),
        cmocka_unit_test(test_success_rate),
        cmocka_unit_test(test_failure_percentage),
        cmocka_unit_test(test_hosts_come_and_go),
        cmocka_unit_test(test_bad_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
