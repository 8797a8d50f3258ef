/* grpc_http1_bridge: which responses are kept, and what their trailers become. */
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

extern const struct http_filter_type grpc_http1_bridge_http_filter;
static const struct http_filter_type *const type = &grpc_http1_bridge_http_filter;

#define GRPC "content-type: application/grpc"

static struct stream *begin(struct stream *s, enum http_protocol protocol, const char *headers) {
    const void *c = type->compile(&f.ctx, fake_msg(&f, type->type_url, ""));
    assert_non_null(c);
    fake_stream_start(s, type, c, "h.com", "/a.B/C", headers);
    s->info.protocol = (uint8_t)protocol;
    s->info.has_protocol = true;
    assert_int_equal(fake_stream_decode(s, true), FILTER_HEADERS_CONTINUE);
    return s;
}

static void bridged(void **state) {
    (void)state;
    static const struct {
        const char *status, *message; /* in trailers; NULL: not there */
        unsigned want;
    } rows[] = {{"0", NULL, 200},  {"14", "no", 503}, {"x", NULL, 503},
                {NULL, NULL, 200}, {"", NULL, 503},   {NULL, "only", 200}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        struct headers t;
        begin(&s, HTTP_11, GRPC "+proto");
        fake_stream_respond(&s, 200, GRPC, false);
        assert_int_equal(type->encode_headers(s.filter, &s.response, false), FILTER_HEADERS_STOP);
        assert_int_equal(fake_stream_encode_data(&s, SV("abc"), false), FILTER_DATA_STOP_BUFFER);
        headers_init(&t, &s.arena);
        if (rows[i].status) {
            headers_add_copy(&t, SV("grpc-status"), sv_cstr(rows[i].status));
        }
        if (rows[i].message) {
            headers_add_copy(&t, SV("grpc-message"), sv_cstr(rows[i].message));
        }
        assert_int_equal(type->encode_trailers(s.filter, &t), FILTER_TRAILERS_CONTINUE);
        assert_int_equal(headers_status(&s.response), rows[i].want);
        sv status = headers_get_name(&s.response, SV("grpc-status"));
        sv message = headers_get_name(&s.response, SV("grpc-message"));
        assert_true(rows[i].status ? sv_is(status, rows[i].status) : !status.p);
        assert_true(rows[i].message ? sv_is(message, rows[i].message) : !message.p);
        assert_true(sv_is(headers_get_name(&s.response, SV("content-length")), "3"));
        fake_stream_end(&s);
    }
}

static void passed(void **state) {
    (void)state;
    static const struct {
        enum http_protocol protocol;
        const char *headers;
    } rows[] = {{HTTP_2, GRPC},
                {HTTP_11, "content-type: application/json"},
                {HTTP_11, "content-type: application/grpc-web"},
                {HTTP_11, "x: y"}};
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        begin(&s, rows[i].protocol, rows[i].headers);
        fake_stream_respond(&s, 200, GRPC, false);
        assert_int_equal(type->encode_headers(s.filter, &s.response, false),
                         FILTER_HEADERS_CONTINUE);
        assert_int_equal(fake_stream_encode_data(&s, SV("abc"), false), FILTER_DATA_CONTINUE);
        assert_int_equal(type->encode_trailers(s.filter, NULL), FILTER_TRAILERS_CONTINUE);
        fake_stream_end(&s);
    }
}

static void without_trailers(void **state) {
    (void)state;
    struct stream s;
    begin(&s, HTTP_11, GRPC);
    assert_int_equal(type->encode_headers(s.filter, &s.response, true), FILTER_HEADERS_CONTINUE);
    assert_int_equal(fake_stream_encode_data(&s, SV("abc"), true), FILTER_DATA_CONTINUE);
    fake_stream_end(&s);
}

static void refused(void **state) {
    (void)state;
    assert_null(
        type->compile(&f.ctx, fake_msg(&f, type->type_url, "upgrade_protobuf_to_grpc: true")));
    assert_true(sv_contains(fake_errors(&f), SV("upgrade_protobuf_to_grpc")));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(bridged, start, end),
        cmocka_unit_test_setup_teardown(passed, start, end),
        cmocka_unit_test_setup_teardown(without_trailers, start, end),
        cmocka_unit_test_setup_teardown(refused, start, end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
