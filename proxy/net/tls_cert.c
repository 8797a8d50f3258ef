/* Certificates with keys, session ticket keys and generic secrets: messages into shared objects.
 * Threads: compiled on the config thread; the objects are immutable and used by all.
 * Spec: transport_sockets.tls.v3.Secret, TlsCertificate, TlsSessionTicketKeys, GenericSecret.
 * Not here: validation contexts (tls_validation.c), choosing among certificates (tls_select.c). */
#include "proxy/net/tls_cert.h"

#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/mem.h>
#include <openssl/pem.h>
#include <openssl/pkcs8.h>
#include <openssl/sha2.h>

#include "protos/gen/core.pb-c.h"
#include "protos/gen/tls.pb-c.h"
#include "proxy/net/tls_ocsp.h"
#include "proxy/net/tls_verify.h"
#include "proxy/net/tls_x509.h"

struct cert_sources {
    struct tls_source chain, key, pkcs12, password, staple;
};

const char *tls_error_text(char out[256]) {
    uint32_t err = ERR_get_error();
    ERR_clear_error();
    if (!err) {
        return "unknown";
    }
    ERR_error_string_n(err, out, 256);
    return out;
}

/* --- certificate chain --- */

struct chain {
    CRYPTO_BUFFER *v[TLS_CHAIN_CERTS_MAX];
    size_t n;
};

static void chain_fini(struct chain *c) {
    for (size_t i = 0; i < c->n; i++) {
        CRYPTO_BUFFER_free(c->v[i]);
    }
    c->n = 0;
}

/* Takes x. */
static bool chain_push(struct chain *c, X509 *x) {
    uint8_t *der = NULL;
    int n = c->n < TLS_CHAIN_CERTS_MAX ? i2d_X509(x, &der) : -1;
    X509_free(x);
    if (n < 0) {
        return false;
    }
    c->v[c->n] = CRYPTO_BUFFER_new(der, (size_t)n, tls_x509_pool());
    CHECK(c->v[c->n]);
    c->n++;
    OPENSSL_free(der);
    return true;
}

/* PEM certificates up to the end of the text; anything malformed spoils all. */
static bool chain_read(struct chain *c, sv pem) {
    BIO *bio = BIO_new_mem_buf(pem.p, (ossl_ssize_t)pem.n);
    CHECK(bio);
    bool ok = true;
    for (;;) {
        X509 *x = c->n ? PEM_read_bio_X509(bio, NULL, NULL, NULL)
                       : PEM_read_bio_X509_AUX(bio, NULL, NULL, NULL);
        if (!x) {
            break;
        }
        if (!chain_push(c, x)) {
            ok = false;
            break;
        }
    }
    uint32_t err = ERR_peek_last_error();
    bool at_end = ERR_GET_LIB(err) == ERR_LIB_PEM && ERR_GET_REASON(err) == PEM_R_NO_START_LINE;
    BIO_free(bio);
    if (!ok || !at_end || c->n == 0) {
        return false;
    }
    ERR_clear_error();
    return true;
}

static EVP_PKEY *key_read(sv pem, sv password) {
    BIO *bio = BIO_new_mem_buf(pem.p, (ossl_ssize_t)pem.n);
    CHECK(bio);
    /* The password is NUL-terminated in its arena; without one an encrypted key is an error, never
     * a prompt. */
    char *pass = password.n ? (char *)(uintptr_t)password.p : NULL;
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, NULL, pass);
    BIO_free(bio);
    return key;
}

static bool pkcs12_read(const struct cert_sources *src, struct chain *c, EVP_PKEY **key) {
    STACK_OF(X509) *certs = sk_X509_new_null();
    CHECK(certs);
    CBS in;
    CBS_init(&in, (const uint8_t *)src->pkcs12.bytes.p, src->pkcs12.bytes.n);
    bool ok = PKCS12_get_key_and_certs(key, certs, &in,
                                       src->password.bytes.n ? src->password.bytes.p : "") &&
              *key && sk_X509_num(certs) > 0;
    /* The leaf is the one that belongs to the key, wherever it stands. */
    size_t leaf = 0;
    for (size_t i = 0; ok && i < sk_X509_num(certs); i++) {
        if (X509_check_private_key(sk_X509_value(certs, i), *key)) {
            leaf = i;
            break;
        }
        ERR_clear_error();
    }
    for (size_t i = 0; ok && i < sk_X509_num(certs); i++) {
        size_t at = i == 0 ? leaf : i <= leaf ? i - 1 : i;
        X509 *x = sk_X509_value(certs, at);
        X509_up_ref(x);
        ok = chain_push(c, x);
    }
    sk_X509_pop_free(certs, X509_free);
    return ok;
}

