/* Facts of a TLS connection: computed from the peer's chain on first use, then kept with the
 * connection.
 * Threads: worker-local. Spec: Envoy's Ssl::ConnectionInfo. Not here: how text is made
 * (tls_x509.c). */
#include "proxy/net/tls_info.h"

#include "proxy/base/mem.h"
#include "proxy/net/tls_x509.h"

struct ssl_facts {
    struct arena arena;
    uint32_t have_facts, have_lists; /* bits */
    sv fact[SSL_FACTS_N];
    struct {
        const sv *v;
        unsigned n;
    } list[SSL_LISTS_N];
};

void ssl_info_fini(struct ssl_info *s) {
    if (s->facts) {
        arena_fini(&s->facts->arena);
        xfree(s->facts);
        s->facts = NULL;
    }
}

/* Facts asked for too early are not kept. */
static bool is_final(const struct ssl_info *s) { return s->ssl && SSL_is_init_finished(s->ssl); }

static struct ssl_facts *facts_of(const struct ssl_info *s) {
    if (!s->facts) {
        struct ssl_info *mine = (struct ssl_info *)(uintptr_t)s; /* a cache: logically const */
        mine->facts = xnew(struct ssl_facts);
        arena_init(&mine->facts->arena, 256);
    }
    return s->facts;
}

static X509 *peer_at(const struct ssl_info *s, size_t i) {
    const STACK_OF(CRYPTO_BUFFER) *chain = SSL_get0_peer_certificates(s->ssl);
    return i < sk_CRYPTO_BUFFER_num(chain) ? tls_x509_from_buffer(sk_CRYPTO_BUFFER_value(chain, i))
                                           : NULL;
}

static sv session_id(const struct ssl_info *s, struct arena *a) {
    static const char digits[] = "0123456789abcdef";
    const SSL_SESSION *session = SSL_get_session(s->ssl);
    unsigned n = 0;
    const uint8_t *id = session ? SSL_SESSION_get_id(session, &n) : NULL;
    char *hex = arena_alloc(a, 2 * (size_t)n + 1);
    for (unsigned i = 0; i < n; i++) {
        hex[2 * i] = digits[id[i] >> 4];
        hex[2 * i + 1] = digits[id[i] & 15];
    }
    hex[2 * n] = '\0';
    return sv_from(hex, 2 * (size_t)n);
}

static sv url_pem_chain(const struct ssl_info *s, struct arena *a) {
    struct buf all;
    buf_init(&all);
    X509 *x;
    for (size_t i = 0; (x = peer_at(s, i)) != NULL; i++) {
        struct arena scratch;
        arena_init(&scratch, 0);
        buf_append_sv(&all, tls_x509_url_encode(tls_x509_pem(x, &scratch), &scratch));
        arena_fini(&scratch);
        X509_free(x);
    }
    sv out = arena_sv(a, buf_pullup(&all, buf_len(&all)));
    buf_fini(&all);
    return out;
}

static sv peer_fact(const X509 *x, enum ssl_fact fact, struct arena *a) {
    switch (fact) {
    case SSL_FACT_PEER_SUBJECT:
        return tls_x509_subject(x, a);
    case SSL_FACT_PEER_ISSUER:
        return tls_x509_issuer(x, a);
    case SSL_FACT_PEER_SERIAL:
        return tls_x509_serial(x, a);
    case SSL_FACT_PEER_SHA1:
        return tls_x509_sha1_hex(x, a);
    case SSL_FACT_PEER_SHA256:
        return tls_x509_sha256_hex(x, a);
    case SSL_FACT_PEER_COMMON_NAME:
        return tls_x509_common_name(x, a);
    case SSL_FACT_PEER_PEM:
        return tls_x509_pem(x, a);
    case SSL_FACT_PEER_URL_PEM:
        return tls_x509_url_encode(tls_x509_pem(x, a), a);
    case SSL_FACT_PEER_URL_PEM_CHAIN:
    case SSL_FACT_LOCAL_SUBJECT:
    case SSL_FACT_SESSION_ID:
    case SSL_FACTS_N:
        break;
    }
    return SV_NULL;
}

static sv compute_fact(const struct ssl_info *s, enum ssl_fact fact, struct arena *a) {
    if (fact == SSL_FACT_SESSION_ID) {
        return session_id(s, a);
    }
    if (fact == SSL_FACT_LOCAL_SUBJECT) {
        return s->local ? tls_x509_subject(s->local, a) : SV_NULL;
    }
    if (fact == SSL_FACT_PEER_URL_PEM_CHAIN) {
        return url_pem_chain(s, a);
    }
    X509 *x = peer_at(s, 0);
    sv out = x ? peer_fact(x, fact, a) : SV_NULL;
    X509_free(x);
    return out;
}

sv ssl_info_fact(const struct ssl_info *s, enum ssl_fact fact) {
    if (!is_final(s)) {
        return fact == SSL_FACT_LOCAL_SUBJECT && s->local
                   ? tls_x509_subject(s->local, &facts_of(s)->arena)
                   : SV_NULL;
    }
    struct ssl_facts *f = facts_of(s);
    if (!(f->have_facts >> fact & 1)) {
        f->fact[fact] = compute_fact(s, fact, &f->arena);
        f->have_facts |= 1u << fact;
    }
    return f->fact[fact];
}

