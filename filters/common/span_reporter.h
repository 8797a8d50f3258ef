/* Spans waiting to be sent to a collector, per worker: batches by count and time, few of them under
 * way at once. Bytes are the tracer's: a span is serialised when it ends.
 * Threads: made on the config thread; each worker has its own part, made when it first reports.
 * Limits: spans_max spans wait (then they are dropped and counted), SPAN_REPORTS_MAX reports are
 * under way. Not here: what a report looks like (filters/tracers). */
#ifndef SLUICE_FILTERS_SPAN_REPORTER_H
#define SLUICE_FILTERS_SPAN_REPORTER_H

#include "proxy/api/upstream_call.h"
#include "proxy/base/shared.h"

#define SPAN_REPORTS_MAX 16u

struct span_reporter;
struct span_report;
struct span_reporter_ops {
    /* Send these; takes `spans`. The call's end is told by span_report_done(). */
    struct upstream_call *(*send)(const void *config, struct worker *w, struct buf *spans,
                                  struct span_report *r);
    void (*sent)(const void *config, struct worker *w, unsigned spans, bool by_timer);
    void (*dropped)(const void *config, struct worker *w, unsigned spans);
};
struct span_reporter_limits {
    sv min_flush_key, interval_key;  /* of the runtime; static */
    uint32_t min_flush, interval_ms; /* when they are not set */
    uint32_t spans_max;
};

/* `config` must live as long as `owner`, of which a ref is held while spans wait or are under
 * way. Freed with the arena. */
struct span_reporter *span_reporter_new(struct arena *a, struct shared *owner,
                                        const struct span_reporter_ops *ops,
                                        const struct span_reporter_limits *limits,
                                        const void *config);
/* One more span; moves the bytes. */
void span_reporter_add(struct span_reporter *r, struct worker *w, struct buf *span);
/* The call that send() began has ended. */
void span_report_done(struct span_report *r);
const void *span_report_config(const struct span_report *r);
struct worker *span_report_worker(const struct span_report *r);

#endif
