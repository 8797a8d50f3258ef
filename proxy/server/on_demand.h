/* What a worker holds for api/on_demand.h. Threads: worker-local. */
#ifndef SLUICE_SERVER_ON_DEMAND_H
#define SLUICE_SERVER_ON_DEMAND_H

#include "proxy/base/map.h"
#include "proxy/config/on_demand_fetch.h"

struct on_demand {
    struct map fetches; /* by kind, slot, source and name → struct on_demand_fetch */
    unsigned waits_n;   /* of all */
};
/* At the worker's end: the config thread is gone, or has answered. */
void on_demand_fini(struct on_demand *d);

#endif
