/* DNS caches: see dns_cache.h. A host is made by the first who asks for it; it is looked up again
 * as its answer's TTL says, and gone when, as that is due, nobody picked it for host_ttl.
 * Threads: the config thread; refs and the breaker are atomic.
 * Not here: c-ares (dns.c), clusters' hosts made of these (xds/store_hosts.c), who waits on a
 * worker (server/on_demand.c). */
#include "proxy/upstream/dns_cache.h"

#include <stdio.h>

#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/event/timer.h"
#include "proxy/upstream/cluster.h"

#define CACHE_ARENA_BYTES 512
#define FAILURE_SHIFT_MAX 16u
#define MS_PER_S 1000u

/* computed: the breaker's */
enum { STAT_RQ_PENDING_OPEN = DNS_CACHE_STATS_N, STAT_RQ_PENDING_REMAINING, STATS_ALL };

struct dns_caches {
    struct loop *loop; /* NULL: nothing is looked up */
    struct stats_store *stats;
    struct list list;
    bool is_stopped;
};

/* ---- stats ---- */

static const struct stat_def stat_defs[] = {
    DNS_CACHE_STATS(, STATS_DEF_C_, STATS_DEF_G_, STATS_DEF_H_, STATS_DEF_T_) //
    {"circuit_breakers.rq_pending_open", STAT_GAUGE, STAT_UNIT_NONE},
    {"circuit_breakers.rq_pending_remaining", STAT_GAUGE, STAT_UNIT_NONE},
};

static bool read_pending(const void *source, unsigned i, uint64_t *value) {
    const struct dns_cache *c = source;
    uint32_t used = __atomic_load_n(&c->pending, __ATOMIC_RELAXED);
    uint32_t left = used < c->cfg.pending_max ? c->cfg.pending_max - used : 0;
    /* as Envoy's, which is set when a request is counted: none is where none may wait */
    *value = i == STAT_RQ_PENDING_OPEN ? !left && c->cfg.pending_max : left;
    return true;
}

static const struct stats_group dns_cache_stats_group = {
    .name = "dns_cache",
    .defs = stat_defs,
    .n = ARRAY_LEN(stat_defs),
    .computed_n = STATS_ALL - DNS_CACHE_STATS_N,
    .used_with = DNS_CACHE_num_hosts,
    .read = read_pending,
};

/* ---- names ---- */

/* 0…65535 in decimal, a '+' before it allowed: what Envoy takes for a port. */
static bool port_parse(sv text, uint16_t *out) {
    uint64_t n;
    sv_eat(&text, SV("+"));
    if (!sv_to_u64(text, &n) || n > UINT16_MAX) {
        return false;
    }
    *out = (uint16_t)n;
    return true;
}

struct dns_authority dns_authority_parse(sv text) {
    struct dns_authority a = {.host = text};
    size_t colon = sv_rfind(text, ':');
    if (colon != SIZE_MAX && text.p[text.n - 1] != ']' &&
        port_parse(sv_skip(text, colon + 1), &a.port)) {
        a.has_port = true;
        a.host = sv_sub(text, 0, colon);
    }
    struct addr ip;
    sv inner = a.host.n >= 2 ? sv_sub(a.host, 1, a.host.n - 2) : SV_NULL;
    if (inner.n && a.host.p[0] == '[' && a.host.p[a.host.n - 1] == ']' &&
        addr_parse_ip(inner, 0, &ip)) {
        a.host = inner;
    }
    return a;
}

sv dns_cache_key(sv authority, uint16_t port, char room[DNS_CACHE_KEY_MAX]) {
    if (!authority.n || authority.n > DNS_CACHE_KEY_MAX) {
        return SV_NULL;
    }
    if (dns_authority_parse(authority).has_port) {
        return authority;
    }
    char text[sizeof(":65535")];
    int n = snprintf(text, sizeof(text), ":%u", port);
    if (authority.n + (size_t)n > DNS_CACHE_KEY_MAX) {
        return SV_NULL;
    }
    memcpy(room, authority.p, authority.n);
    memcpy(room + authority.n, text, (size_t)n);
    return sv_from(room, authority.n + (size_t)n);
}

/* ---- hosts ---- */

