/* JSON to messages: plain messages here, types with a JSON form of their own in pb_json_known.c.
 * Threads: the arena's owner.
 * Spec: proto3 JSON mapping, with the leniency of the official parser's legacy mode, which Envoy
 * runs.
 * Not here: JSON text (jansson), constraints (pb_rules.c). */
#include "protos/pb_json_read.h"

#include <math.h>

#include "protos/reflect.h"
#include "proxy/base/base64.h"

bool pb_json_fail(const struct pb_json_reader *r, const struct proto_path *path, const char *fmt,
                  ...) {
    size_t old_len = proto_path_enter(path, r->d);
    va_list ap;
    va_start(ap, fmt);
    sv text = arena_vprintf(r->a, fmt, ap);
    va_end(ap);
    diag_error(r->d, "%.*s", SV_ARG(text));
    diag_pop(r->d, old_len);
    return false;
}

/* Something we do not know: false when that is an error. */
static bool unknown(const struct pb_json_reader *r, const struct proto_path *path, const char *type,
                    sv what) {
    static const char form[] =
        "Protobuf message (type %s reason INVALID_ARGUMENT: %.*s) has unknown fields";
    if (r->unknown == PB_JSON_UNKNOWN_ERROR) {
        return pb_json_fail(r, path, form, type, SV_ARG(what));
    }
    if (r->unknown == PB_JSON_UNKNOWN_WARN) {
        size_t old_len = proto_path_enter(path, r->d);
        diag_warn(r->d, form, type, SV_ARG(what));
        diag_pop(r->d, old_len);
    }
    return true;
}

static sv string_of(const json_t *v) {
    return sv_from(json_string_value(v), json_string_length(v));
}

/* "1e3" and 2.0 are integers too. Doubles beyond 2^63 do not fit int64_t: the caller bounds
 * them. */
static const char *whole(double real, double low, double high) {
    if (real != floor(real)) {
        return "expected integer, but JSON number had fractional part";
    }
    return real >= low && real <= high ? NULL : "JSON number out of range for int";
}

static const char *read_signed(const json_t *v, ProtobufCType type, int64_t *out) {
    bool is_wide = reflect_is_64bit(type);
    int64_t low = is_wide ? INT64_MIN : INT32_MIN, high = is_wide ? INT64_MAX : INT32_MAX;
    double real;
    if (json_is_integer(v)) {
        *out = json_integer_value(v);
    } else if (!json_is_string(v) || !sv_to_i64(string_of(v), out)) {
        if (json_is_real(v)) {
            real = json_real_value(v);
        } else if (!json_is_string(v) || !sv_to_double(string_of(v), &real)) {
            return json_is_string(v) ? "invalid number" : "expected integer";
        }
        const char *wrong = whole(real, is_wide ? -0x1p63 : (double)low,
                                  is_wide ? 0x1.fffffffffffffp62 : (double)high);
        if (wrong) {
            return wrong;
        }
        *out = (int64_t)real;
    }
    return *out >= low && *out <= high ? NULL : "JSON number out of range for int";
}

static const char *read_unsigned(const json_t *v, ProtobufCType type, uint64_t *out) {
    bool is_wide = reflect_is_64bit(type);
    uint64_t high = is_wide ? UINT64_MAX : UINT32_MAX;
    double real;
    if (json_is_integer(v)) {
        if (json_integer_value(v) < 0) {
            return "JSON number out of range for int";
        }
        *out = (uint64_t)json_integer_value(v);
    } else if (!json_is_string(v) || !sv_to_u64(string_of(v), out)) {
        if (json_is_real(v)) {
            real = json_real_value(v);
        } else if (!json_is_string(v) || !sv_to_double(string_of(v), &real)) {
            return json_is_string(v) ? "invalid number" : "expected integer";
        }
        const char *wrong = whole(real, 0, is_wide ? 0x1.fffffffffffffp63 : (double)high);
        if (wrong) {
            return wrong;
        }
        *out = (uint64_t)real;
    }
    return *out <= high ? NULL : "JSON number out of range for int";
}

static const char *read_real(const json_t *v, ProtobufCType type, double *out) {
    if (json_is_number(v)) {
        *out = json_number_value(v);
    } else if (!json_is_string(v)) {
        return "expected number";
    } else if (sv_is(string_of(v), "NaN")) {
        *out = NAN;
    } else if (sv_is(string_of(v), "Infinity")) {
        *out = INFINITY;
    } else if (sv_is(string_of(v), "-Infinity")) {
        *out = -INFINITY;
    } else if (!sv_to_double(string_of(v), out)) {
        return "invalid number";
    }
    bool fits = type == PROTOBUF_C_TYPE_DOUBLE || !isfinite(*out) || isfinite((float)*out);
    return fits ? NULL : "JSON number out of range for float";
}

