/* HTTP protocol options: defaults, each field, refusals with their paths. */
#include "proxy/http/codec_options.h"

#include "tests/support/fake_compile.h"

#define CORE "envoy.config.core.v3."

static bool http1(struct fake_compile *f, const char *text, struct codec_options *o) {
    codec_options_defaults(o);
    return codec_options_http1(&f->ctx, fake_msg(f, CORE "Http1ProtocolOptions", text), o);
}
static bool http2(struct fake_compile *f, const char *text, struct codec_options *o) {
    codec_options_defaults(o);
    return codec_options_http2(&f->ctx, fake_msg(f, CORE "Http2ProtocolOptions", text), o);
}
static bool common(struct fake_compile *f, const char *text, struct codec_options *o) {
    codec_options_defaults(o);
    return codec_options_common(&f->ctx, fake_msg(f, CORE "HttpProtocolOptions", text), o);
}

static void test_defaults(void **state) {
    (void)state;
    struct fake_compile f;
    struct codec_options o, d;
    fake_compile_init(&f, NULL);
    codec_options_defaults(&d);
    assert_int_equal(d.max_headers_bytes, 60 * 1024);
    assert_int_equal(d.max_headers_count, 100);
    assert_int_equal(d.h2.max_concurrent_streams, 1024);
    assert_true(http1(&f, "", &o) && o.h1.allow_absolute_url && !o.h1.enable_trailers);
    assert_true(http2(&f, "", &o) && o.h2.initial_stream_window_bytes == 16u << 20);
    assert_true(common(&f, "", &o) && o.max_headers_count == 100);
    assert_true(codec_options_http1(&f.ctx, NULL, &o) && codec_options_http2(&f.ctx, NULL, &o) &&
                codec_options_common(&f.ctx, NULL, &o));
    fake_compile_fini(&f);
}

static void test_http1_fields(void **state) {
    (void)state;
    struct fake_compile f;
    struct codec_options o;
    fake_compile_init(&f, NULL);
    assert_true(http1(
        &f,
        "allow_absolute_url {value: false} accept_http_10: true default_host_for_http_10: 'd:80' "
        "enable_trailers: true allow_chunked_length: true send_fully_qualified_url: true "
        "allow_custom_methods: true override_stream_error_on_invalid_http_message {value: true} "
        "header_key_format {proper_case_words {}}",
        &o));
    assert_false(o.h1.allow_absolute_url);
    assert_true(o.h1.accept_http_10 && o.h1.enable_trailers && o.h1.allow_chunked_length);
    assert_true(o.h1.send_fully_qualified_url && o.h1.allow_custom_methods);
    assert_true(o.h1.override_stream_error_on_invalid_http_message);
    assert_sv_is(o.h1.default_host_for_http_10, "d:80");
    assert_int_equal(o.h1.header_case, H1_CASE_PROPER);
    assert_true(
        http1(&f,
              "header_key_format {stateful_formatter {name: 'p' typed_config { "
              "[type.googleapis.com/envoy.extensions.http.header_formatters.preserve_case.v3."
              "PreserveCaseFormatterConfig] {} }}}",
              &o));
    assert_int_equal(o.h1.header_case, H1_CASE_PRESERVE);
    fake_compile_fini(&f);
}

static void test_ignored_upgrades(void **state) {
    (void)state;
    struct fake_compile f;
    struct codec_options o;
    fake_compile_init(&f, NULL);
    assert_true(http1(&f,
                      "ignore_http_11_upgrade {exact: 'a'} ignore_http_11_upgrade {prefix: 'b' "
                      "ignore_case: true} "
                      "ignore_http_11_upgrade {suffix: 'c'} ignore_http_11_upgrade {contains: 'd'} "
                      "ignore_http_11_upgrade {safe_regex {regex: 'e+'}}",
                      &o));
    assert_int_equal(o.h1.ignored_upgrades_n, 5);
    for (unsigned i = 0; i < 5; i++) {
        assert_row(o.h1.ignored_upgrades[i].kind == (enum upgrade_match_kind)i, i);
    }
    assert_true(o.h1.ignored_upgrades[1].ignore_case);
    assert_false(http1(&f, "ignore_http_11_upgrade {safe_regex {regex: '('}}", &o));
    assert_true(sv_starts(fake_errors(&f), SV("ignore_http_11_upgrade[0]: ")));
    fake_compile_fini(&f);
}

