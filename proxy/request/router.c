/* The router filter: route → cluster, timeouts, response handling, local replies for upstream
 * failures.
 * Threads: worker-local. Spec: Router, RouteAction, "router_filter" docs; Envoy's Router::Filter.
 * Not here: one attempt's connection and stream (router_upstream.c), counters (router_stats.c),
 * retry rules (retry.c), timeouts read from headers (router_timeouts.c), matching (route/). */
#include "proxy/request/router.h"

#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/base/runtime.h"
#include "proxy/observe/formatter.h"
#include "proxy/request/internal_redirect.h"
#include "proxy/request/mirror.h"
#include "proxy/request/router_timeouts.h"
#include "proxy/request/stream.h"
#include "proxy/route/route_stats.h"

static struct router *router_of(struct http_filter *f) { return CAST(router, ROUTER_MAGIC, f); }
static struct stream_info *info_of(struct router *r) { return http_stream_info(&r->base); }

/* ---- end ---- */

static void stop_timers(struct router *r) {
    timer_cancel(&r->global_timer);
    timer_cancel(&r->try_timer);
    timer_cancel(&r->try_idle_timer);
    timer_cancel(&r->backoff_timer);
}

/* No more attempts: the response is complete, or replaced by a local reply. */
static void finish(struct router *r) {
    r->is_done = true;
    stop_timers(r);
    if (r->retry && r->cluster) {
        retry_release(r->retry, r->cluster);
    }
}

static void apply_response_mutations(struct router *r, struct headers *h) {
    const struct route_entry *e = r->route;
    const struct route_table *t = r->base.stream->table;
    const struct stream_info *si = info_of(r);
    const struct header_mutations *w = r->weighted ? r->weighted->response_mutations : NULL;
    if (t->most_specific_mutations_win) {
        header_mutations_apply(t->response_mutations, h, si);
        header_mutations_apply(e->vhost->response_mutations, h, si);
        header_mutations_apply(e->response_mutations, h, si);
        header_mutations_apply(w, h, si);
        return;
    }
    header_mutations_apply(w, h, si);
    header_mutations_apply(e->response_mutations, h, si);
    header_mutations_apply(e->vhost->response_mutations, h, si);
    header_mutations_apply(t->response_mutations, h, si);
}

static void tell_attempts(struct router *r, struct headers *h) {
    if (r->attempts && r->route->vhost->include_attempt_count_in_response) {
        headers_set(h, HDR_x_envoy_attempt_count,
                    arena_printf(http_arena(&r->base), "%u", r->attempts));
    }
}

/* What the route makes of responses holds for the router's own, too. */
static void modify_reply(struct headers *h, void *arg) {
    struct router *r = arg;
    if (r->route) {
        apply_response_mutations(r, h);
        tell_attempts(r, h);
    }
}

void router_reply(struct router *r, unsigned status, sv body, uint64_t flags, sv details) {
    finish(r);
    http_local_reply(&r->base, status, body, flags, details, modify_reply, r);
}

/* ---- redirects and direct responses ---- */

/* The request's own URL: what a direct response of a status that needs a Location gives. */
static sv own_url(struct router *r) {
    return arena_printf(
        http_arena(&r->base), "%.*s://%.*s%.*s", SV_ARG(headers_get(r->headers, HDR_scheme)),
        SV_ARG(headers_get(r->headers, HDR_authority)), SV_ARG(headers_get(r->headers, HDR_path)));
}

/* Logs tell a rewriting redirect's new path, and the request's as the original one. */
static void note_new_path(struct router *r, sv location) {
    sv path = sv_skip(location, sv_find_sv(location, SV("://")) + 3);
    size_t slash = sv_find(path, '/');
    if (slash == SIZE_MAX) {
        return;
    }
    if (!r->cfg->suppress_envoy_headers) {
        headers_set(r->headers, HDR_x_envoy_original_path, headers_get(r->headers, HDR_path));
    }
    headers_set(r->headers, HDR_path, sv_skip(path, slash));
}

