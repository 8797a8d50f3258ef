/* What workers ask for on demand: clusters (ODCDS), routes of scopes, virtual hosts (VHDS). A
 * question is answered when a snapshot that has the thing was published, or when the server said
 * that there is none.
 * Threads: the config thread; questions come by its mailbox.
 * Spec: Envoy's on-demand updates; OnDemandCds, ScopedRouteConfiguration.on_demand. */
#include "xds/store_demand.h"

#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "xds/scopes.h"
#include "xds/vhds.h"

/* Questions open at one time, all workers together: each may be a name at the control plane. */
#define DEMANDS_MAX 4096u
/* A server that never answers about a cluster is asked no longer than this. */
#define CLUSTER_ANSWER_MS 30000u

enum demand_state { DEMAND_OPEN, DEMAND_FOUND, DEMAND_MISSING };

/* ---- clusters ---- */

static void count_odcds(struct store *s, unsigned stat) {
    if (!s->odcds) {
        s->odcds = stats_scope_get(s->opt.stats, &xds_stats_group, SV("cluster_manager.odcds."));
    }
    stats_inc(stats_shard(s->odcds, s->loop->thread_index), stat);
}

/* Ask, or ask again: what was subscribed to and is not there was removed, or was never answered. */
static struct entry *want_cluster(struct store *s, const struct on_demand_want *w) {
    struct entry *e = store_get(s, RES_CLUSTER, w->source, w->name);
    if (e->active || e->warming) {
        return e;
    }
    if (!e->source) {
        e->source = w->source;
    }
    e->is_gone = e->is_timed_out = false;
    if (!e->is_on_demand) {
        e->is_on_demand = true;
        count_odcds(s, XDS_update_attempt);
        store_watch(e);
        store_start_wait(e, CLUSTER_ANSWER_MS);
    }
    return e;
}

void store_demand_release(struct entry *e) {
    if (e->is_on_demand) {
        e->is_on_demand = false;
        if (e->type == RES_VIRTUAL_HOST) {
            store_vhds_forget(e);
        }
        store_unwatch(e);
    }
}

/* ---- questions ---- */

static struct entry *set_of_slot(struct store *s, slot_t slot) {
    for (size_t i = 0; i < s->scope_sets.n; i++) {
        if (s->scope_sets.p[i]->extra->scopes->slot == slot) {
            return s->scope_sets.p[i];
        }
    }
    return NULL;
}

/* What the answer depends on; NULL: there is nothing to wait for. */
static struct entry *target_of(struct store *s, const struct on_demand_want *w) {
    struct entry *set, *route;
    switch (w->kind) {
    case ON_DEMAND_CLUSTER:
        return want_cluster(s, w);
    case ON_DEMAND_SCOPE:
        set = set_of_slot(s, w->slot);
        return set && store_scopes_demand(set, w->name, &route) ? route : NULL;
    case ON_DEMAND_VIRTUAL_HOST:
        return store_vhds_demand(s, w->slot, w->name);
    case ON_DEMAND_DNS_HOST:
        break;
    }
    return NULL;
}

static enum demand_state state_of(const struct on_demand_fetch *f) {
    const struct entry *e = f->target;
    bool is_found = f->want.kind == ON_DEMAND_VIRTUAL_HOST
                        ? store_vhds_has(e->store, f->want.slot, f->want.name)
                        : e->active != NULL;
    return is_found ? DEMAND_FOUND : e->is_gone || e->is_timed_out ? DEMAND_MISSING : DEMAND_OPEN;
}

static void settle(struct store *s, struct on_demand_fetch *f, bool is_found) {
    struct entry *e = f->target;
    list_unlink(&f->node);
    s->demands_n--;
    on_demand_answer(f, is_found);
    store_unwatch(e);
}

static bool is_among(const struct entry_vec *v, const struct entry *e) {
    for (size_t i = 0; i < v->n; i++) {
        if (v->p[i] == e) {
            return true;
        }
    }
    return false;
}

/* ---- DNS hosts ---- */

/* Workers hear of it behind the snapshot in which clusters have the host. */
static void answer_dns_later(struct store *s, struct on_demand_fetch *f) {
    list_push_back(&s->dns_answers, &f->node);
    store_touch(s);
}

