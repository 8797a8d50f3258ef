/* Walks all stats in order of their full names without ever holding more than the scopes that
 * overlap there: scopes are read from the tree by prefix, and one joins as soon as no smaller name
 * can come before it.
 * Threads: one walker each; the store's lock is taken per batch. */
#include <stdlib.h>

#include "proxy/stats/stats_iter.h"

struct walk_scope {
    struct stats_scope *scope; /* ref'd */
    const uint16_t *order;
    unsigned cell;          /* next index into order */
    struct stat_dyn **dyns; /* sorted; NULL: none */
    size_t dyns_n, dyn;
    struct stats_item item; /* the next stat */
    char *name;             /* its full name */
    size_t name_n, name_cap;
};

void stats_walk_init(struct stats_walk *w, struct stats_store *s, const struct stats_params *p,
                     unsigned kinds) {
    *w = (struct stats_walk){.store = s, .params = p, .kinds = kinds, .tree_done = kinds == 0};
}

static void walk_scope_free(struct walk_scope *ws) {
    xfree(ws->dyns);
    xfree(ws->name);
    xfree(ws);
}

void stats_walk_fini(struct stats_walk *w) {
    for (size_t i = 0; i < w->open.n; i++) {
        stats_scope_unref(w->open.p[i]->scope);
        walk_scope_free(w->open.p[i]);
    }
    vec_fini(&w->open);
    stats_scope_unref(w->last);
    w->last = NULL;
}

static bool is_wanted(const struct stats_walk *w, const struct stats_item *i) {
    if (!(w->kinds >> stats_item_kind(i) & 1)) {
        return false;
    }
    return !w->params->used_only || stats_item_used(i);
}

static void set_name(struct walk_scope *ws) {
    sv prefix = scope_prefix(ws->scope), name = stats_item_name(&ws->item);
    if (ws->name_cap < prefix.n + name.n) {
        ws->name_cap = prefix.n + name.n + 64;
        ws->name = xrealloc(ws->name, ws->name_cap);
    }
    if (prefix.n) {
        memcpy(ws->name, prefix.p, prefix.n);
    }
    memcpy(ws->name + prefix.n, name.p, name.n);
    ws->name_n = prefix.n + name.n;
}

static bool next_cell(const struct stats_walk *w, struct walk_scope *ws, struct stats_item *out) {
    const struct stats_scope *sc = ws->scope;
    for (; ws->cell < sc->group->n; ws->cell++) {
        unsigned i = ws->order[ws->cell];
        *out = (struct stats_item){.scope = sc, .cell = i};
        bool rejected = sc->rejected && sc->rejected[i >> 6] >> (i & 63) & 1;
        if (!rejected && is_wanted(w, out) && stats_cell_shown(sc, i)) {
            return true;
        }
    }
    return false;
}

static bool next_dyn(const struct stats_walk *w, struct walk_scope *ws, struct stats_item *out) {
    for (; ws->dyn < ws->dyns_n; ws->dyn++) {
        struct stat_dyn *d = ws->dyns[ws->dyn];
        *out = (struct stats_item){.scope = ws->scope, .dyn = d};
        if (!stats_dyn_rejected(d) && is_wanted(w, out)) {
            return true;
        }
    }
    return false;
}

/* Move to the scope's next stat, cells and dynamic ones merged by name. False: none is left. */
static bool advance(const struct stats_walk *w, struct walk_scope *ws) {
    struct stats_item cell, dyn;
    bool have_cell = next_cell(w, ws, &cell), have_dyn = next_dyn(w, ws, &dyn);
    if (!have_cell && !have_dyn) {
        return false;
    }
    if (have_cell && (!have_dyn || sv_cmp(stats_item_name(&cell), stats_item_name(&dyn)) <= 0)) {
        ws->item = cell;
        ws->cell++;
    } else {
        ws->item = dyn;
        ws->dyn++;
    }
    set_name(ws);
    return true;
}

