/* Whether a failed attempt is tried again: policy, headers, back-off, circuit breaker.
 * Threads: worker-local. Spec: RetryPolicy, x-envoy-retry-on and friends; Envoy's
 * RetryStateImpl. */
#ifndef SLUICE_REQUEST_RETRY_H
#define SLUICE_REQUEST_RETRY_H

#include "proxy/http/codec.h"
#include "proxy/route/route_table.h"
#include "proxy/upstream/aggregate.h"

struct retry_state {
    const struct retry_policy *policy; /* NULL: only headers */
    uint32_t retry_on;
    uint32_t remaining;
    uint32_t attempts;     /* retries made */
    const uint16_t *codes; /* policy's and header's */
    unsigned codes_n;
    const sv *header_names; /* x-envoy-retriable-header-names */
    unsigned header_names_n;
    bool holds_breaker;  /* an attempt that a decision asked for waits or is under way */
    bool is_ratelimited; /* it waits as the response before asked */
    uint8_t priority;
    /* count retries, too (route/route_stats.h): of the virtual cluster and the route; NULL: none */
    struct stats_shard *also[2];
    /* previous_priorities: of hosts tried, and how many they were */
    struct priorities_tried tried;
    uint32_t tried_n;
    /* shares that avoid them; NULL: the cluster's own */
    const struct lb_priority_load *loads;
    unsigned loads_n;
};
enum retry_verdict { RETRY_NO, RETRY_NO_OVERFLOW, RETRY_NO_LIMIT, RETRY_YES };

/* NULL when nothing asks for retries. Removes the x-envoy-retry-* headers it reads from h. */
struct retry_state *retry_state_new(const struct retry_policy *p, struct headers *h,
                                    struct arena *a, uint8_t priority);
/* After response headers. */
enum retry_verdict retry_on_headers(struct retry_state *r, struct cluster_view *v,
                                    const struct headers *h, bool is_grpc, struct arena *scratch);
/* After a reset, timeout or connect failure; was_sent: the host may have seen the request. */
enum retry_verdict retry_on_reset(struct retry_state *r, struct cluster_view *v,
                                  enum reset_reason why, bool was_sent);
/* Milliseconds before the next attempt; response may be NULL (rate-limited back-off reads it). */
uint64_t retry_backoff_ms(struct retry_state *r, const struct headers *response, struct rng *rng,
                          uint64_t wall_s);
/* The back-off is over: counts the attempt. */
void retry_begin(struct retry_state *r, struct cluster_view *v);
/* A host of this priority (or level of an aggregate) is tried. */
void retry_note_priority(struct retry_state *r, unsigned priority);
/* Before another attempt: r->loads, as previous_priorities asks. */
void retry_priority_loads(struct retry_state *r, struct cluster_view *v, struct arena *a);
/* give the breaker's unit back */
void retry_release(struct retry_state *r, struct cluster_view *v);

#endif
