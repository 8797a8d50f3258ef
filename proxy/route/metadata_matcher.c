/* Values, metadata and filter state against matchers.
 * Threads: compiled on the config thread, immutable; matching allocates nothing.
 * Spec: type.matcher.v3.ValueMatcher, MetadataMatcher, FilterStateMatcher. Nesting is bounded by
 * the wire check. */
#include "proxy/route/metadata_matcher.h"

#include "protos/gen/type.pb-c.h"
#include "protos/gen/type_matcher.pb-c.h"
#include "protos/gen/xds_core.pb-c.h"
#include "proxy/net/addr.h"
#include "proxy/observe/filter_state.h"
#include "proxy/route/matcher.h"

enum value_match_kind {
    VALUE_NULL,
    VALUE_NUMBER,
    VALUE_RANGE,
    VALUE_STRING,
    VALUE_BOOL,
    VALUE_PRESENT,
    VALUE_LIST,
    VALUE_OR
};
struct value_matcher {
    enum value_match_kind kind;
    bool flag;         /* VALUE_BOOL: wanted; VALUE_PRESENT: must it be there */
    double start, end; /* VALUE_NUMBER: start; VALUE_RANGE: half-open */
    struct string_matcher string;
    const struct value_matcher *v; /* VALUE_LIST: one, for some item; VALUE_OR: any of n */
    unsigned n;
};
struct metadata_matcher {
    sv ns;
    const sv *path;
    unsigned path_n;
    bool invert;
    struct value_matcher value;
};
struct metadata_matchers {
    unsigned n;
    const struct metadata_matcher *v[];
};

/* --- values --- */

static bool compile_double(struct compile_ctx *ctx, const TypeMatcher__DoubleMatcher *m,
                           struct value_matcher *out) {
    switch (m->match_pattern_case) {
    case TYPE_MATCHER__DOUBLE_MATCHER__MATCH_PATTERN_EXACT:
        out->kind = VALUE_NUMBER;
        out->start = m->exact;
        return true;
    case TYPE_MATCHER__DOUBLE_MATCHER__MATCH_PATTERN_RANGE:
        out->kind = VALUE_RANGE;
        out->start = m->range->start;
        out->end = m->range->end;
        return true;
    default:
        return diag_error(ctx->diag, "double_match.match_pattern: value is required");
    }
}

static bool compile_value(struct compile_ctx *ctx, const TypeMatcher__ValueMatcher *m,
                          struct value_matcher *out);

static bool compile_alternatives(struct compile_ctx *ctx, TypeMatcher__ValueMatcher *const *msgs,
                                 size_t n, struct value_matcher *out) {
    struct value_matcher *v = arena_new_array(ctx->arena, struct value_matcher, n);
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "[%zu]", i);
        ok &= compile_value(ctx, msgs[i], &v[i]);
    }
    out->v = v;
    out->n = (unsigned)n;
    return ok;
}

static bool compile_list(struct compile_ctx *ctx, const TypeMatcher__ListMatcher *m,
                         struct value_matcher *out) {
    DIAG_FIELD(ctx->diag, "list_match.one_of");
    out->kind = VALUE_LIST;
    if (m->match_pattern_case != TYPE_MATCHER__LIST_MATCHER__MATCH_PATTERN_ONE_OF) {
        return diag_error(ctx->diag, "value is required");
    }
    return compile_alternatives(ctx, &(TypeMatcher__ValueMatcher *){m->one_of}, 1, out);
}

