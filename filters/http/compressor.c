/* Compresses response bodies when the client accepts it, and request bodies when asked to. Several
 * of these filters in a chain decide together: the first that looks at a response chooses among the
 * encodings of all of them, the others go by its choice.
 * Threads: config immutable, streams worker-local. Spec: extensions.filters.http.compressor.v3; RFC
 * 9110 §12.5.3.
 * Not here: accept-encoding's grammar (common/accept_encoding.c), the codecs
 * (common/compressor_*.c). */
#include "filters/common/accept_encoding.h"
#include "filters/common/compressor_library.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/http_compressor.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "proxy/api/http_filter.h"
#include "proxy/base/runtime.h"

#define DIRECTION_STATS(P, C, G, H, T) \
    C(P, compressed)                   \
    C(P, content_length_too_small)     \
    C(P, not_compressed) C(P, total_compressed_bytes) C(P, total_uncompressed_bytes)
#define HEADER_STATS(P, C, G, H, T)      \
    C(P, header_compressor_overshadowed) \
    C(P, header_compressor_used)         \
    C(P, header_identity)                \
    C(P, header_not_valid) C(P, header_wildcard) C(P, no_accept_header) C(P, not_compressed_etag)
STATS_ENUM(DIRECTION, DIRECTION_STATS);
STATS_GROUP(compressor_direction, DIRECTION, DIRECTION_STATS);
STATS_ENUM(CHOICE, HEADER_STATS);
STATS_GROUP(compressor_choice, CHOICE, HEADER_STATS);

#define DEFAULT_MIN_CONTENT_BYTES 30
#define ROUTE_MESSAGE "envoy.extensions.filters.http.compressor.v3.CompressorPerRoute"
#define STATUS_HEADER "x-envoy-compression-status"

/* One direction's CommonDirectionConfig. */
struct direction {
    bool is_on;     /* false: this direction is never compressed */
    sv runtime_key; /* empty: none */
    bool enabled;
    uint64_t min_bytes;
    const sv *types;
    size_t types_n;
    struct stats_scope *stats;
};
struct compressor_config {
    struct compressor_library library;
    struct direction request, response;
    struct stats_scope *choice_stats;
    bool choose_first, disable_on_etag, weaken_etag, remove_accept_encoding, has_status_header;
    const uint32_t *refused_codes;
    size_t refused_codes_n;
};
struct compressor_route {
    bool has_enabled, enabled; /* of responses */
    bool has_remove, remove_accept_encoding;
    bool has_library;
    struct compressor_library library;
};
struct compressor {
    struct http_filter base; /* must be first */
    bool has_accept_encoding;
    sv accept_encoding;
    struct encoding_choice choice; /* on the first compressor of the stream only */
    bool has_choice;
    struct encoder *request, *response; /* NULL: passes through */
};

static const struct compressor_config *config_of(const struct compressor *c) {
    return (const struct compressor_config *)c->base.config;
}
static const struct compressor_route *route_of(struct compressor *c) {
    return (const struct compressor_route *)http_route_config(&c->base);
}
static struct stats_shard *shard(struct compressor *c, struct stats_scope *s) {
    return stats_shard(s, http_loop(&c->base)->thread_index);
}

/* --- compile --- */

static const sv default_types[] = {SV_INIT("text/html"),
                                   SV_INIT("text/plain"),
                                   SV_INIT("text/css"),
                                   SV_INIT("application/json"),
                                   SV_INIT("application/xml"),
                                   SV_INIT("text/javascript"),
                                   SV_INIT("image/svg+xml"),
                                   SV_INIT("text/xml"),
                                   SV_INIT("application/javascript"),
                                   SV_INIT("text/x-javascript"),
                                   SV_INIT("text/ecmascript"),
                                   SV_INIT("application/x-javascript"),
                                   SV_INIT("text/js"),
                                   SV_INIT("text/jscript"),
                                   SV_INIT("application/ecmascript"),
                                   SV_INIT("text/x-js"),
                                   SV_INIT("application/x-json"),
                                   SV_INIT("application/xhtml+xml"),
                                   SV_INIT("application/grpc-web"),
                                   SV_INIT("application/grpc-web+proto")};

