/* The store as admin sees it: see config/config_view.h. */
#ifndef SLUICE_XDS_STORE_VIEW_H
#define SLUICE_XDS_STORE_VIEW_H

#include "proxy/config/config_view.h"
#include "xds/store.h"

struct config_view store_view(struct store *s);
/* What admin asks for is gathered in slices, and yet as it was at one moment: an entry is told here
 * before its resources or its error change, or it goes. Hosts and the members of sets are those of
 * when their turn comes. */
void store_view_before(struct entry *e);
/* Its memory, all of its content freed: at once, or when the walk that has it is over. */
void store_view_release(struct entry *e);
void store_view_end(struct store *s); /* the store ends: what was asked is not answered */

/* Refused members of a set, told as one. */
#define REFUSED_TEXT_MAX (64u * 1024)
struct refused {
    struct buf text;               /* a line each */
    const struct resource *newest; /* borrowed: its bytes and version; NULL: none is refused */
    uint64_t newest_us;            /* wall clock */
};
/* One more; what does not fit into the text is cut. name empty: the set as a whole. */
void refused_add(struct refused *r, sv name, sv error, const struct resource *failed, uint64_t us);

#endif
