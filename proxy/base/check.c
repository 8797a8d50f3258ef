/* Failed assertions: the abort of CHECK, and the count and first log line of BUG.
 * Threads: any.
 * Spec: Envoy's STYLE.md "Error handling"; stat server.envoy_bug_failures.
 * Not here: what a dying process prints besides (crash.c). */
#include "proxy/base/check.h"

#include <stdlib.h>

#include "proxy/base/log.h"

#define BUG_PLACES_MAX 128u /* power of two; further places are counted, not logged */

static uint64_t bug_count;
static uintptr_t bug_places[BUG_PLACES_MAX]; /* hashes of file and line, 0: free */

void check_failed(const char *expr, const char *file, int line) {
    log_write(LOG_assert, LOG_CRITICAL, file, line, "assert failure: %s", expr);
    abort();
}

/* Whether this is the first time that `place` is seen. */
static bool remember(uintptr_t place) {
    for (uintptr_t i = 0; i < BUG_PLACES_MAX; i++) {
        uintptr_t *slot = &bug_places[(place + i) & (BUG_PLACES_MAX - 1)];
        uintptr_t seen = 0;
        if (__atomic_compare_exchange_n(slot, &seen, place, false, __ATOMIC_RELAXED,
                                        __ATOMIC_RELAXED)) {
            return true;
        }
        if (seen == place) {
            return false;
        }
    }
    return false;
}

bool check_bug(const char *expr, const char *file, int line) {
    __atomic_add_fetch(&bug_count, 1, __ATOMIC_RELAXED);
    uintptr_t place = ((uintptr_t)file * 31 + (uintptr_t)line) | ((uintptr_t)1 << 63);
    if (remember(place)) {
        log_write(LOG_assert, LOG_ERROR, file, line, "envoy bug failure: %s", expr);
    }
    return true;
}

uint64_t check_bug_count(void) { return __atomic_load_n(&bug_count, __ATOMIC_RELAXED); }
