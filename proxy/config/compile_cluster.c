/* Cluster → struct cluster_config: discovery type, limits, sockets, metadata. Protocol options:
 * compile_cluster_http.c; the balancer: compile_cluster_lb.c.
 * Threads: the config thread. Spec: config.cluster.v3.Cluster. Not here: endpoints' discovery
 * (xds/, upstream/dns.c). */
#include "protos/gen/cluster.pb-c.h"
#include "proxy/config/build_lists.h"
#include "proxy/config/cluster_compile.h"
#include "proxy/config/config.h"
#include "proxy/config/endpoints.h"
#include "proxy/config/socket_config.h"
#include "proxy/observe/metadata.h"
#include "proxy/route/route_metadata.h"

static sv keep(struct compile_ctx *ctx, const char *s) {
    return *s ? arena_sv(ctx->arena, sv_cstr(s)) : SV_NULL;
}

/* ---- circuit breakers ---- */

#define BREAKER_DEFAULTS                                                                      \
    {                                                                                         \
        .max_connections = 1024, .max_pending = 1024, .max_requests = 1024, .max_retries = 3, \
        .max_pools = UINT32_MAX, .max_connections_per_host = UINT32_MAX,                      \
    }
#define BREAKER_OPEN                                                                          \
    {                                                                                         \
        .max_connections = UINT32_MAX, .max_pending = UINT32_MAX, .max_requests = UINT32_MAX, \
        .max_retries = UINT32_MAX, .max_pools = UINT32_MAX,                                   \
        .max_connections_per_host = UINT32_MAX,                                               \
    }
/* What most clusters have: nothing is set, or, as Istio has it, nothing is limited. */
static const struct breaker common_breakers[][PRIORITIES] = {
    {BREAKER_DEFAULTS, BREAKER_DEFAULTS},
    {[PRIORITY_DEFAULT] = BREAKER_OPEN, [PRIORITY_HIGH] = BREAKER_DEFAULTS},
};

static bool same_breaker(const struct breaker *a, const struct breaker *b) {
    return a->max_connections == b->max_connections && a->max_pending == b->max_pending &&
           a->max_requests == b->max_requests && a->max_retries == b->max_retries &&
           a->max_pools == b->max_pools &&
           a->max_connections_per_host == b->max_connections_per_host && !a->has_retry_budget &&
           !a->track_remaining;
}

static const struct breaker *common_or_copy(struct arena *a, const struct breaker *v) {
    for (size_t i = 0; i < ARRAY_LEN(common_breakers); i++) {
        const struct breaker *c = common_breakers[i];
        if (same_breaker(&v[PRIORITY_DEFAULT], &c[PRIORITY_DEFAULT]) &&
            same_breaker(&v[PRIORITY_HIGH], &c[PRIORITY_HIGH])) {
            return c;
        }
    }
    struct breaker *own = arena_new_array(a, struct breaker, PRIORITIES);
    memcpy(own, v, PRIORITIES * sizeof(*v));
    return own;
}

static uint32_t value_or(const Pb__UInt32Value *v, uint32_t dflt) { return v ? v->value : dflt; }

static void breaker(const Cluster__CircuitBreakers__Thresholds *t, struct breaker *b) {
    b->max_connections = value_or(t->max_connections, b->max_connections);
    b->max_pending = value_or(t->max_pending_requests, b->max_pending);
    b->max_requests = value_or(t->max_requests, b->max_requests);
    b->max_retries = value_or(t->max_retries, b->max_retries);
    b->max_pools = value_or(t->max_connection_pools, b->max_pools);
    b->track_remaining = t->track_remaining;
    if (t->retry_budget) {
        b->has_retry_budget = true;
        b->budget_percent =
            t->retry_budget->budget_percent ? t->retry_budget->budget_percent->value : 20.0;
        b->min_retry_concurrency = value_or(t->retry_budget->min_retry_concurrency, 3);
    }
}

static void per_host(struct compile_ctx *ctx, const Cluster__CircuitBreakers__Thresholds *t,
                     struct breaker *v) {
    unsigned p = (unsigned)t->priority;
    if (t->max_pending_requests || t->max_requests || t->max_retries || t->max_connection_pools ||
        t->retry_budget || t->track_remaining) {
        diag_error(ctx->diag, "Unsupported field in per_host_thresholds: only max_connections");
    } else if (p < PRIORITIES) {
        v[p].max_connections_per_host = value_or(t->max_connections, UINT32_MAX);
    }
}

