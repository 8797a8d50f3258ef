/* Rate limit descriptors: lists of actions, each of which gives an entry or ends its descriptor.
 * Threads: see proxy/api/rate_limit.h. */
#include "proxy/api/rate_limit.h"

#include "protos/gen/rate_limit_descriptors_expr.pb-c.h"
#include "protos/gen/route.pb-c.h"
#include "protos/gen/type_matcher.pb-c.h"
#include "protos/gen/type_metadata.pb-c.h"
#include "protos/gen/xds_core.pb-c.h"
#include "proxy/api/cel.h"
#include "proxy/api/matcher.h"
#include "proxy/base/runtime.h"
#include "proxy/http/path.h"
#include "proxy/net/addr.h"
#include "proxy/observe/formatter.h"
#include "proxy/observe/metadata.h"

enum action_kind {
    ACTION_SOURCE_CLUSTER,
    ACTION_DESTINATION_CLUSTER,
    ACTION_HEADER,
    ACTION_QUERY,
    ACTION_REMOTE_ADDRESS,
    ACTION_MASKED_ADDRESS,
    ACTION_TEXT,
    ACTION_HEADERS_MATCH,
    ACTION_QUERY_MATCH,
    ACTION_ADDRESS_MATCH,
    ACTION_METADATA,
    ACTION_CEL,
};
struct action {
    enum action_kind kind;
    bool skips_absent; /* no entry then; else no descriptor */
    bool wants_match;
    uint8_t source; /* metadata: RateLimit.Action.MetaData.Source */
    sv key, dflt;
    sv text;                        /* TEXT and matches */
    const struct formatter *format; /* in its place; NULL: none */
    union {
        struct {
            sv name;
            uint16_t id;
        } header;
        sv parameter;
        uint32_t mask_bits[2]; /* IPv4, IPv6 */
        const struct header_matchers *headers;
        const struct query_matchers *query;
        struct {
            const struct cidr *v;
            size_t n;
            bool is_inverted;
        } ranges;
        struct {
            sv ns;
            const sv *path;
            unsigned n;
        } metadata;
        const struct cel *cel;
    };
};
struct rate_limit {
    const struct action *actions;
    unsigned n, stage;
    bool is_disabled; /* it has a key by which the runtime could */
    bool when_done, has_hits, is_negative;
    uint64_t hits;
    const struct formatter *hits_format; /* NULL: `hits` */
    enum rate_limit_headers headers;
};
struct rate_limits {
    unsigned n;
    struct rate_limit v[];
};

/* --- compile --- */

static sv lower(struct arena *a, const char *text) {
    sv s = sv_cstr(text);
    char *p = arena_cstr(a, s);
    for (size_t i = 0; i < s.n; i++) {
        p[i] = ascii_tolower(p[i]);
    }
    return sv_from(p, s.n);
}

static sv key_or(struct compile_ctx *ctx, const char *key, const char *dflt) {
    return arena_sv(ctx->arena, sv_cstr(*key ? key : dflt));
}

/* A literal text, unless the runtime says that it is a format. */
#define FORMATS_ON \
    "envoy.reloadable_features.enable_formatter_for_ratelimit_action_descriptor_value"

static bool compile_text(struct compile_ctx *ctx, const char *value, const char *dflt,
                         struct action *out) {
    DIAG_FIELD(ctx->diag, "descriptor_value");
    out->text = arena_sv(ctx->arena, sv_cstr(value));
    if (!runtime_bool(SV(FORMATS_ON), false)) {
        return true;
    }
    out->dflt = arena_sv(ctx->arena, sv_cstr(dflt));
    out->format = formatter_compile(ctx, out->text, true);
    return out->format != NULL;
}

static bool compile_header(struct compile_ctx *ctx,
                           const Route__RateLimit__Action__RequestHeaders *m, struct action *out) {
    out->kind = ACTION_HEADER;
    out->key = arena_sv(ctx->arena, sv_cstr(m->descriptor_key));
    out->skips_absent = m->skip_if_absent;
    out->header.name = lower(ctx->arena, m->header_name);
    out->header.id = header_id_of(out->header.name);
    return true;
}

