/* Free lists of small blocks, one per size class and thread. Each block has a head that names its
 * class; the next free one's address is in its data.
 * Threads: blocks and free lists belong to one thread.
 * Not here: received bytes (chunks, buf.c), what a request allocates (arena.c). Under
 * AddressSanitizer every block comes from the heap, where misuse is seen best. */
#include "proxy/base/slab.h"

#include <stdint.h>
#include <string.h>

#include "proxy/base/check.h"
#include "proxy/base/mem.h"

#define CLASS_BYTES 64u /* sizes are rounded up to a multiple of it, head included */

struct block {
    size_t bytes;   /* room behind the head */
    unsigned class; /* 0: from the heap */
    char data[] __attribute__((aligned(16)));
};
#define CLASSES ((SLAB_MAX_BYTES + sizeof(struct block)) / CLASS_BYTES + 1)
_Static_assert((SLAB_MAX_BYTES + sizeof(struct block)) % CLASS_BYTES == 0, "whole classes");

static _Thread_local struct {
    struct block *head[CLASSES];
    size_t bytes; /* of all blocks in them, heads not counted */
} lists;

static struct block *block_of(void *p) { return CONTAINER_OF(p, struct block, data); }

static unsigned class_of(size_t n) {
#ifdef MEM_ASAN
    (void)n;
    return 0;
#else
    return n > SLAB_MAX_BYTES ? 0 : (unsigned)((n + sizeof(struct block) - 1) / CLASS_BYTES + 1);
#endif
}

static struct block *next_free(const struct block *b) {
    struct block *next;
    memcpy(&next, b->data, sizeof(next));
    return next;
}

static struct block *heap_block(size_t n, unsigned class) {
    CHECK(n < SIZE_MAX - sizeof(struct block));
    size_t room = class ? class * CLASS_BYTES - sizeof(struct block) : n;
    struct block *b = xalloc(sizeof(*b) + room);
    b->bytes = room;
    b->class = class;
    return b;
}

void *slab_alloc(size_t n) {
    unsigned class = class_of(n);
    struct block *b = lists.head[class];
    if (UNLIKELY(!b)) {
        return heap_block(n, class)->data;
    }
    lists.head[class] = next_free(b);
    lists.bytes -= b->bytes;
    return b->data;
}

void *slab_calloc(size_t n, size_t size) {
    size_t total;
    CHECK(!__builtin_mul_overflow(n, size, &total));
    return memset(slab_alloc(total), 0, total);
}

void *slab_realloc(void *p, size_t n) {
    if (!p) {
        return slab_alloc(n);
    }
    struct block *b = block_of(p);
    if (n <= b->bytes) {
        return p;
    }
    void *larger = slab_alloc(n);
    memcpy(larger, p, b->bytes);
    slab_free(p);
    return larger;
}

void slab_free(void *p) {
    if (!p) {
        return;
    }
    struct block *b = block_of(p);
    if (!b->class || lists.bytes + b->bytes > SLAB_KEEP_BYTES) {
        xfree(b);
        return;
    }
    memcpy(b->data, &lists.head[b->class], sizeof(struct block *));
    lists.head[b->class] = b;
    lists.bytes += b->bytes;
}

void slab_trim(void) {
    for (size_t i = 1; i < CLASSES; i++) {
        while (lists.head[i]) {
            struct block *b = lists.head[i];
            lists.head[i] = next_free(b);
            xfree(b);
        }
    }
    lists.bytes = 0;
}

size_t slab_kept_bytes(void) { return lists.bytes; }
