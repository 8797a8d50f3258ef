/* Tracing of requests: which are traced, their spans, and how the trace goes on to the upstream.
 * Threads: config immutable; the rest worker-local. Spec: HttpConnectionManager.Tracing,
 * route.v3.Tracing and Decorator, UuidRequestIdConfig; Envoy's HttpTracerUtility.
 * Costs of a request that is not traced: a look at its id, and the context's headers when there is
 * a provider. Files: tracing_compile.c, tracing.c (decision, life), tracing_span.c (tags). */
#ifndef SLUICE_REQUEST_TRACING_H
#define SLUICE_REQUEST_TRACING_H

#include "proxy/api/matcher.h"
#include "proxy/observe/trace.h"
#include "proxy/stats/stats.h"

#define TRACING_STATS(P, C, G, H, T) \
    C(P, client_enabled)             \
    C(P, health_check) C(P, not_traceable) C(P, random_sampling) C(P, service_forced)
STATS_ENUM(TRACING, TRACING_STATS);
extern const struct stats_group tracing_stats_group;

struct tracing_config {
    struct tracer *tracer;                   /* a ref; NULL: spans go nowhere */
    struct fraction client, random, overall; /* of all requests */
    uint32_t max_path_length;
    bool is_verbose, spawns_upstream_span, omits_propagation;
    const struct custom_tags *tags;
    const struct formatter *operation, *upstream_operation; /* NULL: not set */
    sv node_id, node_zone;
};
/* msg: HttpConnectionManager.Tracing. NULL: errors added. */
const struct tracing_config *tracing_compile(struct compile_ctx *ctx, const void *msg);

/* Why a request is traced; x-request-id carries it as its 15th character. */
enum trace_reason { TRACE_NOT_TRACEABLE, TRACE_SAMPLED, TRACE_SERVICE_FORCED, TRACE_CLIENT_FORCED };

/* Of one stream, in its arena; only where the connection manager traces. */
struct stream_tracing {
    const struct tracing_config *cfg;
    enum trace_reason reason;
    bool has_span, is_egress;
    bool has_operation; /* by format: decorators are not looked at */
    bool decorates_response;
    sv decorated; /* what the route's decorator says; empty: nothing, or it was overridden */
    struct trace_span span;
};

struct stream;
struct router;
/* Before filters see the request, once it is routed. Does nothing without tracing. */
void tracing_begin(struct stream *s);
/* The response's headers are about to be sent. */
void tracing_on_response(struct stream *s, struct headers *h);
/* The stream is over: counts, and reports its span. */
void tracing_end(struct stream *s);

/* One attempt of the router: its span, if it has one of its own. */
void tracing_attempt_begin(struct router *r);
/* Write the context into the headers that are about to be sent. */
void tracing_inject(struct router *r);
struct trace_attempt_end {
    uint64_t flags;
    const char *reset_reason; /* NULL: it was not reset */
    bool is_cancelled;        /* by us */
};
/* Idempotent. */
void tracing_attempt_end(struct router *r, const struct trace_attempt_end *how);

/* --- tracing_span.c --- */
void tracing_report_downstream(const struct stream *s);
void tracing_report_upstream(const struct router *r, const struct trace_attempt_end *how);

#endif