static bool compile_query(struct compile_ctx *ctx,
                          const Route__RateLimit__Action__QueryParameters *m, struct action *out) {
    out->kind = ACTION_QUERY;
    out->key = arena_sv(ctx->arena, sv_cstr(m->descriptor_key));
    out->skips_absent = m->skip_if_absent;
    out->parameter = arena_sv(ctx->arena, sv_cstr(m->query_parameter_name));
    return true;
}

static bool compile_mask(struct compile_ctx *ctx,
                         const Route__RateLimit__Action__MaskedRemoteAddress *m,
                         struct action *out) {
    out->kind = ACTION_MASKED_ADDRESS;
    out->key = SV("masked_remote_address");
    out->mask_bits[0] = m->v4_prefix_mask_len ? m->v4_prefix_mask_len->value : 32;
    out->mask_bits[1] = m->v6_prefix_mask_len ? m->v6_prefix_mask_len->value : 128;
    return (out->mask_bits[0] <= 32 && out->mask_bits[1] <= 128) ||
           diag_error(ctx->diag, "a mask is at most 32 bits of IPv4 and 128 of IPv6");
}

static bool compile_headers_match(struct compile_ctx *ctx,
                                  const Route__RateLimit__Action__HeaderValueMatch *m,
                                  struct action *out) {
    out->kind = ACTION_HEADERS_MATCH;
    out->key = key_or(ctx, m->descriptor_key, "header_match");
    out->wants_match = !m->expect_match || m->expect_match->value;
    if (!compile_text(ctx, m->descriptor_value, m->default_value, out)) {
        return false;
    }
    DIAG_FIELD(ctx->diag, "headers");
    out->headers = header_matchers_compile(ctx, (const void *const *)m->headers, m->n_headers);
    return out->headers || m->n_headers == 0;
}

static bool compile_query_match(struct compile_ctx *ctx,
                                const Route__RateLimit__Action__QueryParameterValueMatch *m,
                                struct action *out) {
    out->kind = ACTION_QUERY_MATCH;
    out->key = key_or(ctx, m->descriptor_key, "query_match");
    out->wants_match = !m->expect_match || m->expect_match->value;
    if (!compile_text(ctx, m->descriptor_value, m->default_value, out)) {
        return false;
    }
    DIAG_FIELD(ctx->diag, "query_parameters");
    out->query = query_matchers_compile(ctx, (const void *const *)m->query_parameters,
                                        m->n_query_parameters);
    return out->query || m->n_query_parameters == 0;
}

static bool compile_address_match(struct compile_ctx *ctx,
                                  const Route__RateLimit__Action__RemoteAddressMatch *m,
                                  struct action *out) {
    const TypeMatcher__AddressMatcher *a = m->address_matcher;
    out->kind = ACTION_ADDRESS_MATCH;
    out->key = key_or(ctx, m->descriptor_key, "remote_address_match");
    if (!compile_text(ctx, m->descriptor_value, m->default_value, out)) {
        return false;
    }
    struct cidr *v = arena_new_array(ctx->arena, struct cidr, a->n_ranges ? a->n_ranges : 1);
    for (size_t i = 0; i < a->n_ranges; i++) {
        uint32_t bits = a->ranges[i]->prefix_len ? a->ranges[i]->prefix_len->value : 0;
        DIAG_FIELD(ctx->diag, "address_matcher.ranges[%zu]", i);
        if (!cidr_make(sv_cstr(a->ranges[i]->address_prefix), bits, &v[i])) {
            return diag_error(ctx->diag, "malformed IP address: %s", a->ranges[i]->address_prefix);
        }
    }
    out->ranges.v = v;
    out->ranges.n = a->n_ranges;
    out->ranges.is_inverted = a->invert_match;
    return true;
}

