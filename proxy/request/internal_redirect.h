/* Internal redirects: an upstream's 3xx is followed here instead of being sent to the client.
 * Threads: worker-local. Spec: InternalRedirectPolicy; Envoy's Router::setupRedirect. */
#ifndef SLUICE_REQUEST_INTERNAL_REDIRECT_H
#define SLUICE_REQUEST_INTERNAL_REDIRECT_H

#include "proxy/request/router.h"

/* One redirect that was followed. */
struct redirect_hop {
    const struct redirect_hop *earlier;
    sv from, to; /* route names */
};

/* Response headers are there. True: the request goes on as another stream, `r` and its stream are
 * finished. */
bool internal_redirect_try(struct router *r, unsigned status, bool end_stream);

#endif
