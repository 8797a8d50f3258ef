/* Host sets from endpoints, and again after health changed: see host_set.h. A set made from
 * endpoints owns entries, index and refs on hosts; sets made after health changed share them
 * (`base`).
 * Threads: the config thread. Not here: loads of priorities (host_load.c), policies' tables
 * (lb_*.c). */
#include "proxy/upstream/host_set.h"

#include <math.h>
#include <stdlib.h>

#include "proxy/base/map.h"
#include "proxy/base/runtime.h"
#include "proxy/base/vec.h"
#include "proxy/upstream/lb.h"
#include "proxy/upstream/lb_subset.h"

#define SET_ARENA_BYTES 1024u /* a small set is one block, trimmed when it is complete */
#define INDEX_MIN_HOSTS 9u    /* fewer are found by walking */

struct item {
    struct host *host; /* a ref */
    uint32_t weight, flags;
    unsigned locality; /* handle */
    uint16_t transport_match;
};
struct place {
    struct locality id;
    uint32_t weight;
    unsigned priority;
    unsigned index; /* in its priority, once sorted */
};
struct host_set_builder {
    const struct cluster_config *cfg;
    const struct host_set *previous;
    uint64_t now_us;
    struct arena arena; /* becomes the set's */
    uint32_t overprovisioning_factor, drop_numerator, drop_denominator, new_flags;
    bool weighted_priority_health, is_checked;
    unsigned priorities_n;
    VEC(struct item) items;
    VEC(struct place) places;
};

struct host_set_builder *host_set_builder_new(const struct cluster_config *cfg,
                                              const struct host_set *previous, uint64_t now_us) {
    struct host_set_builder *b = xnew(struct host_set_builder);
    b->cfg = cfg;
    b->previous = previous;
    b->now_us = now_us;
    b->overprovisioning_factor = 140;
    b->priorities_n = 1; /* priority 0 is always there */
    arena_init(&b->arena, SET_ARENA_BYTES);
    return b;
}

static void free_shell(struct host_set_builder *b) {
    vec_fini(&b->items);
    vec_fini(&b->places);
    xfree(b);
}

void host_set_builder_free(struct host_set_builder *b) {
    if (!b) {
        return;
    }
    for (size_t i = 0; i < b->items.n; i++) {
        shared_unref(&b->items.p[i].host->shared);
    }
    arena_fini(&b->arena);
    free_shell(b);
}

void host_set_builder_policy(struct host_set_builder *b, uint32_t overprovisioning_factor,
                             bool weighted_priority_health) {
    b->overprovisioning_factor = overprovisioning_factor;
    b->weighted_priority_health = weighted_priority_health;
}

void host_set_builder_drop(struct host_set_builder *b, uint32_t numerator, uint32_t denominator) {
    b->drop_numerator = numerator;
    b->drop_denominator = denominator;
}

void host_set_builder_checked(struct host_set_builder *b) {
    b->is_checked = true;
    b->new_flags = HOST_FLAG(FAILED_ACTIVE_HC);
    if (b->cfg->ignore_new_hosts_until_first_hc) {
        b->new_flags |= HOST_FLAG(PENDING_ACTIVE_HC);
    }
}

static sv own_sv(struct host_set_builder *b, sv s) {
    return s.n ? arena_sv(&b->arena, s) : SV_NULL;
}

unsigned host_set_builder_locality(struct host_set_builder *b, unsigned priority,
                                   const struct locality *id, uint32_t weight) {
    if (priority >= b->priorities_n) {
        b->priorities_n = priority + 1;
    }
    struct place *p = vec_push(&b->places);
    p->id = (struct locality){own_sv(b, id->region), own_sv(b, id->zone), own_sv(b, id->sub_zone)};
    p->weight = weight;
    p->priority = priority;
    return (unsigned)b->places.n - 1;
}

/* The previous set's host when the new one would be the same; else *earlier is one that had the
 * address. */
