/* Round robin, least request, random: exact EDF order, distributions, slow start; picking through a
 * view. */
#include "tests/support/hosts.h"

#include <math.h>
#include <stdio.h>

#include "protos/gen/lb_least_request.pb-c.h"
#include "protos/gen/lb_round_robin.pb-c.h"
#include "proxy/observe/filter_state.h"
#include "proxy/upstream/edf.h"
#include "tests/support/clusterless_worker.h"

/* The view's pools want transports; nobody connects here. */
struct transport_factory *worker_transport(struct worker *w, slot_t slot) {
    (void)w, (void)slot;
    return NULL;
}

struct picker {
    struct fixture_cluster f;
    struct loop loop;
    struct cluster_view *view;
    struct rng rng;
};

static void picker_init(struct picker *p, const struct lb_policy_type *lb,
                        const struct fixture_host *v) {
    fixture_init(&p->f, lb);
    assert_int_equal(loop_init(&p->loop, 0), 0);
    rng_seed(&p->rng, 42);
    struct host_set *s = v ? fixture_hosts(&p->f, v, NULL) : NULL;
    p->view = cluster_view_new(NULL, &p->loop, &p->f.cfg, NULL, s);
    if (s) {
        shared_unref(&s->shared);
    }
}

static void picker_fini(struct picker *p) {
    cluster_view_retire(p->view);
    loop_fini(&p->loop);
    fixture_fini(&p->f);
}

/* Index (last byte of the address - 1) of the host picked, -1: none. */
static int pick_with(struct picker *p, struct lb_context *ctx) {
    const struct host_entry *e = NULL;
    ctx->rng = &p->rng;
    struct host *h = cluster_view_pick(p->view, ctx, &e);
    assert_true(!h || e->host == h);
    return h ? h->addr.ip[3] - 1 : -1;
}

static int pick(struct picker *p) {
    struct lb_context ctx = {0};
    return pick_with(p, &ctx);
}

static void count(struct picker *p, unsigned rounds, unsigned *n) {
    for (unsigned i = 0; i < rounds; i++) {
        int k = pick(p);
        assert_true(k >= 0);
        n[k]++;
    }
}

/* ---- EDF ---- */

static void edf_order(const double *weights, uint32_t n, const char *want) {
    struct edf e;
    edf_init(&e, n);
    for (uint32_t i = 0; i < n; i++) {
        edf_add(&e, i, weights[i]);
    }
    for (const char *w = want; *w; w++) {
        uint32_t i = edf_peek(&e);
        assert_int_equal('A' + (int)i, *w);
        edf_advance(&e, weights[i]);
    }
    edf_fini(&e);
}

static void test_edf_order(void **state) {
    (void)state;
    /* deadlines by hand: time of pick + 1/weight, ties by order of insertion */
    edf_order((const double[]){1, 1, 1}, 3, "ABCABCABC");
    edf_order((const double[]){1, 2}, 2, "BABBABBAB");
    edf_order((const double[]){1, 2, 4}, 3, "CBCCABCCBCCABC");
    edf_order((const double[]){1, 4}, 2, "BBBABBBBAB");
    edf_order((const double[]){5}, 1, "AAAA");
    struct edf none;
    edf_init(&none, 0);
    assert_int_equal(edf_peek(&none), UINT32_MAX);
    edf_fini(&none);
}

/* ---- round robin ---- */

static void test_rr_equal(void **state) {
    (void)state;
    struct picker p;
    const struct fixture_host v[] = {
        {.address = "10.0.0.1:80"}, {.address = "10.0.0.2:80"}, {.address = "10.0.0.3:80"}, {0}};
    picker_init(&p, &round_robin_lb_policy, v);
    int last = pick(&p);
    for (unsigned i = 0; i < 30; i++) {
        int now = pick(&p);
        assert_int_equal(now, (last + 1) % 3);
        last = now;
    }
    picker_fini(&p);
}

static void test_rr_weights(void **state) {
    (void)state;
    struct picker p;
    const struct fixture_host v[] = {
        {.address = "10.0.0.1:80", .weight = 1},
        {.address = "10.0.0.2:80", .weight = 2},
        {.address = "10.0.0.3:80", .weight = 7},
        {.address = "10.0.0.4:80", .weight = 90, .flags = HOST_FLAG(FAILED_EDS_HEALTH)},
        {0}};
    picker_init(&p, &round_robin_lb_policy, v);
    unsigned n[4] = {0};
    count(&p, 1000, n);
    assert_in_range(n[0], 99, 101);
    assert_in_range(n[1], 199, 201);
    assert_in_range(n[2], 699, 701);
    assert_int_equal(n[3], 0);
    picker_fini(&p);
}

