/* original_dst: gives a redirected connection (iptables REDIRECT or TPROXY) the destination its
 * client asked for, and one to an internal listener the one that its dialler's metadata names.
 * Threads: worker-local. Spec: listener.original_dst.v3.OriginalDst.
 * Not here: handing the connection to another listener (server/worker.c). */
#include "protos/gen/listener_original_dst.pb-c.h"
#include "proxy/api/listener_filter.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/passthrough.h"

static void *compile(struct compile_ctx *ctx, const void *msg) {
    (void)msg;                         /* no fields */
    return arena_alloc(ctx->arena, 1); /* nothing to know, but not NULL: that would be an error */
}

static bool in_state(const struct passthrough *p, sv name, struct addr *out) {
    const struct filter_state_object *o = p ? filter_state_get(p->filter_state, name) : NULL;
    struct addr found;
    if (!o || !addr_parse_ip_port(o->text, &found)) {
        return false;
    }
    *out = found;
    return true;
}

/* The destination that the dialler's metadata tells, else its filter state. */
static bool told(const struct passthrough *p, struct addr *out) {
    static const sv path[] = {SV_INIT("local")};
    const struct kv_value *v =
        p ? kv_metadata_get(p->metadata, SV("envoy.filters.listener.original_dst"), path, 1) : NULL;
    return (v && v->kind == KV_STRING && addr_parse_ip_port(v->s, out)) ||
           in_state(p, SV("envoy.filters.listener.original_dst.local_ip"), out);
}

static enum listener_filter_status on_bytes(const void *config, void *state,
                                            struct accept_info *info, sv bytes, bool end,
                                            unsigned thread_index) {
    (void)config;
    (void)state;
    (void)bytes;
    (void)end;
    (void)thread_index;
    struct addr original;
    (void)in_state(info->passthrough, SV("envoy.filters.listener.original_dst.remote_ip"),
                   &info->remote);
    bool is_restored = addr_is_ip(&info->local)
                           ? sock_original_dst(info->fd, info->local.family, &original) == 0
                           : told(info->passthrough, &original);
    if (!is_restored) {
        return LISTENER_FILTER_DONE; /* not redirected */
    }
    info->local = original;
    info->is_local_restored = true;
    return LISTENER_FILTER_DONE;
}

extern const struct listener_filter_type original_dst_listener_filter;
const struct listener_filter_type original_dst_listener_filter = {
    .name = "envoy.filters.listener.original_dst",
    .type_url = "envoy.extensions.filters.listener.original_dst.v3.OriginalDst",
    .compile = compile,
    .on_bytes = on_bytes,
};
