/* Subset balancing: what is refused, who is in which subset, what survives changes of health. */
#include "proxy/upstream/lb_subset.h"

#include "proxy/config/cluster_compile.h"
#include "tests/support/hosts.h"

struct bench {
    struct fixture_cluster f;
    struct fake_compile fc;
    struct stats_shard *stats;
};

static void bench_init(struct bench *b, const char *config) {
    fixture_init(&b->f, &round_robin_lb_policy);
    fake_compile_init(&b->fc, NULL);
    b->stats = stats_shard(b->f.cfg.stats, 2);
    cluster_subset_compile(
        &b->fc.ctx, fake_msg(&b->fc, "envoy.config.cluster.v3.Cluster.LbSubsetConfig", config),
        &b->f.cfg);
}

static void bench_fini(struct bench *b) {
    fake_compile_fini(&b->fc);
    fixture_fini(&b->f);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *config, *error;
    } rows[] = {
        {"subset_selectors { }", "subset_selectors[0]: keys: between 1 and 32"},
        {"subset_selectors { keys: 'a' fallback_policy: KEYS_SUBSET }",
         "fallback_keys_subset cannot be empty"},
        {"subset_selectors { keys: 'a' fallback_policy: KEYS_SUBSET fallback_keys_subset: 'b' }",
         "fallback_keys_subset must be a subset of selector keys"},
        {"subset_selectors { keys: 'a' fallback_policy: KEYS_SUBSET fallback_keys_subset: 'a' }",
         "fallback_keys_subset cannot be equal to keys"},
        {"subset_selectors { keys: 'a' } locality_weight_aware: true",
         "Locality weight aware subset LB requires that a locality_weighted_lb_config be set in c"},
        {"subset_selectors { keys: 'a' } metadata_fallback_policy: FALLBACK_LIST",
         "metadata_fallback_policy: only METADATA_NO_FALLBACK"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct bench b;
        bench_init(&b, rows[i].config);
        sv text = fake_errors(&b.fc);
        if (!sv_contains(text, sv_cstr(rows[i].error))) {
            fail_msg("row %zu: '%.*s'", i, SV_ARG(text));
        }
        bench_fini(&b);
    }
}

static void test_without_selectors_there_is_nothing(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, "fallback_policy: ANY_ENDPOINT");
    assert_null(b.f.cfg.subsets);
    bench_fini(&b);
}

/* ---- hosts with metadata ---- */

static const struct kv_metadata *metadata(struct bench *b, const char *version) {
    struct kv_metadata *m = kv_metadata_new(&b->fc.arena);
    struct kv_value v = kv_string(sv_cstr(version));
    kv_metadata_set(m, SV("envoy.lb"), SV("version"), &v);
    return m;
}

static struct host_set *hosts(struct bench *b, const char *const *versions, unsigned n) {
    struct host_set_builder *hb = host_set_builder_new(&b->f.cfg, NULL, 1);
    unsigned l = host_set_builder_locality(hb, 0, &(struct locality){0}, 0);
    for (unsigned i = 0; i < n; i++) {
        struct host_spec spec = {.metadata = versions[i] ? metadata(b, versions[i]) : NULL};
        char text[32];
        snprintf(text, sizeof(text), "10.0.0.%u:80", i + 1);
        assert_true(addr_parse_ip_port(sv_cstr(text), &spec.addr));
        host_set_builder_add(hb, l, &spec, 1, UINT16_MAX, 0);
    }
    return host_set_builder_finish(hb, NULL);
}

static uint32_t choose(struct bench *b, const struct host_set *s, const char *version) {
    struct kv_value v = kv_string(sv_cstr(version));
    const struct metadata_criterion c = {SV("version"), v, kv_hash(&v)};
    return lb_subset_choose(b->f.cfg.subsets, s->subsets, &(struct metadata_match){&c, 1},
                            b->stats);
}

