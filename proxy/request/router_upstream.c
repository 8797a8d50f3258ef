/* One attempt of the router: pick a host, get a stream from its pool, send the request, hear the
 * response.
 * Threads: worker-local. Spec: Envoy's Router::UpstreamRequest.
 * Not here: what a response or failure means (router.c, retry.c). */
#include "proxy/api/metadata_match.h"
#include "proxy/base/log.h"
#include "proxy/net/proxy_header.h"
#include "proxy/observe/metadata.h"
#include "proxy/request/router.h"
#include "proxy/request/router_timeouts.h"
#include "proxy/request/stream.h"
#include "proxy/route/route_stats.h"
#include "proxy/upstream/dynamic_host.h"

static struct router *router_of(void *user) { return CAST(router, ROUTER_MAGIC, user); }
static struct stream_info *info_of(struct router *r) { return http_stream_info(&r->base); }

/* ---- response callbacks from the codec ---- */

static void on_1xx(struct codec_stream *s, struct headers *h) {
    router_on_interim(router_of(s->user), h);
}

static void note_first_byte(struct router *r) {
    struct stream_info *si = info_of(r);
    if (!si->up.first_rx_us) {
        si->up.first_rx_us = loop_now_us(http_loop(&r->base));
    }
}

/* Keep what the attempt's stream has counted, which goes. */
static void forget_stream(struct router *r) {
    struct stream_info *si = info_of(r);
    stream_info_count_upstream(si);
    si->up.stream = NULL;
    si->up.conn = NULL;
}

static void release_request(struct router *r) {
    breaker_release(&r->up.cluster->cfg->use[r->priority].requests);
}

/* The stream that held the client back takes no more of its body. */
static void release_client(struct router *r) {
    while (r->up.request_high) {
        r->up.request_high--;
        stats_inc(r->cluster->stats, CLUSTER_upstream_flow_control_drained_total);
        http_read_disable(&r->base, false);
    }
}

static void request_ended(struct router *r) {
    timer_cancel(&r->try_timer);
    timer_cancel(&r->try_idle_timer);
    if (!r->connect) { /* else tcp_pool_closed() does it */
        HOST_STAT_ADD(r->up.host, rq_active, -1);
        stats_gauge_dec(r->up.cluster->stats, CLUSTER_upstream_rq_active);
    }
    release_request(r);
    release_client(r);
}

/* The response is complete: the attempt's stream ends by itself when the request was complete too,
 * else it is reset. */
static void response_complete(struct router *r) {
    struct stream_info *si = info_of(r);
    si->up.last_rx_us = loop_now_us(http_loop(&r->base));
    forget_stream(r);
    struct codec_stream *cs = r->up.stream;
    bool request_done = r->up.request_done;
    r->up.stream = NULL;
    r->up.conn = NULL;
    r->up.is_active = false;
    request_ended(r);
    if (!request_done) {
        cs->codec->vt->reset(cs, RESET_LOCAL);
    }
}

/* Something came: per_try_idle_timeout starts over. */
static void touch_try(struct router *r) {
    if (UNLIKELY(timer_active(&r->try_idle_timer))) {
        timer_start(&r->try_idle_timer, r->per_try_idle_ms);
    }
}

static void on_headers(struct codec_stream *s, struct headers *h, bool end_stream) {
    struct router *r = router_of(s->user);
    r->response = *h;
    note_first_byte(r);
    touch_try(r);
    if (end_stream) {
        stream_info_note_identities(info_of(r), r->up.conn ? conn_ssl(r->up.conn) : NULL);
        response_complete(r);
    }
    router_on_response_headers(r, end_stream);
}

static void on_data(struct codec_stream *s, struct buf *data, bool end_stream) {
    struct router *r = router_of(s->user);
    touch_try(r);
    if (end_stream) {
        response_complete(r);
        router_on_response_end(r, NULL);
    }
    http_encode_data(&r->base, data, end_stream);
}

static void on_trailers(struct codec_stream *s, struct headers *t) {
    struct router *r = router_of(s->user);
    response_complete(r);
    router_on_response_end(r, t);
    http_encode_trailers(&r->base, t);
}

/* Give back what the attempt holds; the codec stream is already gone or is being reset by the
 * caller. */
static void attempt_ended(struct router *r) {
    if (!r->up.is_active) {
        return;
    }
    r->up.is_active = false;
    r->up.stream = NULL;
    r->up.conn = NULL;
    forget_stream(r);
    request_ended(r);
}

