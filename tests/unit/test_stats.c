/* Scopes, shards, dynamic stats, response codes, resets; scopes that come and go while others
 * read. */
#include <pthread.h>
#include <stdio.h>

#include "proxy/base/buf.h"
#include "proxy/stats/stats.h"
#include "proxy/stats/stats_flush.h"
#include "proxy/stats/stats_server.h"
#include "proxy/stats/stats_tree.h"
#include "tests/support/unit.h"

#define T_STATS(P, C, G, H, T) C(P, hits) G(P, active) H(P, time, MS) T(P, label) C(P, misses)
STATS_ENUM(T, T_STATS);
STATS_GROUP(t, T, T_STATS);
#define U_STATS(P, C, G, H, T) C(P, hits)
STATS_ENUM(U, U_STATS);
STATS_GROUP(u, U, U_STATS);

static struct stats_store *store;
static int setup(void **state) {
    (void)state;
    store = stats_store_new(4);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    stats_store_free(store);
    return 0;
}

static void test_find_or_create(void **state) {
    (void)state;
    struct stats_scope *a = stats_scope_get(store, &t_stats_group, SV("a."));
    assert_ptr_equal(stats_scope_get(store, &t_stats_group, SV("a.")), a);
    struct stats_scope *b = stats_scope_get(store, &t_stats_group, SV("b."));
    struct stats_scope *other = stats_scope_get(store, &u_stats_group, SV("a."));
    assert_ptr_not_equal(a, b);
    assert_ptr_not_equal(a, other);
    assert_sv_is(stats_scope_prefix(a), "a.");
    assert_ptr_equal(stats_scope_store(a), store);
    struct stats_scope *root = stats_scope_get(store, &t_stats_group, SV(""));
    assert_int_equal(stats_scope_prefix(root).n, 0);
    stats_scope_unref(root);
    stats_scope_unref(a);
    stats_scope_unref(a);
    stats_scope_unref(b);
    stats_scope_unref(other);
    stats_scope_unref(NULL);
}

static void test_values_sum_over_threads(void **state) {
    (void)state;
    struct stats_scope *sc = stats_scope_get(store, &t_stats_group, SV("a."));
    assert_int_equal(stats_scope_value(sc, T_hits), 0); /* no shard yet */
    struct stats_shard *s0 = stats_shard(sc, 0), *s3 = stats_shard(sc, 3);
    assert_ptr_equal(stats_shard(sc, 0), s0);
    assert_ptr_not_equal(s0, s3);
    stats_inc(s0, T_hits);
    stats_add(s3, T_hits, 41);
    stats_inc(s3, T_misses);
    assert_int_equal(stats_scope_value(sc, T_hits), 42);
    assert_int_equal(stats_scope_value(sc, T_misses), 1);
    stats_gauge_inc(s0, T_active);
    stats_gauge_inc(s0, T_active);
    stats_gauge_dec(s3, T_active); /* opened on one thread, closed on another */
    assert_int_equal(stats_scope_value(sc, T_active), 1);
    stats_gauge_set(s0, T_active, 7);
    assert_int_equal(stats_scope_value(sc, T_active), 6);
    stats_scope_unref(sc);
}

static void test_values_go_with_the_scope(void **state) {
    (void)state;
    struct stats_scope *sc = stats_scope_get(store, &t_stats_group, SV("a."));
    stats_inc(stats_shard(sc, 1), T_hits);
    stats_record(stats_shard(sc, 1), T_time, 5);
    stats_text_set(sc, T_label, SV("x"));
    stats_text_set(sc, T_label, SV("y"));
    stats_scope_unref(sc);
    sc = stats_scope_get(store, &t_stats_group, SV("a."));
    assert_int_equal(stats_scope_value(sc, T_hits), 0);
    stats_scope_unref(sc);
}

