/* TLS contexts: what a DownstreamTlsContext or UpstreamTlsContext compiles to, and the factories
 * made from it. A config and a factory are immutable and refcounted; a factory outlives the
 * resource it came from as long as a connection uses it. Threads: compile and make on the config
 * thread, create on workers.
 * Spec: transport_sockets.tls.v3.{Downstream,Upstream,Common}TlsContext. Internal to net/tls*.c:
 * others see tls.h. */
#ifndef SLUICE_NET_TLS_CONTEXT_H
#define SLUICE_NET_TLS_CONTEXT_H

#include <pthread.h>

#include <openssl/ssl.h>

#include "proxy/api/compile.h"
#include "proxy/api/transport_socket.h"
#include "proxy/base/map.h"
#include "proxy/net/addr.h"
#include "proxy/net/tls_cert.h"
#include "proxy/net/tls_stats.h"
#include "proxy/net/tls_verify.h"

#define TLS_CONFIG_MAGIC 0x715C0F16u
#define TLS_FACTORY_MAGIC 0x715FAC70u
#define TLS_ALPN_BYTES_MAX 65535u
#define TLS_SESSION_KEYS_DEFAULT 1u
#define TLS_SESSION_KEYS_MAX 1024u

/* A secret given inline (a ref) or named (an index into the secret_source). */
struct tls_secret_slot {
    struct tls_secret *inlined;
    unsigned index; /* meaningful when inlined is NULL */
    sv name;
};

struct tls_key_log {
    int fd;                      /* -1: off */
    struct cidr *local, *remote; /* empty lists match everything */
    unsigned local_n, remote_n;
};

enum tls_ocsp_policy { TLS_OCSP_LENIENT, TLS_OCSP_STRICT, TLS_OCSP_MUST_STAPLE };

struct tls_config {
    struct shared shared;
    uint32_t magic;
    struct arena arena_;
    bool is_client;
    /* parameters; NULL strings: the defaults */
    uint16_t min_version, max_version;
    const char *ciphers, *groups, *sigalgs;
    int compliance;      /* enum ssl_compliance_policy_t, 0: none */
    const uint8_t *alpn; /* wire format; NULL: none */
    size_t alpn_n;
    struct tls_key_log key_log;
    /* secrets */
    struct tls_secret_slot *certs;
    unsigned certs_n;
    bool has_validation, has_tickets;
    struct tls_secret_slot validation;
    struct tls_secret *default_validation; /* of a combined context */
    struct tls_secret_slot tickets;
    /* upstream */
    const char *sni; /* "": none */
    bool auto_host_sni, auto_sni_san, enforce_rsa_key_usage;
    uint32_t max_session_keys;
    /* downstream */
    bool require_client_cert, require_sni, full_scan, prefer_client_ciphers;
    bool no_tickets, no_session_cache, has_session_timeout;
    const sv *server_names; /* of the filter chain: sessions do not leave it */
    size_t server_names_n;
    uint32_t session_timeout_s;
    enum tls_ocsp_policy ocsp_policy;
    /* NULL without a stats store */
    struct stats_scope *ssl_scope, *factory_scope;
    bool tells_expiry; /* atomic: an SSL_CTX was made, and since then the expiry gauges are there */
    /* config thread */
    bool was_made;
};

/* A shared credential signs as it likes: a context with algorithms of its own has to take the parts
 * of the certificate instead. */
static inline bool tls_config_limits_signatures(const struct tls_config *c) {
    return c->sigalgs || c->compliance;
}

/* tls_config.c */
struct tls_config *tls_config_downstream(struct compile_ctx *ctx, const void *msg);
struct tls_config *tls_config_upstream(struct compile_ctx *ctx, const void *msg);
/* May a listener show this certificate, as far as its staple goes? */
bool tls_config_check_staple(const struct tls_config *c, const struct tls_cert *cert,
                             struct diag *d);

/* Which certificate for which client, tls_select.c. */
enum { TLS_CURVE_P256 = 1, TLS_CURVE_P384 = 2, TLS_CURVE_P521 = 4 };
struct tls_select {
    struct map names; /* lower-case DNS name, or ".rest" for "*.rest" → struct tls_select_name */
    struct arena arena_;
    const struct tls_cert *const *certs; /* borrowed from the factory */
    unsigned certs_n;
    bool has_rsa;
    bool full_scan;
    enum tls_ocsp_policy policy;
};
enum tls_staple { TLS_STAPLE, TLS_NO_STAPLE, TLS_STAPLE_FAILED, TLS_STAPLE_NOT_ASKED };
void tls_select_init(struct tls_select *s, const struct tls_cert *const *certs, unsigned n,
                     enum tls_ocsp_policy policy, bool full_scan);
