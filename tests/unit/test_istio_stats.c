/* istio.stats: labels of both reporters, what configurations change, and what is counted when. */
#include "filters/common/istio_metrics.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/worker.h"
#include "proxy/stats/stats_export.h"
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

extern const struct http_filter_type istio_stats_http_filter;
extern const struct network_filter_type istio_stats_network_filter;

#define CONFIG "stats.PluginConfig"
#define INBOUND 1
#define OUTBOUND 2

static struct stream_info tcp_info;
static struct conn_info tcp_cx;
static struct loop tcp_loop;

/* The connection that the network filter is told of. */
struct stream_info *net_stream_info(const struct network_filter *nf) {
    (void)nf;
    return &tcp_info;
}
const struct conn_info *net_conn_info(const struct network_filter *nf) {
    (void)nf;
    return &tcp_cx;
}
struct arena *net_arena(const struct network_filter *nf) {
    (void)nf;
    return &f.arena;
}
struct worker *net_worker(const struct network_filter *nf) {
    (void)nf;
    return NULL;
}
struct loop *worker_loop(struct worker *w) {
    (void)w;
    return &tcp_loop;
}

static int begin(void **state) {
    start_with_stats(state);
    fake.node = fake_msg(&f, "envoy.config.core.v3.Node",
                         "id: 'me' metadata {"
                         "fields { key: 'WORKLOAD_NAME' value { string_value: 'mine' } }"
                         "fields { key: 'NAMESPACE' value { string_value: 'my-ns' } }"
                         "fields { key: 'CLUSTER_ID' value { string_value: 'c0' } }"
                         "fields { key: 'ISTIO_VERSION' value { string_value: '1.99' } }"
                         "fields { key: 'LABELS' value { struct_value {"
                         "  fields { key: 'service.istio.io/canonical-name' value { string_value: "
                         "'my-svc' } } } } } }");
    return 0;
}

static const void *make(const char *text) {
    const void *c = istio_stats_http_filter.compile(&f.ctx, fake_msg(&f, CONFIG, text));
    if (!c) {
        fail_msg("%s: %.*s", text, SV_ARG(fake_errors(&f)));
    }
    return c;
}

/* /stats/prometheus of what was used. */
static const char *shown(void) {
    static char out[65536];
    BUF_AUTO struct buf err = {0}, text = {0};
    struct stats_params p;
    assert_true(stats_params_parse(&p, SV("usedonly&histogram_buckets=summary"), true, &err));
    struct stats_iter *it = stats_iter_new(f.ctx.stats, &p);
    while (stats_iter_next(it, &text, 1 << 16)) {}
    stats_iter_free(it);
    size_t n = buf_peek(&text, 0, out, sizeof(out) - 1);
    out[n] = '\0';
    return out;
}
static void assert_shown(const char *want) {
    if (!strstr(shown(), want)) {
        fail_msg("no '%s' in\n%s", want, shown());
    }
}
static void assert_not_shown(const char *what) {
    if (strstr(shown(), what)) {
        fail_msg("'%s' in\n%s", what, shown());
    }
}

struct request {
    unsigned direction; /* core.v3.TrafficDirection */
    const char *peer;   /* baggage of the one found; NULL: none */
    const char *cluster, *route;
    const char *service; /* name in the cluster's metadata; NULL: none */
    unsigned code;
    uint64_t flags;
    const char *more; /* request headers */
};

static void add_service(struct stream_info *si, const char *name, struct arena *a) {
    struct kv_value *one = arena_new(a, struct kv_value), v;
    *one = kv_empty_struct();
    v = kv_string(arena_printf(a, "%s.ns.svc.cluster.local", name));
    kv_set(one, a, SV("host"), &v);
    v = kv_string(sv_cstr(name));
    kv_set(one, a, SV("name"), &v);
    struct kv_value list = {.kind = KV_LIST, .list = {one, 1}};
    struct kv_metadata *m = kv_metadata_new(a);
    kv_metadata_set(m, SV("istio"), SV("services"), &list);
    si->cluster_metadata = m;
}

static void add_peer(struct filter_state **fs, const char *baggage, bool is_downstream) {
    struct kv_value *peer = arena_new(&f.arena, struct kv_value);
    *peer = istio_peer_from_baggage(sv_cstr(baggage), &f.arena);
    *fs = *fs ? *fs : filter_state_new(&f.arena, NULL);
    istio_peer_publish(*fs, is_downstream, peer, SV("x"));
}