static void test_reset(void **state) {
    (void)state;
    struct stats_scope *sc = stats_scope_get(store, &t_stats_group, SV("a."));
    struct stat_dyn *d = stats_dyn(sc, SV("extra"), STAT_COUNTER),
                    *g = stats_dyn(sc, SV("level"), STAT_GAUGE);
    struct stats_shard *sh = stats_shard(sc, 0);
    stats_add(sh, T_hits, 5);
    stats_gauge_set(sh, T_active, 3);
    stat_dyn_add(d, 4);
    stat_dyn_set(g, 9);
    stats_reset_counters(store);
    assert_int_equal(stats_scope_value(sc, T_hits), 0);
    assert_int_equal(stats_scope_value(sc, T_active), 3);
    assert_int_equal(stat_dyn_value(d), 0);
    assert_int_equal(stat_dyn_value(g), 9);
    stats_add(sh, T_hits, 2);
    stat_dyn_add(d, 1);
    assert_int_equal(stats_scope_value(sc, T_hits), 2);
    assert_int_equal(stat_dyn_value(d), 1);
    stats_reset_counters(store);
    assert_int_equal(stats_scope_value(sc, T_hits), 0);
    stats_scope_unref(sc);
}

static void test_dyn_is_bounded(void **state) {
    (void)state;
    struct stats_scope *sc = stats_scope_get(store, &t_stats_group, SV("a."));
    struct stat_dyn *first = stats_dyn(sc, SV("n0"), STAT_COUNTER);
    for (int i = 0; i < STATS_DYN_MAX; i++) {
        char name[32];
        int n = snprintf(name, sizeof(name), "n%d", i);
        assert_non_null(stats_dyn(sc, sv_from(name, (size_t)n), STAT_COUNTER));
    }
    assert_ptr_equal(stats_dyn(sc, SV("n0"), STAT_COUNTER), first);
    struct stat_dyn *over = stats_dyn(sc, SV("more"), STAT_COUNTER);
    assert_ptr_equal(stats_dyn(sc, SV("and more"), STAT_COUNTER), over);
    assert_ptr_not_equal(stats_dyn(sc, SV("gauge"), STAT_GAUGE), over);
    stat_dyn_add(over, 2);
    assert_int_equal(stat_dyn_value(over), 2);
    stat_dyn_record(stats_dyn(sc, SV("h"), STAT_HISTOGRAM), 3);
    stats_scope_unref(sc);
}

static void test_codes(void **state) {
    (void)state;
    struct stats_scope *sc = stats_scope_get(store, &t_stats_group, SV("a."));
    struct stats_codes *c = stats_codes_new(sc, "rq_");
    static const unsigned codes[] = {200, 200, 404, 503, 0, 99, 600, 1000, 100, 599};
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        stats_codes_inc(c, codes[i]);
    }
    stats_codes_inc_class(c, 201);
    assert_int_equal(stat_dyn_value(stats_dyn(sc, SV("rq_200"), STAT_COUNTER)), 2);
    assert_int_equal(stat_dyn_value(stats_dyn(sc, SV("rq_2xx"), STAT_COUNTER)), 3);
    assert_int_equal(stat_dyn_value(stats_dyn(sc, SV("rq_404"), STAT_COUNTER)), 1);
    assert_int_equal(stat_dyn_value(stats_dyn(sc, SV("rq_1xx"), STAT_COUNTER)), 1);
    assert_int_equal(stat_dyn_value(stats_dyn(sc, SV("rq_5xx"), STAT_COUNTER)), 2);
    /* made by this line */
    assert_int_equal(stat_dyn_value(stats_dyn(sc, SV("rq_6xx"), STAT_COUNTER)), 0);
    stats_scope_unref(sc);
    stats_codes_inc(c, 200); /* the codes hold the scope */
    stats_codes_free(c);
    stats_codes_free(NULL);
}

