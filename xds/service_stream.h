/* A gRPC stream to a control plane's service, kept up: dialed, opened again after a growing, random
 * delay when it ends.
 * Threads: the config thread. Spec: core.v3.ApiConfigSource with one envoy_grpc service.
 * Not here: the messages (hds.c, lrs.c), which api_type may be. */
#ifndef SLUICE_XDS_SERVICE_STREAM_H
#define SLUICE_XDS_SERVICE_STREAM_H

#include "xds/store.h"

struct service_stream;
struct service_stream_ops {
    void (*on_open)(void *user); /* send what comes first */
    /* borrowed for the call. False: malformed, the stream is opened anew */
    bool (*on_message)(void *user, sv wire);
    void (*on_failed)(void *user); /* it could not be opened, or ended with an error */
    void (*on_ended)(void *user);  /* it will be opened again; after on_failed, if that is called */
};
/* `source`: core.v3.ApiConfigSource, of which the name of its cluster and the like are copied.
 * method: "/package.Service/Method", outlives it. NULL: errors are in d. No callback before
 * _start. */
struct service_stream *service_stream_new(struct store *s, const char *method, const void *source,
                                          const struct service_stream_ops *ops, void *user,
                                          struct diag *d);
void service_stream_free(struct service_stream *t); /* NULL is fine; no callback after */
void service_stream_start(struct service_stream *t);
void service_stream_stop(struct service_stream *t); /* no callback until it is started again */
/* One message at a time; false while it is not open, too. */
bool service_stream_can_send(const struct service_stream *t);
void service_stream_send(struct service_stream *t, struct buf *message); /* empties it */

#endif
