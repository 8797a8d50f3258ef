/* JSON formats: a Struct whose strings are format strings. A string that is one operator keeps the
 * value's type.
 * Threads: see formatter.h. Keys come out ascending, as Envoy's do. */
#include "proxy/observe/formatter_internal.h"

#include <stdlib.h>

#include "protos/gen/pb.pb-c.h"

#define JSON_FORMAT_DEPTH_MAX 32

enum node_kind { NODE_RAW, NODE_TEXT, NODE_TYPED, NODE_OBJECT, NODE_ARRAY, NODE_NULL };
struct node {
    enum node_kind kind;
    sv raw; /* NODE_RAW: ready JSON */
    const struct formatter *text;
    const struct fmt_op *op; /* NODE_TYPED */
    struct member *members;  /* NODE_OBJECT, NODE_ARRAY */
    size_t n;
};
struct member {
    sv key; /* escaped, with quotes and colon; empty in arrays */
    struct node value;
};
struct json_formatter {
    struct node root;
    bool omit_empty;
};

struct maker {
    struct compile_ctx *ctx;
    bool omit_empty, req_without_query;
    unsigned depth;
};

static sv arena_json(struct arena *a, sv s, const char *behind) {
    BUF_AUTO struct buf b = {0};
    buf_lit(&b, "\"");
    json_escape(&b, s);
    buf_lit(&b, "\"");
    buf_append_sv(&b, sv_cstr(behind));
    return arena_sv(a, buf_pullup(&b, buf_len(&b)));
}

static bool make_value(struct maker *m, const Pb__Value *v, struct node *out);

static bool make_string(struct maker *m, sv s, struct node *out) {
    const struct formatter *f =
        formatter_compile_ext(m->ctx, s, m->omit_empty, m->req_without_query);
    if (!f) {
        return false;
    }
    sv literal;
    out->text = f;
    out->op = formatter_single(f);
    out->kind = out->op ? NODE_TYPED : NODE_TEXT;
    if (formatter_is_literal(f, &literal)) {
        out->kind = NODE_RAW;
        out->raw = arena_json(m->ctx->arena, literal, "");
    }
    return true;
}

static int by_key(const void *a, const void *b) {
    return strcmp((*(Pb__Struct__FieldsEntry *const *)a)->key,
                  (*(Pb__Struct__FieldsEntry *const *)b)->key);
}

static bool make_struct(struct maker *m, const Pb__Struct *s, struct node *out) {
    out->kind = NODE_OBJECT;
    out->n = s ? s->n_fields : 0;
    if (!out->n) {
        return true;
    }
    out->members = arena_new_array(m->ctx->arena, struct member, out->n);
    Pb__Struct__FieldsEntry **sorted = xmemdup(s->fields, out->n * sizeof(*sorted));
    qsort(sorted, out->n, sizeof(*sorted), by_key);
    bool ok = true;
    for (size_t i = 0; i < out->n && ok; i++) {
        out->members[i].key = arena_json(m->ctx->arena, sv_cstr(sorted[i]->key), ":");
        ok = make_value(m, sorted[i]->value, &out->members[i].value);
    }
    xfree(sorted);
    return ok;
}

static bool make_list(struct maker *m, const Pb__ListValue *l, struct node *out) {
    out->kind = NODE_ARRAY;
    out->n = l ? l->n_values : 0;
    out->members = out->n ? arena_new_array(m->ctx->arena, struct member, out->n) : NULL;
    for (size_t i = 0; i < out->n; i++) {
        if (!make_value(m, l->values[i], &out->members[i].value)) {
            return false;
        }
    }
    return true;
}

static sv arena_number(struct arena *a, double d) {
    BUF_AUTO struct buf b = {0};
    kv_write_number(d, &b);
    return arena_sv(a, buf_pullup(&b, buf_len(&b)));
}

static bool make_value(struct maker *m, const Pb__Value *v, struct node *out) {
    if (m->depth == JSON_FORMAT_DEPTH_MAX) {
        return diag_error(m->ctx->diag, "json_format is nested deeper than %d",
                          JSON_FORMAT_DEPTH_MAX);
    }
    m->depth++;
    bool ok = true;
    switch (v ? v->kind_case : PB__VALUE__KIND__NOT_SET) {
    case PB__VALUE__KIND_STRING_VALUE:
        ok = make_string(m, sv_cstr(v->string_value), out);
        break;
    case PB__VALUE__KIND_STRUCT_VALUE:
        ok = make_struct(m, v->struct_value, out);
        break;
    case PB__VALUE__KIND_LIST_VALUE:
        ok = make_list(m, v->list_value, out);
        break;
    case PB__VALUE__KIND_NUMBER_VALUE:
        *out = (struct node){.kind = NODE_RAW, .raw = arena_number(m->ctx->arena, v->number_value)};
        break;
    case PB__VALUE__KIND_BOOL_VALUE:
        *out = (struct node){.kind = NODE_RAW, .raw = v->bool_value ? SV("true") : SV("false")};
        break;
    default:
        out->kind = NODE_NULL;
    }
    m->depth--;
    return ok;
}

