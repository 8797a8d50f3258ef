/* internal_upstream: what a connection to an internal listener brings along of its host's and
 * cluster's metadata. The transport is the one inside it, alone.
 * Threads: factory and config are immutable; asked on workers.
 * Spec: transport_sockets.internal_upstream.v3.InternalUpstreamTransport. Of two sources of one
 * name the later that has it wins as a whole.
 * Not here: making the connection (upstream_connect.c), who reads it (net/filter_chain.c). */
#include "protos/gen/transport_internal_upstream.pb-c.h"
#include "protos/gen/type_metadata.pb-c.h"
#include "proxy/api/compile.h"
#include "proxy/api/passthrough.h"
#include "proxy/api/transport_socket.h"
#include "proxy/base/mem.h"
#include "proxy/observe/metadata.h"
#include "proxy/stats/stats.h"

#define INTERNAL_UPSTREAM_STATS(P, C, G, H, T) C(P, no_metadata)
STATS_ENUM(INTERNAL, INTERNAL_UPSTREAM_STATS);
STATS_GROUP(internal_upstream, INTERNAL, INTERNAL_UPSTREAM_STATS);

struct source {
    bool is_cluster; /* else the host's */
    sv name;
};
struct config {
    struct source *sources;
    size_t n;
    struct stats_scope *stats; /* NULL: none */
    const struct transport_socket_type *inner;
    const void *inner_config;
};
struct factory {
    struct transport_factory base;
    struct transport_factory *inner; /* a ref */
    struct stats_scope *stats;       /* a ref; NULL: none */
    struct arena arena;              /* of the sources */
    const struct source *sources;
    size_t n;
};

static const struct factory *factory_of(const struct transport_factory *base) {
    return CONTAINER_OF((struct transport_factory *)(uintptr_t)base, struct factory, base);
}

static struct transport *create(const struct transport_factory *base,
                                const struct transport_options *o) {
    const struct transport_factory *inner = factory_of(base)->inner;
    return inner->ops->create(inner, o);
}

static void hash_key(const struct transport_factory *base, const struct transport_options *o,
                     struct buf *key) {
    const struct transport_factory *inner = factory_of(base)->inner;
    if (inner->ops->hash_key) {
        inner->ops->hash_key(inner, o, key);
    }
}

static void passthrough(const struct transport_factory *base, const struct passthrough_source *from,
                        struct passthrough *out) {
    const struct factory *f = factory_of(base);
    for (size_t i = 0; i < f->n; i++) {
        const struct source *s = &f->sources[i];
        const struct kv_metadata *m = s->is_cluster ? from->cluster : from->host;
        const struct kv_value *v = m ? kv_metadata_namespace(m, s->name) : NULL;
        if (!v) {
            if (f->stats) {
                stats_inc(stats_shard(f->stats, from->thread_index), INTERNAL_no_metadata);
            }
            continue;
        }
        if (!out->metadata) {
            out->metadata = kv_metadata_new(&out->arena);
        }
        (void)kv_metadata_put(out->metadata, s->name, v); /* no more of them than it takes */
    }
}

static const struct transport_factory_ops plain_ops = {
    .create = create, .hash_key = hash_key, .passthrough = passthrough};
static const struct transport_factory_ops secure_ops = {
    .create = create, .is_secure = true, .hash_key = hash_key, .passthrough = passthrough};

/* ---- life ---- */

static void factory_free(struct shared *s) {
    struct factory *f = CONTAINER_OF(s, struct factory, base.shared);
    shared_unref(&f->inner->shared);
    if (f->stats) {
        stats_scope_unref(f->stats);
    }
    arena_fini(&f->arena);
    xfree(f);
}

static struct transport_factory *make(const void *config, const struct secret_source *secrets,
                                      struct diag *d) {
    const struct config *c = config;
    struct transport_factory *inner = c->inner->make(c->inner_config, secrets, d);
    if (!inner) {
        return NULL;
    }
    struct factory *f = xnew(struct factory);
    shared_init(&f->base.shared, factory_free);
    f->base.ops = inner->ops->is_secure ? &secure_ops : &plain_ops;
    f->inner = inner;
    arena_init(&f->arena, 0);
    struct source *sources = arena_new_array(&f->arena, struct source, c->n);
    for (size_t i = 0; i < c->n; i++) {
        sources[i] = (struct source){.is_cluster = c->sources[i].is_cluster,
                                     .name = arena_sv(&f->arena, c->sources[i].name)};
    }
    f->sources = sources;
    f->n = c->n;
    if (c->stats) {
        stats_scope_ref(c->stats);
        f->stats = c->stats;
    }
    return &f->base;
}

/* ---- compile ---- */

static bool
compile_source(struct compile_ctx *ctx,
               const TransportInternalUpstream__InternalUpstreamTransport__MetadataValueSource *m,
               struct source *out) {
    out->name = arena_sv(ctx->arena, sv_cstr(m->name));
    DIAG_FIELD(ctx->diag, "kind");
    switch (m->kind->kind_case) {
    case TYPE_METADATA__METADATA_KIND__KIND_HOST:
        return true;
    case TYPE_METADATA__METADATA_KIND__KIND_CLUSTER:
        out->is_cluster = true;
        return true;
    default:
        return diag_error(ctx->diag, "metadata type is not supported: it can be that of the host "
                                     "or of the cluster");
    }
}

static bool compile_sources(struct compile_ctx *ctx,
                            const TransportInternalUpstream__InternalUpstreamTransport *m,
                            struct config *c) {
    bool ok = true;
    if (m->n_passthrough_metadata > KV_NAMESPACES_MAX) {
        return diag_error(ctx->diag, "passthrough_metadata: more than %d sources",
                          KV_NAMESPACES_MAX);
    }
    c->n = m->n_passthrough_metadata;
    c->sources = arena_new_array(ctx->arena, struct source, c->n);
    for (size_t i = 0; i < c->n; i++) {
        DIAG_FIELD(ctx->diag, "passthrough_metadata[%zu]", i);
        ok &= compile_source(ctx, m->passthrough_metadata[i], &c->sources[i]);
    }
    return ok;
}

static void unref_stats(void *scope) { stats_scope_unref(scope); }

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const TransportInternalUpstream__InternalUpstreamTransport *m = msg;
    struct config *c = arena_new(ctx->arena, struct config);
    bool ok = compile_sources(ctx, m, c);
    ok &= compile_inner_transport_socket(ctx, m->transport_socket, &c->inner, &c->inner_config);
    if (!ok) {
        return NULL;
    }
    if (ctx->stats) {
        sv prefix = arena_printf(ctx->scratch, "%.*sinternal_upstream.", SV_ARG(ctx->stat_prefix));
        c->stats = stats_scope_get(ctx->stats, &internal_upstream_stats_group, prefix);
        arena_on_fini(ctx->arena, unref_stats, c->stats);
    }
    return c;
}

extern const struct transport_socket_type internal_upstream_transport_socket;
const struct transport_socket_type internal_upstream_transport_socket = {
    .name = "envoy.transport_sockets.internal_upstream",
    .type_url = "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
    .is_upstream = true,
    .is_outermost = true,
    .compile = compile,
    .make = make,
};
