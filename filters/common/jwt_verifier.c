/* See the header. A run that waits for keys keeps what its leaves found so far; when the keys come
 * the tree is walked anew, past the leaves that are done. */
#include "filters/common/jwt_verifier.h"

#include "protos/gen/http_jwt_authn.pb-c.h"

enum requirement_kind {
    REQUIRE_NOTHING,
    REQUIRE_PROVIDER,
    REQUIRE_ANY,
    REQUIRE_ALL,
    ALLOW_MISSING,
    ALLOW_MISSING_OR_FAILED,
};
struct requirement {
    enum requirement_kind kind;
    const struct requirement *v; /* of any and all */
    unsigned n;
    enum requirement_kind forgives; /* of any: ALLOW_MISSING…; REQUIRE_NOTHING: no failure */
    /* leaves */
    unsigned leaf; /* index */
    const struct jwt_provider *provider;
    const struct jwt_extractor *extractor;
    const sv *audiences; /* NULL: the provider's */
    unsigned audiences_n;
};
struct jwt_verifier {
    struct requirement root;
    unsigned leaves_n;
};

struct compile {
    struct compile_ctx *ctx;
    const struct jwt_providers *providers;
    struct jwt_verifier *verifier;
    unsigned depth;
};

/* --- compile --- */

static const struct jwt_provider *find_provider(struct compile *c, const char *name) {
    for (unsigned i = 0; i < c->providers->n; i++) {
        if (sv_is(c->providers->v[i].name, name)) {
            return &c->providers->v[i];
        }
    }
    diag_error(c->ctx->diag, "Required provider ['%s'] is not configured.", name);
    return NULL;
}

static bool leaf_of(struct compile *c, const struct jwt_provider *const *providers, unsigned n,
                    struct requirement *r) {
    r->extractor = jwt_extractor_compile(c->ctx->arena, providers, n);
    r->leaf = c->verifier->leaves_n++;
    return r->leaf < JWT_LEAVES_MAX ||
           diag_error(c->ctx->diag, "more than %u providers required", JWT_LEAVES_MAX);
}

static bool compile_provider(struct compile *c, const char *name, const char *const *audiences,
                             size_t n, struct requirement *r) {
    r->kind = REQUIRE_PROVIDER;
    r->provider = find_provider(c, name);
    if (n) {
        r->audiences = jwt_audiences(c->ctx->arena, audiences, n);
        r->audiences_n = (unsigned)n;
    }
    return r->provider && leaf_of(c, &r->provider, 1, r);
}

static bool is_bypass(const HttpJwtAuthn__JwtRequirement *m) {
    return m->requires_type_case == HTTP_JWT_AUTHN__JWT_REQUIREMENT__REQUIRES_TYPE_ALLOW_MISSING ||
           m->requires_type_case ==
               HTTP_JWT_AUTHN__JWT_REQUIREMENT__REQUIRES_TYPE_ALLOW_MISSING_OR_FAILED;
}

static enum requirement_kind bypass_kind(const HttpJwtAuthn__JwtRequirement *m) {
    return m->requires_type_case == HTTP_JWT_AUTHN__JWT_REQUIREMENT__REQUIRES_TYPE_ALLOW_MISSING
               ? ALLOW_MISSING
               : ALLOW_MISSING_OR_FAILED;
}

/* On its own: tokens of all providers are looked at. */
static bool compile_bypass(struct compile *c, const HttpJwtAuthn__JwtRequirement *m,
                           struct requirement *r) {
    const struct jwt_provider **v =
        arena_new_array(c->ctx->arena, const struct jwt_provider *, c->providers->n + 1);
    for (unsigned i = 0; i < c->providers->n; i++) {
        v[i] = &c->providers->v[i];
    }
    r->kind = bypass_kind(m);
    return leaf_of(c, v, c->providers->n, r);
}

static bool compile_one(struct compile *c, const HttpJwtAuthn__JwtRequirement *m,
                        struct requirement *r);

/* Beside others a bypass only forgives how they fail; the most generous one counts. */
static bool compile_any_of(struct compile *c, HttpJwtAuthn__JwtRequirement *const *v, size_t n,
                           struct requirement *r) {
    struct requirement *out = arena_new_array(c->ctx->arena, struct requirement, n + 1);
    const HttpJwtAuthn__JwtRequirement *bypass = NULL;
    bool ok = true;
    r->kind = REQUIRE_ANY;
    r->v = out;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(c->ctx->diag, "requires_any.requirements[%zu]", i);
        if (!is_bypass(v[i])) {
            ok = compile_one(c, v[i], &out[r->n++]) && ok;
        } else if (!bypass || bypass->requires_type_case ==
                                  HTTP_JWT_AUTHN__JWT_REQUIREMENT__REQUIRES_TYPE_ALLOW_MISSING) {
            bypass = v[i];
        }
    }
    if (bypass && !r->n) {
        return compile_bypass(c, bypass, r);
    }
    r->forgives = bypass ? bypass_kind(bypass) : REQUIRE_NOTHING;
    return ok;
}

