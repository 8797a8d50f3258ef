/* Names of STRICT_DNS and LOGICAL_DNS clusters: looked up at start and again and again; the last
 * good answer is kept.
 * Threads: the config thread. Spec: cluster.v3.Cluster.dns_refresh_rate, respect_dns_ttl,
 * dns_failure_refresh_rate.
 * Not here: c-ares (upstream/dns.c), host sets (store_hosts.c). */
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/config/endpoints.h"
#include "proxy/upstream/dns.h"
#include "xds/hosts.h"

#define FAILURE_SHIFT_MAX 16u
/* A cluster that serves nothing yet waits this long for the first answers to its names, then goes
 * on with those it has: a silent resolver holds up neither the start nor other clusters. */
#define FIRST_ANSWER_WAIT_MS 500u

const struct dns_name *store_dns_find(const struct cluster_hosts *h, sv name) {
    const struct cluster_dns *d = h->dns;
    for (unsigned i = 0; d && i < d->names_n; i++) {
        if (sv_eq(d->names[i]->name, name)) {
            return d->names[i];
        }
    }
    return NULL;
}

static bool all_answered(const struct cluster_dns *d) {
    for (unsigned i = 0; i < d->names_n; i++) {
        if (!d->names[i]->is_answered) {
            return false;
        }
    }
    return true;
}

/* ---- when to ask again ---- */

static uint64_t failure_delay_ms(const struct dns_config *c, const struct dns_name *n,
                                 struct rng *rng) {
    unsigned shift = n->failures > FAILURE_SHIFT_MAX ? FAILURE_SHIFT_MAX : n->failures - 1;
    uint64_t window = c->failure_base_ms << shift;
    if (window > c->failure_max_ms) {
        window = c->failure_max_ms;
    }
    return c->failure_base_ms == c->failure_max_ms ? window : 1 + rng_below(rng, window);
}

static uint64_t success_delay_ms(const struct dns_config *c, uint32_t ttl_s, struct rng *rng) {
    uint64_t ms = c->respect_ttl && ttl_s ? (uint64_t)ttl_s * 1000 : c->refresh_ms;
    if (ms < c->min_refresh_ms) {
        ms = c->min_refresh_ms;
    }
    return ms + (c->jitter_ms ? rng_below(rng, c->jitter_ms) : 0);
}

/* ---- lookups ---- */

static bool same_addrs(const struct dns_name *n, const struct dns_answer *v, unsigned count) {
    if (n->addrs_n != count) {
        return false;
    }
    for (unsigned i = 0; i < count; i++) {
        if (!addr_ip_eq(&n->addrs[i], &v[i].addr)) {
            return false;
        }
    }
    return true;
}

static uint32_t keep_answer(struct dns_name *n, const struct dns_answer *v, unsigned count) {
    uint32_t ttl = UINT32_MAX;
    xfree(n->addrs);
    n->addrs = xnew_array(struct addr, count);
    n->addrs_n = count;
    for (unsigned i = 0; i < count; i++) {
        n->addrs[i] = v[i].addr;
        ttl = v[i].ttl_s < ttl ? v[i].ttl_s : ttl;
    }
    return count ? ttl : 0;
}

static void on_answer(void *arg, enum dns_status status, const struct dns_answer *v, unsigned count,
                      sv details) {
    struct dns_name *n = arg;
    struct cluster_hosts *h = n->hosts;
    struct loop *l = h->entry->store->loop;
    struct stats_shard *st = stats_front(h->cfg->stats);
    const struct dns_config *c = h->cfg->dns;
    n->lookup = NULL;
    bool was_ready = h->is_ready;
    n->is_answered = true;
    if (status == DNS_FAILED) {
        n->failures++;
        stats_inc(st, CLUSTER_update_failure);
        log_debug(LOG_upstream, "DNS lookup of '%.*s' failed: %.*s", SV_ARG(n->name),
                  SV_ARG(details));
        timer_start(&n->refresh, failure_delay_ms(c, n, &l->rng));
        h->is_ready |= all_answered(h->dns);
        if (!was_ready && h->is_ready) {
            store_hosts_changed(h);
        }
        return;
    }
    n->failures = 0;
    bool is_same = same_addrs(n, v, count);
    uint32_t ttl = keep_answer(n, v, count);
    stats_inc(st, count ? CLUSTER_update_success : CLUSTER_update_empty);
    timer_start(&n->refresh, success_delay_ms(c, ttl, &l->rng));
    h->is_ready |= all_answered(h->dns);
    if (!is_same || !was_ready) {
        store_hosts_changed(h);
    } else {
        stats_inc(st, CLUSTER_update_no_rebuild);
    }
}

