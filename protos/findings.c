/* Walks an unpacked message for unknown and deprecated fields, and for those that nothing looks at.
 * Threads: as the message.
 * Spec: Envoy's strict and warning validation visitors; annotations deprecated,
 * disallowed_by_default.
 * Not here: what follows from a finding (the caller's policy, its counters and runtime
 * overrides). */
#include "protos/findings.h"

#include "protos/proto_path.h"
#include "protos/reflect.h"

#define MARKS \
    (PROTO_FIELD_DEPRECATED | PROTO_FIELD_DISALLOWED | PROTO_FIELD_UNHONOURED | PROTO_FIELD_REFUSED)

struct walk {
    struct diag *d;
    void (*on)(void *arg, const struct finding *f);
    void *arg;
};

static void tell(const struct walk *w, const struct proto_path *path, const struct finding *f) {
    size_t old_len = proto_path_enter(path, w->d);
    w->on(w->arg, f);
    diag_pop(w->d, old_len);
}

static void unknown_fields(const struct walk *w, const struct proto_path *path,
                           const struct proto_type *t, const ProtobufCMessage *m) {
    struct buf numbers BUF_AUTO;
    buf_init(&numbers);
    for (unsigned i = 0; i < m->n_unknown_fields; i++) {
        buf_printf(&numbers, "%s%u", i ? ", " : "", m->unknown_fields[i].tag);
    }
    sv list = buf_pullup(&numbers, buf_len(&numbers));
    tell(w, path, &(struct finding){.kind = FINDING_UNKNOWN_FIELDS, .type = t, .numbers = list});
}

static void marked_field(const struct walk *w, const struct proto_path *path,
                         const struct proto_type *t, unsigned i, const ProtobufCMessage *m) {
    unsigned flags = t->fields[i].flags;
    struct finding f = {.type = t, .field = t->desc->fields[i].name};
    if (!(flags & MARKS) || !reflect_has(m, &t->desc->fields[i])) {
        return;
    }
    if (flags & (PROTO_FIELD_DEPRECATED | PROTO_FIELD_DISALLOWED)) {
        f.kind = flags & PROTO_FIELD_DISALLOWED ? FINDING_DISALLOWED : FINDING_DEPRECATED;
        tell(w, path, &f);
    }
    if (flags & (PROTO_FIELD_UNHONOURED | PROTO_FIELD_REFUSED)) {
        f.kind = flags & PROTO_FIELD_REFUSED ? FINDING_REFUSED : FINDING_UNHONOURED;
        tell(w, path, &f);
    }
}

static void marked_value(const struct walk *w, const struct proto_path *path,
                         const struct proto_type *t, unsigned i, const void *v) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    int value = *(const int *)v;
    unsigned flags = proto_enum_value_flags(reflect_enum_of(f), value);
    const ProtobufCEnumValue *named =
        protobuf_c_enum_descriptor_get_value(reflect_enum_of(f), value);
    if (flags && named) {
        enum finding_kind kind =
            flags & PROTO_FIELD_DISALLOWED ? FINDING_DISALLOWED_VALUE : FINDING_DEPRECATED_VALUE;
        tell(w, path,
             &(struct finding){
                 .kind = kind, .type = t, .field = f->name, .enum_value = named->name});
    }
}

static void walk_message(const struct walk *w, const struct proto_path *path,
                         const struct proto_type *t, const ProtobufCMessage *m);

static void walk_value(const struct walk *w, const struct proto_path *path,
                       const struct proto_type *t, unsigned i, const void *v) {
    if (t->fields[i].flags & PROTO_FIELD_MARKED_ENUM) {
        marked_value(w, path, t, i, v);
    }
    const struct proto_type *inner = proto_field_type(t, i);
    if (inner && reflect_message(v)) {
        walk_message(w, path, inner, reflect_message(v));
    }
}

static void walk_field(const struct walk *w, const struct proto_path *up,
                       const struct proto_type *t, unsigned i, const ProtobufCMessage *m) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    struct proto_path path = {up, f->name, PROTO_PATH_NO_INDEX, SV_NULL};
    marked_field(w, &path, t, i, m);
    if (!reflect_is_repeated(f)) {
        walk_value(w, &path, t, i, reflect_member(m, f));
        return;
    }
    for (path.index = 0; path.index < reflect_count(m, f); path.index++) {
        walk_value(w, &path, t, i, reflect_item(m, f, path.index));
    }
}

/* Has the field anything to tell of? An enum's default may be a deprecated value. */
static bool is_of_interest(const struct proto_type *t, unsigned i, const ProtobufCMessage *m) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    unsigned flags = t->fields[i].flags;
    if ((flags & PROTO_FIELD_MARKED_ENUM) && !reflect_in_oneof(f) && !reflect_is_repeated(f)) {
        return true;
    }
    return (t->fields[i].type >= 0 || (flags & (MARKS | PROTO_FIELD_MARKED_ENUM))) &&
           reflect_has(m, f);
}

static void walk_message(const struct walk *w, const struct proto_path *path,
                         const struct proto_type *t, const ProtobufCMessage *m) {
    if (m->n_unknown_fields) {
        unknown_fields(w, path, t, m);
    }
    for (unsigned i = 0; i < t->desc->n_fields; i++) {
        if (is_of_interest(t, i, m)) {
            walk_field(w, path, t, i, m);
        }
    }
}

void findings_walk(const ProtobufCMessage *m, struct diag *d,
                   void (*on)(void *arg, const struct finding *f), void *arg) {
    walk_message(&(struct walk){d, on, arg}, NULL, proto_type_of(m->descriptor), m);
}

struct check {
    struct diag *d;
    enum pb_json_unknown unknown;
    size_t unknown_n;
};

static void unknown_finding(struct check *c, const struct finding *f) {
    static const char text[] =
        "Protobuf message (type %s with unknown field set {%.*s}) has unknown fields";
    c->unknown_n++;
    if (c->unknown == PB_JSON_UNKNOWN_ERROR) {
        diag_error(c->d, text, f->type->name, SV_ARG(f->numbers));
    } else if (c->unknown == PB_JSON_UNKNOWN_WARN) {
        diag_warn(c->d, text, f->type->name, SV_ARG(f->numbers));
    }
}

static void on_unknown(void *arg, const struct finding *f) {
    if (f->kind == FINDING_UNKNOWN_FIELDS) {
        unknown_finding((struct check *)arg, f);
    }
}

size_t findings_unknown_fields(const ProtobufCMessage *m, bool as_errors, struct diag *d) {
    struct check c = {d, as_errors ? PB_JSON_UNKNOWN_ERROR : PB_JSON_UNKNOWN_WARN, 0};
    findings_walk(m, d, on_unknown, &c);
    return c.unknown_n;
}

static void on_finding(void *arg, const struct finding *f) {
    struct check *c = (struct check *)arg;
    switch (f->kind) {
    case FINDING_UNKNOWN_FIELDS:
        unknown_finding(c, f);
        break;
    case FINDING_REFUSED:
        diag_error(c->d, "not supported");
        break;
    case FINDING_UNHONOURED:
        diag_warn(c->d, "has no effect here");
        break;
    case FINDING_DEPRECATED:
    case FINDING_DISALLOWED:
    case FINDING_DEPRECATED_VALUE:
    case FINDING_DISALLOWED_VALUE:
        break;
    }
}

bool findings_check(const ProtobufCMessage *m, enum pb_json_unknown unknown, struct diag *d) {
    unsigned before = diag_errors(d);
    findings_walk(m, d, on_finding, &(struct check){d, unknown, 0});
    return diag_errors(d) == before;
}