static bool compile_metadata(struct compile_ctx *ctx, const TypeMetadata__MetadataKey *key,
                             const char *descriptor_key, const char *dflt, struct action *out) {
    sv *path = arena_new_array(ctx->arena, sv, key->n_path ? key->n_path : 1);
    out->kind = ACTION_METADATA;
    out->key = arena_sv(ctx->arena, sv_cstr(descriptor_key));
    out->dflt = arena_sv(ctx->arena, sv_cstr(dflt));
    out->metadata.ns = arena_sv(ctx->arena, sv_cstr(key->key));
    for (size_t i = 0; i < key->n_path; i++) {
        path[i] = arena_sv(ctx->arena, sv_cstr(key->path[i]->key));
    }
    out->metadata.path = path;
    out->metadata.n = (unsigned)key->n_path;
    return true;
}

static bool compile_cel(struct compile_ctx *ctx, const Core__TypedExtensionConfig *ext,
                        struct action *out) {
    const char *type = NULL;
    DIAG_FIELD(ctx->diag, "extension.typed_config");
    const RateLimitDescriptorsExpr__Descriptor *m =
        compile_any(ctx, sv_cstr(ext->name), ext->typed_config, NULL, &type);
    if (!m) {
        return false;
    }
    if (strcmp(type, "envoy.extensions.rate_limit_descriptors.expr.v3.Descriptor") != 0) {
        return diag_error(ctx->diag, "rate limit descriptor extension '%s' (%s) is not supported",
                          ext->name, type);
    }
    out->kind = ACTION_CEL;
    out->key = arena_sv(ctx->arena, sv_cstr(m->descriptor_key));
    out->skips_absent = m->skip_if_error;
    switch (m->expr_specifier_case) {
    case RATE_LIMIT_DESCRIPTORS_EXPR__DESCRIPTOR__EXPR_SPECIFIER_TEXT: {
        DIAG_FIELD(ctx->diag, "text");
        out->cel = cel_compile_text(ctx, sv_cstr(m->text));
        return out->cel != NULL;
    }
    case RATE_LIMIT_DESCRIPTORS_EXPR__DESCRIPTOR__EXPR_SPECIFIER_PARSED: {
        DIAG_FIELD(ctx->diag, "parsed");
        out->cel = cel_compile_expr(ctx, m->parsed);
        return out->cel != NULL;
    }
    default:
        return diag_error(ctx->diag, "rate limit descriptor extension failed: %s", ext->name);
    }
}

static bool compile_action(struct compile_ctx *ctx, const Route__RateLimit__Action *m,
                           struct action *out) {
    switch (m->action_specifier_case) {
    case ROUTE__RATE_LIMIT__ACTION__ACTION_SPECIFIER_SOURCE_CLUSTER:
        *out = (struct action){.kind = ACTION_SOURCE_CLUSTER, .key = SV("source_cluster")};
        return true;
    case ROUTE__RATE_LIMIT__ACTION__ACTION_SPECIFIER_DESTINATION_CLUSTER:
        *out =
            (struct action){.kind = ACTION_DESTINATION_CLUSTER, .key = SV("destination_cluster")};
        return true;
    case ROUTE__RATE_LIMIT__ACTION__ACTION_SPECIFIER_REQUEST_HEADERS:
        return compile_header(ctx, m->request_headers, out);
    case ROUTE__RATE_LIMIT__ACTION__ACTION_SPECIFIER_QUERY_PARAMETERS:
        return compile_query(ctx, m->query_parameters, out);
    case ROUTE__RATE_LIMIT__ACTION__ACTION_SPECIFIER_REMOTE_ADDRESS:
        *out = (struct action){.kind = ACTION_REMOTE_ADDRESS, .key = SV("remote_address")};
        return true;
    case ROUTE__RATE_LIMIT__ACTION__ACTION_SPECIFIER_MASKED_REMOTE_ADDRESS:
        return compile_mask(ctx, m->masked_remote_address, out);
    case ROUTE__RATE_LIMIT__ACTION__ACTION_SPECIFIER_GENERIC_KEY: {
        DIAG_FIELD(ctx->diag, "generic_key");
        out->kind = ACTION_TEXT;
        out->key = key_or(ctx, m->generic_key->descriptor_key, "generic_key");
        return compile_text(ctx, m->generic_key->descriptor_value, m->generic_key->default_value,
                            out);
    }
    case ROUTE__RATE_LIMIT__ACTION__ACTION_SPECIFIER_HEADER_VALUE_MATCH: {
        DIAG_FIELD(ctx->diag, "header_value_match");
        return compile_headers_match(ctx, m->header_value_match, out);
    }
    case ROUTE__RATE_LIMIT__ACTION__ACTION_SPECIFIER_QUERY_PARAMETER_VALUE_MATCH: {
        DIAG_FIELD(ctx->diag, "query_parameter_value_match");
        return compile_query_match(ctx, m->query_parameter_value_match, out);
    }
    case ROUTE__RATE_LIMIT__ACTION__ACTION_SPECIFIER_REMOTE_ADDRESS_MATCH: {
        DIAG_FIELD(ctx->diag, "remote_address_match");
        return compile_address_match(ctx, m->remote_address_match, out);
    }
    case ROUTE__RATE_LIMIT__ACTION__ACTION_SPECIFIER_METADATA:
        if ((unsigned)m->metadata->source >
            ROUTE__RATE_LIMIT__ACTION__META_DATA__SOURCE__CLUSTER_ENTRY) {
            return diag_error(ctx->diag, "metadata.source: not supported");
        }
        out->source = (uint8_t)m->metadata->source;
        out->skips_absent = m->metadata->skip_if_absent;
        return compile_metadata(ctx, m->metadata->metadata_key, m->metadata->descriptor_key,
                                m->metadata->default_value, out);
    case ROUTE__RATE_LIMIT__ACTION__ACTION_SPECIFIER_DYNAMIC_METADATA:
        return compile_metadata(ctx, m->dynamic_metadata->metadata_key,
                                m->dynamic_metadata->descriptor_key,
                                m->dynamic_metadata->default_value, out);
    case ROUTE__RATE_LIMIT__ACTION__ACTION_SPECIFIER_EXTENSION:
        return compile_cel(ctx, m->extension, out);
    default:
        return diag_error(ctx->diag, "action_specifier: value is required");
    }
}

