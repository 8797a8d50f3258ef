/* A bidirectional gRPC stream of bytes over a connected fd, on gRPC-C core; used by stream_mux.c
 * and load reporting.
 * Threads: the loop's own; completions come from one pump thread of the process through the loop's
 * mailbox.
 * Not here: dialing (dial.c), back-off and what the messages mean (stream_mux.c). */
#ifndef SLUICE_XDS_ADS_H
#define SLUICE_XDS_ADS_H

#include "proxy/base/buf.h"
#include "proxy/event/loop.h"
#include "xds/mux.h"

#define ADS_STATUS_MESSAGE_MAX 1024u

struct ads_stream;
struct ads_stream_options {
    struct loop *loop;
    int fd;             /* taken over, whatever happens */
    const char *method; /* "/package.Service/Method" */
    sv authority;
    const struct xds_metadata *metadata;
    unsigned metadata_n;
    uint32_t max_receive_bytes;                  /* 0: unlimited */
    uint32_t keepalive_ms, keepalive_timeout_ms; /* 0: off */
};
/* None is called from within ads_stream_open or _send; any may call ads_stream_close. */
struct ads_stream_ops {
    /* borrowed for the call; the next comes once this returned */
    void (*on_message)(void *user, sv message);
    void (*on_sent)(void *user); /* another message may be sent */
    /* The stream is over (gRPC status, its text); the stream is gone after the call. Not called
     * after ads_stream_close. */
    void (*on_closed)(void *user, int status, sv text);
};

/* The process-wide gRPC library and pump; counted. A stream needs it held. */
void ads_hold(void);
void ads_release(void);

struct ads_stream *ads_stream_open(const struct ads_stream_options *o,
                                   const struct ads_stream_ops *ops, void *user);
/* One message at a time: not before on_sent of the last. Bytes are taken out of `message`. */
bool ads_stream_can_send(const struct ads_stream *s);
void ads_stream_send(struct ads_stream *s, struct buf *message);
/* Hold back receiving: our replies to what came wait to be sent. At most one more message comes. */
void ads_stream_pause(struct ads_stream *s, bool pause);
/* End it; no callback any more. */
void ads_stream_close(struct ads_stream *s);

#endif
