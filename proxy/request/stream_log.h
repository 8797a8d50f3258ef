/* When access logs are written of a request: at its start, in intervals, when its tunnel stands, at
 * its end. Threads: worker-local. Spec: HttpConnectionManager access_log_options. */
#ifndef SLUICE_REQUEST_STREAM_LOG_H
#define SLUICE_REQUEST_STREAM_LOG_H

#include "proxy/request/stream.h"

/* The stream began: start the intervals, if there are to be any. */
void stream_log_begin(struct stream *s);
/* The request has its route and its filters. */
void stream_log_request(struct stream *s);
/* Headers of a response are about to go to the client; info has its status. */
void stream_log_response(struct stream *s);
/* The last line: filters' on_log, then the loggers. */
void stream_log_end(struct stream *s);
/* Put what was counted of bytes on the wire into the stream's info. */
void stream_log_count_bytes(struct stream *s);

#endif
