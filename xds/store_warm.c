/* Readiness: what a cluster or listener waits for, activation, transport factories, the end of
 * start-up.
 * Threads: the config thread. Spec: Envoy's "xDS protocol" (warming), initial_fetch_timeout. */
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/net/tls_cert.h"
#include "proxy/upstream/cluster.h"
#include "xds/leds.h"
#include "xds/listeners.h"
#include "xds/scopes.h"
#include "xds/store.h"
#include "xds/store_view.h"
#include "xds/vhds.h"

/* ---- transport factories ---- */

static const struct tls_secret *secret_of(struct store *s, const struct resource_ref *ref) {
    const struct entry *e = store_find(s, RES_SECRET, ref->source, ref->name);
    return e && e->active ? e->active->secret : NULL;
}

static bool make_transport(struct store *s, const struct transport_def *d) {
    const struct tls_secret *secrets[64];
    unsigned n = d->secrets_n < ARRAY_LEN(secrets) ? d->secrets_n : ARRAY_LEN(secrets);
    for (unsigned i = 0; i < n; i++) {
        secrets[i] = secret_of(s, &d->secrets[i]);
        if (!secrets[i]) {
            return true; /* later */
        }
    }
    struct secret_source src = {secrets, n};
    struct diag diag;
    diag_init(&diag);
    struct transport_factory *f = d->type->make(d->config, &src, &diag);
    if (!f) {
        sv text = diag_text(&diag);
        log_error(LOG_config, "transport socket: %.*s", SV_ARG(text));
        diag_fini(&diag);
        return false;
    }
    diag_fini(&diag);
    store_touch(s);
    table_set(&s->next->tables[TABLE_TRANSPORTS], d->slot, &f->shared);
    shared_unref(&f->shared);
    return true;
}

bool store_make_transports(struct store *s, const struct resource *r) {
    bool ok = true;
    for (unsigned i = 0; i < r->transports_n; i++) {
        ok &= make_transport(s, &r->transports[i]);
    }
    return ok;
}

void store_drop_transports(struct store *s, const struct resource *r) {
    for (unsigned i = 0; i < r->transports_n; i++) {
        store_touch(s);
        table_set(&s->next->tables[TABLE_TRANSPORTS], r->transports[i].slot, NULL);
    }
}

/* ---- readiness ---- */

bool store_has_arrived(const struct entry *target) {
    bool is_there = target->extra->scopes   ? store_scopes_ready(target)
                    : target->extra->vhosts ? target->extra->vhosts->is_answered
                    : target->extra->leds   ? target->extra->leds->is_answered
                                            : target->active != NULL;
    bool is_refused = target->is_gone && (target->type == RES_ROUTE || target->type == RES_SECRET);
    return is_there || target->is_timed_out || is_refused;
}

bool store_is_awaited(const struct entry *user, const struct entry *target) {
    bool is_refused = target->extra->error && !user->active;
    return !store_has_arrived(target) && !is_refused;
}

static bool all_arrived(const struct entry *e) {
    for (size_t i = 0; i < e->warming_uses.n; i++) {
        const struct entry *target = entry_links_at(&e->warming_uses, i);
        if (target->type != RES_ENDPOINTS && target->type != RES_EXTENSION &&
            store_is_awaited(e, target)) {
            return false;
        }
    }
    return true;
}

static bool is_warm(struct entry *e) {
    if (!all_arrived(e) || !store_extensions_arrived(e->store, e->warming)) {
        return false;
    }
    return e->type != RES_CLUSTER || (store_hosts_ready(e) && store_health_ready(e));
}

/* It was accepted, and can't be had all the same. */
static void give_up(struct entry *e) {
    struct resource *r = shared_ref(e->warming);
    store_refuse(e, r->wire, r->version, SV("cannot listen: see the log"));
    shared_unref(&r->shared);
    store_drop_warming(e);
    if (!e->active && !e->is_only_rejected) {
        e->is_only_rejected = true;
        e->store->only_rejected_n++;
    }
}

