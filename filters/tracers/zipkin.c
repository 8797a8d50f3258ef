/* envoy.tracers.zipkin: B3 context, spans in Zipkin's version 2 by POST to a collector.
 * Threads: compiled on the config thread, immutable; spans and reports on workers.
 * Spec: config.trace.v3.ZipkinConfig; Envoy's Zipkin tracer (which ids a span gets, and what is
 * shared). Not here: the span's form (common/zipkin_span.c), batching (common/span_reporter.c). */
#include "filters/common/collector.h"
#include "filters/common/span_reporter.h"
#include "filters/common/trace_context.h"
#include "filters/common/zipkin_span.h"
#include "protos/gen/trace.pb-c.h"
#include "proxy/base/runtime.h"

#define MIN_FLUSH_SPANS 5u
#define FLUSH_INTERVAL_MS 5000u
#define REQUEST_TIMEOUT_MS 5000u
#define SPANS_MAX 1024u /* waiting, per worker */

#define ZIPKIN_STATS(P, C, G, H, T) \
    C(P, reports_dropped)           \
    C(P, reports_failed)            \
    C(P, reports_sent) C(P, reports_skipped_no_cluster) C(P, spans_sent) C(P, timer_flushed)
STATS_ENUM(ZIPKIN, ZIPKIN_STATS);
STATS_GROUP(zipkin, ZIPKIN, ZIPKIN_STATS);

struct zipkin {
    struct collector collector;
    bool is_128bit, is_shared, splits, has_w3c, is_proto, has_timestamp_ids;
    struct stats_scope *stats;
    struct span_reporter *reporter;
};

static struct stats_shard *stats_of(const struct zipkin *z, struct worker *w) {
    return stats_shard(z->stats, worker_loop(w)->thread_index);
}

/* ---- context ---- */

static enum trace_context_result extract(const struct zipkin *z, const struct headers *h,
                                         struct trace_context *c) {
    enum trace_context_result r = trace_context_b3(h, c);
    if (r != TRACE_CONTEXT_NONE || !z->has_w3c) {
        return r;
    }
    struct trace_context w3c;
    if (trace_context_w3c(h, &w3c) != TRACE_CONTEXT_FOUND) {
        return TRACE_CONTEXT_NONE;
    }
    if (c->has_sampled) {
        w3c.is_sampled = c->is_sampled;
    }
    *c = w3c;
    return TRACE_CONTEXT_FOUND;
}

static void begin_trace(const struct zipkin *z, struct rng *rng, struct trace_span *s) {
    s->trace_low = s->id = rng_u64(rng);
    if (z->is_128bit) {
        s->trace_high = rng_u64(rng);
        if (z->has_timestamp_ids) {
            s->trace_high = s->start_us / 1000000 << 32 | (s->trace_high & UINT32_MAX);
        }
    }
    s->is_shared = z->is_shared && !s->is_client;
}

/* A server may take the caller's span for its own; else it begins one below it. */
static void join_trace(const struct zipkin *z, const struct trace_context *c, struct rng *rng,
                       struct trace_span *s) {
    s->trace_high = c->trace_high;
    s->trace_low = c->trace_low;
    s->is_shared = z->is_shared && !s->is_client;
    if (s->is_shared) {
        s->id = c->span;
        s->parent_id = c->parent;
        s->has_parent = c->parent != 0;
        return;
    }
    s->id = rng_u64(rng);
    s->parent_id = c->span;
    s->has_parent = true;
}

static bool start(const void *config, const struct trace_start *how, const struct headers *h,
                  struct trace_span *s) {
    const struct zipkin *z = config;
    struct trace_context c;
    enum trace_context_result found = extract(z, h, &c);
    if (found == TRACE_CONTEXT_BROKEN) {
        return false;
    }
    s->name = how->host;
    s->uses_single_b3 = headers_has(h, HDR_b3);
    s->is_sampled = c.has_sampled ? c.is_sampled : how->is_traced;
    s->is_decision_ours = !c.has_sampled;
    s->is_client = how->is_egress && !how->spawns_upstream_span && !z->splits;
    if (found == TRACE_CONTEXT_FOUND) {
        join_trace(z, &c, how->rng, s);
    } else {
        begin_trace(z, how->rng, s);
    }
    return true;
}

static void inject(const struct trace_span *s, struct headers *h) {
    trace_inject_b3(s, h);
    if (((const struct zipkin *)s->tracer->config)->has_w3c) {
        trace_inject_traceparent(s, h);
    }
}

/* ---- reports ---- */

static void report(const struct trace_span *s, const struct trace_report *r, struct worker *w) {
    const struct zipkin *z = s->tracer->config;
    const struct zipkin_endpoint e = {worker_node_cluster(w), worker_local_address(w)};
    struct buf BUF_AUTO span;
    buf_init(&span);
    if (z->is_proto) {
        zipkin_write_proto(s, r, &e, &span);
    } else {
        buf_lit(&span, ",");
        zipkin_write_json(s, r, &e, &span);
    }
    span_reporter_add(z->reporter, w, &span);
}

static void on_done(void *user, const struct upstream_call_result *res) {
    struct span_report *rep = user;
    const struct zipkin *z = span_report_config(rep);
    unsigned stat = ZIPKIN_reports_failed;
    if (res->status == UPSTREAM_CALL_NO_CLUSTER) {
        stat = ZIPKIN_reports_skipped_no_cluster;
    } else if (res->code) {
        stat = res->code == 202 ? ZIPKIN_reports_sent : ZIPKIN_reports_dropped;
    }
    stats_inc(stats_of(z, span_report_worker(rep)), stat);
    span_report_done(rep);
}