struct dns_host {
    struct dns_cache *cache;
    sv key, name; /* name: what is looked up */
    uint16_t port;
    bool is_known; /* the first lookup is over, one way or the other */
    struct addr *addrs;
    unsigned addrs_n;
    struct addr front; /* of the last answer; family 0: none yet */
    char details[DNS_DETAILS_MAX];
    struct dns_use *use;
    struct dns_lookup *lookup; /* under way; NULL */
    struct timer refresh, timeout;
    unsigned failures;    /* in a row */
    uint64_t interval_ms; /* of the last success */
    struct list queries;
    char text_[];
};

static void use_free(struct shared *s) { xfree(CONTAINER_OF(s, struct dns_use, shared)); }

static struct stats_shard *shard(const struct dns_cache *c) {
    return stats_shard(c->stats, c->owner->loop->thread_index);
}

static void tell_users(struct dns_cache *c) {
    LIST_FOREACH_SAFE (n, &c->users) {
        struct dns_cache_user *u = LIST_ENTRY(n, struct dns_cache_user, node);
        u->on_change(u);
    }
}

static void result_of(const struct dns_host *h, struct dns_result *out) {
    out->outcome = h->addrs_n ? DNS_FOUND : DNS_UNKNOWN;
    out->addr = h->addrs_n ? h->addrs[0] : (struct addr){0};
    memcpy(out->details, h->details, sizeof(out->details));
}

static void answer_queries(struct dns_host *h) {
    struct dns_result r = {.was_cached = false};
    result_of(h, &r);
    while (!list_empty(&h->queries)) {
        struct dns_query *q = LIST_ENTRY(list_first(&h->queries), struct dns_query, node);
        list_unlink(&q->node);
        q->on_done(q, &r);
    }
}

void dns_query_cancel(struct dns_query *q) { list_unlink(&q->node); }

static void stop_lookup(struct dns_host *h) {
    timer_cancel(&h->timeout);
    timer_cancel(&h->refresh);
    if (h->lookup) {
        dns_resolve_cancel(h->lookup);
        h->lookup = NULL;
    }
}

static void host_free(struct dns_host *h) {
    stop_lookup(h);
    shared_unref(&h->use->shared);
    xfree(h->addrs);
    xfree(h);
}

static void host_remove(struct dns_host *h) {
    struct dns_cache *c = h->cache;
    ASSERT(list_empty(&h->queries));
    map_remove(&c->hosts, h->key);
    stats_inc(shard(c), DNS_CACHE_host_removed);
    stats_gauge_dec(shard(c), DNS_CACHE_num_hosts);
    bool had_addresses = h->addrs_n > 0;
    host_free(h);
    if (had_addresses) {
        tell_users(c);
    }
}

/* ---- answers ---- */

/* "cares_failure:Timeout_while_contacting_DNS_servers" */
static void note_details(struct dns_host *h, const char *kind, sv text) {
    int n = snprintf(h->details, sizeof(h->details), "dns_resolution_failure{%s%.*s", kind,
                     (int)(text.n < DNS_DETAILS_MAX / 2 ? text.n : DNS_DETAILS_MAX / 2), text.p);
    for (int i = 0; i < n; i++) {
        h->details[i] = h->details[i] == ' ' ? '_' : h->details[i];
    }
    h->details[n] = '}';
    h->details[n + 1] = '\0';
}

static bool is_denied(const struct dns_cache_config *c, const struct addr *a) {
    if (!c->denied_n) {
        return false;
    }
    bool is_within = false;
    for (unsigned i = 0; i < c->denied_n && !is_within; i++) {
        is_within = cidr_contains(&c->denied[i], a);
    }
    return is_within != c->is_denial_inverted;
}

struct answer {
    struct addr *addrs; /* a heap array */
    unsigned n;
    uint32_t ttl_s; /* the least */
    unsigned denied;
};

static struct answer take_answer(const struct dns_host *h, const struct dns_answer *v, unsigned n) {
    struct answer a = {.addrs = xnew_array(struct addr, n), .ttl_s = UINT32_MAX};
    for (unsigned i = 0; i < n; i++) {
        if (is_denied(&h->cache->cfg, &v[i].addr)) {
            a.denied++;
            continue;
        }
        a.addrs[a.n] = v[i].addr;
        a.addrs[a.n++].port = h->port;
        a.ttl_s = v[i].ttl_s < a.ttl_s ? v[i].ttl_s : a.ttl_s;
    }
    return a;
}

