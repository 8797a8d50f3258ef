/* Key sets and signatures, by BoringSSL.
 * Threads: any. Spec: RFC 7518 §3, §6; RFC 8037 §2; see the header. */
#include "filters/common/jwks.h"

#include <openssl/bio.h>
#include <openssl/bn.h>
#include <openssl/curve25519.h>
#include <openssl/ec.h>
#include <openssl/ec_key.h>
#include <openssl/ecdsa.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/mem.h>
#include <openssl/nid.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

enum key_type { KEY_RSA, KEY_EC, KEY_OKP, KEY_OCT };
struct key {
    enum key_type type;
    sv kid, alg; /* empty: not told */
    EVP_PKEY *pkey;
    EC_KEY *ec;
    sv raw; /* Ed25519 public key, or a shared secret */
};
struct jwks {
    struct shared shared;
    struct arena arena;
    struct key *v;
    unsigned n;
};

static const uint8_t *bytes(sv s) { return (const uint8_t *)s.p; }

static void on_last_unref(struct shared *s) {
    struct jwks *k = (struct jwks *)s;
    for (unsigned i = 0; i < k->n; i++) {
        EVP_PKEY_free(k->v[i].pkey);
        EC_KEY_free(k->v[i].ec);
    }
    arena_fini(&k->arena);
    xfree(k);
}

struct jwks *jwks_ref(struct jwks *k) {
    return shared_ref(k);
}
void jwks_unref(struct jwks *k) {
    if (k) {
        shared_unref(&k->shared);
    }
}
unsigned jwks_count(const struct jwks *k) { return k->n; }

/* --- keys --- */

/* A string member; p NULL: absent or of another type. */
static sv text_of(const struct kv_value *key, const char *name) {
    const struct kv_value *v = kv_get(key, sv_cstr(name));
    return v && v->kind == KV_STRING ? v->s : SV_NULL;
}

static BIGNUM *number_of(const struct kv_value *key, const char *name, struct arena *a) {
    sv text = text_of(key, name);
    sv raw = text.p ? jwt_base64url(text, a) : SV_NULL;
    return raw.p ? BN_bin2bn(bytes(raw), raw.n, NULL) : NULL;
}

static EVP_PKEY *rsa_pkey(const BIGNUM *n, const BIGNUM *e) {
    if (!n || !e || (!BN_is_word(e, 3) && !BN_is_word(e, 65537))) {
        return NULL;
    }
    RSA *rsa = RSA_new_public_key(n, e);
    EVP_PKEY *pkey = rsa ? EVP_PKEY_new() : NULL;
    if (pkey && !EVP_PKEY_assign_RSA(pkey, rsa)) {
        EVP_PKEY_free(pkey);
        pkey = NULL;
    }
    if (!pkey) {
        RSA_free(rsa);
    }
    return pkey;
}

static bool read_rsa(const struct kv_value *m, struct arena *a, struct key *k) {
    if (k->alg.n && !sv_starts(k->alg, SV("RS")) && !sv_starts(k->alg, SV("PS"))) {
        return false;
    }
    BIGNUM *n = number_of(m, "n", a), *e = number_of(m, "e", a);
    k->pkey = rsa_pkey(n, e);
    BN_free(n);
    BN_free(e);
    return k->pkey != NULL;
}

/* The curve by alg and crv, which must agree; P-256 when neither is told. NID_undef: none. */
static int curve_of(sv alg, sv crv) {
    static const struct {
        const char *alg, *crv;
        int nid;
    } rows[] = {{"ES256", "P-256", NID_X9_62_prime256v1},
                {"ES384", "P-384", NID_secp384r1},
                {"ES512", "P-521", NID_secp521r1}};
    if (!alg.n && !crv.n) {
        return rows[0].nid;
    }
    for (size_t i = 0; i < ARRAY_LEN(rows); i++) {
        if ((!alg.n || sv_is(alg, rows[i].alg)) && (!crv.n || sv_is(crv, rows[i].crv))) {
            return rows[i].nid;
        }
    }
    return NID_undef;
}

static bool read_ec(const struct kv_value *m, struct arena *a, struct key *k) {
    const struct kv_value *crv = kv_get(m, SV("crv"));
    int nid = crv && crv->kind != KV_STRING ? NID_undef : curve_of(k->alg, text_of(m, "crv"));
    if (nid == NID_undef) {
        return false;
    }
    BIGNUM *x = number_of(m, "x", a), *y = number_of(m, "y", a);
    k->ec = EC_KEY_new_by_curve_name(nid);
    bool ok = x && y && k->ec && EC_KEY_set_public_key_affine_coordinates(k->ec, x, y);
    BN_free(x);
    BN_free(y);
    return ok;
}

