/* Copy-on-write slot tables: see table.h.
 * Threads: building is the config thread's; pages are shared read-only and freed by whoever drops
 * the last ref.
 * Not here: what the slots mean (config/names.c), snapshots (config/snapshot.c). */
#include "proxy/base/table.h"

#include <string.h>

#include "proxy/base/mem.h"

static void page_free(struct shared *s) {
    struct table_page *p = (struct table_page *)s;
    for (uint32_t i = 0; i < TABLE_PAGE_SLOTS; i++) {
        shared_unref(p->v[i]);
    }
    xfree(p);
}

static struct table_page *page_new(const struct table_page *from) {
    struct table_page *p = xnew(struct table_page);
    shared_init(&p->shared, page_free);
    if (!from) {
        return p;
    }
    for (uint32_t i = 0; i < TABLE_PAGE_SLOTS; i++) {
        p->v[i] = shared_ref_(from->v[i]);
    }
    return p;
}

void table_init(struct table *t) { *t = (struct table){NULL, 0}; }

void table_fini(struct table *t) {
    for (uint32_t i = 0; i < t->pages_n; i++) {
        if (t->pages[i]) {
            shared_unref(&t->pages[i]->shared);
        }
    }
    xfree(t->pages);
    table_init(t);
}

void table_copy(struct table *dst, const struct table *src) {
    dst->pages_n = src->pages_n;
    dst->pages = src->pages_n ? xnew_array(struct table_page *, src->pages_n) : NULL;
    for (uint32_t i = 0; i < src->pages_n; i++) {
        dst->pages[i] = src->pages[i] ? shared_ref(src->pages[i]) : NULL;
    }
}

static struct table_page *writable_page(struct table *t, uint32_t page) {
    if (page >= t->pages_n) {
        t->pages = xreallocarray(t->pages, page + 1, sizeof(*t->pages));
        memset(&t->pages[t->pages_n], 0, (page + 1 - t->pages_n) * sizeof(*t->pages));
        t->pages_n = page + 1;
    }
    struct table_page *p = t->pages[page];
    if (p && __atomic_load_n(&p->shared.refs, __ATOMIC_ACQUIRE) == 1) {
        return p;
    }
    t->pages[page] = page_new(p);
    if (p) {
        shared_unref(&p->shared);
    }
    return t->pages[page];
}

void table_set(struct table *t, uint32_t slot, struct shared *value) {
    if (table_get(t, slot) == value) {
        return;
    }
    struct table_page *p = writable_page(t, slot / TABLE_PAGE_SLOTS);
    struct shared *old = p->v[slot % TABLE_PAGE_SLOTS];
    p->v[slot % TABLE_PAGE_SLOTS] = shared_ref_(value);
    shared_unref(old);
}

static void page_diff(const struct table_page *was, const struct table_page *now, uint32_t base,
                      void (*fn)(void *arg, uint32_t slot, struct shared *o, struct shared *n),
                      void *arg) {
    for (uint32_t i = 0; i < TABLE_PAGE_SLOTS; i++) {
        struct shared *o = was ? was->v[i] : NULL;
        struct shared *n = now ? now->v[i] : NULL;
        if (o != n) {
            fn(arg, base + i, o, n);
        }
    }
}

void table_diff(const struct table *was, const struct table *now,
                void (*fn)(void *arg, uint32_t slot, struct shared *old_value,
                           struct shared *new_value),
                void *arg) {
    uint32_t pages = was->pages_n > now->pages_n ? was->pages_n : now->pages_n;
    for (uint32_t i = 0; i < pages; i++) {
        const struct table_page *w = i < was->pages_n ? was->pages[i] : NULL;
        const struct table_page *n = i < now->pages_n ? now->pages[i] : NULL;
        if (w != n) {
            page_diff(w, n, i * TABLE_PAGE_SLOTS, fn, arg);
        }
    }
}

uint32_t table_next(const struct table *t, uint32_t slot) {
    for (uint32_t page = slot / TABLE_PAGE_SLOTS; page < t->pages_n;
         page++, slot = page * TABLE_PAGE_SLOTS) {
        if (!t->pages[page]) {
            continue;
        }
        for (uint32_t i = slot % TABLE_PAGE_SLOTS; i < TABLE_PAGE_SLOTS; i++) {
            if (t->pages[page]->v[i]) {
                return page * TABLE_PAGE_SLOTS + i;
            }
        }
    }
    return UINT32_MAX;
}
