/* ClientHello reading by consuming views: every length is checked against what is left, nothing is
 * trusted.
 * Threads: any. Spec: see client_hello.h. Not here: what to do with the result
 * (listener/tls_inspector.c). */
#include "filters/common/client_hello.h"

#include <openssl/md5.h>
#include <openssl/sha.h>
#include <stdlib.h>

#include "proxy/base/buf.h"

#define RECORD_HEAD 5u
#define RECORD_MAX 16384u /* plaintext */
#define RECORDS_MAX 64u   /* a ClientHello in smaller pieces than that is refused */
#define MESSAGE_HEAD 4u
#define CONTENT_HANDSHAKE 22
#define HANDSHAKE_CLIENT_HELLO 1
#define RANDOM_BYTES 32u
#define SESSION_ID_MAX 32u
#define SERVER_NAME_MAX 255u

enum {
    EXT_SERVER_NAME = 0,
    EXT_GROUPS = 10,
    EXT_POINT_FORMATS = 11,
    EXT_SIGNATURES = 13,
    EXT_ALPN = 16,
    EXT_VERSIONS = 43
};

/* ---- consuming views ---- */

static bool take(sv *s, size_t n, sv *out) {
    if (s->n < n) {
        return false;
    }
    *out = sv_sub(*s, 0, n);
    *s = sv_skip(*s, n);
    return true;
}

static bool take_u8(sv *s, unsigned *v) {
    sv b;
    if (!take(s, 1, &b)) {
        return false;
    }
    *v = (unsigned char)b.p[0];
    return true;
}

static bool take_u16(sv *s, unsigned *v) {
    sv b;
    if (!take(s, 2, &b)) {
        return false;
    }
    *v = (unsigned)(unsigned char)b.p[0] << 8 | (unsigned char)b.p[1];
    return true;
}

static bool take_vec8(sv *s, sv *out) {
    unsigned n;
    return take_u8(s, &n) && take(s, n, out);
}

static bool take_vec16(sv *s, sv *out) {
    unsigned n;
    return take_u16(s, &n) && take(s, n, out);
}

/* ---- records → message ---- */

struct record {
    sv payload; /* as much of it as is there */
    size_t n;   /* its full length */
};

static enum client_hello_result read_record(sv *stream, struct record *r) {
    const unsigned char *p = (const unsigned char *)stream->p;
    if (stream->n >= 1 && p[0] != CONTENT_HANDSHAKE) {
        return CLIENT_HELLO_NOT_TLS;
    }
    if (stream->n >= 2 && p[1] != 3) {
        return CLIENT_HELLO_NOT_TLS;
    }
    if (stream->n < RECORD_HEAD) {
        return CLIENT_HELLO_MORE;
    }
    r->n = (size_t)p[3] << 8 | p[4];
    if (r->n == 0 || r->n > RECORD_MAX) {
        return CLIENT_HELLO_MALFORMED;
    }
    *stream = sv_skip(*stream, RECORD_HEAD);
    r->payload = sv_sub(*stream, 0, r->n);
    *stream = sv_skip(*stream, r->payload.n);
    return CLIENT_HELLO_OK;
}

