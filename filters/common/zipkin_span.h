/* Zipkin's span, version 2, as JSON and as protobuf.
 * Threads: pure functions. Spec: zipkin2-api.yaml, zipkin.proto; Envoy's members of it. */
#ifndef SLUICE_FILTERS_ZIPKIN_SPAN_H
#define SLUICE_FILTERS_ZIPKIN_SPAN_H

#include "proxy/api/telemetry.h"
#include "proxy/api/tracer.h"
#include "proxy/base/buf.h"

/* Where a span was made. */
struct zipkin_endpoint {
    sv service_name;
    const struct addr *address; /* family 0: not known */
};

/* Append the span: one JSON object, or one `spans` member of ListOfSpans. */
void zipkin_write_json(const struct trace_span *s, const struct trace_report *r,
                       const struct zipkin_endpoint *e, struct buf *out);
void zipkin_write_proto(const struct trace_span *s, const struct trace_report *r,
                        const struct zipkin_endpoint *e, struct buf *out);

#endif
