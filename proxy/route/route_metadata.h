/* core.v3.Metadata as routes use it: looked up by operators, matched against hosts.
 * Threads: config thread; results immutable. */
#ifndef SLUICE_ROUTE_ROUTE_METADATA_H
#define SLUICE_ROUTE_ROUTE_METADATA_H

#include "proxy/api/compile.h"

struct kv_metadata;
struct metadata_match;
/* msg: core.v3.Metadata, may be NULL (→ NULL). */
const struct kv_metadata *route_metadata_compile(struct compile_ctx *ctx, const void *msg);
/* The "envoy.lb" part of a Metadata as match criteria, on top of `parent`'s (may be NULL). NULL:
 * none at all. */
const struct metadata_match *route_metadata_match(struct compile_ctx *ctx, const void *msg,
                                                  const struct metadata_match *parent);

#endif
