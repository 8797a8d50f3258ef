/* See bootstrap_check.h. Spec: config.bootstrap.v3.Bootstrap. */
#include "proxy/server/bootstrap_check.h"

#include "proxy/base/log.h"

struct setting {
    bool is_set;
    const char *field, *why;
};

static void refuse(struct diag *d, const struct setting *v, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (v[i].is_set) {
            diag_error(d, "%s is not supported: %s", v[i].field, v[i].why);
        }
    }
}

static void tell(const struct setting *v, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (v[i].is_set) {
            log_info(LOG_config, "bootstrap: %s has no effect: %s", v[i].field, v[i].why);
        }
    }
}

/* What was found while it was read; the warnings of its resources follow as they are compiled. */
static void tell_warnings(struct diag *d) {
    for (const struct diag_warning *w = diag_warnings(d); w; w = w->next) {
        log_warn(LOG_config, "bootstrap: %.*s", SV_ARG(w->text));
    }
    if (diag_ok(d)) {
        diag_reset(d);
    }
}

bool bootstrap_check(const Bootstrap__Bootstrap *b, struct diag *d) {
    const struct setting refused[] = {
        {b->n_config_sources != 0, "config_sources", "xdstp config sources are not there yet"},
        {b->default_config_source != NULL, "default_config_source",
         "xdstp config sources are not there yet"},
        {b->xds_delegate_extension != NULL, "xds_delegate_extension", "remove it"},
        {b->n_certificate_provider_instances != 0, "certificate_provider_instances",
         "use SDS or certificate files"},
        {*b->default_socket_interface != 0, "default_socket_interface",
         "only the system's sockets can be used"},
        {*b->header_prefix != 0 && sv_eq(sv_cstr(b->header_prefix), SV("x-envoy")) == false,
         "header_prefix", "it stays x-envoy"},
    };
    const struct setting unhonoured[] = {
        {b->cluster_manager && b->cluster_manager->outlier_detection &&
             b->cluster_manager->outlier_detection->event_service,
         "cluster_manager.outlier_detection.event_service", "use event_log_path"},
        {b->cluster_manager && b->cluster_manager->upstream_bind_config,
         "cluster_manager.upstream_bind_config", "set it in the clusters"},
        {b->cluster_manager && b->cluster_manager->enable_deferred_cluster_creation,
         "cluster_manager.enable_deferred_cluster_creation",
         "a cluster's worker parts are made at first use anyway"},
        {b->typed_dns_resolver_config != NULL, "typed_dns_resolver_config",
         "set it in the clusters"},
        {b->admin && b->admin->n_access_log + (*b->admin->access_log_path != 0), "admin.access_log",
         "requests are logged at debug level"},
        {b->admin && b->admin->n_socket_options, "admin.socket_options",
         "the socket is a plain one"},
        {b->watchdog != NULL || b->watchdogs != NULL, "watchdogs", "threads are not watched"},
        {b->n_fatal_actions != 0, "fatal_actions", "a crash prints its own dump"},
        {b->enable_worker_cpu_affinity, "enable_worker_cpu_affinity", "use taskset"},
        {b->n_inline_headers != 0, "inline_headers", "headers need no registration"},
        {b->memory_allocator_manager != NULL, "memory_allocator_manager",
         "the allocator is the system's"},
        {b->grpc_async_client_manager_config != NULL, "grpc_async_client_manager_config",
         "clients are not cached"},
        {b->listener_manager != NULL, "listener_manager", "there is one"},
        {b->xds_config_tracker_extension != NULL, "xds_config_tracker_extension",
         "see /config_dump"},
        {*b->perf_tracing_file_path != 0, "perf_tracing_file_path", "use perf"},
        {*b->flags_path != 0, "flags_path", "flags are not read from files"},
    };
    refuse(d, refused, ARRAY_LEN(refused));
    tell(unhonoured, ARRAY_LEN(unhonoured));
    bool ok = diag_ok(d);
    tell_warnings(d);
    return ok;
}
