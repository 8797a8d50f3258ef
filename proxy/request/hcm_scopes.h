/* Scoped routes of a connection manager: how a request's key is made, and where its scope is.
 * Threads: immutable. Spec: HttpConnectionManager.scoped_routes. */
#ifndef SLUICE_REQUEST_HCM_SCOPES_H
#define SLUICE_REQUEST_HCM_SCOPES_H

#include "proxy/request/hcm.h"
#include "proxy/route/scope.h"

struct hcm_scopes {
    const struct scope_key_builder *key_builder;
    const struct scope_table *list; /* inline scopes; NULL: by SRDS */
    slot_t slot;                    /* of SRDS's scopes in the snapshot */
};
/* msg: hcm ScopedRoutes; in the ctx's arena. Errors are added to the ctx's. */
const struct hcm_scopes *hcm_scopes_compile(struct compile_ctx *ctx, const void *msg);

#endif
