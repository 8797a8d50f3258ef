/* One HTTP exchange with the control-plane cluster: a POST of JSON on a connection of its own, the
 * answer collected.
 * Threads: the config thread. Spec: the REST variant of xDS. Not here: what is asked and when
 * (rest_mux.c), choosing and reaching an endpoint (dial.c). */
#ifndef SLUICE_XDS_REST_CALL_H
#define SLUICE_XDS_REST_CALL_H

#include "proxy/base/buf.h"
#include "xds/dial.h"

#define REST_BODY_MAX (256u * 1024 * 1024) /* of a response */

struct rest_call_result {
    unsigned code;     /* of the response; 0: none came, `error` tells why */
    bool is_timed_out; /* … in time */
    sv body;           /* borrowed for the call */
    const char *error;
};
struct rest_call;
/* Once, never before _start returns, not after _cancel. The call is gone with it. */
typedef void (*rest_call_done_fn)(void *user, const struct rest_call_result *r);
/* path and authority are copied, body is moved. timeout_ms: of all of it. Never NULL. */
struct rest_call *rest_call_start(struct xds_dialer *d, sv path, sv authority, struct buf *body,
                                  uint32_t timeout_ms, rest_call_done_fn done, void *user);
void rest_call_cancel(struct rest_call *c);

#endif
