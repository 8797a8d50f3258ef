/* Answering admin: the entries of the asked types at one moment, as refs on immutable objects. They
 * are gathered in slices, so that updates go on; what changes before its turn is taken first.
 * Threads: gathered on the config thread, handed to main. */
#include "xds/store_view.h"

#include "proxy/base/mem.h"
#include "proxy/upstream/outlier.h"
#include "xds/hosts.h"
#include "xds/leds.h"
#include "xds/scopes.h"
#include "xds/vhds.h"

/* A slice: about half a millisecond. */
#define GATHER_SLICE_ENTRIES 2048u

VEC_TYPE(item_vec, struct view_item)

static struct view_rates *rates_of(const struct cluster_hosts *h) {
    const struct outlier_detector *d = h->detector;
    if (!d) {
        return NULL;
    }
    unsigned n = h->set->hosts_n;
    struct view_rates *r = xcalloc(1, sizeof(*r) + n * sizeof(r->host[0]));
    for (unsigned local = 0; local < 2; local++) {
        r->average[local] = outlier_detector_average(d, local);
        r->threshold[local] = outlier_detector_threshold(d, local);
        for (unsigned k = 0; k < n; k++) {
            r->host[k][local] = outlier_detector_success_rate(d, h->set->entries[k].host, local);
        }
    }
    return r;
}

static struct view_item *add(struct item_vec *items, const struct entry *e, struct resource *r,
                             enum view_status status) {
    struct view_item *i = vec_push(items);
    i->status = status;
    i->is_static = e->is_static;
    i->resource = shared_ref(r);
    if (status == VIEW_ERROR) {
        i->error = xstrdup(e->extra->error);
        i->error_us = e->extra->error_us;
        return i;
    }
    if (e->hosts && e->hosts->set && status == VIEW_ACTIVE) {
        i->hosts = shared_ref(e->hosts->set);
        i->rates = rates_of(e->hosts);
    }
    if (e->extra->sockets && status == VIEW_ACTIVE) {
        i->sockets = shared_ref(e->extra->sockets);
    }
    return i;
}

void refused_add(struct refused *r, sv name, sv error, const struct resource *failed, uint64_t us) {
    const sv parts[] = {buf_empty(&r->text) ? SV_NULL : SV("\n"), name, name.n ? SV(": ") : SV_NULL,
                        error};
    for (size_t i = 0; i < ARRAY_LEN(parts); i++) {
        buf_append_sv(&r->text, sv_sub(parts[i], 0, REFUSED_TEXT_MAX - buf_len(&r->text)));
    }
    if (!r->newest || us >= r->newest_us) {
        r->newest = failed;
        r->newest_us = us;
    }
}

/* Behind the item of the set with this name; `r` is used up. */
static void add_refused(struct item_vec *items, enum resource_type t, sv name, struct refused *r) {
    if (r->newest) {
        struct view_item *i = vec_push(items);
        *i = (struct view_item){
            .status = VIEW_ERROR,
            .resource = resource_uncompiled(t, name, r->newest->version, SV_NULL),
            .refused = shared_ref((struct resource *)(uintptr_t)r->newest),
            .error = buf_dup_str(&r->text),
            .error_us = r->newest_us,
        };
    }
    buf_fini(&r->text);
}

/* Virtual hosts that came one by one are told with their route configuration. */
static void add_refused_hosts(struct item_vec *items, const struct entry *route) {
    struct refused r = {0};
    buf_init(&r.text);
    store_vhds_refused(route, &r);
    add_refused(items, RES_ROUTE, entry_name(route), &r);
}

/* A set of scopes as one item; its name is the connection manager's scoped_routes.name. */
static void add_scopes(struct item_vec *items, const struct entry *set,
                       const struct entry_vec *bad) {
    struct store *s = set->store;
    const struct scope_set *x = set->extra->scopes;
    sv name = stats_scope_prefix(x->stats);
    size_t at = sv_find_sv(name, SV("scoped_rds."));
    name = sv_skip(name, at == SIZE_MAX ? 0 : at + strlen("scoped_rds."));
    name = name.n ? sv_sub(name, 0, name.n - 1) : name; /* the dot */
    struct resource **members = xcalloc(s->scope_entries.n, sizeof(struct resource *));
    unsigned n = 0;
    for (size_t i = 0; i < s->scope_entries.n; i++) {
        if (store_same_source(s->scope_entries.p[i]->source, set->source)) {
            members[n++] = shared_ref(s->scope_entries.p[i]->active);
        }
    }
    struct refused refused = {0};
    buf_init(&refused.text);
    store_scopes_refused(set, bad, &refused);
    if (!n && !refused.newest) { /* left out, as Envoy does */
        xfree(members);
        buf_fini(&refused.text);
        return;
    }
    struct view_item *i = vec_push(items);
    *i = (struct view_item){
        .status = VIEW_ACTIVE,
        .resource = resource_uncompiled(RES_SCOPED_ROUTE, name, sv_cstr(x->version), SV_NULL),
        .members = members,
        .members_n = n};
    i->resource->updated_us = x->updated_us;
    add_refused(items, RES_SCOPED_ROUTE, name, &refused);
}

