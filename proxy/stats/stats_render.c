/* One stat as text, JSON or HTML. Threads: the store's lock is held. Spec: Envoy's /stats outputs.
 * Not here: which stats and in which order (stats_export.c), exposition format
 * (stats_prometheus.c). */
#include "proxy/stats/stats_render.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "proxy/base/json.h"

const double stats_quantiles[STATS_QUANTILES] = {0,    0.25, 0.5,   0.75,  0.9,
                                                 0.95, 0.99, 0.995, 0.999, 1};
static const char *const quantile_names[STATS_QUANTILES] = {"0",  "25", "50",   "75",   "90",
                                                            "95", "99", "99.5", "99.9", "100"};
#define PERCENT_SCALE 1e6 /* percentages are recorded as millionths */

bool stats_item_used(const struct stats_item *i) {
    if (!i->dyn) {
        return stats_cell_used(i->scope, i->cell);
    }
    if (i->dyn->kind == STAT_HISTOGRAM) {
        return i->dyn->latch.cum != NULL;
    }
    return __atomic_load_n(&i->dyn->used, __ATOMIC_RELAXED);
}

uint64_t stats_item_value(const struct stats_item *i) {
    uint64_t v = i->dyn ? stat_dyn_value(i->dyn) : stats_cell_sum(i->scope, i->cell);
    /* A gauge's shards are read one after the other: the sum may for a moment be a little below
     * zero. (Hashes of versions are gauges too, and may be any number.) */
    return stats_item_kind(i) == STAT_GAUGE && v > UINT64_MAX - UINT32_MAX ? 0 : v;
}

sv stats_item_text(const struct stats_item *i) {
    return !i->dyn && i->scope->text ? sv_cstr(i->scope->text->text) : SV_NULL;
}

const struct stats_latch *stats_item_latch(const struct stats_item *i) {
    if (i->dyn) {
        return i->dyn->latch.cum ? &i->dyn->latch : NULL;
    }
    return stats_cell_latch(i->scope, i->cell);
}

double stats_item_scale(const struct stats_item *i) {
    return !i->dyn && i->scope->group->defs[i->cell].unit == STAT_UNIT_PERCENT ? PERCENT_SCALE : 1;
}

void stats_quantile_values(const struct histogram *h, double scale, double out[STATS_QUANTILES]) {
    for (unsigned i = 0; !h && i < STATS_QUANTILES; i++) {
        out[i] = NAN;
    }
    if (h) {
        histogram_quantiles(h, stats_quantiles, STATS_QUANTILES, out);
    }
    for (unsigned i = 0; i < STATS_QUANTILES; i++) {
        out[i] /= scale;
    }
}

/* --- numbers --- */

/* Shortest significant digits of v > 0 without the point, and the decimal exponent of the first
 * one. */
static int shortest_digits(double v, char digits[20], int *exponent) {
    char t[STATS_DOUBLE_MAX];
    for (int precision = 14; precision <= 16; precision++) {
        snprintf(t, sizeof(t), "%.*e", precision, v);
        if (strtod(t, NULL) == v) {
            break;
        }
    }
    int n = 0;
    char *p = t;
    for (; *p && *p != 'e'; p++) {
        if (*p != '.') {
            digits[n++] = *p;
        }
    }
    *exponent = (int)strtol(p + 1, NULL, 10);
    while (n > 1 && digits[n - 1] == '0') {
        n--;
    }
    return n;
}

static size_t write_fixed(const char *digits, int n, int exponent, char *out) {
    char *p = out;
    if (exponent < 0) {
        *p++ = '0';
        *p++ = '.';
        for (int i = -1; i > exponent; i--) {
            *p++ = '0';
        }
        memcpy(p, digits, (size_t)n);
        return (size_t)(p + n - out);
    }
    for (int i = 0; i <= exponent || i < n; i++) {
        if (i == exponent + 1) {
            *p++ = '.';
        }
        *p++ = i < n ? digits[i] : '0';
    }
    return (size_t)(p - out);
}

