/* Statistics: groups of named stats under a prefix, per-thread shards, created when first used. A
 * group is a static table (name, kind); a scope is a group instance under a prefix
 * ("cluster.foo."); a shard is one thread's cells of a scope. The hot path bumps a cell by constant
 * index: no lookup, no lock, no atomic RMW.
 * Threads: scope creation and lookups any thread (mutex, cold); cells have one writer each and are
 * read relaxed.
 * Spec: Envoy's stat names (docs/…/stats), tags, text/JSON/Prometheus forms in
 * stats/stats_export.h. */
#ifndef SLUICE_STATS_STATS_H
#define SLUICE_STATS_STATS_H

#include "proxy/base/buf.h"
#include "proxy/base/sv.h"
#include "proxy/stats/histogram.h"

#define STATS_THREADS_MAX 258 /* main, config, 256 workers */

enum stat_kind { STAT_COUNTER, STAT_GAUGE, STAT_HISTOGRAM, STAT_TEXT };
enum stat_unit { STAT_UNIT_NONE, STAT_UNIT_MS, STAT_UNIT_US, STAT_UNIT_BYTES, STAT_UNIT_PERCENT };

struct stat_def {
    const char *name; /* below the scope's prefix: "upstream_rq_total" */
    enum stat_kind kind;
    enum stat_unit unit; /* histograms */
};
struct stats_group {
    const char *name; /* for debugging: "cluster" */
    const struct stat_def *defs;
    unsigned n; /* cells, ≤ 512 */
    /* The last `computed_n` gauges are not stored: `read` tells their value when somebody looks,
     * from the scope's source. False: not shown (now). They count as used when cell `used_with`
     * does. Called with the store's lock held, on any thread. */
    unsigned computed_n, used_with;
    /* The first `front_n` cells (none of them histograms) are what one thread keeps of every scope,
     * used or not: see stats_front(). */
    unsigned front_n;
    bool (*read)(const void *source, unsigned i, uint64_t *value);
};

struct stats_store;
struct stats_scope;

/* One thread's cells of one scope. Gauges are summed over threads, as signed. */
struct stats_shard {
    struct stats_scope *scope;
    uint64_t *used;          /* bitmap: gauge was set (usedonly shows gauges that were set to 0) */
    struct histogram **hist; /* [n], NULL until first recorded; only histogram cells */
    uint64_t v[];            /* [n] */
};

struct stats_store *stats_store_new(unsigned threads);
unsigned stats_store_threads(const struct stats_store *s);
void stats_store_free(struct stats_store *s);

/* A tag of a scope: stats of the scope carry it in tagged exports, and `name` has the tag's value
 * cut out.
 * Example: prefix "cluster.foo.", tag_prefix "cluster.", tags {"envoy.cluster_name","foo"}. */
struct stats_tag {
    sv name, value;
};
/* Find or create the scope of this group under `prefix` (which ends in '.', or is empty); returns a
 * ref. Two calls with the same prefix and group share the scope and its values. tag_prefix/tags may
 * be empty: then the default tag rules are applied to the full names. Costs ~200 bytes until a
 * shard is used. */
struct stats_scope *stats_scope_get(struct stats_store *s, const struct stats_group *g, sv prefix);
struct stats_scope *stats_scope_get_tagged(struct stats_store *s, const struct stats_group *g,
                                           sv prefix, sv tag_prefix, const struct stats_tag *tags,
                                           unsigned tags_n);
struct stats_scope *stats_scope_ref(struct stats_scope *sc); /* any thread */
/* The last unref removes the scope and its values from the store (stats of removed clusters
 * disappear). Any thread. */
void stats_scope_unref(struct stats_scope *sc);
sv stats_scope_prefix(const struct stats_scope *sc);
struct stats_store *stats_scope_store(const struct stats_scope *sc);
/* What computed gauges are read from, borrowed until it is replaced or forgotten. Any thread. */
void stats_scope_set_source(struct stats_scope *sc, const void *source);
/* Nothing, if it is still this one. */
void stats_scope_forget_source(struct stats_scope *sc, const void *source);
/* This thread's shard, created on first call; valid while the scope is. thread =
 * loop->thread_index. */
struct stats_shard *stats_shard(struct stats_scope *sc, unsigned thread);
/* A shard of the group's first front_n cells only, for the one thread that counts something in
 * scopes by the ten thousand (the config thread); cells past front_n must not be touched. Counted
 * with the threads' full shards. */
struct stats_shard *stats_front(struct stats_scope *sc);

/* --- hot path: on the shard's own thread only --- */
static inline void stats_add(struct stats_shard *sh, unsigned i, uint64_t n) {
    __atomic_store_n(&sh->v[i], sh->v[i] + n, __ATOMIC_RELAXED);
}
static inline void stats_inc(struct stats_shard *sh, unsigned i) { stats_add(sh, i, 1); }
/* For usedonly: a gauge that was set counts as used even at 0 (a counter: once it was ever bumped
 * or marked). */
