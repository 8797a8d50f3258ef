/* Hash table with open addressing from byte-string keys to pointers. Keys are borrowed: the value
 * (or its owner) must keep the key bytes, less than 4 GiB, alive while it is in the map. Threads:
 * one owner; read-only sharing is fine once it stops changing. */
#ifndef SLUICE_BASE_MAP_H
#define SLUICE_BASE_MAP_H

#include "proxy/base/sv.h"

struct map_slot {
    const char *key_;
    void *value;
    uint32_t key_n_;
    uint32_t hash_; /* 0: free */
};
static inline sv map_key(const struct map_slot *s) { return sv_from(s->key_, s->key_n_); }

struct map {
    struct map_slot *slots_;
    size_t cap_; /* power of two, or 0 */
    size_t count_;
};

#define MAP_INIT \
    { NULL, 0, 0 }
void map_init(struct map *m);
void map_fini(struct map *m); /* frees the table, not keys or values */
static inline size_t map_count(const struct map *m) { return m->count_; }
void *map_get(const struct map *m, sv key); /* NULL when absent */
/* Same with the hash computed once by the caller: sv_hash(key). */
void *map_get_hashed(const struct map *m, sv key, uint64_t hash);
/* Insert or replace; returns the old value or NULL. On replace the stored key becomes the new one.
 * value != NULL. */
void *map_put(struct map *m, sv key, void *value);
/* Same, but what is there stays: that value, or NULL when `value` was inserted. */
void *map_put_new(struct map *m, sv key, void *value);
/* Room for `count` entries in all, so that putting them grows the table no more. */
void map_reserve(struct map *m, size_t count);
void *map_remove(struct map *m, sv key); /* returns the removed value or NULL */
void map_clear(struct map *m);
/* Iterate: size_t it = 0; struct map_slot *s; while ((s = map_next(&m, &it))) … The map must not
 * grow meanwhile; removal during iteration is allowed only through map_remove_at(it). Order is
 * unspecified. */
struct map_slot *map_next(const struct map *m, size_t *it);
/* Remove the entry just returned by map_next and step back so that none is skipped. */
void map_remove_at(struct map *m, size_t *it);

#endif
