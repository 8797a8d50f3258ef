/* Admin's views of what is served: /stats, /clusters, /listeners, /certs, /init_dump.
 * Threads: main; data come as a view of immutable objects from the config thread. */
#include "proxy/base/mem.h"
#include "proxy/base/regex.h"
#include "proxy/net/tls.h"
#include "proxy/observe/log_sink.h"
#include "proxy/server/admin_internal.h"
#include "proxy/stats/stats_export.h"
#include "proxy/upstream/cluster.h"

/* ---- stats ---- */

static bool next_stats(void *state, struct buf *out) {
    return stats_iter_next(state, out, ADMIN_PIECE_BYTES);
}
static void free_stats(void *state) { stats_iter_free(state); }

static void stats_page(struct admin_stream *a, bool is_prometheus) {
    struct stats_params p;
    struct buf BUF_AUTO err;
    buf_init(&err);
    if (!stats_params_parse(&p, a->query, is_prometheus, &err)) {
        admin_reply_buf(a, 400, ADMIN_TEXT, &err);
        return;
    }
    if (a->server->flushes_on_admin) {
        server_flush_stats(a->server);
    } else {
        log_sinks_publish_stats(a->server->main->loop.thread_index);
    }
    const char *type = stats_content_type(p.format);
    struct admin_producer producer = {next_stats, free_stats, stats_iter_new(a->server->stats, &p)};
    admin_produce(a, type, &producer);
}

void admin_stats(struct admin_stream *a) { stats_page(a, false); }
void admin_stats_prometheus(struct admin_stream *a) { stats_page(a, true); }

/* ---- walking a view piece by piece ---- */

struct view_walk {
    struct view *view;
    unsigned i;
    /* of a cluster that is being written: the next host; how many of it are written */
    unsigned priority, host, hosts_written;
    bool is_json, is_begun, is_item_open;
    struct json_writer w;
    struct regex *filter;
    const struct snapshot *snapshot; /* one ref */
    int64_t now_s;
    /* Write the item, or more of it; false: there is more. */
    bool (*one)(struct view_walk *v, const struct view_item *it, struct buf *out);
    const char *list_name;
};

static void walk_free(void *state) {
    struct view_walk *v = state;
    view_free(v->view);
    regex_free(v->filter);
    if (v->snapshot) {
        shared_unref(&((struct snapshot *)(uintptr_t)v->snapshot)->shared);
    }
    xfree(v);
}

static bool is_wanted(const struct view_walk *v, const struct view_item *it) {
    sv name = it->resource->name;
    return it->status == VIEW_ACTIVE &&
           (!v->filter || regex_partial_match(v->filter, name.p, name.n));
}

static bool walk_next(void *state, struct buf *out) {
    struct view_walk *v = state;
    v->w.out = out;
    if (v->is_json && !v->is_begun) {
        json_begin(&v->w, out, 1);
        json_obj(&v->w);
        json_key(&v->w, sv_cstr(v->list_name));
        json_arr(&v->w);
    }
    v->is_begun = true;
    struct admin_turn turn = admin_turn_begin(out);
    while (v->i < v->view->items_n && !admin_turn_is_over(&turn)) {
        const struct view_item *it = &v->view->items[v->i];
        v->is_item_open = (v->is_item_open || is_wanted(v, it)) && !v->one(v, it, out);
        v->i += !v->is_item_open;
    }
    if (v->i < v->view->items_n) {
        return true;
    }
    if (v->is_json) {
        json_end(&v->w);
        json_end(&v->w);
        buf_lit(out, "\n");
    }
    return false;
}

static void start_walk(struct admin_stream *a, struct view *view, struct view_walk *v) {
    v->view = view;
    struct admin_producer p = {walk_next, walk_free, v};
    admin_produce(a, v->is_json ? ADMIN_JSON : ADMIN_TEXT, &p);
}

/* ---- clusters ---- */

static void limits_text(struct buf *b, sv c, const char *priority, const struct breaker *k) {
    buf_printf(b, "%.*s::%s::max_connections::%u\n%.*s::%s::max_pending_requests::%u\n", SV_ARG(c),
               priority, k->max_connections, SV_ARG(c), priority, k->max_pending);
    buf_printf(b, "%.*s::%s::max_requests::%u\n%.*s::%s::max_retries::%u\n", SV_ARG(c), priority,
               k->max_requests, SV_ARG(c), priority, k->max_retries);
}

