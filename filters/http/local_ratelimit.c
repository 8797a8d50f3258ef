/* Local rate limit: token buckets of the process for the filter or for a route, one for all
 * requests and others by descriptors.
 * Threads: config immutable but for its buckets, which all workers share without a lock; streams
 * worker-local, and so are a connection's own buckets.
 * Spec: extensions.filters.http.local_ratelimit.v3. Refused: limits by share of the cluster. */
#include "filters/common/local_limiter.h"
#include "protos/gen/http_local_ratelimit.pb-c.h"
#include "proxy/api/header_mutation.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/matcher.h"
#include "proxy/api/rate_limit.h"
#include "proxy/api/worker.h"

#define LOCAL_RATELIMIT_STATS(P, C, G, H, T) \
    C(P, enabled) C(P, enforced) C(P, ok) C(P, rate_limited) C(P, shadow_mode)
STATS_ENUM(LOCAL_RATELIMIT, LOCAL_RATELIMIT_STATS);
STATS_GROUP(local_ratelimit, LOCAL_RATELIMIT, LOCAL_RATELIMIT_STATS);

#define GRPC_RESOURCE_EXHAUSTED "8"
#define GRPC_UNAVAILABLE "14"

struct ratelimit_config {
    struct stats_scope *stats;
    struct local_limiter *limiter;
    const struct rate_limits *rate_limits; /* the filter's own; NULL: the route's count */
    unsigned stage;
    int vhost_option; /* common.ratelimit.v3.VhRateLimitsOptions */
    unsigned status;
    bool has_enabled, has_enforced; /* else: never */
    struct fraction enabled, enforced;
    const struct header_mutations *unenforced_request, *limited_response; /* NULL: none */
    bool tells_limits, tells_retry_after, is_resource_exhausted, is_per_connection;
};
struct ratelimit {
    struct http_filter base;               /* must be first */
    const struct ratelimit_config *config; /* that was asked; NULL: none */
    const struct token_bucket *bucket;     /* to tell of; NULL: none */
    bool tells_limits;
};

/* --- compile --- */

static void release_scope(void *scope) { stats_scope_unref((struct stats_scope *)scope); }

static bool refuse_unsupported(struct compile_ctx *ctx,
                               const HttpLocalRatelimit__LocalRateLimit *m) {
    const struct {
        bool is_set;
        const char *field;
    } fields[] = {
        {m->local_cluster_rate_limit, "local_cluster_rate_limit"},
    };
    bool ok = true;
    for (size_t i = 0; i < ARRAY_LEN(fields); i++) {
        ok = (!fields[i].is_set || diag_error(ctx->diag, "%s: not supported", fields[i].field)) &&
             ok;
    }
    return ok;
}

static void compile_fraction(struct compile_ctx *ctx, const char *field,
                             const Core__RuntimeFractionalPercent *m, bool *has,
                             struct fraction *out) {
    DIAG_FIELD(ctx->diag, "%s", field);
    *has = m && fraction_compile(ctx, m, out);
}

static const struct header_mutations *compile_headers(struct compile_ctx *ctx, const char *field,
                                                      Core__HeaderValueOption *const *v, size_t n) {
    DIAG_FIELD(ctx->diag, "%s", field);
    return header_mutations_compile(ctx, (const void *const *)v, n, NULL, 0);
}

