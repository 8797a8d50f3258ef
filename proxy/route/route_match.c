/* Which route a request takes: virtual host, TLS requirement, then the first route whose path and
 * conditions match.
 * Threads: worker-local calls on an immutable table; allocates only in the request's arena.
 * Spec: config.route.v3.RouteMatch, VirtualHost.require_tls, WeightedCluster; Envoy's RouteMatcher.
 * Not here: rewriting (route_rewrite.c), hashing (route_hash.c). */
#include "proxy/api/uri_template.h"
#include "proxy/base/regex.h"
#include "proxy/base/runtime.h"
#include "proxy/http/path.h"
#include "proxy/net/conn.h"
#include "proxy/net/tls.h"
#include "proxy/route/metadata_matcher.h"
#include "proxy/route/route_private.h"

/* --- path --- */

sv route_match_path(sv path, bool ignore_parameters) {
    for (size_t i = 0; i < path.n; i++) {
        char c = path.p[i];
        if (c == '?' || c == '#' || (ignore_parameters && c == ';')) {
            return sv_sub(path, 0, i);
        }
    }
    return path;
}

static bool starts(const struct route_entry *r, sv path) {
    return r->case_insensitive ? sv_starts_nocase(path, r->match_path)
                               : sv_starts(path, r->match_path);
}

static bool is_separated(const struct route_entry *r, sv path) {
    return path.n == r->match_path.n || path.p[r->match_path.n] == '/';
}

bool route_path_matches(const struct route_entry *r, sv path, sv full, bool is_connect) {
    if (r->match_kind == PATH_MATCH_CONNECT) {
        return is_connect;
    }
    if (!path.p) {
        return false;
    }
    switch (r->match_kind) {
    case PATH_MATCH_PREFIX:
        return starts(r, path);
    case PATH_MATCH_EXACT:
        return r->case_insensitive ? sv_eq_nocase(path, r->match_path) : sv_eq(path, r->match_path);
    case PATH_MATCH_SEPARATED_PREFIX:
        return starts(r, path) && is_separated(r, path);
    case PATH_MATCH_REGEX:
        return regex_full_match(r->match_regex, path.p, path.n);
    case PATH_MATCH_TEMPLATE:
        return uri_template_match(r->match_template, full);
    case PATH_MATCH_CONNECT:
        break;
    }
    return false;
}

/* --- conditions --- */

static bool tls_matches(const struct route_conditions *c, const struct conn_info *cx) {
    const struct ssl_info *ssl = cx && cx->conn ? conn_ssl(cx->conn) : NULL;
    bool presented = ssl && ssl_info_has_peer_cert(ssl);
    bool validated = ssl && ssl_info_is_validated(ssl);
    return (!c->has_presented || c->presented == presented) &&
           (!c->has_validated || c->validated == validated);
}

/* What the stream knows beside its headers. */
static bool facts_hold(const struct route_conditions *c, const struct route_match_input *in) {
    if ((c->has_presented || c->has_validated) && !tls_matches(c, in->cx)) {
        return false;
    }
    if (c->metadata && !metadata_matchers_match(c->metadata, in->si ? in->si->metadata : NULL)) {
        return false;
    }
    return !c->filter_state ||
           filter_state_matchers_match(c->filter_state, in->si ? in->si->filter_state : NULL);
}

static bool conditions_hold(const struct route_conditions *c, const struct route_match_input *in) {
    if (c->has_fraction && !fraction_holds(&c->fraction, in->random)) {
        return false;
    }
    if (c->is_grpc && !headers_are_grpc(in->headers)) {
        return false;
    }
    if (!header_matchers_match(c->headers, in->headers, in->scratch)) {
        return false;
    }
    if (c->query &&
        !query_matchers_match(c->query, headers_get(in->headers, HDR_path), in->scratch)) {
        return false;
    }
    return cookie_matchers_match(c->cookies, in->headers) && facts_hold(c, in);
}

static bool holds(const struct vhost_routes *rs, uint32_t i, const struct route_match_input *in) {
    return !rs->conditions[i] || conditions_hold(rs->conditions[i], in);
}

static const struct route_entry *scan(const struct vhost_routes *rs, sv path, sv full,
                                      const struct route_match_input *in) {
    for (unsigned i = 0; i < rs->n; i++) {
        if (route_path_matches(&rs->v[i], path, full, in->is_connect) && holds(rs, i, in)) {
            return &rs->v[i];
        }
    }
    return NULL;
}

static const struct route_entry *look_up(const struct vhost_routes *rs, sv path, sv full,
                                         const struct route_match_input *in) {
    struct path_candidates c;
    path_candidates_begin(&c, rs->index, rs->v, path);
    bool is_sure = false;
    for (uint32_t i; (i = path_candidates_next(&c, &is_sure)) != ROUTE_INDEX_END;) {
        const struct route_entry *r = &rs->v[i];
        bool path_ok = is_sure && r->match_kind != PATH_MATCH_SEPARATED_PREFIX
                           ? true
                           : route_path_matches(r, path, full, in->is_connect);
        if (path_ok && holds(rs, i, in)) {
            return r;
        }
    }
    return NULL;
}

/* --- table --- */

static const struct vhost *find_vhost(const struct route_table *t,
                                      const struct route_match_input *in) {
    const struct route_table_private *p = t->priv_;
    sv host = in->vhost_host;
    if (!host.n) {
        host = !p->vhost_header.n                ? headers_get(in->headers, HDR_authority)
               : p->vhost_header_id != HDR_OTHER ? headers_get(in->headers, p->vhost_header_id)
                                                 : headers_get_name(in->headers, p->vhost_header);
    }
    return host_index_find(&p->hosts, host, t->ignore_port_in_host, in->scratch);
}

