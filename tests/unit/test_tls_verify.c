/* Judging peers: chains, dates, revocation, names, pins, SPIFFE; and the text of certificate
 * facts. */
#include <stdio.h>

#include <openssl/mem.h>
#include <openssl/obj.h>
#include <openssl/ssl.h>

#include "proxy/base/base64.h"
#include "proxy/net/tls_cert.h"
#include "proxy/net/tls_stats.h"
#include "proxy/net/tls_verify.h"
#include "proxy/net/tls_x509.h"
#include "tests/support/tls_certs.h"
#include "tests/support/tls_text.h"

#define SANS                                                  \
    "DNS:*.wild.test,DNS:exact.test,URI:spiffe://td/ns/a/sa/" \
    "b,IP:10.1.2.3,IP:fd00:0:0:0:0:0:0:1,email:me@mail.test," \
    "otherName:1.3.6.1.4.1.311.20.2.3;UTF8:upn@corp"

static struct {
    struct test_cert *root, *mid, *leaf, *old_root, *expired, *future, *plain, *deep_root;
    struct test_cert *two_uris, *ca_leaf, *client_only, *elsewhere;
    char *crl_leaf, *crl_mid, *crl_root_empty, *root_and_crl, *hash, *spki, *bundles;
} pki;

static void append_der64(struct buf *b, const struct test_cert *c) {
    uint8_t *der = NULL;
    int n = i2d_X509(c->x, &der);
    assert_true(n > 0);
    base64_encode(b, sv_from(der, (size_t)n), BASE64_STANDARD);
    OPENSSL_free(der);
}

/* SPIFFE bundles of two domains: "td" is of Root (behind another certificate), "other" of its namesake. */
static char *bundle_map(void) {
    struct buf b;
    buf_init(&b);
    buf_append_sv(&b, SV("{\"trust_domains\":{\"td\":{\"spiffe_sequence\":7,\"keys\":["
                         "{\"use\":\"x509-svid\",\"kty\":\"EC\",\"x5c\":[\""));
    append_der64(&b, pki.plain);
    buf_append_sv(&b, SV("\",\""));
    append_der64(&b, pki.root);
    buf_append_sv(&b, SV("\"]}]},\"other\":{\"keys\":[{\"use\":\"x509-svid\",\"x5c\":[\""));
    append_der64(&b, pki.old_root);
    buf_append_sv(&b, SV("\"]}]}}}"));
    char *out = sv_dup(buf_pullup(&b, buf_len(&b)));
    buf_fini(&b);
    return out;
}

static int setup(void **state) {
    (void)state;
    pki.root = test_cert_new(&(struct test_cert_spec){.cn = "Root", .is_ca = true});
    pki.old_root =
        test_cert_new(&(struct test_cert_spec){.cn = "Root", .is_ca = true, .serial = 2});
    pki.mid = test_cert_new(
        &(struct test_cert_spec){.cn = "Mid", .is_ca = true, .issuer = pki.root, .serial = 50});
    pki.leaf = test_cert_new(
        &(struct test_cert_spec){.cn = "leaf", .sans = SANS, .issuer = pki.mid, .serial = 51});
    pki.expired = test_cert_new(&(struct test_cert_spec){.cn = "old",
                                                         .sans = SANS,
                                                         .issuer = pki.root,
                                                         .not_before_s = -7200,
                                                         .not_after_s = -3600});
    pki.future = test_cert_new(&(struct test_cert_spec){
        .cn = "new", .sans = SANS, .issuer = pki.root, .not_before_s = 3600, .not_after_s = 7200});
    pki.plain = test_cert_new(&(struct test_cert_spec){.cn = "exact.test", .issuer = pki.root});
    pki.two_uris = test_cert_new(&(struct test_cert_spec){
        .cn = "x", .sans = "URI:spiffe://td/a,URI:spiffe://other/b", .issuer = pki.root});
    pki.ca_leaf = test_cert_new(&(struct test_cert_spec){
        .cn = "x", .sans = "URI:spiffe://td/a", .issuer = pki.root, .is_ca = true});
    pki.elsewhere = test_cert_new(
        &(struct test_cert_spec){.cn = "x", .sans = "URI:spiffe://other/a", .issuer = pki.root});
    pki.client_only = test_cert_new(&(struct test_cert_spec){
        .cn = "c", .sans = "DNS:exact.test", .issuer = pki.root, .client_only = true});
    pki.crl_leaf = test_crl_pem(pki.mid, (long[]){7, 51}, 2);
    pki.crl_mid = test_crl_pem(pki.root, (long[]){50}, 1);
    pki.crl_root_empty = test_crl_pem(pki.root, NULL, 0);
    pki.root_and_crl = malloc(strlen(pki.root->pem) + strlen(pki.crl_mid) + 1);
    snprintf(pki.root_and_crl, strlen(pki.root->pem) + strlen(pki.crl_mid) + 1, "%s%s",
             pki.root->pem, pki.crl_mid);
    pki.hash = test_cert_hash(pki.leaf, true);
    pki.spki = test_cert_spki(pki.leaf);
    pki.bundles = bundle_map();
    return 0;
}

