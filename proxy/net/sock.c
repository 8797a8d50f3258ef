/* Sockets: making, options, accept and connect, original destination.
 * Threads: any. Spec: core.v3.SocketOption, core.v3.TcpKeepalive. Not here: readiness
 * (event/loop.c), buffers (conn.c). */
#include "proxy/net/sock.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proxy/base/check.h"

/* From linux/netfilter_ipv4.h and ip6_tables.h, which clash with netinet/in.h. */
#define SO_ORIGINAL_DST 80
#define IP6T_SO_ORIGINAL_DST 80

static int set_int(int fd, int level, int name, int value) {
    return setsockopt(fd, level, name, &value, sizeof(value)) == 0 ? 0 : -errno;
}

static int set_custom(int fd, const struct sock_opts *o, enum sock_state state) {
    for (unsigned i = 0; o && i < o->n; i++) {
        const struct sock_option *opt = &o->v[i];
        if (opt->state != state) {
            continue;
        }
        const void *value = opt->is_int ? (const void *)&opt->int_value : opt->buf_value.p;
        size_t n = opt->is_int ? sizeof(opt->int_value) : opt->buf_value.n;
        if (setsockopt(fd, opt->level, opt->name, value, (socklen_t)n) != 0) {
            return -errno;
        }
    }
    return 0;
}

static int set_keepalive(int fd, const struct sock_opts *o) {
    if (!o->keepalive_time_s && !o->keepalive_interval_s && !o->keepalive_probes) {
        return 0;
    }
    int rc = set_int(fd, SOL_SOCKET, SO_KEEPALIVE, 1);
    if (!rc && o->keepalive_time_s > 0) {
        rc = set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, o->keepalive_time_s);
    }
    if (!rc && o->keepalive_interval_s > 0) {
        rc = set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, o->keepalive_interval_s);
    }
    if (!rc && o->keepalive_probes > 0) {
        rc = set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, o->keepalive_probes);
    }
    return rc;
}

static int set_transparent(int fd, uint16_t family, const struct sock_opts *o) {
    bool is_v6 = family == AF_INET6;
    int level = is_v6 ? IPPROTO_IPV6 : IPPROTO_IP;
    int rc = 0;
    if (o->transparent) {
        rc = set_int(fd, level, is_v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, 1);
    }
    if (!rc && o->freebind) {
        rc = set_int(fd, level, is_v6 ? IPV6_FREEBIND : IP_FREEBIND, 1);
    }
    return rc;
}

/* What every IP socket gets before bind or connect. */
static int set_common(int fd, uint16_t family, const struct sock_opts *o) {
    if (family != AF_INET && family != AF_INET6) {
        return set_custom(fd, o, SOCK_PREBIND);
    }
    sock_nodelay(fd);
    int rc = o ? set_keepalive(fd, o) : 0;
    rc = rc || !o ? rc : set_transparent(fd, family, o);
    if (!rc && o && o->mark) {
        rc = set_int(fd, SOL_SOCKET, SO_MARK, o->mark);
    }
    return rc ? rc : set_custom(fd, o, SOCK_PREBIND);
}

static int set_listening(int fd, const struct addr *a, const struct sock_opts *o) {
    int rc = 0;
    if (a->family == AF_INET6) {
        rc = set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, o && o->is_v6only);
    }
    if (!rc && a->family != AF_UNIX) {
        rc = set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    }
    if (!rc && o && o->reuse_port && a->family != AF_UNIX) {
        rc = set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
    }
    return rc ? rc : set_common(fd, a->family, o);
}

static int new_socket(uint16_t family) {
    int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    return fd >= 0 ? fd : -errno;
}

static int do_bind(int fd, const struct addr *a, const struct sock_opts *o) {
    struct sockaddr_storage ss;
    socklen_t n = addr_to_sockaddr(a, &ss);
    if (n == 0) {
        return -ENAMETOOLONG;
    }
    bool is_file = a->family == AF_UNIX && a->path && a->path[0] && a->path[0] != '@';
    if (is_file && unlink(a->path) != 0 && errno != ENOENT) {
        return -errno;
    }
    if (bind(fd, (const struct sockaddr *)&ss, n) != 0) {
        return -errno;
    }
    if (is_file && o && o->mode && chmod(a->path, (mode_t)o->mode) != 0) {
        return -errno;
    }
    return set_custom(fd, o, SOCK_BOUND);
}

