/* What all threads share of a cluster: circuit breakers and the names of its stats.
 * Threads: any; counters are process-wide atomics, as Envoy's limits are. Spec:
 * cluster.v3.CircuitBreakers.
 * Not here: the worker's view (cluster_view.c), compiling (config/). */
#include "proxy/upstream/cluster.h"

#include "proxy/base/buf.h"
#include "proxy/http/codec_stats.h"

const struct cluster_bind cluster_no_bind = {0};

static bool read_breaker(const void *source, unsigned i, uint64_t *value);

static const struct stat_def cluster_stat_defs[] = {
    {"default.total_match_count", STAT_COUNTER, STAT_UNIT_NONE},
    CLUSTER_PLAIN_STATS(, STATS_DEF_C_, STATS_DEF_G_, STATS_DEF_H_, STATS_DEF_T_)
#define BREAKER_DEF_(priority, name) \
    {"circuit_breakers." priority "." #name, STAT_GAUGE, STAT_UNIT_NONE},
        BREAKER_STATS(BREAKER_DEF_, "default") BREAKER_STATS(BREAKER_DEF_, "high")
#undef BREAKER_DEF_
};
const struct stats_group cluster_stats_group = {
    .name = "cluster",
    .defs = cluster_stat_defs,
    .n = ARRAY_LEN(cluster_stat_defs),
    .computed_n = BREAKER_STATS_N * PRIORITIES,
    .used_with = CLUSTER_upstream_cx_active,
    .front_n = CLUSTER_FRONT_STATS_N,
    .read = read_breaker,
};

bool breaker_try(uint32_t *used, uint32_t max) {
    if (__atomic_add_fetch(used, 1, __ATOMIC_RELAXED) <= max) {
        return true;
    }
    breaker_release(used);
    return false;
}

bool breaker_connection_try(const struct cluster_config *c, unsigned priority,
                            const struct host *h) {
    const struct breaker *b = &c->breakers[priority];
    return HOST_STAT_GET(h, cx_active) < b->max_connections_per_host &&
           breaker_try(&c->use[priority].connections, b->max_connections);
}

static uint32_t get(const uint32_t *used) { return __atomic_load_n(used, __ATOMIC_RELAXED); }

/* Retries that may be under way now. */
static uint32_t retries_max(const struct cluster_config *c, unsigned priority) {
    const struct breaker *b = &c->breakers[priority];
    if (!b->has_retry_budget) {
        return b->max_retries;
    }
    const struct breaker_use *use = &c->use[priority];
    double share = b->budget_percent / 100.0 * ((double)get(&use->requests) + get(&use->pending));
    uint32_t max = share < UINT32_MAX ? (uint32_t)share : UINT32_MAX;
    return max > b->min_retry_concurrency ? max : b->min_retry_concurrency;
}

bool breaker_retry_try(const struct cluster_config *c, unsigned priority) {
    return breaker_try(&c->use[priority].retries, retries_max(c, priority));
}

struct level {
    uint32_t used, max;
};

static struct level level_of(const struct cluster_config *c, unsigned priority,
                             enum breaker_stat i) {
    const struct breaker *b = &c->breakers[priority];
    const struct breaker_use *use = &c->use[priority];
    switch (i) {
    case BREAKER_cx_open:
    case BREAKER_remaining_cx:
        return (struct level){get(&use->connections), b->max_connections};
    case BREAKER_cx_pool_open:
    case BREAKER_remaining_cx_pools:
        return (struct level){get(&use->pools), b->max_pools};
    case BREAKER_rq_open:
    case BREAKER_remaining_rq:
        return (struct level){get(&use->requests), b->max_requests};
    case BREAKER_rq_pending_open:
    case BREAKER_remaining_pending:
        return (struct level){get(&use->pending), b->max_pending};
    case BREAKER_rq_retry_open:
    case BREAKER_remaining_retries:
    case BREAKER_STATS_N:
        break;
    }
    return (struct level){get(&use->retries), retries_max(c, priority)};
}

static bool read_breaker(const void *source, unsigned i, uint64_t *value) {
    const struct cluster_config *c = source;
    unsigned at = i - CLUSTER_STATS_N, priority = at / BREAKER_STATS_N;
    enum breaker_stat which = (enum breaker_stat)(at % BREAKER_STATS_N);
    struct level l = level_of(c, priority, which);
    if (which < BREAKER_remaining_cx) {
        *value = l.used >= l.max;
        return true;
    }
    *value = l.used < l.max ? l.max - l.used : 0;
    return c->breakers[priority].track_remaining;
}

slot_t cluster_transport_slot(const struct cluster_config *c, const struct host_entry *e) {
    if (e && e->transport_match < c->transport_matches_n) {
        return c->transport_matches[e->transport_match].transport;
    }
    return c->transport;
}

/* ---- response codes by side ---- */

struct stats_codes *cluster_side_codes(const struct cluster_config *c, enum cluster_side side) {
    static const char *const leads[CLUSTER_SIDES] = {
        [CLUSTER_SIDE_ALL] = "upstream_rq_",
        [CLUSTER_SIDE_INTERNAL] = "internal.upstream_rq_",
        [CLUSTER_SIDE_EXTERNAL] = "external.upstream_rq_",
        [CLUSTER_SIDE_CANARY] = "canary.upstream_rq_",
        [CLUSTER_SIDE_RETRY] = "retry.upstream_rq_",
    };
    struct stats_codes **at = (struct stats_codes **)(uintptr_t)&c->side_codes[side];
    struct stats_codes *have = __atomic_load_n(at, __ATOMIC_ACQUIRE);
    if (LIKELY(have)) {
        return have;
    }
    struct stats_codes *made = stats_codes_new(c->stats, leads[side]);
    if (__atomic_compare_exchange_n(at, &have, made, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        return made;
    }
    stats_codes_free(made); /* another worker was first */
    return have;
}

struct stats_scope *cluster_codec_stats(const struct cluster_config *c, bool is_h2) {
    struct stats_scope **at = (struct stats_scope **)(uintptr_t)&c->codec_stats[is_h2];
    struct stats_scope *have = __atomic_load_n(at, __ATOMIC_ACQUIRE);
    if (have) {
        return have;
    }
    struct buf BUF_AUTO prefix;
    buf_init(&prefix);
    buf_printf(&prefix, "cluster.%.*s.http%d.", SV_ARG(c->observability_name), is_h2 ? 2 : 1);
    struct stats_tag tag = {SV("envoy.cluster_name"), c->observability_name};
    struct stats_scope *made = stats_scope_get_tagged(
        stats_scope_store(c->stats), is_h2 ? &h2_stats_group : &h1_stats_group,
        buf_pullup(&prefix, buf_len(&prefix)), is_h2 ? SV("cluster.http2.") : SV("cluster.http1."),
        &tag, 1);
    if (__atomic_compare_exchange_n(at, &have, made, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        return made;
    }
    stats_scope_unref(made); /* another worker was first */
    return have;
}

void cluster_lazy_stats_free(struct cluster_config *c) {
    stats_scope_forget_source(c->stats, c);
    for (unsigned i = 0; i < CLUSTER_SIDES; i++) {
        if (c->side_codes[i]) {
            stats_codes_free(c->side_codes[i]);
        }
    }
    for (unsigned i = 0; i < ARRAY_LEN(c->codec_stats); i++) {
        if (c->codec_stats[i]) {
            stats_scope_unref(c->codec_stats[i]);
        }
    }
}
