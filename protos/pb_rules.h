/* The constraints of validate.rules over an unpacked message. Threads: any, once the first check is
 * done or not. */
#ifndef SLUICE_PROTOS_PB_RULES_H
#define SLUICE_PROTOS_PB_RULES_H

#include "protos/proto_type.h"
#include "proxy/base/diag.h"

/* Check m and the messages within it. Every violation is an error at its field path, in Envoy's
 * words ("value length must be at least 1 characters"). Any payloads are not entered: check them
 * when they are unpacked. True when there was none. */
bool pb_rules_check(const ProtobufCMessage *m, struct diag *d);

#endif
