/* Tag extraction: Envoy's default rules, configured regexes (as Istio sends them), fixed tags, what
 * is refused. */
#include <stdio.h>

#include "proxy/stats/stats_tags.h"
#include "tests/support/unit.h"

static void expect(const struct stats_tags *t, const char *full, const char *name, const char *tags,
                   size_t row) {
    struct stats_tag_set s;
    stats_tags_extract(t, sv_cstr(full), &s);
    char got[1024] = "";
    for (unsigned i = 0; i < s.n; i++) {
        size_t n = strlen(got);
        snprintf(got + n, sizeof(got) - n, "%s%.*s=%.*s", i ? " " : "", SV_ARG(s.v[i].name),
                 SV_ARG(s.v[i].value));
    }
    if (!sv_is(s.name, name) || strcmp(got, tags) != 0) {
        print_error("row %zu '%s': got '%.*s' [%s], want '%s' [%s]\n", row, full, SV_ARG(s.name),
                    got, name, tags);
        fail();
    }
}

static void test_defaults(void **state) {
    (void)state;
    static const struct {
        const char *full, *name, *tags;
    } cases[] = {
        /* seen on Envoy 1.40 */
        {"cluster.c.one.upstream_cx_total", "cluster.one.upstream_cx_total",
         "envoy.cluster_name=c"},
        {"cluster.c.one.external.upstream_rq_404", "cluster.one.external.upstream_rq",
         "envoy.response_code=404 envoy.cluster_name=c"},
        {"cluster.c.one.upstream_rq_4xx", "cluster.one.upstream_rq_xx",
         "envoy.response_code_class=4 envoy.cluster_name=c"},
        {"http.admin.downstream_rq_2xx", "http.downstream_rq_xx",
         "envoy.response_code_class=2 envoy.http_conn_manager_prefix=admin"},
        {"http.ing.x.downstream_cx_total", "http.x.downstream_cx_total",
         "envoy.http_conn_manager_prefix=ing"},
        {"listener.127.0.0.1_19381.downstream_cx_total", "listener.downstream_cx_total",
         "envoy.listener_address=127.0.0.1_19381"},
        {"listener.127.0.0.1_19381.http.ing.downstream_rq_2xx", "listener.http.downstream_rq_xx",
         "envoy.response_code_class=2 envoy.http_conn_manager_prefix=ing "
         "envoy.listener_address=127.0.0.1_19381"},
        {"listener.127.0.0.1_19381.worker_0.downstream_cx_total",
         "listener.worker_downstream_cx_total",
         "envoy.worker_id=0 envoy.listener_address=127.0.0.1_19381"},
        {"server.worker_12.watchdog_miss", "server.worker_watchdog_miss", "envoy.worker_id=12"},
        {"vhost.vh.route.rsp.upstream_rq_404", "vhost.route.upstream_rq",
         "envoy.response_code=404 envoy.virtual_host=vh envoy.route=rsp"},
        {"vhost.vh.vcluster.other.upstream_rq_total", "vhost.vcluster.upstream_rq_total",
         "envoy.virtual_cluster=other envoy.virtual_host=vh"},
        {"listener.admin.downstream_cx_total", "listener.admin.downstream_cx_total", ""},
        {"listener.admin.http.admin.downstream_rq_2xx", "listener.admin.http.downstream_rq_xx",
         "envoy.response_code_class=2 envoy.http_conn_manager_prefix=admin"},
        {"cluster.x.health_check.name.hc.attempt", "cluster.health_check.attempt",
         "envoy.health_check_name=hc envoy.cluster_name=x"},
        {"http.p.ext_authz.ea.denied", "http.ext_authz.denied",
         "envoy.ext_authz_prefix=ea envoy.http_conn_manager_prefix=p"},
        {"http.p.rbac.pp.allowed", "http.rbac.allowed",
         "envoy.rbac_http_prefix=pp envoy.http_conn_manager_prefix=p"},
        {"http.p.rbac.policy.q.allowed", "http.rbac.policy.allowed",
         "envoy.rbac_policy_name=q envoy.http_conn_manager_prefix=p"},
        {"tcp.tcpx.downstream_cx_total", "tcp.downstream_cx_total", "envoy.tcp_prefix=tcpx"},
        {"cluster_manager.cluster_added", "cluster_manager.cluster_added", ""},
        {"server.version", "server.version", ""},
        /* by the rules */
        {"listener.[__1]_80.downstream_cx_total", "listener.downstream_cx_total",
         "envoy.listener_address=[__1]_80"},
        {"listener.0.0.0.0_443.ssl.ciphers.TLS_AES_128_GCM_SHA256", "listener.ssl.ciphers",
         "envoy.ssl_cipher=TLS_AES_128_GCM_SHA256 envoy.listener_address=0.0.0.0_443"},
        {"cluster.x.ssl.ciphers.ECDHE-RSA-AES128-GCM-SHA256", "cluster.ssl.ciphers",
         "envoy.ssl_cipher=ECDHE-RSA-AES128-GCM-SHA256 envoy.cluster_name=x"},
        {"cluster.x.ssl.versions.TLSv1.3", "cluster.ssl.versions",
         "envoy.ssl_version=TLSv1.3 envoy.cluster_name=x"},
        {"cluster.x.ssl.curves.X25519", "cluster.ssl.curves",
         "envoy.ssl_curve=X25519 envoy.cluster_name=x"},
        {"cluster.x.grpc.svc.method.success", "cluster.grpc.success",
         "envoy.grpc_bridge_method=method envoy.grpc_bridge_service=svc envoy.cluster_name=x"},
        {"http.p.rds.my.route-1.update_success", "http.rds.update_success",
         "envoy.rds_route_config=my.route-1 envoy.http_conn_manager_prefix=p"},
        {"http.p.user_agent.ios.downstream_cx_total", "http.user_agent.downstream_cx_total",
         "envoy.http_user_agent=ios envoy.http_conn_manager_prefix=p"},
        {"edge.http_local_rate_limit.enabled", "http_local_rate_limit.enabled",
         "envoy.local_http_ratelimit_prefix=edge"},
        {"edge.rbac.allowed", "rbac.allowed", "envoy.rbac_prefix=edge"},
        {"ratelimit.rl.ok", "ratelimit.ok", "envoy.ratelimit_prefix=rl"},
        {"sds.my_cert.update_success", "sds.update_success", "envoy.xds_resource_name=my_cert"},
        {"connection_limit.cl.active", "connection_limit.active",
         "envoy.connection_limit_prefix=cl"},
        {"proxy_proto.versions.v2.found", "proxy_proto.found", "envoy.proxy_protocol_version=2"},
        /* near misses */
        {"cluster", "cluster", ""},
        {"clusters.x.y", "clusters.x.y", ""},
        {"", "", ""},
        {".", ".", ""},
        {"http.p.downstream_rq_20", "http.downstream_rq_20", "envoy.http_conn_manager_prefix=p"},
        {"x_rq_2xxx", "x_rq_2xxx", ""},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        expect(stats_tags_default(), cases[i].full, cases[i].name, cases[i].tags, i);
    }
}

