/* Incremental xDS: requests tell changes of what is wanted, responses changes of what there is;
 * each resource has a version.
 * Threads: one owner. Spec: xDS protocol, "Incremental xDS";
 * service.discovery.v3.DeltaDiscoveryRequest.
 * Wildcard: a first request without names, as old servers know it; "*" as soon as other names are
 * asked for beside it. A reply never carries names: requests that subscribe are sent behind it. */
#include <stdlib.h>

#include "proxy/base/map.h"
#include "proxy/base/mem.h"
#include "proxy/base/shared_text.h"
#include "proxy/base/vec.h"
#include "proxy/config/collection.h"
#include "xds/subscription.h"

enum {
    FIELD_NODE = 1,
    FIELD_TYPE,
    FIELD_SUBSCRIBE,
    FIELD_UNSUBSCRIBE,
    FIELD_INITIAL_VERSIONS,
    FIELD_NONCE,
    FIELD_ERROR,
};
enum { ENTRY_KEY = 1, ENTRY_VALUE };

/* A name that is wanted, or was, or that the wildcard brought. */
struct item {
    uint32_t refs;
    bool is_sent; /* the server knows that it is wanted */
    /* wanted anew: subscribe even when it is_sent, so that the server sends it again */
    bool is_fresh;
    struct shared_text *version; /* of what is in use; NULL: none */
    size_t n;
    char name[];
};

struct reply {
    char *nonce;
    char *error; /* NULL: ACK */
};

struct delta {
    enum resource_type type;
    struct map items;                 /* → struct item */
    struct shared_text *last_version; /* given to an item; NULL: none yet */
    unsigned wanted_n;                /* of them with refs, without the wildcard */
    uint32_t wildcard_refs;
    VEC(struct reply) replies; /* in order of their responses */
    bool is_up, was_asked;
    bool is_wildcard_fresh;  /* wanted anew: as item.is_fresh */
    bool is_wildcard_sent;   /* the server knows of the wildcard… */
    bool is_wildcard_legacy; /* …from a request without names */
    bool is_dirty;
};

static struct delta *delta_of(struct subscription *s) { return (struct delta *)s; }
static const struct delta *delta_const(const struct subscription *s) {
    return (const struct delta *)s;
}

/* ---- life ---- */

static struct subscription *delta_make(enum resource_type t) {
    struct delta *s = xnew(struct delta);
    s->type = t;
    map_init(&s->items);
    return (struct subscription *)s;
}

static void item_free(struct item *i) {
    shared_text_unref(i->version);
    xfree(i);
}

static void drop_replies(struct delta *s) {
    for (size_t i = 0; i < s->replies.n; i++) {
        xfree(s->replies.p[i].nonce);
        xfree(s->replies.p[i].error);
    }
    vec_clear(&s->replies);
}

static void delta_free(struct subscription *sub) {
    struct delta *s = delta_of(sub);
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&s->items, &it))) {
        item_free(slot->value);
    }
    map_fini(&s->items);
    shared_text_unref(s->last_version);
    drop_replies(s);
    vec_fini(&s->replies);
    xfree(s);
}

/* ---- names ---- */

static struct item *item_get(struct delta *s, sv name) {
    struct item *i = map_get(&s->items, name);
    if (i) {
        return i;
    }
    i = xcalloc(1, sizeof(*i) + name.n);
    i->n = name.n;
    if (name.n) {
        memcpy(i->name, name.p, name.n);
    }
    map_put(&s->items, (sv){i->name, i->n}, i);
    return i;
}

/* Nothing is to be remembered of it. */
static bool is_idle(const struct item *i) { return i->refs == 0 && !i->is_sent && !i->version; }

/* A watched name may stand for others. Of VHDS, for all below it: "<route configuration>/<host>";
 * of LEDS, for the members of a collection. The name that would stand for `name`, which lives as
 * long as that and `scratch`; NULL: there is none. */
static sv namespace_of(const struct delta *s, sv name, struct buf *scratch) {
    if (s->type == RES_LB_ENDPOINT) {
        buf_clear(scratch);
        return collection_of(name, scratch) ? buf_pullup(scratch, buf_len(scratch)) : SV_NULL;
    }
    size_t at = s->type == RES_VIRTUAL_HOST ? sv_rfind(name, '/') : SIZE_MAX;
    return at == SIZE_MAX ? SV_NULL : sv_sub(name, 0, at);
}

static bool is_in_namespace(const struct delta *s, sv name) {
    struct buf BUF_AUTO scratch;
    buf_init(&scratch);
    sv space = namespace_of(s, name, &scratch);
    const struct item *i = space.p ? map_get(&s->items, space) : NULL;
    return i && i->refs > 0;
}

static void forget_version(struct item *i) {
    shared_text_unref(i->version);
    i->version = NULL;
}

