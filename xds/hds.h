/* Health discovery: a control plane names endpoints and how to check them; their health is told to
 * it at its interval.
 * Threads: the config thread; hds_start before its loop runs. Spec: service.health.v3
 * HealthDiscoveryService, bootstrap.v3.Bootstrap.hds_config.
 * Not here: checking (upstream/health_check.c), the stream (service_stream.c). */
#ifndef SLUICE_XDS_HDS_H
#define SLUICE_XDS_HDS_H

#include "xds/store.h"

#define HDS_INTERVAL_DEFAULT_MS 1000u /* of reports, when none is asked for */
#define HDS_INTERVAL_MIN_MS 10u       /* what is asked for below it is taken as this */
#define HDS_CLUSTERS_MAX 10000u       /* in one specifier; more are left out, and told */

#define HDS_STATS(P, C, G, H, T) C(P, errors) C(P, requests) C(P, responses) C(P, updates)
STATS_ENUM(HDS, HDS_STATS);
extern const struct stats_group hds_stats_group; /* "hds_delegate." */

/* What bootstrap_msg (bootstrap.v3.Bootstrap) asks for. False: errors are in d. */
bool hds_start(struct store *s, const void *bootstrap_msg, struct diag *d);
void hds_stop(struct store *s); /* before the store's end */

#endif
