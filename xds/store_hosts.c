/* Endpoints of clusters: from load_assignment, EDS and DNS to host sets in the snapshot. A version
 * that waits has its own, beside those of the version that serves, which go on.
 * Threads: the config thread. Spec: cluster.v3.Cluster discovery types, endpoint.v3.
 * Not here: resolving (store_dns.c), loads and lists (upstream/host_set.c). */
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/config/endpoints.h"
#include "proxy/observe/metadata.h"
#include "proxy/upstream/host_set.h"
#include "proxy/upstream/lb_subset.h"
#include "xds/hosts.h"
#include "xds/leds.h"

/* ---- metadata of endpoints ---- */

static sv string_at(const struct kv_metadata *m, sv ns, sv key) {
    const struct kv_value *v = m ? kv_metadata_get(m, ns, &key, 1) : NULL;
    return v && v->kind == KV_STRING ? v->s : SV_NULL;
}

static bool is_canary(const struct kv_metadata *m) {
    sv key = SV("canary");
    const struct kv_value *v = m ? kv_metadata_get(m, SV("envoy.lb"), &key, 1) : NULL;
    return v && v->kind == KV_BOOL && v->b;
}

/* The first transport socket match all of whose fields the endpoint has. */
static uint16_t transport_match(const struct cluster_config *c, const struct kv_metadata *m) {
    const struct kv_value *have =
        m ? kv_metadata_namespace(m, SV("envoy.transport_socket_match")) : NULL;
    for (unsigned i = 0; i < c->transport_matches_n; i++) {
        const struct kv_struct *want = &c->transport_matches[i].match->fields;
        uint32_t k = 0;
        for (; k < want->n; k++) {
            const struct kv_value *v = have ? kv_get(have, want->v[k].key) : NULL;
            if (!v || !kv_eq(v, &want->v[k].value)) {
                break;
            }
        }
        if (k == want->n) {
            return (uint16_t)i;
        }
    }
    return UINT16_MAX;
}

/* ---- building ---- */

static void add_host(struct host_set_builder *b, const struct cluster_config *c, unsigned locality,
                     const struct cla_endpoint *e, const struct addr *addr) {
    const struct cla_endpoint_extra *x = e->extra;
    struct host_spec spec = {
        .addr = *addr,
        .additional = x->additional,
        .additional_n = x->additional_n,
        .hostname = x->hostname.n ? x->hostname : x->dns_name,
        .health_check_hostname = x->health_check_hostname,
        .health_check_addr = x->health_check_addr,
        .health_check_disabled = e->health_check_disabled,
        .is_canary = is_canary(e->metadata),
        .hash_key = string_at(e->metadata, SV("envoy.lb"), SV("hash_key")),
        .proxy_tlvs = x->proxy_tlvs,
        .metadata = e->metadata,
    };
    if (x->health_check_port && !spec.health_check_addr.family) {
        spec.health_check_addr = *addr;
        spec.health_check_addr.port = x->health_check_port;
    }
    host_set_builder_add(b, locality, &spec, e->weight, transport_match(c, e->metadata),
                         host_flags_of_eds(e->health_status));
}

/* The addresses of an endpoint: its own, or those its name resolved to. */
static void add_endpoint(struct cluster_hosts *h, struct host_set_builder *b, unsigned locality,
                         const struct cla_endpoint *e) {
    if (e->addr.family) {
        add_host(b, h->cfg, locality, e, &e->addr);
        return;
    }
    const struct dns_name *name = store_dns_find(h, e->extra->dns_name);
    unsigned n = name ? name->addrs_n : 0;
    if (h->cfg->type == CLUSTER_TYPE_LOGICAL_DNS && n > 1) {
        n = 1;
    }
    for (unsigned k = 0; k < n; k++) {
        struct addr a = name->addrs[k];
        a.port = e->addr.port;
        add_host(b, h->cfg, locality, e, &a);
    }
}

/* Those of a DNS cache, told apart by their names. */
static void add_dynamic_hosts(struct cluster_hosts *h, struct host_set_builder *b) {
    unsigned locality = host_set_builder_locality(b, 0, &(struct locality){.region = SV_NULL}, 0);
    struct dns_host_view v;
    for (size_t it = 0; dns_cache_next(h->cfg->dns_cache, &it, &v);) {
        struct host_spec spec = {
            .addr = v.addrs[0],
            .additional = v.addrs + 1,
            .additional_n = v.n - 1,
            .hostname = v.key,
            .use = v.use,
        };
        host_set_builder_add(b, locality, &spec, 1, UINT16_MAX, 0);
    }
}

