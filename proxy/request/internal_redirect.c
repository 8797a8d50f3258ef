/* Following redirects: the location is checked against the route's policy, the request rewritten,
 * and a new stream takes the old one's place on the client's connection, so that all filters and
 * routing see the new request.
 * Threads: worker-local. Spec: InternalRedirectPolicy and its predicates; Envoy's
 * convertRequestHeadersForInternalRedirect() and recreateStream().
 * Not here: keeping the body (router.c), compiling policies (route/). */
#include "proxy/request/internal_redirect.h"

#include "proxy/http/path.h"
#include "proxy/request/stream.h"

struct target {
    sv scheme, authority, path;
    bool is_https;
};

/* --- where to --- */

/* What a request line and a header can carry. */
static bool is_visible(sv s) {
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f) {
            return false;
        }
    }
    return true;
}

/* An absolute URL; its fragment is for clients only. */
static bool parse_location(sv url, struct target *out) {
    sv rest = url;
    out->scheme = sv_cut(&rest, ':');
    out->is_https = sv_eq_nocase(out->scheme, SV("https"));
    if ((!out->is_https && !sv_eq_nocase(out->scheme, SV("http"))) || !sv_eat(&rest, SV("//"))) {
        return false;
    }
    out->scheme = out->is_https ? SV("https") : SV("http");
    rest = sv_cut(&rest, '#');
    size_t n = 0;
    while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?') {
        n++;
    }
    out->authority = sv_sub(rest, 0, n);
    out->path = n < rest.n ? sv_skip(rest, n) : SV("/");
    return n && is_visible(out->path) && sv_find(out->authority, '@') == SIZE_MAX &&
           authority_valid(out->authority);
}

static bool is_https_request(const struct router *r) {
    return !sv_is(headers_get(r->headers, HDR_scheme), "http") &&
           conn_ssl(r->base.stream->hcm->base.conn) != NULL;
}

/* --- may we --- */

static bool is_listed(const struct internal_redirect *p, sv route) {
    for (unsigned i = 0; i < p->allowed_routes_n; i++) {
        if (sv_eq(p->allowed_routes[i], route)) {
            return true;
        }
    }
    return false;
}

static bool was_taken(const struct redirect_hop *hops, sv from, sv to) {
    for (; hops; hops = hops->earlier) {
        if (sv_eq(hops->from, from) && sv_eq(hops->to, to)) {
            return true;
        }
    }
    return false;
}

static bool predicates_hold(const struct router *r, const struct target *t, sv route) {
    const struct internal_redirect *p = r->route->extra->internal_redirect;
    if (p->safe_cross_scheme && t->is_https && !is_https_request(r)) {
        return false;
    }
    if (p->has_allow_list && !is_listed(p, route)) {
        return false;
    }
    return !p->previous_routes || !was_taken(r->base.stream->hops, r->route->name, route);
}

static bool refuse(struct router *r, unsigned stat) {
    stats_inc(r->base.stream->hcm->stats, stat);
    return false;
}

/* --- the new request --- */

static void copy_response_headers(const struct router *r, struct headers *h) {
    const struct internal_redirect *p = r->route->extra->internal_redirect;
    for (unsigned i = 0; i < p->copy_headers_n; i++) {
        headers_remove_name(h, p->copy_header_names[i]);
        HEADERS_FOREACH (it, &r->response) {
            if (sv_eq(it->name, p->copy_header_names[i])) {
                headers_add_copy(h, it->name, it->value);
            }
        }
    }
}

static void rewrite(const struct router *r, const struct target *t, struct headers *h) {
    copy_response_headers(r, h);
    sv url = arena_printf(h->arena, "%s://%.*s%.*s", is_https_request(r) ? "https" : "http",
                          SV_ARG(headers_get(r->headers, HDR_authority)),
                          SV_ARG(headers_get(r->headers, HDR_path)));
    headers_set(h, HDR_x_envoy_original_url, url);
    headers_set(h, HDR_scheme, t->scheme);
    headers_set(h, HDR_authority, arena_sv(h->arena, t->authority));
    headers_set(h, HDR_path, arena_sv(h->arena, t->path));
}

static const struct route_entry *find_route(const struct router *r, const struct headers *h) {
    struct stream *s = r->base.stream;
    struct route_match_input in = {
        .headers = h, .random = s->random, .scratch = &s->arena, .cx = s->info.cx, .si = &s->info};
    const struct vhost *vhost;
    enum route_miss why;
    return route_table_match(s->table, &in, &vhost, &why);
}

/* RFC 9110 §15.4.4: 303 asks for the other resource by GET, without a body. */
static bool drops_body(const struct router *r, unsigned status) {
    sv method = headers_get(r->headers, HDR_method);
    return status == 303 && !sv_is(method, "GET") && !sv_is(method, "HEAD");
}

