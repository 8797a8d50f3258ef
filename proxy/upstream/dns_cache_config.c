/* DnsCacheConfig → struct dns_cache_config. Threads: the config thread.
 * Spec: extensions.common.dynamic_forward_proxy.v3.DnsCacheConfig. */
#include "protos/any.h"
#include "protos/gen/common_dynamic_forward_proxy.pb-c.h"
#include "protos/gen/type_matcher.pb-c.h"
#include "proxy/upstream/dns_cache.h"

#define REFRESH_MS_DEFAULT 60000u
#define MIN_REFRESH_MS_DEFAULT 5000u
#define HOST_TTL_MS_DEFAULT 300000u
#define QUERY_TIMEOUT_MS_DEFAULT 5000u
#define HOSTS_MAX_DEFAULT 1024u
#define PENDING_MAX_DEFAULT 1024u
#define FAILURE_MAX_FACTOR 10u
#define PRERESOLVED_MAX 65536u

typedef CommonDynamicForwardProxy__DnsCacheConfig cache_msg;

static uint64_t duration(struct compile_ctx *ctx, const char *field, const Pb__Duration *m,
                         uint32_t dflt_ms) {
    DIAG_FIELD(ctx->diag, "%s", field);
    uint32_t ms = dflt_ms;
    compile_duration_ms(ctx, m, dflt_ms, &ms);
    return ms;
}

static void times(struct compile_ctx *ctx, const cache_msg *m, struct dns_cache_config *c) {
    c->refresh_ms = duration(ctx, "dns_refresh_rate", m->dns_refresh_rate, REFRESH_MS_DEFAULT);
    c->min_refresh_ms =
        duration(ctx, "dns_min_refresh_rate", m->dns_min_refresh_rate, MIN_REFRESH_MS_DEFAULT);
    c->host_ttl_ms = duration(ctx, "host_ttl", m->host_ttl, HOST_TTL_MS_DEFAULT);
    c->query_timeout_ms =
        duration(ctx, "dns_query_timeout", m->dns_query_timeout, QUERY_TIMEOUT_MS_DEFAULT);
    c->is_failure_final = m->disable_dns_refresh_on_failure;
    if (!m->dns_failure_refresh_rate) {
        return;
    }
    DIAG_FIELD(ctx->diag, "dns_failure_refresh_rate");
    c->failure_base_ms =
        duration(ctx, "base_interval", m->dns_failure_refresh_rate->base_interval, 1);
    uint64_t max_ms = c->failure_base_ms * FAILURE_MAX_FACTOR;
    c->failure_max_ms = duration(ctx, "max_interval", m->dns_failure_refresh_rate->max_interval,
                                 max_ms < UINT32_MAX ? (uint32_t)max_ms : UINT32_MAX);
    if (c->failure_max_ms < c->failure_base_ms) {
        diag_error(ctx->diag, "max_interval must be greater than or equal to base_interval");
    }
}

static void filter(struct compile_ctx *ctx, const TypeMatcher__AddressMatcher *m,
                   struct dns_cache_config *c) {
    if (!m) {
        return;
    }
    struct cidr *v = arena_new_array(ctx->arena, struct cidr, m->n_ranges);
    for (size_t i = 0; i < m->n_ranges; i++) {
        DIAG_FIELD(ctx->diag, "resolved_address_filter.ranges[%zu]", i);
        const XdsCore__CidrRange *r = m->ranges[i];
        if (!cidr_make(sv_cstr(r->address_prefix), r->prefix_len ? r->prefix_len->value : 0,
                       &v[i])) {
            diag_error(ctx->diag, "invalid ip/mask combo '%s/%u' (format is <ip>/<# mask bits>)",
                       r->address_prefix, r->prefix_len ? r->prefix_len->value : 0);
        }
    }
    c->denied = v;
    c->denied_n = (unsigned)m->n_ranges;
    c->is_denial_inverted = m->invert_match;
}

