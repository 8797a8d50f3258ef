/* See workload.h. Threads: see there. */
#include "proxy/config/workload.h"

#include <arpa/inet.h>

#include "protos/gen/istio_workload.pb-c.h"
#include "proxy/base/mem.h"

#define BUCKETS 4096u /* of addresses: with 100,000 workloads a change copies some 25 refs */

/* ---- compiling ---- */

static bool read_address(const ProtobufCBinaryData *bytes, struct addr *out) {
    if (bytes->len != sizeof(struct in_addr) && bytes->len != sizeof(struct in6_addr)) {
        return false;
    }
    *out = (struct addr){.family = bytes->len == sizeof(struct in_addr) ? AF_INET : AF_INET6};
    memcpy(out->ip, bytes->data, bytes->len);
    return true;
}

bool compile_workload(struct compile_ctx *ctx, struct resource *r, const void *msg) {
    const IstioWorkload__Workload *m = msg;
    struct workload *w = arena_new(ctx->arena, struct workload);
    w->addresses = arena_new_array(ctx->arena, struct addr, m->n_addresses);
    for (size_t i = 0; i < m->n_addresses; i++) {
        DIAG_FIELD(ctx->diag, "addresses[%zu]", i);
        if (!read_address(&m->addresses[i], &w->addresses[w->addresses_n++])) {
            return diag_error(ctx->diag, "an address has 4 or 16 bytes, not %zu",
                              m->addresses[i].len);
        }
    }
    r->workload = w;
    return true;
}

/* ---- by address ---- */

struct bucket {
    struct shared shared;
    uint32_t n;
    struct bucket_item {
        uint64_t hash;
        struct resource *r; /* one ref */
    } items[];
};

static void free_bucket(struct shared *s) {
    struct bucket *b = (struct bucket *)s;
    for (uint32_t i = 0; i < b->n; i++) {
        shared_unref(&b->items[i].r->shared);
    }
    xfree(b);
}

/* The ports of workloads are 0. */
static uint64_t hash_of(const struct addr *a) { return addr_hash(a, false); }

static struct bucket *bucket_at(const struct snapshot *s, uint64_t hash) {
    return (struct bucket *)table_get(&s->workload_buckets, (uint32_t)(hash % BUCKETS));
}

/* The items but those of `without`, and `with`; NULL: none. */
static void replace_bucket(struct snapshot *s, uint64_t hash, const struct resource *without,
                           struct resource *with) {
    const struct bucket *old = bucket_at(s, hash);
    uint32_t n = old ? old->n : 0;
    struct bucket *b = xcalloc(1, sizeof(*b) + (n + 1) * sizeof(b->items[0]));
    shared_init(&b->shared, free_bucket);
    for (uint32_t i = 0; i < n; i++) {
        if (old->items[i].r != without) {
            b->items[b->n++] =
                (struct bucket_item){old->items[i].hash, shared_ref(old->items[i].r)};
        }
    }
    if (with) {
        b->items[b->n++] = (struct bucket_item){hash, shared_ref(with)};
    }
    table_set(&s->workload_buckets, (uint32_t)(hash % BUCKETS), b->n ? &b->shared : NULL);
    shared_unref(&b->shared);
}

void snapshot_add_workload(struct snapshot *s, struct resource *r) {
    for (unsigned i = 0; i < r->workload->addresses_n; i++) {
        replace_bucket(s, hash_of(&r->workload->addresses[i]), NULL, r);
    }
}

void snapshot_remove_workload(struct snapshot *s, const struct resource *r) {
    for (unsigned i = 0; i < r->workload->addresses_n; i++) {
        uint64_t hash = hash_of(&r->workload->addresses[i]);
        if (bucket_at(s, hash)) { /* of two addresses in one bucket, both went with the first */
            replace_bucket(s, hash, r, NULL);
        }
    }
}

static bool has_address(const struct resource *r, const struct addr *a) {
    for (unsigned i = 0; i < r->workload->addresses_n; i++) {
        if (addr_ip_eq(&r->workload->addresses[i], a)) {
            return true;
        }
    }
    return false;
}

const struct resource *snapshot_find_workload(const struct snapshot *s, const struct addr *a) {
    if (!s->workload_buckets.pages_n || (a->family != AF_INET && a->family != AF_INET6)) {
        return NULL;
    }
    uint64_t hash = hash_of(a);
    const struct bucket *b = bucket_at(s, hash);
    for (uint32_t i = b ? b->n : 0; i-- > 0;) {
        if (b->items[i].hash == hash && has_address(b->items[i].r, a)) {
            return b->items[i].r;
        }
    }
    return NULL;
}
