/* See the header. */
#include "filters/common/jwt_provider.h"

#include <math.h>

#include "protos/gen/http_jwt_authn.pb-c.h"
#include "proxy/base/base64.h"

/* --- compile --- */

const sv *jwt_names(struct arena *a, const char *const *v, size_t n) {
    sv *out = arena_new_array(a, sv, n + 1);
    for (size_t i = 0; i < n; i++) {
        out[i] = arena_sv(a, sv_cstr(v[i]));
    }
    return out;
}

/* "https://a.test/" and "a.test" are one audience. */
static sv bare_audience(sv s) {
    if (!sv_eat(&s, SV("https://"))) {
        sv_eat(&s, SV("http://"));
    }
    return sv_ends(s, SV("/")) ? sv_sub(s, 0, s.n - 1) : s;
}

const sv *jwt_audiences(struct arena *a, const char *const *v, size_t n) {
    sv *out = arena_new_array(a, sv, n + 1);
    for (size_t i = 0; i < n; i++) {
        out[i] = bare_audience(arena_sv(a, sv_cstr(v[i])));
    }
    return out;
}

static sv lower(struct arena *a, const char *s) {
    char *p = arena_cstr(a, sv_cstr(s));
    for (char *c = p; *c; c++) {
        *c = ascii_tolower(*c);
    }
    return sv_cstr(p);
}

static void compile_places(struct compile_ctx *ctx, const HttpJwtAuthn__JwtProvider *m,
                           struct jwt_provider *p) {
    struct jwt_header_place *v =
        arena_new_array(ctx->arena, struct jwt_header_place, m->n_from_headers + 1);
    for (size_t i = 0; i < m->n_from_headers; i++) {
        v[i].name = lower(ctx->arena, m->from_headers[i]->name);
        v[i].prefix = arena_sv(ctx->arena, sv_cstr(m->from_headers[i]->value_prefix));
    }
    p->from_headers = v;
    p->from_headers_n = (unsigned)m->n_from_headers;
    p->from_params = jwt_names(ctx->arena, (const char *const *)m->from_params, m->n_from_params);
    p->from_params_n = (unsigned)m->n_from_params;
    p->from_cookies =
        jwt_names(ctx->arena, (const char *const *)m->from_cookies, m->n_from_cookies);
    p->from_cookies_n = (unsigned)m->n_from_cookies;
}

/* A claim's place: told in steps, or as a name with dots between them. */
static bool compile_claim(struct compile_ctx *ctx, const HttpJwtAuthn__JwtClaimToHeader *m,
                          struct jwt_claim_header *out) {
    out->header = lower(ctx->arena, m->header_name);
    if (m->n_claim_path && *m->claim_name) {
        return diag_error(ctx->diag, "only one of claim_name and claim_path may be set");
    }
    sv rest = arena_sv(ctx->arena, sv_cstr(m->claim_name));
    unsigned n = 1;
    for (size_t i = 0; i < rest.n; i++) {
        n += rest.p[i] == '.';
    }
    sv *path = arena_new_array(ctx->arena, sv, m->n_claim_path > n ? m->n_claim_path : n);
    for (size_t i = 0; i < m->n_claim_path; i++) {
        path[i] = arena_sv(ctx->arena, sv_cstr(m->claim_path[i]->key));
    }
    for (unsigned i = 0; !m->n_claim_path && i < n; i++) {
        path[i] = sv_cut(&rest, '.');
    }
    out->path = path;
    out->path_n = m->n_claim_path ? (unsigned)m->n_claim_path : n;
    return (m->n_claim_path || *m->claim_name) ||
           diag_error(ctx->diag, "one of claim_name and claim_path must be set");
}

static void compile_claims(struct compile_ctx *ctx, const HttpJwtAuthn__JwtProvider *m,
                           struct jwt_provider *p) {
    struct jwt_claim_header *v =
        arena_new_array(ctx->arena, struct jwt_claim_header, m->n_claim_to_headers + 1);
    for (size_t i = 0; i < m->n_claim_to_headers; i++) {
        DIAG_FIELD(ctx->diag, "claim_to_headers[%zu]", i);
        compile_claim(ctx, m->claim_to_headers[i], &v[i]);
    }
    p->claim_headers = v;
    p->claim_headers_n = (unsigned)m->n_claim_to_headers;
}

static void release_keys(void *keys) { jwks_unref(keys); }

