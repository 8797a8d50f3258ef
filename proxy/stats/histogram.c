/* Log-linear histograms: 90 bins a decade (two significant digits), plus one bin for zero.
 * Threads: one writer; readers use relaxed loads and see each page after it was published.
 * Spec: the bins, midpoints and quantiles of Envoy's circllhist, so that exported figures agree.
 * Not here: intervals, names, output formats (stats.c, stats_export.c). */
#include "proxy/stats/histogram.h"

#include <math.h>
#include <string.h>

#include "proxy/base/check.h"
#include "proxy/base/mem.h"

#define DECADES 20u         /* 10^0 .. 10^19: all of uint64_t */
#define BINS_PER_DECADE 90u /* leading two digits 10..99 */

struct page {
    uint64_t n[BINS_PER_DECADE];
};
struct histogram {
    uint64_t total_; /* samples */
    uint64_t zero_;
    struct page *pages_[DECADES];
};

static inline uint64_t load(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }
static inline void bump(uint64_t *p, uint64_t n) { __atomic_store_n(p, *p + n, __ATOMIC_RELAXED); }
static inline const struct page *page_of(const struct histogram *h, unsigned decade) {
    return __atomic_load_n(&h->pages_[decade], __ATOMIC_ACQUIRE);
}

struct histogram *histogram_new(void) {
    return xnew(struct histogram);
}

void histogram_free(struct histogram *h) {
    if (!h) {
        return;
    }
    for (unsigned d = 0; d < DECADES; d++) {
        xfree(h->pages_[d]);
    }
    xfree(h);
}

static struct page *page_make(struct histogram *h, unsigned decade) {
    struct page *p = h->pages_[decade];
    if (UNLIKELY(!p)) {
        p = xnew(struct page);
        __atomic_store_n(&h->pages_[decade], p, __ATOMIC_RELEASE);
    }
    return p;
}

void histogram_record(struct histogram *h, uint64_t value) {
    if (value == 0) {
        bump(&h->zero_, 1);
    } else {
        unsigned decade = 0;
        uint64_t lead = value;
        while (lead >= 100) {
            lead /= 10;
            decade++;
        }
        if (lead >= 10) {
            decade++;
        } else {
            lead *= 10;
        }
        ASSERT(decade < DECADES);
        bump(&page_make(h, decade)->n[lead - 10], 1);
    }
    bump(&h->total_, 1);
}

void histogram_merge(struct histogram *dst, const struct histogram *src) {
    uint64_t sum = load(&src->zero_);
    dst->zero_ += sum;
    for (unsigned d = 0; d < DECADES; d++) {
        const struct page *p = page_of(src, d);
        if (!p) {
            continue;
        }
        struct page *to = page_make(dst, d);
        for (unsigned i = 0; i < BINS_PER_DECADE; i++) {
            uint64_t n = load(&p->n[i]);
            to->n[i] += n;
            sum += n;
        }
    }
    dst->total_ += sum; /* of what was read: the writer may be between a bin and its total */
}

void histogram_copy_sub(struct histogram *dst, const struct histogram *now,
                        const struct histogram *before) {
    histogram_clear(dst);
    dst->zero_ = load(&now->zero_) - (before ? before->zero_ : 0);
    uint64_t sum = dst->zero_;
    for (unsigned d = 0; d < DECADES; d++) {
        const struct page *p = page_of(now, d);
        if (!p) {
            continue;
        }
        const struct page *old = before ? before->pages_[d] : NULL;
        struct page *to = page_make(dst, d);
        for (unsigned i = 0; i < BINS_PER_DECADE; i++) {
            to->n[i] = load(&p->n[i]) - (old ? old->n[i] : 0);
            sum += to->n[i];
        }
    }
    dst->total_ = sum;
}

void histogram_clear(struct histogram *h) {
    h->zero_ = 0;
    h->total_ = 0;
    for (unsigned d = 0; d < DECADES; d++) {
        if (h->pages_[d]) {
            memset(h->pages_[d], 0, sizeof(struct page));
        }
    }
}

uint64_t histogram_count(const struct histogram *h) { return load(&h->total_); }

static const double power_of_ten[DECADES + 1] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,
                                                 1e7,  1e8,  1e9,  1e10, 1e11, 1e12, 1e13,
                                                 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20};

static struct histogram_bin bin_at(unsigned decade, unsigned i, uint64_t count) {
    return (struct histogram_bin){
        .lower = (double)(i + 10) / 10.0 * power_of_ten[decade],
        .width = power_of_ten[decade] / 10.0,
        .count = count,
    };
}

bool histogram_next(const struct histogram *h, unsigned *pos, struct histogram_bin *out) {
    if (*pos == 0) {
        *pos = 1;
        uint64_t n = load(&h->zero_);
        if (n) {
            *out = (struct histogram_bin){.count = n};
            return true;
        }
    }
    while (*pos <= DECADES * BINS_PER_DECADE) {
        unsigned at = *pos - 1, d = at / BINS_PER_DECADE;
        const struct page *p = page_of(h, d);
        if (!p) {
            *pos = (d + 1) * BINS_PER_DECADE + 1;
            continue;
        }
        ++*pos;
        uint64_t n = load(&p->n[at % BINS_PER_DECADE]);
        if (n) {
            *out = bin_at(d, at % BINS_PER_DECADE, n);
            return true;
        }
    }
    return false;
}

double histogram_sum(const struct histogram *h) {
    struct histogram_bin b;
    double sum = 0;
    for (unsigned pos = 0; histogram_next(h, &pos, &b);) {
        if (b.width > 0) {
            /* The point with the least relative error over the bin. */
            double top = b.lower + b.width;
            sum += (double)b.count * (b.lower + b.width * (b.lower / (b.lower + top)));
        }
    }
    return sum;
}

void histogram_quantiles(const struct histogram *h, const double *q, unsigned n, double *out) {
    struct histogram_bin b = {0};
    unsigned pos = 0;
    uint64_t total = histogram_count(h), below = 0;
    bool have = total && histogram_next(h, &pos, &b);
    for (unsigned i = 0; i < n; i++) {
        if (!have) {
            out[i] = NAN;
            continue;
        }
        double exact = ceil(q[i] * (double)total);
        uint64_t rank = exact < 1 ? 1 : (uint64_t)exact; /* the rank-th smallest sample */
        while (below + b.count < rank) {
            struct histogram_bin next;
            if (!histogram_next(h, &pos, &next)) {
                break; /* q above 1, or the writer moved on: the last bin */
            }
            below += b.count;
            b = next;
        }
        uint64_t in_bin = rank - below < b.count ? rank - below : b.count;
        out[i] = b.lower + b.width * ((double)in_bin / (double)(b.count + 1));
    }
}

double histogram_quantile(const struct histogram *h, double q) {
    double v;
    histogram_quantiles(h, &q, 1, &v);
    return v;
}

uint64_t histogram_count_below(const struct histogram *h, double bound) {
    struct histogram_bin b;
    uint64_t sum = 0;
    for (unsigned pos = 0; histogram_next(h, &pos, &b);) {
        if (b.lower > bound) {
            break;
        }
        sum += b.count;
    }
    return sum;
}
