/* Compiled AccessLogFilter trees. Threads: compiled on the config thread, matched on workers.
 * Spec: config.accesslog.v3.AccessLogFilter; of extension filters,
 * access_loggers.filters.cel.v3. */
#include "proxy/observe/access_log_filter.h"

#include "protos/gen/access_loggers_cel.pb-c.h"
#include "protos/gen/accesslog.pb-c.h"
#include "proxy/api/cel.h"
#include "proxy/base/runtime.h"
#include "proxy/observe/formatter.h"
#include "proxy/observe/hooks.h"

#define FILTER_DEPTH_MAX 32
#define GRPC_STATUSES 17

enum kind {
    F_STATUS,
    F_DURATION,
    F_NOT_HEALTH_CHECK,
    F_TRACEABLE,
    F_RUNTIME,
    F_AND,
    F_OR,
    F_HEADER,
    F_FLAGS,
    F_GRPC,
    F_METADATA,
    F_LOG_TYPE,
    F_CEL
};
struct comparison {
    Accesslog__ComparisonFilter__Op op;
    uint32_t value;
    sv runtime_key;
};
struct log_filter {
    enum kind kind;
    bool exclude; /* F_GRPC, F_LOG_TYPE */
    struct comparison compare;
    struct {
        sv key;
        uint32_t numerator, denominator;
        bool independent;
    } runtime;
    const struct log_filter **subs;
    size_t n;
    /* F_FLAGS: response flags (0: any); F_GRPC: statuses; F_LOG_TYPE: types */
    uint64_t bits;
    const struct header_matcher *header;
    const struct metadata_matcher *metadata;
    const struct cel *cel;
    bool match_if_key_not_found;
    sv ns;
    sv *path;
    unsigned path_n;
};

static const struct log_filter *make(struct compile_ctx *ctx, const Accesslog__AccessLogFilter *m,
                                     unsigned depth);

static bool make_comparison(struct compile_ctx *ctx, const Accesslog__ComparisonFilter *m,
                            struct log_filter *f) {
    if (!m) {
        return diag_error(ctx->diag, "comparison: value is required");
    }
    f->compare.op = m->op;
    if (m->value) {
        f->compare.value = m->value->default_value;
        f->compare.runtime_key = arena_sv(ctx->arena, sv_cstr(m->value->runtime_key));
    }
    return true;
}

static bool make_runtime(struct compile_ctx *ctx, const Accesslog__RuntimeFilter *m,
                         struct log_filter *f) {
    static const uint32_t denominators[] = {100, 10000, 1000000};
    f->runtime.key = arena_sv(ctx->arena, sv_cstr(m->runtime_key));
    f->runtime.independent = m->use_independent_randomness;
    f->runtime.denominator = 100;
    if (m->percent_sampled) {
        unsigned d = (unsigned)m->percent_sampled->denominator;
        if (d >= ARRAY_LEN(denominators)) {
            return diag_error(ctx->diag, "percent_sampled.denominator: unknown value %u", d);
        }
        f->runtime.numerator = m->percent_sampled->numerator;
        f->runtime.denominator = denominators[d];
    }
    return true;
}

static bool make_subs(struct compile_ctx *ctx, Accesslog__AccessLogFilter **subs, size_t n,
                      struct log_filter *f, unsigned depth) {
    if (n < 2) {
        return diag_error(ctx->diag, "filters: value must contain at least 2 item(s)");
    }
    f->n = n;
    f->subs = arena_new_array(ctx->arena, const struct log_filter *, n);
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "filters[%zu]", i);
        f->subs[i] = make(ctx, subs[i], depth + 1);
        ok = ok && f->subs[i];
    }
    return ok;
}

static bool make_header(struct compile_ctx *ctx, const Accesslog__HeaderFilter *m,
                        struct log_filter *f) {
    if (!m->header) {
        return diag_error(ctx->diag, "header: value is required");
    }
    if (!observe_hooks()->header_matcher_compile) {
        return diag_error(ctx->diag, "header filters are not available");
    }
    DIAG_FIELD(ctx->diag, "header");
    f->header = observe_hooks()->header_matcher_compile(ctx, m->header);
    return f->header != NULL;
}

