/* Accepting, and listener filters: bytes are peeked, edge-triggered, until every filter has seen
 * enough. A socket whose filters can decide at once never costs memory here.
 * Threads: worker-local. Spec: listener.v3.Listener. Not here: choosing the filter chain
 * (chain_match.c), making the sockets (sock.c), limits' configuration. */
#include "proxy/net/listener.h"

#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>

#include "proxy/api/passthrough.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/base/overload.h"
#include "proxy/net/transport.h"

/* before accepting is tried again when fds or memory ran out, or the overload manager stops it */
#define STARVED_PAUSE_MS 50u
#define PRE_CONN_MAGIC 0x9AEC0117u
#define LISTENER_MAGIC 0x115E7E12u

STATS_GROUP(listener, LISTENER, LISTENER_STATS);
STATS_GROUP(listener_worker, LISTENER_WORKER, LISTENER_WORKER_STATS);

/* An accepted socket on its way through the filters. */
struct inspection {
    struct accept_info info;
    struct arena arena;
    const struct listener_filter_slot *filters; /* the config's, or in the arena */
    unsigned filter;                            /* index of the one at work */
    bool hung_up;                               /* the peer will send no more */
    _Alignas(16) char state[LISTENER_FILTER_STATE_BYTES];
};
/* One that waits for bytes. */
struct pre_conn {
    uint32_t magic;
    struct listener_sock *listener;
    struct list node;
    struct io io;
    struct timer timeout;
    struct inspection in;
};
struct listener_sock {
    uint32_t magic;
    int fd;
    struct io io;
    struct loop *loop;
    const struct listener_sock_config *config;
    const struct listener_sock_ops *ops;
    void *owner;
    struct stats_shard *stats;
    struct addr addr;
    struct list pending; /* struct pre_conn */
    unsigned pending_n, paused, batch;
    bool is_starved, is_closed;
    struct timer starved;
    struct loop_garbage garbage;
};

/* ---- limits and predicates ---- */

bool conn_limit_take(struct conn_limit *l) {
    if (!l) {
        return true;
    }
    uint32_t active = __atomic_add_fetch(&l->active, 1, __ATOMIC_RELAXED);
    if (!l->max || active <= l->max) {
        return true;
    }
    conn_limit_give(l);
    __atomic_add_fetch(&l->refused, 1, __ATOMIC_RELAXED);
    return false;
}

void conn_limit_give(struct conn_limit *l) {
    if (l) {
        __atomic_sub_fetch(&l->active, 1, __ATOMIC_RELAXED);
    }
}

void listener_conn_done(const struct listener_sock_config *config, unsigned thread) {
    conn_balance_count(config->balance, thread, -1);
    conn_limit_give(config->limit);
    conn_limit_give(config->global_limit);
}

static void move_place(struct conn_limit *from, struct conn_limit *to) {
    if (to) {
        __atomic_add_fetch(&to->active, 1, __ATOMIC_RELAXED);
    }
    conn_limit_give(from);
}

void listener_conn_moved(const struct listener_sock_config *from,
                         const struct listener_sock_config *to, unsigned thread) {
    conn_balance_count(to->balance, thread, 1);
    conn_balance_count(from->balance, thread, -1);
    move_place(from->limit, to->limit);
    move_place(from->global_limit, to->global_limit);
}

bool listener_predicate_match(const struct listener_predicate *p, const struct accept_info *info) {
    bool is_and = p->kind == LISTENER_PRED_AND;
    switch (p->kind) {
    case LISTENER_PRED_ANY:
        return true;
    case LISTENER_PRED_NOT:
        return !listener_predicate_match(p->of, info);
    case LISTENER_PRED_PORT:
        return info->local.port >= p->port_start && info->local.port < p->port_end;
    case LISTENER_PRED_OR:
    case LISTENER_PRED_AND:
        for (unsigned i = 0; i < p->n; i++) {
            if (listener_predicate_match(&p->of[i], info) != is_and) {
                return !is_and;
            }
        }
        return is_and;
    }
    return false;
}

/* ---- filters ---- */

enum outcome { OUTCOME_DONE, OUTCOME_WAIT, OUTCOME_CLOSE };

