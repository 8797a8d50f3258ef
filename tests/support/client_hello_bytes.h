/* Builds ClientHello messages for tests, well-formed or not. */
#ifndef SLUICE_TESTS_SUPPORT_CLIENT_HELLO_BYTES_H
#define SLUICE_TESTS_SUPPORT_CLIENT_HELLO_BYTES_H

#include "proxy/base/buf.h"

static inline void put_u8(struct buf *b, unsigned v) {
    char c = (char)v;
    buf_append(b, &c, 1);
}
static inline void put_u16(struct buf *b, unsigned v) {
    put_u8(b, v >> 8 & 255);
    put_u8(b, v & 255);
}
static inline void put_u16s(struct buf *b, const uint16_t *v, size_t n) {
    for (size_t i = 0; i < n; i++) {
        put_u16(b, v[i]);
    }
}
/* inner, with its length in front; inner is empty afterwards. */
static inline void put_vec(struct buf *b, unsigned length_bytes, struct buf *inner) {
    for (unsigned i = length_bytes; i-- > 0;) {
        put_u8(b, (unsigned)(buf_len(inner) >> (8 * i)) & 255);
    }
    buf_move(b, inner);
}
static inline void put_ext(struct buf *exts, unsigned type, struct buf *body) {
    put_u16(exts, type);
    put_vec(exts, 2, body);
}
static inline void put_ext_raw(struct buf *exts, unsigned type, const void *p, size_t n) {
    BUF_AUTO struct buf body;
    buf_init(&body);
    buf_append(&body, p, n);
    put_ext(exts, type, &body);
}
static inline void put_sni(struct buf *exts, sv name) {
    BUF_AUTO struct buf list, host;
    buf_init(&list);
    buf_init(&host);
    buf_append_sv(&host, name);
    put_u8(&list, 0);
    put_vec(&list, 2, &host);
    put_vec(&host, 2, &list);
    put_ext(exts, 0, &host);
}
static inline void put_alpn(struct buf *exts, const char *const *names, size_t n) {
    BUF_AUTO struct buf list, name;
    buf_init(&list);
    buf_init(&name);
    for (size_t i = 0; i < n; i++) {
        buf_append_sv(&name, sv_cstr(names[i]));
        put_vec(&list, 1, &name);
    }
    put_vec(&name, 2, &list);
    put_ext(exts, 16, &name);
}
static inline void put_u16_ext(struct buf *exts, unsigned type, unsigned length_bytes,
                               const uint16_t *v, size_t n) {
    BUF_AUTO struct buf list, body;
    buf_init(&list);
    buf_init(&body);
    put_u16s(&list, v, n);
    put_vec(&body, length_bytes, &list);
    put_ext(exts, type, &body);
}
/* The handshake message of these parts; exts is empty afterwards. */
static inline void put_message(struct buf *out, unsigned version, const uint16_t *ciphers, size_t n,
                               struct buf *exts) {
    BUF_AUTO struct buf body, list;
    buf_init(&body);
    buf_init(&list);
    put_u16(&body, version);
    for (int i = 0; i < 32; i++) {
        put_u8(&body, 0xa5);
    }
    put_u8(&body, 0);
    put_u16s(&list, ciphers, n);
    put_vec(&body, 2, &list);
    put_u8(&body, 1);
    put_u8(&body, 0);
    put_vec(&body, 2, exts);
    put_u8(out, 1);
    put_vec(out, 3, &body);
}
/* In records of at most `piece` bytes. */
static inline void put_records(struct buf *out, struct buf *message, size_t piece) {
    while (!buf_empty(message)) {
        size_t n = buf_len(message) < piece ? buf_len(message) : piece;
        put_u8(out, 22);
        put_u16(out, 0x0301);
        put_u16(out, (unsigned)n);
        buf_move_n(out, message, n);
    }
}

#endif
