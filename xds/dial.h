/* Connections to the control-plane cluster (STATIC, DNS, UNIX), in our own TLS when the cluster has
 * it: the fd under a gRPC stream (with TLS, one end of a socketpair that is pumped to the
 * connection), or the connection itself (REST).
 * Threads: the config thread. gRPC is always given plaintext: one TLS stack in the process. */
#ifndef SLUICE_XDS_DIAL_H
#define SLUICE_XDS_DIAL_H

#include "proxy/event/loop.h"
#include "proxy/net/addr.h"

/* What a dialer asks of whoever knows the clusters (config thread): the next endpoint to try, and
 * its transport. */
struct transport_factory;
struct xds_dial_target {
    struct addr addr;
    const struct addr *source; /* NULL */
    uint32_t connect_timeout_ms;
    struct transport_factory *transport; /* borrowed; NULL: plaintext */
    sv host_name;                        /* of the endpoint (auto_host_sni); borrowed */
    /* UpstreamHttpProtocolOptions: the server name, and what the certificate must say, are the
     * authority's */
    bool auto_sni, auto_san_validation;
    sv authority;  /* borrowed */
    bool is_http2; /* what the cluster speaks */
    /* Http2ProtocolOptions.connection_keepalive; 0: off */
    uint32_t http2_keepalive_ms, http2_keepalive_timeout_ms;
    int keepalive_time_s, keepalive_interval_s, keepalive_probes;
};
struct xds_dial_ops {
    /* False: no endpoint now (DNS pending, secrets missing); try again after back-off. */
    bool (*next_target)(void *user, struct xds_dial_target *out);
    void *user;
};
struct xds_dialer;
struct xds_dialer *xds_dialer_new(struct loop *l, const struct xds_dial_ops *ops);
void xds_dialer_free(struct xds_dialer *d);
/* A connection that is being made; its events and its end are ops'. NULL: it can't be begun,
 * `error` tells why. *target: what was chosen; *path: of a UNIX address, to be freed (xfree) after
 * the connection is gone. */
struct conn;
struct conn_ops;
#define DIAL_ERROR_MAX 320
struct conn *xds_dialer_connect(struct xds_dialer *d, const struct conn_ops *ops, void *user,
                                struct xds_dial_target *target, char **path,
                                char error[DIAL_ERROR_MAX]);
struct loop *xds_dialer_loop(const struct xds_dialer *d);
struct xds_dial;
/* Begin; on_done(fd ≥ 0: gRPC's end, owned by the callee; or negative UV_E… with text). */
struct xds_dial *xds_dial_start(struct xds_dialer *d,
                                void (*on_done)(void *user, int fd, const char *error), void *user);
/* What it goes to; on_done(fd ≥ 0) was called. Borrowed pointers in it are not valid any more. */
const struct xds_dial_target *xds_dial_target(const struct xds_dial *c);
void xds_dial_close(struct xds_dial *c); /* also the pump of an established one; an
                                          * fd that was handed over is gRPC's */

#endif
