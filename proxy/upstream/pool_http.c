/* HTTP connection pools: which connection a request gets, waiting for one, opening them as needed.
 * Threads: worker-local. Spec: Envoy's connection pooling overview, circuit breakers,
 * PreconnectPolicy.
 * Not here: a connection's life (pool_http_conn.c), connecting (upstream_connect.c). */
#include "proxy/upstream/pool_http.h"

#include "proxy/api/worker.h"
#include "proxy/base/log.h"

static struct breaker_use *use_of(const struct http_pool *p) {
    return &p->view->cfg->use[p->priority];
}
static const struct breaker *limits_of(const struct http_pool *p) {
    return &p->view->cfg->breakers[p->priority];
}

/* ---- pools ---- */

static void pool_free(struct http_pool *p) {
    struct host_view *hv = p->hv;
    struct cluster_view *v = p->view;
    list_unlink(&p->node);
    loop_cancel_task(&p->task);
    breaker_release(&use_of(p)->pools);
    arena_fini(&p->arena);
    xfree(p);
    host_view_release(hv);
    cluster_view_unref(v);
}

static bool has_conns(const struct http_pool *p) {
    return !list_empty(&p->ready) || !list_empty(&p->busy) || !list_empty(&p->connecting);
}

static void open_for_pending(struct http_pool *p);

static void on_pool_task(struct loop_task *t) {
    struct http_pool *p = CONTAINER_OF(t, struct http_pool, task);
    open_for_pending(p);
    /* clients come and go: one that has its own pool takes it along */
    bool is_over = p->is_draining || p->source || p->options->addresses.source;
    if (is_over && !p->pending_n && !has_conns(p) && list_empty(&p->draining)) {
        pool_free(p);
    }
}

void http_pool_check_later(struct http_pool *p) { loop_queue_task(p->view->loop, &p->task); }

static enum upstream_protocol protocol_of(const struct cluster_config *c,
                                          enum http_protocol downstream) {
    if (c->protocol != UPSTREAM_DOWNSTREAM) {
        return c->protocol;
    }
    return downstream == HTTP_2 || downstream == HTTP_3 ? UPSTREAM_HTTP2 : UPSTREAM_HTTP1;
}

/* The transport's options of this pool: the request's, the host's name, and protocols to offer
 * where the config names none. */
static void set_options(struct http_pool *p, const struct transport_options *asked) {
    static const sv both[] = {SV_INIT("h2"), SV_INIT("http/1.1")};
    struct transport_options o = {0};
    if (asked) {
        o = *asked;
    }
    o.host_name = p->hv->host->hostname;
    if (!o.alpn_fallback_n) {
        o.alpn_fallback = p->protocol == UPSTREAM_HTTP1 ? &both[1] : both;
        o.alpn_fallback_n = p->protocol == UPSTREAM_AUTO ? 2 : 1;
    }
    p->options = transport_options_dup(&o, &p->arena);
}

struct wanted {
    enum upstream_protocol protocol;
    slot_t transport;
    const struct transport_options *options; /* NULL: none */
    sv key;
    uint64_t downstream_id;
    uint8_t priority;
};

static struct http_pool *pool_new(struct host_view *hv, const struct pool_key *key,
                                  const struct wanted *w) {
    struct http_pool *p = xnew(struct http_pool);
    p->hv = hv;
    p->view = cluster_view_ref(hv->view);
    arena_init(&p->arena, 256);
    p->protocol = w->protocol;
    p->transport = w->transport;
    p->priority = w->priority;
    p->downstream_id = w->downstream_id;
    p->key = arena_sv(&p->arena, w->key);
    p->peer_max_streams = UINT32_MAX;
    p->task.run = on_pool_task;
    list_init(&p->ready);
    list_init(&p->busy);
    list_init(&p->connecting);
    list_init(&p->draining);
    list_init(&p->pending);
    set_options(p, w->options);
    p->shared_state = pool_shared_state(key, &p->arena);
    if (key->source) {
        struct sock_source *source = arena_new(&p->arena, struct sock_source);
        *source = *key->source;
        p->source = source;
    }
    list_push_front(&hv->http, &p->node);
    return p;
}

