/* JSON Web Tokens: parsing of the compact form and checks of its times.
 * Threads: any; a token belongs to its arena's owner.
 * Spec: RFC 7519, RFC 7515 §3.1, RFC 8259; statuses, their texts and numbers are Envoy's.
 * Not here: signatures (filters/common/jwks.h). */
#ifndef SLUICE_FILTERS_COMMON_JWT_H
#define SLUICE_FILTERS_COMMON_JWT_H

#include "proxy/api/http_filter.h"

/* What may be wrong with a token or with a key set, in Envoy's order: the position is the number
 * that failed_status_in_metadata tells. */
#define JWT_STATUSES(X)                                                                  \
    X(OK, "OK")                                                                          \
    X(MISSED, "Jwt is missing")                                                          \
    X(NOT_YET_VALID, "Jwt not yet valid")                                                \
    X(EXPIRED, "Jwt is expired")                                                         \
    X(BAD_FORMAT,                                                                        \
      "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections") \
    X(HEADER_BAD_BASE64, "Jwt header is an invalid Base64url encoded")                   \
    X(HEADER_BAD_JSON, "Jwt header is an invalid JSON")                                  \
    X(HEADER_BAD_ALG, "Jwt header [alg] field is required and must be a string")         \
    X(HEADER_UNKNOWN_ALG, "Jwt header [alg] is not supported")                           \
    X(HEADER_BAD_KID, "Jwt header [kid] field is not a string")                          \
    X(PAYLOAD_BAD_BASE64, "Jwt payload is an invalid Base64url encoded")                 \
    X(PAYLOAD_BAD_JSON, "Jwt payload is an invalid JSON")                                \
    X(ISS_NOT_STRING, "Jwt payload [iss] field is not a string")                         \
    X(SUB_NOT_STRING, "Jwt payload [sub] field is not a string")                         \
    X(IAT_NOT_INTEGER, "Jwt payload [iat] field is not an integer")                      \
    X(IAT_OUT_OF_RANGE, "Jwt payload [iat] field is not a positive 64 bit integer")      \
    X(NBF_NOT_INTEGER, "Jwt payload [nbf] field is not an integer")                      \
    X(NBF_OUT_OF_RANGE, "Jwt payload [nbf] field is not a positive 64 bit integer")      \
    X(EXP_NOT_INTEGER, "Jwt payload [exp] field is not an integer")                      \
    X(EXP_OUT_OF_RANGE, "Jwt payload [exp] field is not a positive 64 bit integer")      \
    X(JTI_NOT_STRING, "Jwt payload [jti] field is not a string")                         \
    X(AUD_NOT_STRING, "Jwt payload [aud] field is not a string or string list")          \
    X(SIGNATURE_BAD_BASE64, "Jwt signature is an invalid Base64url encoded")             \
    X(ED25519_WRONG_LENGTH, "Jwt ED25519 signature is wrong length")                     \
    X(UNKNOWN_ISSUER, "Jwt issuer is not configured")                                    \
    X(AUDIENCE_NOT_ALLOWED, "Audiences in Jwt are not allowed")                          \
    X(VERIFICATION_FAIL, "Jwt verification fails")                                       \
    X(MULTIPLE_TOKENS, "Found multiple Jwt tokens")                                      \
    X(JWKS_PARSE_ERROR, "Jwks is an invalid JSON")                                       \
    X(JWKS_NO_KEYS, "Jwks does not have [keys] field")                                   \
    X(JWKS_BAD_KEYS, "[keys] in Jwks is not an array")                                   \
    X(JWKS_NO_VALID_KEYS, "Jwks doesn't have any valid public key")                      \
    X(JWKS_KID_ALG_MISMATCH, "Jwks doesn't have key to match kid or alg from Jwt")       \
    X(JWKS_FETCH_FAIL, "Jwks remote fetch is failed")
enum jwt_status {
#define X(name, text) JWT_##name,
    JWT_STATUSES(X)
#undef X
        JWT_STATUS_N
};
sv jwt_status_text(enum jwt_status s); /* static */

#define JWT_JSON_DEPTH_MAX 100 /* of a header, payload or key set: deeper ones are no valid JSON */

/* Views and trees live in the arena it was parsed into; the encoded parts are views of the token
 * given. */
struct jwt {
    sv header_base64, payload_base64;
    sv signed_data; /* "header.payload" */
    sv signature;   /* decoded */
    sv alg, kid, iss, sub;
    const sv *audiences;
    uint32_t audiences_n;
    uint64_t nbf_s, exp_s;           /* 0: not told, or epoch itself */
    struct kv_value header, payload; /* structs */
};

/* `token` must outlive *out. Anything but JWT_OK leaves *out half filled. */
enum jwt_status jwt_parse(sv token, struct arena *a, struct jwt *out);
/* Against now (Unix seconds), with `skew_s` of tolerance each way. */
enum jwt_status jwt_check_time(const struct jwt *t, uint64_t now_s, uint64_t skew_s);

/* JSON text of an object as a tree in `a`. False: malformed, no object, nested too deep, or with a
 * key that comes twice. */
bool jwt_json_object(sv text, struct arena *a, struct kv_value *out);
/* URL-safe base64 as Envoy takes it: padding is optional. p NULL: malformed. */
sv jwt_base64url(sv text, struct arena *a);

#endif
