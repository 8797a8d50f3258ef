/* Snapshots: finding clusters by name while they come and go, versions that share what did not
 * change; slots of names that other threads let go. */
#include <pthread.h>

#include "proxy/config/config.h"
#include "tests/support/unit.h"

#define CLUSTERS 2000

static struct resource *cluster(unsigned i) {
    char name[32];
    int n = snprintf(name, sizeof(name), "cluster-%u", i);
    return resource_uncompiled(RES_CLUSTER, sv_from(name, (size_t)n), SV(""), SV(""));
}

static void add(struct snapshot *s, slot_t slot, struct resource *r, size_t n) {
    table_set(&s->tables[TABLE_CLUSTERS], slot, &r->shared);
    snapshot_add_cluster_name(s, slot, n);
}

static struct snapshot *filled(struct resource **all) {
    struct snapshot *s = snapshot_new(NULL);
    for (unsigned i = 0; i < CLUSTERS; i++) {
        all[i] = cluster(i);
        add(s, i, all[i], i + 1);
    }
    return s;
}

static void drop(struct snapshot *s, struct resource **all) {
    shared_unref(&s->shared);
    for (unsigned i = 0; i < CLUSTERS; i++) {
        shared_unref(&all[i]->shared);
    }
}

static void names_are_found(void **state) {
    (void)state;
    struct resource *all[CLUSTERS];
    struct snapshot *s = filled(all);
    for (unsigned i = 0; i < CLUSTERS; i++) {
        assert_int_equal(snapshot_find_cluster(s, all[i]->name), i);
    }
    assert_int_equal(snapshot_find_cluster(s, SV("cluster-2000")), SLOT_NONE);
    assert_int_equal(snapshot_find_cluster(s, SV("")), SLOT_NONE);
    drop(s, all);
}

static void none_in_an_empty_one(void **state) {
    (void)state;
    struct snapshot *s = snapshot_new(NULL);
    assert_int_equal(snapshot_find_cluster(s, SV("cluster-0")), SLOT_NONE);
    shared_unref(&s->shared);
}

static void versions_do_not_disturb_each_other(void **state) {
    (void)state;
    struct resource *all[CLUSTERS], *late = cluster(CLUSTERS);
    struct snapshot *before = filled(all), *after = snapshot_new(before);
    snapshot_remove_cluster_name(after, 7);
    table_set(&after->tables[TABLE_CLUSTERS], 7, NULL);
    add(after, CLUSTERS, late, CLUSTERS);
    assert_int_equal(snapshot_find_cluster(before, SV("cluster-7")), 7);
    assert_int_equal(snapshot_find_cluster(after, SV("cluster-7")), SLOT_NONE);
    assert_int_equal(snapshot_find_cluster(before, late->name), SLOT_NONE);
    assert_int_equal(snapshot_find_cluster(after, late->name), CLUSTERS);
    assert_int_equal(snapshot_find_cluster(after, SV("cluster-1999")), 1999);
    shared_unref(&after->shared);
    drop(before, all);
    shared_unref(&late->shared);
}

/* A change copies a page and a bucket, whatever the number of clusters. */
static void a_change_copies_little(void **state) {
    (void)state;
    struct resource *all[CLUSTERS];
    struct snapshot *before = filled(all), *after = snapshot_new(before);
    snapshot_remove_cluster_name(after, 0);
    unsigned copied = 0;
    for (uint32_t i = 0; i < before->cluster_buckets.pages_n; i++) {
        copied += before->cluster_buckets.pages[i] != after->cluster_buckets.pages[i];
    }
    assert_int_equal(copied, 1);
    assert_true(before->cluster_buckets.pages_n > 1);
    table_set(&after->tables[TABLE_CLUSTERS], 0, NULL);
    shared_unref(&after->shared);
    drop(before, all);
}

/* ---- slots of names ---- */

static unsigned swept_n;
static void on_swept(void *arg, slot_t slot) {
    (void)arg;
    (void)slot;
    swept_n++;
}

static void slots_are_kept_while_referred_to(void **state) {
    (void)state;
    struct names *n = names_new();
    slot_t a = names_acquire(n, SV("a")), b = names_acquire(n, SV("b"));
    names_release(n, a);
    assert_int_equal(names_acquire(n, SV("a")), a); /* asked for again before the sweep */
    swept_n = 0;
    names_sweep(n, on_swept, NULL);
    assert_int_equal(swept_n, 0);
    names_release(n, a);
    names_release(n, b);
    names_acquire(n, SV("b"));
    names_sweep(n, on_swept, NULL);
    assert_int_equal(swept_n, 1);
    assert_int_equal(names_find(n, SV("a")), SLOT_NONE);
    assert_int_equal(names_find(n, SV("b")), b);
    assert_int_equal(names_acquire(n, SV("c")), a); /* free slots are used again */
    names_sweep(n, on_swept, NULL);
    assert_int_equal(swept_n, 1); /* once for each time */
    names_free(n);
}

#define ROUNDS 20000
struct letting_go {
    struct names *n;
    slot_t slot;
};

static void *let_go(void *arg) {
    const struct letting_go *l = arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        names_release(l->n, l->slot);
    }
    return NULL;
}

/* Whichever way releases on another thread and sweeps fall together, the last sweep finds all. */
static void no_release_is_missed(void **state) {
    (void)state;
    struct letting_go l = {.n = names_new()};
    l.slot = names_acquire(l.n, SV("x"));
    for (unsigned i = 1; i < ROUNDS; i++) {
        names_ref(l.n, l.slot);
    }
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, let_go, &l), 0);
    swept_n = 0;
    for (unsigned i = 0; i < ROUNDS && !swept_n; i++) {
        names_sweep(l.n, on_swept, NULL);
    }
    pthread_join(thread, NULL);
    names_sweep(l.n, on_swept, NULL);
    assert_int_equal(swept_n, 1);
    assert_int_equal(names_find(l.n, SV("x")), SLOT_NONE);
    names_free(l.n);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_found),
        cmocka_unit_test(none_in_an_empty_one),
        cmocka_unit_test(versions_do_not_disturb_each_other),
        cmocka_unit_test(a_change_copies_little),
        cmocka_unit_test(slots_are_kept_while_referred_to),
        cmocka_unit_test(no_release_is_missed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