/* ---- least request ---- */

static void set_active(struct picker *p, unsigned i, uint32_t n) {
    p->view->hosts->entries[i].host->stats.rq_active = n;
}

static void test_lr_equal(void **state) {
    (void)state;
    struct picker p;
    const struct fixture_host v[] = {{.address = "10.0.0.1:80"},
                                     {.address = "10.0.0.2:80"},
                                     {.address = "10.0.0.3:80"},
                                     {.address = "10.0.0.4:80"},
                                     {0}};
    picker_init(&p, &least_request_lb_policy, v);
    set_active(&p, 0, 10);
    unsigned n[4] = {0};
    count(&p, 16000, n);
    assert_in_range(n[0], 800, 1200); /* only when drawn twice: 1/16 */
    for (unsigned i = 1; i < 4; i++) {
        assert_in_range(n[i], 4600, 5400);
    }
    picker_fini(&p);
}

static void test_lr_full_scan(void **state) {
    (void)state;
    struct picker p;
    const struct fixture_host v[] = {{.address = "10.0.0.1:80"},
                                     {.address = "10.0.0.2:80"},
                                     {.address = "10.0.0.3:80"},
                                     {.address = "10.0.0.4:80"},
                                     {0}};
    picker_init(&p, &least_request_lb_policy, v);
    LbLeastRequest__LeastRequest m;
    lb_least_request__least_request__init(&m);
    m.selection_method = LB_LEAST_REQUEST__LEAST_REQUEST__SELECTION_METHOD__FULL_SCAN;
    p.f.cfg.lb_config = least_request_lb_policy.compile(&p.f.ctx, &m);
    set_active(&p, 0, 3);
    set_active(&p, 1, 1);
    set_active(&p, 2, 1);
    set_active(&p, 3, 2);
    unsigned n[4] = {0};
    count(&p, 2000, n);
    assert_int_equal(n[0] + n[3], 0);
    assert_in_range(n[1], 850, 1150); /* ties are shared */
    picker_fini(&p);
}

static void test_lr_weights(void **state) {
    (void)state;
    struct picker p;
    const struct fixture_host v[] = {
        {.address = "10.0.0.1:80", .weight = 1}, {.address = "10.0.0.2:80", .weight = 3}, {0}};
    picker_init(&p, &least_request_lb_policy, v);
    unsigned n[2] = {0};
    count(&p, 400, n);
    assert_in_range(n[1], 299, 301);
    set_active(&p, 1, 2); /* weight 3 / (1 + 2) */
    unsigned m[2] = {0};
    count(&p, 400, m);
    assert_in_range(m[1], 196, 204);
    picker_fini(&p);
}

static void test_lr_config(void **state) {
    (void)state;
    struct fixture_cluster f;
    fixture_init(&f, NULL);
    LbLeastRequest__LeastRequest m;
    lb_least_request__least_request__init(&m);
    Pb__UInt32Value one = PB__UINT32_VALUE__INIT;
    one.value = 1;
    m.choice_count = &one;
    least_request_lb_policy.compile(&f.ctx, &m);
    assert_false(diag_ok(&f.diag));
    assert_sv_is(diag_text(&f.diag), "choice_count: value must be greater than or equal to 2");
    fixture_fini(&f);
}

/* ---- random ---- */

static void test_random(void **state) {
    (void)state;
    struct picker p;
    const struct fixture_host v[] = {{.address = "10.0.0.1:80", .weight = 100},
                                     {.address = "10.0.0.2:80"},
                                     {.address = "10.0.0.3:80"},
                                     {0}};
    picker_init(&p, &random_lb_policy, v);
    unsigned n[3] = {0};
    count(&p, 9000, n);
    for (unsigned i = 0; i < 3; i++) {
        assert_in_range(n[i], 2750, 3250); /* weights do not count */
    }
    picker_fini(&p);
}

/* ---- slow start ---- */

