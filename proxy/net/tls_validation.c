/* Validation contexts: messages into trust stores, matchers and pins.
 * Threads: config thread. Spec: transport_sockets.tls.v3.CertificateValidationContext,
 * SubjectAltNameMatcher. Not here: applying them to a peer (tls_verify.c), trust domains of SPIFFE
 * (tls_spiffe.c). */
#include <openssl/base64.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/pool.h>
#include <openssl/sha2.h>
#include <openssl/stack.h>

#include "protos/gen/core.pb-c.h"
#include "protos/gen/tls.pb-c.h"
#include "protos/gen/type_matcher.pb-c.h"
#include "proxy/base/regex.h"
#include "proxy/net/tls_cert.h"
#include "proxy/net/tls_verify.h"
#include "proxy/net/tls_x509.h"

#define SPIFFE_VALIDATOR "envoy.tls.cert_validator.spiffe"
#define DEFAULT_VALIDATOR "envoy.tls.cert_validator.default"

/* --- bundles --- */

static void ca_free(struct tls_interned *self) {
    struct tls_ca *ca = (struct tls_ca *)(void *)self;
    X509_STORE_free(ca->store);
    sk_X509_pop_free(ca->certs, X509_free);
    sk_X509_CRL_pop_free(ca->crls, X509_CRL_free);
    sk_CRYPTO_BUFFER_pop_free(ca->names, CRYPTO_BUFFER_free);
    xfree(ca);
}

static bool has_name(const STACK_OF(CRYPTO_BUFFER) * names, sv der) {
    for (size_t i = 0; i < sk_CRYPTO_BUFFER_num(names); i++) {
        const CRYPTO_BUFFER *b = sk_CRYPTO_BUFFER_value(names, i);
        if (sv_eq(sv_from(CRYPTO_BUFFER_data(b), CRYPTO_BUFFER_len(b)), der)) {
            return true;
        }
    }
    return false;
}

/* Names beyond TLS_CA_NAMES_MAX are left out: the list must fit into one handshake message. */
#define TLS_CA_NAMES_MAX 512u

static void add_name(struct tls_ca *ca, const X509 *x) {
    const uint8_t *der = NULL;
    size_t n = 0;
    if (sk_CRYPTO_BUFFER_num(ca->names) >= TLS_CA_NAMES_MAX ||
        !X509_NAME_get0_der(X509_get_subject_name(x), &der, &n) ||
        has_name(ca->names, sv_from(der, n))) {
        return;
    }
    CRYPTO_BUFFER *b = CRYPTO_BUFFER_new(der, n, tls_x509_pool());
    CHECK(b && sk_CRYPTO_BUFFER_push(ca->names, b));
}

static void add_expiry(struct tls_ca *ca, const X509 *x) {
    int64_t not_after_s;
    if (tls_x509_not_after(x, &not_after_s) && not_after_s < ca->not_after_s) {
        ca->not_after_s = not_after_s;
    }
}

static bool add_cert(struct tls_ca *ca, X509 *x) {
    if (sk_X509_num(ca->certs) >= TLS_CA_CERTS_MAX || !X509_up_ref(x)) {
        return false;
    }
    CHECK(sk_X509_push(ca->certs, x));
    add_name(ca, x);
    add_expiry(ca, x);
    return X509_STORE_add_cert(ca->store, x);
}

static bool ca_fill(struct tls_ca *ca, sv pem) {
    BIO *bio = BIO_new_mem_buf(pem.p, (ossl_ssize_t)pem.n);
    CHECK(bio);
    STACK_OF(X509_INFO) *list = PEM_X509_INFO_read_bio(bio, NULL, NULL, NULL);
    BIO_free(bio);
    ERR_clear_error();
    if (!list) {
        return false;
    }
    bool ok = true;
    for (size_t i = 0; ok && i < sk_X509_INFO_num(list); i++) {
        const X509_INFO *item = sk_X509_INFO_value(list, i);
        if (item->x509) {
            ok = add_cert(ca, item->x509);
        }
        if (ok && item->crl) {
            ok = sk_X509_CRL_num(ca->crls) < TLS_CRLS_MAX && X509_CRL_up_ref(item->crl) &&
                 sk_X509_CRL_push(ca->crls, item->crl);
        }
    }
    sk_X509_INFO_pop_free(list, X509_INFO_free);
    return ok;
}

