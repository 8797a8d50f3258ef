/* What the parts of a cluster view ask of each other. Not for the request path: that is cluster.h.
 * Threads: worker-local. */
#ifndef SLUICE_UPSTREAM_CLUSTER_VIEW_H
#define SLUICE_UPSTREAM_CLUSTER_VIEW_H

#include "proxy/upstream/cluster.h"

/* Takes over a ref on a host that was made on this worker and is dropped now: requests that pinned
 * earlier may still use it. */
void cluster_view_keep_host(struct cluster_view *v, struct host *h);
const struct codec_stats *cluster_view_codec_stats(struct cluster_view *v, bool is_h2);
/* upstream_rq_time of the internal, external or canary side. */
void cluster_view_record_side(struct cluster_view *v, enum cluster_side side, uint64_t ms);

#endif