static void modify_direct(struct headers *h, void *arg) {
    struct router *r = arg;
    const struct route_entry *e = r->route;
    bool is_redirect = e->action == ROUTE_REDIRECT;
    if (is_redirect) {
        bool is_tls = conn_ssl(info_of(r)->cx->conn) != NULL;
        sv to =
            route_redirect_location_for(e, r->headers, is_tls, info_of(r), http_arena(&r->base));
        headers_set(h, HDR_location, to);
        if (e->redirect->has_prefix_rewrite || e->redirect->regex.regex) {
            note_new_path(r, to);
        }
    }
    const struct direct_response *d = is_redirect ? NULL : e->direct;
    if (d && (d->status == 201 || d->status / 100 == 3)) {
        headers_set(h, HDR_location, own_url(r));
    }
    if (d && d->content_type.n) {
        headers_set(h, HDR_content_type, d->content_type);
    }
    apply_response_mutations(r, h);
}

static enum filter_headers_status answer_directly(struct router *r) {
    const struct route_entry *e = r->route;
    stats_inc(r->base.stream->hcm->stats, HCM_rq_direct_response); /* redirects are, too */
    finish(r);
    if (e->action == ROUTE_REDIRECT) {
        http_local_reply(&r->base, e->redirect->code, SV_NULL, 0, SV("direct_response"),
                         modify_direct, r);
        return FILTER_HEADERS_STOP;
    }
    const struct direct_response *d = e->direct;
    sv body = d->body;
    if (d->body_format) {
        struct buf BUF_AUTO text;
        buf_init(&text);
        formatter_text(d->body_format, info_of(r), &text);
        body = arena_sv(http_arena(&r->base), buf_pullup(&text, buf_len(&text)));
    }
    http_local_reply(&r->base, d->status, body, 0, SV("direct_response"), modify_direct, r);
    return FILTER_HEADERS_STOP;
}

/* ---- choosing the cluster ---- */

static struct route_match_input match_input(struct router *r) {
    struct stream *s = r->base.stream;
    return (struct route_match_input){.headers = r->headers,
                                      .random = s->random,
                                      .scratch = &s->arena,
                                      .cx = s->info.cx,
                                      .si = &s->info};
}

void router_compute_hash(struct router *r) {
    if (r->route->extra->hash_n) {
        struct route_match_input in = match_input(r);
        r->hash = route_hash(r->route, &in, &r->has_hash, &r->set_cookie);
    }
}

/* ---- the upstream request's headers ---- */

static void apply_request_mutations(struct router *r) {
    const struct route_entry *e = r->route;
    const struct route_table *t = r->base.stream->table;
    const struct stream_info *si = info_of(r);
    const struct header_mutations *w = r->weighted ? r->weighted->request_mutations : NULL;
    if (t->most_specific_mutations_win) {
        header_mutations_apply(t->request_mutations, r->headers, si);
        header_mutations_apply(e->vhost->request_mutations, r->headers, si);
        header_mutations_apply(e->request_mutations, r->headers, si);
        header_mutations_apply(w, r->headers, si);
    } else {
        header_mutations_apply(w, r->headers, si);
        header_mutations_apply(e->request_mutations, r->headers, si);
        header_mutations_apply(e->vhost->request_mutations, r->headers, si);
        header_mutations_apply(t->request_mutations, r->headers, si);
    }
    route_rewrite(e, r->weighted, r->headers, si, !r->cfg->suppress_envoy_headers, SV_NULL);
}

/* ---- decode ---- */

static enum filter_headers_status refuse(struct router *r, unsigned status, sv body, uint64_t flags,
                                         sv details) {
    router_reply(r, status, body, flags, details);
    return FILTER_HEADERS_STOP;
}

/* x-envoy-* numbers that are no numbers: Router.strict_check_headers. */
static bool strict_check_fails(struct router *r) {
    for (unsigned i = 0; i < r->cfg->strict_check_headers_n; i++) {
        sv v = headers_get(r->headers, r->cfg->strict_check_headers[i]);
        uint64_t n;
        bool all_known = true;
        enum header_id id = r->cfg->strict_check_headers[i];
        if (!v.p) {
            continue;
        }
        if (id == HDR_x_envoy_retry_on || id == HDR_x_envoy_retry_grpc_on) {
            retry_on_parse(v, &all_known);
        } else {
            all_known = sv_to_u64(v, &n);
        }
        if (!all_known) {
            return true;
        }
    }
    return false;
}

