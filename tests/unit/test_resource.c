/* Whole resources as a control plane sends them, against the real compilers: what is refused, and
 * in which words. Rows of what a fuzz target found say so. */
#include "protos/any.h"
#include "protos/gen/core.pb-c.h"
#include "protos/pb_text.h"
#include "proxy/config/listener.h"
#include "tests/support/test_config.h"
#include "tests/support/unit.h"

struct row {
    enum resource_type type;
    const char *text;  /* text format */
    const char *error; /* part of it; NULL: it is taken */
};

static void check_row(const struct row *row, size_t i) {
    struct test_config t;
    struct arena a;
    struct diag *d = xnew(struct diag);
    diag_init(d);
    arena_init(&a, 0);
    test_config_init(&t, true);
    const struct proto_type *type = any_type(sv_cstr(resource_types[row->type].proto_name));
    ProtobufCMessage *m = pb_text_parse(type, sv_cstr(row->text), &a, d);
    assert_row(m != NULL, i);
    struct resource *r =
        resource_compile(&t.config, row->type, SV_NULL, SV("1"), proto_pack(m, &a), false, NULL, d);
    assert_row((r != NULL) == (row->error == NULL), i);
    if (r) {
        shared_unref(&r->shared);
    } else if (!sv_contains(diag_text(d), sv_cstr(row->error))) {
        sv text = diag_text(d);
        fail_msg("row %zu: '%.*s' instead of '%s'", i, SV_ARG(text), row->error);
    }
    test_config_fini(&t);
    diag_fini(d);
    xfree(d);
    arena_fini(&a);
}

#define EDS(source)                                                                                \
    "name: 'c' type: EDS connect_timeout { seconds: 1 } eds_cluster_config { eds_config { " source \
    " } }"

#define STATIC "name: 'c' type: STATIC connect_timeout { seconds: 1 } "
#define SOCKET(name, fields) STATIC "transport_socket { name: '" name "' " fields " }"
#define NO_IMPLEMENTATION "Didn't find a registered implementation for "

static void check_rows(const struct row *rows, size_t n) {
    for (size_t i = 0; i < n; i++) {
        check_row(&rows[i], i);
    }
}

/* fuzz_compile: TLS without a context was a null dereference. */
static void test_transport_socket_without_config_is_refused(void **state) {
    (void)state;
    static const struct row rows[] = {
        {RES_CLUSTER, STATIC, NULL},
        {RES_CLUSTER, SOCKET("envoy.transport_sockets.tls", ""),
         NO_IMPLEMENTATION "'envoy.transport_sockets.tls' with type URL: ''"},
        {RES_CLUSTER, SOCKET("envoy.transport_sockets.tls", "typed_config { }"),
         NO_IMPLEMENTATION "'envoy.transport_sockets.tls' with type URL: ''"},
        {RES_CLUSTER, SOCKET("envoy.transport_sockets.raw_buffer", ""),
         NO_IMPLEMENTATION "'envoy.transport_sockets.raw_buffer' with type URL: ''"},
        {RES_CLUSTER,
         SOCKET("raw", "typed_config { type_url: 'a.b/"
                       "envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer' }"),
         NULL},
        {RES_LISTENER,
         "name: 'l' address { socket_address { address: '127.0.0.1' port_value: 0 } } "
         "filter_chains "
         "{ transport_socket { name: 'envoy.transport_sockets.tls' } }",
         NO_IMPLEMENTATION "'envoy.transport_sockets.tls' with type URL: ''"},
    };
    check_rows(rows, sizeof(rows) / sizeof(rows[0]));
}

#define CHAIN                                                                                     \
    " filter_chains { filters { name: 'tcp' typed_config { type_url: "                            \
    "'a.b/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy' value: '\\n\\001t\\022\\001c' " \
    "} } }"
#define INTERNAL(fields) "name: 'l' internal_listener {} " fields CHAIN
#define TCP_FEATURE ": unsupported tcp listener feature of an internal listener"

