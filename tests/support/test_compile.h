/* cmocka's fixture of tests that compile messages: one configuration `f` a test source, made anew
 * for each test. `start` is a bare one, `start_with_stats` has a stats store; `end` is for both.
 * As fake_compile.h: include it in one test source. */
#ifndef SLUICE_TESTS_SUPPORT_TEST_COMPILE_H
#define SLUICE_TESTS_SUPPORT_TEST_COMPILE_H

#include "proxy/stats/stats.h"
#include "tests/support/fake_compile.h"

#define FIXTURE_THREADS 4

static struct fake_compile f;

static inline int start(void **state) {
    (void)state;
    fake_compile_init(&f, NULL);
    return 0;
}

static inline int start_with_stats(void **state) {
    start(state);
    f.ctx.stats = stats_store_new(FIXTURE_THREADS);
    return 0;
}

static inline int end(void **state) {
    (void)state;
    struct stats_store *stats = f.ctx.stats;
    fake_compile_fini(&f);
    if (stats) {
        stats_store_free(stats);
    }
    return 0;
}

#endif