/* --- building the shared object --- */

static void cert_free(struct tls_interned *self) {
    struct tls_cert *c = (struct tls_cert *)(void *)self;
    X509_free(c->leaf);
    SSL_CREDENTIAL_free(c->plain);
    SSL_CREDENTIAL_free(c->stapled);
    for (size_t i = 0; i < c->chain_n; i++) {
        CRYPTO_BUFFER_free(c->chain[i]);
    }
    xfree(c->chain);
    EVP_PKEY_free(c->key);
    CRYPTO_BUFFER_free(c->staple);
    xfree(c);
}

static bool check_key_type(const struct tls_cert *c, sv path, struct diag *d) {
    EVP_PKEY *key = X509_get_pubkey(c->leaf);
    int bits = key ? EVP_PKEY_bits(key) : 0;
    EVP_PKEY_free(key);
    switch (c->key_type) {
    case EVP_PKEY_EC:
        if (c->curve_nid == NID_X9_62_prime256v1 || c->curve_nid == NID_secp384r1 ||
            c->curve_nid == NID_secp521r1) {
            return true;
        }
        return diag_error(d,
                          "Failed to load certificate chain from %.*s, only P-256, P-384 or P-521 "
                          "ECDSA certificates are supported",
                          SV_ARG(path));
    case EVP_PKEY_RSA:
        if (bits >= (int)TLS_RSA_BITS_MIN) {
            return true;
        }
        return diag_error(d,
                          "Failed to load certificate chain from %.*s, only RSA certificates with "
                          "2048-bit or larger keys are supported",
                          SV_ARG(path));
    default: /* whatever BoringSSL can sign with; it judged when the key was set */
        return true;
    }
}

static SSL_CREDENTIAL *credential(const struct chain *chain, EVP_PKEY *key) {
    SSL_CREDENTIAL *cred = SSL_CREDENTIAL_new_x509();
    CHECK(cred);
    if (SSL_CREDENTIAL_set1_cert_chain(cred, chain->v, chain->n) &&
        SSL_CREDENTIAL_set1_private_key(cred, key)) {
        return cred;
    }
    SSL_CREDENTIAL_free(cred);
    return NULL;
}

/* A response for another certificate, or one that is not understood, is refused: clients would fail
 * on it. */
static bool add_staple(struct tls_cert *c, const struct chain *chain, EVP_PKEY *key, sv staple,
                       struct diag *d) {
    struct tls_ocsp ocsp;
    const char *err = tls_ocsp_parse(staple, &ocsp);
    if (err) {
        return diag_error(d, "ocsp_staple: %s", err);
    }
    if (!tls_ocsp_is_for(&ocsp, c->leaf)) {
        return diag_error(d, "OCSP response does not match its TLS certificate");
    }
    CRYPTO_BUFFER *bytes = CRYPTO_BUFFER_new((const uint8_t *)staple.p, staple.n, NULL);
    CHECK(bytes);
    c->stapled = credential(chain, key);
    CHECK(c->stapled && SSL_CREDENTIAL_set1_ocsp_response(c->stapled, bytes));
    c->staple = bytes;
    c->ocsp_this_update_s = ocsp.this_update_s;
    c->ocsp_next_update_s = ocsp.next_update_s;
    return true;
}

static void keep_parts(struct tls_cert *c, const struct chain *chain, EVP_PKEY *key) {
    c->chain = xnew_array(CRYPTO_BUFFER *, chain->n);
    c->chain_n = chain->n;
    for (size_t i = 0; i < chain->n; i++) {
        CRYPTO_BUFFER_up_ref(chain->v[i]);
        c->chain[i] = chain->v[i];
    }
    EVP_PKEY_up_ref(key);
    c->key = key;
}

static bool fill(struct tls_cert *c, const struct cert_sources *src, const struct chain *chain,
                 EVP_PKEY *key, struct diag *d) {
    bool is_p12 = src->pkcs12.bytes.n > 0;
    sv cert_path = is_p12 ? src->pkcs12.path : src->chain.path;
    sv key_path = is_p12 ? src->pkcs12.path : src->key.path;
    c->leaf = tls_x509_from_buffer(chain->v[0]);
    if (!c->leaf) {
        return diag_error(d, "Failed to load certificate chain from %.*s", SV_ARG(cert_path));
    }
    c->not_after_s = 0;
    tls_x509_not_after(c->leaf, &c->not_after_s);
    c->key_type = tls_x509_key_type(c->leaf, &c->curve_nid);
    c->is_must_staple = tls_x509_is_must_staple(c->leaf);
    keep_parts(c, chain, key);
    if (!check_key_type(c, cert_path, d)) {
        return false;
    }
    c->plain = credential(chain, key);
    if (!c->plain) {
        char err[256];
        return diag_error(d, "Failed to load private key from %.*s, Cause: %s", SV_ARG(key_path),
                          tls_error_text(err));
    }
    return src->staple.bytes.n == 0 || add_staple(c, chain, key, src->staple.bytes, d);
}

