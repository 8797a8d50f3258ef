/* Shares of traffic of priorities, of one host set or of several (aggregate clusters).
 * Threads: any; nothing is kept. Spec: Envoy's "Priority levels", "Degraded endpoints", "Panic
 * threshold". */
#ifndef SLUICE_UPSTREAM_HOST_LOAD_H
#define SLUICE_UPSTREAM_HOST_LOAD_H

#include "proxy/upstream/host.h"

/* One priority: what it can take, and what it gets. */
struct host_load {
    const struct host_priority *priority; /* borrowed */
    uint32_t overprovisioning_factor;
    bool weighted_priority_health;
    unsigned health, degraded; /* availability, in percent */
    uint32_t healthy_pct, degraded_pct;
    bool is_panic;
};
/* *l of a set's priority: availability from the health that its hosts have in the set's lists. */
void host_load_take(struct host_load *l, const struct host_set *s, unsigned priority);
/* Shares and panic of n > 0 priorities that were taken, in falling order of preference. panic_pct:
 * below it, of healthy and degraded hosts, a priority is in panic. All shares add up to 100. */
void host_loads_compute(struct host_load *v, unsigned n, uint32_t panic_pct);
/* Shares only. False: no priority has any availability; then none has a share. */
bool host_loads_spread(struct host_load *v, unsigned n);

#endif
