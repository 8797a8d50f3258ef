/* Load reports: what is told is what was counted since the last report, by locality and priority,
 * whoever came, changed or went meanwhile; what was counted before is of no interest. */
#include "protos/gen/endpoint.pb-c.h"
#include "tests/support/hosts.h"
#include "xds/lrs_book.h"

#include <stdio.h>

#define SECOND UINT64_C(1000000)

/* A version of the cluster's configuration, which the book may hold. */
struct version {
    struct shared shared;
    struct cluster_config cfg;
    struct cluster_drops drops;
    bool is_gone;
};
static void on_version_gone(struct shared *s) { ((struct version *)s)->is_gone = true; }

static struct fixture_cluster f;
static struct version one, two;
static struct lrs_book *book;
static struct host_set *hosts;
static uint64_t now_us;

static void version_init(struct version *v) {
    *v = (struct version){.cfg = f.cfg};
    shared_init(&v->shared, on_version_gone);
    v->cfg.drops = &v->drops;
    v->cfg.eds_service_name = v->cfg.name;
}

static int start(void **state) {
    (void)state;
    fixture_init(&f, &round_robin_lb_policy);
    version_init(&one);
    version_init(&two);
    book = lrs_book_new();
    hosts = NULL;
    now_us = 100 * SECOND;
    return 0;
}

static int end(void **state) {
    (void)state;
    lrs_book_free(book);
    if (hosts) {
        shared_unref(&hosts->shared);
    }
    assert_int_equal(one.shared.refs, 1); /* the book has let go of everything */
    assert_int_equal(two.shared.refs, 1);
    fixture_fini(&f);
    chunk_cache_trim();
    return 0;
}

static void set_hosts(const struct fixture_host *v) {
    struct host_set *before = hosts;
    hosts = fixture_hosts(&f, v, before);
    if (before) {
        shared_unref(&before->shared);
    }
}

static struct host *host_at(const char *address) {
    struct addr a;
    assert_true(addr_parse_ip_port(sv_cstr(address), &a));
    const struct host_entry *e = host_set_find(hosts, &a);
    assert_non_null(e);
    return e->host;
}

static void counts(struct host *h, unsigned ok, unsigned errors, unsigned issued) {
    HOST_STAT_ADD(h, rq_success, ok);
    HOST_STAT_ADD(h, rq_error, errors);
    HOST_STAT_ADD(h, rq_total, issued);
}

static struct lrs_cluster cluster(struct version *v) {
    return (struct lrs_cluster){
        .cfg = &v->cfg, .cfg_pin = &v->shared, .hosts = hosts, .drop_category = SV("lb")};
}

static void begin(struct version *v) {
    const struct lrs_cluster c = cluster(v);
    lrs_book_begin(book, &c, now_us);
}

/* ---- reports as text ---- */

static void write_endpoint(const Endpoint__UpstreamEndpointStats *m, struct buf *out) {
    const Core__Address *a = m->address;
    if (a->address_case == CORE__ADDRESS__ADDRESS_PIPE) {
        buf_printf(out, " {%s", a->pipe->path);
    } else {
        buf_printf(out, " {%s:%u", a->socket_address->address, a->socket_address->port_value);
    }
    buf_printf(out, " %llu/%llu/%llu/%llu}", (unsigned long long)m->total_successful_requests,
               (unsigned long long)m->total_error_requests,
               (unsigned long long)m->total_issued_requests,
               (unsigned long long)m->total_requests_in_progress);
}

/* " | zone p0 ok/error/issued/active cx active/new/failed {address …}" */
static void write_locality(const Endpoint__UpstreamLocalityStats *m, struct buf *out) {
    buf_printf(out, " | %s p%u %llu/%llu/%llu/%llu", m->locality ? m->locality->zone : "?",
               m->priority, (unsigned long long)m->total_successful_requests,
               (unsigned long long)m->total_error_requests,
               (unsigned long long)m->total_issued_requests,
               (unsigned long long)m->total_requests_in_progress);
    if (m->total_active_connections || m->total_new_connections || m->total_fail_connections) {
        buf_printf(out, " cx %llu/%llu/%llu", (unsigned long long)m->total_active_connections,
                   (unsigned long long)m->total_new_connections,
                   (unsigned long long)m->total_fail_connections);
    }
    for (size_t i = 0; i < m->n_upstream_endpoint_stats; i++) {
        write_endpoint(m->upstream_endpoint_stats[i], out);
    }
}

