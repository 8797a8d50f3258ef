/* Walks a message beside the generated table of rules.
 * Threads: any; compiled patterns are shared and added once.
 * Spec: protoc-gen-validate's rules and texts, as Envoy's NACKs show them.
 * Not here: what a field means (the compile steps), Any payloads. */
#include "protos/pb_rules.h"

#include <inttypes.h>
#include <stdio.h>

#include "protos/gen/pb.pb-c.h"
#include "protos/proto_path.h"
#include "protos/reflect.h"
#include "proxy/base/regex.h"

#define OPERAND_MAX 64

struct checker {
    struct diag *d;
    bool ok;
};

/* The rules of one field in one scope. */
struct group {
    const struct proto_rule *rules;
    size_t n;
};

static void violation(struct checker *c, const struct proto_path *path, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
static void violation(struct checker *c, const struct proto_path *path, const char *fmt, ...) {
    struct arena a;
    arena_init(&a, 0);
    va_list ap;
    va_start(ap, fmt);
    sv text = arena_vprintf(&a, fmt, ap);
    va_end(ap);
    size_t old_len = proto_path_enter(path, c->d);
    diag_error(c->d, "%.*s", SV_ARG(text));
    diag_pop(c->d, old_len);
    arena_fini(&a);
    c->ok = false;
}

static const struct proto_rule *find_rule(struct group g, enum proto_rule_op op) {
    for (size_t i = 0; i < g.n; i++) {
        if (g.rules[i].op == op) {
            return &g.rules[i];
        }
    }
    return NULL;
}

/* --- numbers, durations --- */

static int compare_u64(uint64_t a, uint64_t b) { return a < b ? -1 : a > b; }
static int compare_i64(int64_t a, int64_t b) { return a < b ? -1 : a > b; }

/* A value that rules can be put in order with: a number, an enum or a Duration. */
struct ordered {
    ProtobufCType type; /* PROTOBUF_C_TYPE_MESSAGE: a Duration */
    const void *v;
};

/* NaN compares as neither: it violates every bound. */
static bool less(struct ordered o, const struct proto_rule *r, bool or_equal) {
    int order = 0;
    switch (reflect_class_of(o.type)) {
    case REFLECT_REAL: {
        double v = reflect_double(o.type, o.v);
        return or_equal ? v <= r->v.d : v < r->v.d;
    }
    case REFLECT_UNSIGNED:
    case REFLECT_BOOL:
        order = compare_u64(reflect_u64(o.type, o.v), r->v.u);
        break;
    case REFLECT_MESSAGE: {
        const Pb__Duration *time = *(const Pb__Duration *const *)o.v;
        order = compare_i64(time->seconds, r->v.i);
        order = order ? order : compare_i64(time->nanos, r->n);
        break;
    }
    default: /* signed, enum */
        order = compare_i64(reflect_i64(o.type, o.v), r->v.i);
        break;
    }
    return order < 0 || (or_equal && order == 0);
}

static bool greater(struct ordered o, const struct proto_rule *r, bool or_equal) {
    if (reflect_class_of(o.type) == REFLECT_REAL) {
        double v = reflect_double(o.type, o.v);
        return or_equal ? v >= r->v.d : v > r->v.d;
    }
    return !less(o, r, !or_equal);
}

/* As Go prints durations: 0s, 1ms, 1.5s, 5m0s, 1h0m0s. */
static void duration_operand(const struct proto_rule *r, char out[static OPERAND_MAX]) {
    int64_t s = r->v.i, h = s / 3600, m = s / 60 % 60;
    if (s == 0 && r->n % 1000000 == 0 && r->n) {
        snprintf(out, OPERAND_MAX, "%dms", r->n / 1000000);
        return;
    }
    double seconds = (double)(s % 60) + r->n / 1e9;
    if (h) {
        snprintf(out, OPERAND_MAX, "%" PRId64 "h%" PRId64 "m%gs", h, m, seconds);
    } else if (m) {
        snprintf(out, OPERAND_MAX, "%" PRId64 "m%gs", m, seconds);
    } else {
        snprintf(out, OPERAND_MAX, "%gs", seconds);
    }
}

static const char *operand(ProtobufCType type, const struct proto_rule *r,
                           char out[static OPERAND_MAX]) {
    switch (reflect_class_of(type)) {
    case REFLECT_REAL:
        snprintf(out, OPERAND_MAX, "%g", r->v.d);
        break;
    case REFLECT_UNSIGNED:
        snprintf(out, OPERAND_MAX, "%" PRIu64, r->v.u);
        break;
    case REFLECT_MESSAGE:
        duration_operand(r, out);
        break;
    default:
        snprintf(out, OPERAND_MAX, "%" PRId64, r->v.i);
        break;
    }
    return out;
}

/* Is the lower bound above the upper one? Then the rule is to be outside of the two. */
static bool is_inverted(ProtobufCType type, const struct proto_rule *low,
                        const struct proto_rule *high) {
    switch (reflect_class_of(type)) {
    case REFLECT_REAL:
        return low->v.d > high->v.d;
    case REFLECT_UNSIGNED:
        return low->v.u > high->v.u;
    default: /* signed, enum, Duration */
        return low->v.i > high->v.i || (low->v.i == high->v.i && low->n > high->n);
    }
}

/* lte, gte: is that bound itself a good value? */
static void range_violation(struct checker *c, const struct proto_path *path, ProtobufCType type,
                            const struct proto_rule *low, bool gte, const struct proto_rule *high,
                            bool lte) {
    char a[OPERAND_MAX], b[OPERAND_MAX];
    operand(type, low, a);
    operand(type, high, b);
    if (is_inverted(type, low, high)) {
        violation(c, path, "value must be outside range %c%s, %s%c", lte ? '(' : '[', b, a,
                  gte ? ')' : ']');
    } else {
        violation(c, path, "value must be inside range %c%s, %s%c", gte ? '[' : '(', a, b,
                  lte ? ']' : ')');
    }
}

static void check_bounds(struct checker *c, const struct proto_path *path, struct group g,
                         struct ordered o) {
    const struct proto_rule *gte = find_rule(g, PROTO_RULE_GTE),
                            *lte = find_rule(g, PROTO_RULE_LTE);
    const struct proto_rule *low = gte ? gte : find_rule(g, PROTO_RULE_GT);
    const struct proto_rule *high = lte ? lte : find_rule(g, PROTO_RULE_LT);
    bool low_ok = !low || greater(o, low, gte != NULL);
    bool high_ok = !high || less(o, high, lte != NULL);
    bool one_will_do = low && high && is_inverted(o.type, low, high);
    if (one_will_do ? low_ok || high_ok : low_ok && high_ok) {
        return;
    }
    char text[OPERAND_MAX];
    if (low && high) {
        range_violation(c, path, o.type, low, gte != NULL, high, lte != NULL);
    } else if (low) {
        violation(c, path, "value must be greater than %s%s", gte ? "or equal to " : "",
                  operand(o.type, low, text));
    } else {
        violation(c, path, "value must be less than %s%s", lte ? "or equal to " : "",
                  operand(o.type, high, text));
    }
}

/* --- strings, bytes --- */

static uint64_t characters(sv s) {
    uint64_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        n += ((unsigned char)s.p[i] & 0xc0) != 0x80;
    }
    return n;
}

