/* A parser of the protobuf text format by reflection: one pass, tokens taken from the front of a
 * view.
 * Threads: the arena's owner.
 * Spec: Text Format Language Specification. Not taken: extensions, groups, unknown or reserved
 * fields.
 * Not here: constraints (pb_rules.c). */
#include "protos/pb_text.h"

#include <math.h>

#include "protos/any.h"
#include "protos/pb_text_token.h"
#include "protos/reflect.h"

struct parser {
    struct text_tokens tokens;
    struct arena *a;
    struct diag *d;
    unsigned depth;
};

static bool parse_message(struct parser *p, const struct proto_type *t, ProtobufCMessage *m,
                          sv end);

static bool fail(struct parser *p, const char *what, sv which) {
    const char *quote = which.n ? "'" : "";
    sv shown = which.n ? which : SV("");
    return diag_error(p->d, "text format: line %u: %s%s%s%.*s%s", p->tokens.line, what,
                      which.n ? " " : "", quote, SV_ARG(shown), quote);
}

static bool next(struct parser *p) {
    return text_next(&p->tokens) || fail(p, p->tokens.problem, SV_NULL);
}

static bool is_symbol(const struct parser *p, const char *symbol) {
    return p->tokens.kind == TEXT_SYMBOL && sv_is(p->tokens.token, symbol);
}

static bool expect(struct parser *p, const char *symbol) {
    if (!is_symbol(p, symbol)) {
        return fail(p, arena_printf(p->a, "expected %s before", symbol).p, p->tokens.token);
    }
    return next(p);
}

/* --- scalars: the current token is the value's first --- */

static bool store_integer(struct parser *p, ProtobufCType type, bool is_negative, void *out) {
    uint64_t v;
    if (p->tokens.kind != TEXT_NUMBER || !text_to_u64(p->tokens.token, &v)) {
        return fail(p, "expected an integer, not", p->tokens.token);
    }
    bool is_wide = reflect_is_64bit(type), is_unsigned = reflect_class_of(type) == REFLECT_UNSIGNED;
    uint64_t max =
        is_unsigned ? (is_wide ? UINT64_MAX : UINT32_MAX) : (is_wide ? INT64_MAX : INT32_MAX);
    max += !is_unsigned && is_negative;
    if (v > max || (is_unsigned && is_negative && v)) {
        return fail(p, "number out of range:", p->tokens.token);
    }
    v = is_negative ? 0 - v : v;
    if (is_wide) {
        *(uint64_t *)out = v;
    } else {
        *(uint32_t *)out = (uint32_t)v;
    }
    return true;
}

static bool real_of(sv token, double *out) {
    if (sv_eq_nocase(token, SV("inf")) || sv_eq_nocase(token, SV("infinity"))) {
        *out = INFINITY;
        return true;
    }
    if (sv_eq_nocase(token, SV("nan"))) {
        *out = NAN;
        return true;
    }
    uint64_t v;
    if (text_to_u64(token, &v)) {
        *out = (double)v;
        return true;
    }
    if (sv_ends_nocase(token, SV("f"))) {
        token.n--;
    }
    return sv_to_double(token, out);
}

static bool store_real(struct parser *p, ProtobufCType type, bool is_negative, void *out) {
    double v;
    if (!real_of(p->tokens.token, &v)) {
        return fail(p, "expected a number, not", p->tokens.token);
    }
    v = is_negative ? -v : v;
    if (type == PROTOBUF_C_TYPE_DOUBLE) {
        *(double *)out = v;
    } else {
        *(float *)out = (float)v;
    }
    return true;
}

static bool store_bool(struct parser *p, void *out) {
    static const char *const yes[] = {"true", "True", "t", "1"}, *const no[] = {"false", "False",
                                                                                "f", "0"};
    for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
        bool is_yes = sv_is(p->tokens.token, yes[i]);
        if (is_yes || sv_is(p->tokens.token, no[i])) {
            *(protobuf_c_boolean *)out = is_yes;
            return true;
        }
    }
    return fail(p, "expected true or false, not", p->tokens.token);
}