static struct ratelimit_config *compile(struct compile_ctx *ctx,
                                        const HttpLocalRatelimit__LocalRateLimit *m) {
    unsigned before = diag_errors(ctx->diag);
    struct ratelimit_config *c = arena_new(ctx->arena, struct ratelimit_config);
    refuse_unsupported(ctx, m);
    compile_fraction(ctx, "filter_enabled", m->filter_enabled, &c->has_enabled, &c->enabled);
    compile_fraction(ctx, "filter_enforced", m->filter_enforced, &c->has_enforced, &c->enforced);
    c->unenforced_request = compile_headers(ctx, "request_headers_to_add_when_not_enforced",
                                            m->request_headers_to_add_when_not_enforced,
                                            m->n_request_headers_to_add_when_not_enforced);
    c->limited_response = compile_headers(ctx, "response_headers_to_add",
                                          m->response_headers_to_add, m->n_response_headers_to_add);
    c->status = m->status && m->status->code >= 400 ? (unsigned)m->status->code : 429;
    c->tells_limits =
        m->enable_x_ratelimit_headers != COMMON_RATELIMIT__XRATE_LIMIT_HEADERS_RFCVERSION__OFF;
    c->tells_retry_after = m->enable_retry_after_header;
    c->is_per_connection = m->local_rate_limit_per_downstream_connection;
    c->is_resource_exhausted = m->rate_limited_as_resource_exhausted;
    c->limiter = local_limiter_compile(
        ctx, &(struct local_limiter_config){
                 .token_bucket = m->token_bucket,
                 .descriptors = (const void *const *)m->descriptors,
                 .descriptors_n = m->n_descriptors,
                 .values_max = m->max_dynamic_descriptors ? m->max_dynamic_descriptors->value
                                                          : LOCAL_LIMITER_VALUES_DEFAULT,
                 .always_consumes_default = !m->always_consume_default_token_bucket ||
                                            m->always_consume_default_token_bucket->value,
             });
    c->rate_limits =
        rate_limits_compile(ctx, (const void *const *)m->rate_limits, m->n_rate_limits, true);
    c->stage = m->stage;
    c->vhost_option = (int)m->vh_rate_limits;
    c->stats =
        stats_scope_get(ctx->stats, &local_ratelimit_stats_group,
                        arena_printf(ctx->arena, "%s.http_local_rate_limit.", m->stat_prefix));
    arena_on_fini(ctx->arena, release_scope, c->stats);
    return diag_errors(ctx->diag) == before ? c : NULL;
}

static void *ratelimit_compile(struct compile_ctx *ctx, const void *msg) {
    return compile(ctx, msg);
}
static void *ratelimit_compile_route(struct compile_ctx *ctx, const void *msg, const char *type) {
    const HttpLocalRatelimit__LocalRateLimit *m = msg;
    (void)type;
    if (!m->token_bucket) {
        diag_error(ctx->diag, "local rate limit token bucket must be set for per filter configs");
        return NULL;
    }
    return compile(ctx, m);
}

/* --- requests --- */

static struct ratelimit *ratelimit_of(struct http_filter *f) { return (struct ratelimit *)f; }

static bool falls_under(struct http_filter *f, bool has, const struct fraction *fraction) {
    return has && fraction_holds(fraction, rng_u64(&http_loop(f)->rng));
}

static void add_number(struct headers *h, sv name, uint64_t value) {
    headers_set_name(h, name, arena_printf(h->arena, "%llu", (unsigned long long)value));
}

static void tell_limits(struct http_filter *f, const struct token_bucket *b, struct headers *h) {
    uint64_t left, next_s;
    token_bucket_state(b, loop_now_us(http_loop(f)), &left, &next_s);
    add_number(h, SV("x-ratelimit-limit"), (uint64_t)b->max);
    add_number(h, SV("x-ratelimit-remaining"), left);
    add_number(h, SV("x-ratelimit-reset"), next_s);
}

/* Only an answer of 429 says when to come back. */
static void modify_reply(struct headers *h, void *arg) {
    struct ratelimit *r = arg;
    uint64_t left, next_s;
    struct stream_info *si = http_stream_info(&r->base);
    sv type = headers_get(http_request_headers(&r->base), HDR_content_type);
    si->flags &= ~RESPONSE_FLAG(RL); /* set behind these headers, as far as they can tell */
    header_mutations_apply(r->config->limited_response, h, si);
    si->flags |= RESPONSE_FLAG(RL);
    if (r->config->tells_retry_after && r->config->status == 429 && r->bucket) {
        token_bucket_state(r->bucket, loop_now_us(http_loop(&r->base)), &left, &next_s);
        add_number(h, SV("retry-after"), next_s);
    }
    if (sv_starts(type, SV("application/grpc"))) {
        headers_set(h, HDR_grpc_status,
                    r->config->is_resource_exhausted ? SV(GRPC_RESOURCE_EXHAUSTED)
                                                     : SV(GRPC_UNAVAILABLE));
    }
}

/* Does the virtual host count beside a route that has limits of its own? */
static bool counts_vhost(const struct ratelimit_config *c, const struct http_rate_limits *l) {
    switch (c->vhost_option) {
    case COMMON_RATELIMIT__VH_RATE_LIMITS_OPTIONS__INCLUDE:
        return true;
    case COMMON_RATELIMIT__VH_RATE_LIMITS_OPTIONS__IGNORE:
        return l->includes_vhost;
    default: /* OVERRIDE */
        return l->includes_vhost || rate_limits_count(l->route) == 0;
    }
}

