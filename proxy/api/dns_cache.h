/* DNS caches: hosts that requests name, looked up once for all workers. Clusters of type
 * dynamic_forward_proxy have the hosts of one, filters ask it for a host before a request is
 * forwarded.
 * Threads: compiled and kept on the config thread (upstream/dns_cache.h); a worker asks it by
 * message and waits without a lock. Spec: extensions.common.dynamic_forward_proxy.v3. */
#ifndef SLUICE_API_DNS_CACHE_H
#define SLUICE_API_DNS_CACHE_H

#include "proxy/api/compile.h"
#include "proxy/api/on_demand.h"
#include "proxy/net/addr.h"

struct dns_cache;
struct loop;

/* Bytes of a host with its port: longer ones are never looked up. */
#define DNS_CACHE_KEY_MAX ON_DEMAND_NAME_MAX
/* …and this is why, in the words for a name that can't be one. */
#define DNS_DETAILS_BAD_NAME "dns_resolution_failure{cares_failure:Misformatted_domain_name}"
#define DNS_DETAILS_MAX 128u

enum dns_outcome { DNS_FOUND, DNS_UNKNOWN, DNS_HOSTS_OVERFLOW };
struct dns_result {
    enum dns_outcome outcome;
    bool was_cached;  /* known already, not looked up for this */
    struct addr addr; /* DNS_FOUND: with its port */
    /* DNS_UNKNOWN: "dns_resolution_failure{cares_norecords:Domain_name_not_found}" */
    char details[DNS_DETAILS_MAX];
};

/* The cache of a DnsCacheConfig message, with a ref that ends with the ctx's arena. NULL: errors
 * added; all who name one cache must agree about it. */
struct dns_cache *dns_cache_compile(struct compile_ctx *ctx, const void *dns_cache_config_msg);

/* What a cache knows a host by: the authority itself when it has a port, else with `port`. In
 * `room` when it isn't the authority. Empty: no host, or a longer one than is looked up. */
sv dns_cache_key(sv authority, uint16_t port, char room[DNS_CACHE_KEY_MAX]);

/* One request more waits for the cache (dns_cache_circuit_breaker), until it is released. False:
 * there are too many; counted. */
bool dns_cache_pending_try(struct dns_cache *c, const struct loop *l) MUST_USE;
void dns_cache_pending_release(struct dns_cache *c);

/* Ask for the host with that key; wait->on_done tells, and wait->dns meanwhile. False: too many
 * wait on this worker; nothing was begun. Ended early by worker_fetch_cancel(). */
bool worker_dns_load(struct worker *w, struct dns_cache *c, sv key,
                     struct on_demand_wait *wait) MUST_USE;

#endif
