/* String, header, query-parameter and cookie matchers, and fractions.
 * Threads: compiled on the config thread, immutable; matching is read-only and allocates only to
 * join repeated headers.
 * Spec: type.matcher.v3.StringMatcher, RegexMatcher, PathMatcher; config.route.v3.HeaderMatcher,
 * QueryParameterMatcher, CookieMatcher. Not here: metadata and values (metadata_matcher.c), which
 * route is tried (route_match.c). */
#include "proxy/route/matcher.h"

#include "protos/gen/core.pb-c.h"
#include "protos/gen/route.pb-c.h"
#include "protos/gen/type.pb-c.h"
#include "protos/gen/type_matcher.pb-c.h"
#include "proxy/base/regex.h"
#include "proxy/base/runtime.h"
#include "proxy/http/path.h"

/* --- strings --- */

static void free_regex(void *r) { regex_free((struct regex *)r); }

const struct regex *regex_compile(struct compile_ctx *ctx, const void *regex_matcher_msg) {
    const TypeMatcher__RegexMatcher *msg = (const TypeMatcher__RegexMatcher *)regex_matcher_msg;
    sv pattern = sv_cstr(msg->regex);
    char err[256];
    struct regex *r = regex_new(pattern.p, pattern.n, err, sizeof(err));
    if (!r) {
        diag_error(ctx->diag, "%s", err);
        return NULL;
    }
    arena_on_fini(ctx->arena, free_regex, r);
    if (msg->engine_type_case == TYPE_MATCHER__REGEX_MATCHER__ENGINE_TYPE_GOOGLE_RE2 &&
        msg->google_re2->max_program_size) {
        uint32_t max = msg->google_re2->max_program_size->value;
        int size = regex_program_size(r);
        if (size > 0 && (uint32_t)size > max) {
            diag_error(ctx->diag,
                       "regex '%s' RE2 program size of %d > max program size of %u; increase "
                       "configured max "
                       "program size if necessary",
                       msg->regex, size, max);
            return NULL;
        }
    }
    return r;
}

static sv lower_copy(struct arena *a, sv s) {
    char *p = arena_cstr(a, s);
    for (size_t i = 0; i < s.n; i++) {
        p[i] = ascii_tolower(p[i]);
    }
    return sv_from(p, s.n);
}

static bool compile_text(struct compile_ctx *ctx, const TypeMatcher__StringMatcher *msg,
                         enum string_match_kind kind, const char *text,
                         struct string_matcher *out) {
    out->kind = kind;
    out->ignore_case = msg->ignore_case;
    out->text = msg->ignore_case ? lower_copy(ctx->arena, sv_cstr(text))
                                 : arena_sv(ctx->arena, sv_cstr(text));
    return true;
}

static bool compile_string_regex(struct compile_ctx *ctx, const TypeMatcher__StringMatcher *msg,
                                 struct string_matcher *out) {
    if (msg->ignore_case) {
        return diag_error(ctx->diag, "ignore_case has no effect for safe_regex");
    }
    DIAG_FIELD(ctx->diag, "safe_regex");
    out->kind = STRING_REGEX;
    out->regex = regex_compile(ctx, msg->safe_regex);
    return out->regex != NULL;
}

bool string_matcher_compile(struct compile_ctx *ctx, const void *string_matcher_msg,
                            struct string_matcher *out) {
    const TypeMatcher__StringMatcher *msg = (const TypeMatcher__StringMatcher *)string_matcher_msg;
    *out = (struct string_matcher){.kind = STRING_EXACT};
    switch (msg->match_pattern_case) {
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_EXACT:
        return compile_text(ctx, msg, STRING_EXACT, msg->exact, out);
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_PREFIX:
        return compile_text(ctx, msg, STRING_PREFIX, msg->prefix, out);
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_SUFFIX:
        return compile_text(ctx, msg, STRING_SUFFIX, msg->suffix, out);
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_CONTAINS:
        return compile_text(ctx, msg, STRING_CONTAINS, msg->contains, out);
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_SAFE_REGEX:
        return compile_string_regex(ctx, msg, out);
    case TYPE_MATCHER__STRING_MATCHER__MATCH_PATTERN_CUSTOM:
        return diag_error(ctx->diag,
                          "Didn't find a registered implementation for '%s' with type URL: '%s'",
                          msg->custom->name,
                          msg->custom->typed_config ? msg->custom->typed_config->type_url : "");
    default:
        return diag_error(ctx->diag, "a match pattern is required");
    }
}

