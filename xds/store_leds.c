/* LEDS: endpoints that come one by one for a locality of a ClusterLoadAssignment, which waits for
 * the first answer of each of its collections. Bad ones are told and left out; good siblings count.
 * Threads: the config thread. Spec: endpoint.v3.LedsClusterLocalityConfig, LbEndpoint; delta xDS
 * only; members are named as their glob collection (config/collection.h). */
#include "xds/leds.h"

#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/config/collection.h"
#include "proxy/upstream/cluster.h"
#include "xds/hosts.h"

struct leds_item {
    struct resource *active; /* one ref */
    size_t at;               /* in leds_set.items */
};

/* ---- life ---- */

/* "cluster.<name>.leds." of the cluster that asked first. */
static void begin_stats(struct entry *set, const struct entry *assignment) {
    const struct entry *user = assignment->users.n ? entry_links_at(&assignment->users, 0) : NULL;
    const struct resource *r = !user ? NULL : user->warming ? user->warming : user->active;
    if (set->extra->stats || !r || r->type != RES_CLUSTER) {
        return;
    }
    struct buf BUF_AUTO b;
    buf_init(&b);
    buf_printf(&b, "%.*sleds.", SV_ARG(stats_scope_prefix(r->cluster->stats)));
    entry_extra(set)->stats =
        stats_scope_get(set->store->opt.stats, &leds_stats_group, buf_pullup(&b, buf_len(&b)));
}

void store_leds_begin(struct entry *set, const struct entry *assignment) {
    begin_stats(set, assignment);
    if (!set->extra->leds) {
        entry_extra(set)->leds = xnew(struct leds_set);
        map_init(&set->extra->leds->by_name);
    }
}

static void item_free(struct leds_item *i) {
    shared_unref(&i->active->shared);
    xfree(i);
}

void store_leds_free(struct entry *set) {
    struct leds_set *x = set->extra->leds;
    if (!x) {
        return;
    }
    for (size_t i = 0; i < x->items.n; i++) {
        item_free(x->items.p[i]);
    }
    map_fini(&x->by_name);
    vec_fini(&x->items);
    xfree(x);
    entry_extra(set)->leds = NULL;
}

/* ---- what clusters see ---- */

const struct leds_set *store_leds_of(struct store *s, const struct cla_locality *l) {
    if (!l->leds_source) {
        return NULL;
    }
    const struct entry *e = store_find(s, RES_LB_ENDPOINT, l->leds_source, l->leds_name);
    return e ? e->extra->leds : NULL;
}

const struct cla_endpoint *store_leds_endpoint(const struct leds_set *x, size_t i) {
    return x->items.p[i]->active->endpoint;
}

void store_leds_changed(struct entry *assignment, struct entry *set) {
    if (assignment->warming) { /* as Envoy: nothing changes until every collection answered */
        store_check_warm(assignment);
        return;
    }
    for (size_t i = 0; i < assignment->users.n; i++) {
        struct entry *user = entry_links_at(&assignment->users, i);
        if (user->hosts) {
            log_debug(LOG_upstream, "leds: '%.*s' changes cluster '%.*s'", SV_ARG(entry_name(set)),
                      SV_ARG(entry_name(user)));
            store_hosts_follow(user);
            store_check_warm(user);
        }
    }
}

/* ---- updates ---- */

/* The collection of that name, or of the resource of that name; NULL: nobody wants it. */
static struct entry *set_of(struct source_client *c, sv name) {
    struct buf BUF_AUTO glob;
    buf_init(&glob);
    if (!collection_of(name, &glob)) {
        return NULL;
    }
    sv text = buf_pullup(&glob, buf_len(&glob));
    struct entry *e = store_find(c->store, RES_LB_ENDPOINT, c->source, text);
    return e && e->extra->leds ? e : NULL;
}

static void note(struct entry_vec *sets, struct entry *set) {
    if (set->seen_update != set->store->update_count) {
        set->seen_update = set->store->update_count;
        store_keep(sets, set); /* what one makes ready may end another */
    }
}