static bool read_number(struct pb_json_reader *r, const struct proto_path *path, ProtobufCType type,
                        const json_t *v, void *out) {
    enum reflect_class class = reflect_class_of(type);
    bool is_wide = reflect_is_64bit(type);
    int64_t i = 0;
    uint64_t u = 0;
    double real = 0;
    const char *wrong = class == REFLECT_SIGNED     ? read_signed(v, type, &i)
                        : class == REFLECT_UNSIGNED ? read_unsigned(v, type, &u)
                                                    : read_real(v, type, &real);
    if (wrong && json_is_string(v)) {
        return pb_json_fail(r, path, "%s: '%s'", wrong, json_string_value(v));
    }
    if (wrong) {
        return pb_json_fail(r, path, "%s", wrong);
    }
    if (class == REFLECT_REAL) {
        if (is_wide) {
            *(double *)out = real;
        } else {
            *(float *)out = (float)real;
        }
        return true;
    }
    u = class == REFLECT_SIGNED ? (uint64_t)i : u;
    if (is_wide) {
        *(uint64_t *)out = u;
    } else {
        *(uint32_t *)out = (uint32_t)u;
    }
    return true;
}

static bool read_bool(struct pb_json_reader *r, const struct proto_path *path, const json_t *v,
                      void *out) {
    if (json_is_boolean(v)) {
        *(protobuf_c_boolean *)out = json_is_true(v);
        return true;
    }
    if (json_is_string(v) && (sv_is(string_of(v), "true") || sv_is(string_of(v), "false"))) {
        *(protobuf_c_boolean *)out = json_string_value(v)[0] == 't';
        return true;
    }
    return pb_json_fail(r, path, "expected 'true' or 'false'");
}

/* NULL: there is none of the name. In any case of letters, as Envoy reads it. */
static const ProtobufCEnumValue *find_value(const ProtobufCEnumDescriptor *e, const char *name) {
    const ProtobufCEnumValue *found = protobuf_c_enum_descriptor_get_value_by_name(e, name);
    for (unsigned i = 0; !found && i < e->n_value_names; i++) {
        const ProtobufCEnumValueIndex *at = &e->values_by_name[i];
        found = sv_eq_nocase(sv_cstr(at->name), sv_cstr(name)) ? &e->values[at->index] : NULL;
    }
    return found;
}

/* By name or by number, the number in quotes too. */
static bool read_enum(struct pb_json_reader *r, const struct proto_path *path,
                      const struct proto_type *t, const ProtobufCFieldDescriptor *f,
                      const json_t *v, void *out) {
    int64_t ignored;
    if (json_is_number(v) || (json_is_string(v) && sv_to_i64(string_of(v), &ignored))) {
        return read_number(r, path, PROTOBUF_C_TYPE_INT32, v, out);
    }
    if (!json_is_string(v)) {
        return pb_json_fail(r, path, "expected number or string");
    }
    const char *name = json_string_value(v);
    const ProtobufCEnumValue *named = find_value(reflect_enum_of(f), name);
    if (!named) {
        return unknown(r, path, t->name, arena_printf(r->a, "unknown enum value: '%s'", name));
    }
    *(int *)out = named->value;
    return true;
}

static bool read_string(struct pb_json_reader *r, const struct proto_path *path, const json_t *v,
                        void *out) {
    if (!json_is_string(v)) {
        return pb_json_fail(r, path, "expected string");
    }
    if (sv_find(string_of(v), '\0') != SIZE_MAX) {
        return pb_json_fail(r, path, "string contains a NUL character");
    }
    *(const char **)out = arena_cstr(r->a, string_of(v));
    return true;
}

static bool read_bytes(struct pb_json_reader *r, const struct proto_path *path, const json_t *v,
                       void *out) {
    if (!json_is_string(v)) {
        return pb_json_fail(r, path, "expected string with base64");
    }
    sv text = string_of(v);
    char *bytes = arena_alloc(r->a, BASE64_DECODED_MAX(text.n));
    size_t n = base64_decode(text, BASE64_EITHER, bytes);
    if (n == SIZE_MAX) {
        return pb_json_fail(r, path, "invalid base64");
    }
    *(ProtobufCBinaryData *)out = (ProtobufCBinaryData){n, (uint8_t *)bytes};
    return true;
}

