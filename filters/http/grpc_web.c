/* gRPC-Web: clients that know no HTTP/2 trailers (browsers) speak to gRPC services. Their requests
 * become gRPC, base64 text is decoded; trailers of the response become a frame of its body, which
 * is base64 text when they ask for it; a response that is no gRPC becomes a status and a message.
 * Threads: config immutable but for its counters; streams worker-local.
 * Spec: extensions.filters.http.grpc_web.v3, gRPC's PROTOCOL-WEB. Nothing waits for a whole
 * message: text is made and read as it comes. */
#include "filters/common/grpc_counters.h"
#include "proxy/api/http_filter.h"
#include "proxy/base/base64.h"
#include "proxy/base/grpc_status.h"

#define MESSAGE_BYTES_MAX 16384u /* of a response that is no gRPC, for grpc-message */
#define FRAME_HEADER_BYTES 5u
#define TRAILERS_FRAME 0x80
#define DECODE_BYTES 4096u /* text decoded at once */

enum { BAD_SIZE, BAD_DATA };
static const char *const bad_details[] = {"grpc_base_64_decode_failed_bad_size",
                                          "grpc_base_64_decode_failed"};

struct grpc_web_config {
    struct grpc_counters counters;
};
struct grpc_web {
    struct http_filter base; /* must be first */
    bool is_request, is_text_request, is_text_response;
    bool is_transformed;        /* the response is no gRPC: its body is kept for grpc-message */
    struct grpc_method *method; /* NULL: not counted */
    struct buf message;
    char quad[4]; /* text that is not decoded yet */
    uint8_t quad_n;
    /* where in the frames of a text response we are */
    uint8_t header_n;
    uint32_t left;    /* of the frame's message */
    uint8_t carry[3]; /* bytes of the frame that are not encoded yet */
    uint8_t carry_n;
};

static void *grpc_web_compile(struct compile_ctx *ctx, const void *msg) {
    struct grpc_web_config *c = arena_new(ctx->arena, struct grpc_web_config);
    (void)msg;
    grpc_counters_init(ctx, &c->counters, "grpc-web");
    return c;
}

static struct grpc_web *web_of(struct http_filter *f) { return (struct grpc_web *)f; }

static void grpc_web_init(struct http_filter *f) { buf_init(&web_of(f)->message); }
static void grpc_web_destroy(struct http_filter *f) { buf_fini(&web_of(f)->message); }

/* --- requests --- */

static bool is_text_type(sv type) {
    return sv_is(type, "application/grpc-web-text") ||
           sv_is(type, "application/grpc-web-text+proto");
}
static bool is_web_type(sv type) {
    return is_text_type(type) || sv_is(type, "application/grpc-web") ||
           sv_is(type, "application/grpc-web+proto");
}

static void find_counters(struct http_filter *f, sv path) {
    char text[GRPC_METHOD_BYTES_MAX];
    sv service, method, prefix = SV(""), cluster = http_route_cluster_stat_name(f);
    /* The config is shared, but each thread writes only its own part. */
    struct grpc_web_config *c = (struct grpc_web_config *)(uintptr_t)f->config;
    if (!cluster.n) {
        return;
    }
    if (grpc_split_path(path, &service, &method) && service.n + method.n + 3 <= sizeof text &&
        grpc_is_stat_name(service) && grpc_is_stat_name(method)) {
        int n = snprintf(text, sizeof text, "%.*s.%.*s.", SV_ARG(service), SV_ARG(method));
        prefix = sv_from(text, (size_t)n);
    }
    web_of(f)->method =
        grpc_counters_find(&c->counters, http_loop(f)->thread_index, cluster, prefix);
}

static enum filter_headers_status grpc_web_decode_headers(struct http_filter *f, struct headers *h,
                                                          bool end_stream) {
    struct grpc_web *g = web_of(f);
    sv type = headers_get(h, HDR_content_type);
    (void)end_stream;
    g->is_request = headers_has(h, HDR_path) && is_web_type(type);
    if (!g->is_request) {
        return FILTER_HEADERS_CONTINUE;
    }
    headers_remove(h, HDR_content_length); /* of the body as it was */
    find_counters(f, headers_get(h, HDR_path));
    g->is_text_request = is_text_type(type);
    g->is_text_response = is_text_type(headers_get_name(h, SV("accept")));
    headers_set(h, HDR_content_type, SV("application/grpc"));
    headers_set(h, HDR_te, SV("trailers"));
    if (!headers_get_name(h, SV("grpc-accept-encoding")).p) {
        headers_set_name(h, SV("grpc-accept-encoding"), SV("identity"));
    }
    return FILTER_HEADERS_CONTINUE;
}

/* Whole quads; each may end in padding, as texts that are joined do. */
static bool decode_quads(sv text, struct buf *out) {
    while (text.n) {
        size_t pad = sv_find(text, '=');
        size_t n = pad == SIZE_MAX ? text.n : (pad / 4 + 1) * 4;
        char bytes[BASE64_DECODED_MAX(DECODE_BYTES)];
        size_t got = base64_decode(sv_sub(text, 0, n), BASE64_STANDARD, bytes);
        if (got == SIZE_MAX) {
            return false;
        }
        buf_append_sv(out, sv_from(bytes, got));
        text = sv_skip(text, n);
    }
    return true;
}

