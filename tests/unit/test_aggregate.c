/* Aggregate clusters: levels of members, who is chosen, what follows a change, what a request
 * holds, and shares of retries at other priorities. */
#include "proxy/upstream/aggregate.h"

#include "proxy/api/worker.h"
#include "proxy/config/cluster_compile.h"
#include "tests/support/hosts.h"

#define MEMBERS_MAX 4u
#define TRIES 400u

struct worker {
    uint64_t generation;
    struct cluster_view *views[MEMBERS_MAX + 1]; /* by slot; NULL: no such cluster */
};
struct transport_factory *worker_transport(struct worker *w, slot_t slot) {
    (void)w, (void)slot;
    return NULL;
}
struct cluster_view *worker_cluster(struct worker *w, slot_t slot) {
    return slot == SLOT_NONE ? NULL : w->views[slot];
}
uint64_t worker_clusters_generation(const struct worker *w) { return w->generation; }

struct bench {
    struct worker w;
    struct loop loop;
    struct rng rng;
    struct arena arena;
    struct fixture_cluster f[MEMBERS_MAX + 1]; /* the last one is the aggregate */
    slot_t slots[MEMBERS_MAX];
    struct aggregate_config config;
    struct cluster_view *view;
};

static void set_hosts(struct bench *b, unsigned i, const struct fixture_host *v) {
    struct host_set *s = v ? fixture_hosts(&b->f[i], v, NULL) : NULL;
    cluster_view_set_hosts(b->w.views[i], s);
    if (s) {
        shared_unref(&s->shared);
    }
    b->w.generation++;
}

/* hosts: of each member; NULL: there is no such cluster. */
static void bench_init(struct bench *b, const struct fixture_host *const *hosts, unsigned n) {
    memset(b, 0, sizeof(*b));
    assert_int_equal(loop_init(&b->loop, 2), 0);
    rng_seed(&b->rng, 1);
    arena_init(&b->arena, 0);
    for (unsigned i = 0; i < n; i++) {
        fixture_init(&b->f[i], &round_robin_lb_policy);
        b->slots[i] = i;
        if (hosts[i]) {
            b->w.views[i] = cluster_view_new(&b->w, &b->loop, &b->f[i].cfg, NULL, NULL);
            set_hosts(b, i, hosts[i]);
        }
    }
    struct fixture_cluster *own = &b->f[MEMBERS_MAX];
    fixture_init(own, &cluster_provided_lb_policy);
    b->config = (struct aggregate_config){b->slots, n};
    own->cfg.type = CLUSTER_TYPE_AGGREGATE;
    own->cfg.aggregate = &b->config;
    b->view = cluster_view_new(&b->w, &b->loop, &own->cfg, NULL, NULL);
    b->w.views[MEMBERS_MAX] = b->view;
}

static void bench_fini(struct bench *b) {
    for (unsigned i = 0; i <= MEMBERS_MAX; i++) {
        if (b->w.views[i]) {
            cluster_view_retire(b->w.views[i]);
        }
    }
    for (unsigned i = 0; i <= MEMBERS_MAX; i++) {
        if (b->f[i].store) {
            fixture_fini(&b->f[i]);
        }
    }
    arena_fini(&b->arena);
    loop_fini(&b->loop);
}

/* How often each host (by the last digit of its address) was picked. */
struct picked {
    unsigned of[10], none;
};
static struct picked pick_many(struct bench *b) {
    struct picked p = {0};
    for (unsigned i = 0; i < TRIES; i++) {
        struct lb_context ctx = {.rng = &b->rng};
        const struct host_entry *e = NULL;
        struct cluster_view *m = cluster_view_member(b->view, &ctx);
        const struct host *h = m ? cluster_view_pick(m, &ctx, &e) : NULL;
        if (h) {
            p.of[h->address_text.p[sv_find(h->address_text, ':') - 1] - '0']++;
        } else {
            p.none++;
        }
    }
    return p;
}

