/* How stats are named, filtered and bucketed: the plain form of metrics.v3.StatsConfig
 * (config/compile_stats.c makes it).
 * Threads: immutable once given to the store. */
#ifndef SLUICE_STATS_STATS_CONFIG_H
#define SLUICE_STATS_STATS_CONFIG_H

#include "proxy/base/sv.h"

struct stats_store;
struct stats_tags;

/* Any test of a stat's full name. */
struct stats_name_test {
    bool (*match)(const void *arg, sv name);
    const void *arg;
};
enum stats_matcher_kind {
    STATS_ACCEPT_ALL,
    STATS_REJECT_ALL,
    STATS_EXCLUDE_LISTED,
    STATS_INCLUDE_LISTED
};
struct stats_bucket_rule {
    struct stats_name_test test;
    const double *bounds; /* ascending upper bounds */
    unsigned bounds_n;
};
struct stats_config {
    const struct stats_tags *tags; /* NULL: the default rules */
    enum stats_matcher_kind matcher;
    const struct stats_name_test *tests;
    unsigned tests_n;
    const struct stats_bucket_rule *buckets;
    unsigned buckets_n;
};
/* Before the first export; keeps the pointer. */
void stats_store_configure(struct stats_store *s, const struct stats_config *c);
/* Names whose first token is `ns` ("istiocustom") are exported without it and without the "envoy_"
 * lead. Any thread. */
void stats_store_add_namespace(struct stats_store *s, sv ns);
bool stats_config_rejects(const struct stats_config *c, sv name);
/* Bucket bounds of a histogram: the first rule that matches, or Envoy's defaults. c may be NULL. */
const double *stats_config_bounds(const struct stats_config *c, sv name, unsigned *n);

#endif