static void test_configured(void **state) {
    (void)state;
    const struct stats_tag_spec specs[] = {
        {.name = SV("cluster_name"), .regex = SV("^cluster(\\.(.+);)")},
        {.name = SV("tcp_prefix"), .regex = SV("^tcp\\.((.*?)\\.)\\w+?$")},
        {.name = SV("response_code"), .regex = SV("_rq(_(\\d{3}))$")},
        {.name = SV("listener_prefix"),
         .regex = SV("^listener(?=\\.).*?\\.http\\.(((?:[_.[:digit:]]*|[_\\[\\]aAbBcCdDeEfF[:digit:"
                     "]]*))\\.)")},
        {.name = SV("listener_address"),
         .regex = SV("^listener\\.(((?:[_.[:digit:]]*|[_\\[\\]aAbBcCdDeEfF[:digit:]]*))\\.)")},
        {.name = SV("component"), .regex = SV("(component\\.(.+?)\\.)")},
        {.name = SV("authz_enforce_result"), .regex = SV("rbac(\\.(allowed|denied))")},
        {.name = SV("whole"), .regex = SV("(-one-group)")},
        {.name = SV("fixed"), .is_fixed = true, .fixed = SV("v1")},
        {.name = SV("no_group"), .regex = SV("zzz")},
    };
    char err[256];
    struct stats_tags *t =
        stats_tags_new(false, specs, sizeof(specs) / sizeof(specs[0]), err, sizeof(err));
    assert_non_null(t);
    static const struct {
        const char *full, *name, *tags;
    } cases[] = {
        {"cluster.outbound|80||a.ns.svc.cluster.local;.upstream_rq_200", "cluster.upstream_rq",
         "cluster_name=outbound|80||a.ns.svc.cluster.local response_code=200 fixed=v1"},
        {"listener.0.0.0.0_80.http.0.0.0.0_81.rq", "listener.http.rq",
         "fixed=v1 listener_prefix=0.0.0.0_81 listener_address=0.0.0.0_80"},
        {"http.x.rbac.allowed", "http.x.rbac", "authz_enforce_result=allowed fixed=v1"},
        {"component.proxy.tag", "tag", "component=proxy fixed=v1"},
        {"a-one-group.b", "a.b", "whole=-one-group fixed=v1"},
        {"tcp.in.a.total", "tcp.total", "fixed=v1 tcp_prefix=in.a"},
        {"zzz", "zzz", "fixed=v1"},
        {"listenerx.1.http.0.rq", "listenerx.1.http.0.rq", "fixed=v1"},
        {"vhost.p.x", "vhost.p.x", "fixed=v1"}, /* no default rules */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        expect(t, cases[i].full, cases[i].name, cases[i].tags, i);
    }
    stats_tags_free(t);
}

