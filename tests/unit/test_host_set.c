/* Host sets: loads of priorities (the tables of Envoy's documentation), panic, localities, what
 * survives an update. */
#include "tests/support/hosts.h"

#include <stdio.h>

#define BAD HOST_FLAG(FAILED_EDS_HEALTH)
#define MEH HOST_FLAG(DEGRADED_EDS_HEALTH)

/* n hosts in a priority, of them so many healthy and degraded. */
struct level {
    unsigned n, healthy, degraded;
};
static struct host_set *levels(struct fixture_cluster *f, const struct level *v, unsigned n) {
    static struct fixture_host hosts[512];
    static char text[512][40];
    unsigned k = 0;
    for (unsigned p = 0; p < n; p++) {
        for (unsigned i = 0; i < v[p].n; i++, k++) {
            snprintf(text[k], sizeof(text[k]), "10.%u.%u.%u:80", p, i / 250, i % 250 + 1);
            uint32_t flags = i < v[p].healthy ? 0 : i < v[p].healthy + v[p].degraded ? MEH : BAD;
            hosts[k] = (struct fixture_host){.address = text[k], .priority = p, .flags = flags};
        }
    }
    hosts[k] = (struct fixture_host){0};
    struct host_set_builder *b = fixture_builder(f, hosts, NULL, 1);
    for (unsigned p = 0; p < n; p++) {
        /* empty priorities are there too */
        host_set_builder_locality(b, p, &(struct locality){0}, 0);
    }
    return host_set_builder_finish(b, NULL);
}

static void test_priority_loads(void **state) {
    (void)state;
    static const struct {
        struct level v[3];
        unsigned n, panic_pct;
        unsigned healthy[3], degraded[3];
        bool panic[3];
    } rows[] = {
        /* two priorities */
        {{{100, 100, 0}, {100, 100, 0}}, 2, 50, {100, 0}, {0}, {0}},
        {{{100, 72, 0}, {100, 72, 0}}, 2, 50, {100, 0}, {0}, {0}},
        {{{100, 71, 0}, {100, 71, 0}}, 2, 50, {99, 1}, {0}, {0}},
        {{{100, 50, 0}, {100, 50, 0}}, 2, 50, {70, 30}, {0}, {0}},
        {{{100, 25, 0}, {100, 100, 0}}, 2, 50, {35, 65}, {0}, {0}},
        /* three */
        {{{100, 100, 0}, {100, 100, 0}, {100, 100, 0}}, 3, 50, {100, 0, 0}, {0}, {0}},
        {{{100, 72, 0}, {100, 72, 0}, {100, 100, 0}}, 3, 50, {100, 0, 0}, {0}, {0}},
        {{{100, 71, 0}, {100, 71, 0}, {100, 100, 0}}, 3, 50, {99, 1, 0}, {0}, {0}},
        {{{100, 50, 0}, {100, 50, 0}, {100, 100, 0}}, 3, 50, {70, 30, 0}, {0}, {0}},
        {{{100, 25, 0}, {100, 100, 0}, {100, 100, 0}}, 3, 50, {35, 65, 0}, {0}, {0}},
        {{{100, 25, 0}, {100, 25, 0}, {100, 100, 0}}, 3, 50, {35, 35, 30}, {0}, {0}},
        /* totals below 100 % are normalised; then panic counts */
        {{{100, 25, 0}, {100, 25, 0}, {100, 20, 0}}, 3, 0, {37, 35, 28}, {0}, {0}},
        {{{100, 0, 0}, {100, 15, 0}}, 2, 0, {0, 100}, {0}, {0}},
        /* replaced below: all in panic go by hosts */
        {{{100, 40, 0}, {100, 20, 0}}, 2, 50, {67, 33}, {0}, {1, 1}},
        /* degraded: they take what the healthy cannot */
        {{{100, 100, 0}, {100, 100, 0}}, 2, 50, {100, 0}, {0}, {0}},
        {{{100, 50, 50}}, 1, 50, {70}, {30}, {0}},
        {{{100, 0, 100}}, 1, 50, {0}, {100}, {0}},
        {{{100, 25, 25}, {100, 25, 0}}, 2, 50, {35, 35}, {30, 0}, {0}},
        /* nobody */
        {{{0, 0, 0}}, 1, 50, {100}, {0}, {1}},
        {{{0, 0, 0}}, 1, 0, {100}, {0}, {0}},
        {{{10, 0, 0}}, 1, 0, {100}, {0}, {0}},
        {{{10, 0, 0}, {0, 0, 0}, {30, 0, 0}}, 3, 50, {25, 0, 75}, {0}, {1, 1, 1}},
        {{{1, 0, 0}, {1, 0, 0}, {1, 0, 0}}, 3, 50, {34, 33, 33}, {0}, {1, 1, 1}},
        /* panic of one level needs a total below 100 */
        {{{100, 1, 0}, {100, 72, 0}}, 2, 50, {1, 99}, {0}, {0}},
        {{{100, 5, 0}, {100, 60, 0}}, 2, 50, {8, 92}, {0}, {1, 0}},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture_cluster f;
        fixture_init(&f, &round_robin_lb_policy);
        f.cfg.healthy_panic_pct = rows[i].panic_pct;
        struct host_set *s = levels(&f, rows[i].v, rows[i].n);
        assert_int_equal(s->priorities_n, rows[i].n);
        unsigned sum = 0;
        for (unsigned p = 0; p < rows[i].n; p++) {
            sum += s->priorities[p].healthy_load_pct + s->priorities[p].degraded_load_pct;
            if (i == 13) { /* both 100 hosts in panic: half each */
                assert_row(s->priorities[p].healthy_load_pct == 50 && s->priorities[p].is_panic, i);
                continue;
            }
            assert_row(s->priorities[p].healthy_load_pct == rows[i].healthy[p], i);
            assert_row(s->priorities[p].degraded_load_pct == rows[i].degraded[p], i);
            assert_row(s->priorities[p].is_panic == rows[i].panic[p], i);
        }
        assert_row(sum == 100, i);
        shared_unref(&s->shared);
        fixture_fini(&f);
    }
}

