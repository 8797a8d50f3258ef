/* The overload manager: samples resource monitors and tells workers by how much to give way.
 * Threads: main; what it tells are the levels of base/overload.h. Spec:
 * config.overload.v3.OverloadManager. Not here: monitors (overload_monitors.c), giving way (where
 * overload_acts() is asked). */
#ifndef SLUICE_SERVER_OVERLOAD_H
#define SLUICE_SERVER_OVERLOAD_H

#include "protos/gen/overload.pb-c.h"
#include "proxy/event/loop.h"
#include "proxy/net/listener.h"

struct overload_manager;
struct registry;
struct stats_store;
/* NULL: errors are in d. `connections` gets the limit of the monitor of downstream connections, and
 * must live as long. Everything else is copied. */
struct overload_manager *overload_manager_new(const Overload__OverloadManager *m, struct loop *l,
                                              struct stats_store *stats,
                                              const struct registry *registry,
                                              struct conn_limit *connections, struct diag *d);
void overload_manager_start(struct overload_manager *o); /* sampling, by refresh_interval */
void overload_manager_free(struct overload_manager *o);  /* all levels are 0 again. NULL is fine */

#endif