static void write_report(const Endpoint__ClusterStats *m, struct buf *out) {
    buf_printf(out, "%s", m->cluster_name);
    if (*m->cluster_service_name) {
        buf_printf(out, "(%s)", m->cluster_service_name);
    }
    buf_printf(out, " %lld.%09ds", (long long)m->load_report_interval->seconds,
               m->load_report_interval->nanos);
    if (m->total_dropped_requests) {
        buf_printf(out, " dropped %llu", (unsigned long long)m->total_dropped_requests);
    }
    for (size_t i = 0; i < m->n_dropped_requests; i++) {
        buf_printf(out, " %s %llu", m->dropped_requests[i]->category,
                   (unsigned long long)m->dropped_requests[i]->dropped_count);
    }
    for (size_t i = 0; i < m->n_upstream_locality_stats; i++) {
        write_locality(m->upstream_locality_stats[i], out);
    }
}

static void assert_report_at(struct version *v, bool with_endpoints, const char *want, int line) {
    struct arena a;
    struct diag d;
    struct buf BUF_AUTO text;
    arena_init(&a, 0);
    diag_init(&d);
    buf_init(&text);
    const struct lrs_cluster c = cluster(v);
    const struct lrs_report_options o = {with_endpoints, now_us, 90 * SECOND};
    sv wire = lrs_book_report(book, &c, &o, &a);
    const Endpoint__ClusterStats *m =
        PROTO_UNPACK(Endpoint__ClusterStats, endpoint__cluster_stats__descriptor, wire, &a, &d);
    assert_non_null(m);
    write_report(m, &text);
    assert_sv_at(buf_pullup(&text, buf_len(&text)), sv_cstr(want), __FILE__, line);
    diag_fini(&d);
    arena_fini(&a);
}
#define assert_report(v, want) assert_report_at((v), false, (want), __LINE__)
#define assert_full_report(v, want) assert_report_at((v), true, (want), __LINE__)

/* ---- what is counted ---- */

static const struct fixture_host two_zones[] = {
    {.address = "10.0.0.1:80", .zone = "a"}, {.address = "10.0.0.2:80", .zone = "b"}, {0}};

static void differences_by_locality(void **state) {
    (void)state;
    set_hosts(two_zones);
    begin(&one);
    counts(host_at("10.0.0.1:80"), 3, 1, 5);
    counts(host_at("10.0.0.2:80"), 1, 0, 1);
    now_us += 2 * SECOND + 5;
    assert_report(&one, "c 2.000005000s | a p0 3/1/5/0 | b p0 1/0/1/0");
    counts(host_at("10.0.0.2:80"), 1, 0, 1);
    now_us += SECOND;
    assert_report(&one, "c 1.000000000s | b p0 1/0/1/0");
}

static void hosts_of_a_locality_are_summed(void **state) {
    (void)state;
    set_hosts((const struct fixture_host[]){{.address = "10.0.0.1:80", .zone = "a"},
                                            {.address = "10.0.0.2:80", .zone = "a"},
                                            {.address = "10.0.0.3:80", .zone = "a", .priority = 1},
                                            {0}});
    begin(&one);
    counts(host_at("10.0.0.1:80"), 1, 0, 1);
    counts(host_at("10.0.0.2:80"), 2, 0, 2);
    counts(host_at("10.0.0.3:80"), 4, 0, 4);
    HOST_STAT_ADD(host_at("10.0.0.1:80"), cx_total, 3);
    HOST_STAT_ADD(host_at("10.0.0.2:80"), cx_connect_fail, 1);
    HOST_STAT_ADD(host_at("10.0.0.2:80"), cx_active, 2);
    assert_report(&one, "c 0.000000000s | a p0 3/0/3/0 cx 2/3/1 | a p1 4/0/4/0");
}

static void nothing_to_tell(void **state) {
    (void)state;
    set_hosts(two_zones);
    begin(&one);
    now_us += SECOND;
    assert_full_report(&one, "c 1.000000000s");
    assert_full_report(&one, "c 0.000000000s");
}

static void no_hosts_at_all(void **state) {
    (void)state;
    begin(&one);
    assert_full_report(&one, "c 0.000000000s");
    set_hosts((const struct fixture_host[]){{0}});
    assert_full_report(&one, "c 0.000000000s");
}

static void what_was_before_is_not_told(void **state) {
    (void)state;
    set_hosts(two_zones);
    counts(host_at("10.0.0.1:80"), 100, 100, 200);
    one.drops = (struct cluster_drops){7, 8};
    begin(&one);
    assert_report(&one, "c 0.000000000s");
    counts(host_at("10.0.0.1:80"), 1, 0, 1);
    begin(&one); /* again: nothing is skipped */
    assert_report(&one, "c 0.000000000s | a p0 1/0/1/0");
}

/* One that came after it was asked for: all it has counted is news, since the last report. */
static void a_late_cluster_is_told_whole(void **state) {
    (void)state;
    set_hosts(two_zones);
    counts(host_at("10.0.0.1:80"), 2, 0, 2);
    one.drops.other = 3;
    assert_report(&one, "c 10.000000000s dropped 3 | a p0 2/0/2/0");
}

