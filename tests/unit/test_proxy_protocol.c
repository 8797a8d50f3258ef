/* proxy_protocol: headers of both versions, whole and byte by byte, malformed ones, absent ones,
 * TLVs. */
#include <sys/socket.h>

#include "protos/gen/core.pb-c.h"
#include "protos/gen/listener_proxy_protocol.pb-c.h"
#include "proxy/base/mem.h"
#include "proxy/base/rand.h"
#include "tests/support/listener_filter.h"

extern const struct listener_filter_type proxy_protocol_listener_filter;

enum {
    NOT_FOUND_ALLOWED,
    NOT_FOUND_DISALLOWED,
    V1_DISALLOWED,
    V1_ERROR,
    V1_FOUND,
    V2_DISALLOWED,
    V2_ERROR,
    V2_FOUND,
    STATS
};

static struct filter_bench b;
static ListenerProxyProtocol__ProxyProtocol m;

static int setup(void **state) {
    (void)state;
    m = (ListenerProxyProtocol__ProxyProtocol)LISTENER_PROXY_PROTOCOL__PROXY_PROTOCOL__INIT;
    return 0;
}
static int teardown(void **state) {
    (void)state;
    bench_close(&b);
    return 0;
}
static void open_bench(void) { assert_true(bench_open(&b, &proxy_protocol_listener_filter, &m)); }

static struct addr before_remote, before_local;
static void next(void) {
    bench_next(&b);
    assert_true(addr_parse_ip_port(SV("9.9.9.9:9"), &before_remote));
    assert_true(addr_parse_ip_port(SV("10.0.0.1:443"), &before_local));
    b.info.remote = b.info.direct_remote = before_remote;
    b.info.local = before_local;
}

#define V2 "\r\n\r\n\0\r\nQUIT\n"
#define V4_BODY "\1\2\3\4\5\6\7\x8\x11\x22\x33\x44"
#define V6_BODY                             \
    "\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\1" \
    "\x20\1\xd\xb8\0\0\0\0\0\0\0\0\0\0\0\2" \
    "\0\x50\1\xbb"
