/* A stream's life: codec callbacks in, filter walks, bytes out, timers, end.
 * Threads: worker-local; stream memory is recycled per thread.
 * Spec: Envoy's ConnectionManagerImpl::ActiveStream. Not here: the walk itself (filter_iter.c),
 * header rules (conn_headers.c), which route (stream_route.c). */
#include "proxy/request/stream.h"
#include "proxy/request/router_timeouts.h"
#include "proxy/request/stream_log.h"

#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/net/filter_chain.h"
#include "proxy/upstream/cluster.h"

#define STREAM_ARENA_BYTES 4096u
#define STREAM_CACHE_MAX 64u

static __thread struct stream *stream_cache[STREAM_CACHE_MAX];
static __thread unsigned stream_cache_n;

/* ---- memory ---- */

static struct stream *stream_take(void) {
    if (stream_cache_n > 0) {
        return stream_cache[--stream_cache_n];
    }
    struct stream *s = xalloc(sizeof(*s));
    arena_init(&s->arena, STREAM_ARENA_BYTES);
    return s;
}

static void on_garbage(struct loop_garbage *g) {
    struct stream *s = CONTAINER_OF(g, struct stream, garbage);
    s->magic = 0;
    if (stream_cache_n < STREAM_CACHE_MAX) {
        arena_reset(&s->arena);
        stream_cache[stream_cache_n++] = s;
        return;
    }
    arena_fini(&s->arena);
    xfree(s);
}

void stream_cache_trim(void) {
    while (stream_cache_n > 0) {
        struct stream *s = stream_cache[--stream_cache_n];
        arena_fini(&s->arena);
        xfree(s);
    }
}

/* ---- timers ---- */

static void on_idle_timer(struct timer *t) {
    struct stream *s = CONTAINER_OF(t, struct stream, idle);
    uint64_t now = loop_now_us(s->hcm->loop);
    uint64_t due = s->last_activity_us + (uint64_t)s->idle_timeout_ms * 1000;
    if (now < due) {
        timer_start(t, (due - now + 999) / 1000);
        return;
    }
    stats_inc(s->hcm->stats, HCM_downstream_rq_idle_timeout);
    if (s->enc.has_headers) {
        s->info.flags |= RESPONSE_FLAG(SI);
        s->info.response_code_details = SV("stream_idle_timeout");
        stream_reset(s, RESET_LOCAL);
        return;
    }
    stream_local_reply(s, s->saw_request_end ? 504 : 408, SV("stream timeout"), RESPONSE_FLAG(SI),
                       SV("stream_idle_timeout"), NULL, NULL);
}

static void on_request_timer(struct timer *t) {
    struct stream *s = CONTAINER_OF(t, struct stream, request_timer);
    stats_inc(s->hcm->stats, HCM_downstream_rq_timeout);
    stream_local_reply(s, 408, SV("request timeout"), 0, SV("request_overall_timeout"), NULL, NULL);
}

static void on_headers_timer(struct timer *t) {
    struct stream *s = CONTAINER_OF(t, struct stream, headers_timer);
    stats_inc(s->hcm->stats, HCM_downstream_rq_header_timeout);
    stream_local_reply(s, 408, SV("request header timeout"), 0, SV("request_header_timeout"), NULL,
                       NULL);
}

static void set_deadline_exceeded(struct headers *h, void *arg) {
    struct stream *s = arg;
    if (s->is_grpc) {
        headers_set(h, HDR_grpc_status, SV("4"));
    }
}

static void on_max_duration(struct timer *t) {
    struct stream *s = CONTAINER_OF(t, struct stream, max_duration);
    stats_inc(s->hcm->stats, HCM_downstream_rq_max_duration_reached);
    if (s->enc.has_headers) {
        s->info.response_code_details = SV("max_duration_timeout");
        stream_reset(s, RESET_LOCAL);
        return;
    }
    stream_local_reply(s, s->saw_request_end ? 504 : 408, SV("downstream duration timeout"), 0,
                       SV("max_duration_timeout"), set_deadline_exceeded, s);
}

