/* Compiles the HTTP protocol option messages into struct codec_options. Call
 * codec_options_defaults() first.
 * Spec: core.v3.Http1ProtocolOptions, Http2ProtocolOptions, HttpProtocolOptions. Threads: config
 * thread. */
#ifndef SLUICE_HTTP_CODEC_OPTIONS_H
#define SLUICE_HTTP_CODEC_OPTIONS_H

#include "protos/gen/core.pb-c.h" /* lint: the compile functions of the codecs */
#include "proxy/api/compile.h"
#include "proxy/http/codec.h"

/* Each sets what its message sets. False: errors are in ctx->diag. */
bool codec_options_http1(struct compile_ctx *ctx, const Core__Http1ProtocolOptions *m,
                         struct codec_options *o);
bool codec_options_http2(struct compile_ctx *ctx, const Core__Http2ProtocolOptions *m,
                         struct codec_options *o);
/* Header limits and underscores only: timeouts and request counts belong to the connection manager
 * and the pools. */
bool codec_options_common(struct compile_ctx *ctx, const Core__HttpProtocolOptions *m,
                          struct codec_options *o);

#endif