/* Recursion is as deep as the message, which the wire check bounds. */
static bool compile_value(struct compile_ctx *ctx, const TypeMatcher__ValueMatcher *m,
                          struct value_matcher *out) {
    switch (m->match_pattern_case) {
    case TYPE_MATCHER__VALUE_MATCHER__MATCH_PATTERN_NULL_MATCH:
        out->kind = VALUE_NULL;
        return true;
    case TYPE_MATCHER__VALUE_MATCHER__MATCH_PATTERN_DOUBLE_MATCH:
        return compile_double(ctx, m->double_match, out);
    case TYPE_MATCHER__VALUE_MATCHER__MATCH_PATTERN_STRING_MATCH: {
        DIAG_FIELD(ctx->diag, "string_match");
        out->kind = VALUE_STRING;
        return string_matcher_compile(ctx, m->string_match, &out->string);
    }
    case TYPE_MATCHER__VALUE_MATCHER__MATCH_PATTERN_BOOL_MATCH:
        out->kind = VALUE_BOOL;
        out->flag = m->bool_match;
        return true;
    case TYPE_MATCHER__VALUE_MATCHER__MATCH_PATTERN_PRESENT_MATCH:
        out->kind = VALUE_PRESENT;
        out->flag = m->present_match;
        return true;
    case TYPE_MATCHER__VALUE_MATCHER__MATCH_PATTERN_LIST_MATCH:
        return compile_list(ctx, m->list_match, out);
    case TYPE_MATCHER__VALUE_MATCHER__MATCH_PATTERN_OR_MATCH: {
        DIAG_FIELD(ctx->diag, "or_match.value_matchers");
        out->kind = VALUE_OR;
        return compile_alternatives(ctx, m->or_match->value_matchers, m->or_match->n_value_matchers,
                                    out);
    }
    default:
        return diag_error(ctx->diag, "match_pattern: value is required");
    }
}

static bool value_matches(const struct value_matcher *m, const struct kv_value *v);

static bool any_item(const struct value_matcher *m, const struct kv_value *list) {
    for (uint32_t i = 0; i < list->list.n; i++) {
        if (value_matches(m, &list->list.v[i])) {
            return true;
        }
    }
    return false;
}

static bool any_alternative(const struct value_matcher *m, const struct kv_value *v) {
    for (unsigned i = 0; i < m->n; i++) {
        if (value_matches(&m->v[i], v)) {
            return true;
        }
    }
    return false;
}

/* v NULL: there is no such value. */
static bool value_matches(const struct value_matcher *m, const struct kv_value *v) {
    switch (m->kind) {
    case VALUE_PRESENT:
        return v && m->flag; /* "false" is no way to ask for absence, as in Envoy */
    case VALUE_OR:
        return any_alternative(m, v);
    case VALUE_NULL:
        return v && v->kind == KV_NULL;
    case VALUE_NUMBER:
        return v && v->kind == KV_NUMBER && v->number == m->start;
    case VALUE_RANGE:
        return v && v->kind == KV_NUMBER && v->number >= m->start && v->number < m->end;
    case VALUE_STRING:
        return v && v->kind == KV_STRING && string_matcher_match(&m->string, v->s);
    case VALUE_BOOL:
        return v && v->kind == KV_BOOL && v->b == m->flag;
    case VALUE_LIST:
        return v && v->kind == KV_LIST && any_item(m->v, v);
    }
    return false;
}

/* --- metadata --- */

struct metadata_matcher *metadata_matcher_compile(struct compile_ctx *ctx, const void *msg) {
    const TypeMatcher__MetadataMatcher *m = (const TypeMatcher__MetadataMatcher *)msg;
    struct metadata_matcher *out = arena_new(ctx->arena, struct metadata_matcher);
    sv *path = arena_new_array(ctx->arena, sv, m->n_path);
    for (size_t i = 0; i < m->n_path; i++) {
        if (m->path[i]->segment_case != TYPE_MATCHER__METADATA_MATCHER__PATH_SEGMENT__SEGMENT_KEY) {
            diag_error(ctx->diag, "path[%zu].segment: value is required", i);
            return NULL;
        }
        path[i] = arena_sv(ctx->arena, sv_cstr(m->path[i]->key));
    }
    out->ns = arena_sv(ctx->arena, sv_cstr(m->filter));
    out->path = path;
    out->path_n = (unsigned)m->n_path;
    out->invert = m->invert;
    DIAG_FIELD(ctx->diag, "value");
    if (!m->value) {
        diag_error(ctx->diag, "value is required");
        return NULL;
    }
    return compile_value(ctx, m->value, &out->value) ? out : NULL;
}

bool metadata_matcher_match(const struct metadata_matcher *m, const struct kv_metadata *md) {
    const struct kv_value *v = md ? kv_metadata_get(md, m->ns, m->path, m->path_n) : NULL;
    return value_matches(&m->value, v) != m->invert;
}

