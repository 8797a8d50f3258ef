/* Connections to internal listeners: a pair of sockets, one end the upstream connection's, the
 * other handed to the listener of the same worker.
 * Threads: worker-local. Spec: listener.v3.Listener.internal_listener,
 * core.v3.EnvoyInternalAddress. A listener sees its connections at the end of the turn, never from
 * inside a dial: one that dials itself makes a turn longer, not a stack deeper. What waits is
 * bounded by the descriptors it holds.
 * Not here: what a connection brings along (api/passthrough.h), listeners (worker_listener.c). */
#include <errno.h>
#include <sys/socket.h>
#include <unistd.h>
#include <uv.h>

#include "proxy/api/passthrough.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/server/worker.h"

struct internal_dial {
    struct list node;
    int fd;
    struct passthrough *passthrough; /* a ref */
};

static struct worker_listener *find(struct worker *w, const struct addr *to) {
    return map_get(&w->internal_listeners, addr_internal_listener(to));
}

static void accept_dial(struct worker *w, const struct internal_dial *d) {
    struct passthrough *p = d->passthrough;
    struct worker_listener *l = find(w, &p->to);
    if (!l) { /* gone since */
        close(d->fd);
        return;
    }
    const struct accept_info info = {.fd = d->fd,
                                     .remote = addr_internal_client,
                                     .local = p->to,
                                     .direct_remote = addr_internal_client,
                                     .direct_local = p->to,
                                     .passthrough = p};
    listener_sock_hand(l->socks[0], d->fd, &info);
}

static void free_dial(struct internal_dial *d) {
    list_unlink(&d->node);
    shared_unref(&d->passthrough->shared);
    xfree(d);
}

static void on_dials(struct loop_task *t) {
    struct worker *w = CONTAINER_OF(t, struct worker, dials_task);
    struct list batch;
    list_init(&batch);
    list_splice_back(&batch, &w->dials);
    LIST_FOREACH_SAFE (it, &batch) {
        struct internal_dial *d = LIST_ENTRY(it, struct internal_dial, node);
        accept_dial(w, d);
        free_dial(d);
    }
}

int worker_dial_internal(struct worker *w, struct passthrough *p) {
    if (!find(w, &p->to)) {
        log_debug(LOG_connection, "no internal listener for '%s'", p->to.path);
        return UV_EINVAL; /* as Envoy */
    }
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) < 0) {
        return -errno;
    }
    struct internal_dial *d = xnew(struct internal_dial);
    d->fd = fds[1];
    d->passthrough = shared_ref(p);
    list_push_back(&w->dials, &d->node);
    loop_queue_task(&w->loop, &w->dials_task);
    return fds[0];
}

void worker_internal_init(struct worker *w) {
    map_init(&w->internal_listeners);
    list_init(&w->dials);
    w->dials_task.run = on_dials;
}

void worker_internal_fini(struct worker *w) {
    LIST_FOREACH_SAFE (it, &w->dials) {
        struct internal_dial *d = LIST_ENTRY(it, struct internal_dial, node);
        close(d->fd);
        free_dial(d);
    }
    loop_cancel_task(&w->dials_task);
    map_fini(&w->internal_listeners);
}
