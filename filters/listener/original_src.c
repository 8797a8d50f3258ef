/* original_src: upstream connections made for this one come from its client's address, which need
 * not be this machine's (IP_TRANSPARENT). What routes the answers back is the operator's.
 * Threads: worker-local. Spec: listener.original_src.v3.OriginalSrc.
 * Not here: making the connections (upstream/upstream_connect.c). */
#include "protos/gen/listener_original_src.pb-c.h"
#include "proxy/api/listener_filter.h"

struct config {
    uint32_t mark;
    bool bind_port;
};

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const ListenerOriginalSrc__OriginalSrc *m = msg;
    struct config *c = arena_new(ctx->arena, struct config);
    c->mark = m ? m->mark : 0;
    c->bind_port = m && m->bind_port;
    return c;
}

static enum listener_filter_status on_bytes(const void *config, void *state,
                                            struct accept_info *info, sv bytes, bool end,
                                            unsigned thread_index) {
    (void)state;
    (void)bytes;
    (void)end;
    (void)thread_index;
    const struct config *c = config;
    if (info->remote.family != AF_INET && info->remote.family != AF_INET6) {
        return LISTENER_FILTER_DONE;
    }
    info->source = (struct sock_source){.addr = info->remote, .mark = c->mark};
    if (!c->bind_port) {
        info->source.addr.port = 0;
    }
    return LISTENER_FILTER_DONE;
}

extern const struct listener_filter_type original_src_listener_filter;
const struct listener_filter_type original_src_listener_filter = {
    .name = "envoy.filters.listener.original_src",
    .type_url = "envoy.extensions.filters.listener.original_src.v3.OriginalSrc",
    .compile = compile,
    .on_bytes = on_bytes,
};
