/* A worker's view of a cluster: picking hosts, following updates of endpoints.
 * Threads: worker-local; host sets are immutable, cursors are ours. Spec: Envoy's load balancing
 * overview: priorities, panic, localities, host selection retries, override hosts.
 * Not here: policies (lb_*.c), loads (host_load.c), pools (pool_*.c), what all threads share
 * (cluster.c). */
#include "proxy/upstream/cluster_view.h"

#include <limits.h>

#include "proxy/api/worker.h"
#include "proxy/http/codec_stats.h"
#include "proxy/upstream/dynamic_host.h"
#include "proxy/upstream/edf.h"
#include "proxy/upstream/lb.h"
#include "proxy/upstream/lb_subset.h"
#include "proxy/upstream/lb_zone.h"
#include "proxy/upstream/original_dst.h"
#include "proxy/upstream/pool_table.h"

#define LOCALITY_WEIGHT_MIN 1e-9

enum health_status { /* core.v3.HealthStatus */
                     STATUS_UNKNOWN,
                     STATUS_HEALTHY,
                     STATUS_UNHEALTHY,
                     STATUS_DRAINING,
                     STATUS_TIMEOUT,
                     STATUS_DEGRADED
};

struct list_state {
    void *cursor; /* NULL: not picked from yet, or the policy has none */
    bool is_ready;
};
struct locality_state {
    struct list_state healthy, degraded;
};
struct priority_state {
    struct list_state all, healthy, degraded;
    struct locality_state *localities;
    struct edf healthy_turns, degraded_turns; /* over localities */
    bool has_turns;
};
/* Cursors for one host set; gone when it is replaced. */
struct lb_state {
    struct arena arena;
    const struct lb_policy_type *type;
    struct lb_zone *zone;     /* of zone-aware routing; NULL: not made yet */
    uint64_t zone_generation; /* of the clusters that it was made from */
    unsigned priorities_n;
    struct priority_state p[];
};

/* ---- cursors ---- */

static struct lb_state *state_new(const struct cluster_config *c, const struct host_set *s) {
    struct lb_state *lb = xcalloc(1, sizeof(*lb) + s->priorities_n * sizeof(lb->p[0]));
    arena_init(&lb->arena, 256);
    lb->type = c->lb_type;
    lb->priorities_n = s->priorities_n;
    return lb;
}

static void list_fini(const struct lb_policy_type *t, struct list_state *l) {
    if (l->cursor && t->cursor_fini) {
        t->cursor_fini(l->cursor);
    }
}

static void state_free(struct lb_state *lb) {
    if (!lb) {
        return;
    }
    for (unsigned i = 0; i < lb->priorities_n; i++) {
        struct priority_state *p = &lb->p[i];
        list_fini(lb->type, &p->all);
        list_fini(lb->type, &p->healthy);
        list_fini(lb->type, &p->degraded);
        edf_fini(&p->healthy_turns);
        edf_fini(&p->degraded_turns);
    }
    xfree(lb->zone);
    arena_fini(&lb->arena); /* and the localities' cursors with it */
    xfree(lb);
}

static void states_free(struct cluster_view *v) {
    state_free(v->lb_);
    v->lb_ = NULL;
    for (unsigned i = 0; v->subset_lb_ && i < lb_subsets_count(v->hosts->subsets); i++) {
        state_free(v->subset_lb_[i]);
    }
    xfree(v->subset_lb_);
    v->subset_lb_ = NULL;
}

static void list_start(struct lb_state *lb, struct list_state *st, const void *config,
                       const struct host_list *hosts, struct rng *rng) {
    st->is_ready = true;
    if (!lb->type->cursor_size) {
        return;
    }
    st->cursor = arena_zalloc(&lb->arena, lb->type->cursor_size);
    if (lb->type->cursor_init) {
        lb->type->cursor_init(st->cursor, config, hosts->table, hosts, rng);
    }
}

/* ---- localities ---- */

struct locality_states {
    const struct lb_policy_type *type;
    struct locality_state *v;
    unsigned n;
};

static void on_locality_states(void *arg) {
    struct locality_states *s = arg;
    for (unsigned i = 0; i < s->n; i++) {
        list_fini(s->type, &s->v[i].healthy);
        list_fini(s->type, &s->v[i].degraded);
    }
}

static void turns_start(struct edf *turns, const struct host_priority *hp, bool is_degraded) {
    edf_init(turns, hp->localities_n);
    for (unsigned i = 0; i < hp->localities_n; i++) {
        const struct host_locality *l = &hp->localities[i];
        double w = is_degraded ? l->degraded_weight : l->healthy_weight;
        if (w > LOCALITY_WEIGHT_MIN) {
            edf_add(turns, i, w);
        }
    }
}

