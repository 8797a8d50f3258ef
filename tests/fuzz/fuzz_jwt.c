/* Hostile tokens and key sets: JSON Web Tokens as clients send them, JWKS as key servers answer.
 * Input: a token, a newline, a key set. Whatever parses is verified; a token without a signature
 * that fits must never pass. */
#include "filters/common/jwks.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

static void check_token(const struct jwt *t, sv token) {
    CHECK(t->signed_data.n < token.n && sv_starts(token, t->signed_data));
    CHECK(t->alg.n && !sv_eq_nocase(t->alg, SV("none")));
    CHECK(t->header.kind == KV_STRUCT && t->payload.kind == KV_STRUCT);
    (void)jwt_check_time(t, 1700000000, 60);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n) {
    struct arena a;
    struct jwt t = {0};
    enum jwt_status why = JWT_OK;
    sv rest = sv_from(data, n), token = sv_cut(&rest, '\n');
    arena_init(&a, 0);
    enum jwt_status status = jwt_parse(token, &a, &t);
    CHECK((unsigned)status < JWT_STATUS_N && jwt_status_text(status).n);
    if (status == JWT_OK) {
        check_token(&t, token);
    }
    struct jwks *keys = jwks_new(rest, &why);
    CHECK(keys ? jwks_count(keys) && jwks_count(keys) <= JWKS_KEYS_MAX : why != JWT_OK);
    if (keys && status == JWT_OK) {
        (void)jwks_verify(keys, &t);
    }
    jwks_unref(keys);
    arena_fini(&a);
    return 0;
}
