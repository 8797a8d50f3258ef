/* core.v3.HealthCheck → struct health_check_config.
 * Threads: the config thread. Spec: core.v3.HealthCheck,
 * extensions.health_check.event_sinks.file.v3.HealthCheckEventFileSink. */
#include "protos/any.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/health_check_event_sinks_file.pb-c.h"
#include "proxy/api/header_mutation.h"
#include "proxy/api/matcher.h"
#include "proxy/observe/log_sink.h"
#include "proxy/observe/metadata.h"
#include "proxy/upstream/health_check.h"

#define NO_TRAFFIC_INTERVAL_MS 60000u
#define RESPONSE_MAX_BYTES 1024u
#define GRPC_CHECK_PATH "/grpc.health.v1.Health/Check"

static sv keep(struct compile_ctx *ctx, const char *s) {
    return *s ? arena_sv(ctx->arena, sv_cstr(s)) : SV_NULL;
}

/* ---- payloads ---- */

static sv from_hex(struct compile_ctx *ctx, sv text) {
    char *out = arena_alloc(ctx->arena, text.n / 2 + 1);
    for (size_t i = 0; i + 1 < text.n; i += 2) {
        int high = ascii_hex(text.p[i]), low = ascii_hex(text.p[i + 1]);
        if (high < 0 || low < 0) {
            break;
        }
        out[i / 2] = (char)(high << 4 | low);
        if (i + 2 == text.n) {
            return sv_from(out, text.n / 2);
        }
    }
    diag_error(ctx->diag, "text: invalid hex string '%.*s'", SV_ARG(text));
    return SV_NULL;
}

static sv payload(struct compile_ctx *ctx, const Core__HealthCheck__Payload *m) {
    switch (m->payload_case) {
    case CORE__HEALTH_CHECK__PAYLOAD__PAYLOAD_TEXT:
        return from_hex(ctx, sv_cstr(m->text));
    case CORE__HEALTH_CHECK__PAYLOAD__PAYLOAD_BINARY:
        return arena_sv(ctx->arena, sv_from(m->binary.data, m->binary.len));
    default:
        diag_error(ctx->diag, "payload: value is required");
        return SV_NULL;
    }
}

static void payloads(struct compile_ctx *ctx, const Core__HealthCheck__Payload *send,
                     Core__HealthCheck__Payload *const *receive, size_t n,
                     struct health_check_config *c) {
    if (send) {
        DIAG_FIELD(ctx->diag, "send");
        c->send = payload(ctx, send);
    }
    sv *v = arena_new_array(ctx->arena, sv, n);
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "receive[%zu]", i);
        v[i] = payload(ctx, receive[i]);
    }
    c->receive = v;
    c->receive_n = (unsigned)n;
}

bool health_check_payload_match(const sv *want, unsigned n, sv data) {
    for (unsigned i = 0; i < n; i++) {
        size_t at = sv_find_sv(data, want[i]);
        if (at == SIZE_MAX) {
            return false;
        }
        data = sv_skip(data, at + want[i].n);
    }
    return true;
}

/* ---- HTTP ---- */

static struct health_check_statuses statuses(struct compile_ctx *ctx, Type__Int64Range *const *m,
                                             size_t n, const char *what) {
    struct health_check_range *v = arena_new_array(ctx->arena, struct health_check_range, n);
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "%s_statuses[%zu]", what, i);
        long long start = m[i]->start, end = m[i]->end;
        if (start >= end) {
            diag_error(ctx->diag,
                       "Invalid http %s status range: expecting start < end, but found start=%lld "
                       "and end=%lld",
                       what, start, end);
        } else if (start < 100) {
            diag_error(ctx->diag,
                       "Invalid http %s status range: expecting start >= 100, but found start=%lld",
                       what, start);
        } else if (end > 600) {
            diag_error(ctx->diag,
                       "Invalid http %s status range: expecting end <= 600, but found end=%lld",
                       what, end);
        } else {
            v[i] = (struct health_check_range){(uint32_t)start, (uint32_t)end};
        }
    }
    return (struct health_check_statuses){v, (unsigned)n};
}

bool health_check_status_in(const struct health_check_statuses *s, unsigned code) {
    for (unsigned i = 0; i < s->n; i++) {
        if (code >= s->v[i].from && code < s->v[i].to) {
            return true;
        }
    }
    return false;
}

static sv method_name(int method) {
    switch (method) { /* an open enum */
    case CORE__REQUEST_METHOD__HEAD:
        return SV("HEAD");
    case CORE__REQUEST_METHOD__POST:
        return SV("POST");
    case CORE__REQUEST_METHOD__PUT:
        return SV("PUT");
    case CORE__REQUEST_METHOD__DELETE:
        return SV("DELETE");
    case CORE__REQUEST_METHOD__OPTIONS:
        return SV("OPTIONS");
    case CORE__REQUEST_METHOD__TRACE:
        return SV("TRACE");
    case CORE__REQUEST_METHOD__PATCH:
        return SV("PATCH");
    default:
        return SV("GET");
    }
}