/* A number, or one operator of the format language. */
static bool compile_hits(struct compile_ctx *ctx, const Route__RateLimit__HitsAddend *m,
                         struct rate_limit *out) {
    sv format = sv_cstr(m->format);
    DIAG_FIELD(ctx->diag, "hits_addend");
    if ((format.n != 0) == (m->number != NULL)) {
        return diag_error(ctx->diag, "hits_addend must contain either a format or a number");
    }
    out->has_hits = true;
    out->is_negative = m->is_negative_hits;
    if (m->number) {
        out->hits = m->number->value;
        return out->hits <= RATE_LIMIT_HITS_MAX ||
               diag_error(ctx->diag, "number: at most %u", RATE_LIMIT_HITS_MAX);
    }
    size_t inner = sv_find(sv_sub(format, 1, format.n - 1), '%');
    if (format.n < 3 || format.p[0] != '%' || inner != format.n - 2) {
        return diag_error(ctx->diag, "hits_addend format must contain exactly one substitution");
    }
    out->hits_format = formatter_compile(ctx, format, true);
    return out->hits_format != NULL;
}

static enum rate_limit_headers headers_option(int option) {
    switch (option) {
    case ROUTE__RATE_LIMIT__XRATE_LIMIT_OPTION__OFF:
        return RATE_LIMIT_HEADERS_OFF;
    case ROUTE__RATE_LIMIT__XRATE_LIMIT_OPTION__DRAFT_VERSION_03:
        return RATE_LIMIT_HEADERS_ON;
    default:
        return RATE_LIMIT_HEADERS_DEFAULT;
    }
}

static bool check_place(struct compile_ctx *ctx, const Route__RateLimit *m, bool of_filter) {
    if (of_filter && (m->stage || *m->disable_key)) {
        return diag_error(ctx->diag, "'stage' field and 'disable_key' field are not supported");
    }
    if (of_filter && m->limit) {
        return diag_error(ctx->diag, "'limit' field is not supported");
    }
    return !m->stage || m->stage->value <= RATE_LIMIT_STAGE_MAX ||
           diag_error(ctx->diag, "stage: value must be less than or equal to %u",
                      RATE_LIMIT_STAGE_MAX);
}

