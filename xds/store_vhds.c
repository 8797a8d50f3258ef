/* VHDS: virtual hosts that come one by one for a route configuration, which is published together
 * with them. Bad ones are told and left out; good siblings count.
 * Threads: the config thread. Spec: config.route.v3.Vhds; xDS protocol, VHDS: names are
 * "<route configuration>/<host>", a resource answers to its aliases too. */
#include "xds/vhds.h"

#include "protos/wire.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/route/route_vhds.h"
#include "xds/store_demand.h"
#include "xds/store_view.h"

#define FIELD_ALIASES 4

/* A virtual host as it is, and as the update at hand would have it. */
struct vhost_item {
    char *name;
    struct resource *active, *staged; /* bytes only */
    bool is_gone;                     /* the update removes it */
    char *error;                      /* of the staged one */
    /* the last version that was refused, NULL: it was not; why and when */
    struct resource *refused;
    char *refused_why;
    uint64_t refused_us;
};

/* ---- life ---- */

void store_vhds_begin(struct entry *set) {
    if (!set->extra->vhosts) {
        entry_extra(set)->vhosts = xnew(struct vhost_set);
        map_init(&set->extra->vhosts->by_name);
    }
}

static void unref_bytes(struct resource **r) {
    if (*r) {
        shared_unref(&(*r)->shared);
        *r = NULL;
    }
}

static void forget_refused(struct entry *set, struct vhost_item *i) {
    if (i->refused) {
        set->extra->vhosts->refused_n--;
        set->store->failed_bytes -= i->refused->wire.n;
        unref_bytes(&i->refused);
        xfree(i->refused_why);
        i->refused_why = NULL;
    }
}

/* Takes i->error. */
static void note_refused(struct entry *set, struct vhost_item *i) {
    struct store *s = set->store;
    forget_refused(set, i);
    if (set->extra->vhosts->refused_n >= VHDS_REFUSED_MAX) {
        xfree(i->error);
        i->error = NULL;
        return;
    }
    sv wire = i->staged->wire;
    bool fits = wire.n <= STORE_FAILED_BYTES_MAX - s->failed_bytes;
    i->refused = resource_uncompiled(RES_VIRTUAL_HOST, i->staged->name, i->staged->version,
                                     fits ? wire : SV_NULL);
    s->failed_bytes += i->refused->wire.n;
    i->refused_why = i->error;
    i->refused_us = loop_wall_us(s->loop, loop_now_us(s->loop));
    i->error = NULL;
    set->extra->vhosts->refused_n++;
}

static void item_free(struct entry *set, struct vhost_item *i) {
    forget_refused(set, i);
    unref_bytes(&i->active);
    unref_bytes(&i->staged);
    xfree(i->name);
    xfree(i);
}

void store_vhds_free(struct entry *set) {
    struct vhost_set *x = set->extra->vhosts;
    if (!x) {
        return;
    }
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&x->by_name, &it))) {
        item_free(set, slot->value);
    }
    map_fini(&x->by_name);
    vec_fini(&x->asked);
    if (x->table) {
        shared_unref(&x->table->shared);
    }
    xfree(x);
    entry_extra(set)->vhosts = NULL;
}

void store_vhds_end(struct entry *set) {
    struct entry_vec asked = set->extra->vhosts->asked;
    set->extra->vhosts->asked = (struct entry_vec){0};
    for (size_t i = 0; i < asked.n; i++) {
        asked.p[i]->is_on_demand = false;
        store_unwatch(asked.p[i]);
    }
    vec_fini(&asked);
    store_vhds_free(set);
}

static sv namespace_of(sv name) {
    size_t at = sv_rfind(name, '/');
    return at == SIZE_MAX ? SV_NULL : sv_sub(name, 0, at);
}

static struct entry *set_named(struct source_client *c, sv name) {
    struct entry *e = store_find(c->store, RES_VIRTUAL_HOST, c->source, name);
    return e && e->extra->vhosts ? e : NULL;
}

