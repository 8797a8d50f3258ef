/* Copy-on-write table from slots (small integers) to shared objects: the body of a configuration
 * snapshot. A change copies one page (256 pointers) and the page directory; two versions are
 * compared page by page, so publishing and adopting one change among 100,000 entries costs
 * microseconds. Threads: a table value is immutable once shared. */
#ifndef SLUICE_BASE_TABLE_H
#define SLUICE_BASE_TABLE_H

#include <stdbool.h>

#include "proxy/base/shared.h"

#define TABLE_PAGE_SLOTS 256u

struct table_page {
    struct shared shared;
    struct shared *v[TABLE_PAGE_SLOTS]; /* refs held by the page; NULL: empty */
};
struct table {
    struct table_page **pages; /* entries may be NULL */
    uint32_t pages_n;
};

void table_init(struct table *t);
void table_fini(struct table *t);
/* dst becomes another version that shares all pages with src. */
void table_copy(struct table *dst, const struct table *src);
static inline struct shared *table_get(const struct table *t, uint32_t slot) {
    uint32_t page = slot / TABLE_PAGE_SLOTS;
    return page < t->pages_n && t->pages[page] ? t->pages[page]->v[slot % TABLE_PAGE_SLOTS] : NULL;
}
/* Set (a new ref on `value` is taken) or clear (NULL). The table must not be shared yet; shared
 * pages are copied first. */
void table_set(struct table *t, uint32_t slot, struct shared *value);
/* Call fn for each slot whose pointer differs between the versions; old or now may be NULL
 * pointers. */
void table_diff(const struct table *was, const struct table *now,
                void (*fn)(void *arg, uint32_t slot, struct shared *old_value,
                           struct shared *new_value),
                void *arg);
/* Next filled slot at or after `slot`, UINT32_MAX when none. */
uint32_t table_next(const struct table *t, uint32_t slot);

#endif
