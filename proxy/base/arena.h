/* Bump allocator: everything is freed at once. One per stream, one per compiled resource.
 * Threads: one owner at a time. */
#ifndef SLUICE_BASE_ARENA_H
#define SLUICE_BASE_ARENA_H

#include <stdarg.h>
#include <stddef.h>

#include "proxy/base/mem.h"
#include "proxy/base/sv.h"

struct arena_block;
struct arena_cleanup;
struct arena {
    char *cur_; /* next free byte */
    char *end_;
    struct arena_block *head_; /* newest block; the chain is freed by _fini/_reset */
    struct arena_cleanup *cleanups_;
    size_t used_bytes_ : 40;  /* of blocks allocated, for accounting */
    size_t block_bytes_ : 24; /* of the first regular block; later ones grow with the arena */
};

/* Blocks of `block_bytes` (0: 4 KiB) are taken when first needed: an unused arena owns nothing. */
void arena_init(struct arena *a, size_t block_bytes);
/* Run cleanups in reverse order, free all blocks. The arena may be initialised again. */
void arena_fini(struct arena *a);
/* As _fini, but keeps a block of the first size for reuse. */
void arena_reset(struct arena *a);

void *arena_alloc_slow(struct arena *a, size_t n);
/* Uninitialised, 8-byte aligned, never NULL. */
static inline void *arena_alloc(struct arena *a, size_t n) {
    /* Room is a multiple of 8: comparing before rounding up cannot overflow. */
    if (LIKELY((size_t)(a->end_ - a->cur_) >= n + MEM_REDZONE && a->cur_)) {
        void *p = a->cur_;
        a->cur_ += (n + MEM_REDZONE + 7) & ~(size_t)7;
        MEM_UNPOISON(p, n);
        return p;
    }
    return arena_alloc_slow(a, n);
}
void *arena_zalloc(struct arena *a, size_t n);
#define arena_new(a, type) ((type *)arena_zalloc((a), sizeof(type)))
#define arena_new_array(a, type, n) ((type *)arena_zalloc_array((a), (n), sizeof(type)))
void *arena_zalloc_array(struct arena *a, size_t n, size_t size); /* overflow-checked */
/* copy, NUL-terminated behind the view */
sv arena_sv(struct arena *a, sv s);
char *arena_cstr(struct arena *a, sv s);
sv arena_printf(struct arena *a, const char *fmt, ...) PRINTF_LIKE(2, 3);
sv arena_vprintf(struct arena *a, const char *fmt, va_list ap) PRINTF_LIKE(2, 0);
/* Call fn(arg) when the arena ends: for what the arena's objects own outside of it (regexes,
 * SSL_CTX, refs). */
void arena_on_fini(struct arena *a, void (*fn)(void *arg), void *arg);
/* Give the unfilled end of the newest block back to the heap: nothing more is to come for long.
 * What was allocated stays where it is. */
void arena_trim(struct arena *a);
size_t arena_bytes(const struct arena *a); /* heap bytes held */
/* Builds with AddressSanitizer abort when an object of `kept` points into `scratch`, which is about
 * to end. Others do nothing. */
void arena_check_apart(const struct arena *kept, const struct arena *scratch);

#endif
