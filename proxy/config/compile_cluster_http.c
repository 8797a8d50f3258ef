/* How a cluster speaks HTTP: HttpProtocolOptions in typed_extension_protocol_options,
 * TcpProtocolOptions, and the legacy fields they replace.
 * Threads: the config thread. Spec: extensions.upstreams.http.v3.HttpProtocolOptions,
 * extensions.upstreams.tcp.v3. */
#include "protos/any.h"
#include "protos/gen/upstreams_http.pb-c.h"
#include "protos/gen/upstreams_tcp.pb-c.h"
#include "proxy/config/cluster_compile.h"
#include "proxy/config/config.h"
#include "proxy/http/codec_options.h"

#define IDLE_TIMEOUT_MS 3600000u

/* The options while the cluster is being compiled. */
static struct codec_options *codec_of(struct cluster_config *c) {
    return (struct codec_options *)(uintptr_t)c->codec;
}

static void common(struct compile_ctx *ctx, const Core__HttpProtocolOptions *m,
                   struct cluster_config *c) {
    if (!m) {
        return;
    }
    DIAG_FIELD(ctx->diag, "common_http_protocol_options");
    codec_options_common(ctx, m, codec_of(c));
    compile_duration_ms(ctx, m->idle_timeout, c->idle_timeout_ms, &c->idle_timeout_ms);
    compile_duration_ms(ctx, m->max_connection_duration, 0, &c->max_connection_duration_ms);
    if (m->max_connection_duration_jitter) {
        compile_unhonoured(ctx, "max_connection_duration_jitter");
    }
    compile_duration_ms(ctx, m->max_stream_duration, 0, &c->max_stream_duration_ms);
    if (m->max_requests_per_connection) {
        c->max_requests_per_connection = m->max_requests_per_connection->value;
    }
}

static void versions(struct compile_ctx *ctx, const Core__Http1ProtocolOptions *h1,
                     const Core__Http2ProtocolOptions *h2, const Core__Http3ProtocolOptions *h3,
                     struct cluster_config *c) {
    if (h1) {
        DIAG_FIELD(ctx->diag, "http_protocol_options");
        codec_options_http1(ctx, h1, codec_of(c));
    }
    if (h2) {
        DIAG_FIELD(ctx->diag, "http2_protocol_options");
        codec_options_http2(ctx, h2, codec_of(c));
    }
    if (h3) {
        diag_error(ctx->diag, "http3_protocol_options is not supported");
    }
}

static void explicit_config(struct compile_ctx *ctx,
                            const UpstreamsHttp__HttpProtocolOptions__ExplicitHttpConfig *e,
                            struct cluster_config *c) {
    DIAG_FIELD(ctx->diag, "explicit_http_config");
    switch (e->protocol_config_case) {
    case UPSTREAMS_HTTP__HTTP_PROTOCOL_OPTIONS__EXPLICIT_HTTP_CONFIG__PROTOCOL_CONFIG_HTTP_PROTOCOL_OPTIONS:
        c->protocol = UPSTREAM_HTTP1;
        versions(ctx, e->http_protocol_options, NULL, NULL, c);
        return;
    case UPSTREAMS_HTTP__HTTP_PROTOCOL_OPTIONS__EXPLICIT_HTTP_CONFIG__PROTOCOL_CONFIG_HTTP2_PROTOCOL_OPTIONS:
        c->protocol = UPSTREAM_HTTP2;
        versions(ctx, NULL, e->http2_protocol_options, NULL, c);
        return;
    default:
        diag_error(ctx->diag, "http_protocol_options or http2_protocol_options is required");
    }
}

static void protocol(struct compile_ctx *ctx, const UpstreamsHttp__HttpProtocolOptions *m,
                     struct cluster_config *c) {
    switch (m->upstream_protocol_options_case) {
    case UPSTREAMS_HTTP__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_EXPLICIT_HTTP_CONFIG:
        explicit_config(ctx, m->explicit_http_config, c);
        return;
    case UPSTREAMS_HTTP__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_USE_DOWNSTREAM_PROTOCOL_CONFIG: {
        DIAG_FIELD(ctx->diag, "use_downstream_protocol_config");
        const UpstreamsHttp__HttpProtocolOptions__UseDownstreamHttpConfig *u =
            m->use_downstream_protocol_config;
        c->protocol = UPSTREAM_DOWNSTREAM;
        versions(ctx, u->http_protocol_options, u->http2_protocol_options,
                 u->http3_protocol_options, c);
        return;
    }
    case UPSTREAMS_HTTP__HTTP_PROTOCOL_OPTIONS__UPSTREAM_PROTOCOL_OPTIONS_AUTO_CONFIG: {
        DIAG_FIELD(ctx->diag, "auto_config");
        const UpstreamsHttp__HttpProtocolOptions__AutoHttpConfig *a = m->auto_config;
        c->protocol = UPSTREAM_AUTO;
        versions(ctx, a->http_protocol_options, a->http2_protocol_options,
                 a->http3_protocol_options, c);
        return;
    }
    default:
        diag_error(ctx->diag, "upstream_protocol_options: value is required");
    }
}

