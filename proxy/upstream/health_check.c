/* Active health checks: when each host is asked, and what the results make of it.
 * Threads: see health_check.h. Spec: core.v3.HealthCheck; Envoy's HealthCheckerImplBase.
 * Not here: the exchange with the host (health_check_conn.c). */
#include "proxy/upstream/health_check_internal.h"

#include "proxy/base/log.h"
#include "proxy/base/runtime.h"
#include "proxy/base/vec.h"

STATS_GROUP(health_check, HEALTH_CHECK, HEALTH_CHECK_STATS);

static sv id_key(const struct host *h) { return sv_from(&h->id, sizeof(h->id)); }

static struct health_session *find(const struct health_checker *hc, const struct host *h) {
    return map_get(&hc->sessions, id_key(h));
}

/* ---- intervals ---- */

enum transition { UNCHANGED, PENDING, CHANGED };

static bool had_traffic(const struct health_checker *hc) {
    return stats_scope_value(hc->cluster->stats, CLUSTER_upstream_cx_total) != 0;
}

static uint32_t base_interval_ms(const struct health_checker *hc, bool is_healthy,
                                 enum transition t) {
    const struct health_check_config *c = hc->cfg;
    if (!had_traffic(hc)) {
        return is_healthy ? c->no_traffic_healthy_interval_ms : c->no_traffic_interval_ms;
    }
    if (t == PENDING) {
        return is_healthy ? c->healthy_edge_interval_ms : c->unhealthy_edge_interval_ms;
    }
    return is_healthy ? c->interval_ms : c->unhealthy_interval_ms;
}

static uint64_t interval_ms(const struct health_checker *hc, bool is_healthy, enum transition t) {
    const struct health_check_config *c = hc->cfg;
    uint64_t ms = base_interval_ms(hc, is_healthy, t);
    uint64_t part = ms * c->interval_jitter_pct / 100;
    ms += part ? rng_below(&hc->loop->rng, part) : 0;
    ms += c->interval_jitter_ms ? rng_below(&hc->loop->rng, c->interval_jitter_ms) : 0;
    uint64_t min = runtime_u64(SV("health_check.min_interval"), 1),
             max = runtime_u64(SV("health_check.max_interval"), UINT64_MAX);
    ms = ms < max ? ms : max;
    return ms > min ? ms : min;
}

static void await_next(struct health_session *s, bool is_healthy, enum transition t) {
    s->is_checking = false;
    timer_start(&s->timer, interval_ms(s->checker, is_healthy, t));
}

/* ---- the gauges ---- */

static void count_health(struct health_session *s, bool is_healthy) {
    struct health_checker *hc = s->checker;
    if (s->is_counted_healthy != is_healthy) {
        s->is_counted_healthy = is_healthy;
        hc->healthy_n += is_healthy ? 1 : -1u;
        stats_gauge_set(hc->stats, HEALTH_CHECK_healthy, hc->healthy_n);
    }
}

static void count_degraded(struct health_checker *hc, bool is_degraded) {
    hc->degraded_n += is_degraded ? 1 : -1u;
    stats_gauge_set(hc->stats, HEALTH_CHECK_degraded, hc->degraded_n);
}

/* ---- results ---- */

static bool change(struct health_session *s, uint32_t set, uint32_t clear) {
    return host_flags_change(s->host, set, clear, loop_now_us(s->checker->loop));
}

static void tell(const struct health_session *s, enum health_event e, enum health_failure why,
                 unsigned http_status) {
    if (s->checker->cfg->log) {
        health_event_log(s, &(struct health_event_facts){e, why, s->is_first, http_status});
    }
}

/* A host that waited for its first check no longer does. */
static enum transition end_pending(struct health_session *s, enum transition t) {
    return change(s, 0, HOST_FLAG(PENDING_ACTIVE_HC)) ? CHANGED : t;
}

static void first_result(struct health_session *s) {
    if (s->is_first) {
        s->is_first = false;
        s->checker->unchecked_n--;
    }
}

/* May free the session: nothing of it is touched afterwards. */
static void tell_owner(struct health_session *s, enum transition t, bool is_healthy) {
    struct health_checker *hc = shared_ref(s->checker);
    struct host *h = shared_ref(s->host);
    if (t == CHANGED) {
        hc->env.on_change(hc->env.arg, h);
    }
    if (!hc->is_stopped) {
        hc->env.on_checked(hc->env.arg, h, is_healthy);
    }
    shared_unref(&h->shared);
    shared_unref(&hc->shared);
}

static enum transition become_healthy(struct health_session *s) {
    s->unhealthy_n = 0;
    if (!(host_flags(s->host) & HOST_FLAG(FAILED_ACTIVE_HC))) {
        count_health(s, true);
        return UNCHANGED;
    }
    if (!s->is_first && ++s->healthy_n < s->checker->cfg->healthy_threshold) {
        return PENDING;
    }
    change(s, 0,
           HOST_FLAG(FAILED_ACTIVE_HC) | HOST_FLAG(ACTIVE_HC_TIMEOUT) |
               HOST_FLAG(EXCLUDED_IMMEDIATE_HC_FAIL));
    count_health(s, true);
    tell(s, HEALTH_EVENT_ADDED, HEALTH_FAILURE_ACTIVE, 0);
    return CHANGED;
}

