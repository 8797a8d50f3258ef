/* HttpConnectionManager.Tracing → struct tracing_config; providers.
 * Threads: the config thread. Spec: HttpConnectionManager.Tracing, config.trace.v3.Tracing.Http. */
#include <math.h>

#include "protos/any.h"
#include "protos/gen/hcm.pb-c.h"
#include "proxy/api/registry.h"
#include "proxy/base/mem.h"
#include "proxy/observe/formatter.h"
#include "proxy/request/tracing.h"

#define MAX_PATH_TAG_LENGTH 256u
#define TRACERS_KEPT 8u

STATS_GROUP(tracing, TRACING, TRACING_STATS);

/* ---- providers ---- */

/* The last few: listeners that say the same share one tracer, and with it its batches. */
struct tracer_cache {
    struct {
        sv bytes;
        struct tracer *tracer;
    } v[TRACERS_KEPT];
    unsigned next;
};

static void unref_tracer(void *tracer) { shared_unref(&((struct tracer *)tracer)->shared); }

static void free_tracer(struct shared *s) {
    struct tracer *t = (struct tracer *)s;
    arena_fini(&t->arena);
    xfree(t);
}

static void drop_cache(void *arg) {
    struct tracer_cache *c = arg;
    for (unsigned i = 0; i < TRACERS_KEPT; i++) {
        if (c->v[i].tracer) {
            unref_tracer(c->v[i].tracer);
            xfree((void *)(uintptr_t)c->v[i].bytes.p);
        }
    }
}

static void *make_cache(struct compile_ctx *ctx, struct arena *a) {
    (void)ctx;
    struct tracer_cache *c = arena_new(a, struct tracer_cache);
    arena_on_fini(a, drop_cache, c);
    return c;
}

/* takes a ref */
static void remember(struct tracer_cache *c, sv bytes, struct tracer *t) {
    unsigned i = c->next++ % TRACERS_KEPT;
    if (c->v[i].tracer) {
        unref_tracer(c->v[i].tracer);
        xfree((void *)(uintptr_t)c->v[i].bytes.p);
    }
    c->v[i].bytes = sv_from(sv_dup(bytes), bytes.n);
    c->v[i].tracer = shared_ref(t);
}

static struct tracer *find(const struct tracer_cache *c, sv bytes) {
    for (unsigned i = 0; i < TRACERS_KEPT; i++) {
        if (c->v[i].tracer && sv_eq(c->v[i].bytes, bytes)) {
            return shared_ref(c->v[i].tracer);
        }
    }
    return NULL;
}

static struct tracer *make_tracer(struct compile_ctx *ctx, const Trace__Tracing__Http *m) {
    sv url = m->typed_config ? any_inner_name(m->typed_config, ctx->scratch) : SV_NULL;
    const struct tracer_type *type =
        ctx->registry ? registry_tracer(ctx->registry, sv_cstr(m->name), url) : NULL;
    if (!type) {
        diag_error(ctx->diag,
                   "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                   m->name, SV_ARG(url));
        return NULL;
    }
    DIAG_FIELD(ctx->diag, "typed_config");
    const void *msg = compile_any(ctx, sv_cstr(m->name), m->typed_config, type->type_url, NULL);
    if (!msg) {
        return NULL;
    }
    struct tracer *t = xnew(struct tracer);
    shared_init(&t->shared, free_tracer);
    arena_init(&t->arena, 0);
    t->type = type;
    struct compile_ctx own = *ctx;
    own.arena = &t->arena;
    t->config = type->compile(&own, msg);
    if (!t->config) {
        unref_tracer(t);
        return NULL;
    }
    return t;
}

static bool has_collector(struct compile_ctx *ctx, const struct tracer *t) {
    const struct tracer_type *type = t->type;
    return !type->required_cluster ||
           compile_cluster_ref(ctx, type->required_cluster(t->config), true) != SLOT_NONE;
}

static void compile_provider(struct compile_ctx *ctx, const Trace__Tracing__Http *m,
                             struct tracing_config *c) {
    DIAG_FIELD(ctx->diag, "provider");
    struct tracer_cache *cache = compile_shared(ctx, "tracers", make_cache);
    sv bytes = proto_pack(&m->base, ctx->scratch);
    struct tracer *t = find(cache, bytes);
    if (!t) {
        t = make_tracer(ctx, m);
        if (!t) {
            return;
        }
        remember(cache, bytes, t);
    }
    arena_on_fini(ctx->arena, unref_tracer, t);
    if (has_collector(ctx, t)) {
        c->tracer = t;
    }
}

/* ---- the rest ---- */

/* Percent of `denominator` parts; not set: all. */
static void compile_percent(const Type__Percent *m, const char *key, uint32_t denominator,
                            struct fraction *out) {
    double parts = m ? round(m->value / 100.0 * denominator) : denominator;
    *out = (struct fraction){
        .runtime_key = sv_cstr(key), .numerator = (uint32_t)parts, .denominator = denominator};
}

static void compile_operation(struct compile_ctx *ctx, const char *field, const char *text,
                              const struct formatter **out) {
    if (*text) {
        DIAG_FIELD(ctx->diag, "%s", field);
        *out = formatter_compile(ctx, sv_cstr(text), true);
    }
}

static void compile_node_facts(struct compile_ctx *ctx, struct tracing_config *c) {
    const Core__Node *node = compile_node(ctx);
    c->node_id = node ? sv_cstr(node->id) : SV_NULL;
    c->node_zone = node && node->locality ? sv_cstr(node->locality->zone) : SV_NULL;
}

const struct tracing_config *tracing_compile(struct compile_ctx *ctx, const void *msg) {
    const Hcm__HttpConnectionManager__Tracing *m = msg;
    unsigned before = diag_errors(ctx->diag);
    DIAG_FIELD(ctx->diag, "tracing");
    struct tracing_config *c = arena_new(ctx->arena, struct tracing_config);
    compile_percent(m->client_sampling, "tracing.client_enabled", 100, &c->client);
    compile_percent(m->random_sampling, "tracing.random_sampling", 10000, &c->random);
    compile_percent(m->overall_sampling, "tracing.global_enabled", 100, &c->overall);
    c->is_verbose = m->verbose;
    c->max_path_length =
        m->max_path_tag_length ? m->max_path_tag_length->value : MAX_PATH_TAG_LENGTH;
    c->spawns_upstream_span = m->spawn_upstream_span && m->spawn_upstream_span->value;
    c->omits_propagation = m->no_context_propagation;
    c->tags = custom_tags_compile(ctx, (const void *const *)m->custom_tags, m->n_custom_tags);
    compile_operation(ctx, "operation", m->operation, &c->operation);
    compile_operation(ctx, "upstream_operation", m->upstream_operation, &c->upstream_operation);
    compile_node_facts(ctx, c);
    const Trace__Tracing__Http *provider = m->provider ? m->provider : compile_default_tracer(ctx);
    if (provider) {
        compile_provider(ctx, provider, c);
    }
    return diag_errors(ctx->diag) == before ? c : NULL;
}
