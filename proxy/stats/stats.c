/* Scopes, shards, dynamic stats and their values.
 * Threads: see stats.h; the store's mutex guards everything but cells, which have one writer each.
 * Not here: tag extraction (stats_tags.c), output (stats_export.c), intervals (stats_flush.c). */
#include "proxy/stats/stats.h"

#include "proxy/base/log.h"
#include "proxy/stats/stats_internal.h"

#define GROUP_CELLS_MAX 512

struct stats_store *stats_store_new(unsigned threads) {
    CHECK(threads > 0 && threads <= STATS_THREADS_MAX);
    struct stats_store *s = xnew(struct stats_store);
    s->threads = threads;
    pthread_mutex_init(&s->lock, NULL);
    list_init(&s->unclassified);
    map_init(&s->classes);
    return s;
}

static void latch_free(struct stats_latch *l) {
    histogram_free(l->cum);
    histogram_free(l->interval);
}

static void dyn_free(struct stat_dyn *d) {
    histogram_free(d->hist);
    latch_free(&d->latch);
    xfree(d);
}

static void ext_free(struct stats_ext *e, unsigned n) {
    if (!e) {
        return;
    }
    for (unsigned i = 0; i < n; i++) {
        if (e->latch) {
            latch_free(&e->latch[i]);
        }
    }
    for (size_t i = 0; i < e->dyns.n; i++) {
        dyn_free(e->dyns.p[i]);
    }
    vec_fini(&e->dyns);
    map_fini(&e->dyn);
    xfree(e->base);
    xfree(e->flushed);
    xfree(e->latch);
    xfree(e);
}

static void shard_free(struct stats_shard *sh, unsigned n) {
    if (!sh) {
        return;
    }
    for (unsigned i = 0; sh->hist && i < n; i++) {
        histogram_free(sh->hist[i]);
    }
    xfree(sh->hist);
    xfree(sh);
}

/* Unlink and free; nobody refers to the scope any more. Lock held. */
static void scope_free(struct stats_scope *sc) {
    struct stats_store *s = sc->store;
    stats_unclassify(sc);
    stats_tree_remove(&s->scopes, &sc->node);
    for (unsigned t = 0; sc->shards && t < s->threads; t++) {
        shard_free(sc->shards[t], sc->group->n);
    }
    xfree(sc->shards);
    shard_free(sc->front, 0);
    shared_text_unref(sc->text);
    ext_free(sc->ext, sc->group->n);
    xfree(sc->labels);
    xfree(sc->rejected);
    xfree(sc);
}

unsigned stats_store_threads(const struct stats_store *s) { return s->threads; }

void stats_store_free(struct stats_store *s) {
    if (!s) {
        return;
    }
    LOCK(s);
    struct stats_tree_node *n;
    while ((n = stats_tree_first(&s->scopes))) {
        scope_free(scope_of_node(n));
    }
    ASSERT(s->metrics.count == 0);
    shared_text_unref(s->last_text);
    for (size_t i = 0; i < s->orders.n; i++) {
        xfree(s->orders.p[i].cells);
    }
    vec_fini(&s->orders);
    vec_fini(&s->new_dyns);
    map_fini(&s->classes);
    for (size_t i = 0; i < s->namespaces.n; i++) {
        xfree((char *)(uintptr_t)s->namespaces.p[i].p);
    }
    vec_fini(&s->namespaces);
    for (size_t i = 0; i < s->tag_names.n; i++) {
        xfree((char *)(uintptr_t)s->tag_names.p[i].p);
    }
    vec_fini(&s->tag_names);
    UNLOCK(s);
    pthread_mutex_destroy(&s->lock);
    xfree(s);
}

void stats_store_add_namespace(struct stats_store *s, sv ns) {
    LOCK(s);
    bool have = false;
    for (size_t i = 0; i < s->namespaces.n; i++) {
        have = have || sv_eq(s->namespaces.p[i], ns);
    }
    if (!have) {
        *vec_push(&s->namespaces) = sv_from(sv_dup(ns), ns.n);
    }
    UNLOCK(s);
}

void stats_store_configure(struct stats_store *s, const struct stats_config *c) { s->config = c; }

/* A tag's name, kept once for all scopes: they are a handful. */
static sv tag_name(struct stats_store *s, sv name) {
    for (size_t i = 0; i < s->tag_names.n; i++) {
        if (sv_eq(s->tag_names.p[i], name)) {
            return s->tag_names.p[i];
        }
    }
    sv kept = sv_from(sv_dup(name), name.n);
    *vec_push(&s->tag_names) = kept;
    return kept;
}

