/* Buckets by descriptor. Threads: see local_limiter.h. What is compiled never changes but for the
 * atomics in it: buckets, and which value a slot of a wildcard stands for. */
#include "filters/common/local_limiter.h"

#include "protos/gen/common_ratelimit.pb-c.h"
#include "proxy/base/map.h"

/* Values of a wildcard lie in sets that are searched as a whole: up to this many, the table is one
 * set and its order of use is exact. */
#define SET_WAYS 64u

struct fixed {
    struct token_bucket bucket;
    bool is_shadow;
};
struct slot {
    uint64_t hash; /* of the descriptor it stands for; 0: free, SLOT_BUSY: changing hands */
    uint64_t used_us;
    struct token_bucket bucket;
};
#define SLOT_BUSY 1u
struct wildcard {
    const struct rate_limit_entry *v; /* value empty: any */
    unsigned n;
    bool is_shadow;
    struct slot *slots;
    uint32_t slots_n, ways; /* a power of two of sets, when there is more than one */
};
struct local_limiter {
    struct token_bucket *dflt; /* NULL: none */
    bool always_consumes_default;
    struct map fixed; /* key → struct fixed */
    const struct wildcard *wildcards;
    unsigned wildcards_n;
};

/* --- compile --- */

static void release_map(void *map) { map_fini(map); }

static void put_size(char **p, size_t n) {
    uint32_t size = (uint32_t)n;
    memcpy(*p, &size, sizeof size);
    *p += sizeof size;
}

/* Keys and values with their lengths before them: equal for equal entries only. */
static sv key_of(const struct rate_limit_entry *v, unsigned n, struct arena *a) {
    size_t size = 0;
    for (unsigned i = 0; i < n; i++) {
        size += 2 * sizeof(uint32_t) + v[i].key.n + v[i].value.n;
    }
    char *text = arena_alloc(a, size ? size : 1), *p = text;
    for (unsigned i = 0; i < n; i++) {
        put_size(&p, v[i].key.n);
        p = (char *)memcpy(p, v[i].key.n ? v[i].key.p : "", v[i].key.n) + v[i].key.n;
        put_size(&p, v[i].value.n);
        p = (char *)memcpy(p, v[i].value.n ? v[i].value.p : "", v[i].value.n) + v[i].value.n;
    }
    return sv_from(text, size);
}

static void make_slots(struct compile_ctx *ctx, const struct token_bucket *bucket, uint32_t values,
                       struct wildcard *out) {
    uint32_t sets = 1;
    while (values > SET_WAYS && sets * 2 * SET_WAYS <= values) {
        sets *= 2;
    }
    out->ways = values / sets;
    out->slots_n = sets * out->ways;
    out->slots = arena_new_array(ctx->arena, struct slot, out->slots_n);
    for (uint32_t i = 0; i < out->slots_n; i++) {
        out->slots[i].bucket = *bucket;
    }
}

static bool is_known(const struct local_limiter *l, const struct rate_limit_entry *v, unsigned n,
                     sv key) {
    for (unsigned i = 0; i < l->wildcards_n; i++) {
        const struct wildcard *w = &l->wildcards[i];
        bool same = w->n == n;
        for (unsigned k = 0; same && k < n; k++) {
            same = sv_eq(w->v[k].key, v[k].key) && sv_eq(w->v[k].value, v[k].value);
        }
        if (same) {
            return true;
        }
    }
    return map_get(&l->fixed, key) != NULL;
}

static bool compile_descriptor(struct compile_ctx *ctx, const struct local_limiter_config *config,
                               const CommonRatelimit__LocalRateLimitDescriptor *m,
                               struct wildcard *wildcards, struct local_limiter *l) {
    struct rate_limit_entry *v =
        arena_new_array(ctx->arena, struct rate_limit_entry, m->n_entries ? m->n_entries : 1);
    struct fixed *fixed = arena_new(ctx->arena, struct fixed);
    bool is_wildcard = false;
    for (size_t i = 0; i < m->n_entries; i++) {
        v[i].key = arena_sv(ctx->arena, sv_cstr(m->entries[i]->key));
        v[i].value = arena_sv(ctx->arena, sv_cstr(m->entries[i]->value));
        is_wildcard = is_wildcard || v[i].value.n == 0;
    }
    sv key = key_of(v, (unsigned)m->n_entries, ctx->arena);
    if (is_known(l, v, (unsigned)m->n_entries, key)) {
        return diag_error(ctx->diag, "duplicate descriptor in the local rate descriptor");
    }
    DIAG_FIELD(ctx->diag, "token_bucket");
    if (!m->token_bucket || !token_bucket_compile(ctx, "local rate limit descriptor token bucket",
                                                  m->token_bucket, &fixed->bucket)) {
        return m->token_bucket || diag_error(ctx->diag, "value is required");
    }
    fixed->is_shadow = m->shadow_mode;
    if (!is_wildcard) {
        map_put(&l->fixed, key, fixed);
        return true;
    }
    struct wildcard *w = &wildcards[l->wildcards_n++];
    *w = (struct wildcard){.v = v, .n = (unsigned)m->n_entries, .is_shadow = m->shadow_mode};
    make_slots(ctx, &fixed->bucket, config->values_max, w);
    return true;
}

