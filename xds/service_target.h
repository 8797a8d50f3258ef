/* Which cluster a gRPC service is, and what its streams carry: core.v3.GrpcService, of Envoy's own
 * client or of Google's.
 * Threads: the config thread. */
#ifndef SLUICE_XDS_SERVICE_TARGET_H
#define SLUICE_XDS_SERVICE_TARGET_H

#include "xds/mux.h"

struct service_target {
    sv cluster, authority;
    struct xds_metadata *metadata;
    unsigned metadata_n;
    uint32_t max_receive_bytes; /* 0: unlimited */
};
/* Message core.v3.GrpcService with one of its targets; everything in `a`. */
void service_target_read(const void *grpc_service_msg, struct arena *a, struct service_target *out);

#endif
