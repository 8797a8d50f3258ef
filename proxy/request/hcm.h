/* http_connection_manager: the network filter that turns a connection's bytes into streams.
 * Compiled configuration and the per-connection object. Threads: config immutable; struct hcm
 * worker-local.
 * Spec: filters.network.http_connection_manager.v3.HttpConnectionManager. */
#ifndef SLUICE_REQUEST_HCM_H
#define SLUICE_REQUEST_HCM_H

#include "proxy/api/access_logger.h"
#include "proxy/api/http_filter.h"
#include "proxy/api/network_filter.h"
#include "proxy/api/worker.h"
#include "proxy/base/overload.h"
#include "proxy/http/codec.h"
#include "proxy/http/path.h"
#include "proxy/request/hcm_stats.h"
#include "proxy/route/route_table.h"

enum server_header_mode {
    SERVER_HEADER_OVERWRITE,
    SERVER_HEADER_APPEND_IF_ABSENT,
    SERVER_HEADER_PASS_THROUGH
};
enum xfcc_mode {
    XFCC_SANITIZE,
    XFCC_FORWARD_ONLY,
    XFCC_APPEND_FORWARD,
    XFCC_SANITIZE_SET,
    XFCC_ALWAYS_FORWARD_ONLY
};

#define HCM_FILTERS_MAX 64
struct hcm_filter {
    const struct http_filter_type *type; /* NULL: what `slot` holds */
    const void *config;
    slot_t slot;      /* of a discovered filter; else SLOT_NONE */
    uint32_t name_id; /* of the name in http_filters, for per-route overrides */
    uint32_t offset;  /* of its instance in the stream's filter block */
    bool is_disabled; /* unless a route enables it */
};
struct hcm_filters {
    const struct hcm_filter *v;
    unsigned n;
    size_t block_bytes;
};
struct hcm_upgrade {
    sv type; /* "websocket", "CONNECT", … */
    bool enabled;
    const struct hcm_filters *filters; /* NULL: the connection manager's */
};
struct local_reply_config;
struct tracing_config; /* request/tracing.h */

struct hcm_config {
    enum codec_kind codec_kind;
    struct codec_options codec;
    sv stat_prefix;
    /* http.<p>. and http1./http2. below it */
    struct stats_scope *stats, *codec_h1_stats, *codec_h2_stats;
    struct stats_scope *listener_stats; /* listener.<address>.http.<p>.; NULL: it has no listener */
    /* Routes: an inline table, a slot of RDS, or by scope. */
    struct route_table *routes;
    slot_t route_slot;
    const struct hcm_scopes *scopes; /* request/hcm_scopes.h; NULL: not scoped */
    struct hcm_filters filters;
    const struct hcm_upgrade *upgrades;
    unsigned upgrades_n;
    const struct access_logs *access_logs;
    bool log_new_request, log_tunnel;      /* lines beside the last one */
    uint32_t access_log_flush_interval_ms; /* 0: only at the end */
    const struct local_reply_config *local_reply;
    /* timeouts, ms; 0: off */
    uint32_t request_timeout_ms, request_headers_timeout_ms, stream_idle_timeout_ms,
        idle_timeout_ms;
    uint32_t max_connection_duration_jitter_ms; /* at most this much later, by chance */
    uint32_t max_connection_duration_ms, max_stream_duration_ms, drain_timeout_ms,
        delayed_close_timeout_ms;
    uint32_t max_requests_per_connection;
    /* header rules */
    sv server_name, via, scheme_overwrite;
    enum server_header_mode server_header;
    bool use_remote_address, skip_xff_append, add_user_agent;
    uint32_t xff_trusted_hops;
    const struct ip_detection *detections;          /* request/client_address.h; NULL: none */
    const struct header_mutations *early_mutations; /* before all else; NULL: none */
    bool generate_request_id, preserve_external_request_id, always_set_request_id;
    bool pack_trace_reason, samples_by_request_id;
    const struct tracing_config *tracing; /* NULL: none */
    struct stats_scope *tracing_stats;    /* http.<p>.tracing. */
    enum xfcc_mode xfcc;
    struct {
        bool subject, issuer, cert, chain, dns, uri;
    } xfcc_set;
    bool proxy_100_continue, normalize_path, merge_slashes, ipv4_mapped_ipv6,
        append_x_forwarded_port, append_local_overload;
    bool scheme_match_upstream;
    enum escaped_slashes escaped_slashes;
    bool strip_matching_port, strip_any_port, strip_trailing_host_dot;
    const struct cidr *internal_cidrs; /* internal_address_config; NULL: defaults */
    unsigned internal_cidrs_n;
    /* without a config: private addresses are internal (they are not, by default) */
    bool trusts_private;
};

void *hcm_compile(struct compile_ctx *ctx, const void *msg); /* request/hcm_compile.c */
extern const struct network_filter_type hcm_network_filter;

struct hcm_object {
    struct hcm_object *next;
    const void *key;
    void *object;
};

#define HCM_MAGIC 0x0C0FFEE1u
struct hcm {
    struct network_filter base; /* must be first */
    uint32_t magic;
    const struct hcm_config *cfg;
    struct worker *worker;
    struct loop *loop;
    struct codec *codec; /* NULL until the first bytes decided */
    struct stats_shard *stats;
    struct list streams; /* of struct stream */
    uint32_t requests;   /* begun on this connection */
    uint32_t premature_resets, closed_streams;
    struct hcm_object *objects; /* http_conn_object(); in the connection's arena */
    enum { HCM_OPEN, HCM_DRAINING, HCM_CLOSING } drain;
    bool is_dispatching, is_remote_end; /* the latter: the client closed first */
    struct timer idle, duration, drain_timer;
};
/* Begin to drain: HTTP/2 sends the shutdown notice, HTTP/1 closes with the next response. */
void hcm_start_drain(struct hcm *h);
bool hcm_overload_draw(struct hcm *h, enum overload_point p);
/* Does the overload manager ask this connection to give way now? */
static inline bool hcm_is_overloaded(struct hcm *h, enum overload_point p) {
    return UNLIKELY(overload_level(p)) && hcm_overload_draw(h, p);
}
/* The client reset a stream that began then: soon after, it counts towards a flood. */
void hcm_note_reset(struct hcm *h, uint64_t began_us);
/* After a stream ended: closes the connection when it is due, restarts the idle timer. */
void hcm_stream_ended(struct hcm *h);
bool hcm_is_internal_address(const struct hcm_config *c, const struct addr *a);

#endif
