/* The few facts of a stapled OCSP response that decide whether to send it.
 * Threads: any. Spec: RFC 6960. Not here: its signature, which only clients judge. */
#ifndef SLUICE_NET_TLS_OCSP_H
#define SLUICE_NET_TLS_OCSP_H

#include <openssl/x509.h>

#include "proxy/base/sv.h"

struct tls_ocsp {
    /* Unix time; next_update 0: none given, counts as expired */
    int64_t this_update_s, next_update_s;
    /* content bytes of the certificate's INTEGER; borrows the response */
    sv serial;
};

/* NULL when `der` is a successful basic response for exactly one certificate; else what is wrong
 * with it (static text). */
const char *tls_ocsp_parse(sv der, struct tls_ocsp *out);
/* Is it about this certificate? */
bool tls_ocsp_is_for(const struct tls_ocsp *o, const X509 *x);

#endif
