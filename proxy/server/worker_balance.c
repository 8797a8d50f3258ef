/* exact_balance: a connection goes, before anything is done for it, to the worker that has the
 * fewest of its listener.
 * Threads: any worker; the table of workers under its lock.
 * Spec: listener.v3.Listener.ConnectionBalanceConfig.ExactBalance. Not here: counting
 * (net/listener.c). */
#include <unistd.h>

#include "proxy/base/mem.h"
#include "proxy/server/worker.h"

/* A connection under way to another worker. It counts as that one's from when it was chosen. */
struct given {
    struct loop_msg msg;
    struct resource *listener; /* one ref */
    unsigned thread;           /* where it counts */
    unsigned address;
    bool is_returned; /* the other worker has no such listener, yet or any more */
    unsigned from;    /* index of the worker that accepted it */
    struct accept_info info;
};

void worker_share_peers(struct worker_shared *s, unsigned n) {
    CHECK(uv_mutex_init(&s->peers_lock) == 0);
    s->peers = xnew_array(struct worker *, n);
    s->peers_n = n;
}

void worker_unshare_peers(struct worker_shared *s) {
    if (s->peers) {
        uv_mutex_destroy(&s->peers_lock);
        xfree(s->peers);
        s->peers = NULL;
    }
}

void worker_leave_peers(struct worker *w) {
    struct worker_shared *s = w->shared;
    if (!s->peers) {
        return;
    }
    uv_mutex_lock(&s->peers_lock);
    if (w->index < s->peers_n && s->peers[w->index] == w) {
        s->peers[w->index] = NULL;
    }
    uv_mutex_unlock(&s->peers_lock);
}

/* ---- to the worker that was chosen ---- */

static void on_given(struct loop *l, struct loop_msg *m);

static void free_given(struct given *g) {
    shared_unref(&g->listener->shared);
    xfree(g);
}

/* Under the lock: `to` ends only after it has left the table. */
static void post(struct given *g, struct worker *to) {
    g->thread = to->loop.thread_index;
    g->msg.run = on_given;
    conn_balance_count(g->listener->listener->sock.balance, g->thread, 1);
    loop_post(&to->loop, &g->msg);
}

/* Back to where it was accepted, once. */
static bool give_back(struct given *g, struct worker *w) {
    struct worker_shared *s = w->shared;
    if (g->is_returned) {
        return false;
    }
    g->is_returned = true;
    uv_mutex_lock(&s->peers_lock);
    struct worker *to = s->peers[g->from];
    if (to) {
        post(g, to);
    }
    uv_mutex_unlock(&s->peers_lock);
    return to != NULL;
}

static void on_given(struct loop *l, struct loop_msg *m) {
    struct given *g = CONTAINER_OF(m, struct given, msg);
    struct worker *w = l->owner;
    const struct listener_config *c = g->listener->listener;
    conn_balance_count(c->sock.balance, g->thread, -1);
    struct worker_listener *to = w->is_ending ? NULL : worker_listener_find(w, c->slot);
    if (to && g->address < to->cfg->addresses_n && to->socks[g->address]) {
        listener_sock_take(to->socks[g->address], &g->info);
    } else if (give_back(g, w)) {
        return;
    } else {
        close(g->info.fd);
    }
    free_given(g);
}

/* ---- from the one that accepted ---- */

static unsigned address_of(const struct worker_listener *l, const struct listener_sock *sock) {
    unsigned i = 0;
    while (i + 1 < l->cfg->addresses_n && l->socks[i] != sock) {
        i++;
    }
    return i;
}

static struct worker *fewest(const struct worker_shared *s, const struct conn_balance *b,
                             struct worker *self) {
    struct worker *best = self;
    for (unsigned i = 0; i < s->peers_n; i++) {
        struct worker *w = s->peers[i];
        if (w && conn_balance_of(b, w->loop.thread_index) <
                     conn_balance_of(b, best->loop.thread_index)) {
            best = w;
        }
    }
    return best;
}

bool worker_give_away(struct listener_sock *sock, const struct accept_info *info) {
    struct worker_listener *l = listener_sock_owner(sock);
    struct worker_shared *s = l->worker->shared;
    if (!s->peers || info->passthrough) {
        return false;
    }
    struct given *g = NULL;
    uv_mutex_lock(&s->peers_lock);
    struct worker *to = fewest(s, l->cfg->sock.balance, l->worker);
    if (to != l->worker) {
        g = xnew(struct given);
        g->listener = shared_ref(l->resource);
        g->address = address_of(l, sock);
        g->from = l->worker->index;
        g->info = *info;
        post(g, to);
    }
    uv_mutex_unlock(&s->peers_lock);
    return g != NULL;
}
