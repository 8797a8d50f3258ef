/* Requests to dynamic_forward_proxy clusters wait here until the host that they name was looked up;
 * a route may name another one.
 * Threads: config immutable, streams worker-local. Spec:
 * extensions.filters.http.dynamic_forward_proxy.v3.
 * Not here: lookups (api/dns_cache.h), the cluster's own way to wait for a host, without this
 * filter (request/router_upstream.c). */
#include "protos/gen/http_dynamic_forward_proxy.pb-c.h"
#include "proxy/api/dns_cache.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/worker.h"

typedef HttpDynamicForwardProxy__FilterConfig filter_msg;
typedef HttpDynamicForwardProxy__PerRouteConfig route_msg;

struct dfp_config {
    struct dns_cache *cache;
    bool saves_address, allows_state;
};
struct dfp_route {
    sv host, header; /* one of them; both empty: nothing is rewritten */
};
struct dfp_stream {
    struct http_filter base; /* must be first */
    struct on_demand_wait wait;
    bool is_pending; /* counted by the cache's breaker */
};

/* ---- compiling ---- */

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const filter_msg *m = msg;
    if (m->implementation_specifier_case !=
        HTTP_DYNAMIC_FORWARD_PROXY__FILTER_CONFIG__IMPLEMENTATION_SPECIFIER_DNS_CACHE_CONFIG) {
        diag_error(ctx->diag,
                   "dns_cache_config: value is required: sub_cluster_config is not supported");
        return NULL;
    }
    struct dfp_config *c = arena_new(ctx->arena, struct dfp_config);
    c->saves_address = m->save_upstream_address;
    c->allows_state = m->allow_dynamic_host_from_filter_state;
    c->cache = dns_cache_compile(ctx, m->dns_cache_config);
    return c->cache ? c : NULL;
}

static sv lower(struct arena *a, sv name) {
    char *text = arena_cstr(a, name);
    for (size_t i = 0; i < name.n; i++) {
        text[i] = ascii_tolower(text[i]);
    }
    return sv_from(text, name.n);
}

static void *compile_route(struct compile_ctx *ctx, const void *msg, const char *type) {
    const route_msg *m = msg;
    struct dfp_route *c = arena_new(ctx->arena, struct dfp_route);
    (void)type;
    switch (m->host_rewrite_specifier_case) {
    case HTTP_DYNAMIC_FORWARD_PROXY__PER_ROUTE_CONFIG__HOST_REWRITE_SPECIFIER_HOST_REWRITE_LITERAL:
        c->host = arena_sv(ctx->arena, sv_cstr(m->host_rewrite_literal));
        break;
    case HTTP_DYNAMIC_FORWARD_PROXY__PER_ROUTE_CONFIG__HOST_REWRITE_SPECIFIER_HOST_REWRITE_HEADER:
        c->header = lower(ctx->arena, sv_cstr(m->host_rewrite_header));
        break;
    default:
        break;
    }
    return c;
}

/* ---- one request ---- */

static void release(struct dfp_stream *s) {
    const struct dfp_config *c = s->base.config;
    if (s->is_pending) {
        s->is_pending = false;
        dns_cache_pending_release(c->cache);
    }
}

static void rewrite_host(struct http_filter *f, struct headers *h) {
    const struct dfp_route *r = http_route_config(f);
    if (!r) {
        return;
    }
    sv host = r->header.n ? headers_get_name(h, r->header) : r->host;
    if (host.p && (r->header.n || host.n)) {
        headers_set(h, HDR_authority, host);
    }
}

static void save_address(struct http_filter *f, const struct addr *a) {
    const struct dfp_config *c = f->config;
    if (!c->saves_address) {
        return;
    }
    struct stream_info *si = http_stream_info(f);
    if (!si->filter_state) {
        si->filter_state = filter_state_new(http_arena(f), NULL);
    }
    filter_state_set(si->filter_state, SV("envoy.stream.upstream_address"),
                     addr_arena_str(a, http_arena(f)), NULL, false, FILTER_STATE_LOCAL);
}

