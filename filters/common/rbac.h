/* Role-based access control: policies of permissions and principals, decided for a request or a
 * connection. Shared by the HTTP and the network filter.
 * Threads: compiled on the config thread, immutable; decisions on workers, without allocation but
 * from the caller's scratch arena.
 * Spec: config.rbac.v3.RBAC, config.rbac.v3.Action at the leaves of a matcher tree. Refused: audit
 * loggers that are not optional. */
#ifndef SLUICE_FILTERS_COMMON_RBAC_H
#define SLUICE_FILTERS_COMMON_RBAC_H

#include "proxy/api/compile.h"
#include "proxy/api/network_filter.h"

#define RBAC_DEPTH_MAX 32 /* rules within rules */

/* What a decision looks at. */
struct rbac_input {
    const struct stream_info *si;  /* with its cx */
    const struct headers *request; /* empty for a connection */
    struct arena *scratch;
};
struct rbac_verdict {
    bool is_allowed;
    bool sets_log_hint; /* action LOG: log_hint tells whether a policy matched */
    bool log_hint;
    sv policy; /* the first that matches, in the order of names; empty: none */
};

struct rbac;
/* msg: config.rbac.v3.RBAC. NULL: errors added. */
const struct rbac *rbac_compile(struct compile_ctx *ctx, const void *msg);
/* msg: xds.type.matcher.v3.Matcher, whose actions are policies; what matches none is denied.
 * of_http: it decides on requests. NULL: errors added. */
const struct rbac *rbac_compile_matcher(struct compile_ctx *ctx, bool of_http, const void *msg);
/* The one of both that counts, a matcher before rules; `rules` and `matcher`: their fields' names.
 * NULL: neither is set, or errors were added. */
struct rbac_source {
    const char *rules_field, *matcher_field;
    const void *rules, *matcher; /* messages; NULL: not set */
    bool of_http;
};
const struct rbac *rbac_compile_source(struct compile_ctx *ctx, const struct rbac_source *s);
struct rbac_verdict rbac_decide(const struct rbac *r, const struct rbac_input *in);

/* "rbac_access_denied_matched_policy[NAME]", white space in the name as "_"; "none" when no policy
 * matched. In the arena. */
sv rbac_denied_details(sv policy, struct arena *a);

#endif
