/* One value against the rules of its field: numbers, durations, text, lists of good or bad values.
 * Threads: any; compiled patterns are shared and added once.
 * Spec: protoc-gen-validate's rules and texts, as Envoy's NACKs show them.
 * Not here: which values there are (pb_rules.c). */
#include "protos/pb_rules_value.h"

#include <inttypes.h>
#include <stdio.h>

#include "protos/gen/pb.pb-c.h"
#include "protos/reflect.h"
#include "proxy/base/regex.h"

#define OPERAND_MAX 64

void pb_rules_violation(struct pb_rules_checker *c, const struct proto_path *path, const char *fmt,
                        ...) {
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

const struct proto_rule *pb_rules_find(struct pb_rules_group g, enum proto_rule_op op) {
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
static void range_violation(struct pb_rules_checker *c, const struct proto_path *path,
                            ProtobufCType type, const struct proto_rule *low, bool gte,
                            const struct proto_rule *high, bool lte) {
    char a[OPERAND_MAX], b[OPERAND_MAX];
    operand(type, low, a);
    operand(type, high, b);
    if (is_inverted(type, low, high)) {
        pb_rules_violation(c, path, "value must be outside range %c%s, %s%c", lte ? '(' : '[', b, a,
                           gte ? ')' : ']');
    } else {
        pb_rules_violation(c, path, "value must be inside range %c%s, %s%c", gte ? '[' : '(', a, b,
                           lte ? ']' : ')');
    }
}

static void bound_violation(struct pb_rules_checker *c, const struct proto_path *path,
                            ProtobufCType type, const struct proto_rule *r, const char *relation,
                            bool or_equal) {
    char text[OPERAND_MAX];
    operand(type, r, text);
    pb_rules_violation(c, path, "value must be %s than %s%s", relation,
                       or_equal ? "or equal to " : "", text);
}

static void check_bounds(struct pb_rules_checker *c, const struct proto_path *path,
                         struct pb_rules_group g, struct ordered o) {
    const struct proto_rule *gte = pb_rules_find(g, PROTO_RULE_GTE);
    const struct proto_rule *lte = pb_rules_find(g, PROTO_RULE_LTE);
    const struct proto_rule *low = gte ? gte : pb_rules_find(g, PROTO_RULE_GT);
    const struct proto_rule *high = lte ? lte : pb_rules_find(g, PROTO_RULE_LT);
    bool low_ok = !low || greater(o, low, gte != NULL);
    bool high_ok = !high || less(o, high, lte != NULL);
    if (low_ok && high_ok) {
        return;
    }
    if (!high) {
        bound_violation(c, path, o.type, low, "greater", gte != NULL);
    } else if (!low) {
        bound_violation(c, path, o.type, high, "less", lte != NULL);
    } else if (!is_inverted(o.type, low, high) || (!low_ok && !high_ok)) {
        range_violation(c, path, o.type, low, gte != NULL, high, lte != NULL);
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

static void check_length(struct pb_rules_checker *c, const struct proto_path *path,
                         struct pb_rules_group g, bool is_string, sv s) {
    const struct proto_rule *min = pb_rules_find(g, PROTO_RULE_MIN_LEN),
                            *max = pb_rules_find(g, PROTO_RULE_MAX_LEN);
    const char *unit = is_string ? "characters" : "bytes";
    uint64_t n = is_string ? characters(s) : s.n;
    bool too_short = min && n < min->v.u, too_long = max && n > max->v.u;
    if (min && max && (too_short || too_long)) {
        pb_rules_violation(c, path,
                           "value length must be between %" PRIu64 " and %" PRIu64 " %s, inclusive",
                           min->v.u, max->v.u, unit);
    } else if (too_short) {
        pb_rules_violation(c, path, "value length must be at least %" PRIu64 " %s", min->v.u, unit);
    } else if (too_long) {
        pb_rules_violation(c, path, "value length must be at most %" PRIu64 " %s", max->v.u, unit);
    }
    const struct proto_rule *max_bytes = pb_rules_find(g, PROTO_RULE_MAX_BYTES);
    if (max_bytes && s.n > max_bytes->v.u) {
        pb_rules_violation(c, path, "value length must be at most %" PRIu64 " bytes",
                           max_bytes->v.u);
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

static void check_text(struct pb_rules_checker *c, const struct proto_path *path,
                       const struct proto_rule *r, sv s) {
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
            pb_rules_violation(c, path, "value does not have prefix \"%s\"", r->v.s);
        }
        break;
    case PROTO_RULE_SUFFIX:
        if (!sv_ends(s, sv_cstr(r->v.s))) {
            pb_rules_violation(c, path, "value does not have suffix \"%s\"", r->v.s);
        }
        break;
    default: /* lengths and lists are looked at elsewhere */
        break;
    }
    if (pattern) {
        pb_rules_violation(c, path, "value does not match regex pattern \"%s\"", pattern);
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

static void check_list(struct pb_rules_checker *c, const struct proto_path *path,
                       const struct proto_rule *r, const ProtobufCFieldDescriptor *f,
                       const void *v) {
    bool is_wanted = r->op == PROTO_RULE_IN;
    if (in_list(f, v, r) == is_wanted) {
        return;
    }
    struct buf text BUF_AUTO;
    buf_init(&text);
    list_text(f, r, &text);
    sv items = buf_pullup(&text, buf_len(&text));
    pb_rules_violation(c, path, "value must %sbe in list [%.*s]", is_wanted ? "" : "not ",
                       SV_ARG(items));
}

static void check_const(struct pb_rules_checker *c, const struct proto_path *path,
                        const struct proto_rule *r, const ProtobufCFieldDescriptor *f,
                        const void *v) {
    char text[OPERAND_MAX];
    if (f->type == PROTOBUF_C_TYPE_BOOL) {
        if ((*(const protobuf_c_boolean *)v != 0) != (r->v.u != 0)) {
            pb_rules_violation(c, path, "value must equal %s", r->v.u ? "true" : "false");
        }
        return;
    }
    struct ordered o = {f->type, v};
    if (!less(o, r, true) || !greater(o, r, true)) {
        pb_rules_violation(c, path, "value must equal %s", operand(f->type, r, text));
    }
}

/* --- one value --- */

static void check_single_rule(struct pb_rules_checker *c, const struct proto_path *path,
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
            pb_rules_violation(c, path, "value must be one of the defined enum values");
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
void pb_rules_value(struct pb_rules_checker *c, const struct proto_path *path,
                    struct pb_rules_group g, const struct proto_type *t, unsigned i,
                    const void *v) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    const struct proto_type *inner = proto_field_type(t, i);
    if (inner && inner->kind == PROTO_KIND_WRAPPER) {
        f = &inner->desc->fields[0];
        v = reflect_member(reflect_message(v), f);
    }
    if (pb_rules_find(g, PROTO_RULE_IGNORE_EMPTY) && reflect_is_zero(f->type, v)) {
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