static void set_tls_location(struct headers *h, void *arg) {
    struct router *r = arg;
    headers_set(h, HDR_location, route_tls_redirect_location(r->headers, http_arena(&r->base)));
}

static enum filter_headers_status no_route(struct router *r) {
    if (r->base.stream->needs_tls) {
        stats_inc(r->base.stream->hcm->stats, HCM_rq_direct_response);
        finish(r);
        http_local_reply(&r->base, 301, SV_NULL, 0, SV("direct_response"), set_tls_location, r);
        return FILTER_HEADERS_STOP;
    }
    stats_inc(r->base.stream->hcm->stats, HCM_no_route);
    return refuse(r, 404, SV_NULL, RESPONSE_FLAG(NR), SV("route_not_found"));
}

static void set_overloaded(struct headers *h, void *arg) {
    headers_set(h, HDR_x_envoy_overloaded, SV("true"));
    modify_reply(h, arg);
}

static bool in_maintenance(struct router *r) {
    const struct cluster_config *c = r->cluster->cfg;
    if (!runtime_has_prefix(SV("upstream.maintenance_mode."))) {
        return false;
    }
    sv key = arena_printf(http_arena(&r->base), "upstream.maintenance_mode.%.*s", SV_ARG(c->name));
    return runtime_u64(key, 0) > r->base.stream->random % 100;
}

/* The client has sent all: from here on the timeouts count. */
static void request_complete(struct router *r) {
    r->body_ended = true;
    r->request_end_us = loop_now_us(http_loop(&r->base));
    if (r->timeout_ms) {
        timer_start(&r->global_timer, r->timeout_ms);
    }
    router_try_timers_start(r);
}

/* The route's say on tunnels that end here, where this request is one. */
static const struct upgrade_override *connect_of(struct router *r) {
    const struct route_extra *x = r->route->extra;
    for (unsigned i = 0; i < x->upgrades_n; i++) {
        const struct upgrade_override *u = &x->upgrades[i];
        if (u->has_connect_config &&
            (sv_is(http_upgrade_type(&r->base), "CONNECT") ||
             (u->allow_post && sv_is(headers_get(r->headers, HDR_method), "POST")))) {
            return u;
        }
    }
    return NULL;
}

static enum filter_headers_status start_request(struct router *r, bool end_stream) {
    info_of(r)->cluster_name = r->cluster->cfg->observability_name;
    if (UNLIKELY(in_maintenance(r))) {
        stats_inc(r->cluster->stats, CLUSTER_upstream_rq_maintenance_mode);
        router_count_code(r, 503);
        cluster_note_drop(r->cluster->cfg, false);
        finish(r);
        http_local_reply(&r->base, 503, SV("maintenance mode"), RESPONSE_FLAG(UO),
                         SV("maintenance_mode"), set_overloaded, r);
        return FILTER_HEADERS_STOP;
    }
    if (UNLIKELY(cluster_view_drop(r->cluster, &http_loop(&r->base)->rng))) {
        cluster_note_drop(r->cluster->cfg, true);
        router_count_code(r, 503);
        return refuse(r, 503, SV("drop overload"), RESPONSE_FLAG(DO), SV("drop_overload"));
    }
    router_timeouts_read(r);
    r->retry = retry_state_new(r->route->retry, r->headers, http_arena(&r->base), r->priority);
    router_retry_counts(r);
    apply_request_mutations(r);
    r->connect = connect_of(r);
    r->is_headers_only = end_stream;
    r->may_redirect = r->route->extra->internal_redirect && !http_upgrade_type(&r->base).n;
    if (end_stream) {
        request_complete(r);
    }
    if (UNLIKELY(r->route->extra->mirrors_n)) {
        r->mirrors = mirrors_start(&r->base, r->route, r->headers, r->timeout_ms, end_stream);
    }
    router_attempt_start(r);
    return FILTER_HEADERS_STOP;
}