static bool compile_all_of(struct compile *c, HttpJwtAuthn__JwtRequirement *const *v, size_t n,
                           struct requirement *r) {
    struct requirement *out = arena_new_array(c->ctx->arena, struct requirement, n + 1);
    bool ok = true;
    r->kind = REQUIRE_ALL;
    r->v = out;
    r->n = (unsigned)n;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(c->ctx->diag, "requires_all.requirements[%zu]", i);
        ok = compile_one(c, v[i], &out[i]) && ok;
    }
    return ok;
}

static bool compile_kind(struct compile *c, const HttpJwtAuthn__JwtRequirement *m,
                         struct requirement *r) {
    switch (m->requires_type_case) {
    case HTTP_JWT_AUTHN__JWT_REQUIREMENT__REQUIRES_TYPE_PROVIDER_NAME:
        return compile_provider(c, m->provider_name, NULL, 0, r);
    case HTTP_JWT_AUTHN__JWT_REQUIREMENT__REQUIRES_TYPE_PROVIDER_AND_AUDIENCES:
        return compile_provider(c, m->provider_and_audiences->provider_name,
                                (const char *const *)m->provider_and_audiences->audiences,
                                m->provider_and_audiences->n_audiences, r);
    case HTTP_JWT_AUTHN__JWT_REQUIREMENT__REQUIRES_TYPE_REQUIRES_ANY:
        return compile_any_of(c, m->requires_any->requirements, m->requires_any->n_requirements, r);
    case HTTP_JWT_AUTHN__JWT_REQUIREMENT__REQUIRES_TYPE_REQUIRES_ALL:
        return compile_all_of(c, m->requires_all->requirements, m->requires_all->n_requirements, r);
    case HTTP_JWT_AUTHN__JWT_REQUIREMENT__REQUIRES_TYPE_ALLOW_MISSING:
    case HTTP_JWT_AUTHN__JWT_REQUIREMENT__REQUIRES_TYPE_ALLOW_MISSING_OR_FAILED:
        return compile_bypass(c, m, r);
    case HTTP_JWT_AUTHN__JWT_REQUIREMENT__REQUIRES_TYPE__NOT_SET:
        return true;
    default:
        return diag_error(c->ctx->diag, "extract_only_without_validation: not supported");
    }
}

static bool compile_one(struct compile *c, const HttpJwtAuthn__JwtRequirement *m,
                        struct requirement *r) {
    if (c->depth >= JWT_REQUIREMENT_DEPTH_MAX) {
        return diag_error(c->ctx->diag, "requirements nested deeper than %u",
                          JWT_REQUIREMENT_DEPTH_MAX);
    }
    c->depth++;
    bool ok = compile_kind(c, m, r);
    c->depth--;
    return ok;
}

const struct jwt_verifier *jwt_verifier_compile(struct compile_ctx *ctx, const void *msg,
                                                const struct jwt_providers *providers) {
    struct compile c = {ctx, providers, arena_new(ctx->arena, struct jwt_verifier), 0};
    return !msg || compile_one(&c, msg, &c.verifier->root) ? c.verifier : NULL;
}

/* --- a request --- */

struct jwt_leaf_run {
    bool is_started, is_done, is_parsed;
    enum jwt_status status;
    struct jwt_token *tokens; /* the last one is looked at first */
    unsigned left;
    struct jwt parsed; /* of the token at hand, while its keys are awaited */
    const struct jwt *jwt;
    const struct jwt_provider *provider;
};

enum { PENDING = JWT_STATUS_N }; /* beside enum jwt_status */

/* The provider of an issuer, else the first that takes any. */
static const struct jwt_provider *by_issuer(const struct jwt_providers *ps, sv issuer) {
    const struct jwt_provider *any = NULL;
    for (unsigned i = 0; i < ps->n; i++) {
        if (sv_eq(ps->v[i].issuer, issuer)) {
            return &ps->v[i];
        }
        any = any || ps->v[i].issuer.n ? any : &ps->v[i];
    }
    return any;
}

static void on_keys(struct jwks_wait *w, const struct jwks *keys);

