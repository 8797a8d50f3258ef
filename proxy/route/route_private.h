/* What the files of route/ share about a compiled table; nobody else includes this.
 * Threads: immutable once compiled. */
#ifndef SLUICE_ROUTE_ROUTE_PRIVATE_H
#define SLUICE_ROUTE_ROUTE_PRIVATE_H

#include "proxy/base/map.h"
#include "proxy/route/route_table.h"

struct metadata_matchers;
struct filter_state_matchers;

/* Conditions of a route beside its path; NULL members ask for nothing. */
struct route_conditions {
    const struct header_matchers *headers;
    const struct query_matchers *query;
    const struct cookie_matchers *cookies;
    const struct metadata_matchers *metadata;
    const struct filter_state_matchers *filter_state;
    bool has_fraction, is_grpc;
    bool has_presented, presented, has_validated, validated; /* downstream certificate */
    struct fraction fraction;
};

/* --- paths of one virtual host (route_index.c) --- */
#define PATH_INDEX_MIN_ROUTES 8 /* fewer are scanned */
#define PATH_INDEX_LENGTHS_MAX 64
#define ROUTE_INDEX_END UINT32_MAX
struct path_bucket {
    uint32_t hash;
    uint32_t first; /* route; further ones with the same text by next[]; ROUTE_INDEX_END: free */
};
struct path_index {
    struct path_bucket *exact, *prefix;
    uint32_t exact_mask, prefix_mask;         /* size - 1; tables are never full */
    uint32_t lengths[PATH_INDEX_LENGTHS_MAX]; /* of prefixes, ascending */
    unsigned lengths_n;
    const uint32_t *next;   /* by route, ascending chains */
    const uint32_t *others; /* routes that need a look of their own, ascending */
    unsigned others_n;
};
/* Candidates for a path, drawn in the order of the route list. */
struct path_candidates {
    const struct path_index *index;
    uint32_t heads[PATH_INDEX_LENGTHS_MAX + 1];
    unsigned heads_n, others_at;
};

struct vhost_routes {
    struct route_entry *v;
    unsigned n;
    const struct route_conditions *const *conditions; /* by route; NULL entries: none */
    const struct path_index *index;                   /* NULL: scan */
    const sv *domains;                                /* lower case */
    unsigned domains_n;
};
/* NULL when a scan is as good. */
const struct path_index *path_index_build(struct arena *a, const struct route_entry *v, unsigned n);
void path_candidates_begin(struct path_candidates *c, const struct path_index *index,
                           const struct route_entry *v, sv path);
/* Next candidate or ROUTE_INDEX_END. *is_sure: its text is known to be a prefix of (or equal to)
 * the path. */
uint32_t path_candidates_next(struct path_candidates *c, bool *is_sure);

/* --- hosts of a table (host_index.c) --- */
struct wildcard_index {
    struct map map;    /* text without its '*' → vhost */
    uint32_t *lengths; /* descending, in the table's arena */
    unsigned lengths_n;
};
struct host_index {
    struct map exact;
    struct wildcard_index suffix, prefix;
    const struct vhost *any;
};
void host_index_init(struct host_index *x);
/* Room for as many domains as `like` has. */
void host_index_reserve(struct host_index *x, const struct host_index *like);
void host_index_fini(struct host_index *x);
/* False: a domain of v is there already (error added, in Envoy's words). */
bool host_index_add(struct host_index *x, const struct vhost *v, sv route_name, struct diag *d);
void host_index_finish(struct host_index *x, struct arena *a);
/* host: as in :authority; p NULL when there is none. */
const struct vhost *host_index_find(const struct host_index *x, sv host, bool ignore_port,
                                    struct arena *scratch);

struct route_table_private {
    struct arena arena;
    const struct vhost **vhosts; /* one ref each */
    unsigned vhosts_n;
    struct host_index hosts;
    sv vhost_header; /* lower case; empty: :authority */
    enum header_id vhost_header_id;
};

/* The part of :path that routes are matched with. */
sv route_match_path(sv path, bool ignore_parameters);
/* Does r's path specifier match? path: from route_match_path; full: :path without query. */
bool route_path_matches(const struct route_entry *r, sv path, sv full, bool is_connect);

extern const struct route_rewrite route_rewrite_none;
extern const struct route_extra route_extra_none;

/* --- compiling (route_compile*.c) --- */
struct route_compile {
    struct compile_ctx *ctx; /* arena: the virtual host's, or the table's */
    struct arena *scratch;   /* messages of the virtual host at hand */
    struct vhost *vhost;     /* NULL: table level */
    const void *vhost_msg;
    const void *table_msg; /* RouteConfiguration without virtual hosts */
    bool must_exist;       /* clusters */
    uint32_t body_bytes_max;
    const struct retry_policy *vhost_retry;
    const struct mirror_policy *inherited_mirrors; /* the virtual host's, else the table's */
    unsigned inherited_mirrors_n;
};
bool route_compile_entry(struct route_compile *c, const void *route_msg, struct route_entry *r,
                         const struct route_conditions **conditions);
/* r's own, made when it has the shared one so far. */
struct route_rewrite *route_own_rewrite(struct route_compile *c, struct route_entry *r);
struct route_extra *route_own_extra(struct route_compile *c, struct route_entry *r);
bool route_compile_match(struct route_compile *c, const void *match_msg, struct route_entry *r,
                         const struct route_conditions **conditions);
bool route_compile_action(struct route_compile *c, const void *action_msg, struct route_entry *r);
bool route_compile_redirect(struct route_compile *c, const void *redirect_msg,
                            struct route_entry *r);
bool route_compile_weighted(struct route_compile *c, const void *weighted_msg,
                            struct route_entry *r);
bool route_compile_hash(struct route_compile *c, const void *action_msg, struct route_entry *r);
bool route_compile_internal_redirect(struct route_compile *c, const void *action_msg,
                                     struct route_entry *r);
bool route_compile_mirrors(struct route_compile *c, const void *const *msgs, size_t n,
                           const struct mirror_policy **out, unsigned *out_n);
bool route_compile_overrides(struct compile_ctx *ctx, const void *const *entries, size_t n,
                             struct filter_overrides *out);
/* cors: deprecated CorsPolicy of a route or virtual host, NULL: none; it becomes an override unless
 * there is a typed one. */
bool route_compile_legacy_cors(struct compile_ctx *ctx, const void *cors,
                               struct filter_overrides *o);
/* Stats below vhost.<vhost>.<kind>.<name>., released with the arena. */
void route_compile_stats(struct route_compile *c, const char *kind, sv name,
                         struct stats_scope **scope, struct stats_codes **codes);
bool route_compile_regex_rewrite(struct compile_ctx *ctx, const void *msg,
                                 struct regex_rewrite *out);
/* RetryPolicy; NULL with errors added. Equal messages yield the same policy; it lives as long as
 * one of the arenas it was compiled for. */
const struct retry_policy *retry_policy_compile(struct compile_ctx *ctx, const void *msg);
/* Milliseconds of a Duration; UINT32_MAX - 1 at most, negative: error. */
bool route_duration_ms(struct compile_ctx *ctx, const char *field, const void *duration_msg,
                       uint32_t *out);
sv route_lower(struct arena *a, const char *s);

#endif
