/* What an unpacked message holds that its reader should be told of: fields we do not know,
 * deprecated fields and values, fields that nothing looks at.
 * Threads: as the message. */
#ifndef SLUICE_PROTOS_FINDINGS_H
#define SLUICE_PROTOS_FINDINGS_H

#include "protos/proto_type.h"
#include "proxy/base/diag.h"

enum finding_kind {
    FINDING_UNKNOWN_FIELDS, /* of `type`; `numbers` lists them: "7, 900" */
    FINDING_DEPRECATED,     /* `field` of `type` is set */
    /* the same, and off unless runtime `envoy.deprecated_features:<type>.<field>` is true */
    FINDING_DISALLOWED,
    FINDING_DEPRECATED_VALUE,
    FINDING_DISALLOWED_VALUE,
    FINDING_UNHONOURED, /* `field` of `type` is set and nothing looks at it (support.txt) */
    FINDING_REFUSED,    /* the same of a field that may not be passed over */
};
struct finding {
    enum finding_kind kind;
    const struct proto_type *type;
    const char *field;      /* name, NULL for unknown fields */
    const char *enum_value; /* name, for the values only */
    sv numbers;             /* for unknown fields only */
};

/* Call `on` for each finding in m and the messages within it, with d's path at the message (unknown
 * fields) or the field; Any payloads are not entered. Findings are borrowed for the call. */
void findings_walk(const ProtobufCMessage *m, struct diag *d,
                   void (*on)(void *arg, const struct finding *f), void *arg);

/* Unknown fields as errors (static config, --reject-unknown-dynamic-fields) or as warnings, in
 * Envoy's words. Returns how many messages had some. */
size_t findings_unknown_fields(const ProtobufCMessage *m, bool as_errors, struct diag *d);

/* A message of configuration: unknown fields as `unknown` says, fields that support.txt names
 * "refused" as errors and those that it names "unhonoured" as warnings. False: errors were
 * added. */
bool findings_check(const ProtobufCMessage *m, enum pb_json_unknown unknown, struct diag *d);

#endif