void store_vhds_forget(struct entry *host) {
    struct entry *set =
        store_find(host->store, RES_VIRTUAL_HOST, host->source, namespace_of(entry_name(host)));
    for (size_t i = 0; set && set->extra->vhosts && i < set->extra->vhosts->asked.n; i++) {
        if (set->extra->vhosts->asked.p[i] == host) {
            vec_swap_remove(&set->extra->vhosts->asked, i);
            return;
        }
    }
}

/* ---- tables ---- */

struct extras {
    VEC(struct route_vhost_bytes) bytes;
    VEC(struct vhost_item *) items;
};

/* What is staged comes last: where two claim a domain, the newcomer is wrong. */
static void gather(const struct vhost_set *x, bool is_staged, struct extras *out) {
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&x->by_name, &it))) {
        struct vhost_item *i = slot->value;
        const struct resource *r = i->staged ? i->staged : i->active;
        if (i->is_gone || !r || (i->staged != NULL) != is_staged) {
            continue;
        }
        *vec_push(&out->bytes) = (struct route_vhost_bytes){.wire = r->wire};
        *vec_push(&out->items) = i;
    }
}

/* The table with all that is there and staged; staged ones that are wrong have their error set. */
static struct route_table *combine(struct store *s, const struct vhost_set *x,
                                   const struct resource *base, bool *all_good) {
    struct extras e = {0};
    gather(x, false, &e);
    gather(x, true, &e);
    struct route_table *t =
        config_routes_with(&s->config, base, e.bytes.p, (unsigned)e.bytes.n, x->table);
    *all_good = true;
    for (size_t i = 0; i < e.items.n; i++) {
        char *error = e.bytes.p[i].error;
        if (error && e.items.p[i]->staged) {
            *all_good = false;
            e.items.p[i]->error = error;
        } else if (error) {
            log_warn(LOG_config, "vhds: '%s' is left out: %s", e.items.p[i]->name, error);
            xfree(error);
        }
    }
    vec_fini(&e.bytes);
    vec_fini(&e.items);
    return t;
}

static struct entry *set_among(const struct entry_links *uses) {
    for (size_t i = 0; i < uses->n; i++) {
        if (entry_links_at(uses, i)->extra->vhosts) {
            return entry_links_at(uses, i);
        }
    }
    return NULL;
}

struct route_table *store_vhds_table(struct entry *route, struct resource *r) {
    struct entry *set = set_among(r == route->active ? &route->uses : &route->warming_uses);
    bool all_good;
    if (!set || !r->route->uses_vhds) {
        return r->route;
    }
    struct route_table *t = combine(route->store, set->extra->vhosts, r, &all_good);
    if (!t) {
        return r->route;
    }
    if (set->extra->vhosts->table) {
        shared_unref(&set->extra->vhosts->table->shared);
    }
    set->extra->vhosts->table = t;
    return t;
}

/* ---- updates ---- */

static struct vhost_item *item_get(struct vhost_set *x, sv name) {
    struct vhost_item *i = map_get(&x->by_name, name);
    if (!i) {
        i = xnew(struct vhost_item);
        i->name = sv_dup(name);
        map_put(&x->by_name, sv_from(i->name, name.n), i);
    }
    return i;
}

/* Whoever asked for this name has an answer. */
static void answered(struct source_client *c, sv name) {
    struct entry *e = store_find(c->store, RES_VIRTUAL_HOST, c->source, name);
    if (e && e->is_on_demand) {
        e->is_gone = true; /* unless the table has it now (store_vhds_has) */
        store_stop_wait(e);
    }
}

/* Each alias of a delta Resource message; the set that the first known one belongs to. */
static struct entry *walk_aliases(struct source_client *c, sv envelope) {
    struct entry *set = NULL;
    uint64_t tag, n;
    while (envelope.n && wire_eat_varint(&envelope, &tag)) {
        unsigned kind = tag & 7;
        if (!wire_eat_varint(&envelope, &n) || (kind != 0 && kind != 2) ||
            (kind == 2 && n > envelope.n)) {
            return set;
        }
        if (kind == 2) {
            sv text = sv_sub(envelope, 0, n);
            envelope = sv_skip(envelope, n);
            if (tag >> 3 == FIELD_ALIASES) {
                answered(c, text);
                set = set ? set : set_named(c, namespace_of(text));
            }
        }
    }
    return set;
}

