/* The well-known types that have a JSON form of their own, JSON to message; and Struct to a JSON
 * tree.
 * Threads: the arena's owner.
 * Spec: proto3 JSON mapping. */
#include "protos/any.h"
#include "protos/pb_json_read.h"
#include "protos/pb_time.h"
#include "protos/reflect.h"

#define EXACT_INTEGER_MAX 0x1p53 /* doubles above may stand for several integers */

static sv text_of(const json_t *v) { return sv_from(json_string_value(v), json_string_length(v)); }

/* {"seconds": 1, "nanos": 5}: as lenient as Envoy. */
static bool read_time_object(struct pb_json_reader *r, const struct proto_path *path,
                             const struct proto_type *t, const json_t *v, ProtobufCMessage *m) {
    if (!pb_json_read_plain(r, path, t, v, m, SV_NULL)) {
        return false;
    }
    struct pb_time time = {*(const int64_t *)reflect_member_mut(m, &t->desc->fields[0]),
                           *(const int32_t *)reflect_member_mut(m, &t->desc->fields[1])};
    if (t->kind == PROTO_KIND_DURATION && !pb_duration_is_valid(time)) {
        return pb_json_fail(r, path, "duration out of range");
    }
    return true;
}

static bool read_time(struct pb_json_reader *r, const struct proto_path *path,
                      const struct proto_type *t, const json_t *v, ProtobufCMessage *m) {
    if (json_is_object(v)) {
        return read_time_object(r, path, t, v, m);
    }
    if (!json_is_string(v)) {
        return pb_json_fail(r, path, "expected string for message %s", t->name);
    }
    struct pb_time time = {0, 0};
    bool is_duration = t->kind == PROTO_KIND_DURATION;
    const char *wrong =
        is_duration ? pb_duration_parse(text_of(v), &time) : pb_timestamp_parse(text_of(v), &time);
    if (wrong) {
        return pb_json_fail(r, path, "%s: '%s'", wrong, json_string_value(v));
    }
    *(int64_t *)reflect_member_mut(m, &t->desc->fields[0]) = time.seconds;
    *(int32_t *)reflect_member_mut(m, &t->desc->fields[1]) = time.nanos;
    return true;
}

/* One path of a mask: lowerCamelCase to snake_case. */
static const char *mask_path(struct arena *a, sv path) {
    char *out = arena_alloc(a, 2 * path.n + 1);
    size_t o = 0;
    for (size_t i = 0; i < path.n; i++) {
        char c = path.p[i];
        if (c >= 'A' && c <= 'Z') {
            out[o++] = '_';
        }
        out[o++] = ascii_tolower(c);
    }
    out[o] = '\0';
    return out;
}

static bool read_field_mask(struct pb_json_reader *r, const struct proto_path *path,
                            const json_t *v, ProtobufCMessage *m) {
    if (!json_is_string(v)) {
        return pb_json_fail(r, path, "expected string for message google.protobuf.FieldMask");
    }
    sv rest = text_of(v);
    size_t n = 1, max = 1;
    for (size_t i = 0; i < rest.n; i++) {
        max += rest.p[i] == ',';
    }
    Pb__FieldMask *mask = (Pb__FieldMask *)(void *)m;
    mask->paths = arena_new_array(r->a, const char *, max);
    for (n = 0; rest.n; n++) {
        mask->paths[n] = mask_path(r->a, sv_cut(&rest, ','));
    }
    mask->n_paths = n;
    return true;
}

static bool read_value(struct pb_json_reader *r, const struct proto_path *path, const json_t *v,
                       Pb__Value *out) {
    switch (json_typeof(v)) {
    case JSON_NULL:
        out->kind_case = PB__VALUE__KIND_NULL_VALUE;
        return true;
    case JSON_TRUE:
    case JSON_FALSE:
        out->kind_case = PB__VALUE__KIND_BOOL_VALUE;
        out->bool_value = json_is_true(v);
        return true;
    case JSON_INTEGER:
    case JSON_REAL:
        out->kind_case = PB__VALUE__KIND_NUMBER_VALUE;
        out->number_value = json_number_value(v);
        return true;
    case JSON_STRING:
        out->kind_case = PB__VALUE__KIND_STRING_VALUE;
        out->string_value = arena_cstr(r->a, text_of(v));
        return true;
    case JSON_OBJECT:
        out->kind_case = PB__VALUE__KIND_STRUCT_VALUE;
        out->struct_value = arena_new(r->a, Pb__Struct);
        pb__struct__init(out->struct_value);
        return pb_json_read_message(r, path, proto_type_of(&pb__struct__descriptor), v,
                                    &out->struct_value->base);
    case JSON_ARRAY:
        out->kind_case = PB__VALUE__KIND_LIST_VALUE;
        out->list_value = arena_new(r->a, Pb__ListValue);
        pb__list_value__init(out->list_value);
        return pb_json_read_message(r, path, proto_type_of(&pb__list_value__descriptor), v,
                                    &out->list_value->base);
    }
    return false;
}

/* Struct and ListValue: their only field takes the object or array itself. */
static bool read_container(struct pb_json_reader *r, const struct proto_path *path,
                           const struct proto_type *t, const json_t *v, ProtobufCMessage *m) {
    bool is_struct = t->kind == PROTO_KIND_STRUCT;
    if (is_struct ? !json_is_object(v) : !json_is_array(v)) {
        return pb_json_fail(r, path, "expected %s for message %s", is_struct ? "object" : "array",
                            t->name);
    }
    json_t *wrapped = json_object();
    json_object_set(wrapped, t->desc->fields[0].name, (json_t *)(uintptr_t)v);
    bool ok = pb_json_read_plain(r, path, t, wrapped, m, SV_NULL);
    json_decref(wrapped);
    return ok;
}

