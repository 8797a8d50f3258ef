/* Proto3 JSON by reflection, both ways, over every message of proto_type.h.
 * Threads: the owner of the arena, diag or writer. */
#ifndef SLUICE_PROTOS_PB_JSON_H
#define SLUICE_PROTOS_PB_JSON_H

#include <jansson.h>

#include "protos/gen/pb.pb-c.h"
#include "protos/proto_type.h"
#include "proxy/base/diag.h"
#include "proxy/base/json.h"

#define PB_JSON_DEPTH_MAX 100u /* messages within messages */

/* Make a message of type t from parsed JSON, in the arena; v may go away. As lenient as Envoy's
 * loader: original and lowerCamelCase names, numbers and booleans as strings, one value where a
 * list is asked for, null as unset. An Any of an unknown type is an error whatever `unknown` says.
 * NULL with every error found, each at its field path. */
ProtobufCMessage *pb_json_parse(const struct proto_type *t, const json_t *v,
                                enum pb_json_unknown unknown, struct arena *a, struct diag *d);
/* The same from text. */
ProtobufCMessage *pb_json_parse_text(const struct proto_type *t, sv text,
                                     enum pb_json_unknown unknown, struct arena *a, struct diag *d);
/* A message of type t from the value of a TypedStruct. s NULL: an empty message. */
ProtobufCMessage *pb_json_from_struct(const struct proto_type *t, const Pb__Struct *s,
                                      enum pb_json_unknown unknown, struct arena *a,
                                      struct diag *d);

/* A google.protobuf.Struct or Value as a JSON tree: a new reference, NULL when nested too deeply.
 * s, v may be NULL. */
json_t *pb_json_struct_tree(const Pb__Struct *s);
json_t *pb_json_value_tree(const Pb__Value *v);

enum pb_json_flag {
    PB_JSON_REDACT = 1 << 0,   /* sensitive fields show as [redacted] or not at all */
    PB_JSON_DEFAULTS = 1 << 1, /* unset numbers, strings, enums, lists and maps are written too */
};

/* Write m as one JSON value, with original (snake_case) field names, in order of field numbers; an
 * Any opened when its type is known, else as {"@type", "value": base64}. */
void pb_json_write(struct json_writer *w, const ProtobufCMessage *m, unsigned flags);
/* Append m's JSON to out. indent as in json_begin. */
void pb_json_append(struct buf *out, const ProtobufCMessage *m, unsigned flags, int indent);

#endif
