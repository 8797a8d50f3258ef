/* sni_cluster: the server name that the client asked for is the cluster that tcp_proxy relays to.
 * Threads: worker-local. Spec: extensions.filters.network.sni_cluster.v3. */
#include "proxy/api/network_filter.h"

static void *compile(struct compile_ctx *ctx, const void *msg) {
    (void)msg;
    return arena_alloc(ctx->arena, 1); /* no fields */
}

static enum net_status on_new_connection(struct network_filter *f) {
    sv name = net_conn_info(f)->server_name;
    if (name.n) {
        struct stream_info *si = net_stream_info(f);
        if (!si->filter_state) {
            si->filter_state = filter_state_new(net_arena(f), NULL);
        }
        filter_state_set(si->filter_state, SV("envoy.tcp_proxy.cluster"), name, NULL, false,
                         FILTER_STATE_LOCAL);
    }
    return NET_CONTINUE;
}

static enum net_status on_data(struct network_filter *f, struct buf *data, bool end_stream) {
    (void)f;
    (void)data;
    (void)end_stream;
    return NET_CONTINUE;
}

extern const struct network_filter_type sni_cluster_network_filter;
const struct network_filter_type sni_cluster_network_filter = {
    .name = "envoy.filters.network.sni_cluster",
    .type_url = "envoy.extensions.filters.network.sni_cluster.v3.SniCluster",
    .instance_size = sizeof(struct network_filter),
    .compile = compile,
    .on_new_connection = on_new_connection,
    .on_data = on_data,
};