static bool make_flags(struct compile_ctx *ctx, const Accesslog__ResponseFlagFilter *m,
                       struct log_filter *f) {
    for (size_t i = 0; i < m->n_flags; i++) {
        uint64_t flag;
        if (!response_flag_parse(sv_cstr(m->flags[i]), &flag)) {
            return diag_error(ctx->diag, "flags[%zu]: unknown response flag '%s'", i, m->flags[i]);
        }
        f->bits |= flag;
    }
    return true;
}

static bool make_grpc(struct compile_ctx *ctx, const Accesslog__GrpcStatusFilter *m,
                      struct log_filter *f) {
    f->exclude = m->exclude;
    for (size_t i = 0; i < m->n_statuses; i++) {
        if ((unsigned)m->statuses[i] >= GRPC_STATUSES) {
            return diag_error(ctx->diag,
                              "statuses[%zu]: value must be one of the defined enum values", i);
        }
        f->bits |= 1ull << m->statuses[i];
    }
    return true;
}

static bool make_log_type(struct compile_ctx *ctx, const Accesslog__LogTypeFilter *m,
                          struct log_filter *f) {
    f->exclude = m->exclude;
    for (size_t i = 0; i < m->n_types; i++) {
        if ((unsigned)m->types[i] >= 64) {
            return diag_error(ctx->diag, "types[%zu]: value must be one of the defined enum values",
                              i);
        }
        f->bits |= 1ull << m->types[i];
    }
    return true;
}

static bool make_metadata(struct compile_ctx *ctx, const Accesslog__MetadataFilter *m,
                          struct log_filter *f) {
    f->match_if_key_not_found = !m->match_if_key_not_found || m->match_if_key_not_found->value;
    if (!m->matcher) {
        return true; /* matches by the default alone */
    }
    if (!observe_hooks()->metadata_matcher_compile) {
        return diag_error(ctx->diag, "metadata filters are not available");
    }
    f->ns = arena_sv(ctx->arena, sv_cstr(m->matcher->filter));
    f->path = arena_new_array(ctx->arena, sv, m->matcher->n_path ? m->matcher->n_path : 1);
    for (size_t i = 0; i < m->matcher->n_path; i++) {
        bool is_key = m->matcher->path[i]->segment_case ==
                      TYPE_MATCHER__METADATA_MATCHER__PATH_SEGMENT__SEGMENT_KEY;
        f->path[f->path_n++] =
            is_key ? arena_sv(ctx->arena, sv_cstr(m->matcher->path[i]->key)) : SV_NULL;
    }
    DIAG_FIELD(ctx->diag, "matcher");
    f->metadata = observe_hooks()->metadata_matcher_compile(ctx, m->matcher);
    return f->metadata != NULL;
}

static bool make_cel(struct compile_ctx *ctx, const AccessLoggersCel__ExpressionFilter *m,
                     struct log_filter *f) {
    if (m->cel_config &&
        (m->cel_config->enable_string_conversion || m->cel_config->enable_string_concat ||
         m->cel_config->enable_string_functions)) {
        return diag_error(ctx->diag, "cel_config: the optional functions are not supported");
    }
    DIAG_FIELD(ctx->diag, "expression");
    f->cel = cel_compile_text(ctx, sv_cstr(m->expression));
    return f->cel != NULL;
}

static bool make_extension(struct compile_ctx *ctx, const Accesslog__ExtensionFilter *m,
                           struct log_filter *f) {
    static const char cel_url[] = "envoy.extensions.access_loggers.filters.cel.v3.ExpressionFilter";
    sv url = m->config_type_case == ACCESSLOG__EXTENSION_FILTER__CONFIG_TYPE_TYPED_CONFIG
                 ? sv_cstr(m->typed_config->type_url)
                 : SV_NULL;
    size_t slash = sv_rfind(url, '/');
    url = sv_skip(url, slash == SIZE_MAX ? 0 : slash + 1);
    if (!sv_is(url, cel_url) && !sv_ends(url, SV("TypedStruct"))) {
        return diag_error(ctx->diag,
                          "Didn't find a registered implementation for '%s' with type URL: '%.*s'",
                          m->name, SV_ARG(url));
    }
    DIAG_FIELD(ctx->diag, "typed_config");
    const void *msg = compile_any(ctx, sv_cstr(m->name), m->typed_config, cel_url, NULL);
    return msg && make_cel(ctx, msg, f);
}

