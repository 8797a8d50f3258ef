/* Which requests are traced, and the life of their spans. See the header.
 * Threads: worker-local. Not here: tags (tracing_span.c), contexts and reports (the tracer). */
#include "proxy/request/tracing.h"

#include "proxy/base/runtime.h"
#include "proxy/observe/formatter.h"
#include "proxy/request/router.h"
#include "proxy/request/stream.h"

#define UUID_BYTES 36u
#define REASON_AT 14u
#define REQUEST_ID_PARTS 10000u
#define DIRECTION_OUTBOUND 2 /* core.v3.TrafficDirection */

/* ---- the request id ---- */

static enum trace_reason reason_in(const struct stream *s) {
    sv id = s->info.request_id;
    switch (s->cfg->pack_trace_reason && id.n == UUID_BYTES ? id.p[REASON_AT] : 0) {
    case '9':
        return TRACE_SAMPLED;
    case 'a':
        return TRACE_SERVICE_FORCED;
    case 'b':
        return TRACE_CLIENT_FORCED;
    default:
        return TRACE_NOT_TRACEABLE;
    }
}

static void pack_reason(struct stream *s, enum trace_reason why) {
    static const char marks[] = {[TRACE_NOT_TRACEABLE] = '4',
                                 [TRACE_SAMPLED] = '9',
                                 [TRACE_SERVICE_FORCED] = 'a',
                                 [TRACE_CLIENT_FORCED] = 'b'};
    sv id = s->info.request_id;
    if (!s->cfg->pack_trace_reason || id.n != UUID_BYTES || id.p[REASON_AT] == marks[why]) {
        return;
    }
    char *p = arena_cstr(&s->arena, id);
    p[REASON_AT] = marks[why];
    s->info.request_id = sv_from(p, id.n);
    headers_set(&s->request, HDR_x_request_id, s->info.request_id);
}

/* The id's first eight digits as a number. */
static bool id_number(sv id, uint64_t *out) {
    uint64_t v = 0;
    for (unsigned i = 0; i < 8; i++) {
        int digit = id.n == UUID_BYTES ? ascii_hex(id.p[i]) : -1;
        if (digit < 0) {
            return false;
        }
        v = v << 4 | (unsigned)digit;
    }
    *out = v;
    return true;
}

/* ---- the decision ---- */

/* `of` is the connection manager's, whose key of the runtime holds for routes' too. */
static bool holds(const struct fraction *of, const struct fraction *route, uint64_t random) {
    const struct fraction *f = route ? route : of;
    return runtime_fraction(of->runtime_key, f->numerator, f->denominator, random);
}

static enum trace_reason choose(struct stream *s, const struct tracing_config *c, uint64_t random,
                                const struct route_tracing *rt) {
    if (headers_has(&s->request, HDR_x_client_trace_id) &&
        holds(&c->client, rt ? &rt->client : NULL, rng_u64(&s->hcm->loop->rng))) {
        return TRACE_CLIENT_FORCED;
    }
    if (headers_has(&s->request, HDR_x_envoy_force_trace)) {
        return TRACE_SERVICE_FORCED;
    }
    return holds(&c->random, rt ? &rt->random : NULL, random) ? TRACE_SAMPLED : TRACE_NOT_TRACEABLE;
}

static const struct route_tracing *route_tracing(const struct stream *s) {
    return s->route ? s->route->extra->tracing : NULL;
}

static enum trace_reason decide(struct stream *s, const struct tracing_config *c) {
    uint64_t random;
    if (!s->cfg->samples_by_request_id) {
        return TRACE_SAMPLED;
    }
    if (!id_number(s->info.request_id, &random)) {
        return TRACE_NOT_TRACEABLE;
    }
    random %= REQUEST_ID_PARTS;
    const struct route_tracing *rt = route_tracing(s);
    enum trace_reason had = reason_in(s), why = had;
    if (had == TRACE_NOT_TRACEABLE) {
        why = choose(s, c, random, rt);
    }
    if (why != TRACE_NOT_TRACEABLE && !holds(&c->overall, rt ? &rt->overall : NULL, random)) {
        why = TRACE_NOT_TRACEABLE;
    }
    if (why != had) {
        pack_reason(s, why);
    }
    return why;
}

/* ---- the request's own span ---- */

static sv formatted(const struct formatter *f, struct stream *s) {
    struct buf BUF_AUTO text;
    buf_init(&text);
    formatter_text(f, &s->info, &text);
    return buf_empty(&text) ? SV_NULL : arena_sv(&s->arena, buf_pullup(&text, buf_len(&text)));
}

static const struct formatter *operation_of(const struct stream *s,
                                            const struct tracing_config *c) {
    const struct route_tracing *rt = route_tracing(s);
    return rt && rt->operation ? rt->operation : c->operation;
}

static void start_span(struct stream *s, struct stream_tracing *t) {
    const struct tracer *tracer = t->cfg->tracer;
    sv host = headers_get(&s->request, HDR_authority);
    struct trace_start how = {
        .operation =
            t->is_egress ? arena_printf(&s->arena, "egress %.*s", SV_ARG(host)) : SV("ingress"),
        .host = host,
        .is_traced = t->reason != TRACE_NOT_TRACEABLE,
        .is_egress = t->is_egress,
        .spawns_upstream_span = t->cfg->spawns_upstream_span,
        .rng = &s->hcm->loop->rng,
        .arena = &s->arena};
    t->span.tracer = tracer;
    t->span.start_us = s->info.start_wall_us;
    t->span.has_short_id = tracer->type->has_short_ids;
    t->has_span = tracer->type->start(tracer->config, &how, &s->request, &t->span);
    if (t->has_span) {
        s->info.trace_id = trace_id_text(&t->span, &s->arena);
        s->info.span_id =
            tracer->type->hides_span_id ? SV_NULL : trace_hex_text(t->span.id, &s->arena);
    }
}

