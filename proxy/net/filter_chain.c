/* Iteration over the network filters of a connection. Filters see data in order, each either lets
 * it pass (NET_CONTINUE) or holds it in the conn's buffer (NET_STOP); a chain of one filter is
 * called directly.
 * Threads: worker-local. Spec: Envoy's Network::FilterManager, ReadFilter, WriteFilter.
 * Not here: which chain a connection gets (chain_match.c), its bytes (conn.c). */
#include "proxy/net/filter_chain.h"

#include "proxy/api/passthrough.h"
#include "proxy/base/mem.h"

#define ALIGNED(n) (((n) + 15u) & ~(size_t)15)

static const struct conn_ops one_filter_ops, many_filters_ops;

static struct net_chain *chain_of(void *user) { return CAST(net_chain, NET_CHAIN_MAGIC, user); }

/* ---- data ---- */

/* Tell filter i of the connection. Returns false when it holds the rest back, or the connection is
 * over. */
static bool start_filter(struct net_chain *c, unsigned i) {
    struct network_filter *f = c->filters_[i];
    c->started_ = (uint8_t)(i + 1);
    if (!f->type->on_new_connection) {
        return true;
    }
    return f->type->on_new_connection(f) == NET_CONTINUE && !c->is_closed_;
}

static bool is_delivering(const struct net_chain *c) {
    return !c->is_closed_ && c->conn->state == CONN_OPEN;
}

/* From filter `i` on: first the connection, then what is buffered. */
static void iterate(struct net_chain *c, unsigned i) {
    for (; i < c->n; i++) {
        if (i >= c->started_ && !start_filter(c, i)) {
            return;
        }
        struct buf *data = &c->conn->in_;
        bool end = c->conn->read_end_;
        struct network_filter *f = c->filters_[i];
        if (!is_delivering(c) || (buf_empty(data) && !end) || !f->type->on_data) {
            continue;
        }
        if (f->type->on_data(f, data, end) == NET_STOP || c->is_closed_) {
            return;
        }
    }
}

static void on_data_many(struct conn *conn, void *user, struct buf *data, bool end_stream) {
    (void)conn;
    (void)data;
    (void)end_stream;
    iterate(chain_of(user), 0);
}

static void on_data_one(struct conn *conn, void *user, struct buf *data, bool end_stream) {
    (void)conn;
    struct net_chain *c = chain_of(user);
    struct network_filter *f = c->filters_[0];
    if (f->type->on_data) {
        f->type->on_data(f, data, end_stream);
    }
}

void net_continue(struct network_filter *f) {
    struct net_chain *c = f->chain;
    if (c->is_closed_) {
        return;
    }
    iterate(c, f->index_ + 1u);
    if (!c->is_closed_) {
        conn_sync_io(c->conn); /* room in the buffer again */
    }
}

void net_write(struct network_filter *f, struct buf *data, bool end_stream) {
    struct net_chain *c = f->chain;
    for (unsigned i = f->index_; i-- > 0 && !c->is_closed_;) {
        struct network_filter *earlier = c->filters_[i];
        if (earlier->type->on_write &&
            earlier->type->on_write(earlier, data, end_stream) == NET_STOP) {
            buf_clear(data);
            return;
        }
    }
    if (c->is_closed_) {
        buf_clear(data);
        return;
    }
    conn_write(c->conn, data, end_stream);
}

/* ---- events: a filter hears of them once it was told of the connection ---- */

static void destroy(struct net_chain *c) {
    /* Last first: a filter may rely on those before it. */
    for (unsigned i = c->started_; i-- > 0;) {
        struct network_filter *f = c->filters_[i];
        if (f->type->destroy) {
            f->type->destroy(f);
        }
    }
    for (unsigned i = 0; c->pins_ && i < c->n; i++) {
        shared_unref(c->pins_[i]);
    }
    arena_fini(&c->arena_);
    shared_unref(c->config->pin);
    c->magic = 0;
    xfree(c);
}

static void on_garbage(struct loop_garbage *g) {
    destroy(CONTAINER_OF(g, struct net_chain, garbage_));
}

static void on_event(struct conn *conn, void *user, enum conn_event e) {
    struct net_chain *c = chain_of(user);
    bool is_close = e != CONN_EVENT_CONNECTED;
    if (!is_close && conn_ssl(conn)) {
        c->cx.handshake_end_us = loop_refresh_now(conn->loop);
    }
    if (is_close) {
        c->is_closed_ = true;
        c->cx.termination_details = conn->close_reason;
    }
    for (unsigned i = 0; i < c->started_; i++) {
        struct network_filter *f = c->filters_[i];
        if (f->type->on_conn_event) {
            f->type->on_conn_event(f, e);
        }
        if (c->is_closed_ && !is_close) {
            return; /* a filter closed it: this event is over, the other one was told meanwhile */
        }
    }
    if (!is_close) {
        return;
    }
    if (c->on_end) {
        c->on_end(c, e);
    }
    c->garbage_.free = on_garbage;
    loop_defer_free(conn->loop, &c->garbage_);
}

