/* HttpConnectionManager → struct hcm_config. Filter lists: hcm_filters.c.
 * Threads: the config thread. Spec:
 * filters.network.http_connection_manager.v3.HttpConnectionManager. */
#include "protos/any.h"
#include "protos/gen/hcm.pb-c.h"
#include "protos/gen/http_early_header_mutation_header_mutation.pb-c.h"
#include "protos/gen/request_id_uuid.pb-c.h"
#include "proxy/api/header_mutation.h"
#include "proxy/base/mem.h"
#include "proxy/base/runtime.h"
#include "proxy/http/codec_options.h"
#include "proxy/http/codec_stats.h"
#include "proxy/request/client_address.h"
#include "proxy/request/hcm_filters.h"
#include "proxy/request/hcm_scopes.h"
#include "proxy/request/tracing.h"

#define STREAM_IDLE_TIMEOUT_MS 300000u
#define IDLE_TIMEOUT_MS 3600000u
#define DRAIN_TIMEOUT_MS 5000u
#define DELAYED_CLOSE_TIMEOUT_MS 1000u

static sv keep(struct compile_ctx *ctx, const char *s) {
    return *s ? arena_sv(ctx->arena, sv_cstr(s)) : SV_NULL;
}
static bool is_true(const Pb__BoolValue *v, bool dflt) { return v ? v->value : dflt; }

/* ---- protocol ---- */

static void codec(struct compile_ctx *ctx, const Hcm__HttpConnectionManager *m,
                  struct hcm_config *c) {
    static const enum codec_kind kinds[] = {CODEC_AUTO, CODEC_HTTP1, CODEC_HTTP2};
    if ((unsigned)m->codec_type >= ARRAY_LEN(kinds)) {
        diag_error(ctx->diag, "codec_type HTTP3 is not supported");
        return;
    }
    c->codec_kind = kinds[m->codec_type];
    codec_options_defaults(&c->codec);
    if (m->max_request_headers_kb) {
        c->codec.max_headers_bytes = m->max_request_headers_kb->value * 1024;
    }
    if (m->http_protocol_options) {
        DIAG_FIELD(ctx->diag, "http_protocol_options");
        codec_options_http1(ctx, m->http_protocol_options, &c->codec);
    }
    if (m->http2_protocol_options) {
        DIAG_FIELD(ctx->diag, "http2_protocol_options");
        codec_options_http2(ctx, m->http2_protocol_options, &c->codec);
    }
    if (m->http3_protocol_options) {
        compile_unhonoured(ctx, "http3_protocol_options");
    }
    if (is_true(m->stream_error_on_invalid_http_message, false)) {
        c->codec.h1.override_stream_error_on_invalid_http_message = true;
        c->codec.h2.override_stream_error_on_invalid_http_message = true;
    }
    c->idle_timeout_ms = IDLE_TIMEOUT_MS;
    if (m->common_http_protocol_options) {
        DIAG_FIELD(ctx->diag, "common_http_protocol_options");
        const Core__HttpProtocolOptions *o = m->common_http_protocol_options;
        codec_options_common(ctx, o, &c->codec);
        compile_duration_ms(ctx, o->idle_timeout, IDLE_TIMEOUT_MS, &c->idle_timeout_ms);
        compile_duration_ms(ctx, o->max_connection_duration, 0, &c->max_connection_duration_ms);
        if (o->max_connection_duration_jitter) { /* at most 100 %, as its rules say */
            c->max_connection_duration_jitter_ms =
                (uint32_t)(c->max_connection_duration_ms *
                           o->max_connection_duration_jitter->value / 100);
        }
        compile_duration_ms(ctx, o->max_stream_duration, 0, &c->max_stream_duration_ms);
        c->max_requests_per_connection =
            o->max_requests_per_connection ? o->max_requests_per_connection->value : 0;
    }
}