/* Values are usually a part of the prefix; room for the others is at `spare`. */
static void set_tags(struct stats_scope *sc, const struct stats_tag *tags, unsigned n,
                     char *spare) {
    for (unsigned i = 0; i < n; i++) {
        sv value = tags[i].value;
        size_t at = sv_find_sv(scope_prefix(sc), value);
        if (at == SIZE_MAX) {
            memcpy(spare, value.p, value.n);
        }
        sc->tags[i].name = tag_name(sc->store, tags[i].name);
        sc->tags[i].value = sv_from(at == SIZE_MAX ? spare : sc->bytes + at, value.n);
        spare += at == SIZE_MAX ? value.n : 0;
    }
}

static struct stats_scope *scope_new(struct stats_store *s, const struct stats_group *g, sv prefix,
                                     sv tag_prefix, const struct stats_tag *tags, unsigned tags_n) {
    CHECK(g->n <= GROUP_CELLS_MAX && tags_n <= UINT16_MAX && tag_prefix.n <= UINT16_MAX);
    /* the scope, its bytes, its tags, values that are not in the prefix */
    size_t tags_at = (sizeof(struct stats_scope) + prefix.n + tag_prefix.n + 7) & ~(size_t)7;
    size_t spare_at = tags_at + tags_n * sizeof(*tags), bytes = spare_at;
    for (unsigned i = 0; i < tags_n; i++) {
        bytes += sv_find_sv(prefix, tags[i].value) == SIZE_MAX ? tags[i].value.n : 0;
    }
    struct stats_scope *sc = xcalloc(1, bytes);
    if (prefix.n) {
        memcpy(sc->bytes, prefix.p, prefix.n);
    }
    if (tag_prefix.n) {
        memcpy(sc->bytes + prefix.n, tag_prefix.p, tag_prefix.n);
    }
    sc->node.key = sv_from(sc->bytes, prefix.n);
    sc->node.sub = (uintptr_t)g;
    sc->store = s;
    sc->group = g;
    sc->refs = 1;
    if (tags_n) {
        sc->tags = (struct stats_tag *)(void *)((char *)sc + tags_at);
        set_tags(sc, tags, tags_n, (char *)sc + spare_at);
        sc->tags_n = (uint16_t)tags_n;
        sc->tag_prefix_n = (uint16_t)tag_prefix.n;
    }
    stats_tree_insert(&s->scopes, &sc->node);
    list_push_back(&s->unclassified, &sc->class_node);
    return sc;
}

struct stats_scope *stats_scope_get_tagged(struct stats_store *s, const struct stats_group *g,
                                           sv prefix, sv tag_prefix, const struct stats_tag *tags,
                                           unsigned tags_n) {
    LOCK(s);
    struct stats_tree_node *n = stats_tree_find(&s->scopes, prefix, (uintptr_t)g);
    struct stats_scope *sc =
        n ? scope_ref_locked(scope_of_node(n)) : scope_new(s, g, prefix, tag_prefix, tags, tags_n);
    UNLOCK(s);
    return sc;
}

struct stats_scope *stats_scope_get(struct stats_store *s, const struct stats_group *g, sv prefix) {
    return stats_scope_get_tagged(s, g, prefix, SV_NULL, NULL, 0);
}

struct stats_scope *stats_scope_ref(struct stats_scope *sc) {
    return sc ? scope_ref_locked(sc) : NULL;
}

void stats_scope_unref(struct stats_scope *sc) {
    if (!sc) {
        return;
    }
    uint32_t refs = __atomic_load_n(&sc->refs, __ATOMIC_RELAXED);
    while (refs > 1) {
        if (__atomic_compare_exchange_n(&sc->refs, &refs, refs - 1, true, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED)) {
            return;
        }
    }
    /* Maybe the last one: decide under the lock, so that nobody finds the scope between. */
    struct stats_store *s = sc->store;
    LOCK(s);
    if (__atomic_sub_fetch(&sc->refs, 1, __ATOMIC_ACQ_REL) == 0) {
        scope_free(sc);
    }
    UNLOCK(s);
}

sv stats_scope_prefix(const struct stats_scope *sc) { return scope_prefix(sc); }
struct stats_store *stats_scope_store(const struct stats_scope *sc) {
    return sc->store;
}