bool pb_json_read_message(struct pb_json_reader *r, const struct proto_path *path,
                          const struct proto_type *t, const json_t *v, ProtobufCMessage *m) {
    if (r->depth == PB_JSON_DEPTH_MAX) {
        return pb_json_fail(r, path, "message is nested too deeply");
    }
    r->depth++;
    bool ok = t->kind == PROTO_KIND_PLAIN || t->kind == PROTO_KIND_TYPED_STRUCT
                  ? pb_json_read_plain(r, path, t, v, m, SV_NULL)
                  : pb_json_read_known(r, path, t, v, m);
    r->depth--;
    return ok;
}

bool pb_json_read_value(struct pb_json_reader *r, const struct proto_path *path,
                        const struct proto_type *t, unsigned i, const json_t *v, void *out) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    switch (reflect_class_of(f->type)) {
    case REFLECT_SIGNED:
    case REFLECT_UNSIGNED:
    case REFLECT_REAL:
        return read_number(r, path, f->type, v, out);
    case REFLECT_BOOL:
        return read_bool(r, path, v, out);
    case REFLECT_ENUM:
        return read_enum(r, path, t, f, v, out);
    case REFLECT_STRING:
        return read_string(r, path, v, out);
    case REFLECT_BYTES:
        return read_bytes(r, path, v, out);
    case REFLECT_MESSAGE: {
        ProtobufCMessage *inner = reflect_new(reflect_message_of(f), r->a);
        *(ProtobufCMessage **)out = inner;
        return pb_json_read_message(r, path, proto_field_type(t, i), v, inner);
    }
    }
    return false;
}

/* A key of a map field: JSON keys are strings whatever the type. */
static bool read_map_key(struct pb_json_reader *r, const struct proto_path *path,
                         const struct proto_type *entry, const char *key, ProtobufCMessage *m) {
    json_t *text = json_string_nocheck(key);
    bool ok =
        pb_json_read_value(r, path, entry, 0, text, reflect_member_mut(m, &entry->desc->fields[0]));
    json_decref(text);
    return ok;
}

static bool is_value_type(const struct proto_type *t, unsigned i) {
    const struct proto_type *inner = proto_field_type(t, i);
    return inner && inner->kind == PROTO_KIND_VALUE;
}

static bool read_map(struct pb_json_reader *r, const struct proto_path *path,
                     const struct proto_type *t, unsigned i, const json_t *v, ProtobufCMessage *m) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    const struct proto_type *entry = proto_field_type(t, i);
    if (!json_is_object(v)) {
        return pb_json_fail(r, path, "expected object");
    }
    if (r->depth == PB_JSON_DEPTH_MAX) {
        return pb_json_fail(r, path, "message is nested too deeply");
    }
    r->depth++; /* an entry is a message too */
    size_t n = 0;
    ProtobufCMessage **entries = arena_new_array(r->a, ProtobufCMessage *, json_object_size(v));
    const char *key;
    json_t *item;
    bool ok = true;
    json_object_foreach((json_t *)(uintptr_t)v, key, item) {
        struct proto_path at = {path->up, path->name, PROTO_PATH_NO_INDEX, sv_cstr(key)};
        ProtobufCMessage *e = entries[n++] = reflect_new(entry->desc, r->a);
        void *value = reflect_member_mut(e, &entry->desc->fields[1]);
        bool is_unset = json_is_null(item) && !is_value_type(entry, 1);
        ok &= read_map_key(r, &at, entry, key, e);
        ok &= is_unset || pb_json_read_value(r, &at, entry, 1, item, value);
    }
    r->depth--;
    *(ProtobufCMessage ***)reflect_member_mut(m, f) = entries;
    reflect_set_count(m, f, n);
    return ok;
}

/* Zero of a repeated field's item where JSON says null. */
static void null_item(struct pb_json_reader *r, const ProtobufCFieldDescriptor *f, void *out) {
    if (f->type == PROTOBUF_C_TYPE_STRING) {
        *(const char **)out = arena_cstr(r->a, SV_NULL);
    } else if (f->type == PROTOBUF_C_TYPE_MESSAGE) {
        *(ProtobufCMessage **)out = reflect_new(reflect_message_of(f), r->a);
    }
}

static bool read_list(struct pb_json_reader *r, const struct proto_path *path,
                      const struct proto_type *t, unsigned i, const json_t *v,
                      ProtobufCMessage *m) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    size_t n = json_is_array(v) ? json_array_size(v) : 1;
    size_t size = reflect_value_size(f->type);
    char *items = arena_zalloc_array(r->a, n, size);
    bool ok = true;
    for (size_t k = 0; k < n; k++) {
        const json_t *item = json_is_array(v) ? json_array_get(v, k) : v;
        struct proto_path at = {path->up, path->name, k, SV_NULL};
        if (json_is_null(item) && !is_value_type(t, i)) {
            null_item(r, f, items + k * size);
        } else {
            ok &= pb_json_read_value(r, &at, t, i, item, items + k * size);
        }
    }
    *(char **)reflect_member_mut(m, f) = items;
    reflect_set_count(m, f, n);
    return ok;
}

