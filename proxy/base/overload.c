/* Levels of overload: see overload.h. */
#include "proxy/base/overload.h"

struct overload_level overload_levels_[OVERLOAD_POINTS_N];

bool overload_draw(enum overload_point p, uint32_t level, struct rng *r) {
    if (level < OVERLOAD_FULL && rng_below(r, OVERLOAD_FULL) >= level) {
        return false;
    }
    __atomic_add_fetch(&overload_levels_[p].acted, 1, __ATOMIC_RELAXED);
    return true;
}

void overload_set(enum overload_point p, uint32_t level) {
    __atomic_store_n(&overload_levels_[p].level, level < OVERLOAD_FULL ? level : OVERLOAD_FULL,
                     __ATOMIC_RELAXED);
}

uint64_t overload_acted(enum overload_point p) {
    return __atomic_load_n(&overload_levels_[p].acted, __ATOMIC_RELAXED);
}