/* Every name of the process-wide tables, at least: no group is empty and no name has a blank. */
static void test_server_tables(void **state) {
    (void)state;
    const struct stats_group *groups[] = {
        &server_stats_group,           &cluster_manager_stats_group,
        &listener_manager_stats_group, &xds_stats_group,
        &control_plane_stats_group,    &runtime_stats_group,
        &filesystem_stats_group,       &watchdog_stats_group,
        &dispatcher_stats_group,       &tls_cluster_manager_stats_group};
    for (size_t i = 0; i < sizeof(groups) / sizeof(groups[0]); i++) {
        assert_row(groups[i]->n > 0, i);
        for (unsigned k = 0; k < groups[i]->n; k++) {
            assert_row(groups[i]->defs[k].name[0] && !strchr(groups[i]->defs[k].name, ' '), i);
        }
    }
    assert_string_equal(server_stats_group.defs[SERVER_state].name, "state");
    assert_int_equal(xds_stats_group.defs[XDS_version_text].kind, STAT_TEXT);
}

/* --- the tree under it --- */

static void test_tree(void **state) {
    (void)state;
    enum { N = 2000 };
    static struct stats_tree_node nodes[N];
    static char names[N][8];
    struct stats_tree t = {0};
    for (int i = 0; i < N; i++) {
        int k = (i * 7919) % N; /* shuffled */
        snprintf(names[k], sizeof(names[k]), "%05d", k);
        nodes[k] = (struct stats_tree_node){.key = sv_cstr(names[k]), .sub = 1};
        stats_tree_insert(&t, &nodes[k]);
    }
    assert_int_equal(t.count, N);
    int seen = 0;
    for (struct stats_tree_node *n = stats_tree_first(&t); n;
         n = stats_tree_after(&t, n->key, n->sub)) {
        assert_ptr_equal(n, &nodes[seen++]);
    }
    assert_int_equal(seen, N);
    for (int i = 0; i < N; i += 2) {
        stats_tree_remove(&t, &nodes[i]);
    }
    assert_null(stats_tree_find(&t, SV("00000"), 1));
    assert_null(stats_tree_find(&t, SV("00001"), 2));
    assert_ptr_equal(stats_tree_find(&t, SV("00001"), 1), &nodes[1]);
    assert_ptr_equal(stats_tree_after(&t, SV("00002"), 1), &nodes[3]); /* from a key that is gone */
    assert_null(stats_tree_after(&t, SV("99999"), 1));
}

/* --- threads --- */

static bool stop;
static void *churn(void *arg) {
    uintptr_t id = (uintptr_t)arg;
    for (unsigned i = 0; !__atomic_load_n(&stop, __ATOMIC_RELAXED); i++) {
        char name[32];
        int n = snprintf(name, sizeof(name), "s%u.", i % 50);
        struct stats_scope *sc = stats_scope_get(store, &t_stats_group, sv_from(name, (size_t)n));
        struct stats_shard *sh = stats_shard(sc, (unsigned)id);
        stats_inc(sh, T_hits);
        stats_gauge_inc(sh, T_active);
        stats_record(sh, T_time, i);
        stat_dyn_add(stats_dyn(sc, SV("dyn"), STAT_COUNTER), 1);
        stats_scope_unref(sc);
    }
    return NULL;
}

static void test_churn_beside_flush(void **state) {
    (void)state;
    pthread_t t[3];
    stop = false;
    for (uintptr_t i = 0; i < 3; i++) {
        assert_int_equal(pthread_create(&t[i], NULL, churn, (void *)(i + 1)), 0);
    }
    for (int i = 0; i < 200; i++) {
        stats_flush(store);
        stats_reset_counters(store);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    for (int i = 0; i < 3; i++) {
        pthread_join(t[i], NULL);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_find_or_create, setup, teardown),
        cmocka_unit_test_setup_teardown(test_values_sum_over_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_values_go_with_the_scope, setup, teardown),
        cmocka_unit_test_setup_teardown(test_reset, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dyn_is_bounded, setup, teardown),
        cmocka_unit_test_setup_teardown(test_codes, setup, teardown),
        cmocka_unit_test(test_server_tables),
        cmocka_unit_test(test_tree),
        cmocka_unit_test_setup_teardown(test_churn_beside_flush, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
