/* See api_source.h. */
#include "proxy/config/api_source.h"

#include "protos/gen/core.pb-c.h"

static bool protocol_of(const Core__ApiConfigSource *m, enum api_source_protocol *p,
                        struct diag *d) {
    switch (m->api_type) {
    case CORE__API_CONFIG_SOURCE__API_TYPE__REST:
        *p = API_SOURCE_REST;
        return true;
    case CORE__API_CONFIG_SOURCE__API_TYPE__GRPC:
    case CORE__API_CONFIG_SOURCE__API_TYPE__AGGREGATED_GRPC:
        *p = API_SOURCE_SOTW;
        return true;
    case CORE__API_CONFIG_SOURCE__API_TYPE__DELTA_GRPC:
    case CORE__API_CONFIG_SOURCE__API_TYPE__AGGREGATED_DELTA_GRPC:
        *p = API_SOURCE_DELTA;
        return true;
    default:
        return diag_error(d, "api_type: only GRPC, DELTA_GRPC and REST are supported");
    }
}

#define NANOS_PER_S 1000000000

static bool is_zero(const Pb__Duration *d) { return d->seconds <= 0 && d->nanos <= 0; }
static bool is_duration(const Pb__Duration *d) {
    return d->seconds >= 0 && d->nanos >= 0 && d->nanos < NANOS_PER_S;
}

static bool check_rest(const Core__ApiConfigSource *m, struct diag *d) {
    if (m->n_grpc_services) {
        return diag_error(d, "grpc_services: REST must not have a gRPC service specified");
    }
    if (m->n_cluster_names != 1) {
        return diag_error(d, "cluster_names: REST must have a single cluster name specified");
    }
    if (!m->refresh_delay || is_zero(m->refresh_delay)) {
        return diag_error(d, "refresh_delay is required for REST API configuration sources");
    }
    if (!is_duration(m->refresh_delay)) {
        return diag_error(d, "refresh_delay: Invalid duration: expected positive duration");
    }
    return true;
}

static bool check_grpc(const Core__ApiConfigSource *m, bool is_ads, struct diag *d) {
    if (m->n_cluster_names) {
        return diag_error(d, "cluster_names: (DELTA_)GRPC must not have a cluster name specified");
    }
    if (m->n_grpc_services == 0) {
        return diag_error(d,
                          "API configs must have either a gRPC service or a cluster name defined");
    }
    DIAG_FIELD(d, "grpc_services");
    if (m->n_grpc_services > 1) {
        return diag_error(d, "(DELTA_)GRPC must have a single gRPC service specified");
    }
    DIAG_FIELD(d, "[0]");
    const Core__GrpcService *g = m->grpc_services[0];
    if (g->target_specifier_case == CORE__GRPC_SERVICE__TARGET_SPECIFIER_GOOGLE_GRPC && is_ads) {
        return true; /* its cluster was checked when it was made */
    }
    if (g->target_specifier_case != CORE__GRPC_SERVICE__TARGET_SPECIFIER_ENVOY_GRPC) {
        return diag_error(d,
                          "only envoy_grpc is supported (google_grpc in ads_config, hds_config and "
                          "load_stats_config, too)");
    }
    const Core__RetryPolicy *r = g->envoy_grpc->retry_policy;
    const Core__BackoffStrategy *b = r ? r->retry_back_off : NULL;
    if (b && b->max_interval && b->base_interval &&
        (b->max_interval->seconds < b->base_interval->seconds ||
         (b->max_interval->seconds == b->base_interval->seconds &&
          b->max_interval->nanos < b->base_interval->nanos))) {
        return diag_error(d, "envoy_grpc.retry_policy.retry_back_off: max_interval must be greater "
                             "than or equal to the base_interval");
    }
    return true;
}

static bool check(const Core__ApiConfigSource *m, bool is_ads, enum api_source_protocol *protocol,
                  struct diag *d) {
    if (!protocol_of(m, protocol, d)) {
        return false;
    }
    if (m->transport_api_version == CORE__API_VERSION__V2) { /* AUTO, the default, means V3 */
        return diag_error(d, "transport_api_version: V2 is no longer supported: use V3");
    }
    if (m->n_config_validators) {
        return diag_error(d, "config_validators are not supported");
    }
    return *protocol == API_SOURCE_REST ? check_rest(m, d) : check_grpc(m, is_ads, d);
}

bool api_source_check(const void *msg, enum api_source_protocol *protocol, struct diag *d) {
    return check(msg, false, protocol, d);
}

bool api_source_check_ads(const void *msg, enum api_source_protocol *protocol, struct diag *d) {
    return check(msg, true, protocol, d);
}
