/* HTTP/1 heads: finding the end of a header block, request and status lines, header fields, message
 * framing.
 * Threads: worker-local. Spec: RFC 9112 §2-6. Stricter than Envoy where Envoy is lenient: only CRLF
 * ends a line, single spaces part the request line, no folding in requests, one Host.
 * Not here: bodies (h1.c), what a refusal does (h1_server.c, h1_client.c). */
#include "proxy/http/h1.h"

#include "proxy/http/path.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#define BAD_REQUEST(text) ((struct h1_fault){400, "http1." text})
#define CODEC_ERROR BAD_REQUEST("codec_error")
#define FINE ((struct h1_fault){0, NULL})

/* --- end of the block --- */

/* Control bytes that end or spoil a line; HTAB is none of them. */
static inline bool is_stop(unsigned char c) { return (c < 0x20 && c != '\t') || c == 0x7f; }

/* Offset of the first stop byte at or after i; n when there is none. */
static inline size_t next_stop(const char *p, size_t i, size_t n) {
#ifdef __SSE2__
    const __m128i low = _mm_set1_epi8(0x1f);
    const __m128i tab = _mm_set1_epi8('\t');
    const __m128i del = _mm_set1_epi8(0x7f);
    for (; i + 16 <= n; i += 16) {
        __m128i x = _mm_loadu_si128((const __m128i *)(const void *)(p + i));
        __m128i ctl = _mm_cmpeq_epi8(_mm_min_epu8(x, low), x);
        __m128i stop =
            _mm_or_si128(_mm_andnot_si128(_mm_cmpeq_epi8(x, tab), ctl), _mm_cmpeq_epi8(x, del));
        unsigned mask = (unsigned)_mm_movemask_epi8(stop);
        if (mask) {
            return i + (unsigned)__builtin_ctz(mask);
        }
    }
#endif
    while (i < n && !is_stop((unsigned char)p[i])) {
        i++;
    }
    return i;
}

/* One slice of the block, `base` bytes into it. */
static enum h1_scan_result scan_slice(struct h1_scan *s, const char *p, size_t n, uint32_t base) {
    size_t i = s->pos - base;
    while (i < n) {
        if (s->is_cr) {
            if (p[i] != '\n') {
                return H1_SCAN_BAD_LINE;
            }
            s->is_cr = false;
            i++;
            s->pos = base + (uint32_t)i;
            if (s->pos - s->line == 2) {
                return H1_SCAN_END;
            }
            s->line = s->pos;
            s->lines++;
            continue;
        }
        i = next_stop(p, i, n);
        s->pos = base + (uint32_t)i;
        if (i == n) {
            break;
        }
        if (p[i] != '\r') {
            return p[i] == '\n' ? H1_SCAN_BAD_LINE : H1_SCAN_BAD_CHAR;
        }
        s->is_cr = true;
        i++;
        s->pos++;
    }
    return H1_SCAN_MORE;
}

enum h1_scan_result h1_scan(struct h1_scan *s, const struct buf *in) {
    uint32_t base = 0;
    for (size_t k = 0; k < buf_slices(in); k++) {
        struct slice sl = *buf_slice(in, k);
        if (s->pos < base + sl.n) {
            enum h1_scan_result r = scan_slice(s, sl.p, sl.n, base);
            if (r != H1_SCAN_MORE) {
                return r;
            }
        }
        base += (uint32_t)sl.n;
    }
    return H1_SCAN_MORE;
}

char *h1_copy_block(struct buf *in, size_t n, struct arena *a) {
    char *p = arena_alloc(a, n + 1);
    buf_peek(in, 0, p, n);
    p[n] = 0;
    return p;
}

/* --- request line --- */

