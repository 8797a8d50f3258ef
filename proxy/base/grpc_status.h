/* gRPC's status codes, and what of them stands for an HTTP status that came without one.
 * Spec: gRPC's "HTTP to gRPC status code mapping". Threads: any. */
#ifndef SLUICE_BASE_GRPC_STATUS_H
#define SLUICE_BASE_GRPC_STATUS_H

#include "proxy/base/sv.h"

unsigned grpc_status_of_http(unsigned code);
/* The same as the header's value. */
sv grpc_status_text_of_http(unsigned code);

#endif
