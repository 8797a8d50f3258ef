/* A worker thread and its view of the snapshot: see worker.h, api/worker.h.
 * Threads: as told there. Not here: listeners' sockets and connections (worker_listener.c),
 * building snapshots (xds/). */
#include "proxy/server/worker.h"

#include <time.h>

#include "proxy/api/extension.h"
#include "proxy/base/crash.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/base/runtime.h"
#include "proxy/base/slab.h"
#include "proxy/config/workload.h"
#include "proxy/net/splice.h"
#include "proxy/net/tls.h"
#include "proxy/net/transport.h"
#include "proxy/request/stream.h"
#include "proxy/route/route_table.h"
#include "proxy/stats/stats_server.h"
#include "proxy/upstream/cluster.h"

#define VIEW_PAGE_SLOTS 256u
#define ID_BLOCK 4096u

struct view_page {
    void *v[VIEW_PAGE_SLOTS];
};

/* ---- views by slot ---- */

static void **view_at(struct view_page ***pages, uint32_t *pages_n, slot_t slot, bool create) {
    uint32_t page = slot / VIEW_PAGE_SLOTS;
    if (page >= *pages_n) {
        if (!create) {
            return NULL;
        }
        *pages = xreallocarray(*pages, page + 1, sizeof(**pages));
        memset(*pages + *pages_n, 0, (page + 1 - *pages_n) * sizeof(**pages));
        *pages_n = page + 1;
    }
    if (!(*pages)[page]) {
        if (!create) {
            return NULL;
        }
        (*pages)[page] = xnew(struct view_page);
    }
    return &(*pages)[page]->v[slot % VIEW_PAGE_SLOTS];
}

static void free_pages(struct view_page **pages, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        xfree(pages[i]);
    }
    xfree(pages);
}

struct cluster_view *worker_cluster(struct worker *w, slot_t slot) {
    if (slot == SLOT_NONE || !w->snapshot) {
        return NULL;
    }
    void **at = view_at(&w->cluster_pages, &w->cluster_pages_n, slot, false);
    if (LIKELY(at && *at)) {
        return *at;
    }
    struct resource *r = (struct resource *)table_get(&w->snapshot->tables[TABLE_CLUSTERS], slot);
    if (!r) {
        return NULL;
    }
    struct host_set *hosts = (struct host_set *)table_get(&w->snapshot->tables[TABLE_HOSTS], slot);
    at = view_at(&w->cluster_pages, &w->cluster_pages_n, slot, true);
    *at = cluster_view_new(w, &w->loop, r->cluster, &r->shared, hosts);
    return *at;
}

uint64_t worker_clusters_generation(const struct worker *w) { return w->clusters_generation; }

struct cluster_view *worker_cluster_by_name(struct worker *w, sv name) {
    return w->snapshot ? worker_cluster(w, snapshot_find_cluster(w->snapshot, name)) : NULL;
}

struct transport_factory *worker_transport(struct worker *w, slot_t slot) {
    return w->snapshot
               ? (struct transport_factory *)table_get(&w->snapshot->tables[TABLE_TRANSPORTS], slot)
               : NULL;
}

struct route_view *worker_route(struct worker *w, slot_t slot) {
    if (slot == SLOT_NONE || !w->snapshot) {
        return NULL;
    }
    void **at = view_at(&w->route_pages, &w->route_pages_n, slot, true);
    struct route_view *v = *at;
    if (UNLIKELY(!v)) {
        struct route_table *t =
            (struct route_table *)table_get(&w->snapshot->tables[TABLE_ROUTES], slot);
        if (!t) {
            return NULL;
        }
        v = xnew(struct route_view);
        v->table = shared_ref(t);
        v->is_current = true;
        *at = v;
    }
    v->refs++;
    return v;
}

const struct scope_table *worker_scopes(struct worker *w, slot_t slot) {
    return slot == SLOT_NONE || !w->snapshot
               ? NULL
               : (const struct scope_table *)table_get(&w->snapshot->tables[TABLE_SCOPES], slot);
}

bool worker_workload(const struct worker *w, const struct addr *a, struct workload_told *out) {
    const struct resource *r = w->snapshot ? snapshot_find_workload(w->snapshot, a) : NULL;
    if (!r) {
        return false;
    }
    *out = (struct workload_told){.uid = r->name, .wire = r->wire, .hash = r->hash};
    return true;
}

static void route_view_free(struct route_view *v) {
    shared_unref(&v->table->shared);
    xfree(v);
}