/* RFC 9110 §9.2.2: doing it twice is as good as doing it once. */
static bool is_idempotent(sv method) {
    static const char *const methods[] = {"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"};
    for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
        if (sv_is(method, methods[i])) {
            return true;
        }
    }
    return false;
}

/* A pooled connection that the host closed while it was idle: nothing came back, so a bodiless
 * idempotent request is sent once more, on another connection, instead of telling the client
 * 503. */
static bool replay(struct router *r, const struct codec_stream *s, enum reset_reason why) {
    if (r->connect) {
        return false;
    }
    bool is_stale = why == RESET_CONNECTION_TERMINATION && http_pool_stream_reused(s) &&
                    s->rx_header_bytes == 0;
    bool is_whole = r->body_ended && !r->up.sent_any && !r->trailers;
    if (!is_stale || !is_whole || r->has_replayed ||
        !is_idempotent(headers_get(r->headers, HDR_method))) {
        return false;
    }
    r->has_replayed = true;
    attempt_ended(r);
    tracing_attempt_end(r, &(struct trace_attempt_end){.flags = RESPONSE_FLAG(UC),
                                                       .reset_reason = router_reset_words(why)});
    r->attempts--;
    router_attempt_start(r);
    return true;
}

static void on_reset(struct codec_stream *s, enum reset_reason why) {
    struct router *r = router_of(s->user);
    if (replay(r, s, why)) {
        return;
    }
    attempt_ended(r);
    host_report(r->up.cluster->cfg, r->up.host, HOST_RESULT_RESET, 503);
    router_on_upstream_failure(r, why, SV_NULL);
}

static void on_above_high(struct codec_stream *s) {
    struct router *r = router_of(s->user);
    r->up.request_high++;
    stats_inc(r->cluster->stats, CLUSTER_upstream_flow_control_backed_up_total);
    http_read_disable(&r->base, true);
}

static void on_below_low(struct codec_stream *s) {
    struct router *r = router_of(s->user);
    if (!r->up.request_high) {
        return;
    }
    r->up.request_high--;
    stats_inc(r->cluster->stats, CLUSTER_upstream_flow_control_drained_total);
    http_read_disable(&r->base, false);
}

static const struct codec_stream_ops upstream_ops = {
    .on_1xx = on_1xx,
    .on_headers = on_headers,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_reset = on_reset,
    .on_above_high = on_above_high,
    .on_below_low = on_below_low,
};

/* ---- the stream is open: send ---- */

static void fill_upstream_info(struct router *r) {
    struct stream_info *si = info_of(r);
    si->up.host = r->up.host;
    si->up.conn = r->up.conn;
    si->up.stream = r->up.stream;
    stream_info_keep_ssl(si, conn_ssl(r->up.conn));
    si->up.connection_id = r->up.conn->id;
    si->up.local = r->up.conn->local;
    si->up.protocol = r->up.stream->codec->protocol;
    si->up.has_protocol = !r->connect;
    si->up.pool_ready_us = loop_now_us(http_loop(&r->base));
    si->up.first_tx_us = si->up.pool_ready_us;
}

void router_try_timers_start(struct router *r) {
    if (!r->up.stream || !r->body_ended) {
        return;
    }
    if (r->per_try_timeout_ms) {
        timer_start(&r->try_timer, r->per_try_timeout_ms);
    }
    if (r->per_try_idle_ms) {
        timer_start(&r->try_idle_timer, r->per_try_idle_ms);
    }
}

static void set_upstream_host(struct router *r) {
    const struct route_entry *e = r->route;
    route_rewrite_auto_host(e, r->headers, !r->cfg->suppress_envoy_headers, r->up.host->hostname);
}

static void on_ready(void *user, struct codec_stream *s, struct conn *c, struct host *h) {
    struct router *r = router_of(user);
    r->up.pending = NULL;
    r->up.stream = s;
    r->up.conn = c;
    r->up.host = h;
    r->up.is_active = r->has_attempt_stream = true;
    r->up.raw_pending = NULL;
    if (!r->connect) {
        HOST_STAT_ADD(h, rq_total, 1);
        HOST_STAT_ADD(h, rq_active, 1);
        stats_inc(r->up.cluster->stats, CLUSTER_upstream_rq_total);
        router_count_route(r, ROUTE_upstream_rq_total);
        stats_gauge_inc(r->up.cluster->stats, CLUSTER_upstream_rq_active);
    }
    http_pool_stream_arena(s, http_arena(&r->base));
    fill_upstream_info(r);
    set_upstream_host(r);
    tracing_inject(r);
    router_try_timers_start(r);
    bool end = r->is_headers_only;
    router_note_sent(r, end);
    s->codec->vt->send_headers(s, r->headers, end);
    for (uint16_t i = 0; i < r->up.response_high && r->up.stream; i++) {
        s->codec->vt->read_disable(s, true);
    }
    if (!end && r->up.stream) {
        router_attempt_body(r);
    }
}

