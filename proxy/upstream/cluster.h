/* Clusters: the compiled configuration shared by all threads, and a worker's view of it (pools,
 * balancer cursors).
 * Threads: cluster_config immutable but for its atomics; cluster_view worker-local.
 * Spec: config.cluster.v3.Cluster. Not here: compiling the proto (config/compile_cluster.c), pools
 * (pool_*.c). */
#ifndef SLUICE_UPSTREAM_CLUSTER_H
#define SLUICE_UPSTREAM_CLUSTER_H

#include "proxy/api/lb_policy.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/transport_socket.h"
#include "proxy/http/codec.h"
#include "proxy/net/sock.h"
#include "proxy/upstream/cluster_stats.h"
#include "proxy/upstream/host.h"

enum cluster_type {
    CLUSTER_TYPE_STATIC,
    CLUSTER_TYPE_STRICT_DNS,
    CLUSTER_TYPE_LOGICAL_DNS,
    CLUSTER_TYPE_EDS,
    CLUSTER_TYPE_ORIGINAL_DST,
    CLUSTER_TYPE_AGGREGATE,
    CLUSTER_TYPE_DYNAMIC /* dynamic_forward_proxy */
};
enum upstream_protocol {
    UPSTREAM_HTTP1,
    UPSTREAM_HTTP2,
    UPSTREAM_AUTO /* ALPN */,
    UPSTREAM_DOWNSTREAM /* as the client */
};
enum { PRIORITY_DEFAULT, PRIORITY_HIGH, PRIORITIES };

enum cluster_side {
    CLUSTER_SIDE_ALL,
    CLUSTER_SIDE_INTERNAL,
    CLUSTER_SIDE_EXTERNAL,
    CLUSTER_SIDE_CANARY,
    CLUSTER_SIDE_RETRY, /* responses that were not passed on: another attempt followed */
    CLUSTER_SIDES
};

/* Circuit breakers: process-wide limits (CircuitBreakers.Thresholds). */
struct breaker {
    uint32_t max_connections, max_pending, max_requests, max_retries; /* 1024, 1024, 1024, 3 */
    uint32_t max_pools;
    uint32_t max_connections_per_host; /* per_host_thresholds; UINT32_MAX */
    uint32_t min_retry_concurrency;
    double budget_percent;
    bool track_remaining;
    bool has_retry_budget;
};
struct breaker_use { /* shared, atomic */
    uint32_t connections, pending, requests, retries, pools;
};

/* Requests that no host was tried for: what load reports tell. Shared, atomic. */
struct cluster_drops {
    uint64_t other, overload; /* overload: policy.drop_overloads */
};

struct metadata_match;
struct kv_value;
struct transport_match {
    sv name;
    /* a struct; endpoint metadata "envoy.transport_socket_match" must have all of it */
    const struct kv_value *match;
    slot_t transport;
};
struct cluster_upstream_filter {
    const struct network_filter_type *type;
    const void *config;
};
struct aggregate;
struct aggregate_config;
struct dns_config;
struct dns_cache;
struct cla_config;
struct outlier_config;
struct health_check_config;
struct lb_zone_config;
struct subset_config;

/* What connections are bound to: upstream_bind_config, upstream_connection_options. */
struct cluster_bind {
    const struct addr *source; /* source_address; NULL */
    const struct addr *extra_sources;
    unsigned extra_sources_n;
    struct sock_opts opts;
};
extern const struct cluster_bind cluster_no_bind;

