/* Makes certificates with BoringSSL itself: no command line, no files, no fixtures that expire. */
#include "tests/support/tls_certs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <openssl/base64.h>
#include <openssl/bn.h>
#include <openssl/bytestring.h>
#include <openssl/ec_key.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/obj.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/sha2.h>
#include <openssl/x509v3.h>

#include "proxy/base/check.h"

#define DAY (24L * 3600)

static EVP_PKEY *new_ec(int nid) {
    EVP_PKEY *key = EVP_PKEY_new();
    EC_KEY *ec = EC_KEY_new_by_curve_name(nid);
    CHECK(key && ec && EC_KEY_generate_key(ec) && EVP_PKEY_assign_EC_KEY(key, ec));
    return key;
}

/* RSA keys are slow to make: one of each size serves all tests of a process. */
static EVP_PKEY *new_rsa(int bits) {
    static EVP_PKEY *cached[2];
    EVP_PKEY **slot = &cached[bits == 2048];
    if (!*slot) {
        BIGNUM *e = BN_new();
        RSA *rsa = RSA_new();
        *slot = EVP_PKEY_new();
        CHECK(e && rsa && *slot && BN_set_word(e, RSA_F4) &&
              RSA_generate_key_ex(rsa, bits, e, NULL) && EVP_PKEY_assign_RSA(*slot, rsa));
        BN_free(e);
    }
    EVP_PKEY_up_ref(*slot);
    return *slot;
}

static EVP_PKEY *new_ed25519(void) {
    EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_id(EVP_PKEY_ED25519, NULL);
    EVP_PKEY *key = NULL;
    CHECK(ctx && EVP_PKEY_keygen_init(ctx) && EVP_PKEY_keygen(ctx, &key));
    EVP_PKEY_CTX_free(ctx);
    return key;
}

static EVP_PKEY *new_key(enum test_key kind) {
    switch (kind) {
    case TEST_P256:
        return new_ec(NID_X9_62_prime256v1);
    case TEST_P384:
        return new_ec(NID_secp384r1);
    case TEST_P224:
        return new_ec(NID_secp224r1);
    case TEST_RSA2048:
        return new_rsa(2048);
    case TEST_RSA1024:
        return new_rsa(1024);
    case TEST_ED25519:
        return new_ed25519();
    }
    return NULL;
}

static char *bio_text(BIO *bio) {
    const uint8_t *p;
    size_t n;
    CHECK(BIO_mem_contents(bio, &p, &n));
    char *out = malloc(n + 1);
    memcpy(out, p, n);
    out[n] = '\0';
    BIO_free(bio);
    return out;
}

static char *cert_pem(X509 *x) {
    BIO *bio = BIO_new(BIO_s_mem());
    CHECK(PEM_write_bio_X509(bio, x));
    return bio_text(bio);
}

static char *key_pem(EVP_PKEY *key) {
    BIO *bio = BIO_new(BIO_s_mem());
    CHECK(PEM_write_bio_PKCS8PrivateKey(bio, key, NULL, NULL, 0, NULL, NULL));
    return bio_text(bio);
}

static void add_ext(X509 *x, X509 *issuer, int nid, const char *value) {
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_nconf_nid(NULL, &ctx, nid, value);
    CHECK(ext && X509_add_ext(x, ext, -1));
    X509_EXTENSION_free(ext);
}

static void add_must_staple(X509 *x) {
    ASN1_OBJECT *oid = OBJ_txt2obj("1.3.6.1.5.5.7.1.24", 1);
    ASN1_OCTET_STRING *data = ASN1_OCTET_STRING_new();
    CHECK(oid && data && ASN1_STRING_set(data, "\x30\x03\x02\x01\x05", 5));
    X509_EXTENSION *ext = X509_EXTENSION_create_by_OBJ(NULL, oid, 0, data);
    CHECK(ext && X509_add_ext(x, ext, -1));
    X509_EXTENSION_free(ext);
    ASN1_OCTET_STRING_free(data);
    ASN1_OBJECT_free(oid);
}

static void set_names(X509 *x, const struct test_cert_spec *spec, X509 *issuer) {
    X509_NAME *name = X509_get_subject_name(x);
    if (spec->cn) {
        CHECK(X509_NAME_add_entry_by_txt(name, "O", MBSTRING_UTF8, (const uint8_t *)"Test, Inc.",
                                         -1, -1, 0));
        CHECK(X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_UTF8, (const uint8_t *)spec->cn, -1,
                                         -1, 0));
    }
    CHECK(X509_set_issuer_name(x, X509_get_subject_name(issuer)));
}

