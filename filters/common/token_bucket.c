/* Shared token bucket: one number, the time at which it would have been empty, moved by
 * compare-and-swap. */
#include "filters/common/token_bucket.h"

#include <math.h>

#include "protos/gen/type.pb-c.h"

#define ROUNDING 1e-6 /* of a token: what taking and giving back in doubles may lose */

static double from_bits(uint64_t bits) {
    double d;
    memcpy(&d, &bits, sizeof d);
    return d;
}
static uint64_t to_bits(double d) {
    uint64_t bits;
    memcpy(&bits, &d, sizeof bits);
    return bits;
}

bool token_bucket_compile(struct compile_ctx *ctx, const char *what, const void *msg,
                          struct token_bucket *out) {
    const Type__TokenBucket *m = msg;
    uint32_t fill_ms = 0;
    DIAG_FIELD(ctx->diag, "fill_interval");
    if (!compile_duration_ms(ctx, m->fill_interval, 0, &fill_ms)) {
        return false;
    }
    if (fill_ms < TOKEN_BUCKET_FILL_MS_MIN) {
        return diag_error(ctx->diag, "%s fill timer must be >= %ums", what,
                          TOKEN_BUCKET_FILL_MS_MIN);
    }
    double per_fill = m->tokens_per_fill ? m->tokens_per_fill->value : 1;
    *out = (struct token_bucket){.max = m->max_tokens, .per_us = per_fill / (fill_ms * 1000.0)};
    token_bucket_fill(out);
    return true;
}

static double tokens_at(const struct token_bucket *b, uint64_t empty_at, uint64_t now_us) {
    double have = ((double)now_us - from_bits(empty_at)) * b->per_us + ROUNDING;
    return have < 0 ? 0 : have > b->max ? b->max : have;
}

/* Set the bucket from what it has at now_us to `n` tokens less; false: it has not so many. */
static bool move(struct token_bucket *b, uint64_t now_us, double n) {
    uint64_t empty_at = __atomic_load_n(&b->empty_at_, __ATOMIC_RELAXED), next;
    do {
        double have = tokens_at(b, empty_at, now_us);
        if (have < n) {
            return false;
        }
        double left = have - n < b->max ? have - n : b->max;
        next = to_bits((double)now_us - left / b->per_us);
    } while (!__atomic_compare_exchange_n(&b->empty_at_, &empty_at, next, true, __ATOMIC_RELAXED,
                                          __ATOMIC_RELAXED));
    return true;
}

bool token_bucket_take(struct token_bucket *b, uint64_t now_us, uint64_t n) {
    return move(b, now_us, (double)n);
}
void token_bucket_give(struct token_bucket *b, uint64_t now_us, uint64_t n) {
    move(b, now_us, -(double)n);
}

/* Monotonic time has run for long enough to have filled it. */
void token_bucket_fill(struct token_bucket *b) {
    __atomic_store_n(&b->empty_at_, to_bits(-1e300), __ATOMIC_RELAXED);
}

void token_bucket_state(const struct token_bucket *b, uint64_t now_us, uint64_t *left,
                        uint64_t *next_s) {
    double have = tokens_at(b, __atomic_load_n(&b->empty_at_, __ATOMIC_RELAXED), now_us);
    *left = (uint64_t)have;
    *next_s = have >= 1 ? 0 : (uint64_t)ceil((1 - have) / b->per_us / 1e6);
}
