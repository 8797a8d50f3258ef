/* Ring-hash and Maglev balancing: maps a request hash to a host.
 * Threads: tables are built on the config thread, immutable once published; picking is
 * worker-local.
 * Spec: extensions.load_balancing_policies.{ring_hash,maglev}.v3; a table must pick as Envoy's
 * does, so that proxies of both kinds send a key to the same host. Not here: where the hash comes
 * from (route/route_hash), who is healthy (host_set.c). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

#include "protos/gen/lb_maglev.pb-c.h"
#include "protos/gen/lb_ring_hash.pb-c.h"
#include "proxy/upstream/host.h"
#include "proxy/upstream/lb_common.h"

#define RING_SIZE_MIN_DEFAULT 1024u
#define RING_SIZE_LIMIT (8u << 20) /* 8 M, Envoy's */
#define MAGLEV_SIZE_DEFAULT 65537u
#define MAGLEV_SIZE_LIMIT 5000011u
#define MURMUR_SEED 0xc70f6907u
#define KEY_MAX 4096u /* of a host's key with its index */

struct lb_hash {
    struct lb_common common;
    uint64_t ring_min, ring_max;
    bool is_murmur, use_hostname;
    uint32_t balance_factor; /* percent; 0: unbounded */
    uint32_t table_size;     /* Maglev */
};

struct ring_point {
    uint64_t hash;
    uint32_t host;
};
struct lb_ring {
    struct ring_point *v;
    uint32_t n;
};
struct lb_maglev {
    uint32_t *v; /* index into the host list */
    uint32_t n;
};

/* ---- hashes ---- */

static uint64_t load64(const char *p) {
    uint64_t v;
    memcpy(&v, p, sizeof(v));
    return v;
}

/* MurmurHash2, 64 bits, as libstdc++ hashes strings. */
static uint64_t murmur2(const char *p, size_t n) {
    const uint64_t mul = 0xc6a4a7935bd1e995u;
    uint64_t h = MURMUR_SEED ^ (n * mul);
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t k = load64(p) * mul;
        h = (h ^ (k ^ k >> 47) * mul) * mul;
    }
    if (n) {
        uint64_t tail = 0;
        for (size_t i = n; i--;) {
            tail = tail << 8 | (unsigned char)p[i];
        }
        h = (h ^ tail) * mul;
    }
    h = (h ^ h >> 47) * mul;
    return h ^ h >> 47;
}

static sv host_key(const struct lb_hash *cfg, const struct host *h) {
    if (h->extra->hash_key.n) {
        return h->extra->hash_key;
    }
    return cfg->use_hostname ? h->hostname : h->address_text;
}

/* ---- bounded load ---- */

/* Above 1: the host has more requests than its part of the cluster's average times the factor. */
static double overload_of(const struct lb_hash *cfg, const struct host_list *hosts, uint32_t i,
                          const struct lb_context *ctx) {
    uint64_t slots_all = ((ctx->cluster_rq_active + 1) * cfg->balance_factor + 99) / 100;
    double slots = ceil((double)slots_all * hosts->share[i]);
    slots = slots < 1 ? 1 : slots;
    uint32_t active = HOST_STAT_GET(hosts->v[i]->host, rq_active);
    return active < slots ? 0 : (active + 1) / slots;
}

/* MT19937, for Envoy walks the other hosts in the order it gives. */
struct mt19937 {
    uint32_t v[624];
    unsigned at;
};

static void mt_init(struct mt19937 *m, uint32_t seed) {
    m->v[0] = seed;
    for (uint32_t i = 1; i < 624; i++) {
        m->v[i] = 1812433253u * (m->v[i - 1] ^ m->v[i - 1] >> 30) + i;
    }
    m->at = 624;
}