static const struct header_mutations *more_headers(struct compile_ctx *ctx,
                                                   Core__HeaderValueOption *const *add, size_t n,
                                                   const char *const *drop, size_t drop_n) {
    return header_mutations_compile(ctx, (const void *const *)add, n, drop, drop_n);
}

static void http(struct compile_ctx *ctx, const Core__HealthCheck__HttpHealthCheck *m,
                 struct health_check_config *c) {
    DIAG_FIELD(ctx->diag, "http_health_check");
    c->kind = HEALTH_CHECK_HTTP;
    c->host = keep(ctx, m->host);
    c->path = keep(ctx, m->path);
    c->method = method_name((int)m->method);
    c->response_max_bytes = RESPONSE_MAX_BYTES;
    if (m->response_buffer_size) {
        uint64_t n = m->response_buffer_size->value;
        c->response_max_bytes = n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
    }
    payloads(ctx, m->send, m->receive, m->n_receive, c);
    c->expected = statuses(ctx, m->expected_statuses, m->n_expected_statuses, "expected");
    c->retriable = statuses(ctx, m->retriable_statuses, m->n_retriable_statuses, "retriable");
    c->headers = more_headers(ctx, m->request_headers_to_add, m->n_request_headers_to_add,
                              m->request_headers_to_remove, m->n_request_headers_to_remove);
    if (m->service_name_matcher) {
        DIAG_FIELD(ctx->diag, "service_name_matcher");
        struct string_matcher *s = arena_new(ctx->arena, struct string_matcher);
        string_matcher_compile(ctx, m->service_name_matcher, s);
        c->service_name = s;
    }
    switch (m->codec_client_type) {
    case TYPE__CODEC_CLIENT_TYPE__HTTP1:
        break;
    case TYPE__CODEC_CLIENT_TYPE__HTTP2:
        c->is_http2 = true;
        break;
    default:
        diag_error(ctx->diag, "codec_client_type: HTTP/3 is not supported");
    }
}

/* ---- gRPC, TCP ---- */

static void grpc(struct compile_ctx *ctx, const struct cluster_config *cluster,
                 const Core__HealthCheck__GrpcHealthCheck *m, struct health_check_config *c) {
    if (cluster->protocol == UPSTREAM_HTTP1) {
        diag_error(ctx->diag, "%.*s cluster must support HTTP/2 for gRPC healthchecking",
                   SV_ARG(cluster->name));
    }
    DIAG_FIELD(ctx->diag, "grpc_health_check");
    c->kind = HEALTH_CHECK_GRPC;
    c->is_http2 = true;
    c->host = keep(ctx, m->authority);
    c->service = keep(ctx, m->service_name);
    c->method = SV("POST");
    c->path = SV(GRPC_CHECK_PATH);
    c->response_max_bytes = RESPONSE_MAX_BYTES;
    c->headers = more_headers(ctx, m->initial_metadata, m->n_initial_metadata, NULL, 0);
}

static void tcp(struct compile_ctx *ctx, const Core__HealthCheck__TcpHealthCheck *m,
                struct health_check_config *c) {
    DIAG_FIELD(ctx->diag, "tcp_health_check");
    c->kind = HEALTH_CHECK_TCP;
    payloads(ctx, m->send, m->receive, m->n_receive, c);
    if (m->proxy_protocol_config) {
        diag_error(ctx->diag, "proxy_protocol_config is not supported");
    }
}

/* ---- times ---- */

static void duration(struct compile_ctx *ctx, const char *field, const Pb__Duration *m,
                     uint32_t dflt, uint32_t *out) {
    DIAG_FIELD(ctx->diag, "%s", field);
    compile_duration_ms(ctx, m, dflt, out);
}

static void times(struct compile_ctx *ctx, const Core__HealthCheck *m,
                  struct health_check_config *c) {
    duration(ctx, "timeout", m->timeout, 0, &c->timeout_ms);
    duration(ctx, "interval", m->interval, 0, &c->interval_ms);
    duration(ctx, "initial_jitter", m->initial_jitter, 0, &c->initial_jitter_ms);
    duration(ctx, "interval_jitter", m->interval_jitter, 0, &c->interval_jitter_ms);
    duration(ctx, "no_traffic_interval", m->no_traffic_interval, NO_TRAFFIC_INTERVAL_MS,
             &c->no_traffic_interval_ms);
    duration(ctx, "no_traffic_healthy_interval", m->no_traffic_healthy_interval,
             c->no_traffic_interval_ms, &c->no_traffic_healthy_interval_ms);
    duration(ctx, "unhealthy_interval", m->unhealthy_interval, c->interval_ms,
             &c->unhealthy_interval_ms);
    duration(ctx, "unhealthy_edge_interval", m->unhealthy_edge_interval, c->unhealthy_interval_ms,
             &c->unhealthy_edge_interval_ms);
    duration(ctx, "healthy_edge_interval", m->healthy_edge_interval, c->interval_ms,
             &c->healthy_edge_interval_ms);
    c->interval_jitter_pct = m->interval_jitter_percent;
    c->unhealthy_threshold = m->unhealthy_threshold ? m->unhealthy_threshold->value : 1;
    c->healthy_threshold = m->healthy_threshold ? m->healthy_threshold->value : 1;
}

