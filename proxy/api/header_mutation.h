/* Header additions and removals with format operators, compiled from HeaderValueOption lists and
 * HeaderMutation.
 * Implemented in proxy/route/header_mutation.c.
 * Spec: core.v3.HeaderValueOption (append_action, keep_empty_value),
 * config.common.mutation_rules.v3.HeaderMutation. */
#ifndef SLUICE_API_HEADER_MUTATION_H
#define SLUICE_API_HEADER_MUTATION_H

#include "proxy/api/compile.h"
#include "proxy/http/headers.h"
#include "proxy/observe/stream_info.h"

struct header_mutations;
/* add: n pointers to core.v3.HeaderValueOption; remove: header names. NULL without error when there
 * is nothing to do. Refuses pseudo headers and host where Envoy does (":-prefixed or host headers
 * may not be modified" / "removed"). */
struct header_mutations *header_mutations_compile(struct compile_ctx *ctx, const void *const *add,
                                                  size_t add_n, const char *const *remove,
                                                  size_t remove_n);
/* msgs: n pointers to config.common.mutation_rules.v3.HeaderMutation, in order. */
struct header_mutations *header_mutations_compile_list(struct compile_ctx *ctx,
                                                       const void *const *msgs, size_t n);
/* Values are formatted into h->arena. m may be NULL. */
void header_mutations_apply(const struct header_mutations *m, struct headers *h,
                            const struct stream_info *si);

#endif