static void breakers(struct compile_ctx *ctx, const Cluster__CircuitBreakers *m,
                     struct cluster_config *c) {
    struct breaker v[PRIORITIES] = {BREAKER_DEFAULTS, BREAKER_DEFAULTS};
    c->use = arena_new_array(ctx->arena, struct breaker_use, PRIORITIES);
    c->drops = arena_new(ctx->arena, struct cluster_drops);
    for (size_t i = 0; m && i < m->n_thresholds; i++) {
        unsigned p = (unsigned)m->thresholds[i]->priority;
        if (p < PRIORITIES) {
            breaker(m->thresholds[i], &v[p]);
        }
    }
    for (size_t i = 0; m && i < m->n_per_host_thresholds; i++) {
        DIAG_FIELD(ctx->diag, "circuit_breakers.per_host_thresholds[%zu]", i);
        per_host(ctx, m->per_host_thresholds[i], v);
    }
    c->breakers = common_or_copy(ctx->arena, v);
}

/* ---- discovery ---- */

static void inline_endpoints(struct compile_ctx *ctx, const Cluster__Cluster *m,
                             struct cluster_config *c, bool names) {
    if (!m->load_assignment) {
        return;
    }
    DIAG_FIELD(ctx->diag, "load_assignment");
    c->endpoints = cla_compile(ctx, m->load_assignment, names);
}

static void eds(struct compile_ctx *ctx, const Cluster__Cluster *m, struct cluster_config *c) {
    if (!m->eds_cluster_config) {
        diag_error(ctx->diag, "cannot create an EDS cluster without an EDS config");
        return;
    }
    DIAG_FIELD(ctx->diag, "eds_cluster_config");
    const char *service = m->eds_cluster_config->service_name;
    c->eds_service_name = *service && !sv_is(c->name, service) ? keep(ctx, service) : c->name;
    compile_endpoints_ref(ctx, c->eds_service_name, m->eds_cluster_config->eds_config);
}

static const struct original_dst_key *metadata_key(struct compile_ctx *ctx,
                                                   const TypeMetadata__MetadataKey *m) {
    struct original_dst_key *k = arena_new(ctx->arena, struct original_dst_key);
    sv *path = arena_new_array(ctx->arena, sv, m->n_path);
    for (size_t i = 0; i < m->n_path; i++) {
        path[i] = keep(ctx, m->path[i]->key);
    }
    k->ns = keep(ctx, m->key);
    k->path = path;
    k->path_n = (unsigned)m->n_path;
    return k;
}

static void original_dst(struct compile_ctx *ctx, const Cluster__Cluster *m,
                         struct cluster_config *c) {
    if (m->load_assignment) {
        diag_error(ctx->diag, "ORIGINAL_DST clusters must have no load assignment configured");
    }
    if (m->lb_config_case != CLUSTER__CLUSTER__LB_CONFIG_ORIGINAL_DST_LB_CONFIG) {
        return;
    }
    const Cluster__Cluster__OriginalDstLbConfig *o = m->original_dst_lb_config;
    c->use_http_header_original_dst = o->use_http_header;
    c->original_dst_header =
        keep(ctx, *o->http_header_name ? o->http_header_name : "x-envoy-original-dst-host");
    c->has_original_dst_port = o->upstream_port_override != NULL;
    c->original_dst_port = (uint16_t)value_or(o->upstream_port_override, 0);
    if (o->metadata_key) {
        c->original_dst_key = metadata_key(ctx, o->metadata_key);
    }
}

