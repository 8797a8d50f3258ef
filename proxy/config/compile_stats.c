/* StatsConfig: tag rules, the stats matcher, histogram buckets.
 * Threads: main, at start. Spec: metrics.v3.StatsConfig. Ignored without harm:
 * HistogramBucketSettings.bins, a size hint. */
#include "proxy/config/compile_stats.h"

#include <stdlib.h>

#include "protos/gen/metrics.pb-c.h"
#include "proxy/route/matcher.h"
#include "proxy/stats/stats_tags.h"

#define TAG_SPECS_MAX 1024

static void free_tags(void *arg) { stats_tags_free(arg); }

static bool tag_specs(struct compile_ctx *ctx, const Metrics__StatsConfig *m,
                      const struct stats_cli_tag *cli, unsigned cli_n, struct stats_config *out) {
    size_t n = cli_n + m->n_stats_tags;
    if (n > TAG_SPECS_MAX) {
        return diag_error(ctx->diag, "more than %d stats tags", TAG_SPECS_MAX);
    }
    struct stats_tag_spec *specs = arena_new_array(ctx->arena, struct stats_tag_spec, n ? n : 1);
    for (unsigned i = 0; i < cli_n; i++) {
        specs[i] =
            (struct stats_tag_spec){.name = cli[i].name, .fixed = cli[i].value, .is_fixed = true};
    }
    for (size_t i = 0; i < m->n_stats_tags; i++) {
        const Metrics__TagSpecifier *t = m->stats_tags[i];
        struct stats_tag_spec *s = &specs[cli_n + i];
        s->name = sv_cstr(t->tag_name);
        if (t->tag_value_case == METRICS__TAG_SPECIFIER__TAG_VALUE_FIXED_VALUE) {
            s->is_fixed = true;
            s->fixed = sv_cstr(t->fixed_value);
        } else if (t->tag_value_case == METRICS__TAG_SPECIFIER__TAG_VALUE_REGEX) {
            s->regex = sv_cstr(t->regex);
        }
    }
    char err[512];
    bool use_defaults = !m->use_all_default_tags || m->use_all_default_tags->value;
    struct stats_tags *tags = stats_tags_new(use_defaults, specs, (unsigned)n, err, sizeof(err));
    if (!tags) {
        return diag_error(ctx->diag, "%s", err);
    }
    arena_on_fini(ctx->arena, free_tags, tags);
    out->tags = tags;
    return true;
}

static bool name_matches(const void *arg, sv name) { return string_matcher_match(arg, name); }

static bool name_test(struct compile_ctx *ctx, const void *msg, struct stats_name_test *out) {
    struct string_matcher *s = arena_new(ctx->arena, struct string_matcher);
    *out = (struct stats_name_test){name_matches, s};
    return string_matcher_compile(ctx, msg, s);
}

static bool name_tests(struct compile_ctx *ctx, const TypeMatcher__ListStringMatcher *m,
                       struct stats_config *out) {
    struct stats_name_test *tests =
        arena_new_array(ctx->arena, struct stats_name_test, m->n_patterns ? m->n_patterns : 1);
    bool ok = true;
    for (size_t i = 0; i < m->n_patterns; i++) {
        DIAG_FIELD(ctx->diag, "patterns[%zu]", i);
        ok = name_test(ctx, m->patterns[i], &tests[i]) && ok;
    }
    out->tests = tests;
    out->tests_n = (unsigned)m->n_patterns;
    return ok;
}

static bool matcher(struct compile_ctx *ctx, const Metrics__StatsMatcher *m,
                    struct stats_config *out) {
    DIAG_FIELD(ctx->diag, "stats_matcher");
    switch (m->stats_matcher_case) {
    case METRICS__STATS_MATCHER__STATS_MATCHER_REJECT_ALL:
        out->matcher = m->reject_all ? STATS_REJECT_ALL : STATS_ACCEPT_ALL;
        return true;
    case METRICS__STATS_MATCHER__STATS_MATCHER_EXCLUSION_LIST: {
        DIAG_FIELD(ctx->diag, "exclusion_list");
        out->matcher = STATS_EXCLUDE_LISTED;
        return name_tests(ctx, m->exclusion_list, out);
    }
    case METRICS__STATS_MATCHER__STATS_MATCHER_INCLUSION_LIST: {
        DIAG_FIELD(ctx->diag, "inclusion_list");
        out->matcher = STATS_INCLUDE_LISTED;
        return name_tests(ctx, m->inclusion_list, out);
    }
    default:
        return diag_error(ctx->diag, "stats_matcher: value is required");
    }
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static bool bucket_rule(struct compile_ctx *ctx, const Metrics__HistogramBucketSettings *m,
                        struct stats_bucket_rule *out) {
    if (!m->match) {
        return diag_error(ctx->diag, "match: value is required");
    }
    double *bounds = arena_new_array(ctx->arena, double, m->n_buckets ? m->n_buckets : 1);
    for (size_t i = 0; i < m->n_buckets; i++) {
        if (!(m->buckets[i] > 0)) {
            return diag_error(ctx->diag, "buckets[%zu]: value must be greater than 0", i);
        }
        bounds[i] = m->buckets[i];
    }
    qsort(bounds, m->n_buckets, sizeof(*bounds), by_value);
    out->bounds = bounds;
    out->bounds_n = (unsigned)m->n_buckets;
    DIAG_FIELD(ctx->diag, "match");
    return name_test(ctx, m->match, &out->test);
}

static bool buckets(struct compile_ctx *ctx, const Metrics__StatsConfig *m,
                    struct stats_config *out) {
    size_t n = m->n_histogram_bucket_settings;
    struct stats_bucket_rule *rules =
        arena_new_array(ctx->arena, struct stats_bucket_rule, n ? n : 1);
    bool ok = true;
    for (size_t i = 0; i < n; i++) {
        DIAG_FIELD(ctx->diag, "histogram_bucket_settings[%zu]", i);
        bool rule_ok = bucket_rule(ctx, m->histogram_bucket_settings[i], &rules[out->buckets_n]);
        /* Settings without buckets only size the histogram's memory: no rule of ours. */
        out->buckets_n += rule_ok && rules[out->buckets_n].bounds_n;
        ok = ok && rule_ok;
    }
    out->buckets = rules;
    return ok;
}

const struct stats_config *compile_stats_config(struct compile_ctx *ctx, const void *msg,
                                                const struct stats_cli_tag *cli, unsigned cli_n) {
    static const Metrics__StatsConfig none = METRICS__STATS_CONFIG__INIT;
    const Metrics__StatsConfig *m = msg ? msg : &none;
    struct stats_config *out = arena_new(ctx->arena, struct stats_config);
    DIAG_FIELD(ctx->diag, "stats_config");
    bool ok = tag_specs(ctx, m, cli, cli_n, out);
    ok = (!m->stats_matcher || matcher(ctx, m->stats_matcher, out)) && ok;
    ok = buckets(ctx, m, out) && ok;
    return ok ? out : NULL;
}
