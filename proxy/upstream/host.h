/* Hosts and host sets of a cluster: priorities, localities, health, weights.
 * Threads: host sets are built on the config thread and immutable; a host's atomics are shared by
 * all workers.
 * Spec: config.endpoint.v3 ClusterLoadAssignment, LbEndpoint, LocalityLbEndpoints; Envoy's
 * HostSet/PrioritySet. */
#ifndef SLUICE_UPSTREAM_HOST_H
#define SLUICE_UPSTREAM_HOST_H

#include "proxy/base/arena.h"
#include "proxy/base/shared.h"
#include "proxy/net/addr.h"

/* Health flags, with Envoy's names in /clusters. */
#define HOST_HEALTH_FLAGS(X)                                        \
    X(FAILED_ACTIVE_HC, "failed_active_hc")                         \
    X(FAILED_OUTLIER_CHECK, "failed_outlier_check")                 \
    X(FAILED_EDS_HEALTH, "failed_eds_health")                       \
    X(DEGRADED_ACTIVE_HC, "degraded_active_hc")                     \
    X(DEGRADED_EDS_HEALTH, "degraded_eds_health")                   \
    X(PENDING_DYNAMIC_REMOVAL, "pending_dynamic_removal")           \
    X(PENDING_ACTIVE_HC, "pending_active_hc")                       \
    X(EXCLUDED_IMMEDIATE_HC_FAIL, "excluded_via_immediate_hc_fail") \
    X(ACTIVE_HC_TIMEOUT, "active_hc_timeout")                       \
    X(EDS_STATUS_DRAINING, "eds_status_draining")                   \
    X(DEGRADED_OUTLIER, "degraded_outlier_detection")
enum host_health_bit {
#define X(name, text) HOST_BIT_##name,
    HOST_HEALTH_FLAGS(X)
#undef X
};
#define HOST_FLAG(name) (1u << HOST_BIT_##name)

struct buf;

struct locality {
    sv region, zone, sub_zone;
};
/* The one locality with these strings, one use more; any thread. Never NULL. */
const struct locality *locality_ref(const struct locality *l);
void locality_unref(const struct locality *l);

struct host_stats { /* shared, atomic, relaxed */
    uint64_t cx_total, cx_connect_fail, rq_total, rq_success, rq_error, rq_timeout;
    uint32_t cx_active, rq_active;
};
#define HOST_STAT_ADD(h, field, n) \
    ((void)__atomic_add_fetch(&(h)->stats.field, (n), __ATOMIC_RELAXED))
#define HOST_STAT_GET(h, field) __atomic_load_n(&(h)->stats.field, __ATOMIC_RELAXED)

struct host_tally { /* shared, atomic: requests since the outlier detector last looked */
    uint32_t total, success;
};
struct kv_metadata;
struct dns_use;
/* What few hosts have. Immutable. */
struct host_extra {
    const struct addr *additional; /* happy-eyeballs candidates after the host's addr */
    unsigned additional_n;
    sv health_check_hostname;
    struct addr health_check_addr; /* family 0: the host's addr */
    sv hash_key;                   /* metadata envoy.lb: hash_key; empty: none */
    sv proxy_tlvs;                 /* its own TLVs for PROXY headers, as on the wire */
    struct dns_use *use;           /* of a DNS cache's host, a ref; else NULL */
    struct arena arena;            /* of all this */
};
/* One upstream address. The same object survives updates for as long as its address and metadata
 * stay the same, and with it its health, stats and every worker's pools. */
struct host {
    struct shared shared;
    /* immutable */
    struct addr addr;
    sv address_text; /* "1.2.3.4:80" */
    sv hostname;
    const struct locality *locality;    /* never NULL; a use of it */
    const struct kv_metadata *metadata; /* interned, a use of it; NULL: none */
    const struct host_extra *extra;     /* never NULL; one that is empty serves most hosts */
    uint64_t id;                        /* unique in the process: key of worker maps */
    bool is_canary, health_check_disabled;
    /* shared, atomic */
    uint32_t health_flags;     /* HOST_FLAG(); written on the config thread */
    uint64_t healthy_since_us; /* monotonic; slow start counts from here */
    uint32_t outlier_consecutive_5xx, outlier_consecutive_gateway, outlier_consecutive_local;
    struct host_tally outlier_external, outlier_local;
    struct host_stats stats;
    char text_[]; /* address_text, hostname, addr.path */
};
static inline uint32_t host_flags(const struct host *h) {
    return __atomic_load_n(&h->health_flags, __ATOMIC_RELAXED);
}
static inline void host_flags_set(struct host *h, uint32_t flags) {
    __atomic_or_fetch(&h->health_flags, flags, __ATOMIC_RELAXED);
}
static inline void host_flags_clear(struct host *h, uint32_t flags) {
    __atomic_and_fetch(&h->health_flags, ~flags, __ATOMIC_RELAXED);
}
#define HOST_FLAGS_UNHEALTHY                                         \
    (HOST_FLAG(FAILED_ACTIVE_HC) | HOST_FLAG(FAILED_OUTLIER_CHECK) | \
     HOST_FLAG(FAILED_EDS_HEALTH) | HOST_FLAG(EDS_STATUS_DRAINING))
#define HOST_FLAGS_DEGRADED \
    (HOST_FLAG(DEGRADED_ACTIVE_HC) | HOST_FLAG(DEGRADED_EDS_HEALTH) | HOST_FLAG(DEGRADED_OUTLIER))