static void auto_sni(struct compile_ctx *ctx, const Core__UpstreamHttpProtocolOptions *m,
                     struct cluster_config *c) {
    if (!m) {
        return;
    }
    c->auto_sni = m->auto_sni;
    c->auto_san_validation = m->auto_san_validation;
    c->auto_sni_header = *m->override_auto_sni_header
                             ? arena_sv(ctx->arena, sv_cstr(m->override_auto_sni_header))
                             : SV_NULL;
}

static void http_options(struct compile_ctx *ctx, const UpstreamsHttp__HttpProtocolOptions *m,
                         struct cluster_config *c) {
    common(ctx, m->common_http_protocol_options, c);
    if (c->type == CLUSTER_TYPE_DYNAMIC) { /* the older fields and what they default to are void */
        c->auto_sni = c->auto_san_validation = false;
    }
    auto_sni(ctx, m->upstream_http_protocol_options, c);
    protocol(ctx, m, c);
    if (m->n_http_filters &&
        !(m->n_http_filters == 1 &&
          sv_is(sv_cstr(m->http_filters[0]->name), "envoy.filters.http.upstream_codec"))) {
        diag_error(ctx->diag, "http_filters of a cluster are not supported");
    }
    if (m->n_request_mirror_policies || m->n_hash_policy || m->retry_policy) {
        diag_error(
            ctx->diag,
            "request_mirror_policies, hash_policy and retry_policy of a cluster are not supported");
    }
    if (m->header_validation_config) {
        compile_unhonoured(ctx, "header_validation_config");
    }
    if (m->outlier_detection) {
        compile_unhonoured(ctx, "outlier_detection");
    }
}

static void tcp_options(struct compile_ctx *ctx, const UpstreamsTcp__TcpProtocolOptions *m,
                        struct cluster_config *c) {
    compile_duration_ms(ctx, m->idle_timeout, c->tcp_idle_timeout_ms, &c->tcp_idle_timeout_ms);
}

static void typed_options(struct compile_ctx *ctx, const Cluster__Cluster *m,
                          struct cluster_config *c) {
    for (size_t i = 0; i < m->n_typed_extension_protocol_options; i++) {
        const Cluster__Cluster__TypedExtensionProtocolOptionsEntry *e =
            m->typed_extension_protocol_options[i];
        DIAG_FIELD(ctx->diag, "typed_extension_protocol_options[%s]", e->key);
        const char *type = NULL;
        const void *msg = compile_any(ctx, sv_cstr(e->key), e->value, NULL, &type);
        if (!msg) {
            continue;
        }
        if (strcmp(type, upstreams_http__http_protocol_options__descriptor.name) == 0) {
            http_options(ctx, msg, c);
        } else if (strcmp(type, upstreams_tcp__tcp_protocol_options__descriptor.name) == 0) {
            tcp_options(ctx, msg, c);
        } else {
            diag_error(ctx->diag, "protocol options of type '%s' are not supported", type);
        }
    }
}

/* Of a cluster that sets nothing: one for them all. Made when the first cluster is compiled. */
static const struct codec_options *plain_codec(void) {
    static struct codec_options plain;
    static bool is_made;
    if (!is_made) {
        codec_options_defaults(&plain);
        plain.stream_buffer_limit_bytes = CLUSTER_BUFFER_LIMIT_BYTES;
        is_made = true;
    }
    return &plain;
}

void cluster_http_compile(struct compile_ctx *ctx, const Cluster__Cluster *m,
                          struct cluster_config *c) {
    const struct codec_options *plain = plain_codec();
    struct codec_options own = *plain;
    c->codec = &own;
    c->idle_timeout_ms = IDLE_TIMEOUT_MS;
    c->tcp_idle_timeout_ms = 600000;
    own.stream_buffer_limit_bytes = c->buffer_limit_bytes;
    common(ctx, m->common_http_protocol_options, c);
    c->auto_sni = c->auto_san_validation = c->type == CLUSTER_TYPE_DYNAMIC;
    auto_sni(ctx, m->upstream_http_protocol_options, c);
    if (m->http2_protocol_options) {
        c->protocol = m->protocol_selection ==
                              CLUSTER__CLUSTER__CLUSTER_PROTOCOL_SELECTION__USE_DOWNSTREAM_PROTOCOL
                          ? UPSTREAM_DOWNSTREAM
                          : UPSTREAM_HTTP2;
    }
    versions(ctx, m->http_protocol_options, m->http2_protocol_options, NULL, c);
    typed_options(ctx, m, c);
    bool is_plain = memcmp(&own, plain, sizeof(own)) == 0;
    c->codec = is_plain ? plain : memcpy(arena_alloc(ctx->arena, sizeof(own)), &own, sizeof(own));
}
