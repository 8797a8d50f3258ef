/* Subset balancing: see lb_subset.h. Subsets are found by a hash of their criteria. */
#include "proxy/upstream/lb_subset.h"

#include "proxy/base/log.h"
#include "proxy/upstream/host_set.h"

#define NO_SUBSET UINT32_MAX

struct lb_subset {
    const struct metadata_criterion *criteria; /* ascending by key */
    unsigned criteria_n;
    uint64_t hash;
    struct host_set *set; /* one ref */
    uint32_t *members;    /* while building: entries of the whole set, ascending */
    uint32_t members_n, members_cap;
};
struct lb_subsets {
    struct lb_subset *v;
    uint32_t n, cap;
    uint32_t *index; /* open addressing: number + 1 */
    uint32_t index_mask;
    uint32_t dflt; /* number of the default subset; NO_SUBSET: none */
};

/* ---- finding ---- */

static uint64_t hash_of(const struct metadata_criterion *v, unsigned n) {
    uint64_t h = n;
    for (unsigned i = 0; i < n; i++) {
        h = h * 0x9e3779b97f4a7c15u + (sv_hash(v[i].key) ^ v[i].hash);
    }
    return h;
}

static bool same(const struct lb_subset *s, const struct metadata_criterion *v, unsigned n) {
    for (unsigned i = 0; s->criteria_n == n && i < n; i++) {
        if (!sv_eq(s->criteria[i].key, v[i].key) || !kv_eq(&s->criteria[i].value, &v[i].value)) {
            return false;
        }
    }
    return s->criteria_n == n;
}

static uint32_t find(const struct lb_subsets *t, const struct metadata_criterion *v, unsigned n,
                     uint64_t hash) {
    for (uint64_t i = hash & t->index_mask; t->index && t->index[i]; i = (i + 1) & t->index_mask) {
        const struct lb_subset *s = &t->v[t->index[i] - 1];
        if (s->hash == hash && same(s, v, n)) {
            return t->index[i] - 1;
        }
    }
    return NO_SUBSET;
}

/* ---- building ---- */

struct making {
    struct lb_subsets *t;
    const struct subset_config *cfg;
    struct arena *arena;
    uint32_t entry;  /* the host being placed */
    uint32_t placed; /* combinations of its values so far: no more than there may be subsets */
};

static void index_one(struct lb_subsets *t, uint32_t k) {
    uint64_t i = t->v[k].hash & t->index_mask;
    while (t->index[i]) {
        i = (i + 1) & t->index_mask;
    }
    t->index[i] = k + 1;
}

/* The newest one; the index stays at most half full. */
static void index_newest(struct lb_subsets *t) {
    uint32_t cap = t->index ? t->index_mask + 1 : 0;
    if (t->n * 2 <= cap) {
        index_one(t, t->n - 1);
        return;
    }
    cap = cap ? cap * 2 : 16;
    xfree(t->index);
    t->index = xnew_array(uint32_t, cap);
    t->index_mask = cap - 1;
    for (uint32_t k = 0; k < t->n; k++) {
        index_one(t, k);
    }
}

static struct lb_subset *push(struct lb_subsets *t) {
    if (t->n == t->cap) {
        t->cap = t->cap ? t->cap * 2 : 8;
        t->v = xreallocarray(t->v, t->cap, sizeof(*t->v));
    }
    t->v[t->n] = (struct lb_subset){0};
    return &t->v[t->n++];
}

static void add_member(struct lb_subset *s, uint32_t entry) {
    if (s->members_n && s->members[s->members_n - 1] == entry) {
        return; /* a list that has a value twice */
    }
    if (s->members_n == s->members_cap) {
        s->members_cap = s->members_cap ? s->members_cap * 2 : 4;
        s->members = xreallocarray(s->members, s->members_cap, sizeof(*s->members));
    }
    s->members[s->members_n++] = entry;
}

static void too_many(void) {
    log_warn_limited(LOG_upstream, "a cluster has more than %u subsets", LB_SUBSETS_MAX);
}

