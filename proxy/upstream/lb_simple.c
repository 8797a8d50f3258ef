/* Round robin, least request and random balancing.
 * With equal weights a rotation or random draws; with different ones (or while hosts start slowly)
 * EDF over the weights.
 * Threads: configs immutable, cursors worker-local. Spec:
 * extensions.load_balancing_policies.{round_robin,least_request, random}.v3. Not here: which list
 * of hosts (cluster_view.c), localities (cluster_view.c). */
#include <math.h>

#include "protos/gen/lb_least_request.pb-c.h"
#include "protos/gen/lb_random.pb-c.h"
#include "protos/gen/lb_round_robin.pb-c.h"
#include "proxy/upstream/edf.h"
#include "proxy/upstream/host.h"
#include "proxy/upstream/lb_common.h"

#define CHOICES_DEFAULT 2u

struct lb_simple {
    struct lb_common common;
    uint32_t choices; /* least request */
    double bias;
    bool is_full_scan;
};

struct lb_cursor {
    uint64_t next;   /* rotation */
    struct edf edf;  /* n == 0: weights are equal, nobody starts slowly */
    bool is_started; /* the EDF was decided on */
};

/* ---- weights ---- */

/* A host that became healthy lately gets a growing part of its weight. */
static double slow_start_factor(const struct lb_common *c, const struct host *h, uint64_t now_us) {
    uint64_t since = __atomic_load_n(&h->healthy_since_us, __ATOMIC_RELAXED);
    if (!c->slow_start_us || now_us >= since + c->slow_start_us ||
        host_health_of(host_flags(h)) != HOST_HEALTHY) {
        return 1.0;
    }
    uint64_t age_us = now_us > since + 1000 ? now_us - since : 1000;
    double part = (double)age_us / (double)c->slow_start_us;
    double factor =
        c->slow_start_aggression == 1.0 ? part : pow(part, 1.0 / c->slow_start_aggression);
    return factor > c->slow_start_min_weight ? factor : c->slow_start_min_weight;
}

static double rr_weight(const struct lb_simple *cfg, const struct host_entry *e, uint64_t now_us) {
    return e->weight * slow_start_factor(&cfg->common, e->host, now_us);
}

static double lr_weight(const struct lb_simple *cfg, const struct host_entry *e, uint64_t now_us) {
    double active = 1.0 + HOST_STAT_GET(e->host, rq_active), w = e->weight;
    if (cfg->bias == 1.0) {
        w /= active;
    } else if (cfg->bias != 0.0) {
        w /= pow(active, cfg->bias);
    }
    return w * slow_start_factor(&cfg->common, e->host, now_us);
}

typedef double (*weight_fn)(const struct lb_simple *cfg, const struct host_entry *e,
                            uint64_t now_us);

static bool anyone_starts_slowly(const struct lb_common *c, const struct host_list *hosts,
                                 uint64_t now_us) {
    for (unsigned i = 0; c->slow_start_us && i < hosts->n; i++) {
        if (__atomic_load_n(&hosts->v[i]->host->healthy_since_us, __ATOMIC_RELAXED) +
                c->slow_start_us >
            now_us) {
            return true;
        }
    }
    return false;
}

/* Decided at the first pick after hosts changed: an EDF only where weights differ. It begins at a
 * random turn, so that workers and restarts do not all favour the same hosts. */
static void start(struct lb_cursor *cur, const struct lb_simple *cfg, const struct host_list *hosts,
                  const struct lb_context *ctx, weight_fn weight) {
    cur->is_started = true;
    if (hosts->equal_weights && !anyone_starts_slowly(&cfg->common, hosts, ctx->now_us)) {
        return;
    }
    edf_init(&cur->edf, hosts->n);
    for (unsigned i = 0; i < hosts->n; i++) {
        edf_add(&cur->edf, i, weight(cfg, hosts->v[i], ctx->now_us));
    }
    for (uint64_t i = cur->next % hosts->n; i; i--) {
        edf_advance(&cur->edf, weight(cfg, hosts->v[edf_peek(&cur->edf)], ctx->now_us));
    }
}

static const struct host_entry *edf_pick(struct lb_cursor *cur, const struct lb_simple *cfg,
                                         const struct host_list *hosts,
                                         const struct lb_context *ctx, weight_fn weight) {
    const struct host_entry *e = hosts->v[edf_peek(&cur->edf)];
    edf_advance(&cur->edf, weight(cfg, e, ctx->now_us));
    return e;
}

static void cursor_init(void *cursor, const void *config, const void *table,
                        const struct host_list *hosts, struct rng *rng) {
    (void)config, (void)table, (void)hosts;
    struct lb_cursor *cur = cursor;
    cur->next = rng_u64(rng) >> 1;
}

static void cursor_fini(void *cursor) {
    struct lb_cursor *cur = cursor;
    edf_fini(&cur->edf);
}

/* ---- round robin ---- */

static void *rr_compile(struct compile_ctx *ctx, const void *msg) {
    const LbRoundRobin__RoundRobin *m = msg;
    struct lb_simple *c = arena_new(ctx->arena, struct lb_simple);
    lb_common_compile(ctx, m ? m->locality_lb_config : NULL, m ? m->slow_start_config : NULL,
                      &c->common);
    return c;
}

