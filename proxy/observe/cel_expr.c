/* CEL expressions from their parsed form. Threads: config thread.
 * Spec: google.api.expr.v1alpha1.Expr; cel.expr.Expr is the same on the wire. */
#include "proxy/observe/cel_internal.h"

#include "protos/any.h"
#include "protos/gen/cel_expr.pb-c.h"
#include "protos/gen/google_api_expr.pb-c.h"
#include "protos/gen/xds_type.pb-c.h"

typedef GoogleApiExpr__Expr Expr;

static struct cel_node *build(struct cel_compiler *c, const Expr *m);

static sv bytes_of(const ProtobufCBinaryData *b) { return sv_from(b->data, b->len); }

static struct cel_node *build_const(struct cel_compiler *c, const GoogleApiExpr__Constant *m) {
    struct cel_node *n = cel_node_new(c, CEL_OP_CONST, 0);
    if (!n) {
        return NULL;
    }
    switch (m->constant_kind_case) {
    case GOOGLE_API_EXPR__CONSTANT__CONSTANT_KIND_NULL_VALUE:
        n->value.kind = CEL_NULL;
        return n;
    case GOOGLE_API_EXPR__CONSTANT__CONSTANT_KIND_BOOL_VALUE:
        n->value = cel_bool(m->bool_value);
        return n;
    case GOOGLE_API_EXPR__CONSTANT__CONSTANT_KIND_INT64_VALUE:
        n->value = cel_int(m->int64_value);
        return n;
    case GOOGLE_API_EXPR__CONSTANT__CONSTANT_KIND_UINT64_VALUE:
        n->value = cel_uint(m->uint64_value);
        return n;
    case GOOGLE_API_EXPR__CONSTANT__CONSTANT_KIND_DOUBLE_VALUE:
        n->value = cel_double(m->double_value);
        return n;
    case GOOGLE_API_EXPR__CONSTANT__CONSTANT_KIND_STRING_VALUE:
        n->value = cel_string(arena_sv(c->ctx->arena, sv_cstr(m->string_value)));
        return n;
    case GOOGLE_API_EXPR__CONSTANT__CONSTANT_KIND_BYTES_VALUE:
        n->value = (struct cel_value){.kind = CEL_BYTES,
                                      .s = arena_sv(c->ctx->arena, bytes_of(&m->bytes_value))};
        return n;
    default:
        diag_error(c->ctx->diag, "const_expr: a constant of a kind that is not supported");
        return NULL;
    }
}

static struct cel_node *build_select(struct cel_compiler *c, const GoogleApiExpr__Expr__Select *m) {
    DIAG_FIELD(c->ctx->diag, "select_expr.operand");
    struct cel_node *of = build(c, m->operand);
    return of ? cel_node_select(c, of, sv_cstr(m->field), m->test_only) : NULL;
}

#define ARGS_MAX 4u
static struct cel_node *build_call(struct cel_compiler *c, const GoogleApiExpr__Expr__Call *m) {
    struct cel_node *args[ARGS_MAX];
    unsigned n = 0;
    DIAG_FIELD(c->ctx->diag, "call_expr");
    if (m->n_args + 1 > ARGS_MAX) {
        diag_error(c->ctx->diag, "undeclared function '%s' with %zu argument(s)", m->function,
                   m->n_args);
        return NULL;
    }
    if (m->target) {
        DIAG_FIELD(c->ctx->diag, "target");
        args[n++] = build(c, m->target);
        if (!args[0]) {
            return NULL;
        }
    }
    for (size_t i = 0; i < m->n_args; i++) {
        DIAG_FIELD(c->ctx->diag, "args[%zu]", i);
        args[n] = build(c, m->args[i]);
        if (!args[n++]) {
            return NULL;
        }
    }
    return cel_node_call(c, sv_cstr(m->function), m->target != NULL, args, n);
}

static struct cel_node *build_list(struct cel_compiler *c,
                                   const GoogleApiExpr__Expr__CreateList *m) {
    if (m->n_elements > CEL_NODES_MAX || m->n_optional_indices) {
        diag_error(c->ctx->diag, "list_expr: more than %u elements, or optional ones",
                   CEL_NODES_MAX);
        return NULL;
    }
    struct cel_node *n = cel_node_new(c, CEL_OP_LIST, (unsigned)m->n_elements);
    for (size_t i = 0; n && i < m->n_elements; i++) {
        DIAG_FIELD(c->ctx->diag, "list_expr.elements[%zu]", i);
        n->args[i] = build(c, m->elements[i]);
        n = n->args[i] ? n : NULL;
    }
    return n;
}

static struct cel_node *build_map(struct cel_compiler *c,
                                  const GoogleApiExpr__Expr__CreateStruct *m) {
    if (m->message_name[0]) {
        diag_error(c->ctx->diag, "struct_expr.message_name: messages cannot be made");
        return NULL;
    }
    if (m->n_entries > CEL_NODES_MAX / 2) {
        diag_error(c->ctx->diag, "struct_expr.entries: more than %u", CEL_NODES_MAX / 2);
        return NULL;
    }
    struct cel_node *n = cel_node_new(c, CEL_OP_MAP, 2 * (unsigned)m->n_entries);
    for (size_t i = 0; n && i < m->n_entries; i++) {
        const GoogleApiExpr__Expr__CreateStruct__Entry *e = m->entries[i];
        DIAG_FIELD(c->ctx->diag, "struct_expr.entries[%zu]", i);
        bool is_map =
            e->key_kind_case == GOOGLE_API_EXPR__EXPR__CREATE_STRUCT__ENTRY__KEY_KIND_MAP_KEY;
        if (!is_map || e->optional_entry) {
            diag_error(c->ctx->diag, "map_key: value is required");
            return NULL;
        }
        n->args[2 * i] = build(c, e->map_key);
        n->args[2 * i + 1] = n->args[2 * i] ? build(c, e->value) : NULL;
        n = n->args[2 * i + 1] ? n : NULL;
    }
    return n;
}

