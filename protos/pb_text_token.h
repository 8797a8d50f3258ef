/* Tokens of the protobuf text format, for pb_text.c. Threads: any. */
#ifndef SLUICE_PROTOS_PB_TEXT_TOKEN_H
#define SLUICE_PROTOS_PB_TEXT_TOKEN_H

#include "proxy/base/buf.h"

enum text_kind {
    TEXT_END,
    TEXT_NAME,   /* letters, digits, '_', '.' */
    TEXT_NUMBER, /* unsigned; may have a fraction, exponent, 0x, 'f' */
    TEXT_STRING, /* without its quotes, escapes still in it */
    TEXT_SYMBOL, /* one character */
};
struct text_tokens {
    sv rest;
    unsigned line;
    enum text_kind kind; /* of the current token */
    sv token;
    const char *problem; /* set when text_next fails */
};

/* Go to the next token. False at something that is none. */
bool text_next(struct text_tokens *t);
/* The current token is '[': take the type URL and its ']', after which text_next goes on. */
bool text_type_url(struct text_tokens *t, sv *url);
/* Append what a TEXT_STRING stands for. False: bad escape. */
bool text_unescape(sv token, struct buf *out);
/* Decimal, 0x hexadecimal or 0 octal. */
bool text_to_u64(sv token, uint64_t *out);

#endif
