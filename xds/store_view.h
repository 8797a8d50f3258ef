/* The store as admin sees it: see config/config_view.h. */
#ifndef SLUICE_XDS_STORE_VIEW_H
#define SLUICE_XDS_STORE_VIEW_H

#include "proxy/config/config_view.h"
#include "xds/store.h"

struct config_view store_view(struct store *s);

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
