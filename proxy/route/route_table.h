/* Route tables: virtual-host and route match compiled so that first-match order holds without a
 * walk over all prefixes.
 * Threads: compiled on the config thread, immutable afterwards; matching on workers, allocation
 * only in the stream's arena.
 * Spec: config.route.v3.RouteConfiguration, VirtualHost, Route, RouteAction. Not here: forwarding
 * (request/router.c). */
#ifndef SLUICE_ROUTE_ROUTE_TABLE_H
#define SLUICE_ROUTE_ROUTE_TABLE_H

#include "proxy/base/shared.h"
#include "proxy/route/retry_policy.h"
#include "proxy/route/route_action.h"

/* Per-route filter configs are keyed by an interned id of the filter's name in the HCM. */
uint32_t filter_name_id(sv name); /* any thread, cold; ids are small and never reused */

struct vhost;
/* One compiled route. Durations in ms; UINT32_MAX means "not set: use the default", 0 means
 * disabled. */
struct route_entry {
    const struct vhost *vhost;
    sv name;
    sv match_path; /* the prefix or path that matched, for rewrites */
    union {        /* by match_kind */
        const struct regex *match_regex;
        const struct uri_template *match_template;
    };
    sv cluster_name; /* ROUTE_CLUSTER */
    union {          /* by action */
        const struct route_cluster_header *cluster_header;
        const struct route_weighted *weighted;
        const struct redirect_action *redirect;
        const struct direct_response *direct;
    };
    slot_t cluster; /* ROUTE_CLUSTER */
    enum path_match_kind match_kind : 8;
    enum route_action_kind action : 8;
    uint16_t cluster_not_found_code; /* 503 default */
    bool case_insensitive;
    uint8_t priority; /* 0 default, 1 high */
    /* max_stream_duration is set: the grpc-timeout header is read by its rules */
    bool has_max_stream_duration;
    uint32_t timeout_ms, idle_timeout_ms, max_stream_duration_ms, flush_timeout_ms;
    uint32_t request_body_buffer_limit;  /* UINT32_MAX: not set */
    const struct retry_policy *retry;    /* route's or virtual host's; NULL: none */
    const struct route_rewrite *rewrite; /* never NULL */
    const struct route_extra *extra;     /* never NULL */
    const struct metadata_match *metadata_match;
    const struct header_mutations *request_mutations, *response_mutations;
    struct filter_overrides overrides;
    const struct kv_metadata *metadata; /* Route.metadata.filter_metadata; NULL: none */
};
struct virtual_cluster {
    sv name;
    const struct header_matchers *matchers;
    /* vhost.<v>.vcluster.<name>. (route/route_stats.h); NULL without a store */
    struct stats_scope *stats;
    struct stats_codes *rq_codes;
};
struct vhost {
    /* a vhost with equal bytes is reused by the next table */
    struct shared shared;
    uint64_t hash_[2]; /* private: of the wire bytes and what the table says beside them */
    struct arena arena;
    sv name;
    const struct header_mutations *request_mutations, *response_mutations;
    struct filter_overrides overrides;
    enum { TLS_REQUIRE_NONE, TLS_REQUIRE_EXTERNAL, TLS_REQUIRE_ALL } require_tls;
    bool include_request_attempt_count, include_attempt_count_in_response, include_is_timeout_retry;
    uint32_t request_body_buffer_limit;
    unsigned virtual_clusters_n; /* 0, or the last one is the catch-all "other" */
    const struct virtual_cluster *virtual_clusters;
    const struct kv_metadata *metadata;
    const struct rate_limits *rate_limits; /* NULL: none */
    struct vhost_routes *routes_;          /* private: the compiled match structure */
};
struct route_table {
    struct shared shared;
    sv name;
    const struct header_mutations *request_mutations, *response_mutations;
    bool most_specific_mutations_win;
    bool ignore_port_in_host, ignore_path_parameters;
    const sv *internal_only_headers;
    unsigned internal_only_n;
    struct filter_overrides overrides;
    const struct kv_metadata *metadata;
    bool uses_vhds;
    struct route_table_private *priv_;
};

