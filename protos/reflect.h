/* Reading and writing the members of generated messages by their descriptors.
 * Threads: as the message. Nothing here allocates. */
#ifndef SLUICE_PROTOS_REFLECT_H
#define SLUICE_PROTOS_REFLECT_H

#include "protos/proto_type.h"

static inline bool reflect_is_repeated(const ProtobufCFieldDescriptor *f) {
    return f->label == PROTOBUF_C_LABEL_REPEATED;
}
static inline bool reflect_in_oneof(const ProtobufCFieldDescriptor *f) {
    return (f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
}
/* The struct member that holds the field: the value itself, or for repeated ones the array
 * pointer. */
static inline const void *reflect_member(const ProtobufCMessage *m,
                                         const ProtobufCFieldDescriptor *f) {
    return (const char *)m + f->offset;
}
static inline void *reflect_member_mut(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f) {
    return (char *)m + f->offset;
}
/* Number of items of a repeated field. */
static inline size_t reflect_count(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f) {
    return *(const size_t *)(const void *)((const char *)m + f->quantifier_offset);
}
static inline void reflect_set_count(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
                                     size_t n) {
    *(size_t *)(void *)((char *)m + f->quantifier_offset) = n;
}
/* Field number of the set member of the oneof that `f` belongs to, 0 when none is. */
static inline uint32_t reflect_oneof_case(const ProtobufCMessage *m,
                                          const ProtobufCFieldDescriptor *f) {
    return *(const uint32_t *)(const void *)((const char *)m + f->quantifier_offset);
}
static inline void reflect_set_oneof_case(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f) {
    *(uint32_t *)(void *)((char *)m + f->quantifier_offset) = f->id;
}
static inline const ProtobufCMessageDescriptor *
reflect_message_of(const ProtobufCFieldDescriptor *f) {
    return (const ProtobufCMessageDescriptor *)f->descriptor;
}
static inline const ProtobufCEnumDescriptor *reflect_enum_of(const ProtobufCFieldDescriptor *f) {
    return (const ProtobufCEnumDescriptor *)f->descriptor;
}

/* Bytes of one value of the field's type in memory. */
size_t reflect_value_size(ProtobufCType type);
/* The i-th value of a repeated field. */
static inline const void *reflect_item(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f,
                                       size_t i) {
    const char *array = *(const char *const *)reflect_member(m, f);
    return array + i * reflect_value_size(f->type);
}
/* Is the value at `v` the zero of its type (empty string, NULL message, 0)? */
bool reflect_is_zero(ProtobufCType type, const void *v);
/* Is the field set: a chosen oneof member, a present message, a non-empty list, or a value that is
 * not zero? */
bool reflect_has(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f);

/* Typed loads. A NULL string reads as empty. */
static inline const ProtobufCMessage *reflect_message(const void *v) {
    return *(const ProtobufCMessage *const *)v;
}
static inline sv reflect_string(const void *v) { return sv_cstr(*(const char *const *)v); }
static inline sv reflect_bytes(const void *v) {
    const ProtobufCBinaryData *b = (const ProtobufCBinaryData *)v;
    return sv_from(b->data, b->len);
}
/* Any signed integer or enum type. */
int64_t reflect_i64(ProtobufCType type, const void *v);
/* Any unsigned integer type. */
uint64_t reflect_u64(ProtobufCType type, const void *v);

enum reflect_class {
    REFLECT_SIGNED,
    REFLECT_UNSIGNED,
    REFLECT_REAL, /* float, double */
    REFLECT_BOOL,
    REFLECT_ENUM,
    REFLECT_STRING,
    REFLECT_BYTES,
    REFLECT_MESSAGE,
};
enum reflect_class reflect_class_of(ProtobufCType type);
static inline bool reflect_is_64bit(ProtobufCType type) { return reflect_value_size(type) == 8; }
double reflect_double(ProtobufCType type, const void *v);

/* The field of that JSON or original name, or SIZE_MAX. */
size_t reflect_find_field(const struct proto_type *t, sv name);
/* A new message of that type with defaults. */
struct arena;
ProtobufCMessage *reflect_new(const ProtobufCMessageDescriptor *desc, struct arena *a);

#endif
