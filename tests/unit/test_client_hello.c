/* ClientHello reading: whole, byte by byte, over many records, cut and corrupted anywhere; known
 * fingerprints. */
#include "filters/common/client_hello.h"
#include "proxy/base/rand.h"
#include "tests/support/client_hello_bytes.h"
#include "tests/support/unit.h"

#define MAX 16384u
static const uint16_t ciphers[] = {0x1301, 0x1302, 0xc02f};
static const char *const protocols[] = {"h2", "http/1.1"};

static struct arena arena;
static struct buf stream;

static int setup(void **state) {
    (void)state;
    arena_init(&arena, 0);
    buf_init(&stream);
    return 0;
}
static int teardown(void **state) {
    (void)state;
    arena_fini(&arena);
    buf_fini(&stream);
    chunk_cache_trim();
    return 0;
}

static void make(size_t piece) {
    BUF_AUTO struct buf exts, message;
    buf_init(&exts);
    buf_init(&message);
    put_sni(&exts, SV("Www.Example.com"));
    put_alpn(&exts, protocols, 2);
    put_message(&message, 0x0303, ciphers, ARRAY_LEN(ciphers), &exts);
    buf_clear(&stream);
    put_records(&stream, &message, piece);
}
static sv all(void) { return buf_pullup(&stream, buf_len(&stream)); }

/* A copy of exactly n bytes, so that the sanitizer sees any read past them. */
static sv exact(sv s, size_t n) {
    char *p = arena_alloc(&arena, n);
    memcpy(p, s.p, n);
    return sv_from(p, n);
}

static void prefixes_and_whole(void **state) {
    (void)state;
    static const size_t pieces[] = {16384, 100, 50, 5, 4, 3};
    for (size_t k = 0; k < ARRAY_LEN(pieces); k++) {
        make(pieces[k]);
        struct client_hello h;
        sv whole = all();
        for (size_t n = 0; n < whole.n; n++) {
            assert_row(client_hello_read(exact(whole, n), MAX, &arena, &h) == CLIENT_HELLO_MORE, n);
        }
        assert_row(client_hello_read(exact(whole, whole.n), MAX, &arena, &h) == CLIENT_HELLO_OK, k);
        assert_sv_is(h.server_name, "Www.Example.com");
        assert_int_equal(h.bytes, whole.n);
        assert_int_equal(h.version, 0x0303);
        sv list = h.alpn, name;
        assert_true(client_hello_next_alpn(&list, &name));
        assert_sv_is(name, "h2");
        assert_true(client_hello_next_alpn(&list, &name));
        assert_sv_is(name, "http/1.1");
        assert_false(client_hello_next_alpn(&list, &name));
    }
}

static void pieces_are_limited(void **state) {
    (void)state;
    struct client_hello h;
    make(1); /* over a hundred records */
    sv whole = all();
    assert_int_equal(client_hello_read(whole, MAX, &arena, &h), CLIENT_HELLO_MALFORMED);
}

static void trailing_bytes_are_not_ours(void **state) {
    (void)state;
    struct client_hello h;
    make(16384);
    size_t n = buf_len(&stream);
    buf_lit(&stream, "\x17\x03\x03 early data");
    assert_int_equal(client_hello_read(all(), MAX, &arena, &h), CLIENT_HELLO_OK);
    assert_int_equal(h.bytes, n);
}

static const struct {
    const char *bytes;
    size_t n;
    enum client_hello_result want;
} streams[] = {
    {"", 0, CLIENT_HELLO_MORE},
    {"G", 1, CLIENT_HELLO_NOT_TLS},
    {"GET / HTTP/1.1\r\n", 16, CLIENT_HELLO_NOT_TLS},
    {"\x16", 1, CLIENT_HELLO_MORE},
    {"\x16\x02", 2, CLIENT_HELLO_NOT_TLS},
    {"\x16\x03\x01", 3, CLIENT_HELLO_MORE},
    {"\x16\x03\x01\x00\x00", 5, CLIENT_HELLO_MALFORMED}, /* empty record */
    {"\x16\x03\x01\x40\x01", 5, CLIENT_HELLO_MALFORMED}, /* record over 2^14 */
    {"\x16\x03\x01\xff\xff", 5, CLIENT_HELLO_MALFORMED},
    {"\x16\x03\x01\x00\x05\x02", 6, CLIENT_HELLO_MALFORMED}, /* ServerHello */
    {"\x16\x03\x01\x00\x05\x01\x00\x40\x00", 9, CLIENT_HELLO_TOO_LARGE},
    {"\x16\x03\x01\x00\x05\x01\xff\xff\xff", 9, CLIENT_HELLO_TOO_LARGE},
    {"\x16\x03\x01\x00\x04\x01\x00\x00\x00", 9, CLIENT_HELLO_MALFORMED}, /* empty message */
    {"\x16\x03\x01\x00\x02\x01\x00\x15\x03\x01\x00\x02xx", 14,
     CLIENT_HELLO_MALFORMED}, /* an alert in between */
    {"\x15\x03\x01\x00\x02\x02\x28", 7, CLIENT_HELLO_NOT_TLS},
    {"\x80\x2e\x01\x03\x01", 5, CLIENT_HELLO_NOT_TLS}, /* SSLv2 */
};

