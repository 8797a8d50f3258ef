/* Prometheus text exposition 0.0.4, metric by metric: counters, gauges, text readouts, histograms,
 * each by name.
 * Threads: one walker each; the store's lock is taken per batch.
 * Spec: Envoy's /stats/prometheus. Not here: the protobuf exposition. */
#include <math.h>
#include <stdio.h>

#include "proxy/stats/stats_iter.h"
#include "proxy/stats/stats_tags.h"

void stats_prom_init(struct stats_prom *w, struct stats_store *s, const struct stats_params *p) {
    *w = (struct stats_prom){.store = s, .params = p};
}

void stats_prom_fini(struct stats_prom *w) {
    if (w->metric) {
        LOCK(w->store);
        stats_metric_unref(w->store, w->metric);
        UNLOCK(w->store);
    }
    stats_scope_unref(w->scope);
    xfree(w->name);
    w->name = NULL;
    w->metric = NULL;
    w->scope = NULL;
}

/* --- one series --- */

/* "cluster.upstream_rq" → "envoy_cluster_upstream_rq"; names of a registered namespace lose it
 * instead. Heap. */
static char *exposed_name(const struct stats_store *s, sv name) {
    BUF_AUTO struct buf b = {0};
    sv rest = name, first = sv_cut(&rest, '.');
    bool own = false;
    for (size_t i = 0; i < s->namespaces.n; i++) {
        own = own || sv_eq(first, s->namespaces.p[i]);
    }
    buf_append_sv(&b, own ? rest : SV("envoy_"));
    buf_append_sv(&b, own ? SV_NULL : name);
    char *out = buf_dup_str(&b);
    for (char *p = out; *p; p++) {
        *p = ascii_isalnum(*p) || *p == '_' || *p == ':' ? *p : '_';
    }
    return out;
}

static const char *type_of(const struct stats_prom *w) {
    switch (w->metric->kind) {
    case STAT_COUNTER:
        return "counter";
    case STAT_HISTOGRAM:
        return w->params->buckets == STATS_BUCKETS_SUMMARY ? "summary" : "histogram";
    case STAT_GAUGE:
    case STAT_TEXT:
        break;
    }
    return "gauge";
}

static void write_type(struct stats_prom *w, struct buf *out) {
    if (w->type_written) {
        return;
    }
    w->type_written = true;
    buf_lit(out, "# TYPE ");
    buf_append_sv(out, sv_cstr(w->name));
    buf_printf(out, " %s\n", type_of(w));
}

/* name<suffix>{labels[,extra]} */
static void write_series(struct stats_prom *w, const char *suffix, sv labels, const char *key,
                         sv value, struct buf *out) {
    buf_append_sv(out, sv_cstr(w->name));
    buf_printf(out, "%s{", suffix);
    buf_append_sv(out, labels);
    if (key) {
        buf_printf(out, "%s%s=\"%.*s\"", labels.n ? "," : "", key, SV_ARG(value));
    }
    buf_lit(out, "} ");
}

/* As Envoy prints doubles: 32 significant digits, trailing zeros cut. */
static sv number(double v, char t[64]) {
    int n = isnan(v) ? snprintf(t, 64, "nan") : snprintf(t, 64, "%.32g", v);
    return sv_from(t, n > 0 ? (size_t)n : 0);
}

static void write_sum_count(struct stats_prom *w, sv labels, const struct histogram *h,
                            double scale, struct buf *out) {
    char t[64];
    write_series(w, "_sum", labels, NULL, SV_NULL, out);
    buf_append_sv(out, number(h ? histogram_sum(h) / scale : 0, t));
    buf_lit(out, "\n");
    write_series(w, "_count", labels, NULL, SV_NULL, out);
    buf_printf(out, "%llu\n", h ? (unsigned long long)histogram_count(h) : 0ull);
}

