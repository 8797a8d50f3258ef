/* A worker that is never asked for anything, and calls that are never made: for tests of what a
 * tracer compiles and writes, so that server/ and upstream/ are not linked. Include it in one test
 * source. */
#ifndef SLUICE_TESTS_SUPPORT_FAKE_WORKER_H
#define SLUICE_TESTS_SUPPORT_FAKE_WORKER_H

#include "proxy/api/upstream_call.h"

struct loop *worker_loop(struct worker *w) {
    return (struct loop *)w;
}
sv worker_node_cluster(const struct worker *w) {
    (void)w;
    return SV("cluster");
}
const struct addr *worker_local_address(const struct worker *w) {
    (void)w;
    return NULL;
}
void worker_at_end(struct worker *w, struct worker_ending *e) { (void)w, (void)e; }
struct upstream_call *upstream_call_start(struct worker *w, const struct upstream_call_options *o,
                                          const struct headers *h, struct buf *body,
                                          bool end_stream, upstream_call_done_fn done, void *user) {
    (void)w, (void)o, (void)h, (void)body, (void)end_stream, (void)done, (void)user;
    return NULL;
}
void upstream_call_cancel(struct upstream_call *c) { (void)c; }
struct upstream_call *grpc_call_start(struct worker *w, const struct upstream_call_options *o,
                                      const struct grpc_call_method *m, sv message,
                                      grpc_call_done_fn done, void *user) {
    (void)w, (void)o, (void)m, (void)message, (void)done, (void)user;
    return NULL;
}

#endif
