/* The compressor: what is compressed and by which filter of a chain, and that it can be undone. */
#include <brotli/decode.h>
#include <zlib.h>
#include <zstd.h>

#include "proxy/api/registry.h"
#include "tests/support/fake_stream.h"

extern const struct http_filter_type compressor_http_filter;

#define COMPRESSOR "envoy.extensions.filters.http.compressor.v3.Compressor"
#define PER_ROUTE "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute"
#define LIBRARY(name, type, fields)                                              \
    "compressor_library { name: '" name "' typed_config { [type.googleapis.com/" \
    "envoy.extensions.compression." type "] { " fields " } } } "
#define GZIP LIBRARY("lib", "gzip.compressor.v3.Gzip", "")
#define BROTLI LIBRARY("lib", "brotli.compressor.v3.Brotli", "")
#define ZSTD LIBRARY("lib", "zstd.compressor.v3.Zstd", "")
#define CHAIN_MAX 4
#define TYPE "content-type: text/plain\n"
#define LONG "content-length: 1200\n"

static const struct http_filter_type *const filters[] = {&compressor_http_filter};
static const struct registry registry = {.http_filters = filters, .http_filters_n = 1};
static struct fake_compile f;
/* The compressors of the one stream, in the order of decoding. */
static struct http_filter *chain[CHAIN_MAX];
static unsigned chain_n;

struct http_filter *http_filter_like(struct http_filter *filter, unsigned i) {
    (void)filter;
    return i < chain_n ? chain[i] : NULL;
}

static int start(void **state) {
    (void)state;
    fake_compile_init(&f, &registry);
    f.ctx.stats = stats_store_new(4);
    return 0;
}

static int end(void **state) {
    (void)state;
    struct stats_store *stats = f.ctx.stats;
    fake_compile_fini(&f);
    stats_store_free(stats);
    return 0;
}

static const void *config(const char *text) {
    return compressor_http_filter.compile(&f.ctx, fake_msg(&f, COMPRESSOR, text));
}

static const void *route_config(const char *text) {
    return compressor_http_filter.compile_route(&f.ctx, fake_msg(&f, PER_ROUTE, text), PER_ROUTE);
}

/* --- one stream through a chain --- */

static void stream_start(struct stream *s, const char *const *configs, const char *request) {
    fake_stream_start(s, &compressor_http_filter, config(configs[0]), "h.com", "/", request);
    chain[0] = s->filter;
    for (chain_n = 1; chain_n < CHAIN_MAX && configs[chain_n]; chain_n++) {
        size_t size = compressor_http_filter.stream_size;
        struct http_filter *other = (struct http_filter *)arena_zalloc(&s->arena, size);
        *other = (struct http_filter){
            .type = &compressor_http_filter, .stream = s, .config = config(configs[chain_n])};
        chain[chain_n] = other;
    }
}

static void stream_end(struct stream *s) {
    for (unsigned i = 1; i < chain_n; i++) {
        chain[i]->type->destroy(chain[i]);
    }
    fake_stream_end(s);
    chain_n = 0;
}

static void request(struct stream *s, bool end_stream) {
    for (unsigned i = 0; i < chain_n; i++) {
        assert_int_equal(compressor_http_filter.decode_headers(chain[i], &s->request, end_stream),
                         FILTER_HEADERS_CONTINUE);
    }
}

static void response(struct stream *s, unsigned status, const char *more, bool end_stream) {
    s->filter = chain[chain_n - 1];
    fake_stream_respond(s, status, more, end_stream);
    s->filter = chain[0];
    for (unsigned i = chain_n - 1; i-- > 0;) {
        compressor_http_filter.encode_headers(chain[i], &s->response, end_stream);
    }
}

/* --- undoing --- */

