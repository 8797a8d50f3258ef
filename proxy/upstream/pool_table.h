/* A view's connections by host: what http and tcp pools hang on. Private to proxy/upstream.
 * Threads: worker-local. */
#ifndef SLUICE_UPSTREAM_POOL_TABLE_H
#define SLUICE_UPSTREAM_POOL_TABLE_H

#include "proxy/base/map.h"
#include "proxy/upstream/pool.h"

/* All connections of this worker to one host. */
struct host_view {
    struct host *host;         /* a ref */
    struct cluster_view *view; /* each pool and TCP connection holds a ref */
    struct list http;          /* struct http_pool */
    struct list tcp;           /* struct tcp_conn: connecting, or handed out */
    bool is_listed;            /* in the table; else its host is gone: freed with its last pool */
};
struct pool_table {
    struct map hosts; /* id of the host → struct host_view */
    struct map tcp;   /* id of the connection → struct tcp_conn */
};

/* made when there is none */
struct host_view *pool_table_host(struct cluster_view *v, struct host *h);
struct pool_table *pool_table_of(struct cluster_view *v);
/* frees it when nothing hangs on it and it is not listed */
void host_view_release(struct host_view *hv);
void pool_table_free(struct pool_table *t); /* of a view without pools; NULL is fine */
/* Endpoints or their health changed: drain the pools of hosts that are gone, close connections
 * where the cluster says so. */
void pool_table_follow(struct cluster_view *v, bool membership_changed);
bool pools_host_in_use(struct cluster_view *v, const struct host *h);

/* pool_http.c, pool_tcp.c */
void http_pools_drain(struct host_view *hv);
void http_pools_close(struct host_view *hv, const char *reason); /* at once, resetting streams */
void tcp_conns_close(struct host_view *hv, const char *reason);
bool http_pools_in_use(const struct host_view *hv);

/* The transport's options of a request: `own` is room for those that have addresses, too. NULL:
 * none. */
const struct transport_options *pool_transport_options(const struct cluster_config *c,
                                                       const struct pool_key *key,
                                                       struct transport_options *own);
/* A deep copy in the arena; NULL gives NULL. */
struct transport_options *transport_options_dup(const struct transport_options *o, struct arena *a);
/* What a request's connection to an internal listener takes along of its filter state. As in Envoy
 * a pool keeps that of the request it was made for. NULL: nothing. */
const struct filter_state *pool_shared_state(const struct pool_key *key, struct arena *a);

#endif