#define BYTES(lit) lit, sizeof(lit) - 1
static const struct {
    const char *bytes;
    size_t n;
    int stat;           /* which counter moves; NEED_DATA when -1 */
    const char *remote; /* NULL: as it was */
    const char *local;
} headers[] = {
    /* version 1 */
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 111 222\r\n"), V1_FOUND, "1.2.3.4:111", "5.6.7.8:222"},
    {BYTES("PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n"), V1_FOUND,
     "255.255.255.255:65535", "255.255.255.255:65535"},
    {BYTES("PROXY TCP6 2001:db8::1 ::2 1 0\r\n"), V1_FOUND, "[2001:db8::1]:1", "[::2]:0"},
    {BYTES("PROXY UNKNOWN\r\n"), V1_FOUND, NULL, NULL},
    {BYTES("PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), V1_FOUND, NULL, NULL},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 111 222\r"), -1, NULL, NULL},
    {BYTES("PROXY "), -1, NULL, NULL},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 111 222\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 111\r\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 111 222 333\r\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8  111 222\r\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 111 65536\r\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 0111 222\r\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 -1 222\r\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 1x 222\r\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY TCP4 1.2.3 5.6.7.8 111 222\r\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY TCP4 ::1 ::2 111 222\r\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY TCP6 1.2.3.4 5.6.7.8 111 222\r\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY TCP6 fe80::1%1 ::1 111 222\r\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY TCP5 1.2.3.4 5.6.7.8 111 222\r\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY UDP4 1.2.3.4 5.6.7.8 111 222\r\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY tcp4 1.2.3.4 5.6.7.8 111 222\r\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY TCP4 1.2.3.4\0 5.6.7.8 111 222\r\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY \r\n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY \n"), V1_ERROR, NULL, NULL},
    {BYTES("PROXY UNKNOWN "
           "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
           "aaaaaaaaaaaa\r\n"),
     V1_ERROR, NULL, NULL}, /* over 107 bytes */
    /* version 2 */
    {BYTES(V2 "\x21\x11\0\xc" V4_BODY), V2_FOUND, "1.2.3.4:4386", "5.6.7.8:13124"},
    {BYTES(V2 "\x21\x21\0\x24" V6_BODY), V2_FOUND, "[2001:db8::1]:80", "[2001:db8::2]:443"},
    {BYTES(V2 "\x20\x00\0\0"), V2_FOUND, NULL, NULL},          /* LOCAL */
    {BYTES(V2 "\x20\x11\0\xc" V4_BODY), V2_FOUND, NULL, NULL}, /* LOCAL: addresses do not count */
    {BYTES(V2 "\x20\xff\0\3abc"), V2_FOUND, NULL, NULL},
    {BYTES(V2 "\x21\x00\0\0"), V2_FOUND, NULL, NULL}, /* UNSPEC */
    {BYTES(V2 "\x21\x00\0\3\1\xff\xff"), V2_FOUND, NULL, NULL},
    {BYTES(V2 "\x21\x11\0\x10" V4_BODY "\4\0\1x"), V2_FOUND, "1.2.3.4:4386", "5.6.7.8:13124"},
    {BYTES(V2 "\x21\x11\0\xf" V4_BODY "\4\0\0"), V2_FOUND, "1.2.3.4:4386", "5.6.7.8:13124"},
    {BYTES(V2 "\x21\x11\0\xc"
              "\1\2\3\4"),
     -1, NULL, NULL},
    {BYTES(V2 "\x21\x11\0"), -1, NULL, NULL},
    {BYTES(V2), -1, NULL, NULL},
    {BYTES(V2 "\x11\x11\0\xc" V4_BODY), V2_ERROR, NULL, NULL}, /* version 1 */
    {BYTES(V2 "\x31\x11\0\xc" V4_BODY), V2_ERROR, NULL, NULL},
    {BYTES(V2 "\x22\x11\0\xc" V4_BODY), V2_ERROR, NULL, NULL}, /* command 2 */
    {BYTES(V2 "\x2f\x11\0\xc" V4_BODY), V2_ERROR, NULL, NULL},
    {BYTES(V2 "\x21\x12\0\xc" V4_BODY), V2_ERROR, NULL, NULL}, /* UDP */
    {BYTES(V2 "\x21\x31\0\xc" V4_BODY), V2_ERROR, NULL, NULL}, /* UNIX */
    {BYTES(V2 "\x21\x10\0\xc" V4_BODY), V2_ERROR, NULL, NULL},
    {BYTES(V2 "\x21\x11\0\xb"
              "\1\2\3\4\5\6\7\x8\x11\x22\x33"),
     V2_ERROR, NULL, NULL},
    {BYTES(V2 "\x21\x11\0\0"), V2_ERROR, NULL, NULL},
    {BYTES(V2 "\x21\x21\0\xc" V4_BODY), V2_ERROR, NULL, NULL},
    {BYTES(V2 "\x21\x11\0\xd" V4_BODY "\4"), V2_ERROR, NULL, NULL}, /* half a TLV */
    {BYTES(V2 "\x21\x11\0\xf" V4_BODY "\4\0\1"), V2_ERROR, NULL,
     NULL}, /* a value that is not there */
    {BYTES(V2 "\x21\x11\0\x10" V4_BODY "\4\xff\xffx"), V2_ERROR, NULL, NULL},
    {BYTES(V2 "\x21\x11\xff\xff"), V2_ERROR, NULL, NULL}, /* more than is ever peeked */
    /* neither */
    {BYTES("GET / HTTP/1.1\r\n"), NOT_FOUND_DISALLOWED, NULL, NULL},
    {BYTES("PROXYTCP4"), NOT_FOUND_DISALLOWED, NULL, NULL},
    {BYTES("proxy TCP4"), NOT_FOUND_DISALLOWED, NULL, NULL},
    {BYTES("\r\n\r\n\0\r\nQUIT\r"), NOT_FOUND_DISALLOWED, NULL, NULL},
    {BYTES("\r\n\r\nGET"), NOT_FOUND_DISALLOWED, NULL, NULL},
    {BYTES("\0"), NOT_FOUND_DISALLOWED, NULL, NULL},
    {BYTES("PROX"), -1, NULL, NULL},
    {BYTES("\r"), -1, NULL, NULL},
};

