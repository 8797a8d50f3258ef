/* HTTP/1 encoder: heads in one reservation of the connection's buffer, bodies moved, chunk framing
 * around them.
 * Threads: worker-local. Spec: RFC 9112 §3, §4, §7.1. Framing headers are ours alone:
 * transfer-encoding of the header list is never written, and no byte that could end a line leaves
 * inside a value.
 * Not here: which coding a message gets (h1_server.c, h1_client.c). */
#include "proxy/http/h1.h"

#define HEAD_EXTRA_BYTES 160u /* status line, connection, framing header, final CRLF */

static const char *const reasons[600] = {
    [100] = "Continue",
    [101] = "Switching Protocols",
    [102] = "Processing",
    [103] = "Early Hints",
    [200] = "OK",
    [201] = "Created",
    [202] = "Accepted",
    [203] = "Non-Authoritative Information",
    [204] = "No Content",
    [205] = "Reset Content",
    [206] = "Partial Content",
    [207] = "Multi-Status",
    [208] = "Already Reported",
    [226] = "IM Used",
    [300] = "Multiple Choices",
    [301] = "Moved Permanently",
    [302] = "Found",
    [303] = "See Other",
    [304] = "Not Modified",
    [305] = "Use Proxy",
    [307] = "Temporary Redirect",
    [308] = "Permanent Redirect",
    [400] = "Bad Request",
    [401] = "Unauthorized",
    [402] = "Payment Required",
    [403] = "Forbidden",
    [404] = "Not Found",
    [405] = "Method Not Allowed",
    [406] = "Not Acceptable",
    [407] = "Proxy Authentication Required",
    [408] = "Request Timeout",
    [409] = "Conflict",
    [410] = "Gone",
    [411] = "Length Required",
    [412] = "Precondition Failed",
    [413] = "Payload Too Large",
    [414] = "URI Too Long",
    [415] = "Unsupported Media Type",
    [416] = "Range Not Satisfiable",
    [417] = "Expectation Failed",
    [421] = "Misdirected Request",
    [422] = "Unprocessable Entity",
    [423] = "Locked",
    [424] = "Failed Dependency",
    [425] = "Too Early",
    [426] = "Upgrade Required",
    [428] = "Precondition Required",
    [429] = "Too Many Requests",
    [431] = "Request Header Fields Too Large",
    [451] = "Unavailable For Legal Reasons",
    [500] = "Internal Server Error",
    [501] = "Not Implemented",
    [502] = "Bad Gateway",
    [503] = "Service Unavailable",
    [504] = "Gateway Timeout",
    [505] = "HTTP Version Not Supported",
    [506] = "Variant Also Negotiates",
    [507] = "Insufficient Storage",
    [508] = "Loop Detected",
    [510] = "Not Extended",
    [511] = "Network Authentication Required",
    [599] = "Last Unassigned Server Error Code",
};

static inline char *put(char *p, sv s) {
    memcpy(p, s.n ? s.p : "", s.n);
    return p + s.n;
}
#define PUT_LIT(p, lit) (memcpy((p), (lit), sizeof(lit) - 1), (p) + sizeof(lit) - 1)

static void proper_case(char *p, size_t n) {
    bool up = true;
    for (size_t i = 0; i < n; i++) {
        if (up && p[i] >= 'a' && p[i] <= 'z') {
            p[i] = (char)(p[i] - 32);
        }
        up = p[i] == '-' || p[i] == '_';
    }
}

static char *put_name(char *p, const struct header *it, enum h1_header_case how) {
    if (LIKELY(how == H1_CASE_LOWER)) {
        return put(p, it->name);
    }
    if (how == H1_CASE_PRESERVE) {
        return put(p, it->flags & HEADER_CASE_KEPT ? sv_from(it->name.p - it->name.n, it->name.n)
                                                   : it->name);
    }
    char *end = put(p, it->name);
    proper_case(p, it->name.n);
    return end;
}

/* A value that some filter made must not be able to end its line. */
static void defuse(char *p, size_t n) {
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)p[i];
        if ((c < 0x20 && c != '\t') || c == 0x7f) {
            p[i] = ' ';
        }
    }
}

static char *put_field(char *p, const struct header *it, enum h1_header_case how) {
    p = PUT_LIT(put_name(p, it, how), ": ");
    char *value = p;
    p = put(p, it->value);
    if (UNLIKELY(!header_value_valid(it->value))) {
        defuse(value, it->value.n);
    }
    return PUT_LIT(p, "\r\n");
}

static char *put_own(char *p, sv name, sv value, enum h1_header_case how) {
    struct header it = {.name = name, .value = value};
    return put_field(p, &it, how);
}