struct local_limiter *local_limiter_compile(struct compile_ctx *ctx,
                                            const struct local_limiter_config *config) {
    unsigned before = diag_errors(ctx->diag);
    struct local_limiter *l = arena_new(ctx->arena, struct local_limiter);
    size_t n = config->descriptors_n;
    struct wildcard *wildcards = arena_new_array(ctx->arena, struct wildcard, n ? n : 1);
    l->always_consumes_default = config->always_consumes_default;
    l->wildcards = wildcards;
    map_init(&l->fixed);
    arena_on_fini(ctx->arena, release_map, &l->fixed);
    if (config->values_max == 0 || config->values_max > LOCAL_LIMITER_VALUES_MAX) {
        DIAG_FIELD(ctx->diag, "max_dynamic_descriptors");
        diag_error(ctx->diag, "expected 1 to %u, not %u", LOCAL_LIMITER_VALUES_MAX,
                   config->values_max);
        return NULL;
    }
    if (config->token_bucket) {
        DIAG_FIELD(ctx->diag, "token_bucket");
        l->dflt = arena_new(ctx->arena, struct token_bucket);
        token_bucket_compile(ctx, "local rate limit token bucket", config->token_bucket, l->dflt);
    }
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "descriptors[%zu]", i);
        compile_descriptor(ctx, config, config->descriptors[i], wildcards, l);
    }
    return diag_errors(ctx->diag) == before ? l : NULL;
}

static struct token_bucket *dup_bucket(const struct token_bucket *b, struct arena *a) {
    struct token_bucket *out = arena_new(a, struct token_bucket);
    *out = *b;
    token_bucket_fill(out);
    return out;
}

static void dup_fixed(const struct local_limiter *l, struct local_limiter *out, struct arena *a) {
    size_t it = 0;
    map_init(&out->fixed);
    arena_on_fini(a, release_map, &out->fixed);
    for (struct map_slot *s; (s = map_next(&l->fixed, &it));) {
        struct fixed *fixed = arena_new(a, struct fixed);
        *fixed = *(const struct fixed *)s->value;
        token_bucket_fill(&fixed->bucket);
        map_put(&out->fixed, arena_sv(a, map_key(s)), fixed);
    }
}

static void dup_wildcard(const struct wildcard *w, struct wildcard *out, struct arena *a) {
    struct rate_limit_entry *v = arena_new_array(a, struct rate_limit_entry, w->n ? w->n : 1);
    *out = *w;
    for (unsigned i = 0; i < w->n; i++) {
        v[i] = (struct rate_limit_entry){arena_sv(a, w->v[i].key), arena_sv(a, w->v[i].value)};
    }
    out->v = v;
    out->slots = arena_new_array(a, struct slot, w->slots_n);
    for (uint32_t i = 0; i < w->slots_n; i++) {
        out->slots[i].bucket = w->slots[i].bucket;
        token_bucket_fill(&out->slots[i].bucket);
    }
}

struct local_limiter *local_limiter_dup(const struct local_limiter *l, struct arena *a) {
    struct local_limiter *out = arena_new(a, struct local_limiter);
    struct wildcard *wildcards =
        arena_new_array(a, struct wildcard, l->wildcards_n ? l->wildcards_n : 1);
    *out = *l;
    out->dflt = l->dflt ? dup_bucket(l->dflt, a) : NULL;
    dup_fixed(l, out, a);
    for (unsigned i = 0; i < l->wildcards_n; i++) {
        dup_wildcard(&l->wildcards[i], &wildcards[i], a);
    }
    out->wildcards = wildcards;
    return out;
}

bool local_limiter_has_descriptors(const struct local_limiter *l) {
    return l->wildcards_n || map_count(&l->fixed);
}

/* --- ask --- */

struct match {
    struct token_bucket *bucket;
    bool is_shadow;
    const struct rate_limit_descriptor *descriptor;
};

static bool is_covered(const struct wildcard *w, const struct rate_limit_descriptor *d) {
    for (unsigned i = 0; i < w->n && w->n == d->n; i++) {
        bool value = !w->v[i].value.n || sv_eq(w->v[i].value, d->v[i].value);
        if (!value || !sv_eq(w->v[i].key, d->v[i].key)) {
            return false;
        }
    }
    return w->n == d->n;
}