static enum filter_headers_status decode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    struct router *r = router_of(f);
    r->headers = h;
    r->is_head = f->stream->is_head;
    r->is_grpc = f->stream->is_grpc;
    if (strict_check_fails(r)) {
        return refuse(r, 400, SV("invalid header"), RESPONSE_FLAG(IH),
                      SV("request_headers_failed_strict_check"));
    }
    stats_inc(f->stream->hcm->stats, HCM_rq_total);
    const struct route_entry *e = http_route(f);
    if (!e) {
        return no_route(r);
    }
    r->route = e;
    if (e->action == ROUTE_REDIRECT || e->action == ROUTE_DIRECT_RESPONSE) {
        return answer_directly(r);
    }
    r->priority = e->priority;
    r->weighted = f->stream->weighted;
    struct cluster_view *v = stream_route_cluster(f->stream);
    if (!v) {
        stats_inc(f->stream->hcm->stats, HCM_no_cluster);
        return refuse(r, e->cluster_not_found_code, SV_NULL, RESPONSE_FLAG(NC),
                      SV("cluster_not_found"));
    }
    if (!r->has_hash && v->cfg->lb_type->is_hashing) {
        router_compute_hash(r);
    }
    r->cluster = cluster_view_ref(v);
    r->pin = cluster_view_pin(v);
    return start_request(r, end_stream);
}

static void give_up_retry(struct router *r) {
    if (r->retry) {
        retry_release(r->retry, r->cluster);
        r->retry = NULL;
    }
}

/* The body outgrew what may be kept: this request will not be sent once more. */
static void give_up_replay(struct router *r) {
    stats_inc(r->cluster->stats, CLUSTER_retry_or_shadow_abandoned);
    give_up_retry(r);
    r->may_redirect = false;
    if (r->up.stream) {
        buf_clear(&r->body);
    }
}

static void take_body(struct router *r, struct buf *data) {
    if (!r->up.stream) {
        buf_move(&r->body, data);
        buf_compact(&r->body);
        return;
    }
    if (router_keeps_body(r) && !r->had_attempt_headers) {
        buf_copy_to(data, &r->body);
        buf_compact(&r->body);
    }
    bool end = r->body_ended && !r->trailers;
    r->up.sent_any = true;
    router_note_sent(r, end);
    r->up.stream->codec->vt->send_data(r->up.stream, data, end);
}

static enum filter_data_status decode_data(struct http_filter *f, struct buf *data,
                                           bool end_stream) {
    struct router *r = router_of(f);
    if (r->mirrors) {
        mirrors_data(r->mirrors, data, end_stream);
    }
    if (r->is_done) {
        buf_clear(data);
        return FILTER_DATA_STOP_NO_BUFFER;
    }
    if (end_stream) {
        request_complete(r);
    }
    take_body(r, data);
    uint32_t limit = http_buffer_limit(f);
    if (limit && buf_len(&r->body) > limit) {
        if (router_keeps_body(r)) {
            give_up_replay(r);
        }
        if (timer_active(&r->backoff_timer)) {
            router_reply(r, 507, SV("exceeded request buffer limit while retrying upstream"), 0,
                         SV("request_payload_exceeded_retry_buffer_limit"));
            return FILTER_DATA_STOP_NO_BUFFER;
        }
        if (!r->up.stream && !r->up.read_disabled_downstream) {
            r->up.read_disabled_downstream = true;
            http_read_disable(f, true);
        }
    }
    return FILTER_DATA_STOP_NO_BUFFER;
}

static enum filter_trailers_status decode_trailers(struct http_filter *f, struct headers *t) {
    struct router *r = router_of(f);
    if (r->mirrors) {
        mirrors_trailers(r->mirrors, t);
    }
    if (r->is_done) {
        return FILTER_TRAILERS_STOP;
    }
    r->trailers = t;
    request_complete(r);
    if (r->up.stream) {
        router_note_sent(r, true);
        r->up.stream->codec->vt->send_trailers(r->up.stream, t);
    }
    return FILTER_TRAILERS_STOP;
}

/* ---- response ---- */

/* The attempt's span ends; not by a reset that came from the other side. */
static void end_attempt(struct router *r, uint64_t flags, bool is_cancelled) {
    tracing_attempt_end(r,
                        &(struct trace_attempt_end){.flags = flags, .is_cancelled = is_cancelled});
}