static void assert_addresses(size_t i) {
    char remote[ADDR_STR_MAX], local[ADDR_STR_MAX];
    addr_str(&b.info.remote, remote);
    addr_str(&b.info.local, local);
    assert_string_equal(remote, headers[i].remote ? headers[i].remote : "9.9.9.9:9");
    assert_string_equal(local, headers[i].local ? headers[i].local : "10.0.0.1:443");
    assert_row(b.info.is_local_restored == (headers[i].local != NULL), i);
    assert_row(addr_eq(&b.info.direct_remote, &before_remote), i);
}

static void run_headers(bool is_fed) {
    open_bench();
    for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
        uint64_t want[STATS];
        for (unsigned k = 0; k < STATS; k++) {
            want[k] = bench_stat(&b, k);
        }
        next();
        sv bytes = sv_from(headers[i].bytes, headers[i].n);
        int stat = headers[i].stat;
        enum listener_filter_status st =
            is_fed ? bench_feed(&b, bytes) : bench_judge(&b, bytes, false);
        bool is_found = stat == V1_FOUND || stat == V2_FOUND;
        assert_row(st == (stat < 0   ? LISTENER_FILTER_NEED_DATA
                          : is_found ? LISTENER_FILTER_DONE
                                     : LISTENER_FILTER_REJECT),
                   i);
        if (stat >= 0) {
            want[stat]++;
        }
        assert_bench_stats(&b, want, STATS, i);
        assert_row(b.info.consume_bytes == (is_found ? bytes.n : 0), i);
        assert_addresses(i);
    }
}
static void byte_by_byte(void **state) {
    (void)state;
    run_headers(true);
}
static void at_once(void **state) {
    (void)state;
    run_headers(false);
}

static void only_the_header_is_taken(void **state) {
    (void)state;
    open_bench();
    next();
    assert_int_equal(bench_judge(&b, SV("PROXY UNKNOWN\r\nGET / HTTP/1.1\r\n"), false),
                     LISTENER_FILTER_DONE);
    assert_int_equal(b.info.consume_bytes, 15);
    next();
    assert_int_equal(bench_judge(&b, SV(V2 "\x21\x11\0\xc" V4_BODY "PROXY UNKNOWN\r\n"), false),
                     LISTENER_FILTER_DONE);
    assert_int_equal(b.info.consume_bytes, 28);
    next();
    b.info.local = (struct addr){.family = AF_INET, .port = 222, .ip = {5, 6, 7, 8}};
    assert_int_equal(bench_judge(&b, SV("PROXY TCP4 1.2.3.4 5.6.7.8 111 222\r\n"), false),
                     LISTENER_FILTER_DONE);
    assert_false(b.info.is_local_restored); /* it was so anyhow */
}

static void largest_header(void **state) {
    (void)state;
    open_bench();
    next();
    size_t n = proxy_protocol_listener_filter.max_peek_bytes;
    char *p = xcalloc(1, n);
    memcpy(p, V2 "\x20\x00", 14);
    p[14] = (char)((n - 16) >> 8);
    p[15] = (char)(n - 16);
    assert_int_equal(bench_judge(&b, sv_from(p, n - 1), false), LISTENER_FILTER_NEED_DATA);
    assert_int_equal(bench_judge(&b, sv_from(p, n), false), LISTENER_FILTER_DONE);
    assert_int_equal(b.info.consume_bytes, n);
    xfree(p);
}

