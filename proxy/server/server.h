/* The process: start-up state, workers, runtime layers, stats flush, signals, draining, shutdown.
 * Threads: main, except what says otherwise. Not here: the control plane (xds/, wired in main.c),
 * admin's pages (admin*.c). */
#ifndef SLUICE_SERVER_SERVER_H
#define SLUICE_SERVER_SERVER_H

#include "protos/gen/bootstrap.pb-c.h"
#include "proxy/base/runtime.h"
#include "proxy/server/options.h"
#include "proxy/server/worker.h"
#include "proxy/stats/stats_server.h"

struct admin;
struct overload_manager;
struct disk_watch;
struct dir_watcher;
struct config_view; /* what admin asks the config thread for: see config/config_view.h */

struct server {
    struct options opt;
    /* main's loop, as a worker without a thread: admin's connections live on it */
    struct worker *main;
    struct arena arena; /* bootstrap, node: live as long as the process */
    const Bootstrap__Bootstrap *bootstrap;
    const Core__Node *node;
    sv node_wire; /* serialised for xDS */
    const struct registry *registry;
    struct stats_store *stats;
    struct stats_shard *server_stats, *listener_manager, *runtime_stats;
    struct worker_shared shared;
    struct worker **workers;
    unsigned workers_n;
    bool are_workers_started;
    uint32_t state;            /* SERVER_STATE_*; atomic */
    uint64_t started_us;       /* wall clock */
    uint64_t wake_pauses;      /* of the workers, as counted last */
    uint64_t expiry_version;   /* of the snapshot whose certificates were looked at last… */
    int64_t expiry_due_s;      /* …and when they are looked at again at the latest */
    struct snapshot *snapshot; /* the latest published */
    struct runtime_layer **layers;
    struct dir_watcher *files;       /* disk layers' directories; NULL: there are none */
    struct disk_watch *disk_watches; /* server/runtime.c */
    unsigned disk_watches_n, disk_layers_n;
    struct loop_task disk_reload;
    unsigned layers_n, admin_layer; /* admin_layer: index, UINT_MAX: none */
    struct admin *admin;
    const struct config_view *view;
    struct overload_manager *overload; /* NULL: the bootstrap has none */
    struct stats_sinks *stats_sinks;   /* NULL: none */
    struct timer flush_timer;
    uint32_t flush_interval_ms;
    bool flushes_on_admin; /* not by interval: when admin asks for stats */
    uv_signal_t sigterm, sigint, sigusr1, sighup;
    bool is_draining;
    int exit_code;
};

/* Everything but the control plane: stats, runtime, logs, workers (not yet started), admin. False:
 * errors are in d. */
bool server_init(struct server *s, const struct registry *r, struct diag *d);
/* Run until a signal or /quitquitquit; then stop the workers and free. Returns the exit code. */
int server_run(struct server *s);
void server_fini(struct server *s);
/* Hand a snapshot to main and all workers. The config thread. */
void server_publish(struct server *s, struct snapshot *snap);
/* The version that every worker has come to. The config thread. */
uint64_t server_adopted_version(const struct server *s);
/* Start-up is over: start the workers, state LIVE. Any thread. */
void server_set_ready(struct server *s);
void server_quit(struct server *s); /* any thread */
void server_reopen_logs(struct server *s);
/* What is due each stats_flush_interval, or when admin is asked for stats (stats_flush_on_admin):
 * gauges, histograms, sinks. Main. */
void server_flush_stats(struct server *s);
void server_drain(struct server *s, struct drain_request r);
void server_fail_health(struct server *s, bool fail);
unsigned server_state(const struct server *s); /* SERVER_STATE_*, any thread */
unsigned server_concurrency(const struct options *o);
/* server/runtime.c: layers of the bootstrap. */
bool server_runtime_init(struct server *s, struct diag *d);
/* admin layer; empty value removes. False: no admin layer */
bool server_runtime_set(struct server *s, sv key, sv value);
/* RTDS: the layer has the values r->runtime (NULL: none) from now on. Any thread. */
void server_runtime_discovered(struct server *s, unsigned layer, struct resource *r);
void server_runtime_fini(struct server *s);

#endif
