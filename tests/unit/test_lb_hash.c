/* Ring hash and Maglev: keys stand where Envoy puts them, shares follow weights, few keys move,
 * bounded load. */
#include "tests/support/hosts.h"

#include <stdio.h>
#include <xxhash.h>

#include "protos/gen/lb_maglev.pb-c.h"
#include "protos/gen/lb_ring_hash.pb-c.h"

static struct rng rng;

static const struct host_entry *pick_at(struct fixture_cluster *f, const struct host_set *s,
                                        uint64_t hash, unsigned attempt, uint64_t active) {
    const struct host_list *l = &s->priorities[0].healthy;
    struct lb_context ctx = {.hash = hash,
                             .has_hash = true,
                             .rng = &rng,
                             .attempt = attempt,
                             .cluster_rq_active = active};
    return f->cfg.lb_type->pick(NULL, f->cfg.lb_config, l->table, l, &ctx);
}

static unsigned pick(struct fixture_cluster *f, const struct host_set *s, uint64_t hash) {
    return pick_at(f, s, hash, 0, 0)->host->addr.ip[3];
}

static uint64_t key(unsigned i) {
    char text[24];
    int n = snprintf(text, sizeof(text), "key-%u", i);
    return XXH64(text, (size_t)n, 0);
}

static const struct fixture_host three[] = {{.address = "127.0.0.1:9001"},
                                            {.address = "127.0.0.2:9002"},
                                            {.address = "127.0.0.3:9003"},
                                            {0}};

/* ---- ring ---- */

static void ring_config(struct fixture_cluster *f, uint64_t min, uint64_t max, bool murmur,
                        bool hostname) {
    LbRingHash__RingHash m;
    Pb__UInt64Value lo = PB__UINT64_VALUE__INIT, hi = PB__UINT64_VALUE__INIT;
    lb_ring_hash__ring_hash__init(&m);
    lo.value = min;
    hi.value = max;
    m.minimum_ring_size = &lo;
    m.maximum_ring_size = &hi;
    m.hash_function = murmur ? LB_RING_HASH__RING_HASH__HASH_FUNCTION__MURMUR_HASH_2
                             : LB_RING_HASH__RING_HASH__HASH_FUNCTION__XX_HASH;
    m.use_hostname_for_hashing = hostname;
    f->cfg.lb_config = ring_hash_lb_policy.compile(&f->ctx, &m);
}

/* A ring of one point per host: whoever's point follows the hash is picked. */
static void test_ring_points(void **state) {
    (void)state;
    struct fixture_cluster f;
    fixture_init(&f, &ring_hash_lb_policy);
    ring_config(&f, 3, 3, false, false);
    struct host_set *s = fixture_hosts(&f, three, NULL);
    uint64_t at[3];
    for (unsigned i = 0; i < 3; i++) {
        char text[40];
        int n = snprintf(text, sizeof(text), "%s_0", three[i].address);
        at[i] = XXH64(text, (size_t)n, 0);
    }
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pick(&f, s, at[i]), i + 1);     /* on the point */
        assert_int_equal(pick(&f, s, at[i] - 1), i + 1); /* before it */
        unsigned next = i;
        uint64_t gap = UINT64_MAX;
        for (unsigned k = 0; k < 3; k++) {
            if (k != i && at[k] - at[i] < gap) {
                gap = at[k] - at[i];
                next = k;
            }
        }
        assert_int_equal(pick(&f, s, at[i] + 1), next + 1); /* behind it, around the end too */
        assert_int_equal(pick_at(&f, s, at[i], 1, 0)->host->addr.ip[3], next + 1);
        assert_int_equal(pick_at(&f, s, at[i], 3, 0)->host->addr.ip[3], i + 1);
    }
    shared_unref(&s->shared);
    fixture_fini(&f);
}

static void shares(struct fixture_cluster *f, const struct fixture_host *v, unsigned n,
                   const double *want, double slack) {
    struct host_set *s = fixture_hosts(f, v, NULL);
    unsigned got[8] = {0};
    for (unsigned i = 0; i < 20000; i++) {
        got[pick(f, s, key(i)) - 1]++;
    }
    for (unsigned i = 0; i < n; i++) {
        assert_row(got[i] / 20000.0 > want[i] - slack && got[i] / 20000.0 < want[i] + slack, i);
    }
    shared_unref(&s->shared);
}

static const struct fixture_host weighted[] = {{.address = "10.0.0.1:80", .weight = 1},
                                               {.address = "10.0.0.2:80", .weight = 2},
                                               {.address = "10.0.0.3:80", .weight = 5},
                                               {0}};
