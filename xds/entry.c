/* Entries of the store, as memory: their links and what few of them have.
 * Threads: the config thread. Not here: what entries mean (store*.c). */
#include "xds/entry.h"

#include "proxy/base/mem.h"

/* ---- links ---- */

static struct entry **array(struct entry_links *l) { return l->cap_ ? l->many_ : &l->one_; }

void entry_links_add(struct entry_links *l, struct entry *e) {
    if (l->n == 0 && l->cap_ == 0) {
        l->one_ = e;
        l->n = 1;
        return;
    }
    if (l->n >= l->cap_) {
        uint32_t cap = l->cap_ ? l->cap_ * 2 : 4;
        struct entry **v = xnew_array(struct entry *, cap);
        memcpy(v, array(l), l->n * sizeof(struct entry *));
        if (l->cap_) {
            xfree(l->many_);
        }
        l->many_ = v;
        l->cap_ = cap;
    }
    l->many_[l->n++] = e;
}

void entry_links_remove(struct entry_links *l, const struct entry *e) {
    struct entry **v = array(l);
    for (uint32_t i = 0; i < l->n; i++) {
        if (v[i] == e) {
            v[i] = v[--l->n];
            return;
        }
    }
}

void entry_links_fini(struct entry_links *l) {
    if (l->cap_) {
        xfree(l->many_);
    }
    *l = (struct entry_links){0};
}

/* ---- extra ---- */

const struct entry_extra entry_no_extra;

struct entry_extra *entry_extra(struct entry *e) {
    if (e->extra == &entry_no_extra) {
        e->extra = xnew(struct entry_extra);
    }
    return (struct entry_extra *)(uintptr_t)e->extra;
}

void entry_extra_free(struct entry *e) {
    if (e->extra != &entry_no_extra) {
        xfree(entry_extra(e));
    }
    e->extra = &entry_no_extra;
}
