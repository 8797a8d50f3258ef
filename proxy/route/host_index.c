/* Which virtual host a host name belongs to: exact names, then the longest "*suffix", then the
 * longest "prefix*", then "*".
 * Threads: built on the config thread, immutable. Spec: config.route.v3.VirtualHost.domains. */
#include "proxy/route/route_private.h"
#include "proxy/route/route_vhds.h"

#define HOST_STACK_BYTES 256

void host_index_init(struct host_index *x) {
    *x = (struct host_index){.any = NULL};
    map_init(&x->exact);
    map_init(&x->suffix.map);
    map_init(&x->prefix.map);
}

void host_index_reserve(struct host_index *x, const struct host_index *like) {
    map_reserve(&x->exact, map_count(&like->exact));
    map_reserve(&x->suffix.map, map_count(&like->suffix.map));
    map_reserve(&x->prefix.map, map_count(&like->prefix.map));
}

void host_index_fini(struct host_index *x) {
    map_fini(&x->exact);
    map_fini(&x->suffix.map);
    map_fini(&x->prefix.map);
}

static bool put(struct map *m, sv key, const struct vhost *v) {
    return !map_put_new(m, key, (void *)(uintptr_t)v);
}

static bool add_domain(struct host_index *x, const struct vhost *v, sv domain, sv route_name,
                       struct diag *d) {
    if (sv_eq(domain, SV("*"))) {
        if (x->any) {
            return diag_error(d, "Only a single wildcard domain is permitted in route %.*s",
                              SV_ARG(route_name));
        }
        x->any = v;
        return true;
    }
    bool is_new = false;
    if (domain.n && domain.p[0] == '*') {
        is_new = put(&x->suffix.map, sv_skip(domain, 1), v);
    } else if (domain.n && domain.p[domain.n - 1] == '*') {
        is_new = put(&x->prefix.map, sv_sub(domain, 0, domain.n - 1), v);
    } else {
        is_new = put(&x->exact, domain, v);
    }
    return is_new ||
           diag_error(
               d,
               "Only unique values for domains are permitted. Duplicate entry of domain %.*s in "
               "route %.*s",
               SV_ARG(domain), SV_ARG(route_name));
}

bool route_table_has_host(const struct route_table *t, sv host) {
    struct arena scratch;
    arena_init(&scratch, 256);
    bool has = host_index_find(&t->priv_->hosts, host, t->ignore_port_in_host, &scratch) != NULL;
    arena_fini(&scratch);
    return has;
}

bool host_index_add(struct host_index *x, const struct vhost *v, sv route_name, struct diag *d) {
    bool ok = true;
    for (unsigned i = 0; i < v->routes_->domains_n; i++) {
        ok &= add_domain(x, v, v->routes_->domains[i], route_name, d);
    }
    return ok;
}

/* Distinct key lengths, the longest first; few of them, however many names there are. */
static void collect_lengths(struct wildcard_index *w, struct arena *a) {
    w->lengths = (uint32_t *)arena_alloc(a, (map_count(&w->map) + 1) * sizeof(*w->lengths));
    size_t it = 0;
    for (struct map_slot *s; (s = map_next(&w->map, &it)) != NULL;) {
        uint32_t n = (uint32_t)map_key(s).n;
        unsigned at = 0;
        while (at < w->lengths_n && w->lengths[at] > n) {
            at++;
        }
        if (at < w->lengths_n && w->lengths[at] == n) {
            continue;
        }
        memmove(&w->lengths[at + 1], &w->lengths[at], (w->lengths_n - at) * sizeof(*w->lengths));
        w->lengths[at] = n;
        w->lengths_n++;
    }
}

void host_index_finish(struct host_index *x, struct arena *a) {
    collect_lengths(&x->suffix, a);
    collect_lengths(&x->prefix, a);
}

/* A wildcard stands for at least one byte. */
static const struct vhost *find_wildcard(const struct wildcard_index *w, sv host, bool is_suffix) {
    for (unsigned i = 0; i < w->lengths_n; i++) {
        size_t n = w->lengths[i];
        if (n >= host.n) {
            continue;
        }
        sv part = is_suffix ? sv_skip(host, host.n - n) : sv_sub(host, 0, n);
        const struct vhost *v = (const struct vhost *)map_get(&w->map, part);
        if (v) {
            return v;
        }
    }
    return NULL;
}

static sv without_port(sv host) {
    size_t colon = sv_rfind(host, ':');
    size_t bracket = sv_rfind(host, ']');
    bool has_port = colon != SIZE_MAX && (bracket == SIZE_MAX || bracket < colon);
    return has_port ? sv_sub(host, 0, colon) : host;
}

static const struct vhost *find_lower(const struct host_index *x, sv host) {
    const struct vhost *v = (const struct vhost *)map_get(&x->exact, host);
    if (!v && x->suffix.lengths_n) {
        v = find_wildcard(&x->suffix, host, true);
    }
    if (!v && x->prefix.lengths_n) {
        v = find_wildcard(&x->prefix, host, false);
    }
    return v ? v : x->any;
}

const struct vhost *host_index_find(const struct host_index *x, sv host, bool ignore_port,
                                    struct arena *scratch) {
    if (!map_count(&x->exact) && !x->suffix.lengths_n && !x->prefix.lengths_n) {
        return x->any;
    }
    if (!host.p) {
        return NULL;
    }
    if (ignore_port) {
        host = without_port(host);
    }
    char stack[HOST_STACK_BYTES];
    char *lower = host.n <= sizeof(stack) ? stack : (char *)arena_alloc(scratch, host.n);
    for (size_t i = 0; i < host.n; i++) {
        lower[i] = ascii_tolower(host.p[i]);
    }
    return find_lower(x, sv_from(lower, host.n));
}
