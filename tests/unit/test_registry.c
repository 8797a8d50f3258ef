/* Lookups of extensions: by message type, by name only without one, by earlier names. */
#include "filters/registry.h"
#include "tests/support/unit.h"

static const struct http_filter_type a = {
    .name = "envoy.filters.http.a", .type_url = "pkg.A", .route_type_url = "pkg.ARoute"};
static const struct http_filter_type b = {
    .name = "envoy.filters.http.b", .type_url = "pkg.B", .route_type_url = ""};
static const struct http_filter_type *const http[] = {&a, &b};
static const struct transport_socket_type down = {
    .name = "tls", .type_url = "pkg.Down", .is_downstream = true};
static const struct transport_socket_type up = {
    .name = "tls", .type_url = "pkg.Up", .is_upstream = true};
static const struct transport_socket_type *const sockets[] = {&down, &up};
static const struct registry_alias aliases[] = {
    {SV_INIT("envoy.a"), SV_INIT("envoy.filters.http.a")}};
static const struct registry registry = {.http_filters = http,
                                         .http_filters_n = 2,
                                         .transport_sockets = sockets,
                                         .transport_sockets_n = 2,
                                         .aliases = aliases,
                                         .aliases_n = 1};

static void http_filters(void **state) {
    (void)state;
    static const struct {
        const char *name, *type;
        const struct http_filter_type *want;
    } cases[] = {
        {"x", "pkg.A", &a},
        {"x", "type.googleapis.com/pkg.A", &a},
        {"x", "pkg.ARoute", &a},
        {"x", "pkg.B", &b},
        {"envoy.filters.http.b", "pkg.A", &a}, /* the type decides */
        {"envoy.filters.http.b", "", &b},
        {"envoy.a", "", &a},
        {"envoy.filters.http.b", "pkg.Unknown", NULL}, /* a name alone chooses nothing */
        {"x", "", NULL},
        {"", "", NULL},
        {"x", "pkg", NULL},
        {"x", "A", NULL},
        {"x", "type.googleapis.com/", NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_row(registry_http_filter(&registry, sv_cstr(cases[i].name),
                                        sv_cstr(cases[i].type)) == cases[i].want,
                   i);
    }
}

static void transport_sockets(void **state) {
    (void)state;
    assert_ptr_equal(registry_transport_socket(&registry, SV("tls"), SV_NULL, true), &down);
    assert_ptr_equal(registry_transport_socket(&registry, SV("tls"), SV_NULL, false), &up);
    assert_ptr_equal(registry_transport_socket(&registry, SV("x"), SV("pkg.Up"), false), &up);
    assert_null(registry_transport_socket(&registry, SV("x"), SV("pkg.Up"), true));
}

static void nothing(void **state) {
    (void)state;
    static const struct registry empty = {.http_filters = NULL};
    assert_null(registry_http_filter(&empty, SV("x"), SV("y")));
    assert_null(registry_network_filter(&empty, SV("x"), SV("y")));
    assert_null(registry_listener_filter(&empty, SV("x"), SV("y")));
    assert_null(registry_transport_socket(&empty, SV("x"), SV("y"), true));
    assert_null(registry_access_logger(&empty, SV("x"), SV("y")));
    assert_null(registry_lb_policy(&empty, SV("x"), SV("y")));
}

/* No two extensions of this binary claim one message or one name. */
static void own_http_filters(void **state) {
    (void)state;
    const struct registry *r = filters_registry();
    for (unsigned i = 0; i < r->http_filters_n; i++) {
        const struct http_filter_type *t = r->http_filters[i];
        assert_ptr_equal(registry_http_filter(r, SV("x"), sv_cstr(t->type_url)), t);
        assert_ptr_equal(registry_http_filter(r, sv_cstr(t->name), SV_NULL), t);
    }
    assert_non_null(registry_http_filter(r, SV("envoy.cors"), SV_NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(http_filters),
        cmocka_unit_test(transport_sockets),
        cmocka_unit_test(nothing),
        cmocka_unit_test(own_http_filters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
