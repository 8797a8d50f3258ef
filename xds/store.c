/* The store: entries, activation into the snapshot's tables, publishing at the end of an event.
 * Threads: the config thread. See store.h for the other files. */
#include "xds/store.h"
#include "xds/scopes.h"
#include "xds/store_demand.h"
#include "xds/store_view.h"
#include "xds/vhds.h"

#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/event/dir_watch.h"
#include "proxy/net/tls_cert.h"
#include "proxy/route/route_table.h"
#include "proxy/upstream/cluster.h"
#include "xds/hds.h"
#include "xds/leds.h"
#include "xds/listeners.h"
#include "xds/lrs.h"

/* ---- entries ---- */

bool store_same_source(const struct config_source *a, const struct config_source *b) {
    return a == b || (a && b && a->kind == SOURCE_ADS && b->kind == SOURCE_ADS);
}

/* Clusters and listeners are one namespace; other types are looked up per source. */
static void make_key(struct buf *key, enum resource_type t, const struct config_source *src,
                     sv name) {
    uint8_t type = (uint8_t)t;
    uint64_t id = config_source_key(src);
    if (t == RES_CLUSTER || t == RES_LISTENER) {
        id = 0;
    }
    buf_append(key, &type, 1);
    buf_append(key, &id, sizeof(id));
    buf_append_sv(key, name);
}

struct entry *store_find(struct store *s, enum resource_type t, const struct config_source *src,
                         sv name) {
    struct buf BUF_AUTO key;
    buf_init(&key);
    make_key(&key, t, src, name);
    return map_get(&s->entries, buf_pullup(&key, buf_len(&key)));
}

static void on_fetch_timeout(struct timer *t) {
    struct entry *e = CONTAINER_OF(t, struct fetch_wait, timer)->entry;
    struct store *s = e->store;
    store_stop_wait(e);
    e->is_timed_out = true;
    store_note_failure(e, XDS_init_fetch_timeout);
    log_warn(LOG_config, "%s: initial fetch of '%.*s' timed out",
             resource_types[e->type].short_name, SV_ARG(entry_name(e)));
    store_target_changed(e); /* e may be gone */
    store_touch(s);          /* who waits for it gets an answer */
}

void store_start_wait(struct entry *e, uint32_t ms) {
    if (!e->wait) {
        e->wait = xnew(struct fetch_wait);
        e->wait->entry = e;
        timer_init(&e->wait->timer, e->store->loop, on_fetch_timeout);
    }
    timer_start(&e->wait->timer, ms);
}

void store_stop_wait(struct entry *e) {
    if (e->wait) {
        timer_cancel(&e->wait->timer);
        xfree(e->wait);
        e->wait = NULL;
    }
}

struct entry *store_get(struct store *s, enum resource_type t, const struct config_source *src,
                        sv name) {
    struct buf BUF_AUTO key;
    buf_init(&key);
    make_key(&key, t, src, name);
    sv text = buf_pullup(&key, buf_len(&key));
    struct entry *e = map_get(&s->entries, text);
    if (e) {
        return e;
    }
    e = xcalloc(1, sizeof(*e) + text.n + 1);
    memcpy(e->key_, text.p, text.n);
    e->store = s;
    e->extra = &entry_no_extra;
    e->type = t;
    e->source = src;
    e->view_mark = s->view_mark;
    e->name_n = (uint32_t)name.n;
    map_put(&s->entries, sv_from(e->key_, text.n), e);
    return e;
}

static void entry_free(struct entry *e) {
    store_view_before(e);
    map_remove(&e->store->entries, sv_from(e->key_, ENTRY_KEY_HEAD + e->name_n));
    store_stop_wait(e);
    store_secret_unwatch(e);
    if (e->active) {
        shared_unref(&e->active->shared);
    }
    if (e->warming) {
        shared_unref(&e->warming->shared);
    }
    if (e->extra->failed) {
        shared_unref(&e->extra->failed->shared);
    }
    if (e->extra->sockets) {
        shared_unref(&e->extra->sockets->shared);
    }
    store_listener_drop_warming(e);
    store_scopes_free(e);
    store_vhds_free(e);
    store_leds_free(e);
    if (e->extra->stats) {
        stats_scope_unref(e->extra->stats);
    }
    if (e->extra->reload_stats) {
        stats_scope_unref(e->extra->reload_stats);
    }
    entry_links_fini(&e->users);
    entry_links_fini(&e->uses);
    entry_links_fini(&e->warming_uses);
    xfree(e->extra->error);
    entry_extra_free(e);
    store_view_release(e);
}

