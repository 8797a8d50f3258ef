/* Listening sockets of a listener, one per worker and address, made by the config thread before the
 * listener goes into a snapshot: a port in use is an error of that update, not a surprise on a
 * worker. They outlive updates of the listener.
 * Threads: made on the config thread; workers have descriptors of their own; closed by whoever
 * drops the last ref. */
#ifndef SLUICE_CONFIG_SOCKETS_H
#define SLUICE_CONFIG_SOCKETS_H

#include "proxy/base/diag.h"
#include "proxy/base/shared.h"
#include "proxy/config/listener.h"

struct listener_sockets {
    struct shared shared;
    unsigned addresses_n, workers_n;
    struct addr *bound; /* [addresses_n]: with the real port when the config said 0 */
    struct arena arena; /* of their paths: the listener may be replaced */
    int *fds;           /* [addresses_n * workers_n]; -1 with bind_to_port false */
    bool is_left;       /* shared, atomic: no listener has them any more */
};
/* NULL: diag_error with the address and the reason ("cannot bind '0.0.0.0:80': Permission
 * denied"). */
struct listener_sockets *listener_sockets_new(const struct listener_config *c, unsigned workers,
                                              struct diag *d);
/* Begin to listen (they are bound, and refuse connections, before). */
int listener_sockets_listen(struct listener_sockets *s, const struct listener_config *c);
/* Workers that still have them are to close them for new connections. Before the snapshot without
 * them is published. */
void listener_sockets_leave(struct listener_sockets *s);
bool listener_sockets_are_left(const struct listener_sockets *s); /* any thread */
static inline int listener_sockets_fd(const struct listener_sockets *s, unsigned address,
                                      unsigned worker) {
    return s->fds[address * s->workers_n + worker];
}

#endif
