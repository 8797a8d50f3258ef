/* What an OpenTelemetry tracer is configured with beside its collector: the resource that spans are
 * of, and samplers.
 * Threads: compiled on the config thread, immutable; sampling on workers. Spec:
 * extensions.tracers.opentelemetry.{resource_detectors,samplers}.v3. */
#ifndef SLUICE_FILTERS_OTEL_RESOURCE_H
#define SLUICE_FILTERS_OTEL_RESOURCE_H

#include "filters/common/trace_context.h"

struct otel_sampler;
/* msg: core.v3.TypedExtensionConfig. NULL: errors added. */
const struct otel_sampler *otel_sampler_compile(struct compile_ctx *ctx, const void *msg);
/* Is this trace sampled? parent NULL: it begins here. */
bool otel_sampler_holds(const struct otel_sampler *s, uint64_t trace_high,
                        const struct trace_context *parent);

/* The bytes that are before the spans of every export, framed as members: ResourceSpans.resource,
 * and the instrumentation scope (empty: none). msg: config.trace.v3.OpenTelemetryConfig. False:
 * errors added. */
bool otel_resource_compile(struct compile_ctx *ctx, const void *msg, sv *resource, sv *scope);

#endif
