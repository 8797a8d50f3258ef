/* tls_inspector: what it tells of a socket, and what it counts. The reading itself is tested in
 * test_client_hello.c. */
#include "protos/gen/listener_tls_inspector.pb-c.h"
#include "tests/support/client_hello_bytes.h"
#include "tests/support/listener_filter.h"

extern const struct listener_filter_type tls_inspector_listener_filter;

/* In the order of its table; bytes_processed is a histogram. */
enum { ALPN, NO_ALPN, BYTES, TOO_LARGE, SNI, NO_SNI, TLS, NO_TLS, STATS };

static const uint16_t ciphers[] = {0x1301, 0x1302};
static const char *const protocols[] = {"h2", "http/1.1"};
static struct filter_bench b;
static struct buf stream;

static ListenerTlsInspector__TlsInspector message(void) {
    return (ListenerTlsInspector__TlsInspector)LISTENER_TLS_INSPECTOR__TLS_INSPECTOR__INIT;
}

static int setup(void **state) {
    (void)state;
    buf_init(&stream);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    buf_fini(&stream);
    bench_close(&b);
    return 0;
}

static sv hello(const char *name, bool has_alpn, size_t padding) {
    static const char zeros[20000];
    BUF_AUTO struct buf exts, msg;
    buf_init(&exts);
    buf_init(&msg);
    if (name) {
        put_sni(&exts, sv_cstr(name));
    }
    if (has_alpn) {
        put_alpn(&exts, protocols, 2);
    }
    put_ext_raw(&exts, 21, zeros, padding);
    put_message(&msg, 0x0303, ciphers, ARRAY_LEN(ciphers), &exts);
    buf_clear(&stream);
    put_records(&stream, &msg, 16384);
    return buf_pullup(&stream, buf_len(&stream));
}

static void tells_of_tls(void **state) {
    (void)state;
    ListenerTlsInspector__TlsInspector m = message();
    assert_true(bench_open(&b, &tls_inspector_listener_filter, &m));
    assert_int_equal(bench_feed(&b, hello("API.Example.com", true, 0)), LISTENER_FILTER_DONE);
    assert_sv_is(b.info.transport_protocol, "tls");
    assert_sv_is(b.info.server_name, "api.example.com");
    assert_int_equal(b.info.alpn_n, 2);
    assert_sv_is(b.info.alpn[0], "h2");
    assert_sv_is(b.info.alpn[1], "http/1.1");
    assert_int_equal(b.info.ja3.n + b.info.ja4.n, 0);
    assert_int_equal(b.info.consume_bytes, 0);
    static const uint64_t want[STATS] = {[ALPN] = 1, [SNI] = 1, [TLS] = 1};
    assert_bench_stats(&b, want, BYTES, 0);
    assert_int_equal(bench_stat(&b, SNI), 1);
    assert_int_equal(bench_stat(&b, TLS), 1);
    assert_int_equal(bench_stat(&b, NO_TLS), 0);
}

static void tls_without_names(void **state) {
    (void)state;
    ListenerTlsInspector__TlsInspector m = message();
    assert_true(bench_open(&b, &tls_inspector_listener_filter, &m));
    assert_int_equal(bench_feed(&b, hello(NULL, false, 0)), LISTENER_FILTER_DONE);
    assert_sv_is(b.info.transport_protocol, "tls");
    assert_int_equal(b.info.server_name.n, 0);
    assert_int_equal(b.info.alpn_n, 0);
    assert_int_equal(bench_stat(&b, NO_SNI), 1);
    assert_int_equal(bench_stat(&b, NO_ALPN), 1);
}

static void fingerprints_when_asked(void **state) {
    (void)state;
    Pb__BoolValue on = PB__BOOL_VALUE__INIT;
    on.value = 1;
    ListenerTlsInspector__TlsInspector m = message();
    m.enable_ja3_fingerprinting = m.enable_ja4_fingerprinting = &on;
    assert_true(bench_open(&b, &tls_inspector_listener_filter, &m));
    assert_int_equal(bench_feed(&b, hello("a", true, 0)), LISTENER_FILTER_DONE);
    assert_int_equal(b.info.ja3.n, 32);
    assert_true(sv_starts(b.info.ja4, SV("t12d0203h2_")));
}

