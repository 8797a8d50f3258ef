/* The facts of one TLS connection, computed when asked for. Internal to net/tls*.c. Threads:
 * worker-local. */
#ifndef SLUICE_NET_TLS_INFO_H
#define SLUICE_NET_TLS_INFO_H

#include <openssl/ssl.h>

#include "proxy/net/tls.h"
#include "proxy/net/tls_verify.h"

struct ssl_facts;
struct ssl_info {
    SSL *ssl;
    const X509 *local;       /* of the factory; NULL: none was used */
    struct ssl_facts *facts; /* NULL until one is asked for */
    enum tls_peer_status peer;
    uint32_t refs; /* of those who need it beyond the connection */
};

void ssl_info_fini(struct ssl_info *s);

#endif
