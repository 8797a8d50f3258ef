/* What stats.c, stats_flush.c and the export share: scopes, metrics, their locking. Private to
 * proxy/stats.
 * Threads: everything below is guarded by stats_store.lock unless a comment says otherwise. */
#ifndef SLUICE_STATS_STATS_INTERNAL_H
#define SLUICE_STATS_STATS_INTERNAL_H

#include <pthread.h>

#include "proxy/base/list.h"
#include "proxy/base/map.h"
#include "proxy/base/shared_text.h"
#include "proxy/base/vec.h"
#include "proxy/stats/stats.h"
#include "proxy/stats/stats_config.h"
#include "proxy/stats/stats_tree.h"

/* One exported name after tag extraction ("cluster.upstream_rq_total") of one kind. */
struct stats_metric {
    struct stats_tree_node node; /* key: kind letter + name */
    struct list members;         /* stats_member.node: classes that have it */
    struct list dyns;            /* stat_dyn.metric_node */
    uint32_t refs;               /* members + dyns + walkers that stand on it */
    enum stat_kind kind;
    bool linked; /* in the store's tree */
    char key[];
};
static inline sv metric_name(const struct stats_metric *m) { return sv_skip(m->node.key, 1); }

/* A class: scopes of one group whose cells have the same exported names. */
struct stats_member {
    struct list node; /* stats_metric.members */
    struct stats_class *cls;
    unsigned cell;
};
struct stats_class {
    struct {
        const struct stats_group *group;
        uint64_t hash[2]; /* of all exported names */
    } key;
    struct list scopes; /* stats_scope.class_node */
    uint32_t scopes_n;
    struct stats_metric **metrics; /* [group->n], NULL: rejected */
    /* bitmap: cells whose tags differ from the scope's common ones */
    uint64_t *own_labels;
    struct stats_member members[]; /* [group->n] */
};

/* Cumulative and last interval as of the last flush. */
struct stats_latch {
    struct histogram *cum, *interval;
};
/* What few scopes need. */
struct stats_ext {
    uint64_t *base;            /* [n] counters at the last reset; NULL: none yet */
    uint64_t *flushed;         /* [n] counters as sinks were told last; NULL: never yet */
    struct stats_latch *latch; /* [n]; NULL: no histogram was flushed yet */
    struct map dyn;
    VEC(struct stat_dyn *) dyns;
    struct stat_dyn *overflow[4]; /* by kind: where names past STATS_DYN_MAX go */
};

struct stats_scope {
    struct stats_tree_node node; /* key: prefix, sub: group */
    struct stats_store *store;
    const struct stats_group *group;
    struct stats_shard **shards; /* [store->threads]; shared, atomic; NULL until one is used */
    struct stats_shard *front;   /* of front_n cells; shared, atomic; NULL until used */
    struct stats_ext *ext;       /* NULL until needed */
    struct shared_text *text;    /* of the group's only text; NULL: not set */
    const void *source;          /* of computed gauges; NULL: they are not shown */
    /* explicit tags, behind the bytes; NULL: default rules */
    struct stats_tag *tags;
    struct list class_node;  /* in its class, or in stats_store.unclassified; guarded */
    struct stats_class *cls; /* NULL until the first tagged export */
    char *labels;            /* rendered common labels, with cls */
    uint64_t *rejected;      /* bitmap of cells the stats matcher refuses; NULL: none */
    uint32_t refs;           /* shared, atomic */
    uint16_t tags_n;
    /* length of the tag-extracted prefix, which follows the prefix in bytes */
    uint16_t tag_prefix_n;
    bool admitted; /* `rejected` is computed */
    char bytes[];  /* prefix, then tag prefix */
};

struct stat_dyn {
    uint64_t value;   /* shared, atomic */
    uint64_t base;    /* counter at the last reset */
    uint64_t flushed; /* counter as sinks were told last */
    uint8_t kind;
    bool used; /* gauge was set; shared, atomic */
    bool admitted, rejected;
    struct stats_scope *scope;
    struct histogram *hist; /* guarded by the lock */
    struct stats_latch latch;
    struct list metric_node;
    struct stats_metric *metric; /* NULL until the first tagged export */
    sv name;
    char bytes[];
};

