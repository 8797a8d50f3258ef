/* Messages to JSON, as admin's config_dump prints them.
 * Threads: the writer's owner.
 * Spec: proto3 JSON mapping with original field names; udpa.annotations.sensitive for what is
 * redacted.
 * Not here: indentation and escaping (base/json.c), what is too long for one go
 * (pb_json_slices.c). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "protos/any.h"
#include "protos/pb_json_write.h"
#include "protos/pb_time.h"
#include "protos/reflect.h"
#include "proxy/base/base64.h"

void pb_json_write_base64(struct json_writer *w, sv bytes) {
    struct buf text BUF_AUTO;
    buf_init(&text);
    base64_encode(&text, bytes, BASE64_STANDARD);
    json_str(w, buf_pullup(&text, buf_len(&text)));
}

/* The fewest digits that read back as the same float. */
static void write_float(struct pb_json_out *o, float v) {
    if (!isfinite(v)) {
        json_double(o->w, (double)v);
        return;
    }
    char text[32];
    int n = 0;
    for (int digits = 6; digits <= 9; digits++) {
        n = snprintf(text, sizeof(text), "%.*g", digits, (double)v);
        if (strtof(text, NULL) == v) {
            break;
        }
    }
    json_raw(o->w, sv_from(text, (size_t)n));
}

static void write_enum(struct pb_json_out *o, const ProtobufCFieldDescriptor *f, int value) {
    const ProtobufCEnumDescriptor *e = reflect_enum_of(f);
    if (sv_is(sv_cstr(e->name), "google.protobuf.NullValue")) {
        json_put_null(o->w);
        return;
    }
    const ProtobufCEnumValue *named = protobuf_c_enum_descriptor_get_value(e, value);
    if (named) {
        json_str(o->w, sv_cstr(named->name));
    } else {
        json_i64(o->w, value);
    }
}

/* One value of field i of t. Hidden ones: strings and bytes redacted; the caller has left numbers
 * out. */
static void write_value(struct pb_json_out *o, const struct proto_type *t, unsigned i,
                        const void *v, bool is_hidden) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    switch (reflect_class_of(f->type)) {
    case REFLECT_SIGNED:
        (reflect_is_64bit(f->type) ? json_i64_str : json_i64)(o->w, reflect_i64(f->type, v));
        return;
    case REFLECT_UNSIGNED:
        (reflect_is_64bit(f->type) ? json_u64_str : json_u64)(o->w, reflect_u64(f->type, v));
        return;
    case REFLECT_REAL:
        if (f->type == PROTOBUF_C_TYPE_FLOAT) {
            write_float(o, *(const float *)v);
        } else {
            json_double(o->w, *(const double *)v);
        }
        return;
    case REFLECT_BOOL:
        json_bool(o->w, *(const protobuf_c_boolean *)v != 0);
        return;
    case REFLECT_ENUM:
        write_enum(o, f, *(const int *)v);
        return;
    case REFLECT_STRING:
        json_str(o->w, is_hidden ? PB_JSON_REDACTED : reflect_string(v));
        return;
    case REFLECT_BYTES:
        pb_json_write_base64(o->w, is_hidden ? PB_JSON_REDACTED : reflect_bytes(v));
        return;
    case REFLECT_MESSAGE:
        pb_json_write_message(o, proto_field_type(t, i), reflect_message(v), is_hidden);
        return;
    }
}

bool pb_json_shows_hidden(ProtobufCType type) {
    return type == PROTOBUF_C_TYPE_STRING || type == PROTOBUF_C_TYPE_BYTES ||
           type == PROTOBUF_C_TYPE_MESSAGE;
}

/* A map key as text; JSON has no other. */
static void write_key(struct pb_json_out *o, const ProtobufCFieldDescriptor *f, const void *v) {
    char text[32];
    int n = 0;
    switch (reflect_class_of(f->type)) {
    case REFLECT_STRING:
        json_key(o->w, reflect_string(v));
        return;
    case REFLECT_SIGNED:
        n = snprintf(text, sizeof(text), "%lld", (long long)reflect_i64(f->type, v));
        break;
    case REFLECT_BOOL:
        n = snprintf(text, sizeof(text), "%s", *(const protobuf_c_boolean *)v ? "true" : "false");
        break;
    default: /* unsigned; no other type can be a key */
        n = snprintf(text, sizeof(text), "%llu", (unsigned long long)reflect_u64(f->type, v));
        break;
    }
    json_key(o->w, sv_from(text, (size_t)n));
}

void pb_json_write_entry(struct pb_json_out *o, const struct proto_type *entry,
                         const ProtobufCMessage *e, bool is_hidden) {
    static const uint64_t zero[2];
    const ProtobufCFieldDescriptor *key = &entry->desc->fields[0], *value = &entry->desc->fields[1];
    bool is_cleared = is_hidden && !pb_json_shows_hidden(value->type);
    write_key(o, key, reflect_member(e, key));
    write_value(o, entry, 1, is_cleared ? zero : reflect_member(e, value), is_hidden);
}

