/* Format strings: parsing into literals and operators, text output.
 * Threads: see formatter.h. Spec: Envoy's substitution formatter, including its error texts.
 * Not here: the operators (formatter_*.c), JSON formats (formatter_json.c),
 * SubstitutionFormatString (substitution.c). */
#include "proxy/observe/formatter.h"

#include "proxy/base/vec.h"
#include "proxy/observe/formatter_internal.h"

#define FORMAT_PARTS_MAX 4096

struct part {
    bool is_op;
    sv literal;
    struct fmt_op op;
};
struct formatter {
    const struct part *parts;
    size_t n;
    bool omit_empty;
};

/* --- one command: %NAME%, %NAME(args)%, %NAME(args):len% --- */

struct command {
    sv name, args; /* args.p NULL: no parentheses, or empty ones */
    size_t max_len;
    bool has_len;
};

static bool is_command_char(char c) {
    return (c >= 'A' && c <= 'Z') || ascii_isdigit(c) || c == '_';
}

/* ":digits%" or "%" at the front of *rest: consumed. */
static bool eat_tail(sv *rest, struct command *c) {
    sv at = *rest;
    c->has_len = false;
    c->max_len = SIZE_MAX;
    if (sv_eat(&at, SV(":"))) {
        uint64_t n;
        if (!sv_eat_u64(&at, 20, &n)) {
            return false;
        }
        c->has_len = true;
        c->max_len = n;
    }
    if (!sv_eat(&at, SV("%"))) {
        return false;
    }
    *rest = at;
    return true;
}

/* Parse behind the first '%'. The arguments end at the first ')' that a valid tail follows. */
static bool eat_command(sv *rest, struct command *c) {
    sv at = *rest;
    size_t n = 0;
    while (n < at.n && is_command_char(at.p[n])) {
        n++;
    }
    *c = (struct command){.name = sv_sub(at, 0, n)};
    at = sv_skip(at, n);
    if (n == 0) {
        return false;
    }
    if (!at.n || at.p[0] != '(') {
        *rest = at;
        return eat_tail(rest, c);
    }
    for (size_t i = 1; i < at.n; i++) {
        sv tail = sv_skip(at, i + 1);
        if (at.p[i] == ')' && eat_tail(&tail, c)) {
            c->args = i > 1 ? sv_sub(at, 1, i - 1) : SV_NULL;
            *rest = tail;
            return true;
        }
    }
    return false;
}

/* --- operators by name --- */

static const struct fmt_def *find_def(sv name) {
    static const struct fmt_table *const tables[] = {&fmt_table_http, &fmt_table_upstream,
                                                     &fmt_table_conn, &fmt_table_time,
                                                     &fmt_table_meta, &fmt_table_tls};
    for (size_t t = 0; t < ARRAY_LEN(tables); t++) {
        for (size_t i = 0; i < tables[t]->n; i++) {
            if (sv_is(name, tables[t]->defs[i].name)) {
                return &tables[t]->defs[i];
            }
        }
    }
    return NULL;
}

static bool check_syntax(struct compile_ctx *ctx, const struct fmt_def *def, sv args,
                         bool has_len) {
    if (def->args == FMT_ARGS_NONE && (args.n || has_len)) {
        return diag_error(ctx->diag, "%s does not take any parameters or length", def->name);
    }
    if (def->args == FMT_ARGS_REQUIRED && !args.n) {
        return diag_error(ctx->diag, "%s requires parameters", def->name);
    }
    if (has_len && !def->has_length) {
        return diag_error(ctx->diag, "%s does not allow length to be specified.", def->name);
    }
    return true;
}

bool fmt_op_compile(struct compile_ctx *ctx, sv command, sv args, size_t max_len, bool has_len,
                    bool req_without_query, struct fmt_op *op) {
    const struct fmt_def *def = find_def(command);
    if (!def || (sv_is(command, "REQ_WITHOUT_QUERY") && !req_without_query)) {
        return diag_error(ctx->diag, "Not supported field in StreamInfo: %.*s", SV_ARG(command));
    }
    if (!check_syntax(ctx, def, args, has_len)) {
        return false;
    }
    *op = (struct fmt_op){
        .def = def, .eval = def->eval, .max_len = max_len, .text = arena_sv(ctx->arena, args)};
    return !def->compile || def->compile(ctx, op, args.n ? op->text : SV_NULL);
}