/* One for each of tens of thousands: what few clusters have is behind a pointer. */
struct cluster_config {
    sv name, observability_name;
    sv eds_service_name; /* EDS: name of the ClusterLoadAssignment wanted */
    enum cluster_type type;
    slot_t slot;
    bool added_via_api;
    bool locality_weighted, close_connections_on_host_health_failure,
        ignore_new_hosts_until_first_hc, fail_traffic_on_panic;
    bool auto_sni, auto_san_validation;
    bool is_reported_to_self;     /* lrs_server: self */
    bool allows_insecure_options; /* allow_insecure_cluster_options */
    bool use_http_header_original_dst, has_original_dst_port;
    bool drain_connections_on_host_removal;
    bool wait_for_warm_on_init;
    bool connection_pool_per_downstream;
    bool close_connections_on_host_set_change;
    bool tells_addresses; /* some transport looks at transport_options.addresses */
    uint16_t original_dst_port;
    uint32_t cleanup_interval_ms;
    uint32_t connect_timeout_ms;
    uint32_t buffer_limit_bytes;
    const struct lb_policy_type *lb_type;
    const void *lb_config;
    const struct subset_config *subsets; /* upstream/lb_subset.h; NULL: none */
    const struct lb_zone_config *zone;   /* upstream/lb_zone.h; NULL: zones do not count */
    uint32_t healthy_panic_pct;          /* 50 */
    /* bit set of core.v3.HealthStatus that override hosts may have */
    uint32_t override_host_status;
    slot_t transport; /* factory slot */
    unsigned transport_matches_n;
    const struct transport_match *transport_matches;
    sv auto_sni_header;
    const struct codec_options *codec; /* of the arena, or what all plain clusters share */
    enum upstream_protocol protocol;
    uint32_t idle_timeout_ms, max_connection_duration_ms, tcp_idle_timeout_ms;
    uint32_t max_requests_per_connection; /* 0: unlimited */
    uint32_t max_stream_duration_ms, max_response_headers_kb;
    unsigned filters_n;
    const struct cluster_upstream_filter *filters;
    const struct breaker *breakers;  /* [PRIORITIES], of the arena or what many clusters share */
    struct breaker_use *use;         /* [PRIORITIES], arena memory, atomics */
    struct cluster_drops *drops;     /* arena memory, atomics; NULL: not counted */
    const struct cluster_bind *bind; /* never NULL */
    const struct kv_metadata *metadata;
    const struct cla_config *endpoints; /* load_assignment of STATIC and DNS clusters; NULL */
    const struct dns_config *dns;
    struct dns_cache *dns_cache; /* whose hosts these are: CLUSTER_TYPE_DYNAMIC; else NULL */
    const struct aggregate_config *aggregate; /* upstream/aggregate.h */
    const struct outlier_config *outlier;
    const struct health_check_config *health_check; /* NULL: none */
    sv original_dst_header;
    const struct original_dst_key *original_dst_key; /* metadata that names the host; NULL: none */
    double per_upstream_preconnect_ratio;
    struct stats_scope *stats; /* cluster.<observability name>. */
    /* …http1., …http2. (http/codec_stats.h): atomic; made with the first codec */
    struct stats_scope *codec_stats[2];
    /* upstream/outlier.h; NULL: none. Set before the config is shared */
    struct outlier_detector *detector;
    /* upstream/health_check.h; NULL: none. Set before the config is shared */
    struct health_checker *checker;
    /* internal., external., canary. upstream_rq_*: shared, atomic; made when first counted, by
     * cluster_side_codes() */
    struct stats_codes *side_codes[CLUSTER_SIDES];
};

struct original_dst_key {
    sv ns;
    const sv *path;
    unsigned path_n;
};

struct worker;

/* The hosts a request may have met. Endpoints that go away are kept until every request has let go
 * of the pin it took before its first pick: a pin holds all later ones. Worker-local. */
struct hosts_pin {
    uint32_t refs;          /* the view while it is current, the earlier pin, requests */
    struct hosts_pin *next; /* the one that followed; holds a ref */
    struct host_set *set;   /* a ref; may be NULL */
    struct host **extra;    /* refs on hosts made here (ORIGINAL_DST) and dropped since */
    unsigned extra_n, extra_cap;
};

/* A worker's view of a cluster: made when first used, kept while the cluster is in the snapshot or
 * a request holds it. */
struct cluster_view {
    const struct cluster_config *cfg;
    struct shared *cfg_pin; /* the resource that owns cfg */
    struct host_set *hosts; /* one ref; replaced when a snapshot brings new endpoints */
    struct worker *worker;
    struct loop *loop;
    struct stats_shard *stats;
    uint32_t refs;                      /* plain: requests, pools; the worker's table holds one */
    bool is_removed;                    /* no longer in the snapshot */
    struct hosts_pin *pin_;             /* current */
    struct lb_state *lb_;               /* cursors; rebuilt lazily after hosts changed */
    struct lb_state **subset_lb_;       /* by subset; NULL until one is picked from */
    struct pool_table *pools_;          /* made with the first pool */
    struct aggregate *aggregate_;       /* levels; made with the first pick of an aggregate */
    struct original_dst *original_dst_; /* made with the first pick of an ORIGINAL_DST cluster */
    struct codec_stats codec_stats_;    /* resolved with the first codec of the kind */
    struct cluster_side_times *side_times_; /* made with the first */
};
/* Made by the worker. Takes a ref on pin and hosts (hosts may be NULL). */
struct cluster_view *cluster_view_new(struct worker *w, struct loop *l,
                                      const struct cluster_config *cfg, struct shared *pin,
                                      struct host_set *hosts);
