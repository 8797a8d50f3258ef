/* A host's facts as messages, for event logs and reports. Threads: the owner of the arena. Spec:
 * core.v3.Address, core.v3.Locality, core.v3.Metadata. */
#ifndef SLUICE_UPSTREAM_HOST_MESSAGE_H
#define SLUICE_UPSTREAM_HOST_MESSAGE_H

#include "protos/gen/core.pb-c.h"
#include "proxy/upstream/host.h"

/* All in the arena; strings may be borrowed from the host. */
Core__Address *host_address_message(const struct addr *addr, struct arena *a);
Core__Locality *host_locality_message(const struct locality *l, struct arena *a);
/* NULL: there is none */
Core__Metadata *host_metadata_message(const struct kv_metadata *m, struct arena *a);
/* Microseconds since the epoch, cut to milliseconds. */
Pb__Timestamp *host_timestamp_message(uint64_t wall_us, struct arena *a);

#endif
