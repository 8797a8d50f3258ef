/* See google_grpc.h. */
#include "proxy/config/google_grpc.h"

#include <stdlib.h>

#include "protos/any.h"
#include "protos/gen/cluster.pb-c.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/endpoint.pb-c.h"
#include "protos/gen/grpc_credential.pb-c.h"
#include "protos/gen/tls.pb-c.h"
#include "proxy/net/addr.h"

#define CONNECT_TIMEOUT_S 20 /* gRPC's */
#define KEEPALIVE_TIMEOUT_MS 20000
#define FILE_PLUGIN "envoy.grpc_credentials.file_based_metadata"
#define DEFAULT_FACTORY "envoy.grpc_credentials.default"

struct target {
    bool is_pipe, is_ip;
    const char *host; /* or path */
    uint16_t port;
};

static sv cluster_name(const Core__GrpcService__GoogleGrpc *m, struct arena *a) {
    return arena_printf(a, "google_grpc:%s:%s", m->stat_prefix, m->target_uri);
}

/* Past "dns:///" and the like, which say nothing new. */
static sv skip_scheme(sv uri) {
    static const char *const schemes[] = {"dns:///", "dns:", "ipv4:", "ipv6:"};
    for (size_t i = 0; i < ARRAY_LEN(schemes); i++) {
        if (sv_starts(uri, sv_cstr(schemes[i]))) {
            return sv_skip(uri, strlen(schemes[i]));
        }
    }
    return uri;
}

static sv without_brackets(sv host) {
    bool has = host.n > 2 && host.p[0] == '[' && host.p[host.n - 1] == ']';
    return has ? sv_sub(host, 1, host.n - 2) : host;
}

/* "host:port", "dns:///host:port", "ipv4:…", "ipv6:…", "unix:path". */
static bool parse_target(const char *uri, struct arena *a, struct target *t, struct diag *d) {
    sv s = sv_cstr(uri);
    if (sv_starts(s, SV("unix:"))) {
        s = sv_skip(s, sv_starts(s, SV("unix://")) ? 7 : 5);
        *t = (struct target){.is_pipe = true, .host = arena_cstr(a, s)};
        return s.n != 0 || diag_error(d, "target_uri: a path is expected in '%s'", uri);
    }
    s = skip_scheme(s);
    size_t colon = s.n;
    while (colon && s.p[colon - 1] != ':') {
        colon--;
    }
    uint64_t port = 0;
    sv host = colon ? without_brackets(sv_sub(s, 0, colon - 1)) : SV_NULL;
    if (!host.n || memchr(host.p, '/', host.n) || !sv_to_u64(sv_skip(s, colon), &port) || !port ||
        port > UINT16_MAX) {
        return diag_error(d, "target_uri: expected a host and a port, not '%s'", uri);
    }
    struct addr ip;
    *t = (struct target){.host = arena_cstr(a, host), .port = (uint16_t)port};
    t->is_ip = addr_parse_ip(host, 0, &ip);
    return true;
}

/* ---- what is asked for beyond an address ---- */

static const Core__GrpcService__GoogleGrpc__SslCredentials *
ssl_of(const Core__GrpcService__GoogleGrpc *m) {
    const Core__GrpcService__GoogleGrpc__ChannelCredentials *c = m->channel_credentials;
    return c && c->credential_specifier_case ==
                       CORE__GRPC_SERVICE__GOOGLE_GRPC__CHANNEL_CREDENTIALS__CREDENTIAL_SPECIFIER_SSL_CREDENTIALS
               ? c->ssl_credentials
               : NULL;
}

