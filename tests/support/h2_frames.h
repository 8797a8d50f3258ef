/* HTTP/2 frames for tests, written as text: frames end with ';', white space before them is
 * skipped.
 *   h1+ a=b|c=d;   HEADERS with END_HEADERS, '+': END_STREAM, '-': without END_HEADERS, '%': block
 * sent as it is (hex)
 *   c1- a=b;       CONTINUATION     d1+ text;  DATA        r1 8;    RST_STREAM     w1 100;
 * WINDOW_UPDATE
 *   p1 0;          PRIORITY         i 0;       PING        s 4=100; SETTINGS       g 1,0;   GOAWAY
 *   x 99,0,1,616263;  any: type, flags, stream, hex
 * "@G" and "@P" stand for the fields of a plain GET and POST; "*N" right before ';' repeats the
 * frame N times.
 * And back: h2_frames_text() tells frames sent, without SETTINGS and WINDOW_UPDATE. */
#ifndef SLUICE_TESTS_H2_FRAMES_H
#define SLUICE_TESTS_H2_FRAMES_H

#include <nghttp2/nghttp2.h>
#include <stdlib.h>

#include "proxy/base/buf.h"
#include "proxy/base/mem.h"

#define H2_PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define H2_GET ":method=GET|:scheme=http|:path=/|:authority=a"
#define H2_POST ":method=POST|:scheme=http|:path=/|:authority=a"

static void h2_put_int(struct buf *b, uint64_t v, unsigned bytes) {
    for (unsigned i = bytes; i-- > 0;) {
        char c = (char)(v >> (8 * i));
        buf_append(b, &c, 1);
    }
}

static void h2_put_frame(struct buf *b, uint8_t type, uint8_t flags, uint32_t stream,
                         struct buf *payload) {
    h2_put_int(b, buf_len(payload), 3);
    h2_put_int(b, type, 1);
    h2_put_int(b, flags, 1);
    h2_put_int(b, stream, 4);
    buf_copy_to(payload, b);
}

static void h2_put_string(struct buf *b, sv s) {
    size_t n = s.n;
    if (n < 127) {
        h2_put_int(b, n, 1);
    } else {
        h2_put_int(b, 127, 1);
        for (n -= 127; n >= 128; n >>= 7) {
            h2_put_int(b, (n & 127) | 128, 1);
        }
        h2_put_int(b, n, 1);
    }
    buf_append_sv(b, s);
}

/* Literal fields without indexing. */
static void h2_put_fields(struct buf *b, sv text) {
    if (sv_eat(&text, SV("@G"))) {
        h2_put_fields(b, SV(H2_GET));
        sv_eat(&text, SV("|"));
    } else if (sv_eat(&text, SV("@P"))) {
        h2_put_fields(b, SV(H2_POST));
        sv_eat(&text, SV("|"));
    }
    while (text.n) {
        sv field = sv_cut(&text, '|');
        sv name = sv_cut(&field, '=');
        h2_put_int(b, 0, 1);
        h2_put_string(b, name);
        h2_put_string(b, field);
    }
}

static void h2_put_hex(struct buf *b, sv hex) {
    for (size_t i = 0; i + 1 < hex.n; i += 2) {
        h2_put_int(b, (uint64_t)(ascii_hex(hex.p[i]) << 4 | ascii_hex(hex.p[i + 1])), 1);
    }
}

static uint32_t h2_number(sv *s) {
    uint64_t v = 0;
    sv_eat_u64(s, 10, &v);
    return (uint32_t)v;
}

/* One frame of the language above, without its ';'. */
static void h2_put_text_frame(struct buf *out, sv f) {
    char kind = f.p[0];
    f = sv_skip(f, 1);
    uint32_t stream = h2_number(&f);
    bool minus = sv_eat(&f, SV("-")), plus = sv_eat(&f, SV("+")), raw = sv_eat(&f, SV("%"));
    sv_eat(&f, SV(" "));
    struct buf p;
    buf_init(&p);
    uint8_t head =
        (uint8_t)((plus ? NGHTTP2_FLAG_END_STREAM : 0) | (minus ? 0 : NGHTTP2_FLAG_END_HEADERS));
    switch (kind) {
    case 'h':
    case 'c':
        if (raw) {
            h2_put_hex(&p, f);
        } else {
            h2_put_fields(&p, f);
        }
        h2_put_frame(out, kind == 'h' ? NGHTTP2_HEADERS : NGHTTP2_CONTINUATION, head, stream, &p);
        break;
    case 'd':
        buf_append_sv(&p, f);
        h2_put_frame(out, NGHTTP2_DATA, plus, stream, &p);
        break;
    case 'r':
        h2_put_int(&p, h2_number(&f), 4);
        h2_put_frame(out, NGHTTP2_RST_STREAM, 0, stream, &p);
        break;
    case 'w':
        h2_put_int(&p, h2_number(&f), 4);
        h2_put_frame(out, NGHTTP2_WINDOW_UPDATE, 0, stream, &p);
        break;
    case 'p':
        h2_put_int(&p, h2_number(&f), 4);
        h2_put_int(&p, 0, 1);
        h2_put_frame(out, NGHTTP2_PRIORITY, 0, stream, &p);
        break;
    case 'i':
        h2_put_int(&p, 12345678, 8);
        h2_put_frame(out, NGHTTP2_PING, (uint8_t)plus, 0, &p);
        break;
    case 's':
        while (f.n) {
            h2_put_int(&p, h2_number(&f), 2);
            sv_eat(&f, SV("="));
            h2_put_int(&p, h2_number(&f), 4);
            sv_eat(&f, SV(","));
        }
        h2_put_frame(out, NGHTTP2_SETTINGS, (uint8_t)plus, 0, &p);
        break;
    case 'g':
        h2_put_int(&p, h2_number(&f), 4);
        sv_eat(&f, SV(","));
        h2_put_int(&p, h2_number(&f), 4);
        h2_put_frame(out, NGHTTP2_GOAWAY, 0, 0, &p);
        break;
    case 'x': {
        uint32_t v[3];
        for (unsigned i = 0; i < 3; i++) {
            v[i] = h2_number(&f);
            sv_eat(&f, SV(","));
        }
        h2_put_hex(&p, f);
        h2_put_frame(out, (uint8_t)v[0], (uint8_t)v[1], v[2], &p);
        break;
    }
    default:
        CHECK(!"frame kind");
    }
    buf_fini(&p);
}

