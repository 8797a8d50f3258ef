/* A trace's context in headers: B3 in several headers or one, and W3C's traceparent.
 * Threads: pure functions. Spec: openzipkin/b3-propagation; W3C Trace Context level 1; what Envoy
 * makes of values that neither allows. Not here: which of them a tracer uses. */
#ifndef SLUICE_FILTERS_TRACE_CONTEXT_H
#define SLUICE_FILTERS_TRACE_CONTEXT_H

#include "proxy/api/tracer.h"

struct trace_context {
    uint64_t trace_high, trace_low, span, parent; /* parent 0: none */
    bool has_sampled, is_sampled;                 /* may be known without the rest */
};
enum trace_context_result {
    TRACE_CONTEXT_NONE,
    TRACE_CONTEXT_FOUND,
    TRACE_CONTEXT_BROKEN, /* it is there, but cannot be read */
};

enum trace_context_result trace_context_b3(const struct headers *h, struct trace_context *out);
/* Only the first traceparent is looked at. */
enum trace_context_result trace_context_w3c(const struct headers *h, struct trace_context *out);

/* Up to 16 hex digits of either case. False: none, more, or another character. */
bool trace_hex_parse(sv s, uint64_t *out);

/* As the caller did it: one b3 header or several. */
void trace_inject_b3(const struct trace_span *s, struct headers *h);
void trace_inject_traceparent(const struct trace_span *s, struct headers *h);

#endif