static inline void stats_mark_used(struct stats_shard *sh, unsigned i) {
    uint64_t *word = &sh->used[i >> 6], bit = 1ull << (i & 63);
    if (UNLIKELY(!(*word & bit))) {
        __atomic_store_n(word, *word | bit, __ATOMIC_RELAXED);
    }
}
static inline void stats_gauge_add(struct stats_shard *sh, unsigned i, int64_t n) {
    __atomic_store_n(&sh->v[i], sh->v[i] + (uint64_t)n, __ATOMIC_RELAXED);
    stats_mark_used(sh, i);
}
static inline void stats_gauge_inc(struct stats_shard *sh, unsigned i) {
    stats_gauge_add(sh, i, 1);
}
static inline void stats_gauge_dec(struct stats_shard *sh, unsigned i) {
    stats_gauge_add(sh, i, -1);
}
/* Set the sum's contribution of this thread (use one thread per set-style gauge). */
static inline void stats_gauge_set(struct stats_shard *sh, unsigned i, uint64_t v) {
    __atomic_store_n(&sh->v[i], v, __ATOMIC_RELAXED);
    stats_mark_used(sh, i);
}
void stats_record_slow(struct stats_shard *sh, unsigned i, uint64_t value);
static inline void stats_record(struct stats_shard *sh, unsigned i, uint64_t value) {
    if (UNLIKELY(!sh->hist || !sh->hist[i])) {
        stats_record_slow(sh, i, value);
        return;
    }
    histogram_record(sh->hist[i], value);
}
/* A group has one text at most. Any thread, cold. */
void stats_text_set(struct stats_scope *sc, unsigned i, sv text);

/* Merged value now (counters: since the last reset; gauges: signed sum). Any thread. */
uint64_t stats_scope_value(const struct stats_scope *sc, unsigned i);

/* --- stats whose names are only known at run time (status codes, ciphers, grpc methods) --- */
/* A counter or gauge under a scope's prefix; found or created (mutex); lives as long as the scope:
 * cache the pointer. Bounded by STATS_DYN_MAX per scope; past it all names share one "overflowed"
 * stat and a warning is logged once. */
#define STATS_DYN_MAX 4096
struct stat_dyn;
struct stat_dyn *stats_dyn(struct stats_scope *sc, sv name, enum stat_kind kind);
void stat_dyn_add(struct stat_dyn *d, int64_t n); /* any thread, atomic */
void stat_dyn_set(struct stat_dyn *d, uint64_t v);
uint64_t stat_dyn_value(const struct stat_dyn *d);
/* histograms: takes a lock, not for every request */
void stat_dyn_record(struct stat_dyn *d, uint64_t value);
/* Response-code counters "<lead>1xx".."<lead>5xx", "<lead>200"…: cells found by code without a name
 * lookup. */
struct stats_codes;
/* "upstream_rq_"; keeps a scope ref */
struct stats_codes *stats_codes_new(struct stats_scope *sc, const char *lead);
void stats_codes_free(struct stats_codes *c);
/* bumps Nxx and the code; any thread */
void stats_codes_inc(struct stats_codes *c, unsigned code);
void stats_codes_inc_completed(struct stats_codes *c);            /* "<lead>completed" */
void stats_codes_inc_class(struct stats_codes *c, unsigned code); /* only Nxx */

/* X-macro helper: STATS_GROUP(cluster, CLUSTER_STATS) in a .c defines `const struct stats_group
 * cluster_stats_group`; STATS_ENUM(CLUSTER, CLUSTER_STATS) in a header defines enum {
 * CLUSTER_upstream_rq_total, … }.
 * The table: #define FOO_STATS(C, G, H, T) C(name) G(name) H(name, UNIT) T(name) */
#define STATS_C_(p, n) p##_##n,
#define STATS_ENUM(P, TABLE) enum { TABLE(P, STATS_C_, STATS_C_, STATS_H_, STATS_C_) P##_STATS_N }
#define STATS_H_(p, n, u) p##_##n,
#define STATS_DEF_C_(p, n) {#n, STAT_COUNTER, STAT_UNIT_NONE},
#define STATS_DEF_G_(p, n) {#n, STAT_GAUGE, STAT_UNIT_NONE},
#define STATS_DEF_H_(p, n, u) {#n, STAT_HISTOGRAM, STAT_UNIT_##u},
#define STATS_DEF_T_(p, n) {#n, STAT_TEXT, STAT_UNIT_NONE},
#define STATS_GROUP(id, P, TABLE)                                          \
    static const struct stat_def id##_stat_defs[] = {                      \
        TABLE(P, STATS_DEF_C_, STATS_DEF_G_, STATS_DEF_H_, STATS_DEF_T_)}; \
    const struct stats_group id##_stats_group = {                          \
        .name = #id, .defs = id##_stat_defs, .n = ARRAY_LEN(id##_stat_defs)}
/* Tables take (P, C, G, H, T):  #define CLUSTER_STATS(P, C, G, H, T) C(P, upstream_rq_total) H(P,
 * upstream_rq_time, MS) */

#endif
