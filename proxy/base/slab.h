/* Blocks of a few hundred bytes that come and go with every request (codec streams, nghttp2's
 * objects), from free lists per thread by size class: no search, no coalescing. Blocks above
 * SLAB_MAX_BYTES come from the heap.
 * Threads: a block is freed on the thread that allocated it. */
#ifndef SLUICE_BASE_SLAB_H
#define SLUICE_BASE_SLAB_H

#include <stddef.h>

#define SLAB_MAX_BYTES 1008u
/* in a thread's free lists; what exceeds it goes to the heap */
#define SLAB_KEEP_BYTES (256u * 1024)

void *slab_alloc(size_t n);               /* uninitialised, aligned to 16, never NULL */
void *slab_calloc(size_t n, size_t size); /* zeroed, overflow-checked */
void *slab_realloc(void *p, size_t n);    /* p may be NULL */
void slab_free(void *p);                  /* NULL is fine */
/* Free this thread's free lists (at thread end). */
void slab_trim(void);
size_t slab_kept_bytes(void); /* in this thread's free lists */

#define slab_new(type) ((type *)slab_calloc(1, sizeof(type)))

#endif
