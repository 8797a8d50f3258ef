/* Which headers an outside service may change.
 * Threads: compiled on the config thread, immutable. Spec:
 * config.common.mutation_rules.v3.HeaderMutationRules. */
#ifndef SLUICE_FILTERS_COMMON_MUTATION_RULES_H
#define SLUICE_FILTERS_COMMON_MUTATION_RULES_H

#include "proxy/api/compile.h"

enum mutation_verdict {
    MUTATION_ALLOWED,
    MUTATION_IGNORED, /* goes without it */
    MUTATION_REFUSED, /* is an error of the service */
};
struct mutation_rules;
/* msg: HeaderMutationRules. NULL: errors added. */
const struct mutation_rules *mutation_rules_compile(struct compile_ctx *ctx, const void *msg);
/* `name` in lower case. r NULL: all are allowed. */
enum mutation_verdict mutation_rules_check(const struct mutation_rules *r, sv name,
                                           bool is_removal);

#endif
