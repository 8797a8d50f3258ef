/* Request-target handling: normalisation, escaped slashes, queries, authorities.
 * Threads: pure functions; results live in the caller's arena.
 * Spec: RFC 3986 §3, §5.2.4, §6.2; what Envoy's path normalisation answers (tests/unit/test_path.c
 * holds its answers).
 * Not here: deciding what a refused path answers (request/conn_headers.c). */
#include "proxy/http/path.h"

/* How a byte of the path behaves in normalisation. */
enum { PLAIN, ESCAPE, SPECIAL }; /* SPECIAL: '%', '\\', '/', '.' */
static const unsigned char classes[256] = {
    [0 ... 0x20] = ESCAPE, [0x7f ... 0xff] = ESCAPE, ['"'] = ESCAPE,  ['<'] = ESCAPE,
    ['>'] = ESCAPE,        ['^'] = ESCAPE,           ['`'] = ESCAPE,  ['{'] = ESCAPE,
    ['|'] = ESCAPE,        ['}'] = ESCAPE,           ['%'] = SPECIAL, ['\\'] = SPECIAL,
    ['/'] = SPECIAL,       ['.'] = SPECIAL,
};

static const char hex_digits[] = "0123456789ABCDEF";

static bool is_unreserved(unsigned char c) {
    return ascii_isalnum((char)c) || c == '-' || c == '.' || c == '_' || c == '~';
}

/* Value of the escape at p[0] == '%', or -1 when it is none. */
static int escape_value(const char *p, const char *end) {
    if (end - p < 3) {
        return -1;
    }
    int hi = ascii_hex(p[1]);
    int lo = ascii_hex(p[2]);
    return hi < 0 || lo < 0 ? -1 : hi << 4 | lo;
}

static bool is_slash(char c) { return c == '/' || c == '\\'; }

/* Length of one dot at p, written '.' or "%2e"; 0: none. */
static unsigned dot_len(const char *p, const char *end) {
    if (p < end && *p == '.') {
        return 1;
    }
    return p < end && *p == '%' && escape_value(p, end) == '.' ? 3 : 0;
}

struct canon {
    const char *in, *end;
    char *start, *out; /* out: next byte to write; start[0] is '/' */
};

/* At the start of a segment: swallow "." and "..". False: the segment is an ordinary one. */
static bool eat_dot_segment(struct canon *c) {
    unsigned first = dot_len(c->in, c->end);
    if (!first) {
        return false;
    }
    const char *p = c->in + first;
    unsigned second = dot_len(p, c->end);
    p += second;
    if (p < c->end && !is_slash(*p)) {
        return false;
    }
    if (second && c->out > c->start + 1) { /* drop the segment before, which may be an empty one */
        do {
            c->out--;
        } while (c->out[-1] != '/');
    }
    c->in = p < c->end ? p + 1 : p;
    return true;
}

static void put_escaped(struct canon *c, unsigned char byte) {
    *c->out++ = '%';
    *c->out++ = hex_digits[byte >> 4];
    *c->out++ = hex_digits[byte & 15];
}

/* Would a digit written now complete an escape that the path only seemed not to have ("%%32e")? */
static bool completes_escape(const struct canon *c) {
    return c->out[-1] == '%' || (c->out - c->start >= 2 && c->out[-2] == '%');
}

/* One byte or escape of a segment. False: a NUL or ill-formed UTF-8. */
static bool put_next(struct canon *c) {
    unsigned char byte = (unsigned char)*c->in;
    if (byte == '%') {
        int v = escape_value(c->in, c->end);
        if (v == 0) {
            return false;
        }
        if (v > 0 && is_unreserved((unsigned char)v) && !completes_escape(c)) {
            *c->out++ = (char)v;
        } else {
            size_t n = v > 0 ? 3 : 1;
            memcpy(c->out, c->in, n);
            c->out += n;
        }
        c->in += v > 0 ? 3 : 1;
        return true;
    }
    if (classes[byte] != ESCAPE) {
        *c->out++ = (char)byte;
        c->in++;
        return true;
    }
    unsigned n = byte ? sv_utf8_seq(sv_from(c->in, (size_t)(c->end - c->in))) : 0;
    for (unsigned i = 0; i < n; i++) {
        put_escaped(c, (unsigned char)*c->in++);
    }
    return n > 0;
}

/* RFC 3986 normal form of `path` (which begins with '/') into out, at most 3 times as long.
 * SIZE_MAX: refused. */
