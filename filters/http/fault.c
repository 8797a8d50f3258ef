/* Fault injection: delays, aborts and slowed responses, by percentage, by request headers, by
 * runtime.
 * Threads: config immutable but for one atomic count of active faults; streams worker-local.
 * Spec: extensions.filters.http.fault.v3.HTTPFault, extensions.filters.common.fault.v3. */
#include "protos/gen/common_fault.pb-c.h"
#include "protos/gen/http_fault.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/matcher.h"
#include "proxy/base/runtime.h"

#define FAULT_STATS(P, C, G, H, T) \
    C(P, aborts_injected)          \
    G(P, active_faults) C(P, delays_injected) C(P, faults_overflow) C(P, response_rl_injected)
STATS_ENUM(FAULT, FAULT_STATS);
STATS_GROUP(fault, FAULT, FAULT_STATS);

#define METADATA_NAMESPACE "envoy.filters.http.fault"
#define ABORT_BODY "fault filter abort"
#define ABORT_DETAILS "fault_filter_abort"
#define RATE_SLICE_MS 50
#define RATE_BURST_MS 1000
/* longer x-envoy-downstream-service-cluster values get no stats of their own */
#define STAT_CLUSTER_MAX 128

enum fault_source { FAULT_OFF, FAULT_FIXED, FAULT_BY_HEADER };
struct fault_delay {
    enum fault_source source;
    struct fraction percentage;
    uint64_t ms;
};
struct fault_abort {
    enum fault_source source;
    struct fraction percentage;
    uint32_t http_status, grpc_status; /* FAULT_FIXED: the one that is set; 0 HTTP status: gRPC */
};
struct fault_rate {
    enum fault_source source;
    struct fraction percentage;
    uint64_t kbps;
};
/* What is shared by all workers: Envoy's limit on active faults is process-wide. */
struct fault_active {
    uint64_t count; /* atomic */
};
struct fault_config {
    struct stats_scope *stats; /* NULL in per-route configs: the filter's are used */
    struct fault_active *active;
    struct fault_delay delay;
    struct fault_abort abort;
    struct fault_rate rate;
    sv upstream_cluster;
    const struct header_matchers *headers;
    const sv *nodes;
    unsigned nodes_n;
    bool has_max_active;
    uint64_t max_active;
    bool no_downstream_stats;
    const struct kv_value *metadata; /* NULL: none */
    /* runtime keys */
    sv delay_percent_key, abort_percent_key, delay_ms_key, abort_http_key, abort_grpc_key,
        max_active_key, rate_percent_key;
};

struct fault {
    struct http_filter base;             /* must be first */
    const struct fault_config *settings; /* of the route, else of the filter */
    struct timer delay, tick;
    bool is_active, is_limited, is_ended;
    sv downstream_cluster;
    int64_t grpc_status;              /* of the abort under way; -1: none */
    uint64_t bytes_per_slice, tokens; /* bytes that may go now */
    uint64_t last_ms;
};

/* --- compile --- */

static void release_scope(void *scope) { stats_scope_unref((struct stats_scope *)scope); }

static void compile_percentage(struct compile_ctx *ctx, const void *msg, struct fraction *out) {
    DIAG_FIELD(ctx->diag, "percentage");
    fraction_percent_compile(ctx, msg, out);
}

static void compile_delay(struct compile_ctx *ctx, const CommonFault__FaultDelay *m,
                          struct fault_delay *d) {
    DIAG_FIELD(ctx->diag, "delay");
    compile_percentage(ctx, m->percentage, &d->percentage);
    switch (m->fault_delay_secifier_case) {
    case COMMON_FAULT__FAULT_DELAY__FAULT_DELAY_SECIFIER_FIXED_DELAY:
        d->source = FAULT_FIXED;
        if (m->fixed_delay->seconds < 0 || m->fixed_delay->nanos < 0 ||
            m->fixed_delay->seconds > UINT32_MAX) {
            diag_error(ctx->diag, "fixed_delay: expected a duration from 0s to %us", UINT32_MAX);
            return;
        }
        d->ms =
            (uint64_t)m->fixed_delay->seconds * 1000 + (uint64_t)m->fixed_delay->nanos / 1000000;
        break;
    case COMMON_FAULT__FAULT_DELAY__FAULT_DELAY_SECIFIER_HEADER_DELAY:
        d->source = FAULT_BY_HEADER;
        break;
    default:
        diag_error(ctx->diag, "fault_delay_secifier: is required");
    }
}