static int teardown(void **state) {
    (void)state;
    struct test_cert *all[] = {pki.root,    pki.mid,         pki.leaf,     pki.old_root,
                               pki.expired, pki.future,      pki.plain,    pki.two_uris,
                               pki.ca_leaf, pki.client_only, pki.elsewhere};
    for (unsigned i = 0; i < ARRAY_LEN(all); i++) {
        test_cert_free(all[i]);
    }
    char *texts[] = {pki.crl_leaf,     pki.crl_mid, pki.crl_root_empty,
                     pki.root_and_crl, pki.hash,    pki.spki};
    for (unsigned i = 0; i < ARRAY_LEN(texts); i++) {
        free(texts[i]);
    }
    xfree(pki.bundles);
    chunk_cache_trim();
    return 0;
}

static STACK_OF(CRYPTO_BUFFER) * chain_of(const struct test_cert *const *v, unsigned n) {
    STACK_OF(CRYPTO_BUFFER) *out = sk_CRYPTO_BUFFER_new_null();
    for (unsigned i = 0; i < n; i++) {
        uint8_t *der = NULL;
        int len = i2d_X509(v[i]->x, &der);
        assert_true(len > 0);
        sk_CRYPTO_BUFFER_push(out, CRYPTO_BUFFER_new(der, (size_t)len, NULL));
        OPENSSL_free(der);
    }
    return out;
}

struct fixture {
    struct arena a;
    struct diag d;
    struct tls_secret *part[2];
    struct tls_policy p;
};

/* NULL: refused, as f->d tells. */
static struct tls_secret *try_compile(struct fixture *f, const char *text) {
    const char *const vars[] = {"root",
                                pki.root->pem,
                                "old_root",
                                pki.old_root->pem,
                                "mid",
                                pki.mid->pem,
                                "crl_leaf",
                                pki.crl_leaf,
                                "crl_mid",
                                pki.crl_mid,
                                "crl_root",
                                pki.crl_root_empty,
                                "root_and_crl",
                                pki.root_and_crl,
                                "hash",
                                pki.hash,
                                "spki",
                                pki.spki,
                                "bundles",
                                pki.bundles,
                                NULL};
    const void *m = tls_message(&f->a, "CertificateValidationContext", text, vars);
    return tls_secret_from_validation(m, SV("v"), &f->d);
}

static struct tls_secret *compile(struct fixture *f, const char *text) {
    struct tls_secret *s = try_compile(f, text);
    if (!s) {
        sv why = diag_text(&f->d);
        fail_msg("%s: %.*s", text, SV_ARG(why));
    }
    return s;
}

/* text1 may be NULL: one context only. */
static bool policy(struct fixture *f, const char *text0, const char *text1, bool auto_sni) {
    memset(f, 0, sizeof *f);
    arena_init(&f->a, 0);
    diag_init(&f->d);
    f->part[0] = compile(f, text0);
    f->part[1] = text1 ? compile(f, text1) : NULL;
    return tls_policy_make(&f->p, f->part[0]->validation,
                           f->part[1] ? f->part[1]->validation : NULL, auto_sni, &f->d);
}

static void done(struct fixture *f) {
    tls_policy_fini(&f->p);
    tls_secret_unref(f->part[0]);
    tls_secret_unref(f->part[1]);
    diag_fini(&f->d);
    arena_fini(&f->a);
}

struct expect {
    bool ok;
    enum tls_peer_status status;
    int stat, alert;
    const char *error;
};

static void check(struct fixture *f, struct tls_peer peer, const struct expect *e, size_t row) {
    struct tls_verdict v;
    tls_policy_verify(&f->p, &peer, &f->a, &v);
    if (e->error && !sv_contains(v.error, sv_cstr(e->error))) {
        print_error("row %zu: got '%.*s', want '%s'\n", row, SV_ARG(v.error), e->error);
    }
    assert_row(v.is_ok == e->ok, row);
    assert_row(v.status == e->status, row);
    assert_row(v.failed_stat == e->stat, row);
    assert_row(!e->error || sv_contains(v.error, sv_cstr(e->error)), row);
    assert_row(e->ok || v.alert == e->alert, row);
}

#define OK \
    { true, TLS_PEER_VALIDATED, -1, 0, NULL }
#define BAD_CHAIN(alert, text) \
    { false, TLS_PEER_FAILED, SSL_STAT_fail_verify_error, (alert), (text) }
#define BAD_NAME                                                                      \
    {                                                                                 \
        false, TLS_PEER_FAILED, SSL_STAT_fail_verify_san, SSL_AD_CERTIFICATE_UNKNOWN, \
            "certificate SANs are ["                                                  \
    }