struct host_stat {
    const char *name;
    uint64_t value;
    bool is_gauge;
};
#define HOST_STAT_COUNT 9
static void host_stats(const struct host *h, struct host_stat out[HOST_STAT_COUNT]) {
    const struct host_stat v[HOST_STAT_COUNT] = {
        {"cx_active", HOST_STAT_GET(h, cx_active), true},
        {"cx_connect_fail", HOST_STAT_GET(h, cx_connect_fail), false},
        {"cx_total", HOST_STAT_GET(h, cx_total), false},
        {"rq_active", HOST_STAT_GET(h, rq_active), true},
        {"rq_error", HOST_STAT_GET(h, rq_error), false},
        {"rq_pending_active", 0, true},
        {"rq_success", HOST_STAT_GET(h, rq_success), false},
        {"rq_timeout", HOST_STAT_GET(h, rq_timeout), false},
        {"rq_total", HOST_STAT_GET(h, rq_total), false}};
    memcpy(out, v, sizeof(v));
}

static double rate_of(const struct view_item *it, const struct host_entry *e, unsigned local) {
    return it->rates ? it->rates->host[e - it->hosts->entries][local] : -1;
}

static void host_text(struct buf *b, const struct view_item *it, const struct host_entry *e,
                      unsigned priority) {
    sv c = it->resource->cluster->name;
    const struct host *h = e->host;
    struct host_stat st[HOST_STAT_COUNT];
    host_stats(h, st);
    for (unsigned i = 0; i < HOST_STAT_COUNT; i++) {
        buf_printf(b, "%.*s::%.*s::%s::%llu\n", SV_ARG(c), SV_ARG(h->address_text), st[i].name,
                   (unsigned long long)st[i].value);
    }
    buf_printf(b, "%.*s::%.*s::hostname::%.*s\n%.*s::%.*s::health_flags::", SV_ARG(c),
               SV_ARG(h->address_text), SV_ARG(h->hostname), SV_ARG(c), SV_ARG(h->address_text));
    host_flags_write(host_flags(h), b);
    buf_printf(b, "\n%.*s::%.*s::weight::%u\n", SV_ARG(c), SV_ARG(h->address_text), e->weight);
    buf_printf(b, "%.*s::%.*s::region::%.*s\n", SV_ARG(c), SV_ARG(h->address_text),
               SV_ARG(h->locality->region));
    buf_printf(b, "%.*s::%.*s::zone::%.*s\n", SV_ARG(c), SV_ARG(h->address_text),
               SV_ARG(h->locality->zone));
    buf_printf(b, "%.*s::%.*s::sub_zone::%.*s\n", SV_ARG(c), SV_ARG(h->address_text),
               SV_ARG(h->locality->sub_zone));
    buf_printf(b, "%.*s::%.*s::canary::%s\n", SV_ARG(c), SV_ARG(h->address_text),
               h->is_canary ? "true" : "false");
    buf_printf(b, "%.*s::%.*s::priority::%u\n", SV_ARG(c), SV_ARG(h->address_text), priority);
    static const char *const rates[] = {"success_rate", "local_origin_success_rate"};
    for (unsigned i = 0; i < ARRAY_LEN(rates); i++) {
        buf_printf(b, "%.*s::%.*s::%s::%g\n", SV_ARG(c), SV_ARG(h->address_text), rates[i],
                   rate_of(it, e, i));
    }
}

static void cluster_text_head(struct buf *b, const struct view_item *it) {
    const struct cluster_config *c = it->resource->cluster;
    buf_printf(b, "%.*s::observability_name::%.*s\n", SV_ARG(c->name),
               SV_ARG(c->observability_name));
    if (c->outlier) {
        static const char *const keys[] = {
            "success_rate_average", "success_rate_ejection_threshold",
            "local_origin_success_rate_average", "local_origin_success_rate_ejection_threshold"};
        for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
            const struct view_rates *r = it->rates;
            buf_printf(b, "%.*s::outlier::%s::%g\n", SV_ARG(c->name), keys[i],
                       !r      ? -1
                       : i % 2 ? r->threshold[i / 2]
                               : r->average[i / 2]);
        }
    }
    limits_text(b, c->name, "default_priority", &c->breakers[PRIORITY_DEFAULT]);
    limits_text(b, c->name, "high_priority", &c->breakers[PRIORITY_HIGH]);
    buf_printf(b, "%.*s::added_via_api::%s\n", SV_ARG(c->name),
               c->added_via_api ? "true" : "false");
    if (c->type == CLUSTER_TYPE_EDS) {
        buf_printf(b, "%.*s::eds_service_name::%.*s\n", SV_ARG(c->name),
                   SV_ARG(c->eds_service_name));
    }
}