static void check_length(struct checker *c, const struct proto_path *path, struct group g,
                         bool is_string, sv s) {
    const struct proto_rule *min = find_rule(g, PROTO_RULE_MIN_LEN),
                            *max = find_rule(g, PROTO_RULE_MAX_LEN);
    const char *unit = is_string ? "characters" : "bytes";
    uint64_t n = is_string ? characters(s) : s.n;
    bool too_short = min && n < min->v.u, too_long = max && n > max->v.u;
    if (min && max && (too_short || too_long)) {
        violation(c, path, "value length must be between %" PRIu64 " and %" PRIu64 " %s, inclusive",
                  min->v.u, max->v.u, unit);
    } else if (too_short) {
        violation(c, path, "value length must be at least %" PRIu64 " %s", min->v.u, unit);
    } else if (too_long) {
        violation(c, path, "value length must be at most %" PRIu64 " %s", max->v.u, unit);
    }
    const struct proto_rule *max_bytes = find_rule(g, PROTO_RULE_MAX_BYTES);
    if (max_bytes && s.n > max_bytes->v.u) {
        violation(c, path, "value length must be at most %" PRIu64 " bytes", max_bytes->v.u);
    }
}

static const struct regex *pattern_of(const struct proto_rule *r) {
    struct regex **slot = &proto_patterns[r->n];
    struct regex *known = __atomic_load_n(slot, __ATOMIC_ACQUIRE);
    if (known) {
        return known;
    }
    char error[128];
    struct regex *made = regex_new(r->v.s, strlen(r->v.s), error, sizeof(error));
    CHECK(made != NULL); /* the patterns are the official ones */
    if (__atomic_compare_exchange_n(slot, &known, made, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE)) {
        return made;
    }
    regex_free(made);
    return known;
}

