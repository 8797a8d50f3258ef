/* Differences of counts: see lrs_book.h. */
#include "xds/lrs_book.h"

#include "protos/any.h"
#include "protos/gen/endpoint.pb-c.h"
#include "proxy/base/mem.h"
#include "proxy/base/vec.h"
#include "proxy/upstream/host_message.h"

enum count { SUCCESS, ERROR, ISSUED, CX_NEW, CX_FAILED, COUNTS };

/* A host with traffic. */
struct told_host {
    struct host *host; /* one ref: its id is the key, and it may leave the cluster */
    uint32_t priority;
    uint64_t told[COUNTS];
    uint64_t round; /* the report that met it last in its cluster */
};
struct told_cluster {
    sv name; /* heap */
    uint64_t since_us;
    const struct cluster_config *cfg; /* whose drops were told */
    struct shared *cfg_pin;           /* one ref */
    uint64_t dropped, overload_dropped;
    struct map hosts; /* id → struct told_host */
};
struct lrs_book {
    struct map clusters; /* name → struct told_cluster */
    uint64_t round;
};

/* Sums of one locality in one priority. */
struct row {
    uint32_t priority;
    const struct locality *id;
    uint64_t v[COUNTS], active, cx_active;
    VEC(Endpoint__UpstreamEndpointStats *) endpoints; /* in the report's arena */
};
struct report {
    struct told_cluster *cluster;
    struct arena *arena;
    bool with_endpoints;
    uint64_t round;
    VEC(struct row) rows;
};

/* ---- what is remembered ---- */

struct lrs_book *lrs_book_new(void) {
    struct lrs_book *b = xnew(struct lrs_book);
    map_init(&b->clusters);
    return b;
}

static void host_forget(struct told_host *t) {
    shared_unref(&t->host->shared);
    xfree(t);
}

static void cluster_forget(struct told_cluster *t) {
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&t->hosts, &it))) {
        host_forget(slot->value);
    }
    map_fini(&t->hosts);
    shared_unref(t->cfg_pin);
    char *name = (char *)(uintptr_t)t->name.p;
    xfree(name);
    xfree(t);
}

static bool keep_none(void *user, sv name) {
    (void)user;
    (void)name;
    return false;
}

void lrs_book_keep(struct lrs_book *b, bool (*keep)(void *user, sv name), void *user) {
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&b->clusters, &it))) {
        struct told_cluster *t = slot->value;
        if (!keep(user, t->name)) {
            map_remove_at(&b->clusters, &it);
            cluster_forget(t);
        }
    }
}

void lrs_book_free(struct lrs_book *b) {
    if (b) {
        lrs_book_keep(b, keep_none, NULL);
        map_fini(&b->clusters);
        xfree(b);
    }
}

/* ---- counts ---- */

static void read_counts(const struct host *h, uint64_t out[COUNTS]) {
    out[SUCCESS] = HOST_STAT_GET(h, rq_success);
    out[ERROR] = HOST_STAT_GET(h, rq_error);
    out[ISSUED] = HOST_STAT_GET(h, rq_total);
    out[CX_NEW] = HOST_STAT_GET(h, cx_total);
    out[CX_FAILED] = HOST_STAT_GET(h, cx_connect_fail);
}

static sv host_key(const struct host *h) { return sv_from((const char *)&h->id, sizeof(h->id)); }

static bool is_unused(const struct host *h) {
    return !HOST_STAT_GET(h, rq_total) && !HOST_STAT_GET(h, cx_total);
}

/* NULL: it never had traffic, nothing is to be remembered. */
static struct told_host *told_of(struct told_cluster *t, struct host *h, uint32_t priority) {
    struct told_host *v = map_get(&t->hosts, host_key(h));
    if (!v && !is_unused(h)) {
        v = xnew(struct told_host);
        v->host = shared_ref(h);
        map_put(&t->hosts, host_key(h), v);
    }
    if (v) {
        v->priority = priority;
    }
    return v;
}

static uint64_t since(uint64_t now, uint64_t *told) {
    uint64_t n = now - *told;
    *told = now;
    return n;
}

static void adopt_config(struct told_cluster *t, const struct lrs_cluster *c) {
    if (t->cfg == c->cfg) {
        return;
    }
    shared_unref(t->cfg_pin);
    t->cfg_pin = c->cfg_pin;
    __atomic_add_fetch(&t->cfg_pin->refs, 1, __ATOMIC_RELAXED);
    t->cfg = c->cfg;
    t->dropped = t->overload_dropped = 0; /* a new version counts from 0 */
}

