/* Config sources as muxes: see client.h.
 * Threads: the config thread. Spec: core.v3.ApiConfigSource, GrpcService.EnvoyGrpc,
 * RateLimitSettings, PathConfigSource. Not here: which sources are refused
 * (config/api_source.c). */
#include "xds/client.h"

#include "protos/any.h"
#include "protos/gen/bootstrap.pb-c.h"
#include "protos/gen/core.pb-c.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "proxy/config/api_source.h"
#include "proxy/upstream/cluster.h"
#include "xds/dial.h"
#include "xds/service_target.h"

#define BACKOFF_BASE_MS 500u
#define BACKOFF_MAX_MS 30000u
#define RATE_MAX_TOKENS 100u
#define RATE_FILL 10.0
#define REQUEST_TIMEOUT_MS 1000u /* REST */

/* ---- callbacks ---- */

static bool next_target(void *user, struct xds_dial_target *out) {
    struct source_client *c = user;
    out->authority = c->authority;
    return store_dial_target(c->store, c->cluster, out);
}

static void on_connected(void *user, bool is_connected) {
    struct source_client *c = user;
    c->is_connected = is_connected;
    log_debug(LOG_config, "xDS stream of cluster '%.*s' %s", SV_ARG(c->cluster),
              is_connected ? "is up" : "is lost");
}

/* ---- options ---- */

static uint32_t duration_ms(const Pb__Duration *d, uint32_t dflt) {
    if (!d) {
        return dflt;
    }
    uint64_t ms = (uint64_t)d->seconds * 1000 + (uint64_t)d->nanos / 1000000;
    return ms > UINT32_MAX ? UINT32_MAX : ms ? (uint32_t)ms : 1;
}

/* retry_policy.retry_back_off; without a max_interval it is ten times the base. */
static void back_off(const Core__RetryPolicy *r, struct xds_mux_options *o) {
    const Core__BackoffStrategy *b = r ? r->retry_back_off : NULL;
    o->backoff_base_ms = BACKOFF_BASE_MS;
    o->backoff_max_ms = BACKOFF_MAX_MS;
    if (b) {
        o->backoff_base_ms = duration_ms(b->base_interval, BACKOFF_BASE_MS);
        uint64_t max = (uint64_t)o->backoff_base_ms * 10;
        o->backoff_max_ms =
            duration_ms(b->max_interval, max < UINT32_MAX ? (uint32_t)max : UINT32_MAX);
    }
}

static void rate_limit(const Core__RateLimitSettings *m, struct xds_mux_options *o) {
    if (m) {
        o->request_rate_max_tokens = m->max_tokens ? m->max_tokens->value : RATE_MAX_TOKENS;
        o->request_rate_fill = m->fill_rate ? m->fill_rate->value : RATE_FILL;
    }
}

static void grpc_of(struct source_client *c, const Core__GrpcService *g, struct xds_mux_options *o,
                    struct arena *a) {
    struct service_target t;
    service_target_read(g, a, &t);
    c->cluster = sv_from(sv_dup(t.cluster), t.cluster.n);
    o->authority = t.authority;
    o->initial_metadata = t.metadata;
    o->initial_metadata_n = t.metadata_n;
    o->max_receive_bytes = t.max_receive_bytes;
    back_off(g->target_specifier_case == CORE__GRPC_SERVICE__TARGET_SPECIFIER_ENVOY_GRPC
                 ? g->envoy_grpc->retry_policy
                 : NULL,
             o);
}

/* As Envoy: a control plane is not fetched from the control plane. (Sources in static resources may
 * stand before the cluster they name; those just find no endpoint.) */
static bool check_cluster(const struct source_client *c, struct diag *d) {
    sv name = c->cluster;
    if (!name.n) {
        return true;
    }
    const struct entry *e = store_find(c->store, RES_CLUSTER, NULL, name);
    const struct resource *r = e && e->is_static ? (e->active ? e->active : e->warming) : NULL;
    return (r && r->cluster->type != CLUSTER_TYPE_EDS) ||
           diag_error(d,
                      "ConfigSource must have a statically defined non-EDS cluster: '%.*s' does "
                      "not exist, was added via api, or is an EDS cluster",
                      SV_ARG(name));
}

