/* Hosts of dynamic_forward_proxy clusters: by the name that a request or connection gives.
 * Threads: worker-local. Spec: extensions.clusters.dynamic_forward_proxy.v3.
 * Not here: looking names up (dns_cache.c). */
#ifndef SLUICE_UPSTREAM_DYNAMIC_HOST_H
#define SLUICE_UPSTREAM_DYNAMIC_HOST_H

#include "proxy/api/dns_cache.h"
#include "proxy/observe/stream_info.h"
#include "proxy/upstream/cluster.h"

/* Filter state that says where to go, in place of authority or server name, and of the cluster's
 * port. */
#define DYNAMIC_HOST_STATE "envoy.upstream.dynamic_host"
#define DYNAMIC_PORT_STATE "envoy.upstream.dynamic_port"

/* The port that filter state gives, or `dflt`. */
uint16_t dynamic_port(const struct stream_info *si, uint16_t dflt);
/* What names the host: empty when nothing does. */
sv dynamic_authority(const struct lb_context *ctx);
/* Of hosts that are named without one: 80, with TLS 443. */
uint16_t dynamic_default_port(const struct cluster_view *v);
/* Its key in the cluster's DNS cache (dns_cache_key), in `room` perhaps. */
sv dynamic_key(const struct cluster_view *v, const struct lb_context *ctx,
               char room[DNS_CACHE_KEY_MAX]);
/* The host of that key; NULL: it is not there, or unhealthy. Its use is noted. */
struct host *dynamic_host_find(struct cluster_view *v, sv key, const struct host_entry **entry);
struct host *dynamic_host_pick(struct cluster_view *v, const struct lb_context *ctx,
                               const struct host_entry **entry);

#endif