static void compile_abort(struct compile_ctx *ctx, const HttpFault__FaultAbort *m,
                          struct fault_abort *a) {
    DIAG_FIELD(ctx->diag, "abort");
    compile_percentage(ctx, m->percentage, &a->percentage);
    switch (m->error_type_case) {
    case HTTP_FAULT__FAULT_ABORT__ERROR_TYPE_HTTP_STATUS:
        a->source = FAULT_FIXED;
        a->http_status = m->http_status;
        if (m->http_status < 200 || m->http_status >= 600) {
            diag_error(ctx->diag, "http_status: value must be inside range [200, 600)");
        }
        break;
    case HTTP_FAULT__FAULT_ABORT__ERROR_TYPE_GRPC_STATUS:
        a->source = FAULT_FIXED;
        a->grpc_status = m->grpc_status;
        break;
    case HTTP_FAULT__FAULT_ABORT__ERROR_TYPE_HEADER_ABORT:
        a->source = FAULT_BY_HEADER;
        break;
    default:
        diag_error(ctx->diag, "error_type: is required");
    }
}

static void compile_rate(struct compile_ctx *ctx, const CommonFault__FaultRateLimit *m,
                         struct fault_rate *r) {
    DIAG_FIELD(ctx->diag, "response_rate_limit");
    compile_percentage(ctx, m->percentage, &r->percentage);
    switch (m->limit_type_case) {
    case COMMON_FAULT__FAULT_RATE_LIMIT__LIMIT_TYPE_FIXED_LIMIT:
        r->source = FAULT_FIXED;
        r->kbps = m->fixed_limit->limit_kbps;
        if (r->kbps < 1) {
            diag_error(ctx->diag,
                       "fixed_limit.limit_kbps: value must be greater than or equal to 1");
        }
        break;
    case COMMON_FAULT__FAULT_RATE_LIMIT__LIMIT_TYPE_HEADER_LIMIT:
        r->source = FAULT_BY_HEADER;
        break;
    default:
        diag_error(ctx->diag, "limit_type: is required");
    }
}

static sv key_or(struct arena *a, const char *configured, const char *otherwise) {
    return configured[0] ? arena_sv(a, sv_cstr(configured)) : sv_cstr(otherwise);
}

static void compile_keys(struct compile_ctx *ctx, const HttpFault__HTTPFault *m,
                         struct fault_config *c) {
    struct arena *a = ctx->arena;
    c->delay_percent_key =
        key_or(a, m->delay_percent_runtime, "fault.http.delay.fixed_delay_percent");
    c->abort_percent_key = key_or(a, m->abort_percent_runtime, "fault.http.abort.abort_percent");
    c->delay_ms_key = key_or(a, m->delay_duration_runtime, "fault.http.delay.fixed_duration_ms");
    c->abort_http_key = key_or(a, m->abort_http_status_runtime, "fault.http.abort.http_status");
    c->abort_grpc_key = key_or(a, m->abort_grpc_status_runtime, "fault.http.abort.grpc_status");
    c->max_active_key = key_or(a, m->max_active_faults_runtime, "fault.http.max_active_faults");
    c->rate_percent_key =
        key_or(a, m->response_rate_limit_percent_runtime, "fault.http.rate_limit.response_percent");
}

static void compile_targets(struct compile_ctx *ctx, const HttpFault__HTTPFault *m,
                            struct fault_config *c) {
    c->upstream_cluster = arena_sv(ctx->arena, sv_cstr(m->upstream_cluster));
    sv *nodes = arena_new_array(ctx->arena, sv, m->n_downstream_nodes);
    for (size_t i = 0; i < m->n_downstream_nodes; i++) {
        nodes[i] = arena_sv(ctx->arena, sv_cstr(m->downstream_nodes[i]));
    }
    c->nodes = nodes;
    c->nodes_n = (unsigned)m->n_downstream_nodes;
    DIAG_FIELD(ctx->diag, "headers");
    c->headers = header_matchers_compile(ctx, (const void *const *)m->headers, m->n_headers);
}