/* Bytes at the front of the socket's queue, in the thread's scratch; *end: there will be no more.
 * Negative: errno. */
static ssize_t peek(struct inspection *in, size_t max, sv *bytes, bool *end) {
    struct chunk *scratch = transport_peek_chunk();
    ssize_t n;
    do {
        n = recv(in->info.fd, scratch->data, max < scratch->cap ? max : scratch->cap, MSG_PEEK);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return errno == EAGAIN ? 0 : -errno;
    }
    *bytes = sv_from(scratch->data, (size_t)n);
    *end = n == 0 || in->hung_up;
    return n;
}

/* Take what the filter wants off the socket. It was peeked, so it is there. */
static bool consume(struct inspection *in) {
    while (in->info.consume_bytes) {
        struct chunk *scratch = transport_peek_chunk();
        size_t want = in->info.consume_bytes < scratch->cap ? in->info.consume_bytes : scratch->cap;
        ssize_t n = recv(in->info.fd, scratch->data, want, 0);
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n <= 0) {
            return false;
        }
        in->info.consume_bytes -= (size_t)n;
    }
    return true;
}

static void next_filter(struct inspection *in) {
    in->filter++;
    memset(in->state, 0, sizeof(in->state));
}

static enum outcome fail(struct listener_sock *l, struct inspection *in, unsigned stat,
                         const char *why) {
    stats_inc(l->stats, stat);
    log_debug(LOG_conn_handler, "listener '%.*s': socket closed by listener filter %s: %s",
              SV_ARG(l->config->name), in->filters[in->filter].type->name,
              in->info.reject_reason ? in->info.reject_reason : why);
    return OUTCOME_CLOSE;
}

static enum outcome run_filter(struct listener_sock *l, struct inspection *in,
                               const struct listener_filter_slot *slot) {
    sv bytes = SV_NULL;
    bool end = false;
    size_t max = slot->type->max_peek_bytes;
    if (max) {
        ssize_t n = peek(in, max, &bytes, &end);
        if (n < 0) {
            return fail(l, in, LISTENER_downstream_listener_filter_error, sock_strerror((int)n));
        }
        if (n == 0 && !end) {
            return OUTCOME_WAIT;
        }
    }
    switch (slot->type->on_bytes(slot->config, in->state, &in->info, bytes, end,
                                 l->loop->thread_index)) {
    case LISTENER_FILTER_DONE:
        return consume(in)
                   ? OUTCOME_DONE
                   : fail(l, in, LISTENER_downstream_listener_filter_error, "bytes are gone");
    case LISTENER_FILTER_NEED_DATA:
        if (end) {
            return fail(l, in, LISTENER_downstream_listener_filter_remote_close, "peer closed");
        }
        return bytes.n < max
                   ? OUTCOME_WAIT
                   : fail(l, in, LISTENER_downstream_listener_filter_error, "too many bytes");
    case LISTENER_FILTER_REJECT:
        break;
    }
    return fail(l, in, LISTENER_downstream_listener_filter_error, "rejected");
}

static enum outcome run_filters(struct listener_sock *l, struct inspection *in) {
    while (in->filter < l->config->filters_n) {
        const struct listener_filter_slot *slot = &in->filters[in->filter];
        bool is_skipped = slot->disabled && listener_predicate_match(slot->disabled, &in->info);
        enum outcome o = is_skipped ? OUTCOME_DONE : run_filter(l, in, slot);
        if (o != OUTCOME_DONE) {
            return o;
        }
        next_filter(in);
    }
    return OUTCOME_DONE;
}

static void hand_over(struct listener_sock *l, struct inspection *in) {
    if (!in->info.transport_protocol.n) {
        in->info.transport_protocol = SV("raw_buffer");
    }
    l->ops->on_accepted(l, in->info.fd, &in->info);
}

/* ---- waiting sockets ---- */

static void on_pre_closed(struct io *io) {
    struct pre_conn *p = CONTAINER_OF(io, struct pre_conn, io);
    arena_fini(&p->in.arena);
    xfree(p);
}

