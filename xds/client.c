/* Config sources as muxes: see client.h.
 * Threads: the config thread. Spec: core.v3.ApiConfigSource, GrpcService.EnvoyGrpc,
 * PathConfigSource. */
#include "xds/client.h"

#include "protos/any.h"
#include "protos/gen/bootstrap.pb-c.h"
#include "protos/gen/core.pb-c.h"
#include "proxy/base/log.h"
#include "proxy/base/mem.h"
#include "xds/dial.h"

#define BACKOFF_BASE_MS 500u
#define BACKOFF_MAX_MS 30000u

/* ---- callbacks ---- */

static bool next_target(void *user, struct xds_dial_target *out) {
    struct source_client *c = user;
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
    return d ? (uint32_t)(d->seconds * 1000 + d->nanos / 1000000) : dflt;
}

static bool protocol_of(const Core__ApiConfigSource *m, struct xds_mux_options *o, struct diag *d) {
    switch (m->api_type) {
    case CORE__API_CONFIG_SOURCE__API_TYPE__GRPC:
    case CORE__API_CONFIG_SOURCE__API_TYPE__AGGREGATED_GRPC:
        o->protocol = XDS_SOTW;
        return true;
    case CORE__API_CONFIG_SOURCE__API_TYPE__DELTA_GRPC:
    case CORE__API_CONFIG_SOURCE__API_TYPE__AGGREGATED_DELTA_GRPC:
        o->protocol = XDS_DELTA;
        return true;
    default:
        return diag_error(d, "api_type: only GRPC and DELTA_GRPC are supported");
    }
}

static bool grpc_of(struct source_client *c, const Core__ApiConfigSource *m,
                    struct xds_mux_options *o, struct arena *a, struct diag *d) {
    if (m->n_grpc_services == 0) {
        return diag_error(d,
                          "API configs must have either a gRPC service or a cluster name defined");
    }
    const Core__GrpcService *g = m->grpc_services[0];
    if (g->target_specifier_case != CORE__GRPC_SERVICE__TARGET_SPECIFIER_ENVOY_GRPC) {
        return diag_error(d, "grpc_services[0]: only envoy_grpc is supported");
    }
    c->cluster = sv_cstr(xstrdup(g->envoy_grpc->cluster_name));
    o->authority =
        *g->envoy_grpc->authority ? arena_sv(a, sv_cstr(g->envoy_grpc->authority)) : c->cluster;
    struct xds_metadata *md = arena_new_array(a, struct xds_metadata, g->n_initial_metadata);
    for (size_t i = 0; i < g->n_initial_metadata; i++) {
        md[i].key = arena_sv(a, sv_cstr(g->initial_metadata[i]->key));
        md[i].value = arena_sv(a, sv_cstr(g->initial_metadata[i]->value));
    }
    o->initial_metadata = md;
    o->initial_metadata_n = (unsigned)g->n_initial_metadata;
    o->backoff_base_ms = BACKOFF_BASE_MS;
    o->backoff_max_ms = BACKOFF_MAX_MS;
    if (g->retry_policy && g->retry_policy->retry_back_off) {
        o->backoff_base_ms =
            duration_ms(g->retry_policy->retry_back_off->base_interval, BACKOFF_BASE_MS);
        o->backoff_max_ms =
            duration_ms(g->retry_policy->retry_back_off->max_interval, BACKOFF_MAX_MS);
    }
    return true;
}

static bool api_mux(struct source_client *c, const Core__ApiConfigSource *m, bool is_aggregated,
                    struct diag *d) {
    struct store *s = c->store;
    struct arena a;
    arena_init(&a, 0);
    struct xds_mux_options o = {.is_aggregated = is_aggregated,
                                .only = c->type,
                                .node = s->opt.node,
                                .node_on_first_message_only = m->set_node_on_first_message_only};
    bool ok = protocol_of(m, &o, d) && grpc_of(c, m, &o, &a, d);
    if (ok && m->rate_limit_settings) {
        o.request_rate_max_tokens =
            m->rate_limit_settings->max_tokens ? m->rate_limit_settings->max_tokens->value : 100;
        o.request_rate_fill =
            m->rate_limit_settings->fill_rate ? m->rate_limit_settings->fill_rate->value : 10;
    }
    if (ok) {
        struct xds_dial_ops ops = {next_target, c};
        c->dialer = xds_dialer_new(s->loop, &ops);
        o.dialer = c->dialer;
        o.control_plane_stats =
            stats_scope_get(s->opt.stats, &control_plane_stats_group, SV("control_plane."));
        c->mux = xds_mux_new(s->loop, &o, &c->sink);
    }
    arena_fini(&a);
    return ok;
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
    char *cluster = (char *)(uintptr_t)c->cluster.p;
    xfree(cluster);
    xfree(c);
}

/* ---- dynamic_resources ---- */

static bool wildcard(struct store *s, const Core__ConfigSource *m, enum resource_type t,
                     bool *waits, struct diag *d) {
    if (!m) {
        return true;
    }
    DIAG_FIELD(d, "%s_config", resource_types[t].short_name);
    const struct config_source *src = config_source_intern(m, d);
    if (!src) {
        return false;
    }
    struct source_client *c = store_client(s, src, t);
    if (!c) {
        return diag_error(d, src->kind == SOURCE_ADS ? "ads needs dynamic_resources.ads_config"
                                                     : "the config source can not be used");
    }
    *waits = true;
    stats_inc(stats_shard(t == RES_CLUSTER ? s->cds_scope : s->lds_scope, s->loop->thread_index),
              XDS_update_attempt);
    store_wildcard_timeout(s, t, src->initial_fetch_timeout_ms);
    xds_mux_watch_all(c->mux, t);
    return true;
}

bool store_set_dynamic(struct store *s, const void *msg, struct diag *d) {
    const Bootstrap__Bootstrap__DynamicResources *m = msg;
    DIAG_FIELD(d, "dynamic_resources");
    if (m->ads_config) {
        Core__ConfigSource ads;
        core__config_source__init(&ads);
        Core__AggregatedConfigSource aggregated;
        core__aggregated_config_source__init(&aggregated);
        ads.config_source_specifier_case = CORE__CONFIG_SOURCE__CONFIG_SOURCE_SPECIFIER_ADS;
        ads.ads = &aggregated;
        s->ads = config_source_intern(&ads, d);
        struct source_client *c = source_client_new_ads(s, s->ads, m->ads_config, d);
        if (!c) {
            return false;
        }
        s->clients = xreallocarray(s->clients, s->clients_n + 1, sizeof(*s->clients));
        s->clients[s->clients_n++] = c;
    }
    if (*m->cds_resources_locator || *m->lds_resources_locator) {
        return diag_error(
            d, "resource locators (xdstp) are not supported: use cds_config and lds_config");
    }
    return wildcard(s, m->cds_config, RES_CLUSTER, &s->waits_cds, d) &&
           wildcard(s, m->lds_config, RES_LISTENER, &s->waits_lds, d);
}