static void localities_make(struct lb_state *lb, struct priority_state *p,
                            const struct host_priority *hp) {
    p->localities = arena_new_array(&lb->arena, struct locality_state, hp->localities_n);
    struct locality_states *end = arena_new(&lb->arena, struct locality_states);
    *end = (struct locality_states){lb->type, p->localities, hp->localities_n};
    arena_on_fini(&lb->arena, on_locality_states, end);
}

static void localities_start(struct lb_state *lb, struct priority_state *p,
                             const struct host_priority *hp) {
    p->has_turns = true;
    turns_start(&p->healthy_turns, hp, false);
    turns_start(&p->degraded_turns, hp, true);
    localities_make(lb, p, hp);
}

/* What is to be picked from. */
struct choice {
    const struct host_list *list;
    struct list_state *state;
};

/* The locality whose turn it is; false: none has weight. */
static bool choose_locality(struct lb_state *lb, struct priority_state *p,
                            const struct host_priority *hp, bool is_degraded, struct choice *out) {
    if (UNLIKELY(!p->has_turns)) {
        localities_start(lb, p, hp);
    }
    struct edf *turns = is_degraded ? &p->degraded_turns : &p->healthy_turns;
    uint32_t i = edf_peek(turns);
    if (i == UINT32_MAX) {
        return false;
    }
    const struct host_locality *l = &hp->localities[i];
    edf_advance(turns, is_degraded ? l->degraded_weight : l->healthy_weight);
    out->list = is_degraded ? &l->lists->degraded : &l->lists->healthy;
    out->state = is_degraded ? &p->localities[i].degraded : &p->localities[i].healthy;
    return true;
}

/* ---- priorities ---- */

/* The priority and kind of hosts for a number in 1…100. */
static unsigned choose_priority(const struct host_set *s, unsigned number, bool *is_degraded) {
    unsigned sum = 0;
    for (unsigned i = 0; i < s->priorities_n; i++) {
        sum += s->priorities[i].healthy_load_pct;
        if (number <= sum) {
            *is_degraded = false;
            return i;
        }
    }
    for (unsigned i = 0; i < s->priorities_n; i++) {
        sum += s->priorities[i].degraded_load_pct;
        if (number <= sum) {
            *is_degraded = true;
            return i;
        }
    }
    *is_degraded = false;
    return 0;
}

/* The same with shares that the request brings. */
static unsigned choose_retry_priority(const struct host_set *s, const struct lb_context *ctx,
                                      unsigned number, bool *is_degraded) {
    unsigned sum = 0, n = s->priorities_n;
    n = ctx->priority_loads_n < n ? ctx->priority_loads_n : n;
    for (unsigned k = 0; k < 2; k++) {
        *is_degraded = k == 1;
        for (unsigned i = 0; i < n; i++) {
            const struct lb_priority_load *l = &ctx->priority_loads[i];
            sum += *is_degraded ? l->degraded_pct : l->healthy_pct;
            if (number <= sum) {
                return i;
            }
        }
    }
    *is_degraded = false;
    return 0;
}

/* Hashing policies have tables for the host set's own shares only. */
static unsigned wanted_priority(const struct host_set *s, const struct lb_policy_type *t,
                                const struct lb_context *ctx, bool *is_degraded) {
    uint64_t random = t->is_hashing ? ctx->hash : rng_u64(ctx->rng);
    unsigned number = (unsigned)(random % 100) + 1;
    if (UNLIKELY(ctx->has_priority && !t->is_hashing && ctx->priority < s->priorities_n)) {
        *is_degraded = ctx->is_priority_degraded;
        return ctx->priority;
    }
    if (UNLIKELY(ctx->priority_loads && !ctx->has_priority && !t->is_hashing)) {
        return choose_retry_priority(s, ctx, number, is_degraded);
    }
    return choose_priority(s, number, is_degraded);
}

static bool fails_in_panic(const struct cluster_config *c) {
    const struct lb_common *common = lb_common_of(c->lb_config);
    return c->fail_traffic_on_panic || (common && common->fail_traffic_on_panic);
}

/* The hosts of a pick, all of the cluster's or a subset, with their cursors. */
struct pool_of_hosts {
    const struct host_set *set;
    struct lb_state *lb;
};