static struct fault_config *compile_settings(struct compile_ctx *ctx,
                                             const HttpFault__HTTPFault *m) {
    struct fault_config *c = arena_new(ctx->arena, struct fault_config);
    unsigned before = diag_errors(ctx->diag);
    if (m->delay) {
        compile_delay(ctx, m->delay, &c->delay);
    }
    if (m->abort) {
        compile_abort(ctx, m->abort, &c->abort);
    }
    if (m->response_rate_limit) {
        compile_rate(ctx, m->response_rate_limit, &c->rate);
    }
    compile_targets(ctx, m, c);
    compile_keys(ctx, m, c);
    c->has_max_active = m->max_active_faults != NULL;
    c->max_active = c->has_max_active ? m->max_active_faults->value : 0;
    c->no_downstream_stats = m->disable_downstream_cluster_stats;
    if (m->filter_metadata) {
        struct kv_value *v = arena_new(ctx->arena, struct kv_value);
        *v = kv_from_struct(m->filter_metadata, ctx->arena);
        c->metadata = v;
    }
    return diag_errors(ctx->diag) == before ? c : NULL;
}

static void *fault_compile(struct compile_ctx *ctx, const void *msg) {
    struct fault_config *c = compile_settings(ctx, (const HttpFault__HTTPFault *)msg);
    if (!c) {
        return NULL;
    }
    c->active = arena_new(ctx->arena, struct fault_active);
    c->stats = stats_scope_get(ctx->stats, &fault_stats_group,
                               arena_printf(ctx->arena, "%.*sfault.", SV_ARG(ctx->stat_prefix)));
    arena_on_fini(ctx->arena, release_scope, c->stats);
    return c;
}

static void *fault_compile_route(struct compile_ctx *ctx, const void *msg, const char *type) {
    (void)type;
    return compile_settings(ctx, (const HttpFault__HTTPFault *)msg);
}

/* --- helpers --- */

static const struct fault_config *filter_config(const struct fault *f) {
    return (const struct fault_config *)f->base.config;
}
static struct stats_shard *stats_of(struct fault *f) {
    return stats_shard(filter_config(f)->stats, http_loop(&f->base)->thread_index);
}
static struct headers *request_of(struct fault *f) { return http_request_headers(&f->base); }

/* A header's number lowers the percentage, which stays its upper bound; anything else leaves it. */
static struct fraction percentage_of(const struct fraction *configured, enum fault_source source,
                                     sv header) {
    struct fraction p = *configured;
    uint64_t n;
    if (source == FAULT_BY_HEADER && header.p && sv_to_u64(sv_trim(header), &n) &&
        n < p.numerator) {
        p.numerator = (uint32_t)n;
    }
    return p;
}

static bool falls_under(struct fault *f, struct fraction p, sv runtime_key,
                        const char *per_cluster) {
    char key[STAT_CLUSTER_MAX + 64];
    p.runtime_key = runtime_key;
    if (per_cluster && f->downstream_cluster.n) {
        int n = snprintf(key, sizeof(key), "fault.http.%.*s.%s", SV_ARG(f->downstream_cluster),
                         per_cluster);
        p.runtime_key = sv_from(key, (size_t)n);
    }
    return fraction_holds(&p, rng_u64(&http_loop(&f->base)->rng));
}

static uint64_t runtime_or(struct fault *f, sv key, const char *per_cluster, uint64_t value) {
    value = runtime_u64(key, value);
    if (f->downstream_cluster.n) {
        char text[STAT_CLUSTER_MAX + 64];
        int n = snprintf(text, sizeof(text), "fault.http.%.*s.%s", SV_ARG(f->downstream_cluster),
                         per_cluster);
        value = runtime_u64(sv_from(text, (size_t)n), value);
    }
    return value;
}

/* Names of stats come from a header here: only what could be a cluster's name. */
static sv stat_cluster(sv name) {
    for (size_t i = 0; i < name.n; i++) {
        if (!ascii_isalnum(name.p[i]) && !strchr("_-.:|", name.p[i])) {
            return SV_NULL;
        }
    }
    return name.n <= STAT_CLUSTER_MAX ? name : SV_NULL;
}

