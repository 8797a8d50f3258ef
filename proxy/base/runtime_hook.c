/* The one place where lower layers ask for runtime values. Threads: see the header. */
#include "proxy/base/runtime_hook.h"

static const struct runtime_hook *hook; /* shared, atomic */

void runtime_hook_set(const struct runtime_hook *h) {
    __atomic_store_n(&hook, h, __ATOMIC_RELEASE);
}

bool runtime_hook_u64(sv key, uint64_t *value) {
    const struct runtime_hook *h = __atomic_load_n(&hook, __ATOMIC_ACQUIRE);
    return h && key.n && h->u64(key, value);
}

bool runtime_hook_fraction(sv key, uint32_t *numerator, uint32_t *denominator) {
    const struct runtime_hook *h = __atomic_load_n(&hook, __ATOMIC_ACQUIRE);
    return h && key.n && h->fraction(key, numerator, denominator) && *denominator != 0;
}
