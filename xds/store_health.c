/* Health of clusters' hosts: outlier detection and active checks on the store's side: hosts go to
 * both, and what they find out becomes new host sets.
 * Threads: the config thread. Spec: cluster.v3.Cluster health_checks, outlier_detection; Envoy's
 * cluster warming.
 * Not here: endpoints (store_hosts.c), judging (upstream/outlier.c, upstream/health_check.c). */
#include "proxy/upstream/health_check.h"
#include "proxy/upstream/host_set.h"
#include "proxy/upstream/outlier.h"
#include "xds/hosts.h"

/* ---- results become host sets ---- */

/* The same endpoints, other lists. Those whose health alone kept them go when it is lost. */
static void settle(struct cluster_hosts *h) {
    if (h->is_removal_due) {
        h->is_removal_due = false;
        store_hosts_refresh(h);
    } else {
        struct host_set *set = host_set_rebuild(h->cfg, h->set);
        shared_unref(&h->set->shared);
        h->set = set;
        store_hosts_count(h);
    }
    if (h->entry->active && store_hosts_serve(h)) {
        store_hosts_publish(h->entry);
    }
}

static void on_health_task(struct loop_task *t) {
    settle(CONTAINER_OF(t, struct cluster_hosts, health_task));
}

/* Many hosts may change in one event: their lists are made once, at its end. */
static void on_change(void *arg, struct host *host) {
    struct cluster_hosts *h = arg;
    uint32_t flags = host_flags(host);
    h->is_removal_due |=
        (flags & HOST_FLAG(PENDING_DYNAMIC_REMOVAL)) && (flags & HOST_FLAG(FAILED_ACTIVE_HC));
    loop_queue_task(h->entry->store->loop, &h->health_task);
}

/* ---- outlier detection ---- */

static void release_detector(void *arg) { outlier_detector_unref(arg); }

void store_health_start(struct cluster_hosts *h) {
    if (h->set && !h->cfg->health_check) { /* checks of an earlier version */
        for (unsigned i = 0; i < h->set->hosts_n; i++) {
            host_flags_clear(h->set->entries[i].host, HOST_FLAGS_CHECKED);
        }
    }
    if (h->cfg->outlier && !h->entry->store->opt.is_dry_run) {
        h->detector = outlier_detector_new(h->entry->store->loop, h->cfg, on_change, h);
        /* the new version is not shared yet; its arena holds the ref */
        h->resource->cluster->detector = h->detector;
        arena_on_fini(&h->resource->arena, release_detector, h->detector);
    }
}

void store_health_init(struct cluster_hosts *h) { h->health_task.run = on_health_task; }

void store_health_stop(struct cluster_hosts *h) {
    loop_cancel_task(&h->health_task);
    h->is_removal_due = false;
    if (h->detector) {
        outlier_detector_stop(h->detector);
        h->detector = NULL;
    }
    if (h->checker) {
        health_checker_stop(h->checker);
        h->checker = NULL;
    }
}

void store_health_set_hosts(struct cluster_hosts *h) {
    if (h->detector) {
        outlier_detector_set_hosts(h->detector, h->set);
    }
    if (h->checker) {
        health_checker_set_hosts(h->checker, h->set);
    }
}

/* ---- active checks ---- */

static struct transport_factory *transport(void *arg, slot_t slot) {
    const struct cluster_hosts *h = arg;
    const struct store *s = h->entry->store;
    const struct table *t = &(s->next ? s->next : s->latest)->tables[TABLE_TRANSPORTS];
    return (struct transport_factory *)table_get(t, slot);
}

static void on_checked(void *arg, struct host *host, bool is_healthy) {
    struct cluster_hosts *h = arg;
    if (is_healthy && h->detector && !(host_flags(host) & HOST_FLAG(FAILED_ACTIVE_HC))) {
        outlier_detector_healthy(h->detector, host);
    }
    bool is_waiting = h->entry->warming == h->resource;
    if (is_waiting && health_checker_is_done(h->checker)) {
        store_check_warm(h->entry);
    }
}

static void release_checker(void *arg) { health_checker_unref(arg); }

static void start_checks(struct cluster_hosts *h) {
    const struct health_checker_env env = {.loop = h->entry->store->loop,
                                           .transport = transport,
                                           .on_change = on_change,
                                           .on_checked = on_checked,
                                           .arg = h};
    h->checker = health_checker_new(h->cfg, &env);
    h->resource->cluster->checker = h->checker;
    arena_on_fini(&h->resource->arena, release_checker, h->checker);
    health_checker_set_hosts(h->checker, h->set);
}

bool store_health_ready(struct entry *e) {
    struct cluster_hosts *h = e->hosts->next ? e->hosts->next : e->hosts;
    if (!h->cfg->health_check || e->store->opt.is_dry_run) {
        return true;
    }
    if (!h->checker) {
        store_make_transports(e->store, e->warming);
        start_checks(h);
    }
    if (!health_checker_is_done(h->checker)) {
        return false;
    }
    if (list_linked(&h->health_task.node_)) { /* what is activated has the checks' results in it */
        loop_cancel_task(&h->health_task);
        settle(h);
    }
    return true;
}
