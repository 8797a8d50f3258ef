/* Metadata of routes. Threads: config thread; results immutable in the ctx's arena. Spec:
 * config.core.v3.Metadata, RouteAction.metadata_match; Envoy's MetadataMatchCriteriaImpl (a child's
 * criteria replace its parent's of the same name). */
#include "proxy/route/route_metadata.h"

#include "proxy/api/metadata_match.h"
#include "proxy/route/metadata_matcher.h"

const struct kv_metadata *route_metadata_compile(struct compile_ctx *ctx, const void *msg) {
    return msg ? kv_metadata_from(msg, ctx->arena) : NULL;
}

/* Merge two ascending lists; `child` wins. */
static unsigned merge(const struct metadata_match *parent, const struct kv_struct *child,
                      struct metadata_criterion *out) {
    unsigned n = 0, p = 0, parent_n = parent ? parent->n : 0;
    for (uint32_t c = 0; c < child->n || p < parent_n;) {
        int order = c == child->n   ? -1
                    : p == parent_n ? 1
                                    : sv_cmp(parent->v[p].key, child->v[c].key);
        if (order < 0) {
            out[n++] = parent->v[p++];
            continue;
        }
        p += order == 0;
        out[n++] = (struct metadata_criterion){child->v[c].key, child->v[c].value,
                                               kv_hash(&child->v[c].value)};
        c++;
    }
    return n;
}

static const struct metadata_match *make(struct compile_ctx *ctx, const struct kv_struct *fields,
                                         const struct metadata_match *parent) {
    struct metadata_match *m = arena_new(ctx->arena, struct metadata_match);
    unsigned max = fields->n + (parent ? parent->n : 0);
    struct metadata_criterion *v = arena_new_array(ctx->arena, struct metadata_criterion, max);
    m->n = merge(parent, fields, v);
    m->v = v;
    return m;
}

const struct metadata_match *metadata_match_compile_struct(struct compile_ctx *ctx,
                                                           const void *struct_msg) {
    struct kv_value v = struct_msg ? kv_from_struct(struct_msg, ctx->arena) : kv_empty_struct();
    return make(ctx, &v.fields, NULL);
}

const struct metadata_match *route_metadata_match(struct compile_ctx *ctx, const void *msg,
                                                  const struct metadata_match *parent) {
    const struct kv_metadata *md = route_metadata_compile(ctx, msg);
    const struct kv_value *lb = md ? kv_metadata_namespace(md, SV("envoy.lb")) : NULL;
    return lb && lb->kind == KV_STRUCT ? make(ctx, &lb->fields, parent) : parent;
}