static void test_chains(void **state) {
    (void)state;
    const struct test_cert *full[] = {pki.leaf, pki.mid}, *leaf_only[] = {pki.leaf},
                           *expired[] = {pki.expired};
    const struct test_cert *future[] = {pki.future}, *self[] = {pki.root},
                           *shuffled[] = {pki.leaf, pki.plain, pki.mid};
    const struct test_cert *client[] = {pki.client_only};
    const struct {
        const char *config;
        const struct test_cert *const *chain;
        unsigned n;
        struct expect e;
    } rows[] = {
        {"trusted_ca { inline_string: ~root~ }", full, 2, OK},
        {"trusted_ca { inline_string: ~root~ }", shuffled, 3, OK},
        {"trusted_ca { inline_string: ~mid~ }", leaf_only, 1, OK}, /* partial chains are enough */
        {"trusted_ca { inline_string: ~root~ }", self, 1, OK},
        {"trusted_ca { inline_string: ~root~ }", leaf_only, 1,
         BAD_CHAIN(SSL_AD_UNKNOWN_CA, "at depth 0: unable to get local issuer certificate")},
        {"trusted_ca { inline_string: ~old_root~ }", full, 2,
         BAD_CHAIN(SSL_AD_DECRYPT_ERROR, "certificate signature failure")},
        {"trusted_ca { inline_string: ~root~ }", expired, 1,
         BAD_CHAIN(SSL_AD_CERTIFICATE_EXPIRED, "at depth 0: certificate has expired")},
        {"trusted_ca { inline_string: ~root~ }", future, 1,
         BAD_CHAIN(SSL_AD_CERTIFICATE_EXPIRED, "not yet valid")},
        {"trusted_ca { inline_string: ~root~ } allow_expired_certificate: true", expired, 1, OK},
        {"trusted_ca { inline_string: ~root~ }", client, 1,
         BAD_CHAIN(SSL_AD_UNSUPPORTED_CERTIFICATE, "unsupported certificate purpose")},
        {"trusted_ca { inline_string: ~root~ } trust_chain_verification: ACCEPT_UNTRUSTED",
         expired,
         1,
         {true, TLS_PEER_FAILED, SSL_STAT_fail_verify_error, 0, "expired"}},
        {"trust_chain_verification: ACCEPT_UNTRUSTED",
         expired,
         1,
         {true, TLS_PEER_NOT_VALIDATED, -1, 0, NULL}},
        {"trusted_ca { inline_string: ~root~ } max_verify_depth { value: 0 }", full, 2,
         BAD_CHAIN(SSL_AD_UNKNOWN_CA, NULL)},
        {"trusted_ca { inline_string: ~root~ } max_verify_depth { value: 1 }", full, 2,
         BAD_CHAIN(SSL_AD_UNKNOWN_CA, NULL)},
        {"trusted_ca { inline_string: ~root~ } max_verify_depth { value: 2 }", full, 2, OK},
        {"trusted_ca { inline_string: ~root~ } max_verify_depth { value: 4294967295 }", full, 2,
         OK},
        {"trusted_ca { inline_string: ~root~ }",
         full,
         0,
         {false, TLS_PEER_NO_CERT, SSL_STAT_fail_verify_error, SSL_AD_CERTIFICATE_REQUIRED,
          "empty cert chain"}},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture f;
        assert_row(policy(&f, rows[i].config, NULL, false), i);
        STACK_OF(CRYPTO_BUFFER) *chain = chain_of(rows[i].chain, rows[i].n);
        check(&f, (struct tls_peer){.chain = chain}, &rows[i].e, i);
        sk_CRYPTO_BUFFER_pop_free(chain, CRYPTO_BUFFER_free);
        done(&f);
    }
}

static void test_revocation(void **state) {
    (void)state;
    const struct test_cert *full[] = {pki.leaf, pki.mid}, *plain[] = {pki.plain};
    const struct {
        const char *config;
        const struct test_cert *const *chain;
        unsigned n;
        struct expect e;
    } rows[] = {
        {"trusted_ca { inline_string: ~root~ } crl { inline_string: ~crl_leaf~ } "
         "only_verify_leaf_cert_crl: true",
         full, 2,
         BAD_CHAIN(SSL_AD_CERTIFICATE_REVOKED, "at depth 0: certificate revocation check against "
                                               "provided CRLs failed: certificate revoked")},
        {"trusted_ca { inline_string: ~root~ } crl { inline_string: ~crl_mid~ }", full, 2,
         BAD_CHAIN(SSL_AD_UNKNOWN_CA, "unable to get certificate CRL")},
        {"trusted_ca { inline_string: ~root~ } crl { inline_string: ~crl_root~ }", plain, 1, OK},
        {"trusted_ca { inline_string: ~root_and_crl~ }", plain, 1, OK},
        {"trusted_ca { inline_string: ~root_and_crl~ }", full, 2,
         BAD_CHAIN(SSL_AD_UNKNOWN_CA, "unable to get certificate CRL")},
        {"trusted_ca { inline_string: ~root_and_crl~ } crl { inline_string: ~crl_leaf~ }", full, 2,
         BAD_CHAIN(SSL_AD_CERTIFICATE_REVOKED, "certificate revoked")},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture f;
        assert_row(policy(&f, rows[i].config, NULL, false), i);
        STACK_OF(CRYPTO_BUFFER) *chain = chain_of(rows[i].chain, rows[i].n);
        check(&f, (struct tls_peer){.chain = chain}, &rows[i].e, i);
        sk_CRYPTO_BUFFER_pop_free(chain, CRYPTO_BUFFER_free);
        done(&f);
    }
}