void router_note_sent(struct router *r, bool end) {
    r->up.request_done |= end;
    if (end) {
        info_of(r)->up.last_tx_us = loop_now_us(http_loop(&r->base));
    }
}

void router_attempt_body(struct router *r) {
    struct codec_stream *s = r->up.stream;
    if (r->up.read_disabled_downstream) {
        r->up.read_disabled_downstream = false;
        http_read_disable(&r->base, false);
    }
    bool end = r->body_ended && !r->trailers;
    if (!buf_empty(&r->body) || end) {
        struct buf BUF_AUTO out;
        buf_init(&out);
        if (router_keeps_body(r)) {
            buf_copy_to(&r->body, &out);
        } else {
            buf_move(&out, &r->body);
        }
        r->up.sent_any = true;
        router_note_sent(r, end);
        s->codec->vt->send_data(s, &out, end);
    }
    if (r->trailers && r->up.stream) {
        router_note_sent(r, true);
        s->codec->vt->send_trailers(s, r->trailers);
    }
}

static void on_failure(void *user, enum pool_failure why, sv transport_failure, struct host *h) {
    struct router *r = router_of(user);
    r->up.pending = NULL;
    r->up.raw_pending = NULL;
    r->up.host = why == POOL_OVERFLOW ? NULL : h; /* it was not asked */
    info_of(r)->up.host = h;
    release_request(r);
    enum reset_reason reason = RESET_CONNECTION_FAILURE;
    if (why == POOL_OVERFLOW) {
        reason = RESET_OVERFLOW;
    } else if (why == POOL_CONNECT_TIMEOUT) {
        reason = RESET_CONNECTION_TIMEOUT;
    }
    if (reason != RESET_OVERFLOW) {
        host_report(r->up.cluster->cfg, h, HOST_RESULT_CONNECT_FAILED, 503);
    }
    router_on_upstream_failure(r, reason, transport_failure);
}

static const struct http_pool_ops pool_ops = {.on_ready = on_ready, .on_failure = on_failure};

/* ---- picking ---- */

/* omit_host_metadata; a predicate without criteria omits nothing. */
static bool is_marked(const struct host *h, const struct metadata_match *m) {
    const struct kv_value *lb =
        h->metadata ? kv_metadata_namespace(h->metadata, SV("envoy.lb")) : NULL;
    return m->n && metadata_match_holds(m, lb);
}

static bool avoid_host(const struct host *h, void *arg) {
    const struct router *r = arg;
    const struct retry_policy *p = r->route->retry;
    if (p && p->omit_canary_hosts && h->is_canary) {
        return true;
    }
    if (p && p->omit_host_metadata && is_marked(h, p->omit_host_metadata)) {
        return true;
    }
    for (unsigned i = 0; p && p->avoid_previous_hosts && i < r->tried_n; i++) {
        if (r->tried[i] == h) {
            return true;
        }
    }
    return false;
}

static void remember_host(struct router *r, const struct host *h) {
    if (r->tried_n == ARRAY_LEN(r->tried)) {
        memmove(r->tried, r->tried + 1, sizeof(r->tried) - sizeof(r->tried[0]));
        r->tried_n--;
    }
    r->tried[r->tried_n++] = h;
}

/* retry_priority: previous_priorities. */
static void avoid_priorities(struct router *r, struct lb_context *ctx) {
    const struct retry_policy *p = r->route->retry;
    if (!p || !p->previous_priorities_update_frequency) {
        return;
    }
    retry_priority_loads(r->retry, r->cluster, http_arena(&r->base));
    ctx->priority_loads = r->retry->loads;
    ctx->priority_loads_n = r->retry->loads_n;
}

/* The cluster that the host is of; the host is then valid until the request ends. */
static struct cluster_view *choose_cluster(struct router *r, struct lb_context *ctx) {
    struct cluster_view *v = cluster_view_member(r->cluster, ctx);
    if (UNLIKELY(v && v != r->cluster)) {
        cluster_hold(&r->members, v, http_arena(&r->base));
        if (v->cfg->lb_type->is_hashing && !r->has_hash) {
            router_compute_hash(r);
            ctx->hash = r->hash;
            ctx->has_hash = r->has_hash;
        }
    }
    r->up.cluster = v ? v : r->cluster;
    return v;
}

