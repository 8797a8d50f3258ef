/* What sotw.c and delta.c have in common: the state of one resource type towards one server. Pure:
 * events in, encoded requests out; no I/O, no clock. Threads: one owner. Spec: xDS protocol;
 * service.discovery.v3. */
#ifndef SLUICE_XDS_SUBSCRIPTION_H
#define SLUICE_XDS_SUBSCRIPTION_H

#include "xds/discovery_wire.h"

struct subscription;
struct subscription_ops {
    struct subscription *(*make)(enum resource_type t);
    void (*free)(struct subscription *s);
    /* Counted. "*": everything. */
    void (*watch)(struct subscription *s, sv name);
    void (*unwatch)(struct subscription *s, sv name);
    /* Is anything watched? */
    bool (*is_wanted)(const struct subscription *s);
    /* A new stream: nothing was sent on it yet, everything is to be asked for (again). */
    void (*stream_up)(struct subscription *s);
    void (*stream_down)(struct subscription *s);
    /* Is a request due? Always false without a stream. */
    bool (*has_request)(const struct subscription *s);
    /* How many responses wait for their ACK or NACK to be sent. */
    unsigned (*replies_due)(const struct subscription *s);
    /* Encode the request that is due; it counts as sent. node: core.v3.Node bytes, empty to leave
     * it out. */
    void (*next_request)(struct subscription *s, sv node, struct buf *out);
    bool (*parse)(sv wire, struct arena *a, struct discovery_response *out);
    /* A response came on this stream; false: it answers nothing that was asked, drop it. */
    bool (*on_response)(struct subscription *s, const struct discovery_response *r);
    /* What became of it: accepted[i] of its resources took effect; error empty: ACK, else NACK. */
    void (*on_verdict)(struct subscription *s, const struct discovery_response *r,
                       const bool *accepted, sv error);
    /* A resource's time to live passed: we have it no more. */
    void (*on_expired)(struct subscription *s, sv name);
};
extern const struct subscription_ops sotw_ops, delta_ops;

#endif
