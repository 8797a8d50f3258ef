/* Addresses and sockets of listeners, and their end. An address belongs to one listener, from when
 * it is accepted to when it goes; sockets are bound when a version is accepted, so that a port in
 * use is an error of that update, and listen when it is active. Sockets that a listener leaves go
 * to one with the same address that comes in the same event; else their last worker closes them. A
 * version that was replaced drains as long as a worker refers to it.
 * Threads: the config thread. Spec: listener.v3.Listener address, additional_addresses; Envoy's
 * words.
 * Not here: making sockets (config/sockets.c). */
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "xds/listeners.h"
#include "xds/store.h"

/* ---- addresses ---- */

struct address_claim {
    struct entry *by;
    size_t n;
    char key[];
};

static sv key_of(const struct addr *a) { return addr_is_ip(a) ? addr_key(a) : sv_cstr(a->path); }

/* Any port is free as long as the system chooses it. */
static bool is_exclusive(const struct listener_config *c, const struct addr *a) {
    return !addr_is_ip(a) || a->port || !c->bind_to_port;
}

static void claim(struct entry *e, const struct listener_config *c) {
    struct map *claims = &e->store->listener_addresses;
    for (unsigned i = 0; i < c->addresses_n; i++) {
        sv key = key_of(&c->addresses[i].addr);
        if (!is_exclusive(c, &c->addresses[i].addr) || map_get(claims, key)) {
            continue;
        }
        struct address_claim *x = xcalloc(1, sizeof(*x) + key.n);
        x->by = e;
        x->n = key.n;
        memcpy(x->key, key.p, key.n);
        map_put(claims, sv_from(x->key, x->n), x);
    }
}

static void unclaim(struct entry *e, const struct listener_config *c) {
    struct map *claims = &e->store->listener_addresses;
    for (unsigned i = 0; i < c->addresses_n; i++) {
        sv key = key_of(&c->addresses[i].addr);
        struct address_claim *x = map_get(claims, key);
        if (x && x->by == e) {
            map_remove(claims, key);
            xfree(x);
        }
    }
}

void store_listener_claims(struct entry *e, const struct resource *left) {
    if (left) {
        unclaim(e, left->listener);
    }
    if (e->active) {
        claim(e, e->active->listener);
    }
    if (e->warming) {
        claim(e, e->warming->listener);
    }
}

static bool check_addresses(const struct entry *e, const struct listener_config *c,
                            struct diag *d) {
    bool is_taken = false;
    for (unsigned i = 0; i < c->addresses_n; i++) {
        const struct address_claim *x =
            map_get(&e->store->listener_addresses, key_of(&c->addresses[i].addr));
        is_taken |= x && x->by != e && is_exclusive(c, &c->addresses[i].addr);
    }
    if (!is_taken) {
        return true;
    }
    struct buf BUF_AUTO list;
    buf_init(&list);
    for (unsigned i = 0; i < c->addresses_n; i++) {
        char text[ADDR_STR_MAX];
        addr_str(&c->addresses[i].addr, text);
        buf_printf(&list, "%s%s", i ? "," : "", text);
    }
    sv name = entry_name(e), all = buf_pullup(&list, buf_len(&list));
    return diag_error(d,
                      "error adding listener: '%.*s' has duplicate address '%.*s' as existing "
                      "listener, to check if the listener has duplicated addresses with other "
                      "listeners or 'enable_reuse_port' is set to 'false' for the listener",
                      SV_ARG(name), SV_ARG(all));
}

/* ---- sockets ---- */

static void drop(struct listener_sockets **s) {
    if (*s) {
        shared_unref(&(*s)->shared);
        *s = NULL;
    }
}

void store_listener_drop_warming(struct entry *e) {
    if (e->extra->warming_sockets) {
        drop(&entry_extra(e)->warming_sockets);
    }
}

/* Those that a listener with the same addresses has left in this event; NULL: none. One ref. */
static struct listener_sockets *inherit(struct store *s, const struct listener_config *c) {
    for (size_t i = 0; i < s->sockets_left.n; i++) {
        struct sockets_left *x = &s->sockets_left.p[i];
        if (x->sockets && listener_same_sockets(x->of->listener, c)) {
            struct listener_sockets *found = x->sockets;
            x->sockets = NULL;
            return found;
        }
    }
    return NULL;
}