void store_drop_if_unused(struct entry *e) {
    if (e->watchers == 0 && !e->active && !e->warming && !e->extra->error && e->users.n == 0) {
        entry_free(e);
    }
}

/* ---- snapshots ---- */

/* Workers adopt within milliseconds; until then two versions of what changed are in memory. */
#define LEAVING_MS 50u

static void on_flush(struct loop_task *t);

void store_touch(struct store *s) {
    if (s->next) {
        return;
    }
    uint64_t began_us = loop_refresh_now(s->loop);
    s->next = snapshot_new(s->latest);
    s->next_took_us = loop_refresh_now(s->loop) - began_us;
    loop_queue_task(s->loop, &s->flush);
}

static void no_op(void *arg, slot_t slot) {
    (void)arg;
    (void)slot;
}

static void on_route_swept(void *arg, slot_t slot) {
    struct store *s = arg;
    if (table_get(&s->latest->tables[TABLE_ROUTES], slot)) {
        store_touch(s);
        table_set(&s->next->tables[TABLE_ROUTES], slot, NULL);
    }
}

static void on_scopes_swept(void *arg, slot_t slot) {
    struct store *s = arg;
    if (table_get(&s->latest->tables[TABLE_SCOPES], slot)) {
        store_touch(s);
        table_set(&s->next->tables[TABLE_SCOPES], slot, NULL);
    }
}

static void drop_left(struct store *s, uint64_t version) {
    size_t kept = 0;
    for (size_t i = 0; i < s->leaving.n; i++) {
        struct snapshot *old = s->leaving.p[i];
        if (old->version < version) {
            shared_unref(&old->shared);
        } else {
            s->leaving.p[kept++] = old;
        }
    }
    s->leaving.n = kept;
}

static void on_leaving_timer(struct timer *t) {
    struct store *s = CONTAINER_OF(t, struct store, leaving_timer);
    drop_left(s, s->opt.adopted_version(s->opt.user));
    if (s->leaving.n) {
        timer_start(&s->leaving_timer, LEAVING_MS);
    }
}

/* Takes the ref. */
static void leave(struct store *s, struct snapshot *old) {
    *vec_push(&s->leaving) = old;
    if (!timer_active(&s->leaving_timer)) {
        timer_start(&s->leaving_timer, LEAVING_MS);
    }
}

static void count_sources(struct store *s) {
    struct config_source_counts n = config_source_counts();
    stats_gauge_set(s->stats, CONFIG_sources, n.remembered);
    stats_add(s->stats, CONFIG_sources_refused, n.refused - s->sources_refused);
    s->sources_refused = n.refused;
}

static void on_flush(struct loop_task *t) {
    struct store *s = CONTAINER_OF(t, struct store, flush);
    if (!s->next) {
        return;
    }
    store_hosts_settle(s);
    store_listeners_settle(s);
    uint64_t began_us = loop_refresh_now(s->loop);
    struct snapshot *now = s->next;
    s->next = NULL;
    if (s->latest) {
        leave(s, s->latest);
    }
    s->latest = now;
    s->opt.publish(s->opt.user, now);
    store_demands_settle(s);
    names_sweep(s->config.clusters, no_op, NULL);
    names_sweep(s->config.scopes, on_scopes_swept, s);
    names_sweep(s->config.routes, on_route_swept, s);
    names_sweep(s->config.listeners, no_op, NULL);
    names_sweep(s->config.transports, no_op, NULL);
    names_sweep(s->config.extensions, store_extension_swept, s);
    dns_caches_sweep(s->config.dns_caches);
    count_sources(s);
    stats_inc(s->snapshot_stats, SNAPSHOT_published);
    stats_record(s->snapshot_stats, SNAPSHOT_publish_us,
                 s->next_took_us + loop_refresh_now(s->loop) - began_us);
    store_check_ready(s);
}

/* ---- activation ---- */

static slot_t slot_of(const struct resource *r) {
    return r->type == RES_CLUSTER ? r->cluster->slot : r->listener->slot;
}

static void set_cluster(struct entry *e, struct resource *r) {
    struct store *s = e->store;
    slot_t slot = slot_of(r ? r : e->active);
    store_touch(s);
    int reported = (r && r->cluster->is_reported_to_self) -
                   (e->active && e->active->cluster->is_reported_to_self);
    if (UNLIKELY(reported)) {
        lrs_self_changed(s, reported);
    }
    if (e->active && !r) {
        s->active_clusters--;
        snapshot_remove_cluster_name(s->next, slot);
    }
    table_set(&s->next->tables[TABLE_CLUSTERS], slot, r ? &r->shared : NULL);
    if (!e->active && r) {
        s->active_clusters++;
        snapshot_add_cluster_name(s->next, slot, s->active_clusters);
    }
    stats_gauge_set(s->cluster_manager, CLUSTER_MANAGER_active_clusters, s->active_clusters);
    if (r) {
        stats_scope_set_source(r->cluster->stats, r->cluster);
        store_hosts_publish(e);
    } else {
        table_set(&s->next->tables[TABLE_HOSTS], slot, NULL);
    }
}