static bool compile_limit(struct compile_ctx *ctx, const Route__RateLimit *m, bool of_filter,
                          struct rate_limit *out) {
    struct action *v = arena_new_array(ctx->arena, struct action, m->n_actions ? m->n_actions : 1);
    bool ok = check_place(ctx, m, of_filter);
    out->actions = v;
    out->n = (unsigned)m->n_actions;
    out->stage = m->stage ? m->stage->value : 0;
    out->is_disabled = *m->disable_key != '\0';
    out->when_done = m->apply_on_stream_done;
    out->headers = headers_option((int)m->x_ratelimit_option);
    for (size_t i = 0; i < m->n_actions; i++) {
        DIAG_FIELD(ctx->diag, "actions[%zu]", i);
        ok = compile_action(ctx, m->actions[i], &v[i]) && ok;
    }
    return (!m->hits_addend || compile_hits(ctx, m->hits_addend, out)) && ok;
}

const struct rate_limits *rate_limits_compile(struct compile_ctx *ctx, const void *const *msgs,
                                              size_t n, bool of_filter) {
    if (n == 0) {
        return NULL;
    }
    struct rate_limits *l =
        arena_zalloc(ctx->arena, sizeof(struct rate_limits) + n * sizeof(struct rate_limit));
    bool ok = true;
    l->n = (unsigned)n;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "rate_limits[%zu]", i);
        ok = compile_limit(ctx, msgs[i], of_filter, &l->v[i]) && ok;
    }
    return ok ? l : NULL;
}

/* --- requests --- */

static const struct addr *client_of(const struct stream_info *si) {
    const struct addr *a = si->remote ? si->remote : &si->cx->remote;
    return a->family == AF_INET || a->family == AF_INET6 ? a : NULL;
}

static sv address_text(const struct addr *a, struct arena *scratch) {
    char text[ADDR_STR_MAX];
    return a ? arena_sv(scratch, sv_from(text, addr_ip_str(a, text))) : SV_NULL;
}

static sv masked_text(const struct addr *a, const uint32_t bits[2], struct arena *scratch) {
    if (!a) {
        return SV_NULL;
    }
    struct addr masked = *a;
    bool is_v6 = a->family == AF_INET6;
    uint32_t keep = bits[is_v6];
    for (unsigned i = 0; i < (is_v6 ? 16u : 4u); i++) {
        unsigned left = keep > i * 8 ? keep - i * 8 : 0;
        masked.ip[i] = left >= 8 ? masked.ip[i] : (uint8_t)(masked.ip[i] & (0xff00u >> left));
    }
    char text[ADDR_STR_MAX];
    size_t n = addr_ip_str(&masked, text);
    return arena_printf(scratch, "%.*s/%u", (int)n, text, keep);
}

static sv formatted(const struct formatter *format, const struct rate_limit_facts *f) {
    struct buf b;
    buf_init(&b);
    formatter_text(format, f->si, &b);
    size_t n = buf_len(&b);
    char *text = arena_alloc(f->scratch, n ? n : 1);
    buf_peek(&b, 0, text, n);
    buf_fini(&b);
    return sv_from(text, n);
}

/* The configured text, or else the default one; p NULL: both are empty. */
static sv text_of(const struct action *a, const struct rate_limit_facts *f) {
    sv text = a->format ? formatted(a->format, f) : a->text;
    return text.n ? text : a->dflt.n ? a->dflt : SV_NULL;
}

static bool in_ranges(const struct action *a, const struct addr *client) {
    bool is_in = false;
    for (size_t i = 0; client && i < a->ranges.n; i++) {
        is_in = is_in || cidr_contains(&a->ranges.v[i], client);
    }
    return client && is_in != a->ranges.is_inverted;
}