static struct host *pick(struct router *r, const struct host_entry **entry) {
    struct lb_context ctx = {
        .hash = r->hash,
        .has_hash = r->has_hash,
        .rng = &http_loop(&r->base)->rng,
        .metadata_match = r->weighted && r->weighted->metadata_match ? r->weighted->metadata_match
                                                                     : r->route->metadata_match,
        .downstream = info_of(r)->cx->conn,
        .request = r->headers,
        .si = info_of(r),
    };
    if (r->retry && r->attempts > 1 && r->route->retry) {
        ctx.avoid = avoid_host;
        ctx.avoid_arg = r;
        ctx.avoid_max = r->route->retry->host_selection_retry_max_attempts;
        avoid_priorities(r, &ctx);
    }
    if (r->attempts == 1) { /* further ones go where the balancer says */
        ctx.override_host = info_of(r)->up.override_host;
        ctx.override_strict = info_of(r)->up.override_strict_status != 0;
    }
    struct cluster_view *v = choose_cluster(r, &ctx);
    struct host *h = v ? cluster_view_pick(v, &ctx, entry) : NULL;
    if (h && r->retry) {
        retry_note_priority(r->retry, ctx.has_priority ? ctx.level : ctx.priority);
    }
    return h;
}

/* ---- hosts that have to be looked up ---- */

static void attempt_on_host(struct router *r, struct host *h, const struct host_entry *entry);

static void no_host(struct router *r, sv details) {
    unsigned strict = r->attempts == 1 ? info_of(r)->up.override_strict_status : 0;
    unsigned status = strict ? strict : 503;
    router_count_code(r, status);
    router_reply(r, status, SV("no healthy upstream"), RESPONSE_FLAG(UH), details);
}

/* At once: known before anybody had to wait. */
static void no_host_now(struct router *r, sv details) {
    stats_inc(r->cluster->stats, CLUSTER_upstream_cx_none_healthy);
    no_host(r, details);
}

static void on_dns_host(struct on_demand_wait *w, bool is_found) {
    struct router *r = CONTAINER_OF(w, struct router, dns_wait);
    dns_cache_pending_release(r->cluster->cfg->dns_cache);
    const struct host_entry *entry = NULL;
    struct host *h = is_found ? pick(r, &entry) : NULL;
    if (h) {
        attempt_on_host(r, h, entry);
        return;
    }
    sv details = SV("no_healthy_upstream");
    if (w->dns->outcome == DNS_HOSTS_OVERFLOW) {
        details = SV("dns_cache_overflow");
    } else if (w->dns->outcome == DNS_UNKNOWN && w->dns->details[0]) {
        details = arena_sv(http_arena(&r->base), sv_cstr(w->dns->details));
    }
    (w->dns->was_cached ? no_host_now : no_host)(r, details);
}

/* The cluster does not have the host that the request names: its DNS cache may find it. */
static void look_up_host(struct router *r) {
    const struct cluster_config *c = r->cluster->cfg;
    const struct lb_context ctx = {.request = r->headers, .si = info_of(r)};
    char room[DNS_CACHE_KEY_MAX];
    sv key = dynamic_key(r->cluster, &ctx, room);
    if (!key.n) {
        no_host_now(r,
                    dynamic_authority(&ctx).n ? SV(DNS_DETAILS_BAD_NAME) : SV("empty_host_header"));
        return;
    }
    if (!dns_cache_pending_try(c->dns_cache, http_loop(&r->base))) {
        no_host_now(r, SV("dns_cache_pending_requests_overflow"));
        return;
    }
    r->dns_wait.on_done = on_dns_host;
    if (!worker_dns_load(http_worker(&r->base), c->dns_cache, key, &r->dns_wait)) {
        dns_cache_pending_release(c->dns_cache);
        no_host_now(r, SV("dns_cache_pending_requests_overflow"));
    }
}

static void stop_look_up(struct router *r) {
    if (list_linked(&r->dns_wait.node)) {
        worker_fetch_cancel(http_worker(&r->base), &r->dns_wait);
        dns_cache_pending_release(r->cluster->cfg->dns_cache);
    }
}

/* ---- an attempt ---- */

