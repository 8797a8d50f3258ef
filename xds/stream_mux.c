/* A mux over gRPC streams, aggregated or of one type: dialing, back-off, pacing, which request goes
 * next.
 * Threads: the config thread. Spec: xDS protocol; core.v3.ApiConfigSource, RateLimitSettings;
 * Envoy's control_plane stats. Requests are made when the stream can take one, so what changes
 * meanwhile is in them: nothing queues.
 * Not here: what requests say (sotw.c, delta.c), gRPC itself (ads.c). */
#include <stdio.h>

#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/stats/stats_server.h"
#include "xds/ads.h"
#include "xds/dial.h"
#include "xds/mux_kind.h"
#include "xds/subscription.h"

#define REPLIES_DUE_MAX 64u /* unsent replies of one type; more hold back receiving */
#define METHOD_MAX 160
#define NACK_DELAY_BASE_MS 50u /* the second NACK of the same; doubles */
#define NACK_DELAY_MAX_MS 30000u

/* The last response of a type that was refused. A server that answers a NACK with the same again
 * would make us spin: each such NACK is held back for longer. */
struct refusal {
    uint64_t hash;    /* of the response but for version and nonce */
    unsigned repeats; /* refused in a row with that hash */
    uint64_t due_ms;  /* the reply waits until then; 0: it does not */
};

enum mux_state { MUX_IDLE, MUX_BACKOFF, MUX_DIALING, MUX_STREAMING };

struct stream_mux {
    struct xds_mux mux;
    struct xds_mux_options opt; /* copied into the arena */
    struct arena arena;
    const struct subscription_ops *sub;
    struct subscription *types[RES_TYPES]; /* NULL: never watched */
    unsigned paused[RES_TYPES];
    struct refusal refusals[RES_TYPES];
    enum mux_state state;
    struct loop_task task;   /* something may be due: dial or send */
    struct timer timer;      /* back-off */
    struct timer rate_timer; /* waits for a token */
    struct timer nack_timer; /* a NACK is held back */
    struct xds_dial *dial;
    struct ads_stream *stream;
    unsigned failures; /* in a row, since a message was received */
    bool is_held;      /* gRPC, from the first dial on */
    bool is_connected; /* told to the sink */
    bool is_node_sent; /* on this stream */
    double tokens;
    uint64_t tokens_ms;
    struct stats_shard *stats; /* NULL: none */
};

static struct stream_mux *mux_of(struct xds_mux *m) {
    return CONTAINER_OF(m, struct stream_mux, mux);
}

/* ---- methods ---- */

static const struct {
    const char *service, *sotw, *delta; /* NULL: there is no such method */
} services[RES_TYPES] = {
    [RES_CLUSTER] = {"cluster.v3.ClusterDiscoveryService", "StreamClusters", "DeltaClusters"},
    [RES_ENDPOINTS] = {"endpoint.v3.EndpointDiscoveryService", "StreamEndpoints", "DeltaEndpoints"},
    [RES_LB_ENDPOINT] = {"endpoint.v3.LocalityEndpointDiscoveryService", NULL,
                         "DeltaLocalityEndpoints"},
    [RES_SECRET] = {"secret.v3.SecretDiscoveryService", "StreamSecrets", "DeltaSecrets"},
    [RES_LISTENER] = {"listener.v3.ListenerDiscoveryService", "StreamListeners", "DeltaListeners"},
    [RES_SCOPED_ROUTE] = {"route.v3.ScopedRoutesDiscoveryService", "StreamScopedRoutes",
                          "DeltaScopedRoutes"},
    [RES_ROUTE] = {"route.v3.RouteDiscoveryService", "StreamRoutes", "DeltaRoutes"},
    [RES_VIRTUAL_HOST] = {"route.v3.VirtualHostDiscoveryService", NULL, "DeltaVirtualHosts"},
    [RES_EXTENSION] = {"extension.v3.ExtensionConfigDiscoveryService", "StreamExtensionConfigs",
                       "DeltaExtensionConfigs"},
    [RES_RUNTIME] = {"runtime.v3.RuntimeDiscoveryService", "StreamRuntime", "DeltaRuntime"},
};

static const char *method_name(const struct stream_mux *m) {
    bool is_delta = m->opt.protocol == XDS_DELTA;
    if (m->opt.is_aggregated) {
        return is_delta ? "DeltaAggregatedResources" : "StreamAggregatedResources";
    }
    return is_delta ? services[m->opt.only].delta : services[m->opt.only].sotw;
}

