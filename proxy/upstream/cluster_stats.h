/* cluster.<name>.* stats (Envoy's names). */
#ifndef SLUICE_UPSTREAM_CLUSTER_STATS_H
#define SLUICE_UPSTREAM_CLUSTER_STATS_H

#include "proxy/stats/stats.h"

/* clang-format off */
/* What the config thread counts in every cluster, used or not (stats_front). The first is called
 * "default.total_match_count": hosts that none of the cluster's transport_socket_matches fits. */
#define CLUSTER_FRONT_STATS(P, C, G, H, T)                                                                         \
    C(P, default_total_match_count) CLUSTER_PLAIN_FRONT_STATS(P, C, G, H, T)
#define CLUSTER_PLAIN_FRONT_STATS(P, C, G, H, T)                                                                   \
    G(P, max_host_weight) C(P, membership_change) G(P, membership_degraded) G(P, membership_excluded)              \
    G(P, membership_healthy) G(P, membership_total) C(P, update_attempt) C(P, update_empty) C(P, update_failure)   \
    C(P, update_no_rebuild) C(P, update_success) C(P, init_fetch_timeout) C(P, assignment_timeout_received)        \
    C(P, update_rejected) G(P, version) G(P, update_time) G(P, warming_state)
#define CLUSTER_STATS(P, C, G, H, T)                                                                               \
    C(P, default_total_match_count) CLUSTER_PLAIN_STATS(P, C, G, H, T)
#define CLUSTER_PLAIN_STATS(P, C, G, H, T)                                                                         \
    CLUSTER_PLAIN_FRONT_STATS(P, C, G, H, T)                                                                       \
    C(P, assignment_stale) C(P, assignment_use_cached) C(P, bind_errors) C(P, lb_healthy_panic)                    \
    C(P, lb_local_cluster_not_ok) C(P, lb_recalculate_zone_structures) G(P, lb_subsets_active)                     \
    C(P, lb_subsets_created) C(P, lb_subsets_fallback) C(P, lb_subsets_fallback_panic) C(P, lb_subsets_removed)    \
    C(P, lb_subsets_selected) C(P, lb_zone_cluster_too_small) C(P, lb_zone_no_capacity_left)                       \
    C(P, lb_zone_routing_all_directly) C(P, lb_zone_routing_cross_zone) C(P, lb_zone_routing_sampled)              \
    C(P, original_dst_host_invalid) C(P, retry_or_shadow_abandoned) H(P, update_duration, MS) T(P, version_text)   \
    G(P, upstream_cx_active) C(P, upstream_cx_close_notify)                                    \
    C(P, upstream_cx_connect_attempts_exceeded) C(P, upstream_cx_connect_fail) H(P, upstream_cx_connect_ms, MS)    \
    C(P, upstream_cx_connect_timeout) C(P, upstream_cx_connect_with_0_rtt) C(P, upstream_cx_destroy)               \
    C(P, upstream_cx_destroy_local) C(P, upstream_cx_destroy_local_with_active_rq)                                 \
    C(P, upstream_cx_destroy_remote) C(P, upstream_cx_destroy_remote_with_active_rq)                               \
    C(P, upstream_cx_destroy_with_active_rq) C(P, upstream_cx_http1_total) C(P, upstream_cx_http2_total)           \
    C(P, upstream_cx_http3_total) C(P, upstream_cx_idle_timeout) H(P, upstream_cx_length_ms, MS)                   \
    C(P, upstream_cx_max_duration_reached) C(P, upstream_cx_max_requests) C(P, upstream_cx_none_healthy)           \
    C(P, upstream_cx_overflow) C(P, upstream_cx_pool_overflow) C(P, upstream_cx_protocol_error)                    \
    G(P, upstream_cx_rx_bytes_buffered) C(P, upstream_cx_rx_bytes_total) C(P, upstream_cx_total)                   \
    G(P, upstream_cx_tx_bytes_buffered) C(P, upstream_cx_tx_bytes_total)                                           \
    C(P, upstream_flow_control_backed_up_total) C(P, upstream_flow_control_drained_total)                          \
    C(P, upstream_flow_control_paused_reading_total) C(P, upstream_flow_control_resumed_reading_total)             \
    C(P, upstream_http3_broken) C(P, upstream_internal_redirect_failed_total)                                      \
    C(P, upstream_internal_redirect_succeeded_total) C(P, upstream_rq_0rtt) G(P, upstream_rq_active)               \
    C(P, upstream_rq_active_overflow) C(P, upstream_rq_cancelled) C(P, upstream_rq_completed)                      \
    C(P, upstream_rq_maintenance_mode) C(P, upstream_rq_max_duration_reached) G(P, upstream_rq_pending_active)     \
    C(P, upstream_rq_pending_failure_eject) C(P, upstream_rq_pending_overflow) C(P, upstream_rq_pending_total)     \
    C(P, upstream_rq_per_try_idle_timeout) C(P, upstream_rq_per_try_timeout) C(P, upstream_rq_retry)               \
    C(P, upstream_rq_retry_backoff_exponential) C(P, upstream_rq_retry_backoff_ratelimited)                        \
    C(P, upstream_rq_retry_limit_exceeded) C(P, upstream_rq_retry_overflow) C(P, upstream_rq_retry_success)        \
    C(P, upstream_rq_rx_reset) C(P, upstream_rq_timeout) C(P, upstream_rq_total) C(P, upstream_rq_tx_reset)        \
    H(P, upstream_rq_time, MS) H(P, upstream_rq_per_cx, NONE)
/* clang-format on */
STATS_ENUM(CLUSTER, CLUSTER_STATS);
STATS_ENUM(CLUSTER_FRONT, CLUSTER_FRONT_STATS);
extern const struct stats_group cluster_stats_group;

#endif