static bool try_again(struct router *r, enum retry_verdict v, const struct headers *response) {
    struct stream_info *si = info_of(r);
    if (v == RETRY_NO_OVERFLOW) {
        si->flags |= RESPONSE_FLAG(UO);
    } else if (v == RETRY_NO_LIMIT) {
        si->flags |= RESPONSE_FLAG(URX);
    }
    if (v != RETRY_YES) {
        return false;
    }
    router_count_retry(r, response);
    end_attempt(r, 0, r->up.stream || r->up.pending);
    router_attempt_cancel(r, true);
    struct loop *l = http_loop(&r->base);
    uint64_t ms =
        retry_backoff_ms(r->retry, response, &l->rng, loop_wall_us(l, loop_now_us(l)) / 1000000);
    timer_start(&r->backoff_timer, ms);
    return true;
}

static void on_backoff(struct timer *t) {
    struct router *r = CONTAINER_OF(t, struct router, backoff_timer);
    retry_begin(r->retry, r->cluster);
    router_attempt_start(r);
}

static void set_service_time(struct router *r, struct headers *h) {
    if (r->cfg->suppress_envoy_headers || !r->body_ended) {
        return;
    }
    uint64_t us = loop_now_us(http_loop(&r->base)) - r->request_end_us;
    char *text = arena_alloc(http_arena(&r->base), 24);
    size_t n = 0;
    uint64_t ms = us / 1000;
    char rev[24];
    do {
        rev[n++] = (char)('0' + ms % 10);
        ms /= 10;
    } while (ms);
    for (size_t i = 0; i < n; i++) {
        text[i] = rev[n - 1 - i];
    }
    headers_set(h, HDR_x_envoy_upstream_service_time, sv_from(text, n));
}

static void decorate_response(struct router *r, struct headers *h) {
    struct stream_info *si = info_of(r);
    si->response = h;
    si->response_code = (uint16_t)headers_status(h);
    set_service_time(r, h);
    if (r->set_cookie.n) {
        headers_add_id(h, HDR_set_cookie, r->set_cookie);
    }
    tell_attempts(r, h);
    apply_response_mutations(r, h);
}

/* The client may have acted on it: no other host may answer now. */
void router_on_interim(struct router *r, struct headers *h) {
    router_count_code(r, headers_status(h));
    r->is_response_started = true;
    give_up_retry(r);
    if (!r->may_redirect) {
        buf_clear(&r->body);
    }
    if (r->base.stream->cfg->proxy_100_continue) {
        http_encode_1xx(&r->base, h);
    }
}

void router_on_response_headers(struct router *r, bool end_stream) {
    struct headers *h = &r->response;
    unsigned status = headers_status(h);
    router_report_response(r, h);
    r->had_attempt_headers = true;
    if (r->retry) {
        enum retry_verdict v =
            retry_on_headers(r->retry, r->cluster, h, r->is_grpc, http_arena(&r->base));
        if (try_again(r, v, h)) {
            return;
        }
    }
    if (UNLIKELY(r->route->extra->internal_redirect) &&
        internal_redirect_try(r, status, end_stream)) {
        return;
    }
    timer_cancel(&r->try_timer);
    r->is_response_started = true;
    buf_clear(&r->body);
    router_count_response(r, h, end_stream);
    decorate_response(r, h);
    if (end_stream) {
        router_on_response_end(r, NULL);
    }
    http_encode_headers(&r->base, h, end_stream, SV("via_upstream"));
}

void router_on_response_end(struct router *r, const struct headers *trailers) {
    router_count_end(r, trailers);
    end_attempt(r, 0, false);
    finish(r);
}

/* ---- upstream failures ---- */

