/* String, header, query-parameter, path and metadata matchers, compiled from type.matcher.v3 and
 * route.v3.
 * Threads: compiled on the config thread, immutable; matching is read-only and allocation-free
 * unless told otherwise. Implemented in proxy/route/matcher.c and metadata_matcher.c; here so that
 * filters may use them.
 * Spec: type.matcher.v3.StringMatcher, ListStringMatcher, PathMatcher, ValueMatcher,
 * MetadataMatcher; route.v3.HeaderMatcher, QueryParameterMatcher. Bytes are compared as bytes: a
 * subject that is not UTF-8 fails closed, never raises. */
#ifndef SLUICE_API_MATCHER_H
#define SLUICE_API_MATCHER_H

#include "proxy/api/compile.h"
#include "proxy/http/headers.h"

enum string_match_kind {
    STRING_EXACT,
    STRING_PREFIX,
    STRING_SUFFIX,
    STRING_CONTAINS,
    STRING_REGEX
};
struct string_matcher {
    enum string_match_kind kind;
    bool ignore_case;
    sv text;                   /* lower-cased when ignore_case */
    const struct regex *regex; /* full match */
};
/* msg: type.matcher.v3.StringMatcher. */
bool string_matcher_compile(struct compile_ctx *ctx, const void *msg, struct string_matcher *out);
bool string_matcher_match(const struct string_matcher *m, sv s);
struct string_matchers {
    const struct string_matcher *v;
    unsigned n;
};
/* msgs: n pointers to type.matcher.v3.StringMatcher (ListStringMatcher.patterns and the like). */
bool string_matchers_compile(struct compile_ctx *ctx, const void *const *msgs, size_t n,
                             struct string_matchers *out);
bool string_matchers_any(const struct string_matchers *m, sv s); /* false when there are none */
/* msg: type.matcher.v3.PathMatcher. */
bool path_matcher_compile(struct compile_ctx *ctx, const void *msg, struct string_matcher *out);
/* query and fragment are not looked at */
bool path_matcher_match(const struct string_matcher *m, sv path);
/* type.matcher.v3.RegexMatcher → regex freed with the arena; NULL: error added. */
const struct regex *regex_compile(struct compile_ctx *ctx, const void *regex_matcher_msg);

struct header_matcher; /* opaque array element */
/* msgs: n pointers to route.v3.HeaderMatcher; all must match. NULL result with n == 0 matches
 * everything. */
struct header_matchers;
struct header_matchers *header_matchers_compile(struct compile_ctx *ctx, const void *const *msgs,
                                                size_t n);
/* `scratch` is used to join known headers that came in several lines (by ",", as Envoy's header map
 * does). Any value of a repeated cookie or other header may match; an inverted matcher wants that
 * none does. */
bool header_matchers_match(const struct header_matchers *m, const struct headers *h,
                           struct arena *scratch);
/* One HeaderMatcher on its own (RBAC, access-log filters, retries). */
struct header_matcher *header_matcher_compile(struct compile_ctx *ctx, const void *msg);
bool header_matcher_match(const struct header_matcher *m, const struct headers *h,
                          struct arena *scratch);

/* Any of them; NULL result with n == 0 (RetryPolicy.retriable_headers). */
struct header_matchers_any;
struct header_matchers_any *header_matchers_any_compile(struct compile_ctx *ctx,
                                                        const void *const *msgs, size_t n);
bool header_matchers_any_match(const struct header_matchers_any *m, const struct headers *h,
                               struct arena *scratch);

/* msgs: n pointers to route.v3.CookieMatcher; all must match. */
struct cookie_matchers;
struct cookie_matchers *cookie_matchers_compile(struct compile_ctx *ctx, const void *const *msgs,
                                                size_t n);
bool cookie_matchers_match(const struct cookie_matchers *m, const struct headers *h);
/* Value of the first cookie `name`, quotes taken off; p NULL when absent. Borrowed from h. */
sv cookie_get(const struct headers *h, sv name);

struct query_matchers;
struct query_matchers *query_matchers_compile(struct compile_ctx *ctx, const void *const *msgs,
                                              size_t n);
bool query_matchers_match(const struct query_matchers *m, sv path_with_query,
                          struct arena *scratch);
/* The same with names and values percent-decoded, as rate limit actions see them. */
bool query_matchers_match_decoded(const struct query_matchers *m, sv path_with_query,
                                  struct arena *scratch);

/* RuntimeFractionalPercent / FractionalPercent: does `random` fall under it? */
struct fraction {
    sv runtime_key; /* empty: none */
    uint32_t numerator, denominator;
};
bool fraction_compile(struct compile_ctx *ctx, const void *runtime_fractional_percent_msg,
                      struct fraction *out);
/* type.v3.FractionalPercent; msg may be NULL: 0 of 100. */
bool fraction_percent_compile(struct compile_ctx *ctx, const void *fractional_percent_msg,
                              struct fraction *out);
bool fraction_holds(const struct fraction *f, uint64_t random);

/* --- dynamic metadata and filter state --- */

struct kv_metadata;
struct filter_state;
struct metadata_match; /* api/metadata_match.h */

/* google.protobuf.Struct (may be NULL: no criteria) → criteria over a host's metadata. Never
 * NULL. */
const struct metadata_match *metadata_match_compile_struct(struct compile_ctx *ctx,
                                                           const void *struct_msg);

/* One MetadataMatcher. */
struct metadata_matcher;
struct metadata_matcher *metadata_matcher_compile(struct compile_ctx *ctx, const void *msg);
/* md NULL: empty */
bool metadata_matcher_match(const struct metadata_matcher *m, const struct kv_metadata *md);

/* All of them; NULL result with n == 0 matches everything. */
struct metadata_matchers;
struct metadata_matchers *metadata_matchers_compile(struct compile_ctx *ctx,
                                                    const void *const *msgs, size_t n);
bool metadata_matchers_match(const struct metadata_matchers *m, const struct kv_metadata *md);

struct filter_state_matchers;
struct filter_state_matchers *filter_state_matchers_compile(struct compile_ctx *ctx,
                                                            const void *const *msgs, size_t n);
bool filter_state_matchers_match(const struct filter_state_matchers *m,
                                 const struct filter_state *fs);

#endif
