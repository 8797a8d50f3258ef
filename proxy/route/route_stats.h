/* Stats of a route or virtual cluster: vhost.<vhost>.route.<stat_prefix>. and
 * vhost.<vhost>.vcluster.<name>. */
#ifndef SLUICE_ROUTE_ROUTE_STATS_H
#define SLUICE_ROUTE_ROUTE_STATS_H

#include "proxy/stats/stats.h"

#define ROUTE_STATS(P, C, G, H, T)         \
    C(P, upstream_rq_completed)            \
    C(P, upstream_rq_retry)                \
    C(P, upstream_rq_retry_limit_exceeded) \
    C(P, upstream_rq_retry_overflow)       \
    C(P, upstream_rq_retry_success)        \
    C(P, upstream_rq_timeout) C(P, upstream_rq_total) H(P, upstream_rq_time, MS)
STATS_ENUM(ROUTE, ROUTE_STATS);
extern const struct stats_group route_stats_group;

#endif