static void json_pair(struct json_writer *w, const char *key, sv v) {
    if (v.n) {
        json_key(w, sv_cstr(key));
        json_str(w, v);
    }
}

static void json_address(struct json_writer *w, const struct addr *a) {
    json_obj(w);
    if (a->family == AF_UNIX) {
        json_key(w, SV("pipe"));
        json_obj(w);
        json_pair(w, "path", sv_cstr(a->path));
        json_end(w);
    } else if (a->family == ADDR_INTERNAL) {
        json_key(w, SV("envoy_internal_address"));
        json_obj(w);
        json_pair(w, "server_listener_name", addr_internal_listener(a));
        json_pair(w, "endpoint_id", addr_endpoint_id(a));
        json_end(w);
    } else {
        char ip[ADDR_STR_MAX];
        json_key(w, SV("socket_address"));
        json_obj(w);
        json_pair(w, "address", sv_from(ip, addr_ip_str(a, ip)));
        json_key(w, SV("port_value"));
        json_u64(w, a->port);
        json_end(w);
    }
    json_end(w);
}

static const char *eds_status(uint32_t flags) {
    if (flags & HOST_FLAG(EDS_STATUS_DRAINING)) {
        return "DRAINING";
    }
    if (flags & HOST_FLAG(FAILED_EDS_HEALTH)) {
        return "UNHEALTHY";
    }
    return flags & HOST_FLAG(DEGRADED_EDS_HEALTH) ? "DEGRADED" : "HEALTHY";
}

static void health_json(struct json_writer *w, uint32_t flags) {
    static const struct {
        uint32_t flag;
        const char *key;
    } map[] = {{HOST_FLAG(FAILED_ACTIVE_HC), "failed_active_health_check"},
               {HOST_FLAG(FAILED_OUTLIER_CHECK), "failed_outlier_check"},
               {HOST_FLAG(DEGRADED_ACTIVE_HC), "failed_active_degraded_check"},
               {HOST_FLAG(PENDING_DYNAMIC_REMOVAL), "pending_dynamic_removal"},
               {HOST_FLAG(PENDING_ACTIVE_HC), "pending_active_hc"},
               {HOST_FLAG(EXCLUDED_IMMEDIATE_HC_FAIL), "excluded_via_immediate_hc_fail"},
               {HOST_FLAG(ACTIVE_HC_TIMEOUT), "active_hc_timeout"}};
    json_key(w, SV("health_status"));
    json_obj(w);
    for (size_t i = 0; i < ARRAY_LEN(map); i++) {
        if (flags & map[i].flag) {
            json_key(w, sv_cstr(map[i].key));
            json_bool(w, true);
        }
    }
    json_key(w, SV("eds_health_status"));
    json_str(w, sv_cstr(eds_status(flags)));
    json_end(w);
}

static void json_rate(struct json_writer *w, const char *key, double v) {
    if (v >= 0) {
        json_key(w, sv_cstr(key));
        json_obj(w);
        if (v > 0) { /* 0 is the default */
            json_key(w, SV("value"));
            json_double(w, v);
        }
        json_end(w);
    }
}

