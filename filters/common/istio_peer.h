/* Who the peers of a mesh are: a workload's metadata as Istio's proxies tell each other, from node
 * metadata, headers, baggage and endpoints. A peer is a struct with the fields name, namespace,
 * workload, type, cluster, service, revision, app, version, identity and labels, as
 * filter_state.downstream_peer shows them.
 * Threads: the node is immutable; the rest belongs to its caller.
 * Spec: Istio's x-envoy-peer-metadata header, baggage members and "istio"/"workload" endpoint
 * metadata. */
#ifndef SLUICE_FILTERS_COMMON_ISTIO_PEER_H
#define SLUICE_FILTERS_COMMON_ISTIO_PEER_H

#include "proxy/api/compile.h"
#include "proxy/api/telemetry.h"

#define ISTIO_PEER_ID_HEADER "x-envoy-peer-metadata-id"
#define ISTIO_PEER_HEADER "x-envoy-peer-metadata"
/* filter state: the search is over and found nobody */
#define ISTIO_NO_PEER "peer_not_found"
#define ISTIO_PEER_WIRE_MAX (64u * 1024) /* longer metadata of a peer is not looked at */

/* This process's own workload. */
struct istio_node {
    sv id;              /* of the node */
    sv header;          /* its metadata for x-envoy-peer-metadata: base64 */
    sv preface;         /* what a TCP connection's peer is sent first */
    struct kv_value me; /* a peer */
    sv version;         /* ISTIO_VERSION; empty: not told */
};
/* Made once for all filters; lives as long as the configuration. */
const struct istio_node *istio_node(struct compile_ctx *ctx);

/* The field of a peer; empty: absent. `peer` may be NULL. */
sv istio_peer_field(const struct kv_value *peer, sv name);
/* From the bytes of a google.protobuf.Struct in node metadata's form; labels beyond the standard
 * ones are kept when named in `labels`. False: not well-formed. */
bool istio_peer_from_wire(sv wire, const sv *labels, unsigned labels_n, struct arena *a,
                          struct kv_value *out);
/* From members like "k8s.namespace.name=x" joined by commas. Views are borrowed. */
struct kv_value istio_peer_from_baggage(sv baggage, struct arena *a);
/* From "workload;namespace;service;revision;cluster". False: another form. Views are borrowed. */
bool istio_peer_from_endpoint(sv text, struct arena *a, struct kv_value *out);
/* From the bytes of an istio.workload.Workload. False: not well-formed. */
bool istio_peer_from_workload(sv wire, struct arena *a, struct kv_value *out);
/* "workload=x,namespace=y": what %FILTER_STATE(…:PLAIN)% prints. */
sv istio_peer_text(const struct kv_value *peer, struct arena *a);
/* Leave it in the filter state as the downstream's or upstream's, unless one is there. `peer` and
 * what it holds must live as long as `fs`. */
void istio_peer_publish(struct filter_state *fs, bool is_downstream, const struct kv_value *peer,
                        sv text);
/* NULL: not known. fs may be NULL. */
const struct kv_value *istio_peer_of(const struct filter_state *fs, bool is_downstream);

#endif
