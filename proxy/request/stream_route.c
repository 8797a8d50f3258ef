/* Which cluster a stream's route leads to, for filters before the router.
 * Threads: worker-local. Spec: config.route.v3.RouteAction cluster specifiers. Not here: forwarding
 * (request/router.c). */
#include "proxy/api/worker.h"
#include "proxy/request/stream.h"
#include "proxy/upstream/cluster.h"

static sv by_header(const struct headers *h, enum header_id id, sv name) {
    return id != HDR_OTHER ? headers_get(h, id) : headers_get_name(h, name);
}

static sv weighted_cluster_name(struct stream *s) {
    const struct weighted_cluster *w = s->weighted;
    if (!w) { /* as the router will pick */
        struct route_match_input in = {.headers = &s->request,
                                       .random = s->random,
                                       .scratch = &s->arena,
                                       .cx = s->info.cx,
                                       .si = &s->info};
        w = route_pick_weighted(s->route, route_weighted_random(s->route, &in));
    }
    if (!w) {
        return SV_NULL;
    }
    return w->cluster_name.n ? w->cluster_name
                             : by_header(&s->request, w->cluster_header_id, w->cluster_header);
}

bool http_route_forwards(struct http_filter *f) {
    const struct route_entry *r = http_route(f);
    return r && (r->action == ROUTE_CLUSTER || r->action == ROUTE_CLUSTER_HEADER ||
                 r->action == ROUTE_WEIGHTED);
}

sv http_route_cluster(struct http_filter *f) {
    struct stream *s = f->stream;
    const struct route_entry *r = http_route(f);
    if (!r) {
        return SV_NULL;
    }
    switch (r->action) {
    case ROUTE_CLUSTER:
        return r->cluster_name;
    case ROUTE_CLUSTER_HEADER:
        return by_header(&s->request, r->cluster_header_id, r->cluster_header);
    case ROUTE_WEIGHTED:
        return weighted_cluster_name(s);
    case ROUTE_REDIRECT:
    case ROUTE_DIRECT_RESPONSE:
    case ROUTE_NON_FORWARDING:
        break;
    }
    return SV_NULL;
}

sv http_route_cluster_stat_name(struct http_filter *f) {
    sv name = http_route_cluster(f);
    struct cluster_view *v = name.n ? worker_cluster_by_name(http_worker(f), name) : NULL;
    return v ? v->cfg->observability_name : SV_NULL;
}
