/* Templates become one anchored RE2 pattern; a variable is a group, a rewrite a list of literals
 * and group numbers.
 * Threads: compiled on the config thread, immutable afterwards. Spec:
 * extensions.path.{match,rewrite}.uri_template.v3. */
#include "proxy/api/uri_template.h"

#include "proxy/base/buf.h"
#include "proxy/base/regex.h"

#define VARIABLES_MAX 5
#define VARIABLE_NAME_MAX 16
/* Characters of a path segment: RFC 3986 pchar. */
#define SEGMENT_CLASS "[a-zA-Z0-9\\-._~%!$&'()+,;:@*=]+"
#define PATH_CLASS "[a-zA-Z0-9\\-._~%!$&'()+,;:@*=/]*"

struct rewrite_part {
    sv literal;
    int group; /* 0: literal */
};
struct uri_template {
    const struct regex *regex;
    sv names[VARIABLES_MAX];
    unsigned names_n;
    /* of a rewrite only */
    const struct rewrite_part *parts;
    unsigned parts_n;
};

/* Parsing state: `out` collects the pattern, `error` the first fault found. */
struct parse {
    struct uri_template *t;
    struct buf out;
    sv rest;
    bool has_text_glob;
    const char *error;
};

static bool fail(struct parse *p, const char *why) {
    p->error = p->error ? p->error : why;
    return false;
}

/* A `*` in the middle of a literal is refused: it would be taken for an operator by half of the
 * readers. */
static bool is_literal_char(char c) {
    return ascii_isalnum(c) || (c && strchr("-._~%!$&'()+,;:@=", c) != NULL);
}

static void free_regex(void *r) { regex_free((struct regex *)r); }

static bool put_literal(struct parse *p, sv literal) {
    if (literal.n == 0) {
        return fail(p, "invalid literal");
    }
    for (size_t i = 0; i < literal.n; i++) {
        if (!is_literal_char(literal.p[i])) {
            return fail(p, "invalid literal");
        }
        if (!ascii_isalnum(literal.p[i])) {
            buf_lit(&p->out, "\\");
        }
        buf_append(&p->out, literal.p + i, 1);
    }
    return true;
}

static bool put_glob(struct parse *p, bool is_text) {
    if (p->has_text_glob) {
        return fail(p, "glob after text glob");
    }
    if (is_text) {
        p->has_text_glob = true;
        buf_lit(&p->out, PATH_CLASS);
    } else {
        buf_lit(&p->out, SEGMENT_CLASS);
    }
    return true;
}

/* "**" or "*" at the front of *s. */
static bool eat_glob(struct parse *p, sv *s) {
    bool is_text = sv_eat(s, SV("**"));
    if (!is_text) {
        sv_eat(s, SV("*"));
    }
    return put_glob(p, is_text);
}

static bool eat_literal(struct parse *p, sv *s) {
    size_t end = sv_find(*s, '/');
    sv literal = sv_sub(*s, 0, end == SIZE_MAX ? s->n : end);
    *s = sv_skip(*s, literal.n);
    return put_literal(p, literal);
}

static bool is_name(sv name) {
    if (name.n == 0 || !ascii_isalnum(name.p[0]) || ascii_isdigit(name.p[0])) {
        return false;
    }
    for (size_t i = 1; i < name.n; i++) {
        if (!ascii_isalnum(name.p[i]) && name.p[i] != '_') {
            return false;
        }
    }
    return true;
}

static bool add_name(struct parse *p, sv name) {
    if (!is_name(name)) {
        return fail(p, "invalid variable name");
    }
    if (name.n > VARIABLE_NAME_MAX) {
        return fail(p, "invalid variable length");
    }
    for (unsigned i = 0; i < p->t->names_n; i++) {
        if (sv_eq(p->t->names[i], name)) {
            return fail(p, "repeated variable name");
        }
    }
    if (p->t->names_n == VARIABLES_MAX) {
        return fail(p, "exceeded variable count limit");
    }
    p->t->names[p->t->names_n++] = name;
    return true;
}

/* What stands behind '=' in a variable: literals and globs parted by '/'. */
static bool put_variable_pattern(struct parse *p, sv pattern) {
    if (pattern.n == 0) {
        return fail(p, "empty variable match");
    }
    while (pattern.n) {
        if (!(pattern.p[0] == '*' ? eat_glob(p, &pattern) : eat_literal(p, &pattern))) {
            return false;
        }
        if (pattern.n == 0) {
            break;
        }
        if (!sv_eat(&pattern, SV("/")) || pattern.n == 0) {
            return fail(p, "invalid variable match");
        }
        buf_lit(&p->out, "/");
    }
    return true;
}

static bool eat_variable(struct parse *p, sv *s) {
    size_t end = sv_find(*s, '}');
    if (end == SIZE_MAX) {
        return fail(p, "unmatched variable bracket");
    }
    sv inside = sv_sub(*s, 1, end - 1);
    *s = sv_skip(*s, end + 1);
    size_t eq = sv_find(inside, '=');
    if (!add_name(p, sv_sub(inside, 0, eq == SIZE_MAX ? inside.n : eq))) {
        return false;
    }
    buf_lit(&p->out, "(");
    bool ok =
        eq == SIZE_MAX ? put_glob(p, false) : put_variable_pattern(p, sv_skip(inside, eq + 1));
    buf_lit(&p->out, ")");
    return ok;
}

