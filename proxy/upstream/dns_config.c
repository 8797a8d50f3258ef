/* DNS configuration of clusters and resolvers → struct dns_config. Threads: the config thread.
 * Spec: cluster.v3.Cluster.dns_*, extensions.clusters.dns.v3.DnsCluster,
 * extensions.network.dns_resolver.*.v3. */
#include "protos/any.h"
#include "protos/gen/cluster.pb-c.h"
#include "protos/gen/clusters_dns.pb-c.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/network_dns_resolver_cares.pb-c.h"
#include "protos/gen/network_dns_resolver_getaddrinfo.pb-c.h"
#include "proxy/upstream/dns.h"

#define REFRESH_MS_DEFAULT 5000u
#define FAILURE_MAX_FACTOR 10u /* RefreshRate.max_interval when not set, in base intervals */
#define DNS_PORT 53u

static uint64_t duration(struct compile_ctx *ctx, const char *field, const Pb__Duration *v,
                         uint64_t dflt_ms, uint64_t min_ms) {
    if (!v) {
        return dflt_ms;
    }
    uint64_t ms = (uint64_t)v->seconds * 1000 + (uint64_t)v->nanos / 1000000;
    if (v->seconds < 0 || v->seconds > INT32_MAX || v->nanos < 0 || ms < min_ms) {
        diag_error(ctx->diag, "%s: value must be a duration of at least %llums", field,
                   (unsigned long long)min_ms);
        return dflt_ms;
    }
    return ms;
}

/* ---- resolvers ---- */

static void servers(struct compile_ctx *ctx, const char *field, Core__Address *const *v, size_t n,
                    struct dns_resolver_config *out) {
    if (n > DNS_SERVERS_MAX) {
        diag_error(ctx->diag, "%s: at most %u resolvers are supported", field, DNS_SERVERS_MAX);
        return;
    }
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "%s[%zu]", field, i);
        const Core__SocketAddress *s = v[i]->address_case == CORE__ADDRESS__ADDRESS_SOCKET_ADDRESS
                                           ? v[i]->socket_address
                                           : NULL;
        uint16_t port =
            s && s->port_specifier_case == CORE__SOCKET_ADDRESS__PORT_SPECIFIER_PORT_VALUE &&
                    s->port_value
                ? (uint16_t)s->port_value
                : DNS_PORT;
        if (!s || !addr_parse_ip(sv_cstr(s->address), port, &out->servers[out->servers_n])) {
            diag_error(ctx->diag,
                       "malformed IP address: a resolver is an IP address with its port");
            continue;
        }
        out->servers_n++;
    }
}

static void options(const Core__DnsResolverOptions *o, struct dns_resolver_config *out) {
    if (o) {
        out->use_tcp = o->use_tcp_for_dns_lookups;
        out->no_search_domain = o->no_default_search_domain;
    }
}

static void cares(struct compile_ctx *ctx, const NetworkDnsResolverCares__CaresDnsResolverConfig *m,
                  struct dns_resolver_config *out) {
    servers(ctx, "resolvers", m->resolvers, m->n_resolvers, out);
    options(m->dns_resolver_options, out);
    out->servers_are_fallback = m->use_resolvers_as_fallback;
    out->filter_unroutable = m->filter_unroutable_families;
    out->rotate = m->rotate_nameservers;
    out->reinit_on_timeout = m->reinit_channel_on_timeout;
    out->channel_max_ms =
        (uint32_t)duration(ctx, "max_udp_channel_duration", m->max_udp_channel_duration, 0, 0);
    if (m->query_timeout_seconds) {
        uint64_t s = m->query_timeout_seconds->value;
        if (s < 1 || s > INT32_MAX / 1000) {
            diag_error(ctx->diag,
                       "query_timeout_seconds: value must be greater than or equal to 1");
            return;
        }
        out->timeout_ms = (uint32_t)s * 1000;
    }
    if (m->query_tries) {
        out->tries = m->query_tries->value;
        if (out->tries < 1 || out->tries > INT32_MAX) {
            diag_error(ctx->diag, "query_tries: value must be greater than or equal to 1");
        }
    }
    out->edns0_bytes = m->edns0_max_payload_size ? m->edns0_max_payload_size->value : 0;
    if (out->edns0_bytes && (out->edns0_bytes < 512 || out->edns0_bytes > 4096)) {
        diag_error(ctx->diag, "edns0_max_payload_size: value must be inside range [512, 4096]");
    }
    if (m->udp_max_queries && m->udp_max_queries->value) {
        compile_unhonoured(ctx, "udp_max_queries");
    }
    if (m->qcache_max_ttl && m->qcache_max_ttl->value) {
        compile_unhonoured(ctx, "qcache_max_ttl");
    }
}

static void getaddrinfo_type(struct compile_ctx *ctx,
                             const NetworkDnsResolverGetaddrinfo__GetAddrInfoDnsResolverConfig *m,
                             struct dns_resolver_config *out) {
    if (m->num_retries) {
        out->tries = m->num_retries->value < 100 ? m->num_retries->value + 1 : 100;
    }
    if (m->num_resolver_threads && m->num_resolver_threads->value > 1) {
        compile_unhonoured(ctx, "num_resolver_threads");
    }
}