/* Connect to where the tunnel leads. */
static void raw_start(struct router *r, const struct pool_key *key) {
    BUF_AUTO struct buf preface;
    buf_init(&preface);
    const struct transport_addresses *a = key->addresses;
    if (r->connect->proxy_header == 1) {
        proxy_header_v1(&preface, a->source, a->destination);
    } else if (r->connect->proxy_header) {
        CHECK(proxy_header_v2(&preface, a->source, a->destination, SV_NULL));
    }
    raw_stream_request(r->up.cluster, key, &preface, &pool_ops, r, &upstream_ops,
                       &r->up.raw_pending);
}

void router_attempt_start(struct router *r) {
    r->attempts++;
    struct stream_info *si = info_of(r);
    si->up.attempts = r->attempts;
    if (r->attempts > 1) {
        router_set_expected_timeout(r);
    }
    if (r->route->vhost->include_request_attempt_count) {
        headers_set(r->headers, HDR_x_envoy_attempt_count,
                    arena_printf(http_arena(&r->base), "%u", r->attempts));
    }
    r->up.host = NULL; /* until the pool names it */
    r->up.sent_any = r->up.request_done = false;
    r->had_attempt_headers = r->has_attempt_stream = false;
    const struct host_entry *entry = NULL;
    struct host *h = pick(r, &entry);
    if (h) {
        attempt_on_host(r, h, entry);
    } else if (r->cluster->cfg->type == CLUSTER_TYPE_DYNAMIC) {
        look_up_host(r);
    } else {
        no_host_now(r, SV("no_healthy_upstream"));
    }
}

/* scheme_header_transformation.match_upstream: what the first host speaks. */
static void set_scheme(struct router *r, const struct cluster_view *v,
                       const struct host_entry *entry) {
    const struct transport_factory *t =
        worker_transport(v->worker, cluster_transport_slot(v->cfg, entry));
    headers_set(r->headers, HDR_scheme, t && t->ops->is_secure ? SV("https") : SV("http"));
}

static void attempt_on_host(struct router *r, struct host *h, const struct host_entry *entry) {
    struct stream_info *si = info_of(r);
    si->up.host = h;
    si->up.connection_id = 0; /* of the try before */
    si->up.local.family = 0;
    remember_host(r, h);
    tracing_attempt_begin(r);
    struct cluster_view *v = r->up.cluster;
    if (UNLIKELY(si->scheme_matches_upstream) && r->attempts == 1) {
        set_scheme(r, v, entry);
    }
    if (!breaker_try(&v->cfg->use[r->priority].requests,
                     v->cfg->breakers[r->priority].max_requests)) {
        stats_inc(v->stats, CLUSTER_upstream_rq_active_overflow);
        r->up.host = h;
        router_on_upstream_failure(r, RESET_OVERFLOW, SV_NULL);
        return;
    }
    bool has_options = cluster_auto_sni(r->cluster->cfg, r->headers, &r->transport);
    if (si->up.alpn_n) {
        r->transport.options.alpn_override = si->up.alpn;
        r->transport.options.alpn_override_n = si->up.alpn_n;
        has_options = true;
    }
    const struct conn *down = si->cx->conn;
    const struct transport_addresses addresses = {.source = &down->remote,
                                                  .destination = &down->local,
                                                  .tlvs = si->cx->facts ? si->cx->facts->proxy_tlvs
                                                                        : SV_NULL};
    struct pool_key key = {.host = h,
                           .entry = entry,
                           .addresses = &addresses,
                           .priority = r->priority,
                           .downstream = si->protocol,
                           .source = down->source,
                           .filter_state = si->filter_state,
                           .transport = has_options ? &r->transport.options : NULL};
    if (UNLIKELY(r->connect)) {
        raw_start(r, &key);
        return;
    }
    http_pool_request(v, &key, &pool_ops, r, &upstream_ops, &r->up.pending);
}

void router_attempt_cancel(struct router *r, bool is_reset) {
    stop_look_up(r);
    if (r->up.pending) {
        http_pool_cancel(r->up.pending);
        r->up.pending = NULL;
        release_request(r);
        return;
    }
    if (r->up.raw_pending) {
        raw_stream_cancel(r->up.raw_pending);
        r->up.raw_pending = NULL;
        release_request(r);
        return;
    }
    struct codec_stream *s = r->up.stream;
    if (!s) {
        return;
    }
    attempt_ended(r);
    if (is_reset) {
        s->codec->vt->reset(s, RESET_LOCAL);
    }
}