static void release_scope(void *scope) { stats_scope_unref((struct stats_scope *)scope); }

static struct stats_scope *scope(struct compile_ctx *ctx, const struct stats_group *g, sv prefix,
                                 const char *below) {
    struct stats_scope *s =
        stats_scope_get(ctx->stats, g, arena_printf(ctx->arena, "%.*s%s", SV_ARG(prefix), below));
    arena_on_fini(ctx->arena, release_scope, s);
    return s;
}

static void compile_enabled(struct compile_ctx *ctx, const Core__RuntimeFeatureFlag *m,
                            struct direction *d) {
    d->enabled = !m || !m->default_value || m->default_value->value;
    d->runtime_key = m ? arena_sv(ctx->arena, sv_cstr(m->runtime_key)) : SV_NULL;
}

static void compile_limits(struct compile_ctx *ctx, const Pb__UInt32Value *min,
                           const char *const *types, size_t types_n, struct direction *d) {
    d->min_bytes = min && min->value ? min->value : DEFAULT_MIN_CONTENT_BYTES;
    d->types = default_types;
    d->types_n = ARRAY_LEN(default_types);
    if (types_n == 0) {
        return;
    }
    sv *own = arena_new_array(ctx->arena, sv, types_n);
    for (size_t i = 0; i < types_n; i++) {
        own[i] = arena_sv(ctx->arena, sv_cstr(types[i]));
    }
    d->types = own;
    d->types_n = types_n;
}

static void compile_common(struct compile_ctx *ctx,
                           const HttpCompressor__Compressor__CommonDirectionConfig *m,
                           struct direction *d) {
    compile_enabled(ctx, m ? m->enabled : NULL, d);
    compile_limits(ctx, m ? m->min_content_length : NULL, m ? m->content_type : NULL,
                   m ? m->n_content_type : 0, d);
}

/* Response settings: from response_direction_config when it is there, else from the older top-level
 * fields. */
static void compile_response(struct compile_ctx *ctx, const HttpCompressor__Compressor *m,
                             struct compressor_config *c) {
    const HttpCompressor__Compressor__ResponseDirectionConfig *r = m->response_direction_config;
    c->response.is_on = true;
    if (!r) {
        compile_enabled(ctx, m->runtime_enabled, &c->response);
        compile_limits(ctx, m->content_length, m->content_type, m->n_content_type, &c->response);
        c->disable_on_etag = m->disable_on_etag_header;
        c->remove_accept_encoding = m->remove_accept_encoding_header;
        return;
    }
    compile_common(ctx, r->common_config, &c->response);
    c->disable_on_etag = r->disable_on_etag_header;
    c->remove_accept_encoding = r->remove_accept_encoding_header;
    c->weaken_etag = r->weaken_etag_on_compress;
    c->has_status_header = r->status_header_enabled;
    uint32_t *codes = arena_new_array(ctx->arena, uint32_t, r->n_uncompressible_response_codes);
    for (size_t i = 0; i < r->n_uncompressible_response_codes; i++) {
        codes[i] = r->uncompressible_response_codes[i];
    }
    c->refused_codes = codes;
    c->refused_codes_n = r->n_uncompressible_response_codes;
}

static void *compressor_compile(struct compile_ctx *ctx, const void *msg) {
    const HttpCompressor__Compressor *m = (const HttpCompressor__Compressor *)msg;
    struct compressor_config *c = arena_new(ctx->arena, struct compressor_config);
    DIAG_FIELD(ctx->diag, "compressor_library");
    if (!compressor_library_compile(ctx, m->compressor_library, &c->library)) {
        return NULL;
    }
    c->choose_first = m->choose_first;
    compile_response(ctx, m, c);
    const HttpCompressor__Compressor__RequestDirectionConfig *request = m->request_direction_config;
    c->request.is_on = request != NULL;
    compile_common(ctx, request ? request->common_config : NULL, &c->request);
    sv prefix = arena_printf(ctx->arena, "%.*scompressor.%.*s.%s.", SV_ARG(ctx->stat_prefix),
                             SV_ARG(c->library.name), c->library.codec->stat_prefix);
    c->request.stats = scope(ctx, &compressor_direction_stats_group, prefix, "request.");
    c->response.stats = scope(ctx, &compressor_direction_stats_group, prefix,
                              m->response_direction_config ? "response." : "");
    c->choice_stats = scope(ctx, &compressor_choice_stats_group, prefix, "");
    return c;
}