void stats_scope_set_source(struct stats_scope *sc, const void *source) {
    LOCK(sc->store);
    sc->source = source;
    UNLOCK(sc->store);
}

void stats_scope_forget_source(struct stats_scope *sc, const void *source) {
    LOCK(sc->store);
    if (sc->source == source) {
        sc->source = NULL;
    }
    UNLOCK(sc->store);
}

static unsigned bitmap_words(unsigned n) { return (n + 63) / 64; }

static struct stats_shard *shard_new(struct stats_scope *sc, unsigned n) {
    struct stats_shard *sh = xcalloc(1, sizeof(*sh) + (n + bitmap_words(n)) * sizeof(uint64_t));
    sh->scope = sc;
    sh->used = sh->v + n;
    return sh;
}

struct stats_shard *stats_shard(struct stats_scope *sc, unsigned thread) {
    CHECK(thread < sc->store->threads);
    struct stats_shard **all = __atomic_load_n(&sc->shards, __ATOMIC_ACQUIRE);
    if (!all) {
        LOCK(sc->store);
        all = sc->shards;
        if (!all) {
            all = xnew_array(struct stats_shard *, sc->store->threads);
            __atomic_store_n(&sc->shards, all, __ATOMIC_RELEASE);
        }
        UNLOCK(sc->store);
    }
    struct stats_shard *sh = all[thread]; /* only this thread writes it */
    if (!sh) {
        sh = shard_new(sc, sc->group->n - sc->group->computed_n);
        __atomic_store_n(&all[thread], sh, __ATOMIC_RELEASE);
    }
    return sh;
}

struct stats_shard *stats_front(struct stats_scope *sc) {
    if (!sc->front) { /* only the one thread writes it */
        __atomic_store_n(&sc->front, shard_new(sc, sc->group->front_n), __ATOMIC_RELEASE);
    }
    return sc->front;
}

/* The front's shard when it has cell i. */
static const struct stats_shard *front_with(const struct stats_scope *sc, unsigned i) {
    return i < sc->group->front_n ? __atomic_load_n(&sc->front, __ATOMIC_ACQUIRE) : NULL;
}

void stats_record_slow(struct stats_shard *sh, unsigned i, uint64_t value) {
    if (!sh->hist) {
        struct histogram **all = xnew_array(struct histogram *, sh->scope->group->n);
        __atomic_store_n(&sh->hist, all, __ATOMIC_RELEASE);
    }
    struct histogram *h = histogram_new();
    histogram_record(h, value);
    __atomic_store_n(&sh->hist[i], h, __ATOMIC_RELEASE);
}

struct stats_ext *stats_scope_ext(struct stats_scope *sc) {
    if (!sc->ext) {
        sc->ext = xnew(struct stats_ext);
    }
    return sc->ext;
}

void stats_text_set(struct stats_scope *sc, unsigned i, sv text) {
    ASSERT(sc->group->defs[i].kind == STAT_TEXT);
    (void)i;
    LOCK(sc->store);
    if (!sc->text || !sv_eq(sv_cstr(sc->text->text), text)) {
        shared_text_unref(sc->text);
        sc->text = shared_text_get(&sc->store->last_text, text);
    }
    UNLOCK(sc->store);
}

static bool read_computed(const struct stats_scope *sc, unsigned i, uint64_t *value) {
    return sc->source && sc->group->read(sc->source, i, value);
}

bool stats_cell_shown(const struct stats_scope *sc, unsigned i) {
    uint64_t value;
    return !stats_is_computed(sc->group, i) || read_computed(sc, i, &value);
}

static uint64_t cell_raw_sum(const struct stats_scope *sc, unsigned i) {
    if (stats_is_computed(sc->group, i)) {
        uint64_t value;
        return read_computed(sc, i, &value) ? value : 0;
    }
    struct stats_shard **all = __atomic_load_n(&sc->shards, __ATOMIC_ACQUIRE);
    const struct stats_shard *front = front_with(sc, i);
    uint64_t sum = front ? __atomic_load_n(&front->v[i], __ATOMIC_RELAXED) : 0;
    for (unsigned t = 0; all && t < sc->store->threads; t++) {
        const struct stats_shard *sh = __atomic_load_n(&all[t], __ATOMIC_ACQUIRE);
        if (sh) {
            sum += __atomic_load_n(&sh->v[i], __ATOMIC_RELAXED);
        }
    }
    return sum;
}