void route_view_unref(struct route_view *v) {
    if (--v->refs == 0 && !v->is_current) {
        route_view_free(v);
    }
}

static void retire_route(struct worker *w, slot_t slot) {
    void **at = view_at(&w->route_pages, &w->route_pages_n, slot, false);
    struct route_view *v = at ? *at : NULL;
    if (!v) {
        return;
    }
    *at = NULL;
    v->is_current = false;
    if (v->refs == 0) {
        route_view_free(v);
    }
}

struct extension_view *worker_extension(struct worker *w, slot_t slot) {
    if (slot == SLOT_NONE || !w->snapshot) {
        return NULL;
    }
    void **at = view_at(&w->extension_pages, &w->extension_pages_n, slot, true);
    struct extension_view *v = *at;
    if (UNLIKELY(!v)) {
        struct extension_config *x =
            (struct extension_config *)table_get(&w->snapshot->tables[TABLE_EXTENSIONS], slot);
        if (!x) {
            return NULL;
        }
        v = xnew(struct extension_view);
        v->config = shared_ref(x);
        v->is_current = true;
        *at = v;
    }
    v->refs++;
    return v;
}

static void extension_view_free(struct extension_view *v) {
    shared_unref(&v->config->shared);
    xfree(v);
}

void extension_view_unref(struct extension_view *v) {
    if (--v->refs == 0 && !v->is_current) {
        extension_view_free(v);
    }
}

static void retire_extension(struct worker *w, slot_t slot) {
    void **at = view_at(&w->extension_pages, &w->extension_pages_n, slot, false);
    struct extension_view *v = at ? *at : NULL;
    if (!v) {
        return;
    }
    *at = NULL;
    v->is_current = false;
    if (v->refs == 0) {
        extension_view_free(v);
    }
}

/* ---- adopting a snapshot ---- */

static void on_cluster_diff(void *arg, uint32_t slot, struct shared *old_value,
                            struct shared *new_value) {
    struct worker *w = arg;
    (void)old_value;
    (void)new_value;
    w->clusters_generation++;
    void **at = view_at(&w->cluster_pages, &w->cluster_pages_n, slot, false);
    if (at && *at) {
        struct cluster_view *v = *at;
        *at = NULL;
        cluster_view_retire(v);
    }
}

static void on_hosts_diff(void *arg, uint32_t slot, struct shared *old_value,
                          struct shared *new_value) {
    struct worker *w = arg;
    (void)old_value;
    w->clusters_generation++;
    void **at = view_at(&w->cluster_pages, &w->cluster_pages_n, slot, false);
    if (at && *at) {
        cluster_view_set_hosts(*at, (struct host_set *)new_value);
    }
}

static void on_route_diff(void *arg, uint32_t slot, struct shared *old_value,
                          struct shared *new_value) {
    (void)old_value;
    (void)new_value;
    retire_route(arg, slot);
}

static void on_extension_diff(void *arg, uint32_t slot, struct shared *old_value,
                              struct shared *new_value) {
    (void)old_value;
    (void)new_value;
    retire_extension(arg, slot);
}

static void on_listener_diff(void *arg, uint32_t slot, struct shared *old_value,
                             struct shared *new_value) {
    struct worker *w = arg;
    struct worker_listener *have = worker_listener_find(w, slot);
    struct resource *r = (struct resource *)new_value;
    struct listener_sockets *socks =
        (struct listener_sockets *)table_get(&w->snapshot->tables[TABLE_SOCKETS], slot);
    (void)old_value;
    if (have && r && have->sockets == socks) {
        worker_listener_update(have, r);
        return;
    }
    if (have) {
        worker_listener_remove(have);
    }
    if (r && socks) {
        worker_listener_add(w, r, socks);
    }
}

static void adopt(struct worker *w, struct snapshot *s) {
    static const struct table empty = {NULL, 0};
    struct snapshot *old = w->snapshot;
    w->snapshot = s;
    w->leaving = old;
    const struct table *was = old ? old->tables : NULL;
#define DIFF(table, fn) table_diff(was ? &was[table] : &empty, &s->tables[table], (fn), w)
    DIFF(TABLE_CLUSTERS, on_cluster_diff);
    DIFF(TABLE_HOSTS, on_hosts_diff);
    DIFF(TABLE_ROUTES, on_route_diff);
    DIFF(TABLE_EXTENSIONS, on_extension_diff);
    DIFF(TABLE_LISTENERS, on_listener_diff);
#undef DIFF
    w->leaving = NULL;
    if (old) {
        shared_unref(&old->shared); /* the publisher still has it: nothing is freed here */
    }
    __atomic_store_n(&w->adopted_version, s->version, __ATOMIC_RELEASE);
    if (w->on_adopted) {
        w->on_adopted(w, s->version);
    }
}