static void method_path(const struct stream_mux *m, char out[METHOD_MAX]) {
    const char *service = m->opt.is_aggregated ? "discovery.v3.AggregatedDiscoveryService"
                                               : services[m->opt.only].service;
    snprintf(out, METHOD_MAX, "/envoy.service.%s/%s", service, method_name(m));
}

/* ---- state ---- */

static void set_state(struct stream_mux *m, enum mux_state s) {
    static const uint8_t from[] = {
        [MUX_IDLE] = 1 << MUX_IDLE,
        [MUX_BACKOFF] = 1 << MUX_DIALING | 1 << MUX_STREAMING,
        [MUX_DIALING] = 1 << MUX_IDLE | 1 << MUX_BACKOFF,
        [MUX_STREAMING] = 1 << MUX_DIALING,
    };
    ASSERT(from[s] & (1 << m->state));
    (void)from;
    m->state = s;
}

static void gauge_set(struct stream_mux *m, unsigned stat, int64_t delta) {
    if (m->stats && delta) {
        stats_gauge_add(m->stats, stat, delta);
    }
}

static void set_connected(struct stream_mux *m, bool is_connected) {
    if (m->is_connected == is_connected) {
        return;
    }
    m->is_connected = is_connected;
    gauge_set(m, CONTROL_PLANE_connected_state, is_connected ? 1 : -1);
    if (m->mux.sink.on_connected) {
        m->mux.sink.on_connected(m->mux.sink.user, is_connected);
    }
}

static bool is_wanted(const struct stream_mux *m) {
    for (int t = 0; t < RES_TYPES; t++) {
        if (m->types[t] && m->sub->is_wanted(m->types[t])) {
            return true;
        }
    }
    return false;
}

/* Anywhere below a ceiling that doubles with each failure, so that many proxies do not come back at
 * once. */
static uint64_t backoff_ms(struct stream_mux *m) {
    uint64_t base = m->opt.backoff_base_ms ? m->opt.backoff_base_ms : 1;
    unsigned shift = m->failures < 20 ? m->failures : 20;
    uint64_t ceiling = base << shift;
    uint64_t max = m->opt.backoff_max_ms > base ? m->opt.backoff_max_ms : base;
    ceiling = ceiling < max ? ceiling : max;
    return rng_below(&m->mux.loop->rng, ceiling) + 1;
}

/* The stream, or the attempt at one, is over. */
static void retry_later(struct stream_mux *m) {
    if (m->dial) {
        xds_dial_close(m->dial);
        m->dial = NULL;
    }
    for (int t = 0; t < RES_TYPES; t++) {
        m->refusals[t].due_ms = 0;
        if (m->types[t]) {
            m->sub->stream_down(m->types[t]);
        }
    }
    timer_cancel(&m->rate_timer);
    timer_cancel(&m->nack_timer);
    set_state(m, MUX_BACKOFF);
    timer_start(&m->timer, backoff_ms(m));
    m->failures++;
    set_connected(m, false);
    for (int t = 0; t < RES_TYPES; t++) {
        if (m->types[t] && m->sub->is_wanted(m->types[t])) {
            mux_failed(&m->mux, (enum resource_type)t);
        }
    }
}

/* ---- sending ---- */

static bool is_due(const struct stream_mux *m, int t) {
    return m->types[t] && !m->paused[t] && !m->refusals[t].due_ms &&
           m->sub->has_request(m->types[t]);
}

static uint64_t response_hash(const struct discovery_response *r) {
    uint64_t h = r->resources_n;
    for (unsigned i = 0; i < r->resources_n; i++) {
        h = h * 31 + sv_hash(r->resources[i].wire);
    }
    return h;
}

static void arm_nack_timer(struct stream_mux *m) {
    uint64_t first = UINT64_MAX, now = loop_now_ms(m->mux.loop);
    for (int t = 0; t < RES_TYPES; t++) {
        uint64_t due = m->refusals[t].due_ms;
        first = due && due < first ? due : first;
    }
    if (first == UINT64_MAX) {
        timer_cancel(&m->nack_timer);
        return;
    }
    timer_start(&m->nack_timer, first > now ? first - now : 0);
}

/* The reply to a response of type t may go (again). */
static void release_nack(struct stream_mux *m, enum resource_type t) {
    if (m->refusals[t].due_ms) {
        m->refusals[t].due_ms = 0;
        arm_nack_timer(m);
    }
}