static void *compressor_compile_route(struct compile_ctx *ctx, const void *msg, const char *type) {
    (void)type;
    const HttpCompressor__CompressorPerRoute *m = (const HttpCompressor__CompressorPerRoute *)msg;
    struct compressor_route *r = arena_new(ctx->arena, struct compressor_route);
    if (m->override_case == HTTP_COMPRESSOR__COMPRESSOR_PER_ROUTE__OVERRIDE_DISABLED) {
        r->has_enabled = true;
        return r;
    }
    DIAG_FIELD(ctx->diag, "overrides");
    const HttpCompressor__ResponseDirectionOverrides *response =
        m->overrides->response_direction_config;
    if (response) { /* that it is there turns responses on, as in the filter's own config */
        r->has_enabled = r->enabled = true;
        r->has_remove = response->remove_accept_encoding_header != NULL;
        r->remove_accept_encoding = r->has_remove && response->remove_accept_encoding_header->value;
    }
    r->has_library = m->overrides->compressor_library != NULL;
    if (!r->has_library) {
        return r;
    }
    DIAG_FIELD(ctx->diag, "compressor_library");
    return compressor_library_compile(ctx, m->overrides->compressor_library, &r->library) ? r
                                                                                          : NULL;
}

/* --- what both directions ask --- */

static bool is_enabled(const struct direction *d) {
    return d->is_on && (d->runtime_key.n ? runtime_bool(d->runtime_key, d->enabled) : d->enabled);
}

static bool is_response_enabled(const struct compressor_config *c,
                                const struct compressor_route *r) {
    return r && r->has_enabled ? r->enabled : is_enabled(&c->response);
}

static const struct compressor_library *library_of(struct compressor *c) {
    const struct compressor_route *r = route_of(c);
    return r && r->has_library ? &r->library : &config_of(c)->library;
}

static sv media_type(const struct headers *h) {
    sv value = headers_get(h, HDR_content_type);
    return value.p ? sv_trim(sv_cut(&value, ';')) : SV_NULL;
}

static bool has_type(const struct direction *d, sv type) {
    for (size_t i = 0; i < d->types_n; i++) {
        if (sv_eq_nocase(d->types[i], type)) {
            return true;
        }
    }
    return false;
}

static bool is_type_allowed(const struct direction *d, const struct headers *h) {
    sv type = media_type(h);
    return !type.p || has_type(d, type);
}

/* A body whose length is not told counts as long enough. */
static bool is_long_enough(struct compressor *c, const struct direction *d,
                           const struct headers *h) {
    sv text = headers_get(h, HDR_content_length);
    uint64_t n;
    if (!text.p || (sv_to_u64(text, &n) && n >= d->min_bytes)) {
        return true;
    }
    stats_inc(shard(c, d->stats), DIRECTION_content_length_too_small);
    return false;
}

static bool list_has(sv list, sv word) {
    while (list.n) {
        if (sv_eq_nocase(sv_trim(sv_cut(&list, ',')), word)) {
            return true;
        }
    }
    return false;
}

/* Is the message compressed already on its way here? */
static bool has_compressed_transfer(const struct headers *h) {
    static const sv codings[] = {SV_INIT("gzip"), SV_INIT("br"), SV_INIT("deflate"),
                                 SV_INIT("compress"), SV_INIT("zstd")};
    sv value = headers_get(h, HDR_transfer_encoding);
    for (size_t i = 0; value.n && i < ARRAY_LEN(codings); i++) {
        if (list_has(value, codings[i])) {
            return true;
        }
    }
    return false;
}