static const struct {
    const char *bytes;
    size_t n;
    bool end;
    enum listener_filter_status want;
    int stat;
} optional[] = {
    {BYTES("GET / HTTP/1.1\r\n"), false, LISTENER_FILTER_DONE, NOT_FOUND_ALLOWED},
    {BYTES("PROXY TCP4 1.2.3.4 5.6.7.8 111 222\r\n"), false, LISTENER_FILTER_DONE, V1_FOUND},
    {BYTES("PROXY nonsense\r\n"), false, LISTENER_FILTER_REJECT, V1_ERROR},
    {BYTES("PR"), false, LISTENER_FILTER_NEED_DATA, -1},
    {BYTES("PR"), true, LISTENER_FILTER_DONE, NOT_FOUND_ALLOWED}, /* all there will ever be */
    {BYTES(""), true, LISTENER_FILTER_NEED_DATA, -1},
    {BYTES("\r\n\r\nx"), false, LISTENER_FILTER_DONE, NOT_FOUND_ALLOWED},
};

static void header_may_be_absent(void **state) {
    (void)state;
    m.allow_requests_without_proxy_protocol = 1;
    open_bench();
    for (size_t i = 0; i < ARRAY_LEN(optional); i++) {
        next();
        uint64_t before = optional[i].stat >= 0 ? bench_stat(&b, (unsigned)optional[i].stat) : 0;
        assert_row(bench_judge(&b, sv_from(optional[i].bytes, optional[i].n), optional[i].end) ==
                       optional[i].want,
                   i);
        assert_row(optional[i].stat < 0 || bench_stat(&b, (unsigned)optional[i].stat) == before + 1,
                   i);
    }
}

static void disallowed_versions(void **state) {
    (void)state;
    Core__ProxyProtocolConfig__Version versions[] = {CORE__PROXY_PROTOCOL_CONFIG__VERSION__V1,
                                                     CORE__PROXY_PROTOCOL_CONFIG__VERSION__V2};
    static const sv v1 = SV_INIT("PROXY UNKNOWN\r\n"), v2 = SV_INIT(V2 "\x20\x00\0\0");
    for (int k = 0; k < 2; k++) {
        m.n_disallowed_versions = 1;
        m.disallowed_versions = &versions[k];
        m.allow_requests_without_proxy_protocol = 0;
        open_bench();
        next();
        assert_int_equal(bench_judge(&b, k ? v2 : v1, false), LISTENER_FILTER_REJECT);
        assert_int_equal(bench_stat(&b, k ? V2_DISALLOWED : V1_DISALLOWED), 1);
        next();
        assert_int_equal(bench_judge(&b, k ? v1 : v2, false), LISTENER_FILTER_DONE);
        bench_close(&b);
        /* With headers optional the disallowed one is the application's business. */
        m.allow_requests_without_proxy_protocol = 1;
        open_bench();
        next();
        assert_int_equal(bench_judge(&b, k ? v2 : v1, false), LISTENER_FILTER_DONE);
        assert_int_equal(b.info.consume_bytes, 0);
        assert_int_equal(bench_stat(&b, NOT_FOUND_ALLOWED), 1);
        bench_close(&b);
    }
    m.n_disallowed_versions = 2;
    m.disallowed_versions = versions;
    assert_false(bench_open(&b, &proxy_protocol_listener_filter, &m));
    assert_true(sv_contains(diag_text(&b.d), SV("all proxy protocol versions are disallowed")));
}

static void unknown_version_in_config(void **state) {
    (void)state;
    Core__ProxyProtocolConfig__Version version = (Core__ProxyProtocolConfig__Version)7;
    m.n_disallowed_versions = 1;
    m.disallowed_versions = &version;
    assert_false(bench_open(&b, &proxy_protocol_listener_filter, &m));
    assert_sv_is(diag_text(&b.d), "disallowed_versions[0]: unknown version 7");
}

