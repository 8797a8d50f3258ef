/* Where a route sends requests: weighted clusters, hash policies and mirrors.
 * Threads: config thread. Spec: config.route.v3.WeightedCluster, RouteAction.HashPolicy,
 * RouteAction.RequestMirrorPolicy. */
#include "protos/gen/route.pb-c.h"
#include "proxy/route/route_metadata.h"
#include "proxy/route/route_private.h"

/* --- weighted clusters --- */

static bool compile_mutations(struct route_compile *c,
                              const Route__WeightedCluster__ClusterWeight *m,
                              struct weighted_cluster *w) {
    struct compile_ctx *ctx = c->ctx;
    unsigned before = diag_errors(ctx->diag);
    {
        DIAG_FIELD(ctx->diag, "request_headers_to_add");
        w->request_mutations = header_mutations_compile(
            ctx, (const void *const *)m->request_headers_to_add, m->n_request_headers_to_add,
            m->request_headers_to_remove, m->n_request_headers_to_remove);
    }
    DIAG_FIELD(ctx->diag, "response_headers_to_add");
    w->response_mutations = header_mutations_compile(
        ctx, (const void *const *)m->response_headers_to_add, m->n_response_headers_to_add,
        m->response_headers_to_remove, m->n_response_headers_to_remove);
    return diag_errors(ctx->diag) == before;
}

static bool compile_weight_target(struct route_compile *c,
                                  const Route__WeightedCluster__ClusterWeight *m,
                                  struct weighted_cluster *w) {
    struct compile_ctx *ctx = c->ctx;
    w->cluster = SLOT_NONE;
    if (m->name[0] && m->cluster_header[0]) {
        return diag_error(ctx->diag, "Only one of name or cluster_header can be specified");
    }
    if (!m->name[0] && !m->cluster_header[0]) {
        return diag_error(ctx->diag, "At least one of name or cluster_header need to be specified");
    }
    if (m->cluster_header[0]) {
        w->cluster_header = route_lower(ctx->arena, m->cluster_header);
        w->cluster_header_id = header_id_of(w->cluster_header);
        return true;
    }
    w->cluster_name = arena_sv(ctx->arena, sv_cstr(m->name));
    w->cluster = compile_cluster_ref(ctx, w->cluster_name, c->must_exist);
    return w->cluster != SLOT_NONE;
}

static bool compile_weight(struct route_compile *c, const Route__WeightedCluster__ClusterWeight *m,
                           sv runtime_prefix, const struct route_entry *r,
                           struct weighted_cluster *w) {
    struct compile_ctx *ctx = c->ctx;
    bool ok = compile_weight_target(c, m, w);
    if (m->weight) {
        w->weight = m->weight->value;
    } else {
        ok = diag_error(ctx->diag, "weight: value is required");
    }
    if (runtime_prefix.n) {
        w->runtime_key = arena_printf(ctx->arena, "%.*s.%s", SV_ARG(runtime_prefix), m->name);
    }
    if (m->host_rewrite_specifier_case ==
        ROUTE__WEIGHTED_CLUSTER__CLUSTER_WEIGHT__HOST_REWRITE_SPECIFIER_HOST_REWRITE_LITERAL) {
        w->host_rewrite = arena_sv(ctx->arena, sv_cstr(m->host_rewrite_literal));
    }
    w->metadata_match =
        m->metadata_match ? route_metadata_match(ctx, m->metadata_match, r->metadata_match) : NULL;
    ok &= compile_mutations(c, m, w);
    DIAG_FIELD(ctx->diag, "typed_per_filter_config");
    return ok & route_compile_overrides(ctx, (const void *const *)m->typed_per_filter_config,
                                        m->n_typed_per_filter_config, &w->overrides);
}

static bool compile_random_source(struct route_compile *c, const Route__WeightedCluster *m,
                                  struct route_weighted *w) {
    switch (m->random_value_specifier_case) {
    case ROUTE__WEIGHTED_CLUSTER__RANDOM_VALUE_SPECIFIER__NOT_SET:
        return true;
    case ROUTE__WEIGHTED_CLUSTER__RANDOM_VALUE_SPECIFIER_HEADER_NAME:
        w->random_value_header = route_lower(c->ctx->arena, m->header_name);
        return true;
    case ROUTE__WEIGHTED_CLUSTER__RANDOM_VALUE_SPECIFIER_USE_HASH_POLICY:
        w->use_hash = m->use_hash_policy->value;
        return true;
    default:
        return diag_error(c->ctx->diag, "unknown random value specifier");
    }
}