static const struct host_entry *rr_pick(void *cursor, const void *config, const void *table,
                                        const struct host_list *hosts,
                                        const struct lb_context *ctx) {
    (void)table;
    struct lb_cursor *cur = cursor;
    if (UNLIKELY(!cur->is_started)) {
        start(cur, config, hosts, ctx, rr_weight);
    }
    if (cur->edf.n) {
        return edf_pick(cur, config, hosts, ctx, rr_weight);
    }
    return hosts->v[cur->next++ % hosts->n];
}

const struct lb_policy_type round_robin_lb_policy = {
    .name = "envoy.load_balancing_policies.round_robin",
    .enum_name = "ROUND_ROBIN",
    .type_url = "envoy.extensions.load_balancing_policies.round_robin.v3.RoundRobin",
    .compile = rr_compile,
    .cursor_size = sizeof(struct lb_cursor),
    .cursor_init = cursor_init,
    .cursor_fini = cursor_fini,
    .pick = rr_pick,
};

/* ---- least request ---- */

static void *lr_compile(struct compile_ctx *ctx, const void *msg) {
    const LbLeastRequest__LeastRequest *m = msg;
    struct lb_simple *c = arena_new(ctx->arena, struct lb_simple);
    c->choices = CHOICES_DEFAULT;
    c->bias = 1.0;
    lb_common_compile(ctx, m ? m->locality_lb_config : NULL, m ? m->slow_start_config : NULL,
                      &c->common);
    if (!m) {
        return c;
    }
    if (m->choice_count) {
        c->choices = m->choice_count->value;
        if (c->choices < 2) {
            diag_error(ctx->diag, "choice_count: value must be greater than or equal to 2");
        }
    }
    if (m->active_request_bias) {
        c->bias = m->active_request_bias->default_value;
        if (!(c->bias >= 0)) {
            c->bias = 1.0; /* as Envoy: below 0 the default counts */
        }
        if (*m->active_request_bias->runtime_key) {
            compile_unhonoured(ctx, "active_request_bias.runtime_key");
        }
    }
    c->is_full_scan =
        (m->enable_full_scan && m->enable_full_scan->value) ||
        m->selection_method == LB_LEAST_REQUEST__LEAST_REQUEST__SELECTION_METHOD__FULL_SCAN;
    return c;
}

/* The least busy host of all; among equals each is as likely. */
static const struct host_entry *full_scan(const struct host_list *hosts, struct rng *rng) {
    const struct host_entry *best = NULL;
    uint32_t least = UINT32_MAX;
    uint64_t ties = 0;
    for (unsigned i = 0; i < hosts->n; i++) {
        uint32_t active = HOST_STAT_GET(hosts->v[i]->host, rq_active);
        if (best && active > least) {
            continue;
        }
        ties = best && active == least ? ties + 1 : 1;
        least = active;
        if (ties == 1 || rng_below(rng, ties) == 0) {
            best = hosts->v[i];
        }
    }
    return best;
}

static const struct host_entry *least_of_choices(const struct host_list *hosts, uint32_t choices,
                                                 struct rng *rng) {
    const struct host_entry *best = hosts->v[rng_below(rng, hosts->n)];
    uint32_t least = HOST_STAT_GET(best->host, rq_active);
    for (uint32_t i = 1; i < choices; i++) {
        const struct host_entry *e = hosts->v[rng_below(rng, hosts->n)];
        uint32_t active = HOST_STAT_GET(e->host, rq_active);
        if (active < least) {
            best = e;
            least = active;
        }
    }
    return best;
}

static const struct host_entry *lr_pick(void *cursor, const void *config, const void *table,
                                        const struct host_list *hosts,
                                        const struct lb_context *ctx) {
    (void)table;
    struct lb_cursor *cur = cursor;
    const struct lb_simple *cfg = config;
    if (UNLIKELY(!cur->is_started)) {
        start(cur, cfg, hosts, ctx, lr_weight);
    }
    if (cur->edf.n) {
        return edf_pick(cur, cfg, hosts, ctx, lr_weight);
    }
    /* More draws than hosts find nothing that a scan would not. */
    if (cfg->is_full_scan || cfg->choices / 4 > hosts->n) {
        return full_scan(hosts, ctx->rng);
    }
    return least_of_choices(hosts, cfg->choices, ctx->rng);
}

const struct lb_policy_type least_request_lb_policy = {
    .name = "envoy.load_balancing_policies.least_request",
    .enum_name = "LEAST_REQUEST",
    .type_url = "envoy.extensions.load_balancing_policies.least_request.v3.LeastRequest",
    .compile = lr_compile,
    .cursor_size = sizeof(struct lb_cursor),
    .cursor_init = cursor_init,
    .cursor_fini = cursor_fini,
    .pick = lr_pick,
};

/* ---- random: weights do not count ---- */

static void *random_compile(struct compile_ctx *ctx, const void *msg) {
    const LbRandom__Random *m = msg;
    struct lb_simple *c = arena_new(ctx->arena, struct lb_simple);
    lb_common_compile(ctx, m ? m->locality_lb_config : NULL, NULL, &c->common);
    return c;
}

static const struct host_entry *random_pick(void *cursor, const void *config, const void *table,
                                            const struct host_list *hosts,
                                            const struct lb_context *ctx) {
    (void)cursor, (void)config, (void)table;
    return hosts->v[rng_below(ctx->rng, hosts->n)];
}

const struct lb_policy_type random_lb_policy = {
    .name = "envoy.load_balancing_policies.random",
    .enum_name = "RANDOM",
    .type_url = "envoy.extensions.load_balancing_policies.random.v3.Random",
    .compile = random_compile,
    .pick = random_pick,
};
