/* original_dst: connections that were not redirected keep their address. (Redirection needs
 * iptables: integration.) */
#include <sys/socket.h>

#include "protos/gen/listener_original_dst.pb-c.h"
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

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(not_redirected)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
