/* TCP connections to upstreams: one for each request, never used again.
 * Threads: worker-local. Spec: Envoy's Tcp::ConnectionPool as tcp_proxy uses it; connections and
 * pending requests count against the cluster's circuit breakers.
 * Not here: connecting (upstream_connect.c), what flows (filters/network/tcp_proxy.c). */
#include "proxy/base/log.h"
#include "proxy/upstream/pool_table.h"
#include "proxy/upstream/upstream_connect.h"

struct tcp_pool_request {
    struct tcp_conn *conn;
    const struct tcp_pool_ops *ops;
    void *user;
};
/* From the first connect until tcp_pool_closed(). */
struct tcp_conn {
    struct list node; /* in host_view.tcp */
    struct host_view *hv;
    struct cluster_view *view; /* a ref */
    struct conn *conn;         /* NULL while connecting */
    uint64_t conn_id;
    uint64_t opened_us;
    uint8_t priority;
    struct arena arena;
    struct upstream_connect connect;
    struct tcp_pool_request request;
    struct loop_garbage garbage;
};

static struct breaker_use *use_of(const struct tcp_conn *tc) {
    return &tc->view->cfg->use[tc->priority];
}

static sv conn_key(const struct tcp_conn *tc) { return sv_from(&tc->conn_id, sizeof(tc->conn_id)); }

static void free_tcp_conn(struct loop_garbage *g) {
    struct tcp_conn *tc = CONTAINER_OF(g, struct tcp_conn, garbage);
    arena_fini(&tc->arena);
    xfree(tc);
}

/* It is gone: give back what it held. Freed when the callbacks are over. */
static void end(struct tcp_conn *tc) {
    struct cluster_view *v = tc->view;
    struct host_view *hv = tc->hv;
    breaker_release(&use_of(tc)->connections);
    stats_gauge_dec(v->stats, CLUSTER_upstream_cx_active);
    stats_record(v->stats, CLUSTER_upstream_cx_length_ms,
                 (loop_now_us(v->loop) - tc->opened_us) / 1000);
    HOST_STAT_ADD(hv->host, cx_active, -1);
    list_unlink(&tc->node);
    tc->garbage.free = free_tcp_conn;
    loop_defer_free(v->loop, &tc->garbage);
    host_view_release(hv);
    cluster_view_unref(v);
}

static void no_longer_pending(struct tcp_conn *tc) {
    breaker_release(&use_of(tc)->pending);
    stats_gauge_dec(tc->view->stats, CLUSTER_upstream_rq_pending_active);
}

/* ---- connecting ---- */

static void on_connected(struct upstream_connect *u, struct conn *c) {
    struct tcp_conn *tc = CONTAINER_OF(u, struct tcp_conn, connect);
    struct cluster_view *v = tc->view;
    no_longer_pending(tc);
    stats_record(v->stats, CLUSTER_upstream_cx_connect_ms,
                 (loop_now_us(v->loop) - u->started_us) / 1000);
    stats_inc(v->stats, CLUSTER_upstream_rq_total);
    stats_gauge_inc(v->stats, CLUSTER_upstream_rq_active);
    HOST_STAT_ADD(tc->hv->host, rq_total, 1);
    HOST_STAT_ADD(tc->hv->host, rq_active, 1);
    tc->conn = c;
    tc->conn_id = c->id;
    map_put(&pool_table_of(v)->tcp, conn_key(tc), tc);
    conn_set_ops(c, NULL, NULL);
    tc->request.ops->on_ready(tc->request.user, c, tc->hv->host);
}

static void count_failure(struct tcp_conn *tc, enum pool_failure why) {
    stats_inc(tc->view->stats, CLUSTER_upstream_cx_connect_fail);
    if (why == POOL_CONNECT_TIMEOUT) {
        stats_inc(tc->view->stats, CLUSTER_upstream_cx_connect_timeout);
    }
    stats_inc(tc->view->stats, CLUSTER_upstream_rq_pending_failure_eject);
    stats_inc(tc->view->stats, CLUSTER_upstream_cx_destroy);
    stats_inc(tc->view->stats, why == POOL_CONNECT_FAILED ? CLUSTER_upstream_cx_destroy_remote
                                                          : CLUSTER_upstream_cx_destroy_local);
    HOST_STAT_ADD(tc->hv->host, cx_connect_fail, 1);
    no_longer_pending(tc);
}

static void fail(struct tcp_conn *tc, enum pool_failure why, sv reason) {
    struct tcp_pool_request rq = tc->request;
    struct host *h = shared_ref(tc->hv->host);
    count_failure(tc, why);
    end(tc);
    rq.ops->on_failure(rq.user, why, reason, h);
    shared_unref(&h->shared);
}

static void on_connect_failed(struct upstream_connect *u, enum pool_failure why, sv reason) {
    fail(CONTAINER_OF(u, struct tcp_conn, connect), why, reason);
}

static const struct upstream_connect_ops connect_ops = {.on_connected = on_connected,
                                                        .on_failed = on_connect_failed};