struct reset_words {
    uint64_t flag;
    const char *words;  /* in the body */
    const char *detail; /* in response_code_details */
};
static const struct reset_words reset_table[] = {
    [RESET_NONE] = {0, "", ""},
    [RESET_LOCAL] = {RESPONSE_FLAG(LR), "local reset", "local_reset"},
    [RESET_LOCAL_REFUSED] = {RESPONSE_FLAG(LR), "local refused stream reset",
                             "local_refused_stream_reset"},
    [RESET_REMOTE] = {RESPONSE_FLAG(UR), "remote reset", "remote_reset"},
    [RESET_REMOTE_REFUSED] = {RESPONSE_FLAG(UR), "remote refused stream reset",
                              "remote_refused_stream_reset"},
    [RESET_CONNECTION_FAILURE] = {RESPONSE_FLAG(UF), "remote connection failure",
                                  "remote_connection_failure"},
    [RESET_CONNECTION_TIMEOUT] = {RESPONSE_FLAG(UF), "connection timeout", "connection_timeout"},
    [RESET_CONNECTION_TERMINATION] = {RESPONSE_FLAG(UC), "connection termination",
                                      "connection_termination"},
    [RESET_OVERFLOW] = {RESPONSE_FLAG(UO), "overflow", "overflow"},
    [RESET_CONNECT_ERROR] = {RESPONSE_FLAG(UR), "remote error with CONNECT request",
                             "remote_error_with_CONNECT_request"},
    [RESET_PROTOCOL_ERROR] = {RESPONSE_FLAG(UPE), "protocol error", "protocol_error"},
    [RESET_OVERLOAD] = {RESPONSE_FLAG(OM), "overload manager reset", "overload_manager_reset"},
};

const char *router_reset_words(enum reset_reason why) { return reset_table[why].words; }

static sv underscored(struct arena *a, sv s) {
    char *p = arena_cstr(a, s);
    for (size_t i = 0; i < s.n; i++) {
        if (p[i] == ' ') {
            p[i] = '_';
        }
    }
    return sv_from(p, s.n);
}

static sv reset_details(struct router *r, const char *stage, enum reset_reason why, sv transport) {
    struct arena *a = http_arena(&r->base);
    if (!transport.n) {
        return arena_printf(a, "upstream_reset_%s{%s}", stage, reset_table[why].detail);
    }
    return arena_printf(a, "upstream_reset_%s{%s|%.*s}", stage, reset_table[why].detail,
                        SV_ARG(underscored(a, transport)));
}

static void reply_overloaded(struct headers *h, void *arg) {
    const struct router *r = arg;
    if (!r->cfg->suppress_envoy_headers) {
        headers_set(h, HDR_x_envoy_overloaded, SV("true"));
    }
    modify_reply(h, arg);
}

/* 503, or a reset when the response's headers went out before. */
static void reply_failed(struct router *r, enum reset_reason why, sv transport) {
    struct arena *a = http_arena(&r->base);
    if (why == RESET_OVERFLOW) {
        cluster_note_drop(r->cluster->cfg, false);
    }
    sv shown =
        runtime_bool(SV("envoy.reloadable_features.hide_transport_failure_reason_in_response_body"),
                     true)
            ? SV_NULL
            : transport;
    sv body = arena_printf(
        a, "upstream connect error or disconnect/reset before headers. %sreset reason: %s%s%.*s",
        r->attempts > 1 ? "retried and the latest " : "", reset_table[why].words,
        shown.n ? ", transport failure reason: " : "", SV_ARG(shown));
    unsigned status = why == RESET_PROTOCOL_ERROR ? 502 : 503;
    const char *stage =
        r->is_response_started ? "after_response_started" : "before_response_started";
    router_count_abort(r, status);
    finish(r);
    http_local_reply(&r->base, status, body, reset_table[why].flag,
                     reset_details(r, stage, why, transport),
                     why == RESET_OVERFLOW ? reply_overloaded : modify_reply, r);
}

void router_on_upstream_failure(struct router *r, enum reset_reason why, sv transport) {
    struct stream_info *si = info_of(r);
    if (transport.n) {
        si->up.transport_failure = arena_sv(http_arena(&r->base), transport);
        transport = si->up.transport_failure;
    }
    tracing_attempt_end(r, &(struct trace_attempt_end){.flags = reset_table[why].flag,
                                                       .reset_reason = reset_table[why].words});
    router_attempt_cancel(r, false);
    if (!r->is_response_started && r->retry &&
        try_again(r, retry_on_reset(r->retry, r->cluster, why, r->has_attempt_stream), NULL)) {
        return;
    }
    reply_failed(r, why, transport);
}

/* ---- timeouts ---- */

static void note_host_timeout(struct router *r) {
    HOST_STAT_ADD(r->up.host, rq_timeout, 1);
    if (!r->had_attempt_headers) {
        host_report(r->up.cluster->cfg, r->up.host, HOST_RESULT_TIMEOUT, 504);
    }
}

static unsigned timeout_status(const struct router *r) { return r->alt_response ? 204 : 504; }