static bool is_header_name(sv s) {
    sv_eat(&s, SV(":"));
    for (size_t i = 0; i < s.n; i++) {
        if (!ascii_isalnum(s.p[i]) && !strchr("!#$%&'*+,-.^_|~`", s.p[i])) {
            return false;
        }
    }
    return s.n > 0;
}

static bool is_header_value(sv s) {
    for (size_t i = 0; i < s.n; i++) {
        unsigned char b = (unsigned char)s.p[i];
        if ((b < ' ' && b != '\t') || b == 0x7f) {
            return false;
        }
    }
    return true;
}

static void check_text(struct checker *c, const struct proto_path *path, const struct proto_rule *r,
                       sv s) {
    const char *pattern = NULL;
    switch ((enum proto_rule_op)r->op) {
    case PROTO_RULE_PATTERN:
        pattern = regex_full_match(pattern_of(r), s.p, s.n) ? NULL : r->v.s;
        break;
    case PROTO_RULE_HTTP_HEADER_NAME:
    case PROTO_RULE_HTTP_HEADER_VALUE:
        pattern = sv_find(s, '\n') == SIZE_MAX && sv_find(s, '\r') == SIZE_MAX
                      ? NULL
                      : "^[^\\x00\\n\\r]*$";
        break;
    case PROTO_RULE_HTTP_HEADER_NAME_STRICT:
        pattern = is_header_name(s) ? NULL : "^:?[0-9a-zA-Z!#$%&'*+-.^_|~`]+$";
        break;
    case PROTO_RULE_HTTP_HEADER_VALUE_STRICT:
        pattern = is_header_value(s) ? NULL : "^[^\\x00-\\b\\n-\\x1f\\x7f]*$";
        break;
    case PROTO_RULE_PREFIX:
        if (!sv_starts(s, sv_cstr(r->v.s))) {
            violation(c, path, "value does not have prefix \"%s\"", r->v.s);
        }
        break;
    case PROTO_RULE_SUFFIX:
        if (!sv_ends(s, sv_cstr(r->v.s))) {
            violation(c, path, "value does not have suffix \"%s\"", r->v.s);
        }
        break;
    default: /* lengths and lists are looked at elsewhere */
        break;
    }
    if (pattern) {
        violation(c, path, "value does not match regex pattern \"%s\"", pattern);
    }
}

/* --- lists of values --- */

static bool in_list(const ProtobufCFieldDescriptor *f, const void *v, const struct proto_rule *r) {
    bool is_string = f->type == PROTOBUF_C_TYPE_STRING;
    for (int i = 0; i < r->n; i++) {
        bool same = is_string ? sv_is(reflect_string(v), r->v.strings[i])
                              : reflect_i64(f->type, v) == r->v.ints[i];
        if (same) {
            return true;
        }
    }
    return false;
}

static void list_text(const ProtobufCFieldDescriptor *f, const struct proto_rule *r,
                      struct buf *out) {
    for (int i = 0; i < r->n; i++) {
        buf_append_sv(out, i ? SV(" ") : SV_NULL);
        const ProtobufCEnumValue *named =
            f->type == PROTOBUF_C_TYPE_ENUM
                ? protobuf_c_enum_descriptor_get_value(reflect_enum_of(f), (int)r->v.ints[i])
                : NULL;
        if (f->type == PROTOBUF_C_TYPE_STRING) {
            buf_append_sv(out, sv_cstr(r->v.strings[i]));
        } else if (named) {
            buf_append_sv(out, sv_cstr(named->name));
        } else {
            buf_printf(out, "%" PRId64, r->v.ints[i]);
        }
    }
}