static unsigned index_of(const struct addr *v, unsigned n, const struct addr *a) {
    unsigned i = 0;
    while (i < n && !addr_eq(&v[i], a)) {
        i++;
    }
    return i;
}

/* The same addresses, in whatever order? */
static bool same_addrs(const struct dns_host *h, const struct answer *a) {
    bool same = a->n == h->addrs_n;
    for (unsigned i = 0; same && i < a->n; i++) {
        same = index_of(h->addrs, h->addrs_n, &a->addrs[i]) < h->addrs_n;
    }
    return same;
}

/* Servers that turn their answers round move no connections: the address in use stays the first
 * while it is among them. Takes a->addrs. True: addresses came or went. */
static bool keep_answer(struct dns_host *h, struct answer *a) {
    bool is_changed = !same_addrs(h, a);
    if (is_changed || !addr_eq(&h->front, &a->addrs[0])) {
        stats_inc(shard(h->cache), DNS_CACHE_host_address_changed);
    }
    h->front = a->addrs[0];
    if (!is_changed) {
        xfree(a->addrs);
        return false;
    }
    unsigned used = h->addrs_n ? index_of(a->addrs, a->n, &h->addrs[0]) : a->n;
    if (used < a->n) {
        struct addr first = a->addrs[0];
        a->addrs[0] = a->addrs[used];
        a->addrs[used] = first;
    }
    xfree(h->addrs);
    h->addrs = a->addrs;
    h->addrs_n = a->n;
    return true;
}

static uint64_t failure_delay_ms(const struct dns_host *h) {
    const struct dns_cache_config *c = &h->cache->cfg;
    if (!c->failure_base_ms) {
        return h->interval_ms;
    }
    unsigned shift = h->failures > FAILURE_SHIFT_MAX ? FAILURE_SHIFT_MAX : h->failures - 1;
    uint64_t window = c->failure_base_ms << shift;
    window = window < c->failure_max_ms ? window : c->failure_max_ms;
    return 1 + rng_below(&h->cache->owner->loop->rng, window);
}

/* When the next lookup is due. */
static uint64_t success_delay_ms(const struct dns_host *h, const struct answer *a) {
    const struct dns_cache_config *c = &h->cache->cfg;
    uint64_t ms = a->n ? (uint64_t)a->ttl_s * MS_PER_S : c->refresh_ms;
    return ms < c->min_refresh_ms ? c->min_refresh_ms : ms;
}

/* A lookup is over; the host may be gone afterwards. */
static void finish(struct dns_host *h, enum dns_status status, const struct dns_answer *v,
                   unsigned n) {
    struct dns_cache *c = h->cache;
    timer_cancel(&h->timeout);
    h->lookup = NULL;
    stats_inc(shard(c),
              status == DNS_OK ? DNS_CACHE_dns_query_success : DNS_CACHE_dns_query_failure);
    struct answer a = take_answer(h, v, n);
    stats_add(shard(c), DNS_CACHE_dns_address_filter_out, a.denied);
    if (a.denied && !a.n) {
        note_details(h, "address_denied", SV_NULL);
    }
    if (status == DNS_OK) {
        h->failures = 0;
        h->interval_ms = success_delay_ms(h, &a);
        timer_start(&h->refresh, h->interval_ms);
    } else {
        h->failures++;
        timer_start(&h->refresh, failure_delay_ms(h));
    }
    bool is_changed = false;
    if (a.n) {
        is_changed = keep_answer(h, &a);
    } else {
        xfree(a.addrs);
    }
    h->is_known = true;
    if (is_changed) {
        tell_users(c);
    }
    answer_queries(h);
    if (status == DNS_FAILED && c->cfg.is_failure_final) {
        host_remove(h);
    }
}

static void on_answer(void *arg, enum dns_status status, const struct dns_answer *v, unsigned n,
                      sv details) {
    struct dns_host *h = arg;
    note_details(h, status == DNS_OK ? "cares_norecords:" : "cares_failure:", details);
    finish(h, status, v, n);
}

