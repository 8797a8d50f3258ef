/* The parts of a compiled route: matching kinds, actions, rewrites, policies.
 * Threads: compiled on the config thread, immutable afterwards. Spec: config.route.v3.RouteAction,
 * RedirectAction, DirectResponseAction. Not here: the route itself, matching (route_table.h). */
#ifndef SLUICE_ROUTE_ROUTE_ACTION_H
#define SLUICE_ROUTE_ROUTE_ACTION_H

#include "proxy/api/header_mutation.h"
#include "proxy/route/matcher.h"

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
    sv host_rewrite;          /* instead of the "-shadow" suffix; empty: none */
    struct fraction fraction; /* default 100 % */
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
    uint8_t proxy_header;                /* before its bytes: version 1 or 2; 0: none */
};
struct internal_redirect {
    uint32_t max;          /* 0: pass through */
    const uint16_t *codes; /* default 302 only */
    unsigned codes_n;
    bool allow_cross_scheme;
    /* response_headers_to_copy, lower-case */
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
    const struct custom_tags *tags;                         /* observe/trace.h; NULL: none */
};
struct rate_limits;  /* api/rate_limit.h */
struct uri_template; /* route/uri_template.h */
struct json_formatter;

/* cluster_header */
struct route_cluster_header {
    sv name; /* lower case */
    enum header_id id;
};
/* weighted_clusters */
struct route_weighted {
    const struct weighted_cluster *v;
    unsigned n;
    bool use_hash;
    uint64_t total;
    sv random_value_header;
};
struct direct_response {
    sv body;
    const struct formatter *body_format;    /* text; NULL: none */
    const struct json_formatter *body_json; /* JSON; NULL: none */
    sv content_type;
    uint16_t status;
};
/* What becomes of :path and :authority. Routes that rewrite nothing share one. */
struct route_rewrite {
    sv prefix;                       /* empty: none */
    struct regex_rewrite path_regex; /* regex NULL: none */
    const struct uri_template *path_template;
    const struct formatter *path_format, *host_format;
    sv host;
    sv host_header;
    struct regex_rewrite host_path_regex;
    enum header_id host_header_id;
    bool auto_host, append_x_forwarded_host;
};
/* What few routes have; those that have nothing of it share one. Durations as in route_entry. */
struct route_extra {
    const struct hash_policy *hash;
    const struct mirror_policy *mirrors;
    const struct upgrade_override *upgrades;
    unsigned hash_n, mirrors_n, upgrades_n;
    bool decorator_propagate; /* default true */
    bool include_vhost_rate_limits;
    const struct internal_redirect *internal_redirect;
    /* max_grpc_timeout, grpc_timeout_offset */
    uint32_t grpc_timeout_max_ms, grpc_timeout_offset_ms;
    uint32_t grpc_header_max_ms, grpc_header_offset_ms; /* of max_stream_duration */
    sv decorator_operation;
    const struct route_tracing *tracing;
    const struct rate_limits *rate_limits; /* NULL: none */
    sv stat_prefix;
    /* vhost.<v>.route.<stat_prefix>. (route/route_stats.h); NULL */
    struct stats_scope *stats;
    struct stats_codes *rq_codes; /* upstream_rq_<code> below it; NULL */
};

#endif
