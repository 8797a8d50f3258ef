/* A worker as filters, pools and the request path see it: lookups by slot in the adopted snapshot.
 * Implemented in server/worker.c. Threads: on the worker's own thread only. */
#ifndef SLUICE_API_WORKER_H
#define SLUICE_API_WORKER_H

#include "proxy/api/compile.h"
#include "proxy/event/loop.h"

struct worker;
struct cluster_view;
struct transport_factory;
struct route_table;
struct scope_table;
struct net_chain;

/* A worker's hold on a route table: streams count plainly here, the view holds one atomic ref on
 * the table. */
struct route_view {
    struct route_table *table;
    uint32_t refs;
    bool is_current; /* false: replaced in the snapshot; freed when refs drop to 0 */
};

/* The same for what is discovered (api/extension.h). */
struct extension_config;
struct extension_view {
    struct extension_config *config;
    uint32_t refs;
    bool is_current;
};

/* What is to be given up when the worker's thread ends, while its loop and clusters are still
 * there. */
struct worker_ending {
    struct list node_;
    void (*run)(struct worker_ending *e);
};
void worker_at_end(struct worker *w, struct worker_ending *e); /* idempotent while listed */
static inline void worker_ending_cancel(struct worker_ending *e) { list_unlink(&e->node_); }

struct loop *worker_loop(struct worker *w);
/* The view of the cluster in this slot, made on first use; NULL when the cluster is not in the
 * snapshot. Borrowed for the event; take cluster_view_ref() to keep it. */
struct cluster_view *worker_cluster(struct worker *w, slot_t slot);
/* Changes whenever a cluster or its hosts come, change or go. */
uint64_t worker_clusters_generation(const struct worker *w);
/* cluster_header and the like */
struct cluster_view *worker_cluster_by_name(struct worker *w, sv name);
/* borrowed; NULL: secrets are missing */
struct transport_factory *worker_transport(struct worker *w, slot_t slot);
/* The current table of a route slot with a ref taken; NULL: none yet. */
struct route_view *worker_route(struct worker *w, slot_t slot);
/* The scopes of a slot; NULL: none yet. Borrowed for the event. */
const struct scope_table *worker_scopes(struct worker *w, slot_t slot);
void route_view_unref(struct route_view *v);
/* What Istio's control plane tells of the workload with this IP address; borrowed for the event. */
struct addr;
struct workload_told {
    sv uid;
    sv wire;              /* istio.workload.Workload */
    const uint64_t *hash; /* of wire: two words */
};
bool worker_workload(const struct worker *w, const struct addr *a, struct workload_told *out);
/* A connection to the internal listener of this worker that p->to names, which keeps a ref on p:
 * our end's descriptor, connected; negative errno: there is none, or no descriptors are left. */
struct passthrough;
int worker_dial_internal(struct worker *w, struct passthrough *p);
/* What the slot of a discovered filter holds, with a ref taken; NULL: nothing. */
struct extension_view *worker_extension(struct worker *w, slot_t slot);
void extension_view_unref(struct extension_view *v);
struct stats_store *worker_stats(struct worker *w);
/* Next process-wide unique id for connections and streams (a worker-local block of numbers). */
uint64_t worker_next_id(struct worker *w);
/* The Date header's value, refreshed once a second. */
sv worker_http_date(struct worker *w);
/* /healthcheck/fail, or the connection's listener drains: responses ask clients to leave. Chance
 * decides gradual drains. */
bool worker_drain_close(struct worker *w, const struct net_chain *c);
bool worker_health_failed(const struct worker *w); /* /healthcheck/fail */
/* How many hosts the cluster in this slot has, and how many of them are healthy or degraded. False:
 * there is no such cluster now. */
bool worker_cluster_members(struct worker *w, slot_t slot, unsigned *total, unsigned *usable);
/* Facts of the bootstrap node for x-envoy-downstream-service-* and via; live for ever. */
sv worker_node_id(const struct worker *w);
sv worker_node_cluster(const struct worker *w);
/* The host's own non-loopback address (x-forwarded-for of loopback clients); family 0 when there is
 * none. */
const struct addr *worker_local_address(const struct worker *w);

#endif