static struct upstream_call *send_report(const void *config, struct worker *w, struct buf *spans,
                                         struct span_report *rep) {
    const struct zipkin *z = config;
    struct buf BUF_AUTO body;
    buf_init(&body);
    if (!z->is_proto) { /* each has a comma before it */
        buf_lit(&body, "[");
        buf_drain(spans, 1);
    }
    buf_move(&body, spans);
    if (!z->is_proto) {
        buf_lit(&body, "]");
    }
    uint32_t timeout_ms =
        (uint32_t)runtime_u64(SV("tracing.zipkin.request_timeout"), REQUEST_TIMEOUT_MS);
    return collector_post(&z->collector, w,
                          z->is_proto ? SV("application/x-protobuf") : SV("application/json"),
                          SV_NULL, timeout_ms, &body, on_done, rep);
}

static void sent(const void *config, struct worker *w, unsigned spans, bool by_timer) {
    struct stats_shard *st = stats_of(config, w);
    stats_add(st, ZIPKIN_spans_sent, spans);
    stats_add(st, ZIPKIN_timer_flushed, by_timer);
}

static void dropped(const void *config, struct worker *w, unsigned spans) {
    stats_add(stats_of(config, w), ZIPKIN_reports_dropped, spans);
}

/* ---- compiling ---- */

static void compile_collector(struct compile_ctx *ctx, const Trace__ZipkinConfig *m,
                              struct zipkin *z) {
    if (m->collector_service) {
        DIAG_FIELD(ctx->diag, "collector_service");
        collector_compile(ctx, m->collector_service, &z->collector);
        return;
    }
    if (!*m->collector_cluster || !*m->collector_endpoint) {
        diag_error(ctx->diag, "collector_cluster and collector_endpoint must be specified when not "
                              "using collector_service");
        return;
    }
    z->collector = (struct collector){
        .cluster = arena_sv(ctx->arena, sv_cstr(m->collector_cluster)),
        .path = arena_sv(ctx->arena, sv_cstr(m->collector_endpoint)),
        .authority = arena_sv(ctx->arena, sv_cstr(*m->collector_hostname ? m->collector_hostname
                                                                         : m->collector_cluster))};
    if (!header_value_valid(z->collector.path)) {
        diag_error(ctx->diag, "collector_endpoint: invalid path '%s'", m->collector_endpoint);
    }
    if (!header_value_valid(z->collector.authority)) {
        diag_error(ctx->diag, "collector_hostname: invalid host '%s'", m->collector_hostname);
    }
}

static void compile_version(struct compile_ctx *ctx, const Trace__ZipkinConfig *m,
                            struct zipkin *z) {
    switch (m->collector_endpoint_version) {
    case TRACE__ZIPKIN_CONFIG__COLLECTOR_ENDPOINT_VERSION__HTTP_JSON:
        return;
    case TRACE__ZIPKIN_CONFIG__COLLECTOR_ENDPOINT_VERSION__HTTP_PROTO:
        z->is_proto = true;
        return;
    default: {
        DIAG_FIELD(ctx->diag, "collector_endpoint_version");
        diag_error(ctx->diag, "only HTTP_JSON and HTTP_PROTO are supported");
    }
    }
}

static void *compile(struct compile_ctx *ctx, const void *msg) {
    static const struct span_reporter_ops ops = {
        .send = send_report, .sent = sent, .dropped = dropped};
    static const struct span_reporter_limits limits = {
        .min_flush_key = SV_INIT("tracing.zipkin.min_flush_spans"),
        .interval_key = SV_INIT("tracing.zipkin.flush_interval_ms"),
        .min_flush = MIN_FLUSH_SPANS,
        .interval_ms = FLUSH_INTERVAL_MS,
        .spans_max = SPANS_MAX};
    const Trace__ZipkinConfig *m = msg;
    unsigned before = diag_errors(ctx->diag);
    struct zipkin *z = arena_new(ctx->arena, struct zipkin);
    compile_collector(ctx, m, z);
    compile_version(ctx, m, z);
    z->is_128bit = m->trace_id_128bit;
    z->is_shared = !m->shared_span_context || m->shared_span_context->value;
    z->splits = m->split_spans_for_request;
    z->has_w3c = m->trace_context_option ==
                 TRACE__ZIPKIN_CONFIG__TRACE_CONTEXT_OPTION__USE_B3_WITH_W3C_PROPAGATION;
    z->has_timestamp_ids = m->timestamp_trace_ids;
    if (ctx->stats) {
        z->stats = stats_scope_get(ctx->stats, &zipkin_stats_group, SV("tracing.zipkin."));
        arena_on_fini(ctx->arena, (void (*)(void *))stats_scope_unref, z->stats);
    }
    struct tracer *owner = CONTAINER_OF(ctx->arena, struct tracer, arena);
    z->reporter = span_reporter_new(ctx->arena, &owner->shared, &ops, &limits, z);
    return diag_errors(ctx->diag) == before ? z : NULL;
}

static sv required_cluster(const void *config) {
    return ((const struct zipkin *)config)->collector.cluster;
}

const struct tracer_type zipkin_tracer = {
    .name = "envoy.tracers.zipkin",
    .type_url = "envoy.config.trace.v3.ZipkinConfig",
    .has_short_ids = true,
    .hides_span_id = true, /* as Envoy's does */
    .compile = compile,
    .required_cluster = required_cluster,
    .start = start,
    .inject = inject,
    .report = report,
};