static size_t canonicalise(sv path, char *out) {
    struct canon c = {path.p, path.p + path.n, out, out};
    while (c.in < c.end) {
        if (!is_slash(*c.in)) {
            if (!put_next(&c)) {
                return SIZE_MAX;
            }
            continue;
        }
        *c.out++ = '/';
        c.in++;
        while (eat_dot_segment(&c)) {}
    }
    return (size_t)(c.out - out);
}

/* Is the path in normal form for sure? */
static bool is_canonical(sv path) {
    for (size_t i = 0; i < path.n; i++) {
        unsigned char cls = classes[(unsigned char)path.p[i]];
        if (LIKELY(cls == PLAIN) ||
            (path.p[i] == '/' && !(i + 1 < path.n && path.p[i + 1] == '.'))) {
            continue;
        }
        if (path.p[i] != '.' || (i && path.p[i - 1] == '/')) {
            return false;
        }
    }
    return true;
}

static bool is_escaped_slash(const char *p, const char *end) {
    if (*p != '%') {
        return false;
    }
    int v = escape_value(p, end);
    return v == '/' || v == '\\';
}

static bool has_escaped_slash(sv path) {
    for (const char *p = path.p, *end = p + path.n; p < end; p++) {
        if (is_escaped_slash(p, end)) {
            return true;
        }
    }
    return false;
}

static size_t unescape_slashes(sv path, char *out) {
    char *o = out;
    for (const char *p = path.p, *end = p + path.n; p < end;) {
        if (is_escaped_slash(p, end)) {
            *o++ = (char)escape_value(p, end);
            p += 3;
        } else {
            *o++ = *p++;
        }
    }
    return (size_t)(o - out);
}

/* A path of nothing but slashes keeps two of them, as in Envoy. */
static size_t merge(char *p, size_t n) {
    size_t w = 0;
    for (size_t i = 0; i < n; i++) {
        if (p[i] == '/' && w && p[w - 1] == '/') {
            continue;
        }
        p[w++] = p[i];
    }
    return w == 1 && n > 1 ? 2 : w;
}

struct rewrite {
    bool unescape, canon, merge;
};

/* `part`, the path without its query, into out (3 times as long). SIZE_MAX: refused. */
static size_t rewrite_path(sv part, struct rewrite what, char *out, struct arena *a) {
    if (what.unescape) {
        char *plain = arena_alloc(a, part.n);
        part = sv_from(plain, unescape_slashes(part, plain));
    }
    size_t n = part.n;
    if (what.canon) {
        n = canonicalise(part, out);
    } else {
        memcpy(out, part.p, part.n);
    }
    return n != SIZE_MAX && what.merge ? merge(out, n) : n;
}

/* What is to be done; PATH_CHANGED: do it, else the answer. */
static enum path_result plan_rewrite(sv part, bool normalise, enum escaped_slashes slashes,
                                     struct rewrite *what) {
    if (part.n == 0 || part.p[0] != '/') {
        return PATH_OK; /* "*", CONNECT: nothing to normalise */
    }
    if (normalise && sv_find(part, '#') != SIZE_MAX) {
        return PATH_REJECT;
    }
    what->unescape = slashes != ESCAPED_SLASHES_KEEP && has_escaped_slash(part);
    if (what->unescape && slashes == ESCAPED_SLASHES_REJECT) {
        return PATH_REJECT;
    }
    what->canon = normalise && (what->unescape || !is_canonical(part));
    bool merges = what->merge && sv_contains(part, SV("//"));
    return what->unescape || what->canon || merges ? PATH_CHANGED : PATH_OK;
}

enum path_result path_normalise(sv *path, bool normalise, bool merge_slashes,
                                enum escaped_slashes slashes, struct arena *a) {
    sv part = sv_sub(*path, 0, sv_find(*path, '?'));
    struct rewrite what = {.merge = merge_slashes};
    enum path_result plan = plan_rewrite(part, normalise, slashes, &what);
    if (plan != PATH_CHANGED) {
        return plan;
    }
    sv query = sv_skip(*path, part.n);
    char *out = arena_alloc(a, part.n * 3 + query.n + 1);
    size_t n = rewrite_path(part, what, out, a);
    if (n == SIZE_MAX) {
        return PATH_REJECT;
    }
    memcpy(out + n, query.n ? query.p : "", query.n);
    sv result = sv_from(out, n + query.n);
    if (sv_eq(result, *path)) {
        return PATH_OK;
    }
    *path = result;
    bool redirects = what.unescape && slashes == ESCAPED_SLASHES_UNESCAPE_REDIRECT;
    return redirects ? PATH_REDIRECT : PATH_CHANGED;
}