static sv metadata_text(const struct action *a, const struct rate_limit_facts *f) {
    const struct kv_metadata *m =
        a->source == ROUTE__RATE_LIMIT__ACTION__META_DATA__SOURCE__ROUTE_ENTRY
            ? f->si->route_metadata
        : a->source == ROUTE__RATE_LIMIT__ACTION__META_DATA__SOURCE__CLUSTER_ENTRY
            ? f->si->cluster_metadata
            : f->si->metadata;
    const struct kv_value *v = kv_metadata_get(m, a->metadata.ns, a->metadata.path, a->metadata.n);
    sv text = v && v->kind == KV_STRING ? v->s : SV_NULL;
    return text.n ? text : a->dflt.n ? a->dflt : SV_NULL;
}

/* p NULL: the action has nothing to tell. */
static sv value_of(const struct action *a, const struct rate_limit_facts *f) {
    bool matches;
    sv out;
    sv path = headers_get(f->request, HDR_path);
    switch (a->kind) {
    case ACTION_SOURCE_CLUSTER:
        return f->source_cluster.p ? f->source_cluster : SV("");
    case ACTION_DESTINATION_CLUSTER:
        return f->destination_cluster.p ? f->destination_cluster : SV("");
    case ACTION_HEADER:
        return a->header.id == HDR_OTHER ? headers_get_name(f->request, a->header.name)
                                         : headers_get(f->request, (enum header_id)a->header.id);
    case ACTION_QUERY:
        return query_get_decoded(path_query(path), a->parameter, f->scratch);
    case ACTION_REMOTE_ADDRESS:
        return address_text(client_of(f->si), f->scratch);
    case ACTION_MASKED_ADDRESS:
        return masked_text(client_of(f->si), a->mask_bits, f->scratch);
    case ACTION_TEXT:
        return text_of(a, f);
    case ACTION_HEADERS_MATCH:
        matches = header_matchers_match(a->headers, f->request, f->scratch);
        return matches == a->wants_match ? text_of(a, f) : SV_NULL;
    case ACTION_QUERY_MATCH:
        matches = query_matchers_match_decoded(a->query, path, f->scratch);
        return matches == a->wants_match ? text_of(a, f) : SV_NULL;
    case ACTION_ADDRESS_MATCH:
        return in_ranges(a, client_of(f->si)) ? text_of(a, f) : SV_NULL;
    case ACTION_METADATA:
        return metadata_text(a, f);
    case ACTION_CEL:
        return cel_text(a->cel, f->si, f->scratch, &out) ? out : SV_NULL;
    }
    return SV_NULL;
}

static bool fill_hits(const struct rate_limit *l, const struct rate_limit_facts *f,
                      struct rate_limit_descriptor *out) {
    out->has_hits = l->has_hits;
    out->is_negative = l->is_negative;
    out->hits = l->has_hits ? l->hits : 1;
    out->headers = l->headers;
    if (!l->hits_format) {
        return true;
    }
    double hits;
    if (!sv_to_double(formatted(l->hits_format, f), &hits) || !(hits >= 0) ||
        hits > RATE_LIMIT_HITS_MAX) {
        return false;
    }
    out->hits = (uint64_t)hits;
    return true;
}

static bool fill(const struct rate_limit *l, const struct rate_limit_facts *f,
                 struct rate_limit_descriptor *out) {
    struct rate_limit_entry *v =
        arena_new_array(f->scratch, struct rate_limit_entry, l->n ? l->n : 1);
    *out = (struct rate_limit_descriptor){.v = v};
    for (unsigned i = 0; i < l->n; i++) {
        const struct action *a = &l->actions[i];
        sv value = value_of(a, f);
        if (!value.p && !a->skips_absent) {
            return false;
        }
        if (value.p) {
            v[out->n++] = (struct rate_limit_entry){a->key, value};
        }
    }
    return fill_hits(l, f, out);
}

unsigned rate_limits_count(const struct rate_limits *l) { return l ? l->n : 0; }

unsigned rate_limits_fill(const struct rate_limits *l, unsigned stage,
                          const struct rate_limit_facts *f, struct rate_limit_descriptor *out) {
    unsigned n = 0;
    for (unsigned i = 0; l && i < l->n; i++) {
        const struct rate_limit *r = &l->v[i];
        bool applies = r->stage == stage && !r->is_disabled && !r->when_done;
        n += applies && fill(r, f, &out[n]);
    }
    return n;
}
