/* Key sets that tokens are verified with.
 * Threads: immutable and shared once made. Spec: RFC 7517, 7518 §6, 8037; which sets are refused,
 * and which key is tried for which token, is Envoy's. */
#ifndef SLUICE_FILTERS_COMMON_JWKS_H
#define SLUICE_FILTERS_COMMON_JWKS_H

#include "filters/common/jwt.h"
#include "proxy/base/shared.h"

#define JWKS_KEYS_MAX 1000u /* further keys make a set invalid */

struct jwks;
/* A set from its text: {"keys": […]}, or a map of key ids to PEM certificates. The caller's ref;
 * NULL: *why tells. */
struct jwks *jwks_new(sv text, enum jwt_status *why);
struct jwks *jwks_ref(struct jwks *k);
void jwks_unref(struct jwks *k); /* NULL is fine; any thread */
unsigned jwks_count(const struct jwks *k);
/* The signature only. JWT_OK, JWT_VERIFICATION_FAIL, JWT_JWKS_KID_ALG_MISMATCH or
 * JWT_ED25519_WRONG_LENGTH. */
enum jwt_status jwks_verify(const struct jwks *k, const struct jwt *t);

#endif
