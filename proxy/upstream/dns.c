/* DNS lookups: c-ares channels turned by our loop. See dns.h.
 * A channel is per distinct resolver config, so that servers that do not answer hold up nobody who
 * asks others.
 * Threads: the loop's own. */
#include "proxy/upstream/dns.h"

#include <ares.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>

#include "proxy/base/log.h"
#include "proxy/base/vec.h"
#include "proxy/event/timer.h"

STATS_GROUP(dns, DNS, DNS_STATS);

struct dns_sock {
    struct io io;
    struct list node;
    struct dns_resolver *r;
    ares_socket_t fd;
};
struct dns_resolver {
    struct list node; /* in this thread's list */
    uint32_t refs;
    struct dns_resolver_config cfg;
    struct loop *loop;
    struct stats_store *store;
    struct stats_scope *scope;
    struct stats_shard *stats;
    ares_channel channel;
    /* dirty: made anew before the next lookup, when none is under way */
    bool has_channel, is_dirty;
    unsigned pending;
    struct list socks, lookups;
    struct timer timer, age;
    struct loop_garbage garbage;
};
struct dns_lookup {
    struct list node;
    struct dns_resolver *r;
    dns_fn fn; /* NULL: cancelled */
    void *arg;
    enum dns_family family;
    bool is_second;   /* the other family is asked now */
    bool is_starting; /* inside dns_resolve_start() */
    bool is_asked;    /* c-ares holds it */
    int status;       /* ARES_… */
    VEC(struct dns_answer) answers;
    struct loop_task deliver;
    char name[DNS_NAME_MAX + 1];
};

static _Thread_local struct list resolvers; /* of this thread; zeroed until the first */

static void ask(struct dns_lookup *q);

/* ---- the channel ---- */

static void arm(struct dns_resolver *r) {
    struct timeval tv, *t = r->has_channel ? ares_timeout(r->channel, NULL, &tv) : NULL;
    if (!r->pending || !t) {
        timer_cancel(&r->timer);
        return;
    }
    timer_start(&r->timer, (uint64_t)t->tv_sec * 1000 + (uint64_t)(t->tv_usec + 999) / 1000);
}

static void process(struct dns_resolver *r, ares_socket_t readable, ares_socket_t writable) {
    if (!r->refs) {
        return; /* thrown away already, its sockets close with it */
    }
    r->refs++; /* callbacks may let go of it */
    ares_process_fd(r->channel, readable, writable);
    arm(r);
    dns_resolver_unref(r);
}

