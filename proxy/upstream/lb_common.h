/* The parts of policies' configs that several share. Threads: the config thread. */
#ifndef SLUICE_UPSTREAM_LB_COMMON_H
#define SLUICE_UPSTREAM_LB_COMMON_H

#include "protos/gen/lb_common.pb-c.h"
#include "proxy/upstream/lb.h"

/* Either message may be NULL. Errors go to ctx->diag. */
void lb_common_compile(struct compile_ctx *ctx, const LbCommon__LocalityLbConfig *locality,
                       const LbCommon__SlowStartConfig *slow_start, struct lb_common *out);

#endif
