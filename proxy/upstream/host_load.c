/* Shares of traffic of a cluster's priorities, from how many of their hosts are healthy or
 * degraded.
 * Threads: the config thread for a host set, a worker for what spans several. Spec: Envoy's
 * "Priority levels", "Degraded endpoints", "Panic threshold", which give the numbers that
 * test_host_set.c checks. */
#include "proxy/upstream/host_load.h"

#include "proxy/base/mem.h"
#include "proxy/upstream/host_set.h"

static unsigned min_pct(uint64_t v) { return v < 100 ? (unsigned)v : 100; }

/* How much of the priority's traffic the hosts of `list` can take, in percent: overprovisioned by
 * factor/100. */
static unsigned availability(const struct host_load *l, const struct host_list *list) {
    const struct host_priority *p = l->priority;
    uint64_t have = list->n, of = p->n - p->excluded;
    if (l->weighted_priority_health) {
        have = list->weight_total;
        of = p->all.weight_total;
        for (unsigned i = 0; i < p->n; i++) {
            of -= host_flags(p->entries[i].host) & HOST_FLAGS_EXCLUDED ? p->entries[i].weight : 0;
        }
    }
    return of ? min_pct(l->overprovisioning_factor * have / of) : 0;
}

/* Give each priority its part of what is left of 100 %. Returns the first priority that has any
 * availability, -1: none. */
static int distribute(struct host_load *v, unsigned n, unsigned total, bool is_degraded,
                      unsigned *left) {
    int first = -1;
    for (unsigned i = 0; i < n; i++) {
        unsigned have = is_degraded ? v[i].degraded : v[i].health;
        unsigned load = have * 100 / total;
        load = load < *left ? load : *left;
        *left -= load;
        *(is_degraded ? &v[i].degraded_pct : &v[i].healthy_pct) = load;
        if (first < 0 && have) {
            first = (int)i;
        }
    }
    return first;
}

static void spread(struct host_load *v, unsigned n, unsigned total) {
    if (!total) {
        return;
    }
    unsigned left = 100;
    int healthy = distribute(v, n, total, false, &left);
    int degraded = distribute(v, n, total, true, &left);
    /* Only rounding is left: the first that can take it does. */
    if (healthy >= 0) {
        v[healthy].healthy_pct += left;
    } else if (degraded >= 0) {
        v[degraded].degraded_pct += left;
    }
}

static bool is_below_threshold(const struct host_priority *p, uint32_t panic_pct) {
    unsigned counted = p->n - p->excluded;
    double usable = counted ? 100.0 * p->healthy.n / counted + 100.0 * p->degraded.n / counted : 0;
    return usable < panic_pct;
}

/* Every priority is in panic: traffic goes by numbers of hosts, whatever their health. */
static void spread_in_panic(struct host_load *v, unsigned n) {
    uint64_t hosts = 0;
    for (unsigned i = 0; i < n; i++) {
        hosts += v[i].priority->n;
    }
    unsigned left = 100;
    struct host_load *first = NULL;
    for (unsigned i = 0; i < n; i++) {
        v[i].degraded_pct = 0;
        v[i].healthy_pct = hosts ? (uint32_t)((uint64_t)100 * v[i].priority->n / hosts) : 0;
        left -= v[i].healthy_pct;
        if (!first && v[i].priority->n) {
            first = &v[i];
        }
    }
    (first ? first : &v[0])->healthy_pct += left;
}

static void judge_panic(struct host_load *v, unsigned n, unsigned total, uint32_t panic_pct) {
    if (panic_pct == 0 && total == 0) {
        /* loads add up to 100 always; nobody will be found there */
        v[0].healthy_pct = 100;
        return;
    }
    bool all_panic = true;
    for (unsigned i = 0; i < n; i++) {
        v[i].is_panic = total < 100 && is_below_threshold(v[i].priority, panic_pct);
        all_panic = all_panic && v[i].is_panic;
    }
    if (all_panic) {
        spread_in_panic(v, n);
    }
}

static unsigned total_of(const struct host_load *v, unsigned n) {
    uint64_t sum = 0;
    for (unsigned i = 0; i < n; i++) {
        sum += v[i].health + v[i].degraded;
    }
    return min_pct(sum);
}

void host_load_take(struct host_load *l, const struct host_set *s, unsigned priority) {
    *l = (struct host_load){.priority = &s->priorities[priority],
                            .overprovisioning_factor = s->overprovisioning_factor,
                            .weighted_priority_health = s->weighted_priority_health};
    l->health = availability(l, &l->priority->healthy);
    l->degraded = availability(l, &l->priority->degraded);
}

void host_loads_compute(struct host_load *v, unsigned n, uint32_t panic_pct) {
    unsigned total = total_of(v, n);
    spread(v, n, total);
    judge_panic(v, n, total, panic_pct < 100 ? panic_pct : 100);
}

bool host_loads_spread(struct host_load *v, unsigned n) {
    unsigned total = total_of(v, n);
    spread(v, n, total);
    return total != 0;
}

void host_load_compute(struct host_set *s, uint32_t panic_pct) {
    unsigned n = s->priorities_n;
    if (!n) {
        return;
    }
    struct host_load *v = xnew_array(struct host_load, n);
    for (unsigned i = 0; i < n; i++) {
        host_load_take(&v[i], s, i);
    }
    host_loads_compute(v, n, panic_pct);
    for (unsigned i = 0; i < n; i++) {
        s->priorities[i].healthy_load_pct = v[i].healthy_pct;
        s->priorities[i].degraded_load_pct = v[i].degraded_pct;
        s->priorities[i].is_panic = v[i].is_panic;
    }
    xfree(v);
}
