/* See the header. */
#include "filters/common/jwt_extract.h"

#include <stdlib.h>

#include "proxy/api/matcher.h"

enum location_kind { LOCATION_HEADER, LOCATION_PARAM, LOCATION_COOKIE };
struct jwt_location {
    enum location_kind kind;
    enum header_id id;
    sv name, prefix;
    sv key; /* name and prefix: locations are one by it, and in its order */
    const sv *issuers;
    unsigned issuers_n;
    bool allows_any;
};
struct jwt_extractor {
    struct jwt_location *v;
    unsigned n;
    const sv *sanitized;
    unsigned sanitized_n;
};

/* --- compile --- */

static struct jwt_location *place(struct jwt_extractor *x, enum location_kind kind, sv key) {
    for (unsigned i = 0; i < x->n; i++) {
        if (x->v[i].kind == kind && sv_eq(x->v[i].key, key)) {
            return &x->v[i];
        }
    }
    struct jwt_location *l = &x->v[x->n++];
    *l = (struct jwt_location){.kind = kind, .key = key};
    return l;
}

static void add(struct jwt_extractor *x, struct arena *a, enum location_kind kind, sv name,
                sv prefix, sv issuer, unsigned issuers_max) {
    struct jwt_location *l =
        place(x, kind, arena_printf(a, "%.*s%.*s", SV_ARG(name), SV_ARG(prefix)));
    l->name = name;
    l->prefix = prefix;
    l->id = kind == LOCATION_HEADER ? header_id_of(name) : HDR_OTHER;
    if (!issuer.n) {
        l->allows_any = true;
        return;
    }
    sv *issuers = l->issuers ? (sv *)(uintptr_t)l->issuers : arena_new_array(a, sv, issuers_max);
    issuers[l->issuers_n < issuers_max ? l->issuers_n++ : 0] = issuer;
    l->issuers = issuers;
}

static int by_order(const void *a, const void *b) {
    const struct jwt_location *x = a, *y = b;
    return x->kind != y->kind ? (int)x->kind - (int)y->kind : sv_cmp(x->key, y->key);
}

static void add_provider(struct jwt_extractor *x, struct arena *a, const struct jwt_provider *p,
                         unsigned issuers_max) {
    for (unsigned i = 0; i < p->from_headers_n; i++) {
        add(x, a, LOCATION_HEADER, p->from_headers[i].name, p->from_headers[i].prefix, p->issuer,
            issuers_max);
    }
    for (unsigned i = 0; i < p->from_params_n; i++) {
        add(x, a, LOCATION_PARAM, p->from_params[i], SV_NULL, p->issuer, issuers_max);
    }
    for (unsigned i = 0; i < p->from_cookies_n; i++) {
        add(x, a, LOCATION_COOKIE, p->from_cookies[i], SV_NULL, p->issuer, issuers_max);
    }
    if (!p->from_headers_n && !p->from_params_n && !p->from_cookies_n) {
        add(x, a, LOCATION_HEADER, SV("authorization"), SV("Bearer "), p->issuer, issuers_max);
        add(x, a, LOCATION_PARAM, SV("access_token"), SV_NULL, p->issuer, issuers_max);
    }
}

const struct jwt_extractor *
jwt_extractor_compile(struct arena *a, const struct jwt_provider *const *providers, unsigned n) {
    struct jwt_extractor *x = arena_new(a, struct jwt_extractor);
    unsigned most = 0, headers_n = 0, issuers_max = 0;
    for (unsigned i = 0; i < n; i++) {
        const struct jwt_provider *p = providers[i];
        unsigned own = p->from_headers_n + p->from_params_n + p->from_cookies_n + 2;
        most += own;
        issuers_max += own;
        headers_n += p->claim_headers_n + 1;
    }
    x->v = arena_new_array(a, struct jwt_location, most + 1);
    sv *sanitized = arena_new_array(a, sv, headers_n + 1);
    for (unsigned i = 0; i < n; i++) {
        add_provider(x, a, providers[i], issuers_max);
        if (providers[i]->forward_payload_header.n) {
            sanitized[x->sanitized_n++] = providers[i]->forward_payload_header;
        }
        for (unsigned k = 0; k < providers[i]->claim_headers_n; k++) {
            sanitized[x->sanitized_n++] = providers[i]->claim_headers[k].header;
        }
    }
    x->sanitized = sanitized;
    qsort(x->v, x->n, sizeof x->v[0], by_order);
    return x;
}