#define SAN(type, matcher)                                                                \
    "trusted_ca { inline_string: ~mid~ } match_typed_subject_alt_names { san_type: " type \
    " matcher { " matcher " } }"

static void test_names(void **state) {
    (void)state;
    const struct {
        const char *config;
        bool ok;
    } rows[] = {
        {SAN("DNS", "exact: 'exact.test'"), true},
        {SAN("DNS", "exact: 'EXACT.test'"), true},
        {SAN("DNS", "exact: 'a.wild.test'"), true},
        {SAN("DNS", "exact: 'a.b.wild.test'"), false},
        {SAN("DNS", "exact: 'wild.test'"), false},
        {SAN("DNS", "exact: 'exact.tes'"), false},
        {SAN("DNS", "exact: 'spiffe://td/ns/a/sa/b'"), false},
        {SAN("DNS", "suffix: '.wild.test'"), true},
        {SAN("DNS", "suffix: '.other.test'"), false},
        {SAN("DNS", "contains: 'XACT'"), false},
        {SAN("DNS", "contains: 'XACT' ignore_case: true"), true},
        {SAN("DNS", "safe_regex { regex: '.*\\\\.test' }"), true},
        {SAN("DNS", "safe_regex { regex: 'exact' }"), false},
        {SAN("URI", "exact: 'spiffe://td/ns/a/sa/b'"), true},
        {SAN("URI", "exact: 'spiffe://TD/ns/a/sa/b'"), false},
        {SAN("URI", "exact: 'spiffe://TD/ns/a/sa/b' ignore_case: true"), true},
        {SAN("URI", "prefix: 'spiffe://td/ns/a/'"), true},
        {SAN("URI", "prefix: 'spiffe://td/ns/b/'"), false},
        {SAN("IP_ADDRESS", "exact: '10.1.2.3'"), true},
        {SAN("IP_ADDRESS", "exact: 'fd00::1'"), true},
        {SAN("IP_ADDRESS", "exact: '10.1.2.4'"), false},
        {SAN("IP_ADDRESS", "prefix: '10.1.'"), true},
        {SAN("EMAIL", "exact: 'me@mail.test'"), true},
        {SAN("EMAIL", "exact: 'you@mail.test'"), false},
        {SAN("OTHER_NAME oid: '1.3.6.1.4.1.311.20.2.3'", "exact: 'upn@corp'"), true},
        {SAN("OTHER_NAME oid: '1.3.6.1.4.1.311.20.2.4'", "exact: 'upn@corp'"), false},
        {SAN("OTHER_NAME oid: '1.3.6.1.4.1.311.20.2.3'", "exact: 'nobody'"), false},
        {"trusted_ca { inline_string: ~mid~ } match_subject_alt_names { exact: 'exact.test' }",
         true},
        {"trusted_ca { inline_string: ~mid~ } match_subject_alt_names { exact: "
         "'spiffe://td/ns/a/sa/b' }",
         true},
        {"trusted_ca { inline_string: ~mid~ } match_subject_alt_names { exact: '10.1.2.3' }", true},
        {"trusted_ca { inline_string: ~mid~ } match_subject_alt_names { exact: 'upn@corp' }",
         false},
        {SAN("URI", "exact: 'no'") " match_subject_alt_names { exact: 'exact.test' }", false},
        {SAN("URI", "exact: 'no'") " match_typed_subject_alt_names { san_type: DNS matcher { "
                                   "exact: 'exact.test' } }",
         true},
    };
    STACK_OF(CRYPTO_BUFFER) *chain = chain_of((const struct test_cert *[]){pki.leaf}, 1);
    const struct expect good = OK, bad = BAD_NAME;
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture f;
        assert_row(policy(&f, rows[i].config, NULL, false), i);
        check(&f, (struct tls_peer){.chain = chain, .is_client = true}, rows[i].ok ? &good : &bad,
              i);
        done(&f);
    }
    sk_CRYPTO_BUFFER_pop_free(chain, CRYPTO_BUFFER_free);
    /* no alternative names at all: the common name never counts */
    struct fixture f;
    chain = chain_of((const struct test_cert *[]){pki.plain}, 1);
    assert_true(policy(&f,
                       "trusted_ca { inline_string: ~root~ } match_typed_subject_alt_names { "
                       "san_type: DNS matcher { exact: 'exact.test' } }",
                       NULL, false));
    check(&f, (struct tls_peer){.chain = chain}, &bad, 100);
    done(&f);
    sk_CRYPTO_BUFFER_pop_free(chain, CRYPTO_BUFFER_free);
}