/* Each priority whose members changed is an update of its own. Those of a cluster that workers have
 * already are the cluster manager's, too. */
static void count_changes(const struct cluster_hosts *h, const struct host_set *now,
                          unsigned priorities) {
    struct stats_shard *st = stats_front(h->cfg->stats);
    const struct entry *e = h->entry;
    unsigned without_match = 0;
    for (unsigned i = 0; i < now->hosts_n; i++) {
        without_match += now->entries[i].transport_match == UINT16_MAX;
    }
    stats_add(st, CLUSTER_default_total_match_count, without_match);
    stats_add(st, CLUSTER_membership_change, priorities);
    if (h->set && e->active == h->resource) {
        stats_add(e->store->cluster_manager, CLUSTER_MANAGER_cluster_updated, priorities);
    }
}

static struct host_set *build(struct cluster_hosts *h, const struct cla_config *cla) {
    struct host_set_diff diff = {0};
    struct loop *l = h->entry->store->loop;
    struct host_set_builder *b = host_set_builder_new(h->cfg, h->set, loop_now_us(l));
    if (h->cfg->health_check) {
        host_set_builder_checked(b);
    }
    host_set_builder_policy(b, cla->overprovisioning_factor, cla->weighted_priority_health);
    if (cla->drop_denominator) {
        host_set_builder_drop(b, cla->drop_numerator, cla->drop_denominator);
    }
    unsigned *handles = xnew_array(unsigned, cla->localities_n + 1);
    for (unsigned i = 0; i < cla->localities_n; i++) {
        const struct cla_locality *loc = &cla->localities[i];
        handles[i] = host_set_builder_locality(b, loc->priority, &loc->id, loc->weight);
    }
    for (unsigned i = 0; i < cla->endpoints_n; i++) {
        add_endpoint(h, b, handles[cla->endpoints[i].locality], &cla->endpoints[i]);
    }
    for (unsigned i = 0; i < cla->localities_n; i++) {
        const struct leds_set *x = store_leds_of(h->entry->store, &cla->localities[i]);
        for (size_t k = 0; x && k < x->items.n; k++) {
            add_endpoint(h, b, handles[i], store_leds_endpoint(x, k));
        }
    }
    xfree(handles);
    if (h->cfg->dns_cache) {
        add_dynamic_hosts(h, b);
    }
    struct host_set *set = host_set_builder_finish(b, &diff);
    count_changes(h, set, diff.priorities);
    return set;
}

static struct stats_shard *own_shard(const struct cluster_hosts *h) {
    return stats_shard(h->cfg->stats, h->entry->store->loop->thread_index);
}

void store_hosts_count(const struct cluster_hosts *h) {
    if (!store_hosts_serve(h)) {
        return;
    }
    struct stats_shard *st = stats_front(h->cfg->stats);
    const struct host_set *s = h->set;
    stats_gauge_set(st, CLUSTER_membership_total, s->hosts_n);
    stats_gauge_set(st, CLUSTER_membership_healthy, s->healthy_n);
    stats_gauge_set(st, CLUSTER_membership_degraded, s->degraded_n);
    stats_gauge_set(st, CLUSTER_membership_excluded, s->excluded_n);
    if (h->cfg->type == CLUSTER_TYPE_EDS || h->cfg->type == CLUSTER_TYPE_STRICT_DNS) {
        stats_gauge_set(st, CLUSTER_max_host_weight, s->max_host_weight);
    }
}

/* Endpoints change subsets, health does not. */
static void count_subsets(const struct cluster_hosts *h, const struct host_set *now) {
    const struct lb_subsets *was = h->set ? h->set->subsets : NULL;
    if (was || now->subsets) {
        struct stats_shard *st = own_shard(h);
        stats_add(st, CLUSTER_lb_subsets_created, lb_subsets_new(now->subsets, was));
        stats_add(st, CLUSTER_lb_subsets_removed, lb_subsets_new(was, now->subsets));
        if (store_hosts_serve(h)) {
            stats_gauge_set(st, CLUSTER_lb_subsets_active, lb_subsets_new(now->subsets, NULL));
        }
    }
}

