/* The config thread's side of DNS caches (api/dns_cache.h): hosts, their lookups again and again,
 * their end when nobody asks for them any more.
 * Threads: the config thread, but for the atomics. Spec:
 * extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig; Envoy's DnsCacheImpl. */
#ifndef SLUICE_UPSTREAM_DNS_CACHE_H
#define SLUICE_UPSTREAM_DNS_CACHE_H

#include "proxy/api/dns_cache.h"
#include "proxy/base/map.h"
#include "proxy/base/shared.h"
#include "proxy/upstream/dns.h"

#define DNS_CACHE_STATS(P, C, G, H, T) \
    C(P, cache_load)                   \
    C(P, dns_address_filter_out)       \
    C(P, dns_query_attempt)            \
    C(P, dns_query_failure)            \
    C(P, dns_query_success)            \
    C(P, dns_query_timeout)            \
    C(P, dns_rq_pending_overflow)      \
    C(P, host_added)                   \
    C(P, host_address_changed) C(P, host_overflow) C(P, host_removed) G(P, num_hosts)
STATS_ENUM(DNS_CACHE, DNS_CACHE_STATS);

/* When a host was last picked: the cache's, shared with the hosts of clusters made of it. */
struct dns_use {
    struct shared shared;
    uint64_t last_us; /* loop time; atomic */
};
static inline void dns_use_touch(struct dns_use *u, uint64_t now_us) {
    __atomic_store_n(&u->last_us, now_us, __ATOMIC_RELAXED);
}

struct dns_cache_config {
    enum dns_family family;
    struct dns_resolver_config resolver;
    uint64_t refresh_ms, min_refresh_ms, host_ttl_ms, query_timeout_ms; /* timeout 0: none */
    uint64_t failure_base_ms, failure_max_ms; /* base 0: as long as after a success */
    uint32_t hosts_max, pending_max;
    bool is_failure_final; /* disable_dns_refresh_on_failure */
    /* resolved_address_filter: addresses in (or, inverted, outside) these are not taken */
    const struct cidr *denied;
    unsigned denied_n;
    bool is_denial_inverted;
    const sv *preresolved; /* keys */
    unsigned preresolved_n;
};

struct dns_caches; /* of the process */
struct dns_cache {
    struct list node; /* of all */
    struct dns_caches *owner;
    /* immutable */
    struct arena arena;
    sv name, wire; /* wire: the settings' bytes */
    struct dns_cache_config cfg;
    struct stats_scope *stats;
    /* shared, atomic */
    uint32_t refs, pending;
    /* config thread */
    struct map hosts;  /* by key → struct dns_host */
    struct list users; /* struct dns_cache_user */
    struct dns_resolver *resolver;
};
void dns_cache_ref(struct dns_cache *c);   /* while one is held; any thread */
void dns_cache_unref(struct dns_cache *c); /* any thread; it goes when the config thread looks */

/* l NULL: nothing is ever looked up (--mode validate). */
struct dns_caches *dns_caches_new(struct loop *l, struct stats_store *stats);
void dns_caches_sweep(struct dns_caches *s); /* those without refs go */
void dns_caches_stop(struct dns_caches *s);  /* no lookups from now on: nothing more is told */
void dns_caches_free(struct dns_caches *s);  /* last of all; NULL is fine */
/* Those of ctx's configuration. config/compile.c */
struct dns_caches *compile_dns_caches(struct compile_ctx *ctx);
/* The cache of that name, NULL: there is none. */
struct dns_cache *dns_caches_find(const struct dns_caches *s, sv name);
/* A cache with one ref that nobody finds before it is started; its cfg is filled in meanwhile, what
 * it points to in the cache's arena. */
struct dns_cache *dns_cache_new(struct dns_caches *s, sv name, sv wire);
void dns_cache_start(struct dns_cache *c);   /* preresolved hosts are looked up */
void dns_cache_discard(struct dns_cache *c); /* in place of starting it */

/* dns_cache_config.c. m: DnsCacheConfig. What `out` points to is in ctx->arena. False: errors. */
bool dns_cache_config_compile(struct compile_ctx *ctx, const void *m, struct dns_cache_config *out);

/* Told of each host that came, changed or went. */
struct dns_cache_user {
    struct list node;
    void (*on_change)(struct dns_cache_user *u);
};
void dns_cache_add_user(struct dns_cache *c, struct dns_cache_user *u);
static inline void dns_cache_remove_user(struct dns_cache_user *u) { list_unlink(&u->node); }

/* A host of the cache; n: it has addresses. */
struct dns_host_view {
    sv key;
    const struct addr *addrs; /* with their port; the first is the one in use */
    unsigned n;
    struct dns_use *use;
};
/* Iterate over hosts with addresses: size_t it = 0. */
bool dns_cache_next(const struct dns_cache *c, size_t *it, struct dns_host_view *out);

struct dns_query {
    struct list node; /* unlinked when nothing is awaited */
    void (*on_done)(struct dns_query *q, const struct dns_result *r);
};
/* The host with that key, looked up if it is not there yet. True: *out is the answer. False:
 * q->on_done tells; q NULL: nobody waits for it. */
bool dns_cache_load(struct dns_cache *c, sv key, struct dns_query *q, struct dns_result *out);
void dns_query_cancel(struct dns_query *q);

/* An authority as Envoy takes it apart: what follows the last colon is the port, if it is one;
 * brackets come off around IP addresses only. */
struct dns_authority {
    sv host;
    uint16_t port;
    bool has_port;
};
struct dns_authority dns_authority_parse(sv text);

#endif
