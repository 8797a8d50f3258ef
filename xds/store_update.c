/* The sink of every mux: a response's resources one by one, good ones applied, bad ones told.
 * Threads: the config thread. Spec: xDS protocol, ACK/NACK; Envoy's words in error_detail. */
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/upstream/cluster.h"
#include "xds/leds.h"
#include "xds/listeners.h"
#include "xds/scopes.h"
#include "xds/store.h"
#include "xds/store_demand.h"
#include "xds/store_view.h"
#include "xds/vhds.h"

#define NACK_TEXT_MAX (64u * 1024)

/* ---- one resource ---- */

/* Envoy's words before a resource's own; NULL: its name alone. */
static const char *error_subject(enum resource_type t) {
    return t == RES_LISTENER  ? "Error adding/updating listener(s) "
           : t == RES_CLUSTER ? "Error adding/updating cluster(s) "
                              : "";
}

/* One line each; what does not fit whole is cut, then left out. */
void store_add_error(struct xds_verdict *v, enum resource_type t, sv name, sv text) {
    size_t n = buf_len(v->error);
    if (n + 1 >= NACK_TEXT_MAX) {
        return;
    }
    struct buf BUF_AUTO line;
    buf_init(&line);
    buf_printf(&line, "%s%s%.*s: %.*s", n ? "\n" : "", error_subject(t), SV_ARG(name),
               SV_ARG(text));
    sv whole = buf_pullup(&line, buf_len(&line));
    buf_append_sv(v->error, sv_sub(whole, 0, NACK_TEXT_MAX - n));
}

static struct resource *newest(const struct entry *e) {
    return e->warming ? e->warming : e->active;
}

static bool has_equal_bytes(const struct entry *e, sv wire) {
    const struct resource *r = newest(e);
    uint64_t h[2];
    if (!r || r->wire.n != wire.n) {
        return false;
    }
    resource_hash(wire, h);
    return r->hash[0] == h[0] && r->hash[1] == h[1];
}

/* Names that only ever came bad are remembered for /config_dump, as long as they are not too many:
 * else the entry, of a full-state type as nobody watches it, is gone after the call. */
static void note_only_rejected(struct entry *e) {
    struct store *s = e->store;
    if (e->active || e->warming || e->watchers || e->is_only_rejected) {
        return;
    }
    if (s->only_rejected_n >= STORE_ONLY_REJECTED_MAX) {
        log_warn_limited(LOG_config,
                         "%s: more than %u names were only ever refused: '%.*s' is not "
                         "shown by /config_dump",
                         resource_types[e->type].short_name, STORE_ONLY_REJECTED_MAX,
                         SV_ARG(entry_name(e)));
        store_clear_error(e);
        store_drop_if_unused(e);
        return;
    }
    e->is_only_rejected = true;
    s->only_rejected_n++;
}

void store_refuse(struct entry *e, sv wire, sv version, sv text) {
    store_view_before(e);
    struct entry_extra *x = entry_extra(e);
    xfree(x->error);
    x->error = sv_dup(text);
    x->error_us = loop_wall_us(e->store->loop, loop_now_us(e->store->loop));
    store_drop_failed(e);
    bool fits = wire.n <= STORE_FAILED_BYTES_MAX - e->store->failed_bytes;
    x->failed = resource_uncompiled(e->type, entry_name(e), version, fits ? wire : SV(""));
    e->store->failed_bytes += x->failed->wire.n;
}

static void reject(struct entry *e, sv wire, sv version, sv text, struct xds_verdict *v) {
    store_add_error(v, e->type, entry_name(e), text);
    store_refuse(e, wire, version, text);
    store_note_failure(e, XDS_update_rejected);
    note_only_rejected(e);
}

static sv name_of(const struct xds_update *u, const struct xds_resource *x) {
    return x->name.n ? x->name : resource_name_of(u->type, x->wire);
}

/* Can it be had, beside being right? */
static bool can_have(struct entry *e, struct resource *r, struct diag *d) {
    return e->type == RES_EXTENSION  ? store_extension_update(e, r, d)
           : e->type == RES_LISTENER ? store_listener_accept(e, r, d)
                                     : true;
}