/* The socket leaves the list: closed, or (fd kept) handed over. */
static void end_pre_conn(struct pre_conn *p, bool keep_fd) {
    struct listener_sock *l = p->listener;
    timer_cancel(&p->timeout);
    list_unlink(&p->node);
    l->pending_n--;
    stats_gauge_dec(l->stats, LISTENER_downstream_pre_cx_active);
    io_close(&p->io, keep_fd ? -1 : p->in.info.fd, on_pre_closed);
    p->magic = 0;
}

static void settle(struct pre_conn *p, enum outcome o) {
    struct listener_sock *l = p->listener;
    switch (o) {
    case OUTCOME_WAIT:
        return;
    case OUTCOME_DONE:
        end_pre_conn(p, true);
        hand_over(l, &p->in);
        return;
    case OUTCOME_CLOSE:
        listener_conn_done(l->config, l->loop->thread_index);
        end_pre_conn(p, false);
        return;
    }
}

static void on_pre_ready(struct io *io, int events, int status) {
    struct pre_conn *p = CAST(pre_conn, PRE_CONN_MAGIC, CONTAINER_OF(io, struct pre_conn, io));
    if (status < 0) {
        settle(p, fail(p->listener, &p->in, LISTENER_downstream_listener_filter_error,
                       sock_strerror(status)));
        return;
    }
    p->in.hung_up = p->in.hung_up || (events & IO_HANGUP);
    settle(p, run_filters(p->listener, &p->in));
}

static void on_pre_timeout(struct timer *t) {
    struct pre_conn *p = CAST(pre_conn, PRE_CONN_MAGIC, CONTAINER_OF(t, struct pre_conn, timeout));
    stats_inc(p->listener->stats, LISTENER_downstream_pre_cx_timeout);
    settle(p, p->listener->config->continue_on_filters_timeout ? OUTCOME_DONE : OUTCOME_CLOSE);
}

static void wait_for_bytes(struct listener_sock *l, const struct inspection *in) {
    struct pre_conn *p = xnew(struct pre_conn);
    p->magic = PRE_CONN_MAGIC;
    p->listener = l;
    p->in = *in;
    p->in.info.arena = &p->in.arena;
    list_push_back(&l->pending, &p->node);
    l->pending_n++;
    stats_gauge_inc(l->stats, LISTENER_downstream_pre_cx_active);
    timer_init(&p->timeout, l->loop, on_pre_timeout);
    if (l->config->filters_timeout_ms) {
        timer_start(&p->timeout, l->config->filters_timeout_ms);
    }
    CHECK(io_open(&p->io, l->loop, p->in.info.fd, on_pre_ready) == 0);
    io_set_exclusive(&p->io);
    io_want(&p->io, IO_READ | IO_EDGE);
}

static void unref(void *shared) { shared_unref(shared); }

/* The filters for one socket, what is discovered among them as it is now: pinned by the arena.
 * False: one of them has no configuration. */
static bool find_filters(struct listener_sock *l, struct inspection *in) {
    const struct listener_sock_config *c = l->config;
    in->filters = c->filters;
    if (LIKELY(!c->has_discovered)) {
        return true;
    }
    struct listener_filter_slot *v =
        arena_new_array(&in->arena, struct listener_filter_slot, c->filters_n);
    for (unsigned i = 0; i < c->filters_n; i++) {
        v[i] = c->filters[i];
        if (v[i].type) {
            continue;
        }
        struct extension_config *x = l->ops->discovered(l, v[i].slot);
        if (!x) {
            stats_inc(l->stats, LISTENER_extension_config_missing);
            return false;
        }
        arena_on_fini(&in->arena, unref, &x->shared);
        v[i].type = x->listener;
        v[i].config = x->config;
    }
    in->filters = v;
    return true;
}

/* A place under the limits is taken. */
static void inspect(struct listener_sock *l, const struct accept_info *info) {
    struct inspection in = {.info = *info};
    arena_init(&in.arena, 512);
    in.info.arena = &in.arena;
    if (info->passthrough) {
        passthrough_pin(info->passthrough, &in.arena);
    }
    switch (find_filters(l, &in) ? run_filters(l, &in) : OUTCOME_CLOSE) {
    case OUTCOME_WAIT:
        wait_for_bytes(l, &in);
        return; /* the arena went along */
    case OUTCOME_DONE:
        hand_over(l, &in);
        break;
    case OUTCOME_CLOSE:
        close(in.info.fd);
        listener_conn_done(l->config, l->loop->thread_index);
        break;
    }
    arena_fini(&in.arena);
}

