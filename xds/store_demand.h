/* The store's side of api/on_demand.h. Threads: as told in store_demand.c. */
#ifndef SLUICE_XDS_STORE_DEMAND_H
#define SLUICE_XDS_STORE_DEMAND_H

#include "proxy/config/on_demand_fetch.h"
#include "xds/store.h"

struct on_demand_source store_demand_source(struct store *s);
/* After a snapshot was published: answer what can be. */
void store_demands_settle(struct store *s);
bool store_is_demanded(const struct entry *e); /* a question waits for it */
/* It is gone: the next who wants it asks the server anew. May free e. */
void store_demand_release(struct entry *e);
void store_demands_end(struct store *s); /* answers all; before entries go */

#endif
