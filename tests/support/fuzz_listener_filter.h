/* Feeding a listener filter as a listener does: longer and longer prefixes of what a peer sends,
 * then its end. */
#ifndef SLUICE_TESTS_SUPPORT_FUZZ_LISTENER_FILTER_H
#define SLUICE_TESTS_SUPPORT_FUZZ_LISTENER_FILTER_H

#include "proxy/api/listener_filter.h"
#include "proxy/base/mem.h"

struct fuzz_filter {
    const struct listener_filter_type *type;
    struct arena arena;
    struct diag d;
    const void *config;
};

static inline void fuzz_filter_open(struct fuzz_filter *f, const struct listener_filter_type *t,
                                    const void *msg) {
    f->type = t;
    arena_init(&f->arena, 0);
    diag_init(&f->d);
    struct compile_ctx ctx = {
        .arena = &f->arena, .diag = &f->d, .stats = stats_store_new(1), .is_downstream = true};
    f->config = t->compile(&ctx, msg);
    CHECK(f->config != NULL);
}

/* The first byte of the input says in how many pieces the rest comes. */
static inline void fuzz_filter_run(const struct fuzz_filter *f, const uint8_t *data, size_t size) {
    if (size < 2) {
        return;
    }
    size_t pieces = data[0] % 8 + 1u, total = size - 1;
    total = total < f->type->max_peek_bytes ? total : f->type->max_peek_bytes;
    struct arena a;
    arena_init(&a, 0);
    struct accept_info info = {.arena = &a, .fd = -1};
    _Alignas(16) char state[LISTENER_FILTER_STATE_BYTES] = {0};
    enum listener_filter_status st = LISTENER_FILTER_NEED_DATA;
    for (size_t i = 1; i <= pieces && st == LISTENER_FILTER_NEED_DATA; i++) {
        size_t n = total * i / pieces;
        if (n == 0) {
            continue;
        }
        char *exact = (char *)xmemdup(data + 1, n); /* so that any read past it is seen */
        st = f->type->on_bytes(f->config, state, &info, sv_from(exact, n),
                               i == pieces && data[0] & 8, 0);
        xfree(exact);
        CHECK(info.consume_bytes <= n);
    }
    CHECK(info.server_name.n < 256 && info.alpn_n <= 64);
    arena_fini(&a);
    chunk_cache_trim();
}

#endif
