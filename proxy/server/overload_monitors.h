/* Resource monitors of the overload manager: how much of a resource is used.
 * Threads: main. Spec: config.overload.v3.ResourceMonitor and extensions.resource_monitors.
 * Not here: what follows from it (overload.c). */
#ifndef SLUICE_SERVER_OVERLOAD_MONITORS_H
#define SLUICE_SERVER_OVERLOAD_MONITORS_H

#include "proxy/api/compile.h"
#include "proxy/base/sv.h"

struct overload_monitor;
struct overload_monitor_type {
    const char *type_url; /* of the typed_config, a full message name */
    /* NULL: errors are in ctx->diag. In ctx->arena. */
    struct overload_monitor *(*compile)(struct compile_ctx *ctx, const void *msg);
    /* *pressure: used part, 1 is all of it; false: it can't be told now. */
    bool (*sample)(struct overload_monitor *m, double *pressure);
};
/* First member of every monitor. */
struct overload_monitor {
    const struct overload_monitor_type *type;
};
/* NULL: there is none for this message. */
const struct overload_monitor_type *overload_monitor_type(sv type_url);

#endif