/* Room of the fields, each with ": " and CRLF. */
static size_t fields_room(const struct headers *h) {
    return h->bytes + 4u * h->n + HEAD_EXTRA_BYTES;
}

struct field_filter {
    bool skip_connection, skip_length;
};

static char *put_fields(char *p, const struct headers *h, struct field_filter skip,
                        enum h1_header_case how) {
    HEADERS_FOREACH (it, h) {
        switch (it->id) {
        case HDR_transfer_encoding:
        case HDR_host: /* :authority becomes host */
            continue;
        case HDR_connection:
            if (skip.skip_connection) {
                continue;
            }
            break;
        case HDR_content_length:
            if (skip.skip_length) {
                continue;
            }
            break;
        default:
            if (UNLIKELY(it->name.n == 0 || it->name.p[0] == ':')) {
                continue;
            }
        }
        p = put_field(p, it, how);
    }
    return p;
}

static char *put_coding(char *p, enum h1_coding coding, enum h1_header_case how) {
    switch (coding) {
    case H1_CODE_NONE:
        return p;
    case H1_CODE_CHUNKED:
        return put_own(p, SV("transfer-encoding"), SV("chunked"), how);
    case H1_CODE_ZERO:
        return put_own(p, SV("content-length"), SV("0"), how);
    }
    return p;
}

static char *put_status_line(char *p, unsigned status, bool is_10) {
    if (status == 200 && !is_10) {
        return PUT_LIT(p, "HTTP/1.1 200 OK\r\n");
    }
    p = is_10 ? PUT_LIT(p, "HTTP/1.0 ") : PUT_LIT(p, "HTTP/1.1 ");
    *p++ = (char)('0' + status / 100 % 10);
    *p++ = (char)('0' + status / 10 % 10);
    *p++ = (char)('0' + status % 10);
    *p++ = ' ';
    const char *reason =
        status < ARRAY_LEN(reasons) && reasons[status] ? reasons[status] : "Unknown";
    return PUT_LIT(put(p, sv_cstr(reason)), "\r\n");
}

void h1_encode_response_head(struct h1 *h1, const struct headers *h, unsigned status,
                             enum h1_coding coding, bool is_10) {
    enum h1_header_case how = h1->codec.opt->h1.header_case;
    struct buf *out = conn_out(h1->codec.conn);
    char *start = buf_reserve(out, fields_room(h));
    bool is_interim = status < 200;
    bool close = h1->close_after && !is_interim && !(h1->is_connect && status / 100 == 2);
    bool keep = is_10 && !close && h1->is_10_keep_alive;
    char *p = put_status_line(start, status, is_10);
    struct field_filter skip = {.skip_connection = close || keep,
                                .skip_length = is_interim || status == 204};
    p = put_fields(p, h, skip, how);
    if (close) {
        p = put_own(p, SV("connection"), SV("close"), how);
    } else if (keep) {
        p = put_own(p, SV("connection"), SV("keep-alive"), how);
    }
    p = PUT_LIT(put_coding(p, coding, how), "\r\n");
    h1->stream.tx_header_bytes += (uint64_t)(p - start);
    buf_commit(out, (size_t)(p - start));
}

/* The request target: RFC 9112 §3.2. */
static char *put_target(char *p, const struct h1 *h1, const struct headers *h) {
    sv authority = headers_get(h, HDR_authority);
    if (h1->is_connect) {
        return put(p, authority);
    }
    sv path = headers_get(h, HDR_path);
    if (h1->codec.opt->h1.send_fully_qualified_url && authority.n && path.n && path.p[0] == '/') {
        sv scheme = headers_get(h, HDR_scheme);
        p = PUT_LIT(put(p, scheme.n ? scheme : SV("http")), "://");
        p = put(p, authority);
    }
    return put(p, path.n ? path : SV("/"));
}