static void discovery(struct compile_ctx *ctx, const Cluster__Cluster *m,
                      struct cluster_config *c) {
    if (m->cluster_discovery_type_case == CLUSTER__CLUSTER__CLUSTER_DISCOVERY_TYPE_CLUSTER_TYPE) {
        cluster_type_compile(ctx, m->cluster_type, c);
        /* those of an aggregate or of a DNS cache are looked at by nobody */
        if (c->type != CLUSTER_TYPE_AGGREGATE && c->type != CLUSTER_TYPE_DYNAMIC) {
            inline_endpoints(ctx, m, c, c->dns != NULL);
        }
        return;
    }
    switch (m->cluster_discovery_type_case == CLUSTER__CLUSTER__CLUSTER_DISCOVERY_TYPE_TYPE
                ? m->type
                : CLUSTER__CLUSTER__DISCOVERY_TYPE__STATIC) {
    case CLUSTER__CLUSTER__DISCOVERY_TYPE__STATIC:
        c->type = CLUSTER_TYPE_STATIC;
        inline_endpoints(ctx, m, c, false);
        return;
    case CLUSTER__CLUSTER__DISCOVERY_TYPE__STRICT_DNS:
        c->type = CLUSTER_TYPE_STRICT_DNS;
        inline_endpoints(ctx, m, c, true);
        cluster_dns_compile(ctx, m, c);
        return;
    case CLUSTER__CLUSTER__DISCOVERY_TYPE__LOGICAL_DNS:
        c->type = CLUSTER_TYPE_LOGICAL_DNS;
        inline_endpoints(ctx, m, c, true);
        cluster_dns_compile(ctx, m, c);
        if (c->endpoints && c->endpoints->endpoints_n != 1) {
            diag_error(ctx->diag, "LOGICAL_DNS clusters must have a single locality_lb_endpoint "
                                  "and a single lb_endpoint");
        }
        return;
    case CLUSTER__CLUSTER__DISCOVERY_TYPE__EDS:
        c->type = CLUSTER_TYPE_EDS;
        eds(ctx, m, c);
        return;
    case CLUSTER__CLUSTER__DISCOVERY_TYPE__ORIGINAL_DST:
        c->type = CLUSTER_TYPE_ORIGINAL_DST;
        original_dst(ctx, m, c);
        return;
    default:
        diag_error(ctx->diag, "type: value must be one of the defined enum values");
    }
}

/* ---- sockets ---- */

/* additional_source_addresses is the older name of the same list. */
static void extra_sources(struct compile_ctx *ctx, const Core__BindConfig *b,
                          struct cluster_bind *out) {
    size_t newer = b->n_extra_source_addresses, older = b->n_additional_source_addresses;
    if (newer && older) {
        diag_error(ctx->diag,
                   "extra_source_addresses and additional_source_addresses are both set");
        return;
    }
    struct addr *extra = arena_new_array(ctx->arena, struct addr, newer + older);
    for (size_t i = 0; i < newer; i++) {
        DIAG_FIELD(ctx->diag, "extra_source_addresses[%zu].address", i);
        compile_socket_address(ctx, b->extra_source_addresses[i]->address, &extra[i]);
    }
    for (size_t i = 0; i < older; i++) {
        DIAG_FIELD(ctx->diag, "additional_source_addresses[%zu]", i);
        compile_socket_address(ctx, b->additional_source_addresses[i], &extra[i]);
    }
    out->extra_sources = extra;
    out->extra_sources_n = (unsigned)(newer + older);
}

static void bind_config(struct compile_ctx *ctx, const Core__BindConfig *b,
                        struct cluster_bind *out) {
    DIAG_FIELD(ctx->diag, "upstream_bind_config");
    if (b->source_address) {
        struct addr *a = arena_new(ctx->arena, struct addr);
        DIAG_FIELD(ctx->diag, "source_address");
        compile_socket_address(ctx, b->source_address, a);
        out->source = a;
    }
    extra_sources(ctx, b, out);
    out->opts.freebind = b->freebind && b->freebind->value;
    socket_options_compile(ctx, (void *const *)b->socket_options, b->n_socket_options, &out->opts);
    if (b->local_address_selector) {
        compile_unhonoured(ctx, "local_address_selector");
    }
}

static const struct cluster_bind *binding(struct compile_ctx *ctx, const Cluster__Cluster *m) {
    if (!m->upstream_bind_config && !m->upstream_connection_options) {
        return &cluster_no_bind;
    }
    struct cluster_bind *out = arena_new(ctx->arena, struct cluster_bind);
    if (m->upstream_bind_config) {
        bind_config(ctx, m->upstream_bind_config, out);
    }
    if (m->upstream_connection_options) {
        tcp_keepalive_compile(m->upstream_connection_options->tcp_keepalive, &out->opts);
    }
    return out;
}

static void transport_sockets(struct compile_ctx *ctx, const Cluster__Cluster *m,
                              struct cluster_config *c) {
    c->transport = compile_transport_socket(ctx, m->transport_socket);
    struct transport_match *v =
        arena_new_array(ctx->arena, struct transport_match, m->n_transport_socket_matches);
    for (size_t i = 0; i < m->n_transport_socket_matches; i++) {
        DIAG_FIELD(ctx->diag, "transport_socket_matches[%zu]", i);
        const Cluster__Cluster__TransportSocketMatch *t = m->transport_socket_matches[i];
        v[i].name = keep(ctx, t->name);
        struct kv_value *match = arena_new(ctx->arena, struct kv_value);
        *match = t->match ? kv_from_struct(t->match, ctx->arena) : kv_empty_struct();
        v[i].match = match;
        v[i].transport = compile_transport_socket(ctx, t->transport_socket);
    }
    c->transport_matches = v;
    c->transport_matches_n = (unsigned)m->n_transport_socket_matches;
    const struct transport_list *all = ctx->build->transports;
    for (size_t i = 0; i < all->v.n; i++) {
        c->tells_addresses |= all->v.p[i].type->tells_addresses;
    }
    if (m->transport_socket_matcher) {
        diag_error(ctx->diag, "transport_socket_matcher is not supported");
    }
}