static void preresolved(struct compile_ctx *ctx, const cache_msg *m, struct dns_cache_config *c) {
    size_t n = m->n_preresolve_hostnames;
    if (n > c->hosts_max || n > PRERESOLVED_MAX) {
        diag_error(ctx->diag,
                   "DNS Cache [%s] configured with preresolve_hostnames=%zu larger than "
                   "max_hosts=%u",
                   m->name, n, c->hosts_max);
        return;
    }
    sv *v = arena_new_array(ctx->arena, sv, n);
    for (size_t i = 0; i < n; i++) {
        const Core__SocketAddress *a = m->preresolve_hostnames[i];
        char room[DNS_CACHE_KEY_MAX];
        DIAG_FIELD(ctx->diag, "preresolve_hostnames[%zu]", i);
        v[i] =
            arena_sv(ctx->arena, dns_cache_key(sv_cstr(a->address), (uint16_t)a->port_value, room));
        if (!v[i].n) {
            diag_error(ctx->diag, "address: value length must be at most %u bytes",
                       DNS_CACHE_KEY_MAX);
        }
    }
    c->preresolved = v;
    c->preresolved_n = (unsigned)n;
}

static void resolver(struct compile_ctx *ctx, const cache_msg *m, struct dns_cache_config *c) {
    if (m->typed_dns_resolver_config) {
        dns_resolver_config_compile(ctx, m->typed_dns_resolver_config, &c->resolver);
        return;
    }
    if (m->dns_resolution_config) {
        dns_resolution_config_compile(ctx, m->dns_resolution_config, &c->resolver);
        return;
    }
    c->resolver.use_tcp = m->use_tcp_for_dns_lookups;
}

bool dns_cache_config_compile(struct compile_ctx *ctx, const void *msg,
                              struct dns_cache_config *out) {
    const cache_msg *m = msg;
    unsigned errors = diag_errors(ctx->diag);
    *out = (struct dns_cache_config){.family = dns_family_of((int)m->dns_lookup_family)};
    out->hosts_max = m->max_hosts ? m->max_hosts->value : HOSTS_MAX_DEFAULT;
    const CommonDynamicForwardProxy__DnsCacheCircuitBreakers *b = m->dns_cache_circuit_breaker;
    out->pending_max =
        b && b->max_pending_requests ? b->max_pending_requests->value : PENDING_MAX_DEFAULT;
    times(ctx, m, out);
    resolver(ctx, m, out);
    filter(ctx, m->resolved_address_filter, out);
    preresolved(ctx, m, out);
    if (m->key_value_config) {
        compile_unhonoured(ctx, "key_value_config");
    }
    return diag_errors(ctx->diag) == errors;
}

/* ---- the cache ---- */

static void release(void *cache) { dns_cache_unref(cache); }

static struct dns_cache *make(struct compile_ctx *ctx, struct dns_caches *all, const cache_msg *m,
                              sv wire) {
    struct dns_cache *c = dns_cache_new(all, sv_cstr(m->name), wire);
    struct compile_ctx own = *ctx; /* the cache outlives the resource that was the first */
    own.arena = &c->arena;
    if (!dns_cache_config_compile(&own, m, &c->cfg)) {
        dns_cache_discard(c);
        return NULL;
    }
    dns_cache_start(c);
    return c;
}

struct dns_cache *dns_cache_compile(struct compile_ctx *ctx, const void *msg) {
    const cache_msg *m = msg;
    struct dns_caches *all = compile_dns_caches(ctx);
    DIAG_FIELD(ctx->diag, "dns_cache_config");
    sv wire = proto_pack(&m->base, ctx->scratch);
    dns_caches_sweep(all);
    struct dns_cache *c = dns_caches_find(all, sv_cstr(m->name));
    if (c && !sv_eq(c->wire, wire)) {
        diag_error(ctx->diag, "config specified DNS cache '%s' with different settings", m->name);
        return NULL;
    }
    if (c) {
        dns_cache_ref(c);
    } else {
        c = make(ctx, all, m, wire);
    }
    if (c) {
        arena_on_fini(ctx->arena, release, c);
    }
    return c;
}