static int by_dyn_name(const void *a, const void *b) {
    return sv_cmp((*(struct stat_dyn *const *)a)->name, (*(struct stat_dyn *const *)b)->name);
}

/* Take a scope into the walk when it has anything to say. Lock held. */
static void join(struct stats_walk *w, struct stats_scope *sc) {
    const struct stats_order *o = stats_group_order(w->store, sc->group);
    size_t dyns = sc->ext ? sc->ext->dyns.n : 0;
    if ((!(o->kinds & w->kinds) ||
         (w->params->used_only && !sc->shards && !sc->front && !sc->ext)) &&
        !dyns) {
        return;
    }
    stats_admit(sc);
    struct walk_scope *ws = xnew(struct walk_scope);
    ws->scope = sc;
    ws->order = o->cells;
    if (dyns) {
        ws->dyns = xmemdup(sc->ext->dyns.p, dyns * sizeof(*ws->dyns));
        ws->dyns_n = dyns;
        qsort(ws->dyns, dyns, sizeof(*ws->dyns), by_dyn_name);
    }
    if (!advance(w, ws)) {
        walk_scope_free(ws);
        return;
    }
    scope_ref_locked(sc);
    *vec_push(&w->open) = ws;
}

static struct walk_scope *least(const struct stats_walk *w, size_t *at) {
    struct walk_scope *best = NULL;
    for (size_t i = 0; i < w->open.n; i++) {
        struct walk_scope *ws = w->open.p[i];
        if (!best || sv_cmp(sv_from(ws->name, ws->name_n), sv_from(best->name, best->name_n)) < 0) {
            best = ws;
            *at = i;
        }
    }
    return best;
}

static struct stats_scope *tree_next(const struct stats_walk *w, const struct stats_scope *after) {
    struct stats_tree_node *n =
        after ? stats_tree_after(&w->store->scopes, after->node.key, after->node.sub)
              : stats_tree_first(&w->store->scopes);
    return n ? scope_of_node(n) : NULL;
}

/* Under the lock: scopes that are done are handed back in `gone` because dropping a ref may need
 * the lock. */
static bool batch(struct stats_walk *w,
                  void (*emit)(void *arg, const struct stats_item *i, sv name), void *arg,
                  struct stats_scope **gone, unsigned *gone_n, struct stats_scope **last) {
    unsigned budget = ITER_BATCH;
    struct stats_scope *peek = w->tree_done ? NULL : tree_next(w, *last);
    while (budget) {
        size_t at = 0;
        struct walk_scope *ws = least(w, &at);
        if (peek && (!ws || sv_cmp(scope_prefix(peek), sv_from(ws->name, ws->name_n)) <= 0)) {
            join(w, peek);
            *last = peek;
            peek = tree_next(w, peek);
            budget--;
            continue;
        }
        if (!ws) {
            w->tree_done = true;
            return false;
        }
        sv name = sv_from(ws->name, ws->name_n);
        if (stats_params_accept(w->params, name)) {
            emit(arg, &ws->item, name);
        }
        budget--;
        if (!advance(w, ws)) {
            gone[(*gone_n)++] = ws->scope;
            walk_scope_free(ws);
            vec_swap_remove(&w->open, at);
        }
    }
    w->tree_done = !peek;
    return true;
}

bool stats_walk_next(struct stats_walk *w,
                     void (*emit)(void *arg, const struct stats_item *i, sv name), void *arg) {
    struct stats_scope *gone[ITER_BATCH], *last = w->last;
    unsigned gone_n = 0;
    LOCK(w->store);
    bool more = batch(w, emit, arg, gone, &gone_n, &last);
    if (last != w->last) {
        scope_ref_locked(last);
    }
    UNLOCK(w->store);
    if (last != w->last) {
        stats_scope_unref(w->last);
        w->last = last;
    }
    for (unsigned i = 0; i < gone_n; i++) {
        stats_scope_unref(gone[i]);
    }
    return more;
}