static bool has_whole(const struct listener_draining *v, size_t n, sv name) {
    for (size_t i = 0; i < n; i++) {
        if (v[i].is_whole && sv_eq(v[i].of->name, name)) {
            return true;
        }
    }
    return false;
}

/* Listeners as a whole, not chains of one that serves on; the oldest of each name, as Envoy. */
static void add_draining(struct item_vec *items, struct store *s) {
    for (size_t i = 0; i < s->draining.n; i++) {
        const struct listener_draining *d = &s->draining.p[i];
        if (d->is_whole && !has_whole(s->draining.p, i, d->of->name)) {
            *vec_push(items) =
                (struct view_item){.status = VIEW_DRAINING, .resource = shared_ref(d->of)};
        }
    }
}

static void add_missing(struct buf *out, const struct entry_links *uses) {
    for (size_t i = 0; i < uses->n; i++) {
        const struct entry *t = entry_links_at(uses, i);
        if (store_has_arrived(t)) {
            continue;
        }
        /* it waits for routes of its scopes */
        if (t->extra->scopes && t->extra->scopes->is_answered) {
            add_missing(out, &t->extra->scopes->routes);
            continue;
        }
        buf_printf(
            out, "%s%s %.*s", buf_empty(out) ? "" : ", ", resource_types[t->type].short_name,
            SV_ARG(t->extra->scopes ? stats_scope_prefix(t->extra->scopes->stats) : entry_name(t)));
    }
}

static void add_unready(struct view *v, const struct entry *e) {
    struct buf BUF_AUTO what, target;
    buf_init(&what);
    buf_init(&target);
    buf_printf(&what, "%s %.*s", resource_types[e->type].short_name, SV_ARG(entry_name(e)));
    add_missing(&target, &e->warming_uses);
    v->unready = xreallocarray(v->unready, v->unready_n + 1, sizeof(*v->unready));
    v->unready[v->unready_n++] = (struct view_unready){buf_dup_str(&what), buf_dup_str(&target)};
}

VEC_TYPE(absent_vec, struct view_absent)

static void add_absent(struct absent_vec *absent, const struct entry *e) {
    struct view_absent *a = vec_push(absent);
    a->type = e->type;
    a->name = sv_dup(entry_name(e));
    a->why = e->is_gone        ? ABSENT_DOES_NOT_EXIST
             : e->is_timed_out ? ABSENT_TIMEOUT
                               : ABSENT_REQUESTED;
}

/* What is found on the walk through all entries. */
struct gathered {
    struct item_vec items;
    struct absent_vec absent;
    struct entry_vec bad_scopes; /* become items with their sets, at the end */
};
/* One question; they are answered one after the other. */
struct view_request {
    struct loop_msg msg;
    struct list node; /* in store.views */
    struct store *store;
    unsigned types;
    struct loop *reply_to;
    void (*on_view)(struct view *v, void *user);
    void *user;
    /* the walk: NULL until its turn comes */
    struct view *view;
    struct gathered g;
    struct entry **entries; /* all there were when it began */
    size_t entries_n, at;
    struct entry_vec gone; /* of these: only their memory is left */
};

static void gather_scope(struct gathered *g, struct entry *e) {
    if (e->extra->error && !e->extra->scopes) {
        *vec_push(&g->bad_scopes) = e;
    }
}

/* A name that stands for others is never there itself; it was asked for, and answered. */
static bool is_answered_set(const struct entry *e) {
    return (e->extra->vhosts && e->extra->vhosts->is_answered) ||
           (e->extra->leds && e->extra->leds->is_answered);
}

static void gather_entry(struct gathered *g, const struct entry *e) {
    if (e->active) {
        struct view_item *i = add(&g->items, e, e->active, VIEW_ACTIVE);
        if (e->type == RES_ROUTE) {
            i->members = store_vhds_hosts(e, &i->members_n);
        }
    }
    if (e->warming) {
        add(&g->items, e, e->warming, VIEW_WARMING);
    }
    if (e->extra->error && e->extra->failed) {
        add(&g->items, e, e->extra->failed, VIEW_ERROR);
    } else if (e->type == RES_ROUTE && e->active) {
        add_refused_hosts(&g->items, e);
    } else if (!e->active && !e->warming && e->watchers && !is_answered_set(e)) {
        add_absent(&g->absent, e);
    }
}

/* ---- the walk ---- */

