/* One HTTP filter on a stream that is not there: what api/http_filter.h offers a filter, on a fake
 * clock, recorded. Include it in one test source; it defines http_local_reply() and its like there,
 * so that request/ is not linked.
 *     struct fake_stream s;  fake_stream_start(&s, &foo_http_filter, config, "h.com", "/",
 * "x-header: 1");
 *     fake_stream_decode(&s, true);  …  fake_stream_advance(&s, 50);  …  fake_stream_end(&s); */
#ifndef SLUICE_TESTS_SUPPORT_FAKE_STREAM_H
#define SLUICE_TESTS_SUPPORT_FAKE_STREAM_H

#include "proxy/api/http_filter.h"
#include "tests/support/route.h"

#define FAKE_ROUTE_CONFIGS 4

struct stream {
    struct arena arena;
    struct loop loop;
    struct headers request, response;
    struct stream_info info;
    void *conn_object;
    struct conn_info cx;
    struct http_filter *filter;
    /* what the route says */
    bool has_route_to_cluster;
    sv cluster;
    enum http_protocol upstream_protocol;
    sv upstream_host;
    const void *route_configs[FAKE_ROUTE_CONFIGS]; /* from the least to the most specific */
    unsigned route_configs_n;
    struct http_rate_limits rate_limits;
    /* what the filter did */
    unsigned local_status, continued_decoding, continued_encoding, route_clears;
    unsigned charged; /* code that was charged to the route's cluster */
    sv local_body, local_details;
    sv override_host;
    uint16_t override_strict_status;
    uint64_t local_flags;
    bool has_response, response_ended, was_reset;
    struct buf decoding, encoding; /* kept by STOP_BUFFER and STOP_WATERMARK */
    struct buf sent;               /* response body that passed the filter */
};
#define fake_stream stream

static inline void fake_stream_start(struct stream *s, const struct http_filter_type *type,
                                     const void *config, const char *host, const char *path,
                                     const char *more) {
    *s = (struct stream){.has_route_to_cluster = true, .cluster = SV("cluster")};
    arena_init(&s->arena, 0);
    rng_seed(&s->loop.rng, 1);
    s->loop.wheel = timer_wheel_new(NULL);
    s->loop.thread_index = 2;
    s->loop.now_us_ = 1000000;
    timer_wheel_advance(s->loop.wheel, 1000);
    buf_init(&s->decoding);
    buf_init(&s->encoding);
    buf_init(&s->sent);
    request_make(&s->request, &s->arena, host, path, more);
    s->info = (struct stream_info){.cx = &s->cx, .request = &s->request, .arena = &s->arena};
    s->filter = (struct http_filter *)arena_zalloc(&s->arena, type->stream_size);
    *s->filter = (struct http_filter){.type = type, .stream = s, .config = config};
    if (type->init) {
        type->init(s->filter);
    }
}

static inline void fake_stream_end(struct stream *s) {
    if (s->filter->type->destroy) {
        s->filter->type->destroy(s->filter);
    }
    timer_wheel_free(s->loop.wheel);
    buf_fini(&s->decoding);
    buf_fini(&s->encoding);
    buf_fini(&s->sent);
    arena_fini(&s->arena);
}

static inline void fake_stream_advance(struct stream *s, uint64_t ms) {
    for (uint64_t i = 0; i < ms; i++) { /* timers see the time they fire at */
        s->loop.now_us_ += 1000;
        timer_wheel_advance(s->loop.wheel, s->loop.now_us_ / 1000);
    }
}

static inline enum filter_headers_status fake_stream_decode(struct stream *s, bool end_stream) {
    return s->filter->type->decode_headers(s->filter, &s->request, end_stream);
}

static inline void fake_stream_encode(struct stream *s, struct headers *h, bool end_stream) {
    s->response = *h;
    s->has_response = true;
    s->response_ended = end_stream;
    s->info.response = &s->response;
    if (s->filter->type->encode_headers) {
        s->filter->type->encode_headers(s->filter, &s->response, end_stream);
    }
}

/* A response from upstream: status and headers as in request_make. */
static inline void fake_stream_respond(struct stream *s, unsigned status, const char *more,
                                       bool end_stream) {
    struct headers h;
    headers_init(&h, &s->arena);
    headers_set_status(&h, status);
    sv rest = sv_cstr(more);
    while (rest.n) {
        sv line = sv_cut(&rest, '\n');
        size_t at = sv_find_sv(line, SV(": "));
        headers_add_copy(&h, sv_sub(line, 0, at), sv_skip(line, at + 2));
    }
    fake_stream_encode(s, &h, end_stream);
}

static inline enum filter_data_status fake_stream_encode_data(struct stream *s, sv bytes,
                                                              bool end_stream) {
    struct buf b;
    buf_init(&b);
    buf_append_sv(&b, bytes);
    enum filter_data_status st = s->filter->type->encode_data(s->filter, &b, end_stream);
    if (st == FILTER_DATA_CONTINUE) {
        buf_move(&s->sent, &b);
        s->response_ended |= end_stream;
    } else if (st != FILTER_DATA_STOP_NO_BUFFER) {
        buf_move(&s->encoding, &b);
    }
    buf_fini(&b);
    return st;
}

static inline enum filter_data_status fake_stream_decode_data(struct stream *s, sv bytes,
                                                              bool end_stream) {
    struct buf b;
    buf_init(&b);
    buf_append_sv(&b, bytes);
    enum filter_data_status st = s->filter->type->decode_data(s->filter, &b, end_stream);
    buf_fini(&b);
    return st;
}

/* --- what filters call --- */

