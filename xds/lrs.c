/* The load reporting stream: see lrs.h. Nothing is read on the request path: every interval the
 * counts of hosts are compared with those told before (lrs_book.c), some clusters an event. */
#include "xds/lrs.h"

#include "protos/any.h"
#include "protos/gen/bootstrap.pb-c.h"
#include "protos/gen/core.pb-c.h"
#include "protos/gen/service_load_stats.pb-c.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "xds/discovery_wire.h"
#include "xds/hosts.h"
#include "xds/lrs_book.h"
#include "xds/service_stream.h"

#define LRS_METHOD "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
enum { NODE_FIELD = 1, CLUSTER_STATS_FIELD = 2 }; /* LoadStatsRequest */

VEC_TYPE(name_vec, sv)
/* Clusters to report. */
struct wishes {
    bool all;
    struct map names; /* heap keys; the value is not looked at */
};
struct lrs {
    struct store *store;
    bool is_self; /* only for clusters with lrs_server: self */
    bool is_started;
    struct service_stream *stream;
    /* what the server asked for last */
    struct wishes wishes;
    bool with_endpoints;
    uint32_t interval_ms;
    /* a report */
    struct timer tick, slice;
    struct name_vec names; /* heap; clusters of the report under way */
    size_t next_name;
    struct buf message;
    uint64_t since_us, now_us; /* the report before; this one */
    struct lrs_book *book;
    struct stats_scope *scope; /* load_reporter. */
    struct stats_shard *stats;
};

/* ---- names ---- */

static void free_names(struct name_vec *v) {
    for (size_t i = 0; i < v->n; i++) {
        char *name = (char *)(uintptr_t)v->p[i].p;
        xfree(name);
    }
    vec_fini(v);
}

static void wishes_fini(struct wishes *w) {
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&w->names, &it))) {
        char *name = (char *)(uintptr_t)map_key(slot).p;
        xfree(name);
    }
    map_fini(&w->names);
}

static void end_report(struct lrs *l) {
    timer_cancel(&l->slice);
    free_names(&l->names);
    buf_clear(&l->message);
    l->next_name = 0;
}

/* ---- clusters ---- */

static bool is_ours(const struct lrs *l, const struct entry *e) {
    return e && e->type == RES_CLUSTER && e->active && e->hosts &&
           (!l->is_self || e->active->cluster->is_reported_to_self);
}

static bool is_wanted(const struct wishes *w, sv name) {
    return w->all || map_get(&w->names, name);
}

static struct lrs_cluster view_of(const struct entry *e) {
    return (struct lrs_cluster){e->active->cluster, &e->active->shared, e->hosts->set,
                                store_hosts_drop_category(e)};
}

static bool still_told(void *user, sv name) {
    const struct lrs *l = user;
    return is_wanted(&l->wishes, name) && is_ours(l, store_find(l->store, RES_CLUSTER, NULL, name));
}

/* Names of the clusters to report, as they are now. */
static void list_names(struct lrs *l) {
    size_t it = 0;
    struct map_slot *slot;
    const struct wishes *w = &l->wishes;
    while ((slot = map_next(w->all ? &l->store->entries : &w->names, &it))) {
        const struct entry *e =
            w->all ? slot->value : store_find(l->store, RES_CLUSTER, NULL, map_key(slot));
        if (is_ours(l, e)) {
            *vec_push(&l->names) = sv_from(sv_dup(entry_name(e)), e->name_n);
        }
    }
}

/* ---- reporting ---- */

static void send_message(struct lrs *l) {
    wire_put_bytes(&l->message, NODE_FIELD, l->store->opt.node);
    stats_inc(l->stats, LOAD_REPORTER_responses);
    service_stream_send(l->stream, &l->message);
}