static struct http_pool *pool_find(const struct host_view *hv, const struct wanted *w) {
    LIST_FOREACH (n, &hv->http) {
        struct http_pool *p = LIST_ENTRY(n, struct http_pool, node);
        if (p->priority == w->priority && p->protocol == w->protocol &&
            p->transport == w->transport && p->downstream_id == w->downstream_id &&
            sv_eq(p->key, w->key) && !p->is_draining) {
            return p;
        }
    }
    return NULL;
}

/* What tells pools of one host apart beside their protocol: the transport's options, the source. */
static sv pool_name(struct cluster_view *v, const struct pool_key *key, const struct wanted *w,
                    struct buf *text) {
    const struct transport_factory *f =
        w->options ? worker_transport(v->worker, w->transport) : NULL;
    if (f && f->ops->hash_key) {
        f->ops->hash_key(f, w->options, text);
    }
    if (key->source) {
        char from[ADDR_STR_MAX];
        buf_append(text, from, addr_str(&key->source->addr, from));
        buf_append(text, &key->source->mark, sizeof(key->source->mark));
    }
    return buf_pullup(text, buf_len(text));
}

/* NULL: max_connection_pools is reached. */
static struct http_pool *pool_get(struct cluster_view *v, const struct pool_key *key) {
    const struct cluster_config *c = v->cfg;
    struct host_view *hv = pool_table_host(v, key->host);
    struct wanted w = {.protocol = protocol_of(c, key->downstream),
                       .transport = cluster_transport_slot(c, key->entry),
                       .priority = key->priority};
    w.downstream_id =
        c->connection_pool_per_downstream && key->per_downstream ? key->per_downstream->id : 0;
    struct transport_options own;
    w.options = pool_transport_options(c, key, &own);
    BUF_AUTO struct buf text;
    buf_init(&text);
    if (w.options || key->source) {
        w.key = pool_name(v, key, &w, &text);
    }
    struct http_pool *p = pool_find(hv, &w);
    if (LIKELY(p)) {
        return p;
    }
    if (!breaker_try(&c->use[key->priority].pools, c->breakers[key->priority].max_pools)) {
        stats_inc(v->stats, CLUSTER_upstream_cx_pool_overflow);
        return NULL;
    }
    return pool_new(hv, key, &w);
}

/* ---- opening connections ---- */

/* How many more streams the connections under way will take. */
static uint64_t connecting_room(const struct http_pool *p) {
    bool is_h2 = p->protocol == UPSTREAM_HTTP2 || (p->protocol == UPSTREAM_AUTO && p->is_h2_seen);
    return (uint64_t)p->connecting_n * http_conn_streams_max(p, is_h2);
}

static uint64_t ready_room(const struct http_pool *p) {
    uint64_t room = 0;
    LIST_FOREACH (n, &p->ready) {
        const struct http_conn *hc = LIST_ENTRY(n, struct http_conn, node);
        room += hc->max_streams > hc->streams ? hc->max_streams - hc->streams : 0;
    }
    return room;
}

static bool needs_more(const struct http_pool *p) {
    if (p->pending_n > connecting_room(p)) {
        return true;
    }
    double ratio = p->view->cfg->per_upstream_preconnect_ratio;
    if (ratio <= 1 || p->is_draining) {
        return false;
    }
    /* Ahead of need: connections for `ratio` times the streams there are. */
    double wanted = ratio * ((double)p->pending_n + p->streams_n);
    return wanted > (double)connecting_room(p) + (double)ready_room(p) + p->streams_n;
}

/* A place for one more connection: within the limit, or the pool's first, lest its requests wait
 * for nobody. */
