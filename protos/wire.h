/* Checks on protobuf wire bytes before protobuf-c unpacks them, which itself has no recursion
 * limit, does not look at UTF-8 and cuts strings at NUL. Threads: any. */
#ifndef SLUICE_PROTOS_WIRE_H
#define SLUICE_PROTOS_WIRE_H

#include "protos/proto_type.h"
#include "proxy/base/diag.h"

#define WIRE_DEPTH_MAX 100u /* messages within messages, as the official parsers limit it */

/* Is `wire` a well-formed message of type `t`: field numbers, wire types and lengths right, strings
 * UTF-8 without NUL, not nested deeper than WIRE_DEPTH_MAX? If not: one error at the path of the
 * offending field. Any payloads are not entered. */
bool wire_check(const struct proto_type *t, sv wire, struct diag *d);

enum wire_type {
    WIRE_VARINT = 0,
    WIRE_64BIT = 1,
    WIRE_BYTES = 2,
    WIRE_START_GROUP = 3,
    WIRE_END_GROUP = 4,
    WIRE_32BIT = 5
};
/* One field as it is on the wire: a borrow of the message's bytes. */
struct wire_field {
    uint32_t number;
    enum wire_type type;
    sv value; /* WIRE_BYTES: without its length */
};
/* Consume one field off the front of a message. False: at its end, or malformed (`wire` is not
 * empty then). Groups are malformed. */
bool wire_eat_field(sv *wire, struct wire_field *out);

/* Consume a varint of at most 10 bytes. False, nothing consumed: cut off or too long. */
bool wire_eat_varint(sv *wire, uint64_t *out);

#endif