static bool is_known_method(sv m) {
    static const sv known[] = {
        SV_INIT("GET"),        SV_INIT("POST"),       SV_INIT("PUT"),         SV_INIT("HEAD"),
        SV_INIT("DELETE"),     SV_INIT("OPTIONS"),    SV_INIT("PATCH"),       SV_INIT("CONNECT"),
        SV_INIT("TRACE"),      SV_INIT("ACL"),        SV_INIT("BIND"),        SV_INIT("CHECKOUT"),
        SV_INIT("COPY"),       SV_INIT("LINK"),       SV_INIT("LOCK"),        SV_INIT("MERGE"),
        SV_INIT("MKACTIVITY"), SV_INIT("MKCALENDAR"), SV_INIT("MKCOL"),       SV_INIT("MOVE"),
        SV_INIT("MSEARCH"),    SV_INIT("NOTIFY"),     SV_INIT("PROPFIND"),    SV_INIT("PROPPATCH"),
        SV_INIT("PURGE"),      SV_INIT("QUERY"),      SV_INIT("REBIND"),      SV_INIT("REPORT"),
        SV_INIT("SEARCH"),     SV_INIT("SOURCE"),     SV_INIT("SUBSCRIBE"),   SV_INIT("UNBIND"),
        SV_INIT("UNLINK"),     SV_INIT("UNLOCK"),     SV_INIT("UNSUBSCRIBE"),
    };
    for (unsigned i = 0; i < ARRAY_LEN(known); i++) {
        if (sv_eq(m, known[i])) {
            return true;
        }
    }
    return false;
}

bool h1_method_ok(const struct h1 *h1, sv m) {
    return is_known_method(m) || (h1->codec.opt->h1.allow_custom_methods && header_is_token(m));
}

/* "HTTP/d.d" → 10 * major + minor, or -1. */
static int version_of(sv v) {
    if (v.n != 8 || memcmp(v.p, "HTTP/", 5) != 0 || v.p[6] != '.' || !ascii_isdigit(v.p[5]) ||
        !ascii_isdigit(v.p[7])) {
        return -1;
    }
    return (v.p[5] - '0') * 10 + (v.p[7] - '0');
}

/* Visible ASCII only: the scan let HTAB and bytes above 0x7f through. */
static bool is_visible(sv s) {
    unsigned char bad = 0;
    for (size_t i = 0; i < s.n; i++) {
        unsigned char c = (unsigned char)s.p[i];
        bad |= c <= 0x20 || c >= 0x7f;
    }
    return s.n > 0 && !bad;
}

/* Host and port of an authority-form or absolute-form target; userinfo is cut off. */
static bool split_authority(sv *authority, bool needs_port) {
    size_t at = sv_rfind(*authority, '@');
    if (at != SIZE_MAX) {
        *authority = sv_skip(*authority, at + 1);
    }
    uint16_t port;
    sv host = host_without_port(*authority);
    if (host.n == 0 || !authority_valid(*authority)) {
        return false;
    }
    if (host.n == authority->n) { /* no port: then no colon may be left outside an IPv6 literal */
        return !needs_port &&
               (host.p[0] == '[' ? sv_ends(host, SV("]")) : sv_find(host, ':') == SIZE_MAX);
    }
    return host_port(*authority, &port);
}

/* scheme "://" authority [path]: RFC 9112 §3.2.2, the URI's authority overrides Host. */
static struct h1_fault parse_absolute(sv target, struct headers *h) {
    size_t colon = sv_find(target, ':');
    sv scheme = sv_sub(target, 0, colon);
    sv rest = colon == SIZE_MAX ? SV_NULL : sv_skip(target, colon);
    if (!header_is_token(scheme) || !sv_eat(&rest, SV("://"))) {
        return CODEC_ERROR;
    }
    bool is_https = sv_eq_nocase(scheme, SV("https"));
    if (!is_https && !sv_eq_nocase(scheme, SV("http"))) {
        return BAD_REQUEST("invalid_scheme");
    }
    size_t n = 0;
    while (n < rest.n && rest.p[n] != '/' && rest.p[n] != '?' && rest.p[n] != '#') {
        n++;
    }
    sv authority = sv_sub(rest, 0, n);
    if (!split_authority(&authority, false)) {
        return BAD_REQUEST("invalid_url");
    }
    sv path = sv_skip(rest, n);
    headers_add_id(h, HDR_path, path.n ? path : SV("/"));
    headers_add_id(h, HDR_authority, authority);
    headers_add_id(h, HDR_scheme, is_https ? SV("https") : SV("http"));
    return FINE;
}

