/* Levels of aggregate clusters and choosing among them: see aggregate.h. Levels are made anew when
 * any cluster or host set of the worker changed since.
 * Threads: worker-local. Not here: picking the host (cluster_view.c), shares (host_load.c). */
#include "proxy/upstream/aggregate.h"

#include "proxy/api/worker.h"
#include "proxy/base/mem.h"
#include "proxy/base/runtime.h"
#include "proxy/upstream/host_load.h"

/* A priority with hosts, of one member. */
struct level {
    struct cluster_view *member; /* borrowed: valid for the generation */
    unsigned priority;           /* in the member */
};
struct aggregate {
    uint64_t generation;
    unsigned n;
    struct level *levels; /* in the same allocation */
    struct host_load loads[];
};

/* ---- levels ---- */

static unsigned count_levels(const struct host_set *s) {
    unsigned n = 0;
    for (unsigned i = 0; s && i < s->priorities_n; i++) {
        n += s->priorities[i].n != 0;
    }
    return n;
}

static void add_member(struct aggregate *a, struct cluster_view *m) {
    const struct host_set *s = m->hosts;
    for (unsigned i = 0; s && i < s->priorities_n; i++) {
        if (s->priorities[i].n) {
            a->levels[a->n] = (struct level){m, i};
            host_load_take(&a->loads[a->n++], s, i);
        }
    }
}

static struct aggregate *levels_new(struct cluster_view *v, uint64_t generation) {
    const struct aggregate_config *cfg = v->cfg->aggregate;
    unsigned n = 0;
    for (unsigned i = 0; i < cfg->members_n; i++) {
        const struct cluster_view *m = worker_cluster(v->worker, cfg->members[i]);
        n += m ? count_levels(m->hosts) : 0;
    }
    size_t loads_bytes = n * sizeof(struct host_load);
    struct aggregate *a = xcalloc(1, sizeof(*a) + loads_bytes + n * sizeof(struct level));
    a->generation = generation;
    a->levels = (struct level *)(void *)((char *)a->loads + loads_bytes);
    for (unsigned i = 0; i < cfg->members_n; i++) {
        struct cluster_view *m = worker_cluster(v->worker, cfg->members[i]);
        if (m) {
            add_member(a, m);
        }
    }
    ASSERT(a->n == n);
    if (a->n) {
        uint64_t panic_pct =
            runtime_u64(SV("upstream.healthy_panic_threshold"), v->cfg->healthy_panic_pct);
        host_loads_compute(a->loads, a->n, panic_pct < 100 ? (uint32_t)panic_pct : 100);
    }
    return a;
}

static struct aggregate *levels_of(struct cluster_view *v) {
    uint64_t generation = worker_clusters_generation(v->worker);
    if (UNLIKELY(!v->aggregate_ || v->aggregate_->generation != generation)) {
        xfree(v->aggregate_);
        v->aggregate_ = levels_new(v, generation);
    }
    return v->aggregate_;
}

/* ---- choosing ---- */

static unsigned share(const struct aggregate *a, const struct lb_context *ctx, unsigned i,
                      bool is_degraded) {
    if (ctx->priority_loads) {
        const struct lb_priority_load *l = &ctx->priority_loads[i];
        return is_degraded ? l->degraded_pct : l->healthy_pct;
    }
    return is_degraded ? a->loads[i].degraded_pct : a->loads[i].healthy_pct;
}

/* The level for a number in 1…100: healthy hosts of all levels first, then degraded ones. */
static unsigned choose_level(const struct aggregate *a, const struct lb_context *ctx,
                             unsigned number, bool *is_degraded) {
    unsigned sum = 0, n = a->n;
    if (ctx->priority_loads && ctx->priority_loads_n < n) {
        n = ctx->priority_loads_n;
    }
    for (unsigned k = 0; k < 2; k++) {
        *is_degraded = k == 1;
        for (unsigned i = 0; i < n; i++) {
            sum += share(a, ctx, i, *is_degraded);
            if (number <= sum) {
                return i;
            }
        }
    }
    *is_degraded = false;
    return 0;
}

struct cluster_view *aggregate_choose(struct cluster_view *v, struct lb_context *ctx) {
    const struct aggregate *a = levels_of(v);
    if (!a->n) {
        return NULL;
    }
    unsigned number = (unsigned)(rng_u64(ctx->rng) % 100) + 1;
    unsigned i = choose_level(a, ctx, number, &ctx->is_priority_degraded);
    ctx->has_priority = true;
    ctx->priority = a->levels[i].priority;
    ctx->level = i;
    return a->levels[i].member;
}

/* ---- what a request holds ---- */

void cluster_hold(struct cluster_hold **list, struct cluster_view *v, struct arena *a) {
    for (const struct cluster_hold *h = *list; h; h = h->next) {
        if (h->view == v) {
            return;
        }
    }
    struct cluster_hold *h = arena_new(a, struct cluster_hold);
    *h = (struct cluster_hold){
        .next = *list, .view = cluster_view_ref(v), .pin = cluster_view_pin(v)};
    *list = h;
}

void cluster_holds_release(struct cluster_hold **list) {
    struct cluster_hold *h = *list;
    *list = NULL;
    for (; h; h = h->next) {
        hosts_pin_release(h->pin);
        cluster_view_unref(h->view);
    }
}

/* ---- retries at other priorities ---- */

static bool is_tried(const struct priorities_tried *t, unsigned i) {
    return i < PRIORITIES_TRIED_MAX && (t->bits[i / 64] >> (i % 64) & 1);
}

static struct host_load *loads_of(struct cluster_view *v, struct arena *a, unsigned *n) {
    if (v->cfg->type == CLUSTER_TYPE_AGGREGATE) {
        const struct aggregate *levels = levels_of(v);
        struct host_load *all = arena_new_array(a, struct host_load, levels->n);
        memcpy(all, levels->loads, levels->n * sizeof(*all));
        *n = levels->n;
        return all;
    }
    *n = v->hosts ? v->hosts->priorities_n : 0;
    struct host_load *all = arena_new_array(a, struct host_load, *n);
    for (unsigned i = 0; i < *n; i++) {
        host_load_take(&all[i], v->hosts, i);
    }
    return all;
}

/* The loads without those tried; false: nothing is left. */
static bool spread_without(struct host_load *out, const struct host_load *all, unsigned n,
                           const struct priorities_tried *t) {
    for (unsigned i = 0; i < n; i++) {
        out[i] = all[i];
        out[i].healthy_pct = out[i].degraded_pct = 0;
        if (is_tried(t, i)) {
            out[i].health = out[i].degraded = 0;
        }
    }
    return host_loads_spread(out, n);
}

unsigned cluster_loads_without(struct cluster_view *v, struct priorities_tried *t, struct arena *a,
                               const struct lb_priority_load **out) {
    unsigned n;
    const struct host_load *all = loads_of(v, a, &n);
    struct host_load *left = arena_new_array(a, struct host_load, n);
    if (!spread_without(left, all, n, t)) {
        *t = (struct priorities_tried){0};
        if (!spread_without(left, all, n, t)) {
            return 0;
        }
    }
    struct lb_priority_load *loads = arena_new_array(a, struct lb_priority_load, n);
    for (unsigned i = 0; i < n; i++) {
        loads[i] = (struct lb_priority_load){left[i].healthy_pct, left[i].degraded_pct};
    }
    *out = loads;
    return n;
}