/* Beside the filter's own counter, one for the cluster that the request came from. */
static void count(struct fault *f, unsigned stat, const char *name) {
    stats_inc(stats_of(f), stat);
    if (!f->downstream_cluster.n || f->settings->no_downstream_stats) {
        return;
    }
    char text[STAT_CLUSTER_MAX + 32];
    int n = snprintf(text, sizeof(text), "%.*s.%s", SV_ARG(f->downstream_cluster), name);
    stat_dyn_add(stats_dyn(filter_config(f)->stats, sv_from(text, (size_t)n), STAT_COUNTER), 1);
}

/* One active fault a stream, however many are injected into it. */
static bool begin_fault(struct fault *f) {
    if (f->is_active) {
        return true;
    }
    uint64_t max = f->settings->has_max_active ? f->settings->max_active : UINT64_MAX;
    max = runtime_u64(f->settings->max_active_key, max);
    uint64_t *active = &filter_config(f)->active->count;
    if (__atomic_add_fetch(active, 1, __ATOMIC_RELAXED) > max) {
        __atomic_sub_fetch(active, 1, __ATOMIC_RELAXED);
        stats_inc(stats_of(f), FAULT_faults_overflow);
        return false;
    }
    stats_gauge_inc(stats_of(f), FAULT_active_faults);
    f->is_active = true;
    return true;
}

/* --- which requests --- */

static bool is_target_node(const struct fault_config *c, sv node) {
    for (unsigned i = 0; i < c->nodes_n; i++) {
        if (sv_eq(c->nodes[i], node)) {
            return true;
        }
    }
    return c->nodes_n == 0;
}

static bool is_target(struct fault *f, const struct headers *h) {
    const struct fault_config *c = f->settings;
    if (c->upstream_cluster.n && !sv_eq(c->upstream_cluster, http_route_cluster(&f->base))) {
        return false;
    }
    return is_target_node(c, headers_get(h, HDR_x_envoy_downstream_service_node)) &&
           header_matchers_match(c->headers, h, http_arena(&f->base));
}

/* --- delay --- */

static uint64_t delay_ms(struct fault *f, const struct headers *h) {
    const struct fault_delay *d = &f->settings->delay;
    if (d->source == FAULT_OFF) {
        return 0;
    }
    struct fraction p = percentage_of(&d->percentage, d->source,
                                      headers_get(h, HDR_x_envoy_fault_delay_request_percentage));
    if (!falls_under(f, p, f->settings->delay_percent_key, "delay.fixed_delay_percent")) {
        return 0;
    }
    uint64_t ms = d->ms;
    if (d->source == FAULT_BY_HEADER) {
        sv header = headers_get(h, HDR_x_envoy_fault_delay_request);
        if (!header.p || !sv_to_u64(sv_trim(header), &ms)) {
            return 0;
        }
    }
    return runtime_or(f, f->settings->delay_ms_key, "delay.fixed_duration_ms", ms);
}

/* --- abort --- */

/* The HTTP status to answer with and *grpc (-1: none); 0: no abort. */
static unsigned configured_abort(struct fault *f, const struct headers *h, int64_t *grpc) {
    const struct fault_abort *a = &f->settings->abort;
    uint64_t status = a->http_status, n;
    *grpc = -1;
    if (a->source == FAULT_BY_HEADER) {
        sv http = headers_get(h, HDR_x_envoy_fault_abort_request),
           code = headers_get(h, HDR_x_envoy_fault_abort_grpc_request);
        status = http.p && sv_to_u64(sv_trim(http), &n) && n >= 200 && n < 600 ? n : 0;
        *grpc =
            !status && code.p && sv_to_u64(sv_trim(code), &n) && n <= INT32_MAX ? (int64_t)n : -1;
    } else if (status == 0) {
        *grpc = a->grpc_status;
    }
    if (status) {
        status = runtime_or(f, f->settings->abort_http_key, "abort.http_status", status);
        return status >= 200 && status < 600 ? (unsigned)status : 0;
    }
    if (*grpc >= 0) {
        *grpc = (int64_t)(runtime_or(f, f->settings->abort_grpc_key, "abort.grpc_status",
                                     (uint64_t)*grpc) &
                          INT32_MAX);
        return 200;
    }
    return 0;
}

