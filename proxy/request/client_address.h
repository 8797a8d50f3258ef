/* Who the client of a request is, by what proxies in front of us say of it, and x-forwarded-for.
 * Threads: compiled on the config thread; worker-local.
 * Spec: HttpConnectionManager use_remote_address, xff_num_trusted_hops, skip_xff_append,
 * original_ip_detection_extensions (http.original_ip_detection.xff.v3, .custom_header.v3),
 * internal_address_config. */
#ifndef SLUICE_CLIENT_ADDRESS_H
#define SLUICE_CLIENT_ADDRESS_H

#include "proxy/net/addr.h"
#include "proxy/request/stream.h"

struct ip_detection;
/* msgs: n pointers to core.v3.TypedExtensionConfig, in the order in which they are asked. In ctx's
 * arena; NULL: there is none, or all is told to ctx->diag. */
const struct ip_detection *ip_detections_compile(struct compile_ctx *ctx, const void *const *msgs,
                                                 size_t n);

struct client {
    struct addr address;
    bool may_be_internal; /* nobody unknown stands between it and us */
    uint16_t refused;     /* the status to answer with, as nobody can tell the client; 0: none */
};
/* Finds the client and appends to x-forwarded-for what is to be told of the connection. */
struct client client_find(struct stream *s);
/* An address as the request's headers tell it, in the stream's memory. */
sv client_ip_text(struct stream *s, const struct addr *a);

#endif