static struct h1_fault parse_target(const struct h1 *h1, sv method, sv target, struct headers *h) {
    if (h1->is_connect) {
        if (!split_authority(&target, true) || sv_find(target, '@') != SIZE_MAX) {
            return BAD_REQUEST("invalid_url");
        }
        headers_add_id(h, HDR_authority, target);
        return FINE;
    }
    if (target.p[0] == '/') {
        headers_add_id(h, HDR_path, target);
        return FINE;
    }
    if (sv_eq(target, SV("*"))) {
        if (!sv_eq(method, SV("OPTIONS"))) {
            return BAD_REQUEST("invalid_url");
        }
        headers_add_id(h, HDR_path, target);
        return FINE;
    }
    if (!h1->codec.opt->h1.allow_absolute_url) {
        return BAD_REQUEST("invalid_url");
    }
    return parse_absolute(target, h);
}

static const char *line_end(const char *p, const char *end) {
    return memchr(p, '\r', (size_t)(end - p));
}

struct h1_fault h1_parse_request_line(struct h1 *h1, char **p, const char *end, struct headers *h) {
    sv line = sv_from(*p, (size_t)(line_end(*p, end) - *p));
    *p += line.n + 2;
    bool has_target = sv_find(line, ' ') != SIZE_MAX;
    sv method = sv_cut(&line, ' ');
    if (!has_target || !h1_method_ok(h1, method)) {
        return CODEC_ERROR;
    }
    bool has_version = sv_find(line, ' ') != SIZE_MAX;
    sv target = sv_cut(&line, ' ');
    int version = version_of(line);
    if (!is_visible(target) || (has_version && version < 0)) {
        return CODEC_ERROR;
    }
    if (!has_version && (target.p[0] != '/' || version_of(target) >= 0)) {
        return CODEC_ERROR;
    }
    if (version != 11 && (version != 10 || !h1->codec.opt->h1.accept_http_10)) {
        return (struct h1_fault){426, "low_version"};
    }
    h1->codec.protocol = version == 11 ? HTTP_11 : HTTP_10;
    h1->is_head = sv_eq(method, SV("HEAD"));
    h1->is_connect = sv_eq(method, SV("CONNECT"));
    headers_add_id(h, HDR_method, method);
    return parse_target(h1, method, target, h);
}

/* --- status line --- */

struct h1_fault h1_parse_status_line(struct h1 *h1, char **p, const char *end, struct headers *h) {
    sv line = sv_from(*p, (size_t)(line_end(*p, end) - *p));
    *p += line.n + 2;
    int version = version_of(sv_sub(line, 0, 8));
    if ((version != 11 && version != 10) || line.n < 12 || line.p[8] != ' ' ||
        (line.n > 12 && line.p[12] != ' ')) {
        return CODEC_ERROR;
    }
    sv code = sv_sub(line, 9, 3);
    if (code.p[0] < '1' || code.p[0] > '9' || !ascii_isdigit(code.p[1]) ||
        !ascii_isdigit(code.p[2])) {
        return CODEC_ERROR;
    }
    h1->codec.protocol = version == 11 ? HTTP_11 : HTTP_10;
    headers_add_id(h, HDR_status, code);
    return FINE;
}

/* --- fields --- */

static struct h1_fault on_content_length(sv value, struct h1_framing *f) {
    uint64_t n;
    if (f->has_length || !value.n || !sv_to_u64(value, &n)) {
        return CODEC_ERROR;
    }
    f->has_length = true;
    f->content_length = n;
    return FINE;
}

static void on_transfer_encoding(sv value, struct h1_framing *f) {
    f->is_te_unknown |= f->has_te || !sv_eq_nocase(value, SV("chunked"));
    f->has_te = f->is_chunked = true;
}

/* Both lengths first, whatever the coding is: so Envoy tells. */
struct h1_fault h1_check_codings(const struct h1 *h1, const struct h1_framing *f) {
    if (f->has_te && f->has_length && !h1->codec.opt->h1.allow_chunked_length) {
        return (struct h1_fault){400, "http1.content_length_and_chunked_not_allowed"};
    }
    if (f->is_te_unknown) {
        return (struct h1_fault){501, "http1.invalid_transfer_encoding"};
    }
    return FINE;
}

static void on_connection(sv value, struct h1_framing *f) {
    f->has_connection = true;
    while (value.n) {
        sv token = sv_trim(sv_cut(&value, ','));
        f->is_close |= sv_eq_nocase(token, SV("close"));
        f->is_keep_alive |= sv_eq_nocase(token, SV("keep-alive"));
        f->is_upgrade_token |= sv_eq_nocase(token, SV("upgrade"));
    }
}

