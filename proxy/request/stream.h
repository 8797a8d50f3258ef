/* One request/response on a downstream connection: filter iteration, buffers, timers, local
 * replies, completion.
 * Threads: worker-local. Spec: Envoy's FilterManager and ActiveStream semantics (api/http_filter.h
 * tells them).
 * Not here: header rules of the connection manager (request/conn_headers.c), forwarding
 * (request/router.c). */
#ifndef SLUICE_REQUEST_STREAM_H
#define SLUICE_REQUEST_STREAM_H

#include "proxy/request/hcm.h"
#include "proxy/request/tracing.h"

#define STREAM_MAGIC 0x57BEA111u

enum iter_state { ITER_CONTINUE, ITER_STOP, ITER_STOP_ALL_BUFFER, ITER_STOP_ALL_WATERMARK };

/* One direction's walk over the filters: decode from 0 up, encode from n-1 down. */
struct filter_iter {
    bool is_decode;
    bool has_headers, headers_end;  /* headers arrived; they carried end_stream */
    bool is_complete;               /* the source has delivered everything */
    bool is_aborted;                /* local reply or reset: no more callbacks in this direction */
    bool is_read_disabled;          /* we hold back the source because buf is over its limit */
    bool is_sink_done;              /* end_stream went past the last filter */
    int8_t current;                 /* filter whose callback is running; -1: none */
    uint64_t headers_passed;        /* bit per filter: headers went on past it */
    uint8_t state[HCM_FILTERS_MAX]; /* enum iter_state */
    struct headers *headers, *trailers;
    struct buf buf; /* body kept for stopped filters */
};

/* A route table that this stream has used: what it found there may be in use until it ends. */
struct route_pin {
    struct route_view *view;
    slot_t slot;
    const struct route_pin *older;
};
struct stream_extension {
    struct stream_extension *next;
    struct extension_view *view; /* one ref */
};

struct stream {
    uint32_t magic;
    struct hcm *hcm;
    const struct hcm_config *cfg;
    struct codec_stream *codec_stream; /* NULL after it ended or was reset */
    struct arena arena;
    struct list node;
    struct stream_info info;
    struct addr remote; /* the client by x-forwarded-for rules */
    struct headers request, request_trailers;
    /* owned by whoever produced them (stream arena) */
    struct headers *response, *response_trailers;
    const struct hcm_filters *chain;
    struct http_filter **filters;        /* [chain->n]; NULL: disabled on this route */
    struct stream_extension *extensions; /* of discovered filters: pins their configs */
    struct filter_iter dec, enc;
    /* routing */
    const struct route_pin *stale_pins; /* these and older ones are not looked at any more */
    const struct route_pin *pins;       /* the newest first; NULL: no table of RDS was used */
    const struct route_table *table;
    const struct route_entry *route;
    const struct vhost *vhost;
    const struct virtual_cluster *vcluster; /* of the route's request; NULL: none */
    bool is_route_cached;
    uint64_t random;
    const struct weighted_cluster *weighted; /* chosen with the route; NULL: none */
    slot_t cluster_slot;                     /* of the route's cluster; SLOT_NONE: by name */
    sv cluster_name;                         /* empty: the route leads to none */
    struct cluster_view *noted_cluster; /* ref: what info tells of the cluster is its; NULL: none */
    /* state */
    bool is_head, is_grpc, is_connect, is_destroyed, saw_request_end;
    bool response_started, response_ended, close_after, is_internal_request;
    bool is_upgraded;
    /* another stream took over; there is no response to count */
    bool is_redirected;
    bool is_recreated;               /* the connection manager's header rules were applied before */
    uint16_t internal_redirects;     /* followed on the way to this request */
    const struct redirect_hop *hops; /* the newest first (request/internal_redirect.h) */
    bool needs_tls;                  /* the virtual host wants https: redirect */
    sv upgrade_type;
    struct stream_tracing *tracing;    /* request/tracing.h; NULL: none */
    struct log_interval *log_interval; /* request/stream_log.c; NULL: none */
    uint32_t buffer_limit;
    uint64_t last_activity_us;
    uint32_t idle_timeout_ms;
    struct timer idle, request_timer, headers_timer, max_duration;
    struct loop_garbage garbage;
};

struct stream *stream_new(struct hcm *h, struct codec_stream *cs);
/* Log, destroy filters, unlink; memory goes after the callback stack. Idempotent. */
void stream_finish(struct stream *s);
/* The request's headers are there and accepted: route it and run the filters. */
void stream_begin(struct stream *s, bool end_stream);
/* Give pooled stream memory of this thread back (thread end). */
void stream_cache_trim(void);
extern const struct codec_stream_ops stream_codec_ops;

/* request/filter_iter.c */
/* instances for the chain and route; false: a filter list is missing */
bool stream_filters_create(struct stream *s);
void stream_filters_destroy(struct stream *s);
void stream_decode_headers(struct stream *s, bool end_stream);
void stream_decode_data(struct stream *s, struct buf *data, bool end_stream);
void stream_decode_trailers(struct stream *s);
void stream_encode_headers(struct stream *s, struct headers *h, bool end_stream);
void stream_encode_data(struct stream *s, struct buf *data, bool end_stream);
void stream_encode_trailers(struct stream *s, struct headers *t);
void stream_encode_1xx(struct stream *s, struct headers *h);

/* request/stream.c: past the last encode filter */
void stream_send_headers(struct stream *s, struct headers *h, bool end_stream);
void stream_send_1xx(struct stream *s, const struct headers *h); /* the codec's stream is there */
void stream_send_data(struct stream *s, struct buf *data, bool end_stream);
void stream_send_trailers(struct stream *s, struct headers *t);
void stream_reset(struct stream *s, enum reset_reason why); /* abort towards the client, finish */
/* A new stream gets the old one's exchange with the client and its request's headers; the old one
 * is to be ended by stream_hand_over_end(). */
struct stream *stream_hand_over(struct stream *old);
void stream_hand_over_end(struct stream *old);
/* activity: the idle timer starts over */
void stream_touch(struct stream *s);

/* request/stream_route.c */
/* Choose table, route and cluster unless that is done; s->route NULL: none matches. */
void stream_resolve_route(struct stream *s);
void stream_routes_release(struct stream *s); /* at its end */
/* The view of the cluster that s->route leads to; NULL: none, or it is not there. Borrowed for the
 * event. */
struct cluster_view *stream_route_cluster(struct stream *s);

/* request/local_reply.c */
void stream_local_reply(struct stream *s, unsigned status, sv body, uint64_t flags, sv details,
                        void (*modify)(struct headers *h, void *arg), void *arg);
struct local_reply_config *local_reply_compile(struct compile_ctx *ctx,
                                               const void *local_reply_config_msg);

/* request/conn_headers.c: the connection manager's own header rules */
enum header_verdict { HEADERS_OK, HEADERS_REPLIED };
/* Checks and rewrites of the request before routing; may answer by itself. */
enum header_verdict conn_headers_request(struct stream *s);
/* x-forwarded-*, request id, via, … once the request is accepted; may refuse its client. */
enum header_verdict conn_headers_mutate_request(struct stream *s);
void conn_headers_mutate_response(struct stream *s, struct headers *h);

#endif
