/* Fetching what a request lacks while its stream waits: from the control plane a virtual host
 * (VHDS), the routes of a scope (SRDS) or a cluster (ODCDS); from a DNS cache a host.
 * Threads: worker-local; equal wants of one worker are one question to the config thread, which
 * asks the server once for all workers. Implemented in server/on_demand.c. */
#ifndef SLUICE_API_ON_DEMAND_H
#define SLUICE_API_ON_DEMAND_H

#include "proxy/api/compile.h"
#include "proxy/base/list.h"

struct worker;
struct config_source;
struct dns_cache;
struct dns_result;

/* Streams of one worker that may wait at a time, and bytes of a name worth asking for. */
#define ON_DEMAND_WAITS_MAX 1024u
#define ON_DEMAND_NAME_MAX 1024u

enum on_demand_kind {
    ON_DEMAND_VIRTUAL_HOST,
    ON_DEMAND_SCOPE,
    ON_DEMAND_CLUSTER,
    ON_DEMAND_DNS_HOST /* by worker_dns_load() */
};
struct on_demand_want {
    enum on_demand_kind kind;
    slot_t slot;                        /* of the route table or the scopes; clusters: SLOT_NONE */
    const struct config_source *source; /* of clusters; else NULL */
    struct dns_cache *cache;            /* of DNS hosts; else NULL */
    sv name; /* the host, the scope's key, the cluster, the DNS host's key */
};
/* A place in the queue, in its owner's memory. */
struct on_demand_wait {
    struct list node; /* private; unlinked when nothing is awaited */
    /* DNS hosts: how it went. A borrow for on_done */
    const struct dns_result *dns;
    /* Once, from the loop, never from inside worker_fetch(): is_found: the worker has it now. */
    void (*on_done)(struct on_demand_wait *w, bool is_found);
};
/* False: too many wait, or the name is too long; nothing was begun. */
bool worker_fetch(struct worker *w, const struct on_demand_want *want,
                  struct on_demand_wait *wait) MUST_USE;
/* on_done will not be called; fine when nothing is awaited. */
void worker_fetch_cancel(struct worker *w, struct on_demand_wait *wait);

#endif
