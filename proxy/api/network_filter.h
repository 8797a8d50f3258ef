/* Network (L4) filters: a chain on each downstream connection, between transport socket and the
 * terminal filter.
 * Spec: listener.v3.Filter, Envoy's Network::ReadFilter/WriteFilter. Threads: config on the config
 * thread, the rest worker-local. */
#ifndef SLUICE_API_NETWORK_FILTER_H
#define SLUICE_API_NETWORK_FILTER_H

#include "proxy/api/compile.h"
#include "proxy/base/buf.h"
#include "proxy/event/timer.h"
#include "proxy/net/conn.h"
#include "proxy/observe/filter_state.h"
#include "proxy/observe/metadata.h"
#include "proxy/observe/stream_info.h"
#include "proxy/stats/stats.h"

struct worker;
struct net_chain; /* the filters of one connection, net/filter_chain.h */
struct stats_shard;

enum net_status { NET_CONTINUE, NET_STOP };

/* An instance on one connection; embedded first in the filter's own struct (type->instance_size
 * bytes, zeroed). */
struct network_filter {
    const struct network_filter_type *type;
    struct net_chain *chain;
    struct conn *conn;  /* the downstream connection */
    const void *config; /* what compile returned; pinned by the chain */
    uint8_t index_;
};

struct network_filter_type {
    const char *name;
    const char *type_url; /* full proto name of the config message */
    bool is_terminal;
    size_t instance_size;
    void *(*compile)(struct compile_ctx *ctx, const void *msg);
    /* The connection is accepted (transport handshake may still run). NET_STOP: no later filter
     * sees it until continued. A filter that was not told of the connection hears nothing of it,
     * not even its end. */
    enum net_status (*on_new_connection)(struct network_filter *f);
    /* NET_STOP: later filters do not see `data`, it stays buffered; terminal filters drain it. */
    enum net_status (*on_data)(struct network_filter *f, struct buf *data, bool end_stream);
    enum net_status (*on_write)(struct network_filter *f, struct buf *data,
                                bool end_stream); /* reverse order; may be NULL */
    void (*on_conn_event)(struct network_filter *f, enum conn_event e); /* may be NULL */
    void (*on_above_write_high)(struct network_filter *f);              /* may be NULL */
    void (*on_below_write_low)(struct network_filter *f);               /* may be NULL */
    /* The listener is draining (removed, or /drain_listeners): finish when convenient. */
    void (*on_drain)(struct network_filter *f); /* may be NULL */
    void (*destroy)(struct network_filter *f);  /* the conn is closed; may be NULL */
    /* In Cluster.filters: a connection to the cluster is ready and nothing was sent on it. The
     * filter may write first, and look at what comes first by conn_set_gate(). It must not close
     * it. NULL: this filter is not for upstreams. */
    void (*on_upstream_ready)(const void *config, struct conn *c, struct worker *w);
};

/* --- what a filter may ask of its chain (net/filter_chain.c) --- */
void net_continue(struct network_filter *f); /* resume after NET_STOP with the buffered data */
/* Through earlier filters' on_write; one that answers NET_STOP has taken what it wants to keep, the
 * rest is dropped. */
void net_write(struct network_filter *f, struct buf *data, bool end_stream);
/* Does no other filter of the chain look at data any more? Then splice may take bytes past the
 * chain. */
bool net_is_alone(const struct network_filter *f);
/* Facts of the connection; lives as long as the chain. */
const struct conn_info *net_conn_info(const struct network_filter *f);
struct conn_info *net_conn_info_mut(struct network_filter *f);
struct worker *net_worker(const struct network_filter *f);
struct stream_info *
net_stream_info(const struct network_filter *f); /* of the connection; made on first use */
/* Filter state of the connection, which its requests inherit; NULL: none yet. */
struct filter_state *net_filter_state(const struct network_filter *f);
struct arena *net_arena(const struct network_filter *f); /* of the connection */
bool net_is_draining(const struct network_filter *f);

#endif
