/* validate.rules: each kind at its limits, with Envoy's words and the path of the field. */
#include "protos/pb_rules.h"

#include <pthread.h>

#include "tests/support/pb.h"

#define CLUSTER "envoy.config.cluster.v3.Cluster"
#define BOOTSTRAP "envoy.config.bootstrap.v3.Bootstrap"
#define ROUTE_MATCH "envoy.config.route.v3.RouteMatch"

struct row {
    const char *type, *text, *errors; /* "" when there are none */
};

static void check_rows(struct pb_fixture *f, const struct row *rows, size_t n) {
    for (size_t i = 0; i < n; i++) {
        const ProtobufCMessage *m = pb_make(f, rows[i].type, rows[i].text);
        bool ok = pb_rules_check(m, &f->d);
        assert_row(ok == !*rows[i].errors, i);
        assert_row(diag_path(&f->d).n == 0, i);
        assert_errors(f, rows[i].errors);
    }
}
#define CHECK_ROWS(f, rows) check_rows((f), (rows), ARRAY_LEN(rows))

static void test_strings(void **state) {
    static const struct row rows[] = {
        {CLUSTER, "name: 'c'", ""},
        {CLUSTER, "", "name: value length must be at least 1 characters"},
        /* characters, not bytes */
        {"envoy.config.core.v3.KeyValue", "key: 'k'", ""},
        {"envoy.extensions.filters.http.api_key_auth.v3.KeySource", "header: ''", ""},
        {ROUTE_MATCH, "path_separated_prefix: '/a'", ""},
        {ROUTE_MATCH, "path_separated_prefix: '/a/'",
         "path_separated_prefix: value does not match regex pattern \"^[^?#]+[^?#/]$\""},
        {ROUTE_MATCH, "path_separated_prefix: '/a?b'",
         "path_separated_prefix: value does not match regex pattern \"^[^?#]+[^?#/]$\""},
        {ROUTE_MATCH, "prefix: ''", ""},
        {"envoy.config.route.v3.RateLimit.HitsAddend", "format: '%A%'", ""},
        {"envoy.config.route.v3.RateLimit.HitsAddend", "format: 'A'",
         "format: value does not have prefix \"%\"; format: value does not have suffix \"%\""},
        {"envoy.config.core.v3.SchemeHeaderTransformation", "scheme_to_overwrite: 'https'", ""},
        {"envoy.config.core.v3.SchemeHeaderTransformation", "scheme_to_overwrite: 'ftp'",
         "scheme_to_overwrite: value must be in list [http https]"},
        {"envoy.config.core.v3.HeaderValue", "key: 'x-y' value: 'a\tb'", ""},
        {"envoy.config.core.v3.HeaderValue", "key: 'x\\ny'",
         "key: value does not match regex pattern \"^[^\\x00\\n\\r]*$\""},
    };
    CHECK_ROWS(*state, rows);
}

static void test_long_strings(void **state) {
    struct pb_fixture *f = *state;
    const char *type = "envoy.config.core.v3.KeyValuePair";
    for (size_t n = 16384; n <= 16385; n++) {
        char *key = arena_alloc(&f->a, n + 1);
        memset(key, 'k', n);
        key[n] = '\0';
        const char *text = arena_printf(&f->a, "key: '%s'", key).p;
        assert_int_equal(pb_rules_check(pb_make(f, type, text), &f->d), n == 16384);
    }
    assert_errors(f, "key: value length must be at most 16384 bytes");
}