static void on_timer(struct timer *t) {
    process(CONTAINER_OF(t, struct dns_resolver, timer), ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

static void on_age(struct timer *t) { CONTAINER_OF(t, struct dns_resolver, age)->is_dirty = true; }

static void on_sock_ready(struct io *io, int events, int status) {
    struct dns_sock *s = CONTAINER_OF(io, struct dns_sock, io);
    bool readable = (events & IO_READ) || status < 0, writable = events & IO_WRITE;
    process(s->r, readable ? s->fd : ARES_SOCKET_BAD, writable ? s->fd : ARES_SOCKET_BAD);
}

static void on_sock_closed(struct io *io) { xfree(CONTAINER_OF(io, struct dns_sock, io)); }

static struct dns_sock *sock_of(struct dns_resolver *r, ares_socket_t fd) {
    LIST_FOREACH (n, &r->socks) {
        struct dns_sock *s = LIST_ENTRY(n, struct dns_sock, node);
        if (s->fd == fd) {
            return s;
        }
    }
    return NULL;
}

/* c-ares wants a socket watched, or is about to close it. */
static void on_sock_state(void *data, ares_socket_t fd, int readable, int writable) {
    struct dns_resolver *r = data;
    struct dns_sock *s = sock_of(r, fd);
    if (!readable && !writable) {
        if (s) {
            list_unlink(&s->node);
            io_close(&s->io, -1, on_sock_closed);
        }
        return;
    }
    if (!s) {
        s = xnew(struct dns_sock);
        s->r = r;
        s->fd = fd;
        CHECK(io_open(&s->io, r->loop, fd, on_sock_ready) == 0);
        list_push_back(&r->socks, &s->node);
    }
    io_want(&s->io, (readable ? IO_READ : 0) | (writable ? IO_WRITE : 0));
}

/* Does the system name no server? c-ares then asks 127.0.0.1. */
static bool has_only_default_server(ares_channel ch) {
    struct ares_addr_port_node *list = NULL;
    if (ares_get_servers_ports(ch, &list) != ARES_SUCCESS || !list) {
        return true;
    }
    bool is_default = !list->next && list->family == AF_INET &&
                      list->addr.addr4.s_addr == htonl(INADDR_LOOPBACK) && !list->udp_port &&
                      !list->tcp_port;
    ares_free_data(list);
    return is_default;
}

static int set_servers(struct dns_resolver *r) {
    const struct dns_resolver_config *c = &r->cfg;
    if (!c->servers_n || (c->servers_are_fallback && !has_only_default_server(r->channel))) {
        return ARES_SUCCESS;
    }
    struct ares_addr_port_node v[DNS_SERVERS_MAX];
    for (unsigned i = 0; i < c->servers_n; i++) {
        const struct addr *a = &c->servers[i];
        v[i] = (struct ares_addr_port_node){.next = i + 1 < c->servers_n ? &v[i + 1] : NULL,
                                            .family = a->family};
        v[i].udp_port = v[i].tcp_port = a->port;
        memcpy(&v[i].addr, a->ip, a->family == AF_INET ? 4 : 16);
    }
    return ares_set_servers_ports(r->channel, v);
}

static bool channel_open(struct dns_resolver *r) {
    const struct dns_resolver_config *c = &r->cfg;
    struct ares_options o = {.sock_state_cb = on_sock_state, .sock_state_cb_data = r};
    int mask = ARES_OPT_SOCK_STATE_CB | ARES_OPT_FLAGS;
    o.flags = (c->use_tcp ? ARES_FLAG_USEVC : 0) | (c->no_search_domain ? ARES_FLAG_NOSEARCH : 0);
    if (c->edns0_bytes) {
        o.flags |= ARES_FLAG_EDNS;
        o.ednspsz = (int)c->edns0_bytes;
        mask |= ARES_OPT_EDNSPSZ;
    }
    if (c->timeout_ms) {
        o.timeout = (int)c->timeout_ms;
        mask |= ARES_OPT_TIMEOUTMS;
    }
    if (c->tries) {
        o.tries = (int)c->tries;
        mask |= ARES_OPT_TRIES;
    }
    mask |= c->rotate ? ARES_OPT_ROTATE : ARES_OPT_NOROTATE;
    r->has_channel = ares_init_options(&r->channel, &o, mask) == ARES_SUCCESS;
    if (!r->has_channel || set_servers(r) != ARES_SUCCESS) {
        log_warn(LOG_dns, "no DNS resolver: c-ares cannot be set up");
        return r->has_channel;
    }
    if (c->channel_max_ms) {
        timer_start(&r->age, c->channel_max_ms);
    }
    return true;
}

static void channel_close(struct dns_resolver *r) {
    if (r->has_channel) {
        r->has_channel = false;
        ares_destroy(r->channel); /* ends lookups with ARES_EDESTRUCTION, closes sockets */
    }
}

static void channel_renew(struct dns_resolver *r) {
    if (!r->is_dirty || r->pending) {
        return;
    }
    r->is_dirty = false;
    stats_inc(r->stats, DNS_reinits);
    channel_close(r);
    channel_open(r);
}

/* ---- answers ---- */

static void lookup_free(struct dns_lookup *q) {
    list_unlink(&q->node);
    loop_cancel_task(&q->deliver);
    vec_fini(&q->answers);
    xfree(q);
}

static bool is_empty_answer(int status) {
    return status == ARES_ENODATA || status == ARES_ENOTFOUND;
}

static void count_result(struct dns_resolver *r, int status) {
    if (status == ARES_SUCCESS) {
        return;
    }
    if (is_empty_answer(status)) {
        stats_inc(r->stats, DNS_not_found);
        return;
    }
    if (status == ARES_ETIMEOUT) {
        stats_inc(r->stats, DNS_timeouts);
        r->is_dirty |= r->cfg.reinit_on_timeout;
    }
    r->is_dirty |= status == ARES_ECONNREFUSED;
    stats_inc(r->stats, DNS_get_addr_failure);
}

static void deliver(struct dns_lookup *q) {
    struct dns_resolver *r = q->r;
    stats_gauge_dec(r->stats, DNS_pending_resolutions);
    dns_fn fn = q->fn;
    bool ok = q->status == ARES_SUCCESS || is_empty_answer(q->status);
    list_unlink(&q->node); /* whatever the callback does to the resolver, this lookup is ours */
    if (fn) {
        fn(q->arg, ok ? DNS_OK : DNS_FAILED, q->answers.p, (unsigned)q->answers.n,
           sv_cstr(ares_strerror(q->status)));
    }
    lookup_free(q);
}

static void on_deliver(struct loop_task *t) {
    deliver(CONTAINER_OF(t, struct dns_lookup, deliver));
}

/* Families that any interface but loopback has. */
static void routable_families(bool *v4, bool *v6) {
    struct ifaddrs *all;
    *v4 = *v6 = false;
    if (getifaddrs(&all) != 0) {
        *v4 = *v6 = true;
        return;
    }
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        if (i->ifa_addr && !(i->ifa_flags & IFF_LOOPBACK)) {
            *v4 |= i->ifa_addr->sa_family == AF_INET;
            *v6 |= i->ifa_addr->sa_family == AF_INET6;
        }
    }
    freeifaddrs(all);
}

static void take_answers(struct dns_lookup *q, const struct ares_addrinfo *info) {
    bool v4 = true, v6 = true;
    if (q->r->cfg.filter_unroutable) {
        routable_families(&v4, &v6);
    }
    for (const struct ares_addrinfo_node *n = info->nodes; n && q->answers.n < DNS_ANSWERS_MAX;
         n = n->ai_next) {
        if ((n->ai_family == AF_INET && v4) || (n->ai_family == AF_INET6 && v6)) {
            struct dns_answer *a = vec_push(&q->answers);
            addr_from_sockaddr(&a->addr, n->ai_addr, n->ai_addrlen);
            a->addr.port = 0;
            a->ttl_s = n->ai_ttl > 0 ? (uint32_t)n->ai_ttl : 0;
        }
    }
}

static bool has_second_family(const struct dns_lookup *q) {
    return !q->is_second && (q->family == DNS_AUTO || q->family == DNS_V4_PREFERRED);
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *info) {
    (void)timeouts;
    struct dns_lookup *q = arg;
    struct dns_resolver *r = q->r;
    q->is_asked = false;
    q->status = status;
    r->pending--;
    if (info) {
        take_answers(q, info);
        ares_freeaddrinfo(info);
    }
    if (!r->has_channel) { /* being destroyed */
        lookup_free(q);
        return;
    }
    count_result(r, status);
    if (q->fn && !q->answers.n && has_second_family(q)) {
        q->is_second = true;
        ask(q);
        return;
    }
    if (q->is_starting) {
        loop_queue_task(r->loop, &q->deliver);
        return;
    }
    deliver(q);
}

static int family_to_ask(const struct dns_lookup *q) {
    switch (q->family) {
    case DNS_V4_ONLY:
        return AF_INET;
    case DNS_V6_ONLY:
        return AF_INET6;
    case DNS_AUTO:
        return q->is_second ? AF_INET : AF_INET6;
    case DNS_V4_PREFERRED:
        return q->is_second ? AF_INET6 : AF_INET;
    case DNS_ALL:
        break;
    }
    return AF_UNSPEC;
}

static void ask(struct dns_lookup *q) {
    struct ares_addrinfo_hints hints = {.ai_flags = ARES_AI_NOSORT, .ai_family = family_to_ask(q)};
    q->r->pending++;
    q->is_asked = true;
    ares_getaddrinfo(q->r->channel, q->name, NULL, &hints, on_answer, q);
}

/* ---- lookups ---- */

static void fail_later(struct dns_lookup *q, int status) {
    q->status = status;
    stats_inc(q->r->stats, DNS_get_addr_failure);
    loop_queue_task(q->r->loop, &q->deliver);
}

/* Characters that no name of a host has are not asked for: c-ares of late refuses them itself. */
static bool is_hostname(sv name, enum dns_family family) {
    struct addr ip;
    for (size_t i = 0; i < name.n; i++) {
        if (!ascii_isalnum(name.p[i]) && !memchr("-._/*", name.p[i], 5)) {
            return family != DNS_V4_ONLY && addr_parse_ip(name, 0, &ip);
        }
    }
    return true;
}

/* RFC 6761 §6.3: names below "localhost" are this host's; nobody is asked for them. */
static bool is_below_localhost(sv name) {
    if (name.n && name.p[name.n - 1] == '.') {
        name.n--;
    }
    return sv_ends_nocase(name, SV(".localhost"));
}

static void answer_loopback(struct dns_lookup *q) {
    bool v6 = q->family == DNS_AUTO || q->family == DNS_V6_ONLY || q->family == DNS_ALL;
    bool v4 = q->family != DNS_AUTO && q->family != DNS_V6_ONLY;
    struct dns_answer a = {.ttl_s = 0};
    if (v6 && addr_parse_ip(SV("::1"), 0, &a.addr)) {
        *vec_push(&q->answers) = a;
    }
    if (v4 && addr_parse_ip(SV("127.0.0.1"), 0, &a.addr)) {
        *vec_push(&q->answers) = a;
    }
    q->status = ARES_SUCCESS;
    loop_queue_task(q->r->loop, &q->deliver);
}

struct dns_lookup *dns_resolve_start(struct dns_resolver *r, sv name, enum dns_family family,
                                     dns_fn fn, void *arg) {
    struct dns_lookup *q = xnew(struct dns_lookup);
    q->r = r;
    q->fn = fn;
    q->arg = arg;
    q->family = family;
    q->deliver.run = on_deliver;
    list_push_back(&r->lookups, &q->node);
    stats_inc(r->stats, DNS_resolve_total);
    stats_gauge_inc(r->stats, DNS_pending_resolutions);
    channel_renew(r);
    if (name.n > DNS_NAME_MAX || !is_hostname(name, family)) {
        fail_later(q, ARES_EBADNAME);
        return q;
    }
    if (is_below_localhost(name)) {
        answer_loopback(q);
        return q;
    }
    if (!r->has_channel || r->pending >= DNS_PENDING_MAX) {
        fail_later(q, ARES_ENOMEM);
        return q;
    }
    memcpy(q->name, name.p, name.n);
    q->is_starting = true;
    ask(q);
    q->is_starting = false;
    arm(r);
    return q;
}

void dns_resolve_cancel(struct dns_lookup *q) {
    q->fn = NULL;
    if (!q->is_asked) {
        deliver(q);
    }
}

/* ---- resolvers ---- */

static void library_init(void) { CHECK(ares_library_init(ARES_LIB_INIT_ALL) == ARES_SUCCESS); }

static bool same_config(const struct dns_resolver_config *a, const struct dns_resolver_config *b) {
    bool same = a->servers_n == b->servers_n &&
                a->servers_are_fallback == b->servers_are_fallback && a->use_tcp == b->use_tcp &&
                a->no_search_domain == b->no_search_domain && a->rotate == b->rotate &&
                a->filter_unroutable == b->filter_unroutable &&
                a->reinit_on_timeout == b->reinit_on_timeout && a->timeout_ms == b->timeout_ms &&
                a->tries == b->tries && a->edns0_bytes == b->edns0_bytes &&
                a->channel_max_ms == b->channel_max_ms;
    for (unsigned i = 0; same && i < a->servers_n; i++) {
        same = addr_eq(&a->servers[i], &b->servers[i]);
    }
    return same;
}

static struct dns_resolver *resolver_new(struct loop *l, struct stats_store *stats,
                                         const struct dns_resolver_config *cfg) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, library_init);
    struct dns_resolver *r = xnew(struct dns_resolver);
    r->refs = 1;
    r->cfg = *cfg;
    r->loop = l;
    r->store = stats;
    r->scope = stats_scope_get(stats, &dns_stats_group, SV("dns.cares."));
    r->stats = stats_shard(r->scope, l->thread_index);
    list_init(&r->socks);
    list_init(&r->lookups);
    timer_init(&r->timer, l, on_timer);
    timer_init(&r->age, l, on_age);
    channel_open(r);
    list_push_back(&resolvers, &r->node);
    return r;
}

