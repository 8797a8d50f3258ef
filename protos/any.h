/* Bytes to messages and back: unpacking into an arena, google.protobuf.Any, TypedStruct. Everything
 * made here lives in the arena given; nothing is freed by itself. Threads: the arena's and diag's
 * owner. */
#ifndef SLUICE_PROTOS_ANY_H
#define SLUICE_PROTOS_ANY_H

#include "protos/gen/pb.pb-c.h"
#include "protos/proto_type.h"
#include "proxy/base/diag.h"

/* Check `wire` (wire.h) and unpack it: strings and bytes are copied, `wire` may go away. NULL with
 * an error in d. */
ProtobufCMessage *proto_unpack(const ProtobufCMessageDescriptor *desc, sv wire, struct arena *a,
                               struct diag *d);
/* PROTO_UNPACK(Cluster__Cluster, cluster__cluster__descriptor, bytes, a, d) */
#define PROTO_UNPACK(type, descriptor, wire, a, d) \
    ((type *)(void *)proto_unpack(&(descriptor), (wire), (a), (d)))

/* The wire bytes of a message, in the arena. */
sv proto_pack(const ProtobufCMessage *m, struct arena *a);

/* "type.googleapis.com/pkg.Name" → "pkg.Name": the part behind the last '/', or all. A borrow of
 * url. */
sv any_url_name(sv url);
/* The message of a type URL with any host, NULL when we do not know it. */
const struct proto_type *any_type(sv url);
/* What the Any holds, looking through TypedStruct: its inner type's name. A borrow of any or of the
 * arena. */
sv any_inner_name(const Pb__Any *any, struct arena *a);

/* Unpack what an Any holds. A TypedStruct (udpa.type.v1, xds.type.v3) gives the message that its
 * type_url names, made from its Struct as from JSON. `name` is the extension's name, for the error
 * "Didn't find a registered implementation for 'NAME' with type URL: 'URL'". any NULL: as an empty
 * Any. NULL on error. */
ProtobufCMessage *any_unpack(const Pb__Any *any, sv name, struct arena *a, struct diag *d);
/* The same, telling of unknown fields: in the payload's wire bytes or by name in a TypedStruct.
 * any_unpack itself skips them. */
ProtobufCMessage *any_unpack_with(const Pb__Any *any, sv name, enum pb_json_unknown unknown,
                                  struct arena *a, struct diag *d);
/* As any_unpack, and it must be a `desc`: else an error. ANY_UNPACK_AS(HttpCors__Cors,
 * http_cors__cors__descriptor, …) */
ProtobufCMessage *any_unpack_as(const Pb__Any *any, const ProtobufCMessageDescriptor *desc, sv name,
                                struct arena *a, struct diag *d);
#define ANY_UNPACK_AS(type, descriptor, any, name, a, d) \
    ((type *)(void *)any_unpack_as((any), &(descriptor), (name), (a), (d)))

/* An Any that holds a packed copy of m, with a type.googleapis.com URL. */
Pb__Any *any_pack(const ProtobufCMessage *m, struct arena *a);

#endif
