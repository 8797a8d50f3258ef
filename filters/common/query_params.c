/* Query parameters: see the header. Parsing as Envoy does: "a" is "a=", an empty name is kept. */
#include "filters/common/query_params.h"

#include <stdlib.h>

#include "proxy/api/http_filter.h"
#include "proxy/base/buf.h"

static unsigned upper_bound(const struct query_params *q, sv name) {
    unsigned at = q->n;
    while (at && sv_cmp(q->v[at - 1].name, name) > 0) {
        at--;
    }
    return at;
}

void query_params_add(struct query_params *q, sv name, sv value) {
    if (q->n == q->cap) {
        unsigned cap = q->cap ? 2 * q->cap : 8;
        struct query_param *v = arena_new_array(q->arena, struct query_param, cap);
        if (q->n) {
            memcpy(v, q->v, q->n * sizeof(*v));
        }
        q->v = v;
        q->cap = cap;
    }
    unsigned at = upper_bound(q, name);
    memmove(q->v + at + 1, q->v + at, (q->n - at) * sizeof(*q->v));
    q->v[at] = (struct query_param){name, value};
    q->n++;
}

static int by_name(const void *a, const void *b) {
    const struct query_param *x = a, *y = b;
    int order = sv_cmp(x->name, y->name);
    return order ? order : (x->name.p > y->name.p) - (x->name.p < y->name.p); /* as they came */
}

void query_params_parse(struct query_params *q, sv path, struct arena *a) {
    sv rest = path_query(path);
    unsigned n = 1;
    for (size_t i = 0; i < rest.n; i++) {
        n += rest.p[i] == '&';
    }
    *q =
        (struct query_params){.arena = a, .v = arena_new_array(a, struct query_param, n), .cap = n};
    while (rest.n) {
        sv value = sv_cut(&rest, '&');
        sv name = sv_cut(&value, '=');
        q->v[q->n++] = (struct query_param){name, value};
    }
    qsort(q->v, q->n, sizeof(*q->v), by_name);
}

bool query_params_has(const struct query_params *q, sv name) {
    unsigned at = upper_bound(q, name);
    return at && sv_eq(q->v[at - 1].name, name);
}

void query_params_remove(struct query_params *q, sv name) {
    unsigned end = upper_bound(q, name), from = end;
    while (from && sv_eq(q->v[from - 1].name, name)) {
        from--;
    }
    memmove(q->v + from, q->v + end, (q->n - end) * sizeof(*q->v));
    q->n -= end - from;
}

void query_params_set(struct query_params *q, sv name, sv value) {
    query_params_remove(q, name);
    query_params_add(q, name, value);
}

sv query_params_path(const struct query_params *q, sv path) {
    struct buf out BUF_AUTO = {0};
    buf_init(&out);
    buf_append_sv(&out, path_without_query(path));
    for (unsigned i = 0; i < q->n; i++) {
        buf_append(&out, i ? "&" : "?", 1);
        buf_append_sv(&out, q->v[i].name);
        buf_lit(&out, "=");
        buf_append_sv(&out, q->v[i].value);
    }
    return arena_sv(q->arena, buf_pullup(&out, buf_len(&out)));
}

bool query_param_is_encoded(sv text) {
    for (size_t i = 0; i < text.n; i++) {
        char c = text.p[i];
        bool is_plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
                        (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.' || c == '~' ||
                        c == '*' || c == '+' || c == '%';
        if (!is_plain) {
            return false;
        }
    }
    return true;
}