static bool wants_tls(const struct vhost *v, const struct headers *h) {
    if (v->require_tls == TLS_REQUIRE_NONE ||
        sv_eq(headers_get(h, HDR_x_forwarded_proto), SV("https"))) {
        return false;
    }
    return v->require_tls == TLS_REQUIRE_ALL ||
           !sv_eq(headers_get(h, HDR_x_envoy_internal), SV("true"));
}

const struct route_entry *route_table_match(const struct route_table *t,
                                            const struct route_match_input *in,
                                            const struct vhost **vhost, enum route_miss *why) {
    const struct vhost *v = find_vhost(t, in);
    *vhost = v;
    if (!v) {
        *why = ROUTE_NO_VHOST;
        return NULL;
    }
    if (UNLIKELY(wants_tls(v, in->headers))) {
        *why = ROUTE_TLS_REDIRECT;
        return NULL;
    }
    sv target = headers_get(in->headers, HDR_path);
    sv path = route_match_path(target, t->ignore_path_parameters);
    sv full = t->ignore_path_parameters ? route_match_path(target, false) : path;
    const struct vhost_routes *rs = v->routes_;
    const struct route_entry *r =
        rs->index ? look_up(rs, path, full, in) : scan(rs, path, full, in);
    *why = r ? ROUTE_FOUND : ROUTE_NO_ROUTE;
    return r;
}

/* --- weights --- */

uint64_t route_weighted_random(const struct route_entry *r, const struct route_match_input *in) {
    const struct route_weighted *w = r->weighted;
    if (w->use_hash) {
        bool has = false;
        uint64_t hash = route_hash(r, in, &has, NULL);
        return has ? hash : in->random;
    }
    if (!w->random_value_header.n) {
        return in->random;
    }
    /* More than one value would pick differently on the way: then none counts. */
    uint64_t value = 0, parsed;
    unsigned n = 0;
    HEADERS_FOREACH (it, in->headers) {
        if (sv_eq(it->name, w->random_value_header)) {
            n++;
            value = sv_to_u64(sv_trim(it->value), &parsed) ? parsed : value;
            n += sv_to_u64(sv_trim(it->value), &parsed) ? 0 : 1;
        }
    }
    return n == 1 ? value : in->random;
}

static uint32_t weight_of(const struct weighted_cluster *w) {
    uint64_t weight = runtime_u64(w->runtime_key, w->weight);
    return weight < UINT32_MAX ? (uint32_t)weight : UINT32_MAX;
}

const struct weighted_cluster *route_pick_weighted(const struct route_entry *r, uint64_t random) {
    const struct route_weighted *w = r->weighted;
    uint64_t total = w->total;
    bool has_runtime = w->n && w->v[0].runtime_key.n;
    if (has_runtime) {
        total = 0;
        for (unsigned i = 0; i < w->n; i++) {
            total += weight_of(&w->v[i]);
        }
    }
    if (total == 0) {
        return NULL;
    }
    uint64_t at = random % total;
    for (unsigned i = 0; i < w->n; i++) {
        uint32_t weight = has_runtime ? weight_of(&w->v[i]) : w->v[i].weight;
        if (at < weight) {
            return &w->v[i];
        }
        at -= weight;
    }
    return NULL; /* only when runtime values changed in between */
}

/* --- per-route filter configs, virtual clusters --- */

static const struct filter_override *find_override(const struct filter_overrides *o,
                                                   uint32_t name_id) {
    for (unsigned i = 0; i < o->n; i++) {
        if (o->v[i].name_id == name_id) {
            return &o->v[i];
        }
    }
    return NULL;
}

const struct filter_override *route_override(const struct route_table *t,
                                             const struct route_entry *r,
                                             const struct weighted_cluster *wc, uint32_t name_id) {
    const struct filter_override *o = wc ? find_override(&wc->overrides, name_id) : NULL;
    if (!o && r) {
        o = find_override(&r->overrides, name_id);
        o = o ? o : find_override(&r->vhost->overrides, name_id);
    }
    return o ? o : find_override(&t->overrides, name_id);
}

unsigned route_override_configs(const struct route_table *t, const struct route_entry *r,
                                const struct weighted_cluster *wc, uint32_t name_id,
                                const void *out[4]) {
    const struct filter_overrides *levels[] = {&t->overrides, &r->vhost->overrides, &r->overrides,
                                               wc ? &wc->overrides : NULL};
    unsigned n = 0;
    for (unsigned i = 0; i < ARRAY_LEN(levels); i++) {
        const struct filter_override *o = levels[i] ? find_override(levels[i], name_id) : NULL;
        if (o && o->config) {
            out[n++] = o->config;
        }
    }
    return n;
}

const void *route_override_config(const struct route_table *t, const struct route_entry *r,
                                  const struct weighted_cluster *wc, uint32_t name_id) {
    const void *all[4];
    unsigned n = route_override_configs(t, r, wc, name_id, all);
    return n ? all[n - 1] : NULL;
}

const struct virtual_cluster *vhost_virtual_cluster(const struct vhost *v, const struct headers *h,
                                                    struct arena *scratch, sv *name) {
    for (unsigned i = 0; i < v->virtual_clusters_n; i++) {
        const struct virtual_cluster *c = &v->virtual_clusters[i];
        if (!c->matchers || header_matchers_match(c->matchers, h, scratch)) {
            *name = c->name;
            return c;
        }
    }
    *name = SV_NULL;
    return NULL;
}
