/* Counters of TLS contexts under "listener.<addr>.ssl." and "cluster.<name>.ssl.", by Envoy's
 * names. Beside them, found at run time: ciphers.<name>, versions.<name>, curves.<name>,
 * sigalgs.<name>, certificate.<name>.expiration_unix_time_seconds. */
#ifndef SLUICE_NET_TLS_STATS_H
#define SLUICE_NET_TLS_STATS_H

#include "proxy/stats/stats.h"

#define SSL_STATS(P, C, G, H, T) \
    C(P, connection_error)       \
    C(P, fail_verify_cert_hash)  \
    C(P, fail_verify_error)      \
    C(P, fail_verify_no_cert)    \
    C(P, fail_verify_san)        \
    C(P, handshake)              \
    C(P, no_certificate)         \
    C(P, ocsp_staple_failed)     \
    C(P, ocsp_staple_omitted)    \
    C(P, ocsp_staple_requests)   \
    C(P, ocsp_staple_responses)  \
    C(P, session_reused)
STATS_ENUM(SSL_STAT, SSL_STATS);
extern const struct stats_group ssl_stats_group;

/* "….server_ssl_socket_factory." and "….client_ssl_socket_factory." */
#define SSL_FACTORY_STATS(P, C, G, H, T)       \
    C(P, downstream_context_secrets_not_ready) \
    C(P, ssl_context_update_by_sds)            \
    C(P, upstream_context_secrets_not_ready)
STATS_ENUM(SSL_FACTORY, SSL_FACTORY_STATS);
extern const struct stats_group ssl_factory_stats_group;

#endif