static void write_map(struct pb_json_out *o, const struct proto_type *t, unsigned i,
                      const ProtobufCMessage *m, bool is_hidden) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    json_obj(o->w);
    for (size_t k = 0; k < reflect_count(m, f); k++) {
        pb_json_write_entry(o, proto_field_type(t, i), reflect_message(reflect_item(m, f, k)),
                            is_hidden);
    }
    json_end(o->w);
}

static void write_list(struct pb_json_out *o, const struct proto_type *t, unsigned i,
                       const ProtobufCMessage *m, bool is_hidden) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    json_arr(o->w);
    for (size_t k = 0; k < reflect_count(m, f); k++) {
        write_value(o, t, i, reflect_item(m, f, k), is_hidden);
    }
    json_end(o->w);
}

static bool is_default_written(const struct pb_json_out *o, const ProtobufCFieldDescriptor *f) {
    bool has_presence = f->type == PROTOBUF_C_TYPE_MESSAGE || reflect_in_oneof(f);
    return (o->flags & PB_JSON_DEFAULTS) && (reflect_is_repeated(f) || !has_presence);
}

void pb_json_write_field(struct pb_json_out *o, const struct proto_type *t, unsigned i,
                         const ProtobufCMessage *m, bool is_hidden) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    if (!reflect_has(m, f) && !is_default_written(o, f)) {
        return;
    }
    is_hidden |= (o->flags & PB_JSON_REDACT) && (t->fields[i].flags & PROTO_FIELD_SENSITIVE);
    if (is_hidden && !pb_json_shows_hidden(f->type)) {
        return;
    }
    json_key(o->w, sv_cstr(f->name));
    if (t->fields[i].flags & PROTO_FIELD_MAP) {
        write_map(o, t, i, m, is_hidden);
    } else if (reflect_is_repeated(f)) {
        write_list(o, t, i, m, is_hidden);
    } else {
        write_value(o, t, i, reflect_member(m, f), is_hidden && reflect_has(m, f));
    }
}

static void write_fields(struct pb_json_out *o, const struct proto_type *t,
                         const ProtobufCMessage *m, bool is_hidden) {
    for (unsigned i = 0; m && i < t->desc->n_fields; i++) {
        pb_json_write_field(o, t, i, m, is_hidden);
    }
}

static void write_time(struct pb_json_out *o, const struct proto_type *t, const ProtobufCMessage *m,
                       bool is_hidden) {
    struct pb_time time = {0, 0};
    if (m && !is_hidden) {
        time.seconds = reflect_i64(PROTOBUF_C_TYPE_INT64, reflect_member(m, &t->desc->fields[0]));
        time.nanos =
            (int32_t)reflect_i64(PROTOBUF_C_TYPE_INT32, reflect_member(m, &t->desc->fields[1]));
    }
    char text[PB_TIME_TEXT_MAX];
    size_t n = t->kind == PROTO_KIND_DURATION ? pb_duration_format(time, text)
                                              : pb_timestamp_format(time, text);
    json_str(o->w, sv_from(text, n));
}

static void write_field_mask(struct pb_json_out *o, const Pb__FieldMask *mask) {
    struct buf text BUF_AUTO;
    buf_init(&text);
    for (size_t i = 0; mask && i < mask->n_paths; i++) {
        buf_append_sv(&text, i ? SV(",") : SV_NULL);
        for (const char *p = mask->paths[i]; *p; p++) {
            bool is_joint = *p == '_' && p[1] >= 'a' && p[1] <= 'z';
            char c = is_joint ? (char)(*++p - 'a' + 'A') : *p;
            buf_append(&text, &c, 1);
        }
    }
    json_str(o->w, buf_pullup(&text, buf_len(&text)));
}

static void write_struct(struct pb_json_out *o, const struct proto_type *t,
                         const ProtobufCMessage *m, bool is_hidden) {
    if (m) {
        (t->kind == PROTO_KIND_STRUCT ? write_map : write_list)(o, t, 0, m, is_hidden);
        return;
    }
    (t->kind == PROTO_KIND_STRUCT ? json_obj : json_arr)(o->w);
    json_end(o->w);
}

static void write_struct_value(struct pb_json_out *o, const struct proto_type *t,
                               const Pb__Value *v, bool is_hidden) {
    for (unsigned i = 0; v && i < t->desc->n_fields; i++) {
        const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
        if (f->id == (uint32_t)v->kind_case && (!is_hidden || pb_json_shows_hidden(f->type))) {
            write_value(o, t, i, reflect_member(&v->base, f), is_hidden);
            return;
        }
    }
    json_put_null(o->w);
}

static void write_closed_any(struct pb_json_out *o, const Pb__Any *any, bool is_hidden) {
    json_obj(o->w);
    if (any && *any->type_url) {
        json_key(o->w, SV("@type"));
        json_str(o->w, sv_cstr(any->type_url));
        json_key(o->w, SV("value"));
        pb_json_write_base64(o->w, is_hidden ? PB_JSON_REDACTED
                                             : sv_from(any->value.data, any->value.len));
    }
    json_end(o->w);
}

