/* One value of a connection or request, and one predicate on it: the leaves of match_tree.c.
 * Threads: as proxy/api/match_tree.h. Spec: the input extensions "envoy.matching.inputs.*", the
 * matcher extensions "envoy.matching.matchers.*", xds.type.matcher.v3.StringMatcher. */
#ifndef SLUICE_ROUTE_MATCH_INPUT_H
#define SLUICE_ROUTE_MATCH_INPUT_H

#include "proxy/api/match_tree.h"
#include "proxy/api/matcher.h"

struct match_input {
    enum match_input_kind kind;
    uint16_t header_id;
    sv name;         /* of the header or filter-state object; the environment's text */
    sv field;        /* of the filter-state object; empty: the whole */
    sv ns;           /* dynamic metadata: filter */
    const void *msg; /* its message; gone with the compilation */
};
/* typed_config: google.protobuf.Any of an input extension. False: errors added. */
bool match_input_compile(struct compile_ctx *ctx, const struct match_tree_user *user, sv name,
                         const void *typed_config, struct match_input *out);
/* Will it never be known (names of a TLS peer without TLS)? Then nothing can be decided by it. */
bool match_input_is_unknown(const struct match_input *in, const struct match_facts *f);
/* As text, in f->scratch or borrowed; p NULL: there is none. */
sv match_input_text(const struct match_input *in, const struct match_facts *f);
/* As an address; NULL: it is none. *room may be written to. */
const struct addr *match_input_addr(const struct match_input *in, const struct match_facts *f,
                                    struct addr *room);

struct match_leaf; /* an input and the predicate on it */
/* msg: xds.type.matcher.v3.Matcher.MatcherList.Predicate.SinglePredicate. NULL: errors added. */
const struct match_leaf *match_leaf_compile(struct compile_ctx *ctx,
                                            const struct match_tree_user *user, const void *msg);
enum match_result { MATCH_NO, MATCH_YES, MATCH_UNKNOWN };
enum match_result match_leaf_result(const struct match_leaf *l, const struct match_facts *f);

#endif