static bool any_url_is_valid(sv url) {
    size_t slash = sv_rfind(url, '/');
    return slash != SIZE_MAX && slash > 0 && slash + 1 < url.n;
}

static bool read_any(struct pb_json_reader *r, const struct proto_path *path, const json_t *v,
                     ProtobufCMessage *m) {
    Pb__Any *any = (Pb__Any *)(void *)m;
    const json_t *url = json_object_get(v, "@type");
    if (!json_is_string(url)) {
        bool is_empty = json_is_object(v) && json_object_size(v) == 0;
        return is_empty || pb_json_fail(r, path, "missing @type in Any");
    }
    if (!any_url_is_valid(text_of(url))) {
        return pb_json_fail(r, path,
                            "@type must contain at least one / and a nonempty host; got: %s",
                            json_string_value(url));
    }
    const struct proto_type *t = any_type(text_of(url));
    if (!t) {
        return pb_json_fail(r, path, "could not find @type '%s'", json_string_value(url));
    }
    ProtobufCMessage *inner = reflect_new(t->desc, r->a);
    bool ok = true;
    if (t->kind == PROTO_KIND_PLAIN || t->kind == PROTO_KIND_TYPED_STRUCT) {
        ok = pb_json_read_plain(r, path, t, v, inner, SV("@type"));
    } else {
        const json_t *value = json_object_get(v, "value");
        ok = value ? pb_json_read_message(r, path, t, value, inner)
                   : pb_json_fail(r, path, "missing value in Any");
    }
    sv bytes = proto_pack(inner, r->a);
    any->type_url = arena_cstr(r->a, text_of(url));
    any->value = (ProtobufCBinaryData){bytes.n, (uint8_t *)(uintptr_t)bytes.p};
    return ok;
}

bool pb_json_read_known(struct pb_json_reader *r, const struct proto_path *path,
                        const struct proto_type *t, const json_t *v, ProtobufCMessage *m) {
    switch ((enum proto_kind)t->kind) {
    case PROTO_KIND_ANY:
        return read_any(r, path, v, m);
    case PROTO_KIND_DURATION:
    case PROTO_KIND_TIMESTAMP:
        return read_time(r, path, t, v, m);
    case PROTO_KIND_FIELD_MASK:
        return read_field_mask(r, path, v, m);
    case PROTO_KIND_STRUCT:
    case PROTO_KIND_LIST_VALUE:
        return read_container(r, path, t, v, m);
    case PROTO_KIND_VALUE:
        return read_value(r, path, v, (Pb__Value *)(void *)m);
    case PROTO_KIND_WRAPPER:
        if (json_is_object(v)) { /* {"value": 5}: as lenient as Envoy */
            return pb_json_read_plain(r, path, t, v, m, SV_NULL);
        }
        return pb_json_read_value(r, path, t, 0, v, reflect_member_mut(m, &t->desc->fields[0]));
    case PROTO_KIND_PLAIN:
    case PROTO_KIND_TYPED_STRUCT:
        break;
    }
    return pb_json_read_plain(r, path, t, v, m, SV_NULL);
}

static json_t *number_tree(double v) {
    bool is_exact = v >= -EXACT_INTEGER_MAX && v <= EXACT_INTEGER_MAX && v == (double)(int64_t)v;
    if (is_exact) {
        return json_integer((int64_t)v);
    }
    json_t *real = json_real(v); /* NULL for NaN and infinities, which JSON does not have */
    return real ? real : json_string(v != v ? "NaN" : v < 0 ? "-Infinity" : "Infinity");
}

static json_t *struct_tree(const Pb__Struct *s, unsigned depth);

static json_t *list_tree(const Pb__ListValue *list, unsigned depth);

static json_t *value_tree(const Pb__Value *v, unsigned depth) {
    if (depth > PB_JSON_DEPTH_MAX) {
        return NULL;
    }
    switch (v ? v->kind_case : PB__VALUE__KIND_NULL_VALUE) {
    case PB__VALUE__KIND_NUMBER_VALUE:
        return number_tree(v->number_value);
    case PB__VALUE__KIND_STRING_VALUE:
        return json_string_nocheck(v->string_value);
    case PB__VALUE__KIND_BOOL_VALUE:
        return json_boolean(v->bool_value);
    case PB__VALUE__KIND_STRUCT_VALUE:
        return struct_tree(v->struct_value, depth + 1);
    case PB__VALUE__KIND_LIST_VALUE:
        return list_tree(v->list_value, depth + 1);
    case PB__VALUE__KIND_NULL_VALUE:
    case PB__VALUE__KIND__NOT_SET:
    default:
        return json_null();
    }
}

static json_t *struct_tree(const Pb__Struct *s, unsigned depth) {
    json_t *out = json_object();
    for (size_t i = 0; s && i < s->n_fields; i++) {
        json_t *item = value_tree(s->fields[i]->value, depth);
        if (!item) {
            json_decref(out);
            return NULL;
        }
        json_object_set_new_nocheck(out, s->fields[i]->key, item);
    }
    return out;
}

static json_t *list_tree(const Pb__ListValue *list, unsigned depth) {
    json_t *out = json_array();
    for (size_t i = 0; i < list->n_values; i++) {
        json_t *item = value_tree(list->values[i], depth);
        if (!item) {
            json_decref(out);
            return NULL;
        }
        json_array_append_new(out, item);
    }
    return out;
}

json_t *pb_json_struct_tree(const Pb__Struct *s) { return struct_tree(s, 0); }

json_t *pb_json_value_tree(const Pb__Value *v) { return value_tree(v, 0); }
