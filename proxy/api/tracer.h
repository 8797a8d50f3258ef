/* Tracers: where the spans of requests go, and how a trace's context travels in headers.
 * The connection manager decides whether a request is traced and gathers its tags
 * (request/tracing.h); a tracer reads and writes the context and sends what it is told.
 * Spec: config.trace.v3.Tracing.Http, HttpConnectionManager.Tracing. Threads: compiled on the
 * config thread, immutable; spans are worker-local. */
#ifndef SLUICE_API_TRACER_H
#define SLUICE_API_TRACER_H

#include "proxy/api/compile.h"
#include "proxy/api/worker.h"
#include "proxy/base/rand.h"
#include "proxy/base/shared.h"
#include "proxy/http/headers.h"

struct tracer_type;
/* A provider's configuration; equal ones are one object in all listeners. */
struct tracer {
    struct shared shared;
    const struct tracer_type *type;
    const void *config;
    struct arena arena; /* owns config */
};

struct trace_span {
    const struct tracer *tracer;
    uint64_t trace_high, trace_low, id, parent_id; /* has_parent tells whether there is one */
    sv name;
    sv state;          /* tracestate, to be passed on; may be empty */
    uint64_t start_us; /* wall clock */
    bool has_short_id; /* as the tracer's type says */
    bool has_parent;
    bool is_client;        /* else a server's */
    bool is_shared;        /* the caller's span has the same id (Zipkin) */
    bool is_sampled;       /* it is to be reported */
    bool is_decision_ours; /* is_sampled is not what the caller said */
    bool uses_single_b3;   /* the caller sent one b3 header: so do we */
};

/* What a request's own span begins with. */
struct trace_start {
    sv operation; /* "ingress", or "egress" and the host */
    sv host;      /* :authority */
    bool is_traced, is_egress, spawns_upstream_span;
    struct rng *rng;
    struct arena *arena; /* of the stream */
};

struct trace_tag {
    sv key, value;
};
struct trace_event {
    sv name;
    uint64_t wall_us;
};
#define TRACE_EVENTS_MAX 8
/* What is told of a finished span; all of it borrowed. A key may come twice: the later holds. */
struct trace_report {
    const struct trace_tag *tags;
    unsigned tags_n;
    const struct trace_event *events; /* only of verbose ones */
    unsigned events_n;
    uint64_t end_us; /* wall clock */
    struct arena *arena;
};

struct tracer_type {
    const char *name;     /* "envoy.tracers.zipkin" */
    const char *type_url; /* full proto name of its message */
    bool has_short_ids;   /* a trace's id without an upper half is told by 16 digits */
    bool hides_span_id;   /* from logs (SPAN_ID) */
    /* in ctx->arena, the tracer's own; NULL: errors are in diag */
    void *(*compile)(struct compile_ctx *ctx, const void *msg);
    sv (*required_cluster)(const void *config); /* must exist; NULL: none need to */
    /* Fill in ids, decision, kind and name by the context in h. False: there is one but it cannot
     * be read; the request has no span and its headers stay as they are. */
    bool (*start)(const void *config, const struct trace_start *how, const struct headers *h,
                  struct trace_span *s);
    /* write the context into the headers of the request to the upstream; values in h->arena */
    void (*inject)(const struct trace_span *s, struct headers *h);
    /* only sampled spans; never blocks, never fails: what cannot be kept is counted */
    void (*report)(const struct trace_span *s, const struct trace_report *r, struct worker *w);
};

/* --- ids as text: observe/trace.c --- */
#define TRACE_ID_DIGITS 16u
void trace_hex_write(uint64_t v, char out[TRACE_ID_DIGITS]); /* lower case */
sv trace_hex_text(uint64_t v, struct arena *a);
/* Writes 16 or 32 digits, returns how many. */
size_t trace_id_write(const struct trace_span *s, char out[2 * TRACE_ID_DIGITS]);
sv trace_id_text(const struct trace_span *s, struct arena *a);

#endif