#define HOST_FLAGS_EXCLUDED (HOST_FLAG(PENDING_ACTIVE_HC) | HOST_FLAG(EXCLUDED_IMMEDIATE_HC_FAIL))
/* What the flags above do not tell of the status that was configured: it is HEALTHY, not UNKNOWN,
 * or TIMEOUT, not UNHEALTHY. Not shown. */
#define HOST_FLAG_EDS_HEALTHY (1u << 30)
#define HOST_FLAG_EDS_TIMEOUT (1u << 31)
#define HOST_FLAGS_EDS                                               \
    (HOST_FLAG(FAILED_EDS_HEALTH) | HOST_FLAG(DEGRADED_EDS_HEALTH) | \
     HOST_FLAG(EDS_STATUS_DRAINING) | HOST_FLAG_EDS_HEALTHY | HOST_FLAG_EDS_TIMEOUT)
enum host_health { HOST_HEALTHY, HOST_DEGRADED, HOST_UNHEALTHY };
static inline enum host_health host_health_of(uint32_t flags) {
    if (flags & HOST_FLAGS_UNHEALTHY) {
        return HOST_UNHEALTHY;
    }
    return flags & HOST_FLAGS_DEGRADED ? HOST_DEGRADED : HOST_HEALTHY;
}
/* Change flags, noting when the host becomes healthy. Returns whether anything changed. The config
 * thread. */
bool host_flags_change(struct host *h, uint32_t set, uint32_t clear, uint64_t now_us);
/* core.v3.HealthStatus of endpoint config → HOST_FLAGS_EDS. */
uint32_t host_flags_of_eds(unsigned health_status);

/* What a host is made of. All borrowed for the call; copied by host_new. */
struct host_spec {
    struct addr addr;
    const struct addr *additional;
    unsigned additional_n;
    sv hostname, health_check_hostname;
    struct addr health_check_addr;
    bool health_check_disabled, is_canary;
    struct locality locality;
    sv hash_key, proxy_tlvs;
    struct dns_use *use;                /* keeps a ref; NULL */
    const struct kv_metadata *metadata; /* interned (observe/metadata.h), or NULL */
};
/* A host with one ref, healthy. `now_us` is its birth on the monotonic clock. Any thread. */
struct host *host_new(const struct host_spec *spec, uint64_t now_us);
/* Would host_new(spec) make the same host? */
bool host_is(const struct host *h, const struct host_spec *spec);
int locality_cmp(const struct locality *a, const struct locality *b);

/* "healthy" or "/failed_active_hc/…" */
void host_flags_write(uint32_t flags, struct buf *out);

struct host_entry {
    struct host *host; /* the set holds a ref */
    uint32_t weight;   /* load_balancing_weight, ≥ 1 */
    uint16_t locality; /* index into priority's localities */
    /* index into the cluster's transport socket matches; UINT16_MAX: the default one */
    uint16_t transport_match;
};

/* Hosts a policy picks among, with the policy's immutable table. */
struct host_list {
    const struct host_entry **v;
    unsigned n;
    bool equal_weights;
    uint64_t weight_total;
    uint32_t weight_max;
    /* hashing policies: each host's part of the traffic, localities' weights included */
    const double *share;
    double share_min, share_max;
    void *table; /* lb_policy_type.build's result */
};

struct host_locality_lists {
    struct host_list healthy, degraded;
};
struct host_locality {
    struct locality id;
    uint32_t weight;                        /* locality load_balancing_weight; 0: no traffic */
    double healthy_weight, degraded_weight; /* effective: scaled by how many of its hosts are so */
    unsigned hosts_n, healthy_n, degraded_n, excluded_n;
    struct host_locality_lists *lists; /* NULL unless hosts are picked locality first */
};
struct host_priority {
    struct host_entry *entries;
    unsigned n;
    struct host_list all, healthy, degraded; /* `all` serves in panic */
    unsigned excluded;
    struct host_locality *localities;
    unsigned localities_n;
    bool has_locality_weights; /* localities are picked by weight before hosts */
    /* share of traffic; all priorities' sum is 100, or 0 when none */
    uint32_t healthy_load_pct, degraded_load_pct;
    bool is_panic;
};
struct lb_subsets;
/* Immutable; one per version of a cluster's endpoints and health. */
struct host_set {
    struct shared shared;
    struct arena arena;
    /* who owns entries, index and the refs on hosts; itself after an update of endpoints. NULL: a
     * subset, whose owner has it all */
    struct host_set *base;
    struct lb_subsets *subsets; /* lb_subset.h; NULL: none */
    struct host_entry *entries; /* of all priorities, in their order */
    /* address hash → entry + 1, open addressing; NULL: few hosts */
    uint32_t *index;
    uint32_t index_mask;
    bool is_by_name; /* hosts are told apart by hostname, and the index is of those */
    bool weighted_priority_health;
    uint32_t overprovisioning_factor; /* 140 */
    struct host_priority *priorities;
    unsigned priorities_n;
    unsigned hosts_n, healthy_n, degraded_n, excluded_n;
    /* policy.drop_overloads summed as Envoy does; denominator 0: none */
    uint32_t drop_numerator, drop_denominator;
    uint32_t max_host_weight;
    uint64_t version;
};
void host_set_free(struct shared *s);
/* The first entry with this address, and the next one after `e`; NULL: none. Borrows of the set. */
const struct host_entry *host_set_find(const struct host_set *s, const struct addr *a);
const struct host_entry *host_set_find_next(const struct host_set *s, const struct host_entry *e);
bool host_set_has(const struct host_set *s, const struct host *h);
/* In a set by name; NULL: none. */
const struct host_entry *host_set_find_name(const struct host_set *s, sv hostname);

#endif
