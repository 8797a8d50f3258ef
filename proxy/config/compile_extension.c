/* Discovered filters: what listeners say of them, and their resources compiled for each place.
 * Threads: the config thread; a compiled configuration may be freed on any thread.
 * Spec: core.v3.ExtensionConfigSource, TypedExtensionConfig; the words of errors are Envoy's.
 * Not here: which resource is there, warming (xds/store_extension.c). */
#include <xxhash.h>

#include "protos/any.h"
#include "protos/gen/core.pb-c.h"
#include "proxy/api/registry.h"
#include "proxy/config/build_lists.h"
#include "proxy/config/extension.h"

const char *extension_kind_name(enum extension_kind k) {
    static const char *const names[EXTENSION_KINDS] = {[EXTENSION_HTTP] = "http_filter",
                                                       [EXTENSION_NETWORK] = "network_filter",
                                                       [EXTENSION_LISTENER] =
                                                           "tcp_listener_filter"};
    return names[k];
}

bool compile_check_terminal(struct compile_ctx *ctx, sv name, const char *type_name,
                            bool is_terminal, bool is_last, const char *chain) {
    if (is_terminal == is_last) {
        return true;
    }
    return diag_error(ctx->diag,
                      is_last ? "Error: non-terminal filter named %.*s of type %s is the last "
                                "filter in a %s filter chain."
                              : "Error: terminal filter named %.*s of type %s must be the last "
                                "filter in a %s filter chain.",
                      SV_ARG(name), type_name, chain);
}

/* ---- types ---- */

/* What all three kinds of filters have. */
struct filter_facts {
    const char *name, *type_url;
    bool is_terminal;
    void *(*compile)(struct compile_ctx *ctx, const void *msg);
};

/* The filter whose config message is called `type`; false: not built in. */
static bool find_filter(const struct registry *r, enum extension_kind kind, sv type,
                        struct extension_config *x, struct filter_facts *f) {
    *f = (struct filter_facts){0};
    switch (kind) {
    case EXTENSION_HTTP:
        x->http = registry_http_filter(r, SV_NULL, type);
        if (x->http) {
            *f = (struct filter_facts){x->http->name, x->http->type_url, x->http->is_terminal,
                                       x->http->compile};
        }
        break;
    case EXTENSION_NETWORK:
        x->network = registry_network_filter(r, SV_NULL, type);
        if (x->network) {
            *f = (struct filter_facts){x->network->name, x->network->type_url,
                                       x->network->is_terminal, x->network->compile};
        }
        break;
    case EXTENSION_LISTENER:
        x->listener = registry_listener_filter(r, SV_NULL, type);
        if (x->listener) {
            *f = (struct filter_facts){x->listener->name, x->listener->type_url, false,
                                       x->listener->compile};
        }
        break;
    case EXTENSION_KINDS:
        break;
    }
    /* a message for routes names the filter too, but configures none */
    return type.n && f->type_url && sv_is(type, f->type_url);
}

static bool check_type(const struct extension_def *def, sv type, struct diag *d) {
    struct buf BUF_AUTO list;
    buf_init(&list);
    for (unsigned i = 0; i < def->type_urls_n; i++) {
        if (sv_eq(def->type_urls[i], type)) {
            return true;
        }
        buf_printf(&list, "%s%.*s", i ? ", " : "", SV_ARG(def->type_urls[i]));
    }
    return diag_error(d, "Error: filter config has type URL %.*s but expect %.*s.", SV_ARG(type),
                      SV_ARG(buf_pullup(&list, buf_len(&list))));
}

/* ---- one configuration ---- */

static void on_free(struct shared *s) {
    struct extension_config *x = (struct extension_config *)s;
    struct arena a = x->arena_; /* x lives in it */
    arena_fini(&a);
}

static struct extension_config *config_alloc(void) {
    struct arena a;
    arena_init(&a, 1024);
    struct extension_config *x = arena_new(&a, struct extension_config);
    shared_init(&x->shared, on_free);
    x->arena_ = a;
    return x;
}

static bool fill(struct compile_ctx *ctx, const struct extension_def *def, const Pb__Any *any,
                 struct extension_config *x) {
    struct diag *d = ctx->diag;
    sv type = any_inner_name(any, ctx->scratch);
    struct filter_facts f;
    if (!check_type(def, type, d)) {
        return false;
    }
    if (!find_filter(ctx->registry, def->kind, type, x, &f)) {
        return diag_error(d,
                          "Error: cannot find filter factory %.*s for filter configuration with "
                          "type URL %.*s.",
                          SV_ARG(def->name), SV_ARG(type));
    }
    const void *msg = compile_any(ctx, def->name, any, f.type_url, NULL);
    if (!msg) {
        return false;
    }
    if (def->kind != EXTENSION_LISTENER &&
        !compile_check_terminal(ctx, def->name, f.name, f.is_terminal, def->is_last,
                                def->kind == EXTENSION_HTTP ? "http" : "network")) {
        return false;
    }
    unsigned errors = diag_errors(d);
    x->config = f.compile ? f.compile(ctx, msg) : NULL;
    return diag_errors(d) == errors;
}

