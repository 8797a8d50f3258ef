/* Discovered filters (ECDS): a resource is compiled for each place that uses it, into the place's
 * slot; places without one get their default configuration.
 * Threads: the config thread. Spec: Envoy's ExtensionConfigDS, core.v3.ExtensionConfigSource.
 * Not here: compiling (config/compile_extension.c), what a missing configuration does to
 * traffic. */
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/config/extension.h"
#include "xds/store.h"

/* What a slot is to hold. */
struct made {
    slot_t slot;
    struct extension_config *config; /* one ref */
};
VEC_TYPE(made_vec, struct made)

static bool is_target(const struct extension_def *def, const struct entry *target) {
    return sv_eq(def->name, entry_name(target)) && store_same_source(def->source, target->source);
}

static struct extension_config *in_slot(struct store *s, slot_t slot) {
    const struct snapshot *now = s->next ? s->next : s->latest;
    return now ? (struct extension_config *)table_get(&now->tables[TABLE_EXTENSIONS], slot) : NULL;
}

static void set_slot(struct store *s, slot_t slot, struct extension_config *x) {
    if (in_slot(s, slot) == x) {
        return;
    }
    store_touch(s);
    table_set(&s->next->tables[TABLE_EXTENSIONS], slot, x ? &x->shared : NULL);
}

static bool is_made_of(const struct extension_config *x, const struct resource *r) {
    return x && x->hash[0] == r->hash[0] && x->hash[1] == r->hash[1];
}

/* Route tables that a discovered connection manager asks for are watched as long as the resource
 * is. */
static void link_refs(struct entry *e, const struct extension_config *x, struct entry_links *uses) {
    for (unsigned i = 0; i < x->refs_n; i++) {
        store_link_one(e, &x->refs[i], uses);
    }
}

/* ---- stats ---- */

static void open_stats(struct entry *e, enum extension_kind kind) {
    if (e->extra->stats) {
        return;
    }
    struct buf BUF_AUTO b;
    buf_init(&b);
    buf_printf(&b, "extension_config_discovery.%s.%.*s.", extension_kind_name(kind),
               SV_ARG(entry_name(e)));
    entry_extra(e)->stats =
        stats_scope_get(e->store->opt.stats, &ecds_stats_group, buf_pullup(&b, buf_len(&b)));
    stats_inc(stats_shard(e->extra->stats, e->store->loop->thread_index), ECDS_update_attempt);
}

static void count(struct entry *e, unsigned stat) {
    if (e->extra->stats) {
        stats_inc(stats_shard(e->extra->stats, e->store->loop->thread_index), stat);
    }
}

void store_extension_failed(struct entry *e) { count(e, ECDS_config_fail); }

static void count_reload(struct entry *e) {
    if (e->extra->stats) {
        struct stats_shard *sh = stats_shard(e->extra->stats, e->store->loop->thread_index);
        stats_inc(sh, ECDS_config_reload);
        stats_gauge_set(sh, ECDS_config_reload_time_ms,
                        loop_wall_us(e->store->loop, loop_now_us(e->store->loop)) / 1000);
    }
}

/* ---- a new version ---- */

static bool is_made(const struct made_vec *v, slot_t slot) {
    for (size_t i = 0; i < v->n; i++) {
        if (v->p[i].slot == slot) {
            return true;
        }
    }
    return false;
}

/* For each place of one user. False: errors are in d. */
static bool make_for(struct entry *target, struct resource *r, const struct resource *user,
                     struct made_vec *made, struct diag *d) {
    for (unsigned i = 0; user && i < user->extensions_n; i++) {
        const struct extension_def *def = &user->extensions[i];
        if (!is_target(def, target) || is_made(made, def->slot)) {
            continue;
        }
        struct extension_config *x = extension_config_new(&target->store->config, def, r, d);
        if (!x) {
            return false;
        }
        *vec_push(made) = (struct made){def->slot, x};
    }
    return true;
}

