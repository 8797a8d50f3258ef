/* What every mux does: see mux.h, mux_kind.h. Calls go to the kind; updates go to the sink; a time
 * to live ends as a removal.
 * Threads: the config thread. Spec: xDS protocol, "TTL". */
#include "xds/mux.h"

#include "proxy/base/mem.h"
#include "proxy/base/vec.h"
#include "proxy/config/config.h"
#include "xds/mux_kind.h"

struct ttl_entry {
    enum resource_type type;
    uint64_t due_ms;
    size_t n;
    char key[]; /* type, name */
};

/* ---- calls ---- */

void xds_mux_free(struct xds_mux *m) {
    if (m) {
        m->ops->free(m);
    }
}

void xds_mux_watch(struct xds_mux *m, enum resource_type t, sv name) { m->ops->watch(m, t, name); }
void xds_mux_unwatch(struct xds_mux *m, enum resource_type t, sv name) {
    m->ops->unwatch(m, t, name);
}
void xds_mux_watch_all(struct xds_mux *m, enum resource_type t) { m->ops->watch(m, t, SV("*")); }
void xds_mux_pause(struct xds_mux *m, enum resource_type t, bool pause) {
    m->ops->pause(m, t, pause);
}
bool xds_mux_is_connected(const struct xds_mux *m) { return m->ops->is_connected(m); }

/* ---- time to live ---- */

static struct ttl_entry *ttl_new(enum resource_type t, sv name) {
    struct ttl_entry *e = xcalloc(1, sizeof(*e) + 1 + name.n);
    e->type = t;
    e->n = 1 + name.n;
    e->key[0] = (char)t;
    if (name.n) {
        memcpy(e->key + 1, name.p, name.n);
    }
    return e;
}

static sv ttl_key(const struct ttl_entry *e) { return (sv){e->key, e->n}; }

static void ttl_arm(struct xds_mux *m) {
    uint64_t first = UINT64_MAX, now = loop_now_ms(m->loop);
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&m->ttls, &it))) {
        const struct ttl_entry *e = slot->value;
        first = e->due_ms < first ? e->due_ms : first;
    }
    if (first == UINT64_MAX) {
        timer_cancel(&m->ttl_timer);
        return;
    }
    timer_start(&m->ttl_timer, first > now ? first - now : 0);
}

static bool ttl_drop(struct xds_mux *m, enum resource_type t, sv name) {
    if (map_count(&m->ttls) == 0) {
        return false;
    }
    struct ttl_entry *probe = ttl_new(t, name);
    struct ttl_entry *e = map_remove(&m->ttls, ttl_key(probe));
    xfree(probe);
    xfree(e);
    return e != NULL;
}

void mux_forget_ttl(struct xds_mux *m, enum resource_type t, sv name) {
    if (ttl_drop(m, t, name)) {
        ttl_arm(m);
    }
}

static void ttl_set(struct xds_mux *m, enum resource_type t, sv name, uint64_t ttl_ms) {
    struct ttl_entry *e = ttl_new(t, name);
    e->due_ms = loop_now_ms(m->loop) + ttl_ms;
    xfree(map_put(&m->ttls, ttl_key(e), e));
}

/* Each resource starts its time anew; one without a time to live never expires. */
static void ttl_note(struct xds_mux *m, const struct discovery_response *r, const bool *accepted) {
    bool changed = false;
    for (unsigned i = 0; i < r->resources_n; i++) {
        const struct xds_resource *x = &r->resources[i];
        if (!accepted[i]) {
            continue;
        }
        if (x->ttl_ms) {
            ttl_set(m, r->type, x->name, x->ttl_ms);
            changed = true;
        } else if (map_count(&m->ttls)) { /* bare resources are named by their own field */
            sv name = x->name.n ? x->name : resource_name_of(r->type, x->wire);
            changed |= ttl_drop(m, r->type, name);
        }
    }
    for (unsigned i = 0; i < r->removed_n; i++) {
        changed |= ttl_drop(m, r->type, r->removed[i]);
    }
    if (changed) {
        ttl_arm(m);
    }
}

/* All that are due, of one type at a time. */
static void expire(struct xds_mux *m, enum resource_type t, uint64_t now) {
    VEC(sv) names = {0};
    VEC(struct ttl_entry *) gone = {0};
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&m->ttls, &it))) {
        struct ttl_entry *e = slot->value;
        if (e->type == t && e->due_ms <= now) {
            *vec_push(&gone) = e;
            *vec_push(&names) = (sv){e->key + 1, e->n - 1};
        }
    }
    for (size_t i = 0; i < gone.n; i++) {
        map_remove(&m->ttls, ttl_key(gone.p[i]));
        if (m->ops->on_expired) {
            m->ops->on_expired(m, t, names.p[i]);
        }
    }
    if (names.n) {
        struct xds_update u = {
            .type = t, .removed = names.p, .removed_n = (unsigned)names.n, .is_expiry = true};
        struct buf BUF_AUTO error;
        buf_init(&error);
        struct xds_verdict v = {.accepted = NULL, .error = &error};
        m->sink.on_update(m->sink.user, &u, &v);
    }
    for (size_t i = 0; i < gone.n; i++) {
        xfree(gone.p[i]);
    }
    vec_fini(&gone);
    vec_fini(&names);
}

static void on_ttl(struct timer *timer) {
    struct xds_mux *m = CONTAINER_OF(timer, struct xds_mux, ttl_timer);
    for (int t = 0; t < RES_TYPES; t++) {
        expire(m, (enum resource_type)t, loop_now_ms(m->loop));
    }
    ttl_arm(m);
}

/* ---- for the kinds ---- */

void mux_init(struct xds_mux *m, const struct xds_mux_ops *ops, struct loop *l,
              const struct xds_sink *sink) {
    m->ops = ops;
    m->loop = l;
    m->sink = *sink;
    map_init(&m->ttls);
    timer_init(&m->ttl_timer, l, on_ttl);
}

void mux_fini(struct xds_mux *m) {
    timer_cancel(&m->ttl_timer);
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&m->ttls, &it))) {
        xfree(slot->value);
    }
    map_fini(&m->ttls);
}

void mux_rejected(struct xds_mux *m, enum resource_type t, sv why) {
    if (m->sink.on_rejected) {
        m->sink.on_rejected(m->sink.user, t, why);
    }
}

void mux_deliver(struct xds_mux *m, const struct discovery_response *r, bool is_full,
                 bool *accepted, struct buf *error) {
    if (r->resources_n) {
        memset(accepted, 0, r->resources_n * sizeof(*accepted));
    }
    if (r->error.n) {
        buf_append_sv(error, r->error);
        mux_rejected(m, r->type, r->error);
        return;
    }
    struct xds_update u = {.type = r->type,
                           .version = r->version,
                           .control_plane = r->control_plane,
                           .is_full = is_full,
                           .resources = r->resources,
                           .resources_n = r->resources_n,
                           .removed = r->removed,
                           .removed_n = r->removed_n};
    struct xds_verdict v = {.accepted = accepted, .error = error};
    m->sink.on_update(m->sink.user, &u, &v);
    ttl_note(m, r, accepted);
}

void mux_failed(struct xds_mux *m, enum resource_type t) {
    if (m->sink.on_failure) {
        m->sink.on_failure(m->sink.user, t);
    }
}