bool route_compile_weighted(struct route_compile *c, const void *weighted_msg,
                            struct route_entry *r) {
    const Route__WeightedCluster *m = (const Route__WeightedCluster *)weighted_msg;
    struct compile_ctx *ctx = c->ctx;
    DIAG_FIELD(ctx->diag, "weighted_clusters");
    struct weighted_cluster *v =
        arena_new_array(ctx->arena, struct weighted_cluster, m->n_clusters);
    struct route_weighted *w = arena_new(ctx->arena, struct route_weighted);
    r->weighted = w;
    bool ok = compile_random_source(c, m, w);
    for (size_t i = 0; i < m->n_clusters; i++) {
        DIAG_FIELD(ctx->diag, "clusters[%zu]", i);
        ok &= compile_weight(c, m->clusters[i], sv_cstr(m->runtime_key_prefix), r, &v[i]);
        w->total += v[i].weight;
    }
    w->v = v;
    w->n = (unsigned)m->n_clusters;
    if (!ok) {
        return false;
    }
    if (w->total > UINT32_MAX) {
        return diag_error(ctx->diag,
                          "The sum of weights of all weighted clusters of route %.*s exceeds %u",
                          SV_ARG(r->name), UINT32_MAX);
    }
    if (w->total == 0) {
        return diag_error(ctx->diag,
                          "Sum of weights in the weighted_cluster must be greater than 0.");
    }
    return true;
}

/* --- hash policies --- */

static bool hash_header(struct compile_ctx *ctx, const Route__RouteAction__HashPolicy__Header *m,
                        struct hash_policy *h) {
    h->source = HASH_HEADER;
    h->name = route_lower(ctx->arena, m->header_name);
    h->header_id = header_id_of(h->name);
    if (h->header_id == HDR_host) {
        h->header_id = HDR_authority;
        h->name = SV(":authority");
    }
    if (!m->regex_rewrite) {
        return true;
    }
    DIAG_FIELD(ctx->diag, "header.regex_rewrite");
    struct regex_rewrite rewrite;
    if (!route_compile_regex_rewrite(ctx, m->regex_rewrite, &rewrite)) {
        return false;
    }
    h->rewrite = rewrite.regex;
    h->substitution = rewrite.substitution;
    return true;
}

static bool hash_cookie(struct compile_ctx *ctx, const Route__RouteAction__HashPolicy__Cookie *m,
                        struct hash_policy *h) {
    h->source = HASH_COOKIE;
    h->name = arena_sv(ctx->arena, sv_cstr(m->name));
    h->cookie_path = arena_sv(ctx->arena, sv_cstr(m->path));
    if (m->ttl) {
        if (m->ttl->seconds < 0 || m->ttl->nanos < 0) {
            return diag_error(ctx->diag, "cookie.ttl: value must be greater than or equal to 0s");
        }
        h->generate_cookie = true;
        h->cookie_ttl_s = m->ttl->seconds < UINT32_MAX ? (uint32_t)m->ttl->seconds : UINT32_MAX;
    }
    for (size_t i = 0; i < m->n_attributes; i++) {
        const Route__RouteAction__HashPolicy__CookieAttribute *a = m->attributes[i];
        h->cookie_attributes =
            a->value[0]
                ? arena_printf(ctx->arena, "%.*s; %s=%s", SV_ARG(h->cookie_attributes), a->name,
                               a->value)
                : arena_printf(ctx->arena, "%.*s; %s", SV_ARG(h->cookie_attributes), a->name);
    }
    return true;
}