static void place(struct making *m, const struct metadata_criterion *v, unsigned n) {
    m->placed++;
    uint64_t hash = hash_of(v, n);
    uint32_t k = find(m->t, v, n, hash);
    if (k == NO_SUBSET) {
        if (m->t->n >= LB_SUBSETS_MAX) {
            too_many();
            return;
        }
        k = m->t->n;
        struct lb_subset *s = push(m->t);
        struct metadata_criterion *own = arena_new_array(m->arena, struct metadata_criterion, n);
        memcpy(own, v, n * sizeof(*v)); /* values are the host's, which the set keeps */
        *s = (struct lb_subset){.criteria = own, .criteria_n = n, .hash = hash};
        index_newest(m->t);
    }
    add_member(&m->t->v[k], m->entry);
}

/* Every combination of values from key i on: a list may stand for each of its items. */
static void place_from(struct making *m, const struct subset_selector *s,
                       const struct kv_value *metadata, struct metadata_criterion *v, unsigned i) {
    if (m->placed == LB_SUBSETS_MAX) { /* lists of a few keys make millions */
        too_many();
        return;
    }
    if (i == s->keys_n) {
        place(m, v, i);
        return;
    }
    const struct kv_value *have = kv_get(metadata, s->keys[i]);
    if (have->kind != KV_LIST || !m->cfg->list_as_any) {
        v[i] = (struct metadata_criterion){s->keys[i], *have, kv_hash(have)};
        place_from(m, s, metadata, v, i + 1);
        return;
    }
    for (uint32_t k = 0; k < have->list.n; k++) {
        const struct kv_value *item = &have->list.v[k];
        v[i] = (struct metadata_criterion){s->keys[i], *item, kv_hash(item)};
        place_from(m, s, metadata, v, i + 1);
    }
}

/* Without a value of each key there is no combination, however many the others make. */
static bool has_values(const struct making *m, const struct subset_selector *s,
                       const struct kv_value *metadata) {
    for (unsigned i = 0; i < s->keys_n; i++) {
        const struct kv_value *have = kv_get(metadata, s->keys[i]);
        if (!have || (have->kind == KV_LIST && m->cfg->list_as_any && !have->list.n)) {
            return false;
        }
    }
    return true;
}

static const struct kv_value *lb_metadata(const struct host *h) {
    const struct kv_value *v =
        h->metadata ? kv_metadata_namespace(h->metadata, SV("envoy.lb")) : NULL;
    return v && v->kind == KV_STRUCT ? v : NULL;
}

static void place_host(struct making *m, const struct host *h) {
    struct metadata_criterion v[LB_SUBSET_KEYS_MAX];
    const struct kv_value *metadata = lb_metadata(h);
    m->placed = 0;
    for (unsigned i = 0; metadata && i < m->cfg->selectors_n; i++) {
        if (has_values(m, &m->cfg->selectors[i], metadata)) {
            place_from(m, &m->cfg->selectors[i], metadata, v, 0);
        }
    }
}

static void place_default(struct making *m, const struct host_set *s) {
    struct lb_subset *d = NULL;
    for (uint32_t i = 0; i < s->hosts_n; i++) {
        if (metadata_match_holds(m->cfg->default_subset, lb_metadata(s->entries[i].host))) {
            d = d ? d : push(m->t);
            add_member(d, i);
        }
    }
    m->t->dflt = d ? m->t->n - 1 : NO_SUBSET;
}

struct lb_subsets *lb_subsets_build(const struct cluster_config *cfg, struct host_set *s) {
    struct lb_subsets *t = arena_new(&s->arena, struct lb_subsets);
    t->dflt = NO_SUBSET;
    struct making m = {.t = t, .cfg = cfg->subsets, .arena = &s->arena};
    for (m.entry = 0; m.entry < s->hosts_n; m.entry++) {
        place_host(&m, s->entries[m.entry].host);
    }
    if (cfg->subsets->default_subset) {
        place_default(&m, s); /* last: it is not found by criteria */
    }
    for (uint32_t i = 0; i < t->n; i++) {
        t->v[i].set = host_set_subset(cfg, s, t->v[i].members, t->v[i].members_n);
        xfree(t->v[i].members);
        t->v[i].members = NULL;
    }
    return t;
}

