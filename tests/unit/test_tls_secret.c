/* Secrets: PEM and PKCS#12 parsing, refusals with their texts, sharing by content, watches. */
#include <stdio.h>

#include <openssl/mem.h>
#include <openssl/pkcs8.h>

#include "protos/gen/core.pb-c.h"
#include "protos/gen/tls.pb-c.h"
#include "protos/gen/type_matcher.pb-c.h"
#include "proxy/net/tls_cert.h"
#include "proxy/net/tls_verify.h"
#include "tests/support/tls_certs.h"
#include "tests/support/unit.h"

static struct {
    struct test_cert *ca, *leaf, *other, *rsa, *weak_rsa, *weak_ec, *ed, *staple;
    char *chain, *encrypted, *crl;
} certs;

static struct test_cert *leaf_of(enum test_key key, bool must_staple) {
    return test_cert_new(&(struct test_cert_spec){.cn = "leaf",
                                                  .sans = "DNS:leaf.test",
                                                  .issuer = certs.ca,
                                                  .key = key,
                                                  .must_staple = must_staple});
}

static int setup(void **state) {
    (void)state;
    certs.ca = test_cert_new(&(struct test_cert_spec){.cn = "Root", .is_ca = true});
    certs.leaf = leaf_of(TEST_P256, false);
    certs.other = leaf_of(TEST_P256, false);
    certs.rsa = leaf_of(TEST_RSA2048, false);
    certs.weak_rsa = leaf_of(TEST_RSA1024, false);
    certs.weak_ec = leaf_of(TEST_P224, false);
    certs.ed = leaf_of(TEST_ED25519, false);
    certs.staple = leaf_of(TEST_P384, true);
    certs.chain = test_chain_pem((const struct test_cert *[]){certs.leaf, certs.ca}, 2);
    certs.encrypted = test_encrypted_key_pem(certs.leaf, "sesame");
    certs.crl = test_crl_pem(certs.ca, (long[]){77}, 1);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    struct test_cert *all[] = {certs.ca,       certs.leaf,    certs.other, certs.rsa,
                               certs.weak_rsa, certs.weak_ec, certs.ed,    certs.staple};
    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        test_cert_free(all[i]);
    }
    free(certs.chain);
    free(certs.encrypted);
    free(certs.crl);
    return 0;
}

static Core__DataSource from_text(const char *text) {
    Core__DataSource s = CORE__DATA_SOURCE__INIT;
    s.specifier_case = CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING;
    s.inline_string = text;
    return s;
}

static Core__DataSource from_bytes(const void *p, size_t n) {
    Core__DataSource s = CORE__DATA_SOURCE__INIT;
    s.specifier_case = CORE__DATA_SOURCE__SPECIFIER_INLINE_BYTES;
    s.inline_bytes = (ProtobufCBinaryData){n, (uint8_t *)(uintptr_t)p};
    return s;
}

static bool has_text(struct diag *d, const char *want) {
    return sv_contains(diag_text(d), sv_cstr(want));
}

/* Compile one certificate; `want` NULL: it must be good, else the error must hold it. */
static void check_cert(const Tls__TlsCertificate *m, const char *want, size_t row) {
    struct diag d;
    diag_init(&d);
    struct tls_secret *s = tls_secret_from_cert(m, SV("s"), &d);
    if (want && !has_text(&d, want)) {
        sv got = diag_text(&d);
        print_error("row %zu: got '%.*s', want '%s'\n", row, SV_ARG(got), want);
    }
    assert_row((s != NULL) == (want == NULL), row);
    assert_row(want ? has_text(&d, want) : diag_ok(&d), row);
    tls_secret_unref(s);
    diag_fini(&d);
}

