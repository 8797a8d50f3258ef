/* Providers: who issues tokens, where they stand in a request, what is asked of them and what is
 * passed on.
 * Threads: compiled on the config thread, immutable but for its cache and remote keys, which look
 * after themselves. Spec: extensions.filters.http.jwt_authn.v3.JwtProvider. */
#ifndef SLUICE_FILTERS_COMMON_JWT_PROVIDER_H
#define SLUICE_FILTERS_COMMON_JWT_PROVIDER_H

#include "filters/common/jwks_remote.h"
#include "filters/common/jwt_cache.h"
#include "proxy/api/matcher.h"

#define JWT_CLOCK_SKEW_S 60u

struct jwt_header_place {
    sv name, prefix; /* lower case; "Bearer " */
};
struct jwt_claim_header {
    sv header; /* lower case */
    const sv *path;
    unsigned path_n;
};
struct jwt_provider {
    sv name, issuer;
    const sv *audiences;
    unsigned audiences_n;
    bool has_subjects;
    struct string_matcher subjects;
    bool wants_expiration;
    uint64_t lifetime_max_ms; /* UINT64_MAX: any */
    uint64_t clock_skew_s;
    struct jwks *local;         /* one of both, or neither */
    struct jwks_remote *remote; /* one of both, or neither */
    struct jwt_cache *cache;    /* NULL: none */
    /* where */
    const struct jwt_header_place *from_headers;
    const sv *from_params, *from_cookies;
    unsigned from_headers_n, from_params_n, from_cookies_n;
    /* what is passed on */
    bool forwards, pads_payload, clears_route_cache;
    sv forward_payload_header; /* lower case */
    const struct jwt_claim_header *claim_headers;
    unsigned claim_headers_n;
    sv payload_key, header_key, failed_key; /* of the dynamic metadata; empty: none */
    const sv *space_delimited;
    unsigned space_delimited_n;
};

/* msg: JwtProvider; *out in the ctx's arena. */
bool jwt_provider_compile(struct compile_ctx *ctx, sv name, const void *msg,
                          const struct jwks_remote_stats *stats, struct jwt_provider *out);
/* What can be told of a token without its signature, at now_ms (Unix). `audiences` NULL: the
 * provider's own. */
enum jwt_status jwt_provider_check(const struct jwt_provider *p, const struct jwt *t,
                                   uint64_t now_ms, const sv *audiences, unsigned audiences_n);
/* Payload and claims as request headers. */
void jwt_provider_forward(const struct jwt_provider *p, const struct jwt *t, struct headers *h);
/* The payload as it goes to the dynamic metadata. */
struct kv_value jwt_provider_payload(const struct jwt_provider *p, const struct jwt *t,
                                     struct arena *a);

/* Strings of a message, in the arena. Audiences have no scheme and no slash at their end. */
const sv *jwt_names(struct arena *a, const char *const *v, size_t n);
const sv *jwt_audiences(struct arena *a, const char *const *v, size_t n);

#endif