static bool store_enum(struct parser *p, const ProtobufCFieldDescriptor *f, bool is_negative,
                       void *out) {
    if (p->tokens.kind != TEXT_NAME) {
        return store_integer(p, PROTOBUF_C_TYPE_INT32, is_negative, out);
    }
    const ProtobufCEnumValue *named = protobuf_c_enum_descriptor_get_value_by_name(
        reflect_enum_of(f), arena_cstr(p->a, p->tokens.token));
    if (!named) {
        return fail(p, "unknown enum value", p->tokens.token);
    }
    *(int *)out = named->value;
    return true;
}

/* Adjacent strings are one. Leaves the token behind them current. */
static bool store_text(struct parser *p, bool is_string, void *out) {
    struct buf text BUF_AUTO;
    buf_init(&text);
    if (p->tokens.kind != TEXT_STRING) {
        return fail(p, "expected a string, not", p->tokens.token);
    }
    while (p->tokens.kind == TEXT_STRING) {
        if (!text_unescape(p->tokens.token, &text)) {
            return fail(p, "bad escape in string", SV_NULL);
        }
        if (!next(p)) {
            return false;
        }
    }
    sv s = arena_sv(p->a, buf_pullup(&text, buf_len(&text)));
    if (!is_string) {
        *(ProtobufCBinaryData *)out = (ProtobufCBinaryData){s.n, (uint8_t *)(uintptr_t)s.p};
        return true;
    }
    if (sv_find(s, '\0') != SIZE_MAX || !sv_is_utf8(s)) {
        return fail(p, "string is not UTF-8 text", SV_NULL);
    }
    *(const char **)out = s.p;
    return true;
}

static bool parse_scalar(struct parser *p, const ProtobufCFieldDescriptor *f, void *out) {
    enum reflect_class class = reflect_class_of(f->type);
    if (class == REFLECT_STRING || class == REFLECT_BYTES) {
        return store_text(p, class == REFLECT_STRING, out);
    }
    bool is_negative = is_symbol(p, "-");
    if (is_negative && !next(p)) {
        return false;
    }
    bool ok = class == REFLECT_REAL   ? store_real(p, f->type, is_negative, out)
              : class == REFLECT_BOOL ? store_bool(p, out)
              : class == REFLECT_ENUM ? store_enum(p, f, is_negative, out)
                                      : store_integer(p, f->type, is_negative, out);
    return ok && next(p);
}

/* --- fields --- */

static bool parse_block(struct parser *p, const struct proto_type *t, ProtobufCMessage *m) {
    sv end = is_symbol(p, "<") ? SV(">") : SV("}");
    if (!is_symbol(p, "<") && !is_symbol(p, "{")) {
        return fail(p, "expected { before", p->tokens.token);
    }
    if (p->depth == PB_TEXT_DEPTH_MAX) {
        return fail(p, "nested too deeply", SV_NULL);
    }
    p->depth++;
    bool ok = next(p) && parse_message(p, t, m, end) && next(p);
    p->depth--;
    return ok;
}

static bool parse_value(struct parser *p, const struct proto_type *t, unsigned i, void *out) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    if (f->type != PROTOBUF_C_TYPE_MESSAGE) {
        return parse_scalar(p, f, out);
    }
    ProtobufCMessage *inner = *(ProtobufCMessage **)out = reflect_new(reflect_message_of(f), p->a);
    return parse_block(p, proto_field_type(t, i), inner);
}

/* Room for one more item at the end; arrays double, the old ones stay in the arena. */
static void *append_item(struct parser *p, ProtobufCMessage *m, const ProtobufCFieldDescriptor *f) {
    size_t n = reflect_count(m, f), size = reflect_value_size(f->type);
    char **array = reflect_member_mut(m, f);
    if ((n & (n - 1)) == 0) {
        char *grown = arena_zalloc_array(p->a, n ? 2 * n : 1, size);
        if (n) {
            memcpy(grown, *array, n * size);
        }
        *array = grown;
    }
    reflect_set_count(m, f, n + 1);
    return *array + n * size;
}