/* The provider's keys; PENDING: they are awaited, JWT_JWKS_FETCH_FAIL: there are none. */
static int find_keys(struct jwt_run *r, const struct jwt_provider *p, const struct jwks **keys) {
    *keys = p->local;
    if (p->local) {
        return JWT_OK;
    }
    if (r->has_answer_) {
        *keys = r->keys_;
        r->has_answer_ = false;
        return *keys ? JWT_OK : JWT_JWKS_FETCH_FAIL;
    }
    r->wait_.on_done = on_keys;
    switch (jwks_remote_get(p->remote, r->worker, &r->wait_, keys)) {
    case JWKS_REMOTE_READY:
        return JWT_OK;
    case JWKS_REMOTE_WAITING:
        return PENDING;
    case JWKS_REMOTE_OVERFLOW:
        break;
    }
    return JWT_JWKS_FETCH_FAIL;
}

/* Headers and metadata of a token that is good. */
static void pass_on(struct jwt_run *r, const struct jwt_leaf_run *l, const struct jwt_token *t) {
    const struct jwt_provider *p = l->provider;
    jwt_provider_forward(p, l->jwt, r->headers);
    if (!p->forwards) {
        jwt_location_remove(t->location, r->headers);
    }
    if (p->header_key.n) {
        kv_set(&r->extracted, r->arena, p->header_key, &l->jwt->header);
    }
    if (p->payload_key.n) {
        struct kv_value payload = jwt_provider_payload(p, l->jwt, r->arena);
        kv_set(&r->extracted, r->arena, p->payload_key, &payload);
    }
    r->clears_route_cache |= p->clears_route_cache;
}

/* Parsed, or found in the cache (*is_cached). */
static enum jwt_status read_token(struct jwt_run *r, const struct requirement *q,
                                  struct jwt_leaf_run *l, sv text, bool *is_cached) {
    const struct jwt_provider *p = q->provider;
    p = p || r->providers->n != 1 ? p : &r->providers->v[0];
    l->jwt = p && p->cache
                 ? jwt_cache_find(p->cache, r->thread, text, r->now_ms / 1000, p->clock_skew_s)
                 : NULL;
    *is_cached = l->jwt != NULL;
    if (p) {
        stats_inc(r->stats, *is_cached ? JWT_AUTHN_jwt_cache_hit : JWT_AUTHN_jwt_cache_miss);
    }
    l->provider = q->provider ? q->provider : l->provider; /* else the last token's, for now */
    if (*is_cached) {
        return JWT_OK;
    }
    l->jwt = &l->parsed;
    return jwt_parse(text, r->arena, &l->parsed);
}

/* Everything but the signature. */
static enum jwt_status check_claims(struct jwt_run *r, const struct requirement *q,
                                    struct jwt_leaf_run *l, const struct jwt_token *t,
                                    bool *is_cached) {
    enum jwt_status s = read_token(r, q, l, t->text, is_cached);
    if (s != JWT_OK) {
        return s;
    }
    if (!jwt_location_allows(t->location, l->jwt->iss)) {
        return JWT_UNKNOWN_ISSUER;
    }
    if (!q->provider) {
        l->provider = by_issuer(r->providers, l->jwt->iss);
    }
    if (!l->provider) {
        return JWT_UNKNOWN_ISSUER;
    }
    return jwt_provider_check(l->provider, l->jwt, r->now_ms, q->audiences, q->audiences_n);
}

static int verify_token(struct jwt_run *r, const struct requirement *q, struct jwt_leaf_run *l,
                        const struct jwt_token *t) {
    bool is_cached = false;
    if (!l->is_parsed) {
        enum jwt_status s = check_claims(r, q, l, t, &is_cached);
        if (s != JWT_OK) {
            return s;
        }
    }
    if (!is_cached) {
        const struct jwks *keys;
        int s = find_keys(r, l->provider, &keys);
        l->is_parsed = s == PENDING;
        s = s == JWT_OK ? (int)jwks_verify(keys, l->jwt) : s;
        if (s != JWT_OK) {
            return s;
        }
    }
    pass_on(r, l, t);
    if (!is_cached && l->provider->cache) {
        jwt_cache_add(l->provider->cache, r->thread, t->text);
    }
    return JWT_OK;
}

static void tell_failure(struct jwt_run *r, const struct jwt_provider *p, enum jwt_status s) {
    if (s == JWT_OK || s == JWT_MISSED || !p || !p->failed_key.n) {
        return;
    }
    struct kv_value v = kv_empty_struct();
    struct kv_value code = kv_number((double)s);
    struct kv_value message = kv_string(jwt_status_text(s));
    kv_set(&v, r->arena, SV("code"), &code);
    kv_set(&v, r->arena, SV("message"), &message);
    kv_set(&r->extracted, r->arena, p->failed_key, &v);
}