static void note_verdict(struct stream_mux *m, const struct discovery_response *r,
                         bool is_refused) {
    struct refusal *f = &m->refusals[r->type];
    if (!is_refused) {
        release_nack(m, r->type);
        *f = (struct refusal){0};
        return;
    }
    uint64_t hash = response_hash(r);
    f->repeats = f->hash == hash ? f->repeats + 1 : 0;
    f->hash = hash;
    if (f->repeats) {
        unsigned shift = f->repeats < 16 ? f->repeats - 1 : 15;
        uint64_t wait_ms = (uint64_t)NACK_DELAY_BASE_MS << shift;
        wait_ms = wait_ms < NACK_DELAY_MAX_MS ? wait_ms : NACK_DELAY_MAX_MS;
        f->due_ms = loop_now_ms(m->mux.loop) + wait_ms;
        log_debug(LOG_config, "%s refused %u times with the same resources: the NACK waits %llu ms",
                  resource_types[r->type].short_name, f->repeats + 1, (unsigned long long)wait_ms);
        arm_nack_timer(m);
    }
}

/* Of rate_limit_settings. False: none left, the timer is set. */
static bool take_token(struct stream_mux *m) {
    double rate = m->opt.request_rate_fill, max = (double)m->opt.request_rate_max_tokens;
    if (max <= 0 || rate <= 0) {
        return true;
    }
    uint64_t now = loop_now_ms(m->mux.loop);
    m->tokens += (double)(now - m->tokens_ms) * rate / 1000;
    m->tokens = m->tokens < max ? m->tokens : max;
    m->tokens_ms = now;
    if (m->tokens >= 1) {
        m->tokens -= 1;
        return true;
    }
    if (m->stats) {
        stats_inc(m->stats, CONTROL_PLANE_rate_limit_enforced);
    }
    double wait_ms = (1 - m->tokens) * 1000 / rate;
    timer_start(&m->rate_timer, wait_ms < 1e7 ? (uint64_t)wait_ms + 1 : 10000000);
    return false;
}

static void count_pending(struct stream_mux *m) {
    unsigned n = 0;
    for (int t = 0; t < RES_TYPES; t++) {
        n += is_due(m, t);
    }
    if (m->stats) {
        stats_gauge_set(m->stats, CONTROL_PLANE_pending_requests, n);
    }
}

static void send_request(struct stream_mux *m, int t) {
    struct buf BUF_AUTO out;
    buf_init(&out);
    bool with_node = !m->opt.node_on_first_message_only || !m->is_node_sent;
    m->sub->next_request(m->types[t], with_node ? m->opt.node : SV_NULL, &out);
    m->is_node_sent = true;
    log_trace(LOG_config, "xDS request of %zu bytes for %s", buf_len(&out),
              resource_types[t].short_name);
    ads_stream_send(m->stream, &out);
}

/* The first due request in the order of types, when the stream can take one. */
static void send_next(struct stream_mux *m) {
    if (!ads_stream_can_send(m->stream) || timer_active(&m->rate_timer)) {
        count_pending(m);
        return;
    }
    for (int t = 0; t < RES_TYPES; t++) {
        if (is_due(m, t)) {
            if (take_token(m)) {
                send_request(m, t);
            }
            break;
        }
    }
    count_pending(m);
    bool is_behind = false;
    for (int t = 0; t < RES_TYPES; t++) {
        is_behind |= m->types[t] && m->sub->replies_due(m->types[t]) > REPLIES_DUE_MAX;
    }
    ads_stream_pause(m->stream, is_behind);
}

static void on_nack_timer(struct timer *t) {
    struct stream_mux *m = CONTAINER_OF(t, struct stream_mux, nack_timer);
    uint64_t now = loop_now_ms(m->mux.loop);
    for (int i = 0; i < RES_TYPES; i++) {
        if (m->refusals[i].due_ms && m->refusals[i].due_ms <= now) {
            m->refusals[i].due_ms = 0;
        }
    }
    arm_nack_timer(m);
    loop_queue_task(m->mux.loop, &m->task);
}

static void on_rate_timer(struct timer *t) {
    send_next(CONTAINER_OF(t, struct stream_mux, rate_timer));
}

/* ---- receiving ---- */

/* A response that only keeps resources alive does not tell all there are. */
static bool has_heartbeat(const struct discovery_response *r) {
    for (unsigned i = 0; i < r->resources_n; i++) {
        if (!r->resources[i].wire.p) {
            return true;
        }
    }
    return false;
}

