/* Requirements: which providers' tokens a request must have, and the verdict on one request.
 * Threads: compiled on the config thread, immutable; a run belongs to its stream's worker.
 * Spec: extensions.filters.http.jwt_authn.v3.JwtRequirement. Refused:
 * extract_only_without_validation. */
#ifndef SLUICE_FILTERS_COMMON_JWT_VERIFIER_H
#define SLUICE_FILTERS_COMMON_JWT_VERIFIER_H

#include "filters/common/jwt_extract.h"

#define JWT_REQUIREMENT_DEPTH_MAX 32u /* requirements within requirements */
#define JWT_LEAVES_MAX 1000u          /* providers asked for by one requirement */

#define JWT_AUTHN_STATS(P, C, G, H, T) \
    C(P, allowed)                      \
    C(P, cors_preflight_bypassed)      \
    C(P, denied)                       \
    C(P, jwks_fetch_failed) C(P, jwks_fetch_success) C(P, jwt_cache_hit) C(P, jwt_cache_miss)
STATS_ENUM(JWT_AUTHN, JWT_AUTHN_STATS);

/* All providers of a filter, ascending by name. */
struct jwt_providers {
    const struct jwt_provider *v;
    unsigned n;
};

struct jwt_verifier;
/* msg: JwtRequirement, NULL or without a type: satisfied by every request. NULL: errors added. */
const struct jwt_verifier *jwt_verifier_compile(struct compile_ctx *ctx, const void *msg,
                                                const struct jwt_providers *providers);

/* One request's way through a verifier. The caller fills the first part. */
struct jwt_run {
    const struct jwt_verifier *verifier;
    const struct jwt_providers *providers;
    struct headers *headers; /* edited as tokens are found good */
    struct arena *arena;
    struct worker *worker;
    unsigned thread;
    uint64_t now_ms; /* Unix */
    struct stats_shard *stats;
    /* Once, when jwt_run_start said that it waits. */
    void (*on_done)(struct jwt_run *r, enum jwt_status s);
    /* results */
    struct kv_value extracted; /* for the dynamic metadata; an empty struct: nothing */
    bool clears_route_cache;
    /* private */
    struct jwt_leaf_run *leaves_;
    struct jwks_wait wait_;
    const struct jwks *keys_; /* what a fetch brought, while on_done of it runs */
    bool has_answer_;
};
/* True: the verdict is *out. False: keys are being fetched, on_done will tell. */
bool jwt_run_start(struct jwt_run *r, enum jwt_status *out);
void jwt_run_cancel(struct jwt_run *r); /* no on_done after; fine at any time */

#endif