void stream_touch(struct stream *s) { s->last_activity_us = loop_now_us(s->hcm->loop); }

static void start_timers(struct stream *s) {
    const struct hcm_config *c = s->cfg;
    struct loop *l = s->hcm->loop;
    timer_init(&s->idle, l, on_idle_timer);
    timer_init(&s->request_timer, l, on_request_timer);
    timer_init(&s->headers_timer, l, on_headers_timer);
    timer_init(&s->max_duration, l, on_max_duration);
    s->idle_timeout_ms = c->stream_idle_timeout_ms;
    if (s->idle_timeout_ms) {
        timer_start(&s->idle, s->idle_timeout_ms);
    }
    if (c->request_headers_timeout_ms) {
        timer_start(&s->headers_timer, c->request_headers_timeout_ms);
    }
    if (c->request_timeout_ms) {
        timer_start(&s->request_timer, c->request_timeout_ms);
    }
    if (c->max_stream_duration_ms) {
        timer_start(&s->max_duration, c->max_stream_duration_ms);
    }
}

static void cancel_timers(struct stream *s) {
    timer_cancel(&s->idle);
    timer_cancel(&s->request_timer);
    timer_cancel(&s->headers_timer);
    timer_cancel(&s->max_duration);
}

/* ---- birth and end ---- */

static void iter_init(struct filter_iter *it, bool is_decode) {
    it->is_decode = is_decode;
    it->current = -1;
    buf_init(&it->buf);
}

static void init_info(struct stream *s) {
    struct loop *l = s->hcm->loop;
    struct stream_info *si = &s->info;
    si->cx = net_conn_info(&s->hcm->base);
    si->loop = l;
    si->id = worker_next_id(s->hcm->worker);
    si->start_us = loop_now_us(l);
    si->start_wall_us = loop_wall_us(l, si->start_us);
    si->protocol = (uint8_t)s->hcm->codec->protocol;
    si->has_protocol = true;
    si->arena = &s->arena;
    si->requested_server_name = si->cx->server_name;
    si->scheme_matches_upstream = s->cfg->scheme_match_upstream;
    const struct filter_state *of_conn = net_filter_state(&s->hcm->base);
    si->filter_state = of_conn ? filter_state_new(&s->arena, of_conn) : NULL;
}

struct stream *stream_new(struct hcm *h, struct codec_stream *cs) {
    struct stream *s = stream_take();
    memset((char *)s + offsetof(struct stream, node), 0,
           sizeof(*s) - offsetof(struct stream, node));
    s->magic = STREAM_MAGIC;
    s->hcm = h;
    s->cfg = h->cfg;
    s->codec_stream = cs;
    cs->user = s;
    cs->ops = &stream_codec_ops;
    iter_init(&s->dec, true);
    iter_init(&s->enc, false);
    headers_init(&s->request, &s->arena);
    s->random = rng_u64(&h->loop->rng);
    s->buffer_limit = h->base.conn->buffer_limit_bytes;
    stream_touch(s);
    init_info(s);
    start_timers(s);
    stream_log_begin(s);
    list_push_back(&h->streams, &s->node);
    stats_inc(h->stats, HCM_downstream_rq_total);
    stats_gauge_inc(h->stats, HCM_downstream_rq_active);
    loop_request_began(h->loop);
    stats_inc(h->stats, h->codec->protocol == HTTP_2 ? HCM_downstream_rq_http2_total
                                                     : HCM_downstream_rq_http1_total);
    return s;
}

/* Of the connection manager, and of its listener. */
static void count_status(const struct stream *s, unsigned status) {
    struct hcm *h = s->hcm;
    bool has_class = status >= 100 && status < 600;
    stats_inc(h->stats, HCM_downstream_rq_completed);
    if (has_class) {
        stats_inc(h->stats, HCM_RQ_CLASS(status));
    }
    if (!s->cfg->listener_stats) {
        return;
    }
    struct stats_shard *l = stats_shard(s->cfg->listener_stats, h->loop->thread_index);
    stats_inc(l, HCM_LISTENER_downstream_rq_completed);
    if (has_class) {
        stats_inc(l, HCM_LISTENER_RQ_CLASS(status));
    }
}

