/* Whole resources as a control plane sends them, against the real compilers: what is refused, and
 * in which words. Rows of what a fuzz target found say so. */
#include "protos/any.h"
#include "protos/gen/core.pb-c.h"
#include "protos/pb_text.h"
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
        cmocka_unit_test(test_workloads_have_whole_addresses),
        cmocka_unit_test(test_durations_of_outlier_detection_are_durations),
        cmocka_unit_test(test_durations_of_sources_are_positive_and_bounded),
        cmocka_unit_test(test_sources_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