static void test_slow_start(void **state) {
    (void)state;
    struct picker p;
    const struct fixture_host v[] = {{.address = "10.0.0.1:80"}, {.address = "10.0.0.2:80"}, {0}};
    picker_init(&p, &round_robin_lb_policy, v);
    LbRoundRobin__RoundRobin m;
    LbCommon__SlowStartConfig slow;
    Pb__Duration window;
    lb_round_robin__round_robin__init(&m);
    lb_common__slow_start_config__init(&slow);
    pb__duration__init(&window);
    window.seconds = 100;
    slow.slow_start_window = &window;
    m.slow_start_config = &slow;
    const void *cfg = round_robin_lb_policy.compile(&p.f.ctx, &m);
    p.f.cfg.lb_config = cfg;
    uint64_t now = loop_now_us(&p.loop);
    static const struct {
        uint64_t age_s;
        unsigned low, high; /* of 1,100 picks */
    } rows[] = {{0, 98, 102},
                {10, 98, 102} /* 0.1 : 1 */,
                {50, 364, 368} /* 0.5 : 1 */,
                {100, 549, 551},
                {5000, 549, 551}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        now += 10000000000ull;
        p.view->hosts->entries[0].host->healthy_since_us = 0;
        p.view->hosts->entries[1].host->healthy_since_us = now - rows[i].age_s * 1000000;
        struct host_list *l = &p.view->hosts->priorities[0].healthy;
        void *cur = xcalloc(1, round_robin_lb_policy.cursor_size);
        round_robin_lb_policy.cursor_init(cur, cfg, NULL, l, &p.rng);
        struct lb_context ctx = {.rng = &p.rng, .now_us = now};
        unsigned second = 0;
        for (unsigned k = 0; k < 1100; k++) {
            second += round_robin_lb_policy.pick(cur, cfg, NULL, l, &ctx)->host->addr.ip[3] == 2;
        }
        assert_row(second >= rows[i].low && second <= rows[i].high, i);
        round_robin_lb_policy.cursor_fini(cur);
        xfree(cur);
    }
    picker_fini(&p);
}

/* ---- through the view ---- */

static void test_nobody(void **state) {
    (void)state;
    struct picker p;
    picker_init(&p, &round_robin_lb_policy, NULL);
    assert_int_equal(pick(&p), -1); /* no endpoints yet */
    picker_fini(&p);
    const struct fixture_host none[] = {{0}};
    picker_init(&p, &round_robin_lb_policy, none);
    assert_int_equal(pick(&p), -1);
    picker_fini(&p);
    const struct fixture_host bad[] = {
        {.address = "10.0.0.1:80", .flags = HOST_FLAG(FAILED_EDS_HEALTH)}, {0}};
    picker_init(&p, &round_robin_lb_policy, bad);
    assert_int_equal(pick(&p), 0); /* panic */
    assert_int_equal(fixture_stat(&p.f, CLUSTER_lb_healthy_panic), 1);
    p.f.cfg.fail_traffic_on_panic = true;
    assert_int_equal(pick(&p), -1);
    picker_fini(&p);
}

static void test_panic_off(void **state) {
    (void)state;
    struct picker p;
    const struct fixture_host bad[] = {
        {.address = "10.0.0.1:80", .flags = HOST_FLAG(FAILED_EDS_HEALTH)}, {0}};
    picker_init(&p, &round_robin_lb_policy, NULL);
    p.f.cfg.healthy_panic_pct = 0;
    struct host_set *s = fixture_hosts(&p.f, bad, NULL);
    cluster_view_set_hosts(p.view, s);
    shared_unref(&s->shared);
    assert_int_equal(pick(&p), -1);
    assert_int_equal(fixture_stat(&p.f, CLUSTER_lb_healthy_panic), 0);
    picker_fini(&p);
}

static void test_localities_by_weight(void **state) {
    (void)state;
    struct picker p;
    picker_init(&p, &round_robin_lb_policy, NULL);
    p.f.cfg.locality_weighted = true;
    const struct fixture_host v[] = {{.address = "10.0.0.1:80", .zone = "a", .zone_weight = 3},
                                     {.address = "10.0.0.2:80", .zone = "b", .zone_weight = 1},
                                     {.address = "10.0.0.3:80", .zone = "b", .zone_weight = 1},
                                     {.address = "10.0.0.4:80", .zone = "c"},
                                     {0}};
    struct host_set *s = fixture_hosts(&p.f, v, NULL);
    cluster_view_set_hosts(p.view, s);
    shared_unref(&s->shared);
    unsigned n[4] = {0};
    count(&p, 800, n);
    assert_in_range(n[0], 599, 601);
    assert_in_range(n[1], 99, 101);
    assert_in_range(n[2], 99, 101);
    assert_int_equal(n[3], 0); /* no weight, no traffic */
    picker_fini(&p);
}