static bool read_okp(const struct kv_value *m, struct arena *a, struct key *k) {
    if ((k->alg.n && !sv_is(k->alg, "EdDSA")) || !sv_is(text_of(m, "crv"), "Ed25519")) {
        return false;
    }
    sv x = text_of(m, "x");
    k->raw = x.p ? jwt_base64url(x, a) : SV_NULL;
    return k->raw.n == ED25519_PUBLIC_KEY_LEN;
}

static bool read_oct(const struct kv_value *m, struct arena *a, struct key *k) {
    if (k->alg.n && !sv_starts(k->alg, SV("HS"))) {
        return false;
    }
    sv secret = text_of(m, "k");
    k->raw = secret.p ? jwt_base64url(secret, a) : SV_NULL;
    return k->raw.n > 0;
}

static bool read_key(const struct kv_value *m, struct arena *a, struct key *k) {
    static const struct {
        const char *kty;
        enum key_type type;
        bool (*read)(const struct kv_value *m, struct arena *a, struct key *k);
    } kinds[] = {{"RSA", KEY_RSA, read_rsa},
                 {"EC", KEY_EC, read_ec},
                 {"OKP", KEY_OKP, read_okp},
                 {"oct", KEY_OCT, read_oct}};
    sv kty = text_of(m, "kty");
    k->kid = text_of(m, "kid");
    k->alg = text_of(m, "alg");
    for (size_t i = 0; i < ARRAY_LEN(kinds); i++) {
        if (sv_is(kty, kinds[i].kty)) {
            k->type = kinds[i].type;
            return kinds[i].read(m, a, k);
        }
    }
    return false;
}

/* Keys that cannot be used are left out; one usable key makes a set. */
static enum jwt_status read_keys(struct jwks *k, const struct kv_list *list) {
    if (list->n > JWKS_KEYS_MAX) {
        return JWT_JWKS_NO_VALID_KEYS;
    }
    k->v = arena_new_array(&k->arena, struct key, list->n ? list->n : 1);
    for (uint32_t i = 0; i < list->n; i++) {
        struct key key = {0};
        if (list->v[i].kind == KV_STRUCT && read_key(&list->v[i], &k->arena, &key)) {
            k->v[k->n++] = key;
        } else {
            EC_KEY_free(key.ec);
        }
    }
    return k->n ? JWT_OK : JWT_JWKS_NO_VALID_KEYS;
}

/* --- certificates --- */

static EVP_PKEY *certificate_key(sv pem) {
    BIO *bio = BIO_new_mem_buf(pem.p, (ossl_ssize_t)pem.n);
    X509 *x = bio ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    EVP_PKEY *pkey = x ? X509_get_pubkey(x) : NULL;
    if (pkey && EVP_PKEY_id(pkey) != EVP_PKEY_RSA) {
        EVP_PKEY_free(pkey);
        pkey = NULL;
    }
    X509_free(x);
    BIO_free(bio);
    return pkey;
}

static bool is_certificate_map(const struct kv_struct *m) {
    for (uint32_t i = 0; i < m->n; i++) {
        if (!m->v[i].key.n || m->v[i].value.kind != KV_STRING || !m->v[i].value.s.n) {
            return false;
        }
    }
    return m->n > 0 && m->n <= JWKS_KEYS_MAX;
}

static enum jwt_status read_certificates(struct jwks *k, const struct kv_struct *m) {
    if (!is_certificate_map(m)) {
        return JWT_JWKS_NO_KEYS;
    }
    k->v = arena_new_array(&k->arena, struct key, m->n);
    for (uint32_t i = 0; i < m->n; i++) {
        EVP_PKEY *pkey = certificate_key(m->v[i].value.s);
        if (!pkey) {
            return JWT_JWKS_NO_VALID_KEYS;
        }
        k->v[k->n++] = (struct key){.type = KEY_RSA, .kid = m->v[i].key, .pkey = pkey};
    }
    return JWT_OK;
}

struct jwks *jwks_new(sv text, enum jwt_status *why) {
    struct jwks *k = xnew(struct jwks);
    struct kv_value root;
    shared_init(&k->shared, on_last_unref);
    arena_init(&k->arena, 0);
    if (!jwt_json_object(text, &k->arena, &root)) {
        *why = JWT_JWKS_PARSE_ERROR;
    } else {
        const struct kv_value *keys = kv_get(&root, SV("keys"));
        *why = !keys                   ? read_certificates(k, &root.fields)
               : keys->kind != KV_LIST ? JWT_JWKS_BAD_KEYS
                                       : read_keys(k, &keys->list);
    }
    ERR_clear_error();
    if (*why == JWT_OK) {
        arena_trim(&k->arena);
        return k;
    }
    jwks_unref(k);
    return NULL;
}