static void test_internal_listeners_have_a_name_and_no_socket(void **state) {
    (void)state;
    static const char name[] =
        "name: "
        "'nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
        "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
        "nnnnnn"
        "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn"
        "nnnnnn' "
        "internal_listener {}" CHAIN;
    static const struct row rows[] = {
        {RES_LISTENER, INTERNAL(""), NULL},
        {RES_LISTENER, INTERNAL("bind_to_port { value: true } tcp_keepalive {} stat_prefix: 'x'"),
         NULL},
        {RES_LISTENER,
         INTERNAL("address { socket_address { address: '127.0.0.1' port_value: 0 } }"),
         "address should not be used when an internal listener config is provided"},
        {RES_LISTENER, INTERNAL("address { envoy_internal_address { server_listener_name: 'l' } }"),
         "address should not be used when an internal listener config is provided"},
        {RES_LISTENER, INTERNAL("additional_addresses { address { pipe { path: '/p' } } }"),
         "address should not be used when an internal listener config is provided"},
        {RES_LISTENER, INTERNAL("socket_options { level: 1 name: 2 int_value: 1 }"),
         "socket_options: an internal listener does not support them"},
        {RES_LISTENER, INTERNAL("transparent {}"), "transparent" TCP_FEATURE},
        {RES_LISTENER, INTERNAL("freebind {}"), "freebind" TCP_FEATURE},
        {RES_LISTENER, INTERNAL("tcp_backlog_size { value: 1 }"), "tcp_backlog_size" TCP_FEATURE},
        {RES_LISTENER, INTERNAL("enable_reuse_port {}"), "enable_reuse_port" TCP_FEATURE},
        {RES_LISTENER, INTERNAL("enable_mptcp: true"), "enable_mptcp" TCP_FEATURE},
        {RES_LISTENER, INTERNAL("tcp_fast_open_queue_length {}"),
         "tcp_fast_open_queue_length" TCP_FEATURE},
        {RES_LISTENER, INTERNAL("connection_balance_config { exact_balance {} }"),
         "connection_balance_config" TCP_FEATURE},
        {RES_LISTENER, "internal_listener {}" CHAIN, "name: an internal listener needs one"},
        {RES_LISTENER, name, "name: an internal listener needs one of at most 255 bytes"},
        {RES_LISTENER,
         "name: 'l' address { envoy_internal_address { server_listener_name: 'l' } }" CHAIN,
         "address: use internal_listener field instead of address for internal listeners"},
    };
    check_rows(rows, sizeof(rows) / sizeof(rows[0]));
}

#define ENDPOINT(type, fields)                                                               \
    "name: 'c' " type " connect_timeout { seconds: 1 } load_assignment { cluster_name: 'c' " \
    "endpoints { lb_endpoints { endpoint { " fields " } } } }"
#define TO(fields) "address { envoy_internal_address { " fields " } }"
#define TO_L TO("server_listener_name: 'l' endpoint_id: '1.2.3.4:5'")
#define ANYWHERE "socket_address { address: '127.0.0.1' port_value: 80 }"

static void test_internal_addresses_are_those_of_endpoints(void **state) {
    (void)state;
    static const struct row rows[] = {
        {RES_CLUSTER, ENDPOINT("type: STATIC", TO_L), NULL},
        {RES_CLUSTER, ENDPOINT("type: STATIC", TO("server_listener_name: 'l'")), NULL},
        {RES_CLUSTER, ENDPOINT("type: STATIC", TO("")), "address_name_specifier"},
        {RES_CLUSTER, ENDPOINT("type: STATIC", TO("endpoint_id: 'x'")), "address_name_specifier"},
        {RES_CLUSTER, ENDPOINT("type: STRICT_DNS", TO_L),
         "address: an internal listener is no name to be resolved"},
        {RES_CLUSTER, ENDPOINT("type: LOGICAL_DNS", TO_L),
         "address: an internal listener is no name to be resolved"},
        {RES_CLUSTER,
         ENDPOINT("type: STATIC", TO_L "additional_addresses { address { " ANYWHERE " } }"),
         "address: an internal listener can have no additional_addresses"},
        {RES_CLUSTER,
         ENDPOINT("type: STATIC", "address { " ANYWHERE " } additional_addresses { " TO_L " }"),
         "additional_addresses[0].address: address must be a socket_address or a pipe"},
        {RES_CLUSTER, ENDPOINT("type: STATIC", TO_L "health_check_config { port_value: 80 }"),
         "Invalid host configuration: non-zero port for non-IP address"},
        {RES_CLUSTER,
         ENDPOINT("type: STATIC", "address { " ANYWHERE " } health_check_config { " TO_L " }"),
         "health_check_config.address: address must be a socket_address or a pipe"},
    };
    check_rows(rows, sizeof(rows) / sizeof(rows[0]));
}

#define ORIGINAL_DST(key)                                                                      \
    "name: 'c' type: ORIGINAL_DST lb_policy: CLUSTER_PROVIDED connect_timeout { seconds: 1 } " \
    "original_dst_lb_config { metadata_key { " key " } }"