static enum transition note_degraded(struct health_session *s, bool is_degraded,
                                     enum transition t) {
    uint32_t flag = HOST_FLAG(DEGRADED_ACTIVE_HC);
    if (!change(s, is_degraded ? flag : 0, is_degraded ? 0 : flag)) {
        return t;
    }
    count_degraded(s->checker, is_degraded);
    tell(s, is_degraded ? HEALTH_EVENT_DEGRADED : HEALTH_EVENT_NO_LONGER_DEGRADED,
         HEALTH_FAILURE_ACTIVE, 0);
    return CHANGED;
}

void health_session_passed(struct health_session *s, bool is_degraded) {
    struct health_checker *hc = s->checker;
    enum transition t = become_healthy(s);
    t = note_degraded(s, is_degraded, end_pending(s, t));
    stats_inc(hc->stats, HEALTH_CHECK_success);
    if (hc->cfg->always_log_successes) {
        tell(s, HEALTH_EVENT_PASSED, HEALTH_FAILURE_ACTIVE, 0);
    }
    first_result(s);
    await_next(s, true, t);
    tell_owner(s, t, true);
}

static bool is_network(enum health_failure why) {
    return why == HEALTH_FAILURE_NETWORK || why == HEALTH_FAILURE_NETWORK_TIMEOUT;
}

static uint32_t failure_flags(enum health_failure why) {
    uint32_t timeout = why == HEALTH_FAILURE_NETWORK_TIMEOUT ? HOST_FLAG(ACTIVE_HC_TIMEOUT) : 0;
    return HOST_FLAG(FAILED_ACTIVE_HC) | timeout;
}

/* One failure: does the host stop being healthy? At once when it answered that it is not, by the
 * threshold when it only may be so. A first failure decides, too: nothing better is known. */
static enum transition become_unhealthy(struct health_session *s, enum health_failure why,
                                        bool is_retriable, unsigned http_status) {
    s->healthy_n = 0;
    if (host_flags(s->host) & HOST_FLAG(FAILED_ACTIVE_HC)) {
        change(s, failure_flags(why), 0);
        return UNCHANGED;
    }
    bool may_recover = is_network(why) || is_retriable;
    if (may_recover && !s->is_first && ++s->unhealthy_n < s->checker->cfg->unhealthy_threshold) {
        return PENDING;
    }
    change(s, failure_flags(why), 0);
    count_health(s, false);
    tell(s, HEALTH_EVENT_EJECTED, why, http_status);
    log_debug(LOG_health_checker, "cluster '%.*s': host %.*s fails its health checks",
              SV_ARG(s->checker->cluster->name), SV_ARG(s->host->address_text));
    return CHANGED;
}

static enum transition set_unhealthy(struct health_session *s, enum health_failure why,
                                     bool is_retriable, unsigned http_status) {
    struct health_checker *hc = s->checker;
    enum transition t = become_unhealthy(s, why, is_retriable, http_status);
    t = end_pending(s, t);
    if (s->is_first || hc->cfg->always_log_failures) {
        tell(s, HEALTH_EVENT_FAILED, why, http_status);
    }
    stats_inc(hc->stats, HEALTH_CHECK_failure);
    if (is_network(why)) {
        stats_inc(hc->stats, HEALTH_CHECK_network_failure);
    } else if (why == HEALTH_FAILURE_PASSIVE) {
        stats_inc(hc->stats, HEALTH_CHECK_passive_failure);
    }
    first_result(s);
    return t;
}

void health_session_failed(struct health_session *s, enum health_failure why, bool is_retriable,
                           unsigned http_status) {
    enum transition t = set_unhealthy(s, why, is_retriable, http_status);
    await_next(s, false, t);
    tell_owner(s, t, false);
}

/* ---- checks ---- */

static void on_timer(struct timer *timer) {
    struct health_session *s = CONTAINER_OF(timer, struct health_session, timer);
    if (s->is_checking) {
        health_conn_close(s);
        health_session_failed(s, HEALTH_FAILURE_NETWORK_TIMEOUT, false, 0);
        return;
    }
    s->is_checking = true;
    stats_inc(s->checker->stats, HEALTH_CHECK_attempt);
    timer_start(&s->timer, s->checker->cfg->timeout_ms);
    health_conn_check(s);
}

static slot_t transport_of(const struct health_checker *hc, const struct host_entry *e) {
    return hc->cfg->transport != SLOT_NONE ? hc->cfg->transport
                                           : cluster_transport_slot(hc->cluster, e);
}

