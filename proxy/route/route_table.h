/* Route tables: virtual-host and route match compiled so that first-match order holds without a
 * walk over all prefixes.
 * Threads: compiled on the config thread, immutable afterwards; matching on workers, allocation
 * only in the stream's arena.
 * Spec: config.route.v3.RouteConfiguration, VirtualHost, Route, RouteAction. Not here: forwarding
 * (request/router.c). */
#ifndef SLUICE_ROUTE_ROUTE_TABLE_H
#define SLUICE_ROUTE_ROUTE_TABLE_H

#include "proxy/api/header_mutation.h"
#include "proxy/base/shared.h"
#include "proxy/route/matcher.h"
#include "proxy/route/retry_policy.h"

/* Per-route filter configs are keyed by an interned id of the filter's name in the HCM. */
uint32_t filter_name_id(sv name); /* any thread, cold; ids are small and never reused */
struct filter_override {
    uint32_t name_id;
    bool is_disabled; /* FilterConfig.disabled */
    const struct http_filter_type *type;
    const void *config; /* NULL when only disabled/enabled */
};
struct filter_overrides {
    const struct filter_override *v;
    unsigned n;
};

enum hash_source { HASH_HEADER, HASH_COOKIE, HASH_SOURCE_IP, HASH_QUERY, HASH_FILTER_STATE };
struct hash_policy {
    enum hash_source source;
    bool is_terminal;
    sv name; /* header, cookie, parameter or filter-state key */
    enum header_id header_id;
    const struct regex *rewrite; /* header: regex_rewrite, NULL: none */
    sv substitution;
    bool generate_cookie; /* cookie: ttl was set */
    uint32_t cookie_ttl_s;
    sv cookie_path;
    sv cookie_attributes; /* "; SameSite=…" rendered */
};
struct mirror_policy {
    slot_t cluster;
    sv cluster_name, cluster_header;
    sv host_rewrite;                       /* instead of the "-shadow" suffix; empty: none */
    struct fraction fraction;              /* default 100 % */
    bool has_trace_sampled, trace_sampled; /* not set: as the request's */
    bool disable_shadow_host_suffix;
    const struct header_mutations *mutations;
};
struct weighted_cluster {
    slot_t cluster;
    sv cluster_name, cluster_header, host_rewrite;
    uint32_t weight;
    sv runtime_key; /* "<prefix>.<name>", empty: none */
    const struct header_mutations *request_mutations, *response_mutations;
    const struct metadata_match *metadata_match; /* merged with the route's; NULL: the route's */
    enum header_id cluster_header_id;
    struct filter_overrides overrides;
};
enum route_action_kind {
    ROUTE_CLUSTER,
    ROUTE_WEIGHTED,
    ROUTE_CLUSTER_HEADER,
    ROUTE_REDIRECT,
    ROUTE_DIRECT_RESPONSE,
    ROUTE_NON_FORWARDING
};
enum path_match_kind {
    PATH_MATCH_PREFIX,
    PATH_MATCH_EXACT,
    PATH_MATCH_REGEX,
    PATH_MATCH_SEPARATED_PREFIX,
    PATH_MATCH_CONNECT,
    PATH_MATCH_TEMPLATE
};
struct regex_rewrite {
    const struct regex *regex;
    sv substitution;
};
struct redirect_action {
    sv host, path, prefix_rewrite, scheme;
    const struct formatter *path_format; /* path_rewrite; NULL: none */
    bool has_path, has_prefix_rewrite, https_redirect, strip_query;
    uint32_t port; /* 0: keep */
    uint16_t code; /* 301 … 308 */
    struct regex_rewrite regex;
};
struct upgrade_override {
    sv type; /* lower case */
    bool enabled;
    bool has_connect_config, allow_post; /* CONNECT is terminated here; POST too */
};
struct internal_redirect {
    uint32_t max;          /* 0: pass through */
    const uint16_t *codes; /* default 302 only */
    unsigned codes_n;
    bool allow_cross_scheme;
    /* response_headers_to_copy: ids (HDR_OTHER: by name) and lower-case names */
    const enum header_id *copy_headers;
    const sv *copy_header_names;
    unsigned copy_headers_n;
    bool previous_routes, safe_cross_scheme; /* predicates */
    bool has_allow_list;
    /* allow_listed_routes; any may be empty when has_allow_list */
    const sv *allowed_routes;
    unsigned allowed_routes_n;
};
/* Tracing of a route: sampling caps and what spans are called. */
struct route_tracing {
    struct fraction client, random, overall;                /* 100 % when not set */
    const struct formatter *operation, *upstream_operation; /* NULL: not set */
    const void *const *custom_tags;                         /* type.tracing.v3.CustomTag messages */
    unsigned custom_tags_n;
};
/* rate_limits of a route or virtual host, for the filters that use them. */
struct route_rate_limits {
    const void *const *v; /* config.route.v3.RateLimit messages */
    unsigned n;
};
struct uri_template; /* route/uri_template.h */
struct json_formatter;

