/* JWT authentication: which tokens and key sets are refused and why; signatures by keys made
 * here. */
#include "filters/common/jwt.h"

#include <openssl/curve25519.h>

#include "filters/common/jwks.h"
#include "proxy/base/base64.h"
#include "tests/support/unit.h"

static struct arena a;
static uint8_t public_key[32], private_key[64];

static int start(void **state) {
    (void)state;
    arena_init(&a, 0);
    ED25519_keypair(public_key, private_key);
    return 0;
}
static int end(void **state) {
    (void)state;
    arena_fini(&a);
    return 0;
}

static sv encoded(sv raw) {
    struct buf b;
    buf_init(&b);
    base64_encode(&b, raw, BASE64_URL);
    sv out = arena_sv(&a, buf_pullup(&b, buf_len(&b)));
    buf_fini(&b);
    return out;
}
static sv unsigned_token(const char *header, const char *payload) {
    return arena_printf(&a, "%.*s.%.*s.AAAA", SV_ARG(encoded(sv_cstr(header))),
                        SV_ARG(encoded(sv_cstr(payload))));
}
static sv signed_token(const char *header, const char *payload) {
    uint8_t signature[64];
    sv data = arena_printf(&a, "%.*s.%.*s", SV_ARG(encoded(sv_cstr(header))),
                           SV_ARG(encoded(sv_cstr(payload))));
    assert_true(ED25519_sign(signature, (const uint8_t *)data.p, data.n, private_key));
    return arena_printf(&a, "%.*s.%.*s", SV_ARG(data),
                        SV_ARG(encoded(sv_from(signature, sizeof signature))));
}
static struct jwks *own_keys(const char *more) {
    enum jwt_status why;
    sv x = encoded(sv_from(public_key, sizeof public_key));
    return jwks_new(
        arena_printf(&a, "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"%.*s\"%s}]}",
                     SV_ARG(x), more),
        &why);
}

#define EDDSA "{\"alg\":\"EdDSA\"}"

static void test_parts(void **state) {
    (void)state;
    static const struct {
        const char *header, *payload;
        enum jwt_status want;
    } rows[] = {
        {EDDSA, "{}", JWT_OK},
        {EDDSA, "{\"iss\":\"a\",\"sub\":\"b\",\"jti\":\"c\",\"aud\":[\"x\"],\"exp\":1,\"nbf\":0}",
         JWT_OK},
        {"{}", "{}", JWT_HEADER_BAD_ALG},
        {"{\"alg\":1}", "{}", JWT_HEADER_BAD_ALG},
        {"{\"alg\":\"none\"}", "{}", JWT_HEADER_UNKNOWN_ALG},
        {"{\"alg\":\"None\"}", "{}", JWT_HEADER_UNKNOWN_ALG},
        {"{\"alg\":\"\"}", "{}", JWT_HEADER_UNKNOWN_ALG},
        {"{\"alg\":\"rs256\"}", "{}", JWT_HEADER_UNKNOWN_ALG},
        {"{\"alg\":\"RS256\",\"kid\":{}}", "{}", JWT_HEADER_BAD_KID},
        {"{\"alg\":\"EdDSA\",\"alg\":\"none\"}", "{}", JWT_HEADER_BAD_JSON},
        {"[]", "{}", JWT_HEADER_BAD_JSON},
        {"{", "{}", JWT_HEADER_BAD_JSON},
        {"{\"alg\":\"\xff\"}", "{}", JWT_HEADER_BAD_JSON},
        {EDDSA, "", JWT_BAD_FORMAT},
        {EDDSA, "1", JWT_PAYLOAD_BAD_JSON},
        {EDDSA, "{\"iss\":\"a\",\"iss\":\"b\"}", JWT_PAYLOAD_BAD_JSON},
        {EDDSA, "{} x", JWT_PAYLOAD_BAD_JSON},
        {EDDSA, "{\"iss\":1}", JWT_ISS_NOT_STRING},
        {EDDSA, "{\"sub\":[]}", JWT_SUB_NOT_STRING},
        {EDDSA, "{\"iat\":\"1\"}", JWT_IAT_NOT_INTEGER},
        {EDDSA, "{\"iat\":-1}", JWT_IAT_OUT_OF_RANGE},
        {EDDSA, "{\"nbf\":true}", JWT_NBF_NOT_INTEGER},
        {EDDSA, "{\"nbf\":1e300}", JWT_NBF_OUT_OF_RANGE},
        {EDDSA, "{\"exp\":null}", JWT_EXP_NOT_INTEGER},
        {EDDSA, "{\"exp\":99999999999999999999}", JWT_EXP_OUT_OF_RANGE},
        {EDDSA, "{\"jti\":1}", JWT_JTI_NOT_STRING},
        {EDDSA, "{\"aud\":{}}", JWT_AUD_NOT_STRING},
        {EDDSA, "{\"aud\":[\"x\",1]}", JWT_AUD_NOT_STRING},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct jwt t;
        assert_row(
            jwt_parse(unsigned_token(rows[i].header, rows[i].payload), &a, &t) == rows[i].want, i);
    }
}