static void test_numbers(void **state) {
    static const struct row rows[] = {
        {"envoy.config.core.v3.SocketAddress", "address: 'a' port_value: 65535", ""},
        {"envoy.config.core.v3.SocketAddress", "address: 'a' port_value: 65536",
         "port_value: value must be less than or equal to 65535"},
        {"envoy.config.cluster.v3.Cluster.LeastRequestLbConfig", "choice_count { value: 2 }", ""},
        {"envoy.config.cluster.v3.Cluster.LeastRequestLbConfig", "choice_count { value: 1 }",
         "choice_count: value must be greater than or equal to 2"},
        {"envoy.config.cluster.v3.Cluster.LeastRequestLbConfig", "", ""}, /* absent wrapper */
        {"envoy.config.cluster.v3.Cluster.RingHashLbConfig", "minimum_ring_size { value: 8388609 }",
         "minimum_ring_size: value must be less than or equal to 8388608"},
        {"envoy.config.cluster.v3.Cluster.PreconnectPolicy",
         "per_upstream_preconnect_ratio { value: 3 } predictive_preconnect_ratio { value: 0.5 }",
         "predictive_preconnect_ratio: value must be inside range [1, 3]"},
        {"envoy.config.cluster.v3.Cluster.PreconnectPolicy",
         "per_upstream_preconnect_ratio { value: nan }",
         "per_upstream_preconnect_ratio: value must be inside range [1, 3]"},
        {"envoy.type.v3.Percent", "value: 100", ""},
        {"envoy.type.v3.Percent", "value: -1", "value: value must be inside range [0, 100]"},
        /* a lower bound above the upper one: outside of both */
        {"envoy.config.core.v3.QuicKeepAliveSettings", "initial_interval { seconds: 1 }", ""},
        {"envoy.config.core.v3.QuicKeepAliveSettings", "initial_interval { }", ""},
        {"envoy.config.core.v3.QuicKeepAliveSettings", "initial_interval { nanos: 5 }",
         "initial_interval: value must be outside range (0s, 1ms)"},
    };
    CHECK_ROWS(*state, rows);
}

static void test_durations(void **state) {
    static const struct row rows[] = {
        {BOOTSTRAP, "stats_flush_interval { nanos: 1000000 }", ""},
        {BOOTSTRAP, "stats_flush_interval { }",
         "stats_flush_interval: value must be inside range [1ms, 5m0s)"},
        {BOOTSTRAP, "stats_flush_interval { seconds: 299 nanos: 999999999 }", ""},
        {BOOTSTRAP, "stats_flush_interval { seconds: 300 }",
         "stats_flush_interval: value must be inside range [1ms, 5m0s)"},
        {CLUSTER, "name: 'c' connect_timeout { }",
         "connect_timeout: value must be greater than 0s"},
        {CLUSTER, "name: 'c' connect_timeout { nanos: -1 }",
         "connect_timeout: value must be greater than 0s"},
        {CLUSTER, "name: 'c' dns_refresh_rate { nanos: 1000000 }",
         "dns_refresh_rate: value must be greater than 1ms"},
        {"envoy.config.cluster.v3.Cluster.RefreshRate", "", "base_interval: value is required"},
    };
    CHECK_ROWS(*state, rows);
}

static void test_enums_and_booleans(void **state) {
    static const struct row rows[] = {
        {CLUSTER, "name: 'c' lb_policy: MAGLEV", ""},
        {CLUSTER, "name: 'c' lb_policy: 77",
         "lb_policy: value must be one of the defined enum values"},
        {"envoy.config.core.v3.HealthCheck.HttpHealthCheck", "path: '/' method: CONNECT",
         "method: value must not be in list [CONNECT]"},
        {BOOTSTRAP, "stats_flush_on_admin: true", ""},
        {BOOTSTRAP, "stats_flush_on_admin: false", "stats_flush_on_admin: value must equal true"},
    };
    CHECK_ROWS(*state, rows);
}

static void test_required(void **state) {
    static const struct row rows[] = {
        {"envoy.config.core.v3.Address", "", "field: \"address\", reason: is required"},
        {"envoy.config.core.v3.Address", "pipe { path: '/p' }", ""},
        {"envoy.config.core.v3.HealthCheck", "",
         "field: \"health_checker\", reason: is required; timeout: value is required; interval: "
         "value is required; unhealthy_threshold: value is required; healthy_threshold: value is "
         "required"},
        {"envoy.config.core.v3.TypedExtensionConfig", "name: 'x'",
         "typed_config: value is required"},
        {"envoy.config.core.v3.TypedExtensionConfig", "name: 'x' typed_config { }", ""},
    };
    CHECK_ROWS(*state, rows);
}

