/* Lines of statsd: deltas, gauges, bins of histograms, tags; what is not told. */
#include "proxy/stats/stats_lines.h"

#include <stdio.h>

#include "proxy/stats/stats.h"
#include "proxy/stats/stats_flush.h"
#include "tests/support/unit.h"

#define T_STATS(P, C, G, H, X) \
    C(P, calls) C(P, never) G(P, size) G(P, unset) H(P, time, MS) H(P, part, PERCENT) X(P, word)
STATS_ENUM(T, T_STATS);
STATS_GROUP(t, T, T_STATS);

struct bench {
    struct stats_store *store;
    struct stats_scope *scope;
    struct stats_shard *shard;
    char text[2][2048];
};

static void on_line(void *user, unsigned form, sv line) {
    struct bench *b = user;
    size_t n = strlen(b->text[form]);
    snprintf(b->text[form] + n, sizeof(b->text[form]) - n, "%.*s\n", SV_ARG(line));
}

/* What one flush tells, as "envoy" without tags and as "p" with. */
static void flush(struct bench *b) {
    static const struct stats_line_form forms[] = {{SV_INIT("envoy"), false}, {SV_INIT("p"), true}};
    memset(b->text, 0, sizeof(b->text));
    stats_flush(b->store);
    struct stats_lines *l = stats_lines_new(b->store, forms, 2, on_line, b);
    unsigned turns = 0;
    while (stats_lines_next(l)) {
        assert_true(++turns < 1000);
    }
    stats_lines_free(l);
}

static int start(void **state) {
    static struct bench b;
    b = (struct bench){.store = stats_store_new(1)};
    b.scope = stats_scope_get(b.store, &t_stats_group, SV("cluster.up."));
    b.shard = stats_shard(b.scope, 0);
    *state = &b;
    return 0;
}
static int finish(void **state) {
    struct bench *b = *state;
    stats_scope_unref(b->scope);
    stats_store_free(b->store);
    chunk_cache_trim();
    return 0;
}

static void test_counters(void **state) {
    struct bench *b = *state;
    flush(b);
    assert_string_equal(b->text[0], "");
    stats_add(b->shard, T_calls, 5);
    flush(b);
    assert_string_equal(b->text[0], "envoy.cluster.up.calls:5|c\n");
    assert_string_equal(b->text[1], "p.cluster.calls:5|c|#envoy.cluster_name:up\n");
    flush(b);
    assert_string_equal(b->text[0], "envoy.cluster.up.calls:0|c\n");
    stats_inc(b->shard, T_calls);
    flush(b);
    assert_string_equal(b->text[0], "envoy.cluster.up.calls:1|c\n");
    stats_add(b->shard, T_calls, 3);
    stats_reset_counters(b->store);
    stats_add(b->shard, T_calls, 2);
    flush(b);
    assert_string_equal(b->text[0], "envoy.cluster.up.calls:2|c\n");
}

static void test_gauges(void **state) {
    struct bench *b = *state;
    stats_gauge_set(b->shard, T_size, 7);
    flush(b);
    assert_string_equal(b->text[0], "envoy.cluster.up.size:7|g\n");
    stats_gauge_set(b->shard, T_size, 0);
    flush(b);
    assert_string_equal(b->text[0], "envoy.cluster.up.size:0|g\n");
}

static void test_histograms(void **state) {
    struct bench *b = *state;
    stats_record(b->shard, T_time, 3);
    for (unsigned i = 0; i < 4; i++) {
        stats_record(b->shard, T_time, 12);
    }
    stats_record(b->shard, T_part, 500000);
    flush(b);
    assert_string_equal(b->text[0], "envoy.cluster.up.part:0.5|h\n"
                                    "envoy.cluster.up.time:3|ms\n"
                                    "envoy.cluster.up.time:12|ms|@0.25\n");
    assert_string_equal(b->text[1], "p.cluster.part:0.5|h|#envoy.cluster_name:up\n"
                                    "p.cluster.time:3|ms|#envoy.cluster_name:up\n"
                                    "p.cluster.time:12|ms|@0.25|#envoy.cluster_name:up\n");
    flush(b);
    assert_string_equal(b->text[0], ""); /* nothing new */
    stats_record(b->shard, T_time, 3);
    flush(b);
    assert_string_equal(b->text[0], "envoy.cluster.up.time:3|ms\n");
}

static void test_stats_named_at_run_time(void **state) {
    struct bench *b = *state;
    struct stat_dyn *d = stats_dyn(b->scope, SV("code_7"), STAT_COUNTER);
    stat_dyn_add(d, 2);
    flush(b);
    assert_string_equal(b->text[0], "envoy.cluster.up.code_7:2|c\n");
    stat_dyn_add(d, 1);
    flush(b);
    assert_string_equal(b->text[0], "envoy.cluster.up.code_7:1|c\n");
}

/* Text is for people; a flush that is given up leaves nothing behind. */
static void test_what_is_not_told(void **state) {
    struct bench *b = *state;
    static const struct stats_line_form form = {SV_INIT("x"), false};
    stats_text_set(b->scope, T_word, SV("a"));
    flush(b);
    assert_string_equal(b->text[0], "");
    stats_lines_free(stats_lines_new(b->store, &form, 1, on_line, b));
    stats_lines_free(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_counters, start, finish),
        cmocka_unit_test_setup_teardown(test_gauges, start, finish),
        cmocka_unit_test_setup_teardown(test_histograms, start, finish),
        cmocka_unit_test_setup_teardown(test_stats_named_at_run_time, start, finish),
        cmocka_unit_test_setup_teardown(test_what_is_not_told, start, finish),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
