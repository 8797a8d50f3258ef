/* Every message Sluice knows, by full proto name, with what protobuf-c's descriptors drop: which
 * fields are maps, JSON names, sensitivity, deprecation, constraints. The tables are written by
 * gen.py (registry.c, rules.c) and never change.
 * Threads: any. */
#ifndef SLUICE_PROTOS_PROTO_TYPE_H
#define SLUICE_PROTOS_PROTO_TYPE_H

#include <protobuf-c/protobuf-c.h>

#include "proxy/base/sv.h"

struct regex;

enum proto_field_flag {
    PROTO_FIELD_MAP = 1 << 0,       /* repeated entry messages with fields key (1) and value (2) */
    PROTO_FIELD_SENSITIVE = 1 << 1, /* never shown: config_dump prints [redacted] */
    PROTO_FIELD_DEPRECATED = 1 << 2,
    PROTO_FIELD_DISALLOWED = 1 << 3, /* deprecated and refused unless runtime allows it */
    PROTO_FIELD_OPTIONAL = 1 << 4, /* `optional` scalar: a oneof of its own, so presence is known */
    PROTO_FIELD_MARKED_ENUM = 1 << 5, /* of an enum some of whose values are in proto_enum_values */
    /* nothing looks at it: a warning when it is set (support.txt) */
    PROTO_FIELD_UNHONOURED = 1 << 6,
    PROTO_FIELD_REFUSED = 1 << 7, /* nothing looks at it: an error when it is set */
};

/* Beside ProtobufCMessageDescriptor.fields[i]. */
struct proto_field {
    const char *json_name; /* NULL: follows from the field's name */
    int16_t type;          /* message fields: index into proto_types; else -1 */
    uint16_t flags;        /* enum proto_field_flag */
};

/* Constraints of validate.rules. Number operands are in the member that suits the field's type. */
enum proto_rule_op {
    PROTO_RULE_ONEOF_REQUIRED, /* field: first member of oneof `s` */
    PROTO_RULE_REQUIRED,       /* message, Any, Duration, Timestamp */
    PROTO_RULE_SKIP,           /* do not look into the message */
    PROTO_RULE_IGNORE_EMPTY,   /* comes before the rules it switches off */
    PROTO_RULE_CONST,
    PROTO_RULE_LT,
    PROTO_RULE_LTE,
    PROTO_RULE_GT,
    PROTO_RULE_GTE,
    PROTO_RULE_IN,
    PROTO_RULE_NOT_IN,
    PROTO_RULE_DEFINED_ONLY,
    PROTO_RULE_MIN_LEN, /* characters of a string, bytes of bytes */
    PROTO_RULE_MAX_LEN,
    PROTO_RULE_MAX_BYTES,
    PROTO_RULE_PATTERN, /* s, compiled once into proto_patterns[n] */
    PROTO_RULE_PREFIX,
    PROTO_RULE_SUFFIX,
    PROTO_RULE_HTTP_HEADER_NAME, /* well_known_regex; not strict: anything but NUL, CR, LF */
    PROTO_RULE_HTTP_HEADER_NAME_STRICT,
    PROTO_RULE_HTTP_HEADER_VALUE,
    PROTO_RULE_HTTP_HEADER_VALUE_STRICT,
    PROTO_RULE_MIN_ITEMS,
    PROTO_RULE_MAX_ITEMS,
    PROTO_RULE_UNIQUE,
    PROTO_RULE_MIN_PAIRS,
    PROTO_RULE_MAX_PAIRS,
};
enum proto_rule_scope {
    PROTO_SCOPE_FIELD,
    PROTO_SCOPE_ITEM,  /* each item of a repeated field */
    PROTO_SCOPE_KEY,   /* each key of a map */
    PROTO_SCOPE_VALUE, /* each value of a map */
};
struct proto_rule {
    uint16_t field; /* index into the descriptor's fields */
    uint8_t op, scope;
    int32_t
        /* nanoseconds of a Duration beside .i seconds; length of .s; count of a list; pattern
         * number */
        n;
    union {
        uint64_t u;
        int64_t i;
        double d;
        const char *s;
        const char *const *strings; /* NULL-terminated */
        const int64_t *ints;
        const double *doubles;
    } v;
};

enum proto_kind { /* messages with a JSON form of their own */
                  PROTO_KIND_PLAIN,
                  PROTO_KIND_ANY,
                  PROTO_KIND_DURATION,
                  PROTO_KIND_TIMESTAMP,
                  PROTO_KIND_FIELD_MASK,
                  PROTO_KIND_STRUCT,
                  PROTO_KIND_VALUE,
                  PROTO_KIND_LIST_VALUE,
                  PROTO_KIND_WRAPPER,      /* UInt32Value and its like */
                  PROTO_KIND_TYPED_STRUCT, /* plain in JSON; any.c converts it */
};
enum proto_type_flag {
    PROTO_TYPE_MAP_ENTRY = 1 << 0,
    PROTO_TYPE_DEPRECATED = 1 << 1,
    PROTO_TYPE_CHECKED = 1 << 2, /* it, or a message that it may hold, has rules */
};
struct proto_type {
    const char *name; /* full proto name */
    const ProtobufCMessageDescriptor *desc;
    const struct proto_field *fields; /* desc->n_fields of them, NULL when there are none */
    const struct proto_rule *rules;   /* by field, in the order they are checked */
    uint16_t rules_n;
    uint8_t kind;  /* enum proto_kind */
    uint8_t flags; /* enum proto_type_flag */
};

struct proto_enum_value {
    const ProtobufCEnumDescriptor *desc;
    int value;
    uint16_t flags; /* PROTO_FIELD_DEPRECATED, PROTO_FIELD_DISALLOWED */
};

/* What to do with a field or an enum name that we do not know. */
enum pb_json_unknown {
    PB_JSON_UNKNOWN_ERROR,
    PB_JSON_UNKNOWN_WARN, /* diag_warn, then as if it were not there */
    PB_JSON_UNKNOWN_SKIP,
};

extern const struct proto_type proto_types[]; /* sorted by name, bytewise */
extern const size_t proto_types_n;
extern const struct proto_enum_value proto_enum_values[];
extern const size_t proto_enum_values_n;
extern const struct proto_rule proto_rules[];
extern struct regex *proto_patterns[]; /* filled by pb_rules.c on first use */

/* The message of that full name (`envoy.config.core.v3.Node`), or NULL. Lives for ever. */
const struct proto_type *proto_type_find(sv name);
/* The row of a descriptor, or NULL when it is not one of ours. */
const struct proto_type *proto_type_of(const ProtobufCMessageDescriptor *desc);
/* The row of a message-typed field's message. i: index into t->desc->fields. NULL when it is not a
 * message field. */
static inline const struct proto_type *proto_field_type(const struct proto_type *t, unsigned i) {
    return t->fields[i].type >= 0 ? &proto_types[t->fields[i].type] : NULL;
}
/* Deprecation flags of an enum value (0 for most). */
unsigned proto_enum_value_flags(const ProtobufCEnumDescriptor *desc, int value);

#endif