static bool take_place(struct http_pool *p) {
    if (breaker_connection_try(p->view->cfg, p->priority, p->hv->host)) {
        return true;
    }
    stats_inc(p->view->stats, CLUSTER_upstream_cx_overflow);
    if (has_conns(p)) {
        return false;
    }
    __atomic_add_fetch(&use_of(p)->connections, 1, __ATOMIC_RELAXED);
    return true;
}

static void open_for_pending(struct http_pool *p) {
    enum pool_failure why;
    sv reason;
    while (needs_more(p) && take_place(p)) {
        if (!http_conn_new(p, &why, &reason)) {
            http_pool_fail_pending(p, why, reason);
            return;
        }
    }
}

/* ---- pending requests ---- */

static void forget(struct http_pool_request *r) {
    struct http_pool *p = r->pool;
    list_unlink(&r->node);
    p->pending_n--;
    breaker_release(&use_of(p)->pending);
    stats_gauge_dec(p->view->stats, CLUSTER_upstream_rq_pending_active);
    if (r->waiting) {
        *r->waiting = NULL;
    }
}

void http_pool_serve(struct http_pool *p, struct http_conn *hc) {
    while (hc->state == HTTP_CONN_READY && !list_empty(&p->pending)) {
        struct http_pool_request *r =
            LIST_ENTRY(list_first(&p->pending), struct http_pool_request, node);
        struct http_pool_request copy = *r;
        forget(r);
        bool ok = http_conn_attach(hc, copy.ops, copy.user, copy.stream_ops);
        if (ok) {
            xfree(r);
            continue;
        }
        /* It cannot take one after all: back to the front of the queue, and this connection has had
         * its time. */
        *r = copy;
        r->node = (struct list){0};
        list_push_front(&p->pending, &r->node);
        p->pending_n++;
        __atomic_add_fetch(&use_of(p)->pending, 1, __ATOMIC_RELAXED);
        stats_gauge_inc(p->view->stats, CLUSTER_upstream_rq_pending_active);
        http_conn_drain(hc);
        http_pool_check_later(p);
    }
}

void http_pool_fail_pending(struct http_pool *p, enum pool_failure why, sv reason) {
    struct list failed;
    list_init(&failed);
    /* what a callback asks for anew is not failed with them */
    list_splice_back(&failed, &p->pending);
    while (!list_empty(&failed)) {
        struct http_pool_request *r =
            LIST_ENTRY(list_first(&failed), struct http_pool_request, node);
        forget(r);
        stats_inc(p->view->stats, CLUSTER_upstream_rq_pending_failure_eject);
        r->ops->on_failure(r->user, why, reason, p->hv->host);
        xfree(r);
    }
}

void http_pool_cancel(struct http_pool_request *r) {
    struct http_pool *p = r->pool;
    stats_inc(p->view->stats, CLUSTER_upstream_rq_cancelled);
    forget(r);
    xfree(r);
    http_pool_check_later(p);
}

/* ---- requests ---- */

/* The connection used last. One that was idle for long is looked at first: epoll tells of a close
 * only with the next poll, and servers that time connections out do it when those were idle, not
 * between two requests that follow each other. */
static struct http_conn *take_ready(struct http_pool *p) {
    while (!list_empty(&p->ready)) {
        struct http_conn *hc = LIST_ENTRY(list_first(&p->ready), struct http_conn, node);
        bool is_long_idle =
            !hc->streams && loop_now_us(p->view->loop) - hc->idle_since_us > HTTP_POOL_STALE_US;
        if (LIKELY(!is_long_idle || hc->codec->protocol == HTTP_2 || !conn_is_stale(hc->conn))) {
            return hc;
        }
        hc->is_stale = true;
        http_conn_close(hc, "closed by the upstream while idle");
    }
    return NULL;
}