static enum jwt_status finish_leaf(const struct requirement *q, struct jwt_leaf_run *l,
                                   enum jwt_status s) {
    bool is_forgiven =
        q->kind == ALLOW_MISSING_OR_FAILED || (q->kind == ALLOW_MISSING && s == JWT_MISSED);
    l->is_done = true;
    l->status = is_forgiven ? JWT_OK : s;
    return l->status;
}

static enum jwt_status begin_leaf(struct jwt_run *r, const struct requirement *q,
                                  struct jwt_leaf_run *l) {
    l->is_started = true;
    l->tokens = arena_new_array(r->arena, struct jwt_token, JWT_TOKENS_MAX + 1);
    l->left = jwt_extract(q->extractor, r->headers, r->arena, l->tokens);
    return l->left > JWT_TOKENS_MAX ? JWT_MULTIPLE_TOKENS : l->left ? JWT_OK : JWT_MISSED;
}

/* All tokens of a leaf must be good, lest one that was not verified be taken for one that was. */
static int run_leaf(struct jwt_run *r, const struct requirement *q) {
    struct jwt_leaf_run *l = &r->leaves_[q->leaf];
    if (l->is_done) {
        return l->status;
    }
    int s = l->is_started ? JWT_OK : begin_leaf(r, q, l);
    const struct jwt_provider *p = q->provider;
    if (s != JWT_OK) {
        tell_failure(r, p, (enum jwt_status)s);
        return finish_leaf(q, l, (enum jwt_status)s);
    }
    while (l->left) {
        s = verify_token(r, q, l, &l->tokens[l->left - 1]);
        if (s == PENDING) {
            return PENDING;
        }
        l->left--;
        tell_failure(r, p ? p : l->provider, (enum jwt_status)s);
        if (s != JWT_OK && q->kind == REQUIRE_PROVIDER) {
            break;
        }
    }
    return finish_leaf(q, l, (enum jwt_status)s);
}

static int run(struct jwt_run *r, const struct requirement *q);

/* How much a failure tells: a missing token nothing, one from elsewhere little. */
static unsigned weight(int s) { return s == JWT_MISSED ? 0 : s == JWT_UNKNOWN_ISSUER ? 1 : 2; }

/* When none holds, the last of the failures that tell the most. */
static int run_any(struct jwt_run *r, const struct requirement *q) {
    int worst = JWT_MISSED;
    for (unsigned i = 0; i < q->n; i++) {
        int s = run(r, &q->v[i]);
        if (s == JWT_OK || s == PENDING) {
            return s;
        }
        worst = weight(s) >= weight(worst) ? s : worst;
    }
    bool is_forgiven = q->forgives == ALLOW_MISSING_OR_FAILED ||
                       (q->forgives == ALLOW_MISSING && worst == JWT_MISSED);
    return is_forgiven ? JWT_OK : worst;
}

static int run(struct jwt_run *r, const struct requirement *q) {
    int s = JWT_OK;
    switch (q->kind) {
    case REQUIRE_NOTHING:
        return JWT_OK;
    case REQUIRE_PROVIDER:
    case ALLOW_MISSING:
    case ALLOW_MISSING_OR_FAILED:
        return run_leaf(r, q);
    case REQUIRE_ANY:
        return run_any(r, q);
    case REQUIRE_ALL:
        for (unsigned i = 0; i < q->n && s == JWT_OK; i++) {
            s = run(r, &q->v[i]);
        }
        return s;
    }
    return JWT_VERIFICATION_FAIL;
}

static void on_keys(struct jwks_wait *w, const struct jwks *keys) {
    struct jwt_run *r = CONTAINER_OF(w, struct jwt_run, wait_);
    r->keys_ = keys;
    r->has_answer_ = true;
    int s = run(r, &r->verifier->root);
    r->keys_ = NULL;
    if (s != PENDING) {
        r->on_done(r, (enum jwt_status)s);
    }
}

bool jwt_run_start(struct jwt_run *r, enum jwt_status *out) {
    r->extracted = kv_empty_struct();
    r->leaves_ = arena_new_array(r->arena, struct jwt_leaf_run, r->verifier->leaves_n + 1);
    int s = run(r, &r->verifier->root);
    *out = (enum jwt_status)s;
    return s != PENDING;
}

void jwt_run_cancel(struct jwt_run *r) { jwks_remote_cancel(&r->wait_); }
