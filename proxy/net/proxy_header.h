/* Writing PROXY headers.
 * Spec: HAProxy's proxy-protocol.txt; texts as Envoy writes them. */
#ifndef SLUICE_NET_PROXY_HEADER_H
#define SLUICE_NET_PROXY_HEADER_H

#include "proxy/base/buf.h"
#include "proxy/net/addr.h"

/* All append to `out`. Addresses of two IP families are told as IPv6; where one is of a UNIX
 * socket, none is told. */
void proxy_header_v1(struct buf *out, const struct addr *source, const struct addr *destination);
/* `tlvs`: as on the wire. False: more than a header holds; nothing is appended. */
MUST_USE bool proxy_header_v2(struct buf *out, const struct addr *source,
                              const struct addr *destination, sv tlvs);
void proxy_header_v2_local(struct buf *out); /* the sender speaks for itself */

#endif
