/* See api/passthrough.h. Not here: what is put in (upstream/internal_upstream.c), who carries it
 * (server/worker_internal.c). */
#include "proxy/api/passthrough.h"

#include "proxy/base/mem.h"

#define ARENA_BYTES 256u

static void on_free(struct shared *s) {
    struct passthrough *p = CONTAINER_OF(s, struct passthrough, shared);
    arena_fini(&p->arena);
    xfree(p);
}

struct passthrough *passthrough_new(const struct addr *to) {
    struct passthrough *p = xnew(struct passthrough);
    shared_init(&p->shared, on_free);
    arena_init(&p->arena, ARENA_BYTES);
    p->to = addr_dup(to, &p->arena);
    return p;
}

static void unref(void *shared) { shared_unref(shared); }

void passthrough_pin(struct passthrough *p, struct arena *a) {
    shared_ref_(&p->shared);
    arena_on_fini(a, unref, &p->shared);
}
