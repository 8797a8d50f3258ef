/* Chooses a downstream certificate by server name, key type and OCSP policy.
 * Threads: tables are built on the config thread, immutable then; finding is done by workers.
 * Spec: Envoy's certificate selection (docs, "TLS certificate selection"): exact name, wildcard,
 * then the first that suits.
 * Not here: filter-chain matching by SNI (net/filter_chain.c). */
#include <limits.h>

#include <openssl/bytestring.h>
#include <openssl/nid.h>

#include "proxy/net/tls_context.h"
#include "proxy/net/tls_x509.h"

#define SNI_MAX 255u
#define NAME_CERTS_MAX 8u /* kinds of key one name is served with */

struct tls_select_name {
    unsigned n;
    unsigned certs[NAME_CERTS_MAX]; /* the first of each key type and curve */
};

static sv lower(struct arena *a, sv name) {
    char *p = arena_cstr(a, name);
    for (size_t i = 0; i < name.n; i++) {
        p[i] = ascii_tolower(p[i]);
    }
    return sv_from(p, name.n);
}

/* Among certificates of one kind the earlier one wins. */
static void add_name(struct tls_select *s, sv name, unsigned cert) {
    sv key = lower(&s->arena_, name);
    if (sv_starts(key, SV("*."))) {
        key = sv_skip(key, 1);
    }
    struct tls_select_name *entry = map_get(&s->names, key);
    if (!entry) {
        entry = arena_new(&s->arena_, struct tls_select_name);
        map_put(&s->names, key, entry);
    }
    for (unsigned i = 0; i < entry->n; i++) {
        const struct tls_cert *other = s->certs[entry->certs[i]];
        if (other->key_type == s->certs[cert]->key_type &&
            other->curve_nid == s->certs[cert]->curve_nid) {
            return;
        }
    }
    if (entry->n < NAME_CERTS_MAX) {
        entry->certs[entry->n++] = cert;
    }
}

/* DNS alternative names; the common name only when there are no alternative names at all. */
static void add_cert(struct tls_select *s, unsigned cert) {
    const X509 *leaf = s->certs[cert]->leaf;
    const sv *names;
    unsigned n = tls_x509_sans(leaf, GEN_DNS, &s->arena_, &names);
    for (unsigned i = 0; i < n; i++) {
        if (names[i].n) {
            add_name(s, names[i], cert);
        }
    }
    if (X509_get_ext_by_NID(leaf, NID_subject_alt_name, -1) >= 0) {
        return;
    }
    sv cn = tls_x509_common_name(leaf, &s->arena_);
    if (cn.n) {
        add_name(s, cn, cert);
    }
}

void tls_select_init(struct tls_select *s, const struct tls_cert *const *certs, unsigned n,
                     enum tls_ocsp_policy policy, bool full_scan) {
    memset(s, 0, sizeof *s);
    arena_init(&s->arena_, 512);
    map_init(&s->names);
    s->certs = certs;
    s->certs_n = n;
    s->policy = policy;
    s->full_scan = full_scan;
    for (unsigned i = 0; i < n; i++) {
        s->has_rsa |= certs[i]->key_type == EVP_PKEY_RSA;
        add_cert(s, i);
    }
}

void tls_select_fini(struct tls_select *s) {
    map_fini(&s->names);
    arena_fini(&s->arena_);
}

/* --- what the client can do --- */

static unsigned curve_bits(CBS *list, bool sigalgs) {
    unsigned bits = 0;
    uint16_t v;
    while (CBS_get_u16(list, &v)) {
        bits |= v == (sigalgs ? SSL_SIGN_ECDSA_SECP256R1_SHA256 : SSL_GROUP_SECP256R1)
                    ? TLS_CURVE_P256
                    : 0;
        bits |= v == (sigalgs ? SSL_SIGN_ECDSA_SECP384R1_SHA384 : SSL_GROUP_SECP384R1)
                    ? TLS_CURVE_P384
                    : 0;
        bits |= v == (sigalgs ? SSL_SIGN_ECDSA_SECP521R1_SHA512 : SSL_GROUP_SECP521R1)
                    ? TLS_CURVE_P521
                    : 0;
    }
    return bits;
}

/* An extension that is one list of 16-bit numbers. */
static bool u16_list(const SSL_CLIENT_HELLO *hello, uint16_t type, CBS *list) {
    const uint8_t *p;
    size_t n;
    CBS ext;
    if (!SSL_early_callback_ctx_extension_get(hello, type, &p, &n)) {
        return false;
    }
    CBS_init(&ext, p, n);
    return CBS_get_u16_length_prefixed(&ext, list) && CBS_len(&ext) == 0;
}

static bool is_our_ecdsa_cipher(const SSL_CTX *ctx, uint16_t id, uint16_t client_version) {
    const SSL_CIPHER *c = SSL_get_cipher_by_value(id);
    if (!c || SSL_CIPHER_get_min_version(c) > client_version ||
        SSL_CIPHER_get_auth_nid(c) != NID_auth_ecdsa) {
        return false;
    }
    const STACK_OF(SSL_CIPHER) *ours = SSL_CTX_get_ciphers(ctx);
    for (size_t i = 0; i < sk_SSL_CIPHER_num(ours); i++) {
        if (SSL_CIPHER_get_protocol_id(sk_SSL_CIPHER_value(ours, i)) == id) {
            return true;
        }
    }
    return false;
}