/* "*", "literal" or "literal{variable}literal". */
static bool eat_segment(struct parse *p) {
    if (p->rest.p[0] == '*') {
        return eat_glob(p, &p->rest);
    }
    size_t slash = sv_find(p->rest, '/'), open = sv_find(p->rest, '{');
    if (open == SIZE_MAX || slash < open) {
        return eat_literal(p, &p->rest);
    }
    sv before = sv_sub(p->rest, 0, open);
    p->rest = sv_skip(p->rest, open);
    if (before.n && !put_literal(p, before)) {
        return false;
    }
    if (!eat_variable(p, &p->rest)) {
        return false;
    }
    return p->rest.n == 0 || p->rest.p[0] == '/' || eat_literal(p, &p->rest);
}

static bool parse_pattern(struct parse *p) {
    if (!sv_eat(&p->rest, SV("/"))) {
        return fail(p, "a pattern begins with '/'");
    }
    buf_lit(&p->out, "\\A/");
    while (p->rest.n) {
        if (!eat_segment(p)) {
            return false;
        }
        if (sv_eat(&p->rest, SV("/"))) {
            buf_lit(&p->out, "/");
        } else if (p->rest.n) { /* a suffix: "/{file}.ts" */
            if (!eat_literal(p, &p->rest)) {
                return false;
            }
            if (p->rest.n) {
                return fail(p, "prefix match not supported");
            }
        }
    }
    buf_lit(&p->out, "\\z");
    return true;
}

struct uri_template *uri_template_compile(struct compile_ctx *ctx, sv pattern) {
    struct parse p = {.t = arena_new(ctx->arena, struct uri_template),
                      .rest = arena_sv(ctx->arena, pattern)};
    buf_init(&p.out);
    struct regex *r = NULL;
    char err[256];
    if (parse_pattern(&p)) {
        sv text = buf_pullup(&p.out, buf_len(&p.out));
        r = regex_new(text.p, text.n, err, sizeof(err));
        p.error = r ? NULL : err;
    }
    if (!r) {
        diag_error(ctx->diag, "path_match_policy.path_template %.*s is invalid: %s",
                   SV_ARG(pattern), p.error);
    }
    buf_fini(&p.out);
    if (!r) {
        return NULL;
    }
    arena_on_fini(ctx->arena, free_regex, r);
    p.t->regex = r;
    return p.t;
}

bool uri_template_match(const struct uri_template *t, sv path) {
    return regex_full_match(t->regex, path.p, path.n);
}

/* --- rewriting --- */

static int group_of(const struct uri_template *t, sv name) {
    for (unsigned i = 0; i < t->names_n; i++) {
        if (sv_eq(t->names[i], name)) {
            return (int)i + 1;
        }
    }
    return 0;
}

static const char *check_literal(sv literal) {
    for (size_t i = 0; i < literal.n; i++) {
        if (literal.p[i] != '/' && !is_literal_char(literal.p[i])) {
            return "invalid rewrite literal pattern";
        }
    }
    return NULL;
}

/* Cut `pattern` into parts; returns what is wrong with it, or NULL. */
static const char *parse_rewrite(struct uri_template *t, const struct uri_template *match,
                                 sv pattern, struct rewrite_part *parts) {
    if (!sv_starts(pattern, SV("/"))) {
        return "invalid rewrite variable placement";
    }
    if (sv_contains(pattern, SV("//"))) {
        return "invalid rewrite literal";
    }
    while (pattern.n) {
        size_t open = sv_find(pattern, '{');
        sv literal = sv_sub(pattern, 0, open == SIZE_MAX ? pattern.n : open);
        const char *why = check_literal(literal);
        if (why) {
            return why;
        }
        if (literal.n) {
            parts[t->parts_n++].literal = literal;
        }
        if (open == SIZE_MAX) {
            break;
        }
        pattern = sv_skip(pattern, open + 1);
        size_t close = sv_find(pattern, '}');
        if (close == SIZE_MAX) {
            return "unmatched variable bracket";
        }
        int group = group_of(match, sv_sub(pattern, 0, close));
        if (group == 0) {
            return "nonexisting variable name";
        }
        parts[t->parts_n++].group = group;
        pattern = sv_skip(pattern, close + 1);
    }
    return NULL;
}

struct uri_template *uri_template_rewrite_compile(struct compile_ctx *ctx, sv pattern,
                                                  const struct uri_template *match) {
    struct uri_template *t = arena_new(ctx->arena, struct uri_template);
    sv text = arena_sv(ctx->arena, pattern);
    /* At most one part for each byte. */
    struct rewrite_part *parts = arena_new_array(ctx->arena, struct rewrite_part, text.n + 1);
    const char *why = parse_rewrite(t, match, text, parts);
    if (why) {
        diag_error(ctx->diag, "path_rewrite_policy.path_template_rewrite %.*s is invalid: %s",
                   SV_ARG(pattern), why);
        return NULL;
    }
    t->regex = match->regex;
    t->parts = parts;
    return t;
}

sv uri_template_rewrite(const struct uri_template *rewrite, sv path, struct arena *a) {
    struct regex_cap caps[VARIABLES_MAX + 1];
    memset(caps, 0, sizeof(caps));
    int groups = regex_groups(rewrite->regex);
    if (!regex_capture(rewrite->regex, path.p, path.n, caps, groups + 1)) {
        return SV_NULL;
    }
    size_t n = 0;
    for (unsigned i = 0; i < rewrite->parts_n; i++) {
        n +=
            rewrite->parts[i].group ? caps[rewrite->parts[i].group].n : rewrite->parts[i].literal.n;
    }
    char *out = (char *)arena_alloc(a, n + 1), *to = out;
    for (unsigned i = 0; i < rewrite->parts_n; i++) {
        const struct rewrite_part *part = &rewrite->parts[i];
        sv s = part->group ? sv_from(caps[part->group].p, caps[part->group].n) : part->literal;
        if (s.n) {
            memcpy(to, s.p, s.n);
            to += s.n;
        }
    }
    *to = '\0';
    return sv_from(out, n);
}
