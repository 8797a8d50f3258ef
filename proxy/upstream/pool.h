/* Connection pools of one host on one worker: HTTP streams over pooled connections, and raw TCP
 * connections.
 * Threads: worker-local. Spec: Envoy's Http::ConnectionPool, Tcp::ConnectionPool. */
#ifndef SLUICE_UPSTREAM_POOL_H
#define SLUICE_UPSTREAM_POOL_H

#include "proxy/upstream/cluster.h"

enum pool_failure { POOL_OVERFLOW, POOL_CONNECT_FAILED, POOL_CONNECT_TIMEOUT, POOL_NO_TRANSPORT };

/* What a pool is chosen by beside cluster and host. */
struct pool_key {
    struct host *host;
    const struct host_entry *entry;
    uint8_t priority;                            /* PRIORITY_* */
    enum http_protocol downstream;               /* for UPSTREAM_DOWNSTREAM */
    const struct transport_options *transport;   /* NULL: none */
    const struct transport_addresses *addresses; /* of the downstream; NULL: there is none */
    const struct sock_source *source; /* NULL: as the cluster says. Borrowed until the callback */
    /* of the downstream: what is shared of it goes along to internal listeners. NULL: none */
    const struct filter_state *filter_state;
    const struct conn *per_downstream; /* connection_pool_per_downstream_connection; NULL */
};

struct http_pool_request;
struct http_pool_ops {
    /* A stream is open: send through s->codec->vt. Set s->ops/user before (ops passed at request
     * time are already set). */
    void (*on_ready)(void *user, struct codec_stream *s, struct conn *c, struct host *h);
    void (*on_failure)(void *user, enum pool_failure why, sv transport_failure, struct host *h);
};
/* Ask for a stream. May call back before returning; then *handle is NULL. Otherwise *handle allows
 * cancel. The view and host are kept alive by the request. `stream_ops` become the codec
 * stream's. */
void http_pool_request(struct cluster_view *v, const struct pool_key *key,
                       const struct http_pool_ops *ops, void *user,
                       const struct codec_stream_ops *stream_ops,
                       struct http_pool_request **handle);
void http_pool_cancel(struct http_pool_request *r); /* no callback after */
/* Where response header arenas come from: the router's stream sets it right in on_ready. */
struct arena;
void http_pool_stream_arena(struct codec_stream *s, struct arena *a);
/* Did s get a connection that had served others before? Then a reset with no byte of response
 * (rx_header_bytes 0) may only mean that the host had closed it meanwhile. Until on_reset
 * returns. */
bool http_pool_stream_reused(const struct codec_stream *s);
/* The request on s is finished (both ends or reset): the pool learns by itself through codec hooks;
 * no call needed. */

struct tcp_pool_ops {
    /* c is connected and ready; the caller owns it now: conn_set_ops, write, close.
     * tcp_pool_closed() on its close event. */
    void (*on_ready)(void *user, struct conn *c, struct host *h);
    void (*on_failure)(void *user, enum pool_failure why, sv transport_failure, struct host *h);
};
struct tcp_pool_request;
void tcp_pool_request(struct cluster_view *v, const struct pool_key *key,
                      const struct tcp_pool_ops *ops, void *user, struct tcp_pool_request **handle);
void tcp_pool_cancel(struct tcp_pool_request *r);
/* Account the end of a connection handed out by on_ready (stats, breakers, view ref). Call once,
 * from its close event. */
void tcp_pool_closed(struct cluster_view *v, struct host *h, struct conn *c, unsigned priority,
                     bool remote);

/* All pools of a view. */
/* idle connections close, busy ones after their streams */
void pools_drain_host(struct cluster_view *v, const struct host *h);
void pools_drain_all(struct cluster_view *v);
void pools_free(struct cluster_view *v); /* close everything at once, resetting streams; shutdown */

#endif
