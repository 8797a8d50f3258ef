/* Which route a stream takes: table, route and weighted cluster are chosen once and kept until a
 * filter clears them; what filters ask about them.
 * Threads: worker-local. Spec: Envoy's refreshCachedRoute(); config.route.v3.RouteAction cluster
 * specifiers, typed_per_filter_config. Not here: matching (route/), forwarding (router.c). */
#include "proxy/api/worker.h"
#include "proxy/request/hcm_scopes.h"
#include "proxy/request/stream.h"
#include "proxy/upstream/cluster.h"
#include "proxy/upstream/dynamic_host.h"

/* ---- choosing ---- */

/* The slot's table. What the stream saw of it first is what it keeps seeing. */
static const struct route_table *pinned_table(struct stream *s, slot_t slot) {
    for (const struct route_pin *p = s->pins; p != s->stale_pins; p = p->older) {
        if (p->slot == slot) {
            return p->view->table;
        }
    }
    struct route_view *v = worker_route(s->hcm->worker, slot);
    if (!v) {
        return NULL;
    }
    struct route_pin *p = arena_new(&s->arena, struct route_pin);
    *p = (struct route_pin){v, slot, s->pins};
    s->pins = p;
    return v->table;
}

static void forget_cluster(struct stream *s) {
    if (s->noted_cluster) {
        cluster_view_unref(s->noted_cluster);
        s->noted_cluster = NULL;
        s->info.cluster_name = SV_NULL;
        s->info.cluster_raw_name = SV_NULL;
        s->info.cluster_metadata = NULL;
    }
}

void stream_routes_release(struct stream *s) {
    forget_cluster(s);
    for (const struct route_pin *p = s->pins; p; p = p->older) {
        route_view_unref(p->view);
    }
    s->pins = NULL;
}

static const struct scope *find_scope(struct stream *s) {
    const struct hcm_scopes *c = s->cfg->scopes;
    const struct scope_table *t = c->list ? c->list : worker_scopes(s->hcm->worker, c->slot);
    return t ? scope_table_find(t, scope_key_build(c->key_builder, &s->request, &s->arena)) : NULL;
}

static const struct route_table *current_table(struct stream *s) {
    if (s->cfg->routes) {
        return s->cfg->routes;
    }
    if (!s->cfg->scopes) {
        return pinned_table(s, s->cfg->route_slot);
    }
    const struct scope *scope = find_scope(s);
    if (!scope) {
        return NULL;
    }
    return scope->table ? scope->table : pinned_table(s, scope->routes);
}

static sv by_header(const struct headers *h, enum header_id id, sv name) {
    return id != HDR_OTHER ? headers_get(h, id) : headers_get_name(h, name);
}

/* By weight, name or header: as the request is now, whatever later filters make of its headers. */
static void choose_cluster(struct stream *s, const struct route_match_input *in) {
    const struct route_entry *r = s->route;
    switch (r->action) {
    case ROUTE_CLUSTER:
        s->cluster_slot = r->cluster;
        s->cluster_name = r->cluster_name;
        break;
    case ROUTE_CLUSTER_HEADER:
        s->cluster_name = by_header(&s->request, r->cluster_header->id, r->cluster_header->name);
        break;
    case ROUTE_WEIGHTED:
        s->weighted = route_pick_weighted(r, route_weighted_random(r, in));
        if (s->weighted) {
            s->cluster_slot = s->weighted->cluster;
            s->cluster_name = s->weighted->cluster_name.n
                                  ? s->weighted->cluster_name
                                  : by_header(&s->request, s->weighted->cluster_header_id,
                                              s->weighted->cluster_header);
        }
        break;
    case ROUTE_REDIRECT:
    case ROUTE_DIRECT_RESPONSE:
    case ROUTE_NON_FORWARDING:
        break;
    }
}

struct cluster_view *stream_route_cluster(struct stream *s) {
    struct worker *w = s->hcm->worker;
    if (s->cluster_slot != SLOT_NONE) {
        return worker_cluster(w, s->cluster_slot);
    }
    return s->cluster_name.n ? worker_cluster_by_name(w, s->cluster_name) : NULL;
}

