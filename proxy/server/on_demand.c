/* A worker's open questions to the control plane and to DNS caches, and the streams that wait for
 * their answers.
 * Threads: worker-local; the fetch itself travels to the config thread and back as a message.
 * Not here: asking (xds/store_demand.c, upstream/dns_cache.c), who waits
 * (filters/http/on_demand.c, request/router_upstream.c). */
#include "proxy/server/on_demand.h"

#include "proxy/base/buf.h"
#include "proxy/base/mem.h"
#include "proxy/server/worker.h"

static void make_key(struct buf *key, const struct on_demand_want *w) {
    uint8_t kind = (uint8_t)w->kind;
    buf_append(key, &kind, sizeof(kind));
    buf_append(key, &w->slot, sizeof(w->slot));
    buf_append(key, &w->source, sizeof(w->source));
    buf_append(key, &w->cache, sizeof(w->cache));
    buf_append_sv(key, w->name);
}

#define KEY_HEAD (1 + sizeof(slot_t) + 2 * sizeof(void *))

static void fetch_free(struct on_demand_fetch *f) {
    char *key = (char *)(uintptr_t)f->key.p;
    if (f->want.cache) {
        dns_cache_unref(f->want.cache);
    }
    xfree(key);
    xfree(f);
}

static struct worker *worker_of(struct loop *l) { return l->owner; }

static void on_answer(struct loop *l, struct loop_msg *m) {
    struct on_demand_fetch *f = CONTAINER_OF(m, struct on_demand_fetch, msg);
    struct on_demand *d = &worker_of(l)->on_demand;
    map_remove(&d->fetches, f->key);
    while (!list_empty(&f->waits)) { /* a callback may cancel others, or ask anew */
        struct on_demand_wait *w = LIST_ENTRY(list_first(&f->waits), struct on_demand_wait, node);
        list_unlink(&w->node);
        d->waits_n--;
        w->dns = &f->dns;
        w->on_done(w, f->is_found);
    }
    fetch_free(f);
}

void on_demand_answer(struct on_demand_fetch *f, bool is_found) {
    f->is_found = is_found;
    f->msg.run = on_answer;
    loop_post(f->reply_to, &f->msg);
}

static struct on_demand_fetch *ask(struct worker *w, const struct on_demand_want *want, sv key) {
    struct on_demand_fetch *f = xnew(struct on_demand_fetch);
    f->key = sv_from(sv_dup(key), key.n);
    f->want = *want;
    if (want->cache) {
        dns_cache_ref(want->cache); /* whatever becomes of the config that named it */
    }
    f->want.name = sv_skip(f->key, KEY_HEAD);
    f->reply_to = &w->loop;
    list_init(&f->waits);
    map_put(&w->on_demand.fetches, f->key, f);
    const struct on_demand_source *s = &w->shared->on_demand;
    s->request(s->config, f);
    return f;
}

bool worker_fetch(struct worker *w, const struct on_demand_want *want,
                  struct on_demand_wait *wait) {
    struct on_demand *d = &w->on_demand;
    if (d->waits_n >= ON_DEMAND_WAITS_MAX || want->name.n > ON_DEMAND_NAME_MAX ||
        !w->shared->on_demand.request) {
        return false;
    }
    struct buf BUF_AUTO key;
    buf_init(&key);
    make_key(&key, want);
    sv text = buf_pullup(&key, buf_len(&key));
    struct on_demand_fetch *f = map_get(&d->fetches, text);
    f = f ? f : ask(w, want, text);
    list_push_back(&f->waits, &wait->node);
    d->waits_n++;
    return true;
}

bool worker_dns_load(struct worker *w, struct dns_cache *c, sv key, struct on_demand_wait *wait) {
    struct on_demand_want want = {
        .kind = ON_DEMAND_DNS_HOST, .slot = SLOT_NONE, .cache = c, .name = key};
    return worker_fetch(w, &want, wait);
}

void worker_fetch_cancel(struct worker *w, struct on_demand_wait *wait) {
    if (list_linked(&wait->node)) {
        list_unlink(&wait->node);
        w->on_demand.waits_n--;
    }
}

void on_demand_fini(struct on_demand *d) {
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&d->fetches, &it))) {
        fetch_free(slot->value);
    }
    map_fini(&d->fetches);
}