/* NULL: errors are in d. */
static struct extension_config *make(struct config *c, const struct extension_def *def,
                                     const Pb__Any *any, struct diag *d) {
    struct extension_config *x = config_alloc();
    struct ref_list refs = {0};
    struct transport_list transports = {0};
    struct config_build build = {.config = c, .refs = &refs, .transports = &transports};
    struct arena scratch;
    arena_init(&scratch, 1024);
    struct compile_ctx ctx = {.arena = &x->arena_,
                              .scratch = &scratch,
                              .diag = d,
                              .registry = c->registry,
                              .stats = c->stats,
                              .build = &build,
                              .is_static = def->is_static,
                              .is_downstream = true,
                              .stat_prefix = def->stat_prefix,
                              .owner = def->owner};
    bool ok = fill(&ctx, def, any, x);
    struct resource_ref *kept = arena_new_array(&x->arena_, struct resource_ref, refs.v.n);
    if (refs.v.n) {
        memcpy(kept, refs.v.p, refs.v.n * sizeof(*kept));
    }
    x->refs = kept;
    x->refs_n = (unsigned)refs.v.n;
    arena_check_apart(&x->arena_, &scratch);
    arena_fini(&scratch);
    vec_fini(&refs.v);
    vec_fini(&transports.v);
    if (!ok) {
        shared_unref(&x->shared);
        return NULL;
    }
    return x;
}

struct extension_config *extension_config_new(struct config *c, const struct extension_def *def,
                                              const struct resource *r, struct diag *d) {
    struct arena a;
    arena_init(&a, 1024);
    const Core__TypedExtensionConfig *m = PROTO_UNPACK(
        Core__TypedExtensionConfig, core__typed_extension_config__descriptor, r->wire, &a, d);
    DIAG_FIELD(d, "typed_config");
    struct extension_config *x = m ? make(c, def, m->typed_config, d) : NULL;
    if (x) {
        x->hash[0] = r->hash[0];
        x->hash[1] = r->hash[1];
    }
    arena_fini(&a);
    return x;
}

/* ---- what the place says ---- */

static void types(struct compile_ctx *ctx, const Core__ExtensionConfigSource *m,
                  struct extension_def *def) {
    sv *v = arena_new_array(ctx->arena, sv, m->n_type_urls);
    for (size_t i = 0; i < m->n_type_urls; i++) {
        struct extension_config ignored;
        struct filter_facts f;
        v[i] = arena_sv(ctx->arena, any_url_name(sv_cstr(m->type_urls[i])));
        if (!find_filter(ctx->registry, def->kind, v[i], &ignored, &f)) {
            diag_error(ctx->diag, "Error: no factory found for a required type URL %.*s.",
                       SV_ARG(v[i]));
        }
    }
    def->type_urls = v;
    def->type_urls_n = (unsigned)m->n_type_urls;
}

static void unref_config(void *x) { shared_unref(x); }

/* What the default configuration refers to is the listener's own. */
static void fallback(struct compile_ctx *ctx, const Pb__Any *any, struct extension_def *def) {
    DIAG_FIELD(ctx->diag, "default_config");
    struct extension_config *x = make(ctx->build->config, def, any, ctx->diag);
    if (!x) {
        return;
    }
    arena_on_fini(ctx->arena, unref_config, &x->shared);
    for (unsigned i = 0; i < x->refs_n; i++) {
        *vec_push(&ctx->build->refs->v) = x->refs[i];
    }
    def->fallback = x;
}

/* Equal places share a slot: its name is a digest of all that makes them different. */
static slot_t slot_of(struct compile_ctx *ctx, const struct extension_def *def,
                      const Core__ExtensionConfigSource *m) {
    struct arena a;
    arena_init(&a, 512);
    struct buf BUF_AUTO key;
    buf_init(&key);
    buf_printf(&key, "%u %d %d %zu %zu ", (unsigned)def->kind, def->is_last, def->is_static,
               def->stat_prefix.n, def->name.n);
    buf_append_sv(&key, def->stat_prefix);
    buf_append_sv(&key, def->name);
    buf_append_sv(&key, proto_pack(&m->base, &a));
    sv bytes = buf_pullup(&key, buf_len(&key));
    XXH128_hash_t h = XXH3_128bits(bytes.p, bytes.n);
    slot_t slot =
        names_acquire(ctx->build->config->extensions, sv_from((const char *)&h, sizeof(h)));
    names_release_with(ctx->build->config->extensions, slot, ctx->arena);
    arena_fini(&a);
    return slot;
}

slot_t compile_extension_ref(struct compile_ctx *ctx, enum extension_kind kind, sv name,
                             const void *msg, bool is_last) {
    const Core__ExtensionConfigSource *m = msg;
    DIAG_FIELD(ctx->diag, "config_discovery");
    unsigned errors = diag_errors(ctx->diag);
    if (!ctx->build->extensions) {
        diag_error(ctx->diag, "a discovered filter can not have discovered filters in it");
        return SLOT_NONE;
    }
    struct extension_def def = {.kind = kind,
                                .name = arena_sv(ctx->arena, name),
                                .source = config_source_intern(m->config_source, ctx->diag),
                                .is_waited_for = !m->apply_default_config_without_warming,
                                .is_last = is_last,
                                .is_static = ctx->is_static,
                                .stat_prefix = arena_sv(ctx->arena, ctx->stat_prefix),
                                .owner = ctx->owner};
    if (!m->default_config && m->apply_default_config_without_warming) {
        diag_error(ctx->diag,
                   "Error: filter config %.*s applied without warming but has no default config.",
                   SV_ARG(name));
    }
    types(ctx, m, &def);
    if (m->default_config && diag_errors(ctx->diag) == errors) {
        fallback(ctx, m->default_config, &def);
    }
    if (diag_errors(ctx->diag) != errors) {
        return SLOT_NONE;
    }
    def.slot = slot_of(ctx, &def, m);
    *vec_push(&ctx->build->extensions->v) = def;
    *vec_push(&ctx->build->refs->v) = (struct resource_ref){
        .type = RES_EXTENSION, .name = def.name, .source = def.source, .slot = def.slot};
    return def.slot;
}
