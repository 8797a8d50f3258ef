/* The proxy's own health: answers health checks of whoever balances over us, or lets them pass and
 * remembers the answer; tells on responses when this proxy is to be left.
 * Threads: config immutable but for the remembered answer (atomic, shared by all workers); streams
 * worker-local. Spec: extensions.filters.http.health_check.v3.
 * Not here: checking upstreams (upstream/health_check.c). */
#include "protos/gen/http_health_check.pb-c.h"
#include "protos/gen/route.pb-c.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/matcher.h"
#include "proxy/api/worker.h"

struct minimum {
    slot_t cluster;
    double pct;
};
struct answer { /* shared, atomic */
    uint64_t until_us;
    uint32_t status;
    uint32_t is_degraded;
};
struct config {
    bool is_pass_through;
    uint64_t cache_us; /* 0: nothing is remembered */
    const struct header_matchers *headers;
    const struct minimum *minimums;
    unsigned minimums_n;
    struct answer *last;
};
struct health_check {
    struct http_filter base; /* must be first */
    bool is_check, is_ours;
};

/* ---- compile ---- */

static void compile_minimums(struct compile_ctx *ctx, const HttpHealthCheck__HealthCheck *m,
                             struct config *c) {
    size_t n = m->n_cluster_min_healthy_percentages;
    struct minimum *v = arena_new_array(ctx->arena, struct minimum, n);
    for (size_t i = 0; i < n; i++) {
        const HttpHealthCheck__HealthCheck__ClusterMinHealthyPercentagesEntry *e =
            m->cluster_min_healthy_percentages[i];
        v[i].cluster = compile_cluster_ref(ctx, sv_cstr(e->key), false);
        v[i].pct = e->value ? e->value->value : 0;
    }
    c->minimums = v;
    c->minimums_n = (unsigned)n;
}

static void *health_check_compile(struct compile_ctx *ctx, const void *msg) {
    const HttpHealthCheck__HealthCheck *m = msg;
    struct config *c = arena_new(ctx->arena, struct config);
    c->is_pass_through = m->pass_through_mode && m->pass_through_mode->value;
    c->last = arena_new(ctx->arena, struct answer);
    uint32_t cache_ms;
    {
        DIAG_FIELD(ctx->diag, "cache_time");
        compile_duration_ms(ctx, m->cache_time, 0, &cache_ms);
    }
    c->cache_us = (uint64_t)cache_ms * 1000;
    if (cache_ms && !c->is_pass_through) {
        diag_error(ctx->diag, "cache_time_ms must not be set when path_through_mode is disabled");
        return NULL;
    }
    if (!c->is_pass_through) {
        compile_minimums(ctx, m, c);
    }
    c->headers = header_matchers_compile(ctx, (const void *const *)m->headers, m->n_headers);
    return c;
}

/* ---- the answer ---- */

static uint64_t load64(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }

static bool is_remembered(struct health_check *hc, const struct config *c) {
    return c->cache_us && loop_now_us(http_loop(&hc->base)) < load64(&c->last->until_us);
}

static void remember(const struct config *c, uint64_t now_us, const struct headers *h) {
    bool is_degraded = headers_get_name(h, SV("x-envoy-degraded")).p != NULL;
    __atomic_store_n(&c->last->status, headers_status(h), __ATOMIC_RELAXED);
    __atomic_store_n(&c->last->is_degraded, is_degraded, __ATOMIC_RELAXED);
    __atomic_store_n(&c->last->until_us, now_us + c->cache_us, __ATOMIC_RELEASE);
}

/* NULL: all clusters have as many hosts as they should. */
static const char *what_is_missing(struct worker *w, const struct config *c) {
    for (unsigned i = 0; i < c->minimums_n; i++) {
        unsigned total, usable;
        if (!worker_cluster_members(w, c->minimums[i].cluster, &total, &usable)) {
            return "health_check_no_cluster_found";
        }
        if (total == 0 && c->minimums[i].pct != 0) {
            return "health_check_cluster_empty";
        }
        if (100.0 * usable < total * c->minimums[i].pct) {
            return "health_check_cluster_unhealthy";
        }
    }
    return NULL;
}

