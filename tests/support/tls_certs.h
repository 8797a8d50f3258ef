/* Certificates, CRLs and OCSP responses made in the process, for TLS tests. */
#ifndef SLUICE_TESTS_TLS_CERTS_H
#define SLUICE_TESTS_TLS_CERTS_H

#include <stdbool.h>

#include <openssl/x509.h>

enum test_key { TEST_P256, TEST_P384, TEST_P224, TEST_RSA2048, TEST_RSA1024, TEST_ED25519 };

struct test_cert;
struct test_cert_spec {
    const char *cn;                 /* NULL: empty subject */
    const char *sans;               /* "DNS:a.test,URI:spiffe://x/y,IP:1.2.3.4"; NULL: none */
    const struct test_cert *issuer; /* NULL: self-signed */
    enum test_key key;
    bool is_ca;
    bool must_staple;
    bool client_only;               /* extended key usage clientAuth */
    long serial;                    /* 0: 1000 */
    long not_before_s, not_after_s; /* from now; both 0: -1 day .. +30 days and an hour */
};
struct test_cert {
    X509 *x;
    EVP_PKEY *key;
    char *pem, *key_pem;
};
struct test_cert *test_cert_new(const struct test_cert_spec *spec);
void test_cert_free(struct test_cert *c);
/* PEM of several certificates, leaf first; free with free(). */
char *test_chain_pem(const struct test_cert *const *v, unsigned n);
/* A CRL of `issuer` that revokes these serials. */
char *test_crl_pem(const struct test_cert *issuer, const long *serials, unsigned n);
/* A DER OCSP response for `serial` (signature is junk: nobody here verifies it). Returns the
 * length. */
size_t test_ocsp_der(long serial, long next_update_s, unsigned char out[512]);
/* The key's PKCS#8 PEM encrypted with a password; free with free(). */
char *test_encrypted_key_pem(const struct test_cert *c, const char *password);
/* Hex SHA-256 of the certificate, with colons when asked; base64 SHA-256 of its public key. Free
 * with free(). */
char *test_cert_hash(const struct test_cert *c, bool colons);
char *test_cert_spki(const struct test_cert *c);

#endif
