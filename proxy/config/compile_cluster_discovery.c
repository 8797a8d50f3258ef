/* Of a Cluster: cluster_type extensions, DNS, outlier detection and health checks, upstream
 * filters, stats.
 * Threads: the config thread. Spec: cluster.v3.Cluster, extensions.clusters.dns.v3, .aggregate.v3
 * and .dynamic_forward_proxy.v3. */
#include "protos/any.h"
#include "protos/gen/clusters_aggregate.pb-c.h"
#include "protos/gen/clusters_dns.pb-c.h"
#include "protos/gen/clusters_dynamic_forward_proxy.pb-c.h"
#include "proxy/api/registry.h"
#include "proxy/config/cluster_compile.h"
#include "proxy/config/config.h"
#include "proxy/upstream/aggregate.h"
#include "proxy/upstream/dns_cache.h"
#include "proxy/upstream/health_check.h"
#include "proxy/upstream/outlier.h"

/* ---- stats ---- */

static void free_lazy_stats(void *arg) { cluster_lazy_stats_free(arg); }

void cluster_stats_compile(struct compile_ctx *ctx, struct cluster_config *c) {
    struct buf BUF_AUTO prefix;
    buf_init(&prefix);
    buf_printf(&prefix, "cluster.%.*s.", SV_ARG(c->observability_name));
    struct stats_tag tag = {SV("envoy.cluster_name"), c->observability_name};
    c->stats =
        stats_scope_get_tagged(ctx->stats, &cluster_stats_group,
                               buf_pullup(&prefix, buf_len(&prefix)), SV("cluster."), &tag, 1);
    arena_on_fini(ctx->arena, (void (*)(void *))stats_scope_unref, c->stats);
    arena_on_fini(ctx->arena, free_lazy_stats, c);
}

/* ---- cluster_type ---- */

static void dns_type(struct compile_ctx *ctx, const void *msg, struct cluster_config *c) {
    const ClustersDns__DnsCluster *m = msg;
    c->type =
        m->all_addresses_in_single_endpoint ? CLUSTER_TYPE_LOGICAL_DNS : CLUSTER_TYPE_STRICT_DNS;
    c->dns = dns_config_compile_extension(ctx, m);
}

/* Members need not be there: those that are missing add nothing until they come. */
static void aggregate_type(struct compile_ctx *ctx, const void *msg, struct cluster_config *c) {
    const ClustersAggregate__ClusterConfig *m = msg;
    struct names *clusters = ctx->build->config->clusters;
    struct aggregate_config *a = arena_new(ctx->arena, struct aggregate_config);
    slot_t *members = arena_new_array(ctx->arena, slot_t, m->n_clusters);
    for (size_t i = 0; i < m->n_clusters; i++) {
        sv name = sv_cstr(m->clusters[i]);
        members[i] = SLOT_NONE; /* no cluster has an empty name */
        if (name.n) {
            members[i] = names_acquire(clusters, name);
            names_release_with(clusters, members[i], ctx->arena);
        }
    }
    a->members = members;
    a->members_n = (unsigned)m->n_clusters;
    c->type = CLUSTER_TYPE_AGGREGATE;
    c->aggregate = a;
}

static void dynamic_type(struct compile_ctx *ctx, const void *msg, struct cluster_config *c) {
    const ClustersDynamicForwardProxy__ClusterConfig *m = msg;
    c->type = CLUSTER_TYPE_DYNAMIC;
    if (m->cluster_implementation_specifier_case !=
        CLUSTERS_DYNAMIC_FORWARD_PROXY__CLUSTER_CONFIG__CLUSTER_IMPLEMENTATION_SPECIFIER_DNS_CACHE_CONFIG) {
        diag_error(ctx->diag, "dns_cache_config: value is required: sub_clusters_config is not "
                              "supported");
        return;
    }
    c->dns_cache = dns_cache_compile(ctx, m->dns_cache_config);
    c->allows_insecure_options = m->allow_insecure_cluster_options;
    if (m->allow_coalesced_connections) {
        compile_unhonoured(ctx, "allow_coalesced_connections");
    }
}

