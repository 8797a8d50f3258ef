/* Path and host rewriting, and where a redirect points to.
 * Threads: worker-local calls; new values live in the request headers' arena.
 * Spec: config.route.v3.RouteAction rewrites, RedirectAction; Envoy's Http::Utility::newUri. */
#include "proxy/api/uri_template.h"
#include "proxy/base/buf.h"
#include "proxy/base/regex.h"
#include "proxy/observe/formatter.h"
#include "proxy/route/route_private.h"

static sv join(struct arena *a, sv x, sv y) {
    char *p = (char *)arena_alloc(a, x.n + y.n + 1);
    if (x.n) {
        memcpy(p, x.p, x.n);
    }
    if (y.n) {
        memcpy(p + x.n, y.p, y.n);
    }
    p[x.n + y.n] = '\0';
    return sv_from(p, x.n + y.n);
}

static sv without_query(sv target) { return route_match_path(target, false); }

static sv replace_all(const struct regex_rewrite *r, sv s, struct arena *a) {
    size_t n = 0;
    char *out = regex_replace_all(r->regex, s.p, s.n, r->substitution.p, r->substitution.n, &n);
    if (!out) {
        return s;
    }
    sv copy = arena_sv(a, sv_from(out, n));
    xfree(out);
    return copy;
}

/* The part of `target` that a prefix rewrite replaces. */
static size_t matched_bytes(const struct route_entry *r, sv target) {
    switch (r->match_kind) {
    case PATH_MATCH_PREFIX:
    case PATH_MATCH_EXACT:
    case PATH_MATCH_SEPARATED_PREFIX:
        /* A filter may have changed the path since it was matched. */
        return r->match_path.n < target.n ? r->match_path.n : target.n;
    case PATH_MATCH_REGEX:
    case PATH_MATCH_CONNECT:
    case PATH_MATCH_TEMPLATE:
        break;
    }
    return without_query(target).n;
}

static sv replace_path(sv target, sv path, struct arena *a) {
    return join(a, path, sv_skip(target, without_query(target).n));
}

static sv format(const struct formatter *f, const struct stream_info *si, struct arena *a) {
    struct buf out;
    buf_init(&out);
    formatter_text(f, si, &out);
    sv s = arena_sv(a, buf_pullup(&out, buf_len(&out)));
    buf_fini(&out);
    return s;
}

/* Formatted text may hold anything that metadata or headers hold: a target needs visible characters
 * only. */
static bool is_target(sv s) {
    for (size_t i = 0; i < s.n; i++) {
        if ((unsigned char)s.p[i] <= ' ' || s.p[i] == 0x7f) {
            return false;
        }
    }
    return s.n > 0;
}

/* The new :path; p NULL when it stays as it is. */
static sv new_path(const struct route_entry *r, sv target, const struct stream_info *si,
                   struct arena *a) {
    const struct route_rewrite *w = r->rewrite;
    if (w->prefix.n) {
        return join(a, w->prefix, sv_skip(target, matched_bytes(r, target)));
    }
    if (w->path_regex.regex) {
        return replace_path(target, replace_all(&w->path_regex, without_query(target), a), a);
    }
    if (w->path_template) {
        sv path = uri_template_rewrite(w->path_template, without_query(target), a);
        return path.p ? replace_path(target, path, a) : target;
    }
    if (w->path_format && si) {
        sv path = format(w->path_format, si, a);
        return is_target(path) ? replace_path(target, path, a) : SV_NULL;
    }
    return SV_NULL;
}

/* --- host --- */

/* Is `host` the last element of x-forwarded-host already? */
static bool is_last_forwarded(sv forwarded, sv host) {
    size_t comma = sv_rfind(forwarded, ',');
    return sv_eq(sv_trim(comma == SIZE_MAX ? forwarded : sv_skip(forwarded, comma + 1)), host);
}

static void append_forwarded_host(struct headers *h, sv host) {
    sv now = headers_get(h, HDR_x_forwarded_host);
    if (!now.n) {
        headers_set(h, HDR_x_forwarded_host, host);
    } else if (!is_last_forwarded(now, host)) {
        headers_set(h, HDR_x_forwarded_host, join(h->arena, join(h->arena, now, SV(",")), host));
    }
}

static void set_host(const struct route_entry *r, struct headers *h, sv host, bool set_original) {
    sv old = headers_get(h, HDR_authority);
    if (old.n && set_original) {
        headers_set(h, HDR_x_envoy_original_host, old);
    }
    if (old.n && r->rewrite->append_x_forwarded_host) {
        append_forwarded_host(h, old);
    }
    headers_set(h, HDR_authority, host);
}

static sv new_host(const struct route_rewrite *w, const struct headers *h,
                   const struct stream_info *si) {
    if (w->host.n) {
        return w->host;
    }
    if (w->host_header.n) {
        return w->host_header_id != HDR_OTHER ? headers_get(h, w->host_header_id)
                                              : headers_get_name(h, w->host_header);
    }
    if (w->host_path_regex.regex) {
        return replace_all(&w->host_path_regex, without_query(headers_get(h, HDR_path)), h->arena);
    }
    if (w->host_format && si) {
        sv host = format(w->host_format, si, h->arena);
        return is_target(host) ? host : SV_NULL;
    }
    return SV_NULL;
}