static unsigned abort_status(struct fault *f, const struct headers *h, int64_t *grpc) {
    const struct fault_abort *a = &f->settings->abort;
    if (a->source == FAULT_OFF) {
        return 0;
    }
    struct fraction p = percentage_of(&a->percentage, a->source,
                                      headers_get(h, HDR_x_envoy_fault_abort_request_percentage));
    return falls_under(f, p, f->settings->abort_percent_key, "abort.abort_percent")
               ? configured_abort(f, h, grpc)
               : 0;
}

static bool is_grpc(const struct headers *h) {
    sv type = headers_get(h, HDR_content_type), grpc = SV("application/grpc");
    return sv_starts(type, grpc) && (type.n == grpc.n || type.p[grpc.n] == '+');
}

/* A gRPC request is answered by the gRPC status asked for, instead of one that stands for the HTTP
 * status; others do not see it. */
static void set_grpc_status(struct headers *h, void *arg) {
    struct fault *f = (struct fault *)arg;
    if (is_grpc(request_of(f))) {
        headers_set(h, HDR_grpc_status, arena_printf(h->arena, "%lld", (long long)f->grpc_status));
    }
}

/* True: the request was answered. */
static bool try_abort(struct fault *f, const struct headers *h) {
    unsigned status = abort_status(f, h, &f->grpc_status);
    if (status == 0 || !begin_fault(f)) {
        return false;
    }
    count(f, FAULT_aborts_injected, "aborts_injected");
    http_local_reply(&f->base, status, SV(ABORT_BODY), RESPONSE_FLAG(FI), SV(ABORT_DETAILS),
                     f->grpc_status >= 0 ? set_grpc_status : NULL, f);
    return true;
}

static void on_delay_over(struct timer *t) {
    struct fault *f = CONTAINER_OF(t, struct fault, delay);
    if (!try_abort(f, request_of(f))) {
        http_continue_decoding(&f->base);
    }
}

/* --- slowed responses --- */

static uint64_t rate_kbps(struct fault *f, const struct headers *h) {
    const struct fault_rate *r = &f->settings->rate;
    if (r->source == FAULT_OFF) {
        return 0;
    }
    struct fraction p =
        percentage_of(&r->percentage, r->source,
                      headers_get(h, HDR_x_envoy_fault_throughput_response_percentage));
    if (!falls_under(f, p, f->settings->rate_percent_key, NULL)) {
        return 0;
    }
    uint64_t kbps = r->kbps;
    if (r->source == FAULT_BY_HEADER) {
        sv header = headers_get(h, HDR_x_envoy_fault_throughput_response);
        kbps = header.p && sv_to_u64(sv_trim(header), &kbps) ? kbps : 0;
    }
    return kbps < UINT64_MAX / 1024 / RATE_BURST_MS ? kbps : UINT64_MAX / 1024 / RATE_BURST_MS;
}

static void set_up_rate_limit(struct fault *f, const struct headers *h) {
    uint64_t kbps = rate_kbps(f, h);
    if (kbps == 0 || !begin_fault(f)) {
        return;
    }
    stats_inc(stats_of(f), FAULT_response_rl_injected);
    f->is_limited = true;
    f->bytes_per_slice = kbps * 1024 * RATE_SLICE_MS / 1000;
    f->bytes_per_slice = f->bytes_per_slice ? f->bytes_per_slice : 1;
    f->tokens = f->bytes_per_slice;
    f->last_ms = loop_now_ms(http_loop(&f->base));
}

static void earn_tokens(struct fault *f) {
    uint64_t now = loop_now_ms(http_loop(&f->base));
    uint64_t slices = (now - f->last_ms) / RATE_SLICE_MS;
    uint64_t most = RATE_BURST_MS / RATE_SLICE_MS;
    f->last_ms += slices * RATE_SLICE_MS;
    f->tokens += (slices < most ? slices : most) * f->bytes_per_slice;
    if (f->tokens > most * f->bytes_per_slice) {
        f->tokens = most * f->bytes_per_slice;
    }
}