static bool fill(struct compile_ctx *ctx, const Accesslog__AccessLogFilter *m, struct log_filter *f,
                 unsigned depth) {
    switch (m->filter_specifier_case) {
    case ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_STATUS_CODE_FILTER:
        f->kind = F_STATUS;
        return make_comparison(ctx, m->status_code_filter->comparison, f);
    case ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_DURATION_FILTER:
        f->kind = F_DURATION;
        return make_comparison(ctx, m->duration_filter->comparison, f);
    case ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_NOT_HEALTH_CHECK_FILTER:
        f->kind = F_NOT_HEALTH_CHECK;
        return true;
    case ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_TRACEABLE_FILTER:
        f->kind = F_TRACEABLE;
        return true;
    case ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_RUNTIME_FILTER:
        f->kind = F_RUNTIME;
        return make_runtime(ctx, m->runtime_filter, f);
    case ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_AND_FILTER:
        f->kind = F_AND;
        return make_subs(ctx, m->and_filter->filters, m->and_filter->n_filters, f, depth);
    case ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_OR_FILTER:
        f->kind = F_OR;
        return make_subs(ctx, m->or_filter->filters, m->or_filter->n_filters, f, depth);
    case ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_HEADER_FILTER:
        f->kind = F_HEADER;
        return make_header(ctx, m->header_filter, f);
    case ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_RESPONSE_FLAG_FILTER:
        f->kind = F_FLAGS;
        return make_flags(ctx, m->response_flag_filter, f);
    case ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_GRPC_STATUS_FILTER:
        f->kind = F_GRPC;
        return make_grpc(ctx, m->grpc_status_filter, f);
    case ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_METADATA_FILTER:
        f->kind = F_METADATA;
        return make_metadata(ctx, m->metadata_filter, f);
    case ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_LOG_TYPE_FILTER:
        f->kind = F_LOG_TYPE;
        return make_log_type(ctx, m->log_type_filter, f);
    case ACCESSLOG__ACCESS_LOG_FILTER__FILTER_SPECIFIER_EXTENSION_FILTER:
        f->kind = F_CEL;
        return make_extension(ctx, m->extension_filter, f);
    default:
        return diag_error(ctx->diag, "filter_specifier: value is required");
    }
}

static const struct log_filter *make(struct compile_ctx *ctx, const Accesslog__AccessLogFilter *m,
                                     unsigned depth) {
    if (depth >= FILTER_DEPTH_MAX) {
        diag_error(ctx->diag, "filters are nested deeper than %d", FILTER_DEPTH_MAX);
        return NULL;
    }
    struct log_filter *f = arena_new(ctx->arena, struct log_filter);
    return fill(ctx, m, f, depth) ? f : NULL;
}

const struct log_filter *log_filter_compile(struct compile_ctx *ctx, const void *msg) {
    return make(ctx, msg, 0);
}

/* --- matching --- */

static bool compares(const struct comparison *c, uint64_t actual) {
    uint64_t want = c->runtime_key.n ? runtime_u64(c->runtime_key, c->value) : c->value;
    switch (c->op) {
    case ACCESSLOG__COMPARISON_FILTER__OP__EQ:
        return actual == want;
    case ACCESSLOG__COMPARISON_FILTER__OP__GE:
        return actual >= want;
    case ACCESSLOG__COMPARISON_FILTER__OP__LE:
        return actual <= want;
    case ACCESSLOG__COMPARISON_FILTER__OP__NE:
        return actual != want;
    default:
        return false;
    }
}