static void run(const void *config, const struct request *r) {
    struct stream s;
    fake_stream_start(&s, &istio_stats_http_filter, config, "h.com", "/", r->more);
    s.cx.traffic_direction = (uint8_t)r->direction;
    s.info.cluster_name = sv_cstr(r->cluster ? r->cluster : "outbound|80||x");
    s.info.route_name = sv_cstr(r->route ? r->route : "");
    if (r->service) {
        add_service(&s.info, r->service, &s.arena);
    }
    fake_stream_decode(&s, true);
    if (r->peer) {
        add_peer(&s.info.filter_state, r->peer, r->direction == INBOUND);
    }
    fake_stream_respond(&s, r->code ? r->code : 200, "", true);
    s.info.response_code = (uint16_t)(r->code ? r->code : 200);
    s.info.flags = r->flags;
    s.info.end_us = s.info.start_us + 7000;
    s.info.wire_rx_bytes = 100;
    s.info.wire_tx_bytes = 200;
    istio_stats_http_filter.on_log(s.filter);
    fake_stream_end(&s);
}

#define PEER "k8s.deployment.name=web,k8s.namespace.name=shop,service.name=web-svc"

static void test_server_labels(void **state) {
    (void)state;
    run(make(""), &(struct request){.direction = INBOUND, .peer = PEER, .service = "my"});
    assert_shown(
        "istio_requests_total{reporter=\"destination\",source_workload=\"web\",source_canonical_"
        "service=\"web-svc\",source_canonical_revision=\"latest\",source_workload_namespace="
        "\"shop\","
        "source_principal=\"unknown\",source_app=\"web-svc\",source_version=\"unknown\",source_"
        "cluster=\"unknown\",destination_workload=\"mine\",destination_workload_namespace=\"my-"
        "ns\","
        "destination_principal=\"unknown\",destination_app=\"\",destination_version=\"\","
        "destination_service=\"my.ns.svc.cluster.local\",destination_canonical_service=\"my-svc\","
        "destination_canonical_revision=\"\",destination_service_name=\"my\",destination_service_"
        "namespace=\"my-ns\",destination_cluster=\"c0\",request_protocol=\"http\",response_code="
        "\"200\",grpc_response_status=\"\",response_flags=\"-\",connection_security_policy="
        "\"none\"}"
        " 1\n");
    assert_shown("istio_build{component=\"proxy\",tag=\"1.99\"} 1\n");
}

static void test_client_labels(void **state) {
    (void)state;
    static const struct {
        struct request r;
        const char *want[4];
    } rows[] = {
        {{.direction = OUTBOUND, .peer = PEER, .service = "web"},
         {"reporter=\"source\",source_workload=\"mine\"", "destination_workload=\"web\"",
          "destination_service_name=\"web\"", "connection_security_policy=\"unknown\""}},
        {{.direction = OUTBOUND, .code = 503, .flags = RESPONSE_FLAG(UH)},
         {"destination_workload=\"unknown\"", "destination_service=\"h.com\"",
          "response_code=\"503\"", "response_flags=\"UH\""}},
        {{.direction = OUTBOUND, .route = "block_all"},
         {"destination_service_name=\"BlackHoleCluster\""}},
        {{.direction = OUTBOUND, .route = "allow_any"},
         {"destination_service_name=\"PassthroughCluster\""}},
        {{.direction = OUTBOUND, .cluster = "PassthroughCluster", .service = "x"},
         {"destination_service_name=\"PassthroughCluster\""}},
        {{.direction = OUTBOUND, .more = "content-type: application/grpc"},
         {"request_protocol=\"grpc\"", "grpc_response_status=\"2\""}},
        {{.direction = OUTBOUND, .more = "content-type: application/grpcish"},
         {"request_protocol=\"http\""}},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        run(make(""), &rows[i].r);
        for (unsigned k = 0; k < 4 && rows[i].want[k]; k++) {
            assert_shown(rows[i].want[k]);
        }
    }
    run(make("disable_host_header_fallback: true"), &(struct request){.direction = OUTBOUND});
    assert_shown("destination_service=\"unknown\"");
}

static void test_sets_are_shared(void **state) {
    (void)state;
    const void *one = make(""), *two = make("disable_host_header_fallback: true");
    struct request r = {.direction = OUTBOUND, .service = "x"};
    run(one, &r);
    run(two, &r);
    run(one, &r);
    assert_shown("\"} 3\n");
}

static void test_overrides(void **state) {
    (void)state;
    struct request r = {.direction = OUTBOUND, .more = "x-a: 1"};
    run(make("metrics { name: 'request_bytes' drop: true }"
             "metrics { tags_to_remove: 'source_cluster' tags_to_remove: 'nobody' }"
             "metrics { name: 'requests_total' dimensions { key: 'method' value: 'request.method' }"
             "  dimensions { key: 'response_code' value: \"'c' + string(response.code)\" }"
             "  dimensions { key: 'bad' value: 'request.(' }"
             "  dimensions { key: 'none' value: \"request.headers['x-none']\" } }"
             "definitions { name: 'mine' value: '3 + 4' type: COUNTER }"
             "definitions { name: 'requests_total' value: '1' }"),
        &r);
    assert_not_shown("istio_request_bytes");
    assert_not_shown("source_cluster");
    assert_not_shown("bad=");
    assert_shown("response_code=\"c200\"");
    assert_shown("method=\"GET\",none=\"unknown\"} 1");
    assert_shown("istio_mine{} 7\n");
    assert_int_equal(fake.unhonoured_n, 2);
}