/* --- requests --- */

struct tokens {
    struct jwt_token *v;
    unsigned n;
};

static void push(struct tokens *t, sv text, const struct jwt_location *l) {
    if (t->n <= JWT_TOKENS_MAX) {
        t->v[t->n++] = (struct jwt_token){text, l};
    }
}

static bool is_token_char(char c) { return ascii_isalnum(c) || c == '-' || c == '_' || c == '.'; }

/* What follows the prefix, wherever it stands, from the first character that a token may have; the
 * whole value when none follows. */
static sv behind_prefix(sv value, size_t from) {
    for (size_t i = from; i < value.n; i++) {
        if (is_token_char(value.p[i])) {
            return sv_skip(value, i);
        }
    }
    return value;
}

static void from_value(const struct jwt_location *l, sv value, struct tokens *t) {
    size_t at = sv_find_sv(value, l->prefix);
    if (!l->prefix.n) {
        push(t, value, l);
    } else if (at != SIZE_MAX) {
        push(t, behind_prefix(value, at + l->prefix.n), l);
    }
}

/* Each line of a header is a token of its own; those of authorization are one, as Envoy joins
 * them. */
static void from_header(const struct jwt_location *l, const struct headers *h, struct arena *a,
                        struct tokens *t) {
    if (l->id == HDR_authorization) {
        sv value = headers_joined(h, l->id, l->name, a);
        if (value.p) {
            from_value(l, value, t);
        }
        return;
    }
    HEADERS_FOREACH (it, h) {
        if (it->id == l->id && (l->id != HDR_OTHER || sv_eq(it->name, l->name))) {
            from_value(l, it->value, t);
        }
    }
}

unsigned jwt_extract(const struct jwt_extractor *x, const struct headers *h, struct arena *a,
                     struct jwt_token out[JWT_TOKENS_MAX + 1]) {
    struct tokens t = {out, 0};
    for (unsigned i = 0; i < x->n; i++) {
        const struct jwt_location *l = &x->v[i];
        sv text;
        switch (l->kind) {
        case LOCATION_HEADER:
            from_header(l, h, a, &t);
            break;
        case LOCATION_PARAM:
            text = query_get(path_query(headers_get(h, HDR_path)), l->name);
            if (text.p) {
                push(&t, percent_decode(text, a), l);
            }
            break;
        case LOCATION_COOKIE:
            text = cookie_get(h, l->name);
            if (text.p) {
                push(&t, text, l);
            }
            break;
        }
    }
    return t.n;
}

void jwt_sanitize(const struct jwt_extractor *x, struct headers *h) {
    for (unsigned i = 0; i < x->sanitized_n; i++) {
        headers_remove_name(h, x->sanitized[i]);
    }
}

bool jwt_location_allows(const struct jwt_location *l, sv issuer) {
    for (unsigned i = 0; i < l->issuers_n && !l->allows_any; i++) {
        if (sv_eq(l->issuers[i], issuer)) {
            return true;
        }
    }
    return l->allows_any;
}

/* The path without any parameter of that name. */
static void remove_param(sv name, struct headers *h) {
    sv path = headers_get(h, HDR_path), query = path_query(path);
    if (!query.p) {
        return;
    }
    size_t before = (size_t)(query.p - path.p), n = before - 1;
    char *out = arena_alloc(h->arena, path.n + 1);
    memcpy(out, path.p, n);
    sv behind = sv_skip(path, before + query.n); /* a fragment */
    for (char separator = '?'; query.n;) {
        sv pair = sv_cut(&query, '&'), rest = pair;
        if (sv_eq(sv_cut(&rest, '='), name)) {
            continue;
        }
        out[n++] = separator;
        separator = '&';
        memcpy(out + n, pair.p, pair.n);
        n += pair.n;
    }
    memcpy(out + n, behind.n ? behind.p : "", behind.n);
    headers_set(h, HDR_path, sv_from(out, n + behind.n));
}

void jwt_location_remove(const struct jwt_location *l, struct headers *h) {
    switch (l->kind) {
    case LOCATION_HEADER:
        headers_remove_name(h, l->name);
        return;
    case LOCATION_PARAM:
        remove_param(l->name, h);
        return;
    case LOCATION_COOKIE:
        return;
    }
}
