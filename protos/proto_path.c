/* Paths within messages for diagnostics.
 * Threads: as the diag. */
#include "protos/proto_path.h"

#define KEY_SHOWN_MAX 128

static void push(const struct proto_path *p, struct diag *d) {
    if (!p) {
        return;
    }
    push(p->up, d);
    if (p->key.p) {
        sv shown = sv_sub(p->key, 0, KEY_SHOWN_MAX);
        diag_push(d, "%s[\"%.*s\"]", p->name, SV_ARG(shown));
    } else if (p->index != PROTO_PATH_NO_INDEX) {
        diag_push(d, "%s[%zu]", p->name, p->index);
    } else {
        diag_push(d, "%s", p->name);
    }
}

size_t proto_path_enter(const struct proto_path *p, struct diag *d) {
    size_t old_len = diag_path(d).n;
    push(p, d);
    return old_len;
}
