/* Tokens: three base64url parts, two JSON objects, a few registered claims.
 * Threads: any. Spec: RFC 7519 §7.2; see the header. */
#include "filters/common/jwt.h"

#include <jansson.h>
#include <math.h>

#include "proxy/base/base64.h"

sv jwt_status_text(enum jwt_status s) {
    static const sv texts[] = {
#define X(name, text) SV_INIT(text),
        JWT_STATUSES(X)
#undef X
    };
    return s < ARRAY_LEN(texts) ? texts[s] : SV_NULL;
}

sv jwt_base64url(sv text, struct arena *a) {
    char *out = arena_alloc(a, BASE64_DECODED_MAX(text.n) + 1);
    size_t n = base64_decode(text, BASE64_URL, out);
    return n == SIZE_MAX ? SV_NULL : sv_from(out, n);
}

/* --- JSON --- */

static bool value_of(const json_t *j, struct arena *a, unsigned depth, struct kv_value *out);

static bool object_of(const json_t *j, struct arena *a, unsigned depth, struct kv_value *out) {
    *out = kv_empty_struct();
    const char *key;
    size_t key_n;
    json_t *member;
    json_object_keylen_foreach((json_t *)(uintptr_t)j, key, key_n, member) {
        struct kv_value v;
        if (!value_of(member, a, depth + 1, &v)) {
            return false;
        }
        kv_set(out, a, sv_from(key, key_n), &v);
    }
    return true;
}

static bool list_of(const json_t *j, struct arena *a, unsigned depth, struct kv_value *out) {
    size_t n = json_array_size(j);
    *out = (struct kv_value){
        .kind = KV_LIST,
        .list = {.v = arena_new_array(a, struct kv_value, n ? n : 1), .n = (uint32_t)n}};
    for (size_t i = 0; i < n; i++) {
        if (!value_of(json_array_get(j, i), a, depth + 1, &out->list.v[i])) {
            return false;
        }
    }
    return true;
}

static bool value_of(const json_t *j, struct arena *a, unsigned depth, struct kv_value *out) {
    if (depth > JWT_JSON_DEPTH_MAX) {
        return false;
    }
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        return object_of(j, a, depth, out);
    case JSON_ARRAY:
        return list_of(j, a, depth, out);
    case JSON_STRING:
        *out = kv_string(arena_sv(a, sv_from(json_string_value(j), json_string_length(j))));
        return true;
    case JSON_INTEGER:
    case JSON_REAL:
        *out = kv_number(json_number_value(j));
        return true;
    case JSON_TRUE:
    case JSON_FALSE:
        *out = kv_bool(json_is_true(j));
        return true;
    case JSON_NULL:
        *out = kv_null();
        return true;
    }
    return false;
}

bool jwt_json_object(sv text, struct arena *a, struct kv_value *out) {
    json_error_t error;
    json_t *root = json_loadb(
        text.p, text.n, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &error);
    bool ok = root && json_is_object(root) && object_of(root, a, 1, out);
    json_decref(root);
    return ok;
}

/* --- claims --- */

/* False: it is there and no string. */
static bool string_claim(const struct kv_value *fields, sv name, sv *out) {
    const struct kv_value *v = kv_get(fields, name);
    *out = v && v->kind == KV_STRING ? v->s : SV_NULL;
    return !v || v->kind == KV_STRING;
}

/* Seconds; absent ones are 0. `wrong` is returned for what is no number, the status behind it for
 * numbers outside of a positive 64-bit integer. */
static enum jwt_status time_claim(const struct kv_value *fields, sv name, enum jwt_status wrong,
                                  uint64_t *out) {
    const struct kv_value *v = kv_get(fields, name);
    *out = 0;
    if (!v) {
        return JWT_OK;
    }
    if (v->kind != KV_NUMBER) {
        return wrong;
    }
    if (!(v->number >= 0 && v->number < 9223372036854775808.0)) {
        return wrong + 1;
    }
    *out = (uint64_t)v->number;
    return JWT_OK;
}

static bool audiences_of(struct jwt *t, struct arena *a) {
    const struct kv_value *v = kv_get(&t->payload, SV("aud"));
    if (!v) {
        return true;
    }
    if (v->kind == KV_STRING) {
        t->audiences = &v->s;
        t->audiences_n = 1;
        return true;
    }
    if (v->kind != KV_LIST) {
        return false;
    }
    sv *names = arena_new_array(a, sv, v->list.n ? v->list.n : 1);
    for (uint32_t i = 0; i < v->list.n; i++) {
        if (v->list.v[i].kind != KV_STRING) {
            return false;
        }
        names[i] = v->list.v[i].s;
    }
    t->audiences = names;
    t->audiences_n = v->list.n;
    return true;
}

