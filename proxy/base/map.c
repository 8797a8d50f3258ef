/* Open addressing with linear probing; removal shifts the rest of the cluster back, so there are no
 * tombstones.
 * Threads: one owner, or read-only sharing.
 * Not here: intrusive or ordered containers. */
#include "proxy/base/map.h"

#include "proxy/base/mem.h"

#define CAP_MIN 8u

void map_init(struct map *m) { *m = (struct map)MAP_INIT; }

void map_fini(struct map *m) {
    xfree(m->slots_);
    map_init(m);
}

/* What a slot keeps of a key's hash. */
static inline uint32_t slot_hash(uint64_t hash) { return (uint32_t)hash ? (uint32_t)hash : 1; }

/* The slot of `key`, or the free one where it would go. The table has a free slot, so this ends. */
static struct map_slot *probe(const struct map *m, sv key, uint32_t hash) {
    size_t mask = m->cap_ - 1;
    for (size_t i = hash & mask;; i = (i + 1) & mask) {
        struct map_slot *s = &m->slots_[i];
        if (s->hash_ == 0 || (s->hash_ == hash && sv_eq(map_key(s), key))) {
            return s;
        }
    }
}

void *map_get_hashed(const struct map *m, sv key, uint64_t hash) {
    return m->count_ ? probe(m, key, slot_hash(hash))->value : NULL;
}

void *map_get(const struct map *m, sv key) {
    return m->count_ ? probe(m, key, slot_hash(sv_hash(key)))->value : NULL;
}

static void rehash(struct map *m, size_t cap) {
    struct map old = *m;
    m->slots_ = xnew_array(struct map_slot, cap);
    m->cap_ = cap;
    for (size_t i = 0; i < old.cap_; i++) {
        struct map_slot *s = &old.slots_[i];
        if (!s->hash_) {
            continue;
        }
        size_t to = s->hash_ & (cap - 1);
        while (m->slots_[to].hash_) {
            to = (to + 1) & (cap - 1);
        }
        m->slots_[to] = *s;
    }
    xfree(old.slots_);
}

void map_reserve(struct map *m, size_t count) {
    size_t cap = m->cap_ || !count ? m->cap_ : CAP_MIN;
    while (count * 4 > cap * 3) {
        cap *= 2;
    }
    if (cap > m->cap_) {
        rehash(m, cap);
    }
}

/* The slot of `key`, or a free one for it. */
static struct map_slot *slot_for(struct map *m, sv key, uint32_t hash) {
    if ((m->count_ + 1) * 4 > m->cap_ * 3) {
        rehash(m, m->cap_ ? m->cap_ * 2 : CAP_MIN);
    }
    return probe(m, key, hash);
}

void *map_put(struct map *m, sv key, void *value) {
    ASSERT(value);
    uint32_t hash = slot_hash(sv_hash(key));
    struct map_slot *s = slot_for(m, key, hash);
    void *old = s->value;
    m->count_ += s->hash_ == 0;
    *s = (struct map_slot){key.p, value, (uint32_t)key.n, hash};
    return old;
}

void *map_put_new(struct map *m, sv key, void *value) {
    ASSERT(value);
    uint32_t hash = slot_hash(sv_hash(key));
    struct map_slot *s = slot_for(m, key, hash);
    if (s->hash_) {
        return s->value;
    }
    m->count_++;
    *s = (struct map_slot){key.p, value, (uint32_t)key.n, hash};
    return NULL;
}

/* Free slot `hole`, moving back each later member of its cluster that may lie there: one whose home
 * is not (cyclically) after the hole. */
static void close_hole(struct map *m, size_t hole) {
    size_t mask = m->cap_ - 1;
    for (size_t i = (hole + 1) & mask; m->slots_[i].hash_; i = (i + 1) & mask) {
        size_t home = m->slots_[i].hash_ & mask;
        if (((i - home) & mask) >= ((i - hole) & mask)) {
            m->slots_[hole] = m->slots_[i];
            hole = i;
        }
    }
    m->slots_[hole] = (struct map_slot){NULL, NULL, 0, 0};
    m->count_--;
}

void *map_remove(struct map *m, sv key) {
    if (m->count_ == 0) {
        return NULL;
    }
    struct map_slot *s = probe(m, key, slot_hash(sv_hash(key)));
    void *old = s->value;
    if (old) {
        close_hole(m, (size_t)(s - m->slots_));
    }
    return old;
}

void map_clear(struct map *m) {
    if (m->count_) {
        memset(m->slots_, 0, m->cap_ * sizeof(*m->slots_));
    }
    m->count_ = 0;
}

/* The table is walked twice: first all but the entries that probing wrapped to its beginning, then
 * those. So an entry that a removal near the end draws back over the edge is still ahead of the
 * walk, and none is seen twice. */
struct map_slot *map_next(const struct map *m, size_t *it) {
    while (*it < 2 * m->cap_) {
        bool is_second = *it >= m->cap_;
        size_t i = (*it)++ & (m->cap_ - 1);
        struct map_slot *s = &m->slots_[i];
        if (s->hash_ == 0) {
            *it = is_second ? 2 * m->cap_ : *it; /* wrapped entries end at the first gap */
            continue;
        }
        bool is_wrapped = (s->hash_ & (m->cap_ - 1)) > i;
        if (is_wrapped == is_second) {
            return s;
        }
    }
    return NULL;
}

void map_remove_at(struct map *m, size_t *it) {
    ASSERT(*it > 0 && m->count_ > 0);
    (*it)--;
    close_hole(m, *it & (m->cap_ - 1));
}
