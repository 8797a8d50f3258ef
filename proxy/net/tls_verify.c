/* Applies validation contexts to a peer's certificate chain.
 * Threads: policies are made on the config thread and read by workers; BoringSSL's stores lock
 * themselves.
 * Spec: RFC 5280 through BoringSSL's X509_verify_cert; names as RFC 6125; Envoy's default and
 * SPIFFE validators.
 * Not here: how configs become objects (tls_validation.c), what a handshake does with the verdict
 * (tls.c). */
#include "proxy/net/tls_verify.h"

#include <limits.h>

#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/mem.h>
#include <openssl/sha2.h>
#include <openssl/ssl.h>

#include "proxy/base/regex.h"
#include "proxy/net/tls_stats.h"
#include "proxy/net/tls_x509.h"

/* --- policy --- */

static void add_crls(struct tls_policy *p, const struct tls_ca *from) {
    if (!from) {
        return;
    }
    for (size_t i = 0; i < sk_X509_CRL_num(from->crls); i++) {
        if (!p->crls) {
            p->crls = sk_X509_CRL_new_null();
        }
        X509_CRL *crl = sk_X509_CRL_value(from->crls, i);
        CHECK(p->crls && X509_CRL_up_ref(crl) && sk_X509_CRL_push(p->crls, crl));
    }
}

/* As protobuf merges: set scalars and messages of the later part win, lists are joined. */
static void merge(struct tls_policy *p, const struct tls_validation *v) {
    p->part[p->parts_n++] = v;
    if (v->ca) {
        p->ca = v->ca;
        p->ca_path = v->ca_path;
    }
    p->allow_expired |= v->allow_expired;
    p->accept_untrusted |= v->accept_untrusted;
    p->only_leaf_crl |= v->only_leaf_crl;
    p->suppress_ca_list |= v->suppress_ca_list;
    if (v->has_max_depth) {
        p->has_max_depth = true;
        p->max_depth = v->max_depth;
    }
    if (v->is_spiffe) {
        p->spiffe = v;
    }
    p->pins_n += v->hashes_n + v->spkis_n;
}

/* Typed matchers anywhere put the legacy ones out of force. */
static void count_sans(struct tls_policy *p) {
    bool typed = false;
    for (unsigned i = 0; i < p->parts_n; i++) {
        typed |= p->part[i]->sans_n && !p->part[i]->sans_are_legacy;
    }
    for (unsigned i = 0; i < p->parts_n; i++) {
        const struct tls_validation *v = p->part[i];
        p->use_sans[i] = v->sans_n && (!typed || !v->sans_are_legacy);
        p->sans_n += p->use_sans[i] ? v->sans_n : 0;
    }
}

static bool check(const struct tls_policy *p, sv crl_path, bool has_crl, struct diag *d) {
    if (p->spiffe) {
        return true;
    }
    if (p->ca) {
        return true;
    }
    if (has_crl) {
        return diag_error(d, "Failed to load CRL from %.*s without trusted CA", SV_ARG(crl_path));
    }
    if (p->sans_n) {
        return diag_error(d, "SAN-based verification of peer certificates without trusted CA is "
                             "insecure and not allowed");
    }
    if (p->allow_expired) {
        return diag_error(d, "Certificate validity period is always ignored without trusted CA");
    }
    return !p->auto_sni_san || diag_error(d, "'auto_sni_san_validation' was configured without "
                                             "configuring a trusted CA");
}

static int verify_mode(const struct tls_policy *p) {
    int strict =
        p->accept_untrusted ? SSL_VERIFY_PEER : SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    if (p->spiffe) {
        return SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
    }
    if (p->sans_n || p->pins_n) {
        return strict;
    }
    return p->ca || p->accept_untrusted ? SSL_VERIFY_PEER : SSL_VERIFY_NONE;
}