static size_t gunzip(sv in, char *out, size_t size) {
    z_stream z = {.next_in = (Bytef *)(uintptr_t)in.p, .avail_in = (uInt)in.n};
    assert_int_equal(inflateInit2(&z, 15 + 16), Z_OK);
    z.next_out = (Bytef *)out;
    z.avail_out = (uInt)size;
    int r = inflate(&z, Z_SYNC_FLUSH);
    assert_true(r == Z_OK || r == Z_STREAM_END || r == Z_BUF_ERROR);
    inflateEnd(&z);
    return size - z.avail_out;
}

static size_t unbrotli(sv in, char *out, size_t size) {
    BrotliDecoderState *d = BrotliDecoderCreateInstance(NULL, NULL, NULL);
    const uint8_t *next_in = (const uint8_t *)in.p;
    uint8_t *next_out = (uint8_t *)out;
    size_t left_in = in.n, left_out = size;
    BrotliDecoderResult r =
        BrotliDecoderDecompressStream(d, &left_in, &next_in, &left_out, &next_out, NULL);
    assert_int_not_equal(r, BROTLI_DECODER_RESULT_ERROR);
    BrotliDecoderDestroyInstance(d);
    return size - left_out;
}

static size_t unzstd(sv in, char *out, size_t size) {
    ZSTD_DCtx *d = ZSTD_createDCtx();
    ZSTD_inBuffer src = {in.p, in.n, 0};
    ZSTD_outBuffer dst = {out, size, 0};
    while (src.pos < src.size) {
        assert_false(ZSTD_isError(ZSTD_decompressStream(d, &dst, &src)));
    }
    ZSTD_freeDCtx(d);
    return dst.pos;
}

static size_t undo(sv encoding, sv in, char *out, size_t size) {
    return sv_is(encoding, "gzip") ? gunzip(in, out, size)
           : sv_is(encoding, "br") ? unbrotli(in, out, size)
                                   : unzstd(in, out, size);
}

/* --- decisions --- */

