/* Protobuf text format to messages (.pb_text files). Threads: the owner of the arena. */
#ifndef SLUICE_PROTOS_PB_TEXT_H
#define SLUICE_PROTOS_PB_TEXT_H

#include "protos/proto_type.h"
#include "proxy/base/diag.h"

#define PB_TEXT_DEPTH_MAX 100u

/* Make a message of type t in the arena: fields by original name, lists as [a, b] or repeated
 * fields, maps as entries, Any as [type.googleapis.com/pkg.Name] { … }. NULL with one error that
 * tells the line. */
ProtobufCMessage *pb_text_parse(const struct proto_type *t, sv text, struct arena *a,
                                struct diag *d);

#endif