static struct host *reuse(const struct host_set_builder *b, const struct host_spec *spec,
                          const struct host **earlier) {
    if (!b->previous) {
        return NULL;
    }
    if (b->previous->is_by_name) {
        const struct host_entry *named = host_set_find_name(b->previous, spec->hostname);
        return named && host_is(named->host, spec) ? shared_ref(named->host) : NULL;
    }
    const struct host_entry *e = host_set_find(b->previous, &spec->addr);
    for (; e; e = host_set_find_next(b->previous, e)) {
        if (host_is(e->host, spec)) {
            return shared_ref(e->host);
        }
        *earlier = e->host;
    }
    return NULL;
}

void host_set_builder_add(struct host_set_builder *b, unsigned locality,
                          const struct host_spec *spec, uint32_t weight, uint16_t transport_match,
                          uint32_t eds_flags) {
    struct host_spec full = *spec;
    full.locality = b->places.p[locality].id;
    const struct host *earlier = NULL;
    struct item *it = vec_push(&b->items);
    it->host = reuse(b, &full, &earlier);
    if (!it->host) {
        it->host = host_new(&full, b->now_us);
        /* The same address with other facts is as healthy as it was. */
        uint32_t flags = full.health_check_disabled ? 0 : b->new_flags;
        it->host->health_flags = earlier ? host_flags(earlier) & ~HOST_FLAGS_EDS : flags;
    }
    it->weight = weight ? weight : 1;
    it->locality = locality;
    it->transport_match = transport_match;
    it->flags = eds_flags;
}

/* ---- hosts that discovery no longer names, but whose checks pass ---- */

static bool may_stay(const struct host *h) {
    return !h->health_check_disabled &&
           !(host_flags(h) & (HOST_FLAG(FAILED_ACTIVE_HC) | HOST_FLAG(FAILED_EDS_HEALTH)));
}

static void keep(struct host_set_builder *b, unsigned priority, const struct host_entry *e) {
    const struct host_locality *l = &b->previous->priorities[priority].localities[e->locality];
    unsigned handle = host_set_builder_locality(b, priority, &l->id, l->weight);
    struct item *it = vec_push(&b->items);
    *it = (struct item){.host = shared_ref(e->host),
                        .weight = e->weight,
                        .flags = HOST_FLAG(PENDING_DYNAMIC_REMOVAL) |
                                 (host_flags(e->host) & HOST_FLAGS_EDS),
                        .locality = handle,
                        .transport_match = e->transport_match};
}

static void keep_healthy(struct host_set_builder *b) {
    struct map now; /* addresses */
    map_init(&now);
    for (size_t i = 0; i < b->items.n; i++) {
        map_put(&now, b->items.p[i].host->address_text, b);
    }
    for (unsigned p = 0; p < b->previous->priorities_n; p++) {
        const struct host_priority *hp = &b->previous->priorities[p];
        for (unsigned i = 0; i < hp->n; i++) {
            const struct host *h = hp->entries[i].host;
            if (may_stay(h) && !map_get(&now, h->address_text)) {
                keep(b, p, &hp->entries[i]);
            }
        }
    }
    map_fini(&now);
}

/* ---- localities: sorted by id within their priority, as Envoy keeps them ---- */

static int cmp_places(const void *a, const void *b) {
    const struct place *p = *(struct place *const *)a, *q = *(struct place *const *)b;
    if (p->priority != q->priority) {
        return p->priority < q->priority ? -1 : 1;
    }
    int rc = locality_cmp(&p->id, &q->id);
    return rc ? rc : (p < q ? -1 : p > q);
}

