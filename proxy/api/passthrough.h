/* What a connection to an internal listener brings along from the one who made it: where it goes,
 * and what its listener filters, its stream_info and its balancer find there.
 * Threads: of one worker; written before it is dialled, then immutable. Spec:
 * core.v3.EnvoyInternalAddress, internal_upstream.v3.InternalUpstreamTransport. Implemented by
 * net/passthrough.c. */
#ifndef SLUICE_API_PASSTHROUGH_H
#define SLUICE_API_PASSTHROUGH_H

#include "proxy/base/arena.h"
#include "proxy/base/shared.h"
#include "proxy/net/addr.h"

struct kv_metadata;
struct filter_state;

struct passthrough {
    struct shared shared;
    struct addr to;                    /* of ADDR_INTERNAL */
    struct kv_metadata *metadata;      /* NULL: none */
    struct filter_state *filter_state; /* NULL: none */
    struct arena arena;                /* of all this */
};
/* One ref; a copy of `to`. */
struct passthrough *passthrough_new(const struct addr *to);
/* Hold a ref on p for as long as the arena lives. */
void passthrough_pin(struct passthrough *p, struct arena *a);

#endif