static bool parse_repeated(struct parser *p, const struct proto_type *t, unsigned i,
                           ProtobufCMessage *m) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    if (!is_symbol(p, "[")) {
        return parse_value(p, t, i, append_item(p, m, f));
    }
    if (!next(p)) {
        return false;
    }
    while (!is_symbol(p, "]")) {
        if (!parse_value(p, t, i, append_item(p, m, f))) {
            return false;
        }
        if (!is_symbol(p, "]") && !expect(p, ",")) {
            return false;
        }
    }
    return next(p);
}

static bool parse_single(struct parser *p, const struct proto_type *t, unsigned i,
                         ProtobufCMessage *m) {
    const ProtobufCFieldDescriptor *f = &t->desc->fields[i];
    bool is_taken = reflect_in_oneof(f) ? reflect_oneof_case(m, f) != 0 : reflect_has(m, f);
    if (is_taken) {
        return fail(p, "field or its oneof is set twice:", sv_cstr(f->name));
    }
    if (reflect_in_oneof(f)) {
        reflect_set_oneof_case(m, f);
    }
    return parse_value(p, t, i, reflect_member_mut(m, f));
}

/* [type.googleapis.com/pkg.Name] { … }, the '[' being current. */
static bool parse_any(struct parser *p, ProtobufCMessage *m) {
    sv url;
    if (!text_type_url(&p->tokens, &url)) {
        return fail(p, "expected a type URL in brackets", SV_NULL);
    }
    const struct proto_type *t = any_type(url);
    if (!t) {
        return fail(p, "unknown type", url);
    }
    ProtobufCMessage *inner = reflect_new(t->desc, p->a);
    if (!next(p) || (is_symbol(p, ":") && !next(p)) || !parse_block(p, t, inner)) {
        return false;
    }
    Pb__Any *any = (Pb__Any *)(void *)m;
    sv bytes = proto_pack(inner, p->a);
    any->type_url = arena_cstr(p->a, url);
    any->value = (ProtobufCBinaryData){bytes.n, (uint8_t *)(uintptr_t)bytes.p};
    return true;
}

static bool parse_field(struct parser *p, const struct proto_type *t, ProtobufCMessage *m) {
    if (t->kind == PROTO_KIND_ANY && is_symbol(p, "[")) {
        return parse_any(p, m);
    }
    if (p->tokens.kind != TEXT_NAME) {
        return fail(p, "expected a field name, not", p->tokens.token);
    }
    const ProtobufCFieldDescriptor *f =
        protobuf_c_message_descriptor_get_field_by_name(t->desc, arena_cstr(p->a, p->tokens.token));
    if (!f) {
        return fail(p, arena_printf(p->a, "message %s has no field", t->name).p, p->tokens.token);
    }
    if (!next(p)) {
        return false;
    }
    bool needs_colon = f->type != PROTOBUF_C_TYPE_MESSAGE;
    if ((needs_colon || is_symbol(p, ":")) && !expect(p, ":")) {
        return false;
    }
    unsigned i = (unsigned)(f - t->desc->fields);
    return (reflect_is_repeated(f) ? parse_repeated : parse_single)(p, t, i, m);
}

/* Up to `end`, which stays current; .p NULL: the end of the text. */
static bool parse_message(struct parser *p, const struct proto_type *t, ProtobufCMessage *m,
                          sv end) {
    while (end.p ? !(p->tokens.kind == TEXT_SYMBOL && sv_eq(p->tokens.token, end))
                 : p->tokens.kind != TEXT_END) {
        if (!parse_field(p, t, m)) {
            return false;
        }
        if ((is_symbol(p, ",") || is_symbol(p, ";")) && !next(p)) {
            return false;
        }
    }
    return true;
}

ProtobufCMessage *pb_text_parse(const struct proto_type *t, sv text, struct arena *a,
                                struct diag *d) {
    struct parser p = {.tokens = {.rest = text, .line = 1}, .a = a, .d = d};
    ProtobufCMessage *m = reflect_new(t->desc, a);
    return next(&p) && parse_message(&p, t, m, SV_NULL) ? m : NULL;
}