static void host_json(struct json_writer *w, const struct view_item *it, const struct host_entry *e,
                      unsigned priority) {
    const struct host *h = e->host;
    struct host_stat st[HOST_STAT_COUNT];
    host_stats(h, st);
    json_obj(w);
    json_key(w, SV("address"));
    json_address(w, &h->addr);
    json_key(w, SV("stats"));
    json_arr(w);
    for (unsigned i = 0; i < HOST_STAT_COUNT; i++) {
        json_obj(w);
        if (st[i].is_gauge) {
            json_pair(w, "type", SV("GAUGE"));
        }
        if (st[i].value) {
            json_key(w, SV("value"));
            json_u64_str(w, st[i].value);
        }
        json_pair(w, "name", sv_cstr(st[i].name));
        json_end(w);
    }
    json_end(w);
    health_json(w, host_flags(h));
    json_rate(w, "success_rate", rate_of(it, e, 0));
    json_key(w, SV("weight"));
    json_u64(w, e->weight);
    json_pair(w, "hostname", h->hostname);
    if (priority) {
        json_key(w, SV("priority"));
        json_u64(w, priority);
    }
    json_rate(w, "local_origin_success_rate", rate_of(it, e, 1));
    json_key(w, SV("locality"));
    json_obj(w);
    json_pair(w, "region", h->locality->region);
    json_pair(w, "zone", h->locality->zone);
    json_pair(w, "sub_zone", h->locality->sub_zone);
    json_end(w);
    json_end(w);
}

static void breakers_json(struct json_writer *w, const struct cluster_config *c) {
    json_key(w, SV("circuit_breakers"));
    json_obj(w);
    json_key(w, SV("thresholds"));
    json_arr(w);
    for (unsigned p = 0; p < PRIORITIES; p++) {
        const struct breaker *k = &c->breakers[p];
        json_obj(w);
        if (p == PRIORITY_HIGH) {
            json_pair(w, "priority", SV("HIGH"));
        }
        const struct {
            const char *key;
            uint32_t v;
        } limit[] = {{"max_connections", k->max_connections},
                     {"max_pending_requests", k->max_pending},
                     {"max_requests", k->max_requests},
                     {"max_retries", k->max_retries}};
        for (size_t i = 0; i < ARRAY_LEN(limit); i++) {
            json_key(w, sv_cstr(limit[i].key));
            json_u64(w, limit[i].v);
        }
        json_end(w);
    }
    json_end(w);
    json_end(w);
}

static void cluster_json_head(struct json_writer *w, const struct view_item *it) {
    const struct cluster_config *c = it->resource->cluster;
    json_obj(w);
    json_pair(w, "name", c->name);
    if (c->added_via_api) {
        json_key(w, SV("added_via_api"));
        json_bool(w, true);
    }
    if (it->rates) {
        json_rate(w, "success_rate_ejection_threshold", it->rates->threshold[0]);
    }
}

static void cluster_json_tail(struct json_writer *w, const struct view_item *it) {
    const struct cluster_config *c = it->resource->cluster;
    if (it->rates) {
        json_rate(w, "local_origin_success_rate_ejection_threshold", it->rates->threshold[1]);
    }
    breakers_json(w, c);
    json_pair(w, "observability_name", c->observability_name);
    if (c->type == CLUSTER_TYPE_EDS) {
        json_pair(w, "eds_service_name", c->eds_service_name);
    }
    json_end(w);
}

/* The open cluster's next host, in order of priorities; NULL: it has no other. */
static const struct host_entry *next_host(struct view_walk *v, const struct view_item *it) {
    for (; it->hosts && v->priority < it->hosts->priorities_n; v->priority++, v->host = 0) {
        if (v->host < it->hosts->priorities[v->priority].n) {
            return &it->hosts->priorities[v->priority].entries[v->host++];
        }
    }
    return NULL;
}

static bool one_cluster_text(struct view_walk *v, const struct view_item *it, struct buf *out) {
    if (!v->is_item_open) {
        cluster_text_head(out, it);
        v->priority = v->host = 0;
    }
    const struct host_entry *e = next_host(v, it);
    if (e) {
        host_text(out, it, e, v->priority);
    }
    return !e;
}

static bool one_cluster_json(struct view_walk *v, const struct view_item *it, struct buf *out) {
    (void)out;
    if (!v->is_item_open) {
        cluster_json_head(&v->w, it);
        v->priority = v->host = v->hosts_written = 0;
    }
    const struct host_entry *e = next_host(v, it);
    if (e) {
        if (v->hosts_written++ == 0) {
            json_key(&v->w, SV("host_statuses"));
            json_arr(&v->w);
        }
        host_json(&v->w, it, e, v->priority);
        return false;
    }
    if (v->hosts_written) {
        json_end(&v->w);
    }
    cluster_json_tail(&v->w, it);
    return true;
}