static void test_shapes(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum jwt_status want;
    } rows[] = {
        {"", JWT_BAD_FORMAT},
        {"a", JWT_BAD_FORMAT},
        {"..", JWT_BAD_FORMAT},
        {"a.b", JWT_BAD_FORMAT},
        {"a.b.", JWT_BAD_FORMAT},
        {".b.c", JWT_BAD_FORMAT},
        {"a..c", JWT_BAD_FORMAT},
        {"a.b.c.d", JWT_BAD_FORMAT},
        {"a.b.c.", JWT_BAD_FORMAT},
        {"*.b.c", JWT_HEADER_BAD_BASE64},
        {"a+/=.b.c", JWT_HEADER_BAD_BASE64},
        {"eyJhbGciOiJFZERTQSJ9.*.c", JWT_PAYLOAD_BAD_BASE64},
        {"eyJhbGciOiJFZERTQSJ9.e30.*", JWT_SIGNATURE_BAD_BASE64},
        {"eyJhbGciOiJFZERTQSJ9.e30.A", JWT_SIGNATURE_BAD_BASE64},
        {"eyJhbGciOiJFZERTQSJ9.e30.AA", JWT_OK},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct jwt t;
        assert_row(jwt_parse(sv_cstr(rows[i].text), &a, &t) == rows[i].want, i);
    }
}

static void test_depth(void **state) {
    (void)state;
    char text[512] = "{\"x\":";
    for (unsigned depth = 90; depth <= 110; depth += 10) {
        struct kv_value v;
        memset(text + 5, '[', depth);
        memset(text + 5 + depth, ']', depth);
        text[5 + 2 * depth] = '}';
        assert_int_equal(jwt_json_object(sv_from(text, 6 + 2 * depth), &a, &v), depth < 100);
    }
}

static void test_times(void **state) {
    (void)state;
    static const struct {
        uint64_t nbf, exp, now;
        enum jwt_status want;
    } rows[] = {
        {0, 0, 1000, JWT_OK},
        {0, 990, 1000, JWT_OK},
        {0, 989, 1000, JWT_EXPIRED},
        {1010, 0, 1000, JWT_OK},
        {1011, 0, 1000, JWT_NOT_YET_VALID},
        {1011, 1, 1000, JWT_NOT_YET_VALID},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct jwt t = {.nbf_s = rows[i].nbf, .exp_s = rows[i].exp};
        assert_row(jwt_check_time(&t, rows[i].now, 10) == rows[i].want, i);
    }
}

