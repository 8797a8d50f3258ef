/* Relaying bytes between a downstream connection and one upstream connection, with back-pressure
 * and half-close both ways.
 * Threads: worker-local. Spec: TcpProxy; Envoy's TcpProxy::Filter. Not here: compiling
 * (tcp_proxy_compile.c), pools. */
#include "proxy/request/tcp_proxy.h"

#include <xxhash.h>

#include "proxy/api/worker.h"
#include "proxy/net/splice.h"
#include "proxy/net/tls.h"
#include "proxy/observe/filter_state.h"
#include "proxy/request/tcp_tunnel.h"
#include "proxy/upstream/aggregate.h"
#include "proxy/upstream/dynamic_host.h"
#include "proxy/upstream/pool.h"

STATS_GROUP(tcp, TCP, TCP_STATS);

#define TCP_PROXY_MAGIC 0x7C990C51u

struct log_interval {
    struct timer timer;
    struct tcp_proxy *proxy;
};

struct tcp_proxy {
    struct network_filter base; /* must be first */
    uint32_t magic;
    const struct tcp_proxy_config *cfg;
    struct loop *loop;
    struct stats_shard *stats;
    struct cluster_view *cluster;    /* ref held */
    struct hosts_pin *pin;           /* keeps the host valid */
    struct cluster_view *up_cluster; /* of the host: `cluster`, or a member of it */
    struct cluster_hold *members;    /* of an aggregate, whose hosts were met */
    const struct tcp_cluster *target;
    struct tcp_pool_request *pending;
    struct conn *up;           /* NULL: not connected, or through a tunnel */
    struct tcp_tunnel *tunnel; /* NULL: none; its reads and writes wait for is_tunnel_open */
    bool is_tunnel_open;
    struct host *host;
    bool is_done, is_down_paused; /* is_down_paused: we hold one read-disable on the client */
    uint32_t attempts;
    struct upstream_try *last_failed; /* of those of the stream_info; NULL: none */
    uint64_t last_activity_us;
    struct timer idle, duration;
    struct log_interval *log_interval; /* NULL: none */
    struct splice to_up, to_down;
};

static struct tcp_proxy *proxy_of(struct network_filter *f) {
    return CAST(tcp_proxy, TCP_PROXY_MAGIC, f);
}
static struct tcp_proxy *proxy_of_user(void *u) { return proxy_of(u); }
static void touch(struct tcp_proxy *p) { p->last_activity_us = loop_now_us(p->loop); }

/* Stop or resume reading from the client. */
static void pause_down(struct tcp_proxy *p, bool pause) {
    if (p->is_down_paused != pause && !p->is_done) {
        p->is_down_paused = pause;
        conn_read_disable(p->base.conn, pause);
    }
}

/* ---- access logs ---- */

static void log_now(struct tcp_proxy *p, enum access_log_type type) {
    struct stream_info *si = net_stream_info(&p->base);
    si->wire_rx_bytes = si->up.wire_tx_bytes = si->rx_bytes;
    si->wire_tx_bytes = si->up.wire_rx_bytes = si->tx_bytes;
    access_logs_run(p->cfg->access_logs, si, type, p->loop);
}

static void on_log_interval(struct timer *t) {
    struct tcp_proxy *p = CONTAINER_OF(t, struct log_interval, timer)->proxy;
    log_now(p, ACCESS_LOG_TCP_PERIODIC);
    timer_start(t, p->cfg->access_log_flush_interval_ms);
}

static void start_log_interval(struct tcp_proxy *p) {
    if (!p->cfg->access_logs || !p->cfg->access_log_flush_interval_ms) {
        return;
    }
    p->log_interval = arena_new(net_stream_info(&p->base)->arena, struct log_interval);
    p->log_interval->proxy = p;
    timer_init(&p->log_interval->timer, p->loop, on_log_interval);
    timer_start(&p->log_interval->timer, p->cfg->access_log_flush_interval_ms);
}

static void log_connected(struct tcp_proxy *p) {
    if (p->cfg->log_connected) {
        log_now(p, ACCESS_LOG_TCP_UPSTREAM_CONNECTED);
    }
}

