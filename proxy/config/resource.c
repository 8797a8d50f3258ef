/* Compiling one resource from its wire bytes; type facts; interned config sources.
 * Threads: the config thread; a resource may be freed on any thread.
 * Spec: the type URLs of xDS v3. Not here: the messages themselves (compile_*.c,
 * route/route_compile.c). */
#include "proxy/config/resource.h"

#include <unistd.h>

#include <xxhash.h>

#include "protos/any.h"
#include "protos/findings.h"
#include "protos/gen/cluster.pb-c.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/endpoint.pb-c.h"
#include "protos/gen/listener.pb-c.h"
#include "protos/gen/tls.pb-c.h"
#include "protos/pb_rules.h"
#include "protos/wire.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/config/api_source.h"
#include "proxy/config/build_lists.h"
#include "proxy/config/config.h"
#include "proxy/net/tls_cert.h"
#include "proxy/route/route_vhds.h"
#include "proxy/stats/stats_server.h"

const struct resource_type_info resource_types[RES_TYPES] = {
#define X(id, short_name, proto, is_full) \
    [RES_##id] = {short_name, proto, "type.googleapis.com/" proto, is_full},
    RESOURCE_TYPES(X)
#undef X
};

enum resource_type resource_type_of(sv type_url) {
    sv name = any_url_name(type_url);
    for (int t = 0; t < RES_TYPES; t++) {
        if (sv_is(name, resource_types[t].proto_name)) {
            return (enum resource_type)t;
        }
    }
    return RES_TYPES;
}

void resource_hash(sv wire, uint64_t out[2]) {
    XXH128_hash_t h = XXH3_128bits(wire.p, wire.n);
    out[0] = h.low64;
    out[1] = h.high64;
}

/* ---- names ---- */

/* The last length-delimited field with number `field` at the top level. */
static sv top_level_string(sv wire, uint32_t field) {
    sv found = SV_NULL;
    struct wire_field f;
    while (wire_eat_field(&wire, &f)) {
        if (f.type == WIRE_BYTES && f.number == field) {
            found = f.value;
        }
    }
    return found;
}

#define FIELD_NAME 1u
#define FIELD_WORKLOAD_UID 20u

sv resource_name_of(enum resource_type t, sv wire) {
    return top_level_string(wire, t == RES_WORKLOAD ? FIELD_WORKLOAD_UID : FIELD_NAME);
}

/* ---- compiling ---- */

static void on_resource_free(struct shared *s) {
    struct resource *r = (struct resource *)s;
    if (r->type == RES_ROUTE && r->route) {
        shared_unref(&r->route->shared);
    }
    struct arena a = r->arena; /* the resource itself lives in it */
    arena_fini(&a);
}

static struct resource *resource_new(enum resource_type t, sv name, sv version, sv wire) {
    /* One block holds a small resource of the common kinds: clusters and endpoints come by the ten
     * thousand. */
    static const unsigned compiled_bytes[RES_TYPES] = {
        [RES_CLUSTER] = 800, [RES_ENDPOINTS] = 300, [RES_WORKLOAD] = 64};
    struct arena a;
    size_t bytes =
        wire.n + sizeof(struct resource) + 128 + (compiled_bytes[t] ? compiled_bytes[t] : 512);
    arena_init(&a, bytes < 4096 ? bytes : 4096);
    struct resource *r = arena_new(&a, struct resource);
    shared_init(&r->shared, on_resource_free);
    r->type = t;
    r->wire = arena_sv(&a, wire);
    sv own = resource_name_of(t, r->wire);
    r->name = !name.n || sv_eq(name, own) ? own : arena_sv(&a, name);
    r->version = arena_sv(&a, version);
    resource_hash(wire, r->hash);
    r->arena = a;
    return r;
}

struct resource *resource_uncompiled(enum resource_type t, sv name, sv version, sv wire) {
    return resource_new(t, name, version, wire);
}

static const ProtobufCMessageDescriptor *descriptor_of(enum resource_type t) {
    const struct proto_type *p = any_type(sv_cstr(resource_types[t].proto_name));
    return p ? p->desc : NULL;
}

/* The message is transient: unpacked into the scratch arena. What is kept of it is copied by
 * compile_*. */
static bool compile_message(struct compile_ctx *ctx, struct resource *r) {
    const ProtobufCMessageDescriptor *desc = descriptor_of(r->type);
    if (!desc) {
        return diag_error(ctx->diag, "resources of type '%s' are not supported",
                          resource_types[r->type].proto_name);
    }
    const ProtobufCMessage *m = proto_unpack(desc, r->wire, ctx->scratch, ctx->diag);
    if (m && pb_rules_check(m, ctx->diag)) {
        findings_check(m, compile_unknown_policy(ctx), ctx->diag);
        switch (r->type) {
        case RES_CLUSTER:
            compile_cluster(ctx, r, m);
            break;
        case RES_ENDPOINTS:
            compile_endpoints(ctx, r, m);
            break;
        case RES_LB_ENDPOINT:
            compile_lb_endpoint(ctx, r, m);
            break;
        case RES_SECRET:
            compile_secret(ctx, r, m);
            break;
        case RES_SCOPED_ROUTE:
            compile_scope(ctx, r, m);
            break;
        case RES_LISTENER:
            compile_listener(ctx, r, m);
            break;
        case RES_RUNTIME:
            compile_runtime(ctx, r, m);
            break;
        case RES_WORKLOAD:
            compile_workload(ctx, r, m);
            break;
        case RES_EXTENSION: /* compiled where it is used: extension_config_new */
            break;
        case RES_ROUTE:
        case RES_VIRTUAL_HOST:
        case RES_TYPES:
            diag_error(ctx->diag, "resources of type '%s' are not supported",
                       resource_types[r->type].proto_name);
        }
    }
    return diag_ok(ctx->diag);
}

static bool compile_route(struct compile_ctx *ctx, struct resource *r,
                          const struct resource *prev) {
    r->route = route_table_compile(ctx, r->wire, prev ? prev->route : NULL);
    return r->route != NULL;
}

static void keep_lists(struct resource *r, const struct config_build *b) {
    struct resource_ref *refs = arena_new_array(&r->arena, struct resource_ref, b->refs->v.n);
    struct transport_def *defs =
        arena_new_array(&r->arena, struct transport_def, b->transports->v.n);
    if (b->refs->v.n) {
        memcpy(refs, b->refs->v.p, b->refs->v.n * sizeof(*refs));
    }
    if (b->transports->v.n) {
        memcpy(defs, b->transports->v.p, b->transports->v.n * sizeof(*defs));
    }
    r->refs = refs;
    r->refs_n = (unsigned)b->refs->v.n;
    r->transports = defs;
    r->transports_n = (unsigned)b->transports->v.n;
    struct extension_def *extensions =
        arena_new_array(&r->arena, struct extension_def, b->extensions->v.n);
    if (b->extensions->v.n) {
        memcpy(extensions, b->extensions->v.p, b->extensions->v.n * sizeof(*extensions));
    }
    r->extensions = extensions;
    r->extensions_n = (unsigned)b->extensions->v.n;
}

#define WARNINGS_REMEMBERED_MAX 4096u
#define SCRATCH_BYTES 8192

/* Each warning is logged once, and all are counted: settings without effect, unknown fields. */
void resource_tell_warnings(struct config *c, const struct resource *r, bool is_static,
                            const struct diag *d) {
    for (const struct diag_warning *w = d->warning_list_; w; w = w->next) {
        bool is_unknown = sv_contains(w->text, SV("unknown field"));
        if (is_unknown && c->server_stats) {
            stats_inc(c->server_stats,
                      is_static ? SERVER_static_unknown_fields : SERVER_dynamic_unknown_fields);
        }
        if (map_get(&c->told, w->text) || map_count(&c->told) >= WARNINGS_REMEMBERED_MAX) {
            continue;
        }
        sv kept = sv_from(sv_dup(w->text), w->text.n);
        map_put(&c->told, kept, c);
        log_warn(LOG_config, "%s '%.*s': %.*s", resource_types[r->type].short_name, SV_ARG(r->name),
                 SV_ARG(kept));
    }
}

struct resource *resource_compile(struct config *c, enum resource_type t, sv name, sv version,
                                  sv wire, bool is_static, const struct resource *prev,
                                  struct diag *d) {
    struct resource *r = resource_new(t, name, version, wire);
    struct ref_list refs = {0};
    struct transport_list transports = {0};
    struct extension_list extensions = {0};
    struct config_build build = {.config = c,
                                 .resource = r,
                                 .refs = &refs,
                                 .transports = &transports,
                                 .extensions = &extensions};
    struct arena scratch;
    arena_init(&scratch, SCRATCH_BYTES);
    struct compile_ctx ctx = {.arena = &r->arena,
                              .scratch = &scratch,
                              .diag = d,
                              .registry = c->registry,
                              .stats = c->stats,
                              .build = &build,
                              .is_static = is_static,
                              .owner = r->name};
    bool ok = t == RES_ROUTE ? compile_route(&ctx, r, prev) : compile_message(&ctx, r);
    keep_lists(r, &build);
    arena_trim(&r->arena);
    arena_check_apart(&r->arena, &scratch);
    arena_fini(&scratch);
    vec_fini(&refs.v);
    vec_fini(&transports.v);
    vec_fini(&extensions.v);
    if (!ok || !diag_ok(d)) {
        shared_unref(&r->shared);
        return NULL;
    }
    resource_tell_warnings(c, r, is_static, d);
    return r;
}

struct route_table *config_routes_with(struct config *c, const struct resource *base,
                                       struct route_vhost_bytes *more, unsigned more_n,
                                       const struct route_table *prev) {
    struct ref_list refs = {0};
    struct config_build build = {.config = c, .refs = &refs};
    struct arena scratch;
    struct diag d;
    arena_init(&scratch, 0);
    diag_init(&d);
    struct compile_ctx ctx = {.arena = &scratch,
                              .scratch = &scratch,
                              .diag = &d,
                              .registry = c->registry,
                              .stats = c->stats,
                              .build = &build,
                              .owner = base->name};
    struct route_table *t = route_table_compile_with(&ctx, base->wire, more, more_n, prev);
    if (!t) {
        sv why = diag_text(&d);
        log_warn(LOG_config, "rds '%.*s': %.*s", SV_ARG(base->name), SV_ARG(why));
    }
    vec_fini(&refs.v);
    diag_fini(&d);
    arena_fini(&scratch);
    return t;
}

/* ---- config sources ---- */

static struct map sources = MAP_INIT;      /* config thread; lives as long as the process */
static struct config_source_counts counts; /* config thread */

static struct config_source *source_of(const Core__ConfigSource *m, struct arena *a,
                                       struct diag *d) {
    enum api_source_protocol protocol;
    if (m->n_authorities) {
        diag_error(d, "authorities: xdstp resource names are not supported");
        return NULL;
    }
    struct config_source *s = xnew(struct config_source);
    switch (m->config_source_specifier_case) {
    case CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_ADS:
    /* the same server as the resource came from: our ADS */
    case CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_SELF:
        s->kind = SOURCE_ADS;
        return s;
    case CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_API_CONFIG_SOURCE:
        if (!api_source_check(m->api_config_source, &protocol, d)) {
            xfree(s);
            return NULL;
        }
        s->kind = SOURCE_API;
        s->wire = proto_pack(&m->api_config_source->base, a);
        s->wire = sv_from(xmemdup(s->wire.p, s->wire.n), s->wire.n);
        return s;
    case CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_PATH:
        s->kind = SOURCE_PATH;
        s->path = sv_cstr(xstrdup(m->path));
        return s;
    case CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_PATH_CONFIG_SOURCE:
        s->kind = SOURCE_PATH;
        s->path = sv_cstr(xstrdup(m->path_config_source->path));
        if (m->path_config_source->watched_directory) {
            s->watched_dir = sv_cstr(xstrdup(m->path_config_source->watched_directory->path));
        }
        return s;
    default:
        xfree(s);
        diag_error(d, "config_source must be ads, self, api_config_source or path_config_source");
        return NULL;
    }
}

/* A file that is not there can't be watched, and whoever refers to it would wait in vain. */
static bool has_file(const Core__ConfigSource *m, struct diag *d) {
    bool is_new = m->config_source_specifier_case ==
                  CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_PATH_CONFIG_SOURCE;
    bool is_old =
        m->config_source_specifier_case == CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_PATH;
    const char *path = is_new ? m->path_config_source->path : is_old ? m->path : NULL;
    DIAG_FIELD(d, is_new ? "path_config_source.path" : "path");
    return !path || access(path, F_OK) == 0 ||
           diag_error(d, "paths must refer to an existing path in the system: '%s' does not exist",
                      path);
}

static bool fetch_timeout_ms(const Core__ConfigSource *m, uint32_t *out, struct diag *d) {
    DIAG_FIELD(d, "initial_fetch_timeout");
    return compile_duration_ms(&(struct compile_ctx){.diag = d}, m->initial_fetch_timeout, 15000,
                               out);
}

uint64_t config_source_key(const struct config_source *s) {
    return !s ? 0 : s->kind == SOURCE_ADS ? UINT64_MAX : s->id;
}

struct config_source_counts config_source_counts(void) {
    return counts;
}

static bool has_room(struct diag *d) {
    if (map_count(&sources) < CONFIG_SOURCES_MAX) {
        return true;
    }
    counts.refused++;
    return diag_error(d, "more than %u different config sources", CONFIG_SOURCES_MAX);
}

const struct config_source *config_source_intern(const void *msg, struct diag *d) {
    static const struct config_source static_source = {.kind = SOURCE_STATIC};
    const Core__ConfigSource *m = msg;
    if (!m) {
        return &static_source;
    }
    if (!has_file(m, d)) {
        return NULL;
    }
    struct arena a;
    arena_init(&a, 1024);
    sv key = proto_pack(&m->base, &a);
    struct config_source *s = map_get(&sources, key);
    uint32_t timeout_ms;
    if (!s && has_room(d) && fetch_timeout_ms(m, &timeout_ms, d) && (s = source_of(m, &a, d))) {
        s->initial_fetch_timeout_ms = timeout_ms;
        s->id = map_count(&sources) + 1;
        map_put(&sources, sv_from(xmemdup(key.p, key.n), key.n), s);
        counts.remembered++;
    }
    arena_fini(&a);
    return s;
}
