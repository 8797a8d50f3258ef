/* What is counted of subscriptions, by Envoy's names: cluster_manager.cds., listener_manager.lds.,
 * http.<p>.rds.<route>., sds.<secret>., and of endpoints in their clusters' own stats.
 * Threads: the config thread. Spec: Envoy's xDS subscription statistics. */
#include <xxhash.h>

#include "proxy/upstream/cluster.h"
#include "xds/store.h"

static struct stats_shard *shard_of(const struct store *s, struct stats_scope *scope) {
    return stats_shard(scope, s->loop->thread_index);
}

struct stats_scope *store_wildcard_scope(struct store *s, enum resource_type t) {
    return t == RES_CLUSTER    ? s->cds_scope
           : t == RES_LISTENER ? s->lds_scope
           : t == RES_WORKLOAD ? s->workloads_scope
                               : NULL;
}

void store_count(struct store *s, struct stats_scope *scope, unsigned xds_stat) {
    if (scope) {
        stats_inc(shard_of(s, scope), xds_stat);
    }
}

void store_record_duration(struct store *s, struct stats_scope *scope) {
    if (scope) {
        uint64_t now_us = loop_refresh_now(s->loop);
        stats_record(shard_of(s, scope), XDS_update_duration, (now_us - s->update_began_us) / 1000);
    }
}

/* As dashboards know it: XXH64 of the text. */
static uint64_t version_hash(sv version) { return XXH64(version.p, version.n, 0); }

void store_note_version(struct store *s, struct stats_scope *scope, sv version) {
    if (!scope) {
        return;
    }
    struct stats_shard *sh = shard_of(s, scope);
    stats_gauge_set(sh, XDS_version, version_hash(version));
    stats_gauge_set(sh, XDS_update_time, loop_wall_us(s->loop, loop_now_us(s->loop)) / 1000);
    stats_text_set(scope, XDS_version_text, version);
}

/* ---- named subscriptions ---- */

/* Routes have theirs from the listener that named them first. */
static struct stats_scope *scope_of(struct entry *e) {
    if (e->extra->stats || e->type != RES_SECRET) {
        return e->extra->stats;
    }
    struct buf BUF_AUTO b;
    buf_init(&b);
    buf_printf(&b, "sds.%.*s.", SV_ARG(entry_name(e)));
    entry_extra(e)->stats =
        stats_scope_get(e->store->opt.stats, &sds_stats_group, buf_pullup(&b, buf_len(&b)));
    return e->extra->stats;
}

/* Of those that a cluster's own discovery does not count. */
static bool cluster_stat(unsigned xds_stat, unsigned *out) {
    switch (xds_stat) {
    case XDS_update_rejected:
        *out = CLUSTER_update_rejected;
        return true;
    case XDS_update_failure:
        *out = CLUSTER_update_failure;
        return true;
    case XDS_init_fetch_timeout:
        *out = CLUSTER_init_fetch_timeout;
        return true;
    default:
        return false;
    }
}

static struct stats_scope *cluster_scope(const struct entry *user) {
    const struct resource *r = user->active ? user->active : user->warming;
    return user->type == RES_CLUSTER && r ? r->cluster->stats : NULL;
}

void store_count_named(struct entry *e, unsigned xds_stat) {
    unsigned stat;
    if (e->type != RES_ENDPOINTS) {
        store_count(e->store, scope_of(e), xds_stat);
    } else if (cluster_stat(xds_stat, &stat)) {
        for (size_t i = 0; i < e->users.n; i++) {
            struct stats_scope *scope = cluster_scope(entry_links_at(&e->users, i));
            if (scope) {
                stats_inc(stats_front(scope), stat);
            }
        }
    }
}

void store_note_failure(struct entry *e, unsigned xds_stat) {
    store_count_named(e, xds_stat);
    store_count_named(e, XDS_update_attempt);
    if (e->type == RES_EXTENSION) {
        store_extension_failed(e);
    }
}

static void note_cluster_version(const struct store *s, struct stats_scope *scope, sv version) {
    struct stats_shard *sh = stats_front(scope);
    stats_gauge_set(sh, CLUSTER_version, version_hash(version));
    stats_gauge_set(sh, CLUSTER_update_time, loop_wall_us(s->loop, loop_now_us(s->loop)) / 1000);
    stats_text_set(scope, CLUSTER_version_text, version);
}

void store_note_named_success(struct entry *e, sv version) {
    if (e->type != RES_ENDPOINTS) {
        store_count_named(e, XDS_update_success);
        store_count_named(e, XDS_update_attempt);
        store_note_version(e->store, scope_of(e), version);
        store_record_duration(e->store, scope_of(e));
        return;
    }
    for (size_t i = 0; i < e->users.n; i++) {
        struct stats_scope *scope = cluster_scope(entry_links_at(&e->users, i));
        if (scope) {
            note_cluster_version(e->store, scope, version);
        }
    }
}

void store_count_reload(struct store *s, struct stats_scope *scope) {
    stats_inc(shard_of(s, scope), XDS_RELOAD_config_reload);
    stats_gauge_set(shard_of(s, scope), XDS_RELOAD_config_reload_time_ms,
                    loop_wall_us(s->loop, loop_now_us(s->loop)) / 1000);
}

void store_note_reload(struct entry *e) {
    struct stats_scope *own = scope_of(e);
    if (e->type != RES_ROUTE || !own) {
        return;
    }
    struct store *s = e->store;
    struct stats_scope *scope =
        stats_scope_get(s->opt.stats, &xds_reload_stats_group, stats_scope_prefix(own));
    store_count_reload(s, scope);
    if (e->extra->reload_stats) {
        stats_scope_unref(e->extra->reload_stats);
    }
    entry_extra(e)->reload_stats = scope;
}

void store_count_failures(const struct source_client *c, enum resource_type t) {
    size_t it = 0;
    struct map_slot *slot;
    while ((slot = map_next(&c->store->entries, &it))) {
        struct entry *e = slot->value;
        bool is_asked = !c->only || c->only == e;
        if (is_asked && e->type == t && e->watchers && store_same_source(e->source, c->source)) {
            store_count_named(e, XDS_update_failure);
            store_count_named(e, XDS_update_attempt);
        }
    }
}