/* The default rule of a tag by its name, alone or beside the others; a tag is taken once only. */
static void test_named_defaults(void **state) {
    (void)state;
    const struct stats_tag_spec spec = {.name = SV("envoy.cluster_name")};
    const struct stats_tag_spec own = {.name = SV("envoy.cluster_name"),
                                       .regex = SV("^cluster\\.((.)\\.)")};
    char err[128];
    struct stats_tags *t = stats_tags_new(false, &spec, 1, err, sizeof(err));
    expect(t, "cluster.x.upstream_rq_200", "cluster.upstream_rq_200", "envoy.cluster_name=x", 0);
    stats_tags_free(t);
    t = stats_tags_new(true, &own, 1, err, sizeof(err));
    expect(t, "cluster.x.a", "cluster.a", "envoy.cluster_name=x", 1);
    stats_tags_free(t);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        struct stats_tag_spec spec;
        const char *want;
    } cases[] = {
        {{.name = SV_INIT("x")},
         "No regex specified for tag specifier and no default regex for name: 'x'"},
        {{.name = SV_INIT(""), .regex = SV_INIT("a")}, "tag_name cannot be empty"},
        {{.name = SV_INIT("x"), .regex = SV_INIT("(")},
         "Invalid regex '(': missing closing parenthesis"},
        {{.name = SV_INIT("x"), .regex = SV_INIT("[")},
         "Invalid regex '[': missing terminating ] for character class"},
        {{.name = SV_INIT("x"), .regex = SV_INIT("*a")},
         "Invalid regex '*a': quantifier does not follow a repeatable item"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char err[256] = "";
        assert_row(!stats_tags_new(true, &cases[i].spec, 1, err, sizeof(err)), i);
        if (strcmp(err, cases[i].want) != 0) {
            fail_msg("row %zu: %s", i, err);
        }
    }
}

/* A regex that would run for ever gives up; names of any length are survived. */
static void test_hostile(void **state) {
    (void)state;
    const struct stats_tag_spec spec = {.name = SV("x"), .regex = SV("^((a+)+)+$")};
    char err[128], name[STATS_NAME_MAX + 100];
    struct stats_tags *t = stats_tags_new(false, &spec, 1, err, sizeof(err));
    assert_non_null(t);
    memset(name, 'a', sizeof(name));
    name[60] = '!';
    struct stats_tag_set s;
    stats_tags_extract(t, sv_from(name, 61), &s);
    assert_int_equal(s.n, 0);
    stats_tags_extract(t, sv_from(name, sizeof(name)), &s);
    assert_int_equal(s.n, 0);
    assert_int_equal(s.name.n, sizeof(name));
    stats_tags_free(t);
    memset(name, '.', sizeof(name)); /* many tokens */
    memcpy(name, "mongo.", 6);
    stats_tags_extract(stats_tags_default(), sv_from(name, 1000), &s);
    assert_true(s.name.n <= 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),       cmocka_unit_test(test_configured),
        cmocka_unit_test(test_named_defaults), cmocka_unit_test(test_refused),
        cmocka_unit_test(test_hostile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