static void set_hosts(struct cluster_hosts *h, struct host_set *set) {
    bool is_unanswered = !h->set && !set->hosts_n && !h->is_ready;
    count_subsets(h, set);
    if (h->set) {
        shared_unref(&h->set->shared);
    }
    h->set = set;
    if (!is_unanswered) {
        store_hosts_count(h);
    }
    store_health_set_hosts(h);
}

/* ---- hosts of DNS caches ---- */

static void on_dns_change(struct dns_cache_user *u) {
    struct cluster_hosts *h = CONTAINER_OF(u, struct cluster_hosts, dns_user);
    if (!list_linked(&h->due_node)) {
        list_push_back(&h->entry->store->hosts_due, &h->due_node);
    }
    store_touch(h->entry->store);
}

void store_hosts_settle(struct store *s) {
    while (!list_empty(&s->hosts_due)) {
        struct cluster_hosts *h =
            LIST_ENTRY(list_first(&s->hosts_due), struct cluster_hosts, due_node);
        list_unlink(&h->due_node);
        store_hosts_changed(h);
    }
}

static void forget_dns_cache(struct cluster_hosts *h) {
    dns_cache_remove_user(&h->dns_user);
    list_unlink(&h->due_node);
}

/* ---- discovery ---- */

/* Where the endpoints of an EDS cluster come from. */
static const struct entry *assignment_entry(const struct cluster_hosts *h) {
    const struct resource *r = h->resource;
    for (unsigned i = 0; i < r->refs_n; i++) {
        if (r->refs[i].type == RES_ENDPOINTS) {
            return store_find(h->entry->store, RES_ENDPOINTS, r->refs[i].source, r->refs[i].name);
        }
    }
    return NULL;
}

static const struct cla_config *assignment(const struct cluster_hosts *h) {
    if (h->cfg->type != CLUSTER_TYPE_EDS) {
        return h->cfg->endpoints;
    }
    const struct entry *e = assignment_entry(h);
    return e && e->active ? e->active->endpoints : NULL;
}

static void hosts_free(struct cluster_hosts *h) {
    store_dns_stop(h);
    forget_dns_cache(h); /* before the resource that holds it */
    store_health_stop(h);
    if (h->set) {
        shared_unref(&h->set->shared);
    }
    shared_unref(&h->resource->shared);
    xfree(h);
}

/* Those of a new version; hosts of the version before are the same objects, with their health and
 * their connections. */
static struct cluster_hosts *hosts_new(struct entry *e, struct resource *r) {
    struct cluster_hosts *before = e->hosts;
    struct cluster_hosts *h = xnew(struct cluster_hosts);
    h->entry = e;
    h->resource = shared_ref(r);
    h->cfg = r->cluster;
    store_health_init(h);
    h->set = before && before->set ? shared_ref(before->set) : NULL;
    if (e->active) {
        store_hosts_drop_next(e);
        before->next = h;
        return h;
    }
    if (before) { /* it never served */
        hosts_free(before);
    }
    e->hosts = h;
    store_health_start(h);
    return h;
}

void store_hosts_refresh(struct cluster_hosts *h) {
    static const struct cla_config none = {.overprovisioning_factor = 140};
    const struct cla_config *cla = assignment(h);
    if (h->cfg->type == CLUSTER_TYPE_EDS) {
        const struct entry *e = assignment_entry(h);
        h->is_ready = e && (e->is_gone || !store_is_awaited(h->entry, e));
    }
    set_hosts(h, build(h, cla ? cla : &none));
}

static void count_update(const struct cluster_hosts *h) {
    if (h->cfg->type == CLUSTER_TYPE_EDS) {
        struct stats_shard *st = stats_front(h->cfg->stats);
        stats_inc(st, CLUSTER_update_attempt);
        if (h->is_ready) {
            stats_inc(st, CLUSTER_update_success);
        }
    }
}

void store_hosts_start(struct entry *e, struct resource *r) {
    struct cluster_hosts *h = hosts_new(e, r);
    bool is_dns =
        h->cfg->type == CLUSTER_TYPE_STRICT_DNS || h->cfg->type == CLUSTER_TYPE_LOGICAL_DNS;
    h->is_ready = !is_dns && h->cfg->type != CLUSTER_TYPE_EDS;
    if (is_dns) {
        store_dns_start(h);
    }
    if (h->cfg->dns_cache) {
        h->dns_user.on_change = on_dns_change;
        dns_cache_add_user(h->cfg->dns_cache, &h->dns_user);
    }
    store_hosts_refresh(h);
    count_update(h);
}