/* Request: Host becomes :authority; that of an absolute-form target wins. */
static struct h1_fault on_host(sv value, struct headers *h, struct h1_framing *f) {
    if (f->has_host) {
        return CODEC_ERROR;
    }
    if (!authority_valid(value)) {
        return (struct h1_fault){400, "http.invalid_authority"};
    }
    f->has_host = true;
    if (!headers_find(h, HDR_authority)) {
        headers_add_id(h, HDR_authority, value.p ? value : SV(""));
    }
    return FINE;
}

/* Fields that would change framing or routing if a trailer could set them. */
static bool is_banned_trailer(enum header_id id) {
    switch ((int)id) {
    case HDR_content_length:
    case HDR_transfer_encoding:
    case HDR_host:
    case HDR_connection:
    case HDR_keep_alive:
    case HDR_proxy_connection:
    case HDR_upgrade:
    case HDR_te:
    case HDR_trailer:
        return true;
    default:
        return false;
    }
}

/* The framing side of one field. *keep false: it is not for the header list. */
static struct h1_fault note_field(const struct h1 *h1, enum header_id id, sv value,
                                  struct headers *h, struct h1_framing *f, bool *keep) {
    switch ((int)id) {
    case HDR_content_length:
        return on_content_length(value, f);
    case HDR_transfer_encoding:
        on_transfer_encoding(value, f);
        return FINE;
    case HDR_connection:
        on_connection(value, f);
        return FINE;
    case HDR_upgrade:
        f->has_upgrade = true;
        return FINE;
    case HDR_host:
        if (!h1->codec.is_server) {
            return FINE;
        }
        *keep = false;
        return on_host(value, h, f);
    default:
        return FINE;
    }
}

/* RFC 9112 §5.2: a folded response field is joined by spaces, a folded request is refused. Returns
 * the field's end. */
static const char *unfold(char *p, const char *eol, const char *end) {
    while (eol + 2 < end && (eol[2] == ' ' || eol[2] == '\t')) {
        char *cr = p + (eol - p);
        cr[0] = cr[1] = ' ';
        eol = line_end(eol, end);
    }
    return eol;
}

/* Underscores in a name, by configuration. *keep false: dropped. */
static struct h1_fault check_underscore(const struct h1 *h1, sv name, bool *keep) {
    enum underscores_action action = h1->codec.opt->underscores;
    if (action == UNDERSCORES_ALLOW || !h1->codec.is_server || sv_find(name, '_') == SIZE_MAX) {
        return FINE;
    }
    *keep = false;
    if (action == UNDERSCORES_DROP) {
        h1_count(h1, H1_dropped_headers_with_underscores);
        return FINE;
    }
    h1_count(h1, H1_requests_rejected_with_underscores_in_headers);
    return BAD_REQUEST("unexpected_underscore");
}

/* A name as received, kept in front of its copy that becomes lower case: for encoders that preserve
 * the case. */
static char *keep_case(struct headers *h, const char *name, size_t n) {
    char *p = arena_alloc(h->arena, 2 * n + 1);
    memcpy(p, name, n);
    memcpy(p + n, name, n);
    p[2 * n] = 0;
    return p + n;
}

/* One field whose syntax is fine. */
static struct h1_fault add_field(struct h1 *h1, enum header_id id, sv name, sv value,
                                 struct headers *h, struct h1_framing *f) {
    bool keep = true;
    struct h1_fault fault = check_underscore(h1, name, &keep);
    if (fault.status) {
        return fault;
    }
    if (!f) {
        keep = keep && !is_banned_trailer(id);
    } else if (id != HDR_OTHER) {
        fault = note_field(h1, id, value, h, f, &keep);
    }
    if (fault.status || !keep) {
        return fault;
    }
    if (!headers_add(h, id, name, value)) {
        return (struct h1_fault){431, "http1.too_many_headers"};
    }
    if (h1->codec.opt->h1.header_case == H1_CASE_PRESERVE) {
        h->v[h->n - 1].flags |= HEADER_CASE_KEPT;
    }
    return FINE;
}