uint64_t stats_cell_sum(const struct stats_scope *sc, unsigned i) {
    uint64_t sum = cell_raw_sum(sc, i);
    return sc->ext && sc->ext->base && sc->group->defs[i].kind == STAT_COUNTER
               ? sum - sc->ext->base[i]
               : sum;
}

uint64_t stats_scope_value(const struct stats_scope *sc, unsigned i) {
    ASSERT(i < sc->group->n);
    LOCK(sc->store);
    uint64_t v = stats_cell_sum(sc, i);
    UNLOCK(sc->store);
    return v;
}

static bool is_marked(const struct stats_shard *sh, unsigned i) {
    return sh && __atomic_load_n(&sh->used[i >> 6], __ATOMIC_RELAXED) >> (i & 63) & 1;
}

static bool gauge_used(const struct stats_scope *sc, unsigned i) {
    if (stats_is_computed(sc->group, i)) {
        i = sc->group->used_with;
    }
    if (is_marked(front_with(sc, i), i)) {
        return true;
    }
    struct stats_shard **all = __atomic_load_n(&sc->shards, __ATOMIC_ACQUIRE);
    for (unsigned t = 0; all && t < sc->store->threads; t++) {
        if (is_marked(__atomic_load_n(&all[t], __ATOMIC_ACQUIRE), i)) {
            return true;
        }
    }
    return false;
}

bool stats_cell_used(const struct stats_scope *sc, unsigned i) {
    switch (sc->group->defs[i].kind) {
    case STAT_COUNTER:
        return cell_raw_sum(sc, i) != 0 || gauge_used(sc, i);
    case STAT_GAUGE:
        return gauge_used(sc, i);
    case STAT_HISTOGRAM:
        return stats_cell_latch(sc, i) != NULL;
    case STAT_TEXT:
        return sc->text != NULL;
    }
    return false;
}

/* --- dynamic stats --- */

static struct stat_dyn *dyn_new(struct stats_scope *sc, sv name, enum stat_kind kind) {
    struct stat_dyn *d = xcalloc(1, sizeof(*d) + name.n);
    if (name.n) {
        memcpy(d->bytes, name.p, name.n);
    }
    d->name = sv_from(d->bytes, name.n);
    d->kind = (uint8_t)kind;
    d->scope = sc;
    *vec_push(&sc->ext->dyns) = d;
    if (sc->cls) {
        *vec_push(&sc->store->new_dyns) = d;
    }
    return d;
}

static struct stat_dyn *dyn_overflow(struct stats_scope *sc, enum stat_kind kind) {
    struct stat_dyn **slot = &sc->ext->overflow[kind];
    if (!*slot) {
        static const char *const name[] = {"overflowed", "overflowed_gauge", "overflowed_histogram",
                                           "overflowed_text"};
        log_warn(LOG_stats,
                 "scope '%.*s' has more than %d dynamic stats, further ones count as '%s'",
                 SV_ARG(scope_prefix(sc)), STATS_DYN_MAX, name[kind]);
        *slot = dyn_new(sc, sv_cstr(name[kind]), kind);
    }
    return *slot;
}

struct stat_dyn *stats_dyn(struct stats_scope *sc, sv name, enum stat_kind kind) {
    ASSERT(kind != STAT_TEXT);
    LOCK(sc->store);
    struct stats_ext *e = stats_scope_ext(sc);
    struct stat_dyn *d = map_get(&e->dyn, name);
    if (!d && e->dyns.n >= STATS_DYN_MAX) {
        d = dyn_overflow(sc, kind);
    } else if (!d) {
        d = dyn_new(sc, name, kind);
        map_put(&e->dyn, d->name, d);
    }
    UNLOCK(sc->store);
    return d;
}

void stat_dyn_add(struct stat_dyn *d, int64_t n) {
    __atomic_add_fetch(&d->value, (uint64_t)n, __ATOMIC_RELAXED);
    if (!__atomic_load_n(&d->used, __ATOMIC_RELAXED)) {
        __atomic_store_n(&d->used, true, __ATOMIC_RELAXED);
    }
}

void stat_dyn_set(struct stat_dyn *d, uint64_t v) {
    __atomic_store_n(&d->value, v, __ATOMIC_RELAXED);
    __atomic_store_n(&d->used, true, __ATOMIC_RELAXED);
}

void stat_dyn_record(struct stat_dyn *d, uint64_t value) {
    if (d->kind != STAT_HISTOGRAM) {
        (void)BUG(d->kind != STAT_HISTOGRAM);
        return;
    }
    LOCK(d->scope->store);
    if (!d->hist) {
        d->hist = histogram_new();
    }
    histogram_record(d->hist, value);
    UNLOCK(d->scope->store);
}

