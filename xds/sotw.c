/* State of the world: every request names all that is wanted, with the version last accepted and
 * the nonce last seen.
 * Threads: one owner. Spec: xDS protocol, "The SotW variant";
 * service.discovery.v3.DiscoveryRequest.
 * Wildcard: no names at all as long as none was ever sent on the stream (then "*" beside names), as
 * old servers know it.
 * Not here: what a resource missing from a response means (store_update.c). */
#include <stdlib.h>

#include "proxy/base/map.h"
#include "proxy/base/mem.h"
#include "proxy/base/vec.h"
#include "xds/subscription.h"

enum { FIELD_VERSION = 1, FIELD_NODE, FIELD_NAMES, FIELD_TYPE, FIELD_NONCE, FIELD_ERROR };

struct watch {
    uint32_t refs;
    bool is_sent; /* in the last request of this stream */
    /* given up and wanted again since: the server must see it gone once, or it sends nothing */
    bool is_readded;
    size_t n;
    char name[];
};

struct sotw {
    enum resource_type type;
    struct map names;   /* → struct watch */
    unsigned watched_n; /* of them with refs */
    uint32_t wildcard_refs;
    char *version;    /* of the last accepted response, NULL */
    char *nonce;      /* of the last response on this stream, NULL */
    struct buf error; /* NACK text of that response */
    bool is_up;
    bool was_asked;       /* a request was sent on this stream */
    bool were_names_sent; /* one with names */
    bool is_dirty;        /* what is wanted changed since the last request */
    bool is_reply_due;
};

static struct sotw *sotw_of(struct subscription *s) { return (struct sotw *)s; }
static const struct sotw *sotw_const(const struct subscription *s) {
    return (const struct sotw *)s;
}

static void replace(char **at, const char *text) {
    xfree(*at);
    *at = text ? xstrdup(text) : NULL;
}

static void replace_sv(char **at, sv text) {
    char *copy = sv_dup(text);
    xfree(*at);
    *at = copy;
}

/* ---- life ---- */

static struct subscription *sotw_make(enum resource_type t) {
    struct sotw *s = xnew(struct sotw);
    s->type = t;
    map_init(&s->names);
    buf_init(&s->error);
    return (struct subscription *)s;
}

static void sotw_free(struct subscription *sub) {
    struct sotw *s = sotw_of(sub);
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&s->names, &it))) {
        xfree(slot->value);
    }
    map_fini(&s->names);
    buf_fini(&s->error);
    xfree(s->version);
    xfree(s->nonce);
    xfree(s);
}

/* ---- names ---- */

static void sotw_watch(struct subscription *sub, sv name) {
    struct sotw *s = sotw_of(sub);
    if (sv_is(name, "*")) {
        s->is_dirty |= s->wildcard_refs++ == 0;
        return;
    }
    struct watch *w = map_get(&s->names, name);
    if (!w) {
        w = xcalloc(1, sizeof(*w) + name.n);
        w->n = name.n;
        memcpy(w->name, name.p, name.n);
        map_put(&s->names, (sv){w->name, w->n}, w);
    }
    if (w->refs++ > 0) {
        return;
    }
    w->is_readded = w->is_sent;
    s->watched_n++;
    s->is_dirty = true;
}

static void sotw_unwatch(struct subscription *sub, sv name) {
    struct sotw *s = sotw_of(sub);
    if (sv_is(name, "*")) {
        if (!BUG(s->wildcard_refs == 0)) {
            s->is_dirty |= --s->wildcard_refs == 0;
        }
        return;
    }
    struct watch *w = map_get(&s->names, name);
    if (BUG(!w || w->refs == 0) || --w->refs > 0) {
        return;
    }
    s->watched_n--;
    s->is_dirty = true;
    w->is_readded = false;
    if (!w->is_sent) {
        map_remove(&s->names, name);
        xfree(w);
    }
}

static bool sotw_is_wanted(const struct subscription *sub) {
    const struct sotw *s = sotw_const(sub);
    return s->wildcard_refs > 0 || s->watched_n > 0;
}

/* ---- stream ---- */

/* No request of the stream tells of any name any more. */
static void forget_sent(struct sotw *s) {
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&s->names, &it))) {
        struct watch *w = slot->value;
        w->is_sent = w->is_readded = false;
        if (w->refs == 0) {
            map_remove_at(&s->names, &it);
            xfree(w);
        }
    }
}