/* --- compile --- */

struct parser {
    struct compile_ctx *ctx;
    bool req_without_query;
    VEC(struct part) parts;
    struct buf literal;
};

static void end_literal(struct parser *p) {
    if (buf_len(&p->literal)) {
        sv text = buf_pullup(&p->literal, buf_len(&p->literal));
        *vec_push(&p->parts) = (struct part){.literal = arena_sv(p->ctx->arena, text)};
        buf_clear(&p->literal);
    }
}

static bool parse_command(struct parser *p, sv format, sv *rest) {
    struct command c;
    size_t at = format.n - rest->n;
    sv body = sv_skip(*rest, 1);
    if (!eat_command(&body, &c)) {
        return diag_error(
            p->ctx->diag,
            "Incorrect configuration: %.*s. Couldn't find valid command at position %zu",
            SV_ARG(format), at);
    }
    end_literal(p);
    if (p->parts.n >= FORMAT_PARTS_MAX) {
        return diag_error(p->ctx->diag, "format has more than %d parts", FORMAT_PARTS_MAX);
    }
    struct part *part = vec_push(&p->parts);
    part->is_op = true;
    *rest = body;
    return fmt_op_compile(p->ctx, c.name, c.args, c.max_len, c.has_len, p->req_without_query,
                          &part->op);
}

static bool parse(struct parser *p, sv format) {
    sv rest = format;
    while (rest.n) {
        size_t percent = sv_find(rest, '%');
        buf_append_sv(&p->literal, sv_sub(rest, 0, percent));
        rest = sv_skip(rest, percent);
        if (!rest.n) {
            break;
        }
        if (rest.n > 1 && rest.p[1] == '%') {
            buf_lit(&p->literal, "%");
            rest = sv_skip(rest, 2);
        } else if (!parse_command(p, format, &rest)) {
            return false;
        }
    }
    end_literal(p);
    return true;
}

struct formatter *formatter_compile_ext(struct compile_ctx *ctx, sv format, bool omit_empty,
                                        bool req_without_query) {
    struct parser p = {.ctx = ctx, .req_without_query = req_without_query};
    struct formatter *f = NULL;
    if (parse(&p, format)) {
        f = arena_new(ctx->arena, struct formatter);
        struct part *parts = arena_new_array(ctx->arena, struct part, p.parts.n ? p.parts.n : 1);
        if (p.parts.n) {
            memcpy(parts, p.parts.p, p.parts.n * sizeof(*parts));
        }
        f->parts = parts;
        f->n = p.parts.n;
        f->omit_empty = omit_empty;
    }
    vec_fini(&p.parts);
    buf_fini(&p.literal);
    return f;
}

struct formatter *formatter_compile(struct compile_ctx *ctx, sv format, bool omit_empty) {
    return formatter_compile_ext(ctx, format, omit_empty, false);
}

bool formatter_is_literal(const struct formatter *f, sv *literal) {
    if (f->n > 1 || (f->n == 1 && f->parts[0].is_op)) {
        return false;
    }
    *literal = f->n ? f->parts[0].literal : SV("");
    return true;
}

const struct fmt_op *formatter_single(const struct formatter *f) {
    return f->n == 1 && f->parts[0].is_op ? &f->parts[0].op : NULL;
}

/* --- output --- */

void fmt_eval(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    v->kind = FMT_NONE;
    op->eval(op, c, v);
    bool is_text = v->kind == FMT_STR || v->kind == FMT_QUOTED;
    if (v->kind == FMT_KV && v->kv->kind == KV_STRING) {
        v->kind = FMT_STR;
        v->s = v->kv->s;
        is_text = true;
    } else if (v->kind == FMT_KV && v->kv->kind == KV_NULL) {
        v->kind = FMT_NONE;
    }
    if (is_text && v->s.n > op->max_len) {
        v->s.n = op->max_len;
    }
}