static bool decode_slice(struct grpc_web *g, sv in, struct buf *out) {
    while (g->quad_n && g->quad_n < 4 && in.n) {
        g->quad[g->quad_n++] = *in.p;
        in = sv_skip(in, 1);
    }
    if (g->quad_n == 4) {
        g->quad_n = 0;
        if (!decode_quads(sv_from(g->quad, 4), out)) {
            return false;
        }
    }
    while (in.n >= 4) {
        sv part = sv_sub(in, 0, in.n < DECODE_BYTES ? in.n / 4 * 4 : DECODE_BYTES);
        if (!decode_quads(part, out)) {
            return false;
        }
        in = sv_skip(in, part.n);
    }
    if (in.n) {
        memcpy(g->quad, in.p, in.n);
        g->quad_n = (uint8_t)in.n;
    }
    return true;
}

static enum filter_data_status refuse(struct http_filter *f, unsigned why) {
    http_local_reply(f, 400, SV("Bad gRPC-web request, invalid base64 data."), 0,
                     sv_cstr(bad_details[why]), NULL, NULL);
    return FILTER_DATA_STOP_NO_BUFFER;
}

static enum filter_data_status grpc_web_decode_data(struct http_filter *f, struct buf *data,
                                                    bool end_stream) {
    struct grpc_web *g = web_of(f);
    if (!g->is_request || !g->is_text_request) {
        return FILTER_DATA_CONTINUE;
    }
    struct buf BUF_AUTO out;
    buf_init(&out);
    if (end_stream && (buf_len(data) + g->quad_n) % 4) {
        return refuse(f, BAD_SIZE);
    }
    for (size_t i = 0; i < buf_slices(data); i++) {
        const struct slice *s = buf_slice(data, i);
        if (!decode_slice(g, sv_from(s->p, s->n), &out)) {
            return refuse(f, BAD_DATA);
        }
    }
    buf_clear(data);
    buf_move(data, &out);
    return buf_len(data) || end_stream ? FILTER_DATA_CONTINUE : FILTER_DATA_STOP_NO_BUFFER;
}

/* --- responses --- */

static bool is_web_response(const struct headers *h) {
    sv type = headers_get(h, HDR_content_type);
    type = sv_trim(sv_sub(type, 0, sv_find(type, ';')));
    return headers_status(h) == 200 && (sv_eq_nocase(type, SV("application/grpc-web")) ||
                                        sv_eq_nocase(type, SV("application/grpc-web+proto")));
}

static enum filter_headers_status grpc_web_encode_headers(struct http_filter *f, struct headers *h,
                                                          bool end_stream) {
    struct grpc_web *g = web_of(f);
    if (!g->is_request) {
        return FILTER_HEADERS_CONTINUE;
    }
    if (g->method) {
        grpc_charge_status(g->method, h);
    }
    g->is_transformed = !end_stream && !grpc_is_response(h, end_stream) && !is_web_response(h);
    headers_remove(h, HDR_content_length);
    headers_set(h, HDR_content_type,
                g->is_text_response ? SV("application/grpc-web-text+proto")
                                    : SV("application/grpc-web+proto"));
    return g->is_transformed ? FILTER_HEADERS_STOP : FILTER_HEADERS_CONTINUE;
}

static void finish_transformed(struct grpc_web *g) {
    struct headers *h = http_response_headers(&g->base);
    sv body = arena_sv(http_arena(&g->base), buf_pullup(&g->message, buf_len(&g->message)));
    g->is_transformed = false;
    headers_set(h, HDR_grpc_message, percent_encode(body, "%", http_arena(&g->base)));
    headers_set(h, HDR_grpc_status, grpc_status_text_of_http(headers_status(h)));
    headers_set(h, HDR_content_length, SV("0"));
    buf_clear(&g->message);
}

static enum filter_data_status keep_message(struct grpc_web *g, struct buf *data, bool end_stream) {
    size_t room = MESSAGE_BYTES_MAX - buf_len(&g->message);
    buf_move_n(&g->message, data, buf_len(data) < room ? buf_len(data) : room);
    buf_clear(data);
    if (!end_stream) {
        return FILTER_DATA_STOP_NO_BUFFER;
    }
    finish_transformed(g);
    return FILTER_DATA_CONTINUE;
}

static void encode_carry(struct grpc_web *g, struct buf *out) {
    base64_encode(out, sv_from(g->carry, g->carry_n), BASE64_STANDARD);
    g->carry_n = 0;
}

