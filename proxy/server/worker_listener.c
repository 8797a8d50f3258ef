/* A worker's part of a listener: sockets, choosing the filter chain of an accepted connection,
 * draining.
 * Threads: worker-local. Spec: listener.v3.Listener, "Draining" in Envoy's docs.
 * Not here: reading sockets and listener filters (net/listener.c), L4 filters
 * (net/filter_chain.c). */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/api/extension.h"
#include "proxy/api/transport_socket.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/base/runtime.h"
#include "proxy/config/chain_tree.h"
#include "proxy/server/worker.h"

static struct worker_listener *listener_of(struct listener_sock *l) {
    return CAST(worker_listener, WORKER_LISTENER_MAGIC, listener_sock_owner(l));
}

/* ---- the end of a listener ---- */

static void on_garbage(struct loop_garbage *g) {
    struct worker_listener *l = CONTAINER_OF(g, struct worker_listener, garbage);
    l->magic = 0;
    xfree(l->socks);
    if (l->sockets) {
        shared_unref(&l->sockets->shared);
    }
    shared_unref(&l->resource->shared);
    if (l->worker_stats) {
        stats_scope_unref(l->worker_stats);
    }
    if (l->last) {
        shared_unref(&l->last->shared);
    }
    xfree(l);
}

static bool has_pending(const struct worker_listener *l) {
    for (unsigned i = 0; i < l->cfg->addresses_n; i++) {
        if (l->socks[i] && listener_sock_pending(l->socks[i])) {
            return true;
        }
    }
    return false;
}

static void close_socks(struct worker_listener *l) {
    for (unsigned i = 0; i < l->cfg->addresses_n; i++) {
        if (l->socks[i]) {
            listener_sock_close(l->socks[i]);
            l->socks[i] = NULL;
        }
    }
}

/* At the latest when the drain time ends: pending sockets may go without a word. */
static void free_when_unused(struct worker_listener *l) {
    if (!l->is_removed || !list_empty(&l->chains) || has_pending(l) || l->garbage.free) {
        return;
    }
    close_socks(l);
    timer_cancel(&l->drain_end);
    list_unlink(&l->node);
    l->garbage.free = on_garbage;
    loop_defer_free(&l->worker->loop, &l->garbage);
}

/* ---- connections ---- */

/* One writer: a load and a store will do. Main reads it. */
static void count_connection(struct worker *w, int by) {
    __atomic_store_n(&w->connections, w->connections + (uint64_t)(int64_t)by, __ATOMIC_RELAXED);
}

/* The listener's connections of this worker. */
static struct stats_shard *worker_shard(struct worker_listener *l) {
    if (UNLIKELY(!l->worker_stats)) {
        struct buf BUF_AUTO prefix;
        buf_init(&prefix);
        buf_printf(&prefix, "%.*sworker_%u.", SV_ARG(stats_scope_prefix(l->cfg->stats)),
                   l->worker->index);
        l->worker_stats =
            stats_scope_get(stats_scope_store(l->cfg->stats), &listener_worker_stats_group,
                            buf_pullup(&prefix, buf_len(&prefix)));
    }
    return stats_shard(l->worker_stats, l->worker->loop.thread_index);
}

static void on_chain_end(struct net_chain *c, enum conn_event e) {
    struct worker_listener *l = CAST(worker_listener, WORKER_LISTENER_MAGIC, c->owner);
    (void)e;
    list_unlink(&c->node);
    count_connection(l->worker, -1);
    stats_gauge_dec(l->stats, LISTENER_downstream_cx_active);
    stats_gauge_dec(worker_shard(l), LISTENER_WORKER_downstream_cx_active);
    stats_inc(l->stats, LISTENER_downstream_cx_destroy);
    uint64_t age_us = loop_now_us(&l->worker->loop) - c->cx.start_us;
    stats_record(l->stats, LISTENER_downstream_cx_length_ms, age_us / 1000);
    if (l->cfg->access_logs) { /* also of who never came through the handshake */
        struct stream_info *si = net_chain_info(c);
        si->end_us = loop_now_us(&l->worker->loop);
        access_logs_run(l->cfg->access_logs, si, ACCESS_LOG_NOT_SET, &l->worker->loop);
    }
    listener_conn_done(&l->cfg->sock, l->worker->loop.thread_index);
    free_when_unused(l);
}

static void refuse(struct worker_listener *l, int fd) {
    close(fd);
    listener_conn_done(&l->cfg->sock, l->worker->loop.thread_index);
}

/* A connection that matches no filter chain is logged as such: flag NR, details
 * filter_chain_not_found. */
