/* Counts gRPC requests, messages and statuses by cluster, service and method.
 * Threads: config immutable but for a table of counters for each thread; streams worker-local.
 * Spec: extensions.filters.http.grpc_stats.v3.FilterConfig; names
 * cluster.<c>.grpc.[<service>.<method>.]*. */
#include "filters/common/grpc_counters.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/http_grpc_stats.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "proxy/api/http_filter.h"

#define FILTER_STATE_NAME "envoy.filters.http.grpc_stats"
#define FRAME_HEADER_BYTES 5

struct grpc_stats_config {
    bool emit_filter_state, all_methods, upstream_stats, replace_dots;
    struct map allowed; /* "<service>/<method>" → itself */
    struct grpc_counters counters;
};
/* Where in the stream of length-prefixed messages a direction is. */
struct frames {
    uint64_t count;
    uint32_t left;        /* of the message */
    uint8_t header_bytes; /* of its header, so far */
};
struct grpc_stats {
    struct http_filter base; /* must be first */
    bool is_request, is_response, is_charged;
    struct grpc_method *stats; /* NULL: not counted */
    struct frames requests, responses;
};

/* --- compile --- */

static void release(void *config) { map_fini(&((struct grpc_stats_config *)config)->allowed); }

static void compile_allowed(struct compile_ctx *ctx, const Core__GrpcMethodList *m,
                            struct grpc_stats_config *c) {
    for (size_t i = 0; i < m->n_services; i++) {
        for (size_t k = 0; k < m->services[i]->n_method_names; k++) {
            sv key = arena_printf(ctx->arena, "%s/%s", m->services[i]->name,
                                  m->services[i]->method_names[k]);
            map_put(&c->allowed, key, c);
        }
    }
}

static void *grpc_stats_compile(struct compile_ctx *ctx, const void *msg) {
    const HttpGrpcStats__FilterConfig *m = (const HttpGrpcStats__FilterConfig *)msg;
    struct grpc_stats_config *c = arena_new(ctx->arena, struct grpc_stats_config);
    arena_on_fini(ctx->arena, release, c);
    map_init(&c->allowed);
    grpc_counters_init(ctx, &c->counters, "grpc");
    c->emit_filter_state = m->emit_filter_state;
    c->upstream_stats = m->enable_upstream_stats;
    c->replace_dots = m->replace_dots_in_grpc_service_name;
    switch (m->per_method_stat_specifier_case) {
    case HTTP_GRPC_STATS__FILTER_CONFIG__PER_METHOD_STAT_SPECIFIER__NOT_SET:
        break;
    case HTTP_GRPC_STATS__FILTER_CONFIG__PER_METHOD_STAT_SPECIFIER_STATS_FOR_ALL_METHODS:
        c->all_methods = m->stats_for_all_methods->value;
        break;
    case HTTP_GRPC_STATS__FILTER_CONFIG__PER_METHOD_STAT_SPECIFIER_INDIVIDUAL_METHOD_STATS_ALLOWLIST:
        compile_allowed(ctx, m->individual_method_stats_allowlist, c);
        break;
    default:
        diag_error(ctx->diag, "unknown per-method stat specifier");
        return NULL;
    }
    return c;
}

/* --- methods --- */

static bool is_allowed(const struct grpc_stats_config *c, sv service, sv method) {
    char key[GRPC_METHOD_BYTES_MAX];
    if (c->all_methods) {
        return grpc_is_stat_name(service) && grpc_is_stat_name(method);
    }
    if (map_count(&c->allowed) == 0 || service.n + method.n + 1 >= sizeof(key)) {
        return false;
    }
    int n = snprintf(key, sizeof(key), "%.*s/%.*s", SV_ARG(service), SV_ARG(method));
    return map_get(&c->allowed, sv_from(key, (size_t)n)) != NULL;
}

static sv prefix_of(const struct grpc_stats_config *c, sv service, sv method, char *out,
                    size_t size) {
    if (service.n + method.n + 3 > size || !is_allowed(c, service, method)) {
        return SV("");
    }
    int n = snprintf(out, size, "%.*s.%.*s.", SV_ARG(service), SV_ARG(method));
    for (size_t i = 0; c->replace_dots && i < service.n; i++) {
        out[i] = out[i] == '.' ? '_' : out[i];
    }
    return sv_from(out, (size_t)n);
}

/* --- messages --- */

/* How many messages begin in these bytes. */
static uint64_t count_in(struct frames *f, const unsigned char *p, size_t n) {
    uint64_t found = 0;
    while (n) {
        if (f->header_bytes == FRAME_HEADER_BYTES) {
            size_t skip = f->left < n ? f->left : n;
            f->left -= (uint32_t)skip;
            p += skip;
            n -= skip;
            f->header_bytes = f->left ? FRAME_HEADER_BYTES : 0;
            continue;
        }
        if (f->header_bytes == 0) {
            found++;
            f->left = 0;
        } else {
            f->left = f->left << 8 | *p;
        }
        f->header_bytes++;
        p++;
        n--;
        if (f->header_bytes == FRAME_HEADER_BYTES && f->left == 0) {
            f->header_bytes = 0;
        }
    }
    return found;
}

static uint64_t count_messages(struct frames *f, const struct buf *data) {
    uint64_t found = 0;
    for (size_t i = 0; i < buf_slices(data); i++) {
        const struct slice *s = buf_slice(data, i);
        found += count_in(f, (const unsigned char *)s->p, s->n);
    }
    f->count += found;
    return found;
}