static void on_dns_host(struct dns_query *q, const struct dns_result *r) {
    struct on_demand_fetch *f = CONTAINER_OF(q, struct on_demand_fetch, query);
    list_unlink(&f->node);
    f->dns = *r;
    answer_dns_later(f->config, f);
}

static void ask_dns(struct store *s, struct on_demand_fetch *f) {
    f->query.on_done = on_dns_host;
    if (!dns_cache_load(f->want.cache, f->want.name, &f->query, &f->dns)) {
        list_push_back(&s->dns_waits, &f->node);
        return;
    }
    if (s->next && f->dns.outcome == DNS_FOUND) {
        answer_dns_later(s, f);
    } else {
        on_demand_answer(f, f->dns.outcome == DNS_FOUND);
    }
}

static void answer_dns(struct list *fetches) {
    while (!list_empty(fetches)) {
        struct on_demand_fetch *f = LIST_ENTRY(list_first(fetches), struct on_demand_fetch, node);
        list_unlink(&f->node);
        dns_query_cancel(&f->query); /* at the end some still wait */
        on_demand_answer(f, f->dns.outcome == DNS_FOUND);
    }
}

/* ---- answers ---- */

void store_demands_settle(struct store *s) {
    struct entry_vec missing = {0};
    answer_dns(&s->dns_answers);
    LIST_FOREACH_SAFE (it, &s->demands) {
        struct on_demand_fetch *f = LIST_ENTRY(it, struct on_demand_fetch, node);
        struct entry *e = f->target;
        enum demand_state state = state_of(f);
        if (state == DEMAND_OPEN) {
            continue;
        }
        bool is_first = e->is_on_demand && !is_among(&missing, e);
        if (state == DEMAND_MISSING && is_first) {
            *vec_push(&missing) = e;
        }
        if (f->want.kind == ON_DEMAND_CLUSTER) {
            count_odcds(s, state == DEMAND_FOUND ? XDS_update_success
                           : e->is_timed_out     ? XDS_init_fetch_timeout
                                                 : XDS_update_failure);
        }
        settle(s, f, state == DEMAND_FOUND);
    }
    for (size_t i = 0; i < missing.n; i++) {
        store_demand_release(missing.p[i]);
    }
    vec_fini(&missing);
}

bool store_is_demanded(const struct entry *e) {
    LIST_FOREACH (it, &e->store->demands) {
        if (LIST_ENTRY(it, struct on_demand_fetch, node)->target == e) {
            return true;
        }
    }
    return false;
}

/* ---- requests ---- */

static void on_request(struct loop *l, struct loop_msg *m) {
    struct on_demand_fetch *f = CONTAINER_OF(m, struct on_demand_fetch, msg);
    struct store *s = f->config;
    (void)l;
    if (f->want.kind == ON_DEMAND_DNS_HOST) {
        ask_dns(s, f);
        return;
    }
    struct entry *target = s->demands_n < DEMANDS_MAX ? target_of(s, &f->want) : NULL;
    if (!target) {
        on_demand_answer(f, false);
        return;
    }
    log_debug(LOG_config, "%s '%.*s' is asked for on demand",
              resource_types[target->type].short_name, SV_ARG(entry_name(target)));
    f->target = target;
    store_watch(target); /* until it is answered */
    list_push_back(&s->demands, &f->node);
    s->demands_n++;
    store_touch(s); /* what is there is answered when it is published */
}

static void request(void *config, struct on_demand_fetch *f) {
    struct store *s = config;
    f->config = s;
    f->msg.run = on_request;
    loop_post(s->loop, &f->msg);
}

struct on_demand_source store_demand_source(struct store *s) {
    return (struct on_demand_source){request, s};
}

void store_demands_end(struct store *s) {
    dns_caches_stop(s->config.dns_caches);
    answer_dns(&s->dns_answers);
    answer_dns(&s->dns_waits);
    while (!list_empty(&s->demands)) { /* entries go right after: nothing is unwatched */
        struct on_demand_fetch *f =
            LIST_ENTRY(list_first(&s->demands), struct on_demand_fetch, node);
        list_unlink(&f->node);
        on_demand_answer(f, false);
    }
    if (s->odcds) {
        stats_scope_unref(s->odcds);
    }
}
