/* What main does every stats_flush_interval: latch histograms into "cumulative" and "last
 * interval"; and counter resets.
 * Threads: main. Work is done in slices, the lock is dropped between them. */
#include "proxy/stats/stats_flush.h"

#include "proxy/stats/stats_internal.h"

#define SCOPES_PER_SLICE 64

/* Bring one latch up to date with `now` (a private sum). */
static void latch_update(struct stats_latch *l, struct histogram *now) {
    if (!l->interval) {
        l->interval = histogram_new();
    }
    histogram_copy_sub(l->interval, now, l->cum);
    histogram_free(l->cum);
    l->cum = now;
}

/* Nothing new: the interval becomes empty. */
static void latch_idle(struct stats_latch *l) {
    if (l->interval && histogram_count(l->interval)) {
        histogram_clear(l->interval);
    }
}

/* What thread t recorded; NULL: nothing. */
static const struct histogram *recorded(const struct stats_scope *sc, unsigned t, unsigned i) {
    const struct stats_shard *sh = __atomic_load_n(&sc->shards[t], __ATOMIC_ACQUIRE);
    struct histogram **all = sh ? __atomic_load_n(&sh->hist, __ATOMIC_ACQUIRE) : NULL;
    return all ? __atomic_load_n(&all[i], __ATOMIC_ACQUIRE) : NULL;
}

static void flush_cell(struct stats_scope *sc, unsigned i) {
    uint64_t count = 0;
    for (unsigned t = 0; t < sc->store->threads; t++) {
        const struct histogram *h = recorded(sc, t, i);
        count += h ? histogram_count(h) : 0;
    }
    if (count == 0) {
        return;
    }
    struct stats_ext *e = stats_scope_ext(sc);
    if (!e->latch) {
        e->latch = xnew_array(struct stats_latch, sc->group->n);
    }
    struct stats_latch *l = &e->latch[i];
    if (l->cum && histogram_count(l->cum) == count) {
        latch_idle(l);
        return;
    }
    struct histogram *now = histogram_new();
    for (unsigned t = 0; t < sc->store->threads; t++) {
        const struct histogram *h = recorded(sc, t, i);
        if (h) {
            histogram_merge(now, h);
        }
    }
    latch_update(l, now);
}

static void flush_scope(struct stats_scope *sc) {
    if (sc->shards) {
        for (unsigned i = 0; i < sc->group->n; i++) {
            if (sc->group->defs[i].kind == STAT_HISTOGRAM) {
                flush_cell(sc, i);
            }
        }
    }
    for (size_t i = 0; sc->ext && i < sc->ext->dyns.n; i++) {
        struct stat_dyn *d = sc->ext->dyns.p[i];
        if (!d->hist) {
            continue;
        }
        if (d->latch.cum && histogram_count(d->latch.cum) == histogram_count(d->hist)) {
            latch_idle(&d->latch);
            continue;
        }
        struct histogram *now = histogram_new();
        histogram_merge(now, d->hist);
        latch_update(&d->latch, now);
    }
}

static void reset_scope(struct stats_scope *sc) {
    if (sc->shards) {
        struct stats_ext *e = stats_scope_ext(sc);
        if (!e->base) {
            e->base = xnew_array(uint64_t, sc->group->n);
        }
        for (unsigned i = 0; i < sc->group->n; i++) {
            if (sc->group->defs[i].kind == STAT_COUNTER) {
                e->base[i] += stats_cell_sum(sc, i);
            }
        }
    }
    for (size_t i = 0; sc->ext && i < sc->ext->dyns.n; i++) {
        struct stat_dyn *d = sc->ext->dyns.p[i];
        __atomic_store_n(&d->base, __atomic_load_n(&d->value, __ATOMIC_RELAXED), __ATOMIC_RELAXED);
    }
}

/* Call fn on every scope. The last one seen is held by a ref while the lock is dropped: its key
 * stays ours. */
static void each_scope(struct stats_store *s, void (*fn)(struct stats_scope *sc)) {
    struct stats_scope *at = NULL;
    for (bool more = true; more;) {
        LOCK(s);
        struct stats_scope *last = at;
        struct stats_tree_node *n = at ? stats_tree_after(&s->scopes, at->node.key, at->node.sub)
                                       : stats_tree_first(&s->scopes);
        for (unsigned i = 0; n && i < SCOPES_PER_SLICE; i++) {
            last = scope_of_node(n);
            fn(last);
            n = stats_tree_after(&s->scopes, n->key, n->sub);
        }
        more = n != NULL;
        if (more) {
            scope_ref_locked(last);
        }
        UNLOCK(s);
        stats_scope_unref(at);
        at = more ? last : NULL;
    }
}

void stats_flush(struct stats_store *s) { each_scope(s, flush_scope); }
void stats_reset_counters(struct stats_store *s) { each_scope(s, reset_scope); }

const struct stats_latch *stats_cell_latch(const struct stats_scope *sc, unsigned i) {
    const struct stats_latch *l = sc->ext && sc->ext->latch ? &sc->ext->latch[i] : NULL;
    return l && l->cum ? l : NULL;
}
