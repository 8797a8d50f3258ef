/* What a kind of mux (stream_mux.c, file_source.c) implements, and what mux.c does for both:
 * handing an update to the sink, and expiring resources that came with a time to live. Config
 * thread. */
#ifndef SLUICE_XDS_MUX_KIND_H
#define SLUICE_XDS_MUX_KIND_H

#include "proxy/base/map.h"
#include "proxy/event/timer.h"
#include "xds/discovery_wire.h"
#include "xds/mux.h"

struct xds_mux_ops {
    void (*free)(struct xds_mux *m);
    void (*watch)(struct xds_mux *m, enum resource_type t, sv name);
    void (*unwatch)(struct xds_mux *m, enum resource_type t, sv name);
    void (*pause)(struct xds_mux *m, enum resource_type t, bool pause);
    bool (*is_connected)(const struct xds_mux *m);
    /* its time to live passed; may be NULL */
    void (*on_expired)(struct xds_mux *m, enum resource_type t, sv name);
};

struct ttl_entry;
/* Embedded first in each kind. */
struct xds_mux {
    const struct xds_mux_ops *ops;
    struct loop *loop;
    struct xds_sink sink;
    struct map ttls;        /* type, name → struct ttl_entry */
    struct timer ttl_timer; /* of the first to expire */
};

void mux_init(struct xds_mux *m, const struct xds_mux_ops *ops, struct loop *l,
              const struct xds_sink *sink);
void mux_fini(struct xds_mux *m);
/* Hand a response to the sink; accepted[resources_n] is zeroed here, the NACK text is appended to
 * `error`. */
void mux_deliver(struct xds_mux *m, const struct discovery_response *r, bool is_full,
                 bool *accepted, struct buf *error);
/* Its time to live no longer matters. */
void mux_forget_ttl(struct xds_mux *m, enum resource_type t, sv name);
void mux_failed(struct xds_mux *m, enum resource_type t);
/* … and what came can't be read. mux_deliver does it for responses with an error. */
void mux_rejected(struct xds_mux *m, enum resource_type t, sv why);

#endif
