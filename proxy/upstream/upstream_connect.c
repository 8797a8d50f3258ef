/* Getting one ready connection to a host: see upstream_connect.h.
 * Addresses are tried in order: the next at once when one fails, or beside it when it has not
 * answered for a while.
 * Threads: worker-local. Not here: what the connection is for (pool_http.c, pool_tcp.c), sockets
 * (net/). */
#include "proxy/upstream/upstream_connect.h"

#include <stdio.h>

#include "proxy/api/passthrough.h"
#include "proxy/api/worker.h"
#include "proxy/base/log.h"
#include "proxy/net/sock.h"
#include "proxy/observe/filter_state.h"

#define SECRETS_MISSING "TLS error: Secret is not supplied by SDS"

static void on_data(struct conn *c, void *user, struct buf *data, bool end_stream);
static void on_event(struct conn *c, void *user, enum conn_event e);
static const struct conn_ops racer_ops = {.on_data = on_data, .on_event = on_event};

static const struct addr *address_at(const struct upstream_connect *u, unsigned i) {
    return i ? &u->host->extra->additional[i - 1] : &u->host->addr;
}

static bool has_more(const struct upstream_connect *u) {
    return u->next <= u->host->extra->additional_n;
}

const struct addr *upstream_source_for(const struct cluster_config *c, const struct addr *to) {
    const struct cluster_bind *b = c->bind;
    if (!b->source || b->source->family == to->family) {
        return b->source;
    }
    for (unsigned i = 0; i < b->extra_sources_n; i++) {
        if (b->extra_sources[i].family == to->family) {
            return &b->extra_sources[i];
        }
    }
    return addr_is_ip(to) ? b->source : NULL;
}

static struct conn *connect_internal(struct upstream_connect *u, const struct addr *to,
                                     const struct transport_factory *f, struct transport *t,
                                     int *err) {
    struct passthrough *p = passthrough_new(to);
    if (f->ops->passthrough && u->shared_state) {
        p->filter_state = filter_state_dup(u->shared_state, &p->arena);
    }
    if (f->ops->passthrough) {
        const struct passthrough_source from = {.host = u->host->metadata,
                                                .cluster = u->view->cfg->metadata,
                                                .thread_index = u->view->loop->thread_index};
        f->ops->passthrough(f, &from, p);
    }
    int fd = worker_dial_internal(u->view->worker, p);
    shared_unref(&p->shared);
    if (fd < 0) {
        *err = fd;
        t->ops->destroy(t);
        return NULL;
    }
    return conn_connect_internal(u->view->loop, fd, to, t, &racer_ops, u);
}

static struct conn *connect_from(struct upstream_connect *u, const struct addr *to,
                                 const struct transport_factory *f, struct transport *t, int *err) {
    const struct cluster_config *cfg = u->view->cfg;
    if (to->family == ADDR_INTERNAL) {
        return connect_internal(u, to, f, t, err);
    }
    if (!u->source) {
        return conn_connect(u->view->loop, to, upstream_source_for(cfg, to), &cfg->bind->opts, t,
                            &racer_ops, u, err);
    }
    if (u->source->addr.family != to->family) {
        *err = UV_EAFNOSUPPORT; /* rather than be taken for somebody else */
        t->ops->destroy(t);
        return NULL;
    }
    struct sock_opts opts = cfg->bind->opts;
    opts.transparent = true;
    opts.mark = u->source->mark ? (int)u->source->mark : opts.mark;
    return conn_connect(u->view->loop, to, &u->source->addr, &opts, t, &racer_ops, u, err);
}

/* The one place where connections to upstreams are made. NULL: *err is a negative errno, 0 when
 * there is no transport. */
static struct conn *open_conn(struct upstream_connect *u, const struct addr *to, int *err) {
    const struct cluster_config *cfg = u->view->cfg;
    const struct transport_factory *f = worker_transport(u->view->worker, u->transport);
    struct transport *t = f ? f->ops->create(f, u->options) : NULL;
    *err = 0;
    if (!t) {
        return NULL;
    }
    struct conn *c = connect_from(u, to, f, t, err);
    if (!c) {
        if (addr_is_ip(to) && (cfg->bind->source || u->source)) {
            stats_inc(u->view->stats, CLUSTER_bind_errors);
        }
        return NULL;
    }
    struct stats_shard *st = u->view->stats;
    c->stats.rx_bytes_total = &st->v[CLUSTER_upstream_cx_rx_bytes_total];
    c->stats.tx_bytes_total = &st->v[CLUSTER_upstream_cx_tx_bytes_total];
    c->stats.rx_bytes_buffered = &st->v[CLUSTER_upstream_cx_rx_bytes_buffered];
    c->stats.tx_bytes_buffered = &st->v[CLUSTER_upstream_cx_tx_bytes_buffered];
    if (cfg->buffer_limit_bytes) {
        conn_set_buffer_limit(c, cfg->buffer_limit_bytes);
    }
    return c;
}

