/* Matchers over dynamic metadata and filter state.
 * Threads: compiled on the config thread, immutable. Spec: type.matcher.v3.ValueMatcher, MetadataMatcher,
 * FilterStateMatcher. */
#ifndef SLUICE_ROUTE_METADATA_MATCHER_H
#define SLUICE_ROUTE_METADATA_MATCHER_H

#include "proxy/api/compile.h"

struct kv_metadata;
struct filter_state;
struct metadata_match; /* api/metadata_match.h */

/* google.protobuf.Struct (may be NULL: no criteria) → criteria over a host's metadata. Never NULL. */
const struct metadata_match *metadata_match_compile_struct(struct compile_ctx *ctx, const void *struct_msg);

/* One MetadataMatcher. */
struct metadata_matcher;
struct metadata_matcher *metadata_matcher_compile(struct compile_ctx *ctx, const void *msg);
bool metadata_matcher_match(const struct metadata_matcher *m, const struct kv_metadata *md); /* md NULL: empty */

/* All of them; NULL result with n == 0 matches everything. */
struct metadata_matchers;
struct metadata_matchers *metadata_matchers_compile(struct compile_ctx *ctx, const void *const *msgs, size_t n);
bool metadata_matchers_match(const struct metadata_matchers *m, const struct kv_metadata *md);

struct filter_state_matchers;
struct filter_state_matchers *filter_state_matchers_compile(struct compile_ctx *ctx, const void *const *msgs, size_t n);
bool filter_state_matchers_match(const struct filter_state_matchers *m, const struct filter_state *fs);

#endif
