/* Shares of traffic of a cluster's priorities, from how many of their hosts are healthy or
 * degraded.
 * Threads: the config thread. Spec: Envoy's "Priority levels", "Degraded endpoints", "Panic
 * threshold", which give the numbers that test_host_set.c checks. */
#include "proxy/base/mem.h"
#include "proxy/upstream/host_set.h"

static unsigned min_pct(uint64_t v) { return v < 100 ? (unsigned)v : 100; }

/* How much of the priority's traffic the hosts of `list` can take, in percent: overprovisioned by
 * factor/100. */
static unsigned availability(const struct host_set *s, const struct host_priority *p,
                             const struct host_list *list) {
    uint64_t have = list->n, of = p->n - p->excluded;
    if (s->weighted_priority_health) {
        have = list->weight_total;
        of = p->all.weight_total;
        for (unsigned i = 0; i < p->n; i++) {
            of -= host_flags(p->entries[i].host) & HOST_FLAGS_EXCLUDED ? p->entries[i].weight : 0;
        }
    }
    return of ? min_pct(s->overprovisioning_factor * have / of) : 0;
}

struct loads {
    unsigned *health, *degraded; /* availability by priority */
    unsigned total;              /* their sum, at most 100 */
};

/* Give each priority its part of what is left of 100 %. Returns the first priority that has any
 * availability, -1: none. */
static int distribute(struct host_set *s, const struct loads *l, bool is_degraded, unsigned *left) {
    int first = -1;
    for (unsigned i = 0; i < s->priorities_n; i++) {
        unsigned have = is_degraded ? l->degraded[i] : l->health[i];
        unsigned load = have * 100 / l->total;
        load = load < *left ? load : *left;
        *left -= load;
        *(is_degraded ? &s->priorities[i].degraded_load_pct : &s->priorities[i].healthy_load_pct) =
            load;
        if (first < 0 && have) {
            first = (int)i;
        }
    }
    return first;
}

static void spread(struct host_set *s, const struct loads *l) {
    if (!l->total) {
        return;
    }
    unsigned left = 100;
    int healthy = distribute(s, l, false, &left);
    int degraded = distribute(s, l, true, &left);
    /* Only rounding is left: the first that can take it does. */
    if (healthy >= 0) {
        s->priorities[healthy].healthy_load_pct += left;
    } else if (degraded >= 0) {
        s->priorities[degraded].degraded_load_pct += left;
    }
}

static bool is_below_threshold(const struct host_priority *p, uint32_t panic_pct) {
    unsigned counted = p->n - p->excluded;
    double usable = counted ? 100.0 * p->healthy.n / counted + 100.0 * p->degraded.n / counted : 0;
    return usable < panic_pct;
}

/* Every priority is in panic: traffic goes by numbers of hosts, whatever their health. */
static void spread_in_panic(struct host_set *s) {
    unsigned left = 100;
    struct host_priority *first = NULL;
    for (unsigned i = 0; i < s->priorities_n; i++) {
        struct host_priority *p = &s->priorities[i];
        p->degraded_load_pct = 0;
        p->healthy_load_pct = s->hosts_n ? (uint32_t)((uint64_t)100 * p->n / s->hosts_n) : 0;
        left -= p->healthy_load_pct;
        if (!first && p->n) {
            first = p;
        }
    }
    (first ? first : &s->priorities[0])->healthy_load_pct += left;
}

static void judge_panic(struct host_set *s, const struct loads *l, uint32_t panic_pct) {
    if (panic_pct == 0 && l->total == 0) {
        /* loads add up to 100 always; nobody will be found there */
        s->priorities[0].healthy_load_pct = 100;
        return;
    }
    bool all_panic = true;
    for (unsigned i = 0; i < s->priorities_n; i++) {
        struct host_priority *p = &s->priorities[i];
        p->is_panic = l->total < 100 && is_below_threshold(p, panic_pct);
        all_panic = all_panic && p->is_panic;
    }
    if (all_panic) {
        spread_in_panic(s);
    }
}

void host_load_compute(struct host_set *s, uint32_t panic_pct) {
    if (!s->priorities_n) {
        return;
    }
    struct loads l = {.health = xnew_array(unsigned, 2 * s->priorities_n)};
    l.degraded = l.health + s->priorities_n;
    uint64_t sum = 0;
    for (unsigned i = 0; i < s->priorities_n; i++) {
        struct host_priority *p = &s->priorities[i];
        p->healthy_load_pct = p->degraded_load_pct = 0;
        p->is_panic = false;
        l.health[i] = availability(s, p, &p->healthy);
        l.degraded[i] = availability(s, p, &p->degraded);
        sum += l.health[i] + l.degraded[i];
    }
    l.total = min_pct(sum);
    spread(s, &l);
    judge_panic(s, &l, panic_pct < 100 ? panic_pct : 100);
    xfree(l.health);
}