/* Zone-aware routing, of the first priority only. False: no host may be picked. */
static bool choose_zone(struct cluster_view *v, const struct pool_of_hosts *from,
                        const struct lb_context *ctx, struct choice *out, bool is_degraded) {
    struct lb_state *lb = from->lb;
    uint64_t generation = worker_clusters_generation(v->worker);
    if (UNLIKELY(!lb->zone || lb->zone_generation != generation)) {
        const struct cluster_view *local = worker_cluster(v->worker, v->cfg->zone->local_cluster);
        xfree(lb->zone);
        lb->zone = lb_zone_new(v->cfg->zone, from->set, local ? local->hosts : NULL,
                               v->cfg->healthy_panic_pct, v->stats);
        lb->zone_generation = generation;
    }
    uint32_t i = lb_zone_choose(lb->zone, ctx->rng, fails_in_panic(v->cfg), v->stats);
    const struct host_priority *hp = &from->set->priorities[0];
    if (i == LB_ZONE_FAIL || i == LB_ZONE_NONE || !hp->localities[i].lists) {
        return i != LB_ZONE_FAIL;
    }
    struct priority_state *p = &lb->p[0];
    if (!p->localities) {
        localities_make(lb, p, hp);
    }
    const struct host_locality_lists *l = hp->localities[i].lists;
    *out = is_degraded ? (struct choice){&l->degraded, &p->localities[i].degraded}
                       : (struct choice){&l->healthy, &p->localities[i].healthy};
    return true;
}

static bool choose_list(struct cluster_view *v, const struct pool_of_hosts *from,
                        struct lb_context *ctx, struct choice *out) {
    const struct host_set *s = from->set;
    struct lb_state *lb = from->lb;
    bool is_degraded;
    unsigned i = wanted_priority(s, lb->type, ctx, &is_degraded);
    ctx->priority = i;
    const struct host_priority *hp = &s->priorities[i];
    struct priority_state *p = &lb->p[i];
    if (UNLIKELY(hp->is_panic)) {
        stats_inc(v->stats, CLUSTER_lb_healthy_panic);
        if (fails_in_panic(v->cfg)) {
            return false;
        }
        *out = (struct choice){&hp->all, &p->all};
        return true;
    }
    if (hp->has_locality_weights && !lb->type->is_hashing &&
        choose_locality(lb, p, hp, is_degraded, out)) {
        return true;
    }
    *out = is_degraded ? (struct choice){&hp->degraded, &p->degraded}
                       : (struct choice){&hp->healthy, &p->healthy};
    return i != 0 || LIKELY(!v->cfg->zone) || choose_zone(v, from, ctx, out, is_degraded);
}

/* ---- picking ---- */

static const struct host_entry *pick_once(struct cluster_view *v, const struct pool_of_hosts *from,
                                          struct lb_context *ctx) {
    struct choice c;
    if (!choose_list(v, from, ctx, &c) || !c.list->n) {
        return NULL;
    }
    const void *config = v->cfg->lb_config;
    if (UNLIKELY(!c.state->is_ready)) {
        list_start(from->lb, c.state, config, c.list, ctx->rng);
    }
    return from->lb->type->pick(c.state->cursor, config, c.list->table, c.list, ctx);
}

/* core.v3.HealthStatus of a host, as a bit: what was found out by checks and failures comes before
 * what was configured, unless that is worse. */
static uint32_t status_bit(uint32_t flags) {
    if (flags & (HOST_FLAG(FAILED_ACTIVE_HC) | HOST_FLAG(FAILED_OUTLIER_CHECK))) {
        return 1u << STATUS_UNHEALTHY;
    }
    if (flags & HOST_FLAG(EDS_STATUS_DRAINING)) {
        return 1u << STATUS_DRAINING;
    }
    if (flags & HOST_FLAG_EDS_TIMEOUT) {
        return 1u << STATUS_TIMEOUT;
    }
    switch (host_health_of(flags)) {
    case HOST_UNHEALTHY:
        return 1u << STATUS_UNHEALTHY;
    case HOST_DEGRADED:
        return 1u << STATUS_DEGRADED;
    case HOST_HEALTHY:
        break;
    }
    return 1u << (flags & HOST_FLAG_EDS_HEALTHY ? STATUS_HEALTHY : STATUS_UNKNOWN);
}

static const struct host_entry *find_override(const struct cluster_view *v, const struct addr *a) {
    const struct host_entry *e = host_set_find(v->hosts, a);
    return e && (status_bit(host_flags(e->host)) & v->cfg->override_host_status) ? e : NULL;
}

