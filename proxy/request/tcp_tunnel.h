/* A TCP connection's bytes inside an HTTP request: CONNECT or POST to an upstream that answers 2xx
 * and relays from then on.
 * Threads: worker-local. Spec: TcpProxy.TunnelingConfig; Envoy's HttpUpstream.
 * Not here: choosing the host, trying another (tcp_proxy.c). */
#ifndef SLUICE_REQUEST_TCP_TUNNEL_H
#define SLUICE_REQUEST_TCP_TUNNEL_H

#include "proxy/observe/stream_info.h"
#include "proxy/upstream/pool.h"

struct compile_ctx;
struct tcp_tunnel_config;
/* msg: TcpProxy.TunnelingConfig. NULL: errors added. */
struct tcp_tunnel_config *tcp_tunnel_compile(struct compile_ctx *ctx, const void *msg);

struct tcp_tunnel;
/* Callbacks; each may close the downstream. on_failed and on_closed are the last, and the tunnel is
 * no more when they are called. */
struct tcp_tunnel_ops {
    void (*on_open)(void *user, struct conn *c, struct host *h); /* the upstream agreed */
    /* It did not. `is_overflow`: a limit of ours; trying again is no use. */
    void (*on_failed)(void *user, bool is_overflow, sv reason, struct host *h);
    void (*on_data)(void *user, struct buf *data, bool end_stream);
    void (*on_closed)(void *user);
    void (*on_above_high)(void *user); /* stop writing */
    void (*on_below_low)(void *user);
};
/* Ask `key`'s host for a tunnel. Sets *handle first; may call back before returning. `si`: of the
 * downstream connection: formats read it, propagated headers go into its filter state. All are
 * borrowed until the end. */
void tcp_tunnel_start(const struct tcp_tunnel_config *cfg, struct cluster_view *v,
                      const struct pool_key *key, struct stream_info *si,
                      const struct tcp_tunnel_ops *ops, void *user, struct tcp_tunnel **handle);
/* Of an open tunnel. Moves `data`. */
void tcp_tunnel_write(struct tcp_tunnel *t, struct buf *data, bool end_stream);
void tcp_tunnel_read_disable(struct tcp_tunnel *t, bool disable);
/* At once; no callback after. */
void tcp_tunnel_cancel(struct tcp_tunnel *t);

#endif