bool tls_policy_make(struct tls_policy *p, const struct tls_validation *part0,
                     const struct tls_validation *part1, bool auto_sni_san, struct diag *d) {
    memset(p, 0, sizeof *p);
    p->auto_sni_san = auto_sni_san;
    const struct tls_ca *crl = NULL;
    sv crl_path = SV_NULL;
    const struct tls_validation *parts[] = {part0, part1};
    for (unsigned i = 0; i < 2; i++) {
        if (!parts[i]) {
            continue;
        }
        merge(p, parts[i]);
        if (parts[i]->crl) {
            crl = parts[i]->crl;
            crl_path = parts[i]->crl_path;
        }
    }
    count_sans(p);
    if (!check(p, crl_path, crl != NULL, d)) {
        return false;
    }
    add_crls(p, p->ca);
    add_crls(p, crl);
    p->flags = X509_V_FLAG_PARTIAL_CHAIN;
    p->flags |= p->allow_expired ? X509_V_FLAG_NO_CHECK_TIME : 0;
    if (p->crls) {
        p->flags |= X509_V_FLAG_CRL_CHECK;
        p->flags |= p->only_leaf_crl ? 0 : X509_V_FLAG_CRL_CHECK_ALL;
    }
    p->mode = verify_mode(p);
    return true;
}

void tls_policy_fini(struct tls_policy *p) {
    sk_X509_CRL_pop_free(p->crls, X509_CRL_free);
    p->crls = NULL;
}

/* --- names --- */

static bool text_match(const struct tls_san_matcher *m, sv name) {
    switch (m->kind) {
    case SAN_EXACT:
        return m->ignore_case ? sv_eq_nocase(name, m->text) : sv_eq(name, m->text);
    case SAN_PREFIX:
        return m->ignore_case ? sv_starts_nocase(name, m->text) : sv_starts(name, m->text);
    case SAN_SUFFIX:
        return m->ignore_case ? sv_ends_nocase(name, m->text) : sv_ends(name, m->text);
    case SAN_CONTAINS:
        if (!m->ignore_case) {
            return sv_contains(name, m->text);
        }
        for (size_t i = 0; i + m->text.n <= name.n; i++) {
            if (sv_starts_nocase(sv_skip(name, i), m->text)) {
                return true;
            }
        }
        return false;
    case SAN_REGEX:
        return regex_full_match(m->regex, name.p, name.n);
    }
    return false;
}

static bool san_match(const struct tls_san_matcher *m, const GENERAL_NAME *name, sv text) {
    if (name->type != m->gen_type) {
        return false;
    }
    if (m->gen_type == GEN_OTHERNAME && OBJ_cmp(name->d.otherName->type_id, m->oid) != 0) {
        return false;
    }
    /* A name with a NUL inside is somebody's trick, whatever a prefix or regex says about it. */
    if (m->gen_type != GEN_OTHERNAME && sv_find(text, '\0') != SIZE_MAX) {
        return false;
    }
    return m->gen_type == GEN_DNS && m->kind == SAN_EXACT ? tls_x509_dns_match(m->text, text)
                                                          : text_match(m, text);
}

static bool any_matcher(const struct tls_policy *p, const GENERAL_NAME *name, sv text) {
    for (unsigned i = 0; i < p->parts_n; i++) {
        const struct tls_validation *v = p->part[i];
        for (unsigned j = 0; p->use_sans[i] && j < v->sans_n; j++) {
            /* SPIFFE restricts only URI names, so only those identify anybody. */
            bool counts = !p->spiffe || v->sans[j].gen_type == GEN_URI;
            if (counts && san_match(&v->sans[j], name, text)) {
                return true;
            }
        }
    }
    return false;
}

static bool any_listed(const sv *list, unsigned n, const GENERAL_NAME *name, sv text) {
    for (unsigned i = 0; i < n; i++) {
        if (name->type == GEN_DNS ? tls_x509_dns_match(list[i], text)
                                  : text.n && sv_eq(list[i], text)) {
            return true;
        }
    }
    return false;
}

/* Is any alternative name of the leaf accepted: by the list when there is one, else by the
 * matchers? `dns_only`: the list is the SNI, which is a DNS name. */
static bool names_match(const struct tls_policy *p, const X509 *leaf, const sv *list, unsigned n,
                        bool dns_only, struct arena *a) {
    GENERAL_NAMES *names = X509_get_ext_d2i(leaf, NID_subject_alt_name, NULL, NULL);
    if (!names) {
        ERR_clear_error();
        return false;
    }
    bool found = false;
    size_t count = sk_GENERAL_NAME_num(names);
    for (size_t i = 0; !found && i < count && i < TLS_X509_SANS_MAX; i++) {
        const GENERAL_NAME *name = sk_GENERAL_NAME_value(names, i);
        if (dns_only && name->type != GEN_DNS) {
            continue;
        }
        sv text = tls_x509_general_name(name, a);
        found = list ? any_listed(list, n, name, text) : any_matcher(p, name, text);
    }
    GENERAL_NAMES_free(names);
    return found;
}

