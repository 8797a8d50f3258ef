/* Route tables with virtual hosts that come one by one (VHDS). Threads: the config thread.
 * Spec: config.route.v3.Vhds. Not here: where they come from (xds/store_vhds.c). */
#ifndef SLUICE_ROUTE_ROUTE_VHDS_H
#define SLUICE_ROUTE_ROUTE_VHDS_H

#include "proxy/route/route_table.h"

/* A virtual host that comes beside its table's message (VHDS). */
struct route_vhost_bytes {
    sv wire;
    char *error; /* out: why it was left out, heap; NULL: it was not */
};
/* The same with more virtual hosts behind the message's own; wrong ones are left out. */
struct route_table *route_table_compile_with(struct compile_ctx *ctx, sv wire,
                                             struct route_vhost_bytes *more, unsigned more_n,
                                             const struct route_table *prev);
/* Is there a virtual host for :authority `host`? */
bool route_table_has_host(const struct route_table *t, sv host);

#endif
