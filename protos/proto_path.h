/* The place in a message tree as a chain of stack frames: free to carry along, turned into text
 * only to tell an error. */
#ifndef SLUICE_PROTOS_PROTO_PATH_H
#define SLUICE_PROTOS_PROTO_PATH_H

#include "proxy/base/diag.h"

#define PROTO_PATH_NO_INDEX SIZE_MAX

struct proto_path {
    const struct proto_path *up; /* NULL: the top */
    const char *name;            /* field name */
    size_t index;                /* of an item; PROTO_PATH_NO_INDEX otherwise */
    sv key;                      /* of a map entry; .p is NULL otherwise */
};

/* Push every element from the top down onto d; p may be NULL. Returns the old length for
 * diag_pop. */
size_t proto_path_enter(const struct proto_path *p, struct diag *d);

#endif