/* --- pins --- */

static bool hash_listed(const uint8_t (*list)[TLS_DIGEST_BYTES], unsigned n,
                        const uint8_t hash[TLS_DIGEST_BYTES]) {
    for (unsigned i = 0; i < n; i++) {
        if (memcmp(list[i], hash, TLS_DIGEST_BYTES) == 0) {
            return true;
        }
    }
    return false;
}

static bool pins_match(const struct tls_policy *p, const X509 *leaf) {
    uint8_t cert[TLS_DIGEST_BYTES] = {0};
    uint8_t key[TLS_DIGEST_BYTES] = {0};
    unsigned n = 0;
    uint8_t *spki = NULL;
    int spki_n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(leaf), &spki);
    bool ok = X509_digest(leaf, EVP_sha256(), cert, &n) && spki_n > 0;
    if (ok) {
        SHA256(spki, (size_t)spki_n, key);
    }
    OPENSSL_free(spki);
    for (unsigned i = 0; ok && i < p->parts_n; i++) {
        const struct tls_validation *v = p->part[i];
        if (hash_listed((const uint8_t(*)[TLS_DIGEST_BYTES])v->hashes, v->hashes_n, cert) ||
            hash_listed((const uint8_t(*)[TLS_DIGEST_BYTES])v->spkis, v->spkis_n, key)) {
            return true;
        }
    }
    return false;
}

/* --- chain --- */

static void fail(struct tls_verdict *out, uint8_t alert, int stat, sv error) {
    out->is_ok = false;
    out->status = TLS_PEER_FAILED;
    out->alert = alert;
    out->failed_stat = stat;
    out->error = error;
}

static STACK_OF(X509) * parse_chain(const STACK_OF(CRYPTO_BUFFER) * chain) {
    STACK_OF(X509) *out = sk_X509_new_null();
    CHECK(out);
    for (size_t i = 0; i < sk_CRYPTO_BUFFER_num(chain); i++) {
        X509 *x = tls_x509_from_buffer(sk_CRYPTO_BUFFER_value(chain, i));
        if (!x || !sk_X509_push(out, x)) {
            X509_free(x);
            sk_X509_pop_free(out, X509_free);
            return NULL;
        }
    }
    return out;
}

/* Envoy's max_verify_depth counts the trust anchor, BoringSSL's depth does not. */
static int depth_of(const struct tls_policy *p) {
    uint32_t depth = p->max_depth > 0 ? p->max_depth - 1 : 0;
    return depth < INT_MAX ? (int)depth : INT_MAX;
}

static bool is_crl_error(int err) {
    switch (err) {
    case X509_V_ERR_CERT_REVOKED:
    case X509_V_ERR_UNABLE_TO_GET_CRL:
    case X509_V_ERR_UNABLE_TO_GET_CRL_ISSUER:
    case X509_V_ERR_UNABLE_TO_DECRYPT_CRL_SIGNATURE:
    case X509_V_ERR_CRL_SIGNATURE_FAILURE:
    case X509_V_ERR_CRL_NOT_YET_VALID:
    case X509_V_ERR_CRL_HAS_EXPIRED:
    case X509_V_ERR_ERROR_IN_CRL_LAST_UPDATE_FIELD:
    case X509_V_ERR_ERROR_IN_CRL_NEXT_UPDATE_FIELD:
    case X509_V_ERR_KEYUSAGE_NO_CRL_SIGN:
        return true;
    default:
        return false;
    }
}

static sv chain_error(const X509_STORE_CTX *ctx, struct arena *a) {
    int err = X509_STORE_CTX_get_error(ctx);
    return arena_printf(
        a, "verify cert failed: X509_verify_cert: certificate verification error at depth %d: %s%s",
        X509_STORE_CTX_get_error_depth(ctx),
        is_crl_error(err) ? "certificate revocation check against provided CRLs failed: " : "",
        X509_verify_cert_error_string(err));
}

