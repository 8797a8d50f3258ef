/* gRPC-Web: text that comes in pieces, frames and their ends, bodies that are no gRPC, what is left
 * alone. Beside a real Envoy: tests/parity/test_grpc_web.py. */
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

extern const struct http_filter_type grpc_web_http_filter;

#define WEB "content-type: application/grpc-web"
#define TEXT "content-type: application/grpc-web-text"
#define WANTS_TEXT "\naccept: application/grpc-web-text"
#define GRPC "content-type: application/grpc"

static struct stream s;
static const void *config;

static void begin(const char *request) {
    fake_stream_start(&s, &grpc_web_http_filter, config, "h.com", "/pkg.S/M", request);
    assert_int_equal(fake_stream_decode(&s, false), FILTER_HEADERS_CONTINUE);
}
static int setup(void **state) {
    start_with_stats(state);
    config = grpc_web_http_filter.compile(
        &f.ctx, fake_msg(&f, "envoy.extensions.filters.http.grpc_web.v3.GrpcWeb", ""));
    assert_non_null(config);
    return 0;
}

/* Decode `text` in pieces of `piece` bytes; "!" for a refusal. */
static sv decode(const char *text, size_t piece) {
    sv rest = sv_cstr(text), out = SV("");
    begin(TEXT);
    do {
        sv part = sv_sub(rest, 0, piece);
        struct buf b;
        rest = sv_skip(rest, part.n);
        buf_init(&b);
        buf_append_sv(&b, part);
        enum filter_data_status st = grpc_web_http_filter.decode_data(s.filter, &b, rest.n == 0);
        if (st == FILTER_DATA_CONTINUE) {
            out = arena_printf(&f.arena, "%.*s%.*s", SV_ARG(out),
                               SV_ARG(buf_pullup(&b, buf_len(&b))));
        }
        buf_fini(&b);
    } while (rest.n && !s.local_status);
    out = s.local_status == 400 ? arena_printf(&f.arena, "!%.*s", SV_ARG(s.local_details)) : out;
    fake_stream_end(&s);
    return out;
}

static void test_text_requests(void **state) {
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"", ""},
        {"aGVsbG8=", "hello"},
        {"aGVsbG8gd29ybGQ=", "hello world"},
        {"YQ==YmM=ZGVm", "abcdef"},
        {"a", "!grpc_base_64_decode_failed_bad_size"},
        {"aGVsbG8", "!grpc_base_64_decode_failed_bad_size"},
        {"!!!!", "!grpc_base_64_decode_failed"},
        {"====", "!grpc_base_64_decode_failed"},
        {"A===", "!grpc_base_64_decode_failed"},
        {"YQ==Y=Q=", "!grpc_base_64_decode_failed"},
        {"aGVs\nbG8", "!grpc_base_64_decode_failed"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        for (size_t piece = 1; piece < 20; piece++) {
            sv got = decode(rows[i].text, piece);
            /* which fault is seen first depends on pieces */
            bool is_refused = *rows[i].want == '!';
            if (is_refused ? !sv_starts(got, SV("!")) : !sv_is(got, rows[i].want)) {
                fail_msg("%s by %zu: %.*s", rows[i].text, piece, SV_ARG(got));
            }
        }
        assert_true(sv_is(decode(rows[i].text, 100), rows[i].want));
    }
}

static void test_request_headers(void **state) {
    (void)state;
    begin(TEXT "\ncontent-length: 8\ngrpc-accept-encoding: gzip");
    assert_false(headers_has(&s.request, HDR_content_length));
    assert_true(sv_is(headers_get(&s.request, HDR_content_type), "application/grpc"));
    assert_true(sv_is(headers_get(&s.request, HDR_te), "trailers"));
    assert_true(sv_is(headers_get_name(&s.request, SV("grpc-accept-encoding")), "gzip"));
    fake_stream_end(&s);
    static const char *const left_alone[] = {GRPC, "content-type: text/plain", WEB "+json",
                                             "content-type: Application/grpc-web", NULL};
    for (size_t i = 0; i < ARRAY_LEN(left_alone); i++) {
        begin(left_alone[i]);
        assert_false(headers_has(&s.request, HDR_te));
        fake_stream_respond(&s, 200, "content-type: text/plain\ncontent-length: 1", false);
        assert_true(headers_has(&s.response, HDR_content_length));
        fake_stream_encode_data(&s, SV("x"), true);
        assert_int_equal(buf_len(&s.sent), 1);
        fake_stream_end(&s);
    }
}

#define FRAME_A "\0\0\0\0\1a"
#define FRAME_EMPTY "\0\0\0\0\0"
#define BODY SV(FRAME_A FRAME_EMPTY "\0\0\0\0\4bcde")

