/* Load reporting: a stream to a control plane that asks for clusters by name and gets their counts
 * at its interval.
 * Threads: the config thread; lrs_start before its loop runs. Spec: service.load_stats.v3
 * LoadReportingService; bootstrap.v3.ClusterManager.load_stats_config,
 * cluster.v3.Cluster.lrs_server. */
#ifndef SLUICE_XDS_LRS_H
#define SLUICE_XDS_LRS_H

#include "xds/store.h"

#define LRS_INTERVAL_MIN_MS 100u  /* what is asked for below it is taken as this */
#define LRS_CLUSTERS_MAX 1000000u /* names in one response; more are left out, and told */
#define LRS_SLICE_CLUSTERS 256u   /* reported in one event */

struct lrs;
/* What the bootstrap (bootstrap.v3.Bootstrap) asks for: its load_stats_config, and clusters with
 * lrs_server: self, which report to its ads_config's server once there is one. False: errors are
 * in d. */
bool lrs_start(struct store *s, const void *bootstrap_msg, struct diag *d);
void lrs_stop(struct store *s); /* before the store's end */
/* A cluster that reports to the server it came from became active (+1) or went (-1). */
void lrs_self_changed(struct store *s, int by);

#endif