static void odd_streams(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(streams); i++) {
        struct client_hello h;
        sv bytes = exact(sv_from(streams[i].bytes, streams[i].n), streams[i].n);
        assert_row(client_hello_read(bytes, MAX, &arena, &h) == streams[i].want, i);
    }
}

static const struct {
    unsigned type;
    const char *bytes;
    size_t n;
    bool is_fine;
} extensions[] = {
    {0,
     "\x00\x04\x00\x00\x01"
     "a",
     6, true},
    {0, "", 0, false},
    {0, "\x00\x00", 2, false},
    {0, "\x00\x03\x00\x00\x00", 5, false}, /* empty name */
    {0,
     "\x00\x04\x01\x00\x01"
     "a",
     6, false}, /* another kind of name */
    {0,
     "\x00\x04\x00\x00\x02"
     "a",
     6, false}, /* longer than the list */
    {0,
     "\x00\x04\x00\x00\x01"
     "ab",
     7, false}, /* more behind the list */
    {0,
     "\x00\x08\x00\x00\x01"
     "a\x00\x00\x01"
     "b",
     10, false}, /* two names */
    {0,
     "\x00\x05\x00\x00\x02"
     "a\0",
     7, false}, /* NUL */
    {16, "\x00\x03\x02h2", 5, true},
    {16, "", 0, false},
    {16, "\x00\x00", 2, false},
    {16, "\x00\x01\x00", 3, false}, /* empty protocol */
    {16, "\x00\x03\x03h2", 5, false},
    {16, "\x00\x04\x02h2", 5, false},
    {16, "\x00\x03\x02h2x", 6, false},
    {10, "\x00\x02\x00\x1d", 4, true},
    {10, "\x00\x01\x00", 3, false},
    {10, "\x00\x02\x00\x1d\x00", 5, false},
    {11, "\x01\x00", 2, true},
    {11, "\x02\x00", 2, false},
    {13, "\x00\x03\x04\x03\x08", 5, false},
    {43, "\x04\x03\x04\x03\x03", 5, true},
    {43, "\x03\x03\x04\x03", 4, false},
    {0x4469, "anything", 8, true},
};

static void odd_extensions(void **state) {
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(extensions); i++) {
        BUF_AUTO struct buf exts, message;
        buf_init(&exts);
        buf_init(&message);
        put_ext_raw(&exts, extensions[i].type, extensions[i].bytes, extensions[i].n);
        put_message(&message, 0x0303, ciphers, ARRAY_LEN(ciphers), &exts);
        buf_clear(&stream);
        put_records(&stream, &message, 16384);
        struct client_hello h;
        enum client_hello_result got =
            client_hello_read(exact(all(), buf_len(&stream)), MAX, &arena, &h);
        assert_row(got == (extensions[i].is_fine ? CLIENT_HELLO_OK : CLIENT_HELLO_MALFORMED), i);
    }
}

static void names_given_twice(void **state) {
    (void)state;
    BUF_AUTO struct buf exts, message;
    buf_init(&exts);
    buf_init(&message);
    put_sni(&exts, SV("a.com"));
    put_sni(&exts, SV("b.com"));
    put_message(&message, 0x0303, ciphers, ARRAY_LEN(ciphers), &exts);
    put_records(&stream, &message, 16384);
    struct client_hello h;
    assert_int_equal(client_hello_read(all(), MAX, &arena, &h), CLIENT_HELLO_MALFORMED);
}

static void large_ones(void **state) {
    (void)state;
    static char padding[17000];
    static const struct {
        size_t padding, max;
        enum client_hello_result want;
    } rows[] = {
        {16000, MAX, CLIENT_HELLO_OK},
        {16400, MAX, CLIENT_HELLO_TOO_LARGE},
        {300, 256, CLIENT_HELLO_TOO_LARGE},
        {100, 256, CLIENT_HELLO_OK},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        BUF_AUTO struct buf exts, message;
        buf_init(&exts);
        buf_init(&message);
        put_ext_raw(&exts, 21, padding, rows[i].padding);
        put_message(&message, 0x0303, ciphers, ARRAY_LEN(ciphers), &exts);
        buf_clear(&stream);
        put_records(&stream, &message, 16384);
        struct client_hello h;
        sv bytes = sv_sub(all(), 0, rows[i].max);
        assert_row(client_hello_read(bytes, rows[i].max, &arena, &h) == rows[i].want, i);
    }
}