/* For logs and filters: what the route says before the request is forwarded. */
static void note_route(struct stream *s) {
    sv name;
    const struct virtual_cluster *vc =
        vhost_virtual_cluster(s->vhost, &s->request, &s->arena, &name);
    s->vcluster = vc;
    s->info.virtual_cluster_name = vc && vc->matchers ? name : SV_NULL; /* the catch-all has none */
    s->info.route_name = s->route->name;
    s->info.vhost_name = s->route->vhost->name;
    s->info.route_metadata = s->route->metadata;
    s->info.vhost_metadata = s->route->vhost->metadata;
    struct cluster_view *v = stream_route_cluster(s);
    forget_cluster(s);
    s->noted_cluster = v ? cluster_view_ref(v) : NULL;
    s->info.cluster_name = v ? v->cfg->observability_name : SV_NULL;
    s->info.cluster_raw_name = v ? v->cfg->name : SV_NULL;
    s->info.cluster_metadata = v ? v->cfg->metadata : NULL;
}

void stream_resolve_route(struct stream *s) {
    if (s->is_route_cached) {
        return;
    }
    s->is_route_cached = true;
    s->route = NULL;
    s->vhost = NULL;
    s->vcluster = NULL;
    s->weighted = NULL;
    s->cluster_slot = SLOT_NONE;
    s->cluster_name = SV_NULL;
    s->table = current_table(s);
    if (!s->table) {
        return;
    }
    struct route_match_input in = {.headers = &s->request,
                                   .random = s->random,
                                   .scratch = &s->arena,
                                   .cx = s->info.cx,
                                   .si = &s->info,
                                   .is_connect = s->is_connect};
    enum route_miss why = ROUTE_FOUND;
    s->route = route_table_match(s->table, &in, &s->vhost, &why);
    s->needs_tls = why == ROUTE_TLS_REDIRECT;
    if (!s->route) {
        return;
    }
    choose_cluster(s, &in);
    note_route(s);
}

/* ---- api/http_filter.h ---- */

const struct route_entry *http_route(struct http_filter *f) {
    stream_resolve_route(f->stream);
    return f->stream->route;
}

void http_clear_route_cache(struct http_filter *f) {
    f->stream->is_route_cached = false;
    f->stream->route = NULL;
}

bool http_route_forwards(struct http_filter *f) {
    const struct route_entry *r = http_route(f);
    return r && (r->action == ROUTE_CLUSTER || r->action == ROUTE_CLUSTER_HEADER ||
                 r->action == ROUTE_WEIGHTED);
}

sv http_route_cluster(struct http_filter *f) {
    return http_route(f) ? f->stream->cluster_name : SV_NULL;
}

sv http_route_cluster_stat_name(struct http_filter *f) {
    const struct cluster_view *v = http_route(f) ? stream_route_cluster(f->stream) : NULL;
    return v ? v->cfg->observability_name : SV_NULL;
}

bool http_route_upstream_protocol(struct http_filter *f, enum http_protocol *out) {
    const struct cluster_view *v = http_route(f) ? stream_route_cluster(f->stream) : NULL;
    if (!v) {
        return false;
    }
    switch (v->cfg->protocol) {
    case UPSTREAM_HTTP1:
        *out = HTTP_11;
        break;
    case UPSTREAM_HTTP2:
    case UPSTREAM_AUTO:
        *out = HTTP_2;
        break;
    case UPSTREAM_DOWNSTREAM:
        *out = (enum http_protocol)f->stream->info.protocol;
        break;
    }
    return true;
}

/* ---- dynamic_forward_proxy clusters ---- */

static struct cluster_view *dynamic_cluster(struct http_filter *f) {
    struct cluster_view *v = http_route_forwards(f) ? stream_route_cluster(f->stream) : NULL;
    return v && v->cfg->type == CLUSTER_TYPE_DYNAMIC ? v : NULL;
}

bool http_route_is_dynamic(struct http_filter *f, uint16_t *port) {
    const struct cluster_view *v = dynamic_cluster(f);
    *port = v ? dynamic_default_port(v) : 0;
    return v != NULL;
}

sv http_dynamic_state(struct http_filter *f, uint16_t *port) {
    const struct stream_info *si = &f->stream->info;
    *port = dynamic_port(si, *port);
    return filter_state_text(si->filter_state, SV(DYNAMIC_HOST_STATE));
}

bool http_dynamic_host(struct http_filter *f, const struct dns_cache *c, sv key, struct addr *out) {
    struct cluster_view *v = dynamic_cluster(f);
    const struct host_entry *e =
        v && v->hosts && v->cfg->dns_cache == c ? host_set_find_name(v->hosts, key) : NULL;
    if (e) {
        *out = e->host->addr;
    }
    return e != NULL;
}

/* ---- the upstream ---- */

void http_set_upstream_alpn(struct http_filter *f, const sv *protocols, unsigned n) {
    f->stream->info.up.alpn = protocols;
    f->stream->info.up.alpn_n = n;
}

