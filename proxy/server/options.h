/* Command line: Envoy's flags with Envoy's meaning. Threads: parsed once by main, read-only
 * afterwards.
 * Spec: Envoy 1.40 "command line options". Accepted without effect here (documented in README):
 * --hot-restart family,
 * --base-id, --cpuset-threads beyond counting, --enable-mutex-tracing, --enable-core-dump. */
#ifndef SLUICE_SERVER_OPTIONS_H
#define SLUICE_SERVER_OPTIONS_H

#include "proxy/base/sv.h"
#include "proxy/base/vec.h"

enum server_mode { MODE_SERVE, MODE_VALIDATE, MODE_INIT_ONLY };
VEC_TYPE(option_list, const char *)
struct options {
    const char *config_path, *config_yaml, *log_level, *log_path, *log_format, *component_log_level,
        *admin_address_path;
    const char *service_cluster, *service_node, *service_zone, *local_address_ip_version,
        *base_id_path, *socket_path;
    const char *disable_extensions;
    enum server_mode mode;
    uint32_t concurrency; /* 0: not given */
    bool has_concurrency, cpuset_threads;
    uint32_t drain_time_s, parent_shutdown_time_s, file_flush_interval_ms, file_flush_min_size_kb;
    bool is_drain_immediate, log_format_escaped, enable_fine_grain_logging, skip_deprecated_logs;
    bool allow_unknown_static_fields, reject_unknown_dynamic_fields, ignore_unknown_dynamic_fields;
    bool disable_hot_restart, enable_mutex_tracing, enable_core_dump, use_dynamic_base_id,
        skip_hot_restart_on_no_parent;
    bool skip_hot_restart_parent_stats, log_stacktrace_single_entry;
    uint32_t base_id, restart_epoch, socket_mode;
    struct option_list stats_tags;
    struct option_list validate_resources; /* files, directories: with MODE_VALIDATE only */
};
/* Returns -1 to go on; else the process exit code (help, version and errors are printed). */
int options_parse(struct options *o, int argc, char **argv);
void options_fini(struct options *o);

#endif