static void on_tick(struct timer *t) {
    struct fault *f = CONTAINER_OF(t, struct fault, tick);
    struct buf *kept = http_encoding_buffer(&f->base);
    earn_tokens(f);
    size_t n = buf_len(kept) < f->tokens ? buf_len(kept) : (size_t)f->tokens;
    bool is_last = n == buf_len(kept);
    if (!is_last) {
        timer_start(&f->tick, RATE_SLICE_MS);
        if (n == 0) {
            return;
        }
        struct buf piece;
        buf_init(&piece);
        buf_move_n(&piece, kept, n);
        f->tokens -= n;
        http_add_encoded_data(&f->base, &piece, true);
        buf_fini(&piece);
        return; /* the stream may be gone */
    }
    f->tokens -= n;
    http_continue_encoding(&f->base); /* what is left, the end, and the source goes on */
}

static enum filter_data_status fault_encode_data(struct http_filter *base, struct buf *data,
                                                 bool end_stream) {
    struct fault *f = (struct fault *)base;
    if (!f->is_limited) {
        return FILTER_DATA_CONTINUE;
    }
    f->is_ended |= end_stream;
    if (!timer_active(&f->tick)) {
        earn_tokens(f);
        if (buf_len(data) <= f->tokens && buf_empty(http_encoding_buffer(base))) {
            f->tokens -= buf_len(data);
            return FILTER_DATA_CONTINUE;
        }
        timer_start(&f->tick, 0);
    }
    return FILTER_DATA_STOP_WATERMARK;
}

static enum filter_trailers_status fault_encode_trailers(struct http_filter *base,
                                                         struct headers *t) {
    (void)t;
    struct fault *f = (struct fault *)base;
    return f->is_limited && timer_active(&f->tick) ? FILTER_TRAILERS_STOP
                                                   : FILTER_TRAILERS_CONTINUE;
}

/* --- requests --- */

static void fault_init(struct http_filter *base) {
    struct fault *f = (struct fault *)base;
    timer_init(&f->delay, http_loop(base), on_delay_over);
    timer_init(&f->tick, http_loop(base), on_tick);
    f->grpc_status = -1;
}

static void note_metadata(struct fault *f) {
    struct stream_info *si = http_stream_info(&f->base);
    if (!f->settings->metadata) {
        return;
    }
    if (!si->metadata) {
        si->metadata = kv_metadata_new(http_arena(&f->base));
    }
    kv_metadata_merge(si->metadata, SV(METADATA_NAMESPACE), f->settings->metadata);
}

static enum filter_headers_status fault_decode_headers(struct http_filter *base, struct headers *h,
                                                       bool end_stream) {
    (void)end_stream;
    struct fault *f = (struct fault *)base;
    const struct fault_config *route = (const struct fault_config *)http_route_config(base);
    f->settings = route ? route : filter_config(f);
    if (!is_target(f, h)) {
        return FILTER_HEADERS_CONTINUE;
    }
    f->downstream_cluster = stat_cluster(headers_get(h, HDR_x_envoy_downstream_service_cluster));
    set_up_rate_limit(f, h);
    uint64_t ms = delay_ms(f, h);
    if (ms && begin_fault(f)) {
        count(f, FAULT_delays_injected, "delays_injected");
        http_stream_info(base)->flags |= RESPONSE_FLAG(DI);
        note_metadata(f);
        timer_start(&f->delay, ms);
        return FILTER_HEADERS_STOP_ALL_WATERMARK;
    }
    return try_abort(f, h) ? FILTER_HEADERS_STOP : FILTER_HEADERS_CONTINUE;
}

static void fault_destroy(struct http_filter *base) {
    struct fault *f = (struct fault *)base;
    timer_cancel(&f->delay);
    timer_cancel(&f->tick);
    if (f->is_active) {
        __atomic_sub_fetch(&filter_config(f)->active->count, 1, __ATOMIC_RELAXED);
        stats_gauge_dec(stats_of(f), FAULT_active_faults);
    }
}

extern const struct http_filter_type fault_http_filter;
const struct http_filter_type fault_http_filter = {
    .name = "envoy.filters.http.fault",
    .type_url = "envoy.extensions.filters.http.fault.v3.HTTPFault",
    .stream_size = sizeof(struct fault),
    .compile = fault_compile,
    .compile_route = fault_compile_route,
    .init = fault_init,
    .decode_headers = fault_decode_headers,
    .encode_data = fault_encode_data,
    .encode_trailers = fault_encode_trailers,
    .destroy = fault_destroy,
};
