/* The buffer filter: which requests wait, and the length they go on with. */
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

extern const struct http_filter_type buffer_http_filter;
static const struct http_filter_type *const type = &buffer_http_filter;

#define ROUTE "envoy.extensions.filters.http.buffer.v3.BufferPerRoute"

static void begin(struct stream *s, const char *route, const char *headers) {
    const void *c =
        type->compile(&f.ctx, fake_msg(&f, type->type_url, "max_request_bytes { value: 9 }"));
    assert_non_null(c);
    fake_stream_start(s, type, c, "h.com", "/", headers);
    if (route) {
        s->route_configs[s->route_configs_n++] =
            type->compile_route(&f.ctx, fake_msg(&f, ROUTE, route), ROUTE);
    }
}

static const char *length_of(const struct stream *s) {
    static char out[32];
    sv n = headers_get(&s->request, HDR_content_length);
    snprintf(out, sizeof(out), "%.*s", SV_ARG(n));
    return out;
}

static void waits(void **state) {
    (void)state;
    struct stream s;
    begin(&s, NULL, "transfer-encoding: chunked");
    assert_int_equal(fake_stream_decode(&s, false), FILTER_HEADERS_STOP);
    assert_int_equal(fake_stream_decode_data(&s, SV("abc"), false), FILTER_DATA_STOP_BUFFER);
    assert_int_equal(fake_stream_decode_data(&s, SV("de"), true), FILTER_DATA_CONTINUE);
    assert_string_equal(length_of(&s), "5");
    assert_false(headers_has(&s.request, HDR_transfer_encoding));
    fake_stream_end(&s);
    begin(&s, "buffer { max_request_bytes { value: 3 } }", "content-length: 3");
    assert_int_equal(fake_stream_decode(&s, false), FILTER_HEADERS_STOP);
    assert_int_equal(fake_stream_decode_data(&s, SV("abc"), true), FILTER_DATA_CONTINUE);
    assert_string_equal(length_of(&s), "3"); /* what it was */
    fake_stream_end(&s);
}

static void waits_for_trailers(void **state) {
    (void)state;
    struct stream s;
    struct headers t;
    begin(&s, NULL, "x: y");
    assert_int_equal(fake_stream_decode(&s, false), FILTER_HEADERS_STOP);
    assert_int_equal(fake_stream_decode_data(&s, SV("abc"), false), FILTER_DATA_STOP_BUFFER);
    headers_init(&t, &s.arena);
    assert_int_equal(type->decode_trailers(s.filter, &t), FILTER_TRAILERS_CONTINUE);
    assert_string_equal(length_of(&s), "3");
    fake_stream_end(&s);
}

static void too_large(void **state) {
    (void)state;
    struct stream s;
    begin(&s, "buffer { max_request_bytes { value: 4 } }", "x: y");
    assert_int_equal(fake_stream_decode(&s, false), FILTER_HEADERS_STOP);
    assert_int_equal(fake_stream_decode_data(&s, SV("abc"), false), FILTER_DATA_STOP_BUFFER);
    /* the whole body is here, but too much to go on */
    assert_int_equal(fake_stream_decode_data(&s, SV("de"), true), FILTER_DATA_STOP_BUFFER);
    assert_string_equal(length_of(&s), "");
    fake_stream_end(&s);
}

static void passes(void **state) {
    (void)state;
    struct stream s;
    struct headers t;
    begin(&s, NULL, "x: y");
    assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_CONTINUE); /* no body */
    fake_stream_end(&s);
    begin(&s, "disabled: true", "x: y");
    assert_int_equal(fake_stream_decode(&s, false), FILTER_HEADERS_CONTINUE);
    assert_int_equal(fake_stream_decode_data(&s, SV("abc"), false), FILTER_DATA_CONTINUE);
    headers_init(&t, &s.arena);
    assert_int_equal(type->decode_trailers(s.filter, &t), FILTER_TRAILERS_CONTINUE);
    assert_string_equal(length_of(&s), "");
    fake_stream_end(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(waits, start, end),
        cmocka_unit_test_setup_teardown(waits_for_trailers, start, end),
        cmocka_unit_test_setup_teardown(too_large, start, end),
        cmocka_unit_test_setup_teardown(passes, start, end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