unsigned tls_select_curves(const SSL_CLIENT_HELLO *hello, const SSL_CTX *ctx, bool tls13) {
    const uint8_t *p;
    size_t n;
    CBS list;
    if (tls13 && hello->version == TLS1_2_VERSION &&
        SSL_early_callback_ctx_extension_get(hello, TLSEXT_TYPE_supported_versions, &p, &n)) {
        return u16_list(hello, TLSEXT_TYPE_signature_algorithms, &list) ? curve_bits(&list, true)
                                                                        : 0;
    }
    unsigned bits = 0;
    if (u16_list(hello, TLSEXT_TYPE_supported_groups, &list)) {
        bits = curve_bits(&list, false);
    }
    CBS ciphers;
    CBS_init(&ciphers, hello->cipher_suites, hello->cipher_suites_len);
    uint16_t id;
    while (bits && CBS_get_u16(&ciphers, &id)) {
        if (is_our_ecdsa_cipher(ctx, id, hello->version)) {
            return bits;
        }
    }
    return 0;
}

/* --- choosing --- */

static unsigned curve_bit(const struct tls_cert *c) {
    switch (c->curve_nid) {
    case NID_X9_62_prime256v1:
        return TLS_CURVE_P256;
    case NID_secp384r1:
        return TLS_CURVE_P384;
    case NID_secp521r1:
        return TLS_CURVE_P521;
    default: /* not EC */
        return 0;
    }
}

static enum tls_staple staple_of(const struct tls_select *s, const struct tls_cert *c, bool wanted,
                                 int64_t now_s) {
    if (!wanted) {
        return TLS_STAPLE_NOT_ASKED;
    }
    if (c->stapled && c->ocsp_next_update_s > now_s) {
        return TLS_STAPLE;
    }
    switch (c->is_must_staple ? TLS_OCSP_MUST_STAPLE : s->policy) {
    case TLS_OCSP_LENIENT:
        return TLS_NO_STAPLE;
    case TLS_OCSP_STRICT:
        return c->stapled ? TLS_STAPLE_FAILED : TLS_NO_STAPLE;
    case TLS_OCSP_MUST_STAPLE:
        return TLS_STAPLE_FAILED;
    }
    return TLS_STAPLE_FAILED;
}

#define NONE UINT_MAX
struct search {
    unsigned curves;
    bool wants_staple;
    int64_t now_s;
    unsigned found, candidate; /* a candidate will do when nothing better turns up */
};

/* Does certificate i suit the client? An ECDSA one is preferred when it can verify it. */
static bool consider(const struct tls_select *s, struct search *q, unsigned i) {
    const struct tls_cert *c = s->certs[i];
    if (staple_of(s, c, q->wants_staple, q->now_s) == TLS_STAPLE_FAILED) {
        return false;
    }
    bool is_ec = c->key_type == EVP_PKEY_EC;
    if (is_ec ? (curve_bit(c) & q->curves) != 0 : q->curves == 0) {
        q->found = i;
        return true;
    }
    if (!is_ec && q->candidate == NONE) {
        q->candidate = i;
    }
    return false;
}

static void consider_name(const struct tls_select *s, struct search *q, sv name) {
    const struct tls_select_name *entry = map_get(&s->names, name);
    for (unsigned i = 0; entry && i < entry->n; i++) {
        if (consider(s, q, entry->certs[i])) {
            return;
        }
    }
}

static void search_by_name(const struct tls_select *s, struct search *q, sv sni) {
    char text[SNI_MAX];
    if (sni.n == 0 || sni.n > sizeof text) {
        return;
    }
    for (size_t i = 0; i < sni.n; i++) {
        text[i] = ascii_tolower(sni.p[i]);
    }
    sv name = sv_from(text, sni.n);
    consider_name(s, q, name);
    q->found = q->found == NONE ? q->candidate : q->found;
    size_t dot = sv_find(sv_skip(name, 1), '.');
    if (q->found == NONE && dot != SIZE_MAX && dot + 2 < name.n) {
        consider_name(s, q, sv_skip(name, dot + 1));
        q->found = q->found == NONE ? q->candidate : q->found;
    }
}

unsigned tls_select_find(const struct tls_select *s, sv sni, unsigned curves, bool wants_staple,
                         int64_t now_s, enum tls_staple *staple, bool *matched) {
    struct search q = {curves, wants_staple, now_s, NONE, NONE};
    search_by_name(s, &q, sni);
    *matched = q.found != NONE;
    bool scan = q.found == NONE && (sni.n == 0 || s->full_scan);
    if (scan && (curves || s->has_rsa)) {
        for (unsigned i = 0; i < s->certs_n && !consider(s, &q, i); i++) {}
        q.found = q.found == NONE ? q.candidate : q.found;
    }
    unsigned best = q.found == NONE ? 0 : q.found;
    *staple = staple_of(s, s->certs[best], wants_staple, now_s);
    return best;
}