/* ---- accepting ---- */

static bool is_overloaded(struct listener_sock *l) {
    struct rng *r = &l->loop->rng;
    return !l->config->bypasses_overload && !l->config->is_internal &&
           (overload_acts(OVERLOAD_TCP_LISTENER_ACCEPT, r) ||
            overload_acts(OVERLOAD_REJECT_INCOMING_CONNECTIONS, r));
}

/* May a connection be taken? Counts why not. */
static bool take_place(struct listener_sock *l) {
    if (!conn_limit_take(l->config->global_limit)) {
        stats_inc(l->stats, LISTENER_downstream_global_cx_overflow);
        return false;
    }
    if (!conn_limit_take(l->config->limit)) {
        stats_inc(l->stats, LISTENER_downstream_cx_overflow);
        conn_limit_give(l->config->global_limit);
        return false;
    }
    conn_balance_count(l->config->balance, l->loop->thread_index, 1);
    if (UNLIKELY(is_overloaded(l))) {
        stats_inc(l->stats, LISTENER_downstream_cx_overload_reject);
        listener_conn_done(l->config, l->loop->thread_index);
        return false;
    }
    return true;
}

static void take(struct listener_sock *l, const struct accept_info *info) {
    if (take_place(l)) {
        inspect(l, info);
    } else {
        close(info->fd);
    }
}

static void arrive(struct listener_sock *l, const struct accept_info *info) {
    if (LIKELY(!l->config->balance) || !l->ops->give_away(l, info)) {
        take(l, info);
    }
}

static void take_socket(struct listener_sock *l, int fd, const struct addr *peer) {
    struct accept_info info = {.fd = fd, .remote = *peer, .direct_remote = *peer, .local = l->addr};
    if (addr_is_any(&l->addr)) {
        (void)sock_local(fd, &info.local); /* fails only for a socket that is gone: reading tells */
    }
    info.direct_local = info.local;
    arrive(l, &info);
}

static void watch(struct listener_sock *l) {
    if (l->io.is_open_) {
        io_want(&l->io, l->paused || l->is_starved ? 0 : IO_READ);
    }
}

static void on_starved_over(struct timer *t) {
    struct listener_sock *l = CONTAINER_OF(t, struct listener_sock, starved);
    l->is_starved = false;
    watch(l);
}

/* Clients wait in the backlog until then. */
static void pause_a_while(struct listener_sock *l) {
    l->is_starved = true;
    timer_start(&l->starved, STARVED_PAUSE_MS);
    watch(l);
}

static void starve(struct listener_sock *l, int error) {
    log_warn_limited(LOG_conn_handler, "listener '%.*s': cannot accept: %s",
                     SV_ARG(l->config->name), sock_strerror(error));
    pause_a_while(l);
}

enum accepted { ACCEPTED_ONE, ACCEPTED_NONE, ACCEPTED_ALL };

static enum accepted accept_one(struct listener_sock *l) {
    struct addr peer;
    int fd = sock_accept(l->fd, &peer);
    if (fd >= 0) {
        take_socket(l, fd, &peer);
        return ACCEPTED_ONE;
    }
    switch (-fd) {
    case EAGAIN:
        return ACCEPTED_ALL;
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
        starve(l, fd);
        return ACCEPTED_ALL;
    default: /* of the connection that would have been: gone, refused by a firewall, … */
        return ACCEPTED_NONE;
    }
}