/* What a TypedStruct carries may be sensitive: that is known of the message it stands for only. */
static void write_typed_struct_fields(struct pb_json_out *o, const struct proto_type *t,
                                      const ProtobufCMessage *m, bool is_hidden) {
    const ProtobufCFieldDescriptor *url = &t->desc->fields[0], *value = &t->desc->fields[1];
    const Pb__Struct *s =
        (const Pb__Struct *)(const void *)reflect_message(reflect_member(m, value));
    const struct proto_type *stood_for = any_type(reflect_string(reflect_member(m, url)));
    struct arena a;
    struct diag d;
    arena_init(&a, 0);
    diag_init(&d);
    bool is_opened = (o->flags & PB_JSON_REDACT) && stood_for && s;
    ProtobufCMessage *inner =
        is_opened ? pb_json_from_struct(stood_for, s, PB_JSON_UNKNOWN_SKIP, &a, &d) : NULL;
    if (inner) {
        pb_json_write_field(o, t, 0, m, false);
        json_key(o->w, sv_cstr(value->name));
        pb_json_write_message(o, stood_for, inner, is_hidden);
    } else {
        write_fields(o, t, m, is_hidden);
    }
    diag_fini(&d);
    arena_fini(&a);
}

static void write_open_any(struct pb_json_out *o, sv url, const struct proto_type *t,
                           const ProtobufCMessage *m, bool is_hidden) {
    json_obj(o->w);
    json_key(o->w, SV("@type"));
    json_str(o->w, url);
    if (t->kind == PROTO_KIND_PLAIN) {
        write_fields(o, t, m, is_hidden);
    } else if (t->kind == PROTO_KIND_TYPED_STRUCT) {
        write_typed_struct_fields(o, t, m, is_hidden);
    } else {
        json_key(o->w, SV("value"));
        pb_json_write_message(o, t, m, is_hidden);
    }
    json_end(o->w);
}

static void write_any(struct pb_json_out *o, const Pb__Any *any, bool is_hidden) {
    const struct proto_type *t = any ? any_type(sv_cstr(any->type_url)) : NULL;
    struct arena a;
    struct diag d;
    arena_init(&a, 0);
    diag_init(&d);
    ProtobufCMessage *m =
        t ? proto_unpack(t->desc, sv_from(any->value.data, any->value.len), &a, &d) : NULL;
    if (m) {
        write_open_any(o, sv_cstr(any->type_url), t, m, is_hidden);
    } else {
        write_closed_any(o, any, is_hidden);
    }
    diag_fini(&d);
    arena_fini(&a);
}

static void write_known(struct pb_json_out *o, const struct proto_type *t,
                        const ProtobufCMessage *m, bool is_hidden) {
    static const uint64_t zero[2];
    switch ((enum proto_kind)t->kind) {
    case PROTO_KIND_ANY:
        write_any(o, (const Pb__Any *)(const void *)m, is_hidden);
        return;
    case PROTO_KIND_DURATION:
    case PROTO_KIND_TIMESTAMP:
        write_time(o, t, m, is_hidden);
        return;
    case PROTO_KIND_FIELD_MASK:
        write_field_mask(o, (const Pb__FieldMask *)(const void *)m);
        return;
    case PROTO_KIND_STRUCT:
    case PROTO_KIND_LIST_VALUE:
        write_struct(o, t, m, is_hidden);
        return;
    case PROTO_KIND_VALUE:
        write_struct_value(o, t, (const Pb__Value *)(const void *)m, is_hidden);
        return;
    case PROTO_KIND_WRAPPER: {
        const ProtobufCFieldDescriptor *f = &t->desc->fields[0];
        bool is_cleared = !m || (is_hidden && !pb_json_shows_hidden(f->type));
        write_value(o, t, 0, is_cleared ? zero : reflect_member(m, f), is_hidden && m);
        return;
    }
    case PROTO_KIND_PLAIN:
    case PROTO_KIND_TYPED_STRUCT:
        break;
    }
    json_obj(o->w);
    (t->kind == PROTO_KIND_PLAIN || !m ? write_fields : write_typed_struct_fields)(o, t, m,
                                                                                   is_hidden);
    json_end(o->w);
}

/* m is NULL for the unset value of a map entry: an empty message. */
void pb_json_write_message(struct pb_json_out *o, const struct proto_type *t,
                           const ProtobufCMessage *m, bool is_hidden) {
    if (o->depth == PB_JSON_WRITE_DEPTH_MAX) {
        json_put_null(o->w);
        return;
    }
    o->depth++;
    write_known(o, t, m, is_hidden);
    o->depth--;
}

void pb_json_write(struct json_writer *w, const ProtobufCMessage *m, unsigned flags) {
    struct pb_json_out o = {w, flags, 0};
    pb_json_write_message(&o, proto_type_of(m->descriptor), m, false);
}

void pb_json_append(struct buf *out, const ProtobufCMessage *m, unsigned flags, int indent) {
    struct json_writer w;
    json_begin(&w, out, indent);
    pb_json_write(&w, m, flags);
}
