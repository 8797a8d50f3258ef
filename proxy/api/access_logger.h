/* Access loggers: called once when a stream or connection ends (and for flush intervals).
 * Spec: config.accesslog.v3.AccessLog. Threads: log() on workers; it formats into a per-thread
 * buffer. */
#ifndef SLUICE_API_ACCESS_LOGGER_H
#define SLUICE_API_ACCESS_LOGGER_H

#include "proxy/api/compile.h"
#include "proxy/observe/stream_info.h"

struct access_logger_type {
    const char *name;
    const char *type_url;
    void *(*compile)(struct compile_ctx *ctx, const void *msg);
    void (*log)(const void *config, const struct stream_info *si, struct loop *l);
};

/* Compiled list of AccessLog messages with their filters. */
struct access_logs;
/* msgs: array of n `const Envoy__Config__Accesslog__V3__AccessLog *`. NULL on error; also NULL (no
 * error) when n is 0. */
struct access_logs *access_logs_compile(struct compile_ctx *ctx, const void *const *msgs, size_t n);
void access_logs_run(const struct access_logs *logs, const struct stream_info *si, struct loop *l);

#endif
