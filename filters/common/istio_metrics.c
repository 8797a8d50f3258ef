/* Istio's metrics: configuration and counters; see istio_metrics.h. Threads: see there.
 * A label set's key is its values one behind the other: metrics are looked up by name when a set is
 * new to the thread, never after.
 * Not here: where labels come from (istio_labels.c), when what is told (http/istio_stats.c,
 * network/istio_stats.c). */
#include "filters/common/istio_metrics_internal.h"

#include <stdlib.h>

#include "protos/gen/istio_stats.pb-c.h"
#include "protos/gen/pb.pb-c.h"
#include "proxy/api/telemetry.h"

#define NAMESPACE "istiocustom"
#define NAME_LEAD NAMESPACE ".istio_"
#define PERIOD_MS 5000u
#define KEY_MAX 8192u /* bytes of all labels of a set; longer ones are not told */

#define OWN_STATS(P, C, G, H, T) C(P, label_sets_overflow)
STATS_ENUM(OWN, OWN_STATS);
STATS_GROUP(istio_stats, OWN, OWN_STATS);

const char *const istio_label_names[] = {
#define X(name) #name,
    ISTIO_LABELS(X)
#undef X
};
static const struct {
    const char *name;
    struct stat_def def; /* one nameless cell: the metric's name is in the scope's */
    enum istio_use use;
} metrics[] = {
#define X(name, kind, unit, use) {#name, {"", STAT_##kind, STAT_UNIT_##unit}, ISTIO_USE_##use},
    ISTIO_METRICS(X)
#undef X
};
static const struct stats_group metric_groups[] = {
#define X(name_, kind, unit, use) \
    {.name = "istio_" #name_, .defs = &metrics[ISTIO_METRIC_##name_].def, .n = 1},
    ISTIO_METRICS(X)
#undef X
};
static const struct stat_def custom_defs[] = {{"", STAT_COUNTER, STAT_UNIT_NONE},
                                              {"", STAT_GAUGE, STAT_UNIT_NONE},
                                              {"", STAT_HISTOGRAM, STAT_UNIT_BYTES}};
static const struct stats_group custom_groups[] = {
    {.name = "istio_custom_counter", .defs = &custom_defs[0], .n = 1},
    {.name = "istio_custom_gauge", .defs = &custom_defs[1], .n = 1},
    {.name = "istio_custom_histogram", .defs = &custom_defs[2], .n = 1}};

static bool has_label(enum istio_use use, unsigned label) {
    switch (use) {
    case ISTIO_USE_HTTP:
        return true;
    case ISTIO_USE_GRPC:
        return label <= ISTIO_LABEL_destination_cluster;
    case ISTIO_USE_TCP:
        return label != ISTIO_LABEL_response_code && label != ISTIO_LABEL_grpc_response_status;
    case ISTIO_USES_N:
        break;
    }
    return false;
}

/* --- life --- */

static void free_table(struct label_sets *t) {
    size_t it = 0;
    for (struct map_slot *s; (s = map_next(&t->sets, &it)) != NULL;) {
        struct istio_label_set *set = s->value;
        for (unsigned i = 0; i < ISTIO_METRICS_N; i++) {
            stats_scope_unref(set->metrics[i] ? set->metrics[i]->scope : NULL);
        }
        for (unsigned i = 0; i < set->custom_n; i++) {
            stats_scope_unref(set->custom[i]->scope);
        }
    }
    map_fini(&t->sets);
    arena_fini(&t->arena);
    xfree(t);
}

static void release_tables(void *arg) {
    struct label_tables *t = arg;
    for (unsigned i = 0; i < STATS_THREADS_MAX; i++) {
        if (t->threads[i]) {
            free_table(t->threads[i]);
        }
    }
    stats_scope_unref(t->stats);
    stats_scope_unref(t->build);
}

static void *tables_new(struct compile_ctx *ctx, struct arena *a) {
    struct label_tables *t = arena_new(a, struct label_tables);
    t->stats = stats_scope_get(ctx->stats, &istio_stats_stats_group, SV("istio_stats."));
    arena_on_fini(a, release_tables, t);
    return t;
}

/* istio_build{component="proxy",tag="1.2.3"} 1 */
static void tell_build(struct compile_ctx *ctx, struct label_tables *t) {
    const struct istio_node *node = istio_node(ctx);
    sv version = node->version.n ? node->version : SV("unknown");
    const struct stats_tag tags[] = {{SV("component"), SV("proxy")}, {SV("tag"), version}};
    sv name = arena_printf(ctx->arena, NAME_LEAD "build.component.proxy.tag.%.*s", SV_ARG(version));
    t->build = stats_scope_get_tagged(ctx->stats, &custom_groups[1], name, SV(NAME_LEAD "build"),
                                      tags, ARRAY_LEN(tags));
    stats_gauge_set(stats_shard(t->build, 0), 0, 1);
}

static void *make_shared(struct compile_ctx *ctx, struct arena *a) {
    struct label_tables *t = tables_new(ctx, a);
    stats_store_add_namespace(ctx->stats, SV(NAMESPACE));
    tell_build(ctx, t);
    return t;
}

/* --- compile --- */

static unsigned metric_of(sv name) {
    unsigned i = 0;
    while (i < ISTIO_METRICS_N && !sv_is(name, metrics[i].name)) {
        i++;
    }
    return i;
}
static unsigned label_of(sv name) {
    unsigned i = 0;
    while (i < ISTIO_LABELS_N && !sv_is(name, istio_label_names[i])) {
        i++;
    }
    return i;
}

/* A CEL expression's index, equal ones share it; NO_EXPR: it is not understood, as Istio told of
 * and left out. */
static uint8_t expression(struct compile_ctx *ctx, struct istio_metrics *m, const char *text) {
    for (unsigned i = 0; i < m->exprs_n; i++) {
        if (strcmp(m->texts[i], text) == 0) {
            return (uint8_t)i;
        }
    }
    struct diag why;
    struct compile_ctx quiet = *ctx;
    diag_init(&why);
    quiet.diag = &why;
    const struct cel *c =
        m->exprs_n < ISTIO_DIMENSIONS_MAX ? cel_compile_text(&quiet, sv_cstr(text)) : NULL;
    diag_fini(&why);
    if (!c) {
        compile_unhonoured(ctx, text);
        return NO_EXPR;
    }
    m->exprs[m->exprs_n] = c;
    m->texts[m->exprs_n] = arena_cstr(ctx->arena, sv_cstr(text));
    return (uint8_t)m->exprs_n++;
}

static void set_override(struct metric_rule *r, unsigned label, uint8_t how) {
    r->overrides[label] = how;
}

static void add_tag(struct compile_ctx *ctx, struct metric_rule *r, const char *name,
                    uint8_t expr) {
    if (r->added_n == ISTIO_DIMENSIONS_MAX ||
        (unsigned)ISTIO_LABELS_N + r->added_n >= LABELS_EXPORTED_MAX) {
        compile_unhonoured(ctx, "dimensions");
        return;
    }
    r->added[r->added_n++] = (struct added_tag){arena_sv(ctx->arena, sv_cstr(name)), expr};
}

/* One dimension of the metrics that `c` names: standard ones first, then custom ones. */
static void dimension(struct compile_ctx *ctx, struct istio_metrics *m,
                      const IstioStats__MetricConfig *c,
                      const IstioStats__MetricConfig__DimensionsEntry *d) {
    uint8_t expr = expression(ctx, m, d->value);
    unsigned label = label_of(sv_cstr(d->key));
    bool is_all = !*c->name;
    for (unsigned i = 0; expr != NO_EXPR && i < ISTIO_METRICS_N; i++) {
        if (!is_all && strcmp(c->name, metrics[i].name) != 0) {
            continue;
        }
        if (label < ISTIO_LABELS_N) {
            set_override(&m->rules[i], label, expr);
        } else {
            add_tag(ctx, &m->rules[i], d->key, expr);
        }
    }
    for (unsigned i = 0; expr != NO_EXPR && i < m->custom_n; i++) {
        if (is_all || sv_is(m->custom[i].name, c->name)) {
            add_tag(ctx, &m->custom[i].rule, d->key, expr);
        }
    }
}

static int by_key(const void *a, const void *b) {
    const IstioStats__MetricConfig__DimensionsEntry *const *x = a, *const *y = b;
    return strcmp((*x)->key, (*y)->key);
}

static void metric_config(struct compile_ctx *ctx, struct istio_metrics *m,
                          const IstioStats__MetricConfig *c) {
    unsigned one = metric_of(sv_cstr(c->name));
    if (*c->match) {
        compile_unhonoured(ctx, "match");
    }
    if (c->drop) {
        if (one < ISTIO_METRICS_N) {
            m->rules[one].is_dropped = true;
        }
        return;
    }
    for (size_t i = 0; i < c->n_tags_to_remove; i++) {
        unsigned label = label_of(sv_cstr(c->tags_to_remove[i]));
        for (unsigned k = 0; label < ISTIO_LABELS_N && k < ISTIO_METRICS_N; k++) {
            if (!*c->name || k == one) {
                set_override(&m->rules[k], label, TAG_REMOVED);
            }
        }
    }
    if (c->n_dimensions) {
        qsort(c->dimensions, c->n_dimensions, sizeof(*c->dimensions), by_key);
    }
    for (size_t i = 0; i < c->n_dimensions; i++) {
        dimension(ctx, m, c, c->dimensions[i]);
    }
}

static void definition(struct compile_ctx *ctx, struct istio_metrics *m,
                       const IstioStats__MetricDefinition *d) {
    if (metric_of(sv_cstr(d->name)) < ISTIO_METRICS_N || m->custom_n == ISTIO_CUSTOM_METRICS_MAX) {
        compile_unhonoured(ctx, "name"); /* a standard metric is not defined anew */
        return;
    }
    uint8_t expr = expression(ctx, m, d->value);
    if (expr == NO_EXPR) {
        return;
    }
    unsigned kind = (unsigned)d->type < ARRAY_LEN(custom_groups) ? (unsigned)d->type : 0;
    m->custom[m->custom_n++] = (struct custom_metric){
        .name = arena_sv(ctx->arena, sv_cstr(d->name)), .expr = expr, .kind = (uint8_t)kind};
}

static void compile_overrides(struct compile_ctx *ctx, struct istio_metrics *m,
                              const IstioStats__PluginConfig *c) {
    m->rules = arena_new_array(ctx->arena, struct metric_rule, ISTIO_METRICS_N);
    for (unsigned i = 0; i < ISTIO_METRICS_N; i++) {
        memset(m->rules[i].overrides, TAG_KEPT, sizeof(m->rules[i].overrides));
    }
    m->exprs = arena_new_array(ctx->arena, const struct cel *, ISTIO_DIMENSIONS_MAX);
    m->texts = arena_new_array(ctx->arena, const char *, ISTIO_DIMENSIONS_MAX);
    m->custom = arena_new_array(ctx->arena, struct custom_metric, ISTIO_CUSTOM_METRICS_MAX);
    for (size_t i = 0; i < c->n_definitions; i++) {
        DIAG_FIELD(ctx->diag, "definitions[%zu]", i);
        definition(ctx, m, c->definitions[i]);
    }
    for (size_t i = 0; i < c->n_metrics; i++) {
        DIAG_FIELD(ctx->diag, "metrics[%zu]", i);
        metric_config(ctx, m, c->metrics[i]);
    }
}

struct istio_metrics *istio_metrics_compile(struct compile_ctx *ctx, const void *msg) {
    static const IstioStats__PluginConfig none = ISTIO_STATS__PLUGIN_CONFIG__INIT;
    const IstioStats__PluginConfig *c = msg ? msg : &none;
    struct istio_metrics *m = arena_new(ctx->arena, struct istio_metrics);
    m->node = istio_node(ctx);
    m->disable_host_fallback = c->disable_host_header_fallback;
    m->is_gateway = c->reporter == ISTIO_STATS__REPORTER__SERVER_GATEWAY;
    m->store = ctx->stats;
    m->tables = compile_shared(ctx, "istio_stats", make_shared);
    if (c->n_metrics || c->n_definitions) {
        m->tables = tables_new(ctx, ctx->arena); /* names and labels are this configuration's */
        compile_overrides(ctx, m, c);
    }
    if (c->rotation_interval) {
        compile_unhonoured(ctx, "rotation_interval");
    }
    if (c->graceful_deletion_interval) {
        compile_unhonoured(ctx, "graceful_deletion_interval");
    }
    DIAG_FIELD(ctx->diag, "tcp_reporting_duration");
    return compile_duration_ms(ctx, c->tcp_reporting_duration, PERIOD_MS, &m->period_ms) ? m : NULL;
}

uint32_t istio_metrics_period_ms(const struct istio_metrics *m) { return m->period_ms; }

/* --- label sets --- */

/* The values of the configuration's expressions for this stream; "unknown" where there is none. */
static void evaluate(const struct istio_metrics *m, const struct stream_info *si,
                     struct arena *scratch, sv *out) {
    for (unsigned i = 0; i < m->exprs_n; i++) {
        if (!cel_text(m->exprs[i], si, scratch, &out[i])) {
            out[i] = SV("unknown");
        }
    }
}

static unsigned tags_of(const struct metric_rule *r, enum istio_use use,
                        const struct istio_labels *l, const sv *exprs, bool is_custom,
                        struct stats_tag *out) {
    unsigned n = 0;
    for (unsigned i = 0; !is_custom && i < ISTIO_LABELS_N; i++) {
        uint8_t how = r ? r->overrides[i] : TAG_KEPT;
        if (has_label(use, i) && how != TAG_REMOVED) {
            out[n++] = (struct stats_tag){sv_cstr(istio_label_names[i]),
                                          how == TAG_KEPT ? l->v[i] : exprs[how]};
        }
    }
    for (unsigned i = 0; r && i < r->added_n; i++) {
        out[n++] = (struct stats_tag){r->added[i].name, exprs[r->added[i].expr]};
    }
    return n;
}

/* "istiocustom.istio_requests_total.reporter.source…": as Envoy names what has tags. */
static struct stats_shard *shard_of(const struct istio_metrics *m, const struct stats_group *group,
                                    sv name, const struct stats_tag *tags, unsigned n,
                                    unsigned thread) {
    BUF_AUTO struct buf full = {0};
    buf_printf(&full, NAME_LEAD "%.*s", SV_ARG(name));
    size_t lead = buf_len(&full);
    for (unsigned i = 0; i < n; i++) {
        buf_printf(&full, ".%.*s.%.*s", SV_ARG(tags[i].name), SV_ARG(tags[i].value));
    }
    char *text = buf_dup_str(&full);
    sv all = sv_cstr(text);
    struct stats_scope *scope =
        stats_scope_get_tagged(m->store, group, all, sv_sub(all, 0, lead), tags, n);
    xfree(text);
    return stats_shard(scope, thread);
}

static struct istio_label_set *set_new(const struct istio_metrics *m, struct label_sets *t,
                                       enum istio_use use, const struct istio_labels *l,
                                       const sv *exprs, unsigned thread) {
    struct stats_tag tags[LABELS_EXPORTED_MAX];
    struct istio_label_set *set = arena_new(&t->arena, struct istio_label_set);
    for (unsigned i = 0; i < ISTIO_METRICS_N; i++) {
        const struct metric_rule *r = m->rules ? &m->rules[i] : NULL;
        if (metrics[i].use != use || (r && r->is_dropped)) {
            continue;
        }
        unsigned n = tags_of(r, use, l, exprs, false, tags);
        set->metrics[i] = shard_of(m, &metric_groups[i], sv_cstr(metrics[i].name), tags, n, thread);
    }
    set->custom_n = use == ISTIO_USE_GRPC ? 0 : m->custom_n;
    set->custom = arena_new_array(&t->arena, struct stats_shard *, set->custom_n);
    for (unsigned i = 0; i < set->custom_n; i++) {
        const struct custom_metric *c = &m->custom[i];
        unsigned n = tags_of(&c->rule, use, l, exprs, true, tags);
        set->custom[i] = shard_of(m, &custom_groups[c->kind], c->name, tags, n, thread);
    }
    return set;
}

static struct label_sets *table_of(struct label_tables *t, unsigned thread) {
    if (!t->threads[thread]) {
        t->threads[thread] = xnew(struct label_sets);
        map_init(&t->threads[thread]->sets);
        arena_init(&t->threads[thread]->arena, 0);
    }
    return t->threads[thread];
}

struct istio_label_set *istio_metrics_set(struct istio_metrics *m, enum istio_use use,
                                          const struct istio_labels *l,
                                          const struct stream_info *si, unsigned thread,
                                          struct arena *scratch) {
    struct label_sets *t = table_of(m->tables, thread);
    sv exprs[ISTIO_DIMENSIONS_MAX];
    char key[KEY_MAX];
    size_t n = 0;
    evaluate(m, si, scratch, exprs);
    key[n++] = (char)use;
    for (unsigned i = 0; i < ISTIO_LABELS_N + m->exprs_n; i++) {
        sv v = i >= ISTIO_LABELS_N ? exprs[i - ISTIO_LABELS_N]
               : has_label(use, i) ? l->v[i]
                                   : SV("");
        uint16_t length = (uint16_t)v.n;
        if (n + sizeof(length) + v.n > sizeof(key)) {
            stats_inc(stats_shard(m->tables->stats, thread), OWN_label_sets_overflow);
            return NULL;
        }
        memcpy(key + n, &length, sizeof(length));
        n += sizeof(length);
        if (v.n) {
            memcpy(key + n, v.p, v.n);
        }
        n += v.n;
    }
    struct istio_label_set *set = map_get(&t->sets, sv_from(key, n));
    if (LIKELY(set)) {
        return set;
    }
    if (map_count(&t->sets) >= ISTIO_LABEL_SETS_MAX) {
        stats_inc(stats_shard(m->tables->stats, thread), OWN_label_sets_overflow);
        return NULL;
    }
    set = set_new(m, t, use, l, exprs, thread);
    map_put(&t->sets, arena_sv(&t->arena, sv_from(key, n)), set);
    return set;
}

void istio_metrics_add(struct istio_label_set *set, enum istio_metric metric, uint64_t n) {
    struct stats_shard *shard = set ? set->metrics[metric] : NULL;
    if (!shard) {
        return;
    }
    if (metrics[metric].def.kind == STAT_HISTOGRAM) {
        stats_record(shard, 0, n);
    } else {
        stats_add(shard, 0, n);
        stats_mark_used(shard, 0);
    }
}

void istio_metrics_custom(struct istio_metrics *m, struct istio_label_set *set,
                          const struct stream_info *si, struct arena *scratch) {
    for (unsigned i = 0; set && i < set->custom_n; i++) {
        const struct custom_metric *c = &m->custom[i];
        uint64_t n = 0;
        sv text;
        if (!cel_text(m->exprs[c->expr], si, scratch, &text) || !sv_to_u64(text, &n)) {
            n = 0;
        }
        switch (custom_defs[c->kind].kind) {
        case STAT_COUNTER:
            stats_add(set->custom[i], 0, n);
            break;
        case STAT_HISTOGRAM:
            stats_record(set->custom[i], 0, n);
            break;
        case STAT_GAUGE:
        case STAT_TEXT:
            stats_gauge_set(set->custom[i], 0, n);
            break;
        }
    }
}
