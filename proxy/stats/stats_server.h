/* Names of process-wide stats, as X-macro tables. A group's prefix is in the comment above it.
 * Whoever owns the facts gets the scope with stats_scope_get(store, &x_stats_group,
 * SV("<prefix>")). */
#ifndef SLUICE_STATS_STATS_SERVER_H
#define SLUICE_STATS_STATS_SERVER_H

#include "proxy/stats/stats.h"

/* The formatter cannot make up its mind about these tables. */
/* clang-format off */

/* "server." */
#define SERVER_STATS(P, C, G, H, T) \
    G(P, concurrency) G(P, days_until_first_cert_expiring) C(P, debug_assertion_failures) \
    C(P, dropped_stat_flushes) C(P, dynamic_unknown_fields) C(P, envoy_bug_failures) \
    C(P, envoy_notifications) G(P, hot_restart_epoch) G(P, hot_restart_generation) \
    H(P, initialization_time_ms, MS) G(P, live) G(P, memory_allocated) G(P, memory_heap_size) \
    G(P, memory_physical_size) G(P, parent_connections) \
    G(P, seconds_until_first_ocsp_response_expiring) G(P, state) C(P, static_unknown_fields) \
    G(P, stats_recent_lookups) G(P, tls_contexts) G(P, total_connections) G(P, uptime) G(P, version) \
    C(P, wake_pauses) C(P, wip_protos)
STATS_ENUM(SERVER, SERVER_STATS);
extern const struct stats_group server_stats_group;
enum {
    SERVER_STATE_LIVE,
    SERVER_STATE_DRAINING,
    SERVER_STATE_PRE_INITIALIZING,
    SERVER_STATE_INITIALIZING
};

/* "server.compilation_settings." */
#define COMPILATION_STATS(P, C, G, H, T) G(P, fips_mode)
STATS_ENUM(COMPILATION, COMPILATION_STATS);
extern const struct stats_group compilation_stats_group;

/* "server.main_thread.", "server.worker_<n>.", "main_thread.", "workers." */
#define WATCHDOG_STATS(P, C, G, H, T) C(P, watchdog_mega_miss) C(P, watchdog_miss)
STATS_ENUM(WATCHDOG, WATCHDOG_STATS);
extern const struct stats_group watchdog_stats_group;

/* "main_thread.dispatcher.", "listener_manager.worker_<n>.dispatcher."; ours alone:
 * "config_thread.dispatcher.", and turn_cpu_us: a turn on the thread's CPU clock, which others on
 * the same core do not lengthen. */
#define DISPATCHER_STATS(P, C, G, H, T) \
    H(P, loop_duration_us, US) H(P, poll_delay_us, US) H(P, turn_cpu_us, US)
STATS_ENUM(DISPATCHER, DISPATCHER_STATS);
extern const struct stats_group dispatcher_stats_group;

/* "config.snapshot.": ours alone. publish_us: the config thread's time to make the next snapshot of
 * the last and to hand it out; adopt_us: a worker's to take it. */
#define SNAPSHOT_STATS(P, C, G, H, T) C(P, published) H(P, publish_us, US) H(P, adopt_us, US)
STATS_ENUM(SNAPSHOT, SNAPSHOT_STATS);
extern const struct stats_group snapshot_stats_group;

/* "config.": ours alone. Config sources that are remembered (config/resource.h), and refused
 * ones. */
#define CONFIG_STATS(P, C, G, H, T) G(P, sources) C(P, sources_refused)
STATS_ENUM(CONFIG, CONFIG_STATS);
extern const struct stats_group config_stats_group;

/* "cluster_manager." */
#define CLUSTER_MANAGER_STATS(P, C, G, H, T) \
    G(P, active_clusters) C(P, cluster_added) C(P, cluster_modified) C(P, cluster_removed) \
    C(P, cluster_updated) C(P, cluster_updated_via_merge) C(P, update_merge_cancelled) \
    C(P, update_out_of_merge_window) G(P, warming_clusters)
STATS_ENUM(CLUSTER_MANAGER, CLUSTER_MANAGER_STATS);
extern const struct stats_group cluster_manager_stats_group;

/* "thread_local_cluster_manager.main_thread.", "thread_local_cluster_manager.worker_<n>." */
#define TLS_CLUSTER_MANAGER_STATS(P, C, G, H, T) G(P, clusters_inflated)
STATS_ENUM(TLS_CLUSTER_MANAGER, TLS_CLUSTER_MANAGER_STATS);
extern const struct stats_group tls_cluster_manager_stats_group;

/* "listener_manager." */
#define LISTENER_MANAGER_STATS(P, C, G, H, T) \
    C(P, listener_added) C(P, listener_create_failure) C(P, listener_create_success) \
    C(P, listener_in_place_updated) C(P, listener_modified) C(P, listener_removed) \
    C(P, listener_stopped) G(P, total_filter_chains_draining) G(P, total_listeners_active) \
    G(P, total_listeners_draining) G(P, total_listeners_warming) G(P, workers_pinned) \
    G(P, workers_started)
