/* A tracer as the fixture of a test: define TRACER, its type, and CONFIG, its message's name,
 * first. Include it in one test source. */
#ifndef SLUICE_TESTS_SUPPORT_TEST_TRACER_H
#define SLUICE_TESTS_SUPPORT_TEST_TRACER_H

#include "proxy/api/tracer.h"
#include "tests/support/test_compile.h"

extern const struct tracer_type TRACER;
static struct tracer tracer;

static inline int begin(void **state) {
    start_with_stats(state);
    tracer = (struct tracer){.type = &TRACER};
    arena_init(&tracer.arena, 0);
    return 0;
}

static inline int finish(void **state) {
    arena_fini(&tracer.arena);
    return end(state);
}

/* NULL: refused, as f.ctx.diag tells. */
static inline const void *compile(const char *text) {
    struct compile_ctx ctx = f.ctx;
    ctx.arena = &tracer.arena;
    tracer.config = TRACER.compile(&ctx, fake_msg(&f, CONFIG, text));
    return tracer.config;
}

#endif
