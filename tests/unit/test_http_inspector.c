/* http_inspector: first lines told apart, whole and byte by byte. */
#include "protos/gen/listener_http_inspector.pb-c.h"
#include "proxy/base/mem.h"
#include "tests/support/listener_filter.h"

extern const struct listener_filter_type http_inspector_listener_filter;

enum { HTTP10, HTTP11, HTTP2, NOT_HTTP, READ_ERROR, STATS };

static struct filter_bench b;

static int setup(void **state) {
    (void)state;
    const ListenerHttpInspector__HttpInspector m = LISTENER_HTTP_INSPECTOR__HTTP_INSPECTOR__INIT;
    assert_true(bench_open(&b, &http_inspector_listener_filter, &m));
    return 0;
}
static int teardown(void **state) {
    (void)state;
    bench_close(&b);
    return 0;
}

#define MORE (-1)
#define PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
static const struct {
    const char *bytes;
    int want; /* counter, or MORE */
} lines[] = {
    {"GET / HTTP/1.1\r\n", HTTP11},
    {"GET / HTTP/1.0\r\n", HTTP10},
    {"GET / HTTP/1.1\n", HTTP11},
    {"GET /a b HTTP/1.1\r\n", HTTP11},
    {"POST http://x/ HTTP/1.1\r\nHost: x\r\n\r\n", HTTP11},
    {"PUT / HTTP/1.1\r\n", HTTP11},
    {"PRIORITY / HTTP/1.1\r\n", NOT_HTTP},
    {"CONNECT a:443 HTTP/1.1\r\n", HTTP11},
    {"M-SEARCH * HTTP/1.1\r\n", HTTP11},
    {PREFACE, HTTP2},
    {PREFACE "\0\0\0\4", HTTP2},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r", NOT_HTTP},
    {"PRI * HTTP/1.1\r\n", NOT_HTTP},
    {"PRI * HTTP/2.0\r\n\r\n", MORE},
    {"GET", MORE},
    {"GET ", MORE},
    {"GET / HTTP/1.1", MORE},
    {"GET / HTTP/1.1\r", MORE},
    {"G", MORE},
    {"GET / HTTP/2.0\r\n", NOT_HTTP},
    {"GET / HTTP/1.2\r\n", NOT_HTTP},
    {"GET / HTTP/0.9\r\n", NOT_HTTP},
    {"GET / http/1.1\r\n", NOT_HTTP},
    {"GET /\r\n", NOT_HTTP},
    {"GET HTTP/1.1\r\n", NOT_HTTP},
    {"GET / HTTP/1.1 \r\n", NOT_HTTP},
    {"GET / HTTP/1.11\r\n", NOT_HTTP},
    {"GET / XHTTP/1.1\r\n", NOT_HTTP},
    {"get / HTTP/1.1\r\n", NOT_HTTP},
    {"GETX / HTTP/1.1\r\n", NOT_HTTP},
    {"GE / HTTP/1.1\r\n", NOT_HTTP},
    {" GET / HTTP/1.1\r\n", NOT_HTTP},
    {"\r\nGET / HTTP/1.1\r\n", NOT_HTTP},
    {"GET\t/ HTTP/1.1\r\n", NOT_HTTP},
    {"HTTP/1.1 200 OK\r\n", NOT_HTTP},
    {"SSH-2.0-OpenSSH_9\r\n", NOT_HTTP},
    {"\x16\x03\x01", NOT_HTTP},
    {"UNSUBSCRIBEUNSUBSCRIBE", NOT_HTTP},
};

static void first_lines(void **state) {
    (void)state;
    static const char *const protocols[] = {"http/1.0", "http/1.1", "h2c"};
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        uint64_t before[STATS];
        for (unsigned k = 0; k < STATS; k++) {
            before[k] = bench_stat(&b, k);
        }
        bench_next(&b);
        enum listener_filter_status st = bench_feed(&b, sv_cstr(lines[i].bytes));
        assert_row(st == (lines[i].want == MORE ? LISTENER_FILTER_NEED_DATA : LISTENER_FILTER_DONE),
                   i);
        if (lines[i].want != MORE) {
            before[lines[i].want]++;
        }
        assert_bench_stats(&b, before, STATS, i);
        bool is_http = lines[i].want >= 0 && lines[i].want <= HTTP2;
        assert_row(b.info.alpn_n == is_http, i);
        if (is_http) {
            assert_sv_is(b.info.alpn[0], protocols[lines[i].want]);
        }
        assert_row(b.info.transport_protocol.n == 0, i);
    }
}

static void seen_at_once(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(lines); i++) {
        bench_next(&b);
        enum listener_filter_status st = bench_judge(&b, sv_cstr(lines[i].bytes), false);
        assert_row(st == (lines[i].want == MORE ? LISTENER_FILTER_NEED_DATA : LISTENER_FILTER_DONE),
                   i);
        assert_row(b.info.alpn_n == (lines[i].want >= 0 && lines[i].want <= HTTP2), i);
    }
}

static void endless_line(void **state) {
    (void)state;
    size_t n = http_inspector_listener_filter.max_peek_bytes;
    assert_true(n <= LISTENER_PEEK_MAX);
    char *line = xalloc(n);
    memset(line, 'a', n);
    memcpy(line, "GET /", 5);
    assert_int_equal(bench_judge(&b, sv_from(line, n / 2), false), LISTENER_FILTER_NEED_DATA);
    assert_int_equal(bench_judge(&b, sv_from(line, n), false), LISTENER_FILTER_DONE);
    assert_int_equal(b.info.alpn_n, 0);
    assert_int_equal(bench_stat(&b, NOT_HTTP), 1);
    xfree(line);
}

static void tls_is_left_alone(void **state) {
    (void)state;
    static const sv h2 = SV_INIT("h2");
    b.info.transport_protocol = SV("tls");
    b.info.alpn = &h2;
    b.info.alpn_n = 1;
    assert_int_equal(bench_judge(&b, SV("GET / HTTP/1.1\r\n"), false), LISTENER_FILTER_DONE);
    assert_sv_is(b.info.alpn[0], "h2");
    static const uint64_t none[STATS];
    assert_bench_stats(&b, none, STATS, 0);
    bench_next(&b);
    b.info.transport_protocol = SV("raw_buffer");
    assert_int_equal(bench_judge(&b, SV("GET / HTTP/1.1\r\n"), false), LISTENER_FILTER_DONE);
    assert_int_equal(b.info.alpn_n, 1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(first_lines),
        TEST(seen_at_once),
        TEST(endless_line),
        TEST(tls_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