static void h2_put_text(struct buf *out, sv text) {
    while (text.n) {
        if (*text.p == ' ' || *text.p == '\n') {
            text = sv_skip(text, 1);
            continue;
        }
        sv f = sv_cut(&text, ';');
        uint64_t times = 1;
        size_t star = sv_rfind(f, '*');
        if (star != SIZE_MAX && sv_to_u64(sv_skip(f, star + 1), &times)) {
            f = sv_sub(f, 0, star);
        }
        while (times--) {
            h2_put_text_frame(out, f);
        }
    }
}

/* --- back to text --- */

struct h2_frame_reader {
    nghttp2_hd_inflater *inflater;
    bool show_all; /* SETTINGS and WINDOW_UPDATE too */
};

UNUSED static void h2_show_block(struct h2_frame_reader *r, const uint8_t *p, size_t n,
                                 struct buf *out) {
    int flags = 0;
    bool first = true;
    do {
        nghttp2_nv nv;
        ssize_t rc = nghttp2_hd_inflate_hd2(r->inflater, &nv, &flags, p, n, 1);
        if (rc < 0) {
            buf_lit(out, "?");
            return;
        }
        p += rc;
        n -= (size_t)rc;
        if (flags & NGHTTP2_HD_INFLATE_EMIT) {
            buf_printf(out, "%s%.*s=%.*s", first ? "" : "|", (int)nv.namelen, nv.name,
                       (int)nv.valuelen, nv.value);
            first = false;
        }
    } while (n || !(flags & NGHTTP2_HD_INFLATE_FINAL));
    nghttp2_hd_inflate_end_headers(r->inflater);
}

UNUSED static void h2_show_frame(struct h2_frame_reader *r, const uint8_t *f, size_t n,
                                 struct buf *out) {
    const uint8_t *p = f + 9;
    uint32_t stream = (uint32_t)f[5] << 24 | (uint32_t)f[6] << 16 | (uint32_t)f[7] << 8 | f[8];
    uint32_t first =
        n >= 4 ? (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3] : 0;
    uint32_t second =
        n >= 8 ? (uint32_t)p[4] << 24 | (uint32_t)p[5] << 16 | (uint32_t)p[6] << 8 | p[7] : 0;
    const char *plus = f[4] & 1 ? "+" : "";
    switch (f[3]) {
    case NGHTTP2_HEADERS:
        buf_printf(out, "h%u%s ", stream, plus);
        h2_show_block(r, p, n, out);
        buf_lit(out, ";");
        break;
    case NGHTTP2_DATA:
        if (n > 40) {
            buf_printf(out, "d%u%s #%zu;", stream, plus, n);
        } else {
            buf_printf(out, "d%u%s %.*s;", stream, plus, (int)n, (const char *)p);
        }
        break;
    case NGHTTP2_RST_STREAM:
        buf_printf(out, "r%u %u;", stream, first);
        break;
    case NGHTTP2_GOAWAY:
        buf_printf(out, "g %u,%u;", first, second);
        break;
    case NGHTTP2_PING:
        buf_printf(out, "i%s;", plus);
        break;
    case NGHTTP2_SETTINGS:
        if (r->show_all) {
            buf_printf(out, "s%s", plus);
            for (size_t i = 0; i + 6 <= n; i += 6) {
                buf_printf(out, "%s%u=%u", i ? "," : " ", p[i] << 8 | p[i + 1],
                           (uint32_t)p[i + 2] << 24 | (uint32_t)p[i + 3] << 16 |
                               (uint32_t)p[i + 4] << 8 | p[i + 5]);
            }
            buf_lit(out, ";");
        }
        break;
    case NGHTTP2_WINDOW_UPDATE:
        if (r->show_all) {
            buf_printf(out, "w%u %u;", stream, first);
        }
        break;
    default:
        buf_printf(out, "x%u;", f[3]);
    }
}

/* Take the whole frames from `in` and tell them. */
UNUSED static void h2_show(struct h2_frame_reader *r, struct buf *in, struct buf *out) {
    if (!r->inflater) {
        CHECK(nghttp2_hd_inflate_new(&r->inflater) == 0);
    }
    if (buf_len(in) >= 24) {
        sv start = buf_pullup(in, 24);
        if (sv_eq(start, SV(H2_PREFACE))) {
            buf_drain(in, 24);
        }
    }
    while (buf_len(in) >= 9) {
        const uint8_t *h = (const uint8_t *)buf_pullup(in, 9).p;
        size_t n = (size_t)h[0] << 16 | (size_t)h[1] << 8 | h[2];
        if (buf_len(in) < 9 + n) {
            return;
        }
        h2_show_frame(r, (const uint8_t *)buf_pullup(in, 9 + n).p, n, out);
        buf_drain(in, 9 + n);
    }
}

#endif
