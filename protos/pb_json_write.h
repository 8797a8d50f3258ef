/* Between the writer of whole messages (pb_json_write.c) and the one of slices (pb_json_slices.c).
 * Threads: the writer's owner. */
#ifndef SLUICE_PROTOS_PB_JSON_WRITE_H
#define SLUICE_PROTOS_PB_JSON_WRITE_H

#include "protos/pb_json.h"

#define PB_JSON_REDACTED SV("[redacted]")
/* Messages, Any payloads included; JSON shows JSON_DEPTH_MAX levels anyway. */
#define PB_JSON_WRITE_DEPTH_MAX 200u

struct pb_json_out {
    struct json_writer *w;
    unsigned flags; /* enum pb_json_flag */
    unsigned depth; /* of messages open */
};

/* One value of message type t; m NULL: an empty message. is_hidden: below a sensitive field. */
void pb_json_write_message(struct pb_json_out *o, const struct proto_type *t,
                           const ProtobufCMessage *m, bool is_hidden);
/* Field i of m with its key, as all of proto3 JSON has it; nothing when it is unset. */
void pb_json_write_field(struct pb_json_out *o, const struct proto_type *t, unsigned i,
                         const ProtobufCMessage *m, bool is_hidden);
/* One entry (key and value) of a map whose entry type is `entry`; into an open object. */
void pb_json_write_entry(struct pb_json_out *o, const struct proto_type *entry,
                         const ProtobufCMessage *e, bool is_hidden);
void pb_json_write_base64(struct json_writer *w, sv bytes);
/* Does a sensitive field of that type show at all? */
bool pb_json_shows_hidden(ProtobufCType type);

#endif