static void log_end(struct tcp_proxy *p) {
    if (p->log_interval) {
        timer_cancel(&p->log_interval->timer);
    }
    net_stream_info(&p->base)->end_us = loop_now_us(p->loop);
    log_now(p, ACCESS_LOG_TCP_CONNECTION_END);
}

/* ---- the end ---- */

static void close_upstream(struct tcp_proxy *p, enum conn_close_type how) {
    struct conn *up = p->up;
    if (!up) {
        return;
    }
    p->up = NULL;
    conn_close(up, how, "tcp_proxy_downstream_close");
}

/* reason: static text, as in DOWNSTREAM_LOCAL_CLOSE_REASON; NULL: it needs none. */
static void close_downstream(struct tcp_proxy *p, enum conn_close_type how, uint64_t flags,
                             const char *reason) {
    if (p->is_done) {
        return;
    }
    net_stream_info(&p->base)->flags |= flags;
    conn_close(p->base.conn, how, reason);
}

/* Both ends at once. */
static void end_session(struct tcp_proxy *p, uint64_t flags, const char *reason) {
    net_stream_info(&p->base)->up.local_close_reason = p->up ? reason : NULL;
    close_downstream(p, CONN_CLOSE_NO_FLUSH, flags, reason);
}

/* Envoy's numbers, and its spelling. */
#define FAILED_TO_CONNECT "tcp_initializion_failure:0"
#define FAILED_WITHOUT_HOST "tcp_initializion_failure:1"
#define FAILED_BY_LIMIT "tcp_initializion_failure:2"
#define FAILED_WITHOUT_ROUTE "tcp_initializion_failure:3"

static void on_idle(struct timer *t) {
    struct tcp_proxy *p = CONTAINER_OF(t, struct tcp_proxy, idle);
    uint64_t due = p->last_activity_us + (uint64_t)p->cfg->idle_timeout_ms * 1000;
    uint64_t now = loop_now_us(p->loop);
    if (now < due) {
        timer_start(t, (due - now + 999) / 1000);
        return;
    }
    stats_inc(p->stats, TCP_idle_timeout);
    end_session(p, 0, "tcp_session_idle_timeout");
}

static void start_idle_timer(struct tcp_proxy *p) {
    touch(p);
    if (p->cfg->idle_timeout_ms) {
        timer_start(&p->idle, p->cfg->idle_timeout_ms);
    }
}

static void on_duration(struct timer *t) {
    struct tcp_proxy *p = CONTAINER_OF(t, struct tcp_proxy, duration);
    stats_inc(p->stats, TCP_max_downstream_connection_duration);
    end_session(p, RESPONSE_FLAG(DT), "max_connection_duration_reached");
}

/* ---- the upstream connection ---- */

static void on_up_data(struct conn *c, void *user, struct buf *data, bool end_stream) {
    struct tcp_proxy *p = proxy_of_user(user);
    (void)c;
    touch(p);
    net_stream_info(&p->base)->tx_bytes += buf_len(data);
    net_write(&p->base, data, end_stream);
}

/* What filters found out about it outlives the connection. */
static void forget_upstream(struct stream_info *si, const struct conn *c) {
    if (c->filter_state) {
        si->up.filter_state = filter_state_dup(c->filter_state, si->arena);
    }
    si->up.conn = NULL;
}

static void on_up_event(struct conn *c, void *user, enum conn_event e) {
    struct tcp_proxy *p = proxy_of_user(user);
    if (e == CONN_EVENT_CONNECTED) {
        return;
    }
    bool was_ours = p->up == c;
    p->up = NULL;
    forget_upstream(net_stream_info(&p->base), c);
    splice_stop(&p->to_up);
    splice_stop(&p->to_down);
    tcp_pool_closed(p->up_cluster, p->host, c, PRIORITY_DEFAULT, e == CONN_EVENT_REMOTE_CLOSE);
    if (was_ours) {
        pause_down(p, false);
        close_downstream(p, CONN_CLOSE_FLUSH, 0, NULL);
    }
}

