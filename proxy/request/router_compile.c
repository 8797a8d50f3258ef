/* Router → struct router_config. Threads: the config thread. Spec:
 * extensions.filters.http.router.v3.Router. */
#include "protos/gen/http_router.pb-c.h"
#include "proxy/request/router.h"

static void strict_headers(struct compile_ctx *ctx, const HttpRouter__Router *m,
                           struct router_config *c) {
    enum header_id *ids = arena_new_array(ctx->arena, enum header_id, m->n_strict_check_headers);
    for (size_t i = 0; i < m->n_strict_check_headers; i++) {
        ids[i] = header_id_of(sv_cstr(m->strict_check_headers[i]));
    }
    c->strict_check_headers = ids;
    c->strict_check_headers_n = (unsigned)m->n_strict_check_headers;
}

void *router_compile(struct compile_ctx *ctx, const void *msg) {
    const HttpRouter__Router *m = msg;
    struct router_config *c = arena_new(ctx->arena, struct router_config);
    c->dynamic_stats = true;
    if (!m) {
        return c;
    }
    c->dynamic_stats = !m->dynamic_stats || m->dynamic_stats->value;
    c->suppress_envoy_headers = m->suppress_envoy_headers;
    c->respect_expected_rq_timeout = m->respect_expected_rq_timeout;
    c->suppress_grpc_request_failure_code_stats = m->suppress_grpc_request_failure_code_stats;
    strict_headers(ctx, m, c);
    if (m->n_upstream_http_filters) {
        diag_error(ctx->diag, "upstream_http_filters are not supported");
    }
    if (m->n_upstream_log) {
        compile_unhonoured(ctx, "upstream_log");
    }
    if (m->upstream_log_options) {
        compile_unhonoured(ctx, "upstream_log_options");
    }
    if (m->reject_connect_request_early_data) {
        compile_unhonoured(ctx, "reject_connect_request_early_data");
    }
    if (m->start_child_span) {
        compile_unhonoured(ctx, "start_child_span");
    }
    return c;
}