static bool compress(struct compressor *c, struct encoder *e, const struct direction *d,
                     struct buf *data, bool finish) {
    struct stats_shard *st = shard(c, d->stats);
    if (buf_empty(data) && !finish) {
        return true;
    }
    stats_add(st, DIRECTION_total_uncompressed_bytes, buf_len(data));
    if (BUG(!e->ops->encode(e, data, finish))) {
        http_reset_stream(&c->base);
        return false;
    }
    stats_add(st, DIRECTION_total_compressed_bytes, buf_len(data));
    return true;
}

/* --- requests --- */

static void compress_request(struct compressor *c, struct headers *h, bool end_stream) {
    const struct direction *d = &config_of(c)->request;
    struct stats_shard *st = shard(c, d->stats);
    if (end_stream || !is_enabled(d) || http_upgrade_type(&c->base).n || !is_long_enough(c, d, h) ||
        !is_type_allowed(d, h) || headers_has(h, HDR_content_encoding) ||
        has_compressed_transfer(h)) {
        stats_inc(st, DIRECTION_not_compressed);
        return;
    }
    const struct compressor_library *l = library_of(c);
    headers_remove(h, HDR_content_length);
    headers_set(h, HDR_content_encoding, l->codec->content_encoding);
    stats_inc(st, DIRECTION_compressed);
    c->request = compressor_library_encoder(l);
}

static enum filter_headers_status decode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    struct compressor *c = (struct compressor *)f;
    const struct compressor_config *cfg = config_of(c);
    const struct compressor_route *r = route_of(c);
    c->has_accept_encoding = headers_has(h, HDR_accept_encoding);
    if (c->has_accept_encoding) {
        c->accept_encoding = headers_joined(h, HDR_accept_encoding, SV_NULL, http_arena(f));
        bool remove = r && r->has_remove ? r->remove_accept_encoding : cfg->remove_accept_encoding;
        if (remove && is_response_enabled(cfg, r)) {
            headers_remove(h, HDR_accept_encoding);
        }
    }
    compress_request(c, h, end_stream);
    return FILTER_HEADERS_CONTINUE;
}

static enum filter_data_status decode_data(struct http_filter *f, struct buf *data,
                                           bool end_stream) {
    struct compressor *c = (struct compressor *)f;
    if (c->request && !compress(c, c->request, &config_of(c)->request, data, end_stream)) {
        return FILTER_DATA_STOP_NO_BUFFER;
    }
    return FILTER_DATA_CONTINUE;
}

static enum filter_trailers_status decode_trailers(struct http_filter *f, struct headers *t) {
    (void)t;
    struct compressor *c = (struct compressor *)f;
    struct buf BUF_AUTO last;
    buf_init(&last);
    if (c->request && compress(c, c->request, &config_of(c)->request, &last, true)) {
        http_add_decoded_data(f, &last, true);
    }
    return FILTER_TRAILERS_CONTINUE;
}

/* --- which encoding --- */

/* The encodings of all compressors on this stream that would take the response's type; of equal
 * ones the first counts. A route's library counts only for the filter that asks. */
static void collect_offers(struct compressor *me, const struct headers *h,
                           struct encoding_offers *out) {
    sv type = media_type(h);
    struct http_filter *f;
    for (unsigned i = 0; (f = http_filter_like(&me->base, i)) != NULL; i++) {
        struct compressor *c = (struct compressor *)f;
        const struct compressor_config *cfg = config_of(c);
        if (!type.n || has_type(&cfg->response, type)) {
            const struct compressor_library *l = c == me ? library_of(me) : &cfg->library;
            encoding_offer(out, l->codec->content_encoding, cfg->choose_first);
        }
    }
}

static bool is_chosen(struct compressor *c, const struct encoding_choice *choice) {
    struct stats_shard *st = shard(c, config_of(c)->choice_stats);
    bool is_mine = sv_eq(choice->encoding, library_of(c)->codec->content_encoding);
    switch (choice->kind) {
    case ENCODING_ACCEPTED:
        stats_inc(st,
                  is_mine ? CHOICE_header_compressor_used : CHOICE_header_compressor_overshadowed);
        break;
    case ENCODING_IDENTITY:
        stats_inc(st, CHOICE_header_identity);
        break;
    case ENCODING_WILDCARD:
        stats_inc(st, CHOICE_header_wildcard);
        break;
    case ENCODING_NONE:
        stats_inc(st, CHOICE_header_not_valid);
        break;
    }
    return is_mine;
}