static bool take(struct source_client *c, const struct xds_update *u, const struct xds_resource *x,
                 struct diag *d, struct xds_verdict *v) {
    struct store *s = c->store;
    sv name = name_of(u, x);
    struct entry *e = store_get(s, u->type, c->source, name);
    if (e->extra->scopes) {
        store_add_error(v, u->type, name, SV("not a name for a resource"));
        return false;
    }
    if (e->seen_update == s->update_count) {
        sv text = SV("duplicate resource name in the response");
        store_add_error(v, u->type, name, text);
        return false;
    }
    e->seen_update = s->update_count;
    if (!x->wire.p) { /* heartbeat */
        store_drop_if_unused(e);
        return true;
    }
    if (e->is_static) {
        return true; /* a static resource of this name wins, as in Envoy */
    }
    if (!e->source) {
        e->source = c->source;
    }
    if (has_equal_bytes(e, x->wire)) {
        store_clear_error(e);
        store_note_named_success(e, u->version);
        return true;
    }
    bool is_wildcard = resource_types[u->type].is_full_state;
    if (!is_wildcard && !e->watchers) {
        store_drop_if_unused(e);
        return true; /* nobody asked */
    }
    diag_reset(d);
    struct resource *r =
        resource_compile(&s->config, u->type, name, x->version, x->wire, false, newest(e), d);
    if (!r || !can_have(e, r, d)) {
        reject(e, x->wire, x->version, diag_text(d), v);
        if (r) {
            shared_unref(&r->shared);
        }
        if (!is_wildcard) {          /* only entries of these types are still there for sure */
            store_target_changed(e); /* who waited for it may wait no longer */
        }
        return false;
    }
    store_note_named_success(e, u->version);
    store_note_reload(e);
    s->change_count++;
    store_apply(e, r); /* e may be gone: its user may have been replaced meanwhile */
    return true;
}

/* ---- removal ---- */

static void remove_entry(struct entry *e) {
    if (e->is_only_rejected) {
        store_clear_error(e);
        store_drop_if_unused(e);
        return;
    }
    log_info(LOG_config, "%s: remove '%.*s'", resource_types[e->type].short_name,
             SV_ARG(entry_name(e)));
    e->store->change_count++;
    store_remove(e);
}

/* As Envoy: routes, endpoints and secrets go with those who refer to them, or when their time has
 * passed. */
static bool stays_in_use(const struct entry *e, bool is_expiry) {
    return e->type == RES_ROUTE ||
           (!is_expiry && !e->is_on_demand && (e->type == RES_ENDPOINTS || e->type == RES_SECRET));
}

/* Who waits for it goes without. */
static void ignore_removal(struct entry *e) {
    log_warn(LOG_config, "%s: the server removed '%.*s': what there is of it stays in use",
             resource_types[e->type].short_name, SV_ARG(entry_name(e)));
    e->is_gone = true;
    for (size_t i = 0; e->type == RES_ENDPOINTS && i < e->users.n; i++) {
        store_hosts_count_empty(entry_links_at(&e->users, i));
    }
    store_target_changed(e);
}

static void remove_named(struct source_client *c, const struct xds_update *u, sv name) {
    enum resource_type t = u->type;
    struct entry *e = store_find(c->store, t, c->source, name);
    if (!e || e->is_static) {
        return;
    }
    if (e->source && !store_same_source(e->source, c->source) &&
        (t == RES_CLUSTER || t == RES_LISTENER)) {
        return; /* another source's */
    }
    if (stays_in_use(e, u->is_expiry)) {
        ignore_removal(e);
        return;
    }
    /* then it stays, as it is watched */
    bool is_on_demand = e->is_on_demand && !e->is_only_rejected;
    remove_entry(e);
    if (is_on_demand && !store_is_demanded(e)) {
        store_demand_release(e);
    }
}

/* SotW: what this source brought and the response does not list is gone. */
static void remove_unlisted(struct source_client *c, const struct xds_update *u) {
    struct store *s = c->store;
    struct map listed;
    map_init(&listed);
    for (unsigned i = 0; i < u->resources_n; i++) {
        map_put(&listed, name_of(u, &u->resources[i]), c);
    }
    VEC(struct entry *) gone = {0};
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&s->entries, &it))) {
        struct entry *e = slot->value;
        bool is_ours = e->type == u->type && store_same_source(e->source, c->source) &&
                       !e->is_static && (e->active || e->warming || e->is_only_rejected);
        if (is_ours && !map_get(&listed, entry_name(e))) {
            *vec_push(&gone) = e;
        }
    }
    for (size_t i = 0; i < gone.n; i++) {
        remove_entry(gone.p[i]);
    }
    vec_fini(&gone);
    map_fini(&listed);
}

/* A resource that can't be read might be any: nothing is gone then. */
static void remove_gone(struct source_client *c, const struct xds_update *u) {
    bool are_all_known = true;
    for (unsigned i = 0; i < u->resources_n; i++) {
        are_all_known &= name_of(u, &u->resources[i]).n > 0;
    }
    for (unsigned i = 0; i < u->removed_n; i++) {
        remove_named(c, u, u->removed[i]);
    }
    if (u->is_full && are_all_known && resource_types[u->type].is_full_state) {
        remove_unlisted(c, u);
    }
}