static sv connect_error(const char *when, int err) {
    static _Thread_local char text[128];
    const char *what = strerrordesc_np(-err);
    int n = snprintf(text, sizeof(text), "%s connect error: %s", when, what ? what : "unknown");
    return sv_from(text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
}

static sv immediate_error(const struct addr *to, int err) {
    static _Thread_local char text[128 + ADDR_STR_MAX];
    char address[ADDR_STR_MAX];
    sv what = connect_error("immediate", err);
    addr_str(to, address);
    int n = snprintf(text, sizeof(text), "%.*s|remote address:%s", SV_ARG(what), address);
    return sv_from(text, (size_t)n < sizeof(text) ? (size_t)n : sizeof(text) - 1);
}

/* Try addresses until one is under way. False: none is, and no other racer runs. */
static bool try_next(struct upstream_connect *u, enum pool_failure *why, sv *reason) {
    while (has_more(u) && u->racers_n < UPSTREAM_CONNECT_RACERS) {
        int err;
        const struct addr *to = address_at(u, u->next++);
        struct conn *c = open_conn(u, to, &err);
        if (c) {
            unsigned free_at = 0;
            while (u->racers[free_at]) {
                free_at++;
            }
            u->racers[free_at] = c;
            u->racers_n++;
            if (has_more(u)) {
                timer_start(&u->stagger, UPSTREAM_CONNECT_DELAY_MS);
            }
            return true;
        }
        *why = err ? POOL_CONNECT_FAILED : POOL_NO_TRANSPORT;
        *reason = err ? immediate_error(to, err) : SV(SECRETS_MISSING);
        log_debug(LOG_pool, "no connection to %.*s: %.*s", SV_ARG(u->host->address_text),
                  SV_ARG(*reason));
    }
    return u->racers_n > 0;
}

static void on_stagger(struct timer *t) {
    struct upstream_connect *u = CONTAINER_OF(t, struct upstream_connect, stagger);
    enum pool_failure why;
    sv reason;
    if (!try_next(u, &why, &reason)) {
        upstream_connect_cancel(u);
        u->ops->on_failed(u, why, reason);
    }
}

static void on_timeout(struct timer *t) {
    struct upstream_connect *u = CONTAINER_OF(t, struct upstream_connect, timeout);
    upstream_connect_cancel(u);
    u->ops->on_failed(u, POOL_CONNECT_TIMEOUT, SV_NULL);
}

static bool forget(struct upstream_connect *u, const struct conn *c) {
    for (unsigned i = 0; i < UPSTREAM_CONNECT_RACERS; i++) {
        if (u->racers[i] == c) {
            u->racers[i] = NULL;
            u->racers_n--;
            return true;
        }
    }
    return false;
}

static void on_data(struct conn *c, void *user, struct buf *data, bool end_stream) {
    /* kept for whoever takes the connection over */
    (void)c, (void)user, (void)data, (void)end_stream;
}

static void on_event(struct conn *c, void *user, enum conn_event e) {
    struct upstream_connect *u = user;
    if (!forget(u, c)) {
        return; /* dropped by us */
    }
    if (e == CONN_EVENT_CONNECTED) {
        const struct cluster_config *cfg = u->view->cfg;
        for (unsigned i = 0; i < cfg->filters_n; i++) {
            cfg->filters[i].type->on_upstream_ready(cfg->filters[i].config, c, u->view->worker);
        }
        upstream_connect_cancel(u);
        u->ops->on_connected(u, c);
        return;
    }
    sv reason =
        c->connect_error_ ? connect_error("delayed", c->connect_error_) : conn_transport_failure(c);
    enum pool_failure why = POOL_CONNECT_FAILED;
    sv ignored;
    if (!try_next(u, &why, &ignored)) {
        upstream_connect_cancel(u);
        u->ops->on_failed(u, POOL_CONNECT_FAILED, reason);
    }
}

bool upstream_connect_start(struct upstream_connect *u, enum pool_failure *why, sv *reason) {
    u->started_us = loop_now_us(u->view->loop);
    timer_init(&u->timeout, u->view->loop, on_timeout);
    timer_init(&u->stagger, u->view->loop, on_stagger);
    *why = POOL_CONNECT_FAILED;
    *reason = SV_NULL;
    if (!try_next(u, why, reason)) {
        return false;
    }
    timer_start(&u->timeout, u->view->cfg->connect_timeout_ms);
    return true;
}

void upstream_connect_cancel(struct upstream_connect *u) {
    timer_cancel(&u->timeout);
    timer_cancel(&u->stagger);
    for (unsigned i = 0; i < UPSTREAM_CONNECT_RACERS; i++) {
        struct conn *c = u->racers[i];
        if (c) {
            u->racers[i] = NULL;
            u->racers_n--;
            conn_close(c, CONN_CLOSE_NO_FLUSH, NULL);
        }
    }
}
