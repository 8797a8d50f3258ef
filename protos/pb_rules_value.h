/* Between pb_rules.c, which walks messages, and pb_rules_value.c, which looks at one value. Nobody
 * else includes this; see pb_rules.h. */
#ifndef SLUICE_PROTOS_PB_RULES_VALUE_H
#define SLUICE_PROTOS_PB_RULES_VALUE_H

#include "protos/proto_path.h"
#include "protos/proto_type.h"

struct pb_rules_checker {
    struct diag *d;
    bool ok; /* no violation so far */
};

/* The rules of one field in one scope. */
struct pb_rules_group {
    const struct proto_rule *rules;
    size_t n;
};

/* The group's rule of that kind, or NULL. */
const struct proto_rule *pb_rules_find(struct pb_rules_group g, enum proto_rule_op op);
/* Add an error at the path. */
void pb_rules_violation(struct pb_rules_checker *c, const struct proto_path *path, const char *fmt,
                        ...) PRINTF_LIKE(3, 4);
/* A value of field i of t: of a field that is set or has no presence, an item, a map key or value.
 * A message is not NULL. */
void pb_rules_value(struct pb_rules_checker *c, const struct proto_path *path,
                    struct pb_rules_group g, const struct proto_type *t, unsigned i, const void *v);

#endif