static void check_list(struct checker *c, const struct proto_path *path, const struct proto_rule *r,
                       const ProtobufCFieldDescriptor *f, const void *v) {
    bool is_wanted = r->op == PROTO_RULE_IN;
    if (in_list(f, v, r) == is_wanted) {
        return;
    }
    struct buf text BUF_AUTO;
    buf_init(&text);
    list_text(f, r, &text);
    sv items = buf_pullup(&text, buf_len(&text));
    violation(c, path, "value must %sbe in list [%.*s]", is_wanted ? "" : "not ", SV_ARG(items));
}

static void check_const(struct checker *c, const struct proto_path *path,
                        const struct proto_rule *r, const ProtobufCFieldDescriptor *f,
                        const void *v) {
    char text[OPERAND_MAX];
    if (f->type == PROTOBUF_C_TYPE_BOOL) {
        if ((*(const protobuf_c_boolean *)v != 0) != (r->v.u != 0)) {
            violation(c, path, "value must equal %s", r->v.u ? "true" : "false");
        }
        return;
    }
    struct ordered o = {f->type, v};
    if (!less(o, r, true) || !greater(o, r, true)) {
        violation(c, path, "value must equal %s", operand(f->type, r, text));
    }
}

/* --- values, fields, messages --- */

static void check_single_rule(struct checker *c, const struct proto_path *path,
                              const struct proto_rule *r, const ProtobufCFieldDescriptor *f,
                              const void *v) {
    switch ((enum proto_rule_op)r->op) {
    case PROTO_RULE_CONST:
        check_const(c, path, r, f, v);
        return;
    case PROTO_RULE_IN:
    case PROTO_RULE_NOT_IN:
        check_list(c, path, r, f, v);
        return;
    case PROTO_RULE_DEFINED_ONLY:
        if (!protobuf_c_enum_descriptor_get_value(reflect_enum_of(f), *(const int *)v)) {
            violation(c, path, "value must be one of the defined enum values");
        }
        return;
    default:
        if (f->type == PROTOBUF_C_TYPE_STRING) {
            check_text(c, path, r, reflect_string(v));
        }
        return;
    }
}

/* One value against a group: a field that is set or has no presence, an item, a key, a map
 * value. */
static void check_value(struct checker *c, const struct proto_path *path, struct group g,
                        const struct proto_type *t, unsigned i, const void *v) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    const struct proto_type *inner = proto_field_type(t, i);
    if (inner && inner->kind == PROTO_KIND_WRAPPER) {
        f = &inner->desc->fields[0];
        v = reflect_member(reflect_message(v), f);
    }
    if (find_rule(g, PROTO_RULE_IGNORE_EMPTY) && reflect_is_zero(f->type, v)) {
        return;
    }
    bool is_duration = inner && inner->kind == PROTO_KIND_DURATION;
    enum reflect_class class = reflect_class_of(f->type);
    if (class == REFLECT_STRING || class == REFLECT_BYTES) {
        bool is_string = class == REFLECT_STRING;
        check_length(c, path, g, is_string, is_string ? reflect_string(v) : reflect_bytes(v));
    } else if (class != REFLECT_MESSAGE || is_duration) {
        check_bounds(c, path, g, (struct ordered){f->type, v});
    }
    for (size_t k = 0; k < g.n; k++) {
        check_single_rule(c, path, &g.rules[k], f, v);
    }
}

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

static void check_unique(struct checker *c, const struct proto_path *path,
                         const ProtobufCFieldDescriptor *f, const ProtobufCMessage *m) {
    for (size_t i = 1; i < reflect_count(m, f); i++) {
        for (size_t k = 0; k < i; k++) {
            if (same_item(f, reflect_item(m, f, i), reflect_item(m, f, k))) {
                violation(c, path, "repeated value must contain unique items");
                return;
            }
        }
    }
}

