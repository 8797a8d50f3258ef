/* Groups series of the same exported metric: scopes of one group whose cells extract to the same
 * names form a class, and each metric knows the classes and dynamic stats that have it. So an
 * exposition walks metric by metric without an index of all stats. Classes are made lazily, by the
 * first tagged export, a slice at a time.
 * Threads: the store's lock. Spec: metrics.v3.StatsMatcher. Not here: the rules (stats_tags.c). */
#include <stdlib.h>

#include "proxy/base/buf.h"
#include "proxy/stats/stats_internal.h"
#include "proxy/stats/stats_tags.h"

/* --- stats matcher, histogram buckets --- */

bool stats_config_rejects(const struct stats_config *c, sv name) {
    if (!c || c->matcher == STATS_ACCEPT_ALL) {
        return false;
    }
    if (c->matcher == STATS_REJECT_ALL) {
        return true;
    }
    bool listed = false;
    for (unsigned i = 0; i < c->tests_n && !listed; i++) {
        listed = c->tests[i].match(c->tests[i].arg, name);
    }
    return listed == (c->matcher == STATS_EXCLUDE_LISTED);
}

const double *stats_config_bounds(const struct stats_config *c, sv name, unsigned *n) {
    static const double bounds[] = {0.5,   1,      5,      10,      25,     50,    100,
                                    250,   500,    1000,   2500,    5000,   10000, 30000,
                                    60000, 300000, 600000, 1800000, 3600000};
    for (unsigned i = 0; c && i < c->buckets_n; i++) {
        if (c->buckets[i].test.match(c->buckets[i].test.arg, name)) {
            *n = c->buckets[i].bounds_n;
            return c->buckets[i].bounds;
        }
    }
    *n = ARRAY_LEN(bounds);
    return bounds;
}

/* "<prefix><name>", cut at the scratch's size. */
static sv full_name(sv prefix, sv name, char full[STATS_FULL_MAX]) {
    size_t a = prefix.n < STATS_FULL_MAX ? prefix.n : STATS_FULL_MAX;
    size_t b = name.n < STATS_FULL_MAX - a ? name.n : STATS_FULL_MAX - a;
    if (a) {
        memcpy(full, prefix.p, a);
    }
    if (b) {
        memcpy(full + a, name.p, b);
    }
    return sv_from(full, a + b);
}

static sv cell_name(const struct stats_scope *sc, unsigned i) {
    return sv_cstr(sc->group->defs[i].name);
}

void stats_admit(struct stats_scope *sc) {
    if (sc->admitted) {
        return;
    }
    sc->admitted = true;
    const struct stats_config *c = sc->store->config;
    if (!c || c->matcher == STATS_ACCEPT_ALL) {
        return;
    }
    unsigned n = sc->group->n;
    uint64_t *bits = xnew_array(uint64_t, (n + 63) / 64);
    bool any = false;
    char full[STATS_FULL_MAX];
    for (unsigned i = 0; i < n; i++) {
        if (stats_config_rejects(c, full_name(scope_prefix(sc), cell_name(sc, i), full))) {
            bits[i >> 6] |= 1ull << (i & 63);
            any = true;
        }
    }
    if (!any) {
        xfree(bits);
        bits = NULL;
    }
    sc->rejected = bits;
}

bool stats_dyn_rejected(struct stat_dyn *d) {
    if (!d->admitted) {
        char full[STATS_FULL_MAX];
        d->rejected = stats_config_rejects(d->scope->store->config,
                                           full_name(scope_prefix(d->scope), d->name, full));
        d->admitted = true;
    }
    return d->rejected;
}

static bool is_rejected(const struct stats_scope *sc, unsigned i) {
    return sc->rejected && sc->rejected[i >> 6] >> (i & 63) & 1;
}

/* --- tags --- */

static const struct stats_tags *rules_of(const struct stats_store *s) {
    return s->config && s->config->tags ? s->config->tags : stats_tags_default();
}

void stats_extract(const struct stats_scope *sc, sv name, struct stats_tag_set *out,
                   char full[STATS_FULL_MAX]) {
    const struct stats_tags *rules = rules_of(sc->store);
    if (!sc->tags) {
        stats_tags_extract(rules, full_name(scope_prefix(sc), name, full), out);
        return;
    }
    /* The prefix is spoken for: only rules about the name's own end apply. A byte in front that no
     * rule knows keeps the others away. */
    stats_tags_extract(rules, full_name(SV("\1"), name, full), out);
    sv left = sv_skip(out->name, 1), lead = scope_tag_prefix(sc);
    if (lead.n + left.n < STATS_NAME_MAX) {
        memmove(out->bytes + lead.n, left.p, left.n);
        if (lead.n) {
            memcpy(out->bytes, lead.p, lead.n);
        }
        out->name = sv_from(out->bytes, lead.n + left.n);
    }
    for (unsigned i = 0; i < sc->tags_n && out->n < STATS_TAGS_MAX; i++) {
        out->v[out->n++] = sc->tags[i];
    }
}