/* `lower` is lower case; s is compared without case. */
static bool contains_nocase(sv s, sv lower) {
    if (lower.n == 0) {
        return true;
    }
    for (size_t i = 0; i + lower.n <= s.n; i++) {
        if (ascii_tolower(s.p[i]) == lower.p[0] && sv_starts_nocase(sv_skip(s, i), lower)) {
            return true;
        }
    }
    return false;
}

static bool match_nocase(const struct string_matcher *m, sv s) {
    switch (m->kind) {
    case STRING_EXACT:
        return sv_eq_nocase(s, m->text);
    case STRING_PREFIX:
        return sv_starts_nocase(s, m->text);
    case STRING_SUFFIX:
        return sv_ends_nocase(s, m->text);
    case STRING_CONTAINS:
        return contains_nocase(s, m->text);
    case STRING_REGEX:
        break;
    }
    return false;
}

bool string_matcher_match(const struct string_matcher *m, sv s) {
    if (m->ignore_case) {
        return match_nocase(m, s);
    }
    switch (m->kind) {
    case STRING_EXACT:
        return sv_eq(s, m->text);
    case STRING_PREFIX:
        return sv_starts(s, m->text);
    case STRING_SUFFIX:
        return sv_ends(s, m->text);
    case STRING_CONTAINS:
        return sv_contains(s, m->text);
    case STRING_REGEX:
        return regex_full_match(m->regex, s.p, s.n);
    }
    return false;
}

bool string_matchers_compile(struct compile_ctx *ctx, const void *const *msgs, size_t n,
                             struct string_matchers *out) {
    struct string_matcher *v = arena_new_array(ctx->arena, struct string_matcher, n);
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "[%zu]", i);
        ok &= string_matcher_compile(ctx, msgs[i], &v[i]);
    }
    *out = (struct string_matchers){v, (unsigned)n};
    return ok;
}

bool string_matchers_any(const struct string_matchers *m, sv s) {
    for (unsigned i = 0; i < m->n; i++) {
        if (string_matcher_match(&m->v[i], s)) {
            return true;
        }
    }
    return false;
}

bool path_matcher_compile(struct compile_ctx *ctx, const void *msg, struct string_matcher *out) {
    const TypeMatcher__PathMatcher *m = (const TypeMatcher__PathMatcher *)msg;
    if (m->rule_case != TYPE_MATCHER__PATH_MATCHER__RULE_PATH) {
        return diag_error(ctx->diag, "a path rule is required");
    }
    DIAG_FIELD(ctx->diag, "path");
    return string_matcher_compile(ctx, m->path, out);
}

bool path_matcher_match(const struct string_matcher *m, sv path) {
    return string_matcher_match(m, path_without_query(path));
}

/* --- headers --- */

enum header_match_kind { HEADER_PRESENT, HEADER_STRING, HEADER_RANGE, HEADER_ANY_VALUE };
struct header_matcher {
    sv name; /* lower case */
    enum header_id id;
    enum header_match_kind kind;
    bool invert, treat_missing_as_empty;
    bool present;
    struct string_matcher string;
    int64_t start, end; /* half-open */
};
struct header_matchers {
    unsigned n;
    struct header_matcher v[];
};
struct header_matchers_any {
    unsigned n;
    struct header_matcher v[];
};

/* exact_match, prefix_match and their like are older spellings of string_match. */
static void legacy_text(struct compile_ctx *ctx, struct header_matcher *m,
                        enum string_match_kind kind, const char *text) {
    m->kind = HEADER_STRING;
    m->string = (struct string_matcher){.kind = kind, .text = arena_sv(ctx->arena, sv_cstr(text))};
}