static void test_excluded_hosts_do_not_count(void **state) {
    (void)state;
    struct fixture_cluster f;
    fixture_init(&f, &round_robin_lb_policy);
    const struct fixture_host v[] = {
        {.address = "10.0.0.1:80", .priority = 0}, {.address = "10.0.0.2:80", .priority = 0}, {0}};
    struct host_set_builder *b = host_set_builder_new(&f.cfg, NULL, 1);
    f.cfg.ignore_new_hosts_until_first_hc = true;
    host_set_builder_checked(b);
    unsigned l = host_set_builder_locality(b, 0, &(struct locality){0}, 0);
    for (const struct fixture_host *h = v; h->address; h++) {
        struct host_spec spec = {0};
        assert_true(addr_parse_ip_port(sv_cstr(h->address), &spec.addr));
        host_set_builder_add(b, l, &spec, 1, UINT16_MAX, 0);
    }
    struct host_set *s = host_set_builder_finish(b, NULL);
    assert_int_equal(s->excluded_n, 2);
    assert_true(host_flags_change(s->entries[0].host, 0,
                                  HOST_FLAG(FAILED_ACTIVE_HC) | HOST_FLAG(PENDING_ACTIVE_HC), 5));
    assert_false(host_flags_change(s->entries[0].host, 0, HOST_FLAG(PENDING_ACTIVE_HC), 6));
    assert_int_equal(s->entries[0].host->healthy_since_us, 5);
    struct host_set *now = host_set_rebuild(&f.cfg, s);
    assert_int_equal(now->healthy_n, 1);
    assert_int_equal(now->excluded_n, 1);
    assert_int_equal(now->priorities[0].healthy_load_pct, 100); /* one of one that counts */
    assert_false(now->priorities[0].is_panic);
    shared_unref(&s->shared);
    assert_int_equal(now->priorities[0].healthy.v[0]->host->addr.port, 80); /* the base lives on */
    shared_unref(&now->shared);
    fixture_fini(&f);
}

static void test_update_keeps_hosts(void **state) {
    (void)state;
    struct fixture_cluster f;
    fixture_init(&f, &round_robin_lb_policy);
    const struct fixture_host a[] = {{.address = "10.0.0.1:80"},
                                     {.address = "10.0.0.2:80", .hostname = "two"},
                                     {.address = "10.0.0.3:80", .flags = BAD},
                                     {0}};
    const struct fixture_host b[] = {{.address = "10.0.0.4:80"},
                                     {.address = "10.0.0.3:80", .weight = 7},
                                     {.address = "10.0.0.2:80", .hostname = "zwei"},
                                     {.address = "10.0.0.4:80", .weight = 9},
                                     {0}};
    struct host_set *was = fixture_hosts(&f, a, NULL);
    host_flags_set(was->entries[1].host, HOST_FLAG(FAILED_OUTLIER_CHECK));
    struct host_set_diff d;
    struct host_set *now = host_set_builder_finish(fixture_builder(&f, b, was, 9), &d);
    assert_int_equal(now->hosts_n, 3); /* the duplicate is left out */
    assert_int_equal(d.added, 2);
    assert_int_equal(d.removed, 2);
    assert_ptr_equal(now->entries[1].host, was->entries[2].host);
    assert_int_equal(now->entries[1].weight, 7);
    assert_int_equal(host_flags(now->entries[1].host), 0);
    assert_int_equal(now->entries[1].host->healthy_since_us, 9);
    /* another hostname is another host … */
    assert_ptr_not_equal(now->entries[2].host, was->entries[1].host);
    /* … as healthy as it was */
    assert_int_equal(host_flags(now->entries[2].host), HOST_FLAG(FAILED_OUTLIER_CHECK));
    assert_true(now->version > was->version);
    assert_int_equal(now->max_host_weight, 7);
    shared_unref(&was->shared);
    assert_sv_is(now->entries[1].host->address_text, "10.0.0.3:80");
    shared_unref(&now->shared);
    fixture_fini(&f);
}

