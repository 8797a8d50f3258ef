/* A control plane that the bootstrap names as google_grpc (an address, certificates and a token,
 * without a cluster): the cluster that stands for it here, and its token.
 * Threads: the config thread, while starting. Spec: core.v3.GrpcService.GoogleGrpc,
 * config.grpc_credential.v3.FileBasedMetadataConfig. */
#ifndef SLUICE_CONFIG_GOOGLE_GRPC_H
#define SLUICE_CONFIG_GOOGLE_GRPC_H

#include "proxy/base/arena.h"
#include "proxy/base/diag.h"

/* The cluster's message (cluster.v3.Cluster) in `a`: the target's addresses, TLS as its credentials
 * say. NULL: errors are in d. */
const void *google_grpc_cluster(const void *google_grpc_msg, struct arena *a, struct diag *d);
/* What a stream to it takes, in `a`; of a message that google_grpc_cluster() took. */
struct google_grpc_stream {
    sv cluster; /* "google_grpc:<stat_prefix>:<target_uri>" */
    sv authority;
    uint32_t max_receive_bytes; /* 0: unlimited */
    /* Metadata of its own: what stands in token_file, read when a stream begins, behind
     * token_prefix. An empty key: none; an empty file: token_prefix is the value. */
    sv token_key, token_prefix, token_file;
};
void google_grpc_stream(const void *google_grpc_msg, struct arena *a,
                        struct google_grpc_stream *out);

#endif
