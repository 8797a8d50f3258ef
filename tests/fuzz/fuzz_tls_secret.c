/* Secrets from hostile bytes: the first byte says which field they are, the rest is PEM, DER or a
 * message. */
#include "protos/any.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/tls.pb-c.h"
#include "proxy/net/tls_cert.h"
#include "proxy/net/tls_ocsp.h"
#include "proxy/net/tls_verify.h"
#include "proxy/net/tls_x509.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static Core__DataSource source(sv bytes) {
    Core__DataSource s = CORE__DATA_SOURCE__INIT;
    s.specifier_case = CORE__DATA_SOURCE__SPECIFIER_INLINE_BYTES;
    s.inline_bytes = (ProtobufCBinaryData){bytes.n, (uint8_t *)(uintptr_t)bytes.p};
    return s;
}

/* A certificate, then behind a NUL its key. */
static void try_cert(sv bytes, bool pkcs12, struct diag *d) {
    sv rest = bytes;
    Core__DataSource chain = source(sv_cut(&rest, '\0')), key = source(rest), all = source(bytes);
    Tls__TlsCertificate m = TLS__TLS_CERTIFICATE__INIT;
    m.certificate_chain = pkcs12 ? NULL : &chain;
    m.private_key = pkcs12 ? NULL : &key;
    m.pkcs12 = pkcs12 ? &all : NULL;
    tls_secret_unref(tls_secret_from_cert(&m, SV("fuzz"), d));
}

static void try_validation(sv bytes, bool is_crl, struct diag *d) {
    Core__DataSource src = source(bytes);
    Tls__CertificateValidationContext m = TLS__CERTIFICATE_VALIDATION_CONTEXT__INIT;
    m.trusted_ca = is_crl ? NULL : &src;
    m.crl = is_crl ? &src : NULL;
    struct tls_secret *s = tls_secret_from_validation(&m, SV("fuzz"), d);
    struct tls_policy p;
    if (s && tls_policy_make(&p, s->validation, NULL, false, d)) {
        tls_policy_fini(&p);
    }
    tls_secret_unref(s);
}

/* A peer's certificate: judged without roots, and every fact printed. */
static void try_peer(sv bytes) {
    struct arena a;
    arena_init(&a, 0);
    CRYPTO_BUFFER *der = CRYPTO_BUFFER_new((const uint8_t *)bytes.p, bytes.n, NULL);
    X509 *x = tls_x509_from_buffer(der);
    if (x) {
        const sv *v;
        int64_t t;
        int curve;
        tls_x509_subject(x, &a);
        tls_x509_issuer(x, &a);
        tls_x509_serial(x, &a);
        tls_x509_common_name(x, &a);
        tls_x509_url_encode(tls_x509_pem(x, &a), &a);
        tls_x509_sans_text(x, &a);
        tls_x509_extension_oids(x, &a, &v);
        tls_x509_not_before(x, &t);
        tls_x509_is_must_staple(x);
        tls_x509_key_type(x, &curve);
        X509_free(x);
    }
    STACK_OF(CRYPTO_BUFFER) *chain = sk_CRYPTO_BUFFER_new_null();
    sk_CRYPTO_BUFFER_push(chain, der);
    struct tls_policy p = {.accept_untrusted = true};
    struct tls_verdict verdict;
    tls_policy_verify(&p, &(struct tls_peer){.chain = chain}, &a, &verdict);
    sk_CRYPTO_BUFFER_pop_free(chain, CRYPTO_BUFFER_free);
    arena_fini(&a);
}

/* Files of the machine are not the input's business. */
static void no_files(Core__DataSource *s) {
    if (s && s->specifier_case == CORE__DATA_SOURCE__SPECIFIER_FILENAME) {
        s->specifier_case = CORE__DATA_SOURCE__SPECIFIER__NOT_SET;
    }
}

static void try_message(sv bytes, struct diag *d) {
    struct arena a;
    arena_init(&a, 0);
    Tls__Secret *m = PROTO_UNPACK(Tls__Secret, tls__secret__descriptor, bytes, &a, d);
    if (m && m->type_case == TLS__SECRET__TYPE_TLS_CERTIFICATE) {
        no_files(m->tls_certificate->certificate_chain);
        no_files(m->tls_certificate->private_key);
        no_files(m->tls_certificate->pkcs12);
        no_files(m->tls_certificate->password);
        no_files(m->tls_certificate->ocsp_staple);
        tls_secret_compile(&a, m, d);
    } else if (m && m->type_case == TLS__SECRET__TYPE_VALIDATION_CONTEXT &&
               !m->validation_context->system_root_certs &&
               !m->validation_context->custom_validator_config) {
        no_files(m->validation_context->trusted_ca);
        no_files(m->validation_context->crl);
        tls_secret_compile(&a, m, d);
    }
    arena_fini(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 1) {
        return 0;
    }
    struct diag d;
    diag_init(&d);
    sv bytes = sv_from(data + 1, n - 1);
    struct tls_ocsp ocsp;
    switch (data[0] % 7) {
    case 0:
    case 1:
        try_cert(bytes, data[0] % 7 == 1, &d);
        break;
    case 2:
    case 3:
        try_validation(bytes, data[0] % 7 == 3, &d);
        break;
    case 4:
        (void)tls_ocsp_parse(bytes, &ocsp);
        break;
    case 5:
        try_peer(bytes);
        break;
    default:
        try_message(bytes, &d);
        break;
    }
    diag_fini(&d);
    return 0;
}