/* "control_plane." is the aggregated stream's; one of its own type is below its subscription. */
static struct stats_scope *control_plane_scope(const struct source_client *c) {
    struct buf BUF_AUTO b;
    buf_init(&b);
    if (c->type == RES_CLUSTER) {
        buf_lit(&b, "cluster_manager.cds.");
    } else if (c->type == RES_LISTENER) {
        buf_lit(&b, "listener_manager.lds.");
    } else if (c->type != RES_TYPES) {
        buf_printf(&b, "%s.", resource_types[c->type].short_name);
    }
    buf_lit(&b, "control_plane.");
    return stats_scope_get(c->store->opt.stats, &control_plane_stats_group,
                           buf_pullup(&b, buf_len(&b)));
}

static bool api_mux(struct source_client *c, const Core__ApiConfigSource *m, bool is_aggregated,
                    struct diag *d) {
    struct store *s = c->store;
    enum api_source_protocol protocol;
    if (!(is_aggregated ? api_source_check_ads : api_source_check)(m, &protocol, d)) {
        return false;
    }
    if (protocol == API_SOURCE_REST && is_aggregated) {
        return diag_error(d, "api_type: REST can not be aggregated");
    }
    struct arena a;
    arena_init(&a, 0);
    struct xds_mux_options o = {.protocol = protocol == API_SOURCE_DELTA ? XDS_DELTA : XDS_SOTW,
                                .is_aggregated = is_aggregated,
                                .only = c->type,
                                .node = s->opt.node,
                                .node_on_first_message_only = m->set_node_on_first_message_only};
    if (protocol == API_SOURCE_REST) {
        c->cluster = sv_cstr(xstrdup(m->cluster_names[0]));
        o.authority = c->cluster;
    } else {
        grpc_of(c, m->grpc_services[0], &o, &a);
    }
    rate_limit(m->rate_limit_settings, &o);
    c->authority = sv_from(sv_dup(o.authority), o.authority.n);
    struct xds_dial_ops ops = {next_target, c};
    c->dialer = xds_dialer_new(s->loop, &ops);
    o.dialer = c->dialer;
    if (protocol == API_SOURCE_REST) {
        o.refresh_delay_ms = duration_ms(m->refresh_delay, 0);
        o.request_timeout_ms = duration_ms(m->request_timeout, REQUEST_TIMEOUT_MS);
        c->mux = rest_mux_new(s->loop, &o, &c->sink);
    } else {
        o.control_plane_stats = control_plane_scope(c);
        c->mux = xds_mux_new(s->loop, &o, &c->sink);
    }
    arena_fini(&a);
    return c->mux || diag_error(d, "REST can not carry %s", resource_types[c->type].short_name);
}

/* ---- making ---- */

static struct source_client *client_new(struct store *s, const struct config_source *src,
                                        enum resource_type t) {
    struct source_client *c = xnew(struct source_client);
    c->store = s;
    c->source = src;
    c->type = t;
    c->sink = (struct xds_sink){.on_update = store_on_update,
                                .on_connected = on_connected,
                                .on_failure = store_on_failure,
                                .on_rejected = store_on_rejected,
                                .user = c};
    return c;
}

static bool open_source(struct source_client *c, struct diag *d) {
    if (c->source->kind == SOURCE_PATH) {
        c->mux = file_source_new(c->store->loop, c->source, c->type, &c->sink);
        return c->mux || diag_error(d, "file '%.*s' can not be watched", SV_ARG(c->source->path));
    }
    struct arena a;
    arena_init(&a, 0);
    const Core__ApiConfigSource *m = PROTO_UNPACK(
        Core__ApiConfigSource, core__api_config_source__descriptor, c->source->wire, &a, d);
    bool ok = m && api_mux(c, m, false, d);
    arena_fini(&a);
    return ok;
}

struct source_client *source_client_new(struct store *s, const struct config_source *src,
                                        enum resource_type t) {
    struct source_client *c = client_new(s, src, t);
    struct diag d;
    diag_init(&d);
    if (!open_source(c, &d)) {
        sv text = diag_text(&d);
        log_error(LOG_config, "config source of %s: %.*s", resource_types[t].short_name,
                  SV_ARG(text));
        source_client_free(c);
        c = NULL;
    }
    diag_fini(&d);
    return c;
}

struct source_client *source_client_new_ads(struct store *s, const struct config_source *src,
                                            const void *msg, struct diag *d) {
    struct source_client *c = client_new(s, src, RES_TYPES);
    DIAG_FIELD(d, "ads_config");
    if (!api_mux(c, msg, true, d)) {
        source_client_free(c);
        return NULL;
    }
    return c;
}