struct vhost;
/* One compiled route. Durations in ms; UINT32_MAX means "not set: use the default", 0 means
 * disabled. */
struct route_entry {
    const struct vhost *vhost;
    sv name;
    enum route_action_kind action;
    enum path_match_kind match_kind;
    sv match_path; /* the prefix or path that matched, for rewrites */
    const struct regex *match_regex;
    const struct uri_template *match_template, *rewrite_template; /* NULL: none */
    bool case_insensitive;
    slot_t cluster; /* ROUTE_CLUSTER */
    sv cluster_name;
    enum header_id cluster_header_id;
    sv cluster_header;               /* ROUTE_CLUSTER_HEADER */
    uint16_t cluster_not_found_code; /* 503 default */
    const struct weighted_cluster *weighted;
    unsigned weighted_n;
    uint64_t weighted_total;
    bool weighted_use_hash;
    sv random_value_header;
    enum header_id random_value_header_id;
    const struct metadata_match *metadata_match;
    uint32_t timeout_ms, idle_timeout_ms, max_stream_duration_ms;
    uint32_t flush_timeout_ms;
    /* max_grpc_timeout; UINT32_MAX: not set */
    uint32_t grpc_timeout_max_ms, grpc_timeout_offset_ms;
    /* the message is set: the grpc-timeout header is read by its rules */
    bool has_max_stream_duration;
    /* grpc_timeout_header_max/_offset; UINT32_MAX: not set */
    uint32_t grpc_header_max_ms, grpc_header_offset_ms;
    const struct retry_policy *retry; /* route's or virtual host's; NULL: none */
    const struct hash_policy *hash;
    unsigned hash_n;
    const struct mirror_policy *mirrors;
    unsigned mirrors_n;
    bool has_prefix_rewrite;
    sv prefix_rewrite;
    struct regex_rewrite path_regex; /* regex NULL: none */
    const struct formatter *path_rewrite, *host_rewrite_formatter;
    sv host_rewrite;
    sv host_rewrite_header;
    enum header_id host_rewrite_header_id;
    struct regex_rewrite host_rewrite_path_regex;
    bool auto_host_rewrite, append_x_forwarded_host;
    uint8_t priority; /* 0 default, 1 high */
    const struct upgrade_override *upgrades;
    unsigned upgrades_n;
    const struct internal_redirect *internal_redirect;
    const struct redirect_action *redirect;
    uint16_t direct_status;
    sv direct_body;
    const struct formatter *direct_body_format;    /* text; NULL: none */
    const struct json_formatter *direct_body_json; /* JSON; NULL: none */
    sv direct_content_type;
    const struct header_mutations *request_mutations, *response_mutations;
    struct filter_overrides overrides;
    const struct kv_metadata *metadata; /* Route.metadata.filter_metadata; NULL: none */
    sv decorator_operation;
    bool decorator_propagate;
    const struct route_tracing *tracing;
    uint32_t request_body_buffer_limit; /* UINT32_MAX: not set */
    bool include_vhost_rate_limits;
    const struct route_rate_limits *rate_limits; /* NULL: none */
    sv stat_prefix;
    /* vhost.<v>.route.<stat_prefix>. (route/route_stats.h); NULL */
    struct stats_scope *stats;
    struct stats_codes *rq_codes; /* upstream_rq_<code> below it; NULL */
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
    struct arena arena;
    uint64_t bytes_hash;
    sv name;
    enum { TLS_REQUIRE_NONE, TLS_REQUIRE_EXTERNAL, TLS_REQUIRE_ALL } require_tls;
    const struct header_mutations *request_mutations, *response_mutations;
    struct filter_overrides overrides;
    bool include_request_attempt_count, include_attempt_count_in_response, include_is_timeout_retry;
    uint32_t request_body_buffer_limit;
    const struct virtual_cluster *virtual_clusters;
    unsigned virtual_clusters_n; /* 0, or the last one is the catch-all "other" */
    const struct kv_metadata *metadata;
    const struct route_rate_limits *rate_limits; /* NULL: none */
    struct vhost_routes *routes_;                /* private: the compiled match structure */
};
struct route_table {
    struct shared shared;
    sv name;
    const struct header_mutations *request_mutations, *response_mutations;
    bool most_specific_mutations_win;
    bool ignore_port_in_host, ignore_path_parameters;
    const enum header_id *internal_only_ids;
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
