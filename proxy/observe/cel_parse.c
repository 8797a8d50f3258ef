/* CEL source text to a tree: lexer, precedence parser, macros. Threads: config thread.
 * Spec: CEL language definition, "Syntax" and "Macros". Not here: field selection of messages by
 * container, message construction (`Type{…}`), optional syntax (`a.?b`). */
#include "proxy/observe/cel_internal.h"

struct parser {
    struct cel_compiler c;
    sv text, rest;
};

static struct cel_node *parse_expr(struct parser *p);

static size_t offset_of(const struct parser *p) { return p->text.n - p->rest.n; }
static void *syntax_error(struct parser *p, const char *wanted) {
    diag_error(p->c.ctx->diag, "syntax error at offset %zu: expected %s", offset_of(p), wanted);
    return NULL;
}

static void skip_space(struct parser *p) {
    for (;;) {
        while (p->rest.n && (unsigned char)p->rest.p[0] <= ' ') {
            p->rest = sv_skip(p->rest, 1);
        }
        if (!sv_starts(p->rest, SV("//"))) {
            return;
        }
        p->rest = sv_skip(p->rest, sv_find(p->rest, '\n'));
    }
}
static bool is_ident_byte(char c) { return ascii_isalnum(c) || c == '_'; }
static bool eat(struct parser *p, const char *token) {
    skip_space(p);
    return sv_eat(&p->rest, sv_cstr(token));
}
/* A word operator is none when it only begins a longer name. */
static bool eat_word(struct parser *p, const char *word) {
    skip_space(p);
    size_t n = strlen(word);
    if (!sv_starts(p->rest, sv_cstr(word)) || (p->rest.n > n && is_ident_byte(p->rest.p[n]))) {
        return false;
    }
    p->rest = sv_skip(p->rest, n);
    return true;
}
static bool want(struct parser *p, const char *token) {
    return eat(p, token) || syntax_error(p, token) != NULL;
}
static sv peek_ident(const struct parser *p) {
    size_t n = 0;
    if (p->rest.n && !ascii_isdigit(p->rest.p[0])) {
        while (n < p->rest.n && is_ident_byte(p->rest.p[n])) {
            n++;
        }
    }
    return sv_sub(p->rest, 0, n);
}
static bool is_reserved(sv name) {
    static const char *const words[] = {
        "as", "break", "const", "continue",  "else",    "for",    "function", "if",   "import",
        "in", "let",   "loop",  "namespace", "package", "return", "var",      "void", "while"};
    for (size_t i = 0; i < ARRAY_LEN(words); i++) {
        if (sv_is(name, words[i])) {
            return true;
        }
    }
    return false;
}
static sv eat_ident(struct parser *p) {
    skip_space(p);
    sv name = peek_ident(p);
    p->rest = sv_skip(p->rest, name.n);
    return name;
}

static struct cel_node *constant(struct parser *p, struct cel_value v) {
    struct cel_node *n = cel_node_new(&p->c, CEL_OP_CONST, 0);
    if (n) {
        n->value = v;
    }
    return n;
}
static struct cel_node *call2(struct parser *p, const char *function, struct cel_node *a,
                              struct cel_node *b) {
    struct cel_node *args[] = {a, b};
    return a && b ? cel_node_call(&p->c, sv_cstr(function), false, args, 2) : NULL;
}
static struct cel_node *call1(struct parser *p, const char *function, struct cel_node *a) {
    return a ? cel_node_call(&p->c, sv_cstr(function), false, &a, 1) : NULL;
}

/* --- literals --- */