void tls_select_fini(struct tls_select *s);
/* The index of the certificate for a client that asked for `sni` ("" none) and can do these curves
 * (TLS_CURVE_x; 0: no ECDSA at all). `*matched`: a certificate is for this name. Always returns
 * one: the first when none fits. */
unsigned tls_select_find(const struct tls_select *s, sv sni, unsigned curves, bool wants_staple,
                         int64_t now_s, enum tls_staple *staple, bool *matched);
/* TLS_CURVE_x bits of the ECDSA keys a client can verify. */
unsigned tls_select_curves(const SSL_CLIENT_HELLO *hello, const SSL_CTX *ctx, bool tls13);

/* Counters whose names come with the handshake, found once per factory and value. */
#define TLS_DYN_SLOTS 64u
struct tls_dyn {
    uint32_t key;          /* kind << 16 | id, 0: free; written once */
    struct stat_dyn *stat; /* shared, atomic */
};

/* A session is offered under the server name it was made with, and no other. */
struct tls_kept_session {
    SSL_SESSION *session;
    char *name; /* NULL: none was sent */
};

struct tls_factory {
    struct transport_factory factory;
    uint32_t magic;
    struct tls_config *config; /* a ref */
    bool is_ready;             /* false: a secret is missing */
    /* refs that keep what is below alive */
    struct tls_secret **cert_secrets;
    const struct tls_cert **certs;
    unsigned certs_n;
    struct tls_secret *validation[2], *tickets;
    struct tls_policy policy;
    struct tls_select select; /* downstream */
    /* shared between workers */
    SSL_CTX *ctx;          /* atomic; upstream: made at first use */
    pthread_mutex_t mutex; /* for making ctx, and for sessions */
    /* upstream: newest first, sessions_n of config->max_session_keys */
    struct tls_kept_session *sessions;
    uint32_t sessions_n; /* atomic to peek at */
    struct tls_dyn *dyn; /* [TLS_DYN_SLOTS], atomic; made at first handshake */
};

/* The SSL_CTX of a ready factory; never NULL for a downstream one, NULL when an upstream one could
 * not be made. */
SSL_CTX *tls_factory_ctx(struct tls_factory *f);
static inline struct tls_factory *tls_factory_of(const struct transport_factory *f) {
    return CAST(tls_factory, TLS_FACTORY_MAGIC, (uintptr_t)f);
}
bool tls_factory_is_tls(const struct transport_factory *f);
/* Offer the newest session of the client connection's server name; a single-use one leaves the
 * store. */
void tls_factory_resume(struct tls_factory *f, SSL *ssl);
/* SSL_STAT_x */
void tls_factory_count(const struct tls_factory *f, unsigned thread, unsigned stat);
enum tls_dyn_kind { TLS_DYN_CIPHER = 1, TLS_DYN_VERSION, TLS_DYN_CURVE, TLS_DYN_SIGALG };
void tls_factory_count_named(struct tls_factory *f, enum tls_dyn_kind kind, uint16_t id,
                             const char *name);

/* tls.c: callbacks of an SSL_CTX reach their transport by the SSL's BIO. */
extern const struct transport_factory_ops tls_factory_ops;
struct tls_factory *tls_factory_of_ssl(const SSL *ssl);
int tls_on_new_session(SSL *ssl, SSL_SESSION *session);
enum ssl_verify_result_t tls_on_verify(SSL *ssl, uint8_t *out_alert);
enum ssl_select_cert_result_t tls_on_client_hello(const SSL_CLIENT_HELLO *hello);
int tls_on_alpn(SSL *ssl, const uint8_t **out, uint8_t *out_len, const uint8_t *in, unsigned in_len,
                void *arg);
int tls_on_ticket_key(SSL *ssl, uint8_t *name, uint8_t *iv, EVP_CIPHER_CTX *cipher, HMAC_CTX *hmac,
                      int encrypt);
void tls_on_key_log(const SSL *ssl, const char *line);

#endif