static bool compile_specifier(struct compile_ctx *ctx, const Route__HeaderMatcher *msg,
                              struct header_matcher *m) {
    switch (msg->header_match_specifier_case) {
    case ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER__NOT_SET:
        m->kind = HEADER_PRESENT;
        m->present = true;
        return true;
    case ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_PRESENT_MATCH:
        m->kind = HEADER_PRESENT;
        m->present = msg->present_match;
        return true;
    case ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_EXACT_MATCH:
        legacy_text(ctx, m, STRING_EXACT, msg->exact_match);
        if (m->string.text.n == 0) {
            m->kind = HEADER_ANY_VALUE; /* an empty exact_match asks for presence only */
        }
        return true;
    case ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_PREFIX_MATCH:
        legacy_text(ctx, m, STRING_PREFIX, msg->prefix_match);
        return true;
    case ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_SUFFIX_MATCH:
        legacy_text(ctx, m, STRING_SUFFIX, msg->suffix_match);
        return true;
    case ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_CONTAINS_MATCH:
        legacy_text(ctx, m, STRING_CONTAINS, msg->contains_match);
        return true;
    case ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_RANGE_MATCH:
        m->kind = HEADER_RANGE;
        m->start = msg->range_match->start;
        m->end = msg->range_match->end;
        return true;
    case ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_SAFE_REGEX_MATCH: {
        DIAG_FIELD(ctx->diag, "safe_regex_match");
        m->kind = HEADER_STRING;
        m->string = (struct string_matcher){.kind = STRING_REGEX,
                                            .regex = regex_compile(ctx, msg->safe_regex_match)};
        return m->string.regex != NULL;
    }
    case ROUTE__HEADER_MATCHER__HEADER_MATCH_SPECIFIER_STRING_MATCH: {
        DIAG_FIELD(ctx->diag, "string_match");
        m->kind = HEADER_STRING;
        return string_matcher_compile(ctx, msg->string_match, &m->string);
    }
    default:
        return diag_error(ctx->diag, "unknown header match specifier");
    }
}

static bool compile_header(struct compile_ctx *ctx, const Route__HeaderMatcher *msg,
                           struct header_matcher *m) {
    m->name = lower_copy(ctx->arena, sv_cstr(msg->name));
    if (m->name.n == 0) {
        DIAG_FIELD(ctx->diag, "name");
        return diag_error(ctx->diag, "value length must be at least 1 characters");
    }
    m->id = header_id_of(m->name);
    if (m->id == HDR_host) { /* codecs keep Host as :authority */
        m->id = HDR_authority;
        m->name = SV(":authority");
    }
    m->invert = msg->invert_match;
    m->treat_missing_as_empty = msg->treat_missing_header_as_empty;
    return compile_specifier(ctx, msg, m);
}

static bool compile_headers(struct compile_ctx *ctx, const void *const *msgs, size_t n,
                            struct header_matcher *v) {
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "[%zu]", i);
        ok &= compile_header(ctx, (const Route__HeaderMatcher *)msgs[i], &v[i]);
    }
    return ok;
}

struct header_matchers *header_matchers_compile(struct compile_ctx *ctx, const void *const *msgs,
                                                size_t n) {
    if (n == 0) {
        return NULL;
    }
    struct header_matchers *m =
        (struct header_matchers *)arena_zalloc(ctx->arena, sizeof(*m) + n * sizeof(m->v[0]));
    m->n = (unsigned)n;
    return compile_headers(ctx, msgs, n, m->v) ? m : NULL;
}

struct header_matchers_any *header_matchers_any_compile(struct compile_ctx *ctx,
                                                        const void *const *msgs, size_t n) {
    if (n == 0) {
        return NULL;
    }
    struct header_matchers_any *m =
        (struct header_matchers_any *)arena_zalloc(ctx->arena, sizeof(*m) + n * sizeof(m->v[0]));
    m->n = (unsigned)n;
    return compile_headers(ctx, msgs, n, m->v) ? m : NULL;
}

struct header_matcher *header_matcher_compile(struct compile_ctx *ctx, const void *msg) {
    struct header_matcher *m = arena_new(ctx->arena, struct header_matcher);
    return compile_header(ctx, (const Route__HeaderMatcher *)msg, m) ? m : NULL;
}

static bool in_range(const struct header_matcher *m, sv value) {
    int64_t n;
    value = sv_trim(value);
    if (value.n > 1 && value.p[0] == '+' && ascii_isdigit(value.p[1])) {
        value = sv_skip(value, 1);
    }
    return sv_to_i64(value, &n) && n >= m->start && n < m->end;
}

static bool value_matches(const struct header_matcher *m, sv value) {
    switch (m->kind) {
    case HEADER_STRING:
        return string_matcher_match(&m->string, value);
    case HEADER_RANGE:
        return in_range(m, value);
    case HEADER_ANY_VALUE:
    case HEADER_PRESENT:
        return true;
    }
    return false;
}

/* Known headers have one value, however many lines brought it; cookies and others are looked at one
 * by one. */
static bool is_one_value(enum header_id id) {
    return id != HDR_OTHER && id != HDR_cookie && id != HDR_set_cookie;
}

/* *found: the header is there at all. */
static bool any_value_matches(const struct header_matcher *m, const struct headers *h,
                              struct arena *scratch, bool *found) {
    if (is_one_value(m->id)) {
        sv value = headers_joined(h, m->id, m->name, scratch);
        *found = value.p != NULL;
        return *found && value_matches(m, value);
    }
    *found = false;
    HEADERS_FOREACH (it, h) {
        if (it->id != m->id || (m->id == HDR_OTHER && !sv_eq(it->name, m->name))) {
            continue;
        }
        *found = true;
        if (value_matches(m, it->value)) {
            return true;
        }
    }
    return false;
}

