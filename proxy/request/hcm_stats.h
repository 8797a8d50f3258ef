/* http.<stat_prefix>.* stats of an HTTP connection manager (Envoy's names). */
#ifndef SLUICE_REQUEST_HCM_STATS_H
#define SLUICE_REQUEST_HCM_STATS_H

#include "proxy/stats/stats.h"

// clang-format off
#define HCM_STATS(P, C, G, H, T)                                                                                                \
    C(P, downstream_rq_1xx) C(P, downstream_rq_2xx) C(P, downstream_rq_3xx) C(P, downstream_rq_4xx)                             \
    C(P, downstream_rq_5xx)                                                                                                     \
    G(P, downstream_cx_active)                                                                                                  \
    C(P, downstream_cx_delayed_close_timeout)                                                                                   \
    C(P, downstream_cx_destroy) C(P, downstream_cx_destroy_active_rq) C(                                                        \
        P,                                                                                                                      \
        downstream_cx_destroy_local) C(P,                                                                                       \
                                       downstream_cx_destroy_local_active_rq) C(P,                                              \
                                                                                downstream_cx_destroy_remote)                   \
        C(P, downstream_cx_destroy_remote_active_rq) C(P, downstream_cx_drain_close) G(                                         \
            P,                                                                                                                  \
            downstream_cx_http1_active) C(P,                                                                                    \
                                          downstream_cx_http1_total) G(P,                                                       \
                                                                       downstream_cx_http2_active)                              \
            C(P, downstream_cx_http2_total) G(P, downstream_cx_http3_active) C(                                                 \
                P,                                                                                                              \
                downstream_cx_http3_total) C(P,                                                                                 \
                                             downstream_cx_idle_timeout) H(P,                                                   \
                                                                           downstream_cx_length_ms,                             \
                                                                           MS)                                                  \
                C(P, downstream_cx_max_duration_reached) C(P, downstream_cx_max_requests_reached) C(                            \
                    P, downstream_cx_overload_disable_keepalive) C(P,                                                           \
                                                                   downstream_cx_protocol_error)                                \
                    G(P, downstream_cx_rx_bytes_buffered) C(P, downstream_cx_rx_bytes_total) G(                                 \
                        P,                                                                                                      \
                        downstream_cx_ssl_active) C(P,                                                                          \
                                                    downstream_cx_ssl_total) C(P,                                               \
                                                                               downstream_cx_total)                             \
                        G(P, downstream_cx_tx_bytes_buffered) C(P, downstream_cx_tx_bytes_total) G(                             \
                            P, downstream_cx_upgrades_active) C(P, downstream_cx_upgrades_total)                                \
                            C(P, downstream_flow_control_paused_reading_total) C(                                               \
                                P, downstream_flow_control_resumed_reading_total)                                               \
                                G(P, downstream_rq_active) C(P, downstream_rq_completed) C(                                     \
                                    P,                                                                                          \
                                    downstream_rq_failed_path_normalization) C(P,                                               \
                                                                               downstream_rq_header_timeout)                    \
                                    C(P, downstream_rq_http1_total) C(P, downstream_rq_http2_total) C(                          \
                                        P,                                                                                      \
                                        downstream_rq_http3_total) C(P,                                                         \
                                                                     downstream_rq_idle_timeout)                                \
                                        C(P, downstream_rq_max_duration_reached) C(                                             \
                                            P,                                                                                  \
                                            downstream_rq_non_relative_path) C(P,                                               \
                                                                               downstream_rq_overload_close)                    \
                                            C(P, downstream_rq_redirected_with_normalized_path) C(                              \
                                                P, downstream_rq_rejected_via_ip_detection)                                     \
                                                C(P, downstream_rq_response_before_rq_complete) C(                              \
                                                    P,                                                                          \
                                                    downstream_rq_rx_reset) H(P,                                                \
                                                                              downstream_rq_time,                               \
                                                                              MS) C(P,                                          \
                                                                                    downstream_rq_timeout)                      \
                                                    C(P, downstream_rq_too_large) C(                                            \
                                                        P,                                                                      \
                                                        downstream_rq_too_many_premature_resets) C(P,                           \
                                                                                                   downstream_rq_total)         \
                                                        C(P, downstream_rq_tx_reset) C(                                         \
                                                            P,                                                                  \
                                                            downstream_rq_ws_on_non_ws_route) C(P,                              \
                                                                                                no_cluster)                     \
                                                            C(P, no_route) C(                                                   \
                                                                P,                                                              \
                                                                passthrough_internal_redirect_bad_location)                     \
                                                                C(P, passthrough_internal_redirect_no_route) C(                 \
                                                                    P,                                                          \
                                                                    passthrough_internal_redirect_predicate)                    \
                                                                    C(P,                                                        \
                                                                      passthrough_internal_redirect_too_many_redirects)         \
                                                                        C(P,                                                    \
                                                                          passthrough_internal_redirect_unsafe_scheme)          \
                                                                            C(P, rq_direct_response) C(                         \
                                                                                P,                                              \
                                                                                rq_overload_local_reply)                        \
                                                                                C(P, rq_redirect) C(                            \
                                                                                    P,                                          \
                                                                                    rq_reset_after_downstream_response_started) \
                                                                                    C(P, rq_total)                              \
                                                                                        C(P,                                    \
                                                                                          rs_too_large)
// clang-format on
STATS_ENUM(HCM, HCM_STATS);
/* The first of five, by class. */
#define HCM_RQ_CLASS(status) (HCM_downstream_rq_1xx + (status) / 100 - 1)

/* "listener.<address>.http.<stat_prefix>." */
#define HCM_LISTENER_STATS(P, C, G, H, T) \
    C(P, downstream_rq_1xx)               \
    C(P, downstream_rq_2xx)               \
    C(P, downstream_rq_3xx)               \
    C(P, downstream_rq_4xx) C(P, downstream_rq_5xx) C(P, downstream_rq_completed)
STATS_ENUM(HCM_LISTENER, HCM_LISTENER_STATS);
#define HCM_LISTENER_RQ_CLASS(status) (HCM_LISTENER_downstream_rq_1xx + (status) / 100 - 1)
extern const struct stats_group hcm_listener_stats_group;
extern const struct stats_group hcm_stats_group;

#endif