/* The version that waits; if there is none, that which serves. */
static struct cluster_hosts *newest(const struct entry *e) {
    return e->hosts && e->hosts->next ? e->hosts->next : e->hosts;
}

void store_hosts_activate(struct entry *e) {
    struct cluster_hosts *old = e->hosts, *h = old->next;
    if (!h) {
        return;
    }
    bool had_marks = old->cfg->health_check || old->cfg->outlier;
    hosts_free(old);
    e->hosts = h;
    store_health_start(h);
    if (had_marks) { /* what it found out about hosts is no longer so */
        struct host_set *set = host_set_rebuild(h->cfg, h->set);
        shared_unref(&h->set->shared);
        h->set = set;
    }
    store_health_set_hosts(h);
    store_hosts_count(h);
}

void store_hosts_drop_next(struct entry *e) {
    if (e->hosts && e->hosts->next) {
        hosts_free(e->hosts->next);
        e->hosts->next = NULL;
    }
}

void store_hosts_follow(struct entry *e) {
    for (struct cluster_hosts *h = e->hosts; h; h = h->next) {
        store_hosts_refresh(h);
    }
    if (e->active) {
        store_hosts_publish(e);
    }
}

void store_hosts_assigned(struct entry *e) {
    store_hosts_follow(e);
    count_update(newest(e));
}

void store_hosts_count_empty(const struct entry *e) {
    if (e->hosts) {
        stats_inc(stats_front(e->hosts->cfg->stats), CLUSTER_update_empty);
    }
}

sv store_hosts_drop_category(const struct entry *e) {
    if (!e->hosts) {
        return SV_NULL;
    }
    const struct cla_config *cla = assignment(e->hosts);
    return cla ? cla->drop_category : SV_NULL;
}

bool store_hosts_ready(const struct entry *e) { return e->hosts && newest(e)->is_ready; }

void store_hosts_publish(struct entry *e) {
    struct cluster_hosts *h = e->hosts;
    if (!h || !h->set) {
        return;
    }
    store_touch(e->store);
    table_set(&e->store->next->tables[TABLE_HOSTS], h->cfg->slot, &h->set->shared);
}

void store_hosts_changed(struct cluster_hosts *h) {
    store_hosts_refresh(h);
    if (h->entry->active && store_hosts_serve(h)) {
        store_hosts_publish(h->entry);
    }
    store_check_warm(h->entry);
}

void store_hosts_stop(struct entry *e) {
    store_hosts_drop_next(e);
    if (e->hosts) {
        hosts_free(e->hosts);
        e->hosts = NULL;
    }
}

/* ---- for xDS streams ---- */

bool store_dial_target(struct store *s, sv cluster, struct xds_dial_target *out) {
    const struct entry *e = store_find(s, RES_CLUSTER, NULL, cluster);
    const struct host_set *set = e && e->hosts ? e->hosts->set : NULL;
    if (!set || set->hosts_n == 0) {
        return false;
    }
    const struct host_entry *h = &set->entries[rng_below(&s->loop->rng, set->hosts_n)];
    const struct cluster_config *c = e->hosts->cfg;
    slot_t slot = cluster_transport_slot(c, h);
    const struct table *t = &(s->next ? s->next : s->latest)->tables[TABLE_TRANSPORTS];
    struct transport_factory *f = (struct transport_factory *)table_get(t, slot);
    if (!f) {
        return false; /* its secrets are not there yet */
    }
    *out = (struct xds_dial_target){.authority = out->authority,
                                    .addr = h->host->addr,
                                    .source = c->bind->source,
                                    .connect_timeout_ms = c->connect_timeout_ms,
                                    .transport = f->ops->is_secure ? f : NULL,
                                    .host_name = h->host->hostname,
                                    .auto_sni = c->auto_sni,
                                    .auto_san_validation = c->auto_san_validation,
                                    .is_http2 = c->protocol == UPSTREAM_HTTP2,
                                    .http2_keepalive_ms = c->codec->h2.keepalive_interval_ms,
                                    .http2_keepalive_timeout_ms = c->codec->h2.keepalive_timeout_ms,
                                    .keepalive_time_s = c->bind->opts.keepalive_time_s,
                                    .keepalive_interval_s = c->bind->opts.keepalive_interval_s,
                                    .keepalive_probes = c->bind->opts.keepalive_probes};
    return true;
}
