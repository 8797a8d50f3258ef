/* network set_filter_state: filter state of a connection, when it comes, when its TLS handshake is
 * done, and with its first bytes.
 * Threads: config immutable, connections worker-local.
 * Spec: extensions.filters.network.set_filter_state.v3. */
#include "proxy/api/set_filter_state.h"
#include "protos/gen/network_set_filter_state.pb-c.h"
#include "proxy/api/network_filter.h"

struct config {
    const struct set_filter_state *on_new, *on_handshake, *on_data;
};
struct instance {
    struct network_filter base; /* must be first */
    bool had_data;
};

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const NetworkSetFilterState__Config *m = msg;
    struct config *c = arena_new(ctx->arena, struct config);
    bool is_good = set_filter_state_compile(ctx, "on_new_connection",
                                            (const void *const *)m->on_new_connection,
                                            m->n_on_new_connection, &c->on_new);
    is_good &= set_filter_state_compile(ctx, "on_downstream_tls_handshake",
                                        (const void *const *)m->on_downstream_tls_handshake,
                                        m->n_on_downstream_tls_handshake, &c->on_handshake);
    is_good &= set_filter_state_compile(ctx, "on_downstream_data",
                                        (const void *const *)m->on_downstream_data,
                                        m->n_on_downstream_data, &c->on_data);
    return is_good ? c : NULL;
}

static void apply(struct network_filter *f, const struct set_filter_state *s) {
    if (s) {
        set_filter_state_apply(s, net_stream_info(f));
    }
}

static enum net_status on_new_connection(struct network_filter *f) {
    apply(f, ((const struct config *)f->config)->on_new);
    return NET_CONTINUE;
}

static enum net_status on_data(struct network_filter *f, struct buf *data, bool end_stream) {
    struct instance *x = (struct instance *)f;
    (void)data;
    (void)end_stream;
    if (!x->had_data) {
        x->had_data = true;
        apply(f, ((const struct config *)f->config)->on_data);
    }
    return NET_CONTINUE;
}

static void on_conn_event(struct network_filter *f, enum conn_event e) {
    if (e == CONN_EVENT_CONNECTED) { /* as Envoy's: without TLS at once */
        apply(f, ((const struct config *)f->config)->on_handshake);
    }
}

extern const struct network_filter_type network_set_filter_state_network_filter;
const struct network_filter_type network_set_filter_state_network_filter = {
    .name = "envoy.filters.network.set_filter_state",
    .type_url = "envoy.extensions.filters.network.set_filter_state.v3.Config",
    .instance_size = sizeof(struct instance),
    .compile = compile,
    .on_new_connection = on_new_connection,
    .on_data = on_data,
    .on_conn_event = on_conn_event,
};
