/* How long a loop's turns take and how late it is woken: histograms of its thread.
 * Threads: start before the loop runs.
 * Spec: bootstrap.v3.Bootstrap.enable_dispatcher_stats. */
#ifndef SLUICE_SERVER_LOOP_STATS_H
#define SLUICE_SERVER_LOOP_STATS_H

#include "proxy/event/loop.h"
#include "proxy/stats/stats_server.h"

struct loop_stats {
    struct stats_shard *shard;
    uint64_t cpu_us; /* of the thread, at the end of the last turn */
};
/* prefix: with its dot. out lives as long as the loop runs. */
void loop_stats_start(struct loop *l, struct stats_store *stats, const char *prefix,
                      struct loop_stats *out);

#endif