static const struct decision_case {
    const char *config;
    const char *request, *response;
    unsigned status;
    const char *want; /* content-encoding; NULL: none */
    const char *vary;
} decisions[] = {
#define OK_REQUEST "accept-encoding: gzip"
    {GZIP, OK_REQUEST, TYPE LONG, 200, "gzip", "Accept-Encoding"},
    {BROTLI, "accept-encoding: br", TYPE LONG, 200, "br", "Accept-Encoding"},
    {ZSTD, "accept-encoding: *", TYPE LONG, 200, "zstd", "Accept-Encoding"},
    {GZIP, "accept-encoding: br\naccept-encoding: gzip", TYPE LONG, 200, "gzip", "Accept-Encoding"},
    {GZIP, OK_REQUEST, TYPE, 200, "gzip", "Accept-Encoding"},
    {GZIP, OK_REQUEST, LONG, 200, "gzip", "Accept-Encoding"},
    {GZIP, OK_REQUEST, "content-type: TEXT/html; charset=x\n" LONG, 200, "gzip", "Accept-Encoding"},
    {GZIP, OK_REQUEST, TYPE "content-length: 30", 200, "gzip", "Accept-Encoding"},
    {GZIP, OK_REQUEST, TYPE LONG "vary: origin", 200, "gzip", "origin, Accept-Encoding"},
    {GZIP, OK_REQUEST, TYPE LONG "vary: a\nvary: b", 200, "gzip", "a,b, Accept-Encoding"},
    {GZIP, OK_REQUEST, TYPE LONG "vary: x, Accept-Encoding", 200, "gzip", "x, Accept-Encoding"},
    {GZIP, OK_REQUEST, TYPE LONG "cache-control: private", 200, "gzip", "Accept-Encoding"},
    /* the client does not want it, but another one might */
    {GZIP, NULL, TYPE LONG, 200, NULL, "Accept-Encoding"},
    {GZIP, "accept-encoding: br", TYPE LONG, 200, NULL, "Accept-Encoding"},
    {GZIP, "accept-encoding: identity", TYPE LONG, 200, NULL, "Accept-Encoding"},
    {GZIP, "accept-encoding: ", TYPE LONG, 200, NULL, "Accept-Encoding"},
    {GZIP, OK_REQUEST, TYPE LONG "transfer-encoding: gzip, chunked", 200, NULL, "Accept-Encoding"},
    /* the response cannot be compressed */
    {GZIP, OK_REQUEST, TYPE "content-length: 29", 200, NULL, NULL},
    {GZIP, OK_REQUEST, TYPE "content-length: x", 200, NULL, NULL},
    {GZIP, OK_REQUEST, "content-type: image/png\n" LONG, 200, NULL, NULL},
    {GZIP, OK_REQUEST, TYPE LONG "content-encoding: br", 200, "br", NULL},
    {GZIP, OK_REQUEST, TYPE LONG "cache-control: a, No-Transform", 200, NULL, NULL},
    /* older fields */
    {GZIP "content_length { value: 2000 }", OK_REQUEST, TYPE LONG, 200, NULL, NULL},
    {GZIP "content_type: 'image/png'", OK_REQUEST, TYPE LONG, 200, NULL, NULL},
    {GZIP "content_type: 'image/PNG'", OK_REQUEST, "content-type: image/png", 200, "gzip",
     "Accept-Encoding"},
    {GZIP "disable_on_etag_header: true", OK_REQUEST, TYPE LONG "etag: x", 200, NULL, NULL},
    {GZIP "runtime_enabled { default_value { value: false } runtime_key: 'no' }", OK_REQUEST,
     TYPE LONG, 200, NULL, NULL},
    /* and where they moved, when they do not count any more */
    {GZIP "response_direction_config { common_config { min_content_length { value: 2000 } } }",
     OK_REQUEST, TYPE LONG, 200, NULL, NULL},
    {GZIP "response_direction_config { common_config { content_type: 'a/b' } }", OK_REQUEST,
     TYPE LONG, 200, NULL, NULL},
    {GZIP "response_direction_config { disable_on_etag_header: true }", OK_REQUEST,
     TYPE LONG "etag: x", 200, NULL, NULL},
    {GZIP "response_direction_config { common_config { enabled { default_value { value: false } "
          "runtime_key: 'no' } } }",
     OK_REQUEST, TYPE LONG, 200, NULL, NULL},
    {GZIP "content_length { value: 2000 } response_direction_config { }", OK_REQUEST, TYPE LONG,
     200, "gzip", "Accept-Encoding"},
    {GZIP "response_direction_config { uncompressible_response_codes: 206 }", OK_REQUEST, TYPE LONG,
     206, NULL, NULL},
    {GZIP "response_direction_config { uncompressible_response_codes: 206 }", OK_REQUEST, TYPE LONG,
     200, "gzip", "Accept-Encoding"},
};

static const char *text_of(const struct headers *h, enum header_id id) {
    static char out[128];
    sv v = headers_get(h, id);
    snprintf(out, sizeof(out), "%.*s", SV_ARG(v));
    return v.p ? out : NULL;
}

static bool same(const char *a, const char *b) { return a && b ? strcmp(a, b) == 0 : a == b; }

static void responses(void **state) {
    (void)state;
    for (size_t row = 0; row < ARRAY_LEN(decisions); row++) {
        const struct decision_case *c = &decisions[row];
        struct stream s;
        stream_start(&s, (const char *const[]){c->config, NULL}, c->request);
        request(&s, true);
        response(&s, c->status, c->response, false);
        bool compressed = c->want && !strstr(c->response, "content-encoding");
        assert_row(same(text_of(&s.response, HDR_content_encoding), c->want), row);
        assert_row(same(text_of(&s.response, HDR_vary), c->vary), row);
        assert_row(!compressed || !headers_has(&s.response, HDR_content_length), row);
        fake_stream_encode_data(&s, SV("some text"), true);
        assert_row(compressed == (buf_len(&s.sent) != 9), row);
        stream_end(&s);
    }
}