static enum jwt_status verdict(struct jwks *keys, sv token) {
    struct jwt t;
    assert_int_equal(jwt_parse(token, &a, &t), JWT_OK);
    enum jwt_status s = jwks_verify(keys, &t);
    jwks_unref(keys);
    return s;
}

static void test_signatures(void **state) {
    (void)state;
    sv good = signed_token(EDDSA, "{}");
    assert_int_equal(verdict(own_keys(""), good), JWT_OK);
    assert_int_equal(verdict(own_keys(",\"alg\":\"EdDSA\",\"kid\":\"k\""), good), JWT_OK);
    sv other = signed_token("{\"alg\":\"EdDSA\",\"kid\":\"z\"}", "{}");
    assert_int_equal(verdict(own_keys(",\"kid\":\"k\""), other), JWT_JWKS_KID_ALG_MISMATCH);
    assert_int_equal(verdict(own_keys(""), other), JWT_OK);
    /* the key signs, under another algorithm's name */
    assert_int_equal(verdict(own_keys(""), signed_token("{\"alg\":\"HS256\"}", "{}")),
                     JWT_VERIFICATION_FAIL);
    assert_int_equal(verdict(own_keys(""), unsigned_token(EDDSA, "{}")), JWT_ED25519_WRONG_LENGTH);
    sv changed = arena_sv(&a, good);
    char *last = (char *)(uintptr_t)&changed.p[changed.n - 4];
    *last = *last == 'A' ? 'B' : 'A';
    assert_int_equal(verdict(own_keys(""), changed), JWT_VERIFICATION_FAIL);
    ED25519_keypair(public_key, private_key);
    assert_int_equal(verdict(own_keys(""), good), JWT_VERIFICATION_FAIL);
}

static void test_key_sets(void **state) {
    (void)state;
    static const struct {
        const char *text;
        enum jwt_status want;
    } rows[] = {
        {"", JWT_JWKS_PARSE_ERROR},
        {"[]", JWT_JWKS_PARSE_ERROR},
        {"{}", JWT_JWKS_NO_KEYS},
        {"{\"a\":1}", JWT_JWKS_NO_KEYS},
        {"{\"a\":\"b\"}", JWT_JWKS_NO_VALID_KEYS},
        {"{\"keys\":{}}", JWT_JWKS_BAD_KEYS},
        {"{\"keys\":[]}", JWT_JWKS_NO_VALID_KEYS},
        {"{\"keys\":[1,\"x\",{}]}", JWT_JWKS_NO_VALID_KEYS},
        {"{\"keys\":[{\"kty\":\"RSA\",\"n\":\"AQ\",\"e\":\"AQ\"}]}", JWT_JWKS_NO_VALID_KEYS},
        {"{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AQ\",\"y\":\"AQ\"}]}",
         JWT_JWKS_NO_VALID_KEYS},
        {"{\"keys\":[{\"kty\":\"EC\",\"crv\":7,\"x\":\"AQ\",\"y\":\"AQ\"}]}",
         JWT_JWKS_NO_VALID_KEYS},
        {"{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AQ\"}]}", JWT_JWKS_NO_VALID_KEYS},
        {"{\"keys\":[{\"kty\":\"oct\",\"k\":\"\"}]}", JWT_JWKS_NO_VALID_KEYS},
        {"{\"keys\":[{\"kty\":\"oct\",\"k\":\"AQ\",\"alg\":\"RS256\"}]}", JWT_JWKS_NO_VALID_KEYS},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        enum jwt_status why = JWT_OK;
        assert_row(!jwks_new(sv_cstr(rows[i].text), &why) && why == rows[i].want, i);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_parts, start, end),
        cmocka_unit_test_setup_teardown(test_shapes, start, end),
        cmocka_unit_test_setup_teardown(test_depth, start, end),
        cmocka_unit_test_setup_teardown(test_times, start, end),
        cmocka_unit_test_setup_teardown(test_signatures, start, end),
        cmocka_unit_test_setup_teardown(test_key_sets, start, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