static void emit_filter_state(struct grpc_stats *g) {
    if (!((const struct grpc_stats_config *)g->base.config)->emit_filter_state) {
        return;
    }
    struct stream_info *si = http_stream_info(&g->base);
    struct arena *a = http_arena(&g->base);
    if (!si->filter_state) {
        si->filter_state = filter_state_new(a, NULL);
    }
    struct kv_value *v = arena_new(a, struct kv_value), n;
    *v = kv_empty_struct();
    n = kv_number((double)g->requests.count);
    kv_set(v, a, SV("request_message_count"), &n);
    n = kv_number((double)g->responses.count);
    kv_set(v, a, SV("response_message_count"), &n);
    sv text = arena_printf(a, "%llu,%llu", (unsigned long long)g->requests.count,
                           (unsigned long long)g->responses.count);
    filter_state_set(si->filter_state, SV(FILTER_STATE_NAME), text, v, false, FILTER_STATE_LOCAL);
}

/* --- statuses --- */

static void charge_status(struct grpc_stats *g, const struct headers *h) {
    if (g->stats && !g->is_charged) {
        g->is_charged = grpc_charge_status(g->stats, h);
    }
}

/* From the last byte sent upstream to the last one received. */
static void charge_time(struct grpc_stats *g) {
    const struct upstream_info *up = &http_stream_info(&g->base)->up;
    bool wanted = ((const struct grpc_stats_config *)g->base.config)->upstream_stats;
    if (wanted && g->stats && up->last_tx_us && up->last_rx_us >= up->last_tx_us) {
        stat_dyn_record(
            grpc_counter(g->stats, &g->stats->time_ms, "upstream_rq_time", STAT_HISTOGRAM),
            (up->last_rx_us - up->last_tx_us) / 1000);
    }
}

/* --- streams --- */

static enum filter_headers_status grpc_stats_decode_headers(struct http_filter *f,
                                                            struct headers *h, bool end_stream) {
    (void)end_stream;
    struct grpc_stats *g = (struct grpc_stats *)f;
    /* The config is shared, but each thread writes only its own entry of `threads`. */
    struct grpc_stats_config *c = (struct grpc_stats_config *)(uintptr_t)f->config;
    g->is_request = grpc_is_type(headers_get(h, HDR_content_type)) && headers_get(h, HDR_path).n;
    sv cluster = g->is_request ? http_route_cluster_stat_name(f) : SV_NULL, service, method;
    if (!cluster.n || !grpc_split_path(headers_get(h, HDR_path), &service, &method)) {
        return FILTER_HEADERS_CONTINUE;
    }
    char prefix[GRPC_METHOD_BYTES_MAX];
    g->stats = grpc_counters_find(&c->counters, http_loop(f)->thread_index, cluster,
                                  prefix_of(c, service, method, prefix, sizeof(prefix)));
    return FILTER_HEADERS_CONTINUE;
}

static enum filter_data_status grpc_stats_decode_data(struct http_filter *f, struct buf *data,
                                                      bool end_stream) {
    (void)end_stream;
    struct grpc_stats *g = (struct grpc_stats *)f;
    uint64_t n = g->is_request ? count_messages(&g->requests, data) : 0;
    if (n) {
        emit_filter_state(g);
        if (g->stats) {
            stat_dyn_add(
                grpc_counter(g->stats, &g->stats->requests, "request_message_count", STAT_COUNTER),
                (int64_t)n);
        }
    }
    return FILTER_DATA_CONTINUE;
}

static enum filter_headers_status grpc_stats_encode_headers(struct http_filter *f,
                                                            struct headers *h, bool end_stream) {
    struct grpc_stats *g = (struct grpc_stats *)f;
    g->is_response = grpc_is_response(h, end_stream);
    charge_status(g, h);
    if (end_stream) {
        charge_time(g);
    }
    return FILTER_HEADERS_CONTINUE;
}

static enum filter_data_status grpc_stats_encode_data(struct http_filter *f, struct buf *data,
                                                      bool end_stream) {
    (void)end_stream;
    struct grpc_stats *g = (struct grpc_stats *)f;
    uint64_t n = g->is_response ? count_messages(&g->responses, data) : 0;
    if (n) {
        emit_filter_state(g);
        if (g->stats) {
            stat_dyn_add(grpc_counter(g->stats, &g->stats->responses, "response_message_count",
                                      STAT_COUNTER),
                         (int64_t)n);
        }
    }
    return FILTER_DATA_CONTINUE;
}

static enum filter_trailers_status grpc_stats_encode_trailers(struct http_filter *f,
                                                              struct headers *t) {
    struct grpc_stats *g = (struct grpc_stats *)f;
    charge_status(g, t);
    charge_time(g);
    return FILTER_TRAILERS_CONTINUE;
}

extern const struct http_filter_type grpc_stats_http_filter;
const struct http_filter_type grpc_stats_http_filter = {
    .name = "envoy.filters.http.grpc_stats",
    .type_url = "envoy.extensions.filters.http.grpc_stats.v3.FilterConfig",
    .route_type_url = "",
    .stream_size = sizeof(struct grpc_stats),
    .compile = grpc_stats_compile,
    .decode_headers = grpc_stats_decode_headers,
    .decode_data = grpc_stats_decode_data,
    .encode_headers = grpc_stats_encode_headers,
    .encode_data = grpc_stats_encode_data,
    .encode_trailers = grpc_stats_encode_trailers,
};
