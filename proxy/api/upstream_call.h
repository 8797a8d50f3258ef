/* One HTTP exchange from a worker to a cluster, by itself: mirrored requests, authorization
 * servers, rate limit services, log collectors. Never retried but for a pooled connection found
 * closed; counted in the cluster's stats as any request.
 * Threads: on the worker's own thread only. Implemented in upstream/upstream_call.c.
 * Spec: Envoy's Http::AsyncClient. */
#ifndef SLUICE_API_UPSTREAM_CALL_H
#define SLUICE_API_UPSTREAM_CALL_H

#include "proxy/api/worker.h"
#include "proxy/base/buf.h"
#include "proxy/http/codec.h"

struct metadata_match;

enum upstream_call_status {
    UPSTREAM_CALL_OK,         /* a complete response came, of whatever code */
    UPSTREAM_CALL_NO_CLUSTER, /* not in the snapshot */
    UPSTREAM_CALL_NO_HOST,    /* none is healthy */
    UPSTREAM_CALL_OVERFLOW,   /* a circuit breaker is open */
    UPSTREAM_CALL_FAILED,     /* connecting failed, or the exchange was reset */
    UPSTREAM_CALL_TIMEOUT,
    UPSTREAM_CALL_TOO_LARGE, /* a body outgrew its limit */
};
/* "connection failure or reset" … */
const char *upstream_call_status_str(enum upstream_call_status s);

#define UPSTREAM_CALL_BODY_MAX (1024u * 1024) /* request and response, when no limit is given */

struct upstream_call_options {
    slot_t cluster;
    sv cluster_name;             /* when cluster is SLOT_NONE: looked up now */
    uint32_t timeout_ms;         /* of the whole exchange, from the start; 0: none */
    uint32_t request_max_bytes;  /* body waiting for the connection to take it; 0: the default */
    uint32_t response_max_bytes; /* 0: the default */
    bool discards_response;      /* body and trailers are dropped as they come, there is no limit */
    bool omits_forwarding;       /* else x-envoy-internal and x-forwarded-for are added */
    bool has_hash;
    uint64_t hash;
    const struct metadata_match *metadata_match; /* subset; NULL: none. Outlives the call */
    enum http_protocol downstream;               /* for clusters that speak as the client does */
};

/* All borrowed until the callback returns; body may be moved away. */
struct upstream_call_result {
    enum upstream_call_status status;
    unsigned code;                  /* of the response; 0: none came */
    const struct headers *headers;  /* NULL: none came */
    const struct headers *trailers; /* NULL: none */
    struct buf *body;
    sv failure; /* transport failure reason; may be empty */
};

struct upstream_call;
/* Called once, unless the call is cancelled or detached before; never before _start returns. The
 * call is gone with it. */
typedef void (*upstream_call_done_fn)(void *user, const struct upstream_call_result *r);

/* `h` (:method, :path, :authority or else the cluster's name, …) is copied, `body` moved (NULL:
 * none yet); end_stream: the request is complete. Never NULL. */
struct upstream_call *upstream_call_start(struct worker *w, const struct upstream_call_options *o,
                                          const struct headers *h, struct buf *body,
                                          bool end_stream, upstream_call_done_fn done, void *user);
/* More body; moves `data`. May call back before it returns: the call is gone then. */
void upstream_call_data(struct upstream_call *c, struct buf *data, bool end_stream);
/* copied; ends the request */
void upstream_call_trailers(struct upstream_call *c, const struct headers *t);
/* Stop it, resetting what is under way; no callback after. */
void upstream_call_cancel(struct upstream_call *c);
/* Let it run to its end with nobody to hear of it. The request must be complete. */
void upstream_call_detach(struct upstream_call *c);

/* --- gRPC, one message each way --- */

struct grpc_call_result {
    unsigned status; /* grpc-status; 14 UNAVAILABLE, 4 DEADLINE_EXCEEDED … when none came */
    sv details;      /* grpc-message, decoded, or our own words */
    sv message;      /* the answer's bytes; empty unless status is 0 */
    enum upstream_call_status call;
};
typedef void (*grpc_call_done_fn)(void *user, const struct grpc_call_result *r);

struct grpc_call_method {
    sv service; /* "envoy.service.auth.v3.Authorization" */
    sv method;
    sv authority;                   /* empty: the cluster's name */
    const struct headers *metadata; /* more request headers; NULL: none */
};
/* `message`: wire bytes, copied. upstream_call_cancel ends it. */
struct upstream_call *grpc_call_start(struct worker *w, const struct upstream_call_options *o,
                                      const struct grpc_call_method *m, sv message,
                                      grpc_call_done_fn done, void *user);

#endif
