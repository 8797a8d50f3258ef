/* OTLP's bytes: one span, and the export request around many.
 * Threads: pure functions. Spec: opentelemetry/proto/collector/trace/v1. */
#ifndef SLUICE_FILTERS_OTLP_H
#define SLUICE_FILTERS_OTLP_H

#include "proxy/api/tracer.h"
#include "proxy/base/buf.h"

/* Append the span as one `spans` member of its scope. */
void otlp_write_span(const struct trace_span *s, const struct trace_report *r, struct buf *out);
/* The ExportTraceServiceRequest of these spans; takes them. resource, scope: framed members, as
 * otel_resource.h makes them. */
void otlp_write_request(sv resource, sv scope, struct buf *spans, struct buf *out);

#endif