/* The plugin's settings; NULL: it is not that plugin. */
static const GrpcCredential__FileBasedMetadataConfig *
file_plugin(const Core__GrpcService__GoogleGrpc__CallCredentials *c, struct arena *a,
            struct diag *d) {
    if (c->credential_specifier_case !=
            CORE__GRPC_SERVICE__GOOGLE_GRPC__CALL_CREDENTIALS__CREDENTIAL_SPECIFIER_FROM_PLUGIN ||
        strcmp(c->from_plugin->name, FILE_PLUGIN) != 0) {
        diag_error(d, "only from_plugin '" FILE_PLUGIN "' is supported");
        return NULL;
    }
    return ANY_UNPACK_AS(GrpcCredential__FileBasedMetadataConfig,
                         grpc_credential__file_based_metadata_config__descriptor,
                         c->from_plugin->typed_config, SV(FILE_PLUGIN), a, d);
}

static bool check_credentials(const Core__GrpcService__GoogleGrpc *m, struct arena *a,
                              struct diag *d) {
    const Core__GrpcService__GoogleGrpc__SslCredentials *ssl = ssl_of(m);
    if (m->channel_credentials && !ssl) {
        return diag_error(d, "channel_credentials: only ssl_credentials are supported");
    }
    if (ssl && !ssl->root_certs) {
        return diag_error(d, "channel_credentials.ssl_credentials.root_certs: value is required");
    }
    if (*m->credentials_factory_name && strcmp(m->credentials_factory_name, FILE_PLUGIN) != 0 &&
        strcmp(m->credentials_factory_name, DEFAULT_FACTORY) != 0) {
        return diag_error(d, "credentials_factory_name: '%s' is not supported",
                          m->credentials_factory_name);
    }
    if (m->n_channel_credentials_plugin || m->n_call_credentials_plugin || m->config) {
        return diag_error(d, "channel_credentials_plugin, call_credentials_plugin and config are "
                             "not supported");
    }
    if (m->n_call_credentials > 1 || (m->n_call_credentials && !ssl)) {
        return diag_error(d, "call_credentials: at most one is supported, and over TLS only");
    }
    DIAG_FIELD(d, "call_credentials[0]");
    return !m->n_call_credentials || file_plugin(m->call_credentials[0], a, d) != NULL;
}

static void token_of(const Core__GrpcService__GoogleGrpc *m, struct arena *a,
                     struct google_grpc_stream *out) {
    struct diag d;
    diag_init(&d);
    const GrpcCredential__FileBasedMetadataConfig *f =
        m->n_call_credentials ? file_plugin(m->call_credentials[0], a, &d) : NULL;
    diag_fini(&d);
    const Core__DataSource *source = f ? f->secret_data : NULL;
    if (!source) {
        return;
    }
    sv text = SV("");
    if (source->specifier_case == CORE__DATA_SOURCE__SPECIFIER_FILENAME) {
        out->token_file = arena_sv(a, sv_cstr(source->filename));
    } else if (source->specifier_case == CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING) {
        text = sv_cstr(source->inline_string);
    } else if (source->specifier_case == CORE__DATA_SOURCE__SPECIFIER_ENVIRONMENT_VARIABLE) {
        const char *value = getenv(source->environment_variable);
        text = sv_cstr(value ? value : "");
    } else if (source->specifier_case == CORE__DATA_SOURCE__SPECIFIER_INLINE_BYTES) {
        text = sv_from(source->inline_bytes.data, source->inline_bytes.len);
    }
    out->token_key = *f->header_key ? arena_sv(a, sv_cstr(f->header_key)) : SV("authorization");
    out->token_prefix = arena_printf(a, "%s%.*s", f->header_prefix, SV_ARG(text));
}

/* ---- the cluster ---- */

