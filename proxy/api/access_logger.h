/* Access loggers: called when a stream or connection ends, and before as access_log_options ask.
 * Spec: config.accesslog.v3.AccessLog. Threads: log() on workers; it formats into a per-thread
 * buffer. */
#ifndef SLUICE_API_ACCESS_LOGGER_H
#define SLUICE_API_ACCESS_LOGGER_H

#include "proxy/api/compile.h"
#include "proxy/observe/stream_info.h"

/* Why a line is written. Spec: data.accesslog.v3.AccessLogType, its numbers. */
enum access_log_type {
    ACCESS_LOG_NOT_SET = 0,
    ACCESS_LOG_TCP_UPSTREAM_CONNECTED = 1,
    ACCESS_LOG_TCP_PERIODIC = 2,
    ACCESS_LOG_TCP_CONNECTION_END = 3,
    ACCESS_LOG_DOWNSTREAM_START = 4,
    ACCESS_LOG_DOWNSTREAM_PERIODIC = 5,
    ACCESS_LOG_DOWNSTREAM_END = 6,
    ACCESS_LOG_DOWNSTREAM_TUNNEL_ESTABLISHED = 10,
    ACCESS_LOG_TCP_CONNECTION_START = 14,
};

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
/* Write a line of si, which notes `type`, to those of the loggers whose filters let it pass. logs
 * may be NULL. */
void access_logs_run(const struct access_logs *logs, struct stream_info *si,
                     enum access_log_type type, struct loop *l);

#endif
