/* core.v3.Metadata → struct kv_metadata in the resource's arena. Threads: the config thread. */
#ifndef SLUICE_CONFIG_METADATA_H
#define SLUICE_CONFIG_METADATA_H

#include "proxy/api/compile.h"

struct kv_metadata;
/* msg: core.v3.Metadata or NULL (gives NULL). */
const struct kv_metadata *metadata_compile(struct compile_ctx *ctx, const void *msg);

#endif
