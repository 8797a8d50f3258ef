/* What is known about one request (or one TCP connection): read by access logs, header formatters,
 * tracing, retry logic.
 * Threads: worker-local. All views live as long as the stream. Spec: Envoy's StreamInfo. */
#ifndef SLUICE_OBSERVE_STREAM_INFO_H
#define SLUICE_OBSERVE_STREAM_INFO_H

#include "proxy/http/codec.h"
#include "proxy/net/addr.h"

/* Response flags: bit, short name, long name. */
#define RESPONSE_FLAGS(X)                        \
    X(LH, "FailedLocalHealthCheck")              \
    X(UH, "NoHealthyUpstream")                   \
    X(UT, "UpstreamRequestTimeout")              \
    X(LR, "LocalReset")                          \
    X(UR, "UpstreamRemoteReset")                 \
    X(UF, "UpstreamConnectionFailure")           \
    X(UC, "UpstreamConnectionTermination")       \
    X(UO, "UpstreamOverflow")                    \
    X(NR, "NoRouteFound")                        \
    X(DI, "DelayInjected")                       \
    X(FI, "FaultInjected")                       \
    X(RL, "RateLimited")                         \
    X(UAEX, "UnauthorizedExternalService")       \
    X(RLSE, "RateLimitServiceError")             \
    X(DC, "DownstreamConnectionTermination")     \
    X(URX, "UpstreamRetryLimitExceeded")         \
    X(SI, "StreamIdleTimeout")                   \
    X(IH, "InvalidEnvoyRequestHeaders")          \
    X(DPE, "DownstreamProtocolError")            \
    X(UMSDR, "UpstreamMaxStreamDurationReached") \
    X(RFCF, "ResponseFromCacheFilter")           \
    X(NFCF, "NoFilterConfigFound")               \
    X(DT, "DurationTimeout")                     \
    X(UPE, "UpstreamProtocolError")              \
    X(NC, "NoClusterFound")                      \
    X(OM, "OverloadManagerTerminated")           \
    X(DF, "DnsResolutionFailed")                 \
    X(DO, "DropOverload")                        \
    X(DR, "DownstreamRemoteReset")               \
    X(UDO, "UnconditionalDropOverload")
enum response_flag_bit {
#define X(name, longname) FLAG_BIT_##name,
    RESPONSE_FLAGS(X)
#undef X
        FLAG_BITS
};
#define RESPONSE_FLAG(name) (1ull << FLAG_BIT_##name)

/* What listener filters found that few configurations look at; views live as long as the
 * connection. */
struct accept_facts {
    sv ja3, ja4;
    sv proxy_tlvs; /* PROXY v2 TLVs to pass on upstream */
    bool has_proxy_header;
};
/* Facts of the downstream connection, shared by its streams. Lives in the connection's filter
 * chain. */
struct kv_metadata; /* observe/metadata.h */
struct conn_info {
    const struct conn *conn;
    uint64_t id;
    struct addr remote, local, direct_remote, direct_local;
    sv server_name; /* requested SNI */
    sv filter_chain_name;
    sv listener_name;
    uint64_t start_us;         /* monotonic */
    uint64_t handshake_end_us; /* 0: none */
    uint8_t traffic_direction; /* core.v3.TrafficDirection */
    const char *termination_details;
    const struct accept_facts *facts; /* NULL: none */
    const struct listener_config *listener;
    const struct kv_metadata *listener_metadata; /* NULL: none */
    const struct stream_info *info; /* of the connection itself; NULL: nobody looked at it */
};

struct cluster_view;
struct host;
struct route_entry;
struct ssl_info;

/* A connection that could not be had. The stream's memory. */
struct upstream_try {
    const struct host *host;
    struct upstream_try *next;
};