void http_continue_decoding(struct http_filter *f) { f->stream->continued_decoding++; }
void http_continue_encoding(struct http_filter *f) {
    f->stream->continued_encoding++;
    buf_move(&f->stream->sent, &f->stream->encoding);
}
void http_add_decoded_data(struct http_filter *f, struct buf *data, bool streaming) {
    (void)streaming;
    buf_move(&f->stream->decoding, data);
}
void http_add_encoded_data(struct http_filter *f, struct buf *data, bool streaming) {
    (void)streaming;
    buf_move(&f->stream->sent, data);
}
struct buf *http_decoding_buffer(struct http_filter *f) {
    return &f->stream->decoding;
}
struct buf *http_encoding_buffer(struct http_filter *f) {
    return &f->stream->encoding;
}

void http_encode_headers(struct http_filter *f, struct headers *h, bool end_stream, sv details) {
    f->stream->local_details = details;
    fake_stream_encode(f->stream, h, end_stream);
}

void http_local_reply(struct http_filter *f, unsigned status, sv body, uint64_t flags, sv details,
                      void (*modify)(struct headers *h, void *arg), void *arg) {
    struct stream *s = f->stream;
    s->local_status = status;
    s->local_body = body;
    s->local_flags = flags;
    s->local_details = details;
    struct headers h;
    headers_init(&h, &s->arena);
    bool is_grpc = sv_starts(headers_get(&s->request, HDR_content_type), SV("application/grpc"));
    headers_set_status(&h, is_grpc ? 200 : status);
    if (modify) {
        modify(&h, arg);
    }
    if (is_grpc && !headers_has(&h, HDR_grpc_status)) {
        headers_add_id(&h, HDR_grpc_status, SV("2"));
    }
    fake_stream_encode(s, &h, body.n == 0);
}

void http_encode_1xx(struct http_filter *f, struct headers *h) {
    (void)f;
    (void)h;
}
void http_encode_data(struct http_filter *f, struct buf *data, bool end_stream) {
    buf_move(&f->stream->sent, data);
    f->stream->response_ended |= end_stream;
}
void http_encode_trailers(struct http_filter *f, struct headers *t) {
    (void)t;
    f->stream->response_ended = true;
}
void http_reset_stream(struct http_filter *f) { f->stream->was_reset = true; }
void http_read_disable(struct http_filter *f, bool disable) {
    (void)f;
    (void)disable;
}
void http_set_upstream_override_host(struct http_filter *f, sv address, uint16_t strict_status) {
    f->stream->override_host = address;
    f->stream->override_strict_status = strict_status;
}
sv http_upstream_host_address(struct http_filter *f) { return f->stream->upstream_host; }
struct headers *http_request_headers(struct http_filter *f) {
    return &f->stream->request;
}
struct headers *http_request_trailers(struct http_filter *f) {
    (void)f;
    return NULL;
}
struct headers *http_response_headers(struct http_filter *f) {
    return f->stream->has_response ? &f->stream->response : NULL;
}
struct stream_info *http_stream_info(struct http_filter *f) {
    return &f->stream->info;
}
struct arena *http_arena(struct http_filter *f) {
    return &f->stream->arena;
}
struct loop *http_loop(struct http_filter *f) {
    return &f->stream->loop;
}
struct worker *http_worker(struct http_filter *f) {
    (void)f;
    return NULL;
}
const struct conn_info *http_conn_info(struct http_filter *f) { return &f->stream->cx; }
void *http_conn_object(struct http_filter *f, const void *key,
                       void *(*make)(struct arena *a, const void *arg), const void *arg) {
    (void)key; /* one stream is one connection here */
    if (!f->stream->conn_object) {
        f->stream->conn_object = make(&f->stream->arena, arg);
    }
    return f->stream->conn_object;
}
const struct route_entry *http_route(struct http_filter *f) {
    return f->stream->has_route_to_cluster ? (const struct route_entry *)(const void *)f : NULL;
}
void http_clear_route_cache(struct http_filter *f) { f->stream->route_clears++; }
bool http_route_forwards(struct http_filter *f) { return f->stream->has_route_to_cluster; }
sv http_route_cluster(struct http_filter *f) { return f->stream->cluster; }
sv http_route_cluster_stat_name(struct http_filter *f) { return f->stream->cluster; }
bool http_route_upstream_protocol(struct http_filter *f, enum http_protocol *out) {
    *out = f->stream->upstream_protocol;
    return f->stream->has_route_to_cluster;
}
void http_set_upstream_alpn(struct http_filter *f, const sv *protocols, unsigned n) {
    f->stream->info.up.alpn = protocols;
    f->stream->info.up.alpn_n = n;
}
void http_charge_route_cluster(struct http_filter *f, unsigned code) { f->stream->charged = code; }
const void *http_route_config(struct http_filter *f) {
    struct stream *s = f->stream;
    return s->route_configs_n ? s->route_configs[s->route_configs_n - 1] : NULL;
}
unsigned http_route_configs(struct http_filter *f, const void *out[4]) {
    memcpy(out, f->stream->route_configs, sizeof(f->stream->route_configs));
    return f->stream->route_configs_n;
}
bool http_route_rate_limits(struct http_filter *f, struct http_rate_limits *out) {
    *out = f->stream->rate_limits;
    return f->stream->has_route_to_cluster;
}
uint32_t http_buffer_limit(struct http_filter *f) {
    (void)f;
    return 1 << 20;
}
void http_set_buffer_limit(struct http_filter *f, uint32_t bytes) {
    (void)f;
    (void)bytes;
}
sv http_upgrade_type(struct http_filter *f) {
    (void)f;
    return SV_NULL;
}

#endif
