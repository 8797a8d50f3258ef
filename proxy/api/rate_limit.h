/* Descriptors of a request: what rate limits count it under, made by the actions of a route, a
 * virtual host or a filter.
 * Threads: compiled on the config thread, immutable; filled on workers, in the caller's scratch
 * arena. Implemented in proxy/route/rate_limit.c.
 * Spec: config.route.v3.RateLimit. Refused: descriptor extensions but the CEL one. */
#ifndef SLUICE_API_RATE_LIMIT_H
#define SLUICE_API_RATE_LIMIT_H

#include "proxy/api/compile.h"
#include "proxy/http/headers.h"
#include "proxy/observe/stream_info.h"

#define RATE_LIMIT_STAGE_MAX 10u
#define RATE_LIMIT_HITS_MAX 1000000000u

struct rate_limit_entry {
    sv key, value;
};
enum rate_limit_headers {
    RATE_LIMIT_HEADERS_DEFAULT,
    RATE_LIMIT_HEADERS_OFF,
    RATE_LIMIT_HEADERS_ON
};
struct rate_limit_descriptor {
    const struct rate_limit_entry *v;
    unsigned n;
    bool has_hits, is_negative; /* negative: gives back */
    uint64_t hits;              /* what the request counts for; 1 unless has_hits */
    enum rate_limit_headers headers;
};

/* What actions look at; all borrowed for the call. */
struct rate_limit_facts {
    const struct stream_info *si;
    const struct headers *request;
    sv source_cluster;      /* of this proxy's node */
    sv destination_cluster; /* of the route */
    struct arena *scratch;
};

struct rate_limits; /* a list of RateLimit */
/* of_filter: the list stands in a filter, where `stage`, `disable_key` and `limit` are refused.
 * NULL: errors added, or n == 0. */
const struct rate_limits *rate_limits_compile(struct compile_ctx *ctx, const void *const *msgs,
                                              size_t n, bool of_filter);
/* 0: none; l may be NULL */
unsigned rate_limits_count(const struct rate_limits *l);
/* The descriptors of `stage` that apply when the request comes (not those that apply when its
 * stream is done); `out` has room for rate_limits_count(). Returns how many; l may be NULL. */
unsigned rate_limits_fill(const struct rate_limits *l, unsigned stage,
                          const struct rate_limit_facts *f, struct rate_limit_descriptor *out);

#endif