static struct view_request *walking(const struct store *s) {
    return list_empty(&s->views) ? NULL : LIST_ENTRY(s->views.next, struct view_request, node);
}

static void visit(struct view_request *r, struct entry *e) {
    e->view_mark = r->store->view_mark;
    if (e->warming) {
        add_unready(r->view, e);
    }
    if (!(r->types >> e->type & 1)) {
        return;
    }
    if (e->type == RES_SCOPED_ROUTE) {
        gather_scope(&r->g, e);
    } else {
        gather_entry(&r->g, e);
    }
}

void store_view_before(struct entry *e) {
    struct view_request *r = walking(e->store);
    if (UNLIKELY(r && e->view_mark != e->store->view_mark)) {
        visit(r, e);
    }
}

static void forget_bad_scope(struct gathered *g, const struct entry *e) {
    for (size_t i = 0; i < g->bad_scopes.n; i++) {
        if (g->bad_scopes.p[i] == e) {
            vec_swap_remove(&g->bad_scopes, i);
            return;
        }
    }
}

void store_view_release(struct entry *e) {
    struct view_request *r = walking(e->store);
    if (!r) {
        xfree(e);
        return;
    }
    forget_bad_scope(&r->g, e);
    *vec_push(&r->gone) = e;
}

static void walk_begin(struct view_request *r) {
    struct store *s = r->store;
    r->view = xnew(struct view);
    r->view->cds_version = xstrdup(s->cds_version);
    r->view->lds_version = xstrdup(s->lds_version);
    r->entries = xnew_array(struct entry *, map_count(&s->entries) + 1);
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&s->entries, &it))) {
        r->entries[r->entries_n++] = slot->value;
    }
    s->view_mark = !s->view_mark;
}

/* What is left of the walk but its view. */
static void walk_free(struct view_request *r) {
    for (size_t i = 0; i < r->gone.n; i++) {
        xfree(r->gone.p[i]);
    }
    vec_fini(&r->gone);
    vec_fini(&r->g.bad_scopes);
    xfree(r->entries);
    list_unlink(&r->node);
    xfree(r);
}

static void fill_view(struct view_request *r) {
    struct view *v = r->view;
    v->absent = r->g.absent.p;
    v->absent_n = (unsigned)r->g.absent.n;
    v->items_n = (unsigned)r->g.items.n;
    v->items = r->g.items.p;
    v->on_view = r->on_view;
    v->user = r->user;
    v->loop = r->reply_to;
}

static void on_slice(struct loop *l, struct loop_msg *m);

static void walk_end(struct view_request *r) {
    struct store *s = r->store;
    if (r->types >> RES_SCOPED_ROUTE & 1) {
        for (size_t i = 0; i < s->scope_sets.n; i++) {
            add_scopes(&r->g.items, s->scope_sets.p[i], &r->g.bad_scopes);
        }
    }
    if (r->types & VIEW_WITH_DRAINING) {
        add_draining(&r->g.items, s);
    }
    fill_view(r);
    view_post(r->view);
    walk_free(r);
    struct view_request *next = walking(s);
    if (next) {
        next->msg.run = on_slice;
        loop_post(s->loop, &next->msg);
    }
}

static void on_slice(struct loop *l, struct loop_msg *m) {
    struct view_request *r = CONTAINER_OF(m, struct view_request, msg);
    r->msg.run = on_slice;
    if (!r->view) {
        walk_begin(r);
    }
    for (unsigned i = 0; i < GATHER_SLICE_ENTRIES && r->at < r->entries_n; i++) {
        struct entry *e = r->entries[r->at++];
        if (e->view_mark != r->store->view_mark) {
            visit(r, e);
        }
    }
    if (r->at < r->entries_n) {
        loop_post(l, &r->msg);
    } else {
        walk_end(r);
    }
}

static void on_request(struct loop *l, struct loop_msg *m) {
    struct view_request *r = CONTAINER_OF(m, struct view_request, msg);
    bool is_first = list_empty(&r->store->views);
    list_push_back(&r->store->views, &r->node);
    if (is_first) {
        on_slice(l, m);
    }
}

void store_view_end(struct store *s) {
    for (struct view_request *r; (r = walking(s));) {
        if (r->view) {
            fill_view(r);
            view_free_now(r->view);
        }
        walk_free(r);
    }
}

static void request(void *config, unsigned types, struct loop *reply_to,
                    void (*on_view)(struct view *v, void *user), void *user) {
    struct store *s = config;
    struct view_request *r = xnew(struct view_request);
    r->msg.run = on_request;
    r->store = s;
    r->types = types;
    r->reply_to = reply_to;
    r->on_view = on_view;
    r->user = user;
    loop_post(s->loop, &r->msg);
}

struct config_view store_view(struct store *s) {
    return (struct config_view){request, s};
}