static void on_slice(struct timer *t) {
    struct lrs *l = CONTAINER_OF(t, struct lrs, slice);
    const struct lrs_report_options o = {l->with_endpoints, l->now_us, l->since_us};
    struct arena a;
    arena_init(&a, 0);
    for (unsigned n = 0; n < LRS_SLICE_CLUSTERS && l->next_name < l->names.n; n++) {
        const struct entry *e = store_find(l->store, RES_CLUSTER, NULL, l->names.p[l->next_name++]);
        if (is_ours(l, e)) {
            const struct lrs_cluster c = view_of(e);
            wire_put_bytes(&l->message, CLUSTER_STATS_FIELD, lrs_book_report(l->book, &c, &o, &a));
            arena_reset(&a);
        }
    }
    arena_fini(&a);
    if (l->next_name < l->names.n) {
        timer_start(t, 0);
        return;
    }
    l->since_us = l->now_us;
    lrs_book_keep(l->book, still_told, l);
    send_message(l);
    end_report(l);
}

static void on_tick(struct timer *t) {
    struct lrs *l = CONTAINER_OF(t, struct lrs, tick);
    timer_start(t, l->interval_ms);
    /* The server does not read, or the last report is still being made: what is counted goes into
     * the next one. */
    if (!service_stream_can_send(l->stream) || timer_active(&l->slice)) {
        return;
    }
    l->now_us = loop_refresh_now(l->store->loop);
    list_names(l);
    timer_start(&l->slice, 0);
}

/* ---- the server's wishes ---- */

static void read_wishes(struct lrs *l, const ServiceLoadStats__LoadStatsResponse *m) {
    struct wishes *w = &l->wishes;
    *w = (struct wishes){.all = m->send_all_clusters};
    map_init(&w->names);
    l->with_endpoints = m->report_endpoint_granularity;
    for (size_t i = 0; i < m->n_clusters && i < LRS_CLUSTERS_MAX && !w->all; i++) {
        sv name = sv_cstr(m->clusters[i]);
        if (!map_get(&w->names, name)) {
            map_put(&w->names, sv_from(sv_dup(name), name.n), l);
        }
    }
    if (m->n_clusters > LRS_CLUSTERS_MAX) {
        log_warn(LOG_upstream, "load reporting: %zu clusters are asked for, only %u are reported",
                 m->n_clusters, LRS_CLUSTERS_MAX);
    }
    const Pb__Duration *d = m->load_reporting_interval;
    uint64_t ms =
        d && d->seconds >= 0 && d->seconds < 1000000
            ? (uint64_t)d->seconds * 1000 + (uint64_t)(d->nanos > 0 ? d->nanos : 0) / 1000000
            : 0;
    l->interval_ms = ms < LRS_INTERVAL_MIN_MS ? LRS_INTERVAL_MIN_MS : (uint32_t)ms;
}

/* What is asked for anew counts from now on. */
static void begin(struct lrs *l, const struct wishes *before) {
    l->now_us = loop_refresh_now(l->store->loop);
    if (!before->all && map_count(&before->names) == 0) {
        l->since_us = l->now_us;
    }
    lrs_book_keep(l->book, still_told, l);
    list_names(l);
    for (size_t i = 0; i < l->names.n; i++) {
        if (!is_wanted(before, l->names.p[i])) {
            const struct lrs_cluster c =
                view_of(store_find(l->store, RES_CLUSTER, NULL, l->names.p[i]));
            lrs_book_begin(l->book, &c, l->now_us);
        }
    }
    free_names(&l->names);
}

static bool on_message(void *user, sv wire) {
    struct lrs *l = user;
    struct arena a;
    struct diag d;
    arena_init(&a, 0);
    diag_init(&d);
    const ServiceLoadStats__LoadStatsResponse *m =
        PROTO_UNPACK(ServiceLoadStats__LoadStatsResponse,
                     service_load_stats__load_stats_response__descriptor, wire, &a, &d);
    if (m) {
        stats_inc(l->stats, LOAD_REPORTER_requests);
        end_report(l);
        struct wishes before = l->wishes;
        read_wishes(l, m);
        begin(l, &before);
        wishes_fini(&before);
        timer_start(&l->tick, l->interval_ms);
        log_debug(LOG_upstream, "load reporting: %zu clusters%s every %u ms", m->n_clusters,
                  l->wishes.all ? " (all)" : "", l->interval_ms);
    }
    diag_fini(&d);
    arena_fini(&a);
    return m != NULL;
}

