/* The timeouts of one request: route, gRPC and x-envoy-* headers. Threads: worker-local. */
#ifndef SLUICE_REQUEST_ROUTER_TIMEOUTS_H
#define SLUICE_REQUEST_ROUTER_TIMEOUTS_H

#include "proxy/base/sv.h"

struct router;
/* Fill r->timeout_ms, per_try_timeout_ms, per_try_idle_ms, alt_response from the route and
 * r->headers; removes the headers it obeys and sets x-envoy-expected-rq-timeout-ms. */
void router_timeouts_read(struct router *r);
/* Tell the upstream how long we will wait for this attempt. */
void router_set_expected_timeout(struct router *r);
/* A grpc-timeout value, "10S" → 10000; false when it is none. */
bool grpc_timeout_parse(sv v, uint64_t *ms);

#endif