static void compile_local(struct compile_ctx *ctx, const void *source, struct jwt_provider *p) {
    DIAG_FIELD(ctx->diag, "local_jwks");
    sv text;
    enum jwt_status why;
    if (!compile_data_source(ctx, source, &text)) {
        return;
    }
    p->local = jwks_new(text, &why);
    if (!p->local) {
        diag_error(ctx->diag, "Provider '%.*s' in jwt_authn config has invalid local jwks: %.*s",
                   SV_ARG(p->name), SV_ARG(jwt_status_text(why)));
        return;
    }
    arena_on_fini(ctx->arena, release_keys, p->local);
}

static void compile_keys(struct compile_ctx *ctx, const HttpJwtAuthn__JwtProvider *m,
                         const struct jwks_remote_stats *stats, struct jwt_provider *p) {
    switch (m->jwks_source_specifier_case) {
    case HTTP_JWT_AUTHN__JWT_PROVIDER__JWKS_SOURCE_SPECIFIER_LOCAL_JWKS:
        compile_local(ctx, m->local_jwks, p);
        return;
    case HTTP_JWT_AUTHN__JWT_PROVIDER__JWKS_SOURCE_SPECIFIER_REMOTE_JWKS: {
        DIAG_FIELD(ctx->diag, "remote_jwks");
        p->remote = jwks_remote_compile(ctx, m->remote_jwks, stats);
        return;
    }
    default:
        diag_error(ctx->diag, "jwks_source_specifier: value is required");
    }
}

static void compile_demands(struct compile_ctx *ctx, const HttpJwtAuthn__JwtProvider *m,
                            struct jwt_provider *p) {
    struct arena *a = ctx->arena;
    p->issuer = arena_sv(a, sv_cstr(m->issuer));
    p->audiences = jwt_audiences(a, (const char *const *)m->audiences, m->n_audiences);
    p->audiences_n = (unsigned)m->n_audiences;
    p->clock_skew_s = m->clock_skew_seconds ? m->clock_skew_seconds : JWT_CLOCK_SKEW_S;
    p->wants_expiration = m->require_expiration || m->max_lifetime;
    p->lifetime_max_ms = UINT64_MAX;
    if (m->max_lifetime) {
        uint32_t ms = 0;
        DIAG_FIELD(ctx->diag, "max_lifetime");
        compile_duration_ms(ctx, m->max_lifetime, 0, &ms);
        p->lifetime_max_ms = ms;
    }
    if (m->subjects) {
        DIAG_FIELD(ctx->diag, "subjects");
        p->has_subjects = string_matcher_compile(ctx, m->subjects, &p->subjects);
    }
}

bool jwt_provider_compile(struct compile_ctx *ctx, sv name, const void *msg,
                          const struct jwks_remote_stats *stats, struct jwt_provider *p) {
    const HttpJwtAuthn__JwtProvider *m = msg;
    struct arena *a = ctx->arena;
    unsigned before = diag_errors(ctx->diag);
    p->name = arena_sv(a, name);
    compile_demands(ctx, m, p);
    compile_places(ctx, m, p);
    compile_claims(ctx, m, p);
    compile_keys(ctx, m, stats, p);
    p->cache = m->jwt_cache_config ? jwt_cache_compile(ctx, m->jwt_cache_config) : NULL;
    p->forwards = m->forward;
    p->pads_payload = m->pad_forward_payload_header;
    p->clears_route_cache = m->clear_route_cache;
    p->forward_payload_header = lower(a, m->forward_payload_header);
    p->payload_key = arena_sv(a, sv_cstr(m->payload_in_metadata));
    p->header_key = arena_sv(a, sv_cstr(m->header_in_metadata));
    p->failed_key = arena_sv(a, sv_cstr(m->failed_status_in_metadata));
    if (m->normalize_payload_in_metadata) {
        const HttpJwtAuthn__JwtProvider__NormalizePayload *n = m->normalize_payload_in_metadata;
        p->space_delimited = jwt_names(a, (const char *const *)n->space_delimited_claims,
                                       n->n_space_delimited_claims);
        p->space_delimited_n = (unsigned)n->n_space_delimited_claims;
    }
    return diag_errors(ctx->diag) == before;
}

/* --- tokens --- */

static bool audience_allowed(const sv *allowed, unsigned n, const struct jwt *t) {
    for (uint32_t i = 0; i < t->audiences_n; i++) {
        sv audience = bare_audience(t->audiences[i]);
        for (unsigned k = 0; k < n; k++) {
            if (sv_eq(allowed[k], audience)) {
                return true;
            }
        }
    }
    return n == 0;
}