static void on_up_above_high(struct conn *c, void *user) {
    struct tcp_proxy *p = proxy_of_user(user);
    (void)c;
    stats_inc(p->stats, TCP_downstream_flow_control_paused_reading_total);
    pause_down(p, true);
}

static void on_up_below_low(struct conn *c, void *user) {
    struct tcp_proxy *p = proxy_of_user(user);
    (void)c;
    touch(p);
    stats_inc(p->stats, TCP_downstream_flow_control_resumed_reading_total);
    pause_down(p, false);
}

static const struct conn_ops up_ops = {
    .on_data = on_up_data,
    .on_event = on_up_event,
    .on_write_above_high = on_up_above_high,
    .on_write_below_low = on_up_below_low,
};

static void on_moved_up(struct splice *s, size_t n) {
    struct tcp_proxy *p = CONTAINER_OF(s, struct tcp_proxy, to_up);
    touch(p);
    net_stream_info(&p->base)->rx_bytes += n;
}
static void on_moved_down(struct splice *s, size_t n) {
    struct tcp_proxy *p = CONTAINER_OF(s, struct tcp_proxy, to_down);
    touch(p);
    net_stream_info(&p->base)->tx_bytes += n;
}

static void connect_upstream(struct tcp_proxy *p);

static void on_ready(void *user, struct conn *c, struct host *h) {
    struct tcp_proxy *p = proxy_of_user(user);
    struct stream_info *si = net_stream_info(&p->base);
    p->pending = NULL;
    p->up = c;
    p->host = h;
    si->up.host = h;
    si->up.conn = c;
    si->up.connection_id = c->id;
    si->up.local = c->local;
    si->up.filter_state = c->filter_state;
    stream_info_note_identities(si, conn_ssl(c));
    stream_info_keep_ssl(si, conn_ssl(c));
    c->half_close_enabled = true;
    conn_set_ops(c, &up_ops, user);
    if (net_is_alone(&p->base) && splice_possible(p->base.conn, c)) {
        splice_start(&p->to_up, p->base.conn, c, on_moved_up);
        splice_start(&p->to_down, c, p->base.conn, on_moved_down);
    }
    start_idle_timer(p);
    log_connected(p);
    conn_start(c);
    pause_down(p, false);
    net_continue(&p->base);
}

static void note_failed(struct tcp_proxy *p, const struct host *h) {
    struct stream_info *si = net_stream_info(&p->base);
    struct upstream_try *t = arena_new(si->arena, struct upstream_try);
    t->host = h;
    *(p->last_failed ? &p->last_failed->next : &si->up.failed) = t;
    p->last_failed = t;
}

static void attempt_failed(struct tcp_proxy *p, bool is_overflow, sv reason, struct host *h) {
    struct stream_info *si = net_stream_info(&p->base);
    si->up.host = h;
    note_failed(p, h);
    si->flags |= is_overflow ? 0 : RESPONSE_FLAG(UF);
    si->up.transport_failure = reason.n ? arena_sv(si->arena, reason) : SV_NULL;
    if (is_overflow) {
        close_downstream(p, CONN_CLOSE_NO_FLUSH, RESPONSE_FLAG(UO), FAILED_BY_LIMIT);
        return;
    }
    connect_upstream(p);
}

static void on_failure(void *user, enum pool_failure why, sv transport_failure, struct host *h) {
    struct tcp_proxy *p = proxy_of_user(user);
    p->pending = NULL;
    if (why != POOL_OVERFLOW) {
        host_report(p->up_cluster->cfg, h, HOST_RESULT_CONNECT_FAILED, 0);
    }
    attempt_failed(p, why == POOL_OVERFLOW, transport_failure, h);
}

static const struct tcp_pool_ops pool_ops = {.on_ready = on_ready, .on_failure = on_failure};

/* ---- a tunnel in place of the connection ---- */

