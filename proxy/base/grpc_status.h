/* gRPC's status codes, and what of them stands for an HTTP status that came without one, and back.
 * Spec: gRPC's "HTTP to gRPC status code mapping", google.rpc.Code. Threads: any. */
#ifndef SLUICE_BASE_GRPC_STATUS_H
#define SLUICE_BASE_GRPC_STATUS_H

#include "proxy/base/sv.h"

unsigned grpc_status_of_http(unsigned code);
/* The same as the header's value. */
sv grpc_status_text_of_http(unsigned code);
/* The HTTP status that says the same as google.rpc.Code `status`; 500 for numbers that are none. */
unsigned grpc_status_to_http(uint64_t status);
/* Does the status blame the server: UNKNOWN, DEADLINE_EXCEEDED, UNIMPLEMENTED, INTERNAL,
 * UNAVAILABLE or DATA_LOSS? What makes a server's span an error (OpenTelemetry's rules for
 * gRPC). */
bool grpc_status_is_server_error(uint64_t status);

#endif