static uint32_t mt_next(struct mt19937 *m) {
    if (m->at == 624) {
        for (unsigned i = 0; i < 624; i++) {
            uint32_t y = (m->v[i] & 0x80000000u) | (m->v[(i + 1) % 624] & 0x7fffffffu);
            m->v[i] = m->v[(i + 397) % 624] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
        }
        m->at = 0;
    }
    uint32_t y = m->v[m->at++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

static uint32_t mt_below(struct mt19937 *m, uint32_t k) {
    uint32_t x;
    do {
        x = (uint32_t)(mt_next(m) / ((1ull << 32) / k));
    } while (x >= k);
    return x;
}

/* The first host that has room, in an order that depends on the hash only; the least overloaded
 * when none has. */
static uint32_t find_room(const struct lb_hash *cfg, const struct host_list *hosts, uint32_t first,
                          double overload, const struct lb_context *ctx, uint64_t hash) {
    struct mt19937 *mt = xnew(struct mt19937);
    uint32_t *order = xnew_array(uint32_t, hosts->n), best = first;
    mt_init(mt, (uint32_t)hash);
    for (uint32_t i = 0; i < hosts->n; i++) {
        order[i] = i;
    }
    for (uint32_t i = 0; i < hosts->n; i++) {
        uint32_t j = i + mt_below(mt, hosts->n - i), k = order[j];
        order[j] = order[i];
        order[i] = k;
        double o = k == first ? overload : overload_of(cfg, hosts, k, ctx);
        if (o < overload) {
            best = k;
            overload = o;
        }
        if (overload <= 1) {
            break;
        }
    }
    xfree(order);
    xfree(mt);
    return best;
}

static const struct host_entry *bound_load(const struct lb_hash *cfg, const struct host_list *hosts,
                                           uint32_t i, const struct lb_context *ctx,
                                           uint64_t hash) {
    if (!cfg->balance_factor) {
        return hosts->v[i];
    }
    double overload = overload_of(cfg, hosts, i, ctx);
    return hosts->v[overload <= 1 ? i : find_room(cfg, hosts, i, overload, ctx, hash)];
}

static uint64_t hash_of(const struct lb_context *ctx) {
    return ctx->has_hash ? ctx->hash : rng_u64(ctx->rng);
}

/* ---- ring ---- */

static int cmp_points(const void *a, const void *b) {
    const struct ring_point *x = a, *y = b;
    if (x->hash != y->hash) {
        return x->hash < y->hash ? -1 : 1;
    }
    return x->host < y->host ? -1 : x->host > y->host;
}

/* Place points for one host while the running target is not met. Returns the count placed in
 * all. */
static uint32_t place_points(const struct lb_hash *cfg, const struct host_list *hosts,
                             uint32_t host, double target, uint32_t have, struct ring_point *v,
                             uint32_t max) {
    char key[KEY_MAX];
    sv base = host_key(cfg, hosts->v[host]->host);
    size_t n = base.n < KEY_MAX - 16 ? base.n : KEY_MAX - 16;
    memcpy(key, base.p ? base.p : "", n);
    key[n++] = '_';
    for (uint32_t i = 0; (double)have < target && have < max; i++) {
        size_t len = n + (size_t)snprintf(key + n, 12, "%u", i);
        v[have].hash = cfg->is_murmur ? murmur2(key, len) : XXH64(key, len, 0);
        v[have++].host = host;
    }
    return have;
}

static void *ring_build(const void *config, const struct host_list *hosts, struct arena *a) {
    const struct lb_hash *cfg = config;
    double scale = ceil(hosts->share_min * (double)cfg->ring_min) / hosts->share_min;
    scale = scale < (double)cfg->ring_max ? scale : (double)cfg->ring_max;
    uint32_t size = (uint32_t)ceil(scale);
    struct lb_ring *r = arena_new(a, struct lb_ring);
    /* Rounding of the running sum may ask for one more than the ring's size. */
    r->v = arena_alloc(a, sizeof(*r->v) * ((size_t)size + 1));
    double target = 0;
    for (uint32_t i = 0; i < hosts->n; i++) {
        target += scale * hosts->share[i];
        r->n = place_points(cfg, hosts, i, target, r->n, r->v, size + 1);
    }
    qsort(r->v, r->n, sizeof(*r->v), cmp_points);
    return r;
}

/* Index of the first point at or after the hash, around the end. */
static uint32_t ring_find(const struct lb_ring *r, uint64_t hash) {
    uint32_t low = 0, high = r->n;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (r->v[mid].hash < hash) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low == r->n ? 0 : low;
}

static const struct host_entry *ring_pick(void *cursor, const void *config, const void *table,
                                          const struct host_list *hosts,
                                          const struct lb_context *ctx) {
    (void)cursor;
    const struct lb_ring *r = table;
    if (!r || !r->n) {
        return NULL;
    }
    uint64_t hash = hash_of(ctx);
    uint32_t at = ring_find(r, hash);
    if (ctx->attempt) {
        at = (uint32_t)(((uint64_t)at + ctx->attempt) % r->n);
    }
    return bound_load(config, hosts, r->v[at].host, ctx, hash);
}

static void locality_weighted(const LbCommon__LocalityLbConfig__LocalityWeightedLbConfig *m,
                              struct lb_common *c) {
    c->locality_weighted = m != NULL;
}

static void consistent_compile(struct compile_ctx *ctx,
                               const LbCommon__ConsistentHashingLbConfig *m, struct lb_hash *c) {
    if (!m) {
        return;
    }
    DIAG_FIELD(ctx->diag, "consistent_hashing_lb_config");
    c->use_hostname |= m->use_hostname_for_hashing;
    if (m->hash_balance_factor) {
        c->balance_factor = m->hash_balance_factor->value;
        if (c->balance_factor < 100) {
            diag_error(ctx->diag,
                       "hash_balance_factor: value must be greater than or equal to 100");
        }
    }
    if (m->n_hash_policy) {
        diag_error(
            ctx->diag,
            "hash_policy: hash policies of a cluster are not supported, give them on the route");
    }
}

static void *ring_compile(struct compile_ctx *ctx, const void *msg) {
    const LbRingHash__RingHash *m = msg;
    struct lb_hash *c = arena_new(ctx->arena, struct lb_hash);
    lb_common_compile(ctx, NULL, NULL, &c->common);
    c->ring_min = RING_SIZE_MIN_DEFAULT;
    c->ring_max = RING_SIZE_LIMIT;
    if (!m) {
        return c;
    }
    c->is_murmur = m->hash_function == LB_RING_HASH__RING_HASH__HASH_FUNCTION__MURMUR_HASH_2;
    if (m->hash_balance_factor) {
        c->balance_factor = m->hash_balance_factor->value;
        if (c->balance_factor < 100) {
            diag_error(ctx->diag,
                       "hash_balance_factor: value must be greater than or equal to 100");
        }
    }
    c->use_hostname = m->use_hostname_for_hashing;
    consistent_compile(ctx, m->consistent_hashing_lb_config, c);
    locality_weighted(m->locality_weighted_lb_config, &c->common);
    c->ring_min = m->minimum_ring_size ? m->minimum_ring_size->value : c->ring_min;
    c->ring_max = m->maximum_ring_size ? m->maximum_ring_size->value : c->ring_max;
    if (c->ring_min > RING_SIZE_LIMIT || c->ring_max > RING_SIZE_LIMIT || !c->ring_min ||
        !c->ring_max) {
        diag_error(ctx->diag, "ring size must be between 1 and %u", RING_SIZE_LIMIT);
    } else if (c->ring_min > c->ring_max) {
        diag_error(ctx->diag, "ring hash: minimum_ring_size (%llu) > maximum_ring_size (%llu)",
                   (unsigned long long)c->ring_min, (unsigned long long)c->ring_max);
    }
    return c;
}

const struct lb_policy_type ring_hash_lb_policy = {
    .name = "envoy.load_balancing_policies.ring_hash",
    .enum_name = "RING_HASH",
    .type_url = "envoy.extensions.load_balancing_policies.ring_hash.v3.RingHash",
    .is_hashing = true,
    .compile = ring_compile,
    .build = ring_build,
    .pick = ring_pick,
};

/* ---- Maglev ---- */

struct maglev_host {
    sv key;
    uint32_t host; /* index into the list */
    uint64_t offset, skip, next;
    double share, target;
};

static uint32_t slot_of(const struct maglev_host *h, uint32_t size) {
    return (uint32_t)((h->offset + h->skip * h->next) % size);
}

static void maglev_fill(struct lb_maglev *t, struct maglev_host *v, const struct host_list *hosts) {
    uint32_t filled = 0;
    for (uint32_t round = 1; filled < t->n; round++) {
        for (uint32_t i = 0; i < hosts->n && filled < t->n; i++) {
            /* A host of half the greatest share takes a slot every other round. */
            if (round * v[i].share < v[i].target) {
                continue;
            }
            v[i].target += hosts->share_max;
            uint32_t slot = slot_of(&v[i], t->n);
            while (t->v[slot] != UINT32_MAX) {
                v[i].next++;
                slot = slot_of(&v[i], t->n);
            }
            t->v[slot] = v[i].host;
            v[i].next++;
            filled++;
        }
    }
}

static int cmp_maglev_hosts(const void *a, const void *b) {
    const struct maglev_host *x = a, *y = b;
    int rc = sv_cmp(x->key, y->key);
    return rc ? rc : (x->host < y->host ? -1 : 1);
}

static void *maglev_build(const void *config, const struct host_list *hosts, struct arena *a) {
    const struct lb_hash *cfg = config;
    struct lb_maglev *t = arena_new(a, struct lb_maglev);
    t->n = cfg->table_size;
    t->v = arena_alloc(a, sizeof(*t->v) * t->n);
    memset(t->v, 0xff, sizeof(*t->v) * t->n);
    struct maglev_host *v = xnew_array(struct maglev_host, hosts->n);
    for (uint32_t i = 0; i < hosts->n; i++) {
        sv key = host_key(cfg, hosts->v[i]->host);
        v[i].offset = XXH64(key.p, key.n, 0) % t->n;
        v[i].skip = XXH64(key.p, key.n, 1) % (t->n - 1) + 1;
        v[i].key = key;
        v[i].host = i;
        v[i].share = hosts->share[i];
    }
    /* Hosts take turns by name, so that the order they came in does not matter. */
    qsort(v, hosts->n, sizeof(*v), cmp_maglev_hosts);
    maglev_fill(t, v, hosts);
    xfree(v);
    return t;
}

static const struct host_entry *maglev_pick(void *cursor, const void *config, const void *table,
                                            const struct host_list *hosts,
                                            const struct lb_context *ctx) {
    (void)cursor;
    const struct lb_maglev *t = table;
    if (!t) {
        return NULL;
    }
    uint64_t hash = hash_of(ctx), probe = hash;
    if (ctx->attempt) {
        probe ^= ~0ull - ctx->attempt + 1;
    }
    return bound_load(config, hosts, t->v[probe % t->n], ctx, hash);
}

static bool is_prime(uint64_t n) {
    for (uint64_t i = 2; i * i <= n; i++) {
        if (n % i == 0) {
            return false;
        }
    }
    return n > 1;
}

static void *maglev_compile(struct compile_ctx *ctx, const void *msg) {
    const LbMaglev__Maglev *m = msg;
    struct lb_hash *c = arena_new(ctx->arena, struct lb_hash);
    lb_common_compile(ctx, NULL, NULL, &c->common);
    c->table_size = MAGLEV_SIZE_DEFAULT;
    if (!m) {
        return c;
    }
    consistent_compile(ctx, m->consistent_hashing_lb_config, c);
    locality_weighted(m->locality_weighted_lb_config, &c->common);
    if (m->table_size) {
        uint64_t n = m->table_size->value;
        if (n < 2 || n > MAGLEV_SIZE_LIMIT) {
            diag_error(ctx->diag, "table_size: value must be inside range [2, %u]",
                       MAGLEV_SIZE_LIMIT);
            return c;
        }
        if (!is_prime(n)) {
            diag_error(ctx->diag, "The table size of maglev must be prime number");
            return c;
        }
        c->table_size = (uint32_t)n;
    }
    return c;
}

const struct lb_policy_type maglev_lb_policy = {
    .name = "envoy.load_balancing_policies.maglev",
    .enum_name = "MAGLEV",
    .type_url = "envoy.extensions.load_balancing_policies.maglev.v3.Maglev",
    .is_hashing = true,
    .compile = maglev_compile,
    .build = maglev_build,
    .pick = maglev_pick,
};
