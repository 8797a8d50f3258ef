/* xdstp:// names: see collection.h. */
#include "proxy/config/collection.h"

#include <stdlib.h>

#include "proxy/base/vec.h"

#define SCHEME "xdstp:"

struct parts {
    sv head;   /* "xdstp://<authority>/<type>" */
    sv type;   /* of it */
    sv path;   /* behind the slash; may have slashes */
    sv params; /* behind the question mark */
};

/* False: no authority part, no type or no path. */
static bool split(sv name, struct parts *out) {
    sv start = SV(SCHEME "//");
    if (!sv_starts(name, start)) {
        return false;
    }
    size_t mark = sv_find(name, '?');
    out->params = mark == SIZE_MAX ? SV_NULL : sv_skip(name, mark + 1);
    sv whole = mark == SIZE_MAX ? name : sv_sub(name, 0, mark);
    sv rest = sv_skip(whole, start.n);
    size_t slash = sv_find(rest, '/');
    if (slash == SIZE_MAX) {
        return false;
    }
    sv below = sv_skip(rest, slash + 1);
    size_t end = sv_find(below, '/');
    if (end == SIZE_MAX || end == 0 || end + 1 == below.n) {
        return false;
    }
    out->type = sv_sub(below, 0, end);
    out->path = sv_skip(below, end + 1);
    out->head = sv_sub(whole, 0, whole.n - out->path.n - 1);
    return true;
}

static int by_bytes(const void *a, const void *b) { return sv_cmp(*(const sv *)a, *(const sv *)b); }

static void put_params(sv params, struct buf *out) {
    VEC(sv) v = {0};
    while (params.n) {
        size_t at = sv_find(params, '&');
        sv one = at == SIZE_MAX ? params : sv_sub(params, 0, at);
        params = at == SIZE_MAX ? SV_NULL : sv_skip(params, at + 1);
        if (one.n) {
            *vec_push(&v) = one;
        }
    }
    if (v.n > 1) {
        qsort(v.p, v.n, sizeof(*v.p), by_bytes);
    }
    for (size_t i = 0; i < v.n; i++) {
        buf_append_sv(out, i ? SV("&") : SV("?"));
        buf_append_sv(out, v.p[i]);
    }
    vec_fini(&v);
}

bool collection_of(sv name, struct buf *out) {
    struct parts p;
    if (!split(name, &p)) {
        return false;
    }
    size_t slash = sv_rfind(p.path, '/');
    buf_append_sv(out, p.head);
    buf_append_sv(out, SV("/"));
    buf_append_sv(out, slash == SIZE_MAX ? SV_NULL : sv_sub(p.path, 0, slash + 1));
    buf_append_sv(out, SV("*"));
    put_params(p.params, out);
    return true;
}

bool collection_parse(sv url, const char *proto_name, struct buf *out, struct diag *d) {
    struct parts p;
    if (!sv_starts(url, SV(SCHEME))) {
        return diag_error(d, "'%.*s' does not have an xdstp: scheme", SV_ARG(url));
    }
    if (sv_find(url, '#') != SIZE_MAX) {
        return diag_error(d, "'%.*s': directives are not supported", SV_ARG(url));
    }
    if (!split(url, &p)) {
        return diag_error(d, "'%.*s' must be xdstp://<authority>/<type>/<path>", SV_ARG(url));
    }
    if (!sv_is(p.type, proto_name)) {
        return diag_error(d, "xdstp:// type does not match %s in %.*s", proto_name, SV_ARG(url));
    }
    if (!sv_is(p.path, "*") && !sv_ends(p.path, SV("/*"))) {
        return diag_error(d, "'%.*s': must be a glob collection, its path ends with *",
                          SV_ARG(url));
    }
    return collection_of(url, out);
}
