/* The L4 filters of one downstream connection: instances in one block, driven by the conn's
 * callbacks. Also the connection's facts (conn_info), its stream_info, and its hold on the
 * configuration it began on.
 * Threads: worker-local; the config is immutable. Spec: Envoy's Network::FilterManager. */
#ifndef SLUICE_NET_FILTER_CHAIN_H
#define SLUICE_NET_FILTER_CHAIN_H

#include "proxy/api/listener_filter.h"
#include "proxy/api/network_filter.h"
#include "proxy/base/arena.h"

struct network_filter_slot {
    const struct network_filter_type *type; /* NULL: what `slot` holds when a connection comes */
    const void *config;
    slot_t slot;        /* of a discovered filter; else SLOT_NONE */
    struct shared *pin; /* owner of a discovered filter's config, once it is known; else NULL */
};
/* A compiled filter chain as its connections see it. */
struct net_chain_config {
    const struct network_filter_slot *filters;
    unsigned n;             /* 0: the connection is closed at once */
    bool bypasses_overload; /* as the listener's sockets */
    bool has_discovered;    /* some filter has no type here: net_chain_owner.filters brings it */
    struct shared *pin; /* owner of all this: a ref is held while a connection lives. May be NULL */
    sv name, listener_name;
    uint8_t traffic_direction; /* core.v3.TrafficDirection */
    uint32_t buffer_limit_bytes;
    uint32_t transport_connect_timeout_ms; /* 0: none */
    const struct listener_config *listener;
};

#define NET_CHAIN_MAGIC 0x4E7C4A11u
struct net_chain {
    uint32_t magic;
    uint8_t n, started_; /* filters; those whose on_new_connection was called */
    bool is_draining, is_closed_;
    struct list node; /* for the owner's list of its connections */
    struct conn *conn;
    const struct net_chain_config *config;
    struct worker *worker;
    struct stats_shard *listener_stats;
    /* The connection has ended; filters were told. The chain unlinks itself from no list. */
    void (*on_end)(struct net_chain *c, enum conn_event e);
    void *owner;
    struct conn_info cx;
    struct stream_info *si_;
    struct shared **pins_; /* [n], of discovered filters; NULL: there is none */
    struct arena arena_;
    struct loop_garbage garbage_;
    struct network_filter *filters_[]; /* n, then the instances */
};

/* What a new connection belongs to. */
struct net_chain_owner {
    struct loop *loop;
    struct worker *worker;
    struct stats_shard *listener_stats;
    void (*on_end)(struct net_chain *c, enum conn_event e); /* may be NULL */
    void *owner;
    /* [config->n] with every type known, borrowed for the call; a ref is taken on each pin. NULL:
     * the config's own. */
    const struct network_filter_slot *filters;
};
/* Make the connection of an accepted fd: takes fd and transport, copies what it needs of `info`.
 * Nothing is called before net_chain_start(). */
struct net_chain *net_chain_new(const struct net_chain_owner *o,
                                const struct net_chain_config *config, struct transport *t, int fd,
                                const struct accept_info *info);
/* What is told of the connection; made on first use, lives as long as the chain. */
struct stream_info *net_chain_info(struct net_chain *c);
/* Tell the filters of the new connection, begin the transport handshake and reading. May end the
 * connection: then on_end has been called, and `c` lives until the turn ends. */
void net_chain_start(struct net_chain *c);
/* The listener is draining: each filter is told once. */
void net_chain_drain(struct net_chain *c);
/* Close the connection from outside (drain time is over, overload). */
void net_chain_close(struct net_chain *c, enum conn_close_type how, const char *reason);
void net_chain_dump(const struct net_chain *c, struct buf *out);

#endif
