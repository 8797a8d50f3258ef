/* A compiled ClusterLoadAssignment: endpoints as config says, before DNS and health. Threads:
 * immutable.
 * Spec: config.endpoint.v3.ClusterLoadAssignment. Not here: host sets (upstream/host_set.c builds
 * them from this). */
#ifndef SLUICE_CONFIG_ENDPOINTS_H
#define SLUICE_CONFIG_ENDPOINTS_H

#include "proxy/upstream/host.h"

struct config_source;
/* What few endpoints have. */
struct cla_endpoint_extra {
    sv dns_name;
    sv hostname; /* Endpoint.hostname */
    const struct addr *additional;
    unsigned additional_n;
    uint16_t health_check_port;
    sv proxy_tlvs; /* for PROXY headers to it, as on the wire */
    sv health_check_hostname;
    struct addr health_check_addr; /* family 0: none; port only set: same host */
};
struct cla_endpoint {
    struct addr addr;                   /* family 0: the port of what extra->dns_name resolves to */
    const struct kv_metadata *metadata; /* interned; NULL: none */
    const struct cla_endpoint_extra *extra; /* never NULL; one that is empty serves most */
    uint32_t weight;
    uint32_t locality;     /* index into localities */
    uint8_t priority;      /* PRIORITY_MAX at most */
    uint8_t health_status; /* core.v3.HealthStatus */
    bool health_check_disabled;
};
struct cla_locality {
    struct locality id;
    uint32_t priority, weight;
    bool has_weight;
    /* LEDS: where more endpoints come from, and their collection's name. Else NULL */
    const struct config_source *leds_source;
    sv leds_name;
};
struct cla_config {
    sv cluster_name;
    const struct cla_endpoint *endpoints;
    unsigned endpoints_n;
    const struct cla_locality *localities;
    unsigned localities_n;
    uint32_t overprovisioning_factor; /* 140 */
    uint32_t drop_numerator, drop_denominator;
    sv drop_category;
    uint32_t stale_after_ms; /* 0: never */
    bool weighted_priority_health;
};

#define PRIORITY_MAX 127u
struct compile_ctx;
/* msg: endpoint.v3.ClusterLoadAssignment. allow_names: hostnames are fine (STRICT_DNS,
 * LOGICAL_DNS). NULL on error. */
struct cla_config *cla_compile(struct compile_ctx *ctx, const void *msg, bool allow_names);

#endif