static void add_degraded(struct headers *h, void *arg) {
    (void)arg;
    headers_set_name(h, SV("x-envoy-degraded"), SV("true"));
}

static void answer(struct health_check *hc) {
    const struct config *c = hc->base.config;
    struct worker *w = http_worker(&hc->base);
    unsigned status = 200;
    bool is_degraded = false;
    const char *details = "health_check_ok";
    if (worker_health_failed(w)) {
        status = 503;
        details = "health_check_failed";
    } else if (c->cache_us) {
        status = __atomic_load_n(&c->last->status, __ATOMIC_RELAXED);
        is_degraded = __atomic_load_n(&c->last->is_degraded, __ATOMIC_RELAXED);
        details = "health_check_cached";
    } else {
        const char *missing = what_is_missing(w, c);
        status = missing ? 503 : 200;
        details = missing ? missing : details;
    }
    uint64_t flags = status / 100 == 2 ? 0 : RESPONSE_FLAG(LH);
    http_local_reply(&hc->base, status, SV_NULL, flags, sv_cstr(details),
                     is_degraded ? add_degraded : NULL, NULL);
}

/* ---- streams ---- */

static enum filter_headers_status decode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    struct health_check *hc = (struct health_check *)f;
    const struct config *c = f->config;
    if (!header_matchers_match(c->headers, h, http_arena(f))) {
        return FILTER_HEADERS_CONTINUE;
    }
    hc->is_check = true;
    http_stream_info(f)->is_health_check = true;
    hc->is_ours = !c->is_pass_through || is_remembered(hc, c);
    if (!hc->is_ours) {
        return FILTER_HEADERS_CONTINUE;
    }
    if (end_stream) {
        answer(hc);
    }
    return FILTER_HEADERS_STOP;
}

static enum filter_data_status decode_data(struct http_filter *f, struct buf *data,
                                           bool end_stream) {
    struct health_check *hc = (struct health_check *)f;
    if (!hc->is_ours) {
        return FILTER_DATA_CONTINUE;
    }
    buf_clear(data);
    if (end_stream) {
        answer(hc);
    }
    return FILTER_DATA_STOP_NO_BUFFER;
}

static enum filter_trailers_status decode_trailers(struct http_filter *f, struct headers *t) {
    (void)t;
    struct health_check *hc = (struct health_check *)f;
    if (!hc->is_ours) {
        return FILTER_TRAILERS_CONTINUE;
    }
    answer(hc);
    return FILTER_TRAILERS_STOP;
}

static enum filter_headers_status encode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    (void)end_stream;
    struct health_check *hc = (struct health_check *)f;
    const struct config *c = f->config;
    if (hc->is_check) {
        if (c->cache_us && !hc->is_ours) {
            remember(c, loop_now_us(http_loop(f)), h);
        }
        headers_set(h, HDR_x_envoy_upstream_healthchecked_cluster,
                    worker_node_cluster(http_worker(f)));
    } else if (worker_health_failed(http_worker(f))) {
        headers_set(h, HDR_x_envoy_immediate_health_check_fail, SV("true"));
    }
    return FILTER_HEADERS_CONTINUE;
}

const struct http_filter_type health_check_http_filter = {
    .name = "envoy.filters.http.health_check",
    .type_url = "envoy.extensions.filters.http.health_check.v3.HealthCheck",
    .route_type_url = "",
    .stream_size = sizeof(struct health_check),
    .compile = health_check_compile,
    .decode_headers = decode_headers,
    .decode_data = decode_data,
    .decode_trailers = decode_trailers,
    .encode_headers = encode_headers,
};
