/* HTTP set_filter_state: filter state of a request, when its headers come.
 * Threads: config immutable, streams worker-local.
 * Spec: extensions.filters.http.set_filter_state.v3. */
#include "proxy/api/set_filter_state.h"
#include "protos/gen/http_set_filter_state.pb-c.h"
#include "proxy/api/http_filter.h"

struct config {
    const struct set_filter_state *on_headers;
    bool clears_route_cache;
};

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const HttpSetFilterState__Config *m = msg;
    struct config *c = arena_new(ctx->arena, struct config);
    c->clears_route_cache = m->clear_route_cache;
    return set_filter_state_compile(ctx, "on_request_headers",
                                    (const void *const *)m->on_request_headers,
                                    m->n_on_request_headers, &c->on_headers)
               ? c
               : NULL;
}

static void *compile_route(struct compile_ctx *ctx, const void *msg, const char *type) {
    (void)type;
    return compile(ctx, msg);
}

static enum filter_headers_status decode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    const struct config *c = f->config, *levels[4];
    (void)h;
    (void)end_stream;
    set_filter_state_apply(c->on_headers, http_stream_info(f));
    bool clears = c->clears_route_cache;
    unsigned n = http_route_configs(f, (const void **)levels);
    for (unsigned i = 0; i < n; i++) { /* in addition, the most specific last */
        set_filter_state_apply(levels[i]->on_headers, http_stream_info(f));
        clears |= levels[i]->clears_route_cache;
    }
    if (clears) {
        http_clear_route_cache(f);
    }
    return FILTER_HEADERS_CONTINUE;
}

extern const struct http_filter_type set_filter_state_http_filter;
const struct http_filter_type set_filter_state_http_filter = {
    .name = "envoy.filters.http.set_filter_state",
    .type_url = "envoy.extensions.filters.http.set_filter_state.v3.Config",
    .stream_size = sizeof(struct http_filter),
    .compile = compile,
    .compile_route = compile_route,
    .decode_headers = decode_headers,
};