struct metadata_matchers *metadata_matchers_compile(struct compile_ctx *ctx,
                                                    const void *const *msgs, size_t n) {
    if (n == 0) {
        return NULL;
    }
    struct metadata_matchers *m =
        (struct metadata_matchers *)arena_zalloc(ctx->arena, sizeof(*m) + n * sizeof(m->v[0]));
    bool ok = true;
    m->n = (unsigned)n;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "[%zu]", i);
        m->v[i] = metadata_matcher_compile(ctx, msgs[i]);
        ok &= m->v[i] != NULL;
    }
    return ok ? m : NULL;
}

bool metadata_matchers_match(const struct metadata_matchers *m, const struct kv_metadata *md) {
    for (unsigned i = 0; m && i < m->n; i++) {
        if (!metadata_matcher_match(m->v[i], md)) {
            return false;
        }
    }
    return true;
}

/* --- filter state --- */

struct filter_state_matcher {
    sv key;
    bool is_address, invert;
    struct string_matcher string;
    const struct cidr *ranges;
    unsigned ranges_n;
};
struct filter_state_matchers {
    unsigned n;
    struct filter_state_matcher v[];
};

static bool compile_ranges(struct compile_ctx *ctx, const TypeMatcher__AddressMatcher *m,
                           struct filter_state_matcher *out) {
    struct cidr *v = arena_new_array(ctx->arena, struct cidr, m->n_ranges);
    out->is_address = true;
    out->invert = m->invert_match;
    for (size_t i = 0; i < m->n_ranges; i++) {
        const XdsCore__CidrRange *r = m->ranges[i];
        if (!cidr_make(sv_cstr(r->address_prefix), r->prefix_len ? r->prefix_len->value : 0,
                       &v[i])) {
            return diag_error(ctx->diag, "address_match.ranges[%zu]: malformed IP address: %s", i,
                              r->address_prefix);
        }
    }
    out->ranges = v;
    out->ranges_n = (unsigned)m->n_ranges;
    return true;
}

static bool compile_state(struct compile_ctx *ctx, const TypeMatcher__FilterStateMatcher *m,
                          struct filter_state_matcher *out) {
    out->key = arena_sv(ctx->arena, sv_cstr(m->key));
    switch (m->matcher_case) {
    case TYPE_MATCHER__FILTER_STATE_MATCHER__MATCHER_STRING_MATCH: {
        DIAG_FIELD(ctx->diag, "string_match");
        return string_matcher_compile(ctx, m->string_match, &out->string);
    }
    case TYPE_MATCHER__FILTER_STATE_MATCHER__MATCHER_ADDRESS_MATCH:
        return compile_ranges(ctx, m->address_match, out);
    default:
        return diag_error(ctx->diag, "matcher: value is required");
    }
}

struct filter_state_matchers *filter_state_matchers_compile(struct compile_ctx *ctx,
                                                            const void *const *msgs, size_t n) {
    if (n == 0) {
        return NULL;
    }
    struct filter_state_matchers *m =
        (struct filter_state_matchers *)arena_zalloc(ctx->arena, sizeof(*m) + n * sizeof(m->v[0]));
    bool ok = true;
    m->n = (unsigned)n;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "[%zu]", i);
        ok &= compile_state(ctx, (const TypeMatcher__FilterStateMatcher *)msgs[i], &m->v[i]);
    }
    return ok ? m : NULL;
}

static bool in_ranges(const struct filter_state_matcher *m, sv text) {
    struct addr a;
    if (!addr_parse_ip(text, 0, &a) && !addr_parse_ip_port(text, &a)) {
        return false;
    }
    for (unsigned i = 0; i < m->ranges_n; i++) {
        if (cidr_contains(&m->ranges[i], &a)) {
            return !m->invert;
        }
    }
    return m->invert;
}

bool filter_state_matchers_match(const struct filter_state_matchers *m,
                                 const struct filter_state *fs) {
    for (unsigned i = 0; m && i < m->n; i++) {
        const struct filter_state_object *o = filter_state_get(fs, m->v[i].key);
        if (!o || !(m->v[i].is_address ? in_ranges(&m->v[i], o->text)
                                       : string_matcher_match(&m->v[i].string, o->text))) {
            return false;
        }
    }
    return true;
}
