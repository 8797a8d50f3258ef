/* Requests wait for the virtual host, the scope's routes or the cluster that they need and that
 * only the control plane has; then the request is looked at anew, by all filters.
 * Threads: config immutable, streams worker-local. Spec: filters.http.on_demand.v3.OnDemand.
 * Not here: asking the control plane (api/on_demand.h). */
#include "protos/gen/http_on_demand.pb-c.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/worker.h"

#define ODCDS_TIMEOUT_MS 5000u

#define ON_DEMAND_STATS(P, C, G, H, T) C(P, rq_fetch) C(P, rq_fetch_timeout) C(P, rq_overflow)
STATS_ENUM(ON_DEMAND, ON_DEMAND_STATS);
STATS_GROUP(on_demand, ON_DEMAND, ON_DEMAND_STATS);

struct on_demand_config {
    const struct config_source *source; /* of clusters; NULL: they are not asked for */
    uint32_t timeout_ms;                /* for clusters; 0: at once */
    struct stats_scope *stats;          /* the filter's own config only */
};
struct on_demand_stream {
    struct http_filter base; /* must be first */
    struct on_demand_wait wait;
    struct timer timer;
};

/* ---- compiling ---- */

static bool compile_odcds(struct compile_ctx *ctx, const HttpOnDemand__OnDemandCds *m,
                          struct on_demand_config *c) {
    c->timeout_ms = ODCDS_TIMEOUT_MS;
    if (!m) {
        return true;
    }
    DIAG_FIELD(ctx->diag, "odcds");
    if (*m->resources_locator) {
        return diag_error(ctx->diag, "resources_locator: resource locators (xdstp) are not "
                                     "supported");
    }
    if (!m->source) {
        return diag_error(ctx->diag, "source: value is required");
    }
    {
        DIAG_FIELD(ctx->diag, "source");
        c->source = compile_config_source(ctx, m->source);
    }
    DIAG_FIELD(ctx->diag, "timeout");
    return compile_duration_ms(ctx, m->timeout, ODCDS_TIMEOUT_MS, &c->timeout_ms) && c->source;
}

static void release_scope(void *scope) { stats_scope_unref(scope); }

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const HttpOnDemand__OnDemand *m = msg;
    struct on_demand_config *c = arena_new(ctx->arena, struct on_demand_config);
    sv prefix = arena_printf(ctx->arena, "%.*son_demand.", SV_ARG(ctx->stat_prefix));
    c->stats = stats_scope_get(ctx->stats, &on_demand_stats_group, prefix);
    arena_on_fini(ctx->arena, release_scope, c->stats);
    return compile_odcds(ctx, m ? m->odcds : NULL, c) ? c : NULL;
}

static void *compile_route(struct compile_ctx *ctx, const void *msg, const char *type) {
    const HttpOnDemand__PerRouteConfig *m = msg;
    struct on_demand_config *c = arena_new(ctx->arena, struct on_demand_config);
    (void)type;
    return compile_odcds(ctx, m->odcds, c) ? c : NULL;
}

/* ---- one request ---- */

static void count(struct on_demand_stream *s, unsigned stat) {
    const struct on_demand_config *c = s->base.config;
    stats_inc(stats_shard(c->stats, http_loop(&s->base)->thread_index), stat);
}

static void stop_waiting(struct on_demand_stream *s) {
    timer_cancel(&s->timer);
    worker_fetch_cancel(http_worker(&s->base), &s->wait);
}

static void on_done(struct on_demand_wait *w, bool is_found) {
    struct on_demand_stream *s = CONTAINER_OF(w, struct on_demand_stream, wait);
    stop_waiting(s);
    if (is_found && http_recreate_stream(&s->base)) {
        return;
    }
    http_refresh_route(&s->base);
    http_continue_decoding(&s->base);
}

static void on_timeout(struct timer *t) {
    struct on_demand_stream *s = CONTAINER_OF(t, struct on_demand_stream, timer);
    count(s, ON_DEMAND_rq_fetch_timeout);
    stop_waiting(s);
    http_continue_decoding(&s->base); /* the router answers for what is missing */
}

static void init(struct http_filter *f) {
    struct on_demand_stream *s = (struct on_demand_stream *)f;
    s->wait.on_done = on_done;
    timer_init(&s->timer, http_loop(f), on_timeout);
}

static enum http_fetch fetch_cluster(struct on_demand_stream *s) {
    const struct on_demand_config *route = http_route_config(&s->base);
    const struct on_demand_config *c = route ? route : s->base.config;
    if (!c->source) {
        return HTTP_FETCH_NOTHING;
    }
    enum http_fetch started = http_fetch_cluster(&s->base, c->source, &s->wait);
    if (started == HTTP_FETCH_STARTED) {
        timer_start(&s->timer, c->timeout_ms);
    }
    return started;
}

static enum filter_headers_status decode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    struct on_demand_stream *s = (struct on_demand_stream *)f;
    (void)h;
    (void)end_stream;
    enum http_fetch started = http_fetch_route(f, &s->wait);
    switch (started == HTTP_FETCH_NOTHING ? fetch_cluster(s) : started) {
    case HTTP_FETCH_NOTHING:
        break;
    case HTTP_FETCH_STARTED:
        count(s, ON_DEMAND_rq_fetch);
        return FILTER_HEADERS_STOP_ALL_WATERMARK;
    case HTTP_FETCH_OVERFLOW:
        count(s, ON_DEMAND_rq_overflow);
        http_local_reply(f, 503, SV_NULL, RESPONSE_FLAG(UO), SV("on_demand_overflow"), NULL, NULL);
        return FILTER_HEADERS_STOP;
    }
    return FILTER_HEADERS_CONTINUE;
}

static void destroy(struct http_filter *f) { stop_waiting((struct on_demand_stream *)f); }

const struct http_filter_type on_demand_http_filter = {
    .name = "envoy.filters.http.on_demand",
    .type_url = "envoy.extensions.filters.http.on_demand.v3.OnDemand",
    .route_type_url = "envoy.extensions.filters.http.on_demand.v3.PerRouteConfig",
    .stream_size = sizeof(struct on_demand_stream),
    .compile = compile,
    .compile_route = compile_route,
    .init = init,
    .decode_headers = decode_headers,
    .destroy = destroy,
};
