/* Metadata: namespace → tree of values, the compact form of core.v3.Metadata
 * (google.protobuf.Struct by filter name).
 * Values live in an arena: a stream's for dynamic metadata, a resource's for configured metadata.
 * Threads: configured metadata is immutable; dynamic metadata belongs to its stream. */
#ifndef SLUICE_OBSERVE_METADATA_H
#define SLUICE_OBSERVE_METADATA_H

#include "proxy/base/arena.h"
#include "proxy/base/buf.h"

enum kv_kind { KV_NULL, KV_BOOL, KV_NUMBER, KV_STRING, KV_STRUCT, KV_LIST };
struct kv_value;
struct kv_field;
struct kv_struct {
    struct kv_field *v; /* ascending by key */
    uint32_t n, cap;
};
struct kv_list {
    struct kv_value *v;
    uint32_t n;
};
struct kv_value {
    enum kv_kind kind;
    union {
        bool b;
        double number;
        sv s;
        struct kv_struct fields;
        struct kv_list list;
    };
};
struct kv_field {
    sv key;
    struct kv_value value;
};

#define KV_DEPTH_MAX 32       /* deeper structures are cut off when copied */
#define KV_NAMESPACES_MAX 256 /* namespaces of one metadata */

/* Scalars; strings are borrowed. What a value does not use of its union is zeroed: it is kept. */
static inline struct kv_value kv_null(void) {
    return (struct kv_value){.kind = KV_NULL, .s = SV_NULL};
}
static inline struct kv_value kv_bool(bool b) {
    struct kv_value v = {.kind = KV_BOOL, .s = SV_NULL};
    v.b = b;
    return v;
}
static inline struct kv_value kv_number(double d) {
    struct kv_value v = {.kind = KV_NUMBER, .s = SV_NULL};
    v.number = d;
    return v;
}
static inline struct kv_value kv_string(sv s) {
    return (struct kv_value){.kind = KV_STRING, .s = s};
}
static inline struct kv_value kv_empty_struct(void) { return (struct kv_value){.kind = KV_STRUCT}; }

struct kv_metadata;
struct kv_metadata *kv_metadata_new(struct arena *a);
struct kv_metadata *kv_metadata_dup(const struct kv_metadata *m, struct arena *a); /* deep */
/* The value of a namespace, a struct or (typed metadata) anything. NULL: absent. Borrowed until the
 * metadata changes. */
const struct kv_value *kv_metadata_namespace(const struct kv_metadata *m, sv ns);
/* Follow keys from the namespace's struct; n == 0: the namespace itself. NULL: absent. m may be
 * NULL. */
const struct kv_value *kv_metadata_get(const struct kv_metadata *m, sv ns, const sv *path,
                                       unsigned n);
/* ns[key] = value; keys and values are copied into the arena. False: KV_NAMESPACES_MAX reached. */
bool kv_metadata_set(struct kv_metadata *m, sv ns, sv key, const struct kv_value *value);
/* Merge a struct into the namespace: nested structs are merged, lists appended, other values
 * replaced (Envoy's merge). */
bool kv_metadata_merge(struct kv_metadata *m, sv ns, const struct kv_value *fields);
/* Replace the namespace as a whole. */
bool kv_metadata_put(struct kv_metadata *m, sv ns, const struct kv_value *value);
unsigned kv_metadata_count(const struct kv_metadata *m);
/* ascending by name */
sv kv_metadata_name_at(const struct kv_metadata *m, unsigned i, const struct kv_value **value);

/* The one immutable metadata with these contents, one use more: of configured metadata that many
 * things have, so that equal means the same pointer. NULL gives NULL. Any thread; cold paths. */
const struct kv_metadata *kv_metadata_intern(const struct kv_metadata *m);
void kv_metadata_unref(const struct kv_metadata *interned); /* NULL is fine */

/* Trees. */
/* NULL: no struct, or no such key */
const struct kv_value *kv_get(const struct kv_value *fields, sv key);
/* copies */
void kv_set(struct kv_value *fields, struct arena *a, sv key, const struct kv_value *value);
struct kv_value kv_copy(const struct kv_value *v, struct arena *a);
bool kv_eq(const struct kv_value *a, const struct kv_value *b);
uint64_t kv_hash(const struct kv_value *v); /* equal values, equal hashes, within this process */
/* Compact JSON, keys ascending, as Envoy prints Struct values. */
void kv_write_json(const struct kv_value *v, struct buf *out);
/* A number as JSON: integers without a point, else the shortest that reads back. */
void kv_write_number(double d, struct buf *out);

/* From messages: google.protobuf.Struct, google.protobuf.Value, core.v3.Metadata (may be NULL).
 * Copies. */
struct kv_value kv_from_struct(const void *struct_msg, struct arena *a);
struct kv_value kv_from_value(const void *value_msg, struct arena *a);
struct kv_metadata *kv_metadata_from(const void *metadata_msg, struct arena *a);
/* To a message: a Pb__Struct in the arena. `clean` makes a string one that a message may carry
 * (UTF-8); NULL: it came from a message. */
void *kv_struct_message(const struct kv_struct *s, struct arena *a,
                        sv (*clean)(struct arena *a, sv text));

#endif