static const double weighted_share[] = {0.125, 0.25, 0.625};

static void test_ring_weights(void **state) {
    (void)state;
    struct fixture_cluster f;
    fixture_init(&f, &ring_hash_lb_policy);
    ring_config(&f, 8192, 8u << 20, false, false);
    shares(&f, weighted, 3, weighted_share, 0.03);
    ring_config(&f, 8192, 8u << 20, true, false);
    shares(&f, weighted, 3, weighted_share, 0.03);
    fixture_fini(&f);
}

/* Localities' weights come before hosts' weights, and those without get nothing. */
static void test_locality_shares(void **state) {
    (void)state;
    static const struct fixture_host v[] = {
        {.address = "10.0.0.1:80", .zone = "a", .zone_weight = 1, .weight = 9},
        {.address = "10.0.0.2:80", .zone = "b", .zone_weight = 3, .weight = 1},
        {.address = "10.0.0.3:80", .zone = "b", .zone_weight = 3, .weight = 2},
        {.address = "10.0.0.4:80", .zone = "c", .weight = 50},
        {0}};
    static const double want[] = {0.25, 0.25, 0.5, 0};
    struct fixture_cluster f;
    fixture_init(&f, &ring_hash_lb_policy);
    ring_config(&f, 8192, 8u << 20, false, false);
    f.cfg.locality_weighted = true;
    shares(&f, v, 4, want, 0.03);
    fixture_fini(&f);
    fixture_init(&f, &maglev_lb_policy);
    f.cfg.locality_weighted = true;
    shares(&f, v, 4, want, 0.02);
    fixture_fini(&f);
}

static void test_hostname_key(void **state) {
    (void)state;
    static const struct fixture_host a[] = {{.address = "10.0.0.1:80", .hostname = "x"},
                                            {.address = "10.0.0.2:80", .hostname = "y"},
                                            {0}};
    static const struct fixture_host b[] = {{.address = "10.0.9.1:80", .hostname = "x"},
                                            {.address = "10.0.9.2:80", .hostname = "y"},
                                            {0}};
    struct fixture_cluster f;
    fixture_init(&f, &ring_hash_lb_policy);
    for (unsigned by_name = 0; by_name < 2; by_name++) {
        ring_config(&f, 1024, 8u << 20, false, by_name);
        struct host_set *s = fixture_hosts(&f, a, NULL), *t = fixture_hosts(&f, b, NULL);
        unsigned same = 0;
        for (unsigned i = 0; i < 1000; i++) {
            same += pick(&f, s, key(i)) == pick(&f, t, key(i));
        }
        assert_true(by_name ? same == 1000 : same < 700);
        shared_unref(&s->shared);
        shared_unref(&t->shared);
    }
    fixture_fini(&f);
}

static void test_few_keys_move(void **state) {
    (void)state;
    static const struct lb_policy_type *const types[] = {&ring_hash_lb_policy, &maglev_lb_policy};
    struct fixture_host v[12] = {{0}};
    char text[11][32];
    for (unsigned i = 0; i < 11; i++) {
        snprintf(text[i], sizeof(text[i]), "10.0.0.%u:80", i + 1);
    }
    for (size_t k = 0; k < ARRAY_LEN(types); k++) {
        struct fixture_cluster f;
        fixture_init(&f, types[k]);
        for (unsigned i = 0; i < 11; i++) {
            v[i].address = i < 10 ? text[i] : NULL;
        }
        struct host_set *s = fixture_hosts(&f, v, NULL);
        v[10].address = text[10];
        struct host_set *t = fixture_hosts(&f, v, s);
        unsigned moved = 0;
        for (unsigned i = 0; i < 10000; i++) {
            moved += pick(&f, s, key(i)) != pick(&f, t, key(i));
        }
        assert_in_range(moved, 400, 1600); /* a perfect hash moves 1 in 11 */
        shared_unref(&s->shared);
        shared_unref(&t->shared);
        fixture_fini(&f);
    }
}

