/* Sockets: creation, options, reuse-port, original destination. Every function returns 0 or a fd,
 * or a negative UV_E…. */
#ifndef SLUICE_NET_SOCK_H
#define SLUICE_NET_SOCK_H

#include "proxy/net/addr.h"

enum sock_state { SOCK_PREBIND, SOCK_BOUND, SOCK_LISTENING };
struct sock_option { /* core.v3.SocketOption */
    int level, name;
    enum sock_state state;
    bool is_int;
    int int_value;
    sv buf_value;
};
struct sock_opts {
    const struct sock_option *v;
    unsigned n;
    bool reuse_port, transparent, freebind, is_v6only;
    int mode; /* AF_UNIX file mode, 0: default */
    int keepalive_time_s, keepalive_interval_s,
        keepalive_probes; /* all 0: off; -1 in one: kernel's default */
    int mark;
};

/* Where an upstream connection is to come from when it takes its client's place: an address that
 * need not be this machine's. */
struct sock_source {
    struct addr addr; /* port 0: any; AF_UNSPEC: there is none */
    uint32_t mark;    /* SO_MARK; 0: none */
};

/* A bound socket, listening unless bind_only. TCP_NODELAY and keepalive are set on it, accepted
 * sockets inherit them. `bound` (may be NULL) becomes the address with the real port. A stale UNIX
 * socket file is replaced. */
int sock_listen(const struct addr *a, const struct sock_opts *o, int backlog, bool bind_only,
                struct addr *bound) MUST_USE;
/* listen(2) on a socket made with bind_only. */
int sock_start_listening(int fd, const struct sock_opts *o, int backlog) MUST_USE;
/* Accept one non-blocking, close-on-exec; -EAGAIN when none. `peer` may be NULL. */
int sock_accept(int fd, struct addr *peer) MUST_USE;
/* Start a non-blocking connect from `source` (NULL: any): fd, with *in_progress telling whether to
 * wait for writability. */
int sock_connect(const struct addr *to, const struct addr *source, const struct sock_opts *o,
                 bool *in_progress) MUST_USE;
int sock_error(int fd); /* SO_ERROR as negative errno, or 0 */
int sock_local(int fd, struct addr *out);
int sock_original_dst(int fd, int family,
                      struct addr *out); /* SO_ORIGINAL_DST / IP6T_SO_ORIGINAL_DST */
void sock_nodelay(int fd);
void sock_reset_on_close(int fd);   /* SO_LINGER 0: close sends RST */
const char *sock_strerror(int err); /* of a negative errno */

#endif