static void log_no_chain(struct worker_listener *l, const struct accept_info *info) {
    stats_inc(l->stats, LISTENER_no_filter_chain_match);
    if (!l->cfg->access_logs) {
        return;
    }
    struct loop *lp = &l->worker->loop;
    struct conn_info cx = {.remote = info->remote,
                           .local = info->local,
                           .direct_remote = info->direct_remote,
                           .direct_local = info->direct_local,
                           .server_name = info->server_name,
                           .listener_name = l->cfg->name,
                           .start_us = loop_now_us(lp),
                           .listener = l->cfg,
                           .traffic_direction = l->cfg->traffic_direction};
    struct stream_info si = {.cx = &cx,
                             .start_us = cx.start_us,
                             .end_us = cx.start_us,
                             .flags = RESPONSE_FLAG(NR),
                             .start_wall_us = loop_wall_us(lp, cx.start_us),
                             .arena = info->arena,
                             .response_code_details = SV("filter_chain_not_found"),
                             .requested_server_name = info->server_name};
    access_logs_run(l->cfg->access_logs, &si, ACCESS_LOG_NOT_SET, lp);
}

static struct transport_factory *transport_of(const struct worker_listener *l, slot_t slot) {
    return l->last ? (struct transport_factory *)table_get(&l->last->tables[TABLE_TRANSPORTS], slot)
                   : worker_transport(l->worker, slot);
}

/* The chain's filters with those that are discovered as they are now, in `a`. NULL: one has no
 * configuration. */
static const struct network_filter_slot *
discover_filters(struct worker_listener *l, const struct net_chain_config *c, struct arena *a) {
    struct network_filter_slot *v = arena_new_array(a, struct network_filter_slot, c->n);
    for (unsigned i = 0; i < c->n; i++) {
        v[i] = c->filters[i];
        if (v[i].type) {
            continue;
        }
        struct extension_view *view = worker_extension(l->worker, v[i].slot);
        if (!view) {
            stats_inc(l->stats, LISTENER_network_extension_config_missing);
            return NULL;
        }
        v[i].type = view->config->network; /* lives while the view is current: past this call */
        v[i].config = view->config->config;
        v[i].pin = &view->config->shared;
        extension_view_unref(view);
    }
    return v;
}

static uint32_t find_chain(const struct listener_config *c, const struct accept_info *info) {
    uint32_t dflt = c->has_default_chain ? c->chains_n - 1 : CHAIN_NONE;
    return c->tree ? chain_tree_find(c->tree, info, dflt) : chain_match_find(c->match, info);
}

static void serve(struct worker_listener *l, int fd, struct accept_info *info) {
    struct worker *w = l->worker;
    uint32_t i = find_chain(l->cfg, info);
    if (i == CHAIN_NONE) {
        log_no_chain(l, info);
        refuse(l, fd);
        return;
    }
    const struct chain_config *cc = &l->cfg->chains[i];
    const struct network_filter_slot *filters =
        cc->net.has_discovered ? discover_filters(l, &cc->net, info->arena) : cc->net.filters;
    if (cc->net.has_discovered && !filters) {
        refuse(l, fd);
        return;
    }
    struct transport_factory *f = transport_of(l, cc->transport);
    struct transport *t = f ? f->ops->create(f, NULL) : NULL;
    if (!t) {
        log_warn_limited(LOG_connection,
                         "listener '%.*s': connection refused, its secrets are not there yet",
                         SV_ARG(l->cfg->name));
        stats_inc(l->stats, LISTENER_downstream_cx_total);
        stats_inc(l->stats, LISTENER_downstream_cx_destroy);
        refuse(l, fd);
        return;
    }
    struct net_chain_owner owner = {&w->loop, w, l->stats, on_chain_end, l, filters};
    struct net_chain *c = net_chain_new(&owner, &cc->net, t, fd, info);
    c->conn->stats.transport_timeouts =
        &l->stats->v[LISTENER_downstream_cx_transport_socket_connect_timeout];
    list_push_back(&l->chains, &c->node);
    count_connection(w, 1);
    stats_inc(l->stats, LISTENER_downstream_cx_total);
    stats_gauge_inc(l->stats, LISTENER_downstream_cx_active);
    stats_inc(worker_shard(l), LISTENER_WORKER_downstream_cx_total);
    stats_gauge_inc(worker_shard(l), LISTENER_WORKER_downstream_cx_active);
    net_chain_start(c);
}

