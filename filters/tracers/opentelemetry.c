/* envoy.tracers.opentelemetry: W3C context, spans in OTLP by gRPC or HTTP.
 * Threads: compiled on the config thread, immutable; spans and reports on workers.
 * Spec: config.trace.v3.OpenTelemetryConfig; OTLP 1.x; W3C Trace Context. Not here: the span's form
 * (common/otlp.c), resource and samplers (common/otel_resource.c), batching
 * (common/span_reporter.c). */
#include "filters/common/collector.h"
#include "filters/common/otel_resource.h"
#include "filters/common/otlp.h"
#include "filters/common/span_reporter.h"
#include "protos/gen/trace.pb-c.h"
#include "proxy/api/telemetry.h"
#include "proxy/base/version.h"

#define MIN_FLUSH_SPANS 5u
#define FLUSH_INTERVAL_MS 5000u
#define REQUEST_TIMEOUT_MS 5000u /* when the service has none: a report must not hang for ever */
#define CACHE_SPANS 1024u        /* max_cache_size's default */

#define OTEL_STATS(P, C, G, H, T) C(P, spans_dropped) C(P, spans_sent) C(P, timer_flushed)
STATS_ENUM(OTEL, OTEL_STATS);
STATS_GROUP(otel, OTEL, OTEL_STATS);

struct otel {
    struct collector collector; /* by gRPC: cluster, authority, timeout, headers of it */
    bool is_grpc;
    sv resource, scope, user_agent;
    const struct otel_sampler *sampler; /* NULL: none */
    struct stats_scope *stats;
    struct span_reporter *reporter;
};

static struct stats_shard *stats_of(const struct otel *o, struct worker *w) {
    return stats_shard(o->stats, worker_loop(w)->thread_index);
}

/* ---- context ---- */

static bool is_sampled(const struct otel *o, const struct trace_start *how,
                       const struct trace_span *s, const struct trace_context *parent) {
    if (!how->is_traced) {
        return false;
    }
    if (o->sampler) {
        return otel_sampler_holds(o->sampler, s->trace_high, parent);
    }
    return !parent || parent->is_sampled;
}

static bool start(const void *config, const struct trace_start *how, const struct headers *h,
                  struct trace_span *s) {
    const struct otel *o = config;
    struct trace_context c;
    enum trace_context_result found = trace_context_w3c(h, &c);
    if (found == TRACE_CONTEXT_BROKEN) {
        return false;
    }
    bool has_parent = found == TRACE_CONTEXT_FOUND;
    s->trace_high = has_parent ? c.trace_high : rng_u64(how->rng);
    s->trace_low = has_parent ? c.trace_low : rng_u64(how->rng);
    s->id = rng_u64(how->rng);
    s->has_parent = has_parent;
    s->parent_id = c.span;
    s->state =
        has_parent ? headers_joined(h, HDR_tracestate, SV("tracestate"), how->arena) : SV_NULL;
    s->name = how->operation;
    s->is_client = how->is_egress && !how->spawns_upstream_span;
    s->is_sampled = is_sampled(o, how, s, has_parent ? &c : NULL);
    s->is_decision_ours = true;
    return true;
}

static void inject(const struct trace_span *s, struct headers *h) {
    trace_inject_traceparent(s, h);
    headers_set(h, HDR_tracestate, s->state);
}

/* ---- reports ---- */

static void report(const struct trace_span *s, const struct trace_report *r, struct worker *w) {
    const struct otel *o = s->tracer->config;
    struct buf BUF_AUTO span;
    buf_init(&span);
    otlp_write_span(s, r, &span);
    span_reporter_add(o->reporter, w, &span);
}

static void on_http_done(void *user, const struct upstream_call_result *res) {
    (void)res;
    span_report_done(user);
}

static void on_grpc_done(void *user, const struct grpc_call_result *res) {
    (void)res;
    span_report_done(user);
}

static struct upstream_call *call_grpc(const struct otel *o, struct worker *w, struct buf *body,
                                       struct span_report *rep) {
    struct arena scratch;
    struct headers metadata;
    arena_init(&scratch, 1024);
    headers_init(&metadata, &scratch);
    headers_add_id(&metadata, HDR_user_agent, o->user_agent);
    static const struct conn_info nowhere;
    const struct stream_info si = {.cx = &nowhere, .arena = &scratch};
    header_mutations_apply(o->collector.headers, &metadata, &si);
    const struct upstream_call_options opts = {
        .cluster = SLOT_NONE, /* by name: a report may outlive the listener it came from */
        .cluster_name = o->collector.cluster,
        .timeout_ms = o->collector.timeout_ms ? o->collector.timeout_ms : REQUEST_TIMEOUT_MS,
        .request_max_bytes = UINT32_MAX, /* bounded by the batch */
    };
    const struct grpc_call_method m = {
        .service = SV("opentelemetry.proto.collector.trace.v1.TraceService"),
        .method = SV("Export"),
        .authority = o->collector.authority,
        .metadata = &metadata};
    sv message = buf_pullup(body, buf_len(body));
    struct upstream_call *call = grpc_call_start(w, &opts, &m, message, on_grpc_done, rep);
    arena_fini(&scratch);
    return call;
}

