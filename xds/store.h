/* The resources of this proxy: static ones, those of control planes and files; what is active,
 * warming, rejected; what is wanted from where; and the snapshot made of it.
 * Threads: the config thread owns it all. Snapshots leave through `publish`; what other threads say
 * comes in by the loop's mailbox.
 * Files: store.c (activation, applying updates), entry.c (their memory), store_refs.c (wanted
 * names, sources), store_warm.c (readiness, activation), store_listeners.c (addresses, sockets),
 * store_hosts.c (host sets, DNS), store_health.c (checks, outliers), store_scopes.c (SRDS),
 * store_vhds.c (VHDS), store_leds.c (LEDS), store_workloads.c (Istio's workloads), store_demand.c
 * (what requests ask for), store_view.c (what admin shows). */
#ifndef SLUICE_XDS_STORE_H
#define SLUICE_XDS_STORE_H

#include "proxy/base/vec.h"
#include "proxy/config/config.h"
#include "proxy/config/sockets.h"
#include "proxy/stats/stats_server.h"
#include "xds/entry.h"
#include "xds/mux.h"

struct source_client;
struct dir_watcher;

/* Names remembered only because what came was refused; past it they are forgotten at once. */
#define STORE_ONLY_REJECTED_MAX 10000u
/* Bytes of refused resources kept for error_state; what is beyond shows its error only. */
#define STORE_FAILED_BYTES_MAX ((size_t)16 << 20)

/* A layer of the bootstrap's runtime and where its values come from. */
struct runtime_use {
    unsigned layer;
    struct entry *entry;
};
VEC_TYPE(runtime_use_vec, struct runtime_use)

/* Sockets that a listener had. One ref on each; sockets NULL: another listener has them now. */
struct sockets_left {
    struct listener_sockets *sockets;
    struct resource *of;
};
VEC_TYPE(sockets_left_vec, struct sockets_left)

/* A version of a listener that workers have connections of. One ref. */
struct listener_draining {
    struct resource *of;
    bool is_whole;   /* else it serves on, but for… */
    unsigned chains; /* …so many of its filter chains */
};
VEC_TYPE(listener_draining_vec, struct listener_draining)

struct store_options {
    struct loop *loop;
    struct stats_store *stats;
    const struct registry *registry;
    unsigned workers;
    sv node; /* serialised core.v3.Node, lives as long as the store */
    sv node_id, node_cluster;
    const void *node_msg;       /* the same as core.v3.Node */
    const void *default_tracer; /* config.trace.v3.Tracing.Http of the bootstrap; NULL: none */
    bool reject_unknown_dynamic, ignore_unknown_dynamic, allow_unknown_static;
    /* --mode validate: no sockets, no streams, no names resolved */
    bool is_dry_run;
    /* Hand a snapshot to the workers and to main; called at the end of an event that changed
     * something. */
    void (*publish)(void *user, struct snapshot *s);
    /* The snapshot version that all workers have come to; older ones are the store's alone. */
    uint64_t (*adopted_version)(void *user);
    /* Everything that start-up waits for is there (or timed out). Once. */
    void (*on_ready)(void *user);
    /* The bootstrap's runtime layer with this index has new values (r->runtime, borrowed; NULL:
     * none). */
    void (*on_runtime)(void *user, unsigned layer, struct resource *r);
    void *user;
};
struct store {
    struct loop *loop;
    struct store_options opt;
    struct config config;
    struct map entries; /* key: type, source id, name → struct entry */
    /* next: being changed in this event; NULL: nothing changed */
    struct snapshot *latest, *next;
    struct loop_task flush;
    /* Published before `latest`, kept until all workers left them: what only they have is freed
     * here, not by a worker. */
    VEC(struct snapshot *) leaving;
    struct timer leaving_timer;
    struct list demands; /* of struct on_demand_fetch: not answered yet */
    unsigned demands_n;
    /* of struct on_demand_fetch about DNS hosts: looked up; answered with the next snapshot */
    struct list dns_waits, dns_answers;
    struct list hosts_due;     /* of struct cluster_hosts: to be made anew for it */
    struct stats_scope *odcds; /* NULL until used */
    struct list views;         /* of struct view_request: the first is being gathered */
    bool view_mark;            /* of entries that it has seen, or need not see */
    struct entry_vec scope_sets, scope_entries; /* of all sources; the latter active */
    uint64_t update_count;
    uint32_t walks;           /* through the users of a resource */
    uint64_t update_began_us; /* the update at hand, or the last; loop time */
    uint64_t change_count;    /* resources that updates added, changed or removed */
    struct source_client **clients;
    unsigned clients_n;
    const struct config_source *ads; /* dynamic_resources.ads_config as a source; NULL: none */
    bool is_ready;
    bool waits_cds, waits_lds; /* first response not there yet */
    struct timer cds_timer, lds_timer;
    struct runtime_use_vec runtime_uses;
    struct dir_watcher *files;           /* of secrets; NULL: none is watched yet */
    struct source_client *clusters_due;  /* CDS is asked for once RTDS answered; NULL: it was */
    uint32_t clusters_timeout_ms;        /* initial_fetch_timeout of cds_config */
    struct source_client *listeners_due; /* LDS is asked for once CDS answered; NULL: it was */
    uint32_t listeners_timeout_ms;       /* initial_fetch_timeout of lds_config */
    struct stats_shard *cluster_manager, *listener_manager, *snapshot_stats, *stats;
    uint64_t sources_refused; /* counted so far */
    uint64_t next_took_us;    /* to make `next` */
    struct stats_scope *cds_scope, *cds_reload_scope, *lds_scope;
    /* of the last response that changed anything, which is what Envoy shows; never NULL */
    char *cds_version, *lds_version;
    unsigned only_rejected_n; /* entries */
    size_t failed_bytes;
    struct hds *hds;            /* health discovery (hds.h); NULL: none */
    struct lrs *lrs, *lrs_self; /* load reporting (lrs.h); NULL: none */
    const void *lrs_ads;        /* ads_config: where clusters with lrs_server: self report to */
    unsigned lrs_self_clusters; /* active ones */
    struct stats_scope *workloads_scope;   /* NULL: workloads are not discovered */
    unsigned workloads;                    /* active ones */
    struct map listener_addresses;         /* address → whose it is */
    struct sockets_left_vec sockets_left;  /* in this event */
    struct listener_draining_vec draining; /* the oldest first */
    struct timer draining_timer;
    unsigned warming_clusters, warming_listeners, active_clusters, active_listeners;
};