static void session_start(struct health_checker *hc, const struct host_entry *e) {
    struct health_session *s = xnew(struct health_session);
    s->checker = hc;
    s->host = shared_ref(e->host);
    s->transport = transport_of(hc, e);
    s->is_first = true;
    hc->unchecked_n++;
    if (host_flags(e->host) & HOST_FLAG(DEGRADED_ACTIVE_HC)) {
        count_degraded(hc, true);
    }
    timer_init(&s->timer, hc->loop, on_timer);
    map_put(&hc->sessions, id_key(s->host), s);
    uint32_t jitter = hc->cfg->initial_jitter_ms;
    timer_start(&s->timer, jitter ? rng_below(&hc->loop->rng, jitter) : 0);
}

/* The host's flags stay: it may still be in use. */
static void session_end(struct health_session *s) {
    struct health_checker *hc = s->checker;
    hc->unchecked_n -= s->is_first;
    count_health(s, false);
    if (host_flags(s->host) & HOST_FLAG(DEGRADED_ACTIVE_HC)) {
        count_degraded(hc, false);
    }
    timer_cancel(&s->timer);
    health_conn_close(s);
    shared_unref(&s->host->shared);
    xfree(s);
}

/* ---- hosts ---- */

void health_checker_set_hosts(struct health_checker *hc, const struct host_set *set) {
    if (hc->is_stopped) {
        return;
    }
    struct map old = hc->sessions;
    map_init(&hc->sessions);
    for (unsigned i = 0; i < set->hosts_n; i++) {
        const struct host_entry *e = &set->entries[i];
        struct health_session *s = map_remove(&old, id_key(e->host));
        if (s) {
            s->transport = transport_of(hc, e);
            map_put(&hc->sessions, id_key(e->host), s);
        } else if (!e->host->health_check_disabled && !find(hc, e->host)) {
            session_start(hc, e);
        }
    }
    size_t it = 0;
    for (struct map_slot *slot; (slot = map_next(&old, &it));) {
        session_end(slot->value);
    }
    map_fini(&old);
}

bool health_checker_is_done(const struct health_checker *hc) { return hc->unchecked_n == 0; }

/* ---- what workers report ---- */

struct report {
    struct loop_msg msg;
    struct health_checker *checker; /* a ref */
    struct host *host;              /* a ref */
};

/* The host said on a request that it is leaving. */
static void passive_failure(struct health_checker *hc, struct host *h) {
    struct health_session *s = hc->is_stopped ? NULL : find(hc, h);
    if (!s) {
        return;
    }
    bool is_new = change(s, HOST_FLAG(EXCLUDED_IMMEDIATE_HC_FAIL), 0);
    enum transition t = set_unhealthy(s, HEALTH_FAILURE_PASSIVE, false, 0);
    tell_owner(s, is_new ? CHANGED : t, false);
}

static void on_report(struct loop *l, struct loop_msg *m) {
    (void)l;
    struct report *r = CONTAINER_OF(m, struct report, msg);
    passive_failure(r->checker, r->host);
    shared_unref(&r->host->shared);
    shared_unref(&r->checker->shared);
    xfree(r);
}

void health_check_report_failed(const struct cluster_config *c, struct host *h) {
    struct health_checker *hc = c->checker;
    /* One report is enough until a check has passed. */
    if (!hc || (host_flags(h) & HOST_FLAG(EXCLUDED_IMMEDIATE_HC_FAIL))) {
        return;
    }
    struct report *r = xnew(struct report);
    *r = (struct report){.msg.run = on_report, .checker = shared_ref(hc), .host = shared_ref(h)};
    loop_post(hc->loop, &r->msg);
}

/* ---- life ---- */

static void checker_free(struct shared *shared) {
    struct health_checker *hc = CONTAINER_OF(shared, struct health_checker, shared);
    ASSERT(map_count(&hc->sessions) == 0);
    map_fini(&hc->sessions);
    stats_scope_unref(hc->scope);
    xfree(hc);
}

struct health_checker *health_checker_new(const struct cluster_config *cfg,
                                          const struct health_checker_env *env) {
    struct health_checker *hc = xnew(struct health_checker);
    shared_init(&hc->shared, checker_free);
    hc->cfg = cfg->health_check;
    hc->cluster = cfg;
    hc->env = *env;
    hc->loop = env->loop;
    map_init(&hc->sessions);
    struct buf BUF_AUTO prefix;
    buf_init(&prefix);
    buf_printf(&prefix, "cluster.%.*s.health_check.", SV_ARG(cfg->observability_name));
    struct stats_tag tag = {SV("envoy.cluster_name"), cfg->observability_name};
    hc->scope = stats_scope_get_tagged(stats_scope_store(cfg->stats), &health_check_stats_group,
                                       buf_pullup(&prefix, buf_len(&prefix)),
                                       SV("cluster.health_check."), &tag, 1);
    hc->stats = stats_shard(hc->scope, env->loop->thread_index);
    return hc;
}

void health_checker_unref(struct health_checker *hc) { shared_unref(&hc->shared); }

void health_checker_stop(struct health_checker *hc) {
    hc->is_stopped = true;
    size_t it = 0;
    for (struct map_slot *slot; (slot = map_next(&hc->sessions, &it));) {
        session_end(slot->value);
    }
    map_fini(&hc->sessions);
    map_init(&hc->sessions);
}
