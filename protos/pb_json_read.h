/* Between the two halves of the JSON reader: pb_json_read.c (plain messages) and pb_json_known.c
 * (well-known types). Nobody else includes this; see pb_json.h. */
#ifndef SLUICE_PROTOS_PB_JSON_READ_H
#define SLUICE_PROTOS_PB_JSON_READ_H

#include "protos/pb_json.h"
#include "protos/proto_path.h"

struct pb_json_reader {
    struct arena *a;
    struct diag *d;
    enum pb_json_unknown unknown;
    unsigned depth; /* of messages open */
};

/* Add an error at the path; always false. */
bool pb_json_fail(const struct pb_json_reader *r, const struct proto_path *path, const char *fmt,
                  ...) PRINTF_LIKE(3, 4);

/* All of these add errors and return false when there were some, having read on as far as they
 * could. path is NULL at the top. */
bool pb_json_read_message(struct pb_json_reader *r, const struct proto_path *path,
                          const struct proto_type *t, const json_t *v, ProtobufCMessage *m);
/* A message field by field, without looking at `skipped_key`. */
bool pb_json_read_plain(struct pb_json_reader *r, const struct proto_path *path,
                        const struct proto_type *t, const json_t *v, ProtobufCMessage *m,
                        sv skipped_key);
/* One with a JSON form of its own (t->kind). */
bool pb_json_read_known(struct pb_json_reader *r, const struct proto_path *path,
                        const struct proto_type *t, const json_t *v, ProtobufCMessage *m);
/* A value of field i of t into `out`, which has room for the field's type. */
bool pb_json_read_value(struct pb_json_reader *r, const struct proto_path *path,
                        const struct proto_type *t, unsigned i, const json_t *v, void *out);

#endif