static void test_certificates(void **state) {
    (void)state;
    const char *leaf = certs.leaf->pem, *key = certs.leaf->key_pem;
    char *cut = strdup(leaf);
    cut[strlen(cut) / 2] = '\0';
    char *trailing = malloc(strlen(leaf) + 100);
    snprintf(trailing, strlen(leaf) + 100,
             "%s-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", leaf);
    const struct {
        const char *chain, *key, *password, *want;
    } rows[] = {
        {leaf, key, NULL, NULL},
        {certs.chain, key, NULL, NULL},
        {certs.rsa->pem, certs.rsa->key_pem, NULL, NULL},
        {certs.ed->pem, certs.ed->key_pem, NULL, NULL},
        {certs.staple->pem, certs.staple->key_pem, NULL, NULL},
        {leaf, certs.encrypted, "sesame", NULL},
        {leaf, certs.encrypted, "wrong", "Failed to load private key from <inline>"},
        {leaf, certs.encrypted, NULL, "Failed to load private key from <inline>"},
        {leaf, certs.other->key_pem, NULL, "KEY_VALUES_MISMATCH"},
        {leaf, certs.rsa->key_pem, NULL, "Failed to load private key from <inline>"},
        {leaf, "", NULL, "Failed to load incomplete private key"},
        {leaf, NULL, NULL, "Failed to load incomplete private key"},
        {leaf, "junk", NULL, "Failed to load private key from <inline>, Cause: error:"},
        {leaf, leaf, NULL, "Failed to load private key from <inline>"},
        {NULL, key, NULL, "certificate chain not set"},
        {"", key, NULL, "certificate chain not set"},
        {"junk", key, NULL, "Failed to load certificate chain from <inline>"},
        {key, key, NULL, "Failed to load certificate chain from <inline>"},
        {cut, key, NULL, "Failed to load certificate chain from <inline>"},
        {trailing, key, NULL, "Failed to load certificate chain from <inline>"},
        {certs.weak_rsa->pem, certs.weak_rsa->key_pem, NULL, "2048-bit or larger"},
        {certs.weak_ec->pem, certs.weak_ec->key_pem, NULL, "ECDSA certificates are supported"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        Tls__TlsCertificate m = TLS__TLS_CERTIFICATE__INIT;
        Core__DataSource chain = from_text(rows[i].chain ? rows[i].chain : "");
        Core__DataSource k = from_text(rows[i].key ? rows[i].key : "");
        Core__DataSource password = from_text(rows[i].password ? rows[i].password : "");
        m.certificate_chain = rows[i].chain ? &chain : NULL;
        m.private_key = rows[i].key ? &k : NULL;
        m.password = rows[i].password ? &password : NULL;
        check_cert(&m, rows[i].want, i);
    }
    free(cut);
    free(trailing);
}

static void test_field_conflicts(void **state) {
    (void)state;
    Core__DataSource chain = from_text(certs.leaf->pem), key = from_text(certs.leaf->key_pem);
    Core__DataSource junk = from_bytes("junk", 4), text = from_text("x");
    Tls__PrivateKeyProvider provider = TLS__PRIVATE_KEY_PROVIDER__INIT;
    provider.provider_name = "cryptomb";
    Core__DataSource unset = CORE__DATA_SOURCE__INIT;
    struct {
        Tls__TlsCertificate m;
        const char *want;
    } rows[7];
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        tls__tls_certificate__init(&rows[i].m);
        rows[i].m.certificate_chain = &chain;
        rows[i].m.private_key = &key;
    }
    rows[0].m.private_key_provider = &provider;
    rows[0].want = "private_key_provider 'cryptomb' is not supported";
    rows[1].m.ocsp_staple = &text;
    rows[1].want = "OCSP staple cannot be provided via inline_string";
    rows[2].m.ocsp_staple = &junk;
    rows[2].want = "not an OCSP response";
    rows[3].m.pkcs12 = &junk;
    rows[3].want = "both pkcs12 and private_key";
    rows[4].m.pkcs12 = &junk;
    rows[4].m.private_key = NULL;
    rows[4].want = "both pkcs12 and certificate_chain";
    rows[5].m.pkcs12 = &junk;
    rows[5].m.private_key = NULL;
    rows[5].m.certificate_chain = NULL;
    rows[5].want = "Failed to load pkcs12 from <inline>";
    rows[6].m.certificate_chain = &unset;
    rows[6].want = "Unexpected DataSource::specifier_case()";
    for (unsigned i = 0; i < ARRAY_LEN(rows); i++) {
        check_cert(&rows[i].m, rows[i].want, i);
    }
}

