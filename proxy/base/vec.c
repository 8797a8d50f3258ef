/* Growth of the typed arrays of vec.h.
 * Threads: one owner. */
#include "proxy/base/vec.h"

#define FIRST_ITEMS 4

void *vec_grow(void *p, size_t *cap, size_t need, size_t item_bytes) {
    size_t grown = *cap ? *cap + *cap / 2 : FIRST_ITEMS;
    *cap = grown > need ? grown : need;
    return xreallocarray(p, *cap, item_bytes);
}