/* The listener for an original destination: its exact address, else the any-address of its port. */
static struct worker_listener *find_by_address(struct worker *w, const struct addr *a) {
    struct worker_listener *l = map_get(&w->listeners_by_address, addr_key(a));
    struct addr any = {.family = a->family, .port = a->port};
    return l ? l : map_get(&w->listeners_by_address, addr_key(&any));
}

static void on_accepted(struct listener_sock *sock, int fd, struct accept_info *info) {
    struct worker_listener *l = listener_of(sock);
    if (l->cfg->use_original_dst && info->is_local_restored) {
        struct worker_listener *to = find_by_address(l->worker, &info->local);
        if (to && to != l && to->socks[0]) {
            listener_conn_done(&l->cfg->sock, l->worker->loop.thread_index);
            listener_sock_hand(to->socks[0], fd, info);
            return;
        }
    }
    serve(l, fd, info);
}

static struct extension_config *on_discovered(struct listener_sock *sock, slot_t slot) {
    struct extension_view *v = worker_extension(listener_of(sock)->worker, slot);
    if (!v) {
        return NULL;
    }
    struct extension_config *x = shared_ref(v->config);
    extension_view_unref(v);
    return x;
}

static const struct listener_sock_ops sock_ops = {
    .on_accepted = on_accepted, .give_away = worker_give_away, .discovered = on_discovered};

/* ---- which listeners there are ---- */

static void enter(struct worker_listener *l) {
    struct worker *w = l->worker;
    list_push_back(&w->listeners, &l->node);
    while (w->listeners_by_slot.n <= l->cfg->slot) {
        *vec_push(&w->listeners_by_slot) = NULL;
    }
    w->listeners_by_slot.p[l->cfg->slot] = l;
    for (unsigned i = 0; i < l->cfg->addresses_n; i++) {
        const struct addr *a = &l->sockets->bound[i];
        if (addr_is_ip(a)) {
            map_put(&w->listeners_by_address, addr_key(a), l);
        }
    }
    if (l->cfg->is_internal) {
        map_put(&w->internal_listeners, addr_internal_listener(&l->sockets->bound[0]), l);
    }
}

/* Who dials it from now on finds no listener. */
static void leave_internal(struct worker_listener *l) {
    struct map *m = &l->worker->internal_listeners;
    sv name = addr_internal_listener(&l->sockets->bound[0]);
    if (l->cfg->is_internal && map_get(m, name) == l) {
        map_remove(m, name);
    }
}

/* What took the place of this one, an update or another of its address, stays. */
static void leave(struct worker_listener *l) {
    struct worker *w = l->worker;
    list_unlink(&l->node);
    if (w->listeners_by_slot.p[l->cfg->slot] == l) {
        w->listeners_by_slot.p[l->cfg->slot] = NULL;
    }
    for (unsigned i = 0; i < l->cfg->addresses_n; i++) {
        sv key = addr_key(&l->sockets->bound[i]);
        if (map_get(&w->listeners_by_address, key) == l) {
            map_remove(&w->listeners_by_address, key);
        }
    }
    leave_internal(l);
}

struct worker_listener *worker_listener_find(struct worker *w, slot_t slot) {
    return slot < w->listeners_by_slot.n ? w->listeners_by_slot.p[slot] : NULL;
}

/* ---- adding, updating, removing ---- */

static void on_drain_end(struct timer *t) {
    struct worker_listener *l = CONTAINER_OF(t, struct worker_listener, drain_end);
    close_socks(l);
    LIST_FOREACH_SAFE (it, &l->chains) {
        net_chain_close(LIST_ENTRY(it, struct net_chain, node), CONN_CLOSE_FLUSH, "drain_timeout");
    }
    free_when_unused(l);
}

static struct worker_listener *listener_make(struct worker *w, struct resource *r,
                                             struct listener_sockets *socks) {
    struct worker_listener *l = xnew(struct worker_listener);
    l->magic = WORKER_LISTENER_MAGIC;
    l->worker = w;
    l->resource = shared_ref(r);
    l->cfg = r->listener;
    l->sockets = shared_ref(socks);
    l->socks = xnew_array(struct listener_sock *, l->cfg->addresses_n);
    l->stats = stats_shard(l->cfg->stats, w->loop.thread_index);
    list_init(&l->chains);
    timer_init(&l->drain_end, &w->loop, on_drain_end);
    enter(l);
    return l;
}

/* The worker's own descriptor of a socket; -1: it accepts nothing there. */
static int own_socket(const struct worker_listener *l, unsigned address) {
    int fd = listener_sockets_fd(l->sockets, address, l->worker->index);
    int own = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (fd >= 0 && own < 0) {
        log_error(LOG_connection, "listener '%.*s': worker %u can not accept: %s",
                  SV_ARG(l->cfg->name), l->worker->index, strerror(errno));
        if (l->cfg->reuse_port) { /* connections go to the other workers, or are refused */
            shutdown(fd, SHUT_RDWR);
        }
    }
    return own;
}

