/* Istio's workload discovery: all workloads of the mesh, which the bootstrap asks for by an
 * extension. Nothing waits for them, and nothing refers to them: they are looked up by address.
 * Threads: the config thread. Spec: istio.workload.BootstrapExtension, istio.workload.Workload.
 * Not here: what is known of a peer (filters/common/istio_peer.c). */
#include "protos/any.h"
#include "protos/gen/bootstrap.pb-c.h"
#include "protos/gen/bootstrap_internal_listener.pb-c.h"
#include "protos/gen/istio_workload.pb-c.h"
#include "protos/pb_rules.h"
#include "proxy/base/log.h"
#include "proxy/config/workload.h"
#include "xds/client.h"

static bool watch(struct store *s, const Core__ConfigSource *m, struct diag *d) {
    if (!m) {
        return diag_error(d, "config_source: value is required");
    }
    DIAG_FIELD(d, "config_source");
    const struct config_source *src = config_source_intern(m, d);
    if (!src) {
        return false;
    }
    if (src->kind == SOURCE_API) { /* there is no service of this type alone */
        return diag_error(d, "workloads come by ads or path_config_source");
    }
    struct source_client *c = store_client(s, src, RES_WORKLOAD);
    if (!c) {
        return diag_error(d, src->kind == SOURCE_ADS ? "ads needs dynamic_resources.ads_config"
                                                     : "the config source can not be used");
    }
    if (!s->workloads_scope) {
        s->workloads_scope =
            stats_scope_get(s->opt.stats, &workloads_stats_group, SV("workload_discovery."));
        store_count(s, s->workloads_scope, XDS_update_attempt);
    }
    xds_mux_watch_all(c->mux, RES_WORKLOAD);
    return true;
}

static bool internal_listeners(const Core__TypedExtensionConfig *m, struct arena *a,
                               struct diag *d) {
    const BootstrapInternalListener__InternalListener *x =
        ANY_UNPACK_AS(BootstrapInternalListener__InternalListener,
                      bootstrap_internal_listener__internal_listener__descriptor, m->typed_config,
                      sv_cstr(m->name), a, d);
    if (!x || !pb_rules_check(&x->base, d)) {
        return false;
    }
    if (x->buffer_size_kb) {
        log_info(LOG_config,
                 "bootstrap: bootstrap_extensions '%s': buffer_size_kb has no effect: "
                 "the system buffers what goes to internal listeners",
                 m->name);
    }
    return true;
}

static bool use(struct store *s, const Core__TypedExtensionConfig *m, struct diag *d) {
    struct arena a;
    arena_init(&a, 0);
    bool ok = true;
    sv type = m->typed_config ? any_inner_name(m->typed_config, &a) : SV("");
    if (sv_is(type, istio_workload__bootstrap_extension__descriptor.name)) {
        const IstioWorkload__BootstrapExtension *x = ANY_UNPACK_AS(
            IstioWorkload__BootstrapExtension, istio_workload__bootstrap_extension__descriptor,
            m->typed_config, sv_cstr(m->name), &a, d);
        ok = x && watch(s, x->config_source, d);
    } else if (sv_is(type, bootstrap_internal_listener__internal_listener__descriptor.name)) {
        ok = internal_listeners(m, &a, d); /* they need no other permission */
    } else {
        log_info(LOG_config,
                 "bootstrap: bootstrap_extensions '%s' (%.*s) has no effect: not needed here",
                 m->name, SV_ARG(type));
    }
    arena_fini(&a);
    return ok;
}

bool store_set_workloads(struct store *s, const void *bootstrap_msg, struct diag *d) {
    const Bootstrap__Bootstrap *b = bootstrap_msg;
    bool ok = true;
    for (size_t i = 0; i < b->n_bootstrap_extensions; i++) {
        DIAG_FIELD(d, "bootstrap_extensions[%zu]", i);
        ok &= use(s, b->bootstrap_extensions[i], d);
    }
    return ok;
}

void store_workload_set_active(struct entry *e, struct resource *r) {
    struct store *s = e->store;
    store_touch(s);
    if (e->active) {
        snapshot_remove_workload(s->next, e->active);
        s->workloads--;
    }
    if (r) {
        snapshot_add_workload(s->next, r);
        s->workloads++;
    }
    if (s->workloads_scope) {
        stats_gauge_set(stats_shard(s->workloads_scope, s->loop->thread_index), WORKLOADS_total,
                        s->workloads);
    }
}