static bool put_utf8(char **out, uint32_t c) {
    char *o = *out;
    if (c > 0x10ffff || (c >= 0xd800 && c < 0xe000)) {
        return false;
    }
    if (c < 0x80) {
        *o++ = (char)c;
    } else if (c < 0x800) {
        *o++ = (char)(0xc0 | c >> 6);
        *o++ = (char)(0x80 | (c & 0x3f));
    } else {
        if (c < 0x10000) {
            *o++ = (char)(0xe0 | c >> 12);
        } else {
            *o++ = (char)(0xf0 | c >> 18);
            *o++ = (char)(0x80 | (c >> 12 & 0x3f));
        }
        *o++ = (char)(0x80 | (c >> 6 & 0x3f));
        *o++ = (char)(0x80 | (c & 0x3f));
    }
    *out = o;
    return true;
}

/* The digits of \xHH, \uHHHH, \UHHHHHHHH or \ooo after the letter. */
static bool eat_code(sv *s, unsigned digits, unsigned base, uint32_t *out) {
    *out = 0;
    for (unsigned i = 0; i < digits; i++) {
        int d = s->n ? ascii_hex(s->p[0]) : -1;
        if (d < 0 || (unsigned)d >= base) {
            return false;
        }
        *out = *out * base + (uint32_t)d;
        *s = sv_skip(*s, 1);
    }
    return true;
}

/* One escape behind the backslash. A code of bytes is a byte, of strings a code point. */
static bool eat_escape(sv *s, char **out, bool is_bytes) {
    static const char letters[] = "abfnrtv\\?\"'`", meant[] = "\a\b\f\n\r\t\v\\?\"'`";
    if (!s->n) {
        return false;
    }
    const char *at = memchr(letters, s->p[0], sizeof letters - 1);
    if (at) {
        *(*out)++ = meant[at - letters];
        *s = sv_skip(*s, 1);
        return true;
    }
    char c = s->p[0];
    uint32_t code;
    bool ok;
    if (c == 'x' || c == 'X') {
        *s = sv_skip(*s, 1);
        ok = eat_code(s, 2, 16, &code);
    } else if (!is_bytes && (c == 'u' || c == 'U')) {
        *s = sv_skip(*s, 1);
        ok = eat_code(s, c == 'u' ? 4 : 8, 16, &code);
    } else {
        ok = c >= '0' && c <= '3' && eat_code(s, 3, 8, &code);
    }
    if (ok && is_bytes) {
        *(*out)++ = (char)code;
        return true;
    }
    return ok && put_utf8(out, code);
}

/* The front is at the opening quote. */
static struct cel_node *parse_quoted(struct parser *p, bool is_raw, bool is_bytes) {
    char quote = p->rest.p[0];
    const char triple[] = {quote, quote, quote, 0}, single[] = {quote, 0};
    bool is_triple = sv_eat(&p->rest, sv_cstr(triple));
    sv end = sv_cstr(is_triple ? triple : single);
    if (!is_triple) {
        p->rest = sv_skip(p->rest, 1);
    }
    char *text = arena_alloc(p->c.ctx->arena, p->rest.n + 1), *out = text;
    while (!sv_starts(p->rest, end)) {
        if (!p->rest.n || (!is_triple && p->rest.p[0] == '\n')) {
            return syntax_error(p, "the closing quote");
        }
        char c = p->rest.p[0];
        p->rest = sv_skip(p->rest, 1);
        if (c != '\\' || is_raw) {
            *out++ = c;
        } else if (!eat_escape(&p->rest, &out, is_bytes)) {
            return syntax_error(p, "an escape sequence");
        }
    }
    p->rest = sv_skip(p->rest, end.n);
    sv s = sv_from(text, (size_t)(out - text));
    return constant(p, (struct cel_value){.kind = is_bytes ? CEL_BYTES : CEL_STRING, .s = s});
}