static void set_listener(struct entry *e, struct resource *r) {
    struct store *s = e->store;
    slot_t slot = slot_of(r ? r : e->active);
    store_touch(s);
    store_listener_drains(e, r);
    if (!e->active && r) {
        s->active_listeners++;
    } else if (e->active && !r) {
        s->active_listeners--;
    }
    stats_gauge_set(s->listener_manager, LISTENER_MANAGER_total_listeners_active,
                    s->active_listeners);
    table_set(&s->next->tables[TABLE_LISTENERS], slot, r ? &r->shared : NULL);
    table_set(&s->next->tables[TABLE_SOCKETS], slot, r ? &e->extra->sockets->shared : NULL);
    if (!r) {
        store_listener_ended(e);
    }
}

/* A table that is no longer watched stays where it is until nobody refers to its slot: connections
 * of a listener that was replaced live on with the routes they had. */
static void set_route(struct entry *e, struct resource *r) {
    struct store *s = e->store;
    if (!r) {
        return;
    }
    slot_t slot = config_route_slot(&s->config, e->source, entry_name(e));
    store_touch(s);
    table_set(&s->next->tables[TABLE_ROUTES], slot, &store_vhds_table(e, r)->shared);
    names_release(s->config.routes, slot);
}

void store_publish_route(struct entry *e) { set_route(e, e->active); }

void store_set_active(struct entry *e, struct resource *r) {
    struct store *s = e->store;
    struct resource *old = e->active;
    store_view_before(e);
    if (r && !store_make_transports(e->store, r)) {
        log_error(LOG_config, "%s '%.*s': a transport socket could not be made",
                  resource_types[e->type].short_name, SV_ARG(entry_name(e)));
    }
    if (e->type == RES_CLUSTER) {
        set_cluster(e, r);
    } else if (e->type == RES_LISTENER) {
        set_listener(e, r);
    } else if (e->type == RES_ROUTE) {
        set_route(e, r);
    } else if (e->type == RES_SCOPED_ROUTE) {
        store_scope_set_active(e, r);
    } else if (e->type == RES_SECRET) {
        store_secret_watch(e, r);
    } else if (e->type == RES_RUNTIME) {
        store_runtime_set_active(e, r);
    } else if (e->type == RES_WORKLOAD) {
        store_workload_set_active(e, r);
    } else if (e->type == RES_EXTENSION && !r) {
        store_extension_removed(e);
    }
    store_unlink(e, &e->uses);
    e->active = r;
    e->uses = e->warming_uses;
    e->warming_uses = (struct entry_links){0};
    if (e->type == RES_LISTENER) {
        store_listener_claims(e, old);
    }
    if (old) {
        store_drop_transports(s, old);
        shared_unref(&old->shared);
    }
    store_target_changed(e);
}

/* ---- applying ---- */

static void set_warming(struct entry *e, struct resource *r) {
    struct store *s = e->store;
    unsigned routes = 1; /* not counted */
    store_view_before(e);
    unsigned *count = e->type == RES_CLUSTER    ? &s->warming_clusters
                      : e->type == RES_LISTENER ? &s->warming_listeners
                                                : &routes;
    struct resource *was = e->warming;
    struct entry_links left = e->warming_uses;
    e->warming_uses = (struct entry_links){0};
    e->warming = r;
    if (r) {
        (*count)++;
        store_link(e, r, &e->warming_uses);
    }
    *count -= was != NULL;
    store_unlink(e, &left); /* what both refer to was not let go of */
    if (e->type == RES_LISTENER) {
        store_listener_claims(e, was);
    }
    if (was) {
        shared_unref(&was->shared);
    }
    if (r && e->type == RES_CLUSTER) {
        stats_gauge_set(stats_front(r->cluster->stats), CLUSTER_warming_state, 1);
    }
    stats_gauge_set(s->cluster_manager, CLUSTER_MANAGER_warming_clusters, s->warming_clusters);
    stats_gauge_set(s->listener_manager, LISTENER_MANAGER_total_listeners_warming,
                    s->warming_listeners);
}

