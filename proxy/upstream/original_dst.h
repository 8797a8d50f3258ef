/* Hosts of an ORIGINAL_DST cluster, made on the worker when a connection or header first names
 * them.
 * Threads: worker-local. Spec: cluster.v3.Cluster.OriginalDstLbConfig, cleanup_interval. */
#ifndef SLUICE_UPSTREAM_ORIGINAL_DST_H
#define SLUICE_UPSTREAM_ORIGINAL_DST_H

#include "proxy/upstream/cluster.h"

/* per worker and cluster; then UH and upstream_cx_none_healthy */
#define ORIGINAL_DST_HOSTS_MAX 65536u

struct original_dst;
struct original_dst *original_dst_new(struct cluster_view *v);
void original_dst_free(struct original_dst *o); /* NULL is fine */
/* The host of the request's destination; NULL: it has none. */
struct host *original_dst_pick(struct original_dst *o, const struct lb_context *ctx,
                               const struct host_entry **entry);

#endif