/* "…", r"…", b"…", br"…"; false: the front is no string. */
static bool parse_string(struct parser *p, struct cel_node **out) {
    bool is_raw = false, is_bytes = false;
    size_t n = 0;
    for (; n < 2 && n < p->rest.n; n++) {
        char c = p->rest.p[n];
        if ((c == 'r' || c == 'R') && !is_raw) {
            is_raw = true;
        } else if ((c == 'b' || c == 'B') && !is_bytes) {
            is_bytes = true;
        } else {
            break;
        }
    }
    if (n >= p->rest.n || (p->rest.p[n] != '"' && p->rest.p[n] != '\'')) {
        return false;
    }
    p->rest = sv_skip(p->rest, n);
    *out = parse_quoted(p, is_raw, is_bytes);
    return true;
}

static size_t digits_at(sv s, size_t from) {
    size_t n = from;
    while (n < s.n && ascii_isdigit(s.p[n])) {
        n++;
    }
    return n - from;
}
/* Length of a floating-point number at the front, 0 when it is an integer. */
static size_t double_length(sv s) {
    size_t n = digits_at(s, 0);
    bool is_double = false;
    if (n + 1 < s.n && s.p[n] == '.' && ascii_isdigit(s.p[n + 1])) {
        is_double = true;
        n += 1 + digits_at(s, n + 1);
    }
    if (n < s.n && (s.p[n] == 'e' || s.p[n] == 'E')) {
        size_t sign = n + 1 < s.n && (s.p[n + 1] == '+' || s.p[n + 1] == '-');
        size_t exponent = digits_at(s, n + 1 + sign);
        if (exponent) {
            is_double = true;
            n += 1 + sign + exponent;
        }
    }
    return is_double ? n : 0;
}

static bool eat_hex(sv *s, uint64_t *out) {
    size_t n = 0;
    *out = 0;
    for (; n < s->n && ascii_hex(s->p[n]) >= 0; n++) {
        if (*out >> 60) {
            return false;
        }
        *out = *out << 4 | (uint64_t)ascii_hex(s->p[n]);
    }
    *s = sv_skip(*s, n);
    return n > 0;
}

static struct cel_node *parse_number(struct parser *p, bool is_negative) {
    size_t n = double_length(p->rest);
    double d;
    uint64_t u;
    if (n) {
        if (!sv_to_double(sv_sub(p->rest, 0, n), &d)) {
            return syntax_error(p, "a number");
        }
        p->rest = sv_skip(p->rest, n);
        return constant(p, cel_double(is_negative ? -d : d));
    }
    bool is_hex = sv_eat(&p->rest, SV("0x")) || sv_eat(&p->rest, SV("0X"));
    if (!(is_hex ? eat_hex(&p->rest, &u) : sv_eat_u64(&p->rest, 20, &u))) {
        return syntax_error(p, "a number that fits into 64 bits");
    }
    if (!is_negative && (sv_eat(&p->rest, SV("u")) || sv_eat(&p->rest, SV("U")))) {
        return constant(p, cel_uint(u));
    }
    if (u > (uint64_t)INT64_MAX + is_negative) {
        return syntax_error(p, "an integer that fits into 64 bits");
    }
    return constant(p, cel_int((int64_t)(is_negative ? 0 - u : u)));
}

/* --- lists, maps, calls --- */

/* Expressions up to `close`, a trailing comma allowed; pairs with a colon when is_map. */
#define ITEMS_MAX 1024u
static bool parse_items(struct parser *p, const char *close, bool is_map, struct cel_node ***out,
                        unsigned *n) {
    struct cel_node **v = NULL;
    unsigned cap = 0;
    *n = 0;
    while (!eat(p, close)) {
        if (*n && !want(p, ",")) {
            return false;
        }
        if (*n && eat(p, close)) {
            break;
        }
        if (*n + 2 > ITEMS_MAX) {
            return syntax_error(p, "fewer items") != NULL;
        }
        if (*n + 2 > cap) {
            cap = cap ? cap * 2 : 8;
            struct cel_node **grown = arena_new_array(p->c.ctx->arena, struct cel_node *, cap);
            if (*n) {
                memcpy(grown, v, *n * sizeof(struct cel_node *));
            }
            v = grown;
        }
        v[(*n)++] = parse_expr(p);
        if (v[*n - 1] && is_map) {
            v[(*n)++] = want(p, ":") ? parse_expr(p) : NULL;
        }
        if (!v[*n - 1]) {
            return false;
        }
    }
    *out = v;
    return true;
}
static struct cel_node *collection(struct parser *p, enum cel_op op, const char *close) {
    struct cel_node **items;
    unsigned n;
    if (!parse_items(p, close, op == CEL_OP_MAP, &items, &n)) {
        return NULL;
    }
    struct cel_node *node = cel_node_new(&p->c, op, n);
    if (node && n) {
        memcpy(node->args, items, n * sizeof(struct cel_node *));
    }
    return node;
}

