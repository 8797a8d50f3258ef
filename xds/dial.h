/* The fd under an xDS stream: connects to an endpoint of the control-plane cluster (STATIC, DNS,
 * UNIX), wraps it in our own TLS when the cluster has it, and hands gRPC-C one end of a socketpair
 * that is pumped to it.
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
struct xds_dial;
/* Begin; on_done(fd ≥ 0: gRPC's end, owned by the callee; or negative UV_E… with text). on_broken:
 * the connection under an established fd died. */
struct xds_dial *xds_dial_start(struct xds_dialer *d,
                                void (*on_done)(void *user, int fd, const char *error), void *user);
void xds_dial_close(struct xds_dial *c); /* also the pump of an established one */

#endif
