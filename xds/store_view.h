/* The store as admin sees it: see config/config_view.h. */
#ifndef SLUICE_XDS_STORE_VIEW_H
#define SLUICE_XDS_STORE_VIEW_H

#include "proxy/config/config_view.h"
#include "xds/store.h"

struct config_view store_view(struct store *s);

#endif
