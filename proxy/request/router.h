/* The router: terminal HTTP filter that forwards a request to an upstream cluster and its response
 * back.
 * Threads: worker-local. Spec: extensions.filters.http.router.v3.Router, RouteAction; Envoy's
 * Router::Filter.
 * Files: router.c (decisions, timeouts, responses), router_upstream.c (one attempt), retry.c
 * (whether to try again). */
#ifndef SLUICE_REQUEST_ROUTER_H
#define SLUICE_REQUEST_ROUTER_H

#include "proxy/api/access_logger.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/worker.h"
#include "proxy/request/retry.h"
#include "proxy/route/route_table.h"
#include "proxy/upstream/aggregate.h"
#include "proxy/upstream/pool.h"

struct router_config {
    bool dynamic_stats, suppress_envoy_headers, respect_expected_rq_timeout;
    bool suppress_grpc_request_failure_code_stats;
    const enum header_id *strict_check_headers;
    unsigned strict_check_headers_n;
};
extern const struct http_filter_type router_http_filter;
void *router_compile(struct compile_ctx *ctx, const void *msg); /* router_compile.c */

#define ROUTER_MAGIC 0x2007E201u

/* One attempt at one host. Lives inside the router: attempts never overlap. */
struct upstream_attempt {
    struct http_pool_request *pending; /* waiting for a connection */
    struct codec_stream *stream;       /* open upstream stream */
    struct conn *conn;                 /* under stream */
    struct cluster_view *cluster;      /* of the host: the router's, or a member of it */
    struct host *host;                 /* pinned by view's host set or ref_host */
    bool is_active, headers_sent, request_done, response_done, read_disabled_downstream;
    bool sent_any; /* a byte of the request may have reached the host */
    /* downstream above-high count handed to the upstream stream */
    uint16_t response_high;
};

struct router {
    struct http_filter base; /* must be first */
    uint32_t magic;
    const struct router_config *cfg;
    const struct route_entry *route;
    const struct weighted_cluster *weighted;
    struct cluster_view *cluster; /* ref held */
    struct hosts_pin *pin;        /* keeps every host valid that this request meets */
    struct cluster_hold *members; /* the same for those of an aggregate's members */
    struct mirrors *mirrors;      /* NULL: none */
    struct retry_state *retry;    /* NULL: no retries for this request */
    struct upstream_attempt up;
    struct trace_span *span; /* of the attempt; NULL: none */
    struct headers *headers; /* downstream request headers, rewritten for upstream */
    struct headers *trailers;
    struct buf body;      /* kept while connecting or while a retry is possible */
    bool may_redirect;    /* internally; the body is kept for it */
    bool is_headers_only; /* the request ended with its headers */
    bool body_ended, is_buffering, is_done, is_response_started, has_breaker, timed_out, is_grpc,
        skip_retry_buffer;
    bool had_attempt_headers, has_attempt_stream; /* of the present attempt */
    bool had_response_headers, is_head, alt_response, has_replayed;
    uint8_t priority;
    uint16_t attempts;
    uint32_t timeout_ms, per_try_timeout_ms, per_try_idle_ms;
    bool has_hash;
    uint64_t hash;
    sv set_cookie;
    uint64_t response_start_us;
    /* hosts of earlier attempts (previous_hosts), the newest last */
    const struct host *tried[8];
    unsigned tried_n;
    struct timer global_timer, try_timer, backoff_timer;
    struct headers response, response_trailers;
    struct request_transport transport;
};

/* May the request have to be sent once more? Then its body is kept. */
static inline bool router_keeps_body(const struct router *r) { return r->retry || r->may_redirect; }

/* router_upstream.c */
/* pick a host, ask its pool; may answer by itself */
void router_attempt_start(struct router *r);
/* "remote reset", "connection termination", …: static. */
const char *router_reset_words(enum reset_reason why);
/* For http_local_reply(): arg is the router. */
void router_modify_reply(struct headers *h, void *arg);
/* drop the attempt without callbacks */
void router_attempt_cancel(struct router *r, bool is_reset);
/* send what is in r->body if the stream is open */
void router_attempt_body(struct router *r);
/* A part of the request goes out; end: the last of it. */
void router_note_sent(struct router *r, bool end);
/* router.c, called by the attempt */
void router_count_code(struct router *r, unsigned status); /* of an answer, also of our own */
void router_compute_hash(struct router *r); /* r->hash, as the route's hash policies say */
void router_on_response_headers(struct router *r, bool end_stream);
void router_on_response_end(struct router *r);
void router_on_upstream_failure(struct router *r, enum reset_reason why, sv transport_failure);

#endif
