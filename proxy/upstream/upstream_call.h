/* What grpc_call.c may ask of a call beyond its interface. Private to upstream/. */
#ifndef SLUICE_UPSTREAM_UPSTREAM_CALL_H
#define SLUICE_UPSTREAM_UPSTREAM_CALL_H

#include "proxy/api/upstream_call.h"

struct arena *upstream_call_arena(struct upstream_call *c); /* lives until the call is gone */
/* Before _start's caller returns to the loop. */
void upstream_call_set_user(struct upstream_call *c, void *user);

#endif
