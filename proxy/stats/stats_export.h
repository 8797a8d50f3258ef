/* The stats pages of admin: text, JSON, HTML and Prometheus text, produced piece by piece so that
 * no loop blocks.
 * Threads: one iterator belongs to one thread (main); scopes may come and go meanwhile.
 * Spec: Envoy's GET /stats, /stats/prometheus. */
#ifndef SLUICE_STATS_STATS_EXPORT_H
#define SLUICE_STATS_STATS_EXPORT_H

#include "proxy/stats/stats.h"

struct regex;

enum stats_format { STATS_TEXT, STATS_JSON, STATS_HTML, STATS_PROMETHEUS };
enum stats_buckets {
    STATS_BUCKETS_DEFAULT,
    STATS_BUCKETS_SUMMARY,
    STATS_BUCKETS_CUMULATIVE,
    STATS_BUCKETS_DISJOINT,
    STATS_BUCKETS_DETAILED
};
struct stats_params {
    enum stats_format format;
    unsigned kinds; /* bit per stat_kind */
    enum stats_buckets buckets;
    bool used_only, text_readouts, invert_filter;
    bool is_empty;        /* hidden=only: there are no hidden stats */
    struct regex *filter; /* NULL: all; owned */
};
#define STATS_KINDS_ALL 0xfu

/* From a query string ("usedonly&filter=…", percent-encoded). is_prometheus: the path is
 * /stats/prometheus.
 * False: *p owns nothing and `err` has the text of the 400 response. */
bool stats_params_parse(struct stats_params *p, sv query, bool is_prometheus, struct buf *err);
void stats_params_fini(struct stats_params *p);
/* "text/plain; charset=UTF-8" … */
const char *stats_content_type(enum stats_format f);

struct stats_iter;
/* Takes over *p (its filter). The store must outlive the iterator. */
struct stats_iter *stats_iter_new(struct stats_store *s, const struct stats_params *p);
/* Append the next piece: stops after about `max_bytes` or 1 ms, whichever comes first; may append
 * nothing while it still prepares. Returns whether there is more. */
bool stats_iter_next(struct stats_iter *it, struct buf *out, size_t max_bytes);
void stats_iter_free(struct stats_iter *it);

#endif