struct h1_fault h1_parse_fields(struct h1 *h1, char *p, const char *end, struct headers *h,
                                struct h1_framing *f) {
    const struct codec_options *o = h1->codec.opt;
    bool preserve = o->h1.header_case == H1_CASE_PRESERVE;
    unsigned count = 0;
    while (*p != '\r') {
        if (++count > o->max_headers_count) {
            return (struct h1_fault){431, "http1.too_many_headers"};
        }
        const char *eol = line_end(p, end);
        size_t room = (size_t)(eol - p);
        char *name = p;
        if (UNLIKELY(preserve)) {
            size_t colon = sv_find(sv_from(p, room), ':');
            room = colon < room ? colon : room;
            name = keep_case(h, p, room);
        }
        enum header_id id;
        size_t n = header_name_scan(name, room, &id);
        if (n == 0 || p[n] != ':') {
            return CODEC_ERROR;
        }
        if (UNLIKELY(eol[2] == ' ' || eol[2] == '\t')) {
            if (h1->codec.is_server) {
                return CODEC_ERROR;
            }
            eol = unfold(p, eol, end);
        }
        sv value = sv_trim(sv_from(p + n + 1, (size_t)(eol - p) - n - 1));
        struct h1_fault fault = add_field(h1, id, sv_from(name, n), value, h, f);
        if (UNLIKELY(fault.status)) {
            return fault;
        }
        p += (eol - p) + 2;
    }
    return FINE;
}

/* --- Connection --- */

#define NOMINATED_MAX 10u /* tokens of Connection */
#define TE_VALUE_MAX 256u

/* May this header be named by Connection? Its removal would hide where the request came from. */
static bool is_protected(sv token) {
    return sv_eq_nocase(token, SV("x-forwarded-for")) ||
           sv_eq_nocase(token, SV("x-forwarded-host")) ||
           sv_eq_nocase(token, SV("x-forwarded-proto")) || sv_starts(token, SV(":"));
}

enum nominee { NOMINEE_OPTION, NOMINEE_KEPT, NOMINEE_DROPPED, NOMINEE_REFUSED };
static enum nominee treat_nominee(struct headers *h, sv token) {
    if (sv_eq_nocase(token, SV("close")) || sv_eq_nocase(token, SV("keep-alive")) ||
        sv_eq_nocase(token, SV("upgrade")) || sv_eq_nocase(token, SV("http2-settings"))) {
        return NOMINEE_OPTION;
    }
    if (is_protected(token)) {
        return NOMINEE_REFUSED;
    }
    if (sv_eq_nocase(token, SV("te"))) {
        sv te = headers_get(h, HDR_te);
        if (te.n >= TE_VALUE_MAX) {
            return NOMINEE_REFUSED;
        }
        if (header_te_has_trailers(te)) {
            headers_set(h, HDR_te, SV("trailers"));
            return NOMINEE_KEPT;
        }
    }
    sv name = arena_sv(h->arena, token);
    char *lower = (char *)(uintptr_t)name.p;
    enum header_id id;
    if (name.n && header_name_scan(lower, name.n, &id) == name.n) {
        headers_remove_name(h, id == HDR_host ? header_name(HDR_authority) : name);
    }
    return NOMINEE_DROPPED;
}

bool h1_sanitise_connection(struct headers *h) {
    sv value = headers_joined(h, HDR_connection, SV_NULL, h->arena);
    char *out = arena_alloc(h->arena, value.n + 1);
    size_t n = 0;
    unsigned count = 0;
    bool dropped = false;
    while (value.n) {
        sv token = sv_trim(sv_cut(&value, ','));
        if (!token.n) {
            continue;
        }
        if (++count >= NOMINATED_MAX) {
            return false;
        }
        enum nominee what = treat_nominee(h, token);
        if (what == NOMINEE_REFUSED) {
            return false;
        }
        if (what == NOMINEE_DROPPED) {
            dropped = true;
            continue;
        }
        if (n) {
            out[n++] = ',';
        }
        memcpy(out + n, token.p, token.n);
        n += token.n;
    }
    if (!dropped) {
        return true;
    }
    if (n) {
        headers_set(h, HDR_connection, sv_from(out, n));
    } else {
        headers_remove(h, HDR_connection);
    }
    return true;
}
