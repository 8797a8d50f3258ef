/* original_src: what source upstream connections get. (Spoofed sockets need root: integration.) */
#include "protos/gen/listener_original_src.pb-c.h"
#include "tests/support/listener_filter.h"

extern const struct listener_filter_type original_src_listener_filter;

static void sources(void **state) {
    (void)state;
    static const struct {
        const char *remote, *want; /* want NULL: none */
        uint32_t mark;
        bool bind_port;
    } rows[] = {
        {"10.0.0.7:4321", "10.0.0.7:0", 0, false},
        {"10.0.0.7:4321", "10.0.0.7:4321", 1337, true},
        {"[fd00::7]:4321", "[fd00::7]:0", 1337, false},
        {"[fd00::7]:4321", "[fd00::7]:4321", 0, true},
        {NULL, NULL, 1337, true}, /* a UNIX socket has no address to take */
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        ListenerOriginalSrc__OriginalSrc m = LISTENER_ORIGINAL_SRC__ORIGINAL_SRC__INIT;
        m.mark = rows[i].mark;
        m.bind_port = rows[i].bind_port;
        struct filter_bench b;
        assert_row(bench_open(&b, &original_src_listener_filter, &m), i);
        bench_next(&b);
        if (rows[i].remote) {
            assert_row(addr_parse_ip_port(sv_cstr(rows[i].remote), &b.info.remote), i);
        } else {
            addr_set_path(&b.info.remote, "/client");
        }
        struct addr before = b.info.remote;
        assert_row(bench_judge(&b, SV_NULL, false) == LISTENER_FILTER_DONE, i);
        assert_row(addr_eq(&b.info.remote, &before), i);
        if (rows[i].want) {
            char text[ADDR_STR_MAX];
            addr_str(&b.info.source.addr, text);
            assert_string_equal(text, rows[i].want);
            assert_row(b.info.source.mark == rows[i].mark, i);
        } else {
            assert_row(b.info.source.addr.family == AF_UNSPEC, i);
        }
        bench_close(&b);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(sources)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