static void test_find(void **state) {
    (void)state;
    struct fixture_cluster f;
    fixture_init(&f, &round_robin_lb_policy);
    for (unsigned n = 1; n <= 40; n += 13) { /* with and without an index */
        struct level v[2] = {{n, n, 0}, {n, n, 0}};
        struct host_set *s = levels(&f, v, 2);
        for (unsigned i = 0; i < s->hosts_n; i++) {
            const struct host_entry *e = host_set_find(s, &s->entries[i].host->addr);
            assert_ptr_equal(e, &s->entries[i]);
            assert_null(host_set_find_next(s, e));
            assert_true(host_set_has(s, e->host));
        }
        struct addr other;
        assert_true(addr_parse_ip_port(SV("10.0.0.1:81"), &other));
        assert_null(host_set_find(s, &other));
        shared_unref(&s->shared);
    }
    /* the same address in two priorities */
    const struct fixture_host v[] = {
        {.address = "10.0.0.1:80", .priority = 0}, {.address = "10.0.0.1:80", .priority = 1}, {0}};
    struct host_set *s = fixture_hosts(&f, v, NULL);
    assert_int_equal(s->hosts_n, 2);
    const struct host_entry *e = host_set_find(s, &s->entries[0].host->addr);
    assert_ptr_equal(host_set_find_next(s, e), &s->entries[1]);
    shared_unref(&s->shared);
    fixture_fini(&f);
}

static void test_localities(void **state) {
    (void)state;
    struct fixture_cluster f;
    fixture_init(&f, &round_robin_lb_policy);
    f.cfg.locality_weighted = true;
    const struct fixture_host v[] = {
        {.address = "10.0.0.1:80", .zone = "b", .zone_weight = 1},
        {.address = "10.0.0.2:80", .zone = "b", .zone_weight = 1, .flags = BAD},
        {.address = "10.0.0.3:80", .zone = "a", .zone_weight = 2},
        {.address = "10.0.0.4:80", .zone = "c"},
        {0}};
    struct host_set *s = fixture_hosts(&f, v, NULL);
    const struct host_priority *p = &s->priorities[0];
    assert_int_equal(p->localities_n, 3);
    assert_true(p->has_locality_weights);
    assert_sv_is(p->localities[0].id.zone, "a"); /* sorted, not as given */
    assert_int_equal(p->localities[1].lists->healthy.n, 1);
    assert_int_equal(p->localities[1].hosts_n, 2);
    assert_true(p->localities[0].healthy_weight == 2.0);
    /* 1 × 1.4 × 1/2 */
    assert_true(p->localities[1].healthy_weight > 0.699 && p->localities[1].healthy_weight < 0.701);
    assert_true(p->localities[2].healthy_weight == 0);
    assert_true(p->localities[1].degraded_weight == 0);
    shared_unref(&s->shared);
    fixture_fini(&f);
}

static void test_flags_text(void **state) {
    (void)state;
    static const struct {
        uint32_t flags;
        const char *text;
    } rows[] = {{0, "healthy"},
                {HOST_FLAG(FAILED_ACTIVE_HC), "/failed_active_hc"},
                {HOST_FLAG(FAILED_EDS_HEALTH) | HOST_FLAG(EDS_STATUS_DRAINING),
                 "/failed_eds_health/eds_status_draining"},
                {HOST_FLAG(DEGRADED_OUTLIER), "/degraded_outlier_detection"},
                {HOST_FLAG_EDS_HEALTHY, "healthy"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        BUF_AUTO struct buf b;
        buf_init(&b);
        host_flags_write(rows[i].flags, &b);
        assert_sv_is(buf_pullup(&b, buf_len(&b)), rows[i].text);
    }
    static const uint32_t eds[] = {0,
                                   HOST_FLAG_EDS_HEALTHY,
                                   BAD,
                                   BAD | HOST_FLAG(EDS_STATUS_DRAINING),
                                   BAD | HOST_FLAG_EDS_TIMEOUT,
                                   MEH,
                                   0,
                                   0};
    for (unsigned i = 0; i < ARRAY_LEN(eds); i++) {
        assert_int_equal(host_flags_of_eds(i), eds[i]);
    }
}

static void test_builder_freed_unfinished(void **state) {
    (void)state;
    struct fixture_cluster f;
    fixture_init(&f, &round_robin_lb_policy);
    const struct fixture_host v[] = {{.address = "10.0.0.1:80"}, {.address = "[::1]:80"}, {0}};
    host_set_builder_free(fixture_builder(&f, v, NULL, 1));
    host_set_builder_free(NULL);
    fixture_fini(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_priority_loads),
        cmocka_unit_test(test_excluded_hosts_do_not_count),
        cmocka_unit_test(test_update_keeps_hosts),
        cmocka_unit_test(test_find),
        cmocka_unit_test(test_localities),
        cmocka_unit_test(test_flags_text),
        cmocka_unit_test(test_builder_freed_unfinished),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