bool header_matcher_match(const struct header_matcher *m, const struct headers *h,
                          struct arena *scratch) {
    bool found;
    bool matches = any_value_matches(m, h, scratch, &found);
    if (m->kind == HEADER_PRESENT) {
        return ((found || m->treat_missing_as_empty) == m->present) != m->invert;
    }
    if (!found) {
        if (!m->treat_missing_as_empty) {
            return false; /* inverted or not: there is no value to look at */
        }
        matches = value_matches(m, SV(""));
    }
    return matches != m->invert;
}

bool header_matchers_match(const struct header_matchers *m, const struct headers *h,
                           struct arena *scratch) {
    for (unsigned i = 0; m && i < m->n; i++) {
        if (!header_matcher_match(&m->v[i], h, scratch)) {
            return false;
        }
    }
    return true;
}

bool header_matchers_any_match(const struct header_matchers_any *m, const struct headers *h,
                               struct arena *scratch) {
    for (unsigned i = 0; m && i < m->n; i++) {
        if (header_matcher_match(&m->v[i], h, scratch)) {
            return true;
        }
    }
    return false;
}

/* --- query parameters --- */

struct query_matcher {
    sv name;
    enum { QUERY_EXISTS, QUERY_PRESENT, QUERY_STRING } kind;
    bool present;
    struct string_matcher string;
};
struct query_matchers {
    unsigned n;
    struct query_matcher v[];
};

static bool compile_query(struct compile_ctx *ctx, const Route__QueryParameterMatcher *msg,
                          struct query_matcher *m) {
    m->name = arena_sv(ctx->arena, sv_cstr(msg->name));
    switch (msg->query_parameter_match_specifier_case) {
    case ROUTE__QUERY_PARAMETER_MATCHER__QUERY_PARAMETER_MATCH_SPECIFIER__NOT_SET:
        m->kind = QUERY_EXISTS;
        return true;
    case ROUTE__QUERY_PARAMETER_MATCHER__QUERY_PARAMETER_MATCH_SPECIFIER_PRESENT_MATCH:
        m->kind = QUERY_PRESENT;
        m->present = msg->present_match;
        return true;
    case ROUTE__QUERY_PARAMETER_MATCHER__QUERY_PARAMETER_MATCH_SPECIFIER_STRING_MATCH: {
        DIAG_FIELD(ctx->diag, "string_match");
        m->kind = QUERY_STRING;
        return string_matcher_compile(ctx, msg->string_match, &m->string);
    }
    default:
        return diag_error(ctx->diag, "unknown query parameter match specifier");
    }
}

struct query_matchers *query_matchers_compile(struct compile_ctx *ctx, const void *const *msgs,
                                              size_t n) {
    if (n == 0) {
        return NULL;
    }
    struct query_matchers *m =
        (struct query_matchers *)arena_zalloc(ctx->arena, sizeof(*m) + n * sizeof(m->v[0]));
    bool ok = true;
    m->n = (unsigned)n;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "[%zu]", i);
        ok &= compile_query(ctx, (const Route__QueryParameterMatcher *)msgs[i], &m->v[i]);
    }
    return ok ? m : NULL;
}

static bool query_matches(const struct query_matcher *m, sv value) {
    switch (m->kind) {
    case QUERY_EXISTS:
        return value.p != NULL;
    case QUERY_PRESENT:
        return (value.p != NULL) == m->present;
    case QUERY_STRING:
        return value.p && string_matcher_match(&m->string, value);
    }
    return false;
}

bool query_matchers_match(const struct query_matchers *m, sv path_with_query,
                          struct arena *scratch) {
    (void)scratch;
    sv query = path_query(path_with_query);
    for (unsigned i = 0; m && i < m->n; i++) {
        if (!query_matches(&m->v[i], query_get(query, m->v[i].name))) {
            return false;
        }
    }
    return true;
}

bool query_matchers_match_decoded(const struct query_matchers *m, sv path_with_query,
                                  struct arena *scratch) {
    sv query = path_query(path_with_query);
    for (unsigned i = 0; m && i < m->n; i++) {
        if (!query_matches(&m->v[i], query_get_decoded(query, m->v[i].name, scratch))) {
            return false;
        }
    }
    return true;
}

/* --- cookies --- */