static void take(struct stream_mux *m, const struct discovery_response *r) {
    struct subscription *s = m->types[r->type];
    if (!s || !m->sub->on_response(s, r)) {
        log_warn_limited(LOG_config,
                         "ignoring the message for type URL %.*s as it has no current subscribers",
                         SV_ARG(r->type_url));
        return;
    }
    struct buf BUF_AUTO error;
    buf_init(&error);
    bool *accepted = xnew_array(bool, r->resources_n + 1);
    if (m->sub->is_wanted(s)) {
        mux_deliver(&m->mux, r, m->opt.protocol == XDS_SOTW && !has_heartbeat(r), accepted, &error);
    }
    m->sub->on_verdict(s, r, accepted, buf_pullup(&error, buf_len(&error)));
    note_verdict(m, r, !buf_empty(&error));
    xfree(accepted);
    if (m->opt.control_plane_stats && r->control_plane.n) {
        stats_text_set(m->opt.control_plane_stats, CONTROL_PLANE_identifier, r->control_plane);
    }
}

static void drop_stream(struct stream_mux *m) {
    ads_stream_close(m->stream);
    m->stream = NULL;
    retry_later(m);
}

static void on_message(void *user, sv wire) {
    struct stream_mux *m = user;
    m->failures = 0;
    set_connected(m, true);
    struct arena a;
    arena_init(&a, 0);
    struct discovery_response r;
    if (!m->sub->parse(wire, &a, &r)) {
        log_warn_limited(LOG_config, "%s gRPC config stream: malformed response of %zu bytes",
                         method_name(m), wire.n);
        arena_fini(&a);
        drop_stream(m);
        return;
    }
    log_debug(LOG_config, "received gRPC message for %.*s at version %.*s: %u resources",
              SV_ARG(r.type_url), SV_ARG(r.version), r.resources_n);
    if (r.type < RES_TYPES && (m->opt.is_aggregated || r.type == m->opt.only)) {
        take(m, &r);
    } else {
        log_warn_limited(LOG_config, "ignoring unknown type URL %.*s", SV_ARG(r.type_url));
    }
    arena_fini(&a);
    loop_queue_task(m->mux.loop, &m->task);
}

static void on_sent(void *user) {
    struct stream_mux *m = user;
    set_connected(m, true);
    send_next(m);
}

static void on_closed(void *user, int status, sv text) {
    struct stream_mux *m = user;
    m->stream = NULL;
    log_warn(LOG_config, "%s gRPC config stream to %.*s closed: %d, %.*s", method_name(m),
             SV_ARG(m->opt.authority), status, SV_ARG(text));
    retry_later(m);
}

/* ---- connecting ---- */

static const struct ads_stream_ops stream_ops = {
    .on_message = on_message, .on_sent = on_sent, .on_closed = on_closed};

static void open_stream(struct stream_mux *m, int fd) {
    char method[METHOD_MAX];
    method_path(m, method);
    struct ads_stream_options o = {
        .loop = m->mux.loop,
        .fd = fd,
        .method = method,
        .authority = m->opt.authority,
        .metadata = m->opt.initial_metadata,
        .metadata_n = m->opt.initial_metadata_n,
        .max_receive_bytes = m->opt.max_receive_bytes,
        .keepalive_ms = xds_dial_target(m->dial)->http2_keepalive_ms,
        .keepalive_timeout_ms = xds_dial_target(m->dial)->http2_keepalive_timeout_ms,
    };
    m->stream = ads_stream_open(&o, &stream_ops, m);
    m->is_node_sent = false;
    set_state(m, MUX_STREAMING);
    for (int t = 0; t < RES_TYPES; t++) {
        if (m->types[t]) {
            m->sub->stream_up(m->types[t]);
        }
    }
    loop_queue_task(m->mux.loop, &m->task);
}

static void on_dialed(void *user, int fd, const char *error) {
    struct stream_mux *m = user;
    if (fd >= 0) {
        open_stream(m, fd);
        return;
    }
    m->dial = NULL; /* gone with the failure */
    log_warn_limited(LOG_config, "%s gRPC config stream to %.*s: %s", method_name(m),
                     SV_ARG(m->opt.authority), error);
    retry_later(m);
}

static void dial(struct stream_mux *m) {
    if (!m->is_held) {
        m->is_held = true;
        ads_hold();
    }
    set_state(m, MUX_DIALING);
    m->dial = xds_dial_start(m->opt.dialer, on_dialed, m);
}

static void on_timer(struct timer *t) { dial(CONTAINER_OF(t, struct stream_mux, timer)); }

static void run(struct loop_task *task) {
    struct stream_mux *m = CONTAINER_OF(task, struct stream_mux, task);
    switch (m->state) {
    case MUX_IDLE:
        if (is_wanted(m)) {
            dial(m);
        }
        return;
    case MUX_BACKOFF:
    case MUX_DIALING:
        return;
    case MUX_STREAMING:
        send_next(m);
        return;
    }
}