/* What the route's decorator and the peer say of the span's name. */
static void decorate_request(struct stream *s, struct stream_tracing *t) {
    const struct route_extra *x = s->route ? s->route->extra : NULL;
    bool propagates = x && x->decorator_propagate;
    if (x && x->decorator_operation.n) {
        t->decorated = t->span.name = x->decorator_operation;
    }
    if (t->is_egress) {
        if (t->decorated.n && propagates) {
            headers_set(&s->request, HDR_x_envoy_decorator_operation, t->decorated);
        }
        return;
    }
    struct header *asked = headers_find(&s->request, HDR_x_envoy_decorator_operation);
    if (asked) {
        if (asked->value.n) {
            t->span.name = asked->value;
            t->decorated = SV_NULL;
        }
        headers_remove(&s->request, HDR_x_envoy_decorator_operation);
    }
    t->decorates_response = t->decorated.n && propagates;
}

void tracing_begin(struct stream *s) {
    const struct tracing_config *c = s->cfg->tracing;
    if (!c) {
        return;
    }
    struct stream_tracing *t = arena_new(&s->arena, struct stream_tracing);
    s->tracing = t;
    t->cfg = c;
    t->reason = decide(s, c);
    t->is_egress = s->info.cx->traffic_direction == DIRECTION_OUTBOUND;
    s->info.is_traced = t->reason != TRACE_NOT_TRACEABLE;
    if (c->tracer) {
        start_span(s, t);
    }
    t->has_operation = operation_of(s, c) != NULL;
    if (!t->has_operation) {
        decorate_request(s, t);
    }
}

void tracing_on_response(struct stream *s, struct headers *h) {
    struct stream_tracing *t = s->tracing;
    if (!t || t->has_operation) {
        return;
    }
    if (t->decorates_response) {
        headers_set(h, HDR_x_envoy_decorator_operation, t->decorated);
    }
    if (!t->is_egress) {
        return;
    }
    sv asked = headers_get(h, HDR_x_envoy_decorator_operation);
    if (asked.n) {
        t->span.name = arena_sv(&s->arena, asked);
    }
    headers_remove(h, HDR_x_envoy_decorator_operation);
}

/* A health check's span is not reported, unless its caller wants that. */
static void settle(const struct stream *s, struct trace_span *span) {
    if (s->info.is_health_check && span->is_decision_ours) {
        span->is_sampled = false;
    }
}

static void count(const struct stream *s, enum trace_reason why) {
    static const unsigned stats[] = {[TRACE_NOT_TRACEABLE] = TRACING_not_traceable,
                                     [TRACE_SAMPLED] = TRACING_random_sampling,
                                     [TRACE_SERVICE_FORCED] = TRACING_service_forced,
                                     [TRACE_CLIENT_FORCED] = TRACING_client_enabled};
    struct stats_shard *st = stats_shard(s->cfg->tracing_stats, s->hcm->loop->thread_index);
    if (s->info.is_health_check) {
        stats_inc(st, TRACING_health_check);
        stats_inc(st, TRACING_not_traceable);
        return;
    }
    stats_inc(st, stats[why]);
}

void tracing_end(struct stream *s) {
    struct stream_tracing *t = s->tracing;
    if (!t) {
        return;
    }
    count(s, t->reason);
    settle(s, &t->span);
    s->info.is_traced &= !s->info.is_health_check;
    if (!t->has_span || !t->span.is_sampled) {
        return;
    }
    const struct formatter *operation = operation_of(s, t->cfg);
    sv name = operation ? formatted(operation, s) : SV_NULL;
    if (name.n) {
        t->span.name = name;
    }
    tracing_report_downstream(s);
}

/* ---- attempts ---- */

static sv upstream_name(struct router *r, const struct tracing_config *c) {
    struct stream *s = r->base.stream;
    const struct route_tracing *rt = route_tracing(s);
    const struct formatter *f =
        rt && rt->upstream_operation ? rt->upstream_operation : c->upstream_operation;
    sv name = f ? formatted(f, s) : SV_NULL;
    return name.n ? name
                  : arena_printf(&s->arena, "router %.*s egress",
                                 SV_ARG(r->up.cluster->cfg->observability_name));
}

void tracing_attempt_begin(struct router *r) {
    struct stream *s = r->base.stream;
    struct stream_tracing *t = s->tracing;
    if (!t || !t->has_span || !t->cfg->spawns_upstream_span) {
        return;
    }
    settle(s, &t->span);
    struct loop *l = s->hcm->loop;
    struct trace_span *span = arena_new(&s->arena, struct trace_span);
    *span = t->span;
    span->id = rng_u64(&l->rng);
    span->parent_id = t->span.id;
    span->has_parent = true;
    span->is_client = true;
    span->is_shared = false;
    span->start_us = loop_wall_us(l, loop_now_us(l));
    span->name = span->is_sampled ? upstream_name(r, t->cfg) : SV_NULL;
    r->span = span;
}

void tracing_inject(struct router *r) {
    struct stream *s = r->base.stream;
    struct stream_tracing *t = s->tracing;
    if (!t || !t->has_span || t->cfg->omits_propagation) {
        return;
    }
    settle(s, &t->span);
    const struct trace_span *span = r->span ? r->span : &t->span;
    span->tracer->type->inject(span, r->headers);
}

void tracing_attempt_end(struct router *r, const struct trace_attempt_end *how) {
    if (r->span && r->span->is_sampled) {
        tracing_report_upstream(r, how);
    }
    r->span = NULL;
}
