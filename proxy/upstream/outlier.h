/* Outlier detection: hosts that fail more than others get no traffic for a while.
 * Threads: workers count into the host's atomics (host_report) and post when a run of failures is
 * full; everything else on the detector's loop (the config thread). Spec:
 * cluster.v3.OutlierDetection; Envoy's outlier detection overview.
 * Not here: what an ejection does to host sets: the callback rebuilds them (config/). */
#ifndef SLUICE_UPSTREAM_OUTLIER_H
#define SLUICE_UPSTREAM_OUTLIER_H

#include "proxy/upstream/cluster.h"

struct outlier_config {
    /* 5, 5, 5 */
    uint32_t consecutive_5xx, consecutive_gateway_failure, consecutive_local_origin_failure;
    /* 10 s, 30 s, 300 s, 0 */
    uint64_t interval_ms, base_ejection_time_ms, max_ejection_time_ms, max_ejection_time_jitter_ms;
    /* 10 */
    uint32_t max_ejection_percent;
    bool always_eject_one_host, split_external_local_origin_errors, uneject_on_health_check;
    uint32_t enforcing_consecutive_5xx, enforcing_consecutive_gateway_failure,
        enforcing_consecutive_local_origin_failure;
    uint32_t enforcing_success_rate, enforcing_local_origin_success_rate;
    uint32_t enforcing_failure_percentage, enforcing_failure_percentage_local_origin;
    uint32_t success_rate_minimum_hosts, success_rate_request_volume, success_rate_stdev_factor;
    uint32_t failure_percentage_threshold, failure_percentage_minimum_hosts,
        failure_percentage_request_volume;
};
/* msg: cluster.v3.OutlierDetection. In ctx->arena; errors go to ctx->diag. */
const struct outlier_config *outlier_config_compile(struct compile_ctx *ctx, const void *msg);

/* clang-format off */
#define OUTLIER_STATS(P, C, G, H, T) \
    G(P, ejections_active) \
    C(P, ejections_consecutive_5xx) \
    C(P, ejections_detected_consecutive_5xx) \
    C(P, ejections_detected_consecutive_gateway_failure) \
    C(P, ejections_detected_consecutive_local_origin_failure) \
    C(P, ejections_detected_degradation) \
    C(P, ejections_detected_failure_percentage) \
    C(P, ejections_detected_local_origin_failure_percentage) \
    C(P, ejections_detected_local_origin_success_rate) \
    C(P, ejections_detected_success_rate) \
    C(P, ejections_enforced_consecutive_5xx) \
    C(P, ejections_enforced_consecutive_gateway_failure) \
    C(P, ejections_enforced_consecutive_local_origin_failure) \
    C(P, ejections_enforced_failure_percentage) \
    C(P, ejections_enforced_local_origin_failure_percentage) \
    C(P, ejections_enforced_local_origin_success_rate) \
    C(P, ejections_enforced_success_rate) \
    C(P, ejections_enforced_total) \
    C(P, ejections_overflow) \
    C(P, ejections_success_rate) \
    C(P, ejections_total)
/* clang-format on */
STATS_ENUM(OUTLIER, OUTLIER_STATS);
extern const struct stats_group outlier_stats_group;

struct outlier_detector;
/* For a cluster; cfg->outlier is copied. on_change: the host's FAILED_OUTLIER_CHECK flag was set or
 * cleared (the host is borrowed). l NULL: a test's; then reports are handled at once and
 * outlier_detector_evaluate() is the clock. One ref. */
struct outlier_detector *outlier_detector_new(struct loop *l, const struct cluster_config *cfg,
                                              void (*on_change)(void *arg, struct host *h),
                                              void *arg);
/* any thread; cluster_config.detector holds one */
void outlier_detector_unref(struct outlier_detector *d);
/* The cluster's hosts from now on. Those ejected stay so as long as they are there. */
void outlier_detector_set_hosts(struct outlier_detector *d, const struct host_set *s);
/* No callback from here on, timers off; ejected hosts lose the flag. The ref stays the caller's. */
void outlier_detector_stop(struct outlier_detector *d);
/* An active health check passed: the host comes back when the config says so. */
void outlier_detector_healthy(struct outlier_detector *d, struct host *h);
/* One interval's work at this time; the timer calls it. */
void outlier_detector_evaluate(struct outlier_detector *d, uint64_t now_ms);
/* Success rate in the last interval that had enough requests, in percent; -1: none. */
double outlier_detector_success_rate(const struct outlier_detector *d, const struct host *h,
                                     bool is_local_origin);
/* Average of the rates that the last interval judged; -1: there was no such judgement. */
double outlier_detector_average(const struct outlier_detector *d, bool is_local_origin);
/* Below this rate hosts were ejected in the last interval; -1: there was no such judgement. */
double outlier_detector_threshold(const struct outlier_detector *d, bool is_local_origin);

#endif