static void count_response(struct stream *s) {
    struct hcm *h = s->hcm;
    if (s->info.response_code && !s->is_redirected) {
        count_status(s, s->info.response_code);
    }
    if (s->response_ended) { /* a tunnel, or one that was cut, took no time to answer */
        stats_record(h->stats, HCM_downstream_rq_time, (s->info.end_us - s->info.start_us) / 1000);
    }
}

void stream_finish(struct stream *s) {
    if (s->is_destroyed) {
        return;
    }
    s->is_destroyed = true;
    s->dec.is_aborted = s->enc.is_aborted = true;
    cancel_timers(s);
    stream_log_count_bytes(s);
    s->info.end_us = loop_refresh_now(s->hcm->loop);
    stats_gauge_dec(s->hcm->stats, HCM_downstream_rq_active);
    loop_request_ended(s->hcm->loop);
    if (s->is_upgraded) {
        stats_gauge_dec(s->hcm->stats, HCM_downstream_cx_upgrades_active);
    }
    count_response(s);
    tracing_end(s);
    stream_log_end(s);
    stream_info_keep_ssl(&s->info, NULL);
    stream_filters_destroy(s);
    s->codec_stream = NULL;
    list_unlink(&s->node);
    buf_fini(&s->dec.buf);
    buf_fini(&s->enc.buf);
    stream_routes_release(s);
    struct hcm *h = s->hcm;
    h->closed_streams++;
    loop_defer_free(h->loop, &s->garbage);
    s->garbage.free = on_garbage;
    hcm_stream_ended(h);
}

void stream_reset(struct stream *s, enum reset_reason why) {
    if (s->is_destroyed) {
        return;
    }
    struct codec_stream *cs = s->codec_stream;
    stream_log_count_bytes(s);
    s->codec_stream = NULL;
    if (cs) {
        stats_inc(s->hcm->stats, HCM_downstream_rq_tx_reset);
        stats_inc(s->hcm->stats, HCM_downstream_rq_rx_reset); /* Envoy counts its own there, too */
        cs->codec->vt->reset(cs, why);
    }
    stream_finish(s);
}

/* ---- handing over ---- */

struct stream *stream_hand_over(struct stream *old) {
    struct stream *s = stream_new(old->hcm, old->codec_stream);
    timer_cancel(&s->headers_timer);
    if (old->saw_request_end) {
        timer_cancel(&s->request_timer);
    }
    headers_copy(&s->request, &old->request);
    s->dec.has_headers = true;
    s->saw_request_end = old->saw_request_end;
    s->is_recreated = true;
    s->is_internal_request = old->is_internal_request;
    s->remote = old->remote;
    s->info.remote = &s->remote;
    s->info.request = &s->request;
    s->info.request_id = headers_get(&s->request, HDR_x_request_id);
    s->info.rx_bytes = old->info.rx_bytes;
    s->info.last_rx_us = old->info.last_rx_us;
    return s;
}

void stream_hand_over_end(struct stream *old) {
    old->codec_stream = NULL;
    old->is_redirected = true;
    old->info.response_code_details = SV("internal_redirect");
    stream_finish(old);
}

bool http_recreate_stream(struct http_filter *f) {
    struct stream *old = f->stream;
    bool is_headers_only = old->dec.headers_end;
    if (!old->codec_stream || old->enc.has_headers || !buf_empty(&old->dec.buf) ||
        old->dec.trailers || (old->dec.is_complete && !is_headers_only)) {
        return false;
    }
    struct stream *s = stream_hand_over(old);
    s->internal_redirects = old->internal_redirects;
    stream_hand_over_end(old);
    stream_begin(s, is_headers_only);
    return true;
}

/* ---- codec callbacks (downstream) ---- */

