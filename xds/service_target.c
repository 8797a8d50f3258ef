/* See service_target.h. */
#include "xds/service_target.h"

#include "protos/gen/core.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "proxy/config/google_grpc.h"

static void read_envoy(const Core__GrpcService__EnvoyGrpc *e, struct arena *a,
                       struct service_target *out) {
    out->cluster = arena_sv(a, sv_cstr(e->cluster_name));
    out->authority = *e->authority ? arena_sv(a, sv_cstr(e->authority)) : out->cluster;
    out->max_receive_bytes =
        e->max_receive_message_length ? e->max_receive_message_length->value : 0;
}

static void read_google(const Core__GrpcService__GoogleGrpc *m, struct arena *a,
                        struct service_target *out) {
    struct google_grpc_stream s;
    google_grpc_stream(m, a, &s);
    out->cluster = s.cluster;
    out->authority = s.authority;
    out->max_receive_bytes = s.max_receive_bytes;
    if (s.token_key.n) {
        out->metadata[out->metadata_n++] =
            (struct xds_metadata){s.token_key, s.token_prefix, s.token_file};
    }
}

void service_target_read(const void *msg, struct arena *a, struct service_target *out) {
    const Core__GrpcService *g = msg;
    *out = (struct service_target){
        .metadata = arena_new_array(a, struct xds_metadata, g->n_initial_metadata + 1)};
    for (size_t i = 0; i < g->n_initial_metadata; i++) {
        out->metadata[out->metadata_n++] =
            (struct xds_metadata){.key = arena_sv(a, sv_cstr(g->initial_metadata[i]->key)),
                                  .value = arena_sv(a, sv_cstr(g->initial_metadata[i]->value))};
    }
    if (g->target_specifier_case == CORE__GRPC_SERVICE__TARGET_SPECIFIER_GOOGLE_GRPC) {
        read_google(g->google_grpc, a, out);
    } else {
        read_envoy(g->envoy_grpc, a, out);
    }
}
