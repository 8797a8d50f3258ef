/* A token bucket that all workers share: full at first, filled steadily.
 * Threads: token_bucket_take() from any, without a lock; the rest is immutable.
 * Spec: type.v3.TokenBucket. */
#ifndef SLUICE_FILTERS_COMMON_TOKEN_BUCKET_H
#define SLUICE_FILTERS_COMMON_TOKEN_BUCKET_H

#include "proxy/api/compile.h"

#define TOKEN_BUCKET_FILL_MS_MIN 50u /* Envoy's least fill_interval */

struct token_bucket {
    double max, per_us; /* tokens; tokens a microsecond */
    uint64_t empty_at_; /* bits of a double: the time in us at which it would have been empty */
};
/* msg: type.v3.TokenBucket; what: of the message about a fill interval that is too short. False:
 * errors added. */
bool token_bucket_compile(struct compile_ctx *ctx, const char *what, const void *msg,
                          struct token_bucket *out);
/* Take n tokens; now_us is of one clock for all callers. False: there are not so many, none is
 * taken. */
bool token_bucket_take(struct token_bucket *b, uint64_t now_us, uint64_t n);
/* Give n tokens back, up to the most there may be. */
void token_bucket_give(struct token_bucket *b, uint64_t now_us, uint64_t n);
void token_bucket_fill(struct token_bucket *b); /* full again */
/* Whole tokens left, and seconds until there is one (0: there is). */
void token_bucket_state(const struct token_bucket *b, uint64_t now_us, uint64_t *left,
                        uint64_t *next_s);

#endif
