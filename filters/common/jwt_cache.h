/* Tokens that were verified, so that the next request with one costs a look-up: least recently used
 * ones go first. A cached token is good until it expires, as in Envoy.
 * Threads: one part for each worker, made when first used; no sharing.
 * Spec: extensions.filters.http.jwt_authn.v3.JwtCacheConfig. */
#ifndef SLUICE_FILTERS_COMMON_JWT_CACHE_H
#define SLUICE_FILTERS_COMMON_JWT_CACHE_H

#include "filters/common/jwt.h"
#include "proxy/api/compile.h"

#define JWT_CACHE_TOKENS 100u        /* of one worker, when not configured */
#define JWT_CACHE_TOKENS_MAX 100000u /* configured sizes are cut to it */
#define JWT_CACHE_TOKEN_BYTES 4096u  /* longer tokens are not kept, when not configured */

struct jwt_cache;
/* msg: JwtCacheConfig. Ends with the ctx's arena. */
struct jwt_cache *jwt_cache_compile(struct compile_ctx *ctx, const void *msg);
/* NULL: not there, or expired (then it is dropped). Borrowed until the next call by this thread. */
const struct jwt *jwt_cache_find(struct jwt_cache *c, unsigned thread, sv token, uint64_t now_s,
                                 uint64_t skew_s);
/* Keeps a copy; nothing when it is too long. */
void jwt_cache_add(struct jwt_cache *c, unsigned thread, sv token);

#endif