static void look_up(struct dns_name *n) {
    struct cluster_hosts *h = n->hosts;
    stats_inc(stats_front(h->cfg->stats), CLUSTER_update_attempt);
    n->lookup = dns_resolve_start(h->dns->resolver, n->name, h->cfg->dns->family, on_answer, n);
}

static void on_refresh(struct timer *t) { look_up(CONTAINER_OF(t, struct dns_name, refresh)); }

static void add_name(struct cluster_hosts *h, sv name) {
    if (store_dns_find(h, name)) {
        return;
    }
    struct dns_name *n = xnew(struct dns_name);
    n->hosts = h;
    n->name = name; /* lives in the cluster's resource, which h pins */
    timer_init(&n->refresh, h->entry->store->loop, on_refresh);
    if (!h->dns) {
        h->dns = xnew(struct cluster_dns);
        h->dns->hosts = h;
    }
    struct cluster_dns *d = h->dns;
    d->names = xreallocarray(d->names, d->names_n + 1, sizeof(*d->names));
    d->names[d->names_n++] = n;
}

static void on_wait_over(struct timer *t) {
    const struct cluster_dns *d = CONTAINER_OF(t, struct cluster_dns, wait);
    struct cluster_hosts *h = d->hosts;
    if (h->is_ready) {
        return;
    }
    for (unsigned i = 0; i < d->names_n; i++) {
        if (!d->names[i]->is_answered) {
            log_warn(LOG_upstream,
                     "cluster '%.*s' goes on without an answer to its DNS name '%.*s'",
                     SV_ARG(h->cfg->name), SV_ARG(d->names[i]->name));
        }
    }
    h->is_ready = true;
    store_hosts_changed(h);
}

void store_dns_start(struct cluster_hosts *h) {
    struct store *s = h->entry->store;
    const struct cla_config *cla = h->cfg->endpoints;
    for (unsigned i = 0; cla && i < cla->endpoints_n; i++) {
        if (!cla->endpoints[i].addr.family) {
            add_name(h, cla->endpoints[i].extra->dns_name);
        }
    }
    struct cluster_dns *d = h->dns;
    h->is_ready = !d;
    if (h->is_ready || s->opt.is_dry_run) {
        return;
    }
    d->resolver = dns_resolver_get(s->loop, s->opt.stats, &h->cfg->dns->resolver);
    for (unsigned i = 0; i < d->names_n; i++) {
        look_up(d->names[i]);
    }
    timer_init(&d->wait, s->loop, on_wait_over);
    if (!h->entry->active) { /* else the version before serves on until all names are answered */
        timer_start(&d->wait, FIRST_ANSWER_WAIT_MS);
    }
}

void store_dns_stop(struct cluster_hosts *h) {
    struct cluster_dns *d = h->dns;
    if (!d) {
        return;
    }
    h->dns = NULL;
    timer_cancel(&d->wait);
    for (unsigned i = 0; i < d->names_n; i++) {
        struct dns_name *n = d->names[i];
        timer_cancel(&n->refresh);
        if (n->lookup) {
            dns_resolve_cancel(n->lookup);
        }
        xfree(n->addrs);
        xfree(n);
    }
    xfree(d->names);
    if (d->resolver) {
        dns_resolver_unref(d->resolver);
    }
    xfree(d);
}
