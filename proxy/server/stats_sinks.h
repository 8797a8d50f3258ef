/* Sinks of stats: statsd and DogStatsD over UDP, sent by main after each flush, some stats in each
 * turn of its loop. Nothing is made when the bootstrap has none.
 * Threads: main. Spec: config.metrics.v3.StatsSink, StatsdSink, DogStatsdSink.
 * Not here: what a line looks like (stats/stats_lines.c). */
#ifndef SLUICE_SERVER_STATS_SINKS_H
#define SLUICE_SERVER_STATS_SINKS_H

#include "proxy/api/compile.h"
#include "proxy/event/loop.h"

#define STATS_SINKS_MAX 16u

struct stats_sinks;
/* msgs: config.metrics.v3.StatsSink; sinks of other kinds are warned about. NULL: there is none to
 * send to, or errors were added. Everything is copied. */
struct stats_sinks *stats_sinks_new(struct compile_ctx *ctx, const void *const *msgs, size_t n,
                                    struct loop *l, struct stats_store *stats);
/* Begin to send what there is now; the last flush being still under way, it is counted and left
 * out. NULL is fine. */
void stats_sinks_flush(struct stats_sinks *s);
/* The process ends: send all there is, at once. NULL is fine. */
void stats_sinks_finish(struct stats_sinks *s);
void stats_sinks_free(struct stats_sinks *s); /* NULL is fine */

#endif