uint64_t stat_dyn_value(const struct stat_dyn *d) {
    uint64_t v = __atomic_load_n(&d->value, __ATOMIC_RELAXED);
    return d->kind == STAT_COUNTER ? v - __atomic_load_n(&d->base, __ATOMIC_RELAXED) : v;
}

/* --- response codes --- */

#define CODE_MIN 100u
#define CODE_CLASSES 5u
struct code_page {
    struct stat_dyn *code[100]; /* shared, atomic */
};
struct stats_codes {
    struct stats_scope *scope;
    const char *lead;
    struct stat_dyn *completed;           /* shared, atomic */
    struct stat_dyn *unknown;             /* shared, atomic */
    struct stat_dyn *cls[CODE_CLASSES];   /* shared, atomic */
    struct code_page *page[CODE_CLASSES]; /* shared, atomic; made when a class is first seen */
};

struct stats_codes *stats_codes_new(struct stats_scope *sc, const char *lead) {
    struct stats_codes *c = xnew(struct stats_codes);
    c->scope = stats_scope_ref(sc);
    c->lead = lead;
    return c;
}

void stats_codes_free(struct stats_codes *c) {
    if (!c) {
        return;
    }
    for (unsigned i = 0; i < CODE_CLASSES; i++) {
        xfree(c->page[i]);
    }
    stats_scope_unref(c->scope);
    xfree(c);
}

/* Several threads may meet here; they all find the same stat. */
static struct stat_dyn *codes_make(struct stats_codes *c, const char *fmt, unsigned n,
                                   struct stat_dyn **slot) {
    char name[64];
    int len = snprintf(name, sizeof(name), fmt, c->lead, n); /* n may be of no interest to fmt */
    struct stat_dyn *d =
        stats_dyn(c->scope, sv_from(name, len > 0 ? (size_t)len : 0), STAT_COUNTER);
    __atomic_store_n(slot, d, __ATOMIC_RELEASE);
    return d;
}

void stats_codes_inc_completed(struct stats_codes *c) {
    struct stat_dyn *d = __atomic_load_n(&c->completed, __ATOMIC_ACQUIRE);
    if (UNLIKELY(!d)) {
        d = codes_make(c, "%scompleted", 0, &c->completed);
    }
    stat_dyn_add(d, 1);
}

static void inc_unknown(struct stats_codes *c) {
    struct stat_dyn *d = __atomic_load_n(&c->unknown, __ATOMIC_ACQUIRE);
    if (UNLIKELY(!d)) {
        d = codes_make(c, "%sunknown", 0, &c->unknown);
    }
    stat_dyn_add(d, 1);
}

void stats_codes_inc_class(struct stats_codes *c, unsigned code) {
    unsigned i = code / 100 - 1;
    if (code < CODE_MIN || i >= CODE_CLASSES) {
        return;
    }
    struct stat_dyn *d = __atomic_load_n(&c->cls[i], __ATOMIC_ACQUIRE);
    if (UNLIKELY(!d)) {
        d = codes_make(c, "%s%uxx", i + 1, &c->cls[i]);
    }
    stat_dyn_add(d, 1);
}

static struct code_page *codes_page(struct stats_codes *c, unsigned i) {
    struct code_page *p = __atomic_load_n(&c->page[i], __ATOMIC_ACQUIRE);
    if (LIKELY(p)) {
        return p;
    }
    struct code_page *fresh = xnew(struct code_page);
    if (__atomic_compare_exchange_n(&c->page[i], &p, fresh, false, __ATOMIC_ACQ_REL,
                                    __ATOMIC_ACQUIRE)) {
        return fresh;
    }
    xfree(fresh);
    return p;
}

void stats_codes_inc(struct stats_codes *c, unsigned code) {
    unsigned i = code / 100 - 1;
    if (code < CODE_MIN || i >= CODE_CLASSES) {
        inc_unknown(c);
        return;
    }
    stats_codes_inc_class(c, code);
    struct code_page *p = codes_page(c, i);
    struct stat_dyn *d = __atomic_load_n(&p->code[code % 100], __ATOMIC_ACQUIRE);
    if (UNLIKELY(!d)) {
        d = codes_make(c, "%s%u", code, &p->code[code % 100]);
    }
    stat_dyn_add(d, 1);
}
