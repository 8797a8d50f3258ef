/* metrics.v3.StatsConfig to the plain form that the stats store takes. Threads: main, at start. */
#ifndef SLUICE_CONFIG_COMPILE_STATS_H
#define SLUICE_CONFIG_COMPILE_STATS_H

#include "proxy/api/compile.h"
#include "proxy/stats/stats_config.h"

/* A tag given by --stats-tag name:value; they come before the configured ones. */
struct stats_cli_tag {
    sv name, value;
};
/* msg: metrics.v3.StatsConfig, NULL: all defaults. The result lives in ctx->arena; NULL: errors are
 * in ctx->diag. Give it to stats_store_configure() before the first export. */
const struct stats_config *compile_stats_config(struct compile_ctx *ctx, const void *msg,
                                                const struct stats_cli_tag *cli, unsigned cli_n);

#endif
