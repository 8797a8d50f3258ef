/* Walks protobuf wire bytes beside the message's descriptor.
 * Threads: any.
 * Spec: protobuf encoding; groups are not supported (proto3 has none).
 * Not here: values themselves (pb_rules.c), Any payloads (any.c checks each when it unpacks it). */
#include "protos/wire.h"

#include "protos/reflect.h"

/* One open message: from these the path is made, but only when there is an error to tell. */
struct frame {
    const struct frame *parent;
    const struct proto_type *type;
    sv all;         /* the message's bytes */
    const char *at; /* start of the field being looked at */
    unsigned field; /* its index, or UINT_MAX before it is known */
    unsigned depth;
};

bool wire_eat_varint(sv *wire, uint64_t *out) {
    uint64_t v = 0;
    for (unsigned i = 0; i < wire->n && i < 10; i++) {
        unsigned char c = (unsigned char)wire->p[i];
        v |= (uint64_t)(c & 0x7f) << (7 * i);
        if (c < 0x80) {
            *out = v;
            *wire = sv_skip(*wire, i + 1);
            return true;
        }
    }
    return false;
}

/* Take the value of a field off the front. False: cut off. */
static bool eat_value(sv *wire, enum wire_type type, sv *value) {
    uint64_t n = UINT64_MAX; /* wire types 6 and 7 do not exist: too long for any message */
    switch (type) {
    case WIRE_VARINT: {
        const char *start = wire->p;
        bool ok = wire_eat_varint(wire, &n);
        *value = sv_from(start, (size_t)(wire->p - start));
        return ok;
    }
    case WIRE_64BIT:
        n = 8;
        break;
    case WIRE_32BIT:
        n = 4;
        break;
    case WIRE_BYTES:
        if (!wire_eat_varint(wire, &n)) {
            return false;
        }
        break;
    case WIRE_START_GROUP:
    case WIRE_END_GROUP:
        return false;
    }
    if (n > wire->n) {
        return false;
    }
    *value = sv_sub(*wire, 0, (size_t)n);
    *wire = sv_skip(*wire, (size_t)n);
    return true;
}

bool wire_eat_field(sv *wire, struct wire_field *out) {
    sv rest = *wire;
    uint64_t tag;
    if (!rest.n || !wire_eat_varint(&rest, &tag) || tag >> 3 == 0 || tag > UINT32_MAX ||
        !eat_value(&rest, (enum wire_type)(tag & 7), &out->value)) {
        return false;
    }
    out->number = (uint32_t)(tag >> 3);
    out->type = (enum wire_type)(tag & 7);
    *wire = rest;
    return true;
}

/* How many items of the current field came before it in its message. */
static size_t index_in_message(const struct frame *fr) {
    sv rest = sv_from(fr->all.p, (size_t)(fr->at - fr->all.p));
    size_t count = 0;
    struct wire_field f;
    while (wire_eat_field(&rest, &f)) {
        count += f.number == fr->type->desc->fields[fr->field].id;
    }
    return count;
}

static void push_path(const struct frame *fr, struct diag *d) {
    if (fr->parent) {
        push_path(fr->parent, d);
    }
    if (fr->field == UINT_MAX) {
        return;
    }
    const ProtobufCFieldDescriptor *f = &fr->type->desc->fields[fr->field];
    if (reflect_is_repeated(f)) {
        diag_push(d, "%s[%zu]", f->name, index_in_message(fr));
    } else {
        diag_push(d, "%s", f->name);
    }
}

static bool fail(const struct frame *fr, struct diag *d, const char *what) {
    size_t old_len = diag_path(d).n;
    push_path(fr, d);
    diag_error(d, "%s", what);
    diag_pop(d, old_len);
    return false;
}

static enum wire_type natural_wire_type(ProtobufCType type) {
    switch (type) {
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return WIRE_32BIT;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return WIRE_64BIT;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return WIRE_BYTES;
    case PROTOBUF_C_TYPE_INT32:
    case PROTOBUF_C_TYPE_SINT32:
    case PROTOBUF_C_TYPE_UINT32:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_ENUM:
    case PROTOBUF_C_TYPE_BOOL:
        return WIRE_VARINT;
    }
    return WIRE_VARINT;
}

static bool packed_ok(enum wire_type item, sv value) {
    if (item != WIRE_VARINT) {
        return value.n % (item == WIRE_64BIT ? 8 : 4) == 0;
    }
    uint64_t ignored;
    while (value.n) {
        if (!wire_eat_varint(&value, &ignored)) {
            return false;
        }
    }
    return true;
}

static bool string_ok(const struct frame *fr, sv s, struct diag *d) {
    if (memchr(s.n ? s.p : "x", '\0', s.n)) {
        return fail(fr, d, "string contains a NUL character");
    }
    return sv_is_utf8(s) || fail(fr, d, "string is not valid UTF-8");
}

static bool check_message(struct frame *fr, struct diag *d);

static bool check_field(struct frame *fr, enum wire_type type, sv value, struct diag *d) {
    const ProtobufCFieldDescriptor *f = &fr->type->desc->fields[fr->field];
    enum wire_type natural = natural_wire_type(f->type);
    if (type != natural) {
        bool packed = type == WIRE_BYTES && reflect_is_repeated(f) && packed_ok(natural, value);
        return packed || fail(fr, d, "wire type does not fit the field");
    }
    if (f->type == PROTOBUF_C_TYPE_STRING) {
        return string_ok(fr, value, d);
    }
    if (f->type != PROTOBUF_C_TYPE_MESSAGE) {
        return true;
    }
    if (fr->depth + 1 > WIRE_DEPTH_MAX) {
        return fail(fr, d, "message is nested too deeply");
    }
    struct frame inner = {
        fr, proto_field_type(fr->type, fr->field), value, value.p, UINT_MAX, fr->depth + 1};
    return check_message(&inner, d);
}

static bool check_message(struct frame *fr, struct diag *d) {
    const ProtobufCMessageDescriptor *desc = fr->type->desc;
    sv rest = fr->all;
    while (rest.n) {
        uint64_t tag;
        sv value;
        fr->at = rest.p;
        fr->field = UINT_MAX;
        if (!wire_eat_varint(&rest, &tag) || tag >> 3 == 0 || tag > UINT32_MAX) {
            return fail(fr, d, "invalid field tag in wire bytes");
        }
        const ProtobufCFieldDescriptor *f =
            protobuf_c_message_descriptor_get_field(desc, (unsigned)(tag >> 3));
        if (f) {
            fr->field = (unsigned)(f - desc->fields);
        }
        if (!eat_value(&rest, (enum wire_type)(tag & 7), &value)) {
            return fail(fr, d, "wire bytes are cut off or malformed");
        }
        if (f && !check_field(fr, (enum wire_type)(tag & 7), value, d)) {
            return false;
        }
    }
    return true;
}

bool wire_check(const struct proto_type *t, sv wire, struct diag *d) {
    struct frame top = {NULL, t, wire, wire.p, UINT_MAX, 1};
    return check_message(&top, d);
}
