/* Cuts protobuf text format into tokens; strings and their escapes; integers.
 * Threads: any.
 * Spec: Text Format Language Specification, "Lexical Elements". */
#include "protos/pb_text_token.h"

static void skip_space(struct text_tokens *t) {
    while (t->rest.n) {
        char c = t->rest.p[0];
        if (c == '#') {
            size_t end = sv_find(t->rest, '\n');
            t->rest = end == SIZE_MAX ? SV_NULL : sv_skip(t->rest, end);
            continue;
        }
        if (c != ' ' && c != '\t' && c != '\r' && c != '\n' && c != '\f' && c != '\v') {
            return;
        }
        t->line += c == '\n';
        t->rest = sv_skip(t->rest, 1);
    }
}

static bool is_name_start(char c) { return (ascii_isalnum(c) && !ascii_isdigit(c)) || c == '_'; }

static void take(struct text_tokens *t, enum text_kind kind, size_t n) {
    t->kind = kind;
    t->token = sv_sub(t->rest, 0, n);
    t->rest = sv_skip(t->rest, n);
}

static void take_name(struct text_tokens *t) {
    size_t n = 1;
    while (n < t->rest.n && (ascii_isalnum(t->rest.p[n]) || t->rest.p[n] == '_')) {
        n++;
    }
    take(t, TEXT_NAME, n);
}

/* Whatever looks like a number; conversion tells whether it is one. */
static void take_number(struct text_tokens *t) {
    size_t n = 1;
    while (n < t->rest.n) {
        char c = t->rest.p[n], before = t->rest.p[n - 1];
        bool is_hex = sv_starts_nocase(t->rest, SV("0x"));
        bool is_exponent_sign =
            (c == '+' || c == '-') && !is_hex && (before == 'e' || before == 'E');
        if (!ascii_isalnum(c) && c != '.' && !is_exponent_sign) {
            break;
        }
        n++;
    }
    take(t, TEXT_NUMBER, n);
}

static bool take_string(struct text_tokens *t) {
    char quote = t->rest.p[0];
    for (size_t n = 1; n < t->rest.n && t->rest.p[n] != '\n'; n++) {
        if (t->rest.p[n] == quote) {
            t->kind = TEXT_STRING;
            t->token = sv_from(t->rest.p + 1, n - 1);
            t->rest = sv_skip(t->rest, n + 1);
            return true;
        }
        n += t->rest.p[n] == '\\';
    }
    t->problem = "string without its closing quote";
    return false;
}

bool text_next(struct text_tokens *t) {
    skip_space(t);
    if (!t->rest.n) {
        t->kind = TEXT_END;
        t->token = SV_NULL;
        return true;
    }
    char c = t->rest.p[0];
    if (c == '"' || c == '\'') {
        return take_string(t);
    }
    if (is_name_start(c)) {
        take_name(t);
    } else if (ascii_isdigit(c) || (c == '.' && t->rest.n > 1 && ascii_isdigit(t->rest.p[1]))) {
        take_number(t);
    } else if (c > ' ' && c < 0x7f) {
        take(t, TEXT_SYMBOL, 1);
    } else {
        t->problem = "unexpected character";
        return false;
    }
    return true;
}

bool text_type_url(struct text_tokens *t, sv *url) {
    size_t end = sv_find(t->rest, ']');
    if (end == SIZE_MAX) {
        return false;
    }
    *url = sv_trim(sv_sub(t->rest, 0, end));
    t->rest = sv_skip(t->rest, end + 1);
    for (size_t i = 0; i < url->n; i++) {
        if (url->p[i] <= ' ' || url->p[i] >= 0x7f) {
            return false;
        }
    }
    return url->n > 0;
}

static void append_utf8(struct buf *out, uint32_t c) {
    char b[4];
    if (c < 0x80) { /* one byte has no length bits */
        b[0] = (char)c;
        buf_append(out, b, 1);
        return;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n; i-- > 1; c >>= 6) {
        b[i] = (char)(0x80 | (c & 0x3f));
    }
    b[0] = (char)((0xf00 >> n & 0xf0) | c);
    buf_append(out, b, n);
}

/* Up to `max` digits of a base (8 or 16) off the front. False: none. */
static bool eat_digits(sv *s, unsigned base, unsigned max, uint32_t *out) {
    unsigned n = 0;
    *out = 0;
    for (; n < max && n < s->n; n++) {
        int digit = ascii_hex(s->p[n]);
        if (digit < 0 || (unsigned)digit >= base) {
            break;
        }
        *out = *out * base + (unsigned)digit;
    }
    *s = sv_skip(*s, n);
    return n > 0;
}

static bool unescape_number(sv *s, struct buf *out) {
    uint32_t v;
    char kind = s->p[0];
    if (kind >= '0' && kind <= '7') {
        eat_digits(s, 8, 3, &v);
        buf_append(out, &(char){(char)v}, 1);
        return v <= 255;
    }
    *s = sv_skip(*s, 1);
    if (kind == 'x' || kind == 'X') {
        bool ok = eat_digits(s, 16, 2, &v);
        buf_append(out, &(char){(char)v}, 1);
        return ok;
    }
    size_t want = kind == 'u' ? 4 : 8, before = s->n;
    if (!eat_digits(s, 16, (unsigned)want, &v) || before - s->n != want || v > 0x10ffff) {
        return false;
    }
    append_utf8(out, v);
    return true;
}

bool text_unescape(sv token, struct buf *out) {
    static const char from[] = "abfnrtv?\\'\"", to[] = "\a\b\f\n\r\t\v?\\'\"";
    while (token.n) {
        size_t plain = sv_find(token, '\\');
        plain = plain == SIZE_MAX ? token.n : plain;
        buf_append(out, token.p, plain);
        token = sv_skip(token, plain);
        if (!token.n) {
            break;
        }
        token = sv_skip(token, 1);
        if (!token.n) {
            return false;
        }
        const char *simple = token.p[0] ? strchr(from, token.p[0]) : NULL;
        if (simple) {
            buf_append(out, &to[simple - from], 1);
            token = sv_skip(token, 1);
        } else if (!strchr("01234567xXuU", token.p[0]) || !unescape_number(&token, out)) {
            return false;
        }
    }
    return true;
}

bool text_to_u64(sv token, uint64_t *out) {
    uint64_t v = 0;
    unsigned base = 10;
    if (sv_starts_nocase(token, SV("0x"))) {
        base = 16;
        token = sv_skip(token, 2);
    } else if (token.n > 1 && token.p[0] == '0') {
        base = 8;
    }
    for (size_t i = 0; i < token.n; i++) {
        int digit = ascii_hex(token.p[i]);
        if (digit < 0 || (unsigned)digit >= base || v > (UINT64_MAX - (unsigned)digit) / base) {
            return false;
        }
        v = v * base + (unsigned)digit;
    }
    *out = v;
    return token.n > 0;
}
