/* Refcounted immutable texts. Threads: any. Not here: tables of all texts (intern.h). */
#include "proxy/base/shared_text.h"

#include <string.h>

#include "proxy/base/mem.h"

static struct shared_text *text_new(sv text) {
    struct shared_text *t = xalloc(sizeof(*t) + text.n + 1);
    t->refs_ = 1;
    if (text.n) {
        memcpy(t->text, text.p, text.n);
    }
    t->text[text.n] = '\0';
    return t;
}

struct shared_text *shared_text_get(struct shared_text **last, sv text) {
    if (!*last || !sv_eq(sv_cstr((*last)->text), text)) {
        shared_text_unref(*last);
        *last = text_new(text);
    }
    __atomic_add_fetch(&(*last)->refs_, 1, __ATOMIC_RELAXED);
    return *last;
}

void shared_text_unref(struct shared_text *t) {
    if (t && __atomic_sub_fetch(&t->refs_, 1, __ATOMIC_ACQ_REL) == 0) {
        xfree(t);
    }
}
