/* Local rate limit of accepted sockets: tokens, runtime, settings that are refused. */
#include "protos/gen/core.pb-c.h"
#include "protos/gen/listener_local_ratelimit.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "protos/gen/type.pb-c.h"
#include "tests/support/listener_filter.h"

extern const struct listener_filter_type listener_local_ratelimit_listener_filter;

struct limit {
    ListenerLocalRatelimit__LocalRateLimit m;
    Type__TokenBucket bucket;
    Pb__Duration fill;
    Core__RuntimeFeatureFlag flag;
    Pb__BoolValue value;
};

static const void *limit_of(struct limit *l, uint32_t tokens, int64_t fill_s) {
    listener_local_ratelimit__local_rate_limit__init(&l->m);
    type__token_bucket__init(&l->bucket);
    pb__duration__init(&l->fill);
    core__runtime_feature_flag__init(&l->flag);
    pb__bool_value__init(&l->value);
    l->m.stat_prefix = "a";
    l->m.token_bucket = &l->bucket;
    l->bucket.max_tokens = tokens;
    l->bucket.fill_interval = &l->fill;
    l->fill.seconds = fill_s;
    l->flag.default_value = &l->value;
    l->flag.runtime_key = "";
    return &l->m;
}

static unsigned passed(struct filter_bench *b, unsigned sockets) {
    unsigned n = 0;
    for (unsigned i = 0; i < sockets; i++) {
        bench_next(b);
        enum listener_filter_status s = bench_judge(b, SV_NULL, false);
        assert_true(s == LISTENER_FILTER_DONE ||
                    (s == LISTENER_FILTER_REJECT && b->info.reject_reason));
        n += s == LISTENER_FILTER_DONE;
    }
    return n;
}

static void test_tokens(void **state) {
    (void)state;
    static const uint32_t tokens[] = {1, 2, 5, 100};
    for (size_t i = 0; i < ARRAY_LEN(tokens); i++) {
        struct filter_bench b;
        struct limit l;
        assert_true(bench_open(&b, &listener_local_ratelimit_listener_filter,
                               limit_of(&l, tokens[i], 100000)));
        assert_int_equal(listener_local_ratelimit_listener_filter.max_peek_bytes, 0);
        unsigned want = tokens[i] < 6 ? tokens[i] : 6;
        assert_int_equal(passed(&b, 6), want);
        bench_close(&b);
    }
}

static void test_disabled(void **state) {
    (void)state;
    struct filter_bench b;
    struct limit l;
    limit_of(&l, 1, 100000);
    l.m.runtime_enabled = &l.flag;
    assert_true(bench_open(&b, &listener_local_ratelimit_listener_filter, &l.m));
    assert_int_equal(passed(&b, 3), 3);
    bench_close(&b);
    l.value.value = true;
    assert_true(bench_open(&b, &listener_local_ratelimit_listener_filter, &l.m));
    assert_int_equal(passed(&b, 3), 1);
    bench_close(&b);
}

static void test_refused(void **state) {
    (void)state;
    struct filter_bench b;
    struct limit l;
    assert_false(bench_open(&b, &listener_local_ratelimit_listener_filter, limit_of(&l, 1, 0)));
    assert_sv_is(diag_text(&b.d), "token_bucket.fill_interval: local rate limit token bucket fill "
                                  "timer must be >= 50ms");
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tokens),
        cmocka_unit_test(test_disabled),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