static bool is_same(const struct resource *r, sv wire) {
    uint64_t h[2];
    resource_hash(wire, h);
    return r && r->wire.n == wire.n && r->hash[0] == h[0] && r->hash[1] == h[1];
}

/* The set that the resource belongs to; NULL: nobody's. */
static struct entry *stage(struct source_client *c, const struct xds_resource *x) {
    struct entry *set = set_named(c, namespace_of(x->name));
    struct entry *by_alias = walk_aliases(c, x->envelope);
    answered(c, x->name);
    set = set ? set : by_alias;
    if (!set || !x->wire.p) { /* without a body: the server knows of no such host */
        return set;
    }
    struct vhost_item *i = item_get(set->extra->vhosts, x->name);
    unref_bytes(&i->staged);
    i->is_gone = false;
    if (is_same(i->active, x->wire)) {
        forget_refused(set, i);
    } else {
        i->staged = resource_uncompiled(RES_VIRTUAL_HOST, x->name, x->version, x->wire);
    }
    return set;
}

static struct entry *stage_removal(struct source_client *c, sv name) {
    struct entry *set = set_named(c, namespace_of(name));
    answered(c, name);
    struct vhost_item *i = set ? map_get(&set->extra->vhosts->by_name, name) : NULL;
    if (i) {
        i->is_gone = true;
    }
    return set;
}

static void note(struct entry_vec *sets, struct entry *set) {
    if (!set) {
        return;
    }
    for (size_t i = 0; i < sets->n; i++) {
        if (sets->p[i] == set) {
            return;
        }
    }
    store_keep(sets, set); /* what one makes ready may let go of another */
}

/* Take errors out of what is staged, told to the server. */
static void drop_wrong(struct entry *set, struct xds_verdict *v) {
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&set->extra->vhosts->by_name, &it))) {
        struct vhost_item *i = slot->value;
        if (i->error) {
            store_add_error(v, RES_VIRTUAL_HOST, sv_cstr(i->name), sv_cstr(i->error));
            note_refused(set, i);
            unref_bytes(&i->staged);
        }
    }
}

static void commit(struct entry *set) {
    struct vhost_set *x = set->extra->vhosts;
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&x->by_name, &it))) {
        struct vhost_item *i = slot->value;
        if (i->staged) {
            forget_refused(set, i);
            unref_bytes(&i->active);
            i->active = i->staged;
            i->staged = NULL;
        }
        if (i->is_gone || (!i->active && !i->refused)) {
            map_remove_at(&x->by_name, &it);
            item_free(set, i);
        }
    }
}

static struct entry *route_of(const struct entry *set) {
    return set->users.n ? entry_links_at(&set->users, 0) : NULL;
}

/* Refuse what is wrong, then publish what there is. */
static void settle(struct entry *set, struct xds_verdict *v) {
    struct entry *route = route_of(set);
    struct resource *base = !route ? NULL : route->warming ? route->warming : route->active;
    bool all_good = !base;
    while (!all_good) { /* each turn refuses one at least */
        struct route_table *t = combine(set->store, set->extra->vhosts, base, &all_good);
        if (t) {
            shared_unref(&t->shared);
        }
        drop_wrong(set, v);
    }
    commit(set);
    set->extra->vhosts->is_answered = true;
    store_stop_wait(set);
    if (route && route->active) {
        store_publish_route(route);
    }
    store_target_changed(set);
}

/* An update without anything answers everybody who waits for this source. */
static void note_all(struct source_client *c, struct entry_vec *sets) {
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&c->store->entries, &it))) {
        struct entry *e = slot->value;
        if (e->extra->vhosts && store_same_source(e->source, c->source)) {
            note(sets, e);
        }
    }
}