/* Bytes of one frame; its last ones are padded. */
static void encode_bytes(struct grpc_web *g, sv in, bool is_end, struct buf *out) {
    while (in.n && (g->carry_n || in.n < sizeof g->carry)) {
        g->carry[g->carry_n++] = (uint8_t)*in.p;
        in = sv_skip(in, 1);
        if (g->carry_n == sizeof g->carry) {
            encode_carry(g, out);
        }
    }
    size_t whole = in.n / sizeof g->carry * sizeof g->carry;
    base64_encode(out, sv_sub(in, 0, whole), BASE64_STANDARD);
    in = sv_skip(in, whole);
    if (in.n) {
        memcpy(g->carry, in.p, in.n);
        g->carry_n = (uint8_t)in.n;
    }
    if (is_end && g->carry_n) {
        encode_carry(g, out);
    }
}

/* How many of these bytes belong to the frame that is under way; *is_end: it ends with them. */
static size_t frame_part(struct grpc_web *g, sv in, bool *is_end) {
    size_t n = 0;
    while (n < in.n && g->header_n < FRAME_HEADER_BYTES) {
        g->left = g->header_n ? g->left << 8 | (uint8_t)in.p[n] : 0;
        g->header_n++;
        n++;
    }
    if (g->header_n == FRAME_HEADER_BYTES) {
        size_t body = g->left < in.n - n ? g->left : in.n - n;
        g->left -= (uint32_t)body;
        n += body;
    }
    *is_end = g->header_n == FRAME_HEADER_BYTES && g->left == 0;
    g->header_n = *is_end ? 0 : g->header_n;
    return n;
}

static void encode_text(struct grpc_web *g, struct buf *data, struct buf *out) {
    for (size_t i = 0; i < buf_slices(data); i++) {
        const struct slice *s = buf_slice(data, i);
        for (sv in = sv_from(s->p, s->n); in.n;) {
            bool is_end;
            size_t n = frame_part(g, in, &is_end);
            encode_bytes(g, sv_sub(in, 0, n), is_end, out);
            in = sv_skip(in, n);
        }
    }
}

static enum filter_data_status grpc_web_encode_data(struct http_filter *f, struct buf *data,
                                                    bool end_stream) {
    struct grpc_web *g = web_of(f);
    if (g->is_request && g->is_transformed) {
        return keep_message(g, data, end_stream);
    }
    if (!g->is_request || !g->is_text_response) {
        return FILTER_DATA_CONTINUE;
    }
    struct buf BUF_AUTO out;
    buf_init(&out);
    encode_text(g, data, &out);
    if (end_stream && g->carry_n) { /* a message that was cut off */
        encode_carry(g, &out);
    }
    buf_clear(data);
    buf_move(data, &out);
    return buf_len(data) || end_stream ? FILTER_DATA_CONTINUE : FILTER_DATA_STOP_NO_BUFFER;
}

/* "name:value\r\n" of each, behind a frame's header. */
static void write_trailers(const struct headers *t, struct buf *out) {
    uint32_t size = 0;
    HEADERS_FOREACH (it, t) {
        size += (uint32_t)(it->name.n + it->value.n + 3);
    }
    const unsigned char header[FRAME_HEADER_BYTES] = {
        TRAILERS_FRAME, (unsigned char)(size >> 24), (unsigned char)(size >> 16),
        (unsigned char)(size >> 8), (unsigned char)size};
    buf_append_sv(out, sv_from(header, sizeof header));
    HEADERS_FOREACH (it, t) {
        buf_append_sv(out, it->name);
        buf_append_sv(out, SV(":"));
        buf_append_sv(out, it->value);
        buf_append_sv(out, SV("\r\n"));
    }
}

static enum filter_trailers_status grpc_web_encode_trailers(struct http_filter *f,
                                                            struct headers *t) {
    struct grpc_web *g = web_of(f);
    if (!g->is_request) {
        return FILTER_TRAILERS_CONTINUE;
    }
    if (g->method) {
        grpc_charge_status(g->method, t);
    }
    if (g->is_transformed) {
        finish_transformed(g);
        return FILTER_TRAILERS_CONTINUE;
    }
    struct buf BUF_AUTO frame, BUF_AUTO text;
    buf_init(&frame);
    buf_init(&text);
    write_trailers(t, &frame);
    headers_init(t, t->arena);
    if (g->is_text_response) {
        encode_bytes(g, SV(""), true, &text);
        base64_encode(&text, buf_pullup(&frame, buf_len(&frame)), BASE64_STANDARD);
    }
    http_add_encoded_data(f, g->is_text_response ? &text : &frame, true);
    return FILTER_TRAILERS_CONTINUE;
}

const struct http_filter_type grpc_web_http_filter = {
    .name = "envoy.filters.http.grpc_web",
    .type_url = "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb",
    .route_type_url = "",
    .stream_size = sizeof(struct grpc_web),
    .compile = grpc_web_compile,
    .init = grpc_web_init,
    .decode_headers = grpc_web_decode_headers,
    .decode_data = grpc_web_decode_data,
    .encode_headers = grpc_web_encode_headers,
    .encode_data = grpc_web_encode_data,
    .encode_trailers = grpc_web_encode_trailers,
    .destroy = grpc_web_destroy,
};
