/* Upstream PROXY headers: their bytes, and configurations that are refused. (Connections:
 * integration and parity.) */
#include <sys/socket.h>

#include "protos/gen/core.pb-c.h"
#include "protos/gen/transport_proxy_protocol.pb-c.h"
#include "proxy/api/proxy_tlv.h"
#include "proxy/net/proxy_header.h"
#include "tests/support/test_compile.h"
#include "tests/support/unit.h"

static struct buf out;

static int open_out(void **state) {
    buf_init(&out);
    return start(state);
}
static int close_out(void **state) {
    buf_fini(&out);
    return end(state);
}

static sv bytes(void) { return buf_pullup(&out, buf_len(&out)); }

static struct addr address(const char *text) {
    struct addr a = {0};
    if (text[0] == '/') {
        addr_set_path(&a, text);
    } else {
        assert_true(addr_parse_ip_port(sv_cstr(text), &a));
    }
    return a;
}

static void lines(void **state) {
    (void)state;
    static const struct {
        const char *from, *to, *want;
    } rows[] = {
        {"1.2.3.4:5", "6.7.8.9:65535", "PROXY TCP4 1.2.3.4 6.7.8.9 5 65535\r\n"},
        {"[::1]:5", "[2001:db8::2]:6", "PROXY TCP6 ::1 2001:db8::2 5 6\r\n"},
        {"1.2.3.4:5", "[::2]:6", "PROXY TCP6 ::ffff:1.2.3.4 ::2 5 6\r\n"},
        {"[::2]:6", "1.2.3.4:5", "PROXY TCP6 ::2 ::ffff:1.2.3.4 6 5\r\n"},
        {"/client", "1.2.3.4:5", "PROXY UNKNOWN\r\n"},
        {"1.2.3.4:5", "/server", "PROXY UNKNOWN\r\n"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct addr from = address(rows[i].from), to = address(rows[i].to);
        proxy_header_v1(&out, &from, &to);
        assert_sv_is(bytes(), rows[i].want);
        buf_clear(&out);
    }
}

#define SIGNATURE "\r\n\r\n\0\r\nQUIT\n"

static void binary(void **state) {
    (void)state;
    static const struct {
        const char *from, *to;
        sv tlvs, want;
    } rows[] = {
        {"1.2.3.4:256", "5.6.7.8:2", SV_INIT(""),
         SV_INIT(SIGNATURE "\x21\x11\0\x0c\1\2\3\4\5\6\7\x8\1\0\0\2")},
        {"1.2.3.4:256", "5.6.7.8:2", SV_INIT("\xe0\0\1x"),
         SV_INIT(SIGNATURE "\x21\x11\0\x10\1\2\3\4\5\6\7\x8\1\0\0\2\xe0\0\1x")},
        {"[::1]:1", "9.8.7.6:2", SV_INIT(""),
         SV_INIT(SIGNATURE "\x21\x21\0\x24\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\1"
                           "\0\0\0\0\0\0\0\0\0\0\xff\xff\x9\x8\7\6\0\1\0\2")},
        {"/client", "/server", SV_INIT("\xe0\0\1x"), SV_INIT(SIGNATURE "\x21\0\0\4\xe0\0\1x")},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct addr from = address(rows[i].from), to = address(rows[i].to);
        assert_row(proxy_header_v2(&out, &from, &to, rows[i].tlvs), i);
        assert_sv(bytes(), rows[i].want);
        buf_clear(&out);
    }
    proxy_header_v2_local(&out);
    assert_sv(bytes(), SV(SIGNATURE "\x20\0\0\0"));
}

/* What does not fit is not cut: nothing is written. */
static void limits(void **state) {
    (void)state;
    static char tlvs[65536];
    struct addr v4 = address("1.2.3.4:5"), v6 = address("[::1]:5"), path = address("/p");
    static const size_t room[] = {65535 - 12, 65535 - 36, 65535};
    const struct addr *const ends[] = {&v4, &v6, &path};
    for (size_t i = 0; i < ARRAY_LEN(room); i++) {
        assert_row(!proxy_header_v2(&out, ends[i], ends[i], sv_from(tlvs, room[i] + 1)), i);
        assert_row(buf_empty(&out), i);
        assert_row(proxy_header_v2(&out, ends[i], ends[i], sv_from(tlvs, room[i])), i);
        assert_row(buf_len(&out) == 16 + 65535, i);
        buf_clear(&out);
    }
}

static void cutting(void **state) {
    (void)state;
    static const struct {
        sv bytes;
        size_t n, left;
    } rows[] = {
        {SV_INIT(""), 0, 0},
        {SV_INIT("\1\0\0"), 1, 0},
        {SV_INIT("\1\0\2ab\xff\0\1c"), 2, 0},
        {SV_INIT("\1\0\2ab\xff\0"), 1, 2},
        {SV_INIT("\1\0\3ab"), 0, 5},
        {SV_INIT("\1\xff\xff"), 0, 3},
        {SV_INIT("\1"), 0, 1},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        sv rest = rows[i].bytes;
        size_t n = 0;
        while (proxy_tlv_cut(&rest).n) {
            n++;
        }
        assert_row(n == rows[i].n && rest.n == rows[i].left, i);
    }
}

static void entries(void **state) {
    (void)state;
    static uint8_t large[65536];
    Core__SubstitutionFormatString format = CORE__SUBSTITUTION_FORMAT_STRING__INIT;
    Core__TlvEntry good = CORE__TLV_ENTRY__INIT, empty = good, long_one = good, dynamic = good;
    good.type = 0xe0;
    good.value = (ProtobufCBinaryData){2, (uint8_t *)(uintptr_t) "ab"};
    long_one.value = (ProtobufCBinaryData){sizeof(large), large};
    dynamic.format_string = &format;
    const struct {
        const Core__TlvEntry *v[2];
        const char *error;
    } rows[] = {
        {{&good, &empty}, "added_tlvs[1]: value: length must be between 1 and 65535 bytes"},
        {{&long_one, &good}, "added_tlvs[0]: value: length must be between 1 and 65535 bytes"},
        {{&good, &dynamic}, "added_tlvs[1]: format_string: only a fixed value is supported here"},
        {{&good, &good}, NULL},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        sv wire = SV_NULL;
        bool ok =
            compile_added_tlvs(&f.ctx, "added_tlvs", (const void *const *)rows[i].v, 2, &wire);
        assert_row(ok == !rows[i].error, i);
        if (rows[i].error) {
            assert_non_null(strstr(diag_text(f.ctx.diag).p, rows[i].error));
        } else {
            assert_sv(wire, SV("\xe0\0\2ab\xe0\0\2ab"));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(lines, open_out, close_out),
        cmocka_unit_test_setup_teardown(binary, open_out, close_out),
        cmocka_unit_test_setup_teardown(limits, open_out, close_out),
        cmocka_unit_test(cutting),
        cmocka_unit_test_setup_teardown(entries, open_out, close_out),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