static void place_localities(struct host_set_builder *b, struct host_set *s) {
    size_t n = b->places.n;
    struct place **order = xnew_array(struct place *, n);
    for (size_t i = 0; i < n; i++) {
        order[i] = &b->places.p[i];
    }
    qsort(order, n, sizeof(*order), cmp_places);
    struct host_locality *all = arena_new_array(&s->arena, struct host_locality, n);
    size_t used = 0;
    const struct place *last = NULL;
    for (size_t i = 0; i < n; i++) {
        struct place *p = order[i];
        struct host_priority *hp = &s->priorities[p->priority];
        bool is_same =
            last && last->priority == p->priority && locality_cmp(&last->id, &p->id) == 0;
        if (!is_same && hp->localities_n < HOST_LOCALITIES_MAX) {
            hp->localities = hp->localities ? hp->localities : &all[used];
            all[used++] = (struct host_locality){.id = p->id, .weight = p->weight};
            hp->localities_n++;
        }
        p->index = hp->localities_n - 1;
        last = p;
    }
    xfree(order);
}

/* ---- entries ---- */

/* Names differ already. */
static void name_insert(struct host_set *s, const struct host_entry *e) {
    uint32_t i = (uint32_t)sv_hash(e->host->hostname) & s->index_mask;
    while (s->index[i]) {
        i = (i + 1) & s->index_mask;
    }
    s->index[i] = (uint32_t)(e - s->entries) + 1;
}

static bool index_insert(struct host_set *s, const struct host_priority *p,
                         const struct host_entry *e) {
    uint32_t i = (uint32_t)addr_hash(&e->host->addr, true) & s->index_mask;
    for (; s->index[i]; i = (i + 1) & s->index_mask) {
        const struct host_entry *other = &s->entries[s->index[i] - 1];
        if (other >= p->entries && addr_eq(&other->host->addr, &e->host->addr)) {
            return false;
        }
    }
    s->index[i] = (uint32_t)(e - s->entries) + 1;
    return true;
}

static bool is_new_address(struct host_set *s, const struct host_priority *p,
                           const struct host_entry *e) {
    if (s->is_by_name) {
        name_insert(s, e);
        return true;
    }
    if (s->index) {
        return index_insert(s, p, e);
    }
    for (const struct host_entry *o = p->entries; o < e; o++) {
        if (addr_eq(&o->host->addr, &e->host->addr)) {
            return false;
        }
    }
    return true;
}

static void make_index(struct host_set *s, size_t n) {
    if (n < INDEX_MIN_HOSTS && !s->is_by_name) {
        return;
    }
    uint32_t cap = 16;
    while (cap < n * 2) {
        cap *= 2;
    }
    s->index = arena_new_array(&s->arena, uint32_t, cap);
    s->index_mask = cap - 1;
}

/* Items into entries, priority by priority in their given order; the refs move along. */
static void place_entries(struct host_set_builder *b, struct host_set *s) {
    size_t n = b->items.n;
    s->entries = arena_new_array(&s->arena, struct host_entry, n);
    make_index(s, n);
    size_t *first = xnew_array(size_t, s->priorities_n + 1), *order = xnew_array(size_t, n);
    for (size_t i = 0; i < n; i++) {
        first[b->places.p[b->items.p[i].locality].priority + 1]++;
    }
    for (unsigned p = 0; p < s->priorities_n; p++) {
        first[p + 1] += first[p];
    }
    for (size_t i = 0; i < n; i++) {
        order[first[b->places.p[b->items.p[i].locality].priority]++] = i;
    }
    struct host_entry *e = s->entries;
    for (unsigned p = 0; p < s->priorities_n; p++) {
        s->priorities[p].entries = e;
        for (size_t k = p ? first[p - 1] : 0; k < first[p]; k++) {
            const struct item *it = &b->items.p[order[k]];
            const struct place *place = &b->places.p[it->locality];
            *e = (struct host_entry){it->host, it->weight, (uint16_t)place->index,
                                     it->transport_match};
            if (!is_new_address(s, &s->priorities[p], e)) {
                shared_unref(&it->host->shared);
                continue;
            }
            host_flags_change(it->host, it->flags,
                              HOST_FLAGS_EDS | HOST_FLAG(PENDING_DYNAMIC_REMOVAL), b->now_us);
            s->max_host_weight = it->weight > s->max_host_weight ? it->weight : s->max_host_weight;
            s->priorities[p].localities[place->index].hosts_n++;
            s->priorities[p].n++;
            e++;
        }
    }
    s->hosts_n = (unsigned)(e - s->entries);
    xfree(first);
    xfree(order);
}

