/* Discovered runtime layers (RTDS): asked for before clusters, as features may depend on them;
 * handed to main, which owns the layers.
 * Threads: the config thread. Spec: bootstrap.v3.RuntimeLayer.RtdsLayer.
 * Not here: merging layers (server/runtime.c). */
#include "protos/gen/bootstrap.pb-c.h"
#include "proxy/base/log.h"
#include "xds/client.h"
#include "xds/store.h"

static bool add_layer(struct store *s, unsigned index, const Bootstrap__RuntimeLayer__RtdsLayer *m,
                      struct diag *d) {
    DIAG_FIELD(d, "layered_runtime.layers[%u].rtds_layer", index);
    if (!m->rtds_config) {
        return diag_error(d, "rtds_config: value is required");
    }
    const struct config_source *src = config_source_intern(m->rtds_config, d);
    if (!src) {
        return false;
    }
    if (!store_client(s, src, RES_RUNTIME)) {
        return diag_error(d, "rtds_config: %s",
                          src->kind == SOURCE_ADS ? "ads needs dynamic_resources.ads_config"
                                                  : "the config source can not be used");
    }
    struct entry *e = store_get(s, RES_RUNTIME, src, sv_cstr(m->name));
    if (!e->extra->stats) {
        entry_extra(e)->stats = stats_scope_get(s->opt.stats, &xds_stats_group, SV("runtime."));
        stats_inc(stats_shard(e->extra->stats, s->loop->thread_index), XDS_update_attempt);
    }
    struct runtime_use *u = vec_push(&s->runtime_uses);
    *u = (struct runtime_use){index, e};
    store_watch(e);
    return true;
}

bool store_set_runtime(struct store *s, const void *msg, struct diag *d) {
    const Bootstrap__LayeredRuntime *m = msg;
    for (unsigned i = 0; m && i < m->n_layers; i++) {
        const Bootstrap__RuntimeLayer *l = m->layers[i];
        if (l->layer_specifier_case == BOOTSTRAP__RUNTIME_LAYER__LAYER_SPECIFIER_RTDS_LAYER &&
            !add_layer(s, i, l->rtds_layer, d)) {
            return false;
        }
    }
    return true;
}

bool store_waits_runtime(const struct store *s) {
    for (size_t i = 0; i < s->runtime_uses.n; i++) {
        const struct entry *e = s->runtime_uses.p[i].entry;
        /* a refused answer is one too: Envoy waits no longer */
        if (!e->active && !e->is_timed_out && !e->extra->error) {
            return true;
        }
    }
    return false;
}

void store_runtime_set_active(struct entry *e, struct resource *r) {
    struct store *s = e->store;
    for (size_t i = 0; i < s->runtime_uses.n; i++) {
        if (s->runtime_uses.p[i].entry == e && s->opt.on_runtime) {
            s->opt.on_runtime(s->opt.user, s->runtime_uses.p[i].layer, r);
        }
    }
}

void store_runtime_changed(struct store *s) {
    if (!store_waits_runtime(s)) {
        store_watch_clusters(s);
        store_check_ready(s);
    }
}