static void test_members(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, "subset_selectors { keys: 'version' } fallback_policy: DEFAULT_SUBSET "
                   "default_subset { fields { key: 'version' value { string_value: '2' } } }");
    assert_true(diag_ok(&b.fc.diag));
    const char *versions[] = {"1", "2", "1", NULL};
    struct host_set *s = hosts(&b, versions, 4);
    assert_int_equal(lb_subsets_count(s->subsets), 3); /* the default one, too */
    assert_int_equal(lb_subsets_new(s->subsets, NULL), 2);
    const struct host_set *one = lb_subset_hosts(s->subsets, choose(&b, s, "1"));
    assert_int_equal(one->hosts_n, 2);
    assert_ptr_equal(one->entries[1].host, s->entries[2].host);
    assert_int_equal(one->priorities[0].healthy_load_pct, 100);
    uint32_t dflt = choose(&b, s, "9");
    assert_int_equal(lb_subset_hosts(s->subsets, dflt)->entries[0].host->addr.ip[3], 2);
    assert_int_equal(fixture_stat(&b.f, CLUSTER_lb_subsets_fallback), 1);
    host_flags_set(s->entries[0].host, HOST_FLAG(FAILED_ACTIVE_HC));
    struct host_set *now = host_set_rebuild(&b.f.cfg, s);
    shared_unref(&s->shared); /* what it was made of lives on */
    one = lb_subset_hosts(now->subsets, choose(&b, now, "1"));
    assert_int_equal(one->hosts_n, 2);
    assert_int_equal(one->healthy_n, 1);
    const char *others[] = {"3", "2", NULL, NULL};
    struct host_set *later = hosts(&b, others, 4);
    assert_int_equal(lb_subsets_new(later->subsets, now->subsets), 1);
    assert_int_equal(lb_subsets_new(now->subsets, later->subsets), 1);
    shared_unref(&later->shared);
    shared_unref(&now->shared);
    bench_fini(&b);
}

static void test_many_subsets_are_found(void **state) {
    (void)state;
    struct bench b;
    bench_init(&b, "subset_selectors { keys: 'version' }");
    enum { N = 200 };
    static char text[N][8];
    const char *versions[N];
    for (unsigned i = 0; i < N; i++) {
        snprintf(text[i], sizeof(text[i]), "v%u", i);
        versions[i] = text[i];
    }
    struct host_set *s = hosts(&b, versions, N);
    for (unsigned i = 0; i < N; i++) {
        uint32_t k = choose(&b, s, versions[i]);
        assert_row(k < N && lb_subset_hosts(s->subsets, k)->entries[0].host == s->entries[i].host,
                   i);
    }
    assert_int_equal(choose(&b, s, "v200"), LB_SUBSET_NONE);
    assert_int_equal(lb_subset_choose(b.f.cfg.subsets, s->subsets, NULL, b.stats), LB_SUBSET_NONE);
    shared_unref(&s->shared);
    bench_fini(&b);
}

/* A host with lists for keys_n of the 32 keys that the selector wants. */
static struct host_set *host_with_lists(struct bench *b, unsigned keys_n) {
    struct kv_value items[2] = {kv_string(SV("x")), kv_string(SV("y"))};
    const struct kv_value list = {.kind = KV_LIST, .list = {.v = items, .n = 2}};
    struct kv_metadata *m = kv_metadata_new(&b->fc.arena);
    for (unsigned i = 0; i < keys_n; i++) {
        kv_metadata_set(m, SV("envoy.lb"), arena_printf(&b->fc.arena, "k%02u", i), &list);
    }
    struct host_set_builder *hb = host_set_builder_new(&b->f.cfg, NULL, 1);
    struct host_spec spec = {.metadata = m};
    assert_true(addr_parse_ip_port(SV("10.0.0.1:80"), &spec.addr));
    unsigned l = host_set_builder_locality(hb, 0, &(struct locality){0}, 0);
    host_set_builder_add(hb, l, &spec, 1, UINT16_MAX, 0);
    return host_set_builder_finish(hb, NULL);
}

static void test_combinations_are_bounded(void **state) {
    (void)state;
    static const struct {
        unsigned lists_n, subsets_n;
    } rows[] = {{LB_SUBSET_KEYS_MAX, LB_SUBSETS_MAX}, {LB_SUBSET_KEYS_MAX - 1, 0}};
    char config[LB_SUBSET_KEYS_MAX * 16 + 64];
    int n = snprintf(config, sizeof(config), "list_as_any: true subset_selectors {");
    for (unsigned i = 0; i < LB_SUBSET_KEYS_MAX; i++) {
        n += snprintf(config + n, sizeof(config) - (size_t)n, " keys: 'k%02u'", i);
    }
    snprintf(config + n, sizeof(config) - (size_t)n, " }");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct bench b;
        bench_init(&b, config);
        assert_true(diag_ok(&b.fc.diag));
        struct host_set *s = host_with_lists(&b, rows[i].lists_n);
        assert_int_equal(lb_subsets_new(s->subsets, NULL), rows[i].subsets_n);
        shared_unref(&s->shared);
        bench_fini(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused), cmocka_unit_test(test_without_selectors_there_is_nothing),
        cmocka_unit_test(test_members), cmocka_unit_test(test_many_subsets_are_found),
        cmocka_unit_test(test_combinations_are_bounded)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
