/* Names of xdstp:// resources and of the glob collections they are in. Pure; any thread.
 * Spec: xDS transport protocol (xRFC TP1), URI based naming; core.v3.ResourceName.
 * Names are compared as bytes but for the order of their context parameters: percent encoding must
 * be the server's own everywhere. */
#ifndef SLUICE_CONFIG_COLLECTION_H
#define SLUICE_CONFIG_COLLECTION_H

#include "proxy/base/buf.h"
#include "proxy/base/diag.h"

/* Append the canonical form (context parameters sorted) of a glob collection's URL,
 * "xdstp://<authority>/<proto name>/<path>/<star>?<parameters>". False: it is none, an error is in
 * d, and `out` is as it was. */
bool collection_parse(sv url, const char *proto_name, struct buf *out, struct diag *d);
/* Append the canonical name of the collection that a resource belongs to; a collection belongs to
 * itself. False: it is not an xdstp name. */
bool collection_of(sv name, struct buf *out);

#endif