static enum filter_headers_status refuse(struct http_filter *f, unsigned status, sv body,
                                         uint64_t flags, sv details) {
    http_local_reply(f, status, body, flags, details, NULL, NULL);
    return FILTER_HEADERS_STOP;
}

static enum filter_headers_status unknown(struct http_filter *f, sv details) {
    return refuse(f, 503, SV("DNS resolution failure"), RESPONSE_FLAG(DF), details);
}

static void on_done(struct on_demand_wait *w, bool is_found) {
    struct dfp_stream *s = CONTAINER_OF(w, struct dfp_stream, wait);
    struct http_filter *f = &s->base;
    release(s);
    if (is_found) {
        save_address(f, &w->dns->addr);
        http_continue_decoding(f);
    } else if (w->dns->outcome == DNS_HOSTS_OVERFLOW) {
        refuse(f, 503, SV("DNS cache overflow"), 0, SV("dns_cache_overflow"));
    } else {
        unknown(f, arena_sv(http_arena(f), sv_cstr(w->dns->details)));
    }
}

static void init(struct http_filter *f) { ((struct dfp_stream *)f)->wait.on_done = on_done; }

static enum filter_headers_status pending_overflow(struct http_filter *f) {
    return refuse(f, 503, SV("Dynamic forward proxy pending request overflow"), 0,
                  SV("dynamic_forward_proxy_pending_request_overflow"));
}

/* What names the host, and in *port the port unless it has one itself. */
static sv authority(struct http_filter *f, const struct headers *h, uint16_t *port) {
    const struct dfp_config *c = f->config;
    if (c->allows_state) {
        sv named = http_dynamic_state(f, port);
        if (named.p) {
            return named;
        }
    }
    return headers_get(h, HDR_authority);
}

static enum filter_headers_status load(struct dfp_stream *s, sv host, uint16_t port) {
    struct http_filter *f = &s->base;
    const struct dfp_config *c = f->config;
    char room[DNS_CACHE_KEY_MAX];
    sv key = dns_cache_key(host, port, room);
    if (!key.n) {
        return unknown(f, SV(DNS_DETAILS_BAD_NAME));
    }
    struct addr known;
    if (http_dynamic_host(f, c->cache, key, &known)) {
        save_address(f, &known);
        return FILTER_HEADERS_CONTINUE;
    }
    return worker_dns_load(http_worker(f), c->cache, key, &s->wait)
               ? FILTER_HEADERS_STOP_ALL_WATERMARK
               : pending_overflow(f);
}

static enum filter_headers_status decode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    struct dfp_stream *s = (struct dfp_stream *)f;
    const struct dfp_config *c = f->config;
    uint16_t port;
    (void)end_stream;
    if (!http_route_is_dynamic(f, &port)) {
        return FILTER_HEADERS_CONTINUE;
    }
    rewrite_host(f, h);
    if (!dns_cache_pending_try(c->cache, http_loop(f))) {
        return pending_overflow(f);
    }
    s->is_pending = true;
    sv host = authority(f, h, &port);
    enum filter_headers_status status =
        host.n ? load(s, host, port)
               : refuse(f, 400, SV("Empty host header"), 0, SV("empty_host_header"));
    if (status != FILTER_HEADERS_STOP_ALL_WATERMARK) {
        release(s);
    }
    return status;
}

static void destroy(struct http_filter *f) {
    struct dfp_stream *s = (struct dfp_stream *)f;
    worker_fetch_cancel(http_worker(f), &s->wait);
    release(s);
}

const struct http_filter_type dynamic_forward_proxy_http_filter = {
    .name = "envoy.filters.http.dynamic_forward_proxy",
    .type_url = "envoy.extensions.filters.http.dynamic_forward_proxy.v3.FilterConfig",
    .route_type_url = "envoy.extensions.filters.http.dynamic_forward_proxy.v3.PerRouteConfig",
    .stream_size = sizeof(struct dfp_stream),
    .compile = compile,
    .compile_route = compile_route,
    .init = init,
    .decode_headers = decode_headers,
    .destroy = destroy,
};
