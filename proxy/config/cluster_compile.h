/* The parts of compiling a Cluster, one file each. Threads: the config thread. m:
 * cluster.v3.Cluster. */
#ifndef SLUICE_CONFIG_CLUSTER_COMPILE_H
#define SLUICE_CONFIG_CLUSTER_COMPILE_H

#include "protos/gen/cluster.pb-c.h"
#include "proxy/upstream/cluster.h"

/* compile_cluster_http.c: typed_extension_protocol_options and the legacy fields. */
void cluster_http_compile(struct compile_ctx *ctx, const Cluster__Cluster *m,
                          struct cluster_config *c);
/* compile_cluster_lb.c: lb_policy, load_balancing_policy, common_lb_config. */
void cluster_lb_compile(struct compile_ctx *ctx, const Cluster__Cluster *m,
                        struct cluster_config *c);
/* compile_cluster_subset.c; after common_lb_config. m may be NULL. */
void cluster_subset_compile(struct compile_ctx *ctx, const Cluster__Cluster__LbSubsetConfig *m,
                            struct cluster_config *c);
/* compile_cluster_discovery.c: cluster_type extensions, DNS, health checks and outliers, upstream
 * filters, stats. */
void cluster_type_compile(struct compile_ctx *ctx, const Cluster__Cluster__CustomClusterType *t,
                          struct cluster_config *c);
/* What a CLUSTER_TYPE_DYNAMIC one has to have, when all the rest is compiled. */
void cluster_dynamic_check(struct compile_ctx *ctx, const struct cluster_config *c);
void cluster_dns_compile(struct compile_ctx *ctx, const Cluster__Cluster *m,
                         struct cluster_config *c);
void cluster_detection_compile(struct compile_ctx *ctx, const Cluster__Cluster *m,
                               struct cluster_config *c);
void cluster_filters_compile(struct compile_ctx *ctx, const Cluster__Cluster *m,
                             struct cluster_config *c);
void cluster_stats_compile(struct compile_ctx *ctx, struct cluster_config *c);
/* per_connection_buffer_limit_bytes when not set */
#define CLUSTER_BUFFER_LIMIT_BYTES (1024u * 1024)

/* compile.c: the cluster warms until this ClusterLoadAssignment is there. source:
 * core.v3.ConfigSource. service_name lives as long as the resource. */
void compile_endpoints_ref(struct compile_ctx *ctx, sv service_name, const void *source);

#endif
