/* Transport sockets: what turns bytes on a fd into application bytes (raw_buffer, tls,
 * proxy_protocol …).
 * Spec: core.v3.TransportSocket. Threads: factory is immutable and shared; a socket belongs to its
 * connection's worker. */
#ifndef SLUICE_API_TRANSPORT_SOCKET_H
#define SLUICE_API_TRANSPORT_SOCKET_H

#include "proxy/base/buf.h"
#include "proxy/base/check.h"
#include "proxy/base/shared.h"

struct conn;
struct ssl_info; /* net/tls.h: peer certificate facts of a finished handshake */

enum transport_action { TRANSPORT_KEEP, TRANSPORT_CLOSE };
struct transport_result {
    enum transport_action action;
    bool end_stream; /* read: the peer half-closed cleanly */
    /* read: stopped at the caller's limit with more possibly ready; write: kernel buffer full */
    bool again;
    size_t bytes; /* application bytes moved */
};

/* A connection's transport. Embedded first in each implementation. */
struct transport {
    const struct transport_ops *ops;
    struct conn *conn;
};
struct transport_ops {
    const char *name;
    /* TCP is connected (or accepted): start a handshake. Call conn_transport_ready() once
     * application bytes may flow. */
    void (*on_connected)(struct transport *t);
    /* Move up to `max` received application bytes to the end of `in`. */
    struct transport_result (*read)(struct transport *t, struct buf *in, size_t max);
    /* Send from the front of `out`, draining what was taken. end_stream: after the last byte, shut
     * down the write side. */
    struct transport_result (*write)(struct transport *t, struct buf *out, bool end_stream);
    /* Last words before close(fd) (close_notify); must not block. */
    void (*close)(struct transport *t);
    void (*destroy)(struct transport *t);
    sv (*protocol)(const struct transport *t); /* ALPN result, empty when none */
    /* for %UPSTREAM_TRANSPORT_FAILURE_REASON%; empty when none */
    sv (*failure_reason)(const struct transport *t);
    const struct ssl_info *(*ssl)(const struct transport *t); /* NULL: not TLS */
    /* raw bytes on the fd are the application's */
    bool (*can_splice)(const struct transport *t);
};

/* Whose connection an upstream one is made for. */
struct addr;
struct arena;
struct transport_addresses {
    const struct addr *source, *destination; /* NULL: nobody's */
    sv tlvs;                                 /* of its PROXY header, as on the wire */
};
/* A deep copy in the arena. Implemented by net/transport.c. */
void transport_addresses_dup(const struct transport_addresses *a, struct arena *to,
                             struct transport_addresses *out);

/* Per-connection overrides for upstream sockets (auto_sni, ALPN override); views are borrowed for
 * the call. */
struct transport_options {
    sv server_name;         /* SNI override */
    sv host_name;           /* the host's own name: SNI of contexts that say auto_host_sni */
    const sv *san_override; /* verify these SANs, too (auto_san_validation) */
    unsigned san_override_n;
    const sv *alpn_override;
    unsigned alpn_override_n;
    const sv *alpn_fallback; /* used when the config names none */
    unsigned alpn_fallback_n;
    struct transport_addresses addresses; /* where the transport tells them */
    sv host_tlvs;                         /* the host's own TLVs for its PROXY headers */
};

/* Where it may come from. All borrowed for the call. */
struct kv_metadata;
struct passthrough; /* api/passthrough.h */
struct passthrough_source {
    const struct kv_metadata *host, *cluster; /* NULL: none */
    unsigned thread_index;                    /* whose call this is */
};

/* Makes transports; immutable, lives in snapshots. */
struct transport_factory {
    struct shared shared; /* must be first; its free() destroys the factory */
    const struct transport_factory_ops *ops;
};
struct transport_factory_ops {
    /* NULL: not ready (secrets missing) and the connection must be refused. `o` may be NULL. */
    struct transport *(*create)(const struct transport_factory *f,
                                const struct transport_options *o);
    bool is_secure;
    /* Upstream pools with different keys must not share connections; appends bytes that tell
     * options apart. May be NULL. */
    void (*hash_key)(const struct transport_factory *f, const struct transport_options *o,
                     struct buf *key);
    /* Fill in what a connection to an internal listener brings along. NULL: nothing but its
     * address. */
    void (*passthrough)(const struct transport_factory *f, const struct passthrough_source *from,
                        struct passthrough *out);
};

/* A kind of transport socket, one row of filters.def. `compile` turns the typed config into arena
 * memory and names the secrets it needs by compile_secret_ref(); `make` builds the factory once
 * they are all there, and again when one changes. */
struct compile_ctx;
struct secret_source; /* see api/compile.h */
struct diag;
struct transport_socket_type {
    const char *name;     /* "envoy.transport_sockets.tls" */
    const char *type_url; /* full proto name of the config message, without host */
    bool is_downstream, is_upstream;
    bool tells_addresses; /* looks at transport_options.addresses */
    bool is_outermost;    /* has no effect inside another one */
    void *(*compile)(struct compile_ctx *ctx, const void *msg); /* NULL: errors are in ctx->diag */
    struct transport_factory *(*make)(const void *config, const struct secret_source *secrets,
                                      struct diag *d);
};

#endif
