/* Buffer: a request goes on when all of its body is here, with its length; a larger one is answered
 * 413.
 * Threads: config immutable, streams worker-local. Spec: extensions.filters.http.buffer.v3. */
#include "protos/gen/http_buffer.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "proxy/api/http_filter.h"

struct config {
    bool is_disabled; /* of a route */
    uint32_t max_request_bytes;
};
struct buffer {
    struct http_filter base; /* must be first */
    bool is_buffering;
    uint64_t body_bytes, max_bytes;
};

static void *compile(struct compile_ctx *ctx, const void *msg) {
    const HttpBuffer__Buffer *m = msg;
    struct config *c = arena_new(ctx->arena, struct config);
    c->max_request_bytes = m->max_request_bytes->value; /* required, above 0: validate rules */
    return c;
}

static void *compile_route(struct compile_ctx *ctx, const void *msg, const char *type) {
    const HttpBuffer__BufferPerRoute *m = msg;
    (void)type;
    if (m->override_case == HTTP_BUFFER__BUFFER_PER_ROUTE__OVERRIDE_BUFFER) {
        return compile(ctx, m->buffer);
    }
    struct config *c = arena_new(ctx->arena, struct config);
    c->is_disabled = true; /* the other case, by its rules only as true */
    return c;
}

static struct buffer *buffer_of(struct http_filter *f) { return (struct buffer *)f; }

static enum filter_headers_status decode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    const struct config *route = http_route_config(f), *c = route ? route : f->config;
    (void)h;
    if (end_stream || c->is_disabled || http_upgrade_type(f).n) {
        return FILTER_HEADERS_CONTINUE;
    }
    buffer_of(f)->is_buffering = true;
    buffer_of(f)->max_bytes = c->max_request_bytes;
    http_set_buffer_limit(f, c->max_request_bytes);
    return FILTER_HEADERS_STOP;
}

static void tell_length(struct buffer *b) {
    struct headers *h = http_request_headers(&b->base);
    b->is_buffering = false;
    if (!headers_has(h, HDR_content_length)) {
        headers_remove(h, HDR_transfer_encoding);
        headers_set(h, HDR_content_length,
                    arena_printf(http_arena(&b->base), "%llu", (unsigned long long)b->body_bytes));
    }
}

static enum filter_data_status decode_data(struct http_filter *f, struct buf *data,
                                           bool end_stream) {
    struct buffer *b = buffer_of(f);
    if (!b->is_buffering) {
        return FILTER_DATA_CONTINUE;
    }
    b->body_bytes += buf_len(data);
    if (!end_stream || b->body_bytes > b->max_bytes) {
        return FILTER_DATA_STOP_BUFFER; /* over the limit: the stream is answered 413 */
    }
    tell_length(b);
    return FILTER_DATA_CONTINUE;
}

static enum filter_trailers_status decode_trailers(struct http_filter *f, struct headers *t) {
    (void)t;
    if (buffer_of(f)->is_buffering) {
        tell_length(buffer_of(f));
    }
    return FILTER_TRAILERS_CONTINUE;
}

extern const struct http_filter_type buffer_http_filter;
const struct http_filter_type buffer_http_filter = {
    .name = "envoy.filters.http.buffer",
    .type_url = "envoy.extensions.filters.http.buffer.v3.Buffer",
    .route_type_url = "envoy.extensions.filters.http.buffer.v3.BufferPerRoute",
    .stream_size = sizeof(struct buffer),
    .compile = compile,
    .compile_route = compile_route,
    .decode_headers = decode_headers,
    .decode_data = decode_data,
    .decode_trailers = decode_trailers,
};