void h1_encode_request_head(struct h1 *h1, const struct headers *h, enum h1_coding coding) {
    enum h1_header_case how = h1->codec.opt->h1.header_case;
    struct buf *out = conn_out(h1->codec.conn);
    /* The authority may be written twice, in the target and as host. */
    char *start = buf_reserve(out, fields_room(h) + headers_get(h, HDR_authority).n);
    sv protocol = headers_get(h, HDR_protocol);
    char *p = put(start, protocol.n ? SV("GET") : headers_get(h, HDR_method));
    *p++ = ' ';
    char *target = p;
    p = put_target(p, h1, h);
    for (char *c = target; c < p; c++) { /* h2 lets bytes through that would break our line */
        if (UNLIKELY((unsigned char)*c <= 0x20 || *c == 0x7f)) {
            *c = '_';
        }
    }
    p = PUT_LIT(p, " HTTP/1.1\r\n");
    const struct header *authority = headers_find(h, HDR_authority);
    if (authority) {
        p = put_own(p, SV("host"), authority->value, how);
    }
    bool own_connection = h1->close_after || protocol.n;
    p = put_fields(p, h, (struct field_filter){.skip_connection = own_connection}, how);
    if (protocol.n) { /* RFC 8441 */
        p = put_own(p, SV("connection"), SV("Upgrade"), how);
        p = put_own(p, SV("upgrade"), protocol, how);
    } else if (h1->close_after) {
        p = put_own(p, SV("connection"), SV("close"), how);
    }
    p = PUT_LIT(put_coding(p, coding, how), "\r\n");
    h1->stream.tx_header_bytes += (uint64_t)(p - start);
    buf_commit(out, (size_t)(p - start));
}

/* --- bodies --- */

/* Short data is copied behind what is there already: one write, and no received chunk is pinned. */
static void put_data(struct buf *out, struct buf *data) {
    if (buf_empty(data)) {
        return;
    }
    if (buf_len(data) > BUF_COPY_MAX) {
        buf_move(out, data);
        return;
    }
    char *p = buf_reserve(out, buf_len(data));
    size_t n = buf_peek(data, 0, p, buf_len(data));
    buf_commit(out, n);
    buf_clear(data);
}

static size_t put_chunk_size(char *p, uint64_t n) {
    static const char digits[] = "0123456789abcdef";
    char tmp[16];
    size_t k = 0;
    do {
        tmp[k++] = digits[n & 15];
        n >>= 4;
    } while (n);
    for (size_t i = 0; i < k; i++) {
        p[i] = tmp[k - 1 - i];
    }
    p[k] = '\r';
    p[k + 1] = '\n';
    return k + 2;
}

static void encode_chunk(struct buf *out, struct buf *data, bool end_stream) {
    if (!buf_empty(data)) {
        char *p = buf_reserve(out, 20);
        buf_commit(out, put_chunk_size(p, buf_len(data)));
        put_data(out, data);
        if (end_stream) {
            buf_lit(out, "\r\n0\r\n\r\n");
        } else {
            buf_lit(out, "\r\n");
        }
    } else if (end_stream) {
        buf_lit(out, "0\r\n\r\n");
    }
}

/* No more bytes than were announced; fewer make the message incomplete, which only a close can
 * tell. */
static void encode_counted(struct h1 *h1, struct buf *out, struct buf *data, bool end_stream) {
    if (buf_len(data) > h1->tx_left) {
        h1->close_after = true;
        struct buf rest;
        buf_init(&rest);
        buf_move_n(&rest, data, (size_t)h1->tx_left);
        buf_clear(data);
        buf_move(data, &rest);
        buf_fini(&rest);
    }
    h1->tx_left -= buf_len(data);
    put_data(out, data);
    if (end_stream && h1->tx_left) {
        h1->close_after = true;
    }
}

void h1_encode_data(struct h1 *h1, struct buf *data, bool end_stream) {
    struct buf *out = conn_out(h1->codec.conn);
    size_t before = buf_len(out);
    switch ((enum h1_tx)h1->tx) {
    case H1_TX_LENGTH:
        encode_counted(h1, out, data, end_stream);
        break;
    case H1_TX_CHUNKED:
        encode_chunk(out, data, end_stream);
        break;
    case H1_TX_CLOSE:
    case H1_TX_RAW:
        put_data(out, data);
        break;
    case H1_TX_NO_BODY:
    case H1_TX_HEAD:
    case H1_TX_UPGRADE:
    case H1_TX_DONE:
        buf_clear(data);
        break;
    }
    h1->stream.tx_body_bytes += buf_len(out) - before;
}

void h1_encode_trailers(struct h1 *h1, const struct headers *h) {
    struct buf *out = conn_out(h1->codec.conn);
    if (h1->tx != H1_TX_CHUNKED) {
        h1->close_after |= h1->tx == H1_TX_LENGTH && h1->tx_left;
        return;
    }
    bool pass = h1->codec.opt->h1.enable_trailers;
    char *start = buf_reserve(out, fields_room(h));
    char *p = PUT_LIT(start, "0\r\n");
    if (pass) {
        p = put_fields(p, h, (struct field_filter){true, true},
                       H1_CASE_LOWER); /* as Envoy: only heads have a case */
    }
    p = PUT_LIT(p, "\r\n");
    h1->stream.tx_header_bytes += (uint64_t)(p - start);
    buf_commit(out, (size_t)(p - start));
}
