/* Base64 (RFC 4648): standard and URL-safe alphabets. Threads: any. */
#ifndef SLUICE_BASE_BASE64_H
#define SLUICE_BASE_BASE64_H

#include "proxy/base/buf.h"

enum base64_alphabet {
    BASE64_STANDARD,
    BASE64_URL,
    BASE64_EITHER, /* decoding only: as proto3 JSON takes it */
};

/* Append the encoding of `bytes`: standard with padding, URL-safe without. */
void base64_encode(struct buf *out, sv bytes, enum base64_alphabet alphabet);

/* Room that base64_decode needs for `n` characters. */
#define BASE64_DECODED_MAX(n) ((n) / 4 * 3 + 3)
/* Decode into `out`; padding may be left out but not wrong, no white space. Returns the length,
 * SIZE_MAX when `text` is not base64 of that alphabet. */
size_t base64_decode(sv text, enum base64_alphabet alphabet, char *out);

#endif
