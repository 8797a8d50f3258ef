/* Which ApiConfigSources can be used, as which protocol; the words of refusals are Envoy's. */
#include "proxy/config/api_source.h"
#include "tests/support/pb.h"

#define TYPE "envoy.config.core.v3.ApiConfigSource"
#define V3 "transport_api_version: V3 "
#define GRPC_OF(service) "grpc_services { " service " } "
#define ENVOY_GRPC(fields) GRPC_OF("envoy_grpc { cluster_name: 'xds' " fields " }")
#define BACK_OFF(text) ENVOY_GRPC("retry_policy { retry_back_off { " text " } }")
#define REST "api_type: REST " V3 "cluster_names: 'xds' "

static void taken(void **state) {
    struct pb_fixture *f = *state;
    static const struct {
        const char *text;
        enum api_source_protocol protocol;
    } rows[] = {
        {"api_type: GRPC " V3 ENVOY_GRPC(""), API_SOURCE_SOTW},
        {"api_type: AGGREGATED_GRPC " V3 ENVOY_GRPC(""), API_SOURCE_SOTW},
        {"api_type: DELTA_GRPC " V3 ENVOY_GRPC(""), API_SOURCE_DELTA},
        {"api_type: AGGREGATED_DELTA_GRPC " V3 ENVOY_GRPC(""), API_SOURCE_DELTA},
        {REST "refresh_delay { seconds: 1 }", API_SOURCE_REST},
        {REST "refresh_delay { nanos: 1 }", API_SOURCE_REST},
        {"api_type: GRPC " ENVOY_GRPC(""), API_SOURCE_SOTW}, /* AUTO */
        {"api_type: REST cluster_names: 'a' refresh_delay { seconds: 1 }", API_SOURCE_REST},
        {"api_type: GRPC " V3 BACK_OFF("base_interval { seconds: 1 } max_interval { seconds: 1 }"),
         API_SOURCE_SOTW},
        {"api_type: GRPC " V3 BACK_OFF("base_interval { nanos: 1 } max_interval { nanos: 2 }"),
         API_SOURCE_SOTW},
        {"api_type: GRPC " V3 BACK_OFF("base_interval { seconds: 9 }"), API_SOURCE_SOTW},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        enum api_source_protocol protocol = (enum api_source_protocol)99;
        assert_row(api_source_check(pb_make(f, TYPE, rows[i].text), &protocol, &f->d), i);
        assert_row(protocol == rows[i].protocol, i);
        assert_errors(f, "");
    }
}

#define ONE_API "API configs must have either a gRPC service or a cluster name defined"
#define ONE_SERVICE "grpc_services: (DELTA_)GRPC must have a single gRPC service specified"
#define NO_NAME "cluster_names: (DELTA_)GRPC must not have a cluster name specified"
#define ONE_NAME "cluster_names: REST must have a single cluster name specified"
#define NO_DELAY "refresh_delay is required for REST API configuration sources"
#define BAD_DELAY "refresh_delay: Invalid duration: expected positive duration"
#define NO_V2 "transport_api_version: V2 is no longer supported: use V3"
#define ONLY_ENVOY_GRPC                                                           \
    "grpc_services[0]: only envoy_grpc is supported (google_grpc in ads_config, " \
    "hds_config and load_stats_config, too)"
#define ONLY_KINDS "api_type: only GRPC, DELTA_GRPC and REST are supported"
#define ORDER                                                                                      \
    "grpc_services[0]: envoy_grpc.retry_policy.retry_back_off: max_interval must be greater than " \
    "or equal to the base_interval"

static void refused(void **state) {
    struct pb_fixture *f = *state;
    static const struct {
        const char *text, *error;
    } rows[] = {
        {"api_type: DEPRECATED_AND_UNAVAILABLE_DO_NOT_USE " V3, ONLY_KINDS},
        {"", ONLY_KINDS}, /* 0 is that one */
        {"api_type: 99 " V3 ENVOY_GRPC(""), ONLY_KINDS},
        {"api_type: GRPC transport_api_version: V2 " ENVOY_GRPC(""), NO_V2},
        {"api_type: REST transport_api_version: V2 cluster_names: 'a' refresh_delay { seconds: 1 }",
         NO_V2},
        {"api_type: GRPC " V3 ENVOY_GRPC("") "config_validators { name: 'v' }",
         "config_validators are not supported"},
        {"api_type: GRPC " V3, ONE_API},
        {"api_type: DELTA_GRPC " V3, ONE_API},
        {"api_type: GRPC " V3 "cluster_names: 'a' ", NO_NAME},
        {"api_type: GRPC " V3 "cluster_names: 'a' " ENVOY_GRPC(""), NO_NAME},
        {"api_type: GRPC " V3 ENVOY_GRPC("") ENVOY_GRPC(""), ONE_SERVICE},
        {"api_type: GRPC " V3 GRPC_OF(""), ONLY_ENVOY_GRPC},
        {"api_type: GRPC " V3 GRPC_OF("google_grpc { target_uri: 'a' stat_prefix: 'b' }"),
         ONLY_ENVOY_GRPC},
        {"api_type: GRPC " V3 BACK_OFF("base_interval { seconds: 2 } max_interval { seconds: 1 }"),
         ORDER},
        {"api_type: GRPC " V3 BACK_OFF("base_interval { nanos: 2 } max_interval { nanos: 1 }"),
         ORDER},
        {"api_type: DELTA_GRPC " V3 BACK_OFF(
             "base_interval { seconds: 1 nanos: 1 } max_interval { seconds: 1 }"),
         ORDER},
        {"api_type: REST " V3 "refresh_delay { seconds: 1 }", ONE_NAME},
        {REST "cluster_names: 'b' refresh_delay { seconds: 1 }", ONE_NAME},
        {REST "refresh_delay { seconds: 1 } " ENVOY_GRPC(""),
         "grpc_services: REST must not have a gRPC service specified"},
        {REST, NO_DELAY},
        {REST "refresh_delay { }", NO_DELAY},
        {REST "refresh_delay { seconds: -1 }", NO_DELAY},
        {REST "refresh_delay { nanos: -1 }", NO_DELAY},
        {REST "refresh_delay { seconds: -1 nanos: 1 }", BAD_DELAY},
        {REST "refresh_delay { seconds: 1 nanos: -1 }", BAD_DELAY},
        {REST "refresh_delay { seconds: 1 nanos: 1000000000 }", BAD_DELAY},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        enum api_source_protocol protocol;
        assert_row(!api_source_check(pb_make(f, TYPE, rows[i].text), &protocol, &f->d), i);
        assert_errors(f, rows[i].error);
    }
}

static void taken_for_ads(void **state) {
    struct pb_fixture *f = *state;
    enum api_source_protocol protocol;
    assert_true(
        api_source_check_ads(pb_make(f, TYPE,
                                     "api_type: DELTA_GRPC " GRPC_OF(
                                         "google_grpc { target_uri: 'a' stat_prefix: 'b' }")),
                             &protocol, &f->d));
    assert_int_equal(protocol, API_SOURCE_DELTA);
    assert_false(
        api_source_check_ads(pb_make(f, TYPE, "api_type: GRPC " GRPC_OF("")), &protocol, &f->d));
    assert_errors(f, ONLY_ENVOY_GRPC);
}

int main(void) {
    const struct CMUnitTest tests[] = {PB_TEST(taken), PB_TEST(refused), PB_TEST(taken_for_ads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
