/* original_dst: connections that were not redirected keep their address. (Redirection needs
 * iptables: integration.) */
#include <sys/socket.h>

#include "protos/gen/listener_original_dst.pb-c.h"
#include "proxy/api/passthrough.h"
#include "proxy/observe/filter_state.h"
#include "tests/support/listener_filter.h"

extern const struct listener_filter_type original_dst_listener_filter;

static void not_redirected(void **state) {
    (void)state;
    static const char *const locals[] = {"127.0.0.1:80", "[::1]:80"};
    const ListenerOriginalDst__OriginalDst m = LISTENER_ORIGINAL_DST__ORIGINAL_DST__INIT;
    struct filter_bench b;
    assert_true(bench_open(&b, &original_dst_listener_filter, &m));
    assert_int_equal(original_dst_listener_filter.max_peek_bytes, 0);
    for (size_t i = 0; i < ARRAY_LEN(locals); i++) {
        struct addr before;
        bench_next(&b);
        assert_true(addr_parse_ip_port(sv_cstr(locals[i]), &before));
        b.info.local = before;
        b.info.fd = socket(before.family, SOCK_STREAM, 0);
        assert_int_equal(bench_judge(&b, SV_NULL, false), LISTENER_FILTER_DONE);
        assert_row(addr_eq(&b.info.local, &before), i);
        assert_row(!b.info.is_local_restored, i);
        close(b.info.fd);
    }
    bench_next(&b);
    addr_set_path(&b.info.local, "/x");
    assert_int_equal(bench_judge(&b, SV_NULL, false), LISTENER_FILTER_DONE);
    assert_false(b.info.is_local_restored);
    bench_close(&b);
}

#define NAMESPACE "envoy.filters.listener.original_dst"

/* What the dialler's metadata says of the destination, if it is an address. */
static void told_by_the_dialler(void **state) {
    (void)state;
    static const struct {
        const char *ns, *key, *value, *local;
    } rows[] = {
        {NAMESPACE, "local", NULL, NULL},
        {NAMESPACE, "local", "", NULL},
        {NAMESPACE, "local", "10.0.0.1", NULL},
        {NAMESPACE, "local", "10.0.0.1:99999", NULL},
        {NAMESPACE, "local", "example.com:80", NULL},
        {NAMESPACE, "local", "envoy://x/y", NULL},
        {NAMESPACE, "remote", "10.0.0.1:80", NULL},
        {"other", "local", "10.0.0.1:80", NULL},
        {NAMESPACE, "local", "10.0.0.1:80", "10.0.0.1:80"},
        {NAMESPACE, "local", "[::1]:80", "[::1]:80"},
    };
    const ListenerOriginalDst__OriginalDst m = LISTENER_ORIGINAL_DST__ORIGINAL_DST__INIT;
    struct filter_bench b;
    struct addr to;
    char text[ADDR_STR_MAX];
    assert_true(bench_open(&b, &original_dst_listener_filter, &m));
    bench_next(&b);
    assert_true(addr_set_internal(&to, SV("l"), SV("id"), b.info.arena));
    for (size_t i = 0; i < 2 * ARRAY_LEN(rows); i++) {
        const size_t row = i / 2;
        const bool has_metadata = i % 2;
        struct passthrough *p = passthrough_new(&to);
        bench_next(&b);
        if (has_metadata) {
            struct kv_value v =
                rows[row].value ? kv_string(sv_cstr(rows[row].value)) : kv_number(1);
            p->metadata = kv_metadata_new(&p->arena);
            assert_true(
                kv_metadata_set(p->metadata, sv_cstr(rows[row].ns), sv_cstr(rows[row].key), &v));
        }
        b.info.local = p->to;
        b.info.remote = addr_internal_client;
        b.info.passthrough = p;
        assert_int_equal(bench_judge(&b, SV_NULL, false), LISTENER_FILTER_DONE);
        const char *want = has_metadata ? rows[row].local : NULL;
        addr_str(&b.info.local, text);
        assert_row(b.info.is_local_restored == (want != NULL), row);
        assert_string_equal(text, want ? want : "envoy://l/id");
        assert_row(addr_eq(&b.info.remote, &addr_internal_client), row);
        shared_unref(&p->shared);
    }
    bench_close(&b);
}

/* What the dialler's filter state says, where its metadata says nothing. */
static void told_by_filter_state(void **state) {
    (void)state;
    static const struct {
        const char *local, *remote, *metadata, *want_local, *want_remote;
    } rows[] = {
        {"nonsense", "nonsense:80", NULL, NULL, NULL},
        {"10.0.0.1", "10.0.0.2", NULL, NULL, NULL},
        {NULL, "10.0.0.2:80", NULL, NULL, "10.0.0.2:80"},
        {"10.0.0.1:80", NULL, NULL, "10.0.0.1:80", NULL},
        {"10.0.0.1:80", "10.0.0.2:80", "bad", "10.0.0.1:80", "10.0.0.2:80"},
        {"10.0.0.1:80", "10.0.0.2:80", "10.0.0.3:80", "10.0.0.3:80", "10.0.0.2:80"},
    };
    const ListenerOriginalDst__OriginalDst m = LISTENER_ORIGINAL_DST__ORIGINAL_DST__INIT;
    struct filter_bench b;
    char text[ADDR_STR_MAX];
    assert_true(bench_open(&b, &original_dst_listener_filter, &m));
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct passthrough *p = passthrough_new(&addr_internal_client);
        p->filter_state = filter_state_new(&p->arena, NULL);
        const char *const told[] = {rows[i].local, rows[i].remote};
        const sv names[] = {SV(NAMESPACE ".local_ip"), SV(NAMESPACE ".remote_ip")};
        for (size_t k = 0; k < ARRAY_LEN(told); k++) {
            assert_true(!told[k] || filter_state_set(p->filter_state, names[k], sv_cstr(told[k]),
                                                     NULL, false, FILTER_STATE_LOCAL));
        }
        if (rows[i].metadata) {
            struct kv_value v = kv_string(sv_cstr(rows[i].metadata));
            p->metadata = kv_metadata_new(&p->arena);
            assert_true(kv_metadata_set(p->metadata, SV(NAMESPACE), SV("local"), &v));
        }
        bench_next(&b);
        b.info.local = b.info.remote = p->to;
        b.info.passthrough = p;
        assert_int_equal(bench_judge(&b, SV_NULL, false), LISTENER_FILTER_DONE);
        static const char unchanged[] = "envoy://internal_client_address/";
        addr_str(&b.info.local, text);
        assert_string_equal(text, rows[i].want_local ? rows[i].want_local : unchanged);
        assert_row(b.info.is_local_restored == (rows[i].want_local != NULL), i);
        addr_str(&b.info.remote, text);
        assert_string_equal(text, rows[i].want_remote ? rows[i].want_remote : unchanged);
        shared_unref(&p->shared);
    }
    bench_close(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(not_redirected),
                                       cmocka_unit_test(told_by_the_dialler),
                                       cmocka_unit_test(told_by_filter_state)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