static void write_buckets(struct stats_prom *w, const struct stats_item *i, sv full, sv labels,
                          struct buf *out) {
    const struct stats_latch *l = stats_item_latch(i);
    const struct histogram *h = l ? l->cum : NULL;
    double scale = stats_item_scale(i);
    unsigned n;
    const double *bounds = stats_config_bounds(w->store->config, full, &n);
    char t[64];
    for (unsigned b = 0; b < n; b++) {
        write_series(w, "_bucket", labels, "le", number(bounds[b], t), out);
        buf_printf(out, "%llu\n",
                   h ? (unsigned long long)histogram_count_below(h, bounds[b] * scale) : 0ull);
    }
    write_series(w, "_bucket", labels, "le", SV("+Inf"), out);
    buf_printf(out, "%llu\n", h ? (unsigned long long)histogram_count(h) : 0ull);
    write_sum_count(w, labels, h, scale, out);
}

static void write_summary(struct stats_prom *w, const struct stats_item *i, sv labels,
                          struct buf *out) {
    const struct stats_latch *l = stats_item_latch(i);
    const struct histogram *h = l ? l->interval : NULL;
    double v[STATS_QUANTILES];
    char t[64];
    stats_quantile_values(h, stats_item_scale(i), v);
    for (unsigned q = 0; q < STATS_QUANTILES; q++) {
        char name[16];
        int n = snprintf(name, sizeof(name), "%g", stats_quantiles[q]);
        write_series(w, "", labels, "quantile", sv_from(name, n > 0 ? (size_t)n : 0), out);
        buf_append_sv(out, number(v[q], t));
        buf_lit(out, "\n");
    }
    write_sum_count(w, labels, h, stats_item_scale(i), out);
}

static void write_text_value(struct stats_prom *w, const struct stats_item *i, sv labels,
                             struct buf *out) {
    struct stats_tag_set set = {.n = 1};
    set.v[0] = (struct stats_tag){SV("text_value"), stats_item_text(i)};
    char *value = stats_labels(&set);
    buf_append_sv(out, sv_cstr(w->name));
    buf_lit(out, "{");
    buf_append_sv(out, labels);
    buf_printf(out, "%s%s} 0\n", labels.n ? "," : "", value);
    xfree(value);
}

static void write_item(struct stats_prom *w, const struct stats_item *i, sv full, sv labels,
                       struct buf *out) {
    write_type(w, out);
    switch (w->metric->kind) {
    case STAT_COUNTER:
    case STAT_GAUGE:
        write_series(w, "", labels, NULL, SV_NULL, out);
        buf_printf(out, "%llu\n", (unsigned long long)stats_item_value(i));
        break;
    case STAT_TEXT:
        write_text_value(w, i, labels, out);
        break;
    case STAT_HISTOGRAM:
        if (w->params->buckets == STATS_BUCKETS_SUMMARY) {
            write_summary(w, i, labels, out);
        } else {
            write_buckets(w, i, full, labels, out);
        }
        break;
    }
}

/* Write the item when parameters let it through. */
static void offer(struct stats_prom *w, const struct stats_item *i, struct buf *out) {
    if (w->params->used_only && !stats_item_used(i)) {
        return;
    }
    if (!i->dyn && !stats_cell_shown(i->scope, i->cell)) {
        return;
    }
    sv full = SV_NULL, prefix = scope_prefix(i->scope), name = stats_item_name(i);
    char *heap = NULL;
    if (w->params->filter || w->metric->kind == STAT_HISTOGRAM) {
        heap = xalloc(prefix.n + name.n + 1);
        if (prefix.n) {
            memcpy(heap, prefix.p, prefix.n);
        }
        memcpy(heap + prefix.n, name.p, name.n);
        full = sv_from(heap, prefix.n + name.n);
    }
    if (stats_params_accept(w->params, full)) {
        bool own = i->dyn || i->scope->cls->own_labels[i->cell >> 6] >> (i->cell & 63) & 1;
        char *labels = NULL;
        if (own) {
            char scratch[STATS_FULL_MAX];
            struct stats_tag_set t;
            stats_extract(i->scope, name, &t, scratch);
            labels = stats_labels(&t);
        }
        write_item(w, i, full, sv_cstr(own ? labels : i->scope->labels), out);
        xfree(labels);
    }
    xfree(heap);
}