static uint64_t drops(const struct cluster_config *c, bool is_overload) {
    const uint64_t *v = is_overload ? &c->drops->overload : &c->drops->other;
    return __atomic_load_n(v, __ATOMIC_RELAXED);
}

/* What was counted before is of no interest. */
static void skip_past(struct told_cluster *t, const struct host_set *s) {
    for (unsigned p = 0; s && p < s->priorities_n; p++) {
        for (unsigned i = 0; i < s->priorities[p].n; i++) {
            struct told_host *h = told_of(t, s->priorities[p].entries[i].host, p);
            if (h) {
                read_counts(h->host, h->told);
            }
        }
    }
    t->dropped = drops(t->cfg, false);
    t->overload_dropped = drops(t->cfg, true);
}

static struct told_cluster *remember(struct lrs_book *b, const struct lrs_cluster *c,
                                     uint64_t since_us) {
    struct told_cluster *t = xnew(struct told_cluster);
    t->name = sv_from(sv_dup(c->cfg->name), c->cfg->name.n);
    t->since_us = since_us;
    map_init(&t->hosts);
    map_put(&b->clusters, t->name, t);
    adopt_config(t, c);
    return t;
}

void lrs_book_begin(struct lrs_book *b, const struct lrs_cluster *c, uint64_t now_us) {
    if (!map_get(&b->clusters, c->cfg->name)) {
        skip_past(remember(b, c, now_us), c->hosts);
    }
}

/* ---- rows ---- */

static void put_endpoint(struct report *r, struct row *row, const struct host *h,
                         const uint64_t v[COUNTS], uint64_t active) {
    Endpoint__UpstreamEndpointStats *m = arena_new(r->arena, Endpoint__UpstreamEndpointStats);
    endpoint__upstream_endpoint_stats__init(m);
    m->address = host_address_message(&h->addr, r->arena);
    m->total_successful_requests = v[SUCCESS];
    m->total_error_requests = v[ERROR];
    m->total_issued_requests = v[ISSUED];
    m->total_requests_in_progress = active;
    *vec_push(&row->endpoints) = m;
}

static void add_host(struct report *r, struct row *row, struct told_host *t) {
    uint64_t now[COUNTS], v[COUNTS], any = 0;
    uint64_t active = HOST_STAT_GET(t->host, rq_active);
    t->round = r->round;
    read_counts(t->host, now);
    for (int i = 0; i < COUNTS; i++) {
        v[i] = since(now[i], &t->told[i]);
        row->v[i] += v[i];
        any |= v[i];
    }
    row->active += active;
    row->cx_active += HOST_STAT_GET(t->host, cx_active);
    if (r->with_endpoints && (any || active)) {
        put_endpoint(r, row, t->host, v, active);
    }
}

static void add_current(struct report *r, const struct host_set *s) {
    for (unsigned p = 0; s && p < s->priorities_n; p++) {
        const struct host_priority *hp = &s->priorities[p];
        size_t first = r->rows.n;
        for (unsigned i = 0; i < hp->localities_n; i++) {
            struct row *row = vec_push(&r->rows);
            row->priority = p;
            row->id = &hp->localities[i].id;
        }
        for (unsigned i = 0; i < hp->n; i++) {
            struct told_host *t = told_of(r->cluster, hp->entries[i].host, p);
            if (t) {
                add_host(r, &r->rows.p[first + hp->entries[i].locality], t);
            }
        }
    }
}

static struct row *row_of(struct report *r, const struct told_host *t) {
    for (size_t i = 0; i < r->rows.n; i++) {
        struct row *row = &r->rows.p[i];
        if (row->priority == t->priority && locality_cmp(row->id, t->host->locality) == 0) {
            return row;
        }
    }
    struct row *row = vec_push(&r->rows);
    row->priority = t->priority;
    row->id = t->host->locality;
    return row;
}

/* Hosts that have left the cluster, until their last request is over. Returns those that may be
 * forgotten once the report, which points into them, is packed. */
static struct told_host **add_gone(struct report *r) {
    struct told_host **over =
        arena_new_array(r->arena, struct told_host *, map_count(&r->cluster->hosts) + 1);
    size_t n = 0, it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&r->cluster->hosts, &it))) {
        struct told_host *t = slot->value;
        if (t->round == r->round) {
            continue;
        }
        bool is_over = HOST_STAT_GET(t->host, rq_active) == 0;
        add_host(r, row_of(r, t), t);
        if (is_over) {
            map_remove_at(&r->cluster->hosts, &it);
            over[n++] = t;
        }
    }
    return over;
}