/* ---- lists ---- */

enum pick_of { PICK_ALL, PICK_HEALTHY, PICK_DEGRADED };

static bool is_picked(const struct host_entry *e, enum pick_of what) {
    if (what == PICK_ALL) {
        return true;
    }
    uint32_t flags = host_flags(e->host);
    return host_health_of(flags) == (what == PICK_HEALTHY ? HOST_HEALTHY : HOST_DEGRADED);
}

static void list_add(struct host_list *l, const struct host_entry *e) {
    l->equal_weights = l->n == 0 || (l->equal_weights && e->weight == l->v[0]->weight);
    l->v[l->n++] = e;
    l->weight_total += e->weight;
    l->weight_max = e->weight > l->weight_max ? e->weight : l->weight_max;
}

/* What a set's lists are made with. */
struct making {
    struct host_set *set;
    const struct cluster_config *cfg;
    bool by_locality; /* localities are weighted */
    bool is_hashing;
    const struct host_entry **room; /* for one list of all hosts of a priority */
};

static void fill(struct making *m, const struct host_priority *p, enum pick_of what,
                 struct host_list *l) {
    *l = (struct host_list){.v = m->room};
    for (unsigned i = 0; i < p->n; i++) {
        if (is_picked(&p->entries[i], what)) {
            list_add(l, &p->entries[i]);
        }
    }
    l->v = memcpy(arena_alloc(&m->set->arena, l->n * sizeof(*l->v)), m->room, l->n * sizeof(*l->v));
}

/* Each host's part of the traffic (for rings and tables): by weight, within its locality's part
 * where those count. */
static void make_shares(struct making *m, const struct host_priority *p, struct host_list *l) {
    double *share = arena_new_array(&m->set->arena, double, l->n);
    uint64_t *in_locality = xnew_array(uint64_t, p->localities_n + 1u), localities = 0;
    bool weighted = p->has_locality_weights;
    for (unsigned i = 0; weighted && i < l->n; i++) {
        uint64_t *sum = &in_locality[l->v[i]->locality];
        localities += *sum ? 0 : p->localities[l->v[i]->locality].weight;
        *sum += l->v[i]->weight;
    }
    l->share_min = 1;
    l->share_max = 0;
    for (unsigned i = 0; i < l->n; i++) {
        const struct host_entry *e = l->v[i];
        double part =
            weighted ? (double)p->localities[e->locality].weight / (double)localities : 1.0;
        share[i] =
            e->weight * part / (double)(weighted ? in_locality[e->locality] : l->weight_total);
        l->share_min = share[i] < l->share_min ? share[i] : l->share_min;
        l->share_max = share[i] > l->share_max ? share[i] : l->share_max;
    }
    l->share = share;
    xfree(in_locality);
}

static void make_table(struct making *m, const struct host_priority *p, struct host_list *l) {
    const struct lb_policy_type *t = m->cfg->lb_type;
    if (!t || !t->build || !l->n) {
        return;
    }
    if (m->is_hashing) {
        make_shares(m, p, l);
    }
    l->table = t->build(m->cfg->lb_config, l, &m->set->arena);
}