static void test_priorities_by_load(void **state) {
    (void)state;
    struct picker p;
    const struct fixture_host v[] = {
        {.address = "10.0.0.1:80", .priority = 0},
        {.address = "10.0.0.2:80", .priority = 0, .flags = HOST_FLAG(FAILED_EDS_HEALTH)},
        {.address = "10.0.0.3:80", .priority = 1},
        {.address = "10.0.0.4:80", .priority = 1},
        {0}};
    picker_init(&p, &round_robin_lb_policy, v);
    unsigned n[4] = {0};
    count(&p, 10000, n);
    assert_in_range(n[0], 6700, 7300); /* half healthy × 1.4 */
    assert_int_equal(n[1], 0);
    assert_in_range(n[2] + n[3], 2700, 3300);
    const struct lb_priority_load second[] = {{0, 0}, {100, 0}};
    struct lb_context ctx = {.priority_loads = second, .priority_loads_n = ARRAY_LEN(second)};
    for (unsigned i = 0; i < 100; i++) {
        assert_true(pick_with(&p, &ctx) >= 2);
    }
    picker_fini(&p);
}

static bool is_first(const struct host *h, void *arg) {
    ++*(unsigned *)arg;
    return h->addr.ip[3] == 1;
}
static bool is_any(const struct host *h, void *arg) {
    (void)h;
    ++*(unsigned *)arg;
    return true;
}

static void test_avoid(void **state) {
    (void)state;
    struct picker p;
    const struct fixture_host v[] = {{.address = "10.0.0.1:80"}, {.address = "10.0.0.2:80"}, {0}};
    picker_init(&p, &round_robin_lb_policy, v);
    for (unsigned i = 0; i < 20; i++) {
        unsigned asked = 0;
        struct lb_context ctx = {.avoid = is_first, .avoid_arg = &asked, .avoid_max = 1};
        assert_int_equal(pick_with(&p, &ctx), 1);
    }
    unsigned asked = 0;
    struct lb_context ctx = {.avoid = is_any, .avoid_arg = &asked, .avoid_max = 5};
    assert_true(pick_with(&p, &ctx) >= 0); /* the last one is taken */
    assert_int_equal(asked, 5);
    picker_fini(&p);
}

static void test_override(void **state) {
    (void)state;
    struct picker p;
    const struct fixture_host v[] = {
        {.address = "10.0.0.1:80"},
        {.address = "10.0.0.2:80"},
        {.address = "10.0.0.3:80", .flags = HOST_FLAG(FAILED_EDS_HEALTH)},
        {0}};
    picker_init(&p, &round_robin_lb_policy, v);
    struct addr a;
    assert_true(addr_parse_ip_port(SV("10.0.0.2:80"), &a));
    struct lb_context ctx = {.override_host = &a};
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(pick_with(&p, &ctx), 1);
    }
    assert_true(addr_parse_ip_port(SV("10.0.0.3:80"), &a)); /* unhealthy: balanced */
    assert_true(pick_with(&p, &ctx) < 2);
    ctx.override_strict = true;
    assert_int_equal(pick_with(&p, &ctx), -1);
    assert_true(addr_parse_ip_port(SV("10.9.9.9:80"), &a));
    assert_int_equal(pick_with(&p, &ctx), -1);
    picker_fini(&p);
}