struct dns_resolver *dns_resolver_get(struct loop *l, struct stats_store *stats,
                                      const struct dns_resolver_config *cfg) {
    if (!resolvers.next) {
        list_init(&resolvers);
    }
    LIST_FOREACH (n, &resolvers) {
        struct dns_resolver *r = LIST_ENTRY(n, struct dns_resolver, node);
        if (r->loop == l && r->store == stats && same_config(&r->cfg, cfg)) {
            r->refs++;
            return r;
        }
    }
    return resolver_new(l, stats, cfg);
}

static void resolver_free(struct loop_garbage *g) {
    struct dns_resolver *r = CONTAINER_OF(g, struct dns_resolver, garbage);
    channel_close(r);
    LIST_FOREACH_SAFE (n, &r->lookups) { /* answered or refused, but not told yet */
        lookup_free(LIST_ENTRY(n, struct dns_lookup, node));
    }
    stats_scope_unref(r->scope);
    xfree(r);
}

void dns_resolver_unref(struct dns_resolver *r) {
    if (--r->refs) {
        return;
    }
    list_unlink(&r->node);
    timer_cancel(&r->timer);
    timer_cancel(&r->age);
    LIST_FOREACH (n, &r->lookups) {
        LIST_ENTRY(n, struct dns_lookup, node)->fn = NULL;
    }
    r->garbage.free = resolver_free; /* c-ares may be on the stack */
    loop_defer_free(r->loop, &r->garbage);
}