#define UNHEALTHY HOST_FLAG(FAILED_EDS_HEALTH)
#define DEGRADED HOST_FLAG(DEGRADED_EDS_HEALTH)
static const struct fixture_host one[] = {{.address = "10.0.0.1:80"}, {0}};
static const struct fixture_host two[] = {{.address = "10.0.0.2:80"}, {0}};
static const struct fixture_host sick[] = {{.address = "10.0.0.3:80", .flags = UNHEALTHY}, {0}};
static const struct fixture_host degraded[] = {{.address = "10.0.0.4:80", .flags = DEGRADED}, {0}};
static const struct fixture_host none[] = {{0}};
static const struct fixture_host half[] = {{.address = "10.0.0.1:80"},
                                           {.address = "10.0.0.3:80", .flags = UNHEALTHY},
                                           {.address = "10.0.0.5:80", .priority = 2},
                                           {0}};

static void test_who_is_chosen(void **state) {
    (void)state;
    static const struct {
        const char *what;
        const struct fixture_host *hosts[MEMBERS_MAX];
        unsigned n, first, second; /* digits of hosts; 0: none */
    } rows[] = {
        {"the first member has all", {one, two}, 2, 1, 0},
        {"a sick one is passed over", {sick, two}, 2, 2, 0},
        {"one without hosts", {none, two}, 2, 2, 0},
        {"one that is not there", {NULL, two}, 2, 2, 0},
        {"none is there", {NULL, NULL}, 2, 0, 0},
        {"none has hosts", {none, none}, 2, 0, 0},
        {"half of the first: its own next priority has the rest", {half, two}, 2, 1, 5},
        {"degraded before healthy of later members? No", {degraded, two}, 2, 2, 0},
        {"degraded when nothing else is there", {degraded, sick}, 2, 4, 0},
        {"all are sick: panic, by numbers of hosts", {sick}, 1, 3, 0},
        {"twice the same", {one, one, two}, 3, 1, 0},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct bench b;
        bench_init(&b, rows[i].hosts, rows[i].n);
        struct picked p = pick_many(&b);
        unsigned want = rows[i].first ? p.of[rows[i].first] : p.none;
        want += rows[i].second ? p.of[rows[i].second] : 0;
        bool is_split = !rows[i].second ||
                        (p.of[rows[i].first] > TRIES / 2 && p.of[rows[i].second] > TRIES / 5);
        if (want != TRIES || !is_split) {
            fail_msg("%s: %u of %u", rows[i].what, want, TRIES);
        }
        bench_fini(&b);
    }
}

static void test_nested_and_cyclic_members_add_nothing(void **state) {
    (void)state;
    struct bench b;
    const struct fixture_host *hosts[] = {one};
    bench_init(&b, hosts, 1);
    slot_t members[] = {MEMBERS_MAX, SLOT_NONE, 0, MEMBERS_MAX}; /* itself, before and after */
    b.config = (struct aggregate_config){members, ARRAY_LEN(members)};
    b.w.generation++;
    assert_int_equal(pick_many(&b).of[1], TRIES);
    b.config.members_n = 2; /* only itself */
    b.w.generation++;
    assert_int_equal(pick_many(&b).none, TRIES);
    bench_fini(&b);
}

static void test_changes_are_followed(void **state) {
    (void)state;
    struct bench b;
    const struct fixture_host *hosts[] = {one, two};
    bench_init(&b, hosts, 2);
    assert_int_equal(pick_many(&b).of[1], TRIES);
    set_hosts(&b, 0, sick);
    assert_int_equal(pick_many(&b).of[2], TRIES);
    set_hosts(&b, 0, none);
    assert_int_equal(pick_many(&b).of[2], TRIES);
    struct cluster_view *gone = b.w.views[1];
    b.w.views[1] = NULL; /* removed */
    b.w.generation++;
    assert_int_equal(pick_many(&b).none, TRIES);
    b.w.views[1] = gone; /* and back */
    set_hosts(&b, 1, degraded);
    assert_int_equal(pick_many(&b).of[4], TRIES);
    bench_fini(&b);
}

/* What a request met stays while it is under way. */
static void test_held_members_outlive_their_removal(void **state) {
    (void)state;
    struct bench b;
    const struct fixture_host *hosts[] = {one, two};
    bench_init(&b, hosts, 2);
    struct lb_context ctx = {.rng = &b.rng};
    struct cluster_view *m = cluster_view_member(b.view, &ctx);
    struct cluster_hold *held = NULL;
    cluster_hold(&held, m, &b.arena);
    cluster_hold(&held, m, &b.arena); /* once is enough */
    assert_null(held->next);
    assert_int_equal(m->refs, 2);
    const struct host_entry *e;
    const struct host *h = cluster_view_pick(m, &ctx, &e);
    set_hosts(&b, 0, two);
    b.w.views[0] = NULL;
    cluster_view_retire(m);
    assert_sv_is(h->address_text, "10.0.0.1:80");
    cluster_holds_release(&held);
    assert_null(held);
    cluster_holds_release(&held); /* nothing is held */
    bench_fini(&b);
}

