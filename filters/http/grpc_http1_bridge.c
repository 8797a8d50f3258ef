/* gRPC for clients of HTTP/1: they see no trailers, so a gRPC response to them is kept until its
 * trailers are there, and their status goes into its headers.
 * Threads: streams worker-local. Spec: extensions.filters.http.grpc_http1_bridge.v3.
 * Not here: requests that are no gRPC yet (upgrade_protobuf_to_grpc is refused). */
#include "filters/common/grpc_counters.h"
#include "protos/gen/http_grpc_http1_bridge.pb-c.h"
#include "proxy/api/http_filter.h"

struct bridge {
    struct http_filter base; /* must be first */
    bool is_bridging;
};

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const HttpGrpcHttp1Bridge__Config *m = msg;
    if (m->upgrade_protobuf_to_grpc || m->ignore_query_parameters) {
        diag_error(ctx->diag, "%s is not supported",
                   m->upgrade_protobuf_to_grpc ? "upgrade_protobuf_to_grpc"
                                               : "ignore_query_parameters");
        return NULL;
    }
    return arena_alloc(ctx->arena, 1); /* nothing to keep */
}

static struct bridge *bridge_of(struct http_filter *f) { return (struct bridge *)f; }

static enum filter_headers_status decode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    const struct stream_info *si = http_stream_info(f);
    (void)end_stream;
    bridge_of(f)->is_bridging =
        si->has_protocol && si->protocol < HTTP_2 && grpc_is_type(headers_get(h, HDR_content_type));
    return FILTER_HEADERS_CONTINUE;
}

static enum filter_headers_status encode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    (void)h;
    return bridge_of(f)->is_bridging && !end_stream ? FILTER_HEADERS_STOP : FILTER_HEADERS_CONTINUE;
}

static enum filter_data_status encode_data(struct http_filter *f, struct buf *data,
                                           bool end_stream) {
    (void)data;
    return bridge_of(f)->is_bridging && !end_stream ? FILTER_DATA_STOP_BUFFER
                                                    : FILTER_DATA_CONTINUE;
}

static enum filter_trailers_status encode_trailers(struct http_filter *f, struct headers *t) {
    struct headers *h = http_response_headers(f);
    if (!bridge_of(f)->is_bridging) {
        return FILTER_TRAILERS_CONTINUE;
    }
    sv status = headers_get(t, HDR_grpc_status), message = headers_get(t, HDR_grpc_message);
    uint64_t code = 0;
    if (status.p) {
        if (!sv_to_u64(status, &code) || code) {
            headers_set_status(h, 503);
        }
        headers_set(h, HDR_grpc_status, arena_sv(http_arena(f), status));
    }
    if (message.p) {
        headers_set(h, HDR_grpc_message, arena_sv(http_arena(f), message));
    }
    const struct buf *body = http_encoding_buffer(f);
    headers_set(h, HDR_content_length,
                arena_printf(http_arena(f), "%zu", body ? buf_len(body) : (size_t)0));
    return FILTER_TRAILERS_CONTINUE;
}

extern const struct http_filter_type grpc_http1_bridge_http_filter;
const struct http_filter_type grpc_http1_bridge_http_filter = {
    .name = "envoy.filters.http.grpc_http1_bridge",
    .type_url = "envoy.extensions.filters.http.grpc_http1_bridge.v3.Config",
    .route_type_url = "",
    .stream_size = sizeof(struct bridge),
    .compile = compile,
    .decode_headers = decode_headers,
    .encode_headers = encode_headers,
    .encode_data = encode_data,
    .encode_trailers = encode_trailers,
};
