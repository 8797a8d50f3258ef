/* lb_subset_config of a Cluster. Threads: the config thread. Spec:
 * cluster.v3.Cluster.LbSubsetConfig. */
#include <stdlib.h>

#include "proxy/api/matcher.h"
#include "proxy/config/cluster_compile.h"
#include "proxy/upstream/lb_subset.h"

typedef Cluster__Cluster__LbSubsetConfig__LbSubsetSelector selector_msg;
#define SELECTOR_FALLBACK(name) \
    CLUSTER__CLUSTER__LB_SUBSET_CONFIG__LB_SUBSET_SELECTOR__LB_SUBSET_SELECTOR_FALLBACK_POLICY__##name

static int cmp_keys(const void *a, const void *b) { return sv_cmp(*(const sv *)a, *(const sv *)b); }

/* Ascending, each once. */
static unsigned keys(struct compile_ctx *ctx, const char *const *from, size_t n, const sv **out) {
    sv *v = arena_new_array(ctx->arena, sv, n);
    for (size_t i = 0; i < n; i++) {
        v[i] = arena_sv(ctx->arena, sv_cstr(from[i]));
    }
    qsort(v, n, sizeof(*v), cmp_keys);
    unsigned used = 0;
    for (size_t i = 0; i < n; i++) {
        if (!used || !sv_eq(v[used - 1], v[i])) {
            v[used++] = v[i];
        }
    }
    *out = v;
    return used;
}

static bool is_part_of(const struct subset_selector *s) {
    unsigned found = 0;
    for (unsigned i = 0; i < s->keys_n && found < s->fallback_keys_n; i++) {
        found += sv_eq(s->keys[i], s->fallback_keys[found]);
    }
    return found == s->fallback_keys_n;
}

static void fallback_keys(struct compile_ctx *ctx, const selector_msg *m,
                          struct subset_selector *s) {
    s->fallback = SUBSET_FALLBACK_KEYS;
    s->fallback_keys_n =
        keys(ctx, m->fallback_keys_subset, m->n_fallback_keys_subset, &s->fallback_keys);
    if (!s->fallback_keys_n) {
        diag_error(ctx->diag, "fallback_keys_subset cannot be empty");
    } else if (!is_part_of(s)) {
        diag_error(ctx->diag, "fallback_keys_subset must be a subset of selector keys");
    } else if (s->fallback_keys_n == s->keys_n) {
        diag_error(ctx->diag, "fallback_keys_subset cannot be equal to keys");
    }
}

static void selector(struct compile_ctx *ctx, const selector_msg *m, struct subset_selector *s) {
    s->keys_n = keys(ctx, m->keys, m->n_keys, &s->keys);
    if (s->keys_n == 0 || s->keys_n > LB_SUBSET_KEYS_MAX) {
        diag_error(ctx->diag, "keys: between 1 and %u are expected", LB_SUBSET_KEYS_MAX);
        return;
    }
    switch (m->fallback_policy) {
    case SELECTOR_FALLBACK(NOT_DEFINED):
        s->fallback = SUBSET_FALLBACK_CLUSTER;
        return;
    case SELECTOR_FALLBACK(NO_FALLBACK):
        s->fallback = SUBSET_FALLBACK_NONE;
        return;
    case SELECTOR_FALLBACK(ANY_ENDPOINT):
        s->fallback = SUBSET_FALLBACK_ANY;
        return;
    case SELECTOR_FALLBACK(DEFAULT_SUBSET):
        s->fallback = SUBSET_FALLBACK_DEFAULT;
        return;
    case SELECTOR_FALLBACK(KEYS_SUBSET):
        fallback_keys(ctx, m, s);
        return;
    default:
        diag_error(ctx->diag, "fallback_policy: value must be one of the defined enum values");
    }
}

static enum subset_fallback fallback(struct compile_ctx *ctx,
                                     const Cluster__Cluster__LbSubsetConfig *m) {
    switch (m->fallback_policy) {
    case CLUSTER__CLUSTER__LB_SUBSET_CONFIG__LB_SUBSET_FALLBACK_POLICY__NO_FALLBACK:
        return SUBSET_FALLBACK_NONE;
    case CLUSTER__CLUSTER__LB_SUBSET_CONFIG__LB_SUBSET_FALLBACK_POLICY__ANY_ENDPOINT:
        return SUBSET_FALLBACK_ANY;
    case CLUSTER__CLUSTER__LB_SUBSET_CONFIG__LB_SUBSET_FALLBACK_POLICY__DEFAULT_SUBSET:
        return SUBSET_FALLBACK_DEFAULT;
    default:
        diag_error(ctx->diag, "fallback_policy: value must be one of the defined enum values");
        return SUBSET_FALLBACK_NONE;
    }
}

void cluster_subset_compile(struct compile_ctx *ctx, const Cluster__Cluster__LbSubsetConfig *m,
                            struct cluster_config *c) {
    if (!m || !m->n_subset_selectors) {
        return;
    }
    struct subset_config *out = arena_new(ctx->arena, struct subset_config);
    struct subset_selector *v =
        arena_new_array(ctx->arena, struct subset_selector, m->n_subset_selectors);
    for (size_t i = 0; i < m->n_subset_selectors; i++) {
        DIAG_FIELD(ctx->diag, "subset_selectors[%zu]", i);
        selector(ctx, m->subset_selectors[i], &v[i]);
    }
    out->selectors = v;
    out->selectors_n = (unsigned)m->n_subset_selectors;
    out->fallback = fallback(ctx, m);
    out->default_subset = metadata_match_compile_struct(ctx, m->default_subset);
    out->locality_weight_aware = m->locality_weight_aware;
    out->scale_locality_weight = m->scale_locality_weight;
    out->panic_mode_any = m->panic_mode_any;
    out->list_as_any = m->list_as_any;
    if (m->locality_weight_aware && !c->locality_weighted) {
        diag_error(ctx->diag,
                   "Locality weight aware subset LB requires that a locality_weighted_lb_config be "
                   "set in %.*s",
                   SV_ARG(c->name));
    }
    if (m->metadata_fallback_policy !=
        CLUSTER__CLUSTER__LB_SUBSET_CONFIG__LB_SUBSET_METADATA_FALLBACK_POLICY__METADATA_NO_FALLBACK) {
        diag_error(ctx->diag, "metadata_fallback_policy: only METADATA_NO_FALLBACK is supported");
    }
    c->subsets = out;
}