static void delta_watch(struct subscription *sub, sv name) {
    struct delta *s = delta_of(sub);
    if (sv_is(name, "*")) {
        if (s->wildcard_refs++ == 0) {
            s->is_wildcard_fresh = s->is_dirty = true;
        }
        return;
    }
    struct item *i = item_get(s, name);
    if (i->refs++ == 0) {
        i->is_fresh = true;
        s->wanted_n++;
        s->is_dirty = true;
    }
}

/* Without the wildcard, only what is wanted by name is in use. */
static void forget_unwanted(struct delta *s) {
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&s->items, &it))) {
        struct item *i = slot->value;
        if (i->refs == 0) {
            forget_version(i);
        }
        if (is_idle(i)) {
            map_remove_at(&s->items, &it);
            item_free(i);
        }
    }
}

/* What the name stood for is in use no more. */
static void forget_namespace(struct delta *s, sv name) {
    struct buf BUF_AUTO scratch;
    buf_init(&scratch);
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&s->items, &it))) {
        struct item *i = slot->value;
        if (i->refs > 0 || sv_eq(map_key(slot), name) ||
            !sv_eq(namespace_of(s, map_key(slot), &scratch), name)) {
            continue;
        }
        forget_version(i);
        if (is_idle(i)) {
            map_remove_at(&s->items, &it);
            item_free(i);
        }
    }
}

static void delta_unwatch(struct subscription *sub, sv name) {
    struct delta *s = delta_of(sub);
    if (sv_is(name, "*")) {
        if (!BUG(s->wildcard_refs == 0) && --s->wildcard_refs == 0) {
            s->is_dirty = true;
            forget_unwanted(s);
        }
        return;
    }
    struct item *i = map_get(&s->items, name);
    if (BUG(!i || i->refs == 0) || --i->refs > 0) {
        return;
    }
    if (s->type == RES_VIRTUAL_HOST || s->type == RES_LB_ENDPOINT) {
        forget_namespace(s, name);
    }
    s->wanted_n--;
    s->is_dirty = true;
    i->is_fresh = false;
    if (!s->wildcard_refs) {
        forget_version(i);
    }
    if (is_idle(i)) {
        map_remove(&s->items, name);
        item_free(i);
    }
}

static bool delta_is_wanted(const struct subscription *sub) {
    const struct delta *s = delta_const(sub);
    return s->wildcard_refs > 0 || s->wanted_n > 0;
}

/* ---- stream ---- */

static void reset_stream(struct delta *s, bool is_up) {
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&s->items, &it))) {
        struct item *i = slot->value;
        i->is_sent = false;
        i->is_fresh = i->refs > 0;
        if (is_idle(i)) {
            map_remove_at(&s->items, &it);
            item_free(i);
        }
    }
    drop_replies(s);
    s->is_up = is_up;
    s->was_asked = s->is_wildcard_sent = s->is_wildcard_legacy = false;
    s->is_dirty = true;
}

static void delta_stream_up(struct subscription *s) { reset_stream(delta_of(s), true); }
static void delta_stream_down(struct subscription *s) { reset_stream(delta_of(s), false); }

/* ---- requests ---- */

static bool delta_has_request(const struct subscription *sub) {
    const struct delta *s = delta_const(sub);
    return s->is_up &&
           (s->replies.n > 0 || (s->is_dirty && (s->was_asked || delta_is_wanted(sub))));
}

static unsigned delta_replies_due(const struct subscription *s) {
    return (unsigned)delta_const(s)->replies.n;
}

static int by_name(const void *a, const void *b) { return sv_cmp(*(const sv *)a, *(const sv *)b); }

VEC_TYPE(names, sv)

static void put_names(struct buf *out, unsigned field, struct names *v) {
    if (v->n > 1) {
        qsort(v->p, v->n, sizeof(sv), by_name);
    }
    for (size_t i = 0; i < v->n; i++) {
        wire_put_bytes(out, field, v->p[i]);
    }
    vec_fini(v);
}

/* The wildcard as a name: "*" where it must be said. */
static void put_wildcard(struct delta *s, bool has_names, struct buf *out) {
    bool is_wanted = s->wildcard_refs > 0;
    if (is_wanted && (!s->is_wildcard_sent || s->is_wildcard_fresh)) {
        s->is_wildcard_legacy = !s->was_asked && !has_names;
        if (!s->is_wildcard_legacy) {
            wire_put_bytes(out, FIELD_SUBSCRIBE, SV("*"));
        }
    } else if (is_wanted && s->is_wildcard_legacy && has_names) {
        s->is_wildcard_legacy = false;
        wire_put_bytes(out, FIELD_SUBSCRIBE, SV("*"));
    } else if (!is_wanted && s->is_wildcard_sent) {
        s->is_wildcard_legacy = false;
        wire_put_bytes(out, FIELD_UNSUBSCRIBE, SV("*"));
    }
    s->is_wildcard_sent = is_wanted;
    s->is_wildcard_fresh = false;
}

