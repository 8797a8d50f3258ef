/* Certificates of strangers: every fact that is told of one, and x-forwarded-client-cert made of
 * them. Nothing in a subject ends its quotes.
 * Input: one byte for the details, then the certificate's DER. */
#include "proxy/base/mem.h"
#include "proxy/net/tls.h"
#include "proxy/net/tls_x509.h"
#include "proxy/request/stream.h"
#include "proxy/request/xfcc.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

/* --- the connection that is not there: what net/tls_info.c tells of a peer with certificate x
 * --- */

struct ssl_info {
    const X509 *x;
    struct arena *arena;
};
static struct ssl_info peer;

const struct ssl_info *conn_ssl(const struct conn *c) {
    (void)c;
    return &peer;
}
bool ssl_info_has_peer_cert(const struct ssl_info *s) { return s->x != NULL; }

sv ssl_info_fact(const struct ssl_info *s, enum ssl_fact fact) {
    switch ((int)fact) {
    case SSL_FACT_PEER_SHA256:
        return tls_x509_sha256_hex(s->x, s->arena);
    case SSL_FACT_PEER_SUBJECT:
        return tls_x509_subject(s->x, s->arena);
    case SSL_FACT_PEER_ISSUER:
        return tls_x509_issuer(s->x, s->arena);
    default:
        return tls_x509_url_encode(tls_x509_pem(s->x, s->arena), s->arena);
    }
}

unsigned ssl_info_list(const struct ssl_info *s, enum ssl_list list, const sv **out) {
    return tls_x509_sans(s->x, list == SSL_LIST_PEER_DNS ? GEN_DNS : GEN_URI, s->arena, out);
}

/* --- checks --- */

static void check_facts(const X509 *x, struct arena *a) {
    static const int types[] = {GEN_DNS, GEN_URI, GEN_IPADD, GEN_EMAIL, GEN_OTHERNAME};
    const sv *v;
    int64_t at_s;
    int curve;
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        unsigned n = tls_x509_sans(x, types[i], a, &v);
        CHECK(n <= TLS_X509_SANS_MAX);
        for (unsigned k = 0; k < n; k++) {
            CHECK(v[k].n == 0 || v[k].p);
            (void)tls_x509_dns_match(SV("a.b.test"), v[k]);
        }
    }
    (void)tls_x509_issuer(x, a);
    (void)tls_x509_serial(x, a);
    (void)tls_x509_sha1_hex(x, a);
    (void)tls_x509_common_name(x, a);
    (void)tls_x509_extension_oids(x, a, &v);
    (void)tls_x509_sans_text(x, a);
    (void)tls_x509_is_must_staple(x);
    (void)tls_x509_key_type(x, &curve);
    (void)tls_x509_not_before(x, &at_s);
    (void)tls_x509_not_after(x, &at_s);
}

/* A quote in an RFC 2253 name stands behind an odd number of backslashes. */
static void check_quoting(sv subject) {
    unsigned backslashes = 0;
    for (size_t i = 0; i < subject.n; i++) {
        CHECK(subject.p[i] != '"' || backslashes % 2 == 1);
        backslashes = subject.p[i] == '\\' ? backslashes + 1 : 0;
    }
    CHECK(backslashes % 2 == 0);
}

static void check_header(unsigned flags, struct arena *a) {
    static struct hcm hcm;
    struct hcm_config config = {.xfcc = flags & 16 ? XFCC_APPEND_FORWARD : XFCC_SANITIZE_SET};
    config.xfcc_set.cert = config.xfcc_set.chain = flags & 1;
    config.xfcc_set.subject = config.xfcc_set.issuer = flags & 2;
    config.xfcc_set.uri = flags & 4;
    config.xfcc_set.dns = flags & 8;
    struct stream *s = xnew(struct stream);
    s->cfg = &config;
    s->hcm = &hcm;
    arena_init(&s->arena, 0);
    headers_init(&s->request, &s->arena);
    headers_add_copy(&s->request, SV("x-forwarded-client-cert"), SV("Hash=forged"));
    xfcc_apply(s);
    sv made = headers_get(&s->request, HDR_x_forwarded_client_cert);
    CHECK(sv_contains(made, SV("Hash=")) && headers_count(&s->request) == 1);
    CHECK(sv_contains(made, SV("forged")) == (config.xfcc == XFCC_APPEND_FORWARD) ||
          sv_contains(tls_x509_sans_text(peer.x, a), SV("forged")) ||
          sv_contains(tls_x509_subject(peer.x, a), SV("forged")) ||
          sv_contains(tls_x509_issuer(peer.x, a), SV("forged")));
    arena_fini(&s->arena);
    xfree(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    if (n < 2) {
        return 0;
    }
    CRYPTO_BUFFER *der = CRYPTO_BUFFER_new(data + 1, n - 1, NULL);
    CHECK(der);
    X509 *x = tls_x509_from_buffer(der);
    if (x) {
        struct arena a;
        arena_init(&a, 0);
        check_facts(x, &a);
        check_quoting(tls_x509_subject(x, &a));
        check_quoting(tls_x509_issuer(x, &a));
        peer = (struct ssl_info){.x = x, .arena = &a};
        check_header(data[0], &a);
        arena_fini(&a);
    }
    X509_free(x);
    CRYPTO_BUFFER_free(der);
    chunk_cache_trim();
    return 0;
}