static void test_lists_and_maps(void **state) {
    static const struct row rows[] = {
        {"envoy.config.accesslog.v3.AndFilter", "filters { }",
         "filters: value must contain at least 2 item(s); filters[0]: field: "
         "\"filter_specifier\", reason: is required"},
        {"envoy.config.metrics.v3.HistogramBucketSettings",
         "match { exact: 'a' } buckets: [1, 2, 3]", ""},
        {"envoy.config.metrics.v3.HistogramBucketSettings",
         "match { exact: 'a' } buckets: [1, 2, 1]",
         "buckets: repeated value must contain unique items"},
        {"envoy.config.metrics.v3.HistogramBucketSettings", "match { exact: 'a' } buckets: [1, 0]",
         "buckets[1]: value must be greater than 0"},
        {"envoy.config.listener.v3.FilterChainMatch", "source_ports: [1, 0, 65535, 65536]",
         "source_ports[1]: value must be inside range [1, 65535]; source_ports[3]: value must be "
         "inside range [1, 65535]"},
        {"envoy.config.accesslog.v3.ResponseFlagFilter", "flags: ['UH', 'XX']",
         "flags[1]: value must be in list ["},
        {"envoy.config.core.v3.Metadata", "filter_metadata { key: '' value { } }",
         "filter_metadata[\"\"]: value length must be at least 1 characters"},
        {"envoy.config.common.matcher.v3.Matcher.MatcherTree.MatchMap", "",
         "map: value must contain at least 1 pair(s)"},
        {"envoy.config.common.matcher.v3.Matcher.MatcherTree.MatchMap",
         "map { key: 'k' value { } }", "map[\"k\"]: field: \"on_match\", reason: is required"},
        {"xds.data.orca.v3.OrcaLoadReport", "utilization { key: 'a' value: 1.5 }",
         "utilization[\"a\"]: value must be inside range [0, 1]"},
    };
    struct pb_fixture *f = *state;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        bool ok = pb_rules_check(pb_make(f, rows[i].type, rows[i].text), &f->d);
        assert_row(ok == !*rows[i].errors, i);
        sv text = sv_sub(diag_text(&f->d), 0, i == 5 ? strlen(rows[i].errors) : SIZE_MAX);
        assert_sv_is(text, rows[i].errors);
        diag_reset(&f->d);
    }
}

static void test_paths_and_all_errors(void **state) {
    static const struct row rows[] = {
        {BOOTSTRAP,
         "admin { address { socket_address { port_value: 70000 } } }"
         "static_resources { clusters { name: 'a' } clusters { name: 'b' lb_policy: 99 } }",
         "static_resources.clusters[1].lb_policy: value must be one of the defined enum values; "
         "admin.address.socket_address.address: value length must be at least 1 characters; "
         "admin.address.socket_address.port_value: value must be less than or equal to 65535"},
        /* message.skip: the entry's own rules do not count */
        {"envoy.config.core.v3.KeyValueAppend", "entry { }", ""},
    };
    CHECK_ROWS(*state, rows);
}

static void *match_pattern(void *arg) {
    struct pb_fixture f;
    arena_init(&f.a, 0);
    diag_init(&f.d);
    (void)arg;
    bool ok = pb_rules_check(pb_make(&f, ROUTE_MATCH, "path_separated_prefix: '/a'"), &f.d);
    diag_fini(&f.d);
    arena_fini(&f.a);
    chunk_cache_trim();
    return ok ? arg : NULL;
}

static void test_patterns_from_threads(void **state) {
    pthread_t threads[4];
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, match_pattern, state), 0);
    }
    for (size_t i = 0; i < ARRAY_LEN(threads); i++) {
        void *result;
        pthread_join(threads[i], &result);
        assert_ptr_equal(result, state);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        PB_TEST(test_patterns_from_threads),
        PB_TEST(test_strings),
        PB_TEST(test_long_strings),
        PB_TEST(test_numbers),
        PB_TEST(test_durations),
        PB_TEST(test_enums_and_booleans),
        PB_TEST(test_required),
        PB_TEST(test_lists_and_maps),
        PB_TEST(test_paths_and_all_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