static bool is_implemented(sv alg) {
    static const sv known[] = {
        SV_INIT("ES256"), SV_INIT("ES384"), SV_INIT("ES512"), SV_INIT("HS256"), SV_INIT("HS384"),
        SV_INIT("HS512"), SV_INIT("RS256"), SV_INIT("RS384"), SV_INIT("RS512"), SV_INIT("PS256"),
        SV_INIT("PS384"), SV_INIT("PS512"), SV_INIT("EdDSA")};
    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        if (sv_eq(alg, known[i])) {
            return true;
        }
    }
    return false;
}

static enum jwt_status parse_header(struct jwt *t, struct arena *a) {
    sv text = jwt_base64url(t->header_base64, a);
    if (!text.p) {
        return JWT_HEADER_BAD_BASE64;
    }
    if (!jwt_json_object(text, a, &t->header)) {
        return JWT_HEADER_BAD_JSON;
    }
    if (!string_claim(&t->header, SV("alg"), &t->alg) || !t->alg.p) {
        return JWT_HEADER_BAD_ALG;
    }
    if (!is_implemented(t->alg)) {
        return JWT_HEADER_UNKNOWN_ALG;
    }
    return string_claim(&t->header, SV("kid"), &t->kid) ? JWT_OK : JWT_HEADER_BAD_KID;
}

static enum jwt_status parse_claims(struct jwt *t, struct arena *a) {
    const struct kv_value *p = &t->payload;
    sv jti;
    uint64_t iat_s;
    if (!string_claim(p, SV("iss"), &t->iss)) {
        return JWT_ISS_NOT_STRING;
    }
    if (!string_claim(p, SV("sub"), &t->sub)) {
        return JWT_SUB_NOT_STRING;
    }
    enum jwt_status s = time_claim(p, SV("iat"), JWT_IAT_NOT_INTEGER, &iat_s);
    s = s == JWT_OK ? time_claim(p, SV("nbf"), JWT_NBF_NOT_INTEGER, &t->nbf_s) : s;
    s = s == JWT_OK ? time_claim(p, SV("exp"), JWT_EXP_NOT_INTEGER, &t->exp_s) : s;
    if (s != JWT_OK) {
        return s;
    }
    if (!string_claim(p, SV("jti"), &jti)) {
        return JWT_JTI_NOT_STRING;
    }
    return audiences_of(t, a) ? JWT_OK : JWT_AUD_NOT_STRING;
}

static enum jwt_status parse_payload(struct jwt *t, struct arena *a) {
    sv text = jwt_base64url(t->payload_base64, a);
    if (!text.p) {
        return JWT_PAYLOAD_BAD_BASE64;
    }
    if (!jwt_json_object(text, a, &t->payload)) {
        return JWT_PAYLOAD_BAD_JSON;
    }
    return parse_claims(t, a);
}

enum jwt_status jwt_parse(sv token, struct arena *a, struct jwt *out) {
    *out = (struct jwt){0};
    sv rest = token;
    out->header_base64 = sv_cut(&rest, '.');
    out->payload_base64 = sv_cut(&rest, '.');
    size_t dots_n = out->header_base64.n + 1 + out->payload_base64.n + 1;
    if (!out->header_base64.n || !out->payload_base64.n || !rest.n || dots_n + rest.n != token.n ||
        sv_find(rest, '.') != SIZE_MAX) {
        return JWT_BAD_FORMAT;
    }
    out->signed_data = sv_sub(token, 0, dots_n - 1);
    enum jwt_status s = parse_header(out, a);
    s = s == JWT_OK ? parse_payload(out, a) : s;
    if (s != JWT_OK) {
        return s;
    }
    out->signature = jwt_base64url(rest, a);
    return out->signature.p ? JWT_OK : JWT_SIGNATURE_BAD_BASE64;
}

enum jwt_status jwt_check_time(const struct jwt *t, uint64_t now_s, uint64_t skew_s) {
    if (now_s + skew_s < t->nbf_s) {
        return JWT_NOT_YET_VALID;
    }
    return t->exp_s && now_s > t->exp_s + skew_s ? JWT_EXPIRED : JWT_OK;
}