struct publish_msg {
    struct loop_msg msg;
    struct snapshot *snapshot;
};

static void on_publish(struct loop *l, struct loop_msg *m) {
    struct publish_msg *p = CONTAINER_OF(m, struct publish_msg, msg);
    struct worker *w = l->owner;
    if (w->is_ending) { /* it came while the loop ran out */
        __atomic_store_n(&w->adopted_version, p->snapshot->version, __ATOMIC_RELEASE);
        shared_unref(&p->snapshot->shared);
    } else {
        uint64_t began_us = loop_refresh_now(l);
        adopt(w, p->snapshot);
        stats_record(w->snapshot_stats, SNAPSHOT_adopt_us, loop_refresh_now(l) - began_us);
    }
    xfree(p);
}

void worker_publish(struct worker *w, struct snapshot *s) {
    struct publish_msg *p = xnew(struct publish_msg);
    p->msg.run = on_publish;
    p->snapshot = shared_ref(s);
    loop_post(&w->loop, &p->msg);
}

/* ---- draining ---- */

struct drain_msg {
    struct loop_msg msg;
    struct drain_request request;
};

#define TRAFFIC_DIRECTION_INBOUND 1

static void on_drain(struct loop *l, struct loop_msg *m) {
    struct drain_msg *d = CONTAINER_OF(m, struct drain_msg, msg);
    struct worker *w = l->owner;
    LIST_FOREACH_SAFE (it, &w->listeners) {
        struct worker_listener *wl = LIST_ENTRY(it, struct worker_listener, node);
        if (!d->request.inbound_only || wl->cfg->traffic_direction == TRAFFIC_DIRECTION_INBOUND) {
            worker_listener_start_drain(wl, !d->request.skip_exit && !d->request.graceful);
        }
    }
    xfree(d);
}

void worker_drain(struct worker *w, struct drain_request r) {
    struct drain_msg *d = xnew(struct drain_msg);
    d->msg.run = on_drain;
    d->request = r;
    loop_post(&w->loop, &d->msg);
}

/* The chain's owner tells, not the listener it began on: a chain that an update left alone has
 * moved to the new listener. */
bool worker_drain_close(struct worker *w, const struct net_chain *c) {
    struct worker_listener *l =
        c->config->listener ? CAST(worker_listener, WORKER_LISTENER_MAGIC, c->owner) : NULL;
    if (UNLIKELY(worker_health_failed(w)) && !(l && l->cfg->modify_only_drain)) {
        return true;
    }
    return l && l->drain_started_ms && worker_listener_drains(l, &w->loop.rng);
}

/* ---- small facts ---- */

bool worker_health_failed(const struct worker *w) {
    return __atomic_load_n(&w->shared->is_health_failed, __ATOMIC_RELAXED);
}

bool worker_cluster_members(struct worker *w, slot_t slot, unsigned *total, unsigned *usable) {
    const struct cluster_view *v = worker_cluster(w, slot);
    if (!v) {
        return false;
    }
    *total = v->hosts ? v->hosts->hosts_n : 0;
    *usable = v->hosts ? v->hosts->healthy_n + v->hosts->degraded_n : 0;
    return true;
}

struct loop *worker_loop(struct worker *w) {
    return &w->loop;
}
struct stats_store *worker_stats(struct worker *w) {
    return w->shared->stats;
}
sv worker_node_id(const struct worker *w) { return w->shared->node_id; }
sv worker_node_cluster(const struct worker *w) { return w->shared->node_cluster; }
const struct addr *worker_local_address(const struct worker *w) {
    return &w->shared->local_address;
}

uint64_t worker_next_id(struct worker *w) {
    if (w->id_next == w->id_end) {
        w->id_next = __atomic_fetch_add(&w->shared->next_id_block, ID_BLOCK, __ATOMIC_RELAXED);
        w->id_end = w->id_next + ID_BLOCK;
    }
    return w->id_next++;
}

