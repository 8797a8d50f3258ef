/* Log-linear histogram with two significant decimal digits (as circllhist buckets): one writer,
 * many readers. */
#ifndef SLUICE_STATS_HISTOGRAM_H
#define SLUICE_STATS_HISTOGRAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Fixed memory is taken in pages as ranges are first hit; a histogram of small latencies costs
 * about 1 KB. */
struct histogram;
struct histogram *histogram_new(void);
void histogram_free(struct histogram *h);
void histogram_record(struct histogram *h, uint64_t value); /* the owning thread */
/* Add src's counts to dst; dst private to the caller, src may be written meanwhile (relaxed
 * reads). */
void histogram_merge(struct histogram *dst, const struct histogram *src);
/* interval */
void histogram_copy_sub(struct histogram *dst, const struct histogram *now,
                        const struct histogram *before);
uint64_t histogram_count(const struct histogram *h);
double histogram_sum(const struct histogram *h);
/* q in [0,1]; NaN when empty. Approximates as Envoy's circllhist does. */
double histogram_quantile(const struct histogram *h, double q);
/* The same for n ascending quantiles in one walk. */
void histogram_quantiles(const struct histogram *h, const double *q, unsigned n, double *out);
/* Number of samples in bins that begin at or below bound: of integers, those ≤ bound when it has
 * two significant digits. */
uint64_t histogram_count_below(const struct histogram *h, double bound);
void histogram_clear(struct histogram *h);
/* Walk the bins that have samples in ascending order: unsigned pos = 0; while (histogram_next(h,
 * &pos, &b)) … */
struct histogram_bin {
    double lower, width; /* [lower, lower + width); zero is a bin of width 0 */
    uint64_t count;
};
bool histogram_next(const struct histogram *h, unsigned *pos, struct histogram_bin *out);

#endif
