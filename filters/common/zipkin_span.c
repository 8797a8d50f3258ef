/* See the header. */
#include "filters/common/zipkin_span.h"

#include "filters/common/collector.h"
#include "protos/any.h"
#include "protos/gen/zipkin.pb-c.h"
#include "proxy/base/json.h"

#define ID_BYTES 8u
#define IPV4_BYTES 4u

/* Empty ones are left out, and all but the last of a key. */
static bool is_told(const struct trace_report *r, unsigned i) {
    const struct trace_tag *t = &r->tags[i];
    bool told = t->key.n && t->value.n;
    for (unsigned j = i + 1; told && j < r->tags_n; j++) {
        told = !sv_eq(r->tags[j].key, t->key) || !r->tags[j].value.n;
    }
    return told;
}

static struct trace_event last_event(const struct trace_span *s, const struct trace_report *r) {
    return (struct trace_event){s->is_client ? SV("cr") : SV("ss"), r->end_us};
}

static uint64_t duration_us(const struct trace_span *s, const struct trace_report *r) {
    return r->end_us > s->start_us ? r->end_us - s->start_us : 0;
}

/* ---- JSON ---- */

static void write_event(struct json_writer *w, const struct trace_event *e) {
    json_obj(w);
    json_key(w, SV("timestamp"));
    json_u64(w, e->wall_us);
    json_key(w, SV("value"));
    json_str(w, e->name);
    json_end(w);
}

static void write_endpoint(struct json_writer *w, const struct zipkin_endpoint *e) {
    json_key(w, SV("localEndpoint"));
    json_obj(w);
    json_key(w, SV("serviceName"));
    json_str(w, e->service_name);
    if (e->address->family) {
        char text[ADDR_STR_MAX];
        json_key(w, e->address->family == AF_INET ? SV("ipv4") : SV("ipv6"));
        json_str(w, sv_from(text, addr_ip_str(e->address, text)));
        json_key(w, SV("port"));
        json_u64(w, e->address->port);
    }
    json_end(w);
}

static void write_string(struct json_writer *w, const char *key, sv value) {
    json_key(w, sv_cstr(key));
    json_str(w, value);
}

void zipkin_write_json(const struct trace_span *s, const struct trace_report *r,
                       const struct zipkin_endpoint *e, struct buf *out) {
    struct json_writer w;
    json_begin(&w, out, 0);
    json_obj(&w);
    write_string(&w, "traceId", trace_id_text(s, r->arena));
    write_string(&w, "id", trace_hex_text(s->id, r->arena));
    if (s->has_parent) {
        write_string(&w, "parentId", trace_hex_text(s->parent_id, r->arena));
    }
    write_string(&w, "name", s->name);
    write_string(&w, "kind", s->is_client ? SV("CLIENT") : SV("SERVER"));
    json_key(&w, SV("timestamp"));
    json_u64(&w, s->start_us);
    json_key(&w, SV("duration"));
    json_u64(&w, duration_us(s, r));
    write_endpoint(&w, e);
    json_key(&w, SV("annotations"));
    json_arr(&w);
    for (unsigned i = 0; i < r->events_n; i++) {
        write_event(&w, &r->events[i]);
    }
    struct trace_event last = last_event(s, r);
    write_event(&w, &last);
    json_end(&w);
    json_key(&w, SV("tags"));
    json_obj(&w);
    for (unsigned i = 0; i < r->tags_n; i++) {
        if (is_told(r, i)) {
            json_key(&w, r->tags[i].key);
            json_str(&w, r->tags[i].value);
        }
    }
    json_end(&w);
    if (s->is_shared) {
        json_key(&w, SV("shared"));
        json_bool(&w, true);
    }
    json_end(&w);
}

/* ---- protobuf ---- */

static ProtobufCBinaryData id_bytes(uint64_t high, uint64_t low, struct arena *a) {
    uint8_t *p = (uint8_t *)arena_alloc(a, 2 * ID_BYTES);
    size_t n = 0;
    for (unsigned i = 0; high && i < ID_BYTES; i++) {
        p[n++] = (uint8_t)(high >> (56 - 8 * i));
    }
    for (unsigned i = 0; i < ID_BYTES; i++) {
        p[n++] = (uint8_t)(low >> (56 - 8 * i));
    }
    return (ProtobufCBinaryData){.len = n, .data = p};
}

static Zipkin__Endpoint *endpoint_message(const struct zipkin_endpoint *e, struct arena *a) {
    Zipkin__Endpoint *m = arena_new(a, Zipkin__Endpoint);
    zipkin__endpoint__init(m);
    m->service_name = collector_text(a, e->service_name);
    uint8_t *ip = (uint8_t *)arena_alloc(a, sizeof(e->address->ip));
    memcpy(ip, e->address->ip, sizeof(e->address->ip));
    if (e->address->family == AF_INET) {
        m->ipv4 = (ProtobufCBinaryData){.len = IPV4_BYTES, .data = ip};
    } else if (e->address->family == AF_INET6) {
        m->ipv6 = (ProtobufCBinaryData){.len = sizeof(e->address->ip), .data = ip};
    }
    m->port = e->address->port;
    return m;
}

static void add_annotations(Zipkin__Span *m, const struct trace_span *s,
                            const struct trace_report *r) {
    m->annotations = arena_new_array(r->arena, Zipkin__Annotation *, r->events_n + 1);
    for (unsigned i = 0; i <= r->events_n; i++) {
        struct trace_event e = i < r->events_n ? r->events[i] : last_event(s, r);
        Zipkin__Annotation *a = arena_new(r->arena, Zipkin__Annotation);
        zipkin__annotation__init(a);
        a->timestamp = e.wall_us;
        a->value = collector_text(r->arena, e.name);
        m->annotations[m->n_annotations++] = a;
    }
}

static void add_tags(Zipkin__Span *m, const struct trace_report *r) {
    m->tags = arena_new_array(r->arena, Zipkin__Span__TagsEntry *, r->tags_n);
    for (unsigned i = 0; i < r->tags_n; i++) {
        if (is_told(r, i)) {
            Zipkin__Span__TagsEntry *t = arena_new(r->arena, Zipkin__Span__TagsEntry);
            zipkin__span__tags_entry__init(t);
            t->key = collector_text(r->arena, r->tags[i].key);
            t->value = collector_text(r->arena, r->tags[i].value);
            m->tags[m->n_tags++] = t;
        }
    }
}

void zipkin_write_proto(const struct trace_span *s, const struct trace_report *r,
                        const struct zipkin_endpoint *e, struct buf *out) {
    Zipkin__Span m = ZIPKIN__SPAN__INIT;
    m.trace_id = id_bytes(s->trace_high, s->trace_low, r->arena);
    m.id = id_bytes(0, s->id, r->arena);
    if (s->has_parent) {
        m.parent_id = id_bytes(0, s->parent_id, r->arena);
    }
    m.kind = s->is_client ? ZIPKIN__SPAN__KIND__CLIENT : ZIPKIN__SPAN__KIND__SERVER;
    m.name = collector_text(r->arena, s->name);
    m.timestamp = s->start_us;
    m.duration = duration_us(s, r);
    m.local_endpoint = endpoint_message(e, r->arena);
    m.shared = s->is_shared;
    add_annotations(&m, s, r);
    add_tags(&m, r);
    Zipkin__ListOfSpans list = ZIPKIN__LIST_OF_SPANS__INIT;
    Zipkin__Span *one = &m;
    list.n_spans = 1;
    list.spans = &one;
    buf_append_sv(out, proto_pack(&list.base, r->arena));
}