static void timeouts(struct compile_ctx *ctx, const Hcm__HttpConnectionManager *m,
                     struct hcm_config *c) {
    const struct {
        const char *field;
        const Pb__Duration *value;
        uint32_t dflt;
        uint32_t *out;
    } t[] = {
        {"stream_idle_timeout", m->stream_idle_timeout, STREAM_IDLE_TIMEOUT_MS,
         &c->stream_idle_timeout_ms},
        {"request_timeout", m->request_timeout, 0, &c->request_timeout_ms},
        {"request_headers_timeout", m->request_headers_timeout, 0, &c->request_headers_timeout_ms},
        {"drain_timeout", m->drain_timeout, DRAIN_TIMEOUT_MS, &c->drain_timeout_ms},
        {"delayed_close_timeout", m->delayed_close_timeout, DELAYED_CLOSE_TIMEOUT_MS,
         &c->delayed_close_timeout_ms},
    };
    for (size_t i = 0; i < ARRAY_LEN(t); i++) {
        DIAG_FIELD(ctx->diag, "%s", t[i].field);
        compile_duration_ms(ctx, t[i].value, t[i].dflt, t[i].out);
    }
    DIAG_FIELD(ctx->diag, "stream_flush_timeout");
    compile_duration_ms(ctx, m->stream_flush_timeout, c->stream_idle_timeout_ms,
                        &c->codec.h2.flush_timeout_ms);
}

/* ---- stats ---- */

static struct stats_scope *scope(struct compile_ctx *ctx, const struct stats_group *g, sv prefix) {
    struct stats_scope *s = stats_scope_get(ctx->stats, g, prefix);
    arena_on_fini(ctx->arena, (void (*)(void *))stats_scope_unref, s);
    return s;
}

static void stats(struct compile_ctx *ctx, const Hcm__HttpConnectionManager *m,
                  struct hcm_config *c) {
    c->stat_prefix = arena_printf(ctx->arena, "http.%s.", m->stat_prefix);
    c->stats = scope(ctx, &hcm_stats_group, c->stat_prefix);
    c->codec_h1_stats = scope(ctx, &h1_stats_group, SV("http1."));
    c->codec_h2_stats = scope(ctx, &h2_stats_group, SV("http2."));
    c->tracing_stats = scope(ctx, &tracing_stats_group,
                             arena_printf(ctx->arena, "%.*stracing.", SV_ARG(c->stat_prefix)));
    if (ctx->stat_prefix.n) {
        c->listener_stats = scope(
            ctx, &hcm_listener_stats_group,
            arena_printf(ctx->arena, "%.*s%.*s", SV_ARG(ctx->stat_prefix), SV_ARG(c->stat_prefix)));
    }
}

/* ---- routes ---- */

static void unref_table(void *arg) { shared_unref(&((struct route_table *)arg)->shared); }

static void routes(struct compile_ctx *ctx, const Hcm__HttpConnectionManager *m,
                   struct hcm_config *c) {
    c->route_slot = SLOT_NONE;
    switch (m->route_specifier_case) {
    case HCM__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_ROUTE_CONFIG: {
        DIAG_FIELD(ctx->diag, "route_config");
        sv wire = proto_pack(&m->route_config->base, ctx->arena);
        struct compile_ctx inner = *ctx;
        inner.is_static = true; /* inline tables check their clusters */
        c->routes = route_table_compile(&inner, wire, NULL);
        if (!c->routes) {
            return;
        }
        arena_on_fini(ctx->arena, unref_table, c->routes);
        if (c->routes->uses_vhds) {
            diag_error(ctx->diag, "vhds needs routes by rds");
        }
        return;
    }
    case HCM__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_RDS: {
        DIAG_FIELD(ctx->diag, "rds");
        if (!*m->rds->route_config_name) {
            diag_error(ctx->diag, "route_config_name: value length must be at least 1 characters");
            return;
        }
        c->route_slot =
            compile_route_ref(ctx, sv_cstr(m->rds->route_config_name), m->rds->config_source);
        return;
    }
    case HCM__HTTP_CONNECTION_MANAGER__ROUTE_SPECIFIER_SCOPED_ROUTES: {
        DIAG_FIELD(ctx->diag, "scoped_routes");
        c->scopes = hcm_scopes_compile(ctx, m->scoped_routes);
        return;
    }
    default:
        diag_error(ctx->diag, "route_specifier: value is required");
    }
}

