/* Unpacking through the wire check into an arena, and what google.protobuf.Any and TypedStruct
 * hold.
 * Threads: the arena's owner.
 * Spec: google.protobuf.Any; udpa.type.v1.TypedStruct, xds.type.v3.TypedStruct.
 * Not here: xds Resource wrappers (xds/), constraints (pb_rules.c), which extension a type belongs
 * to (filters/). */
#include "protos/any.h"

#include "protos/findings.h"
#include "protos/pb_json.h"
#include "protos/reflect.h"
#include "protos/wire.h"

static void *on_alloc(void *arena, size_t n) { return arena_alloc((struct arena *)arena, n); }

static void on_free(void *arena, void *p) {
    (void)arena; /* the arena frees all at once */
    (void)p;
}

static ProtobufCMessage *unpack(const struct proto_type *t, sv wire, struct arena *a,
                                struct diag *d) {
    if (!wire_check(t, wire, d)) {
        return NULL;
    }
    ProtobufCAllocator allocator = {on_alloc, on_free, a};
    static const uint8_t nothing[1];
    const uint8_t *bytes = wire.n ? (const uint8_t *)wire.p : nothing;
    ProtobufCMessage *m = protobuf_c_message_unpack(t->desc, &allocator, wire.n, bytes);
    if (!m) {
        diag_error(d, "could not parse %s", t->name);
    }
    return m;
}

ProtobufCMessage *proto_unpack(const ProtobufCMessageDescriptor *desc, sv wire, struct arena *a,
                               struct diag *d) {
    const struct proto_type *t = proto_type_of(desc);
    CHECK(t != NULL);
    return unpack(t, wire, a, d);
}

sv proto_pack(const ProtobufCMessage *m, struct arena *a) {
    uint8_t *out = arena_alloc(a, protobuf_c_message_get_packed_size(m));
    return sv_from(out, protobuf_c_message_pack(m, out));
}

sv any_url_name(sv url) {
    size_t slash = sv_rfind(url, '/');
    return slash == SIZE_MAX ? url : sv_skip(url, slash + 1);
}

const struct proto_type *any_type(sv url) { return proto_type_find(any_url_name(url)); }

/* The two TypedStructs are one message by two names: type_url = 1, value = 2. */
struct typed_struct {
    sv url;
    const Pb__Struct *value;
};

static bool read_typed_struct(const struct proto_type *t, const ProtobufCMessage *m,
                              struct typed_struct *out) {
    if (t->kind != PROTO_KIND_TYPED_STRUCT) {
        return false;
    }
    out->url = reflect_string(reflect_member(m, &t->desc->fields[0]));
    out->value =
        (const Pb__Struct *)(const void *)reflect_message(reflect_member(m, &t->desc->fields[1]));
    return true;
}

static bool unregistered(sv name, sv url, struct diag *d) {
    sv type_name = any_url_name(url);
    return diag_error(d, "Didn't find a registered implementation for '%.*s' with type URL: '%.*s'",
                      SV_ARG(name), SV_ARG(type_name));
}

static ProtobufCMessage *from_typed_struct(const struct typed_struct *ts, sv name,
                                           enum pb_json_unknown unknown, struct arena *a,
                                           struct diag *d) {
    const struct proto_type *t = any_type(ts->url);
    if (!t || t->kind == PROTO_KIND_TYPED_STRUCT) {
        unregistered(name, ts->url, d);
        return NULL;
    }
    return pb_json_from_struct(t, ts->value, unknown, a, d);
}

/* False when m has unknown fields and they are errors. */
static bool tell_unknown_fields(const ProtobufCMessage *m, enum pb_json_unknown unknown,
                                struct diag *d) {
    bool as_errors = unknown == PB_JSON_UNKNOWN_ERROR;
    size_t found = unknown == PB_JSON_UNKNOWN_SKIP ? 0 : findings_unknown_fields(m, as_errors, d);
    return !as_errors || found == 0;
}

ProtobufCMessage *any_unpack_with(const Pb__Any *any, sv name, enum pb_json_unknown unknown,
                                  struct arena *a, struct diag *d) {
    sv url = any ? sv_cstr(any->type_url) : SV_NULL;
    const struct proto_type *t = any_type(url);
    if (!t) {
        unregistered(name, url, d);
        return NULL;
    }
    ProtobufCMessage *m = unpack(t, sv_from(any->value.data, any->value.len), a, d);
    struct typed_struct ts;
    if (m && read_typed_struct(t, m, &ts)) {
        return from_typed_struct(&ts, name, unknown, a, d);
    }
    return m && tell_unknown_fields(m, unknown, d) ? m : NULL;
}

ProtobufCMessage *any_unpack(const Pb__Any *any, sv name, struct arena *a, struct diag *d) {
    return any_unpack_with(any, name, PB_JSON_UNKNOWN_SKIP, a, d);
}

ProtobufCMessage *any_unpack_as(const Pb__Any *any, const ProtobufCMessageDescriptor *desc, sv name,
                                struct arena *a, struct diag *d) {
    ProtobufCMessage *m = any_unpack(any, name, a, d);
    if (m && m->descriptor != desc) {
        diag_error(d, "'%.*s' is configured by %s, not by %s", SV_ARG(name), desc->name,
                   m->descriptor->name);
        return NULL;
    }
    return m;
}

sv any_inner_name(const Pb__Any *any, struct arena *a) {
    sv url = any ? sv_cstr(any->type_url) : SV_NULL;
    const struct proto_type *t = any_type(url);
    if (!t || t->kind != PROTO_KIND_TYPED_STRUCT) {
        return any_url_name(url);
    }
    struct diag ignored;
    diag_init(&ignored);
    ProtobufCMessage *m = unpack(t, sv_from(any->value.data, any->value.len), a, &ignored);
    diag_fini(&ignored);
    struct typed_struct ts;
    return m && read_typed_struct(t, m, &ts) ? any_url_name(ts.url) : any_url_name(url);
}

Pb__Any *any_pack(const ProtobufCMessage *m, struct arena *a) {
    Pb__Any *any = arena_new(a, Pb__Any);
    pb__any__init(any);
    sv bytes = proto_pack(m, a);
    any->type_url = arena_printf(a, "type.googleapis.com/%s", m->descriptor->name).p;
    any->value.data = (uint8_t *)(uintptr_t)bytes.p;
    any->value.len = bytes.n;
    return any;
}
