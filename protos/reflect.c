/* Members of generated messages by descriptor: sizes, presence, typed loads, fields by name.
 * Threads: as the message.
 * Spec: protobuf-c.h for the layout; proto3 JSON mapping for the names. */
#include "protos/reflect.h"

#include "proxy/base/arena.h"

size_t reflect_value_size(ProtobufCType type) {
    switch (type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_ENUM:
        return 4;
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
        return sizeof(char *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(ProtobufCMessage *);
    }
    return 0;
}

enum reflect_class reflect_class_of(ProtobufCType type) {
    switch (type) {
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
        return REFLECT_SIGNED;
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
        return REFLECT_UNSIGNED;
    case PROTOBUF_C_TYPE_FLOAT:
    case PROTOBUF_C_TYPE_DOUBLE:
        return REFLECT_REAL;
    case PROTOBUF_C_TYPE_ENUM:
        return REFLECT_ENUM;
    case PROTOBUF_C_TYPE_BOOL:
        return REFLECT_BOOL;
    case PROTOBUF_C_TYPE_STRING:
        return REFLECT_STRING;
    case PROTOBUF_C_TYPE_BYTES:
        return REFLECT_BYTES;
    case PROTOBUF_C_TYPE_MESSAGE:
        return REFLECT_MESSAGE;
    }
    return REFLECT_MESSAGE;
}

int64_t reflect_i64(ProtobufCType type, const void *v) {
    return reflect_is_64bit(type) ? *(const int64_t *)v : *(const int32_t *)v;
}

uint64_t reflect_u64(ProtobufCType type, const void *v) {
    return reflect_is_64bit(type) ? *(const uint64_t *)v : *(const uint32_t *)v;
}

double reflect_double(ProtobufCType type, const void *v) {
    return type == PROTOBUF_C_TYPE_DOUBLE ? *(const double *)v : (double)*(const float *)v;
}

static bool is_zero_bits(const void *v, size_t n) {
    static const char zeros[8];
    return memcmp(v, zeros, n) == 0;
}

bool reflect_is_zero(ProtobufCType type, const void *v) {
    switch (reflect_class_of(type)) {
    case REFLECT_STRING:
        return reflect_string(v).n == 0;
    case REFLECT_BYTES:
        return reflect_bytes(v).n == 0;
    case REFLECT_MESSAGE:
        return reflect_message(v) == NULL;
    case REFLECT_SIGNED:
    case REFLECT_UNSIGNED:
    case REFLECT_REAL: /* minus zero is not the default: it has a bit set */
    case REFLECT_ENUM:
    case REFLECT_BOOL:
        return is_zero_bits(v, reflect_value_size(type));
    }
    return true;
}

bool reflect_has(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f) {
    if (reflect_is_repeated(f)) {
        return reflect_count(m, f) != 0;
    }
    if (reflect_in_oneof(f)) {
        return reflect_oneof_case(m, f) == f->id;
    }
    return !reflect_is_zero(f->type, reflect_member(m, f));
}

/* fooBar → foo_bar. False when it does not fit, which no field name of ours does. */
static bool to_snake(sv name, char out[static 128], size_t *n) {
    size_t o = 0;
    for (size_t i = 0; i < name.n; i++) {
        char c = name.p[i];
        if (o + 3 > 128 || c == '\0') {
            return false;
        }
        if (c >= 'A' && c <= 'Z') {
            out[o++] = '_';
            c = ascii_tolower(c);
        }
        out[o++] = c;
    }
    out[o] = '\0';
    *n = o;
    return true;
}

static size_t find_original(const ProtobufCMessageDescriptor *d, const char *name) {
    const ProtobufCFieldDescriptor *f = protobuf_c_message_descriptor_get_field_by_name(d, name);
    return f ? (size_t)(f - d->fields) : SIZE_MAX;
}

size_t reflect_find_field(const struct proto_type *t, sv name) {
    char key[128];
    size_t n;
    if (name.n < sizeof(key) && memchr(name.p ? name.p : "", '\0', name.n) == NULL) {
        memcpy(key, name.p ? name.p : "", name.n);
        key[name.n] = '\0';
        size_t i = find_original(t->desc, key);
        if (i != SIZE_MAX) {
            return i;
        }
    }
    /* A name that was already snake_case would have been found: only camelCase ones lead on. */
    if (to_snake(name, key, &n) && n != name.n) {
        size_t i = find_original(t->desc, key);
        if (i != SIZE_MAX && !t->fields[i].json_name) {
            return i;
        }
    }
    for (size_t i = 0; i < t->desc->n_fields; i++) {
        if (t->fields[i].json_name && sv_is(name, t->fields[i].json_name)) {
            return i;
        }
    }
    return SIZE_MAX;
}

ProtobufCMessage *reflect_new(const ProtobufCMessageDescriptor *desc, struct arena *a) {
    ProtobufCMessage *m = arena_alloc(a, desc->sizeof_message);
    protobuf_c_message_init(desc, m);
    return m;
}
