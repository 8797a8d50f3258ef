/* google_grpc of the bootstrap: the cluster that stands for it, its token, what is refused. */
#include <stdlib.h>

#include "protos/gen/cluster.pb-c.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/endpoint.pb-c.h"
#include "proxy/config/google_grpc.h"
#include "tests/support/pb.h"

#define TYPE "envoy.config.core.v3.GrpcService.GoogleGrpc"
#define OF(target, more) "stat_prefix: 'ads' target_uri: '" target "' " more
#define SSL "channel_credentials { ssl_credentials { root_certs { inline_string: 'ca' } } } "
#define PLUGIN(fields)                                                                        \
    "call_credentials { from_plugin { name: "                                                 \
    "'envoy.grpc_credentials.file_based_metadata' typed_config { "                            \
    "[type.googleapis.com/envoy.config.grpc_credential.v3.FileBasedMetadataConfig] { " fields \
    " } } } } "

static void targets(void **state) {
    struct pb_fixture *f = *state;
    static const struct {
        const char *target, *host, *authority;
        unsigned port; /* 0: a pipe */
        bool is_dns;
    } rows[] = {
        {"localhost:5678", "localhost", "localhost:5678", 5678, true},
        {"dns:///a.test:1", "a.test", "a.test:1", 1, true},
        {"dns:a.test:65535", "a.test", "a.test:65535", 65535, true},
        {"10.0.0.1:80", "10.0.0.1", "10.0.0.1:80", 80, false},
        {"ipv4:10.0.0.1:80", "10.0.0.1", "10.0.0.1:80", 80, false},
        {"ipv6:[::1]:80", "::1", "[::1]:80", 80, false},
        {"unix:/run/x", "/run/x", "localhost", 0, false},
        {"unix:///run/x", "/run/x", "localhost", 0, false},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[128];
        snprintf(text, sizeof(text), "stat_prefix: 'ads' target_uri: '%s'", rows[i].target);
        const void *m = pb_make(f, TYPE, text);
        const Cluster__Cluster *c = google_grpc_cluster(m, &f->a, &f->d);
        assert_row(c != NULL, i);
        const Core__Address *a =
            c->load_assignment->endpoints[0]->lb_endpoints[0]->endpoint->address;
        assert_row(c->type == (rows[i].is_dns ? CLUSTER__CLUSTER__DISCOVERY_TYPE__STRICT_DNS
                                              : CLUSTER__CLUSTER__DISCOVERY_TYPE__STATIC),
                   i);
        assert_string_equal(rows[i].port ? a->socket_address->address : a->pipe->path,
                            rows[i].host);
        assert_row(!rows[i].port || a->socket_address->port_value == rows[i].port, i);
        assert_row(!c->transport_socket && c->http2_protocol_options, i);
        struct google_grpc_stream s;
        google_grpc_stream(m, &f->a, &s);
        assert_true(sv_is(s.cluster, c->name) && sv_is(s.authority, rows[i].authority));
        assert_row(!s.token_key.n && !s.max_receive_bytes, i);
    }
}

static void tokens(void **state) {
    struct pb_fixture *f = *state;
    setenv("GOOGLE_GRPC_TOKEN", "env", 1);
    static const struct {
        const char *plugin, *key, *prefix, *file;
    } rows[] = {
        {PLUGIN("secret_data { filename: '/t' }"), "authorization", "", "/t"},
        {PLUGIN("secret_data { filename: '/t' } header_prefix: 'Bearer ' header_key: 'x-k'"), "x-k",
         "Bearer ", "/t"},
        {PLUGIN("secret_data { inline_string: 's' } header_prefix: 'p'"), "authorization", "ps",
         ""},
        {PLUGIN("secret_data { inline_bytes: 's' }"), "authorization", "s", ""},
        {PLUGIN("secret_data { environment_variable: 'GOOGLE_GRPC_TOKEN' }"), "authorization",
         "env", ""},
        {PLUGIN(""), "", "", ""},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char text[1024];
        snprintf(text, sizeof(text), "%s%s", OF("a:1", SSL), rows[i].plugin);
        const void *m = pb_make(f, TYPE, text);
        const Cluster__Cluster *c = google_grpc_cluster(m, &f->a, &f->d);
        assert_row(c && c->transport_socket, i);
        struct google_grpc_stream s;
        google_grpc_stream(m, &f->a, &s);
        assert_row(sv_is(s.token_key, rows[i].key) && sv_is(s.token_prefix, rows[i].prefix), i);
        assert_row(sv_is(s.token_file, rows[i].file), i);
    }
}

