/* Listener filters: look at the first bytes of an accepted socket before a filter chain is chosen.
 * They peek (MSG_PEEK) and never consume, except proxy_protocol, which consumes its header.
 * Spec: listener.v3.ListenerFilter. Threads: worker-local after compile. */
#ifndef SLUICE_API_LISTENER_FILTER_H
#define SLUICE_API_LISTENER_FILTER_H

#include "proxy/api/compile.h"
#include "proxy/base/buf.h"
#include "proxy/net/addr.h"
#include "proxy/net/sock.h"
#include "proxy/stats/stats.h"

#define LISTENER_PEEK_MAX CHUNK_READ_BYTES

enum listener_filter_status {
    LISTENER_FILTER_DONE,      /* next filter */
    LISTENER_FILTER_NEED_DATA, /* call again when more bytes are there (at most max_peek) */
    LISTENER_FILTER_REJECT,    /* close the socket */
};

/* Facts found so far about an accepted socket; input to the filter-chain match. Views live in
 * `arena`. */
struct accept_info {
    struct arena *arena;
    int fd;
    struct addr remote, local; /* may be restored by original_dst, proxy_protocol */
    struct addr direct_remote, direct_local;
    bool is_local_restored;
    bool has_proxy_header;
    sv server_name;        /* SNI, lower case */
    sv transport_protocol; /* "tls", "raw_buffer" (default), … */
    const sv *alpn;        /* application protocols offered or detected */
    unsigned alpn_n;
    sv ja3, ja4;   /* fingerprints in hex, when asked for */
    sv proxy_tlvs; /* PROXY v2 TLVs to pass on upstream, as received one after another */
    struct sock_source source;       /* of upstream connections made for this one (original_src) */
    struct passthrough *passthrough; /* of a connection to an internal listener; else NULL */
    /* of the peeked bytes: taken off the socket when the filter is done */
    size_t consume_bytes;
    const char *reject_reason; /* static text */
};

#define LISTENER_FILTER_STATE_BYTES 64
struct listener_filter_type {
    const char *name;
    const char *type_url;
    size_t max_peek_bytes; /* 0: needs no bytes; at most LISTENER_PEEK_MAX */
    void *(*compile)(struct compile_ctx *ctx, const void *msg);
    /* Judge the bytes peeked so far (at least one, unless `end`); `end`: the peer will not send
     * more. `state`: 64 bytes, zeroed, per socket and filter. */
    enum listener_filter_status (*on_bytes)(const void *config, void *state,
                                            struct accept_info *info, sv bytes, bool end,
                                            unsigned thread_index);
};

#endif
