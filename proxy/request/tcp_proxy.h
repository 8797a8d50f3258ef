/* tcp_proxy: the terminal network filter that relays a connection to an upstream cluster.
 * Threads: config immutable, the rest worker-local. Spec: filters.network.tcp_proxy.v3.TcpProxy.
 * Files: tcp_proxy.c (relaying), tcp_proxy_compile.c, tcp_proxy_tlv.c (PROXY headers),
 * tcp_tunnel.c (upstreams behind HTTP). */
#ifndef SLUICE_REQUEST_TCP_PROXY_H
#define SLUICE_REQUEST_TCP_PROXY_H

#include "proxy/api/access_logger.h"
#include "proxy/api/network_filter.h"
#include "proxy/stats/stats.h"

// clang-format off
#define TCP_STATS(P, C, G, H, T)                                                               \
    C(P, downstream_cx_drain_close)                                                            \
    C(P, downstream_cx_no_route)                                                               \
    C(P, downstream_cx_overload_close) G(P, downstream_cx_rx_bytes_buffered)                   \
        C(P, downstream_cx_rx_bytes_total) C(P, downstream_cx_total)                           \
            G(P, downstream_cx_tx_bytes_buffered) C(P, downstream_cx_tx_bytes_total)           \
                C(P, downstream_flow_control_paused_reading_total)                             \
                    C(P, downstream_flow_control_resumed_reading_total)                        \
                        C(P, early_data_received_count_total) C(P, idle_timeout)               \
                            C(P, max_downstream_connection_duration) C(P, route_delayed_total) \
                                G(P, upstream_flush_active) C(P, upstream_flush_total)
// clang-format on
STATS_ENUM(TCP, TCP_STATS);
extern const struct stats_group tcp_stats_group;

struct tcp_cluster {
    slot_t slot;
    sv name;
    uint32_t weight;
    const struct metadata_match *metadata_match;
};
struct tcp_proxy_config {
    struct stats_scope *stats;
    const struct tcp_cluster *clusters; /* one, or weighted */
    unsigned clusters_n;
    uint64_t weight_total;
    /* where filter state names the cluster (envoy.tcp_proxy.cluster): all but its name and slot */
    struct tcp_cluster named;
    uint32_t idle_timeout_ms, max_duration_ms, max_connect_attempts;
    bool hash_source_ip;
    const struct access_logs *access_logs;
    bool log_start;
    bool log_connected;                     /* a line when the upstream is there */
    uint32_t access_log_flush_interval_ms;  /* 0: only at the end */
    const struct tcp_tlvs *tlvs;            /* NULL: none */
    const struct tcp_tunnel_config *tunnel; /* NULL: plain connections; tcp_tunnel.h */
};

/* tcp_proxy_tlv.c. msg: TcpProxy. NULL: there are none, or errors were added. */
struct tcp_tlvs *tcp_tlvs_compile(struct compile_ctx *ctx, const void *msg);
/* The TLVs for PROXY headers to the upstream, the client's own among them; for as long as si's
 * arena. t may be NULL. */
sv tcp_tlvs_make(const struct tcp_tlvs *t, const struct stream_info *si);

void *tcp_proxy_compile(struct compile_ctx *ctx, const void *msg);
extern const struct network_filter_type tcp_proxy_network_filter;

#endif