#define CA "trusted_ca { inline_string: ~mid~ }"
#define DNS(name) SAN("DNS", "exact: '" name "'")
static void test_overrides(void **state) {
    (void)state;
    static const sv good[] = {SV_INIT("nope"), SV_INIT("x.wild.test")},
                    uri[] = {SV_INIT("spiffe://td/ns/a/sa/b")};
    static const sv bad[] = {SV_INIT("x.other.test"), SV_INIT("")};
    const struct {
        const char *configured;
        bool auto_sni;
        const char *sni;
        const sv *list;
        unsigned n;
        bool ok;
        const char *error;
    } rows[] = {
        {CA, false, "", good, 2, true, NULL},
        {CA, false, "", uri, 1, true, NULL},
        {CA, false, "", bad, 2, false,
         "verify SAN list, expected SANs: [x.other.test, ], certificate SANs: [*.wild.test"},
        /* the list and the matchers both count */
        {DNS("exact.test"), false, "", good, 2, true, NULL},
        {DNS("exact.test"), false, "", bad, 2, false, "verify SAN list"},
        {DNS("configured.test"), false, "", good, 2, false, "SAN matcher"},
        {DNS("configured.test"), true, "exact.test", NULL, 0, true, NULL},
        {DNS("configured.test"), true, "a.wild.test", NULL, 0, true, NULL},
        {DNS("exact.test"), true, "other.test", NULL, 0, false,
         "SAN matcher, certificate SANs are ["},
        /* a DNS name is asked for */
        {DNS("exact.test"), true, "spiffe://td/ns/a/sa/b", NULL, 0, false, "SAN matcher"},
        {DNS("exact.test"), true, "other.test", good, 2, false, "SAN matcher"},
        {DNS("configured.test"), true, "exact.test", good, 2, true, NULL},
        /* no SNI: the config's matchers */
        {DNS("configured.test"), true, "", NULL, 0, false, "SAN matcher"},
        {DNS("exact.test"), true, "", NULL, 0, true, NULL},
        {DNS("configured.test"), false, "exact.test", NULL, 0, false, "SAN matcher"},
    };
    STACK_OF(CRYPTO_BUFFER) *chain = chain_of((const struct test_cert *[]){pki.leaf}, 1);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture f;
        assert_row(policy(&f, rows[i].configured, NULL, rows[i].auto_sni), i);
        struct expect e = {rows[i].ok, rows[i].ok ? TLS_PEER_VALIDATED : TLS_PEER_FAILED,
                           rows[i].ok ? -1 : SSL_STAT_fail_verify_san, SSL_AD_CERTIFICATE_UNKNOWN,
                           rows[i].error};
        check(&f,
              (struct tls_peer){.chain = chain,
                                .sni = sv_cstr(rows[i].sni),
                                .san_override = rows[i].list,
                                .san_override_n = rows[i].n},
              &e, i);
        done(&f);
    }
    sk_CRYPTO_BUFFER_pop_free(chain, CRYPTO_BUFFER_free);
}

static void test_pins(void **state) {
    (void)state;
    const struct expect good = OK;
    const struct expect bad = {false, TLS_PEER_FAILED, SSL_STAT_fail_verify_cert_hash,
                               SSL_AD_BAD_CERTIFICATE_HASH_VALUE, "cert hash and spki"};
    const struct {
        const char *config;
        bool ok;
    } rows[] = {
        {"verify_certificate_hash: ~hash~", true},
        {"verify_certificate_spki: ~spki~", true},
        {"verify_certificate_hash: ~hash~ verify_certificate_spki: "
         "'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='",
         true},
        {"verify_certificate_spki: 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='", false},
        {"trusted_ca { inline_string: ~mid~ } verify_certificate_hash: ~hash~", true},
        {"trusted_ca { inline_string: ~mid~ } verify_certificate_hash: "
         "'0000000000000000000000000000000000000000000000000000000000000000'",
         false},
    };
    STACK_OF(CRYPTO_BUFFER) *chain = chain_of((const struct test_cert *[]){pki.leaf}, 1);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture f;
        assert_row(policy(&f, rows[i].config, NULL, false), i);
        assert_int_equal(f.p.mode, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT);
        check(&f, (struct tls_peer){.chain = chain}, rows[i].ok ? &good : &bad, i);
        done(&f);
    }
    sk_CRYPTO_BUFFER_pop_free(chain, CRYPTO_BUFFER_free);
}

