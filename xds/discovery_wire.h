/* The bytes of discovery messages: responses read as views without copying resources, requests
 * written from views.
 * Threads: the arena's owner. Spec: service.discovery.v3 (DiscoveryResponse,
 * DeltaDiscoveryResponse, Resource and their requests). Not here: what an answer should be (sotw.c,
 * delta.c). */
#ifndef SLUICE_XDS_DISCOVERY_WIRE_H
#define SLUICE_XDS_DISCOVERY_WIRE_H

#include "proxy/base/arena.h"
#include "proxy/base/buf.h"
#include "xds/mux.h"

#define XDS_RESOURCES_MAX (4u * 1024 * 1024) /* in one response; more is malformed */
/* bytes of a name, version or nonce; more is malformed */
#define XDS_NAME_MAX 4096u
#define XDS_RESOURCE_ERRORS_MAX 20u /* told of one response */

/* A response: views of its bytes and of the arena. */
struct discovery_response {
    sv version, nonce, type_url, control_plane;
    enum resource_type type; /* of type_url; RES_TYPES: none of ours */
    struct xds_resource *resources;
    unsigned resources_n;
    const sv *removed; /* delta */
    unsigned removed_n;
    sv error; /* well-formed, yet nothing of it can be taken: the NACK's text; else empty */
};

/* False: malformed, *out is not to be used. */
bool discovery_parse_sotw(sv wire, struct arena *a, struct discovery_response *out);
bool discovery_parse_delta(sv wire, struct arena *a, struct discovery_response *out);

/* A request, field by field in any order. */
enum discovery_error_code { DISCOVERY_INTERNAL = 13 }; /* google.rpc.Code; as Envoy */
void wire_put_varint(struct buf *b, uint64_t v);
void wire_put_bytes(struct buf *b, unsigned field, sv bytes); /* written even when empty */
/* left out when empty, as proto3 does */
void wire_put_string(struct buf *b, unsigned field, sv s);
/* google.rpc.Status with code INTERNAL. The text is made UTF-8. */
void wire_put_error(struct buf *b, unsigned field, sv text);

#endif
