/* See sockets.h. Spec: listener.v3.Listener address, enable_reuse_port, bind_to_port. */
#include "proxy/config/sockets.h"

#include <unistd.h>

#include "proxy/base/mem.h"

static void on_free(struct shared *sh) {
    struct listener_sockets *s = (struct listener_sockets *)sh;
    for (unsigned i = 0; i < s->addresses_n * s->workers_n; i++) {
        bool is_shared = i % s->workers_n && s->fds[i] == s->fds[i - i % s->workers_n];
        if (s->fds[i] >= 0 && !is_shared) {
            close(s->fds[i]);
        }
    }
    xfree(s->fds);
    xfree(s->bound);
    arena_fini(&s->arena);
    xfree(s);
}

static bool bind_address(struct listener_sockets *s, const struct listener_config *c, unsigned a,
                         struct diag *d) {
    struct addr want = addr_dup(&c->addresses[a].addr, &s->arena);
    struct sock_opts opts = c->addresses[a].opts;
    opts.reuse_port = c->reuse_port && addr_is_ip(&want);
    s->bound[a] = want;
    for (unsigned w = 0; w < s->workers_n && c->bind_to_port; w++) {
        int *fd = &s->fds[a * s->workers_n + w];
        if (w > 0 && !opts.reuse_port) {
            *fd = s->fds[a * s->workers_n];
            continue;
        }
        *fd = sock_listen(&want, &opts, c->backlog, true, &s->bound[a]);
        if (*fd < 0) {
            char text[ADDR_STR_MAX];
            addr_str(&want, text);
            return diag_error(d, "cannot bind '%s': %s", text, sock_strerror(*fd));
        }
        want = s->bound[a]; /* port 0: the other workers share the port the first one got */
    }
    return true;
}

struct listener_sockets *listener_sockets_new(const struct listener_config *c, unsigned workers,
                                              struct diag *d) {
    struct listener_sockets *s = xnew(struct listener_sockets);
    shared_init(&s->shared, on_free);
    arena_init(&s->arena, 0);
    s->addresses_n = c->addresses_n;
    s->workers_n = workers;
    s->bound = xnew_array(struct addr, c->addresses_n);
    s->fds = xreallocarray(NULL, (size_t)c->addresses_n * workers, sizeof(int));
    for (unsigned i = 0; i < c->addresses_n * workers; i++) {
        s->fds[i] = -1;
    }
    for (unsigned a = 0; a < c->addresses_n; a++) {
        if (!bind_address(s, c, a, d)) {
            shared_unref(&s->shared);
            return NULL;
        }
    }
    return s;
}

int listener_sockets_listen(struct listener_sockets *s, const struct listener_config *c) {
    for (unsigned i = 0; i < s->addresses_n * s->workers_n; i++) {
        const struct sock_opts *opts = &c->addresses[i / s->workers_n].opts;
        int rc = s->fds[i] < 0 ? 0 : sock_start_listening(s->fds[i], opts, c->backlog);
        if (rc < 0) {
            return rc;
        }
    }
    return 0;
}

void listener_sockets_leave(struct listener_sockets *s) {
    __atomic_store_n(&s->is_left, true, __ATOMIC_RELEASE);
}

bool listener_sockets_are_left(const struct listener_sockets *s) {
    return __atomic_load_n(&s->is_left, __ATOMIC_ACQUIRE);
}