/* Length of the message body, from its first bytes. */
static enum client_hello_result message_length(sv head, size_t max_bytes, size_t *n) {
    const unsigned char *p = (const unsigned char *)head.p;
    if (head.n >= 1 && p[0] != HANDSHAKE_CLIENT_HELLO) {
        return CLIENT_HELLO_MALFORMED;
    }
    if (head.n < MESSAGE_HEAD) {
        return CLIENT_HELLO_MORE;
    }
    *n = (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
    return *n + MESSAGE_HEAD + RECORD_HEAD > max_bytes ? CLIENT_HELLO_TOO_LARGE : CLIENT_HELLO_OK;
}

/* The first `max` bytes of the records' payloads, copied to `to` (NULL: not copied). Fewer: *why
 * tells. */
static size_t copy_payload(sv stream, char *to, size_t max, size_t *stream_bytes,
                           enum client_hello_result *why) {
    size_t have = 0;
    sv rest = stream;
    for (unsigned i = 0; have < max; i++) {
        struct record r;
        *why = i < RECORDS_MAX ? read_record(&rest, &r) : CLIENT_HELLO_MALFORMED;
        if (*why != CLIENT_HELLO_OK) {
            *why = *why == CLIENT_HELLO_NOT_TLS && i ? CLIENT_HELLO_MALFORMED : *why;
            return have;
        }
        size_t n = r.payload.n < max - have ? r.payload.n : max - have;
        if (to && n) {
            memcpy(to + have, r.payload.p, n);
        }
        have += n;
        *stream_bytes = (size_t)(r.payload.p - stream.p) + n;
        if (have < max && r.payload.n < r.n) {
            *why = CLIENT_HELLO_MORE;
            return have;
        }
    }
    return have;
}

/* The message over several records. Gathered only when its last byte is there: a slow sender costs
 * no memory. */
static enum client_hello_result gather(sv stream, size_t max_bytes, struct arena *a, sv *body,
                                       size_t *bytes) {
    char head[MESSAGE_HEAD];
    size_t n;
    enum client_hello_result why = CLIENT_HELLO_OK;
    size_t have = copy_payload(stream, head, MESSAGE_HEAD, bytes, &why);
    enum client_hello_result got = message_length(sv_from(head, have), max_bytes, &n);
    if (got != CLIENT_HELLO_OK) {
        return got == CLIENT_HELLO_MORE ? why : got;
    }
    if (copy_payload(stream, NULL, MESSAGE_HEAD + n, bytes, &why) < MESSAGE_HEAD + n) {
        return why;
    }
    char *whole = arena_alloc(a, MESSAGE_HEAD + n);
    copy_payload(stream, whole, MESSAGE_HEAD + n, bytes, &why);
    *body = sv_from(whole + MESSAGE_HEAD, n);
    return CLIENT_HELLO_OK;
}

/* The usual case, one record, is looked at in place. */
static enum client_hello_result find_body(sv stream, size_t max_bytes, struct arena *a, sv *body,
                                          size_t *bytes) {
    sv rest = stream;
    struct record r;
    enum client_hello_result got = read_record(&rest, &r);
    if (got != CLIENT_HELLO_OK) {
        return got;
    }
    size_t n;
    got = message_length(r.payload, max_bytes, &n);
    if (got == CLIENT_HELLO_OK && n + MESSAGE_HEAD <= r.n) {
        *body = sv_sub(r.payload, MESSAGE_HEAD, n);
        *bytes = RECORD_HEAD + MESSAGE_HEAD + n;
        return body->n == n ? CLIENT_HELLO_OK : CLIENT_HELLO_MORE;
    }
    bool is_partial = got == CLIENT_HELLO_OK || (got == CLIENT_HELLO_MORE && r.payload.n == r.n);
    return is_partial ? gather(stream, max_bytes, a, body, bytes) : got;
}

/* ---- message → views ---- */

static bool read_server_name(sv ext, struct client_hello *out) {
    sv list, name;
    unsigned type;
    if (!take_vec16(&ext, &list) || ext.n || !take_u8(&list, &type) || type != 0 ||
        !take_vec16(&list, &name) || list.n) {
        return false;
    }
    if (name.n == 0 || name.n > SERVER_NAME_MAX || sv_find(name, '\0') != SIZE_MAX) {
        return false;
    }
    out->server_name = name;
    return true;
}

bool client_hello_next_alpn(sv *list, sv *name) { return list->n && take_vec8(list, name); }

static bool read_alpn(sv ext, struct client_hello *out) {
    sv list;
    if (!take_vec16(&ext, &list) || ext.n || list.n == 0) {
        return false;
    }
    out->alpn = list;
    while (list.n) {
        sv name;
        if (!take_vec8(&list, &name) || name.n == 0) {
            return false;
        }
    }
    return true;
}

static bool read_u16_list(sv ext, sv *out) {
    return take_vec16(&ext, out) && !ext.n && out->n % 2 == 0;
}

static bool read_extension(unsigned type, sv ext, struct client_hello *out) {
    switch (type) {
    case EXT_SERVER_NAME:
        return !out->server_name.n && read_server_name(ext, out);
    case EXT_ALPN:
        return !out->alpn.n && read_alpn(ext, out);
    case EXT_GROUPS:
        return read_u16_list(ext, &out->groups);
    case EXT_SIGNATURES:
        return read_u16_list(ext, &out->signature_algorithms);
    case EXT_POINT_FORMATS:
        return take_vec8(&ext, &out->point_formats) && !ext.n;
    case EXT_VERSIONS:
        return take_vec8(&ext, &out->supported_versions) && !ext.n &&
               out->supported_versions.n % 2 == 0;
    default:
        return true;
    }
}

static bool read_fixed_part(sv *body, struct client_hello *out) {
    sv skipped;
    unsigned version;
    if (!take_u16(body, &version) || !take(body, RANDOM_BYTES, &skipped)) {
        return false;
    }
    out->version = (uint16_t)version;
    return take_vec8(body, &skipped) && skipped.n <= SESSION_ID_MAX;
}

static bool read_suites(sv *body, struct client_hello *out) {
    sv compression;
    if (!take_vec16(body, &out->ciphers) || out->ciphers.n == 0 || out->ciphers.n % 2) {
        return false;
    }
    return take_vec8(body, &compression) && compression.n;
}

static bool read_body(sv body, struct client_hello *out) {
    if (!read_fixed_part(&body, out) || !read_suites(&body, out)) {
        return false;
    }
    if (body.n == 0) {
        return true; /* before extensions were invented */
    }
    if (!take_vec16(&body, &out->extensions) || body.n) {
        return false;
    }
    for (sv rest = out->extensions; rest.n;) {
        unsigned type;
        sv ext;
        if (!take_u16(&rest, &type) || !take_vec16(&rest, &ext) ||
            !read_extension(type, ext, out)) {
            return false;
        }
    }
    return true;
}

enum client_hello_result client_hello_read(sv stream, size_t max_bytes, struct arena *a,
                                           struct client_hello *out) {
    sv body;
    *out = (struct client_hello){0};
    if (stream.n == 0) {
        return CLIENT_HELLO_MORE;
    }
    enum client_hello_result got = find_body(stream, max_bytes, a, &body, &out->bytes);
    if (got == CLIENT_HELLO_OK && !read_body(body, out)) {
        got = CLIENT_HELLO_MALFORMED;
    }
    return got == CLIENT_HELLO_MORE && stream.n >= max_bytes ? CLIENT_HELLO_TOO_LARGE : got;
}

/* ---- fingerprints ---- */

/* RFC 8701: values clients send only to keep servers honest. */
static bool is_grease(unsigned v) { return (v & 0x0f0f) == 0x0a0a && v >> 8 == (v & 0xff); }

static sv hex(const uint8_t *p, size_t n, struct arena *a) {
    static const char digits[] = "0123456789abcdef";
    char *out = arena_alloc(a, n * 2);
    for (size_t i = 0; i < n; i++) {
        out[2 * i] = digits[p[i] >> 4];
        out[2 * i + 1] = digits[p[i] & 15];
    }
    return sv_from(out, n * 2);
}

static void ja3_list(struct buf *out, sv list, bool is_u16) {
    const char *separator = "";
    unsigned v;
    while (is_u16 ? take_u16(&list, &v) : take_u8(&list, &v)) {
        if (!is_u16 || !is_grease(v)) {
            buf_printf(out, "%s%u", separator, v);
            separator = "-";
        }
    }
}

static void ja3_extensions(struct buf *out, sv list) {
    const char *separator = "";
    unsigned type;
    sv ext;
    while (take_u16(&list, &type) && take_vec16(&list, &ext)) {
        if (!is_grease(type)) {
            buf_printf(out, "%s%u", separator, type);
            separator = "-";
        }
    }
}

sv client_hello_ja3(const struct client_hello *h, struct arena *a) {
    BUF_AUTO struct buf text;
    buf_init(&text);
    buf_printf(&text, "%u,", h->version);
    ja3_list(&text, h->ciphers, true);
    buf_lit(&text, ",");
    ja3_extensions(&text, h->extensions);
    buf_lit(&text, ",");
    ja3_list(&text, h->groups, true);
    buf_lit(&text, ",");
    ja3_list(&text, h->point_formats, false);
    sv whole = buf_pullup(&text, buf_len(&text));
    uint8_t digest[MD5_DIGEST_LENGTH];
    MD5((const uint8_t *)whole.p, whole.n, digest);
    return hex(digest, sizeof(digest), a);
}

static const char *ja4_version(const struct client_hello *h) {
    unsigned best = 0, v;
    for (sv list = h->supported_versions; take_u16(&list, &v);) {
        best = !is_grease(v) && v > best ? v : best;
    }
    switch (best ? best : h->version) {
    case 0x0304:
        return "13";
    case 0x0303:
        return "12";
    case 0x0302:
        return "11";
    case 0x0301:
        return "10";
    case 0x0300:
        return "s3";
    case 0x0002:
        return "s2";
    default:
        return "00";
    }
}

static int cmp_u16(const void *a, const void *b) {
    return (int)*(const uint16_t *)a - (int)*(const uint16_t *)b;
}

/* "002f,0035,…" of sorted values. */
static void ja4_values(struct buf *out, uint16_t *v, size_t n) {
    qsort(v, n, sizeof(*v), cmp_u16);
    for (size_t i = 0; i < n; i++) {
        buf_printf(out, "%s%04x", i ? "," : "", v[i]);
    }
}

/* First 12 hex digits of the text's SHA-256; zeros for none. */
static void ja4_hash(struct buf *out, struct buf *text, struct arena *a) {
    if (buf_empty(text)) {
        buf_lit(out, "_000000000000");
        return;
    }
    sv whole = buf_pullup(text, buf_len(text));
    uint8_t digest[SHA256_DIGEST_LENGTH];
    SHA256((const uint8_t *)whole.p, whole.n, digest);
    buf_lit(out, "_");
    buf_append_sv(out, hex(digest, 6, a));
}

static void ja4_alpn(struct buf *out, sv list) {
    static const char digits[] = "0123456789abcdef";
    sv name;
    if (!client_hello_next_alpn(&list, &name)) {
        buf_lit(out, "00");
        return;
    }
    char first = name.p[0], last = name.p[name.n - 1];
    bool is_text = ascii_isalnum(first) && ascii_isalnum(last);
    char ends[2] = {is_text ? first : digits[(unsigned char)first >> 4],
                    is_text ? last : digits[(unsigned char)last & 15]};
    buf_append(out, ends, 2);
}

sv client_hello_ja4(const struct client_hello *h, struct arena *a) {
    BUF_AUTO struct buf out, text;
    buf_init(&out);
    buf_init(&text);
    uint16_t *v = arena_alloc(a, h->ciphers.n + h->extensions.n);
    size_t ciphers = 0, extensions = 0, kept = 0;
    unsigned value;
    sv ext;
    for (sv list = h->ciphers; take_u16(&list, &value);) {
        if (!is_grease(value)) {
            v[ciphers++] = (uint16_t)value;
        }
    }
    ja4_values(&text, v, ciphers);
    bool has_sni = false;
    for (sv list = h->extensions; take_u16(&list, &value) && take_vec16(&list, &ext);) {
        has_sni = has_sni || value == EXT_SERVER_NAME;
        extensions += !is_grease(value);
        if (!is_grease(value) && value != EXT_SERVER_NAME && value != EXT_ALPN) {
            v[kept++] = (uint16_t)value;
        }
    }
    buf_printf(&out, "t%s%c%02zu%02zu", ja4_version(h), has_sni ? 'd' : 'i',
               ciphers < 99 ? ciphers : 99, extensions < 99 ? extensions : 99);
    ja4_alpn(&out, h->alpn);
    ja4_hash(&out, &text, a);
    buf_clear(&text);
    ja4_values(&text, v, kept);
    const char *separator = "_";
    for (sv list = h->signature_algorithms; take_u16(&list, &value); separator = ",") {
        buf_printf(&text, "%s%04x", separator, value);
    }
    ja4_hash(&out, &text, a);
    return arena_sv(a, buf_pullup(&out, buf_len(&out)));
}
