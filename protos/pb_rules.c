/* Walks a message beside the generated table of rules.
 * Threads: any.
 * Spec: protoc-gen-validate's rules and texts, as Envoy's NACKs show them.
 * Not here: single values (pb_rules_value.c), what a field means (the compile steps), Any
 * payloads. */
#include "protos/pb_rules.h"

#include <inttypes.h>

#include "protos/pb_rules_value.h"
#include "protos/reflect.h"

static bool same_item(const ProtobufCFieldDescriptor *f, const void *a, const void *b) {
    switch (reflect_class_of(f->type)) {
    case REFLECT_STRING:
        return sv_eq(reflect_string(a), reflect_string(b));
    case REFLECT_BYTES:
        return sv_eq(reflect_bytes(a), reflect_bytes(b));
    case REFLECT_REAL:
        return reflect_double(f->type, a) == reflect_double(f->type, b);
    default: /* rules ask for unique scalars only */
        return memcmp(a, b, reflect_value_size(f->type)) == 0;
    }
}

static void check_unique(struct pb_rules_checker *c, const struct proto_path *path,
                         const ProtobufCFieldDescriptor *f, const ProtobufCMessage *m) {
    for (size_t i = 1; i < reflect_count(m, f); i++) {
        for (size_t k = 0; k < i; k++) {
            if (same_item(f, reflect_item(m, f, i), reflect_item(m, f, k))) {
                pb_rules_violation(c, path, "repeated value must contain unique items");
                return;
            }
        }
    }
}

static void check_count(struct pb_rules_checker *c, const struct proto_path *path,
                        struct pb_rules_group g, bool is_map, size_t n) {
    const struct proto_rule *min =
        pb_rules_find(g, is_map ? PROTO_RULE_MIN_PAIRS : PROTO_RULE_MIN_ITEMS);
    const struct proto_rule *max =
        pb_rules_find(g, is_map ? PROTO_RULE_MAX_PAIRS : PROTO_RULE_MAX_ITEMS);
    const char *unit = is_map ? "pair" : "item";
    bool too_few = min && n < min->v.u, too_many = max && n > max->v.u;
    if (!too_few && !too_many) {
        return;
    }
    if (min && max && min->v.u == max->v.u) {
        pb_rules_violation(c, path, "value must contain exactly %" PRIu64 " %s(s)", min->v.u, unit);
    } else if (min && max) {
        pb_rules_violation(c, path,
                           "value must contain between %" PRIu64 " and %" PRIu64 " %ss, inclusive",
                           min->v.u, max->v.u, unit);
    } else if (too_few) {
        pb_rules_violation(c, path, "value must contain at least %" PRIu64 " %s(s)", min->v.u,
                           unit);
    } else {
        pb_rules_violation(c, path, "value must contain no more than %" PRIu64 " %s(s)", max->v.u,
                           unit);
    }
}

/* Rules of a list or map as a whole. */
static void check_container(struct pb_rules_checker *c, const struct proto_path *path,
                            struct pb_rules_group g, const struct proto_type *t, unsigned i,
                            const ProtobufCMessage *m) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    size_t n = reflect_count(m, f);
    if (n == 0 && pb_rules_find(g, PROTO_RULE_IGNORE_EMPTY)) {
        return;
    }
    check_count(c, path, g, t->fields[i].flags & PROTO_FIELD_MAP, n);
    if (pb_rules_find(g, PROTO_RULE_UNIQUE)) {
        check_unique(c, path, f, m);
    }
}

/* The path of item k: by its key in a map of strings. */
static struct proto_path item_path(const struct proto_path *field, const struct proto_type *t,
                                   unsigned i, const ProtobufCMessage *m, size_t k) {
    struct proto_path path = {field->up, field->name, k, SV_NULL};
    const struct proto_type *entry =
        t->fields[i].flags & PROTO_FIELD_MAP ? proto_field_type(t, i) : NULL;
    if (entry && entry->desc->fields[0].type == PROTOBUF_C_TYPE_STRING) {
        const ProtobufCMessage *e = reflect_message(reflect_item(m, &t->desc->fields[i], k));
        path.key = reflect_string(reflect_member(e, &entry->desc->fields[0]));
    }
    return path;
}

