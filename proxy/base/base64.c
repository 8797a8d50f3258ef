/* Base64 encoding and decoding.
 * Threads: any.
 * Spec: RFC 4648 sections 4 and 5; unused bits of the last character are not looked at. */
#include "proxy/base/base64.h"

#define CHUNK_IN 768u /* multiple of 3: padding comes at the very end only */

static const char standard[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char url_safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static size_t encode(const unsigned char *in, size_t n, enum base64_alphabet alphabet, char *out) {
    const char *chars = alphabet == BASE64_URL ? url_safe : standard;
    size_t o = 0;
    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        uint32_t v = (uint32_t)in[i] << 16 | (left > 1 ? (uint32_t)in[i + 1] << 8 : 0) |
                     (left > 2 ? in[i + 2] : 0);
        out[o++] = chars[v >> 18];
        out[o++] = chars[v >> 12 & 63];
        if (left > 1) {
            out[o++] = chars[v >> 6 & 63];
        } else if (alphabet != BASE64_URL) {
            out[o++] = '=';
        }
        if (left > 2) {
            out[o++] = chars[v & 63];
        } else if (alphabet != BASE64_URL) {
            out[o++] = '=';
        }
    }
    return o;
}

void base64_encode(struct buf *out, sv bytes, enum base64_alphabet alphabet) {
    while (bytes.n) {
        sv part = sv_sub(bytes, 0, CHUNK_IN);
        char *room = buf_reserve(out, CHUNK_IN / 3 * 4);
        buf_commit(out, encode((const unsigned char *)part.p, part.n, alphabet, room));
        bytes = sv_skip(bytes, part.n);
    }
}

static int value_of(char c, enum base64_alphabet alphabet) {
    if (c >= 'A' && c <= 'Z') {
        return c - 'A';
    }
    if (c >= 'a' && c <= 'z') {
        return c - 'a' + 26;
    }
    if (ascii_isdigit(c)) {
        return c - '0' + 52;
    }
    if ((c == '+' && alphabet != BASE64_URL) || (c == '-' && alphabet != BASE64_STANDARD)) {
        return 62;
    }
    if ((c == '/' && alphabet != BASE64_URL) || (c == '_' && alphabet != BASE64_STANDARD)) {
        return 63;
    }
    return -1;
}

size_t base64_decode(sv text, enum base64_alphabet alphabet, char *out) {
    size_t padding = 0;
    while (padding < 2 && padding < text.n && text.p[text.n - 1 - padding] == '=') {
        padding++;
    }
    if (padding && text.n % 4 != 0) {
        return SIZE_MAX;
    }
    text.n -= padding;
    if (text.n % 4 == 1) {
        return SIZE_MAX;
    }
    uint32_t bits = 0;
    size_t o = 0;
    for (size_t i = 0; i < text.n; i++) {
        int v = value_of(text.p[i], alphabet);
        if (v < 0) {
            return SIZE_MAX;
        }
        bits = bits << 6 | (uint32_t)v;
        if (i % 4 != 0) {
            out[o++] = (char)(bits >> (6 - 2 * (i % 4)) & 255);
        }
    }
    return o;
}
