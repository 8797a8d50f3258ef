/* What the router counts of its attempts: response codes of the cluster, results of the host, what
 * outlier detection is told.
 * Threads: worker-local. Spec: "cluster stats" and "router_filter" docs; Envoy's
 * chargeUpstreamCode(), chargeUpstreamAbort(), handleNon5xxResponseHeaders().
 * Not here: what single events count (router.c, router_upstream.c), requests of the listener
 * (stream.c). */
#include "proxy/request/router.h"
#include "proxy/request/stream.h"
#include "proxy/route/route_stats.h"
#include "proxy/upstream/cluster_view.h"
#include "proxy/upstream/health_check.h"

static void count_side(const struct cluster_config *c, enum cluster_side side, unsigned status) {
    struct stats_codes *codes = cluster_side_codes(c, side);
    stats_codes_inc(codes, status);
    stats_codes_inc_completed(codes);
}

/* ---- the route's own stats: of its virtual cluster and of its stat_prefix ---- */

#define ROUTE_COUNTERS 2u
struct route_counter {
    struct stats_scope *scope; /* NULL: none */
    struct stats_codes *codes;
};

static struct route_counter route_counter(struct router *r, unsigned i) {
    const struct virtual_cluster *v = r->base.stream->vcluster;
    const struct route_extra *x = r->route->extra;
    if (i == 0) {
        return v ? (struct route_counter){v->stats, v->rq_codes} : (struct route_counter){0};
    }
    return (struct route_counter){x->stats, x->rq_codes};
}

static struct stats_shard *shard_of(struct router *r, const struct route_counter *c) {
    return stats_shard(c->scope, http_loop(&r->base)->thread_index);
}

void router_count_route(struct router *r, unsigned route_stat) {
    for (unsigned i = 0; i < ROUTE_COUNTERS; i++) {
        struct route_counter c = route_counter(r, i);
        if (UNLIKELY(c.scope)) {
            stats_inc(shard_of(r, &c), route_stat);
        }
    }
}

void router_retry_counts(struct router *r) {
    for (unsigned i = 0; r->retry && i < ROUTE_COUNTERS; i++) {
        struct route_counter c = route_counter(r, i);
        r->retry->also[i] = c.scope ? shard_of(r, &c) : NULL;
    }
}

static void count_route_code(struct router *r, unsigned status) {
    for (unsigned i = 0; i < ROUTE_COUNTERS; i++) {
        struct route_counter c = route_counter(r, i);
        if (UNLIKELY(c.scope)) {
            stats_codes_inc(c.codes, status);
            stats_inc(shard_of(r, &c), ROUTE_upstream_rq_completed);
        }
    }
}

static void record_times(struct router *r, uint64_t ms) {
    stats_record(r->cluster->stats, CLUSTER_upstream_rq_time, ms);
    for (unsigned i = 0; i < ROUTE_COUNTERS; i++) {
        struct route_counter c = route_counter(r, i);
        if (UNLIKELY(c.scope)) {
            stats_record(shard_of(r, &c), ROUTE_upstream_rq_time, ms);
        }
    }
}

/* ---- the cluster's ---- */

static bool is_5xx(unsigned status) { return status >= 500 && status < 600; }

static void count_host(struct router *r, bool is_success) {
    if (!r->up.host) {
        return;
    }
    if (is_success) {
        HOST_STAT_ADD(r->up.host, rq_success, 1);
    } else {
        HOST_STAT_ADD(r->up.host, rq_error, 1);
    }
}

/* By the host's metadata, or as the response says. */
static bool is_canary(struct router *r) {
    return r->up.host && (r->up.host->is_canary ||
                          (r->had_attempt_headers &&
                           sv_is(headers_get(&r->response, HDR_x_envoy_upstream_canary), "true")));
}

void router_count_code(struct router *r, unsigned status) {
    const struct cluster_config *c = r->cluster->cfg;
    stats_codes_inc(cluster_side_codes(c, CLUSTER_SIDE_ALL), status);
    stats_inc(r->cluster->stats, CLUSTER_upstream_rq_completed);
    if (!r->cfg->dynamic_stats) {
        return;
    }
    bool is_internal = r->base.stream->is_internal_request;
    count_side(c, is_internal ? CLUSTER_SIDE_INTERNAL : CLUSTER_SIDE_EXTERNAL, status);
    if (UNLIKELY(is_canary(r))) {
        count_side(c, CLUSTER_SIDE_CANARY, status);
    }
    count_route_code(r, status);
    if (is_5xx(status)) {
        count_host(r, false);
    }
}

void router_count_abort(struct router *r, unsigned status) {
    if (!r->is_response_started) {
        router_count_code(r, status);
        if (!is_5xx(status)) { /* timed out with an alternative response */
            count_host(r, false);
        }
    } else if (r->awaits_grpc_status) {
        count_host(r, false);
        stats_inc(r->base.stream->hcm->stats, HCM_rq_reset_after_downstream_response_started);
    }
    r->awaits_grpc_status = false;
}

void router_count_retry(struct router *r, const struct headers *response) {
    count_host(r, false);
    if (response) {
        count_side(r->cluster->cfg, CLUSTER_SIDE_RETRY, headers_status(response));
    }
}

void router_report_response(struct router *r, const struct headers *h) {
    unsigned status = headers_status(h);
    host_report(r->up.cluster->cfg, r->up.host, HOST_RESULT_HTTP,
                r->is_grpc ? headers_grpc_as_http(h, status) : status);
    if (UNLIKELY(headers_has(h, HDR_x_envoy_immediate_health_check_fail))) {
        health_check_report_failed(r->up.cluster->cfg, r->up.host);
    }
}

void router_count_response(struct router *r, const struct headers *h, bool end_stream) {
    unsigned status = headers_status(h);
    router_count_code(r, status);
    if (is_5xx(status)) {
        return;
    }
    if (r->is_grpc && !end_stream) { /* the trailers tell */
        r->awaits_grpc_status = true;
    } else {
        count_host(r, !r->is_grpc || !is_5xx(headers_grpc_as_http(h, 500)));
    }
}

void router_count_end(struct router *r, const struct headers *trailers) {
    if (r->awaits_grpc_status) {
        r->awaits_grpc_status = false;
        count_host(r, trailers && !is_5xx(headers_grpc_as_http(trailers, 500)));
    }
    if (r->request_end_us && r->cfg->dynamic_stats) {
        uint64_t ms = (loop_now_us(http_loop(&r->base)) - r->request_end_us) / 1000;
        bool is_internal = r->base.stream->is_internal_request;
        record_times(r, ms);
        cluster_view_record_side(r->cluster,
                                 is_internal ? CLUSTER_SIDE_INTERNAL : CLUSTER_SIDE_EXTERNAL, ms);
        if (UNLIKELY(is_canary(r))) {
            cluster_view_record_side(r->cluster, CLUSTER_SIDE_CANARY, ms);
        }
    }
}
