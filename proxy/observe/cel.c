/* CEL: building the tree and walking it. Threads: see cel.h.
 * Not here: text (cel_parse.c), messages (cel_expr.c), functions (cel_func.c), attributes
 * (cel_attr.c). */
#include "proxy/observe/cel_internal.h"

struct cel_node *cel_node_new(struct cel_compiler *c, enum cel_op op, unsigned args) {
    c->nodes += 1 + args;
    if (c->nodes > CEL_NODES_MAX) {
        diag_error(c->ctx->diag, "expression is larger than %u nodes", CEL_NODES_MAX);
        return NULL;
    }
    struct cel_node *n = arena_new(c->ctx->arena, struct cel_node);
    n->op = op;
    n->n = args;
    n->args = args ? arena_new_array(c->ctx->arena, struct cel_node *, args) : NULL;
    return n;
}

struct cel_node *cel_node_ident(struct cel_compiler *c, sv name) {
    for (unsigned i = c->scope.n; i-- > 0;) {
        if (sv_eq(c->scope.names[i], name)) {
            struct cel_node *n = cel_node_new(c, CEL_OP_VAR, 0);
            if (n) {
                n->value = cel_int(i);
            }
            return n;
        }
    }
    uint8_t root;
    if (!cel_root_find(name, &root)) {
        diag_error(c->ctx->diag, "undeclared reference to '%.*s'", SV_ARG(name));
        return NULL;
    }
    struct cel_node *n = cel_node_new(c, CEL_OP_ROOT, 0);
    if (n) {
        n->value.root = root;
    }
    return n;
}

struct cel_node *cel_node_select(struct cel_compiler *c, struct cel_node *of, sv field,
                                 bool is_has) {
    struct cel_node *n = cel_node_new(c, is_has ? CEL_OP_HAS : CEL_OP_SELECT, 1);
    if (n) {
        n->args[0] = of;
        n->name = arena_sv(c->ctx->arena, field);
    }
    return n;
}

bool cel_scope_push(struct cel_compiler *c, sv name) {
    if (c->scope.n == CEL_VARS_MAX) {
        return diag_error(c->ctx->diag, "more than %u loop variables within each other",
                          CEL_VARS_MAX);
    }
    c->scope.names[c->scope.n++] = name;
    return true;
}

static void free_regex(void *arg) { regex_free(arg); }

/* A constant pattern of matches() is compiled now, and refused now. */
static bool prepare_matches(struct cel_compiler *c, struct cel_node *n) {
    const struct cel_node *pattern = n->args[1];
    if (pattern->op != CEL_OP_CONST || pattern->value.kind != CEL_STRING) {
        return true;
    }
    char err[128];
    struct regex *re = regex_new(pattern->value.s.p, pattern->value.s.n, err, sizeof err);
    if (!re) {
        return diag_error(c->ctx->diag, "invalid regular expression '%.*s': %s",
                          SV_ARG(pattern->value.s), err);
    }
    arena_on_fini(c->ctx->arena, free_regex, re);
    n->regex = re;
    return true;
}

struct cel_node *cel_node_call(struct cel_compiler *c, sv function, bool has_target,
                               struct cel_node *const *args, unsigned n) {
    static const struct {
        const char *name;
        enum cel_op op;
        unsigned args;
    } special[] = {{"_&&_", CEL_OP_AND, 2}, {"_||_", CEL_OP_OR, 2}, {"_?_:_", CEL_OP_COND, 3}};
    enum cel_op op = CEL_OP_CALL;
    for (size_t i = 0; i < ARRAY_LEN(special); i++) {
        if (sv_is(function, special[i].name) && n == special[i].args) {
            op = special[i].op;
        }
    }
    const struct cel_func *func = op == CEL_OP_CALL ? cel_func_find(function, n) : NULL;
    if (op == CEL_OP_CALL && !func) {
        diag_error(c->ctx->diag, "undeclared %s '%.*s' with %u argument(s)",
                   has_target ? "method" : "function", SV_ARG(function), n - has_target);
        return NULL;
    }
    struct cel_node *node = cel_node_new(c, op, n);
    if (!node) {
        return NULL;
    }
    for (unsigned i = 0; i < n; i++) {
        node->args[i] = args[i];
    }
    node->func = func;
    return func && strcmp(func->name, "matches") == 0 && !prepare_matches(c, node) ? NULL : node;
}

/* --- evaluation --- */

static struct cel_value eval(struct cel_run *r, const struct cel_node *n);

static struct cel_value select_field(struct cel_run *r, const struct cel_node *n) {
    const struct cel_node *of = n->args[0];
    if (of->op == CEL_OP_ROOT) {
        struct cel_value root = cel_root_value(r, of->value.root);
        if (root.kind == CEL_MAP && root.map == CEL_MAP_ROOT) {
            return cel_root_get(r, of->value.root, n->name);
        }
    }
    struct cel_value v = eval(r, of);
    if (v.kind == CEL_ERROR) {
        return v;
    }
    struct cel_value key = cel_string(n->name);
    return v.kind == CEL_MAP ? cel_map_get(r, &v, &key) : cel_error("no matching overload");
}

/* Only the last step may be absent: has(a.b.c) is an error when a.b is not there. */
static struct cel_value eval_has(struct cel_run *r, const struct cel_node *n) {
    struct cel_value of = eval(r, n->args[0]);
    if (of.kind == CEL_ERROR) {
        return of;
    }
    if (of.kind != CEL_MAP) {
        return cel_error("no matching overload");
    }
    struct cel_value key = cel_string(n->name);
    return cel_bool(cel_map_get(r, &of, &key).kind != CEL_ERROR);
}

