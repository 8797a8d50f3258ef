/* Counters of gRPC by cluster, service and method, found once a thread; and what a message tells of
 * being gRPC.
 * Threads: a table is shared by the workers, each of which has its own part of it.
 * Names: cluster.<c>.<protocol>.[<service>.<method>.]*. */
#ifndef SLUICE_FILTERS_COMMON_GRPC_COUNTERS_H
#define SLUICE_FILTERS_COMMON_GRPC_COUNTERS_H

#include "proxy/api/http_filter.h"
#include "proxy/base/map.h"

#define GRPC_METHODS_MAX 4096 /* of one thread; past it requests are counted without their method */
#define GRPC_METHOD_BYTES_MAX 256
#define GRPC_STATUSES 17     /* OK … UNAUTHENTICATED: their counters are kept at hand */
#define GRPC_STATUS_END 1000 /* from here on there are none */

/* Counters of one cluster and method; NULL until used (grpc_counter). */
struct grpc_method {
    struct stats_scope *scope; /* a ref */
    sv prefix;                 /* "<service>.<method>." or empty */
    struct stat_dyn *success, *failure, *total, *requests, *responses, *time_ms;
    struct stat_dyn *status[GRPC_STATUSES];
};
struct grpc_counters {
    const char *protocol; /* "grpc", "grpc-web" */
    struct stats_store *stats;
    struct grpc_thread *threads_[STATS_THREADS_MAX]; /* each written by its own thread only */
};
/* It lives in ctx->arena and goes with it. protocol: static text. */
void grpc_counters_init(struct compile_ctx *ctx, struct grpc_counters *c, const char *protocol);
/* prefix: "<service>.<method>.", or empty. NULL: a name is too long, or nothing is counted here. */
struct grpc_method *grpc_counters_find(struct grpc_counters *c, unsigned thread, sv cluster,
                                       sv prefix);
/* The counter in `slot`, made when it is first used. */
struct stat_dyn *grpc_counter(struct grpc_method *m, struct stat_dyn **slot, const char *name,
                              enum stat_kind kind);
/* Count what grpc-status of `h` tells. False: there is none. */
bool grpc_charge_status(struct grpc_method *m, const struct headers *h);

/* "/pkg.Service/Method" → its two parts; false: no gRPC path. */
bool grpc_split_path(sv path, sv *service, sv *method);
bool grpc_is_stat_name(sv s);       /* letters, digits, "_.-" */
bool grpc_is_type(sv content_type); /* application/grpc, application/grpc+… */
/* A response of trailers only is gRPC when it has a status. */
bool grpc_is_response(const struct headers *h, bool end_stream);

#endif