static void on_above_high(struct conn *conn, void *user) {
    (void)conn;
    struct net_chain *c = chain_of(user);
    for (unsigned i = 0; i < c->started_ && !c->is_closed_; i++) {
        if (c->filters_[i]->type->on_above_write_high) {
            c->filters_[i]->type->on_above_write_high(c->filters_[i]);
        }
    }
}

static void on_below_low(struct conn *conn, void *user) {
    (void)conn;
    struct net_chain *c = chain_of(user);
    for (unsigned i = 0; i < c->started_ && !c->is_closed_; i++) {
        if (c->filters_[i]->type->on_below_write_low) {
            c->filters_[i]->type->on_below_write_low(c->filters_[i]);
        }
    }
}

static const struct conn_ops one_filter_ops = {
    .on_data = on_data_one,
    .on_event = on_event,
    .on_write_above_high = on_above_high,
    .on_write_below_low = on_below_low,
};
static const struct conn_ops many_filters_ops = {
    .on_data = on_data_many,
    .on_event = on_event,
    .on_write_above_high = on_above_high,
    .on_write_below_low = on_below_low,
};

void net_chain_drain(struct net_chain *c) {
    if (c->is_draining || c->is_closed_) {
        return;
    }
    c->is_draining = true;
    for (unsigned i = 0; i < c->started_ && !c->is_closed_; i++) {
        if (c->filters_[i]->type->on_drain) {
            c->filters_[i]->type->on_drain(c->filters_[i]);
        }
    }
}

void net_chain_close(struct net_chain *c, enum conn_close_type how, const char *reason) {
    if (!c->is_closed_) {
        conn_close(c->conn, how, reason);
    }
}

/* ---- life ---- */

static size_t instances_bytes(const struct network_filter_slot *filters, unsigned n) {
    size_t bytes = 0;
    for (unsigned i = 0; i < n; i++) {
        bytes += ALIGNED(filters[i].type->instance_size);
    }
    return bytes;
}

static void pin_filters(struct net_chain *c, const struct network_filter_slot *filters) {
    c->pins_ = arena_new_array(&c->arena_, struct shared *, c->n);
    for (unsigned i = 0; i < c->n; i++) {
        c->pins_[i] = shared_ref_(filters[i].pin);
    }
}

static void place_filters(struct net_chain *c, const struct network_filter_slot *filters,
                          char *at) {
    for (unsigned i = 0; i < c->n; i++) {
        const struct network_filter_slot *slot = &filters[i];
        struct network_filter *f = (struct network_filter *)(void *)at;
        CHECK(slot->type->instance_size >= sizeof(*f));
        *f = (struct network_filter){.type = slot->type,
                                     .chain = c,
                                     .conn = c->conn,
                                     .config = slot->config,
                                     .index_ = (uint8_t)i};
        c->filters_[i] = f;
        at += ALIGNED(slot->type->instance_size);
    }
}

static void fill_conn(struct conn *conn, const struct net_chain_config *config,
                      const struct accept_info *info) {
    conn->remote = info->remote;
    conn->local = info->local;
    conn->direct_remote = info->direct_remote;
    conn->is_local_restored = info->is_local_restored;
    conn->buffer_limit_bytes = config->buffer_limit_bytes;
}

static void copy_facts(struct net_chain *c, const struct accept_info *info) {
    if (info->source.addr.family) {
        struct sock_source *source = arena_new(&c->arena_, struct sock_source);
        *source = info->source;
        c->conn->source = source;
    }
    if (info->ja3.n + info->ja4.n == 0 && !info->has_proxy_header) {
        return;
    }
    struct accept_facts *facts = arena_new(&c->arena_, struct accept_facts);
    facts->ja3 = arena_sv(&c->arena_, info->ja3);
    facts->ja4 = arena_sv(&c->arena_, info->ja4);
    facts->proxy_tlvs = arena_sv(&c->arena_, info->proxy_tlvs);
    facts->has_proxy_header = info->has_proxy_header;
    c->cx.facts = facts;
}

static void fill_info(struct net_chain *c, const struct accept_info *info, char *name_at) {
    if (info->server_name.n) {
        memcpy(name_at, info->server_name.p, info->server_name.n);
    }
    c->cx = (struct conn_info){
        .conn = c->conn,
        .id = c->conn->id,
        .remote = info->remote,
        .local = info->local,
        .direct_remote = info->direct_remote,
        .direct_local = info->direct_local,
        .server_name = {name_at, info->server_name.n},
        .filter_chain_name = c->config->name,
        .listener_name = c->config->listener_name,
        .start_us = c->conn->opened_us,
        .traffic_direction = c->config->traffic_direction,
        .listener = c->config->listener,
    };
    copy_facts(c, info);
}