static void on_clusters(struct admin_stream *a, struct view *view) {
    struct view_walk *v = xnew(struct view_walk);
    sv filter = admin_param(a, "filter");
    char err[128];
    if (filter.n && !(v->filter = regex_new(filter.p, filter.n, err, sizeof(err)))) {
        view_free(view);
        xfree(v);
        admin_reply(a, 400, ADMIN_TEXT,
                    arena_printf(http_arena(&a->base), "Invalid re2 regex: %s", err));
        return;
    }
    v->list_name = "cluster_statuses";
    v->is_json = sv_is(admin_param(a, "format"), "json");
    v->one = v->is_json ? one_cluster_json : one_cluster_text;
    start_walk(a, view, v);
}
void admin_clusters(struct admin_stream *a) { admin_view(a, 1u << RES_CLUSTER, on_clusters); }

/* ---- listeners ---- */

static bool one_listener(struct view_walk *v, const struct view_item *it, struct buf *out) {
    const struct listener_config *c = it->resource->listener;
    const struct listener_sockets *s = it->sockets;
    if (!v->is_json) {
        for (unsigned i = 0; s && i < s->addresses_n; i++) {
            char text[ADDR_STR_MAX];
            addr_str(&s->bound[i], text);
            buf_printf(out, "%.*s::%s\n", SV_ARG(c->name), text);
        }
        return true;
    }
    json_obj(&v->w);
    json_pair(&v->w, "name", c->name);
    if (s) {
        json_key(&v->w, SV("local_address"));
        json_address(&v->w, &s->bound[0]);
    }
    if (s && s->addresses_n > 1) {
        json_key(&v->w, SV("additional_local_addresses"));
        json_arr(&v->w);
        for (unsigned i = 1; i < s->addresses_n; i++) {
            json_address(&v->w, &s->bound[i]);
        }
        json_end(&v->w);
    }
    json_end(&v->w);
    return true;
}

static void on_listeners(struct admin_stream *a, struct view *view) {
    struct view_walk *v = xnew(struct view_walk);
    v->one = one_listener;
    v->list_name = "listener_statuses";
    v->is_json = sv_is(admin_param(a, "format"), "json");
    start_walk(a, view, v);
}
void admin_listeners(struct admin_stream *a) { admin_view(a, 1u << RES_LISTENER, on_listeners); }

/* ---- certificates ---- */

static bool one_cert_owner(struct view_walk *v, const struct view_item *it, struct buf *out) {
    (void)out;
    for (unsigned i = 0; v->snapshot && i < it->resource->transports_n; i++) {
        const struct transport_factory *f = (const struct transport_factory *)table_get(
            &v->snapshot->tables[TABLE_TRANSPORTS], it->resource->transports[i].slot);
        if (f) {
            tls_factory_describe_certs(f, v->now_s, &v->w);
        }
    }
    return true;
}

static void on_certs(struct admin_stream *a, struct view *view) {
    struct view_walk *v = xnew(struct view_walk);
    struct server *s = a->server;
    v->one = one_cert_owner;
    v->list_name = "certificates";
    v->is_json = true;
    v->now_s = (int64_t)(loop_wall_us(&s->main->loop, loop_now_us(&s->main->loop)) / 1000000);
    v->snapshot = s->snapshot ? shared_ref(s->snapshot) : NULL;
    start_walk(a, view, v);
}
void admin_certs(struct admin_stream *a) {
    admin_view(a, 1u << RES_CLUSTER | 1u << RES_LISTENER, on_certs);
}

/* ---- what start-up or a warming resource waits for ---- */

static void on_init_dump(struct admin_stream *a, struct view *view) {
    struct json_writer w;
    struct buf BUF_AUTO b;
    buf_init(&b);
    json_begin(&w, &b, 1);
    json_obj(&w);
    if (view->unready_n) {
        json_key(&w, SV("unready_targets_dumps"));
        json_arr(&w);
        for (unsigned i = 0; i < view->unready_n; i++) {
            json_obj(&w);
            json_pair(&w, "name", sv_cstr(view->unready[i].what));
            json_key(&w, SV("target_names"));
            json_arr(&w);
            json_str(&w, sv_cstr(view->unready[i].target));
            json_end(&w);
            json_end(&w);
        }
        json_end(&w);
    }
    json_end(&w);
    buf_lit(&b, "\n");
    view_free(view);
    admin_reply_buf(a, 200, ADMIN_JSON, &b);
}
void admin_init_dump(struct admin_stream *a) { admin_view(a, 0, on_init_dump); }