static struct stream *stream_of(struct codec_stream *cs) {
    return CAST(stream, STREAM_MAGIC, cs->user);
}

static void request_ended(struct stream *s) {
    s->saw_request_end = true;
    s->info.last_rx_us = loop_now_us(s->hcm->loop);
    timer_cancel(&s->request_timer);
}

/* The client's grpc-timeout within the route's cap and offset; told on to the upstream. */
static uint64_t grpc_duration_ms(struct stream *s, const struct route_extra *r, uint64_t ms) {
    if (r->grpc_header_max_ms && ms > r->grpc_header_max_ms) {
        ms = r->grpc_header_max_ms;
    }
    if (ms && r->grpc_header_offset_ms != UINT32_MAX) {
        ms = ms > r->grpc_header_offset_ms ? ms - r->grpc_header_offset_ms : 0;
    }
    bool is_short = ms < 100000000; /* eight digits at most */
    headers_set(&s->request, HDR_grpc_timeout,
                arena_printf(&s->arena, "%llu%c", (unsigned long long)(is_short ? ms : ms / 1000),
                             is_short ? 'm' : 'S'));
    return ms;
}

static void apply_max_duration(struct stream *s, const struct route_entry *r) {
    uint64_t ms = r->max_stream_duration_ms;
    bool by_grpc = r->extra->grpc_header_max_ms != UINT32_MAX &&
                   grpc_timeout_parse(headers_get(&s->request, HDR_grpc_timeout), &ms);
    if (by_grpc) {
        ms = grpc_duration_ms(s, r->extra, ms);
    } else if (r->max_stream_duration_ms == UINT32_MAX) {
        return;
    } else if (!ms) {
        timer_cancel(&s->max_duration);
        return;
    }
    uint64_t used_ms = (loop_now_us(s->hcm->loop) - s->info.start_us) / 1000;
    timer_start(&s->max_duration, ms > used_ms ? ms - used_ms : 0);
}

/* Route-level timeouts replace the connection manager's. */
static void apply_route_timeouts(struct stream *s) {
    const struct route_entry *r = s->route;
    if (!r) {
        return;
    }
    if (r->idle_timeout_ms != UINT32_MAX) {
        s->idle_timeout_ms = r->idle_timeout_ms;
        if (s->idle_timeout_ms) {
            timer_start(&s->idle, s->idle_timeout_ms);
        } else {
            timer_cancel(&s->idle);
        }
    }
    apply_max_duration(s, r);
    uint32_t limit = r->request_body_buffer_limit != UINT32_MAX
                         ? r->request_body_buffer_limit
                         : r->vhost->request_body_buffer_limit;
    if (limit != UINT32_MAX) {
        s->buffer_limit = limit;
    }
}

static const struct hcm_upgrade *find_upgrade(const struct hcm_config *c, sv type) {
    for (unsigned i = 0; i < c->upgrades_n; i++) {
        if (sv_eq_nocase(c->upgrades[i].type, type)) {
            return &c->upgrades[i];
        }
    }
    return NULL;
}

/* Is this request's upgrade allowed here? Sets the filter chain. */
static bool choose_chain(struct stream *s) {
    s->chain = &s->cfg->filters;
    if (!s->upgrade_type.n) {
        return true;
    }
    const struct hcm_upgrade *u = find_upgrade(s->cfg, s->upgrade_type);
    bool enabled = u && u->enabled;
    const struct route_extra *x = s->route ? s->route->extra : NULL;
    for (unsigned i = 0; x && i < x->upgrades_n; i++) {
        if (sv_eq_nocase(x->upgrades[i].type, s->upgrade_type)) {
            enabled = x->upgrades[i].enabled;
        }
    }
    if (u && u->filters) {
        s->chain = u->filters;
    }
    if (!enabled) {
        return false;
    }
    stats_inc(s->hcm->stats, HCM_downstream_cx_upgrades_total);
    stats_gauge_inc(s->hcm->stats, HCM_downstream_cx_upgrades_active);
    s->is_upgraded = true;
    return true;
}