/* The value's slot, or the one of its set that was used the longest time ago, full. Two workers
 * that bring a new value at once may take a slot each; one of them is found from then on. */
static struct token_bucket *slot_for(const struct wildcard *w, uint64_t hash, uint64_t now_us) {
    uint32_t sets = w->slots_n / w->ways;
    struct slot *set = w->slots + (hash % sets) * w->ways, *oldest = set;
    uint64_t oldest_us = UINT64_MAX;
    hash = hash > SLOT_BUSY ? hash : SLOT_BUSY + 1;
    for (uint32_t i = 0; i < w->ways; i++) {
        struct slot *s = &set[i];
        uint64_t used_us = __atomic_load_n(&s->used_us, __ATOMIC_RELAXED);
        if (__atomic_load_n(&s->hash, __ATOMIC_ACQUIRE) == hash) {
            __atomic_store_n(&s->used_us, now_us, __ATOMIC_RELAXED);
            return &s->bucket;
        }
        if (used_us < oldest_us) {
            oldest = s;
            oldest_us = used_us;
        }
    }
    uint64_t had = __atomic_load_n(&oldest->hash, __ATOMIC_RELAXED);
    bool is_taken =
        had != SLOT_BUSY && __atomic_compare_exchange_n(&oldest->hash, &had, SLOT_BUSY, false,
                                                        __ATOMIC_ACQUIRE, __ATOMIC_RELAXED);
    if (is_taken) { /* else somebody else is at it: share theirs for this once */
        token_bucket_fill(&oldest->bucket);
        __atomic_store_n(&oldest->used_us, now_us, __ATOMIC_RELAXED);
        __atomic_store_n(&oldest->hash, hash, __ATOMIC_RELEASE);
    }
    return &oldest->bucket;
}

static bool find(const struct local_limiter *l, const struct rate_limit_descriptor *d,
                 uint64_t now_us, struct arena *scratch, struct match *out) {
    sv key = key_of(d->v, d->n, scratch);
    struct fixed *fixed = map_get(&l->fixed, key);
    out->descriptor = d;
    if (fixed) {
        out->bucket = &fixed->bucket;
        out->is_shadow = fixed->is_shadow;
        return true;
    }
    for (unsigned i = 0; i < l->wildcards_n; i++) {
        if (is_covered(&l->wildcards[i], d)) {
            out->bucket = slot_for(&l->wildcards[i], sv_hash(key), now_us);
            out->is_shadow = l->wildcards[i].is_shadow;
            return true;
        }
    }
    return false;
}

/* The slowest to fill comes first: it is the strictest. */
static void insert(struct match *v, unsigned n, struct match m) {
    while (n && v[n - 1].bucket->per_us > m.bucket->per_us) {
        v[n] = v[n - 1];
        n--;
    }
    v[n] = m;
}

static bool take(const struct match *m, uint64_t now_us) {
    const struct rate_limit_descriptor *d = m->descriptor;
    if (d->is_negative && d->has_hits) {
        token_bucket_give(m->bucket, now_us, d->hits);
        return true;
    }
    return d->hits && token_bucket_take(m->bucket, now_us, d->hits); /* 0 is refused, as in Envoy */
}

static struct local_limiter_verdict verdict_of(bool is_allowed, const struct match *m) {
    return (struct local_limiter_verdict){is_allowed, m->is_shadow, m->bucket,
                                          m->descriptor->headers};
}

struct local_limiter_verdict local_limiter_ask(struct local_limiter *l,
                                               const struct rate_limit_descriptor *v, unsigned n,
                                               uint64_t now_us, struct arena *scratch) {
    struct match matches[LOCAL_LIMITER_MATCHES_MAX], m;
    unsigned matches_n = 0;
    for (unsigned i = 0; i < n && matches_n < LOCAL_LIMITER_MATCHES_MAX; i++) {
        if (find(l, &v[i], now_us, scratch, &m)) {
            insert(matches, matches_n++, m);
        }
    }
    const struct match *shadow = NULL; /* the first that would have refused */
    for (unsigned i = 0; i < matches_n; i++) {
        if (take(&matches[i], now_us)) {
            continue;
        }
        if (!matches[i].is_shadow) {
            return verdict_of(false, &matches[i]);
        }
        shadow = shadow ? shadow : &matches[i];
    }
    bool asks_default = l->dflt && (matches_n == 0 || l->always_consumes_default);
    if (asks_default && !token_bucket_take(l->dflt, now_us, 1)) {
        return (struct local_limiter_verdict){.is_allowed = false, .bucket = l->dflt};
    }
    if (shadow) {
        return verdict_of(false, shadow);
    }
    return matches_n ? verdict_of(true, &matches[0])
                     : (struct local_limiter_verdict){.is_allowed = true, .bucket = l->dflt};
}
