/* Export requests: parameters, and the iterator that drives a walk in the wanted format.
 * Threads: see stats_export.h. Spec: Envoy's /stats parameters and error texts. */
#include "proxy/stats/stats_export.h"

#include <time.h>

#include "proxy/base/regex.h"
#include "proxy/stats/stats_iter.h"

#define SLICE_US 1000

/* --- parameters --- */

static const char usage_format[] =
    "usage: /stats?format=(html|active-html|json|prometheus|text)\n\n";
static const char usage_hidden[] = "usage: /stats?hidden=(include|only|exclude)\n\n";
static const char usage_buckets[] =
    "usage: /stats?histogram_buckets=(cumulative|disjoint|detailed|summary|prometheusnative)\n";

/* Percent-decode into a heap string; '+' stays. */
static sv url_decode(sv in) {
    char *out = xalloc(in.n + 1);
    size_t n = 0;
    for (size_t i = 0; i < in.n; i++) {
        int hi = in.p[i] == '%' && i + 2 < in.n ? ascii_hex(in.p[i + 1]) : -1;
        int lo = hi >= 0 ? ascii_hex(in.p[i + 2]) : -1;
        if (lo >= 0) {
            out[n++] = (char)(hi * 16 + lo);
            i += 2;
        } else {
            out[n++] = in.p[i];
        }
    }
    return sv_from(out, n);
}

static bool fail(struct buf *err, const char *text) {
    buf_append_sv(err, sv_cstr(text));
    return false;
}

static bool set_format(struct stats_params *p, sv v, struct buf *err) {
    if (sv_is(v, "text")) {
        p->format = STATS_TEXT;
    } else if (sv_is(v, "json")) {
        p->format = STATS_JSON;
    } else if (sv_is(v, "html") || sv_is(v, "active-html")) {
        p->format = STATS_HTML;
    } else if (sv_is(v, "prometheus")) {
        p->format = STATS_PROMETHEUS;
    } else {
        return fail(err, usage_format);
    }
    return true;
}

static bool set_type(struct stats_params *p, sv v, struct buf *err) {
    static const struct {
        const char *name;
        unsigned kinds;
    } types[] = {{"All", STATS_KINDS_ALL},
                 {"Counters", 1u << STAT_COUNTER},
                 {"Gauges", 1u << STAT_GAUGE},
                 {"Histograms", 1u << STAT_HISTOGRAM},
                 {"TextReadouts", 1u << STAT_TEXT}};
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        if (sv_is(v, types[i].name)) {
            p->kinds = types[i].kinds;
            return true;
        }
    }
    return fail(err, "invalid &type= param");
}

static bool set_buckets(struct stats_params *p, sv v, bool *is_native, struct buf *err) {
    if (sv_is(v, "cumulative")) {
        p->buckets = STATS_BUCKETS_CUMULATIVE;
    } else if (sv_is(v, "disjoint")) {
        p->buckets = STATS_BUCKETS_DISJOINT;
    } else if (sv_is(v, "detailed")) {
        p->buckets = STATS_BUCKETS_DETAILED;
    } else if (sv_is(v, "summary")) {
        p->buckets = STATS_BUCKETS_SUMMARY;
    } else if (sv_is(v, "prometheusnative")) {
        *is_native = true;
    } else if (!sv_is(v, "none")) {
        return fail(err, usage_buckets);
    }
    return true;
}

static bool set_filter(struct stats_params *p, sv v, struct buf *err) {
    char why[256];
    regex_free(p->filter);
    p->filter = v.n ? regex_new(v.p, v.n, why, sizeof(why)) : NULL;
    if (v.n && !p->filter) {
        buf_printf(err, "Invalid re2 regex: %s", why);
        return false;
    }
    return true;
}

static bool set_hidden(struct stats_params *p, sv v, struct buf *err) {
    if (sv_is(v, "only")) {
        p->is_empty = true;
    } else if (!sv_is(v, "include") && !sv_is(v, "exclude")) {
        return fail(err, usage_hidden);
    }
    return true;
}

static bool set_param(struct stats_params *p, sv key, sv value, bool *is_native, struct buf *err) {
    if (sv_is(key, "usedonly")) {
        p->used_only = true;
    } else if (sv_is(key, "text_readouts")) {
        p->text_readouts = true;
    } else if (sv_is(key, "invert_filter")) {
        p->invert_filter = true;
    } else if (sv_is(key, "format")) {
        return set_format(p, value, err);
    } else if (sv_is(key, "type")) {
        return set_type(p, value, err);
    } else if (sv_is(key, "histogram_buckets")) {
        return set_buckets(p, value, is_native, err);
    } else if (sv_is(key, "hidden")) {
        return set_hidden(p, value, err);
    } else if (sv_is(key, "filter")) {
        return set_filter(p, value, err);
    }
    return true;
}

static bool check_buckets(const struct stats_params *p, bool is_native, struct buf *err) {
    if (p->format != STATS_PROMETHEUS) {
        return !is_native ||
               fail(err, "Invalid histogram_buckets type for non prometheus stats type");
    }
    if (is_native) {
        return fail(err, "unsupported prometheusnative histogram type when not using protobuf "
                         "exposition format");
    }
    bool bad = p->buckets == STATS_BUCKETS_DISJOINT || p->buckets == STATS_BUCKETS_DETAILED;
    return !bad || fail(err, "unsupported prometheus histogram bucket mode");
}