/* --- the walk --- */

static bool is_wanted(const struct stats_prom *w, const struct stats_metric *m) {
    if (m->kind == STAT_TEXT && !w->params->text_readouts) {
        return false;
    }
    return w->params->kinds >> m->kind & 1;
}

/* Go to the next metric; the old one is let go. Lock held. */
static bool next_metric(struct stats_prom *w) {
    struct stats_metric *m = w->metric;
    do {
        struct stats_tree_node *n = m ? stats_tree_after(&w->store->metrics, m->node.key, 0)
                                      : stats_tree_first(&w->store->metrics);
        m = n ? CONTAINER_OF(n, struct stats_metric, node) : NULL;
    } while (m && !is_wanted(w, m));
    if (m) {
        m->refs++;
    }
    if (w->metric) {
        stats_metric_unref(w->store, w->metric);
    }
    w->metric = m;
    xfree(w->name);
    w->name = m ? exposed_name(w->store, metric_name(m)) : NULL;
    w->type_written = false;
    w->cells_done = false;
    return m != NULL;
}

/* Next (scope, cell) of the metric after the walker's; false: no more. */
static bool next_cell(struct stats_prom *w, struct stats_scope **scope, unsigned *cell) {
    struct list *member = &w->metric->members;
    if (*scope) {
        struct stats_class *c = (*scope)->cls;
        struct list *n = (*scope)->class_node.next;
        if (n != &c->scopes) {
            *scope = LIST_ENTRY(n, struct stats_scope, class_node);
            return true;
        }
        member = &c->members[*cell].node;
    }
    while ((member = member->next) != &w->metric->members) {
        const struct stats_member *m = LIST_ENTRY(member, struct stats_member, node);
        struct list *first = list_first(&m->cls->scopes);
        if (first) {
            *scope = LIST_ENTRY(first, struct stats_scope, class_node);
            *cell = m->cell;
            return true;
        }
    }
    return false;
}

static bool next_dyn(struct stats_prom *w, struct stat_dyn **dyn) {
    struct list *n = *dyn ? (*dyn)->metric_node.next : w->metric->dyns.next;
    if (n == &w->metric->dyns) {
        return false;
    }
    *dyn = LIST_ENTRY(n, struct stat_dyn, metric_node);
    return true;
}

/* One step: the next series, or the next metric. *scope is the one stood on afterwards. False: all
 * done. */
static bool step(struct stats_prom *w, struct stats_scope **scope, struct buf *out) {
    if (!w->metric) {
        return next_metric(w);
    }
    if (!w->cells_done) {
        if (next_cell(w, scope, &w->cell)) {
            offer(w, &(struct stats_item){.scope = *scope, .cell = w->cell}, out);
            return true;
        }
        w->cells_done = true;
        *scope = NULL;
        w->dyn = NULL;
    }
    if (next_dyn(w, &w->dyn)) {
        *scope = w->dyn->scope;
        offer(w, &(struct stats_item){.scope = *scope, .dyn = w->dyn}, out);
        return true;
    }
    *scope = NULL;
    w->dyn = NULL;
    return next_metric(w);
}

bool stats_prom_next(struct stats_prom *w, struct buf *out) {
    if (!w->classified) {
        w->classified = !stats_classify(w->store, 8);
        return true;
    }
    struct stats_scope *scope = w->scope;
    bool more = true;
    LOCK(w->store);
    for (unsigned i = 0; i < ITER_BATCH && more; i++) {
        more = step(w, &scope, out);
    }
    if (scope && scope != w->scope) {
        scope_ref_locked(scope);
    }
    UNLOCK(w->store);
    if (scope != w->scope) {
        stats_scope_unref(w->scope);
        w->scope = scope;
    }
    return more;
}
