/* The hosts of a cluster as /config_dump?include_eds shows those that no endpoint discovery told:
 * an assignment, a locality at a time.
 * Threads: main. Spec: endpoint.v3.ClusterLoadAssignment as Envoy dumps it: health as it is now. */
#ifndef SLUICE_SERVER_ADMIN_ENDPOINTS_H
#define SLUICE_SERVER_ADMIN_ENDPOINTS_H

#include "protos/pb_json_slices.h"
#include "proxy/config/config_view.h"

struct host_entry;
/* The cluster that is being written; one at a time. */
struct admin_endpoints {
    const struct host_entry **entries; /* by priority and locality; NULL: none */
    unsigned entries_n, at;
    unsigned priority;
    const struct host_set *hosts;
    struct arena head, locality; /* what is shown of all, of the locality at hand */
};
void admin_endpoints_init(struct admin_endpoints *x);
void admin_endpoints_fini(struct admin_endpoints *x);
/* Has the cluster endpoints of its own: by configuration or DNS? */
bool admin_endpoints_has(const struct view_item *cluster);
/* Begin with a cluster, borrowed until it is written. Returns the assignment's wire bytes without
 * localities, which are `more`; both are good until the next begin. */
sv admin_endpoints_begin(struct admin_endpoints *x, const struct view_item *cluster,
                         struct pb_json_more *more);

#endif