static void set_extensions(X509 *x, const struct test_cert_spec *spec, X509 *issuer) {
    add_ext(x, issuer, NID_basic_constraints,
            spec->is_ca ? "critical,CA:TRUE" : "critical,CA:FALSE");
    add_ext(x, issuer, NID_key_usage,
            spec->is_ca ? "critical,keyCertSign,cRLSign"
                        : "critical,digitalSignature,keyEncipherment");
    if (spec->sans) {
        add_ext(x, issuer, NID_subject_alt_name, spec->sans);
    }
    if (spec->client_only) {
        add_ext(x, issuer, NID_ext_key_usage, "clientAuth");
    }
    if (spec->must_staple) {
        add_must_staple(x);
    }
}

static const EVP_MD *digest_for(const EVP_PKEY *key) {
    return EVP_PKEY_id(key) == EVP_PKEY_ED25519 ? NULL : EVP_sha256();
}

struct test_cert *test_cert_new(const struct test_cert_spec *spec) {
    struct test_cert *c = calloc(1, sizeof *c);
    bool dated = spec->not_before_s || spec->not_after_s;
    c->key = new_key(spec->key);
    c->x = X509_new();
    X509 *issuer = spec->issuer ? spec->issuer->x : c->x;
    EVP_PKEY *signer = spec->issuer ? spec->issuer->key : c->key;
    CHECK(X509_set_version(c->x, X509_VERSION_3));
    CHECK(ASN1_INTEGER_set_int64(X509_get_serialNumber(c->x), spec->serial ? spec->serial : 1000));
    CHECK(X509_gmtime_adj(X509_getm_notBefore(c->x), dated ? spec->not_before_s : -DAY));
    CHECK(X509_gmtime_adj(X509_getm_notAfter(c->x), dated ? spec->not_after_s : 30 * DAY + 3600));
    CHECK(X509_set_pubkey(c->x, c->key));
    set_names(c->x, spec, issuer);
    set_extensions(c->x, spec, issuer);
    CHECK(X509_sign(c->x, signer, digest_for(signer)));
    c->pem = cert_pem(c->x);
    c->key_pem = key_pem(c->key);
    return c;
}

void test_cert_free(struct test_cert *c) {
    if (c) {
        X509_free(c->x);
        EVP_PKEY_free(c->key);
        free(c->pem);
        free(c->key_pem);
        free(c);
    }
}

char *test_chain_pem(const struct test_cert *const *v, unsigned n) {
    size_t len = 1;
    for (unsigned i = 0; i < n; i++) {
        len += strlen(v[i]->pem);
    }
    char *out = malloc(len);
    size_t at = 0;
    for (unsigned i = 0; i < n; i++) {
        size_t one = strlen(v[i]->pem);
        memcpy(out + at, v[i]->pem, one);
        at += one;
    }
    out[at] = '\0';
    return out;
}

char *test_crl_pem(const struct test_cert *issuer, const long *serials, unsigned n) {
    X509_CRL *crl = X509_CRL_new();
    ASN1_TIME *now = ASN1_TIME_adj(NULL, time(NULL), 0, -60);
    ASN1_TIME *next = ASN1_TIME_adj(NULL, time(NULL), 7, 0);
    CHECK(crl && now && next && X509_CRL_set_version(crl, X509_CRL_VERSION_2));
    CHECK(X509_CRL_set_issuer_name(crl, X509_get_subject_name(issuer->x)));
    CHECK(X509_CRL_set1_lastUpdate(crl, now) && X509_CRL_set1_nextUpdate(crl, next));
    for (unsigned i = 0; i < n; i++) {
        X509_REVOKED *r = X509_REVOKED_new();
        ASN1_INTEGER *serial = ASN1_INTEGER_new();
        CHECK(r && serial && ASN1_INTEGER_set_int64(serial, serials[i]));
        CHECK(X509_REVOKED_set_serialNumber(r, serial) && X509_REVOKED_set_revocationDate(r, now));
        CHECK(X509_CRL_add0_revoked(crl, r));
        ASN1_INTEGER_free(serial);
    }
    CHECK(X509_CRL_sign(crl, issuer->key, EVP_sha256()));
    BIO *bio = BIO_new(BIO_s_mem());
    CHECK(PEM_write_bio_X509_CRL(bio, crl));
    X509_CRL_free(crl);
    ASN1_TIME_free(now);
    ASN1_TIME_free(next);
    return bio_text(bio);
}