struct stats_order {
    const struct stats_group *group;
    unsigned kinds;  /* bit per stat_kind */
    uint16_t *cells; /* [group->n] by name */
};
struct stats_store {
    unsigned threads;
    pthread_mutex_t lock;
    struct stats_tree scopes;
    struct stats_tree metrics;
    struct list unclassified;      /* stats_scope.class_node */
    struct map classes;            /* by stats_class.key */
    struct shared_text *last_text; /* given to a scope; NULL: none yet */
    /* first tokens that are dropped instead of prefixed in exposition formats */
    VEC(sv) namespaces;
    VEC(sv) tag_names;               /* of scopes' own tags, each once */
    VEC(struct stat_dyn *) new_dyns; /* dynamic stats without a metric, of classified scopes */
    VEC(struct stats_order) orders;
    const struct stats_config *config; /* immutable once set; NULL: all defaults */
};

#define STATS_FULL_MAX 4096 /* prefix, tag prefix and name of what is looked at for tags */
#define LOCK(s) pthread_mutex_lock(&(s)->lock)
#define UNLOCK(s) pthread_mutex_unlock(&(s)->lock)

static inline struct stats_scope *scope_of_node(struct stats_tree_node *n) {
    return CONTAINER_OF(n, struct stats_scope, node);
}
static inline sv scope_prefix(const struct stats_scope *sc) { return sc->node.key; }
static inline sv scope_tag_prefix(const struct stats_scope *sc) {
    return (sv){sc->bytes + sc->node.key.n, sc->tag_prefix_n};
}
/* Ref a scope that is in the tree; the lock is held. */
static inline struct stats_scope *scope_ref_locked(struct stats_scope *sc) {
    __atomic_add_fetch(&sc->refs, 1, __ATOMIC_RELAXED);
    return sc;
}
struct stats_ext *stats_scope_ext(struct stats_scope *sc); /* lock held */
static inline bool stats_is_computed(const struct stats_group *g, unsigned i) {
    return i >= g->n - g->computed_n;
}
/* Is there a value to show? Lock held. */
bool stats_cell_shown(const struct stats_scope *sc, unsigned i);
/* Sum over threads; for counters since the last reset. */
uint64_t stats_cell_sum(const struct stats_scope *sc, unsigned i);
/* Was it ever touched: a counter not zero, a gauge set, a histogram or text there. */
bool stats_cell_used(const struct stats_scope *sc, unsigned i);
/* Histogram cell as of the last flush. NULL: nothing recorded then. Lock held. */
const struct stats_latch *stats_cell_latch(const struct stats_scope *sc, unsigned i);
/* Cells by name; valid while the lock is held, its cells for ever. Lock held. */
const struct stats_order *stats_group_order(struct stats_store *s, const struct stats_group *g);

/* stats_class.c — names after tag extraction. */
struct stats_tag_set;
/* Tags and left-over name of "<prefix><name>" of a scope. `full` is scratch that must outlive
 * *out. */
void stats_extract(const struct stats_scope *sc, sv name, struct stats_tag_set *out,
                   char full[STATS_FULL_MAX]);
/* {a="b",c="d"} without braces, heap. */
char *stats_labels(const struct stats_tag_set *t);
/* decide which cells the matcher refuses; lock held */
void stats_admit(struct stats_scope *sc);
bool stats_dyn_rejected(struct stat_dyn *d); /* lock held */
/* Give up to `max` scopes and dynamic stats their metrics. Returns whether work is left. Takes the
 * lock. */
bool stats_classify(struct stats_store *s, unsigned max);
void stats_unclassify(struct stats_scope *sc); /* the scope goes away; lock held */
void stats_metric_unref(struct stats_store *s, struct stats_metric *m); /* lock held */

#endif
