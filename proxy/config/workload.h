/* Workloads of the mesh by address, as Istio's control plane tells them: who a peer is that does not
 * introduce itself. A resource keeps its bytes and the addresses in them; what a filter wants to
 * know of a workload it reads when it meets one.
 * Threads: made and added on the config thread; a snapshot is immutable and read by all.
 * Spec: istio.workload.Workload. */
#ifndef SLUICE_CONFIG_WORKLOAD_H
#define SLUICE_CONFIG_WORKLOAD_H

#include "proxy/config/config.h"
#include "proxy/net/addr.h"

struct workload {
    struct addr *addresses; /* without ports */
    unsigned addresses_n;
};

/* r, of RES_WORKLOAD, comes (takes refs) or goes. Before the snapshot is shared. */
void snapshot_add_workload(struct snapshot *s, struct resource *r);
void snapshot_remove_workload(struct snapshot *s, const struct resource *r);
/* Which workload has this IP address: of several (pods of the host's network) the last that came.
 * NULL: none. Borrowed from the snapshot. Any thread. */
const struct resource *snapshot_find_workload(const struct snapshot *s, const struct addr *a);

#endif
