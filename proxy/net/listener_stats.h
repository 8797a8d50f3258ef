/* Stats of a listener: "listener.<address>." and "listener.<address>.worker_<n>.". listener.c
 * counts what happens before a filter chain is chosen; the owner of the connections counts the
 * rest. */
#ifndef SLUICE_NET_LISTENER_STATS_H
#define SLUICE_NET_LISTENER_STATS_H

#include "proxy/stats/stats.h"

#define LISTENER_STATS(P, C, G, H, T)                    \
    H(P, connections_accepted_per_socket_event, NONE)    \
    G(P, downstream_cx_active)                           \
    C(P, downstream_cx_destroy)                          \
    H(P, downstream_cx_length_ms, MS)                    \
    C(P, downstream_cx_overflow)                         \
    C(P, downstream_cx_overload_reject)                  \
    C(P, downstream_cx_total)                            \
    C(P, downstream_cx_transport_socket_connect_timeout) \
    C(P, downstream_global_cx_overflow)                  \
    C(P, downstream_listener_filter_error)               \
    C(P, downstream_listener_filter_remote_close)        \
    G(P, downstream_pre_cx_active)                       \
    C(P, downstream_pre_cx_timeout)                      \
    C(P, extension_config_missing)                       \
    C(P, network_extension_config_missing)               \
    C(P, no_filter_chain_match)
STATS_ENUM(LISTENER, LISTENER_STATS);
extern const struct stats_group listener_stats_group;

#define LISTENER_WORKER_STATS(P, C, G, H, T) G(P, downstream_cx_active) C(P, downstream_cx_total)
STATS_ENUM(LISTENER_WORKER, LISTENER_WORKER_STATS);
extern const struct stats_group listener_worker_stats_group;

#endif
