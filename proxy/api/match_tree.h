/* Generic matching: a tree of predicates and maps over facts of a connection or request that leads
 * to one action. Used by RBAC and by a listener's filter_chain_matcher.
 * Threads: compiled on the config thread, immutable; found on workers, without allocation but from
 * the caller's scratch arena. Implemented in proxy/route/match_tree.c and match_input.c.
 * Spec: xds.type.matcher.v3.Matcher: matcher_list, matcher_tree (exact, prefix, ip_range_matcher,
 * domain_matcher), on_no_match; value_match and the custom matchers ip, CEL, metadata,
 * runtime_fraction, consistent_hashing. Refused: keep_matching, which Envoy refuses for RBAC and
 * does not survive for filter chains. */
#ifndef SLUICE_API_MATCH_TREE_H
#define SLUICE_API_MATCH_TREE_H

#include "proxy/api/compile.h"
#include "proxy/http/headers.h"
#include "proxy/net/addr.h"
#include "proxy/observe/stream_info.h"

#define MATCH_TREE_DEPTH_MAX 32u /* trees within trees; predicates within predicates */

struct ssl_info;

/* What may be looked at. */
enum match_input_kind {
    MATCH_INPUT_REQUEST_HEADER,
    MATCH_INPUT_DESTINATION_IP,
    MATCH_INPUT_DESTINATION_PORT,
    MATCH_INPUT_SOURCE_IP,
    MATCH_INPUT_SOURCE_PORT,
    MATCH_INPUT_DIRECT_SOURCE_IP,
    MATCH_INPUT_SOURCE_TYPE,
    MATCH_INPUT_SERVER_NAME,
    MATCH_INPUT_TRANSPORT_PROTOCOL,
    MATCH_INPUT_APPLICATION_PROTOCOL,
    MATCH_INPUT_NETWORK_NAMESPACE,
    MATCH_INPUT_FILTER_STATE,
    MATCH_INPUT_DYNAMIC_METADATA,
    MATCH_INPUT_URI_SAN,
    MATCH_INPUT_DNS_SAN,
    MATCH_INPUT_SUBJECT,
    MATCH_INPUT_CEL,
    MATCH_INPUT_ENVIRONMENT,
    MATCH_INPUTS_N
};
#define MATCH_INPUT(kind) (1u << MATCH_INPUT_##kind)

/* The facts. All borrowed for the call; NULL and empty: not there, and so matched by nothing.
 * Without `ssl` the peer's names are unknown: what depends on them finds nothing at all. */
struct match_facts {
    const struct addr *source, *direct_source, *destination;
    sv server_name;
    sv transport_protocol;
    const sv *application_protocols;
    unsigned application_protocols_n;
    const struct ssl_info *ssl;
    const struct headers *request;
    const struct stream_info *si; /* for metadata, filter state and CEL */
    struct arena *scratch;
};

/* Who uses the tree: which inputs there are, and what an action is. */
struct match_tree_user {
    uint32_t inputs;     /* MATCH_INPUT() bits */
    const char *refusal; /* of other inputs; %s: type URL */
    /* name and config: of the TypedExtensionConfig. What is returned is what match_tree_find()
     * finds, never NULL; NULL: errors added. */
    const void *(*compile_action)(struct compile_ctx *ctx, sv name, const void *any, void *arg);
    void *arg;
};

struct match_tree;
/* msg: xds.type.matcher.v3.Matcher. NULL: errors added. */
const struct match_tree *match_tree_compile(struct compile_ctx *ctx,
                                            const struct match_tree_user *user, const void *msg);
/* The action, or NULL: nothing matches. */
const void *match_tree_find(const struct match_tree *t, const struct match_facts *facts);

#endif
