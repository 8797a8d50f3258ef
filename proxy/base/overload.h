/* What the overload manager asks for, by action and load shed point: one level each, written by
 * main, read where a worker could give way.
 * Threads: levels and counts are shared, atomic, relaxed. Spec: config.overload.v3.OverloadManager.
 * Not here: monitors, triggers, stats (server/overload.c). */
#ifndef SLUICE_BASE_OVERLOAD_H
#define SLUICE_BASE_OVERLOAD_H

#include <stdbool.h>
#include <stdint.h>

#include "proxy/base/check.h"
#include "proxy/base/rand.h"

/* Those that something here looks at. */
#define OVERLOAD_POINTS(X)                                                                 \
    X(STOP_ACCEPTING_REQUESTS, "envoy.overload_actions.stop_accepting_requests")           \
    X(DISABLE_HTTP_KEEPALIVE, "envoy.overload_actions.disable_http_keepalive")             \
    X(STOP_ACCEPTING_CONNECTIONS, "envoy.overload_actions.stop_accepting_connections")     \
    X(REJECT_INCOMING_CONNECTIONS, "envoy.overload_actions.reject_incoming_connections")   \
    X(SHRINK_HEAP, "envoy.overload_actions.shrink_heap")                                   \
    X(TCP_LISTENER_ACCEPT, "envoy.load_shed_points.tcp_listener_accept")                   \
    X(HCM_DECODE_HEADERS, "envoy.load_shed_points.http_connection_manager_decode_headers") \
    X(HCM_CREATING_CODEC, "envoy.load_shed_points.hcm_ondata_creating_codec")              \
    X(HTTP1_ABORT_DISPATCH, "envoy.load_shed_points.http1_server_abort_dispatch")          \
    X(HTTP2_GO_AWAY, "envoy.load_shed_points.http2_server_go_away_on_dispatch")            \
    X(HTTP2_GO_AWAY_AND_CLOSE,                                                             \
      "envoy.load_shed_points.http2_server_go_away_and_close_on_dispatch")                 \
    X(HTTP_FILTER_CHECK, "envoy.load_shed_points.http_downstream_filter_check")
enum overload_point {
#define OVERLOAD_POINT_(name, text) OVERLOAD_##name,
    OVERLOAD_POINTS(OVERLOAD_POINT_)
#undef OVERLOAD_POINT_
        OVERLOAD_POINTS_N
};

#define OVERLOAD_FULL 1000000u
struct overload_level {
    uint32_t level; /* 0: idle … OVERLOAD_FULL: saturated */
    uint64_t acted; /* how often it was drawn */
};
extern struct overload_level overload_levels_[OVERLOAD_POINTS_N];

static inline uint32_t overload_level(enum overload_point p) {
    return __atomic_load_n(&overload_levels_[p].level, __ATOMIC_RELAXED);
}
static inline bool overload_is_full(enum overload_point p) {
    return UNLIKELY(overload_level(p) >= OVERLOAD_FULL);
}
/* Is it time to give way? By chance, as the level says; counts those that are. */
bool overload_draw(enum overload_point p, uint32_t level, struct rng *r);
static inline bool overload_acts(enum overload_point p, struct rng *r) {
    uint32_t level = overload_level(p);
    return UNLIKELY(level) && overload_draw(p, level, r);
}
void overload_set(enum overload_point p, uint32_t level);
uint64_t overload_acted(enum overload_point p); /* so far, in the whole process */

#endif
