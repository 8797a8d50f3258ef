/* See stats_lines.h. A histogram is told by the bins of its last interval, each as one sample with
 * the rate that stands for the others in it ("|@0.25": four), as no sample is sent by itself. */
#include "proxy/stats/stats_lines.h"

#include "proxy/stats/stats_iter.h"
#include "proxy/stats/stats_tags.h"

struct stats_lines {
    struct stats_walk walk;
    struct stats_params params;
    const struct stats_line_form *forms;
    unsigned forms_n;
    stats_line_fn fn;
    void *user;
    struct buf *out; /* by form: lines of this slice, each with a newline */
};

/* ---- what changed ---- */

static uint64_t *flushed_of(const struct stats_item *i) {
    struct stats_ext *e;
    if (i->dyn) {
        return &((struct stat_dyn *)(uintptr_t)i->dyn)->flushed;
    }
    e = stats_scope_ext((struct stats_scope *)(uintptr_t)i->scope);
    if (!e->flushed) {
        e->flushed = xnew_array(uint64_t, i->scope->group->n);
    }
    return &e->flushed[i->cell];
}

/* Since the last flush, or since the counter was reset after it. */
static uint64_t grown(const struct stats_item *i) {
    uint64_t now = stats_item_value(i), *flushed = flushed_of(i);
    uint64_t delta = now >= *flushed ? now - *flushed : now;
    *flushed = now;
    return delta;
}

/* ---- lines ---- */

struct text {
    sv name, tags; /* "|#a:b,c:d", or empty */
};

static void begin(struct stats_lines *l, unsigned form, const struct text *t) {
    buf_printf(&l->out[form], "%.*s.%.*s:", SV_ARG(l->forms[form].prefix), SV_ARG(t->name));
}

static void add_number(struct stats_lines *l, unsigned form, const struct text *t, uint64_t v,
                       const char *kind) {
    begin(l, form, t);
    buf_printf(&l->out[form], "%llu|%s%.*s\n", (unsigned long long)v, kind, SV_ARG(t->tags));
}

static void add_histogram(struct stats_lines *l, unsigned form, const struct text *t,
                          const struct stats_item *i) {
    const struct stats_latch *latch = stats_item_latch(i);
    double scale = stats_item_scale(i);
    struct histogram_bin b;
    if (!latch || !latch->interval) {
        return;
    }
    for (unsigned pos = 0; histogram_next(latch->interval, &pos, &b);) {
        char value[STATS_DOUBLE_MAX], rate[STATS_DOUBLE_MAX];
        begin(l, form, t);
        sv v = stats_double_text(b.lower / scale, value);
        buf_printf(&l->out[form], "%.*s|%s", SV_ARG(v), scale == 1 ? "ms" : "h");
        if (b.count > 1) {
            sv one_of = stats_double_text(1.0 / (double)b.count, rate);
            buf_printf(&l->out[form], "|@%.*s", SV_ARG(one_of));
        }
        buf_printf(&l->out[form], "%.*s\n", SV_ARG(t->tags));
    }
}

static void write_tags(const struct stats_tag_set *set, struct buf *out) {
    for (unsigned i = 0; i < set->n; i++) {
        buf_printf(out, "%s%.*s:%.*s", i ? "," : "|#", SV_ARG(set->v[i].name),
                   SV_ARG(set->v[i].value));
    }
}

static void emit(void *arg, const struct stats_item *i, sv name) {
    struct stats_lines *l = arg;
    enum stat_kind kind = stats_item_kind(i);
    uint64_t value = kind == STAT_COUNTER ? grown(i) : kind == STAT_GAUGE ? stats_item_value(i) : 0;
    for (unsigned f = 0; f < l->forms_n; f++) {
        char full[STATS_FULL_MAX];
        struct stats_tag_set set;
        struct buf BUF_AUTO tags;
        struct text t = {.name = name};
        buf_init(&tags);
        if (l->forms[f].has_tags) {
            stats_extract(i->scope, stats_item_name(i), &set, full);
            write_tags(&set, &tags);
            t = (struct text){set.name, buf_pullup(&tags, buf_len(&tags))};
        }
        if (kind == STAT_HISTOGRAM) {
            add_histogram(l, f, &t, i);
        } else {
            add_number(l, f, &t, value, kind == STAT_COUNTER ? "c" : "g");
        }
    }
}

/* ---- life ---- */

struct stats_lines *stats_lines_new(struct stats_store *s, const struct stats_line_form *forms,
                                    unsigned forms_n, stats_line_fn fn, void *user) {
    struct stats_lines *l = xnew(struct stats_lines);
    *l = (struct stats_lines){.forms = forms, .forms_n = forms_n, .fn = fn, .user = user};
    l->params = (struct stats_params){.kinds = STATS_KINDS_ALL, .used_only = true};
    l->out = xnew_array(struct buf, forms_n);
    for (unsigned f = 0; f < forms_n; f++) {
        buf_init(&l->out[f]);
    }
    stats_walk_init(&l->walk, s, &l->params,
                    1u << STAT_COUNTER | 1u << STAT_GAUGE | 1u << STAT_HISTOGRAM);
    return l;
}

bool stats_lines_next(struct stats_lines *l) {
    bool more = stats_walk_next(&l->walk, emit, l);
    for (unsigned f = 0; f < l->forms_n; f++) {
        sv lines = buf_pullup(&l->out[f], buf_len(&l->out[f]));
        while (lines.n) {
            l->fn(l->user, f, sv_cut(&lines, '\n'));
        }
        buf_clear(&l->out[f]);
    }
    return more;
}

void stats_lines_free(struct stats_lines *l) {
    if (!l) {
        return;
    }
    for (unsigned f = 0; f < l->forms_n; f++) {
        buf_fini(&l->out[f]);
    }
    xfree(l->out);
    stats_walk_fini(&l->walk);
    xfree(l);
}