/* ---- header rules ---- */

static void internal_addresses(struct compile_ctx *ctx,
                               const Hcm__HttpConnectionManager__InternalAddressConfig *m,
                               struct hcm_config *c) {
    c->trusts_private =
        !runtime_bool(SV("envoy.reloadable_features.explicit_internal_address_config"), true);
    if (!m) {
        return;
    }
    DIAG_FIELD(ctx->diag, "internal_address_config");
    struct cidr *v = arena_new_array(ctx->arena, struct cidr, m->n_cidr_ranges);
    for (size_t i = 0; i < m->n_cidr_ranges; i++) {
        const Core__CidrRange *r = m->cidr_ranges[i];
        DIAG_FIELD(ctx->diag, "cidr_ranges[%zu]", i);
        if (!cidr_make(sv_cstr(r->address_prefix), r->prefix_len ? r->prefix_len->value : 0,
                       &v[i])) {
            diag_error(ctx->diag, "invalid ip/mask combo '%s/%u'", r->address_prefix,
                       r->prefix_len ? r->prefix_len->value : 0);
        }
    }
    c->internal_cidrs = v;
    c->internal_cidrs_n = (unsigned)m->n_cidr_ranges;
}

static void server_and_scheme(struct compile_ctx *ctx, const Hcm__HttpConnectionManager *m,
                              struct hcm_config *c) {
    c->server_name = *m->server_name ? keep(ctx, m->server_name) : SV("envoy");
    c->server_header = (enum server_header_mode)m->server_header_transformation;
    c->via = keep(ctx, m->via);
    const Core__SchemeHeaderTransformation *s = m->scheme_header_transformation;
    if (s && s->transformation_case ==
                 CORE__SCHEME_HEADER_TRANSFORMATION__TRANSFORMATION_SCHEME_TO_OVERWRITE) {
        c->scheme_overwrite = keep(ctx, s->scheme_to_overwrite);
    }
    c->scheme_match_upstream = s && s->match_upstream && !c->scheme_overwrite.n;
}

static void request_id(struct compile_ctx *ctx, const Hcm__HttpConnectionManager *m,
                       struct hcm_config *c) {
    c->generate_request_id = is_true(m->generate_request_id, true);
    c->preserve_external_request_id = m->preserve_external_request_id;
    c->always_set_request_id = m->always_set_request_id_in_response;
    c->pack_trace_reason = c->samples_by_request_id = true;
    if (m->request_id_extension && m->request_id_extension->typed_config) {
        DIAG_FIELD(ctx->diag, "request_id_extension.typed_config");
        const RequestIdUuid__UuidRequestIdConfig *u =
            compile_any(ctx, SV("envoy.request_id.uuid"), m->request_id_extension->typed_config,
                        "envoy.extensions.request_id.uuid.v3.UuidRequestIdConfig", NULL);
        c->pack_trace_reason = u && is_true(u->pack_trace_reason, true);
        c->samples_by_request_id = u && is_true(u->use_request_id_for_trace_sampling, true);
    }
}

static void client_certificate(struct compile_ctx *ctx, const Hcm__HttpConnectionManager *m,
                               struct hcm_config *c) {
    c->xfcc = (enum xfcc_mode)m->forward_client_cert_details;
    const Hcm__HttpConnectionManager__SetCurrentClientCertDetails *s =
        m->set_current_client_cert_details;
    if (s) {
        c->xfcc_set.subject = is_true(s->subject, false);
        c->xfcc_set.issuer = s->issuer;
        c->xfcc_set.cert = s->cert;
        c->xfcc_set.chain = s->chain;
        c->xfcc_set.dns = s->dns;
        c->xfcc_set.uri = s->uri;
    }
    if (m->forward_client_cert_matcher) {
        diag_error(ctx->diag, "forward_client_cert_matcher is not supported");
    }
}

