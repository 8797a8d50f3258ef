/* Outlier detection: see outlier.h. Each kind of failure is a row of `kinds`.
 * Threads: host_report on workers, the rest on the detector's loop. */
#include "proxy/upstream/outlier.h"

#include <math.h>

#include "proxy/base/log.h"
#include "proxy/base/map.h"
#include "proxy/base/runtime.h"
#include "proxy/base/vec.h"
#include "proxy/upstream/outlier_event.h"

STATS_GROUP(outlier, OUTLIER, OUTLIER_STATS);

enum kind {
    CONSECUTIVE_5XX,
    CONSECUTIVE_GATEWAY,
    CONSECUTIVE_LOCAL,
    SUCCESS_RATE,
    SUCCESS_RATE_LOCAL,
    FAILURE_PERCENTAGE,
    FAILURE_PERCENTAGE_LOCAL,
    KINDS,
};
static const struct {
    unsigned detected, enforced; /* stats */
    unsigned type;               /* data.cluster.v3.OutlierEjectionType */
    size_t enforcing;            /* offset of the percentage in the config */
    sv enforcing_key;
} kinds[KINDS] = {
#define ROW(kind, stat, type, field)                                                      \
    [kind] = {OUTLIER_ejections_detected_##stat, OUTLIER_ejections_enforced_##stat, type, \
              offsetof(struct outlier_config, field), SV_INIT("outlier_detection." #field)}
    ROW(CONSECUTIVE_5XX, consecutive_5xx, 0, enforcing_consecutive_5xx),
    ROW(CONSECUTIVE_GATEWAY, consecutive_gateway_failure, 1, enforcing_consecutive_gateway_failure),
    ROW(CONSECUTIVE_LOCAL, consecutive_local_origin_failure, 3,
        enforcing_consecutive_local_origin_failure),
    ROW(SUCCESS_RATE, success_rate, 2, enforcing_success_rate),
    ROW(SUCCESS_RATE_LOCAL, local_origin_success_rate, 4, enforcing_local_origin_success_rate),
    ROW(FAILURE_PERCENTAGE, failure_percentage, 5, enforcing_failure_percentage),
    ROW(FAILURE_PERCENTAGE_LOCAL, local_origin_failure_percentage, 6,
        enforcing_failure_percentage_local_origin),
#undef ROW
};

struct watched {
    struct host *host; /* a ref */
    uint64_t ejected_ms, jitter_ms;
    uint32_t backoff; /* times base_ejection_time */
    bool is_ejected;
    uint32_t ejections;
    uint64_t returned_ms; /* when it came back last */
    double rate[2];       /* success rates: external, local origin; -1: too few requests */
};
struct outlier_detector {
    struct shared shared;
    struct outlier_config cfg;
    struct loop *loop;
    struct stats_scope *scope;
    struct stats_shard *stats;
    sv cluster; /* heap */
    struct timer timer;
    struct rng rng;
    void (*on_change)(void *arg, struct host *h);
    void *arg;
    bool is_stopped;
    uint64_t now_ms;
    unsigned ejected_n;
    double threshold[2], average[2];
    struct map by_id; /* host id → struct watched */
};

/* ---- on workers ---- */

struct notice {
    struct loop_msg msg;
    struct outlier_detector *detector; /* a ref */
    struct host *host;                 /* a ref */
    enum kind kind;
};

static void on_consecutive(struct outlier_detector *d, struct host *h, enum kind kind);

static void on_notice(struct loop *l, struct loop_msg *m) {
    (void)l;
    struct notice *n = CONTAINER_OF(m, struct notice, msg);
    on_consecutive(n->detector, n->host, n->kind);
    shared_unref(&n->host->shared);
    shared_unref(&n->detector->shared);
    xfree(n);
}

static void notify(struct outlier_detector *d, struct host *h, enum kind kind) {
    if (!d->loop) {
        on_consecutive(d, h, kind);
        return;
    }
    struct notice *n = xnew(struct notice);
    *n = (struct notice){
        .msg.run = on_notice, .detector = shared_ref(d), .host = shared_ref(h), .kind = kind};
    loop_post(d->loop, &n->msg);
}

/* One failure more in a row; the one that fills the run tells the detector. */
static void failed(struct outlier_detector *d, struct host *h, uint32_t *run, uint32_t limit,
                   sv key, enum kind kind) {
    uint32_t n = __atomic_add_fetch(run, 1, __ATOMIC_RELAXED);
    if (n == runtime_u64(key, limit)) {
        notify(d, h, kind);
    }
}

static void reset_run(uint32_t *run) {
    if (__atomic_load_n(run, __ATOMIC_RELAXED)) {
        __atomic_store_n(run, 0, __ATOMIC_RELAXED);
    }
}

static void tally(struct host_tally *t, bool success) {
    __atomic_add_fetch(&t->total, 1, __ATOMIC_RELAXED);
    if (success) {
        __atomic_add_fetch(&t->success, 1, __ATOMIC_RELAXED);
    }
}

static void report_status(struct outlier_detector *d, struct host *h, unsigned status) {
    bool is_5xx = status >= 500 && status < 600;
    tally(&h->outlier_external, !is_5xx);
    if (!is_5xx) {
        reset_run(&h->outlier_consecutive_5xx);
        reset_run(&h->outlier_consecutive_gateway);
        return;
    }
    if (status >= 502 && status <= 504) {
        failed(d, h, &h->outlier_consecutive_gateway, d->cfg.consecutive_gateway_failure,
               SV("outlier_detection.consecutive_gateway_failure"), CONSECUTIVE_GATEWAY);
    } else {
        reset_run(&h->outlier_consecutive_gateway);
    }
    failed(d, h, &h->outlier_consecutive_5xx, d->cfg.consecutive_5xx,
           SV("outlier_detection.consecutive_5xx"), CONSECUTIVE_5XX);
}

static void report_local(struct outlier_detector *d, struct host *h, bool success) {
    tally(&h->outlier_local, success);
    if (success) {
        reset_run(&h->outlier_consecutive_local);
        return;
    }
    failed(d, h, &h->outlier_consecutive_local, d->cfg.consecutive_local_origin_failure,
           SV("outlier_detection.consecutive_local_origin_failure"), CONSECUTIVE_LOCAL);
}

void host_report(const struct cluster_config *c, struct host *h, enum host_result r,
                 unsigned http_status) {
    struct outlier_detector *d = c->detector;
    if (LIKELY(!d)) {
        return;
    }
    bool split = d->cfg.split_external_local_origin_errors;
    switch (r) {
    case HOST_RESULT_HTTP:
        report_status(d, h, http_status);
        return;
    case HOST_RESULT_CONNECT_OK:
        if (split) {
            report_local(d, h, true);
        } else if (
            /* a TCP connection is a success in itself, an HTTP one is judged by its responses */
            http_status) {
            report_status(d, h, http_status);
        }
        return;
    case HOST_RESULT_CONNECT_FAILED:
    case HOST_RESULT_RESET:
    case HOST_RESULT_TIMEOUT:
        if (split) {
            report_local(d, h, false);
        } else {
            report_status(d, h, r == HOST_RESULT_TIMEOUT ? 504 : 503);
        }
        return;
    }
}

/* ---- ejecting ---- */

static sv id_key(const struct host *h) { return sv_from(&h->id, sizeof(h->id)); }
static struct watched *find(const struct outlier_detector *d, const struct host *h) {
    return map_get(&d->by_id, id_key(h));
}

static uint64_t tuned(const char *name, uint64_t dflt) {
    char key[96] = "outlier_detection.";
    size_t n = strlen(key), more = strlen(name);
    memcpy(key + n, name, more);
    return runtime_u64(sv_from(key, n + more), dflt);
}
#define TUNED(d, field) tuned(#field, (d)->cfg.field)

static bool may_eject(const struct outlier_detector *d) {
    uint64_t max_pct = TUNED(d, max_ejection_percent);
    max_pct = max_pct < 100 ? max_pct : 100;
    double pct = 100.0 * (d->ejected_n + 1) / (double)map_count(&d->by_id);
    return pct <= (double)max_pct || (d->cfg.always_eject_one_host && d->ejected_n == 0);
}

static bool is_enforced(struct outlier_detector *d, enum kind kind) {
    const uint32_t *pct =
        (const uint32_t *)(const void *)((const char *)&d->cfg + kinds[kind].enforcing);
    return rng_below(&d->rng, 100) < runtime_u64(kinds[kind].enforcing_key, *pct);
}

static void set_ejected(struct outlier_detector *d, struct watched *w, bool ejected) {
    w->is_ejected = ejected;
    d->ejected_n += ejected ? 1 : -1u;
    stats_gauge_set(d->stats, OUTLIER_ejections_active, d->ejected_n);
    uint32_t flag = HOST_FLAG(FAILED_OUTLIER_CHECK);
    host_flags_change(w->host, ejected ? flag : 0, ejected ? 0 : flag,
                      d->loop ? loop_now_us(d->loop) : d->now_ms * 1000);
}

static void tell_ejection(struct outlier_detector *d, const struct watched *w, enum kind kind,
                          bool is_enforced) {
    bool is_local = kind == SUCCESS_RATE_LOCAL || kind == FAILURE_PERCENTAGE_LOCAL;
    const struct outlier_event e = {.type = kinds[kind].type,
                                    .is_enforced = is_enforced,
                                    .cluster = d->cluster,
                                    .host = w->host,
                                    .ejections = w->ejections,
                                    .has_last = w->returned_ms,
                                    .since_last_s = (d->now_ms - w->returned_ms) / 1000,
                                    .rate = w->rate[is_local],
                                    .average = d->average[is_local],
                                    .threshold = d->threshold[is_local]};
    outlier_event_log(d->loop, &e);
}

static void eject(struct outlier_detector *d, struct watched *w, enum kind kind) {
    if (!may_eject(d)) {
        stats_inc(d->stats, OUTLIER_ejections_overflow);
        return;
    }
    if (kind == CONSECUTIVE_5XX || kind == SUCCESS_RATE) {
        stats_inc(d->stats, OUTLIER_ejections_total); /* deprecated: what it counted once */
    }
    if (!is_enforced(d, kind)) {
        tell_ejection(d, w, kind, false);
        return;
    }
    stats_inc(d->stats, OUTLIER_ejections_enforced_total);
    stats_inc(d->stats, kinds[kind].enforced);
    set_ejected(d, w, true);
    w->ejected_ms = d->now_ms;
    w->jitter_ms = d->cfg.max_ejection_time_jitter_ms
                       ? rng_below(&d->rng, TUNED(d, max_ejection_time_jitter_ms) + 1)
                       : 0;
    uint64_t base_ms = TUNED(d, base_ejection_time_ms), max_ms = TUNED(d, max_ejection_time_ms);
    if (w->backoff * base_ms < max_ms + base_ms) {
        w->backoff++;
    }
    w->ejections++;
    tell_ejection(d, w, kind, true);
    log_debug(LOG_upstream, "cluster '%.*s': host %.*s ejected", SV_ARG(d->cluster),
              SV_ARG(w->host->address_text));
    d->on_change(d->arg, w->host);
}

static void on_consecutive(struct outlier_detector *d, struct host *h, enum kind kind) {
    struct watched *w = d->is_stopped ? NULL : find(d, h);
    if (!w || w->is_ejected) {
        return; /* gone meanwhile, or known already */
    }
    if (d->loop) {
        d->now_ms = loop_now_ms(d->loop);
    }
    stats_inc(d->stats, kinds[kind].detected);
    uint32_t *run = &h->outlier_consecutive_local;
    if (kind == CONSECUTIVE_5XX) {
        stats_inc(d->stats, OUTLIER_ejections_consecutive_5xx);
        run = &h->outlier_consecutive_5xx;
    } else if (kind == CONSECUTIVE_GATEWAY) {
        run = &h->outlier_consecutive_gateway;
    }
    eject(d, w, kind);
    reset_run(run); /* the next run counts from here, even if nothing succeeds in between */
}

/* ---- coming back ---- */

static void uneject(struct outlier_detector *d, struct watched *w) {
    set_ejected(d, w, false);
    reset_run(&w->host->outlier_consecutive_5xx);
    reset_run(&w->host->outlier_consecutive_gateway);
    reset_run(&w->host->outlier_consecutive_local);
    const struct outlier_event e = {.is_return = true,
                                    .cluster = d->cluster,
                                    .host = w->host,
                                    .ejections = w->ejections,
                                    .has_last = true,
                                    .since_last_s = (d->now_ms - w->ejected_ms) / 1000};
    outlier_event_log(d->loop, &e);
    w->returned_ms = d->now_ms;
    log_debug(LOG_upstream, "cluster '%.*s': host %.*s is back", SV_ARG(d->cluster),
              SV_ARG(w->host->address_text));
    d->on_change(d->arg, w->host);
}

static void check_return(struct outlier_detector *d, struct watched *w) {
    if (!w->is_ejected) {
        w->backoff -= w->backoff > 0;
        return;
    }
    uint64_t away_ms = TUNED(d, base_ejection_time_ms) * w->backoff,
             max_ms = TUNED(d, max_ejection_time_ms);
    away_ms = (away_ms < max_ms ? away_ms : max_ms) + w->jitter_ms;
    if (d->now_ms - w->ejected_ms >= away_ms) {
        uneject(d, w);
    }
}

void outlier_detector_healthy(struct outlier_detector *d, struct host *h) {
    struct watched *w = d->is_stopped ? NULL : find(d, h);
    if (w && w->is_ejected && d->cfg.uneject_on_health_check) {
        d->now_ms = d->loop ? loop_now_ms(d->loop) : d->now_ms;
        uneject(d, w);
    }
}

/* ---- rates ---- */

struct rated {
    struct watched *w;
    double rate;
};
typedef VEC(struct rated) rated_vec;

static uint32_t take(uint32_t *n) { return __atomic_exchange_n(n, 0, __ATOMIC_RELAXED); }

/* The interval's rates; hosts with requests enough for each of the two judgements. */
static void collect(struct outlier_detector *d, bool is_local, rated_vec *by_rate,
                    rated_vec *by_failures) {
    uint64_t rate_volume = TUNED(d, success_rate_request_volume),
             failure_volume = TUNED(d, failure_percentage_request_volume);
    size_t it = 0;
    for (struct map_slot *s; (s = map_next(&d->by_id, &it));) {
        struct watched *w = s->value;
        struct host_tally *t = is_local ? &w->host->outlier_local : &w->host->outlier_external;
        uint32_t total = take(&t->total), success = take(&t->success);
        w->rate[is_local] = -1;
        if (w->is_ejected || !total) {
            continue;
        }
        double rate = 100.0 * success / total;
        if (total >= rate_volume || total >= failure_volume) {
            w->rate[is_local] = rate;
        }
        if (total >= rate_volume) {
            *vec_push(by_rate) = (struct rated){w, rate};
        }
        if (total >= failure_volume) {
            *vec_push(by_failures) = (struct rated){w, rate};
        }
    }
}

static void judge_rates(struct outlier_detector *d, bool is_local, const rated_vec *v) {
    if (!v->n || v->n < TUNED(d, success_rate_minimum_hosts)) {
        return;
    }
    double sum = 0, squares = 0;
    for (size_t i = 0; i < v->n; i++) {
        sum += v->p[i].rate;
    }
    double mean = d->average[is_local] = sum / (double)v->n;
    for (size_t i = 0; i < v->n; i++) {
        squares += (v->p[i].rate - mean) * (v->p[i].rate - mean);
    }
    double factor = (double)TUNED(d, success_rate_stdev_factor) / 1000.0;
    d->threshold[is_local] = mean - factor * sqrt(squares / (double)v->n);
    enum kind kind = is_local ? SUCCESS_RATE_LOCAL : SUCCESS_RATE;
    for (size_t i = 0; i < v->n; i++) {
        if (v->p[i].rate < d->threshold[is_local]) {
            stats_inc(d->stats, OUTLIER_ejections_success_rate);
            stats_inc(d->stats, kinds[kind].detected);
            eject(d, v->p[i].w, kind);
        }
    }
}

static void judge_failures(struct outlier_detector *d, bool is_local, const rated_vec *v) {
    if (!v->n || v->n < TUNED(d, failure_percentage_minimum_hosts)) {
        return;
    }
    double threshold = (double)TUNED(d, failure_percentage_threshold);
    enum kind kind = is_local ? FAILURE_PERCENTAGE_LOCAL : FAILURE_PERCENTAGE;
    for (size_t i = 0; i < v->n; i++) {
        if (100.0 - v->p[i].rate >= threshold && !v->p[i].w->is_ejected) {
            stats_inc(d->stats, kinds[kind].detected);
            eject(d, v->p[i].w, kind);
        }
    }
}

static void judge(struct outlier_detector *d, bool is_local) {
    rated_vec by_rate = {0}, by_failures = {0};
    d->threshold[is_local] = d->average[is_local] = -1;
    collect(d, is_local, &by_rate, &by_failures);
    judge_rates(d, is_local, &by_rate);
    judge_failures(d, is_local, &by_failures);
    vec_fini(&by_rate);
    vec_fini(&by_failures);
}

void outlier_detector_evaluate(struct outlier_detector *d, uint64_t now_ms) {
    d->now_ms = now_ms;
    size_t it = 0;
    for (struct map_slot *s; (s = map_next(&d->by_id, &it));) {
        check_return(d, s->value);
    }
    judge(d, false);
    judge(d, true);
}

static void on_interval(struct timer *t) {
    struct outlier_detector *d = CONTAINER_OF(t, struct outlier_detector, timer);
    outlier_detector_evaluate(d, loop_now_ms(d->loop));
    timer_start(&d->timer, TUNED(d, interval_ms));
}

double outlier_detector_success_rate(const struct outlier_detector *d, const struct host *h,
                                     bool is_local_origin) {
    const struct watched *w = find(d, h);
    return w ? w->rate[is_local_origin] : -1;
}

double outlier_detector_average(const struct outlier_detector *d, bool is_local_origin) {
    return d->average[is_local_origin];
}

double outlier_detector_threshold(const struct outlier_detector *d, bool is_local_origin) {
    return d->threshold[is_local_origin];
}

/* ---- life ---- */

static void free_watched(struct watched *w) {
    shared_unref(&w->host->shared);
    xfree(w);
}

static void drop_hosts(struct outlier_detector *d) {
    size_t it = 0;
    for (struct map_slot *s; (s = map_next(&d->by_id, &it));) {
        struct watched *w = s->value;
        map_remove_at(&d->by_id, &it);
        free_watched(w);
    }
}

static void detector_free(struct shared *s) {
    struct outlier_detector *d = CONTAINER_OF(s, struct outlier_detector, shared);
    drop_hosts(d);
    map_fini(&d->by_id);
    stats_scope_unref(d->scope);
    xfree((char *)(uintptr_t)d->cluster.p);
    xfree(d);
}

void outlier_detector_unref(struct outlier_detector *d) { shared_unref(&d->shared); }

static struct stats_scope *stats_of(const struct cluster_config *cfg) {
    struct arena a;
    arena_init(&a, 0);
    sv prefix = arena_printf(&a, "%.*soutlier_detection.", SV_ARG(stats_scope_prefix(cfg->stats)));
    struct stats_tag tag = {SV("envoy.cluster_name"), cfg->observability_name};
    struct stats_scope *sc = stats_scope_get_tagged(
        stats_scope_store(cfg->stats), &outlier_stats_group, prefix, SV("cluster."), &tag, 1);
    arena_fini(&a);
    return sc;
}

struct outlier_detector *outlier_detector_new(struct loop *l, const struct cluster_config *cfg,
                                              void (*on_change)(void *arg, struct host *h),
                                              void *arg) {
    struct outlier_detector *d = xnew(struct outlier_detector);
    shared_init(&d->shared, detector_free);
    d->cfg = *cfg->outlier;
    d->loop = l;
    d->scope = stats_of(cfg);
    d->stats = stats_shard(d->scope, l ? l->thread_index : 0);
    d->cluster = sv_from(sv_dup(cfg->name), cfg->name.n);
    d->on_change = on_change;
    d->arg = arg;
    d->threshold[0] = d->threshold[1] = d->average[0] = d->average[1] = -1;
    map_init(&d->by_id);
    rng_init(&d->rng);
    if (l) {
        timer_init(&d->timer, l, on_interval);
        timer_start(&d->timer, TUNED(d, interval_ms));
    }
    return d;
}

/* Hosts that left take their ejection out of the count. */
static void forget_gone(struct outlier_detector *d, const struct host_set *s) {
    size_t it = 0;
    for (struct map_slot *slot; (slot = map_next(&d->by_id, &it));) {
        struct watched *w = slot->value;
        if (host_set_has(s, w->host)) {
            continue;
        }
        map_remove_at(&d->by_id, &it);
        if (w->is_ejected) {
            set_ejected(d, w, false);
        }
        free_watched(w);
    }
}

void outlier_detector_set_hosts(struct outlier_detector *d, const struct host_set *s) {
    if (d->is_stopped) {
        return;
    }
    forget_gone(d, s);
    for (unsigned i = 0; i < s->hosts_n; i++) {
        struct host *h = s->entries[i].host;
        if (find(d, h)) {
            continue;
        }
        struct watched *w = xnew(struct watched);
        w->host = shared_ref(h);
        w->rate[0] = w->rate[1] = -1;
        map_put(&d->by_id, id_key(w->host), w);
        /* ejected under other facts of the same address */
        if (host_flags(h) & HOST_FLAG(FAILED_OUTLIER_CHECK)) {
            w->backoff = 1;
            w->ejected_ms = d->loop ? loop_now_ms(d->loop) : d->now_ms;
            set_ejected(d, w, true);
        }
    }
}

void outlier_detector_stop(struct outlier_detector *d) {
    d->is_stopped = true;
    if (d->loop) {
        timer_cancel(&d->timer);
    }
    size_t it = 0;
    for (struct map_slot *s; (s = map_next(&d->by_id, &it));) {
        struct watched *w = s->value;
        if (w->is_ejected) {
            set_ejected(d, w, false);
        }
    }
    drop_hosts(d);
}
