/* What load reports have told: the difference between a cluster's counts now and at its last
 * report, as one ClusterStats message.
 * Threads: the config thread; counts are the atomics of hosts and clusters, which workers bump
 * without locks.
 * Spec: config.endpoint.v3 ClusterStats, UpstreamLocalityStats, UpstreamEndpointStats. Not here:
 * the stream, intervals and which clusters are asked for (lrs.c). */
#ifndef SLUICE_XDS_LRS_BOOK_H
#define SLUICE_XDS_LRS_BOOK_H

#include "proxy/base/map.h"
#include "proxy/upstream/cluster.h"

struct lrs_book;
struct lrs_book *lrs_book_new(void);
void lrs_book_free(struct lrs_book *b);

/* A cluster as it is now; all borrowed for the call. */
struct lrs_cluster {
    const struct cluster_config *cfg;
    struct shared *cfg_pin; /* the resource that owns cfg: kept while its counts are remembered */
    const struct host_set *hosts; /* NULL: none */
    sv drop_category;             /* of policy.drop_overloads; empty: none */
};
/* Forget what was remembered of clusters for which `keep` says no. */
void lrs_book_keep(struct lrs_book *b, bool (*keep)(void *user, sv name), void *user);
/* From now on counts are of interest; nothing happens when they are already. now_us: monotonic. */
void lrs_book_begin(struct lrs_book *b, const struct lrs_cluster *c, uint64_t now_us);
struct lrs_report_options {
    bool with_endpoints;       /* UpstreamEndpointStats too */
    uint64_t now_us, since_us; /* monotonic; since: of a cluster that had not begun */
};
/* The ClusterStats since the last call, or since it began, packed in `a`. A host that has gone is
 * reported as long as it has requests. */
sv lrs_book_report(struct lrs_book *b, const struct lrs_cluster *c,
                   const struct lrs_report_options *o, struct arena *a);

#endif