/* default_validation_context + SDS: as protobuf merges. */
static void test_combined(void **state) {
    (void)state;
    const struct expect good = OK, bad = BAD_NAME;
    const struct {
        const char *part0, *part1;
        bool ok;
    } rows[] = {
        {"match_typed_subject_alt_names { san_type: DNS matcher { exact: 'exact.test' } }",
         "trusted_ca { inline_string: ~mid~ }", true},
        {"match_typed_subject_alt_names { san_type: DNS matcher { exact: 'no.test' } }",
         "trusted_ca { inline_string: ~mid~ }", false},
        /* lists are joined */
        {SAN("DNS", "exact: 'no.test'"), SAN("DNS", "exact: 'exact.test'"), true},
        {"trusted_ca { inline_string: ~old_root~ } match_subject_alt_names { exact: 'exact.test' }",
         "trusted_ca { inline_string: ~mid~ }", true},
        /* typed ones rule */
        {"match_subject_alt_names { exact: 'exact.test' }", SAN("DNS", "exact: 'no.test'"), false},
    };
    STACK_OF(CRYPTO_BUFFER) *chain = chain_of((const struct test_cert *[]){pki.leaf}, 1);
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture f;
        assert_row(policy(&f, rows[i].part0, rows[i].part1, false), i);
        check(&f, (struct tls_peer){.chain = chain}, rows[i].ok ? &good : &bad, i);
        done(&f);
    }
    sk_CRYPTO_BUFFER_pop_free(chain, CRYPTO_BUFFER_free);
    struct fixture f;
    assert_false(policy(&f, "match_subject_alt_names { exact: 'a' }",
                        "max_verify_depth { value: 3 }", false));
    assert_true(sv_contains(diag_text(&f.d), SV("without trusted CA is insecure and not allowed")));
    done(&f);
    assert_false(policy(&f, "max_verify_depth { value: 3 }", NULL, true));
    assert_true(sv_contains(
        diag_text(&f.d),
        SV("'auto_sni_san_validation' was configured without configuring a trusted CA")));
    done(&f);
}

#define SPIFFE(domains)                                                                          \
    "custom_validator_config { name: 'envoy.tls.cert_validator.spiffe' typed_config { "          \
    "[type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.SPIFFECertValidatorConfig] " \
    "{ " domains " } } }"

static void test_spiffe(void **state) {
    (void)state;
    const struct test_cert *leaf[] = {pki.leaf, pki.mid}, *two[] = {pki.two_uris},
                           *ca[] = {pki.ca_leaf}, *plain[] = {pki.plain},
                           *other[] = {pki.elsewhere};
    const struct {
        const char *config;
        const struct test_cert *const *chain;
        unsigned n;
        struct expect e;
    } rows[] = {
        {SPIFFE("trust_domains { name: 'td' trust_bundle { inline_string: ~root~ } }"), leaf, 2,
         OK},
        {SPIFFE("trust_domains { name: 'other' trust_bundle { inline_string: ~root~ } }"), leaf, 2,
         BAD_CHAIN(SSL_AD_CERTIFICATE_UNKNOWN, "no trust bundle store")},
        {SPIFFE("trust_domains { name: 'td' trust_bundle { inline_string: ~old_root~ } } "
                "trust_domains { name: 'x' trust_bundle { inline_string: ~root~ } }"),
         leaf, 2, BAD_CHAIN(SSL_AD_CERTIFICATE_UNKNOWN, "signature failure")},
        {SPIFFE("trust_domains { name: 'td' trust_bundle { inline_string: ~root~ } }"), two, 1,
         BAD_CHAIN(SSL_AD_CERTIFICATE_UNKNOWN, "no trust bundle store")},
        {SPIFFE("trust_domains { name: 'td' trust_bundle { inline_string: ~root~ } }"), ca, 1,
         BAD_CHAIN(SSL_AD_CERTIFICATE_UNKNOWN, "cert precheck")},
        {SPIFFE("trust_domains { name: 'td' trust_bundle { inline_string: ~root~ } }"), plain, 1,
         BAD_CHAIN(SSL_AD_CERTIFICATE_UNKNOWN, "no trust bundle store")},
        {SPIFFE(
             "trust_domains { name: 'td' trust_bundle { inline_string: ~root~ } }") " match_typed_"
                                                                                    "subject_alt_"
                                                                                    "names { "
                                                                                    "san_type: DNS "
                                                                                    "matcher { "
                                                                                    "exact: "
                                                                                    "'exact.test' "
                                                                                    "} }",
         /* only URIs identify */
         leaf,
         2,
         {false, TLS_PEER_FAILED, SSL_STAT_fail_verify_san, SSL_AD_CERTIFICATE_UNKNOWN,
          "SAN match"}},
        {SPIFFE(
             "trust_domains { name: 'td' trust_bundle { inline_string: ~root~ } }") " match_typed_"
                                                                                    "subject_alt_"
                                                                                    "names { "
                                                                                    "san_type: URI "
                                                                                    "matcher { "
                                                                                    "prefix: "
                                                                                    "'spiffe://td/"
                                                                                    "ns/a/' } }",
         leaf, 2, OK},
        {SPIFFE("trust_bundles { inline_string: ~bundles~ }"), leaf, 2, OK},
        {SPIFFE("trust_bundles { inline_string: ~bundles~ }"), two, 1,
         BAD_CHAIN(SSL_AD_CERTIFICATE_UNKNOWN, "no trust bundle store")},
        {SPIFFE("trust_bundles { inline_string: ~bundles~ }"), other, 1,
         BAD_CHAIN(SSL_AD_CERTIFICATE_UNKNOWN, "signature failure")}, /* not of its own domain */
        {SPIFFE("trust_bundles { inline_string: ~bundles~ } "
                "trust_domains { name: 'td' trust_bundle { inline_string: ~old_root~ } }"),
         leaf, 2, OK}, /* the map comes first */
        {SPIFFE("trust_domains { name: 'td' trust_bundle { inline_string: ~root~ } "
                "workload_trust_domain: 'w' }"),
         leaf, 2, BAD_CHAIN(SSL_AD_CERTIFICATE_UNKNOWN, "no trust bundle store")},
        {SPIFFE("trust_domains { name: 'td' trust_bundle { inline_string: ~old_root~ } "
                "workload_trust_domain: 'w' } "
                "trust_domains { name: 'td' trust_bundle { inline_string: ~root~ } }"),
         leaf, 2, OK},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture f;
        assert_row(policy(&f, rows[i].config, NULL, false), i);
        STACK_OF(CRYPTO_BUFFER) *chain = chain_of(rows[i].chain, rows[i].n);
        check(&f, (struct tls_peer){.chain = chain, .is_client = true}, &rows[i].e, i);
        sk_CRYPTO_BUFFER_pop_free(chain, CRYPTO_BUFFER_free);
        done(&f);
    }
}

