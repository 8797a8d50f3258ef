/* gRPC-Web: bodies of clients and servers in pieces. A text's or a message's pieces make no
 * difference to what passes.
 * Input: one byte for the direction and form, one for the size of pieces, then the body. */
/* link: -lcmocka */
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

extern const struct http_filter_type grpc_web_http_filter;
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

enum { IS_RESPONSE = 1, IS_TEXT = 2, IS_NO_GRPC = 4, HAS_TRAILERS = 8 };

static void open_stream(struct stream *s, unsigned flags, const void *config) {
    bool is_text = flags & IS_TEXT;
    fake_stream_start(s, &grpc_web_http_filter, config, "h.com", "/pkg.S/M",
                      is_text ? "content-type: application/grpc-web-text\naccept: "
                                "application/grpc-web-text"
                              : "content-type: application/grpc-web");
    fake_stream_decode(s, false);
    if (flags & IS_RESPONSE) {
        fake_stream_respond(s, 200,
                            flags & IS_NO_GRPC ? "content-type: text/html"
                                               : "content-type: application/grpc",
                            false);
    }
}

static void encode(struct stream *s, unsigned flags, size_t piece, sv rest) {
    while (rest.n) {
        sv part = sv_sub(rest, 0, piece);
        rest = sv_skip(rest, part.n);
        fake_stream_encode_data(s, part, rest.n == 0 && !(flags & HAS_TRAILERS));
    }
    if (flags & HAS_TRAILERS) {
        struct headers t;
        headers_init(&t, &s->arena);
        headers_add_copy(&t, SV("grpc-status"), SV("0"));
        grpc_web_http_filter.encode_trailers(s->filter, &t);
    }
}

static void decode(struct stream *s, size_t piece, sv rest) {
    while (rest.n && !s->local_status) {
        struct buf b;
        sv part = sv_sub(rest, 0, piece);
        rest = sv_skip(rest, part.n);
        buf_init(&b);
        buf_append_sv(&b, part);
        if (grpc_web_http_filter.decode_data(s->filter, &b, rest.n == 0) == FILTER_DATA_CONTINUE) {
            buf_move(&s->decoding, &b);
        }
        buf_fini(&b);
    }
}

/* What passed, to be freed. */
static char *run(unsigned flags, size_t piece, sv body, const void *config, unsigned *status) {
    struct stream s;
    open_stream(&s, flags, config);
    if (flags & IS_RESPONSE) {
        encode(&s, flags, piece, body);
    } else {
        decode(&s, piece, body);
    }
    *status = s.local_status;
    BUF_AUTO struct buf passed = {0};
    struct buf *from = flags & IS_RESPONSE ? &s.sent : &s.decoding;
    size_t n = buf_len(from);
    buf_append(&passed, &n, sizeof(n));
    buf_move(&passed, from);
    char *out = buf_dup_str(&passed);
    if (s.has_response) {
        HEADERS_FOREACH (it, &s.response) {
            CHECK(header_value_valid(it->value));
        }
    }
    fake_stream_end(&s);
    return out;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    static const void *config;
    if (!config) {
        start_with_stats(NULL);
        config = grpc_web_http_filter.compile(
            &f.ctx, fake_msg(&f, "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb", ""));
        CHECK(config);
    }
    if (n < 3) {
        return 0;
    }
    sv body = sv_from(data + 2, n - 2);
    unsigned by_piece, as_whole;
    char *pieces = run(data[0], data[1] % 32 + 1u, body, config, &by_piece);
    char *whole = run(data[0], SIZE_MAX, body, config, &as_whole);
    CHECK((by_piece != 0) == (as_whole != 0));
    size_t length;
    memcpy(&length, whole, sizeof(length));
    CHECK(by_piece || memcmp(pieces, whole, sizeof(length) + length) == 0);
    xfree(pieces);
    xfree(whole);
    chunk_cache_trim();
    return 0;
}
