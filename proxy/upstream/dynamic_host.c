/* Picking in dynamic_forward_proxy clusters: see dynamic_host.h. Threads: worker-local. */
#include "proxy/upstream/dynamic_host.h"

#include "proxy/api/transport_socket.h"
#include "proxy/api/worker.h"
#include "proxy/event/loop.h"
#include "proxy/http/headers.h"
#include "proxy/observe/filter_state.h"
#include "proxy/upstream/dns_cache.h"

#define HTTP_PORT 80
#define HTTPS_PORT 443

uint16_t dynamic_port(const struct stream_info *si, uint16_t dflt) {
    uint64_t port;
    sv text = filter_state_text(si->filter_state, SV(DYNAMIC_PORT_STATE));
    return text.n && sv_to_u64(text, &port) && port >= 1 && port <= UINT16_MAX ? (uint16_t)port
                                                                               : dflt;
}

sv dynamic_authority(const struct lb_context *ctx) {
    sv named = ctx->si ? filter_state_text(ctx->si->filter_state, SV(DYNAMIC_HOST_STATE)) : SV_NULL;
    if (named.p) {
        return named;
    }
    if (ctx->request) {
        return headers_get(ctx->request, HDR_authority);
    }
    return ctx->si && ctx->si->cx ? ctx->si->cx->server_name : SV_NULL;
}

uint16_t dynamic_default_port(const struct cluster_view *v) {
    const struct transport_factory *t = worker_transport(v->worker, v->cfg->transport);
    return t && !t->ops->is_secure ? HTTP_PORT : HTTPS_PORT; /* none: its secrets are missing */
}

sv dynamic_key(const struct cluster_view *v, const struct lb_context *ctx,
               char room[DNS_CACHE_KEY_MAX]) {
    uint16_t port = dynamic_default_port(v);
    port = ctx->si ? dynamic_port(ctx->si, port) : port;
    return dns_cache_key(dynamic_authority(ctx), port, room);
}

struct host *dynamic_host_find(struct cluster_view *v, sv key, const struct host_entry **entry) {
    const struct host_entry *e = v->hosts ? host_set_find_name(v->hosts, key) : NULL;
    if (!e || host_health_of(host_flags(e->host)) == HOST_UNHEALTHY) {
        return NULL;
    }
    dns_use_touch(e->host->extra->use, loop_now_us(v->loop));
    *entry = e;
    return e->host;
}

struct host *dynamic_host_pick(struct cluster_view *v, const struct lb_context *ctx,
                               const struct host_entry **entry) {
    char room[DNS_CACHE_KEY_MAX];
    return dynamic_host_find(v, dynamic_key(v, ctx, room), entry);
}