#define MAP(json) SPIFFE("trust_bundles { inline_string: '" json "' }")
#define KEYS(json) MAP("{\"trust_domains\":{\"td\":{\"keys\":" json "}}}")

static void test_spiffe_refused(void **state) {
    (void)state;
    const struct {
        const char *config, *why;
    } rows[] = {
        {SPIFFE(""), "expected between 1 and 1000 trust_domains, not 0"},
        {SPIFFE("trust_domains { name: 'td' }"), "Failed to load trusted CA certificate for td"},
        {SPIFFE("trust_domains { name: 'td' trust_bundle { inline_string: 'x' } }"),
         "Failed to load trusted CA certificate for td"},
        {SPIFFE("trust_domains { name: 'td' trust_bundle { inline_string: ~root~ } } "
                "trust_domains { name: 'td' trust_bundle { inline_string: ~root~ } }"),
         "Multiple trust bundles are given for one trust domain for td"},
        {SPIFFE("trust_domains { name: 'td' trust_bundle { inline_string: ~root~ } "
                "workload_trust_domain: 'w' } trust_domains { name: 'td' trust_bundle { "
                "inline_string: ~root~ } workload_trust_domain: 'w' }"),
         "Multiple trust bundles are given for one trust domain for td"},
        {SPIFFE("trust_bundles { }"), "trust_bundles"},
        {SPIFFE("trust_bundles { filename: '/nowhere/bundles.json' }"), "/nowhere/bundles.json"},
        {MAP(""), "Invalid JSON found in SPIFFE bundle"},
        {MAP("{\"trust_domains\":"), "Invalid JSON found in SPIFFE bundle"},
        {MAP("[]"), "No trust domains found in SPIFFE bundle"},
        {MAP("{}"), "No trust domains found in SPIFFE bundle"},
        {MAP("{\"trust_domains\":[]}"), "No trust domains found in SPIFFE bundle"},
        {MAP("{\"trust_domains\":{}}"), "No trust domains found in SPIFFE bundle"},
        {MAP("{\"trust_domains\":{\"td\":1}}"), "No keys found in SPIFFE bundle for domain 'td'"},
        {KEYS("{}"), "No keys found in SPIFFE bundle for domain 'td'"},
        {KEYS("[]"), "No keys found in SPIFFE bundle for domain 'td'"},
        {KEYS("[1]"), "missing or invalid 'use' field found in cert for domain 'td'"},
        {KEYS("[{}]"), "missing or invalid 'use' field found in cert for domain 'td'"},
        {KEYS("[{\"use\":\"jwt-svid\"}]"),
         "missing or invalid 'use' field found in cert for domain 'td'"},
        {KEYS("[{\"use\":\"x509-svid\"}]"),
         "missing or empty 'x5c' field found in keys for domain: 'td'"},
        {KEYS("[{\"use\":\"x509-svid\",\"x5c\":\"AAAA\"}]"),
         "missing or empty 'x5c' field found in keys for domain: 'td'"},
        {KEYS("[{\"use\":\"x509-svid\",\"x5c\":[]}]"),
         "missing or empty 'x5c' field found in keys for domain: 'td'"},
        {KEYS("[{\"use\":\"x509-svid\",\"x5c\":[\"AAAA\",1]}]"),
         "missing or empty 'x5c' field found in keys for domain: 'td'"},
        {KEYS("[{\"use\":\"x509-svid\",\"x5c\":[\"\"]}]"),
         "Failed to create x509 object while loading certs in domain 'td'"},
        {KEYS("[{\"use\":\"x509-svid\",\"x5c\":[\"A*==\"]}]"),
         "Failed to create x509 object while loading certs in domain 'td'"},
        {KEYS("[{\"use\":\"x509-svid\",\"x5c\":[\"MIIB\"]}]"),
         "Invalid x509 object in certs for domain 'td'"},
    };
    size_t objects = tls_intern_count();
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        struct fixture f = {0};
        arena_init(&f.a, 0);
        diag_init(&f.d);
        assert_row(!try_compile(&f, rows[i].config), i);
        sv why = diag_text(&f.d);
        if (!sv_contains(why, sv_cstr(rows[i].why))) {
            fail_msg("row %zu: got '%.*s', want '%s'", i, SV_ARG(why), rows[i].why);
        }
        assert_row(sv_contains(why, SV("custom_validator_config")), i);
        done(&f);
    }
    assert_int_equal(tls_intern_count(), objects);
}

