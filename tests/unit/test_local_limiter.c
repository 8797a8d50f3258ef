/* Buckets by descriptor: which one a request takes from, what makes room for new values, workers at
 * once. */
#include "filters/common/local_limiter.h"

#include <pthread.h>

#include "proxy/api/network_filter.h"
#include "proxy/api/worker.h"
#include "tests/support/test_compile.h"

#define BUCKET(max, per_fill)                                                       \
    "token_bucket { max_tokens: " #max " tokens_per_fill { value: " #per_fill " } " \
    "fill_interval { seconds: 1000 } } "
#define ENTRY(k, v) "entries { key: '" k "' value: '" v "' } "
#define NOW_US 5000000u
#define MAKE(...) make((const char *const[]){__VA_ARGS__, NULL}, 0, 20)

/* descriptors: NULL-terminated; tokens: of the default bucket, 0: none. */
static struct local_limiter *make(const char *const *descriptors, unsigned tokens,
                                  uint32_t values) {
    const void *msgs[8];
    struct local_limiter_config c = {
        .descriptors = msgs, .values_max = values, .always_consumes_default = true};
    while (descriptors[c.descriptors_n]) {
        msgs[c.descriptors_n] =
            fake_msg(&f, "envoy.extensions.common.ratelimit.v3.LocalRateLimitDescriptor",
                     descriptors[c.descriptors_n]);
        c.descriptors_n++;
    }
    if (tokens) {
        sv text = arena_printf(&f.arena, "max_tokens: %u fill_interval { seconds: 1000 }", tokens);
        c.token_bucket = fake_msg(&f, "envoy.type.v3.TokenBucket", arena_cstr(&f.arena, text));
    }
    return local_limiter_compile(&f.ctx, &c);
}

/* One descriptor of one entry. */
static bool ask(struct local_limiter *l, const char *key, const char *value, uint64_t now_us) {
    struct rate_limit_entry e = {sv_cstr(key), sv_cstr(value)};
    struct rate_limit_descriptor d = {.v = &e, .n = 1, .hits = 1};
    return local_limiter_ask(l, &d, 1, now_us, &f.arena).is_allowed;
}

static void test_descriptors(void **state) {
    (void)state;
    struct local_limiter *l =
        MAKE(ENTRY("a", "1") BUCKET(2, 1), ENTRY("a", "1") ENTRY("b", "2") BUCKET(1, 1));
    struct rate_limit_entry e[] = {{SV("a"), SV("1")}, {SV("b"), SV("2")}};
    struct rate_limit_descriptor d = {.v = e, .n = 2, .hits = 1};
    assert_true(local_limiter_has_descriptors(l));
    assert_true(ask(l, "a", "1", NOW_US) && ask(l, "a", "1", NOW_US) && !ask(l, "a", "1", NOW_US));
    assert_true(ask(l, "a", "2", NOW_US) && ask(l, "b", "1", NOW_US) && ask(l, "", "", NOW_US));
    assert_true(local_limiter_ask(l, &d, 1, NOW_US, &f.arena).is_allowed);
    assert_false(local_limiter_ask(l, &d, 1, NOW_US, &f.arena).is_allowed);
    e[0].key = SV("a\1"); /* no run of bytes stands for other entries */
    assert_true(local_limiter_ask(l, &d, 1, NOW_US, &f.arena).is_allowed);
    assert_true(ask(l, "a", "1", NOW_US + 1001000000u));
}

static void test_default(void **state) {
    (void)state;
    struct local_limiter *l =
        make((const char *const[]){ENTRY("a", "1") BUCKET(5, 1), NULL}, 2, 20);
    struct local_limiter_verdict v;
    assert_true(ask(l, "a", "1", NOW_US) && ask(l, "x", "1", NOW_US));
    v = local_limiter_ask(l, NULL, 0, NOW_US, &f.arena);
    assert_true(!v.is_allowed && !v.is_shadow && v.bucket && v.bucket->max == 2);
    l = make((const char *const[]){NULL}, 0, 20);
    v = local_limiter_ask(l, NULL, 0, NOW_US, &f.arena);
    assert_true(v.is_allowed && !v.bucket && !local_limiter_has_descriptors(l));
}

