/* First-match order without a walk: routes of a virtual host by exact path and by prefix, in two
 * hash tables.
 * Threads: built on the config thread, immutable. A lookup costs one hash pass over the path and
 * one probe for each distinct prefix length. Not here: whether a candidate's conditions hold
 * (route_match.c). */
#include "proxy/route/route_private.h"

/* Not keyed: only the config can put something in, and equal hashes cost one comparison more. */
static uint64_t hash_more(uint64_t h, const char *p, size_t n) {
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        h = (h ^ word) * 0x9E3779B97F4A7C15ull;
        h ^= h >> 32;
    }
    uint64_t tail = n; /* so that "a" and "a\0" differ */
    for (size_t i = 0; i < n; i++) {
        tail = tail << 8 | (unsigned char)p[i];
    }
    h = (h ^ tail) * 0xD6E8FEB86659FD93ull;
    return h ^ h >> 32;
}

/* A prefix is hashed in the steps that the list of lengths gives, so that one pass over a path
 * yields all of them. */
static uint32_t hash_prefix(const struct path_index *x, sv prefix) {
    uint64_t h = 0;
    uint32_t done = 0;
    for (unsigned i = 0; i < x->lengths_n && x->lengths[i] <= prefix.n; i++) {
        h = hash_more(h, prefix.p + done, x->lengths[i] - done);
        done = x->lengths[i];
    }
    return (uint32_t)h;
}

static uint32_t hash_exact(sv path) { return (uint32_t)hash_more(0, path.p, path.n); }

static bool is_exact(const struct route_entry *r) {
    return r->match_kind == PATH_MATCH_EXACT && !r->case_insensitive;
}

static bool is_prefix(const struct route_entry *r) {
    return (r->match_kind == PATH_MATCH_PREFIX || r->match_kind == PATH_MATCH_SEPARATED_PREFIX) &&
           !r->case_insensitive;
}

static bool has_length(const struct path_index *x, size_t n) {
    for (unsigned i = 0; i < x->lengths_n; i++) {
        if (x->lengths[i] == n) {
            return true;
        }
    }
    return false;
}

static void add_length(struct path_index *x, size_t n) {
    if (x->lengths_n == PATH_INDEX_LENGTHS_MAX || n > UINT32_MAX || has_length(x, n)) {
        return;
    }
    unsigned at = x->lengths_n++;
    for (; at > 0 && x->lengths[at - 1] > n; at--) {
        x->lengths[at] = x->lengths[at - 1];
    }
    x->lengths[at] = (uint32_t)n;
}

static struct path_bucket *table_new(struct arena *a, unsigned n, uint32_t *mask) {
    uint32_t size = 4;
    while (size < 2 * n) {
        size *= 2;
    }
    struct path_bucket *t = (struct path_bucket *)arena_alloc(a, size * sizeof(*t));
    for (uint32_t i = 0; i < size; i++) {
        t[i] = (struct path_bucket){0, ROUTE_INDEX_END};
    }
    *mask = size - 1;
    return t;
}

static struct path_bucket *find(struct path_bucket *t, uint32_t mask, uint32_t hash,
                                const struct route_entry *v, sv text) {
    for (uint32_t i = hash & mask;; i = (i + 1) & mask) {
        if (t[i].first == ROUTE_INDEX_END ||
            (t[i].hash == hash && sv_eq(v[t[i].first].match_path, text))) {
            return &t[i];
        }
    }
}

/* Routes are added from the last to the first, so that a chain begins with the lowest. */
static void add(struct path_bucket *b, uint32_t hash, uint32_t *next, uint32_t route) {
    next[route] = b->first;
    *b = (struct path_bucket){hash, route};
}

const struct path_index *path_index_build(struct arena *a, const struct route_entry *v,
                                          unsigned n) {
    if (n < PATH_INDEX_MIN_ROUTES) {
        return NULL;
    }
    struct path_index *x = arena_new(a, struct path_index);
    unsigned exact = 0, prefix = 0;
    for (unsigned i = 0; i < n; i++) {
        exact += is_exact(&v[i]);
        prefix += is_prefix(&v[i]);
        if (is_prefix(&v[i])) {
            add_length(x, v[i].match_path.n);
        }
    }
    x->exact = table_new(a, exact, &x->exact_mask);
    x->prefix = table_new(a, prefix, &x->prefix_mask);
    uint32_t *next = (uint32_t *)arena_alloc(a, n * sizeof(*next));
    uint32_t *others = (uint32_t *)arena_alloc(a, n * sizeof(*others));
    unsigned others_n = 0;
    for (unsigned i = n; i-- > 0;) {
        sv text = v[i].match_path;
        if (is_exact(&v[i])) {
            uint32_t h = hash_exact(text);
            add(find(x->exact, x->exact_mask, h, v, text), h, next, i);
        } else if (is_prefix(&v[i]) && has_length(x, text.n)) {
            uint32_t h = hash_prefix(x, text);
            add(find(x->prefix, x->prefix_mask, h, v, text), h, next, i);
        } else {
            others[n - ++others_n] = i;
        }
    }
    x->next = next;
    x->others = others + n - others_n;
    x->others_n = others_n;
    return x;
}

void path_candidates_begin(struct path_candidates *c, const struct path_index *x,
                           const struct route_entry *v, sv path) {
    c->index = x;
    c->heads_n = c->others_at = 0;
    if (!path.p) {
        return;
    }
    const struct path_bucket *b = find(x->exact, x->exact_mask, hash_exact(path), v, path);
    if (b->first != ROUTE_INDEX_END) {
        c->heads[c->heads_n++] = b->first;
    }
    uint64_t h = 0;
    uint32_t done = 0;
    for (unsigned i = 0; i < x->lengths_n && x->lengths[i] <= path.n; i++) {
        h = hash_more(h, path.p + done, x->lengths[i] - done);
        done = x->lengths[i];
        b = find(x->prefix, x->prefix_mask, (uint32_t)h, v, sv_sub(path, 0, done));
        if (b->first != ROUTE_INDEX_END) {
            c->heads[c->heads_n++] = b->first;
        }
    }
}

uint32_t path_candidates_next(struct path_candidates *c, bool *is_sure) {
    uint32_t best = ROUTE_INDEX_END;
    unsigned at = 0;
    for (unsigned i = 0; i < c->heads_n; i++) {
        if (c->heads[i] < best) {
            best = c->heads[i];
            at = i;
        }
    }
    const struct path_index *x = c->index;
    if (c->others_at < x->others_n && x->others[c->others_at] < best) {
        *is_sure = false;
        return x->others[c->others_at++];
    }
    if (best != ROUTE_INDEX_END) {
        c->heads[at] = x->next[best];
    }
    *is_sure = true;
    return best;
}
