/* The bootstrap file: reading it in all its forms, and the node we present to control planes.
 * Threads: main, before others start. Spec: config.bootstrap.v3.Bootstrap. */
#ifndef SLUICE_CONFIG_BOOTSTRAP_H
#define SLUICE_CONFIG_BOOTSTRAP_H

#include "protos/gen/bootstrap.pb-c.h"
#include "proxy/base/diag.h"

/* Read `path` (.json .yaml .yml .pb .pb_text by suffix; "" none) and merge `inline_yaml` ("" none)
 * over it: messages are merged, lists appended, the rest replaced. Validate rules are checked. The
 * message lives in `a`. NULL: errors in d. */
Bootstrap__Bootstrap *bootstrap_load(const char *path, const char *inline_yaml, bool allow_unknown,
                                     struct arena *a, struct diag *d);
struct registry;
struct node_flags {
    const char *cluster, *id, *zone; /* --service-*; NULL or "": keep the file's */
};
/* node with user_agent_name, build version, extensions and client features filled in; in the
 * arena. */
Core__Node *bootstrap_node(const Bootstrap__Bootstrap *b, const struct node_flags *f,
                           const struct registry *r, struct arena *a);

#endif