static bool lifetime_allowed(const struct jwt_provider *p, const struct jwt *t, uint64_t now_ms) {
    if (!p->wants_expiration) {
        return true;
    }
    if (!t->exp_s) {
        return false;
    }
    return p->lifetime_max_ms == UINT64_MAX ||
           (double)t->exp_s * 1000.0 - (double)now_ms < (double)p->lifetime_max_ms;
}

enum jwt_status jwt_provider_check(const struct jwt_provider *p, const struct jwt *t,
                                   uint64_t now_ms, const sv *audiences, unsigned audiences_n) {
    if (p->has_subjects && !string_matcher_match(&p->subjects, t->sub)) {
        return JWT_VERIFICATION_FAIL;
    }
    enum jwt_status s = jwt_check_time(t, now_ms / 1000, p->clock_skew_s);
    if (s != JWT_OK) {
        return s;
    }
    if (!lifetime_allowed(p, t, now_ms)) {
        return JWT_VERIFICATION_FAIL;
    }
    bool ok = audiences ? audience_allowed(audiences, audiences_n, t)
                        : audience_allowed(p->audiences, p->audiences_n, t);
    return ok ? JWT_OK : JWT_AUDIENCE_NOT_ALLOWED;
}

/* --- what is passed on --- */

static sv flat(struct buf *b, struct arena *a) { return arena_sv(a, buf_pullup(b, buf_len(b))); }

/* Whole numbers without a point, others with six digits behind it. Lists and objects as JSON in
 * base64. */
static sv claim_text(const struct kv_value *v, struct arena *a) {
    if (v->kind == KV_STRING) {
        return v->s;
    }
    if (v->kind == KV_BOOL) {
        return v->b ? SV("true") : SV("false");
    }
    if (v->kind == KV_NUMBER) {
        bool is_whole =
            v->number >= 0 && v->number < 18446744073709551616.0 && v->number == floor(v->number);
        return is_whole ? arena_printf(a, "%llu", (unsigned long long)v->number)
                        : arena_printf(a, "%f", v->number);
    }
    if (v->kind == KV_NULL) {
        return SV_NULL;
    }
    struct buf json, text;
    buf_init(&json);
    buf_init(&text);
    kv_write_json(v, &json);
    base64_encode(&text, buf_pullup(&json, buf_len(&json)), BASE64_URL);
    sv out = flat(&text, a);
    buf_fini(&json);
    buf_fini(&text);
    return out;
}

static const struct kv_value *claim_at(const struct kv_value *v, const sv *path, unsigned n) {
    for (unsigned i = 0; i < n && v; i++) {
        v = v->kind == KV_STRUCT ? kv_get(v, path[i]) : NULL;
    }
    return v;
}

void jwt_provider_forward(const struct jwt_provider *p, const struct jwt *t, struct headers *h) {
    if (p->forward_payload_header.n) {
        unsigned padding = p->pads_payload ? (4 - t->payload_base64.n % 4) % 4 : 0;
        headers_add_copy(
            h, p->forward_payload_header,
            arena_printf(h->arena, "%.*s%.*s", SV_ARG(t->payload_base64), (int)padding, "==="));
    }
    for (unsigned i = 0; i < p->claim_headers_n; i++) {
        const struct jwt_claim_header *c = &p->claim_headers[i];
        const struct kv_value *v = claim_at(&t->payload, c->path, c->path_n);
        sv text = v ? claim_text(v, h->arena) : SV_NULL;
        if (text.n && header_value_valid(text)) {
            headers_add_copy(h, c->header, text);
        }
    }
}

static struct kv_value words_of(sv text, struct arena *a) {
    struct kv_value list = {.kind = KV_LIST};
    list.list.v = arena_new_array(a, struct kv_value, text.n / 2 + 1);
    while (text.n) {
        sv word = sv_cut(&text, ' ');
        if (word.n) {
            list.list.v[list.list.n++] = kv_string(word);
        }
    }
    return list;
}

struct kv_value jwt_provider_payload(const struct jwt_provider *p, const struct jwt *t,
                                     struct arena *a) {
    if (!p->space_delimited_n) {
        return t->payload;
    }
    struct kv_value out = kv_copy(&t->payload, a);
    for (unsigned i = 0; i < p->space_delimited_n; i++) {
        const struct kv_value *v = kv_get(&out, p->space_delimited[i]);
        if (v && v->kind == KV_STRING) {
            struct kv_value words = words_of(v->s, a);
            kv_set(&out, a, p->space_delimited[i], &words);
        }
    }
    return out;
}