static void on_tunnel_open(void *user, struct conn *c, struct host *h) {
    struct tcp_proxy *p = proxy_of_user(user);
    struct stream_info *si = net_stream_info(&p->base);
    p->is_tunnel_open = true;
    p->host = h;
    si->up.host = h;
    si->up.conn = c;
    si->up.connection_id = c->id;
    si->up.local = c->local;
    stream_info_note_identities(si, conn_ssl(c));
    start_idle_timer(p);
    log_connected(p);
    pause_down(p, false);
    net_continue(&p->base);
}

static void on_tunnel_failed(void *user, bool is_overflow, sv reason, struct host *h) {
    attempt_failed(proxy_of_user(user), is_overflow, reason, h);
}

static void on_tunnel_data(void *user, struct buf *data, bool end_stream) {
    struct tcp_proxy *p = proxy_of_user(user);
    touch(p);
    net_stream_info(&p->base)->tx_bytes += buf_len(data);
    net_write(&p->base, data, end_stream);
}

static void on_tunnel_closed(void *user) {
    struct tcp_proxy *p = proxy_of_user(user);
    p->is_tunnel_open = false;
    pause_down(p, false);
    close_downstream(p, CONN_CLOSE_FLUSH, 0, NULL);
}

static void on_tunnel_above_high(void *user) {
    struct tcp_proxy *p = proxy_of_user(user);
    stats_inc(p->stats, TCP_downstream_flow_control_paused_reading_total);
    pause_down(p, true);
}

static void on_tunnel_below_low(void *user) {
    struct tcp_proxy *p = proxy_of_user(user);
    touch(p);
    stats_inc(p->stats, TCP_downstream_flow_control_resumed_reading_total);
    pause_down(p, false);
}

static const struct tcp_tunnel_ops tunnel_ops = {
    .on_open = on_tunnel_open,
    .on_failed = on_tunnel_failed,
    .on_data = on_tunnel_data,
    .on_closed = on_tunnel_closed,
    .on_above_high = on_tunnel_above_high,
    .on_below_low = on_tunnel_below_low,
};

static uint64_t source_hash(const struct tcp_proxy *p) {
    char text[ADDR_STR_MAX];
    size_t n = addr_ip_str(&p->base.conn->remote, text);
    return XXH64(text, n, 0);
}

static void on_host_looked_up(struct on_demand_wait *w, bool is_found) {
    (void)w;
    (void)is_found;
}

/* The host that the connection names is looked up for those that come later: this one doesn't
 * wait. False: there is nothing to look up. */
static bool look_up_host(struct tcp_proxy *p, const struct cluster_view *v,
                         const struct lb_context *ctx) {
    struct dns_cache *c = v->cfg->dns_cache;
    char room[DNS_CACHE_KEY_MAX];
    sv key = dynamic_key(v, ctx, room);
    if (!key.n || !dns_cache_pending_try(c, p->loop)) {
        return false;
    }
    struct worker *w = net_worker(&p->base);
    struct on_demand_wait nobody = {.on_done = on_host_looked_up};
    bool is_asked = worker_dns_load(w, c, key, &nobody);
    worker_fetch_cancel(w, &nobody);
    dns_cache_pending_release(c);
    return is_asked;
}