/* ---- events ---- */

static void release_log(void *arg) { log_sink_unref(arg); }

static void open_log(struct compile_ctx *ctx, const char *path, struct health_check_config *c) {
    if (c->log) {
        diag_error(ctx->diag, "only one file of events is supported");
        return;
    }
    c->log = log_sink_get(sv_cstr(path), ctx->diag);
    if (c->log) {
        arena_on_fini(ctx->arena, release_log, c->log);
    }
}

static void event_log(struct compile_ctx *ctx, const Core__HealthCheck *m,
                      struct health_check_config *c) {
    c->always_log_failures = m->always_log_health_check_failures;
    c->always_log_successes = m->always_log_health_check_success;
    if (*m->event_log_path) {
        DIAG_FIELD(ctx->diag, "event_log_path");
        open_log(ctx, m->event_log_path, c);
    }
    for (size_t i = 0; i < m->n_event_logger; i++) {
        DIAG_FIELD(ctx->diag, "event_logger[%zu]", i);
        const Core__TypedExtensionConfig *t = m->event_logger[i];
        const char *want =
            health_check_event_sinks_file__health_check_event_file_sink__descriptor.name;
        sv url = any_inner_name(t->typed_config, ctx->scratch);
        if (!sv_is(url, want)) {
            diag_error(ctx->diag, "Didn't find a registered implementation for name: '%s'",
                       t->name);
            continue;
        }
        const HealthCheckEventSinksFile__HealthCheckEventFileSink *sink =
            compile_any(ctx, sv_cstr(t->name), t->typed_config, want, NULL);
        if (sink) {
            open_log(ctx, sink->event_log_path, c);
        }
    }
    if (m->event_service) {
        compile_unhonoured(ctx, "event_service");
    }
}

/* ---- TLS ---- */

static bool has_all(const struct kv_value *have, const struct kv_value *want) {
    for (uint32_t i = 0; i < want->fields.n; i++) {
        const struct kv_value *v = kv_get(have, want->fields.v[i].key);
        if (!v || !kv_eq(v, &want->fields.v[i].value)) {
            return false;
        }
    }
    return true;
}

/* The first of the cluster's transport sockets whose match the criteria fulfil. */
static slot_t chosen_transport(struct compile_ctx *ctx, const struct cluster_config *cluster,
                               const Pb__Struct *criteria) {
    if (!criteria || !criteria->n_fields) {
        return SLOT_NONE;
    }
    struct kv_value have = kv_from_struct(criteria, ctx->arena);
    for (unsigned i = 0; i < cluster->transport_matches_n; i++) {
        if (has_all(&have, cluster->transport_matches[i].match)) {
            return cluster->transport_matches[i].transport;
        }
    }
    return cluster->transport;
}

static void tls(struct compile_ctx *ctx, const struct cluster_config *cluster,
                const Core__HealthCheck *m, struct health_check_config *c) {
    c->transport = chosen_transport(ctx, cluster, m->transport_socket_match_criteria);
    size_t n = m->tls_options ? m->tls_options->n_alpn_protocols : 0;
    sv *v = arena_new_array(ctx->arena, sv, n);
    for (size_t i = 0; i < n; i++) {
        v[i] = keep(ctx, m->tls_options->alpn_protocols[i]);
    }
    c->alpn = v;
    c->alpn_n = (unsigned)n;
}

const struct health_check_config *health_check_config_compile(struct compile_ctx *ctx,
                                                              const struct cluster_config *cluster,
                                                              const void *msg) {
    const Core__HealthCheck *m = msg;
    struct health_check_config *c = arena_new(ctx->arena, struct health_check_config);
    times(ctx, m, c);
    c->reuse_connection = !m->reuse_connection || m->reuse_connection->value;
    switch (m->health_checker_case) {
    case CORE__HEALTH_CHECK__HEALTH_CHECKER_HTTP_HEALTH_CHECK:
        http(ctx, m->http_health_check, c);
        break;
    case CORE__HEALTH_CHECK__HEALTH_CHECKER_TCP_HEALTH_CHECK:
        tcp(ctx, m->tcp_health_check, c);
        break;
    case CORE__HEALTH_CHECK__HEALTH_CHECKER_GRPC_HEALTH_CHECK:
        grpc(ctx, cluster, m->grpc_health_check, c);
        break;
    case CORE__HEALTH_CHECK__HEALTH_CHECKER_CUSTOM_HEALTH_CHECK:
        diag_error(ctx->diag, "Didn't find a registered implementation for name: '%s'",
                   m->custom_health_check->name);
        break;
    default:
        diag_error(ctx->diag, "health_checker: value is required");
    }
    event_log(ctx, m, c);
    tls(ctx, cluster, m, c);
    if (m->alt_port) {
        compile_unhonoured(ctx, "alt_port"); /* nor is it by Envoy */
    }
    return c;
}