static struct cel_node *parse_has(struct parser *p) {
    struct cel_node *of = parse_expr(p);
    if (!of || !want(p, ")")) {
        return NULL;
    }
    if (of->op != CEL_OP_SELECT) {
        return syntax_error(p, "a field selection within has()");
    }
    of->op = CEL_OP_HAS;
    return of;
}

enum macro { MACRO_ALL, MACRO_EXISTS, MACRO_EXISTS_ONE, MACRO_MAP, MACRO_FILTER, MACRO_NONE };
static enum macro macro_of(sv name) {
    static const char *const names[] = {"all", "exists", "exists_one", "map", "filter"};
    unsigned i = 0;
    while (i < ARRAY_LEN(names) && !sv_is(name, names[i])) {
        i++;
    }
    return (enum macro)i;
}

static struct cel_node *variable(struct parser *p, unsigned index) {
    struct cel_node *n = cel_node_new(&p->c, CEL_OP_VAR, 0);
    if (n) {
        n->value = cel_int(index);
    }
    return n;
}
static struct cel_node *list_of(struct parser *p, struct cel_node *item) {
    struct cel_node *n = item ? cel_node_new(&p->c, CEL_OP_LIST, 1) : NULL;
    if (n) {
        n->args[0] = item;
    }
    return n;
}
static struct cel_node *cond(struct parser *p, struct cel_node *test, struct cel_node *yes,
                             struct cel_node *no) {
    struct cel_node *args[] = {test, yes, no};
    return test && yes && no ? cel_node_call(&p->c, SV("_?_:_"), false, args, 3) : NULL;
}

/* args: range, init, condition, step, result of the loop that the macro stands for; `acc` is the
 * index of the accumulator, test and value the macro's arguments (value NULL: the element
 * itself). */
static bool expand(struct parser *p, enum macro m, unsigned acc, struct cel_node *test,
                   struct cel_node *value, struct cel_node **args) {
    struct cel_node *item;
    args[2] = constant(p, cel_bool(true));
    args[4] = variable(p, acc);
    switch (m) {
    case MACRO_ALL:
        args[1] = constant(p, cel_bool(true));
        args[2] = call1(p, "@not_strictly_false", variable(p, acc));
        args[3] = call2(p, "_&&_", variable(p, acc), test);
        break;
    case MACRO_EXISTS:
        args[1] = constant(p, cel_bool(false));
        args[2] = call1(p, "@not_strictly_false", call1(p, "!_", variable(p, acc)));
        args[3] = call2(p, "_||_", variable(p, acc), test);
        break;
    case MACRO_EXISTS_ONE:
        args[1] = constant(p, cel_int(0));
        item = call2(p, "_+_", variable(p, acc), constant(p, cel_int(1)));
        args[3] = cond(p, test, item, variable(p, acc));
        args[4] = call2(p, "_==_", variable(p, acc), constant(p, cel_int(1)));
        break;
    case MACRO_MAP:
    case MACRO_FILTER:
        args[1] = cel_node_new(&p->c, CEL_OP_LIST, 0);
        item = call2(p, "_+_", variable(p, acc), list_of(p, value ? value : variable(p, acc - 1)));
        args[3] = test ? cond(p, test, item, variable(p, acc)) : item;
        break;
    case MACRO_NONE:
        return false;
    }
    return args[1] && args[2] && args[3] && args[4];
}