static void channel_arguments(void **state) {
    struct pb_fixture *f = *state;
#define ARG(key, value) "args { key: '" key "' value { int_value: " value " } } "
    const void *m = pb_make(f, TYPE,
                            OF("a:1", "channel_args { " ARG("grpc.keepalive_time_ms", "10000")
                                          ARG("grpc.keepalive_timeout_ms", "1500")
                                              ARG("grpc.max_receive_message_length", "4096") "}"));
    const Cluster__Cluster *c = google_grpc_cluster(m, &f->a, &f->d);
    assert_non_null(c);
    const Core__KeepaliveSettings *k = c->http2_protocol_options->connection_keepalive;
    assert_int_equal(k->interval->seconds, 10);
    assert_int_equal(k->timeout->nanos, 500000000);
    struct google_grpc_stream s;
    google_grpc_stream(m, &f->a, &s);
    assert_int_equal(s.max_receive_bytes, 4096);
}

static void refused(void **state) {
    struct pb_fixture *f = *state;
#define PLUGIN_ONLY                                                                          \
    "call_credentials[0]: only from_plugin 'envoy.grpc_credentials.file_based_metadata' is " \
    "supported"
#define TARGET(t) "target_uri: expected a host and a port, not '" t "'"
    static const struct {
        const char *text, *error;
    } rows[] = {
        {OF("a", ""), TARGET("a")},
        {OF("a:", ""), TARGET("a:")},
        {OF(":1", ""), TARGET(":1")},
        {OF("a:0", ""), TARGET("a:0")},
        {OF("a:65536", ""), TARGET("a:65536")},
        {OF("xds:///a:1", ""), TARGET("xds:///a:1")},
        {OF("dns://8.8.8.8/a:1", ""), TARGET("dns://8.8.8.8/a:1")},
        {OF("unix:", ""), "target_uri: a path is expected in 'unix:'"},
        {OF("a:1", "channel_credentials { google_default { } }"),
         "channel_credentials: only ssl_credentials are supported"},
        {OF("a:1", "channel_credentials { local_credentials { } }"),
         "channel_credentials: only ssl_credentials are supported"},
        {OF("a:1", "channel_credentials { ssl_credentials { } }"),
         "channel_credentials.ssl_credentials.root_certs: value is required"},
        {OF("a:1", "credentials_factory_name: 'x'"),
         "credentials_factory_name: 'x' is not supported"},
        {OF("a:1", "config { }"),
         "channel_credentials_plugin, call_credentials_plugin and config are not supported"},
        {OF("a:1", PLUGIN("")), "call_credentials: at most one is supported, and over TLS only"},
        {OF("a:1", SSL PLUGIN("") PLUGIN("")),
         "call_credentials: at most one is supported, and over TLS only"},
        {OF("a:1", SSL "call_credentials { access_token: 'x' }"), PLUGIN_ONLY},
        {OF("a:1", SSL "call_credentials { google_compute_engine { } }"), PLUGIN_ONLY},
        {OF("a:1", SSL "call_credentials { from_plugin { name: 'other' } }"), PLUGIN_ONLY},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        assert_row(!google_grpc_cluster(pb_make(f, TYPE, rows[i].text), &f->a, &f->d), i);
        assert_errors(f, rows[i].error);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {PB_TEST(targets), PB_TEST(tokens),
                                       PB_TEST(channel_arguments), PB_TEST(refused)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