/* --- signatures --- */

static const EVP_MD *digest_of(sv alg) {
    return sv_ends(alg, SV("384"))   ? EVP_sha384()
           : sv_ends(alg, SV("512")) ? EVP_sha512()
                                     : EVP_sha256();
}

static bool verify_rsa(const struct key *k, const struct jwt *t) {
    const EVP_MD *md = digest_of(t->alg);
    EVP_MD_CTX ctx;
    EVP_PKEY_CTX *pctx; /* the ctx's */
    EVP_MD_CTX_init(&ctx);
    bool ok = EVP_DigestVerifyInit(&ctx, &pctx, md, NULL, k->pkey) == 1;
    if (ok && t->alg.p[0] == 'P') {
        ok = EVP_PKEY_CTX_set_rsa_padding(pctx, RSA_PKCS1_PSS_PADDING) == 1 &&
             EVP_PKEY_CTX_set_rsa_mgf1_md(pctx, md) == 1;
    }
    ok = ok && EVP_DigestVerify(&ctx, bytes(t->signature), t->signature.n, bytes(t->signed_data),
                                t->signed_data.n) == 1;
    EVP_MD_CTX_cleanup(&ctx);
    return ok;
}

/* RFC 7518 §3.4: R and S, each half of the signature. */
static bool verify_ec(const struct key *k, const struct jwt *t) {
    uint8_t digest[EVP_MAX_MD_SIZE];
    unsigned digest_n;
    size_t half = t->signature.n / 2;
    if (!EVP_Digest(t->signed_data.p, t->signed_data.n, digest, &digest_n, digest_of(t->alg),
                    NULL)) {
        return false;
    }
    ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(bytes(t->signature), half, NULL);
    BIGNUM *s = BN_bin2bn(bytes(t->signature) + half, half, NULL);
    bool is_taken = sig && r && s && ECDSA_SIG_set0(sig, r, s);
    bool ok = is_taken && ECDSA_do_verify(digest, digest_n, sig, k->ec) == 1;
    if (!is_taken) {
        BN_free(r);
        BN_free(s);
    }
    ECDSA_SIG_free(sig);
    return ok;
}

static bool verify_oct(const struct key *k, const struct jwt *t) {
    uint8_t mac[EVP_MAX_MD_SIZE];
    unsigned mac_n;
    return HMAC(digest_of(t->alg), k->raw.p, k->raw.n, bytes(t->signed_data), t->signed_data.n, mac,
                &mac_n) &&
           mac_n == t->signature.n && CRYPTO_memcmp(mac, t->signature.p, mac_n) == 0;
}

/* A key is only tried for algorithms of its own type: no token chooses what a public key is used
 * as. */
static bool verify(const struct key *k, const struct jwt *t) {
    switch (k->type) {
    case KEY_RSA:
        return (sv_starts(t->alg, SV("RS")) || sv_starts(t->alg, SV("PS"))) && verify_rsa(k, t);
    case KEY_EC:
        return sv_starts(t->alg, SV("ES")) && verify_ec(k, t);
    case KEY_OKP:
        return sv_is(t->alg, "EdDSA") && ED25519_verify(bytes(t->signed_data), t->signed_data.n,
                                                        bytes(t->signature), bytes(k->raw));
    case KEY_OCT:
        return sv_starts(t->alg, SV("HS")) && verify_oct(k, t);
    }
    return false;
}

enum jwt_status jwks_verify(const struct jwks *k, const struct jwt *t) {
    enum jwt_status status = JWT_JWKS_KID_ALG_MISMATCH;
    for (unsigned i = 0; i < k->n; i++) {
        const struct key *key = &k->v[i];
        if ((t->kid.n && key->kid.n && !sv_eq(t->kid, key->kid)) ||
            (key->alg.n && !sv_eq(key->alg, t->alg))) {
            continue;
        }
        status = JWT_VERIFICATION_FAIL;
        if (key->type == KEY_OKP && t->signature.n != ED25519_SIGNATURE_LEN) {
            status = JWT_ED25519_WRONG_LENGTH;
            break;
        }
        if (verify(key, t)) {
            status = JWT_OK;
            break;
        }
    }
    ERR_clear_error();
    return status;
}