static void connect_upstream(struct tcp_proxy *p) {
    if (p->attempts >= p->cfg->max_connect_attempts) {
        stats_inc(p->cluster->stats, CLUSTER_upstream_cx_connect_attempts_exceeded);
        close_downstream(p, CONN_CLOSE_NO_FLUSH, RESPONSE_FLAG(UF) | RESPONSE_FLAG(URX),
                         FAILED_TO_CONNECT);
        return;
    }
    p->attempts++;
    struct lb_context ctx = {.rng = &p->loop->rng,
                             .metadata_match = p->target->metadata_match,
                             .downstream = p->base.conn,
                             .si = net_stream_info(&p->base),
                             .has_hash = p->cfg->hash_source_ip};
    if (ctx.has_hash) {
        ctx.hash = source_hash(p);
    }
    const struct host_entry *entry = NULL;
    struct cluster_view *v = cluster_view_member(p->cluster, &ctx);
    if (UNLIKELY(v && v != p->cluster)) {
        cluster_hold(&p->members, v, net_stream_info(&p->base)->arena);
    }
    struct host *h = v ? cluster_view_pick(v, &ctx, &entry) : NULL;
    if (!h && v && v->cfg->type == CLUSTER_TYPE_DYNAMIC && look_up_host(p, v, &ctx)) {
        close_downstream(p, CONN_CLOSE_NO_FLUSH, RESPONSE_FLAG(UH), FAILED_WITHOUT_HOST);
        return;
    }
    if (!h) {
        stats_inc(p->cluster->stats, CLUSTER_upstream_cx_none_healthy);
        close_downstream(p, CONN_CLOSE_NO_FLUSH, RESPONSE_FLAG(UH), FAILED_WITHOUT_HOST);
        return;
    }
    p->up_cluster = v;
    net_stream_info(&p->base)->up.attempts = p->attempts;
    const struct transport_addresses addresses = {
        .source = &p->base.conn->remote,
        .destination = &p->base.conn->local,
        .tlvs = v->cfg->tells_addresses ? tcp_tlvs_make(p->cfg->tlvs, net_stream_info(&p->base))
                                        : SV_NULL};
    struct pool_key key = {.host = h,
                           .entry = entry,
                           .addresses = &addresses,
                           .source = p->base.conn->source,
                           .filter_state = net_stream_info(&p->base)->filter_state};
    if (p->cfg->tunnel) {
        start_idle_timer(p); /* bounds the wait for an answer, too */
        tcp_tunnel_start(p->cfg->tunnel, v, &key, net_stream_info(&p->base), &tunnel_ops, &p->base,
                         &p->tunnel);
    } else {
        tcp_pool_request(v, &key, &pool_ops, &p->base, &p->pending);
    }
}

/* ---- network filter ---- */

static const struct tcp_cluster *pick_target(struct tcp_proxy *p) {
    const struct tcp_proxy_config *c = p->cfg;
    if (c->clusters_n == 1) {
        return &c->clusters[0];
    }
    uint64_t r = rng_below(&p->loop->rng, c->weight_total ? c->weight_total : 1);
    for (unsigned i = 0; i < c->clusters_n; i++) {
        if (r < c->clusters[i].weight) {
            return &c->clusters[i];
        }
        r -= c->clusters[i].weight;
    }
    return &c->clusters[0];
}

/* The cluster that filter state names (sni_cluster, set_filter_state), else a configured one. NULL:
 * there is none of that name. */
static struct cluster_view *pick_cluster(struct tcp_proxy *p) {
    struct worker *w = net_worker(&p->base);
    sv name =
        filter_state_text(net_stream_info(&p->base)->filter_state, SV("envoy.tcp_proxy.cluster"));
    if (name.p) {
        p->target = &p->cfg->named;
        return worker_cluster_by_name(w, name);
    }
    p->target = pick_target(p);
    return worker_cluster(w, p->target->slot);
}

static enum net_status on_new_connection(struct network_filter *f) {
    struct tcp_proxy *p = (struct tcp_proxy *)f;
    p->magic = TCP_PROXY_MAGIC;
    p->cfg = f->config;
    p->loop = worker_loop(net_worker(f));
    p->stats = stats_shard(p->cfg->stats, p->loop->thread_index);
    timer_init(&p->idle, p->loop, on_idle);
    timer_init(&p->duration, p->loop, on_duration);
    f->conn->half_close_enabled = true;
    f->conn->stats.rx_bytes_total = &p->stats->v[TCP_downstream_cx_rx_bytes_total];
    f->conn->stats.tx_bytes_total = &p->stats->v[TCP_downstream_cx_tx_bytes_total];
    f->conn->stats.rx_bytes_buffered = &p->stats->v[TCP_downstream_cx_rx_bytes_buffered];
    f->conn->stats.tx_bytes_buffered = &p->stats->v[TCP_downstream_cx_tx_bytes_buffered];
    stats_inc(p->stats, TCP_downstream_cx_total);
    net_stream_info(f)->up.is_tcp = true;
    start_log_interval(p);
    if (p->cfg->log_start) {
        log_now(p, ACCESS_LOG_TCP_CONNECTION_START);
    }
    struct cluster_view *v = pick_cluster(p);
    if (!v) {
        stats_inc(p->stats, TCP_downstream_cx_no_route);
        close_downstream(p, CONN_CLOSE_NO_FLUSH, RESPONSE_FLAG(NC), FAILED_WITHOUT_ROUTE);
        return NET_STOP;
    }
    p->cluster = cluster_view_ref(v);
    p->pin = cluster_view_pin(v);
    net_stream_info(f)->cluster_name = v->cfg->observability_name;
    net_stream_info(f)->cluster_raw_name = v->cfg->name;
    net_stream_info(f)->cluster_metadata = v->cfg->metadata;
    if (p->cfg->max_duration_ms) {
        timer_start(&p->duration, p->cfg->max_duration_ms);
    }
    pause_down(p, true); /* until the upstream is there */
    connect_upstream(p);
    return NET_STOP;
}