static void test_pkcs12(void **state) {
    (void)state;
    STACK_OF(X509) *extra = sk_X509_new_null();
    X509_up_ref(certs.ca->x);
    sk_X509_push(extra, certs.ca->x);
    PKCS12 *p12 = PKCS12_create("pw", NULL, certs.leaf->key, certs.leaf->x, extra, 0, 0, 0, 0, 0);
    assert_non_null(p12);
    uint8_t *der = NULL;
    int n = i2d_PKCS12(p12, &der);
    assert_true(n > 0);
    Core__DataSource bytes = from_bytes(der, (size_t)n);
    Core__DataSource good = from_text("pw"), bad = from_text("nope");
    Tls__TlsCertificate m = TLS__TLS_CERTIFICATE__INIT;
    m.pkcs12 = &bytes;
    m.password = &good;
    check_cert(&m, NULL, 0);
    m.password = &bad;
    check_cert(&m, "Failed to load pkcs12 from <inline>", 1);
    m.password = NULL;
    check_cert(&m, "Failed to load pkcs12 from <inline>", 2);
    OPENSSL_free(der);
    PKCS12_free(p12);
    sk_X509_pop_free(extra, X509_free);
}

static void test_ocsp(void **state) {
    (void)state;
    unsigned char der[512];
    size_t n = test_ocsp_der(1000, 3600, der);
    Core__DataSource chain = from_text(certs.leaf->pem), key = from_text(certs.leaf->key_pem);
    Core__DataSource staple = from_bytes(der, n);
    Tls__TlsCertificate m = TLS__TLS_CERTIFICATE__INIT;
    m.certificate_chain = &chain;
    m.private_key = &key;
    m.ocsp_staple = &staple;
    struct diag d;
    diag_init(&d);
    struct tls_secret *s = tls_secret_from_cert(&m, SV("s"), &d);
    assert_non_null(s);
    assert_non_null(s->cert->stapled);
    assert_true(s->cert->ocsp_next_update_s > s->cert->ocsp_this_update_s);
    tls_secret_unref(s);
    diag_fini(&d);
    for (size_t cut = 1; cut < n; cut++) { /* every truncation is refused */
        staple.inline_bytes.len = cut;
        check_cert(&m, "ocsp_staple: ", cut);
    }
    n = test_ocsp_der(4711, 3600, der);
    staple.inline_bytes.len = n;
    check_cert(&m, "OCSP response does not match its TLS certificate", 0);
    der[6] = 3;                      /* tryLater */
    for (size_t i = 0; i < n; i++) { /* every single byte changed: no crash, whatever is said */
        unsigned char old = der[i];
        der[i] ^= 0x5a;
        diag_init(&d);
        tls_secret_unref(tls_secret_from_cert(&m, SV("s"), &d));
        diag_fini(&d);
        der[i] = old;
    }
}

static void test_sharing(void **state) {
    (void)state;
    size_t before = tls_intern_count();
    Core__DataSource chain = from_text(certs.leaf->pem), key = from_text(certs.leaf->key_pem);
    Core__DataSource ca = from_text(certs.ca->pem);
    Tls__TlsCertificate m = TLS__TLS_CERTIFICATE__INIT;
    Tls__CertificateValidationContext v = TLS__CERTIFICATE_VALIDATION_CONTEXT__INIT;
    m.certificate_chain = &chain;
    m.private_key = &key;
    v.trusted_ca = &ca;
    struct diag d;
    diag_init(&d);
    struct tls_secret *s[2], *t[2];
    for (unsigned i = 0; i < 2; i++) {
        s[i] = tls_secret_from_cert(&m, SV("a"), &d);
        t[i] = tls_secret_from_validation(&v, SV("b"), &d);
    }
    assert_ptr_equal(s[0]->cert, s[1]->cert);
    assert_ptr_equal(t[0]->validation->ca, t[1]->validation->ca);
    assert_int_equal(tls_intern_count(), before + 2);
    for (unsigned i = 0; i < 2; i++) {
        tls_secret_unref(s[i]);
        tls_secret_unref(t[i]);
    }
    assert_int_equal(tls_intern_count(), before);
    diag_fini(&d);
}