static void enqueue(struct http_pool *p, const struct http_pool_ops *ops, void *user,
                    const struct codec_stream_ops *stream_ops, struct http_pool_request **handle) {
    struct http_pool_request *r = xnew(struct http_pool_request);
    *r = (struct http_pool_request){.pool = p, .ops = ops, .stream_ops = stream_ops, .user = user};
    list_push_back(&p->pending, &r->node);
    p->pending_n++;
    stats_inc(p->view->stats, CLUSTER_upstream_rq_pending_total);
    stats_gauge_inc(p->view->stats, CLUSTER_upstream_rq_pending_active);
    struct http_pool_request *waiting = r;
    r->waiting = &waiting;
    open_for_pending(p);
    if (waiting) { /* else it failed, and the caller's memory may be gone */
        waiting->waiting = NULL;
        *handle = waiting;
    }
}

void http_pool_request(struct cluster_view *v, const struct pool_key *key,
                       const struct http_pool_ops *ops, void *user,
                       const struct codec_stream_ops *stream_ops,
                       struct http_pool_request **handle) {
    *handle = NULL;
    struct http_pool *p = pool_get(v, key);
    if (UNLIKELY(!p)) {
        ops->on_failure(user, POOL_OVERFLOW, SV_NULL, key->host);
        return;
    }
    for (struct http_conn *hc; (hc = take_ready(p));) {
        if (LIKELY(http_conn_attach(hc, ops, user, stream_ops))) {
            if (v->cfg->per_upstream_preconnect_ratio > 1) {
                http_pool_check_later(p);
            }
            return;
        }
        http_conn_drain(hc);
    }
    if (!breaker_try(&use_of(p)->pending, limits_of(p)->max_pending)) {
        stats_inc(v->stats, CLUSTER_upstream_rq_pending_overflow);
        ops->on_failure(user, POOL_OVERFLOW, SV_NULL, key->host);
        return;
    }
    enqueue(p, ops, user, stream_ops, handle);
}

/* ---- all pools of a host ---- */

static void drain_list(struct list *l) {
    LIST_FOREACH_SAFE (n, l) {
        http_conn_drain(LIST_ENTRY(n, struct http_conn, node));
    }
}

void http_pools_drain(struct host_view *hv) {
    LIST_FOREACH (n, &hv->http) {
        struct http_pool *p = LIST_ENTRY(n, struct http_pool, node);
        p->is_draining = true;
        drain_list(&p->ready);
        if (!p->pending_n) { /* else those waiting are still served */
            drain_list(&p->busy);
            drain_list(&p->connecting);
        }
        http_pool_check_later(p);
    }
}

static void close_list(struct list *l, const char *reason) {
    /* Closing calls users back, who may close or open others: always the first, until none is
     * left. */
    struct list all;
    list_init(&all);
    list_splice_back(&all, l);
    while (!list_empty(&all)) {
        struct http_conn *hc = LIST_ENTRY(list_first(&all), struct http_conn, node);
        http_conn_close(hc, reason);
        if (list_first(&all) == &hc->node) {
            list_unlink(&hc->node); /* it is on its way out already */
        }
    }
}

void http_pools_close(struct host_view *hv, const char *reason) {
    LIST_FOREACH (n, &hv->http) { /* pools are freed by their tasks only */
        struct http_pool *p = LIST_ENTRY(n, struct http_pool, node);
        close_list(&p->connecting, reason);
        close_list(&p->ready, reason);
        close_list(&p->busy, reason);
        close_list(&p->draining, reason);
        http_pool_fail_pending(p, POOL_CONNECT_FAILED, SV_NULL);
    }
}

bool http_pools_in_use(const struct host_view *hv) {
    LIST_FOREACH (n, &hv->http) {
        const struct http_pool *p = LIST_ENTRY(n, struct http_pool, node);
        if (has_conns(p) || p->pending_n || !list_empty(&p->draining)) {
            return true;
        }
    }
    return false;
}
