/* Zone-aware routing: which zones get how much, when it is left alone, and what is counted. */
#include "proxy/upstream/lb_zone.h"

#include "proxy/base/mem.h"
#include "tests/support/hosts.h"

#define TRIES 4000u
#define HOSTS_MAX 16u
#define SICK HOST_FLAG(FAILED_EDS_HEALTH)

struct bench {
    struct fixture_cluster f;
    struct lb_zone_config cfg;
    struct stats_shard *st;
    struct rng rng;
};

static void bench_init(struct bench *b) {
    static const struct locality own = {.zone = SV_INIT("a")};
    memset(b, 0, sizeof(*b));
    fixture_init(&b->f, &round_robin_lb_policy);
    b->cfg = (struct lb_zone_config){.routing_pct = 100, .min_cluster_size = 2, .local = &own};
    b->st = stats_shard(b->f.cfg.stats, 2);
    rng_seed(&b->rng, 3);
}

/* "aaab": one host for each letter, in that zone; capitals are unhealthy. */
static struct host_set *hosts(struct bench *b, const char *zones, char (*room)[24]) {
    static const char *const names[] = {"a", "b", "c"};
    struct fixture_host v[HOSTS_MAX + 1] = {{0}};
    for (unsigned i = 0; zones[i]; i++) {
        bool is_sick = zones[i] < 'a';
        snprintf(room[i], sizeof(room[i]), "10.0.0.%u:80", i + 1);
        v[i] = (struct fixture_host){.address = room[i],
                                     .zone = names[(is_sick ? zones[i] + 32 : zones[i]) - 'a'],
                                     .flags = is_sick ? SICK : 0};
    }
    return fixture_hosts(&b->f, v, NULL);
}

struct row {
    const char *what, *up, *local; /* local NULL: there is no such cluster */
    int share[3];                  /* percent by zone; -1: all hosts */
    unsigned stat;
};

static void check(struct bench *b, const struct row *r) {
    char up_room[HOSTS_MAX][24], local_room[HOSTS_MAX][24];
    struct host_set *up = hosts(b, r->up, up_room);
    struct host_set *local = r->local ? hosts(b, r->local, local_room) : NULL;
    uint64_t before = stats_scope_value(b->f.cfg.stats, r->stat);
    struct lb_zone *z = lb_zone_new(&b->cfg, up, local, 50, b->st);
    unsigned n[3] = {0}, none = 0;
    for (unsigned i = 0; i < TRIES; i++) {
        uint32_t k = lb_zone_choose(z, &b->rng, false, b->st);
        if (k == LB_ZONE_NONE) {
            none++;
            continue;
        }
        n[up->priorities[0].localities[k].id.zone.p[0] - 'a']++;
    }
    for (unsigned i = 0; i < 3; i++) {
        int got = (int)(100 * n[i] / TRIES);
        bool is_right = r->share[0] < 0 ? none == TRIES : abs(got - r->share[i]) <= 4;
        if (!is_right) {
            fail_msg("%s: zone %c has %d %%, not %d", r->what, 'a' + i, got, r->share[i]);
        }
    }
    if (stats_scope_value(b->f.cfg.stats, r->stat) == before) {
        fail_msg("%s: not counted", r->what);
    }
    xfree(z);
    shared_unref(&up->shared);
    if (local) {
        shared_unref(&local->shared);
    }
}

static void test_shares(void **state) {
    (void)state;
    static const struct row rows[] = {
        {"as many here as of us", "aabb", "ab", {100, 0, 0}, CLUSTER_lb_zone_routing_all_directly},
        {"more here", "aaab", "ab", {100, 0, 0}, CLUSTER_lb_zone_routing_all_directly},
        {"half of what we need", "abbb", "ab", {50, 50, 0}, CLUSTER_lb_zone_routing_sampled},
        {"none here", "bbcc", "abc", {0, 50, 50}, CLUSTER_lb_zone_routing_cross_zone},
        {"the rest goes where there is room",
         "abbbcc",
         "aabbcc",
         {50, 50, 0},
         CLUSTER_lb_zone_routing_cross_zone},
        {"unhealthy ones are no room",
         "aAAbbbccc",
         "abc",
         {42, 28, 28},
         CLUSTER_lb_zone_routing_cross_zone},
        {"one zone", "bbbb", "ab", {-1}, CLUSTER_lb_recalculate_zone_structures},
        {"too small", "ab", "ab", {100, 0, 0}, CLUSTER_lb_zone_routing_all_directly},
        {"too few healthy ones", "aBB", "ab", {-1}, CLUSTER_lb_zone_cluster_too_small},
        {"no local cluster", "aabb", NULL, {-1}, CLUSTER_lb_local_cluster_not_ok},
        {"nobody in it", "aabb", "", {-1}, CLUSTER_lb_local_cluster_not_ok},
        {"we are not in it", "aabb", "bb", {-1}, CLUSTER_lb_recalculate_zone_structures},
        {"it is in panic", "aabb", "aABBB", {-1}, CLUSTER_lb_local_cluster_not_ok},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct bench b;
        bench_init(&b);
        check(&b, &rows[i]);
        fixture_fini(&b.f);
    }
}

static void test_only_some_requests_are_routed(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b);
    b.cfg.routing_pct = 25;
    char up_room[HOSTS_MAX][24], local_room[HOSTS_MAX][24];
    struct host_set *up = hosts(&b, "aabb", up_room), *local = hosts(&b, "ab", local_room);
    struct lb_zone *z = lb_zone_new(&b.cfg, up, local, 50, b.st);
    unsigned routed = 0;
    for (unsigned i = 0; i < TRIES; i++) {
        routed += lb_zone_choose(z, &b.rng, false, b.st) != LB_ZONE_NONE;
    }
    assert_in_range(routed, TRIES / 4 - 200, TRIES / 4 + 200);
    xfree(z);
    shared_unref(&up->shared);
    shared_unref(&local->shared);
    fixture_fini(&b.f);
}

static void test_panic_may_fail(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b);
    char up_room[HOSTS_MAX][24], local_room[HOSTS_MAX][24];
    struct host_set *up = hosts(&b, "aabb", up_room), *local = hosts(&b, "AAB", local_room);
    struct lb_zone *z = lb_zone_new(&b.cfg, up, local, 50, b.st);
    assert_int_equal(lb_zone_choose(z, &b.rng, true, b.st), LB_ZONE_FAIL);
    assert_int_equal(lb_zone_choose(z, &b.rng, false, b.st), LB_ZONE_NONE);
    xfree(z);
    shared_unref(&up->shared);
    shared_unref(&local->shared);
    fixture_fini(&b.f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_only_some_requests_are_routed),
        cmocka_unit_test(test_panic_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
