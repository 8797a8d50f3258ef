/* TLS: the transport socket types, and what is known about the peer of a connection.
 * Threads: a connection's facts belong to its worker. Spec: transport_sockets.tls.v3, Envoy's
 * Ssl::ConnectionInfo. */
#ifndef SLUICE_NET_TLS_H
#define SLUICE_NET_TLS_H

#include "proxy/api/transport_socket.h"
#include "proxy/base/json.h"

/* envoy.transport_sockets.tls, DownstreamTlsContext */
extern const struct transport_socket_type tls_downstream_transport_socket;
/* envoy.transport_sockets.tls, UpstreamTlsContext */
extern const struct transport_socket_type tls_upstream_transport_socket;

/* Give the thread's record buffers back; at thread end. */
void tls_thread_drop(void);

/* --- facts of a connection (conn_ssl()); views live as long as the connection. Empty until the
 * handshake is done, but for the version, the cipher and the own subject: as far as it came --- */
enum ssl_fact {
    SSL_FACT_PEER_SUBJECT, /* RFC 2253 */
    SSL_FACT_PEER_ISSUER,
    SSL_FACT_PEER_SERIAL, /* lower-case hex */
    SSL_FACT_PEER_SHA1,   /* fingerprints, lower-case hex */
    SSL_FACT_PEER_SHA256,
    SSL_FACT_PEER_COMMON_NAME,
    SSL_FACT_PEER_PEM,           /* the leaf */
    SSL_FACT_PEER_URL_PEM,       /* the same, percent-encoded */
    SSL_FACT_PEER_URL_PEM_CHAIN, /* all certificates sent */
    SSL_FACT_LOCAL_SUBJECT,
    SSL_FACT_SESSION_ID, /* lower-case hex */
    SSL_FACTS_N
};
enum ssl_list {
    SSL_LIST_PEER_URI,
    SSL_LIST_PEER_DNS,
    SSL_LIST_PEER_IP,
    SSL_LIST_PEER_EMAIL,
    SSL_LIST_PEER_OTHER,
    SSL_LIST_LOCAL_URI,
    SSL_LIST_LOCAL_DNS,
    SSL_LIST_LOCAL_IP,
    SSL_LIST_LOCAL_EMAIL,
    SSL_LIST_LOCAL_OTHER,
    SSL_LIST_PEER_OIDS,
    SSL_LIST_LOCAL_OIDS, /* extensions */
    /* of every certificate the peer sent */
    SSL_LIST_CHAIN_SHA1,
    SSL_LIST_CHAIN_SHA256,
    SSL_LIST_CHAIN_SERIAL,
    SSL_LISTS_N
};
/* Computed on first use and kept; empty when there is no such certificate. */
sv ssl_info_fact(const struct ssl_info *s, enum ssl_fact fact);
/* Returns the count; *out is borrowed from the connection. */
unsigned ssl_info_list(const struct ssl_info *s, enum ssl_list list, const sv **out);
/* Facts that are to outlive their connection: a ref keeps them (and the SSL behind them) until it
 * is given back. Plain counts: the connection's worker only. NULL is fine. */
const struct ssl_info *ssl_info_ref(const struct ssl_info *s);
void ssl_info_unref(const struct ssl_info *s);
bool ssl_info_has_peer_cert(const struct ssl_info *s);
/* The peer's certificate was verified by the validation context (not merely presented). */
bool ssl_info_is_validated(const struct ssl_info *s);
bool ssl_info_is_resumed(const struct ssl_info *s);
sv ssl_info_version(const struct ssl_info *s); /* "TLSv1.3" */
/* "TLS_AES_128_GCM_SHA256", "ECDHE-ECDSA-AES128-GCM-SHA256" */
sv ssl_info_cipher(const struct ssl_info *s);
sv ssl_info_group(const struct ssl_info *s); /* "X25519"; empty when none */
sv ssl_info_sni(const struct ssl_info *s);   /* asked for by the client */
sv ssl_info_alpn(const struct ssl_info *s);
/* Does a certificate's DNS name ("*.example.com" too) stand for `name`? */
bool ssl_name_covers(sv cert_name, sv name);
/* Validity of the peer's certificate, Unix time in seconds; false: none. */
bool ssl_info_peer_validity(const struct ssl_info *s, int64_t *from_s, int64_t *until_s);

/* --- admin and stats; any thread --- */
/* SSL_CTXs alive, also those that are only kept by connections made with them. */
uint64_t tls_contexts_alive(void);
/* One element of /certs, {"ca_cert": […], "cert_chain": […]}, with empty lists when the context has
 * none. False, nothing written: the factory is not TLS. now_s: Unix time. */
bool tls_factory_describe_certs(const struct transport_factory *f, int64_t now_s,
                                struct json_writer *w);
/* Days until the first of its certificates expires (0: one already has); UINT32_MAX: none. */
uint32_t tls_factory_days_until_expiry(const struct transport_factory *f, int64_t now_s);
/* Seconds until its first OCSP response expires; UINT64_MAX: none. */
uint64_t tls_factory_ocsp_seconds(const struct transport_factory *f, int64_t now_s);

#endif