static void rules_are_refused(void **state) {
    (void)state;
    ListenerProxyProtocol__ProxyProtocol__Rule rule =
        LISTENER_PROXY_PROTOCOL__PROXY_PROTOCOL__RULE__INIT;
    ListenerProxyProtocol__ProxyProtocol__Rule *rules[] = {&rule};
    m.n_rules = 1;
    m.rules = rules;
    assert_false(bench_open(&b, &proxy_protocol_listener_filter, &m));
    assert_sv_is(diag_text(&b.d),
                 "rules: TLVs as dynamic metadata or filter state are not supported");
}

#define TLVS    \
    "\1\0\2h2"  \
    "\4\0\0"    \
    "\xea\0\1z" \
    "\4\0\1y"
static const sv with_tlvs = SV_INIT(V2 "\x21\x11\0\x1c" V4_BODY TLVS);

static void tlvs_to_pass_on(void **state) {
    (void)state;
    Core__ProxyProtocolPassThroughTLVs pass = CORE__PROXY_PROTOCOL_PASS_THROUGH_TLVS__INIT;
    uint32_t types[] = {4};
    static const struct {
        bool has, is_all;
        sv want;
    } rows[] = {
        {false, false, SV_INIT("")},
        {true, true, SV_INIT(TLVS)},
        {true, false,
         SV_INIT("\4\0\0"
                 "\4\0\1y")},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        pass.match_type =
            rows[i].is_all
                ? CORE__PROXY_PROTOCOL_PASS_THROUGH_TLVS__PASS_TLVS_MATCH_TYPE__INCLUDE_ALL
                : CORE__PROXY_PROTOCOL_PASS_THROUGH_TLVS__PASS_TLVS_MATCH_TYPE__INCLUDE;
        pass.n_tlv_type = rows[i].is_all ? 0 : 1;
        pass.tlv_type = types;
        m.pass_through_tlvs = rows[i].has ? &pass : NULL;
        open_bench();
        next();
        assert_row(bench_judge(&b, with_tlvs, false) == LISTENER_FILTER_DONE, i);
        assert_sv(b.info.proxy_tlvs, rows[i].want);
        bench_close(&b);
    }
    open_bench();
}

static void corrupted(void **state) {
    (void)state;
    Core__ProxyProtocolPassThroughTLVs pass = CORE__PROXY_PROTOCOL_PASS_THROUGH_TLVS__INIT;
    struct rng r;
    rng_seed(&r, 5);
    m.pass_through_tlvs = &pass;
    open_bench();
    for (int i = 0; i < 20000; i++) {
        size_t row = rng_below(&r, ARRAY_LEN(headers) + 1);
        char bytes[256];
        size_t n = row < ARRAY_LEN(headers) ? headers[row].n : with_tlvs.n;
        memcpy(bytes, row < ARRAY_LEN(headers) ? headers[row].bytes : with_tlvs.p, n);
        for (uint64_t k = 1 + rng_below(&r, 3); k-- > 0;) {
            bytes[rng_below(&r, n)] = (char)rng_u64(&r);
        }
        next();
        size_t cut = rng_below(&r, n) + 1;
        if (bench_judge(&b, sv_from(bytes, cut), rng_below(&r, 2)) == LISTENER_FILTER_DONE) {
            assert_true(b.info.consume_bytes <= cut);
        }
    }
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(byte_by_byte),
        TEST(at_once),
        TEST(only_the_header_is_taken),
        TEST(largest_header),
        TEST(header_may_be_absent),
        TEST(disallowed_versions),
        TEST(unknown_version_in_config),
        TEST(rules_are_refused),
        TEST(tlvs_to_pass_on),
        TEST(corrupted),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
