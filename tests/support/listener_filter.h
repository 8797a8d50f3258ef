/* One listener filter under test: its config compiled from a message, bytes judged, its counters
 * read. */
#ifndef SLUICE_TESTS_SUPPORT_LISTENER_FILTER_H
#define SLUICE_TESTS_SUPPORT_LISTENER_FILTER_H

#include "proxy/api/listener_filter.h"
#include "tests/support/unit.h"

struct filter_bench {
    const struct listener_filter_type *type;
    struct arena config_arena, arena;
    struct diag d;
    struct stats_store *store;
    const void *config;
    struct accept_info info;
    _Alignas(16) char state[LISTENER_FILTER_STATE_BYTES];
};

/* False: it does not compile, errors are in b->d. */
static inline bool bench_open(struct filter_bench *b, const struct listener_filter_type *t,
                              const void *msg) {
    memset(b, 0, sizeof(*b));
    b->type = t;
    arena_init(&b->config_arena, 0);
    arena_init(&b->arena, 0);
    diag_init(&b->d);
    b->store = stats_store_new(1);
    struct compile_ctx ctx = {
        .arena = &b->config_arena, .diag = &b->d, .stats = b->store, .is_downstream = true};
    b->config = t->compile(&ctx, msg);
    b->info.arena = &b->arena;
    b->info.fd = -1;
    return b->config != NULL;
}

static inline void bench_close(struct filter_bench *b) {
    arena_fini(&b->arena);
    arena_fini(&b->config_arena);
    diag_fini(&b->d);
    stats_store_free(b->store);
    chunk_cache_trim();
}

/* The next accepted socket. */
static inline void bench_next(struct filter_bench *b) {
    memset(b->state, 0, sizeof(b->state));
    b->info = (struct accept_info){.arena = &b->arena, .fd = -1};
}

/* Judge a copy of exactly these bytes, so that the sanitizer sees any read past them. */
static inline enum listener_filter_status bench_judge(struct filter_bench *b, sv bytes, bool end) {
    struct arena copy;
    arena_init(&copy, 0);
    char *p = arena_alloc(&copy, bytes.n);
    if (bytes.n) {
        memcpy(p, bytes.p, bytes.n);
    }
    enum listener_filter_status st =
        b->type->on_bytes(b->config, b->state, &b->info, sv_from(p, bytes.n), end, 0);
    arena_fini(&copy);
    return st;
}

/* A socket whose bytes come one by one: the last answer; it must be NEED_DATA for every shorter
 * prefix. */
static inline enum listener_filter_status bench_feed(struct filter_bench *b, sv bytes) {
    for (size_t n = 1; n < bytes.n; n++) {
        enum listener_filter_status st = bench_judge(b, sv_sub(bytes, 0, n), false);
        if (st != LISTENER_FILTER_NEED_DATA) {
            return st;
        }
    }
    return bench_judge(b, bytes, false);
}

/* Counter i of the filter's group: each filter's config begins with its scope. */
static inline uint64_t bench_stat(const struct filter_bench *b, unsigned i) {
    return stats_scope_value(*(struct stats_scope *const *)b->config, i);
}
static inline void assert_bench_stats(const struct filter_bench *b, const uint64_t *want,
                                      unsigned n, size_t row) {
    for (unsigned i = 0; i < n; i++) {
        if (bench_stat(b, i) != want[i]) {
            fail_msg("row %zu: counter %u is %llu, not %llu", row, i,
                     (unsigned long long)bench_stat(b, i), (unsigned long long)want[i]);
        }
    }
}

#endif