/* "test)" or, of map, "value)" and "test, value)". */
static bool macro_arguments(struct parser *p, enum macro m, struct cel_node **test,
                            struct cel_node **value) {
    *test = parse_expr(p);
    *value = NULL;
    if (*test && m == MACRO_MAP) {
        *value = *test;
        *test = NULL;
        if (eat(p, ",")) {
            *test = *value;
            *value = parse_expr(p);
        }
    }
    return (m == MACRO_MAP ? *value : *test) && want(p, ")");
}

/* range.all(x, test) and the like; the front is behind "(". */
static struct cel_node *parse_macro(struct parser *p, enum macro m, struct cel_node *range) {
    sv name = eat_ident(p);
    if (!name.n || is_reserved(name)) {
        return syntax_error(p, "the name of the loop variable");
    }
    unsigned outer = p->c.scope.n;
    if (!want(p, ",") || !cel_scope_push(&p->c, name) || !cel_scope_push(&p->c, SV("@result"))) {
        return NULL;
    }
    struct cel_node *test, *value;
    bool ok = macro_arguments(p, m, &test, &value);
    struct cel_node *loop = ok ? cel_node_new(&p->c, CEL_OP_LOOP, 5) : NULL;
    if (loop) {
        loop->value = cel_int(outer);
        loop->args[0] = range;
        ok = expand(p, m, outer + 1, test, value, loop->args);
    }
    p->c.scope.n = outer;
    return ok ? loop : NULL;
}

/* Of `target` (NULL: a function); the front is behind "(". */
static struct cel_node *parse_call(struct parser *p, sv name, struct cel_node *target) {
    struct cel_node *args[8];
    struct cel_node **items;
    unsigned n;
    if (target && macro_of(name) != MACRO_NONE) {
        return parse_macro(p, macro_of(name), target);
    }
    if (!target && sv_is(name, "has")) {
        return parse_has(p);
    }
    if (!parse_items(p, ")", false, &items, &n)) {
        return NULL;
    }
    if (n + 1 > ARRAY_LEN(args)) {
        return syntax_error(p, "fewer arguments");
    }
    unsigned from = target ? 1 : 0;
    args[0] = target;
    for (unsigned i = 0; i < n; i++) {
        args[from + i] = items[i];
    }
    return cel_node_call(&p->c, name, target != NULL, args, n + from);
}

/* --- precedence --- */

static struct cel_node *parse_primary(struct parser *p) {
    struct cel_node *node;
    skip_space(p);
    if (parse_string(p, &node)) {
        return node;
    }
    if (p->rest.n && ascii_isdigit(p->rest.p[0])) {
        return parse_number(p, false);
    }
    if (eat(p, "(")) {
        node = parse_expr(p);
        return node && want(p, ")") ? node : NULL;
    }
    if (eat(p, "[")) {
        return collection(p, CEL_OP_LIST, "]");
    }
    if (eat(p, "{")) {
        return collection(p, CEL_OP_MAP, "}");
    }
    eat(p, "."); /* of the outermost scope */
    sv name = peek_ident(p);
    if (!name.n || is_reserved(name)) {
        return syntax_error(p, "an expression");
    }
    p->rest = sv_skip(p->rest, name.n);
    if (sv_is(name, "true") || sv_is(name, "false")) {
        return constant(p, cel_bool(name.n == 4));
    }
    if (sv_is(name, "null")) {
        return constant(p, (struct cel_value){.kind = CEL_NULL});
    }
    return eat(p, "(") ? parse_call(p, name, NULL) : cel_node_ident(&p->c, name);
}