static void test_tickets(void **state) {
    (void)state;
    char bytes[81] = "0123456789abcdef";
    const struct {
        size_t n;
        unsigned keys;
        const char *want;
    } rows[] = {
        {80, 1, NULL},
        {80, 3, NULL},
        {79, 1, "keys[0]: Incorrect TLS session ticket key length. Length 79, expected length 80."},
        {81, 2, "Length 81"},
        {0, 1, "Length 0"},
        {80, 0, "session ticket keys"},
        {80, 65, "session ticket keys"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        Core__DataSource src = from_bytes(bytes, rows[i].n);
        Core__DataSource *list[65];
        for (unsigned k = 0; k < 65; k++) {
            list[k] = &src;
        }
        Tls__TlsSessionTicketKeys m = TLS__TLS_SESSION_TICKET_KEYS__INIT;
        m.keys = list;
        m.n_keys = rows[i].keys;
        struct diag d;
        diag_init(&d);
        struct tls_secret *s = tls_secret_from_tickets(&m, SV("t"), &d);
        assert_row((s != NULL) == (rows[i].want == NULL), i);
        assert_row(!rows[i].want || has_text(&d, rows[i].want), i);
        if (s) {
            assert_int_equal(s->tickets_n, rows[i].keys);
            assert_memory_equal(s->tickets[0].name, "0123456789abcdef", 16);
        }
        tls_secret_unref(s);
        diag_fini(&d);
    }
}

/* A Secret message as the control plane sends it, by arena owner. */
static void test_secret_message(void **state) {
    (void)state;
    struct arena owner;
    struct diag d;
    arena_init(&owner, 0);
    diag_init(&d);
    Core__DataSource one = from_text("v1"), two = from_bytes("v\0002", 3);
    Tls__GenericSecret__SecretsEntry entry = TLS__GENERIC_SECRET__SECRETS_ENTRY__INIT;
    entry.key = "two";
    entry.value = &two;
    Tls__GenericSecret__SecretsEntry *entries[] = {&entry};
    Tls__GenericSecret g = TLS__GENERIC_SECRET__INIT;
    g.secret = &one;
    g.secrets = entries;
    g.n_secrets = 1;
    Tls__Secret m = TLS__SECRET__INIT;
    m.name = "token";
    m.type_case = TLS__SECRET__TYPE_GENERIC_SECRET;
    m.generic_secret = &g;
    struct tls_secret *s = tls_secret_compile(&owner, &m, &d);
    assert_non_null(s);
    assert_int_equal(s->kind, TLS_SECRET_GENERIC);
    assert_sv_is(s->name, "token");
    assert_sv_is(tls_secret_generic(s, SV("")), "v1");
    assert_sv(tls_secret_generic(s, SV("two")), sv_from("v\0002", 3));
    assert_null(tls_secret_generic(s, SV("three")).p);
    struct tls_secret *kept = tls_secret_ref(s);
    arena_fini(&owner); /* the resource goes, the user's ref stays */
    assert_sv_is(tls_secret_generic(kept, SV("")), "v1");
    tls_secret_unref(kept);
    arena_init(&owner, 0);
    m.type_case = TLS__SECRET__TYPE__NOT_SET;
    assert_null(tls_secret_compile(&owner, &m, &d));
    assert_true(has_text(&d, "Secret type not implemented"));
    arena_fini(&owner);
    diag_fini(&d);
}

static void write_file(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void test_files(void **state) {
    (void)state;
    char dir[] = "/tmp/sluice-tls-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char cert[64], key[64];
    snprintf(cert, sizeof cert, "%s/tls.crt", dir);
    snprintf(key, sizeof key, "%s/tls.key", dir);
    write_file(cert, certs.leaf->pem);
    write_file(key, certs.leaf->key_pem);
    Core__DataSource c = CORE__DATA_SOURCE__INIT, k = CORE__DATA_SOURCE__INIT;
    Core__WatchedDirectory watched = CORE__WATCHED_DIRECTORY__INIT;
    watched.path = dir;
    c.specifier_case = k.specifier_case = CORE__DATA_SOURCE__SPECIFIER_FILENAME;
    c.filename = cert;
    k.filename = key;
    Tls__TlsCertificate m = TLS__TLS_CERTIFICATE__INIT;
    m.certificate_chain = &c;
    m.private_key = &k;
    m.watched_directory = &watched;
    struct diag d;
    diag_init(&d);
    struct tls_secret *s = tls_secret_from_cert(&m, SV("f"), &d);
    assert_non_null(s);
    struct tls_watches w = tls_secret_watches(s);
    assert_int_equal(w.n, 3);
    assert_true(w.v[0].is_directory);
    assert_sv_is(w.v[0].path, dir);
    assert_sv_is(w.v[1].path, cert);
    assert_sv_is(w.v[2].path, key);
    assert_sv_is(s->cert_path, cert);
    tls_secret_unref(s);
    diag_fini(&d);
    k.filename = "/nonexistent/key";
    check_cert(&m, "Invalid path: /nonexistent/key", 0);
    k.filename = dir;
    check_cert(&m, "not a regular file", 1);
    unlink(cert);
    unlink(key);
    rmdir(dir);
    setenv("SLUICE_TEST_KEY", certs.leaf->key_pem, 1);
    c = from_text(certs.leaf->pem);
    k.specifier_case = CORE__DATA_SOURCE__SPECIFIER_ENVIRONMENT_VARIABLE;
    k.environment_variable = "SLUICE_TEST_KEY";
    check_cert(&m, NULL, 2);
    k.environment_variable = "SLUICE_TEST_NO_SUCH";
    check_cert(&m, "Environment variable doesn't exist: SLUICE_TEST_NO_SUCH", 3);
}

/* --- validation contexts --- */

static void check_validation(const Tls__CertificateValidationContext *m, const char *want,
                             size_t row) {
    struct diag d;
    diag_init(&d);
    struct tls_secret *s = tls_secret_from_validation(m, SV("v"), &d);
    struct tls_policy p;
    bool ok = s && tls_policy_make(&p, NULL, s->validation, false, &d);
    if (s) {
        tls_policy_fini(&p);
    }
    if (want && !has_text(&d, want)) {
        sv got = diag_text(&d);
        print_error("row %zu: got '%.*s', want '%s'\n", row, SV_ARG(got), want);
    }
    assert_row(ok == (want == NULL), row);
    assert_row(want ? has_text(&d, want) : diag_ok(&d), row);
    tls_secret_unref(s);
    diag_fini(&d);
}

static void test_validation_trust(void **state) {
    (void)state;
    const struct {
        const char *ca, *crl;
        bool allow_expired;
        int trust;
        const char *want;
    } rows[] = {
        {certs.ca->pem, NULL, true, 0, NULL},
        {certs.ca->pem, certs.crl, false, 1, NULL},
        {NULL, NULL, false, 0, NULL},
        {"", NULL, false, 0, NULL},
        {"junk", NULL, false, 0, "Failed to load trusted CA certificates from <inline>"},
        {certs.crl, NULL, false, 0, "Failed to load trusted CA certificates from <inline>"},
        {certs.leaf->key_pem, NULL, false, 0,
         "Failed to load trusted CA certificates from <inline>"},
        {NULL, certs.crl, false, 0, "Failed to load CRL from <inline> without trusted CA"},
        {certs.ca->pem, "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", false, 0,
         "Failed to load CRL from <inline>"},
        {NULL, NULL, true, 0, "Certificate validity period is always ignored without trusted CA"},
        {certs.ca->pem, NULL, false, 9, "unknown trust_chain_verification 9"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        Core__DataSource ca = from_text(rows[i].ca ? rows[i].ca : ""),
                         crl = from_text(rows[i].crl ? rows[i].crl : "");
        Tls__CertificateValidationContext m = TLS__CERTIFICATE_VALIDATION_CONTEXT__INIT;
        m.trusted_ca = rows[i].ca ? &ca : NULL;
        m.crl = rows[i].crl ? &crl : NULL;
        m.allow_expired_certificate = rows[i].allow_expired;
        m.trust_chain_verification =
            (Tls__CertificateValidationContext__TrustChainVerification)rows[i].trust;
        check_validation(&m, rows[i].want, i);
    }
}

static void test_validation_pins(void **state) {
    (void)state;
    char *plain = test_cert_hash(certs.leaf, false), *colons = test_cert_hash(certs.leaf, true);
    char *spki = test_cert_spki(certs.leaf);
    char *bad_colons = strdup(colons);
    bad_colons[2] = '-';
    char *bad_digit = strdup(plain);
    bad_digit[63] = 'g';
    const struct {
        const char *hash, *spki, *want;
    } rows[] = {
        {plain, NULL, NULL},
        {colons, NULL, NULL},
        {NULL, spki, NULL},
        {plain, spki, NULL},
        {"", NULL, "Invalid hex-encoded SHA-256"},
        {"ab", NULL, "Invalid hex-encoded SHA-256 ab"},
        {bad_colons, NULL, "Invalid hex-encoded SHA-256"},
        {bad_digit, NULL, "Invalid hex-encoded SHA-256"},
        {NULL, "AAAA", "Invalid base64-encoded SHA-256 AAAA"},
        {NULL, plain, "Invalid base64-encoded SHA-256"},
        {NULL, "", "Invalid base64-encoded SHA-256"},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        Tls__CertificateValidationContext m = TLS__CERTIFICATE_VALIDATION_CONTEXT__INIT;
        const char *h[] = {rows[i].hash}, *s[] = {rows[i].spki};
        m.verify_certificate_hash = h;
        m.n_verify_certificate_hash = rows[i].hash != NULL;
        m.verify_certificate_spki = s;
        m.n_verify_certificate_spki = rows[i].spki != NULL;
        check_validation(&m, rows[i].want, i);
    }
    free(plain);
    free(colons);
    free(spki);
    free(bad_colons);
    free(bad_digit);
}

static void test_validation_names(void **state) {
    (void)state;
    TypeMatcher__RegexMatcher bad_regex = TYPE_MATCHER__REGEX_MATCHER__INIT;
    bad_regex.regex = "(";
    TypeMatcher__StringMatcher exact = TYPE_MATCHER__STRING_MATCHER__INIT, regex = exact,
                               unset = exact;
    exact.match_pattern_case = TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_EXACT;
    exact.exact = "a";
    regex.match_pattern_case = TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX;
    regex.safe_regex = &bad_regex;
    const struct {
        int type;
        TypeMatcher__StringMatcher *matcher;
        const char *oid;
        bool with_ca;
        const char *want;
    } rows[] = {
        {TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__URI, &exact, "", true, NULL},
        {TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__OTHER_NAME, &exact, "1.3.6.1.4.1.311.20.2.3",
         true, NULL},
        {TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__URI, &exact, "", false,
         "without trusted CA is insecure"},
        {TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__SAN_TYPE_UNSPECIFIED, &exact, "", true,
         "match_typed_subject_alt_names[0].san_type"},
        {17, &exact, "", true, "not 17"},
        {TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__OTHER_NAME, &exact, "", true,
         "expected an object identifier"},
        {TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__OTHER_NAME, &exact, "not an oid", true,
         "expected an object identifier"},
        {TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__DNS, &regex, "", true, "Invalid regex '('"},
        {TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__DNS, &unset, "", true, "no match pattern"},
        {TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__DNS, NULL, "", true, "value is required"},
    };
    Core__DataSource ca = from_text(certs.ca->pem);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        Tls__SubjectAltNameMatcher san = TLS__SUBJECT_ALT_NAME_MATCHER__INIT;
        san.san_type = (Tls__SubjectAltNameMatcher__SanType)rows[i].type;
        san.matcher = rows[i].matcher;
        san.oid = rows[i].oid;
        Tls__SubjectAltNameMatcher *list[] = {&san};
        Tls__CertificateValidationContext m = TLS__CERTIFICATE_VALIDATION_CONTEXT__INIT;
        m.trusted_ca = rows[i].with_ca ? &ca : NULL;
        m.match_typed_subject_alt_names = list;
        m.n_match_typed_subject_alt_names = 1;
        check_validation(&m, rows[i].want, i);
    }
}

static void test_validation_refused(void **state) {
    (void)state;
    Tls__CertificateProviderPluginInstance plugin = TLS__CERTIFICATE_PROVIDER_PLUGIN_INSTANCE__INIT;
    Pb__BoolValue yes = PB__BOOL_VALUE__INIT;
    yes.value = 1;
    Core__TypedExtensionConfig custom = CORE__TYPED_EXTENSION_CONFIG__INIT;
    custom.name = "envoy.tls.cert_validator.other";
    Tls__CertificateValidationContext m = TLS__CERTIFICATE_VALIDATION_CONTEXT__INIT;
    m.ca_certificate_provider_instance = &plugin;
    check_validation(&m, "ca_certificate_provider_instance is not supported", 0);
    m.ca_certificate_provider_instance = NULL;
    m.require_signed_certificate_timestamp = &yes;
    check_validation(&m, "require_signed_certificate_timestamp is not supported", 1);
    m.require_signed_certificate_timestamp = NULL;
    m.custom_validator_config = &custom;
    check_validation(&m, "custom_validator_config: Failed to get certificate validator factory", 2);
    custom.name = "envoy.tls.cert_validator.default";
    check_validation(&m, NULL, 3);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_certificates),     cmocka_unit_test(test_field_conflicts),
        cmocka_unit_test(test_pkcs12),           cmocka_unit_test(test_ocsp),
        cmocka_unit_test(test_sharing),          cmocka_unit_test(test_tickets),
        cmocka_unit_test(test_secret_message),   cmocka_unit_test(test_files),
        cmocka_unit_test(test_validation_trust), cmocka_unit_test(test_validation_pins),
        cmocka_unit_test(test_validation_names), cmocka_unit_test(test_validation_refused),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