static void test_too_many_sets(void **state) {
    (void)state;
    const void *c = make("");
    for (unsigned i = 0; i < ISTIO_LABEL_SETS_MAX + 10; i++) {
        struct request r = {.direction = OUTBOUND,
                            .service = arena_cstr(&f.msgs, arena_printf(&f.msgs, "s%u", i))};
        run(c, &r);
    }
    assert_shown("envoy_istio_stats_label_sets_overflow{} 10\n");
}

/* --- connections --- */

struct tcp {
    _Alignas(16) char bytes[2048];
};
static struct network_filter *tcp_start(struct tcp *t, const void *config, unsigned direction) {
    assert_true(istio_stats_network_filter.instance_size <= sizeof(t->bytes));
    memset(t, 0, sizeof(*t));
    struct network_filter *nf = (struct network_filter *)(void *)t->bytes;
    *nf = (struct network_filter){.type = &istio_stats_network_filter, .config = config};
    tcp_cx = (struct conn_info){.traffic_direction = (uint8_t)direction};
    tcp_info = (struct stream_info){.cx = &tcp_cx, .arena = &f.arena, .cluster_name = SV("c")};
    tcp_loop = (struct loop){.thread_index = 2, .wheel = timer_wheel_new(NULL)};
    assert_int_equal(istio_stats_network_filter.on_new_connection(nf), NET_CONTINUE);
    return nf;
}
static void tcp_end(struct network_filter *nf) {
    istio_stats_network_filter.on_conn_event(nf, CONN_EVENT_REMOTE_CLOSE);
    istio_stats_network_filter.destroy(nf);
    timer_wheel_free(tcp_loop.wheel);
}

static void test_tcp(void **state) {
    (void)state;
    struct tcp t;
    struct network_filter *nf = tcp_start(
        &t, istio_stats_network_filter.compile(&f.ctx, fake_msg(&f, CONFIG, "")), OUTBOUND);
    tcp_info.rx_bytes = 10;
    tcp_info.tx_bytes = 20;
    timer_wheel_advance(tcp_loop.wheel, 6000);
    assert_not_shown("istio_tcp"); /* nobody knows yet who the peer is */
    struct filter_state *upstream = NULL;
    add_peer(&upstream, PEER, false);
    tcp_info.up.filter_state = upstream;
    tcp_info.up.peer_uri = SV("spiffe://cluster.local/ns/mesh/sa/x");
    timer_wheel_advance(tcp_loop.wheel, 12000);
    assert_shown("istio_tcp_connections_opened_total{reporter=\"source\"");
    assert_shown("destination_workload=\"web\",destination_workload_namespace=\"mesh\"");
    assert_shown("request_protocol=\"tcp\",response_flags=\"-\"");
    assert_not_shown("istio_tcp_connections_closed_total");
    tcp_info.rx_bytes = 30;
    tcp_end(nf);
    assert_shown("istio_tcp_connections_closed_total{reporter=\"source\"");
    assert_shown("\"} 30\n");
    assert_not_shown("response_code");
}

static void test_short_tcp(void **state) {
    (void)state;
    struct tcp t;
    tcp_end(tcp_start(&t, make("tcp_reporting_duration { }"), INBOUND));
    assert_shown("istio_tcp_connections_opened_total{reporter=\"destination\"");
    assert_shown("source_workload=\"unknown\"");
}

static void test_bad_period(void **state) {
    (void)state;
    assert_null(istio_stats_http_filter.compile(
        &f.ctx, fake_msg(&f, CONFIG, "tcp_reporting_duration { seconds: -1 }")));
    assert_true(sv_find_sv(fake_errors(&f), SV("tcp_reporting_duration")) != SIZE_MAX);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_server_labels, begin, end),
        cmocka_unit_test_setup_teardown(test_client_labels, begin, end),
        cmocka_unit_test_setup_teardown(test_sets_are_shared, begin, end),
        cmocka_unit_test_setup_teardown(test_overrides, begin, end),
        cmocka_unit_test_setup_teardown(test_too_many_sets, begin, end),
        cmocka_unit_test_setup_teardown(test_tcp, begin, end),
        cmocka_unit_test_setup_teardown(test_short_tcp, begin, end),
        cmocka_unit_test_setup_teardown(test_bad_period, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