/* The same text whatever the pieces: each frame encoded for itself. */
static void test_text_responses(void **state) {
    (void)state;
    for (size_t piece = 1; piece <= 20; piece++) {
        begin(WEB WANTS_TEXT);
        fake_stream_respond(&s, 200, GRPC, false);
        for (sv rest = BODY; rest.n; rest = sv_skip(rest, piece)) {
            fake_stream_encode_data(&s, sv_sub(rest, 0, piece), false);
        }
        struct headers t;
        headers_init(&t, &s.arena);
        headers_add_copy(&t, SV("grpc-status"), SV("0"));
        headers_add_copy(&t, SV("x-a"), SV("b c"));
        assert_int_equal(grpc_web_http_filter.encode_trailers(s.filter, &t),
                         FILTER_TRAILERS_CONTINUE);
        assert_int_equal(headers_count(&t), 0);
        sv got = buf_pullup(&s.sent, buf_len(&s.sent));
        assert_true(
            sv_is(got, "AAAAAAFhAAAAAAA=AAAAAARiY2RlgAAAABhncnBjLXN0YXR1czowDQp4LWE6YiBjDQo="));
        fake_stream_end(&s);
    }
}

/* A message that is cut off is passed on as far as it came. */
static void test_cut_off(void **state) {
    (void)state;
    begin(WEB WANTS_TEXT);
    fake_stream_respond(&s, 200, GRPC, false);
    fake_stream_encode_data(&s, SV("\0\0\0\0\7a"), false);
    fake_stream_encode_data(&s, SV("b"), true);
    assert_true(sv_is(buf_pullup(&s.sent, buf_len(&s.sent)), "AAAAAAdhYg=="));
    fake_stream_end(&s);
}

static void test_trailers_frame(void **state) {
    (void)state;
    struct headers t;
    begin(WEB);
    fake_stream_respond(&s, 200, GRPC "\ncontent-length: 6", false);
    assert_true(sv_is(headers_get(&s.response, HDR_content_type), "application/grpc-web+proto"));
    assert_false(headers_has(&s.response, HDR_content_length));
    fake_stream_encode_data(&s, SV(FRAME_A), false);
    headers_init(&t, &s.arena);
    grpc_web_http_filter.encode_trailers(s.filter, &t);
    assert_true(sv_eq(buf_pullup(&s.sent, buf_len(&s.sent)), SV(FRAME_A "\x80\0\0\0\0")));
    fake_stream_end(&s);
}

static void test_what_is_no_grpc(void **state) {
    (void)state;
    static const struct {
        unsigned status;
        const char *grpc_status;
    } rows[] = {{200, "2"},  {400, "13"}, {401, "16"}, {403, "7"},  {404, "12"},
                {429, "14"}, {500, "2"},  {502, "14"}, {503, "14"}, {504, "14"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        begin(WEB);
        fake_stream_respond(&s, rows[i].status, "content-type: text/html", false);
        assert_int_equal(fake_stream_encode_data(&s, SV("50% "), false),
                         FILTER_DATA_STOP_NO_BUFFER);
        assert_int_equal(fake_stream_encode_data(&s, SV("\n\xe9"), true), FILTER_DATA_CONTINUE);
        assert_true(sv_is(headers_get(&s.response, HDR_grpc_status), rows[i].grpc_status));
        assert_true(sv_is(headers_get(&s.response, HDR_grpc_message), "50%25 %0A%E9"));
        assert_true(sv_is(headers_get(&s.response, HDR_content_length), "0"));
        assert_int_equal(buf_len(&s.sent), 0);
        fake_stream_end(&s);
    }
}

/* Of a body without end only the start is kept. */
static void test_long_body(void **state) {
    (void)state;
    char chunk[1000];
    memset(chunk, 'x', sizeof chunk);
    begin(WEB);
    fake_stream_respond(&s, 200, "content-type: text/plain", false);
    for (unsigned i = 0; i < 100; i++) {
        fake_stream_encode_data(&s, sv_from(chunk, sizeof chunk), i == 99);
    }
    assert_int_equal(headers_get(&s.response, HDR_grpc_message).n, 16384);
    fake_stream_end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_text_requests, setup, end),
        cmocka_unit_test_setup_teardown(test_request_headers, setup, end),
        cmocka_unit_test_setup_teardown(test_text_responses, setup, end),
        cmocka_unit_test_setup_teardown(test_cut_off, setup, end),
        cmocka_unit_test_setup_teardown(test_trailers_frame, setup, end),
        cmocka_unit_test_setup_teardown(test_what_is_no_grpc, setup, end),
        cmocka_unit_test_setup_teardown(test_long_body, setup, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