/* && and || are commutative: an error on one side gives way to a decision on the other. */
static struct cel_value eval_logic(struct cel_run *r, const struct cel_node *n) {
    bool decides = n->op == CEL_OP_OR;
    struct cel_value failed = cel_bool(false);
    bool has_failed = false;
    for (uint32_t i = 0; i < 2; i++) {
        struct cel_value v = eval(r, n->args[i]);
        if (v.kind == CEL_BOOL && v.b == decides) {
            return v;
        }
        if (v.kind != CEL_BOOL) {
            failed = v.kind == CEL_ERROR ? v : cel_error("no matching overload");
            has_failed = true;
        }
    }
    return has_failed ? failed : cel_bool(!decides);
}

static struct cel_value eval_cond(struct cel_run *r, const struct cel_node *n) {
    struct cel_value v = eval(r, n->args[0]);
    if (v.kind == CEL_ERROR) {
        return v;
    }
    return v.kind == CEL_BOOL ? eval(r, n->args[v.b ? 1 : 2]) : cel_error("no matching overload");
}

static struct cel_value eval_list(struct cel_run *r, const struct cel_node *n) {
    struct cel_value *v = arena_new_array(r->arena, struct cel_value, n->n ? n->n : 1);
    for (uint32_t i = 0; i < n->n; i++) {
        v[i] = eval(r, n->args[i]);
        if (v[i].kind == CEL_ERROR) {
            return v[i];
        }
    }
    return (struct cel_value){.kind = CEL_LIST, .list = {v, n->n}};
}

static struct cel_value eval_map(struct cel_run *r, const struct cel_node *n) {
    uint32_t pairs = n->n / 2;
    struct cel_pair *v = arena_new_array(r->arena, struct cel_pair, pairs ? pairs : 1);
    for (uint32_t i = 0; i < pairs; i++) {
        v[i].key = eval(r, n->args[2 * i]);
        v[i].value = v[i].key.kind == CEL_ERROR ? v[i].key : eval(r, n->args[2 * i + 1]);
        if (v[i].value.kind == CEL_ERROR) {
            return v[i].value;
        }
        for (uint32_t j = 0; j < i; j++) {
            if (cel_eq(&v[j].key, &v[i].key)) {
                return cel_error("duplicate key in map");
            }
        }
    }
    return (struct cel_value){.kind = CEL_MAP, .map = CEL_MAP_PAIRS, .pairs = {v, pairs}};
}

enum { LOOP_RANGE, LOOP_INIT, LOOP_CONDITION, LOOP_STEP, LOOP_RESULT, LOOP_PARTS };
static struct cel_value eval_loop(struct cel_run *r, const struct cel_node *n) {
    struct cel_value range = eval(r, n->args[LOOP_RANGE]);
    if (range.kind == CEL_MAP) {
        range = cel_map_keys(r, &range);
    }
    if (range.kind != CEL_LIST) {
        return range.kind == CEL_ERROR ? range : cel_error("no matching overload");
    }
    struct cel_value *element = &r->vars[n->value.i], *accumulator = element + 1;
    *accumulator = eval(r, n->args[LOOP_INIT]);
    for (size_t i = 0; i < range.list.n; i++) {
        if (++r->steps > CEL_STEPS_MAX) {
            return cel_error("iteration budget exceeded");
        }
        *element = range.list.v[i];
        struct cel_value go_on = eval(r, n->args[LOOP_CONDITION]);
        if (go_on.kind == CEL_BOOL && !go_on.b) {
            break;
        }
        *accumulator = eval(r, n->args[LOOP_STEP]);
    }
    return eval(r, n->args[LOOP_RESULT]);
}

/* Functions are strict, but for the one by which loops of the parsed form go on after an error. */
static struct cel_value eval_call(struct cel_run *r, const struct cel_node *n) {
    struct cel_value args[4];
    for (uint32_t i = 0; i < n->n; i++) {
        args[i] = eval(r, n->args[i]);
        if (args[i].kind == CEL_ERROR && !cel_func_is_lenient(n->func)) {
            return args[i];
        }
    }
    return n->func->call(r, n, args, n->n);
}

static struct cel_value eval(struct cel_run *r, const struct cel_node *n) {
    switch (n->op) {
    case CEL_OP_CONST:
        return n->value;
    case CEL_OP_ROOT:
        return cel_root_value(r, n->value.root);
    case CEL_OP_VAR:
        return r->vars[n->value.i];
    case CEL_OP_SELECT:
        return select_field(r, n);
    case CEL_OP_HAS:
        return eval_has(r, n);
    case CEL_OP_LIST:
        return eval_list(r, n);
    case CEL_OP_MAP:
        return eval_map(r, n);
    case CEL_OP_AND:
    case CEL_OP_OR:
        return eval_logic(r, n);
    case CEL_OP_COND:
        return eval_cond(r, n);
    case CEL_OP_CALL:
        return eval_call(r, n);
    case CEL_OP_LOOP:
        return eval_loop(r, n);
    }
    return cel_error("unknown operation");
}

static struct cel_value run(const struct cel *c, const struct stream_info *si,
                            struct arena *scratch) {
    struct cel_run r;
    r.si = si;
    r.proxy_node = c->proxy_node;
    r.arena = scratch;
    r.steps = 0;
    return eval(&r, c->root);
}

bool cel_holds(const struct cel *c, const struct stream_info *si, struct arena *scratch) {
    struct cel_value v = run(c, si, scratch);
    return v.kind == CEL_BOOL && v.b;
}

bool cel_text(const struct cel *c, const struct stream_info *si, struct arena *scratch, sv *out) {
    struct cel_value v = run(c, si, scratch);
    return cel_value_text(&v, scratch, out);
}