int sock_listen(const struct addr *a, const struct sock_opts *o, int backlog, bool bind_only,
                struct addr *bound) {
    int fd = new_socket(a->family);
    if (fd < 0) {
        return fd;
    }
    int rc = set_listening(fd, a, o);
    rc = rc ? rc : do_bind(fd, a, o);
    if (!rc && !bind_only) {
        rc = sock_start_listening(fd, o, backlog);
    }
    if (!rc && bound) {
        rc = a->family == AF_UNIX ? 0 : sock_local(fd, bound);
        *bound = a->family == AF_UNIX ? *a : *bound;
    }
    if (rc) {
        close(fd);
        return rc;
    }
    return fd;
}

int sock_start_listening(int fd, const struct sock_opts *o, int backlog) {
    if (listen(fd, backlog) != 0) {
        return -errno;
    }
    return set_custom(fd, o, SOCK_LISTENING);
}

int sock_accept(int fd, struct addr *peer) {
    struct sockaddr_storage ss;
    socklen_t n = sizeof(ss);
    int accepted = accept4(fd, peer ? (struct sockaddr *)&ss : NULL, peer ? &n : NULL,
                           SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (accepted < 0) {
        return -errno;
    }
    if (peer) {
        addr_from_sockaddr(peer, (const struct sockaddr *)&ss, n);
    }
    return accepted;
}

static int start_connect(int fd, const struct addr *to, const struct addr *source,
                         const struct sock_opts *o) {
    struct sockaddr_storage ss;
    int rc = set_common(fd, to->family, o);
    if (!rc && source && source->family == to->family) {
        /* The port is chosen at connect, when the whole 4-tuple is known: many more connections
         * from one source. */
        rc = source->port ? 0 : set_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
        rc = rc ? rc : do_bind(fd, source, o);
    }
    if (rc) {
        return rc;
    }
    socklen_t n = addr_to_sockaddr(to, &ss);
    if (n == 0) {
        return -ENAMETOOLONG;
    }
    while (connect(fd, (const struct sockaddr *)&ss, n) != 0) {
        if (errno != EINTR) {
            return -errno;
        }
    }
    return 0;
}

int sock_connect(const struct addr *to, const struct addr *source, const struct sock_opts *o,
                 bool *in_progress) {
    int fd = new_socket(to->family);
    if (fd < 0) {
        return fd;
    }
    int rc = start_connect(fd, to, source, o);
    *in_progress = rc == -EINPROGRESS;
    if (rc && rc != -EINPROGRESS) {
        close(fd);
        return rc;
    }
    return fd;
}

int sock_error(int fd) {
    int error = 0;
    socklen_t n = sizeof(error);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n) != 0) {
        return -errno;
    }
    return -error;
}

int sock_local(int fd, struct addr *out) {
    struct sockaddr_storage ss;
    socklen_t n = sizeof(ss);
    if (getsockname(fd, (struct sockaddr *)&ss, &n) != 0) {
        return -errno;
    }
    addr_from_sockaddr(out, (const struct sockaddr *)&ss, n);
    return 0;
}

static bool is_transparent(int fd, int family) {
    int on = 0;
    socklen_t n = sizeof(on);
    bool is_v6 = family == AF_INET6;
    int rc = getsockopt(fd, is_v6 ? IPPROTO_IPV6 : IPPROTO_IP,
                        is_v6 ? IPV6_TRANSPARENT : IP_TRANSPARENT, &on, &n);
    return rc == 0 && on;
}

int sock_original_dst(int fd, int family, struct addr *out) {
    struct sockaddr_storage ss;
    socklen_t n = sizeof(ss);
    /* TPROXY leaves the destination as the socket's own address. */
    if (is_transparent(fd, family)) {
        return sock_local(fd, out);
    }
    int rc = family == AF_INET6 ? getsockopt(fd, IPPROTO_IPV6, IP6T_SO_ORIGINAL_DST, &ss, &n)
                                : getsockopt(fd, IPPROTO_IP, SO_ORIGINAL_DST, &ss, &n);
    if (rc != 0) {
        return -errno;
    }
    addr_from_sockaddr(out, (const struct sockaddr *)&ss, n);
    return 0;
}

/* A failure leaves a slower socket, nothing worse. */
void sock_nodelay(int fd) { (void)set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1); }

void sock_reset_on_close(int fd) {
    struct linger l = {.l_onoff = 1, .l_linger = 0};
    (void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

const char *sock_strerror(int err) { return strerror(-err); }
