/* Local rate limit of connections: one token each, from a bucket of the process; a connection
 * without one is closed before later filters see it.
 * Threads: config immutable but for its bucket, which all workers share without a lock.
 * Spec: extensions.filters.network.local_ratelimit.v3. */
#include "filters/common/token_bucket.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/network_local_ratelimit.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/worker.h"
#include "proxy/base/map.h"
#include "proxy/base/runtime.h"

#define CX_RATELIMIT_STATS(P, C, G, H, T) C(P, rate_limited)
STATS_ENUM(CX_RATELIMIT, CX_RATELIMIT_STATS);
STATS_GROUP(cx_ratelimit, CX_RATELIMIT, CX_RATELIMIT_STATS);

#define SHARED_MAX 4096u /* buckets with a share_key */

/* Buckets by share_key and settings: filters that have both in common take from one. */
struct shared_buckets { /* config thread's, but for the buckets themselves */
    struct arena *arena;
    struct map by_key;
};
struct cx_ratelimit_config {
    struct stats_scope *stats;
    struct token_bucket *bucket;
    sv runtime_key; /* empty: none */
    bool is_enabled;
};

static void release_scope(void *scope) { stats_scope_unref((struct stats_scope *)scope); }

static void release_shared(void *map) { map_fini(map); }

static void *make_shared(struct compile_ctx *ctx, struct arena *a) {
    struct shared_buckets *s = arena_new(a, struct shared_buckets);
    (void)ctx;
    s->arena = a;
    map_init(&s->by_key);
    arena_on_fini(a, release_shared, &s->by_key);
    return s;
}

/* The bucket that all with this key and these settings have. NULL: errors added. */
static struct token_bucket *shared_bucket(struct compile_ctx *ctx,
                                          const NetworkLocalRatelimit__LocalRateLimit *m,
                                          const struct token_bucket *own) {
    struct shared_buckets *s = compile_shared(ctx, "cx_ratelimit", make_shared);
    sv settings = sv_from((const char *)own, offsetof(struct token_bucket, empty_at_));
    size_t n = strlen(m->share_key);
    char *bytes = arena_alloc(ctx->scratch, settings.n + n);
    memcpy(bytes, settings.p, settings.n);
    memcpy(bytes + settings.n, m->share_key, n);
    sv key = sv_from(bytes, settings.n + n);
    struct token_bucket *b = map_get(&s->by_key, key);
    if (b) {
        return b;
    }
    if (map_count(&s->by_key) >= SHARED_MAX) {
        diag_error(ctx->diag, "share_key: there are %u keys already", SHARED_MAX);
        return NULL;
    }
    b = arena_new(s->arena, struct token_bucket);
    *b = *own;
    map_put(&s->by_key, arena_sv(s->arena, key), b);
    return b;
}

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const NetworkLocalRatelimit__LocalRateLimit *m = msg;
    unsigned before = diag_errors(ctx->diag);
    struct cx_ratelimit_config *c = arena_new(ctx->arena, struct cx_ratelimit_config);
    const Core__RuntimeFeatureFlag *flag = m->runtime_enabled;
    c->is_enabled = !flag || !flag->default_value || flag->default_value->value;
    c->runtime_key = flag ? arena_sv(ctx->arena, sv_cstr(flag->runtime_key)) : SV_NULL;
    c->bucket = arena_new(ctx->arena, struct token_bucket);
    c->stats = stats_scope_get(ctx->stats, &cx_ratelimit_stats_group,
                               arena_printf(ctx->arena, "local_rate_limit.%s.", m->stat_prefix));
    arena_on_fini(ctx->arena, release_scope, c->stats);
    {
        DIAG_FIELD(ctx->diag, "token_bucket");
        token_bucket_compile(ctx, "local rate limit token bucket", m->token_bucket, c->bucket);
    }
    if (*m->share_key && diag_errors(ctx->diag) == before) {
        c->bucket = shared_bucket(ctx, m, c->bucket);
    }
    return diag_errors(ctx->diag) == before ? c : NULL;
}

static enum net_status on_new_connection(struct network_filter *f) {
    const struct cx_ratelimit_config *c = f->config;
    struct loop *l = worker_loop(net_worker(f));
    bool is_enabled =
        c->runtime_key.n ? runtime_bool(c->runtime_key, c->is_enabled) : c->is_enabled;
    if (!is_enabled || token_bucket_take(c->bucket, loop_now_us(l), 1)) {
        return NET_CONTINUE;
    }
    stats_inc(stats_shard(c->stats, l->thread_index), CX_RATELIMIT_rate_limited);
    net_stream_info(f)->flags |= RESPONSE_FLAG(URX);
    conn_close(f->conn, CONN_CLOSE_NO_FLUSH, "local_ratelimit_close_over_limit");
    return NET_STOP;
}

static enum net_status on_data(struct network_filter *f, struct buf *data, bool end_stream) {
    (void)f;
    (void)data;
    (void)end_stream;
    return NET_CONTINUE;
}

const struct network_filter_type network_local_ratelimit_network_filter = {
    .name = "envoy.filters.network.local_ratelimit",
    .type_url = "envoy.extensions.filters.network.local_ratelimit.v3.LocalRateLimit",
    .instance_size = sizeof(struct network_filter),
    .compile = compile,
    .on_new_connection = on_new_connection,
    .on_data = on_data,
};
