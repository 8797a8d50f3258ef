/* Periodic latching of histograms, and counter resets. */
#ifndef SLUICE_STATS_STATS_FLUSH_H
#define SLUICE_STATS_STATS_FLUSH_H

struct stats_store;
/* End the current histogram interval: exports show what was recorded up to here. Main, each
 * stats_flush_interval. */
void stats_flush(struct stats_store *s);
/* POST /reset_counters; gauges and histograms stay */
void stats_reset_counters(struct stats_store *s);

#endif