struct upstream_info {
    const struct host *host; /* pinned by the stream through its cluster view */
    struct addr local;       /* of the upstream connection */
    uint64_t connection_id;  /* 0: none */
    enum http_protocol protocol;
    bool has_protocol;
    bool is_tcp; /* of a connection that is proxied as such, with or without a host */
    sv transport_failure;
    uint32_t attempts;
    uint64_t pool_ready_us;                                    /* when a connection was obtained */
    uint64_t first_tx_us, last_tx_us, first_rx_us, last_rx_us; /* monotonic, 0: not yet */
    /* of a request as last counted: stream_info_count_upstream() */
    uint64_t wire_tx_bytes, wire_rx_bytes, header_tx_bytes, header_rx_bytes;
    /* valid while the upstream request is under way, then NULL */
    const struct conn *conn;
    const struct codec_stream *stream; /* of a request */
    const struct ssl_info *ssl;        /* of the last connection, a ref; NULL: none, or not TLS */
    /* of TCP, the oldest first; NULL: none. Requests tell of their last try */
    struct upstream_try *failed;
    const struct filter_state *filter_state; /* of the upstream connection; NULL: none */
    const sv *alpn; /* offered in place of the cluster's, when alpn_n > 0 */
    unsigned alpn_n;
    /* the host that a stateful session asks for; NULL: none. The stream's memory. */
    const struct addr *override_host;
    uint16_t override_strict_status; /* it or none, which is answered thus; 0: else any */
    /* first URI SANs of a TLS connection's certificates, kept beyond it: of TCP, and of responses
     * that end with their headers */
    sv peer_uri, local_uri;
    /* why we closed a TCP connection; NULL: we did not, or untold */
    const char *local_close_reason;
};

struct stream_info {
    const struct conn_info *cx;
    const struct loop *loop;   /* its clock; NULL: none */
    const struct addr *remote; /* the client by x-forwarded-for rules; NULL: cx->remote */
    uint64_t id;               /* stream id, unique in the process */
    uint64_t start_us;         /* monotonic; wall time by loop_wall_us */
    uint64_t start_wall_us;
    uint64_t last_rx_us;              /* last byte of the request received */
    uint64_t first_tx_us, last_tx_us; /* first/last byte of the response sent */
    uint64_t end_us;                  /* 0: it goes on */
    uint64_t rx_bytes, tx_bytes;      /* body bytes of the downstream request/response */
    uint64_t wire_rx_bytes, wire_tx_bytes, header_rx_bytes, header_tx_bytes;
    uint64_t flags;         /* RESPONSE_FLAG() */
    uint16_t response_code; /* 0: none sent */
    uint8_t protocol;       /* enum http_protocol */
    bool has_protocol;
    bool is_health_check;
    bool scheme_matches_upstream; /* as the connection manager was told */
    sv response_code_details;
    sv route_name;
    sv vhost_name;
    sv cluster_name; /* route's cluster, observability name */
    sv virtual_cluster_name;
    sv local_reply_body;
    sv request_id;
    sv requested_server_name;
    const struct headers *request, *response, *trailers; /* for operators; NULL when not there */
    struct kv_metadata *metadata;      /* dynamic metadata; NULL until a filter sets some */
    struct filter_state *filter_state; /* NULL until used */
    struct upstream_info up;
    struct arena *arena;      /* of the stream */
    uint32_t access_log_type; /* enum access_log_type */
    sv cluster_raw_name;      /* the cluster's own name; empty: same as cluster_name */
    /* configured; NULL: none */
    const struct kv_metadata *route_metadata, *vhost_metadata, *cluster_metadata;
    sv trace_id, span_id;         /* hex, empty when not traced */
    bool is_traced;               /* sampled: TraceableFilter */
    uint32_t route_resolutions;   /* how often a route was looked up */
    uint64_t route_resolution_us; /* time of the last look-up, relative to start_us */
    sv custom_flags;              /* "a,b" */
};

/* Refer to the facts of the upstream connection's TLS in place of what was referred to; NULL: of
 * none, which ends every use of a stream_info. */
void stream_info_keep_ssl(struct stream_info *si, const struct ssl_info *ssl);
/* Put what the stream to the upstream has counted, if there is one, into si. */
void stream_info_count_upstream(struct stream_info *si);
/* How long it took, or has taken till now. False: it never began or has no clock. */
bool stream_info_duration_us(const struct stream_info *si, uint64_t *out);
/* Keep who is at both ends of the upstream connection (NULL: nobody known) for when it is gone. */
void stream_info_note_identities(struct stream_info *si, const struct ssl_info *ssl);

#endif