static bool read_parts(const struct cert_sources *src, struct chain *chain, EVP_PKEY **key,
                       struct diag *d) {
    char err[256];
    ERR_clear_error();
    if (src->pkcs12.bytes.n) {
        if (pkcs12_read(src, chain, key)) {
            return true;
        }
        ERR_clear_error();
        return diag_error(d, "Failed to load pkcs12 from %.*s", SV_ARG(src->pkcs12.path));
    }
    if (!chain_read(chain, src->chain.bytes)) {
        ERR_clear_error();
        return diag_error(d, "Failed to load certificate chain from %.*s", SV_ARG(src->chain.path));
    }
    *key = key_read(src->key.bytes, src->password.bytes);
    if (!*key) {
        return diag_error(d, "Failed to load private key from %.*s, Cause: %s",
                          SV_ARG(src->key.path), tls_error_text(err));
    }
    return true;
}

static void digest_source(SHA256_CTX *sha, const struct tls_source *src) {
    uint64_t n = src->bytes.n;
    SHA256_Update(sha, &n, sizeof n);
    SHA256_Update(sha, src->bytes.p, src->bytes.n);
}

/* The shared object for these sources: an earlier one of the same content, or a new one. */
static struct tls_cert *cert_get(const struct cert_sources *src, struct diag *d) {
    uint8_t digest[TLS_DIGEST_BYTES];
    SHA256_CTX sha;
    SHA256_Init(&sha);
    SHA256_Update(&sha, "cert", 4);
    digest_source(&sha, &src->chain);
    digest_source(&sha, &src->key);
    digest_source(&sha, &src->pkcs12);
    digest_source(&sha, &src->password);
    digest_source(&sha, &src->staple);
    SHA256_Final(digest, &sha);
    struct tls_cert *c = tls_intern_find(digest);
    if (c) {
        return c;
    }
    struct chain chain = {.n = 0};
    EVP_PKEY *key = NULL;
    if (read_parts(src, &chain, &key, d)) {
        c = xnew(struct tls_cert);
        if (fill(c, src, &chain, key, d)) {
            c = tls_intern_add(&c->interned, digest, cert_free);
        } else {
            cert_free(&c->interned);
            c = NULL;
        }
    }
    EVP_PKEY_free(key);
    chain_fini(&chain);
    return c;
}

/* --- messages --- */

static bool cert_check(const Tls__TlsCertificate *m, const struct cert_sources *src,
                       struct diag *d) {
    if (m->private_key_provider) {
        return diag_error(d, "private_key_provider '%s' is not supported",
                          m->private_key_provider->provider_name);
    }
    if (m->n_signed_certificate_timestamp) {
        diag_warn(d, "signed_certificate_timestamp has no effect");
    }
    if (m->ocsp_staple &&
        m->ocsp_staple->specifier_case == CORE__DATA_SOURCE__SPECIFIER_INLINE_STRING) {
        return diag_error(d, "OCSP staple cannot be provided via inline_string");
    }
    if (m->pkcs12) {
        if (m->private_key) {
            return diag_error(d,
                              "Certificate configuration can't have both pkcs12 and private_key");
        }
        return !m->certificate_chain ||
               diag_error(d,
                          "Certificate configuration can't have both pkcs12 and certificate_chain");
    }
    if (src->chain.bytes.n == 0) {
        return diag_error(
            d, "Failed to load incomplete certificate from %.*s: certificate chain not set",
            SV_ARG(src->chain.path));
    }
    return src->key.bytes.n > 0 ||
           diag_error(d, "Failed to load incomplete private key from path: %.*s",
                      SV_ARG(src->key.path));
}

