/* Secrets as compiled objects: certificates with keys, validation contexts, session ticket keys,
 * generic secrets. A secret is immutable and refcounted; factories keep refs, so a secret may go
 * from the config before its users do.
 * Threads: compiled on the config thread, shared by all. Spec: transport_sockets.tls.v3.Secret. */
#ifndef SLUICE_NET_TLS_CERT_H
#define SLUICE_NET_TLS_CERT_H

#include <openssl/ssl.h>

#include "proxy/base/diag.h"
#include "proxy/base/shared.h"
#include "proxy/base/vec.h"
#include "proxy/net/tls_intern.h"

#define TLS_SOURCE_BYTES_MAX (16u << 20) /* of one file or inline source */
#define TLS_CHAIN_CERTS_MAX 100u
#define TLS_TICKET_KEYS_MAX 64u
#define TLS_RSA_BITS_MIN 2048u

/* A DataSource's bytes and where they came from: a path, "<inline>", or "" when there is none. */
struct tls_source {
    sv bytes, path;
};

/* Files and directories whose change makes a secret stale. */
struct tls_watch {
    sv path;
    bool is_directory; /* a watched_directory: the files in it are swapped by renaming a symlink */
};
struct tls_watches {
    const struct tls_watch *v;
    size_t n;
};

/* One certificate chain with its private key. Interned. */
struct tls_cert {
    struct tls_interned interned;
    X509 *leaf;
    SSL_CREDENTIAL *plain;
    SSL_CREDENTIAL *stapled; /* plain with the OCSP response; NULL: none configured */
    /* what they consist of, for contexts that limit signature algorithms */
    CRYPTO_BUFFER **chain;
    size_t chain_n;
    EVP_PKEY *key;
    CRYPTO_BUFFER *staple; /* NULL: none */
    int key_type;          /* EVP_PKEY_x */
    int curve_nid;         /* NID_undef: not EC */
    bool is_must_staple;
    int64_t not_after_s; /* of the leaf, Unix time */
    int64_t ocsp_this_update_s, ocsp_next_update_s;
};

struct tls_ticket_key {
    uint8_t name[SSL_TICKET_KEY_NAME_LEN];
    uint8_t hmac[32];
    uint8_t aes[32];
};

struct tls_generic {
    sv name, value; /* name "" is GenericSecret.secret */
};

enum tls_secret_kind {
    TLS_SECRET_CERT,
    TLS_SECRET_VALIDATION,
    TLS_SECRET_TICKETS,
    TLS_SECRET_GENERIC
};

struct tls_validation;
struct tls_secret {
    struct shared shared;
    uint32_t magic;
    enum tls_secret_kind kind;
    sv name;
    struct arena arena_;
    struct tls_cert *cert; /* TLS_SECRET_CERT */
    sv cert_path;
    struct tls_validation *validation;    /* TLS_SECRET_VALIDATION, see tls_verify.h */
    const struct tls_ticket_key *tickets; /* TLS_SECRET_TICKETS: the first one encrypts */
    unsigned tickets_n;
    const struct tls_generic *generics; /* TLS_SECRET_GENERIC */
    unsigned generics_n;
    VEC(struct tls_watch) watches_;
};
#define TLS_SECRET_MAGIC 0x5EC2E700u

/* Compile a Tls__Secret message, reading its files and variables now. The result belongs to `owner`
 * (released at its end); others keep it by tls_secret_ref. NULL: errors are in d. */
struct tls_secret *tls_secret_compile(struct arena *owner, const void *secret_msg, struct diag *d);
/* The same for the parts of a TLS context given inline: `name` is for messages and stats. A ref of
 * the caller's. */
struct tls_secret *tls_secret_from_cert(const void *tls_certificate_msg, sv name, struct diag *d);
struct tls_secret *tls_secret_from_validation(const void *validation_context_msg, sv name,
                                              struct diag *d);
struct tls_secret *tls_secret_from_tickets(const void *session_ticket_keys_msg, sv name,
                                           struct diag *d);

struct tls_secret *tls_secret_ref(const struct tls_secret *s); /* NULL is fine; any thread */
void tls_secret_unref(struct tls_secret *s);                   /* NULL is fine; any thread */
static inline struct tls_watches tls_secret_watches(const struct tls_secret *s) {
    return (struct tls_watches){s->watches_.p, s->watches_.n};
}
/* Would both do the same? Certificates are compared by what they were made from. */
bool tls_secret_equal(const struct tls_secret *a, const struct tls_secret *b);
/* A generic secret's value by name ("" for the only one); SV_NULL: not there or of another kind. */
sv tls_secret_generic(const struct tls_secret *s, sv name);

/* Read a Core__DataSource (NULL: empty result, true) into the arena. A file is added to the
 * secret's watches. */
bool tls_source_read(struct tls_secret *s, struct arena *a, const void *data_source_msg,
                     struct tls_source *out, struct diag *d);
/* Note a watched_directory message (NULL is fine). */
void tls_secret_watch_dir(struct tls_secret *s, const void *watched_directory_msg);
/* The oldest BoringSSL error as text ("error:…"), "unknown" when there is none; empties the error
 * queue. */
const char *tls_error_text(char out[256]);

#endif
