/* How one stat looks in each format. Private to proxy/stats. */
#ifndef SLUICE_STATS_STATS_RENDER_H
#define SLUICE_STATS_STATS_RENDER_H

#include "proxy/stats/stats_export.h"
#include "proxy/stats/stats_internal.h"

/* A stat picked for output: a cell of a scope, or a dynamic stat. */
struct stats_item {
    const struct stats_scope *scope;
    const struct stat_dyn *dyn; /* NULL: the cell */
    unsigned cell;
};
static inline enum stat_kind stats_item_kind(const struct stats_item *i) {
    return i->dyn ? (enum stat_kind)i->dyn->kind : i->scope->group->defs[i->cell].kind;
}
static inline sv stats_item_name(const struct stats_item *i) {
    return i->dyn ? i->dyn->name : sv_cstr(i->scope->group->defs[i->cell].name);
}
bool stats_item_used(const struct stats_item *i);
uint64_t stats_item_value(const struct stats_item *i);
sv stats_item_text(const struct stats_item *i);
const struct stats_latch *stats_item_latch(const struct stats_item *i); /* NULL: nothing recorded */
double stats_item_scale(const struct stats_item *i); /* what recorded values are divided by */

#define STATS_QUANTILES 10
extern const double stats_quantiles[STATS_QUANTILES];
/* Values of the quantiles, NaN where nothing was recorded. h may be NULL. */
void stats_quantile_values(const struct histogram *h, double scale, double out[STATS_QUANTILES]);

#define STATS_DOUBLE_MAX 40
/* Shortest text that reads back; fixed notation between 1e-4 and 1e16. */
sv stats_double_text(double v, char out[STATS_DOUBLE_MAX]);
/* The shorter one of fixed and scientific notation, "null" when not finite. */
sv stats_double_json(double v, char out[STATS_DOUBLE_MAX]);

/* text, HTML */
void stats_text_line(const struct stats_params *p, const struct stats_item *i, sv name,
                     struct buf *out);
void stats_html_begin(const struct stats_params *p, struct buf *out);
void stats_html_row(const struct stats_params *p, const struct stats_item *i, sv name,
                    struct buf *out);
void stats_html_end(struct buf *out);
/* JSON: items, then histograms inside their own object. */
struct stats_json {
    bool any, in_histograms;
};
void stats_json_begin(struct buf *out);
void stats_json_item(struct stats_json *j, const struct stats_params *p, const struct stats_item *i,
                     sv name, struct buf *out);
void stats_json_end(const struct stats_json *j, const struct stats_params *p, struct buf *out);

#endif