static struct tls_ca *ca_new(void) {
    struct tls_ca *ca = xnew(struct tls_ca);
    ca->store = X509_STORE_new();
    ca->certs = sk_X509_new_null();
    ca->crls = sk_X509_CRL_new_null();
    ca->names = sk_CRYPTO_BUFFER_new_null();
    ca->not_after_s = INT64_MAX;
    CHECK(ca->store && ca->certs && ca->crls && ca->names);
    return ca;
}

struct tls_ca *tls_ca_get(sv pem, bool with_certs, const char *what, sv path, struct diag *d) {
    uint8_t digest[TLS_DIGEST_BYTES];
    SHA256_CTX sha;
    SHA256_Init(&sha);
    SHA256_Update(&sha, with_certs ? "ca" : "crl", 2);
    SHA256_Update(&sha, pem.p, pem.n);
    SHA256_Final(digest, &sha);
    struct tls_ca *ca = tls_intern_find(digest);
    if (ca) {
        return ca;
    }
    ca = ca_new();
    if (ca_fill(ca, pem) && (!with_certs || sk_X509_num(ca->certs) > 0)) {
        return tls_intern_add(&ca->interned, digest, ca_free);
    }
    ca_free(&ca->interned);
    diag_error(d, "Failed to load %s from %.*s", what, SV_ARG(path));
    return NULL;
}

struct tls_ca *tls_ca_of_certs(const STACK_OF(X509) * certs) {
    uint8_t digest[TLS_DIGEST_BYTES];
    SHA256_CTX sha;
    SHA256_Init(&sha);
    SHA256_Update(&sha, "x509", 4);
    for (size_t i = 0; i < sk_X509_num(certs); i++) {
        unsigned n = 0;
        CHECK(X509_digest(sk_X509_value(certs, i), EVP_sha256(), digest, &n));
        SHA256_Update(&sha, digest, n);
    }
    SHA256_Final(digest, &sha);
    struct tls_ca *ca = tls_intern_find(digest);
    if (ca) {
        return ca;
    }
    ca = ca_new();
    for (size_t i = 0; i < sk_X509_num(certs); i++) {
        if (!add_cert(ca, sk_X509_value(certs, i))) {
            ca_free(&ca->interned);
            return NULL;
        }
    }
    return tls_intern_add(&ca->interned, digest, ca_free);
}

/* --- subject alternative name matchers --- */

static bool compile_pattern(struct arena *a, const TypeMatcher__StringMatcher *m,
                            struct tls_san_matcher *out, struct diag *d) {
    char err[256];
    out->ignore_case = m->ignore_case;
    switch (m->match_pattern_case) {
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_EXACT:
        out->kind = SAN_EXACT;
        out->text = arena_sv(a, sv_cstr(m->exact));
        return true;
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_PREFIX:
        out->kind = SAN_PREFIX;
        out->text = arena_sv(a, sv_cstr(m->prefix));
        return true;
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_SUFFIX:
        out->kind = SAN_SUFFIX;
        out->text = arena_sv(a, sv_cstr(m->suffix));
        return true;
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_CONTAINS:
        out->kind = SAN_CONTAINS;
        out->text = arena_sv(a, sv_cstr(m->contains));
        return true;
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX:
        out->kind = SAN_REGEX;
        out->text = arena_sv(a, sv_cstr(m->safe_regex->regex));
        out->regex = regex_new(out->text.p, out->text.n, err, sizeof err);
        return out->regex || diag_error(d, "Invalid regex '%.*s': %s", SV_ARG(out->text), err);
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_CUSTOM:
        return diag_error(d, "custom string matchers are not supported for certificate names");
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN__NOT_SET:
    default:
        return diag_error(d, "no match pattern is set");
    }
}

static int gen_type_of(int san_type) {
    switch (san_type) {
    case TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__EMAIL:
        return GEN_EMAIL;
    case TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__DNS:
        return GEN_DNS;
    case TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__URI:
        return GEN_URI;
    case TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__IP_ADDRESS:
        return GEN_IPADD;
    case TLS__SUBJECT_ALT_NAME_MATCHER__SAN_TYPE__OTHER_NAME:
        return GEN_OTHERNAME;
    default:
        return -1;
    }
}

