/* HTTP filters: a chain on each request, decode in order, encode in reverse; the router is the
 * terminal one.
 * Spec: HttpFilter, Envoy's Http::StreamFilter semantics. Threads: config on the config thread,
 * streams worker-local. */
#ifndef SLUICE_API_HTTP_FILTER_H
#define SLUICE_API_HTTP_FILTER_H

#include "proxy/api/compile.h"
#include "proxy/api/on_demand.h"
#include "proxy/event/loop.h"
#include "proxy/event/timer.h"
#include "proxy/http/headers.h"
#include "proxy/http/path.h"
#include "proxy/observe/filter_state.h"
#include "proxy/observe/metadata.h"
#include "proxy/observe/stream_info.h"
#include "proxy/stats/stats.h"

enum filter_headers_status {
    FILTER_HEADERS_CONTINUE,
    FILTER_HEADERS_STOP, /* stop headers; data keeps coming to this filter */
    /* continue, but end_stream is withdrawn: this filter will add a body */
    FILTER_HEADERS_CONTINUE_NO_END,
    /* nothing more until continued; data is buffered, over limit: 413/500 */
    FILTER_HEADERS_STOP_ALL_BUFFER,
    FILTER_HEADERS_STOP_ALL_WATERMARK, /* same, but the limit applies back-pressure */
};
enum filter_data_status {
    FILTER_DATA_CONTINUE,
    FILTER_DATA_STOP_BUFFER,    /* keep in the stream's buffer; over limit: 413 / 500 */
    FILTER_DATA_STOP_WATERMARK, /* keep; over limit: back-pressure */
    FILTER_DATA_STOP_NO_BUFFER, /* the filter took it */
};
enum filter_trailers_status { FILTER_TRAILERS_CONTINUE, FILTER_TRAILERS_STOP };

struct addr;
struct dns_cache;   /* api/dns_cache.h */
struct rate_limits; /* api/rate_limit.h */
struct stream;
struct worker;

/* An instance on one stream; embedded first in the filter's own struct (type->stream_size bytes,
 * zeroed, stream's arena). */
struct http_filter {
    const struct http_filter_type *type;
    struct stream *stream;
    const void *config; /* from compile; pinned by the stream */
    uint8_t index_;
};

struct http_filter_type {
    /* "envoy.filters.http.cors": by which istio and route configs know it */
    const char *name;
    const char *type_url; /* full proto name of the config message */
    /* of the per-route config message; NULL: same as type_url; "" : none allowed */
    const char *route_type_url;
    bool is_terminal;
    size_t stream_size;
    /* arena memory; NULL: errors are in diag */
    void *(*compile)(struct compile_ctx *ctx, const void *msg);
    /* NULL fn: per-route refused */
    void *(*compile_route)(struct compile_ctx *ctx, const void *msg, const char *type);
    /* Any of these may be NULL: passes through. */
    void (*init)(struct http_filter *f);
    enum filter_headers_status (*decode_headers)(struct http_filter *f, struct headers *h,
                                                 bool end_stream);
    enum filter_data_status (*decode_data)(struct http_filter *f, struct buf *data,
                                           bool end_stream);
    enum filter_trailers_status (*decode_trailers)(struct http_filter *f, struct headers *t);
    enum filter_headers_status (*encode_1xx)(struct http_filter *f, struct headers *h);
    enum filter_headers_status (*encode_headers)(struct http_filter *f, struct headers *h,
                                                 bool end_stream);
    enum filter_data_status (*encode_data)(struct http_filter *f, struct buf *data,
                                           bool end_stream);
    enum filter_trailers_status (*encode_trailers)(struct http_filter *f, struct headers *t);
    /* The downstream's send buffer is above/below its watermark (decode-side filters that produce:
     * router). */
    void (*on_downstream_above_high)(struct http_filter *f);
    void (*on_downstream_below_low)(struct http_filter *f);
    void (*on_log)(struct http_filter *f);  /* just before access logs */
    void (*destroy)(struct http_filter *f); /* always called, last; cancel everything started */
};

/* --- what a filter may ask of its stream (request/stream.c) --- */
void http_continue_decoding(struct http_filter *f);
void http_continue_encoding(struct http_filter *f);
/* Data that follows filters see, from inside decode_trailers/decode_headers/decode_data of this
 * filter or later. */
void http_add_decoded_data(struct http_filter *f, struct buf *data, bool streaming);
void http_add_encoded_data(struct http_filter *f, struct buf *data, bool streaming);
/* Body kept by FILTER_DATA_STOP_BUFFER so far. */
struct buf *http_decoding_buffer(struct http_filter *f);
struct buf *http_encoding_buffer(struct http_filter *f);
/* Answer from here: encode filters run on it. body may be empty; details is static or stream-arena
 * text. `modify` (may be NULL) edits the response headers before filters see them; a grpc-status
 * that it sets is kept. If response headers were already sent, the stream is reset. */
void http_local_reply(struct http_filter *f, unsigned status, sv body, uint64_t flags, sv details,
                      void (*modify)(struct headers *h, void *arg), void *arg);
/* Terminal filter and others that produce a response: */
void http_encode_1xx(struct http_filter *f, struct headers *h);
void http_encode_headers(struct http_filter *f, struct headers *h, bool end_stream, sv details);
void http_encode_data(struct http_filter *f, struct buf *data, bool end_stream);
void http_encode_trailers(struct http_filter *f, struct headers *t);
void http_reset_stream(struct http_filter *f); /* abort downstream: reset or close */
/* back-pressure on the request body, nestable */
void http_read_disable(struct http_filter *f, bool disable);