void stream_begin(struct stream *s, bool end_stream) {
    if (conn_headers_request(s) == HEADERS_REPLIED) {
        return;
    }
    /* of one that is recreated that was done for the client's own request */
    if (!s->is_recreated && conn_headers_mutate_request(s) == HEADERS_REPLIED) {
        return;
    }
    stream_resolve_route(s);
    apply_route_timeouts(s);
    tracing_begin(s);
    bool allowed = choose_chain(s);
    if (!stream_filters_create(s)) {
        return;
    }
    stream_log_request(s);
    if (!allowed && s->route) { /* without a route it is a 404 */
        stats_inc(s->hcm->stats, HCM_downstream_rq_ws_on_non_ws_route);
        stream_local_reply(s, 403, SV_NULL, 0, SV("upgrade_failed"), NULL, NULL);
        return;
    }
    if (s->chain->n == 0) {
        stream_local_reply(s, 404, SV_NULL, RESPONSE_FLAG(NR), SV("route_not_found"), NULL, NULL);
        return;
    }
    stream_decode_headers(s, end_stream);
}

static void set_local_overload(struct headers *h, void *arg) {
    const struct stream *s = arg;
    if (s->cfg->append_local_overload) {
        headers_set(h, HDR_x_envoy_local_overloaded, SV("true"));
    }
}

static bool refuse_overloaded(struct stream *s, unsigned stat) {
    stats_inc(s->hcm->stats, stat);
    stream_local_reply(s, 503, SV("envoy overloaded"), 0, SV("overload"),
                       stat == HCM_downstream_rq_overload_close ? set_local_overload : NULL, s);
    return true;
}

/* The request is answered, before anything was made for it, as the overload manager asks. */
static bool shed(struct stream *s) {
    struct hcm *h = s->hcm;
    if (h->codec->protocol != HTTP_2 && hcm_is_overloaded(h, OVERLOAD_HTTP1_ABORT_DISPATCH)) {
        stats_inc(h->stats, HCM_downstream_rq_overload_close);
        h1_server_close_after(h->codec);
        s->close_after = s->saw_request_end = true;
        stream_local_reply(s, 500, SV("Internal Server Error"), RESPONSE_FLAG(DPE), SV("overload"),
                           NULL, NULL);
        return true;
    }
    if (hcm_is_overloaded(h, OVERLOAD_HCM_DECODE_HEADERS) ||
        hcm_is_overloaded(h, OVERLOAD_STOP_ACCEPTING_REQUESTS)) {
        return refuse_overloaded(s, HCM_downstream_rq_overload_close);
    }
    return hcm_is_overloaded(h, OVERLOAD_HTTP_FILTER_CHECK) &&
           refuse_overloaded(s, HCM_rq_overload_local_reply);
}

static void on_headers(struct codec_stream *cs, struct headers *h, bool end_stream) {
    struct stream *s = stream_of(cs);
    s->request = *h;
    s->info.protocol = (uint8_t)s->hcm->codec->protocol; /* HTTP/1.0 is known from here on */
    timer_cancel(&s->headers_timer);
    stream_touch(s);
    s->info.request = &s->request;
    if (end_stream) {
        request_ended(s);
    }
    s->dec.has_headers = true;
    if (!shed(s)) {
        stream_begin(s, end_stream);
    }
}

static void on_data(struct codec_stream *cs, struct buf *data, bool end_stream) {
    struct stream *s = stream_of(cs);
    stream_touch(s);
    s->info.rx_bytes += buf_len(data);
    if (end_stream) {
        request_ended(s);
    }
    stream_decode_data(s, data, end_stream);
}

static void on_trailers(struct codec_stream *cs, struct headers *h) {
    struct stream *s = stream_of(cs);
    stream_touch(s);
    request_ended(s);
    s->request_trailers = *h;
    stream_decode_trailers(s);
}

/* A request without an answer was thrown away. */
static void note_reset(const struct stream *s) {
    if (!s->info.response_code) {
        hcm_note_reset(s->hcm, s->info.start_us);
    }
}