static bool is_same(const struct resource *r, sv wire) {
    uint64_t h[2];
    resource_hash(wire, h);
    return r->wire.n == wire.n && r->hash[0] == h[0] && r->hash[1] == h[1];
}

static void put(struct leds_set *x, struct leds_item *i, struct resource *r) {
    if (i) {
        map_remove(&x->by_name, i->active->name); /* the key is the old one's */
        shared_unref(&i->active->shared);
    } else {
        i = xnew(struct leds_item);
        i->at = x->items.n;
        *vec_push(&x->items) = i;
    }
    i->active = r;
    map_put(&x->by_name, r->name, i);
    x->is_changed = true;
}

/* False: it is refused, and told. */
static bool take(struct entry *set, const struct xds_resource *r, struct xds_verdict *v) {
    struct leds_set *x = set->extra->leds;
    struct leds_item *i = map_get(&x->by_name, r->name);
    if (!r->wire.p || (i && is_same(i->active, r->wire))) { /* a heartbeat, or nothing new */
        return true;
    }
    if (!i && x->items.n >= LEDS_ENDPOINTS_MAX) {
        store_add_error(v, RES_LB_ENDPOINT, r->name,
                        SV("the collection has too many endpoints already"));
        return false;
    }
    struct diag *d = xnew(struct diag);
    diag_init(d);
    struct resource *made = resource_compile(&set->store->config, RES_LB_ENDPOINT, r->name,
                                             r->version, r->wire, false, NULL, d);
    if (made) {
        put(x, i, made);
    } else {
        store_add_error(v, RES_LB_ENDPOINT, r->name, diag_text(d));
    }
    diag_fini(d);
    xfree(d);
    return made != NULL;
}

static void drop(struct leds_set *x, sv name) {
    struct leds_item *i = map_get(&x->by_name, name);
    if (!i) {
        return;
    }
    map_remove(&x->by_name, i->active->name);
    vec_swap_remove(&x->items, i->at);
    if (i->at < x->items.n) {
        x->items.p[i->at]->at = i->at;
    }
    item_free(i);
    x->is_changed = true;
}

/* Nothing is listed: an answer to all who wait for this source. */
static void note_waiting(struct source_client *c, struct entry_vec *sets) {
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&c->store->entries, &it))) {
        struct entry *e = slot->value;
        if (e->extra->leds && !e->extra->leds->is_answered &&
            store_same_source(e->source, c->source)) {
            note(sets, e);
            store_count(c->store, e->extra->stats, LEDS_update_empty);
        }
    }
}

static void settle(struct entry *set) {
    struct leds_set *x = set->extra->leds;
    bool is_news = x->is_changed || !x->is_answered;
    set->store->change_count += x->is_changed;
    x->is_answered = true;
    x->is_changed = false;
    store_stop_wait(set);
    if (is_news) {
        store_target_changed(set);
    }
}

void store_leds_update(struct source_client *c, const struct xds_update *u, struct xds_verdict *v) {
    struct entry_vec sets = {0};
    struct entry_vec refused = {0};
    for (unsigned i = 0; i < u->resources_n; i++) {
        struct entry *set = set_of(c, u->resources[i].name);
        v->accepted[i] = !set || take(set, &u->resources[i], v); /* NULL: nobody asked */
        if (set) {
            note(&sets, set);
        }
        if (!v->accepted[i]) {
            *vec_push(&refused) = set;
        }
    }
    for (unsigned i = 0; i < u->removed_n; i++) {
        struct entry *set = set_of(c, u->removed[i]);
        if (set) {
            drop(set->extra->leds, u->removed[i]);
            note(&sets, set);
        }
    }
    if (!u->resources_n && !u->removed_n) {
        note_waiting(c, &sets);
    }
    for (size_t i = 0; i < refused.n; i++) {
        store_note_failure(refused.p[i], XDS_update_rejected);
        refused.p[i]->seen_update = 0; /* counted; not as a success */
    }
    for (size_t i = 0; i < sets.n; i++) {
        if (sets.p[i]->seen_update) {
            store_note_named_success(sets.p[i], u->version);
        }
        settle(sets.p[i]);
    }
    store_let_go(&sets);
    vec_fini(&refused);
}