/* Compile RouteConfiguration wire bytes. `prev` (may be NULL): the table being replaced, whose
 * virtual hosts with equal bytes are shared instead of compiled again; cost follows what changed.
 * ctx->is_static: unknown clusters are errors (validate_clusters decides when set). NULL: errors
 * are in ctx->diag. Ownership: caller gets one ref. */
struct route_table *route_table_compile(struct compile_ctx *ctx, sv wire,
                                        const struct route_table *prev);

/* What a match may look at. */
struct route_match_input {
    const struct headers *headers; /* :authority, :path, :method, … */
    /* for runtime_fraction and weights: the same for one request */
    uint64_t random;
    struct arena *scratch;
    const struct conn_info *cx;   /* TLS context matches, ports */
    const struct stream_info *si; /* dynamic-metadata and filter-state matches; may be NULL */
    bool is_connect;
    sv vhost_host; /* empty: from :authority */
};
enum route_miss { ROUTE_FOUND, ROUTE_NO_VHOST, ROUTE_NO_ROUTE, ROUTE_TLS_REDIRECT };
/* The first matching route; *why tells when NULL. Borrowed while the table is pinned. */
const struct route_entry *route_table_match(const struct route_table *t,
                                            const struct route_match_input *in,
                                            const struct vhost **vhost, enum route_miss *why);
/* The weighted cluster for this random value (or hash), NULL when weights sum to 0. */
const struct weighted_cluster *route_pick_weighted(const struct route_entry *r, uint64_t random);
/* The value to pick by for this request: weighted_use_hash, random_value_header, else
 * in->random. */
uint64_t route_weighted_random(const struct route_entry *r, const struct route_match_input *in);
/* Most specific override of the filter: weighted cluster (may be NULL) → route → virtual host →
 * table; NULL: none. */
const struct filter_override *route_override(const struct route_table *t,
                                             const struct route_entry *r,
                                             const struct weighted_cluster *wc, uint32_t name_id);
/* Most specific config of the filter (overrides that only enable it have none); NULL: none. */
const void *route_override_config(const struct route_table *t, const struct route_entry *r,
                                  const struct weighted_cluster *wc, uint32_t name_id);
/* All of them from least to most specific; returns the count. */
unsigned route_override_configs(const struct route_table *t, const struct route_entry *r,
                                const struct weighted_cluster *wc, uint32_t name_id,
                                const void *out[4]);
/* Hash of hash_policy for this request; *has false when no policy produced one. `set_cookie` (may
 * be NULL) receives a Set-Cookie value to add to the response when a cookie was generated. */
uint64_t route_hash(const struct route_entry *r, const struct route_match_input *in, bool *has,
                    sv *set_cookie);
/* Location header of a redirect, in arena memory. `si` (may be NULL) is for path_rewrite's
 * operators. */
sv route_redirect_location(const struct route_entry *r, const struct headers *request, bool is_tls,
                           struct arena *a);
sv route_redirect_location_for(const struct route_entry *r, const struct headers *request,
                               bool is_tls, const struct stream_info *si, struct arena *a);
/* Location of ROUTE_TLS_REDIRECT: the same URL by https. */
sv route_tls_redirect_location(const struct headers *request, struct arena *a);
/* Path and host rewriting as the route says; sets x-envoy-original-path/-host when asked.
 * auto_host_rewrite happens when upstream_hostname is not empty; when the host is only known later,
 * call route_rewrite_auto_host then. */
void route_rewrite(const struct route_entry *r, const struct weighted_cluster *wc,
                   struct headers *request, const struct stream_info *si, bool set_original_path,
                   sv upstream_hostname);
void route_rewrite_auto_host(const struct route_entry *r, struct headers *request,
                             bool set_original_host, sv upstream_hostname);
/* The first of the virtual host's virtual clusters whose headers match, else its catch-all "other";
 * NULL with an empty
 * *name when the virtual host has none. */
const struct virtual_cluster *vhost_virtual_cluster(const struct vhost *v, const struct headers *h,
                                                    struct arena *scratch, sv *name);

#endif
