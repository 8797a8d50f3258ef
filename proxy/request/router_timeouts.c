/* See router_timeouts.h. Spec: RouteAction.timeout, max_stream_duration,
 * x-envoy-upstream-rq-timeout-ms, grpc-timeout; Envoy's FilterUtility::finalTimeout. Threads:
 * worker-local. */
#include "proxy/request/router_timeouts.h"

#include "proxy/request/router.h"

#define ROUTE_TIMEOUT_DEFAULT_MS 15000u
#define GRPC_TIMEOUT_DIGITS_MAX 8u

/* A header with milliseconds, removed; false when it is not there or no number. */
static bool take_ms(struct headers *h, enum header_id id, uint32_t *out) {
    sv v = headers_get(h, id);
    if (!v.p) {
        return false;
    }
    uint64_t ms;
    bool ok = sv_to_u64(v, &ms);
    headers_remove(h, id);
    *out = ms > UINT32_MAX ? UINT32_MAX : (uint32_t)ms;
    return ok;
}

/* "10S" → 10000. RFC-like: at most eight digits and a unit. */
bool grpc_timeout_parse(sv v, uint64_t *out) {
    uint64_t n;
    if (!sv_eat_u64(&v, GRPC_TIMEOUT_DIGITS_MAX, &n) || v.n != 1) {
        return false;
    }
    switch (v.p[0]) {
    case 'H':
        *out = n * 3600000;
        return true;
    case 'M':
        *out = n * 60000;
        return true;
    case 'S':
        *out = n * 1000;
        return true;
    case 'm':
        *out = n;
        return true;
    case 'u':
        *out = (n + 999) / 1000;
        return true;
    case 'n':
        *out = (n + 999999) / 1000000;
        return true;
    default:
        return false;
    }
}

/* max_grpc_timeout: the client's grpc-timeout counts, up to the maximum (0: no maximum). */
static void apply_grpc(struct router *r) {
    const struct route_extra *e = r->route->extra;
    if (!r->is_grpc || e->grpc_timeout_max_ms == UINT32_MAX) {
        return;
    }
    uint64_t ms = 0;
    sv v = headers_get(r->headers, HDR_grpc_timeout);
    bool has = v.n && grpc_timeout_parse(v, &ms);
    uint64_t max = e->grpc_timeout_max_ms;
    uint64_t t = has ? ms : max;
    if (has && max && (t == 0 || t > max)) {
        t = max;
    }
    if (has && e->grpc_timeout_offset_ms != UINT32_MAX && t > e->grpc_timeout_offset_ms) {
        t -= e->grpc_timeout_offset_ms;
    }
    r->timeout_ms = t > UINT32_MAX ? UINT32_MAX : (uint32_t)t;
}

void router_set_expected_timeout(struct router *r) {
    uint32_t expected = r->timeout_ms;
    if (expected && r->attempts > 1 && r->request_end_us) { /* what is left of it */
        uint64_t used = (loop_now_us(http_loop(&r->base)) - r->request_end_us) / 1000;
        expected = used < expected ? expected - (uint32_t)used : 1;
    }
    if (r->per_try_timeout_ms && (expected == 0 || r->per_try_timeout_ms < expected)) {
        expected = r->per_try_timeout_ms;
    }
    if (expected && !r->cfg->suppress_envoy_headers) {
        headers_set(r->headers, HDR_x_envoy_expected_rq_timeout_ms,
                    arena_printf(http_arena(&r->base), "%u", expected));
    }
}

void router_timeouts_read(struct router *r) {
    const struct route_entry *e = r->route;
    struct headers *h = r->headers;
    if (!e->has_max_stream_duration) { /* with it, the stream's own limit counts (stream.c) */
        r->timeout_ms = e->timeout_ms == UINT32_MAX ? ROUTE_TIMEOUT_DEFAULT_MS : e->timeout_ms;
        apply_grpc(r);
    }
    if (e->retry) {
        r->per_try_timeout_ms = e->retry->per_try_timeout_ms;
        r->per_try_idle_ms = e->retry->per_try_idle_timeout_ms;
    }
    uint32_t ms;
    if (r->cfg->respect_expected_rq_timeout && headers_has(h, HDR_x_envoy_expected_rq_timeout_ms)) {
        if (take_ms(h, HDR_x_envoy_expected_rq_timeout_ms, &ms)) {
            r->timeout_ms = ms;
        }
    } else if (take_ms(h, HDR_x_envoy_upstream_rq_timeout_ms, &ms)) {
        r->timeout_ms = ms;
    }
    if (take_ms(h, HDR_x_envoy_upstream_rq_per_try_timeout_ms, &ms)) {
        r->per_try_timeout_ms = ms;
    }
    if (headers_has(h, HDR_x_envoy_upstream_rq_timeout_alt_response)) {
        r->alt_response = true;
        headers_remove(h, HDR_x_envoy_upstream_rq_timeout_alt_response);
    }
    if (r->timeout_ms && r->per_try_timeout_ms >= r->timeout_ms) {
        r->per_try_timeout_ms = 0; /* the global timeout comes first */
    }
    router_set_expected_timeout(r);
}