static bool read_sources(struct tls_secret *s, struct arena *a, const Tls__TlsCertificate *m,
                         struct cert_sources *src, struct diag *d) {
    tls_secret_watch_dir(s, m->watched_directory);
    return tls_source_read(s, a, m->certificate_chain, &src->chain, d) &&
           tls_source_read(s, a, m->private_key, &src->key, d) &&
           tls_source_read(s, a, m->pkcs12, &src->pkcs12, d) &&
           tls_source_read(s, a, m->password, &src->password, d) &&
           tls_source_read(s, a, m->ocsp_staple, &src->staple, d);
}

static void wipe(sv s) {
    if (s.n) {
        OPENSSL_cleanse((char *)(uintptr_t)s.p, s.n);
    }
}

static bool fill_cert(struct tls_secret *s, const Tls__TlsCertificate *m, struct diag *d) {
    struct arena scratch;
    arena_init(&scratch, 0);
    struct cert_sources src;
    memset(&src, 0, sizeof src);
    if (read_sources(s, &scratch, m, &src, d) && cert_check(m, &src, d)) {
        s->cert = cert_get(&src, d);
        s->cert_path = arena_sv(&s->arena_, m->pkcs12 ? src.pkcs12.path : src.chain.path);
    }
    wipe(src.key.bytes);
    wipe(src.pkcs12.bytes);
    wipe(src.password.bytes);
    arena_fini(&scratch);
    return s->cert != NULL;
}

static bool fill_tickets(struct tls_secret *s, const Tls__TlsSessionTicketKeys *m, struct diag *d) {
    _Static_assert(sizeof(struct tls_ticket_key) == 80, "name, HMAC key and AES key");
    if (m->n_keys == 0 || m->n_keys > TLS_TICKET_KEYS_MAX) {
        return diag_error(d, "expected between 1 and %u session ticket keys, not %zu",
                          TLS_TICKET_KEYS_MAX, m->n_keys);
    }
    struct tls_ticket_key *keys = arena_new_array(&s->arena_, struct tls_ticket_key, m->n_keys);
    struct arena scratch;
    arena_init(&scratch, 0);
    bool ok = true;
    for (size_t i = 0; ok && i < m->n_keys; i++) {
        DIAG_FIELD(d, "keys[%zu]", i);
        struct tls_source src;
        ok = tls_source_read(s, &scratch, m->keys[i], &src, d);
        if (ok && src.bytes.n != sizeof keys[i]) {
            ok = diag_error(d,
                            "Incorrect TLS session ticket key length. Length %zu, expected length "
                            "%zu.",
                            src.bytes.n, sizeof keys[i]);
        }
        if (ok) {
            memcpy(&keys[i], src.bytes.p, sizeof keys[i]);
            wipe(src.bytes);
        }
    }
    arena_fini(&scratch);
    s->tickets = keys;
    s->tickets_n = (unsigned)m->n_keys;
    return ok;
}

static bool fill_generic(struct tls_secret *s, const Tls__GenericSecret *m, struct diag *d) {
    struct tls_generic *v = arena_new_array(&s->arena_, struct tls_generic, m->n_secrets + 1);
    unsigned n = 0;
    struct tls_source src;
    if (m->secret) {
        DIAG_FIELD(d, "secret");
        if (!tls_source_read(s, &s->arena_, m->secret, &src, d)) {
            return false;
        }
        v[n++] = (struct tls_generic){SV(""), src.bytes};
    }
    for (size_t i = 0; i < m->n_secrets; i++) {
        DIAG_FIELD(d, "secrets[%zu]", i);
        if (!tls_source_read(s, &s->arena_, m->secrets[i]->value, &src, d)) {
            return false;
        }
        v[n++] = (struct tls_generic){arena_sv(&s->arena_, sv_cstr(m->secrets[i]->key)), src.bytes};
    }
    s->generics = v;
    s->generics_n = n;
    return true;
}

/* --- the refcounted holder --- */

static void secret_free(struct shared *self) {
    struct tls_secret *s = CONTAINER_OF(self, struct tls_secret, shared);
    tls_intern_unref(s->cert);
    tls_validation_free(s->validation);
    for (unsigned i = 0; i < s->generics_n; i++) {
        wipe(s->generics[i].value);
    }
    if (s->tickets) {
        wipe(sv_from(s->tickets, s->tickets_n * sizeof *s->tickets));
    }
    vec_fini(&s->watches_);
    arena_fini(&s->arena_);
    s->magic = 0;
    xfree(s);
}

static struct tls_secret *secret_new(enum tls_secret_kind kind, sv name) {
    struct tls_secret *s = xnew(struct tls_secret);
    shared_init(&s->shared, secret_free);
    s->magic = TLS_SECRET_MAGIC;
    s->kind = kind;
    arena_init(&s->arena_, 256);
    s->name = arena_sv(&s->arena_, name);
    return s;
}