/* The first 8 hex digits of a UUID, so that all proxies on a path sample the same requests. */
static bool request_id_random(sv id, uint64_t *out) {
    uint64_t v = 0;
    for (size_t i = 0; i < 8; i++) {
        int digit = i < id.n ? ascii_hex(id.p[i]) : -1;
        if (digit < 0) {
            return false;
        }
        v = v * 16 + (unsigned)digit;
    }
    *out = v;
    return id.n == 36;
}

static bool samples(const struct log_filter *f, const struct stream_info *si, struct rng *rng) {
    uint64_t random;
    sv id = si->request ? headers_get(si->request, HDR_x_request_id) : SV_NULL;
    if (f->runtime.independent || !request_id_random(id, &random)) {
        random = rng_u64(rng);
    }
    return runtime_fraction(f->runtime.key, f->runtime.numerator, f->runtime.denominator, random);
}

static bool all_match(const struct log_filter *f, const struct stream_info *si, struct rng *rng) {
    for (size_t i = 0; i < f->n; i++) {
        if (!log_filter_match(f->subs[i], si, rng)) {
            return false;
        }
    }
    return true;
}
static bool any_match(const struct log_filter *f, const struct stream_info *si, struct rng *rng) {
    for (size_t i = 0; i < f->n; i++) {
        if (log_filter_match(f->subs[i], si, rng)) {
            return true;
        }
    }
    return false;
}

static bool header_match(const struct log_filter *f, const struct stream_info *si) {
    struct headers none;
    if (si->request) {
        return observe_hooks()->header_matcher_match(f->header, si->request, si->arena);
    }
    struct arena scratch;
    arena_init(&scratch, 0);
    headers_init(&none, &scratch);
    bool ok = observe_hooks()->header_matcher_match(f->header, &none, &scratch);
    arena_fini(&scratch);
    return ok;
}

static bool grpc_match(const struct log_filter *f, const struct stream_info *si) {
    uint64_t status;
    if (!stream_grpc_status(si, &status)) {
        status = 2; /* unknown */
    }
    bool listed = status < 64 && f->bits >> status & 1;
    return listed != f->exclude;
}

static bool metadata_match(const struct log_filter *f, const struct stream_info *si) {
    const struct kv_value *v =
        f->metadata ? kv_metadata_get(si->metadata, f->ns, f->path, f->path_n) : NULL;
    if (!v) {
        return f->match_if_key_not_found;
    }
    return observe_hooks()->metadata_matcher_match(f->metadata, si->metadata);
}

static bool cel_match(const struct log_filter *f, const struct stream_info *si) {
    struct arena scratch;
    arena_init(&scratch, 0);
    bool holds = cel_holds(f->cel, si, &scratch);
    arena_fini(&scratch);
    return holds;
}

static bool duration_compares(const struct log_filter *f, const struct stream_info *si) {
    uint64_t us;
    return stream_info_duration_us(si, &us) && compares(&f->compare, us / 1000);
}

bool log_filter_match(const struct log_filter *f, const struct stream_info *si, struct rng *rng) {
    switch (f->kind) {
    case F_STATUS:
        return compares(&f->compare, si->response_code);
    case F_DURATION:
        return duration_compares(f, si);
    case F_NOT_HEALTH_CHECK:
        return !si->is_health_check;
    case F_TRACEABLE:
        return si->is_traced;
    case F_RUNTIME:
        return samples(f, si, rng);
    case F_AND:
        return all_match(f, si, rng);
    case F_OR:
        return any_match(f, si, rng);
    case F_HEADER:
        return header_match(f, si);
    case F_FLAGS:
        return f->bits ? (si->flags & f->bits) != 0 : si->flags != 0;
    case F_GRPC:
        return grpc_match(f, si);
    case F_METADATA:
        return metadata_match(f, si);
    case F_LOG_TYPE:
        return (si->access_log_type < 64 && f->bits >> si->access_log_type & 1) != f->exclude;
    case F_CEL:
        return cel_match(f, si);
    }
    return false;
}
