/* A worker that has no clusters, for tests of views and pools without server/. Include it in one
 * test source, which defines worker_transport(). */
#ifndef SLUICE_TESTS_SUPPORT_CLUSTERLESS_WORKER_H
#define SLUICE_TESTS_SUPPORT_CLUSTERLESS_WORKER_H

#include <uv.h>

#include "proxy/api/worker.h"

struct cluster_view *worker_cluster(struct worker *w, slot_t slot) {
    (void)w, (void)slot;
    return NULL;
}
int worker_dial_internal(struct worker *w, struct passthrough *p) {
    (void)w, (void)p;
    return UV_EINVAL;
}
uint64_t worker_clusters_generation(const struct worker *w) {
    (void)w;
    return 1;
}

#endif