void store_check_warm(struct entry *e) {
    struct store *s = e->store;
    struct resource *r = e->warming;
    if (!r || !is_warm(e)) {
        return;
    }
    if (e->type == RES_LISTENER && s->opt.is_dry_run) {
        return; /* no sockets are made */
    }
    if (e->type == RES_LISTENER && !store_listener_listen(e, r)) {
        give_up(e);
        return;
    }
    store_view_before(e);
    e->warming = NULL;
    if (e->type == RES_CLUSTER) {
        store_hosts_activate(e);
        s->warming_clusters--;
        stats_gauge_set(stats_front(r->cluster->stats), CLUSTER_warming_state, 0);
    } else if (e->type == RES_LISTENER) {
        s->warming_listeners--;
        stats_add(s->listener_manager, LISTENER_MANAGER_listener_create_success, s->opt.workers);
    }
    stats_gauge_set(s->cluster_manager, CLUSTER_MANAGER_warming_clusters, s->warming_clusters);
    stats_gauge_set(s->listener_manager, LISTENER_MANAGER_total_listeners_warming,
                    s->warming_listeners);
    log_debug(LOG_config, "%s '%.*s' is warm", resource_types[e->type].short_name,
              SV_ARG(entry_name(e)));
    store_set_active(e, r);
    store_check_ready(s);
}

/* ---- changes of what is referred to ---- */

static void user_changed(struct entry *user, struct entry *target) {
    if (target->type == RES_SECRET && user->active) {
        store_make_transports(user->store, user->active);
    }
    if (target->type == RES_ENDPOINTS && user->type == RES_CLUSTER) {
        store_hosts_assigned(user);
    }
    if (target->extra->leds) {
        store_leds_changed(user, target);
        return;
    }
    if (user->extra->scopes) { /* its listeners wait for what it waits for */
        store_target_changed(user);
        return;
    }
    store_check_warm(user);
}

void store_target_changed(struct entry *target) {
    if (target->type == RES_RUNTIME) {
        store_runtime_changed(target->store);
        return;
    }
    struct entry_vec users = {0}; /* the list may change under the walk */
    struct entry_vec kept = {0};
    for (size_t i = 0; i < target->users.n; i++) {
        *vec_push(&users) = entry_links_at(&target->users, i);
        store_keep(&kept, users.p[i]);
    }
    if (users.n) {
        store_keep(&kept, target);
    }
    /* One that is there by its active and its warming version is told once; a walk within this one
     * may make it twice, which does no harm. */
    uint32_t walk = ++target->store->walks;
    for (size_t i = 0; i < users.n; i++) {
        if (users.p[i]->walk != walk) {
            users.p[i]->walk = walk;
            user_changed(users.p[i], target);
        }
    }
    vec_fini(&users);
    store_let_go(&kept);
}

/* ---- start-up ---- */

void store_check_ready(struct store *s) {
    if (s->is_ready || store_waits_runtime(s) || s->waits_cds || s->waits_lds ||
        s->warming_clusters || s->warming_listeners || s->next) {
        return;
    }
    s->is_ready = true;
    log_info(LOG_main, "all clusters and listeners are initialised");
    s->opt.on_ready(s->opt.user);
}

static void stop_waiting(struct store *s, bool *waits, struct stats_scope *scope) {
    if (*waits) {
        *waits = false;
        stats_inc(stats_shard(scope, s->loop->thread_index), XDS_init_fetch_timeout);
        store_watch_listeners(s);
        store_check_ready(s);
    }
}

static void on_cds_timeout(struct timer *t) {
    struct store *s = CONTAINER_OF(t, struct store, cds_timer);
    stop_waiting(s, &s->waits_cds, s->cds_scope);
}

static void on_lds_timeout(struct timer *t) {
    struct store *s = CONTAINER_OF(t, struct store, lds_timer);
    stop_waiting(s, &s->waits_lds, s->lds_scope);
}

void store_wildcard_timeout(struct store *s, enum resource_type t, uint32_t ms) {
    struct timer *timer = t == RES_CLUSTER ? &s->cds_timer : &s->lds_timer;
    timer_init(timer, s->loop, t == RES_CLUSTER ? on_cds_timeout : on_lds_timeout);
    if (ms) {
        timer_start(timer, ms);
    }
}