static bool compile_typed(struct arena *a, const Tls__SubjectAltNameMatcher *m,
                          struct tls_san_matcher *out, struct diag *d) {
    out->gen_type = gen_type_of(m->san_type);
    if (out->gen_type < 0) {
        DIAG_FIELD(d, "san_type");
        return diag_error(d, "expected DNS, EMAIL, URI, IP_ADDRESS or OTHER_NAME, not %d",
                          m->san_type);
    }
    if (out->gen_type == GEN_OTHERNAME) {
        DIAG_FIELD(d, "oid");
        out->oid = *m->oid ? OBJ_txt2obj(m->oid, 0) : NULL;
        if (!out->oid) {
            ERR_clear_error();
            return diag_error(d, "expected an object identifier for OTHER_NAME, not '%s'", m->oid);
        }
    }
    DIAG_FIELD(d, "matcher");
    return m->matcher ? compile_pattern(a, m->matcher, out, d) : diag_error(d, "value is required");
}

/* A legacy matcher stands for one of each type that has a text form. */
static bool compile_legacy(struct tls_validation *v, struct arena *a,
                           const Tls__CertificateValidationContext *m, struct diag *d) {
    static const int types[] = {GEN_DNS, GEN_URI, GEN_EMAIL, GEN_IPADD};
    v->sans =
        arena_new_array(a, struct tls_san_matcher, m->n_match_subject_alt_names * ARRAY_LEN(types));
    v->sans_are_legacy = true;
    for (size_t i = 0; i < m->n_match_subject_alt_names; i++) {
        DIAG_FIELD(d, "match_subject_alt_names[%zu]", i);
        for (unsigned t = 0; t < ARRAY_LEN(types); t++) {
            struct tls_san_matcher *out = &v->sans[v->sans_n++];
            out->gen_type = types[t];
            if (!compile_pattern(a, m->match_subject_alt_names[i], out, d)) {
                return false;
            }
        }
    }
    return true;
}

static bool compile_sans(struct tls_validation *v, struct arena *a,
                         const Tls__CertificateValidationContext *m, struct diag *d) {
    if (!m->n_match_typed_subject_alt_names) {
        return compile_legacy(v, a, m, d);
    }
    v->sans = arena_new_array(a, struct tls_san_matcher, m->n_match_typed_subject_alt_names);
    bool ok = true;
    for (size_t i = 0; i < m->n_match_typed_subject_alt_names; i++) {
        DIAG_FIELD(d, "match_typed_subject_alt_names[%zu]", i);
        struct tls_san_matcher *out = &v->sans[v->sans_n++];
        ok = compile_typed(a, m->match_typed_subject_alt_names[i], out, d) && ok;
    }
    return ok;
}

/* --- pinned hashes --- */