/* ---- previous_priorities ---- */

static void expect_shares(struct bench *b, struct cluster_view *v, struct priorities_tried *t,
                          const char *want) {
    const struct lb_priority_load *l = NULL;
    unsigned n = cluster_loads_without(v, t, &b->arena, &l);
    char got[128] = "";
    for (unsigned i = 0; i < n; i++) {
        size_t at = strlen(got);
        snprintf(got + at, sizeof(got) - at, "%s%u/%u", i ? " " : "", l[i].healthy_pct,
                 l[i].degraded_pct);
    }
    assert_string_equal(got, want);
}

static void test_shares_without_what_was_tried(void **state) {
    (void)state;
    static const struct fixture_host three[] = {{.address = "10.0.0.1:80"},
                                                {.address = "10.0.0.2:80", .priority = 1},
                                                {.address = "10.0.0.3:80", .priority = 2},
                                                {0}};
    struct bench b;
    const struct fixture_host *hosts[] = {three, sick, degraded};
    bench_init(&b, hosts, 3);
    struct priorities_tried t = {0};
    expect_shares(&b, b.w.views[0], &t, "100/0 0/0 0/0");
    priorities_tried_add(&t, 0);
    expect_shares(&b, b.w.views[0], &t, "0/0 100/0 0/0");
    priorities_tried_add(&t, 1);
    expect_shares(&b, b.w.views[0], &t, "0/0 0/0 100/0");
    assert_false(priorities_tried_none(&t));
    priorities_tried_add(&t, 2);
    expect_shares(&b, b.w.views[0], &t, "100/0 0/0 0/0");
    assert_true(priorities_tried_none(&t)); /* all were tried: forgotten */
    priorities_tried_add(&t, PRIORITIES_TRIED_MAX);
    priorities_tried_add(&t, UINT32_MAX);
    assert_true(priorities_tried_none(&t));
    expect_shares(&b, b.w.views[1], &t, ""); /* nobody is well: the cluster's own shares hold */
    expect_shares(&b, b.view, &t, "100/0 0/0 0/0 0/0 0/0");
    for (unsigned i = 0; i < 3; i++) {
        priorities_tried_add(&t, i);
    }
    expect_shares(&b, b.view, &t, "0/0 0/0 0/0 0/0 0/100");
    bench_fini(&b);
}

static void test_a_retry_goes_where_its_shares_say(void **state) {
    (void)state;
    struct bench b;
    const struct fixture_host *hosts[] = {one, two};
    bench_init(&b, hosts, 2);
    static const struct lb_priority_load second[] = {{0, 0}, {100, 0}};
    const struct host_entry *e;
    struct lb_context ctx = {.rng = &b.rng, .priority_loads = second, .priority_loads_n = 2};
    struct cluster_view *m = cluster_view_member(b.view, &ctx);
    assert_sv_is(cluster_view_pick(m, &ctx, &e)->address_text, "10.0.0.2:80");
    assert_int_equal(ctx.level, 1);
    assert_int_equal(ctx.priority, 0);
    /* Shares for fewer levels than there are now: the first has what is not given away. */
    static const struct lb_priority_load stale[] = {{0, 0}};
    ctx = (struct lb_context){.rng = &b.rng, .priority_loads = stale, .priority_loads_n = 1};
    m = cluster_view_member(b.view, &ctx);
    assert_sv_is(cluster_view_pick(m, &ctx, &e)->address_text, "10.0.0.1:80");
    bench_fini(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_who_is_chosen),
        cmocka_unit_test(test_nested_and_cyclic_members_add_nothing),
        cmocka_unit_test(test_changes_are_followed),
        cmocka_unit_test(test_held_members_outlive_their_removal),
        cmocka_unit_test(test_shares_without_what_was_tried),
        cmocka_unit_test(test_a_retry_goes_where_its_shares_say),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