static struct cel_node *parse_member(struct parser *p) {
    struct cel_node *node = parse_primary(p);
    while (node) {
        if (eat(p, ".")) {
            sv name = eat_ident(p);
            if (!name.n) {
                return syntax_error(p, "a field or method name");
            }
            node =
                eat(p, "(") ? parse_call(p, name, node) : cel_node_select(&p->c, node, name, false);
        } else if (eat(p, "[")) {
            struct cel_node *index = parse_expr(p);
            node = index && want(p, "]") ? call2(p, "_[_]", node, index) : NULL;
        } else {
            break;
        }
    }
    return node;
}

static struct cel_node *parse_unary(struct parser *p) {
    skip_space(p);
    if (p->rest.n > 1 && p->rest.p[0] == '-' && ascii_isdigit(p->rest.p[1])) {
        p->rest = sv_skip(p->rest, 1);
        return parse_number(p, true);
    }
    bool is_not = p->rest.n && p->rest.p[0] == '!' && !sv_starts(p->rest, SV("!="));
    bool is_minus = p->rest.n && p->rest.p[0] == '-';
    if (!is_not && !is_minus) {
        return parse_member(p);
    }
    if (++p->c.depth > CEL_DEPTH_MAX) {
        return syntax_error(p, "fewer operators in a row");
    }
    p->rest = sv_skip(p->rest, 1);
    struct cel_node *node = call1(p, is_not ? "!_" : "-_", parse_unary(p));
    p->c.depth--;
    return node;
}

struct binary {
    const char *token, *function;
};
/* The operator at the front of one level of precedence; longer tokens come first. */
static const char *eat_operator(struct parser *p, const struct binary *ops, size_t n) {
    for (size_t i = 0; i < n; i++) {
        bool is_word = ops[i].token[0] == 'i';
        if (is_word ? eat_word(p, ops[i].token) : eat(p, ops[i].token)) {
            return ops[i].function;
        }
    }
    return NULL;
}

static struct cel_node *parse_level(struct parser *p, unsigned level) {
    static const struct {
        struct binary ops[7];
        unsigned n;
    } levels[] = {
        {{{"||", "_||_"}}, 1},
        {{{"&&", "_&&_"}}, 1},
        {{{"<=", "_<=_"},
          {">=", "_>=_"},
          {"==", "_==_"},
          {"!=", "_!=_"},
          {"<", "_<_"},
          {">", "_>_"},
          {"in", "@in"}},
         7},
        {{{"+", "_+_"}, {"-", "_-_"}}, 2},
        {{{"*", "_*_"}, {"/", "_/_"}, {"%", "_%_"}}, 3},
    };
    if (level == ARRAY_LEN(levels)) {
        return parse_unary(p);
    }
    struct cel_node *left = parse_level(p, level + 1);
    const char *function;
    while (left && (function = eat_operator(p, levels[level].ops, levels[level].n))) {
        left = call2(p, function, left, parse_level(p, level + 1));
    }
    return left;
}

static struct cel_node *parse_expr(struct parser *p) {
    if (++p->c.depth > CEL_DEPTH_MAX) {
        return syntax_error(p, "fewer levels");
    }
    struct cel_node *node = parse_level(p, 0);
    if (node && eat(p, "?")) {
        struct cel_node *yes = parse_expr(p);
        struct cel_node *no = yes && want(p, ":") ? parse_expr(p) : NULL;
        node = cond(p, node, yes, no);
    }
    p->c.depth--;
    return node;
}

const struct cel *cel_compile_text(struct compile_ctx *ctx, sv text) {
    if (text.n > CEL_TEXT_MAX) {
        diag_error(ctx->diag, "expression is longer than %u bytes", CEL_TEXT_MAX);
        return NULL;
    }
    struct parser p = {.c.ctx = ctx, .text = text, .rest = text};
    struct cel_node *root = parse_expr(&p);
    skip_space(&p);
    if (root && p.rest.n) {
        root = syntax_error(&p, "the end");
    }
    return root ? cel_make(ctx, root) : NULL;
}
