/* Request mirroring: copies of a request sent to other clusters, whose answers nobody waits for.
 * Threads: worker-local. Spec: RouteAction.request_mirror_policies; Envoy's ShadowWriter. */
#ifndef SLUICE_REQUEST_MIRROR_H
#define SLUICE_REQUEST_MIRROR_H

#include "proxy/api/http_filter.h"
#include "proxy/route/route_table.h"

struct mirrors; /* of one request, in the stream's arena */

/* Start the copies that the route's policies ask for; h: the request as it goes upstream. NULL:
 * none. Never calls back. */
struct mirrors *mirrors_start(struct http_filter *f, const struct route_entry *e,
                              const struct headers *h, uint32_t timeout_ms, bool end_stream);
/* Body, shared with the copies and left as it is. A copy whose host does not keep up is given
 * up. */
void mirrors_data(struct mirrors *m, const struct buf *data, bool end_stream);
void mirrors_trailers(struct mirrors *m, const struct headers *t);
/* The request is over: complete copies go on by themselves, others are cut short. NULL is fine. */
void mirrors_end(struct mirrors *m);

#endif