void http_set_upstream_override_host(struct http_filter *f, sv address, uint16_t strict_status) {
    struct stream *s = f->stream;
    struct addr *a = arena_new(&s->arena, struct addr); /* family 0: nobody's */
    s->info.up.override_host = a;
    s->info.up.override_strict_status = strict_status;
    if (address.n && (address.p[0] == '/' || address.p[0] == '@')) {
        addr_set_path(a, arena_cstr(&s->arena, address));
        return;
    }
    struct addr parsed;
    char text[ADDR_STR_MAX];
    if (addr_parse_ip_port(address, &parsed) &&
        sv_eq(sv_from(text, addr_str(&parsed, text)), address)) {
        *a = parsed;
    }
}

sv http_upstream_host_address(struct http_filter *f) {
    const struct host *h = f->stream->info.up.host;
    return h ? h->address_text : SV_NULL;
}

void http_charge_route_cluster(struct http_filter *f, unsigned code) {
    struct cluster_view *v = http_route(f) ? stream_route_cluster(f->stream) : NULL;
    if (v) {
        stats_codes_inc(cluster_side_codes(v->cfg, CLUSTER_SIDE_ALL), code);
        stats_codes_inc(cluster_side_codes(v->cfg, CLUSTER_SIDE_INTERNAL), code);
    }
}

const void *http_route_config(struct http_filter *f) {
    struct stream *s = f->stream;
    const struct route_entry *r = http_route(f);
    return r ? route_override_config(s->table, r, s->weighted, s->chain->v[f->index_].name_id)
             : NULL;
}

unsigned http_route_configs(struct http_filter *f, const void *out[4]) {
    struct stream *s = f->stream;
    const struct route_entry *r = http_route(f);
    return r ? route_override_configs(s->table, r, s->weighted, s->chain->v[f->index_].name_id, out)
             : 0;
}

bool http_route_rate_limits(struct http_filter *f, struct http_rate_limits *out) {
    const struct route_entry *r = http_route(f);
    if (!http_route_forwards(f)) {
        return false;
    }
    *out = (struct http_rate_limits){r->extra->rate_limits, r->vhost->rate_limits,
                                     r->extra->include_vhost_rate_limits};
    return true;
}

void http_refresh_route(struct http_filter *f) {
    f->stream->stale_pins = f->stream->pins;
    http_clear_route_cache(f);
}

/* ---- fetching what is missing ---- */

static enum http_fetch fetch(struct stream *s, const struct on_demand_want *want,
                             struct on_demand_wait *wait) {
    return worker_fetch(s->hcm->worker, want, wait) ? HTTP_FETCH_STARTED : HTTP_FETCH_OVERFLOW;
}

/* A scope whose routes nobody asked for yet. */
static bool lacks_scope(struct stream *s, struct on_demand_want *want) {
    const struct hcm_scopes *c = s->cfg->scopes;
    const struct scope *scope = c && !c->list && !s->table ? find_scope(s) : NULL;
    if (!scope || !scope->is_on_demand) {
        return false;
    }
    *want = (struct on_demand_want){.kind = ON_DEMAND_SCOPE, .slot = c->slot, .name = scope->key};
    return true;
}

/* A host that the route table does not know and VHDS may have. */
static bool lacks_host(struct stream *s, struct on_demand_want *want) {
    sv host = headers_get(&s->request, HDR_authority);
    if (!s->table || !s->table->uses_vhds || s->vhost || !host.n || !s->pins) {
        return false;
    }
    char *lower = arena_alloc(&s->arena, host.n);
    for (size_t i = 0; i < host.n; i++) {
        lower[i] = ascii_tolower(host.p[i]);
    }
    *want = (struct on_demand_want){.kind = ON_DEMAND_VIRTUAL_HOST,
                                    .slot = s->pins->slot, /* the table's */
                                    .name = sv_from(lower, host.n)};
    return true;
}

enum http_fetch http_fetch_route(struct http_filter *f, struct on_demand_wait *wait) {
    struct stream *s = f->stream;
    struct on_demand_want want;
    if (http_route(f) || (!lacks_scope(s, &want) && !lacks_host(s, &want))) {
        return HTTP_FETCH_NOTHING;
    }
    return fetch(s, &want, wait);
}

enum http_fetch http_fetch_cluster(struct http_filter *f, const struct config_source *source,
                                   struct on_demand_wait *wait) {
    struct stream *s = f->stream;
    if (!http_route(f) || !s->cluster_name.n || stream_route_cluster(s)) {
        return HTTP_FETCH_NOTHING;
    }
    struct on_demand_want want = {
        .kind = ON_DEMAND_CLUSTER, .slot = SLOT_NONE, .source = source, .name = s->cluster_name};
    return fetch(s, &want, wait);
}
