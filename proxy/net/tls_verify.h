/* Whom to trust: validation contexts compiled from config, merged into one policy per factory,
 * applied to peer chains.
 * Threads: compiled on the config thread; immutable, used by all workers.
 * Spec: transport_sockets.tls.v3.CertificateValidationContext, SPIFFECertValidatorConfig; RFC
 * 5280. */
#ifndef SLUICE_NET_TLS_VERIFY_H
#define SLUICE_NET_TLS_VERIFY_H

#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "proxy/base/diag.h"
#include "proxy/base/sv.h"
#include "proxy/net/tls_intern.h"

struct regex;
struct tls_secret;

#define TLS_CA_CERTS_MAX 10000u
#define TLS_CRLS_MAX 10000u
#define TLS_SPIFFE_DOMAINS_MAX 1000u

/* A parsed PEM bundle: trusted certificates and the CRLs beside them. Interned. */
struct tls_ca {
    struct tls_interned interned;
    X509_STORE *store; /* NULL: the bundle holds CRLs only */
    STACK_OF(X509) * certs;
    STACK_OF(X509_CRL) * crls;
    STACK_OF(CRYPTO_BUFFER) * names; /* DER subjects without repeats: the CA list servers send */
    int64_t not_after_s;             /* of the one that expires first; INT64_MAX: there is none */
};

struct tls_san_matcher {
    int gen_type; /* GEN_x */
    enum { SAN_EXACT, SAN_PREFIX, SAN_SUFFIX, SAN_CONTAINS, SAN_REGEX } kind;
    bool ignore_case;
    sv text;
    struct regex *regex;
    ASN1_OBJECT *oid; /* GEN_OTHERNAME */
};

struct tls_trust_domain {
    sv name;
    sv workload; /* for connections of this workload's trust domain only; empty: that have none */
    struct tls_ca *ca;
};

struct tls_validation {
    struct tls_ca *ca; /* NULL: no trusted_ca */
    sv ca_path;
    struct tls_ca *crl; /* the crl field's list */
    sv crl_path;
    struct tls_san_matcher *sans; /* typed ones, or the legacy ones spelled out by type */
    unsigned sans_n;
    bool sans_are_legacy;
    uint8_t (*hashes)[TLS_DIGEST_BYTES];
    unsigned hashes_n;
    uint8_t (*spkis)[TLS_DIGEST_BYTES];
    unsigned spkis_n;
    bool allow_expired, accept_untrusted, only_leaf_crl, suppress_ca_list;
    bool has_max_depth;
    uint32_t max_depth;
    bool is_spiffe, has_map_file; /* the domains come from a file of bundles */
    struct tls_trust_domain *domains;
    unsigned domains_n;
    uint8_t digest[TLS_DIGEST_BYTES]; /* of everything above: part of the session id context */
};

/* From a Tls__CertificateValidationContext; memory and watches go to the secret, BoringSSL objects
 * to tls_validation_free. Contradictions that a merge may still resolve are left to
 * tls_policy_make. NULL: errors are in d. */
struct tls_validation *tls_validation_compile(struct tls_secret *s, const void *msg,
                                              struct diag *d);
void tls_validation_free(struct tls_validation *v); /* NULL is fine */
/* Parse (or find) a PEM bundle; with_certs: it must hold at least one certificate. `what` and
 * `path` are for messages. */
struct tls_ca *tls_ca_get(sv pem, bool with_certs, const char *what, sv path, struct diag *d);
/* The same of certificates at hand, which it keeps refs of. NULL: one cannot be added, or there are
 * more than TLS_CA_CERTS_MAX. */
struct tls_ca *tls_ca_of_certs(const STACK_OF(X509) * certs);
/* A Core__DataSource's bundle: of certificates (is_ca) or CRLs. *ca stays as it is when there are no
 * bytes; path in the secret's arena. */
bool tls_ca_read(struct tls_secret *s, const void *data_source_msg, bool is_ca, struct tls_ca **ca,
                 sv *path, struct diag *d);
/* tls_spiffe.c: the trust domains of a SPIFFECertValidatorConfig in a Pb__Any. */
bool tls_spiffe_compile(struct tls_secret *s, struct tls_validation *v, const void *any_msg,
                        struct diag *d);

/* The rules of one factory: one context, or a default one with a dynamic one merged over it as
 * protobuf merges. */
struct tls_policy {
    /* borrowed from secrets the factory refs; SANs and hashes of both count */
    const struct tls_validation *part[2];
    unsigned parts_n;
    bool use_sans[2];  /* is the part's matcher list in force? */
    struct tls_ca *ca; /* borrowed */
    sv ca_path;
    STACK_OF(X509_CRL) * crls; /* of the bundle and of the crl field; NULL: none */
    bool allow_expired, accept_untrusted, only_leaf_crl, suppress_ca_list;
    bool has_max_depth;
    uint32_t max_depth;
    bool auto_sni_san;
    /* the part with trust domains; NULL: the default validator */
    const struct tls_validation *spiffe;
    unsigned sans_n, pins_n; /* sums over the parts */
    unsigned long flags;     /* X509_V_FLAG_x */
    /* SSL_VERIFY_x for both roles, before require_client_certificate */
    int mode;
};

/* part0 is the default context (or the only one), part1 the dynamic one; both may be NULL (nothing
 * is verified). */
bool tls_policy_make(struct tls_policy *p, const struct tls_validation *part0,
                     const struct tls_validation *part1, bool auto_sni_san, struct diag *d);
void tls_policy_fini(struct tls_policy *p);

enum tls_peer_status {
    TLS_PEER_NOT_VALIDATED,
    TLS_PEER_NO_CERT,
    TLS_PEER_VALIDATED,
    TLS_PEER_FAILED
};

struct tls_peer {
    const STACK_OF(CRYPTO_BUFFER) * chain; /* as sent, leaf first */
    bool is_client;                        /* the peer is a client */
    sv sni;                                /* what we asked for; upstream only */
    const sv *san_override; /* one of these must be there, beside what matchers say */
    unsigned san_override_n;
};
struct tls_verdict {
    bool is_ok;
    enum tls_peer_status status;
    uint8_t alert;   /* SSL_AD_x when not ok */
    int failed_stat; /* SSL_STAT_fail_… to count, -1: none */
    sv error;        /* "verify cert failed: …" in the arena; also set for tolerated failures */
};
/* Judge a peer's chain. Never calls back. */
void tls_policy_verify(const struct tls_policy *p, const struct tls_peer *peer, struct arena *a,
                       struct tls_verdict *out);

#endif