/* --- queries --- */

sv path_without_query(sv path) {
    size_t n = 0;
    while (n < path.n && path.p[n] != '?' && path.p[n] != '#') {
        n++;
    }
    return sv_from(path.p, n);
}

sv path_query(sv path) {
    path.n = sv_sub(path, 0, sv_find(path, '#')).n;
    size_t at = sv_find(path, '?');
    return at == SIZE_MAX ? SV_NULL : (sv){path.p + at + 1, path.n - at - 1};
}

sv query_get(sv query, sv key) {
    while (query.n) {
        sv value = sv_cut(&query, '&');
        size_t eq = sv_find(value, '=');
        if (sv_eq(sv_sub(value, 0, eq), key)) {
            return eq == SIZE_MAX ? SV("") : (sv){value.p + eq + 1, value.n - eq - 1};
        }
    }
    return SV_NULL;
}

sv query_get_decoded(sv query, sv key, struct arena *a) {
    while (query.n) {
        sv value = sv_cut(&query, '&');
        sv name = percent_decode(sv_cut(&value, '='), a);
        if (sv_eq(name, key)) {
            return value.n ? percent_decode(value, a) : SV("");
        }
    }
    return SV_NULL;
}

sv percent_decode(sv s, struct arena *a) {
    if (sv_find(s, '%') == SIZE_MAX) {
        return s;
    }
    char *out = arena_alloc(a, s.n + 1);
    size_t n = 0;
    for (const char *p = s.p, *end = p + s.n; p < end;) {
        int v = *p == '%' ? escape_value(p, end) : -1;
        out[n++] = v >= 0 ? (char)v : *p;
        p += v >= 0 ? 3 : 1;
    }
    out[n] = 0;
    return sv_from(out, n);
}

sv percent_encode(sv s, const char *reserved, struct arena *a) {
    sv set = sv_cstr(reserved);
    size_t extra = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        extra += c < 0x20 || c >= 0x7f || sv_find(set, s.p[i]) != SIZE_MAX ? 2 : 0;
    }
    if (!extra) {
        return s;
    }
    char *out = arena_alloc(a, s.n + extra + 1);
    size_t n = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        if (c < 0x20 || c >= 0x7f || sv_find(set, s.p[i]) != SIZE_MAX) {
            out[n++] = '%';
            out[n++] = hex_digits[c >> 4];
            out[n++] = hex_digits[c & 15];
        } else {
            out[n++] = s.p[i];
        }
    }
    out[n] = 0;
    return sv_from(out, n);
}

/* --- authorities --- */

/* Where ":port" begins; n when there is no port. */
static size_t port_at(sv authority) {
    size_t colon = sv_rfind(authority, ':');
    if (colon == SIZE_MAX) {
        return authority.n;
    }
    size_t bracket = sv_rfind(authority, ']');
    if (bracket != SIZE_MAX && bracket > colon) {
        return authority.n; /* inside an IPv6 literal */
    }
    if (bracket == SIZE_MAX && sv_find(authority, ':') != colon) {
        return authority.n; /* a bare IPv6 address */
    }
    for (size_t i = colon + 1; i < authority.n; i++) {
        if (!ascii_isdigit(authority.p[i])) {
            return authority.n;
        }
    }
    return colon + 1 < authority.n ? colon : authority.n;
}

sv host_without_port(sv authority) { return sv_sub(authority, 0, port_at(authority)); }

bool host_port(sv authority, uint16_t *port) {
    size_t at = port_at(authority);
    uint64_t v;
    if (at == authority.n || !sv_to_u64(sv_skip(authority, at + 1), &v) || v > UINT16_MAX) {
        return false;
    }
    *port = (uint16_t)v;
    return true;
}

static const unsigned char authority_bytes[256] = {
    ['a' ... 'z'] = 1, ['A' ... 'Z'] = 1, ['0' ... '9'] = 1, ['-'] = 1, ['.'] = 1,  ['_'] = 1,
    ['~'] = 1,         ['!'] = 1,         ['$'] = 1,         ['&'] = 1, ['\''] = 1, ['('] = 1,
    [')'] = 1,         ['*'] = 1,         ['+'] = 1,         [','] = 1, [';'] = 1,  ['='] = 1,
    [':'] = 1,         ['@'] = 1,         ['['] = 1,         [']'] = 1, ['%'] = 1,
};

bool authority_valid(sv authority) {
    unsigned char ok = 1;
    for (size_t i = 0; i < authority.n; i++) {
        ok &= authority_bytes[(unsigned char)authority.p[i]];
    }
    return ok;
}
