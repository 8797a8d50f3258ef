/* A view's connections by host: see pool_table.h. Threads: worker-local. Spec: Envoy's
 * ThreadLocalClusterManager.
 * Not here: connecting (upstream_connect.c), requests and connections (pool_http.c, pool_tcp.c). */
#include "proxy/upstream/pool_table.h"

struct pool_table *pool_table_of(struct cluster_view *v) {
    if (UNLIKELY(!v->pools_)) {
        v->pools_ = xnew(struct pool_table);
        map_init(&v->pools_->hosts);
        map_init(&v->pools_->tcp);
    }
    return v->pools_;
}

static sv host_key(const struct host *h) { return sv_from(&h->id, sizeof(h->id)); }

static struct host_view *find(const struct cluster_view *v, const struct host *h) {
    return v->pools_ ? map_get(&v->pools_->hosts, host_key(h)) : NULL;
}

struct host_view *pool_table_host(struct cluster_view *v, struct host *h) {
    struct pool_table *t = pool_table_of(v);
    struct host_view *hv = map_get(&t->hosts, host_key(h));
    if (LIKELY(hv)) {
        return hv;
    }
    hv = xnew(struct host_view);
    hv->host = shared_ref(h);
    hv->view = v;
    hv->is_listed = true;
    list_init(&hv->http);
    list_init(&hv->tcp);
    map_put(&t->hosts, host_key(hv->host), hv);
    return hv;
}

void host_view_release(struct host_view *hv) {
    if (!hv->is_listed && list_empty(&hv->http) && list_empty(&hv->tcp)) {
        shared_unref(&hv->host->shared);
        xfree(hv);
    }
}

void pool_table_free(struct pool_table *t) {
    if (!t) {
        return;
    }
    size_t it = 0;
    for (struct map_slot *s; (s = map_next(&t->hosts, &it));) {
        struct host_view *hv = s->value;
        map_remove_at(&t->hosts, &it);
        hv->is_listed = false;
        ASSERT(list_empty(&hv->http) && list_empty(&hv->tcp));
        host_view_release(hv);
    }
    map_fini(&t->hosts);
    map_fini(&t->tcp);
    xfree(t);
}

/* Callers hold the view: releasing pools may drop refs on it. */
static void drain(struct host_view *hv) {
    http_pools_drain(hv);
    host_view_release(hv);
}

void pools_drain_host(struct cluster_view *v, const struct host *h) {
    struct host_view *hv = find(v, h);
    if (!hv) {
        return;
    }
    cluster_view_ref(v);
    map_remove(&v->pools_->hosts, host_key(h));
    hv->is_listed = false;
    drain(hv);
    cluster_view_unref(v);
}

bool pools_host_in_use(struct cluster_view *v, const struct host *h) {
    const struct host_view *hv = find(v, h);
    return hv && (!list_empty(&hv->tcp) || http_pools_in_use(hv));
}

static void drain_if(struct cluster_view *v, const struct host_set *keep) {
    if (!v->pools_) {
        return;
    }
    cluster_view_ref(v);
    size_t it = 0;
    for (struct map_slot *s; (s = map_next(&v->pools_->hosts, &it));) {
        struct host_view *hv = s->value;
        if (keep && host_set_has(keep, hv->host)) {
            continue;
        }
        map_remove_at(&v->pools_->hosts, &it);
        hv->is_listed = false;
        drain(hv);
    }
    cluster_view_unref(v);
}

void pools_drain_all(struct cluster_view *v) { drain_if(v, NULL); }

static void close_all(struct host_view *hv, const char *reason) {
    http_pools_close(hv, reason);
    tcp_conns_close(hv, reason);
}

/* Closing calls users back, and they may make new pools: hosts are noted first. */
static void close_where(struct cluster_view *v, bool only_unhealthy, const char *reason) {
    if (!v->pools_) {
        return;
    }
    cluster_view_ref(v);
    struct host **hosts = xnew_array(struct host *, map_count(&v->pools_->hosts));
    size_t it = 0, n = 0;
    for (struct map_slot *s; (s = map_next(&v->pools_->hosts, &it));) {
        struct host_view *hv = s->value;
        if (!only_unhealthy || host_health_of(host_flags(hv->host)) == HOST_UNHEALTHY) {
            hosts[n++] = shared_ref(hv->host);
        }
    }
    for (size_t i = 0; i < n; i++) {
        struct host_view *hv = find(v, hosts[i]);
        if (hv) {
            close_all(hv, reason);
        }
        shared_unref(&hosts[i]->shared);
    }
    xfree(hosts);
    cluster_view_unref(v);
}

void pools_free(struct cluster_view *v) {
    cluster_view_ref(v);
    close_where(v, false, "worker is shutting down");
    pools_drain_all(v); /* the emptied pools go with the loop's tasks */
    cluster_view_unref(v);
}

void pool_table_follow(struct cluster_view *v, bool membership_changed) {
    if (v->cfg->close_connections_on_host_health_failure) {
        close_where(v, true, "host health failure");
    }
    if (membership_changed && v->cfg->close_connections_on_host_set_change) {
        pools_drain_all(v);
        return;
    }
    if (membership_changed && v->cfg->type != CLUSTER_TYPE_ORIGINAL_DST) {
        drain_if(v, v->hosts);
    }
}

const struct transport_options *pool_transport_options(const struct cluster_config *c,
                                                       const struct pool_key *key,
                                                       struct transport_options *own) {
    if (LIKELY(!c->tells_addresses)) {
        return key->transport;
    }
    *own = key->transport ? *key->transport : (struct transport_options){0};
    own->host_tlvs = key->host->extra->proxy_tlvs;
    if (key->addresses) {
        own->addresses = *key->addresses;
    }
    return own;
}

const struct filter_state *pool_shared_state(const struct pool_key *key, struct arena *a) {
    bool is_internal = key->host->addr.family == ADDR_INTERNAL;
    return UNLIKELY(is_internal) ? filter_state_shared(key->filter_state, a) : NULL;
}

struct transport_options *transport_options_dup(const struct transport_options *o,
                                                struct arena *a) {
    if (!o) {
        return NULL;
    }
    struct transport_options *d = arena_new(a, struct transport_options);
    *d = *o;
    d->server_name = arena_sv(a, o->server_name);
    d->host_name = arena_sv(a, o->host_name);
    d->host_tlvs = arena_sv(a, o->host_tlvs);
    transport_addresses_dup(&o->addresses, a, &d->addresses);
    const sv **lists[] = {&d->san_override, &d->alpn_override, &d->alpn_fallback};
    const unsigned counts[] = {o->san_override_n, o->alpn_override_n, o->alpn_fallback_n};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        sv *copy = arena_new_array(a, sv, counts[i]);
        for (unsigned k = 0; k < counts[i]; k++) {
            copy[k] = arena_sv(a, (*lists[i])[k]);
        }
        *lists[i] = copy;
    }
    return d;
}