static uint64_t active_requests(const struct cluster_config *c) {
    return (uint64_t)__atomic_load_n(&c->use[PRIORITY_DEFAULT].requests, __ATOMIC_RELAXED) +
           __atomic_load_n(&c->use[PRIORITY_HIGH].requests, __ATOMIC_RELAXED);
}

/* All hosts, or those of the subset that the route's criteria ask for. False: none. */
static bool choose_hosts(struct cluster_view *v, const struct lb_context *ctx,
                         struct pool_of_hosts *out) {
    struct lb_subsets *t = v->hosts->subsets;
    struct lb_state **lb = &v->lb_;
    out->set = v->hosts;
    if (UNLIKELY(t)) {
        uint32_t k = lb_subset_choose(v->cfg->subsets, t, ctx->metadata_match, v->stats);
        if (k == LB_SUBSET_NONE) {
            return false;
        }
        if (k != LB_SUBSET_ALL) {
            if (!v->subset_lb_) {
                v->subset_lb_ = xnew_array(struct lb_state *, lb_subsets_count(t));
            }
            lb = &v->subset_lb_[k];
            out->set = lb_subset_hosts(t, k);
        }
    }
    if (UNLIKELY(!*lb)) {
        *lb = state_new(v->cfg, out->set);
    }
    out->lb = *lb;
    return true;
}

static const struct host_entry *pick(struct cluster_view *v, struct lb_context *ctx) {
    if (ctx->override_host) {
        const struct host_entry *e = find_override(v, ctx->override_host);
        if (e || ctx->override_strict) {
            ctx->priority = UINT_MAX;
            return e;
        }
    }
    struct pool_of_hosts from;
    if (!choose_hosts(v, ctx, &from)) {
        return NULL;
    }
    if (from.lb->type->is_hashing) {
        ctx->cluster_rq_active = active_requests(v->cfg);
        if (!ctx->has_hash) {
            ctx->hash = rng_u64(ctx->rng);
            ctx->has_hash = true;
        }
    }
    ctx->now_us = loop_now_us(v->loop);
    for (ctx->attempt = 0;; ctx->attempt++) {
        const struct host_entry *e = pick_once(v, &from, ctx);
        if (!e || !ctx->avoid || ctx->attempt >= ctx->avoid_max ||
            !ctx->avoid(e->host, ctx->avoid_arg)) {
            return e;
        }
    }
}

struct host *cluster_view_pick(struct cluster_view *v, struct lb_context *ctx,
                               const struct host_entry **entry) {
    if (UNLIKELY(v->cfg->type == CLUSTER_TYPE_ORIGINAL_DST)) {
        if (!v->original_dst_) {
            v->original_dst_ = original_dst_new(v);
        }
        return original_dst_pick(v->original_dst_, ctx, entry);
    }
    if (UNLIKELY(v->cfg->type == CLUSTER_TYPE_DYNAMIC)) {
        return dynamic_host_pick(v, ctx, entry);
    }
    if (!v->hosts || !v->hosts->hosts_n || !v->cfg->lb_type) {
        stats_add(v->stats, CLUSTER_lb_healthy_panic, v->cfg->healthy_panic_pct > 0);
        return NULL;
    }
    const struct host_entry *e = pick(v, ctx);
    *entry = e;
    return e ? e->host : NULL;
}

bool cluster_view_drop(struct cluster_view *v, struct rng *rng) {
    const struct host_set *s = v->hosts;
    return s && s->drop_denominator && s->drop_numerator &&
           rng_below(rng, s->drop_denominator) < s->drop_numerator;
}

/* ---- pins ---- */

static struct hosts_pin *pin_new(struct host_set *set) {
    struct hosts_pin *p = xnew(struct hosts_pin);
    p->refs = 1;
    p->set = set ? shared_ref(set) : NULL;
    return p;
}

void hosts_pin_release(struct hosts_pin *p) {
    while (p && --p->refs == 0) {
        struct hosts_pin *next = p->next;
        if (p->set) {
            shared_unref(&p->set->shared);
        }
        for (unsigned i = 0; i < p->extra_n; i++) {
            shared_unref(&p->extra[i]->shared);
        }
        xfree(p->extra);
        xfree(p);
        p = next;
    }
}

static void pin_replace(struct cluster_view *v, struct host_set *set) {
    struct hosts_pin *old = v->pin_, *now = pin_new(set);
    v->pin_ = now;
    v->hosts = set;
    if (old->refs > 1) {
        old->next = now; /* whoever holds the old one may pick from the new one */
        now->refs++;
    }
    hosts_pin_release(old);
}