static void no_body_is_left_alone(void **state) {
    (void)state;
    struct stream s;
    stream_start(&s, (const char *const[]){GZIP, NULL}, OK_REQUEST);
    request(&s, true);
    response(&s, 200, TYPE LONG, true);
    assert_false(headers_has(&s.response, HDR_content_encoding));
    assert_sv_is(headers_get(&s.response, HDR_content_length), "1200");
    assert_sv_is(headers_get(&s.response, HDR_vary), "Accept-Encoding");
    stream_end(&s);
}

static void etags(void **state) {
    (void)state;
    const struct {
        bool weaken;
        const char *etag, *want;
    } rows[] = {
        {false, "\"abc\"", NULL},
        {false, "W/\"abc\"", "W/\"abc\""},
        {false, "w/\"a\"", "w/\"a\""},
        {false, "\"\"", NULL},
        {true, "\"abc\"", "W/\"abc\""},
        {true, "W/\"abc\"", "W/\"abc\""},
        {true, "x", "W/x"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        const char *text = rows[i].weaken ? GZIP
                               "response_direction_config { weaken_etag_on_compress: true }"
                                          : GZIP;
        stream_start(&s, (const char *const[]){text, NULL}, OK_REQUEST);
        request(&s, true);
        char more[128];
        snprintf(more, sizeof(more), TYPE LONG "etag: %s", rows[i].etag);
        response(&s, 200, more, false);
        assert_row(same(text_of(&s.response, HDR_etag), rows[i].want), i);
        stream_end(&s);
    }
}

/* --- bodies --- */

static void round_trip(const char *library, sv encoding, size_t frame_bytes, size_t frames) {
    struct stream s;
    char header[64], *text = xcalloc(frames, frame_bytes), *got = xcalloc(frames + 1, frame_bytes);
    struct rng r;
    rng_seed(&r, frame_bytes);
    for (size_t i = 0; i < frames * frame_bytes; i++) {
        text[i] = (char)('a' + rng_u64(&r) % 20);
    }
    snprintf(header, sizeof(header), "accept-encoding: %.*s", SV_ARG(encoding));
    stream_start(&s, (const char *const[]){library, NULL}, header);
    request(&s, true);
    response(&s, 200, TYPE, false);
    for (size_t i = 1; i <= frames; i++) {
        sv frame = sv_from(text + (i - 1) * frame_bytes, frame_bytes);
        assert_int_equal(fake_stream_encode_data(&s, frame, i == frames), FILTER_DATA_CONTINUE);
        /* everything that went in can be read already */
        size_t n =
            undo(encoding, buf_pullup(&s.sent, buf_len(&s.sent)), got, (frames + 1) * frame_bytes);
        assert_int_equal(n, i * frame_bytes);
        assert_memory_equal(got, text, n);
    }
    stream_end(&s);
    xfree(text);
    xfree(got);
}

static void bodies_come_back(void **state) {
    (void)state;
    const struct {
        const char *library;
        sv encoding;
    } rows[] = {
        {GZIP, SV("gzip")},
        {BROTLI, SV("br")},
        {ZSTD, SV("zstd")},
        {LIBRARY(
             "g", "gzip.compressor.v3.Gzip",
             "memory_level { value: 9 } window_bits { value: 15 } compression_level: "
             "COMPRESSION_LEVEL_9 compression_strategy: HUFFMAN_ONLY chunk_size { value: 65536 }"),
         SV("gzip")},
        {LIBRARY(
             "g", "gzip.compressor.v3.Gzip",
             "compression_level: BEST_SPEED compression_strategy: FIXED window_bits { value: 9 }"),
         SV("gzip")},
        {LIBRARY("b", "brotli.compressor.v3.Brotli",
                 "quality { value: 11 } encoder_mode: TEXT window_bits { value: 10 } "
                 "input_block_bits { value: 16 } chunk_size { value: 4096 } "
                 "disable_literal_context_modeling: true"),
         SV("br")},
        {LIBRARY("z", "zstd.compressor.v3.Zstd",
                 "compression_level { value: 19 } enable_checksum: true strategy: BTULTRA2 "
                 "chunk_size { value: 4096 }"),
         SV("zstd")},
        {LIBRARY("z", "zstd.compressor.v3.Zstd", "compression_level { value: 1000 }"), SV("zstd")},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        round_trip(rows[i].library, rows[i].encoding, 1, 3);
        round_trip(rows[i].library, rows[i].encoding, 70000, 2);
    }
}

static void trailers_end_the_stream(void **state) {
    (void)state;
    const char *const libraries[] = {GZIP, BROTLI, ZSTD};
    for (size_t i = 0; i < ARRAY_LEN(libraries); i++) {
        struct stream s;
        stream_start(&s, (const char *const[]){libraries[i], NULL}, "accept-encoding: *");
        request(&s, true);
        response(&s, 200, TYPE, false);
        fake_stream_encode_data(&s, SV("text"), false);
        size_t before = buf_len(&s.sent);
        struct headers t;
        headers_init(&t, &s.arena);
        assert_int_equal(compressor_http_filter.encode_trailers(s.filter, &t),
                         FILTER_TRAILERS_CONTINUE);
        assert_true(buf_len(&s.sent) > before);
        stream_end(&s);
    }
}

static void nothing_is_made_of_nothing(void **state) {
    (void)state;
    struct stream s;
    stream_start(&s, (const char *const[]){GZIP, NULL}, OK_REQUEST);
    request(&s, true);
    response(&s, 200, TYPE, false);
    fake_stream_encode_data(&s, SV(""), false);
    assert_int_equal(buf_len(&s.sent), 0);
    fake_stream_encode_data(&s, SV(""), true);
    char out[8];
    assert_int_equal(gunzip(buf_pullup(&s.sent, buf_len(&s.sent)), out, sizeof(out)), 0);
    stream_end(&s);
}

/* --- requests --- */

static void requests(void **state) {
    (void)state;
    const char *on = GZIP "request_direction_config { }";
    const struct {
        const char *config, *request;
        bool ends, want;
    } rows[] = {
        {on, TYPE LONG, false, true},
        {on, TYPE, false, true},
        {GZIP, TYPE LONG, false, false},
        {on, TYPE LONG, true, false},
        {on, TYPE "content-length: 3", false, false},
        {on, "content-type: image/png\n" LONG, false, false},
        {on, TYPE LONG "content-encoding: x", false, false},
        {on, TYPE LONG "transfer-encoding: br", false, false},
        {GZIP "request_direction_config { common_config { content_type: 'a/b' } }", TYPE LONG,
         false, false},
        {GZIP "request_direction_config { common_config { enabled { default_value { value: false } "
              "runtime_key: 'no' } } }",
         TYPE LONG, false, false},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        stream_start(&s, (const char *const[]){rows[i].config, NULL}, rows[i].request);
        request(&s, rows[i].ends);
        bool got = sv_is(headers_get(&s.request, HDR_content_encoding), "gzip");
        assert_row(got == rows[i].want, i);
        assert_row(!got || !headers_has(&s.request, HDR_content_length), i);
        struct buf b;
        buf_init(&b);
        buf_append_sv(&b, SV("request body"));
        compressor_http_filter.decode_data(s.filter, &b, true);
        char out[64] = "";
        size_t n = got ? gunzip(buf_pullup(&b, buf_len(&b)), out, sizeof(out)) : buf_len(&b);
        assert_row(n == 12, i);
        buf_fini(&b);
        stream_end(&s);
    }
}

static void request_trailers_end_the_stream(void **state) {
    (void)state;
    struct stream s;
    stream_start(&s, (const char *const[]){GZIP "request_direction_config { }", NULL}, TYPE);
    request(&s, false);
    struct headers t;
    headers_init(&t, &s.arena);
    compressor_http_filter.decode_trailers(s.filter, &t);
    char out[8];
    assert_int_not_equal(buf_len(&s.decoding), 0);
    assert_int_equal(gunzip(buf_pullup(&s.decoding, buf_len(&s.decoding)), out, sizeof(out)), 0);
    stream_end(&s);
}

static void accept_encoding_is_taken_away(void **state) {
    (void)state;
    const struct {
        const char *config, *route;
        bool is_there;
    } rows[] = {
        {GZIP, NULL, true},
        {GZIP "remove_accept_encoding_header: true", NULL, false},
        {GZIP "response_direction_config { remove_accept_encoding_header: true }", NULL, false},
        {GZIP "remove_accept_encoding_header: true response_direction_config { }", NULL, true},
        {GZIP
         "remove_accept_encoding_header: true runtime_enabled { default_value { value: false } "
         "runtime_key: 'no' }",
         NULL, true},
        {GZIP "remove_accept_encoding_header: true", "disabled: true", true},
        {GZIP,
         "overrides { response_direction_config { remove_accept_encoding_header { value: true } } "
         "}",
         false},
        {GZIP "remove_accept_encoding_header: true",
         "overrides { response_direction_config { remove_accept_encoding_header { value: false } } "
         "}",
         true},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        stream_start(&s, (const char *const[]){rows[i].config, NULL}, OK_REQUEST);
        if (rows[i].route) {
            s.route_configs[s.route_configs_n++] = route_config(rows[i].route);
        }
        request(&s, true);
        assert_row(headers_has(&s.request, HDR_accept_encoding) == rows[i].is_there, i);
        stream_end(&s);
    }
}

/* --- routes and chains --- */

static void routes(void **state) {
    (void)state;
    const char *off = GZIP "runtime_enabled { default_value { value: false } runtime_key: 'no' }";
    const char *brotli = "overrides { " BROTLI " }";
    const struct {
        const char *config, *route, *request, *want;
    } rows[] = {
        {GZIP, "disabled: true", OK_REQUEST, NULL},
        {off, "overrides { }", OK_REQUEST, NULL},
        {off, "overrides { response_direction_config { } }", OK_REQUEST, "gzip"},
        {GZIP, brotli, OK_REQUEST, NULL},
        {GZIP, brotli, "accept-encoding: gzip, br", "br"},
        {GZIP, brotli, "accept-encoding: *", "br"},
        {off, brotli, "accept-encoding: br", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        stream_start(&s, (const char *const[]){rows[i].config, NULL}, rows[i].request);
        s.route_configs[s.route_configs_n++] = route_config(rows[i].route);
        request(&s, true);
        response(&s, 200, TYPE LONG, false);
        assert_row(same(text_of(&s.response, HDR_content_encoding), rows[i].want), i);
        stream_end(&s);
    }
}

static void chains(void **state) {
    (void)state;
    const char *html =
        GZIP "response_direction_config { common_config { content_type: 'text/html' } }";
    const char *large = GZIP "content_length { value: 5000 }";
    const struct {
        const char *configs[CHAIN_MAX];
        const char *request, *want;
    } rows[] = {
        {{BROTLI, ZSTD, GZIP}, "accept-encoding: gzip", "gzip"},
        {{BROTLI, ZSTD, GZIP}, "accept-encoding: zstd, br", "zstd"},
        {{BROTLI, ZSTD, GZIP}, "accept-encoding: *", "br"},
        {{BROTLI, ZSTD, GZIP}, "accept-encoding: deflate", NULL},
        {{BROTLI, ZSTD "choose_first: true", GZIP}, "accept-encoding: gzip, zstd, br", "zstd"},
        {{html, BROTLI}, "accept-encoding: gzip, br", "br"}, /* gzip would not take the type */
        {{large, GZIP}, "accept-encoding: gzip", "gzip"},
        {{GZIP, large}, "accept-encoding: gzip", "gzip"},
        {{GZIP "remove_accept_encoding_header: true", BROTLI}, "accept-encoding: br", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        stream_start(&s, rows[i].configs, rows[i].request);
        request(&s, true);
        response(&s, 200, TYPE LONG, false);
        assert_row(same(text_of(&s.response, HDR_content_encoding), rows[i].want), i);
        stream_end(&s);
    }
}

/* --- what is told --- */

#define TELLING "response_direction_config { status_header_enabled: true "
#define STRICT TELLING "disable_on_etag_header: true uncompressible_response_codes: 206 }"

static void status_header(void **state) {
    (void)state;
    const struct {
        const char *request, *response;
        unsigned status;
        const char *want;
    } rows[] = {
        {OK_REQUEST, TYPE LONG, 200, "gzip;Compressed;OriginalLength=1200"},
        {OK_REQUEST, TYPE, 200, "gzip;Compressed;OriginalLength="},
        {NULL, TYPE LONG, 200, NULL},
        {"accept-encoding: br", TYPE LONG, 200, NULL},
        {OK_REQUEST, "content-length: 1\netag: x", 206, "gzip;ContentLengthTooSmall"},
        {NULL, "content-type: a/b\netag: x", 206, "gzip;ContentTypeNotAllowed"},
        {OK_REQUEST, TYPE "etag: x", 206, "gzip;EtagNotAllowed"},
        {OK_REQUEST, TYPE, 206, "gzip;StatusCodeNotAllowed"},
        {OK_REQUEST, "content-length: 1\ncache-control: no-transform", 200, NULL},
        {OK_REQUEST, "content-length: 1\ncontent-encoding: x", 200, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        stream_start(&s, (const char *const[]){GZIP STRICT, NULL}, rows[i].request);
        request(&s, true);
        response(&s, rows[i].status, rows[i].response, false);
        sv got = headers_get_name(&s.response, SV("x-envoy-compression-status"));
        assert_row(rows[i].want ? sv_is(got, rows[i].want) : !got.p, i);
        stream_end(&s);
    }
}

static void each_filter_tells_its_own(void **state) {
    (void)state;
    struct stream s;
    stream_start(&s,
                 (const char *const[]){
                     GZIP TELLING "}",
                     BROTLI TELLING "common_config { min_content_length { value: 2000 } } }", NULL},
                 "accept-encoding: gzip");
    request(&s, true);
    response(&s, 200, TYPE LONG, false);
    sv got = headers_joined(&s.response, HDR_OTHER, SV("x-envoy-compression-status"), &s.arena);
    assert_sv_is(got, "br;ContentLengthTooSmall,gzip;Compressed;OriginalLength=1200");
    stream_end(&s);
}

/* --- stats --- */

extern const struct stats_group compressor_direction_stats_group, compressor_choice_stats_group;

static uint64_t counted(const struct stats_group *g, const char *prefix, const char *name) {
    struct stats_scope *sc = stats_scope_get(f.ctx.stats, g, sv_cstr(prefix));
    uint64_t value = UINT64_MAX;
    for (unsigned i = 0; i < g->n; i++) {
        if (strcmp(g->defs[i].name, name) == 0) {
            value = stats_scope_value(sc, i);
        }
    }
    stats_scope_unref(sc);
    return value;
}
#define PREFIX "http.test.compressor.lib.gzip."
#define COUNTED(below, name) counted(&compressor_direction_stats_group, PREFIX below, name)
#define CHOSEN(name) counted(&compressor_choice_stats_group, PREFIX, name)

static void counts(void **state) {
    (void)state;
    const char *const plain[] = {GZIP, NULL};
    const char *const moved[] = {GZIP "response_direction_config { disable_on_etag_header: true }",
                                 NULL};
    const struct {
        const char *const *config;
        const char *request, *response;
    } runs[] = {
        {plain, OK_REQUEST, TYPE LONG},
        {plain, NULL, TYPE LONG},
        {plain, "accept-encoding: identity", TYPE LONG},
        {plain, "accept-encoding: *", TYPE LONG},
        {plain, "accept-encoding: deflate", TYPE LONG},
        {plain, OK_REQUEST, TYPE "content-length: 1"},
        {moved, OK_REQUEST, TYPE LONG "etag: x"},
        {moved, OK_REQUEST, TYPE LONG},
    };
    for (size_t i = 0; i < ARRAY_LEN(runs); i++) {
        struct stream s;
        stream_start(&s, runs[i].config, runs[i].request);
        request(&s, true);
        response(&s, 200, runs[i].response, false);
        fake_stream_encode_data(&s, SV("0123456789"), true);
        stream_end(&s);
    }
    assert_int_equal(COUNTED("", "compressed"), 2);
    assert_int_equal(COUNTED("", "not_compressed"), 4);
    assert_int_equal(COUNTED("", "content_length_too_small"), 1);
    assert_int_equal(COUNTED("", "total_uncompressed_bytes"), 20);
    assert_true(COUNTED("", "total_compressed_bytes") > 20);
    assert_int_equal(COUNTED("response.", "compressed"), 1);
    assert_int_equal(COUNTED("response.", "not_compressed"), 1);
    assert_int_equal(COUNTED("request.", "not_compressed"), 8);
    assert_int_equal(CHOSEN("header_compressor_used"), 3);
    assert_int_equal(CHOSEN("no_accept_header"), 1);
    assert_int_equal(CHOSEN("header_identity"), 1);
    assert_int_equal(CHOSEN("header_wildcard"), 1);
    assert_int_equal(CHOSEN("header_not_valid"), 1);
    assert_int_equal(CHOSEN("not_compressed_etag"), 1);
    assert_int_equal(CHOSEN("header_compressor_overshadowed"), 0);
}

/* --- compiling --- */

static void refused(void **state) {
    (void)state;
    assert_null(
        config("compressor_library { name: 'x' typed_config { [type.googleapis.com/" PER_ROUTE
               "] { disabled: true } } }"));
    assert_true(
        sv_contains(fake_errors(&f), SV("Didn't find a registered implementation for 'x'")));
    assert_null(config(LIBRARY("x", "gzip.compressor.v3.Gzip", "window_bits { value: 16 }")));
    assert_true(sv_starts(fake_errors(&f), SV("compressor_library.typed_config.window_bits")));
    assert_null(config(LIBRARY("x", "brotli.compressor.v3.Brotli", "quality { value: 12 }")));
    assert_true(sv_starts(fake_errors(&f), SV("compressor_library.typed_config.quality")));
    assert_null(config(LIBRARY("x", "zstd.compressor.v3.Zstd", "chunk_size { value: 1 }")));
    assert_true(sv_starts(fake_errors(&f), SV("compressor_library.typed_config.chunk_size")));
    assert_null(route_config(
        "overrides { " LIBRARY("x", "gzip.compressor.v3.Gzip", "memory_level { value: 10 }") " }"));
    assert_true(sv_starts(fake_errors(&f), SV("overrides.compressor_library.typed_config.memory")));
}

static void dictionaries(void **state) {
    (void)state;
    const char *text = LIBRARY("z", "zstd.compressor.v3.Zstd",
                               "dictionary { inline_string: 'a few words that come again' }");
    struct stream s;
    stream_start(&s, (const char *const[]){text, NULL}, "accept-encoding: zstd");
    request(&s, true);
    response(&s, 200, TYPE, false);
    fake_stream_encode_data(&s, SV("words that come again"), true);
    char out[64];
    ZSTD_DCtx *d = ZSTD_createDCtx();
    sv words = SV("a few words that come again"), sent = buf_pullup(&s.sent, buf_len(&s.sent));
    size_t n = ZSTD_decompress_usingDict(d, out, sizeof(out), sent.p, sent.n, words.p, words.n);
    assert_int_equal(n, 21);
    ZSTD_freeDCtx(d);
    stream_end(&s);
}

int main(void) {
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, start, end)
    const struct CMUnitTest tests[] = {
        TEST(responses),
        TEST(no_body_is_left_alone),
        TEST(etags),
        TEST(bodies_come_back),
        TEST(trailers_end_the_stream),
        TEST(nothing_is_made_of_nothing),
        TEST(requests),
        TEST(request_trailers_end_the_stream),
        TEST(accept_encoding_is_taken_away),
        TEST(routes),
        TEST(chains),
        TEST(status_header),
        TEST(each_filter_tells_its_own),
        TEST(counts),
        TEST(refused),
        TEST(dictionaries),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