bool stats_params_parse(struct stats_params *p, sv query, bool is_prometheus, struct buf *err) {
    *p = (struct stats_params){.kinds = STATS_KINDS_ALL};
    bool ok = true, is_native = false;
    while (query.n && ok) {
        sv pair = sv_cut(&query, '&');
        sv key = url_decode(sv_cut(&pair, '=')), value = url_decode(pair);
        ok = set_param(p, key, value, &is_native, err);
        xfree((char *)(uintptr_t)key.p);
        xfree((char *)(uintptr_t)value.p);
    }
    if (is_prometheus) {
        p->format = STATS_PROMETHEUS;
    }
    ok = ok && check_buckets(p, is_native, err);
    if (!ok) {
        stats_params_fini(p);
    }
    return ok;
}

void stats_params_fini(struct stats_params *p) {
    regex_free(p->filter);
    p->filter = NULL;
}

bool stats_params_accept(const struct stats_params *p, sv name) {
    return !p->filter || regex_partial_match(p->filter, name.p, name.n) != p->invert_filter;
}

const char *stats_content_type(enum stats_format f) {
    switch (f) {
    case STATS_JSON:
        return "application/json";
    case STATS_HTML:
        return "text/html; charset=UTF-8";
    case STATS_TEXT:
    case STATS_PROMETHEUS:
        break;
    }
    return "text/plain; charset=UTF-8";
}

/* --- iterator --- */

/* Passes over the stats: texts, then counters and gauges together, then histograms. */
static const unsigned passes[] = {1u << STAT_TEXT, 1u << STAT_COUNTER | 1u << STAT_GAUGE,
                                  1u << STAT_HISTOGRAM};

struct stats_iter {
    struct stats_store *store;
    struct stats_params params;
    struct stats_json json;
    struct stats_walk walk;
    struct stats_prom prom;
    unsigned pass;
    bool begun, walking, done;
    struct buf *out; /* of the running call */
};

struct stats_iter *stats_iter_new(struct stats_store *s, const struct stats_params *p) {
    struct stats_iter *it = xnew(struct stats_iter);
    it->store = s;
    it->params = *p;
    if (p->format == STATS_PROMETHEUS) {
        stats_prom_init(&it->prom, s, &it->params);
    }
    it->done = p->is_empty && (p->format == STATS_PROMETHEUS || p->format == STATS_TEXT);
    return it;
}

void stats_iter_free(struct stats_iter *it) {
    if (!it) {
        return;
    }
    if (it->walking) {
        stats_walk_fini(&it->walk);
    }
    stats_prom_fini(&it->prom);
    stats_params_fini(&it->params);
    xfree(it);
}

static void emit(void *arg, const struct stats_item *i, sv name) {
    struct stats_iter *it = arg;
    switch (it->params.format) {
    case STATS_TEXT:
        stats_text_line(&it->params, i, name, it->out);
        break;
    case STATS_JSON:
        stats_json_item(&it->json, &it->params, i, name, it->out);
        break;
    case STATS_HTML:
        stats_html_row(&it->params, i, name, it->out);
        break;
    case STATS_PROMETHEUS:
        break;
    }
}

static void begin(struct stats_iter *it) {
    it->begun = true;
    if (it->params.format == STATS_JSON) {
        stats_json_begin(it->out);
    } else if (it->params.format == STATS_HTML) {
        stats_html_begin(&it->params, it->out);
    }
}

static void end(struct stats_iter *it) {
    it->done = true;
    if (it->params.format == STATS_JSON) {
        stats_json_end(&it->json, &it->params, it->out);
    } else if (it->params.format == STATS_HTML) {
        stats_html_end(it->out);
    }
}

/* One batch; the pass moves on when it has ended. */
static void step(struct stats_iter *it) {
    if (it->params.format == STATS_PROMETHEUS) {
        it->done = !stats_prom_next(&it->prom, it->out);
        return;
    }
    if (!it->walking && (it->pass == ARRAY_LEN(passes) || it->params.is_empty)) {
        end(it);
        return;
    }
    if (!it->walking) {
        stats_walk_init(&it->walk, it->store, &it->params, passes[it->pass] & it->params.kinds);
        it->walking = true;
    }
    if (!stats_walk_next(&it->walk, emit, it)) {
        stats_walk_fini(&it->walk);
        it->walking = false;
        it->pass++;
    }
}

static uint64_t now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_nsec / 1000u;
}

bool stats_iter_next(struct stats_iter *it, struct buf *out, size_t max_bytes) {
    uint64_t until = now_us() + SLICE_US;
    size_t limit = buf_len(out) + max_bytes;
    it->out = out;
    if (!it->begun) {
        begin(it);
    }
    while (!it->done && buf_len(out) < limit) {
        step(it);
        if (now_us() >= until) {
            break;
        }
    }
    it->out = NULL;
    return !it->done;
}