/* `purpose`: what the certificates must be good for, NULL: anything. */
static bool verify_chain(const struct tls_policy *p, const struct tls_ca *ca, const char *purpose,
                         unsigned long flags, STACK_OF(X509_CRL) * crls, STACK_OF(X509) * chain,
                         struct arena *a, struct tls_verdict *out) {
    X509_STORE_CTX *ctx = X509_STORE_CTX_new();
    CHECK(ctx);
    bool ok = X509_STORE_CTX_init(ctx, ca->store, sk_X509_value(chain, 0), chain) &&
              (!purpose || X509_STORE_CTX_set_default(ctx, purpose));
    if (!ok) {
        fail(out, SSL_AD_INTERNAL_ERROR, SSL_STAT_fail_verify_error,
             SV("verify cert failed: init and setup X509_STORE_CTX"));
        X509_STORE_CTX_free(ctx);
        return false;
    }
    X509_STORE_CTX_set_flags(ctx, flags);
    if (p->has_max_depth) {
        X509_STORE_CTX_set_depth(ctx, depth_of(p));
    }
    X509_STORE_CTX_set0_crls(ctx, crls);
    ok = X509_verify_cert(ctx) == 1;
    if (!ok) {
        fail(out, (uint8_t)SSL_alert_from_verify_result(X509_STORE_CTX_get_error(ctx)),
             SSL_STAT_fail_verify_error, chain_error(ctx, a));
    }
    X509_STORE_CTX_free(ctx);
    ERR_clear_error();
    return ok;
}

static sv name_error(const X509 *leaf, const sv *list, unsigned n, struct arena *a) {
    sv sans = tls_x509_sans_text(leaf, a);
    if (!list) {
        return arena_printf(a, "verify cert failed: SAN matcher, certificate SANs are [%.*s]",
                            SV_ARG(sans));
    }
    struct buf expected;
    buf_init(&expected);
    for (unsigned i = 0; i < n; i++) {
        buf_append_sv(&expected, i ? SV(", ") : SV_NULL);
        buf_append_sv(&expected, list[i]);
    }
    sv text = arena_printf(a,
                           "verify cert failed: verify SAN list, expected SANs: [%.*s], "
                           "certificate SANs: [%.*s]",
                           SV_ARG(buf_pullup(&expected, buf_len(&expected))), SV_ARG(sans));
    buf_fini(&expected);
    return text;
}

/* Alternative names (of the list, and of the SNI or the matchers) and pins; the chain, when there are roots, is already good. */
static bool verify_leaf(const struct tls_policy *p, const struct tls_peer *peer, const X509 *leaf,
                        struct arena *a, struct tls_verdict *out) {
    const sv *list = peer->san_override_n ? peer->san_override : NULL;
    unsigned n = peer->san_override_n;
    bool by_sni = p->auto_sni_san && peer->sni.n > 0;
    bool has_names = list || by_sni || p->sans_n;
    if (list && !names_match(p, leaf, list, n, false, a)) {
        fail(out, SSL_AD_CERTIFICATE_UNKNOWN, SSL_STAT_fail_verify_san,
             name_error(leaf, list, n, a));
        return false;
    }
    if ((by_sni || p->sans_n) &&
        !names_match(p, leaf, by_sni ? &peer->sni : NULL, by_sni, by_sni, a)) {
        fail(out, SSL_AD_CERTIFICATE_UNKNOWN, SSL_STAT_fail_verify_san,
             name_error(leaf, NULL, 0, a));
        return false;
    }
    if (p->pins_n && !pins_match(p, leaf)) {
        fail(out, SSL_AD_BAD_CERTIFICATE_HASH_VALUE, SSL_STAT_fail_verify_cert_hash,
             SV("verify cert failed: cert hash and spki"));
        return false;
    }
    if (has_names || p->pins_n) {
        out->status = TLS_PEER_VALIDATED;
    }
    return true;
}

static void verify_default(const struct tls_policy *p, const struct tls_peer *peer,
                           STACK_OF(X509) * chain, struct arena *a, struct tls_verdict *out) {
    if (p->ca) {
        const char *purpose = peer->is_client ? "ssl_client" : "ssl_server";
        if (!verify_chain(p, p->ca, purpose, p->flags, p->crls, chain, a, out)) {
            out->is_ok = p->accept_untrusted;
            return;
        }
        out->status = TLS_PEER_VALIDATED;
    }
    bool good = verify_leaf(p, peer, sk_X509_value(chain, 0), a, out);
    /* Without roots only a name or pin that matched lets anybody in. */
    good = good && (p->ca || out->status == TLS_PEER_VALIDATED);
    if (!good && out->status != TLS_PEER_FAILED) {
        out->alert = SSL_AD_CERTIFICATE_UNKNOWN;
    }
    out->is_ok = good || p->accept_untrusted;
}

