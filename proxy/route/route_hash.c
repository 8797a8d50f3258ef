/* The hash that ring-hash and Maglev pick by, as Envoy computes it (XXH64 of each source, combined
 * by rotation and XOR).
 * Threads: worker-local calls; allocates only in the request's arena. Spec:
 * config.route.v3.RouteAction.HashPolicy. */
#define XXH_INLINE_ALL
#include <xxhash.h>

#include "proxy/base/regex.h"
#include "proxy/http/path.h"
#include "proxy/net/addr.h"
#include "proxy/observe/filter_state.h"
#include "proxy/route/route_private.h"

/* Values of one header that count; further ones are left out (a request has at most
 * HEADERS_MAX). */
#define HASH_VALUES_MAX 64

static uint64_t xxh(sv s) { return XXH64(s.p, s.n, 0); }

static sv rewritten(const struct hash_policy *p, sv value, struct arena *a) {
    size_t n = 0;
    char *out =
        regex_replace_all(p->rewrite, value.p, value.n, p->substitution.p, p->substitution.n, &n);
    if (!out) {
        return value;
    }
    sv copy = arena_sv(a, sv_from(out, n));
    xfree(out);
    return copy;
}

/* Ascending, so that the order of the header's values does not matter. */
static void insert_sorted(sv *v, unsigned n, sv value) {
    for (; n > 0 && sv_cmp(v[n - 1], value) > 0; n--) {
        v[n] = v[n - 1];
    }
    v[n] = value;
}

static bool hash_header(const struct hash_policy *p, const struct route_match_input *in,
                        uint64_t *hash) {
    sv values[HASH_VALUES_MAX];
    unsigned n = 0;
    HEADERS_FOREACH (it, in->headers) {
        bool is_it = p->header_id != HDR_OTHER ? it->id == p->header_id : sv_eq(it->name, p->name);
        if (is_it && n < HASH_VALUES_MAX) {
            insert_sorted(values, n++,
                          p->rewrite ? rewritten(p, it->value, in->scratch) : it->value);
        }
    }
    *hash = 0;
    for (unsigned i = 0; i < n; i++) {
        *hash = XXH64(values[i].p, values[i].n, *hash);
    }
    return n > 0;
}

/* The same for all requests of a connection, so that streams racing for their first cookie get one
 * value. */
static sv make_cookie(const struct hash_policy *p, const struct route_match_input *in,
                      sv *set_cookie) {
    sv ends = SV("");
    if (in->cx) {
        sv remote = addr_arena_str(&in->cx->remote, in->scratch),
           local = addr_arena_str(&in->cx->local, in->scratch);
        ends = arena_printf(in->scratch, "%.*s%.*s", SV_ARG(remote), SV_ARG(local));
    }
    sv value = arena_printf(in->scratch, "%016llx", (unsigned long long)xxh(ends));
    if (!set_cookie) {
        return value;
    }
    sv age = p->cookie_ttl_s ? arena_printf(in->scratch, "; Max-Age=%u", p->cookie_ttl_s) : SV("");
    *set_cookie =
        arena_printf(in->scratch, "%.*s=\"%.*s\"%.*s%s%.*s%.*s; HttpOnly", SV_ARG(p->name),
                     SV_ARG(value), SV_ARG(age), p->cookie_path.n ? "; Path=" : "",
                     SV_ARG(p->cookie_path), SV_ARG(p->cookie_attributes));
    return value;
}

static bool hash_cookie(const struct hash_policy *p, const struct route_match_input *in,
                        sv *set_cookie, uint64_t *hash) {
    sv value = cookie_get(in->headers, p->name);
    if (value.n == 0 && p->generate_cookie) {
        value = make_cookie(p, in, set_cookie);
    }
    *hash = xxh(value);
    return value.n > 0;
}

static bool hash_source_ip(const struct route_match_input *in, uint64_t *hash) {
    if (!in->cx || (in->cx->remote.family != AF_INET && in->cx->remote.family != AF_INET6)) {
        return false;
    }
    char text[ADDR_STR_MAX];
    size_t n = addr_ip_str(&in->cx->remote, text);
    *hash = XXH64(text, n, 0);
    return n > 0;
}

static bool hash_query(const struct hash_policy *p, const struct route_match_input *in,
                       uint64_t *hash) {
    sv value = query_get(path_query(headers_get(in->headers, HDR_path)), p->name);
    *hash = xxh(value);
    return value.p != NULL;
}

static bool hash_filter_state(const struct hash_policy *p, const struct route_match_input *in,
                              uint64_t *hash) {
    sv text = in->si ? filter_state_text(in->si->filter_state, p->name) : SV_NULL;
    *hash = xxh(text);
    return text.p != NULL;
}

static bool evaluate(const struct hash_policy *p, const struct route_match_input *in,
                     sv *set_cookie, uint64_t *hash) {
    switch (p->source) {
    case HASH_HEADER:
        return hash_header(p, in, hash);
    case HASH_COOKIE:
        return hash_cookie(p, in, set_cookie, hash);
    case HASH_SOURCE_IP:
        return hash_source_ip(in, hash);
    case HASH_QUERY:
        return hash_query(p, in, hash);
    case HASH_FILTER_STATE:
        return hash_filter_state(p, in, hash);
    }
    return false;
}

uint64_t route_hash(const struct route_entry *r, const struct route_match_input *in, bool *has,
                    sv *set_cookie) {
    uint64_t hash = 0;
    *has = false;
    const struct route_extra *x = r->extra;
    for (unsigned i = 0; i < x->hash_n; i++) {
        uint64_t one;
        if (evaluate(&x->hash[i], in, set_cookie, &one)) {
            hash = *has ? (hash << 1 | hash >> 63) ^ one : one;
            *has = true;
        }
        if (x->hash[i].is_terminal && *has) {
            break;
        }
    }
    return hash;
}