void store_drop_failed(struct entry *e) {
    if (e->extra->failed) {
        store_view_before(e);
        e->store->failed_bytes -= e->extra->failed->wire.n;
        shared_unref(&e->extra->failed->shared);
        entry_extra(e)->failed = NULL;
    }
}

void store_clear_error(struct entry *e) {
    if (e->is_only_rejected) {
        e->is_only_rejected = false;
        e->store->only_rejected_n--;
    }
    if (e->extra->error) {
        store_view_before(e);
        xfree(e->extra->error);
        entry_extra(e)->error = NULL;
    }
    store_drop_failed(e);
}

void store_apply(struct entry *e, struct resource *r) {
    struct store *s = e->store;
    bool is_new = !e->active && !e->warming;
    r->updated_us = loop_wall_us(s->loop, loop_refresh_now(s->loop));
    e->is_gone = false;
    store_clear_error(e);
    store_stop_wait(e);
    if (e->type == RES_CLUSTER) {
        stats_inc(s->cluster_manager,
                  is_new ? CLUSTER_MANAGER_cluster_added : CLUSTER_MANAGER_cluster_modified);
        set_warming(e, r);
        store_hosts_start(e, r);
        store_check_warm(e);
        return;
    }
    if (e->type == RES_LISTENER) {
        stats_inc(s->listener_manager,
                  is_new ? LISTENER_MANAGER_listener_added : LISTENER_MANAGER_listener_modified);
        if (s->is_ready && e->active && listener_same_but_chains(e->active->wire, r->wire)) {
            stats_inc(s->listener_manager, LISTENER_MANAGER_listener_in_place_updated);
        }
        set_warming(e, r);
        store_check_warm(e);
        return;
    }
    if ((e->type == RES_ROUTE || e->type == RES_ENDPOINTS) && r->refs_n) { /* VHDS, LEDS */
        set_warming(e, r);
        store_check_warm(e);
        return;
    }
    store_drop_warming(e);
    store_set_active(e, r);
}

void store_drop_warming(struct entry *e) {
    if (e->warming) {
        set_warming(e, NULL);
        store_listener_drop_warming(e);
        store_hosts_drop_next(e);
    }
}

void store_remove(struct entry *e) {
    struct store *s = e->store;
    e->is_gone = true;
    if (e->type == RES_CLUSTER) {
        stats_inc(s->cluster_manager, CLUSTER_MANAGER_cluster_removed);
    } else if (e->type == RES_LISTENER) {
        stats_inc(s->listener_manager, LISTENER_MANAGER_listener_removed);
    }
    store_drop_warming(e);
    if (e->active) {
        store_set_active(e, NULL);
    } else {
        store_target_changed(e);
    }
    if (e->type == RES_CLUSTER) {
        store_hosts_stop(e);
    }
    store_clear_error(e);
    store_drop_if_unused(e);
}

/* ---- static resources ---- */

bool store_add_static(struct store *s, enum resource_type t, sv wire, struct diag *d) {
    sv name = resource_name_of(t, wire);
    static unsigned unnamed;
    char generated[32];
    if (!name.n) { /* listeners may go without a name */
        name = sv_from(generated,
                       (size_t)snprintf(generated, sizeof(generated), "%u-unnamed", ++unnamed));
    }
    const struct config_source *src = config_source_intern(NULL, d);
    struct entry *e = store_get(s, t, src, name);
    if (e->active || e->warming) {
        return diag_error(
            d, t == RES_CLUSTER ? "cluster manager: duplicate cluster '%.*s'" : "duplicate '%.*s'",
            SV_ARG(name));
    }
    e->is_static = true;
    struct resource *r = resource_compile(&s->config, t, name, SV_NULL, wire, true, NULL, d);
    if (!r) {
        store_drop_if_unused(e);
        return false;
    }
    if (t == RES_LISTENER && !store_listener_accept(e, r, d)) {
        shared_unref(&r->shared);
        store_drop_if_unused(e);
        return false;
    }
    store_apply(e, r);
    return true;
}

/* publishes, and looks at readiness */
void store_static_done(struct store *s) { store_touch(s); }

static bool has_cluster(void *user, sv name) { return store_has_cluster(user, name); }

bool store_has_cluster(struct store *s, sv name) {
    const struct entry *e = store_find(s, RES_CLUSTER, NULL, name);
    return e && (e->active || e->warming);
}

/* ---- life ---- */

static struct stats_shard *shard(struct store *s, const struct stats_group *g, const char *prefix) {
    return stats_shard(stats_scope_get(s->opt.stats, g, sv_cstr(prefix)), s->loop->thread_index);
}