static void what_is_under_way_is_told_each_time(void **state) {
    (void)state;
    set_hosts(two_zones);
    begin(&one);
    HOST_STAT_ADD(host_at("10.0.0.2:80"), rq_total, 1);
    HOST_STAT_ADD(host_at("10.0.0.2:80"), rq_active, 1);
    assert_report(&one, "c 0.000000000s | b p0 0/0/1/1");
    assert_full_report(&one, "c 0.000000000s | b p0 0/0/0/1 {10.0.0.2:80 0/0/0/1}");
    HOST_STAT_ADD(host_at("10.0.0.2:80"), rq_active, -1);
    assert_full_report(&one, "c 0.000000000s");
}

static void connections_without_requests(void **state) {
    (void)state;
    set_hosts(two_zones);
    begin(&one);
    HOST_STAT_ADD(host_at("10.0.0.1:80"), cx_total, 2);
    HOST_STAT_ADD(host_at("10.0.0.1:80"), cx_connect_fail, 2);
    assert_report(&one, "c 0.000000000s | a p0 0/0/0/0 cx 0/2/2");
}

/* ---- endpoints ---- */

static void endpoints_when_asked_for(void **state) {
    (void)state;
    set_hosts((const struct fixture_host[]){{.address = "10.0.0.1:80", .zone = "a"},
                                            {.address = "[::1]:81", .zone = "a"},
                                            {.address = "10.0.0.3:82", .zone = "a"},
                                            {0}});
    begin(&one);
    counts(host_at("10.0.0.1:80"), 1, 2, 3);
    counts(host_at("[::1]:81"), 4, 0, 4);
    assert_full_report(&one,
                       "c 0.000000000s | a p0 5/2/7/0 {10.0.0.1:80 1/2/3/0} {::1:81 4/0/4/0}");
    counts(host_at("[::1]:81"), 1, 0, 1);
    assert_report(&one, "c 0.000000000s | a p0 1/0/1/0");
}

static void a_pipe_is_told_by_its_path(void **state) {
    (void)state;
    struct host_set_builder *b = host_set_builder_new(&f.cfg, NULL, 1);
    struct host_spec spec = {0};
    addr_set_path(&spec.addr, "/run/a.sock");
    unsigned l = host_set_builder_locality(b, 0, &(struct locality){.zone = SV("a")}, 0);
    host_set_builder_add(b, l, &spec, 1, UINT16_MAX, 0);
    hosts = host_set_builder_finish(b, NULL);
    begin(&one);
    counts(hosts->entries[0].host, 1, 0, 1);
    assert_full_report(&one, "c 0.000000000s | a p0 1/0/1/0 {/run/a.sock 1/0/1/0}");
}

/* ---- drops ---- */

static void drops_are_differences(void **state) {
    (void)state;
    begin(&one);
    one.drops = (struct cluster_drops){.other = 5, .overload = 2};
    assert_report(&one, "c 0.000000000s dropped 5 lb 2");
    assert_report(&one, "c 0.000000000s");
    one.drops.overload = 3;
    assert_report(&one, "c 0.000000000s lb 1");
}

static void a_new_version_counts_drops_from_nothing(void **state) {
    (void)state;
    begin(&one);
    one.drops.other = 5;
    assert_report(&one, "c 0.000000000s dropped 5");
    two.drops = (struct cluster_drops){.other = 2, .overload = 1};
    assert_report(&two, "c 0.000000000s dropped 2 lb 1");
    assert_int_equal(one.shared.refs, 1); /* let go */
    assert_int_equal(two.shared.refs, 2);
    assert_report(&two, "c 0.000000000s");
}

/* ---- who comes and goes ---- */

static void an_endpoint_that_stays_keeps_its_count(void **state) {
    (void)state;
    set_hosts(two_zones);
    begin(&one);
    counts(host_at("10.0.0.1:80"), 1, 0, 1);
    set_hosts((const struct fixture_host[]){
        {.address = "10.0.0.1:80", .zone = "a"}, {.address = "10.0.0.9:80", .zone = "z"}, {0}});
    assert_report(&one, "c 0.000000000s | a p0 1/0/1/0");
    counts(host_at("10.0.0.9:80"), 0, 1, 1);
    assert_report(&one, "c 0.000000000s | z p0 0/1/1/0");
}