static struct tls_secret *secret_done(struct tls_secret *s, bool ok) {
    if (ok) {
        return s;
    }
    tls_secret_unref(s);
    return NULL;
}

struct tls_secret *tls_secret_from_cert(const void *msg, sv name, struct diag *d) {
    struct tls_secret *s = secret_new(TLS_SECRET_CERT, name);
    return secret_done(s, fill_cert(s, msg, d));
}

struct tls_secret *tls_secret_from_validation(const void *msg, sv name, struct diag *d) {
    struct tls_secret *s = secret_new(TLS_SECRET_VALIDATION, name);
    s->validation = tls_validation_compile(s, msg, d);
    return secret_done(s, s->validation != NULL);
}

struct tls_secret *tls_secret_from_tickets(const void *msg, sv name, struct diag *d) {
    struct tls_secret *s = secret_new(TLS_SECRET_TICKETS, name);
    return secret_done(s, fill_tickets(s, msg, d));
}

static struct tls_secret *from_generic(const Tls__GenericSecret *m, sv name, struct diag *d) {
    struct tls_secret *s = secret_new(TLS_SECRET_GENERIC, name);
    return secret_done(s, fill_generic(s, m, d));
}

static struct tls_secret *from_message(const Tls__Secret *m, struct diag *d) {
    sv name = sv_cstr(m->name);
    switch (m->type_case) {
    case TLS__SECRET__TYPE_TLS_CERTIFICATE: {
        DIAG_FIELD(d, "tls_certificate");
        return tls_secret_from_cert(m->tls_certificate, name, d);
    }
    case TLS__SECRET__TYPE_VALIDATION_CONTEXT: {
        DIAG_FIELD(d, "validation_context");
        return tls_secret_from_validation(m->validation_context, name, d);
    }
    case TLS__SECRET__TYPE_SESSION_TICKET_KEYS: {
        DIAG_FIELD(d, "session_ticket_keys");
        return tls_secret_from_tickets(m->session_ticket_keys, name, d);
    }
    case TLS__SECRET__TYPE_GENERIC_SECRET: {
        DIAG_FIELD(d, "generic_secret");
        return from_generic(m->generic_secret, name, d);
    }
    case TLS__SECRET__TYPE__NOT_SET:
    default:
        diag_error(d, "Secret type not implemented");
        return NULL;
    }
}

static void unref_secret(void *arg) { tls_secret_unref(arg); }

struct tls_secret *tls_secret_compile(struct arena *owner, const void *secret_msg, struct diag *d) {
    struct tls_secret *s = from_message(secret_msg, d);
    if (s) {
        arena_on_fini(owner, unref_secret, s);
    }
    return s;
}

struct tls_secret *tls_secret_ref(const struct tls_secret *s) {
    struct tls_secret *mine = (struct tls_secret *)(uintptr_t)s; /* only its refcount changes */
    if (mine) {
        shared_ref_(&mine->shared);
    }
    return mine;
}

void tls_secret_unref(struct tls_secret *s) {
    if (s) {
        shared_unref(&s->shared);
    }
}

static bool equal_generics(const struct tls_secret *a, const struct tls_secret *b) {
    for (unsigned i = 0; i < a->generics_n; i++) {
        if (!sv_eq(a->generics[i].name, b->generics[i].name) ||
            !sv_eq(a->generics[i].value, b->generics[i].value)) {
            return false;
        }
    }
    return true;
}

bool tls_secret_equal(const struct tls_secret *a, const struct tls_secret *b) {
    if (a->kind != b->kind) {
        return false;
    }
    switch (a->kind) {
    case TLS_SECRET_CERT:
        return a->cert == b->cert; /* interned */
    case TLS_SECRET_VALIDATION:
        return memcmp(a->validation->digest, b->validation->digest, TLS_DIGEST_BYTES) == 0;
    case TLS_SECRET_TICKETS:
        return a->tickets_n == b->tickets_n &&
               memcmp(a->tickets, b->tickets, a->tickets_n * sizeof(*a->tickets)) == 0;
    case TLS_SECRET_GENERIC:
        return a->generics_n == b->generics_n && equal_generics(a, b);
    }
    return false;
}

sv tls_secret_generic(const struct tls_secret *s, sv name) {
    for (unsigned i = 0; i < s->generics_n; i++) {
        if (sv_eq(s->generics[i].name, name)) {
            return s->generics[i].value;
        }
    }
    return SV_NULL;
}
