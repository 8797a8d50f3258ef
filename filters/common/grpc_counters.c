/* Counters of gRPC by method. Threads: see grpc_counters.h. */
#include "filters/common/grpc_counters.h"

#include <stdio.h>

/* A cluster's stats have no cells that are known beforehand. */
static const struct stats_group grpc_group = {.name = "grpc"};

struct grpc_thread { /* worker-local */
    struct arena arena;
    struct map methods; /* "<cluster>\n<service>.<method>." → grpc_method */
};

static void free_methods(struct map *m) {
    size_t it = 0;
    for (struct map_slot *s; (s = map_next(m, &it)) != NULL;) {
        stats_scope_unref(((struct grpc_method *)s->value)->scope);
    }
    map_fini(m);
}

static void release(void *counters) {
    struct grpc_counters *c = counters;
    for (unsigned i = 0; i < STATS_THREADS_MAX; i++) {
        if (c->threads_[i]) {
            free_methods(&c->threads_[i]->methods);
            arena_fini(&c->threads_[i]->arena);
            xfree(c->threads_[i]);
        }
    }
}

void grpc_counters_init(struct compile_ctx *ctx, struct grpc_counters *c, const char *protocol) {
    *c = (struct grpc_counters){.protocol = protocol, .stats = ctx->stats};
    arena_on_fini(ctx->arena, release, c);
}

static struct grpc_thread *thread_of(struct grpc_counters *c, unsigned thread) {
    if (!c->threads_[thread]) {
        c->threads_[thread] = xnew(struct grpc_thread);
        arena_init(&c->threads_[thread]->arena, 0);
        map_init(&c->threads_[thread]->methods);
    }
    return c->threads_[thread];
}

struct stat_dyn *grpc_counter(struct grpc_method *m, struct stat_dyn **slot, const char *name,
                              enum stat_kind kind) {
    if (!*slot) {
        char text[GRPC_METHOD_BYTES_MAX + 64];
        int n = snprintf(text, sizeof(text), "%.*s%s", SV_ARG(m->prefix), name);
        *slot = stats_dyn(m->scope, sv_from(text, (size_t)n), kind);
    }
    return *slot;
}

struct grpc_method *grpc_counters_find(struct grpc_counters *c, unsigned thread, sv cluster,
                                       sv prefix) {
    struct grpc_thread *t = thread_of(c, thread);
    if (map_count(&t->methods) >= GRPC_METHODS_MAX) {
        prefix = SV("");
    }
    char text[2 * GRPC_METHOD_BYTES_MAX + 8];
    if (!c->stats || cluster.n > GRPC_METHOD_BYTES_MAX) {
        return NULL;
    }
    int n = snprintf(text, sizeof(text), "%.*s\n%.*s", SV_ARG(cluster), SV_ARG(prefix));
    struct grpc_method *m = (struct grpc_method *)map_get(&t->methods, sv_from(text, (size_t)n));
    if (!m) {
        m = arena_new(&t->arena, struct grpc_method);
        sv key = arena_sv(&t->arena, sv_from(text, (size_t)n));
        m->prefix = sv_skip(key, cluster.n + 1);
        n = snprintf(text, sizeof(text), "cluster.%.*s.%s.", SV_ARG(cluster), c->protocol);
        m->scope = stats_scope_get(c->stats, &grpc_group, sv_from(text, (size_t)n));
        map_put(&t->methods, key, m);
    }
    return m;
}

bool grpc_charge_status(struct grpc_method *m, const struct headers *h) {
    uint64_t status;
    sv text = headers_get(h, HDR_grpc_status);
    if (!text.p) {
        return false;
    }
    if (sv_to_u64(text, &status) && status < GRPC_STATUS_END) {
        char name[8];
        struct stat_dyn *other = NULL; /* unknown statuses are rare: looked up each time */
        snprintf(name, sizeof(name), "%u", (unsigned)status);
        stat_dyn_add(grpc_counter(m, status < GRPC_STATUSES ? &m->status[status] : &other, name,
                                  STAT_COUNTER),
                     1);
    }
    bool is_ok = sv_eq(text, SV("0"));
    stat_dyn_add(is_ok ? grpc_counter(m, &m->success, "success", STAT_COUNTER)
                       : grpc_counter(m, &m->failure, "failure", STAT_COUNTER),
                 1);
    stat_dyn_add(grpc_counter(m, &m->total, "total", STAT_COUNTER), 1);
    return true;
}

bool grpc_split_path(sv path, sv *service, sv *method) {
    path = path_without_query(path);
    if (!sv_eat(&path, SV("/"))) {
        return false;
    }
    size_t slash = sv_find(path, '/');
    if (slash == SIZE_MAX || slash == 0 || slash + 1 == path.n) {
        return false;
    }
    *service = sv_sub(path, 0, slash);
    *method = sv_skip(path, slash + 1);
    return sv_find(*method, '/') == SIZE_MAX;
}

bool grpc_is_stat_name(sv s) {
    for (size_t i = 0; i < s.n; i++) {
        if (!ascii_isalnum(s.p[i]) && s.p[i] != '_' && s.p[i] != '.' && s.p[i] != '-') {
            return false;
        }
    }
    return s.n > 0;
}

bool grpc_is_type(sv content_type) {
    sv grpc = SV("application/grpc");
    return sv_starts(content_type, grpc) &&
           (content_type.n == grpc.n || content_type.p[grpc.n] == '+');
}

bool grpc_is_response(const struct headers *h, bool end_stream) {
    return end_stream ? headers_has(h, HDR_grpc_status)
                      : headers_status(h) == 200 && grpc_is_type(headers_get(h, HDR_content_type));
}