static void test_one_and_none(void **state) {
    (void)state;
    static const struct fixture_host one[] = {{.address = "10.0.0.1:80"}, {0}};
    static const struct lb_policy_type *const types[] = {&ring_hash_lb_policy, &maglev_lb_policy};
    for (size_t k = 0; k < ARRAY_LEN(types); k++) {
        struct fixture_cluster f;
        fixture_init(&f, types[k]);
        struct host_set *s = fixture_hosts(&f, one, NULL);
        assert_int_equal(pick(&f, s, 0), 1);
        assert_int_equal(pick(&f, s, UINT64_MAX), 1);
        const struct host_list none = {0};
        struct lb_context ctx = {.rng = &rng};
        assert_null(types[k]->pick(NULL, f.cfg.lb_config, NULL, &none, &ctx));
        shared_unref(&s->shared);
        fixture_fini(&f);
    }
}

/* ---- Maglev ---- */

static void test_maglev_small_table(void **state) {
    (void)state;
    struct fixture_cluster f;
    fixture_init(&f, &maglev_lb_policy);
    LbMaglev__Maglev m;
    Pb__UInt64Value size = PB__UINT64_VALUE__INIT;
    lb_maglev__maglev__init(&m);
    size.value = 7;
    m.table_size = &size;
    f.cfg.lb_config = maglev_lb_policy.compile(&f.ctx, &m);
    struct host_set *s = fixture_hosts(&f, three, NULL);
    /* The published algorithm, by hand. */
    int table[7] = {-1, -1, -1, -1, -1, -1, -1};
    unsigned next[3] = {0}, filled = 0;
    while (filled < 7) {
        for (unsigned i = 0; i < 3 && filled < 7; i++) {
            uint64_t offset = XXH64(three[i].address, strlen(three[i].address), 0) % 7;
            uint64_t skip = XXH64(three[i].address, strlen(three[i].address), 1) % 6 + 1;
            uint64_t at;
            do {
                at = (offset + skip * next[i]++) % 7;
            } while (table[at] >= 0);
            table[at] = (int)i;
            filled++;
        }
    }
    for (unsigned i = 0; i < 7; i++) {
        assert_int_equal(pick(&f, s, i), table[i] + 1);
        assert_int_equal(pick(&f, s, 7000 + i), table[i] + 1);
    }
    shared_unref(&s->shared);
    fixture_fini(&f);
}

static void test_maglev_weights(void **state) {
    (void)state;
    struct fixture_cluster f;
    fixture_init(&f, &maglev_lb_policy);
    shares(&f, weighted, 3, weighted_share, 0.02);
    fixture_fini(&f);
}

/* ---- what Envoy 1.40 answered for the keys "key-0" … "key-199" with these hosts and weights
 * ---- */

static const struct fixture_host envoys[] = {
    {.address = "127.0.0.1:32959", .weight = 1}, {.address = "127.0.0.1:38597", .weight = 3},
    {.address = "127.0.0.1:34927", .weight = 2}, {.address = "127.0.0.1:33903", .weight = 1},
    {.address = "127.0.0.1:38135", .weight = 5}, {0}};

