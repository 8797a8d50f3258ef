/* Socket settings shared by listeners and clusters: SocketOption lists, TcpKeepalive, BindConfig.
 * Threads: the config thread. Spec: core.v3 socket_option.proto, address.proto. */
#ifndef SLUICE_CONFIG_SOCKET_CONFIG_H
#define SLUICE_CONFIG_SOCKET_CONFIG_H

#include "proxy/api/compile.h"
#include "proxy/net/sock.h"

/* msgs: n pointers to core.v3.SocketOption. */
bool socket_options_compile(struct compile_ctx *ctx, void *const *msgs, size_t n,
                            struct sock_opts *out);
/* msg: core.v3.TcpKeepalive; NULL: off. Unset members take the kernel's default. */
void tcp_keepalive_compile(const void *msg, struct sock_opts *out);

#endif