/* The request as the location wants it; NULL: the response is passed on. */
static struct headers *prepare(struct router *r, unsigned status, sv *route_name) {
    const struct internal_redirect *p = r->route->extra->internal_redirect;
    struct arena *a = http_arena(&r->base);
    struct target t;
    sv location = headers_get(&r->response, HDR_location);
    if (!location.n) {
        return NULL;
    }
    if (!parse_location(location, &t)) {
        refuse(r, HCM_passthrough_internal_redirect_bad_location);
        return NULL;
    }
    if (!p->allow_cross_scheme && t.is_https != is_https_request(r)) {
        refuse(r, HCM_passthrough_internal_redirect_unsafe_scheme);
        return NULL;
    }
    if (r->base.stream->internal_redirects >= p->max) {
        refuse(r, HCM_passthrough_internal_redirect_too_many_redirects);
        return NULL;
    }
    struct headers *h = arena_new(a, struct headers);
    headers_init(h, a);
    headers_copy(h, r->headers);
    rewrite(r, &t, h);
    const struct route_entry *e = find_route(r, h);
    if (!e) {
        refuse(r, HCM_passthrough_internal_redirect_no_route);
        return NULL;
    }
    if (!predicates_hold(r, &t, e->name)) {
        refuse(r, HCM_passthrough_internal_redirect_predicate);
        return NULL;
    }
    *route_name = e->name;
    if (drops_body(r, status)) {
        headers_set(h, HDR_method, SV("GET"));
        headers_remove(h, HDR_content_length);
    }
    return h;
}

/* --- the new stream --- */

/* Gives the client's exchange to a new stream with this one's request; this one ends. */
static struct stream *succeed(struct stream *old, sv from, sv to) {
    struct stream *s = stream_hand_over(old);
    s->internal_redirects = (uint16_t)(old->internal_redirects + 1);
    struct redirect_hop *hop = arena_new(&s->arena, struct redirect_hop);
    *hop = (struct redirect_hop){NULL, arena_sv(&s->arena, from), arena_sv(&s->arena, to)};
    const struct redirect_hop **earlier = &hop->earlier;
    for (const struct redirect_hop *o = old->hops; o; o = o->earlier) {
        struct redirect_hop *copy = arena_new(&s->arena, struct redirect_hop);
        *copy =
            (struct redirect_hop){NULL, arena_sv(&s->arena, o->from), arena_sv(&s->arena, o->to)};
        *earlier = copy;
        earlier = &copy->earlier;
    }
    s->hops = hop;
    return s;
}

static void run(struct stream *s, struct buf *body, bool is_headers_only) {
    stream_begin(s, is_headers_only);
    if (is_headers_only || s->is_destroyed) {
        return;
    }
    bool has_trailers = s->request_trailers.n > 0;
    if (!has_trailers || !buf_empty(body)) {
        stream_decode_data(s, body, !has_trailers);
    }
    if (has_trailers && !s->is_destroyed) {
        stream_decode_trailers(s);
    }
}

static bool follows(const struct internal_redirect *p, unsigned status) {
    for (unsigned i = 0; i < p->codes_n; i++) {
        if (p->codes[i] == status) {
            return true;
        }
    }
    return false;
}

bool internal_redirect_try(struct router *r, unsigned status, bool end_stream) {
    struct stream *old = r->base.stream;
    sv route_name = SV_NULL;
    if (!follows(r->route->extra->internal_redirect, status)) {
        return false;
    }
    bool is_possible =
        r->may_redirect && r->body_ended && old->saw_request_end && old->codec_stream;
    struct headers *next = is_possible ? prepare(r, status, &route_name) : NULL;
    if (!next) {
        stats_inc(r->cluster->stats, CLUSTER_upstream_internal_redirect_failed_total);
        return false;
    }
    stats_inc(r->cluster->stats, CLUSTER_upstream_internal_redirect_succeeded_total);
    bool drops = drops_body(r, status);
    bool is_headers_only = r->is_headers_only || drops;
    if (!end_stream) {
        router_attempt_cancel(r, true);
    }
    struct buf BUF_AUTO body;
    buf_init(&body);
    buf_move(&body, &r->body);
    sv from = r->route->name;
    old->request = *next;
    struct stream *s = succeed(old, from, route_name);
    headers_init(&s->request_trailers, &s->arena);
    if (r->trailers && !drops) {
        headers_copy(&s->request_trailers, r->trailers);
    }
    old->info.response_code = (uint16_t)status;
    stream_hand_over_end(old); /* r is over, its memory stays until the turn ends */
    run(s, &body, is_headers_only);
    return true;
}
