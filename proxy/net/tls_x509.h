/* Facts of X.509 certificates as text, the way Envoy prints them: names, serials, digests, subject
 * alternative names.
 * Threads: any; results are appended to the caller's buf or live in the caller's arena.
 * Spec: RFC 5280, RFC 2253, RFC 6125 (DNS names). Not here: trust (tls_verify.c). */
#ifndef SLUICE_NET_TLS_X509_H
#define SLUICE_NET_TLS_X509_H

#include <openssl/pool.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include "proxy/base/arena.h"

#define TLS_SHA256_BYTES 32
/* names looked at in one certificate; it cannot hold many more anyway */
#define TLS_X509_SANS_MAX 1024

/* The pool through which all certificates of the process share their bytes. Lives for ever. */
CRYPTO_BUFFER_POOL *tls_x509_pool(void);
/* Parse a DER certificate, sharing its bytes. NULL: malformed; the error queue is cleared. */
X509 *tls_x509_from_buffer(CRYPTO_BUFFER *der);

/* Names, RFC 2253 ("CN=a,O=b"); empty when absent. */
sv tls_x509_subject(const X509 *x, struct arena *a);
sv tls_x509_issuer(const X509 *x, struct arena *a);
/* Serial number in lower-case hex. */
sv tls_x509_serial(const X509 *x, struct arena *a);
sv tls_x509_sha1_hex(const X509 *x, struct arena *a);
sv tls_x509_sha256_hex(const X509 *x, struct arena *a);
sv tls_x509_pem(const X509 *x, struct arena *a);
/* The first common name of the subject; SV_NULL when there is none. */
sv tls_x509_common_name(const X509 *x, struct arena *a);
/* Percent-encoded as Envoy's %DOWNSTREAM_PEER_CERT%: everything but [A-Za-z0-9._~-]. */
sv tls_x509_url_encode(sv text, struct arena *a);
/* Unix time in seconds; false: not a valid time. */
bool tls_x509_not_before(const X509 *x, int64_t *out);
bool tls_x509_not_after(const X509 *x, int64_t *out);
/* Object identifiers of all extensions, dotted. Returns the count; *out in the arena. */
unsigned tls_x509_extension_oids(const X509 *x, struct arena *a, const sv **out);
/* Does it promise an OCSP staple (RFC 7633)? */
bool tls_x509_is_must_staple(const X509 *x);
/* EVP_PKEY_x of its public key, and the curve's NID (NID_undef: not EC). */
int tls_x509_key_type(const X509 *x, int *curve_nid);

/* One subject alternative name as text; GEN_x types. SV_NULL for kinds that have no text form.
 * Embedded NULs are kept: a name with one never equals a configured name. */
sv tls_x509_general_name(const GENERAL_NAME *name, struct arena *a);
/* All alternative names of GEN_x type `type`, in the certificate's order. Returns the count; *out
 * in the arena. */
unsigned tls_x509_sans(const X509 *x, int type, struct arena *a, const sv **out);
/* All of them, for log lines: "a, b, c". */
sv tls_x509_sans_text(const X509 *x, struct arena *a);

/* Does certificate name `pattern` ("*.example.com", one wildcard, in the left-most label) cover DNS
 * name `name`? Case-insensitive; a wildcard never spans labels nor stands in an A-label. */
bool tls_x509_dns_match(sv name, sv pattern);

#endif
