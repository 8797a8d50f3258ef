/* Counters of the codecs, groups "http1." and "http2." below http.<stat_prefix>. or
 * cluster.<name>.; Envoy's names. Some count what only other codecs of Envoy do (oghttp2_*,
 * metadata_*) or what cannot happen here (http1.response_flood: requests wait while answers do):
 * they are shown and stay 0. */
#ifndef SLUICE_HTTP_CODEC_STATS_H
#define SLUICE_HTTP_CODEC_STATS_H

#include "proxy/stats/stats.h"

/* clang-format off */
#define H1_STATS(P, C, G, H, T) \
    C(P, dropped_headers_with_underscores) \
    C(P, metadata_not_supported_error) \
    C(P, requests_rejected_with_underscores_in_headers) \
    C(P, response_flood)

#define H2_STATS(P, C, G, H, T) \
    C(P, cookies_total_bytes_too_large) \
    C(P, dropped_headers_with_underscores) \
    C(P, goaway_sent) \
    C(P, header_list_size_too_large) \
    C(P, header_overflow) \
    C(P, headers_cb_no_stream) \
    C(P, inbound_empty_frames_flood) \
    C(P, inbound_priority_frames_flood) \
    C(P, inbound_window_update_frames_flood) \
    C(P, keepalive_timeout) \
    C(P, metadata_empty_frames) \
    C(P, nghttp2_downstream_connections) \
    C(P, nghttp2_upstream_connections) \
    C(P, oghttp2_downstream_connections) \
    C(P, oghttp2_upstream_connections) \
    C(P, outbound_control_flood) \
    C(P, outbound_flood) \
    C(P, requests_rejected_with_underscores_in_headers) \
    C(P, rx_messaging_error) \
    C(P, rx_reset) \
    C(P, stream_refused_errors) \
    C(P, trailers) \
    C(P, tx_flush_timeout) \
    C(P, tx_reset) \
    G(P, deferred_stream_close) \
    G(P, outbound_control_frames_active) \
    G(P, outbound_frames_active) \
    G(P, pending_send_bytes) \
    G(P, streams_active) \
    H(P, cookie_count, NONE) \
    H(P, cookie_size, BYTES) \
    H(P, header_count, NONE) \
    H(P, header_list_size, BYTES)
/* clang-format on */

STATS_ENUM(H1, H1_STATS);
STATS_ENUM(H2, H2_STATS);
extern const struct stats_group h1_stats_group, h2_stats_group;

#endif