static Core__TransportSocket *
transport_socket(const Core__GrpcService__GoogleGrpc__SslCredentials *ssl, const struct target *t,
                 struct arena *a) {
    Tls__CertificateValidationContext trust = TLS__CERTIFICATE_VALIDATION_CONTEXT__INIT;
    Tls__SubjectAltNameMatcher name = TLS__SUBJECT_ALT_NAME_MATCHER__INIT, *names = &name;
    TypeMatcher__StringMatcher exact = TYPE_MATCHER__STRING_MATCHER__INIT;
    Tls__TlsCertificate own = TLS__TLS_CERTIFICATE__INIT, *owns = &own;
    Tls__CommonTlsContext common = TLS__COMMON_TLS_CONTEXT__INIT;
    Tls__UpstreamTlsContext context = TLS__UPSTREAM_TLS_CONTEXT__INIT;
    exact.match_pattern_case = TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_EXACT;
    exact.exact = t->host;
    name.san_type = t->is_ip ? TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__IP_ADDRESS
                             : TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__DNS;
    name.matcher = &exact;
    trust.trusted_ca = ssl->root_certs;
    trust.n_match_typed_subject_alt_names = 1;
    trust.match_typed_subject_alt_names = &names;
    own.certificate_chain = ssl->cert_chain;
    own.private_key = ssl->private_key;
    common.n_tls_certificates = ssl->cert_chain || ssl->private_key;
    common.tls_certificates = &owns;
    common.validation_context_type_case =
        TLS__COMMON_TLS_CONTEXT__VALIDATION_CONTEXT_TYPE_VALIDATION_CONTEXT;
    common.validation_context = &trust;
    context.common_tls_context = &common;
    context.sni = t->is_ip || t->is_pipe ? "" : t->host;
    Core__TransportSocket *s = arena_new(a, Core__TransportSocket);
    core__transport_socket__init(s);
    s->name = "envoy.transport_sockets.tls";
    s->config_type_case = CORE__TRANSPORT_SOCKET__CONFIG_TYPE_TYPED_CONFIG;
    s->typed_config = any_pack(&context.base, a);
    return s;
}

static Core__Address *address_of(const struct target *t, struct arena *a) {
    Core__Address *address = arena_new(a, Core__Address);
    core__address__init(address);
    if (t->is_pipe) {
        address->address_case = CORE__ADDRESS__ADDRESS_PIPE;
        address->pipe = arena_new(a, Core__Pipe);
        core__pipe__init(address->pipe);
        address->pipe->path = t->host;
        return address;
    }
    Core__SocketAddress *s = arena_new(a, Core__SocketAddress);
    core__socket_address__init(s);
    s->address = t->host;
    s->port_specifier_case = CORE__SOCKET_ADDRESS__PORT_SPECIFIER_PORT_VALUE;
    s->port_value = t->port;
    address->address_case = CORE__ADDRESS__ADDRESS_SOCKET_ADDRESS;
    address->socket_address = s;
    return address;
}

static Endpoint__ClusterLoadAssignment *assignment_of(const char *name, const struct target *t,
                                                      struct arena *a) {
    Endpoint__ClusterLoadAssignment *all = arena_new(a, Endpoint__ClusterLoadAssignment);
    Endpoint__LocalityLbEndpoints **localities =
        arena_new_array(a, Endpoint__LocalityLbEndpoints *, 1);
    Endpoint__LbEndpoint **hosts = arena_new_array(a, Endpoint__LbEndpoint *, 1);
    endpoint__cluster_load_assignment__init(all);
    localities[0] = arena_new(a, Endpoint__LocalityLbEndpoints);
    endpoint__locality_lb_endpoints__init(localities[0]);
    hosts[0] = arena_new(a, Endpoint__LbEndpoint);
    endpoint__lb_endpoint__init(hosts[0]);
    hosts[0]->host_identifier_case = ENDPOINT__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT;
    hosts[0]->endpoint = arena_new(a, Endpoint__Endpoint);
    endpoint__endpoint__init(hosts[0]->endpoint);
    hosts[0]->endpoint->address = address_of(t, a);
    localities[0]->n_lb_endpoints = 1;
    localities[0]->lb_endpoints = hosts;
    all->cluster_name = name;
    all->n_endpoints = 1;
    all->endpoints = localities;
    return all;
}