/* 64 hex digits, or the same with a colon after each pair. */
static bool parse_hex(sv text, uint8_t out[TLS_DIGEST_BYTES]) {
    bool colons = text.n == TLS_DIGEST_BYTES * 3 - 1;
    size_t step = colons ? 3 : 2;
    if (!colons && text.n != TLS_DIGEST_BYTES * 2) {
        return false;
    }
    for (size_t i = 0; i < TLS_DIGEST_BYTES; i++) {
        int hi = ascii_hex(text.p[i * step]);
        int lo = ascii_hex(text.p[i * step + 1]);
        bool parted = !colons || i + 1 == TLS_DIGEST_BYTES || text.p[i * step + 2] == ':';
        if (hi < 0 || lo < 0 || !parted) {
            return false;
        }
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    return true;
}

static bool parse_base64(sv text, uint8_t out[TLS_DIGEST_BYTES]) {
    uint8_t raw[64];
    size_t n = 0;
    if (text.n > 64 || !EVP_DecodeBase64(raw, &n, sizeof raw, (const uint8_t *)text.p, text.n) ||
        n != TLS_DIGEST_BYTES) {
        return false;
    }
    memcpy(out, raw, TLS_DIGEST_BYTES);
    return true;
}

static bool compile_pins(struct tls_validation *v, struct arena *a,
                         const Tls__CertificateValidationContext *m, struct diag *d) {
    bool ok = true;
    v->hashes = arena_zalloc_array(a, m->n_verify_certificate_hash, sizeof *v->hashes);
    for (size_t i = 0; i < m->n_verify_certificate_hash; i++) {
        const char *text = m->verify_certificate_hash[i];
        if (!parse_hex(sv_cstr(text), v->hashes[v->hashes_n++])) {
            ok = diag_error(d, "Invalid hex-encoded SHA-256 %s", text);
        }
    }
    v->spkis = arena_zalloc_array(a, m->n_verify_certificate_spki, sizeof *v->spkis);
    for (size_t i = 0; i < m->n_verify_certificate_spki; i++) {
        const char *text = m->verify_certificate_spki[i];
        if (!parse_base64(sv_cstr(text), v->spkis[v->spkis_n++])) {
            ok = diag_error(d, "Invalid base64-encoded SHA-256 %s", text);
        }
    }
    return ok;
}

/* --- trust --- */

bool tls_ca_read(struct tls_secret *s, const void *data_source_msg, bool is_ca, struct tls_ca **ca,
                 sv *path, struct diag *d) {
    const Core__DataSource *src = data_source_msg;
    if (!src) {
        return true;
    }
    struct arena scratch;
    arena_init(&scratch, 0);
    struct tls_source bytes;
    bool ok = tls_source_read(s, &scratch, src, &bytes, d);
    if (ok && bytes.bytes.n) {
        *ca = tls_ca_get(bytes.bytes, is_ca, is_ca ? "trusted CA certificates" : "CRL", bytes.path,
                         d);
        *path = arena_sv(&s->arena_, bytes.path);
        ok = *ca != NULL;
    }
    arena_fini(&scratch);
    return ok;
}

/* Where distributions keep the roots; the first that is there counts. */
static bool read_system_roots(struct tls_secret *s, struct tls_validation *v, struct diag *d) {
    static const char *const paths[] = {
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/ssl/ca-bundle.pem",
        "/etc/pki/tls/cacert.pem",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/cert.pem",
    };
    for (unsigned i = 0; i < ARRAY_LEN(paths); i++) {
        Core__DataSource src = CORE__DATA_SOURCE__INIT;
        src.specifier_case = CORE__DATA_SOURCE__SPECIFIER_FILENAME;
        src.filename = paths[i];
        struct diag quiet;
        diag_init(&quiet);
        bool ok = tls_ca_read(s, &src, true, &v->ca, &v->ca_path, &quiet);
        diag_fini(&quiet);
        if (ok) {
            return true;
        }
    }
    return diag_error(d, "system_root_certs: no system root certificate bundle was found");
}

static bool compile_validator(struct tls_secret *s, struct tls_validation *v,
                              const Core__TypedExtensionConfig *m, struct diag *d) {
    if (!m || strcmp(m->name, DEFAULT_VALIDATOR) == 0) {
        return true;
    }
    DIAG_FIELD(d, "custom_validator_config");
    if (strcmp(m->name, SPIFFE_VALIDATOR) == 0) {
        return tls_spiffe_compile(s, v, m->typed_config, d);
    }
    return diag_error(d, "Failed to get certificate validator factory for %s", m->name);
}

static bool compile_trust(struct tls_secret *s, struct tls_validation *v,
                          const Tls__CertificateValidationContext *m, struct diag *d) {
    tls_secret_watch_dir(s, m->watched_directory);
    if (m->ca_certificate_provider_instance) {
        return diag_error(d, "ca_certificate_provider_instance is not supported");
    }
    if (m->require_signed_certificate_timestamp && m->require_signed_certificate_timestamp->value) {
        return diag_error(d, "require_signed_certificate_timestamp is not supported");
    }
    if (!tls_ca_read(s, m->trusted_ca, true, &v->ca, &v->ca_path, d) ||
        !tls_ca_read(s, m->crl, false, &v->crl, &v->crl_path, d)) {
        return false;
    }
    if (m->system_root_certs && !v->ca && !read_system_roots(s, v, d)) {
        return false;
    }
    return compile_validator(s, v, m->custom_validator_config, d);
}

/* --- what decides about a client, in one number: sessions made under other rules must not be
 * resumed --- */

static void digest_interned(SHA256_CTX *sha, const struct tls_interned *o) {
    static const uint8_t none[TLS_DIGEST_BYTES];
    SHA256_Update(sha, o ? o->digest : none, TLS_DIGEST_BYTES);
}

static void digest_sv(SHA256_CTX *sha, sv s) {
    uint64_t n = s.n;
    SHA256_Update(sha, &n, sizeof n);
    SHA256_Update(sha, s.p, s.n);
}

static void digest_all(struct tls_validation *v) {
    SHA256_CTX sha;
    SHA256_Init(&sha);
    digest_interned(&sha, v->ca ? &v->ca->interned : NULL);
    digest_interned(&sha, v->crl ? &v->crl->interned : NULL);
    for (unsigned i = 0; i < v->sans_n; i++) {
        const struct tls_san_matcher *m = &v->sans[i];
        int head[3] = {m->gen_type, (int)m->kind, m->ignore_case};
        SHA256_Update(&sha, head, sizeof head);
        digest_sv(&sha, m->text);
        digest_sv(&sha, m->oid ? sv_from(OBJ_get0_data(m->oid), OBJ_length(m->oid)) : SV_NULL);
    }
    digest_sv(&sha, sv_from(v->hashes, v->hashes_n * sizeof *v->hashes));
    digest_sv(&sha, sv_from(v->spkis, v->spkis_n * sizeof *v->spkis));
    uint32_t scalars[] = {v->allow_expired,    v->accept_untrusted, v->only_leaf_crl,
                          v->suppress_ca_list, v->has_max_depth,    v->max_depth};
    SHA256_Update(&sha, scalars, sizeof scalars);
    for (unsigned i = 0; i < v->domains_n; i++) {
        digest_sv(&sha, v->domains[i].name);
        digest_sv(&sha, v->domains[i].workload);
        digest_interned(&sha, &v->domains[i].ca->interned);
    }
    SHA256_Final(v->digest, &sha);
}

struct tls_validation *tls_validation_compile(struct tls_secret *s, const void *msg,
                                              struct diag *d) {
    const Tls__CertificateValidationContext *m = msg;
    struct tls_validation *v = arena_new(&s->arena_, struct tls_validation);
    v->allow_expired = m->allow_expired_certificate;
    v->only_leaf_crl = m->only_verify_leaf_cert_crl;
    v->suppress_ca_list = m->suppress_client_ca_list;
    v->has_max_depth = m->max_verify_depth != NULL;
    v->max_depth = m->max_verify_depth ? m->max_verify_depth->value : 0;
    bool ok = true;
    switch (m->trust_chain_verification) {
    case TLS__CERTIFICATE_VALIDATION_CONTEXT__TRUST_CHAIN_VERIFICATION__VERIFY_TRUST_CHAIN:
        break;
    case TLS__CERTIFICATE_VALIDATION_CONTEXT__TRUST_CHAIN_VERIFICATION__ACCEPT_UNTRUSTED:
        v->accept_untrusted = true;
        break;
    default:
        ok = diag_error(d, "unknown trust_chain_verification %d", m->trust_chain_verification);
    }
    ok = compile_trust(s, v, m, d) && ok;
    ok = compile_sans(v, &s->arena_, m, d) && ok;
    ok = compile_pins(v, &s->arena_, m, d) && ok;
    if (!ok) {
        tls_validation_free(v);
        return NULL;
    }
    digest_all(v);
    return v;
}

void tls_validation_free(struct tls_validation *v) {
    if (!v) {
        return;
    }
    for (unsigned i = 0; i < v->sans_n; i++) {
        regex_free(v->sans[i].regex);
        ASN1_OBJECT_free(v->sans[i].oid);
    }
    for (unsigned i = 0; i < v->domains_n; i++) {
        tls_intern_unref(v->domains[i].ca);
    }
    tls_intern_unref(v->ca);
    tls_intern_unref(v->crl);
}