/* Changes since the last request; the unsubscribed are forgotten unless the wildcard may bring
 * them. */
static void put_changes(struct delta *s, struct buf *out) {
    struct names add = {0}, gone = {0};
    VEC(struct item *) idle = {0};
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&s->items, &it))) {
        struct item *i = slot->value;
        if (i->refs > 0 && (i->is_fresh || !i->is_sent)) {
            *vec_push(&add) = map_key(slot);
        } else if (i->refs == 0 && i->is_sent) {
            *vec_push(&gone) = map_key(slot);
        }
        i->is_sent = i->refs > 0;
        i->is_fresh = false;
        if (is_idle(i)) {
            *vec_push(&idle) = i;
        }
    }
    put_wildcard(s, add.n > 0, out);
    put_names(out, FIELD_SUBSCRIBE, &add);
    put_names(out, FIELD_UNSUBSCRIBE, &gone);
    for (size_t k = 0; k < idle.n; k++) {
        map_remove(&s->items, (sv){idle.p[k]->name, idle.p[k]->n});
        item_free(idle.p[k]);
    }
    vec_fini(&idle);
    s->is_dirty = false;
}

/* On a new stream: what we have, so that only what changed meanwhile comes. */
static void put_initial_versions(struct delta *s, struct buf *out) {
    struct buf BUF_AUTO entry;
    buf_init(&entry);
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&s->items, &it))) {
        const struct item *i = slot->value;
        if (i->version) {
            buf_clear(&entry);
            wire_put_string(&entry, ENTRY_KEY, map_key(slot));
            wire_put_string(&entry, ENTRY_VALUE, sv_cstr(i->version->text));
            wire_put_bytes(out, FIELD_INITIAL_VERSIONS, buf_pullup(&entry, buf_len(&entry)));
        }
    }
}

static void put_reply(struct delta *s, struct buf *out) {
    struct reply r = s->replies.p[0];
    vec_remove(&s->replies, 0);
    wire_put_string(out, FIELD_NONCE, sv_cstr(r.nonce));
    if (r.error) {
        wire_put_error(out, FIELD_ERROR, sv_cstr(r.error));
    }
    xfree(r.nonce);
    xfree(r.error);
}

static void delta_next_request(struct subscription *sub, sv node, struct buf *out) {
    struct delta *s = delta_of(sub);
    wire_put_string(out, FIELD_NODE, node);
    wire_put_string(out, FIELD_TYPE, sv_cstr(resource_types[s->type].type_url));
    if (s->replies.n > 0) {
        put_reply(s, out);
        return;
    }
    if (!s->was_asked) {
        put_initial_versions(s, out);
    }
    put_changes(s, out);
    s->was_asked = true;
}

/* ---- responses ---- */

static bool delta_on_response(struct subscription *sub, const struct discovery_response *r) {
    struct delta *s = delta_of(sub);
    (void)r;
    return s->is_up && s->was_asked;
}

static void keep_version(struct delta *s, const struct xds_resource *x) {
    struct item *i = map_get(&s->items, x->name);
    if (!s->wildcard_refs && (!i || i->refs == 0) && !is_in_namespace(s, x->name)) {
        return; /* nobody asked: it is not in use */
    }
    i = item_get(s, x->name);
    forget_version(i);
    i->version = shared_text_get(&s->last_version, x->version);
}

static void drop_version(struct delta *s, sv name) {
    struct item *i = map_get(&s->items, name);
    if (!i) {
        return;
    }
    forget_version(i);
    if (is_idle(i)) {
        map_remove(&s->items, name);
        item_free(i);
    }
}

static void delta_on_verdict(struct subscription *sub, const struct discovery_response *r,
                             const bool *accepted, sv error) {
    struct delta *s = delta_of(sub);
    for (unsigned i = 0; i < r->resources_n; i++) {
        if (accepted[i] && r->resources[i].wire.p) {
            keep_version(s, &r->resources[i]);
        }
    }
    for (unsigned i = 0; i < r->removed_n && !r->error.n; i++) {
        drop_version(s, r->removed[i]);
    }
    struct reply *reply = vec_push(&s->replies);
    reply->nonce = sv_dup(r->nonce);
    reply->error = error.n ? sv_dup(error) : NULL;
}

static void delta_on_expired(struct subscription *s, sv name) { drop_version(delta_of(s), name); }

const struct subscription_ops delta_ops = {
    .make = delta_make,
    .free = delta_free,
    .watch = delta_watch,
    .unwatch = delta_unwatch,
    .is_wanted = delta_is_wanted,
    .stream_up = delta_stream_up,
    .stream_down = delta_stream_down,
    .has_request = delta_has_request,
    .replies_due = delta_replies_due,
    .next_request = delta_next_request,
    .parse = discovery_parse_delta,
    .on_response = delta_on_response,
    .on_verdict = delta_on_verdict,
    .on_expired = delta_on_expired,
};
