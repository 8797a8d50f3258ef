/* How long the turns of a thread's loop take, and how late it is woken.
 * Threads: set up before the loop runs; then its own.
 * Spec: bootstrap.v3.Bootstrap.enable_dispatcher_stats. */
#ifndef SLUICE_SERVER_LOOP_STATS_H
#define SLUICE_SERVER_LOOP_STATS_H

#include "proxy/event/loop.h"
#include "proxy/stats/stats_server.h"

/* Histograms loop_duration_us and poll_delay_us below `prefix`, from now on. */
void loop_stats_start(struct loop *l, struct stats_store *stats, const char *prefix);

#endif