static void test_dns_match(void **state) {
    (void)state;
    const struct {
        const char *name, *pattern;
        bool ok;
    } rows[] = {
        {"a.test", "a.test", true},
        {"A.TEST", "a.test", true},
        {"b.a.test", "*.a.test", true},
        {"a.test", "*.a.test", false},
        {"c.b.a.test", "*.a.test", false},
        {"foo1.test", "foo*.test", true},
        {"bar.test", "foo*.test", false},
        {"xfoo.test", "*foo.test", true},
        {"fo.test", "foo*.test", false},
        {"foo.test", "f**.test", false},
        {"a.b.test", "*.*.test", false},
        {"a.b.test", "a.*.test", false},
        {"test", "*", false},
        {"test", "test", true},
        {"xn--a.test", "xn--*.test", false},
        {"", "", true},
        {".test", "*.test", true},
        {"foo.test", "fo*oo.test", false},
        {"foxoo.test", "fo*oo.test", true},
    };
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        assert_row(
            tls_x509_dns_match(sv_cstr(rows[i].name), sv_cstr(rows[i].pattern)) == rows[i].ok, i);
    }
    assert_false(tls_x509_dns_match(SV("good.test"), SV("good.test\0.evil.test")));
}

static void test_facts(void **state) {
    (void)state;
    struct arena a;
    arena_init(&a, 0);
    const X509 *x = pki.leaf->x;
    assert_sv_is(tls_x509_subject(x, &a), "CN=leaf,O=Test\\, Inc.");
    assert_sv_is(tls_x509_issuer(x, &a), "CN=Mid,O=Test\\, Inc.");
    assert_sv_is(tls_x509_serial(x, &a), "33");
    assert_sv_is(tls_x509_common_name(x, &a), "leaf");
    assert_int_equal(tls_x509_sha1_hex(x, &a).n, 40);
    char *hash = test_cert_hash(pki.leaf, false);
    assert_sv_is(tls_x509_sha256_hex(x, &a), hash);
    free(hash);
    assert_sv_is(tls_x509_pem(x, &a), pki.leaf->pem);
    sv url = tls_x509_url_encode(tls_x509_pem(x, &a), &a);
    assert_true(sv_starts(url, SV("-----BEGIN%20CERTIFICATE-----%0AMII")));
    assert_sv_is(tls_x509_url_encode(SV("a+b/c=d_~."), &a), "a%2Bb%2Fc%3Dd_~.");
    assert_sv_is(tls_x509_sans_text(x, &a), "*.wild.test, exact.test, spiffe://td/ns/a/sa/b, "
                                            "10.1.2.3, fd00::1, me@mail.test, upn@corp");
    const sv *v;
    assert_int_equal(tls_x509_sans(x, GEN_IPADD, &a, &v), 2);
    assert_sv_is(v[1], "fd00::1");
    assert_int_equal(tls_x509_sans(x, GEN_OTHERNAME, &a, &v), 1);
    assert_sv_is(v[0], "upn@corp");
    assert_int_equal(tls_x509_sans(pki.plain->x, GEN_DNS, &a, &v), 0);
    assert_int_equal(tls_x509_extension_oids(x, &a, &v), 3);
    assert_sv_is(v[0], "2.5.29.19");
    int64_t from, until;
    assert_true(tls_x509_not_before(x, &from) && tls_x509_not_after(x, &until));
    assert_int_equal(until - from, 31 * 24 * 3600 + 3600);
    assert_false(tls_x509_is_must_staple(x));
    CRYPTO_BUFFER *junk = CRYPTO_BUFFER_new((const uint8_t *)"junk", 4, NULL);
    assert_null(tls_x509_from_buffer(junk));
    CRYPTO_BUFFER_free(junk);
    arena_fini(&a);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_chains),    cmocka_unit_test(test_revocation),
        cmocka_unit_test(test_names),     cmocka_unit_test(test_overrides),
        cmocka_unit_test(test_pins),      cmocka_unit_test(test_combined),
        cmocka_unit_test(test_spiffe),    cmocka_unit_test(test_spiffe_refused),
        cmocka_unit_test(test_dns_match), cmocka_unit_test(test_facts),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