static void on_acceptable(struct io *io, int events, int status) {
    (void)events;
    struct listener_sock *l =
        CAST(listener_sock, LISTENER_MAGIC, CONTAINER_OF(io, struct listener_sock, io));
    if (status < 0) {
        starve(l, status);
        return;
    }
    if (overload_is_full(OVERLOAD_STOP_ACCEPTING_CONNECTIONS) && !l->config->bypasses_overload) {
        pause_a_while(l);
        return;
    }
    uint32_t max =
        l->config->accepts_per_event_max ? l->config->accepts_per_event_max : LISTENER_ACCEPTS_MAX;
    unsigned tries = l->batch < max ? l->batch : max, got = 0;
    enum accepted a = ACCEPTED_ONE;
    for (unsigned i = 0; i < tries && a != ACCEPTED_ALL; i++) {
        a = accept_one(l);
        got += a == ACCEPTED_ONE;
        if (l->is_closed || l->fd < 0 || l->paused) {
            break;
        }
    }
    /* As many tries as connections tend to come: mostly no accept that finds nothing. The event
     * comes again if more do. */
    if (a == ACCEPTED_ALL) {
        l->batch = l->batch > 1 ? l->batch / 2 : 1;
    } else if (l->batch < max) {
        l->batch *= 2;
    }
    stats_record(l->stats, LISTENER_connections_accepted_per_socket_event, got);
}

void listener_sock_hand(struct listener_sock *l, int fd, const struct accept_info *info) {
    struct accept_info handed = {.fd = fd,
                                 .remote = info->remote,
                                 .local = info->local,
                                 .direct_remote = info->direct_remote,
                                 .direct_local = info->direct_local,
                                 .is_local_restored = info->is_local_restored,
                                 .source = info->source,
                                 .passthrough = info->passthrough};
    if (l->is_closed) {
        close(fd);
    } else {
        arrive(l, &handed);
    }
}

void listener_sock_take(struct listener_sock *l, const struct accept_info *info) {
    if (l->is_closed) {
        close(info->fd);
    } else {
        take(l, info);
    }
}

/* ---- life ---- */

struct listener_sock *listener_sock_new(struct loop *loop,
                                        const struct listener_sock_config *config, int fd,
                                        const struct addr *addr, struct stats_shard *stats,
                                        const struct listener_sock_ops *ops, void *owner) {
    struct listener_sock *l = xnew(struct listener_sock);
    *l = (struct listener_sock){.magic = LISTENER_MAGIC,
                                .fd = fd,
                                .loop = loop,
                                .config = config,
                                .ops = ops,
                                .owner = owner,
                                .stats = stats,
                                .addr = *addr,
                                .batch = 1};
    shared_ref_(config->pin);
    list_init(&l->pending);
    timer_init(&l->starved, loop, on_starved_over);
    if (fd >= 0) {
        CHECK(io_open(&l->io, loop, fd, on_acceptable) == 0);
        watch(l);
    }
    return l;
}

static void free_listener(struct loop_garbage *g) {
    struct listener_sock *l = CONTAINER_OF(g, struct listener_sock, garbage);
    shared_unref(l->config->pin);
    l->magic = 0;
    xfree(l);
}

int listener_sock_release(struct listener_sock *l) {
    int fd = l->fd;
    l->fd = -1;
    timer_cancel(&l->starved);
    if (l->io.is_open_) {
        io_close(&l->io, -1, NULL);
    }
    return fd;
}

void listener_sock_close(struct listener_sock *l) {
    if (l->is_closed) {
        return;
    }
    l->is_closed = true;
    int fd = listener_sock_release(l);
    if (fd >= 0) {
        close(fd);
    }
    LIST_FOREACH_SAFE (n, &l->pending) {
        struct pre_conn *p = LIST_ENTRY(n, struct pre_conn, node);
        listener_conn_done(l->config, l->loop->thread_index);
        end_pre_conn(p, false);
    }
    l->garbage.free = free_listener;
    loop_defer_free(l->loop, &l->garbage);
}

void listener_sock_pause(struct listener_sock *l, bool pause) {
    if (pause) {
        l->paused++;
    } else if (!BUG(l->paused == 0)) {
        l->paused--;
    }
    watch(l);
}

const struct addr *listener_sock_addr(const struct listener_sock *l) { return &l->addr; }
void *listener_sock_owner(const struct listener_sock *l) { return l->owner; }
const struct listener_sock_config *listener_sock_config(const struct listener_sock *l) {
    return l->config;
}
bool listener_sock_is_bound(const struct listener_sock *l) { return l->fd >= 0; }
unsigned listener_sock_pending(const struct listener_sock *l) { return l->pending_n; }