static Pb__Duration *duration(int64_t ms, struct arena *a) {
    Pb__Duration *d = arena_new(a, Pb__Duration);
    pb__duration__init(d);
    d->seconds = ms / 1000;
    d->nanos = (int32_t)(ms % 1000) * 1000000;
    return d;
}

/* A channel argument; dflt: it is not there. */
static int64_t channel_arg(const Core__GrpcService__GoogleGrpc *m, const char *name, int64_t dflt) {
    for (size_t i = 0; m->channel_args && i < m->channel_args->n_args; i++) {
        const Core__GrpcService__GoogleGrpc__ChannelArgs__ArgsEntry *e = m->channel_args->args[i];
        if (!strcmp(e->key, name) && e->value &&
            e->value->value_specifier_case ==
                CORE__GRPC_SERVICE__GOOGLE_GRPC__CHANNEL_ARGS__VALUE__VALUE_SPECIFIER_INT_VALUE) {
            return e->value->int_value;
        }
    }
    return dflt;
}

static Core__Http2ProtocolOptions *http2_of(const Core__GrpcService__GoogleGrpc *m,
                                            struct arena *a) {
    Core__Http2ProtocolOptions *h2 = arena_new(a, Core__Http2ProtocolOptions);
    core__http2_protocol_options__init(h2);
    int64_t interval_ms = channel_arg(m, "grpc.keepalive_time_ms", 0);
    if (interval_ms > 0 && interval_ms < INT32_MAX) {
        Core__KeepaliveSettings *k = arena_new(a, Core__KeepaliveSettings);
        core__keepalive_settings__init(k);
        int64_t timeout_ms = channel_arg(m, "grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS);
        k->interval = duration(interval_ms, a);
        k->timeout = duration(timeout_ms > 0 ? timeout_ms : KEEPALIVE_TIMEOUT_MS, a);
        h2->connection_keepalive = k;
    }
    return h2;
}

const void *google_grpc_cluster(const void *msg, struct arena *a, struct diag *d) {
    const Core__GrpcService__GoogleGrpc *m = msg;
    struct target t;
    if (!parse_target(m->target_uri, a, &t, d) || !check_credentials(m, a, d)) {
        return NULL;
    }
    Cluster__Cluster *c = arena_new(a, Cluster__Cluster);
    cluster__cluster__init(c);
    c->name = cluster_name(m, a).p;
    c->cluster_discovery_type_case = CLUSTER__CLUSTER__CLUSTER_DISCOVERY_TYPE_TYPE;
    c->type = t.is_ip || t.is_pipe ? CLUSTER__CLUSTER__DISCOVERY_TYPE__STATIC
                                   : CLUSTER__CLUSTER__DISCOVERY_TYPE__STRICT_DNS;
    c->dns_lookup_family = CLUSTER__CLUSTER__DNS_LOOKUP_FAMILY__V4_PREFERRED;
    c->connect_timeout = duration(CONNECT_TIMEOUT_S * 1000, a);
    c->load_assignment = assignment_of(c->name, &t, a);
    c->http2_protocol_options = http2_of(m, a);
    c->transport_socket = ssl_of(m) ? transport_socket(ssl_of(m), &t, a) : NULL;
    return c;
}

void google_grpc_stream(const void *msg, struct arena *a, struct google_grpc_stream *out) {
    const Core__GrpcService__GoogleGrpc *m = msg;
    int64_t max = channel_arg(m, "grpc.max_receive_message_length", 0);
    struct target t;
    struct diag d;
    diag_init(&d);
    bool is_host = parse_target(m->target_uri, a, &t, &d) && !t.is_pipe;
    diag_fini(&d);
    *out = (struct google_grpc_stream){
        .cluster = cluster_name(m, a),
        .authority =
            !is_host ? SV("localhost")
                     : arena_printf(a, strchr(t.host, ':') ? "[%s]:%u" : "%s:%u", t.host, t.port),
        .max_receive_bytes = max > 0 && max < INT32_MAX ? (uint32_t)max : 0};
    token_of(m, a, out);
}