static void *make_limiter(struct arena *a, const void *config) {
    return local_limiter_dup(((const struct ratelimit_config *)config)->limiter, a);
}

/* A connection has one of its own at most: the first configuration that asks for it decides. */
static struct local_limiter *limiter_of(struct http_filter *f, const struct ratelimit_config *c) {
    static const char key;
    return c->is_per_connection ? http_conn_object(f, &key, make_limiter, c) : c->limiter;
}

static struct local_limiter_verdict ask(struct http_filter *f, const struct ratelimit_config *c,
                                        const struct headers *h) {
    struct arena *a = http_arena(f);
    uint64_t now_us = loop_now_us(http_loop(f));
    struct http_rate_limits l = {.route = c->rate_limits};
    struct local_limiter *limiter = limiter_of(f, c);
    if (!local_limiter_has_descriptors(limiter) ||
        (!c->rate_limits && !http_route_rate_limits(f, &l))) {
        return local_limiter_ask(limiter, NULL, 0, now_us, a);
    }
    const struct rate_limit_facts facts = {
        .si = http_stream_info(f),
        .request = h,
        .source_cluster = worker_node_cluster(http_worker(f)),
        .destination_cluster = http_route_cluster(f),
        .scratch = a,
    };
    unsigned stage = c->rate_limits ? 0 : c->stage;
    unsigned max = rate_limits_count(l.route) + rate_limits_count(l.vhost);
    struct rate_limit_descriptor *v =
        arena_new_array(a, struct rate_limit_descriptor, max ? max : 1);
    unsigned n = rate_limits_fill(l.route, stage, &facts, v);
    if (l.vhost && counts_vhost(c, &l)) {
        n += rate_limits_fill(l.vhost, stage, &facts, v + n);
    }
    return local_limiter_ask(limiter, v, n, now_us, a);
}

static enum filter_headers_status decode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    struct ratelimit *r = ratelimit_of(f);
    const struct ratelimit_config *c = http_route_config(f);
    (void)end_stream;
    c = c ? c : f->config;
    if (!falls_under(f, c->has_enabled, &c->enabled)) {
        return FILTER_HEADERS_CONTINUE;
    }
    struct stats_shard *stats = stats_shard(c->stats, http_loop(f)->thread_index);
    r->config = c;
    stats_inc(stats, LOCAL_RATELIMIT_enabled);
    struct local_limiter_verdict v = ask(f, c, h);
    r->bucket = v.bucket;
    r->tells_limits = v.headers == RATE_LIMIT_HEADERS_DEFAULT ? c->tells_limits
                                                              : v.headers == RATE_LIMIT_HEADERS_ON;
    if (v.is_allowed) {
        stats_inc(stats, LOCAL_RATELIMIT_ok);
        return FILTER_HEADERS_CONTINUE;
    }
    stats_inc(stats, LOCAL_RATELIMIT_rate_limited);
    if (v.is_shadow) {
        stats_inc(stats, LOCAL_RATELIMIT_shadow_mode);
        return FILTER_HEADERS_CONTINUE;
    }
    if (!falls_under(f, c->has_enforced, &c->enforced)) {
        header_mutations_apply(c->unenforced_request, h, http_stream_info(f));
        return FILTER_HEADERS_CONTINUE;
    }
    stats_inc(stats, LOCAL_RATELIMIT_enforced);
    http_local_reply(f, c->status, SV("local_rate_limited"), RESPONSE_FLAG(RL),
                     SV("local_rate_limited"), modify_reply, r);
    return FILTER_HEADERS_STOP;
}

static enum filter_headers_status encode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    struct ratelimit *r = ratelimit_of(f);
    (void)end_stream;
    if (r->bucket && r->tells_limits) {
        tell_limits(f, r->bucket, h);
    }
    return FILTER_HEADERS_CONTINUE;
}

const struct http_filter_type local_ratelimit_http_filter = {
    .name = "envoy.filters.http.local_ratelimit",
    .type_url = "envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit",
    .stream_size = sizeof(struct ratelimit),
    .compile = ratelimit_compile,
    .compile_route = ratelimit_compile_route,
    .decode_headers = decode_headers,
    .encode_headers = encode_headers,
};