static void check_items(struct pb_rules_checker *c, const struct proto_path *path,
                        struct pb_rules_group g, const struct proto_type *t, unsigned i,
                        const ProtobufCMessage *m) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    const struct proto_type *entry = proto_field_type(t, i);
    unsigned member = g.rules[0].scope == PROTO_SCOPE_VALUE;
    for (size_t k = 0; k < reflect_count(m, f); k++) {
        struct proto_path at = item_path(path, t, i, m, k);
        const void *item = reflect_item(m, f, k);
        if (g.rules[0].scope == PROTO_SCOPE_ITEM) {
            pb_rules_value(c, &at, g, t, i, item);
            continue;
        }
        const void *v = reflect_member(reflect_message(item), &entry->desc->fields[member]);
        if (entry->desc->fields[member].type != PROTOBUF_C_TYPE_MESSAGE || reflect_message(v)) {
            pb_rules_value(c, &at, g, entry, member, v);
        }
    }
}

static void check_group(struct pb_rules_checker *c, const struct proto_path *up,
                        struct pb_rules_group g, const struct proto_type *t,
                        const ProtobufCMessage *m) {
    unsigned i = g.rules[0].field;
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    struct proto_path path = {up, f->name, PROTO_PATH_NO_INDEX, SV_NULL};
    if (g.rules[0].scope != PROTO_SCOPE_FIELD) {
        check_items(c, &path, g, t, i, m);
    } else if (reflect_is_repeated(f)) {
        check_container(c, &path, g, t, i, m);
    } else if (reflect_in_oneof(f) && !reflect_has(m, f)) {
        return;
    } else if (f->type == PROTOBUF_C_TYPE_MESSAGE && !reflect_has(m, f)) {
        if (pb_rules_find(g, PROTO_RULE_REQUIRED)) {
            pb_rules_violation(c, &path, "value is required");
        }
    } else {
        pb_rules_value(c, &path, g, t, i, reflect_member(m, f));
    }
}

static void check_message(struct pb_rules_checker *c, const struct proto_path *path,
                          const struct proto_type *t, const ProtobufCMessage *m);

/* The messages that field i holds. */
static void descend(struct pb_rules_checker *c, const struct proto_path *up,
                    const struct proto_type *t, unsigned i, const ProtobufCMessage *m) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    const struct proto_type *inner = proto_field_type(t, i);
    if (!inner || !(inner->flags & PROTO_TYPE_CHECKED) || !reflect_has(m, f)) {
        return;
    }
    struct proto_path path = {up, f->name, PROTO_PATH_NO_INDEX, SV_NULL};
    if (!reflect_is_repeated(f)) {
        check_message(c, &path, inner, reflect_message(reflect_member(m, f)));
        return;
    }
    for (size_t k = 0; k < reflect_count(m, f); k++) {
        struct proto_path at = item_path(&path, t, i, m, k);
        const ProtobufCMessage *item = reflect_message(reflect_item(m, f, k));
        if (!(inner->flags & PROTO_TYPE_MAP_ENTRY)) {
            check_message(c, &at, inner, item);
            continue;
        }
        const struct proto_type *value = proto_field_type(inner, 1);
        const void *v = reflect_member(item, &inner->desc->fields[1]);
        if (value && reflect_message(v)) {
            check_message(c, &at, value, reflect_message(v));
        }
    }
}

static bool is_skipped(const struct proto_type *t, unsigned i) {
    for (unsigned k = 0; k < t->rules_n; k++) {
        if (t->rules[k].field == i && t->rules[k].op == PROTO_RULE_SKIP) {
            return true;
        }
    }
    return false;
}

static void check_message(struct pb_rules_checker *c, const struct proto_path *path,
                          const struct proto_type *t, const ProtobufCMessage *m) {
    for (size_t k = 0; k < t->rules_n;) {
        const struct proto_rule *first = &t->rules[k];
        size_t n = 1;
        if (first->op == PROTO_RULE_ONEOF_REQUIRED) {
            if (!reflect_oneof_case(m, &t->desc->fields[first->field])) {
                pb_rules_violation(c, path, "field: \"%s\", reason: is required", first->v.s);
            }
            k++;
            continue;
        }
        while (k + n < t->rules_n && first[n].field == first->field &&
               first[n].scope == first->scope) {
            n++;
        }
        check_group(c, path, (struct pb_rules_group){first, n}, t, m);
        k += n;
    }
    for (unsigned i = 0; i < t->desc->n_fields; i++) {
        if (!is_skipped(t, i)) {
            descend(c, path, t, i, m);
        }
    }
}

bool pb_rules_check(const ProtobufCMessage *m, struct diag *d) {
    struct pb_rules_checker c = {d, true};
    const struct proto_type *t = proto_type_of(m->descriptor);
    CHECK(t != NULL);
    if (t->flags & PROTO_TYPE_CHECKED) {
        check_message(&c, NULL, t, m);
    }
    return c.ok;
}