static void fill_localities(struct making *m, struct host_priority *p) {
    struct arena *a = &m->set->arena;
    for (unsigned k = 0; k < p->localities_n; k++) {
        struct host_locality *loc = &p->localities[k];
        loc->lists = arena_new(a, struct host_locality_lists);
        loc->lists->healthy.v = arena_new_array(a, const struct host_entry *, loc->healthy_n);
        loc->lists->degraded.v = arena_new_array(a, const struct host_entry *, loc->degraded_n);
    }
    /* From the lists, not the flags: those may change meanwhile, and the room was made for what was
     * counted. */
    for (unsigned i = 0; i < p->healthy.n; i++) {
        list_add(&p->localities[p->healthy.v[i]->locality].lists->healthy, p->healthy.v[i]);
    }
    for (unsigned i = 0; i < p->degraded.n; i++) {
        list_add(&p->localities[p->degraded.v[i]->locality].lists->degraded, p->degraded.v[i]);
    }
    for (unsigned k = 0; k < p->localities_n; k++) {
        make_table(m, p, &p->localities[k].lists->healthy);
        make_table(m, p, &p->localities[k].lists->degraded);
    }
}

static double effective_weight(const struct host_set *s, const struct host_locality *loc,
                               unsigned usable) {
    unsigned counted = loc->hosts_n - loc->excluded_n;
    if (!counted) {
        return 0;
    }
    double part = s->overprovisioning_factor / 100.0 * (1.0 * usable / counted);
    return loc->weight * (part < 1.0 ? part : 1.0);
}

static void weigh_localities(struct making *m, struct host_priority *p) {
    p->has_locality_weights = false;
    for (unsigned k = 0; k < p->localities_n; k++) {
        struct host_locality *loc = &p->localities[k];
        loc->healthy_weight = effective_weight(m->set, loc, loc->healthy_n);
        loc->degraded_weight = effective_weight(m->set, loc, loc->degraded_n);
        p->has_locality_weights |= m->by_locality && loc->weight && loc->hosts_n;
    }
}

static void count_priority(struct host_set *s, struct host_priority *p) {
    p->excluded = 0;
    for (unsigned i = 0; i < p->healthy.n; i++) {
        p->localities[p->healthy.v[i]->locality].healthy_n++;
    }
    for (unsigned i = 0; i < p->degraded.n; i++) {
        p->localities[p->degraded.v[i]->locality].degraded_n++;
    }
    for (unsigned i = 0; i < p->n; i++) {
        if (host_flags(p->entries[i].host) & HOST_FLAGS_EXCLUDED) {
            p->excluded++;
            p->localities[p->entries[i].locality].excluded_n++;
        }
    }
    s->healthy_n += p->healthy.n;
    s->degraded_n += p->degraded.n;
    s->excluded_n += p->excluded;
}

/* The list in the order of its localities, those without weight left out: for hashing policies. */
static void order_by_locality(struct making *m, struct host_priority *p, struct host_list *l) {
    struct host_list ordered = {.v = arena_alloc(&m->set->arena, sizeof(*l->v) * l->n)};
    for (unsigned k = 0; k < p->localities_n; k++) {
        for (unsigned i = 0; p->localities[k].weight && i < l->n; i++) {
            if (l->v[i]->locality == k) {
                list_add(&ordered, l->v[i]);
            }
        }
    }
    *l = ordered;
}

/* Tables of hashing policies are large: only for the lists that will be picked from. */
static void make_priority_tables(struct making *m, struct host_priority *p) {
    if (m->is_hashing && p->has_locality_weights) {
        order_by_locality(m, p, &p->all);
        order_by_locality(m, p, &p->healthy);
        order_by_locality(m, p, &p->degraded);
    }
    if (p->is_panic || !m->is_hashing) {
        make_table(m, p, &p->all);
    }
    if (!p->is_panic || !m->is_hashing) {
        make_table(m, p, &p->healthy);
        make_table(m, p, &p->degraded);
    }
    bool by_zone = m->cfg->zone && p == m->set->priorities && p->localities_n > 1;
    if ((p->has_locality_weights || by_zone) && !m->is_hashing) {
        fill_localities(m, p);
    }
}