sv worker_http_date(struct worker *w) {
    uint64_t now = loop_wall_us(&w->loop, loop_now_us(&w->loop)) / 1000000;
    if (UNLIKELY(now != w->date_s)) {
        time_t t = (time_t)now;
        struct tm tm;
        gmtime_r(&t, &tm);
        strftime(w->date, sizeof(w->date), "%a, %d %b %Y %H:%M:%S GMT", &tm);
        w->date_s = now;
    }
    return sv_from(w->date, 29);
}

/* ---- thread ---- */

struct worker *worker_new(struct worker_shared *shared, unsigned index, unsigned thread_index) {
    struct worker *w = xnew(struct worker);
    w->shared = shared;
    w->index = index;
    list_init(&w->listeners);
    map_init(&w->listeners_by_address);
    worker_internal_init(w);
    list_init(&w->draining);
    list_init(&w->endings);
    map_init(&w->on_demand.fetches);
    if (loop_init(&w->loop, thread_index) < 0) {
        xfree(w);
        return NULL;
    }
    w->loop.owner = w;
    if (shared->stats) { /* main's own, made before them, adopts nothing */
        w->snapshot_stats = stats_shard(
            stats_scope_get(shared->stats, &snapshot_stats_group, SV("config.snapshot.")),
            thread_index);
    }
    return w;
}

void worker_at_end(struct worker *w, struct worker_ending *e) {
    if (!list_linked(&e->node_)) {
        list_push_back(&w->endings, &e->node_);
    }
}

static void run_endings(struct worker *w) {
    for (struct list *n; (n = list_pop_front(&w->endings));) {
        struct worker_ending *e = CONTAINER_OF(n, struct worker_ending, node_);
        e->run(e);
    }
}

static void close_all(struct worker *w) {
    struct list *lists[] = {&w->listeners, &w->draining};
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        LIST_FOREACH_SAFE (it, lists[i]) {
            worker_listener_free_now(LIST_ENTRY(it, struct worker_listener, node));
        }
    }
    run_endings(w);
    for (uint32_t p = 0; p < w->cluster_pages_n; p++) {
        for (uint32_t i = 0; w->cluster_pages[p] && i < VIEW_PAGE_SLOTS; i++) {
            if (w->cluster_pages[p]->v[i]) {
                cluster_view_retire(w->cluster_pages[p]->v[i]);
            }
        }
    }
    for (uint32_t p = 0; p < w->route_pages_n; p++) {
        for (uint32_t i = 0; w->route_pages[p] && i < VIEW_PAGE_SLOTS; i++) {
            retire_route(w, p * VIEW_PAGE_SLOTS + i);
        }
    }
    for (uint32_t p = 0; p < w->extension_pages_n; p++) {
        for (uint32_t i = 0; w->extension_pages[p] && i < VIEW_PAGE_SLOTS; i++) {
            retire_extension(w, p * VIEW_PAGE_SLOTS + i);
        }
    }
}

/* Everything the worker's own thread holds. */
static void release(struct worker *w) {
    worker_leave_peers(w);
    w->is_ending = true;
    close_all(w);
    for (int i = 0; i < 3; i++) { /* let close callbacks and deferred frees run */
        loop_run_nowait(&w->loop);
    }
    run_endings(w);
    stream_cache_trim();
    if (w->snapshot) {
        shared_unref(&w->snapshot->shared);
    }
    on_demand_fini(&w->on_demand);
    vec_fini(&w->listeners_by_slot);
    map_fini(&w->listeners_by_address);
    worker_internal_fini(w);
    free_pages(w->cluster_pages, w->cluster_pages_n);
    free_pages(w->route_pages, w->route_pages_n);
    free_pages(w->extension_pages, w->extension_pages_n);
    loop_fini(&w->loop);
    transport_read_chunk_drop();
    splice_cache_trim();
    tls_thread_drop();
    slab_trim();
    chunk_cache_trim(); /* last: the others give their chunks to it */
    runtime_thread_release();
}

static void run(void *arg) {
    struct worker *w = arg;
    char name[24];
    snprintf(name, sizeof(name), "worker_%u", w->index);
    log_thread_name(name);
    crash_thread_begin();
    loop_moderate_wakes(&w->loop);
    loop_run(&w->loop);
    release(w);
    crash_thread_end();
}

void worker_free(struct worker *w) {
    release(w);
    xfree(w);
}

int worker_start(struct worker *w) { return uv_thread_create(&w->thread, run, w); }

void worker_stop_and_free(struct worker *w) {
    loop_stop(&w->loop);
    uv_thread_join(&w->thread);
    xfree(w);
}