static void test_metadata_keys_are_whole(void **state) {
    (void)state;
    static const struct row rows[] = {
        {RES_CLUSTER, ORIGINAL_DST("key: 'a' path { key: 'b' }"), NULL},
        {RES_CLUSTER, ORIGINAL_DST("path { key: 'b' }"), "metadata_key.key"},
        {RES_CLUSTER, ORIGINAL_DST("key: 'a'"), "metadata_key.path"},
        {RES_CLUSTER, ORIGINAL_DST("key: 'a' path { }"), "metadata_key.path[0]"},
        {RES_CLUSTER, ORIGINAL_DST("key: 'a' path { key: '' }"), "metadata_key.path[0].key"},
    };
    check_rows(rows, sizeof(rows) / sizeof(rows[0]));
}

static void test_workloads_have_whole_addresses(void **state) {
    (void)state;
    static const struct row rows[] = {
        {RES_WORKLOAD, "uid: 'w'", NULL},
        {RES_WORKLOAD, "uid: 'w' addresses: '1234' addresses: '0123456789abcdef'", NULL},
        {RES_WORKLOAD, "uid: 'w' addresses: ''",
         "addresses[0]: an address has 4 or 16 bytes, not 0"},
        {RES_WORKLOAD, "uid: 'w' addresses: '123'",
         "addresses[0]: an address has 4 or 16 bytes, not 3"},
        {RES_WORKLOAD, "uid: 'w' addresses: '1234' addresses: '10.0.0.1'",
         "addresses[1]: an address has 4 or 16 bytes, not 8"},
        {RES_WORKLOAD, "uid: 'w' addresses: '0123456789abcdefg'",
         "addresses[0]: an address has 4 or 16 bytes, not 17"},
    };
    check_rows(rows, sizeof(rows) / sizeof(rows[0]));
}

#define OUTLIER(field, text) STATIC "outlier_detection { " field " { " text " } }"

/* fuzz_compile: nanoseconds beyond a second were an overflow. */
static void test_durations_of_outlier_detection_are_durations(void **state) {
    (void)state;
    static const struct row rows[] = {
        {RES_CLUSTER, OUTLIER("interval", "nanos: 999999999"), NULL},
        {RES_CLUSTER, OUTLIER("interval", "nanos: 1000000000"), "interval"},
        {RES_CLUSTER, OUTLIER("max_ejection_time_jitter", "nanos: 2147483647"),
         "max_ejection_time_jitter: value must be a non-negative duration"},
        {RES_CLUSTER, OUTLIER("max_ejection_time_jitter", "seconds: -1"),
         "max_ejection_time_jitter: value must be a non-negative duration"},
    };
    check_rows(rows, sizeof(rows) / sizeof(rows[0]));
}

static void test_durations_of_sources_are_positive_and_bounded(void **state) {
    (void)state;
    static const struct row rows[] = {
        {RES_CLUSTER, EDS("ads {}"), NULL},
        {RES_CLUSTER, EDS("ads {} initial_fetch_timeout { seconds: 3 }"), NULL},
        {RES_CLUSTER, EDS("ads {} initial_fetch_timeout { }"), NULL},
        {RES_CLUSTER, EDS("ads {} initial_fetch_timeout { seconds: 9223372036854775 }"), NULL},
        /* fuzz_compile: an overflow */
        {RES_CLUSTER, EDS("ads {} initial_fetch_timeout { seconds: -3418104543337646453 }"),
         "initial_fetch_timeout: Invalid duration"},
        {RES_CLUSTER, EDS("ads {} initial_fetch_timeout { nanos: -1 }"),
         "initial_fetch_timeout: Invalid duration"},
        {RES_CLUSTER, EDS("ads {} initial_fetch_timeout { nanos: 1000000000 }"),
         "initial_fetch_timeout: Invalid duration"},
    };
    check_rows(rows, sizeof(rows) / sizeof(rows[0]));
}

/* Under ASan nothing that is kept may refer to the message: the chain's name did, unused; so did
 * the balancer's fields that have messages of their own by now (fuzz_compile). */
static void test_what_is_kept_does_not_refer_to_the_message(void **state) {
    (void)state;
    static const struct row rows[] = {
        {RES_LISTENER,
         "name: 'l' address { socket_address { address: '127.0.0.1' port_value: 0 } } "
         "filter_chains { name: 'a' filter_chain_match { server_names: 'a.example.com' } } "
         "filter_chains { name: 'b' }",
         NULL},
        {RES_LISTENER,
         "name: 'l' address { socket_address { address: '127.0.0.1' port_value: 0 } } "
         "filter_chains { name: 'a' } filter_chains { name: 'b' }",
         "filter chain 'b'"},
        {RES_CLUSTER,
         STATIC "round_robin_lb_config { slow_start_config { slow_start_window { seconds: 1 } "
                "aggression { default_value: 2 runtime_key: 'a.key' } } }",
         NULL},
        {RES_CLUSTER,
         STATIC "lb_policy: MAGLEV common_lb_config { consistent_hashing_lb_config { "
                "hash_balance_factor { value: 150 } } }",
         NULL},
    };
    check_rows(rows, sizeof(rows) / sizeof(rows[0]));
}

