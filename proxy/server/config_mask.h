/* Field masks on JSON text, for /config_dump?mask=. Threads: any. Spec:
 * google.protobuf.FieldMask. */
#ifndef SLUICE_SERVER_CONFIG_MASK_H
#define SLUICE_SERVER_CONFIG_MASK_H

#include "proxy/base/buf.h"

/* Comma-separated paths of field names. */
bool config_mask_valid(sv mask);
/* The element (a JSON object) with only the masked fields and @type; nothing when no path leads
 * anywhere. */
void config_mask_apply(sv json, sv mask, struct buf *out);

#endif