static void reply_timed_out(struct router *r, sv details) {
    end_attempt(r, 0, true);
    router_attempt_cancel(r, true);
    sv body = r->alt_response ? SV_NULL : SV("upstream request timeout");
    router_reply(r, timeout_status(r), body, RESPONSE_FLAG(UT), details);
}

static void on_global_timeout(struct timer *t) {
    struct router *r = CONTAINER_OF(t, struct router, global_timer);
    if (r->up.stream || r->up.pending) { /* else it waits to try again */
        stats_inc(r->cluster->stats, CLUSTER_upstream_rq_timeout);
        router_count_route(r, ROUTE_upstream_rq_timeout);
        if (r->up.host) {
            note_host_timeout(r);
        }
        if (!r->had_attempt_headers) {
            router_count_abort(r, timeout_status(r));
        }
    }
    reply_timed_out(r, SV("response_timeout"));
}

/* The attempt took too long, in which no other one may have answered. */
static void on_attempt_timeout(struct router *r, unsigned stat, sv details) {
    stats_inc(r->cluster->stats, stat);
    note_host_timeout(r);
    if (!r->is_response_started && r->retry &&
        try_again(r, retry_on_reset(r->retry, r->cluster, RESET_LOCAL, true), NULL)) {
        return;
    }
    router_count_abort(r, timeout_status(r));
    reply_timed_out(r, details);
}

static void on_try_timeout(struct timer *t) {
    struct router *r = CONTAINER_OF(t, struct router, try_timer);
    if (!r->is_response_started) {
        on_attempt_timeout(r, CLUSTER_upstream_rq_per_try_timeout, SV("upstream_per_try_timeout"));
    }
}

static void on_try_idle_timeout(struct timer *t) {
    struct router *r = CONTAINER_OF(t, struct router, try_idle_timer);
    on_attempt_timeout(r, CLUSTER_upstream_rq_per_try_idle_timeout,
                       SV("upstream_per_try_idle_timeout"));
}

/* ---- flow control and end ---- */

static void on_downstream_above_high(struct http_filter *f) {
    struct router *r = router_of(f);
    r->up.response_high++;
    if (r->up.stream) {
        stats_inc(r->cluster->stats, CLUSTER_upstream_flow_control_paused_reading_total);
        r->up.stream->codec->vt->read_disable(r->up.stream, true);
    }
}

static void on_downstream_below_low(struct http_filter *f) {
    struct router *r = router_of(f);
    if (!r->up.response_high) {
        return;
    }
    r->up.response_high--;
    if (r->up.stream) {
        stats_inc(r->cluster->stats, CLUSTER_upstream_flow_control_resumed_reading_total);
        r->up.stream->codec->vt->read_disable(r->up.stream, false);
    }
}

static void init(struct http_filter *f) {
    struct router *r = (struct router *)f;
    r->magic = ROUTER_MAGIC;
    r->cfg = f->config;
    buf_init(&r->body);
    struct loop *l = http_loop(f);
    timer_init(&r->global_timer, l, on_global_timeout);
    timer_init(&r->try_timer, l, on_try_timeout);
    timer_init(&r->try_idle_timer, l, on_try_idle_timeout);
    timer_init(&r->backoff_timer, l, on_backoff);
}

static void destroy(struct http_filter *f) {
    struct router *r = router_of(f);
    end_attempt(r, 0, true);
    finish(r);
    mirrors_end(r->mirrors);
    router_attempt_cancel(r, true);
    buf_fini(&r->body);
    if (r->cluster) {
        cluster_holds_release(&r->members);
        hosts_pin_release(r->pin);
        cluster_view_unref(r->cluster);
    }
    r->magic = 0;
}

const struct http_filter_type router_http_filter = {
    .name = "envoy.filters.http.router",
    .type_url = "envoy.extensions.filters.http.router.v3.Router",
    .route_type_url = "",
    .is_terminal = true,
    .stream_size = sizeof(struct router),
    .compile = router_compile,
    .init = init,
    .decode_headers = decode_headers,
    .decode_data = decode_data,
    .decode_trailers = decode_trailers,
    .on_downstream_above_high = on_downstream_above_high,
    .on_downstream_below_low = on_downstream_below_low,
    .destroy = destroy,
};