void lb_subsets_free(struct lb_subsets *t) {
    for (uint32_t i = 0; t && i < t->n; i++) {
        shared_unref(&t->v[i].set->shared);
    }
    if (t) {
        xfree(t->v);
        xfree(t->index);
    }
}

unsigned lb_subsets_count(const struct lb_subsets *t) { return t ? t->n : 0; }

unsigned lb_subsets_new(const struct lb_subsets *t, const struct lb_subsets *other) {
    unsigned n = 0;
    for (uint32_t i = 0; t && i < t->n; i++) {
        const struct lb_subset *s = &t->v[i];
        n += i != t->dflt &&
             (!other || find(other, s->criteria, s->criteria_n, s->hash) == NO_SUBSET);
    }
    return n;
}

const struct host_set *lb_subset_hosts(const struct lb_subsets *t, uint32_t number) {
    return t->v[number].set;
}

/* ---- choosing ---- */

static const struct subset_selector *selector_of(const struct subset_config *c,
                                                 const struct metadata_criterion *v, unsigned n) {
    for (unsigned i = 0; i < c->selectors_n; i++) {
        const struct subset_selector *s = &c->selectors[i];
        unsigned k = 0;
        while (k < n && s->keys_n == n && sv_eq(s->keys[k], v[k].key)) {
            k++;
        }
        if (s->keys_n == n && k == n) {
            return s;
        }
    }
    return NULL;
}

static unsigned keep_keys(const struct subset_selector *s, struct metadata_criterion *v,
                          unsigned n) {
    unsigned kept = 0;
    for (unsigned i = 0, k = 0; i < n && k < s->fallback_keys_n; i++) {
        if (sv_eq(v[i].key, s->fallback_keys[k])) {
            v[kept++] = v[i];
            k++;
        }
    }
    return kept;
}

static uint32_t dflt_of(const struct lb_subsets *t) {
    return t->dflt == NO_SUBSET ? LB_SUBSET_NONE : t->dflt;
}

static uint32_t cluster_fallback(const struct subset_config *c, const struct lb_subsets *t,
                                 struct stats_shard *st) {
    if (c->fallback == SUBSET_FALLBACK_ANY ||
        (c->fallback == SUBSET_FALLBACK_DEFAULT && t->dflt != NO_SUBSET)) {
        stats_inc(st, CLUSTER_lb_subsets_fallback);
        return c->fallback == SUBSET_FALLBACK_ANY ? LB_SUBSET_ALL : t->dflt;
    }
    if (c->panic_mode_any && c->fallback != SUBSET_FALLBACK_NONE) {
        stats_inc(st, CLUSTER_lb_subsets_fallback_panic);
        return LB_SUBSET_ALL;
    }
    return LB_SUBSET_NONE;
}

uint32_t lb_subset_choose(const struct subset_config *c, const struct lb_subsets *t,
                          const struct metadata_match *m, struct stats_shard *st) {
    struct metadata_criterion v[LB_SUBSET_KEYS_MAX];
    unsigned n = m ? m->n : 0;
    if (n > LB_SUBSET_KEYS_MAX) {
        return cluster_fallback(c, t, st); /* no selector has as many keys */
    }
    for (unsigned i = 0; i < n; i++) {
        v[i] = m->v[i];
    }
    while (n) { /* each turn has fewer criteria */
        uint32_t k = find(t, v, n, hash_of(v, n));
        if (k != NO_SUBSET) {
            stats_inc(st, CLUSTER_lb_subsets_selected);
            return k;
        }
        const struct subset_selector *s = selector_of(c, v, n);
        if (!s || s->fallback == SUBSET_FALLBACK_CLUSTER) {
            break;
        }
        if (s->fallback != SUBSET_FALLBACK_KEYS) {
            return s->fallback == SUBSET_FALLBACK_ANY       ? LB_SUBSET_ALL
                   : s->fallback == SUBSET_FALLBACK_DEFAULT ? dflt_of(t)
                                                            : LB_SUBSET_NONE;
        }
        n = keep_keys(s, v, n);
    }
    return cluster_fallback(c, t, st);
}