/* ---- the rest ---- */

static void unhonoured(struct compile_ctx *ctx, const Cluster__Cluster *m,
                       const struct cluster_config *c) {
    const struct compile_field fields[] = {
        {m->lrs_server && !c->is_reported_to_self, "lrs_server"},
        {m->n_lrs_report_endpoint_metrics != 0, "lrs_report_endpoint_metrics"},
        {m->track_timeout_budgets, "track_timeout_budgets"},
        {m->upstream_config != NULL, "upstream_config"},
        {m->preconnect_policy != NULL, "preconnect_policy"},
        {m->stats_matcher != NULL, "stats_matcher"},
        {m->track_cluster_stats != NULL, "track_cluster_stats"},
        {m->queuing_policies != NULL, "queuing_policies"},
        {m->wait_for_warm_on_init && !m->wait_for_warm_on_init->value, "wait_for_warm_on_init"},
        {m->per_connection_buffer_high_watermark_timeout != NULL,
         "per_connection_buffer_high_watermark_timeout"},
    };
    compile_unhonoured_fields(ctx, fields, ARRAY_LEN(fields));
    if (m->connection_pool_per_downstream_connection) {
        diag_error(ctx->diag, "connection_pool_per_downstream_connection is not supported");
    }
}

static void names_and_stats(struct compile_ctx *ctx, const Cluster__Cluster *m,
                            struct cluster_config *c) {
    c->name = sv_is(ctx->owner, m->name) ? ctx->owner : keep(ctx, m->name);
    c->observability_name = *m->alt_stat_name ? keep(ctx, m->alt_stat_name) : c->name;
    struct config *cfg = ctx->build->config;
    c->slot = names_acquire(cfg->clusters, c->name);
    names_release_with(cfg->clusters, c->slot, ctx->arena);
    cluster_stats_compile(ctx, c);
}

static void limits(struct compile_ctx *ctx, const Cluster__Cluster *m, struct cluster_config *c) {
    {
        DIAG_FIELD(ctx->diag, "connect_timeout");
        compile_duration_ms(ctx, m->connect_timeout, 5000, &c->connect_timeout_ms);
    }
    c->buffer_limit_bytes =
        value_or(m->per_connection_buffer_limit_bytes, CLUSTER_BUFFER_LIMIT_BYTES);
    c->close_connections_on_host_health_failure = m->close_connections_on_host_health_failure;
    c->drain_connections_on_host_removal = m->ignore_health_on_host_removal;
    c->is_reported_to_self = m->lrs_server && m->lrs_server->config_source_specifier_case ==
                                                  CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_SELF;
    c->wait_for_warm_on_init = !m->wait_for_warm_on_init || m->wait_for_warm_on_init->value;
    compile_duration_ms(ctx, m->cleanup_interval, 5000, &c->cleanup_interval_ms);
    if (m->max_requests_per_connection) {
        c->max_requests_per_connection = m->max_requests_per_connection->value;
    }
}

bool compile_cluster(struct compile_ctx *ctx, struct resource *r, const void *msg) {
    const Cluster__Cluster *m = msg;
    struct cluster_config *c = arena_new(ctx->arena, struct cluster_config);
    r->cluster = c;
    c->added_via_api = !ctx->is_static;
    names_and_stats(ctx, m, c);
    ctx->stat_prefix = stats_scope_prefix(c->stats);
    limits(ctx, m, c);
    breakers(ctx, m->circuit_breakers, c);
    discovery(ctx, m, c);
    cluster_lb_compile(ctx, m, c);
    cluster_http_compile(ctx, m, c);
    transport_sockets(ctx, m, c);
    c->bind = binding(ctx, m);
    c->metadata = route_metadata_compile(ctx, m->metadata);
    cluster_detection_compile(ctx, m, c);
    cluster_filters_compile(ctx, m, c);
    unhonoured(ctx, m, c);
    if (c->type == CLUSTER_TYPE_DYNAMIC) {
        cluster_dynamic_check(ctx, c);
    }
    return diag_ok(ctx->diag);
}