/* Any byte changed, any length cut: an answer, and no read outside. */
static void corrupted(void **state) {
    (void)state;
    struct rng r;
    rng_seed(&r, 3);
    for (int i = 0; i < 20000; i++) {
        struct arena a;
        arena_init(&a, 0);
        make(rng_below(&r, 2) ? 16384 : 20 + rng_below(&r, 60));
        sv whole = all();
        size_t n = rng_below(&r, 4) ? whole.n : rng_below(&r, whole.n);
        char *p = arena_alloc(&a, n);
        memcpy(p, whole.p, n);
        for (uint64_t k = rng_below(&r, 4); k-- > 0 && n;) {
            p[rng_below(&r, n)] = (char)rng_u64(&r);
        }
        struct client_hello h;
        if (client_hello_read(sv_from(p, n), MAX, &a, &h) == CLIENT_HELLO_OK) {
            client_hello_ja3(&h, &a);
            client_hello_ja4(&h, &a);
        }
        arena_fini(&a);
    }
}

/* The example of the JA3 description. */
static void known_ja3(void **state) {
    (void)state;
    static const uint16_t suites[] = {0x0a0a, 47,    53, 5,  10, 49161, 49162,
                                      49171,  49172, 50, 56, 19, 4};
    static const uint16_t groups[] = {0xfafa, 23, 24, 25};
    BUF_AUTO struct buf exts, message;
    buf_init(&exts);
    buf_init(&message);
    put_ext_raw(&exts, 0x1a1a, "", 0);
    put_sni(&exts, SV("x"));
    put_u16_ext(&exts, 10, 2, groups, ARRAY_LEN(groups));
    put_ext_raw(&exts, 11, "\x01\x00", 2);
    put_message(&message, 769, suites, ARRAY_LEN(suites), &exts);
    put_records(&stream, &message, 16384);
    struct client_hello h;
    assert_int_equal(client_hello_read(all(), MAX, &arena, &h), CLIENT_HELLO_OK);
    assert_sv_is(client_hello_ja3(&h, &arena), "ada70206e40642a3e4461f35503241d5");
}

/* The example of the JA4 description. */
static void known_ja4(void **state) {
    (void)state;
    static const uint16_t suites[] = {0x2a2a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f,
                                      0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0xc014,
                                      0x009c, 0x009d, 0x002f, 0x0035};
    static const uint16_t signatures[] = {0x0403, 0x0804, 0x0401, 0x0503,
                                          0x0805, 0x0501, 0x0806, 0x0601};
    static const uint16_t versions[] = {0x6a6a, 0x0304, 0x0303};
    static const uint16_t groups[] = {0x001d};
    static const uint16_t empty[] = {0x001b, 0x4469, 0x0017, 0xff01, 0x002d,
                                     0x0005, 0x0023, 0x0012, 0x0033, 0x0015};
    BUF_AUTO struct buf exts, message;
    buf_init(&exts);
    buf_init(&message);
    put_ext_raw(&exts, 0x3a3a, "", 0);
    for (size_t i = 0; i < ARRAY_LEN(empty); i++) {
        put_ext_raw(&exts, empty[i], "", 0);
    }
    put_sni(&exts, SV("x"));
    put_alpn(&exts, protocols, 2);
    put_u16_ext(&exts, 10, 2, groups, 1);
    put_ext_raw(&exts, 11, "\x01\x00", 2);
    put_u16_ext(&exts, 13, 2, signatures, ARRAY_LEN(signatures));
    put_u16_ext(&exts, 43, 1, versions, ARRAY_LEN(versions));
    put_message(&message, 0x0303, suites, ARRAY_LEN(suites), &exts);
    put_records(&stream, &message, 16384);
    struct client_hello h;
    assert_int_equal(client_hello_read(all(), MAX, &arena, &h), CLIENT_HELLO_OK);
    assert_sv_is(client_hello_ja4(&h, &arena), "t13d1516h2_8daaf6152771_e5627efa2ab1");
}

static void ja4_of_little(void **state) {
    (void)state;
    static const uint16_t suites[] = {0x0a0a};
    static const char *const odd[] = {"\xab\xcd"};
    BUF_AUTO struct buf exts, message;
    buf_init(&exts);
    buf_init(&message);
    put_alpn(&exts, odd, 1);
    put_message(&message, 0x0302, suites, 1, &exts);
    put_records(&stream, &message, 16384);
    struct client_hello h;
    assert_int_equal(client_hello_read(all(), MAX, &arena, &h), CLIENT_HELLO_OK);
    assert_sv_is(client_hello_ja4(&h, &arena), "t11i0001ad_000000000000_000000000000");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        TEST(prefixes_and_whole), TEST(pieces_are_limited), TEST(trailing_bytes_are_not_ours),
        TEST(odd_streams),        TEST(odd_extensions),     TEST(names_given_twice),
        TEST(large_ones),         TEST(corrupted),          TEST(known_ja3),
        TEST(known_ja4),          TEST(ja4_of_little),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
