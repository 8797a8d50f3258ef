/* Connection limit: how many connections of a filter chain there may be at once; the others are
 * closed, after a delay or at once.
 * Threads: config immutable but for its count (atomic, shared by all workers); connections
 * worker-local. Spec: extensions.filters.network.connection_limit.v3. */
#include "protos/gen/core.pb-c.h"
#include "protos/gen/network_connection_limit.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/worker.h"
#include "proxy/base/runtime.h"

#define CX_LIMIT_STATS(P, C, G, H, T) C(P, limited_connections) G(P, active_connections)
STATS_ENUM(CX_LIMIT, CX_LIMIT_STATS);
STATS_GROUP(cx_limit, CX_LIMIT, CX_LIMIT_STATS);

struct config {
    struct stats_scope *stats;
    uint64_t *connections; /* shared, atomic: those there are, rejected ones that wait among them */
    uint64_t max_connections;
    uint32_t delay_ms;
    sv runtime_key; /* empty: none */
    bool is_enabled;
};
struct instance {
    struct network_filter base; /* must be first */
    struct timer delay;
    bool is_counted, is_rejected;
};

static void release_scope(void *scope) { stats_scope_unref((struct stats_scope *)scope); }

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const NetworkConnectionLimit__ConnectionLimit *m = msg;
    struct config *c = arena_new(ctx->arena, struct config);
    const Core__RuntimeFeatureFlag *flag = m->runtime_enabled;
    c->is_enabled = !flag || !flag->default_value || flag->default_value->value;
    c->runtime_key = flag ? arena_sv(ctx->arena, sv_cstr(flag->runtime_key)) : SV_NULL;
    c->max_connections = m->max_connections->value; /* required, at least 1: validate rules */
    c->connections = arena_new(ctx->arena, uint64_t);
    c->stats = stats_scope_get(ctx->stats, &cx_limit_stats_group,
                               arena_printf(ctx->arena, "connection_limit.%s.", m->stat_prefix));
    arena_on_fini(ctx->arena, release_scope, c->stats);
    DIAG_FIELD(ctx->diag, "delay");
    return compile_duration_ms(ctx, m->delay, 0, &c->delay_ms) ? c : NULL;
}

static struct stats_shard *shard(const struct network_filter *f) {
    const struct config *c = f->config;
    return stats_shard(c->stats, worker_loop(net_worker(f))->thread_index);
}

static void reject(struct network_filter *f) {
    conn_close(f->conn, CONN_CLOSE_NO_FLUSH, "over_connection_limit");
}

static void on_delayed(struct timer *t) { reject(&CONTAINER_OF(t, struct instance, delay)->base); }

static enum net_status on_new_connection(struct network_filter *f) {
    struct instance *x = (struct instance *)f;
    const struct config *c = f->config;
    timer_init(&x->delay, worker_loop(net_worker(f)), on_delayed);
    if (!(c->runtime_key.n ? runtime_bool(c->runtime_key, c->is_enabled) : c->is_enabled)) {
        return NET_CONTINUE;
    }
    x->is_counted = true;
    stats_gauge_inc(shard(f), CX_LIMIT_active_connections);
    if (__atomic_fetch_add(c->connections, 1, __ATOMIC_RELAXED) < c->max_connections) {
        return NET_CONTINUE;
    }
    stats_inc(shard(f), CX_LIMIT_limited_connections);
    x->is_rejected = true;
    if (c->delay_ms) { /* a client that comes again at once has to wait */
        timer_start(&x->delay, c->delay_ms);
    } else {
        reject(f);
    }
    return NET_STOP;
}

static enum net_status on_data(struct network_filter *f, struct buf *data, bool end_stream) {
    (void)data;
    (void)end_stream;
    return ((struct instance *)f)->is_rejected ? NET_STOP : NET_CONTINUE;
}

static void on_conn_event(struct network_filter *f, enum conn_event e) {
    struct instance *x = (struct instance *)f;
    const struct config *c = f->config;
    if (e == CONN_EVENT_CONNECTED) {
        return;
    }
    timer_cancel(&x->delay);
    if (x->is_counted) {
        x->is_counted = false;
        __atomic_fetch_sub(c->connections, 1, __ATOMIC_RELAXED);
        stats_gauge_dec(shard(f), CX_LIMIT_active_connections);
    }
}

extern const struct network_filter_type connection_limit_network_filter;
const struct network_filter_type connection_limit_network_filter = {
    .name = "envoy.filters.network.connection_limit",
    .type_url = "envoy.extensions.filters.network.connection_limit.v3.ConnectionLimit",
    .instance_size = sizeof(struct instance),
    .compile = compile,
    .on_new_connection = on_new_connection,
    .on_data = on_data,
    .on_conn_event = on_conn_event,
};