void source_client_free(struct source_client *c) {
    xds_mux_free(c->mux);
    if (c->dialer) {
        xds_dialer_free(c->dialer);
    }
    char *cluster = (char *)(uintptr_t)c->cluster.p, *authority = (char *)(uintptr_t)c->authority.p;
    xfree(cluster);
    xfree(authority);
    xfree(c);
}

/* ---- dynamic_resources ---- */

static void watch_all(struct store *s, struct source_client *c, enum resource_type t,
                      uint32_t timeout_ms) {
    stats_inc(stats_shard(t == RES_CLUSTER ? s->cds_scope : s->lds_scope, s->loop->thread_index),
              XDS_update_attempt);
    store_wildcard_timeout(s, t, timeout_ms);
    xds_mux_watch_all(c->mux, t);
}

void store_watch_listeners(struct store *s) {
    struct source_client *c = s->listeners_due;
    s->listeners_due = NULL;
    if (c) {
        watch_all(s, c, RES_LISTENER, s->listeners_timeout_ms);
    }
}

void store_watch_clusters(struct store *s) {
    struct source_client *c = s->clusters_due;
    s->clusters_due = NULL;
    if (c) {
        watch_all(s, c, RES_CLUSTER, s->clusters_timeout_ms);
    } else if (!s->waits_cds) {
        store_watch_listeners(s);
    }
}

/* The client of cds_config or lds_config; *out NULL: there is none. False: errors are in d. */
static bool wildcard(struct store *s, const Core__ConfigSource *m, enum resource_type t,
                     struct source_client **out, uint32_t *timeout_ms, struct diag *d) {
    *out = NULL;
    *timeout_ms = 0;
    if (!m) {
        return true;
    }
    DIAG_FIELD(d, "%s_config", resource_types[t].short_name);
    const struct config_source *src = config_source_intern(m, d);
    if (!src) {
        return false;
    }
    *timeout_ms = src->initial_fetch_timeout_ms;
    *out = store_client(s, src, t);
    if (!*out) {
        return diag_error(d, src->kind == SOURCE_ADS ? "ads needs dynamic_resources.ads_config"
                                                     : "the config source can not be used");
    }
    return check_cluster(*out, d);
}

static bool watch_dynamic(struct store *s, const Bootstrap__Bootstrap__DynamicResources *m,
                          struct diag *d) {
    DIAG_FIELD(d, "dynamic_resources");
    if (!wildcard(s, m->cds_config, RES_CLUSTER, &s->clusters_due, &s->clusters_timeout_ms, d) ||
        !wildcard(s, m->lds_config, RES_LISTENER, &s->listeners_due, &s->listeners_timeout_ms, d)) {
        return false;
    }
    s->waits_cds = s->clusters_due != NULL;
    s->waits_lds = s->listeners_due != NULL;
    if (!store_waits_runtime(s)) {
        store_watch_clusters(s);
    }
    return true;
}

static bool open_ads(struct store *s, const Bootstrap__Bootstrap__DynamicResources *m,
                     struct diag *d) {
    DIAG_FIELD(d, "dynamic_resources");
    if (m->ads_config) {
        Core__ConfigSource ads;
        core__config_source__init(&ads);
        Core__AggregatedConfigSource aggregated;
        core__aggregated_config_source__init(&aggregated);
        ads.config_source_specifier_case = CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_ADS;
        ads.ads = &aggregated;
        s->ads = config_source_intern(&ads, d);
        int api = (int)m->ads_config->api_type;
        s->config.is_ads_delta = api == CORE__API_CONFIG_SOURCE__API_TYPE__DELTA_GRPC ||
                                 api == CORE__API_CONFIG_SOURCE__API_TYPE__AGGREGATED_DELTA_GRPC;
        struct source_client *c = source_client_new_ads(s, s->ads, m->ads_config, d);
        if (!c) {
            return false;
        }
        s->clients = xreallocarray(s->clients, s->clients_n + 1, sizeof(*s->clients));
        s->clients[s->clients_n++] = c;
        if (!check_cluster(c, d)) {
            return false;
        }
        store_ads_opened(s);
    }
    return (!*m->cds_resources_locator && !*m->lds_resources_locator) ||
           diag_error(d,
                      "resource locators (xdstp) are not supported: use cds_config and lds_config");
}

bool store_set_dynamic(struct store *s, const void *msg, const void *layered_runtime_msg,
                       struct diag *d) {
    const Bootstrap__Bootstrap__DynamicResources *m = msg;
    if ((m && !open_ads(s, m, d)) || !store_set_runtime(s, layered_runtime_msg, d)) {
        return false;
    }
    return !m || watch_dynamic(s, m, d);
}