static void add_raw_transport(struct store *s) {
    struct transport_factory *f = config_raw_factory();
    s->config.raw_transport = names_acquire(s->config.transports, SV_NULL);
    store_touch(s);
    table_set(&s->next->tables[TABLE_TRANSPORTS], s->config.raw_transport, &f->shared);
    shared_unref(&f->shared);
}

void store_init(struct store *s, const struct store_options *o) {
    memset(s, 0, sizeof(*s));
    s->loop = o->loop;
    s->opt = *o;
    s->flush.run = on_flush;
    timer_init(&s->leaving_timer, s->loop, on_leaving_timer);
    store_listeners_init(s);
    map_init(&s->entries);
    map_init(&s->listener_addresses);
    list_init(&s->demands);
    list_init(&s->views);
    list_init(&s->dns_waits);
    list_init(&s->dns_answers);
    list_init(&s->hosts_due);
    s->config = (struct config){
        .listeners = names_new(),
        .routes = names_new(),
        .scopes = names_new(),
        .clusters = names_new(),
        .transports = names_new(),
        .extensions = names_new(),
        .dns_caches = dns_caches_new(o->is_dry_run ? NULL : s->loop, o->stats),
        .stats = o->stats,
        .registry = o->registry,
        .reject_unknown_dynamic = o->reject_unknown_dynamic,
        .ignore_unknown_dynamic = o->ignore_unknown_dynamic,
        .allow_unknown_static = o->allow_unknown_static,
        .node_id = o->node_id,
        .node_cluster = o->node_cluster,
        .node = o->node_msg,
        .local_cluster = SLOT_NONE,
        .default_tracer = o->default_tracer,
        .has_cluster = has_cluster,
        .user = s,
    };
    map_init(&s->config.shared);
    arena_init(&s->config.shared_arena, 0);
    s->cluster_manager = shard(s, &cluster_manager_stats_group, "cluster_manager.");
    s->listener_manager = shard(s, &listener_manager_stats_group, "listener_manager.");
    s->snapshot_stats = shard(s, &snapshot_stats_group, "config.snapshot.");
    s->stats = shard(s, &config_stats_group, "config.");
    s->cds_version = xstrdup("");
    s->lds_version = xstrdup("");
    s->config.server_stats = shard(s, &server_stats_group, "server.");
    s->cds_scope = stats_scope_get(o->stats, &xds_stats_group, SV("cluster_manager.cds."));
    s->cds_reload_scope =
        stats_scope_get(o->stats, &xds_reload_stats_group, SV("cluster_manager.cds."));
    s->lds_scope = stats_scope_get(o->stats, &xds_stats_group, SV("listener_manager.lds."));
    add_raw_transport(s);
}

void store_fini(struct store *s) {
    hds_stop(s); /* its clusters' transports leave the next snapshot: a flush is due */
    loop_cancel_task(&s->flush);
    lrs_stop(s);
    store_demands_end(s);
    store_clients_free(s);
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&s->entries, &it))) {
        struct entry *e = slot->value;
        store_hosts_stop(e);
    }
    store_view_end(s);
    struct map left = s->entries;
    map_init(&s->entries); /* entry_free removes from an empty map: nothing moves under the walk */
    it = 0;
    while ((slot = map_next(&left, &it))) {
        entry_free(slot->value);
    }
    map_fini(&left);
    store_listeners_free(s);
    vec_fini(&s->scope_sets);
    vec_fini(&s->scope_entries);
    if (s->next) {
        shared_unref(&s->next->shared);
    }
    if (s->latest) {
        shared_unref(&s->latest->shared);
    }
    timer_cancel(&s->leaving_timer);
    drop_left(s, UINT64_MAX);
    vec_fini(&s->leaving);
    vec_fini(&s->runtime_uses);
    dir_watcher_free(s->files);
    xfree(s->cds_version);
    xfree(s->lds_version);
    stats_scope_unref(s->cds_scope);
    stats_scope_unref(s->cds_reload_scope);
    stats_scope_unref(s->lds_scope);
    if (s->workloads_scope) {
        stats_scope_unref(s->workloads_scope);
    }
}

void store_free_names(struct store *s) {
    names_free(s->config.listeners);
    names_free(s->config.routes);
    names_free(s->config.scopes);
    names_free(s->config.clusters);
    names_free(s->config.transports);
    names_free(s->config.extensions);
    dns_caches_free(s->config.dns_caches);
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&s->config.told, &it))) {
        char *key = (char *)(uintptr_t)map_key(slot).p;
        xfree(key);
    }
    map_fini(&s->config.told);
    map_fini(&s->config.shared);
    arena_fini(&s->config.shared_arena);
}
