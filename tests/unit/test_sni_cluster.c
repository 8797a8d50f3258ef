/* sni_cluster: which server names become the cluster of tcp_proxy. */
#include "proxy/api/network_filter.h"
#include "tests/support/test_compile.h"

extern const struct network_filter_type sni_cluster_network_filter;
static const struct network_filter_type *const type = &sni_cluster_network_filter;

static struct arena arena;
static struct conn_info cx;
static struct stream_info si;

const struct conn_info *net_conn_info(const struct network_filter *x) {
    (void)x;
    return &cx;
}
struct stream_info *net_stream_info(const struct network_filter *x) {
    (void)x;
    return &si;
}
struct arena *net_arena(const struct network_filter *x) {
    (void)x;
    return &arena;
}

static void check(sv server_name, const char *before, const char *want) {
    struct buf b;
    buf_init(&b);
    arena_init(&arena, 0);
    cx.server_name = server_name;
    si = (struct stream_info){.arena = &arena};
    if (before) {
        si.filter_state = filter_state_new(&arena, NULL);
        filter_state_set(si.filter_state, SV("envoy.tcp_proxy.cluster"), sv_cstr(before), NULL,
                         false, FILTER_STATE_LOCAL);
    }
    struct network_filter x = {.type = type,
                               .config = type->compile(&f.ctx, fake_msg(&f, type->type_url, ""))};
    assert_non_null(x.config);
    assert_int_equal(type->on_new_connection(&x), NET_CONTINUE);
    assert_int_equal(type->on_data(&x, &b, false), NET_CONTINUE);
    sv got = filter_state_text(si.filter_state, SV("envoy.tcp_proxy.cluster"));
    assert_true(sv_is(got, want ? want : ""));
    assert_int_equal(got.p != NULL, want != NULL);
    arena_fini(&arena);
}

static void server_names(void **state) {
    (void)state;
    check(SV_NULL, NULL, NULL);
    check(SV_NULL, "b.test", "b.test");
    check(SV("a.test"), NULL, "a.test");
    check(SV("a.test"), "b.test", "a.test");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test_setup_teardown(server_names, start, end)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
