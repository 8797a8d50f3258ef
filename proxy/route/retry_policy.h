/* Retry policies of routes and virtual hosts, and the words of x-envoy-retry-on.
 * Threads: compiled on the config thread, immutable. Spec: config.route.v3.RetryPolicy.
 * Not here: deciding to retry (request/retry.c). */
#ifndef SLUICE_ROUTE_RETRY_POLICY_H
#define SLUICE_ROUTE_RETRY_POLICY_H

#include "proxy/route/matcher.h"

struct metadata_match;

enum retry_on {
    RETRY_5XX = 1 << 0,
    RETRY_GATEWAY_ERROR = 1 << 1,
    RETRY_RESET = 1 << 2,
    RETRY_CONNECT_FAILURE = 1 << 3,
    RETRY_ENVOY_RATELIMITED = 1 << 4,
    RETRY_RETRIABLE_4XX = 1 << 5,
    RETRY_REFUSED_STREAM = 1 << 6,
    RETRY_RETRIABLE_STATUS_CODES = 1 << 7,
    RETRY_RETRIABLE_HEADERS = 1 << 8,
    RETRY_RESET_BEFORE_REQUEST = 1 << 9,
    RETRY_HTTP3_POST_CONNECT_FAILURE = 1 << 10,
    RETRY_GRPC_CANCELLED = 1 << 11,
    RETRY_GRPC_DEADLINE_EXCEEDED = 1 << 12,
    RETRY_GRPC_INTERNAL = 1 << 13,
    RETRY_GRPC_RESOURCE_EXHAUSTED = 1 << 14,
    RETRY_GRPC_UNAVAILABLE = 1 << 15,
};
/* Comma-separated words of x-envoy-retry-on / x-envoy-retry-grpc-on; unknown words are skipped
 * (*all_known false). */
uint32_t retry_on_parse(sv words, bool *all_known);

struct retry_policy {
    uint32_t retry_on;           /* RETRY_* */
    uint32_t num_retries;        /* default 1 */
    uint32_t per_try_timeout_ms; /* 0: route timeout */
    uint32_t per_try_idle_timeout_ms;
    uint32_t base_interval_ms, max_interval_ms; /* 25, 250 */
    uint32_t host_selection_retry_max_attempts; /* 1 */
    const uint16_t *status_codes;
    unsigned status_codes_n;
    /* any of them; NULL: none */
    const struct header_matchers_any *retriable_headers, *retriable_request_headers;
    bool avoid_previous_hosts, omit_canary_hosts;
    /* hosts whose envoy.lb metadata has all of it; NULL: none */
    const struct metadata_match *omit_host_metadata;
    uint32_t previous_priorities_update_frequency; /* 0: not configured */
    /* rate-limited back-off: reset headers in order; 0: off */
    const struct retry_reset_header {
        enum header_id id;
        sv name;
        bool is_unix_time;
    } * reset_headers;
    unsigned reset_headers_n;
    uint32_t reset_max_interval_ms;
};

#endif