static void test_as_envoy(void **state) {
    (void)state;
    static const struct {
        const struct lb_policy_type *type;
        const char *message, *config, *hosts;
    } rows[] = {
        {&ring_hash_lb_policy, "ring_hash.v3.RingHash", "hash_function: XX_HASH",
         "44043224442441143242444124142322411341441444143244114224421211412232142014421132444411242"
         "40144221421"
         "41442221424420414242443430413231114410321114041334121424102441444123424441402202411431244"
         "42441404114"},
        {&ring_hash_lb_policy, "ring_hash.v3.RingHash",
         "hash_function: XX_HASH minimum_ring_size { value: 50 } maximum_ring_size { value: 50 }",
         "14013301422143124113344414030011411441440131443141021414144144444444441130411034214404444"
         "43102144011"
         "44114204144444100342140444141310012440401132114121420444142441400144441421431211144431241"
         "43040111131"},
        {&ring_hash_lb_policy, "ring_hash.v3.RingHash",
         "hash_function: MURMUR_HASH_2 minimum_ring_size { value: 2000 }",
         "41314442414211044214423213412422213414440122444141411414443132113343422101014442442434414"
         "44212214414"
         "14344433241122441420234421444212411444434344221044444211414113143331144114411422104244144"
         "12112342431"},
        {&maglev_lb_policy, "maglev.v3.Maglev", "",
         "12341241103340141414444331344131434444044111241102441414142242242444424441241334441044014"
         "41244114111"
         "10121324023214124412433414414204423134141414404444422132021444141324424432413422443121441"
         "42430111304"},
        {&maglev_lb_policy, "maglev.v3.Maglev", "table_size { value: 211 }",
         "33041444424404234442044114214441111213234441044101441042104024144444120210120114414241244"
         "21223022444"
         "42444130112014244341142121314104240443404414412442221314141121423444144424412342141421130"
         "14024141143"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture_cluster f;
        struct fake_compile fc;
        char type[128];
        fixture_init(&f, rows[i].type);
        fake_compile_init(&fc, NULL);
        snprintf(type, sizeof(type), "envoy.extensions.load_balancing_policies.%s",
                 rows[i].message);
        f.cfg.lb_config = rows[i].type->compile(&fc.ctx, fake_msg(&fc, type, rows[i].config));
        struct host_set *s = fixture_hosts(&f, envoys, NULL);
        for (unsigned k = 0; k < 200; k++) {
            const struct host_entry *e = pick_at(&f, s, key(k), 0, 0);
            assert_row((int)(e - s->entries) == rows[i].hosts[k] - '0', i);
        }
        shared_unref(&s->shared);
        fake_compile_fini(&fc);
        fixture_fini(&f);
    }
}

/* ---- bounded load ---- */

static void test_bounded_load(void **state) {
    (void)state;
    struct fixture_cluster f;
    fixture_init(&f, &ring_hash_lb_policy);
    LbRingHash__RingHash m;
    LbCommon__ConsistentHashingLbConfig c;
    Pb__UInt32Value factor = PB__UINT32_VALUE__INIT;
    lb_ring_hash__ring_hash__init(&m);
    lb_common__consistent_hashing_lb_config__init(&c);
    factor.value = 200;
    c.hash_balance_factor = &factor;
    m.consistent_hashing_lb_config = &c;
    m.hash_function = LB_RING_HASH__RING_HASH__HASH_FUNCTION__XX_HASH;
    f.cfg.lb_config = ring_hash_lb_policy.compile(&f.ctx, &m);
    struct host_set *s = fixture_hosts(&f, three, NULL);
    const uint64_t hash = key(1);
    const struct host_entry *first = pick_at(&f, s, hash, 0, 0);
    first->host->stats.rq_active = 3; /* slots: ceil(200 % of (3 + 1) / 3) = 3 */
    const struct host_entry *other = pick_at(&f, s, hash, 0, 3);
    assert_ptr_not_equal(other, first);
    assert_ptr_equal(pick_at(&f, s, hash, 0, 3), other); /* the same every time */
    first->host->stats.rq_active = 2;
    assert_ptr_equal(pick_at(&f, s, hash, 0, 3), first);
    for (unsigned i = 0; i < 3; i++) {
        s->entries[i].host->stats.rq_active = 50 + i; /* all overloaded: the least */
    }
    assert_ptr_equal(pick_at(&f, s, hash, 0, 3), &s->entries[0]);
    shared_unref(&s->shared);
    fixture_fini(&f);
}

/* ---- configs ---- */

static void test_bad_configs(void **state) {
    (void)state;
    static const struct {
        uint64_t min, max;
        const char *error;
    } rows[] = {{2000, 1000, "ring hash: minimum_ring_size (2000) > maximum_ring_size (1000)"},
                {0, 10, "ring size must be between 1 and 8388608"},
                {1, (8u << 20) + 1, "ring size must be between 1 and 8388608"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture_cluster f;
        fixture_init(&f, NULL);
        ring_config(&f, rows[i].min, rows[i].max, false, false);
        assert_sv_is(diag_text(&f.diag), rows[i].error);
        fixture_fini(&f);
    }
    static const uint64_t sizes[] = {0, 1, 4, 65536, 5000012};
    for (size_t i = 0; i < ARRAY_LEN(sizes); i++) {
        struct fixture_cluster f;
        fixture_init(&f, NULL);
        LbMaglev__Maglev m;
        Pb__UInt64Value size = PB__UINT64_VALUE__INIT;
        lb_maglev__maglev__init(&m);
        size.value = sizes[i];
        m.table_size = &size;
        maglev_lb_policy.compile(&f.ctx, &m);
        assert_row(!diag_ok(&f.diag), i);
        fixture_fini(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ring_points),        cmocka_unit_test(test_ring_weights),
        cmocka_unit_test(test_locality_shares),    cmocka_unit_test(test_hostname_key),
        cmocka_unit_test(test_few_keys_move),      cmocka_unit_test(test_one_and_none),
        cmocka_unit_test(test_maglev_small_table), cmocka_unit_test(test_maglev_weights),
        cmocka_unit_test(test_as_envoy),           cmocka_unit_test(test_bounded_load),
        cmocka_unit_test(test_bad_configs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
