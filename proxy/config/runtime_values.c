/* See runtime_values.h. Not here: what a value means (base/runtime.c). */
#include "proxy/config/runtime_values.h"

#include <jansson.h>

#include "protos/gen/service_runtime.pb-c.h"
#include "protos/pb_json.h"
#include "proxy/base/runtime.h"
#include "proxy/base/vec.h"
#include "proxy/config/config.h"

#define DEPTH_MAX 16u

struct walk {
    struct arena *arena;
    struct diag *diag;
    VEC(struct runtime_value) v;
};

static void add(struct walk *w, sv key, const json_t *v) {
    if (w->v.n >= RUNTIME_KEYS_MAX) {
        diag_error(w->diag, "more than %u runtime values", RUNTIME_KEYS_MAX);
        return;
    }
    char *text = json_is_string(v) ? NULL : json_dumps(v, JSON_ENCODE_ANY | JSON_COMPACT);
    struct runtime_value *out = vec_push(&w->v);
    out->key = arena_sv(w->arena, key);
    out->text = arena_sv(w->arena, sv_cstr(text ? text : json_string_value(v)));
    free(text); /* lint: jansson's allocation */
}

static void walk(struct walk *w, sv prefix, const json_t *v, unsigned depth) {
    if (json_is_null(v) || json_is_array(v) || depth > DEPTH_MAX) {
        diag_error(w->diag, "Invalid runtime entry value for %.*s", SV_ARG(prefix));
        return;
    }
    if (!json_is_object(v) || (depth && json_object_get(v, "numerator"))) {
        add(w, prefix, v);
        return;
    }
    const char *key;
    json_t *child;
    json_object_foreach((json_t *)(uintptr_t)v, key, child) {
        struct buf BUF_AUTO name;
        buf_init(&name);
        buf_printf(&name, "%.*s%s%s", SV_ARG(prefix), prefix.n ? "." : "", key);
        walk(w, buf_pullup(&name, buf_len(&name)), child, depth + 1);
    }
}

bool runtime_values_compile(struct arena *a, const void *struct_msg, struct runtime_values *out,
                            struct diag *d) {
    *out = (struct runtime_values){0};
    if (!struct_msg) {
        return true;
    }
    unsigned errors = diag_errors(d);
    json_t *tree = pb_json_struct_tree(struct_msg);
    if (!tree) {
        return diag_error(d, "runtime values are nested too deeply");
    }
    struct walk w = {.arena = a, .diag = d};
    walk(&w, SV_NULL, tree, 0);
    json_decref(tree);
    struct runtime_value *v = arena_new_array(a, struct runtime_value, w.v.n);
    if (w.v.n) {
        memcpy(v, w.v.p, w.v.n * sizeof(*v));
    }
    *out = (struct runtime_values){v, (unsigned)w.v.n};
    vec_fini(&w.v);
    return diag_errors(d) == errors;
}

bool compile_runtime(struct compile_ctx *ctx, struct resource *r, const void *msg) {
    const ServiceRuntime__Runtime *m = msg;
    struct runtime_values *v = arena_new(ctx->arena, struct runtime_values);
    DIAG_FIELD(ctx->diag, "layer");
    r->runtime = v;
    return runtime_values_compile(ctx->arena, m->layer, v, ctx->diag);
}