static void append_label(struct buf *out, const struct stats_tag *t) {
    for (size_t i = 0; i < t->name.n; i++) {
        char c = t->name.p[i];
        c = ascii_isalnum(c) || c == '_' ? c : '_';
        buf_append(out, &c, 1);
    }
    buf_lit(out, "=\"");
    for (size_t i = 0; i < t->value.n; i++) {
        char c = t->value.p[i];
        if (c == '\n') {
            buf_lit(out, "\\n");
            continue;
        }
        if (c == '"' || c == '\\') {
            buf_lit(out, "\\");
        }
        buf_append(out, &c, 1);
    }
    buf_lit(out, "\"");
}

char *stats_labels(const struct stats_tag_set *t) {
    BUF_AUTO struct buf b = {0};
    for (unsigned i = 0; i < t->n; i++) {
        if (i) {
            buf_lit(&b, ",");
        }
        append_label(&b, &t->v[i]);
    }
    return buf_dup_str(&b);
}

/* --- metrics --- */

static struct stats_metric *metric_get(struct stats_store *s, enum stat_kind kind, sv name) {
    static const char letter[] = {
        [STAT_COUNTER] = 'a', [STAT_GAUGE] = 'b', [STAT_TEXT] = 'c', [STAT_HISTOGRAM] = 'd'};
    struct stats_metric *m = xcalloc(1, sizeof(*m) + name.n + 1);
    m->key[0] = letter[kind];
    if (name.n) {
        memcpy(m->key + 1, name.p, name.n);
    }
    m->node.key = sv_from(m->key, name.n + 1);
    struct stats_tree_node *have = stats_tree_find(&s->metrics, m->node.key, 0);
    if (have) {
        xfree(m);
        m = CONTAINER_OF(have, struct stats_metric, node);
    } else {
        m->kind = kind;
        list_init(&m->members);
        list_init(&m->dyns);
        stats_tree_insert(&s->metrics, &m->node);
    }
    m->refs++;
    return m;
}

void stats_metric_unref(struct stats_store *s, struct stats_metric *m) {
    if (--m->refs == 0) {
        stats_tree_remove(&s->metrics, &m->node);
        xfree(m);
    }
}

/* --- classes --- */

/* What one walk over a scope's cells found. */
struct scan {
    uint64_t hash[2];
    uint64_t own[512 / 64]; /* cells with tags of their own */
    char *labels;           /* of the first accepted cell */
};

static void scan_cell(struct stats_scope *sc, unsigned i, struct scan *r) {
    char full[STATS_FULL_MAX];
    struct stats_tag_set t;
    stats_extract(sc, cell_name(sc, i), &t, full);
    char *labels = stats_labels(&t);
    uint64_t h = sv_hash(t.name);
    if (!r->labels) {
        r->labels = labels;
        labels = NULL;
    } else if (strcmp(r->labels, labels) != 0) {
        r->own[i >> 6] |= 1ull << (i & 63);
        h = ~h;
    }
    r->hash[0] = r->hash[0] * 0x9E3779B97F4A7C15ull + h + i;
    r->hash[1] = (r->hash[1] ^ h) * 0xC2B2AE3D27D4EB4Full + (r->hash[1] >> 29);
    xfree(labels);
}

static struct stats_class *class_new(struct stats_scope *sc, const struct scan *r) {
    unsigned n = sc->group->n;
    struct stats_class *c = xcalloc(1, sizeof(*c) + n * sizeof(c->members[0]));
    c->key.group = sc->group;
    memcpy(c->key.hash, r->hash, sizeof(r->hash));
    list_init(&c->scopes);
    c->metrics = xnew_array(struct stats_metric *, n);
    c->own_labels = xmemdup(r->own, sizeof(r->own));
    for (unsigned i = 0; i < n; i++) {
        if (is_rejected(sc, i)) {
            continue;
        }
        char full[STATS_FULL_MAX];
        struct stats_tag_set t;
        stats_extract(sc, cell_name(sc, i), &t, full);
        c->metrics[i] = metric_get(sc->store, sc->group->defs[i].kind, t.name);
        c->members[i].cls = c;
        c->members[i].cell = i;
        list_push_back(&c->metrics[i]->members, &c->members[i].node);
    }
    map_put(&sc->store->classes, sv_from(&c->key, sizeof(c->key)), c);
    return c;
}

