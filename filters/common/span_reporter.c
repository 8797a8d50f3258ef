/* See the header. A part holds a ref on the tracer while a timer or a call of its could come
 * back. */
#include "filters/common/span_reporter.h"

#include "proxy/api/http_filter.h"
#include "proxy/base/runtime.h"

struct part {
    struct span_reporter *reporter;
    struct worker *worker;
    struct buf spans;
    unsigned n;
    struct timer flush;
    struct list reports; /* under way */
    unsigned reports_n;
    struct worker_ending ending;
};
struct span_report {
    struct list node;
    struct part *part;
    struct upstream_call *call;
};
struct span_reporter {
    /* immutable */
    struct shared *owner;
    const struct span_reporter_ops *ops;
    struct span_reporter_limits limits;
    const void *config;
    /* by thread index, made by their threads */
    struct part *parts[STATS_THREADS_MAX];
};

static void free_parts(void *arg) {
    struct span_reporter *r = arg;
    for (unsigned i = 0; i < STATS_THREADS_MAX; i++) {
        if (r->parts[i]) {
            buf_fini(&r->parts[i]->spans); /* empty: no chunk of that thread is in it */
            xfree(r->parts[i]);
        }
    }
}

struct span_reporter *span_reporter_new(struct arena *a, struct shared *owner,
                                        const struct span_reporter_ops *ops,
                                        const struct span_reporter_limits *limits,
                                        const void *config) {
    struct span_reporter *r = arena_new(a, struct span_reporter);
    r->owner = owner;
    r->ops = ops;
    r->limits = *limits;
    r->config = config;
    arena_on_fini(a, free_parts, r);
    return r;
}

/* ---- refs: one while the timer runs, one a report ---- */

static bool is_idle(const struct part *p) { return !timer_active(&p->flush) && !p->reports_n; }

/* Before the last of them goes: the tracer, and this part with it, may be gone afterwards. */
static void release(struct part *p) {
    if (is_idle(p)) {
        worker_ending_cancel(&p->ending);
    }
    shared_unref(p->reporter->owner);
}

static void hold(struct part *p) {
    if (is_idle(p)) {
        worker_at_end(p->worker, &p->ending);
    }
    shared_ref_(p->reporter->owner);
}

/* ---- sending ---- */

static void send_all(struct part *p, bool by_timer) {
    const struct span_reporter *r = p->reporter;
    struct span_report *rep = xnew(struct span_report);
    unsigned n = p->n;
    rep->part = p;
    hold(p);
    list_push_back(&p->reports, &rep->node);
    p->reports_n++;
    p->n = 0;
    r->ops->sent(r->config, p->worker, n, by_timer);
    rep->call = r->ops->send(r->config, p->worker, &p->spans, rep);
    buf_clear(&p->spans);
}

static uint64_t min_flush(const struct span_reporter *r) {
    uint64_t n = runtime_u64(r->limits.min_flush_key, r->limits.min_flush);
    return n ? n : 1;
}

static void stop_timer(struct part *p) {
    if (timer_active(&p->flush)) {
        timer_cancel(&p->flush);
        release(p);
    }
}

static void start_timer(struct part *p) {
    if (!timer_active(&p->flush)) {
        const struct span_reporter_limits *l = &p->reporter->limits;
        hold(p);
        timer_start(&p->flush, runtime_u64(l->interval_key, l->interval_ms));
    }
}

/* When enough wait, or it is time. The caller holds a ref. */
static void flush(struct part *p, bool by_timer) {
    bool is_due = p->n && (by_timer || p->n >= min_flush(p->reporter));
    if (is_due && p->reports_n < SPAN_REPORTS_MAX) {
        send_all(p, by_timer);
    }
    if (p->n) {
        start_timer(p);
    } else {
        stop_timer(p);
    }
}

static void on_flush(struct timer *t) {
    struct part *p = CONTAINER_OF(t, struct part, flush);
    struct shared *owner = p->reporter->owner; /* the timer's ref is kept until flush is over */
    shared_ref_(owner);
    release(p);
    flush(p, true);
    shared_unref(owner);
}

void span_report_done(struct span_report *rep) {
    struct part *p = rep->part;
    struct shared *owner = p->reporter->owner;
    shared_ref_(owner);
    list_unlink(&rep->node);
    p->reports_n--;
    xfree(rep);
    release(p);
    flush(p, false);
    shared_unref(owner);
}

const void *span_report_config(const struct span_report *r) { return r->part->reporter->config; }
struct worker *span_report_worker(const struct span_report *r) {
    return r->part->worker;
}

/* The worker's thread ends: nothing is sent any more. */
static void on_ending(struct worker_ending *e) {
    struct part *p = CONTAINER_OF(e, struct part, ending);
    struct shared *owner = p->reporter->owner;
    shared_ref_(owner);
    buf_clear(&p->spans);
    p->n = 0;
    stop_timer(p);
    for (struct list *n; (n = list_pop_front(&p->reports));) {
        struct span_report *rep = CONTAINER_OF(n, struct span_report, node);
        upstream_call_cancel(rep->call);
        xfree(rep);
        p->reports_n--;
        release(p);
    }
    shared_unref(owner);
}

/* ---- adding ---- */

static struct part *part_of(struct span_reporter *r, struct worker *w) {
    struct loop *l = worker_loop(w);
    struct part *p = r->parts[l->thread_index];
    if (!p) {
        p = r->parts[l->thread_index] = xnew(struct part);
        p->reporter = r;
        p->worker = w;
        p->ending.run = on_ending;
        buf_init(&p->spans);
        list_init(&p->reports);
        timer_init(&p->flush, l, on_flush);
    }
    return p;
}

void span_reporter_add(struct span_reporter *r, struct worker *w, struct buf *span) {
    struct part *p = part_of(r, w);
    if (p->n >= r->limits.spans_max) {
        buf_clear(span);
        r->ops->dropped(r->config, w, 1);
        return;
    }
    buf_move(&p->spans, span);
    p->n++;
    flush(p, false);
}
