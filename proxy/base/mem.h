/* Heap allocation. We do not test out-of-memory paths: xalloc aborts, and input is bounded
 * everywhere. Only base/ calls malloc and free directly. */
#ifndef SLUICE_BASE_MEM_H
#define SLUICE_BASE_MEM_H

#include <stddef.h>

void *xalloc(size_t n);                              /* uninitialised, never NULL, n may be 0 */
void *xcalloc(size_t n, size_t size);                /* zeroed, overflow-checked */
void *xrealloc(void *p, size_t n);                   /* p may be NULL */
void *xreallocarray(void *p, size_t n, size_t size); /* overflow-checked */
void xfree(void *p);                                 /* NULL is fine */
void *xmemdup(const void *p, size_t n);
char *xstrdup(const char *s);

#define xnew(type) ((type *)xcalloc(1, sizeof(type)))
#define xnew_array(type, n) ((type *)xcalloc((n), sizeof(type)))

/* AddressSanitizer sees into our own allocators: what an arena has not handed out and what waits in
 * a free list is poisoned. REDZONE bytes then part neighbours. Nothing of this exists in other
 * builds. */
#if defined(__SANITIZE_ADDRESS__)
#define MEM_ASAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define MEM_ASAN 1
#endif
#endif
#if defined(__SANITIZE_THREAD__)
#define MEM_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MEM_TSAN 1
#endif
#endif
#if defined(MEM_ASAN) || defined(MEM_TSAN)
#define MEM_IS_SANITIZED 1 /* the heap is not the C library's */
#else
#define MEM_IS_SANITIZED 0
#endif
/* Of a function that looks at poisoned memory on purpose. */
#define NO_SANITIZE_ADDRESS __attribute__((no_sanitize("address")))
#ifdef MEM_ASAN
#define MEM_TELLS_UNUSED 1 /* what an allocator handed out and what it did not can be told apart */
#include <sanitizer/asan_interface.h>
#define MEM_REDZONE 16u
#define MEM_POISON(p, n) __asan_poison_memory_region((p), (n))
#define MEM_UNPOISON(p, n) __asan_unpoison_memory_region((p), (n))
#define MEM_IS_POISONED(p) __asan_address_is_poisoned((p))
#else
#define MEM_TELLS_UNUSED 0
#define MEM_REDZONE 0u
#define MEM_POISON(p, n) ((void)(p), (void)(n))
#define MEM_UNPOISON(p, n) ((void)(p), (void)(n))
#define MEM_IS_POISONED(p) ((void)(p), 0)
#endif

/* Have the C library keep little of what is freed: of itself it lets its limits grow to twice the
 * largest block that it ever freed, which after one large update is megabytes for each thread's
 * heap. Once, at the start. */
void mem_tune(void);
/* Give unused heap pages back to the system (malloc_trim); used after large updates and by
 * /memory. */
void mem_trim(void);

#endif
