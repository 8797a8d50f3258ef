/* A local rate limiter: a default bucket and buckets by descriptor, shared by all workers without a
 * lock. A descriptor with an empty value stands for any value, each of which gets a bucket of its
 * own when it first comes; the least recently used one gives way.
 * Threads: compiled on the config thread; asked by any.
 * Spec: filters.http.local_ratelimit.v3.LocalRateLimit,
 * common.ratelimit.v3.LocalRateLimitDescriptor. */
#ifndef SLUICE_FILTERS_COMMON_LOCAL_LIMITER_H
#define SLUICE_FILTERS_COMMON_LOCAL_LIMITER_H

#include "filters/common/token_bucket.h"
#include "proxy/api/rate_limit.h"

#define LOCAL_LIMITER_VALUES_DEFAULT 20u /* Envoy's max_dynamic_descriptors */
#define LOCAL_LIMITER_VALUES_MAX 65536u  /* of one descriptor */
/* buckets of one request; further descriptors are not counted */
#define LOCAL_LIMITER_MATCHES_MAX 64u

struct local_limiter;
struct local_limiter_config {
    const void *token_bucket;       /* type.v3.TokenBucket; NULL: none */
    const void *const *descriptors; /* LocalRateLimitDescriptor */
    size_t descriptors_n;
    uint32_t values_max;
    bool always_consumes_default;
};
/* NULL: errors added. */
struct local_limiter *local_limiter_compile(struct compile_ctx *ctx,
                                            const struct local_limiter_config *config);
/* Another one of the same settings, all buckets full, in `a`, which alone it needs to live. */
struct local_limiter *local_limiter_dup(const struct local_limiter *l, struct arena *a);
bool local_limiter_has_descriptors(const struct local_limiter *l);

struct local_limiter_verdict {
    bool is_allowed;
    bool is_shadow;              /* what refuses only counts */
    struct token_bucket *bucket; /* to tell of; NULL: none. Lives as long as the limiter */
    enum rate_limit_headers headers;
};
struct local_limiter_verdict local_limiter_ask(struct local_limiter *l,
                                               const struct rate_limit_descriptor *v, unsigned n,
                                               uint64_t now_us, struct arena *scratch);

#endif