void route_rewrite_auto_host(const struct route_entry *r, struct headers *request,
                             bool set_original_host, sv upstream_hostname) {
    if (r->rewrite->auto_host && upstream_hostname.n) {
        set_host(r, request, upstream_hostname, set_original_host);
    }
}

void route_rewrite(const struct route_entry *r, const struct weighted_cluster *wc,
                   struct headers *request, const struct stream_info *si, bool set_original_path,
                   sv upstream_hostname) {
    if (wc && wc->host_rewrite.n) {
        headers_set(request, HDR_authority, wc->host_rewrite);
    }
    sv host = new_host(r->rewrite, request, si);
    if (host.n) {
        set_host(r, request, host, set_original_path);
    }
    route_rewrite_auto_host(r, request, set_original_path, upstream_hostname);
    sv target = headers_get(request, HDR_path);
    sv path = target.p ? new_path(r, target, si, request->arena) : SV_NULL;
    if (!path.p) {
        return;
    }
    if (set_original_path) {
        headers_set(request, HDR_x_envoy_original_path, target);
    }
    headers_set(request, HDR_path, path);
}

/* --- redirects --- */

/* :path as the redirect's prefix_rewrite, regex or path_rewrite make it, with its query. */
static sv redirect_target(const struct route_entry *r, sv target, const struct stream_info *si,
                          struct arena *a) {
    const struct redirect_action *d = r->redirect;
    if (d->regex.regex) {
        return replace_path(target, replace_all(&d->regex, without_query(target), a), a);
    }
    if (d->has_prefix_rewrite) {
        return join(a, d->prefix_rewrite, sv_skip(target, matched_bytes(r, target)));
    }
    if (d->path_format && si) {
        sv path = format(d->path_format, si, a);
        if (is_target(path)) {
            return sv_find(path, '?') != SIZE_MAX ? path : replace_path(target, path, a);
        }
    }
    return target;
}

/* path_redirect with the request's query, unless it brings one of its own. */
static sv redirect_path(const struct route_entry *r, sv target, const struct stream_info *si,
                        struct arena *a) {
    const struct redirect_action *d = r->redirect;
    target = redirect_target(r, target, si, a);
    bool has_own_query = sv_find(d->path, '?') != SIZE_MAX;
    if (d->has_path) {
        size_t query = has_own_query ? SIZE_MAX : sv_find(target, '?');
        target = query == SIZE_MAX ? d->path : join(a, d->path, sv_skip(target, query));
    }
    size_t query = sv_find(target, '?');
    return d->strip_query && !has_own_query && query != SIZE_MAX ? sv_sub(target, 0, query)
                                                                 : target;
}

/* Where the port of an authority begins, with its colon; host.n when there is none. */
static size_t port_start(sv host) {
    if (host.n && host.p[0] == '[') {
        size_t end = sv_find_sv(host, SV("]:"));
        return end == SIZE_MAX ? host.n : end + 1;
    }
    size_t colon = sv_rfind(host, ':');
    return colon == SIZE_MAX ? host.n : colon;
}

/* The request's host, without a port that would be wrong with the new scheme or port. */
static sv redirect_host(const struct route_entry *r, const struct headers *request, sv scheme) {
    sv host = headers_get(request, HDR_authority);
    size_t at = port_start(host);
    if (at == host.n) {
        return host;
    }
    sv port = sv_skip(host, at);
    sv proto = headers_get(request, HDR_x_forwarded_proto);
    bool drop = r->redirect->port != 0;
    if (!sv_eq(scheme, proto)) {
        drop |= sv_eq(proto, SV("https")) && sv_eq(port, SV(":443"));
        drop |= sv_eq(proto, SV("http")) && sv_eq(port, SV(":80"));
    }
    return drop ? sv_sub(host, 0, at) : host;
}

sv route_redirect_location_for(const struct route_entry *r, const struct headers *request,
                               bool is_tls, const struct stream_info *si, struct arena *a) {
    const struct redirect_action *d = r->redirect;
    sv scheme = d->scheme;
    if (!scheme.n) {
        sv own = headers_get(request, HDR_scheme);
        scheme = d->https_redirect ? SV("https") : own.n ? own : is_tls ? SV("https") : SV("http");
    }
    sv host = d->host.n ? d->host : redirect_host(r, request, scheme);
    sv path = redirect_path(r, headers_get(request, HDR_path), si, a);
    sv port = d->port ? arena_printf(a, ":%u", d->port) : SV("");
    return join(a, join(a, join(a, join(a, scheme, SV("://")), host), port), path);
}

sv route_redirect_location(const struct route_entry *r, const struct headers *request, bool is_tls,
                           struct arena *a) {
    return route_redirect_location_for(r, request, is_tls, NULL, a);
}

sv route_tls_redirect_location(const struct headers *request, struct arena *a) {
    return join(a, join(a, SV("https://"), headers_get(request, HDR_authority)),
                headers_get(request, HDR_path));
}