static bool is_null_value(const ProtobufCFieldDescriptor *f) {
    return f->type == PROTOBUF_C_TYPE_ENUM &&
           sv_is(sv_cstr(reflect_enum_of(f)->name), "google.protobuf.NullValue");
}

static bool read_single(struct pb_json_reader *r, const struct proto_path *path,
                        const struct proto_type *t, unsigned i, const json_t *v,
                        ProtobufCMessage *m) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    bool in_oneof = reflect_in_oneof(f);
    if (in_oneof && reflect_oneof_case(m, f) && reflect_oneof_case(m, f) != f->id) {
        return pb_json_fail(
            r, path, "'%s' has already been set (either directly or as part of a oneof)", f->name);
    }
    union {
        uint64_t u;
        ProtobufCBinaryData b;
        void *p;
    } value;
    memset(&value, 0, sizeof(value));
    bool is_null = json_is_null(v) && is_null_value(f);
    if (!is_null && !pb_json_read_value(r, path, t, i, v, &value)) {
        return false;
    }
    memcpy(reflect_member_mut(m, f), &value, reflect_value_size(f->type));
    if (in_oneof) {
        reflect_set_oneof_case(m, f);
    }
    return true;
}

static bool read_field(struct pb_json_reader *r, const struct proto_path *path,
                       const struct proto_type *t, unsigned i, const json_t *v,
                       ProtobufCMessage *m) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    bool takes_null = !reflect_is_repeated(f) && (is_value_type(t, i) || is_null_value(f));
    if (json_is_null(v) && !takes_null) {
        return true;
    }
    if (t->fields[i].flags & PROTO_FIELD_MAP) {
        return read_map(r, path, t, i, v, m);
    }
    return reflect_is_repeated(f) ? read_list(r, path, t, i, v, m)
                                  : read_single(r, path, t, i, v, m);
}

bool pb_json_read_plain(struct pb_json_reader *r, const struct proto_path *path,
                        const struct proto_type *t, const json_t *v, ProtobufCMessage *m,
                        sv skipped_key) {
    if (!json_is_object(v)) {
        return pb_json_fail(r, path, "expected object for message %s", t->name);
    }
    bool ok = true;
    const char *key;
    json_t *item;
    json_object_foreach((json_t *)(uintptr_t)v, key, item) {
        if (skipped_key.n && sv_is(skipped_key, key)) {
            continue;
        }
        size_t i = reflect_find_field(t, sv_cstr(key));
        if (i == SIZE_MAX) {
            ok &= unknown(r, path, t->name, arena_printf(r->a, "no such field: '%s'", key));
            continue;
        }
        struct proto_path at = {path, t->desc->fields[i].name, PROTO_PATH_NO_INDEX, SV_NULL};
        ok &= read_field(r, &at, t, (unsigned)i, item, m);
    }
    return ok;
}

ProtobufCMessage *pb_json_parse(const struct proto_type *t, const json_t *v,
                                enum pb_json_unknown policy, struct arena *a, struct diag *d) {
    struct pb_json_reader r = {.a = a, .d = d, .unknown = policy};
    ProtobufCMessage *m = reflect_new(t->desc, a);
    return pb_json_read_message(&r, NULL, t, v, m) ? m : NULL;
}

ProtobufCMessage *pb_json_parse_text(const struct proto_type *t, sv text,
                                     enum pb_json_unknown policy, struct arena *a, struct diag *d) {
    json_error_t error;
    json_t *v = json_loadb(text.n ? text.p : "", text.n, JSON_DECODE_ANY, &error);
    if (!v) {
        diag_error(d, "Unable to parse JSON as proto (INVALID_ARGUMENT: %s near %d:%d)", error.text,
                   error.line, error.column);
        return NULL;
    }
    ProtobufCMessage *m = pb_json_parse(t, v, policy, a, d);
    json_decref(v);
    return m;
}

ProtobufCMessage *pb_json_from_struct(const struct proto_type *t, const Pb__Struct *s,
                                      enum pb_json_unknown policy, struct arena *a,
                                      struct diag *d) {
    json_t *tree = pb_json_struct_tree(s);
    if (!tree) {
        diag_error(d, "struct is nested too deeply");
        return NULL;
    }
    ProtobufCMessage *m = pb_json_parse(t, tree, policy, a, d);
    json_decref(tree);
    return m;
}
