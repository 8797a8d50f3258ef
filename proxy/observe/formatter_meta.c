/* Operators about metadata and filter state.
 * Threads: evaluated on workers. Spec: Envoy's DYNAMIC_METADATA, METADATA, FILTER_STATE and their
 * kin. */
#include "proxy/api/cel.h"
#include "proxy/observe/formatter_internal.h"

#define PATH_KEYS_MAX 16

enum source {
    META_DYNAMIC,
    META_CLUSTER,
    META_ROUTE,
    META_HOST,
    META_LISTENER,
    META_VHOST,
    META_NONE
};
struct meta_arg {
    enum source source;
    sv ns;
    unsigned n;
    sv path[PATH_KEYS_MAX];
};

static bool split_path(struct compile_ctx *ctx, struct meta_arg *m, sv args) {
    sv rest = args;
    m->ns = sv_cut(&rest, ':');
    while (rest.n) {
        if (m->n == PATH_KEYS_MAX) {
            return diag_error(ctx->diag, "metadata path has more than %d keys", PATH_KEYS_MAX);
        }
        m->path[m->n++] = sv_cut(&rest, ':');
    }
    return true;
}

static bool compile_meta(struct compile_ctx *ctx, struct fmt_op *op, sv args) {
    struct meta_arg *m = arena_new(ctx->arena, struct meta_arg);
    m->source = (enum source)op->def->sub;
    op->arg = m;
    return split_path(ctx, m, args);
}

static bool compile_typed(struct compile_ctx *ctx, struct fmt_op *op, sv args) {
    static const struct {
        const char *name;
        enum source source;
    } types[] = {{"DYNAMIC", META_DYNAMIC},   {"CLUSTER", META_CLUSTER},
                 {"ROUTE", META_ROUTE},       {"UPSTREAM_HOST", META_HOST},
                 {"LISTENER", META_LISTENER}, {"VIRTUAL_HOST", META_VHOST}};
    struct meta_arg *m = arena_new(ctx->arena, struct meta_arg);
    sv rest = args, type = sv_cut(&rest, ':');
    op->arg = m;
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (sv_is(type, types[i].name)) {
            m->source = types[i].source;
            return split_path(ctx, m, rest);
        }
    }
    if (sv_is(type, "LISTENER_FILTER_CHAIN")) { /* filter chains carry none here */
        m->source = META_NONE;
        return split_path(ctx, m, rest);
    }
    return diag_error(ctx->diag, "%.*s is not supported type of metadata", SV_ARG(type));
}

static const struct kv_metadata *metadata_from(const struct stream_info *si, enum source source) {
    switch (source) {
    case META_DYNAMIC:
        return si->metadata;
    case META_CLUSTER:
        return si->cluster_metadata;
    case META_ROUTE:
        return si->route_metadata;
    case META_HOST:
        return si->up.host && observe_hooks()->host_metadata
                   ? observe_hooks()->host_metadata(si->up.host)
                   : NULL;
    case META_LISTENER:
        return si->cx ? si->cx->listener_metadata : NULL;
    case META_VHOST:
        return si->vhost_metadata;
    case META_NONE:
        break;
    }
    return NULL;
}

static void eval_meta(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct meta_arg *m = op->arg;
    const struct kv_value *kv =
        kv_metadata_get(metadata_from(c->si, m->source), m->ns, m->path, m->n);
    if (kv) {
        v->kind = FMT_KV;
        v->kv = kv;
    }
}

/* --- filter state --- */

enum state_form { STATE_TYPED, STATE_PLAIN, STATE_FIELD };
struct state_arg {
    sv key, field;
    enum state_form form;
    bool is_upstream;
};

static bool state_form(struct compile_ctx *ctx, struct state_arg *a, sv form, bool has_field) {
    if (sv_is(form, "FIELD")) {
        a->form = STATE_FIELD;
        if (!a->field.n) {
            return diag_error(
                ctx->diag,
                "Invalid filter state serialize type, FIELD should be used with the field name.");
        }
        return true;
    }
    if (sv_is(form, "PLAIN")) {
        a->form = STATE_PLAIN;
    } else if (form.n && !sv_is(form, "TYPED")) {
        return diag_error(ctx->diag,
                          "Invalid filter state serialize type, only support PLAIN/TYPED/FIELD.");
    }
    if (has_field) {
        return diag_error(
            ctx->diag,
            "Invalid filter state serialize type, FIELD should be used with the field name.");
    }
    return true;
}

static bool compile_state(struct compile_ctx *ctx, struct fmt_op *op, sv args) {
    struct state_arg *a = arena_new(ctx->arena, struct state_arg);
    sv rest = args;
    a->key = sv_cut(&rest, ':');
    sv form = sv_cut(&rest, ':');
    a->field = rest;
    a->is_upstream = op->def->sub != 0;
    op->arg = a;
    if (!a->key.n) {
        return diag_error(ctx->diag, "Invalid filter state configuration, key cannot be empty.");
    }
    return state_form(ctx, a, form, rest.n > 0);
}

static void eval_state(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    const struct state_arg *a = op->arg;
    const struct filter_state_object *o =
        filter_state_get(a->is_upstream ? c->si->up.filter_state : c->si->filter_state, a->key);
    if (!o) {
        return;
    }
    switch (a->form) {
    case STATE_PLAIN:
        if (o->text.n || !o->typed) { /* else it has no form as text */
            fmt_str(v, o->text);
        }
        break;
    case STATE_TYPED:
        v->kind = o->typed ? FMT_KV : FMT_QUOTED;
        v->kv = o->typed;
        v->s = o->text;
        break;
    case STATE_FIELD:
        v->kv = kv_get(o->typed, a->field);
        v->kind = v->kv ? FMT_KV : FMT_NONE;
        break;
    }
}

static bool compile_cel(struct compile_ctx *ctx, struct fmt_op *op, sv args) {
    DIAG_FIELD(ctx->diag, "CEL");
    op->arg = cel_compile_text(ctx, args);
    return op->arg != NULL;
}

static void eval_cel(const struct fmt_op *op, struct fmt_ctx *c, struct fmt_value *v) {
    struct arena transient;
    sv text;
    arena_init(&transient, 0);
    if (cel_text(op->arg, c->si, &transient, &text)) {
        size_t from = buf_len(c->scratch);
        buf_append_sv(c->scratch, text);
        fmt_str(v, sv_skip(buf_pullup(c->scratch, buf_len(c->scratch)), from));
    }
    arena_fini(&transient);
}

static const struct fmt_def defs[] = {
    {"CEL", eval_cel, FMT_ARGS_REQUIRED, true, compile_cel, 0},
    {"DYNAMIC_METADATA", eval_meta, FMT_ARGS_REQUIRED, true, compile_meta, META_DYNAMIC},
    {"CLUSTER_METADATA", eval_meta, FMT_ARGS_REQUIRED, true, compile_meta, META_CLUSTER},
    {"UPSTREAM_METADATA", eval_meta, FMT_ARGS_REQUIRED, true, compile_meta, META_HOST},
    {"METADATA", eval_meta, FMT_ARGS_OPTIONAL, true, compile_typed, 0},
    {"FILTER_STATE", eval_state, FMT_ARGS_OPTIONAL, true, compile_state, 0},
    {"UPSTREAM_FILTER_STATE", eval_state, FMT_ARGS_OPTIONAL, true, compile_state, 1},
};
const struct fmt_table fmt_table_meta = {defs, ARRAY_LEN(defs)};