/* For all places. False: errors are in d. */
static bool make_all(struct entry *e, struct resource *r, struct made_vec *made, struct diag *d) {
    struct diag *own = xnew(struct diag); /* its warnings are the filters' alone */
    diag_init(own);
    bool ok = true;
    for (size_t i = 0; ok && i < e->users.n; i++) {
        const struct entry *user = entry_links_at(&e->users, i);
        ok = make_for(e, r, user->active, made, own) && make_for(e, r, user->warming, made, own);
    }
    if (ok) {
        resource_tell_warnings(&e->store->config, r, false, own);
    } else {
        sv text = diag_text(own);
        diag_error(d, "%.*s", SV_ARG(text));
    }
    diag_fini(own);
    xfree(own);
    return ok;
}

bool store_extension_update(struct entry *e, struct resource *r, struct diag *d) {
    struct made_vec made = {0};
    bool ok = make_all(e, r, &made, d);
    for (size_t i = 0; i < made.n; i++) {
        if (ok) {
            set_slot(e->store, made.p[i].slot, made.p[i].config);
            link_refs(e, made.p[i].config, &e->warming_uses);
        }
        shared_unref(&made.p[i].config->shared);
    }
    vec_fini(&made);
    if (ok) {
        count_reload(e);
    }
    return ok;
}

static void fall_back(struct store *s, const struct entry *target, const struct resource *user) {
    for (unsigned i = 0; user && i < user->extensions_n; i++) {
        if (is_target(&user->extensions[i], target)) {
            set_slot(s, user->extensions[i].slot, user->extensions[i].fallback);
        }
    }
}

void store_extension_removed(struct entry *e) {
    for (size_t i = 0; i < e->users.n; i++) {
        fall_back(e->store, e, entry_links_at(&e->users, i)->active);
        fall_back(e->store, e, entry_links_at(&e->users, i)->warming);
    }
    count_reload(e);
}

/* ---- a new user ---- */

/* The resource may be there already, for other places; it need not be fit for this one. */
static void link_one(struct store *s, const struct extension_def *def) {
    struct entry *target = store_find(s, RES_EXTENSION, def->source, def->name);
    open_stats(target, def->kind);
    if (target->active && is_made_of(in_slot(s, def->slot), target->active)) {
        return;
    }
    struct diag d;
    diag_init(&d);
    struct extension_config *x =
        target->active ? extension_config_new(&s->config, def, target->active, &d) : NULL;
    if (x) {
        set_slot(s, def->slot, x);
        link_refs(target, x, &target->uses);
        resource_tell_warnings(&s->config, target->active, false, &d);
        shared_unref(&x->shared);
        diag_fini(&d);
        return;
    }
    if (target->active) {
        sv text = diag_text(&d);
        log_warn(LOG_config, "ecds: '%.*s' is no configuration for '%.*s': %.*s",
                 SV_ARG(entry_name(target)), SV_ARG(def->owner), SV_ARG(text));
        count(target, ECDS_config_conflict);
    }
    set_slot(s, def->slot, def->fallback);
    diag_fini(&d);
}

void store_extensions_link(struct store *s, const struct resource *r) {
    for (unsigned i = 0; i < r->extensions_n; i++) {
        link_one(s, &r->extensions[i]);
    }
}

bool store_extensions_arrived(struct store *s, const struct resource *r) {
    for (unsigned i = 0; i < r->extensions_n; i++) {
        const struct extension_def *def = &r->extensions[i];
        const struct entry *target = store_find(s, RES_EXTENSION, def->source, def->name);
        /* a refused one is an answer too: Envoy waits no longer */
        if (def->is_waited_for && !target->active && !target->is_timed_out &&
            !target->extra->error) {
            return false;
        }
    }
    return true;
}

void store_extension_swept(void *store, slot_t slot) { set_slot(store, slot, NULL); }
