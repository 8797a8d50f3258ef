/* Runtime values by key, as far as the layers below the server need them: the layered runtime
 * installs itself here once.
 * Threads: install before workers start; lookups from any thread, cold unless a config names a
 * runtime key.
 * Spec: bootstrap LayeredRuntime; RuntimeFractionalPercent. Not here: layers, files, RTDS
 * (server/runtime.c). */
#ifndef SLUICE_BASE_RUNTIME_HOOK_H
#define SLUICE_BASE_RUNTIME_HOOK_H

#include "proxy/base/sv.h"

struct runtime_hook {
    /* False: the key is not set (or is not a number); *out is untouched. */
    bool (*u64)(sv key, uint64_t *out);
    /* A number counts as percent; a FractionalPercent as it says. */
    bool (*fraction)(sv key, uint32_t *numerator, uint32_t *denominator);
};
/* NULL: no runtime, every key is unset. The hook must live for ever. */
void runtime_hook_set(const struct runtime_hook *h);
/* Overwrite the default when the key is set. Returns whether it is. */
bool runtime_hook_u64(sv key, uint64_t *value);
bool runtime_hook_fraction(sv key, uint32_t *numerator, uint32_t *denominator);

#endif