static void on_reset(struct codec_stream *cs, enum reset_reason why) {
    struct stream *s = stream_of(cs);
    struct hcm *h = s->hcm;
    stream_log_count_bytes(s);
    s->codec_stream = NULL;
    stats_inc(h->stats, HCM_downstream_rq_rx_reset);
    if (cs->error_details) {
        s->info.response_code_details = sv_cstr(cs->error_details);
    }
    if (why == RESET_CONNECTION_TERMINATION) {
        s->info.flags |= RESPONSE_FLAG(DC);
        if (!cs->error_details) {
            s->info.response_code_details = SV("downstream_remote_disconnect");
        }
    } else if (why == RESET_PROTOCOL_ERROR || why == RESET_LOCAL) {
        note_reset(s);
        s->info.flags |= RESPONSE_FLAG(DPE);
    } else {
        note_reset(s);
        s->info.flags |= RESPONSE_FLAG(DR);
        if (!s->info.response_code_details.n) {
            s->info.response_code_details = SV("downstream_remote_reset");
        }
    }
    stream_finish(s);
}

static void tell_producers(struct stream *s, bool above) {
    for (unsigned i = 0; s->filters && i < s->chain->n; i++) {
        struct http_filter *f = s->filters[i];
        if (!f) {
            continue;
        }
        if (above && f->type->on_downstream_above_high) {
            f->type->on_downstream_above_high(f);
        } else if (!above && f->type->on_downstream_below_low) {
            f->type->on_downstream_below_low(f);
        }
    }
}

static void on_above_high(struct codec_stream *cs) { tell_producers(stream_of(cs), true); }
static void on_below_low(struct codec_stream *cs) {
    struct stream *s = stream_of(cs);
    stream_touch(s);
    tell_producers(s, false);
}

const struct codec_stream_ops stream_codec_ops = {
    .on_headers = on_headers,
    .on_data = on_data,
    .on_trailers = on_trailers,
    .on_reset = on_reset,
    .on_above_high = on_above_high,
    .on_below_low = on_below_low,
};

/* ---- past the last encode filter ---- */

/* The response is complete: the stream is done once the request is, else it is cut short. */
static void response_ended(struct stream *s) {
    s->response_ended = true;
    s->info.last_tx_us = loop_now_us(s->hcm->loop);
    if (!s->codec_stream) {
        stream_finish(s);
        return;
    }
    if (s->saw_request_end) {
        stream_finish(s);
        return;
    }
    stats_inc(s->hcm->stats, HCM_downstream_rq_response_before_rq_complete);
    stats_inc(s->hcm->stats, HCM_downstream_rq_rx_reset); /* as in stream_reset() */
    struct codec_stream *cs = s->codec_stream;
    stream_log_count_bytes(s);
    s->codec_stream = NULL;
    /* h2: NO_ERROR; h1: the connection closes after flushing */
    cs->codec->vt->reset(cs, RESET_NONE);
    stream_finish(s);
}

void stream_send_headers(struct stream *s, struct headers *h, bool end_stream) {
    if (!s->codec_stream) {
        return;
    }
    if (!s->saw_request_end && !s->upgrade_type.n) { /* nobody will read the rest of the request */
        s->close_after = true;
    }
    conn_headers_mutate_response(s, h);
    tracing_on_response(s, h);
    stream_touch(s);
    s->response_started = true;
    s->info.response_code = (uint16_t)headers_status(h);
    s->info.first_tx_us = loop_now_us(s->hcm->loop);
    if (s->route && s->route->flush_timeout_ms != UINT32_MAX) {
        s->codec_stream->flush_timeout_ms = s->route->flush_timeout_ms;
    }
    stream_log_response(s);
    s->codec_stream->codec->vt->send_headers(s->codec_stream, h, end_stream);
    if (s->is_upgraded && s->codec_stream && s->codec_stream->codec->protocol != HTTP_2 &&
        (s->info.response_code == 101 || (s->is_connect && s->info.response_code / 100 == 2))) {
        h1_stream_upgraded(s->codec_stream);
    }
    if (end_stream) {
        response_ended(s);
    }
}