struct cookie_matcher {
    sv name;
    bool invert;
    struct string_matcher string;
};
struct cookie_matchers {
    unsigned n;
    struct cookie_matcher v[];
};

struct cookie_matchers *cookie_matchers_compile(struct compile_ctx *ctx, const void *const *msgs,
                                                size_t n) {
    if (n == 0) {
        return NULL;
    }
    struct cookie_matchers *m =
        (struct cookie_matchers *)arena_zalloc(ctx->arena, sizeof(*m) + n * sizeof(m->v[0]));
    bool ok = true;
    m->n = (unsigned)n;
    for (size_t i = 0; i < n; i++) {
        const Route__CookieMatcher *msg = (const Route__CookieMatcher *)msgs[i];
        DIAG_FIELD(ctx->diag, "[%zu]", i);
        m->v[i].name = arena_sv(ctx->arena, sv_cstr(msg->name));
        m->v[i].invert = msg->invert_match;
        if (!msg->string_match) {
            ok = diag_error(ctx->diag, "string_match: value is required");
            continue;
        }
        DIAG_FIELD(ctx->diag, "string_match");
        ok &= string_matcher_compile(ctx, msg->string_match, &m->v[i].string);
    }
    return ok ? m : NULL;
}

static sv cookie_in(sv line, sv name) {
    while (line.n) {
        sv pair = sv_trim(sv_cut(&line, ';'));
        size_t eq = sv_find(pair, '=');
        if (eq == SIZE_MAX || !sv_eq(sv_trim(sv_sub(pair, 0, eq)), name)) {
            continue;
        }
        sv value = sv_trim(sv_skip(pair, eq + 1));
        if (value.n >= 2 && value.p[0] == '"' && value.p[value.n - 1] == '"') {
            value = sv_sub(value, 1, value.n - 2);
        }
        return value.p ? value : SV("");
    }
    return SV_NULL;
}

sv cookie_get(const struct headers *h, sv name) {
    if (!headers_has(h, HDR_cookie)) {
        return SV_NULL;
    }
    HEADERS_FOREACH (it, h) {
        sv value = it->id == HDR_cookie ? cookie_in(it->value, name) : SV_NULL;
        if (value.p) {
            return value;
        }
    }
    return SV_NULL;
}

bool cookie_matchers_match(const struct cookie_matchers *m, const struct headers *h) {
    for (unsigned i = 0; m && i < m->n; i++) {
        sv value = cookie_get(h, m->v[i].name);
        bool matches = value.p && string_matcher_match(&m->v[i].string, value);
        if (matches == m->v[i].invert) {
            return false;
        }
    }
    return true;
}

/* --- fractions --- */

static bool denominator_of(int type, uint32_t *out) {
    switch (type) {
    case TYPE__FRACTIONAL_PERCENT__DENOMINATOR_TYPE__HUNDRED:
        *out = 100;
        return true;
    case TYPE__FRACTIONAL_PERCENT__DENOMINATOR_TYPE__TEN_THOUSAND:
        *out = 10000;
        return true;
    case TYPE__FRACTIONAL_PERCENT__DENOMINATOR_TYPE__MILLION:
        *out = 1000000;
        return true;
    default:
        return false;
    }
}

bool fraction_percent_compile(struct compile_ctx *ctx, const void *fractional_percent_msg,
                              struct fraction *out) {
    const Type__FractionalPercent *msg = (const Type__FractionalPercent *)fractional_percent_msg;
    *out = (struct fraction){.denominator = 100};
    if (!msg) {
        return true;
    }
    out->numerator = msg->numerator;
    if (!denominator_of((int)msg->denominator, &out->denominator)) {
        DIAG_FIELD(ctx->diag, "denominator");
        return diag_error(ctx->diag, "value must be one of the defined enum values");
    }
    return true;
}

bool fraction_compile(struct compile_ctx *ctx, const void *runtime_fractional_percent_msg,
                      struct fraction *out) {
    const Core__RuntimeFractionalPercent *msg =
        (const Core__RuntimeFractionalPercent *)runtime_fractional_percent_msg;
    DIAG_FIELD(ctx->diag, "default_value");
    if (!fraction_percent_compile(ctx, msg->default_value, out)) {
        return false;
    }
    out->runtime_key = arena_sv(ctx->arena, sv_cstr(msg->runtime_key));
    return true;
}

bool fraction_holds(const struct fraction *f, uint64_t random) {
    if (f->runtime_key.n) {
        return runtime_fraction(f->runtime_key, f->numerator, f->denominator, random);
    }
    return f->denominator && random % f->denominator < f->numerator;
}