static void test_pins(void **state) {
    (void)state;
    struct picker p;
    const struct fixture_host a[] = {{.address = "10.0.0.1:80"}, {0}},
                              b[] = {{.address = "10.0.0.2:80"}, {0}},
                              c[] = {{.address = "10.0.0.3:80"}, {0}};
    picker_init(&p, &round_robin_lb_policy, a);
    struct hosts_pin *pin = cluster_view_pin(p.view);
    struct lb_context ctx = {.rng = &p.rng};
    const struct host_entry *e;
    const struct host *first = cluster_view_pick(p.view, &ctx, &e), *second;
    struct host_set *s = fixture_hosts(&p.f, b, NULL);
    cluster_view_set_hosts(p.view, s);
    shared_unref(&s->shared);
    second = cluster_view_pick(p.view, &ctx, &e);
    s = fixture_hosts(&p.f, c, NULL);
    cluster_view_set_hosts(p.view, s);
    shared_unref(&s->shared);
    /* both sets are gone from the view, not from the pin */
    assert_sv_is(first->address_text, "10.0.0.1:80");
    assert_sv_is(second->address_text, "10.0.0.2:80");
    hosts_pin_release(pin);
    hosts_pin_release(NULL);
    picker_fini(&p);
}

/* ---- ORIGINAL_DST ---- */

static void test_original_dst(void **state) {
    (void)state;
    struct picker p;
    picker_init(&p, &cluster_provided_lb_policy, NULL);
    p.f.cfg.type = CLUSTER_TYPE_ORIGINAL_DST;
    p.f.cfg.use_http_header_original_dst = true;
    p.f.cfg.cleanup_interval_ms = 1;
    struct conn conn = {0};
    struct headers h;
    headers_init(&h, &p.f.arena);
    struct lb_context ctx = {.rng = &p.rng, .downstream = &conn, .request = &h};
    const struct host_entry *e;
    assert_null(cluster_view_pick(p.view, &ctx, &e)); /* no header, address not restored */
    assert_true(addr_parse_ip_port(SV("10.1.1.1:8080"), &conn.local));
    assert_null(cluster_view_pick(p.view, &ctx, &e)); /* that would be ourselves */
    conn.is_local_restored = true;
    const struct host *first = cluster_view_pick(p.view, &ctx, &e);
    assert_sv_is(first->address_text, "10.1.1.1:8080");
    assert_int_equal(e->transport_match, UINT16_MAX);
    assert_ptr_equal(cluster_view_pick(p.view, &ctx, &e), first);
    headers_set(&h, HDR_x_envoy_original_dst_host, SV("10.2.2.2:90"));
    const struct host *second = cluster_view_pick(p.view, &ctx, &e);
    assert_sv_is(second->address_text, "10.2.2.2:90");
    p.f.cfg.has_original_dst_port = true;
    p.f.cfg.original_dst_port = 443;
    assert_sv_is(cluster_view_pick(p.view, &ctx, &e)->address_text, "10.2.2.2:443");
    static const char *const bad[] = {"", "10.2.2.2", "example.com:80", "10.2.2.2:99999", "/path"};
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        headers_set(&h, HDR_x_envoy_original_dst_host, sv_cstr(bad[i]));
        assert_null(cluster_view_pick(p.view, &ctx, &e));
    }
    assert_int_equal(fixture_stat(&p.f, CLUSTER_original_dst_host_invalid), ARRAY_LEN(bad));
    /* Unused for two sweeps they go, but not from under a request. */
    struct hosts_pin *pin = cluster_view_pin(p.view);
    uint64_t until = loop_refresh_now(&p.loop) + 20000;
    while (loop_now_us(&p.loop) < until) {
        loop_run_nowait(&p.loop);
    }
    assert_sv_is(second->address_text, "10.2.2.2:90");
    assert_true(first->shared.refs == 1 && second->shared.refs == 1); /* only the pin's */
    hosts_pin_release(pin);
    picker_fini(&p);
}

static struct kv_metadata *names_host(struct arena *a, const struct kv_value *value) {
    struct kv_metadata *m = kv_metadata_new(a);
    assert_true(kv_metadata_set(m, SV("ns"), SV("to"), value));
    return m;
}