/* "e+05", "e-300" */
static size_t write_exponent(int exponent, char *p) {
    int n = snprintf(p, 8, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
    return n > 0 ? (size_t)n : 0;
}

static size_t write_scientific(const char *digits, int n, int exponent, char *out) {
    char *p = out;
    *p++ = digits[0];
    if (n > 1) {
        *p++ = '.';
        memcpy(p, digits + 1, (size_t)n - 1);
        p += n - 1;
    }
    return (size_t)(p - out) + write_exponent(exponent, p);
}

static size_t fixed_length(int n, int exponent) {
    if (exponent < 0) {
        return (size_t)(1 - exponent + n);
    }
    return (size_t)(n > exponent + 1 ? n + 1 : exponent + 1);
}

sv stats_double_text(double v, char out[STATS_DOUBLE_MAX]) {
    if (isnan(v)) {
        return SV("nan");
    }
    if (v == 0) {
        return SV("0");
    }
    char digits[20];
    int exponent, n = shortest_digits(fabs(v), digits, &exponent);
    size_t at = v < 0 ? 1 : 0;
    out[0] = '-';
    if (exponent >= -4 && exponent < 16) {
        return sv_from(out, at + write_fixed(digits, n, exponent, out + at));
    }
    return sv_from(out, at + write_scientific(digits, n, exponent, out + at));
}

sv stats_double_json(double v, char out[STATS_DOUBLE_MAX]) {
    if (!isfinite(v)) {
        return SV("null");
    }
    if (v == 0) {
        return SV("0");
    }
    char digits[20];
    int exponent, n = shortest_digits(fabs(v), digits, &exponent);
    size_t at = v < 0 ? 1 : 0;
    out[0] = '-';
    size_t scientific = (size_t)(n > 1 ? n + 1 : 1) + (exponent <= -100 || exponent >= 100 ? 5 : 4);
    if (fixed_length(n, exponent) <= scientific) {
        return sv_from(out, at + write_fixed(digits, n, exponent, out + at));
    }
    return sv_from(out, at + write_scientific(digits, n, exponent, out + at));
}

static void put_text(double v, struct buf *out) {
    char t[STATS_DOUBLE_MAX];
    buf_append_sv(out, stats_double_text(v, t));
}

static void put_json(double v, struct buf *out) {
    char t[STATS_DOUBLE_MAX];
    buf_append_sv(out, stats_double_json(v, t));
}

/* --- text --- */

static const struct histogram *cum_of(const struct stats_latch *l) { return l ? l->cum : NULL; }
static const struct histogram *interval_of(const struct stats_latch *l) {
    return l ? l->interval : NULL;
}

static void text_summary(const struct stats_item *i, struct buf *out) {
    const struct stats_latch *l = stats_item_latch(i);
    if (!l) {
        buf_lit(out, "No recorded values");
        return;
    }
    double interval[STATS_QUANTILES], cum[STATS_QUANTILES];
    stats_quantile_values(l->interval, stats_item_scale(i), interval);
    stats_quantile_values(l->cum, stats_item_scale(i), cum);
    for (unsigned q = 0; q < STATS_QUANTILES; q++) {
        buf_printf(out, "%sP%s(", q ? " " : "", quantile_names[q]);
        put_text(interval[q], out);
        buf_lit(out, ",");
        put_text(cum[q], out);
        buf_lit(out, ")");
    }
}

static uint64_t count_below(const struct histogram *h, double bound) {
    return h ? histogram_count_below(h, bound) : 0;
}

/* Counts of bucket `b`, as differences when disjoint. */
static void bucket_counts(const struct stats_item *i, const double *bounds, unsigned b,
                          bool disjoint, uint64_t n[2]) {
    const struct stats_latch *l = stats_item_latch(i);
    double scale = stats_item_scale(i);
    n[0] = count_below(interval_of(l), bounds[b] * scale);
    n[1] = count_below(cum_of(l), bounds[b] * scale);
    if (disjoint && b) {
        n[0] -= count_below(interval_of(l), bounds[b - 1] * scale);
        n[1] -= count_below(cum_of(l), bounds[b - 1] * scale);
    }
}

static void text_buckets(const struct stats_item *i, sv name, bool disjoint, struct buf *out) {
    unsigned n;
    const double *bounds = stats_config_bounds(i->scope->store->config, name, &n);
    for (unsigned b = 0; b < n; b++) {
        uint64_t c[2];
        bucket_counts(i, bounds, b, disjoint, c);
        buf_printf(out, "%sB%g(%llu,%llu)", b ? " " : "", bounds[b], (unsigned long long)c[0],
                   (unsigned long long)c[1]);
    }
}

static void text_bins(const struct histogram *h, double scale, struct buf *out) {
    struct histogram_bin b;
    bool any = false;
    for (unsigned pos = 0; h && histogram_next(h, &pos, &b); any = true) {
        if (any) {
            buf_lit(out, ", ");
        }
        put_text(b.lower / scale, out);
        buf_lit(out, ",");
        put_text(b.width / scale, out);
        buf_printf(out, ":%llu", (unsigned long long)b.count);
    }
}

static void text_detailed(const struct stats_item *i, struct buf *out) {
    const struct stats_latch *l = stats_item_latch(i);
    buf_lit(out, "\n  totals=");
    text_bins(cum_of(l), stats_item_scale(i), out);
    buf_lit(out, "\n  intervals=");
    text_bins(interval_of(l), stats_item_scale(i), out);
    buf_lit(out, "\n  summary=");
    text_summary(i, out);
}

void stats_text_line(const struct stats_params *p, const struct stats_item *i, sv name,
                     struct buf *out) {
    buf_append_sv(out, name);
    buf_lit(out, ":");
    if (stats_item_kind(i) == STAT_HISTOGRAM && p->buckets == STATS_BUCKETS_DETAILED) {
        text_detailed(i, out);
        buf_lit(out, "\n");
        return;
    }
    buf_lit(out, " ");
    switch (stats_item_kind(i)) {
    case STAT_COUNTER:
    case STAT_GAUGE:
        buf_printf(out, "%llu", (unsigned long long)stats_item_value(i));
        break;
    case STAT_TEXT:
        buf_lit(out, "\"");
        buf_append_sv(out, stats_item_text(i));
        buf_lit(out, "\"");
        break;
    case STAT_HISTOGRAM:
        if (p->buckets == STATS_BUCKETS_CUMULATIVE || p->buckets == STATS_BUCKETS_DISJOINT) {
            text_buckets(i, name, p->buckets == STATS_BUCKETS_DISJOINT, out);
        } else {
            text_summary(i, out);
        }
        break;
    }
    buf_lit(out, "\n");
}

/* --- HTML --- */

static void html_escape(sv s, struct buf *out) {
    for (size_t i = 0; i < s.n; i++) {
        switch (s.p[i]) {
        case '&':
            buf_lit(out, "&amp;");
            break;
        case '<':
            buf_lit(out, "&lt;");
            break;
        case '>':
            buf_lit(out, "&gt;");
            break;
        case '"':
            buf_lit(out, "&quot;");
            break;
        case '\'':
            buf_lit(out, "&#39;");
            break;
        default:
            buf_append(out, &s.p[i], 1);
        }
    }
}

void stats_html_begin(const struct stats_params *p, struct buf *out) {
    (void)p;
    buf_lit(
        out,
        "<!DOCTYPE html>\n<html "
        "lang='en'>\n<head><title>Stats</title><style>td{font-family:monospace;"
        "padding:0 1em}</style></head>\n<body>\n<table>\n<tr><th>name</th><th>value</th></tr>\n");
}

void stats_html_row(const struct stats_params *p, const struct stats_item *i, sv name,
                    struct buf *out) {
    BUF_AUTO struct buf line = {0};
    stats_text_line(p, i, name, &line);
    sv text = buf_pullup(&line, buf_len(&line));
    /* behind "name:", without the line's end */
    sv value = sv_trim(sv_sub(text, name.n + 1, text.n - name.n - 2));
    buf_lit(out, "<tr><td>");
    html_escape(name, out);
    buf_lit(out, "</td><td>");
    html_escape(value, out);
    buf_lit(out, "</td></tr>\n");
}

void stats_html_end(struct buf *out) { buf_lit(out, "</table>\n</body>\n</html>\n"); }

/* --- JSON --- */

void stats_json_begin(struct buf *out) { buf_lit(out, "{\"stats\":["); }

static void json_name(sv name, struct buf *out) {
    buf_lit(out, "{\"name\":\"");
    json_escape(out, name);
    buf_lit(out, "\"");
}

static void json_quantiles(const char *key, const struct stats_item *i, struct buf *out) {
    const struct stats_latch *l = stats_item_latch(i);
    double interval[STATS_QUANTILES], cum[STATS_QUANTILES];
    stats_quantile_values(interval_of(l), stats_item_scale(i), interval);
    stats_quantile_values(cum_of(l), stats_item_scale(i), cum);
    buf_printf(out, ",\"%s\":[", key);
    for (unsigned q = 0; q < STATS_QUANTILES; q++) {
        buf_printf(out, "%s{\"cumulative\":", q ? "," : "");
        put_json(cum[q], out);
        buf_lit(out, ",\"interval\":");
        put_json(interval[q], out);
        buf_lit(out, "}");
    }
    buf_lit(out, "]");
}

static void json_bins(const char *key, const struct histogram *h, double scale, struct buf *out) {
    struct histogram_bin b;
    bool any = false;
    buf_printf(out, ",\"%s\":[", key);
    for (unsigned pos = 0; h && histogram_next(h, &pos, &b); any = true) {
        buf_printf(out, "%s{\"lower_bound\":", any ? "," : "");
        put_json(b.lower / scale, out);
        buf_lit(out, ",\"width\":");
        put_json(b.width / scale, out);
        buf_printf(out, ",\"count\":%llu}", (unsigned long long)b.count);
    }
    buf_lit(out, "]");
}

static void json_buckets(const struct stats_item *i, sv name, bool disjoint, struct buf *out) {
    unsigned n;
    const double *bounds = stats_config_bounds(i->scope->store->config, name, &n);
    buf_lit(out, ",\"buckets\":[");
    for (unsigned b = 0; b < n; b++) {
        uint64_t c[2];
        bucket_counts(i, bounds, b, disjoint, c);
        buf_printf(out, "%s{\"upper_bound\":", b ? "," : "");
        put_json(bounds[b], out);
        buf_printf(out, ",\"interval\":%llu,\"cumulative\":%llu}", (unsigned long long)c[0],
                   (unsigned long long)c[1]);
    }
    buf_lit(out, "]");
}

static bool is_bucketed(const struct stats_params *p) {
    return p->buckets == STATS_BUCKETS_CUMULATIVE || p->buckets == STATS_BUCKETS_DISJOINT;
}

static void json_histograms_begin(const struct stats_params *p, struct buf *out) {
    if (is_bucketed(p)) {
        buf_lit(out, "{\"histograms\":[");
        return;
    }
    bool detailed = p->buckets == STATS_BUCKETS_DETAILED;
    buf_printf(out, "{\"histograms\":{\"%s\":[",
               detailed ? "supported_percentiles" : "supported_quantiles");
    for (unsigned q = 0; q < STATS_QUANTILES; q++) {
        buf_printf(out, "%s%s", q ? "," : "", quantile_names[q]);
    }
    buf_printf(out, "],\"%s\":[", detailed ? "details" : "computed_quantiles");
}

static void json_histogram(const struct stats_params *p, const struct stats_item *i, sv name,
                           struct buf *out) {
    json_name(name, out);
    if (is_bucketed(p)) {
        json_buckets(i, name, p->buckets == STATS_BUCKETS_DISJOINT, out);
    } else if (p->buckets == STATS_BUCKETS_DETAILED) {
        const struct stats_latch *l = stats_item_latch(i);
        json_bins("totals", cum_of(l), stats_item_scale(i), out);
        json_bins("intervals", interval_of(l), stats_item_scale(i), out);
        json_quantiles("percentiles", i, out);
    } else {
        json_quantiles("values", i, out);
    }
    buf_lit(out, "}");
}

void stats_json_item(struct stats_json *j, const struct stats_params *p, const struct stats_item *i,
                     sv name, struct buf *out) {
    if (j->any) {
        buf_lit(out, ",");
    }
    j->any = true;
    if (stats_item_kind(i) == STAT_HISTOGRAM) {
        if (!j->in_histograms) {
            json_histograms_begin(p, out);
            j->in_histograms = true;
        }
        json_histogram(p, i, name, out);
        return;
    }
    json_name(name, out);
    if (stats_item_kind(i) == STAT_TEXT) {
        buf_lit(out, ",\"value\":\"");
        json_escape(out, stats_item_text(i));
        buf_lit(out, "\"}");
    } else {
        buf_printf(out, ",\"value\":%llu}", (unsigned long long)stats_item_value(i));
    }
}

void stats_json_end(const struct stats_json *j, const struct stats_params *p, struct buf *out) {
    if (j->in_histograms) {
        buf_append_sv(out, is_bucketed(p) ? SV("]}") : SV("]}}"));
    }
    buf_lit(out, "]}");
}