struct headers *http_request_headers(struct http_filter *f);
struct headers *http_request_trailers(struct http_filter *f); /* NULL until there */
struct headers *http_response_headers(struct http_filter *f); /* NULL until there */
struct stream_info *http_stream_info(struct http_filter *f);
struct arena *http_arena(struct http_filter *f);
struct loop *http_loop(struct http_filter *f);
struct worker *http_worker(struct http_filter *f);
const struct conn_info *http_conn_info(struct http_filter *f);
/* What filters keep for the client's connection under `key` (the address of something of theirs):
 * made in the connection's arena when it is first asked for, gone with it. */
void *http_conn_object(struct http_filter *f, const void *key,
                       void *(*make)(struct arena *a, const void *arg), const void *arg);
/* The selected route, resolved on first use and cached; NULL: no route. */
const struct route_entry *http_route(struct http_filter *f);
void http_clear_route_cache(struct http_filter *f);
/* Does the route forward to a cluster (and not redirect or answer by itself)? */
bool http_route_forwards(struct http_filter *f);
/* Name of the cluster that the route leads to (the weighted one for this request); empty: none.
 * request/stream_route.c */
sv http_route_cluster(struct http_filter *f);
/* The same cluster's name in stats; empty when there is no such cluster now. */
sv http_route_cluster_stat_name(struct http_filter *f);
/* The protocol that this request would be sent to it with. False: there is no such cluster now. */
bool http_route_upstream_protocol(struct http_filter *f, enum http_protocol *out);
/* Does the route lead to a dynamic_forward_proxy cluster? *port: that of hosts named without
 * one. */
bool http_route_is_dynamic(struct http_filter *f, uint16_t *port);
/* The host that filter state names (envoy.upstream.dynamic_host; NULL: none), and in *port the port
 * when it tells one (envoy.upstream.dynamic_port). */
sv http_dynamic_state(struct http_filter *f, uint16_t *port);
/* The address of the host with that key (api/dns_cache.h), when the route's cluster, which is
 * dynamic and has the hosts of that cache, knows it already. */
bool http_dynamic_host(struct http_filter *f, const struct dns_cache *c, sv key, struct addr *out);
/* ALPN list that the upstream's TLS connection offers in place of its configured one. Borrowed for
 * the stream. */
void http_set_upstream_alpn(struct http_filter *f, const sv *protocols, unsigned n);
/* The address ("1.2.3.4:80") of the host to send this request to at its first attempt, when its
 * cluster has it and its health is one of override_host_status; else any or, with a
 * `strict_status` (200 to 599; 0: none), none: UH with this status. Any bytes: nobody is at what
 * isn't written as addresses are told. */
void http_set_upstream_override_host(struct http_filter *f, sv address, uint16_t strict_status);
/* The address of the host that the request was last sent to; empty: none yet. */
sv http_upstream_host_address(struct http_filter *f);
/* Count a response of `code` that a filter gave in the cluster's place, in its upstream_rq_*. */
void http_charge_route_cluster(struct http_filter *f, unsigned code);
/* Ask the control plane for what this request's route lacks: its virtual host (VHDS) or the routes
 * of its scope (on-demand SRDS); or for the route's cluster (`source`: ODCDS). STARTED:
 * wait->on_done tells. Neither calls back before it returns. */
enum http_fetch { HTTP_FETCH_NOTHING, HTTP_FETCH_STARTED, HTTP_FETCH_OVERFLOW };
enum http_fetch http_fetch_route(struct http_filter *f, struct on_demand_wait *wait);
enum http_fetch http_fetch_cluster(struct http_filter *f, const struct config_source *source,
                                   struct on_demand_wait *wait);
/* Routes as they are now, for what follows: the request's route is chosen anew. */
void http_refresh_route(struct http_filter *f);
/* A new stream takes this one's place and all filters see the request from the start; f's stream is
 * over then. False: it is too late (body was kept, trailers or a response came). */
bool http_recreate_stream(struct http_filter *f);
/* Most specific per-route config of this filter (route, then virtual host, then route table); NULL:
 * none. */
const void *http_route_config(struct http_filter *f);
/* All of them from least to most specific: returns the count (≤ 4; weighted cluster included). */
unsigned http_route_configs(struct http_filter *f, const void *out[4]);
/* Buffer limit of this stream in bytes (0: none); filters may raise it. */
uint32_t http_buffer_limit(struct http_filter *f);
void http_set_buffer_limit(struct http_filter *f, uint32_t bytes);
/* The rate limits of the route and of its virtual host; NULL: none. False: no route to a
 * cluster. */
struct http_rate_limits {
    const struct rate_limits *route, *vhost;
    bool includes_vhost; /* the route says that the virtual host's count as well */
};
bool http_route_rate_limits(struct http_filter *f, struct http_rate_limits *out);
/* Upgrade type of this request ("websocket", "CONNECT"); empty: none. */
sv http_upgrade_type(struct http_filter *f);
/* The i-th instance on this stream of f's own type, in the order of decoding, f itself included;
 * NULL past the end. */
struct http_filter *http_filter_like(struct http_filter *f, unsigned i);
/* Runtime fraction: does the configured percentage hold for this request? */
struct runtime_fraction;

#endif
