/* SRDS: the scopes of a source, and the sets that connection managers make of them. A set is an
 * entry of its own that listeners refer to; it watches the route configurations its scopes name and
 * publishes one table of scopes.
 * Threads: the config thread. Spec: config.route.v3.ScopedRouteConfiguration; Envoy's scoped
 * RDS. */
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/route/route_table.h"
#include "proxy/route/scope.h"
#include "xds/scopes.h"
#include "xds/store_view.h"

/* ---- life of a set ---- */

static sv rds_prefix(sv stat_prefix) { /* "http.<p>." of "http.<p>.scoped_rds.<name>." */
    size_t at = sv_find_sv(stat_prefix, SV("scoped_rds."));
    return at == SIZE_MAX ? stat_prefix : sv_sub(stat_prefix, 0, at);
}

static void count(const struct entry *set, struct stats_scope *scope, unsigned stat) {
    stats_inc(stats_shard(scope, set->store->loop->thread_index), stat);
}

void store_scopes_begin(struct entry *set, const struct resource_ref *ref) {
    struct store *s = set->store;
    if (set->extra->scopes) {
        return;
    }
    struct scope_set *x = xnew(struct scope_set);
    x->rds = ref->scopes_rds;
    x->slot = ref->slot;
    names_ref(s->config.scopes, x->slot);
    map_init(&x->demanded);
    x->stats = stats_scope_get(s->opt.stats, &scoped_rds_stats_group, ref->stat_prefix);
    x->reload = stats_scope_get(s->opt.stats, &xds_reload_stats_group, ref->stat_prefix);
    entry_extra(set)->stats = stats_scope_get(s->opt.stats, &xds_stats_group, ref->stat_prefix);
    count(set, set->extra->stats, XDS_update_attempt);
    x->version = xstrdup("");
    entry_extra(set)->scopes = x;
    *vec_push(&s->scope_sets) = set;
}

static void forget_demands(struct scope_set *x) {
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&x->demanded, &it))) {
        xfree(slot->value);
    }
    map_fini(&x->demanded);
}

static void forget_conflict(struct scope_set *x) {
    xfree(x->conflict);
    x->conflict = NULL;
    if (x->refused) {
        shared_unref(&x->refused->shared);
        x->refused = NULL;
    }
}

void store_scopes_free(struct entry *set) {
    struct scope_set *x = set->extra->scopes;
    if (!x) {
        return;
    }
    forget_demands(x);
    stats_scope_unref(x->stats);
    stats_scope_unref(x->reload);
    entry_links_fini(&x->routes);
    forget_conflict(x);
    xfree(x->version);
    xfree(x);
    entry_extra(set)->scopes = NULL;
}

void store_scopes_end(struct entry *set) {
    struct store *s = set->store;
    struct scope_set *x = set->extra->scopes;
    for (size_t i = 0; i < s->scope_sets.n; i++) {
        if (s->scope_sets.p[i] == set) {
            vec_swap_remove(&s->scope_sets, i);
            break;
        }
    }
    store_unlink(set, &x->routes);
    names_release(s->config.scopes, x->slot);
    store_scopes_free(set);
    stats_scope_unref(set->extra->stats);
    entry_extra(set)->stats = NULL;
}

bool store_scopes_ready(const struct entry *set) {
    const struct scope_set *x = set->extra->scopes;
    if (!x->is_answered) {
        return false;
    }
    for (size_t i = 0; i < x->routes.n; i++) {
        if (!store_has_arrived(entry_links_at(&x->routes, i))) {
            return false;
        }
    }
    return true;
}

/* ---- one scope ---- */

void store_scope_set_active(struct entry *e, struct resource *r) {
    struct store *s = e->store;
    if (!e->active && r) {
        *vec_push(&s->scope_entries) = e;
    }
    for (size_t i = 0; e->active && !r && i < s->scope_entries.n; i++) {
        if (s->scope_entries.p[i] == e) {
            vec_swap_remove(&s->scope_entries, i);
        }
    }
    if (r && r->scope->table) {
        store_touch(s);
        table_set(&s->next->tables[TABLE_ROUTES], r->scope->table_slot, &r->scope->table->shared);
    }
}

/* ---- publishing ---- */