void worker_listener_add(struct worker *w, struct resource *r, struct listener_sockets *socks) {
    struct worker_listener *l = listener_make(w, r, socks);
    for (unsigned i = 0; i < l->cfg->addresses_n; i++) {
        l->socks[i] = listener_sock_new(&w->loop, &l->cfg->sock, own_socket(l, i), &socks->bound[i],
                                        l->stats, &sock_ops, l);
    }
}

static const struct chain_config *config_of(const struct net_chain *c) {
    return CONTAINER_OF(c->config, struct chain_config, net);
}

/* Connections whose filter chain is gone or changed leave by the drain time; the others stay with
 * what they began on. */
static void drain_changed(struct worker_listener *old, struct worker_listener *l) {
    LIST_FOREACH_SAFE (it, &old->chains) {
        struct net_chain *c = LIST_ENTRY(it, struct net_chain, node);
        if (listener_has_chain(l->cfg, config_of(c))) {
            list_unlink(&c->node);
            list_push_back(&l->chains, &c->node);
            listener_conn_moved(&old->cfg->sock, &l->cfg->sock, l->worker->loop.thread_index);
            c->owner = l;
        }
    }
}

void worker_listener_update(struct worker_listener *old, struct resource *r) {
    struct worker *w = old->worker;
    struct worker_listener *l = listener_make(w, r, old->sockets);
    for (unsigned i = 0; i < l->cfg->addresses_n; i++) {
        int fd = old->socks[i] ? listener_sock_release(old->socks[i]) : -1;
        l->socks[i] = listener_sock_new(&w->loop, &l->cfg->sock, fd, &l->sockets->bound[i],
                                        l->stats, &sock_ops, l);
    }
    drain_changed(old, l);
    worker_listener_remove(old);
}

/* No more connections; those that listener filters still look at go on. Others have the sockets
 * open for a while, too: without the shutdown clients would wait in their queue. A listener that
 * inherited them goes on accepting. */
static void stop_accepting_on(struct worker_listener *l) {
    bool is_over = !l->is_removed || listener_sockets_are_left(l->sockets);
    leave_internal(l);
    for (unsigned i = 0; i < l->cfg->addresses_n; i++) {
        int fd = l->socks[i] ? listener_sock_release(l->socks[i]) : -1;
        if (fd >= 0) {
            if (is_over) {
                shutdown(fd, SHUT_RDWR);
            }
            close(fd);
        }
    }
}

void worker_listener_start_drain(struct worker_listener *l, bool stop_accepting) {
    if (!l->drain_started_ms) {
        l->drain_started_ms = loop_now_ms(&l->worker->loop);
    }
    if (stop_accepting) {
        stop_accepting_on(l);
    }
    if (l->worker->shared->is_drain_immediate) {
        LIST_FOREACH_SAFE (it, &l->chains) {
            net_chain_drain(LIST_ENTRY(it, struct net_chain, node));
        }
    }
}

void worker_listener_remove(struct worker_listener *l) {
    leave(l);
    list_push_back(&l->worker->draining, &l->node);
    l->is_removed = true;
    if (l->worker->leaving && has_pending(l)) {
        l->last = shared_ref(l->worker->leaving);
    }
    worker_listener_start_drain(l, true);
    shared_unref(&l->sockets->shared);
    l->sockets = NULL;
    timer_start(&l->drain_end, l->worker->shared->drain_time_ms);
    free_when_unused(l);
}

void worker_listener_free_now(struct worker_listener *l) {
    close_socks(l);
    if (!l->is_removed) {
        leave(l);
        list_push_back(&l->worker->draining, &l->node);
        l->is_removed = true;
    }
    LIST_FOREACH_SAFE (it, &l->chains) {
        net_chain_close(LIST_ENTRY(it, struct net_chain, node), CONN_CLOSE_NO_FLUSH, "shutdown");
    }
    free_when_unused(l);
}

bool worker_listener_drains(struct worker_listener *l, struct rng *rng) {
    const struct worker_shared *s = l->worker->shared;
    if (s->is_drain_immediate || !s->drain_time_ms) {
        return true;
    }
    uint64_t elapsed = loop_now_ms(&l->worker->loop) - l->drain_started_ms;
    return elapsed >= s->drain_time_ms || rng_below(rng, s->drain_time_ms) < elapsed;
}
