/* Access-log filters: does this exchange get logged? Private to proxy/observe. */
#ifndef SLUICE_OBSERVE_ACCESS_LOG_FILTER_H
#define SLUICE_OBSERVE_ACCESS_LOG_FILTER_H

#include "proxy/api/compile.h"
#include "proxy/base/rand.h"
#include "proxy/observe/stream_info.h"

struct log_filter;
/* msg: config.accesslog.v3.AccessLogFilter. NULL: error added. */
const struct log_filter *log_filter_compile(struct compile_ctx *ctx, const void *msg);
bool log_filter_match(const struct log_filter *f, const struct stream_info *si, struct rng *rng);

#endif