static bool is_accepted(struct compressor *c, const struct headers *h) {
    if (!c->has_accept_encoding) {
        stats_inc(shard(c, config_of(c)->choice_stats), CHOICE_no_accept_header);
        return false;
    }
    struct compressor *keeper = (struct compressor *)http_filter_like(&c->base, 0);
    if (!keeper->has_choice) {
        struct encoding_offers offers = {.n = 0};
        collect_offers(c, h, &offers);
        keeper->choice = encoding_choose(c->accept_encoding, &offers);
        keeper->has_choice = true;
    }
    return is_chosen(c, &keeper->choice);
}

/* --- responses --- */

static bool is_code_allowed(const struct compressor_config *cfg, const struct headers *h) {
    unsigned status = headers_status(h);
    for (size_t i = 0; i < cfg->refused_codes_n; i++) {
        if (cfg->refused_codes[i] == status) {
            return false;
        }
    }
    return true;
}

static bool is_etag_allowed(struct compressor *c, const struct headers *h) {
    const struct compressor_config *cfg = config_of(c);
    if (!cfg->disable_on_etag || !headers_has(h, HDR_etag)) {
        return true;
    }
    stats_inc(shard(c, cfg->choice_stats), CHOICE_not_compressed_etag);
    return false;
}

static bool is_transformable(struct compressor *c, const struct headers *h) {
    sv upgrade = http_upgrade_type(&c->base);
    if (upgrade.n && (headers_status(h) == 101 || sv_eq(upgrade, SV("CONNECT")))) {
        return false;
    }
    sv control = headers_joined(h, HDR_cache_control, SV_NULL, http_arena(&c->base));
    return !list_has(control, SV("no-transform")) && !headers_has(h, HDR_content_encoding);
}

/* A compressed body is another representation: a strong validator no longer holds for it. */
static void adjust_etag(struct compressor *c, struct headers *h) {
    sv etag = headers_get(h, HDR_etag);
    if (!etag.p || (etag.n > 2 && sv_starts_nocase(etag, SV("w/")))) {
        return;
    }
    if (config_of(c)->weaken_etag) {
        headers_set(h, HDR_etag, arena_printf(http_arena(&c->base), "W/%.*s", SV_ARG(etag)));
        return;
    }
    headers_remove(h, HDR_etag);
}

/* Caches must know that the answer depends on the header, also when this one is not compressed. */
static void add_vary(struct compressor *c, struct headers *h) {
    sv name = SV("Accept-Encoding");
    sv vary = headers_joined(h, HDR_vary, SV_NULL, http_arena(&c->base));
    if (!vary.p) {
        headers_set(h, HDR_vary, name);
        return;
    }
    for (sv rest = vary; rest.n;) {
        if (sv_eq(sv_trim(sv_cut(&rest, ',')), name)) {
            return;
        }
    }
    headers_set(h, HDR_vary,
                arena_printf(http_arena(&c->base), "%.*s, %.*s", SV_ARG(vary), SV_ARG(name)));
}

/* Several compressors leave a line each. */
static void tell_status(struct compressor *c, struct headers *h, const char *status, sv more) {
    sv encoding = library_of(c)->codec->content_encoding;
    sv text =
        arena_printf(http_arena(&c->base), "%.*s;%s%.*s", SV_ARG(encoding), status, SV_ARG(more));
    headers_add_copy(h, SV(STATUS_HEADER), text);
}

static void start_response(struct compressor *c, struct headers *h) {
    const struct compressor_config *cfg = config_of(c);
    const struct compressor_library *l = library_of(c);
    if (cfg->has_status_header) {
        sv length = headers_get(h, HDR_content_length);
        tell_status(c, h, "Compressed;OriginalLength=", length);
    }
    adjust_etag(c, h);
    headers_remove(h, HDR_content_length);
    headers_set(h, HDR_content_encoding, l->codec->content_encoding);
    c->response = compressor_library_encoder(l);
}

