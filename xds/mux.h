/* One conversation with a control plane: an aggregated stream, a per-type stream, polling over
 * REST, or a watched file. It knows names, versions and nonces, and no resource proto; what a
 * response means is decided by its sink (xds/store.c).
 * Threads: the config thread. Spec: service.discovery.v3, xDS protocol (SotW and delta).
 * Files: mux.c (what both kinds share), stream_mux.c (streams: back-off, pacing), sotw.c, delta.c
 * (pure state machines: events in, requests out), discovery_wire.c (bytes), ads.c (gRPC-C stream),
 * dial.c (the connection under it), rest_mux.c (polling), rest_call.c (one HTTP exchange),
 * file_source.c. */
#ifndef SLUICE_XDS_MUX_H
#define SLUICE_XDS_MUX_H

#include "proxy/config/resource.h"
#include "proxy/event/loop.h"
#include "proxy/stats/stats.h"

struct xds_resource {
    sv name;
    sv version; /* delta: the resource's own; SotW: the response's */
    /* the message's bytes, borrowed for the call; p NULL: a heartbeat (keep what you have) */
    sv wire;
    uint64_t ttl_ms; /* 0: none */
    sv envelope;     /* delta: the Resource message around it, with its aliases */
};
struct xds_update {
    enum resource_type type;
    sv version;       /* version_info / system_version_info */
    sv control_plane; /* identifier */
    bool is_full;     /* SotW: resources of a full-state type that are not listed are gone */
    const struct xds_resource *resources;
    unsigned resources_n;
    const sv *removed; /* delta removals; TTL expiries */
    unsigned removed_n;
    bool is_expiry; /* no response: times to live of `removed` passed */
};
/* The sink's answer: error empty → ACK. accepted[i] tells which resources took effect (good
 * siblings of bad ones do). */
struct xds_verdict {
    bool *accepted;    /* [resources_n], zeroed by the caller */
    struct buf *error; /* NACK text, at most 64 KB */
};
struct xds_sink {
    /* Must not free the mux. */
    void (*on_update)(void *user, const struct xds_update *u, struct xds_verdict *v);
    /* A stream became usable / was lost (stats, logs; last good config serves on). */
    void (*on_connected)(void *user, bool is_connected);
    /* A response was refused before its resources were looked at: nothing of it can be taken. May
     * be NULL. */
    void (*on_rejected)(void *user, enum resource_type t, sv why);
    /* An update of a watched type did not come: the stream could not be had or was lost, the file
     * could not be read. May be NULL. */
    void (*on_failure)(void *user, enum resource_type t);
    void *user;
};

enum xds_protocol { XDS_SOTW, XDS_DELTA };
struct xds_mux;
struct xds_dialer; /* opens fds to the control-plane cluster, xds/dial.h */
struct xds_mux_options {
    enum xds_protocol protocol;
    bool is_aggregated;              /* ADS: one stream for all types */
    enum resource_type only;         /* the type of a per-type stream */
    sv node;                         /* serialised core.v3.Node */
    bool node_on_first_message_only; /* set_node_on_first_message_only */
    const struct xds_metadata {
        sv key, value;
        sv file; /* what it has when a stream begins stands behind `value`; empty: none */
    } * initial_metadata;
    unsigned initial_metadata_n;
    sv authority;               /* :authority of the gRPC channel; the cluster's name by default */
    uint32_t max_receive_bytes; /* 0: unlimited */
    uint32_t backoff_base_ms, backoff_max_ms; /* 500, 30000 */
    uint32_t request_rate_max_tokens;
    double request_rate_fill;                      /* rate_limit_settings; 0: off */
    uint32_t refresh_delay_ms, request_timeout_ms; /* REST */
    struct xds_dialer *dialer;
    /* control_plane.; the ref is taken over. May be NULL */
    struct stats_scope *control_plane_stats;
};
/* The mux connects when the first name is watched. Options are copied; the dialer must outlive the
 * mux. Sink callbacks come from the loop, never from inside these functions. */
struct xds_mux *xds_mux_new(struct loop *l, const struct xds_mux_options *o,
                            const struct xds_sink *sink);
/* The same by polling over REST, of one type (options' only). NULL: there is no method for it. */
struct xds_mux *rest_mux_new(struct loop *l, const struct xds_mux_options *o,
                             const struct xds_sink *sink);
struct xds_mux *file_source_new(struct loop *l, const struct config_source *src,
                                enum resource_type type, const struct xds_sink *sink);
void xds_mux_free(struct xds_mux *m);
/* Want a name of a type; "*" or xds_mux_watch_all: wildcard. Counted: as many unwatch calls end it.
 * Requests go out when the current event ends (all changes of one event in one request per type),
 * in the order of enum resource_type. */
void xds_mux_watch(struct xds_mux *m, enum resource_type t, sv name);
void xds_mux_unwatch(struct xds_mux *m, enum resource_type t, sv name);
void xds_mux_watch_all(struct xds_mux *m, enum resource_type t);
/* Hold back requests of a type (CDS is being applied: EDS names are still changing). Nestable. */
void xds_mux_pause(struct xds_mux *m, enum resource_type t, bool pause);
bool xds_mux_is_connected(const struct xds_mux *m);

#endif