struct view_request;

void store_init(struct store *s, const struct store_options *o);
void store_fini(struct store *s);
/* last of all: resources that workers held release their slots when they go */
void store_free_names(struct store *s);

/* A resource of the bootstrap. False: errors are in d. */
bool store_add_static(struct store *s, enum resource_type t, sv wire, struct diag *d);
void store_static_done(struct store *s); /* all static resources are there */
/* Bootstrap.dynamic_resources (NULL: none) and what else of the bootstrap is discovered: runtime
 * layers. */
bool store_set_dynamic(struct store *s, const void *dynamic_resources_msg,
                       const void *layered_runtime_msg, struct diag *d);
bool store_has_cluster(struct store *s, sv name);
/* Start-up no longer waits for the first response of a wildcard subscription after `ms` (0: it
 * waits for ever). */
void store_wildcard_timeout(struct store *s, enum resource_type t, uint32_t ms);
/* Ask for listeners, if that is still due: they refer to clusters, which come first. client.c */
void store_watch_listeners(struct store *s);
/* The next endpoint of a (static) cluster to dial for an xDS stream. */
struct xds_dial_target;
bool store_dial_target(struct store *s, sv cluster, struct xds_dial_target *out);

/* --- between the store's files --- */
struct entry *store_find(struct store *s, enum resource_type t, const struct config_source *src,
                         sv name);
/* or make */
struct entry *store_get(struct store *s, enum resource_type t, const struct config_source *src,
                        sv name);
bool store_same_source(const struct config_source *a, const struct config_source *b);
void store_drop_if_unused(struct entry *e);
/* After `ms` it is given up, unless the wait is stopped. */
void store_start_wait(struct entry *e, uint32_t ms);
void store_stop_wait(struct entry *e);
void store_touch(struct store *s); /* a snapshot is due: s->next may be changed */
void store_set_active(struct entry *e, struct resource *r); /* takes r; NULL: remove. Tells users */
void store_publish_route(struct entry *e); /* its active table anew, with what VHDS has */
void store_drop_warming(struct entry *e);  /* the version that waits, if there is one */
/* Apply one accepted resource (takes r). */
void store_apply(struct entry *e, struct resource *r);
void store_remove(struct entry *e);
void store_drop_failed(struct entry *e);
void store_clear_error(struct entry *e); /* what was refused is of no interest any more */

/* store_refs.c */
void store_link(struct entry *owner, const struct resource *r, struct entry_links *uses);
/* One reference; made when new. */
void store_link_one(struct entry *owner, const struct resource_ref *ref, struct entry_links *uses);
void store_unlink(struct entry *owner, struct entry_links *uses);
void store_watch(struct entry *target); /* first watcher subscribes */
void store_unwatch(struct entry *target);
/* For walks that change entries: what lives by being watched is put in `kept` and stays until
 * store_let_go(), though a resource that is activated meanwhile lets go of it. Others end only by
 * an update of their own. */
void store_keep(struct entry_vec *kept, struct entry *e);
void store_let_go(struct entry_vec *kept); /* frees the list */
/* The aggregated stream is there: static resources have asked for some already. */
void store_ads_opened(struct store *s);
struct source_client *store_client(struct store *s, const struct config_source *src,
                                   enum resource_type t);
void store_clients_free(struct store *s);
/* store_extension.c */
/* Compile a new version for all who use it, into their slots. False: errors are in d, nothing has
 * changed. */
