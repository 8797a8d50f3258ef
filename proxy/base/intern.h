/* Equal immutable things as one object: a table of those in use, by the bytes that make them.
 * Threads: any; cold paths only (one lock a table). Ownership: the object is its maker's kind; the
 * table only counts uses and says who frees. */
#ifndef SLUICE_BASE_INTERN_H
#define SLUICE_BASE_INTERN_H

#include <pthread.h>

#include "proxy/base/map.h"

/* Embedded in what is shared; both fields are the table's once it is added. */
struct interned {
    sv key; /* set by the maker, in memory that lives as long as the object */
    unsigned uses_;
};
struct intern_table {
    pthread_mutex_t lock_;
    struct map map_;
};
#define INTERN_TABLE_INIT \
    { .lock_ = PTHREAD_MUTEX_INITIALIZER }

/* The object with this key, one use more; NULL: there is none. */
struct interned *intern_find(struct intern_table *t, sv key);
/* Add `i` with one use. Returns it, or, one use more, the equal one that was added meanwhile: the
 * caller then frees `i`. */
struct interned *intern_add(struct intern_table *t, struct interned *i);
/* One use less. True: it was the last, and the caller frees the object. */
MUST_USE bool intern_release(struct intern_table *t, struct interned *i);

#endif