/* What filters of this connection write into does not change what others see. */
static void take_passthrough(struct net_chain *c, struct passthrough *p) {
    passthrough_pin(p, &c->arena_); /* the connection's own address lies there */
    struct stream_info *si = net_chain_info(c);
    if (p->metadata) {
        si->metadata = kv_metadata_dup(p->metadata, &c->arena_);
    }
    if (p->filter_state) {
        si->filter_state = filter_state_dup(p->filter_state, &c->arena_);
    }
}

struct net_chain *net_chain_new(const struct net_chain_owner *o,
                                const struct net_chain_config *config, struct transport *t, int fd,
                                const struct accept_info *info) {
    CHECK(config->n <= UINT8_MAX);
    size_t head = ALIGNED(sizeof(struct net_chain) + config->n * sizeof(struct network_filter *));
    const struct network_filter_slot *filters = o->filters ? o->filters : config->filters;
    size_t instances = instances_bytes(filters, config->n);
    struct net_chain *c = xcalloc(1, head + instances + info->server_name.n);
    c->magic = NET_CHAIN_MAGIC;
    c->n = (uint8_t)config->n;
    c->config = config;
    shared_ref_(config->pin);
    c->worker = o->worker;
    c->listener_stats = o->listener_stats;
    c->on_end = o->on_end;
    c->owner = o->owner;
    arena_init(&c->arena_, 0);
    c->conn =
        conn_new_accepted(o->loop, fd, t, config->n == 1 ? &one_filter_ops : &many_filters_ops, c);
    fill_conn(c->conn, config, info);
    fill_info(c, info, (char *)c + head + instances);
    place_filters(c, filters, (char *)c + head);
    if (config->has_discovered) {
        pin_filters(c, filters);
    }
    if (info->passthrough) {
        take_passthrough(c, info->passthrough);
    }
    return c;
}

void net_chain_start(struct net_chain *c) {
    if (c->n == 0) {
        conn_close(c->conn, CONN_CLOSE_NO_FLUSH, NULL);
        return;
    }
    iterate(c, 0);
    if (c->is_closed_) {
        return;
    }
    conn_start(c->conn);
    if (!c->is_closed_) {
        conn_set_transport_timeout(c->conn, c->config->transport_connect_timeout_ms);
    }
}

void net_chain_dump(const struct net_chain *c, struct buf *out) {
    buf_printf(out, "chain '%.*s' of listener '%.*s' started %u of %u%s%s filters",
               SV_ARG(c->config->name), SV_ARG(c->config->listener_name), c->started_, c->n,
               c->is_draining ? " draining" : "", c->is_closed_ ? " closed" : "");
    for (unsigned i = 0; i < c->n; i++) {
        buf_printf(out, " %s", c->filters_[i]->type->name);
    }
    buf_lit(out, "\n");
    if (!c->is_closed_) {
        conn_dump(c->conn, out);
    }
}

/* ---- what filters ask ---- */

bool net_is_alone(const struct network_filter *f) {
    const struct net_chain *c = f->chain;
    for (unsigned i = 0; i < c->n; i++) {
        const struct network_filter_type *t = c->filters_[i]->type;
        if (i != f->index_ && (t->on_data || t->on_write)) {
            return false;
        }
    }
    return true;
}

struct worker *net_worker(const struct network_filter *f) {
    return f->chain->worker;
}
const struct conn_info *net_conn_info(const struct network_filter *f) { return &f->chain->cx; }
struct conn_info *net_conn_info_mut(struct network_filter *f) {
    return &f->chain->cx;
}
struct arena *net_arena(const struct network_filter *f) {
    return &f->chain->arena_;
}
bool net_is_draining(const struct network_filter *f) { return f->chain->is_draining; }
struct stream_info *net_stream_info(const struct network_filter *f) {
    return net_chain_info(f->chain);
}

struct filter_state *net_filter_state(const struct network_filter *f) {
    return f->chain->si_ ? f->chain->si_->filter_state : NULL;
}

struct stream_info *net_chain_info(struct net_chain *c) {
    if (!c->si_) {
        struct stream_info *si = arena_new(&c->arena_, struct stream_info);
        si->cx = &c->cx;
        si->id = c->cx.id;
        si->start_us = c->cx.start_us;
        si->loop = c->conn->loop;
        si->start_wall_us = loop_wall_us(c->conn->loop, si->start_us);
        si->requested_server_name = c->cx.server_name;
        si->arena = &c->arena_;
        c->si_ = si;
        c->cx.info = si;
    }
    return c->si_;
}