static void make_lists(struct host_set *s, const struct cluster_config *cfg) {
    const struct lb_common *common = lb_common_of(cfg->lb_config);
    struct making m = {
        .set = s, .cfg = cfg, .is_hashing = cfg->lb_type && cfg->lb_type->is_hashing};
    m.room = xnew_array(const struct host_entry *, s->hosts_n + 1u);
    m.by_locality = cfg->locality_weighted || (common && common->locality_weighted);
    for (unsigned i = 0; i < s->priorities_n; i++) {
        struct host_priority *p = &s->priorities[i];
        fill(&m, p, PICK_ALL, &p->all);
        fill(&m, p, PICK_HEALTHY, &p->healthy);
        fill(&m, p, PICK_DEGRADED, &p->degraded);
        count_priority(s, p);
        weigh_localities(&m, p);
    }
    uint64_t panic_pct =
        runtime_u64(SV("upstream.healthy_panic_threshold"), cfg->healthy_panic_pct);
    host_load_compute(s, panic_pct < 100 ? (uint32_t)panic_pct : 100);
    for (unsigned i = 0; i < s->priorities_n; i++) {
        make_priority_tables(&m, &s->priorities[i]);
    }
    xfree(m.room);
    arena_trim(&s->arena);
}

/* ---- sets ---- */

/* The set lies in its arena: in `own`, which it takes over, or a new one (NULL). */
static struct host_set *set_new(const struct arena *own) {
    static uint64_t versions; /* atomic */
    struct arena a;
    if (own) {
        a = *own;
    } else {
        arena_init(&a, SET_ARENA_BYTES);
    }
    struct host_set *s = arena_new(&a, struct host_set);
    s->arena = a;
    shared_init(&s->shared, host_set_free);
    s->version = __atomic_add_fetch(&versions, 1, __ATOMIC_RELAXED);
    return s;
}

/* Does priority p of `a` hold a host that is not in `b` at all? */
static bool has_others(const struct host_set *a, const struct host_set *b, unsigned p) {
    for (unsigned i = 0; a && p < a->priorities_n && i < a->priorities[p].n; i++) {
        if (!b || !host_set_has(b, a->priorities[p].entries[i].host)) {
            return true;
        }
    }
    return false;
}

static unsigned hosts_at(const struct host_set *s, unsigned p) {
    return s && p < s->priorities_n ? s->priorities[p].n : 0;
}

static unsigned changed_priorities(const struct host_set *was, const struct host_set *now) {
    unsigned n =
        was && was->priorities_n > now->priorities_n ? was->priorities_n : now->priorities_n;
    unsigned changed = 0;
    for (unsigned p = 0; p < n; p++) {
        changed += hosts_at(was, p) != hosts_at(now, p) || has_others(now, was, p) ||
                   has_others(was, now, p);
    }
    return changed;
}

static void diff_sets(const struct host_set *was, const struct host_set *now,
                      struct host_set_diff *d) {
    *d = (struct host_set_diff){0};
    for (unsigned i = 0; i < now->hosts_n; i++) {
        d->added += !was || !host_set_has(was, now->entries[i].host);
    }
    for (unsigned i = 0; was && i < was->hosts_n; i++) {
        d->removed += !host_set_has(now, was->entries[i].host);
    }
    d->priorities = changed_priorities(was, now);
}

struct host_set *host_set_builder_finish(struct host_set_builder *b, struct host_set_diff *diff) {
    if (b->is_checked && b->previous && !b->cfg->drain_connections_on_host_removal &&
        !b->cfg->dns_cache) {
        keep_healthy(b);
    }
    struct host_set *s = set_new(&b->arena);
    s->base = s;
    s->is_by_name = b->cfg->dns_cache != NULL;
    s->overprovisioning_factor = b->overprovisioning_factor;
    s->weighted_priority_health = b->weighted_priority_health;
    s->drop_numerator = b->drop_numerator;
    s->drop_denominator = b->drop_denominator;
    s->priorities_n = b->priorities_n;
    s->priorities = arena_new_array(&s->arena, struct host_priority, s->priorities_n);
    place_localities(b, s);
    place_entries(b, s);
    make_lists(s, b->cfg);
    if (b->cfg->subsets) {
        s->subsets = lb_subsets_build(b->cfg, s);
    }
    if (diff) {
        diff_sets(b->previous, s, diff);
    }
    free_shell(b);
    return s;
}