static void check_count(struct checker *c, const struct proto_path *path, struct group g,
                        bool is_map, size_t n) {
    const struct proto_rule *min =
        find_rule(g, is_map ? PROTO_RULE_MIN_PAIRS : PROTO_RULE_MIN_ITEMS);
    const struct proto_rule *max =
        find_rule(g, is_map ? PROTO_RULE_MAX_PAIRS : PROTO_RULE_MAX_ITEMS);
    const char *unit = is_map ? "pair" : "item";
    bool too_few = min && n < min->v.u, too_many = max && n > max->v.u;
    if (!too_few && !too_many) {
        return;
    }
    if (min && max && min->v.u == max->v.u) {
        violation(c, path, "value must contain exactly %" PRIu64 " %s(s)", min->v.u, unit);
    } else if (min && max) {
        violation(c, path, "value must contain between %" PRIu64 " and %" PRIu64 " %ss, inclusive",
                  min->v.u, max->v.u, unit);
    } else if (too_few) {
        violation(c, path, "value must contain at least %" PRIu64 " %s(s)", min->v.u, unit);
    } else {
        violation(c, path, "value must contain no more than %" PRIu64 " %s(s)", max->v.u, unit);
    }
}

/* Rules of a list or map as a whole. */
static void check_container(struct checker *c, const struct proto_path *path, struct group g,
                            const struct proto_type *t, unsigned i, const ProtobufCMessage *m) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    size_t n = reflect_count(m, f);
    if (n == 0 && find_rule(g, PROTO_RULE_IGNORE_EMPTY)) {
        return;
    }
    check_count(c, path, g, t->fields[i].flags & PROTO_FIELD_MAP, n);
    if (find_rule(g, PROTO_RULE_UNIQUE)) {
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

static void check_items(struct checker *c, const struct proto_path *path, struct group g,
                        const struct proto_type *t, unsigned i, const ProtobufCMessage *m) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    const struct proto_type *entry = proto_field_type(t, i);
    unsigned member = g.rules[0].scope == PROTO_SCOPE_VALUE;
    for (size_t k = 0; k < reflect_count(m, f); k++) {
        struct proto_path at = item_path(path, t, i, m, k);
        const void *item = reflect_item(m, f, k);
        if (g.rules[0].scope == PROTO_SCOPE_ITEM) {
            check_value(c, &at, g, t, i, item);
            continue;
        }
        const void *v = reflect_member(reflect_message(item), &entry->desc->fields[member]);
        if (entry->desc->fields[member].type != PROTOBUF_C_TYPE_MESSAGE || reflect_message(v)) {
            check_value(c, &at, g, entry, member, v);
        }
    }
}

static void check_group(struct checker *c, const struct proto_path *up, struct group g,
                        const struct proto_type *t, const ProtobufCMessage *m) {
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
        if (find_rule(g, PROTO_RULE_REQUIRED)) {
            violation(c, &path, "value is required");
        }
    } else {
        check_value(c, &path, g, t, i, reflect_member(m, f));
    }
}

static void check_message(struct checker *c, const struct proto_path *path,
                          const struct proto_type *t, const ProtobufCMessage *m);

/* The messages that field i holds. */
static void descend(struct checker *c, const struct proto_path *up, const struct proto_type *t,
                    unsigned i, const ProtobufCMessage *m) {
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

static void check_message(struct checker *c, const struct proto_path *path,
                          const struct proto_type *t, const ProtobufCMessage *m) {
    for (size_t k = 0; k < t->rules_n;) {
        const struct proto_rule *first = &t->rules[k];
        size_t n = 1;
        if (first->op == PROTO_RULE_ONEOF_REQUIRED) {
            if (!reflect_oneof_case(m, &t->desc->fields[first->field])) {
                violation(c, path, "field: \"%s\", reason: is required", first->v.s);
            }
            k++;
            continue;
        }
        while (k + n < t->rules_n && first[n].field == first->field &&
               first[n].scope == first->scope) {
            n++;
        }
        check_group(c, path, (struct group){first, n}, t, m);
        k += n;
    }
    for (unsigned i = 0; i < t->desc->n_fields; i++) {
        if (!is_skipped(t, i)) {
            descend(c, path, t, i, m);
        }
    }
}

bool pb_rules_check(const ProtobufCMessage *m, struct diag *d) {
    struct checker c = {d, true};
    const struct proto_type *t = proto_type_of(m->descriptor);
    CHECK(t != NULL);
    if (t->flags & PROTO_TYPE_CHECKED) {
        check_message(&c, NULL, t, m);
    }
    return c.ok;
}