static void write_u64(uint64_t u, struct buf *out) {
    char t[20], *p = t + sizeof(t);
    do {
        *--p = (char)('0' + u % 10);
        u /= 10;
    } while (u);
    buf_append(out, p, (size_t)(t + sizeof(t) - p));
}

/* Metadata trees print as JSON, cut to the operator's length. */
static void write_kv(const struct fmt_op *op, const struct kv_value *kv, struct buf *out) {
    if (op->max_len == SIZE_MAX) {
        kv_write_json(kv, out);
        return;
    }
    BUF_AUTO struct buf t = {0};
    kv_write_json(kv, &t);
    size_t n = buf_len(&t) < op->max_len ? buf_len(&t) : op->max_len;
    buf_move_n(out, &t, n);
}

void fmt_write(const struct fmt_op *op, const struct fmt_value *v, bool omit_empty,
               struct buf *out) {
    switch (v->kind) {
    case FMT_NONE:
        if (!omit_empty) {
            buf_lit(out, "-");
        }
        break;
    case FMT_STR:
        buf_append_sv(out, v->s);
        break;
    case FMT_QUOTED:
        buf_lit(out, "\"");
        json_escape(out, v->s);
        buf_lit(out, "\"");
        break;
    case FMT_U64:
        write_u64(v->u, out);
        break;
    case FMT_BOOL:
        buf_append_sv(out, v->u ? SV("true") : SV("false"));
        break;
    case FMT_KV:
        write_kv(op, v->kv, out);
        break;
    }
}

void formatter_text(const struct formatter *f, const struct stream_info *si, struct buf *out) {
    BUF_AUTO struct buf scratch = {0};
    struct fmt_ctx c;
    c.si = si;
    c.scratch = &scratch;
    for (size_t i = 0; i < f->n; i++) {
        const struct part *p = &f->parts[i];
        if (!p->is_op) {
            buf_append_sv(out, p->literal);
            continue;
        }
        struct fmt_value v;
        fmt_eval(&p->op, &c, &v);
        fmt_write(&p->op, &v, f->omit_empty, out);
        if (UNLIKELY(!buf_empty(&scratch))) {
            buf_clear(&scratch);
        }
    }
}

/* --- response flags --- */

static const struct {
    const char *name, *longname;
} flag_names[] = {
#define X(name, longname) {#name, longname},
    RESPONSE_FLAGS(X)
#undef X
};

static void write_those(uint64_t flags, bool is_long, bool *any, struct buf *out) {
    for (unsigned i = 0; i < FLAG_BITS && flags; i++) {
        if (flags >> i & 1) {
            buf_append_sv(out, *any ? SV(",") : SV(""));
            buf_append_sv(out, sv_cstr(is_long ? flag_names[i].longname : flag_names[i].name));
            *any = true;
        }
    }
}

/* A request's: it was delayed, then another attempt was refused, then the last one had ended. */
static void write_of_request(uint64_t flags, bool is_long, struct buf *out) {
    const uint64_t first = RESPONSE_FLAG(DI), second = RESPONSE_FLAG(URX) | RESPONSE_FLAG(UO);
    bool any = false;
    write_those(flags & first, is_long, &any, out);
    write_those(flags & second, is_long, &any, out);
    write_those(flags & ~(first | second), is_long, &any, out);
    if (!any) {
        buf_lit(out, "-");
    }
}

void response_flags_write(uint64_t flags, struct buf *out) { write_of_request(flags, false, out); }

void stream_info_flags_write(const struct stream_info *si, bool is_long, struct buf *out) {
    bool any = false;
    if (si->has_protocol || !si->flags) {
        write_of_request(si->flags, is_long, out);
    } else {
        write_those(si->flags, is_long, &any, out);
    }
}

bool response_flag_parse(sv name, uint64_t *flag) {
    for (unsigned i = 0; i < FLAG_BITS; i++) {
        if (sv_is(name, flag_names[i].name)) {
            *flag = 1ull << i;
            return true;
        }
    }
    return false;
}