bool dns_resolver_config_compile(struct compile_ctx *ctx, const void *typed_msg,
                                 struct dns_resolver_config *out) {
    *out = (struct dns_resolver_config){0};
    const Core__TypedExtensionConfig *t = typed_msg;
    if (!t) {
        return true;
    }
    unsigned errors = diag_errors(ctx->diag);
    DIAG_FIELD(ctx->diag, "typed_dns_resolver_config");
    sv url = t->typed_config ? any_inner_name(t->typed_config, ctx->scratch) : SV_NULL;
    if (sv_is(url, network_dns_resolver_cares__cares_dns_resolver_config__descriptor.name)) {
        const void *m = compile_any(ctx, sv_cstr(t->name), t->typed_config, url.p, NULL);
        if (m) {
            cares(ctx, m, out);
        }
    } else if (sv_is(url,
                     network_dns_resolver_getaddrinfo__get_addr_info_dns_resolver_config__descriptor
                         .name)) {
        const void *m = compile_any(ctx, sv_cstr(t->name), t->typed_config, url.p, NULL);
        if (m) {
            getaddrinfo_type(ctx, m, out);
        }
    } else {
        diag_error(ctx->diag,
                   "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                   t->name, SV_ARG(url));
    }
    return diag_errors(ctx->diag) == errors;
}

void dns_resolution_config_compile(struct compile_ctx *ctx, const void *msg,
                                   struct dns_resolver_config *out) {
    const Core__DnsResolutionConfig *m = msg;
    DIAG_FIELD(ctx->diag, "dns_resolution_config");
    servers(ctx, "resolvers", m->resolvers, m->n_resolvers, out);
    options(m->dns_resolver_options, out);
}

/* ---- clusters ---- */

/* The two enums differ by the newer one's UNSPECIFIED; what is unknown counts as AUTO. */
enum dns_family dns_family_of(int v) {
    switch (v) {
    case CLUSTER__CLUSTER__DNS_LOOKUP_FAMILY__V4_ONLY:
        return DNS_V4_ONLY;
    case CLUSTER__CLUSTER__DNS_LOOKUP_FAMILY__V6_ONLY:
        return DNS_V6_ONLY;
    case CLUSTER__CLUSTER__DNS_LOOKUP_FAMILY__V4_PREFERRED:
        return DNS_V4_PREFERRED;
    case CLUSTER__CLUSTER__DNS_LOOKUP_FAMILY__ALL:
        return DNS_ALL;
    default:
        return DNS_AUTO;
    }
}

static void failure_rate(struct compile_ctx *ctx, const Pb__Duration *base, const Pb__Duration *max,
                         struct dns_config *c) {
    DIAG_FIELD(ctx->diag, "dns_failure_refresh_rate");
    c->failure_base_ms = duration(ctx, "base_interval", base, c->refresh_ms, 1);
    c->failure_max_ms =
        duration(ctx, "max_interval", max, c->failure_base_ms * FAILURE_MAX_FACTOR, 1);
    if (c->failure_max_ms < c->failure_base_ms) {
        diag_error(ctx->diag, "max_interval must be greater than or equal to base_interval");
    }
}

const struct dns_config *dns_config_compile(struct compile_ctx *ctx, const void *cluster_msg) {
    const Cluster__Cluster *m = cluster_msg;
    struct dns_config *c = arena_new(ctx->arena, struct dns_config);
    c->family = dns_family_of((int)m->dns_lookup_family);
    c->respect_ttl = m->respect_dns_ttl;
    c->refresh_ms = duration(ctx, "dns_refresh_rate", m->dns_refresh_rate, REFRESH_MS_DEFAULT, 1);
    c->jitter_ms = duration(ctx, "dns_jitter", m->dns_jitter, 0, 0);
    c->failure_base_ms = c->failure_max_ms = c->refresh_ms;
    if (m->dns_failure_refresh_rate) {
        failure_rate(ctx, m->dns_failure_refresh_rate->base_interval,
                     m->dns_failure_refresh_rate->max_interval, c);
    }
    if (m->typed_dns_resolver_config) {
        dns_resolver_config_compile(ctx, m->typed_dns_resolver_config, &c->resolver);
    } else if (m->dns_resolution_config) {
        dns_resolution_config_compile(ctx, m->dns_resolution_config, &c->resolver);
    } else {
        servers(ctx, "dns_resolvers", m->dns_resolvers, m->n_dns_resolvers, &c->resolver);
        c->resolver.use_tcp = m->use_tcp_for_dns_lookups;
    }
    return c;
}

const struct dns_config *dns_config_compile_extension(struct compile_ctx *ctx,
                                                      const void *dns_cluster_msg) {
    const ClustersDns__DnsCluster *m = dns_cluster_msg;
    struct dns_config *c = arena_new(ctx->arena, struct dns_config);
    int f = (int)m->dns_lookup_family;
    c->family = dns_family_of(f > 0 ? f - 1 : 0);
    c->respect_ttl = m->respect_dns_ttl;
    c->refresh_ms = duration(ctx, "dns_refresh_rate", m->dns_refresh_rate, REFRESH_MS_DEFAULT, 1);
    c->min_refresh_ms = duration(ctx, "dns_min_refresh_rate", m->dns_min_refresh_rate, 0, 1);
    c->jitter_ms = duration(ctx, "dns_jitter", m->dns_jitter, 0, 0);
    c->failure_base_ms = c->failure_max_ms = c->refresh_ms;
    if (m->dns_failure_refresh_rate) {
        failure_rate(ctx, m->dns_failure_refresh_rate->base_interval,
                     m->dns_failure_refresh_rate->max_interval, c);
    }
    dns_resolver_config_compile(ctx, m->typed_dns_resolver_config, &c->resolver);
    return c;
}