void cluster_view_keep_host(struct cluster_view *v, struct host *h) {
    struct hosts_pin *p = v->pin_;
    if (p->extra_n == p->extra_cap) {
        p->extra_cap = p->extra_cap ? p->extra_cap * 2 : 8;
        p->extra = xreallocarray(p->extra, p->extra_cap, sizeof(*p->extra));
    }
    p->extra[p->extra_n++] = h;
    /* A pin of its own from here on, or nobody would ever let go of it. */
    pin_replace(v, v->hosts);
}

/* ---- times by side ---- */

/* cluster.<name>.<side>.upstream_rq_time */
#define SIDE_STATS(P, C, G, H, T) H(P, upstream_rq_time, MS)
STATS_ENUM(SIDE, SIDE_STATS);
STATS_GROUP(side, SIDE, SIDE_STATS);
struct cluster_side_times {
    struct stats_scope *scopes[CLUSTER_SIDES]; /* a ref each; NULL: not yet */
};

static void side_times_free(struct cluster_side_times *t) {
    for (unsigned i = 0; t && i < CLUSTER_SIDES; i++) {
        if (t->scopes[i]) {
            stats_scope_unref(t->scopes[i]);
        }
    }
    xfree(t);
}

static struct stats_scope *side_scope(const struct cluster_view *v, const char *side) {
    struct buf BUF_AUTO prefix, tagged;
    buf_init(&prefix);
    buf_init(&tagged);
    buf_printf(&prefix, "cluster.%.*s.%s.", SV_ARG(v->cfg->observability_name), side);
    buf_printf(&tagged, "cluster.%s.", side);
    struct stats_tag tag = {SV("envoy.cluster_name"), v->cfg->observability_name};
    return stats_scope_get_tagged(stats_scope_store(v->cfg->stats), &side_stats_group,
                                  buf_pullup(&prefix, buf_len(&prefix)),
                                  buf_pullup(&tagged, buf_len(&tagged)), &tag, 1);
}

void cluster_view_record_side(struct cluster_view *v, enum cluster_side side, uint64_t ms) {
    static const char *const names[CLUSTER_SIDES] = {[CLUSTER_SIDE_INTERNAL] = "internal",
                                                     [CLUSTER_SIDE_EXTERNAL] = "external",
                                                     [CLUSTER_SIDE_CANARY] = "canary"};
    if (UNLIKELY(!v->side_times_)) {
        v->side_times_ = xnew(struct cluster_side_times);
    }
    struct stats_scope **sc = &v->side_times_->scopes[side];
    if (UNLIKELY(!*sc)) {
        *sc = side_scope(v, names[side]);
    }
    stats_record(stats_shard(*sc, v->loop->thread_index), SIDE_upstream_rq_time, ms);
}

/* ---- life ---- */

struct cluster_view *cluster_view_new(struct worker *w, struct loop *l,
                                      const struct cluster_config *cfg, struct shared *pin,
                                      struct host_set *hosts) {
    struct cluster_view *v = xnew(struct cluster_view);
    v->cfg = cfg;
    v->cfg_pin = shared_ref_(pin);
    v->worker = w;
    v->loop = l;
    v->stats = stats_shard(cfg->stats, l->thread_index);
    v->refs = 1;
    v->hosts = hosts;
    v->pin_ = pin_new(hosts);
    return v;
}

void cluster_view_unref(struct cluster_view *v) {
    ASSERT(v->refs);
    if (--v->refs) {
        return;
    }
    original_dst_free(v->original_dst_);
    xfree(v->aggregate_);
    pool_table_free(v->pools_);
    states_free(v);
    hosts_pin_release(v->pin_);
    side_times_free(v->side_times_);
    shared_unref(v->cfg_pin);
    xfree(v);
}

void cluster_view_set_hosts(struct cluster_view *v, struct host_set *hosts) {
    if (hosts == v->hosts) {
        return;
    }
    const struct host_set *old = v->hosts;
    bool is_same_base = old && hosts && old->base == hosts->base;
    states_free(v);
    pin_replace(v, hosts);
    pool_table_follow(v, !is_same_base);
}

void cluster_view_retire(struct cluster_view *v) {
    v->is_removed = true;
    pools_drain_all(v);
    cluster_view_unref(v);
}

const struct codec_stats *cluster_view_codec_stats(struct cluster_view *v, bool is_h2) {
    struct stats_shard **st = is_h2 ? &v->codec_stats_.h2 : &v->codec_stats_.h1;
    if (!*st && v->cfg->stats) {
        *st = stats_shard(cluster_codec_stats(v->cfg, is_h2), v->loop->thread_index);
    }
    return &v->codec_stats_;
}