static struct cel_node *build_loop(struct cel_compiler *c,
                                   const GoogleApiExpr__Expr__Comprehension *m) {
    const Expr *parts[] = {m->iter_range, m->accu_init, m->loop_condition, m->loop_step, m->result};
    static const char *const fields[] = {"iter_range", "accu_init", "loop_condition", "loop_step",
                                         "result"};
    DIAG_FIELD(c->ctx->diag, "comprehension_expr");
    if (m->iter_var2[0]) {
        diag_error(c->ctx->diag, "iter_var2: loops over two variables are not supported");
        return NULL;
    }
    struct cel_node *n = cel_node_new(c, CEL_OP_LOOP, ARRAY_LEN(parts));
    unsigned outer = c->scope.n;
    if (n) {
        n->value = cel_int(outer);
    }
    for (unsigned i = 0; n && i < ARRAY_LEN(parts); i++) {
        DIAG_FIELD(c->ctx->diag, "%s", fields[i]);
        if (i == 2 && (!cel_scope_push(c, sv_cstr(m->iter_var)) ||
                       !cel_scope_push(c, sv_cstr(m->accu_var)))) {
            n = NULL;
            break;
        }
        n->args[i] = build(c, parts[i]);
        n = n->args[i] ? n : NULL;
    }
    c->scope.n = outer;
    return n;
}

static struct cel_node *build_kind(struct cel_compiler *c, const Expr *m) {
    switch (m->expr_kind_case) {
    case GOOGLE_API_EXPR__EXPR__EXPR_KIND_CONST_EXPR:
        return build_const(c, m->const_expr);
    case GOOGLE_API_EXPR__EXPR__EXPR_KIND_IDENT_EXPR:
        return cel_node_ident(c, sv_cstr(m->ident_expr->name));
    case GOOGLE_API_EXPR__EXPR__EXPR_KIND_SELECT_EXPR:
        return build_select(c, m->select_expr);
    case GOOGLE_API_EXPR__EXPR__EXPR_KIND_CALL_EXPR:
        return build_call(c, m->call_expr);
    case GOOGLE_API_EXPR__EXPR__EXPR_KIND_LIST_EXPR:
        return build_list(c, m->list_expr);
    case GOOGLE_API_EXPR__EXPR__EXPR_KIND_STRUCT_EXPR:
        return build_map(c, m->struct_expr);
    case GOOGLE_API_EXPR__EXPR__EXPR_KIND_COMPREHENSION_EXPR:
        return build_loop(c, m->comprehension_expr);
    default:
        diag_error(c->ctx->diag, "expression without a kind");
        return NULL;
    }
}

static struct cel_node *build(struct cel_compiler *c, const Expr *m) {
    if (!m) {
        diag_error(c->ctx->diag, "expression is missing");
        return NULL;
    }
    if (++c->depth > CEL_DEPTH_MAX) {
        diag_error(c->ctx->diag, "expression is nested deeper than %u levels", CEL_DEPTH_MAX);
        return NULL;
    }
    struct cel_node *n = build_kind(c, m);
    c->depth--;
    return n;
}

const struct cel *cel_compile_expr(struct compile_ctx *ctx, const void *expr_msg) {
    struct cel_compiler compiler = {.ctx = ctx};
    struct cel_node *root = build(&compiler, expr_msg);
    return root ? cel_make(ctx, root) : NULL;
}

/* cel.expr.Expr by way of its bytes. */
static const struct cel *compile_other(struct compile_ctx *ctx, const CelExpr__Expr *m) {
    if (!m) {
        diag_error(ctx->diag, "expr: value is required");
        return NULL;
    }
    struct arena transient;
    arena_init(&transient, 0);
    size_t n = protobuf_c_message_get_packed_size(&m->base);
    uint8_t *wire = arena_alloc(&transient, n + 1);
    protobuf_c_message_pack(&m->base, wire);
    const Expr *expr = PROTO_UNPACK(GoogleApiExpr__Expr, google_api_expr__expr__descriptor,
                                    sv_from(wire, n), &transient, ctx->diag);
    const struct cel *c = expr ? cel_compile_expr(ctx, expr) : NULL;
    arena_fini(&transient);
    return c;
}

const struct cel *cel_compile_expression(struct compile_ctx *ctx, const void *cel_expression_msg) {
    const XdsType__CelExpression *m = cel_expression_msg;
    if (m->cel_expr_checked) {
        DIAG_FIELD(ctx->diag, "cel_expr_checked");
        return compile_other(ctx, m->cel_expr_checked->expr);
    }
    if (m->cel_expr_parsed) {
        DIAG_FIELD(ctx->diag, "cel_expr_parsed");
        return compile_other(ctx, m->cel_expr_parsed->expr);
    }
    switch (m->expr_specifier_case) {
    case XDS_TYPE__CEL_EXPRESSION__EXPR_SPECIFIER_PARSED_EXPR: {
        DIAG_FIELD(ctx->diag, "parsed_expr.expr");
        return cel_compile_expr(ctx, m->parsed_expr->expr);
    }
    case XDS_TYPE__CEL_EXPRESSION__EXPR_SPECIFIER_CHECKED_EXPR: {
        DIAG_FIELD(ctx->diag, "checked_expr.expr");
        return cel_compile_expr(ctx, m->checked_expr->expr);
    }
    default:
        break;
    }
    DIAG_FIELD(ctx->diag, "cel_expr_string");
    return cel_compile_text(ctx, sv_cstr(m->cel_expr_string));
}
