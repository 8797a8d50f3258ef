/* A message of any length as JSON, a slice at a time, so that the thread can do other things
 * between. What pb_json.h writes, from wire bytes: of a long message only one field or item is
 * unpacked at once. In one go are written: messages of up to PB_JSON_SLICE_BYTES, one string, one
 * list of numbers, one map entry, one google.protobuf.Struct.
 * Threads: one owner. Not here: defaults (PB_JSON_DEFAULTS). */
#ifndef SLUICE_PROTOS_PB_JSON_SLICES_H
#define SLUICE_PROTOS_PB_JSON_SLICES_H

#include "protos/pb_json.h"

#define PB_JSON_SLICE_BYTES (16u * 1024)

struct pb_json_slices;
/* What an Any of that type URL holds, opened ("@type" first); bytes that are no message of that
 * type show as base64. url and wire are borrowed until the end. mask (field_mask.h) is borrowed,
 * too: it is of the message's fields; empty: all. flags: PB_JSON_REDACT or none. */
struct pb_json_slices *pb_json_slices_of_any(sv url, sv wire, sv mask, unsigned flags);
/* An unpacked message, borrowed until the end. */
struct pb_json_slices *pb_json_slices_of_message(const ProtobufCMessage *m, unsigned flags);
/* Items that follow those on the wire in a list of the outermost message. */
struct pb_json_more {
    uint32_t field; /* the list's number */
    size_t n;
    /* Wire bytes of item i, asked for in order; they stay until the next call, or the end. */
    sv (*item)(void *user, size_t i);
    void *user;
};
/* Before the first slice. Copied; `user` is borrowed until the end. */
void pb_json_slices_append(struct pb_json_slices *s, const struct pb_json_more *more);
void pb_json_slices_free(struct pb_json_slices *s);
/* Write the next slice; w is where one value is due, and nobody else writes to it until the end.
 * Returns whether there is more. */
bool pb_json_slices_next(struct pb_json_slices *s, struct json_writer *w);

#endif