static sv listener_bytes(const char *text, struct arena *a, struct diag *d) {
    const struct proto_type *type = any_type(sv_cstr(resource_types[RES_LISTENER].proto_name));
    ProtobufCMessage *m = pb_text_parse(type, sv_cstr(text), a, d);
    assert_non_null(m);
    return proto_pack(m, a);
}

static void test_listeners_that_differ_in_their_chains_only(void **state) {
    (void)state;
    static const struct {
        const char *a, *b;
        bool is_same;
    } rows[] = {
        {"", "", true},
        {"name: 'l'", "name: 'l'", true},
        {"name: 'l' filter_chains {}", "name: 'l'", true},
        {"name: 'l' filter_chains { name: 'a' } freebind { value: true }",
         "name: 'l' filter_chains { name: 'b' } filter_chains {} freebind { value: true }", true},
        {"name: 'l' default_filter_chain { name: 'a' }", "name: 'l' filter_chain_matcher {}", true},
        {"name: 'l'", "", false},
        {"name: 'l'", "name: 'm'", false},
        {"name: 'l' filter_chains {}", "name: 'm' filter_chains {}", false},
        {"name: 'l' filter_chains {}", "name: 'l' filter_chains {} freebind {}", false},
        {"name: 'l' listener_filters {}", "name: 'l' listener_filters {} listener_filters {}",
         false},
        {"name: 'l' freebind {}", "name: 'l' transparent {}", false},
        {"name: 'l' tcp_backlog_size { value: 1 }", "name: 'l' tcp_backlog_size { value: 2 }",
         false},
    };
    struct arena a;
    struct diag *d = xnew(struct diag);
    diag_init(d);
    arena_init(&a, 0);
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        sv x = listener_bytes(rows[i].a, &a, d), y = listener_bytes(rows[i].b, &a, d);
        assert_row(listener_same_but_chains(x, y) == rows[i].is_same, i);
        assert_row(listener_same_but_chains(y, x) == rows[i].is_same, i);
    }
    arena_fini(&a);
    diag_fini(d);
    xfree(d);
}

/* Last: the table of sources is the process's, and full afterwards. */
static void test_sources_are_bounded(void **state) {
    (void)state;
    struct diag *d = xnew(struct diag);
    diag_init(d);
    Pb__Duration timeout = PB__DURATION__INIT;
    Core__AggregatedConfigSource ads = CORE__AGGREGATED_CONFIG_SOURCE__INIT;
    Core__ConfigSource source = CORE__CONFIG_SOURCE__INIT;
    source.config_source_specifier_case = CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_ADS;
    source.ads = &ads;
    source.initial_fetch_timeout = &timeout;
    timeout.seconds = 1000;
    const struct config_source *first = config_source_intern(&source, d);
    assert_non_null(first);
    while (config_source_counts().remembered < CONFIG_SOURCES_MAX) {
        timeout.seconds++;
        assert_non_null(config_source_intern(&source, d));
    }
    assert_int_equal(config_source_counts().refused, 0);
    timeout.seconds++;
    assert_null(config_source_intern(&source, d));
    assert_sv_is(diag_text(d), "more than 4096 different config sources");
    assert_int_equal(config_source_counts().refused, 1);
    timeout.seconds = 1000;
    assert_ptr_equal(config_source_intern(&source, d), first);
    diag_fini(d);
    xfree(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transport_socket_without_config_is_refused),
        cmocka_unit_test(test_what_is_kept_does_not_refer_to_the_message),
        cmocka_unit_test(test_internal_listeners_have_a_name_and_no_socket),
        cmocka_unit_test(test_internal_addresses_are_those_of_endpoints),
        cmocka_unit_test(test_metadata_keys_are_whole),
        cmocka_unit_test(test_workloads_have_whole_addresses),
        cmocka_unit_test(test_durations_of_outlier_detection_are_durations),
        cmocka_unit_test(test_durations_of_sources_are_positive_and_bounded),
        cmocka_unit_test(test_listeners_that_differ_in_their_chains_only),
        cmocka_unit_test(test_sources_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
