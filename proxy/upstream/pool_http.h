/* The HTTP pool's own structures, shared by pool_http.c (requests, pools) and pool_http_conn.c
 * (connections).
 * Threads: worker-local. */
#ifndef SLUICE_UPSTREAM_POOL_HTTP_H
#define SLUICE_UPSTREAM_POOL_HTTP_H

#include "proxy/upstream/pool_table.h"
#include "proxy/upstream/upstream_connect.h"

#define HTTP_CONN_MAGIC 0x4C0117C7u
/* a connection idle for longer is looked at before it is used: see http_pool_take */
#define HTTP_POOL_STALE_US 250000u

enum http_conn_state {
    HTTP_CONN_CONNECTING,
    HTTP_CONN_READY,    /* takes streams */
    HTTP_CONN_BUSY,     /* as many streams as it may have now */
    HTTP_CONN_DRAINING, /* takes no more; closes with its last stream */
    HTTP_CONN_CLOSED,
};

struct http_pool {
    struct list node; /* in host_view.http */
    struct host_view *hv;
    struct cluster_view *view; /* a ref */
    struct arena arena;
    enum upstream_protocol protocol; /* HTTP1, HTTP2 or AUTO */
    bool is_h2_seen;                 /* AUTO: what the host chose last */
    bool is_draining;                /* its host is gone: freed when empty */
    uint8_t priority;
    slot_t transport;
    sv key;                 /* what the transport's options differ by */
    uint64_t downstream_id; /* connection_pool_per_downstream_connection; 0: shared */
    struct transport_options *options;
    const struct sock_source *source;        /* of its connections; NULL: as the cluster says */
    const struct filter_state *shared_state; /* to internal listeners; NULL: none */
    struct list ready;                       /* the one used last in front */
    struct list busy, connecting, draining;
    struct list pending; /* struct http_pool_request, the oldest in front */
    unsigned pending_n, connecting_n, streams_n;
    uint32_t peer_max_streams; /* HTTP/2: what the host allowed last */
    struct loop_task task;     /* open connections for the pending, free when empty */
};

struct http_pool_request {
    struct list node;
    struct http_pool *pool;
    /* of http_pool_request(), until it returns: set to NULL when the request is over */
    struct http_pool_request **waiting;
    const struct http_pool_ops *ops;
    const struct codec_stream_ops *stream_ops;
    void *user;
};

struct http_conn {
    uint32_t magic;
    uint8_t state; /* enum http_conn_state */
    bool in_dispatch, is_notified, has_protocol_error, is_stale;
    bool was_cut;     /* it ends with an exchange that did not come to its end */
    struct list node; /* in the pool's list of its state */
    struct http_pool *pool;
    struct conn *conn; /* NULL while connecting and when closed */
    struct codec *codec;
    struct upstream_connect connect;
    uint32_t streams, max_streams;
    uint64_t requests;
    uint64_t opened_us, idle_since_us;
    struct timer idle, duration;
    struct loop_task task; /* look at it once the callbacks are over */
    struct loop_garbage garbage;
};

/* pool_http.c */
/* Hand pending requests to hc while it takes streams. */
void http_pool_serve(struct http_pool *p, struct http_conn *hc);
/* Open what connections the pending need; and look later whether the pool is done for. */
void http_pool_check_later(struct http_pool *p);
/* A connect failed: all pending requests fail, for the caller decides where to go then. */
void http_pool_fail_pending(struct http_pool *p, enum pool_failure why, sv reason);

/* pool_http_conn.c */
/* Begin to connect. False: failed at once and counted; the connection is gone. */
bool http_conn_new(struct http_pool *p, enum pool_failure *why, sv *reason);
/* Open a stream and hand it to the user. False: the connection cannot take one. */
bool http_conn_attach(struct http_conn *hc, const struct http_pool_ops *ops, void *user,
                      const struct codec_stream_ops *stream_ops);
void http_conn_close(struct http_conn *hc, const char *reason);
/* No new streams; close now when it has none. */
void http_conn_drain(struct http_conn *hc);
uint32_t http_conn_streams_max(const struct http_pool *p, bool is_h2);

#endif
