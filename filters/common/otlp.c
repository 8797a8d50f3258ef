/* See the header. scope_spans was called instrumentation_library_spans when our descriptors were
 * made: the same bytes. A span's status follows the semantic conventions for HTTP and gRPC. */
#include "filters/common/otlp.h"

#include "filters/common/collector.h"
#include "protos/any.h"
#include "protos/gen/otel_trace.pb-c.h"
#include "proxy/base/grpc_status.h"

#define ID_BYTES 8u
#define NANOS_PER_US 1000u
#define VARINT_MAX 10u
/* field number << 3 | wire type 2 */
#define MEMBER(number) (char)((number) << 3 | 2)

/* ---- frames ---- */

static size_t write_varint(uint64_t v, char *out) {
    size_t n = 0;
    while (v >= 0x80) {
        out[n++] = (char)(v | 0x80);
        v >>= 7;
    }
    out[n++] = (char)v;
    return n;
}

static void begin_member(char tag, size_t bytes, struct buf *out) {
    char head[1 + VARINT_MAX];
    head[0] = tag;
    buf_append(out, head, 1 + write_varint(bytes, head + 1));
}

static size_t member_bytes(size_t bytes) {
    char scratch[VARINT_MAX];
    return 1 + write_varint(bytes, scratch) + bytes;
}

/* ExportTraceServiceRequest{resource_spans(1){resource(1), …_spans(2){…_library(1), spans(2)…}}} */
void otlp_write_request(sv resource, sv scope, struct buf *spans, struct buf *out) {
    size_t library_spans = scope.n + buf_len(spans);
    begin_member(MEMBER(1), resource.n + member_bytes(library_spans), out);
    buf_append_sv(out, resource);
    begin_member(MEMBER(2), library_spans, out);
    buf_append_sv(out, scope);
    buf_move(out, spans);
}

/* ---- the span ---- */

static ProtobufCBinaryData id_bytes(uint64_t high, uint64_t low, bool is_long, struct arena *a) {
    uint8_t *p = (uint8_t *)arena_alloc(a, 2 * ID_BYTES);
    size_t n = 0;
    for (unsigned i = 0; is_long && i < ID_BYTES; i++) {
        p[n++] = (uint8_t)(high >> (56 - 8 * i));
    }
    for (unsigned i = 0; i < ID_BYTES; i++) {
        p[n++] = (uint8_t)(low >> (56 - 8 * i));
    }
    return (ProtobufCBinaryData){.len = n, .data = p};
}

static bool is_told(const struct trace_report *r, unsigned i) {
    bool told = r->tags[i].key.n != 0;
    for (unsigned j = i + 1; told && j < r->tags_n; j++) {
        told = !sv_eq(r->tags[j].key, r->tags[i].key);
    }
    return told;
}

static void add_attributes(OtelTrace__Span *m, const struct trace_report *r) {
    m->attributes = arena_new_array(r->arena, OtelCommon__KeyValue *, r->tags_n);
    for (unsigned i = 0; i < r->tags_n; i++) {
        if (!is_told(r, i)) {
            continue;
        }
        OtelCommon__AnyValue *v = arena_new(r->arena, OtelCommon__AnyValue);
        otel_common__any_value__init(v);
        v->value_case = OTEL_COMMON__ANY_VALUE__VALUE_STRING_VALUE;
        v->string_value = collector_text(r->arena, r->tags[i].value);
        OtelCommon__KeyValue *kv = arena_new(r->arena, OtelCommon__KeyValue);
        otel_common__key_value__init(kv);
        kv->key = collector_text(r->arena, r->tags[i].key);
        kv->value = v;
        m->attributes[m->n_attributes++] = kv;
    }
}

static void add_events(OtelTrace__Span *m, const struct trace_report *r) {
    m->events = arena_new_array(r->arena, OtelTrace__Span__Event *, r->events_n);
    for (unsigned i = 0; i < r->events_n; i++) {
        OtelTrace__Span__Event *e = arena_new(r->arena, OtelTrace__Span__Event);
        otel_trace__span__event__init(e);
        e->time_unix_nano = r->events[i].wall_us * NANOS_PER_US;
        e->name = collector_text(r->arena, r->events[i].name);
        m->events[m->n_events++] = e;
    }
}

/* A client's span fails with any error, a server's only with the server's. */
static bool http_fails(bool is_client, uint64_t code) {
    return code >= 500 || (is_client && code >= 400);
}

static bool grpc_fails(bool is_client, uint64_t code) {
    return is_client ? code != 0 : grpc_status_is_server_error(code);
}

/* By the tags, in their order. */
static void set_status(OtelTrace__Span *m, bool is_client, const struct trace_report *r) {
    for (unsigned i = 0; i < r->tags_n; i++) {
        bool is_http = sv_is(r->tags[i].key, "http.status_code");
        bool is_grpc = !is_http && sv_is(r->tags[i].key, "grpc.status_code");
        uint64_t code;
        if ((!is_http && !is_grpc) || !sv_to_u64(r->tags[i].value, &code)) {
            continue;
        }
        bool fails = is_http ? http_fails(is_client, code) : grpc_fails(is_client, code);
        if (!fails && is_http) {
            continue;
        }
        if (!m->status) {
            m->status = arena_new(r->arena, OtelTrace__Status);
            otel_trace__status__init(m->status);
        }
        m->status->code = fails ? OTEL_TRACE__STATUS__STATUS_CODE__STATUS_CODE_ERROR
                                : OTEL_TRACE__STATUS__STATUS_CODE__STATUS_CODE_UNSET;
    }
}

void otlp_write_span(const struct trace_span *s, const struct trace_report *r, struct buf *out) {
    OtelTrace__Span m = OTEL_TRACE__SPAN__INIT;
    m.trace_id = id_bytes(s->trace_high, s->trace_low, true, r->arena);
    m.span_id = id_bytes(0, s->id, false, r->arena);
    if (s->has_parent) {
        m.parent_span_id = id_bytes(0, s->parent_id, false, r->arena);
    }
    m.trace_state = collector_text(r->arena, s->state);
    m.name = collector_text(r->arena, s->name);
    m.kind = s->is_client ? OTEL_TRACE__SPAN__SPAN_KIND__SPAN_KIND_CLIENT
                          : OTEL_TRACE__SPAN__SPAN_KIND__SPAN_KIND_SERVER;
    m.start_time_unix_nano = s->start_us * NANOS_PER_US;
    m.end_time_unix_nano = (r->end_us > s->start_us ? r->end_us : s->start_us) * NANOS_PER_US;
    add_attributes(&m, r);
    add_events(&m, r);
    set_status(&m, s->is_client, r);
    sv bytes = proto_pack(&m.base, r->arena);
    begin_member(MEMBER(2), bytes.n, out);
    buf_append_sv(out, bytes);
}
