/* The event log of outlier detection: one file for all clusters, one JSON object a line.
 * Threads: opened and closed by main around the detectors' life; lines come from their thread.
 * Spec: bootstrap.v3.ClusterManager.outlier_detection, data.cluster.v3.OutlierDetectionEvent. */
#ifndef SLUICE_UPSTREAM_OUTLIER_EVENT_H
#define SLUICE_UPSTREAM_OUTLIER_EVENT_H

#include "proxy/event/loop.h"
#include "proxy/upstream/host.h"

struct diag;
/* False: it can't be opened; the error is in d. */
bool outlier_event_log_open(sv path, struct diag *d);
void outlier_event_log_close(void); /* fine when it was not opened */

struct outlier_event {
    unsigned type; /* data.cluster.v3.OutlierEjectionType; 0 when a host comes back */
    bool is_return, is_enforced;
    sv cluster;
    const struct host *host;
    uint32_t ejections; /* of this host so far */
    bool has_last;      /* it came back, or left, before: */
    uint64_t since_last_s;
    double rate, average, threshold; /* in percent, where the type judges rates */
};
/* Nothing when there is no log. */
void outlier_event_log(struct loop *l, const struct outlier_event *e);

#endif
