/* A TCP connection to an upstream in the shape of a codec stream, for who sends HTTP requests and
 * is to terminate this one: headers are answered with 200, the body is what the connection carries.
 * Threads: worker-local. Spec: RouteAction.UpgradeConfig.ConnectConfig; Envoy's TcpUpstream. */
#ifndef SLUICE_UPSTREAM_RAW_STREAM_H
#define SLUICE_UPSTREAM_RAW_STREAM_H

#include "proxy/upstream/pool.h"

struct raw_stream;
/* As http_pool_request(), but never calls on_ready before returning, and what counts a request as
 * active (upstream_rq_total, upstream_rq_active) is done here. `preface` goes before the body;
 * moved. */
void raw_stream_request(struct cluster_view *v, const struct pool_key *key, struct buf *preface,
                        const struct http_pool_ops *ops, void *user,
                        const struct codec_stream_ops *stream_ops, struct raw_stream **handle);
void raw_stream_cancel(struct raw_stream *r); /* before on_ready; no callback after */

#endif