static void test_http2_fields(void **state) {
    (void)state;
    struct fake_compile f;
    struct codec_options o;
    fake_compile_init(&f, NULL);
    assert_true(http2(
        &f,
        "hpack_table_size {value: 0} max_concurrent_streams {value: 7} "
        "initial_stream_window_size {value: 65535} initial_connection_window_size {value: 65536} "
        "allow_connect: true max_outbound_frames {value: 1} max_outbound_control_frames {value: 2} "
        "max_consecutive_inbound_frames_with_empty_payload {value: 3} "
        "max_inbound_priority_frames_per_stream {value: 4} "
        "max_inbound_window_update_frames_per_data_frame_sent {value: 5} "
        "override_stream_error_on_invalid_http_message {value: true} "
        "custom_settings_parameters {identifier {value: 5} value {value: 20000}} "
        "connection_keepalive {interval {seconds: 2} timeout {seconds: 1} interval_jitter {value: "
        "20} "
        "connection_idle_interval {seconds: 3}}",
        &o));
    assert_int_equal(o.h2.hpack_table_bytes, 0);
    assert_int_equal(o.h2.max_concurrent_streams, 7);
    assert_int_equal(o.h2.initial_stream_window_bytes, 65535);
    assert_int_equal(o.h2.initial_connection_window_bytes, 65536);
    assert_int_equal(o.h2.max_outbound_frames, 1);
    assert_int_equal(o.h2.max_outbound_control_frames, 2);
    assert_int_equal(o.h2.max_consecutive_inbound_empty_frames, 3);
    assert_int_equal(o.h2.max_inbound_priority_frames_per_stream, 4);
    assert_int_equal(o.h2.max_inbound_window_update_frames_per_data_frame_sent, 5);
    assert_true(o.h2.allow_connect && o.h2.override_stream_error_on_invalid_http_message);
    assert_int_equal(o.h2.keepalive_interval_ms, 2000);
    assert_int_equal(o.h2.keepalive_timeout_ms, 1000);
    assert_int_equal(o.h2.keepalive_idle_ms, 3000);
    assert_int_equal(o.h2.keepalive_jitter_pct, 20);
    assert_int_equal(o.h2.settings_n, 1);
    assert_int_equal(o.h2.settings[0].value, 20000);
    assert_true(http2(&f, "stream_error_on_invalid_http_messaging: true", &o));
    assert_true(o.h2.override_stream_error_on_invalid_http_message);
    assert_true(http2(&f, "allow_metadata: true", &o));
    assert_int_equal(fake.unhonoured_n, 1);
    fake_compile_fini(&f);
}

static void test_common_fields(void **state) {
    (void)state;
    struct fake_compile f;
    struct codec_options o;
    fake_compile_init(&f, NULL);
    assert_true(common(
        &f, "max_headers_count {value: 7} headers_with_underscores_action: REJECT_REQUEST", &o));
    assert_int_equal(o.max_headers_count, 7);
    assert_int_equal(o.underscores, UNDERSCORES_REJECT);
    assert_true(common(&f, "headers_with_underscores_action: DROP_HEADER", &o));
    assert_int_equal(o.underscores, UNDERSCORES_DROP);
    assert_true(common(&f, "max_response_headers_kb {value: 5}", &o));
    assert_int_equal(o.max_headers_bytes, 60 * 1024); /* of responses: a cluster's */
    f.ctx.is_downstream = false;
    assert_true(common(&f, "max_response_headers_kb {value: 5}", &o));
    assert_int_equal(o.max_headers_bytes, 5 * 1024);
    assert_true(common(&f, "max_headers_count {value: 100000}", &o));
    assert_true(o.max_headers_count < HEADERS_MAX);
    fake_compile_fini(&f);
}

static void test_refusals(void **state) {
    (void)state;
    static const struct {
        bool is_h2;
        const char *text, *error;
    } cases[] = {
        {false, "default_host_for_http_10: 'a b'", "default_host_for_http_10: 'a b' is not a host"},
        {false, "header_key_format {}", "header_key_format: header format is required"},
        {true, "custom_settings_parameters {identifier {value: 4} value {value: 1}}",
         "custom_settings_parameters[0]: setting 4 may not be set here"},
        {true, "custom_settings_parameters {identifier {value: 70000} value {value: 1}}",
         "custom_settings_parameters[0]: setting 70000 may not be set here"},
        {true, "custom_settings_parameters {identifier {value: 5} value {value: 1}}",
         "custom_settings_parameters[0]: maximum frame size must be within [16384, 16777215]"},
        {true,
         "custom_settings_parameters {identifier {value: 10} value {value: 1}} "
         "custom_settings_parameters {identifier {value: 10} value {value: 2}}",
         "custom_settings_parameters[1]: setting 10 is given twice with different values"},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        struct fake_compile f;
        struct codec_options o;
        fake_compile_init(&f, NULL);
        assert_row(!(cases[i].is_h2 ? http2 : http1)(&f, cases[i].text, &o), i);
        assert_sv_is(fake_errors(&f), cases[i].error);
        fake_compile_fini(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),         cmocka_unit_test(test_http1_fields),
        cmocka_unit_test(test_ignored_upgrades), cmocka_unit_test(test_http2_fields),
        cmocka_unit_test(test_common_fields),    cmocka_unit_test(test_refusals),
    };
    return cmocka_run_group_tests_name("codec_options", tests, NULL, NULL);
}