/* *used: the policy looks at something. */
static bool compile_hash(struct compile_ctx *ctx, const Route__RouteAction__HashPolicy *m,
                         struct hash_policy *h, bool *used) {
    *used = true;
    h->is_terminal = m->terminal;
    switch (m->policy_specifier_case) {
    case ROUTE__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_HEADER:
        return hash_header(ctx, m->header, h);
    case ROUTE__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_COOKIE:
        return hash_cookie(ctx, m->cookie, h);
    case ROUTE__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_CONNECTION_PROPERTIES:
        h->source = HASH_SOURCE_IP;
        *used = m->connection_properties->source_ip;
        return true;
    case ROUTE__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_QUERY_PARAMETER:
        h->source = HASH_QUERY;
        h->name = arena_sv(ctx->arena, sv_cstr(m->query_parameter->name));
        return true;
    case ROUTE__ROUTE_ACTION__HASH_POLICY__POLICY_SPECIFIER_FILTER_STATE:
        h->source = HASH_FILTER_STATE;
        h->name = arena_sv(ctx->arena, sv_cstr(m->filter_state->key));
        return true;
    default:
        return diag_error(ctx->diag, "policy_specifier: value is required");
    }
}

bool route_compile_hash(struct route_compile *c, const void *action_msg, struct route_entry *r) {
    const Route__RouteAction *m = (const Route__RouteAction *)action_msg;
    if (m->n_hash_policy == 0) {
        return true;
    }
    struct hash_policy *v = arena_new_array(c->ctx->arena, struct hash_policy, m->n_hash_policy);
    bool ok = true;
    unsigned n = 0;
    for (size_t i = 0; i < m->n_hash_policy; i++) {
        DIAG_FIELD(c->ctx->diag, "hash_policy[%zu]", i);
        bool used = false;
        ok &= compile_hash(c->ctx, m->hash_policy[i], &v[n], &used);
        if (used) {
            n++;
        } else {
            v[n] = (struct hash_policy){.source = HASH_HEADER};
        }
    }
    struct route_extra *x = route_own_extra(c, r);
    x->hash = v;
    x->hash_n = n;
    return ok;
}

/* --- mirrors --- */

static bool compile_mirror_target(struct route_compile *c,
                                  const Route__RouteAction__RequestMirrorPolicy *m,
                                  struct mirror_policy *p) {
    struct compile_ctx *ctx = c->ctx;
    p->cluster = SLOT_NONE;
    if (m->cluster[0] && m->cluster_header[0]) {
        return diag_error(ctx->diag,
                          "Only one of cluster '%s' or cluster_header '%s' in request mirror "
                          "policy can be specified",
                          m->cluster, m->cluster_header);
    }
    if (!m->cluster[0] && !m->cluster_header[0]) {
        return diag_error(ctx->diag, "Exactly one of cluster or cluster_header in request mirror "
                                     "policy need to be specified");
    }
    if (m->cluster_header[0]) {
        p->cluster_header = route_lower(ctx->arena, m->cluster_header);
        return true;
    }
    p->cluster_name = arena_sv(ctx->arena, sv_cstr(m->cluster));
    p->cluster = compile_cluster_ref(ctx, p->cluster_name, c->must_exist);
    return p->cluster != SLOT_NONE;
}

static bool compile_mirror(struct route_compile *c,
                           const Route__RouteAction__RequestMirrorPolicy *m,
                           struct mirror_policy *p) {
    struct compile_ctx *ctx = c->ctx;
    unsigned before = diag_errors(ctx->diag);
    compile_mirror_target(c, m, p);
    p->fraction = (struct fraction){.numerator = 100, .denominator = 100};
    if (m->runtime_fraction) {
        DIAG_FIELD(ctx->diag, "runtime_fraction");
        fraction_compile(ctx, m->runtime_fraction, &p->fraction);
    }
    if (m->trace_sampled) {
        compile_unhonoured(ctx, "trace_sampled");
    }
    p->disable_shadow_host_suffix = m->disable_shadow_host_suffix_append;
    p->host_rewrite = arena_sv(ctx->arena, sv_cstr(m->host_rewrite_literal));
    DIAG_FIELD(ctx->diag, "request_headers_mutations");
    p->mutations = header_mutations_compile_list(
        ctx, (const void *const *)m->request_headers_mutations, m->n_request_headers_mutations);
    return diag_errors(ctx->diag) == before;
}

bool route_compile_mirrors(struct route_compile *c, const void *const *msgs, size_t n,
                           const struct mirror_policy **out, unsigned *out_n) {
    struct mirror_policy *v = arena_new_array(c->ctx->arena, struct mirror_policy, n);
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(c->ctx->diag, "request_mirror_policies[%zu]", i);
        ok &= compile_mirror(c, (const Route__RouteAction__RequestMirrorPolicy *)msgs[i], &v[i]);
    }
    *out = v;
    *out_n = (unsigned)n;
    return ok;
}