static void add_time(CBB *in, long from_now_s) {
    CBB text;
    char s[32];
    struct tm tm;
    time_t t = time(NULL) + from_now_s;
    CHECK(gmtime_r(&t, &tm));
    size_t n = strftime(s, sizeof s, "%Y%m%d%H%M%SZ", &tm);
    CHECK(CBB_add_asn1(in, &text, CBS_ASN1_GENERALIZEDTIME) &&
          CBB_add_bytes(&text, (const uint8_t *)s, n) && CBB_flush(in));
}

size_t test_ocsp_der(long serial, long next_update_s, unsigned char out[512]) {
    static const uint8_t basic[] = {0x2b, 0x06, 0x01, 0x05, 0x05, 0x07, 0x30, 0x01, 0x01};
    static const uint8_t sha1[] = {0x2b, 0x0e, 0x03, 0x02, 0x1a};
    CBB cbb, response, status, wrap, bytes, oid, octets, b, data, responder, list, single, id, alg,
        child;
    uint8_t hash[20] = {1};
    const unsigned ctx = CBS_ASN1_CONSTRUCTED | CBS_ASN1_CONTEXT_SPECIFIC;
    CHECK(CBB_init_fixed(&cbb, out, 512));
    CHECK(CBB_add_asn1(&cbb, &response, CBS_ASN1_SEQUENCE));
    CHECK(CBB_add_asn1(&response, &status, CBS_ASN1_ENUMERATED) && CBB_add_u8(&status, 0));
    CHECK(CBB_add_asn1(&response, &wrap, ctx | 0) &&
          CBB_add_asn1(&wrap, &bytes, CBS_ASN1_SEQUENCE));
    CHECK(CBB_add_asn1(&bytes, &oid, CBS_ASN1_OBJECT) && CBB_add_bytes(&oid, basic, sizeof basic));
    CHECK(CBB_add_asn1(&bytes, &octets, CBS_ASN1_OCTETSTRING));
    CHECK(CBB_add_asn1(&octets, &b, CBS_ASN1_SEQUENCE) &&
          CBB_add_asn1(&b, &data, CBS_ASN1_SEQUENCE));
    CHECK(CBB_add_asn1(&data, &responder, ctx | 2) &&
          CBB_add_asn1_octet_string(&responder, hash, sizeof hash));
    add_time(&data, -60);
    CHECK(CBB_add_asn1(&data, &list, CBS_ASN1_SEQUENCE) &&
          CBB_add_asn1(&list, &single, CBS_ASN1_SEQUENCE));
    CHECK(CBB_add_asn1(&single, &id, CBS_ASN1_SEQUENCE) &&
          CBB_add_asn1(&id, &alg, CBS_ASN1_SEQUENCE));
    CHECK(CBB_add_asn1(&alg, &child, CBS_ASN1_OBJECT) && CBB_add_bytes(&child, sha1, sizeof sha1));
    CHECK(CBB_add_asn1_octet_string(&id, hash, sizeof hash) &&
          CBB_add_asn1_octet_string(&id, hash, sizeof hash));
    CHECK(CBB_add_asn1_uint64(&id, (uint64_t)serial));
    CHECK(CBB_add_asn1(&single, &child, CBS_ASN1_CONTEXT_SPECIFIC | 0)); /* good */
    add_time(&single, -60);
    CHECK(CBB_add_asn1(&single, &child, ctx | 0));
    add_time(&child, next_update_s);
    size_t n = 0;
    CHECK(CBB_finish(&cbb, NULL, &n));
    return n;
}

char *test_encrypted_key_pem(const struct test_cert *c, const char *password) {
    BIO *bio = BIO_new(BIO_s_mem());
    CHECK(PEM_write_bio_PKCS8PrivateKey(bio, c->key, EVP_aes_256_cbc(), password,
                                        (int)strlen(password), NULL, NULL));
    return bio_text(bio);
}

char *test_cert_hash(const struct test_cert *c, bool colons) {
    uint8_t hash[32];
    unsigned n;
    CHECK(X509_digest(c->x, EVP_sha256(), hash, &n));
    char *out = calloc(1, 100);
    for (unsigned i = 0; i < n; i++) {
        snprintf(out + strlen(out), 4, "%02x%s", hash[i], colons && i + 1 < n ? ":" : "");
    }
    return out;
}

char *test_cert_spki(const struct test_cert *c) {
    uint8_t *der = NULL;
    uint8_t hash[32];
    int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(c->x), &der);
    CHECK(n > 0);
    SHA256(der, (size_t)n, hash);
    OPENSSL_free(der);
    char *out = calloc(1, 64);
    EVP_EncodeBlock((uint8_t *)out, hash, sizeof hash);
    return out;
}