/* The slot lives as long as the table of scopes does, which connections may hold. */
static slot_t scope_slot(struct store *s, const struct scope_set *x, const struct scope_config *c,
                         struct arena *a) {
    slot_t slot = c->table_slot;
    if (c->table) {
        names_ref(s->config.routes, slot);
    } else {
        slot = config_route_slot(&s->config, x->rds, c->route_name);
    }
    names_release_with(s->config.routes, slot, a);
    return slot;
}

/* While a set's table is made. */
struct publish {
    struct scope_table *table;
    struct entry_links routes;
    struct map linked; /* names of these routes */
    unsigned all, active, on_demand;
};

static void watch_route(struct entry *set, struct publish *p, sv name) {
    struct scope_set *x = set->extra->scopes;
    if (map_get(&p->linked, name)) {
        return;
    }
    struct resource_ref ref = {.type = RES_ROUTE,
                               .name = name,
                               .source = x->rds,
                               .stat_prefix = rds_prefix(stats_scope_prefix(x->stats))};
    store_link_one(set, &ref, &p->routes);
    map_put(&p->linked, name, set);
}

static void add_scope(struct entry *set, const struct entry *e, struct publish *p) {
    struct scope_set *x = set->extra->scopes;
    const struct scope_config *c = e->active->scope;
    struct scope scope = {.name = entry_name(e),
                          .key = c->key,
                          .routes = scope_slot(set->store, x, c, &p->table->arena),
                          .is_on_demand = c->is_on_demand};
    bool is_wanted = !c->is_on_demand || map_get(&x->demanded, entry_name(e));
    scope_table_add(p->table, &scope);
    p->all++;
    p->on_demand += c->is_on_demand;
    p->active += c->table || is_wanted;
    if (!c->table && is_wanted) {
        watch_route(set, p, c->route_name);
    }
}

static void publish(struct entry *set) {
    struct store *s = set->store;
    struct scope_set *x = set->extra->scopes;
    struct entry_links old = x->routes;
    struct publish p = {.table = scope_table_new()};
    map_init(&p.linked);
    for (size_t i = 0; i < s->scope_entries.n; i++) {
        const struct entry *e = s->scope_entries.p[i];
        if (store_same_source(e->source, set->source)) {
            add_scope(set, e, &p);
        }
    }
    map_fini(&p.linked);
    x->routes = p.routes; /* first the new ones, so that nothing in use is let go */
    store_unlink(set, &old);
    store_touch(s);
    table_set(&s->next->tables[TABLE_SCOPES], x->slot, &p.table->shared);
    shared_unref(&p.table->shared);
    struct stats_shard *sh = stats_shard(x->stats, s->loop->thread_index);
    stats_gauge_set(sh, SCOPED_RDS_all_scopes, p.all);
    stats_gauge_set(sh, SCOPED_RDS_active_scopes, p.active);
    stats_gauge_set(sh, SCOPED_RDS_on_demand_scopes, p.on_demand);
}

void store_scopes_started(struct entry *set) {
    const struct source_client *c = store_client(set->store, set->source, RES_SCOPED_ROUTE);
    if (!set->extra->scopes->is_answered && c && c->are_scopes_known) {
        set->extra->scopes->is_answered = true;
        store_stop_wait(set);
        publish(set);
    }
}

bool store_scopes_demand(struct entry *set, sv key, struct entry **route) {
    struct store *s = set->store;
    struct scope_set *x = set->extra->scopes;
    for (size_t i = 0; i < s->scope_entries.n; i++) {
        struct entry *e = s->scope_entries.p[i];
        const struct scope_config *c = e->active->scope;
        if (!store_same_source(e->source, set->source) || !sv_eq(c->key, key) || c->table) {
            continue;
        }
        if (!map_get(&x->demanded, entry_name(e))) {
            char *name = sv_dup(entry_name(e));
            map_put(&x->demanded, sv_from(name, e->name_n), name);
            publish(set);
        }
        *route = store_get(s, RES_ROUTE, x->rds, c->route_name);
        return true;
    }
    return false;
}

/* ---- updates ---- */

struct conflict_check {
    struct arena a;
    struct map by_key;  /* → name, arena text */
    struct map by_name; /* scopes that the update changes or removes */
    struct buf *error;
};

static bool take_key(struct conflict_check *k, sv key, sv name) {
    const char *first = map_get(&k->by_key, key);
    if (first && !sv_eq(sv_cstr(first), name)) {
        buf_printf(k->error,
                   "Error adding/updating scoped route(s): scope key conflict found, first scope "
                   "is '%s', second scope is '%.*s'",
                   first, SV_ARG(name));
        return false;
    }
    map_put(&k->by_key, arena_sv(&k->a, key), arena_cstr(&k->a, name));
    return true;
}