/* --- SPIFFE --- */

/* "spiffe://domain/…" → "domain"; empty when it is not one. */
static sv trust_domain(sv id) {
    if (!sv_eat(&id, SV("spiffe://"))) {
        return SV_NULL;
    }
    size_t slash = sv_find(id, '/');
    return slash == SIZE_MAX ? SV_NULL : sv_sub(id, 0, slash);
}

static const struct tls_trust_domain *find_domain(const struct tls_policy *p, const X509 *leaf,
                                                  struct arena *a) {
    const sv *uris;
    unsigned n = tls_x509_sans(leaf, GEN_URI, a, &uris);
    if (n != 1) { /* an X.509-SVID has exactly one */
        return NULL;
    }
    sv name = trust_domain(uris[0]);
    for (unsigned i = 0; name.n && i < p->spiffe->domains_n; i++) {
        const struct tls_trust_domain *d = &p->spiffe->domains[i];
        /* the workload is told by filter state, which no filter here sets before a handshake */
        if (sv_eq(d->name, name) && !d->workload.n) {
            return d;
        }
    }
    return NULL;
}

/* X.509-SVID section 5.2: a leaf neither is a CA nor signs anything. */
static bool is_svid_leaf(X509 *leaf) {
    uint32_t flags = X509_get_extension_flags(leaf);
    return !(flags & EXFLAG_CA) && !(X509_get_key_usage(leaf) & (KU_CRL_SIGN | KU_KEY_CERT_SIGN) &
                                     (flags & EXFLAG_KUSAGE ? ~0u : 0u));
}

static void verify_spiffe(const struct tls_policy *p, STACK_OF(X509) * chain, struct arena *a,
                          struct tls_verdict *out) {
    X509 *leaf = sk_X509_value(chain, 0);
    if (!is_svid_leaf(leaf)) {
        fail(out, SSL_AD_CERTIFICATE_UNKNOWN, SSL_STAT_fail_verify_error,
             SV("verify cert failed: cert precheck"));
        return;
    }
    const struct tls_trust_domain *domain = find_domain(p, leaf, a);
    if (!domain) {
        fail(out, SSL_AD_CERTIFICATE_UNKNOWN, SSL_STAT_fail_verify_error,
             SV("verify cert failed: no trust bundle store"));
        return;
    }
    STACK_OF(X509_CRL) *crls = domain->ca->crls;
    unsigned long flags = p->allow_expired ? X509_V_FLAG_NO_CHECK_TIME : 0;
    if (sk_X509_CRL_num(crls) > 0) {
        flags |= X509_V_FLAG_CRL_CHECK | X509_V_FLAG_CRL_CHECK_ALL;
    }
    /* as Envoy: no extended key usage is asked for, and the alert does not tell what is wrong */
    if (!verify_chain(p, domain->ca, NULL, flags, crls, chain, a, out)) {
        out->alert = SSL_AD_CERTIFICATE_UNKNOWN;
        return;
    }
    if (p->sans_n && !names_match(p, leaf, NULL, 0, false, a)) {
        fail(out, SSL_AD_CERTIFICATE_UNKNOWN, SSL_STAT_fail_verify_san,
             SV("verify cert failed: SAN match"));
        return;
    }
    out->is_ok = true;
    out->status = TLS_PEER_VALIDATED;
}

void tls_policy_verify(const struct tls_policy *p, const struct tls_peer *peer, struct arena *a,
                       struct tls_verdict *out) {
    *out = (struct tls_verdict){.status = TLS_PEER_NOT_VALIDATED, .failed_stat = -1};
    if (sk_CRYPTO_BUFFER_num(peer->chain) == 0) {
        fail(out, SSL_AD_CERTIFICATE_REQUIRED, SSL_STAT_fail_verify_error,
             SV("verify cert failed: empty cert chain"));
        out->status = TLS_PEER_NO_CERT;
        return;
    }
    STACK_OF(X509) *chain = parse_chain(peer->chain);
    if (!chain) {
        fail(out, SSL_AD_BAD_CERTIFICATE, SSL_STAT_fail_verify_error,
             SV("verify cert failed: malformed certificate"));
        return;
    }
    if (p->spiffe) {
        verify_spiffe(p, chain, a, out);
    } else {
        verify_default(p, peer, chain, a, out);
    }
    sk_X509_pop_free(chain, X509_free);
}
