/* A collector that takes POSTs: core.v3.HttpService, and one request to it.
 * Threads: compiled on the config thread, immutable; posting on workers. */
#ifndef SLUICE_FILTERS_COLLECTOR_H
#define SLUICE_FILTERS_COLLECTOR_H

#include "proxy/api/header_mutation.h"
#include "proxy/api/upstream_call.h"

struct collector {
    sv cluster, authority, path;
    uint32_t timeout_ms;                    /* 0: the caller's */
    const struct header_mutations *headers; /* NULL: none */
};

/* msg: core.v3.HttpService. False: errors added. */
bool collector_compile(struct compile_ctx *ctx, const void *msg, struct collector *out);
/* Takes the body. The call is detached from the caller but for `done`. */
struct upstream_call *collector_post(const struct collector *c, struct worker *w, sv content_type,
                                     sv user_agent, uint32_t timeout_ms, struct buf *body,
                                     upstream_call_done_fn done, void *user);

/* Text as protobuf's strings want it: NUL-terminated, U+FFFD for what is no UTF-8. */
const char *collector_text(struct arena *a, sv s);

#endif