static const struct {
    const char *bytes;
    size_t n;
    enum listener_filter_status lenient, strict;
} others[] = {
    {"GET / HTTP/1.1\r\n", 16, LISTENER_FILTER_DONE, LISTENER_FILTER_REJECT},
    {"\x16\x03\x01\x00\x05\x02", 6, LISTENER_FILTER_DONE, LISTENER_FILTER_REJECT},
    {"\x16\x03\x01\x00\x00", 5, LISTENER_FILTER_DONE, LISTENER_FILTER_REJECT},
    {"\0", 1, LISTENER_FILTER_DONE, LISTENER_FILTER_REJECT},
    {"\x16\x03\x01\x40\x00\x01\x00\x50\x00", 9, LISTENER_FILTER_REJECT,
     LISTENER_FILTER_REJECT}, /* too large */
    {"\x16\x03", 2, LISTENER_FILTER_NEED_DATA, LISTENER_FILTER_NEED_DATA},
};

static void what_is_no_client_hello(void **state) {
    (void)state;
    for (int is_strict = 0; is_strict < 2; is_strict++) {
        ListenerTlsInspector__TlsInspector m = message();
        m.close_connection_on_client_hello_parsing_errors = is_strict;
        assert_true(bench_open(&b, &tls_inspector_listener_filter, &m));
        for (size_t i = 0; i < ARRAY_LEN(others); i++) {
            bench_next(&b);
            enum listener_filter_status want = is_strict ? others[i].strict : others[i].lenient;
            assert_row(bench_feed(&b, sv_from(others[i].bytes, others[i].n)) == want, i);
            assert_row(b.info.transport_protocol.n == 0, i);
            assert_row((want == LISTENER_FILTER_REJECT) == (b.info.reject_reason != NULL), i);
        }
        assert_int_equal(bench_stat(&b, NO_TLS), 4);
        assert_int_equal(bench_stat(&b, TOO_LARGE), 1);
        assert_int_equal(bench_stat(&b, TLS), 0);
        if (!is_strict) {
            bench_close(&b);
        }
    }
}

static void size_is_limited(void **state) {
    (void)state;
    Pb__UInt32Value max = PB__UINT32_VALUE__INIT;
    max.value = 512;
    ListenerTlsInspector__TlsInspector m = message();
    m.max_client_hello_size = &max;
    assert_true(bench_open(&b, &tls_inspector_listener_filter, &m));
    assert_int_equal(bench_feed(&b, hello("a", false, 300)), LISTENER_FILTER_DONE);
    bench_next(&b);
    assert_int_equal(bench_feed(&b, hello("a", false, 600)), LISTENER_FILTER_REJECT);
    assert_int_equal(bench_stat(&b, TOO_LARGE), 1);
    bench_close(&b);
    max.value = 16385;
    assert_false(bench_open(&b, &tls_inspector_listener_filter, &m));
    assert_sv_is(diag_text(&b.d), "max_client_hello_size: value must be at most 16384");
}

static void peer_leaves_early(void **state) {
    (void)state;
    ListenerTlsInspector__TlsInspector m = message();
    assert_true(bench_open(&b, &tls_inspector_listener_filter, &m));
    assert_int_equal(bench_judge(&b, SV_NULL, true), LISTENER_FILTER_NEED_DATA);
    assert_int_equal(bench_judge(&b, SV("\x16\x03\x01"), true), LISTENER_FILTER_NEED_DATA);
    assert_int_equal(bench_stat(&b, NO_TLS), 0); /* the listener counts it */
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(tells_of_tls),
        TEST(tls_without_names),
        TEST(fingerprints_when_asked),
        TEST(what_is_no_client_hello),
        TEST(size_is_limited),
        TEST(peer_leaves_early),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