static unsigned chain_list(const struct ssl_info *s, enum ssl_list list, struct arena *a,
                           const sv **out) {
    size_t count = sk_CRYPTO_BUFFER_num(SSL_get0_peer_certificates(s->ssl));
    sv *v = arena_new_array(a, sv, count);
    unsigned n = 0;
    for (size_t i = 0; i < count; i++) {
        X509 *x = peer_at(s, i);
        if (!x) {
            n++; /* an empty view tells that something was there */
            continue;
        }
        v[n++] = list == SSL_LIST_CHAIN_SHA1     ? tls_x509_sha1_hex(x, a)
                 : list == SSL_LIST_CHAIN_SHA256 ? tls_x509_sha256_hex(x, a)
                                                 : tls_x509_serial(x, a);
        X509_free(x);
    }
    *out = v;
    return n;
}

static unsigned cert_list(const X509 *x, enum ssl_list list, struct arena *a, const sv **out) {
    static const int types[] = {
        [SSL_LIST_PEER_URI] = GEN_URI,         [SSL_LIST_LOCAL_URI] = GEN_URI,
        [SSL_LIST_PEER_DNS] = GEN_DNS,         [SSL_LIST_LOCAL_DNS] = GEN_DNS,
        [SSL_LIST_PEER_IP] = GEN_IPADD,        [SSL_LIST_LOCAL_IP] = GEN_IPADD,
        [SSL_LIST_PEER_EMAIL] = GEN_EMAIL,     [SSL_LIST_LOCAL_EMAIL] = GEN_EMAIL,
        [SSL_LIST_PEER_OTHER] = GEN_OTHERNAME, [SSL_LIST_LOCAL_OTHER] = GEN_OTHERNAME,
    };
    return list == SSL_LIST_PEER_OIDS || list == SSL_LIST_LOCAL_OIDS
               ? tls_x509_extension_oids(x, a, out)
               : tls_x509_sans(x, types[list], a, out);
}

static unsigned compute_list(const struct ssl_info *s, enum ssl_list list, struct arena *a,
                             const sv **out) {
    *out = NULL;
    switch (list) {
    case SSL_LIST_CHAIN_SHA1:
    case SSL_LIST_CHAIN_SHA256:
    case SSL_LIST_CHAIN_SERIAL:
        return chain_list(s, list, a, out);
    case SSL_LIST_LOCAL_URI:
    case SSL_LIST_LOCAL_DNS:
    case SSL_LIST_LOCAL_IP:
    case SSL_LIST_LOCAL_EMAIL:
    case SSL_LIST_LOCAL_OTHER:
    case SSL_LIST_LOCAL_OIDS:
        return s->local ? cert_list(s->local, list, a, out) : 0;
    case SSL_LIST_PEER_URI:
    case SSL_LIST_PEER_DNS:
    case SSL_LIST_PEER_IP:
    case SSL_LIST_PEER_EMAIL:
    case SSL_LIST_PEER_OTHER:
    case SSL_LIST_PEER_OIDS:
    case SSL_LISTS_N:
        break;
    }
    X509 *x = peer_at(s, 0);
    unsigned n = x ? cert_list(x, list, a, out) : 0;
    X509_free(x);
    return n;
}

unsigned ssl_info_list(const struct ssl_info *s, enum ssl_list list, const sv **out) {
    *out = NULL;
    if (!is_final(s)) {
        return 0;
    }
    struct ssl_facts *f = facts_of(s);
    if (!(f->have_lists >> list & 1)) {
        f->list[list].n = compute_list(s, list, &f->arena, &f->list[list].v);
        f->have_lists |= 1u << list;
    }
    *out = f->list[list].v;
    return f->list[list].n;
}

bool ssl_info_has_peer_cert(const struct ssl_info *s) {
    return is_final(s) && sk_CRYPTO_BUFFER_num(SSL_get0_peer_certificates(s->ssl)) > 0;
}

bool ssl_name_covers(sv cert_name, sv name) { return tls_x509_dns_match(name, cert_name); }
bool ssl_info_is_validated(const struct ssl_info *s) {
    return is_final(s) && s->peer == TLS_PEER_VALIDATED;
}

bool ssl_info_is_resumed(const struct ssl_info *s) {
    return is_final(s) && SSL_session_reused(s->ssl);
}

sv ssl_info_version(const struct ssl_info *s) {
    return s->ssl ? sv_cstr(SSL_get_version(s->ssl)) : SV_NULL;
}

sv ssl_info_cipher(const struct ssl_info *s) {
    const SSL_CIPHER *c = s->ssl ? SSL_get_current_cipher(s->ssl) : NULL;
    return c ? sv_cstr(SSL_CIPHER_get_name(c)) : SV_NULL;
}

sv ssl_info_group(const struct ssl_info *s) {
    return is_final(s) ? sv_cstr(SSL_get_group_name(SSL_get_group_id(s->ssl))) : SV_NULL;
}

sv ssl_info_sni(const struct ssl_info *s) {
    return s->ssl ? sv_cstr(SSL_get_servername(s->ssl, TLSEXT_NAMETYPE_host_name)) : SV_NULL;
}

sv ssl_info_alpn(const struct ssl_info *s) {
    const uint8_t *p = NULL;
    unsigned n = 0;
    if (s->ssl) {
        SSL_get0_alpn_selected(s->ssl, &p, &n);
    }
    return sv_from(p, n);
}

bool ssl_info_peer_validity(const struct ssl_info *s, int64_t *from_s, int64_t *until_s) {
    X509 *x = is_final(s) ? peer_at(s, 0) : NULL;
    if (!x) {
        return false;
    }
    bool ok = tls_x509_not_before(x, from_s) && tls_x509_not_after(x, until_s);
    X509_free(x);
    return ok;
}