struct json_formatter *json_formatter_compile_ext(struct compile_ctx *ctx, const void *struct_msg,
                                                  bool omit_empty, bool req_without_query) {
    struct maker m = {.ctx = ctx, .omit_empty = omit_empty, .req_without_query = req_without_query};
    struct json_formatter *f = arena_new(ctx->arena, struct json_formatter);
    f->omit_empty = omit_empty;
    return make_struct(&m, struct_msg, &f->root) ? f : NULL;
}

struct json_formatter *json_formatter_compile(struct compile_ctx *ctx, const void *struct_msg,
                                              bool omit_empty) {
    return json_formatter_compile_ext(ctx, struct_msg, omit_empty, false);
}

/* --- output --- */

struct writer {
    struct fmt_ctx c;
    struct buf *out;
    bool omit_empty;
};

static void write_quoted(struct buf *out, sv s) {
    buf_lit(out, "\"");
    json_escape(out, s);
    buf_lit(out, "\"");
}

/* What goes before a value: put only once it is known that there is one. */
struct lead {
    bool comma;
    sv key;
    sv open; /* of containers that turned out not to be empty */
    struct lead *up;
    bool done;
};

static void put_lead(struct writer *w, struct lead *l) {
    if (l->done) {
        return;
    }
    l->done = true;
    if (l->up) {
        put_lead(w, l->up);
        if (l->up->comma) {
            buf_lit(w->out, ",");
        }
        l->up->comma = true;
    }
    buf_append_sv(w->out, l->key);
    buf_append_sv(w->out, l->open);
}

static void write_null(struct writer *w, struct lead *l) {
    if (!w->omit_empty) {
        put_lead(w, l);
        buf_lit(w->out, "null");
    }
}

static void write_typed(struct writer *w, const struct node *n, struct lead *l) {
    struct fmt_value v;
    fmt_eval(n->op, &w->c, &v);
    if (v.kind == FMT_NONE) {
        write_null(w, l);
        return;
    }
    put_lead(w, l);
    if (v.kind == FMT_STR || v.kind == FMT_QUOTED) {
        write_quoted(w->out, v.s);
    } else if (v.kind == FMT_KV) {
        kv_write_json(v.kv, w->out);
    } else {
        fmt_write(n->op, &v, false, w->out);
    }
    if (UNLIKELY(!buf_empty(w->c.scratch))) {
        buf_clear(w->c.scratch);
    }
}

static void write_text(struct writer *w, const struct node *n, struct lead *l) {
    BUF_AUTO struct buf text = {0};
    formatter_text(n->text, w->c.si, &text);
    put_lead(w, l);
    write_quoted(w->out, buf_pullup(&text, buf_len(&text)));
}

static void write_node(struct writer *w, const struct node *n, struct lead *l);

static void write_members(struct writer *w, const struct node *n, struct lead *l) {
    bool is_object = n->kind == NODE_OBJECT;
    l->open = is_object ? SV("{") : SV("[");
    if (!w->omit_empty) {
        put_lead(w, l);
    }
    for (size_t i = 0; i < n->n; i++) {
        struct lead sub = {.key = n->members[i].key, .up = l};
        write_node(w, &n->members[i].value, &sub);
    }
    if (l->done) {
        buf_append_sv(w->out, is_object ? SV("}") : SV("]"));
    }
}

static void write_node(struct writer *w, const struct node *n, struct lead *l) {
    switch (n->kind) {
    case NODE_RAW:
        put_lead(w, l);
        buf_append_sv(w->out, n->raw);
        break;
    case NODE_TEXT:
        write_text(w, n, l);
        break;
    case NODE_TYPED:
        write_typed(w, n, l);
        break;
    case NODE_OBJECT:
    case NODE_ARRAY:
        write_members(w, n, l);
        break;
    case NODE_NULL:
        write_null(w, l);
        break;
    }
}

void json_formatter_write(const struct json_formatter *f, const struct stream_info *si,
                          struct buf *out) {
    BUF_AUTO struct buf scratch = {0};
    struct writer w;
    w.c.si = si;
    w.c.scratch = &scratch;
    w.out = out;
    w.omit_empty = f->omit_empty;
    struct lead root = {.key = SV("")};
    write_node(&w, &f->root, &root);
    if (!root.done) {
        buf_lit(out, "{}");
    }
}
