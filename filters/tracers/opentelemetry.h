/* What the OpenTelemetry tracer's files share. Private to filters/tracers. */
#ifndef SLUICE_FILTERS_OPENTELEMETRY_H
#define SLUICE_FILTERS_OPENTELEMETRY_H

#include "filters/common/trace_context.h"
#include "proxy/api/tracer.h"
#include "proxy/base/buf.h"

struct otel_sampler;
/* msg: core.v3.TypedExtensionConfig. NULL: errors added. */
const struct otel_sampler *otel_sampler_compile(struct compile_ctx *ctx, const void *msg);
/* Is this trace sampled? parent NULL: it begins here. */
bool otel_sampler_holds(const struct otel_sampler *s, uint64_t trace_high,
                        const struct trace_context *parent);

/* The bytes of every export before the spans: ResourceSpans.resource, and its
 * InstrumentationLibrarySpans.instrumentation_library, framed as members. msg:
 * config.trace.v3.OpenTelemetryConfig. False: errors added. */
bool otel_resource_compile(struct compile_ctx *ctx, const void *msg, sv *resource, sv *scope);

/* Append the span as one `spans` member of InstrumentationLibrarySpans. */
void otel_write_span(const struct trace_span *s, const struct trace_report *r, struct buf *out);
/* The ExportTraceServiceRequest of these spans; takes them. */
void otel_write_request(sv resource, sv scope, struct buf *spans, struct buf *out);

#endif