/* Keys as they would be after the update. */
static bool keys_differ(struct source_client *c, const struct xds_update *u,
                        struct conflict_check *k) {
    struct store *s = c->store;
    for (unsigned i = 0; i < u->removed_n; i++) {
        map_put(&k->by_name, u->removed[i], k);
    }
    for (unsigned i = 0; i < u->resources_n; i++) {
        sv name, key;
        if (!scope_peek(u->resources[i].wire, &k->a, &name, &key)) {
            continue;
        }
        map_put(&k->by_name, name, k);
        if (!take_key(k, key, name)) {
            return false;
        }
    }
    for (size_t i = 0; i < s->scope_entries.n && !u->is_full; i++) {
        const struct entry *e = s->scope_entries.p[i];
        if (store_same_source(e->source, c->source) && !map_get(&k->by_name, entry_name(e)) &&
            !take_key(k, e->active->scope->key, entry_name(e))) {
            return false;
        }
    }
    return true;
}

static void note_conflict(struct source_client *c, sv version, sv error) {
    struct store *s = c->store;
    for (size_t i = 0; i < s->scope_sets.n; i++) {
        struct scope_set *x = s->scope_sets.p[i]->extra->scopes;
        if (!store_same_source(s->scope_sets.p[i]->source, c->source)) {
            continue;
        }
        forget_conflict(x);
        if (error.n) {
            x->conflict = sv_dup(error);
            x->refused = resource_uncompiled(RES_SCOPED_ROUTE, SV_NULL, version, SV_NULL);
            x->refused_us = loop_wall_us(s->loop, loop_now_us(s->loop));
        }
    }
}

void store_scopes_refused(const struct entry *set, const struct entry_vec *bad,
                          struct refused *out) {
    const struct scope_set *x = set->extra->scopes;
    for (size_t i = 0; i < bad->n; i++) {
        const struct entry *e = bad->p[i];
        if (store_same_source(e->source, set->source)) {
            refused_add(out, entry_name(e), sv_cstr(e->extra->error), e->extra->failed,
                        e->extra->error_us);
        }
    }
    if (x->conflict) {
        refused_add(out, SV_NULL, sv_cstr(x->conflict), x->refused, x->refused_us);
    }
}

bool store_scopes_conflict(struct source_client *c, const struct xds_update *u, struct buf *error) {
    struct conflict_check k = {.error = error};
    arena_init(&k.a, 0);
    map_init(&k.by_key);
    map_init(&k.by_name);
    bool ok = keys_differ(c, u, &k);
    map_fini(&k.by_key);
    map_fini(&k.by_name);
    arena_fini(&k.a);
    note_conflict(c, u->version, buf_pullup(error, buf_len(error)));
    return !ok;
}

static void note_update(struct entry *set, const struct xds_update *u, bool is_good) {
    struct store *s = set->store;
    struct scope_set *x = set->extra->scopes;
    struct stats_shard *sh = stats_shard(set->extra->stats, s->loop->thread_index);
    stats_inc(sh, is_good ? XDS_update_success : XDS_update_rejected);
    stats_inc(sh, XDS_update_attempt);
    if (!is_good) {
        return;
    }
    store_note_version(s, set->extra->stats, u->version);
    store_count_reload(s, x->reload);
    xfree(x->version);
    x->version = sv_dup(u->version);
    x->updated_us = loop_wall_us(s->loop, loop_now_us(s->loop));
}

void store_scopes_updated(struct source_client *c, const struct xds_update *u, bool is_good) {
    struct store *s = c->store;
    c->are_scopes_known = true;
    struct entry_vec sets = {0}; /* activating a listener may change the list */
    for (size_t i = 0; i < s->scope_sets.n; i++) {
        if (store_same_source(s->scope_sets.p[i]->source, c->source)) {
            store_keep(&sets, s->scope_sets.p[i]);
        }
    }
    for (size_t i = 0; i < sets.n; i++) {
        note_update(sets.p[i], u, is_good);
        sets.p[i]->extra->scopes->is_answered = true;
        store_stop_wait(sets.p[i]);
        publish(sets.p[i]);
        store_target_changed(sets.p[i]);
    }
    store_let_go(&sets);
}
