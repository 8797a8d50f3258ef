/* x-forwarded-client-cert: sanitise, forward or set from the client's certificate. Threads:
 * worker-local.
 * Spec: HttpConnectionManager.forward_client_cert_details, set_current_client_cert_details. */
#ifndef SLUICE_REQUEST_XFCC_H
#define SLUICE_REQUEST_XFCC_H

struct stream;
void xfcc_apply(struct stream *s); /* on the request headers, before routing */

#endif
