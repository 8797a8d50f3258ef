/* The two orders an export walks in. Private to proxy/stats. */
#ifndef SLUICE_STATS_STATS_ITER_H
#define SLUICE_STATS_STATS_ITER_H

#include "proxy/stats/stats_render.h"

#define ITER_BATCH 64 /* stats looked at under one hold of the lock */

/* Does the filter let this full name through? */
bool stats_params_accept(const struct stats_params *p, sv name);

/* By full name. A scope joins when its prefix is reached; those that overlap are merged. */
struct walk_scope;
struct stats_walk {
    struct stats_store *store;
    const struct stats_params *params;
    unsigned kinds;                /* of this pass */
    VEC(struct walk_scope *) open; /* ascending need not hold: the least is searched */
    /* ref'd: last scope of the tree that was looked at; NULL: start */
    struct stats_scope *last;
    bool tree_done;
};
void stats_walk_init(struct stats_walk *w, struct stats_store *s, const struct stats_params *p,
                     unsigned kinds);
void stats_walk_fini(struct stats_walk *w);
/* Call emit for up to ITER_BATCH stats, under the lock. False: the pass has ended. */
bool stats_walk_next(struct stats_walk *w,
                     void (*emit)(void *arg, const struct stats_item *i, sv name), void *arg);

/* By exported metric. */
struct stats_prom {
    struct stats_store *store;
    const struct stats_params *params;
    bool classified;
    bool type_written;
    struct stats_metric *metric; /* ref'd */
    char *name;                  /* as the metric is exposed, heap */
    struct stats_scope *scope;   /* ref'd: last one written; NULL: at the metric's start */
    struct stat_dyn *dyn;        /* last one written, of `scope`; NULL: among cells */
    unsigned cell;
    bool cells_done;
};
void stats_prom_init(struct stats_prom *w, struct stats_store *s, const struct stats_params *p);
void stats_prom_fini(struct stats_prom *w);
bool stats_prom_next(struct stats_prom *w, struct buf *out);

#endif
