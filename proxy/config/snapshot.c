/* Snapshots: versions of the slot tables that workers adopt, and the names of the clusters in them.
 * Threads: made on the config thread, freed by the last holder. */
#include "proxy/base/mem.h"
#include "proxy/config/config.h"

static void on_free(struct shared *s) {
    struct snapshot *snap = (struct snapshot *)s;
    for (int i = 0; i < TABLES; i++) {
        table_fini(&snap->tables[i]);
    }
    table_fini(&snap->cluster_buckets);
    table_fini(&snap->workload_buckets);
    xfree(snap);
}

struct snapshot *snapshot_new(const struct snapshot *from) {
    struct snapshot *s = xnew(struct snapshot);
    shared_init(&s->shared, on_free);
    if (!from) {
        return s;
    }
    s->version = from->version + 1;
    for (int i = 0; i < TABLES; i++) {
        table_copy(&s->tables[i], &from->tables[i]);
    }
    table_copy(&s->cluster_buckets, &from->cluster_buckets);
    s->cluster_buckets_n = from->cluster_buckets_n;
    table_copy(&s->workload_buckets, &from->workload_buckets);
    return s;
}

/* ---- clusters by name ---- */

#define BUCKETS_MIN 64u
#define BUCKET_CLUSTERS 2u /* on average, at most */

struct bucket {
    struct shared shared;
    uint32_t n;
    slot_t slots[];
};

static void free_bucket(struct shared *s) { xfree((struct bucket *)s); }

static sv name_at(const struct snapshot *s, slot_t slot) {
    return ((const struct resource *)table_get(&s->tables[TABLE_CLUSTERS], slot))->name;
}

static uint32_t bucket_of(const struct snapshot *s, sv name) {
    return (uint32_t)sv_hash(name) & (s->cluster_buckets_n - 1);
}

static const struct bucket *bucket_at(const struct snapshot *s, uint32_t i) {
    return (const struct bucket *)table_get(&s->cluster_buckets, i);
}

/* The bucket's slots but `without`, and `with`; SLOT_NONE: none. */
static void replace_bucket(struct snapshot *s, uint32_t i, slot_t without, slot_t with) {
    const struct bucket *old = bucket_at(s, i);
    uint32_t n = old ? old->n : 0;
    struct bucket *b = xcalloc(1, sizeof(*b) + (n + 1) * sizeof(slot_t));
    shared_init(&b->shared, free_bucket);
    for (uint32_t k = 0; k < n; k++) {
        if (old->slots[k] != without) {
            b->slots[b->n++] = old->slots[k];
        }
    }
    if (with != SLOT_NONE) {
        b->slots[b->n++] = with;
    }
    table_set(&s->cluster_buckets, i, b->n ? &b->shared : NULL);
    shared_unref(&b->shared);
}

/* Four times as many buckets: adding a cluster costs the same on average, however many there
 * are. */
static void grow_buckets(struct snapshot *s, slot_t but) {
    s->cluster_buckets_n = s->cluster_buckets_n ? s->cluster_buckets_n * 4 : BUCKETS_MIN;
    table_fini(&s->cluster_buckets);
    const struct table *t = &s->tables[TABLE_CLUSTERS];
    for (slot_t slot = table_next(t, 0); slot != UINT32_MAX; slot = table_next(t, slot + 1)) {
        if (slot != but) {
            replace_bucket(s, bucket_of(s, name_at(s, slot)), SLOT_NONE, slot);
        }
    }
}

void snapshot_add_cluster_name(struct snapshot *s, slot_t slot, size_t clusters_n) {
    if (clusters_n > (size_t)s->cluster_buckets_n * BUCKET_CLUSTERS) {
        grow_buckets(s, slot);
    }
    replace_bucket(s, bucket_of(s, name_at(s, slot)), SLOT_NONE, slot);
}

void snapshot_remove_cluster_name(struct snapshot *s, slot_t slot) {
    replace_bucket(s, bucket_of(s, name_at(s, slot)), slot, SLOT_NONE);
}

slot_t snapshot_find_cluster(const struct snapshot *s, sv name) {
    const struct bucket *b = s->cluster_buckets_n ? bucket_at(s, bucket_of(s, name)) : NULL;
    for (uint32_t k = 0; b && k < b->n; k++) {
        if (sv_eq(name_at(s, b->slots[k]), name)) {
            return b->slots[k];
        }
    }
    return SLOT_NONE;
}