static struct upstream_call *send_report(const void *config, struct worker *w, struct buf *spans,
                                         struct span_report *rep) {
    const struct otel *o = config;
    struct buf BUF_AUTO body;
    buf_init(&body);
    otlp_write_request(o->resource, o->scope, spans, &body);
    if (o->is_grpc) {
        return call_grpc(o, w, &body, rep);
    }
    return collector_post(&o->collector, w, SV("application/x-protobuf"), o->user_agent,
                          REQUEST_TIMEOUT_MS, &body, on_http_done, rep);
}

static void sent(const void *config, struct worker *w, unsigned spans, bool by_timer) {
    struct stats_shard *st = stats_of(config, w);
    stats_add(st, OTEL_spans_sent, spans);
    stats_add(st, OTEL_timer_flushed, by_timer);
}

static void dropped(const void *config, struct worker *w, unsigned spans) {
    stats_add(stats_of(config, w), OTEL_spans_dropped, spans);
}

/* ---- compiling ---- */

static void compile_grpc(struct compile_ctx *ctx, const Core__GrpcService *m, struct otel *o) {
    DIAG_FIELD(ctx->diag, "grpc_service");
    if (m->target_specifier_case != CORE__GRPC_SERVICE__TARGET_SPECIFIER_ENVOY_GRPC) {
        diag_error(ctx->diag, "only envoy_grpc is supported");
        return;
    }
    const Core__GrpcService__EnvoyGrpc *e = m->envoy_grpc;
    o->is_grpc = true;
    o->collector.cluster = arena_sv(ctx->arena, sv_cstr(e->cluster_name));
    o->collector.authority = arena_sv(ctx->arena, sv_cstr(e->authority));
    if (m->retry_policy || e->retry_policy) {
        compile_unhonoured(ctx, "retry_policy");
    }
    const void **options = arena_new_array(ctx->scratch, const void *, m->n_initial_metadata);
    for (size_t i = 0; i < m->n_initial_metadata; i++) {
        Core__HeaderValueOption *one = arena_new(ctx->scratch, Core__HeaderValueOption);
        core__header_value_option__init(one);
        one->header = m->initial_metadata[i];
        options[i] = one;
    }
    DIAG_FIELD(ctx->diag, "initial_metadata");
    o->collector.headers = header_mutations_compile(ctx, options, m->n_initial_metadata, NULL, 0);
    compile_duration_ms(ctx, m->timeout, 0, &o->collector.timeout_ms);
}

static void compile_service(struct compile_ctx *ctx, const Trace__OpenTelemetryConfig *m,
                            struct otel *o) {
    if (!m->grpc_service == !m->http_service) {
        diag_error(ctx->diag, "OpenTelemetry Tracer must have exactly one of gRPC, HTTP, or custom "
                              "exporter configured.");
    } else if (m->grpc_service) {
        compile_grpc(ctx, m->grpc_service, o);
    } else {
        DIAG_FIELD(ctx->diag, "http_service");
        collector_compile(ctx, m->http_service, &o->collector);
    }
}

static void *compile(struct compile_ctx *ctx, const void *msg) {
    static const struct span_reporter_ops ops = {
        .send = send_report, .sent = sent, .dropped = dropped};
    const Trace__OpenTelemetryConfig *m = msg;
    unsigned before = diag_errors(ctx->diag);
    struct otel *o = arena_new(ctx->arena, struct otel);
    compile_service(ctx, m, o);
    otel_resource_compile(ctx, m, &o->resource, &o->scope);
    if (m->sampler) {
        o->sampler = otel_sampler_compile(ctx, m->sampler);
    }
    o->user_agent = arena_printf(ctx->arena, "OTel-OTLP-Exporter-Sluice/%s", version_string());
    if (ctx->stats) {
        o->stats = stats_scope_get(ctx->stats, &otel_stats_group, SV("tracing.opentelemetry."));
        arena_on_fini(ctx->arena, (void (*)(void *))stats_scope_unref, o->stats);
    }
    const struct span_reporter_limits limits = {
        .min_flush_key = SV("tracing.opentelemetry.min_flush_spans"),
        .interval_key = SV("tracing.opentelemetry.flush_interval_ms"),
        .min_flush = MIN_FLUSH_SPANS,
        .interval_ms = FLUSH_INTERVAL_MS,
        .spans_max = m->max_cache_size ? m->max_cache_size->value : CACHE_SPANS};
    struct tracer *owner = CONTAINER_OF(ctx->arena, struct tracer, arena);
    o->reporter = span_reporter_new(ctx->arena, &owner->shared, &ops, &limits, o);
    return diag_errors(ctx->diag) == before ? o : NULL;
}

const struct tracer_type opentelemetry_tracer = {
    .name = "envoy.tracers.opentelemetry",
    .type_url = "envoy.config.trace.v3.OpenTelemetryConfig",
    .compile = compile,
    .start = start,
    .inject = inject,
    .report = report,
};