static void paths(struct compile_ctx *ctx, const Hcm__HttpConnectionManager *m,
                  struct hcm_config *c) {
    c->normalize_path = is_true(m->normalize_path, false);
    c->merge_slashes = m->merge_slashes;
    static const enum escaped_slashes actions[] = {
        ESCAPED_SLASHES_KEEP, ESCAPED_SLASHES_KEEP, ESCAPED_SLASHES_REJECT,
        ESCAPED_SLASHES_UNESCAPE_REDIRECT, ESCAPED_SLASHES_UNESCAPE_FORWARD};
    if ((unsigned)m->path_with_escaped_slashes_action < ARRAY_LEN(actions)) {
        c->escaped_slashes = actions[m->path_with_escaped_slashes_action];
    }
    c->strip_matching_port = m->strip_matching_host_port;
    c->strip_any_port = m->strip_port_mode_case ==
                            HCM__HTTP_CONNECTION_MANAGER__STRIP_PORT_MODE_STRIP_ANY_HOST_PORT &&
                        m->strip_any_host_port;
    c->strip_trailing_host_dot = m->strip_trailing_host_dot;
    if (m->path_normalization_options) {
        diag_error(ctx->diag, "path_normalization_options is not supported: use normalize_path");
    }
}

static void detections(struct compile_ctx *ctx, const Hcm__HttpConnectionManager *m,
                       struct hcm_config *c) {
    size_t n = m->n_original_ip_detection_extensions;
    c->detections =
        ip_detections_compile(ctx, (const void *const *)m->original_ip_detection_extensions, n);
    if (n && c->use_remote_address) {
        diag_error(ctx->diag,
                   "Original IP detection extensions and use_remote_address may not be mixed");
    }
    if (n && c->xff_trusted_hops) {
        diag_error(ctx->diag,
                   "Original IP detection extensions and xff_num_trusted_hops may not be mixed");
    }
}

#define EARLY_MUTATION \
    "envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"

/* All extensions are of one kind, so that their lists are one. */
static void early_mutations(struct compile_ctx *ctx, const Hcm__HttpConnectionManager *m,
                            struct hcm_config *c) {
    size_t extensions_n = m->n_early_header_mutation_extensions, n = 0;
    const HttpEarlyHeaderMutationHeaderMutation__HeaderMutation **found = arena_new_array(
        ctx->scratch, const HttpEarlyHeaderMutationHeaderMutation__HeaderMutation *, extensions_n);
    for (size_t i = 0; i < extensions_n; i++) {
        const Core__TypedExtensionConfig *e = m->early_header_mutation_extensions[i];
        DIAG_FIELD(ctx->diag, "early_header_mutation_extensions[%zu].typed_config", i);
        found[i] = compile_any(ctx, sv_cstr(e->name), e->typed_config, EARLY_MUTATION, NULL);
        n += found[i] ? found[i]->n_mutations : 0;
    }
    const void **all = arena_new_array(ctx->scratch, const void *, n);
    n = 0;
    for (size_t i = 0; i < extensions_n; i++) {
        for (size_t j = 0; found[i] && j < found[i]->n_mutations; j++) {
            all[n++] = found[i]->mutations[j];
        }
    }
    DIAG_FIELD(ctx->diag, "early_header_mutation_extensions");
    c->early_mutations = n ? header_mutations_compile_list(ctx, all, n) : NULL;
}