static struct tcp_conn *tcp_conn_new(struct cluster_view *v, const struct pool_key *key) {
    struct host_view *hv = pool_table_host(v, key->host);
    struct tcp_conn *tc = xnew(struct tcp_conn);
    tc->hv = hv;
    tc->view = cluster_view_ref(v);
    tc->priority = key->priority;
    tc->opened_us = loop_now_us(v->loop);
    tc->request.conn = tc;
    arena_init(&tc->arena, 256);
    struct transport_options own, o = {0};
    const struct transport_options *asked = pool_transport_options(v->cfg, key, &own);
    if (asked) {
        o = *asked;
    }
    o.host_name = hv->host->hostname;
    tc->connect =
        (struct upstream_connect){.ops = &connect_ops,
                                  .view = v,
                                  .host = hv->host,
                                  .options = transport_options_dup(&o, &tc->arena),
                                  .source = key->source,
                                  .shared_state = pool_shared_state(key, &tc->arena),
                                  .transport = cluster_transport_slot(v->cfg, key->entry)};
    list_push_back(&hv->tcp, &tc->node);
    stats_inc(v->stats, CLUSTER_upstream_cx_total);
    stats_gauge_inc(v->stats, CLUSTER_upstream_cx_active);
    HOST_STAT_ADD(hv->host, cx_total, 1);
    HOST_STAT_ADD(hv->host, cx_active, 1);
    stats_inc(v->stats, CLUSTER_upstream_rq_pending_total);
    stats_gauge_inc(v->stats, CLUSTER_upstream_rq_pending_active);
    return tc;
}

static bool has_connection(struct cluster_view *v, const struct host *h) {
    return !list_empty(&pool_table_host(v, (struct host *)(uintptr_t)h)->tcp);
}

/* Room under max_connections, or the first connection to this host. */
static bool take_place(struct cluster_view *v, const struct pool_key *key) {
    if (breaker_connection_try(v->cfg, key->priority, key->host)) {
        return true;
    }
    stats_inc(v->stats, CLUSTER_upstream_cx_overflow);
    if (has_connection(v, key->host)) {
        return false;
    }
    __atomic_add_fetch(&v->cfg->use[key->priority].connections, 1, __ATOMIC_RELAXED);
    return true;
}

void tcp_pool_request(struct cluster_view *v, const struct pool_key *key,
                      const struct tcp_pool_ops *ops, void *user,
                      struct tcp_pool_request **handle) {
    *handle = NULL;
    struct breaker_use *use = &v->cfg->use[key->priority];
    if (!breaker_try(&use->pending, v->cfg->breakers[key->priority].max_pending)) {
        stats_inc(v->stats, CLUSTER_upstream_rq_pending_overflow);
        ops->on_failure(user, POOL_OVERFLOW, SV_NULL, key->host);
        return;
    }
    if (!take_place(v, key)) {
        breaker_release(&use->pending);
        ops->on_failure(user, POOL_OVERFLOW, SV_NULL, key->host);
        return;
    }
    struct tcp_conn *tc = tcp_conn_new(v, key);
    tc->request.ops = ops;
    tc->request.user = user;
    enum pool_failure why;
    sv reason;
    if (!upstream_connect_start(&tc->connect, &why, &reason)) {
        fail(tc, why, reason);
        return;
    }
    *handle = &tc->request;
}

void tcp_pool_cancel(struct tcp_pool_request *r) {
    struct tcp_conn *tc = r->conn;
    upstream_connect_cancel(&tc->connect);
    stats_inc(tc->view->stats, CLUSTER_upstream_rq_cancelled);
    no_longer_pending(tc);
    end(tc);
}

/* ---- handed out ---- */

void tcp_pool_closed(struct cluster_view *v, struct host *h, struct conn *c, unsigned priority,
                     bool remote) {
    (void)priority;
    struct tcp_conn *tc =
        v->pools_ ? map_remove(&v->pools_->tcp, sv_from(&c->id, sizeof(c->id))) : NULL;
    if (BUG(!tc)) {
        return;
    }
    stats_inc(v->stats, CLUSTER_upstream_cx_destroy);
    stats_inc(v->stats, CLUSTER_upstream_cx_destroy_with_active_rq);
    stats_inc(v->stats,
              remote ? CLUSTER_upstream_cx_destroy_remote : CLUSTER_upstream_cx_destroy_local);
    stats_inc(v->stats, remote ? CLUSTER_upstream_cx_destroy_remote_with_active_rq
                               : CLUSTER_upstream_cx_destroy_local_with_active_rq);
    stats_gauge_dec(v->stats, CLUSTER_upstream_rq_active);
    HOST_STAT_ADD(h, rq_active, -1);
    end(tc);
}

void tcp_conns_close(struct host_view *hv, const char *reason) {
    struct list all;
    list_init(&all);
    list_splice_back(&all, &hv->tcp);
    while (!list_empty(&all)) {
        struct tcp_conn *tc = LIST_ENTRY(list_first(&all), struct tcp_conn, node);
        list_unlink(&tc->node);
        list_push_back(&hv->tcp, &tc->node);
        if (tc->conn) {
            conn_close(tc->conn, CONN_CLOSE_NO_FLUSH, reason);
        } else {
            upstream_connect_cancel(&tc->connect);
            fail(tc, POOL_CONNECT_FAILED, SV_NULL);
        }
    }
}