/* ---- the stream ---- */

/* Who we are; the answer tells what is wanted. */
static void on_open(void *user) { send_message(user); }

static void on_failed(void *user) { stats_inc(((struct lrs *)user)->stats, LOAD_REPORTER_errors); }

static void end_reports(struct lrs *l) {
    timer_cancel(&l->tick);
    end_report(l);
}

static void on_ended(void *user) {
    struct lrs *l = user;
    end_reports(l);
    stats_inc(l->stats, LOAD_REPORTER_retries);
}

static const struct service_stream_ops stream_ops = {
    .on_open = on_open, .on_message = on_message, .on_failed = on_failed, .on_ended = on_ended};

/* ---- life ---- */

static void lrs_free(struct lrs *l) {
    if (!l) {
        return;
    }
    service_stream_free(l->stream);
    end_reports(l);
    wishes_fini(&l->wishes);
    lrs_book_free(l->book);
    stats_scope_unref(l->scope);
    xfree(l);
}

static void start(struct lrs *l) {
    if (!l->is_started) {
        l->is_started = true;
        service_stream_start(l->stream);
    }
}

static void stop(struct lrs *l) {
    if (l->is_started) {
        l->is_started = false;
        service_stream_stop(l->stream);
        end_reports(l);
    }
}

static struct lrs *lrs_new(struct store *s, const Core__ApiConfigSource *m, bool is_self,
                           struct diag *d) {
    struct lrs *l = xnew(struct lrs);
    l->store = s;
    l->is_self = is_self;
    map_init(&l->wishes.names);
    buf_init(&l->message);
    timer_init(&l->tick, s->loop, on_tick);
    timer_init(&l->slice, s->loop, on_slice);
    l->book = lrs_book_new();
    l->scope = stats_scope_get(s->opt.stats, &load_reporter_stats_group, SV("load_reporter."));
    l->stats = stats_shard(l->scope, s->loop->thread_index);
    l->stream = service_stream_new(s, LRS_METHOD, m, &stream_ops, l, d);
    if (!l->stream) {
        lrs_free(l);
        return NULL;
    }
    return l;
}

bool lrs_start(struct store *s, const void *bootstrap_msg, struct diag *d) {
    const Bootstrap__Bootstrap *b = bootstrap_msg;
    const Core__ApiConfigSource *own =
        b->cluster_manager ? b->cluster_manager->load_stats_config : NULL;
    const Core__ApiConfigSource *ads =
        b->dynamic_resources ? b->dynamic_resources->ads_config : NULL;
    if (own) {
        DIAG_FIELD(d, "cluster_manager.load_stats_config");
        if (own->api_type != CORE__API_CONFIG_SOURCE__API_TYPE__GRPC) {
            return diag_error(d, "api_type: only GRPC is supported");
        }
        s->lrs = lrs_new(s, own, false, d);
        if (!s->lrs) {
            return false;
        }
        if (!s->opt.is_dry_run) {
            start(s->lrs);
        }
    }
    s->lrs_ads = ads; /* the bootstrap outlives the store */
    lrs_self_changed(s, 0);
    return true;
}

void lrs_stop(struct store *s) {
    lrs_free(s->lrs);
    lrs_free(s->lrs_self);
    s->lrs = s->lrs_self = NULL;
    s->lrs_ads = NULL;
}

void lrs_self_changed(struct store *s, int by) {
    s->lrs_self_clusters += (unsigned)by;
    if (!s->lrs_self_clusters && s->lrs_self) {
        stop(s->lrs_self);
    }
    if (!s->lrs_self_clusters || !s->lrs_ads || s->opt.is_dry_run) {
        return;
    }
    if (!s->lrs_self) {
        struct diag d;
        diag_init(&d);
        s->lrs_self = lrs_new(s, s->lrs_ads, true, &d);
        sv text = diag_text(&d);
        if (!s->lrs_self) {
            log_error(LOG_upstream, "load reporting to the ADS server: %.*s", SV_ARG(text));
        }
        diag_fini(&d);
    }
    if (s->lrs_self) {
        start(s->lrs_self);
    }
}
