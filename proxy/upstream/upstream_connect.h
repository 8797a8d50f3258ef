/* Getting one ready connection to a host: transport, source address, timeout, further addresses
 * raced (happy eyeballs).
 * Threads: worker-local. Spec: cluster.v3.Cluster.connect_timeout, upstream_bind_config;
 * Endpoint.additional_addresses. */
#ifndef SLUICE_UPSTREAM_UPSTREAM_CONNECT_H
#define SLUICE_UPSTREAM_UPSTREAM_CONNECT_H

#include "proxy/upstream/pool.h"

#define UPSTREAM_CONNECT_RACERS 3u /* connects of one race under way at a time */
/* until the next address is tried beside one that has not answered */
#define UPSTREAM_CONNECT_DELAY_MS 300u

struct upstream_connect;
struct upstream_connect_ops {
    /* c is ready and nobody's: set its ops now. */
    void (*on_connected)(struct upstream_connect *u, struct conn *c);
    /* No address could be connected. `reason` is borrowed for the call. */
    void (*on_failed)(struct upstream_connect *u, enum pool_failure why, sv reason);
};
/* Embedded in what waits for it. */
struct upstream_connect {
    const struct upstream_connect_ops *ops;
    struct cluster_view *view;
    struct host *host;
    const struct transport_options *options;
    const struct sock_source *source;        /* NULL: as the cluster says */
    const struct filter_state *shared_state; /* goes along to internal listeners; NULL: none */
    slot_t transport;
    struct conn *racers[UPSTREAM_CONNECT_RACERS];
    unsigned next; /* address to try next: 0 is the host's own */
    unsigned racers_n;
    uint64_t started_us;
    struct timer timeout, stagger;
};
/* All borrowed until the end. Returns whether it is under way: then a callback comes later, never
 * from inside this call. If not,
 * *why and *reason (borrowed until the next call) tell. Counts nothing: the pools do. */
bool upstream_connect_start(struct upstream_connect *u, enum pool_failure *why, sv *reason);
/* The address connections to `to` leave from: the first configured one of its family. NULL: any. */
const struct addr *upstream_source_for(const struct cluster_config *c, const struct addr *to);
void upstream_connect_cancel(struct upstream_connect *u); /* no callback after; fine when over */

#endif