bool store_extension_update(struct entry *e, struct resource *r, struct diag *d);
void store_extension_failed(struct entry *e);  /* an update was refused or did not come */
void store_extension_removed(struct entry *e); /* its users go back to their defaults */
/* r's discovered filters get what is there for them now; its refs are linked. */
void store_extensions_link(struct store *s, const struct resource *r);
bool store_extensions_arrived(struct store *s, const struct resource *r);
void store_extension_swept(void *store, slot_t slot); /* nobody refers to the slot any more */
/* store_secret.c */
void store_secret_watch(struct entry *e, const struct resource *r); /* r NULL: no longer */
void store_secret_unwatch(struct entry *e);
/* store_runtime.c */
bool store_set_runtime(struct store *s, const void *layered_runtime_msg, struct diag *d);
bool store_waits_runtime(const struct store *s); /* start-up does, for a layer's first answer */
void store_runtime_set_active(struct entry *e, struct resource *r);
void store_runtime_changed(struct store *s); /* a layer came, went, was refused or timed out */
/* store_workloads.c */
/* Ask for the mesh's workloads if Bootstrap.bootstrap_extensions has Istio's extension; of others
 * the log tells. */
bool store_set_workloads(struct store *s, const void *bootstrap_msg, struct diag *d);
void store_workload_set_active(struct entry *e, struct resource *r);
/* client.c: ask for clusters, if that is still due */
void store_watch_clusters(struct store *s);
/* store_warm.c */
/* activate the warming resource when all it waits for is there */
void store_check_warm(struct entry *e);
/* a secret, endpoints or route table came, changed, went or timed out */
void store_target_changed(struct entry *target);
/* It is there, or will not be waited for. */
bool store_has_arrived(const struct entry *target);
/* Does user's new version wait for it? Where no version serves yet not for what was refused, as in
 * Envoy; else the last good one goes on. */
bool store_is_awaited(const struct entry *user, const struct entry *target);
void store_check_ready(struct store *s);
bool store_make_transports(struct store *s, const struct resource *r);
void store_drop_transports(struct store *s, const struct resource *r);
/* store_hosts.c */
/* discovery for a new version begins, beside that of the version that serves */
void store_hosts_start(struct entry *cluster, struct resource *r);
void store_hosts_activate(struct entry *cluster);  /* it takes over; nothing is published */
void store_hosts_drop_next(struct entry *cluster); /* it will not */
void store_hosts_assigned(struct entry *cluster);  /* its ClusterLoadAssignment came or changed */
void store_hosts_follow(struct entry *cluster);    /* what that refers to did */
bool store_hosts_ready(const struct entry *cluster);
/* Was every host of the warming version checked once? The checks begin with the first call. */
bool store_health_ready(struct entry *cluster);
void store_hosts_publish(struct entry *cluster); /* into s->next */
void store_hosts_stop(struct entry *cluster);
void store_hosts_count_empty(const struct entry *cluster); /* an answer had no endpoints for it */
void store_hosts_settle(struct store *s);                  /* makes those that are due */
/* policy.drop_overloads[].category of the endpoints; a borrow of a resource. Empty: none */
sv store_hosts_drop_category(const struct entry *cluster);
/* store_stats.c; a scope may be NULL: nothing is counted */
/* of CDS and LDS; else NULL */
struct stats_scope *store_wildcard_scope(struct store *s, enum resource_type t);
void store_count(struct store *s, struct stats_scope *scope, unsigned xds_stat);
/* since the update at hand began */
void store_record_duration(struct store *s, struct stats_scope *scope);
void store_note_version(struct store *s, struct stats_scope *scope, sv version);
/* XDS_… of the subscription to one name */
void store_count_named(struct entry *e, unsigned xds_stat);
void store_note_named_success(struct entry *e, sv version);
void store_note_reload(struct entry *e);                             /* routes changed */
void store_count_reload(struct store *s, struct stats_scope *scope); /* of xds_reload_stats_group */
/* every name of the type that the client asks for */
void store_count_failures(const struct source_client *c, enum resource_type t);
/* What e's next version was to be is refused, for error_state. */
void store_refuse(struct entry *e, sv wire, sv version, sv text);
/* store_update.c: the sink of muxes */
struct source_client {
    struct store *store;
    const struct config_source *source;
    /* of a per-type stream or file; RES_TYPES: aggregated */
    enum resource_type type;
    const struct entry *only; /* the secret that alone is asked for; NULL: there may be many */
    struct loop_garbage garbage;
    struct xds_mux *mux;
    struct xds_dialer *dialer;
    sv cluster;   /* control-plane cluster */
    sv authority; /* :authority of its requests */
    struct xds_sink sink;
    bool is_connected;
    /* "*" of scopes is watched, from the first set on for good: SotW has no way to end it… */
    bool watches_scopes;
    bool are_scopes_known; /* …and was answered */
};
void store_on_update(void *user, const struct xds_update *u, struct xds_verdict *v);
/* One more line of a NACK. */
void store_add_error(struct xds_verdict *v, enum resource_type t, sv name, sv text);
void store_on_failure(void *user, enum resource_type t);
/* In the stats of the entry's own subscription: an XDS_x, and the next attempt. */
void store_note_failure(struct entry *e, unsigned stat);
void store_on_rejected(void *user, enum resource_type t, sv why);

#endif
