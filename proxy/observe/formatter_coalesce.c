/* %COALESCE({"operators":["A",{"command":"B","param":"x","max_length":3}]})%: the first operator
 * that has a value.
 * Threads: as other operators. Spec: Envoy's COALESCE, including its error texts. */
#include <jansson.h>

#include "proxy/observe/formatter_internal.h"

#define OPERATORS_MAX 32

struct coalesce {
    unsigned n;
    struct fmt_op v[OPERATORS_MAX];
};

static bool operator_from_object(struct compile_ctx *ctx, const json_t *j, size_t i,
                                 struct fmt_op *op) {
    const json_t *command = json_object_get(j, "command"), *param = json_object_get(j, "param");
    const json_t *max = json_object_get(j, "max_length");
    if (!json_is_string(command)) {
        return diag_error(ctx->diag,
                          "COALESCE: failed to parse operator at index %zu: operator object must "
                          "have 'command' field: key "
                          "'command' missing or not a string from lines 1-1",
                          i);
    }
    if (param && !json_is_string(param)) {
        return diag_error(ctx->diag,
                          "COALESCE: failed to parse operator at index %zu: 'param' field must be "
                          "a string: key 'param' missing "
                          "or not a string from lines 1-1",
                          i);
    }
    if (max && (!json_is_integer(max) || json_integer_value(max) <= 0)) {
        return diag_error(ctx->diag,
                          "COALESCE: failed to parse operator at index %zu: 'max_length' must be a "
                          "positive integer",
                          i);
    }
    size_t len = max ? (size_t)json_integer_value(max) : SIZE_MAX;
    sv args = param ? sv_from(json_string_value(param), json_string_length(param)) : SV_NULL;
    return fmt_op_compile(ctx, sv_from(json_string_value(command), json_string_length(command)),
                          args, len, false, false, op);
}

/* One entry, its own errors under ours. */
static bool operator_from(struct compile_ctx *ctx, const json_t *j, size_t i, struct fmt_op *op) {
    if (json_is_object(j)) {
        return operator_from_object(ctx, j, i, op);
    }
    if (!json_is_string(j)) {
        return diag_error(ctx->diag,
                          "COALESCE: failed to parse operator at index %zu: operator entry must be "
                          "either a string (command name) "
                          "or an object with 'command' field",
                          i);
    }
    struct diag quiet;
    diag_init(&quiet);
    struct compile_ctx sub = *ctx;
    sub.diag = &quiet;
    bool ok = fmt_op_compile(&sub, sv_from(json_string_value(j), json_string_length(j)), SV_NULL,
                             SIZE_MAX, false, false, op);
    sv why = diag_text(&quiet);
    if (!ok && sv_starts(why, SV("Not supported"))) {
        diag_error(ctx->diag,
                   "COALESCE: failed to parse operator at index %zu: unknown command: '%s'", i,
                   json_string_value(j));
    } else if (!ok) {
        diag_error(ctx->diag, "COALESCE: failed to parse operator at index %zu: %.*s", i,
                   SV_ARG(why));
    }
    diag_fini(&quiet);
    return ok;
}

static bool from_json(struct compile_ctx *ctx, const json_t *root, struct coalesce *c) {
    const json_t *ops = json_object_get(root, "operators");
    if (!json_is_object(root) || !ops) {
        return diag_error(ctx->diag, "COALESCE: JSON configuration must contain 'operators' array");
    }
    if (!json_is_array(ops)) {
        return diag_error(ctx->diag, "COALESCE: 'operators' must be an array");
    }
    if (json_array_size(ops) == 0) {
        return diag_error(ctx->diag, "COALESCE: 'operators' array must not be empty");
    }
    if (json_array_size(ops) > OPERATORS_MAX) {
        return diag_error(ctx->diag,
                          "COALESCE: 'operators' array must not have more than %d entries",
                          OPERATORS_MAX);
    }
    for (size_t i = 0; i < json_array_size(ops); i++) {
        if (!operator_from(ctx, json_array_get(ops, i), i, &c->v[c->n])) {
            return false;
        }
        c->n++;
    }
    return true;
}

bool fmt_coalesce_compile(struct compile_ctx *ctx, struct fmt_op *op, sv args) {
    json_error_t err;
    json_t *root = json_loadb(args.p, args.n, JSON_REJECT_DUPLICATES, &err);
    if (!root) {
        return diag_error(
            ctx->diag,
            "COALESCE: failed to parse JSON configuration: JSON supplied is not valid. %s",
            err.text);
    }
    struct coalesce *c = arena_new(ctx->arena, struct coalesce);
    bool ok = from_json(ctx, root, c);
    json_decref(root);
    op->arg = c;
    return ok;
}

void fmt_coalesce_eval(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct coalesce *all = op->arg;
    for (unsigned i = 0; i < all->n; i++) {
        fmt_eval(&all->v[i], c, v);
        if (v->kind != FMT_NONE) {
            return;
        }
    }
}
