/* What resources refer to: links between entries, subscriptions by first and last watcher, clients
 * of sources.
 * Threads: the config thread. */
#include "proxy/base/mem.h"
#include "xds/client.h"
#include "xds/leds.h"
#include "xds/scopes.h"
#include "xds/store.h"
#include "xds/vhds.h"

/* ---- links ---- */

static void begin_route_stats(struct entry *t, sv prefix) {
    struct buf BUF_AUTO b;
    buf_init(&b);
    buf_printf(&b, "%.*srds.%.*s.", SV_ARG(prefix), SV_ARG(entry_name(t)));
    entry_extra(t)->stats =
        stats_scope_get(t->store->opt.stats, &xds_stats_group, buf_pullup(&b, buf_len(&b)));
}

static struct entry *target_of(struct entry *owner, const struct resource_ref *ref) {
    struct store *s = owner->store;
    struct entry *t = store_get(s, ref->type, ref->source, ref->name);
    if (ref->scopes_rds) {
        store_scopes_begin(t, ref);
    }
    if (ref->type == RES_VIRTUAL_HOST) {
        store_vhds_begin(t);
    }
    if (ref->type == RES_LB_ENDPOINT) {
        store_leds_begin(t, owner);
    }
    if (ref->type == RES_ROUTE && !t->extra->stats) {
        begin_route_stats(t, ref->stat_prefix);
    }
    return t;
}

void store_link_one(struct entry *owner, const struct resource_ref *ref, struct entry_links *uses) {
    struct entry *t = target_of(owner, ref);
    entry_links_add(uses, t);
    entry_links_add(&t->users, owner);
    store_watch(t);
    if (t->extra->scopes) {
        store_scopes_started(t);
    }
}

void store_link(struct entry *owner, const struct resource *r, struct entry_links *uses) {
    for (unsigned i = 0; i < r->refs_n; i++) {
        store_link_one(owner, &r->refs[i], uses);
    }
    store_extensions_link(owner->store, r);
}

void store_unlink(struct entry *owner, struct entry_links *uses) {
    for (size_t i = 0; i < uses->n; i++) {
        struct entry *t = entry_links_at(uses, i);
        entry_links_remove(&t->users, owner);
        store_unwatch(t);
    }
    entry_links_fini(uses);
}

/* ---- clients ---- */

static struct source_client *client_add(struct store *s, const struct config_source *src,
                                        enum resource_type t) {
    struct source_client *c = source_client_new(s, src, t);
    if (c) {
        s->clients = xreallocarray(s->clients, s->clients_n + 1, sizeof(*s->clients));
        s->clients[s->clients_n++] = c;
    }
    return c;
}

struct source_client *store_client(struct store *s, const struct config_source *src,
                                   enum resource_type t) {
    for (unsigned i = 0; i < s->clients_n; i++) {
        struct source_client *c = s->clients[i];
        bool is_ads = src->kind == SOURCE_ADS && c->source->kind == SOURCE_ADS;
        if (is_ads || (c->source == src && c->type == t && !c->only)) {
            return c;
        }
    }
    /* ADS: there is no ads_config in the bootstrap */
    return src->kind == SOURCE_ADS ? NULL : client_add(s, src, t);
}

void store_clients_free(struct store *s) {
    for (unsigned i = 0; i < s->clients_n; i++) {
        source_client_free(s->clients[i]);
    }
    xfree(s->clients);
    s->clients = NULL;
    s->clients_n = 0;
}

/* ---- subscriptions ---- */

/* As Envoy, a stream for each secret: an agent that can not make one ends the stream, and with it
 * would go all others. */
static bool is_alone(const struct entry *t) {
    return t->type == RES_SECRET && t->source->kind == SOURCE_API;
}

static struct source_client *find_alone(const struct entry *t) {
    const struct store *s = t->store;
    for (unsigned i = 0; i < s->clients_n; i++) {
        if (s->clients[i]->only == t) {
            return s->clients[i];
        }
    }
    return NULL;
}

static struct source_client *client_of(const struct entry *t) {
    if (!t->source || t->source->kind == SOURCE_STATIC) {
        return NULL;
    }
    if (!is_alone(t)) {
        return store_client(t->store, t->source, t->type);
    }
    struct source_client *c = find_alone(t);
    c = c ? c : client_add(t->store, t->source, t->type);
    if (c) {
        c->only = t;
    }
    return c;
}

static void free_client(struct loop_garbage *g) {
    source_client_free(CONTAINER_OF(g, struct source_client, garbage));
}

/* Its stream ends with the turn: this may be one of its callbacks. */
static void end_alone(struct source_client *c) {
    struct store *s = c->store;
    for (unsigned i = 0; i < s->clients_n; i++) {
        if (s->clients[i] == c) {
            s->clients[i] = s->clients[--s->clients_n];
        }
    }
    c->only = NULL;
    c->garbage.free = free_client;
    loop_defer_free(s->loop, &c->garbage);
}

static void subscribe(const struct entry *t, struct source_client *c) {
    if (!t->extra->scopes) {
        xds_mux_watch(c->mux, t->type, entry_name(t));
    } else if (!c->watches_scopes) {
        c->watches_scopes = true;
        xds_mux_watch_all(c->mux, t->type);
    }
}

static void start_fetch(struct entry *t) {
    struct source_client *c = client_of(t);
    if (!c) {
        return;
    }
    if (t->source->initial_fetch_timeout_ms && !t->active) {
        store_start_wait(t, t->source->initial_fetch_timeout_ms);
    }
    subscribe(t, c);
    /* others count theirs themselves */
    if (t->type == RES_ROUTE || t->type == RES_SECRET || t->extra->leds) {
        store_count_named(t, XDS_update_attempt);
    }
}

void store_watch(struct entry *t) {
    if (t->watchers++ == 0) {
        start_fetch(t);
    }
}

void store_keep(struct entry_vec *kept, struct entry *e) {
    if (e->watchers) {
        e->watchers++;
        *vec_push(kept) = e;
    }
}

void store_let_go(struct entry_vec *kept) {
    for (size_t i = 0; i < kept->n; i++) {
        store_unwatch(kept->p[i]);
    }
    vec_fini(kept);
}

void store_ads_opened(struct store *s) {
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&s->entries, &it))) {
        struct entry *e = slot->value;
        if (e->watchers && e->source && e->source->kind == SOURCE_ADS) {
            start_fetch(e);
        }
    }
}

void store_unwatch(struct entry *t) {
    if (--t->watchers > 0) {
        return;
    }
    store_stop_wait(t);
    struct source_client *c = client_of(t);
    if (t->extra->scopes) {
        store_scopes_end(t);
    } else if (c) {
        xds_mux_unwatch(c->mux, t->type, entry_name(t));
        if (t->type == RES_ROUTE || t->type == RES_ENDPOINTS) {
            store_drop_warming(t);
        }
        if (t->active && t->type != RES_CLUSTER && t->type != RES_LISTENER) {
            store_set_active(t, NULL); /* nobody wants it: asked for again, it comes again */
        }
    }
    if (c && c->only) {
        end_alone(c);
    }
    if (t->extra->vhosts) {
        store_vhds_end(t);
    }
    store_leds_free(t);
    store_drop_if_unused(t);
}
