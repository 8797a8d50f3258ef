/* A worker thread: its loop, its view of the adopted snapshot (sockets, cluster views, route
 * views), its connections.
 * Threads: everything on the worker's own thread but what says otherwise; others reach it by its
 * mailbox. The lookups that the request path uses are in api/worker.h. */
#ifndef SLUICE_SERVER_WORKER_H
#define SLUICE_SERVER_WORKER_H

#include "proxy/api/worker.h"
#include "proxy/base/map.h"
#include "proxy/base/vec.h"
#include "proxy/config/config.h"
#include "proxy/config/listener.h"
#include "proxy/config/sockets.h"
#include "proxy/net/listener.h"
#include "proxy/server/on_demand.h"

/* Facts all workers share; immutable after start but for the atomics. */
struct worker_shared {
    struct stats_store *stats;
    sv node_id, node_cluster;
    struct addr local_address;
    uint32_t drain_time_ms;
    bool is_drain_immediate;
    uint32_t is_health_failed; /* atomic: /healthcheck/fail */
    uint64_t next_id_block;    /* atomic */
    struct conn_limit global_limit;
    struct on_demand_source on_demand; /* set before workers start */
    /* who takes connections that others accepted (worker_balance.c); NULL: nobody. An entry goes
     * when its worker ends. The lock is held for moments, only by listeners with exact_balance */
    struct worker **peers;
    unsigned peers_n;
    uv_mutex_t peers_lock;
};

struct view_page;
struct worker {
    struct loop loop;
    uv_thread_t thread;
    unsigned index;
    struct worker_shared *shared;
    struct snapshot *snapshot;
    struct snapshot *leaving; /* while one is adopted: the one before. Else NULL */
    /* views by slot, pages made when used */
    struct view_page **cluster_pages, **route_pages, **extension_pages;
    uint64_t clusters_generation; /* clusters and host sets that changed, ever */
    uint32_t cluster_pages_n, route_pages_n, extension_pages_n;
    struct list listeners; /* of struct worker_listener: active */
    VEC(struct worker_listener *) listeners_by_slot;
    struct map listeners_by_address; /* by addr_key; the newest, where several have the address */
    struct map internal_listeners;   /* by name; those that take connections */
    struct list dials;               /* to them, of this turn */
    struct loop_task dials_task;
    /* of struct worker_listener: no longer in the snapshot, connections under way */
    struct list draining;
    struct on_demand on_demand;
    struct list endings; /* of struct worker_ending */
    uint64_t id_next, id_end;
    uint64_t date_s;
    char date[32];
    uint64_t connections;               /* open downstream connections */
    bool is_ending;                     /* its listeners are closed: nothing is adopted any more */
    struct stats_shard *snapshot_stats; /* "config.snapshot." */
    uint64_t adopted_version;           /* shared, atomic: of the snapshot */
    void (*on_adopted)(struct worker *w, uint64_t version); /* worker thread; may be NULL */
};

/* thread_index: of its loop (2 + index; 0 for main's own, which never starts a thread). NULL: no
 * event loop to be had. */
struct worker *worker_new(struct worker_shared *shared, unsigned index, unsigned thread_index);
/* one whose thread was never started, or has ended */
void worker_free(struct worker *w);
int worker_start(struct worker *w) MUST_USE; /* starts the thread */
/* Stop the loop, join, free everything. Main thread. */
void worker_stop_and_free(struct worker *w);
/* Adopt a snapshot (takes a ref through the message). Any thread; in order. */
void worker_publish(struct worker *w, struct snapshot *s);

/* /drain_listeners: what and how. Any thread. */
struct drain_request {
    bool inbound_only, graceful, skip_exit;
};
void worker_drain(struct worker *w, struct drain_request r);

/* --- server/worker_listener.c --- */
#define WORKER_LISTENER_MAGIC 0x11573E4Eu
struct worker_listener {
    uint32_t magic;
    struct list node;
    struct worker *worker;
    struct resource *resource; /* one ref: pins cfg */
    const struct listener_config *cfg;
    struct listener_sockets *sockets; /* one ref; NULL once removed */
    struct listener_sock **socks;     /* [cfg->addresses_n] */
    struct list chains;               /* of struct net_chain */
    struct stats_shard *stats;
    /* listener.<address>.worker_<n>.; the first connection makes it. NULL: none came */
    struct stats_scope *worker_stats;
    uint64_t drain_started_ms; /* 0: not draining */
    bool is_removed;           /* sockets are closed; freed with the last connection */
    struct timer drain_end;
    /* one ref, if sockets were pending at the removal: the last snapshot with their transports.
     * Else NULL */
    struct snapshot *last;
    struct loop_garbage garbage;
};
void worker_listener_add(struct worker *w, struct resource *r, struct listener_sockets *socks);
/* Replace `old` by a listener with the same sockets: connections of equal filter chains stay,
 * others drain. */
void worker_listener_update(struct worker_listener *old, struct resource *r);
/* close sockets, drain connections by drain time */
void worker_listener_remove(struct worker_listener *l);
struct worker_listener *worker_listener_find(struct worker *w, slot_t slot);
/* Should a response now ask the client to leave? Gradual drains answer by chance. */
bool worker_listener_drains(struct worker_listener *l, struct rng *rng);
void worker_listener_start_drain(struct worker_listener *l, bool stop_accepting);
void worker_listener_free_now(struct worker_listener *l); /* at the end of the process */

/* --- server/worker_internal.c --- */
void worker_internal_init(struct worker *w);
void worker_internal_fini(struct worker *w);

/* --- server/worker_balance.c --- */
/* Before the workers are made, and after they are gone; who makes them enters them in s->peers. */
void worker_share_peers(struct worker_shared *s, unsigned n);
void worker_unshare_peers(struct worker_shared *s);
void worker_leave_peers(struct worker *w); /* from now on nothing is given to it */
/* listener_sock_ops.give_away */
bool worker_give_away(struct listener_sock *sock, const struct accept_info *info);

#endif
