/* Where tokens stand in a request, by the providers that may be asked for.
 * Threads: compiled on the config thread, immutable. Spec: JwtProvider.from_headers, from_params,
 * from_cookies; the order in which tokens are found is Envoy's. */
#ifndef SLUICE_FILTERS_COMMON_JWT_EXTRACT_H
#define SLUICE_FILTERS_COMMON_JWT_EXTRACT_H

#include "filters/common/jwt_provider.h"

#define JWT_TOKENS_MAX 32u /* of one requirement; a request with more is refused */

struct jwt_location;
struct jwt_extractor;
struct jwt_token {
    sv text; /* of the request, or in the arena */
    const struct jwt_location *location;
};

/* The locations of n providers. */
const struct jwt_extractor *
jwt_extractor_compile(struct arena *a, const struct jwt_provider *const *providers, unsigned n);
/* Tokens in order, at most JWT_TOKENS_MAX + 1: more than JWT_TOKENS_MAX are too many. */
unsigned jwt_extract(const struct jwt_extractor *x, const struct headers *h, struct arena *a,
                     struct jwt_token out[JWT_TOKENS_MAX + 1]);
/* Headers that only a verified token may set: removed from the request. */
void jwt_sanitize(const struct jwt_extractor *x, struct headers *h);
/* May a token of this issuer come from there? */
bool jwt_location_allows(const struct jwt_location *l, sv issuer);
/* The token taken out of the request: its header, or its query parameter. Cookies stay. */
void jwt_location_remove(const struct jwt_location *l, struct headers *h);

#endif