/* Metadata of the request goes before that of its connection, and both before the rest. */
static void test_original_dst_by_metadata(void **state) {
    (void)state;
    static const sv path[] = {SV_INIT("to")};
    static const struct original_dst_key key = {SV_INIT("ns"), path, 1};
    const struct kv_value good = kv_string(SV("10.1.1.1:80")), other = kv_string(SV("10.2.2.2:80")),
                          bad = kv_string(SV("10.1.1.1")), number = kv_number(1);
    const struct {
        const struct kv_value *request, *connection;
        const char *want;
        unsigned invalid;
        const char *state; /* in filter state: before them all */
    } rows[] = {
        {&good, &other, "10.3.3.3:15008", 0, "10.3.3.3:80"},
        {&good, &other, "10.1.1.1:15008", 0, "10.3.3.3"},
        {NULL, NULL, "10.9.9.9:15008", 0, ""},
        {NULL, NULL, "10.9.9.9:15008", 0, NULL},
        {&number, NULL, "10.9.9.9:15008", 0, NULL},
        {&bad, NULL, "10.9.9.9:15008", 1, NULL},
        {NULL, &bad, "10.9.9.9:15008", 1, NULL},
        {&bad, &good, "10.9.9.9:15008", 1, NULL},
        {&good, NULL, "10.1.1.1:15008", 0, NULL},
        {NULL, &good, "10.1.1.1:15008", 0, NULL},
        {&good, &other, "10.1.1.1:15008", 0, NULL},
    };
    struct picker p;
    picker_init(&p, &cluster_provided_lb_policy, NULL);
    p.f.cfg.type = CLUSTER_TYPE_ORIGINAL_DST;
    p.f.cfg.original_dst_key = &key;
    p.f.cfg.has_original_dst_port = true;
    p.f.cfg.original_dst_port = 15008;
    struct conn conn = {.is_local_restored = true};
    assert_true(addr_parse_ip_port(SV("10.9.9.9:1"), &conn.local));
    uint64_t invalid = 0;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream_info connection = {0}, request = {0};
        const struct conn_info cx = {.info = &connection};
        if (rows[i].request) {
            request.metadata = names_host(&p.f.arena, rows[i].request);
        }
        if (rows[i].connection) {
            connection.metadata = names_host(&p.f.arena, rows[i].connection);
        }
        request.cx = &cx;
        if (rows[i].state) {
            request.filter_state = filter_state_new(&p.f.arena, NULL);
            filter_state_set(request.filter_state,
                             SV("envoy.network.transport_socket.original_dst_address"),
                             sv_cstr(rows[i].state), NULL, false, FILTER_STATE_LOCAL);
        }
        struct lb_context ctx = {.rng = &p.rng, .downstream = &conn, .si = &request};
        const struct host_entry *e;
        assert_sv_is(cluster_view_pick(p.view, &ctx, &e)->address_text, rows[i].want);
        invalid += rows[i].invalid;
        assert_row(fixture_stat(&p.f, CLUSTER_original_dst_host_invalid) == invalid, i);
    }
    struct lb_context nobody = {.rng = &p.rng};
    const struct host_entry *e;
    assert_null(cluster_view_pick(p.view, &nobody, &e));
    picker_fini(&p);
}

static void test_drop(void **state) {
    (void)state;
    struct picker p;
    picker_init(&p, &round_robin_lb_policy, NULL);
    assert_false(cluster_view_drop(p.view, &p.rng));
    const struct fixture_host v[] = {{.address = "10.0.0.1:80"}, {0}};
    struct host_set_builder *b = fixture_builder(&p.f, v, NULL, 1);
    host_set_builder_drop(b, 25, 100);
    struct host_set *s = host_set_builder_finish(b, NULL);
    cluster_view_set_hosts(p.view, s);
    unsigned n = 0;
    for (unsigned i = 0; i < 10000; i++) {
        n += cluster_view_drop(p.view, &p.rng);
    }
    assert_in_range(n, 2300, 2700);
    struct host_set *again = host_set_rebuild(&p.f.cfg, s);
    assert_int_equal(again->drop_numerator, 25);
    shared_unref(&again->shared);
    shared_unref(&s->shared);
    picker_fini(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_edf_order),
        cmocka_unit_test(test_rr_equal),
        cmocka_unit_test(test_rr_weights),
        cmocka_unit_test(test_lr_equal),
        cmocka_unit_test(test_lr_full_scan),
        cmocka_unit_test(test_lr_weights),
        cmocka_unit_test(test_lr_config),
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_slow_start),
        cmocka_unit_test(test_nobody),
        cmocka_unit_test(test_panic_off),
        cmocka_unit_test(test_localities_by_weight),
        cmocka_unit_test(test_priorities_by_load),
        cmocka_unit_test(test_avoid),
        cmocka_unit_test(test_override),
        cmocka_unit_test(test_pins),
        cmocka_unit_test(test_original_dst),
        cmocka_unit_test(test_original_dst_by_metadata),
        cmocka_unit_test(test_drop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