void cluster_dynamic_check(struct compile_ctx *ctx, const struct cluster_config *c) {
    if (!c->allows_insecure_options && !(c->auto_sni && c->auto_san_validation)) {
        diag_error(ctx->diag, "dynamic_forward_proxy cluster must have auto_sni and "
                              "auto_san_validation true unless allow_insecure_cluster_options is "
                              "set.");
    }
}

void cluster_type_compile(struct compile_ctx *ctx, const Cluster__Cluster__CustomClusterType *t,
                          struct cluster_config *c) {
    static const struct {
        const ProtobufCMessageDescriptor *of;
        void (*compile)(struct compile_ctx *ctx, const void *msg, struct cluster_config *c);
    } types[] = {
        {&clusters_dns__dns_cluster__descriptor, dns_type},
        {&clusters_aggregate__cluster_config__descriptor, aggregate_type},
        {&clusters_dynamic_forward_proxy__cluster_config__descriptor, dynamic_type},
    };
    DIAG_FIELD(ctx->diag, "cluster_type.typed_config");
    sv url = t->typed_config ? any_inner_name(t->typed_config, ctx->scratch) : SV_NULL;
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (sv_is(url, types[i].of->name)) {
            const void *m = compile_any(ctx, sv_cstr(t->name), t->typed_config, url.p, NULL);
            if (m) {
                types[i].compile(ctx, m, c);
            }
            return;
        }
    }
    diag_error(ctx->diag, "Didn't find a registered cluster factory implementation for name: '%s'",
               t->name);
}

void cluster_dns_compile(struct compile_ctx *ctx, const Cluster__Cluster *m,
                         struct cluster_config *c) {
    c->dns = dns_config_compile(ctx, m);
}

/* ---- detection ---- */

void cluster_detection_compile(struct compile_ctx *ctx, const Cluster__Cluster *m,
                               struct cluster_config *c) {
    if (m->outlier_detection) {
        DIAG_FIELD(ctx->diag, "outlier_detection");
        c->outlier = outlier_config_compile(ctx, m->outlier_detection);
    }
    if (m->n_health_checks > 1) {
        diag_error(ctx->diag, "Multiple health checks not supported");
    } else if (m->n_health_checks) {
        DIAG_FIELD(ctx->diag, "health_checks[0]");
        c->health_check = health_check_config_compile(ctx, c, m->health_checks[0]);
    }
}

/* ---- upstream network filters ---- */

static void upstream_filter(struct compile_ctx *ctx, const Cluster__Filter *m,
                            struct cluster_upstream_filter *out) {
    if (m->config_discovery) {
        diag_error(ctx->diag, "config_discovery of upstream filters is not supported");
        return;
    }
    sv url = m->typed_config ? any_inner_name(m->typed_config, ctx->scratch) : SV_NULL;
    out->type = registry_network_filter(ctx->registry, sv_cstr(m->name), url);
    if (!out->type || !out->type->on_upstream_ready) {
        diag_error(ctx->diag,
                   "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                   m->name, SV_ARG(url));
        return;
    }
    DIAG_FIELD(ctx->diag, "typed_config");
    const void *msg =
        compile_any(ctx, sv_cstr(m->name), m->typed_config, out->type->type_url, NULL);
    out->config = msg ? out->type->compile(ctx, msg) : NULL;
}

void cluster_filters_compile(struct compile_ctx *ctx, const Cluster__Cluster *m,
                             struct cluster_config *c) {
    struct cluster_upstream_filter *v =
        arena_new_array(ctx->arena, struct cluster_upstream_filter, m->n_filters);
    for (size_t i = 0; i < m->n_filters; i++) {
        DIAG_FIELD(ctx->diag, "filters[%zu]", i);
        upstream_filter(ctx, m->filters[i], &v[i]);
    }
    c->filters = v;
    c->filters_n = (unsigned)m->n_filters;
}