static void reset_stream(struct sotw *s, bool is_up) {
    forget_sent(s);
    replace(&s->nonce, NULL);
    buf_clear(&s->error);
    s->is_up = is_up;
    s->was_asked = s->were_names_sent = s->is_reply_due = false;
    s->is_dirty = true;
}

static void sotw_stream_up(struct subscription *s) { reset_stream(sotw_of(s), true); }
static void sotw_stream_down(struct subscription *s) { reset_stream(sotw_of(s), false); }

/* ---- requests ---- */

static bool sotw_has_request(const struct subscription *sub) {
    const struct sotw *s = sotw_const(sub);
    return s->is_up && (s->is_reply_due || (s->is_dirty && (s->was_asked || sotw_is_wanted(sub))));
}

static unsigned sotw_replies_due(const struct subscription *s) {
    return sotw_const(s)->is_reply_due;
}

static int by_name(const void *a, const void *b) { return sv_cmp(*(const sv *)a, *(const sv *)b); }

/* The names to send, in bytewise order: equal interest makes equal bytes. True: some are left for
 * another request. */
static bool put_names(struct sotw *s, struct buf *out) {
    bool are_left = false;
    VEC(sv) names = {0};
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&s->names, &it))) {
        struct watch *w = slot->value;
        w->is_sent = w->refs > 0 && !w->is_readded;
        are_left |= w->is_readded;
        if (w->is_sent) {
            *vec_push(&names) = map_key(slot);
        }
        w->is_readded = false;
        if (w->refs == 0) {
            map_remove_at(&s->names, &it);
            xfree(w);
        }
    }
    if (names.n > 1) {
        qsort(names.p, names.n, sizeof(sv), by_name);
    }
    if (s->wildcard_refs && (names.n || s->were_names_sent)) {
        wire_put_bytes(out, FIELD_NAMES, SV("*"));
        s->were_names_sent = true;
    }
    for (size_t i = 0; i < names.n; i++) {
        wire_put_bytes(out, FIELD_NAMES, names.p[i]);
    }
    s->were_names_sent |= names.n > 0;
    vec_fini(&names);
    return are_left;
}

static void sotw_next_request(struct subscription *sub, sv node, struct buf *out) {
    struct sotw *s = sotw_of(sub);
    wire_put_string(out, FIELD_VERSION, sv_cstr(s->version));
    wire_put_string(out, FIELD_NODE, node);
    s->is_dirty = put_names(s, out);
    wire_put_string(out, FIELD_TYPE, sv_cstr(resource_types[s->type].type_url));
    wire_put_string(out, FIELD_NONCE, sv_cstr(s->nonce));
    if (!buf_empty(&s->error)) {
        wire_put_error(out, FIELD_ERROR, buf_pullup(&s->error, buf_len(&s->error)));
        buf_clear(&s->error);
    }
    s->was_asked = true;
    s->is_reply_due = false;
}

/* ---- responses ---- */

static bool sotw_on_response(struct subscription *sub, const struct discovery_response *r) {
    struct sotw *s = sotw_of(sub);
    if (!s->is_up || !s->was_asked) {
        return false;
    }
    replace_sv(&s->nonce, r->nonce);
    buf_clear(&s->error); /* the reply to an earlier response is superseded */
    s->is_reply_due = true;
    return true;
}

static void sotw_on_verdict(struct subscription *sub, const struct discovery_response *r,
                            const bool *accepted, sv error) {
    struct sotw *s = sotw_of(sub);
    (void)accepted; /* one version for all */
    if (error.n) {
        buf_append_sv(&s->error, error);
        return;
    }
    replace_sv(&s->version, r->version);
}

static void sotw_on_expired(struct subscription *s, sv name) {
    (void)s; /* one version for all: the server knows what it let expire */
    (void)name;
}

const struct subscription_ops sotw_ops = {
    .make = sotw_make,
    .free = sotw_free,
    .watch = sotw_watch,
    .unwatch = sotw_unwatch,
    .is_wanted = sotw_is_wanted,
    .stream_up = sotw_stream_up,
    .stream_down = sotw_stream_down,
    .has_request = sotw_has_request,
    .replies_due = sotw_replies_due,
    .next_request = sotw_next_request,
    .parse = discovery_parse_sotw,
    .on_response = sotw_on_response,
    .on_verdict = sotw_on_verdict,
    .on_expired = sotw_on_expired,
};