/* ---- the sink ---- */

static void keep_version(struct store *s, enum resource_type t, sv version) {
    char **at = t == RES_CLUSTER ? &s->cds_version : t == RES_LISTENER ? &s->lds_version : NULL;
    if (at) {
        xfree(*at);
        *at = sv_dup(version);
    }
}

/* Start-up waits for t no more. */
static void first_response(struct store *s, enum resource_type t) {
    if (t == RES_CLUSTER) {
        s->waits_cds = false;
        store_watch_listeners(s);
    } else if (t == RES_LISTENER) {
        s->waits_lds = false;
    }
}

static void log_rejected(enum resource_type t, sv why) {
    log_warn(LOG_config, "gRPC config for %s rejected: %.*s", resource_types[t].type_url,
             SV_ARG(why));
}

/* Was anything added or changed, beside what was removed? As in Envoy listeners go before others
 * take their addresses, and all else goes when what takes its place is there. */
static bool apply_update(struct source_client *c, const struct xds_update *u, struct diag *d,
                         struct xds_verdict *v) {
    if (u->type == RES_LISTENER) {
        remove_gone(c, u);
    }
    uint64_t changes_before = c->store->change_count;
    for (unsigned i = 0; i < u->resources_n; i++) {
        v->accepted[i] = take(c, u, &u->resources[i], d, v);
    }
    bool has_new = c->store->change_count != changes_before;
    if (u->type != RES_LISTENER) {
        remove_gone(c, u);
    }
    return has_new;
}

void store_on_update(void *user, const struct xds_update *u, struct xds_verdict *v) {
    struct source_client *c = user;
    struct store *s = c->store;
    struct stats_scope *scope = store_wildcard_scope(s, u->type);
    struct diag *d = xnew(struct diag);
    diag_init(d);
    s->update_count++;
    uint64_t changes_before = s->change_count;
    s->update_began_us = loop_refresh_now(s->loop);
    bool is_srds = u->type == RES_SCOPED_ROUTE, has_new = false;
    if (u->type == RES_VIRTUAL_HOST) {
        store_vhds_update(c, u, v);
    } else if (u->type == RES_LB_ENDPOINT) {
        store_leds_update(c, u, v);
    } else if (!is_srds || !store_scopes_conflict(c, u, v->error)) {
        has_new = apply_update(c, u, d, v);
    }
    bool is_good = buf_empty(v->error);
    store_count(s, scope, is_good ? XDS_update_success : XDS_update_rejected);
    store_count(s, scope, XDS_update_attempt); /* the next one */
    if (is_good) {
        store_note_version(s, scope, u->version);
    } else {
        log_rejected(u->type, buf_pullup(v->error, buf_len(v->error)));
    }
    if (s->change_count != changes_before) {
        keep_version(s, u->type, u->version);
    }
    if (is_good && has_new && u->type == RES_CLUSTER) {
        store_count_reload(s, s->cds_reload_scope);
    }
    store_record_duration(s, scope);
    unsigned ok = 0;
    for (unsigned i = 0; i < u->resources_n; i++) {
        ok += v->accepted[i];
    }
    log_info(LOG_config, "%s: %u resources, %u accepted, %u removed",
             resource_types[u->type].short_name, u->resources_n, ok, u->removed_n);
    diag_fini(d);
    xfree(d);
    first_response(s, u->type);
    if (is_srds) {
        store_scopes_updated(c, u, is_good);
    }
    store_touch(s); /* even without a change: readiness is looked at when it is published */
}

void store_on_rejected(void *user, enum resource_type t, sv why) {
    struct source_client *c = user;
    struct stats_scope *scope = store_wildcard_scope(c->store, t);
    store_count(c->store, scope, XDS_update_rejected);
    store_count(c->store, scope, XDS_update_attempt);
    log_rejected(t, why);
    first_response(c->store, t);
    store_touch(c->store);
}

void store_on_failure(void *user, enum resource_type t) {
    struct source_client *c = user;
    struct stats_scope *scope = store_wildcard_scope(c->store, t);
    store_count(c->store, scope, XDS_update_failure);
    store_count(c->store, scope, XDS_update_attempt);
    if (!scope) {
        store_count_failures(c, t);
    }
    if (c->source->kind == SOURCE_PATH) {
        first_response(c->store, t); /* as Envoy: a bad file does not hold up the start */
        store_touch(c->store);
    }
}
