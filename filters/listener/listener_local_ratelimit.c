/* Local rate limit of accepted sockets: one token each, from a bucket of the process; a socket
 * without one is closed before anything is made for it.
 * Threads: config immutable but for its bucket, which all workers share without a lock.
 * Spec: extensions.filters.listener.local_ratelimit.v3. */
#include <time.h>

#include "filters/common/token_bucket.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/listener_local_ratelimit.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "proxy/api/listener_filter.h"
#include "proxy/base/runtime.h"

#define ACCEPT_RATELIMIT_STATS(P, C, G, H, T) C(P, rate_limited)
STATS_ENUM(ACCEPT_RATELIMIT, ACCEPT_RATELIMIT_STATS);
STATS_GROUP(accept_ratelimit, ACCEPT_RATELIMIT, ACCEPT_RATELIMIT_STATS);

struct accept_ratelimit {
    struct stats_scope *stats;
    struct token_bucket *bucket;
    sv runtime_key; /* empty: none */
    bool is_enabled;
};

static void release_scope(void *scope) { stats_scope_unref((struct stats_scope *)scope); }

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const ListenerLocalRatelimit__LocalRateLimit *m = msg;
    struct accept_ratelimit *c = arena_new(ctx->arena, struct accept_ratelimit);
    const Core__RuntimeFeatureFlag *flag = m->runtime_enabled;
    c->is_enabled = !flag || !flag->default_value || flag->default_value->value;
    c->runtime_key = flag ? arena_sv(ctx->arena, sv_cstr(flag->runtime_key)) : SV_NULL;
    c->bucket = arena_new(ctx->arena, struct token_bucket);
    c->stats =
        stats_scope_get(ctx->stats, &accept_ratelimit_stats_group,
                        arena_printf(ctx->arena, "listener_local_ratelimit.%s.", m->stat_prefix));
    arena_on_fini(ctx->arena, release_scope, c->stats);
    DIAG_FIELD(ctx->diag, "token_bucket");
    return token_bucket_compile(ctx, "local rate limit token bucket", m->token_bucket, c->bucket)
               ? c
               : NULL;
}

/* One clock for all threads; an accepted socket is worth asking the system. */
static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

static enum listener_filter_status on_bytes(const void *config, void *state,
                                            struct accept_info *info, sv bytes, bool end,
                                            unsigned thread_index) {
    const struct accept_ratelimit *c = config;
    (void)state;
    (void)bytes;
    (void)end;
    bool is_enabled =
        c->runtime_key.n ? runtime_bool(c->runtime_key, c->is_enabled) : c->is_enabled;
    if (!is_enabled || token_bucket_take(c->bucket, now_us(), 1)) {
        return LISTENER_FILTER_DONE;
    }
    stats_inc(stats_shard(c->stats, thread_index), ACCEPT_RATELIMIT_rate_limited);
    info->reject_reason = "local rate limit";
    return LISTENER_FILTER_REJECT;
}

extern const struct listener_filter_type listener_local_ratelimit_listener_filter;
const struct listener_filter_type listener_local_ratelimit_listener_filter = {
    .name = "envoy.filters.listener.local_ratelimit",
    .type_url = "envoy.extensions.filters.listener.local_ratelimit.v3.LocalRateLimit",
    .compile = compile,
    .on_bytes = on_bytes,
};
