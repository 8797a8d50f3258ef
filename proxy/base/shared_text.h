/* Immutable texts that many hold, such as the version that all resources of a push have: one copy
 * for those that follow each other. Threads: any; a `last` belongs to one thread (or a lock). */
#ifndef SLUICE_BASE_SHARED_TEXT_H
#define SLUICE_BASE_SHARED_TEXT_H

#include <stdint.h>

#include "proxy/base/sv.h"

struct shared_text {
    uint32_t refs_; /* atomic */
    char text[];    /* NUL-terminated */
};

/* A ref on `text`: of *last when that is equal (NULL: there is none yet), else of a new copy, which
 * becomes *last. *last holds a ref of its own: shared_text_unref() it in the end. */
struct shared_text *shared_text_get(struct shared_text **last, sv text);
void shared_text_unref(struct shared_text *t); /* NULL: nothing */

#endif