static enum net_status on_data(struct network_filter *f, struct buf *data, bool end_stream) {
    struct tcp_proxy *p = proxy_of(f);
    if (!p->up && !p->is_tunnel_open) {
        return NET_STOP;
    }
    touch(p);
    net_stream_info(f)->rx_bytes += buf_len(data);
    if (p->up) {
        conn_write(p->up, data, end_stream);
    } else {
        tcp_tunnel_write(p->tunnel, data, end_stream);
    }
    return NET_STOP;
}

static void on_conn_event(struct network_filter *f, enum conn_event e) {
    struct tcp_proxy *p = proxy_of(f);
    if (e == CONN_EVENT_CONNECTED || p->is_done) {
        return;
    }
    p->is_done = true;
    timer_cancel(&p->idle);
    timer_cancel(&p->duration);
    if (p->pending) {
        tcp_pool_cancel(p->pending);
        p->pending = NULL;
    }
    p->is_tunnel_open = false;
    if (p->tunnel) {
        tcp_tunnel_cancel(p->tunnel);
    }
    log_end(p);
    net_stream_info(f)->up.conn = NULL;
    stream_info_keep_ssl(net_stream_info(f), NULL);
    close_upstream(p, e == CONN_EVENT_REMOTE_CLOSE ? CONN_CLOSE_FLUSH : CONN_CLOSE_NO_FLUSH);
}

/* Stop or resume reading from the upstream. */
static void pause_up(struct tcp_proxy *p, bool pause) {
    if (p->up) {
        conn_read_disable(p->up, pause);
    } else {
        tcp_tunnel_read_disable(p->tunnel, pause);
    }
}

static void on_above_high(struct network_filter *f) {
    struct tcp_proxy *p = proxy_of(f);
    if (p->up || p->is_tunnel_open) {
        stats_inc(p->cluster->stats, CLUSTER_upstream_flow_control_paused_reading_total);
        pause_up(p, true);
    }
}

static void on_below_low(struct network_filter *f) {
    struct tcp_proxy *p = proxy_of(f);
    touch(p);
    if (p->up || p->is_tunnel_open) {
        stats_inc(p->cluster->stats, CLUSTER_upstream_flow_control_resumed_reading_total);
        pause_up(p, false);
    }
}

static void destroy(struct network_filter *f) {
    struct tcp_proxy *p = (struct tcp_proxy *)f;
    if (p->cluster) {
        cluster_holds_release(&p->members);
        hosts_pin_release(p->pin);
        cluster_view_unref(p->cluster);
    }
    p->magic = 0;
}

const struct network_filter_type tcp_proxy_network_filter = {
    .name = "envoy.filters.network.tcp_proxy",
    .type_url = "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
    .is_terminal = true,
    .instance_size = sizeof(struct tcp_proxy),
    .compile = tcp_proxy_compile,
    .on_new_connection = on_new_connection,
    .on_data = on_data,
    .on_conn_event = on_conn_event,
    .on_above_write_high = on_above_high,
    .on_below_write_low = on_below_low,
    .destroy = destroy,
};