static void class_free(struct stats_store *s, struct stats_class *c) {
    map_remove(&s->classes, sv_from(&c->key, sizeof(c->key)));
    for (unsigned i = 0; i < c->key.group->n; i++) {
        if (c->metrics[i]) {
            list_unlink(&c->members[i].node);
            stats_metric_unref(s, c->metrics[i]);
        }
    }
    xfree(c->metrics);
    xfree(c->own_labels);
    xfree(c);
}

static void classify_dyn(struct stat_dyn *d) {
    if (d->metric || stats_dyn_rejected(d)) {
        return;
    }
    char full[STATS_FULL_MAX];
    struct stats_tag_set t;
    stats_extract(d->scope, d->name, &t, full);
    d->metric = metric_get(d->scope->store, d->kind, t.name);
    list_push_back(&d->metric->dyns, &d->metric_node);
}

static void classify_scope(struct stats_scope *sc) {
    struct stats_store *s = sc->store;
    stats_admit(sc);
    struct scan r = {.hash = {1, 2}};
    for (unsigned i = 0; i < sc->group->n; i++) {
        if (!is_rejected(sc, i)) {
            scan_cell(sc, i, &r);
        } else {
            r.hash[0] = r.hash[0] * 31 + i;
        }
    }
    struct {
        const struct stats_group *group;
        uint64_t hash[2];
    } key = {sc->group, {r.hash[0], r.hash[1]}};
    struct stats_class *c = map_get(&s->classes, sv_from(&key, sizeof(key)));
    if (!c) {
        c = class_new(sc, &r);
    }
    list_unlink(&sc->class_node);
    list_push_back(&c->scopes, &sc->class_node);
    c->scopes_n++;
    sc->cls = c;
    sc->labels = r.labels;
    for (size_t i = 0; sc->ext && i < sc->ext->dyns.n; i++) {
        classify_dyn(sc->ext->dyns.p[i]);
    }
}

bool stats_classify(struct stats_store *s, unsigned max) {
    LOCK(s);
    while (max && s->new_dyns.n) {
        classify_dyn(vec_pop(&s->new_dyns));
        max--;
    }
    struct list *n;
    while (max && (n = list_first(&s->unclassified))) {
        classify_scope(LIST_ENTRY(n, struct stats_scope, class_node));
        max--;
    }
    bool more = s->new_dyns.n || !list_empty(&s->unclassified);
    UNLOCK(s);
    return more;
}

void stats_unclassify(struct stats_scope *sc) {
    struct stats_store *s = sc->store;
    list_unlink(&sc->class_node);
    for (size_t i = sc->ext && sc->ext->dyns.n ? s->new_dyns.n : 0; i > 0; i--) {
        if (s->new_dyns.p[i - 1]->scope == sc) {
            vec_swap_remove(&s->new_dyns, i - 1);
        }
    }
    for (size_t i = 0; sc->ext && i < sc->ext->dyns.n; i++) {
        struct stat_dyn *d = sc->ext->dyns.p[i];
        if (d->metric) {
            list_unlink(&d->metric_node);
            stats_metric_unref(s, d->metric);
        }
    }
    if (sc->cls && --sc->cls->scopes_n == 0) {
        class_free(s, sc->cls);
    }
}

/* --- cells by name --- */

static int by_name(const void *a, const void *b, void *group) {
    const struct stat_def *defs = ((const struct stats_group *)group)->defs;
    return strcmp(defs[*(const uint16_t *)a].name, defs[*(const uint16_t *)b].name);
}

const struct stats_order *stats_group_order(struct stats_store *s, const struct stats_group *g) {
    for (size_t i = 0; i < s->orders.n; i++) {
        if (s->orders.p[i].group == g) {
            return &s->orders.p[i];
        }
    }
    struct stats_order *o = vec_push(&s->orders);
    o->group = g;
    o->cells = xnew_array(uint16_t, g->n ? g->n : 1);
    for (unsigned i = 0; i < g->n; i++) {
        o->cells[i] = (uint16_t)i;
        o->kinds |= 1u << g->defs[i].kind;
    }
    qsort_r(o->cells, g->n, sizeof(o->cells[0]), by_name, (void *)(uintptr_t)g);
    return o;
}