static void header_rules(struct compile_ctx *ctx, const Hcm__HttpConnectionManager *m,
                         struct hcm_config *c) {
    c->use_remote_address = is_true(m->use_remote_address, false);
    c->xff_trusted_hops = m->xff_num_trusted_hops;
    c->skip_xff_append = m->skip_xff_append;
    c->add_user_agent = is_true(m->add_user_agent, false);
    c->proxy_100_continue = m->proxy_100_continue;
    c->ipv4_mapped_ipv6 = m->represent_ipv4_remote_address_as_ipv4_mapped_ipv6;
    c->append_x_forwarded_port = m->append_x_forwarded_port;
    c->append_local_overload = m->append_local_overload;
    internal_addresses(ctx, m->internal_address_config, c);
    server_and_scheme(ctx, m, c);
    request_id(ctx, m, c);
    client_certificate(ctx, m, c);
    paths(ctx, m, c);
    detections(ctx, m, c);
    early_mutations(ctx, m, c);
    if (m->forward_proto_config) {
        diag_error(ctx->diag, "forward_proto_config is not supported");
    }
}

/* ---- the rest ---- */

static void unhonoured(struct compile_ctx *ctx, const Hcm__HttpConnectionManager *m) {
    const struct compile_field f[] = {
        {m->proxy_status_config != NULL, "proxy_status_config"},
        {m->typed_header_validation_config != NULL, "typed_header_validation_config"},
        {m->drain_timeout_jitter != NULL, "drain_timeout_jitter"},
        {m->http1_safe_max_connection_duration, "http1_safe_max_connection_duration"},
        {m->add_proxy_protocol_connection_state != NULL, "add_proxy_protocol_connection_state"},
        {m->internal_address_config && m->internal_address_config->unix_sockets,
         "internal_address_config.unix_sockets"},
    };
    compile_unhonoured_fields(ctx, f, ARRAY_LEN(f));
}

/* Of the fields that access_log_options replaces, none may stand beside it. */
static void access_log_options(struct compile_ctx *ctx, const Hcm__HttpConnectionManager *m,
                               struct hcm_config *c) {
    const Hcm__HttpConnectionManager__HcmAccessLogOptions *o = m->access_log_options;
    if (o && (m->flush_access_log_on_new_request || m->access_log_flush_interval)) {
        diag_error(ctx->diag, "only one of %s and access_log_options may be set",
                   m->flush_access_log_on_new_request ? "flush_access_log_on_new_request"
                                                      : "access_log_flush_interval");
        return;
    }
    c->log_new_request =
        o ? o->flush_access_log_on_new_request : m->flush_access_log_on_new_request;
    c->log_tunnel = o && o->flush_log_on_tunnel_successfully_established;
    compile_duration_ms(ctx, o ? o->access_log_flush_interval : m->access_log_flush_interval, 0,
                        &c->access_log_flush_interval_ms);
}

static void access_logging(struct compile_ctx *ctx, const Hcm__HttpConnectionManager *m,
                           struct hcm_config *c) {
    c->access_logs = access_logs_compile(ctx, (const void *const *)m->access_log, m->n_access_log);
    access_log_options(ctx, m, c);
}

void *hcm_compile(struct compile_ctx *ctx, const void *msg) {
    const Hcm__HttpConnectionManager *m = msg;
    if (!m) {
        diag_error(ctx->diag, "typed_config: value is required");
        return NULL;
    }
    unsigned errors = diag_errors(ctx->diag);
    struct hcm_config *c = arena_new(ctx->arena, struct hcm_config);
    stats(ctx, m, c);
    struct compile_ctx inner = *ctx;
    inner.stat_prefix = c->stat_prefix;
    codec(ctx, m, c);
    timeouts(ctx, m, c);
    header_rules(ctx, m, c);
    routes(&inner, m, c);
    hcm_filters_compile(&inner, m->http_filters, m->n_http_filters, "http_filters", &c->filters);
    hcm_upgrades_compile(&inner, m, c);
    access_logging(&inner, m, c);
    if (m->tracing) {
        c->tracing = tracing_compile(&inner, m->tracing);
    }
    if (m->local_reply_config) {
        DIAG_FIELD(ctx->diag, "local_reply_config");
        c->local_reply = local_reply_compile(&inner, m->local_reply_config);
    }
    unhonoured(ctx, m);
    return diag_errors(ctx->diag) == errors ? c : NULL;
}
