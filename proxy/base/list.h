/* Intrusive doubly linked list with safe iteration; unlinked nodes are poisoned to self-NULL. */
#ifndef SLUICE_BASE_LIST_H
#define SLUICE_BASE_LIST_H

#include <stdbool.h>
#include <stddef.h>

#include "proxy/base/check.h"

struct list {
    struct list *next, *prev;
};

static inline void list_init(struct list *l) { l->next = l->prev = l; }
static inline bool list_empty(const struct list *l) { return l->next == l; }
/* of a zeroed or unlinked node: false */
static inline bool list_linked(const struct list *n) { return n->next != NULL; }
static inline void list_insert_before(struct list *pos, struct list *n) {
    ASSERT(!list_linked(n));
    n->prev = pos->prev;
    n->next = pos;
    pos->prev->next = n;
    pos->prev = n;
}
static inline void list_push_back(struct list *l, struct list *n) { list_insert_before(l, n); }
static inline void list_push_front(struct list *l, struct list *n) {
    list_insert_before(l->next, n);
}
static inline void list_unlink(struct list *n) {
    if (!n->next) {
        return;
    }
    n->prev->next = n->next;
    n->next->prev = n->prev;
    n->next = n->prev = NULL;
}
static inline struct list *list_first(const struct list *l) {
    return list_empty(l) ? NULL : l->next;
}
static inline struct list *list_last(const struct list *l) {
    return list_empty(l) ? NULL : l->prev;
}
static inline struct list *list_pop_front(struct list *l) {
    struct list *n = list_first(l);
    if (n) {
        list_unlink(n);
    }
    return n;
}
/* Move every node of src to the end of dst. */
static inline void list_splice_back(struct list *dst, struct list *src) {
    if (list_empty(src)) {
        return;
    }
    src->next->prev = dst->prev;
    dst->prev->next = src->next;
    src->prev->next = dst;
    dst->prev = src->prev;
    list_init(src);
}

#define LIST_ENTRY(node, type, member) CONTAINER_OF(node, type, member)
#define LIST_FOREACH(it, l) for (struct list *it = (l)->next; it != (l); it = it->next)
/* `it` may be unlinked in the body; its successor may not. */
#define LIST_FOREACH_SAFE(it, l)                                        \
    for (struct list *it = (l)->next, *it##_next = it->next; it != (l); \
         it = it##_next, it##_next = it->next)

#endif