STATS_ENUM(LISTENER_MANAGER, LISTENER_MANAGER_STATS);
extern const struct stats_group listener_manager_stats_group;

/* One xDS subscription: "cluster_manager.cds.", "listener_manager.lds.", "http.<p>.rds.<route>.",
 * "sds.<secret>.", "cluster.<c>." (EDS), "runtime.",
 * "extension_config_discovery.http_filter.<name>." */
#define XDS_STATS(P, C, G, H, T) \
    C(P, init_fetch_timeout) C(P, update_attempt) H(P, update_duration, MS) C(P, update_failure) \
    C(P, update_rejected) C(P, update_success) G(P, update_time) G(P, version) \
    T(P, version_text)
STATS_ENUM(XDS, XDS_STATS);
extern const struct stats_group xds_stats_group;

/* What joins a subscription that reloads configuration: CDS, RDS, SRDS, ECDS. */
#define XDS_RELOAD_STATS(P, C, G, H, T) C(P, config_reload) G(P, config_reload_time_ms)
STATS_ENUM(XDS_RELOAD, XDS_RELOAD_STATS);
extern const struct stats_group xds_reload_stats_group;
/* "http.<p>.rds.<route>.": */
#define RDS_STATS(P, C, G, H, T) C(P, update_empty)
STATS_ENUM(RDS, RDS_STATS);
extern const struct stats_group rds_stats_group;
/* "http.<p>.scoped_rds.<name>.": */
#define SCOPED_RDS_STATS(P, C, G, H, T) \
    G(P, active_scopes) G(P, all_scopes) G(P, on_demand_scopes) C(P, update_empty)
STATS_ENUM(SCOPED_RDS, SCOPED_RDS_STATS);
extern const struct stats_group scoped_rds_stats_group;
/* "cluster.<c>.leds."; XDS_STATS come first, as in ECDS_STATS */
#define LEDS_STATS(P, C, G, H, T) XDS_STATS(P, C, G, H, T) C(P, update_empty)
STATS_ENUM(LEDS, LEDS_STATS);
extern const struct stats_group leds_stats_group;
/* "sds.<secret>."; XDS_STATS come first, as in ECDS_STATS */
#define SDS_STATS(P, C, G, H, T) XDS_STATS(P, C, G, H, T) C(P, key_rotation_failed)
STATS_ENUM(SDS, SDS_STATS);
extern const struct stats_group sds_stats_group;
/* "extension_config_discovery.http_filter.<name>."; XDS_STATS come first: XDS_x are its indices
 * too */
#define ECDS_STATS(P, C, G, H, T) XDS_STATS(P, C, G, H, T) XDS_RELOAD_STATS(P, C, G, H, T) \
    C(P, config_conflict) C(P, config_fail)
STATS_ENUM(ECDS, ECDS_STATS);
extern const struct stats_group ecds_stats_group;
/* "workload_discovery."; XDS_STATS come first, as in ECDS_STATS */
#define WORKLOADS_STATS(P, C, G, H, T) XDS_STATS(P, C, G, H, T) G(P, total)
STATS_ENUM(WORKLOADS, WORKLOADS_STATS);
extern const struct stats_group workloads_stats_group;

/* "control_plane.", and under a subscription's own prefix when it has its own stream */
#define CONTROL_PLANE_STATS(P, C, G, H, T) \
    G(P, connected_state) T(P, identifier) G(P, pending_requests) C(P, rate_limit_enforced)
STATS_ENUM(CONTROL_PLANE, CONTROL_PLANE_STATS);
extern const struct stats_group control_plane_stats_group;

/* "load_reporter.": requests are those of the server, responses our reports */
#define LOAD_REPORTER_STATS(P, C, G, H, T) C(P, errors) C(P, requests) C(P, responses) C(P, retries)
STATS_ENUM(LOAD_REPORTER, LOAD_REPORTER_STATS);
extern const struct stats_group load_reporter_stats_group;

/* "runtime." */
#define RUNTIME_STATS(P, C, G, H, T) \
    G(P, admin_overrides_active) G(P, deprecated_feature_seen_since_process_start) \
    C(P, deprecated_feature_use) C(P, load_error) C(P, load_success) G(P, num_keys) \
    G(P, num_layers) C(P, override_dir_exists) C(P, override_dir_not_exists)
STATS_ENUM(RUNTIME, RUNTIME_STATS);
extern const struct stats_group runtime_stats_group;

/* "filesystem."; write_dropped_bytes is ours: log bytes thrown away because the disk could not keep
 * up */
#define FILESYSTEM_STATS(P, C, G, H, T) \
    C(P, flushed_by_timer) C(P, reopen_failed) C(P, write_buffered) C(P, write_completed) \
    C(P, write_failed) G(P, write_total_buffered) C(P, write_dropped_bytes)
STATS_ENUM(FILESYSTEM, FILESYSTEM_STATS);
extern const struct stats_group filesystem_stats_group;

/* clang-format on */
#endif