/* Without the status header: accept-encoding is looked at, and counted, before the response's own
 * properties. */
static void decide(struct compressor *c, struct headers *h, bool end_stream) {
    const struct compressor_config *cfg = config_of(c);
    if (!is_response_enabled(cfg, route_of(c)) || !is_long_enough(c, &cfg->response, h)) {
        return;
    }
    bool can = is_transformable(c, h) && is_type_allowed(&cfg->response, h) &&
               is_etag_allowed(c, h) && is_code_allowed(cfg, h);
    if (!end_stream && is_accepted(c, h) && can && !has_compressed_transfer(h)) {
        start_response(c, h);
    }
    if (can) {
        add_vary(c, h);
    }
}

/* With it: the response's properties come first, so that what is told is the reason that would
 * remain. */
static void decide_and_tell(struct compressor *c, struct headers *h, bool end_stream) {
    const struct compressor_config *cfg = config_of(c);
    if (!is_response_enabled(cfg, route_of(c)) || !is_transformable(c, h)) {
        return;
    }
    const char *why = !is_long_enough(c, &cfg->response, h) ? "ContentLengthTooSmall"
                      : !is_type_allowed(&cfg->response, h) ? "ContentTypeNotAllowed"
                      : !is_etag_allowed(c, h)              ? "EtagNotAllowed"
                      : !is_code_allowed(cfg, h)            ? "StatusCodeNotAllowed"
                                                            : NULL;
    if (why) {
        if (!end_stream) {
            tell_status(c, h, why, SV_NULL);
        }
        return;
    }
    if (!end_stream && is_accepted(c, h) && !has_compressed_transfer(h)) {
        start_response(c, h);
    }
    add_vary(c, h);
}

static enum filter_headers_status encode_headers(struct http_filter *f, struct headers *h,
                                                 bool end_stream) {
    struct compressor *c = (struct compressor *)f;
    const struct compressor_config *cfg = config_of(c);
    if (cfg->has_status_header) {
        decide_and_tell(c, h, end_stream);
    } else {
        decide(c, h, end_stream);
    }
    stats_inc(shard(c, cfg->response.stats),
              c->response ? DIRECTION_compressed : DIRECTION_not_compressed);
    return FILTER_HEADERS_CONTINUE;
}

static enum filter_data_status encode_data(struct http_filter *f, struct buf *data,
                                           bool end_stream) {
    struct compressor *c = (struct compressor *)f;
    if (c->response && !compress(c, c->response, &config_of(c)->response, data, end_stream)) {
        return FILTER_DATA_STOP_NO_BUFFER;
    }
    return FILTER_DATA_CONTINUE;
}

static enum filter_trailers_status encode_trailers(struct http_filter *f, struct headers *t) {
    (void)t;
    struct compressor *c = (struct compressor *)f;
    struct buf BUF_AUTO last;
    buf_init(&last);
    if (c->response && compress(c, c->response, &config_of(c)->response, &last, true)) {
        http_add_encoded_data(f, &last, true);
    }
    return FILTER_TRAILERS_CONTINUE;
}

static void destroy(struct http_filter *f) {
    struct compressor *c = (struct compressor *)f;
    encoder_free(c->request);
    encoder_free(c->response);
}

extern const struct http_filter_type compressor_http_filter;
const struct http_filter_type compressor_http_filter = {
    .name = "envoy.filters.http.compressor",
    .type_url = "envoy.extensions.filters.http.compressor.v3.Compressor",
    .route_type_url = ROUTE_MESSAGE,
    .stream_size = sizeof(struct compressor),
    .compile = compressor_compile,
    .compile_route = compressor_compile_route,
    .decode_headers = decode_headers,
    .decode_data = decode_data,
    .decode_trailers = decode_trailers,
    .encode_headers = encode_headers,
    .encode_data = encode_data,
    .encode_trailers = encode_trailers,
    .destroy = destroy,
};