static void on_timeout(struct timer *t) {
    struct dns_host *h = CONTAINER_OF(t, struct dns_host, timeout);
    stats_inc(shard(h->cache), DNS_CACHE_dns_query_timeout);
    dns_resolve_cancel(h->lookup);
    note_details(h, "resolve_timeout", SV_NULL);
    finish(h, DNS_FAILED, NULL, 0);
}

static void look_up(struct dns_host *h) {
    struct dns_cache *c = h->cache;
    stats_inc(shard(c), DNS_CACHE_dns_query_attempt);
    h->lookup = dns_resolve_start(c->resolver, h->name, c->cfg.family, on_answer, h);
    if (c->cfg.query_timeout_ms) {
        timer_start(&h->timeout, c->cfg.query_timeout_ms);
    }
}

static void on_refresh(struct timer *t) {
    struct dns_host *h = CONTAINER_OF(t, struct dns_host, refresh);
    struct dns_cache *c = h->cache;
    if (!__atomic_load_n(&c->refs, __ATOMIC_ACQUIRE)) {
        dns_caches_sweep(c->owner);
        return;
    }
    uint64_t idle_us = loop_now_us(c->owner->loop);
    uint64_t last_us = __atomic_load_n(&h->use->last_us, __ATOMIC_RELAXED);
    idle_us = idle_us > last_us ? idle_us - last_us : 0; /* a worker's clock may be ahead */
    if (idle_us > c->cfg.host_ttl_ms * 1000) {
        host_remove(h);
    } else {
        look_up(h);
    }
}

static struct dns_host *host_add(struct dns_cache *c, sv key) {
    struct dns_host *h = (struct dns_host *)xcalloc(1, sizeof(*h) + key.n + 1);
    memcpy(h->text_, key.p, key.n);
    h->cache = c;
    h->key = sv_from(h->text_, key.n);
    struct dns_authority a = dns_authority_parse(h->key);
    h->name = a.host;
    h->port = a.port;
    h->interval_ms = c->cfg.refresh_ms;
    h->use = xnew(struct dns_use);
    shared_init(&h->use->shared, use_free);
    dns_use_touch(h->use, loop_now_us(c->owner->loop));
    timer_init(&h->refresh, c->owner->loop, on_refresh);
    timer_init(&h->timeout, c->owner->loop, on_timeout);
    list_init(&h->queries);
    map_put(&c->hosts, h->key, h);
    stats_inc(shard(c), DNS_CACHE_host_added);
    stats_gauge_inc(shard(c), DNS_CACHE_num_hosts);
    return h;
}

bool dns_cache_load(struct dns_cache *c, sv key, struct dns_query *q, struct dns_result *out) {
    *out = (struct dns_result){.outcome = DNS_UNKNOWN, .was_cached = true};
    if (!c->owner->loop || c->owner->is_stopped) {
        return true;
    }
    struct dns_host *h = map_get(&c->hosts, key);
    if (h && h->is_known) {
        result_of(h, out);
        return true;
    }
    if (!h && map_count(&c->hosts) >= c->cfg.hosts_max) {
        stats_inc(shard(c), DNS_CACHE_host_overflow);
        out->outcome = DNS_HOSTS_OVERFLOW;
        return true;
    }
    if (!h) {
        h = host_add(c, key);
        look_up(h);
    }
    if (q) {
        list_push_back(&h->queries, &q->node);
    }
    return false;
}

bool dns_cache_next(const struct dns_cache *c, size_t *it, struct dns_host_view *out) {
    struct map_slot *s;
    while ((s = map_next(&c->hosts, it))) {
        const struct dns_host *h = s->value;
        if (h->addrs_n) {
            *out = (struct dns_host_view){h->key, h->addrs, h->addrs_n, h->use};
            return true;
        }
    }
    return false;
}

void dns_cache_add_user(struct dns_cache *c, struct dns_cache_user *u) {
    list_push_back(&c->users, &u->node);
}

/* ---- the breaker ---- */

bool dns_cache_pending_try(struct dns_cache *c, const struct loop *l) {
    if (breaker_try(&c->pending, c->cfg.pending_max)) {
        return true;
    }
    stats_inc(stats_shard(c->stats, l->thread_index), DNS_CACHE_dns_rq_pending_overflow);
    return false;
}

