/* Stats as lines of statsd, for sinks: what changed since the last flush, a slice at a time.
 * Threads: main; the store's lock is taken per slice. The request path knows nothing of it.
 * Spec: Envoy's UdpStatsdSink and its DogStatsD form; metrics.v3.StatsdSink, DogStatsdSink.
 * Not here: sending (server/stats_sinks.c). */
#ifndef SLUICE_STATS_STATS_LINES_H
#define SLUICE_STATS_STATS_LINES_H

#include "proxy/base/buf.h"
#include "proxy/base/sv.h"

struct stats_store;

struct stats_line_form {
    sv prefix;     /* "envoy" */
    bool has_tags; /* names without their tags, which follow as "|#name:value,…" */
};
/* One line, without its end, for the form with that index. Called without the lock. */
typedef void (*stats_line_fn)(void *user, unsigned form, sv line);

struct stats_lines;
/* Begins a flush of counters, gauges and histograms that were used; the store, and what `forms`
 * refers to, outlive it. One flush at a time: what a counter grew by is told once. */
struct stats_lines *stats_lines_new(struct stats_store *s, const struct stats_line_form *forms,
                                    unsigned forms_n, stats_line_fn fn, void *user);
/* Tell of some more stats. False: all were told. */
bool stats_lines_next(struct stats_lines *l);
void stats_lines_free(struct stats_lines *l); /* NULL is fine */

#endif
