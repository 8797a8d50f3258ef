/* The filters set_filter_state, of requests and of connections: what they write, when, and at which
 * level; when routes are chosen anew. */
#include "proxy/api/network_filter.h"
#include "tests/support/fake_stream.h"
#include "tests/support/test_compile.h"

extern const struct http_filter_type set_filter_state_http_filter;
static const struct http_filter_type *const type = &set_filter_state_http_filter;

#define VALUE(key, text)                                                                      \
    "on_request_headers { object_key: '" key "' factory_key: 'envoy.string' format_string { " \
    "text_format_source { inline_string: '" text "' } } } "

static const void *config_from(const char *text) {
    return type->compile(&f.ctx, fake_msg(&f, type->type_url, text));
}

static void check(const char *of_filter, const char *of_route, const char *want, unsigned clears) {
    struct stream s;
    fake_stream_start(&s, type, config_from(of_filter), "h.com", "/", "x-a: 7");
    if (of_route) {
        s.route_configs[s.route_configs_n++] =
            type->compile_route(&f.ctx, fake_msg(&f, type->type_url, of_route), type->type_url);
    }
    assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_CONTINUE);
    sv got = filter_state_text(s.info.filter_state, SV("k"));
    if (!sv_is(got, want)) {
        fail_msg("%s: '%.*s'", of_filter, SV_ARG(got));
    }
    assert_int_equal(s.route_clears, clears);
    fake_stream_end(&s);
}

static void written(void **state) {
    (void)state;
    check("", NULL, "", 0);
    check(VALUE("k", "v"), NULL, "v", 0);
    check(VALUE("k", "%REQ(x-a)%") "clear_route_cache: true", NULL, "7", 1);
    check(VALUE("k", "v"), VALUE("k", "w"), "w", 0);
    check(VALUE("k", "v"), "clear_route_cache: true", "v", 1);
    check("", VALUE("k", "w"), "w", 0);
}

#define ADDRESS(key, text)                                        \
    "on_request_headers { object_key: '" key "' format_string { " \
    "text_format_source { inline_string: '" text "' } } } "
#define LOCAL "envoy.filters.listener.original_dst.local_ip"

/* A text that is no address makes no object of that kind. */
static void addresses(void **state) {
    (void)state;
    static const struct {
        const char *text, *name, *want;
    } rows[] = {
        {ADDRESS(LOCAL, ""), LOCAL, NULL},
        {ADDRESS(LOCAL, "1.2.3.4"), LOCAL, NULL},
        {ADDRESS(LOCAL, "example.com:80"), LOCAL, NULL},
        {ADDRESS(LOCAL, "1.2.3.4:80"), LOCAL, "1.2.3.4:80"},
        {ADDRESS("envoy.filters.listener.original_dst.remote_ip", "[::1]:80"),
         "envoy.filters.listener.original_dst.remote_ip", "[::1]:80"},
        {ADDRESS("envoy.network.transport_socket.original_dst_address", "x-a"),
         "envoy.network.transport_socket.original_dst_address", NULL},
        {VALUE(LOCAL, "text"), LOCAL, "text"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct stream s;
        fake_stream_start(&s, type, config_from(rows[i].text), "h.com", "/", "");
        assert_int_equal(fake_stream_decode(&s, true), FILTER_HEADERS_CONTINUE);
        sv got = filter_state_text(s.info.filter_state, sv_cstr(rows[i].name));
        assert_row((got.p != NULL) == (rows[i].want != NULL), i);
        assert_row(!rows[i].want || sv_is(got, rows[i].want), i);
        fake_stream_end(&s);
    }
}

static void refused(void **state) {
    (void)state;
    assert_null(config_from("on_request_headers { object_key: 'k' format_string { "
                            "text_format_source { inline_string: 'v' } } }"));
    assert_true(sv_contains(fake_errors(&f), SV("on_request_headers[0]: 'k' does not have an")));
}

extern const struct network_filter_type network_set_filter_state_network_filter;

static struct stream_info si;

struct stream_info *net_stream_info(const struct network_filter *x) {
    (void)x;
    return &si;
}
static const char *state_of(const char *name) {
    static char out[64];
    sv text = filter_state_text(si.filter_state, sv_cstr(name));
    snprintf(out, sizeof(out), "%.*s", SV_ARG(text));
    return text.p ? out : NULL;
}

/* --- of connections --- */

static const struct network_filter_type *const setter = &network_set_filter_state_network_filter;

static const void *setter_from(const char *text) {
    return setter->compile(&f.ctx, fake_msg(&f, setter->type_url, text));
}

#define NET_VALUE(key, more, text)                                                                 \
    " { object_key: '" key "' " more " format_string { text_format_source { inline_string: '" text \
    "' } } } "
#define STRING "factory_key: 'envoy.string' "

static void written_at_each_phase(void **state) {
    (void)state;
    struct conn conn = {0};
    _Alignas(16) char room[256] = {0};
    struct network_filter *x = (struct network_filter *)(void *)room;
    struct buf b;
    buf_init(&b);
    si = (struct stream_info){.arena = &f.arena};
    assert_true(setter->instance_size <= sizeof(room));
    const void *c = setter_from(
        "on_new_connection" NET_VALUE("a", STRING "read_only: true",
                                      "1") "on_new_connection" NET_VALUE("a", STRING,
                                                                         "2") /* it is read-only */
        "on_new_connection" NET_VALUE(
            "empty", STRING "skip_if_empty: true",
            "") "on_new_connection" NET_VALUE("envoy.tcp_proxy.cluster", "",
                                              "up") "on_downstream_tls_"
                                                    "handshake" NET_VALUE(
                                                        "b", STRING, "3") "on_"
                                                                          "downstream"
                                                                          "_dat"
                                                                          "a" NET_VALUE("c", STRING,
                                                                                        "4"));
    assert_non_null(c);
    *x = (struct network_filter){.type = setter, .conn = &conn, .config = c};
    assert_int_equal(setter->on_new_connection(x), NET_CONTINUE);
    assert_string_equal(state_of("a"), "1");
    assert_string_equal(state_of("envoy.tcp_proxy.cluster"), "up");
    assert_null(state_of("empty"));
    assert_null(state_of("b"));
    setter->on_conn_event(x, CONN_EVENT_CONNECTED);
    assert_string_equal(state_of("b"), "3");
    assert_null(state_of("c"));
    assert_int_equal(setter->on_data(x, &b, false), NET_CONTINUE);
    assert_string_equal(state_of("c"), "4");
}

static void refused_of_connections(void **state) {
    (void)state;
    static const char *const rows[][2] = {
        {"on_new_connection" NET_VALUE("a", "", "1"),
         "on_new_connection[0]: 'a' does not have an object"},
        {"on_downstream_data" NET_VALUE("a", "factory_key: 'envoy.network.upstream_server_name'",
                                        "1"),
         "on_downstream_data[0]: 'envoy.network.upstream_server_name' does not"},
        {"on_downstream_tls_handshake" NET_VALUE("a", STRING, "%NOPE%"),
         "on_downstream_tls_handshake[0].format_string"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_null(setter_from(rows[i][0]));
        if (!sv_contains(fake_errors(&f), sv_cstr(rows[i][1]))) {
            fail_msg("row %zu: %.*s", i, SV_ARG(fake_errors(&f)));
        }
        diag_reset(&f.diag);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(written, start, end),
        cmocka_unit_test_setup_teardown(addresses, start, end),
        cmocka_unit_test_setup_teardown(refused, start, end),
        cmocka_unit_test_setup_teardown(written_at_each_phase, start, end),
        cmocka_unit_test_setup_teardown(refused_of_connections, start, end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