static void a_host_that_goes_is_told_to_its_end(void **state) {
    (void)state;
    set_hosts(two_zones);
    struct host *h = shared_ref(host_at("10.0.0.1:80"));
    begin(&one);
    counts(h, 1, 0, 2);
    HOST_STAT_ADD(h, rq_active, 1);
    assert_report(&one, "c 0.000000000s | a p0 1/0/2/1");
    set_hosts((const struct fixture_host[]){{.address = "10.0.0.2:80", .zone = "b"}, {0}});
    assert_full_report(&one, "c 0.000000000s | a p0 0/0/0/1 {10.0.0.1:80 0/0/0/1}");
    counts(h, 1, 0, 0);
    HOST_STAT_ADD(h, rq_active, -1);
    assert_int_equal(h->shared.refs, 2);
    assert_full_report(&one, "c 0.000000000s | a p0 1/0/0/0 {10.0.0.1:80 1/0/0/0}");
    assert_int_equal(h->shared.refs, 1); /* forgotten once its last request was told */
    assert_full_report(&one, "c 0.000000000s");
    shared_unref(&h->shared);
}

static void a_gone_host_counts_with_its_locality(void **state) {
    (void)state;
    set_hosts((const struct fixture_host[]){
        {.address = "10.0.0.1:80", .zone = "a"}, {.address = "10.0.0.2:80", .zone = "a"}, {0}});
    begin(&one);
    counts(host_at("10.0.0.1:80"), 1, 0, 1);
    assert_report(&one, "c 0.000000000s | a p0 1/0/1/0");
    counts(host_at("10.0.0.1:80"), 1, 0, 1);
    counts(host_at("10.0.0.2:80"), 2, 0, 2);
    set_hosts((const struct fixture_host[]){{.address = "10.0.0.2:80", .zone = "a"}, {0}});
    assert_report(&one, "c 0.000000000s | a p0 3/0/3/0");
}

static void an_unused_host_is_not_held(void **state) {
    (void)state;
    set_hosts(two_zones);
    struct host *h = shared_ref(host_at("10.0.0.2:80"));
    begin(&one);
    assert_report(&one, "c 0.000000000s");
    assert_int_equal(h->shared.refs, 2); /* the set's and ours */
    shared_unref(&h->shared);
}

static void a_host_that_changes_its_priority(void **state) {
    (void)state;
    set_hosts((const struct fixture_host[]){{.address = "10.0.0.1:80", .zone = "a"}, {0}});
    begin(&one);
    counts(host_at("10.0.0.1:80"), 1, 0, 1);
    assert_report(&one, "c 0.000000000s | a p0 1/0/1/0");
    set_hosts((const struct fixture_host[]){{.address = "10.0.0.8:80", .zone = "a"},
                                            {.address = "10.0.0.1:80", .zone = "a", .priority = 1},
                                            {0}});
    counts(host_at("10.0.0.1:80"), 2, 0, 2);
    assert_report(&one, "c 0.000000000s | a p1 2/0/2/0");
}

/* ---- what is remembered ---- */

static bool keep_named(void *user, sv name) { return sv_is(name, user); }

static void a_forgotten_cluster_begins_anew(void **state) {
    (void)state;
    set_hosts(two_zones);
    begin(&one);
    counts(host_at("10.0.0.1:80"), 1, 0, 1);
    lrs_book_keep(book, keep_named, (void *)(uintptr_t) "c");
    assert_report(&one, "c 0.000000000s | a p0 1/0/1/0");
    lrs_book_keep(book, keep_named, (void *)(uintptr_t) "other");
    assert_int_equal(one.shared.refs, 1);
    assert_int_equal(host_at("10.0.0.1:80")->shared.refs, 1);
    now_us += SECOND;
    begin(&one);
    assert_report(&one, "c 0.000000000s");
}

static void clusters_are_apart(void **state) {
    (void)state;
    two.cfg.name = SV("d");
    two.cfg.eds_service_name = SV("service");
    begin(&one);
    begin(&two);
    one.drops.other = 1;
    now_us += SECOND;
    assert_report(&two, "d(service) 1.000000000s");
    assert_report(&one, "c 1.000000000s dropped 1");
    lrs_book_keep(book, keep_named, (void *)(uintptr_t) "d");
    assert_int_equal(one.shared.refs, 1);
    assert_int_equal(two.shared.refs, 2);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)

int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(differences_by_locality),
        TEST(hosts_of_a_locality_are_summed),
        TEST(nothing_to_tell),
        TEST(no_hosts_at_all),
        TEST(what_was_before_is_not_told),
        TEST(a_late_cluster_is_told_whole),
        TEST(what_is_under_way_is_told_each_time),
        TEST(connections_without_requests),
        TEST(endpoints_when_asked_for),
        TEST(a_pipe_is_told_by_its_path),
        TEST(drops_are_differences),
        TEST(a_new_version_counts_drops_from_nothing),
        TEST(an_endpoint_that_stays_keeps_its_count),
        TEST(a_host_that_goes_is_told_to_its_end),
        TEST(a_gone_host_counts_with_its_locality),
        TEST(an_unused_host_is_not_held),
        TEST(a_host_that_changes_its_priority),
        TEST(a_forgotten_cluster_begins_anew),
        TEST(clusters_are_apart),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
