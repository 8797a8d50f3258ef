/* Custom tags of spans: literals, environment, request headers, metadata, formatted values.
 * Threads: compiled on the config thread, immutable; values on workers.
 * Spec: type.tracing.v3.CustomTag. Not here: the tags every span has (request/tracing_span.c). */
#ifndef SLUICE_OBSERVE_TRACE_H
#define SLUICE_OBSERVE_TRACE_H

#include "proxy/api/tracer.h"
#include "proxy/observe/stream_info.h"

#define CUSTOM_TAGS_MAX 128u

struct custom_tags;
/* msgs: n pointers to type.tracing.v3.CustomTag. NULL without error when there are none. */
const struct custom_tags *custom_tags_compile(struct compile_ctx *ctx, const void *const *msgs,
                                              size_t n);
/* Those that have a value, and whose name `instead` (may be NULL) does not have. Returns how many
 * were written, at most CUSTOM_TAGS_MAX. t may be NULL: none. */
unsigned custom_tags_values(const struct custom_tags *t, const struct custom_tags *instead,
                            const struct stream_info *si, struct arena *a, struct trace_tag *out);

#endif
