/* The router: terminal HTTP filter that forwards a request to an upstream cluster and its response
 * back.
 * Threads: worker-local. Spec: extensions.filters.http.router.v3.Router, RouteAction; Envoy's
 * Router::Filter.
 * Files: router.c (decisions, timeouts, responses), router_upstream.c (one attempt), router_stats.c
 * (counters), retry.c (whether to try again). */
#ifndef SLUICE_REQUEST_ROUTER_H
#define SLUICE_REQUEST_ROUTER_H

#include "proxy/api/access_logger.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/worker.h"
#include "proxy/request/retry.h"
#include "proxy/route/route_table.h"
#include "proxy/upstream/aggregate.h"
#include "proxy/upstream/pool.h"
#include "proxy/upstream/raw_stream.h"

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
    struct raw_stream *raw_pending;    /* the same, of a CONNECT that ends here */
    struct codec_stream *stream;       /* open upstream stream */
    struct conn *conn;                 /* under stream */
    struct cluster_view *cluster;      /* of the host: the router's, or a member of it */
    struct host *host;                 /* pinned by view's host set or ref_host */
    bool is_active, request_done;
    bool read_disabled_downstream; /* because the body outgrew its buffer without a stream */
    bool sent_any;                 /* of the request's body */
    /* above-high counts: the stream's, handed to the client as read-disables, ... */
    uint16_t request_high;
    /* ... and the client's, handed to the stream; it outlives the attempt */
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
    /* the request is a tunnel that ends here: its body goes to a TCP upstream. NULL: it is not */
    const struct upgrade_override *connect;
    struct upstream_attempt up;
    struct trace_span *span; /* of the attempt; NULL: none */
    struct headers *headers; /* downstream request headers, rewritten for upstream */
    struct headers *trailers;
    struct buf body;      /* kept while connecting or while a retry is possible */
    bool may_redirect;    /* internally; the body is kept for it */
    bool is_headers_only; /* the request ended with its headers */
    bool body_ended, is_done, is_grpc;
    bool awaits_grpc_status;  /* the host's success is in the trailers */
    bool is_response_started; /* at the client, a 1xx answer included: no further attempt */
    bool had_attempt_headers, has_attempt_stream; /* of the present attempt */
    bool is_head, alt_response, has_replayed;
    uint8_t priority;
    uint16_t attempts;
    uint32_t timeout_ms, per_try_timeout_ms, per_try_idle_ms;
    bool has_hash;
    uint64_t hash;
    sv set_cookie;
    uint64_t request_end_us; /* the client's request was complete; 0: it is not */
    /* hosts of earlier attempts (previous_hosts), the newest last */
    const struct host *tried[8];
    unsigned tried_n;
    struct timer global_timer, try_timer, try_idle_timer, backoff_timer;
    struct headers response, response_trailers;
    struct request_transport transport;
    struct on_demand_wait dns_wait; /* for the host of a dynamic_forward_proxy cluster */
};

/* May the request have to be sent once more? Then its body is kept. */
static inline bool router_keeps_body(const struct router *r) { return r->retry || r->may_redirect; }

/* router_upstream.c */
/* pick a host, ask its pool; may answer by itself */
void router_attempt_start(struct router *r);
/* "remote reset", "connection termination", …: static. */
const char *router_reset_words(enum reset_reason why);
/* An answer of the router's own: no attempt follows. */
void router_reply(struct router *r, unsigned status, sv body, uint64_t flags, sv details);
/* drop the attempt without callbacks */
void router_attempt_cancel(struct router *r, bool is_reset);
/* send what is in r->body if the stream is open */
void router_attempt_body(struct router *r);
/* A part of the request goes out; end: the last of it. */
void router_note_sent(struct router *r, bool end);
/* The attempt has its stream and the client's request is complete: its own timeouts begin. */
void router_try_timers_start(struct router *r);
/* router.c, called by the attempt */
void router_compute_hash(struct router *r); /* r->hash, as the route's hash policies say */
void router_on_interim(struct router *r, struct headers *h);
void router_on_response_headers(struct router *r, bool end_stream);
/* trailers NULL: the response had none */
void router_on_response_end(struct router *r, const struct headers *trailers);
void router_on_upstream_failure(struct router *r, enum reset_reason why, sv transport_failure);

/* router_stats.c */
/* A ROUTE_x of the request's virtual cluster and of its route. */
void router_count_route(struct router *r, unsigned route_stat);
void router_retry_counts(struct router *r);                /* so do its retries, from now on */
void router_count_code(struct router *r, unsigned status); /* of an answer, also of our own */
/* The attempt ends without a response; `status` is what the client gets. */
void router_count_abort(struct router *r, unsigned status);
/* Another attempt follows one that failed; response NULL: without one. */
void router_count_retry(struct router *r, const struct headers *response);
/* Response headers came: outlier detection and passive health checks are told. */
void router_report_response(struct router *r, const struct headers *h);
/* ... and are passed on. */
void router_count_response(struct router *r, const struct headers *h, bool end_stream);
/* ... and so is all that followed; trailers NULL: there were none. */
void router_count_end(struct router *r, const struct headers *trailers);

#endif