void dns_cache_pending_release(struct dns_cache *c) { breaker_release(&c->pending); }

/* ---- caches ---- */

void dns_cache_ref(struct dns_cache *c) { __atomic_add_fetch(&c->refs, 1, __ATOMIC_RELAXED); }

void dns_cache_unref(struct dns_cache *c) { __atomic_sub_fetch(&c->refs, 1, __ATOMIC_RELEASE); }

static void stop(struct dns_cache *c) {
    size_t it = 0;
    struct map_slot *s;
    while ((s = map_next(&c->hosts, &it))) {
        stop_lookup(s->value);
    }
    if (c->resolver) {
        dns_resolver_unref(c->resolver);
        c->resolver = NULL;
    }
}

struct dns_cache *dns_caches_find(const struct dns_caches *s, sv name) {
    LIST_FOREACH (n, &s->list) {
        struct dns_cache *c = LIST_ENTRY(n, struct dns_cache, node);
        if (sv_eq(c->name, name)) {
            return c;
        }
    }
    return NULL;
}

struct dns_cache *dns_cache_new(struct dns_caches *s, sv name, sv wire) {
    struct arena a;
    arena_init(&a, CACHE_ARENA_BYTES);
    struct dns_cache *c = arena_new(&a, struct dns_cache);
    c->arena = a;
    c->owner = s;
    c->name = arena_sv(&c->arena, name);
    c->wire = arena_sv(&c->arena, wire);
    c->refs = 1;
    map_init(&c->hosts);
    list_init(&c->users);
    return c;
}

void dns_cache_start(struct dns_cache *c) {
    struct dns_caches *s = c->owner;
    struct buf BUF_AUTO prefix;
    buf_init(&prefix);
    buf_printf(&prefix, "dns_cache.%.*s.", SV_ARG(c->name));
    c->stats =
        stats_scope_get(s->stats, &dns_cache_stats_group, buf_pullup(&prefix, buf_len(&prefix)));
    stats_scope_set_source(c->stats, c);
    list_push_back(&s->list, &c->node);
    if (!s->loop) {
        return;
    }
    stats_gauge_set(shard(c), DNS_CACHE_num_hosts, 0);
    c->resolver = dns_resolver_get(s->loop, s->stats, &c->cfg.resolver);
    for (unsigned i = 0; i < c->cfg.preresolved_n; i++) {
        struct dns_result r;
        dns_cache_load(c, c->cfg.preresolved[i], NULL, &r);
    }
}

void dns_cache_discard(struct dns_cache *c) {
    struct arena a = c->arena; /* the cache itself lies in it */
    arena_fini(&a);
}

static void cache_free(struct dns_cache *c) {
    ASSERT(list_empty(&c->users));
    stop(c);
    size_t it = 0;
    struct map_slot *s;
    while ((s = map_next(&c->hosts, &it))) {
        host_free(s->value);
    }
    map_fini(&c->hosts);
    list_unlink(&c->node);
    stats_scope_forget_source(c->stats, c);
    stats_scope_unref(c->stats);
    dns_cache_discard(c);
}

void dns_caches_sweep(struct dns_caches *s) {
    LIST_FOREACH_SAFE (n, &s->list) {
        struct dns_cache *c = LIST_ENTRY(n, struct dns_cache, node);
        if (!__atomic_load_n(&c->refs, __ATOMIC_ACQUIRE)) {
            cache_free(c);
        }
    }
}

struct dns_caches *dns_caches_new(struct loop *l, struct stats_store *stats) {
    struct dns_caches *s = xnew(struct dns_caches);
    s->loop = l;
    s->stats = stats;
    list_init(&s->list);
    return s;
}

void dns_caches_stop(struct dns_caches *s) {
    s->is_stopped = true;
    LIST_FOREACH (n, &s->list) {
        stop(LIST_ENTRY(n, struct dns_cache, node));
    }
}

void dns_caches_free(struct dns_caches *s) {
    if (!s) {
        return;
    }
    LIST_FOREACH_SAFE (n, &s->list) {
        cache_free(LIST_ENTRY(n, struct dns_cache, node));
    }
    xfree(s);
}