/* ---- calls ---- */

static void stream_watch(struct xds_mux *mux, enum resource_type t, sv name) {
    struct stream_mux *m = mux_of(mux);
    if (!m->types[t]) {
        m->types[t] = m->sub->make(t);
        if (m->state == MUX_STREAMING) {
            m->sub->stream_up(m->types[t]);
        }
    }
    m->sub->watch(m->types[t], name);
    release_nack(m, t); /* new names do not wait */
    loop_queue_task(mux->loop, &m->task);
}

static void stream_unwatch(struct xds_mux *mux, enum resource_type t, sv name) {
    struct stream_mux *m = mux_of(mux);
    if (BUG(!m->types[t])) {
        return;
    }
    m->sub->unwatch(m->types[t], name);
    mux_forget_ttl(mux, t, name);
    loop_queue_task(mux->loop, &m->task);
}

static void stream_pause(struct xds_mux *mux, enum resource_type t, bool pause) {
    struct stream_mux *m = mux_of(mux);
    if (pause) {
        m->paused[t]++;
        return;
    }
    if (BUG(m->paused[t] == 0)) {
        return;
    }
    if (--m->paused[t] == 0) {
        loop_queue_task(mux->loop, &m->task);
    }
}

static void stream_on_expired(struct xds_mux *mux, enum resource_type t, sv name) {
    struct stream_mux *m = mux_of(mux);
    if (m->types[t]) {
        m->sub->on_expired(m->types[t], name);
    }
}

static bool stream_is_connected(const struct xds_mux *mux) {
    return CONTAINER_OF(mux, struct stream_mux, mux)->is_connected;
}

static void stream_free(struct xds_mux *mux) {
    struct stream_mux *m = mux_of(mux);
    if (m->stream) {
        ads_stream_close(m->stream);
    }
    if (m->dial) {
        xds_dial_close(m->dial);
    }
    if (m->is_held) {
        ads_release();
    }
    loop_cancel_task(&m->task);
    timer_cancel(&m->timer);
    timer_cancel(&m->rate_timer);
    timer_cancel(&m->nack_timer);
    if (m->is_connected) {
        gauge_set(m, CONTROL_PLANE_connected_state, -1);
    }
    for (int t = 0; t < RES_TYPES; t++) {
        if (m->types[t]) {
            m->sub->free(m->types[t]);
        }
    }
    mux_fini(mux);
    if (m->opt.control_plane_stats) {
        stats_scope_unref(m->opt.control_plane_stats);
    }
    arena_fini(&m->arena);
    xfree(m);
}

static const struct xds_mux_ops stream_mux_ops = {
    .free = stream_free,
    .watch = stream_watch,
    .unwatch = stream_unwatch,
    .pause = stream_pause,
    .is_connected = stream_is_connected,
    .on_expired = stream_on_expired,
};

static void copy_options(struct stream_mux *m, const struct xds_mux_options *o) {
    m->opt = *o;
    m->opt.node = arena_sv(&m->arena, o->node);
    m->opt.authority = arena_sv(&m->arena, o->authority);
    struct xds_metadata *md =
        arena_new_array(&m->arena, struct xds_metadata, o->initial_metadata_n);
    for (unsigned i = 0; i < o->initial_metadata_n; i++) {
        md[i].key = arena_sv(&m->arena, o->initial_metadata[i].key);
        md[i].value = arena_sv(&m->arena, o->initial_metadata[i].value);
        md[i].file = arena_sv(&m->arena, o->initial_metadata[i].file);
    }
    m->opt.initial_metadata = md;
}

struct xds_mux *xds_mux_new(struct loop *l, const struct xds_mux_options *o,
                            const struct xds_sink *sink) {
    struct stream_mux *m = xnew(struct stream_mux);
    arena_init(&m->arena, 0);
    copy_options(m, o);
    mux_init(&m->mux, &stream_mux_ops, l, sink);
    if (!o->is_aggregated && !services[o->only].sotw) {
        m->opt.protocol = XDS_DELTA; /* there is no other */
    }
    m->sub = m->opt.protocol == XDS_DELTA ? &delta_ops : &sotw_ops;
    m->task.run = run;
    timer_init(&m->timer, l, on_timer);
    timer_init(&m->rate_timer, l, on_rate_timer);
    timer_init(&m->nack_timer, l, on_nack_timer);
    m->tokens = (double)o->request_rate_max_tokens;
    m->tokens_ms = loop_now_ms(l);
    if (o->control_plane_stats) {
        m->stats = stats_shard(o->control_plane_stats, l->thread_index);
    }
    return &m->mux;
}