static uint32_t subset_weight(const struct subset_config *c, const struct host_locality *of,
                              unsigned hosts_n) {
    if (!c->locality_weight_aware || !of->weight) {
        return 0;
    }
    if (!c->scale_locality_weight) {
        return of->weight;
    }
    double part = round((double)of->weight * hosts_n / of->hosts_n);
    return part > 1 ? (uint32_t)part : 1;
}

static void subset_priority(const struct cluster_config *cfg, struct host_set *s,
                            const struct host_priority *old, struct host_priority *p) {
    p->localities_n = old->localities_n;
    p->localities = arena_new_array(&s->arena, struct host_locality, p->localities_n);
    for (unsigned i = 0; i < p->n; i++) {
        p->localities[p->entries[i].locality].hosts_n++;
    }
    for (unsigned k = 0; k < p->localities_n; k++) {
        struct host_locality *l = &p->localities[k];
        l->id = old->localities[k].id;
        l->weight = subset_weight(cfg->subsets, &old->localities[k], l->hosts_n);
    }
}

struct host_set *host_set_subset(const struct cluster_config *cfg, const struct host_set *of,
                                 const uint32_t *which, unsigned n) {
    struct host_set *s = set_new(NULL);
    s->entries = arena_new_array(&s->arena, struct host_entry, n);
    s->overprovisioning_factor = of->overprovisioning_factor;
    s->weighted_priority_health = of->weighted_priority_health;
    s->priorities_n = of->priorities_n;
    s->priorities = arena_new_array(&s->arena, struct host_priority, s->priorities_n);
    unsigned used = 0;
    for (unsigned i = 0; i < s->priorities_n; i++) {
        const struct host_priority *old = &of->priorities[i];
        struct host_priority *p = &s->priorities[i];
        size_t end = (size_t)(old->entries - of->entries) + old->n;
        p->entries = &s->entries[used];
        for (; used < n && which[used] < end; used++) {
            s->entries[used] = of->entries[which[used]];
            p->n++;
        }
        subset_priority(cfg, s, old, p);
    }
    s->hosts_n = used;
    make_lists(s, cfg);
    return s;
}

struct host_set *host_set_rebuild(const struct cluster_config *cfg, const struct host_set *set) {
    struct host_set *s = set_new(NULL);
    s->base = shared_ref(set->base);
    s->entries = set->entries;
    s->index = set->index;
    s->index_mask = set->index_mask;
    s->is_by_name = set->is_by_name;
    s->hosts_n = set->hosts_n;
    s->max_host_weight = set->max_host_weight;
    s->overprovisioning_factor = set->overprovisioning_factor;
    s->weighted_priority_health = set->weighted_priority_health;
    s->drop_numerator = set->drop_numerator;
    s->drop_denominator = set->drop_denominator;
    s->priorities_n = set->priorities_n;
    s->priorities = arena_new_array(&s->arena, struct host_priority, s->priorities_n);
    for (unsigned i = 0; i < s->priorities_n; i++) {
        const struct host_priority *old = &set->priorities[i];
        struct host_priority *p = &s->priorities[i];
        *p = (struct host_priority){
            .entries = old->entries, .n = old->n, .localities_n = old->localities_n};
        p->localities = arena_new_array(&s->arena, struct host_locality, p->localities_n);
        for (unsigned k = 0; k < p->localities_n; k++) {
            const struct host_locality *l = &old->localities[k];
            p->localities[k] =
                (struct host_locality){.id = l->id, .weight = l->weight, .hosts_n = l->hosts_n};
        }
    }
    make_lists(s, cfg);
    if (cfg->subsets) {
        s->subsets = lb_subsets_build(cfg, s);
    }
    return s;
}