/* ---- the message ---- */

static bool has_news(const struct row *row) {
    uint64_t any = row->active;
    for (int i = 0; i < COUNTS; i++) {
        any |= row->v[i];
    }
    return any != 0;
}

static Endpoint__UpstreamLocalityStats *locality_stats(struct arena *a, const struct row *row) {
    Endpoint__UpstreamLocalityStats *m = arena_new(a, Endpoint__UpstreamLocalityStats);
    endpoint__upstream_locality_stats__init(m);
    m->locality = host_locality_message(row->id, a);
    m->priority = row->priority;
    m->total_successful_requests = row->v[SUCCESS];
    m->total_error_requests = row->v[ERROR];
    m->total_issued_requests = row->v[ISSUED];
    m->total_requests_in_progress = row->active;
    m->total_active_connections = row->cx_active;
    m->total_new_connections = row->v[CX_NEW];
    m->total_fail_connections = row->v[CX_FAILED];
    m->n_upstream_endpoint_stats = row->endpoints.n;
    m->upstream_endpoint_stats = row->endpoints.p;
    return m;
}

static void put_drops(struct report *r, const struct lrs_cluster *c, Endpoint__ClusterStats *m) {
    m->total_dropped_requests = since(drops(c->cfg, false), &r->cluster->dropped);
    uint64_t overload = since(drops(c->cfg, true), &r->cluster->overload_dropped);
    if (!overload) {
        return;
    }
    Endpoint__ClusterStats__DroppedRequests *d =
        arena_new(r->arena, Endpoint__ClusterStats__DroppedRequests);
    endpoint__cluster_stats__dropped_requests__init(d);
    d->category = arena_cstr(r->arena, c->drop_category);
    d->dropped_count = overload;
    m->dropped_requests = arena_new_array(r->arena, Endpoint__ClusterStats__DroppedRequests *, 1);
    m->dropped_requests[m->n_dropped_requests++] = d;
}

static void put_rows(struct report *r, Endpoint__ClusterStats *m) {
    m->upstream_locality_stats =
        arena_new_array(r->arena, Endpoint__UpstreamLocalityStats *, r->rows.n);
    for (size_t i = 0; i < r->rows.n; i++) {
        if (has_news(&r->rows.p[i])) {
            m->upstream_locality_stats[m->n_upstream_locality_stats++] =
                locality_stats(r->arena, &r->rows.p[i]);
        }
    }
}

static Pb__Duration *interval(struct arena *a, uint64_t us) {
    Pb__Duration *d = arena_new(a, Pb__Duration);
    pb__duration__init(d);
    d->seconds = (int64_t)(us / 1000000);
    d->nanos = (int32_t)(us % 1000000 * 1000);
    return d;
}

static void report_free(struct report *r, struct told_host **over) {
    for (; *over; over++) {
        host_forget(*over);
    }
    for (size_t i = 0; i < r->rows.n; i++) {
        vec_fini(&r->rows.p[i].endpoints);
    }
    vec_fini(&r->rows);
}

sv lrs_book_report(struct lrs_book *b, const struct lrs_cluster *c,
                   const struct lrs_report_options *o, struct arena *a) {
    struct told_cluster *t = map_get(&b->clusters, c->cfg->name);
    if (!t) { /* it came after it was asked for: all it has counted is news */
        t = remember(b, c, o->since_us);
    }
    adopt_config(t, c);
    struct report r = {
        .cluster = t, .arena = a, .with_endpoints = o->with_endpoints, .round = ++b->round};
    add_current(&r, c->hosts);
    struct told_host **over = add_gone(&r);
    Endpoint__ClusterStats m;
    endpoint__cluster_stats__init(&m);
    m.cluster_name = arena_cstr(a, c->cfg->name);
    if (!sv_eq(c->cfg->eds_service_name, c->cfg->name)) {
        m.cluster_service_name = arena_cstr(a, c->cfg->eds_service_name);
    }
    put_drops(&r, c, &m);
    put_rows(&r, &m);
    m.load_report_interval = interval(a, o->now_us - t->since_us);
    t->since_us = o->now_us;
    sv packed = proto_pack(&m.base, a);
    report_free(&r, over);
    return packed;
}
