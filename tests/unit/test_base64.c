/* Base64: RFC 4648's vectors both ways, both alphabets, what must be refused. */
#include "proxy/base/base64.h"

#include "tests/support/unit.h"

static void assert_round(sv bytes, enum base64_alphabet alphabet, const char *text) {
    struct buf out BUF_AUTO;
    char back[64];
    buf_init(&out);
    base64_encode(&out, bytes, alphabet);
    assert_sv_is(buf_pullup(&out, buf_len(&out)), text);
    size_t n = base64_decode(sv_cstr(text), alphabet, back);
    assert_sv(sv_from(back, n), bytes);
}

static void test_vectors(void **state) {
    (void)state;
    static const struct {
        const char *bytes, *standard, *url;
    } rows[] = {
        {"", "", ""},
        {"f", "Zg==", "Zg"},
        {"fo", "Zm8=", "Zm8"},
        {"foo", "Zm9v", "Zm9v"},
        {"foob", "Zm9vYg==", "Zm9vYg"},
        {"fooba", "Zm9vYmE=", "Zm9vYmE"},
        {"foobar", "Zm9vYmFy", "Zm9vYmFy"},
        {"\xfb\xef\xff", "++//", "--__"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_round(sv_cstr(rows[i].bytes), BASE64_STANDARD, rows[i].standard);
        assert_round(sv_cstr(rows[i].bytes), BASE64_URL, rows[i].url);
    }
}

static void test_long_input(void **state) {
    (void)state;
    static char in[5000], back[BASE64_DECODED_MAX(8000)];
    for (size_t i = 0; i < sizeof(in); i++) {
        in[i] = (char)(i * 7);
    }
    struct buf out BUF_AUTO;
    buf_init(&out);
    base64_encode(&out, sv_from(in, sizeof(in)), BASE64_STANDARD);
    assert_int_equal(buf_len(&out), (sizeof(in) + 2) / 3 * 4);
    sv text = buf_pullup(&out, buf_len(&out));
    assert_sv(sv_from(back, base64_decode(text, BASE64_EITHER, back)), sv_from(in, sizeof(in)));
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum base64_alphabet alphabet;
    } rows[] = {
        {"Z", BASE64_EITHER},      {"Zg=", BASE64_EITHER},    {"Zg===", BASE64_EITHER},
        {"Z===", BASE64_EITHER},   {"Zg==Zg", BASE64_EITHER}, {"Zm 9v", BASE64_EITHER},
        {"Zm9v\n", BASE64_EITHER}, {"=", BASE64_EITHER},      {"--__", BASE64_STANDARD},
        {"++//", BASE64_URL},      {"Zm9v!", BASE64_EITHER},  {"\xff\xff\xff\xff", BASE64_EITHER},
    };
    char out[16];
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_row(base64_decode(sv_cstr(rows[i].text), rows[i].alphabet, out) == SIZE_MAX, i);
    }
    assert_int_equal(base64_decode(SV("+/-_"), BASE64_EITHER, out), 3);
}

static int free_caches(void **state) {
    (void)state;
    chunk_cache_trim();
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_long_input),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, free_caches);
}