/* What one takes the other keeps; it needs nothing of the first. */
static void test_dup(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 0);
    struct local_limiter *l =
        make((const char *const[]){ENTRY("a", "1") BUCKET(1, 1), ENTRY("w", "") BUCKET(1, 1), NULL},
             4, 20);
    assert_true(ask(l, "a", "1", NOW_US) && !ask(l, "a", "1", NOW_US));
    assert_true(ask(l, "w", "x", NOW_US) && !ask(l, "w", "x", NOW_US));
    assert_true(ask(l, "z", "", NOW_US) && ask(l, "z", "", NOW_US) && !ask(l, "z", "", NOW_US));
    struct local_limiter *copy = local_limiter_dup(l, &a);
    assert_true(local_limiter_has_descriptors(copy));
    assert_true(ask(copy, "a", "1", NOW_US) && !ask(copy, "a", "1", NOW_US));
    assert_true(ask(copy, "w", "x", NOW_US) && !ask(copy, "w", "x", NOW_US));
    assert_true(ask(copy, "w", "y", NOW_US) && ask(copy, "z", "", NOW_US));
    assert_false(ask(copy, "z", "", NOW_US) || ask(l, "z", "", NOW_US));
    arena_fini(&a);
}

/* The strictest is asked first, and what it refuses takes nothing from the others. */
static void test_order(void **state) {
    (void)state;
    struct local_limiter *l = MAKE(ENTRY("a", "1") BUCKET(3, 9), ENTRY("b", "1") BUCKET(1, 1));
    struct rate_limit_entry e[] = {{SV("a"), SV("1")}, {SV("b"), SV("1")}};
    struct rate_limit_descriptor d[] = {{.v = &e[0], .n = 1, .hits = 1},
                                        {.v = &e[1], .n = 1, .hits = 1}};
    assert_true(local_limiter_ask(l, d, 2, NOW_US, &f.arena).is_allowed);
    assert_false(local_limiter_ask(l, d, 2, NOW_US, &f.arena).is_allowed);
    assert_true(ask(l, "a", "1", NOW_US) && ask(l, "a", "1", NOW_US) && !ask(l, "a", "1", NOW_US));
    d[0].is_negative = d[0].has_hits = true;
    d[0].hits = 2;
    assert_true(local_limiter_ask(l, d, 1, NOW_US, &f.arena).is_allowed);
    assert_true(ask(l, "a", "1", NOW_US) && ask(l, "a", "1", NOW_US) && !ask(l, "a", "1", NOW_US));
    d[1].has_hits = true;
    d[1].hits = 0; /* refused */
    assert_false(local_limiter_ask(l, &d[1], 1, NOW_US, &f.arena).is_allowed);
}

static void test_shadow(void **state) {
    (void)state;
    struct local_limiter *l = MAKE(ENTRY("a", "1") BUCKET(1, 1) "shadow_mode: true");
    struct rate_limit_entry e = {SV("a"), SV("1")};
    struct rate_limit_descriptor d = {.v = &e, .n = 1, .hits = 1};
    struct local_limiter_verdict v = local_limiter_ask(l, &d, 1, NOW_US, &f.arena);
    assert_true(v.is_allowed);
    v = local_limiter_ask(l, &d, 1, NOW_US, &f.arena);
    assert_true(!v.is_allowed && v.is_shadow);
}

static void test_wildcards(void **state) {
    (void)state;
    static const char *const any[] = {ENTRY("a", "") BUCKET(1, 1), NULL};
    struct local_limiter *l = make(any, 0, 2);
    assert_true(ask(l, "a", "x", NOW_US) && ask(l, "a", "y", NOW_US + 1));
    assert_false(ask(l, "a", "x", NOW_US + 2) || ask(l, "a", "y", NOW_US + 3));
    assert_true(ask(l, "b", "x", NOW_US));
    assert_true(ask(l, "a", "z", NOW_US + 4)); /* in place of x */
    assert_false(ask(l, "a", "y", NOW_US + 5));
    assert_true(ask(l, "a", "x", NOW_US + 6)); /* in place of z */
    assert_false(ask(l, "a", "y", NOW_US + 7));
    assert_true(ask(l, "a", "", NOW_US + 8)); /* an empty value is a value */
    assert_false(ask(l, "a", "", NOW_US + 9));
}

/* Ever new values never take more than their room, and a value in use keeps its bucket. */
static void test_flood_of_values(void **state) {
    (void)state;
    static const char *const any[] = {ENTRY("a", "") BUCKET(1, 1), NULL};
    struct local_limiter *l = make(any, 0, 1000);
    char value[16];
    unsigned kept = 0;
    for (unsigned i = 0; i < 20000; i++) {
        snprintf(value, sizeof value, "%u", i);
        assert_true(ask(l, "a", value, NOW_US + i));
        kept += !ask(l, "a", value, NOW_US + i);
    }
    assert_int_equal(kept, 20000);
}

