/* A worker's end of a listener: one listening socket (or none), the accept loop, and listener
 * filters on what was accepted until a connection is ready to be given a filter chain.
 * Threads: worker-local; the config is immutable. Spec: listener.v3.Listener, ListenerFilter. */
#ifndef SLUICE_NET_LISTENER_H
#define SLUICE_NET_LISTENER_H

#include "proxy/api/extension.h"
#include "proxy/api/listener_filter.h"
#include "proxy/base/shared.h"
#include "proxy/event/timer.h"
#include "proxy/net/listener_stats.h"

#define LISTENER_FILTERS_TIMEOUT_MS 15000u /* default of listener_filters_timeout */
#define LISTENER_ACCEPTS_MAX 64u           /* per event, when the config does not say */

/* When a listener filter is skipped: listener.v3.ListenerFilterChainMatchPredicate. */
enum listener_predicate_kind {
    LISTENER_PRED_ANY,
    LISTENER_PRED_NOT,
    LISTENER_PRED_OR,
    LISTENER_PRED_AND,
    LISTENER_PRED_PORT
};
struct listener_predicate {
    enum listener_predicate_kind kind;
    unsigned n; /* of `of`; NOT has one */
    const struct listener_predicate *of;
    uint32_t port_start, port_end; /* destination ports [start, end) */
};
bool listener_predicate_match(const struct listener_predicate *p, const struct accept_info *info);

struct listener_filter_slot {
    const struct listener_filter_type *type; /* NULL: what `slot` holds when a socket comes */
    const void *config;
    const struct listener_predicate *disabled; /* NULL: never skipped */
    slot_t slot;                               /* of a discovered filter; else SLOT_NONE */
};

/* A limit on open connections, shared by workers. */
struct conn_limit {
    uint32_t max;     /* 0: none */
    uint32_t active;  /* shared, atomic */
    uint64_t refused; /* shared, atomic: how often it was reached */
};
bool conn_limit_take(struct conn_limit *l); /* false: it is reached. NULL: true */
void conn_limit_give(struct conn_limit *l);

/* exact_balance: a listener's open connections by thread, so that a new one can go to the worker
 * with the fewest. */
struct conn_balance {
    unsigned n;
    uint32_t *active; /* [n], by thread_index; shared, atomic */
};
static inline void conn_balance_count(struct conn_balance *b, unsigned thread, int by) {
    if (b) {
        __atomic_add_fetch(&b->active[thread], (uint32_t)by, __ATOMIC_RELAXED);
    }
}
static inline uint32_t conn_balance_of(const struct conn_balance *b, unsigned thread) {
    return __atomic_load_n(&b->active[thread], __ATOMIC_RELAXED);
}

struct listener_sock_config {
    sv name;
    const struct listener_filter_slot *filters;
    unsigned filters_n;
    bool has_discovered;         /* some filter has no type here */
    uint32_t filters_timeout_ms; /* 0: none */
    bool continue_on_filters_timeout;
    uint32_t accepts_per_event_max;  /* 0: LISTENER_ACCEPTS_MAX */
    struct conn_limit *limit;        /* of this listener; may be NULL */
    struct conn_limit *global_limit; /* of the process; NULL: none, or ignored by this listener */
    struct conn_balance *balance;    /* NULL: who accepts keeps it */
    bool bypasses_overload;          /* bypass_overload_manager; admin's */
    bool is_internal;                /* no socket brings load from outside */
    struct shared *pin;              /* owner of all this; a ref is held. May be NULL */
};

struct listener_sock;
struct listener_sock_ops {
    /* A connection is ready for its filter chain. The fd is the callee's, info is borrowed for the
     * call (copy what is to stay). Once that connection is over, the callee calls
     * listener_conn_done(). May close the listener. */
    void (*on_accepted)(struct listener_sock *l, int fd, struct accept_info *info);
    /* A connection that came here, before anything was done for it: give it to another worker,
     * whose listener_sock_take() gets it. False: it stays here. Needed when the config has a
     * balance. */
    bool (*give_away)(struct listener_sock *l, const struct accept_info *info);
    /* What a discovered filter's slot holds now, with a ref; NULL: nothing. Needed when the config
     * has such filters. */
    struct extension_config *(*discovered)(struct listener_sock *l, slot_t slot);
};

/* fd: a listening socket, taken; -1: bind_to_port is false, only listener_sock_hand() brings
 * connections. `addr` is the bound address, copied (a path is borrowed). `stats` is this worker's
 * shard of listener_stats_group. */
struct listener_sock *listener_sock_new(struct loop *loop,
                                        const struct listener_sock_config *config, int fd,
                                        const struct addr *addr, struct stats_shard *stats,
                                        const struct listener_sock_ops *ops, void *owner);
/* Stop, close the socket and the accepted sockets that listener filters still look at. The memory
 * is freed later. */
void listener_sock_close(struct listener_sock *l);
/* Take the socket away, open, to give it to another listener_sock of the same address; -1: there is
 * none. What was accepted goes on here. */
int listener_sock_release(struct listener_sock *l);
/* Stop or resume accepting (drain, overload); nestable. */
void listener_sock_pause(struct listener_sock *l, bool pause);
/* A connection another listener accepted, its addresses filled in (use_original_dst): this
 * listener's filters run on it, then on_accepted. The fd is taken. */
void listener_sock_hand(struct listener_sock *l, int fd, const struct accept_info *info);
/* One that another worker gave away, of this listener: as listener_sock_hand(), but it stays. */
void listener_sock_take(struct listener_sock *l, const struct accept_info *info);
/* A connection given to on_accepted has ended, on thread `thread`: its place under the limits is
 * free again. */
void listener_conn_done(const struct listener_sock_config *config, unsigned thread);
/* A connection goes on under an update of its listener: there it counts, even past the limit. */
void listener_conn_moved(const struct listener_sock_config *from,
                         const struct listener_sock_config *to, unsigned thread);

const struct addr *listener_sock_addr(const struct listener_sock *l);
void *listener_sock_owner(const struct listener_sock *l);
const struct listener_sock_config *listener_sock_config(const struct listener_sock *l);
bool listener_sock_is_bound(const struct listener_sock *l);
unsigned listener_sock_pending(const struct listener_sock *l); /* sockets under listener filters */

#endif