void stream_send_1xx(struct stream *s, const struct headers *h) {
    count_status(s, headers_status(h));
    s->codec_stream->codec->vt->send_1xx(s->codec_stream, h);
}

void stream_send_data(struct stream *s, struct buf *data, bool end_stream) {
    if (!s->codec_stream) {
        buf_clear(data);
        return;
    }
    stream_touch(s);
    s->info.tx_bytes += buf_len(data);
    s->codec_stream->codec->vt->send_data(s->codec_stream, data, end_stream);
    if (end_stream) {
        response_ended(s);
    }
}

void stream_send_trailers(struct stream *s, struct headers *t) {
    if (!s->codec_stream) {
        return;
    }
    s->codec_stream->codec->vt->send_trailers(s->codec_stream, t);
    response_ended(s);
}

/* ---- api/http_filter.h: what filters ask of their stream ---- */

void http_local_reply(struct http_filter *f, unsigned status, sv body, uint64_t flags, sv details,
                      void (*modify)(struct headers *h, void *arg), void *arg) {
    stream_local_reply(f->stream, status, body, flags, details, modify, arg);
}
void http_encode_1xx(struct http_filter *f, struct headers *h) { stream_encode_1xx(f->stream, h); }
void http_encode_headers(struct http_filter *f, struct headers *h, bool end_stream, sv details) {
    if (details.n) {
        f->stream->info.response_code_details = details;
    }
    stream_encode_headers(f->stream, h, end_stream);
}
void http_encode_data(struct http_filter *f, struct buf *data, bool end_stream) {
    stream_encode_data(f->stream, data, end_stream);
}
void http_encode_trailers(struct http_filter *f, struct headers *t) {
    stream_encode_trailers(f->stream, t);
}
void http_reset_stream(struct http_filter *f) { stream_reset(f->stream, RESET_LOCAL); }
void http_read_disable(struct http_filter *f, bool disable) {
    struct stream *s = f->stream;
    if (!s->codec_stream) {
        return;
    }
    stats_inc(s->hcm->stats, disable ? HCM_downstream_flow_control_paused_reading_total
                                     : HCM_downstream_flow_control_resumed_reading_total);
    s->codec_stream->codec->vt->read_disable(s->codec_stream, disable);
}
struct headers *http_request_headers(struct http_filter *f) {
    return &f->stream->request;
}
struct headers *http_request_trailers(struct http_filter *f) {
    return f->stream->dec.trailers;
}
struct headers *http_response_headers(struct http_filter *f) {
    return f->stream->response;
}
struct stream_info *http_stream_info(struct http_filter *f) {
    return &f->stream->info;
}
struct arena *http_arena(struct http_filter *f) {
    return &f->stream->arena;
}
struct loop *http_loop(struct http_filter *f) {
    return f->stream->hcm->loop;
}
struct worker *http_worker(struct http_filter *f) {
    return f->stream->hcm->worker;
}
const struct conn_info *http_conn_info(struct http_filter *f) { return f->stream->info.cx; }
void *http_conn_object(struct http_filter *f, const void *key,
                       void *(*make)(struct arena *a, const void *arg), const void *arg) {
    struct hcm *h = f->stream->hcm;
    for (struct hcm_object *o = h->objects; o; o = o->next) {
        if (o->key == key) {
            return o->object;
        }
    }
    struct arena *a = net_arena(&h->base);
    struct hcm_object *o = arena_new(a, struct hcm_object);
    *o = (struct hcm_object){h->objects, key, make(a, arg)};
    h->objects = o;
    return o->object;
}
uint32_t http_buffer_limit(struct http_filter *f) { return f->stream->buffer_limit; }
void http_set_buffer_limit(struct http_filter *f, uint32_t bytes) {
    f->stream->buffer_limit = bytes;
}
sv http_upgrade_type(struct http_filter *f) { return f->stream->upgrade_type; }