/* A version that is not accepted leaves the one that waits as it is. */
static bool bind_sockets(struct entry *e, const struct listener_config *c, struct diag *d) {
    struct store *s = e->store;
    const struct entry_extra *x = e->extra;
    if (s->opt.is_dry_run ||
        (x->warming_sockets && listener_same_sockets(e->warming->listener, c))) {
        return true;
    }
    struct listener_sockets *made = NULL;
    if (!x->sockets || !listener_same_sockets(e->active->listener, c)) {
        made = inherit(s, c);
        made = made ? made : listener_sockets_new(c, s->opt.workers, d);
        if (!made) {
            stats_inc(s->listener_manager, LISTENER_MANAGER_listener_create_failure);
            return false;
        }
    }
    store_listener_drop_warming(e);
    if (made) {
        entry_extra(e)->warming_sockets = made;
    }
    return true;
}

bool store_listener_accept(struct entry *e, const struct resource *r, struct diag *d) {
    return check_addresses(e, r->listener, d) && bind_sockets(e, r->listener, d);
}

void store_listener_ended(struct entry *e) {
    struct entry_extra *x = entry_extra(e);
    if (x->sockets) {
        *vec_push(&e->store->sockets_left) =
            (struct sockets_left){x->sockets, shared_ref(e->active)};
        x->sockets = NULL;
    }
}

bool store_listener_listen(struct entry *e, const struct resource *r) {
    struct store *s = e->store;
    struct entry_extra *x = entry_extra(e);
    if (!x->warming_sockets) { /* it stays on those it has */
        return true;
    }
    int rc = listener_sockets_listen(x->warming_sockets, r->listener);
    if (rc < 0) {
        stats_inc(s->listener_manager, LISTENER_MANAGER_listener_create_failure);
        log_error(LOG_config, "listener '%.*s': cannot listen: %s", SV_ARG(entry_name(e)),
                  sock_strerror(rc));
        return false;
    }
    store_listener_ended(e);
    x->sockets = x->warming_sockets;
    x->warming_sockets = NULL;
    return true;
}

void store_listeners_settle(struct store *s) {
    for (size_t i = 0; i < s->sockets_left.n; i++) {
        struct sockets_left *x = &s->sockets_left.p[i];
        if (x->sockets) {
            listener_sockets_leave(x->sockets);
            drop(&x->sockets);
        }
        shared_unref(&x->of->shared);
    }
    s->sockets_left.n = 0;
}

/* ---- draining ---- */

/* How soon the end of a drain is seen. */
#define DRAINING_MS 100u

/* by: 1 when it begins, -1 when it is over */
static void count_draining(struct store *s, const struct listener_draining *d, int by) {
    if (d->is_whole) {
        stats_gauge_add(s->listener_manager, LISTENER_MANAGER_total_listeners_draining, by);
    } else {
        stats_gauge_add(s->listener_manager, LISTENER_MANAGER_total_filter_chains_draining,
                        by * (int)d->chains);
    }
}

static void on_draining_timer(struct timer *t) {
    struct store *s = CONTAINER_OF(t, struct store, draining_timer);
    size_t kept = 0;
    for (size_t i = 0; i < s->draining.n; i++) {
        struct listener_draining *d = &s->draining.p[i];
        if (shared_is_last(&d->of->shared)) {
            count_draining(s, d, -1);
            shared_unref(&d->of->shared);
        } else {
            s->draining.p[kept++] = *d;
        }
    }
    s->draining.n = kept;
    if (kept) {
        timer_start(t, DRAINING_MS);
    }
}

static unsigned chains_gone(const struct listener_config *old, const struct listener_config *c) {
    unsigned n = 0;
    for (unsigned i = 0; i < old->chains_n; i++) {
        n += !listener_has_chain(c, &old->chains[i]);
    }
    return n;
}

void store_listener_drains(struct entry *e, const struct resource *r) {
    struct store *s = e->store;
    struct resource *old = e->active;
    bool is_whole = !r || !old || !listener_same_but_chains(old->wire, r->wire);
    unsigned chains = is_whole ? 0 : chains_gone(old->listener, r->listener);
    if (!old || (!is_whole && !chains)) {
        return;
    }
    struct listener_draining *d = vec_push(&s->draining);
    *d = (struct listener_draining){shared_ref(old), is_whole, chains};
    count_draining(s, d, 1);
    if (!timer_active(&s->draining_timer)) {
        timer_start(&s->draining_timer, DRAINING_MS);
    }
}

void store_listeners_init(struct store *s) {
    timer_init(&s->draining_timer, s->loop, on_draining_timer);
}

void store_listeners_free(struct store *s) {
    store_listeners_settle(s);
    timer_cancel(&s->draining_timer);
    for (size_t i = 0; i < s->draining.n; i++) {
        shared_unref(&s->draining.p[i].of->shared);
    }
    vec_fini(&s->draining);
    vec_fini(&s->sockets_left);
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&s->listener_addresses, &it))) {
        xfree(slot->value);
    }
    map_fini(&s->listener_addresses);
}
