/* DNS lookups by c-ares: names to addresses with their TTLs.
 * Threads: a resolver belongs to its loop's thread; configs are immutable. Spec:
 * cluster.v3.Cluster.dns_*, extensions.clusters.dns.v3,
 * extensions.network.dns_resolver.{cares,getaddrinfo}.v3.
 * Not here: when to look up again, keeping the last good answer (config/). */
#ifndef SLUICE_UPSTREAM_DNS_H
#define SLUICE_UPSTREAM_DNS_H

#include "proxy/api/compile.h"
#include "proxy/event/loop.h"
#include "proxy/net/addr.h"
#include "proxy/stats/stats.h"

enum dns_family {
    DNS_AUTO /* IPv6, else IPv4 */,
    DNS_V4_ONLY,
    DNS_V6_ONLY,
    DNS_V4_PREFERRED /* IPv4, else IPv6 */,
    DNS_ALL
};

#define DNS_SERVERS_MAX 16u    /* resolvers in a config */
#define DNS_NAME_MAX 253u      /* longer names fail */
#define DNS_ANSWERS_MAX 4096u  /* addresses taken from one answer */
#define DNS_PENDING_MAX 10000u /* lookups of one resolver under way; more fail at once */

/* Which servers are asked, and how. Equal configs share a resolver. */
struct dns_resolver_config {
    struct addr servers[DNS_SERVERS_MAX];
    unsigned servers_n;        /* 0: the system's */
    bool servers_are_fallback; /* only when the system names none */
    bool use_tcp, no_search_domain, rotate, filter_unroutable, reinit_on_timeout;
    uint32_t timeout_ms, tries; /* 0: c-ares's */
    uint32_t edns0_bytes;       /* 0: none */
    uint32_t channel_max_ms;    /* max_udp_channel_duration; 0: none */
};
/* Of a cluster. */
struct dns_config {
    enum dns_family family;
    bool respect_ttl;
    uint64_t refresh_ms, min_refresh_ms, jitter_ms; /* 5000, 0, 0 */
    /* back-off after failures; refresh_ms both when not configured */
    uint64_t failure_base_ms, failure_max_ms;
    struct dns_resolver_config resolver;
};
/* cluster_msg: cluster.v3.Cluster; dns_cluster_msg: extensions.clusters.dns.v3.DnsCluster. In
 * ctx->arena. */
const struct dns_config *dns_config_compile(struct compile_ctx *ctx, const void *cluster_msg);
const struct dns_config *dns_config_compile_extension(struct compile_ctx *ctx,
                                                      const void *dns_cluster_msg);
/* typed_dns_resolver_config (core.v3.TypedExtensionConfig), of the bootstrap for example; NULL: the
 * system's. False: errors. */
bool dns_resolver_config_compile(struct compile_ctx *ctx, const void *typed_msg,
                                 struct dns_resolver_config *out);
/* The older dns_resolution_config (core.v3.DnsResolutionConfig). */
void dns_resolution_config_compile(struct compile_ctx *ctx, const void *msg,
                                   struct dns_resolver_config *out);
enum dns_family dns_family_of(int v); /* of a cluster.v3.Cluster.DnsLookupFamily */

#define DNS_STATS(P, C, G, H, T) \
    C(P, get_addr_failure)       \
    C(P, not_found) G(P, pending_resolutions) C(P, reinits) C(P, resolve_total) C(P, timeouts)
STATS_ENUM(DNS, DNS_STATS);
extern const struct stats_group dns_stats_group;

struct dns_answer {
    struct addr addr; /* port 0 */
    uint32_t ttl_s;
};
/* DNS_OK with n 0: the name exists without such addresses, or not at all. */
enum dns_status { DNS_OK, DNS_FAILED };
/* `v` and `details` (why it failed, or the empty answer's reason) are borrowed for the call. */
typedef void (*dns_fn)(void *arg, enum dns_status status, const struct dns_answer *v, unsigned n,
                       sv details);

struct dns_resolver;
struct dns_lookup;
/* This loop's resolver of that config with a new ref, shared by all that ask for the same. */
struct dns_resolver *dns_resolver_get(struct loop *l, struct stats_store *stats,
                                      const struct dns_resolver_config *cfg);
/* The last unref ends lookups under way without calling back. */
void dns_resolver_unref(struct dns_resolver *r);
/* Look a name up. fn is called exactly once, never from inside this call, unless cancelled. */
struct dns_lookup *dns_resolve_start(struct dns_resolver *r, sv name, enum dns_family family,
                                     dns_fn fn, void *arg);
void dns_resolve_cancel(struct dns_lookup *q); /* before fn was called: it will not be */

#endif