static struct local_limiter *shared;
#define SHARED_ASKS 20000u
static void *ask_shared(void *arg) {
    struct arena a;
    uintptr_t allowed = 0;
    arena_init(&a, 0);
    for (unsigned i = 0; i < SHARED_ASKS; i++) {
        char value[8];
        struct rate_limit_entry e = {
            SV("a"), sv_from(value, (size_t)snprintf(value, sizeof value, "%u", i % 7))};
        struct rate_limit_descriptor d = {.v = &e, .n = 1, .hits = 1};
        allowed += local_limiter_ask(shared, &d, 1, NOW_US, &a).is_allowed;
    }
    arena_fini(&a);
    (void)arg;
    return (void *)allowed;
}

/* Two workers: no token is given twice but for a value that both bring at the same moment. */
static void test_workers(void **state) {
    (void)state;
    static const char *const any[] = {ENTRY("a", "") BUCKET(100, 1), NULL};
    pthread_t other;
    void *theirs;
    shared = make(any, 0, 20);
    assert_int_equal(pthread_create(&other, NULL, ask_shared, NULL), 0);
    uintptr_t ours = (uintptr_t)ask_shared(NULL);
    pthread_join(other, &theirs);
    assert_in_range(ours + (uintptr_t)theirs, 700, 1400);
}

/* envoy.filters.network.local_ratelimit */
struct loop *worker_loop(struct worker *w) {
    (void)w;
    return NULL;
}
extern const struct network_filter_type network_local_ratelimit_network_filter;
static void test_of_connections_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"stat_prefix: 'p' token_bucket { max_tokens: 1 fill_interval { nanos: 49000000 } }",
         "token_bucket.fill_interval: local rate limit token bucket fill timer must be >= 50ms"},
    };
    static const char type[] = "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit";
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        const void *msg = fake_msg(&f, type, rows[i].text);
        assert_null(network_local_ratelimit_network_filter.compile(&f.ctx, msg));
        assert_true(sv_contains(fake_errors(&f), sv_cstr(rows[i].want)));
    }
    assert_non_null(network_local_ratelimit_network_filter.compile(
        &f.ctx, fake_msg(&f, type, "stat_prefix: 'p' " BUCKET(1, 1))));
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *descriptors[3], *want;
        uint32_t values;
    } rows[] = {
        {{NULL}, "max_dynamic_descriptors: expected 1 to 65536, not 0", 0},
        {{NULL}, "max_dynamic_descriptors: expected 1 to 65536, not 65537", 65537},
        {{ENTRY("a", "1")}, "descriptors[0].token_bucket: value is required", 20},
        {{ENTRY("a", "1") "token_bucket { max_tokens: 1 fill_interval { nanos: 49000000 } }"},
         "descriptors[0].token_bucket.fill_interval: local rate limit descriptor token bucket fill "
         "timer must be >= 50ms",
         20},
        {{ENTRY("a", "1") BUCKET(1, 1), ENTRY("a", "1") BUCKET(2, 1)},
         "descriptors[1]: duplicate descriptor",
         20},
        {{ENTRY("a", "") BUCKET(1, 1), ENTRY("a", "") BUCKET(2, 1)},
         "descriptors[1]: duplicate descriptor",
         20},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct local_limiter *l = make(rows[i].descriptors, 0, rows[i].values);
        sv why = fake_errors(&f);
        if (l || !sv_contains(why, sv_cstr(rows[i].want))) {
            fail_msg("%zu: %s: %.*s", i, l ? "accepted" : "other words", SV_ARG(why));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_descriptors, start, end),
        cmocka_unit_test_setup_teardown(test_default, start, end),
        cmocka_unit_test_setup_teardown(test_dup, start, end),
        cmocka_unit_test_setup_teardown(test_order, start, end),
        cmocka_unit_test_setup_teardown(test_shadow, start, end),
        cmocka_unit_test_setup_teardown(test_wildcards, start, end),
        cmocka_unit_test_setup_teardown(test_flood_of_values, start, end),
        cmocka_unit_test_setup_teardown(test_workers, start, end),
        cmocka_unit_test_setup_teardown(test_of_connections_refused, start_with_stats, end),
        cmocka_unit_test_setup_teardown(test_refused, start, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
