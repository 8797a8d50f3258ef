/* raw_buffer: bytes on the fd are the application's. And the worker's shared read chunk. */
#ifndef SLUICE_NET_TRANSPORT_H
#define SLUICE_NET_TRANSPORT_H

#include "proxy/api/transport_socket.h"

struct transport *transport_raw_new(void);
struct transport_factory *transport_raw_factory(void); /* the process-wide instance, borrowed */
extern const struct transport_socket_type
    raw_buffer_transport_socket; /* named so for filters.def */
#define transport_raw_type raw_buffer_transport_socket
/* The thread's shared read chunk: bytes are appended at chunk->used; taken slices pin it and a new
 * one is made. It has room for at least 16 KiB; what was not reported by _done is scratch. Borrowed
 * until the next call. */
struct chunk *transport_read_chunk(void);
void transport_read_chunk_done(size_t appended);
/* An empty chunk of CHUNK_READ_BYTES as scratch, nothing of which is to be kept. Borrowed until the
 * next call of these. */
struct chunk *transport_peek_chunk(void);
void transport_read_chunk_drop(void); /* at thread end */

#endif