static inline struct cluster_view *cluster_view_ref(struct cluster_view *v) {
    v->refs++;
    return v;
}
void cluster_view_unref(struct cluster_view *v);
/* New endpoints: pools of hosts that are gone are drained. Takes a ref. */
void cluster_view_set_hosts(struct cluster_view *v, struct host_set *hosts);
/* The cluster is gone from the snapshot (or replaced): drain all pools, drop the table's ref. */
void cluster_view_retire(struct cluster_view *v);

/* Keep every host valid that is picked from now on, until released. Once per request, before its
 * first pick. */
static inline struct hosts_pin *cluster_view_pin(struct cluster_view *v) {
    v->pin_->refs++;
    return v->pin_;
}
void hosts_pin_release(struct hosts_pin *p); /* NULL is fine */

/* Pick a host; NULL: none eligible (503 UH). *entry: its entry in the host set (weight, transport);
 * valid while view->hosts. */
/* Valid while a pin taken before is held, or until the event ends. */
struct host *cluster_view_pick(struct cluster_view *v, struct lb_context *ctx,
                               const struct host_entry **entry);
/* Would the balancer drop this request (policy.drop_overloads)? */
bool cluster_view_drop(struct cluster_view *v, struct rng *rng);
/* The transport factory slot for an entry. */
slot_t cluster_transport_slot(const struct cluster_config *c, const struct host_entry *e);

/* The response-code counters of one side. Any thread. */
struct stats_codes *cluster_side_codes(const struct cluster_config *c, enum cluster_side side);
/* "cluster.<name>.http1." or, is_h2, "http2.". Any thread. */
struct stats_scope *cluster_codec_stats(const struct cluster_config *c, bool is_h2);
void cluster_lazy_stats_free(struct cluster_config *c); /* with the config */

/* Overrides for the upstream's transport socket that come from the request's headers (auto_sni);
 * not copied: options point into it and into the headers. */
struct request_transport {
    struct transport_options options;
    sv sni;
};
/* False: the cluster asks for none. */
bool cluster_auto_sni(const struct cluster_config *c, const struct headers *request,
                      struct request_transport *out);

/* Circuit breakers. Each _try takes one unit unless the limit is reached. */
bool breaker_try(uint32_t *used, uint32_t max);
static inline void breaker_release(uint32_t *used) {
    __atomic_sub_fetch(used, 1, __ATOMIC_RELAXED);
}
static inline void cluster_note_drop(const struct cluster_config *c, bool is_overload) {
    if (c->drops) {
        uint64_t *n = is_overload ? &c->drops->overload : &c->drops->other;
        __atomic_add_fetch(n, 1, __ATOMIC_RELAXED);
    }
}
/* One more connection to `h`: within its own limit and the cluster's. */
bool breaker_connection_try(const struct cluster_config *c, unsigned priority,
                            const struct host *h);
/* max_retries or retry budget */
bool breaker_retry_try(const struct cluster_config *c, unsigned priority);

/* circuit_breakers.{default,high}.*: gauges of cluster_stats_group that are read from the counts
 * when somebody looks. */
/* clang-format off */
#define BREAKER_STATS(X, priority)                                                                  \
    X(priority, cx_open) X(priority, cx_pool_open) X(priority, rq_open) X(priority, rq_pending_open) \
    X(priority, rq_retry_open) X(priority, remaining_cx) X(priority, remaining_cx_pools)            \
    X(priority, remaining_pending) X(priority, remaining_retries) X(priority, remaining_rq)
/* clang-format on */
enum breaker_stat {
#define BREAKER_STAT_(priority, name) BREAKER_##name,
    BREAKER_STATS(BREAKER_STAT_, )
#undef BREAKER_STAT_
        BREAKER_STATS_N
};
static inline unsigned cluster_breaker_stat(unsigned priority, enum breaker_stat i) {
    return CLUSTER_STATS_N + priority * BREAKER_STATS_N + i;
}

/* Outcome of a request for outlier detection: called by router and tcp_proxy
 * (upstream/outlier.c). */
enum host_result {
    HOST_RESULT_HTTP,
    HOST_RESULT_CONNECT_OK,
    HOST_RESULT_CONNECT_FAILED,
    HOST_RESULT_TIMEOUT,
    HOST_RESULT_RESET
};
void host_report(const struct cluster_config *c, struct host *h, enum host_result r,
                 unsigned http_status);

#endif