static bool is_accepted(struct source_client *c, const struct xds_resource *x) {
    struct entry *set = set_named(c, namespace_of(x->name));
    const struct vhost_item *i = set ? map_get(&set->extra->vhosts->by_name, x->name) : NULL;
    return !x->wire.p || !set || (i && is_same(i->active, x->wire));
}

void store_vhds_update(struct source_client *c, const struct xds_update *u, struct xds_verdict *v) {
    struct entry_vec sets = {0};
    for (unsigned i = 0; i < u->resources_n; i++) {
        note(&sets, stage(c, &u->resources[i]));
    }
    for (unsigned i = 0; i < u->removed_n; i++) {
        note(&sets, stage_removal(c, u->removed[i]));
    }
    if (!u->resources_n && !u->removed_n) {
        note_all(c, &sets);
    }
    for (size_t i = 0; i < sets.n; i++) {
        settle(sets.p[i], v);
    }
    store_let_go(&sets);
    for (unsigned i = 0; i < u->resources_n; i++) {
        v->accepted[i] = is_accepted(c, &u->resources[i]);
    }
}

struct resource **store_vhds_hosts(const struct entry *route, unsigned *n) {
    const struct entry *set = set_among(&route->uses);
    *n = 0;
    if (!set || !map_count(&set->extra->vhosts->by_name)) {
        return NULL;
    }
    const struct map *hosts = &set->extra->vhosts->by_name;
    struct resource **list = xnew_array(struct resource *, map_count(hosts));
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(hosts, &it))) {
        const struct vhost_item *i = slot->value;
        if (i->active) {
            list[(*n)++] = shared_ref(i->active);
        }
    }
    return list;
}

void store_vhds_refused(const struct entry *route, struct refused *out) {
    const struct entry *set = set_among(&route->uses);
    if (!set || !set->extra->vhosts->refused_n) {
        return;
    }
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&set->extra->vhosts->by_name, &it))) {
        const struct vhost_item *i = slot->value;
        if (i->refused) {
            refused_add(out, sv_cstr(i->name), sv_cstr(i->refused_why), i->refused, i->refused_us);
        }
    }
}

/* ---- on demand ---- */

static struct entry *route_in(struct store *s, slot_t slot) {
    uint8_t type = RES_ROUTE;
    struct buf BUF_AUTO key;
    buf_init(&key);
    buf_append(&key, &type, sizeof(type));
    /* source and name, as entries are kept */
    buf_append_sv(&key, names_of(s->config.routes, slot));
    return map_get(&s->entries, buf_pullup(&key, buf_len(&key)));
}

bool store_vhds_has(struct store *s, slot_t slot, sv host) {
    struct route_table *t =
        s->latest ? (struct route_table *)table_get(&s->latest->tables[TABLE_ROUTES], slot) : NULL;
    return t && route_table_has_host(t, host);
}

struct entry *store_vhds_demand(struct store *s, slot_t slot, sv host) {
    struct entry *route = route_in(s, slot);
    struct entry *set = route ? set_among(&route->uses) : NULL;
    if (!set) {
        return NULL;
    }
    struct buf BUF_AUTO name;
    buf_init(&name);
    buf_printf(&name, "%.*s/%.*s", SV_ARG(entry_name(set)), SV_ARG(host));
    sv text = buf_pullup(&name, buf_len(&name));
    struct entry *e = store_get(s, RES_VIRTUAL_HOST, set->source, text);
    bool was_answered = e->is_on_demand && e->is_gone && !store_is_demanded(e);
    if (was_answered && !store_vhds_has(s, slot, host)) { /* it went: ask anew */
        store_demand_release(e);
        e = store_get(s, RES_VIRTUAL_HOST, set->source, text);
    }
    e->is_gone = e->is_timed_out = false;
    if (!e->is_on_demand) {
        e->is_on_demand = true;
        store_watch(e);
        *vec_push(&set->extra->vhosts->asked) = e;
    }
    return e;
}
