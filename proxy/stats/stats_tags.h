/* Tag extraction: which parts of a stat's full name are labels, and the name that is left without
 * them.
 * Threads: rules are immutable; extraction is reentrant.
 * Spec: Envoy's default tag rules, metrics.v3.TagSpecifier. */
#ifndef SLUICE_STATS_STATS_TAGS_H
#define SLUICE_STATS_STATS_TAGS_H

#include "proxy/stats/stats.h"

#define STATS_TAGS_MAX 32   /* tags of one stat; further ones are left in the name */
#define STATS_NAME_MAX 2048 /* longer names are exported as they are */

struct stats_tags;
struct stats_tag_spec {
    sv name;
    /* group 1 is cut out of the name, group 2 (or else 1) is the value; empty: the default rule of
     * `name` */
    sv regex;
    sv fixed;
    bool is_fixed;
};
/* NULL: what is wrong is in err, in Envoy's words. */
struct stats_tags *stats_tags_new(bool use_defaults, const struct stats_tag_spec *specs, unsigned n,
                                  char *err, size_t err_n);
void stats_tags_free(struct stats_tags *t);
const struct stats_tags *stats_tags_default(void); /* only the default rules; lives for ever */

struct stats_tag_set {
    unsigned n;
    sv name; /* what is left; a view of bytes[] or of the full name */
    /* values are views of the full name or live with the rules */
    struct stats_tag v[STATS_TAGS_MAX];
    char bytes[STATS_NAME_MAX];
};
/* `full` must outlive *out. */
void stats_tags_extract(const struct stats_tags *t, sv full, struct stats_tag_set *out);

#endif
